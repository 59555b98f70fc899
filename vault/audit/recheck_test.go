package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
)

// world is a vault and its people, as far as its log tells of them. Each of its acts is honest unless a test bends it.
type world struct {
	*testLog
	now  time.Time
	seed byte
}

func newWorld() *world {
	return &world{testLog: newLog(newVault(1)), now: testTime.Add(time.Second)}
}

// tick moves the clock and returns the time.
func (w *world) tick(d time.Duration) time.Time {
	w.now = w.now.Add(d)
	return w.now
}

// person is somebody enrolled.
type person struct {
	w      *world
	key    *envelope.PrivateKey
	id     policies.IdentityID
	pseudo policies.Pseudonym
	seed   byte

	link     policies.Link // of an owner's next document
	version  uint64
	manifest policies.Hash
}

func (p *person) owner() policies.OwnerID   { return policies.OwnerID(p.id) }
func (p *person) author() policies.AuthorID { return policies.AuthorID(p.id) }
func (p *person) reader() policies.ReaderID { return policies.ReaderID(p.id) }

func (w *world) enrol() *person {
	w.seed++
	p := &person{w: w, seed: w.seed, key: envelope.NewPrivateKey((*[64]byte)(filled(64, 100+w.seed))), pseudo: policies.Pseudonym{w.seed}}
	e := must(policies.Sign(p.key, &policies.Identity{
		Header: policies.NewHeader("identity", w.now), Kind: policies.KindPerson, SigningKey: p.key.Public().Bytes(),
		KEMKey: filled(policies.KEMPublicKeySize, 1), LoginKey: filled(policies.KEMPublicKeySize, 2), RecoveryHash: policies.HashKey(recoveryKey(w.seed).Public().Bytes()),
	}))
	p.id = policies.IdentityID(e.Hash)
	p.link = policies.Link{Seq: 1, Prev: policies.Hash(p.id)}
	w.add(w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryIdentity, Owner: p.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{
		Document: e.Hash, Identity: p.id, Pseudo: p.pseudo,
	}, e.Raw)
	return p
}

func (p *person) took(seq uint64, hash policies.Hash) {
	p.link = policies.Link{Seq: seq + 1, Prev: hash}
}

// publish moves the owner's head.
func (p *person) publish(bend func(*policies.Manifest)) {
	m := &policies.Manifest{
		Header: policies.NewHeader("manifest", p.w.now), Audience: p.w.doc.Vault, Owner: p.owner(), Author: p.author(), Link: p.link,
		Version: p.version + 1, PrevManifest: p.manifest, TreeSize: 1, Root: policies.Hash{9},
	}
	if bend != nil {
		bend(m)
	}
	e := must(policies.Sign(p.key, m))
	p.took(m.Seq, e.Hash)
	p.version, p.manifest = m.Version, e.Hash
	p.w.add(p.w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryManifest, Owner: p.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{
		Owner: p.owner(), Author: p.author(), Document: e.Hash, Version: m.Version, Seq: m.Seq,
	}, e.Raw)
}

// grant permits a reader some fields. key signs: the owner's, if the vault is honest.
func (p *person) grant(r *person, key *envelope.PrivateKey, bend func(*policies.Grant), fields ...policies.Field) *policies.Grant {
	g := &policies.Grant{
		Header: policies.NewHeader("grant", p.w.now), Audience: p.w.doc.Vault, Owner: p.owner(), Link: p.link, Reader: r.reader(), Relationship: policies.Hash{1},
		Custody: policies.CustodyResident, Rights: []policies.Right{policies.RightRead}, Purpose: "delivery",
		NotBefore: p.w.now.Unix() - 60, Expires: p.w.now.Unix() + 90*86400, Ciphertext: filled(policies.KEMCiphertextSize, 3),
	}
	for _, f := range fields {
		g.Fields = append(g.Fields, policies.GrantedField{Field: f, Epoch: 1, Author: p.author(), Keys: []policies.WrappedKey{{Token: "token-1", ImportKey: policies.Hash{1}, Path: "oaep-direct", Digest: policies.Hash{2}}}})
	}
	if bend != nil {
		bend(g)
	}
	e := must(policies.Sign(key, g))
	index := p.w.add(p.w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryImport, Owner: p.pseudo, Reader: r.pseudo}, &evidence.Details{
		Owner: g.Owner, Reader: g.Reader, Grant: g.ID, Document: e.Hash, Token: "token-1", Custody: g.Custody,
	}, e.Raw)
	p.took(g.Seq, e.Hash)
	p.w.add(p.w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryGrant, Owner: p.pseudo, Reader: r.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{
		Owner: g.Owner, Reader: g.Reader, Grant: g.ID, Document: e.Hash, Seq: g.Seq, Index: index, Custody: g.Custody,
	}, nil)
	return g
}

func (p *person) revoke(g *policies.Grant, fields ...policies.Field) uint64 {
	d := &policies.Revocation{Header: policies.NewHeader("revocation", p.w.now), Audience: p.w.doc.Vault, Owner: p.owner(), Link: p.link, Reason: policies.ReasonWithdrawn}
	for _, f := range fields {
		d.Items = append(d.Items, policies.RevokedItem{Grant: g.ID, Field: f, Author: p.author()})
	}
	e := must(policies.Sign(p.key, d))
	p.took(d.Seq, e.Hash)
	return p.w.add(p.w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryRevocation, Owner: p.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{
		Owner: p.owner(), Document: e.Hash, Seq: d.Seq, Items: d.Items,
	}, e.Raw)
}

// opened is a reader's session.
type opened struct {
	reader *person
	hash   policies.Hash
	key    *envelope.SessionKey
}

func (p *person) open(key *envelope.PrivateKey, bend func(*policies.Session)) *opened {
	o := &opened{reader: p, key: envelope.NewSessionKey()}
	d := &policies.Session{
		Header: policies.NewHeader("session", p.w.now), Audience: p.w.doc.Vault, Reader: p.reader(), Key: o.key.Public(),
		NotBefore: p.w.now.Unix(), Expires: p.w.now.Unix() + 600, Ciphertext: filled(policies.KEMCiphertextSize, 4),
	}
	if bend != nil {
		bend(d)
	}
	e := must(policies.Sign(key, d))
	o.hash = e.Hash
	p.w.add(p.w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntrySession, Reader: p.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{
		Reader: p.reader(), Document: e.Hash, Session: e.Hash, Expires: d.Expires,
	}, e.Raw)
	return o
}

// reading is a request and its entries before they are made: what a test bends.
type reading struct {
	request *policies.ReadRequest
	key     *envelope.SessionKey
	raw     []byte // instead of a request that is signed now
	decided time.Time
	logged  time.Time
	entry   evidence.Entry
	details evidence.Details
	bare    bool // nothing lies beside the entry
}

// read releases a field.
func (o *opened) read(p *person, g *policies.Grant, f policies.Field, bend func(*reading)) (uint64, []byte) {
	w := p.w
	now := w.tick(time.Millisecond)
	x := &reading{key: o.key, decided: now, logged: now.Add(2 * time.Millisecond), request: &policies.ReadRequest{
		Header: policies.NewHeader("read", now), Audience: w.doc.Vault, Session: o.hash, Nonce: policies.NewNonce(), Expires: now.Unix() + 60, Purpose: "delivery",
		Items: []policies.ReadItem{{Owner: p.owner(), Field: f}},
	}}
	x.entry = evidence.Entry{Kind: evidence.EntryUse, Owner: p.pseudo, Reader: o.reader.pseudo, Outcome: policies.CodeReleased}
	x.details = evidence.Details{
		Owner: p.owner(), Reader: o.reader.reader(), Grant: g.ID, Field: f, Author: p.author(), Epoch: 1, Version: 1, Head: p.manifest, Leaf: policies.Hash{p.manifest[0], 7},
		Session: o.hash, Custody: g.Custody, Token: "token-1", Grade: "A",
	}
	if bend != nil {
		bend(x)
	}
	if x.raw == nil {
		x.raw = must(policies.Sign(x.key, x.request)).Raw
	}
	e := must(envelope.Parse(x.raw))
	x.details.Request = e.Hash
	if x.details.Nonce.IsZero() {
		x.details.Nonce = must(policies.Decode[policies.ReadRequest](e)).Nonce
	}
	if !x.decided.IsZero() {
		x.details.Decided = x.decided.UnixMilli()
	}
	if x.logged.After(w.now) {
		w.now = x.logged
	}
	raw := x.raw
	if x.bare {
		raw = nil
	}
	return w.add(x.logged, x.entry, &x.details, raw), x.raw
}

func (w *world) recheck(t testing.TB, part Range) *Report {
	t.Helper()
	r, err := w.opened(t, w.files()).Recheck(t.Context(), part)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// An honest log: everything is justified, and the report is the same each time.
func TestRecheckHonest(t *testing.T) {
	w := newWorld()
	o, r := w.enrol(), w.enrol()
	o.publish(nil)
	g := o.grant(r, o.key, func(g *policies.Grant) { g.Limits.ReadsPerDay = 3 }, "phone", "mail")
	s := r.open(r.key, nil)
	s.read(o, g, "phone", nil)
	s.read(o, g, "mail", nil)
	o.publish(nil)
	s.read(o, g, "phone", func(x *reading) { x.details.Version = 2 })
	// The next day the count begins anew. Revoked and granted again, with another purpose.
	w.tick(24 * time.Hour)
	o.revoke(g, "phone")
	again := o.grant(r, o.key, func(g *policies.Grant) { g.Purpose = "billing" }, "phone")
	s = r.open(r.key, nil)
	s.read(o, again, "phone", func(x *reading) { x.request.Purpose, x.details.Version = "billing", 2 })
	last, _ := s.read(o, g, "mail", nil)
	for i := range 300 { // in more than one bundle
		s.read(o, again, "phone", func(x *reading) {
			x.request.Purpose, x.details.Version = "billing", 2
			if i%7 == 0 {
				x.entry.Outcome = policies.CodeUnchanged
			}
		})
	}
	report := w.recheck(t, Range{})
	if report.Unjustified.Count != 0 || report.Unchecked.Count != 0 || report.Documents.Count != 0 || report.Justified != report.Releases || report.Releases != 5+300-43 {
		t.Fatalf("%s", report.Bytes())
	}
	files := w.files()
	one, two := must(w.opened(t, files).Recheck(t.Context(), Range{})), must(w.opened(t, files).Recheck(t.Context(), Range{}))
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("two runs give two reports")
	}
	if part := w.recheck(t, Range{From: last, To: last + 2}); part.Releases != 1 || part.Justified != 1 || part.From != last || part.To != last+2 {
		t.Errorf("a part by indexes: %s", part.Bytes())
	}
	if part := w.recheck(t, Range{Until: testTime.Add(time.Hour)}); part.Releases != 3 || part.Justified != 3 {
		t.Errorf("a part by times: %s", part.Bytes())
	}
}

// Each thing that a corrupt vault may do is found, named with its code, and nothing else is.
func TestRecheckFinds(t *testing.T) {
	type scene struct {
		*world
		o, r, other *person
		g           *policies.Grant
		s           *opened
	}
	for _, c := range []struct {
		name string
		code string
		text string
		act  func(w *scene) uint64 // returns the entry that is not justified
	}{
		{"released after the revocation", "grant_revoked", "revoked it", func(w *scene) uint64 {
			w.o.revoke(w.g, "phone")
			i, _ := w.s.read(w.o, w.g, "phone", nil)
			return i
		}},
		{"wrong purpose", "wrong_purpose", `asked for "marketing", granted for "delivery"`, func(w *scene) uint64 {
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.request.Purpose = "marketing" })
			return i
		}},
		{"backdated before the grant's end", ReasonTime, "decided at", func(w *scene) uint64 {
			g := w.o.grant(w.r, w.o.key, func(g *policies.Grant) { g.Expires = w.now.Unix() + 10 }, "mail")
			decided := w.now
			w.tick(5 * time.Minute)
			i, _ := w.s.read(w.o, g, "mail", func(x *reading) {
				x.decided, x.request.Time, x.request.Expires = decided, decided.Unix(), decided.Unix()+60
			})
			return i
		}},
		{"after the grant's end", "grant_expired", "granted from", func(w *scene) uint64 {
			g := w.o.grant(w.r, w.o.key, func(g *policies.Grant) { g.Expires = w.now.Unix() + 10 }, "mail")
			w.tick(20 * time.Second)
			i, _ := w.s.read(w.o, g, "mail", nil)
			return i
		}},
		{"before its beginning", "grant_not_yet_valid", "granted from", func(w *scene) uint64 {
			g := w.o.grant(w.r, w.o.key, func(g *policies.Grant) { g.NotBefore = w.now.Unix() + 100 }, "mail")
			i, _ := w.s.read(w.o, g, "mail", nil)
			return i
		}},
		{"decided later than logged", ReasonTime, "logged at", func(w *scene) uint64 {
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.decided = x.decided.Add(6 * time.Second) })
			return i
		}},
		{"a nonce a second time", ReasonNonce, "used before, by entry", func(w *scene) uint64 {
			_, raw := w.s.read(w.o, w.g, "phone", nil)
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.raw = raw })
			return i
		}},
		{"a nonce a second time, the request not beside it", ReasonNonce, "used before, by entry", func(w *scene) uint64 {
			_, raw := w.s.read(w.o, w.g, "phone", nil)
			w.s.read(w.o, w.g, "phone", nil)
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.raw, x.bare = raw, true })
			return i
		}},
		{"the nonce of another request", ReasonNonce, "used before, by entry", func(w *scene) uint64 {
			nonce := policies.NewNonce()
			w.s.read(w.o, w.g, "phone", func(x *reading) { x.request.Nonce = nonce })
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.request.Nonce = nonce })
			return i
		}},
		{"more than the day's limit", "limit_reached", "release 3 of that day, of at most 2", func(w *scene) uint64 {
			g := w.o.grant(w.r, w.o.key, func(g *policies.Grant) { g.Limits.ReadsPerDay = 2 }, "bank", "iban")
			w.s.read(w.o, g, "bank", nil)
			w.s.read(w.o, g, "iban", nil)
			i, _ := w.s.read(w.o, g, "bank", nil)
			return i
		}},
		{"more than the day's limit, under two grants", "limit_reached", "release 2 of that day", func(w *scene) uint64 {
			limit := func(g *policies.Grant) { g.Limits.ReadsPerDay = 1 }
			g := w.o.grant(w.r, w.o.key, limit, "bank")
			w.s.read(w.o, g, "bank", nil)
			w.o.revoke(g, "bank")
			i, _ := w.s.read(w.o, w.o.grant(w.r, w.o.key, limit, "bank"), "bank", nil)
			return i
		}},
		{"a grant that another signed", ReasonGrantSignature, "not signed by the owner", func(w *scene) uint64 {
			g := w.o.grant(w.r, w.other.key, nil, "iban")
			i, _ := w.s.read(w.o, g, "iban", nil)
			return i
		}},
		{"a grant out of the chain", ReasonGrantChain, "has seq", func(w *scene) uint64 {
			g := w.o.grant(w.r, w.o.key, func(g *policies.Grant) { g.Seq += 2 }, "iban")
			i, _ := w.s.read(w.o, g, "iban", nil)
			return i
		}},
		{"a grant for another vault", ReasonGrantChain, "another vault", func(w *scene) uint64 {
			g := w.o.grant(w.r, w.o.key, func(g *policies.Grant) { g.Audience = policies.VaultID{9} }, "iban")
			i, _ := w.s.read(w.o, g, "iban", nil)
			return i
		}},
		{"no grant", "no_grant", "never in force", func(w *scene) uint64 {
			i, _ := w.s.read(w.o, &policies.Grant{Header: policies.NewHeader("grant", w.now)}, "phone", nil)
			return i
		}},
		{"another reader's grant", "no_grant", "no grant for this reader", func(w *scene) uint64 {
			g := w.o.grant(w.other, w.o.key, nil, "phone")
			i, _ := w.s.read(w.o, g, "phone", nil)
			return i
		}},
		{"a field that the grant has not", "no_grant", "no grant for this reader and field", func(w *scene) uint64 {
			i, _ := w.s.read(w.o, w.g, "iban", nil)
			return i
		}},
		{"another epoch", "wrong_leaf", "not the one that the grant names", func(w *scene) uint64 {
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.details.Epoch = 2 })
			return i
		}},
		{"a session that another signed", ReasonSessionSignature, "not signed by the reader", func(w *scene) uint64 {
			i, _ := w.r.open(w.other.key, nil).read(w.o, w.g, "phone", nil)
			return i
		}},
		{"another reader's session", ReasonSessionSignature, "the session is of reader", func(w *scene) uint64 {
			s := w.other.open(w.other.key, nil)
			s.reader = w.r
			i, _ := s.read(w.o, w.g, "phone", nil)
			return i
		}},
		{"a session that is over", "unknown_session", "outside of the session's time", func(w *scene) uint64 {
			w.tick(601 * time.Second)
			i, _ := w.s.read(w.o, w.g, "phone", nil)
			return i
		}},
		{"a session that is long over", "unknown_session", "never opened, or is over", func(w *scene) uint64 {
			w.tick(time.Hour)
			i, _ := w.s.read(w.o, w.g, "phone", nil)
			return i
		}},
		{"no session", "unknown_session", "never opened", func(w *scene) uint64 {
			i, _ := (&opened{reader: w.r, hash: policies.Hash{1, 2}, key: w.s.key}).read(w.o, w.g, "phone", nil)
			return i
		}},
		{"a request of another key", ReasonRequestSignature, "not signed by the session's key", func(w *scene) uint64 {
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.key = envelope.NewSessionKey() })
			return i
		}},
		{"a request for another field", ReasonRequest, "does not ask for this", func(w *scene) uint64 {
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.request.Items[0].Field = "mail" })
			return i
		}},
		{"a request for another vault", ReasonRequest, "another vault", func(w *scene) uint64 {
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.request.Audience = policies.VaultID{9} })
			return i
		}},
		{"another nonce than the request's", ReasonRequest, "has another nonce", func(w *scene) uint64 {
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.details.Nonce = policies.NewNonce() })
			return i
		}},
		{"a request that is too old", "request_expired", "outside of the request's time", func(w *scene) uint64 {
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.request.Time -= 100; x.request.Expires = x.request.Time + 90 })
			return i
		}},
		{"no request", ReasonRequest, "no signed request", func(w *scene) uint64 {
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.bare = true })
			return i
		}},
		{"more than was asked for", ReasonNonce, "used before", func(w *scene) uint64 {
			_, raw := w.s.read(w.o, w.g, "phone", nil)
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.raw, x.bare = raw, true })
			return i
		}},
		{"what the reader has already", ReasonRequest, "has version 1 already", func(w *scene) uint64 {
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.request.Items[0].Known = 1 })
			return i
		}},
		{"an older head", ReasonHead, "the newest was", func(w *scene) uint64 {
			old := w.o.manifest
			w.o.publish(nil)
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.details.Head = old })
			return i
		}},
		{"a head that another signed", ReasonHeadSignature, "not signed by its author", func(w *scene) uint64 {
			key := w.o.key
			w.o.key = w.other.key
			w.o.publish(nil)
			w.o.key = key
			i, _ := w.s.read(w.o, w.g, "phone", nil)
			return i
		}},
		{"an older version", ReasonVersion, "version 4 was released before", func(w *scene) uint64 {
			w.s.read(w.o, w.g, "phone", func(x *reading) { x.details.Version = 4 })
			w.o.publish(nil)
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.details.Version = 3 })
			return i
		}},
		{"two items under one head", ReasonLeaf, "another item", func(w *scene) uint64 {
			w.s.read(w.o, w.g, "phone", nil)
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.details.Leaf = policies.Hash{1, 2, 3} })
			return i
		}},
		{"kept out of the owner's history", ReasonPseudonym, "not in their history", func(w *scene) uint64 {
			i, _ := w.s.read(w.o, w.g, "phone", func(x *reading) { x.entry.Owner = policies.Pseudonym{} })
			return i
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &scene{world: newWorld()}
			w.o, w.r, w.other = w.enrol(), w.enrol(), w.enrol()
			w.o.publish(nil)
			w.g = w.o.grant(w.r, w.o.key, nil, "phone", "mail")
			w.s = w.r.open(w.r.key, nil)
			w.s.read(w.o, w.g, "mail", nil)
			bad := c.act(w)
			w.tick(time.Second)
			// The honest goes on.
			s := w.r.open(w.r.key, nil)
			s.read(w.o, w.o.grant(w.r, w.o.key, nil, "city"), "city", nil)
			report := w.recheck(t, Range{})
			if c.code == ReasonHeadSignature { // which all releases under it share
				report.Unjustified.Count, report.Unjustified.Listed = 1, report.Unjustified.Listed[:1]
			}
			u := report.Unjustified
			if u.Count != 1 || len(u.Listed) != 1 || u.Listed[0].Index != bad || report.Unchecked.Count != 0 {
				t.Fatalf("entry %d is not what was found: %s", bad, report.Bytes())
			}
			if !slices.ContainsFunc(u.Listed[0].Reasons, func(r Reason) bool { return r.Code == c.code && strings.Contains(r.Text, c.text) }) {
				t.Errorf("found, and not for %s (%s): %+v", c.code, c.text, u.Listed[0].Reasons)
			}
		})
	}
}

// A request of several items is one nonce and one signature, and each item has its own entry.
func TestRecheckOfManyItems(t *testing.T) {
	w := newWorld()
	o, r := w.enrol(), w.enrol()
	o.publish(nil)
	g := o.grant(r, o.key, nil, "phone", "mail", "iban")
	s := r.open(r.key, nil)
	items := []policies.ReadItem{{Owner: o.owner(), Field: "phone"}, {Owner: o.owner(), Field: "mail"}, {Owner: o.owner(), Field: "iban", Known: 1}, {Owner: o.owner(), Field: "phone"}}
	_, raw := s.read(o, g, "phone", func(x *reading) { x.request.Items = items })
	s.read(o, g, "mail", func(x *reading) { x.raw, x.bare = raw, true })
	s.read(o, g, "iban", func(x *reading) { x.raw, x.bare, x.entry.Outcome = raw, true, policies.CodeUnchanged })
	s.read(o, g, "phone", func(x *reading) { x.raw, x.bare = raw, true })
	if report := w.recheck(t, Range{}); report.Justified != 3 || report.Releases != 3 {
		t.Fatalf("%s", report.Bytes())
	}
	s.read(o, g, "phone", func(x *reading) { x.raw, x.bare = raw, true })
	if report := w.recheck(t, Range{}); report.Justified != 3 || report.Unjustified.Count != 1 {
		t.Fatalf("a fifth entry for four items: %s", report.Bytes())
	}
}

// Of what was erased nothing is claimed: neither that it is justified nor that it is not.
func TestRecheckOfWhatWasErased(t *testing.T) {
	for _, c := range []struct {
		name string
		kind evidence.Kind
		code string
	}{
		{"the release itself", evidence.EntryUse, ReasonErased},
		{"the session", evidence.EntrySession, ReasonErased},
		{"the identities", evidence.EntryIdentity, ReasonErased},
		{"the head", evidence.EntryManifest, ReasonErased},
		{"the grant's document", evidence.EntryImport, ReasonErased},
		{"the grant", evidence.EntryGrant, ReasonErased},
	} {
		w := newWorld()
		o, r := w.enrol(), w.enrol()
		o.publish(nil)
		g := o.grant(r, o.key, nil, "phone")
		r.open(r.key, nil).read(o, g, "phone", nil)
		for i := range w.bodies {
			if _, e, err := evidence.ParseLogLeaf(w.leaves[i]); err != nil || e.Kind == c.kind {
				w.bodies[i] = nil
			}
		}
		report := w.recheck(t, Range{})
		if report.Releases != 1 || report.Justified != 0 || report.Unchecked.Count != 1 || report.Unchecked.Reasons[0].Code != c.code {
			t.Errorf("%s: %s", c.name, report.Bytes())
		}
		if c.kind == evidence.EntryUse && (report.Unchecked.Without([]string{ReasonErased}) != 0 || report.Unchecked.Without([]string{ReasonAbsent}) != 1) {
			t.Error("what is allowed")
		}
		files := w.files()
		for name := range files {
			if strings.HasPrefix(name, "bodies/") {
				delete(files, name)
			}
		}
		absent, err := w.opened(t, files).Recheck(t.Context(), Range{})
		if err != nil || absent.Unchecked.Count != 1 || absent.Unchecked.Reasons[0].Code != ReasonAbsent {
			t.Errorf("%s, without bodies: %v", c.name, err)
		}
	}
	// A use that does not say when it was decided.
	w := newWorld()
	o, r := w.enrol(), w.enrol()
	o.publish(nil)
	g := o.grant(r, o.key, nil, "phone")
	s := r.open(r.key, nil)
	s.read(o, g, "phone", func(x *reading) { x.decided = time.Time{} })
	report := w.recheck(t, Range{})
	if report.Unchecked.Count != 1 || fmt.Sprint(report.Unchecked.Reasons) != "[{undated 1}]" {
		t.Errorf("%s", report.Bytes())
	}
}

// TestRecheckOfALimitWhoseDayWasErased: releases whose details are gone may have been of the fields that a limit counts. What it permits without them, and not with them, is not checkable.
func TestRecheckOfALimitWhoseDayWasErased(t *testing.T) {
	w := newWorld()
	o, r := w.enrol(), w.enrol()
	o.publish(nil)
	g := o.grant(r, o.key, func(g *policies.Grant) { g.Limits.ReadsPerDay = 3 }, "phone")
	s := r.open(r.key, nil)
	gone, _ := s.read(o, g, "phone", nil)
	for range 3 {
		s.read(o, g, "phone", nil)
	}
	w.bodies[gone] = nil
	report := w.recheck(t, Range{})
	u := report.Unchecked // the one that is gone, and the last, which was the fourth
	if report.Justified != 2 || report.Unjustified.Count != 0 || u.Count != 2 || u.Listed[0].Index != gone || u.Listed[1].Index != gone+3 || !strings.Contains(u.Listed[1].Reasons[0].Text, "of at most 3") {
		t.Errorf("%s", report.Bytes())
	}
	w.tick(24 * time.Hour)
	r.open(r.key, nil).read(o, g, "phone", nil)
	if report := w.recheck(t, Range{}); report.Justified != 3 {
		t.Errorf("the day after: %s", report.Bytes())
	}
}

// Documents that the vault acted on and nobody signed are listed, whether anything was released by them or not.
func TestRecheckOfDocuments(t *testing.T) {
	w := newWorld()
	o, r, other := w.enrol(), w.enrol(), w.enrol()
	o.publish(nil)
	o.grant(r, other.key, nil, "phone")
	r.open(other.key, nil)
	key := o.key
	o.key = other.key
	o.revoke(&policies.Grant{Header: policies.NewHeader("grant", w.now)}, "phone")
	o.key = key
	o.publish(func(m *policies.Manifest) { m.Version = 7 })
	report := w.recheck(t, Range{})
	if got := fmt.Sprint(report.Documents.Reasons); report.Documents.Count != 4 || got != "[{grant_signature 2} {head 1} {session_signature 1}]" {
		t.Errorf("%s", report.Bytes())
	}
}

// A log that is damaged gives no report.
func TestRecheckOfQueries(t *testing.T) {
	for _, c := range []struct {
		name string
		bend func(q *policies.AuditQuery, d *evidence.Details)
		by   func(auditor, other *person) *person
		want string
	}{
		{"an honest one", nil, nil, ""},
		{"not signed by the auditor", nil, func(_, other *person) *person { return other }, ReasonQuery},
		{"of another auditor", func(q *policies.AuditQuery, d *evidence.Details) { d.Identity = policies.IdentityID{1} }, nil, ReasonQuery},
		{"for less than was given", func(q *policies.AuditQuery, d *evidence.Details) { d.Count++ }, nil, ReasonQuery},
		{"from elsewhere", func(q *policies.AuditQuery, d *evidence.Details) { d.Index++ }, nil, ReasonQuery},
		{"for entries, and bodies were given", func(q *policies.AuditQuery, d *evidence.Details) { d.Note = "bodies" }, nil, ReasonQuery},
		{"for another vault", func(q *policies.AuditQuery, d *evidence.Details) { q.Audience = policies.VaultID{9} }, nil, ReasonQuery},
		{"a count, which nobody signs", func(q *policies.AuditQuery, d *evidence.Details) { d.Nonce = policies.Nonce{} }, nil, ""},
	} {
		w := newWorld()
		auditor, other := w.enrol(), w.enrol()
		at := w.tick(time.Second)
		q := &policies.AuditQuery{
			Header: policies.NewHeader("audit-query", at), Audience: w.doc.Vault, Auditor: auditor.id, Nonce: policies.NewNonce(),
			Expires: at.Unix() + 60, From: 1, Count: 7, What: "entries",
		}
		d := evidence.Details{Identity: auditor.id, Nonce: q.Nonce, Index: 1, Count: 7, Note: "entries"}
		if c.bend != nil {
			c.bend(q, &d)
		}
		by := auditor
		if c.by != nil {
			by = c.by(auditor, other)
		}
		e := must(policies.Sign[policies.AuditQuery](by.key, q))
		d.Document = e.Hash
		w.add(at, evidence.Entry{Kind: evidence.EntryAccess, Reader: auditor.pseudo, Outcome: policies.CodeAccepted}, &d, e.Raw)
		report := w.recheck(t, Range{})
		switch {
		case c.want == "" && report.Documents.Count != 0:
			t.Errorf("%s: %s", c.name, report.Bytes())
		case c.want != "" && (report.Documents.Count != 1 || report.Documents.Reasons[0].Code != c.want):
			t.Errorf("%s: %s", c.name, report.Bytes())
		}
	}
}

// A body that is gone is no matter if the log says that it was to be erased, and is listed if it does not.
func TestRecheckOfErasures(t *testing.T) {
	for _, c := range []struct {
		name        string
		from, count uint64 // of the erasure; none if count is 0
		want        bool
	}{
		{"covered", 0, 6, false}, {"the last one not covered", 0, 5, true}, {"none", 0, 0, true}, {"of what is yet to come", 0, 99, true},
	} {
		w := newWorld()
		w.fill(6)
		w.bodies[3], w.bodies[5] = nil, nil
		if c.count > 0 {
			w.add(testTime.Add(time.Hour), evidence.Entry{Kind: evidence.EntryErasure, Outcome: policies.CodeAccepted}, &evidence.Details{Index: c.from, Count: c.count}, nil)
		}
		report := w.recheck(t, Range{})
		if got := report.Documents.Count > 0 && report.Documents.Reasons[0].Code == ReasonErasure; got != c.want {
			t.Errorf("%s: %s", c.name, report.Bytes())
		}
	}
}

// close ends an account.
func (p *person) close(key *envelope.PrivateKey) uint64 {
	d := &policies.Closure{Header: policies.NewHeader("closure", p.w.now), Audience: p.w.doc.Vault, Owner: p.owner(), Link: p.link}
	e := must(policies.Sign(key, d))
	p.took(d.Seq, e.Hash)
	return p.w.add(p.w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryClosure, Owner: p.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{
		Owner: p.owner(), Document: e.Hash, Seq: d.Seq,
	}, e.Raw)
}

// What lies beside the entries of somebody who closed their account may be gone, and is not checkable; it is no excuse for anything of anybody else. Without a closure
// that its owner signed, or after it, it was taken away.
func TestRecheckOfClosures(t *testing.T) {
	for _, c := range []struct {
		name      string
		closed    bool
		forged    bool
		after     bool // a release after the closure
		taken     bool // a body of somebody else is taken too
		documents string
		unchecked uint64
		faults    uint64
	}{
		{name: "closed", closed: true, unchecked: 2},
		{name: "not closed", documents: ReasonErasure, unchecked: 2},
		{name: "closed by another", closed: true, forged: true, documents: ReasonGrantSignature, unchecked: 2},
		{name: "a release after it", closed: true, after: true, unchecked: 2, faults: 1},
		{name: "another's identity is gone too", closed: true, taken: true, documents: ReasonErasure, unchecked: 3},
	} {
		w := newWorld()
		o, other, r := w.enrol(), w.enrol(), w.enrol()
		o.publish(nil)
		other.publish(nil)
		g, kept := o.grant(r, o.key, nil, "phone"), other.grant(r, other.key, nil, "phone")
		s := r.open(r.key, nil)
		s.read(o, g, "phone", nil)
		s.read(o, g, "phone", nil)
		s.read(other, kept, "phone", nil)
		end := uint64(len(w.bodies))
		if c.closed {
			key := o.key
			if c.forged {
				key = other.key
			}
			end = o.close(key)
		}
		if c.after {
			s.read(o, g, "phone", nil)
		}
		for i := range end {
			_, entry, err := evidence.ParseLogLeaf(w.leaves[i])
			if err != nil {
				t.Fatal(err)
			}
			if entry.Owner == o.pseudo && entry.Kind != evidence.EntryIdentity || c.taken && entry.Owner == other.pseudo && entry.Kind == evidence.EntryIdentity {
				w.bodies[i] = nil
			}
		}
		report := w.recheck(t, Range{})
		code := ""
		if report.Documents.Count > 0 {
			code = report.Documents.Reasons[0].Code
		}
		if code != c.documents || report.Unchecked.Count != c.unchecked || report.Unjustified.Count != c.faults {
			t.Errorf("%s: %s", c.name, report.Bytes())
		}
	}
}

// A request that lay beside the entry of somebody who closed their account is not checkable for the others whom it named, and no fault.
func TestRecheckOfSharedRequests(t *testing.T) {
	w := newWorld()
	o, other, r := w.enrol(), w.enrol(), w.enrol()
	o.publish(nil)
	other.publish(nil)
	g, kept := o.grant(r, o.key, nil, "phone"), other.grant(r, other.key, nil, "phone")
	s := r.open(r.key, nil)
	s.read(other, kept, "phone", nil)
	first := uint64(len(w.bodies))
	_, raw := s.read(o, g, "phone", func(x *reading) {
		x.request.Items = append(x.request.Items, policies.ReadItem{Owner: other.owner(), Field: "phone"})
	})
	s.read(other, kept, "phone", func(x *reading) { x.raw, x.bare = raw, true })
	o.close(o.key)
	for i := range first + 1 {
		if _, entry, err := evidence.ParseLogLeaf(w.leaves[i]); err == nil && entry.Owner == o.pseudo && entry.Kind != evidence.EntryIdentity {
			w.bodies[i] = nil
		}
	}
	report := w.recheck(t, Range{})
	if report.Unjustified.Count != 0 || report.Unchecked.Count != 2 || report.Justified != 1 || report.Documents.Count != 0 {
		t.Errorf("%s", report.Bytes())
	}
}

func TestRecheckOfADamagedLog(t *testing.T) {
	w := newWorld()
	w.enrol()
	files := w.files()
	files[TilePath(0, 0, 2)][1] ^= 1
	if _, err := w.opened(t, files).Recheck(t.Context(), Range{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.opened(t, w.files()).Recheck(ctx, Range{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// The report names no more than a document may hold, and counts the rest.
func TestFindingsAreBounded(t *testing.T) {
	w := newWorld()
	o, r := w.enrol(), w.enrol()
	o.publish(nil)
	g := o.grant(r, o.key, nil, "phone")
	s := r.open(r.key, nil)
	o.revoke(g, "phone")
	for range MaxListed + 7 {
		s.read(o, g, "phone", nil)
	}
	report := w.recheck(t, Range{})
	u := report.Unjustified
	if u.Count != MaxListed+7 || len(u.Listed) != MaxListed || u.Reasons[0].Count != MaxListed+7 || u.Without([]string{"grant_revoked"}) != 0 || u.Without([]string{"limit_reached"}) != MaxListed+7 {
		t.Errorf("%d findings, %d listed", u.Count, len(u.Listed))
	}
	if n := len(report.Bytes()); n > envelope.MaxSize/2 {
		t.Errorf("the report has %d bytes", n)
	}
}
