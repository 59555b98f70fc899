package vault

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/internal/ledger"
	"github.com/sallyport/sallyport/vault/keylog"
)

// auditor is enrolled and listed from the next start on.
func (w *world) auditor() party {
	w.t.Helper()
	p := w.enrol()
	w.auditors = append(w.auditors, p.id)
	w.restart(true)
	return p
}

func (p party) queryOf(change func(*policies.AuditQuery)) []byte {
	p.w.t.Helper()
	now := p.w.clock.now()
	q := &policies.AuditQuery{
		Header: policies.NewHeader("audit-query", now), Audience: p.w.document.Vault, Auditor: p.id, Nonce: policies.NewNonce(),
		Expires: now.Add(policies.RequestLifetime).Unix(), Count: uint64(policies.MaxQueryEntries), What: "entries",
	}
	if change != nil {
		change(q)
	}
	e, err := policies.Sign[policies.AuditQuery](p.key, q)
	must(p.w.t, err)
	return e.Raw
}

func (w *world) query(raw []byte) ([]byte, error) {
	answer, done, err := w.vault.Query(w.t.Context(), raw)
	if err == nil {
		done()
	}
	return answer, err
}

// parts are what an answer has, which is to be whole. A body that is not there is nil.
func parts(t *testing.T, what string, answer []byte) (out [][]byte) {
	t.Helper()
	for len(answer) > 0 {
		n, head := 0, 2
		if what == "bodies" {
			if head = 4; binary.BigEndian.Uint32(answer) == erasedBody {
				out, answer = append(out, nil), answer[4:]
				continue
			}
			n = int(binary.BigEndian.Uint32(answer))
		} else {
			n = int(binary.BigEndian.Uint16(answer))
		}
		out, answer = append(out, answer[head:head+n]), answer[head+n:]
	}
	return out
}

// TestQuery: an auditor gets every entry and body that the log has, and each query is in the log before it is answered.
func TestQuery(t *testing.T) {
	w := newWorld(t)
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0])
	a := w.auditor()
	size := w.log.Checkpoint().Size
	for _, what := range []string{"entries", "bodies"} {
		raw := a.queryOf(func(q *policies.AuditQuery) { q.From, q.What = 1, what })
		answer, err := w.query(raw)
		must(t, err)
		got := parts(t, what, answer)
		i := int64(1)
		must(t, w.log.Replay(t.Context(), 1, func(p keylog.Position, rec keylog.Record) error {
			if i > int64(len(got)) {
				return nil
			}
			want := keylog.Leaf(p.Time, rec.Entry)
			if what == "bodies" {
				want = rec.Body
			}
			if string(got[i-1]) != string(want) {
				t.Errorf("%s of entry %d are others", what, p.Index)
			}
			i++
			return nil
		}))
		last := w.records()[w.log.Checkpoint().Size-1]
		e, err := envelope.Parse(raw)
		must(t, err)
		if int64(len(got)) != size || last.Kind != evidence.EntryAccess || last.Outcome != policies.CodeAccepted || last.Details.Identity != a.id || last.Details.Document != e.Hash ||
			last.Details.Index != 1 || last.Details.Count != uint64(policies.MaxQueryEntries) || last.Details.Note != what || string(last.Raw) != string(raw) || last.Reader.IsZero() {
			t.Errorf("%s: %d of %d; recorded %+v", what, len(got), size, last)
		}
		size++
	}
	for _, c := range []struct{ from, count, want uint64 }{{0, 1, 1}, {3, 4, 4}, {uint64(size) - 1, 9, 4}} { // these three queries come along
		answer, err := w.query(a.queryOf(func(q *policies.AuditQuery) { q.From, q.Count = c.from, c.count }))
		must(t, err)
		if n := len(parts(t, "entries", answer)); uint64(n) != c.want {
			t.Errorf("%d entries from %d: %d, want %d", c.count, c.from, n, c.want)
		}
	}
}

// TestQueryRefused: whoever is not an auditor, and whatever an auditor did not just sign for this vault, gets nothing; that it was asked is in the log.
func TestQueryRefused(t *testing.T) {
	w := newWorld(t)
	stranger, a := w.owner(), w.auditor()
	unknown, _ := w.identity()
	good := a.queryOf(nil)
	_, err := w.query(good)
	must(t, err)
	for _, test := range []struct {
		name  string
		query func() []byte
		want  error
		by    policies.IdentityID // whose refusal is listed; zero: it is counted
	}{
		{"not an auditor", func() []byte { return stranger.queryOf(nil) }, policies.CodeAuditor, stranger.id},
		{"captured and sent again", func() []byte { return good }, policies.CodeReplay, a.id},
		{"a nonce used before in another query", func() []byte {
			e, err := envelope.Parse(good)
			must(t, err)
			q, err := policies.Decode[policies.AuditQuery](e)
			must(t, err)
			return a.queryOf(func(n *policies.AuditQuery) { n.Nonce = q.Nonce })
		}, policies.CodeReplay, a.id},
		{"for another vault", func() []byte { return a.queryOf(func(q *policies.AuditQuery) { q.Audience = policies.VaultID{9} }) }, policies.CodeWrongVault, a.id},
		{"expired", func() []byte {
			return a.queryOf(func(q *policies.AuditQuery) { q.Time -= 120; q.Expires -= 121 })
		}, policies.CodeExpired, a.id},
		{"of the future", func() []byte {
			return a.queryOf(func(q *policies.AuditQuery) { q.Time += 120; q.Expires += 120 })
		}, policies.CodeExpired, a.id},
		{"beyond the log", func() []byte { return a.queryOf(func(q *policies.AuditQuery) { q.From = 1 << 40 }) }, policies.CodeNotFound, a.id},
		{"signed by another", func() []byte { return party{w, stranger.key, a.id, nil}.queryOf(nil) }, policies.ErrSignature, policies.IdentityID{}},
		{"not enrolled", func() []byte { return unknown.queryOf(nil) }, policies.CodeUnknown, policies.IdentityID{}},
		{"another document of the auditor", func() []byte {
			o := &owner{party: a, prev: policies.Hash(a.id)}
			s, _, _ := o.manifestOf(nil)
			return s.Envelope
		}, policies.ErrMalformed, policies.IdentityID{}},
		{"no document", func() []byte { return []byte("{}") }, policies.ErrMalformed, policies.IdentityID{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			raw := test.query()
			before, listed := len(w.records()), 0
			answer, err := w.query(raw)
			if !errors.Is(err, test.want) || answer != nil {
				t.Fatalf("%d bytes, %v, want %v", len(answer), err, test.want)
			}
			w.vault.recordRefusals()
			for _, r := range w.records()[before:] {
				switch {
				case r.Kind == evidence.EntryAccess:
					t.Error("recorded as an access")
				case r.Kind == evidence.EntryRefusal && r.Details.Identity == test.by && r.Outcome == test.want:
					listed++
				case r.Kind == evidence.EntryRefusals && test.by.IsZero() && r.Details.Count == 1:
					listed++
				}
			}
			if listed != 1 {
				t.Errorf("on record %d times", listed)
			}
		})
	}
}

// TestQueryNonces: a query that was answered is not answered again, whether the vault was killed or stopped, with its database or without.
func TestQueryNonces(t *testing.T) {
	w := newWorld(t)
	a := w.auditor()
	var used [][]byte
	for i, restart := range []func(){
		func() { w.restart(true) }, func() { w.restart(false) },
		func() {
			must(t, w.vault.Close(t.Context()))
			must(t, w.log.Close())
			w.reopen(true)
		},
	} {
		raw := a.queryOf(nil)
		_, err := w.query(raw)
		must(t, err)
		used = append(used, raw)
		restart()
		for _, raw := range used {
			if _, err := w.query(raw); !errors.Is(err, policies.CodeReplay) {
				t.Errorf("restart %d: %v", i, err)
			}
		}
	}
	w.clock.move(2*policies.RequestLifetime + policies.ClockSkew + 2*time.Second)
	w.vault.endSessions()
	if _, err := w.query(used[0]); !errors.Is(err, policies.CodeExpired) { // its nonce is forgotten, and its time is over
		t.Errorf("long after: %v", err)
	}
	w.vault.ledger.Read(func(s *ledger.State) {
		e, _ := envelope.Parse(used[0])
		q, _ := policies.Decode[policies.AuditQuery](e)
		if s.Queried(a.id, q.Nonce) {
			t.Error("the nonce is kept for ever")
		}
	})
}

// TestRemovedAuditor: who is not listed any more is refused from the next start on.
func TestRemovedAuditor(t *testing.T) {
	w := newWorld(t)
	a := w.auditor()
	_, err := w.query(a.queryOf(nil))
	must(t, err)
	w.auditors = nil
	w.restart(true)
	if _, err := w.query(a.queryOf(nil)); !errors.Is(err, policies.CodeAuditor) {
		t.Error(err)
	}
}

// TestQueryWithoutRecord: a log that does not record gives nothing out.
func TestQueryWithoutRecord(t *testing.T) {
	w := newWorld(t)
	a := w.auditor()
	w.logKey.hook = func() error { return errors.New("the token does not sign") }
	answer, err := w.query(a.queryOf(nil))
	if !errors.Is(err, policies.CodeLogStopped) || answer != nil {
		t.Fatalf("%d bytes, %v", len(answer), err)
	}
	w.logKey.hook = nil
	w.restart(true)
	if _, err := w.query(a.queryOf(nil)); err != nil {
		t.Errorf("when it records again: %v", err)
	}
}

// TestQueryFlood: an auditor's queries are answered as fast as the vault's configuration says, and the log grows no faster.
func TestQueryFlood(t *testing.T) {
	w := newWorld(t)
	w.limits = Limits{Queries: 0.001, QueryBurst: 10, Refusals: 0.001, RefusalBurst: 10, RefusalsOverall: 0.001}
	a := w.auditor()
	before := len(w.records())
	answered := 0
	for range 100 {
		switch _, err := w.query(a.queryOf(func(q *policies.AuditQuery) { q.Count = 1 })); {
		case err == nil:
			answered++
		case !errors.Is(err, policies.CodeRateLimited):
			t.Fatal(err)
		}
	}
	if n := len(w.records()) - before; answered != 10 || n > 25 {
		t.Errorf("%d answered, %d entries", answered, n)
	}
	w.vault.recordCounts(true)
	if listed, counted, _ := w.tally(a.id); listed+counted != 90 {
		t.Errorf("%d refusals listed and %d counted, there were 90", listed, counted)
	}
	// Answers that nobody takes hold no more memory than two of them.
	w.limits = Limits{}
	w.restart(true)
	for range answersEach {
		_, _, err := w.vault.Query(t.Context(), a.queryOf(nil))
		must(t, err)
	}
	if _, err := w.query(a.queryOf(nil)); !errors.Is(err, policies.CodeRateLimited) {
		t.Error(err)
	}
}

// TestQueryIsBounded: an answer has at most so many bytes, and always the first entry that was asked for.
func TestQueryIsBounded(t *testing.T) {
	w := newWorld(t)
	a := w.auditor()
	long := ledger.Record{Kind: evidence.EntryStop, Outcome: policies.CodeAccepted, Raw: make([]byte, 3<<20)}
	for range 4 {
		_, _, err := w.vault.record(t.Context(), func(*ledger.State, time.Time) []ledger.Record { return []ledger.Record{long} })
		must(t, err)
	}
	first := uint64(w.log.Checkpoint().Size) - 4
	answer, err := w.query(a.queryOf(func(q *policies.AuditQuery) { q.From, q.What = first, "bodies" }))
	must(t, err)
	if n := len(parts(t, "bodies", answer)); n != 2 || len(answer) > maxAnswer {
		t.Errorf("%d bodies, %d bytes", n, len(answer))
	}
}
