package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/tests/stage"
)

// binaries are the six commands, built once for all tests.
var binaries stage.Binaries

// begun is what the stages of one test leave to those of the next.
var begun stage.Reuse

func TestMain(m *testing.M) {
	os.Exit(func() int {
		root, err := stage.ModuleRoot()
		if err == nil {
			var dir string
			if dir, err = os.MkdirTemp("", "sallyport-e2e-"); err == nil {
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

// openStage opens a stage and closes it at the test's end. Bin of the options is set here and, if it is empty, Dir.
func openStage(t *testing.T, o stage.Options) *stage.Stage {
	t.Helper()
	return openStageOf(t, binaries, o)
}

// openStageOf is openStage with other commands.
func openStageOf(t *testing.T, bin stage.Binaries, o stage.Options) *stage.Stage {
	t.Helper()
	o.Reuse = &begun
	o.Bin = bin
	const reserve = "reserve = 67108864\n" // and so tables in memory and files of a size that tests fill; the model and the quickstart play the defaults
	o.VaultMembers, o.StorefrontMembers = reserve+o.VaultMembers, reserve+o.StorefrontMembers
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "stage")
	}
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

// play runs the sallyport command with a profile and demands an exit code.
func play(t *testing.T, s *stage.Stage, code int, profile string, args ...string) stage.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	r, err := s.Sallyport(ctx, profile, args...)
	if err != nil {
		t.Fatal(err)
	}
	if r.Code != code {
		t.Fatalf("sallyport %q as %s: exit code %d, want %d\n%s%s", args, profile, r.Code, code, r.Stdout, r.Stderr)
	}
	return r
}

// await polls until a condition holds; what describes it.
func await(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %s: not %s", within, what)
		}
	}
}
