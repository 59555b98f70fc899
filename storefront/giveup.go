package storefront

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// postRenunciation passes on to the vault that a reader gives up fields of grants. It is written down before: owners learn of renunciations by their place in the key-use log, and
// one that the vault accepted and a crash kept from being stored would come to light behind others, or never. A store that takes nothing does not stand in its way.
func (s *Storefront) postRenunciation(c *call) error {
	env, err := envelope.Parse(c.body)
	if err != nil {
		return err
	}
	d, err := policies.Decode[succession.Renunciation](env)
	if err != nil {
		return err
	}
	if policies.IdentityID(d.Reader) != c.subject {
		return problem.New(policies.CodeUnauthorized, "the renunciation is another reader's than the login")
	}
	if err := s.chargeDocument(c.subject, env); err != nil {
		return err
	}
	unlock, err := s.locks.lock(c.ctx, own(d.Owner))
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := detach(c.ctx)
	defer cancel()
	if err := s.lockedGivingUp(ctx, d.Owner); errors.Is(err, policies.CodeUnavailable) {
		return err
	} else if err != nil {
		s.log.Error("sending the vault again what a reader gave up", "error", err)
	}
	pending := key(kindGivingUp, d.Owner[:], env.Hash[:])
	if err := s.store.Commit(ctx, store.Change{Key: pending, Version: 1, Value: env.Raw}); err != nil {
		s.log.Error("writing down a renunciation before the vault has it", "error", err)
	}
	receipt, err := s.vault.Submit(ctx, vaultapi.Submission{Envelope: env.Raw})
	if err != nil {
		if !temporary(err) {
			s.forgetGivingUp(ctx, pending)
		}
		return err
	}
	if err := s.storeGivenUp(ctx, env, d, receipt); err != nil {
		s.log.Error("indexing a renunciation", "error", err)
		return c.json(http.StatusAccepted, receipt)
	}
	return c.json(http.StatusOK, receipt)
}

// storeGivenUp keeps what a reader gave up, once the vault has acknowledged it, and forgets that it was on its way.
func (s *Storefront) storeGivenUp(ctx context.Context, env *envelope.Envelope, d *succession.Renunciation, receipt *evidence.Receipt) error {
	changes := []store.Change{{Key: key(kindGivingUp, d.Owner[:], env.Hash[:]), Delete: true}}
	changes, err := s.numbered(ctx, changes, d.Owner, api.Renunciation{Document: env.Raw, Receipt: receipt})
	if err != nil {
		return err
	}
	return s.endItems(ctx, changes, d.Owner, d.Items)
}

// numbered adds to changes that an owner hears of something that ended, unless it is stored already. Its number is its place in the key-use log or, if a later one was stored before it, the number after
// that one's: an owner asks for what is behind the last that they heard of. The caller holds the lock of the owner's own slot.
func (s *Storefront) numbered(ctx context.Context, changes []store.Change, owner policies.OwnerID, ended api.Renunciation) ([]store.Change, error) {
	stored := false
	ended.Index = ended.Receipt.Evidence.Index
	if err := s.each(ctx, key(kindGivenUp, owner[:]), key(kindGivenUp, owner[:], policies.U64(ended.Index-1)), func(r store.Record) error {
		var one api.Renunciation
		if err := decodeRecord(r, &one); err != nil {
			return err
		}
		stored = stored || one.Receipt.Document == ended.Receipt.Document
		ended.Index = one.Index + 1
		return nil
	}); err != nil || stored {
		return changes, err
	}
	record, err := encodeRecord(key(kindGivenUp, owner[:], policies.U64(ended.Index)), 1, ended)
	return append(changes, record), err
}

func (s *Storefront) forgetGivingUp(ctx context.Context, pending []byte) {
	if err := s.store.Commit(ctx, store.Change{Key: pending, Delete: true}); err != nil {
		s.log.Error("forgetting a renunciation that the vault refused", "error", err)
	}
}

// lockedGivingUp sends the vault again what was on its way to it when an earlier process ended, or the vault did not answer. The caller has the owner's slot.
func (s *Storefront) lockedGivingUp(ctx context.Context, owner policies.OwnerID) error {
	var undone error
	err := s.each(ctx, key(kindGivingUp, owner[:]), nil, func(r store.Record) error {
		env, d, err := stored[succession.Renunciation]("renunciation", r.Value)
		if err != nil {
			return err
		}
		receipt, err := s.vault.Submit(ctx, vaultapi.Submission{Envelope: env.Raw})
		switch {
		case err == nil:
			return s.storeGivenUp(ctx, env, d, receipt)
		case errors.Is(err, policies.CodeUnavailable):
			return err
		case temporary(err): // it does not keep others back
			undone = errors.Join(undone, err)
			return nil
		}
		s.forgetGivingUp(ctx, r.Key)
		return nil
	})
	return errors.Join(err, undone)
}

// resumeGivingUp goes on with what an earlier process left on its way to the vault.
func (s *Storefront) resumeGivingUp(ctx context.Context) {
	err := s.each(ctx, []byte{kindGivingUp}, nil, func(r store.Record) error {
		if len(r.Key) != 1+64 {
			return fmt.Errorf("a stored key has %d bytes", len(r.Key))
		}
		owner := policies.OwnerID(r.Key[1:33])
		unlock, err := s.locks.lock(ctx, own(owner))
		if err != nil {
			return err
		}
		defer unlock()
		if err := s.lockedGivingUp(ctx, owner); err != nil {
			s.log.Error("sending the vault again what a reader gave up", "error", err)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		s.log.Error("looking for what readers gave up", "error", err)
	}
}

// parseGivenUp is the document of a stored renunciation; a reader's closing has none.
func parseGivenUp(r store.Record) (*succession.Renunciation, error) {
	var one api.Renunciation
	if err := decodeRecord(r, &one); err != nil || len(one.Document) == 0 {
		return nil, err
	}
	_, d, err := stored[succession.Renunciation]("renunciation", one.Document)
	return d, err
}

// getRenunciations tells an owner what readers gave up, and which of them closed their accounts, after an index of the key-use log.
func (s *Storefront) getRenunciations(c *call) error {
	after, err := c.number("after")
	if err != nil {
		return err
	}
	owner := policies.OwnerID(c.subject)
	if onTheWay, err := s.store.Scan(c.ctx, key(kindGivingUp, owner[:]), nil, 1); err != nil {
		return err
	} else if len(onTheWay) > 0 { // what comes later has a later place in the log
		unlock, err := s.locks.lock(c.ctx, own(owner))
		if err != nil {
			return err
		}
		err = s.lockedGivingUp(c.ctx, owner)
		unlock()
		if errors.Is(err, policies.CodeUnavailable) {
			return err
		} else if err != nil { // the vault cannot finish it; it is told once it can
			s.log.Error("sending the vault again what a reader gave up", "error", err)
		}
	}
	prefix := key(kindGivenUp, c.subject[:])
	var from []byte
	if after > 0 {
		from = key(kindGivenUp, c.subject[:], policies.U64(after))
	}
	out, size := api.Renunciations{Renunciations: []api.Renunciation{}}, 0
	err = s.each(c.ctx, prefix, from, func(r store.Record) error {
		if size > pageBytes || len(out.Renunciations) == pageDocuments {
			out.More = true
			return errPageFull
		}
		var one api.Renunciation
		if err := decodeRecord(r, &one); err != nil {
			return err
		}
		out.Renunciations = append(out.Renunciations, one)
		size += len(r.Value)
		return nil
	})
	if err != nil && err != errPageFull {
		return err
	}
	return c.json(http.StatusOK, out)
}
