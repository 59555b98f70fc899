package e2e

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/vault/audit"
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

// published writes the stage's log as it is published, up to a checkpoint that its vault gives to an owner.
func published(t *testing.T, s *stage.Stage, insider *devices.Insider, owner policies.OwnerID) string {
	t.Helper()
	history, err := insider.Vault.History(t.Context(), owner, 0, 1)
	must(t, err)
	size, err := strconv.Atoi(strings.Split(history.Checkpoint, "\n")[1])
	must(t, err)
	dir := t.TempDir()
	write := func(name string, data []byte) {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	write("checkpoint", []byte(history.Checkpoint))
	document, err := os.ReadFile(filepath.Join(s.Ceremony(), "vault.json"))
	must(t, err)
	write("vault", document)
	entries := devices.Journal(t, s)[:size]
	var hashes []tlog.Hash
	stored := tlog.HashReaderFunc(func(indexes []int64) (out []tlog.Hash, err error) {
		for _, i := range indexes {
			out = append(out, hashes[i])
		}
		return out, nil
	})
	var bundle, bodies []byte
	for i, e := range entries {
		more, err := tlog.StoredHashes(int64(i), e.Leaf, stored)
		must(t, err)
		hashes = append(hashes, more...)
		bundle = append(binary.BigEndian.AppendUint16(bundle, uint16(len(e.Leaf))), e.Leaf...)
		bodies = append(binary.BigEndian.AppendUint32(bodies, uint32(len(e.Body))), e.Body...)
		if width := i%audit.TileWidth + 1; width == audit.TileWidth || i == size-1 {
			n := int64(i / audit.TileWidth)
			write(audit.EntriesPath(n, width), bundle)
			write(audit.BodiesPath(n, width), bodies)
			bundle, bodies = nil, nil
		}
	}
	for _, tile := range tlog.NewTiles(8, 0, int64(size)) {
		data, err := tlog.ReadTileData(tile, stored)
		must(t, err)
		write(audit.TilePath(tile.L, tile.N, tile.W), data)
	}
	return dir
}
