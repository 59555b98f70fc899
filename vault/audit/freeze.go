package audit

import (
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/freeze"
)

// decodeFreeze is the document of one of these kinds.
func decodeFreeze(k evidence.Kind, p *prepared) {
	if k == evidence.EntryFreeze {
		p.document, p.err = policies.Decode[freeze.Document](p.signed)
	} else {
		p.document, p.err = policies.Decode[freeze.Thaw](p.signed)
	}
}

// freeze stops all reading of an owner, and says what is wrong with that: two enrolled identities signed, and the first one's order was not used before. Whether they are operators the
// vault's configuration says, which is not in the log.
func (s *replay) freeze(r *Record, p *prepared, b *batch) {
	d := of[freeze.Document](r, p, b)
	if d == nil {
		return
	}
	var faults []Reason
	if d.Audience != s.log.Document.Vault {
		faults = append(faults, reason(ReasonFreeze, "the freeze is for another vault"))
	}
	order, signed, err := d.First()
	if err != nil { // which decoding it found out
		faults = append(faults, reason(ReasonFreeze, "the first operator's order: %v", err))
	} else {
		if by := s.orders[signed.Hash]; by != 0 {
			faults = append(faults, reason(ReasonFreeze, "the first operator's order was used before, by entry %d", by))
		}
		if order.Live(r.Time.Add(-latestEntry)) != nil && order.Live(r.Time) != nil { // the vault decides a little before the log takes it
			faults = append(faults, reason(ReasonFreeze, "the first operator's order was over at %s", r.Time.Format(timeFormat)))
		}
		s.orders[signed.Hash] = r.Index
		first := s.signed(b, &prepared{signed: signed}, order.Operator)
		document(r, p.details, b, first, ReasonFreeze, "the order is not signed by the first operator")
	}
	if one := s.identities[policies.IdentityID(d.Owner)]; one != nil {
		one.frozen, one.frozenAt = r.Index, r.Time
	} else if s.lostReason() == "" {
		faults = append(faults, reason(ReasonIdentity, "the owner is not enrolled"))
	}
	document(r, p.details, b, s.signed(b, p, d.Operator), ReasonFreeze, "the freeze is not signed by the second operator", faults...)
}

// thaw ends that, if the owner decided it afterwards. A vault refuses one that is older by a second; a minute is left to slow clocks here, because vaults once took any.
func (s *replay) thaw(r *Record, p *prepared, b *batch) {
	d := of[freeze.Thaw](r, p, b)
	if d == nil {
		return
	}
	faults := s.advance(d.Owner, d.Link, p.signed.Hash, d.Audience).add(nil)
	if one := s.identities[policies.IdentityID(d.Owner)]; one != nil && one.frozen != 0 {
		if d.Time < one.frozenAt.Add(-policies.ClockSkew).Unix() {
			faults = append(faults, reason(ReasonFreeze, "the thaw is of %s, before the freeze of entry %d", time.Unix(d.Time, 0).UTC().Format(timeFormat), one.frozen))
		} else {
			one.frozen = 0
		}
	}
	document(r, p.details, b, s.signed(b, p, policies.IdentityID(d.Owner)), ReasonFreeze, "the thaw is not signed by the owner", faults...)
}
