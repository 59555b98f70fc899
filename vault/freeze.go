package vault

import (
	"context"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/freeze"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/internal/ledger"
)

// freeze stops all reading of an owner: two operators ask for it, each with a signature of their own. Uses that were decided before its record are carried out.
func (v *Vault) freeze(ctx context.Context, e *envelope.Envelope) (*evidence.Receipt, error) {
	d, err := open(v, e, func(f *freeze.Document) policies.IdentityID { return f.Operator })
	if err != nil {
		return nil, err
	}
	f := d.doc
	order, signed, err := f.First()
	if err != nil {
		return nil, v.stranger(err)
	}
	var first *ledger.Identity
	closed := false
	v.ledger.Read(func(s *ledger.State) { first, closed = s.Identity(order.Operator), s.Closed(order.Operator) })
	if first == nil || closed {
		return nil, v.stranger(policies.CodeUnknown)
	}
	key, err := first.Verifier()
	if err != nil {
		return nil, err
	}
	if err := signed.Verify(key); err != nil {
		return nil, v.stranger(err)
	}
	defer v.owners.lock(f.Owner)()
	if receipt, err := v.again(ctx, e.Hash); receipt != nil || err != nil {
		return receipt, err
	}
	var owner policies.Pseudonym
	record, cp, err := accept(ctx, v, d, func(s *ledger.State, now time.Time) error {
		id := policies.IdentityID(f.Owner)
		_, used := s.Document(signed.Hash)
		switch {
		case f.Audience != v.cfg.Document.Vault:
			return policies.CodeWrongVault
		case !slices.Contains(v.cfg.Operators, f.Operator) || !slices.Contains(v.cfg.Operators, order.Operator):
			return policies.CodeOperator
		case s.Identity(first.ID).Generation != first.Generation:
			return policies.CodeKeyReplaced
		case used:
			return policies.CodeReplay
		case s.Closed(id):
			return policies.CodeClosed
		}
		if owner = s.Pseudonym(id); owner.IsZero() {
			return policies.CodeUnknown
		}
		return order.Live(now)
	}, func() ledger.Record {
		return ledger.Record{
			Kind: evidence.EntryFreeze, Owner: owner, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: f,
			Details: evidence.Details{Owner: f.Owner, Identity: f.Operator, Document: e.Hash, Note: order.Operator.String()},
		}
	})
	if err != nil {
		return nil, err
	}
	return v.receipt(&record, cp, e.Hash)
}

// thaw ends what operators stopped. Only the owner can, and only what was stopped when the owner decided it: a thaw that waited somewhere ends no later freeze.
func (v *Vault) thaw(ctx context.Context, e *envelope.Envelope) (*evidence.Receipt, error) {
	d, err := open(v, e, func(t *freeze.Thaw) policies.IdentityID { return policies.IdentityID(t.Owner) })
	if err != nil {
		return nil, err
	}
	t := d.doc
	d.owner = t.Owner
	defer v.owners.lock(d.owner)()
	if receipt, err := v.again(ctx, e.Hash); receipt != nil || err != nil {
		return receipt, err
	}
	frozen, err := v.frozenSince(d.owner) // nobody freezes meanwhile: that takes the owner's lock too
	if err != nil {
		return nil, err
	}
	record, cp, err := accept(ctx, v, d, func(s *ledger.State, now time.Time) error {
		if t.Audience != v.cfg.Document.Vault {
			return policies.CodeWrongVault
		}
		if err := follows(s, d.owner, t.Link); err != nil {
			return err
		}
		if !s.Frozen(d.owner) {
			return problem.New(policies.CodeNotFound, "nothing is frozen")
		}
		if err := t.Ends(frozen, now); err != nil && t.Time < frozen.Unix() {
			return problem.New(policies.CodeExpired, "the thaw was decided before the newest freeze; sign a new one, and if this one is new, check the clock")
		} else if err != nil {
			return problem.New(policies.CodeExpired, "the thaw is of a time to come; check the clock and sign a new one")
		}
		return nil
	}, func() ledger.Record {
		return ledger.Record{
			Kind: evidence.EntryThaw, Owner: d.signer.Pseudonym, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: t,
			Details: evidence.Details{Owner: d.owner, Identity: d.signer.ID, Document: e.Hash, Seq: t.Seq},
		}
	})
	if err != nil {
		return nil, err
	}
	return v.receipt(&record, cp, e.Hash)
}

// Freeze is the receipt of the newest freeze of an owner, none if nothing is frozen.
func (v *Vault) Freeze(owner policies.OwnerID) (*api.FreezeState, error) {
	var index uint64
	known := false
	v.ledger.Read(func(s *ledger.State) { index, known = s.FrozenBy(owner), s.Identity(policies.IdentityID(owner)) != nil })
	if !known {
		return nil, policies.CodeNotFound
	}
	if index == 0 {
		return new(api.FreezeState), nil
	}
	r, err := v.read(index)
	if err != nil {
		return nil, err
	}
	receipt, err := v.receipt(r, v.cfg.Log.Checkpoint(), r.Details.Document)
	return &api.FreezeState{Receipt: receipt}, err
}

// frozenSince is when the newest freeze of an owner was recorded, zero if nothing is frozen.
func (v *Vault) frozenSince(owner policies.OwnerID) (time.Time, error) {
	var index uint64
	v.ledger.Read(func(s *ledger.State) { index = s.FrozenBy(owner) })
	if index == 0 {
		return time.Time{}, nil
	}
	r, err := v.read(index)
	if err != nil {
		return time.Time{}, err
	}
	return r.Time, nil
}
