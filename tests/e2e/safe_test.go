package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/tests/stage"
)

// TestSafe: a business's safe of what it keeps of each person, over real processes: two machines of one business, processes killed at any moment, two at once, and files
// that somebody changed or put back.
func TestSafe(t *testing.T) {
	t.Parallel()
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	file := func(machine, name string) string { return filepath.Join(s.Dir(), "profiles", machine, name) }
	stick := t.TempDir()
	copyKey := func(from, to string) {
		t.Helper()
		key, err := os.ReadFile(file(from, "") + ".key")
		must(t, err)
		must(t, os.WriteFile(file(to, "")+".key", key, 0o600))
	}
	customer := func(machine, name string) {
		t.Helper()
		play(t, s, exitDone, name, "me", "init")
		play(t, s, exitDone, name, "me", "set", "phone.mobile", "+49 30 "+name)
		connect(t, s, name, machine)
		play(t, s, exitDone, name, "me", "grant", machine, "phone.mobile")
	}
	wants := func(machine string, names ...string) {
		t.Helper()
		for _, name := range names {
			if r := play(t, s, exitDone, machine, "biz", "read", name, "phone.mobile"); r.Stdout != "+49 30 "+name+"\n" {
				t.Errorf("%s reads %q of %s", machine, r.Stdout, name)
			}
		}
	}
	step := func(name string, f func(t *testing.T)) {
		t.Helper()
		if !t.Run(name, f) {
			t.FailNow() // each step rests on the ones before
		}
	}

	step("a machine of the business meets a person; what it keeps is sealed", func(t *testing.T) {
		play(t, s, exitDone, "office", "biz", "init", "--name", "Shop")
		customer("office", "alice")
		wants("office", "alice")
		data, err := os.ReadFile(file("office", "safe"))
		must(t, err)
		if bytes.Contains(data, []byte("alice")) {
			t.Error("the safe is in the clear")
		}
	})

	step("a second machine is made from the first one's backup", func(t *testing.T) {
		backup := filepath.Join(stick, "office1")
		play(t, s, exitDone, "office", "biz", "backup", backup)
		copyKey("office", "depot")
		if r := play(t, s, exitDone, "depot", "biz", "restore", backup); !strings.Contains(r.Stderr, "not known here") {
			t.Errorf("a restored machine is not told what it may lack: %s", r.Stderr)
		}
		wants("depot", "alice")
	})

	step("both meet people by themselves, take in one another's backups, and then know the same", func(t *testing.T) {
		customer("office", "ben")
		customer("depot", "cara")
		play(t, s, exitDone, "office", "biz", "backup", filepath.Join(stick, "office2"))
		play(t, s, exitDone, "depot", "biz", "backup", filepath.Join(stick, "depot2"))
		play(t, s, exitDone, "office", "biz", "merge", filepath.Join(stick, "depot2"))
		play(t, s, exitDone, "depot", "biz", "merge", filepath.Join(stick, "office2"))
		for _, machine := range []string{"office", "depot"} {
			wants(machine, "alice", "ben", "cara")
			if n := len(met(t, s, machine)); n != 3 {
				t.Errorf("%s knows %d people", machine, n)
			}
		}
	})

	step("a backup from before takes nothing back", func(t *testing.T) {
		play(t, s, exitDone, "alice", "me", "set", "phone.mobile", "+49 30 alice")
		wants("office", "alice")
		before := met(t, s, "office")
		if r := play(t, s, exitDone, "office", "biz", "merge", filepath.Join(stick, "office1")); !strings.Contains(r.Stdout, "0 were new") {
			t.Errorf("%s", r.Stdout)
		}
		if after := met(t, s, "office"); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Error("a backup from before changed the safe")
		}
		play(t, s, exitLocked, "office", "biz", "restore", filepath.Join(stick, "office1"))
	})

	step("two processes at once: one waits its turn, and neither loses what the other wrote", func(t *testing.T) {
		var codes []string
		for i := range 4 {
			name := fmt.Sprint("dora", i)
			play(t, s, exitDone, name, "me", "init")
			codes = append(codes, code(t, s, name, "me"))
		}
		done := make([]bool, len(codes))
		var wg sync.WaitGroup
		for i := range codes {
			wg.Go(func() {
				for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline) && t.Context().Err() == nil; time.Sleep(20 * time.Millisecond) {
					r, err := s.Sallyport(t.Context(), "office", "biz", "connect", codes[i], "--as", fmt.Sprint("dora", i))
					if done[i] = err == nil && r.Code == exitDone; done[i] {
						return
					}
					if err != nil || r.Code != exitLocked {
						t.Errorf("%d %s %v", r.Code, r.Stderr, err)
						return
					}
				}
			})
		}
		wg.Wait()
		if n := len(met(t, s, "office")); n != 7 {
			t.Errorf("%d people after %v", n, done)
		}
	})

	step("kill -9 at any moment: the safe opens, and who was met is there", func(t *testing.T) {
		play(t, s, exitDone, "emil", "me", "init")
		address, last := code(t, s, "emil", "me"), -1
		for i := range 12 {
			ctx, kill := context.WithTimeout(t.Context(), time.Duration(20+15*i)*time.Millisecond)
			r, err := s.Sallyport(ctx, "office", "biz", "connect", address, "--as", fmt.Sprintf("emil%02d", i))
			kill()
			if err == nil && r.Code == exitDone {
				last = i
			}
			known, n := -1, 0
			for _, p := range met(t, s, "office") {
				if _, err := fmt.Sscanf(p.Alias, "emil%d", &known); err != nil {
					n++
				}
			}
			if n != 7 || known < last {
				t.Fatalf("after kill %d: %d others, and Emil is number %d, after %d was acknowledged", i, n, known, last)
			}
		}
		play(t, s, exitDone, "office", "biz", "connect", address, "--as", "emil")
		wants("office", "alice", "ben", "cara")
	})

	step("a bit that is changed is named, and so is a safe from before", func(t *testing.T) {
		path := file("office", "safe")
		whole, err := os.ReadFile(path)
		must(t, err)
		for _, at := range []int{30, len(whole) / 2, len(whole) - 1} {
			changed := bytes.Clone(whole)
			changed[at] ^= 4
			must(t, os.WriteFile(path, changed, 0o600))
			if r := play(t, s, exitLocked, "office", "biz", "contacts"); !strings.Contains(r.Stderr, "the safe") {
				t.Errorf("byte %d: %s", at, r.Stderr)
			}
		}
		must(t, os.WriteFile(path, whole, 0o600))
		customer("office", "fred")
		must(t, os.WriteFile(path, whole, 0o600))
		if r := play(t, s, exitLocked, "office", "biz", "contacts"); !strings.Contains(r.Stderr, "shorter than it was") {
			t.Errorf("a safe from before: %s", r.Stderr)
		}
		must(t, os.Remove(path))
		play(t, s, exitLocked, "office", "biz", "contacts")
	})

	step("the machine that lost its safe is made anew from the other's backup", func(t *testing.T) {
		play(t, s, exitDone, "depot", "biz", "backup", filepath.Join(stick, "depot3"))
		must(t, os.RemoveAll(file("office", "")))
		play(t, s, exitDone, "office", "biz", "restore", filepath.Join(stick, "depot3"))
		wants("office", "alice", "ben", "cara")
	})
}
