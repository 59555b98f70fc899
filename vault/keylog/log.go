package keylog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A Log is an open key-use log. Its methods may be called from any goroutine.
type Log struct {
	cfg      Config
	verifier note.Verifier
	id       logID
	key      *sealKey
	locks    []*os.File
	recovery Recovery

	// Owned by open, then by the goroutine run. The edge is ahead of the view
	// only while a commit is under way, or after one failed.
	edge       edge
	last       int64 // time of the newest record
	sealed     int64 // time of the newest sealed record; used by open only
	generation uint64
	segments   []*segment // appended to, never changed: views share it
	end        int64      // offset of the next frame in the last segment
	hashes     *os.File
	offsets    *os.File
	state      *os.File
	frames     []byte // scratch
	stored     []byte // scratch
	starts     []byte // scratch

	moving   sync.Mutex  // held while segments are moved or written anew
	rollNext atomic.Bool // the next commit begins a segment

	// Owned by open, then by the goroutine keep.
	border border
	saved  int64 // size of the token's copy

	wall0 time.Time // both clocks at open; not changed later
	mono0 time.Duration

	view      atomic.Pointer[view]  // what is signed and durable
	fault     atomic.Pointer[error] // why the log stopped; set once
	stale     atomic.Pointer[error] // why the token's copy is old
	coldFault atomic.Pointer[error] // why cold storage does not work
	recent    recent
	pace      pace

	requests   sync.Pool
	wake       chan struct{} // capacity 1: the queue or closed changed
	closing    chan struct{} // closed by Close, ends keep
	background sync.WaitGroup
	closeOnce  sync.Once
	closeErr   error

	mu     sync.Mutex // guards queue and closed
	queue  []*request
	closed bool

	readers sync.WaitGroup // added to under mu while not closed; Close waits for it
}

// A view is what readers see: one signed tree. It is not changed once stored.
type view struct {
	cp       Checkpoint
	state    signed
	edge     edge
	segments []*segment
}

// A request is one call of Append in the queue.
type request struct {
	phase   atomic.Int32
	records []Record
	bytes   int64
	time    int64
	first   int64
	cp      Checkpoint
	err     error
	done    chan struct{} // capacity 1
}

// Phases of a request. Whoever changes phaseQueued decides: the committer takes
// it, or the caller withdraws it.
const (
	phaseQueued int32 = iota
	phaseTaken
	phaseWithdrawn
)

// Append records the records, all of them in one commit or none, and returns
// when they are durable under a root signed by the token. The slices are not
// kept. With no records it returns the newest checkpoint.
//
// If ctx ends while the records are queued, they are withdrawn: an error that
// wraps ctx.Err() means that nothing was recorded. Once the commit has begun,
// Append waits for its outcome. After ErrFatal the records may or may not be in
// the log that is opened next; the caller must not act on them.
func (l *Log) Append(ctx context.Context, records ...Record) ([]Position, Checkpoint, error) {
	var bytes int64
	for _, r := range records {
		if len(r.Entry)+len(r.Body) > MaxRecord {
			return nil, Checkpoint{}, fmt.Errorf("recording %d bytes: %w", len(r.Entry)+len(r.Body), ErrTooLarge)
		}
		bytes += int64(frameHead + recordHead + len(r.Entry) + len(r.Body))
	}
	if bytes > MaxBatch {
		return nil, Checkpoint{}, fmt.Errorf("recording %d bytes at once: %w", bytes, ErrTooLarge)
	}
	if err := ctx.Err(); err != nil {
		return nil, Checkpoint{}, fmt.Errorf("recording: %w", err)
	}
	if err := l.stopped(); err != nil {
		return nil, Checkpoint{}, fmt.Errorf("recording: %w", err)
	}
	if len(records) == 0 {
		return nil, l.Checkpoint(), nil
	}

	r := l.requests.Get().(*request)
	r.records, r.bytes = records, bytes
	r.phase.Store(phaseQueued)
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, Checkpoint{}, ErrClosed
	}
	l.queue = append(l.queue, r)
	l.mu.Unlock()
	l.poke()

	select {
	case <-r.done:
	case <-ctx.Done():
		if r.phase.CompareAndSwap(phaseQueued, phaseWithdrawn) {
			return nil, Checkpoint{}, fmt.Errorf("waiting to be recorded: %w", ctx.Err())
		}
		<-r.done
	}
	cp, err, first, at := r.cp, r.err, r.first, r.time
	r.records, r.cp, r.err = nil, Checkpoint{}, nil
	l.requests.Put(r)
	if err != nil {
		return nil, Checkpoint{}, fmt.Errorf("recording: %w", err)
	}
	positions := make([]Position, len(records))
	for i := range positions {
		positions[i] = Position{Index: first + int64(i), Time: time.UnixMilli(at).UTC()}
	}
	return positions, cp, nil
}

func (l *Log) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// stopped returns why the log stopped, or nil.
func (l *Log) stopped() error {
	if err := l.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// stop makes err the reason for which every later Append fails.
func (l *Log) stop(err error) error {
	l.fault.CompareAndSwap(nil, &err)
	return l.stopped()
}

// run owns the files. It ends when the log is closed and the queue is empty.
func (l *Log) run() {
	for {
		batch := l.take()
		if batch == nil {
			return
		}
		err := l.commit(batch)
		var cp Checkpoint
		if err == nil {
			cp = l.Checkpoint()
		}
		for _, r := range batch {
			r.cp, r.err = cp, err
			r.done <- struct{}{}
		}
		// Let those just answered queue what they have next, so that it goes
		// out with the coming commit. This gives up a time slice, no more.
		runtime.Gosched()
	}
}

// take waits for requests and takes what is queued, up to MaxBatch bytes. It
// returns nil when the log is closed and nothing is left.
func (l *Log) take() []*request {
	for {
		l.mu.Lock()
		var batch []*request
		var bytes int64
		n := 0
		for ; n < len(l.queue); n++ {
			r := l.queue[n]
			if len(batch) > 0 && bytes+r.bytes > MaxBatch {
				break
			}
			if r.phase.CompareAndSwap(phaseQueued, phaseTaken) {
				batch = append(batch, r)
				bytes += r.bytes
			}
		}
		rest := copy(l.queue, l.queue[n:])
		clear(l.queue[rest:])
		l.queue = l.queue[:rest]
		done := l.closed && rest == 0
		l.mu.Unlock()
		if len(batch) > 0 {
			return batch
		}
		if done {
			return nil
		}
		<-l.wake
	}
}

// commit records a batch. An error that is not sticky means that nothing was
// written. Comments say what a crash leaves at each step; in every case no
// Append of this batch has returned, so nobody acted on it.
func (l *Log) commit(batch []*request) error {
	if err := l.stopped(); err != nil {
		return err
	}
	var bytes int64
	for _, r := range batch {
		bytes += r.bytes
	}
	if err := l.room(bytes); err != nil {
		return err
	}
	now, err := l.now()
	if err != nil {
		return l.stop(err)
	}
	l.last = max(l.last, now)
	if l.end > int64(headerSize) && (l.end >= l.cfg.SegmentBytes || l.rollNext.Load()) {
		if err := l.roll(); err != nil {
			return l.stop(fmt.Errorf("%w: beginning a segment: %w", ErrFatal, err))
		}
	}

	l.rollNext.Store(false)
	l.frames, l.stored, l.starts = l.frames[:0], l.stored[:0], l.starts[:0]
	first := l.edge.size
	for _, r := range batch {
		r.first, r.time = l.edge.size, l.last
		for _, record := range r.records {
			l.starts = appendU64(l.starts, uint64(l.end+int64(len(l.frames))))
			var leaf tlog.Hash
			l.frames, leaf = appendRecord(l.frames, kindRecord, l.edge.size, l.last, record.Entry, record.Body)
			l.stored = l.edge.add(l.stored, leaf)
		}
	}
	root := l.edge.root()
	l.frames = appendSeal(l.frames, l.edge.size, l.key.seal(l.id, l.edge.size, root))

	d := &l.cfg.disk
	segment := l.segments[len(l.segments)-1].file
	if err := d.write(segment, l.frames, l.end); err != nil {
		return l.stop(fmt.Errorf("%w: writing the journal: %w", ErrFatal, err))
	}
	// A crash here leaves any part of the frames. Without a whole seal after
	// whole frames they are cut at open; else they are kept, as below.
	if err := d.sync(segment); err != nil {
		return l.stop(fmt.Errorf("%w: syncing the journal: %w", ErrFatal, err))
	}
	// The index files need no fsync: a crash anywhere throws them away.
	if err := d.write(l.hashes, l.stored, tlog.StoredHashIndex(0, first)*tlog.HashSize); err != nil {
		return l.stop(fmt.Errorf("%w: writing the hashes: %w", ErrFatal, err))
	}
	if err := d.write(l.offsets, l.starts, first*8); err != nil {
		return l.stop(fmt.Errorf("%w: writing the offsets: %w", ErrFatal, err))
	}
	// A crash here leaves a sealed commit without a signature. Open keeps and
	// signs it. That goes for a failed signature too: the entries are durable,
	// but without a signed root there is no receipt, and a token that cannot
	// sign can serve no key use either. Trying again is the Signer's business,
	// who knows whether a session or the token broke.
	s, err := l.sign(context.Background(), l.edge.size, root)
	if err != nil {
		return l.stop(fmt.Errorf("%w: signing the root: %w", ErrFatal, err))
	}
	cp, err := l.checkpoint(&s)
	if err != nil {
		return l.stop(fmt.Errorf("%w: signing the root: %w", ErrFatal, err))
	}
	// A crash from here to the end of the fsync leaves the slot of this commit
	// or, if it is torn, the slot of the one before. A signature that was made
	// and lost was seen by nobody; signing the same root again says the same.
	s.generation = l.generation + 1
	if err := writeSlot(d, l.state, &s); err != nil {
		return l.stop(fmt.Errorf("%w: writing the signer state: %w", ErrFatal, err))
	}
	l.generation = s.generation
	l.end += int64(len(l.frames))
	l.recent.add(l.stored)
	l.pace.grow(l.last, int64(len(l.frames))+indexBytes*(l.edge.size-first))
	l.view.Store(&view{cp: cp, state: s, edge: l.edge, segments: l.segments})
	l.shrink()
	return nil
}

// shrink gives back the scratch of an unusually large commit.
func (l *Log) shrink() {
	if cap(l.frames) > 4<<20 {
		l.frames, l.stored, l.starts = nil, nil, nil
	}
}

// roll begins a segment. It gets its name when its header is on disk; a crash
// before that leaves a temporary file, and after it an empty segment, which
// open accepts.
func (l *Log) roll() error {
	name := segmentName(l.edge.size)
	if err := l.cfg.disk.replace(l.cfg.Dir, name, journalHeader(l.id, l.edge.size)); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(l.cfg.Dir, name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	l.segments = append(l.segments, &segment{file: f, name: name, first: l.edge.size})
	l.end = int64(headerSize)
	return nil
}

// startClock notes both clocks at open and refuses a wall clock that is earlier
// than the newest entry.
func (l *Log) startClock() error {
	l.wall0, l.mono0 = l.cfg.Clock()
	now, err := l.now()
	if err != nil {
		return err
	}
	if l.last-now > clockTolerance.Milliseconds() {
		return fmt.Errorf("%w: it is %d ms earlier than the newest entry", ErrClock, l.last-now)
	}
	return nil
}

// now reads the wall clock and holds it against the monotonic clock. The
// comparison is with the time of open, so that small steps add up.
func (l *Log) now() (int64, error) {
	wall, mono := l.cfg.Clock()
	step := wall.Sub(l.wall0) - (mono - l.mono0)
	if step.Abs() > clockTolerance {
		return 0, fmt.Errorf("%w: it stepped by %v", ErrClock, step)
	}
	ms := wall.UnixMilli()
	if ms < 0 {
		return 0, fmt.Errorf("%w: it is before 1970", ErrClock)
	}
	return ms, nil
}

// keep saves the signer state in the token every minute, beside the commits. A
// view is stored only after its slot is on disk, so the token's copy is never
// newer than the file.
func (l *Log) keep() {
	tick := time.NewTicker(saveInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_ = l.keepState(context.Background()) // Health tells of an error
			l.keepCold()
		case <-l.closing:
			return
		}
	}
}

// keepState saves the newest signer state in the token and the newest checkpoint
// in the log's folder. One goroutine at a time calls it: open, then keep, then
// Close.
func (l *Log) keepState(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	v := l.view.Load()
	err := l.cfg.State.Save(ctx, v.state.encode())
	if err == nil {
		err = l.cfg.disk.replace(l.cfg.Dir, checkpointFile, []byte(v.cp.Note))
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrStaleCopy, err)
		l.stale.Store(&err)
		return err
	}
	l.stale.Store(nil)
	l.saved = v.cp.Size
	return nil
}

// Health returns nil if the next Append can be expected to work and the token's
// copy of the signer state is fresh.
func (l *Log) Health() error {
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if err := l.stopped(); err != nil {
		return err
	}
	if _, err := l.now(); err != nil {
		return err
	}
	if err := l.room(0); err != nil {
		return err
	}
	for _, fault := range []*error{l.stale.Load(), l.coldFault.Load()} {
		if fault != nil {
			return *fault
		}
	}
	return nil
}

// Recovery tells what Open had to repair.
func (l *Log) Recovery() Recovery { return l.recovery }

// Close commits what is queued, saves the signer state in the token and lets go
// of the folders. Later calls return what the first did.
func (l *Log) Close() error {
	l.closeOnce.Do(func() {
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		close(l.closing)
		l.poke()
		l.background.Wait()
		if err := l.keepState(context.Background()); err != nil {
			l.closeErr = fmt.Errorf("closing the key-use log: %w", err)
		}
		l.readers.Wait()
		l.release()
	})
	return l.closeErr
}

// release closes every file and gives up the locks.
func (l *Log) release() {
	for _, s := range l.segments {
		if s.file != nil {
			_ = s.file.Close()
		}
	}
	for _, f := range []*os.File{l.hashes, l.offsets, l.state} {
		if f != nil {
			_ = f.Close()
		}
	}
	if l.key != nil {
		l.key.wipe()
	}
	for _, f := range l.locks {
		_ = f.Close()
	}
}

// Checkpoint returns the newest signed root.
func (l *Log) Checkpoint() Checkpoint { return l.view.Load().cp }

// read runs f with the newest view while the files cannot be closed.
func (l *Log) read(f func(*view) error) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.readers.Add(1)
	l.mu.Unlock()
	defer l.readers.Done()
	return f(l.view.Load())
}

func (l *Log) tree(v *view) hashReader {
	return hashReader{edge: &v.edge, recent: &l.recent, file: l.hashes}
}

// Prove returns the proof that the entry at index is in the tree of the first
// size entries; tlog.CheckRecord checks it.
func (l *Log) Prove(index, size int64) (proof tlog.RecordProof, err error) {
	err = l.read(func(v *view) error {
		if index < 0 || index >= size || size > v.cp.Size {
			return fmt.Errorf("entry %d in a tree of %d: %w", index, size, ErrRange)
		}
		tree := l.tree(v)
		if proof, err = tlog.ProveRecord(size, index, tree); err != nil {
			return err
		}
		if size < v.cp.Size {
			return nil
		}
		// The hash file is only an index: what it says about the signed root is
		// checked before anyone relies on it.
		leaf, err := tree.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		if err != nil {
			return err
		}
		if tlog.CheckRecord(proof, size, v.cp.Root, index, leaf[0]) != nil {
			return &DamageError{File: hashesFile, Offset: -1, Index: index, What: "its hashes do not lead to the signed root"}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("proving inclusion: %w", err)
	}
	return proof, nil
}

// ProveConsistency returns the proof that the tree of the first size entries
// begins with the tree of the first old entries; tlog.CheckTree checks it.
func (l *Log) ProveConsistency(old, size int64) (proof tlog.TreeProof, err error) {
	err = l.read(func(v *view) error {
		if old < 1 || old > size || size > v.cp.Size {
			return fmt.Errorf("a tree of %d in one of %d: %w", old, size, ErrRange)
		}
		proof, err = tlog.ProveTree(size, old, l.tree(v))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("proving consistency: %w", err)
	}
	return proof, nil
}

// find returns the segment of an entry and where its frame begins.
func (l *Log) find(v *view, index int64) (int, int64, error) {
	if index < 0 || index >= v.cp.Size {
		return 0, 0, fmt.Errorf("entry %d: %w", index, ErrRange)
	}
	var b [8]byte
	if _, err := l.offsets.ReadAt(b[:], index*8); err != nil {
		return 0, 0, err
	}
	n := sort.Search(len(v.segments), func(i int) bool { return v.segments[i].first > index }) - 1
	return n, int64(binary.BigEndian.Uint64(b[:])), nil
}

// Read returns the entry and body at index. The body is nil if it was erased or
// never there.
func (l *Log) Read(index int64) (p Position, r Record, err error) {
	f, err := l.readFrame(index)
	if err != nil {
		return Position{}, Record{}, fmt.Errorf("reading entry %d: %w", index, err)
	}
	return f.position(), f.record(), nil
}

// ReadLeaf returns the bytes whose leaf hash the tree holds for the entry at
// index; tlog.RecordHash hashes them.
func (l *Log) ReadLeaf(index int64) ([]byte, error) {
	f, err := l.readFrame(index)
	if err != nil {
		return nil, fmt.Errorf("reading entry %d: %w", index, err)
	}
	return f.leaf[1:], nil // without the leaf prefix
}

func (l *Log) readFrame(index int64) (f frame, err error) {
	err = l.read(func(v *view) error {
		n, at, err := l.find(v, index)
		if err != nil {
			return err
		}
		s := v.segments[n]
		damage := func(what string) error {
			return &DamageError{File: s.name, Offset: at, Index: index, What: what + ", unless the damage is in " + offsetsFile + " or " + hashesFile}
		}
		err = l.with(s, func(r io.ReaderAt, _ int64) error {
			head := make([]byte, frameHead)
			if _, err := r.ReadAt(head, at); err != nil {
				return damage(err.Error())
			}
			size, err := payloadLength(head)
			if err != nil {
				return damage(err.Error())
			}
			b := append(make([]byte, 0, frameHead+size), head...)[:frameHead+size]
			if _, err := r.ReadAt(b[frameHead:], at+frameHead); err != nil {
				return damage(err.Error())
			}
			if f, _, err = parseFrame(b); err != nil {
				return damage(err.Error())
			}
			return nil
		})
		if err != nil {
			return err
		}
		want, err := l.tree(v).ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		if err != nil {
			return err
		}
		if f.kind == kindSeal || f.index != index || f.hash() != want[0] {
			return damage("another entry lies here than " + hashesFile + " says")
		}
		if s.cold() { // neither file was verified when the log was opened
			proof, err := tlog.ProveRecord(v.cp.Size, index, l.tree(v))
			if err != nil {
				return err
			}
			if tlog.CheckRecord(proof, v.cp.Size, v.cp.Root, index, f.hash()) != nil {
				return damage("it does not lead to the signed root")
			}
		}
		return nil
	})
	return f, err
}

func (f *frame) position() Position {
	return Position{Index: f.index, Time: time.UnixMilli(f.time).UTC()}
}

func (f *frame) record() Record {
	r := Record{Entry: f.entry}
	if len(f.body) > 0 {
		r.Body = f.body
	}
	return r
}

// Replay calls f with every entry from the index from to the newest one signed
// when it began, in order. The record's slices are valid only during the call.
// It ends with the first error, f's or its own. The log can be appended to
// meanwhile, by f too. Close waits for it, so f must not call Close.
func (l *Log) Replay(ctx context.Context, from int64, f func(Position, Record) error) error {
	err := l.read(func(v *view) error {
		if from == v.cp.Size {
			return nil
		}
		n, at, err := l.find(v, from)
		if err != nil {
			return err
		}
		next := from
		for _, s := range v.segments[n:] {
			if s.cold() {
				err = l.replayCold(ctx, v, s, &next, f)
			} else {
				err = l.replaySegment(ctx, s, at, &next, v.cp.Size, f)
			}
			if err != nil {
				return err
			}
			at = int64(headerSize)
		}
		if next != v.cp.Size {
			return &DamageError{File: v.segments[len(v.segments)-1].name, Offset: -1, Index: next, What: "the journal was cut while open"}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("replaying the key-use log: %w", err)
	}
	return nil
}

func (l *Log) replaySegment(ctx context.Context, s *segment, at int64, next *int64, size int64, f func(Position, Record) error) error {
	return l.with(s, func(r io.ReaderAt, end int64) error {
		return replayFrames(ctx, r, s.name, at, end, next, size, f)
	})
}

func replayFrames(ctx context.Context, r io.ReaderAt, name string, at, end int64, next *int64, size int64, f func(Position, Record) error) error {
	scan := newScanner(r, at, end)
	defer scan.close()
	for *next < size {
		fr, at, err := scan.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if errors.Is(err, errTorn) || errors.Is(err, errForeign) {
			return &DamageError{File: name, Offset: at, Index: *next, What: err.Error()}
		}
		if err != nil {
			return err
		}
		if fr.kind == kindSeal {
			continue
		}
		if fr.index != *next {
			return &DamageError{File: name, Offset: at, Index: *next, What: fmt.Sprintf("entry %d lies here", fr.index)}
		}
		*next++
		if *next%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := f(fr.position(), fr.record()); err != nil {
			return err
		}
	}
	return nil
}
