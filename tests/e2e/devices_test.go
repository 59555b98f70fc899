package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/client/profile"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// twinKey gives a second device the key file of the first, as a person would who carries it over.
func twinKey(t *testing.T, s *stage.Stage, from, to string) {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(s.Dir(), "profiles", from+".key"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(s.Dir(), "profiles", to+".key"), key, 0o600))
}

// TestTwoDevices: one person, two devices from one backup. Each publishes without knowing of the other; the vault accepts one chain,
// so whoever comes second is told (409), fetches what it missed and signs again on top. Nothing of either is lost.
func TestTwoDevices(t *testing.T) {
	t.Parallel()
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	play(t, s, 0, "phone", "me", "init")
	play(t, s, 0, "acme", "biz", "init", "--name", "Acme")
	play(t, s, 0, "globex", "biz", "init", "--name", "Globex")
	play(t, s, 0, "phone", "me", "set", "own/a", "a1")
	play(t, s, 0, "phone", "me", "set", "own/b", "b1")
	connect(t, s, "phone", "acme")
	play(t, s, 0, "phone", "me", "grant", "acme", "own/a", "own/b")

	backup := filepath.Join(t.TempDir(), "phone.backup")
	play(t, s, 0, "phone", "me", "backup", backup)
	twinKey(t, s, "phone", "laptop")
	// A backup does not open with another key, and makes nothing then.
	must(t, os.WriteFile(filepath.Join(s.Dir(), "profiles", "thief.key"), make([]byte, profile.KeyFileSize), 0o600))
	play(t, s, 6, "thief", "me", "restore", backup)
	play(t, s, 0, "laptop", "me", "restore", backup)

	get := func(device, field, want string) {
		t.Helper()
		if got := strings.TrimSpace(play(t, s, 0, device, "me", "get", field).Stdout); got != want {
			t.Errorf("%s has %s as %q, want %q", device, field, got, want)
		}
	}
	get("laptop", "own/a", "a1")
	get("laptop", "own/b", "b1")

	// Both change something. The phone does not know of it when it signs, nor does the laptop afterwards.
	play(t, s, 0, "laptop", "me", "set", "own/a", "a2")
	play(t, s, 0, "phone", "me", "set", "own/b", "b2")
	play(t, s, 0, "laptop", "me", "set", "own/c", "c1")
	play(t, s, 0, "phone", "me", "sync")
	refusals := 0
	for _, e := range devices.Journal(t, s) {
		if e.Entry.Kind == evidence.EntryRefusal && e.Entry.Outcome == policies.CodeChain {
			refusals++
		}
	}
	if refusals < 2 {
		t.Errorf("the vault refused %d documents because another came first, want at least 2: nothing was tested", refusals)
	}
	for _, device := range []string{"phone", "laptop"} {
		for field, want := range map[string]string{"own/a": "a2", "own/b": "b2", "own/c": "c1"} {
			get(device, field, want)
		}
	}
	// Both change the same field: the later one stands, on both, and its version is higher.
	play(t, s, 0, "laptop", "me", "set", "own/a", "a3")
	_, third := reads(t, s, "acme", "phone", "own/a", "")
	play(t, s, 0, "phone", "me", "set", "own/a", "a4")
	text, fourth := reads(t, s, "acme", "phone", "own/a", "")
	if text != "a4" || fourth <= third {
		t.Errorf("the reader has %q, version %d after %d", text, fourth, third)
	}
	play(t, s, 0, "laptop", "me", "sync")
	get("laptop", "own/a", "a4")

	// What the laptop grants the phone knows of, and can end; it stays ended on both.
	connect(t, s, "laptop", "globex")
	play(t, s, 0, "laptop", "me", "grant", "globex", "own/c")
	if text, _ := reads(t, s, "globex", "laptop", "own/c", ""); text != "c1" {
		t.Errorf("globex has %q", text)
	}
	play(t, s, 0, "phone", "me", "sync")
	id := said[struct {
		Contacts []struct {
			ID    policies.IdentityID `json:"id"`
			Alias string              `json:"alias"`
		} `json:"contacts"`
	}](t, play(t, s, 0, "laptop", "me", "contacts", "--json"))
	for _, c := range id.Contacts {
		if c.Alias == "globex" {
			play(t, s, 0, "phone", "me", "revoke", c.ID.String())
		}
	}
	reads(t, s, "globex", "laptop", "own/c", policies.CodeRevoked)
	// The laptop does not know yet that the field has moved to a new key, and revokes and rotates on top of it.
	play(t, s, 0, "laptop", "me", "revoke", "acme", "own/b")
	reads(t, s, "acme", "phone", "own/b", policies.CodeRevoked)
	if text, _ := reads(t, s, "acme", "phone", "own/a", ""); text != "a4" {
		t.Errorf("acme has %q", text)
	}
	for _, device := range []string{"phone", "laptop"} {
		play(t, s, 0, device, "me", "sync")
		if out := play(t, s, 0, device, "me", "grants").Stdout; strings.Contains(out, "own/b") || strings.Contains(out, "own/c") || !strings.Contains(out, "own/a") {
			t.Errorf("grants that %s knows of:\n%s", device, out)
		}
	}
	// The person closes the account on one device, which asks for a word first. Nobody reads anything then, the device is empty, and the other one is told.
	play(t, s, 1, "phone", "me", "delete")
	get("phone", "own/a", "a4")
	old := filepath.Join(s.Dir(), "profiles", "phone", "old.backup") // which is the person's to delete
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := play(t, s, 0, "phone", "me", "delete", "--yes", "DELETE"); !strings.Contains(r.Stderr, "old.backup") {
		t.Errorf("nothing is said of what stays: %s", r.Stderr)
	}
	left, err := os.ReadDir(filepath.Dir(old))
	if err != nil || len(left) != 1 || left[0].Name() != "old.backup" {
		t.Errorf("left in the phone's profile: %v, %v", left, err)
	}
	reads(t, s, "acme", "phone", "own/a", policies.CodeNoGrant)
	if r := play(t, s, 3, "laptop", "me", "sync"); !strings.Contains(r.Stderr, "closed by its owner") {
		t.Errorf("the laptop says %q", r.Stderr)
	}
	for _, e := range devices.Journal(t, s) {
		if e.Entry.Kind == evidence.EntryClosure {
			return
		}
	}
	t.Error("the log has no closure")
}
