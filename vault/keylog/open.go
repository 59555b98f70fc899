package keylog

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"
)

const (
	segmentPrefix  = "journal-"
	checkpointFile = "checkpoint"
	hashesFile     = "hashes"
	offsetsFile    = "offsets"
)

// Recovery says what Open found beyond the last signed root.
type Recovery struct {
	// CutBytes is the length of an unfinished commit that was cut from the end
	// of the journal. It was never acknowledged, and nobody acted on it.
	CutBytes int64

	// SignedEntries is the number of entries of finished commits that had no
	// signature and were signed now. Their Append did not return, or the newest
	// slot of the signer state was lost after it did.
	SignedEntries int64
}

// A segment is one file of the journal.
type segment struct {
	name  string
	first int64 // index of its first record

	mu   sync.RWMutex
	file *os.File // nil: in cold storage
}

func segmentName(first int64) string { return fmt.Sprintf("%s%020d", segmentPrefix, first) }

// Create makes a new, empty log and opens it. It is an explicit act, because a
// log that is gone looks just like one that never was: Create refuses with
// ErrExists if the folder, the signer state or the token remembers one.
//
// A Create that was interrupted before the token had its copy of the state can
// be repeated; what it left is a log without entries that no one was told of.
func Create(ctx context.Context, cfg Config) (*Log, error) {
	l, err := prepare(cfg, true)
	if err != nil {
		return nil, fmt.Errorf("creating the key-use log: %w", err)
	}
	if err := l.create(ctx); err != nil {
		l.release()
		return nil, fmt.Errorf("creating the key-use log: %w", err)
	}
	if err := l.open(ctx); err != nil {
		l.release()
		return nil, fmt.Errorf("opening the new key-use log: %w", err)
	}
	return l, nil
}

// Open opens a log after verifying that it is the one that was signed. Damage is
// a [*DamageError]; see the package comment for what counts as damage.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	l, err := prepare(cfg, false)
	if err != nil {
		return nil, fmt.Errorf("opening the key-use log: %w", err)
	}
	if err := l.open(ctx); err != nil {
		l.release()
		return nil, fmt.Errorf("opening the key-use log: %w", err)
	}
	return l, nil
}

// prepare checks the configuration and takes both locks. The state folder is
// locked too: a copy of the log's folder must not find a second signer.
func prepare(cfg Config, create bool) (*Log, error) {
	verifier, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	l := &Log{cfg: cfg, verifier: verifier, id: newLogID(cfg.Origin, cfg.PublicKey)}
	for _, dir := range []string{cfg.Dir, cfg.StateDir} {
		if create {
			if err := makeFolder(&cfg.disk, dir); err != nil {
				l.release()
				return nil, err
			}
		}
		lock, err := lockFolder(dir)
		if errors.Is(err, fs.ErrNotExist) {
			// No log opens without both folders; open says whether one was
			// never created or is gone, and writes nothing until it has.
			continue
		}
		if err != nil {
			l.release()
			return nil, err
		}
		l.locks = append(l.locks, lock)
		if dir == cfg.Dir && sameFolder(cfg.Dir, cfg.StateDir) {
			break
		}
	}
	if err := cfg.apart(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.release()
		return nil, err
	}
	return l, nil
}

// sameFolder keeps prepare from locking one folder twice, which would hide the
// better message behind ErrLocked.
func sameFolder(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

func makeFolder(d *disk, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(dir))
}

// create writes the first segment, the state file and the token's copy, in this
// order. The token's copy is the commit point: until it is there, Create can be
// repeated and Open refuses.
func (l *Log) create(ctx context.Context) error {
	copied, err := l.cfg.State.Load(ctx)
	if err != nil {
		return fmt.Errorf("loading the token's copy of the signer state: %w", err)
	}
	if len(copied) != 0 {
		return fmt.Errorf("in the token: %w", ErrExists)
	}
	_, states, err := readState(l.cfg.StateDir, l.id)
	if err != nil {
		return err
	}
	if len(states) != 0 && states[0].size != 0 {
		return fmt.Errorf("in the state folder: %w", ErrExists)
	}
	names, err := segmentNames(l.cfg.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		info, err := os.Stat(filepath.Join(l.cfg.Dir, name))
		if err != nil {
			return err
		}
		if name != segmentName(0) || info.Size() > int64(headerSize) {
			return fmt.Errorf("in the log's folder: %w", ErrExists)
		}
	}
	if err := l.cfg.disk.replace(l.cfg.Dir, segmentName(0), journalHeader(l.id, 0)); err != nil {
		return fmt.Errorf("writing the first segment: %w", err)
	}
	var e edge
	s, err := l.sign(ctx, 0, e.root())
	if err != nil {
		return fmt.Errorf("signing the empty log: %w", err)
	}
	s.generation = 1
	if _, err := l.checkpoint(&s); err != nil {
		return fmt.Errorf("signing the empty log: %w", err)
	}
	if err := createState(&l.cfg.disk, l.cfg.StateDir, &s); err != nil {
		return fmt.Errorf("writing the signer state: %w", err)
	}
	if err := l.cfg.State.Save(ctx, s.encode()); err != nil {
		return fmt.Errorf("saving the signer state in the token: %w", err)
	}
	return nil
}

// segmentNames lists the journal's segments in order. Other files are no part
// of the log.
func segmentNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if digits, ok := strings.CutPrefix(name, segmentPrefix); ok && len(digits) == 20 && strings.Trim(digits, "0123456789") == "" {
			names = append(names, name)
		}
	}
	return names, nil
}

// A root that was signed once, and where we know it from. The journal must
// contain every one of them.
type anchor struct {
	size int64
	root tlog.Hash
	from string
}

// open verifies the log, makes it whole, signs what is not signed, and starts
// the goroutines. Until it starts them it is the only one who touches l.
func (l *Log) open(ctx context.Context) error {
	last, anchors, err := l.loadAnchors(ctx)
	if err != nil {
		return err
	}
	found := last
	a := audit{log: l, signed: last.size, anchors: anchors}
	if err := a.run(ctx); err != nil {
		return err
	}
	if err := l.startClock(); err != nil {
		return err
	}
	if err := a.repair(); err != nil {
		return fmt.Errorf("repairing the end of the journal: %w", err)
	}

	if l.edge.size > last.size {
		// Entries of finished commits without a signature. They are sealed, so
		// this log decided them; they stay, because the token may have been told
		// to act if the slot that signed them was lost. Keeping a record of what
		// was not done harms nobody; losing one of what was done would.
		generation := last.generation
		if last, err = l.sign(ctx, l.edge.size, l.edge.root()); err != nil {
			return fmt.Errorf("signing recovered entries: %w", err)
		}
		last.generation = generation
	}
	cp, err := l.checkpoint(&last)
	if err != nil {
		return err
	}
	if l.state, err = os.OpenFile(filepath.Join(l.cfg.StateDir, stateFile), os.O_RDWR, 0); err != nil {
		return err
	}
	// After a failed fsync the page cache may show a slot that is not on disk. So
	// the slot that was found is written again, the same bytes, before its
	// successor takes the place of its predecessor: else a crash after that would
	// leave the successor beside a slot two generations too old.
	if err := writeSlot(&l.cfg.disk, l.state, &found); err != nil {
		return fmt.Errorf("writing the signer state: %w", err)
	}
	last.generation++
	l.generation = last.generation
	if err := writeSlot(&l.cfg.disk, l.state, &last); err != nil {
		return fmt.Errorf("writing the signer state: %w", err)
	}
	l.view.Store(&view{cp: cp, state: last, edge: l.edge, segments: l.segments})
	if err := l.keepState(ctx); err != nil {
		return err
	}

	if err := l.reachCold(); err != nil {
		l.coldFault.Store(&err)
	}

	l.wake = make(chan struct{}, 1)
	l.closing = make(chan struct{})
	l.requests = sync.Pool{New: func() any { return &request{done: make(chan struct{}, 1)} }}
	l.background.Go(l.run)
	l.background.Go(l.keep)
	return nil
}

// loadAnchors reads the three places that remember a signed root and compares
// them. It returns the newest state of the state file, and every root to check
// the journal against, by size.
func (l *Log) loadAnchors(ctx context.Context) (last signed, anchors []anchor, err error) {
	damage := func(file string, index int64, what string) (signed, []anchor, error) {
		return signed{}, nil, &DamageError{File: file, Offset: -1, Index: index, What: what}
	}

	copied, err := l.cfg.State.Load(ctx)
	if err != nil {
		return last, nil, fmt.Errorf("loading the token's copy of the signer state: %w", err)
	}
	key, states, err := readState(l.cfg.StateDir, l.id)
	if err != nil {
		return last, nil, err
	}
	names, err := segmentNames(l.cfg.Dir)
	if err != nil {
		return last, nil, err
	}
	switch {
	case states == nil && len(copied) == 0 && len(names) == 0:
		return last, nil, ErrNotCreated
	case states == nil && len(copied) == 0:
		return damage(stateFile, -1, "signer state is gone, here and in the token")
	case states == nil:
		return damage(stateFile, -1, "signer state is gone, but the token has a copy")
	case len(copied) == 0:
		return damage("token", -1, "the token's copy of the signer state is gone")
	}
	l.key, last = key, states[0]

	if l.border, err = l.loadBorder(); err != nil {
		return last, nil, err
	}
	if last.size < l.border.edge.size {
		return damage(stateFile, last.size, fmt.Sprintf("rolled back: it ends at entry %d, cold storage at %d", last.size, l.border.edge.size))
	}
	if l.cfg.Everything {
		l.border = border{}
	}

	for _, s := range states {
		if _, err := l.checkpoint(&s); err != nil {
			return damage(stateFile, s.size, err.Error())
		}
		if s.size < l.border.edge.size { // the slot before the last one, when the border came to lie between them
			continue
		}
		anchors = append(anchors, anchor{s.size, s.root, stateFile})
	}

	token, err := parseSigned(copied)
	if err != nil || token.id != l.id {
		return damage("token", -1, "the token's copy is not the state of this log")
	}
	if _, err := l.checkpoint(&token); err != nil {
		return damage("token", token.size, err.Error())
	}
	if token.generation > last.generation || token.size > last.size {
		return damage(stateFile, last.size, fmt.Sprintf("rolled back: it ends at entry %d, the token's copy at %d", last.size, token.size))
	}
	if token.size < l.border.edge.size {
		return damage("token", token.size, fmt.Sprintf("the token's copy is older than it can be: it ends at entry %d, cold storage at %d", token.size, l.border.edge.size))
	}
	anchors = append(anchors, anchor{token.size, token.root, "token"})

	text, err := os.ReadFile(filepath.Join(l.cfg.Dir, checkpointFile))
	switch {
	case errors.Is(err, fs.ErrNotExist): // a copy; it is written anew
	case err != nil:
		return last, nil, err
	default:
		cp, err := parseCheckpoint(text, l.verifier)
		if err != nil {
			return damage(checkpointFile, -1, err.Error())
		}
		if cp.Size > last.size {
			return damage(stateFile, last.size, fmt.Sprintf("rolled back: it ends at entry %d, the checkpoint at %d", last.size, cp.Size))
		}
		if cp.Size >= l.border.edge.size { // else it is older than what is read here, and is written anew
			anchors = append(anchors, anchor{cp.Size, cp.Root, checkpointFile})
		}
	}
	slices.SortStableFunc(anchors, func(a, b anchor) int { return int(min(max(a.size-b.size, -1), 1)) })
	return last, anchors, nil
}

// An audit recomputes the tree from the journal, writes the hash and offset
// files anew, and leaves in the log what it found.
type audit struct {
	log     *Log
	signed  int64
	anchors []anchor // those not met yet

	hashes, offsets *bufio.Writer

	tree   edge // with the records of the commit being read
	batch  int64
	stored []byte // their hashes
	starts []byte // their offsets

	unsigned []span // finished commits beyond the signed size
	cut      int64  // where the unfinished commit in the last segment begins, or -1
}

// A span is a run of bytes of a segment.
type span struct {
	file     *os.File
	from, to int64
}

func (a *audit) run(ctx context.Context) error {
	l := a.log
	a.cut = -1
	continued, err := a.goOn()
	if err != nil {
		return err
	}
	names, err := segmentNames(l.cfg.Dir)
	if err != nil {
		return err
	}
	if l.cfg.Cold != "" && !continued {
		cold, err := segmentNames(l.cfg.Cold)
		if err != nil {
			return err
		}
		names = slices.Compact(slices.Sorted(slices.Values(append(names, cold...))))
	}
	// What lies before the border was moved, and its removal interrupted.
	names = slices.DeleteFunc(names, func(name string) bool { return name < segmentName(l.edge.size) })
	if len(names) == 0 {
		return &DamageError{File: segmentName(l.edge.size), Offset: -1, Index: l.edge.size, What: "the journal is gone"}
	}
	if !continued {
		if err := a.startOver(); err != nil {
			return err
		}
	}
	if err := a.meet(names[0], 0); err != nil {
		return err
	}
	for i, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := a.segment(name, i == len(names)-1); err != nil {
			return err
		}
	}
	if l.edge.size < a.signed {
		return &DamageError{File: names[len(names)-1], Offset: -1, Index: l.edge.size,
			What: fmt.Sprintf("cut: the journal ends at entry %d, %d were signed", l.edge.size, a.signed)}
	}
	if err := errors.Join(a.hashes.Flush(), a.offsets.Flush()); err != nil || continued {
		return err
	}
	for _, name := range []string{hashesFile, offsetsFile} {
		path := filepath.Join(l.cfg.Dir, name)
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

// startOver makes both index files anew.
func (a *audit) startOver() error {
	l := a.log
	var err error
	if l.hashes, err = a.fresh(hashesFile); err != nil {
		return err
	}
	if l.offsets, err = a.fresh(offsetsFile); err != nil {
		return err
	}
	a.hashes, a.offsets = bufio.NewWriterSize(l.hashes, 1<<18), bufio.NewWriterSize(l.offsets, 1<<18)
	return nil
}

// goOn begins at the border, if there is one and both index files reach to it and agree with it. Else everything is read, from cold storage too, and
// the log has no border until segments are moved again.
func (a *audit) goOn() (bool, error) {
	l := a.log
	b := &l.border
	size := b.edge.size
	if size == 0 {
		return false, nil
	}
	for _, index := range []struct {
		name string
		file **os.File
		w    **bufio.Writer
		size int64
	}{{hashesFile, &l.hashes, &a.hashes, tlog.StoredHashIndex(0, size) * tlog.HashSize}, {offsetsFile, &l.offsets, &a.offsets, 8 * size}} {
		f, err := os.OpenFile(filepath.Join(l.cfg.Dir, index.name), os.O_RDWR|unix.O_NOFOLLOW, 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		if err == nil {
			*index.file = f
			var info os.FileInfo
			if info, err = f.Stat(); err == nil && info.Size() < index.size {
				err = io.ErrUnexpectedEOF
			}
		}
		if err != nil {
			a.forget()
			return false, nil
		}
		// What lies behind the border is written again.
		if err := f.Truncate(index.size); err != nil {
			return false, err
		}
		*index.w = bufio.NewWriterSize(io.NewOffsetWriter(f, index.size), 1<<18)
	}
	for level := range b.edge.node {
		if size>>level&1 == 0 {
			continue
		}
		var h tlog.Hash
		if _, err := l.hashes.ReadAt(h[:], tlog.StoredHashIndex(level, size>>level-1)*tlog.HashSize); err != nil || h != b.edge.node[level] {
			a.forget()
			return false, nil
		}
	}
	for _, first := range b.cold {
		l.segments = append(l.segments, &segment{name: segmentName(first), first: first})
	}
	l.edge, a.tree, l.last, l.sealed = b.edge, b.edge, b.time, b.time
	l.recent.first = tlog.StoredHashIndex(0, size)
	l.recent.next = l.recent.first
	return true, nil
}

// forget lets go of index files that are of no use, and of the border.
func (a *audit) forget() {
	for _, f := range []**os.File{&a.log.hashes, &a.log.offsets} {
		if *f != nil {
			_ = (*f).Close()
			*f = nil
		}
	}
	a.log.border = border{}
}

// fresh makes an index file under a temporary name. Neither index is fsynced:
// what a crash leaves of it is thrown away here. (What it says of cold segments
// was fsynced before they were moved.) A link in its place is refused, as in
// replace.
func (a *audit) fresh(name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(a.log.cfg.Dir, name+".new"), os.O_RDWR|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
}

// segment reads one segment.
func (a *audit) segment(name string, isLast bool) error {
	l := a.log
	damage := func(offset int64, what string) error {
		return &DamageError{File: name, Offset: offset, Index: a.tree.size, What: what}
	}
	f, err := os.OpenFile(filepath.Join(l.cfg.Dir, name), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) && l.cfg.Cold != "" && !isLast {
		if f, err = os.Open(filepath.Join(l.cfg.Cold, name)); err == nil {
			defer func() { // it is read only here
				_ = f.Close()
				s := l.segments[len(l.segments)-1]
				s.file = nil
			}()
		}
	}
	if err != nil {
		return err
	}
	l.segments = append(l.segments, &segment{file: f, name: name, first: a.tree.size})
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if name != segmentName(a.tree.size) {
		return damage(-1, fmt.Sprintf("a segment is missing: the next entry is %d", a.tree.size))
	}
	// A segment gets its name after its header is on disk, so no crash leaves
	// part of a header.
	header := make([]byte, headerSize)
	if n, err := f.ReadAt(header, 0); n < headerSize && !errors.Is(err, io.EOF) {
		return err
	}
	if !bytes.Equal(header, journalHeader(l.id, a.tree.size)) {
		return damage(0, "the header is not that of this log and segment")
	}

	scan := newScanner(f, int64(headerSize), info.Size())
	defer scan.close()
	begin, sealed := int64(headerSize), l.edge.size // of the commit being read
	for {
		f, at, err := scan.next()
		switch {
		case err == io.EOF && a.batch == 0:
			l.end = begin
			return nil
		case err == io.EOF, errors.Is(err, errTorn):
			// A commit that has no seal. At the end of the journal, beyond what
			// was signed, a crash left it: its fsync never returned, so no
			// Append did, and nobody acted. Anything else was signed once.
			if !isLast || l.edge.size < a.signed {
				return damage(at, "the entry is not whole, but was signed")
			}
			l.recovery.CutBytes = info.Size() - begin
			l.end, a.cut = begin, begin
			a.drop()
			return nil
		case errors.Is(err, errForeign):
			return damage(at, err.Error())
		case err != nil:
			return err
		}

		if f.index != a.tree.size {
			return damage(at, fmt.Sprintf("entry %d lies here", f.index))
		}
		if f.kind != kindSeal {
			if f.time < l.last {
				return damage(at, "its time is earlier than the time of the entry before")
			}
			l.last = f.time
			a.stored = a.tree.add(a.stored, f.hash())
			a.starts = appendU64(a.starts, uint64(at))
			a.batch++
			continue
		}
		if a.batch == 0 {
			return damage(at, "a seal without entries")
		}
		if !hmac.Equal(f.mac, l.key.seal(l.id, a.tree.size, a.tree.root())) {
			return &DamageError{File: name, Offset: begin, Index: l.edge.size,
				What: fmt.Sprintf("edited: entries %d to %d are not what this log wrote", l.edge.size, a.tree.size-1)}
		}
		if err := a.accept(name, begin); err != nil {
			return err
		}
		if l.edge.size > a.signed {
			a.unsigned = append(a.unsigned, span{l.segments[len(l.segments)-1].file, begin, scan.offset})
			l.recovery.SignedEntries = l.edge.size - a.signed
		}
		l.pace.grow(l.sealed, scan.offset-begin+indexBytes*(l.edge.size-sealed))
		sealed, begin = l.edge.size, scan.offset
	}
}

// accept takes a sealed commit into the log's tree.
func (a *audit) accept(name string, begin int64) error {
	l := a.log
	if _, err := a.hashes.Write(a.stored); err != nil {
		return err
	}
	if _, err := a.offsets.Write(a.starts); err != nil {
		return err
	}
	l.recent.add(a.stored)
	l.edge = a.tree
	l.sealed = l.last
	a.drop()
	return a.meet(name, begin)
}

// drop forgets the commit being read.
func (a *audit) drop() {
	a.tree, a.batch = a.log.edge, 0
	a.stored, a.starts = a.stored[:0], a.starts[:0]
	a.log.last = a.log.sealed
}

// meet checks the anchors that lie at the tree's present size. Whatever was
// signed ended with a commit, so an anchor cannot be passed by.
func (a *audit) meet(name string, begin int64) error {
	size := a.log.edge.size
	for len(a.anchors) > 0 && a.anchors[0].size <= size {
		next := a.anchors[0]
		if next.size < size || next.root != a.log.edge.root() {
			return &DamageError{File: name, Offset: begin, Index: next.size,
				What: fmt.Sprintf("forked: the first %d entries are not those that were signed (%s)", next.size, next.from)}
		}
		a.anchors = a.anchors[1:]
	}
	return nil
}

// repair makes durable what the log goes on from. It is safe to crash anywhere
// in it: the next open finds the same or less to do.
func (a *audit) repair() error {
	d := &a.log.cfg.disk
	if a.cut >= 0 {
		f := a.log.segments[len(a.log.segments)-1].file
		if err := f.Truncate(a.cut); err != nil {
			return err
		}
		if err := d.sync(f); err != nil {
			return err
		}
	}
	// A failed fsync marks pages clean that never reached the disk, and a later
	// fsync does not write them. So the unsigned commits are written again.
	for _, s := range a.unsigned {
		buf := make([]byte, min(s.to-s.from, 1<<20))
		for at := s.from; at < s.to; at += int64(len(buf)) {
			buf = buf[:min(int64(len(buf)), s.to-at)]
			if _, err := s.file.ReadAt(buf, at); err != nil {
				return err
			}
			if err := d.write(s.file, buf, at); err != nil {
				return err
			}
		}
		if err := d.sync(s.file); err != nil {
			return err
		}
	}
	return nil
}
