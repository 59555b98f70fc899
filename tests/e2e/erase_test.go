package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// laterClock is steppedClock, and the daemon's other clock with it: what depends on time is decided by that one.
func laterClock(file string) []patch {
	return append(steppedClock(file),
		patch{"vault/vault.go", "\t\"math\"\n", "\t\"math\"\n\t\"os\"\n"},
		patch{"vault/vault.go", "cfg.Clock = time.Now", fmt.Sprintf(`cfg.Clock = func() time.Time {
			var by time.Duration
			text, _ := os.ReadFile(%q)
			fmt.Sscan(string(text), &by)
			return time.Now().Add(by * time.Second)
		}`, file)},
	)
}

// TestErased: a real daemon that keeps bodies for 48 hours, and whose clock is three days ahead after a restart. What lies beside old entries is gone from
// the log, from what is published and from every file of the vault, also where the vault was killed while it erased; the tree verifies; recheck says of
// each old release that it is not checkable, because of that and nothing else.
func TestErased(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "step")
	must(t, os.WriteFile(file, []byte("0"), 0o600))
	s := openStageOf(t, corruptVault(t, laterClock(file)...), publishing(t, stage.Options{
		VaultMembers: "keep_bodies = \"48h\"\n", VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits,
	}))
	ctx := t.Context()
	p, f := devices.NewPerson(t, s, client.Options{}, map[policies.Field]string{"own/a": "a"}), devices.NewFirm(t, s, "Acme")
	devices.Meet(t, p, f, "acme")
	must(t, p.Grant(ctx, f.ID(), []policies.Field{"own/a"}, client.GrantOptions{}))
	for range 5 {
		if got, err := f.Value(ctx, p.ID(), "own/a"); err != nil || got != "a" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	folder := published(t, s, devices.NewInsider(t, s, f), p.ID())
	recheck := func(code int, more ...string) stage.Result {
		t.Helper()
		return play(t, s, code, "auditor", append([]string{"audit", "recheck", "--join", s.Join(), folder}, more...)...)
	}
	if r := recheck(0); !strings.Contains(r.Stdout, "5 releases") {
		t.Fatalf("before: %s", r.Stdout)
	}
	used := `"decided":` // in the details of a use, and in those of nothing else
	if !holds(t, s.VaultData(), used) || !holds(t, folder, used) {
		t.Fatal("the search does not find what is not erased yet")
	}

	// Three days later. The vault erases when it starts, and is killed while it does.
	s.Vault.Kill()
	must(t, os.WriteFile(file, []byte("259200"), 0o600))
	for range 3 {
		must(t, s.Vault.Start(ctx))
		s.Vault.Kill()
	}
	must(t, s.Vault.Start(ctx))
	await(t, time.Minute, "erased", func() bool { return !holds(t, folder, used) && !holds(t, s.VaultData(), used) })
	must(t, s.Vault.Stop())
	if r := recheck(exitUntrue); !strings.Contains(r.Stdout, "erased") {
		t.Errorf("recheck says %s%s", r.Stdout, r.Stderr)
	}
	recheck(0, "--allow", "erased")
	if r := play(t, s, 0, "auditor", "audit", "verify", "--join", s.Join(), folder); !strings.Contains(r.Stdout, "erased") {
		t.Errorf("verify says %s", r.Stdout)
	}
}

// holds reports whether a text is in any file under a folder.
func holds(t *testing.T, dir, text string) (found bool) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // published files come and go
		}
		b, err := os.ReadFile(path)
		found = found || err == nil && bytes.Contains(b, []byte(text))
		return nil
	}))
	return found
}
