package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// A patch changes a source file of the product, for one build: the text from, which is in it once, becomes to.
type patch struct{ file, from, to string }

// corruptVault builds a vault of patched sources.
func corruptVault(t *testing.T, patches ...patch) stage.Binaries {
	t.Helper()
	root, err := stage.ModuleRoot()
	must(t, err)
	list := make([]stage.Patch, len(patches))
	for i, p := range patches {
		list[i] = stage.Patch{File: p.file, From: p.from, To: p.to}
	}
	bin, err := stage.BuildVault(t.Context(), root, t.TempDir(), binaries, list...)
	must(t, err)
	return bin
}

// publishing has the stage's vault publish its log beside the stage's folder.
func publishing(t *testing.T, o stage.Options) stage.Options {
	t.Helper()
	dir := t.TempDir()
	o.Dir = filepath.Join(dir, "stage")
	o.VaultConfig += fmt.Sprintf("\n[publish]\ndir = %q\n", filepath.Join(dir, "published"))
	return o
}

// published is the folder of a stage that is publishing, once all that the vault has logged until now is in it.
func published(t *testing.T, s *stage.Stage, insider *devices.Insider, owner policies.OwnerID) string {
	t.Helper()
	size := func(checkpoint string) int {
		lines := strings.Split(checkpoint, "\n")
		if len(lines) < 2 {
			return -1
		}
		n, err := strconv.Atoi(lines[1])
		must(t, err)
		return n
	}
	history, err := insider.Vault.History(t.Context(), owner, 0, 1)
	must(t, err)
	dir := filepath.Join(filepath.Dir(s.Dir()), "published")
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
		if err == nil && size(string(text)) >= size(history.Checkpoint) {
			return dir
		}
		if time.Now().After(end) {
			t.Fatalf("after a minute the published log has not reached the vault's: %v", err)
		}
	}
}
