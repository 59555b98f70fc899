package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// A device keeps one checkpoint: the largest state of the key-use log that it has seen and that holds everything it saw before. Every other
// checkpoint that comes, with a receipt or a page of history, must be joined to the kept one by a consistency proof. If it is the larger one
// it is then kept in the other's place.
//
// What contradicts the kept one is [ErrFork], nothing that came with it is used, and the kept one stays. A checkpoint for which no proof can be had
// is not kept and not forgotten either: it waits, what came with it is used, and the proof is asked for again with the next checkpoint, at most every
// half minute. So a storefront that is silent stops nobody's reads and revocations, and [View.Since] tells for how long it has been so: whoever
// forks the log must let that be seen, or be found out. Proofs are asked of the storefront, and then of the vault's own listener.

// seenCheckpoint is a state of the key-use log that was seen, under the token's signature.
type seenCheckpoint struct {
	Size uint64        `json:"size"`
	Root policies.Hash `json:"root"`
	Note string        `json:"note,omitzero"` // as it was signed
}

// maxWaiting is how many checkpoints wait for a proof. When there are more, the newest takes the place of the one before it.
const maxWaiting = 16

// proofPause is how long after a failed attempt proofs are not asked for.
const proofPause = 30 * time.Second

// proofTimeout is how long a proof may take on one route.
const proofTimeout = 3 * time.Second

// seen is what a device has seen of the key-use log.
type seen struct {
	Waiting      []seenCheckpoint `json:"waiting,omitzero"`      // seen, and not joined to the kept one yet
	Since        int64            `json:"since,omitzero"`        // Unix seconds, when the first of them came
	Contradicted string           `json:"contradicted,omitzero"` // a checkpoint that contradicts the kept one, as it was signed
}

// clone shares nothing with the original.
func (s seen) clone() seen {
	s.Waiting = slices.Clone(s.Waiting)
	return s
}

// View is what a device knows of the key-use log.
type View struct {
	Size         uint64    `json:"size"`                  // of the kept checkpoint; 0: none yet
	Checkpoint   string    `json:"checkpoint"`            // the kept one, a signed note
	Since        time.Time `json:"since,omitzero"`        // since when later ones wait for proof that the log still has this; zero: none do
	Contradicted string    `json:"contradicted,omitzero"` // the last signed checkpoint for which the proof failed
}

// Log tells what the device knows of the key-use log. The checkpoint may be given to anybody; see [Owner.Compare].
func (d *device) Log() View {
	t := &d.trust
	t.mu.Lock()
	defer t.mu.Unlock()
	v := View{Size: t.checkpoint.Size, Checkpoint: t.checkpoint.Note, Contradicted: t.seen.Contradicted}
	if t.seen.Since != 0 {
		v.Since = time.Unix(t.seen.Since, 0).UTC()
	}
	return v
}

// compare joins a checkpoint that somebody else keeps to this device's. [ErrFork]: they are of two logs, and the two notes, signed by one key, show
// it to anybody. Without a proof it is no more than policies.CodeUnavailable.
func (d *device) compare(ctx context.Context, note string) error {
	v, err := d.vault(ctx)
	if err != nil {
		return err
	}
	if err := d.notice(ctx, v, note, true); err != nil {
		return fmt.Errorf("comparing checkpoints: %w", err)
	}
	return nil
}

// Compare joins a checkpoint that another device or person keeps to this one's, as [View] has it. It needs no proof if both have one size. The error
// is [ErrFork] if both cannot be true: the log shows one history to you and another to them.
func (o *Owner) Compare(ctx context.Context, note string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return errors.Join(o.compare(ctx, note), o.save())
}

// Compare is [Owner.Compare] of a reader.
func (r *Reader) Compare(ctx context.Context, note string) error {
	err := r.compare(ctx, note)
	return errors.Join(err, r.Flush())
}

// joiner is the state of asking for proofs.
type joiner struct {
	mu    sync.Mutex // held while proofs are fetched
	tried time.Time  // when the last attempt failed
}

// notice takes note of a checkpoint. Strict: no waiting, the error is policies.CodeUnavailable if there is no proof.
func (d *device) notice(ctx context.Context, v *policies.VaultDocument, note string, strict bool) error {
	c, err := evidence.OpenCheckpoint(note, v.LogKey)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUntrue, err)
	}
	if c.Size == 0 || c.Size > 1<<62 {
		return fmt.Errorf("%w: a checkpoint of %d entries", ErrUntrue, c.Size)
	}
	next := seenCheckpoint{c.Size, c.Root, note}
	if known, err := d.trust.known(&next); known || err != nil {
		return err
	}
	d.joiner.mu.Lock()
	defer d.joiner.mu.Unlock()
	if known, err := d.trust.known(&next); known || err != nil { // meanwhile
		return err
	}
	return d.join(ctx, next, strict)
}

// known reports whether a checkpoint is the kept one, or becomes it as the first. One of a size that was seen with another root is a fork.
func (t *trust) known(c *seenCheckpoint) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.checkpoint.Size == 0 {
		t.checkpoint, t.changed = *c, true
		return true, nil
	}
	for _, other := range append([]seenCheckpoint{t.checkpoint}, t.seen.Waiting...) {
		if c.Size == other.Size && c.Root != other.Root {
			t.seen.Contradicted, t.changed = c.Note, true
			return false, fmt.Errorf("%w: two roots for %d entries", ErrFork, c.Size)
		}
	}
	if c.Size != t.checkpoint.Size {
		return false, nil
	}
	if t.checkpoint.Note == "" { // kept by an older program
		t.checkpoint.Note = c.Note
	}
	return true, nil
}

// join joins next and all that wait to the kept checkpoint. It is called with joiner.mu held.
func (d *device) join(ctx context.Context, next seenCheckpoint, strict bool) error {
	t := &d.trust
	t.mu.Lock()
	todo := slices.Clone(t.seen.Waiting)
	t.mu.Unlock()
	if !slices.ContainsFunc(todo, func(c seenCheckpoint) bool { return c.Size == next.Size }) {
		todo = append(todo, next)
	}
	slices.SortStableFunc(todo, func(a, b seenCheckpoint) int { return cmp.Compare(a.Size, b.Size) })
	var failed error
	if !strict && d.now().Sub(d.joiner.tried).Abs() < proofPause {
		failed = errors.New("it was asked for a moment ago")
	}
	for len(todo) > 0 && failed == nil {
		c := todo[0]
		t.mu.Lock()
		kept := t.checkpoint
		t.mu.Unlock()
		err := d.prove(ctx, kept, c)
		switch {
		case errors.Is(err, ErrFork):
			t.mu.Lock()
			t.seen.Contradicted, t.changed = c.Note, true
			t.mu.Unlock()
			return err
		case err != nil:
			failed = err
		default:
			todo = todo[1:]
			t.joined(c)
		}
	}
	if failed == nil {
		return nil
	}
	if !errors.Is(ctx.Err(), context.Canceled) && d.now().Sub(d.joiner.tried).Abs() >= proofPause {
		d.joiner.tried = d.now()
	}
	t.wait(next, d.now())
	if strict {
		return fmt.Errorf("%w: no proof that the log of %d entries has what this device saw: %w", policies.CodeUnavailable, next.Size, failed)
	}
	return nil
}

// joined notes that a checkpoint is of the same log as the kept one.
func (t *trust) joined(c seenCheckpoint) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changed = true
	if c.Size > t.checkpoint.Size {
		t.checkpoint = c
	}
	t.seen.Waiting = slices.DeleteFunc(t.seen.Waiting, func(w seenCheckpoint) bool { return w.Size == c.Size })
	if len(t.seen.Waiting) == 0 {
		t.seen.Since = 0
	}
}

// wait notes that a checkpoint waits for its proof.
func (t *trust) wait(c seenCheckpoint, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.ContainsFunc(t.seen.Waiting, func(w seenCheckpoint) bool { return w.Size == c.Size }) || c.Size == t.checkpoint.Size {
		return
	}
	t.changed = true
	if len(t.seen.Waiting) == 0 {
		t.seen.Since = now.Unix()
	}
	if len(t.seen.Waiting) == maxWaiting {
		t.seen.Waiting = t.seen.Waiting[:maxWaiting-1]
	}
	t.seen.Waiting = append(t.seen.Waiting, c)
}

// unsaved reports whether something was seen that is not stored yet.
func (t *trust) unsaved() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// largest is the size of the largest signed state that was seen.
func (t *trust) largest() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	size := t.checkpoint.Size
	for _, c := range t.seen.Waiting {
		size = max(size, c.Size)
	}
	return size
}

// prove has the smaller of two checkpoints proven a beginning of the larger. ErrFork: proofs came and none holds, or the log is said to have fewer
// entries than the token signed. Any other error: none came.
func (d *device) prove(ctx context.Context, a, b seenCheckpoint) error {
	if a.Size > b.Size {
		a, b = b, a
	}
	ask := func(r request) error {
		var p vaultapi.Consistency
		ctx, cancel := context.WithTimeout(ctx, proofTimeout)
		defer cancel()
		r.method, r.out, r.limit = "GET", &p, maxProof
		r.query = url.Values{"from": {strconv.FormatUint(a.Size, 10)}, "to": {strconv.FormatUint(b.Size, 10)}}
		switch err := d.wire.call(ctx, r); {
		case errors.Is(err, policies.CodeProof):
			return fmt.Errorf("%w: the token signed %d entries, and now there are fewer: %w", ErrFork, b.Size, err)
		case err != nil:
			return fmt.Errorf("fetching a consistency proof: %w", err)
		}
		if err := checkConsistency(p.Proof, a, b); err != nil {
			return fmt.Errorf("%w: the log of %d entries does not begin with the log of %d: %w", ErrFork, b.Size, a.Size, err)
		}
		return nil
	}
	err := ask(request{path: api.PathConsistency})
	if err == nil || d.wire.owners == nil {
		return err
	}
	switch second := ask(request{path: vaultapi.PathLogConsistency, base: d.wire.owners}); {
	case second == nil:
		return nil
	case errors.Is(second, ErrFork):
		return second
	}
	return err
}

// maxProof is the longest answer with a consistency proof in bytes: some 120 hashes.
const maxProof = 16 << 10

// checkConsistency verifies that the tree of the smaller checkpoint is a beginning of the larger one's.
func checkConsistency(proof []policies.Hash, small, large seenCheckpoint) error {
	p := make(tlog.TreeProof, len(proof))
	for i := range proof {
		p[i] = tlog.Hash(proof[i])
	}
	return tlog.CheckTree(p, int64(large.Size), tlog.Hash(large.Root), int64(small.Size), tlog.Hash(small.Root))
}
