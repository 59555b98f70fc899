package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestEmptiedValueLog: somebody with the disk empties a file of the value log, any of them, which the start takes for one that Badger was removing. No
// record of it is then data, or said not to be there, also when the file's number, and the very places of its values, are given to others later.
func TestEmptiedValueLog(t *testing.T) {
	const records, size = 40, 200 << 10
	whole := t.TempDir()
	open := func(dir string) *DB {
		t.Helper()
		db, err := Open(Options{Dir: dir, Reserve: 8 << 20}) // small tables, and so several files
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	key := func(prefix string, i int) []byte { return fmt.Appendf(nil, "%s%02d", prefix, i) }
	value := func(prefix string, i int) []byte { return bytes.Repeat(key(prefix, i), size/3) }
	write := func(db *DB, prefix string) {
		t.Helper()
		for i := range records {
			if err := db.Commit(t.Context(), Change{Key: key(prefix, i), Version: 1, Value: value(prefix, i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	db := open(whole)
	write(db, "a")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(whole, "badger", "*.vlog"))
	if err != nil || len(logs) < 3 {
		t.Fatalf("%d files of the value log, %v: nothing is tested", len(logs), err)
	}
	lost := 0
	for _, name := range logs {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, keyFile), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, "badger", filepath.Base(name)), 0); err != nil {
			t.Fatal(err)
		}
		db := open(dir)
		check := func(when string) (missing int) {
			t.Helper()
			for i := range records {
				r, err := db.Get(t.Context(), key("a", i))
				switch {
				case err != nil && !errors.Is(err, ErrNotFound):
					missing++
				case err != nil || !bytes.Equal(r.Value, value("a", i)):
					t.Errorf("%s emptied, %s, record %d: %d bytes, %v", filepath.Base(name), when, i, len(r.Value), err)
				}
			}
			if all, err := db.Scan(t.Context(), []byte("a"), nil, records); (err == nil) != (missing == 0) {
				t.Errorf("%s emptied, %s: %d records cannot be read, and a scan gives %d, %v", filepath.Base(name), when, missing, len(all), err)
			}
			return missing
		}
		before := check("at once")
		lost += before
		write(db, "b")
		if after := check("with others in its place"); after != before {
			t.Errorf("%s: %d records could not be read, and now %d", filepath.Base(name), before, after)
		}
		for i := range records {
			if r, err := db.Get(t.Context(), key("b", i)); err != nil || !bytes.Equal(r.Value, value("b", i)) {
				t.Errorf("%s emptied: new record %d: %v", filepath.Base(name), i, err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if lost != records {
		t.Errorf("emptying each file in turn lost %d of %d records", lost, records)
	}
}
