package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/audit"
)

// deceit is what a vault is built to do that no vault may: release after a revocation, keep the key that was revoked, release for any purpose, beyond a limit, a
// second time for one request, after a grant's end under a time before it, against the operator's guardrails, and take a grant that its owner did not sign.
var deceit = []patch{
	{"vault/reencrypt.go", "if it.grant.Revoked[place] {", "if it.grant.Revoked[place] && false {"},
	{"vault/submit.go", "if err := v.destroy(context.WithoutCancel(ctx), &ledger.Revocation{Hash: e.Hash, Owner: r.Owner, Index: record.Index, Items: r.Items}); err != nil {", "if err := error(nil); err != nil {"},
	{"policies/decision.go", "if u.Purpose != g.Purpose {", "if false {"},
	{"policies/decision.go", "if g.Limits.ReadsPerDay != 0 && u.UsedToday >= g.Limits.ReadsPerDay {", "if false {"},
	{"vault/guardrails.go", "if len(it.against) > 0 {", "if len(it.against) > 0 && false {"},
	{"vault/reencrypt.go", "if _, used := r.session.Nonces[r.request.Nonce]; used {", "if _, used := r.session.Nonces[r.request.Nonce]; used && false {"},
	{"vault/reencrypt.go", "it.outcome = v.permit(s, now, r, i)", `decided := now
		if g := s.Grant(offer.Grant); g != nil && now.Unix() >= g.Document.Expires {
			decided = time.Unix(g.Document.Expires-1, 0)
		}
		it.outcome = v.permit(s, decided, r, i)`},
	{"vault/reencrypt.go", "v.cfg.Grade, now.UnixMilli()", "v.cfg.Grade, decided.UnixMilli()"},
	{"vault/submit.go", "if err := e.Verify(key); err != nil && !id.Replaced(e) {", `if err := e.Verify(key); err != nil && e.Type == "grant" {
	} else if err != nil && !id.Replaced(e) {`},
}

// TestRecheckOfACorruptVault: a vault whose host replaced it by one that does as deceit says. It logs what it does, since it would stand against the token's own
// record otherwise, and its log is whole and signed. The recheck finds every release that nothing justifies, says why, and finds no other.
func TestRecheckOfACorruptVault(t *testing.T) {
	t.Parallel()
	s := openStageOf(t, corruptVault(t, deceit...), publishing(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits}))
	m := newMole(t, s)
	o, r, stranger := m.owner(), m.reader(), m.owner()
	for _, f := range []policies.Field{"name", "mail", "phone", "iban", "city"} {
		o.seal(f, "a value of "+string(f))
	}
	o.publish()
	open := o.grant(r, nil, "name")

	releases := 0
	release := func(c api.Call, e *envelope.Envelope) uint64 {
		t.Helper()
		item := r.answer(r.call(c), e).Items[0]
		if item.Outcome != policies.CodeReleased {
			t.Fatalf("the corrupt vault is not corrupt enough: %s", item.Outcome)
		}
		releases++
		return item.Index
	}
	read := func(g *policies.Grant, f policies.Field) uint64 {
		t.Helper()
		return release(r.callOf(nil, ask{o, g, f, 0}))
	}
	type found struct {
		index uint64
		code  string
		text  string
	}
	var want []found
	for range 3 {
		read(open, "name")
	}

	g := o.grant(r, nil, "mail")
	read(g, "mail")
	o.revoke(g, "mail")
	want = append(want, found{read(g, "mail"), "grant_revoked", "revoked it"})

	want = append(want, found{release(r.callOf(func(d *policies.ReadRequest) { d.Purpose = "marketing" }, ask{o, open, "name", 0})), "wrong_purpose", `asked for "marketing", granted for "testing"`})

	g = o.grant(r, func(g *granting) { g.doc.NotBefore, g.doc.Expires = time.Now().Unix()-7200, time.Now().Unix()-3600 }, "phone")
	want = append(want, found{read(g, "phone"), audit.ReasonTime, "decided at"})

	key := o.key
	o.key = stranger.key
	g = o.grant(r, nil, "iban")
	o.key = key
	want = append(want, found{read(g, "iban"), audit.ReasonGrantSignature, "not signed by the owner"})

	c, e := r.callOf(nil, ask{o, open, "name", 0})
	first := release(c, e)
	want = append(want, found{release(c, e), audit.ReasonNonce, "used before, by entry"})
	if first == want[len(want)-1].index {
		t.Fatal("one entry for two answers")
	}

	g = o.grant(r, func(g *granting) { g.doc.Limits.ReadsPerDay = 1 }, "city")
	read(g, "city")
	want = append(want, found{read(g, "city"), "limit_reached", "release 2 of that day, of at most 1"})
	read(open, "name")

	inForce(t, s, `@id("no-names") forbid (principal, action, resource == Field::"name");`)
	want = append(want, found{read(open, "name"), "guardrail", "are against it: no-names"})
	inForce(t, s, "")
	read(open, "name")

	dir := published(t, s, &devices.Insider{Vault: m.vault}, policies.OwnerID(o.id))
	if r, err := s.Sallyport(t.Context(), "auditor", "audit", "verify", "--join", s.Join(), dir); err != nil || r.Code != 0 {
		t.Fatalf("the corrupt vault's log is whole, and audit verify says: %v, %+v", err, r)
	}
	result, err := s.Sallyport(t.Context(), "auditor", "--json", "audit", "recheck", "--join", s.Join(), dir)
	must(t, err)
	if result.Code != 7 {
		t.Errorf("exit code %d\n%s", result.Code, result.Stderr)
	}
	report := new(audit.Report)
	must(t, json.Unmarshal([]byte(result.Stdout), report))
	if report.Releases != uint64(releases) || report.Unjustified.Count != uint64(len(want)) || report.Unchecked.Count != 0 || report.Justified != uint64(releases-len(want)) {
		t.Errorf("of %d releases %d are unjustified; the recheck says: %s", releases, len(want), result.Stdout)
	}
	for _, w := range want {
		i := slices.IndexFunc(report.Unjustified.Listed, func(f audit.Finding) bool { return f.Index == w.index })
		if i < 0 {
			t.Errorf("entry %d (%s) was not found", w.index, w.code)
			continue
		}
		reasons := report.Unjustified.Listed[i].Reasons
		if !slices.ContainsFunc(reasons, func(r audit.Reason) bool { return r.Code == w.code && strings.Contains(r.Text, w.text) }) {
			t.Errorf("entry %d was found, and not for %s: %+v", w.index, w.code, reasons)
		}
	}
	// The forged grant shows as a document too. What the owner signed after it is on top of it only because this test keeps one chain for both.
	if report.Documents.Count != 1 || report.Documents.Listed[0].Kind != "import" {
		t.Errorf("documents: %+v", report.Documents)
	}
	again, err := s.Sallyport(t.Context(), "auditor", "--json", "audit", "recheck", "--join", s.Join(), dir)
	must(t, err)
	if again.Stdout != result.Stdout {
		t.Error("two runs give two reports")
	}
}

// TestRecheckOfAnHonestVault is the control: the same releases, as far as an honest vault gives them, are justified, and nothing else is said.
func TestRecheckOfAnHonestVault(t *testing.T) {
	t.Parallel()
	s := openStage(t, publishing(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits}))
	m := newMole(t, s)
	o, r := m.owner(), m.reader()
	o.seal("name", "a name")
	o.seal("mail", "a@b.example")
	o.publish()
	g := o.grant(r, func(g *granting) { g.doc.Limits.ReadsPerDay = 2 }, "name", "mail")
	c, e := r.callOf(nil, ask{o, g, "name", 0}, ask{o, g, "mail", 0}, ask{o, g, "name", 0}) // the third is beyond the limit
	if got := r.answer(r.call(c), e).Items; got[1].Outcome != policies.CodeReleased || got[2].Outcome != policies.CodeLimit {
		t.Fatalf("%+v", got)
	}
	if reply := r.call(c); reply.Code != policies.CodeReplay {
		t.Fatalf("a request a second time: %s", reply.Code)
	}
	o.set("name", "another name")
	again := o.grant(r, nil, "name")
	if code, _ := r.read(ask{o, again, "name", 0}); code != policies.CodeReleased {
		t.Fatal(code)
	}
	inForce(t, s, `@id("no-mail") forbid (principal, action, resource == Field::"mail"); @id("no-bulk") forbid (principal, action, resource) when { context.items > 1 };`)
	c, e = r.callOf(nil, ask{o, again, "name", 0}, ask{o, again, "name", 0})
	if got := r.answer(r.call(c), e).Items; got[0].Outcome != policies.CodeGuardrail || got[1].Outcome != policies.CodeGuardrail {
		t.Fatalf("%+v", got)
	}
	if code, _ := r.read(ask{o, again, "name", 0}); code != policies.CodeReleased {
		t.Fatal(code)
	}
	o.revoke(again, "name")
	if code, _ := r.read(ask{o, again, "name", 0}); code != policies.CodeRevoked {
		t.Fatal(code)
	}
	dir := published(t, s, &devices.Insider{Vault: m.vault}, policies.OwnerID(o.id))
	result, err := s.Sallyport(t.Context(), "auditor", "audit", "recheck", "--join", s.Join(), dir)
	must(t, err)
	if result.Code != 0 || !strings.Contains(result.Stdout, "4 releases: 4 justified, 0 unjustified, 0 not checkable\n0 documents") {
		t.Errorf("exit code %d\n%s%s", result.Code, result.Stdout, result.Stderr)
	}
}
