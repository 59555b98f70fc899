package pkcs11

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// TestUnfinishedObjects: what a crash left of a key and of a signer state that were being made is gone after Clean, and nothing else is. testdata/unfinished.object is SoftHSM's file of an import that was killed.
func TestUnfinishedObjects(t *testing.T) {
	p, public := ceremony(t)
	token := open(t, p, User, 1)
	id := newID()
	if err := token.Import(t.Context(), id, OAEPDirect, wrappedKey(t, public, newKey(t))); err != nil {
		t.Fatal(err)
	}
	if err := token.SaveState(t.Context(), []byte("state")); err != nil {
		t.Fatal(err)
	}
	err := token.do(t.Context(), token.slow, "", func(s cryptoki.Session) error {
		_, err := token.module.CreateObject(s, []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_DATA), cryptoki.Bool(cryptoki.CKA_TOKEN, true)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	token.Close()
	folders, err := filepath.Glob(filepath.Join(p.Folder, "*"))
	if err != nil || len(folders) != 1 {
		t.Fatalf("token folders: %q, %v", folders, err)
	}
	file, err := os.ReadFile("testdata/unfinished.object")
	if err != nil {
		t.Fatal(err)
	}
	// As it was found, and as it is a few writes earlier: with its class and nothing else, and with nothing at all but a count.
	lengths := []int{len(file), 32, 8}
	unfinished := func(i int) string {
		return filepath.Join(folders[0], fmt.Sprintf("fdf1a0d%d-918e-1668-cad7-f6ddf878e2ce.object", i))
	}
	for i, n := range lengths {
		lock := strings.TrimSuffix(unfinished(i), "object") + "lock" // without it SoftHSM overlooks the object
		if err := errors.Join(os.WriteFile(unfinished(i), file[:n], 0o600), os.WriteFile(lock, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	count := func() int {
		files, err := filepath.Glob(filepath.Join(folders[0], "*.object"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	before := count()
	workers := pool(t, p, nil)
	if _, err := workers.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if keys, err := workers.Keys(t.Context()); err != nil || !slices.Equal(keys, []KeyID{id}) {
		t.Errorf("keys %v, %v", keys, err)
	}
	if n, want := count(), before-1-len(lengths); n != want {
		t.Errorf("%d objects of %d are left, want %d", n, before, want)
	}
	for i, n := range lengths {
		if _, err := os.Stat(unfinished(i)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the unfinished key of %d bytes is still there: %v", n, err)
		}
	}
	if state, err := workers.LoadState(t.Context()); err != nil || string(state) != "state" {
		t.Errorf("the state is %q, %v", state, err)
	}
	if _, err := workers.Sign(t.Context(), []byte("message")); err != nil {
		t.Error(err)
	}
}

// TestAllWorkersDie: whoever asks for a signature, an import or a destruction while all workers die at once gets it from those that follow. A failed
// signature would stop the key-use log, and a failed import would tell the owner that the key is bad.
func TestAllWorkersDie(t *testing.T) {
	p, public := ceremony(t)
	workers := pool(t, p, nil)
	stop := make(chan struct{})
	var all sync.WaitGroup
	var imports atomic.Int64
	loop := func(f func() error) {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if err := f(); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	loop(func() error { _, err := workers.Sign(t.Context(), []byte("message")); return err })
	loop(func() error {
		id := newID()
		if _, err := workers.Import(t.Context(), id, OAEPDirect, wrappedKey(t, public, newKey(t))); err != nil {
			return fmt.Errorf("import: %w", err)
		}
		imports.Add(1)
		if err := workers.Destroy(t.Context(), id); !errors.Is(err, ErrKeyMissing) { // a worker that died may have done it
			return err
		}
		return nil
	})
	seen := map[int]bool{}
	for range 4 {
		var pids []int
		for len(pids) < 2 { // until both places are filled with new ones
			time.Sleep(5 * time.Millisecond)
			pids = pids[:0]
			workers.mu.Lock()
			for _, w := range workers.workers {
				if pid := w.cmd.Process.Pid; !seen[pid] {
					pids = append(pids, pid)
				}
			}
			workers.mu.Unlock()
		}
		// An import that failed before is done again once the next but one is done, however busy the machine is.
		for want := imports.Load() + 2; imports.Load() < want && !t.Failed(); {
			time.Sleep(5 * time.Millisecond)
		}
		for _, pid := range pids {
			seen[pid] = true
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	close(stop)
	all.Wait()
	if keys, err := workers.Keys(t.Context()); err != nil || len(keys) != 0 {
		t.Errorf("keys %v, %v", keys, err)
	}
}
