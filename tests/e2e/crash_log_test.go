package e2e

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// newestJournal is the journal's newest file.
func newestJournal(t *testing.T, s *stage.Stage) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.VaultLog(), "journal-*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no journal: %v", err)
	}
	return slices.Max(files)
}

// lastCommit is where the journal's last record begins, which the seal of its commit follows.
func lastCommit(b []byte) (at int) {
	for next := 68; next+8 <= len(b); next += 8 + int(binary.BigEndian.Uint32(b[next:])) {
		if b[next+8] == 1 {
			at = next
		}
	}
	return at
}

// put makes a folder a copy of another.
func put(t *testing.T, from, to string) {
	t.Helper()
	must(t, os.RemoveAll(to))
	must(t, os.CopyFS(to, os.DirFS(from)))
	must(t, filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o700)
		} else if err == nil {
			err = os.Chmod(path, 0o600)
		}
		return err
	}))
}

// TestDamagedLog: a vault whose key-use log was cut, edited or put back to an earlier moment does not start, and says which file it is about.
// Its database is an index of the log: lost, damaged or old, it is made anew, and a revocation stays one.
func TestDamagedLog(t *testing.T) {
	t.Parallel()
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	ctx := t.Context()
	p, f := devices.NewPerson(t, s, client.Options{}, map[policies.Field]string{"own/a": "a", "own/b": "b"}), devices.NewFirm(t, s, "Acme")
	devices.Meet(t, p, f, "acme")
	must(t, p.Grant(ctx, f.ID(), []policies.Field{"own/a", "own/b"}, client.GrantOptions{}))
	aside := t.TempDir()
	early, late := filepath.Join(aside, "early"), filepath.Join(aside, "late")
	parts := []string{"log", "state", "database"}
	keep := func(into string) {
		t.Helper()
		must(t, s.Vault.Stop())
		for _, part := range parts {
			put(t, filepath.Join(s.VaultData(), part), filepath.Join(into, part))
		}
	}
	restore := func(from string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			put(t, filepath.Join(from, part), filepath.Join(s.VaultData(), part))
		}
	}
	keep(early)
	must(t, s.Vault.Start(ctx))
	must(t, p.Revoke(ctx, f.ID(), []policies.Field{"own/a"}, client.RevokeOptions{}))
	keep(late)

	edit := func(file string, change func([]byte) []byte) {
		t.Helper()
		data, err := os.ReadFile(file)
		must(t, err)
		must(t, os.WriteFile(file, change(data), 0o600))
	}
	state := filepath.Join(s.VaultData(), "state", "signer-state")
	for _, row := range []struct {
		name, says string
		damage     func()
	}{
		{"the last byte cut off", "journal-", func() { edit(newestJournal(t, s), func(b []byte) []byte { return b[:len(b)-1] }) }},
		{"the last commit cut off", "journal-", func() { edit(newestJournal(t, s), func(b []byte) []byte { return b[:lastCommit(b)] }) }},
		{"everything but the header cut off", "journal-", func() { edit(newestJournal(t, s), func(b []byte) []byte { return b[:68] }) }},
		{"one bit changed in the middle", "journal-", func() { edit(newestJournal(t, s), func(b []byte) []byte { b[len(b)/2] ^= 1; return b }) }},
		{"one bit changed in the first entry", "journal-", func() { edit(newestJournal(t, s), func(b []byte) []byte { b[100] ^= 1; return b }) }},
		{"whole frames appended", "journal-", func() {
			edit(newestJournal(t, s), func(b []byte) []byte { return append(b, b[lastCommit(b):]...) })
		}},
		{"the journal removed", "journal", func() { must(t, os.Remove(newestJournal(t, s))) }},
		{"the log of an earlier day", "journal-", func() { restore(early, "log") }},
		{"log and signer state of an earlier day", "token", func() { restore(early, "log", "state") }},
		{"everything of an earlier day", "token", func() { restore(early, parts...) }},
		{"the signer state of an earlier day", "signer-state", func() { restore(early, "state") }},
		{"the signer state removed", "signer-state", func() { must(t, os.Remove(state)) }},
		{"the signer state changed, both copies of it", "signer-state", func() {
			edit(state, func(b []byte) []byte {
				for i := 7; i < len(b); i += 31 {
					b[i] ^= 1
				}
				return b
			})
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			restore(late, parts...)
			row.damage()
			err := s.Vault.Start(ctx)
			if err == nil {
				must(t, s.Vault.Stop())
				keep(late)
				t.Fatal("the vault started")
			}
			last := err.Error()[strings.LastIndex(err.Error(), "sallyport-vault ends"):]
			if !strings.Contains(last, row.says) {
				t.Errorf("it does not name %q: %s", row.says, last)
			}
		})
	}

	for name, damage := range map[string]func(){
		"nothing": func() {},
		"half a frame at the end": func() {
			edit(newestJournal(t, s), func(b []byte) []byte { return append(b, b[lastCommit(b):len(b)-60]...) })
		}, // as a power cut leaves it
		"the database removed":         func() { must(t, os.RemoveAll(filepath.Join(s.VaultData(), "database"))) },
		"the database of an early day": func() { restore(early, "database") },
		"the database changed": func() {
			must(t, filepath.WalkDir(filepath.Join(s.VaultData(), "database"), func(path string, d os.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() {
					edit(path, func(b []byte) []byte {
						for i := 40; i < len(b); i += 97 {
							b[i] ^= 0x10
						}
						return b
					})
				}
				return err
			}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			// The log goes on from here, so what is kept is renewed.
			restore(late, parts...)
			damage()
			must(t, s.Vault.Start(ctx))
			if got, err := f.Value(ctx, p.ID(), "own/b"); err != nil || got != "b" {
				t.Errorf("own/b is %q, %v", got, err)
			}
			if got, err := f.Value(ctx, p.ID(), "own/a"); err == nil {
				t.Errorf("own/a was revoked and is %q", got)
			}
			keep(late)
		})
	}
	must(t, s.Vault.Start(ctx))
}
