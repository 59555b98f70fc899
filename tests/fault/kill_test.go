package fault

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/tests/stage"
)

var kills = flag.Int("kills", 15, "how often TestKills kills")

// TestKills kills vault, storefront, both, one token worker or all of them at random moments under a mixed load, sometimes again while they start,
// and starts them with no repair in between. No acknowledged write is lost, no value was given without its record, no revocation is undone, what was
// half done is finished or undone, and nothing stays in the token that no grant stands for.
func TestKills(t *testing.T) {
	seed := seed(t)
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	w := newWorld(t, s, seed)
	kill := func(again bool, daemons ...*stage.Daemon) func() ([]*stage.Daemon, error) {
		moment := time.Duration(w.random.IntN(700)) * time.Millisecond
		pause := time.Duration(w.random.IntN(50)) * time.Millisecond
		return func() ([]*stage.Daemon, error) {
			for _, d := range daemons {
				d.Kill()
			}
			time.Sleep(pause)
			if !again {
				return daemons, nil
			}
			for _, d := range daemons {
				done := make(chan struct{})
				go func() { defer close(done); _ = d.Start(t.Context()) }() // an error if it is killed before it listens
				time.Sleep(moment)
				for killed := false; !killed; {
					d.Kill()
					select {
					case <-done:
						d.Kill()
						killed = true
					case <-time.After(time.Millisecond): // it was not a process yet
					}
				}
			}
			return daemons, nil
		}
	}
	workers := func(n int) func() ([]*stage.Daemon, error) {
		return func() ([]*stage.Daemon, error) {
			found := children(t, s.Vault.PID())
			if len(found) == 0 {
				t.Fatal("the vault has no token workers")
			}
			w.random.Shuffle(len(found), func(a, b int) { found[a], found[b] = found[b], found[a] })
			for _, pid := range found[:min(n, len(found))] {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			return nil, nil
		}
	}
	for round := range *kills {
		var what string
		var strike func() ([]*stage.Daemon, error)
		again := w.random.IntN(4) == 0
		switch k := w.random.IntN(10); {
		case k < 3:
			what, strike = "after killing the vault", kill(again, s.Vault)
		case k < 5:
			what, strike = "after killing the storefront", kill(again, s.Storefront)
		case k < 8:
			what, strike = "after killing both", kill(again, s.Vault, s.Storefront)
		case k < 9:
			what, strike = "after killing a token worker", workers(1)
		default:
			what, strike = "after killing all token workers", workers(100)
		}
		if again {
			what += ", again while starting"
		}
		w.demand(what, w.round(strike))
		progress(t, round, *kills, w.summary())
	}
	t.Log(w.summary())
}

// children are the processes that a process has started and that still live.
func children(t *testing.T, pid int) (out []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	must(t, err)
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it is over
		}
		// PID (COMMAND) STATE PPID; the command may hold anything.
		fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
		if len(fields) > 1 && string(fields[1]) == strconv.Itoa(pid) && string(fields[0]) != "Z" {
			child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			must(t, err)
			out = append(out, child)
		}
	}
	return out
}
