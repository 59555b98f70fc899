// Package store keeps the storefront's records in Badger so that what was acknowledged is there after a power cut, and
// what is read is what was written.
//
// A record is a key, a version and a value. [DB.Commit] applies changes all or none and returns when they would survive a power
// cut. A record never changes within a version and never goes back to a lower one ([ErrStale]): committing the same change
// again is harmless, committing an older one is refused.
//
// Badger's own checksums find some of what disks do to data, and none of what a person with write access does. So
// every value is stored as
//
//	format (1 byte) || version (u64, big-endian) || tag (32 bytes) || value
//
// with tag = HMAC-SHA-256(store key, Encode("storefront-record", key, version) || value). A value that was changed, that lies under another
// key or that claims another version is [ErrTampered] and never data. The store key is a file in the data folder with mode 0600. It
// protects integrity only: nothing here is encrypted by it, because the storefront holds nothing that needs hiding from
// whoever holds the folder, and whoever reads the key as well can forge records. What such a forger gains is what a
// hostile storefront has anyway: nothing that readers, owners and the vault would not notice.
//
// What no tag can show is that a whole record is missing or is an older one. Callers must not conclude anything from a key's
// absence, and this package offers nothing that would need it.
//
// A full disk kills a process inside Badger, whose files are mapped into memory: the signal is SIGBUS and nothing can be
// answered any more. So a reserve of free space is kept, and writes are refused ([ErrFull]) before it is touched; reads go on, and
// so do writes when there is room again. After any other error of a write the state on disk is unknown: the store refuses all further
// writes ([ErrBroken]) until it is opened again.
//
// Files are checked before Badger sees them, by package intact: damage that Badger would die of, or pass over without a word, keeps the
// store from opening, with the file named. A damaged value is found when it is read; the log then names its file.
//
// The caller owes one process for each folder (Badger's lock file sees to it) and [DB.Close].
package store

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/redact"
	"github.com/sallyport/sallyport/vault/intact"
)

var (
	// ErrNotFound: there is no record with this key now. It may never have been there or may be lost: conclude nothing.
	ErrNotFound = errors.New("no such record")
	// ErrStale: the change would take a record back to an older version, or give one version a second value.
	ErrStale = errors.New("the record has moved on")
	// ErrTampered: a value does not carry the tag of its key and version.
	ErrTampered = errors.New("a stored record fails authentication")
	// ErrFull: the write would use up the reserve of disk space. Reads go on.
	ErrFull = errors.New("the disk is nearly full")
	// ErrTooLarge: so much at once does not fit the store's tables, see memTable. Nothing was written.
	ErrTooLarge = errors.New("too much for one transaction")
	// ErrBroken: a write failed before, so what is on disk is unknown until the store is opened again. Reads go on, and may find what is not on disk.
	ErrBroken = errors.New("the store failed before and must be opened again")
)

// Record is a value with the version it was committed as.
type Record struct {
	Key     []byte
	Version uint64 // counts from 1
	Value   []byte
}

// Change is a record to be written or, with Delete, a key to be removed.
type Change struct {
	Key     []byte
	Version uint64
	Value   []byte
	Delete  bool
}

// Options say where the store is and how much room it must leave.
type Options struct {
	Dir     string // made with mode 0700 if it is not there
	Reserve uint64 // bytes of free disk space below which writes are refused
	Log     *slog.Logger
}

const (
	mostMemTable   = 64 << 20
	leastMemTable  = 1 << 20
	valueThreshold = 4 << 10 // longer values lie in the value log, so a transaction may hold a whole publication
	collectEvery   = 10 * time.Minute
	spaceFor       = time.Second // how long a measurement of free space is believed
)

// memTable is the size of Badger's tables in memory, which it writes to disk when they are full, when it is closed and when it is opened,
// whether there is room or not. So they are small against the reserve.
func memTable(reserve uint64) int64 {
	if reserve == 0 {
		return mostMemTable
	}
	return int64(min(max(reserve/8, leastMemTable), mostMemTable))
}

const (
	recordFormat = 1
	recordHead   = 1 + 8 + sha256.Size
	keyFile      = "store.key"
	keyCheckSize = 8
	maxKeySize   = 512
)

// DB is an open store. Its methods may be used at once from any number of goroutines.
type DB struct {
	redact.Redacted

	badger  *badger.DB
	dir     string
	reserve uint64
	log     *slog.Logger
	key     [32]byte
	broken  atomic.Bool
	blamed  atomic.Bool // a record could not be read, and its file is looked for
	search  sync.WaitGroup
	ctx     context.Context // ends when the store closes
	space   struct {
		sync.Mutex
		at   time.Time
		free uint64
	}
	stop    context.CancelFunc
	stopped chan struct{}
}

// Open opens the store in a folder, or makes it.
func Open(o Options) (*DB, error) {
	db := &DB{dir: o.Dir, reserve: o.Reserve, log: slog.New(slog.DiscardHandler), stopped: make(chan struct{})}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	if err := db.loadKey(); err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	if o.Log != nil {
		db.log = o.Log
	}
	table := memTable(o.Reserve)
	// A store that is over its reserve opens for reading. Badger needs room all the same: for the tables that a crash left in memory.
	switch free, err := db.free(); {
	case err != nil:
		return nil, fmt.Errorf("opening the store: %w", err)
	case free < min(o.Reserve, 4*uint64(table)):
		return nil, fmt.Errorf("opening the store: %w: %s has %d bytes free, opening needs %d", ErrFull, db.dir, free, min(o.Reserve, 4*uint64(table)))
	}
	torn, err := intact.Prepare(db.files())
	if err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	for _, t := range torn {
		db.log.Warn("a file of the store is not whole to its end, as after a crash", "file", t.File, "offset", t.Offset, "what", t.What)
	}
	opened, err := openBadger(badger.DefaultOptions(db.files()).
		WithSyncWrites(true).
		WithVerifyValueChecksum(true).
		WithChecksumVerificationMode(options.OnTableAndBlockRead).
		WithNumVersionsToKeep(1).
		WithCompression(options.None).
		WithMemTableSize(table).
		WithNumMemtables(2).
		WithBaseTableSize(min(2<<20, table)).
		WithBaseLevelSize(min(10<<20, 2*table)).
		WithValueLogFileSize(2 * table).
		WithValueThreshold(valueThreshold).
		WithBlockCacheSize(64 << 20).
		WithMetricsEnabled(false).
		WithNumCompactors(2). // each looks twenty times a second whether there is something to do, and divides what there is among several itself
		WithLogger(badgerLog{db.log, &db.broken}))
	if err != nil {
		return nil, fmt.Errorf("opening the store in %s: %w", db.files(), err)
	}
	db.badger = opened
	db.ctx, db.stop = context.WithCancel(context.Background())
	go db.collect(db.ctx)
	return db, nil
}

// openBadger opens a database. Badger meets files that it does not understand with a panic here and there.
func openBadger(o badger.Options) (db *badger.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the database panics: %v", r)
		}
	}()
	return badger.Open(o)
}

// files is the folder of Badger's files.
func (db *DB) files() string { return filepath.Join(db.dir, "badger") }

// blame wraps the error of a record that is there and cannot be read. The first time it looks for the file, which takes a while, and logs it.
func (db *DB) blame(err error) error {
	if !db.blamed.Swap(true) {
		db.log.Error("a record cannot be read; looking for the damage", "folder", db.files(), "error", err.Error())
		db.search.Go(func() {
			found, err := intact.Values(db.ctx, db.files())
			for _, d := range found {
				db.log.Error("a file of the store is damaged", "file", d.File, "offset", d.Offset, "what", d.What)
			}
			if err != nil && db.ctx.Err() == nil {
				db.log.Error("looking for the damage", "error", err.Error())
			}
		})
	}
	return fmt.Errorf("in %s: %w", db.files(), err)
}

// loadKey reads the store key, or makes it together with its folder's first content. A crash between making the key and the first
// record leaves a key without records, which is the same as a new store.
func (db *DB) loadKey() error {
	path := filepath.Join(db.dir, keyFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(db.dir, "badger")); err == nil {
			return fmt.Errorf("%s is missing but the records are there: put it back, or begin with an empty folder", path)
		}
		rand.Read(db.key[:])
		return writeSynced(db.dir, keyFile, append(db.key[:], db.keyCheck()...))
	}
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s can be read by others than its owner: set its mode to 0600", path)
	}
	if len(data) != len(db.key)+keyCheckSize {
		return fmt.Errorf("%s has %d bytes, want %d: put it back from a copy", path, len(data), len(db.key)+keyCheckSize)
	}
	if copy(db.key[:], data); !hmac.Equal(data[len(db.key):], db.keyCheck()) {
		return fmt.Errorf("%s is damaged: put it back from a copy", path)
	}
	return nil
}

// keyCheck follows the key in its file: the first 8 bytes of HMAC-SHA-256 of a fixed text. With a key of which one bit is another every
// record would fail authentication, and nothing would lead to the file at fault.
func (db *DB) keyCheck() []byte {
	mac := hmac.New(sha256.New, db.key[:])
	mac.Write([]byte("sallyport store key"))
	return mac.Sum(nil)[:keyCheckSize]
}

// writeSynced makes a file of mode 0600 in one step: after a crash it is there whole or not at all.
func writeSynced(dir, name string, data []byte) error {
	f, err := os.CreateTemp(dir, "."+name+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close flushes and closes the store. The key stays in memory: a write on its way that met a zeroed one would leave a record that fails
// authentication for ever, and whoever reads this process's memory can read the key's file.
func (db *DB) Close() error {
	db.stop()
	<-db.stopped
	db.search.Wait()
	if err := db.badger.Close(); err != nil {
		return fmt.Errorf("closing the store: %w", err)
	}
	return nil
}

// Health is nil, or why the store takes no writes: [ErrBroken] or [ErrFull].
func (db *DB) Health() error {
	if db.broken.Load() {
		return ErrBroken
	}
	return db.room(0)
}

// Get reads one record. The caller owns the value.
func (db *DB) Get(_ context.Context, key []byte) (Record, error) {
	var r Record
	err := db.badger.View(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		r, err = db.open(item)
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return Record{}, ErrNotFound
	}
	if err != nil {
		return Record{}, fmt.Errorf("reading a record: %w", err)
	}
	return r, nil
}

// Scan reads at most limit records whose keys begin with prefix and come after the key after (nil: from the first), in byte
// order of the keys.
func (db *DB) Scan(ctx context.Context, prefix, after []byte, limit int) ([]Record, error) {
	var out []Record
	err := db.badger.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix, PrefetchValues: limit > 1, PrefetchSize: min(limit, 100)})
		defer it.Close()
		start := prefix
		if bytes.Compare(after, prefix) >= 0 {
			start = append(bytes.Clone(after), 0) // the least key after it
		}
		for it.Seek(start); it.Valid() && len(out) < limit; it.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			r, err := db.open(it.Item())
			if err != nil {
				return err
			}
			out = append(out, r)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading records: %w", err)
	}
	return out, nil
}

// Commit applies all changes or none. When it returns nil they survive a power cut. After an error other than [ErrStale],
// [ErrFull] and [ErrTooLarge] they may or may not have been applied.
func (db *DB) Commit(ctx context.Context, changes ...Change) error {
	if err := ctx.Err(); err != nil {
		return err // before the point of no return; a commit that began is not interrupted
	}
	if db.broken.Load() {
		return ErrBroken
	}
	size := uint64(0)
	for i := range changes {
		c := &changes[i]
		if len(c.Key) == 0 || len(c.Key) > maxKeySize || !c.Delete && c.Version == 0 {
			return fmt.Errorf("writing records: a key of %d bytes, version %d", len(c.Key), c.Version)
		}
		size += uint64(len(c.Key) + len(c.Value) + recordHead)
	}
	if err := db.room(size); err != nil {
		return err
	}
	var invalid error
	err := db.badger.Update(func(txn *badger.Txn) error {
		for i := range changes {
			if invalid = db.apply(txn, &changes[i]); invalid != nil {
				return invalid
			}
		}
		return nil
	})
	switch {
	case err == nil && db.broken.Load(): // see badgerLog; what another commit broke, this one may have met too
		return fmt.Errorf("writing records: %w", ErrBroken)
	case err == nil:
		return nil
	case errors.Is(invalid, badger.ErrTxnTooBig):
		return fmt.Errorf("writing records: %w", ErrTooLarge)
	case invalid != nil: // refused before anything was written
		return fmt.Errorf("writing records: %w", err)
	case errors.Is(err, badger.ErrConflict): // somebody else was first; nothing was written
		return fmt.Errorf("writing records: %w", ErrStale)
	default:
		db.broken.Store(true)
		return fmt.Errorf("writing records: %w: %w", ErrBroken, err)
	}
}

func (db *DB) apply(txn *badger.Txn, c *Change) error {
	if c.Delete {
		return txn.Delete(c.Key)
	}
	item, err := txn.Get(c.Key)
	switch {
	case errors.Is(err, badger.ErrKeyNotFound):
	case err != nil:
		return err
	default:
		old, err := db.open(item)
		if err != nil {
			return err
		}
		if old.Version == c.Version && bytes.Equal(old.Value, c.Value) {
			return nil
		}
		if old.Version >= c.Version {
			return ErrStale
		}
	}
	return txn.Set(c.Key, db.seal(c))
}

func (db *DB) tag(key []byte, version uint64, value []byte) []byte {
	mac := hmac.New(sha256.New, db.key[:])
	mac.Write(policies.Encode("storefront-record", key, policies.U64(version)))
	mac.Write(value)
	return mac.Sum(nil)
}

func (db *DB) seal(c *Change) []byte {
	out := make([]byte, 0, recordHead+len(c.Value))
	out = append(out, recordFormat)
	out = binary.BigEndian.AppendUint64(out, c.Version)
	out = append(out, db.tag(c.Key, c.Version, c.Value)...)
	return append(out, c.Value...)
}

// open authenticates before anything of the value is looked at.
func (db *DB) open(item *badger.Item) (Record, error) {
	key := item.KeyCopy(nil)
	data, err := item.ValueCopy(nil)
	if err != nil {
		return Record{}, db.blame(err)
	}
	r, err := db.parse(key, data)
	if err != nil {
		return Record{}, db.blame(err)
	}
	return r, nil
}

func (db *DB) parse(key, data []byte) (Record, error) {
	if len(data) < recordHead || data[0] != recordFormat {
		return Record{}, ErrTampered
	}
	r := Record{Key: key, Version: binary.BigEndian.Uint64(data[1:]), Value: data[recordHead:]}
	if !hmac.Equal(data[9:recordHead], db.tag(key, r.Version, r.Value)) {
		return Record{}, ErrTampered
	}
	return r, nil
}

// room refuses a write of size bytes that would use up the reserve. Free space is measured at most once a second; what is
// written in between is taken off the last measurement.
func (db *DB) room(size uint64) error {
	db.space.Lock()
	defer db.space.Unlock()
	if now := time.Now(); now.Sub(db.space.at) > spaceFor {
		free, err := db.free()
		if err != nil {
			return err
		}
		db.space.at, db.space.free = now, free
	}
	if db.space.free < db.reserve || db.space.free-db.reserve < size {
		return ErrFull
	}
	db.space.free -= size
	return nil
}

func (db *DB) free() (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(db.dir, &s); err != nil {
		return 0, fmt.Errorf("measuring free disk space: %w", err)
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// collect reclaims the space of deleted and overwritten values until the store closes.
func (db *DB) collect(ctx context.Context) {
	defer close(db.stopped)
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for ctx.Err() == nil && db.badger.RunValueLogGC(0.5) == nil {
			}
		}
	}
}

// badgerLog passes Badger's complaints on and drops its chatter. Badger names files and sizes, never values.
//
// Some complaints are all that is ever heard of a failure: when the value log cannot be synced Badger says so here and tells the writer that all is well;
// when a table cannot be written it tries again for ever. They break the store. The first comes before the commit in question returns.
type badgerLog struct {
	*slog.Logger
	broken *atomic.Bool
}

func (l badgerLog) Errorf(format string, args ...any) {
	for _, fatal := range []string{"Error while curlf sync", "error flushing memtable", "writeRequests"} {
		if strings.HasPrefix(format, fatal) {
			l.broken.Store(true)
		}
	}
	l.Error("badger", "text", fmt.Sprintf(format, args...))
}
func (l badgerLog) Warningf(format string, args ...any) {
	l.Warn("badger", "text", fmt.Sprintf(format, args...))
}
func (l badgerLog) Infof(string, ...any)  {}
func (l badgerLog) Debugf(string, ...any) {}
