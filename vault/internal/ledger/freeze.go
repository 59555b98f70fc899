package ledger

import (
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/freeze"
)

// Frozen reports whether nothing of an owner is released.
func (s *State) Frozen(owner policies.OwnerID) bool {
	i := s.identities[policies.IdentityID(owner)]
	return i != nil && i.Frozen != 0
}

// freeze stops all reading of an owner. The order of the first operator is remembered with the freeze, for ever: it is used once.
func (s *State) freeze(r *Record, d *freeze.Document) error {
	_, order, err := d.First()
	if err != nil {
		return err
	}
	if _, used := s.Document(order.Hash); used || s.identities[policies.IdentityID(d.Owner)] == nil {
		return ErrOrder
	}
	for _, hash := range []policies.Hash{r.Details.Document, order.Hash} {
		s.accept(hash, r.Index)
		s.touch(documentKey(len(s.accepted) - 1))
	}
	s.setFrozen(d.Owner, r.Index)
	return nil
}

// thaw ends that.
func (s *State) thaw(r *Record, d *freeze.Thaw) error {
	if !s.Frozen(d.Owner) {
		return ErrOrder
	}
	if err := s.advance(r, d.Owner, d.Link); err != nil {
		return err
	}
	s.setFrozen(d.Owner, 0)
	return nil
}

func (s *State) setFrozen(owner policies.OwnerID, index uint64) {
	id := policies.IdentityID(owner)
	next := *s.identities[id]
	next.Frozen = index
	s.identities[id] = &next
	s.touch(identityKey(id))
}
