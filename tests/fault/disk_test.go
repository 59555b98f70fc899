//go:build root

package fault

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// Disks of 20 MB, and what the daemons are told to leave of them.
const (
	diskSize          = 20 << 20
	vaultReserve      = 6 << 20
	storefrontReserve = 8 << 20
)

var everyDisk = flag.Bool("every-disk", false, "TestFullDisks fills all disks in memory, not the token's only")

// fullWorld is a world whose storefront can be asked for its health.
type fullWorld struct {
	*world
	web *http.Client
}

func newFullWorld(t *testing.T, s *stage.Stage, seed uint64) *fullWorld {
	t.Helper()
	w := &fullWorld{world: newWorld(t, s, seed), web: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: devices.Roots(t, s)},
	}}}
	t.Cleanup(w.web.CloseIdleConnections)
	return w
}

// smallDisks are the folders, what the disk is made of, and what is said where it is full.
var smallDisks = []struct {
	name, folder, made string
	reserve            int64
	daemon             func(*stage.Stage) *stage.Daemon
	says               string // the reason in the storefront's health, empty if nobody is stopped
	log                bool   // owners and readers are told too, by policies.CodeLogFull
}{
	{"key-use log", "vault/log", "ext4", vaultReserve, vaultDaemon, "no space left but the reserve", true},
	{"signer state", "vault/state", "tmpfs", vaultReserve, vaultDaemon, "no space left but the reserve", true},
	{"vault's database", "vault/database", "ext4", vaultReserve, vaultDaemon, "", false},
	{"token", "token/tokens", "tmpfs", 1 << 20, vaultDaemon, "", false},
	{"storefront's data", "storefront/data", "ext4", storefrontReserve, storefrontDaemon, "the disk is nearly full", false},
	{"storefront's data in memory", "storefront/data", "tmpfs", storefrontReserve, storefrontDaemon, "the disk is nearly full", false},
}

func vaultDaemon(s *stage.Stage) *stage.Daemon      { return s.Vault }
func storefrontDaemon(s *stage.Stage) *stage.Daemon { return s.Storefront }

// newSmallDisk mounts a disk of 20 MB at a folder.
func newSmallDisk(t *testing.T, base, made, at string) {
	t.Helper()
	if made == "ext4" {
		newLoop(t, filepath.Join(base, "image"), at, diskSize)
		return
	}
	must(t, os.MkdirAll(at, 0o700))
	must(t, unix.Mount("tmpfs", at, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", diskSize)))
}

// filler is a foreign file that takes the room on a disk.
type filler struct{ dir, path string }

// leave makes the filler so large that so many bytes are left, as far as there were more.
func (f *filler) leave(left int64) error {
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	chunk := make([]byte, 64<<10)
	for i := range chunk {
		chunk[i] = 0xa5
	}
	for {
		var s unix.Statfs_t
		if err := unix.Statfs(f.dir, &s); err != nil {
			return err
		}
		room := int64(s.Bavail)*s.Bsize - left
		if room <= 0 {
			return nil
		}
		if _, err := file.Write(chunk[:min(room, int64(len(chunk)))]); errors.Is(err, unix.ENOSPC) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (f *filler) remove() error {
	if err := os.Remove(f.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	d, err := os.Open(f.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd())) // ext4 gives room back when it has written down that it did
}

// health is what the storefront says of itself and of the vault; an error if it does not answer.
func (w *fullWorld) health(ctx context.Context) (h api.Health, err error) {
	r, err := http.NewRequestWithContext(ctx, "GET", w.s.StorefrontURL()+"/v1/health", nil)
	if err != nil {
		return h, err
	}
	resp, err := w.web.Do(r)
	if err != nil {
		return h, err
	}
	defer resp.Body.Close()
	return h, json.UnmarshalRead(resp.Body, &h)
}

// awaitHealth polls until the health is as wanted.
func (w *fullWorld) awaitHealth(within time.Duration, holds func(api.Health, error) bool) error {
	var h api.Health
	var err error
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		h, err = w.health(ctx)
		cancel()
		if holds(h, err) {
			return nil
		}
	}
	return fmt.Errorf("after %s the health is %+v, %v", within, h, err)
}

func well(h api.Health, err error) bool { return err == nil && h.Status == "ok" }

// TestFullDisks fills disks of 20 MB under load: to the reserve, of which the load itself takes the last part; to the last byte at one stroke; and to
// the last byte before a start. Who needs the disk refuses early and says why, or dies and serves again after a plain restart; nothing that was
// acknowledged is lost; and everything goes on by itself when there is room.
func TestFullDisks(t *testing.T) {
	seed := seed(t)
	for i, disk := range smallDisks {
		if !*everyDisk && disk.made == "tmpfs" && disk.name != "token" {
			continue
		}
		t.Run(strings.ReplaceAll(disk.name, " ", "-"), func(t *testing.T) {
			base := loopFolder(t)
			dir := filepath.Join(base, "stage")
			at := filepath.Join(dir, filepath.FromSlash(disk.folder))
			newSmallDisk(t, base, disk.made, at)
			s := openStage(t, stage.Options{
				Dir: dir, VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits,
				VaultMembers: fmt.Sprintf("reserve = %d\n", vaultReserve), StorefrontMembers: fmt.Sprintf("reserve = %d\n", storefrontReserve),
			})
			w := newFullWorld(t, s, seed+uint64(i))
			for _, h := range w.households {
				h.excuses = append(h.excuses, policies.CodeLogStopped, policies.CodeLogFull)
			}
			fill := &filler{at, filepath.Join(at, "foreign file")}
			daemon := disk.daemon(s)
			taken := false // the reserve too
			room := func() ([]*stage.Daemon, error) {
				if err := fill.remove(); err != nil {
					return nil, err
				}
				if !daemon.Running() {
					t.Logf("the %s died of the full disk, and is started again", daemon.Name)
					return []*stage.Daemon{daemon}, nil
				}
				// By itself; but a write that was cut short by somebody who took the reserve too stops the log, as every write error does, until a start has verified it.
				stopped := false
				err := w.awaitHealth(10*time.Second, func(h api.Health, err error) bool {
					stopped = err == nil && taken && strings.Contains(h.Reason, "outcome unknown")
					return stopped || well(h, err)
				})
				if stopped {
					t.Logf("a write of the %s met the full disk, and it is started again", daemon.Name)
					daemon.Kill()
					return []*stage.Daemon{daemon}, nil
				}
				if err != nil {
					return nil, fmt.Errorf("with room again: %w", err)
				}
				return nil, nil
			}

			w.demand("at the reserve", w.round(func() ([]*stage.Daemon, error) {
				if err := fill.leave(disk.reserve + 200<<10); err != nil {
					return nil, err
				}
				time.Sleep(time.Second) // the load takes what it can
				if err := fill.leave(max(disk.reserve-1, 0)); err != nil {
					return nil, err
				}
				if disk.says != "" {
					err := w.awaitHealth(10*time.Second, func(h api.Health, err error) bool {
						return err == nil && h.Status == "degraded" && strings.Contains(h.Reason, disk.says)
					})
					if err != nil {
						return nil, fmt.Errorf("at the reserve: %w", err)
					}
				} else {
					time.Sleep(2 * time.Second)
				}
				time.Sleep(500 * time.Millisecond)
				if !daemon.Running() {
					return nil, fmt.Errorf("the %s died with %d bytes left", daemon.Name, disk.reserve)
				}
				var told int64
				for _, h := range w.households {
					told += h.full.Load()
				}
				if disk.log && told == 0 {
					return nil, errors.New("nobody was told that the log's disk is full")
				}
				return room()
			}))
			taken = true
			w.demand("full to the last byte", w.round(func() ([]*stage.Daemon, error) {
				if err := fill.leave(0); err != nil {
					return nil, err
				}
				time.Sleep(1500 * time.Millisecond)
				return room()
			}))
			w.demand("full to the last byte before the start", w.round(func() ([]*stage.Daemon, error) {
				if err := fill.leave(0); err != nil {
					return nil, err
				}
				daemon.Kill()
				var starting sync.WaitGroup
				var startErr error
				starting.Go(func() { startErr = daemon.Start(t.Context()) })
				starting.Wait()
				switch {
				case startErr == nil:
					t.Logf("the %s starts on a full disk", daemon.Name)
				case !strings.Contains(startErr.Error(), "space") && !strings.Contains(startErr.Error(), "full") && !strings.Contains(startErr.Error(), "CKR_"):
					return nil, fmt.Errorf("on a full disk, without a reason that is named: %w", startErr)
				default:
					said := strings.TrimSpace(startErr.Error())
					t.Logf("the %s does not start on a full disk: %s", daemon.Name, said[strings.LastIndexByte(said, '\n')+1:])
				}
				return room()
			}))
			t.Log(w.summary())
		})
	}
}
