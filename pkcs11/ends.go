package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// endsAtOnce is how many keys end in one group. What they share, two searches and a sync, is then little beside their own, and an import that
// comes meanwhile waits a fraction of a second.
const endsAtOnce = 128

// A pendingEnd is the end of a key that one caller waits for.
type pendingEnd struct {
	member
	check KeyCheck
}

// Destroy is Token.Destroy. No worker has a derive with the key under way when
// the object is destroyed. If the first worker dies over it, or over another key of its group, ErrKeyMissing may
// mean that it had destroyed the key.
func (p *Pool) Destroy(ctx context.Context, id KeyID) error {
	return p.DestroyKey(ctx, id, KeyCheck{})
}

// DestroyKey is Destroy of a key that Import returned the check value of: what
// lies under id and is another key stays, and the key is looked for under
// every name. ErrKeyRenamed says that it was found under another one, and is
// destroyed: somebody with the PIN changed it.
func (p *Pool) DestroyKey(ctx context.Context, id KeyID, check KeyCheck) error {
	return p.ends.join(ctx, p, &pendingEnd{memberFor(id), check}, func(group []*pendingEnd) {
		if len(group) == 0 {
			return
		}
		p.admin.Lock()
		defer p.admin.Unlock()
		p.end(group)
		for _, e := range group {
			close(e.done)
		}
	})
}

// destroy is Destroy of one key. The caller holds admin.
func (p *Pool) destroy(id KeyID) error {
	e := &pendingEnd{member: memberFor(id)}
	p.end([]*pendingEnd{e})
	return e.err
}

// end ends the keys of a group, and fills in what came of each. The caller holds admin.
func (p *Pool) end(group []*pendingEnd) {
	p.tell(call{Method: "forget", Keys: idsOf(group)}, nil)
	p.endThrough(group, p.config.Workers)
	p.tell(call{Method: "forget", Keys: idsOf(group)}, nil) // a worker that has started since may have listed them before they were destroyed
	missing := func(e *pendingEnd) bool { return errors.Is(e.err, ErrKeyMissing) }
	left := only(group, missing)
	if len(left) == 0 {
		return
	}
	// Another worker may know a key by its handle.
	p.mu.Lock()
	workers := slices.Clone(p.workers)
	p.mu.Unlock()
	for _, w := range workers {
		r, err := w.call(callOf("destroy", left), p.config.SlowTimeout)
		for n, e := range left {
			if err == nil && n < len(r.Faults) && r.Faults[n].err() == nil {
				e.err = nil
			}
		}
		if left = only(left, missing); len(left) == 0 {
			return
		}
	}
	p.hunt(only(left, func(e *pendingEnd) bool { return e.check != KeyCheck{} }))
}

// endThrough has a worker end a group. What the worker dies over is asked of another, as often as again says, each key alone: one that kills workers keeps no
// other from its end.
func (p *Pool) endThrough(group []*pendingEnd, again int) {
	p.endOnce(group)
	for _, e := range group {
		if again > 0 && (errors.Is(e.err, ErrTokenBroken) || errors.Is(e.err, ErrSessionBroken)) {
			p.endThrough([]*pendingEnd{e}, again-1)
		}
	}
}

// endOnce has one worker end a group, and another, if there is one, look for what is left of it.
func (p *Pool) endOnce(group []*pendingEnd) {
	worker, err := p.some(context.Background())
	if err != nil {
		answer(group, reply{}, fmt.Errorf("calling token worker: %w", err))
		return
	}
	defer worker.loops.Done()
	r, err := worker.call(callOf("destroy", group), p.config.SlowTimeout)
	answer(group, r, err)
	ended := only(group, func(e *pendingEnd) bool { return e.err == nil })
	if len(ended) == 0 {
		return
	}
	if other := p.beside(worker); other != nil {
		defer other.loops.Done()
		r, err := other.call(callOf("gone", ended), p.config.SlowTimeout)
		answer(ended, r, err)
	}
}

// answer fills in what a worker said of each key.
func answer(group []*pendingEnd, r reply, err error) {
	for n, e := range group {
		switch {
		case err != nil:
			e.err = err
		case n < len(r.Faults):
			e.err = r.Faults[n].err()
		default:
			e.err = errGone
		}
	}
}

// hunt ends those of a group that lie under another name.
func (p *Pool) hunt(group []*pendingEnd) {
	if len(group) == 0 {
		return
	}
	r, err := p.ask(context.Background(), callOf("hunt", group), p.config.SlowTimeout, true)
	answer(group, r, err)
	for _, e := range group {
		if e.err == nil {
			e.err = &Error{Op: "destroying key", Kind: ErrKeyRenamed}
		}
	}
}

// callOf asks a worker for something with the keys of a group.
func callOf(method string, group []*pendingEnd) call {
	c := call{Method: method, Keys: idsOf(group)}
	for _, e := range group {
		c.Checks = append(c.Checks, e.check)
	}
	return c
}

func idsOf(group []*pendingEnd) (ids []KeyID) {
	for _, e := range group {
		ids = append(ids, e.id)
	}
	return ids
}

func only(group []*pendingEnd, these func(*pendingEnd) bool) (out []*pendingEnd) {
	for _, e := range group {
		if these(e) {
			out = append(out, e)
		}
	}
	return out
}
