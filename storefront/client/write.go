package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/writing"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// writingFor is what this reader has written for one owner: where its own manifests stand, and a wish that is on its way. The wish is stored with its values, so that a
// process that is killed at any line loses nothing, and the document that was sent, so that it is sent again and not made twice.
type writingFor struct {
	Owner    policies.OwnerID `json:"owner"`
	Manifest manifestState    `json:"manifest,omitzero"`
	Items    []api.Item       `json:"items,omitzero"` // of the manifest, in tree order; ciphertexts of what this machine wrote, for a storefront that loses them
	Wish     []wishedValue    `json:"wish,omitzero"`
	Envelope jsontext.Value   `json:"envelope,omitzero"` // made for the wish, of unknown outcome
	Set      []api.Item       `json:"set,omitzero"`      // what it sets
}

type wishedValue struct {
	Field policies.Field `json:"field"`
	Value []byte         `json:"value"`
}

// Writable is one field that an owner lets this reader write.
type Writable struct {
	Owner   policies.OwnerID `json:"owner"`
	Field   policies.Field   `json:"field"`
	Purpose string           `json:"purpose"`
	Expires time.Time        `json:"expires"`
}

// Writable asks the storefront what owners let this reader write now, and verifies it. What the storefront holds back is missing.
func (r *Reader) Writable(ctx context.Context) ([]Writable, error) {
	if err := r.ready(ctx); err != nil {
		return nil, err
	}
	grants, _, err := r.fetchWriteGrants(ctx, policies.OwnerID{})
	if err != nil {
		return nil, err
	}
	out := []Writable{}
	for i := range grants {
		g := &grants[i]
		for _, f := range g.Fields {
			if now := r.now().Unix(); slices.Contains(g.ended, f.Field) || now < g.NotBefore || now >= g.Expires {
				continue
			}
			w := Writable{g.Owner, f.Field, g.Purpose, time.Unix(g.Expires, 0).UTC()}
			if at := slices.IndexFunc(out, func(o Writable) bool { return o.Owner == w.Owner && o.Field == w.Field }); at >= 0 {
				out[at] = w // of two the newer
				continue
			}
			out = append(out, w)
		}
	}
	return out, nil
}

// heldWriteGrant is a write grant to this reader.
type heldWriteGrant struct {
	writing.Grant
	ended []policies.Field
}

// fetchWriteGrants pages through the write grants of one owner, or of all, to this reader, in the order of each owner's chain. Kept are the leaves that may be read on
// though what they were written under has ended, as the storefront says.
func (r *Reader) fetchWriteGrants(ctx context.Context, owner policies.OwnerID) (out []heldWriteGrant, kept []policies.Hash, err error) {
	fail := func(err error) ([]heldWriteGrant, []policies.Hash, error) {
		return nil, nil, fmt.Errorf("fetching write grants: %w", err)
	}
	for after := ""; ; {
		q := url.Values{}
		if after != "" {
			q.Set("after", after)
		}
		if !owner.IsZero() {
			q.Set("owner", owner.String())
		}
		var page api.WriterGrants
		if err := r.wire.call(ctx, request{method: "GET", path: api.PathWriterGrants, query: q, out: &page, login: true}); err != nil {
			return fail(err)
		}
		for _, one := range page.Grants {
			e, err := envelope.Parse(one.Grant)
			if err != nil {
				return fail(fmt.Errorf("%w: %w", ErrUntrue, err))
			}
			claim, err := policies.Decode[writing.Grant](e)
			if err != nil {
				return fail(fmt.Errorf("%w: %w", ErrUntrue, err))
			}
			r.mu.Lock()
			_, met := r.book.Get(claim.Owner)
			r.mu.Unlock()
			if !met || !owner.IsZero() && claim.Owner != owner {
				continue
			}
			if err := r.verifyOwner(ctx, claim.Owner, e, claim.Seq); err != nil {
				return fail(distrust(err))
			}
			g := claim
			if g.Writer != policies.AuthorID(r.id) || g.Audience != r.state.Network.Vault {
				return fail(fmt.Errorf("%w: a write grant to somebody else, or for another vault", ErrUntrue))
			}
			out = append(out, heldWriteGrant{*g, one.Ended})
		}
		kept = append(kept, page.Kept...)
		if page.After == "" || page.After == after {
			return out, kept, nil
		}
		if len(page.Grants)+len(page.Kept) == 0 || len(out)+len(kept) > maxOffered {
			return fail(fmt.Errorf("%w: its pages have no end", ErrUntrue))
		}
		after = page.After
	}
}

// Write publishes values of an owner's fields that the owner lets this reader write, in one manifest of this reader's own. It needs the owner neither online nor to have
// a value of them. Whoever may read a field reads it, newest first by the vault's order, and sees who wrote it; this reader itself only if it was granted that too.
//
// What could not be sent, or whose outcome is unknown, is kept: the same call again, or any other Write for the owner, finishes it first. An error that wraps
// [policies.CodeNoWriteGrant], [policies.CodeWriteEnded] or [policies.CodeNotYet] is final.
func (r *Reader) Write(ctx context.Context, owner policies.OwnerID, changes ...Change) error {
	r.writeMu.Lock()
	defer r.writeMu.Unlock()
	if err := r.ready(ctx); err != nil {
		return err
	}
	size := 0
	for i, c := range changes {
		if err := c.Field.Validate(); err != nil {
			return err
		}
		if len(c.Value) > policies.MaxValue {
			return fmt.Errorf("%w: %s: a value has at most %d bytes", policies.CodeTooLarge, c.Field, policies.MaxValue)
		}
		if size += pre.CiphertextSize(len(c.Value)); size > maxPublication {
			return fmt.Errorf("%w: at most %d bytes at once", policies.CodeTooLarge, maxPublication)
		}
		if slices.ContainsFunc(changes[:i], func(other Change) bool { return other.Field == c.Field }) {
			return fmt.Errorf("%w: %s is set twice", policies.ErrMalformed, c.Field)
		}
	}
	r.mu.Lock()
	_, met := r.book.Get(owner)
	r.mu.Unlock()
	if !met {
		return ErrNoContact
	}
	w := r.writingFor(owner)
	if len(w.Wish) > 0 {
		same := w.wishes(changes)
		if err := r.carryOut(ctx, w); err != nil && (same || !final(err)) {
			return fmt.Errorf("finishing what was begun before: %w", err)
		}
		if same {
			return nil
		}
	}
	if len(changes) == 0 {
		return nil
	}
	for _, c := range changes {
		w.Wish = append(w.Wish, wishedValue{c.Field, slices.Clone(c.Value)})
	}
	if err := r.save(); err != nil {
		return err
	}
	return r.carryOut(ctx, w)
}

// final reports whether a writer is refused for good.
func final(err error) bool {
	for _, code := range []policies.Code{policies.CodeNoWriteGrant, policies.CodeWriteEnded, policies.CodeNotYet} {
		if errors.Is(err, code) {
			return true
		}
	}
	return refused(err)
}

func (r *Reader) writingFor(owner policies.OwnerID) *writingFor {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.state.Writing {
		if w.Owner == owner {
			return w
		}
	}
	w := &writingFor{Owner: owner}
	r.state.Writing = append(r.state.Writing, w)
	return w
}

// wishes reports whether changes are what is on its way.
func (w *writingFor) wishes(changes []Change) bool {
	return slices.EqualFunc(w.Wish, changes, func(a wishedValue, b Change) bool { return a.Field == b.Field && bytes.Equal(a.Value, b.Value) })
}

func (w *writingFor) done() {
	for i := range w.Wish {
		clear(w.Wish[i].Value)
	}
	w.Wish, w.Envelope, w.Set = nil, nil, nil
}

// carryOut publishes what is wished. A document whose outcome is unknown is sent again as it is; one that another machine of this reader's came before is made anew.
func (r *Reader) carryOut(ctx context.Context, w *writingFor) error {
	v, err := r.vault(ctx)
	if err != nil {
		return err
	}
	whole := false // send all leaves: the storefront lost some
	first := "other machines, or the storefront, keep coming first"
	for range 5 {
		if w.Envelope == nil {
			if err := r.buildWriting(ctx, w, v); err != nil {
				if final(err) {
					w.done()
					return errors.Join(err, r.save())
				}
				return err
			}
			// Killed after this line, the document is sent again: the vault knows it by its hash.
			if err := r.save(); err != nil {
				return err
			}
		}
		e, err := envelope.Parse(w.Envelope)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrState, err)
		}
		p := api.Publication{Manifest: w.Envelope, Items: w.Set}
		if whole {
			if p.Items, err = w.merged(); err != nil {
				return err
			}
		}
		receipt := new(evidence.Receipt)
		err = r.wire.call(ctx, request{method: "POST", path: path(api.PathManifests, w.Owner.String()), in: &p, out: receipt, login: true})
		if err == nil {
			err = r.receipt(ctx, v, receipt, e.Hash, evidence.EntryManifest)
		}
		switch {
		case err == nil:
			if err := w.accepted(e); err != nil {
				return err
			}
			if again, err := r.movedOn(ctx, w, v); err != nil || !again {
				return errors.Join(err, r.save())
			}
			first = "the field moves to new keys all the time"
		case errors.Is(err, policies.CodeChain):
			if err := r.fetchWriting(ctx, w, v); err != nil {
				return err
			}
			if w.Manifest.Hash != policies.Hash(e.Hash) {
				w.Envelope, w.Set = nil, nil
			} else if again, err := r.movedOn(ctx, w, v); err != nil || !again { // it was accepted after all
				return errors.Join(err, r.save())
			}
		case errors.Is(err, policies.CodeBehind) && !whole:
			whole = true // of an item that another machine wrote this one has no ciphertext: if that is lost it must be written again
		case final(err):
			w.done()
			return errors.Join(err, r.save())
		default:
			return err
		}
	}
	return fmt.Errorf("%w: %s", policies.CodeChain, first)
}

// movedOn ends a wish that is published, but for what does not count: whose field had moved to newer keys before the vault accepted it, and which no end kept. That is to be
// written again. What is accepted before the older permission ends is kept (writing.CheckEnd). It may be asked long after, by a process that was killed: what another
// machine of this reader's wrote since stays.
func (r *Reader) movedOn(ctx context.Context, w *writingFor, v *policies.VaultDocument) (bool, error) {
	grants, kept, err := r.fetchWriteGrants(ctx, w.Owner)
	if err != nil {
		return false, fmt.Errorf("it is published, and whether it counts could not be asked: %w", err)
	}
	lost := map[policies.Field]string{}
	for _, item := range w.Set {
		l, err := policies.ParseLeaf(item.Leaf)
		if err != nil {
			return false, fmt.Errorf("%w: %w", ErrState, err)
		}
		stands := slices.Contains(kept, l.Hash()) || slices.ContainsFunc(grants, func(g heldWriteGrant) bool {
			epoch, ok := g.Epoch(l.Field)
			return ok && epoch == l.Epoch && !slices.Contains(g.ended, l.Field)
		})
		if _, epoch, err := r.mayWrite(grants, l.Field); err == nil && epoch > l.Epoch && !stands {
			lost[l.Field] = string(item.Leaf)
		}
	}
	if len(lost) > 0 {
		if err := r.fetchWriting(ctx, w, v); err != nil {
			return false, err
		}
		maps.DeleteFunc(lost, func(_ policies.Field, leaf string) bool {
			return !slices.ContainsFunc(w.Items, func(item api.Item) bool { return string(item.Leaf) == leaf })
		})
	}
	if len(lost) == 0 {
		w.done()
		return false, nil
	}
	w.Wish = slices.DeleteFunc(w.Wish, func(wish wishedValue) bool {
		_, again := lost[wish.Field]
		if !again {
			clear(wish.Value)
		}
		return !again
	})
	w.Envelope, w.Set = nil, nil
	return true, nil
}

// merged is the items with what is set on top, in tree order.
func (w *writingFor) merged() ([]api.Item, error) {
	current := map[policies.Field]api.Item{}
	for _, item := range slices.Concat(w.Items, w.Set) {
		l, err := policies.ParseLeaf(item.Leaf)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrState, err)
		}
		current[l.Field] = item
	}
	out := make([]api.Item, 0, len(current))
	for _, f := range slices.Sorted(maps.Keys(current)) {
		out = append(out, current[f])
	}
	return out, nil
}

// tree is that of the merged items.
func (w *writingFor) tree() (*policies.Tree, error) {
	items, err := w.merged()
	if err != nil {
		return nil, err
	}
	leaves := make([]policies.Leaf, len(items))
	for i := range items {
		if leaves[i], err = policies.ParseLeaf(items[i].Leaf); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrState, err)
		}
	}
	return policies.NewTree(leaves)
}

// accepted takes over a manifest of this reader's that a verified receipt vouches for.
func (w *writingFor) accepted(e *envelope.Envelope) error {
	m, err := policies.Decode[policies.Manifest](e)
	if err != nil {
		return err
	}
	items, err := w.merged()
	if err != nil {
		return err
	}
	w.Manifest, w.Items = manifestState{Version: m.Version, Hash: e.Hash, Raw: e.Raw}, items
	return nil
}

// buildWriting seals the wish under the points of the newest write grants and signs the next manifest over it.
func (r *Reader) buildWriting(ctx context.Context, w *writingFor, v *policies.VaultDocument) error {
	grants, _, err := r.fetchWriteGrants(ctx, w.Owner)
	if err != nil {
		return err
	}
	kem := pre.NewBlobKey(r.root.KEMSeed())
	defer kem.Zero()
	version := w.Manifest.Version + 1
	w.Set = nil
	for _, wish := range w.Wish {
		key, err := r.authorKey(kem, grants, wish.Field)
		if err != nil {
			return fmt.Errorf("%s: %w", wish.Field, err)
		}
		leaf, ciphertext, err := key.Seal(version, wish.Value, nil)
		key.Zero()
		if err != nil {
			return fmt.Errorf("%s: %w", wish.Field, err)
		}
		w.Set = append(w.Set, api.Item{Leaf: leaf.Bytes(), Ciphertext: ciphertext})
	}
	tree, err := w.tree()
	if err != nil {
		return err
	}
	e, err := policies.Sign(r.signing, &policies.Manifest{
		Header: policies.NewHeader("manifest", r.now()), Audience: v.Vault, Owner: w.Owner, Author: policies.AuthorID(r.id),
		Link: policies.Link{Seq: version, Prev: w.Manifest.Hash}, Version: version, PrevManifest: w.Manifest.Hash, TreeSize: tree.Size(), Root: tree.Root(),
	})
	if err != nil {
		return err
	}
	w.Envelope = e.Raw
	return nil
}

// mayWrite finds the newest write grant by which a field may be written, and the epoch to write in.
func (r *Reader) mayWrite(grants []heldWriteGrant, f policies.Field) (*heldWriteGrant, uint64, error) {
	code := policies.CodeNoWriteGrant
	for i := range slices.Backward(grants) {
		g := &grants[i]
		epoch, ok := g.Epoch(f)
		if !ok {
			continue
		}
		// The vault judges by its clock. By this one, what is clearly over is not tried.
		if slices.Contains(g.ended, f) || r.now().Unix() >= g.Expires {
			if code == policies.CodeNoWriteGrant { // a newer one takes its place
				code = policies.CodeWriteEnded
			}
			continue
		}
		if r.now().Unix() < g.NotBefore { // the vault would take it with what else the manifest says, and it would never count
			code = policies.CodeNotYet
			continue
		}
		return g, epoch, nil
	}
	return nil, 0, code
}

// authorKey opens the point of a field from the newest write grant that is in force.
func (r *Reader) authorKey(kem *pre.BlobKey, grants []heldWriteGrant, f policies.Field) (*pre.AuthorKey, error) {
	g, epoch, err := r.mayWrite(grants, f)
	if err != nil {
		return nil, err
	}
	points, err := kem.Open(g.Info(), g.Sealed)
	if err != nil || len(points) != 33*len(g.Fields) {
		return nil, fmt.Errorf("%w: the write grant does not open", ErrUntrue)
	}
	defer clear(points)
	at := slices.IndexFunc(g.Fields, func(w writing.Field) bool { return w.Field == f })
	return pre.ParseAuthorKey(policies.Slot{Owner: g.Owner, Field: f, Epoch: epoch, Author: g.Writer}, points[33*at:33*at+33])
}

// fetchWriting takes over this reader's newest manifest for an owner, which another machine of it may have made: signed by this very identity, accepted by the vault, and no older
// than what is known.
func (r *Reader) fetchWriting(ctx context.Context, w *writingFor, v *policies.VaultDocument) error {
	fail := func(err error) error { return fmt.Errorf("fetching what was written: %w", err) }
	mirror := new(api.Mirror)
	err := r.wire.call(ctx, request{method: "GET", path: path(api.PathMirror, w.Owner.String()), query: url.Values{"author": {r.id.String()}}, out: mirror, login: true, limit: maxRead})
	if err != nil {
		return fail(err)
	}
	if mirror.Manifest == nil || mirror.Receipt == nil {
		return fail(fmt.Errorf("%w: it shows no manifest, and says that there is a newer one", ErrUntrue))
	}
	e, err := envelope.Parse(mirror.Manifest)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrUntrue, err))
	}
	m, err := policies.Decode[policies.Manifest](e)
	if err != nil || r.line.Verify(e, 0) != nil || m.Owner != w.Owner || m.Author != policies.AuthorID(r.id) || m.Version < w.Manifest.Version {
		return fail(fmt.Errorf("%w: it is no newer manifest of this reader for this owner", ErrUntrue))
	}
	if err := r.receipt(ctx, v, mirror.Receipt, e.Hash, evidence.EntryManifest); err != nil {
		return fail(err)
	}
	leaves := make([]policies.Leaf, len(mirror.Leaves))
	for i, raw := range mirror.Leaves {
		if leaves[i], err = policies.ParseLeaf(raw); err != nil {
			return fail(fmt.Errorf("%w: %w", ErrUntrue, err))
		}
	}
	tree, err := policies.NewTree(leaves)
	if err != nil || tree.Size() != m.TreeSize || tree.Root() != m.Root {
		return fail(fmt.Errorf("%w: the leaves are not those of the manifest", ErrUntrue))
	}
	had := slices.Concat(w.Items, w.Set)
	w.Manifest, w.Items = manifestState{Version: m.Version, Hash: e.Hash, Raw: e.Raw}, nil
	for _, l := range tree.Leaves() {
		item := api.Item{Leaf: l.Bytes()}
		for _, mine := range had {
			if bytes.Equal(mine.Leaf, item.Leaf) {
				item.Ciphertext = mine.Ciphertext
			}
		}
		w.Items = append(w.Items, item)
	}
	return r.save()
}
