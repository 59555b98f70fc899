package storefront

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// closureRecord says that an account is closed, and how far that has got. It stays when all else is gone: the id, a hash of a document that nobody keeps any more, is
// never taken again.
type closureRecord struct {
	Closure []byte            `json:"closure,omitempty"` // the envelope, until everything is deleted
	Receipt *evidence.Receipt `json:"receipt,omitempty"` // the vault's, until those are told who had let the account read or write
	// What the vault may be asked for again: nobody logs in any more, and strangers are to cost it nothing.
	Document policies.Hash `json:"document"` // of the closure
	Key      []byte        `json:"key"`      // the public one that the identity signs with; the key-use log has it too
}

// postClosure closes an account. When the vault has acknowledged it, that is written down, the owner gets the receipt, and everything that is kept of that identity here is deleted; a
// crash on the way is finished by the next start. A crash before leaves the owner without a receipt, and their device asks again.
func (s *Storefront) postClosure(c *call) error {
	env, err := envelope.Parse(c.body)
	if err != nil {
		return err
	}
	d, err := policies.Decode[policies.Closure](env)
	if err != nil {
		return err
	}
	if policies.IdentityID(d.Owner) != c.subject {
		return problem.New(policies.CodeUnauthorized, "the closure is of another owner than the path")
	}
	k := own(d.Owner)
	unlock, err := s.locks.lock(c.ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := s.lockedSettled(c.ctx, k); err != nil {
		s.log.Error("completing a pending manifest before a closure", "error", err)
	}
	ctx, cancel := detach(c.ctx)
	defer cancel()
	receipt, refused := s.vault.Submit(ctx, vaultapi.Submission{Envelope: env.Raw})
	if refused != nil && !errors.Is(refused, policies.CodeClosed) { // by another device, past this storefront
		return refused
	}
	answer := func() error {
		if refused != nil {
			return refused
		}
		return c.json(http.StatusOK, receipt)
	}
	if s.closed(ctx, c.subject) != nil { // it is being deleted already
		return answer()
	}
	record := &closureRecord{Closure: env.Raw, Document: env.Hash, Receipt: receipt}
	if refused != nil { // then it is beside the refusal, unless keys are still there
		record.Receipt = problem.Of(refused).Receipt
	}
	if line, _, err := s.line(ctx, c.subject); err != nil { // it is closed all the same
		s.log.Error("looking for the key of an account that is closed", "error", err)
	} else {
		record.Key = line.Newest().SigningKey
	}
	// Without this line on disk there is no receipt, and the owner's device sends the closure again: the vault answers it as before.
	if err := s.markClosed(ctx, c.subject, record); err != nil {
		return fmt.Errorf("noting that an account is closed: %w", err)
	}
	s.running.Go(func() { s.wipe(context.WithoutCancel(ctx), c.subject) })
	return answer()
}

// closureAgain has the vault answer anew who closed their account and lost the answer, and prove to who did not close it that it is closed. What it passes on
// is the document that closed it, or another one that the account's key signed: strangers cost the vault nothing. An account is closed by
// [Storefront.postClosure] only, which takes a login.
func (s *Storefront) closureAgain(c *call, id policies.IdentityID, env *envelope.Envelope) error {
	closed, signed, err := s.ofClosed(c.ctx, id, env)
	if err != nil {
		return err
	}
	if !signed && env.Hash != closed.Document {
		return policies.CodeClosed
	}
	receipt, err := s.submit(c.ctx, env)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, receipt)
}

// ofClosed looks whether a closure of an account that is closed, to which nobody logs in any more, is signed by the account's key.
func (s *Storefront) ofClosed(ctx context.Context, id policies.IdentityID, env *envelope.Envelope) (closed *closureRecord, signed bool, err error) {
	d, err := policies.Decode[policies.Closure](env)
	if err != nil {
		return nil, false, err
	}
	if policies.IdentityID(d.Owner) != id {
		return nil, false, problem.New(policies.CodeMalformed, "the closure is of another owner than who is named beside it")
	}
	closed = new(closureRecord)
	switch _, err := s.load(ctx, key(kindClosed, id[:]), closed); {
	case errors.Is(err, store.ErrNotFound):
		return nil, false, problem.New(policies.CodeUnauthorized, "an account is closed by who is logged in to it")
	case err != nil:
		return nil, false, err
	}
	by, err := envelope.ParsePublicKey(closed.Key)
	return closed, err == nil && env.Verify(by) == nil, nil
}

func (s *Storefront) markClosed(ctx context.Context, id policies.IdentityID, r *closureRecord) error {
	old, err := s.store.Get(ctx, key(kindClosed, id[:]))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	change, err := encodeRecord(key(kindClosed, id[:]), old.Version+1, r)
	if err != nil {
		return err
	}
	return s.store.Commit(ctx, change)
}

// closed refuses what belongs to an account that is closed.
func (s *Storefront) closed(ctx context.Context, id policies.IdentityID) error {
	switch _, err := s.store.Get(ctx, key(kindClosed, id[:])); {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return policies.CodeClosed
}

// wipe deletes all that is kept of an identity, as owner and as reader, and then says that it did. Deleting twice is harmless.
func (s *Storefront) wipe(ctx context.Context, id policies.IdentityID) {
	s.logins.end(id)
	if err := s.wipeRecords(ctx, id); err != nil {
		s.log.Error("deleting what is kept of a closed account; the next start goes on", "error", err)
	}
}

func (s *Storefront) wipeRecords(ctx context.Context, id policies.IdentityID) error {
	// Nobody publishes, grants, connects or sends any more: there is no login.
	if err := s.tellOwners(ctx, id); err != nil {
		return err
	}
	if err := s.prune(ctx, id, func(*letter) bool { return true }); err != nil {
		return err
	}
	if err := s.wipeSide(ctx, id, kindByOwner, kindByReader); err != nil { // the relationships that readers have with this owner
		return err
	}
	if err := s.wipeSide(ctx, id, kindByReader, kindByOwner); err != nil { // and those of this reader
		return err
	}
	// Grants lie under their readers; the owner's side says where.
	err := s.deleteEach(ctx, key(kindGrantPlaces, id[:]), func(r store.Record) []store.Change {
		if len(r.Value) == 72 {
			s.grants.remove(pair{policies.ReaderID(r.Value[:32]), policies.OwnerID(id)})
		}
		return []store.Change{{Key: key(kindGrant, r.Value), Delete: true}, {Key: r.Key, Delete: true}}
	})
	if err == nil { // write grants likewise
		err = s.deleteEach(ctx, key(kindWritePlaces, id[:]), func(r store.Record) []store.Change {
			return []store.Change{{Key: key(kindWriteGrant, r.Value), Delete: true}, {Key: r.Key, Delete: true}}
		})
	}
	if err == nil {
		err = s.wipeIntroduced(ctx, id)
	}
	for _, kind := range []byte{kindGrant, kindWriteGrant, kindTree, kindWork, kindLeaf, kindCiphertext, kindChain, kindCount, kindNumber, kindSuccession, kindVoucher, kindGivenUp, kindGivingUp, kindRegistration, kindIntroducedCount, kindIdentity} {
		if err == nil {
			err = s.deleteEach(ctx, key(kind, id[:]), func(r store.Record) []store.Change { return []store.Change{{Key: r.Key, Delete: true}} })
		}
	}
	if err != nil {
		return err
	}
	s.shelves.remove(own(policies.OwnerID(id)))
	s.early.forget(id)
	s.mailboxes.remove(id)
	var done closureRecord
	if _, err := s.load(ctx, key(kindClosed, id[:]), &done); err != nil {
		return err
	}
	done.Closure, done.Receipt = nil, nil
	return s.markClosed(ctx, id, &done)
}

// tellOwners deletes what others let an account read and write, and leaves them the vault's receipt of its closing instead, among what readers gave up: by it their devices know that all of it has
// ended, and need nobody's word. A crash on the way leaves those who are not told yet where they are found again.
func (s *Storefront) tellOwners(ctx context.Context, id policies.IdentityID) error {
	var record closureRecord
	if _, err := s.load(ctx, key(kindClosed, id[:]), &record); err != nil {
		return err
	}
	for kind, places := range map[byte]byte{kindGrant: kindGrantPlaces, kindWriteGrant: kindWritePlaces} {
		if err := s.each(ctx, key(kind, id[:]), nil, func(r store.Record) error {
			if len(r.Key) != 1+64+8 {
				return fmt.Errorf("a stored key has %d bytes", len(r.Key))
			}
			unlock, err := s.locks.lock(ctx, own(policies.OwnerID(r.Key[33:65])))
			if err != nil {
				return err
			}
			defer unlock()
			return s.tellOwner(ctx, record.Receipt, r.Key, places)
		}); err != nil {
			return err
		}
	}
	return nil
}

// tellLate is tellOwners for one grant that was stored just now. Its reader or writer may have closed their account: the vault accepted it before, and the storefront hears of it late. The caller
// holds the lock of the owner's own slot.
func (s *Storefront) tellLate(ctx context.Context, id policies.IdentityID, grant []byte, places byte) error {
	switch err := s.closed(ctx, id); {
	case err == nil:
		return nil // should it be closed from here on, tellOwners finds it
	case !errors.Is(err, policies.CodeClosed):
		return err
	}
	state, err := s.vault.Chain(ctx, policies.OwnerID(id)) // whose newest document is the closure
	if err != nil {
		return err
	}
	return s.tellOwner(ctx, state.Receipt, grant, places)
}

// tellOwner does so for one grant, by the key of its record.
func (s *Storefront) tellOwner(ctx context.Context, closing *evidence.Receipt, grant []byte, places byte) error {
	reader, owner := policies.ReaderID(grant[1:33]), policies.OwnerID(grant[33:65])
	changes := []store.Change{{Key: grant, Delete: true}}
	if err := s.each(ctx, key(places, owner[:]), nil, func(r store.Record) error {
		if bytes.Equal(r.Value, grant[1:]) {
			changes = append(changes, store.Change{Key: r.Key, Delete: true})
		}
		return nil
	}); err != nil {
		return err
	}
	defer s.grants.remove(pair{reader, owner})
	switch err := s.closed(ctx, policies.IdentityID(owner)); {
	case errors.Is(err, policies.CodeClosed): // nobody asks any more
	case err != nil:
		return err
	case closing != nil:
		if changes, err = s.numbered(ctx, changes, owner, api.Renunciation{Receipt: closing}); err != nil {
			return err
		}
	}
	return s.store.Commit(ctx, changes...)
}

// wipeSide deletes the relationships that are listed under an identity by one kind of key, under both, and takes them off their readers' counts.
func (s *Storefront) wipeSide(ctx context.Context, id policies.IdentityID, listed, other byte) error {
	return s.each(ctx, key(listed, id[:]), nil, func(r store.Record) error {
		if len(r.Key) != 1+64+8 {
			return fmt.Errorf("a stored key has %d bytes", len(r.Key))
		}
		with, number := r.Key[33:65], r.Key[65:]
		changes := []store.Change{{Key: r.Key, Delete: true}, {Key: key(other, with, id[:], number), Delete: true}}
		reader := policies.ReaderID(id)
		if listed == kindByOwner {
			reader = policies.ReaderID(with)
		}
		unlock, err := s.locks.lock(ctx, slot{author: policies.AuthorID(reader)})
		if err != nil {
			return err
		}
		defer unlock()
		count, err := s.store.Get(ctx, key(kindCount, reader[:]))
		if err == nil && len(count.Value) == 8 {
			if n := binary.BigEndian.Uint64(count.Value); n > 0 {
				changes = append(changes, store.Change{Key: count.Key, Version: count.Version + 1, Value: policies.U64(n - 1)})
			}
		} else if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return s.store.Commit(ctx, changes...)
	})
}

// deleteEach commits the changes that go with each record of a prefix, many at once.
func (s *Storefront) deleteEach(ctx context.Context, prefix []byte, changes func(store.Record) []store.Change) error {
	const most = 128
	var all []store.Change
	commit := func() error {
		some := all
		all = nil
		if len(some) == 0 {
			return nil
		}
		return s.store.Commit(ctx, some...)
	}
	err := s.each(ctx, prefix, nil, func(r store.Record) error {
		if all = append(all, changes(r)...); len(all) < most {
			return nil
		}
		return commit()
	})
	if err != nil {
		return err
	}
	return commit()
}

// resumeClosures goes on with what an earlier process did not finish.
func (s *Storefront) resumeClosures(ctx context.Context) {
	err := s.each(ctx, []byte{kindClosed}, nil, func(r store.Record) error {
		var record closureRecord
		if err := decodeRecord(r, &record); err != nil || len(r.Key) != 33 {
			return err
		}
		if len(record.Closure) > 0 {
			s.wipe(ctx, policies.IdentityID(r.Key[1:]))
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		s.log.Error("looking for accounts that are closed", "error", err)
	}
}
