package vault

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/internal/ledger"
)

// What an identity is given of the entries that concern it, in the words of an access entry's note.
type accessed string

const (
	// historyAsked: a page of an owner's history. No owner signs for it: the storefront asks, and is believed to ask for the owner.
	historyAsked accessed = "history, asked for by the storefront"
)

// accessPeriod is the shortest time between two access entries of one identity, and accessesAtOnce how many are recorded in a second.
const (
	accessPeriod   = time.Minute
	accessesAtOnce = 16
)

// accesses counts what identities were given of the entries that concern them. Each is recorded when a period is over since the first that is not recorded yet,
// so that looking at the log does not fill it.
type accesses struct {
	mu      sync.Mutex
	waiting map[policies.IdentityID]*accessCount
}

type accessCount struct {
	since  time.Time
	counts map[accessed]uint64
}

func (a *accesses) init() { a.waiting = map[policies.IdentityID]*accessCount{} }

// add counts an access of somebody who is enrolled.
func (a *accesses) add(id policies.IdentityID, what accessed, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.put(id, &accessCount{now, map[accessed]uint64{what: 1}})
}

// put is called with mu held.
func (a *accesses) put(id policies.IdentityID, more *accessCount) {
	one := a.waiting[id]
	if one == nil {
		a.waiting[id] = more
		return
	}
	if more.since.Before(one.since) {
		one.since = more.since
	}
	for what, n := range more.counts {
		one.counts[what] += n
	}
}

// due takes the counts whose period is over, of those that wait longest. With all, everything is taken.
func (a *accesses) due(now time.Time, all bool) map[policies.IdentityID]*accessCount {
	a.mu.Lock()
	defer a.mu.Unlock()
	var over []policies.IdentityID
	for id, one := range a.waiting {
		if since := now.Sub(one.since); all || since >= accessPeriod || since < 0 {
			over = append(over, id)
		}
	}
	if !all && len(over) > accessesAtOnce {
		slices.SortFunc(over, func(x, y policies.IdentityID) int { return a.waiting[x].since.Compare(a.waiting[y].since) })
		over = over[:accessesAtOnce]
	}
	taken := make(map[policies.IdentityID]*accessCount, len(over))
	for _, id := range over {
		taken[id] = a.waiting[id]
		delete(a.waiting, id)
	}
	return taken
}

// giveBack restores counts that could not be recorded.
func (a *accesses) giveBack(taken map[policies.IdentityID]*accessCount) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, one := range taken {
		a.put(id, one)
	}
}

// recordAccesses records what was given out. At the end all, else that of which the time has come.
func (v *Vault) recordAccesses(all bool) {
	taken := v.accesses.due(v.cfg.Clock(), all)
	if len(taken) == 0 {
		return
	}
	_, _, err := v.record(context.Background(), func(s *ledger.State, _ time.Time) []ledger.Record {
		out := make([]ledger.Record, 0, len(taken))
		for id, one := range taken {
			if !s.Closed(id) { // an entry of theirs would stay when all of theirs before it go
				out = append(out, one.record(s, id))
			}
		}
		slices.SortFunc(out, func(x, y ledger.Record) int { return bytes.Compare(x.Details.Identity[:], y.Details.Identity[:]) })
		return out
	})
	if err != nil {
		v.accesses.giveBack(taken)
	}
}

// record is the entry of a count. An owner's history is of the owner, so its entry is in it; everything else is of a reader.
func (a *accessCount) record(s *ledger.State, id policies.IdentityID) ledger.Record {
	r := ledger.Record{Kind: evidence.EntryAccess, Outcome: policies.CodeAccepted, Details: evidence.Details{Identity: id}}
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(a.counts)) {
		r.Details.Count += a.counts[what]
		parts = append(parts, fmt.Sprintf("%s %d", what, a.counts[what]))
		if what == historyAsked {
			r.Owner = s.Pseudonym(id)
		} else {
			r.Reader = s.Pseudonym(id)
		}
	}
	r.Details.Note = strings.Join(parts, ", ")
	return r
}
