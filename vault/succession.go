package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/vault/internal/ledger"
)

// accepted reports whether a document is in force, or was.
func (v *Vault) accepted(hash policies.Hash) (known bool) {
	v.ledger.Read(func(s *ledger.State) { _, known = s.Document(hash) })
	return known
}

// succeed gives an identity new keys. From its record on nothing that the keys before sign is accepted, and the sessions that they opened are over.
func (v *Vault) succeed(ctx context.Context, e *envelope.Envelope) (*evidence.Receipt, error) {
	claim, err := policies.Decode[succession.Document](e)
	if err != nil {
		return nil, v.stranger(err)
	}
	owner := policies.OwnerID(claim.Identity)
	defer v.owners.lock(owner)()
	if receipt, err := v.again(ctx, e.Hash); receipt != nil || err != nil {
		return receipt, err
	}
	var before *ledger.Identity
	closed := false
	v.ledger.Read(func(s *ledger.State) { before, closed = s.Identity(claim.Identity), s.Closed(claim.Identity) })
	if before == nil {
		return nil, v.stranger(policies.CodeUnknown)
	}
	if closed { // an entry of theirs would stay when all of theirs before it go
		return nil, v.stranger(policies.CodeClosed)
	}
	line, err := v.line(before)
	if err != nil {
		return nil, err
	}
	doc, err := line.Open(e)
	if err != nil {
		return nil, v.stranger(err)
	}
	d := &signed[succession.Document]{Envelope: e, doc: doc, signer: before, owner: owner}
	record, cp, err := accept(ctx, v, d, func(s *ledger.State, now time.Time) error {
		if doc.Audience != v.cfg.Document.Vault {
			return policies.CodeWrongVault
		}
		if err := follows(s, owner, doc.Link); err != nil {
			return err
		}
		return timely(s.Identity(doc.Identity), doc, now)
	}, func() ledger.Record {
		return ledger.Record{
			Kind: evidence.EntrySuccession, Owner: before.Pseudonym, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: doc,
			Details: evidence.Details{Owner: owner, Identity: doc.Identity, Document: e.Hash, Seq: doc.Seq, Version: doc.Generation, Note: string(doc.Reason)},
		}
	})
	if err != nil {
		return nil, err
	}
	return v.receipt(&record, cp, e.Hash)
}

// line is an identity as a succession must follow it, with all keys of the document in force: a client does not follow one that keeps a key.
func (v *Vault) line(i *ledger.Identity) (succession.Line, error) {
	line, index := i.Line(), uint64(0)
	v.ledger.Read(func(s *ledger.State) { index, _ = s.Document(i.Document) })
	record, err := v.read(index)
	if err != nil {
		return line, err
	}
	h := &line.Holders[0]
	switch d := record.Document.(type) {
	case *policies.Identity:
		h.KEMKey, h.LoginKey = d.KEMKey, d.LoginKey
	case *succession.Document:
		h.KEMKey, h.LoginKey = d.KEMKey, d.LoginKey
	default:
		return line, fmt.Errorf("%w: entry %d is no document of an identity's keys", ledger.ErrOrder, index)
	}
	return line, nil
}

// timely says whether a succession may take effect now. With the recovery key it may.
func timely(i *ledger.Identity, d *succession.Document, now time.Time) error {
	if len(d.RecoveryKey) > 0 {
		return nil
	}
	a := i.Announced
	if a.Notice.IsZero() || a.Notice != d.Notice || a.Successor != d.Successor() {
		return policies.CodeSuccessionUnannounced
	}
	if wait := a.Since.Add(succession.Wait).Sub(now); wait > 0 {
		return problem.New(policies.CodeSuccessionPending, "%s are left", wait.Round(time.Minute))
	}
	return nil
}

// announce takes the notice of a change of keys to come, or that there is to be none.
func (v *Vault) announce(ctx context.Context, e *envelope.Envelope) (*evidence.Receipt, error) {
	d, err := open(v, e, func(n *succession.Notice) policies.IdentityID { return n.Identity })
	if err != nil {
		return nil, err
	}
	n := d.doc
	d.owner = policies.OwnerID(n.Identity)
	defer v.owners.lock(d.owner)()
	if receipt, err := v.again(ctx, e.Hash); receipt != nil || err != nil {
		return receipt, err
	}
	record, cp, err := accept(ctx, v, d, func(s *ledger.State, _ time.Time) error {
		if n.Audience != v.cfg.Document.Vault {
			return policies.CodeWrongVault
		}
		if err := follows(s, d.owner, n.Link); err != nil {
			return err
		}
		if !n.Successor.IsZero() && !s.Identity(n.Identity).Announced.Notice.IsZero() {
			return problem.New(policies.CodeSuccessionPending, "another one is announced; take that back first")
		}
		return nil
	}, func() ledger.Record {
		note := "announced"
		if n.Successor.IsZero() {
			note = "taken back"
		}
		return ledger.Record{
			Kind: evidence.EntryNotice, Owner: d.signer.Pseudonym, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: n,
			Details: evidence.Details{Owner: d.owner, Identity: n.Identity, Document: e.Hash, Seq: n.Seq, Note: note},
		}
	})
	if err != nil {
		return nil, err
	}
	return v.receipt(&record, cp, e.Hash)
}

// suspend ends the use of all grants that a reader has. Their keys stay in the token until their owners revoke them, which a new grant does.
func (v *Vault) suspend(ctx context.Context, e *envelope.Envelope) (*evidence.Receipt, error) {
	d, err := open(v, e, func(s *succession.Suspension) policies.IdentityID { return policies.IdentityID(s.Reader) })
	if err != nil {
		return nil, err
	}
	n := d.doc
	d.owner = policies.OwnerID(n.Reader) // of the chain
	defer v.owners.lock(d.owner)()
	if receipt, err := v.again(ctx, e.Hash); receipt != nil || err != nil {
		return receipt, err
	}
	record, cp, err := accept(ctx, v, d, func(s *ledger.State, _ time.Time) error {
		if n.Audience != v.cfg.Document.Vault {
			return policies.CodeWrongVault
		}
		return follows(s, d.owner, n.Link)
	}, func() ledger.Record {
		return ledger.Record{
			Kind: evidence.EntrySuspension, Reader: d.signer.Pseudonym, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: n,
			Details: evidence.Details{Reader: n.Reader, Identity: d.signer.ID, Document: e.Hash, Seq: n.Seq},
		}
	})
	if err != nil {
		return nil, err
	}
	return v.receipt(&record, cp, e.Hash)
}

// giveUp ends fields of grants for their reader, as a revocation does for the owner: refused from its record on, then the keys are destroyed, then the receipt. The record is under
// the owner too, whose history it is part of. It is no link of a chain, so the same document again is known by its hash.
func (v *Vault) giveUp(ctx context.Context, e *envelope.Envelope) (*evidence.Receipt, error) {
	d, err := open(v, e, func(n *succession.Renunciation) policies.IdentityID { return policies.IdentityID(n.Reader) })
	if err != nil {
		return nil, err
	}
	n := d.doc
	defer v.owners.lock(n.Owner)()
	if receipt, err := v.again(ctx, e.Hash); receipt != nil || err != nil {
		return receipt, err
	}
	var owner policies.Pseudonym
	ended := false // with the account of the owner, whose reader this was
	record, cp, err := accept(ctx, v, d, func(s *ledger.State, _ time.Time) error {
		if n.Audience != v.cfg.Document.Vault {
			return policies.CodeWrongVault
		}
		if s.Closed(policies.IdentityID(n.Owner)) {
			ended = slices.ContainsFunc(n.Items, func(item policies.RevokedItem) bool {
				g := s.Grant(item.Grant)
				return g != nil && g.Document.Owner == n.Owner && g.Document.Reader == n.Reader
			})
			return problem.New(policies.CodeClosed, "the owner closed their account, and all grants ended with it")
		}
		owner = s.Pseudonym(policies.IdentityID(n.Owner))
		left := false
		for i, item := range n.Items {
			g := s.Grant(item.Grant)
			if g == nil || g.Document.Owner != n.Owner || g.Document.Reader != n.Reader {
				return problem.New(policies.CodeNoGrant, "item %d: no such grant of this owner to this reader", i)
			}
			at, ok := g.Find(item.Field, item.Author)
			if !ok {
				return problem.New(policies.CodeNoGrant, "item %d: the grant has no such field", i)
			}
			left = left || !g.Revoked[at]
		}
		if !left { // nobody fills an owner's history with the end of what has ended
			return policies.CodeRevoked
		}
		return nil
	}, func() ledger.Record {
		return ledger.Record{
			Kind: evidence.EntryGivenUp, Owner: owner, Reader: d.signer.Pseudonym, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: n,
			Details: evidence.Details{Owner: n.Owner, Reader: n.Reader, Document: e.Hash, Items: n.Items},
		}
	})
	if ended && errors.Is(err, policies.CodeClosed) && problem.Of(err).Receipt == nil { // their reader need not take anybody's word for it either
		err = v.closingOf(n.Owner)
	}
	if err != nil {
		return nil, err
	}
	if err := v.destroy(context.WithoutCancel(ctx), &ledger.Revocation{Hash: e.Hash, Owner: n.Owner, Index: record.Index, Items: n.Items}); err != nil {
		return nil, err
	}
	return v.receipt(&record, cp, e.Hash)
}
