package storefront

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	naming "github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// postVoucher passes a voucher on to the vault, whoever carries it, and keeps the newest. No login is asked for: the operator signed it.
func (s *Storefront) postVoucher(c *call) error {
	var id policies.IdentityID
	if err := id.UnmarshalText([]byte(c.Param("id"))); err != nil {
		return err
	}
	env, err := envelope.Parse(c.body)
	if err != nil {
		return err
	}
	d, err := policies.Decode[naming.Voucher](env)
	if err != nil {
		return err
	}
	if d.Identity != id {
		return problem.New(policies.CodeMalformed, "the voucher is for another identity than the path")
	}
	unlock, err := s.locks.lock(c.ctx, own(policies.OwnerID(id)))
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := detach(c.ctx)
	defer cancel()
	receipt, err := s.vault.Submit(ctx, vaultapi.Submission{Envelope: env.Raw})
	if err != nil {
		return err
	}
	at := key(kindVoucher, id[:])
	var have api.Vouched
	version, err := s.load(ctx, at, &have)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err == nil {
		if _, newest, err := stored[naming.Voucher]("voucher", have.Document); err != nil || newest.Serial >= d.Serial {
			return errors.Join(err, c.json(http.StatusOK, receipt)) // an older one, sent again
		}
	}
	change, err := encodeRecord(at, version+1, api.Vouched{Document: env.Raw, Receipt: receipt})
	if err != nil {
		return err
	}
	if err := s.store.Commit(ctx, change); err != nil {
		return fmt.Errorf("keeping a voucher: %w", err)
	}
	return c.json(http.StatusOK, receipt)
}

func (s *Storefront) getVoucher(c *call) error {
	var id policies.IdentityID
	if err := id.UnmarshalText([]byte(c.Param("id"))); err != nil {
		return err
	}
	var v api.Vouched
	if _, err := s.load(c.ctx, key(kindVoucher, id[:]), &v); errors.Is(err, store.ErrNotFound) {
		return policies.CodeNotFound
	} else if err != nil {
		return err
	}
	return c.json(http.StatusOK, v)
}

// postRenunciation passes on to the vault that a reader gives up fields of grants. As with a revocation nothing here stands in its way once the vault has acknowledged it.
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
	receipt, err := s.vault.Submit(ctx, vaultapi.Submission{Envelope: env.Raw})
	if err != nil {
		return err
	}
	index := receipt.Evidence.Index
	at := key(kindGivenUp, d.Owner[:], policies.U64(index))
	record, err := encodeRecord(at, 1, api.Renunciation{Index: index, Document: env.Raw, Receipt: receipt})
	if err != nil {
		return err
	}
	changes, err := s.once(ctx, nil, at, record.Value)
	if err == nil {
		err = s.endItems(ctx, changes, d.Owner, d.Items)
	}
	if err != nil {
		s.log.Error("indexing a renunciation", "error", err)
		return c.json(http.StatusAccepted, receipt)
	}
	return c.json(http.StatusOK, receipt)
}

// parseGivenUp is the document of a stored renunciation.
func parseGivenUp(r store.Record) (*succession.Renunciation, error) {
	var one api.Renunciation
	if err := decodeRecord(r, &one); err != nil {
		return nil, err
	}
	_, d, err := stored[succession.Renunciation]("renunciation", one.Document)
	return d, err
}

// getRenunciations tells an owner what readers gave up, after an index of the key-use log.
func (s *Storefront) getRenunciations(c *call) error {
	after, err := c.number("after")
	if err != nil {
		return err
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
