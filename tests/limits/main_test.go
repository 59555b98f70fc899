package limits

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/tests/stage"
)

var measure = flag.Duration("measure", 0, "how long each measurement lasts; 0: tests only, with no figures worth having")

// binaries are the five commands, built once for all tests.
var binaries stage.Binaries

// begun is what the stages of one test leave to those of the next.
var begun stage.Reuse

func TestMain(m *testing.M) {
	os.Exit(func() int {
		flag.Parse()
		if err := flag.Set("test.parallel", "64"); err != nil { // tests that run beside one another here wait, they do not compute
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		root, err := stage.ModuleRoot()
		if err == nil {
			var dir string
			if dir, err = os.MkdirTemp("", "sallyport-limits-"); err == nil {
				defer os.RemoveAll(dir)
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

// openStage opens a stage and closes it at the test's end.
func openStage(t *testing.T, o stage.Options) *stage.Stage {
	t.Helper()
	o.Bin, o.Dir = binaries, filepath.Join(t.TempDir(), "stage")
	o.Reuse = &begun
	s, err := stage.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing the stage: %v", err)
		}
	})
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lasting is how long something is done: a moment, or as long as is to be measured.
func lasting(moment time.Duration) time.Duration {
	return max(moment, *measure)
}
