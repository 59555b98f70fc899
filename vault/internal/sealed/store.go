package sealed

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/redact"
)

// fileName is the store's one file. The number is the format's.
const fileName = "sealed-keys.1"

const (
	// growth is by how many slots the file grows: half a megabyte.
	growth = 1024
	// maxSlots is how many slots a file has at most: 8 GiB of them.
	maxSlots = 1 << 24
)

// Config says where the store lies and whose it is.
type Config struct {
	redact.Redacted

	// Dir is the store's folder, made if there is none. It is not trusted, but it is not disposable either: back it up.
	Dir string
	// DataKey seals the values. It comes from the token.
	DataKey [32]byte
	Vault   policies.VaultID
	// Reserve is the free space in bytes below which no further key is taken. Zero means 256 MiB.
	Reserve int64
	Logger  *slog.Logger

	disk disk // tests make it fail
}

// Store is the open store. Its methods may be called from any goroutine.
type Store struct {
	cfg   Config
	crypt *crypt
	file  *os.File

	// moves is held for reading by Put and Delete, and for writing by Replace, so that no key is deleted between its two places.
	moves sync.RWMutex

	mu      sync.RWMutex // guards the rest
	places  map[ID]place
	free    []uint32 // slots that are zeros on disk
	slots   uint32   // in the file
	damaged []uint32 // slots that did not open at the start
	fault   error    // why nothing is changed any more
	flush   flush
}

// place is where a value lies, and which one it is.
type place struct{ slot, version, period uint32 }

// Open opens the store, or makes it, and looks at every value once.
func Open(cfg Config) (*Store, error) {
	if cfg.Reserve == 0 {
		cfg.Reserve = 256 << 20
	}
	cfg.disk.complete()
	s := &Store{cfg: cfg, crypt: newCrypt(&cfg.DataKey, cfg.Vault), places: map[ID]place{}}
	s.flush.done.L = &s.flush.mu
	clear(s.cfg.DataKey[:])
	if err := s.open(); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("opening the sealed keys: %w", err)
	}
	return s, nil
}

func (s *Store) open() error {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(s.cfg.Dir, fileName)
	_, err := os.Lstat(path)
	fresh := errors.Is(err, os.ErrNotExist)
	s.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(s.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s is in use by another process: %w", path, err)
	}
	if fresh {
		for _, dir := range []string{s.cfg.Dir, filepath.Dir(s.cfg.Dir)} {
			if err := s.cfg.disk.syncDir(dir); err != nil {
				return err
			}
		}
	}
	return s.scan()
}

// scanned is what one goroutine found in its part of the file.
type scanned struct {
	values  []value // without blobs
	slots   []uint32
	free    []uint32
	damaged []uint32
	err     error
}

// scan reads the whole file. Each processor takes a part.
func (s *Store) scan() error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() > maxSlots*slotSize {
		return fmt.Errorf("%s has %d bytes; more than %d are not the work of a vault", s.file.Name(), info.Size(), int64(maxSlots*slotSize))
	}
	s.slots = uint32(info.Size() / slotSize) // what a torn growth left behind them is written over by the next
	parts := make([]scanned, max(1, min(runtime.GOMAXPROCS(0), int(s.slots/growth))))
	var wg sync.WaitGroup
	for i := range parts {
		from, to := uint64(s.slots)*uint64(i)/uint64(len(parts)), uint64(s.slots)*uint64(i+1)/uint64(len(parts))
		wg.Go(func() { s.scanPart(&parts[i], uint32(from), uint32(to)) })
	}
	wg.Wait()
	var stale []uint32
	for i := range parts {
		p := &parts[i]
		if p.err != nil {
			return p.err
		}
		s.free, s.damaged = append(s.free, p.free...), append(s.damaged, p.damaged...)
		for j := range p.values {
			v := &p.values[j]
			here := place{p.slots[j], v.version, v.key.Period}
			if other, twice := s.places[v.id]; twice { // a crash came between the new version and the end of the old one
				if other.version > here.version {
					here, other = other, here
				}
				stale = append(stale, other.slot)
			}
			s.places[v.id] = here
		}
	}
	slices.Reverse(s.free) // the first ones are taken first
	if len(s.damaged) > 0 {
		s.cfg.Logger.Warn("values in the file of sealed keys do not open", "file", s.file.Name(), "values", len(s.damaged), "first_at_byte", int64(s.damaged[0])*slotSize)
	}
	return s.empty(stale)
}

func (s *Store) scanPart(p *scanned, from, to uint32) {
	buf := make([]byte, growth*slotSize)
	for from < to {
		n := min(to-from, growth)
		chunk := buf[:int(n)*slotSize]
		if _, p.err = s.file.ReadAt(chunk, int64(from)*slotSize); p.err != nil {
			return
		}
		for i := range n {
			switch v, err := s.crypt.open(chunk[int(i)*slotSize : int(i+1)*slotSize]); {
			case err != nil:
				p.damaged = append(p.damaged, from+i)
			case v == nil:
				p.free = append(p.free, from+i)
			default:
				v.key.Blob = nil
				p.values, p.slots = append(p.values, *v), append(p.slots, from+i)
			}
		}
		from += n
	}
}

// Get reads a key. An error is of the kind [ErrMissing] or [ErrDamaged], or that of the disk.
func (s *Store) Get(id ID) (Key, error) {
	v, err := s.get(id)
	if err != nil {
		return Key{}, err
	}
	return v.key, nil
}

func (s *Store) get(id ID) (*value, error) {
	var slot [slotSize]byte
	// The lock keeps the slot from being emptied and taken by another key meanwhile. It is held while one page is copied.
	s.mu.RLock()
	at, ok := s.places[id]
	var err error
	if ok {
		_, err = s.file.ReadAt(slot[:], int64(at.slot)*slotSize)
	}
	s.mu.RUnlock()
	if !ok {
		return nil, ErrMissing
	}
	if errors.Is(err, io.EOF) { // somebody cut the file
		slot = [slotSize]byte{}
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading a sealed key: %w", err)
	}
	v, err := s.crypt.open(slot[:])
	if err == nil && (v == nil || v.id != id || v.version != at.version || v.key.Period != at.period) {
		err = ErrDamaged
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s, at byte %d", err, s.file.Name(), int64(at.slot)*slotSize)
	}
	return v, nil
}

// Put stores a key, durably, in place of the one that it may have already.
func (s *Store) Put(id ID, key Key) error {
	s.moves.RLock()
	defer s.moves.RUnlock()
	s.mu.Lock()
	old, replaces := s.places[id]
	at, err := s.take()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	v := value{id: id, version: old.version + 1, key: key}
	if err := s.write(at, &v); err != nil {
		if errors.Is(err, ErrTooLong) {
			s.give([]uint32{at})
		}
		return err
	}
	if err := s.sync(); err != nil {
		return err
	}
	s.mu.Lock()
	s.places[id] = place{at, v.version, key.Period}
	s.mu.Unlock()
	if replaces {
		return s.empty([]uint32{old.slot})
	}
	return nil
}

// Delete removes keys for good. When it returns nil they are gone from the file, durably, also those that were not there.
func (s *Store) Delete(ids ...ID) error {
	s.moves.RLock()
	defer s.moves.RUnlock()
	var slots []uint32
	s.mu.Lock()
	for _, id := range ids {
		if at, ok := s.places[id]; ok {
			slots = append(slots, at.slot)
			delete(s.places, id) // from here on nobody gets it
		}
	}
	fault := s.fault
	s.mu.Unlock()
	if len(slots) == 0 {
		return fault // nothing of them is in the file, unless an earlier deletion failed
	}
	return s.empty(slots)
}

// A Move replaces the version of a key that was read with Old by another.
type Move struct {
	ID       ID
	Old, New Key
	from     place
}

// Older reads those of the given keys that lie under a period before the given one, at most limit of them, and returns where it stopped. What
// does not open is left out and named. An error is that of the disk.
func (s *Store) Older(ids []ID, period uint32, limit int) (moves []Move, damaged []ID, next int, err error) {
	for next < len(ids) && len(moves) < limit {
		id := ids[next]
		next++
		s.mu.RLock()
		at, ok := s.places[id]
		s.mu.RUnlock()
		if !ok || at.period >= period {
			continue
		}
		v, err := s.get(id)
		switch {
		case err == nil && v.version == at.version && v.key.Period == at.period:
			moves = append(moves, Move{ID: id, Old: v.key, from: at})
		case err == nil || errors.Is(err, ErrMissing): // it was replaced or deleted since: for a later round
		case errors.Is(err, ErrDamaged):
			damaged = append(damaged, id)
		default:
			return moves, damaged, next, err
		}
	}
	return moves, damaged, next, nil
}

// Replace stores the new versions, durably, of those keys that are still what they were when [Store.Older] read them, and where they were. One that was deleted
// meanwhile stays deleted, also if another key was stored under its id since. It returns the periods under which those lay that were replaced.
func (s *Store) Replace(moves []Move) ([]uint32, error) {
	s.moves.Lock()
	defer s.moves.Unlock()
	type step struct {
		v        value
		from, to uint32
	}
	var steps []step
	s.mu.Lock()
	for i := range moves {
		m := &moves[i]
		at, ok := s.places[m.ID]
		if !ok || at != m.from {
			continue
		}
		to, err := s.take()
		if err != nil {
			for _, st := range steps {
				s.free = append(s.free, st.to)
			}
			s.mu.Unlock()
			return nil, err
		}
		steps = append(steps, step{value{id: m.ID, version: at.version + 1, key: m.New}, at.slot, to})
	}
	s.mu.Unlock()
	if len(steps) == 0 {
		return nil, nil
	}
	for i := range steps {
		if err := s.write(steps[i].to, &steps[i].v); err != nil {
			return nil, s.stop(err) // whatever it was, some slots are written and some are not
		}
	}
	if err := s.sync(); err != nil {
		return nil, err
	}
	old, periods := make([]uint32, len(steps)), make([]uint32, len(steps))
	s.mu.Lock()
	for i := range steps {
		st := &steps[i]
		periods[i] = s.places[st.v.id].period
		s.places[st.v.id], old[i] = place{st.to, st.v.version, st.v.key.Period}, st.from
	}
	s.mu.Unlock()
	return periods, s.empty(old)
}

// IDs are the keys that are there.
func (s *Store) IDs() []ID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]ID, 0, len(s.places))
	for id := range s.places {
		out = append(out, id)
	}
	return out
}

// Period is the period under which a key lies.
func (s *Store) Period(id ID) (uint32, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	at, ok := s.places[id]
	return at.period, ok
}

// Periods counts the keys under each period.
func (s *Store) Periods() map[uint32]int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := map[uint32]int{}
	for _, at := range s.places {
		out[at.period]++
	}
	return out
}

// File is the store's file, to be named to people.
func (s *Store) File() string { return s.file.Name() }

// Fault tells why the store takes no changes; nil if it does.
func (s *Store) Fault() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.fault
}

// Health tells why the next [Store.Put] would be refused, as far as that is known: an error of the kind [ErrStopped] or [ErrFull]; nil if it would not.
func (s *Store) Health() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fault != nil || len(s.free) > 0 {
		return s.fault
	}
	return s.roomToGrow()
}

// Settle ends the start: it removes the keys that are not wanted, and reports how many those were, and which of the wanted are missing. Slots
// that did not open are emptied if nothing is missing, since then they hold nothing that anybody was promised.
func (s *Store) Settle(wanted map[ID]bool) (removed int, missing []ID, err error) {
	var orphans []ID
	s.mu.RLock()
	for id := range s.places {
		if !wanted[id] {
			orphans = append(orphans, id)
		}
	}
	for id := range wanted {
		if _, ok := s.places[id]; !ok {
			missing = append(missing, id)
		}
	}
	s.mu.RUnlock()
	if len(orphans) > 0 {
		if err := s.Delete(orphans...); err != nil {
			return 0, missing, err
		}
	}
	if len(missing) == 0 && len(s.damaged) > 0 {
		damaged := s.damaged
		s.damaged = nil
		if err := s.empty(damaged); err != nil {
			return len(orphans), nil, err
		}
	}
	return len(orphans), missing, nil
}

// Close lets go of the file and zeroes the key.
func (s *Store) Close() error {
	s.crypt.zero()
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// take takes a free slot; the caller holds mu. The file grows by blocks that are set aside, so that what is written into
// them later needs no room.
func (s *Store) take() (uint32, error) {
	if s.fault != nil {
		return 0, s.fault
	}
	if len(s.free) == 0 {
		if err := s.roomToGrow(); err != nil {
			return 0, err
		}
		if err := s.cfg.disk.grow(s.file, int64(s.slots)*slotSize, growth*slotSize); err != nil {
			return 0, fmt.Errorf("%w: %w", ErrFull, err) // no slot was written yet, so nothing is in doubt
		}
		for i := range uint32(growth) {
			s.free = append(s.free, s.slots+growth-1-i)
		}
		s.slots += growth
	}
	last := len(s.free) - 1
	at := s.free[last]
	s.free = s.free[:last]
	return at, nil
}

// roomToGrow is called with mu held.
func (s *Store) roomToGrow() error {
	if s.slots+growth > maxSlots {
		return fmt.Errorf("%w: the file has its %d slots", ErrFull, maxSlots)
	}
	free, err := s.cfg.disk.room(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("measuring free space: %w", err)
	}
	if free < s.cfg.Reserve {
		return fmt.Errorf("%w: %d bytes free, the reserve is %d", ErrFull, free, s.cfg.Reserve)
	}
	return nil
}

func (s *Store) give(slots []uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, slots...)
}

func (s *Store) write(at uint32, v *value) error {
	slot, err := s.crypt.seal(v)
	if err != nil {
		return err
	}
	if err := s.cfg.disk.write(s.file, slot, int64(at)*slotSize); err != nil {
		return s.stop(err)
	}
	return nil
}

// empty overwrites slots that no place names any more, and only then frees them.
func (s *Store) empty(slots []uint32) error {
	if len(slots) == 0 {
		return nil
	}
	if err := s.Fault(); err != nil {
		return err
	}
	for _, at := range slots {
		if err := s.cfg.disk.write(s.file, zeroSlot[:], int64(at)*slotSize); err != nil {
			return s.stop(err)
		}
	}
	if err := s.sync(); err != nil {
		return err
	}
	s.give(slots)
	return nil
}

// stop makes the store take no changes any more.
func (s *Store) stop(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == nil {
		s.fault = fmt.Errorf("%w: %w", ErrStopped, err)
		s.cfg.Logger.Error("the file of sealed keys was not written; it takes no changes until the vault is started again", "file", s.file.Name(), "error", err.Error())
	}
	return s.fault
}

// flush lets writers who wait at once share an fsync.
type flush struct {
	mu      sync.Mutex
	done    sync.Cond
	asked   uint64 // requests so far
	over    uint64 // requests that an fsync has served
	running bool
}

// sync returns when everything that was written before is on disk.
func (s *Store) sync() error {
	f := &s.flush
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	mine := f.asked
	for f.over < mine {
		if f.running {
			f.done.Wait()
			continue
		}
		upTo := f.asked // whoever asked had written before
		f.running = true
		f.mu.Unlock()
		err := s.cfg.disk.sync(s.file)
		if err != nil {
			_ = s.stop(err) // which those who wait see below
		}
		f.mu.Lock()
		f.running, f.over = false, upTo
		f.done.Broadcast()
	}
	return s.Fault()
}

// disk is how the file changes, so that tests can make each step fail.
type disk struct {
	write   func(f *os.File, b []byte, offset int64) error
	sync    func(f *os.File) error
	syncDir func(dir string) error
	grow    func(f *os.File, from, length int64) error
	room    func(dir string) (int64, error)
}

func (d *disk) complete() {
	if d.write == nil {
		d.write = func(f *os.File, b []byte, offset int64) error { _, err := f.WriteAt(b, offset); return err }
	}
	if d.sync == nil {
		d.sync = func(f *os.File) error { return retry(func() error { return unix.Fdatasync(int(f.Fd())) }) }
	}
	if d.syncDir == nil {
		d.syncDir = syncDir
	}
	if d.grow == nil {
		d.grow = grow
	}
	if d.room == nil {
		d.room = room
	}
}

// retry repeats what a signal interrupted, and nothing else: after another error the kernel may have dropped what was to be written.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// grow sets blocks aside, that read as zeros. What lies behind the last whole slot, after a growth that was cut short, becomes zeros too.
func grow(f *os.File, from, length int64) error {
	if err := f.Truncate(from); err != nil {
		return err
	}
	err := retry(func() error { return unix.Fallocate(int(f.Fd()), 0, from, length) })
	if errors.Is(err, unix.EOPNOTSUPP) { // a file system that cannot: then zeros are written
		_, err = f.WriteAt(make([]byte, length), from)
	}
	if err != nil {
		return errors.Join(err, f.Truncate(from))
	}
	return retry(func() error { return unix.Fsync(int(f.Fd())) })
}

func room(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}
