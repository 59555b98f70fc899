package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/vault/api"
)

// host is a vault's host that can put back everything it has, the token too, to an earlier moment: that is how it forks a log under the token's own signature.
type host struct {
	t      *testing.T
	s      *stage.Stage
	config string // without what is published
}

func newHost(t *testing.T, s *stage.Stage) *host {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(s.VaultData(), "vault.toml"))
	must(t, err)
	return &host{t, s, string(config)}
}

// folders are those of the vault and of its token.
func (h *host) folders() map[string]string {
	out := map[string]string{"token": h.s.TokenFolder()}
	for _, part := range []string{"log", "state", "database", "keys"} {
		out[part] = filepath.Join(h.s.VaultData(), part)
	}
	return out
}

// keep stops the vault and copies everything.
func (h *host) keep(into string) {
	h.t.Helper()
	must(h.t, h.s.Vault.Stop())
	for name, folder := range h.folders() {
		if _, err := os.Stat(folder); err == nil {
			put(h.t, folder, filepath.Join(into, name))
		}
	}
}

// restore puts everything back.
func (h *host) restore(from string) {
	h.t.Helper()
	for name, folder := range h.folders() {
		if _, err := os.Stat(filepath.Join(from, name)); err == nil {
			put(h.t, filepath.Join(from, name), folder)
		}
	}
}

// start starts the vault with a published log that so many of the witnesses must cosign.
func (h *host) start(dir string, need int, witnesses ...*stage.Witness) {
	h.t.Helper()
	var list []string
	for _, w := range witnesses {
		url, err := w.URL()
		must(h.t, err)
		list = append(list, fmt.Sprintf("{key = %q, url = %q}", w.Key, url))
	}
	text := fmt.Sprintf("%s\n[publish]\ndir = %q\ninterval = \"200ms\"\nneed = %d\nwitnesses = [%s]\n", h.config, dir, need, strings.Join(list, ", "))
	must(h.t, os.WriteFile(filepath.Join(h.s.VaultData(), "vault.toml"), []byte(text), 0o600))
	must(h.t, h.s.Vault.Start(h.t.Context()))
}

// health is what the vault says of itself.
func health(t *testing.T, caller *devices.Insider) *api.Health {
	t.Helper()
	h, err := caller.Vault.Health(t.Context())
	must(t, err)
	return h
}

func newWitness(t *testing.T, s *stage.Stage, name string) *stage.Witness {
	t.Helper()
	w, err := stage.NewWitness(t.Context(), binaries, filepath.Join(t.TempDir(), "witness"), name, s.Witnesses())
	must(t, err)
	t.Cleanup(func() { must(t, w.Stop()) })
	return w
}

// TestForkedHost: a host that forks its log, under the token's and its own signatures, and shows one branch to each of two witnesses. Neither cosigns the other
// branch, so no checkpoint has both, and whoever demands both refuses each. The second branch is published nowhere where both are needed, which the health tells, and key
// use goes on. The branch that a witness did not cosign is in its output, and convicts the host. Two owners without any witness find the fork too, by comparing.
func TestForkedHost(t *testing.T) {
	t.Parallel()
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	ctx := t.Context()
	h := newHost(t, s)
	w1, w2 := newWitness(t, s, "witness.example/w1"), newWitness(t, s, "witness.example/w2")
	p, f := devices.NewPerson(t, s, client.Options{}, map[policies.Field]string{"own/a": "a"}), devices.NewFirm(t, s, "Acme")
	devices.Meet(t, p, f, "acme")
	must(t, p.Grant(ctx, f.ID(), []policies.Field{"own/a"}, client.GrantOptions{}))
	caller := devices.NewInsider(t, s, f)
	play(t, s, 0, "ana", "me", "init")
	play(t, s, 0, "bo", "me", "init")
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	verify := func(code int, folder string, more ...string) stage.Result {
		t.Helper()
		return play(t, s, code, "auditor", append([]string{"audit", "verify", "--join", s.Join(), path(folder)}, more...)...)
	}
	// grown waits until all that the vault logged until now is published.
	grown := func() {
		t.Helper()
		size := health(t, caller).LogSize
		await(t, time.Minute, "published", func() bool {
			h := health(t, caller)
			return h.Publication != nil && h.Publication.Size >= size && !h.Publication.Failed
		})
	}

	// Both witnesses see the honest log, and a third who is nobody's changes nothing.
	h.keep(path("base"))
	h.start(path("both"), 2, w1, w2)
	grown()
	if r := verify(0, "both", "--witness", w1.Key, "--witness", w2.Key, "--need", "2"); !strings.Contains(r.Stdout, "Witness witness.example/w2 saw this log") {
		t.Errorf("it says %s", r.Stdout)
	}
	play(t, s, 0, "auditor", "audit", "recheck", "--join", s.Join(), "--witness", w1.Key, "--witness", w2.Key, path("both"))
	if r := play(t, s, 0, "ana", "me", "checkpoint", "--witness", w1.Key, "--witness", w2.Key); strings.Count(r.Stdout, "saw the log as this device does") != 2 {
		t.Errorf("a device asks for both witnesses: %s", r.Stdout)
	}
	play(t, s, 2, "ana", "me", "checkpoint", "--need", "1")
	h.keep(path("base"))

	// One branch for the first witness, and one for the second.
	h.start(path("a"), 1, w1)
	play(t, s, 0, "ana", "me", "set", "own/x", "one")
	grown()
	h.keep(path("ended"))
	h.restore(path("base"))
	h.start(path("b"), 1, w2)
	for i := range 4 {
		play(t, s, 0, "bo", "me", "set", "own/x", fmt.Sprint(i))
	}
	grown()
	verify(0, "a", "--witness", w1.Key)
	verify(0, "b", "--witness", w2.Key)
	// Devices ask the vault, which is on the second branch: the one that was shown the first finds out, and none is content with one of two.
	play(t, s, 0, "bo", "me", "checkpoint", "--witness", w2.Key)
	play(t, s, 0, "bo", "me", "checkpoint", "--witness", w1.Key, "--witness", w2.Key, "--need", "1")
	if r := play(t, s, 7, "bo", "me", "checkpoint", "--witness", w1.Key, "--witness", w2.Key); !strings.Contains(r.Stderr, "1 of the 2 witnesses signed it") {
		t.Errorf("one of two witnesses: %s", r.Stderr)
	}
	if r := play(t, s, 7, "ana", "me", "checkpoint", "--witness", w2.Key); !strings.Contains(r.Stderr, "another history") {
		t.Errorf("a device on the other branch: %s", r.Stderr)
	}
	for _, branch := range []string{"a", "b"} {
		if r := verify(7, branch, "--witness", w1.Key, "--witness", w2.Key, "--need", "2"); !strings.Contains(r.Stderr, "1 of the 2 witnesses signed it, 2 are needed") {
			t.Errorf("branch %s: %s", branch, r.Stderr)
		}
	}
	if r := verify(7, "b", "--older", path("a/checkpoint")); !strings.Contains(r.Stderr, "forked") {
		t.Errorf("comparing them says %s", r.Stderr)
	}

	// The second branch cannot have both, wherever it is published, and it is the vault's own health that says so.
	must(t, s.Vault.Stop())
	h.start(path("b2"), 2, w1, w2)
	await(t, time.Minute, "refused by the first witness", func() bool {
		h := health(t, caller).Publication
		return h != nil && h.Failed && h.Reason == "witnesses" && len(h.Witnesses) == 2 && h.Witnesses[0].Reason == "refused" && h.Witnesses[1].Reason == ""
	})
	if _, err := os.Stat(path("b2/checkpoint")); err == nil {
		t.Error("a checkpoint that one of two cosigned was published")
	}
	if got, err := f.Value(ctx, p.ID(), "own/a"); err != nil || got != "a" {
		t.Errorf("key use while nothing is published: %q, %v", got, err)
	}
	output, err := os.ReadFile(w1.Log)
	must(t, err)
	if !strings.Contains(string(output), "is no continuation of what was cosigned") {
		t.Errorf("the witness's output has no proof: %s", output)
	}

	// A host that is back at the base, which is less than both saw.
	must(t, s.Vault.Stop())
	h.restore(path("base"))
	h.start(path("base2"), 2, w1, w2)
	await(t, time.Minute, "seen to be behind", func() bool {
		h := health(t, caller).Publication
		return h != nil && h.Failed && (h.Witnesses[0].Reason == "ahead" || h.Witnesses[0].Reason == "refused") && (h.Witnesses[1].Reason == "ahead" || h.Witnesses[1].Reason == "refused")
	})

	// Without a witness: both devices know a branch, and compare.
	must(t, s.Vault.Stop())
	h.restore(path("ended"))
	h.start(path("a"), 0)
	note := play(t, s, 0, "bo", "me", "checkpoint").Stdout
	must(t, os.WriteFile(path("bo.note"), []byte(note), 0o600))
	if r := play(t, s, 7, "ana", "me", "checkpoint", "--compare", path("bo.note")); !strings.Contains(r.Stderr, "Keep the file") {
		t.Errorf("comparing says %s", r.Stderr)
	}
}

// TestWitnessesAway: with no witness running key use goes on and nothing new is published, which the health says; when they are back, all that was logged
// meanwhile is published by itself. With one of two needed, one may be away.
func TestWitnessesAway(t *testing.T) {
	t.Parallel()
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	ctx := t.Context()
	h := newHost(t, s)
	w1, w2 := newWitness(t, s, "witness.example/w1"), newWitness(t, s, "witness.example/w2")
	p, f := devices.NewPerson(t, s, client.Options{}, map[policies.Field]string{"own/a": "a"}), devices.NewFirm(t, s, "Acme")
	devices.Meet(t, p, f, "acme")
	must(t, p.Grant(ctx, f.ID(), []policies.Field{"own/a"}, client.GrantOptions{}))
	caller := devices.NewInsider(t, s, f)
	dir := filepath.Join(t.TempDir(), "published")
	must(t, s.Vault.Stop())
	h.start(dir, 1, w1, w2)
	state := func(want string, holds func(*api.Publication) bool) {
		t.Helper()
		size := health(t, caller).LogSize
		await(t, 90*time.Second, want, func() bool {
			h := health(t, caller)
			return h.Publication != nil && (h.Publication.Size >= size) == !h.Publication.Failed && holds(h.Publication)
		})
	}
	read := func() {
		t.Helper()
		if got, err := f.Value(ctx, p.ID(), "own/a"); err != nil || got != "a" {
			t.Fatalf("a read: %q, %v", got, err)
		}
	}
	read()
	state("published", func(p *api.Publication) bool { return !p.Failed })
	w2.Kill()
	read()
	state("published with one of two", func(p *api.Publication) bool { return !p.Failed && p.Witnesses[1].Reason == "away" })
	w1.Kill()
	for range 3 {
		read()
	}
	state("said to fail", func(p *api.Publication) bool {
		return p.Failed && p.Reason == "witnesses" && p.Witnesses[0].Reason == "away"
	})
	before, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	must(t, err)
	read()
	after, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	must(t, err)
	if string(before) != string(after) {
		t.Error("published without a witness")
	}
	// They come back elsewhere, so the vault is told where.
	must(t, w1.Start(ctx))
	must(t, w2.Start(ctx))
	must(t, s.Vault.Stop())
	h.start(dir, 2, w1, w2)
	state("published again", func(p *api.Publication) bool { return !p.Failed })
	play(t, s, 0, "auditor", "audit", "verify", "--join", s.Join(), "--witness", w1.Key, "--witness", w2.Key, dir)
}

// steppedClock is the vault's reading of both clocks, with seconds added to the wall clock that a file says.
func steppedClock(file string) []patch {
	return []patch{
		{"vault/keylog/keylog.go", "\t\"path/filepath\"\n", "\t\"os\"\n\t\"path/filepath\"\n"},
		{"vault/keylog/keylog.go", "return now.Round(0), now.Sub(start)", fmt.Sprintf(`var by time.Duration
		text, _ := os.ReadFile(%q)
		fmt.Sscan(string(text), &by)
		return now.Round(0).Add(by * time.Second), now.Sub(start)`, file)},
	}
}

// TestClockSteps: a real daemon whose wall clock steps. By 4 seconds nothing happens; by more than 5 key use stops with clock_stepped, for readers and owners, the health says
// so, and it stays so when the clock is put right again. A start with the right clock resumes it; one with a clock before the newest entry is refused.
func TestClockSteps(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "step")
	step := func(by string) { must(t, os.WriteFile(file, []byte(by), 0o600)) }
	step("0")
	s := openStageOf(t, corruptVault(t, steppedClock(file)...), stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	ctx := t.Context()
	p, f := devices.NewPerson(t, s, client.Options{}, map[policies.Field]string{"own/a": "a"}), devices.NewFirm(t, s, "Acme")
	devices.Meet(t, p, f, "acme")
	must(t, p.Grant(ctx, f.ID(), []policies.Field{"own/a"}, client.GrantOptions{}))
	caller := devices.NewInsider(t, s, f)
	value := func() error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		got, err := f.Value(ctx, p.ID(), "own/a")
		if err == nil && got != "a" {
			t.Errorf("the value is %q", got)
		}
		return err
	}
	for _, way := range []string{"6", "-6"} {
		must(t, value())
		step("4")
		must(t, value())
		step("0")
		must(t, value())
		step(way)
		if err := value(); !errors.Is(err, policies.CodeClock) {
			t.Errorf("a read after a step by %s s: %v", way, err)
		}
		if way == "-6" {
			if err := p.Revoke(ctx, f.ID(), []policies.Field{"own/a"}, client.RevokeOptions{KeepEpoch: true}); !errors.Is(err, policies.CodeClock) {
				t.Errorf("a revocation after a step by %s s: %v", way, err)
			}
		}
		if h := health(t, caller); h.Status != "stopped" || h.Reason != "clock cannot be trusted" {
			t.Errorf("after a step by %s s the health is %+v", way, h)
		}
		step("0")
		if err := value(); !errors.Is(err, policies.CodeClock) {
			t.Errorf("a read when the clock is right again: %v", err)
		}
		s.Vault.Kill()
		if way == "-6" {
			step("-3600")
			if err := s.Vault.Start(ctx); err == nil || !strings.Contains(err.Error(), "earlier than the newest entry") {
				t.Errorf("a start with a clock before the newest entry: %v", err)
			}
			step("0")
		}
		must(t, s.Vault.Start(ctx))
	}
	must(t, p.Finish(ctx)) // the revocation that was not taken
	if err := value(); !errors.Is(err, policies.CodeRevoked) {
		t.Errorf("a read of what was revoked when the clock was right again: %v", err)
	}
}
