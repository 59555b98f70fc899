package storefront

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	naming "github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/policies/problem"
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
