package client

import (
	"fmt"
	"maps"
	"slices"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

func (o *Owner) nextLink() policies.Link {
	return policies.Link{Seq: o.state.Known.Seq + 1, Prev: o.state.Known.Hash}
}

// build makes the document of a task on top of the chain as it is known, or nil if there is nothing left to do.
func (o *Owner) build(t *task, v *policies.VaultDocument) (*envelope.Envelope, []vaultapi.SealedKey, error) {
	switch t.Kind {
	case taskPublish:
		e, err := o.buildManifest(t, v)
		return e, nil, err
	case taskGrant:
		if t.NextEpoch && !o.toCarry(t) {
			return nil, nil, nil
		}
		if !t.Renews.IsZero() {
			if t.Fields = o.toRenew(t); len(t.Fields) == 0 {
				return nil, nil, nil
			}
		}
		return o.buildGrant(t, v, o.nextLink())
	case taskRevoke:
		items := o.selectItems(t)
		if len(items) == 0 {
			return nil, nil, nil
		}
		e, err := policies.Sign(o.signing, &policies.Revocation{
			Header: policies.NewHeader("revocation", o.decided(t)), Audience: v.Vault, Owner: o.ID(), Link: o.nextLink(), Items: items, Reason: t.Reason,
		})
		return e, nil, err
	case taskWrite:
		e, err := o.buildWriteGrant(t, v)
		return e, nil, err
	case taskEndWrite:
		e, err := o.buildWriteEnd(t, v)
		return e, nil, err
	case taskSucceed:
		e, err := o.buildSuccession(v)
		return e, nil, err
	case taskThaw:
		e, err := o.buildThaw(t, v)
		return e, nil, err
	case taskNotice:
		e, err := o.buildNotice(t, v)
		return e, nil, err
	}
	return nil, nil, fmt.Errorf("%w: a task of kind %q", ErrState, t.Kind)
}

// endsOf are the writers whom the end of write grants, or of keys to what others write, concerns.
func (o *Owner) endsOf(t *task) (out []policies.AuthorID) {
	if t.Kind == taskEndWrite {
		return slices.Collect(maps.Keys(o.endItems(t)))
	}
	for _, item := range o.selectItems(t) {
		if item.Author != o.author() && !slices.Contains(out, item.Author) {
			out = append(out, item.Author)
		}
	}
	return out
}

// selectItems lists what a revocation is to end: what a reader has, or what newer grants to the same readers took the place of.
func (o *Owner) selectItems(t *task) []policies.RevokedItem {
	type key struct {
		reader policies.ReaderID
		field  policies.Field
		author policies.AuthorID
		epoch  uint64 // of what others write: an item of theirs stays in its epoch until they write again
	}
	newest := map[key]uint64{}
	each := func(visit func(*ownedGrant, *policies.GrantedField, key)) {
		for i := range o.state.Grants {
			g := &o.state.Grants[i]
			for j := range g.Doc.Fields {
				if f := &g.Doc.Fields[j]; g.live(f) {
					k := key{g.Doc.Reader, f.Field, f.Author, 0}
					if f.Author != o.author() {
						k.epoch = f.Epoch
					}
					visit(g, f, k)
				}
			}
		}
	}
	// A grant for an epoch that has not begun, and may never begin, takes no place.
	epochs := map[policies.Field]uint64{}
	for _, l := range o.leaves() {
		epochs[l.Field] = l.Epoch
	}
	each(func(g *ownedGrant, f *policies.GrantedField, k key) {
		if epoch, ok := epochs[f.Field]; !ok || f.Epoch <= epoch || k.epoch != 0 {
			newest[k] = max(newest[k], g.Doc.Seq)
		}
	})
	var out []policies.RevokedItem
	each(func(g *ownedGrant, f *policies.GrantedField, k key) {
		var ends bool
		if t.Reason == policies.ReasonSuperseded {
			ends = g.Doc.Seq < newest[k]
			if s := (slotOf{f.Field, f.Epoch, f.Author}); k.epoch != 0 && !slices.Contains(o.writeSlots(f.Field), s) && !o.awaited(s) {
				ends = true
			}
		} else {
			ends = g.Doc.Reader == t.Reader && (len(t.Fields) == 0 || slices.Contains(t.Fields, f.Field)) && t.means(g.Doc.Purpose, g.Doc.Expires)
		}
		if ends && !slices.Contains(t.unsure, f.Author) && len(out) < policies.MaxRevokedItems {
			out = append(out, policies.RevokedItem{Grant: g.Doc.ID, Field: f.Field, Author: f.Author})
		}
	})
	return out
}

// buildManifest makes the next manifest. Values that were sealed for another version are sealed again: a version number never
// stands for two values.
func (o *Owner) buildManifest(t *task, v *policies.VaultDocument) (*envelope.Envelope, error) {
	version := o.state.Manifest.Version + 1
	current := map[policies.Field]policies.Leaf{}
	for _, l := range o.leaves() {
		current[l.Field] = l
	}
	touched := t.Hold
	t.Changed = nil
	for _, f := range t.Remove {
		if _, ok := current[f]; ok {
			delete(current, f)
			touched = true
		}
	}
	for i, raw := range t.Set {
		l, err := policies.ParseLeaf(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrState, err)
		}
		slot := l.Slot
		have, ok := current[l.Field]
		if t.Anew && (!ok || have.Version >= l.Version) {
			continue
		}
		if ok {
			slot.Epoch = have.Epoch
		} else {
			slot.Epoch = o.firstEpoch(l.Field)
		}
		if l.Version != version || l.Slot != slot {
			if l, err = o.reseal(&l, slot, version); err != nil {
				return nil, err
			}
			t.Set[i] = l.Bytes()
		}
		current[l.Field], touched = l, true
		t.Changed = append(t.Changed, l.Bytes())
	}
	for _, f := range t.Rotate {
		l, ok := current[f]
		if !ok {
			continue
		}
		rotated, err := o.rotateLeaf(&l)
		if err != nil {
			return nil, err
		}
		current[f], touched = rotated, true
		t.Changed = append(t.Changed, rotated.Bytes())
	}
	if !touched {
		return nil, nil
	}
	leaves := make([]policies.Leaf, 0, len(current))
	for _, l := range current {
		leaves = append(leaves, l)
	}
	tree, err := policies.NewTree(leaves)
	if err != nil {
		return nil, err
	}
	return policies.Sign(o.signing, &policies.Manifest{
		Header: policies.NewHeader("manifest", o.now()), Audience: v.Vault, Owner: o.ID(), Author: o.author(), Link: o.nextLink(),
		Version: version, PrevManifest: o.state.Manifest.Hash, TreeSize: tree.Size(), Root: tree.Root(),
	})
}

// reseal moves a staged value to another slot and version. Its ciphertext is in the mirror.
func (o *Owner) reseal(l *policies.Leaf, slot policies.Slot, version uint64) (policies.Leaf, error) {
	ciphertext, err := o.store.Item(l.CiphertextHash)
	if err != nil {
		return policies.Leaf{}, err
	}
	key, err := o.keyOf(l)
	if err != nil {
		return policies.Leaf{}, err
	}
	defer key.Zero()
	value, err := key.Open(l, ciphertext)
	if err != nil {
		return policies.Leaf{}, err
	}
	defer clear(value)
	sealed, ciphertext, err := o.seal(slot, version, value)
	if err != nil {
		return policies.Leaf{}, err
	}
	return sealed, o.store.PutItem(sealed.CiphertextHash, ciphertext)
}

func (o *Owner) rotateLeaf(l *policies.Leaf) (policies.Leaf, error) {
	if rotated, ok := o.ahead.rotated[l.Hash()]; ok {
		return rotated, nil
	}
	key, err := o.keyOf(l)
	if err != nil {
		return policies.Leaf{}, err
	}
	defer key.Zero()
	slot := l.Slot
	slot.Epoch++
	next, err := o.root.FieldKey(slot)
	if err != nil {
		return policies.Leaf{}, err
	}
	defer next.Zero()
	rotated, err := key.Rotate(next, l, nil)
	o.isUnder(&rotated, o.root)
	return rotated, err
}
