package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// TestHostileStorefront is the storefront's whole power over a vault, used for evil: whoever holds its client certificate says anything. Each
// attack gets its own code, releases nothing, causes no C_DeriveKey, and is in the key-use log.
func TestHostileStorefront(t *testing.T) {
	t.Parallel()
	s := openStage(t, stage.Options{VaultConfig: ownersLimits})
	m := newMole(t, s)
	t.Run("reads", m.reads)
	t.Run("documents", m.documents)
	t.Run("order", m.order)
	t.Run("keys", m.keys)
	t.Run("doors", m.doors)
}

// with is the mole in a subtest.
func (m *mole) with(t *testing.T) *mole {
	other := *m
	other.t = t
	return &other
}

// refusedOnce demands that one refusal with this code is what was logged since an index.
func refusedOnce(t *testing.T, s *stage.Stage, from int, want policies.Code) {
	t.Helper()
	news := since(t, s, from)
	if len(news) != 1 || news[0].Entry.Kind != evidence.EntryRefusal || news[0].Entry.Outcome != want || news[0].Entry.Owner.IsZero() && news[0].Entry.Reader.IsZero() {
		t.Errorf("the key-use log got %d entries, want one refusal %q: %+v", len(news), want, entriesOf(news))
	}
}

func entriesOf(list []devices.Logged) (out []string) {
	for _, l := range list {
		out = append(out, string(l.Entry.Kind)+" "+string(l.Entry.Outcome))
	}
	return out
}

// counted demands that the log counts at least so many refusals of strangers more than before.
func counted(t *testing.T, s *stage.Stage, before map[policies.Code]int, want map[policies.Code]int) {
	t.Helper()
	await(t, 20*time.Second, "counted in the key-use log", func() bool {
		now := strangers(t, s)
		for code, n := range want {
			if now[code]-before[code] < n {
				return false
			}
		}
		return true
	})
	for code, n := range strangers(t, s) {
		if n-before[code] != want[code] {
			t.Errorf("the log counts %d refusals %q of strangers, want %d", n-before[code], code, want[code])
		}
	}
}

func (m *mole) reads(t *testing.T) {
	m, s := m.with(t), m.s
	o, other := m.owner(), m.owner()
	r, stranger := m.reader(), m.reader()
	o.seal("name", "the old name")
	o.seal("email", "an address")
	o.publish()
	older := o.offer(nil, "name")
	o.set("name", "the name")
	other.set("name", "another's name")
	g := o.grant(r, nil, "name")
	others := other.grant(r, nil, "name")
	strangers1 := o.grant(stranger, nil, "name")
	email := o.grant(r, nil, "email")
	revoked := o.grant(r, nil, "name")
	o.revoke(revoked, "name")
	span := func(from, to int64) func(*granting) {
		return func(g *granting) { now := time.Now().Unix(); g.doc.NotBefore, g.doc.Expires = now+from, now+to }
	}
	expired := o.grant(r, span(-7200, -3600), "name")
	early := o.grant(r, span(3600, 7200), "name")
	limited := o.grant(r, func(g *granting) { g.doc.Limits.ReadsPerDay = 1 }, "name")
	epoch2 := o.grant(r, func(g *granting) { g.doc.Fields[0].Epoch = 2 }, "name")
	for _, a := range []ask{{o, limited, "name", 0}, {o, g, "name", 0}, {other, others, "name", 0}} { // the limited first: a day's count goes by field
		if code, value := r.read(a); code != policies.CodeReleased || value != map[*owner]string{o: "the name", other: "another's name"}[a.owner] {
			t.Fatalf("an honest read: %s %q", code, value)
		}
	}
	replayed, _ := r.callOf(nil, ask{o, g, "name", 0})
	if reply := m.call(replayed); reply.Code != "" {
		t.Fatalf("an honest read: %s", reply.Code)
	}
	oldSession := r.session
	otherReaderCall, _ := stranger.callOf(nil, ask{o, strangers1, "name", 0})

	type bend = func(*policies.ReadRequest)
	type twist = func(*api.Call)
	item := func(f func(*api.CallItem)) twist { return func(c *api.Call) { f(&c.Items[0]) } }
	rows := []struct {
		name    string
		grant   *policies.Grant
		request bend  // what a hostile reader signs
		call    twist // what a hostile storefront makes of it
		want    policies.Code
		whole   bool // the whole request is refused
		counted bool // of nobody in particular
	}{
		{"a request that is none", g, nil, func(c *api.Call) { c.Request = []byte("{") }, policies.CodeMalformed, true, true},
		{"a document of another type", g, nil, func(c *api.Call) { c.Request = r.envelope.Envelope }, policies.CodeMalformed, true, true},
		{"a session that the vault does not know", g, func(d *policies.ReadRequest) { d.Session = policies.Hash{9} }, nil, policies.CodeSession, true, true},
		{"a session's key signs for another session", g, func(d *policies.ReadRequest) { d.Session = stranger.session }, nil, policies.CodeSignature, true, true},
		{"a bent request", g, nil, func(c *api.Call) { c.Request = bendSignature(c.Request) }, policies.CodeSignature, true, true},
		{"a request for another vault", g, func(d *policies.ReadRequest) { d.Audience = policies.VaultID{9} }, nil, policies.CodeWrongVault, true, false},
		{"a request held back too long", g, func(d *policies.ReadRequest) { d.Time -= 300; d.Expires -= 300 }, nil, policies.CodeExpired, true, false},
		{"a request of the future", g, func(d *policies.ReadRequest) { d.Time += 100; d.Expires += 100 }, nil, policies.CodeExpired, true, false},
		{"a request sent again", g, nil, func(c *api.Call) { *c = replayed }, policies.CodeReplay, true, false},
		{"a request sent again with another item", email, nil, func(c *api.Call) { c.Request = replayed.Request }, policies.CodeReplay, true, false},
		{"an item dropped", g, nil, func(c *api.Call) { c.Items = nil }, policies.CodeMalformed, true, false},
		{"an item added", g, nil, func(c *api.Call) { c.Items = append(c.Items, c.Items[0]) }, policies.CodeMalformed, true, false},
		{"no grant", nil, nil, nil, policies.CodeNoGrant, false, false},
		{"a grant that nobody made", g, nil, item(func(i *api.CallItem) { i.Grant = policies.NewDocumentID() }), policies.CodeNoGrant, false, false},
		{"another owner's grant", others, nil, nil, policies.CodeNoGrant, false, false},
		{"another reader's grant", strangers1, nil, nil, policies.CodeNoGrant, false, false},
		{"another field's grant", email, nil, nil, policies.CodeNoGrant, false, false},
		{"another author", g, func(d *policies.ReadRequest) { d.Items[0].Author = policies.AuthorID(other.id) }, nil, policies.CodeNoGrant, false, false},
		{"a revoked grant", revoked, nil, nil, policies.CodeRevoked, false, false},
		{"an expired grant", expired, nil, nil, policies.CodeGrantExpired, false, false},
		{"a grant of tomorrow", early, nil, nil, policies.CodeNotYet, false, false},
		{"one read too many", limited, nil, nil, policies.CodeLimit, false, false},
		{"another purpose", g, func(d *policies.ReadRequest) { d.Purpose = "advertising" }, nil, policies.CodePurpose, false, false},
		{"another epoch than granted", epoch2, nil, nil, policies.CodeLeaf, false, false},
		{"an older item under its older head", g, nil, item(func(i *api.CallItem) { grant := i.Grant; *i = older; i.Grant = grant }), policies.CodeHeadMoved, false, false},
		{"an older item under the newest head", g, nil, item(func(i *api.CallItem) { i.Leaf, i.Proof, i.Point = older.Leaf, older.Proof, older.Point }), policies.CodeProof, false, false},
		{"a head that nobody signed", g, nil, item(func(i *api.CallItem) { i.Head = policies.Hash{9} }), policies.CodeHeadMoved, false, false},
		{"another owner's head", g, nil, item(func(i *api.CallItem) { i.Head = other.manifest }), policies.CodeHeadMoved, false, false},
		{"another field's leaf", g, nil, item(func(i *api.CallItem) { grant := i.Grant; *i = o.offer(nil, "email"); i.Grant = grant }), policies.CodeLeaf, false, false},
		{"another owner's leaf", g, nil, item(func(i *api.CallItem) { i.Leaf = other.offer(nil, "name").Leaf }), policies.CodeLeaf, false, false},
		{"no leaf", g, nil, item(func(i *api.CallItem) { i.Leaf = nil }), policies.CodeNotFound, false, false},
		{"garbage for a leaf", g, nil, item(func(i *api.CallItem) { i.Leaf = []byte("garbage") }), policies.CodeLeaf, false, false},
		{"another field's capsule", g, nil, bendLeaf(func(l *policies.Leaf) { l.Capsule = o.leaves["email"].Capsule }), policies.CodeProof, false, false},
		{"another owner's capsule", g, nil, bendLeaf(func(l *policies.Leaf) { l.Capsule = other.leaves["name"].Capsule }), policies.CodeProof, false, false},
		{"another version", g, nil, bendLeaf(func(l *policies.Leaf) { l.Version++ }), policies.CodeProof, false, false},
		{"another epoch", g, nil, bendLeaf(func(l *policies.Leaf) { l.Epoch++ }), policies.CodeProof, false, false},
		{"another ciphertext's hash", g, nil, bendLeaf(func(l *policies.Leaf) { l.CiphertextHash[0] ^= 1 }), policies.CodeProof, false, false},
		{"a bent proof", g, nil, item(func(i *api.CallItem) { i.Proof.Path[0][0] ^= 1 }), policies.CodeProof, false, false},
		{"a proof of another place", g, nil, item(func(i *api.CallItem) { i.Proof.Index ^= 1 }), policies.CodeProof, false, false},
		{"no proof", g, nil, item(func(i *api.CallItem) { i.Proof = policies.Proof{} }), policies.CodeProof, false, false},
		{"the point at infinity", g, nil, item(func(i *api.CallItem) { i.Point = [65]byte{} }), policies.CodePoint, false, false},
		{"a point off the curve", g, nil, item(func(i *api.CallItem) { i.Point[64] ^= 2 }), policies.CodePoint, false, false},
		{"a point beyond the field", g, nil, item(func(i *api.CallItem) { clear(i.Point[1:]); copy(i.Point[1:33], bytes.Repeat([]byte{0xff}, 32)) }), policies.CodePoint, false, false},
		{"the generator instead of E", g, nil, item(func(i *api.CallItem) { i.Point = s.Generator() }), policies.CodePoint, false, false},
		{"another item's point", g, nil, item(func(i *api.CallItem) { i.Point = o.offer(nil, "email").Point }), policies.CodePoint, false, false},
		{"-E instead of E", g, nil, item(func(i *api.CallItem) {
			p := elliptic.P256().Params().P
			new(big.Int).Sub(p, new(big.Int).SetBytes(i.Point[33:])).FillBytes(i.Point[33:])
		}), policies.CodePoint, false, false},
	}
	before, want := strangers(t, s), map[policies.Code]int{}
	calls := derives(t, s)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			from := len(devices.Journal(t, s))
			c, e := r.callOf(row.request, ask{o, row.grant, "name", 0})
			if row.call != nil {
				row.call(&c)
			}
			reply := m.call(c)
			got := reply.Code
			if row.whole {
				if len(reply.Sealed) != 0 || len(reply.Outcomes) != 0 {
					t.Error("a request that is refused as a whole has an answer")
				}
			} else {
				a := r.answer(reply, e)
				got = a.Items[0].Outcome
				if a.Items[0].X != [32]byte{} || !a.Items[0].Leaf.IsZero() || len(reply.Outcomes) != 1 || reply.Outcomes[0] != got {
					t.Error("a refused item carries something, or the hint is another than the answer")
				}
			}
			if got != row.want {
				t.Errorf("outcome %q, want %q", got, row.want)
			}
			if now := derives(t, s); now != calls {
				t.Errorf("%d derives", now-calls)
				calls = now
			}
			if row.counted {
				want[row.want]++
			} else {
				refusedOnce(t, s, from, row.want)
			}
		})
	}
	counted(t, s, before, want)

	t.Run("another reader's request with this reader's grant", func(t *testing.T) {
		from := len(devices.Journal(t, s))
		c := otherReaderCall
		c.Items[0].Grant = g.ID
		if reply := m.call(c); len(reply.Outcomes) != 1 || reply.Outcomes[0] != policies.CodeNoGrant {
			t.Errorf("outcomes %q", reply.Outcomes)
		}
		refusedOnce(t, s, from, policies.CodeNoGrant)
	})
	t.Run("a session's document sent again opens no second session", func(t *testing.T) {
		from := len(devices.Journal(t, s))
		m.accepted(r.envelope) // the same receipt
		if news := since(t, s, from); len(news) != 0 {
			t.Errorf("logged again: %v", entriesOf(news))
		}
		if reply := m.call(replayed); reply.Code != policies.CodeReplay {
			t.Errorf("a request of it, sent again: %q", reply.Code)
		}
		r.open()
		if r.session == oldSession {
			t.Error("two sessions have one hash")
		}
		before := strangers(t, s)
		c, _ := r.callOf(func(d *policies.ReadRequest) { d.Session = oldSession }, ask{o, g, "name", 0})
		if reply := m.call(c); reply.Code != policies.CodeSignature {
			t.Errorf("the new session's key signs for the old session: %q", reply.Code)
		}
		counted(t, s, before, map[policies.Code]int{policies.CodeSignature: 1})
	})
	t.Run("answers open for nobody else", func(t *testing.T) {
		c1, e1 := r.callOf(nil, ask{o, g, "name", 0})
		c2, e2 := r.callOf(nil, ask{o, g, "name", 0})
		a1, a2 := m.call(c1), m.call(c2)
		if _, err := r.k.OpenAnswer(e1.Hash, a2.Sealed); err == nil {
			t.Error("the answer to another request opens")
		}
		if _, err := stranger.k.OpenAnswer(e1.Hash, a1.Sealed); err == nil {
			t.Error("an answer opens for another reader")
		}
		for i := range a1.Sealed {
			bent := slices.Clone(a1.Sealed)
			bent[i] ^= 1
			if _, err := r.k.OpenAnswer(e1.Hash, bent); err == nil {
				t.Fatalf("an answer with byte %d bent opens", i)
			}
		}
		r.answer(a1, e1)
		r.answer(a2, e2)
	})
	t.Run("one answer holds no more than was asked", func(t *testing.T) {
		calls := derives(t, s)
		c, e := r.callOf(nil, ask{o, g, "name", 0}, ask{o, revoked, "name", 0}, ask{other, others, "name", 0}, ask{o, g, "name", o.leaves["name"].Version})
		a := r.answer(m.call(c), e)
		for i, want := range []policies.Code{policies.CodeReleased, policies.CodeRevoked, policies.CodeReleased, policies.CodeUnchanged} {
			if a.Items[i].Outcome != want || (a.Items[i].X != [32]byte{}) != (want == policies.CodeReleased) {
				t.Errorf("item %d: %s", i, a.Items[i].Outcome)
			}
		}
		if n := derives(t, s) - calls; n != 2 {
			t.Errorf("%d derives for two released fields", n)
		}
	})
	t.Run("honest afterwards", func(t *testing.T) {
		if code, value := r.read(ask{o, g, "name", 0}); code != policies.CodeReleased || value != "the name" {
			t.Errorf("%s %q", code, value)
		}
	})
}

// bendLeaf changes the leaf that is offered.
func bendLeaf(change func(*policies.Leaf)) func(*api.Call) {
	return func(c *api.Call) {
		l, err := policies.ParseLeaf(c.Items[0].Leaf)
		if err != nil {
			panic(err)
		}
		change(&l)
		c.Items[0].Leaf = l.Bytes()
		if point, err := pre.Decompress(&l.Capsule); err == nil {
			c.Items[0].Point = point
		}
	}
}

// bendSignature changes one character in the middle of an envelope's signature.
func bendSignature(raw []byte) []byte {
	raw = slices.Clone(raw)
	at := bytes.Index(raw, []byte(`"sig":"`)) + len(`"sig":"`) + 20
	if raw[at] == 'A' {
		raw[at] = 'B'
	} else {
		raw[at] = 'A'
	}
	return raw
}

func (m *mole) documents(t *testing.T) {
	m, s := m.with(t), m.s
	o, other, r := m.owner(), m.owner(), m.reader()
	o.seal("email", "e")
	oldManifest := func() api.Submission { o.seal("name", "n"); return o.publish() }()
	o.set("name", "n2")
	other.set("name", "x")
	used := o.grant(r, nil, "name")
	others := other.grant(r, nil, "name")
	unknown, _ := m.identity()
	stranger := *r
	stranger.party = unknown
	forger := *o
	forger.key = other.key
	usurper := *o // the same name of an owner, another device's chain
	usurper.link = policies.Link{Seq: 1, Prev: policies.Hash(o.id)}
	_, strangersIdentity := m.identity()

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
	bent := func(make func() api.Submission) func() api.Submission {
		return func() api.Submission { s := make(); s.Envelope = bendSignature(s.Envelope); return s }
	}
	otherKeys, _, _ := o.grantOf(r, nil, "name")
	rows := []struct {
		name    string
		make    func() api.Submission
		want    policies.Code
		counted bool
	}{
		{"no envelope", func() api.Submission { return api.Submission{Envelope: []byte(`{}`)} }, policies.CodeMalformed, true},
		{"a document that no vault acts on", func() api.Submission {
			_, e := r.callOf(nil, ask{o, used, "name", 0})
			return api.Submission{Envelope: e.Raw}
		}, policies.CodeMalformed, true},
		{"keys that come with no grant", func() api.Submission {
			s, _, _ := o.manifestOf(nil)
			s.Keys = otherKeys.Keys
			return s
		}, policies.CodeMalformed, true},
		{"a bent identity", func() api.Submission { return api.Submission{Envelope: bendSignature(strangersIdentity.Envelope)} }, policies.CodeSignature, true},
		{"a forged manifest", manifest(&forger, nil), policies.CodeSignature, true},
		{"a forged grant", grant(&forger, r, nil, nil), policies.CodeSignature, true},
		{"a forged revocation", revocation(&forger, nil, used, "name"), policies.CodeSignature, true},
		{"a bent manifest", bent(manifest(o, nil)), policies.CodeSignature, true},
		{"a bent revocation", bent(revocation(o, nil, used, "name")), policies.CodeSignature, true},
		{"a session in the name of another", session(func(d *policies.Session) { d.Reader = policies.ReaderID(o.id) }), policies.CodeSignature, true},
		{"an owner whom nobody enrolled", manifest(o, func(d *policies.Manifest) { d.Owner, d.Author = policies.OwnerID{9}, policies.AuthorID{9} }), policies.CodeUnknown, true},

		{"a manifest for another vault", manifest(o, func(d *policies.Manifest) { d.Audience = policies.VaultID{9} }), policies.CodeWrongVault, false},
		{"a grant for another vault", grant(o, r, func(g *granting) { g.doc.Audience = policies.VaultID{9} }, nil), policies.CodeWrongVault, false},
		{"a revocation for another vault", revocation(o, func(d *policies.Revocation) { d.Audience = policies.VaultID{9} }, used, "name"), policies.CodeWrongVault, false},
		{"a session for another vault", session(func(d *policies.Session) { d.Audience = policies.VaultID{9} }), policies.CodeWrongVault, false},
		{"a session held back too long", session(func(d *policies.Session) { d.NotBefore -= 1000; d.Expires -= 1000 }), policies.CodeSession, false},
		{"a session of the future", session(func(d *policies.Session) { d.NotBefore += 1000; d.Expires += 1000 }), policies.CodeSession, false},

		{"a manifest that leaves one out", manifest(o, func(d *policies.Manifest) { d.Seq++ }), policies.CodeChain, false},
		{"a manifest over another document", manifest(o, func(d *policies.Manifest) { d.Prev = policies.Hash{9} }), policies.CodeChain, false},
		{"a manifest over an older head", manifest(o, func(d *policies.Manifest) { d.PrevManifest = policies.Hash{9} }), policies.CodeChain, false},
		{"a manifest of a version to come", manifest(o, func(d *policies.Manifest) { d.Version++ }), policies.CodeChain, false},
		{"a manifest from the beginning of the chain", manifest(&usurper, nil), policies.CodeChain, false},
		{"a grant out of its turn", grant(o, r, func(g *granting) { g.doc.Seq++ }, nil), policies.CodeChain, false},
		{"a revocation out of its turn", revocation(o, func(d *policies.Revocation) { d.Seq++ }, used, "name"), policies.CodeChain, false},
		{"a manifest of an author without a grant", manifest(o, func(d *policies.Manifest) {
			d.Owner, d.Seq, d.Version, d.Prev, d.PrevManifest = policies.OwnerID(other.id), 1, 1, policies.Hash{}, policies.Hash{}
		}), policies.CodeNoWriteGrant, false},

		{"a grant's id used again", grant(o, r, func(g *granting) { g.doc.ID = used.ID }, nil), policies.CodeExists, false},
		{"another owner's grant's id", grant(o, r, func(g *granting) { g.doc.ID = others.ID }, nil), policies.CodeExists, false},
		{"a grant to nobody", grant(o, &stranger, nil, nil), policies.CodeUnknown, false},
		{"a custody that is not offered", grant(o, r, func(g *granting) { g.doc.Custody = policies.CustodySealed }, nil), policies.CodeCustody, false},
		{"the host's own import key", grant(o, r, func(g *granting) { g.doc.Fields[0].Keys[0].ImportKey = policies.Hash{9} }, nil), policies.CodeCustody, false},
		{"another import path", grant(o, r, func(g *granting) { g.doc.Fields[0].Keys[0].Path = "rsa-aes-key-wrap" }, nil), policies.CodeCustody, false},
		{"another token", grant(o, r, func(g *granting) { g.doc.Fields[0].Keys[0].Token = "other" }, nil), policies.CodeCustody, false},
		{"keys kept back", grant(o, r, nil, func(s *api.Submission) { s.Keys = nil }), policies.CodeMalformed, false},
		{"a key named for another field", grant(o, r, nil, func(s *api.Submission) { s.Keys[0].Field = "email" }), policies.CodeImport, false},
		{"a bent key", grant(o, r, nil, func(s *api.Submission) { s.Keys[0].Sealed[1200] ^= 1 }), policies.CodeImport, false},
		{"a key of no length", grant(o, r, nil, func(s *api.Submission) { s.Keys[0].Sealed = nil }), policies.CodeImport, false},
		{"the keys of another grant", grant(o, r, nil, func(s *api.Submission) { s.Keys = otherKeys.Keys }), policies.CodeImport, false},
		{"another key than the one signed for", grant(o, r, func(g *granting) { g.doc.Fields[0].Keys[0].Digest = policies.Hash{9} }, nil), policies.CodeImport, false},

		{"a revocation of another owner's grant", revocation(o, nil, others, "name"), policies.CodeNotFound, false},
		{"a revocation of what was not granted", revocation(o, nil, used, "email"), policies.CodeNotFound, false},
	}
	before, want := strangers(t, s), map[policies.Code]int{}
	calls, objects := derives(t, s), tokenObjects(t, s)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			from := len(devices.Journal(t, s))
			receipt, got := m.submit(row.make())
			if receipt != nil || got != row.want {
				t.Errorf("%q, want %q", got, row.want)
			}
			if row.counted {
				want[row.want]++
			} else {
				refusedOnce(t, s, from, row.want)
			}
		})
	}
	counted(t, s, before, want)
	if n := derives(t, s) - calls; n != 0 {
		t.Errorf("%d derives", n)
	}
	await(t, 10*time.Second, "as many objects in the token as before", func() bool { return tokenObjects(t, s) == objects })

	t.Run("an older manifest sent again moves nothing", func(t *testing.T) {
		from := len(devices.Journal(t, s))
		m.accepted(oldManifest) // the receipt of then
		if news := since(t, s, from); len(news) != 0 {
			t.Errorf("logged: %v", entriesOf(news))
		}
		if code, value := r.read(ask{o, used, "name", 0}); code != policies.CodeReleased || value != "n2" {
			t.Errorf("%s %q", code, value)
		}
	})
	t.Run("an unbroken chain afterwards", func(t *testing.T) {
		o.set("name", "n3")
		if code, value := r.read(ask{o, used, "name", 0}); code != policies.CodeReleased || value != "n3" {
			t.Errorf("%s %q", code, value)
		}
	})
}

// order: grants and revocations held back, sent in another order, and sent again.
func (m *mole) order(t *testing.T) {
	m, s := m.with(t), m.s
	o, r := m.owner(), m.reader()
	o.set("name", "n")

	granting, g, grantHash := o.grantOf(r, nil, "name")
	ahead := *o
	ahead.took(grantHash)
	revoking, revocationHash := ahead.revocationOf(nil, g, "name")

	// The revocation before the grant it ends: nobody can say that it counts.
	from := len(devices.Journal(t, s))
	if _, code := m.submit(revoking); code != policies.CodeChain {
		t.Errorf("a revocation before its grant: %q", code)
	}
	refusedOnce(t, s, from, policies.CodeChain)
	m.accepted(granting)
	o.took(grantHash)
	if code, _ := r.read(ask{o, g, "name", 0}); code != policies.CodeReleased {
		t.Errorf("granted: %s", code)
	}
	m.accepted(revoking)
	o.took(revocationHash)
	calls, objects := derives(t, s), tokenObjects(t, s)

	// Everything again, in any order: receipts of then, and the revocation stands.
	for _, again := range []api.Submission{granting, revoking, {Envelope: granting.Envelope}, granting} {
		from := len(devices.Journal(t, s))
		m.accepted(again)
		if news := since(t, s, from); len(news) != 0 {
			t.Errorf("sent again, and logged: %v", entriesOf(news))
		}
		if code, _ := r.read(ask{o, g, "name", 0}); code != policies.CodeRevoked {
			t.Errorf("a revoked grant that was sent again: %s", code)
		}
	}
	if n := derives(t, s) - calls; n != 0 {
		t.Errorf("%d derives after the revocation", n)
	}
	await(t, 10*time.Second, "as many objects in the token as before", func() bool { return tokenObjects(t, s) == objects })

	// A grant held back while the owner went on is worth nothing for ever.
	held, late, _ := o.grantOf(r, nil, "name")
	o.set("name", "n2")
	from = len(devices.Journal(t, s))
	if _, code := m.submit(held); code != policies.CodeChain {
		t.Errorf("a grant held back: %q", code)
	}
	refusedOnce(t, s, from, policies.CodeChain)
	if code, _ := r.read(ask{o, late, "name", 0}); code != policies.CodeNoGrant {
		t.Errorf("a read under it: %s", code)
	}
}

// keys: a hostile owner wraps what is no re-encryption key. Only the token can see what is inside, so only the token can refuse it; whatever
// it does, nothing of it stays, and nobody learns why.
func (m *mole) keys(t *testing.T) {
	m, s := m.with(t), m.s
	o, r := m.owner(), m.reader()
	o.set("name", "n")
	honest := func() []byte {
		var plain []byte
		o.grantOf(r, func(g *granting) { plain = g.plain["name"] }, "name")
		return plain
	}()
	n := elliptic.P256().Params().N
	scalar := func(k *big.Int) []byte {
		out := slices.Clone(honest)
		k.FillBytes(out[len(out)-32:])
		return out
	}
	above := func(k int64) *big.Int { return new(big.Int).Add(n, big.NewInt(k)) }
	marshal := func(key any, err error) []byte {
		must(t, err)
		der, err := x509.MarshalPKCS8PrivateKey(key)
		must(t, err)
		return der
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p384DER := marshal(p384, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	p521DER := marshal(p521, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	edDER := marshal(ed, err)
	secp256k1 := bytes.Replace(honest, []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}, []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a, 0x05, 0x01, 0x00}, 1)

	plain := func(b []byte) func(*granting) { return func(g *granting) { g.plain["name"] = b } }
	wrapped := func(b []byte) func(*granting) { return func(g *granting) { g.wrapped["name"] = b } }
	rows := []struct {
		name    string
		change  func(*granting)
		reduced int64 // a scalar above n that a token may also take modulo n; 0: it must refuse
	}{
		{"zero", plain(scalar(new(big.Int))), 0},
		{"n", plain(scalar(n)), 0},
		{"n + 1", plain(scalar(above(1))), 1},
		{"n + 5", plain(scalar(above(5))), 5},
		{"2^256 - 1", plain(scalar(new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1)))), -1},
		{"P-384", plain(p384DER), 0},
		{"P-521", plain(p521DER), 0},
		{"Ed25519", plain(edDER), 0},
		{"another curve of 256 bits", plain(secp256k1), 0},
		{"an AES key", plain(bytes.Repeat([]byte{7}, 32)), 0},
		{"nothing", plain(nil), 0},
		{"a scalar alone", plain(honest[len(honest)-32:]), 0},
		{"a key cut short", plain(honest[:len(honest)-1]), 0},
		{"no RSA ciphertext", wrapped([]byte("garbage")), 0},
		{"no ciphertext at all", wrapped([]byte{}), 0},
		{"an RSA ciphertext of zeroes", wrapped(make([]byte, 384)), 0},
		{"an RSA ciphertext beyond the modulus", wrapped(bytes.Repeat([]byte{0xff}, 384)), 0},
		{"an RSA ciphertext of another key", wrapped(bytes.Repeat([]byte{0x55}, 384)), 0},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			objects, from := tokenObjects(t, s), len(devices.Journal(t, s))
			submission, g, hash := o.grantOf(r, row.change, "name")
			_, got := m.submit(submission)
			if got == "" && row.reduced != 0 {
				// It was taken modulo n: the owner's own choice of a key that anybody may know, and harmless. It must be no other.
				o.took(hash)
				k := new(big.Int).Mod(new(big.Int).SetBytes(scalarOf(g, row.change)), n)
				want, err := pre.ParseReEncryptionKey(scalar(k))
				must(t, err)
				leaf := o.leaves["name"]
				x, err := pre.Reencrypt(want, &leaf.Capsule)
				must(t, err)
				c, e := r.callOf(nil, ask{o, g, "name", 0})
				if a := r.answer(m.call(c), e); a.Items[0].Outcome != policies.CodeReleased || a.Items[0].X != x {
					t.Errorf("the token uses another key than the scalar modulo n: %s", a.Items[0].Outcome)
				}
				o.revoke(g, "name")
			} else {
				if got != policies.CodeImport {
					t.Fatalf("%q, want %q", got, policies.CodeImport)
				}
				news := since(t, s, from)
				if len(news) != 2 || news[0].Entry.Kind != evidence.EntryImport || news[1].Entry.Kind != evidence.EntryFailed || news[1].Entry.Outcome != policies.CodeImport || news[1].Details.Index != news[0].Index {
					t.Errorf("the key-use log got %v", entriesOf(news))
				}
				if code, _ := r.read(ask{o, g, "name", 0}); code != policies.CodeNoGrant {
					t.Errorf("a read under it: %s", code)
				}
			}
			await(t, 10*time.Second, "as many objects in the token as before", func() bool { return tokenObjects(t, s) == objects })
		})
	}
	// The refusals look alike to the one who asks: nothing tells padding from content.
	t.Run("all refusals look alike", func(t *testing.T) {
		var bodies []string
		for _, change := range []func(*granting){plain(p384DER), plain(nil), wrapped(make([]byte, 384)), wrapped([]byte("garbage")), plain(scalar(n)),
			func(g *granting) { g.doc.Fields[0].Keys[0].Digest = policies.Hash{9} }} {
			submission, _, _ := o.grantOf(r, change, "name")
			_, err := m.vault.Submit(t.Context(), submission)
			bodies = append(bodies, err.Error())
		}
		if len(slices.Compact(bodies)) != 1 {
			t.Errorf("import refusals can be told apart: %q", bodies)
		}
	})
	t.Run("honest afterwards", func(t *testing.T) {
		g := o.grant(r, nil, "name")
		if code, value := r.read(ask{o, g, "name", 0}); code != policies.CodeReleased || value != "n" {
			t.Errorf("%s %q", code, value)
		}
	})
	t.Run("nothing stays over a restart", func(t *testing.T) {
		objects := tokenObjects(t, s)
		must(t, s.Vault.Stop())
		must(t, s.Vault.Start(t.Context()))
		if now := tokenObjects(t, s); now > objects {
			t.Errorf("%d objects in the token, and %d before the restart", now, objects)
		}
		health, err := m.vault.Health(t.Context())
		must(t, err)
		if health.Status != "ok" {
			t.Errorf("after the restart: %+v", health)
		}
	})
}

// scalarOf is the scalar that a change put into the key.
func scalarOf(g *policies.Grant, change func(*granting)) []byte {
	probe := &granting{doc: g, plain: map[policies.Field][]byte{}, wrapped: map[policies.Field][]byte{}}
	change(probe)
	p := probe.plain["name"]
	return p[len(p)-32:]
}

// doors: raw HTTP, and who may knock at all.
func (m *mole) doors(t *testing.T) {
	m, s := m.with(t), m.s
	certificate, err := tls.LoadX509KeyPair(s.ClientCertificate())
	must(t, err)
	inside := outsider(t, s, func(c *tls.Config) { c.Certificates = []tls.Certificate{certificate} })
	outside := outsider(t, s, nil)
	calls, from := derives(t, s), len(devices.Journal(t, s))
	post := func(c *http.Client, url, media string, body []byte) (int, []byte) {
		t.Helper()
		resp, err := c.Post(url, media, bytes.NewReader(body))
		if err != nil {
			return 0, nil
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		must(t, err)
		return resp.StatusCode, data
	}
	filler := func(n int) []byte { return bytes.Repeat([]byte("a"), n) }
	rows := []struct {
		name   string
		client *http.Client
		path   string
		media  string
		body   []byte
		want   policies.Code
	}{
		{"a submission above its bound", inside, s.VaultURL() + api.PathDocuments, "application/json", filler(api.MaxSubmission + 1), policies.CodeTooLarge},
		{"the same at the owners' door", outside, s.OwnersURL() + api.PathDocuments, "application/json", filler(api.MaxSubmission + 1), policies.CodeTooLarge},
		{"calls above their bound", inside, s.VaultURL() + api.PathReencrypt, api.ReencryptMedia, filler(api.MaxCallsSize + 1), policies.CodeTooLarge},
		{"calls that are none", inside, s.VaultURL() + api.PathReencrypt, api.ReencryptMedia, []byte("garbage"), policies.CodeMalformed},
		{"calls without end", inside, s.VaultURL() + api.PathReencrypt, api.ReencryptMedia, []byte{0xff, 0xff, 0xff, 0xff}, policies.CodeMalformed},
		{"calls in JSON", inside, s.VaultURL() + api.PathReencrypt, "application/json", []byte(`{}`), policies.CodeMalformed},
		{"a submission with a member twice", inside, s.VaultURL() + api.PathDocuments, "application/json", []byte(`{"envelope":{},"envelope":{}}`), policies.CodeMalformed},
		{"a submission with an unknown member", inside, s.VaultURL() + api.PathDocuments, "application/json", []byte(`{"envelope":{},"force":true}`), policies.CodeMalformed},
		{"calls at the owners' door", outside, s.OwnersURL() + api.PathReencrypt, api.ReencryptMedia, api.AppendCalls(nil, nil), policies.CodeNotFound},
		{"calls at the owners' door with the certificate", inside, s.OwnersURL() + api.PathReencrypt, api.ReencryptMedia, api.AppendCalls(nil, nil), policies.CodeNotFound},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			status, body := post(row.client, row.path, row.media, row.body)
			if got := problemCode(body); got != row.want || status < 400 {
				t.Errorf("HTTP status %d, code %q, want %q", status, got, row.want)
			}
		})
	}
	t.Run("history at the owners' door", func(t *testing.T) {
		o := m.owner()
		from++ // its enrolment
		resp, err := outside.Get(s.OwnersURL() + strings.Replace(api.PathHistory, "{owner}", o.id.String(), 1))
		must(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		if got := problemCode(body); got != policies.CodeNotFound {
			t.Errorf("HTTP status %d, code %q", resp.StatusCode, got)
		}
	})
	t.Run("the storefront's door without its certificate", func(t *testing.T) {
		if resp, err := outside.Get(s.VaultURL() + api.PathVault); err == nil {
			resp.Body.Close()
			t.Errorf("HTTP status %d", resp.StatusCode)
		}
	})
	t.Run("the storefront's door with a certificate of one's own", func(t *testing.T) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		template := &x509.Certificate{SerialNumber: big.NewInt(7), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		must(t, err)
		c := outsider(t, s, func(c *tls.Config) { c.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}} })
		if resp, err := c.Get(s.VaultURL() + api.PathVault); err == nil {
			resp.Body.Close()
			t.Errorf("HTTP status %d", resp.StatusCode)
		}
	})
	if n := derives(t, s) - calls; n != 0 {
		t.Errorf("%d derives", n)
	}
	if news := since(t, s, from); len(news) != 0 {
		t.Errorf("logged: %v", entriesOf(news))
	}
}
