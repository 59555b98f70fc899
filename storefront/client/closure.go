package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// CloseAccount ends the owner's account for ever: nobody reads anything any more, the keys are destroyed in the token, the storefront deletes what it has, and the vault erases
// what lies beside the owner's log entries 48 hours later. It returns nil when a verified receipt says that the vault recorded it, or the vault itself that another device closed it. What is on this device stays until the
// caller deletes it; readers keep what they have read. [ErrNotStopped]: nothing proves it yet; call it again. [ErrUntold]: the vault has closed it, and the storefront, which was silent,
// still has what nobody can read any more; call it again, before the device forgets its keys.
func (o *Owner) CloseAccount(ctx context.Context) (err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	v, err := o.vault(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotStopped, err)
	}
	for range 3 {
		var e *envelope.Envelope
		if raw := o.state.Closing; raw != nil {
			e, err = envelope.Parse(raw)
		} else {
			e, err = policies.Sign(o.signing, &policies.Closure{
				Header: policies.NewHeader("closure", o.now()), Audience: v.Vault, Owner: o.ID(), Link: o.nextLink(),
			})
		}
		if err != nil {
			return err
		}
		// Killed after this line, the document is sent again: the vault knows it by its hash.
		if o.state.Closing = e.Raw; o.save() != nil {
			return o.save()
		}
		untold, err := o.deliverClosure(ctx, v, e)
		switch {
		case err == nil:
			o.state.Closed = true
			if err := o.save(); err != nil || untold == nil {
				return err
			}
			return fmt.Errorf("%w: %w", ErrUntold, untold)
		case !errors.Is(err, policies.CodeChain):
			return fmt.Errorf("%w: %w", ErrNotStopped, err)
		}
		// Another device was faster, or the attempt before was accepted and its answer lost.
		o.state.Closing = nil
		if err := o.syncChain(ctx); err != nil {
			return fmt.Errorf("%w: %w", ErrNotStopped, err)
		}
	}
	return fmt.Errorf("%w: %w", ErrNotStopped, err)
}

// ErrUntold: the account is closed, and the storefront has not been told of it.
var ErrUntold = errors.New("the account is closed, but the storefront does not answer and still has what it keeps; try again")

// deliverClosure takes the storefront's route, which deletes what it has, and else the vault's own: untold is then why the storefront was not told.
func (o *Owner) deliverClosure(ctx context.Context, v *policies.VaultDocument, e *envelope.Envelope) (untold, err error) {
	first, cancel := context.WithTimeout(ctx, 2*routeTimeout)
	err = o.post(first, v, request{method: "POST", path: path(api.PathClosure, o.id.String()), raw: e.Raw, login: true}, e)
	cancel()
	if errors.Is(err, policies.CodeClosed) && !o.state.Closed { // by this very document, perhaps, and the answer was lost: then the vault gives its receipt again, and to that no login is needed
		again, cancel := context.WithTimeout(ctx, 2*routeTimeout)
		proven := o.post(again, v, request{method: "POST", path: path(api.PathSuccessions, o.id.String()), raw: e.Raw}, e)
		cancel()
		if proven == nil {
			return nil, nil
		}
	}
	if err == nil || o.wire.owners == nil || o.provenMoved(ctx, v, err, policies.Hash(e.Hash)) {
		return nil, err
	}
	told := errors.Is(err, policies.CodeClosed) // it deleted everything, the login's key too, and the answer was lost, or another device was told
	if told && o.state.Closed {
		return nil, nil
	}
	second, cancel := context.WithTimeout(ctx, 2*routeTimeout)
	defer cancel()
	in := &vaultapi.Submission{Envelope: e.Raw}
	err2 := o.post(second, v, request{method: "POST", path: vaultapi.PathDocuments, base: o.wire.owners, in: in}, e)
	switch {
	case errors.Is(err2, policies.CodeChain):
		return nil, err2
	case err2 != nil && !errors.Is(err2, policies.CodeClosed): // by another device, as the vault itself says
		return nil, fmt.Errorf("%w; and over the second route: %w", err, err2)
	case told:
		return nil, nil
	}
	return err, nil
}

// Closed reports whether the account was closed by this device.
func (o *Owner) Closed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state.Closed
}

// ErrEnded: the account is closed, as this device knows by its own closing or by the vault itself, which another device told. Nobody reads anything of it any more: the keys of all that was
// granted are destroyed. So what waited to be ended has ended, and what else waited can never be done. It is a policies.CodeClosed too.
var ErrEnded = fmt.Errorf("%w: nobody reads anything of it any more, and what was to be ended has ended with it", policies.CodeClosed)

// afterClosing makes an [ErrEnded] of an error that says that the account is closed, and forgets what waits, if that is proven or the vault says it itself. The storefront's word is not enough: a
// revocation would be forgotten by it.
func (o *Owner) afterClosing(ctx context.Context, err error) error {
	if !errors.Is(err, policies.CodeClosed) || errors.Is(err, ErrEnded) {
		return err
	}
	if !o.state.Closed {
		v, _ := o.trust.current()
		if v == nil || o.wire.owners == nil {
			return err
		}
		if _, why := o.ask(ctx, v); !errors.Is(why, policies.CodeClosed) { // somebody else's account, perhaps
			return err
		}
	}
	o.state.Tasks = nil
	if err := o.save(); err != nil {
		return err
	}
	return ErrEnded
}
