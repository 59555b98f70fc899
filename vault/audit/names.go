package audit

import (
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/policies/succession"
)

// vouched is the newest voucher for an identity's name.
type vouched struct {
	serial  uint64
	name    string // as vouched for; empty: withdrawn, or never
	expires int64
	proof   *proof
}

// in reports whether the operator vouches for a name at a time.
func (v vouched) in(now time.Time) bool { return v.name != "" && now.Unix() < v.expires }

// vouch notes that the operator vouched for a name, and says what is wrong with that. A voucher that no vault may accept changes nothing.
func (s *replay) vouch(r *Record, p *prepared, b *batch) {
	d := of[names.Voucher](r, p, b)
	if d == nil {
		return
	}
	var faults []Reason
	if d.Audience != s.log.Document.Vault {
		faults = append(faults, reason(ReasonVoucher, "the voucher is addressed to another vault"))
	}
	one := s.identities[d.Identity]
	switch {
	case one == nil:
		if s.lostReason() == "" {
			faults = append(faults, reason(ReasonIdentity, "an identity that is not enrolled"))
		}
	case one.name != d.Name:
		faults = append(faults, reason(ReasonVoucher, "the identity calls itself something else"))
	case one.serial >= d.Serial:
		faults = append(faults, reason(ReasonVoucher, "serial number %d; there was %d before", d.Serial, one.serial))
	}
	if one != nil && !d.Withdrawn {
		for _, k := range names.Keys(d.Name) {
			if other := s.named[k]; other != nil && other != one && other.vouched.in(r.Time) && s.gone.ended[other.pseudo] == 0 && s.unseen[other.pseudo] == "" {
				faults = append(faults, reason(ReasonVoucher, "the name looks like that of another identity that is vouched for"))
			}
		}
	}
	signed := b.proof(p.signed, s.log.Document.CeremonyKey, nil)
	if one != nil && len(faults) == 0 {
		delete(s.unseen, one.pseudo)
		one.vouched = vouched{serial: d.Serial, proof: signed}
		if !d.Withdrawn {
			one.vouched.name, one.vouched.expires = d.Name, d.Expires
			for _, k := range names.Keys(d.Name) {
				s.named[k] = one
			}
		}
	}
	document(r, p.details, b, signed, ReasonVoucher, "the voucher is not signed by the ceremony key", faults...)
}

// giveUp ends fields of grants for their reader.
func (s *replay) giveUp(r *Record, p *prepared, b *batch) {
	d := of[succession.Renunciation](r, p, b)
	if d == nil {
		return
	}
	var faults []Reason
	if d.Audience != s.log.Document.Vault {
		faults = append(faults, reason(ReasonGrantChain, "the document is addressed to another vault"))
	}
	if n := s.endItems(r.Index, d.Owner, d.Reader, d.Items); n > 0 {
		faults = append(faults, reason(ReasonGrantChain, "%d of its grants are not of that owner to that reader", n))
	}
	document(r, p.details, b, s.signed(b, p, policies.IdentityID(d.Reader)), ReasonGrantSignature, "the renunciation is not signed by the reader", faults...)
}
