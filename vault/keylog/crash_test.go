package keylog

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCutAtEveryByte cuts the journal at every byte of the last commit, once as
// a crash leaves it before the signature, once after everything was signed.
func TestCutAtEveryByte(t *testing.T) {
	b := newBench(t).unsynced()
	l := b.create(t)
	mustAppend(t, l, records(0, 3)...)
	before := b.clone(t)
	mustAppend(t, l, records(3, 3)...)
	after := b.clone(t)
	mustClose(t, l)

	whole := load(t, after.Dir, segmentName(0))
	from := len(load(t, before.Dir, segmentName(0)))
	for cut := from; cut <= len(whole); cut++ {
		for _, tail := range [][]byte{nil, make([]byte, 40), []byte(strings.Repeat("\xff", 40))} {
			if tail != nil && (cut == len(whole) || cut%5 != 0) {
				continue
			}
			torn := append(bytes.Clone(whole[:cut]), tail...)
			if bytes.Equal(torn[:min(len(torn), len(whole))], whole) {
				continue // the tail happens to complete it
			}
			c := before.clone(t)
			store(t, torn, c.Dir, segmentName(0))
			l := c.open(t)
			holds(t, l, 3)
			if l.Recovery().CutBytes != int64(len(torn)-from) || l.Recovery().SignedEntries != 0 {
				t.Fatalf("cut at %d: %+v", cut, l.Recovery())
			}
			mustAppend(t, l, records(3, 2)...) // and it goes on from there
			mustClose(t, l)
			l = c.open(t)
			holds(t, l, 5)
			mustClose(t, l)

			c = after.clone(t)
			store(t, torn, c.Dir, segmentName(0))
			c.refuse(t)
		}
	}

	c := before.clone(t)
	store(t, whole, c.Dir, segmentName(0))
	l = c.open(t)
	holds(t, l, 6)
	if l.Recovery() != (Recovery{SignedEntries: 3}) {
		t.Fatalf("%+v", l.Recovery())
	}
}

// TestTornSlot tears the newest slot at every byte: the one before counts, and
// the sealed commit is signed again.
func TestTornSlot(t *testing.T) {
	b := newBench(t).unsynced()
	l := b.create(t)
	mustAppend(t, l, records(0, 3)...)
	old := load(t, b.StateDir, stateFile)
	mustAppend(t, l, records(3, 3)...)
	crashed := b.clone(t)
	state := load(t, b.StateDir, stateFile)
	at := int(1+l.generation%2) * statePage
	for cut := range slotSize {
		c := crashed.clone(t)
		torn := bytes.Clone(state)
		copy(torn[at+cut:at+slotSize], old[at+cut:])
		store(t, torn, c.StateDir, stateFile)
		l := c.open(t)
		holds(t, l, 6)
		mustClose(t, l)
	}
}

// TestCrashAtEveryStep copies the folders around each write and fsync, as a
// power cut would find them if all that was written had reached the disk, and
// also with the write in question missing. Whatever was acknowledged is there.
func TestCrashAtEveryStep(t *testing.T) {
	b := newBench(t).unsynced()
	b.SegmentBytes = 200
	acknowledged, begun := 0, 0
	var copies []struct {
		*bench
		least, most int
	}
	running := false
	snapshot := func() {
		if running {
			copies = append(copies, struct {
				*bench
				least, most int
			}{b.clone(t), acknowledged, begun})
		}
	}
	b.disk.write = func(f *os.File, p []byte, at int64) error {
		snapshot()
		err := writeAt(f, p, at)
		snapshot()
		return err
	}
	b.disk.sync = func(*os.File) error { snapshot(); return nil }
	b.disk.syncDir = func(string) error { snapshot(); return nil }
	l := b.create(t)
	running = true
	for i := range 8 {
		begun += 2
		mustAppend(t, l, records(2*i, 2)...)
		acknowledged += 2
	}
	running = false
	mustClose(t, l)
	if len(copies) < 60 {
		t.Fatalf("only %d copies", len(copies))
	}
	for i, c := range copies {
		c.disk = newBench(t).unsynced().disk
		l := c.open(t)
		size := int(l.Checkpoint().Size)
		if size < c.least || size > c.most {
			t.Fatalf("copy %d has %d entries, want %d to %d", i, size, c.least, c.most)
		}
		holds(t, l, size)
		mustClose(t, l)
	}
}

// TestFaults makes each step of a commit fail, before, half-way through, or
// after it happened. The log stops, says so, and opens with everything that was
// acknowledged.
func TestFaults(t *testing.T) {
	const (
		lost = iota
		half
		persisted
	)
	broken := errors.New("input/output error")
	for name, test := range map[string]struct {
		write, sync string // prefix of the file whose write or fsync fails
		how         int
		sign        func(sig []byte) ([]byte, error)
		roll        bool
		size        int // entries after reopening; 3 were acknowledged, 3 were not
	}{
		"journal write lost":               {write: "journal-", how: lost, size: 3},
		"journal write torn":               {write: "journal-", how: half, size: 3},
		"journal write failed, persisted":  {write: "journal-", how: persisted, size: 6},
		"journal fsync failed":             {sync: "journal-", how: lost, size: 6},
		"journal fsync failed, persisted":  {sync: "journal-", how: persisted, size: 6},
		"hashes write lost":                {write: hashesFile, how: lost, size: 6},
		"hashes write torn":                {write: hashesFile, how: half, size: 6},
		"offsets write lost":               {write: offsetsFile, how: lost, size: 6},
		"offsets write failed, persisted":  {write: offsetsFile, how: persisted, size: 6},
		"state write lost":                 {write: stateFile, how: lost, size: 6},
		"state write torn":                 {write: stateFile, how: half, size: 6},
		"state write failed, persisted":    {write: stateFile, how: persisted, size: 6},
		"state fsync failed":               {sync: stateFile, how: lost, size: 6},
		"state fsync failed, persisted":    {sync: stateFile, how: persisted, size: 6},
		"token refuses":                    {sign: func([]byte) ([]byte, error) { return nil, broken }, size: 6},
		"token signs, then fails":          {sign: func(sig []byte) ([]byte, error) { return sig, broken }, size: 6},
		"token answers a wrong signature":  {sign: func(sig []byte) ([]byte, error) { sig[3] ^= 1; return sig, nil }, size: 6},
		"token answers a short signature":  {sign: func(sig []byte) ([]byte, error) { return sig[:63], nil }, size: 6},
		"token answers nothing":            {sign: func([]byte) ([]byte, error) { return nil, nil }, size: 6},
		"segment's header lost":            {write: "journal-", how: lost, roll: true, size: 3},
		"segment's header torn":            {write: "journal-", how: half, roll: true, size: 3},
		"segment's header fsync failed":    {sync: "journal-", how: persisted, roll: true, size: 3},
		"segment's header failed, written": {write: "journal-", how: persisted, roll: true, size: 3},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			failing := false
			b.disk.write = func(f *os.File, p []byte, at int64) error {
				if !failing || test.write == "" || !strings.HasPrefix(filepath.Base(f.Name()), test.write) {
					return writeAt(f, p, at)
				}
				switch test.how {
				case half:
					writeAt(f, p[:len(p)/2], at)
				case persisted:
					writeAt(f, p, at)
				}
				return broken
			}
			b.disk.sync = func(f *os.File) error {
				if !failing || test.sync == "" || !strings.HasPrefix(filepath.Base(f.Name()), test.sync) {
					return syncFile(f)
				}
				if test.how == persisted {
					syncFile(f)
				}
				return broken
			}
			if test.roll {
				b.SegmentBytes = 100
			}
			l := b.create(t)
			mustAppend(t, l, records(0, 3)...)
			good := l.Checkpoint()
			failing = true
			b.signer.hook = test.sign

			_, cp, err := l.Append(t.Context(), records(3, 3)...)
			if !errors.Is(err, ErrFatal) || cp != (Checkpoint{}) {
				t.Fatalf("append: %v %v", cp, err)
			}
			// It sticks even if the fault goes away.
			failing, b.signer.hook = false, nil
			signatures := b.signer.signatures()
			for range 2 {
				if _, _, err := l.Append(t.Context(), record(9)); !errors.Is(err, ErrFatal) {
					t.Fatalf("append after the fault: %v", err)
				}
			}
			if err := l.Health(); !errors.Is(err, ErrFatal) {
				t.Fatalf("health: %v", err)
			}
			if l.Checkpoint() != good || b.signer.signatures() != signatures {
				t.Fatal("a stopped log signed or moved")
			}
			holds(t, l, 3) // it can still be read
			mustClose(t, l)

			l = b.open(t)
			holds(t, l, test.size)
			mustAppend(t, l, record(test.size))
			mustClose(t, l)
			holds(t, b.open(t), test.size+1)
		})
	}
}

// TestFaultsAtOpen makes each write and fsync of a recovering open fail in turn.
func TestFaultsAtOpen(t *testing.T) {
	b := newBench(t).unsynced()
	l := b.create(t)
	mustAppend(t, l, records(0, 3)...)
	old := b.clone(t)
	mustAppend(t, l, records(3, 3)...)
	store(t, load(t, b.Dir, segmentName(0)), old.Dir, segmentName(0)) // sealed, not signed
	mustClose(t, l)

	broken := errors.New("input/output error")
	for fail := 0; ; fail++ {
		c := old.clone(t)
		n := 0
		step := func() error {
			if n++; n > fail {
				return broken
			}
			return nil
		}
		c.disk.write = func(f *os.File, p []byte, at int64) error {
			writeAt(f, p, at)
			return step()
		}
		c.disk.sync = func(*os.File) error { return step() }
		l, err := Open(context.Background(), c.Config)
		if err == nil {
			if fail < 5 {
				t.Fatalf("only %d steps", fail)
			}
			fail = n + 1000
			mustClose(t, l)
			return
		}
		if !errors.Is(err, broken) {
			t.Fatal(err)
		}
		c.disk = old.disk
		l = c.open(t)
		holds(t, l, 6)
		mustClose(t, l)
	}
}

// TestSlotLostInThePageCache: an fsync of the state file fails, and the kernel
// keeps the page as clean though it never reached the disk. The log is opened
// again, which reads the page from the cache, and then the power fails: what is
// on disk must open.
func TestSlotLostInThePageCache(t *testing.T) {
	b := newBench(t)
	l := b.create(t)
	mustAppend(t, l, records(0, 3)...)

	disk := load(t, b.StateDir, stateFile) // what a power cut would leave
	type page struct {
		bytes  []byte
		offset int64
	}
	var dirty []page
	failing := false
	isState := func(f *os.File) bool { return filepath.Base(f.Name()) == stateFile }
	write := func(f *os.File, p []byte, at int64) error {
		if isState(f) {
			dirty = append(dirty, page{bytes.Clone(p), at})
		}
		return writeAt(f, p, at)
	}
	sync := func(f *os.File) error {
		if !isState(f) {
			return syncFile(f)
		}
		lost := failing
		for _, p := range dirty {
			if !lost {
				copy(disk[p.offset:], p.bytes)
			}
		}
		dirty = nil // clean now, written or not
		if lost {
			return errors.New("input/output error")
		}
		return nil
	}
	l.cfg.disk.write, l.cfg.disk.sync = write, sync
	b.disk.write, b.disk.sync = write, sync

	failing = true
	if _, _, err := l.Append(t.Context(), records(3, 3)...); !errors.Is(err, ErrFatal) {
		t.Fatalf("append: %v", err)
	}
	failing = false
	mustClose(t, l)
	l = b.open(t)
	holds(t, l, 6)

	c := b.clone(t)
	c.disk.write, c.disk.sync = nil, nil
	store(t, disk, c.StateDir, stateFile)
	holds(t, c.open(t), 6)
}
