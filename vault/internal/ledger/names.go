package ledger

import (
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/names"
)

// Vouched is the newest voucher for an identity's name.
type Vouched struct {
	Serial  uint64 `json:"serial"`
	Index   uint64 `json:"index"`
	Name    string `json:"name,omitzero"` // empty: the voucher was withdrawn
	Expires int64  `json:"expires,omitzero"`
}

// In reports whether the operator vouches for a name at a time.
func (v Vouched) In(now time.Time) bool { return v.Name != "" && now.Unix() < v.Expires }

// vouch notes that the operator vouched for a name, or does not any more.
func (s *State) vouch(r *Record, d *names.Voucher) error {
	i := s.identities[d.Identity]
	if _, known := s.Document(r.Details.Document); known || i == nil || d.Serial <= i.Vouched.Serial {
		return ErrOrder
	}
	next := *i
	next.Vouched = Vouched{Serial: d.Serial, Index: r.Index}
	if !d.Withdrawn {
		next.Vouched.Name, next.Vouched.Expires = d.Name, d.Expires
	}
	s.identities[d.Identity] = &next
	s.name(&next)
	s.touch(identityKey(d.Identity))
	s.accept(r.Details.Document, r.Index)
	s.touch(documentKey(len(s.accepted) - 1))
	return nil
}

// name notes what a name looks like. Of two that look alike, one of which expired before the other was vouched for, the newer counts.
func (s *State) name(i *Identity) {
	if i.Vouched.Name == "" {
		return
	}
	for _, k := range names.Keys(i.Vouched.Name) {
		if other := s.identities[s.named[k]]; other == nil || other.Vouched.Index <= i.Vouched.Index {
			s.named[k] = i.ID
		}
	}
}

// LooksLike finds another identity than this one with a verified name that looks like a name.
func (s *State) LooksLike(name string, id policies.IdentityID, now time.Time) bool {
	for _, k := range names.Keys(name) {
		other := s.identities[s.named[k]]
		if other != nil && other.ID != id && other.Vouched.In(now) && !s.Closed(other.ID) {
			return true
		}
	}
	return false
}
