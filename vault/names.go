package vault

import (
	"context"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/internal/ledger"
)

// vouch takes the operator's word for a business's name, or that it is withdrawn. Whoever carries the voucher is not asked for anything: the ceremony key signed it. What counts
// from here on is what is verified against the record: one name looks like one identity.
func (v *Vault) vouch(ctx context.Context, e *envelope.Envelope) (*evidence.Receipt, error) {
	d, err := names.OpenVoucher(e, v.cfg.Document)
	if err != nil {
		return nil, v.stranger(err)
	}
	owner := policies.OwnerID(d.Identity)
	defer v.owners.lock(owner)()
	if receipt, err := v.again(ctx, e.Hash); receipt != nil || err != nil {
		return receipt, err
	}
	enrolled, err := v.enrolled(d.Identity)
	if err != nil {
		return nil, v.stranger(err)
	}
	if enrolled.Name != d.Name || enrolled.Kind != policies.KindBusiness {
		return nil, v.stranger(problem.New(policies.CodeVoucher, "the identity calls itself something else"))
	}
	var refused error
	records, cp, err := v.record(ctx, func(s *ledger.State, now time.Time) []ledger.Record {
		i := s.Identity(d.Identity)
		switch {
		case s.Closed(d.Identity):
			refused = policies.CodeClosed
		case d.Serial <= i.Vouched.Serial:
			refused = policies.CodeVoucherOld
		case !d.Withdrawn && now.Unix() >= d.Expires:
			refused = policies.CodeExpired
		case !d.Withdrawn && s.LooksLike(d.Name, d.Identity, now):
			refused = policies.CodeLookAlike
		default:
			refused = nil
		}
		if refused != nil {
			return nil
		}
		note := "vouched for"
		if d.Withdrawn {
			note = "withdrawn"
		}
		return []ledger.Record{{
			Kind: evidence.EntryVoucher, Reader: i.Pseudonym, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: d,
			Details: evidence.Details{Identity: d.Identity, Document: e.Hash, Expires: d.Expires, Note: note},
		}}
	})
	if err == nil && refused != nil {
		err = v.stranger(refused)
	}
	if err != nil {
		return nil, err
	}
	return v.receipt(&records[0], cp, e.Hash)
}

// enrolled is an identity's first document.
func (v *Vault) enrolled(id policies.IdentityID) (*policies.Identity, error) {
	var i *ledger.Identity
	closed := false
	v.ledger.Read(func(s *ledger.State) { i, closed = s.Identity(id), s.Closed(id) })
	if closed {
		return nil, policies.CodeClosed
	}
	if i == nil {
		return nil, policies.CodeUnknown
	}
	record, err := v.read(i.Index)
	if err != nil {
		return nil, err
	}
	doc, ok := record.Document.(*policies.Identity)
	if !ok {
		return nil, fmt.Errorf("%w: entry %d is no enrolment", ledger.ErrOrder, i.Index)
	}
	return doc, nil
}
