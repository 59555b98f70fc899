package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// endsAtOnce is how many keys end in one group. What they share, a search and a sync, is then little beside their own, and an import that
// comes meanwhile waits a fraction of a second.
const endsAtOnce = 128

// An EndingKey is a key that is to be destroyed: what lies under ID and is not
// the key that Import returned Check of stays, and the key is looked for under
// every name. The zero check is that of every key.
type EndingKey struct {
	ID    KeyID
	Check KeyCheck
}

// A pendingEnd is that of one key.
type pendingEnd struct {
	member
	check KeyCheck
	met   bool // a worker says that it destroyed it: who finds none after that may not know of another
	torn  bool // a worker died over it, which may have destroyed it: the same
}

// Destroy is DestroyKeys of one, whatever its check value.
func (p *Pool) Destroy(ctx context.Context, id KeyID) error {
	return p.DestroyKeys(ctx, EndingKey{ID: id})[0]
}

// DestroyKeys is Token.Destroy of each key. No worker has a derive with it
// under way when the object is destroyed. If the first worker dies over it, or
// over another key of its group, ErrKeyMissing may mean that it had destroyed
// the key. ErrKeyRenamed says that the key with the check value was found under
// another name, and is destroyed: somebody with the PIN changed it.
func (p *Pool) DestroyKeys(ctx context.Context, keys ...EndingKey) (errs []error) {
	all := make([]*pendingEnd, len(keys))
	for i, k := range keys {
		all[i] = &pendingEnd{member: memberFor(k.ID), check: k.Check}
	}
	p.ends.join(ctx, p, all, func(group []*pendingEnd) {
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
	for _, e := range all {
		errs = append(errs, e.err)
	}
	return errs
}

// endAll is end, and what no worker finds is looked for by one that starts now: it reads the whole folder. Of what a worker made that died over it those who live may know nothing. The
// caller holds admin.
func (p *Pool) endAll(group []*pendingEnd) {
	p.end(group)
	p.endAnew(only(group, notFound))
}

// endAnew has a worker that starts now end what the others do not find.
func (p *Pool) endAnew(group []*pendingEnd) {
	if len(group) == 0 {
		return
	}
	defer p.tell(call{Method: "forget", Keys: idsOf(group)}, nil) // who has started meanwhile may have listed them
	for again := p.config.Workers; ; again-- {
		w, err := p.start()
		if err != nil {
			answer(group, reply{}, fmt.Errorf("starting a token worker that looks: %w", err))
			break
		}
		p.endBy(w, "destroy", group)
		p.stop(w)
		if group = only(group, worthAnother); len(group) == 0 || again == 0 || p.closed() {
			break
		}
	}
}

// end ends the keys of a group, and fills in what came of each. The caller holds admin.
func (p *Pool) end(group []*pendingEnd) {
	p.tell(call{Method: "forget", Keys: idsOf(group)}, nil)
	p.endThrough(group, p.config.Workers)
	p.tell(call{Method: "forget", Keys: idsOf(group)}, nil) // a worker that has started since may have listed them before they were destroyed
	left := only(group, notFound)
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
		if left = only(left, notFound); len(left) == 0 {
			return
		}
	}
	p.endAnew(only(left, func(e *pendingEnd) bool { return e.met || e.torn }))
	for _, e := range left {
		if e.met && errors.Is(e.err, ErrKeyMissing) {
			e.err = nil
		}
	}
	p.hunt(only(left, func(e *pendingEnd) bool { return errors.Is(e.err, ErrKeyMissing) && e.check != KeyCheck{} }))
}

func notFound(e *pendingEnd) bool { return errors.Is(e.err, ErrKeyMissing) }

// worthAnother tells of a key over which the worker died, or a session of it.
func worthAnother(e *pendingEnd) bool {
	return errors.Is(e.err, ErrTokenBroken) || errors.Is(e.err, ErrSessionBroken)
}

// endThrough has a worker end a group. What the worker dies over is asked of another, as often as again says, each key alone: one that kills workers keeps no
// other from its end.
func (p *Pool) endThrough(group []*pendingEnd, again int) {
	p.endOnce(group)
	for _, e := range group {
		if e.torn = e.torn || worthAnother(e); again > 0 && worthAnother(e) {
			p.endThrough([]*pendingEnd{e}, again-1)
		}
	}
}

// endOnce has one worker end a group, and another look for what is left of it. What that one worker knows by its handle it destroys without a search, since another
// looks; the rest it searches for. It alone destroys: see the known limits in the package's README.
func (p *Pool) endOnce(group []*pendingEnd) {
	w, err := p.some(context.Background())
	if err != nil {
		answer(group, reply{}, fmt.Errorf("calling token worker: %w", err))
		return
	}
	defer w.loops.Done()
	p.endBy(w, "destroyKnown", group)
	p.endBy(w, "destroy", only(group, notFound))
	ended := only(group, func(e *pendingEnd) bool { return e.err == nil })
	if len(ended) == 0 {
		return
	}
	for _, e := range ended {
		e.met = true
	}
	r, err := p.otherLooks(w, callOf("gone", ended))
	answer(ended, r, err)
}

// endBy has a worker end keys. What came of each is filled in.
func (p *Pool) endBy(w *worker, method string, ends []*pendingEnd) {
	if len(ends) > 0 {
		r, err := w.call(callOf(method, ends), p.config.SlowTimeout)
		answer(ends, r, err)
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
