package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// Unstopped reports whether a revocation waits for its receipt.
func (o *Owner) Unstopped() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.state.Tasks, func(t task) bool { return t.stops() })
}

// Finish carries out what was begun before and could not be finished then.
func (o *Owner) Finish(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.run(ctx)
}

// Sync finishes what was begun, fetches what other devices did, brings the mirror up to date, and gives a storefront that lost or
// missed something what it lacks.
func (o *Owner) Sync(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.catchUp(ctx); err != nil {
		return err
	}
	err := o.told(o.sync(ctx))
	if err == nil {
		o.aside = nil // what failed beside something else is done
	}
	return o.reason(ctx, err)
}

// catchUp has a device that was restored, perhaps from a backup of before a replacement, find out whether that is in force. Else nobody lets it in.
func (o *Owner) catchUp(ctx context.Context) error {
	if o.state.Applied.Seq == 0 || o.state.Replacing != nil {
		if err := o.adopt(ctx); errors.Is(err, ErrReplaced) || errors.Is(err, ErrUntrue) {
			return err
		}
	}
	return nil
}

func (o *Owner) sync(ctx context.Context) (err error) {
	// Tasks first: a revocation must not wait for a storefront that is silent.
	runErr := o.run(ctx)
	defer func() { // what was given up is told, whatever else went well
		if (refused(runErr) || errors.Is(runErr, ErrThawOld)) && !errors.Is(err, runErr) {
			err = errors.Join(runErr, err)
		}
	}()
	v, err := o.vault(ctx)
	if err != nil {
		return errors.Join(runErr, err)
	}
	if err := o.syncChain(ctx); err != nil {
		return errors.Join(runErr, err)
	}
	for _, author := range o.writersOf(nil) {
		_ = o.syncWritten(ctx, author) // what is wrong with it Incoming tells
	}
	if err := o.syncGivenUp(ctx); err != nil {
		return errors.Join(runErr, err)
	}
	if err := untrue(o.learnFrozen(ctx, v)); err != nil {
		return errors.Join(runErr, err)
	}
	o.looked = o.now()
	o.syncVouchers(ctx)
	o.showSide(ctx)
	ends, renewed := o.endSuperseded(), o.renewReaders(ctx)
	if o.goOn() || ends || renewed || runErr != nil {
		if err := o.run(ctx); err != nil {
			return err
		}
	}
	if o.lookBack() {
		if err := o.run(ctx); err != nil {
			return err
		}
	}
	return o.tidy(ctx, v)
}

const (
	lookEvery    = time.Minute     // a device that is in use does not look around again before
	lookPatience = 5 * time.Second // how long a person waits at most, after what they asked for is done, to hear whether there is something else
)

// lookAround has a device look, at the end of whatever else it did, for what it would else learn from Sync only: readers that replaced their keys, as after a theft,
// get the same granted again, and that all reading is stopped is heard of. What fails has not failed the operation: see Renewed. What was not given because another device decided
// otherwise is left to be told where it always is.
func (o *Owner) lookAround(ctx context.Context) {
	if o.now().Sub(o.looked).Abs() < lookEvery || o.state.Replacing != nil || o.state.Closed {
		return
	}
	o.looked = o.now()
	asking, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	v, err := o.vault(asking)
	if err != nil {
		return
	}
	if o.aside = untrue(o.learnFrozen(asking, v)); o.readersMoved(asking) {
		o.aside = errors.Join(o.aside, o.sync(ctx))
	}
	if o.unsaved {
		o.aside = errors.Join(o.aside, o.save())
	}
}

// untrue is err if it is that somebody made something up: what cannot be asked now is asked another time.
func untrue(err error) error {
	if errors.Is(err, ErrUntrue) || errors.Is(err, ErrFork) {
		return err
	}
	return nil
}

// endSuperseded puts into the queue the end of what newer grants took the place of, and reports whether there is something: the device that was to do it may be lost. What
// others write is left to who lets them.
func (o *Owner) endSuperseded() bool {
	stroke, before := policies.NewDocumentID(), len(o.state.Tasks)
	for _, t := range []task{{Kind: taskRevoke, Stroke: stroke, Reason: policies.ReasonSuperseded}, {Kind: taskEndWrite, Stroke: stroke, Reason: policies.ReasonSuperseded}} {
		waits := slices.ContainsFunc(o.state.Tasks, func(have task) bool { return have.Kind == t.Kind && have.Reason == t.Reason })
		due := t.Kind == taskEndWrite && len(o.endItems(&t)) > 0 ||
			t.Kind == taskRevoke && slices.ContainsFunc(o.selectItems(&t), func(i policies.RevokedItem) bool { return i.Author == o.author() })
		if due && !waits {
			o.state.Tasks = append(o.state.Tasks, t)
		}
	}
	return len(o.state.Tasks) > before
}

// tell passes on to the storefront the grants and revocations that it does not have: those that went over the second route, and those that it could not
// write down. Without them its chain has a gap. A storefront that still cannot write is told another time.
func (o *Owner) tell(ctx context.Context, v *policies.VaultDocument) error {
	for len(o.state.Untold) > 0 {
		e, err := envelope.Parse(o.state.Untold[0])
		if err != nil {
			return fmt.Errorf("%w: %w", ErrState, err)
		}
		in := &vaultapi.Submission{Envelope: e.Raw}
		var status int
		again := request{method: "POST", path: path(routeOf(e.Type), o.id.String()), in: in, login: true, status: &status}
		if e.Type == "succession" || e.Type == "succession-notice" || e.Type == "thaw" {
			again = request{method: "POST", path: path(api.PathSuccessions, o.id.String()), raw: e.Raw}
		}
		if err := o.post(ctx, v, again, e); err != nil {
			return fmt.Errorf("telling the storefront of a %s: %w", e.Type, err)
		}
		if status == http.StatusAccepted {
			return nil
		}
		o.state.Untold = slices.Delete(o.state.Untold, 0, 1)
		if err := o.save(); err != nil {
			return err
		}
	}
	return nil
}

// tidy compares the storefront's copy with this device's, and drops ciphertexts that nothing names any more.
func (o *Owner) tidy(ctx context.Context, v *policies.VaultDocument) error {
	m, err := o.fetchMirror(ctx)
	if err != nil {
		return err
	}
	var theirs uint64
	if m.Manifest != nil {
		if e, err := envelope.Parse(m.Manifest); err == nil {
			if d, err := policies.Decode[policies.Manifest](e); err == nil {
				theirs = d.Version
			}
		}
	}
	if theirs < o.state.Manifest.Version {
		if err := o.republish(ctx, v); err != nil {
			return err
		}
	}
	keep := map[policies.Hash]bool{}
	for _, s := range o.view() {
		keep[s.leaf.CiphertextHash] = true
		if _, err := o.ciphertext(ctx, &s.leaf); err != nil {
			return err
		}
	}
	for _, l := range o.leaves() {
		keep[l.CiphertextHash] = true
	}
	for i := range o.state.Written {
		for _, item := range o.state.Written[i].Items {
			if l, err := policies.ParseLeaf(item.Leaf); err == nil {
				keep[l.CiphertextHash] = true
			}
		}
	}
	if err := o.store.KeepItems(keep); err != nil {
		return err
	}
	return o.save()
}

func (o *Owner) fetchMirror(ctx context.Context) (*api.Mirror, error) {
	m := new(api.Mirror)
	err := o.wire.call(ctx, request{method: "GET", path: path(api.PathMirror, o.id.String()), query: url.Values{"author": {o.id.String()}}, out: m, login: true, limit: maxRead})
	if errors.Is(err, policies.CodeNotFound) || errors.Is(err, policies.CodeBehind) { // nothing was published, or it was lost
		return new(api.Mirror), nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetching the mirror: %w", err)
	}
	return m, nil
}

// mirrored reports whether the leaves are those of the newest manifest. They are not when another device's manifest was learnt of and its leaves
// could not be fetched.
func (o *Owner) mirrored() bool {
	m, err := o.newestManifest()
	if err != nil || m == nil {
		return err == nil
	}
	tree, err := policies.NewTree(o.leaves())
	return err == nil && tree.Size() == m.TreeSize && tree.Root() == m.Root
}

// syncMirror makes the leaves those of the newest manifest, and fetches the ciphertexts that are missing.
func (o *Owner) syncMirror(ctx context.Context) error {
	m, err := o.newestManifest()
	if err != nil || m == nil || o.mirrored() {
		return err
	}
	mirror, err := o.fetchMirror(ctx)
	if err != nil {
		return err
	}
	leaves := make([]policies.Leaf, len(mirror.Leaves))
	for i, raw := range mirror.Leaves {
		if leaves[i], err = policies.ParseLeaf(raw); err != nil {
			return fmt.Errorf("fetching the mirror: %w: %w", ErrUntrue, err)
		}
	}
	tree, err := policies.NewTree(leaves)
	if err != nil || tree.Size() != m.TreeSize || tree.Root() != m.Root {
		if o.published(mirror) > m.Version {
			return fmt.Errorf("%w: another device published (%w)", policies.CodeChain, errOvertaken)
		}
		return fmt.Errorf("fetching the mirror: %w: the leaves are not those of the newest manifest", ErrUntrue)
	}
	for i := range leaves {
		if leaves[i].Owner != o.ID() || leaves[i].Author != o.author() {
			return fmt.Errorf("fetching the mirror: %w: a leaf of somebody else", ErrUntrue)
		}
		if _, err := o.ciphertext(ctx, &leaves[i]); err != nil {
			return err
		}
	}
	o.setLeaves(tree)
	return nil
}

// published is the version of a mirror's manifest, if this owner signed it, else 0.
func (o *Owner) published(m *api.Mirror) uint64 {
	if m.Manifest == nil {
		return 0
	}
	e, err := envelope.Parse(m.Manifest)
	if err != nil {
		return 0
	}
	if link, err := linkOf(e); err != nil || o.line.Verify(e, link.Seq) != nil {
		return 0
	}
	return manifestVersion(e)
}

func manifestVersion(e *envelope.Envelope) uint64 {
	if e.Type != "manifest" {
		return 0
	}
	m, err := policies.Decode[policies.Manifest](e)
	if err != nil {
		return 0
	}
	return m.Version
}

// syncContacts pins readers that another device granted to: a grant, which only this owner can sign, names the reader and the hash of
// the relationship. What cannot be had now is tried again.
func (o *Owner) syncContacts(ctx context.Context) {
	for i := range o.state.Grants {
		g := &o.state.Grants[i].Doc
		if _, ok := o.contact(g.Reader); ok {
			continue
		}
		c, err := o.findRelationship(ctx, policies.IdentityID(g.Reader), func(hash policies.Hash, _ *policies.Relationship) bool { return hash == g.Relationship })
		if err == nil {
			o.putContact(c)
		}
	}
}
