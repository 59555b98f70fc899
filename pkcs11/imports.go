package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A pendingImport is that of one key.
type pendingImport struct {
	member
	key   WrappedKey
	check KeyCheck
}

// Import is ImportKeys of one.
func (p *Pool) Import(ctx context.Context, id KeyID, path string, wrapped []byte) (KeyCheck, error) {
	checks, errs := p.ImportKeys(ctx, WrappedKey{id, path, wrapped})
	return checks[0], errs[0]
}

// ImportKeys is as Token.Import of each key, but who sees it in the token, and
// derives with it, is a process other than the one that imported. A key whose
// error is nil is known to every worker. If a worker dies over it, or the key is
// not there for the other, what is left is destroyed and another is asked, as
// often as there are workers: one that was started since is among them. An error
// of kind ErrTokenBroken leaves the outcome open: see Keys. The check values are
// for DestroyKeys.
func (p *Pool) ImportKeys(ctx context.Context, keys ...WrappedKey) (checks []KeyCheck, errs []error) {
	all := make([]*pendingImport, len(keys))
	for i, k := range keys {
		all[i] = &pendingImport{member: memberFor(k.ID), key: k}
	}
	p.importing.join(ctx, p, all, func(group []*pendingImport) {
		if len(group) == 0 {
			return
		}
		p.admin.Lock()
		defer p.admin.Unlock()
		p.carryOut(group, p.config.Workers)
	})
	for _, i := range all {
		checks, errs = append(checks, i.check), append(errs, i.err)
	}
	return checks, errs
}

// carryOut has a group imported. What a worker died over, or the other does not find, is tried again so often, each alone: a key that kills workers keeps nobody
// else's out. The caller holds admin.
func (p *Pool) carryOut(group []*pendingImport, again int) {
	p.importOnce(group)
	var failed []*pendingImport
	var left []*pendingEnd // what there may be of them
	for _, i := range group {
		if errors.Is(i.err, ErrTokenFull) || errors.Is(i.err, ErrTokenBroken) {
			failed, left = append(failed, i), append(left, &pendingEnd{member: memberFor(i.id)})
		} else {
			close(i.done)
		}
	}
	if len(failed) == 0 {
		return
	}
	if slices.ContainsFunc(failed, func(i *pendingImport) bool { return !errors.Is(i.err, ErrTokenFull) }) {
		p.endAll(left)
	} else { // one that starts now would have to write in a token that is full; what nobody who runs sees, the next start sweeps
		p.end(left)
	}
	for n, i := range failed {
		err := left[n].err
		if errors.Is(err, ErrKeyMissing) {
			err = nil
		}
		if err == nil && again > 0 && !errors.Is(i.err, ErrTokenFull) {
			p.carryOut([]*pendingImport{i}, again-1)
			continue
		}
		if err != nil {
			i.err = errors.Join(i.err, err)
		}
		close(i.done)
	}
}

// importOnce has one worker import a group. Then another looks for it in the token and derives with it. What came of each key is filled in. One worker alone
// imports: see the known limits in the package's README.
func (p *Pool) importOnce(group []*pendingImport) {
	maker, err := p.some(context.Background())
	if err != nil {
		for _, i := range group {
			i.err = fmt.Errorf("calling token worker: %w", err)
		}
		return
	}
	defer maker.loops.Done()
	what := call{Method: "import"}
	for _, i := range group {
		what.Imports = append(what.Imports, i.key)
	}
	r, err := maker.call(what, p.config.SlowTimeout)
	defer clear(r.Data)
	var made []*pendingImport
	var keys []KeyID
	for n, i := range group {
		switch {
		case err != nil:
			i.err = err
		case n < len(r.Faults):
			i.err = r.Faults[n].err()
		default:
			i.err = errGone
		}
		if i.err == nil {
			made, keys = append(made, i), append(keys, i.id)
		}
	}
	if len(made) == 0 {
		return
	}
	xs := r.Data
	if err = p.otherSees(maker, call{Method: "witness", Keys: keys}, xs); err == nil && len(xs) != 32*len(made) {
		err = errDiffers
	}
	if err != nil {
		err = p.unseen(err, what.Method, maker)
	} else {
		p.tell(call{Method: "learn", Keys: keys}, nil)
	}
	for n, i := range made {
		if i.err = err; err == nil {
			i.check = checkOf((*[32]byte)(xs[32*n:]))
		}
	}
}
