package ledger

import (
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/freeze"
)

// Frozen reports whether nothing of an owner is released.
func (s *State) Frozen(owner policies.OwnerID) bool { return s.FrozenBy(owner) != 0 }

// FrozenBy is the index of the newest freeze of an owner, 0 if none is in force.
func (s *State) FrozenBy(owner policies.OwnerID) uint64 {
	if i := s.identities[policies.IdentityID(owner)]; i != nil {
		return i.Frozen
	}
	return 0
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

// thaw ends that. Whether it was decided late enough the vault looks at before it records it, and an auditor afterwards: logs of before that rule are replayed as they are.
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
