package client

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/writing"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// maxTries is how often the document of a task is sent whose place others take.
const maxTries = 5

// advance carries out the first task.
func (o *Owner) advance(ctx context.Context) error {
	t := &o.state.Tasks[0]
	switch t.Kind {
	case taskRotate:
		o.rotate(t)
		return nil
	case taskFollow:
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
	a := attempt{Owner: o, v: v, stroke: t.Stroke, t: t, moved: map[policies.AuthorID]int{}}
	for ; a.tries < maxTries; a.tries++ {
		if done, err := a.once(ctx); done || err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: other devices, or the storefront, keep coming first", policies.CodeChain)
}

// rotate puts the tasks of a rotation in the place of the first one.
func (o *Owner) rotate(t *task) {
	rotation := []task{
		{Kind: taskPublish, Stroke: t.Stroke, Rotate: t.Fields}, {Kind: taskRevoke, Stroke: t.Stroke, Reason: policies.ReasonSuperseded},
		{Kind: taskFollow, Stroke: t.Stroke, Fields: t.Fields},
	}
	o.state.Tasks = append(rotation, o.state.Tasks[1:]...)
	o.saveSoon()
}

// An attempt carries out the first task: it makes the document, sends it, and makes it anew when another one came first. Its methods report whether that is over: the
// task is done, given up, or another one.
type attempt struct {
	*Owner
	v      *policies.VaultDocument
	stroke policies.DocumentID // of the operation that the task belongs to
	t      *task               // the first task; to be taken anew after whatever changes their list
	tries  int

	keys          []vaultapi.SealedKey // of a grant that was not sent before
	fresh         bool                 // the document was not sent before
	enrolledAgain bool
	goesOn        []policies.AuthorID       // writers whose newest manifest could not be had, or who are faster: the end of what they do not need any more waits for another time
	moved         map[policies.AuthorID]int // how often a writer was faster
}

// retake takes the first task anew, and reports whether it is still one of the same operation.
func (a *attempt) retake() bool {
	if !a.first(a.stroke) {
		return false
	}
	a.t = &a.state.Tasks[0]
	return true
}

// once makes the document, if there is none, sends it, and goes by the answer.
func (a *attempt) once(ctx context.Context) (done bool, err error) {
	if a.t.Cancelled && a.t.Kind == taskWrite { // sent again it might come into force: it needs no keys
		return true, a.settleCancelled(ctx)
	}
	a.keys = a.ahead.send(a.t)
	a.fresh = a.keys != nil || a.t.Envelope == nil
	if a.t.Envelope == nil {
		if done, err := a.prepare(ctx); done || err != nil {
			return true, err
		}
	}
	e, err := envelope.Parse(a.t.Envelope)
	if err != nil {
		return true, fmt.Errorf("%w: %w", ErrState, err)
	}
	if err = a.meanwhile(ctx, a.v, e, func() error { return a.deliver(ctx, a.t, a.v, e, a.keys) }); err != nil {
		a.takeBack() // what was made to follow it
		return a.answer(ctx, e, err)
	}
	return true, a.done(e)
}

// prepare makes and stores the document.
func (a *attempt) prepare(ctx context.Context) (done bool, err error) {
	if a.t.Cancelled {
		return true, a.settleCancelled(ctx)
	}
	if done, err := a.catchUp(ctx); done || err != nil {
		return true, err
	}
	if a.t.Blind {
		return true, a.seeing()
	}
	if a.withdraw() {
		return true, a.save()
	}
	switch a.t.Kind {
	case taskWrite:
		done, err = a.readyToWrite(ctx)
	case taskGrant:
		done, err = a.readyToGrant(ctx)
	case taskRevoke, taskEndWrite:
		err = a.readyToEnd(ctx)
	case taskPublish:
		done, err = a.readyToPublish(ctx)
	}
	if done || err != nil {
		return true, err
	}
	var e *envelope.Envelope
	if e, a.keys, err = a.build(a.t, a.v); err != nil {
		a.drop(a.stroke)
		return true, errors.Join(err, a.save())
	}
	if e == nil { // nothing is left to be done
		a.end()
		return true, nil
	}
	a.t.Envelope, a.t.Attempts = e.Raw, append(a.t.Attempts, policies.Hash(e.Hash))
	// Killed after this line, the document is sent again: the vault knows it by its hash.
	return false, a.save()
}

// end takes the first task off the list.
func (a *attempt) end() {
	a.state.Tasks = slices.Delete(a.state.Tasks, 0, 1)
	a.saveSoon()
}

// catchUp fetches what other devices did: what is built on stale leaves would undo what another device published. What only stops something waits for that only if it
// was wished without having seen them.
func (a *attempt) catchUp(ctx context.Context) (done bool, err error) {
	ends := a.t.Kind == taskRevoke || a.t.Kind == taskEndWrite
	if !a.t.Blind && (ends || a.state.Applied == a.state.Known && a.mirrored()) {
		return false, nil
	}
	sync := a.syncChain
	if a.t.Blind {
		sync = a.syncWhole
	}
	if err := sync(ctx); err != nil && a.t.Blind {
		return true, fmt.Errorf("another device may have granted what this one has not seen: %w", err)
	} else if err != nil {
		return true, err
	}
	return !a.retake(), nil
}

// readyToWrite finds the writer's keys in force, the fields that are left, and what readers lack besides.
func (a *attempt) readyToWrite(ctx context.Context) (done bool, err error) {
	to, err := a.writer(ctx, policies.AuthorID(a.t.Reader))
	if errors.Is(err, policies.CodeClosed) { // the writer's account
		return true, a.contactClosed()
	}
	if err != nil {
		return true, err
	}
	a.t.to = to
	if a.t.Fields = a.toWriteOn(a.t); len(a.t.Fields) == 0 {
		a.end()
		return true, nil
	}
	a.noteFormer(a.t)
	if first := a.lacking(a.stroke, a.t.Fields, a.toWrite(a.t)); len(first) > 0 { // another device let somebody read meanwhile
		a.state.Tasks = append(first, a.state.Tasks...)
		return true, a.save()
	}
	return false, nil
}

// readyToGrant finds the reader's keys in force, and whether the grant still fits.
func (a *attempt) readyToGrant(ctx context.Context) (done bool, err error) {
	if c, ok := a.contact(a.t.Reader); ok && a.renewReader(ctx, c) { // not to keys that were given up
		a.t = &a.state.Tasks[0]
	}
	if a.t.unasked() {
		if err := a.syncGivenUp(ctx); err != nil {
			return true, err
		}
	}
	if len(a.t.Slots) > 0 && !a.lacks(a.t) { // another device did something that it does not fit any more
		a.state.Tasks[0] = task{Kind: taskFollow, Stroke: a.stroke, Fields: a.t.Fields}
		return true, a.save()
	}
	return false, nil
}

// readyToEnd finds what writers wrote last, which readers may read on. Where newer grants took a place, a writer of whom it cannot be had keeps the older one for now,
// but not because nobody waits for the answer any more: that is told as what was not done.
func (a *attempt) readyToEnd(ctx context.Context) error {
	superseded := a.t.Reason == policies.ReasonSuperseded
	if a.t.Kind == taskRevoke && !superseded {
		return nil
	}
	var unsure []policies.AuthorID
	a.t.unsure = nil
	for _, author := range a.endsOf(a.t) {
		err := a.syncWritten(ctx, author)
		if err != nil && ctx.Err() != nil {
			return err
		}
		if err != nil && superseded {
			unsure = append(unsure, author)
		}
	}
	a.t = &a.state.Tasks[0]
	a.t.unsure = append(unsure, a.goesOn...)
	return nil
}

// readyToPublish lets the readers who stay have the epoch that the publication begins.
func (a *attempt) readyToPublish(ctx context.Context) (done bool, err error) {
	if len(a.carryOver(a.t)) > 0 { // to whoever did not give it up since this device last asked
		if err := a.syncGivenUp(ctx); err != nil {
			return true, err
		}
	}
	carry := a.carryOver(a.t)
	if len(carry) == 0 {
		return false, nil
	}
	// Behind it: what the readers who stay were given takes the place of what they had.
	carry = append(carry, *a.t, task{Kind: taskRevoke, Stroke: a.stroke, Reason: policies.ReasonSuperseded})
	a.state.Tasks = append(carry, a.state.Tasks[1:]...)
	a.saveSoon()
	return true, nil
}

// done takes over what the vault accepted. A revocation signed on top of what this device had not seen is followed by one that has.
func (a *attempt) done(e *envelope.Envelope) error {
	t := a.t
	unseen := (t.Kind == taskRevoke || t.Kind == taskEndWrite) && t.Reason == policies.ReasonWithdrawn && !a.saw(e)
	again := task{Kind: t.Kind, Stroke: a.stroke, Reader: t.Reader, Fields: t.Fields, Terms: t.Terms, Wished: t.Wished, Reason: t.Reason, Blind: true}
	if err := a.accepted(e); err != nil {
		return errors.Join(err, a.save())
	}
	if unseen {
		a.state.Tasks = slices.Insert(a.state.Tasks, 0, again)
	}
	a.saveSoon()
	return nil
}

// answer goes by what came instead of a receipt: done with an error, or another try.
func (a *attempt) answer(ctx context.Context, e *envelope.Envelope, err error) (done bool, _ error) {
	t := a.t
	switch {
	case errors.Is(err, errOlder):
		if err := a.older(ctx, a.v, a.stroke, err); err != nil {
			return true, err
		}
		return a.anew(), nil
	case errors.Is(err, policies.CodeChain):
		if err := a.fetchPrior(ctx, err); err != nil {
			return true, err
		}
		return a.anew(), nil // or the attempt was in the chain after all
	case errors.Is(err, policies.CodeHeadMoved) && t.Kind == taskEndWrite: // the writer goes on under a newer grant, and published meanwhile
		return false, a.writtenOn(ctx, e, err)
	case errors.Is(err, policies.CodeBehind) && t.Kind == taskPublish:
		return false, a.republish(ctx, a.v)
	case errors.Is(err, policies.CodeUnknown) && !a.enrolledAgain:
		a.enrolledAgain, a.state.Enrolled = true, false
		_, err := a.enrol(ctx)
		return false, err
	case errors.Is(err, errHearsay):
		return true, a.hearsay(ctx, err)
	case refused(err) && t.Cancelled:
		return true, a.settleCancelled(ctx)
	case refused(err) && t.Kind == taskGrant && !a.fresh:
		// The vault does not know the document that was sent before: make another. Should this refusal be a lie, then the
		// other one is not the next of the chain, and what was accepted comes to light.
		t.Envelope = nil
		return false, nil
	case errors.Is(err, policies.CodePartyClosed) && !t.stops():
		return true, a.saidToBeClosed(ctx, e)
	case errors.Is(err, policies.CodeSuccessionPending) && t.Kind == taskNotice: // another change is announced, and this one is not
		a.drop(a.stroke)
		return true, errors.Join(err, a.save())
	case errors.Is(err, policies.CodeSuccessionPending) && !t.stops(): // a clock is early; of a revocation it is a lie
		a.state.Tasks = slices.DeleteFunc(a.state.Tasks, func(t task) bool { return t.Stroke == a.stroke })
		return true, errors.Join(err, a.save())
	case errors.Is(err, ErrThawOld): // signed anew it would end what the person did not mean
		a.state.Tasks = slices.Delete(a.state.Tasks, 0, 1)
		if saveErr := a.save(); saveErr != nil {
			return true, saveErr
		}
		return true, err
	case errors.Is(err, ErrNotFrozen): // what was wanted is so
		a.needless = a.stroke
		a.state.Tasks = slices.Delete(a.state.Tasks, 0, 1)
		return true, a.save()
	case refused(err) && !t.stops():
		a.drop(a.stroke)
		return true, errors.Join(err, a.save())
	}
	return true, err
}

// ErrContactClosed: whom something was to be given to closed their account. It is a policies.CodePartyClosed.
var ErrContactClosed = fmt.Errorf("%w, so nothing can be given to it any more", policies.CodePartyClosed)

// saidToBeClosed goes by a refusal that says that a contact is gone: by the vault's own word, where it can be had. On the storefront's alone one who is there would lose what is carried over to them.
func (a *attempt) saidToBeClosed(ctx context.Context, e *envelope.Envelope) error {
	if a.wire.owners == nil {
		return a.contactClosed()
	}
	second, cancel := context.WithTimeout(ctx, 2*routeTimeout)
	defer cancel()
	in := &vaultapi.Submission{Envelope: e.Raw, Keys: a.keys}
	switch err := a.post(second, a.v, request{method: "POST", path: vaultapi.PathDocuments, base: a.wire.owners, in: in}, e); {
	case err == nil:
		a.state.Untold = append(a.state.Untold, e.Raw)
		return a.done(e)
	case errors.Is(err, policies.CodePartyClosed), errors.Is(err, policies.CodeUnavailable) && ctx.Err() == nil:
		return a.contactClosed()
	default:
		return err
	}
}

// contactClosed gives up the first task, whose reader or writer closed their account, and nothing else. Until this device is opened anew nothing is carried
// over to them; what nobody asked for is not told.
func (a *attempt) contactClosed() error {
	t := a.state.Tasks[0]
	if a.departed == nil {
		a.departed = map[policies.ReaderID]bool{}
	}
	a.departed[t.Reader] = true
	a.state.Tasks = slices.Delete(a.state.Tasks, 0, 1)
	if err := a.save(); err != nil || !t.wished() {
		return err
	}
	name := t.Reader.String()
	if c, ok := a.contact(t.Reader); ok && c.Alias != "" {
		name = c.Alias
	}
	return fmt.Errorf("%s: %w", name, ErrContactClosed)
}

// anew lets the document be made again, and reports whether there is none to be made any more.
func (a *attempt) anew() (done bool) {
	if !a.retake() {
		return true
	}
	a.t.Envelope = nil
	return false
}

// fetchPrior fetches what came first, from the vault where the storefront does not show it.
func (a *attempt) fetchPrior(ctx context.Context, refusal error) error {
	known, revoke := a.state.Known, a.t.Kind == taskRevoke || a.t.Kind == taskEndWrite
	err := a.syncChain(ctx)
	switch {
	case a.state.Known != known && (err == nil || revoke): // more than the refusal told of, for all that fails after it
		return nil
	case revoke:
		// It may be a document of this device's own, accepted and not stored before the storefront died, which waits behind the
		// revocation to be sent again.
		return a.locate(ctx, a.v, refusal)
	case err == nil && a.wire.owners != nil:
		return a.recover(ctx, refusal)
	}
	return err
}

// writtenOn has the end of a permission to write name what the writer wrote last.
func (a *attempt) writtenOn(ctx context.Context, e *envelope.Envelope, refusal error) error {
	d, err := policies.Decode[writing.End](e)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	err = a.syncWritten(ctx, d.Writer)
	a.t = &a.state.Tasks[0]
	hidden := err != nil || a.seenOf(d.Writer) <= d.Last.Version
	a.moved[d.Writer]++
	if a.t.Reason == policies.ReasonSuperseded {
		a.tries-- // nothing that waits behind it is held up by how many writers there are, or by what they do
		if hidden || a.moved[d.Writer] > 2 {
			a.goesOn = append(a.goesOn, d.Writer)
		}
	} else if hidden {
		return errors.Join(refusal, err)
	}
	a.t.Envelope = nil
	return nil
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
	// Also if it was given up before: that another document came first, or that the keys which signed it are no more, may have been all that was known.
	o.state.Tasks = slices.Insert(o.state.Tasks, 0, task{Kind: taskPublish, Stroke: t.Stroke, Hold: true})
	return o.save()
}
