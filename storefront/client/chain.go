package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/writing"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// routeTimeout is how long one route may take before another is tried.
const routeTimeout = 5 * time.Second

// Kinds of tasks.
const (
	taskPublish = "publish"
	taskGrant   = "grant"
	taskRevoke  = "revoke"
	taskRotate  = "rotate" // becomes the tasks of a rotation when its turn comes

	taskWrite    = "write"     // a write grant
	taskEndWrite = "end-write" // ends write grants
	taskFollow   = "follow"    // becomes what readers and writers of fields need when its turn comes; with a reader, to make it a writer
	taskNotice   = "succession-notice"
	taskSucceed  = "succession"
	taskMove     = "move"   // becomes the rotation of what is under the keys of the root before
	taskReseal   = "reseal" // becomes publications of the same values, sealed anew
	taskThaw     = "thaw"
	taskForget   = "forget" // ends a replacement: the root before is forgotten
)

// task is something that the owner wants, and how far it has got. It is stored before anything is sent. What is stored is the
// wish; the document is made from it when its turn comes, and made again if another device's document took its place.
//
// The wrapped keys of a grant are not stored, here or anywhere: a grant whose outcome is unknown is asked after with its document
// alone, which the vault recognises if it accepted it, and made anew with a fresh secret if not.
type task struct {
	Kind   string              `json:"kind"`
	Stroke policies.DocumentID `json:"stroke"` // tasks of one operation; if one is refused for good, the rest of it is dropped
	// Attempts are the hashes of the documents made for this task. Any of them may turn up in the chain.
	Attempts []policies.Hash `json:"attempts,omitzero"`
	Envelope jsontext.Value  `json:"envelope,omitzero"` // the newest attempt, if its outcome is unknown

	Set     [][]byte         `json:"set,omitzero"` // publish: leaves of new values; their ciphertext is in the mirror
	Remove  []policies.Field `json:"remove,omitzero"`
	Rotate  []policies.Field `json:"rotate,omitzero"`
	Changed [][]byte         `json:"changed,omitzero"` // leaves as the newest attempt has them
	Anew    bool             `json:"anew,omitzero"`    // of values that are only sealed anew: what was set or removed since stays so
	Hold    bool             `json:"hold,omitzero"`    // a manifest that changes nothing, to take a place in the chain

	Reader    policies.ReaderID   `json:"reader,omitzero"` // grant, revoke
	Fields    []policies.Field    `json:"fields,omitzero"`
	Terms     terms               `json:"terms,omitzero"`  // of a grant; of a revocation or the end of writing: what was given for this purpose until then, and nothing else
	Slots     []slotOf            `json:"slots,omitzero"`  // of a grant that is for these and no others
	Renews    policies.Hash       `json:"renews,omitzero"` // the grant, or write grant, that is granted anew to newer keys or in a newer epoch: only what it still gives when the turn comes
	to        *policies.Identity  // whom a write grant is sealed to: with the keys in force when it is made
	unsure    []policies.AuthorID // of the end of what newer grants took the place of: writers of whom it could not be learnt what they wrote last
	NextEpoch bool                `json:"next_epoch,omitzero"` // grant for the epoch that the publication behind it begins
	Cancelled bool                `json:"cancelled,omitzero"`  // grant or write: revoked before its outcome was known
	Stop      []policies.Field    `json:"stop,omitzero"`       // of a cancelled grant: what was revoked; empty: all of it

	Reason policies.Reason `json:"reason,omitzero"` // revoke
	Blind  bool            `json:"blind,omitzero"`  // revoke or end-write, when the chain was read: another device may have granted what this one has not seen
	Turn   bool            `json:"turn,omitzero"`   // of a blind one: rotate what it ends

	Wished int64            `json:"wished,omitzero"` // when the person asked for it, Unix seconds by this device's clock: the time of the document. Zero: they did not
	Later  []policies.Field `json:"later,omitzero"`  // of it: what another device decided later

	TakeBack bool          `json:"take_back,omitzero"` // notice: what was announced is taken back
	Notice   policies.Hash `json:"notice,omitzero"`    // the one that is taken back; none: this device's own, which is not known to be in force
}

// stopped are the fields of a cancelled grant, or write grant, that were revoked.
func (t *task) stopped() []policies.Field {
	if len(t.Stop) == 0 {
		return t.Fields
	}
	return t.Stop
}

// rest is what is left of a cancelled grant that never came into force: a grant of the fields that were not revoked, on the same condition. A rotation carries over
// by itself what is left to be carried over, and what readers lack besides what somebody writes is found out anew.
func (t *task) rest() []task {
	fields := without(t.Fields, t.stopped())
	if t.NextEpoch || len(fields) == 0 {
		return nil
	}
	stroke := policies.NewDocumentID()
	switch {
	case t.Kind == taskWrite:
		return []task{{Kind: taskFollow, Stroke: stroke, Reader: t.Reader, Fields: fields, Terms: t.Terms, Renews: t.Renews, Wished: t.Wished, Later: t.Later}}
	case len(t.Slots) > 0:
		return []task{{Kind: taskFollow, Stroke: stroke, Fields: fields}}
	}
	return []task{
		{Kind: taskGrant, Stroke: stroke, Reader: t.Reader, Fields: fields, Terms: t.Terms, Renews: t.Renews, Wished: t.Wished, Later: t.Later},
		{Kind: taskRevoke, Stroke: stroke, Reason: policies.ReasonSuperseded},
	}
}

// unasked reports whether the task is a grant that the person did not ask for: what a reader gave up since this device last asked, it does not get by that.
func (t *task) unasked() bool {
	return t.Kind == taskGrant && (t.NextEpoch || len(t.Slots) > 0 || !t.Renews.IsZero())
}

func without(fields, gone []policies.Field) []policies.Field {
	return slices.DeleteFunc(slices.Clone(fields), func(f policies.Field) bool { return slices.Contains(gone, f) })
}

// means reports whether a revocation, or the end of writing, is of what was given for a purpose until a time.
func (t *task) means(purpose string, expires int64) bool {
	return t.Terms == terms{} || t.Terms.Purpose == purpose && t.Terms.Expires == expires
}

// stops reports whether the task is what a person waits for when they revoke.
func (t *task) stops() bool {
	return (t.Kind == taskRevoke || t.Kind == taskEndWrite) && t.Reason == policies.ReasonWithdrawn || t.Cancelled || t.Hold
}

func (o *Owner) saveAndRun(ctx context.Context) error {
	if err := o.save(); err != nil {
		return err
	}
	return o.run(ctx)
}

// run carries out the tasks in order until one fails. What failed stays, unless it was refused for good.
func (o *Owner) run(ctx context.Context) error {
	var old error // a thaw that was given up keeps nothing that waits behind it
	err := o.following(ctx, func() error {
		changed, err := o.enrol(ctx)
		if changed {
			err = o.save()
		}
		for err == nil && len(o.state.Tasks) > 0 {
			before := o.state.Tasks[0]
			if err = o.advance(ctx); err != nil && before.stops() {
				err = fmt.Errorf("%w: %w", ErrNotStopped, err)
			}
			if errors.Is(err, ErrThawOld) {
				old, err = err, nil
			}
		}
		err = o.afterClosing(ctx, err)
		o.takeBack()
		o.ahead = ahead{}
		if o.unsaved {
			err = errors.Join(err, o.save())
		}
		return err
	})
	if old != nil {
		err = errors.Join(old, err)
	}
	if err != nil && !errors.Is(err, ErrNotStopped) && slices.ContainsFunc(o.state.Tasks, func(t task) bool { return t.stops() }) {
		err = fmt.Errorf("%w: %w", ErrNotStopped, err)
	}
	return err
}

// advance carries out the first task.
func (o *Owner) advance(ctx context.Context) error {
	t := &o.state.Tasks[0]
	if t.Kind == taskRotate {
		rotation := []task{
			{Kind: taskPublish, Stroke: t.Stroke, Rotate: t.Fields}, {Kind: taskRevoke, Stroke: t.Stroke, Reason: policies.ReasonSuperseded},
			{Kind: taskFollow, Stroke: t.Stroke, Fields: t.Fields},
		}
		o.state.Tasks = append(rotation, o.state.Tasks[1:]...)
		o.saveSoon()
		return nil
	}
	if t.Kind == taskFollow {
		return o.follow(ctx)
	}
	if done, err := o.moving(ctx, t); done {
		return err
	}
	// A revocation does not wait for a newer vault document: the keys it needs are in any.
	v, _ := o.trust.current()
	if v == nil || !t.stops() {
		var err error
		if v, err = o.vault(ctx); err != nil {
			return err
		}
	}
	if !t.stops() { // without what it was not told of, the storefront's chain has a gap, and other devices are held up
		if err := o.tell(ctx, v); err != nil {
			return err
		}
	}
	stroke := t.Stroke
	enrolledAgain := false
	var goesOn []policies.AuthorID // writers whose newest manifest could not be had, or who are faster: the end of what they do not need any more waits for another time
	moved := map[policies.AuthorID]int{}
	for tries := 0; tries < 5; tries++ {
		if t.Cancelled && t.Kind == taskWrite { // sent again it might come into force: it needs no keys
			return o.settleCancelled(ctx)
		}
		keys := o.ahead.send(t)
		fresh := keys != nil
		if t.Envelope == nil {
			fresh = true
			if t.Cancelled {
				return o.settleCancelled(ctx)
			}
			// What is built on stale leaves would undo what another device published.
			if t.Blind || t.Kind != taskRevoke && t.Kind != taskEndWrite && (o.state.Applied != o.state.Known || !o.mirrored()) {
				if err := o.syncChain(ctx); err != nil && t.Blind {
					return fmt.Errorf("another device may have granted what this one has not seen: %w", err)
				} else if err != nil {
					return err
				}
				if !o.first(stroke) {
					return nil
				}
				t = &o.state.Tasks[0]
			}
			if t.Blind {
				return o.seeing()
			}
			if o.withdraw() {
				return o.save()
			}
			if t.Kind == taskWrite {
				to, err := o.writer(ctx, policies.AuthorID(t.Reader))
				if err != nil {
					return err
				}
				t.to = to
				if t.Fields = o.toWriteOn(t); len(t.Fields) == 0 {
					o.state.Tasks = slices.Delete(o.state.Tasks, 0, 1)
					o.saveSoon()
					return nil
				}
				o.noteFormer(t)
				if first := o.lacking(stroke, t.Fields, o.toWrite(t)); len(first) > 0 { // another device let somebody read meanwhile
					o.state.Tasks = append(first, o.state.Tasks...)
					return o.save()
				}
			}
			if c, ok := o.contact(t.Reader); ok && t.Kind == taskGrant && o.renewReader(ctx, c) { // not to keys that were given up
				t = &o.state.Tasks[0]
			}
			if t.unasked() {
				if err := o.syncGivenUp(ctx); err != nil {
					return err
				}
			}
			if t.Kind == taskGrant && len(t.Slots) > 0 && !o.lacks(t) { // another device did something that it does not fit any more
				o.state.Tasks[0] = task{Kind: taskFollow, Stroke: stroke, Fields: t.Fields}
				return o.save()
			}
			if t.Kind == taskEndWrite || t.Kind == taskRevoke && t.Reason == policies.ReasonSuperseded {
				var unsure []policies.AuthorID
				t.unsure = nil
				for _, author := range o.endsOf(t) { // what readers may read on is what the writer wrote last
					if err := o.syncWritten(ctx, author); err != nil && t.Reason == policies.ReasonSuperseded {
						unsure = append(unsure, author)
					}
				}
				t = &o.state.Tasks[0]
				t.unsure = append(unsure, goesOn...)
			}
			if t.Kind == taskPublish {
				if len(o.carryOver(t)) > 0 { // to whoever did not give it up since this device last asked
					if err := o.syncGivenUp(ctx); err != nil {
						return err
					}
				}
				if carry := o.carryOver(t); len(carry) > 0 {
					// Behind it: what the readers who stay were given takes the place of what they had.
					carry = append(carry, *t, task{Kind: taskRevoke, Stroke: stroke, Reason: policies.ReasonSuperseded})
					o.state.Tasks = append(carry, o.state.Tasks[1:]...)
					o.saveSoon()
					return nil
				}
			}
			var e *envelope.Envelope
			var err error
			if e, keys, err = o.build(t, v); err != nil {
				o.drop(stroke)
				return errors.Join(err, o.save())
			}
			if e == nil { // nothing is left to be done
				o.state.Tasks = slices.Delete(o.state.Tasks, 0, 1)
				o.saveSoon()
				return nil
			}
			t.Envelope, t.Attempts = e.Raw, append(t.Attempts, policies.Hash(e.Hash))
			// Killed after this line, the document is sent again: the vault knows it by its hash.
			if err := o.save(); err != nil {
				return err
			}
		}
		e, err := envelope.Parse(t.Envelope)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrState, err)
		}
		if err = o.meanwhile(ctx, v, e, func() error { return o.deliver(ctx, t, v, e, keys) }); err != nil {
			o.takeBack() // what was made to follow it
		}
		switch {
		case err == nil:
			unseen := (t.Kind == taskRevoke || t.Kind == taskEndWrite) && t.Reason == policies.ReasonWithdrawn && !o.saw(e)
			again := task{Kind: t.Kind, Stroke: stroke, Reader: t.Reader, Fields: t.Fields, Terms: t.Terms, Wished: t.Wished, Reason: t.Reason, Blind: true}
			if err := o.accepted(e); err != nil {
				return errors.Join(err, o.save())
			}
			if unseen {
				o.state.Tasks = slices.Insert(o.state.Tasks, 0, again)
			}
			o.saveSoon()
			return nil
		case errors.Is(err, errOlder):
			if err := o.older(ctx, v, stroke, err); err != nil {
				return err
			}
			if !o.first(stroke) {
				return nil
			}
			t = &o.state.Tasks[0]
			t.Envelope = nil
		case errors.Is(err, policies.CodeChain):
			known, revoke, refusal := o.state.Known, t.Kind == taskRevoke || t.Kind == taskEndWrite, err
			err := o.syncChain(ctx)
			if err != nil || o.state.Known == known { // the storefront does not show what came first
				switch {
				case revoke:
					// It may be a document of this device's own, accepted and not stored before the storefront died, which waits behind the
					// revocation to be sent again.
					err = o.locate(ctx, v, refusal)
				case err == nil && o.wire.owners != nil:
					err = o.recover(ctx, refusal)
				}
			}
			if err != nil {
				return err
			}
			if !o.first(stroke) { // the attempt was in the chain after all
				return nil
			}
			t = &o.state.Tasks[0]
			t.Envelope = nil
		case errors.Is(err, policies.CodeHeadMoved) && t.Kind == taskEndWrite: // the writer goes on under a newer grant, and published meanwhile
			d, err2 := policies.Decode[writing.End](e)
			if err2 != nil {
				return fmt.Errorf("%w: %w", ErrState, err2)
			}
			err2 = o.syncWritten(ctx, d.Writer)
			t = &o.state.Tasks[0]
			hidden := err2 != nil || o.seenOf(d.Writer) <= d.Last.Version
			moved[d.Writer]++
			if t.Reason == policies.ReasonSuperseded {
				tries-- // nothing that waits behind it is held up by how many writers there are, or by what they do
				if hidden || moved[d.Writer] > 2 {
					goesOn = append(goesOn, d.Writer)
				}
			} else if hidden {
				return errors.Join(err, err2)
			}
			t.Envelope = nil
		case errors.Is(err, policies.CodeBehind) && t.Kind == taskPublish:
			if err := o.republish(ctx, v); err != nil {
				return err
			}
		case errors.Is(err, policies.CodeUnknown) && !enrolledAgain:
			enrolledAgain, o.state.Enrolled = true, false
			if _, err := o.enrol(ctx); err != nil {
				return err
			}
		case refused(err) && t.Cancelled:
			return o.settleCancelled(ctx)
		case refused(err) && t.Kind == taskGrant && !fresh:
			// The vault does not know the document that was sent before: make another. Should this refusal be a lie, then the
			// other one is not the next of the chain, and what was accepted comes to light.
			t.Envelope = nil
		case errors.Is(err, policies.CodeSuccessionPending) && t.Kind == taskNotice: // another change is announced, and this one is not
			o.drop(stroke)
			return errors.Join(err, o.save())
		case errors.Is(err, policies.CodeSuccessionPending) && !t.stops(): // a clock is early; of a revocation it is a lie
			o.state.Tasks = slices.DeleteFunc(o.state.Tasks, func(t task) bool { return t.Stroke == stroke })
			return errors.Join(err, o.save())
		case errors.Is(err, ErrThawOld): // signed anew it would end what the person did not mean
			o.state.Tasks = slices.Delete(o.state.Tasks, 0, 1)
			if saveErr := o.save(); saveErr != nil {
				return saveErr
			}
			return err
		case errors.Is(err, errNotFrozen): // what was wanted is so
			o.needless = stroke
			o.state.Tasks = slices.Delete(o.state.Tasks, 0, 1)
			return o.save()
		case refused(err) && !t.stops():
			o.drop(stroke)
			return errors.Join(err, o.save())
		default:
			return err
		}
	}
	return fmt.Errorf("%w: other devices, or the storefront, keep coming first", policies.CodeChain)
}

// saw reports whether this device knows every document that a revocation was signed on top of: it has taken it over, or it is one of its
// own. If not, another device may have granted, or carried over to a new key, what the revocation does not name.
func (o *Owner) saw(e *envelope.Envelope) bool {
	link, err := linkOf(e)
	if err != nil {
		return false
	}
	if link.Seq == o.state.Applied.Seq+1 && link.Prev == o.state.Applied.Hash {
		return true
	}
	return link.Seq == o.state.Applied.Seq+2 && slices.ContainsFunc(o.state.Tasks, func(t task) bool { return slices.Contains(t.Attempts, link.Prev) })
}

// seeing turns the first task, a blind revocation, into one of what this device now knows of.
func (o *Owner) seeing() error {
	t := &o.state.Tasks[0]
	t.Blind = false
	if t.Turn {
		view := o.view()
		ended := slices.DeleteFunc(o.granted(t.Reader, t.Fields), func(f policies.Field) bool { _, ok := view[f]; return !ok && !o.writable(f) })
		if len(ended) > 0 {
			o.state.Tasks = append(o.state.Tasks, task{Kind: taskRotate, Stroke: policies.NewDocumentID(), Fields: ended})
		}
	}
	return o.save()
}

// first reports whether the first task belongs to a stroke.
func (o *Owner) first(stroke policies.DocumentID) bool {
	return len(o.state.Tasks) > 0 && o.state.Tasks[0].Stroke == stroke
}

// drop gives up an operation, but never a revocation.
func (o *Owner) drop(stroke policies.DocumentID) {
	o.state.Tasks = slices.DeleteFunc(o.state.Tasks, func(t task) bool {
		if t.Stroke == stroke && (t.Kind == taskSucceed || t.Kind == taskNotice && !t.TakeBack) {
			o.state.Replacing = nil
		}
		return t.Stroke == stroke && !t.stops()
	})
}

// refused tells an answer that will be the same tomorrow from one that will not.
func refused(err error) bool {
	for _, code := range []policies.Code{
		policies.CodeMalformed, policies.CodeTooLarge, policies.CodeSignature, policies.CodeNotFound, policies.CodeWrongVault, policies.CodeExists,
		policies.CodeKeyReplaced, policies.CodeRecovery, policies.CodeSuccessionOld, policies.CodeSuccessionUnannounced,
		policies.CodeUnknown, policies.CodeImport, policies.CodeCustody, policies.CodeGuardrail, policies.CodeLeaf, policies.CodeProof, policies.CodePoint, policies.CodeNoGrant,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// settleCancelled finds out what became of a grant that was revoked while its outcome was unknown. If it is in force, it is
// revoked; if not, a manifest that changes nothing takes the place in the chain that it was signed for, so that nobody can deliver it later. Until that is accepted the
// grant is not given up: whoever said that the vault does not have it may have lied, and then it comes to light.
func (o *Owner) settleCancelled(ctx context.Context) error {
	t := o.state.Tasks[0]
	if err := o.syncChain(ctx); err != nil {
		return err
	}
	if len(o.state.Tasks) == 0 || o.state.Tasks[0].Stroke != t.Stroke || !o.state.Tasks[0].Cancelled {
		return nil // it was in the chain, and accepted put a revocation in its place, or the place was taken
	}
	if t.Envelope == nil { // every place that it was signed for was taken
		o.state.Tasks = append(t.rest(), o.state.Tasks[1:]...)
	} else {
		o.state.Tasks = slices.Insert(o.state.Tasks, 0, task{Kind: taskPublish, Stroke: t.Stroke, Hold: true})
	}
	return o.save()
}

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

// deliver sends a document and verifies the receipt.
func (o *Owner) deliver(ctx context.Context, t *task, v *policies.VaultDocument, e *envelope.Envelope, keys []vaultapi.SealedKey) error {
	var err error
	switch t.Kind {
	case taskPublish:
		var p *api.Publication
		if p, err = o.publication(t, e); err == nil {
			err = o.post(ctx, v, request{method: "POST", path: path(api.PathManifests, o.id.String()), in: p, login: true}, e)
		}
	case taskGrant:
		in := &vaultapi.Submission{Envelope: e.Raw, Keys: keys}
		err = o.post(ctx, v, request{method: "POST", path: path(api.PathGrants, o.id.String()), in: in, login: true}, e)
	case taskRevoke, taskEndWrite:
		err = o.deliverRevocation(ctx, v, e)
	case taskWrite:
		err = o.post(ctx, v, request{method: "POST", path: path(routeOf(e.Type), o.id.String()), in: &vaultapi.Submission{Envelope: e.Raw}, login: true}, e)
	case taskSucceed, taskNotice:
		var vaults bool
		if vaults, err = o.deliverSuccession(ctx, v, e); vaults && errors.Is(err, policies.CodeSuccessionOld) {
			err = fmt.Errorf("%w: %w", errOlder, err)
		}
	case taskThaw:
		err = o.deliverThaw(ctx, v, e)
	}
	return err
}

// routeOf is where a storefront takes a document of an owner's chain that is no manifest.
func routeOf(docType string) string {
	switch docType {
	case "grant":
		return api.PathGrants
	case "write-grant":
		return api.PathWriteGrants
	case "write-end":
		return api.PathWriteEnds
	}
	return api.PathRevocations
}

// post sends a document and verifies the receipt.
func (o *Owner) post(ctx context.Context, v *policies.VaultDocument, r request, e *envelope.Envelope) error {
	receipt := new(evidence.Receipt)
	r.out = receipt
	if err := o.wire.call(ctx, r); err != nil {
		return err
	}
	return o.receipt(ctx, v, receipt, policies.Hash(e.Hash), evidence.Kind(e.Type))
}

// deliverRevocation takes the storefront's route and, unless that gives a verified receipt or a refusal that the vault itself signed, the
// vault's own listener. The storefront is told later what it missed.
func (o *Owner) deliverRevocation(ctx context.Context, v *policies.VaultDocument, e *envelope.Envelope) error {
	in := &vaultapi.Submission{Envelope: e.Raw}
	first, cancel := context.WithTimeout(ctx, routeTimeout)
	var status int
	err := o.post(first, v, request{method: "POST", path: path(routeOf(e.Type), o.id.String()), in: in, login: true, status: &status}, e)
	cancel()
	if err == nil && status == http.StatusAccepted { // in force, and not in the storefront's chain
		o.state.Untold = append(o.state.Untold, e.Raw)
	}
	if err == nil || o.wire.owners == nil || o.provenMoved(ctx, v, err, policies.Hash(e.Hash)) {
		return err
	}
	second, cancel := context.WithTimeout(ctx, 2*routeTimeout)
	defer cancel()
	if err2 := o.post(second, v, request{method: "POST", path: vaultapi.PathDocuments, base: o.wire.owners, in: in}, e); err2 != nil {
		if errors.Is(err2, policies.CodeChain) {
			return err2
		}
		return fmt.Errorf("%w; and over the second route: %w", err, err2)
	}
	o.state.Untold = append(o.state.Untold, e.Raw)
	return nil
}

// provenMoved reports whether a refusal carries the vault's receipt of another document that came first.
func (o *Owner) provenMoved(ctx context.Context, v *policies.VaultDocument, err error, own policies.Hash) bool {
	var p *problem.Problem
	if !errors.Is(err, policies.CodeChain) || !errors.As(err, &p) || p.Receipt == nil || p.Receipt.Document == own {
		return false
	}
	return o.receipt(ctx, v, p.Receipt, p.Receipt.Document, "") == nil
}

// publication is a manifest with the items that changed. Rotated leaves come without ciphertext: the storefront has it.
func (o *Owner) publication(t *task, e *envelope.Envelope) (*api.Publication, error) {
	p := &api.Publication{Manifest: e.Raw}
	withValue := map[string]bool{}
	for _, raw := range t.Set {
		withValue[string(raw)] = true
	}
	inTree := map[policies.Field]bool{}
	for _, l := range o.leaves() {
		inTree[l.Field] = true
	}
	for _, raw := range t.Changed {
		l, err := policies.ParseLeaf(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrState, err)
		}
		item := api.Item{Leaf: raw}
		if withValue[string(raw)] {
			if item.Ciphertext, err = o.store.Item(l.CiphertextHash); err != nil {
				return nil, err
			}
		}
		p.Items = append(p.Items, item)
	}
	for _, f := range t.Remove {
		if inTree[f] {
			p.Removed = append(p.Removed, f)
		}
	}
	return p, nil
}

// republish gives a storefront that lost data the whole current manifest again, which the vault answers with the receipt it gave before, and
// the grants in force.
func (o *Owner) republish(ctx context.Context, v *policies.VaultDocument) error {
	if o.state.Manifest.Version == 0 {
		return nil
	}
	e, err := envelope.Parse(o.state.Manifest.Raw)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	for range 2 {
		// It may have forgotten what came ahead, if it was started anew or took long.
		if err = o.republishItems(ctx, v, e); !errors.Is(err, policies.CodeBehind) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("publishing everything again: %w", err)
	}
	return o.regrant(ctx, v)
}

// republishItems publishes the newest manifest with all items. Those that do not fit one body go ahead of it.
func (o *Owner) republishItems(ctx context.Context, v *policies.VaultDocument, e *envelope.Envelope) error {
	p := &api.Publication{Manifest: e.Raw}
	where := request{method: "POST", path: path(api.PathManifests, o.id.String()), login: true}
	have := map[policies.Field]bool{}
	sent, size := 0, 0 // items of p that went ahead, bytes of the others
	for _, l := range o.leaves() {
		ciphertext, err := o.ciphertext(ctx, &l)
		if err != nil {
			return err
		}
		if size += len(ciphertext); size > maxPublication && sent < len(p.Items) {
			ahead := where
			ahead.in = &api.Publication{Manifest: e.Raw, Items: p.Items[sent:], Ahead: true}
			if err := o.wire.call(ctx, ahead); err != nil {
				return err
			}
			for i := sent; i < len(p.Items); i++ {
				p.Items[i].Ciphertext = nil
			}
			sent, size = len(p.Items), len(ciphertext)
		}
		p.Items, have[l.Field] = append(p.Items, api.Item{Leaf: l.Bytes(), Ciphertext: ciphertext}), true
	}
	if m, err := o.fetchMirror(ctx); err == nil {
		for _, raw := range m.Leaves {
			if l, err := policies.ParseLeaf(raw); err == nil && !have[l.Field] {
				p.Removed = append(p.Removed, l.Field)
			}
		}
	}
	where.in = p
	return o.post(ctx, v, where, e)
}

// regrant gives such a storefront the grants in force again, without which it cannot offer them to the vault. A document is named by what it says,
// so one that is signed anew is the same document: the vault knows it and asks for no keys.
func (o *Owner) regrant(ctx context.Context, v *policies.VaultDocument) error {
	for i := range o.state.Grants {
		g := &o.state.Grants[i]
		if o.now().Unix() >= g.Doc.Expires || len(g.Ended) == len(g.Doc.Fields) {
			continue
		}
		e, err := policies.Sign(o.signing, &g.Doc)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrState, err)
		}
		if policies.Hash(e.Hash) != g.Hash {
			return fmt.Errorf("%w: a grant is not the one that was signed", ErrState)
		}
		in := &vaultapi.Submission{Envelope: e.Raw}
		if err := o.post(ctx, v, request{method: "POST", path: path(api.PathGrants, o.id.String()), in: in, login: true}, e); err != nil {
			return fmt.Errorf("handing in a grant again: %w", err)
		}
	}
	for i := range o.state.Writers {
		g := &o.state.Writers[i]
		if o.now().Unix() >= g.Doc.Expires || len(g.Ended) == len(g.Doc.Fields) {
			continue
		}
		e, err := policies.Sign(o.signing, &g.Doc)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrState, err)
		}
		in := &vaultapi.Submission{Envelope: e.Raw}
		if err := o.post(ctx, v, request{method: "POST", path: path(api.PathWriteGrants, o.id.String()), in: in, login: true}, e); err != nil {
			return fmt.Errorf("handing in a write grant again: %w", err)
		}
	}
	return nil
}

// accepted takes a document that a verified receipt vouches for into the state, and ends the task it was made for.
func (o *Owner) accepted(e *envelope.Envelope) error {
	link, err := linkOf(e)
	if err != nil {
		return err
	}
	at := position{link.Seq, policies.Hash(e.Hash)}
	contiguous := o.state.Applied.Seq+1 == link.Seq && o.state.Applied.Hash == link.Prev
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
		if !t.Cancelled || t.Envelope == nil {
			continue
		}
		attempt, err := envelope.Parse(t.Envelope)
		if err != nil {
			continue
		}
		if lost, err := linkOf(attempt); err == nil && lost.Prev == link.Prev && policies.Hash(attempt.Hash) != at.Hash {
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
				if g.Doc.ID != item.Grant || !ok || !g.live(f) {
					continue
				}
				g.Ended = append(g.Ended, item)
				if r.Reason == policies.ReasonWithdrawn {
					o.raiseEpoch(f.Field, f.Epoch+1)
				}
			}
		}
	case "write-grant", "write-end":
		if err := o.applyWriting(e, done >= 0); err != nil {
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
	if o.state.Applied.Seq == 0 || o.state.Replacing != nil { // a device that was restored, perhaps from a backup of before a replacement
		if err := o.adopt(ctx); errors.Is(err, ErrReplaced) || errors.Is(err, ErrUntrue) {
			return err
		}
	}
	return o.reason(ctx, o.sync(ctx))
}

func (o *Owner) sync(ctx context.Context) (err error) {
	// Tasks first: a revocation must not wait for a storefront that is silent.
	runErr := o.run(ctx)
	defer func() { // what was given up is told, whatever else went well
		if (refused(runErr) || errors.Is(runErr, ErrThawOld)) && !errors.Is(err, runErr) {
			err = errors.Join(runErr, err)
		}
		err = o.told(err)
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

// syncChain fetches the documents after the newest applied one, verifies that they are this owner's and follow one another, has the
// last of them vouched for by a receipt, and takes them over. Nothing is taken over that the vault did not accept: a hostile storefront
// could show a revocation that it never passed on.
//
// Another device may publish between one answer and the next, which then do not fit together. That is no lie: the chain is fetched again.
func (o *Owner) syncChain(ctx context.Context) error {
	var err error
	for range 3 {
		if err = o.syncChainOnce(ctx); !errors.Is(err, errOvertaken) {
			break
		}
	}
	if errors.Is(err, policies.CodeBehind) && o.wire.owners != nil {
		return o.recover(ctx, err)
	}
	return err
}

// errOvertaken: the owner's chain grew while it was fetched.
var errOvertaken = errors.New("it grows while it is fetched")

func (o *Owner) syncChainOnce(ctx context.Context) error {
	v, err := o.vault(ctx)
	if err != nil {
		return err
	}
	changed, err := o.enrol(ctx)
	if err != nil {
		return err
	}
	if changed {
		if err := o.save(); err != nil {
			return err
		}
	}
	if err := o.tell(ctx, v); err != nil {
		return err
	}
	end, news, err := o.fetchChain(ctx, o.state.Applied)
	if errors.Is(err, errGap) || err == nil && end.Seq < o.state.Known.Seq {
		sent, sendErr := o.sendAgain(ctx, v, end)
		if sendErr != nil {
			return sendErr
		}
		if sent {
			end, news, err = o.fetchChain(ctx, o.state.Applied)
		}
	}
	if err != nil {
		return err
	}
	switch {
	case end.Seq < o.state.Known.Seq:
		return fmt.Errorf("%w: the storefront does not show what the vault has accepted", policies.CodeBehind)
	case end.Seq == o.state.Known.Seq && end != o.state.Known:
		return fmt.Errorf("%w: the storefront shows another chain than the vault has accepted", ErrUntrue)
	case end.Seq > o.state.Known.Seq:
		if err := o.confirm(ctx, v, end, news[len(news)-1]); err != nil {
			return err
		}
	}
	for _, e := range news {
		if err := o.accepted(e); err != nil {
			return err
		}
	}
	o.settleGivenUp()
	if err := o.syncMirror(ctx); err != nil {
		return err
	}
	o.syncContacts(ctx)
	return o.save()
}

// recover fetches from the vault what the storefront's chain lacks: documents that went to the vault over the second route from a device that is no more, or that
// a storefront lost. It takes them over, and passes on to the storefront what it can take.
func (o *Owner) recover(ctx context.Context, gap error) error {
	v, err := o.vault(ctx)
	if err != nil {
		return err
	}
	end, news, err := o.fetchFromVault(ctx, v)
	if err != nil {
		return fmt.Errorf("%w; and fetching from the vault what it lacks: %w", gap, err)
	}
	for _, e := range news {
		if err := o.accepted(e); err != nil {
			return err
		}
		if e.Type != "manifest" && !slices.ContainsFunc(o.state.Untold, func(raw jsontext.Value) bool { return bytes.Equal(raw, e.Raw) }) {
			o.state.Untold = append(o.state.Untold, e.Raw)
		}
	}
	if end.Seq < o.state.Known.Seq {
		return fmt.Errorf("%w: the vault is behind what it acknowledged", ErrFork)
	}
	if err := o.save(); err != nil {
		return err
	}
	if err := o.tell(ctx, v); err != nil {
		return err
	}
	o.settleGivenUp()
	if err := o.syncMirror(ctx); err != nil {
		return err
	}
	o.syncContacts(ctx)
	return o.save()
}

// fetchFromVault fetches the documents after the newest applied one from the vault itself, newest first, each of which this owner signed and the one after it names. The
// newest is the one that the vault gives a receipt of.
func (o *Owner) fetchFromVault(ctx context.Context, v *policies.VaultDocument) (end position, news []*envelope.Envelope, err error) {
	if end, err = o.ask(ctx, v); err != nil {
		return end, nil, err
	}
	lie := func(what string) error { return fmt.Errorf("%w: %s", ErrUntrue, what) }
	for next, before := end, (policies.Hash{}); next.Seq > o.state.Applied.Seq; {
		var page vaultapi.Fetched
		if err := o.question(v, func(e *envelope.Envelope) error {
			in := &vaultapi.Fetch{Envelope: e.Raw, Before: before}
			return o.wire.call(ctx, request{method: "POST", path: vaultapi.PathFetch, base: o.wire.owners, in: in, out: &page})
		}); err != nil {
			return end, nil, err
		}
		if len(news) == 0 { // another device may have gone on meanwhile: begin where the receipt says
			page.Documents = slices.DeleteFunc(page.Documents, func(raw jsontext.Value) bool {
				e, err := envelope.Parse(raw)
				if err != nil {
					return false
				}
				link, err := linkOf(e)
				return err == nil && link.Seq > end.Seq
			})
		}
		if len(page.Documents) == 0 {
			return end, nil, lie("the vault does not show what it has accepted")
		}
		for _, raw := range page.Documents {
			if next.Seq == o.state.Applied.Seq {
				break
			}
			e, err := envelope.Parse(raw)
			if err != nil || policies.Hash(e.Hash) != next.Hash {
				return end, nil, lie("the vault shows another chain than it has accepted")
			}
			link, err := linkOf(e)
			if err != nil || link.Seq != next.Seq {
				return end, nil, lie("the vault shows another chain than it has accepted")
			}
			news = append(news, e)
			before, next = next.Hash, position{link.Seq - 1, link.Prev}
		}
		if next.Seq == o.state.Applied.Seq && next != o.state.Applied {
			return end, nil, lie("the vault shows another chain than this device knows")
		}
	}
	slices.Reverse(news)
	line := o.line
	for _, e := range news {
		if err := verifyLink(&line, e); err != nil {
			return end, nil, lie("the vault shows what this owner did not sign")
		}
	}
	return end, news, nil
}

// errGap: the storefront's chain lacks a document between two others, as after a revocation that another device sent past it, and has not told it of
// yet.
var errGap = fmt.Errorf("%w: a document of the chain is not there", policies.CodeBehind)

// sendAgain sends the document of this device's own that comes next in the chain and whose outcome is unknown here. The vault may have accepted it
// without the storefront having written it down; then all later ones wait for it, also those whose task is before its own. Several may have been made for
// the same place while nobody could be reached. The vault accepted one of them at most, and says of the others that another document came first.
func (o *Owner) sendAgain(ctx context.Context, v *policies.VaultDocument, end position) (sent bool, err error) {
	for i := range o.state.Tasks {
		t := &o.state.Tasks[i]
		if t.Envelope == nil {
			continue
		}
		e, err := envelope.Parse(t.Envelope)
		if err != nil {
			return false, fmt.Errorf("%w: %w", ErrState, err)
		}
		if link, err := linkOf(e); err != nil || link.Follows(end.Seq, end.Hash) != nil {
			continue
		}
		switch err := o.deliver(ctx, t, v, e, nil); {
		case errors.Is(err, policies.CodeChain):
			continue
		case err != nil:
			return false, fmt.Errorf("sending a document again that the storefront lacks: %w", err)
		}
		return true, nil
	}
	return false, nil
}

// fetchChain fetches the documents after one of them, each of which this owner signed and which follow one another, up to a gap.
func (o *Owner) fetchChain(ctx context.Context, from position) (end position, news []*envelope.Envelope, err error) {
	fail := func(err error) (position, []*envelope.Envelope, error) { return end, nil, err }
	end = from
	line := o.line
	for more := true; more; {
		var c api.Chain
		q := url.Values{"after": {strconv.FormatUint(end.Seq, 10)}}
		if err := o.wire.call(ctx, request{method: "GET", path: path(api.PathChain, o.id.String()), query: q, out: &c, login: true}); err != nil && !errors.Is(err, policies.CodeNotFound) {
			return fail(fmt.Errorf("fetching the chain: %w", err))
		}
		for _, raw := range c.Documents {
			e, err := envelope.Parse(raw)
			if err == nil {
				err = verifyLink(&line, e)
			}
			if err != nil {
				return fail(fmt.Errorf("fetching the chain: %w: %w", ErrUntrue, err))
			}
			link, err := linkOf(e)
			if err != nil {
				return fail(fmt.Errorf("fetching the chain: %w: %w", ErrUntrue, err))
			}
			if link.Seq > end.Seq+1 {
				return fail(fmt.Errorf("%w: document %d", errGap, end.Seq+1))
			}
			if err := link.Follows(end.Seq, end.Hash); err != nil {
				return fail(fmt.Errorf("%w: document %d of the chain does not follow the one before", ErrUntrue, link.Seq))
			}
			end = position{link.Seq, policies.Hash(e.Hash)}
			news = append(news, e)
		}
		more = c.More && len(c.Documents) > 0
	}
	return end, news, nil
}

// confirm has the newest document of the chain vouched for: by the vault itself if it can be reached, else by the receipt that it gives
// when the same document is sent again.
func (o *Owner) confirm(ctx context.Context, v *policies.VaultDocument, end position, newest *envelope.Envelope) error {
	if o.wire.owners != nil {
		c, err := o.ask(ctx, v)
		switch {
		case err == nil && c == end:
			return nil
		case err == nil && c.Seq > end.Seq:
			return fmt.Errorf("%w: the vault has accepted %d documents, the storefront shows %d (%w)", policies.CodeBehind, c.Seq, end.Seq, errOvertaken)
		case err == nil:
			return fmt.Errorf("%w: it shows documents that the vault did not accept", ErrUntrue)
		case !errors.Is(err, policies.CodeUnavailable):
			return err
		}
	}
	var err error
	switch newest.Type {
	case "manifest":
		var m *api.Mirror
		if m, err = o.fetchMirror(ctx); err == nil {
			if o.published(m) > manifestVersion(newest) {
				return fmt.Errorf("%w: another device published (%w)", policies.CodeChain, errOvertaken)
			}
			if m.Receipt == nil {
				return fmt.Errorf("%w: no receipt of the newest manifest", ErrUntrue)
			}
			err = o.receipt(ctx, v, m.Receipt, end.Hash, evidence.EntryManifest)
		}
	case "succession", "succession-notice", "thaw":
		err = o.post(ctx, v, request{method: "POST", path: path(api.PathSuccessions, o.id.String()), raw: newest.Raw}, newest)
	default:
		err = o.post(ctx, v, request{method: "POST", path: path(routeOf(newest.Type), o.id.String()), in: &vaultapi.Submission{Envelope: newest.Raw}, login: true}, newest)
	}
	if err != nil {
		return fmt.Errorf("having the chain confirmed: %w", err)
	}
	return nil
}

// ask asks the vault itself where the chain stands. The vault tells nobody but the owner, and the owner by the refusal of a document that is not
// the next. So the question is a document that can never be: a first one that does not follow the identity. It says nothing, and the log notes it.
func (o *Owner) ask(ctx context.Context, v *policies.VaultDocument) (position, error) {
	ctx, cancel := context.WithTimeout(ctx, routeTimeout)
	defer cancel()
	err := o.question(v, func(e *envelope.Envelope) error {
		return o.post(ctx, v, request{method: "POST", path: vaultapi.PathDocuments, base: o.wire.owners, in: &vaultapi.Submission{Envelope: e.Raw}}, e)
	})
	if err != nil && !errors.Is(err, policies.CodeChain) {
		return position{}, fmt.Errorf("asking the vault for the chain: %w", err)
	}
	return o.newest(ctx, v, err)
}

// question asks with a manifest that can never be published. That the owner signed it is all that it says. A device that is restored from the backup of a replacement may have the newest key
// before it knows that the vault has it.
func (o *Owner) question(v *policies.VaultDocument, ask func(*envelope.Envelope) error) error {
	by := func(key *envelope.PrivateKey) error {
		nonce := policies.NewNonce()
		nowhere := policies.Hash(sha256.Sum256(nonce[:]))
		e, err := policies.Sign(key, &policies.Manifest{
			Header: policies.NewHeader("manifest", o.now()), Audience: v.Vault, Owner: o.ID(), Author: o.author(),
			Link: policies.Link{Seq: 1, Prev: nowhere}, Version: 1, Root: nowhere,
		})
		if err != nil {
			return err
		}
		return ask(e)
	}
	err := by(o.signing)
	if !errors.Is(err, policies.CodeKeyReplaced) || o.state.Replacing == nil {
		return err
	}
	root, rootErr := pre.ParseRoot(o.state.Replacing.Root)
	if rootErr != nil {
		return fmt.Errorf("%w: %w", ErrState, rootErr)
	}
	defer root.Zero()
	next := signingKey(root)
	defer next.Zero()
	return by(next)
}

// newest is the newest document of the chain by a refusal that carries the vault's receipt of it, or why it does not say.
func (o *Owner) newest(ctx context.Context, v *policies.VaultDocument, refusal error) (position, error) {
	var p *problem.Problem
	if !errors.As(refusal, &p) || p.Code != policies.CodeChain || p.Receipt == nil {
		return position{}, fmt.Errorf("%w: nobody shows what came first: %w", policies.CodeUnavailable, refusal)
	}
	details, err := o.opened(ctx, v, p.Receipt, p.Receipt.Document, "")
	if err != nil {
		return position{}, err
	}
	// Before the first document the receipt is the identity's.
	if details.Owner != o.ID() && !(details.Identity == o.id && details.Seq == 0) {
		return position{}, fmt.Errorf("%w: the receipt is of somebody else's document", ErrUntrue)
	}
	return position{details.Seq, p.Receipt.Document}, nil
}

// locate learns from the vault's refusal what a revocation must be signed on top of, when the storefront does not say. What lies between is
// applied once the storefront shows it.
func (o *Owner) locate(ctx context.Context, v *policies.VaultDocument, refusal error) error {
	at, err := o.newest(ctx, v, refusal)
	if err != nil {
		return err
	}
	if at.Seq < o.state.Known.Seq {
		return fmt.Errorf("%w: the vault is behind what it acknowledged", ErrFork)
	}
	o.state.Known = at
	return nil
}

// newestManifest is the newest manifest, nil if nothing was published.
func (o *Owner) newestManifest() (*policies.Manifest, error) {
	if o.state.Manifest.Version == 0 {
		return nil, nil
	}
	e, err := envelope.Parse(o.state.Manifest.Raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	m, err := policies.Decode[policies.Manifest](e)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
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
