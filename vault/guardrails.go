package vault

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/guardrails"
	"github.com/sallyport/sallyport/vault/internal/ledger"
)

// guard takes the operator's rules, which are in force from their record on. Those in force get their receipt again. Whoever carries them is not asked for anything: the ceremony key signed them. Uses that were decided before are
// carried out.
func (v *Vault) guard(ctx context.Context, e *envelope.Envelope) (*evidence.Receipt, error) {
	d, err := guardrails.Open(e, v.cfg.Document)
	if err != nil {
		return nil, v.stranger(err)
	}
	receipt, err := v.again(ctx, e.Hash)
	if err == nil && receipt != nil {
		var newest policies.Hash
		v.ledger.Read(func(s *ledger.State) { newest = s.Rules().Document })
		if newest != e.Hash { // a receipt would say that they are in force
			receipt, err = nil, v.stranger(policies.CodeRulesOld)
		}
	}
	if receipt != nil || err != nil {
		return receipt, err
	}
	set, err := guardrails.Parse(d.Rules)
	if err == nil {
		err = set.Vet()
	}
	if err != nil {
		return nil, v.stranger(err)
	}
	var refused error
	records, cp, err := v.record(ctx, func(s *ledger.State, _ time.Time) []ledger.Record {
		if refused = nil; d.Serial <= s.Rules().Serial {
			refused = policies.CodeRulesOld
			return nil
		}
		return []ledger.Record{{
			Kind: evidence.EntryGuardrails, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: d,
			Details: evidence.Details{Document: e.Hash, Count: uint64(len(set.Names())), Note: few(set.Names())},
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

// few names some rules: a record has room for four of them, a decision has thousands of records.
func few(names []string) string {
	if len(names) > 4 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}

// guarded says which of the operator's rules stand against a use that its grant permits, and notes the rules in force.
func (v *Vault) guarded(s *ledger.State, now time.Time, r *read, it *readItem, used uint64) policies.Code {
	rules := s.Rules()
	it.rules = rules.Document
	it.against = rules.Set.Refusals(&guardrails.Facts{
		Reader: r.session.Document.Reader, Vouched: s.Identity(policies.IdentityID(r.session.Document.Reader)).Vouched.In(now),
		Owner: it.leaf.Owner, Field: it.leaf.Field, Author: it.leaf.Author,
		Grant: &it.grant.Document, Token: v.cfg.Serial, Grade: v.cfg.Grade, Items: len(r.request.Items), UsedToday: used,
	}, now)
	if len(it.against) > 0 {
		return policies.CodeGuardrail
	}
	return ""
}
