package audit

import (
	"cmp"
	"slices"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// What lies beside entries may be gone for two reasons: an erasure that the log speaks of, which takes what people did, and the closure of an account, which takes all
// of its owner. The first comes before or after, the second always after; so what is gone is noted, and judged at the end.
type gone struct {
	used  map[policies.Pseudonym]Record // of each owner the last entry whose body is gone, of kinds that may be erased when they are old
	state map[policies.Pseudonym]Record // and of kinds that may not
	reads map[policies.Pseudonym]uint64 // of each reader the last use or refusal whose body is gone
	ended map[policies.Pseudonym]uint64 // closures
}

func newGone() gone {
	return gone{map[policies.Pseudonym]Record{}, map[policies.Pseudonym]Record{}, map[policies.Pseudonym]uint64{}, map[policies.Pseudonym]uint64{}}
}

// note takes an entry whose body is erased.
func (g *gone) note(r *Record) {
	light := Record{Index: r.Index, Time: r.Time, Entry: r.Entry} // the bundle that it came in is not held
	switch r.Entry.Kind {
	case evidence.EntryUse, evidence.EntryRefusal, evidence.EntrySession, evidence.EntryRefusals, evidence.EntryAccess:
		g.used[r.Entry.Owner] = light
	case evidence.EntryFailed:
		if r.Entry.Outcome == policies.CodeImport || r.Entry.Owner.IsZero() {
			g.state[r.Entry.Owner] = light
		} else {
			g.used[r.Entry.Owner] = light
		}
	default:
		g.state[r.Entry.Owner] = light
	}
}

// lostState reports whether something that the state rests on was erased of one of those that an entry is about.
func (g *gone) lostState(e *evidence.Entry) bool {
	_, owner := g.state[e.Owner]
	_, reader := g.state[e.Reader]
	return owner || reader && !e.Reader.IsZero()
}

// unexplained are the last entries whose bodies are gone although the log speaks neither of their erasure nor of a closure.
func (g *gone) unexplained(erasedTo uint64) (out []Record) {
	for owner, r := range g.used {
		if r.Index >= erasedTo && g.ended[owner] <= r.Index {
			out = append(out, r)
		}
	}
	for owner, r := range g.state {
		if g.ended[owner] <= r.Index {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b Record) int { return cmp.Compare(a.Index, b.Index) })
	return out
}

// lostReason is why something that an entry rests on may not be there: "" if it must be.
func (s *replay) lostReason() string {
	if s.lost == "" && s.entry != nil && s.gone.lostState(s.entry) {
		return ReasonErased
	}
	return s.lost
}

// close ends an account: all its grants end, as by a revocation, and what it opened as a reader.
func (s *replay) close(r *Record, p *prepared, b *batch) {
	d := of[policies.Closure](r, p, b)
	if d == nil {
		return
	}
	faults := s.advance(d.Owner, d.Link, p.signed.Hash, d.Audience).add(nil)
	if one := s.identities[policies.IdentityID(d.Owner)]; one != nil && one.pseudo != r.Entry.Owner {
		faults = append(faults, reason(ReasonPseudonym, "the closure is not under the owner's pseudonym"))
	}
	if s.gone.ended[r.Entry.Owner] != 0 {
		faults = append(faults, reason(ReasonGrantChain, "the account was closed before"))
	} else if len(faults) == 0 {
		s.gone.ended[r.Entry.Owner] = r.Index
	}
	s.endSessions(policies.ReaderID(d.Owner), r.Index)
	for _, g := range s.grants {
		if g.document.Owner != d.Owner {
			continue
		}
		for i := range g.revoked {
			if g.revoked[i] == 0 {
				g.revoked[i] = r.Index
			}
		}
	}
	document(r, p.details, b, s.signed(b, p, policies.IdentityID(d.Owner)), ReasonGrantSignature, "the closure is not signed by the owner", faults...)
}

// endToClosed ends what an owner had granted to a reader who closed their account: the keys are gone. The entry has no document of its own; it names the closure, and the grants must be to
// who signed that. It must be under the owner's pseudonym, or the owner's history has it not.
func (s *replay) endToClosed(r *Record, d *evidence.Details, b *batch) {
	var faults []Reason
	if s.lostReason() == "" {
		one, owner := s.identities[policies.IdentityID(d.Reader)], s.identities[policies.IdentityID(d.Owner)]
		switch {
		case one == nil:
			faults = append(faults, reason(ReasonIdentity, "keys of grants to a reader who is not enrolled are said to have ended with its account"))
		case s.gone.ended[one.pseudo] == 0 || s.gone.ended[one.pseudo] != d.Index || s.chains[policies.OwnerID(d.Reader)].hash != d.Document:
			faults = append(faults, reason(ReasonDetails, "keys are said to have ended with the account of their reader, which was not closed by entry %d and the document that it names", d.Index))
		}
		if owner == nil || owner.pseudo != r.Entry.Owner || !r.Entry.Reader.IsZero() {
			faults = append(faults, reason(ReasonPseudonym, "what ended with the account of its reader is not under the owner's pseudonym alone"))
		}
	}
	if len(faults) == 0 {
		if n := s.endItems(d.Index, d.Owner, d.Reader, d.Items); n > 0 {
			faults = append(faults, reason(ReasonGrantChain, "%d of its grants are not of that owner to that reader", n))
		}
	}
	if len(faults) > 0 {
		document(r, d, b, nil, "", "", faults...)
	}
}
