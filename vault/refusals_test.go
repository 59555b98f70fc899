package vault

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/api"
)

// bounded is a world whose identities may have few refusals recorded.
func bounded(t *testing.T, l Limits) *world {
	w := newWorld(t)
	w.limits = l
	w.restart(true)
	return w
}

// tally is what the log says of refusals: listed one by one, and counted for an identity.
func (w *world) tally(id policies.IdentityID) (listed, counted, entries int) {
	w.t.Helper()
	for _, r := range w.records() {
		switch {
		case r.Kind == evidence.EntryRefusal && (policies.IdentityID(r.Details.Reader) == id || r.Details.Identity == id):
			listed++
		case r.Kind == evidence.EntryRefusals && r.Details.Identity == id:
			counted, entries = counted+int(r.Details.Count), entries+1
		}
	}
	return
}

func (r *reader) try(change func(*policies.ReadRequest), asks ...ask) api.Reply {
	c, _ := r.callOf(change, asks...)
	return r.w.vault.Reencrypt(context.Background(), []api.Call{c})[0]
}

// TestFailingReaderDoesNotFillTheLog: what a reader is refused is listed up to its allowance and counted beyond it. Nothing is lost from the
// count, nobody else is touched, and the reader itself is served what it was granted.
func TestFailingReaderDoesNotFillTheLog(t *testing.T) {
	const burst, tries = 20, 300
	for _, attack := range []struct {
		name   string
		change func(*policies.ReadRequest)
	}{
		{"nothing granted", nil},
		{"another vault", func(d *policies.ReadRequest) { d.Audience = policies.VaultID{9} }},
		{"one nonce", func(d *policies.ReadRequest) { d.Nonce = policies.Nonce{1} }},
	} {
		t.Run(attack.name, func(t *testing.T) {
			w := bounded(t, Limits{Refusals: 0.001, RefusalBurst: burst})
			o, honest, hostile := w.owner(), w.reader(), w.reader()
			o.set("name", "n")
			g, own := o.grant(honest, nil, "name"), o.grant(hostile, nil, "name")
			nobody := ask{o, nil, "name", 0}
			rateLimited := 0
			for i := range tries {
				if hostile.try(attack.change, nobody).Code == policies.CodeRateLimited {
					rateLimited++
				}
				if i%50 == 0 {
					honest.value(ask{o, g, "name", 0}, honest.read(ask{o, g, "name", 0}).Items[0])
				}
			}
			if rateLimited < tries-2*burst {
				t.Errorf("%d of %d requests were rate limited", rateLimited, tries)
			}
			// What it was granted it is served, but not together with what it was not.
			hostile.value(ask{o, own, "name", 0}, hostile.read(ask{o, own, "name", 0}).Items[0])
			derives := w.token.count()
			if code := hostile.try(nil, ask{o, own, "name", 0}, nobody).Code; code != policies.CodeRateLimited || w.token.count() != derives {
				t.Errorf("a read that is refused in part: %s, %d derives", code, w.token.count()-derives)
			}
			o.revoke(own, "name") // which would wait for a use that was begun and undone
			w.vault.recordCounts(true)
			listed, counted, entries := w.tally(hostile.id)
			if listed > 2*burst || counted == 0 || entries > 3 {
				t.Errorf("%d refusals listed, %d counted in %d entries", listed, counted, entries)
			}
			if refused := tries + 1; attack.change == nil && listed+counted != refused {
				t.Errorf("%d refusals are in the log, there were %d", listed+counted, refused)
			}
			// The log replays to the same state, and time fills the allowance.
			w.restart(false)
			if hostile.try(nil, nobody).Code == policies.CodeRateLimited {
				t.Error("the allowance is not full after a restart")
			}
		})
	}
}

// TestAllowances: the arithmetic. An allowance may be overdrawn by one request, fills with time, and who has used up its share of that draws on what all have.
func TestAllowances(t *testing.T) {
	limits, err := Limits{Refusals: 1, RefusalBurst: 10, RefusalsOverall: 2}.withDefaults()
	must(t, err)
	var q quotas
	q.init(limits)
	now := time.Unix(1_800_000_000, 0)
	a := allowance{policies.IdentityID{1}, refusedReads}
	if !q.take(a, now, 1000) || q.take(a, now, 1) {
		t.Fatal("a request that begins within the allowance is recorded whole, and the next not")
	}
	if now = now.Add(989 * time.Second); q.take(a, now, 1) {
		t.Error("what was overdrawn is given again")
	}
	if now = now.Add(3 * time.Second); !q.take(a, now, 1) {
		t.Error("it does not fill")
	}
	now = now.Add(-time.Hour)
	if q.get(a, now); q.of[a].level > 2 {
		t.Error("a clock that was set back fills it")
	}
	// A thousand identities that are refused for ever share the overall rate.
	now = now.Add(10 * time.Hour)
	taken := 0
	for second := range 600 {
		for id := range 1000 {
			for range 2 {
				if q.take(allowance{policies.IdentityID{2, byte(id), byte(id >> 8)}, refusedReads}, now.Add(time.Duration(second)*time.Second), 1) {
					taken++
				}
			}
		}
	}
	if most := 1000*(10/2+600/100+1) + 60*2 + 600*2; taken > most {
		t.Errorf("%d were taken, at most %d should be", taken, most)
	}
	if !q.take(allowance{policies.IdentityID{3}, refusedReads}, now.Add(600*time.Second), 1) {
		t.Error("somebody who is refused for the first time is not on record")
	}
	// What is full is forgotten.
	q.due(now.Add(100*time.Hour), false)
	if len(q.of) != 0 {
		t.Errorf("%d allowances are remembered", len(q.of))
	}
}

// TestCountsGetRarer: counts of one identity are recorded after a second, then more rarely, and of few identities at once.
func TestCountsGetRarer(t *testing.T) {
	limits, err := Limits{}.withDefaults()
	must(t, err)
	var q quotas
	q.init(limits)
	now := time.Unix(1_800_000_000, 0)
	count := func(id byte) {
		q.count(allowance{policies.IdentityID{id}, refusedReads}, now, policies.Pseudonym{}, policies.Pseudonym{id}, map[policies.Code]uint64{policies.CodeNoGrant: 1})
	}
	entries, sum := 0, uint64(0)
	for range 3600 {
		count(1)
		for _, one := range q.due(now, false) {
			entries++
			sum += one.counts[policies.CodeNoGrant]
		}
		now = now.Add(time.Second)
	}
	for _, one := range q.due(now, true) {
		sum += one.counts[policies.CodeNoGrant]
	}
	if entries > 70 || sum != 3600 {
		t.Errorf("%d entries, %d counted", entries, sum)
	}
	for id := range 100 {
		count(byte(id))
	}
	seen := 0
	for range 100 / countsAtOnce {
		n := len(q.due(now, false))
		if seen += n; n > countsAtOnce {
			t.Errorf("%d at once", n)
		}
	}
	if now = now.Add(2 * longestPause); seen+len(q.due(now, true)) != 100 {
		t.Error("some were never recorded")
	}
}

// TestFailingOwnerDoesNotFillTheLog: so it is with an owner's refused documents, which are answered with their reason all the same: a storefront that
// sends an old one again and again must not keep the owner from learning what a revocation must be signed on top of.
func TestFailingOwnerDoesNotFillTheLog(t *testing.T) {
	const burst, tries = 20, 100
	w := bounded(t, Limits{Refusals: 0.001, RefusalBurst: burst})
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	stale, _, _ := o.manifestOf(func(m *policies.Manifest) { m.Seq, m.Prev = 9, policies.Hash{9} })
	var newest *evidence.Receipt
	for i := range tries {
		_, err := w.submit(stale)
		if newest = problem.Of(err).Receipt; !errors.Is(err, policies.CodeChain) || newest == nil {
			t.Fatalf("refusal %d: %v", i, err)
		}
	}
	_, _, details, err := newest.Verify(w.document, newest.Document)
	must(t, err)
	if details.Seq != o.seq || newest.Document != o.prev {
		t.Errorf("the receipt says that the chain is at %d, it is at %d", details.Seq, o.seq)
	}
	w.vault.recordCounts(true)
	if listed, counted, entries := w.tally(o.id); listed > burst || listed+counted != tries || entries > 2 {
		t.Errorf("%d listed, %d counted in %d entries", listed, counted, entries)
	}
	page, err := w.vault.History(policies.OwnerID(o.id), 0, 1)
	must(t, err)
	if d, err := page.Entries[0].Opening.Read(); err != nil || d.Count == 0 {
		t.Errorf("the owner does not see how often it was refused: %+v, %v", d, err)
	}
	// Nor is anybody's use for grants and reads gone.
	g := o.grant(r, nil, "name")
	r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0])
}

// TestFailingImportsAreBounded: an import that the token refuses leaves the whole grant in the log.
func TestFailingImportsAreBounded(t *testing.T) {
	w := bounded(t, Limits{Refusals: 0.001, RefusalBurst: 20})
	o, other, r := w.owner(), w.owner(), w.reader()
	o.set("name", "n")
	other.set("name", "n")
	var err error
	tries := 0
	for ; tries < 50 && !errors.Is(err, policies.CodeRateLimited); tries++ {
		s, _, _ := o.grantOf(r, func(g *granting) { g.wrapped["name"] = []byte("no key") }, "name")
		_, err = w.submit(s)
	}
	if tries < 3 || tries > 10 {
		t.Fatalf("%d imports failed, then %v", tries, err)
	}
	other.grant(r, nil, "name")
}

// TestStrangersAreNotInAnOwnersHistory: anybody can enrol and ask for everybody's fields. Whom an owner never granted anything to is on record as
// a reader, and not in the owner's history.
func TestStrangersAreNotInAnOwnersHistory(t *testing.T) {
	w := newWorld(t)
	o, met, stranger := w.owner(), w.reader(), w.reader()
	o.set("name", "n")
	g := o.grant(met, nil, "name")
	before, err := w.vault.History(policies.OwnerID(o.id), 0, 100)
	must(t, err)
	for range 5 {
		stranger.try(nil, ask{o, nil, "name", 0})
		stranger.try(nil, ask{o, g, "name", 0})
	}
	entries := func() int {
		page, err := w.vault.History(policies.OwnerID(o.id), 0, 100)
		must(t, err)
		return len(page.Entries)
	}
	if n := entries(); n != len(before.Entries) {
		t.Errorf("a stranger put %d entries into the owner's history", n-len(before.Entries))
	}
	if listed, _, _ := w.tally(stranger.id); listed != 10 {
		t.Errorf("%d refusals of the stranger are on record", listed)
	}
	w.restart(true) // from the database
	met.try(nil, ask{o, nil, "phone", 0})
	if n := entries(); n != len(before.Entries)+1 {
		t.Errorf("the owner does not see what a reader whom it knows was refused: %d entries", n)
	}
	w.restart(false) // from the log
	o.revoke(g, "name")
	met.try(nil, ask{o, nil, "phone", 0})
	if n := entries(); n != len(before.Entries)+4 {
		t.Errorf("nor after the grant ended: %d entries", n)
	}
}

// TestRequestsOfOneSession: a session has so many requests, over restarts, and then another must be opened.
func TestRequestsOfOneSession(t *testing.T) {
	w := bounded(t, Limits{SessionRequests: 3})
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	for range 3 {
		r.read(ask{o, g, "name", 0})
	}
	for _, database := range []bool{true, false} {
		if code := r.try(nil, ask{o, g, "name", 0}).Code; code != policies.CodeSession {
			t.Errorf("the fourth request: %q", code)
		}
		w.restart(database)
	}
	r.openSession()
	r.read(ask{o, g, "name", 0})
}

// TestSessionsOpenedAtARate: a session is a record of 7 kB.
func TestSessionsOpenedAtARate(t *testing.T) {
	w := bounded(t, Limits{Sessions: 5, SessionRate: 0.001})
	r := w.reader()
	for range 4 {
		r.openSession()
	}
	w.clock.move(15 * time.Minute)
	w.vault.endSessions() // so there may be five again, but no sixth has come in yet
	s, _, _, _ := r.sessionOf(nil)
	if _, err := w.submit(s); !errors.Is(err, policies.CodeRateLimited) {
		t.Errorf("too fast: %v", err)
	}
	w.clock.move(2 * time.Minute)
	r.openSession()
}
