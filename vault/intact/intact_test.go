package intact

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
	badgeroptions "github.com/dgraph-io/badger/v4/options"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func options(dir string) badger.Options {
	return badger.DefaultOptions(dir).WithLogger(nil).WithSyncWrites(true).WithCompression(badgeroptions.None).WithMemTableSize(1 << 20).WithValueLogFileSize(2 << 20).
		WithValueThreshold(4 << 10).WithBaseTableSize(1 << 20)
}

func value(i int) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 10+i*i%5000) }

// write writes values, small and large, into a database.
func write(t testing.TB, db *badger.DB, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		must(t, db.Update(func(txn *badger.Txn) error { return txn.Set(fmt.Appendf(nil, "key %d", i), value(i)) }))
	}
}

// killed makes a database as a killed process leaves it: tables, a table in memory, a value log that is longer than full.
func killed(t testing.TB) string {
	t.Helper()
	dir, copied := filepath.Join(t.TempDir(), "db"), filepath.Join(t.TempDir(), "db")
	db, err := badger.Open(options(dir))
	must(t, err)
	write(t, db, 0, 50)
	must(t, db.Close())
	db, err = badger.Open(options(dir))
	must(t, err)
	write(t, db, 50, 100)
	must(t, os.CopyFS(copied, os.DirFS(dir)))
	must(t, db.Close())
	return copied
}

// holds demands that Badger finds all values but those excused.
func holds(t testing.TB, dir string, excused ...int) {
	t.Helper()
	db, err := badger.Open(options(dir))
	must(t, err)
	defer db.Close()
	must(t, db.View(func(txn *badger.Txn) error {
		for i := range 100 {
			if slices.Contains(excused, i) {
				continue
			}
			item, err := txn.Get(fmt.Appendf(nil, "key %d", i))
			if err != nil {
				return fmt.Errorf("key %d: %w", i, err)
			}
			if err := item.Value(func(b []byte) error {
				if !bytes.Equal(b, value(i)) {
					return fmt.Errorf("key %d has another value", i)
				}
				return nil
			}); err != nil {
				return fmt.Errorf("key %d: %w", i, err)
			}
		}
		return nil
	}))
}

func edit(t testing.TB, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, change(b), 0o600))
}

func one(t testing.TB, dir, pattern string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no %s: %v", pattern, err)
	}
	return paths[len(paths)-1]
}

// flipAt changes one bit where a text lies.
func flipAt(text string) func([]byte) []byte {
	return func(b []byte) []byte {
		at := bytes.Index(b, []byte(text))
		b[at] ^= 4
		return b
	}
}

func TestWhole(t *testing.T) {
	dir := killed(t)
	for range 2 {
		torn, err := Prepare(dir)
		if err != nil || len(torn) != 0 {
			t.Fatalf("a whole database: %v, %v", torn, err)
		}
	}
	holds(t, dir)
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		if torn, err := Prepare(dir); err != nil || len(torn) != 0 {
			t.Fatalf("no database: %v, %v", torn, err)
		}
	}
}

// TestEmpty: what a power cut leaves of a log that was just made keeps nobody from opening the database.
func TestEmpty(t *testing.T) {
	dir := killed(t)
	for _, name := range []string{"000070.mem", "000070.vlog", "000071.vlog"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	if torn, err := Prepare(dir); err != nil || len(torn) != 0 {
		t.Errorf("torn %v, error %v", torn, err)
	}
	holds(t, dir)
	// One in the middle held something once. Badger empties a file before it removes it, so that is no reason not to open; it is named. Of a
	// value that was in it Badger gives nothing without an error, which no database of ours takes for one: each value is authenticated.
	dir = killed(t)
	emptied := one(t, dir, "*.vlog")
	must(t, os.Truncate(emptied, 0))
	must(t, os.WriteFile(filepath.Join(dir, "000070.vlog"), make([]byte, logHead), 0o600))
	torn, err := Prepare(dir)
	if err != nil || len(torn) != 1 || torn[0].File != emptied {
		t.Fatalf("torn %v, error %v; want %s", torn, err, emptied)
	}
	db, err := badger.Open(options(dir))
	must(t, err)
	defer db.Close()
	missing := 0
	must(t, db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			err := it.Item().Value(func(b []byte) error {
				if len(b) == 0 {
					missing++
				}
				return nil
			})
			if err != nil {
				missing++
			}
		}
		return nil
	}))
	if missing == 0 {
		t.Error("no value is found missing")
	}
}

func TestInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	db, err := badger.Open(options(dir))
	must(t, err)
	defer db.Close()
	if _, err := Prepare(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Fatalf("a database in use: %v", err)
	}
}

// TestDamage: each is a change after which Badger dies, or goes on without a word.
func TestDamage(t *testing.T) {
	for name, row := range map[string]struct {
		file   string
		change func([]byte) []byte
	}{
		"a key in a table":               {"*.sst", flipAt("key")},
		"the last byte of a table":       {"*.sst", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
		"the index of a table":           {"*.sst", func(b []byte) []byte { b[len(b)-40] ^= 1; return b }},
		"half a table":                   {"*.sst", func(b []byte) []byte { return b[:len(b)/2] }},
		"an empty table":                 {"*.sst", func([]byte) []byte { return nil }},
		"a transaction in the middle":    {"*.mem", flipAt("key 60")},
		"the head of an early entry":     {"*.mem", func(b []byte) []byte { b[logHead+2] ^= 1; return b }},
		"the registry's text":            {"KEYREGISTRY", func(b []byte) []byte { b[20] ^= 1; return b }},
		"a longer registry":              {"KEYREGISTRY", func(b []byte) []byte { return append(b, 1) }},
		"the head of a value log":        {"*.vlog", func(b []byte) []byte { b[3] ^= 1; return b }},
		"the head of a table in memory":  {"*.mem", func(b []byte) []byte { b[7] ^= 1; return b }},
		"the manifest's magic":           {"MANIFEST", func(b []byte) []byte { b[0] ^= 1; return b }},
		"a change in the manifest":       {"MANIFEST", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
		"the length of the last change":  {"MANIFEST", lengthen(1)},
		"the length of the first change": {"MANIFEST", lengthen(0)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := killed(t)
			path := one(t, dir, row.file)
			edit(t, path, row.change)
			for range 2 {
				_, err := Prepare(dir)
				if damage := new(DamageError); !errors.As(err, &damage) || damage.File != path {
					t.Fatalf("got %v, want %s named", err, path)
				}
			}
		})
	}
}

// lengthen makes the length of a change in the manifest so long that it does not end in the file.
func lengthen(which int) func([]byte) []byte {
	return func(b []byte) []byte {
		var changes []int
		for at := 8; at+8 <= len(b); at += 8 + int(binary.BigEndian.Uint32(b[at:])) {
			changes = append(changes, at)
		}
		at := changes[0]
		if which > 0 {
			at = changes[len(changes)-1]
		}
		// The bit that makes it longer than the rest, and not longer than the file.
		for bit := range 8 {
			if n := int(b[at+3]) ^ 1<<bit; n > len(b)-at-8 && n <= len(b) {
				b[at+3] = byte(n)
				return b
			}
		}
		b[at+2] ^= 1
		return b
	}
}

// TestTorn: what a crash leaves opens, is reported, and nothing that was whole is lost.
func TestTorn(t *testing.T) {
	for name, row := range map[string]struct {
		file    string
		change  func([]byte) []byte
		excused []int
	}{
		"half an entry in memory": {"*.mem", func(b []byte) []byte {
			end := len(bytes.TrimRight(b, "\x00"))
			b[end-3] ^= 0xff
			return b
		}, []int{99}},
		"half a change of the manifest": {"MANIFEST", func(b []byte) []byte { return append(b, 0, 0, 0, 40, 1, 2, 3, 4, 5, 6) }, nil},
		"half a length in the manifest": {"MANIFEST", func(b []byte) []byte { return append(b, 0, 0, 0) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := killed(t)
			path := one(t, dir, row.file)
			edit(t, path, row.change)
			torn, err := Prepare(dir)
			if err != nil || len(torn) != 1 || torn[0].File != path {
				t.Fatalf("got %v, %v; want %s torn", torn, err, path)
			}
			holds(t, dir, row.excused...)
		})
	}
}

// TestValueLog: a value that is not whole in the newest file costs that value, and none behind it.
func TestValueLog(t *testing.T) {
	dir := killed(t)
	path := one(t, dir, "*.vlog")
	var lost int
	edit(t, path, func(b []byte) []byte {
		e, whole := parseEntry(b[logHead:])
		if !whole {
			t.Fatal("no value at the beginning")
		}
		if _, err := fmt.Sscanf(string(e.key), "key %d", &lost); err != nil {
			t.Fatal(err)
		}
		b[logHead+40] ^= 1
		return b
	})
	torn, err := Prepare(dir)
	if err != nil || len(torn) != 1 || torn[0].File != path || torn[0].Offset != logHead {
		t.Fatalf("got %v, %v", torn, err)
	}
	holds(t, dir, lost)
	found, err := Values(t.Context(), dir)
	if err != nil || len(found) != 1 || found[0].File != path {
		t.Fatalf("looking for it: %v, %v", found, err)
	}
	torn, err = Prepare(dir) // it is not the newest any more
	if err != nil || len(torn) != 0 {
		t.Fatalf("again: %v, %v", torn, err)
	}
	holds(t, dir, lost)
}

func frame(kind byte, key, value []byte) []byte {
	b := []byte{kind, 0}
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = binary.AppendUvarint(b, uint64(len(value)))
	b = append(append(append(b, 0), key...), value...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func stamped(key string, stamp uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(key), math.MaxUint64-stamp)
}

func FuzzLog(f *testing.F) {
	b := make([]byte, logHead)
	for i := range uint64(3) {
		b = append(b, frame(bitTxn, stamped("key", i+1), []byte("value"))...)
		b = append(b, frame(bitFinTxn, stamped("!", i+1), fmt.Append(nil, i+1))...)
	}
	f.Add(b)
	f.Add(append(b, 1, 2, 3))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		checkMemory("f", b)
		checkValues("f", b)
		if e, whole := parseEntry(b); whole && !bytes.HasPrefix(b, frame(e.kind, e.key, e.value)[:1]) {
			t.Fatal("another kind")
		}
	})
}

func FuzzTable(f *testing.F) {
	dir := killed(f)
	b, err := os.ReadFile(one(f, dir, "*.sst"))
	must(f, err)
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := checkTable("f", b); err != nil && !errors.As(err, new(*DamageError)) {
			t.Fatal(err)
		}
	})
}

func FuzzManifest(f *testing.F) {
	b, err := os.ReadFile(filepath.Join(killed(f), "MANIFEST"))
	must(f, err)
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, end, err := parseManifest("f", b)
		if err != nil && !errors.As(err, new(*DamageError)) || end > len(b) {
			t.Fatalf("ends at %d of %d, %v", end, len(b), err)
		}
	})
}
