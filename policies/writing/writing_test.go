package writing

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

func header(docType string) policies.Header {
	return policies.Header{Type: docType, Suite: policies.Suite, ID: policies.DocumentID{5: 1}, Time: 1_800_000_000}
}

func validGrant() *Grant {
	return &Grant{
		Header: header("write-grant"), Audience: policies.VaultID{1}, Owner: policies.OwnerID{2}, Link: policies.Link{Seq: 3, Prev: policies.Hash{4}},
		Writer: policies.AuthorID{5}, Purpose: "upkeep", NotBefore: 1_800_000_000, Expires: 1_800_086_400,
		Fields: []Field{{"bank.iban", 1}, {"phone.mobile", 3}}, Sealed: make([]byte, policies.KEMCiphertextSize+2*33+16),
	}
}

func validEnd() *End {
	return &End{
		Header: header("write-end"), Audience: policies.VaultID{1}, Owner: policies.OwnerID{2}, Link: policies.Link{Seq: 4, Prev: policies.Hash{4}},
		Writer: policies.AuthorID{5}, Last: Last{7, policies.Hash{8}},
		Items: []Ended{{policies.DocumentID{5: 1}, "bank.iban", policies.Hash{9}}, {policies.DocumentID{5: 1}, "phone.mobile", policies.Hash{}}},
	}
}

func TestGrantForm(t *testing.T) {
	if err := validGrant().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, bend := range map[string]func(*Grant){
		"another type":               func(d *Grant) { d.Type = "grant" },
		"another suite":              func(d *Grant) { d.Suite = "SP2" },
		"no id":                      func(d *Grant) { d.ID = policies.DocumentID{} },
		"no vault":                   func(d *Grant) { d.Audience = policies.VaultID{} },
		"no owner":                   func(d *Grant) { d.Owner = policies.OwnerID{} },
		"no writer":                  func(d *Grant) { d.Writer = policies.AuthorID{} },
		"the owner as writer":        func(d *Grant) { d.Writer = policies.AuthorID(d.Owner) },
		"no place":                   func(d *Grant) { d.Seq = 0 },
		"no purpose":                 func(d *Grant) { d.Purpose = "" },
		"a purpose with a newline":   func(d *Grant) { d.Purpose = "a\nb" },
		"no beginning":               func(d *Grant) { d.NotBefore = 0 },
		"no time":                    func(d *Grant) { d.Expires = d.NotBefore },
		"no field":                   func(d *Grant) { d.Fields, d.Sealed = nil, make([]byte, policies.KEMCiphertextSize+16) },
		"a field twice":              func(d *Grant) { d.Fields[1].Field = "bank.iban" },
		"no field's name":            func(d *Grant) { d.Fields[0].Field = "Bank" },
		"epoch 0":                    func(d *Grant) { d.Fields[0].Epoch = 0 },
		"a point too few":            func(d *Grant) { d.Sealed = d.Sealed[33:] },
		"points of 65 bytes":         func(d *Grant) { d.Sealed = make([]byte, policies.KEMCiphertextSize+2*65+16) },
		"more fields than a grant's": func(d *Grant) { d.Fields = make([]Field, policies.MaxGrantFields+1) },
	} {
		d := validGrant()
		bend(d)
		if err := d.Validate(); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEndForm(t *testing.T) {
	if err := validEnd().Validate(); err != nil {
		t.Fatal(err)
	}
	never := validEnd()
	never.Last, never.Items[0].Kept = Last{}, policies.Hash{}
	if err := never.Validate(); err != nil {
		t.Errorf("a writer who never wrote: %v", err)
	}
	for name, bend := range map[string]func(*End){
		"another type":             func(d *End) { d.Type = "revocation" },
		"no vault":                 func(d *End) { d.Audience = policies.VaultID{} },
		"no writer":                func(d *End) { d.Writer = policies.AuthorID{} },
		"no place":                 func(d *End) { d.Seq = 0 },
		"a version without a hash": func(d *End) { d.Last.Manifest = policies.Hash{} },
		"a hash without a version": func(d *End) { d.Last.Version = 0 },
		"kept of nothing":          func(d *End) { d.Last = Last{} },
		"no item":                  func(d *End) { d.Items = nil },
		"no grant":                 func(d *End) { d.Items[0].Grant = policies.DocumentID{} },
		"no field":                 func(d *End) { d.Items[0].Field = "" },
		"an item twice":            func(d *End) { d.Items[1].Field = "bank.iban" },
		"too many items":           func(d *End) { d.Items = make([]Ended, policies.MaxRevokedItems+1) },
	} {
		d := validEnd()
		bend(d)
		if err := d.Validate(); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Each thing that the points are bound to changes the info.
func TestInfoBinds(t *testing.T) {
	base := validGrant().Info()
	for name, bend := range map[string]func(*Grant){
		"vault":  func(d *Grant) { d.Audience = policies.VaultID{9} },
		"grant":  func(d *Grant) { d.ID = policies.DocumentID{9} },
		"owner":  func(d *Grant) { d.Owner = policies.OwnerID{9} },
		"writer": func(d *Grant) { d.Writer = policies.AuthorID{9} },
		"field":  func(d *Grant) { d.Fields[0].Field = "bank.ibam" },
		"epoch":  func(d *Grant) { d.Fields[0].Epoch = 2 },
		"order":  func(d *Grant) { d.Fields[0], d.Fields[1] = d.Fields[1], d.Fields[0] },
		"length": func(d *Grant) { d.Fields = d.Fields[:1] },
	} {
		d := validGrant()
		bend(d)
		if bytes.Equal(d.Info(), base) {
			t.Errorf("another %s makes no difference", name)
		}
	}
}

func TestCheck(t *testing.T) {
	g := validGrant()
	leaf := policies.Hash{1, 2}
	item := Item{Leaf: leaf, Field: "phone.mobile", Epoch: 3, Version: 2, Head: 4, Index: 100, Accepted: g.NotBefore + 10}
	standing := func(ended ...Ended) []Standing {
		s := Standing{Grant: g, Index: 50, Ended: map[policies.Field]Ended{}}
		for _, e := range ended {
			s.Ended[e.Field] = e
		}
		return []Standing{s}
	}
	for _, c := range []struct {
		name     string
		standing []Standing
		bend     func(*Item)
		want     error
	}{
		{"covered", standing(), nil, nil},
		{"no grant", nil, nil, policies.CodeNoWriteGrant},
		{"a field beyond", standing(), func(i *Item) { i.Field = "email.home" }, policies.CodeNoWriteGrant},
		{"another epoch", standing(), func(i *Item) { i.Epoch = 2 }, policies.CodeNoWriteGrant},
		{"a version from the future", standing(), func(i *Item) { i.Version = 5 }, policies.CodeLeaf},
		{"a manifest from before the grant", standing(), func(i *Item) { i.Index = 49 }, policies.CodeNoWriteGrant},
		{"a manifest from before its time", standing(), func(i *Item) { i.Accepted = g.NotBefore - 1 }, policies.CodeNoWriteGrant},
		{"the last moment", standing(), func(i *Item) { i.Accepted = g.Expires - 1 }, nil},
		{"a manifest from after its time", standing(), func(i *Item) { i.Accepted = g.Expires }, policies.CodeWriteEnded},
		{"ended", standing(Ended{Field: "phone.mobile"}), nil, policies.CodeWriteEnded},
		{"ended, and kept", standing(Ended{Field: "phone.mobile", Kept: leaf}), nil, nil},
		{"ended, and kept, whenever", standing(Ended{Field: "phone.mobile", Kept: leaf}), func(i *Item) { i.Accepted = g.Expires + 1000 }, nil},
		{"ended, and another kept", standing(Ended{Field: "phone.mobile", Kept: policies.Hash{1, 3}}), nil, policies.CodeWriteEnded},
		{"another field ended", standing(Ended{Field: "bank.iban"}), nil, nil},
		{"an older grant ended, a newer in force", append(standing(Ended{Field: "phone.mobile"}), Standing{Grant: g, Index: 60}), nil, nil},
		{"a newer grant than the manifest", []Standing{{Grant: g, Index: 101}}, nil, policies.CodeNoWriteGrant},
	} {
		i := item
		if c.bend != nil {
			c.bend(&i)
		}
		if err := Check(c.standing, i); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// An end must name the writer's newest manifest where a newer grant lets the writer go on, and nowhere else.
func TestCheckEnd(t *testing.T) {
	grant := func(id byte, index uint64, ended []policies.Field, fields ...policies.Field) Standing {
		s := Standing{Grant: &Grant{Header: policies.Header{ID: policies.DocumentID{id}}}, Index: index, Ended: map[policies.Field]Ended{}}
		for _, f := range fields {
			s.Grant.Fields = append(s.Grant.Fields, Field{f, uint64(id)})
		}
		for _, f := range ended {
			s.Ended[f] = Ended{Field: f}
		}
		return s
	}
	item := func(id byte, f policies.Field) Ended { return Ended{Grant: policies.DocumentID{id}, Field: f} }
	old, next := grant(1, 10, nil, "phone", "mail"), grant(2, 20, nil, "phone")
	over := grant(2, 20, []policies.Field{"phone"}, "phone", "mail")
	for _, c := range []struct {
		name      string
		standing  []Standing
		last      uint64
		items     []Ended
		headMoved bool
	}{
		{"the newest is named", []Standing{old, next}, 7, []Ended{item(1, "phone")}, false},
		{"an older, and the writer goes on", []Standing{old, next}, 6, []Ended{item(1, "phone")}, true},
		{"in whatever order they are listed", []Standing{next, old}, 6, []Ended{item(1, "phone")}, true},
		{"none, and the writer goes on", []Standing{old, next}, 0, []Ended{item(1, "phone")}, true},
		{"behind an item that stops the writer", []Standing{old, next}, 6, []Ended{item(1, "mail"), item(1, "phone")}, true},
		{"an older, and the writer is stopped", []Standing{old}, 6, []Ended{item(1, "phone")}, false},
		{"stopped altogether", []Standing{old, next}, 6, []Ended{item(1, "phone"), item(2, "phone")}, false},
		{"the newer one ends, and the older goes on", []Standing{old, next}, 6, []Ended{item(2, "phone")}, false},
		{"the newer one is about another field", []Standing{old, next}, 6, []Ended{item(1, "mail")}, false},
		{"the newer one was ended before", []Standing{old, over}, 6, []Ended{item(1, "phone")}, false},
		{"the newer one was ended for another field", []Standing{old, over}, 6, []Ended{item(1, "mail")}, true},
		{"the older one was ended before", []Standing{grant(1, 10, []policies.Field{"phone"}, "phone"), next}, 6, []Ended{item(1, "phone")}, false},
		{"the one between two", []Standing{old, next, grant(3, 30, nil, "phone")}, 6, []Ended{item(2, "phone")}, true},
		{"a grant that is not there", []Standing{next}, 6, []Ended{item(1, "phone")}, false},
	} {
		err := CheckEnd(c.standing, &End{Last: Last{Version: c.last}, Items: c.items}, 7)
		if c.headMoved && err != policies.CodeHeadMoved || !c.headMoved && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestCheckAuthor(t *testing.T) {
	g := validGrant()
	over := map[policies.Field]Ended{"bank.iban": {}, "phone.mobile": {}}
	for _, c := range []struct {
		name     string
		standing []Standing
		now      int64
		want     error
	}{
		{"in force", []Standing{{Grant: g}}, g.NotBefore, nil},
		{"none", nil, g.NotBefore, policies.CodeNoWriteGrant},
		{"too early", []Standing{{Grant: g}}, g.NotBefore - 1, policies.CodeNotYet},
		{"too late", []Standing{{Grant: g}}, g.Expires, policies.CodeWriteEnded},
		{"all fields ended", []Standing{{Grant: g, Ended: over}}, g.NotBefore, policies.CodeWriteEnded},
		{"one field ended", []Standing{{Grant: g, Ended: map[policies.Field]Ended{"bank.iban": {}}}}, g.NotBefore, nil},
		{"one over, one in force", []Standing{{Grant: g, Ended: over}, {Grant: g}}, g.NotBefore, nil},
	} {
		if err := CheckAuthor(c.standing, c.now); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// Whatever is accepted can be signed and comes back the same.
func FuzzDocument(f *testing.F) {
	for _, d := range []envelope.Document{validGrant(), validEnd()} {
		e, err := envelope.Seal(envelope.NewSessionKey(), d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(e.Type, e.Payload)
		f.Add(e.Type, bytes.Replace(e.Payload, []byte(`"SP1"`), []byte(`null`), 1))
	}
	key := envelope.NewSessionKey()
	f.Fuzz(func(t *testing.T, docType string, payload []byte) {
		e := &envelope.Envelope{Type: docType, Payload: payload}
		switch docType {
		case "write-grant":
			if d, err := policies.Decode[Grant](e); err == nil {
				signed, err := policies.Sign(key, d)
				if err != nil {
					t.Fatal(err)
				}
				if back, err := policies.Decode[Grant](signed); err != nil || !reflect.DeepEqual(back, d) || !bytes.Equal(back.Info(), d.Info()) {
					t.Errorf("came back as %+v, %v", back, err)
				}
			}
		case "write-end":
			if d, err := policies.Decode[End](e); err == nil {
				signed, err := policies.Sign(key, d)
				if err != nil {
					t.Fatal(err)
				}
				if back, err := policies.Decode[End](signed); err != nil || !reflect.DeepEqual(back, d) {
					t.Errorf("came back as %+v, %v", back, err)
				}
			}
		}
	})
}
