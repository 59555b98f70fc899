package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies/evidence"
)

// asking answers queries from a log, most entries at a time.
func (l *testLog) asking(most uint64, asked *int) Query {
	return func(_ context.Context, from, count uint64, what string) ([]byte, error) {
		*asked++
		pieces := l.leaves
		if what == "bodies" {
			pieces = l.bodies
		}
		return join(what, pieces[from:from+min(count, most)]), nil
	}
}

// onDisk are the files of a folder by their names.
func onDisk(t *testing.T, dir string) map[string]string {
	out := map[string]string{}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		out[filepath.ToSlash(name)] = string(content)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestMirror: a mirror is the published form, byte for byte, however often it was interrupted on the way and from whichever size it goes on.
func TestMirror(t *testing.T) {
	full := newLog(newVault(1)).fill(1200)
	full.bodies[700] = nil
	for _, sizes := range [][]int{{1}, {255}, {256}, {257}, {1200}, {1, 2, 255, 256, 257, 512, 700, 1024, 1200}} {
		dir := filepath.Join(t.TempDir(), "mirror")
		for _, size := range sizes {
			l := full.fork(size)
			want := l.files()
			source := want.clone()
			maps.DeleteFunc(source, func(name string, _ []byte) bool { // which a vault does not give away
				return strings.HasPrefix(name, "tile/entries/") || strings.HasPrefix(name, "bodies/")
			})
			log := l.opened(t, source)
			asked := 0
			if err := log.Mirror(t.Context(), dir, source[vaultName], l.asking(100, &asked)); err != nil {
				t.Fatalf("%d of %v: %v", size, sizes, err)
			}
			got := onDisk(t, dir)
			for name, content := range want {
				if got[name] != string(content) && !strings.Contains(name, ".p/") {
					t.Errorf("%d of %v: %s has %d bytes, want %d", size, sizes, name, len(got[name]), len(content))
				}
			}
			mirrored := l.opened(t, Folder(dir))
			if s, err := mirrored.Verify(t.Context()); err != nil || s.Size != uint64(size) || s.Absent != 0 {
				t.Fatalf("%d of %v: %+v, %v", size, sizes, s, err)
			}
			before := asked
			if err := log.Mirror(t.Context(), dir, source[vaultName], l.asking(100, &asked)); err != nil || asked != before {
				t.Errorf("%d of %v, again: %v, %d queries", size, sizes, err, asked-before)
			}
		}
	}
}

// TestMirrorGoesOn: whatever was whole when a mirror was interrupted is not asked for again, and what a power cut tore is.
func TestMirrorGoesOn(t *testing.T) {
	l := newLog(newVault(1)).fill(3000)
	source := l.files()
	log := l.opened(t, source)
	dir, most := t.TempDir(), 0
	for stop := 1; ; stop++ {
		asked := 0
		ask := l.asking(150, &asked)
		err := log.Mirror(t.Context(), dir, source[vaultName], func(ctx context.Context, from, count uint64, what string) ([]byte, error) {
			if asked == 6 {
				return nil, context.Canceled
			}
			return ask(ctx, from, count, what)
		})
		if err == nil {
			break
		}
		if _, there := onDisk(t, dir)[checkpointName]; there || !errors.Is(err, context.Canceled) || stop > 30 {
			t.Fatalf("interrupted %d times: %v", stop, err)
		}
		most = max(most, stop)
		// Of what was there, the last bundle is torn.
		names := slices.Sorted(maps.Keys(onDisk(t, dir)))
		for _, name := range slices.Backward(names) {
			if strings.HasPrefix(name, "tile/entries/") && stop == 2 {
				if err := os.Truncate(filepath.Join(dir, name), 10); err != nil {
					t.Fatal(err)
				}
				break
			}
		}
	}
	if most < 5 {
		t.Errorf("interrupted %d times only", most)
	}
	mirrored := l.opened(t, Folder(dir))
	if s, err := mirrored.Verify(t.Context()); err != nil || s.Size != 3000 {
		t.Fatalf("%+v, %v", s, err)
	}
}

// TestMirrorOfALiar: whatever a vault answers, a folder gets a checkpoint only if all of it is what the token signed, and never one that it contradicts.
func TestMirrorOfALiar(t *testing.T) {
	l := newLog(newVault(1)).fill(600)
	source := l.files()
	asked := 0
	honest := l.asking(1000, &asked)
	for _, c := range []struct {
		name string
		lie  func(what string, pieces [][]byte) [][]byte
	}{
		{"another entry", func(what string, p [][]byte) [][]byte {
			if what == "entries" {
				p[7] = l.leaves[8]
			}
			return p
		}},
		{"another entry with its body", func(what string, p [][]byte) [][]byte {
			if p[7] = l.leaves[8]; what == "bodies" {
				p[7] = l.bodies[8]
			}
			return p
		}},
		{"an entry of another form", func(what string, p [][]byte) [][]byte {
			if what == "entries" {
				p[7] = p[7][:20]
			}
			return p
		}},
		{"the body of another entry", func(what string, p [][]byte) [][]byte {
			if what == "bodies" {
				p[7] = p[8]
			}
			return p
		}},
		{"a body of another form", func(what string, p [][]byte) [][]byte {
			if what == "bodies" {
				p[7] = p[7][:11]
			}
			return p
		}},
		{"nothing", func(string, [][]byte) [][]byte { return nil }},
		{"more than was asked for", func(_ string, p [][]byte) [][]byte { return append(p, p[0]) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			ask := func(ctx context.Context, from, count uint64, what string) ([]byte, error) {
				answer, err := honest(ctx, from, count, what)
				if err != nil {
					return nil, err
				}
				pieces, err := split(what, answer)
				return join(what, c.lie(what, pieces)), err
			}
			err := l.opened(t, source).Mirror(t.Context(), dir, source[vaultName], ask)
			if _, there := onDisk(t, dir)[checkpointName]; there || !errors.Is(err, ErrDamaged) {
				t.Errorf("%v; checkpoint there: %v", err, there)
			}
		})
	}
	// Cut in the middle of an entry.
	err := l.opened(t, source).Mirror(t.Context(), t.TempDir(), source[vaultName], func(ctx context.Context, from, count uint64, what string) ([]byte, error) {
		answer, err := honest(ctx, from, count, what)
		return answer[:len(answer)-1], err
	})
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("an answer that is cut: %v", err)
	}

	// A folder with an earlier state: a fork, and an older log, are found before anything is written.
	dir := t.TempDir()
	if err := l.opened(t, source).Mirror(t.Context(), dir, source[vaultName], honest); err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprint(onDisk(t, dir))
	for name, other := range map[string]*testLog{"a fork": l.fork(500), "an older log": l.fork(400)} {
		if name == "a fork" {
			other.add(testTime.Add(time.Hour), evidence.Entry{Kind: evidence.EntryStop}, &evidence.Details{}, nil)
			for len(other.leaves) < 700 {
				other.add(testTime.Add(time.Hour), evidence.Entry{Kind: evidence.EntryStart}, &evidence.Details{}, nil)
			}
		}
		files := other.files()
		err := other.opened(t, files).Mirror(t.Context(), dir, files[vaultName], other.asking(1000, &asked))
		if !errors.Is(err, ErrDamaged) || fmt.Sprint(onDisk(t, dir)) != before {
			t.Errorf("%s: %v", name, err)
		}
	}
	// And a folder whose own tiles were changed is not built upon.
	tile := filepath.Join(dir, filepath.FromSlash(TilePath(0, 2, 600-512)))
	content := must(os.ReadFile(tile))
	if err := os.WriteFile(tile, bytes.Repeat([]byte{1}, len(content)), 0o600); err != nil {
		t.Fatal(err)
	}
	bigger := l.fork(600).fill(700)
	files := bigger.files()
	if err := bigger.opened(t, files).Mirror(t.Context(), dir, files[vaultName], bigger.asking(1000, &asked)); !errors.Is(err, ErrDamaged) {
		t.Errorf("changed tiles: %v", err)
	}
}

func FuzzAnswer(f *testing.F) {
	l := newLog(newVault(1)).fill(3)
	l.bodies[1] = nil
	f.Add("entries", join("entries", l.leaves))
	f.Add("bodies", join("bodies", l.bodies))
	f.Fuzz(func(t *testing.T, what string, answer []byte) {
		if what != "bodies" {
			what = "entries"
		}
		pieces, err := split(what, answer)
		if err == nil && !bytes.Equal(join(what, pieces), answer) {
			t.Errorf("%x is %x again", answer, join(what, pieces))
		}
	})
}
