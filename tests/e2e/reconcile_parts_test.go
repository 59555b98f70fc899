package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
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

// corruptVault builds a vault of patched sources, which are not touched: the go command is given copies in their place.
func corruptVault(t *testing.T, patches ...patch) stage.Binaries {
	t.Helper()
	root, err := stage.ModuleRoot()
	must(t, err)
	dir := t.TempDir()
	sources := map[string]string{}
	for _, p := range patches {
		text, had := sources[p.file]
		if !had {
			data, err := os.ReadFile(filepath.Join(root, p.file))
			must(t, err)
			text = string(data)
		}
		if strings.Count(text, p.from) != 1 {
			t.Fatalf("%s has changed: what this test replaces is in it %d times:\n%s", p.file, strings.Count(text, p.from), p.from)
		}
		sources[p.file] = strings.Replace(text, p.from, p.to, 1)
	}
	replace := map[string]string{}
	for file, text := range sources {
		name := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		must(t, os.WriteFile(name, []byte(text), 0o600))
		replace[filepath.Join(root, file)] = name
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	bin := binaries
	bin.Vault = filepath.Join(dir, "sallyport-vault")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-overlay", filepath.Join(dir, "overlay.json"), "-o", bin.Vault, "./vault/cmd/sallyport-vault")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building a corrupt vault: %v\n%s", err, out)
	}
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
