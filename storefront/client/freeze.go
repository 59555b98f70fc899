package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/freeze"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// Thaw ends what two operators of the vault stopped: whoever may read reads again. It returns nil when the vault has recorded it; policies.CodeNotFound: nothing is stopped.
// One that could not be sent is kept and sent later; if it has become needless by then, because another device came first, it is done.
func (o *Owner) Thaw(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if slices.ContainsFunc(o.state.Tasks, func(t task) bool { return t.Kind == taskThaw }) {
		return o.run(ctx)
	}
	t := task{Kind: taskThaw, Stroke: policies.NewDocumentID()}
	o.state.Tasks = append(o.state.Tasks, t)
	if err := o.saveAndRun(ctx); err != nil || o.needless != t.Stroke {
		return err
	}
	return errNotFrozen
}

// errNotFrozen is what the vault itself says to a thaw of nothing.
var errNotFrozen = fmt.Errorf("%w: nothing is stopped", policies.CodeNotFound)

// deliverThaw sends a thaw. That there is nothing to end the vault must say itself: if the storefront's word were enough, it could keep a person stopped who
// believes the opposite.
func (o *Owner) deliverThaw(ctx context.Context, v *policies.VaultDocument, e *envelope.Envelope) error {
	vaults, err := o.deliverSuccession(ctx, v, e)
	switch {
	case !errors.Is(err, policies.CodeNotFound) || o.wire.owners == nil:
		return err
	case vaults:
		return errNotFrozen
	}
	return fmt.Errorf("%w: that nothing is stopped only the storefront says", policies.CodeUnavailable)
}

func (o *Owner) buildThaw(v *policies.VaultDocument) (*envelope.Envelope, error) {
	return policies.Sign(o.signing, &freeze.Thaw{Header: policies.NewHeader("thaw", o.now()), Audience: v.Vault, Owner: o.ID(), Link: o.nextLink()})
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
