package vault

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
// beside the owner's entries goes 48 hours later: nonces and daily counts rest on it for a day. What others granted to the account is over with the same record, and
// the end of those keys, of which a business may have hundreds of thousands, is waited for by nobody: see keepEnding.
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
	select {
	case v.accountClosed <- struct{}{}:
	default: // it is told already, and looks at all there are
	}
	if undone != nil {
		if err := v.destroy(context.WithoutCancel(ctx), undone); err != nil {
			return nil, err
		}
	}
	return v.receipt(&record, cp, e.Hash)
}

const (
	// endAtOnce is at how many keys a part ends: a grant more may bring it to policies.MaxGrantFields beyond. Reads wait behind that many at most.
	endAtOnce = 32
	// endRetry is when keys are looked for again that the token, or the log, did not let go.
	endRetry = time.Minute
)

// errKeysStay: a token, or the file of sealed keys, did not let go of keys. Which ones the vault's log output says.
var errKeysStay = errors.New("not all of them were destroyed")

// keepEnding destroys the keys of what others granted to those who closed their accounts: from the start on, and whenever one is closed, until the vault is closed itself. Nobody can
// use them from the closing on, since the reader has no session and gets none. What is left to do is what the state has of such grants, so that a crash leaves nothing that the next start
// does not find: see ledger.State.ToClosed.
func (v *Vault) keepEnding() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	v.chores.Go(func() { <-v.closing; cancel() })
	said, stay := "", map[KeyID]bool{}
	for {
		var retry <-chan time.Time
		text := ""
		if err := v.endToClosed(ctx, stay); err != nil {
			text, retry = err.Error(), time.After(endRetry)
		}
		if ctx.Err() != nil {
			return
		}
		if text != said && text != "" { // said once, not every time
			v.cfg.Logger.Error("keys of grants to closed accounts are still there; nobody can use them, and it is tried again", "error", text)
		}
		said = text
		select {
		case <-ctx.Done():
			return
		case <-v.accountClosed:
		case <-retry:
		}
	}
}

// endToClosed goes through all that there are, a part at a time. It begins anywhere, in the middle of an owner's grants too, so that keys which the token does not destroy keep no others from
// their end, and goes on as long as something comes of it.
func (v *Vault) endToClosed(ctx context.Context, stay map[KeyID]bool) error {
	var grants []*ledger.Grant
	v.ledger.Read(func(s *ledger.State) { grants = s.ToClosed() })
	if len(grants) == 0 {
		return nil
	}
	slices.SortFunc(grants, func(a, b *ledger.Grant) int { // those of one owner, to one reader, have one record
		return cmp.Or(bytes.Compare(a.Document.Owner[:], b.Document.Owner[:]), bytes.Compare(a.Document.Reader[:], b.Document.Reader[:]), bytes.Compare(a.Document.ID[:], b.Document.ID[:]))
	})
	at := rand.IntN(len(grants)) // #nosec G404 -- where to begin is no secret
	grants = append(grants[at:], grants[:at]...)
	var left error
	for len(grants) > 0 {
		begin, keys, n := time.Now(), 0, 0
		for ; n < len(grants) && keys < endAtOnce; n++ {
			keys += len(grants[n].Document.Fields)
		}
		ended, err := v.endPart(grants[:n], stay)
		if left = cmp.Or(err, left); err != nil && ended == 0 {
			return left
		}
		grants = grants[n:]
		// Half of the time is the readers'.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Since(begin)):
		}
	}
	return left
}

// part is what ends of one owner's grants to one reader.
type part struct {
	ledger.Revocation
	reader policies.ReaderID
}

// endPart destroys the keys of some grants to closed accounts, and records it, for each owner under their pseudonym: it is part of their history. It returns how many keys are recorded; those
// that stay are not among them, and stay says of which of them that was logged. The owners are at nothing else meanwhile. Nobody but this waits for a second owner, so nobody waits for ever.
func (v *Vault) endPart(grants []*ledger.Grant, stay map[KeyID]bool) (ended int, err error) {
	locked := map[policies.OwnerID]bool{}
	for _, g := range grants {
		if owner := g.Document.Owner; !locked[owner] {
			locked[owner] = true
			defer v.owners.lock(owner)()
		}
	}
	// A log that records nothing now is met before a key is destroyed, not after it: what nobody records would look as if somebody had taken it away.
	if err := v.cfg.Log.Health(); err != nil && !goesOn(err) {
		return 0, err
	}
	ctx := context.Background()
	var parts []*part
	if _, _, err := v.record(ctx, func(s *ledger.State, _ time.Time) []ledger.Record {
		for _, g := range grants {
			d := &g.Document
			at := slices.IndexFunc(parts, func(p *part) bool { return p.Owner == d.Owner && p.reader == d.Reader })
			if at < 0 {
				closing, _ := s.Chain(policies.OwnerID(d.Reader)) // nothing comes after it
				at, parts = len(parts), append(parts, &part{reader: d.Reader, Revocation: ledger.Revocation{Hash: closing.Hash, Owner: d.Owner, Index: closing.Index}})
			}
			for i, f := range d.Fields {
				if !g.Revoked[i] { // by its owner, while this was on its way
					parts[at].Items = append(parts[at].Items, policies.RevokedItem{Grant: d.ID, Field: f.Field, Author: f.Author})
				}
			}
		}
		return nil
	}); err != nil {
		return 0, err
	}
	var ends []end
	for _, p := range parts {
		ends = append(ends, v.endsOf(&p.Revocation)...)
	}
	period := v.endKeys(ctx, ends)
	var done []evidence.Details
	for _, p := range parts {
		own := ends[:len(p.Items)]
		ends = ends[len(p.Items):]
		f := v.tell(own, stay)
		if f.left > 0 {
			err = errKeysStay
		}
		gone := slices.DeleteFunc(own, func(e end) bool { return e.stays() })
		if len(gone) == 0 {
			continue
		}
		d := evidence.Details{Owner: p.Owner, Reader: p.reader, Document: p.Hash, Index: p.Index, Token: v.cfg.Serial, Custody: custodyOf(gone), Note: f.note()}
		for _, e := range gone {
			d.Items = append(d.Items, e.item)
		}
		if d.Custody == policies.CustodySealed {
			d.Period = period
		}
		done = append(done, d)
		ended += len(gone)
	}
	if len(done) == 0 {
		return 0, err
	}
	_, _, recorded := v.record(ctx, func(s *ledger.State, _ time.Time) []ledger.Record {
		out := make([]ledger.Record, len(done))
		for i, d := range done {
			out[i] = ledger.Record{Kind: evidence.EntryDestroyed, Owner: s.Pseudonym(policies.IdentityID(d.Owner)), Outcome: policies.CodeAccepted, Details: d}
		}
		return out
	})
	if recorded != nil {
		return 0, recorded
	}
	return ended, err
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
