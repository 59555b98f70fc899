package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

func openTest(t testing.TB, dir string) *DB {
	t.Helper()
	db, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// raw reads and writes what Badger holds, as somebody with the folder could.
func raw(t testing.TB, db *DB, key []byte) []byte {
	t.Helper()
	var data []byte
	err := db.badger.View(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err == nil {
			data, err = item.ValueCopy(nil)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func setRaw(t testing.TB, db *DB, key, data []byte) {
	t.Helper()
	if err := db.badger.Update(func(txn *badger.Txn) error { return txn.Set(key, data) }); err != nil {
		t.Fatal(err)
	}
}

func TestFlippedByteIsNeverData(t *testing.T) {
	ctx, db := context.Background(), openTest(t, t.TempDir())
	defer db.Close()
	key := []byte("key")
	if err := db.Commit(ctx, Change{Key: key, Version: 1, Value: []byte("a value of some length")}); err != nil {
		t.Fatal(err)
	}
	good := raw(t, db, key)
	for i := range good {
		for _, mask := range []byte{0x01, 0x80, 0xff} {
			bad := bytes.Clone(good)
			bad[i] ^= mask
			setRaw(t, db, key, bad)
			if r, err := db.Get(ctx, key); !errors.Is(err, ErrTampered) || r.Value != nil {
				t.Fatalf("byte %d changed by %#x: got %q, %v; want ErrTampered", i, mask, r.Value, err)
			}
			if r, err := db.Scan(ctx, key, nil, 1); !errors.Is(err, ErrTampered) || r != nil {
				t.Fatalf("byte %d changed by %#x: scan gave %v, %v; want ErrTampered", i, mask, r, err)
			}
			if err := db.Commit(ctx, Change{Key: key, Version: 9, Value: []byte("over it")}); !errors.Is(err, ErrTampered) {
				t.Fatalf("byte %d changed by %#x: commit over it gave %v; want ErrTampered", i, mask, err)
			}
		}
	}
	for n := range good {
		setRaw(t, db, key, good[:n])
		if _, err := db.Get(ctx, key); !errors.Is(err, ErrTampered) {
			t.Fatalf("cut to %d bytes: %v; want ErrTampered", n, err)
		}
	}
	setRaw(t, db, key, good)
	if r, err := db.Get(ctx, key); err != nil || string(r.Value) != "a value of some length" {
		t.Fatalf("put back: %q, %v", r.Value, err)
	}
}

func TestMovedValueIsNeverData(t *testing.T) {
	ctx, db := context.Background(), openTest(t, t.TempDir())
	defer db.Close()
	if err := db.Commit(ctx, Change{Key: []byte("mine"), Version: 1, Value: []byte("x")}, Change{Key: []byte("yours"), Version: 1, Value: []byte("y")}); err != nil {
		t.Fatal(err)
	}
	setRaw(t, db, []byte("mine"), raw(t, db, []byte("yours")))
	if _, err := db.Get(ctx, []byte("mine")); !errors.Is(err, ErrTampered) {
		t.Fatalf("a value under another key: %v; want ErrTampered", err)
	}
	other := openTest(t, t.TempDir())
	defer other.Close()
	setRaw(t, other, []byte("yours"), raw(t, db, []byte("yours")))
	if _, err := other.Get(ctx, []byte("yours")); !errors.Is(err, ErrTampered) {
		t.Fatalf("a value of another store: %v; want ErrTampered", err)
	}
}

func TestFlippedFilesAreNeverData(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	db := openTest(t, dir)
	marker := bytes.Repeat([]byte("MARKER-OF-A-RECORD/"), 400) // in the value log
	if err := db.Commit(ctx, Change{Key: []byte("a"), Version: 1, Value: marker}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	flipped := 0
	files, _ := filepath.Glob(filepath.Join(dir, "badger", "*"))
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(data, []byte("MARKER")); at >= 0 {
			data[at+50] ^= 1
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
			flipped++
		}
	}
	if flipped == 0 {
		t.Fatal("the record is in no file")
	}
	db, err := Open(Options{Dir: dir})
	if err != nil {
		return // refused to open: never data
	}
	defer db.Close()
	if r, err := db.Get(ctx, []byte("a")); err == nil {
		t.Fatalf("a flipped bit on disk was served as %d bytes of data", len(r.Value))
	}
}

func TestReserve(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	db := openTest(t, dir)
	if err := db.Commit(ctx, Change{Key: []byte("a"), Version: 1, Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	db.reserve = 1 << 62
	if err := db.Commit(ctx, Change{Key: []byte("b"), Version: 1, Value: []byte("x")}); !errors.Is(err, ErrFull) {
		t.Fatalf("a write into the reserve: %v; want ErrFull", err)
	}
	if err := db.Health(); !errors.Is(err, ErrFull) {
		t.Fatalf("health: %v; want ErrFull", err)
	}
	if _, err := db.Get(ctx, []byte("a")); err != nil {
		t.Fatalf("reads must go on: %v", err)
	}
	// A restart over the reserve serves reads: all that opening needs is room for Badger's own tables.
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := Open(Options{Dir: dir, Reserve: 1 << 62})
	if err != nil {
		t.Fatalf("opening over the reserve: %v", err)
	}
	defer db.Close()
	if _, err := db.Get(ctx, []byte("a")); err != nil {
		t.Fatalf("reads must go on after a restart: %v", err)
	}
	if err := db.Commit(ctx, Change{Key: []byte("b"), Version: 1, Value: []byte("x")}); !errors.Is(err, ErrFull) {
		t.Fatalf("a write into the reserve: %v; want ErrFull", err)
	}
}

func TestStoreKey(t *testing.T) {
	dir := t.TempDir()
	openTest(t, dir).Close()
	path := filepath.Join(dir, keyFile)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != 40 {
		t.Fatalf("the key file: %v, %v", info, err)
	}
	refused := func(what string) {
		t.Helper()
		if db, err := Open(Options{Dir: dir}); err == nil {
			db.Close()
			t.Fatalf("opened with %s", what)
		}
	}
	os.Chmod(path, 0o640)
	refused("a key that others can read")
	os.Chmod(path, 0o600)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 * len(whole) {
		flipped := bytes.Clone(whole)
		flipped[i/8] ^= 1 << (i % 8)
		os.WriteFile(path, flipped, 0o600)
		if _, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), path+" is damaged") {
			t.Fatalf("bit %d of the key's file is another: %v", i, err)
		}
	}
	os.WriteFile(path, whole, 0o600)
	openTest(t, dir).Close()
	os.WriteFile(path, []byte("short"), 0o600)
	refused("a short key")
	os.Remove(path)
	refused("no key beside its records")
}

// TestFailedSync: Badger only logs that its value log could not be synced. A commit that met it is not acknowledged, nor is any later one.
func TestFailedSync(t *testing.T) {
	ctx, db := context.Background(), openTest(t, t.TempDir())
	defer db.Close()
	commit := func(key string) error {
		return db.Commit(ctx, Change{Key: []byte(key), Version: 1, Value: []byte("x")})
	}
	if err := commit("a"); err != nil {
		t.Fatal(err)
	}
	log := db.badger.Opts().Logger
	log.Errorf("Unable to read: Key: %v", []byte("a"))
	if err := errors.Join(commit("b"), db.Health()); err != nil {
		t.Fatalf("after a value that cannot be read: %v", err)
	}
	log.Errorf("Error while curlf sync: %v\n", "input/output error")
	if err := commit("c"); !errors.Is(err, ErrBroken) {
		t.Fatalf("after a sync that failed: %v; want ErrBroken", err)
	}
	if err := db.Health(); !errors.Is(err, ErrBroken) {
		t.Fatalf("health: %v; want ErrBroken", err)
	}
	if _, err := db.Get(ctx, []byte("a")); err != nil {
		t.Fatalf("reads must go on: %v", err)
	}
}

func FuzzRecord(f *testing.F) {
	db := &DB{key: [32]byte{1}}
	f.Add([]byte("key"), db.seal(&Change{Key: []byte("key"), Version: 3, Value: []byte("value")}))
	f.Add([]byte("key"), []byte{})
	f.Add([]byte(""), make([]byte, recordHead))
	f.Fuzz(func(t *testing.T, key, data []byte) {
		if len(key) > maxKeySize {
			return
		}
		r, err := db.parse(key, data)
		if err != nil {
			if !errors.Is(err, ErrTampered) {
				t.Fatalf("got %v, want ErrTampered", err)
			}
			return
		}
		if !bytes.Equal(db.seal(&Change{Key: key, Version: r.Version, Value: r.Value}), data) {
			t.Fatal("two encodings of one record")
		}
	})
}

// TestCloseKeepsTheKey: a write that is on its way while the store closes is sealed under the store's key or not written. One
// sealed under zeroes would be a record that no later start can read.
func TestCloseKeepsTheKey(t *testing.T) {
	db := openTest(t, t.TempDir())
	c := &Change{Key: []byte("k"), Version: 1, Value: []byte("v")}
	before := db.seal(c)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(db.seal(c), before) {
		t.Error("the store's key is gone while writes may be on their way")
	}
}
