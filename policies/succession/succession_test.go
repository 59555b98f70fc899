package succession

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

var now = time.Unix(1_800_000_000, 0)

func key(b byte) *envelope.PrivateKey {
	return envelope.NewPrivateKey(&[envelope.SeedSize]byte{b})
}

// begin is an identity whose key is 1 and whose recovery key is 2.
func begin(t *testing.T) Line {
	t.Helper()
	d := &policies.Identity{
		Header: policies.NewHeader("identity", now), Kind: policies.KindPerson, SigningKey: key(1).Public().Bytes(),
		KEMKey: bytes.Repeat([]byte{1}, policies.KEMPublicKeySize), LoginKey: bytes.Repeat([]byte{2}, policies.KEMPublicKeySize),
		RecoveryHash: policies.HashKey(key(2).Public().Bytes()),
	}
	e, err := policies.Sign(key(1), d)
	if err != nil {
		t.Fatal(err)
	}
	return Begin(policies.IdentityID(e.Hash), d)
}

// next is the succession after a line, to key b, with the recovery key 2 of the line's first document and b+1 as the next one.
func next(l *Line, b byte) *Document {
	h := l.Newest()
	return &Document{
		Header: policies.NewHeader(docType, now), Audience: policies.VaultID{9}, Identity: l.ID, Link: policies.Link{Seq: h.Seq + 3, Prev: policies.Hash{7}},
		Generation: h.Generation + 1, Previous: h.Document, SigningKey: key(b).Public().Bytes(),
		KEMKey: bytes.Repeat([]byte{b}, policies.KEMPublicKeySize), LoginKey: bytes.Repeat([]byte{b + 1}, policies.KEMPublicKeySize),
		RecoveryHash: policies.HashKey(key(b + 1).Public().Bytes()), RecoveryKey: key(2).Public().Bytes(), Reason: Stolen,
	}
}

func TestOpen(t *testing.T) {
	for _, c := range []struct {
		what           string
		change         func(*Document)
		first, second  byte
		want           error
		refusedToBegin bool // by whoever signs
	}{
		{"the recovery key", func(*Document) {}, 11, 2, nil, false},
		{"the key before", func(d *Document) { d.RecoveryKey, d.Notice = nil, policies.Hash{5} }, 11, 1, nil, false},
		{"the thief's key in place of the new one", func(*Document) {}, 1, 2, policies.ErrSignature, false},
		{"the key before where the recovery key is named", func(*Document) {}, 11, 1, policies.ErrSignature, false},
		{"signatures swapped", func(*Document) {}, 2, 11, policies.ErrSignature, false},
		{"another recovery key", func(d *Document) { d.RecoveryKey = key(77).Public().Bytes() }, 11, 77, policies.CodeRecovery, false},
		{"somebody else where a notice is named", func(d *Document) { d.RecoveryKey, d.Notice = nil, policies.Hash{5} }, 11, 77, policies.ErrSignature, false},
		{"neither recovery key nor notice", func(d *Document) { d.RecoveryKey = nil }, 11, 1, policies.ErrMalformed, true},
		{"both", func(d *Document) { d.Notice = policies.Hash{5} }, 11, 2, policies.ErrMalformed, true},
		{"of another identity", func(d *Document) { d.Identity = policies.IdentityID{1} }, 11, 2, policies.ErrMalformed, false},
		{"a generation left out", func(d *Document) { d.Generation++ }, 11, 2, policies.CodeSuccessionOld, false},
		{"over another document", func(d *Document) { d.Previous = policies.Hash{1} }, 11, 2, policies.CodeSuccessionOld, false},
		{"the same signing key", func(d *Document) { d.SigningKey = key(1).Public().Bytes() }, 1, 2, policies.ErrMalformed, false},
		{"the same login key", func(d *Document) { d.LoginKey = bytes.Repeat([]byte{2}, policies.KEMPublicKeySize) }, 11, 2, policies.ErrMalformed, false},
		{"a signing key that recovers", func(d *Document) { d.RecoveryHash = policies.HashKey(d.SigningKey) }, 11, 2, policies.ErrMalformed, true},
		{"no reason", func(d *Document) { d.Reason = "" }, 11, 2, policies.ErrMalformed, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			l := begin(t)
			d := next(&l, 11)
			c.change(d)
			if _, err := Sign(d, key(c.first), key(c.second)); (err != nil) != c.refusedToBegin {
				t.Fatalf("signing: %v", err)
			}
			e, err := envelope.Seal(key(c.first), d, key(c.second))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Open(e); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
}

// TestLine: after two successions each place in the chain has its key, and a replayed succession is refused.
func TestLine(t *testing.T) {
	l := begin(t)
	first, err := Sign(next(&l, 11), key(11), key(2))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Take(first); err != nil {
		t.Fatal(err)
	}
	d := next(&l, 21)
	d.RecoveryKey = key(12).Public().Bytes()
	second, err := Sign(d, key(21), key(12))
	if err != nil {
		t.Fatal(err)
	}
	short := l
	if _, err := l.Take(second); err != nil {
		t.Fatal(err)
	}
	if len(short.Holders) != 2 || len(l.Holders) != 3 {
		t.Errorf("%d and %d generations: a copy of a line changed with it", len(short.Holders), len(l.Holders))
	}
	if _, err := l.Open(first); !errors.Is(err, policies.CodeSuccessionOld) {
		t.Errorf("a replayed succession: %v", err)
	}
	if _, err := l.Take(first); err != nil || len(l.Holders) != 3 {
		t.Errorf("one that the line has: %v, %d generations", err, len(l.Holders))
	}
	for _, c := range []struct {
		seq    uint64
		signer byte
		ok     bool
	}{
		{2, 1, true}, {2, 11, true}, {2, 21, true}, // signed anew later
		{4, 1, false}, {4, 11, true}, {4, 21, true},
		{7, 1, false}, {7, 11, false}, {7, 21, true},
		{2, 77, false}, {7, 2, false}, // the recovery key signs successions and nothing else
	} {
		n := &Notice{Header: policies.NewHeader(noticeType, now), Audience: policies.VaultID{9}, Identity: l.ID, Link: policies.Link{Seq: c.seq}}
		e, err := policies.Sign(key(c.signer), n)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Verify(e, c.seq); (err == nil) != c.ok {
			t.Errorf("a document at %d signed by key %d: %v", c.seq, c.signer, err)
		}
	}
}

func TestSuccessor(t *testing.T) {
	l := begin(t)
	d := next(&l, 11)
	was := d.Successor()
	for what, change := range map[string]func(*Document){
		"signing key":   func(d *Document) { d.SigningKey = key(12).Public().Bytes() },
		"KEM key":       func(d *Document) { d.KEMKey = bytes.Repeat([]byte{99}, policies.KEMPublicKeySize) },
		"login key":     func(d *Document) { d.LoginKey = bytes.Repeat([]byte{99}, policies.KEMPublicKeySize) },
		"recovery hash": func(d *Document) { d.RecoveryHash = policies.Hash{99} },
		"identity":      func(d *Document) { d.Identity = policies.IdentityID{99} },
	} {
		other := next(&l, 11)
		if change(other); other.Successor() == was {
			t.Errorf("another %s, and the notice fits all the same", what)
		}
	}
}

func renunciation() *Renunciation {
	return &Renunciation{
		Header: policies.NewHeader("renunciation", now), Audience: policies.VaultID{9}, Reader: policies.ReaderID{1}, Owner: policies.OwnerID{2},
		Items: []policies.RevokedItem{{Grant: policies.DocumentID{3}, Field: "phone.mobile", Author: policies.AuthorID{2}}},
	}
}

func TestRenunciation(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*Renunciation)
		ok     bool
	}{
		"good":            {func(*Renunciation) {}, true},
		"of nothing":      {func(d *Renunciation) { d.Items = nil }, false},
		"of too much":     {func(d *Renunciation) { d.Items = slices.Repeat(d.Items, policies.MaxRevokedItems+1) }, false},
		"of all it may":   {func(d *Renunciation) { d.Items = slices.Repeat(d.Items, policies.MaxRevokedItems) }, true},
		"of no grant":     {func(d *Renunciation) { d.Items[0].Grant = policies.DocumentID{} }, false},
		"of no field":     {func(d *Renunciation) { d.Items[0].Field = "No Field" }, false},
		"of no author":    {func(d *Renunciation) { d.Items[0].Author = policies.AuthorID{} }, false},
		"of nobody":       {func(d *Renunciation) { d.Reader = policies.ReaderID{} }, false},
		"to nobody":       {func(d *Renunciation) { d.Owner = policies.OwnerID{} }, false},
		"for no vault":    {func(d *Renunciation) { d.Audience = policies.VaultID{} }, false},
		"of another type": {func(d *Renunciation) { d.Type = "suspension" }, false},
	} {
		d := renunciation()
		c.change(d)
		if err := d.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzDocument(f *testing.F) {
	l := Line{ID: policies.IdentityID{1}, Holders: []Holder{{Generation: 1, Document: policies.Hash{1}, SigningKey: key(1).Public().Bytes(), Recovery: policies.HashKey(key(2).Public().Bytes())}}}
	e, err := Sign(next(&l, 11), key(11), key(2))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Raw)
	if e, err = policies.Sign(key(1), renunciation()); err != nil {
		f.Fatal(err)
	}
	f.Add(e.Raw)
	f.Add([]byte(`{"payloadType":"application/vnd.sallyport.succession-notice.v1+json","payload":"e30=","signatures":[{"sig":""}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := envelope.Parse(raw)
		if err != nil {
			return
		}
		if d, err := policies.Decode[Suspension](e); err == nil && d.Seq == 0 {
			t.Error("a suspension that is not valid was decoded")
		}
		if d, err := policies.Decode[Renunciation](e); err == nil && (len(d.Items) == 0 || d.Owner.IsZero()) {
			t.Error("a renunciation of nothing was decoded")
		}
		if d, err := policies.Decode[Notice](e); err == nil && d.Validate() != nil {
			t.Error("a notice that is not valid was decoded")
		}
		if d, err := l.Open(e); err == nil && (d.Generation != 2 || d.Previous != l.Newest().Document || policies.HashKey(d.RecoveryKey) != l.Newest().Recovery) {
			t.Error("a succession that does not follow was accepted")
		}
	})
}
