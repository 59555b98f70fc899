package pkcs11

import (
	"crypto/ecdh"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onDisk is what a process finds in the token that has never seen it before.
func onDisk(t *testing.T, p Profile, id KeyID, key *ecdh.PrivateKey) (state string, works bool) {
	t.Helper()
	token := open(t, p, User, 1)
	defer token.Close()
	got, err := token.LoadState(t.Context())
	if err != nil {
		t.Errorf("a new process: %v", err)
	}
	keys, err := token.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, want := request(t, id, key)
	if result := token.Derive(t.Context(), []DeriveRequest{r})[0]; result.Err == nil {
		if result.X != want {
			t.Error("the key derives something else")
		}
		works = true
	} else if slices.Contains(keys, id) {
		t.Errorf("the key is listed and does not derive: %v", result.Err)
	}
	return string(got), works
}

// TestWritesThatFail: a token whose files take no more than so many bytes, as on a full disk: SoftHSM says OK to whoever makes an object there, and
// remembers it whole. No state and no key is acknowledged that another process does not find, and no older state is lost over it. If
// only one worker is concerned, another does the work.
func TestWritesThatFail(t *testing.T) {
	for _, c := range []struct {
		workers int
		bytes   uint64
		all     bool
	}{
		{1, 200, false}, {2, 0, false}, {2, 340, false},
		{2, 340, true}, // not less: SoftHSM writes 320 bytes of its own at a login
	} {
		workers, n, all := c.workers, c.bytes, c.all
		t.Run(fmt.Sprintf("%d workers, %d bytes, all %t", workers, n, all), func(t *testing.T) {
			p, public := ceremony(t)
			pl := pool(t, p, func(c *PoolConfig) { c.Workers, c.SlowTimeout = workers, 20*time.Second })
			if err := pl.SaveState(t.Context(), []byte("old")); err != nil {
				t.Fatal(err)
			}
			if all {
				_ = pl.Close()
				pl = pool(t, p, func(c *PoolConfig) {
					c.Workers, c.SlowTimeout = workers, 20*time.Second
					c.Env = append(c.Env, fmt.Sprintf("SALLYPORT_TEST_FILE_SIZE=%d", n))
				})
			}
			limit := func() {
				pl.mu.Lock()
				defer pl.mu.Unlock()
				next := pl.workers[(pl.turn+1)%len(pl.workers)] // who will be asked
				if err := unix.Prlimit(next.cmd.Process.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: n}, nil); err != nil {
					t.Fatal(err)
				}
			}
			if !all {
				limit()
			}
			saved := pl.SaveState(t.Context(), []byte("new"))
			if !all {
				limit()
			}
			id, key := newID(), newKey(t)
			_, imported := pl.Import(t.Context(), id, OAEPDirect, wrappedKey(t, public, key))
			if imported == nil {
				r, want := request(t, id, key)
				for range 4 {
					if result := pl.Derive(t.Context(), []DeriveRequest{r})[0]; result.Err != nil || result.X != want {
						t.Errorf("derive: %v", result.Err)
					}
				}
			}
			_ = pl.Close()
			// With no byte at all C_UnwrapKey fails, and says no more than to a bad key.
			if !all && (saved != nil || imported != nil && n > 0) {
				t.Errorf("with one bad worker: save %v, import %v", saved, imported)
			}
			if all && imported == nil {
				t.Errorf("with no good worker: save %v, import %v", saved, imported)
			}
			state, works := onDisk(t, p, id, key)
			if want := map[bool]string{true: "new", false: "old"}[saved == nil]; state != want {
				t.Errorf("SaveState said %v; a new process finds %q", saved, state)
			}
			if works != (imported == nil) {
				t.Errorf("Import said %v; that a new process can use the key is %t", imported, works)
			}
		})
	}
}

// TestFullFolder: on a disk with less than the reserve nothing is made, and the answer says why.
func TestFullFolder(t *testing.T) {
	p := softHSM(t)
	if err := p.room(1 << 62); !errors.Is(err, ErrTokenFull) {
		t.Errorf("room for everything: %v", err)
	}
	if err := p.room(keyReserve); err != nil {
		t.Errorf("room for a key: %v", err)
	}
	p.Sync = SyncNone
	if err := p.room(1 << 62); err != nil {
		t.Errorf("without a folder: %v", err)
	}
}
