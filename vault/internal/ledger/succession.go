package ledger

import (
	"bytes"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/succession"
)

// Standing is how the keys of an identity came into force, and what may take their place.
type Standing struct {
	Generation uint64        `json:"generation"` // that of the first document is 1
	Document   policies.Hash `json:"document"`   // that the keys are in
	Seq        uint64        `json:"seq,omitzero"`
	Recovery   policies.Hash `json:"recovery"`
	Former     [][]byte      `json:"former,omitzero"` // the keys before, newest first, at most formerKeys
	Announced  Announced     `json:"announced,omitzero"`
	Suspended  uint64        `json:"suspended,omitzero"` // as a reader: the newest suspension's index; grants that were imported before are not used
	Frozen     uint64        `json:"frozen,omitzero"`    // as an owner: the newest freeze's index, if no thaw came after it
}

// formerKeys is how many replaced keys of an identity are remembered, to tell their holders that they were replaced.
const formerKeys = 4

// Announced is a change of keys that was announced and has not come.
type Announced struct {
	Notice    policies.Hash `json:"notice"`
	Successor policies.Hash `json:"successor"`
	Since     time.Time     `json:"since"` // the entry's time
}

// Line is the identity as a succession must follow it.
func (i *Identity) Line() succession.Line {
	return succession.Line{ID: i.ID, Holders: []succession.Holder{{Generation: i.Generation, Document: i.Document, Seq: i.Seq, SigningKey: i.Key, Recovery: i.Recovery}}}
}

// Replaced reports whether one of the identity's former keys signed a document.
func (i *Identity) Replaced(e *envelope.Envelope) bool {
	return slices.ContainsFunc(i.Former, func(former []byte) bool {
		key, err := envelope.ParsePublicKey(former)
		return err == nil && e.Verify(key) == nil
	})
}

// succeed gives an identity new keys, and ends the sessions that the keys before opened.
func (s *State) succeed(r *Record, d *succession.Document) error {
	i := s.identities[d.Identity]
	if i == nil || d.Generation != i.Generation+1 || d.Previous != i.Document || bytes.Equal(d.SigningKey, i.Key) {
		return ErrOrder
	}
	if len(d.RecoveryKey) > 0 && policies.HashKey(d.RecoveryKey) != i.Recovery {
		return ErrOrder
	}
	if _, over := s.gone[r.Owner]; !over { // else what lay beside the entries between was erased, and the closure of the account follows
		if len(d.RecoveryKey) == 0 && i.Announced.Notice != d.Notice {
			return ErrOrder
		}
		if err := s.advance(r, policies.OwnerID(d.Identity), d.Link); err != nil {
			return err
		}
	}
	next := *i
	next.Key = d.SigningKey
	next.Standing = Standing{Generation: d.Generation, Document: r.Details.Document, Seq: d.Seq, Recovery: d.RecoveryHash, Suspended: i.Suspended, Frozen: i.Frozen}
	next.Former = append([][]byte{i.Key}, i.Former...)
	next.Former = next.Former[:min(len(next.Former), formerKeys)]
	s.identities[d.Identity] = &next
	s.touch(identityKey(d.Identity))
	s.endSessions(policies.ReaderID(d.Identity))
	return nil
}

// endSessions ends the sessions that a reader opened.
func (s *State) endSessions(reader policies.ReaderID) {
	for hash, one := range s.sessions {
		if one.Document.Reader == reader && !one.Ended {
			one.Ended = true
			s.touch(sessionKey(hash))
		}
	}
}

// suspend ends the use of a reader's grants.
func (s *State) suspend(r *Record, d *succession.Suspension) error {
	id := policies.IdentityID(d.Reader)
	i := s.identities[id]
	if i == nil {
		return ErrOrder
	}
	if _, over := s.gone[i.Pseudonym]; !over { // as with a succession; the entry itself is the reader's, and stays
		if err := s.advance(r, policies.OwnerID(d.Reader), d.Link); err != nil {
			return err
		}
	}
	next := *i
	next.Suspended = r.Index
	s.identities[id] = &next
	s.touch(identityKey(id))
	return nil
}

// Suspended reports whether the reader of a grant suspended it.
func (s *State) Suspended(g *Grant) bool {
	i := s.identities[policies.IdentityID(g.Document.Reader)]
	return i != nil && g.Index < i.Suspended
}

// announce notes a change of keys to come, or that there is none any more.
func (s *State) announce(r *Record, d *succession.Notice) error {
	i := s.identities[d.Identity]
	if i == nil || !d.Successor.IsZero() && !i.Announced.Notice.IsZero() {
		return ErrOrder
	}
	if err := s.advance(r, policies.OwnerID(d.Identity), d.Link); err != nil {
		return err
	}
	next := *i
	next.Announced = Announced{}
	if !d.Successor.IsZero() {
		next.Announced = Announced{Notice: r.Details.Document, Successor: d.Successor, Since: r.Time}
	}
	s.identities[d.Identity] = &next
	s.touch(identityKey(d.Identity))
	return nil
}
