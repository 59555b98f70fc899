package storefront

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/internal/store"
)

// Items ahead of their manifest. A client that publishes everything again, because this storefront lost it, may have more than one body
// holds. A tree is taken whole or not at all, so it sends items first, and then the manifest with all leaves. What came ahead is kept for a
// while, and counts for nothing until then: it is collected like any other item that no tree refers to.

const (
	// earlyFor is how long items are kept that came ahead.
	earlyFor = 10 * time.Minute
	// earlySlots bounds those who may have such items, since which ones is kept in memory. A process that starts anew has forgotten it, and
	// collects them; the client is told that they are not here and sends them again.
	earlySlots = 1000
)

type early struct {
	mu    sync.Mutex
	slots map[slot]*earlyItems
}

type earlyItems struct {
	until  time.Time
	leaves map[policies.Hash]int // bytes of ciphertext, by leaf
	bytes  int64
}

// add notes items of a slot. The time of those that are there already does not begin anew.
func (e *early) add(k slot, leaves []*leaf, limits Limits, now time.Time) (until time.Time, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.slots == nil {
		e.slots = make(map[slot]*earlyItems)
	}
	mine := e.slots[k]
	if mine == nil || !now.Before(mine.until) {
		if len(e.slots) >= earlySlots {
			maps.DeleteFunc(e.slots, func(_ slot, i *earlyItems) bool { return !now.Before(i.until) })
		}
		if len(e.slots) >= earlySlots {
			return until, &problem.Problem{Code: policies.CodeRateLimited, Detail: "too many publish everything again at once", RetryAfter: 60}
		}
		mine = &earlyItems{until: now.Add(earlyFor), leaves: make(map[policies.Hash]int)}
	}
	bytes, more := mine.bytes, 0
	for _, l := range leaves {
		if _, here := mine.leaves[l.hash]; !here {
			bytes, more = bytes+int64(l.ciphertext), more+1
		}
	}
	if bytes > limits.OwnerBytes || len(mine.leaves)+more > limits.Fields {
		return until, problem.New(policies.CodeTooLarge, "an owner's items have at most %d bytes together, in %d fields", limits.OwnerBytes, limits.Fields)
	}
	for _, l := range leaves {
		mine.leaves[l.hash] = l.ciphertext
	}
	mine.bytes = bytes
	e.slots[k] = mine
	return mine.until, nil
}

// of are the leaves that came ahead for a slot and whose time is not over, and when it is.
func (e *early) of(k slot, now time.Time) (leaves []policies.Hash, until time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	mine := e.slots[k]
	if mine == nil || !now.Before(mine.until) {
		return nil, time.Time{}
	}
	for l := range mine.leaves {
		leaves = append(leaves, l)
	}
	return leaves, mine.until
}

func (e *early) remove(k slot) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.slots, k)
}

// forget drops what is remembered of whoever closed their account, as owner and as author.
func (e *early) forget(id policies.IdentityID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.DeleteFunc(e.slots, func(k slot, _ *earlyItems) bool {
		return k.owner == policies.OwnerID(id) || k.author == policies.AuthorID(id)
	})
}

// ahead stores items whose manifest follows.
func (s *Storefront) ahead(ctx context.Context, k slot, in *items) error {
	if len(in.removed) > 0 {
		return problem.New(policies.CodeMalformed, "what is removed is said with the manifest")
	}
	for _, l := range in.leaves {
		if _, here := in.bodies[l.CiphertextHash]; !here {
			return problem.New(policies.CodeMalformed, "an item that comes ahead has its ciphertext")
		}
	}
	unlock, err := s.locks.lock(ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	for _, id := range []policies.IdentityID{policies.IdentityID(k.owner), policies.IdentityID(k.author)} { // its login may be a moment older than the end of it
		if err := s.closed(ctx, id); err != nil {
			return err
		}
	}
	sh, err := s.lockedShelf(ctx, k)
	if err != nil {
		return err
	}
	until, err := s.early.add(k, in.leaves, s.limits, s.now())
	if err != nil {
		return err
	}
	// With the hint, so that the next process collects them after a crash.
	changes := []store.Change{{Key: k.work(), Version: max(sh.version, 1)}}
	for _, l := range in.leaves {
		changes = append(changes, store.Change{Key: leafKey(k.owner, l.hash), Version: 1, Value: leafRecord(l.bytes, l.ciphertext)})
	}
	for h, body := range in.bodies {
		changes = append(changes, store.Change{Key: k.ciphertext(h), Version: 1, Value: body})
	}
	s.collector.add(k, until)
	return s.store.Commit(ctx, changes...)
}
