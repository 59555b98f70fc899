package fault

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/sallyport/sallyport/tests/stage"
)

// binaries are the five commands, built once for all tests.
var binaries stage.Binaries

// begun is what the stages of one test leave to those of the next.
var begun stage.Reuse

var seedFlag = flag.Uint64("seed", 0, "what randomness begins with; 0: SALLYPORT_SEED, or the time")

// Limits of a stage whose subject is not rates.
const (
	storefrontLimits = `
[limits]
open_rate = 100000.0
open_burst = 100000
login_rate = 100000.0
login_burst = 100000
document_burst = 100000
`
	ownersLimits = "per_second = 100000.0\nburst = 100000\n\n[limits]\nrefusals = 100000.0\nrefusal_burst = 100000\nrefusals_overall = 100000.0\n"
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		flag.Parse()
		if status, ok := becomeUnsynced(); ok {
			return status
		}
		dir, err := os.MkdirTemp("", "sallyport-fault-")
		if err == nil {
			defer os.RemoveAll(dir)
			var root string
			if root, err = stage.ModuleRoot(); err == nil {
				binaries, err = stage.Build(context.Background(), root, filepath.Join(dir, "bin"))
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// seed is what a test's randomness begins with.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := *seedFlag
	if text := os.Getenv("SALLYPORT_SEED"); n == 0 && text != "" {
		var err error
		n, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", n)
	return n
}

// openStage opens a stage and closes it at the test's end. Bin of the options is set here if it is empty, and so is Dir.
func openStage(t *testing.T, o stage.Options) *stage.Stage {
	t.Helper()
	if o.Bin == (stage.Binaries{}) {
		o.Bin = binaries
	}
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "stage")
	}
	o.Reuse = &begun
	s, err := stage.Open(t.Context(), o)
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !t.Failed() {
			t.Errorf("closing the stage: %v", err)
		}
	})
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// progress tells whoever waits for a long run how far it is.
func progress(t *testing.T, round, rounds int, text string) {
	if rounds > 30 && round%10 == 0 && round > 0 {
		fmt.Fprintf(os.Stderr, "%s  %-32s %d of %d: %s\n", time.Now().Format("15:04:05"), t.Name(), round, rounds, text)
	}
}
