package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Imports of resident keys go in groups, as the records of a log do: while one group is on its way into the token the next gathers, and all of it shares the
// sync of the token's folder, the search in a fresh session and the search of the other process, which walk all objects of the token. An import that comes
// alone waits for nobody.

// A pendingImport is one caller's.
type pendingImport struct {
	key   keyImport
	check KeyCheck
	err   error
	done  chan struct{} // closed when check or err is there
}

// waitingImports are those that are in no group yet, oldest first.
type waitingImports struct {
	mu   sync.Mutex
	list []*pendingImport
}

func (w *waitingImports) add(i *pendingImport) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, i)
}

// withdraw takes one out again. false: it is in a group.
func (w *waitingImports) withdraw(i *pendingImport) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := slices.Index(w.list, i)
	if n >= 0 {
		w.list = slices.Delete(w.list, n, n+1)
	}
	return n >= 0
}

// group takes the oldest. Of two imports of one key the second is for the next group, which finds that it exists.
func (w *waitingImports) group() (group []*pendingImport) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = slices.DeleteFunc(w.list, func(i *pendingImport) bool {
		take := len(group) < importsAtOnce && !slices.ContainsFunc(group, func(o *pendingImport) bool { return o.key.ID == i.key.ID })
		if take {
			group = append(group, i)
		}
		return take
	})
	return group
}

// Import is Token.Import, and a process other than the one that imported has
// found the key in the token and derived with it. When it returns nil every
// worker knows the key. If a worker dies over it, or the key is not there for
// the other, what is left is destroyed and another is asked, as often as there
// are workers: one that was started since is among them. An error of kind
// ErrTokenBroken leaves the outcome open: see Keys. The check value is for
// DestroyKey.
func (p *Pool) Import(ctx context.Context, id KeyID, path string, wrapped []byte) (KeyCheck, error) {
	i := &pendingImport{key: keyImport{id, path, wrapped}, done: make(chan struct{})}
	p.waiting.add(i)
	for !ended(i.done) {
		select {
		case <-i.done:
		case p.importing <- struct{}{}:
			p.importGroup(p.waiting.group()) // in which ours may not be
			<-p.importing
		case <-p.closing:
			if p.waiting.withdraw(i) {
				return KeyCheck{}, &Error{Op: "importing key", Kind: p.cause}
			}
			<-i.done // it is on its way: the caller gets to know what came of it
		case <-ctx.Done():
			if p.waiting.withdraw(i) {
				return KeyCheck{}, fmt.Errorf("importing key: %w", ctx.Err())
			}
			<-i.done
		}
	}
	return i.check, i.err
}

// importGroup carries imports out.
func (p *Pool) importGroup(group []*pendingImport) {
	if len(group) == 0 {
		return
	}
	p.admin.Lock()
	defer p.admin.Unlock()
	p.carryOut(group, p.config.Workers)
}

// carryOut has a group imported. What a worker died over, or the other does not find, is tried again so often, each alone: a key that kills workers keeps nobody
// else's out. The caller holds admin.
func (p *Pool) carryOut(group []*pendingImport, again int) {
	p.importOnce(group)
	for _, i := range group {
		full := errors.Is(i.err, ErrTokenFull)
		if full || errors.Is(i.err, ErrTokenBroken) && again > 0 {
			if err := p.destroy(context.Background(), i.key.ID, KeyCheck{}); err != nil && !errors.Is(err, ErrKeyMissing) {
				i.err = err
			} else if !full {
				p.carryOut([]*pendingImport{i}, again-1)
				continue
			}
		}
		close(i.done)
	}
}

// importOnce has one worker import a group and another find it, and fills in what came of each.
func (p *Pool) importOnce(group []*pendingImport) {
	what := call{Method: "import"}
	for _, i := range group {
		what.Imports, i.err = append(what.Imports, i.key), nil
	}
	var keys []KeyID
	err := p.witnessed(context.Background(), what, func(made *reply) (call, bool) {
		for n, i := range group {
			if i.err = errGone; n < len(made.Faults) {
				i.err = made.Faults[n].err()
			}
			if i.err == nil {
				keys = append(keys, i.key.ID)
			}
		}
		return call{Method: "witness", Keys: keys}, len(keys) > 0
	}, func(made *reply) {
		xs := made.Data
		for _, i := range group {
			switch {
			case i.err != nil:
			case len(xs) < 32:
				i.err = errGone
			default:
				i.check, xs = checkOf((*[32]byte)(xs)), xs[32:]
			}
		}
	})
	for _, i := range group {
		if i.err == nil {
			i.err = err
		}
	}
	if err == nil && len(keys) > 0 {
		p.tell(call{Method: "learn", Keys: keys}, nil)
	}
}
