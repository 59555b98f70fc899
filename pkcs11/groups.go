package pkcs11

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// What makes and ends resident keys goes in groups, as the records of a log do: while one group is on its way into the token the next gathers, and all of it
// shares the syncs of the token's folder and the searches, which walk all objects of the token. What comes alone waits for nobody, and what comes together goes
// together.

// A member of a group is one key.
type member struct {
	id   KeyID
	err  error
	done chan struct{}   // closed when err is there, and what else came of it
	left <-chan struct{} // closed when its caller does not wait any more
}

func memberFor(id KeyID) member { return member{id: id, done: make(chan struct{})} }

func (m *member) common() *member { return m }

// groups are those of one operation.
type groups[M interface {
	comparable
	common() *member
}] struct {
	op   string
	most int           // members of a group
	lead chan struct{} // held by the caller who carries a group out, for all that wait

	mu      sync.Mutex // guards waiting
	waiting []M        // those that are in no group yet, oldest first
}

// join returns when each of some members was in a group that was carried out, or was withdrawn before it was in any. carry is given a group, which may be empty,
// and closes done of each of it.
func (g *groups[M]) join(ctx context.Context, p *Pool, members []M, carry func([]M)) {
	g.mu.Lock()
	for _, m := range members {
		m.common().left = ctx.Done()
		g.waiting = append(g.waiting, m)
	}
	g.mu.Unlock()
	for _, m := range members {
		for done := m.common().done; !ended(done); {
			switch {
			case p.closed():
				g.withdraw(members, &Error{Op: g.op, Kind: p.cause})
				<-done // if it is on its way, the caller gets to know what came of it
				continue
			case ctx.Err() != nil:
				g.withdraw(members, fmt.Errorf("%s: %w", g.op, ctx.Err()))
				<-done
				continue
			}
			select {
			case <-done:
			case g.lead <- struct{}{}:
				carry(g.next()) // in which ours may not be
				<-g.lead
			case <-p.closing:
			case <-ctx.Done():
			}
		}
	}
}

// withdraw takes those out again that are in no group yet, and gives each the error.
func (g *groups[M]) withdraw(members []M, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = slices.DeleteFunc(g.waiting, func(m M) bool {
		out := slices.Contains(members, m)
		if out {
			m.common().err = err
			close(m.common().done)
		}
		return out
	})
}

// next takes the oldest whose callers wait. Of two of one key the second is for a later group, which finds what the first one did.
func (g *groups[M]) next() (group []M) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = slices.DeleteFunc(g.waiting, func(m M) bool {
		take := len(group) < g.most && !ended(m.common().left) && !slices.ContainsFunc(group, func(o M) bool { return o.common().id == m.common().id })
		if take {
			group = append(group, m)
		}
		return take
	})
	return group
}
