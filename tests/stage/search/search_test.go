package search

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"golang.org/x/sys/unix"
)

// TestSearchFinds: the search that proves absence must find what is there, in every form and at every alignment.
func TestSearchFinds(t *testing.T) {
	value := "Kopernikusstraße 27a"
	wide := func(order func(u uint16) []byte) (out []byte) {
		for _, u := range utf16.Encode([]rune(value)) {
			out = append(out, order(u)...)
		}
		return out
	}
	planted := map[string][]byte{
		"plain":  []byte("xx" + value + "yy"),
		"hex":    []byte(hex.EncodeToString([]byte("a" + value))),
		"wide":   wide(func(u uint16) []byte { return []byte{byte(u), byte(u >> 8)} }),
		"b64-0":  []byte(base64.StdEncoding.EncodeToString([]byte(value + "tail"))),
		"b64-1":  []byte(base64.StdEncoding.EncodeToString([]byte("1" + value + "tail"))),
		"b64-2":  []byte(base64.StdEncoding.EncodeToString([]byte("22" + value))),
		"list":   []byte(fmt.Sprint([]byte(value))),
		"b64url": []byte(base64.URLEncoding.EncodeToString([]byte("333" + value))),
	}
	for name, content := range planted {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "deep"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		found, read, err := Folders([]Marker{{"the street", []byte(value)}}, dir)
		if err != nil || len(found) == 0 || read != int64(len(content)) {
			t.Errorf("%s: found %v, read %d, error %v", name, found, read, err)
		}
		if found, _, _ := Folders([]Marker{{"another", []byte("Hämeentie 13")}}, dir); len(found) != 0 {
			t.Errorf("%s: found what is not there: %v", name, found)
		}
	}
}

// TestSearchFindsLoggedBytes: a key in a log is quoted or listed, not written as it is.
func TestSearchFindsLoggedBytes(t *testing.T) {
	key := []byte{0x00, 0x9c, 'k', '"', 0xff, 0x0a, 0xe2, 0x82, 0xac, 0x7f}
	for name, content := range map[string]string{
		"slog":    fmt.Sprintf("msg=derived x=%q", key),
		"fmt":     fmt.Sprint("derived ", key),
		"in JSON": strings.ReplaceAll(fmt.Sprint(key), " ", ","),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "log"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if found, _, err := Folders([]Marker{{"the key", key}}, dir); err != nil || len(found) != 1 {
			t.Errorf("%s: found %v, error %v", name, found, err)
		}
	}
}

// TestSearchFindsInSparseFiles: what stands far behind, alone between zeros, or at the edge of what was written.
func TestSearchFindsInSparseFiles(t *testing.T) {
	value := []byte("Kopernikusstraße 27a")
	var wide []byte // UTF-16BE: begins with a zero, which is not written here
	for _, u := range utf16.Encode([]rune(string(value))) {
		wide = append(wide, byte(u>>8), byte(u))
	}
	const block = 64 << 10
	for _, at := range []int64{0, block - 7, 5 * block, 9*block + 1, 16*block - int64(len(wide))} {
		path := filepath.Join(t.TempDir(), "sparse")
		f, err := os.Create(path)
		if err == nil {
			err = errors.Join(f.Truncate(16*block), func() error { _, err := f.WriteAt(wide[1:], at+1); return err }(), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		found, read, err := Folders([]Marker{{"the street", value}}, filepath.Dir(path))
		if err != nil || !slices.ContainsFunc(found, func(f Finding) bool { return f.Offset == at }) || read != 16*block {
			t.Errorf("at %d: found %v, read %d, error %v", at, found, read, err)
		}
	}
}

// TestSearchFindsInMappedFiles: what a database has written into a file that it maps into its memory, and that no disk has seen yet.
func TestSearchFindsInMappedFiles(t *testing.T) {
	value := []byte("Kopernikusstraße 27a")
	const size, at = 8 << 20, 5<<20 + 11
	path := filepath.Join(t.TempDir(), "mapped")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	memory, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory)
	copy(memory[at:], value)
	if found, _, err := Folders([]Marker{{"the street", value}}, filepath.Dir(path)); err != nil || len(found) != 1 || found[0].Offset != at {
		t.Errorf("found %v, error %v", found, err)
	}
}

// TestSqueeze: all that was written is there, in one piece where it was, and what was not is gone.
func TestSqueeze(t *testing.T) {
	from, into := t.TempDir(), filepath.Join(t.TempDir(), "new")
	value := bytes.Repeat([]byte("Kopernikusstraße 27a "), 500)
	for name, at := range map[string]int64{"first": 0, "across": 5<<20 - 77} {
		f, err := os.Create(filepath.Join(from, name))
		if err == nil {
			err = errors.Join(f.Truncate(32<<20), func() error { _, err := f.WriteAt(value, at); return err }(), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(from, "zeros"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Squeeze(into, from); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(into, "*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, error %v", files, err)
	}
	for _, file := range files {
		if data, err := os.ReadFile(file); err != nil || !bytes.Contains(data, value) || len(data) > len(value)+2*4096 {
			t.Errorf("%s: %d bytes for %d, error %v", file, len(data), len(value), err)
		}
	}
}

// TestUnfold: what lies in base64, in either alphabet, up to three deep, and between other things.
func TestUnfold(t *testing.T) {
	value := []byte("Kopernikusstraße 27a?>~") // with digits in which the alphabets differ
	for depth := range 5 {
		for name, enc := range map[string]*base64.Encoding{"std": base64.StdEncoding, "raw": base64.RawStdEncoding, "url": base64.RawURLEncoding} {
			from, into := t.TempDir(), filepath.Join(t.TempDir(), "new")
			text := value
			for range depth {
				text = []byte(`{"v":"` + enc.EncodeToString(text) + `"}`)
			}
			if err := os.WriteFile(filepath.Join(from, "file"), text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := Unfold(into, from); err != nil {
				t.Fatal(err)
			}
			found, _, err := Folders([]Marker{{"the street", value}}, into)
			if seen := slices.ContainsFunc(found, func(f Finding) bool { return f.Form == "plain" }); err != nil || seen != (depth >= 1 && depth <= 3) {
				t.Errorf("%s, %d deep: found %v, error %v", name, depth, found, err)
			}
		}
	}
}
