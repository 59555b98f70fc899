package audit

import (
	"bytes"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/succession"
)

// standing is how the keys of an identity came into force, and which change of them is announced.
type standing struct {
	generation uint64
	document   policies.Hash
	recovery   policies.Hash
	notice     policies.Hash // zero: none is announced
	successor  policies.Hash
	since      time.Time
	suspended  uint64 // as a reader: the index of the newest suspension
	frozen     uint64 // as an owner: the index of the newest freeze, if no thaw ended it
	frozenAt   time.Time
}

// succeed gives an identity new keys from here on, and says what is wrong with that. Documents and sessions after it must be signed by them.
func (s *replay) succeed(r *Record, p *prepared, b *batch) {
	d := of[succession.Document](r, p, b)
	if d == nil {
		return
	}
	var faults []Reason
	faults = s.advance(policies.OwnerID(d.Identity), d.Link, p.signed.Hash, d.Audience).add(faults)
	one := s.identities[d.Identity]
	if one == nil {
		if s.lostReason() == "" {
			faults = append(faults, reason(ReasonIdentity, "an identity that is not enrolled"))
		}
		document(r, p.details, b, nil, "", "", faults...)
		return
	}
	if s.lostReason() == "" && (d.Generation != one.generation+1 || d.Previous != one.document || bytes.Equal(d.SigningKey, one.key)) {
		faults = append(faults, reason(ReasonSuccession, "generation %d over %s; the newest was %d, %s", d.Generation, d.Previous, one.generation, one.document))
	}
	authority := d.RecoveryKey
	switch {
	case len(authority) == 0:
		authority = one.key
		early := r.Time.Before(one.since.Add(succession.Wait - latestEntry)) // the vault decides a little before the log takes it
		if s.lostReason() == "" && (one.notice != d.Notice || one.successor != d.Successor() || early) {
			faults = append(faults, reason(ReasonSuccession, "without the recovery key, and it was not announced %s before", succession.Wait))
		}
	case s.lostReason() == "" && policies.HashKey(authority) != one.recovery:
		faults = append(faults, reason(ReasonSuccession, "by another recovery key than the document before names"))
	}
	signed := b.proof(p.signed, d.SigningKey, nil)
	signed.second = authority
	one.key = d.SigningKey
	one.standing = standing{generation: d.Generation, document: p.signed.Hash, recovery: d.RecoveryHash, suspended: one.suspended, frozen: one.frozen, frozenAt: one.frozenAt}
	s.endSessions(policies.ReaderID(d.Identity), r.Index)
	document(r, p.details, b, signed, ReasonSuccession, "it is not signed by the new key and by one that may decide it", faults...)
}

// endSessions ends what a reader opened, by an entry.
func (s *replay) endSessions(reader policies.ReaderID, by uint64) {
	for _, open := range s.sessions {
		if open.document.Reader == reader && open.ended == 0 {
			open.ended = by
		}
	}
}

// announce notes a change of keys to come, or that there is none any more.
func (s *replay) announce(r *Record, p *prepared, b *batch) {
	d := of[succession.Notice](r, p, b)
	if d == nil {
		return
	}
	var faults []Reason
	faults = s.advance(policies.OwnerID(d.Identity), d.Link, p.signed.Hash, d.Audience).add(faults)
	if one := s.identities[d.Identity]; one != nil {
		if !d.Successor.IsZero() && !one.notice.IsZero() && s.lostReason() == "" {
			faults = append(faults, reason(ReasonSuccession, "another change of keys is announced already"))
		}
		one.notice, one.successor, one.since = policies.Hash{}, d.Successor, r.Time
		if !d.Successor.IsZero() {
			one.notice = p.signed.Hash
		}
	}
	document(r, p.details, b, s.signed(b, p, d.Identity), ReasonSuccession, "the notice is not signed by the key in force", faults...)
}

// decodeSuccession is the document of one of these kinds.
func decodeSuccession(k evidence.Kind, p *prepared) {
	if k == evidence.EntrySuccession {
		p.document, p.err = policies.Decode[succession.Document](p.signed)
	} else if k == evidence.EntrySuspension {
		p.document, p.err = policies.Decode[succession.Suspension](p.signed)
	} else {
		p.document, p.err = policies.Decode[succession.Notice](p.signed)
	}
}

// suspend ends the use of all grants that a reader has.
func (s *replay) suspend(r *Record, p *prepared, b *batch) {
	d := of[succession.Suspension](r, p, b)
	if d == nil {
		return
	}
	faults := s.advance(policies.OwnerID(d.Reader), d.Link, p.signed.Hash, d.Audience).add(nil)
	if one := s.identities[policies.IdentityID(d.Reader)]; one != nil {
		one.suspended = r.Index
	}
	document(r, p.details, b, s.signed(b, p, policies.IdentityID(d.Reader)), ReasonSuccession, "the suspension is not signed by the reader", faults...)
}
