//go:build root

package fault

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/tests/stage"
)

var everyCall = flag.Bool("every-call", false, "TestFailingCalls injects every error into every call, not one into each")

var onlyCall = flag.String("only-call", "", "TestFailingCalls takes only those lines in whose `who call file` this occurs")

// failing is a system call that is made to fail while everybody lives.
type failing struct {
	who   string // vault, storefront, or worker: each of the vault's token workers
	call  string
	file  string // of the vault's folder, or of the token's for a worker; empty: any
	error string // EFBIG is the kernel's own: until a write has met it, no file of these processes grows beyond so many bytes as when says
	when  int    // which call of each thread; 0: the first; of aNewObject this one and each seventh after it, until one is met
	says  string // in the storefront's health from then on until a restart; empty: it stays well
}

// aNewObject tells an object of the token that is made, whose name nobody knows before, in what strace writes of the call.
const aNewObject = `.object", O_RDWR|O_CREAT`

const (
	unknown  = "outcome unknown"
	broken   = "the store takes no writes"
	unsealed = "the file of sealed keys could not be written"
)

// callBound is how long it may take until a call is made: the vault's database is written once a minute.
const callBound = 80 * time.Second

// failingCalls are the calls by which one publication, grant, read, revocation or rotation becomes durable, found with strace -f -y. Badger writes
// through mapped files, so msync is all there is of it; its other calls (fsync, ftruncate, renameat, unlinkat) come with starts, see startingCalls, and with
// files that have grown to tens of megabytes, which these are not. SoftHSM's library makes and destroys objects with openat, ftruncate, write and unlink, syncs and renames nothing, and the
// worker syncs the token's folder. strace picks calls by a path that it is told before, or by their number, and a new object's path is drawn by SoftHSM, which writes to it between writes to the
// worker's pipe: so a write to an object fails by a limit of the files' size, as in TestShortWrites, and the opening of one by failing each seventh openat until it is met.
// Without its index, or with a token that did not do it, the vault goes on.
func failingCalls() (out []failing) {
	for _, f := range []failing{
		{"vault", "pwrite64", "log/journal-*", "EIO", 0, unknown},
		{"vault", "fdatasync", "log/journal-*", "EIO", 0, unknown},
		{"vault", "pwrite64", "log/hashes", "EIO", 0, unknown},
		{"vault", "pwrite64", "log/offsets", "EIO", 0, unknown},
		{"vault", "pwrite64", "log/checkpoint.new", "EIO", 0, ""}, // once a minute, and tried again the next
		{"vault", "pwrite64", "state/signer-state", "EIO", 0, unknown},
		{"vault", "fdatasync", "state/signer-state", "EIO", 0, unknown},
		{"vault", "pwrite64", "keys/sealed-keys.1", "EIO", 0, unsealed},
		{"vault", "fdatasync", "keys/sealed-keys.1", "EIO", 0, unsealed},
		{"vault", "msync", "", "EIO", 0, ""},
		{"worker", "syncfs", "", "EIO", 0, ""},
		{"worker", "ftruncate", "", "EIO", 0, ""},
		{"worker", "ftruncate", "", "EIO", 30, ""}, // one key takes 33
		{"worker", "write", "*/generation", "EIO", 0, ""},
		{"worker", "unlink", "", "EIO", 0, ""},
		{"worker", "unlink", "", "EIO", 2, ""}, // of an object's lock
		{"worker", "openat", aNewObject, "EIO", 3, ""},
		{"worker", "write", "", "EFBIG", 8, ""}, // of a key of some 825 bytes
		{"worker", "write", "", "EFBIG", 400, ""},
		{"worker", "write", "", "EFBIG", 800, ""},
		{"storefront", "msync", "", "EIO", 0, broken},
	} {
		out = append(out, f)
		if *everyCall && f.error != "EFBIG" {
			f.error = "ENOSPC"
			out = append(out, f)
		}
	}
	return out
}

// inject makes calls of processes fail, once in each thread, until it is told to stop; it waits until one has failed.
func inject(ctx context.Context, f failing, files []string, log string, pids ...int) (stop func(), failed bool, err error) {
	limit := func(size uint64) error {
		for _, pid := range pids {
			if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: unix.RLIM_INFINITY}, nil); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
		return nil
	}
	args := []string{"-f", "-qq", "-o", log, "-e", "trace=" + f.call}
	met := []string{"EFBIG"}
	if f.error != "EFBIG" {
		met = []string{"INJECTED"}
		when := strconv.Itoa(max(f.when, 1))
		if f.file == aNewObject {
			met, when = append(met, aNewObject), when+"+7"
		}
		args = append(args, "-e", fmt.Sprintf("inject=%s:error=%s:when=%s", f.call, f.error, when))
	}
	for _, pid := range pids {
		args = append(args, "-p", strconv.Itoa(pid))
	}
	for _, file := range files {
		args = append(args, "-P", file)
	}
	cmd := exec.CommandContext(ctx, "strace", args...)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return nil, false, fmt.Errorf("strace is needed (Debian: strace): %w", err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // it lets go of the processes
		select {
		case <-exited:
		case <-time.After(10 * time.Second): // strace 6.1 waits for ever for a process that was killed meanwhile, of whose threads it has not heard yet
			_ = cmd.Process.Kill() // then the kernel lets go of them
			<-exited
		}
		if f.error == "EFBIG" {
			_ = limit(unix.RLIM_INFINITY) // who cannot be told is gone
		}
	}
	if f.error == "EFBIG" {
		if err := limit(uint64(f.when)); err != nil {
			return stop, false, err
		}
	}
	for deadline := time.Now().Add(callBound); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		data, err := os.ReadFile(log)
		if err == nil && slices.ContainsFunc(strings.Split(string(data), "\n"), func(line string) bool {
			return !slices.ContainsFunc(met, func(m string) bool { return !strings.Contains(line, m) })
		}) {
			return stop, true, nil
		}
		select {
		case <-exited:
			return stop, false, fmt.Errorf("strace ended: %s", said.String())
		default:
		}
	}
	return stop, false, nil
}

// TestFailingCalls makes each call fail by which something becomes durable, once, and then succeed again, under load. Who is told that something is
// done finds it done. What failed is not tried again on top of an unknown state: the daemon says why it stops, and a plain restart, after which what
// failed may turn out to be there after all, puts everything right.
func TestFailingCalls(t *testing.T) {
	seed := seed(t)
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	w := newFullWorld(t, s, seed)
	for _, h := range w.households {
		h.excuses = append(h.excuses, policies.CodeLogStopped, policies.CodeImport)
	}
	for i, f := range failingCalls() {
		if !strings.Contains(f.who+" "+f.call+" "+f.file, *onlyCall) {
			continue
		}
		what := strings.TrimSpace(fmt.Sprintf("%s %d of the %s fails with %s %s", f.call, max(f.when, 1), f.who, f.error, f.file))
		switch {
		case f.error == "EFBIG":
			what = fmt.Sprintf("%s of the %s fails beyond byte %d of an object", f.call, f.who, f.when)
		case f.file == aNewObject:
			what = fmt.Sprintf("%s of the %s fails with %s as it makes an object", f.call, f.who, f.error)
		}
		begin := time.Now()
		w.demand(what, w.round(func() (down []*stage.Daemon, err error) {
			var files []string
			if f.file != "" && f.file != aNewObject {
				folder := s.VaultData()
				if f.who == "worker" {
					folder = s.TokenFolder()
				}
				path := filepath.Join(folder, f.file)
				if files, err = filepath.Glob(path); err == nil && len(files) == 0 && strings.HasSuffix(path, ".new") {
					files = []string{path} // it is made then, and renamed
				}
				if err != nil || len(files) == 0 {
					return nil, fmt.Errorf("no file %s: %w", f.file, err)
				}
			}
			daemon := s.Vault
			if f.who == "storefront" {
				daemon = s.Storefront
			}
			pids := []int{daemon.PID()}
			if f.who == "worker" {
				pids = children(t, s.Vault.PID())
			}
			stop, failed, err := inject(t.Context(), f, files, filepath.Join(t.TempDir(), fmt.Sprintf("strace-%d", i)), pids...)
			if err != nil {
				return nil, err
			}
			stop()
			if !failed {
				return nil, fmt.Errorf("nobody made the call: nothing was tested")
			}
			// It failed once and would succeed now. Nobody may rely on that.
			time.Sleep(300 * time.Millisecond)
			h, err := w.health(t.Context())
			// A call that fails in all workers at once leaves none to sign the log's root, which stops it.
			unsigned := err == nil && f.who == "worker" && strings.Contains(h.Reason, unknown)
			if f.says == "" && !unsigned && !well(h, err) || f.says != "" && (err != nil || h.Status != "degraded" || !strings.Contains(h.Reason, f.says)) {
				return nil, fmt.Errorf("the health is %+v, %v; want %q", h, err, f.says)
			}
			daemon.Kill()
			return []*stage.Daemon{daemon}, nil
		}))
		t.Logf("%s: %s", what, time.Since(begin).Round(10*time.Millisecond))
	}
	t.Log(w.summary())
}
