package ledger

import (
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/freeze"
	"github.com/sallyport/sallyport/policies/guardrails"
	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/policies/writing"
)

// ErrOrder means that a record was not the next one, or does not fit the state that the records before it made. A log that
// passed its own checks and still says such a thing was not written by this vault.
var ErrOrder = errors.New("not what can come next in the key-use log")

// Apply makes a record that is in the log part of the state.
func (s *State) Apply(r *Record) error {
	if r.Index != s.next {
		return fmt.Errorf("%w: entry %d, expected %d", ErrOrder, r.Index, s.next)
	}
	if s.passOver(r) {
		s.follow(s.owned, kindOwned, r.Owner)
		s.follow(s.read, kindRead, r.Reader)
		s.next++
		return nil
	}
	if err := s.apply(r); err != nil {
		return fmt.Errorf("entry %d (%s): %w", r.Index, r.Kind, err)
	}
	s.follow(s.owned, kindOwned, r.Owner)
	s.follow(s.read, kindRead, r.Reader)
	s.next++
	return nil
}

func (s *State) apply(r *Record) error {
	d := &r.Details
	switch r.Kind {
	case evidence.EntryGenesis:
		if r.Index != 0 {
			return ErrOrder
		}
		v := r.Document.(*policies.VaultDocument)
		s.vault, s.document = v.Vault, VaultDocument{v.Version, d.Document}
		return nil
	case evidence.EntryIdentity:
		return s.enrol(r, r.Document.(*policies.Identity))
	case evidence.EntryManifest:
		return s.publish(r, r.Document.(*policies.Manifest))
	case evidence.EntryWriteGrant:
		return s.grantWriting(r, r.Document.(*writing.Grant))
	case evidence.EntryWriteEnd:
		return s.endWriting(r, r.Document.(*writing.End))
	case evidence.EntryImport:
		g := r.Document.(*policies.Grant)
		if s.grants[g.ID] != nil || s.imports[g.ID] != nil {
			return ErrOrder
		}
		s.imports[g.ID] = newGrant(g, d.Document, r.Index)
		s.touch(importKey(g.ID))
		return nil
	case evidence.EntryGrant:
		return s.grant(r)
	case evidence.EntryFailed:
		if g := s.imports[d.Grant]; g != nil && g.Index == d.Index {
			delete(s.imports, d.Grant)
			s.touch(importKey(d.Grant))
		}
		return nil // a use that failed stays counted: nobody gains by making uses fail
	case evidence.EntryRevocation:
		return s.revoke(r, r.Document.(*policies.Revocation))
	case evidence.EntryClosure:
		return s.close(r, r.Document.(*policies.Closure))
	case evidence.EntryDestroyed:
		if !d.Reader.IsZero() {
			return s.endToClosed(d)
		}
		if s.pending[d.Document] == nil {
			return ErrOrder
		}
		delete(s.pending, d.Document)
		s.touch(pendingKey(d.Document))
		return nil
	case evidence.EntrySession:
		session, ok := r.Document.(*policies.Session)
		if !ok { // its body was erased, as it may be when the session is over
			return nil
		}
		if s.sessions[d.Document] != nil { // its nonces must not be forgotten
			return ErrOrder
		}
		s.addSession(&Session{Document: *session, Hash: d.Document, Index: r.Index, Nonces: map[policies.Nonce]struct{}{}})
		s.touch(sessionKey(d.Document))
		return nil
	case evidence.EntrySuccession:
		return s.succeed(r, r.Document.(*succession.Document))
	case evidence.EntrySuspension:
		return s.suspend(r, r.Document.(*succession.Suspension))
	case evidence.EntryFreeze:
		return s.freeze(r, r.Document.(*freeze.Document))
	case evidence.EntryThaw:
		return s.thaw(r, r.Document.(*freeze.Thaw))
	case evidence.EntryGivenUp:
		return s.giveUp(r, r.Document.(*succession.Renunciation))
	case evidence.EntryVoucher:
		return s.vouch(r, r.Document.(*names.Voucher))
	case evidence.EntryGuardrails:
		return s.guard(r, r.Document.(*guardrails.Document))
	case evidence.EntryNotice:
		return s.announce(r, r.Document.(*succession.Notice))
	case evidence.EntryUse, evidence.EntryRefusal:
		s.use(r)
		return nil
	case evidence.EntryErasure:
		if d.Index != s.erased.To || d.Count == 0 || d.Index+d.Count > r.Index {
			return ErrOrder
		}
		s.erased = erasure{d.Index, d.Index + d.Count}
		return nil
	case evidence.EntryAccess:
		if !d.Nonce.IsZero() { // an auditor's query; the others are counts
			k := queryKey{d.Identity, d.Nonce}
			s.queries[k] = d.Expires
			s.touch(queriesKey(k))
		}
		return nil
	case evidence.EntryStart:
		if d.Version >= s.document.Version { // zero in a log of a vault that did not record it
			s.document = VaultDocument{d.Version, d.Document}
		}
		return nil
	case evidence.EntryStop, evidence.EntryRefusals, evidence.EntrySealing:
		return nil
	}
	return fmt.Errorf("%w: a kind that this version does not know", ErrOrder)
}

func (s *State) enrol(r *Record, d *policies.Identity) error {
	id := policies.IdentityID(r.Details.Document)
	if s.identities[id] != nil || r.Details.Pseudo.IsZero() || r.Owner != r.Details.Pseudo {
		return ErrOrder
	}
	if _, taken := s.pseudonyms[r.Details.Pseudo]; taken {
		return ErrOrder
	}
	s.identities[id] = &Identity{ID: id, Pseudonym: r.Details.Pseudo, Key: d.SigningKey, Index: r.Index, Standing: Standing{Generation: 1, Document: policies.Hash(id), Recovery: d.RecoveryHash}}
	s.pseudonyms[r.Details.Pseudo] = id
	s.touch(identityKey(id))
	return nil
}

// advance moves an owner's chain to the record's document.
func (s *State) advance(r *Record, owner policies.OwnerID, link policies.Link) error {
	c, ok := s.Chain(owner)
	if !ok || link.Follows(c.Seq, c.Hash) != nil {
		return ErrOrder
	}
	s.chains[owner] = Chain{Seq: link.Seq, Hash: r.Details.Document, Index: r.Index}
	s.accept(r.Details.Document, r.Index)
	s.touch(chainKey(owner))
	s.touch(documentKey(len(s.accepted) - 1))
	return nil
}

func (s *State) grant(r *Record) error {
	g := s.imports[r.Details.Grant]
	if g == nil || g.Hash != r.Details.Document {
		return ErrOrder
	}
	if err := s.advance(r, g.Document.Owner, g.Document.Link); err != nil {
		return err
	}
	delete(s.imports, r.Details.Grant)
	g.Checks = r.Details.Checks
	s.grants[r.Details.Grant] = g
	s.met[pair{g.Document.Owner, g.Document.Reader}] = struct{}{}
	s.keys[g.Document.Custody] += len(g.Revoked)
	s.touch(importKey(r.Details.Grant))
	s.touch(grantKey(r.Details.Grant))
	return nil
}

func (s *State) revoke(r *Record, d *policies.Revocation) error {
	if err := s.advance(r, d.Owner, d.Link); err != nil {
		return err
	}
	return s.endItems(r, d.Owner, policies.ReaderID{}, d.Items)
}

// giveUp is the same by the reader of the grants.
func (s *State) giveUp(r *Record, d *succession.Renunciation) error {
	if _, known := s.Document(r.Details.Document); known {
		return ErrOrder
	}
	if err := s.endItems(r, d.Owner, d.Reader, d.Items); err != nil {
		return err
	}
	s.accept(r.Details.Document, r.Index)
	s.touch(documentKey(len(s.accepted) - 1))
	return nil
}

// endItems ends fields of an owner's grants, those to one reader if it is given. Their keys are destroyed next.
func (s *State) endItems(r *Record, owner policies.OwnerID, reader policies.ReaderID, items []policies.RevokedItem) error {
	if err := s.endKeys(owner, reader, items); err != nil {
		return err
	}
	hash := r.Details.Document
	s.pending[hash] = &Revocation{Hash: hash, Owner: owner, Index: r.Index, Items: items}
	s.touch(pendingKey(hash))
	return nil
}

// endKeys marks them as ended.
func (s *State) endKeys(owner policies.OwnerID, reader policies.ReaderID, items []policies.RevokedItem) error {
	for _, item := range items {
		g := s.grants[item.Grant]
		if g == nil || g.Document.Owner != owner || !reader.IsZero() && g.Document.Reader != reader {
			return ErrOrder
		}
		i, ok := g.Find(item.Field, item.Author)
		if !ok {
			return ErrOrder
		}
		if !g.Revoked[i] {
			g.Revoked[i] = true
			s.keys[g.Document.Custody]--
		}
		s.touch(grantKey(item.Grant))
	}
	return nil
}

// use notes the nonce of a request, and counts a release.
func (s *State) use(r *Record) {
	if session := s.sessions[r.Details.Session]; session != nil && !r.Details.Nonce.IsZero() {
		session.see(r.Details.Nonce)
		s.touch(noncesKey(r.Details.Session, len(session.seen)-1))
	}
	g := s.grants[r.Details.Grant]
	if g == nil || r.Kind != evidence.EntryUse || r.Outcome != policies.CodeReleased {
		return
	}
	s.release(g, r.Details.Field, r.Details.Author, r.Decided())
}

func (s *State) touch(key string) { s.changed[key] = struct{}{} }
