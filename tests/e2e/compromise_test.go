package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/vault/pre"
)

// stolenState is what a thief finds in a profile whose key file they have too.
type stolenState struct {
	Root     []byte   `json:"root"`
	Recovery []byte   `json:"recovery"`
	Leaves   [][]byte `json:"leaves"`
	Tasks    []any    `json:"tasks"`
	Former   []byte   `json:"former"`
}

// lookInto opens a profile as whoever has its folder and key file.
func lookInto(t *testing.T, s *stage.Stage, name string, look func(*profile.Profile, *stolenState)) {
	t.Helper()
	folder := filepath.Join(s.Dir(), "profiles", name)
	secret, err := profile.KeyFile(folder + ".key")
	must(t, err)
	p, err := profile.Open(folder, secret)
	must(t, err)
	defer p.Close()
	data, err := p.Load()
	must(t, err)
	state := new(stolenState)
	must(t, json.Unmarshal(data, state))
	look(p, state)
}

// TestCompromise: a person's phone is stolen, unlocked, with all that is on it. They replace everything it could open, from their laptop and with the
// backup on the memory stick at home; businesses read all the while; the thief tries what there is to try. Then a business's safe of keys is stolen.
func TestCompromise(t *testing.T) {
	t.Parallel()
	s := openStage(t, publishing(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits}))
	stick := t.TempDir()
	on := func(name string) string { return filepath.Join(stick, name) }

	// Before. The person has a phone and a laptop, a backup on a stick, and allows two businesses to read.
	play(t, s, 0, "phone", "me", "init", "--backup", on("first.backup"))
	play(t, s, 0, "acme", "biz", "init", "--name", "Acme")
	play(t, s, 0, "globex", "biz", "init", "--name", "Globex")
	for field, value := range map[string]string{"own/a": "a1", "own/b": "b1", "own/c": "c1"} {
		play(t, s, 0, "phone", "me", "set", field, value)
	}
	connect(t, s, "phone", "acme")
	connect(t, s, "phone", "globex")
	play(t, s, 0, "phone", "me", "grant", "acme", "own/a", "own/b", "own/c", "--yes")
	play(t, s, 0, "phone", "me", "grant", "globex", "own/b")
	twinKey(t, s, "phone", "laptop")
	play(t, s, 0, "laptop", "me", "restore", on("first.backup"))
	profiles := filepath.Join(s.Dir(), "profiles")

	// The phone is stolen: the thief has a copy of all that is on it. It has the root and not the recovery key, which went to the stick.
	must(t, os.CopyFS(filepath.Join(profiles, "thief"), os.DirFS(filepath.Join(profiles, "phone"))))
	must(t, filepath.WalkDir(filepath.Join(profiles, "thief"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o700)
		} else if err == nil {
			return os.Chmod(path, 0o600)
		}
		return err
	}))
	twinKey(t, s, "phone", "thief")
	var loot stolenState
	lookInto(t, s, "thief", func(_ *profile.Profile, st *stolenState) { loot = *st })
	if len(loot.Root) != 32 || len(loot.Recovery) != 0 || len(loot.Leaves) != 3 {
		t.Fatalf("the thief found %d bytes of root, %d of recovery key, %d items", len(loot.Root), len(loot.Recovery), len(loot.Leaves))
	}

	// The thief cannot replace anything at once. They announce it; the laptop says so, and takes it back.
	play(t, s, 1, "thief", "me", "replace", "--lost-device", "--backup", on("thief.backup"))
	play(t, s, 0, "thief", "me", "replace", "--lost-device", "--announce", "--backup", on("thief.backup"))
	if out := play(t, s, 0, "laptop", "me", "sync").Stderr; !strings.Contains(out, "WARNING: another device announced") {
		t.Errorf("the laptop says nothing of the announcement: %q", out)
	}
	if out := play(t, s, 0, "laptop", "me", "history").Stdout; !strings.Contains(out, "announced that everything is to be replaced in 72 hours") {
		t.Errorf("the history:\n%s", out)
	}
	if out := play(t, s, 0, "laptop", "me", "replace", "--cancel").Stderr; strings.Contains(out, "took back") {
		t.Errorf("the laptop is told what it did itself: %q", out)
	}
	if out := play(t, s, 0, "thief", "me", "sync").Stderr; !strings.Contains(out, "took back what this one had announced") { // so an owner would be told whose thief did that
		t.Errorf("who announced it is not told that it was taken back: %q", out)
	}
	play(t, s, 0, "thief", "me", "replace", "--lost-device", "--announce", "--backup", on("thief2.backup"))

	// Businesses read from here to the end.
	reader, close := openReader(t, s, "acme")
	ctx, stop := context.WithCancel(t.Context())
	owner, err := reader.Find("phone")
	must(t, err)
	ended := make(chan error, 1)
	var looks atomic.Int64
	go func() {
		for {
			values, err := reader.Read(ctx, client.Item{Owner: owner, Field: "own/a"}, client.Item{Owner: owner, Field: "own/b"}, client.Item{Owner: owner, Field: "own/c"})
			if ctx.Err() != nil {
				ended <- nil
				return
			}
			for _, v := range values {
				err = errors.Join(err, v.Err)
			}
			if err != nil {
				ended <- err
				return
			}
			looks.Add(1)
		}
	}()

	// The recovery key outranks what the thief announced. The command is killed as soon as the new backup is written, and then every 300 ms while it
	// goes on, until it comes to an end.
	kills, second := 0, ""
	run := func(args ...string) (done bool) {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		finished := make(chan stage.Result, 1)
		killed, kill := context.WithCancel(ctx)
		defer kill()
		go func() {
			r, err := s.Sallyport(killed, "laptop", args...)
			if err != nil {
				r.Code = -1
			}
			finished <- r
		}()
		after := time.After(time.Duration(300+100*kills) * time.Millisecond)
		if args[1] == "replace" {
			for {
				if _, err := os.Stat(second); err == nil {
					break
				}
				select {
				case r := <-finished:
					t.Fatalf("it ended without a backup: %s", r.Stderr)
				case <-time.After(time.Millisecond):
				}
			}
			after = time.After(time.Duration(20+60*kills) * time.Millisecond)
		}
		select {
		case r := <-finished:
			return r.Code == 0
		case <-after:
			kill()
			<-finished
			kills++
			return false
		}
	}
	replaced := func() int {
		n := 0
		for _, e := range devices.Journal(t, s) {
			if e.Entry.Kind == evidence.EntrySuccession {
				n++
			}
		}
		return n
	}
	for tries := 0; replaced() == 0; tries++ { // killed before it has begun, nothing has
		second = on(fmt.Sprintf("second%d.backup", tries))
		run("me", "replace", "--stolen", "--backup", second, "--old-backup", on("first.backup"))
		for !run("me", "sync") {
			if kills > 60 {
				t.Fatal("it does not come to an end")
			}
		}
	}
	lookInto(t, s, "laptop", func(_ *profile.Profile, st *stolenState) {
		if len(st.Tasks) != 0 || len(st.Former) != 0 {
			t.Fatalf("%d tasks are left after %d kills", len(st.Tasks), kills)
		}
	})
	t.Logf("killed %d times, %d reads of three fields meanwhile", kills, looks.Load())
	if kills == 0 || looks.Load() == 0 {
		t.Errorf("killed %d times, %d reads: nothing was tested", kills, looks.Load())
	}
	if n := replaced(); n != 1 {
		t.Fatalf("%d successions are in the log", n)
	}

	// Afterwards. All is there, once, and who may read may.
	for _, field := range []string{"own/a", "own/b", "own/c"} {
		if got := strings.TrimSpace(play(t, s, 0, "laptop", "me", "get", field).Stdout); got != field[4:]+"1" {
			t.Errorf("%s is %q", field, got)
		}
	}
	if out := play(t, s, 0, "laptop", "me", "grants").Stdout; strings.Count(out, "in force") != 4 {
		t.Errorf("grants:\n%s", out)
	}
	if out := play(t, s, 0, "laptop", "me", "verify").Stdout; strings.Contains(out, "DOES NOT AGREE") {
		t.Errorf("the log and the laptop:\n%s", out)
	}

	// The thief's phone does nothing any more.
	for _, args := range [][]string{{"me", "set", "own/a", "forged"}, {"me", "sync"}, {"me", "grant", "acme", "own/a"}} {
		if r := play(t, s, 3, "thief", args...); !strings.Contains(r.Stderr, "replaced") {
			t.Errorf("%q: %s", args, r.Stderr)
		}
	}
	play(t, s, 3, "thief", "me", "replace", "--lost-device", "--announce", "--backup", on("thief3.backup"))
	play(t, s, 4, "thief", "me", "revoke", "acme")
	play(t, s, 0, "laptop", "me", "set", "own/a", "a2")

	// What the thief has opens what it had, and nothing of what is published now.
	root, err := pre.ParseRoot(loot.Root)
	must(t, err)
	opens := func(leaves [][]byte) (n int) {
		for _, raw := range leaves {
			leaf, err := policies.ParseLeaf(raw)
			must(t, err)
			key, err := root.FieldKey(leaf.Slot)
			must(t, err)
			if key.Opens(&leaf) {
				n++
			}
		}
		return n
	}
	lookInto(t, s, "laptop", func(p *profile.Profile, st *stolenState) {
		if before, after := opens(loot.Leaves), opens(st.Leaves); before != 3 || after != 0 || len(st.Leaves) != 3 {
			t.Errorf("the stolen root opens %d of %d items of before, and %d of %d of now", before, len(loot.Leaves), after, len(st.Leaves))
		}
		for _, old := range loot.Leaves { // nor is a value under a DEK that it knew
			was, err := policies.ParseLeaf(old)
			must(t, err)
			if _, err := p.Item(was.CiphertextHash); err == nil {
				t.Errorf("the ciphertext of %s is what it was", was.Field)
			}
		}
	})
	stop()
	if err := <-ended; err != nil {
		t.Errorf("after %d reads: %v", looks.Load(), err)
	}
	close()
	if text, _ := readsOf(t, s, "globex", "own/b"); text != "b1" {
		t.Errorf("globex reads %q", text)
	}

	// Only the new backup makes a device. The old one says why it does not.
	twinKey(t, s, "phone", "tablet")
	twinKey(t, s, "phone", "shelf")
	play(t, s, 0, "tablet", "me", "restore", second)
	if got := strings.TrimSpace(play(t, s, 0, "tablet", "me", "get", "own/a").Stdout); got != "a2" {
		t.Errorf("the tablet has %q", got)
	}
	play(t, s, 0, "tablet", "me", "set", "own/b", "b2")
	if text, _ := readsOf(t, s, "acme", "own/b"); text != "b2" {
		t.Errorf("acme reads %q", text)
	}
	if r := play(t, s, 3, "shelf", "me", "restore", on("first.backup")); !strings.Contains(r.Stderr, "this device was replaced") {
		t.Errorf("the old backup: %s", r.Stderr)
	}
	if _, err := os.Lstat(filepath.Join(profiles, "shelf")); err == nil {
		t.Error("a profile that is of no use is left in the way of the backup that is")
	}

	// A business's safe of keys is stolen too. One order suspends all that it was granted; owners' devices renew it when they next look.
	play(t, s, 0, "globex", "biz", "backup", on("globex.backup"))
	must(t, os.CopyFS(filepath.Join(profiles, "burglar"), os.DirFS(filepath.Join(profiles, "globex"))))
	must(t, filepath.WalkDir(filepath.Join(profiles, "burglar"), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(path, map[bool]os.FileMode{true: 0o700, false: 0o600}[d.IsDir()])
	}))
	twinKey(t, s, "globex", "burglar")
	if text, _ := readsOf(t, s, "burglar", "own/b"); text != "b2" {
		t.Errorf("the burglar reads %q: nothing was stolen", text)
	}
	play(t, s, 1, "burglar", "biz", "replace", "--backup", on("burglar.backup")) // without the recovery key
	if out := play(t, s, 0, "globex", "biz", "replace", "--backup", on("globex2.backup"), "--old-backup", on("globex.backup")).Stdout; !strings.Contains(out, "1 customer has not renewed") {
		t.Errorf("biz replace: %s", out)
	}
	play(t, s, 3, "burglar", "biz", "read", "phone", "own/b")
	reads(t, s, "globex", "phone", "own/b", policies.CodeSuspended)
	if text, _ := readsOf(t, s, "acme", "own/b"); text != "b2" {
		t.Errorf("acme reads %q", text)
	}
	if out := play(t, s, 0, "tablet", "me", "inbox").Stderr; !strings.Contains(out, "replaced what it reads with") || strings.Contains(out, "WARNING") {
		t.Errorf("the tablet says: %q", out)
	}
	if text, _ := readsOf(t, s, "globex", "own/b"); text != "b2" {
		t.Errorf("globex reads %q", text)
	}
	if out := play(t, s, 0, "globex", "biz", "replace", "--progress").Stdout; !strings.HasPrefix(out, "0 customers") {
		t.Errorf("progress: %s", out)
	}
	play(t, s, 3, "burglar", "biz", "read", "phone", "own/b")

	// An auditor decides everything anew.
	dir := published(t, s, &devices.Insider{Vault: newMole(t, s).vault}, policies.OwnerID(owner))
	result, err := s.Sallyport(t.Context(), "auditor", "audit", "recheck", "--join", s.Join(), dir)
	must(t, err)
	if result.Code != 0 || !strings.Contains(result.Stdout, " 0 unjustified, 0 not checkable\n0 documents") {
		t.Errorf("exit code %d\n%s%s", result.Code, result.Stdout, result.Stderr)
	}
}

// readsOf reads a field of the person, whom the businesses call phone.
func readsOf(t *testing.T, s *stage.Stage, reader string, f policies.Field) (string, uint64) {
	t.Helper()
	return reads(t, s, reader, "phone", f, "")
}
