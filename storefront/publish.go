package storefront

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// The publish protocol. The vault's head is the only commit point: a manifest counts when the vault has accepted it, and what
// lies here follows. All of it happens under the slot's lock:
//
//  1. The manifest's root is recomputed over the current leaves with the changes applied, and every changed leaf has its ciphertext.
//  2. Items and pending = M are written in one synced transaction. A crash before leaves nothing but the old state; the client has no
//     receipt and sends M again.
//  3. The vault is asked to advance. A crash or time-out here leaves the outcome unknown: pending is sent again, and the vault answers
//     the same M with the same receipt.
//  4. M becomes current and pending is cleared in one transaction. A crash before is the same as one in step 3.
//  5. Later, items that neither the current nor a pending tree refers to are collected.

// items is what a publication carries, checked against itself.
type items struct {
	leaves  []*leaf
	bodies  map[policies.Hash][]byte // ciphertexts by hash
	removed []policies.Field
}

func parseItems(p *api.Publication, k slot) (*items, error) {
	in := &items{removed: p.Removed, bodies: make(map[policies.Hash][]byte)}
	fields := make(map[policies.Field]bool, len(p.Items)+len(p.Removed))
	name := func(f policies.Field) error {
		if fields[f] {
			return problem.New(policies.CodeMalformed, "field %q is changed twice", string(f))
		}
		fields[f] = true
		return nil
	}
	for _, f := range p.Removed {
		if err := f.Validate(); err != nil {
			return nil, err
		}
		if err := name(f); err != nil {
			return nil, err
		}
	}
	for i := range p.Items {
		it := &p.Items[i]
		l, err := newLeaf(it.Leaf, len(it.Ciphertext))
		if err != nil {
			return nil, err
		}
		if l.Owner != k.owner || l.Author != k.author {
			return nil, problem.New(policies.CodeLeaf, "item %d is of another owner or author than the manifest", i)
		}
		if err := name(l.Field); err != nil {
			return nil, err
		}
		if l.point() == [65]byte{} {
			return nil, problem.New(policies.CodePoint, "item %d", i)
		}
		if len(it.Ciphertext) > pre.CiphertextSize(policies.MaxValue) {
			return nil, problem.New(policies.CodeTooLarge, "a value has at most %d bytes", policies.MaxValue)
		}
		if len(it.Ciphertext) > 0 {
			if sha256.Sum256(it.Ciphertext) != l.CiphertextHash {
				return nil, problem.New(policies.CodeLeaf, "the ciphertext of item %d is not the one that its leaf names", i)
			}
			in.bodies[l.CiphertextHash] = it.Ciphertext
		}
		in.leaves = append(in.leaves, l)
	}
	return in, nil
}

func (s *Storefront) postManifest(c *call) error {
	owner, err := c.owner()
	if err != nil {
		return err
	}
	var p api.Publication
	if err := envelope.Decode(c.body, &p); err != nil {
		return err
	}
	env, err := envelope.Parse(p.Manifest)
	if err != nil {
		return err
	}
	m, err := policies.Decode[policies.Manifest](env)
	if err != nil {
		return err
	}
	switch {
	case m.Owner != owner:
		return problem.New(policies.CodeMalformed, "the manifest is of another owner than the path")
	case policies.IdentityID(m.Author) != c.subject:
		return problem.New(policies.CodeUnauthorized, "the manifest is of another author than the one who logged in")
	}
	k := slot{m.Owner, m.Author}
	if k != own(k.owner) {
		if err := s.closed(c.ctx, policies.IdentityID(k.owner)); err != nil {
			return err
		}
		// The vault would refuse it, but only after a stranger had filled this disk.
		if err := s.mayWrite(c.ctx, k); err != nil {
			return err
		}
	}
	if err := s.chargeDocument(c.subject, env); err != nil {
		return err
	}
	in, err := parseItems(&p, k)
	if err != nil {
		return err
	}
	if p.Ahead {
		if err := s.ahead(c.ctx, k, in); err != nil {
			return err
		}
		return c.json(http.StatusAccepted, struct{}{})
	}
	receipt, err := s.publish(c.ctx, k, env, m, in)
	if err != nil {
		return err
	}
	s.early.remove(k)
	return c.json(http.StatusOK, receipt)
}

func (s *Storefront) publish(ctx context.Context, k slot, env *envelope.Envelope, m *policies.Manifest, in *items) (*evidence.Receipt, error) {
	unlock, err := s.locks.lock(ctx, k)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := s.closed(ctx, policies.IdentityID(k.owner)); err != nil { // nothing of theirs is kept any more
		return nil, err
	}
	sh, err := s.lockedShelf(ctx, k)
	if err != nil {
		return nil, err
	}
	if sh.pending != nil && (sh.pending.hash != env.Hash || sh.unwritten()) {
		// If the vault refuses it, the author's newer manifest takes its place below, also when it could not be shown that another document
		// did. Should the vault accept the old one after all, this storefront is behind and says so.
		if sh, err = s.complete(ctx, k, sh); err != nil && temporary(err) {
			return nil, err // whether the pending one counts is unknown, so nothing can be built on either outcome
		}
	}
	if sh.current != nil && sh.current.hash == env.Hash {
		return sh.current.receipt, s.restore(ctx, k, sh.current, in)
	}
	if sh.current != nil && m.Version <= sh.current.manifest.Version {
		return s.submit(ctx, env) // not news: an old receipt or a refusal, and nothing changes here
	}
	t, err := s.assemble(ctx, k, sh, env, m, in)
	if err != nil {
		return nil, err
	}
	if sh, err = s.writePending(ctx, k, sh, t, in); err != nil {
		return nil, err
	}
	sh, err = s.complete(ctx, k, sh)
	if err != nil {
		return nil, err
	}
	return sh.current.receipt, nil
}

// restore writes ciphertexts of the current tree that were lost, from a client that publishes the current manifest again.
func (s *Storefront) restore(ctx context.Context, k slot, t *tree, in *items) error {
	var changes []store.Change
	var err error
	for _, l := range t.leaves {
		if body, sent := in.bodies[l.CiphertextHash]; sent {
			if changes, err = s.once(ctx, changes, k.ciphertext(l.CiphertextHash), body); err != nil {
				return err
			}
		}
	}
	return s.commit(ctx, changes)
}

// assemble finds the tree that the manifest speaks of: the current leaves with the changes applied or, from a client that publishes again
// because this storefront lost data, the publication's items alone.
func (s *Storefront) assemble(ctx context.Context, k slot, sh *shelf, env *envelope.Envelope, m *policies.Manifest, in *items) (*tree, error) {
	if m.TreeSize > uint64(s.limits.Fields) {
		return nil, problem.New(policies.CodeTooLarge, "at most %d fields are allowed", s.limits.Fields)
	}
	previous := policies.Hash{}
	if sh.current != nil {
		previous = sh.current.hash
	}
	var t *tree
	var err error
	if m.PrevManifest == previous && !sh.lost {
		merged := make(map[policies.Field]*leaf)
		if sh.current != nil {
			for _, l := range sh.current.leaves {
				merged[l.Field] = l
			}
		}
		for _, f := range in.removed {
			delete(merged, f)
		}
		for _, l := range in.leaves {
			merged[l.Field] = l
		}
		leaves := make([]*leaf, 0, len(merged))
		for _, l := range merged {
			leaves = append(leaves, l)
		}
		t, err = newTree(env, m, nil, leaves)
	}
	if t == nil && uint64(len(in.leaves)) == m.TreeSize {
		t, err = newTree(env, m, nil, append([]*leaf(nil), in.leaves...))
	}
	if t == nil {
		if m.PrevManifest != previous || sh.lost {
			return nil, s.outOfStep(ctx, k, previous)
		}
		return nil, err
	}
	// Every changed leaf has its ciphertext: in this publication, or here already, as after a rotation.
	for _, l := range in.leaves {
		if _, here := in.bodies[l.CiphertextHash]; here {
			continue
		}
		r, err := s.store.Get(ctx, k.ciphertext(l.CiphertextHash))
		if errors.Is(err, store.ErrNotFound) {
			return nil, problem.New(policies.CodeBehind, "the ciphertext of field %q is not here; publish it again", string(l.Field))
		} else if err != nil {
			return nil, err
		}
		l.ciphertext = len(r.Value)
		t.bytes += int64(l.ciphertext)
	}
	if t.bytes > s.limits.OwnerBytes {
		return nil, problem.New(policies.CodeTooLarge, "an owner's items have at most %d bytes together", s.limits.OwnerBytes)
	}
	return t, nil
}

// outOfStep says why a manifest does not build on what is current here: either the vault has a head that this storefront does not
// know, or the client does not know this one.
func (s *Storefront) outOfStep(ctx context.Context, k slot, current policies.Hash) error {
	head, err := s.vault.Head(ctx, k.owner, k.author)
	if err != nil {
		return err
	}
	if head.Manifest != current {
		return &problem.Problem{Code: policies.CodeBehind, Receipt: head.Receipt, Detail: "send a manifest with all items"}
	}
	p := &problem.Problem{Code: policies.CodeChain, Receipt: head.Receipt}
	if k == own(k.owner) {
		if st, err := s.vault.Chain(ctx, k.owner); err == nil {
			p.Receipt = st.Receipt
		}
	}
	return p
}

// writePending is step 2. With a nil tree it drops what was pending.
func (s *Storefront) writePending(ctx context.Context, k slot, sh *shelf, t *tree, in *items) (*shelf, error) {
	next := &shelf{version: sh.version + 1, current: sh.current, pending: t, lost: sh.lost}
	var changes []store.Change
	for _, l := range in.leaves {
		changes = append(changes, store.Change{Key: leafKey(k.owner, l.hash), Version: 1, Value: leafRecord(l.bytes, l.ciphertext)})
	}
	for h, body := range in.bodies {
		changes = append(changes, store.Change{Key: k.ciphertext(h), Version: 1, Value: body})
	}
	return next, s.writeShelf(ctx, k, next, changes)
}

// writeShelf commits a shelf together with other changes and makes it the one in memory. The caller holds the slot's lock.
func (s *Storefront) writeShelf(ctx context.Context, k slot, sh *shelf, changes []store.Change) error {
	state, err := encodeRecord(k.tree(), sh.version, treeRecord{Current: sh.current.state(), Pending: sh.pending.state()})
	if err != nil {
		return err
	}
	changes = append(changes, state, store.Change{Key: k.work(), Version: sh.version})
	if err := s.store.Commit(ctx, changes...); err != nil {
		s.shelves.remove(k) // what the store holds now is read again
		return err
	}
	s.shelves.put(k, sh, sh.weight())
	s.collector.add(k, s.now().Add(collectAfter))
	return nil
}

// complete is steps 3 and 4: it asks the vault to accept what is pending, and returns the shelf as it is afterwards, also with an
// error. The caller holds the slot's lock. It goes on when the client has gone.
func (s *Storefront) complete(ctx context.Context, k slot, sh *shelf) (*shelf, error) {
	ctx, cancel := detach(ctx)
	defer cancel()
	t := sh.pending
	// After a write that failed the store shows, until it is opened again, what may not be on its disk. The vault must accept nothing that this storefront may lose.
	if err := s.store.Health(); errors.Is(err, store.ErrBroken) {
		return s.leaveAlone(k, sh), err
	}
	receipt, err := s.vault.Submit(ctx, vaultapi.Submission{Envelope: t.raw})
	if err != nil {
		if errors.Is(err, policies.CodeChain) && s.displaced(ctx, k, t) || withdrawn(k, err) {
			next := &shelf{version: sh.version + 1, current: sh.current, lost: sh.lost}
			if writeErr := s.writeShelf(ctx, k, next, nil); writeErr != nil {
				return sh, writeErr
			}
			return next, err
		}
		if !temporary(err) {
			sh = s.leaveAlone(k, sh)
		}
		return sh, err
	}
	next := &shelf{version: sh.version + 1, current: t.accepted(receipt)}
	var changes []store.Change
	if k == own(k.owner) {
		if changes, err = s.once(ctx, changes, chainKey(k.owner, t.manifest.Seq), t.raw); err != nil {
			return sh, err
		}
	}
	if err := s.writeShelf(ctx, k, next, changes); err != nil {
		return s.accepted(ctx, k, sh, next.current), err
	}
	return next, nil
}

// leaveAlone keeps reads from asking the vault about what is pending for a while: see retryPending.
func (s *Storefront) leaveAlone(k slot, sh *shelf) *shelf {
	next := *sh
	next.refused = s.now()
	s.shelves.put(k, &next, next.weight())
	return &next
}

// accepted is the shelf while the store does not take what the vault has accepted. Reads go by what the vault goes by; what the store has as pending stays so
// until it can be written down. Readers would be told to ask again for as long as the disk is full otherwise. The caller holds the slot's lock.
func (s *Storefront) accepted(ctx context.Context, k slot, sh *shelf, t *tree) *shelf {
	stored, err := s.lockedShelf(ctx, k)
	if err == nil && (stored.pending == nil || stored.pending.hash != t.hash) {
		return stored // it was written after all
	}
	served := shelf{version: sh.version, current: t, pending: sh.pending, refused: s.now()}
	if err == nil { // else it is read again next time
		served.version = stored.version
		s.shelves.put(k, &served, served.weight())
	}
	return &served
}

// displaced reports whether the vault proves, with a receipt under the token-signed root, that another document took the place of a
// pending manifest. On anything less the manifest stays pending: dropping one that the vault will accept would lose its items.
func (s *Storefront) displaced(ctx context.Context, k slot, t *tree) bool {
	var newest policies.Hash
	var receipt *evidence.Receipt
	if k == own(k.owner) {
		st, err := s.vault.Chain(ctx, k.owner)
		if err != nil || st.Seq < t.manifest.Seq {
			return false
		}
		newest, receipt = st.Hash, st.Receipt
	} else {
		head, err := s.vault.Head(ctx, k.owner, k.author)
		if err != nil || head.Version < t.manifest.Version {
			return false
		}
		newest, receipt = head.Manifest, head.Receipt
	}
	doc, err := s.vaultDocument(ctx)
	if err != nil || receipt == nil || newest == t.hash {
		return false
	}
	_, _, details, err := receipt.Verify(doc, newest)
	return err == nil && details.Owner == k.owner
}

// temporary reports whether the outcome is unknown or may be another one soon, so that asking again makes sense.
func temporary(err error) bool {
	switch problem.Of(err).Code {
	case policies.CodeUnavailable, policies.CodeInternal, policies.CodeLogStopped, policies.CodeLogFull, policies.CodeClock, policies.CodeTokenFailure, policies.CodeRateLimited:
		return true
	}
	return false
}

// submit sends a document to the vault and goes on when the client has gone.
func (s *Storefront) submit(ctx context.Context, env *envelope.Envelope) (*evidence.Receipt, error) {
	ctx, cancel := detach(ctx)
	defer cancel()
	return s.vault.Submit(ctx, vaultapi.Submission{Envelope: env.Raw})
}

// retryPending is how long a pending manifest that the vault refused, or that a store that failed may not have, or did not take when it was accepted, is left alone by reads.
const retryPending = time.Second

// settled is a slot's shelf with nothing pending, if the vault can be brought to decide; else as it is.
func (s *Storefront) settled(ctx context.Context, k slot) (*shelf, error) {
	sh, err := s.shelf(ctx, k)
	if err != nil || sh.pending == nil || s.now().Sub(sh.refused) < retryPending {
		return sh, err
	}
	unlock, err := s.locks.lock(ctx, k)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return s.lockedSettled(ctx, k)
}

// lockedSettled is settled for callers that hold the slot's lock, without the pause between attempts.
func (s *Storefront) lockedSettled(ctx context.Context, k slot) (*shelf, error) {
	sh, err := s.lockedShelf(ctx, k)
	if err != nil || sh.pending == nil {
		return sh, err
	}
	sh, err = s.complete(ctx, k, sh)
	if err != nil {
		s.log.Warn("the vault did not accept a pending manifest", "code", problem.Of(err).Code)
	}
	return sh, nil
}

// resume completes what an earlier process left pending and has what it left over collected.
func (s *Storefront) resume(ctx context.Context) {
	err := s.each(ctx, []byte{kindWork}, nil, func(r store.Record) error {
		if len(r.Key) != 1+64 {
			return fmt.Errorf("a stored key has %d bytes", len(r.Key))
		}
		k := slot{policies.OwnerID(r.Key[1:33]), policies.AuthorID(r.Key[33:])}
		s.collector.add(k, s.now().Add(collectAfter))
		unlock, err := s.locks.lock(ctx, k)
		if err != nil {
			return err
		}
		defer unlock()
		if _, err := s.lockedSettled(ctx, k); err != nil {
			s.log.Error("completing a pending manifest", "error", err)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		s.log.Error("looking for pending manifests", "error", err)
	}
}

// collectAfter is how long items that no tree refers to any more are kept for reads that are on their way.
const collectAfter = time.Minute

// collector remembers which slots may have items that no tree refers to.
type collector struct {
	mu  sync.Mutex
	due map[slot]time.Time
}

func (c *collector) add(k slot, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.due == nil {
		c.due = make(map[slot]time.Time)
	}
	if _, ok := c.due[k]; !ok { // a later change does not put off what the first one left
		c.due[k] = at
	}
}

func (c *collector) take(now time.Time) []slot {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []slot
	for k, at := range c.due {
		if !now.Before(at) {
			out = append(out, k)
			delete(c.due, k)
		}
	}
	return out
}

// collect deletes, a while after each change of a tree, what it no longer refers to.
func (s *Storefront) collect(ctx context.Context) {
	tick := time.NewTicker(collectAfter / 10)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.collectDue(ctx, s.now())
		}
	}
}

// collectDue collects what is due. What fails is tried again.
func (s *Storefront) collectDue(ctx context.Context, now time.Time) {
	for _, k := range s.collector.take(now) {
		if err := s.collectSlot(ctx, k, now); err != nil && ctx.Err() == nil {
			s.log.Error("collecting old items", "error", err)
			s.collector.add(k, now.Add(collectAfter))
		}
	}
}

// collectSlot deletes a slot's items that neither its current nor its pending tree refers to, and then the hint that there is work. A crash
// in between leaves the hint, and the next start collects the rest.
func (s *Storefront) collectSlot(ctx context.Context, k slot, now time.Time) error {
	unlock, err := s.locks.lock(ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	var changes []store.Change
	var sh *shelf
	switch err := s.closed(ctx, policies.IdentityID(k.owner)); {
	case errors.Is(err, policies.CodeClosed): // what was under way to be stored when the rest was deleted
		s.early.remove(k)
		s.shelves.remove(k)
		sh, changes = new(shelf), []store.Change{{Key: k.tree(), Delete: true}}
	case err != nil:
		return err
	default:
		if sh, err = s.lockedShelf(ctx, k); err != nil {
			return err
		}
	}
	if sh.lost || sh.unwritten() {
		return nil // what is left may be of use when the owner publishes again, or is still the store's current tree
	}
	live := make(map[policies.Hash]bool)
	ahead, until := s.early.of(k, now)
	if len(ahead) > 0 {
		s.collector.add(k, until)
	}
	for _, l := range ahead {
		live[l] = true
	}
	for _, t := range []*tree{sh.current, sh.pending} {
		if t == nil {
			continue
		}
		for _, l := range t.leaves {
			live[l.hash], live[l.CiphertextHash] = true, true
		}
	}
	// Each ciphertext was written with a leaf that names it, so it goes with the last one.
	err = s.each(ctx, key(kindLeaf, k.owner[:]), nil, func(r store.Record) error {
		raw, _, err := parseLeafRecord(r.Value)
		if err != nil {
			return err
		}
		l, err := policies.ParseLeaf(raw)
		if err != nil {
			return fmt.Errorf("a stored leaf: %v", err)
		}
		if l.Author != k.author || live[l.Hash()] {
			return nil
		}
		changes = append(changes, store.Change{Key: r.Key, Delete: true})
		if !live[l.CiphertextHash] {
			changes = append(changes, store.Change{Key: k.ciphertext(l.CiphertextHash), Delete: true})
			s.ciphers.remove(cipherKey{k, l.CiphertextHash})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if sh.pending == nil && len(ahead) == 0 {
		changes = append(changes, store.Change{Key: k.work(), Delete: true})
	}
	for len(changes) > 0 {
		n := min(len(changes), 1000)
		if err := s.store.Commit(ctx, changes[:n]...); err != nil {
			return err
		}
		changes = changes[n:]
	}
	return nil
}
