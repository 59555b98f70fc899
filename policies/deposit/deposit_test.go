package deposit

import (
	"crypto/sha256"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	"github.com/sallyport/sallyport/policies/envelope"
)

var (
	now      = time.Unix(1_800_000_000, 0)
	bank     = policies.IdentityID{1}
	zoe      = policies.IdentityID{2}
	employer = policies.IdentityID{3}
	other    = policies.IdentityID{4}
	asked    = policies.Hash{5}
	ordered  = policies.Hash{6}
	income   = []byte(`{"v":1,"type":"text","text":"2500"}`)
	key      = envelope.NewPrivateKey(&[envelope.SeedSize]byte{1})
	mole     = envelope.NewPrivateKey(&[envelope.SeedSize]byte{2})
)

func header(docType string) policies.Header {
	return policies.Header{Type: docType, Suite: policies.Suite, ID: policies.DocumentID{9}, Time: now.Unix()}
}

func addressed(docType string, from, to policies.IdentityID, answers policies.Hash) consent.Addressed {
	return consent.Addressed{Header: header(docType), From: from, To: to, Answers: answers, Expires: now.Add(time.Hour).Unix()}
}

func specification() *Specification {
	return &Specification{Source: employer, Request: consent.Request{
		Addressed: addressed("data-specification", bank, zoe, policies.Hash{}), Duration: 86400, Nonce: policies.Nonce{1},
		Purpose: consent.Purpose{Text: "a loan", Term: "ServiceProvision"},
		Fields:  []consent.AskedField{{Field: "income.net", Required: true, Reason: "net income of a month"}, {Field: "job.since", Reason: "since when"}},
	}}
}

func sealedOf(d envelope.Document) *envelope.Envelope {
	e, err := envelope.Seal(key, d)
	if err != nil {
		panic(err)
	}
	return e
}

func order() *Order {
	e := sealedOf(specification())
	return &Order{
		Addressed: addressed("deposit-order", zoe, employer, policies.Hash(e.Hash)), Requester: bank, Specification: e.Raw,
		Fields: []policies.Field{"income.net", "job.since"}, Until: now.Unix() + 86400, Nonce: policies.Nonce{2},
	}
}

func slip() *Slip {
	return &Slip{Addressed: addressed("deposit-slip", zoe, bank, asked), Source: employer, Order: ordered, Sealed: []byte{1}}
}

func forward() *Forward {
	return &Forward{Addressed: addressed("deposit-forward", bank, employer, asked), Customer: zoe, Order: ordered, Sealed: []byte{1}}
}

func attestation() *Attestation {
	return &Attestation{
		Header: header("deposit-attestation"), Source: employer, Owner: policies.OwnerID(zoe), Requester: bank, Field: "income.net",
		Specification: asked, Order: ordered, Value: sha256.Sum256(income),
	}
}

type document interface {
	envelope.Document
	Validate() error
}

// TestForms: as they are made the documents pass, strict JSON and back; spoilt in any one place they are refused.
func TestForms(t *testing.T) {
	for _, c := range []struct {
		valid func() document
		spoil map[string]func(document)
	}{
		{func() document { return specification() }, map[string]func(document){
			"a request for consent": func(d document) { d.(*Specification).Type = "consent-request" },
			"no source":             func(d document) { d.(*Specification).Source = policies.IdentityID{} },
			"the requester":         func(d document) { d.(*Specification).Source = bank },
			"the customer":          func(d document) { d.(*Specification).Source = zoe },
			"nine fields": func(d document) {
				s := d.(*Specification)
				for _, name := range []policies.Field{"a", "b", "c", "d", "e", "f", "g"} {
					s.Fields = append(s.Fields, consent.AskedField{Field: name, Reason: "x"})
				}
			},
			"no field": func(d document) { d.(*Specification).Fields = nil },
		}},
		{func() document { return order() }, map[string]func(document){
			"another type":     func(d document) { d.(*Order).Type = "letter" },
			"answers nothing":  func(d document) { d.(*Order).Answers = policies.Hash{} },
			"nobody asked":     func(d document) { d.(*Order).Requester = policies.IdentityID{} },
			"the source asked": func(d document) { d.(*Order).Requester = employer },
			"the owner asked":  func(d document) { d.(*Order).Requester = zoe },
			"nothing asked":    func(d document) { d.(*Order).Specification = nil },
			"no nonce":         func(d document) { d.(*Order).Nonce = policies.Nonce{} },
			"over at once":     func(d document) { d.(*Order).Until = now.Unix() },
			"no field":         func(d document) { d.(*Order).Fields = nil },
			"nine fields":      func(d document) { d.(*Order).Fields = slices.Repeat([]policies.Field{"a"}, MaxFields+1) },
			"out of order":     func(d document) { slices.Reverse(d.(*Order).Fields) },
			"no name":          func(d document) { d.(*Order).Fields[0] = "A" },
		}},
		{func() document { return slip() }, map[string]func(document){
			"another type":    func(d document) { d.(*Slip).Type = "letter" },
			"answers nothing": func(d document) { d.(*Slip).Answers = policies.Hash{} },
			"no source":       func(d document) { d.(*Slip).Source = policies.IdentityID{} },
			"two parties":     func(d document) { d.(*Slip).Source = bank },
			"no order":        func(d document) { d.(*Slip).Order = policies.Hash{} },
			"nothing sealed":  func(d document) { d.(*Slip).Sealed = nil },
			"too long":        func(d document) { d.(*Slip).Sealed = make([]byte, maxSealed+1) },
		}},
		{func() document { return forward() }, map[string]func(document){
			"another type":    func(d document) { d.(*Forward).Type = "letter" },
			"answers nothing": func(d document) { d.(*Forward).Answers = policies.Hash{} },
			"no customer":     func(d document) { d.(*Forward).Customer = policies.IdentityID{} },
			"two parties":     func(d document) { d.(*Forward).Customer = bank },
			"no order":        func(d document) { d.(*Forward).Order = policies.Hash{} },
			"nothing sealed":  func(d document) { d.(*Forward).Sealed = nil },
			"too long":        func(d document) { d.(*Forward).Sealed = make([]byte, maxSealed+1) },
		}},
		{func() document { return attestation() }, map[string]func(document){
			"another type":     func(d document) { d.(*Attestation).Type = "letter" },
			"no source":        func(d document) { d.(*Attestation).Source = policies.IdentityID{} },
			"no owner":         func(d document) { d.(*Attestation).Owner = policies.OwnerID{} },
			"no requester":     func(d document) { d.(*Attestation).Requester = policies.IdentityID{} },
			"no field":         func(d document) { d.(*Attestation).Field = "" },
			"no specification": func(d document) { d.(*Attestation).Specification = policies.Hash{} },
			"no order":         func(d document) { d.(*Attestation).Order = policies.Hash{} },
			"no value":         func(d document) { d.(*Attestation).Value = policies.Hash{} },
		}},
	} {
		d := c.valid()
		if err := d.Validate(); err != nil {
			t.Errorf("%s: %v", d.DocumentType(), err)
		}
		back := reflect.New(reflect.TypeOf(d).Elem()).Interface()
		data, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := envelope.Decode(data, back); err != nil || !reflect.DeepEqual(back, d) {
			t.Errorf("%s came back as %+v, %v", d.DocumentType(), back, err)
		}
		for name, spoil := range c.spoil {
			d := c.valid()
			if spoil(d); !errors.Is(d.Validate(), policies.ErrMalformed) {
				t.Errorf("%s, %s: got %v, want ErrMalformed", c.valid().DocumentType(), name, d.Validate())
			}
		}
	}
}

// TestMatch: an order is an answer to what the requester signed, to nothing else, and to no more.
func TestMatch(t *testing.T) {
	changed := func(change func(*Specification)) func(*Order) {
		return func(d *Order) {
			s := specification()
			change(s)
			e := sealedOf(s)
			d.Specification, d.Answers = e.Raw, policies.Hash(e.Hash)
		}
	}
	for name, c := range map[string]struct {
		spoil func(*Order)
		by    envelope.Verifier
		want  error
	}{
		"as it is":               {func(*Order) {}, key.Public(), nil},
		"some of it":             {func(d *Order) { d.Fields = d.Fields[:1] }, key.Public(), nil},
		"signed by another":      {func(*Order) {}, mole.Public(), policies.CodeSpecification},
		"no specification":       {func(d *Order) { d.Specification = []byte(`{}`) }, key.Public(), policies.CodeSpecification},
		"to another one":         {func(d *Order) { d.Answers = asked }, key.Public(), policies.CodeSpecification},
		"of another requester":   {func(d *Order) { d.Requester = other }, key.Public(), policies.CodeSpecification},
		"to another customer":    {func(d *Order) { d.From = other }, key.Public(), policies.CodeSpecification},
		"of another source":      {func(d *Order) { d.To = other }, key.Public(), policies.CodeSpecification},
		"names another source":   {changed(func(s *Specification) { s.Source = other }), key.Public(), policies.CodeSpecification},
		"a field more":           {func(d *Order) { d.Fields = append(d.Fields, "phone") }, key.Public(), policies.CodeTooWide},
		"a second longer":        {func(d *Order) { d.Until++ }, key.Public(), policies.CodeTooWide},
		"answered when too late": {func(d *Order) { d.Time = specification().Expires }, key.Public(), policies.CodeConsentExpired},
	} {
		d := order()
		c.spoil(d)
		if s, err := d.Match(c.by); !errors.Is(err, c.want) || err == nil && s.Source != employer {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		by   policies.IdentityID
		at   time.Time
		want error
	}{
		{bank, now, nil}, {other, now, policies.CodeForwarder}, {zoe, now, policies.CodeForwarder}, {bank, now.Add(time.Hour), policies.CodeConsentExpired},
	} {
		if err := order().Check(c.by, c.at); err != c.want {
			t.Errorf("by %s at %s: %v, want %v", c.by, c.at, err, c.want)
		}
	}
	short := order()
	short.Until = now.Unix() + 1
	if err := short.Check(bank, now.Add(time.Second)); err != policies.CodeConsentExpired {
		t.Errorf("a permission that is over: %v", err)
	}
}

// TestAttestation: an attestation is for one value in one field of one person, for one requester, specification and order, by one source.
func TestAttestation(t *testing.T) {
	check := func(d *Attestation, field policies.Field, value []byte) error {
		return d.Check(specification(), asked, ordered, field, value)
	}
	if err := check(attestation(), "income.net", income); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func(*Attestation)
		want  error
	}{
		"another source":        {func(d *Attestation) { d.Source = other }, policies.CodeSource},
		"another person":        {func(d *Attestation) { d.Owner = policies.OwnerID(other) }, policies.CodeAttestation},
		"another requester":     {func(d *Attestation) { d.Requester = other }, policies.CodeAttestation},
		"another specification": {func(d *Attestation) { d.Specification = ordered }, policies.CodeAttestation},
		"another order":         {func(d *Attestation) { d.Order = asked }, policies.CodeAttestation},
		"another field":         {func(d *Attestation) { d.Field = "job.since" }, policies.CodeAttestation},
		"another value":         {func(d *Attestation) { d.Value[0]++ }, policies.CodeAttestation},
	} {
		d := attestation()
		c.spoil(d)
		if err := check(d, "income.net", income); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if err := check(attestation(), "income.net", []byte(`{"v":1,"type":"text","text":"9500"}`)); !errors.Is(err, policies.CodeAttestation) {
		t.Errorf("a value that was changed: %v", err)
	}
	if err := check(attestation(), "job.since", income); !errors.Is(err, policies.CodeAttestation) {
		t.Errorf("in another field: %v", err)
	}
}

func TestWrap(t *testing.T) {
	e := sealedOf(attestation())
	wrapped, err := Wrap(income, e)
	if err != nil {
		t.Fatal(err)
	}
	value, got, err := Unwrap(wrapped)
	if err != nil || string(value) != string(income) || got.Hash != e.Hash {
		t.Errorf("came back as %s, %v", value, err)
	}
	for _, bad := range []string{"", string(income), `{"v":1,"type":"attested","text":""}`, `{"v":2,"type":"attested","text":"x","attestation":{}}`} {
		if _, _, err := Unwrap([]byte(bad)); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func FuzzDocuments(f *testing.F) {
	for _, d := range []document{specification(), order(), slip(), forward(), attestation()} {
		f.Add([]byte(sealedOf(d).Raw))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := envelope.Parse(data)
		if err != nil {
			return
		}
		if d, err := policies.Decode[Specification](e); err == nil && (d.Source == d.From || d.Source == d.To || len(d.Fields) > MaxFields) {
			t.Errorf("a specification: %+v", d)
		}
		if d, err := policies.Decode[Order](e); err == nil {
			if s, err := d.Match(key.Public()); err == nil && (len(d.Fields) > len(s.Fields) || d.Until > d.Time+s.Duration) {
				t.Errorf("an order beyond what was asked for: %+v", d)
			}
		}
		if d, err := policies.Decode[Slip](e); err == nil && d.Source == d.To {
			t.Errorf("a slip: %+v", d)
		}
		if d, err := policies.Decode[Forward](e); err == nil && d.Customer == d.To {
			t.Errorf("a forward: %+v", d)
		}
		if d, err := policies.Decode[Attestation](e); err == nil && d.Check(specification(), asked, ordered, "income.net", income) == nil && d.Source != employer {
			t.Errorf("an attestation: %+v", d)
		}
	})
}

func FuzzUnwrap(f *testing.F) {
	wrapped, err := Wrap(income, sealedOf(attestation()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wrapped)
	f.Add(income)
	f.Fuzz(func(t *testing.T, data []byte) {
		value, e, err := Unwrap(data)
		if err != nil {
			return
		}
		again, err := Wrap(value, e)
		if err != nil {
			t.Fatal(err)
		}
		if back, e2, err := Unwrap(again); err != nil || string(back) != string(value) || e2.Hash != e.Hash {
			t.Errorf("%s became %s, %v", value, back, err)
		}
	})
}
