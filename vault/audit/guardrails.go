package audit

import (
	"strings"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/guardrails"
)

// rules are the operator's guardrails in force, if there were any.
type rules struct {
	document policies.Hash
	index    uint64
	serial   uint64
	set      *guardrails.Set
	fault    error // why they cannot be read
	proof    *proof
}

// guard puts the operator's rules in force, and says what is wrong with them.
func (s *replay) guard(r *Record, p *prepared, b *batch) {
	d := of[guardrails.Document](r, p, b)
	if d == nil {
		return
	}
	var faults []Reason
	if d.Audience != s.log.Document.Vault {
		faults = append(faults, reason(ReasonGuardrails, "they are addressed to another vault"))
	}
	if d.Serial <= s.rules.serial && s.lostReason() == "" {
		faults = append(faults, reason(ReasonGuardrails, "serial number %d; there was %d before", d.Serial, s.rules.serial))
	}
	next := rules{document: p.signed.Hash, index: r.Index, serial: d.Serial, proof: b.proof(p.signed, s.log.Document.CeremonyKey, nil)}
	if next.set, next.fault = guardrails.Parse(d.Rules); next.fault != nil {
		faults = append(faults, reason(ReasonGuardrails, "they cannot be read: %v", next.fault))
	}
	s.rules = next
	document(r, p.details, b, next.proof, ReasonGuardrails, "the guardrails are not signed by the ceremony key", faults...)
}

// guarded decides anew by the operator's rules.
func (s *replay) guarded(v *verdict, d *evidence.Details, g *grant, q *pass, ask *policies.ReadItem, decided time.Time) {
	in := &s.rules
	if d.Rules != in.document {
		switch {
		case d.Rules.IsZero():
			s.notKnown(v, ReasonGuardrails, "decided without guardrails; those of entry %d were in force", in.index)
		case in.document.IsZero():
			s.notKnown(v, ReasonGuardrails, "decided by the guardrails %s, which never were in force", d.Rules)
		default:
			s.notKnown(v, ReasonGuardrails, "decided by the guardrails %s; those of entry %d were in force", d.Rules, in.index)
		}
	}
	v.needs(in.proof, ReasonGuardrails, "the guardrails in force are not signed by the ceremony key")
	switch {
	case in.document.IsZero() || g == nil || ask == nil: // the others have their own reasons
		return
	case in.fault != nil:
		v.fault(ReasonGuardrails, "the guardrails of entry %d cannot be read", in.index)
		return
	}
	t := trial{set: in.set, index: in.index, decided: decided, window: s.window, used: map[int64]uint64{}}
	for _, at := range []time.Time{decided, t.from(), t.to()} {
		t.used[dayOf(at)] = s.used(g, at)
	}
	if reader := s.identities[policies.IdentityID(d.Reader)]; reader != nil {
		t.vouched = reader.vouched
	}
	t.facts = guardrails.Facts{
		Reader: d.Reader, Owner: d.Owner, Field: d.Field, Author: d.Author, Grant: &g.document, Token: d.Token, Grade: d.Grade, Items: len(q.document.Items),
	}
	v.trial = &t
}

// A trial is a release that is to be tried by the operator's rules, beside the replay.
type trial struct {
	set     *guardrails.Set
	index   uint64 // of the rules
	facts   guardrails.Facts
	decided time.Time
	window  window
	used    map[int64]uint64 // by day; of days that are not here nothing
	vouched vouched
}

func (t *trial) from() time.Time { return t.window.after.Add(-latestEntry) }
func (t *trial) to() time.Time   { return t.window.before.Add(policies.ClockSkew) }

func (t *trial) against(at time.Time) string {
	f := t.facts
	f.Vouched, f.UsedToday = t.vouched.in(at), t.used[dayOf(at)]
	return strings.Join(t.set.Refusals(&f, at), ", ")
}

// run decides, and asks whether it would be so at another moment of those at which it can have happened. They are tried a minute apart, or at sixteen.
func (t *trial) run(v *verdict) {
	if names := t.against(t.decided); names != "" {
		v.fault(string(policies.CodeGuardrail), "rules of entry %d are against it: %s", t.index, names)
		return
	}
	if !t.set.Timed() {
		return
	}
	if t.window.after.IsZero() || t.window.before.IsZero() {
		v.unbounded = append(v.unbounded, reason(ReasonGuardrails, "rules of entry %d depend on a time that nobody bounds", t.index))
		return
	}
	from, to := t.from(), t.to()
	for at, step := from, max(time.Minute, to.Sub(from)/16); ; at = at.Add(step) {
		if at.After(to) {
			at = to
		}
		if names := t.against(at); names != "" {
			v.unbounded = append(v.unbounded, reason(ReasonGuardrails, "logged between %s and %s; at %s rules of entry %d would be against it: %s",
				from.Format(timeFormat), to.Format(timeFormat), at.Format(timeFormat), t.index, names))
			return
		}
		if !at.Before(to) {
			return
		}
	}
}
