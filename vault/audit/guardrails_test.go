package audit

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/guardrails"
	"github.com/sallyport/sallyport/policies/names"
)

var operator = envelope.NewPrivateKey((*[64]byte)(filled(64, 1))) // newVault

// guard is an entry that the operator's rules are in force. key signs: the ceremony's, if the vault is honest.
func (w *world) guard(serial uint64, rules string, key *envelope.PrivateKey, bend func(*guardrails.Document)) (uint64, policies.Hash) {
	d := &guardrails.Document{Header: policies.NewHeader("guardrails", w.now), Audience: w.doc.Vault, Serial: serial, Rules: rules}
	if bend != nil {
		bend(d)
	}
	e := must(policies.Sign(key, d))
	return w.add(w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryGuardrails, Outcome: policies.CodeAccepted}, &evidence.Details{Document: e.Hash, Count: 1, Note: "one"}, e.Raw), e.Hash
}

// TestRecheckOfGuardrails: of a vault that decides by other rules than the operator's, or not by them, each release is found; what the rules permit is justified.
func TestRecheckOfGuardrails(t *testing.T) {
	const (
		noPhone  = `@id("no-phone") forbid (principal, action, resource == Field::"phone");`
		noMail   = `@id("no-mail") forbid (principal, action, resource == Field::"mail");`
		vouched  = `@id("vouched") forbid (principal, action, resource) unless { principal.vouched };`
		bulk     = `@id("bulk") forbid (principal, action, resource) when { context.items > 1 };`
		once     = `@id("once") forbid (principal, action, resource) when { context.used_today > 0 };`
		overflow = `@id("overflow") forbid (principal, action, resource) when { 9223372036854775807 + context.items > 0 };`
	)
	type scene struct {
		*world
		o, r *person
		g    *policies.Grant
		s    *opened
	}
	// under reads under a set of rules, as its entry says.
	under := func(w *scene, f policies.Field, rules policies.Hash, bend func(*reading)) uint64 {
		i, _ := w.s.read(w.o, w.g, f, func(x *reading) {
			x.details.Rules = rules
			if bend != nil {
				bend(x)
			}
		})
		return i
	}
	for _, c := range []struct {
		name, code, text string // empty: justified
		act              func(w *scene) uint64
	}{
		{"rules that permit it", "", "", func(w *scene) uint64 {
			_, rules := w.guard(1, noMail+bulk+once, operator, nil)
			return under(w, "phone", rules, nil)
		}},
		{"rules that are not against it any more", "", "", func(w *scene) uint64 {
			w.guard(1, noPhone, operator, nil)
			_, rules := w.guard(2, "", operator, nil)
			return under(w, "phone", rules, nil)
		}},
		{"a reader who is vouched for", "", "", func(w *scene) uint64 {
			w.vouch(w.r, "Acme", 1, operator, nil)
			_, rules := w.guard(1, vouched, operator, nil)
			return under(w, "phone", rules, nil)
		}},
		{"a field that the rules forbid", "guardrail", "are against it: no-phone", func(w *scene) uint64 {
			_, rules := w.guard(1, noMail+noPhone, operator, nil)
			return under(w, "phone", rules, nil)
		}},
		{"a reader who is not vouched for", "guardrail", "vouched", func(w *scene) uint64 {
			_, rules := w.guard(1, vouched, operator, nil)
			return under(w, "phone", rules, nil)
		}},
		{"a voucher that is over", "guardrail", "vouched", func(w *scene) uint64 {
			w.vouch(w.r, "Acme", 1, operator, nil)
			_, rules := w.guard(1, vouched, operator, nil)
			w.tick(24 * time.Hour)
			w.s = w.r.open(w.r.key, nil)
			return under(w, "phone", rules, nil)
		}},
		{"the second of a day", "guardrail", "once", func(w *scene) uint64 {
			_, rules := w.guard(1, once, operator, nil)
			under(w, "phone", rules, nil)
			return under(w, "phone", rules, nil)
		}},
		{"more items than the rules allow", "guardrail", "bulk", func(w *scene) uint64 {
			_, rules := w.guard(1, bulk, operator, nil)
			return under(w, "phone", rules, func(x *reading) { x.request.Items = append(x.request.Items, x.request.Items[0]) })
		}},
		{"a rule that cannot be decided", "guardrail", "overflow", func(w *scene) uint64 {
			_, rules := w.guard(1, overflow, operator, nil)
			return under(w, "phone", rules, nil)
		}},
		{"no rules are named", ReasonGuardrails, "without guardrails; those of entry", func(w *scene) uint64 {
			w.guard(1, noMail, operator, nil)
			return under(w, "phone", policies.Hash{}, nil)
		}},
		{"no rules are named, and they are against it", "guardrail", "no-phone", func(w *scene) uint64 {
			w.guard(1, noPhone, operator, nil)
			return under(w, "phone", policies.Hash{}, nil)
		}},
		{"older rules are named", ReasonGuardrails, "those of entry", func(w *scene) uint64 {
			_, old := w.guard(1, noMail, operator, nil)
			w.guard(2, "", operator, nil)
			return under(w, "phone", old, nil)
		}},
		{"rules that were never in force", ReasonGuardrails, "never were in force", func(w *scene) uint64 {
			return under(w, "phone", policies.Hash{5}, nil)
		}},
		{"another grade than the token's", ReasonDetails, "the vault started with", func(w *scene) uint64 {
			w.add(w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryStart}, &evidence.Details{Token: "token-1", Grade: "C"}, nil)
			_, rules := w.guard(1, `@id("grade") forbid (principal, action, resource) unless { context.grade == "A" };`, operator, nil)
			return under(w, "phone", rules, nil)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &scene{world: newWorld()}
			w.o, w.r = w.enrol(), w.business("Acme")
			w.o.publish(nil)
			w.g = w.o.grant(w.r, w.o.key, nil, "phone", "mail")
			w.s = w.r.open(w.r.key, nil)
			w.s.read(w.o, w.g, "mail", nil) // before there were rules
			w.s = w.r.open(w.r.key, nil)
			w.tick(24 * time.Hour)
			w.s = w.r.open(w.r.key, nil)
			bad := c.act(w)
			report := w.recheck(t, Range{})
			if report.Documents.Count != 0 || report.Unchecked.Count != 0 {
				t.Fatalf("%s", report.Bytes())
			}
			u := report.Unjustified
			if c.code == "" {
				if u.Count != 0 {
					t.Errorf("%s", report.Bytes())
				}
				return
			}
			if u.Count != 1 || u.Listed[0].Index != bad || !slices.ContainsFunc(u.Listed[0].Reasons, func(r Reason) bool { return r.Code == c.code && strings.Contains(r.Text, c.text) }) {
				t.Errorf("entry %d, for %s (%s): %s", bad, c.code, c.text, report.Bytes())
			}
		})
	}
}

// TestRecheckOfGuardrailsAndVouchers: where rules ask for a voucher, one that the vault may not accept does not justify a release, whoever else lists it.
func TestRecheckOfGuardrailsAndVouchers(t *testing.T) {
	for _, c := range []struct {
		name, code string
		act        func(w *world, r *person)
	}{
		{"an old one after its end", "guardrail", func(w *world, r *person) {
			w.vouch(r, "Acme", 2, operator, func(v *names.Voucher) { v.Withdrawn, v.NotBefore, v.Expires = true, 0, 0 })
			w.vouch(r, "Acme", 1, operator, nil)
		}},
		{"for another name", "guardrail", func(w *world, r *person) { w.vouch(r, "Acme Bank", 1, operator, nil) }},
		{"for another vault", "guardrail", func(w *world, r *person) {
			w.vouch(r, "Acme", 1, operator, func(v *names.Voucher) { v.Audience[0]++ })
		}},
		{"by somebody else", ReasonVoucher, func(w *world, r *person) { w.vouch(r, "Acme", 1, r.key, nil) }},
	} {
		w := newWorld()
		o, r := w.enrol(), w.business("Acme")
		o.publish(nil)
		g := o.grant(r, o.key, nil, "phone")
		c.act(w, r)
		_, rules := w.guard(1, `@id("vouched") forbid (principal, action, resource) unless { principal.vouched };`, operator, nil)
		r.open(r.key, nil).read(o, g, "phone", func(x *reading) { x.details.Rules = rules })
		report := w.recheck(t, Range{})
		if u := report.Unjustified; u.Count != 1 || len(u.Reasons) != 1 || u.Reasons[0].Code != c.code || report.Documents.Count != 1 {
			t.Errorf("%s: %s", c.name, report.Bytes())
		}
	}
}

// TestRecheckOfRulesThatNobodySigned: of a vault that puts rules in force which the operator did not sign, or old ones again, that entry is listed, and what was released by them is not justified.
func TestRecheckOfRulesThatNobodySigned(t *testing.T) {
	const none = ""
	for _, c := range []struct {
		name, text string
		act        func(w *world, mole *person) (uint64, policies.Hash)
	}{
		{"somebody else's signature", "not signed by the ceremony key", func(w *world, mole *person) (uint64, policies.Hash) { return w.guard(1, none, mole.key, nil) }},
		{"the same serial number", "there was 4 before", func(w *world, mole *person) (uint64, policies.Hash) {
			w.guard(4, `@id("no") forbid (principal, action, resource);`, operator, nil)
			return w.guard(4, none, operator, nil)
		}},
		{"another vault's", "another vault", func(w *world, mole *person) (uint64, policies.Hash) {
			return w.guard(1, none, operator, func(d *guardrails.Document) { d.Audience[0]++ })
		}},
		{"no rules", "cannot be read", func(w *world, mole *person) (uint64, policies.Hash) { return w.guard(1, "x", operator, nil) }},
		{"rules that permit", "cannot be read", func(w *world, mole *person) (uint64, policies.Hash) {
			return w.guard(1, `@id("all") permit (principal, action, resource);`, operator, nil)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			o, r := w.enrol(), w.enrol()
			o.publish(nil)
			g := o.grant(r, o.key, nil, "phone")
			s := r.open(r.key, nil)
			listed, rules := c.act(w, r)
			s.read(o, g, "phone", func(x *reading) { x.details.Rules = rules })
			report := w.recheck(t, Range{})
			d := report.Documents
			if d.Count != 1 || d.Listed[0].Index != listed || d.Listed[0].Reasons[0].Code != ReasonGuardrails || !strings.Contains(d.Listed[0].Reasons[0].Text, c.text) {
				t.Errorf("entry %d (%s): %s", listed, c.text, report.Bytes())
			}
			if report.Unjustified.Count != 1 {
				t.Errorf("released by them: %s", report.Bytes())
			}
		})
	}
}

// TestRecheckOfGuardrailsThatAreGone: where what lies beside the entry of the rules is not in the source, releases under them are not checkable. They may not be erased.
func TestRecheckOfGuardrailsThatAreGone(t *testing.T) {
	w := newWorld()
	o, r := w.enrol(), w.enrol()
	o.publish(nil)
	g := o.grant(r, o.key, nil, "phone")
	at, rules := w.guard(1, "", operator, nil)
	r.open(r.key, nil).read(o, g, "phone", func(x *reading) { x.details.Rules = rules })
	w.bodies[at] = nil
	report := w.recheck(t, Range{})
	if report.Unchecked.Count != 1 || report.Documents.Count != 1 || report.Documents.Listed[0].Reasons[0].Code != ReasonErasure {
		t.Errorf("%s", report.Bytes())
	}
}

// TestRecheckOfGuardrailsWhenADayIsErasedInPart: erasure does not wait for the end of a day. What was released on it before counts, although nobody sees of which fields it was.
func TestRecheckOfGuardrailsWhenADayIsErasedInPart(t *testing.T) {
	for _, c := range []struct {
		name, condition string // of the third read of a day, of which the first is erased
		apart           time.Duration
		want            string
	}{
		{"the second only", `context.used_today == 1`, 0, "unchecked"},
		{"the third only", `context.used_today == 2`, 0, "unchecked"},
		{"the fourth only", `context.used_today == 3`, 0, "justified"},
		{"from the fourth on", `context.used_today >= 3`, 0, "justified"},
		{"from the third on", `context.used_today >= 2`, 0, "unchecked"},
		{"from the second on", `context.used_today >= 1`, 0, "unjustified"},
		{"the second only, and the first was a day before", `context.used_today == 1`, 24 * time.Hour, "unjustified"},
		{"the third only, and the first was a day before", `context.used_today == 2`, 24 * time.Hour, "justified"},
	} {
		w := newWorld()
		o, r := w.enrol(), w.enrol()
		o.publish(nil)
		g := o.grant(r, o.key, nil, "phone")
		first, _ := r.open(r.key, nil).read(o, g, "phone", nil)
		w.add(w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryErasure}, &evidence.Details{Count: first + 1}, nil)
		w.bodies[first] = nil
		w.tick(c.apart)
		s := r.open(r.key, nil)
		s.read(o, g, "phone", nil)
		_, rules := w.guard(1, `@id("rule") forbid (principal, action, resource) when { `+c.condition+` };`, operator, nil)
		third, _ := s.read(o, g, "phone", func(x *reading) { x.details.Rules = rules })
		report := w.recheck(t, Range{From: third})
		got := map[string]uint64{"justified": report.Justified, "unchecked": report.Unchecked.Count, "unjustified": report.Unjustified.Count}
		if got[c.want] != 1 || report.Documents.Count != 0 {
			t.Errorf("%s: %s", c.name, report.Bytes())
		}
	}
}

// TestGuardrailsAtAnotherTime: a release is listed as resting on the vault's clock if a rule speaks of the time and no witness bounds it, or the bounds hold moments at which the rule is against it.
func TestGuardrailsAtAnotherTime(t *testing.T) {
	at := func(m time.Duration) time.Time { return testTime.Add(m * time.Minute) } // testTime is 08:00 UTC
	rule := func(from, to time.Duration) string {
		return fmt.Sprintf(`@id("pause") forbid (principal, action, resource) when { context.time >= datetime("%s") && context.time < datetime("%s") };`,
			at(from).UTC().Format("2006-01-02T15:04:05Z"), at(to).UTC().Format("2006-01-02T15:04:05Z"))
	}
	for _, c := range []struct {
		name, rules string
		window      window
		want        string
	}{
		{"no rule speaks of the time", `@id("x") forbid (principal, action, resource == Field::"mail");`, window{}, ""},
		{"nobody bounds it", rule(100, 200), window{}, "nobody bounds"},
		{"bounded on one side", rule(100, 200), window{before: at(5)}, "nobody bounds"},
		{"never within the bounds", rule(100, 200), window{at(-1), at(5)}, ""},
		{"at their beginning", rule(-3, -1), window{at(-1), at(5)}, "pause"},
		{"at their end", rule(5, 200), window{at(-1), at(5)}, "pause"},
		{"for a minute within", rule(3, 4), window{at(-1), at(5)}, "pause"},
		{"just behind", rule(7, 200), window{at(-1), at(5)}, ""},
	} {
		set := must(guardrails.Parse(c.rules))
		s := newReplay(&Log{}, Range{})
		s.rules, s.window = rules{document: policies.Hash{1}, set: set, proof: new(proof)}, c.window
		v := &verdict{}
		g := &grant{document: policies.Grant{Purpose: "p"}}
		s.guarded(v, &evidence.Details{Rules: policies.Hash{1}, Field: "phone"}, g, &pass{document: &policies.ReadRequest{Items: make([]policies.ReadItem, 1)}}, &policies.ReadItem{}, at(1))
		v.trial.run(v)
		if len(v.finding.Reasons) != 0 || (len(v.unbounded) > 0) != (c.want != "") || c.want != "" && !strings.Contains(v.unbounded[0].Text, c.want) {
			t.Errorf("%s: %+v, %+v", c.name, v.finding.Reasons, v.unbounded)
		}
	}
}

// TestRecheckOfGuardrailsWithAPartAbsent: where a part of what lies beside the log is not in the source, an honest vault is not called unjustified for what was there, and one that takes what is not there
// for an excuse is found.
func TestRecheckOfGuardrailsWithAPartAbsent(t *testing.T) {
	const (
		noPhone = `@id("no-phone") forbid (principal, action, resource == Field::"phone");`
		vouched = `@id("vouched") forbid (principal, action, resource) unless { principal.vouched };`
		bulk    = `@id("bulk") forbid (principal, action, resource) unless { principal.vouched || context.items < 2 };`
	)
	start := func(w *world, token string) {
		w.add(w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryStart, Outcome: policies.CodeAccepted}, &evidence.Details{Token: token, Grade: "A"}, nil)
	}
	var seen, gone policies.Hash // the rules that are there, and those that are not
	for _, c := range []struct {
		name   string
		before func(w *world, r *person) // what is there
		absent func(w *world, r *person) // what is not
		after  func(w *world)
		rules  *policies.Hash // by which it is released
		bend   func(*reading)
		want   string // justified, unchecked or unjustified
		listed int    // documents with faults
	}{
		{"newer rules", func(w *world, _ *person) { _, seen = w.guard(1, noPhone, operator, nil) }, func(w *world, _ *person) { _, gone = w.guard(2, "", operator, nil) }, nil, &gone, nil, "unchecked", 0},
		{"newer rules, and released by the older", func(w *world, _ *person) { _, seen = w.guard(1, "", operator, nil) }, func(w *world, _ *person) { _, gone = w.guard(2, noPhone, operator, nil) }, nil, &seen, nil, "unjustified", 0},
		{"the first rules, and released by none", nil, func(w *world, _ *person) { w.guard(1, noPhone, operator, nil) }, nil, nil, nil, "unjustified", 0},
		{"rules before those in force", nil, func(w *world, _ *person) { w.guard(1, noPhone, operator, nil) }, func(w *world) { _, seen = w.guard(2, "", operator, nil) }, &seen, nil, "justified", 0},
		{"rules, and old ones after them", func(w *world, _ *person) { w.guard(5, "", operator, nil) }, func(w *world, _ *person) { w.guard(6, noPhone, operator, nil) }, func(w *world) { _, seen = w.guard(4, "", operator, nil) }, &seen, nil, "unchecked", 1},
		{"somebody's enrolment, and released by no rules", func(w *world, _ *person) { w.guard(1, "", operator, nil) }, func(w *world, _ *person) { w.enrol() }, nil, nil, nil, "unjustified", 0},
		{"somebody's enrolment, and old rules after it", func(w *world, _ *person) { w.guard(5, noPhone, operator, nil) }, func(w *world, _ *person) { w.enrol() }, func(w *world) { _, seen = w.guard(4, "", operator, nil) }, &seen, nil, "unjustified", 1},
		{"the voucher", func(w *world, _ *person) { _, seen = w.guard(1, vouched, operator, nil) }, func(w *world, r *person) { w.vouch(r, "Acme", 1, operator, nil) }, nil, &seen, nil, "unchecked", 0},
		{"the voucher, and it does not matter", func(w *world, _ *person) { _, seen = w.guard(1, bulk, operator, nil) }, func(w *world, r *person) { w.vouch(r, "Acme", 1, operator, nil) }, nil, &seen, nil, "justified", 0},
		{"somebody else's voucher", func(w *world, _ *person) { _, seen = w.guard(1, vouched, operator, nil) }, func(w *world, _ *person) { w.vouch(w.enrol(), "Acme", 1, operator, nil) }, nil, &seen, nil, "unjustified", 0},
		{"a start with another token", func(w *world, _ *person) { start(w, "token-1") }, func(w *world, _ *person) { start(w, "token-2") }, nil, nil, func(x *reading) { x.details.Token = "token-2" }, "justified", 0},
		{"a start, and a token that is not the next one's", nil, func(w *world, _ *person) { start(w, "token-1") }, func(w *world) { start(w, "token-1") }, nil, func(x *reading) { x.details.Token = "token-2" }, "unjustified", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			fill := func() {
				for len(w.leaves)%TileWidth != 0 {
					w.add(w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryRefusal, Reader: policies.Pseudonym{99}, Outcome: policies.CodeNoGrant}, &evidence.Details{Field: "phone"}, nil)
				}
			}
			o, r := w.enrol(), w.business("Acme")
			o.publish(nil)
			g := o.grant(r, o.key, nil, "phone")
			if c.before != nil {
				c.before(w, r)
			}
			fill()
			c.absent(w, r)
			fill()
			if c.after != nil {
				c.after(w)
			}
			r.open(r.key, nil).read(o, g, "phone", func(x *reading) {
				if c.rules != nil {
					x.details.Rules = *c.rules
				}
				if c.bend != nil {
					c.bend(x)
				}
			})
			files := w.files()
			delete(files, BodiesPath(1, TileWidth))
			report, err := w.opened(t, files).Recheck(t.Context(), Range{})
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]uint64{"justified": report.Justified, "unchecked": report.Unchecked.Count, "unjustified": report.Unjustified.Count}
			if got[c.want] != 1 || report.Documents.Count != uint64(c.listed) || c.want == "unchecked" && report.Unchecked.Reasons[0].Code != ReasonAbsent {
				t.Errorf("%s", report.Bytes())
			}
		})
	}
}
