package vault

import (
	"errors"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/internal/ledger"
)

// accessed are the access entries of an identity.
func (w *world) accessed(id policies.IdentityID) (out []*ledger.Record) {
	w.t.Helper()
	for _, r := range w.records() {
		if r.Kind == evidence.EntryAccess && r.Details.Identity == id {
			out = append(out, r)
		}
	}
	return out
}

// TestHistoryIsOnRecord: who asks for an owner's history leaves an entry in it, one a minute, and none is lost when the vault stops or its log is full.
func TestHistoryIsOnRecord(t *testing.T) {
	w := newWorld(t)
	o, other := w.owner(), w.owner()
	ask := func(times int) {
		t.Helper()
		for range times {
			_, err := w.vault.History(policies.OwnerID(o.id), 0, 1)
			must(t, err)
		}
	}
	ask(3)
	w.vault.History(policies.OwnerID{9}, 0, 1)
	if w.vault.recordAccesses(false); len(w.of(evidence.EntryAccess)) != 0 {
		t.Fatal("an entry before the minute is over")
	}
	w.clock.move(accessPeriod)
	w.vault.recordAccesses(false)
	w.vault.recordAccesses(false)
	got := w.accessed(o.id)
	if len(got) != 1 || got[0].Details.Count != 3 || got[0].Details.Note != "history, asked for by the storefront 3" || got[0].Outcome != policies.CodeAccepted {
		t.Fatalf("%d entries: %+v", len(got), got)
	}
	page, err := w.vault.History(policies.OwnerID(o.id), 0, 1)
	must(t, err)
	if page.Entries[0].Index != got[0].Index {
		t.Error("the owner does not see who looked")
	}
	if page, err = w.vault.History(policies.OwnerID(other.id), 0, 1); err != nil || page.Entries[0].Index == got[0].Index {
		t.Errorf("another owner sees it: %v", err)
	}

	// That last look is on record when the vault has stopped.
	must(t, w.vault.Close(t.Context()))
	must(t, w.log.Close())
	w.reopen(false)
	if got := w.accessed(o.id); len(got) != 2 || got[1].Details.Count != 1 {
		t.Fatalf("after a stop: %d entries", len(got))
	}

	// A log that does not record loses nothing of the count.
	ask(2)
	fault := errors.New("signing fails")
	w.logKey.hook = func() error { return fault }
	w.vault.recordAccesses(true)
	if n := w.vault.accesses.waiting[o.id].counts[historyAsked]; n != 2 {
		t.Fatalf("%d are left of the count, want 2", n)
	}
}

// TestAccessesAreBounded: however many identities are asked for, a second has so many entries, the longest waiting first, and no identity is left out.
func TestAccessesAreBounded(t *testing.T) {
	var a accesses
	a.init()
	now := time.Unix(1_800_000_000, 0)
	for i := range 100 {
		a.add(policies.IdentityID{byte(i)}, historyAsked, now.Add(time.Duration(i)*time.Millisecond))
	}
	now = now.Add(time.Second + accessPeriod)
	seen := map[policies.IdentityID]bool{}
	for second := 0; len(a.waiting) > 0; second++ {
		taken := a.due(now, false)
		if len(taken) > accessesAtOnce || len(taken) == 0 {
			t.Fatalf("%d in second %d", len(taken), second)
		}
		for id := range taken {
			if int(id[0])/accessesAtOnce != second || seen[id] {
				t.Errorf("identity %d in second %d", id[0], second)
			}
			seen[id] = true
		}
	}
	if len(seen) != 100 {
		t.Errorf("%d identities", len(seen))
	}
	a.add(policies.IdentityID{1}, historyAsked, now)
	if len(a.due(now.Add(-time.Hour), false)) != 1 {
		t.Error("a clock that was set back holds an entry up")
	}
}
