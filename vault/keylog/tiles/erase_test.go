package tiles

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestErase: what the log erased is gone from every file of the folder, full and partial, now and after a crash at any step; what it did not erase is there, and
// the published log verifies as before.
func TestErase(t *testing.T) {
	const size, to = 700, 600
	m := &memory{size: size}
	whole := t.TempDir()
	must(t, publisher(t, config(t, whole, m)).Publish(t.Context()))
	if len(bodiesOf(t, whole, 10)) != 1 {
		t.Fatal("nothing is tested")
	}
	m.erased = to
	fault := errors.New("crash")
	steps := 0
	for stop := 1; ; stop++ {
		dir := filepath.Join(t.TempDir(), "published")
		must(t, os.CopyFS(dir, os.DirFS(whole)))
		must(t, os.WriteFile(filepath.Join(dir, filepath.FromSlash(BodiesPath(2, 100))), []byte("body 555 in a partial file that a crash left"), 0o600))
		left := stop
		cfg := config(t, dir, m)
		cfg.Erased = func() uint64 { return to }
		crashing := cfg
		crashing.fault = func(string) error {
			if left--; left == 0 {
				return fault
			}
			return nil
		}
		err := publisher(t, crashing).Publish(t.Context())
		if err != nil && !errors.Is(err, fault) {
			t.Fatal(err)
		}
		must(t, publisher(t, cfg).Publish(t.Context()))
		if n := check(t, dir); n != size {
			t.Fatalf("%d entries", n)
		}
		checkBodies(t, dir, m, size)
		for _, i := range []int{0, 10, 255, 256, 555, 598} {
			if names := bodiesOf(t, dir, i); names != nil {
				t.Errorf("after a crash at step %d the body of entry %d is in %q", stop, i, names)
			}
		}
		if err == nil {
			break
		}
		steps++
	}
	if steps < 8 {
		t.Errorf("only %d steps", steps)
	}
}

// bodiesOf are the files of a folder that have the body of an entry.
func bodiesOf(t *testing.T, dir string, i int) (names []string) {
	t.Helper()
	_, r := (&memory{}).record(int64(i))
	if r.Body == nil {
		t.Fatalf("entry %d has no body", i)
	}
	body := appendBody(nil, r.Body)
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, body) || bytes.HasPrefix(content, r.Body) {
			names = append(names, path)
		}
		return err
	}))
	return names
}
