package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/freeze"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// Thaw ends what two operators of the vault stopped until now: whoever may read reads again. It returns nil when the vault has recorded it; [ErrNotFrozen]: nothing is stopped, as the vault itself says.
// One that could not be sent is kept and sent later; if it has become needless by then, because another device came first, it is done. It ends nothing that was stopped
// after the person asked: the vault refuses it then, and it is given up ([ErrThawOld]). Called again it asks anew, and does not send what waited.
func (o *Owner) Thaw(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := task{Kind: taskThaw, Stroke: policies.NewDocumentID(), Wished: o.now().Unix()}
	// What was sent before may be in force, and ended an earlier stop only. It has a place in the chain then, where this one meets it.
	at := slices.IndexFunc(o.state.Tasks, func(t task) bool { return t.Kind == taskThaw })
	if at >= 0 {
		o.state.Tasks[at] = t
	} else {
		o.state.Tasks = append(o.state.Tasks, t)
	}
	if err := o.saveAndRun(ctx); err != nil || o.needless != t.Stroke || at >= 0 {
		return err
	}
	return ErrNotFrozen
}

// ErrThawOld: two operators stopped all reading after the person had asked for the end of such a stop, or the device's clock is wrong.
var ErrThawOld = errors.New("what you asked for ends only what was stopped before; if you mean the newest stop too, ask again, and if that does not help, set this device's clock right")

// tooOld is an [ErrThawOld] by a refusal of the vault.
func tooOld(err error) error { return fmt.Errorf("ending the stop: %w: %w", ErrThawOld, err) }

// ErrNotFrozen: there is no stop to be ended, as the vault itself says. It is a policies.CodeNotFound too, which a storefront can say as well.
var ErrNotFrozen = fmt.Errorf("%w: nothing is stopped", policies.CodeNotFound)

// Frozen is when two operators stopped all reading of this person, by the vault's log, as far as this device has heard. Zero: nothing is stopped.
func (o *Owner) Frozen() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state.Frozen == 0 {
		return time.Time{}
	}
	return time.Unix(o.state.Frozen, 0)
}

// learnFrozen asks whether all reading is stopped. That it is, is believed on the vault's receipt; that it is over, on a thaw in this person's own chain.
func (o *Owner) learnFrozen(ctx context.Context, v *policies.VaultDocument) error {
	var s vaultapi.FreezeState
	err := o.wire.call(ctx, request{method: http.MethodGet, path: path(api.PathFreeze, o.id.String()), out: &s, login: true})
	if err != nil || s.Receipt == nil {
		return err
	}
	at, details, err := o.openedAt(ctx, v, s.Receipt, s.Receipt.Document, evidence.EntryFreeze)
	if err == nil && details.Owner != o.ID() {
		err = fmt.Errorf("%w: the receipt is about somebody else", ErrUntrue)
	}
	if err != nil {
		return fmt.Errorf("asking whether all reading is stopped: %w", err)
	}
	if at.Unix() > max(o.state.Thawed, o.state.Frozen) {
		o.state.Frozen, o.unsaved = at.Unix(), true
	}
	return nil
}

// applyThaw takes over that reading goes on: a thaw ends what was stopped until its time, to the second.
func (o *Owner) applyThaw(e *envelope.Envelope) error {
	t, err := policies.Decode[freeze.Thaw](e)
	if err != nil {
		return err
	}
	if o.state.Thawed = max(o.state.Thawed, t.Time); o.state.Frozen <= o.state.Thawed {
		o.state.Frozen = 0
	}
	return nil
}

// deliverThaw sends a thaw. That there is nothing to end, or that it is too old, the vault must say itself: if the storefront's word were enough, it could keep a person stopped who
// believes the opposite.
func (o *Owner) deliverThaw(ctx context.Context, v *policies.VaultDocument, e *envelope.Envelope) error {
	vaults, err := o.deliverSuccession(ctx, v, e)
	needless, old := errors.Is(err, policies.CodeNotFound), errors.Is(err, policies.CodeExpired)
	switch {
	case old && (vaults || o.wire.owners == nil):
		return tooOld(err)
	case !needless && !old || o.wire.owners == nil:
		return err
	case vaults: // so what this device takes for a stop that is in force is over: it was shown late, to a device that does not know the thaw
		o.state.Thawed, o.state.Frozen, o.unsaved = max(o.state.Thawed, o.state.Frozen), 0, true
		return ErrNotFrozen
	case old:
		return fmt.Errorf("%w: that it is too old only the storefront says", policies.CodeUnavailable)
	}
	return fmt.Errorf("%w: that nothing is stopped only the storefront says", policies.CodeUnavailable)
}

func (o *Owner) buildThaw(t *task, v *policies.VaultDocument) (*envelope.Envelope, error) {
	return policies.Sign(o.signing, &freeze.Thaw{Header: policies.NewHeader("thaw", o.decided(t)), Audience: v.Vault, Owner: o.ID(), Link: o.nextLink()})
}

// FreezeOrder is the first half of a freeze: this operator, who has seen that it is the owner who asks, wants all reading of the owner stopped. The
// envelope is for the second operator; it is worth nothing alone, and nothing after a day.
func (r *Reader) FreezeOrder(ctx context.Context, owner policies.OwnerID) ([]byte, error) {
	v, err := r.vault(ctx)
	if err != nil {
		return nil, err
	}
	now := r.now()
	e, err := policies.Sign(r.signing, &freeze.Order{
		Header: policies.NewHeader("freeze-order", now), Audience: v.Vault, Owner: owner, Operator: r.id, Expires: now.Add(freeze.Lifetime).Unix(),
	})
	if err != nil {
		return nil, err
	}
	return e.Raw, nil
}

// ReadFreezeOrder reads what another operator ordered. It is a claim: the vault verifies the signature.
func ReadFreezeOrder(raw []byte) (*freeze.Order, error) {
	e, err := envelope.Parse(raw)
	if err != nil {
		return nil, err
	}
	return policies.Decode[freeze.Order](e)
}

// Freeze is the second half: with this operator's signature the order goes to the vault itself, past the storefront. It returns nil when a verified receipt says that the vault
// recorded it, and nothing of the owner is read any more.
func (r *Reader) Freeze(ctx context.Context, order []byte) error {
	v, err := r.vault(ctx)
	if err != nil {
		return err
	}
	o, err := ReadFreezeOrder(order)
	if err != nil {
		return err
	}
	d := &freeze.Document{Header: policies.NewHeader("freeze", r.now()), Audience: v.Vault, Owner: o.Owner, Operator: r.id, Order: order}
	if err := d.Validate(); err != nil {
		return err
	}
	e, err := policies.Sign(r.signing, d)
	if err != nil {
		return err
	}
	receipt := new(evidence.Receipt)
	in := &vaultapi.Submission{Envelope: e.Raw}
	if err := r.ofVault(ctx, request{method: http.MethodPost, path: vaultapi.PathDocuments, in: in, out: receipt}); err != nil {
		return fmt.Errorf("stopping all reading: %w", err)
	}
	details, err := r.opened(ctx, v, receipt, policies.Hash(e.Hash), evidence.EntryFreeze)
	if err == nil && details.Owner != o.Owner {
		err = errors.New("the receipt is about somebody else")
	}
	if err != nil {
		return fmt.Errorf("stopping all reading: %w: %w", ErrUntrue, err)
	}
	return nil
}
