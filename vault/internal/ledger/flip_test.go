package ledger

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/tests/fault/bits"
)

// flipChild is set for a child process that reads databases, a folder a line, and says what it found.
const flipChild = "LEDGER_TEST_FLIP"

func serveFlips() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		s := newState()
		x := testIndex(lines.Text())
		var log bytes.Buffer
		x.log = slog.New(slog.NewTextHandler(&log, nil))
		_, err := x.load(s)
		x.drop() // before the answer: the folder is removed then
		switch {
		case errors.Is(err, errUseless):
			fmt.Printf("useless: %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
		case err != nil:
			fmt.Printf("failed: %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
		default:
			fmt.Printf("state %s\t%s\n", digest(s), strings.ReplaceAll(log.String(), "\n", " "))
		}
	}
}

// digest is a hash of what a state says.
func digest(s *State) string {
	h := sha256.New()
	for _, id := range slices.SortedFunc(maps.Keys(s.identities), func(a, b policies.IdentityID) int { return slices.Compare(a[:], b[:]) }) {
		h.Write(s.encode(identityKey(id)))
		h.Write(s.encode(string(kindOwned) + string(id[:]) + page(0)))
	}
	fmt.Fprint(h, s.next, len(s.identities), len(s.documents), s.keys)
	return fmt.Sprintf("%x", h.Sum(nil))
}

// TestFlippedBits flips one bit after the other in the files of a database that was closed and of one that was killed.
func TestFlippedBits(t *testing.T) {
	n, random := bits.Number(t, 120)
	judgeChanges(t, n, func(f, _ *bits.Folder, dir string) (what, kind, file string) {
		flip := f.Draw(random)
		must(t, f.Put(dir, flip))
		kind = filepath.Ext(flip.File)
		if kind == "" {
			kind = flip.File
		}
		return flip.String(), kind, filepath.Join(dir, flip.File)
	})
}

// TestTampered changes more than a bit: runs of bytes and files are cut, deleted, doubled, exchanged, or put back to what they were two flushes before.
func TestTampered(t *testing.T) {
	n, random := bits.Number(t, 60)
	judgeChanges(t, n, func(f, older *bits.Folder, dir string) (what, kind, file string) {
		must(t, f.Restore(dir))
		if random.IntN(20) == 0 {
			must(t, older.Restore(dir))
			return "all of it as it was", "older", ""
		}
		var did []string
		for want := 1 + random.IntN(2); len(did) < want; {
			what, err := f.Tamper(dir, random, older)
			must(t, err)
			if what != "nothing" {
				did = append(did, what)
			}
		}
		return strings.Join(did, "; "), "tampered", ""
	})
}

// judgeChanges has a database changed that was closed, and one that was killed, and read. It is read as the log's state, or as that of an earlier flush
// from which the log makes it whole, or found useless, with the file named if one was changed; it never kills the process twice.
func judgeChanges(t *testing.T, n int, change func(f, older *bits.Folder, dir string) (what, kind, file string)) {
	log := newLog(t)
	base := filepath.Join(t.TempDir(), "db")
	keep := func() *bits.Folder {
		f, err := bits.Keep(base)
		must(t, err)
		return f
	}
	add := func(seed byte) {
		for i := range byte(10) {
			r := identityRecord(t, seed+i)
			_, _, err := log.Append(t.Context(), r.Seal())
			must(t, err)
		}
	}
	states, truth := map[string]*bits.Folder{}, map[string]string{}
	add(10)
	l := open(t, log, base)
	before := "state " + digest(l.state) // of the flush before the last
	must(t, l.Close())
	older := keep()
	add(30)
	l = open(t, log, base)
	states["killed"], truth["killed"] = keep(), "state "+digest(l.state)
	must(t, l.Close())
	states["closed"], truth["closed"] = keep(), truth["killed"]

	var child *exec.Cmd
	var stderr bytes.Buffer
	var in *os.File
	var out *bufio.Reader
	ask := func(dir string) string {
		if child == nil {
			r, w, err := os.Pipe()
			must(t, err)
			child, in = exec.Command(os.Args[0]), w
			child.Stdin, child.Env = r, append(os.Environ(), flipChild+"=1")
			pipe, err := child.StdoutPipe()
			must(t, err)
			out = bufio.NewReader(pipe)
			stderr.Reset()
			child.Stderr = &stderr
			must(t, child.Start())
			r.Close()
		}
		started := child
		watchdog := time.AfterFunc(20*time.Second, func() { started.Process.Signal(syscall.SIGQUIT) })
		defer watchdog.Stop()
		fmt.Fprintln(in, dir)
		line, err := out.ReadString('\n')
		if err != nil {
			in.Close()
			child.Wait()
			child = nil
			if !watchdog.Stop() {
				t.Fatalf("%s: reading the database hangs:\n%.20000s", dir, stderr.String())
			}
			return "died"
		}
		return strings.TrimSpace(line)
	}
	defer func() {
		if child != nil {
			in.Close()
			child.Wait()
		}
	}()
	var dir string
	aside := t.TempDir()
	classes := map[string]int{}
	for i := range n {
		state := []string{"closed", "killed"}[i%2]
		os.RemoveAll(dir) // a folder of its own for each: a Badger that failed to open may still be at work in the last one
		dir = filepath.Join(aside, fmt.Sprint(i))
		what, kind, file := change(states[state], older, dir)
		said, logged, _ := strings.Cut(ask(dir), "\t")
		class := ""
		switch {
		case said == truth[state]:
			class = "harmless"
		case (state == "killed" || kind == "older" || kind == "tampered") && said == before: // the last flush is not whole, so it never happened, and the log is read from the one before
			class = "the flush before"
			if !strings.Contains(logged, file) {
				t.Errorf("%s, %s: the flush before is read, and no file is named: %s", state, what, logged)
			}
			l := open(t, log, dir)
			if got := "state " + digest(l.state); got != truth[state] {
				t.Errorf("%s, %s: with the log it is %s, want %s", state, what, got, truth[state])
			}
			must(t, l.Close())
		case strings.HasPrefix(said, "useless: "):
			class = "detected, file named"
			if !strings.Contains(said, file) {
				class = "detected, no file named"
				t.Errorf("%s, %s: %s", state, what, said)
			}
		case said == "died":
			class = "died, detected"
			if again := ask(dir); !strings.HasPrefix(again, "useless: ") || !strings.Contains(again, file) {
				t.Errorf("%s, %s: it died and then said %q", state, what, again)
			}
		default:
			t.Errorf("%s, %s: %s, want %s", state, what, said, truth[state])
		}
		classes[fmt.Sprintf("%s %-12s %s", state, kind, class)]++
	}
	// What is useless is made anew.
	rebuilt := open(t, log, dir)
	defer rebuilt.Close()
	if got := "state " + digest(rebuilt.state); got != truth["closed"] {
		t.Errorf("made anew it is %s, want %s", got, truth["closed"])
	}
	for _, c := range slices.Sorted(maps.Keys(classes)) {
		t.Logf("%5d %s", classes[c], c)
	}
}
