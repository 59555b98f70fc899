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

// TestRecheckOfRulesThatNobodySigned: of a vault that puts rules in force which the operator did not sign, or old ones again, that entry is listed, and what was released by them is not justified.
func TestRecheckOfRulesThatNobodySigned(t *testing.T) {
	const none = ""
	for _, c := range []struct {
		name, text string
		act        func(w *world, mole *person) (uint64, policies.Hash)
		released   bool // by them, it is not justified
	}{
		{"somebody else's signature", "not signed by the ceremony key", func(w *world, mole *person) (uint64, policies.Hash) { return w.guard(1, none, mole.key, nil) }, true},
		{"the same serial number", "there was 4 before", func(w *world, mole *person) (uint64, policies.Hash) {
			w.guard(4, `@id("no") forbid (principal, action, resource);`, operator, nil)
			return w.guard(4, none, operator, nil)
		}, false},
		{"another vault's", "another vault", func(w *world, mole *person) (uint64, policies.Hash) {
			return w.guard(1, none, operator, func(d *guardrails.Document) { d.Audience[0]++ })
		}, false},
		{"no rules", "cannot be read", func(w *world, mole *person) (uint64, policies.Hash) { return w.guard(1, "x", operator, nil) }, true},
		{"rules that permit", "cannot be read", func(w *world, mole *person) (uint64, policies.Hash) {
			return w.guard(1, `@id("all") permit (principal, action, resource);`, operator, nil)
		}, true},
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
			if (report.Unjustified.Count == 1) != c.released {
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
	if report.Justified != 0 || report.Documents.Count != 1 || report.Documents.Listed[0].Reasons[0].Code != ReasonErasure {
		t.Errorf("%s", report.Bytes())
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
