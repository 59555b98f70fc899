package client

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
)

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
	if err := o.run(ctx); err != nil {
		return err
	}
	o.lookAround(ctx)
	return nil
}

// run carries out the tasks in order until one fails. What failed stays, unless it was refused for good.
func (o *Owner) run(ctx context.Context) error {
	var old error // what was given up keeps nothing that waits behind it
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
			if errors.Is(err, ErrThawOld) || errors.Is(err, ErrContactClosed) {
				old, err = errors.Join(old, err), nil
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

// first reports whether the first task belongs to a stroke.
func (o *Owner) first(stroke policies.DocumentID) bool {
	return len(o.state.Tasks) > 0 && o.state.Tasks[0].Stroke == stroke
}

// drop gives up an operation, but never a revocation. With a change of the root goes what that was to be.
func (o *Owner) drop(stroke policies.DocumentID) {
	o.state.Tasks = slices.DeleteFunc(o.state.Tasks, func(t task) bool {
		if r := o.state.Replacing; r != nil && t.Stroke == stroke && (t.Kind == taskSucceed || t.Kind == taskNotice && !t.TakeBack) {
			r.zero()
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
		policies.CodePartyClosed,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}
