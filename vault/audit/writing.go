package audit

import (
	"cmp"
	"errors"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/writing"
)

// writer is a write grant as the log has it, without its sealed points.
type writer struct {
	writing writing.Standing
	proof   *proof
	chain   *place
}

func (s *replay) letWrite(r *Record, p *prepared, b *batch) {
	g := of[writing.Grant](r, p, b)
	if g == nil {
		return
	}
	var faults []Reason
	if s.writes[g.ID] != nil {
		faults = append(faults, reason(ReasonWriteGrant, "a write grant with this id was accepted before"))
	}
	if s.identities[policies.IdentityID(g.Writer)] == nil && s.lostReason() == "" {
		faults = append(faults, reason(ReasonIdentity, "the writer is not enrolled"))
	}
	document := *g
	document.Sealed = nil
	w := &writer{writing: writing.Standing{Grant: &document, Index: r.Index, Ended: map[policies.Field]writing.Ended{}}}
	w.chain = s.advance(g.Owner, g.Link, p.signed.Hash, g.Audience)
	w.proof = s.signed(b, p, policies.IdentityID(g.Owner))
	faults = w.chain.add(faults)
	key := headKey{g.Owner, g.Writer}
	s.writers[key], s.writes[g.ID] = append(s.writers[key], w), w
	listed(r, p, b, w.proof, "the write grant is not signed by the owner", faults)
}

func (s *replay) endWriting(r *Record, p *prepared, b *batch) {
	d := of[writing.End](r, p, b)
	if d == nil {
		return
	}
	var faults []Reason
	faults = s.advance(d.Owner, d.Link, p.signed.Hash, d.Audience).add(faults)
	proof := s.signed(b, p, policies.IdentityID(d.Owner))
	h := s.heads[headKey{d.Owner, d.Writer}]
	if h == nil {
		h = new(head)
	}
	switch {
	case s.lostReason() != "":
	case d.Last.Version > h.version || d.Last.Version == h.version && d.Last.Manifest != h.manifest:
		faults = append(faults, reason(ReasonWriteGrant, "the end names manifest %d, which is none of the writer's that the vault accepted", d.Last.Version))
	case writing.CheckEnd(s.writings(d.Owner, d.Writer), d, h.version) != nil:
		faults = append(faults, reason(ReasonWriteGrant, "the end names manifest %d, and the writer, who goes on, had published a newer one", d.Last.Version))
	}
	for i, item := range d.Items {
		w := s.writes[item.Grant]
		if w == nil || w.writing.Grant.Owner != d.Owner || w.writing.Grant.Writer != d.Writer {
			if s.lostReason() == "" {
				faults = append(faults, reason(ReasonWriteGrant, "item %d ends a write grant that is not this owner's to this writer", i+1))
			}
			continue
		}
		if _, over := w.writing.Ended[item.Field]; !over {
			w.writing.Ended[item.Field] = item
		}
	}
	listed(r, p, b, proof, "the end of a write grant is not signed by the owner", faults)
}

func listed(r *Record, p *prepared, b *batch, proof *proof, what string, faults []Reason) {
	document(r, p.details, b, proof, ReasonWriteGrant, what, faults...)
}

// writings are the write grants of an owner to an author so far.
func (s *replay) writings(owner policies.OwnerID, author policies.AuthorID) []writing.Standing {
	list := s.writers[headKey{owner, author}]
	out := make([]writing.Standing, len(list))
	for i, w := range list {
		out[i] = w.writing
	}
	return out
}

// admitted checks that a manifest of somebody else than the owner was one that the vault could accept. The vault decided a little before the log took the entry, so
// one that was in force at either moment was.
func (s *replay) admitted(r *Record, m *policies.Manifest, faults []Reason) []Reason {
	if m.Audience != s.log.Document.Vault {
		faults = append(faults, reason(ReasonHead, "the manifest is addressed to another vault"))
	}
	if s.lostReason() != "" {
		return faults
	}
	writings := s.writings(m.Owner, m.Author)
	err := writing.CheckAuthor(writings, r.Time.Unix())
	if errors.Is(err, policies.CodeWriteEnded) {
		err = writing.CheckAuthor(writings, r.Time.Add(-latestEntry).Unix())
	}
	if err != nil {
		faults = append(faults, reason(string(err.(policies.Code)), "the owner did not let %s publish then", m.Author))
	}
	return faults
}

// written decides anew whether what somebody else than the owner wrote counts.
func (s *replay) written(v *verdict, d *evidence.Details, h *head) {
	list := s.writers[headKey{d.Owner, d.Author}]
	for _, w := range list {
		if _, ok := w.writing.Grant.Epoch(d.Field); !ok {
			continue
		}
		v.needs(w.proof, ReasonWriteGrant, "the write grant "+w.writing.Grant.ID.String()+" is not signed by the owner")
		if c := w.chain; c != nil && c.lost {
			v.unknown(cmp.Or(s.lostReason(), ReasonErased), "%s", c.why.Text)
		} else {
			v.finding.Reasons = c.add(v.finding.Reasons)
		}
	}
	err := writing.Check(s.writings(d.Owner, d.Author), writing.Item{
		Leaf: d.Leaf, Field: d.Field, Epoch: d.Epoch, Version: d.Version, Head: h.version, Index: h.index, Accepted: h.time,
	})
	if err != nil {
		s.notKnown(v, string(err.(policies.Code)), "written by %s: %s", d.Author, err)
	}
}
