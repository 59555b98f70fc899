package vault

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/guardrails"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/api"
)

// rulesOf are guardrails that the ceremony key signs.
func (w *world) rulesOf(serial uint64, rules string, change func(*guardrails.Document)) api.Submission {
	d := &guardrails.Document{Header: policies.NewHeader("guardrails", w.clock.now()), Audience: w.document.Vault, Serial: serial, Rules: rules}
	if change != nil {
		change(d)
	}
	e, err := policies.Sign(newSigner(1), d) // newWorld's ceremony
	must(w.t, err)
	return api.Submission{Envelope: e.Raw}
}

const noName = `@id("no-name") forbid (principal, action, resource == Field::"name");`

// TestGuardrails: what the operator's rules forbid is refused and recorded with the rule, before the token is asked; the rest is released under the rules' name. They hold until newer ones come,
// after a restart too, from the database and from the log alone.
func TestGuardrails(t *testing.T) { eachCustody(t, guardrailsHold) }

func guardrailsHold(t *testing.T, w *world) {
	o, r := w.owner(), w.reader()
	o.seal("name", 1, "Ada")
	o.seal("mail", 1, "ada@example.org")
	o.publish()
	g := o.grant(r, nil, "name", "mail")
	name, mail := ask{o, g, "name", 0}, ask{o, g, "mail", 0}
	r.value(name, r.read(name).Items[0])

	first := w.rulesOf(3, "// nobody needs names\n"+noName, nil)
	receipt := w.accepted(first)
	hash := receipt.Document
	for _, database := range []bool{true, false} {
		if again := w.accepted(first); again.Evidence.Index != receipt.Evidence.Index {
			t.Errorf("sent again they are entry %d, first %d", again.Evidence.Index, receipt.Evidence.Index)
		}
		answer := r.read(name, mail, ask{o, g, "name", 1}, ask{o, g, "mail", 1})
		r.value(mail, answer.Items[1])
		if h := w.vault.Health().Guardrails; h == nil || h.Document != hash || h.Index != receipt.Evidence.Index || h.Rules != 1 {
			t.Errorf("the health says %+v", h)
		}
		for i, want := range []policies.Code{policies.CodeGuardrail, policies.CodeReleased, policies.CodeGuardrail} {
			if got := answer.Items[i]; got.Outcome != want || want != policies.CodeReleased && got.X != [32]byte{} {
				t.Errorf("item %d: %s, want %s", i, got.Outcome, want)
			}
		}
		w.refuses(w.rulesOf(3, "", nil), policies.CodeRulesOld, "the same serial number")
		w.refuses(w.rulesOf(2, "", nil), policies.CodeRulesOld, "a lower one")
		must(t, w.vault.Close(t.Context()))
		w.log.Close()
		w.reopen(database)
	}
	w.refuses(w.rulesOf(9, "", func(d *guardrails.Document) { d.Audience[0]++ }), policies.CodeWrongVault, "for another vault")
	forged, err := policies.Sign(newSigner(99), &guardrails.Document{Header: policies.NewHeader("guardrails", w.clock.now()), Audience: w.document.Vault, Serial: 9})
	must(t, err)
	w.refuses(api.Submission{Envelope: forged.Raw}, policies.CodeRules, "those that another key signed")
	for what, rules := range map[string]string{
		"what is no Cedar":       "x",
		"a permit":               `@id("all") permit (principal, action, resource);`,
		"a rule without a name":  `forbid (principal, action, resource);`,
		"a word that is not one": `@id("x") forbid (principal, action, resource) when { context.purpse == "x" };`,
	} {
		if _, err := w.submit(w.rulesOf(9, rules, nil)); problem.Of(err).Code != policies.CodeMalformed {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := r.read(name).Items[0].Outcome; got != policies.CodeGuardrail {
		t.Errorf("after refused documents: %s", got)
	}
	w.accepted(w.rulesOf(4, "", nil))
	if h := w.vault.Health().Guardrails; h != nil {
		t.Errorf("without rules the health says %+v", h)
	}
	r.value(name, r.read(name).Items[0])
	w.refuses(first, policies.CodeRulesOld, "those of an old entry")
	r.value(name, r.read(name).Items[0])

	var noted []string
	for _, rec := range w.records() {
		d := rec.Details
		switch {
		case rec.Kind == evidence.EntryGuardrails:
			noted = append(noted, fmt.Sprintf("%d rules %s", d.Count, d.Note))
		case rec.Outcome == policies.CodeGuardrail && (d.Rules != hash || d.Note != "no-name" || rec.Kind != evidence.EntryRefusal):
			t.Errorf("a refusal does not name its rule: %+v", d)
		case rec.Kind == evidence.EntryUse && d.Field == "mail" && d.Rules != hash:
			t.Errorf("a use does not name the rules: %+v", d)
		}
	}
	if got := strings.Join(noted, "; "); got != "1 rules no-name; 0 rules " {
		t.Errorf("entries: %s", got)
	}
}

// TestGuardrailsSeeTheUse: each fact that a rule can speak of is that of the very use.
func TestGuardrailsSeeTheUse(t *testing.T) {
	w := newWorld(t)
	o, r, other := w.owner(), w.reader(), w.reader()
	o.seal("name", 1, "Ada")
	o.seal("phone.mobile", 1, "1")
	o.publish()
	g := o.grant(r, nil, "name", "phone.mobile")
	theirs := o.grant(other, nil, "name")
	serial := uint64(0)
	try := func(what, condition string, who *reader, want policies.Code, asks ...ask) {
		t.Helper()
		serial++
		w.accepted(w.rulesOf(serial, `@id("rule") forbid (principal, action, resource) `+condition+`;`, nil))
		if got := who.read(asks...).Items[0].Outcome; got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	name, phone := ask{o, g, "name", 0}, ask{o, g, "phone.mobile", 0}
	only := `when { principal == Reader::"` + policies.ReaderID(r.id).String() + `" }`
	try("the reader", only, r, policies.CodeGuardrail, name)
	try("another reader", only, other, policies.CodeReleased, ask{o, theirs, "name", 0})
	try("the owner", `unless { context.owner == Owner::"`+policies.OwnerID(o.id).String()+`" && !context.written }`, r, policies.CodeReleased, name)
	try("a field below one", `when { resource in Field::"phone" }`, r, policies.CodeGuardrail, phone)
	try("a field that is not", `when { resource in Field::"phone" }`, r, policies.CodeReleased, name)
	try("two items", `when { context.items > 1 }`, r, policies.CodeGuardrail, name, phone)
	try("one item", `when { context.items > 1 }`, r, policies.CodeReleased, name)
	try("grant and token", `unless { context.purpose == "`+testPurpose+`" && context.custody == "resident" && context.token == "`+w.config().Serial+`" && context.grade == "`+w.config().Grade+`" }`, r, policies.CodeReleased, name)
	w.clock.move(time.Minute)
	minute := w.clock.now().UTC().Format(`datetime("2006-01-02T15:04:05Z")`)
	try("the time", `unless { context.time >= `+minute+` && context.time < `+minute+`.offset(duration("30s")) }`, r, policies.CodeReleased, name)
	w.clock.move(time.Minute)
	try("a minute later", `unless { context.time >= `+minute+` && context.time < `+minute+`.offset(duration("30s")) }`, r, policies.CodeGuardrail, name)
	try("not vouched for", `unless { principal.vouched }`, r, policies.CodeGuardrail, name)

	// A voucher, its end, and a day's count.
	acme, document := w.business("Acme Versand")
	w.accepted(document)
	w.accepted(w.voucherOf(acme, "Acme Versand", 1, nil))
	var vouched, over bool
	w.vault.ledger.Read(func(s *ledgerState) {
		vouched = s.Identity(acme).Vouched.In(w.clock.now())
		over = s.Identity(acme).Vouched.In(w.clock.now().Add(10 * 24 * time.Hour))
	})
	if !vouched || over {
		t.Errorf("vouched for: %v, ten days later: %v", vouched, over)
	}
	serial++
	w.accepted(w.rulesOf(serial, `@id("rule") forbid (principal, action, resource) when { context.used_today >= 20 };`, nil))
	var released atomic.Int64
	var all sync.WaitGroup
	w.clock.move(24 * time.Hour)
	r.openSession()
	for range 40 {
		all.Go(func() {
			if r.read(name).Items[0].Outcome == policies.CodeReleased {
				released.Add(1)
			}
		})
	}
	all.Wait()
	if released.Load() != 20 {
		t.Errorf("%d were released at once, 20 may be", released.Load())
	}
}

// TestNoUseUnderOldGuardrails: while rules come and go beside many reads, no use is decided by others than the newest before it in the log, and after the receipt of rules that forbid nothing is released.
func TestNoUseUnderOldGuardrails(t *testing.T) {
	w := newWorld(t)
	o, r := w.owner(), w.reader()
	o.set("name", "Ada")
	g := o.grant(r, nil, "name")
	var forbidden atomic.Bool
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				was := forbidden.Load()
				got := r.read(ask{o, g, "name", 0}).Items[0].Outcome
				if was && forbidden.Load() && got == policies.CodeReleased {
					t.Error("released after the receipt of rules that forbid it")
				}
			}
		})
	}
	for i := range uint64(40) {
		if i%2 == 0 {
			w.accepted(w.rulesOf(i+1, noName, nil))
			forbidden.Store(true)
		} else {
			forbidden.Store(false)
			w.accepted(w.rulesOf(i+1, "", nil))
		}
	}
	close(stop)
	readers.Wait()
	var newest policies.Hash
	forbids, uses := false, 0
	for _, rec := range w.records() {
		switch {
		case rec.Kind == evidence.EntryGuardrails:
			newest, forbids = rec.Details.Document, rec.Details.Count > 0
		case rec.Kind == evidence.EntryUse || rec.Outcome == policies.CodeGuardrail:
			uses++
			if rec.Details.Rules != newest || (rec.Outcome == policies.CodeGuardrail) != forbids {
				t.Errorf("entry %d, %s, is not decided by the rules before it", rec.Index, rec.Outcome)
			}
		}
	}
	if uses < 40 {
		t.Errorf("%d reads", uses)
	}
}
