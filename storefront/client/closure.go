package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// CloseAccount ends the owner's account for ever: nobody reads anything any more, the keys are destroyed in the token, the storefront deletes what it has, and
// the vault erases what lies beside the owner's log entries 48 hours later. It returns nil when a verified receipt says that the vault recorded it, this
// device's closing or another's. What is on this device stays until the caller deletes it; readers keep what they have read. [ErrNotStopped]: nothing proves it
// yet; call it again. [ErrSaidClosed] besides: somebody says that it is closed already. [ErrUntold]: the vault has closed it, and the storefront, which was
// silent, still has what nobody can read any more; call it again, before the device forgets its keys.
func (o *Owner) CloseAccount(ctx context.Context) (err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer func() {
		if errors.Is(err, ErrReplaced) { // what this device signed closes nothing, and never will
			o.state.Closing = nil
			err = errors.Join(fmt.Errorf("closing the account: %w", ErrReplaced), o.save())
		}
	}()
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

// neverClosing is a closing that can never be: it does not follow the identity. Only the owner of an account that is closed gets something for it, and nothing
// comes of it if it is open: whoever has it learns the chain's newest link at most. It is no question to which the vault would show the owner's chain.
func (o *Owner) neverClosing() (*envelope.Envelope, error) {
	nonce := policies.NewNonce()
	return policies.Sign(o.signing, &policies.Closure{
		Header: policies.NewHeader("closure", o.now()), Audience: o.state.Network.Vault, Owner: o.ID(), Link: policies.Link{Seq: 1, Prev: sha256.Sum256(nonce[:])},
	})
}

// ErrUntold: the account is closed, and the storefront has not been told of it.
var ErrUntold = errors.New("the account is closed, but the storefront does not answer and still has what it keeps; try again")

// deliverClosure takes the storefront's route, which deletes what it has, and else the vault's own: untold is then why the storefront was not told.
func (o *Owner) deliverClosure(ctx context.Context, v *policies.VaultDocument, e *envelope.Envelope) (untold, err error) {
	try := func(r request) error {
		ctx, cancel := context.WithTimeout(ctx, 2*routeTimeout)
		defer cancel()
		r.method = "POST"
		return o.closedBy(ctx, v, o.ID(), o.post(ctx, v, r, e))
	}
	err = try(request{path: path(api.PathClosure, o.id.String()), raw: e.Raw, login: true})
	told := errors.Is(err, ErrSaidClosed) // it deleted everything, the login's key too, and the answer was lost, or another device was told
	if told && (o.state.Closed || try(request{path: path(api.PathSuccessions, o.id.String()), raw: e.Raw}) == nil) {
		return nil, nil
	}
	if err == nil || o.wire.owners == nil || o.provenMoved(ctx, v, err, policies.Hash(e.Hash)) {
		return nil, err
	}
	err2 := try(request{path: vaultapi.PathDocuments, base: o.wire.owners, in: &vaultapi.Submission{Envelope: e.Raw}})
	switch {
	case errors.Is(err2, policies.CodeChain):
		return nil, err2
	case err2 != nil:
		return nil, fmt.Errorf("%w; and over the second route: %w", err, err2)
	case told:
		return nil, nil
	}
	return err, nil
}

// ErrSaidClosed: somebody says that the account is closed, and does not prove it. Nothing that was wished is forgotten by that. Anybody on the way to the vault may say so, for
// ever; the vault itself proves it to whoever has the account's keys, and to the readers that it had when they give something up. It is a policies.CodeClosed too.
var ErrSaidClosed = fmt.Errorf("%w (so it is said, but nothing proves it, so it is not believed: try again later, and if it stays so ask the operator of the vault)", policies.CodeClosed)

// closedBy is nil for a refusal that carries the vault's receipt of the closing of this very account, and [ErrSaidClosed] for one that only says so. What is
// neither stays what it is.
func (d *device) closedBy(ctx context.Context, v *policies.VaultDocument, account policies.OwnerID, err error) error {
	if !errors.Is(err, policies.CodeClosed) {
		return err
	}
	var p *problem.Problem
	if !errors.As(err, &p) || p.Code != policies.CodeClosed || p.Receipt == nil {
		return ErrSaidClosed
	}
	details, why := d.opened(ctx, v, p.Receipt, p.Receipt.Document, evidence.EntryClosure)
	if why == nil && details.Owner != account {
		why = fmt.Errorf("%w: the receipt is of somebody else's closing", ErrUntrue)
	}
	if why != nil {
		return fmt.Errorf("%w: %w", ErrSaidClosed, why)
	}
	return nil
}

// closedAccount finds out whether the account is closed, of which something was told that says so: from that itself, from the vault by the storefront, which
// passes on what the account's key signed, or from the vault's own listener. It returns nil if that is proven.
func (o *Owner) closedAccount(ctx context.Context, v *policies.VaultDocument, told error) error {
	err := o.closedBy(ctx, v, o.ID(), told)
	if err == nil {
		return nil
	}
	e, signErr := o.neverClosing()
	if signErr != nil {
		return signErr
	}
	routes := []request{{path: path(api.PathSuccessions, o.id.String()), raw: e.Raw}}
	if o.wire.owners != nil {
		routes = append(routes, request{path: vaultapi.PathDocuments, base: o.wire.owners, in: &vaultapi.Submission{Envelope: e.Raw}})
	}
	for _, r := range routes {
		ctx, cancel := context.WithTimeout(ctx, routeTimeout)
		defer cancel()
		r.method, r.out = "POST", new(evidence.Receipt)
		why := o.wire.call(ctx, r)
		if errors.Is(why, policies.CodeClosed) {
			why = o.closedBy(ctx, v, o.ID(), why)
			if why == nil {
				return nil
			}
			if errors.Is(why, ErrUntrue) {
				err = why
			}
		}
	}
	return err
}

// Closed reports whether the account is closed, as this device knows by a verified receipt.
func (o *Owner) Closed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state.Closed
}

// ErrEnded: the account is closed, as a verified receipt says. Nobody reads anything of it any more: the keys of all that was granted are destroyed. So what
// waited to be ended has ended, and what else waited can never be done. It is a policies.CodeClosed too.
var ErrEnded = fmt.Errorf("%w: nobody reads anything of it any more, and what was to be ended has ended with it", policies.CodeClosed)

// afterClosing makes an [ErrEnded] of an error that says that the account is closed, and forgets what waits, if a receipt proves it. Nobody's word is enough,
// the storefront's or that of what answers in the vault's place: a revocation would be forgotten by it.
func (o *Owner) afterClosing(ctx context.Context, err error) error {
	if !errors.Is(err, policies.CodeClosed) || errors.Is(err, ErrEnded) {
		return err
	}
	if !o.state.Closed {
		v, _ := o.trust.current()
		if v == nil {
			return fmt.Errorf("%w: %w", err, ErrSaidClosed)
		}
		if why := o.closedAccount(ctx, v, err); why != nil {
			return fmt.Errorf("%w: %w", err, why)
		}
	}
	// In one: killed before, the device asks again.
	o.state.Closed, o.state.Tasks = true, nil
	if err := o.save(); err != nil {
		return err
	}
	return ErrEnded
}
