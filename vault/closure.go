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
	"github.com/sallyport/sallyport/vault/internal/ledger"
	"github.com/sallyport/sallyport/vault/keylog"
)

// closeAccount ends all of an owner's grants and the account. As with a revocation the record comes first, then the keys are destroyed, then it is acknowledged. What lies
// beside the owner's entries goes 48 hours later: nonces and daily counts rest on it for a day.
func (v *Vault) closeAccount(ctx context.Context, e *envelope.Envelope) (*evidence.Receipt, error) {
	claim, err := policies.Decode[policies.Closure](e)
	if err != nil {
		return nil, v.stranger(err)
	}
	defer v.owners.lock(claim.Owner)()
	// Sent again, it is answered without a look at the signature, which is in the log.
	if receipt, err := v.again(ctx, e.Hash); receipt != nil || err != nil {
		return receipt, err
	}
	d, err := open(v, e, func(c *policies.Closure) policies.IdentityID { return policies.IdentityID(c.Owner) })
	if err != nil {
		return nil, err
	}
	c := d.doc
	d.owner = c.Owner
	record, cp, err := accept(ctx, v, d, func(s *ledger.State, _ time.Time) error {
		if c.Audience != v.cfg.Document.Vault {
			return policies.CodeWrongVault
		}
		return follows(s, c.Owner, c.Link)
	}, func() ledger.Record {
		return ledger.Record{
			Kind: evidence.EntryClosure, Owner: d.signer.Pseudonym, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: c,
			Details: evidence.Details{Owner: c.Owner, Document: e.Hash, Seq: c.Seq},
		}
	})
	if err != nil {
		return nil, err
	}
	var undone *ledger.Revocation
	v.ledger.Read(func(s *ledger.State) { undone = s.UndoneRevocation(e.Hash) })
	if undone != nil {
		if err := v.destroy(context.WithoutCancel(ctx), undone); err != nil {
			return nil, err
		}
	}
	return v.receipt(&record, cp, e.Hash)
}

// proveClosed is the refusal of a document of a closed account. To whoever signed it with the account's keys, those in force at the end or ones before, it
// carries the receipt of the closing, so that no device of theirs has to take anybody's word for it. As with the closing itself there is none before the keys
// are destroyed. Strangers are not told where the closing is in the log, or under which pseudonym.
func (v *Vault) proveClosed(e *envelope.Envelope, id *ledger.Identity) error {
	if key, err := id.Verifier(); err != nil || e.Verify(key) != nil && !id.Replaced(e) {
		return policies.CodeClosed
	}
	return v.closingOf(policies.OwnerID(id.ID))
}

// closingOf is the refusal that carries the receipt of an account's closing, for those who may have it.
func (v *Vault) closingOf(account policies.OwnerID) error {
	p := &problem.Problem{Code: policies.CodeClosed}
	var closing ledger.Chain
	undone := false
	v.ledger.Read(func(s *ledger.State) {
		closing, _ = s.Chain(account) // nothing comes after it
		undone = s.UndoneRevocation(closing.Hash) != nil
	})
	if receipt, err := v.receiptAt(closing.Index, closing.Hash); err != nil {
		v.cfg.Logger.Error("the receipt of a closing cannot be given", "entry", closing.Index, "error", err)
	} else if !undone {
		p.Receipt = receipt
	}
	return p
}

// eraseClosed erases what lies beside the entries of those who closed their accounts long enough ago. Its progress is the log's own: the newest of the entries that keeps its
// body until then has it until the last.
func (v *Vault) eraseClosed(ctx context.Context) error {
	var closures []ledger.Closure
	v.ledger.Read(func(s *ledger.State) { closures = s.Closures(v.cfg.Clock().Add(-leastKeep)) })
	for _, c := range closures[min(len(closures), v.closedDone()):] {
		var entries []uint64
		v.ledger.Read(func(s *ledger.State) { entries = s.Entries(c) })
		if len(entries) > 0 {
			first, last := int64(entries[0]), int64(entries[len(entries)-1])
			left, err := v.unerased(c, entries)
			if err != nil {
				return err
			}
			if left {
				err := v.cfg.Log.Erase(ctx, first, last+1, func(entry []byte) bool { return ledger.Closable(entry, c.Pseudonym) })
				if errors.Is(err, keylog.ErrRange) { // some are in the newest segment still
					v.cfg.Log.Roll()
					return nil
				}
				if err != nil {
					return fmt.Errorf("an account that was closed in entry %d: %w", c.Index, err)
				}
			}
		}
		v.closedMu.Lock()
		v.closedEntries = append(v.closedEntries, entries)
		v.closedMu.Unlock()
	}
	return nil
}

// unerased reports whether something of a closed account is to be erased still.
func (v *Vault) unerased(c ledger.Closure, entries []uint64) (bool, error) {
	for _, index := range slices.Backward(entries) {
		_, raw, err := v.cfg.Log.Read(int64(index))
		if err != nil {
			return false, err
		}
		if !ledger.Closable(raw.Entry, c.Pseudonym) {
			continue
		}
		if len(raw.Body) > 0 {
			return true, nil
		}
		if !ledger.Erasable(raw.Entry) { // else its time may have been over before the account was closed, and says nothing of those before it
			return false, nil
		}
	}
	return false, nil
}

func (v *Vault) closedDone() int {
	v.closedMu.Lock()
	defer v.closedMu.Unlock()
	return len(v.closedEntries)
}

// ErasedAccounts are, for each account that was closed and whose bodies this process knows to be erased, but for the first n, the indexes of its entries.
func (v *Vault) ErasedAccounts(n int) [][]uint64 {
	v.closedMu.Lock()
	defer v.closedMu.Unlock()
	return v.closedEntries[min(n, len(v.closedEntries)):]
}
