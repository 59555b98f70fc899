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
	proof    *proof
	lost     string // why those in force, of entry index, cannot be seen; the rest is then of the ones before
}

// mostTried is how many counts of a day are tried of which nobody knows which was it; beyond, the largest one.
const mostTried = 64

// parties are owner and reader, as entries name them.
type parties struct{ owner, reader policies.Pseudonym }

// uncounted are releases of a day whose details are not there: so it is not known which fields they were of.
type uncounted struct {
	day int64 // of the log
	n   uint64
	why string
}

// uncount notes one.
func (s *replay) uncount(r *Record, why string) {
	k := parties{r.Entry.Owner, r.Entry.Reader}
	u := s.uncounted[k]
	if day := dayOf(r.Time); u.day != day {
		u = uncounted{day: day}
	}
	u.n, u.why = u.n+1, why
	s.uncounted[k] = u
}

// guard puts the operator's rules in force, and says what is wrong with them. Those that no vault may accept are not in force.
func (s *replay) guard(r *Record, p *prepared, b *batch) {
	d := of[guardrails.Document](r, p, b)
	if d == nil {
		return
	}
	var faults []Reason
	if d.Audience != s.log.Document.Vault {
		faults = append(faults, reason(ReasonGuardrails, "they are addressed to another vault"))
	}
	if d.Serial <= s.rules.serial {
		faults = append(faults, reason(ReasonGuardrails, "serial number %d; there was %d before", d.Serial, s.rules.serial))
	}
	set, err := guardrails.Parse(d.Rules)
	if err != nil {
		faults = append(faults, reason(ReasonGuardrails, "they cannot be read: %v", err))
	}
	signed := b.proof(p.signed, s.log.Document.CeremonyKey, nil)
	if len(faults) == 0 {
		s.rules = rules{document: p.signed.Hash, index: r.Index, serial: d.Serial, set: set, proof: signed}
	}
	document(r, p.details, b, signed, ReasonGuardrails, "the guardrails are not signed by the ceremony key", faults...)
}

// guarded decides anew by the operator's rules.
func (s *replay) guarded(v *verdict, d *evidence.Details, g *grant, q *pass, ask *policies.ReadItem, decided time.Time) {
	in := &s.rules
	switch {
	case in.lost == "" && d.Rules == in.document:
	case d.Rules.IsZero():
		v.fault(ReasonGuardrails, "decided without guardrails; those of entry %d were in force", in.index)
	case in.lost != "" && d.Rules != in.document:
		v.unknown(in.lost, "the guardrails %s of entry %d", d.Rules, in.index)
		return
	case in.lost == "" && in.document.IsZero():
		v.fault(ReasonGuardrails, "decided by the guardrails %s, which never were in force", d.Rules)
	default:
		v.fault(ReasonGuardrails, "decided by the guardrails %s; those of entry %d were in force", d.Rules, in.index)
	}
	if in.lost != "" {
		return
	}
	v.needs(in.proof, ReasonGuardrails, "the guardrails in force are not signed by the ceremony key")
	if in.document.IsZero() || g == nil || ask == nil { // the others have their own reasons
		return
	}
	t := trial{set: in.set, index: in.index, decided: decided, window: s.window, used: map[int64]uint64{}, unseen: s.lostReason()}
	for _, at := range []time.Time{decided, t.from(), t.to()} {
		t.used[dayOf(at)] = s.used(g, at)
	}
	if reader := s.identities[policies.IdentityID(d.Reader)]; reader != nil {
		t.vouched, t.unseen = reader.vouched, s.unseen[reader.pseudo]
	}
	if u := s.uncounted[parties{v.finding.Owner, v.finding.Reader}]; u.day >= dayOf(decided) {
		t.uncounted = u
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
	unseen  string // why the voucher, or its end, may not have been there
	uncounted
}

func (t *trial) from() time.Time { return t.window.after.Add(-latestEntry) }
func (t *trial) to() time.Time   { return t.window.before.Add(policies.ClockSkew) }

func (t *trial) against(at time.Time, vouched bool, more uint64) string {
	f := t.facts
	f.Vouched, f.UsedToday = vouched, t.used[dayOf(at)]+more
	return strings.Join(t.set.Refusals(&f, at), ", ")
}

// run decides, and asks whether it would be so at another moment of those at which it can have happened. They are tried a minute apart, or at sixteen.
func (t *trial) run(v *verdict) {
	is := t.vouched.in(t.decided)
	names := t.against(t.decided, is, 0)
	otherwise := func(vouched bool, more uint64) bool {
		return (names == "") != (t.against(t.decided, vouched, more) == "")
	}
	if t.unseen != "" && otherwise(!is, 0) {
		v.unknown(t.unseen, "whether the reader was vouched for, on which rules of entry %d depend", t.index)
		return
	}
	for more := uint64(1); more <= t.n; more++ {
		if more > mostTried {
			more = t.n
		}
		if otherwise(is, more) {
			v.unknown(t.why, "how much was released on that day, on which rules of entry %d depend", t.index)
			return
		}
	}
	if names == "" && is && t.set.Timed() && otherwise(false, 0) {
		v.needs(t.vouched.proof, ReasonVoucher, "the reader's voucher is not signed by the ceremony key")
	}
	if names != "" {
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
		if names := t.against(at, t.vouched.in(at), 0); names != "" {
			v.unbounded = append(v.unbounded, reason(ReasonGuardrails, "logged between %s and %s; at %s rules of entry %d would be against it: %s",
				from.Format(timeFormat), to.Format(timeFormat), at.Format(timeFormat), t.index, names))
			return
		}
		if !at.Before(to) {
			return
		}
	}
}
