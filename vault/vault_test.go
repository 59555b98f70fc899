package vault

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/internal/ledger"
	"github.com/sallyport/sallyport/vault/keylog"
)

func TestLifeOfAField(t *testing.T) { eachCustody(t, lifeOfAField) }

func lifeOfAField(t *testing.T, w *world) {
	o, r := w.owner(), w.reader()
	o.set("phone.mobile", "+41 79 000 00 01")
	g := o.grant(r, nil, "phone.mobile")
	a := ask{o, g, "phone.mobile", 0}

	if got := r.value(a, r.read(a).Items[0]); got != "+41 79 000 00 01" {
		t.Fatalf("read %q", got)
	}
	if outcome := r.read(ask{o, g, "phone.mobile", 1}).Items[0].Outcome; outcome != policies.CodeUnchanged {
		t.Fatalf("a known version: %s", outcome)
	}
	if n := w.token.count(); n != 1 {
		t.Fatalf("%d derives, want 1: an unchanged item costs none", n)
	}
	o.set("phone.mobile", "+41 79 000 00 02")
	if got := r.value(a, r.read(a).Items[0]); got != "+41 79 000 00 02" {
		t.Fatalf("read %q", got)
	}
	o.revoke(g, "phone.mobile")
	before := w.token.count()
	if outcome := r.read(a).Items[0].Outcome; outcome != policies.CodeRevoked {
		t.Fatalf("after the revocation: %s", outcome)
	}
	if w.token.count() != before {
		t.Fatal("a revoked grant reached the token")
	}
	if w.held() != 0 {
		t.Fatal("the key is still in the token")
	}

	page, err := w.vault.History(policies.OwnerID(o.id), 0, 100)
	must(t, err)
	cp, err := evidence.OpenCheckpoint(page.Checkpoint, w.document.LogKey)
	must(t, err)
	var kinds []evidence.Kind
	for i := range page.Entries {
		_, entry, _, err := page.Entries[i].Verify(cp)
		must(t, err)
		kinds = append(kinds, entry.Kind)
	}
	want := []evidence.Kind{"refusal", "destroyed", "revocation", "use", "manifest", "use", "use", "grant", "import", "manifest", "identity"}
	if !equal(kinds, want) {
		t.Fatalf("history %v, want %v", kinds, want)
	}
	next, err := w.vault.History(policies.OwnerID(o.id), page.Entries[3].Index, 4)
	must(t, err)
	if len(next.Entries) != 4 || next.Entries[0].Index != page.Entries[4].Index || next.Before != page.Entries[7].Index {
		t.Fatal("the second page does not follow the first")
	}
	if _, err := w.vault.History(policies.OwnerID{9}, 0, 1); !errors.Is(err, policies.CodeNotFound) {
		t.Fatalf("history of a stranger: %v", err)
	}
}

// What was signed stays a beginning of what is signed, and whoever was shown more than there is hears so.
func TestConsistency(t *testing.T) {
	w := newWorld(t)
	before := w.vault.cfg.Log.Checkpoint()
	w.owner()
	after := w.vault.cfg.Log.Checkpoint()
	p, err := w.vault.Consistency(uint64(before.Size), uint64(after.Size))
	must(t, err)
	proof := make(tlog.TreeProof, len(p.Proof))
	for i := range p.Proof {
		proof[i] = tlog.Hash(p.Proof[i])
	}
	must(t, tlog.CheckTree(proof, after.Size, after.Root, before.Size, before.Root))
	for _, c := range []struct {
		from, to uint64
		want     policies.Code
	}{
		{0, 1, policies.CodeMalformed}, {2, 1, policies.CodeMalformed}, {0, 0, policies.CodeMalformed},
		{1, uint64(after.Size) + 1, policies.CodeProof}, {1 << 63, 1<<64 - 1, policies.CodeProof},
	} {
		if _, err := w.vault.Consistency(c.from, c.to); !errors.Is(err, c.want) {
			t.Errorf("from %d to %d: %v", c.from, c.to, err)
		}
	}
}

func equal[T comparable](a, b []T) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestManyItemsOfManyOwnersInOneCall(t *testing.T) { eachCustody(t, manyItemsOfManyOwnersInOneCall) }

func manyItemsOfManyOwnersInOneCall(t *testing.T, w *world) {
	r := w.reader()
	var asks []ask
	for _, value := range []string{"a", "b", "c"} {
		o := w.owner()
		o.seal("name", 1, value+"1")
		o.seal("email", 1, value+"2")
		o.publish()
		g := o.grant(r, nil, "name", "email")
		asks = append(asks, ask{o, g, "name", 0}, ask{o, g, "email", 0})
	}
	answer := r.read(asks...)
	for i, a := range asks {
		if got, want := r.value(a, answer.Items[i]), string("abc"[i/2])+string("12"[i%2]); got != want {
			t.Errorf("item %d: %q, want %q", i, got, want)
		}
	}
	// The storefront shares calls among readers; each gets its own answer.
	c1, e1 := r.callOf(nil, asks[0])
	c2, e2 := r.callOf(nil, asks[3])
	c3 := api.Call{Request: []byte("{}")}
	replies := w.vault.Reencrypt(t.Context(), []api.Call{c1, c3, c2})
	if r.value(asks[0], r.open(replies[0], e1).Items[0]) != "a1" || r.value(asks[3], r.open(replies[2], e2).Items[0]) != "b2" {
		t.Fatal("answers were mixed up")
	}
	if replies[1].Code != policies.CodeMalformed {
		t.Fatalf("the malformed call: %q", replies[1].Code)
	}
	if _, err := r.k.OpenAnswer(e1.Hash, replies[2].Sealed); err == nil {
		t.Fatal("an answer opens as the answer to another request")
	}
}

// TestHostileReads is the list of what a hostile storefront, network or reader can try with a read.
func TestHostileReads(t *testing.T) { eachCustody(t, hostileReads) }

func hostileReads(t *testing.T, w *world) {
	o, other := w.owner(), w.owner()
	r, stranger := w.reader(), w.reader()
	o.seal("name", 1, "old")
	o.seal("email", 1, "e")
	o.publish()
	oldOffer := o.offer(nil, "name")
	o.set("name", "new")
	other.set("name", "x")
	g := o.grant(r, nil, "name")
	otherGrant := other.grant(r, nil, "name")
	emailGrant := o.grant(r, nil, "email")
	revoked := o.grant(r, nil, "name")
	o.revoke(revoked, "name")
	at := func(from, to int64) func(*granting) {
		return func(g *granting) { now := w.clock.now().Unix(); g.doc.NotBefore, g.doc.Expires = now+from, now+to }
	}
	expired := o.grant(r, at(-7200, -3600), "name")
	early := o.grant(r, at(3600, 7200), "name")
	limited := o.grant(r, func(g *granting) { g.doc.Limits.ReadsPerDay = 1 }, "name")
	r.read(ask{o, limited, "name", 0})
	epoch2 := o.grant(r, func(g *granting) { g.doc.Fields[0].Epoch = 2 }, "name")
	replayed, _ := r.callOf(nil, ask{o, g, "name", 0})
	w.vault.Reencrypt(t.Context(), []api.Call{replayed})

	type bend = func(*policies.ReadRequest)
	type bendCall = func(*api.Call)
	item := func(f func(*api.CallItem)) bendCall { return func(c *api.Call) { f(&c.Items[0]) } }
	tests := []struct {
		name    string
		grant   *policies.Grant
		request bend
		call    bendCall
		want    policies.Code
		whole   bool // the whole request is refused
		counted bool // by a count, since nobody was authenticated
	}{
		{"not an envelope", g, nil, func(c *api.Call) { c.Request = []byte("x") }, policies.CodeMalformed, true, true},
		{"unknown session", g, func(d *policies.ReadRequest) { d.Session = policies.Hash{9} }, nil, policies.CodeSession, true, true},
		{"signed by another session", g, nil, func(c *api.Call) {
			c.Request = stranger.requestOf(func(d *policies.ReadRequest) { d.Session = r.session }, ask{o, g, "name", 0}).Raw
		}, policies.CodeSignature, true, true},
		{"another vault", g, func(d *policies.ReadRequest) { d.Audience = policies.VaultID{9} }, nil, policies.CodeWrongVault, true, false},
		{"expired request", g, func(d *policies.ReadRequest) { d.Time -= 200; d.Expires -= 200 }, nil, policies.CodeExpired, true, false},
		{"request of the future", g, func(d *policies.ReadRequest) { d.Time += 100; d.Expires += 100 }, nil, policies.CodeExpired, true, false},
		{"replayed request", g, nil, func(c *api.Call) { *c = replayed }, policies.CodeReplay, true, false},
		{"item withheld", g, nil, func(c *api.Call) { c.Items = nil }, policies.CodeMalformed, true, false},
		{"no grant", nil, nil, nil, policies.CodeNoGrant, false, false},
		{"invented grant", g, nil, item(func(i *api.CallItem) { i.Grant = policies.NewDocumentID() }), policies.CodeNoGrant, false, false},
		{"grant of another owner", otherGrant, nil, nil, policies.CodeNoGrant, false, false},
		{"grant of another field", emailGrant, nil, nil, policies.CodeNoGrant, false, false},
		{"another author", g, func(d *policies.ReadRequest) { d.Items[0].Author = policies.AuthorID(other.id) }, nil, policies.CodeNoGrant, false, false},
		{"revoked", revoked, nil, nil, policies.CodeRevoked, false, false},
		{"expired", expired, nil, nil, policies.CodeGrantExpired, false, false},
		{"not yet", early, nil, nil, policies.CodeNotYet, false, false},
		{"expired, without a leaf", expired, nil, item(func(i *api.CallItem) { i.Leaf = nil }), policies.CodeGrantExpired, false, false},
		{"not yet, under an invented head", early, nil, item(func(i *api.CallItem) { i.Head = policies.Hash{9} }), policies.CodeNotYet, false, false},
		{"over the limit", limited, nil, nil, policies.CodeLimit, false, false},
		{"wrong purpose", g, func(d *policies.ReadRequest) { d.Purpose = "advertising" }, nil, policies.CodePurpose, false, false},
		{"older item", g, nil, item(func(i *api.CallItem) { grant := i.Grant; *i = oldOffer; i.Grant = grant }), policies.CodeHeadMoved, false, false},
		{"older item under the new head", g, nil, item(func(i *api.CallItem) { i.Leaf, i.Proof, i.Point = oldOffer.Leaf, oldOffer.Proof, oldOffer.Point }), policies.CodeProof, false, false},
		{"invented head", g, nil, item(func(i *api.CallItem) { i.Head = policies.Hash{9} }), policies.CodeHeadMoved, false, false},
		{"another field's leaf", g, nil, item(func(i *api.CallItem) { grant := i.Grant; *i = o.offer(nil, "email"); i.Grant = grant }), policies.CodeLeaf, false, false},
		{"another owner's leaf", g, nil, item(func(i *api.CallItem) { i.Leaf = other.offer(nil, "name").Leaf }), policies.CodeLeaf, false, false},
		{"no leaf", g, nil, item(func(i *api.CallItem) { i.Leaf = nil }), policies.CodeNotFound, false, false},
		{"garbage as leaf", g, nil, item(func(i *api.CallItem) { i.Leaf = []byte("garbage") }), policies.CodeLeaf, false, false},
		{"swapped capsule", g, nil, item(func(i *api.CallItem) {
			leaf, _ := policies.ParseLeaf(i.Leaf)
			email, _ := policies.ParseLeaf(o.offer(nil, "email").Leaf)
			leaf.Capsule = email.Capsule
			i.Leaf = leaf.Bytes()
		}), policies.CodeProof, false, false},
		{"bent proof", g, nil, item(func(i *api.CallItem) { i.Proof.Path[0][0] ^= 1 }), policies.CodeProof, false, false},
		{"proof of another place", g, nil, item(func(i *api.CallItem) { i.Proof.Index ^= 1 }), policies.CodeProof, false, false},
		{"no point", g, nil, item(func(i *api.CallItem) { i.Point = [65]byte{} }), policies.CodePoint, false, false},
		{"point off the curve", g, nil, item(func(i *api.CallItem) { i.Point[64] ^= 2 }), policies.CodePoint, false, false},
		{"another point", g, nil, item(func(i *api.CallItem) { i.Point = o.offer(nil, "email").Point }), policies.CodePoint, false, false},
		{"the negated point", g, nil, item(func(i *api.CallItem) {
			p := elliptic.P256().Params().P
			new(big.Int).Sub(p, new(big.Int).SetBytes(i.Point[33:])).FillBytes(i.Point[33:])
		}), policies.CodePoint, false, false},
		{"another epoch than granted", epoch2, nil, nil, policies.CodeLeaf, false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			derives, size := w.token.count(), w.log.Checkpoint().Size
			c, e := r.callOf(test.request, ask{o, test.grant, "name", 0})
			if test.call != nil {
				test.call(&c)
			}
			reply := w.vault.Reencrypt(t.Context(), []api.Call{c})[0]
			got := reply.Code
			if !test.whole {
				answer := r.open(reply, e)
				got = answer.Items[0].Outcome
				if answer.Items[0].X != [32]byte{} || len(reply.Outcomes) != 1 || reply.Outcomes[0] != got {
					t.Error("a refused item carries an x, or the hint differs from the answer")
				}
			} else if reply.Sealed != nil {
				t.Error("a refused request has a sealed answer")
			}
			if got != test.want {
				t.Fatalf("outcome %q, want %q", got, test.want)
			}
			if w.token.count() != derives {
				t.Fatal("the token was asked")
			}
			if test.counted {
				w.vault.recordRefusals()
			}
			last := w.records()[size:]
			if len(last) != 1 {
				t.Fatalf("%d entries in the log, want 1", len(last))
			}
			if test.counted {
				if last[0].Kind != evidence.EntryRefusals || last[0].Details.Count != 1 || last[0].Details.Note != string(test.want)+" 1" {
					t.Fatalf("counted as %q", last[0].Details.Note)
				}
			} else if last[0].Kind != evidence.EntryRefusal || last[0].Outcome != test.want || last[0].Reader.IsZero() {
				t.Fatalf("recorded as %s %s", last[0].Kind, last[0].Outcome)
			}
		})
	}
	t.Run("a stranger with somebody's grant", func(t *testing.T) {
		derives := w.token.count()
		if got := stranger.read(ask{o, g, "name", 0}).Items[0].Outcome; got != policies.CodeNoGrant || w.token.count() != derives {
			t.Fatalf("outcome %q", got)
		}
	})
	t.Run("expired session", func(t *testing.T) {
		derives := w.token.count()
		w.clock.move(11 * time.Minute)
		c, _ := r.callOf(nil, ask{o, g, "name", 0})
		if reply := w.vault.Reencrypt(t.Context(), []api.Call{c})[0]; reply.Code != policies.CodeSession || w.token.count() != derives {
			t.Fatalf("reply %q", reply.Code)
		}
		w.clock.move(5 * time.Minute)
		w.vault.endSessions()
		if len(w.vault.keys.keys) != 0 {
			t.Fatal("keys of ended sessions are kept")
		}
	})
}

// TestHostileSubmissions is the same for documents.
func TestHostileSubmissions(t *testing.T) { eachCustody(t, hostileSubmissions) }

func hostileSubmissions(t *testing.T, w *world) {
	o, other, r := w.owner(), w.owner(), w.reader()
	o.set("name", "n")
	other.set("name", "x")
	used := o.grant(r, nil, "name")
	othersGrant := other.grant(r, nil, "name")
	notEnrolled := *r
	notEnrolled.id = policies.IdentityID{9}
	forger := *o
	forger.key = other.key
	_, strangersIdentity := w.identity()
	strangersIdentity.Envelope = bytes.Replace(strangersIdentity.Envelope, []byte(`"payload":"`), []byte(`"payload":"IC`), 1)

	manifest := func(o *owner, change func(*policies.Manifest)) func() api.Submission {
		return func() api.Submission { s, _, _ := o.manifestOf(change); return s }
	}
	grant := func(o *owner, r *reader, change func(*granting), late func(*api.Submission)) func() api.Submission {
		return func() api.Submission {
			s, _, _ := o.grantOf(r, change, "name")
			if late != nil {
				late(&s)
			}
			return s
		}
	}
	revocation := func(o *owner, change func(*policies.Revocation), g *policies.Grant, f policies.Field) func() api.Submission {
		return func() api.Submission { s, _ := o.revocationOf(change, g, f); return s }
	}
	session := func(change func(*policies.Session)) func() api.Submission {
		return func() api.Submission { s, _, _, _ := r.sessionOf(change); return s }
	}
	wrap := func(b []byte) func(*granting) { return func(g *granting) { g.wrapped["name"] = b } }
	scalar := func(hexDigits string) []byte {
		n, _ := new(big.Int).SetString(hexDigits, 16)
		return append(pkcs8Head(), n.FillBytes(make([]byte, 32))...)
	}
	tests := []struct {
		name    string
		make    func() api.Submission
		want    policies.Code
		counted bool
	}{
		{"not an envelope", func() api.Submission { return api.Submission{Envelope: []byte(`{}`)} }, policies.CodeMalformed, true},
		{"a type that no vault acts on", func() api.Submission {
			return api.Submission{Envelope: r.requestOf(nil, ask{o, used, "name", 0}).Raw}
		}, policies.CodeMalformed, true},
		{"keys without a grant", func() api.Submission {
			s, _, _ := o.manifestOf(nil)
			s.Keys = make([]api.SealedKey, 1)
			return s
		}, policies.CodeMalformed, true},
		{"bent identity", func() api.Submission { return strangersIdentity }, policies.CodeMalformed, true},
		{"identity with another's signature", func() api.Submission {
			_, one := w.identity()
			_, two := w.identity()
			return api.Submission{Envelope: withSignatureOf(one.Envelope, two.Envelope)}
		}, policies.CodeSignature, true},
		{"forged manifest", manifest(&forger, nil), policies.CodeSignature, true},
		{"forged grant", grant(&forger, r, nil, nil), policies.CodeSignature, true},
		{"forged revocation", revocation(&forger, nil, used, "name"), policies.CodeSignature, true},
		{"unknown owner", manifest(o, func(m *policies.Manifest) { m.Owner, m.Author = policies.OwnerID{9}, policies.AuthorID{9} }), policies.CodeUnknown, true},
		{"session of another reader", session(func(s *policies.Session) { s.Reader = policies.ReaderID(o.id) }), policies.CodeSignature, true},

		{"manifest for another vault", manifest(o, func(m *policies.Manifest) { m.Audience = policies.VaultID{9} }), policies.CodeWrongVault, false},
		{"grant for another vault", grant(o, r, func(g *granting) { g.doc.Audience = policies.VaultID{9} }, nil), policies.CodeWrongVault, false},
		{"revocation for another vault", revocation(o, func(r *policies.Revocation) { r.Audience = policies.VaultID{9} }, used, "name"), policies.CodeWrongVault, false},
		{"session for another vault", session(func(s *policies.Session) { s.Audience = policies.VaultID{9} }), policies.CodeWrongVault, false},
		{"session of the past", session(func(s *policies.Session) { s.NotBefore -= 1000; s.Expires -= 1000 }), policies.CodeSession, false},
		{"session of the future", session(func(s *policies.Session) { s.NotBefore += 1000; s.Expires += 1000 }), policies.CodeSession, false},

		{"manifest that skips one", manifest(o, func(m *policies.Manifest) { m.Seq++ }), policies.CodeChain, false},
		{"manifest over another document", manifest(o, func(m *policies.Manifest) { m.Prev = policies.Hash{9} }), policies.CodeChain, false},
		{"manifest over an older head", manifest(o, func(m *policies.Manifest) { m.PrevManifest = policies.Hash{9} }), policies.CodeChain, false},
		{"manifest of a later version", manifest(o, func(m *policies.Manifest) { m.Version++ }), policies.CodeChain, false},
		{"grant out of order", grant(o, r, func(g *granting) { g.doc.Seq++ }, nil), policies.CodeChain, false},
		{"revocation out of order", revocation(o, func(r *policies.Revocation) { r.Seq-- }, used, "name"), policies.CodeChain, false},
		{"manifest of another author", manifest(o, func(m *policies.Manifest) {
			m.Owner, m.Seq, m.Version, m.Prev, m.PrevManifest = policies.OwnerID(other.id), 1, 1, policies.Hash{}, policies.Hash{}
		}), policies.CodeNoWriteGrant, false},

		{"grant id of before", grant(o, r, func(g *granting) { g.doc.ID = used.ID }, nil), policies.CodeExists, false},
		{"grant id of another owner", grant(o, r, func(g *granting) { g.doc.ID = othersGrant.ID }, nil), policies.CodeExists, false},
		{"reader not enrolled", grant(o, &notEnrolled, nil, nil), policies.CodeUnknown, false},
		{"key of the other custody", grant(o, r, func(g *granting) {
			g.doc.Custody = map[policies.Custody]policies.Custody{policies.CustodyResident: policies.CustodySealed, policies.CustodySealed: policies.CustodyResident}[g.doc.Custody]
		}, nil), policies.CodeCustody, false},
		{"host's own import key", grant(o, r, func(g *granting) { g.doc.Fields[0].Keys[0].ImportKey = policies.Hash{9} }, nil), policies.CodeCustody, false},
		{"another import path", grant(o, r, func(g *granting) { g.doc.Fields[0].Keys[0].Path = "other" }, nil), policies.CodeCustody, false},
		{"another token", grant(o, r, func(g *granting) { g.doc.Fields[0].Keys[0].Token = "other" }, nil), policies.CodeCustody, false},
		{"keys withheld", grant(o, r, nil, func(s *api.Submission) { s.Keys = nil }), policies.CodeMalformed, false},
		{"key of another field", grant(o, r, nil, func(s *api.Submission) { s.Keys[0].Field = "email" }), policies.CodeImport, false},
		{"sealed key bent", grant(o, r, nil, func(s *api.Submission) { s.Keys[0].Sealed[1200] ^= 1 }), policies.CodeImport, false},
		{"key of another grant", grant(o, r, nil, func(s *api.Submission) {
			t, _, _ := o.grantOf(r, nil, "name")
			s.Keys = t.Keys
		}), policies.CodeImport, false},
		{"not the key that was signed", grant(o, r, nil, func(s *api.Submission) {
			e, _ := envelope.Parse(s.Envelope)
			s.Keys[0].Sealed = o.reseal(e.Hash, []byte("another key"))
		}), policies.CodeImport, false},

		{"revocation of another owner's grant", revocation(o, nil, othersGrant, "name"), policies.CodeNotFound, false},
		{"revocation of a field not granted", revocation(o, nil, used, "email"), policies.CodeNotFound, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			keys, size := w.held(), w.log.Checkpoint().Size
			receipt, err := w.submit(test.make())
			if receipt != nil || !errors.Is(err, test.want) && problem.Of(err).Code != test.want {
				t.Fatalf("%v, want %s", err, test.want)
			}
			if w.held() != keys {
				t.Fatal("the token holds another number of keys")
			}
			if test.want == policies.CodeChain {
				p := problem.Of(err)
				if p.Receipt == nil {
					t.Fatal("chain_moved without the receipt of the newest document")
				}
				if _, _, _, err := p.Receipt.Verify(w.document, o.prev); err != nil {
					t.Fatal(err)
				}
			}
			if test.counted {
				w.vault.recordRefusals()
			}
			last := w.records()[size:]
			if len(last) != 1 {
				t.Fatalf("%d entries in the log, want 1", len(last))
			}
			if !test.counted && (last[0].Kind != evidence.EntryRefusal || last[0].Outcome != test.want) {
				t.Fatalf("recorded as %s %s", last[0].Kind, last[0].Outcome)
			}
		})
	}

	// What the token refuses looks like any other failed import, leaves no key, is on record, and does not use up the grant's id or place.
	for name, wrapped := range map[string][]byte{
		"garbage":    []byte("garbage"),
		"empty":      {},
		"zero":       scalar("0"),
		"n":          scalar("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
		"n + 1":      scalar("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632552"),
		"2^256 - 1":  scalar("ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
		"cut short":  pkcs8Head(),
		"a P-384 id": bytes.Replace(scalar("5"), []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}, []byte{0x2b, 0x81, 0x04, 0x00, 0x22, 0, 0, 0}, 1),
	} {
		t.Run("wrapped "+name, func(t *testing.T) {
			keys, size := w.held(), w.log.Checkpoint().Size
			s, g, _ := o.grantOf(r, wrap(wrapped), "name")
			_, err := w.submit(s)
			if err != policies.CodeImport {
				t.Fatalf("%v, want exactly %v", err, policies.CodeImport)
			}
			if w.held() != keys {
				t.Fatal("something stayed in the token")
			}
			last := w.records()[size:]
			if len(last) != 2 || last[0].Kind != evidence.EntryImport || last[1].Kind != evidence.EntryFailed || last[1].Details.Index != last[0].Index {
				t.Fatalf("recorded as %d entries", len(last))
			}
			if got := r.read(ask{o, g, "name", 0}).Items[0].Outcome; got != policies.CodeNoGrant {
				t.Fatalf("reading under it: %s", got)
			}
		})
	}
	o.grant(r, nil, "name")
}

// withSignatureOf puts the signatures of one envelope on another.
func withSignatureOf(e, other []byte) []byte {
	mark := []byte(`"signatures":`)
	return append(bytes.Clone(e[:bytes.Index(e, mark)]), other[bytes.Index(other, mark):]...)
}

// TestImportIsAllOrNothing: of a grant of several fields, one key is refused.
func TestImportIsAllOrNothing(t *testing.T) { eachCustody(t, importIsAllOrNothing) }

func importIsAllOrNothing(t *testing.T, w *world) {
	o, r := w.owner(), w.reader()
	o.seal("email", 1, "e")
	o.seal("name", 1, "n")
	o.publish()
	s, g, _ := o.grantOf(r, func(g *granting) { g.wrapped["name"] = []byte("garbage") }, "email", "name")
	if _, err := w.submit(s); err != policies.CodeImport {
		t.Fatal(err)
	}
	if w.held() != 0 {
		t.Fatal("the key of the other field stayed")
	}
	if got := r.read(ask{o, g, "email", 0}).Items[0].Outcome; got != policies.CodeNoGrant {
		t.Fatal(got)
	}
	// A token that fails once is no reason to sign anew.
	s, g, hash := o.grantOf(r, nil, "email", "name")
	var calls atomic.Int32
	w.token.hook = func(op string) error {
		if calls.Add(1) > 1 && op == "import" {
			return errors.New("device error")
		}
		return nil
	}
	if _, err := w.submit(s); err != policies.CodeImport {
		t.Fatal(err)
	}
	w.token.hook = nil
	w.accepted(s)
	o.seq, o.prev = o.seq+1, hash
	r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0])
}

// TestRevocationIsFinished: a token that cannot destroy does not keep a revocation from being in force, only from being acknowledged.
func TestRevocationIsFinished(t *testing.T) { eachCustody(t, revocationIsFinished) }

func revocationIsFinished(t *testing.T, model *world) {
	for name, finish := range map[string]func(w *world, s api.Submission){
		"sent again": func(w *world, s api.Submission) { w.accepted(s) },
		"restarted":  func(w *world, s api.Submission) { w.restart(true); w.accepted(s) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.custody = model.custody
			o, r := w.owner(), w.reader()
			o.set("name", "n")
			g := o.grant(r, nil, "name")
			s, hash := o.revocationOf(nil, g, "name")
			w.token.hook = func(op string) error {
				if op == "destroy" || op == "forget" {
					return errors.New("device error")
				}
				return nil
			}
			for range 2 {
				if receipt, err := w.submit(s); receipt != nil || !errors.Is(err, policies.CodeTokenFailure) {
					t.Fatalf("acknowledged with the key in the token: %v", err)
				}
			}
			if got := r.read(ask{o, g, "name", 0}).Items[0].Outcome; got != policies.CodeRevoked {
				t.Fatalf("outcome %s", string(got))
			}
			w.token.hook = nil
			finish(w, s)
			if w.held() != 0 {
				t.Fatal("the key is still in the token")
			}
			destroyed := 0
			for _, record := range w.records() {
				if record.Kind == evidence.EntryDestroyed && record.Details.Document == hash {
					destroyed++
				}
			}
			if destroyed != 1 {
				t.Fatalf("%d records of the destruction", destroyed)
			}
		})
	}
}

// TestStartSweeps: keys that no grant stands for go, keys of grants stay.
func TestStartSweeps(t *testing.T) { eachCustody(t, startSweeps) }

func startSweeps(t *testing.T, w *world) {
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	w.plant(KeyID{9}, keyID(g.ID, "name", policies.AuthorID(o.id)))
	if w.held() != 2 {
		t.Fatal("nothing was planted")
	}
	w.restart(true)
	if w.held() != 1 || w.holds(KeyID{9}) {
		t.Fatalf("%d keys after the start", w.held())
	}
	r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0])
}

func TestSameDocumentSameReceipt(t *testing.T) { eachCustody(t, sameDocumentSameReceipt) }

func sameDocumentSameReceipt(t *testing.T, w *world) {
	_, id := w.identity()
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	session, _, _, _ := r.sessionOf(nil)
	manifest, _, manifestHash := o.manifestOf(nil)
	twice := func(name string, s api.Submission) {
		t.Helper()
		first, size := w.accepted(s), w.log.Checkpoint().Size
		second := w.accepted(s)
		if first.Evidence.Index != second.Evidence.Index || w.log.Checkpoint().Size != size {
			t.Errorf("%s: a second entry", name)
		}
	}
	twice("identity", id)
	twice("session", session)
	twice("manifest", manifest)
	o.seq, o.prev = o.seq+1, manifestHash
	grant, g, hash := o.grantOf(r, nil, "name")
	twice("grant", grant)
	o.seq, o.prev = o.seq+1, hash
	revocation, _ := o.revocationOf(nil, g, "name")
	twice("revocation", revocation)
}

// TestDecideRecordAct: when the token is asked, the log already says why.
func TestDecideRecordAct(t *testing.T) { eachCustody(t, decideRecordAct) }

func decideRecordAct(t *testing.T, w *world) {
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	var seen []evidence.Kind
	w.token.hook = func(op string) error {
		records := w.records()
		last := records[len(records)-1]
		want := map[string]evidence.Kind{"import": evidence.EntryImport, "derive": evidence.EntryUse, "destroy": evidence.EntryRevocation, "forget": evidence.EntryRevocation}
		if kind, ok := want[op]; ok && last.Kind != kind {
			t.Errorf("%s: the newest entry is %s", op, last.Kind)
		}
		seen = append(seen, last.Kind)
		return nil
	}
	g := o.grant(r, nil, "name")
	r.read(ask{o, g, "name", 0})
	o.revoke(g, "name")
	if len(seen) != 5 {
		t.Fatalf("the token was asked at %v", seen)
	}
}

func TestFailedDeriveIsRecorded(t *testing.T) { eachCustody(t, failedDeriveIsRecorded) }

func failedDeriveIsRecorded(t *testing.T, model *world) {
	for _, test := range []struct {
		name string
		fail func(w *world)
		want policies.Code
	}{
		{"token fails", func(w *world) {
			w.token.hook = func(op string) error {
				if op == "derive" {
					return errors.New("device error")
				}
				return nil
			}
		}, policies.CodeTokenFailure},
		{"key gone", func(w *world) { w.loseKeys() }, policies.CodeKeyMissing},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.custody = model.custody
			o, r := w.owner(), w.reader()
			o.set("name", "n")
			g := o.grant(r, nil, "name")
			test.fail(w)
			before := w.clock.now()
			if got := r.read(ask{o, g, "name", 0}).Items[0].Outcome; got != test.want {
				t.Fatalf("outcome %s, want %s", got, test.want)
			}
			records := w.records()
			use, failed := records[len(records)-2], records[len(records)-1]
			if use.Kind != evidence.EntryUse || failed.Kind != evidence.EntryFailed || failed.Outcome != test.want || failed.Details.Index != use.Index {
				t.Fatalf("recorded as %s, %s %s", use.Kind, failed.Kind, failed.Outcome)
			}
			if d := use.Details; d.Token != testSerial || d.Grade != "unproven" || d.Decided < before.UnixMilli() || d.Decided > use.Time.UnixMilli() {
				t.Errorf("token %q of grade %q, decided %d, between %d and %d", d.Token, d.Grade, d.Decided, before.UnixMilli(), use.Time.UnixMilli())
			}
		})
	}
}

// TestStoppedLogStopsKeys: when the log cannot record, nothing is done, and nothing is done later either.
func TestStoppedLogStopsKeys(t *testing.T) { eachCustody(t, stoppedLogStopsKeys) }

func stoppedLogStopsKeys(t *testing.T, w *world) {
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	w.logKey.hook = func() error { return errors.New("token gone") }
	for range 2 {
		c, _ := r.callOf(nil, ask{o, g, "name", 0})
		if reply := w.vault.Reencrypt(t.Context(), []api.Call{c})[0]; reply.Code != policies.CodeLogStopped || reply.Sealed != nil {
			t.Fatalf("reply %q", reply.Code)
		}
		w.logKey.hook = nil // it sticks
	}
	if w.token.count() != 0 {
		t.Fatal("a key was used without a record")
	}
	s, _ := o.revocationOf(nil, g, "name")
	if _, err := w.submit(s); !errors.Is(err, policies.CodeLogStopped) {
		t.Fatalf("revoking: %v", err)
	}
	if h := w.vault.Health(); h.Status != "stopped" || h.Reason == "" {
		t.Fatalf("health %+v", h)
	}
}

func TestLimitsCountOverRestartsAndConcurrency(t *testing.T) {
	for name, restart := range map[string]func(*world){
		"running":     func(*world) {},
		"killed":      func(w *world) { w.restart(true) },
		"no database": func(w *world) { w.restart(false) },
		"closed": func(w *world) {
			must(w.t, w.vault.Close(w.t.Context()))
			must(w.t, w.log.Close())
			w.reopen(true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			o, r := w.owner(), w.reader()
			o.set("name", "n")
			g := o.grant(r, func(g *granting) { g.doc.Limits.ReadsPerDay = 5 }, "name")
			a := ask{o, g, "name", 0}
			for range 2 {
				r.value(a, r.read(a).Items[0])
			}
			restart(w)
			var released atomic.Int64
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if r.read(a).Items[0].Outcome == policies.CodeReleased {
						released.Add(1)
					}
				})
			}
			wg.Wait()
			if released.Load() != 3 {
				t.Fatalf("%d more reads, want 3", released.Load())
			}
			w.clock.move(24 * time.Hour)
			r.openSession()
			r.value(a, r.read(a).Items[0])
		})
	}
}

// TestLimitsOutliveGrants: a day's count belongs to owner, reader and field. Neither a rotation, nor revoking and granting anew, nor a restart
// begins it again; a higher limit, another reader, another field and the next day do what they say.
func TestLimitsOutliveGrants(t *testing.T) {
	for name, restart := range map[string]func(*world){
		"running":     func(*world) {},
		"killed":      func(w *world) { w.restart(true) },
		"no database": func(w *world) { w.restart(false) },
		"flushed":     func(w *world) { w.vault.flush(); w.restart(true) },
		"tidied": func(w *world) {
			w.vault.endSessions()
			w.vault.flush()
			w.restart(true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			o, r, other := w.owner(), w.reader(), w.reader()
			limit := func(n uint64) func(*granting) { return func(g *granting) { g.doc.Limits.ReadsPerDay = n } }
			o.seal("name", 1, "n")
			o.seal("email", 1, "e")
			o.publish()
			// reads is how many of ten tries are released.
			reads := func(r *reader, g *policies.Grant, f policies.Field) (n int) {
				t.Helper()
				for range 10 {
					switch a := (ask{o, g, f, 0}); r.read(a).Items[0].Outcome {
					case policies.CodeReleased:
						n++
					case policies.CodeLimit:
					default:
						t.Fatalf("%s: neither released nor at the limit", f)
					}
				}
				return n
			}
			is := func(what string, got, want int) {
				t.Helper()
				if got != want {
					t.Errorf("%s: %d reads, want %d", what, got, want)
				}
			}
			first := o.grant(r, limit(5), "name")
			a := ask{o, first, "name", 0}
			for range 2 {
				r.value(a, r.read(a).Items[0])
			}
			restart(w)
			o.seal("name", 2, "n")
			second := o.grant(r, limit(5), "name", "email")
			o.publish()
			o.revoke(first, "name")
			restart(w)
			is("after a rotation", reads(r, second, "name"), 3)
			is("another field of that grant", reads(r, second, "email"), 0)
			o.revoke(second, "name", "email")
			third := o.grant(r, limit(5), "name")
			restart(w)
			is("revoked and granted anew", reads(r, third, "name"), 0)
			is("a field of which nothing was read", reads(r, o.grant(r, limit(5), "email"), "email"), 5)
			is("a higher limit", reads(r, o.grant(r, limit(7), "name"), "name"), 2)
			is("no limit", reads(r, o.grant(r, nil, "name"), "name"), 10)
			is("another reader", reads(other, o.grant(other, limit(5), "name"), "name"), 5)
			w.clock.move(24 * time.Hour)
			r.openSession()
			restart(w)
			is("the next day", reads(r, third, "name"), 5)
		})
	}
}

// TestFetch: the owner gets their chain, newest first and page by page; nobody gets it with a document that was signed for another end.
func TestFetch(t *testing.T) {
	w := newWorld(t)
	o, other, r := w.owner(), w.owner(), w.reader()
	manifest := func(change func(*policies.Manifest)) []byte {
		s, _, _ := o.manifestOf(change)
		return s.Envelope
	}
	question := func(m *policies.Manifest) {
		m.Version, m.PrevManifest, m.Link = 1, policies.Hash{}, policies.Link{Seq: 1, Prev: policies.Hash{9}}
	}
	pending := manifest(nil) // signed, on its way, and never accepted
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	published := manifest(nil)
	o.revoke(g, "name")
	page, err := w.vault.Fetch(api.Fetch{Envelope: manifest(question)})
	must(t, err)
	var types []string
	var hashes []policies.Hash
	for _, raw := range page.Documents {
		e, err := envelope.Parse(raw)
		must(t, err)
		types, hashes = append(types, e.Type), append(hashes, policies.Hash(e.Hash))
	}
	if !slices.Equal(types, []string{"revocation", "grant", "manifest"}) || hashes[0] != o.prev {
		t.Fatalf("%v", types)
	}
	rest, err := w.vault.Fetch(api.Fetch{Envelope: manifest(question), Before: hashes[1]})
	if err != nil || len(rest.Documents) != 1 || !bytes.Equal(rest.Documents[0], page.Documents[2]) {
		t.Errorf("the rest: %d documents, %v", len(rest.Documents), err)
	}
	other.set("name", "x")
	for name, f := range map[string]api.Fetch{
		"a manifest that was never accepted": {Envelope: pending},
		"a newer one":                        {Envelope: published},
		"an accepted manifest":               {Envelope: page.Documents[2]},
		"a grant":                            {Envelope: page.Documents[1]},
		"a revocation":                       {Envelope: page.Documents[0]},
		"for another vault":                  {Envelope: manifest(func(m *policies.Manifest) { question(m); m.Audience[0]++ })},
		"a minute old":                       {Envelope: manifest(func(m *policies.Manifest) { question(m); m.Time -= 61 })},
		"of the future":                      {Envelope: manifest(func(m *policies.Manifest) { question(m); m.Time += 61 })},
		"somebody else's": {Envelope: manifest(func(m *policies.Manifest) {
			question(m)
			m.Owner, m.Author = policies.OwnerID(other.id), policies.AuthorID(other.id)
		})},
		"from somebody else's document on": {Envelope: manifest(question), Before: other.prev},
		"from nowhere on":                  {Envelope: manifest(question), Before: policies.Hash{7}},
	} {
		if page, err := w.vault.Fetch(f); err == nil {
			t.Errorf("%s: %d documents", name, len(page.Documents))
		}
	}
}

func TestNoncesSurviveRestarts(t *testing.T) {
	for _, database := range []bool{true, false} {
		w := newWorld(t)
		o, r := w.owner(), w.reader()
		o.set("name", "n")
		g := o.grant(r, nil, "name")
		a := ask{o, g, "name", 0}
		w.vault.flush() // the session goes into the database, then one nonce, then one more into the log alone
		c, e := r.callOf(nil, a)
		r.open(w.vault.Reencrypt(t.Context(), []api.Call{c})[0], e)
		w.vault.flush()
		c2, e2 := r.callOf(nil, a)
		r.open(w.vault.Reencrypt(t.Context(), []api.Call{c2})[0], e2)
		w.restart(database)
		derives := w.token.count()
		for i, c := range []api.Call{c, c2} {
			if reply := w.vault.Reencrypt(t.Context(), []api.Call{c})[0]; reply.Code != policies.CodeReplay {
				t.Errorf("database %v: request %d again: %q", database, i, reply.Code)
			}
		}
		if w.token.count() != derives {
			t.Error("the token was asked")
		}
		r.value(a, r.read(a).Items[0]) // the session itself goes on
	}
}

// TestSameNonceAtOnce: of many copies of one request at once, one is answered.
func TestSameNonceAtOnce(t *testing.T) { eachCustody(t, sameNonceAtOnce) }

func sameNonceAtOnce(t *testing.T, w *world) {
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	c, _ := r.callOf(nil, ask{o, g, "name", 0})
	var answered atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, reply := range w.vault.Reencrypt(t.Context(), []api.Call{c, c}) {
				if reply.Code == "" {
					answered.Add(1)
				} else if reply.Code != policies.CodeReplay {
					t.Errorf("reply %q", reply.Code)
				}
			}
		})
	}
	wg.Wait()
	if answered.Load() != 1 || w.token.count() != 1 {
		t.Fatalf("%d answers, %d derives", answered.Load(), w.token.count())
	}
}

// TestNoDeriveAfterRevocation: while many read, the key is revoked. No use begins after the record of the revocation, and none is
// under way when it is acknowledged.
func TestNoDeriveAfterRevocation(t *testing.T) { eachCustody(t, noDeriveAfterRevocation) }

func noDeriveAfterRevocation(t *testing.T, w *world) {
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	a := ask{o, g, "name", 0}
	var acknowledged atomic.Bool
	w.token.hook = func(op string) error {
		if op == "derive" {
			time.Sleep(2 * time.Millisecond)
			if acknowledged.Load() {
				t.Error("a derive after the acknowledgement")
			}
		}
		return nil
	}
	stop := make(chan struct{})
	var refused atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, e := r.callOf(nil, a)
				switch outcome := r.open(w.vault.Reencrypt(context.Background(), []api.Call{c})[0], e).Items[0].Outcome; outcome {
				case policies.CodeReleased:
				case policies.CodeRevoked:
					refused.Add(1)
				default: // key_missing would mean that the key went before its last use was over
					t.Errorf("outcome %s", outcome)
				}
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	o.revoke(g, "name")
	acknowledged.Store(true)
	time.Sleep(30 * time.Millisecond)
	close(stop)
	wg.Wait()
	if refused.Load() == 0 || w.token.count() == 0 {
		t.Fatal("the test saw no read before or none after")
	}
	revoked := false
	for _, record := range w.records() {
		revoked = revoked || record.Kind == evidence.EntryRevocation
		if revoked && record.Kind == evidence.EntryUse {
			t.Fatal("the log has a use behind the revocation")
		}
	}
}

// TestNoUseUnderAnOldHead: while many read, the owner publishes. In the log, each use is under the head that was newest there.
func TestNoUseUnderAnOldHead(t *testing.T) {
	w := newWorld(t)
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	stop := make(chan struct{})
	var mu sync.Mutex // guards o
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				c, e := r.callOf(nil, ask{o, g, "name", 0})
				mu.Unlock()
				switch outcome := r.open(w.vault.Reencrypt(context.Background(), []api.Call{c})[0], e).Items[0].Outcome; outcome {
				case policies.CodeReleased, policies.CodeHeadMoved:
				default:
					t.Errorf("outcome %s", string(outcome))
				}
			}
		})
	}
	for range 60 {
		s, tree, hash := o.manifestOf(nil)
		w.accepted(s)
		mu.Lock()
		o.seq, o.prev, o.version, o.manifest, o.tree = o.seq+1, hash, o.version+1, hash, tree
		mu.Unlock()
	}
	close(stop)
	wg.Wait()
	var head policies.Hash
	uses := 0
	for _, record := range w.records() {
		switch record.Kind {
		case evidence.EntryManifest:
			head = record.Details.Document
		case evidence.EntryUse:
			if uses++; record.Details.Head != head {
				t.Fatalf("entry %d: a use under an older head", record.Index)
			}
		}
	}
	if uses == 0 {
		t.Fatal("nothing was read")
	}
}

// TestCrashAnywhere kills the vault before and after every operation of the token and every signature of the log, while a grant
// is imported, used and revoked, and looks at what comes back.
func TestCrashAnywhere(t *testing.T) { eachCustody(t, crashAnywhere) }

func crashAnywhere(t *testing.T, w *world) {
	o, r := w.owner(), w.reader()
	o.seal("name", 1, "n")
	o.seal("email", 1, "e")
	o.publish()
	kept := o.grant(r, nil, "email")
	several := o.grant(r, nil, "name", "email")

	type crash struct {
		world *world
		at    string
		sent  api.Submission
	}
	var crashes []crash
	var sent api.Submission
	step := ""
	var mu sync.Mutex // keys of one grant are imported side by side
	note := func(at string) {
		mu.Lock()
		defer mu.Unlock()
		crashes = append(crashes, crash{w.snapshot(t), step + ", " + at, sent})
	}
	w.token.hook = func(op string) error { note(op); return nil }
	w.logKey.hook = func() error { note("sign"); return nil }

	step = "grant"
	s, g, hash := o.grantOf(r, nil, "name", "email")
	sent = s
	w.accepted(s)
	o.seq, o.prev = o.seq+1, hash
	step, sent = "read", api.Submission{}
	r.read(ask{o, g, "name", 0})
	step = "revoke"
	sent, hash = o.revocationOf(nil, g, "name")
	w.accepted(sent)
	o.seq, o.prev = o.seq+1, hash
	step = "revoke several"
	sent, hash = o.revocationOf(nil, several, "name", "email")
	w.accepted(sent)
	o.seq, o.prev = o.seq+1, hash
	w.token.hook, w.logKey.hook = nil, nil
	if len(crashes) < 12 {
		t.Fatalf("only %d places to crash", len(crashes))
	}
	for i, c := range crashes {
		for _, database := range []bool{true, false} {
			if !database {
				c.world = c.world.snapshot(t)
			}
			w := c.world
			ro := *r
			ro.w = w
			if i%3 != 0 && !database {
				continue // the full replay is the same each time
			}
			w.reopen(database)
			inForce := map[KeyID]bool{keyID(kept.ID, "email", policies.AuthorID(o.id)): true}
			var keys int
			w.vault.ledger.Read(func(s *ledgerState) {
				keys = s.Keys(w.custody)
				if len(s.Undone()) != 0 || len(s.Imports()) != 0 {
					t.Errorf("%s: something is still half done", c.at)
				}
			})
			if w.held() != keys {
				t.Errorf("%s: the token holds %d keys, the ledger %d", c.at, w.held(), keys)
			}
			for k := range inForce {
				if !w.holds(k) {
					t.Errorf("%s: a key in force is gone", c.at)
				}
			}
			if got := ro.read(ask{o, kept, "email", 0}).Items[0].Outcome; got != policies.CodeReleased {
				t.Errorf("%s: the other grant: %s", c.at, got)
			}
			if c.sent.Envelope != nil {
				w.accepted(c.sent) // the client sends the same document again
			}
			w.kill()
			// And once more: what was finished at the first start stays finished.
			w.reopen(true)
			w.kill()
		}
	}
}

// TestDatabaseIsOnlyAnIndex: whichever database it finds, the vault comes back to what its log says. Damage is in the ledger's own tests.
func TestDatabaseIsOnlyAnIndex(t *testing.T) { eachCustody(t, databaseIsOnlyAnIndex) }

func databaseIsOnlyAnIndex(t *testing.T, w *world) {
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	w.vault.flush()
	old := w.snapshot(t) // a backup of before the revocation
	o.revoke(g, "name")
	must(t, w.vault.Close(t.Context()))
	must(t, w.log.Close())
	w.vault = nil

	check := func(t *testing.T, w *world) {
		t.Helper()
		w.reopen(true)
		ro := *r
		ro.w = w
		if got := ro.read(ask{o, g, "name", 0}).Items[0].Outcome; got != policies.CodeRevoked {
			t.Errorf("the revoked grant: %s", got)
		}
		w.kill()
	}
	t.Run("as it is", func(t *testing.T) { check(t, w.snapshot(t)) })
	t.Run("an older one", func(t *testing.T) {
		c := w.snapshot(t)
		must(t, os.RemoveAll(filepath.Join(c.dir, "db")))
		copyFolder(t, filepath.Join(c.dir, "db"), filepath.Join(old.dir, "db"))
		check(t, c)
	})
	t.Run("of another data key", func(t *testing.T) {
		c := w.snapshot(t)
		other := newWorld(t)
		other.owner()
		must(t, other.vault.Close(t.Context()))
		must(t, other.log.Close())
		other.vault = nil
		must(t, os.RemoveAll(filepath.Join(c.dir, "db")))
		copyFolder(t, filepath.Join(c.dir, "db"), filepath.Join(other.dir, "db"))
		check(t, c)
	})
}

func TestOpenRefuses(t *testing.T) {
	w := newWorld(t)
	must(t, w.vault.Close(t.Context()))
	for name, change := range map[string]func(*Config){
		"another token":       func(c *Config) { c.Serial = "other" },
		"another import key":  func(c *Config) { c.ImportKey = preBlobKey(9) },
		"another session key": func(c *Config) { c.SessionKey = preVaultKey(9) },
		"another vault": func(c *Config) {
			d := *c.Document
			d.Vault = policies.VaultID{8}
			c.Document = &d
		},
		"no token": func(c *Config) { c.Token = nil },
	} {
		cfg := w.config()
		cfg.Dir = ""
		change(&cfg)
		if v, err := Open(t.Context(), cfg); err == nil {
			v.Close(t.Context())
			t.Errorf("%s: opened", name)
		}
	}
	if err := Create(t.Context(), w.log, w.envelope, w.document); err == nil {
		t.Error("created twice")
	}
	must(t, w.log.Close())
	w.vault = nil
}

// TestOldVaultDocument: a host that puts the file of the vault document back to an older state does not get the vault to start, whatever became of the
// database. What the log knows of it is in the entries of the starts.
func TestOldVaultDocument(t *testing.T) {
	w := newWorld(t)
	first, old := w.envelope, w.document
	sign := func(version uint64, label string) {
		d := *old
		d.Version, d.Tokens = version, slices.Clone(old.Tokens)
		d.Tokens[0].Label = label
		var err error
		w.envelope, err = policies.Sign(newSigner(1), &d)
		must(t, err)
		w.document = &d
	}
	sign(3, "test")
	w.restart(true)
	newest, newestDocument := w.envelope, w.document
	refused := func(what string) {
		t.Helper()
		for _, database := range []bool{true, false} {
			c := w.config()
			if !database {
				c.Dir = ""
			}
			before := w.log.Checkpoint().Size
			v, err := Open(t.Context(), c)
			if err == nil {
				v.Close(t.Context())
			}
			if !errors.Is(err, ErrOldDocument) || w.log.Checkpoint().Size != before {
				t.Errorf("%s, database %v: %v, and %d entries more", what, database, err, w.log.Checkpoint().Size-before)
			}
		}
	}
	for _, flushed := range []bool{false, true} {
		if flushed {
			must(t, w.vault.Close(t.Context()))
			must(t, w.log.Close())
			w.vault = nil
		} else {
			w.kill()
		}
		var err error
		w.log, err = keylog.Open(t.Context(), w.logConfig())
		must(t, err)
		w.envelope, w.document = first, old
		refused("the first one")
		sign(2, "test")
		refused("one between")
		sign(3, "another")
		refused("another of the same version")
		w.envelope, w.document = newest, newestDocument
		w.open()
	}
	sign(4, "test")
	w.restart(true)
}

func BenchmarkReencrypt(b *testing.B) {
	for _, custody := range []policies.Custody{policies.CustodyResident, policies.CustodySealed} {
		b.Run(string(custody), func(b *testing.B) { benchmarkReencrypt(b, custody) })
	}
}

func benchmarkReencrypt(b *testing.B, custody policies.Custody) {
	for _, size := range []int{1, 8, 100} {
		b.Run(map[int]string{1: "single", 8: "8 singles a call", 100: "100 fields"}[size], func(b *testing.B) {
			w := newWorld(b)
			w.custody = custody
			o, r := w.owner(), w.reader()
			var fields []policies.Field
			for i := range 100 {
				f := policies.Field("own/" + string(rune('a'+i/10)) + string(rune('a'+i%10)))
				o.seal(f, 1, "value")
				fields = append(fields, f)
			}
			o.publish()
			g := o.grant(r, nil, fields...)
			var calls [][]api.Call
			for i := range b.N {
				var batch []api.Call
				if size == 100 {
					var asks []ask
					for _, f := range fields {
						asks = append(asks, ask{o, g, f, 0})
					}
					c, _ := r.callOf(nil, asks...)
					batch = []api.Call{c}
				} else {
					for k := range size {
						c, _ := r.callOf(nil, ask{o, g, fields[(i+k)%100], 0})
						batch = append(batch, c)
					}
				}
				calls = append(calls, batch)
			}
			var next atomic.Int64
			b.ResetTimer()
			b.ReportAllocs()
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					for _, reply := range w.vault.Reencrypt(context.Background(), calls[next.Add(1)-1]) {
						if reply.Code != "" {
							b.Error(reply.Code)
						}
					}
				}
			})
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "fields/s")
		})
	}
}

// TestImportWithoutAnEnd: an import whose end the log did not take, a full disk say, is ended as soon as it can be, though its owner never comes back; not while somebody is at it. The same grant may then come again.
func TestImportWithoutAnEnd(t *testing.T) { eachCustody(t, importWithoutAnEnd) }

func importWithoutAnEnd(t *testing.T, w *world) {
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	s, g, hash := o.grantOf(r, nil, "name")
	e, err := envelope.Parse(s.Envelope)
	must(t, err)
	unlock := w.vault.owners.lock(g.Owner)
	_, _, err = w.vault.record(t.Context(), func(s *ledger.State, _ time.Time) []ledger.Record {
		return []ledger.Record{{
			Kind: evidence.EntryImport, Owner: s.Pseudonym(policies.IdentityID(g.Owner)), Reader: s.Pseudonym(policies.IdentityID(g.Reader)), Raw: e.Raw, Document: g,
			Details: evidence.Details{Owner: g.Owner, Reader: g.Reader, Grant: g.ID, Document: hash, Token: testSerial, Custody: g.Custody},
		}}
	})
	must(t, err)
	open := func() (n int) {
		w.vault.ledger.Read(func(s *ledgerState) { n = len(s.Imports()) })
		return n
	}
	w.vault.endImports(t.Context())
	if open() != 1 {
		t.Fatal("an import was ended while somebody was at it")
	}
	unlock()
	w.vault.endImports(t.Context()) // as every second, see keep
	if open() != 0 {
		t.Fatal("the import has no end")
	}
	if last := w.records()[len(w.records())-1]; last.Kind != evidence.EntryFailed || last.Details.Grant != g.ID {
		t.Errorf("the last entry: %+v", last)
	}
	w.accepted(s)
	if open() != 0 || w.held() != 1 {
		t.Errorf("%d keys, %d imports", w.held(), open())
	}
}
