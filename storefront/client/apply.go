package client

import (
	"fmt"
	"slices"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/writing"
)

// accepted takes a document that a verified receipt vouches for into the state, and ends the task it was made for.
func (o *Owner) accepted(e *envelope.Envelope) error {
	link, err := linkOf(e)
	if err != nil {
		return err
	}
	at := position{link.Seq, policies.Hash(e.Hash)}
	contiguous := o.state.Applied.Seq+1 == link.Seq && o.state.Applied.Hash == link.Prev
	hold := slices.IndexFunc(o.state.Tasks, func(t task) bool { return t.Hold && slices.Contains(t.Attempts, at.Hash) })
	var held policies.DocumentID // of whose cancelled grants nothing is in the chain, up to here
	if hold >= 0 && contiguous {
		held = o.state.Tasks[hold].Stroke
	}
	if err := o.apply(e); err != nil {
		return err
	}
	if contiguous {
		o.state.Applied = at
	}
	if at.Seq > o.state.Known.Seq {
		o.state.Known = at
	}
	// A cancelled grant that was signed for the place this document has taken can never be accepted.
	for i := 0; i < len(o.state.Tasks); i++ {
		t := o.state.Tasks[i]
		if !t.Cancelled {
			continue
		}
		lost := t.Envelope == nil && t.Stroke == held
		if attempt, err := envelope.Parse(t.Envelope); t.Envelope != nil && err == nil {
			place, err := linkOf(attempt)
			lost = err == nil && place.Prev == link.Prev && policies.Hash(attempt.Hash) != at.Hash
		}
		if lost {
			rest := t.rest()
			o.state.Tasks = slices.Replace(o.state.Tasks, i, i+1, rest...)
			i += len(rest) - 1
		}
	}
	return nil
}

func linkOf(e *envelope.Envelope) (policies.Link, error) {
	switch e.Type {
	case "manifest":
		d, err := policies.Decode[policies.Manifest](e)
		if err != nil {
			return policies.Link{}, err
		}
		return d.Link, nil
	case "grant":
		d, err := policies.Decode[policies.Grant](e)
		if err != nil {
			return policies.Link{}, err
		}
		return d.Link, nil
	case "revocation":
		d, err := policies.Decode[policies.Revocation](e)
		if err != nil {
			return policies.Link{}, err
		}
		return d.Link, nil
	case "closure":
		d, err := policies.Decode[policies.Closure](e)
		if err != nil {
			return policies.Link{}, err
		}
		return d.Link, nil
	case "write-grant":
		d, err := policies.Decode[writing.Grant](e)
		if err != nil {
			return policies.Link{}, err
		}
		return d.Link, nil
	case "write-end":
		d, err := policies.Decode[writing.End](e)
		if err != nil {
			return policies.Link{}, err
		}
		return d.Link, nil
	case "succession", "succession-notice", "suspension", "thaw":
		return successionLink(e)
	}
	return policies.Link{}, fmt.Errorf("%w: a %s is no link of an owner's chain", ErrUntrue, e.Type)
}

// apply takes over what a document says. Doing it twice changes nothing.
func (o *Owner) apply(e *envelope.Envelope) error {
	hash := policies.Hash(e.Hash)
	done := slices.IndexFunc(o.state.Tasks, func(t task) bool { return slices.Contains(t.Attempts, hash) })
	switch e.Type {
	case "manifest":
		m, err := policies.Decode[policies.Manifest](e)
		if err != nil {
			return err
		}
		if m.Version <= o.state.Manifest.Version {
			break
		}
		o.state.Manifest = manifestState{Version: m.Version, Hash: hash, Raw: e.Raw}
		if done >= 0 {
			o.adoptChanges(&o.state.Tasks[done], m)
		}
	case "grant":
		g, err := policies.Decode[policies.Grant](e)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(o.state.Grants, func(have ownedGrant) bool { return have.Hash == hash }) {
			if done < 0 {
				o.heedGrant(g)
			}
			o.state.Grants = append(o.state.Grants, ownedGrant{Hash: hash, Doc: *g})
			for i := range g.Fields {
				if f := &g.Fields[i]; f.Author == o.author() {
					o.raiseEpoch(f.Field, f.Epoch)
				}
			}
		}
	case "revocation":
		r, err := policies.Decode[policies.Revocation](e)
		if err != nil {
			return err
		}
		if done < 0 {
			o.heedRevocation(r)
		}
		for _, item := range r.Items {
			for i := range o.state.Grants {
				g := &o.state.Grants[i]
				f, ok := g.Doc.Field(item.Field, item.Author)
				if g.Doc.ID != item.Grant || !ok {
					continue
				}
				switch at := slices.Index(g.Gone, item); {
				case at >= 0: // the closing was heard of first, and it was revoked all the same
					g.Gone = slices.Delete(g.Gone, at, at+1)
				case !g.live(f):
					continue
				default:
					g.Ended = append(g.Ended, item)
				}
				if r.Reason == policies.ReasonWithdrawn {
					o.raiseEpoch(f.Field, f.Epoch+1)
				}
			}
		}
	case "write-grant", "write-end":
		if err := o.applyWriting(e, done >= 0); err != nil {
			return err
		}
	case "thaw":
		if err := o.applyThaw(e); err != nil {
			return err
		}
	}
	if done < 0 {
		return o.applySuccession(e)
	}
	t := o.state.Tasks[done]
	switch {
	case t.Kind == taskSucceed || t.Kind == taskNotice:
		o.state.Tasks = slices.Delete(o.state.Tasks, done, done+1)
		return o.applySuccession(e)
	case t.Cancelled && t.Kind == taskWrite:
		o.state.Tasks[done] = task{Kind: taskEndWrite, Stroke: t.Stroke, Reader: t.Reader, Fields: t.stopped(), Reason: policies.ReasonWithdrawn}
	case t.Cancelled:
		o.state.Tasks[done] = task{Kind: taskRevoke, Stroke: t.Stroke, Reader: t.Reader, Fields: t.stopped(), Reason: policies.ReasonWithdrawn}
	case t.Kind == taskRevoke && len(o.selectItems(&t)) > 0, t.Kind == taskEndWrite && len(o.endItems(&t)) > 0: // more than one document holds
		o.state.Tasks[done].Envelope = nil
	default:
		o.state.Tasks = slices.Delete(o.state.Tasks, done, done+1)
	}
	return nil
}

// adoptChanges computes the leaves that a manifest of this device commits to. If they do not give its root (it is an earlier
// attempt than the one remembered), the leaves stay, and syncMirror fetches them, seeing that they are not the manifest's.
func (o *Owner) adoptChanges(t *task, m *policies.Manifest) {
	current := map[policies.Field]policies.Leaf{}
	for _, l := range o.leaves() {
		current[l.Field] = l
	}
	for _, f := range t.Remove {
		delete(current, f)
	}
	for _, raw := range t.Changed {
		if l, err := policies.ParseLeaf(raw); err == nil {
			current[l.Field] = l
		}
	}
	leaves := make([]policies.Leaf, 0, len(current))
	for _, l := range current {
		leaves = append(leaves, l)
	}
	if tree, err := policies.NewTree(leaves); err == nil && tree.Size() == m.TreeSize && tree.Root() == m.Root {
		o.setLeaves(tree)
	}
}

func (o *Owner) setLeaves(tree *policies.Tree) {
	o.state.Leaves = nil
	for _, l := range tree.Leaves() {
		o.state.Leaves = append(o.state.Leaves, l.Bytes())
		o.raiseEpoch(l.Field, l.Epoch)
	}
}

func (o *Owner) raiseEpoch(f policies.Field, epoch uint64) {
	for i := range o.state.Epochs {
		if e := &o.state.Epochs[i]; e.Field == f {
			e.Epoch = max(e.Epoch, epoch)
			return
		}
	}
	o.state.Epochs = append(o.state.Epochs, epochFloor{f, epoch})
}
