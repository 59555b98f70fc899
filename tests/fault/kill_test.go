package fault

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/tests/stage"
)

var kills = flag.Int("kills", 15, "how often TestKills kills a daemon; kills of token workers come on top, one to four of these")

// TestKills kills vault, storefront or both, and besides now and then one token worker or all of them, at random moments under a mixed load, sometimes again while they start,
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
	killed := map[string]int{}
	strike := func(what string, strike func() ([]*stage.Daemon, error)) {
		w.demand("after killing "+what, w.round(strike))
		what, _, _ = strings.Cut(what, ",")
		killed[what]++
	}
	for round := range *kills {
		again, more := w.random.IntN(4) == 0, ""
		if again {
			more = ", again while starting"
		}
		switch k := w.random.IntN(8); {
		case k < 3:
			strike("the vault"+more, kill(again, s.Vault))
		case k < 5:
			strike("the storefront"+more, kill(again, s.Storefront))
		default:
			strike("both"+more, kill(again, s.Vault, s.Storefront))
		}
		switch round % 8 {
		case 3:
			strike("a token worker", workers(1))
		case 7:
			strike("all token workers", workers(100))
		}
		progress(t, round, *kills, w.summary())
	}
	t.Logf("killed %v; %s", killed, w.summary())
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
