package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// TestFrozen: a person loses every device, and with them the password and the sheet. They can stop nothing any more, so they go to the operator in person. Two
// operators look at who it is, and all reading of that person stops, and of nobody else. Later a memory stick turns up, and the person ends it.
func TestFrozen(t *testing.T) {
	t.Parallel()
	s := openStage(t, publishing(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits}))
	stick := filepath.Join(t.TempDir(), "anna.backup")
	profiles := filepath.Join(s.Dir(), "profiles")

	// Before. A business reads two people.
	play(t, s, 0, "acme", "biz", "init", "--name", "Acme")
	for _, who := range []string{"anna", "zoe"} {
		args := []string{"me", "init"}
		if who == "anna" {
			args = append(args, "--backup", stick)
		}
		play(t, s, 0, who, args...)
		play(t, s, 0, who, "me", "set", "own/a", "of "+who)
		connect(t, s, who, "acme")
		play(t, s, 0, who, "me", "grant", "acme", "own/a")
	}
	found, err := links.ParseContact(strings.TrimSpace(play(t, s, 0, "anna", "me", "code").Stdout))
	must(t, err)
	anna := found.ID.String()
	// The vault's configuration lists two operators.
	var ids []string
	for _, who := range []string{"first", "second"} {
		play(t, s, 0, who, "biz", "init", "--name", "Operator")
		c, err := links.ParseContact(strings.TrimSpace(play(t, s, 0, who, "biz", "code").Stdout))
		must(t, err)
		ids = append(ids, fmt.Sprintf("%q", c.ID.String()))
	}
	must(t, s.Vault.Stop())
	config, err := os.OpenFile(filepath.Join(s.Dir(), "vault", "vault.toml"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = fmt.Fprintf(config, "\n[freeze]\noperators = [%s]\n", strings.Join(ids, ", "))
	must(t, err)
	must(t, config.Close())
	must(t, s.Vault.Start(t.Context()))

	// Everything is lost. The first operator sees who it is and orders; nothing stops yet.
	twinKey(t, s, "anna", "found")
	must(t, os.RemoveAll(filepath.Join(profiles, "anna")))
	order := filepath.Join(t.TempDir(), "order.json")
	as := func(who string) string { return filepath.Join(profiles, who) }
	play(t, s, 0, "first", "operator", "order", "--as", as("first"), "-o", order, anna)
	if text, _ := reads(t, s, "acme", "anna", "own/a", ""); text != "of anna" {
		t.Errorf("acme reads %q", text)
	}
	// One operator is not two, and a business is none.
	play(t, s, 1, "first", "operator", "freeze", "--as", as("first"), "--yes", anna[:8], order)
	if r := play(t, s, 3, "acme", "operator", "freeze", "--as", as("acme"), "--yes", anna[:8], order); !strings.Contains(r.Stderr, "operator") {
		t.Errorf("it says %q", r.Stderr)
	}
	reads(t, s, "acme", "anna", "own/a", "")
	// The second one must have looked at the id. Then it stops, for a vault that is started anew too.
	play(t, s, 2, "second", "operator", "freeze", "--as", as("second"), "--yes", "00000000", order)
	play(t, s, 0, "second", "operator", "freeze", "--as", as("second"), "--yes", anna[:8], order)
	reads(t, s, "acme", "anna", "own/a", policies.CodeFrozen)
	s.Vault.Kill()
	must(t, s.Vault.Start(t.Context()))
	reads(t, s, "acme", "anna", "own/a", policies.CodeFrozen)
	reads(t, s, "acme", "zoe", "own/a", "")

	// The stick turns up. The history says what happened, in plain words, and the person ends it.
	play(t, s, 0, "found", "me", "restore", stick)
	if out := play(t, s, 0, "found", "me", "history").Stdout; !strings.Contains(out, "Two operators stopped all reading of your data") || !strings.Contains(out, "me thaw") {
		t.Errorf("the history says\n%s", out)
	}
	for _, ask := range []string{"verify", "grants", "inbox"} {
		if out := play(t, s, 0, "found", "me", ask).Stderr; !strings.Contains(out, "stopped since") || !strings.Contains(out, "me thaw") {
			t.Errorf("me %s says\n%s", ask, out)
		}
	}
	if out := play(t, s, 0, "found", "--json", "me", "grants").Stdout; !strings.Contains(out, `"frozen":true`) && !strings.Contains(out, `"frozen": true`) {
		t.Errorf("me grants says\n%s", out)
	}
	play(t, s, 0, "found", "me", "thaw")
	if text, _ := reads(t, s, "acme", "anna", "own/a", ""); text != "of anna" {
		t.Errorf("acme reads %q", text)
	}
	if out := play(t, s, 0, "found", "--lang", "de", "me", "history").Stdout; !strings.Contains(out, "Sperre aufgehoben") {
		t.Errorf("the history says\n%s", out)
	}
	if r := play(t, s, 0, "found", "me", "verify"); strings.Contains(r.Stdout, "WRONG") || strings.Contains(r.Stdout+r.Stderr, "thaw") {
		t.Errorf("%s", r.Stdout)
	}
	if r := play(t, s, 3, "found", "me", "thaw"); !strings.Contains(r.Stderr, "no stop is in force") {
		t.Errorf("when there is nothing to end it says %q", r.Stderr)
	}
	play(t, s, 0, "found", "me", "set", "own/a", "and on")
	// The order is used up.
	if r := play(t, s, 3, "second", "operator", "freeze", "--as", as("second"), "--yes", anna[:8], order); !strings.Contains(r.Stderr, string(policies.CodeReplay)) && !strings.Contains(r.Stderr, "before") {
		t.Errorf("it says %q", r.Stderr)
	}

	// An auditor decides everything anew, and reads who did it.
	dir := published(t, s, &devices.Insider{Vault: newMole(t, s).vault}, policies.OwnerID(found.ID))
	if r := play(t, s, 0, "auditor", "audit", "recheck", "--join", s.Join(), dir); !strings.Contains(r.Stdout, " 0 unjustified, 0 not checkable\n0 documents") {
		t.Errorf("%s", r.Stdout)
	}
	if r := play(t, s, 0, "auditor", "audit", "search", "--join", s.Join(), "--kind", "freeze", dir); !strings.Contains(r.Stdout, "stopped all reading") {
		t.Errorf("%s", r.Stdout)
	}
}
