package vault

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/internal/ledger"
	"github.com/sallyport/sallyport/vault/keylog"
)

// proofOf signs a request for evidence, of indexes, or if there are none of the newest page.
func (r *reader) proofOf(change func(*policies.EvidenceRequest), indexes ...uint64) *envelope.Envelope {
	now := r.w.clock.now()
	d := &policies.EvidenceRequest{
		Header: policies.NewHeader("evidence", now), Audience: r.w.document.Vault, Session: r.session, Nonce: policies.NewNonce(), Expires: now.Unix() + 60, Indexes: indexes,
	}
	if len(indexes) == 0 {
		d.Limit = uint64(policies.MaxEvidence)
	}
	if change != nil {
		change(d)
	}
	e, err := policies.Sign[policies.EvidenceRequest](r.signer, d)
	must(r.w.t, err)
	return e
}

// said is an entry as its reader has it.
type said struct {
	index   uint64
	entry   evidence.Entry
	details *evidence.Details // nil: erased
}

// proven asks for evidence and verifies all of it.
func (r *reader) proven(change func(*policies.EvidenceRequest), indexes ...uint64) (out []said, a *evidence.Answer) {
	r.w.t.Helper()
	e := r.proofOf(change, indexes...)
	sealed, err := r.w.vault.Evidence(context.Background(), e.Raw)
	must(r.w.t, err)
	return r.verified(e, sealed)
}

func (r *reader) verified(e *envelope.Envelope, sealed []byte) (out []said, a *evidence.Answer) {
	r.w.t.Helper()
	plain, err := r.k.OpenEvidence(e.Hash, sealed)
	must(r.w.t, err)
	a, err = evidence.ParseAnswer(plain)
	must(r.w.t, err)
	c, err := evidence.OpenCheckpoint(a.Checkpoint, r.w.document.LogKey)
	must(r.w.t, err)
	for i := range a.Evidence {
		_, entry, details, err := a.Evidence[i].Verify(c)
		if err != nil && !errors.Is(err, evidence.ErrErased) {
			r.w.t.Fatal(err)
		}
		out = append(out, said{a.Evidence[i].Index, entry, details})
	}
	return out, a
}

// all pages through everything that there is of a reader.
func (r *reader) all(page uint64) (indexes []uint64) {
	r.w.t.Helper()
	for before := uint64(0); ; {
		entries, a := r.proven(func(d *policies.EvidenceRequest) { d.Before, d.Limit = before, page })
		for _, e := range entries {
			indexes = append(indexes, e.index)
		}
		if before = a.Before; before == 0 {
			return indexes
		}
	}
}

// concerning is what the log itself says of a reader, newest first.
func (w *world) concerning(r *reader) (indexes []uint64) {
	var pseudonym policies.Pseudonym
	w.vault.ledger.Read(func(s *ledger.State) { pseudonym = s.Pseudonym(r.id) })
	must(w.t, w.log.Replay(context.Background(), 0, func(p keylog.Position, raw keylog.Record) error {
		entry, err := evidence.ParseEntry(raw.Entry)
		if entry.Reader == pseudonym || entry.Kind == evidence.EntryIdentity && entry.Owner == pseudonym {
			indexes = append(indexes, uint64(p.Index))
		}
		return err
	}))
	slices.Reverse(indexes)
	return indexes
}

func TestEvidence(t *testing.T) {
	w := newWorld(t)
	o, r, other := w.owner(), w.reader(), w.reader()
	o.set("name", "n")
	g, theirs := o.grant(r, nil, "name"), o.grant(other, nil, "name")
	answer := r.read(ask{o, g, "name", 0}, ask{o, nil, "iban", 0})
	used := answer.Items[0].Index
	read := other.read(ask{o, theirs, "name", 0}).Items[0].Index

	entries, a := r.proven(nil, used)
	if len(entries) != 1 || a.Absent != nil || a.Before != 0 {
		t.Fatalf("%+v", a)
	}
	d := entries[0].details
	if e := entries[0]; e.index != used || e.entry.Kind != evidence.EntryUse || e.entry.Outcome != policies.CodeReleased || d.Grant != g.ID || d.Leaf != answer.Items[0].Leaf ||
		d.Head != answer.Items[0].Head || policies.IdentityID(d.Reader) != r.id || d.Session != r.session || d.Field != "name" {
		t.Errorf("%+v, %+v", e, d)
	}

	// At an index of somebody else's there is nothing, as where no entry is at all.
	size := uint64(w.log.Checkpoint().Size)
	foreign := []uint64{0, 1, read, size, size + 7, 1<<64 - 1}
	if entries, a := r.proven(nil, foreign...); len(entries) != 0 || !slices.Equal(a.Absent, foreign) {
		t.Errorf("others' entries: %+v, absent %d", entries, a.Absent)
	}
	// Should the index ever name the wrong reader, the entry itself does not.
	var pseudonym policies.Pseudonym
	w.vault.ledger.Read(func(s *ledger.State) { pseudonym = s.Pseudonym(r.id) })
	for _, index := range []uint64{0, read} {
		if _, err := w.vault.proveTo(pseudonym, index, w.log.Checkpoint()); !errors.Is(err, policies.CodeInternal) {
			t.Errorf("entry %d, which is not this reader's, is proven to it: %v", index, err)
		}
	}
	lengths := map[int]bool{}
	for _, index := range []uint64{read, size + 9} { // both of two digits
		sealed, err := w.vault.Evidence(t.Context(), r.proofOf(nil, index).Raw)
		must(t, err)
		lengths[len(sealed)] = true
	}
	if len(lengths) != 1 {
		t.Errorf("whether another has an entry at an index shows in the length of the answer: %v", lengths)
	}
	mixed := []uint64{read, used, size + 9}
	slices.Sort(mixed)
	if entries, a := r.proven(nil, mixed...); len(entries) != 1 || entries[0].index != used || len(a.Absent) != 2 {
		t.Errorf("%+v, absent %d", entries, a.Absent)
	}

	// Page for page all of the reader's, and nothing of others'. So after a restart, from the database and without it.
	w.clock.move(accessPeriod)
	w.vault.recordAccesses(false)
	for _, restart := range []func(){func() {}, func() { w.restart(true) }, func() { w.restart(false) }} {
		restart()
		for _, page := range []uint64{1, 3, 1000} {
			for _, who := range []*reader{r, other} {
				if got, want := who.all(page), w.concerning(who); !slices.Equal(got, want) {
					t.Errorf("pages of %d: %d, want %d", page, got, want)
				}
			}
		}
	}
	if got := w.accessed(r.id); len(got) != 1 || got[0].Details.Count != 5 || got[0].Details.Note != "evidence, asked for by a session 5" || got[0].Reader.IsZero() {
		t.Errorf("accesses on record: %+v", got)
	}
}

// The storefront cannot open the answer, or pass it off as the answer to something else.
func TestEvidenceIsSealed(t *testing.T) {
	w := newWorld(t)
	o, r, other := w.owner(), w.reader(), w.reader()
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	c, asked := r.callOf(nil, ask{o, g, "name", 0})
	reply := w.vault.Reencrypt(t.Context(), []api.Call{c})[0]
	e, again := r.proofOf(nil), r.proofOf(nil)
	sealed, err := w.vault.Evidence(t.Context(), e.Raw)
	must(t, err)
	if _, err := r.k.OpenEvidence(e.Hash, sealed); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"to another request":              func() ([]byte, error) { return r.k.OpenEvidence(again.Hash, sealed) },
		"to a read":                       func() ([]byte, error) { return r.k.OpenAnswer(e.Hash, sealed) },
		"in another session":              func() ([]byte, error) { return other.k.OpenEvidence(e.Hash, sealed) },
		"an answer to a read as evidence": func() ([]byte, error) { return r.k.OpenEvidence(asked.Hash, reply.Sealed) },
	} {
		if _, err := open(); err == nil {
			t.Errorf("%s: it opens", name)
		}
	}
}

func TestEvidenceRefused(t *testing.T) {
	w := newWorld(t)
	o, r, other := w.owner(), w.reader(), w.reader()
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	nonce := policies.NewNonce()
	if reply := r.try(func(d *policies.ReadRequest) { d.Nonce = nonce }, ask{o, g, "name", 0}); reply.Code != "" {
		t.Fatal(reply.Code)
	}
	once := r.proofOf(nil)
	if _, err := w.vault.Evidence(t.Context(), once.Raw); err != nil {
		t.Fatal(err)
	}
	signed := func(change func(*policies.EvidenceRequest)) []byte { return r.proofOf(change).Raw }
	now := w.clock.now().Unix()
	r2 := *r
	r2.signer = other.signer
	for _, c := range []struct {
		name    string
		request []byte
		want    policies.Code
	}{
		{"again", once.Raw, policies.CodeReplay},
		{"with the nonce of a read", signed(func(d *policies.EvidenceRequest) { d.Nonce = nonce }), policies.CodeReplay},
		{"expired", signed(func(d *policies.EvidenceRequest) { d.Time, d.Expires = now-100, now }), policies.CodeExpired},
		{"of the future", signed(func(d *policies.EvidenceRequest) { d.Time, d.Expires = now+70, now+80 }), policies.CodeExpired},
		{"for another vault", signed(func(d *policies.EvidenceRequest) { d.Audience = policies.VaultID{1} }), policies.CodeWrongVault},
		{"in no session", signed(func(d *policies.EvidenceRequest) { d.Session = policies.Hash{1} }), policies.CodeSession},
		{"in another reader's session", signed(func(d *policies.EvidenceRequest) { d.Session = other.session }), policies.CodeSignature},
		{"signed by another session", r2.proofOf(nil).Raw, policies.CodeSignature},
		{"a read", r.requestOf(nil, ask{o, g, "name", 0}).Raw, policies.CodeMalformed},
		{"nothing", nil, policies.CodeMalformed},
		{"not a document", []byte(`{"payload":"x"}`), policies.CodeMalformed},
	} {
		if sealed, err := w.vault.Evidence(t.Context(), c.request); !errors.Is(err, c.want) && !(c.want == policies.CodeMalformed && errors.Is(err, policies.ErrMalformed)) &&
			!(c.want == policies.CodeSignature && errors.Is(err, policies.ErrSignature)) || sealed != nil {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	// A request for evidence is no read either, and takes the nonce of one.
	e := r.proofOf(func(d *policies.EvidenceRequest) { d.Nonce = policies.Nonce{7} })
	if reply := w.vault.Reencrypt(t.Context(), []api.Call{{Request: e.Raw}})[0]; reply.Code != policies.CodeMalformed {
		t.Errorf("as a read: %q", reply.Code)
	}
	if _, err := w.vault.Evidence(t.Context(), e.Raw); err != nil {
		t.Fatal(err)
	}
	if reply := r.try(func(d *policies.ReadRequest) { d.Nonce = policies.Nonce{7} }, ask{o, g, "name", 0}); reply.Code != policies.CodeReplay {
		t.Errorf("a read with its nonce: %q", reply.Code)
	}
	// What the session's own signature stands behind is counted under its reader, the rest under nobody.
	w.vault.recordCounts(true)
	if _, counted, _ := w.tally(r.id); counted != 5 {
		t.Errorf("%d refusals counted under the reader, want 5", counted)
	}
	// A session that is over proves nothing more.
	e = r.proofOf(func(d *policies.EvidenceRequest) { d.Time, d.Expires = now+595, now+700 })
	w.clock.move(601 * time.Second)
	if _, err := w.vault.Evidence(t.Context(), e.Raw); !errors.Is(err, policies.CodeSession) {
		t.Errorf("in a session that is over: %v", err)
	}
}

// Who was refused something is given what the log says of it, and learns nothing from that of what the owner has.
func TestEvidenceOfRefusalsTellsNothing(t *testing.T) {
	w := newWorld(t)
	o, r, stranger := w.owner(), w.reader(), w.reader()
	o.set("name", "n")
	now := w.clock.now().Unix()
	g := o.grant(r, nil, "name")
	later := o.grant(r, func(g *granting) { g.doc.NotBefore = now + 3600 }, "name")
	over := o.grant(r, func(g *granting) { g.doc.NotBefore, g.doc.Expires = now-60, now-30 }, "name")
	o.revoke(g, "name")
	for name, c := range map[string]struct {
		who  *reader
		a    ask
		want policies.Code
	}{
		"a stranger":            {stranger, ask{o, nil, "name", 0}, policies.CodeNoGrant},
		"under another's grant": {stranger, ask{o, later, "name", 0}, policies.CodeNoGrant},
		"after a revocation":    {r, ask{o, g, "name", 0}, policies.CodeRevoked},
		"before a grant begins": {r, ask{o, later, "name", 0}, policies.CodeNotYet},
		"after a grant is over": {r, ask{o, over, "name", 0}, policies.CodeGrantExpired},
	} {
		item := c.who.read(c.a).Items[0]
		if item.Outcome != c.want {
			t.Fatalf("%s: %s", name, item.Outcome)
		}
		entries, _ := c.who.proven(nil, item.Index)
		if len(entries) != 1 || entries[0].entry.Outcome != c.want || entries[0].details.Field != "name" {
			t.Fatalf("%s: %+v", name, entries)
		}
		if d := entries[0].details; d.Version != 0 || d.Epoch != 0 || !d.Leaf.IsZero() || !d.Head.IsZero() {
			t.Errorf("%s: the entry tells version %d, epoch %d, leaf %s, head %s", name, d.Version, d.Epoch, d.Leaf, d.Head)
		}
	}
}

// An entry whose details were erased is proven all the same.
func TestEvidenceOfErased(t *testing.T) {
	w := newWorld(t)
	r := w.reader()
	var pseudonym policies.Pseudonym
	w.vault.ledger.Read(func(s *ledger.State) { pseudonym = s.Pseudonym(r.id) })
	entry := evidence.Entry{Kind: evidence.EntryUse, Reader: pseudonym, Outcome: policies.CodeReleased, Commitment: policies.Hash{1}}
	positions, _, err := w.log.Append(t.Context(), keylog.Record{Entry: entry.Bytes()})
	must(t, err)
	w.clock.move(26 * time.Hour)
	// The vault's own state is behind its log now, which a start mends.
	stop := ledger.Record{Kind: evidence.EntryStop, Outcome: policies.CodeAccepted}
	_, _, err = w.log.Append(t.Context(), stop.Seal())
	must(t, err)
	w.restart(false)
	r.openSession()
	entries, a := r.proven(nil, uint64(positions[0].Index))
	if len(entries) != 1 || entries[0].details != nil || entries[0].entry != entry || len(a.Evidence[0].Opening.Details) != 0 {
		t.Fatalf("%+v", entries)
	}
}

// Whoever asks for the evidence of many entries waits; who asks for few does not wait for them.
func TestEvidenceIsBounded(t *testing.T) {
	w := bounded(t, Limits{Evidence: 10, EvidenceBurst: 2000})
	hungry, modest := w.reader(), w.reader()
	refused := 0
	for range 5 {
		if _, err := w.vault.Evidence(t.Context(), hungry.proofOf(nil).Raw); errors.Is(err, policies.CodeRateLimited) {
			refused++
		} else {
			must(t, err)
		}
	}
	if refused < 2 {
		t.Errorf("%d of 5 pages of 1,000 were rate limited", refused)
	}
	if _, err := w.vault.Evidence(t.Context(), modest.proofOf(nil, 3).Raw); err != nil {
		t.Errorf("another reader: %v", err)
	}
	e := hungry.proofOf(nil)
	if _, err := w.vault.Evidence(t.Context(), e.Raw); !errors.Is(err, policies.CodeRateLimited) {
		t.Fatal(err)
	}
	w.clock.move(50 * time.Second)
	if _, err := w.vault.Evidence(t.Context(), e.Raw); err != nil {
		t.Errorf("the same request, when there is an allowance again: %v", err)
	}

	w = bounded(t, Limits{SessionRequests: 3})
	r := w.reader()
	for i := range 4 {
		_, err := w.vault.Evidence(t.Context(), r.proofOf(nil, 3).Raw)
		if want := i == 3; errors.Is(err, policies.CodeSession) != want || err != nil && !want {
			t.Errorf("request %d of a session of three: %v", i+1, err)
		}
	}
}

// A log that records no more still proves what it has.
func TestEvidenceOfAStoppedLog(t *testing.T) {
	w := newWorld(t)
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	index := r.read(ask{o, o.grant(r, nil, "name"), "name", 0}).Items[0].Index
	w.logKey.hook = func() error { return errors.New("signing fails") }
	if reply := r.try(nil, ask{o, nil, "name", 0}); reply.Code != policies.CodeLogStopped {
		t.Fatalf("a read: %q", reply.Code)
	}
	if entries, _ := r.proven(nil, index); len(entries) != 1 {
		t.Errorf("%+v", entries)
	}
}
