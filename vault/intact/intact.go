// Package intact looks at the files of a Badger database before Badger does.
//
// Badger 4.9 keeps a checksum with most of what it writes, and makes too little of them when it opens a database. Where a bit
// of a table has flipped, the process dies of a nil pointer, at every start again, and names no file. Where a bit of the value log's
// newest file has flipped, that file is cut there, and all later values in it are lost for good. Where one of a write-ahead log or of the
// manifest has flipped, what lies behind it is dropped without a word.
//
// [Prepare] is called before Badger opens a folder. It reads what Badger would read, without Badger, and tells three things apart:
//
//   - a database that is whole;
//   - a file that ends in the middle of a write, as a crash leaves it. What was being written had not been acknowledged. It is reported as
//     torn, with its place, because the last write of a file, damaged later, looks the same; Badger goes on from there;
//   - damage: something that was whole once. It is a [*DamageError], and the caller does not let Badger open the folder.
//
// Values in the value log are left to Badger's own check when they are read, and to the caller's. [Values] finds the place then.
//
// Badger does not always clean up after an Open that fails: what it started goes on, and removes files of whoever opens the folder next. So all
// that is known to make it fail is looked at here.
//
// Only databases without compression and encryption are understood, as the storefront's and the vault's are.
package intact

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// A DamageError says which file of a database is not what was written, and where.
type DamageError struct {
	File   string // path
	Offset int64
	What   string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("damaged file %s, offset %d: %s", e.File, e.Offset, e.What)
}

// Prepare checks the database in a folder that no process has open. Torn are the places where files end in the middle of a write. An
// error is a *DamageError, or says why the folder could not be read. A folder that is empty or not there is whole.
//
// Prepare changes three things. It removes files without content, whose power was cut after they were made and before anything in them was
// acknowledged, or whose removal by Badger was cut short; Badger does not open a folder with one. It cuts off the part of a change at the manifest's end. And where the newest file of the value log is not whole to
// its end, it begins the next file, because Badger cuts the newest one at the first value that is not whole, and leaves older ones alone.
func Prepare(dir string) (torn []*DamageError, err error) {
	lock, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil { // Badger's own lock
		return nil, fmt.Errorf("locking %s, which another process may have open: %w", dir, err)
	}
	if err := checkRegistry(filepath.Join(dir, badger.KeyRegistryFileName)); err != nil {
		return nil, err
	}
	emptied, err := removeEmpty(dir)
	if err != nil {
		return nil, err
	}
	tables, torn, err := manifest(filepath.Join(dir, badger.ManifestFilename))
	if err != nil {
		return nil, err
	}
	torn = append(torn, emptied...)
	for _, id := range tables {
		path := table.NewFilename(id, dir)
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err // a missing table is as bad as a damaged one
		}
		if err := checkTable(path, b); err != nil {
			return nil, err
		}
	}
	memory, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	if err != nil {
		return nil, err
	}
	for _, path := range memory {
		if err := checkHead(path); err != nil {
			return nil, err
		}
		b, err := content(path)
		if err != nil {
			return nil, err
		}
		t, err := checkMemory(path, b)
		if err != nil {
			return nil, err
		}
		torn = append(torn, t...)
	}
	values, err := valueLogs(dir)
	if err != nil || len(values) == 0 {
		return torn, err
	}
	for _, path := range values {
		if err := checkHead(path); err != nil {
			return nil, err
		}
	}
	path := values[len(values)-1]
	b, err := content(path)
	if err != nil {
		return nil, err
	}
	t := checkValues(path, b)
	if len(t) == 0 {
		return torn, nil
	}
	return append(torn, t...), nextValueLog(dir, path)
}

// Values reads the whole value log of a database, which may be in use, and tells where it is not whole. It is for the moment after a value could
// not be read.
func Values(ctx context.Context, dir string) ([]*DamageError, error) {
	paths, err := valueLogs(dir)
	if err != nil {
		return nil, err
	}
	var all []*DamageError
	for _, path := range paths {
		if err := ctx.Err(); err != nil {
			return all, err
		}
		b, err := content(path)
		if errors.Is(err, fs.ErrNotExist) { // collected meanwhile
			continue
		}
		if err != nil {
			return all, err
		}
		all = append(all, checkValues(path, b)...)
	}
	return all, nil
}

// checkRegistry checks the file of encryption keys, of which there are none: 16 random bytes and a text.
func checkRegistry(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(b) < 16 || string(b[16:]) != "Hello Badger" {
		return &DamageError{path, 16, "not a registry without keys"}
	}
	return nil
}

// checkHead checks that a log names no encryption key.
func checkHead(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 8)
	if n, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	} else if !zero(head[:n]) {
		return &DamageError{path, 0, "it names an encryption key"}
	}
	return nil
}

// content is a file up to its last byte that is not in a hole: Badger makes its logs long and fills them later.
func content(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	end := info.Size()
	for at := int64(0); at < info.Size(); {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // holes from here on
			end = at
			break
		}
		if err != nil {
			return nil, fmt.Errorf("finding what %s holds: %w", path, err)
		}
		if at, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE); err != nil {
			return nil, fmt.Errorf("finding what %s holds: %w", path, err)
		}
	}
	b := make([]byte, end)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

// zero reports whether there is nothing but zeroes.
func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The manifest is a head of 8 bytes, "Bdgr", a version of the user's (2) and Badger's own (2), and changes:
//
//	u32 length || CRC-32C || change
const (
	manifestHead    = "Bdgr\x00\x00\x00\x08"
	manifestVersion = len(manifestHead)
)

// manifest checks the manifest and returns the tables that it names. A table that it does not name was not finished, and Badger removes it. A
// change that a crash cut short is taken off, since Badger does not always accept one.
func manifest(path string) (tables []uint64, torn []*DamageError, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	tables, end, err := parseManifest(path, b)
	if err != nil || end == len(b) {
		return tables, nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(f.Truncate(int64(end)), f.Sync(), f.Close()); err != nil {
		return nil, nil, err
	}
	return tables, []*DamageError{{path, int64(end), fmt.Sprintf("it ended in the middle of a change; %d bytes were cut off", len(b)-end)}}, nil
}

// parseManifest returns the tables and where the last whole change ends.
func parseManifest(path string, b []byte) (tables []uint64, end int, err error) {
	if !bytes.HasPrefix(b, []byte(manifestHead)) {
		return nil, 0, &DamageError{path, 0, "not the head of a manifest"}
	}
	found := map[uint64]bool{}
	for end = manifestVersion; end < len(b); {
		rest := b[end:]
		if len(rest) < 8 {
			break
		}
		length, sum := binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:])
		rest = rest[8:]
		if uint64(length) > uint64(len(rest)) {
			// A crash leaves a part of the last change. A change that is whole but for its length was damaged.
			for bit := range 32 {
				n := length ^ 1<<bit
				if uint64(n) <= uint64(len(rest)) && crc32.Checksum(rest[:n], castagnoli) == sum {
					return nil, 0, &DamageError{path, int64(end), "a change of the wrong length"}
				}
			}
			break
		}
		var set pb.ManifestChangeSet
		if crc32.Checksum(rest[:length], castagnoli) != sum || proto.Unmarshal(rest[:length], &set) != nil {
			return nil, 0, &DamageError{path, int64(end), "the checksum of a change does not match"}
		}
		for _, c := range set.Changes {
			if c.Op == pb.ManifestChange_DELETE {
				delete(found, c.Id)
			} else {
				found[c.Id] = true
			}
		}
		end += 8 + int(length)
	}
	return slices.Sorted(maps.Keys(found)), end, nil
}

// checkTable checks every block of a table and its index. The file is
//
//	blocks || index || u32 length of the index || checksum of the index || u32 length of the checksum
//	block: entries || u32 offsets || u32 number of offsets || checksum of all before || u32 length of the checksum
func checkTable(path string, b []byte) (err error) {
	at := int64(0)
	defer func() {
		if recover() != nil { // the index is a flatbuffer, whose accessors do not check their bounds
			err = &DamageError{path, at, "not the form of a table"}
		}
	}()
	rest, sum, ok := cutChecksum(b)
	if !ok || len(rest) < 4 {
		return &DamageError{path, int64(len(b)), "not the end of a table"}
	}
	size := int64(binary.BigEndian.Uint32(rest[len(rest)-4:]))
	at = int64(len(rest)) - 4 - size
	if at < 0 {
		return &DamageError{path, int64(len(rest)) - 4, "an index longer than the table"}
	}
	index := rest[at : len(rest)-4]
	if y.VerifyChecksum(index, sum) != nil {
		return &DamageError{path, at, "the checksum of the index does not match"}
	}
	root := fb.GetRootAsTableIndex(index, 0)
	var block fb.BlockOffset
	for i := range root.OffsetsLength() {
		if !root.Offsets(&block, i) {
			return &DamageError{path, at, "an index without its blocks"}
		}
		at = int64(block.Offset())
		body, sum, ok := cutChecksum(b[at : at+int64(block.Len())])
		if !ok || y.VerifyChecksum(body, sum) != nil {
			return &DamageError{path, at, fmt.Sprintf("the checksum of block %d does not match", i)}
		}
	}
	return nil
}

// cutChecksum takes the checksum off the end of a part of a table.
func cutChecksum(b []byte) (body []byte, sum *pb.Checksum, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	end := len(b) - 4
	n := binary.BigEndian.Uint32(b[end:])
	if uint64(n) > uint64(end) {
		return nil, nil, false
	}
	sum = new(pb.Checksum)
	if proto.Unmarshal(b[end-int(n):end], sum) != nil {
		return nil, nil, false
	}
	return b[:end-int(n)], sum, sum.Algo == pb.Checksum_CRC32C || sum.Algo == pb.Checksum_XXHash64
}

// Logs are a head of 20 bytes and entries:
//
//	kind (1 byte) || user's kind (1 byte) || uvarint length of key, of value, expiry || key || value || CRC-32C of all before
const (
	logHead   = 20
	entryHead = 22 // at most

	bitTxn    = 1 << 6 // an entry of a transaction
	bitFinTxn = 1 << 7 // the end of one; its value is the time stamp in decimal
	maxKey    = 1 << 16
)

// An entry of a log. A key ends with the time stamp of its transaction.
type entry struct {
	kind       byte
	key, value []byte
	size       int // of the whole entry
}

func (e *entry) stamp() uint64 {
	if e.kind&bitFinTxn != 0 {
		n, err := strconv.ParseUint(string(e.value), 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	if len(e.key) < 8 {
		return 0
	}
	return math.MaxUint64 - binary.BigEndian.Uint64(e.key[len(e.key)-8:])
}

// parseHead reads the head of an entry that lies in room bytes: its length and the lengths of key and value. Size is 0 if it makes no sense.
func parseHead(b []byte, room int) (head, key, value, size int) {
	if len(b) < 5 {
		return 0, 0, 0, 0
	}
	at := 2
	var lengths [3]uint64 // of key and value; the third is the expiry
	for i := range lengths {
		v, n := binary.Uvarint(b[at:])
		if n <= 0 {
			return 0, 0, 0, 0
		}
		lengths[i], at = v, at+n
	}
	k, v := lengths[0], lengths[1]
	if k == 0 || k > maxKey || v > uint64(room) || uint64(at)+k+v+crc32.Size > uint64(room) {
		return 0, 0, 0, 0
	}
	return at, int(k), int(v), at + int(k) + int(v) + crc32.Size
}

// parseEntry parses the entry at the beginning of b, and tells whether its checksum matches.
func parseEntry(b []byte) (e entry, whole bool) {
	head, key, value, size := parseHead(b, len(b))
	if size == 0 {
		return e, false
	}
	end := head + key + value
	e = entry{kind: b[0], key: b[head : head+key], value: b[head+key : end], size: size}
	return e, crc32.Checksum(b[:end], castagnoli) == binary.BigEndian.Uint32(b[end:])
}

// resume finds where the entry that is not whole at the beginning of b ends: by its own head, or by its head with one bit changed. Zero means that
// it cannot be told.
func resume(b []byte) int {
	try := func(head []byte) int {
		if _, _, _, size := parseHead(head, len(b)); size > 0 {
			if _, whole := parseEntry(b[size:]); whole {
				return size
			}
		}
		return 0
	}
	if size := try(b); size > 0 {
		return size
	}
	head := slices.Clone(b[:min(len(b), entryHead)])
	for bit := range len(head) * 8 {
		head[bit/8] ^= 1 << (bit % 8)
		size := try(head)
		head[bit/8] ^= 1 << (bit % 8)
		if size > 0 {
			return size
		}
	}
	return 0
}

// checkMemory checks the write-ahead log of a table in memory. Each transaction is synced before the next is written, so the last one may be
// torn. If whole entries of two others follow, or of one while the torn one is known to be another, it was not the last.
func checkMemory(path string, b []byte) (torn []*DamageError, err error) {
	if len(b) < logHead {
		return nil, nil
	}
	begin, at := logHead, logHead // of the transaction and of the entry
	open := uint64(0)             // the time stamp of the transaction, 0 between two
	for {
		e, whole := parseEntry(b[at:])
		if !whole || open != 0 && e.stamp() != open {
			break
		}
		at += e.size
		switch {
		case e.kind&bitFinTxn != 0:
			open, begin = 0, at
		case e.kind&bitTxn != 0:
			open = e.stamp()
		default:
			begin = at
		}
	}
	if begin == at && zero(b[at:]) {
		return nil, nil
	}
	others := map[uint64]bool{}
	if step := resume(b[at:]); step > 0 {
		for next := at + step; ; {
			e, whole := parseEntry(b[next:])
			if !whole {
				break
			}
			if e.stamp() != open {
				others[e.stamp()] = true
			}
			next += e.size
		}
	}
	if len(others) > 1 || len(others) == 1 && open != 0 {
		return nil, &DamageError{path, int64(at), "an entry is not whole, and whole ones of later transactions follow"}
	}
	return []*DamageError{{path, int64(begin), "it ends in the middle of a transaction, which is cut off; if that had been acknowledged, it was damaged later"}}, nil
}

// valueLogs are the files of the value log, oldest first.
func valueLogs(dir string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.vlog"))
	slices.Sort(paths)
	return paths, err
}

// checkValues walks a file of the value log.
func checkValues(path string, b []byte) (found []*DamageError) {
	for at := logHead; at < len(b) && !zero(b[at:min(len(b), at+entryHead)]); {
		e, whole := parseEntry(b[at:])
		if whole {
			at += e.size
			continue
		}
		found = append(found, &DamageError{path, int64(at), "a value is not whole"})
		step := resume(b[at:])
		if step == 0 {
			break
		}
		at += step
	}
	return found
}

// removeEmpty removes write-ahead logs and files of the value log without content. One of the value log that comes before another with content held
// something once, and is reported: Badger empties such a file before it removes it, so a crash or an error in between leaves it.
// If that was not the reason, Badger gives an empty value for what it held, and whoever authenticates its values with their keys notices
// (storefront/internal/store, TestEmptiedValueLog): also when Badger gives the number of the last file to a new one, and what an old key points to is
// somebody else's value. Of a write-ahead log that somebody emptied the keys are gone too, as if it had been removed. Nobody can tell that from a crash, so callers
// conclude nothing from a key's absence.
func removeEmpty(dir string) (emptied []*DamageError, err error) {
	logs, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	if err != nil {
		return nil, err
	}
	values, err := valueLogs(dir)
	if err != nil {
		return nil, err
	}
	empty := func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && info.Size() == 0
	}
	logs = slices.DeleteFunc(logs, func(path string) bool { return !empty(path) })
	last := true
	for _, path := range slices.Backward(values) {
		if !empty(path) {
			last = false
			continue
		}
		logs = append(logs, path)
		if !last {
			emptied = append(emptied, &DamageError{File: path, What: "it has no content, as a removal that was cut short leaves it"})
		}
	}
	for _, path := range logs {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return emptied, nil
}

// nextValueLog makes the file after the newest: a head that says that nothing is encrypted. It is synced, because Badger makes a further file at once
// and syncs only what it writes there: a power cut would leave this one without content, and no longer the newest.
func nextValueLog(dir, newest string) error {
	n, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(newest), ".vlog"), 10, 32)
	if err != nil {
		return fmt.Errorf("naming the value log's next file: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%06d.vlog", n+1)), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, logHead))
	return errors.Join(err, f.Sync(), f.Close())
}
