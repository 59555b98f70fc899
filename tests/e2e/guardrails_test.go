package e2e

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// operator runs sallyport-hsm at the stage's ceremony.
func operator(t *testing.T, s *stage.Stage, exit int, command string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), s.Bin().HSM, append([]string{command, "--dir", s.Ceremony()}, args...)...)
	said, _ := cmd.CombinedOutput() // how it ended is asked next
	if got := cmd.ProcessState.ExitCode(); got != exit {
		t.Fatalf("sallyport-hsm %s %q: exit code %d, want %d: %s", command, args, got, exit, said)
	}
	return string(said)
}

// inForce signs rules and hands them in.
func inForce(t *testing.T, s *stage.Stage, rules string) (document string) {
	t.Helper()
	dir := t.TempDir()
	text, document := filepath.Join(dir, "rules.cedar"), filepath.Join(dir, "guardrails.json")
	must(t, os.WriteFile(text, []byte(rules), 0o600))
	operator(t, s, 0, "guardrails", "--out", document, "--yes", text)
	if said := operator(t, s, 0, "hand-in", "--owners", s.OwnersURL(), "--ca", s.CA(), document); !strings.Contains(said, "In force since entry") {
		t.Fatalf("handed in: %s", said)
	}
	return document
}

// TestGuardrails walks through the operator's rules: signed with the ceremony key, in force from the vault's receipt on, over a kill too, told to the person and the business, and decided anew by an
// auditor. What somebody else signed, or older rules, changes nothing.
func TestGuardrails(t *testing.T) {
	s := openStage(t, publishing(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits}))
	play(t, s, 0, "zoe", "me", "init")
	play(t, s, 0, "zoe", "me", "set", "phone.mobile", "+49 151 23456701")
	play(t, s, 0, "zoe", "me", "set", "own/note", "a note")
	play(t, s, 0, "acme", "biz", "init", "--name", "Acme Versand")
	connect(t, s, "zoe", "acme")
	play(t, s, 0, "zoe", "me", "grant", "acme", "phone.mobile", "own/note")
	reads(t, s, "acme", "zoe", "phone.mobile", "")

	first := inForce(t, s, `@id("no-phones") forbid (principal, action, resource in Field::"phone");`)
	reads(t, s, "acme", "zoe", "phone.mobile", policies.CodeGuardrail)
	if text, _ := reads(t, s, "acme", "zoe", "own/note", ""); text != "a note" {
		t.Errorf("what no rule forbids is %q", text)
	}
	s.Vault.Kill()
	must(t, s.Vault.Start(t.Context()))
	reads(t, s, "acme", "zoe", "phone.mobile", policies.CodeGuardrail)
	if out := play(t, s, 0, "zoe", "me", "history").Stdout; !strings.Contains(out, "the operator's rules do not allow this") {
		t.Errorf("the history says\n%s", out)
	}

	// Unchecked names read nothing; and what is not the operator's, or older, changes nothing.
	inForce(t, s, `@id("checked-names") forbid (principal, action, resource) unless { principal.vouched };`)
	hand := func(document, want string) {
		t.Helper()
		if said := operator(t, s, 3, "hand-in", "--owners", s.OwnersURL(), "--ca", s.CA(), document); !strings.Contains(said, want) {
			t.Errorf("handed in: %s, want %q", said, want)
		}
	}
	signed, err := os.ReadFile(first)
	must(t, err)
	damaged := filepath.Join(t.TempDir(), "damaged.json")
	must(t, os.WriteFile(damaged, bytes.Replace(signed, []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1), 0o600))
	hand(damaged, policies.CodeRules.Error())
	hand(first, policies.CodeRulesOld.Error()) // its receipt would say that it is in force
	reads(t, s, "acme", "zoe", "own/note", policies.CodeGuardrail)
	c, err := links.ParseContact(code(t, s, "acme", "biz"))
	must(t, err)
	identity, voucher := filepath.Join(t.TempDir(), "identity.json"), filepath.Join(t.TempDir(), "voucher.json")
	must(t, os.WriteFile(identity, body(t, s, s.StorefrontURL()+"/v1/identities/"+c.ID.String()), 0o600))
	operator(t, s, 0, "voucher", "--id", c.ID.String(), "--identity", identity, "--out", voucher, "--yes")
	if said := operator(t, s, 0, "hand-in", "--owners", s.OwnersURL(), "--ca", s.CA(), voucher); !strings.Contains(said, "Recorded as entry") {
		t.Errorf("a voucher: %s", said)
	}
	reads(t, s, "acme", "zoe", "phone.mobile", "")
	reads(t, s, "acme", "zoe", "own/note", "")
	inForce(t, s, "")
	play(t, s, 0, "zoe", "me", "set", "own/note", "another")
	reads(t, s, "acme", "zoe", "own/note", "")

	zoe, err := links.ParseContact(code(t, s, "zoe", "me"))
	must(t, err)
	dir := published(t, s, &devices.Insider{Vault: newMole(t, s).vault}, policies.OwnerID(zoe.ID))
	if r := play(t, s, 0, "auditor", "audit", "recheck", "--join", s.Join(), dir); !strings.Contains(r.Stdout, " 0 unjustified, 0 not checkable\n0 documents") {
		t.Errorf("%s", r.Stdout)
	}
	for kind, want := range map[string]string{"guardrails": "the operator's guardrails are no-phones from here on", "refusal": "by the operator's guardrails: no-phones"} {
		if r := play(t, s, 0, "auditor", "audit", "search", "--join", s.Join(), "--kind", kind, dir); !strings.Contains(r.Stdout, want) {
			t.Errorf("%s: %s", kind, r.Stdout)
		}
	}
}

// body is what a server of the stage answers.
func body(t *testing.T, s *stage.Stage, url string) []byte {
	t.Helper()
	resp, err := outsider(t, s, nil).Get(url)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return text
}
