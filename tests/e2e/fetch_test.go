package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/tests/stage"
)

// TestAuditFetch: an auditor mirrors a real vault's log through the owners' door, is killed in the middle and goes on, and every audit command works on the
// mirror. Who is not an auditor, or is no longer, gets nothing, and whoever asked is in the log.
func TestAuditFetch(t *testing.T) {
	t.Parallel()
	s := openStage(t, publishing(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits}))
	play(t, s, 0, "zoe", "me", "init")
	play(t, s, 0, "acme", "biz", "init", "--name", "Acme")
	play(t, s, 0, "auditor", "biz", "init", "--name", "Auditors")
	code, err := links.ParseContact(strings.TrimSpace(play(t, s, 0, "auditor", "biz", "code").Stdout))
	must(t, err)
	id := code.ID
	play(t, s, 0, "zoe", "me", "set", "own/a", "a value")
	connect(t, s, "zoe", "acme")
	play(t, s, 0, "zoe", "me", "grant", "acme", "own/a")
	for range 3 {
		play(t, s, 0, "acme", "biz", "read", "zoe", "own/a")
	}
	dir := filepath.Join(t.TempDir(), "mirror")
	fetch := func(code int, profile string) stage.Result {
		t.Helper()
		return play(t, s, code, profile, "audit", "fetch", "--as", filepath.Join(s.Dir(), "profiles", profile), s.OwnersURL(), dir)
	}
	audit := func(code int, args ...string) stage.Result {
		t.Helper()
		return play(t, s, code, "auditor", append(append([]string{"audit", args[0], "--join", s.Join()}, args[1:]...), dir)...)
	}
	configured := func(auditors string) {
		t.Helper()
		must(t, s.Vault.Stop())
		config := filepath.Join(s.Dir(), "vault", "vault.toml")
		text, err := os.ReadFile(config)
		must(t, err)
		head, _, _ := strings.Cut(string(text), "\n[audit]\n")
		must(t, os.WriteFile(config, []byte(head+"\n[audit]\nauditors = ["+auditors+"]\n"), 0o600))
		must(t, s.Vault.Start(t.Context()))
	}

	if r := fetch(3, "auditor"); !strings.Contains(r.Stderr, "auditor") {
		t.Errorf("not an auditor yet: %s", r.Stderr)
	}
	configured(fmt.Sprintf("%q", id.String()))
	fetch(3, "acme")

	profile := filepath.Join(s.Dir(), "profiles", "auditor")
	// Killed again and again while it writes: the mirror has no checkpoint until it is whole.
	killed := 0
	for pause := time.Millisecond; ; pause += 7 * time.Millisecond {
		p := exec.CommandContext(t.Context(), s.Bin().Sallyport, "--key-file", profile+".key", "audit", "fetch", "--as", profile, s.OwnersURL(), dir)
		must(t, p.Start())
		over := time.AfterFunc(pause, func() { p.Process.Kill() })
		err := p.Wait()
		over.Stop()
		if err == nil {
			break
		}
		killed++
	}
	t.Logf("killed %d times", killed)
	r := fetch(0, "auditor")
	if !strings.Contains(r.Stdout, "that the token signed") || !strings.Contains(r.Stdout, "verifies all of it") { // what was there is not looked at again
		t.Errorf("%s", r.Stdout)
	}
	await(t, 30*time.Second, "published that somebody was given entries", func() bool {
		fetch(0, "auditor")
		return strings.Contains(audit(0, "verify").Stdout, "access ")
	})
	if r := audit(0, "verify"); !strings.Contains(r.Stdout, "not here 0") {
		t.Errorf("%s", r.Stdout)
	}
	if r := audit(0, "recheck"); !strings.Contains(r.Stdout, "3 releases: 3 justified, 0 unjustified, 0 not checkable\n0 documents") {
		t.Errorf("%s", r.Stdout)
	}
	if r := audit(0, "search", "--kind", "access"); !strings.Contains(r.Stdout, "an auditor, was given") {
		t.Errorf("%s", r.Stdout)
	}
	// What was fetched is the auditor's alone.
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if info, infoErr := d.Info(); err == nil && infoErr == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	}))
	// The log grows, and the mirror goes on from where it was.
	older := filepath.Join(t.TempDir(), "older")
	text, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	must(t, err)
	must(t, os.WriteFile(older, text, 0o600))
	grows := func(from []byte) {
		t.Helper()
		await(t, time.Minute, "published", func() bool {
			now, err := os.ReadFile(filepath.Join(filepath.Dir(s.Dir()), "published", "checkpoint"))
			return err == nil && string(now) != string(from)
		})
	}
	play(t, s, 0, "acme", "biz", "read", "zoe", "own/a")
	grows(text)
	fetch(0, "auditor")
	audit(0, "verify", "--older", older)
	// What anybody may have is enough to compare checkpoints, with no mirror at all.
	public := play(t, s, 0, "auditor", "--ca", s.CA(), "audit", "verify", "--join", s.Join(), "--older", older, s.OwnersURL()+"/v1/log")
	if !strings.Contains(public.Stdout, "beginning of this log") || strings.Contains(public.Stdout, "All ") {
		t.Errorf("%s", public.Stdout)
	}

	// Who is no auditor any more gets nothing that is new; whose mirror has everything has nothing to ask for.
	text, err = os.ReadFile(filepath.Join(dir, "checkpoint"))
	must(t, err)
	configured("")
	grows(text)
	fetch(3, "auditor")
}
