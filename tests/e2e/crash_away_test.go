package e2e

import (
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/tests/stage"
)

// TestOneSideAway: with the vault or the storefront away people are told the truth, nothing they did is lost, and a revocation gets through
// as long as the vault lives.
func TestOneSideAway(t *testing.T) {
	t.Parallel()
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	ctx := t.Context()
	play(t, s, 0, "mia", "me", "init")
	play(t, s, 0, "acme", "biz", "init", "--name", "Acme")
	play(t, s, 0, "globex", "biz", "init", "--name", "Globex")
	for _, f := range []string{"own/a", "own/b", "own/c", "own/d"} {
		play(t, s, 0, "mia", "me", "set", f, f+" 1")
	}
	for _, reader := range []string{"acme", "globex"} {
		connect(t, s, "mia", reader)
		play(t, s, 0, "mia", "me", "grant", reader, "own/a", "own/b", "own/c", "own/d", "--yes")
	}
	expect := func(reader string, f policies.Field, want string) {
		t.Helper()
		if text, _ := reads(t, s, reader, "mia", f, ""); text != want {
			t.Errorf("%s reads %s as %q, want %q", reader, f, text, want)
		}
	}
	notStopped := func(r stage.Result) {
		t.Helper()
		if !strings.Contains(r.Stdout, "NOT STOPPED YET") {
			t.Errorf("the command does not say that the reader is not stopped: %q", r.Stdout)
		}
	}

	t.Run("no vault", func(t *testing.T) {
		s.Vault.Kill()
		if code, body := get(t, s, "/v1/reads"); code == http.StatusOK {
			t.Errorf("the storefront serves reads without a vault: %s", body)
		}
		if _, body := get(t, s, "/v1/health"); !strings.Contains(body, "degraded") {
			t.Errorf("the storefront's health without a vault: %s", body)
		}
		play(t, s, 5, "acme", "biz", "read", "mia", "own/a")
		play(t, s, 5, "mia", "me", "set", "own/a", "own/a 2")
		notStopped(play(t, s, 4, "mia", "me", "revoke", "acme", "own/b"))
		// Whatever is done next, the revocation is not forgotten and not hidden.
		notStopped(play(t, s, 4, "mia", "me", "set", "own/c", "own/c 2"))
		notStopped(play(t, s, 4, "mia", "me", "sync"))
		if out := play(t, s, 0, "mia", "me", "grants").Stdout; !strings.Contains(out, "NOT STOPPED YET") {
			t.Errorf("the list of grants hides it:\n%s", out)
		}
		must(t, s.Vault.Start(ctx))
		play(t, s, 0, "mia", "me", "sync")
		reads(t, s, "acme", "mia", "own/b", policies.CodeRevoked)
		expect("globex", "own/b", "own/b 1")
		for _, reader := range []string{"acme", "globex"} {
			expect(reader, "own/a", "own/a 2")
			expect(reader, "own/c", "own/c 2")
		}
	})

	t.Run("no storefront", func(t *testing.T) {
		s.Storefront.Kill()
		play(t, s, 5, "acme", "biz", "read", "mia", "own/a")
		// The second route: stopped, with the vault's receipt. That the field has not moved to a new key yet is said, and done later.
		if r := play(t, s, 0, "mia", "me", "revoke", "acme", "own/c", "--no-rotate"); !strings.Contains(r.Stdout, "STOPPED") || strings.Contains(r.Stdout, "NOT STOPPED") {
			t.Errorf("a revocation over the second route says %q", r.Stdout)
		}
		if r := play(t, s, 0, "mia", "me", "revoke", "globex", "own/d"); strings.Contains(r.Stdout, "NOT STOPPED") || !strings.Contains(r.Stdout+r.Stderr, "storefront answers again") {
			t.Errorf("a revocation with a rotation that must wait says %q, %q", r.Stdout, r.Stderr)
		}
		must(t, s.Storefront.Start(ctx))
		// Refused before the owner's device has told the storefront anything.
		reads(t, s, "acme", "mia", "own/c", policies.CodeRevoked)
		reads(t, s, "globex", "mia", "own/d", policies.CodeRevoked)
		play(t, s, 0, "mia", "me", "sync")
		reads(t, s, "acme", "mia", "own/c", policies.CodeRevoked)
		reads(t, s, "globex", "mia", "own/d", policies.CodeRevoked)
		expect("acme", "own/d", "own/d 1")
		expect("globex", "own/c", "own/c 2")
	})

	if t.Failed() {
		return
	}
	t.Run("a storefront that hangs", func(t *testing.T) {
		must(t, s.Storefront.Signal(syscall.SIGSTOP))
		if r := play(t, s, 0, "mia", "me", "revoke", "acme", "own/d", "--no-rotate"); !strings.Contains(r.Stdout, "STOPPED") || strings.Contains(r.Stdout, "NOT STOPPED") {
			t.Errorf("a revocation over the second route says %q", r.Stdout)
		}
		must(t, s.Storefront.Signal(syscall.SIGCONT))
		reads(t, s, "acme", "mia", "own/d", policies.CodeRevoked)
		play(t, s, 0, "mia", "me", "sync")
	})

	// The storefront's disk is gone. Readers are not shown an older state as if it were the newest; the owner's device has everything and
	// gives it again, and nobody has to connect or grant anew.
	t.Run("a storefront that lost everything", func(t *testing.T) {
		for name, give := range map[string][]string{"sync": {"me", "sync"}, "the next change": {"me", "set", "own/c", "own/c 3"}} {
			must(t, s.Storefront.Stop())
			must(t, os.RemoveAll(s.StorefrontData()))
			must(t, s.Storefront.Start(ctx))
			reads(t, s, "acme", "mia", "own/a", policies.CodeNoGrant) // the storefront has none to offer to the vault, and nothing else to show
			t.Logf("by %s", name)
			play(t, s, 0, "mia", give...)
			expect("acme", "own/a", "own/a 2")
			expect("globex", "own/b", "own/b 1")
			reads(t, s, "acme", "mia", "own/b", policies.CodeRevoked)
		}
		play(t, s, 0, "mia", "me", "set", "own/a", "own/a 3")
		expect("acme", "own/a", "own/a 3")
		expect("globex", "own/c", "own/c 3")
	})
}

// get asks the storefront for something that needs no login.
func get(t *testing.T, s *stage.Stage, path string) (int, string) {
	t.Helper()
	resp, err := outsider(t, s, nil).Get(s.StorefrontURL() + path)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(body)
}
