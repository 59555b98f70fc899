package e2e

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/tests/stage"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// TestHalfDone kills the storefront at the two lines that matter: after it has written down what is wanted and before the vault hears of it, and
// after the vault has accepted and before the storefront knows. TestKills in tests/fault meets these moments by chance, this test always.
func TestHalfDone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "stage")
	hop := newProxy(t, dir, "hop", "vault", "storefront")
	s := openStage(t, stage.Options{Dir: dir, VaultAt: hop.url(), VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	play(t, s, 0, "eva", "me", "init")
	play(t, s, 0, "acme", "biz", "init", "--name", "Acme")
	play(t, s, 0, "globex", "biz", "init", "--name", "Globex")
	for _, f := range []string{"own/a", "own/b", "own/c", "own/d"} {
		play(t, s, 0, "eva", "me", "set", f, f+" 1")
	}
	connect(t, s, "eva", "acme")
	connect(t, s, "eva", "globex")
	play(t, s, 0, "eva", "me", "grant", "acme", "own/a")
	play(t, s, 0, "eva", "me", "grant", "globex", "own/a", "own/c", "own/d")

	// dies has the storefront die when it next hands a document of a type to the vault. It returns a function that says whether it did, and
	// starts it again.
	dies := func(t *testing.T, kind string, delivered bool) (restart func()) {
		t.Helper()
		var once atomic.Bool
		hop.set(func(m *message) *answer {
			var submission vaultapi.Submission
			if m.is("POST", vaultapi.PathDocuments) && json.Unmarshal(m.body, &submission) == nil {
				if e, err := envelope.Parse(submission.Envelope); err == nil && e.Type == kind && !once.Swap(true) {
					if delivered {
						if a := m.pass(); a == nil || a.status != 200 {
							t.Errorf("the vault did not accept the %s: %+v", kind, a)
						}
					}
					s.Storefront.Kill()
					return nil
				}
			}
			return m.pass()
		})
		return func() {
			t.Helper()
			if !once.Load() {
				t.Fatalf("no %s came by: nothing was tested", kind)
			}
			hop.set(nil)
			must(t, s.Storefront.Start(t.Context()))
		}
	}
	expect := func(t *testing.T, reader string, f policies.Field, want string) {
		t.Helper()
		if text, _ := reads(t, s, reader, "eva", f, ""); text != want {
			t.Errorf("%s reads %s as %q, want %q", reader, f, text, want)
		}
	}
	stopped := func(t *testing.T, args ...string) {
		t.Helper()
		if r := play(t, s, 0, "eva", append([]string{"me", "revoke"}, args...)...); !strings.Contains(r.Stdout, "STOPPED") || strings.Contains(r.Stdout, "NOT STOPPED") {
			t.Errorf("a revocation says %q", r.Stdout)
		}
	}

	t.Run("a manifest that the vault accepted", func(t *testing.T) {
		restart := dies(t, "manifest", true)
		play(t, s, 5, "eva", "me", "set", "own/a", "own/a 2")
		restart()
		expect(t, "acme", "own/a", "own/a 2") // without the owner's help
		play(t, s, 0, "eva", "me", "sync")
		expect(t, "globex", "own/a", "own/a 2")
	})
	t.Run("a manifest that the vault has not heard of", func(t *testing.T) {
		restart := dies(t, "manifest", false)
		play(t, s, 5, "eva", "me", "set", "own/a", "own/a 3")
		restart()
		expect(t, "acme", "own/a", "own/a 3")
		play(t, s, 0, "eva", "me", "sync")
		expect(t, "globex", "own/a", "own/a 3")
	})
	t.Run("a grant that the vault accepted, and a revocation before anything else", func(t *testing.T) {
		restart := dies(t, "grant", true)
		play(t, s, 5, "eva", "me", "grant", "acme", "own/b")
		restart()
		reads(t, s, "acme", "eva", "own/b", policies.CodeNoGrant) // the storefront has no grant to offer
		stopped(t, "globex", "own/c", "--no-rotate")
		reads(t, s, "globex", "eva", "own/c", policies.CodeRevoked)
		expect(t, "acme", "own/b", "own/b 1")
	})
	t.Run("a grant that the vault has not heard of, and is not to hear of any more", func(t *testing.T) {
		restart := dies(t, "grant", false)
		play(t, s, 5, "eva", "me", "grant", "acme", "own/c")
		restart()
		stopped(t, "acme", "own/c")
		reads(t, s, "acme", "eva", "own/c", policies.CodeNoGrant)
		play(t, s, 0, "eva", "me", "sync")
		reads(t, s, "acme", "eva", "own/c", policies.CodeNoGrant)
	})
	t.Run("a grant that the vault accepted, and is to end again", func(t *testing.T) {
		restart := dies(t, "grant", true)
		play(t, s, 5, "eva", "me", "grant", "acme", "own/d")
		restart()
		stopped(t, "acme", "own/d")
		reads(t, s, "acme", "eva", "own/d", policies.CodeRevoked)
		expect(t, "globex", "own/d", "own/d 1")
	})
	for name, delivered := range map[string]bool{"accepted": true, "has not heard of": false} {
		t.Run("a revocation that the vault "+name, func(t *testing.T) {
			play(t, s, 0, "eva", "me", "grant", "acme", "own/c")
			expect(t, "acme", "own/c", "own/c 1")
			restart := dies(t, "revocation", delivered)
			stopped(t, "acme", "own/c", "--no-rotate") // over the second route
			restart()
			reads(t, s, "acme", "eva", "own/c", policies.CodeRevoked)
			play(t, s, 0, "eva", "me", "sync")
			reads(t, s, "acme", "eva", "own/c", policies.CodeRevoked)
		})
	}
	// The storefront's chain is whole again: a device that knows nothing can follow it from the beginning.
	backup := filepath.Join(t.TempDir(), "eva.backup")
	play(t, s, 0, "eva", "me", "backup", backup)
	twinKey(t, s, "eva", "eva2")
	play(t, s, 0, "eva2", "me", "restore", backup)
	if text := strings.TrimSpace(play(t, s, 0, "eva2", "me", "get", "own/a").Stdout); text != "own/a 3" {
		t.Errorf("the second device has own/a as %q", text)
	}
}
