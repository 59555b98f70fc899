package sealed

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/tests/fault/bits"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testConfig(dir string) Config {
	return Config{Dir: dir, DataKey: [32]byte{1}, Vault: policies.VaultID{2}, Reserve: 1, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

func openStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func id(n int) (out ID) {
	binary.BigEndian.PutUint32(out[:], uint32(n)+1)
	return out
}

// key is what id(n) is stored with in a period.
func key(n int, period uint32) Key {
	return Key{Period: period, Blob: fmt.Appendf(bytes.Repeat([]byte{byte(n)}, 72), "%08d", n)}
}

func filled(t testing.TB, cfg Config, n int) *Store {
	s := openStore(t, cfg)
	for i := range n {
		must(t, s.Put(id(i), key(i, 1)))
	}
	return s
}

// check says that id(n) is stored under a period, or, if the period is 0, that it is missing.
func check(t *testing.T, s *Store, n int, period uint32) {
	t.Helper()
	got, err := s.Get(id(n))
	if period == 0 {
		if !errors.Is(err, ErrMissing) {
			t.Errorf("key %d: %v, want it to be missing", n, err)
		}
		return
	}
	if err != nil || got.Period != period || !bytes.Equal(got.Blob, key(n, period).Blob) {
		t.Errorf("key %d under period %d: %v", n, got.Period, err)
	}
}

func moveAll(t testing.TB, s *Store, period uint32) (moved int) {
	t.Helper()
	ids := s.IDs()
	for len(ids) > 0 {
		moves, damaged, next, err := s.Older(ids, period, 7)
		must(t, err)
		if len(damaged) > 0 {
			t.Fatalf("%d keys are damaged", len(damaged))
		}
		ids = ids[next:]
		for i := range moves {
			moves[i].New = Key{Period: period, Blob: moves[i].Old.Blob}
		}
		done, err := s.Replace(moves)
		must(t, err)
		moved += len(done)
	}
	return moved
}

func TestPutGetMoveDelete(t *testing.T) {
	cfg := testConfig(filepath.Join(t.TempDir(), "a", "keys"))
	s := filled(t, cfg, 1500) // more than one growth
	again := func() {
		t.Helper()
		must(t, s.Close())
		s = openStore(t, cfg)
	}
	for range 2 {
		check(t, s, 0, 1)
		check(t, s, 1499, 1)
		check(t, s, 1500, 0)
		again()
	}
	must(t, s.Delete(id(3), id(4), id(9999)))
	must(t, s.Put(id(5), key(5, 2))) // in place of the one that is there
	for range 2 {
		check(t, s, 3, 0)
		check(t, s, 5, 2)
		check(t, s, 6, 1)
		if n := len(s.IDs()); n != 1498 {
			t.Fatalf("%d keys", n)
		}
		again()
	}
	if n := moveAll(t, s, 2); n != 1497 {
		t.Errorf("%d keys were moved", n)
	}
	for range 2 {
		check(t, s, 0, 2)
		check(t, s, 3, 0)
		if p := s.Periods(); len(p) != 1 || p[2] != 1498 {
			t.Errorf("periods %v", p)
		}
		again()
	}
	size := func() int64 {
		info, err := os.Stat(s.File())
		must(t, err)
		return info.Size()
	}
	before := size()
	for period := uint32(3); period < 9; period++ {
		moveAll(t, s, period)
	}
	if size() > before+growth*slotSize {
		t.Errorf("moving made the file grow from %d to %d bytes: slots are not used again", before, size())
	}
	data, err := os.ReadFile(s.File())
	must(t, err)
	used := 0
	for at := 0; at < len(data); at += slotSize {
		if !bytes.Equal(data[at:at+slotSize], zeroSlot[:]) {
			used++
		}
	}
	if used != 1498 {
		t.Errorf("%d slots are not empty: what was deleted or moved is still in the file", used)
	}
	if bytes.Contains(data, key(7, 1).Blob[:16]) {
		t.Error("a wrapped key lies bare in the file")
	}
}

func TestTooLongAndEmptyBlobs(t *testing.T) {
	s := openStore(t, testConfig(t.TempDir()))
	for _, n := range []int{0, MaxBlob + 1} {
		if err := s.Put(id(1), Key{Period: 1, Blob: make([]byte, n)}); !errors.Is(err, ErrTooLong) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	long := Key{Period: 1, Blob: make([]byte, MaxBlob)}
	rand.Read(long.Blob)
	must(t, s.Put(id(1), long))
	if got, err := s.Get(id(1)); err != nil || !bytes.Equal(got.Blob, long.Blob) {
		t.Errorf("the longest: %v", err)
	}
}

// TestHostileFile: whatever is done to the file, a key is the one that was stored last, or an older one of the same id, or missing; and the
// keys that were not touched are there.
func TestHostileFile(t *testing.T) {
	const n = 20
	build := func(t *testing.T, change func(*Config)) (Config, string) {
		cfg := testConfig(filepath.Join(t.TempDir(), "keys"))
		if change != nil {
			change(&cfg)
		}
		s := filled(t, cfg, n)
		must(t, s.Close())
		return cfg, s.File()
	}
	edit := func(t *testing.T, path string, f func([]byte) []byte) {
		data, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path, f(data), 0o600))
	}
	slot := func(data []byte, i int) []byte { return data[i*slotSize : (i+1)*slotSize] }
	survivors := func(t *testing.T, s *Store, gone ...int) {
		t.Helper()
		for i := range n {
			if slices.Contains(gone, i) {
				check(t, s, i, 0)
			} else {
				check(t, s, i, 1)
			}
		}
	}
	for _, test := range []struct {
		name string
		edit func([]byte) []byte
		gone []int
	}{
		{"a key id changed", func(b []byte) []byte { slot(b, 2)[20] ^= 1; return b }, []int{2}},
		{"a version changed", func(b []byte) []byte { slot(b, 2)[3] ^= 2; return b }, []int{2}},
		{"a period changed", func(b []byte) []byte { slot(b, 2)[7] ^= 2; return b }, []int{2}},
		{"a blob changed", func(b []byte) []byte { slot(b, 2)[100] ^= 1; return b }, []int{2}},
		{"a length changed", func(b []byte) []byte { slot(b, 2)[41] ^= 1; return b }, []int{2}},
		{"one key under another's id", func(b []byte) []byte { copy(slot(b, 2)[40:], slot(b, 3)[40:]); return b }, []int{2}},
		{"an id under another's key", func(b []byte) []byte { copy(slot(b, 2)[8:40], slot(b, 3)[8:40]); return b }, []int{2}},
		{"a slot emptied", func(b []byte) []byte { clear(slot(b, 2)); return b }, []int{2}},
		{"a slot twice", func(b []byte) []byte { copy(slot(b, n+1), slot(b, 2)); return b }, nil},
		{"two slots exchanged", func(b []byte) []byte {
			two := bytes.Clone(slot(b, 2))
			copy(slot(b, 2), slot(b, 3))
			copy(slot(b, 3), two)
			return b
		}, nil},
		{"bytes behind a value", func(b []byte) []byte { slot(b, 2)[500] = 1; return b }, nil},
		{"an odd tail", func(b []byte) []byte { return append(b, 1, 2, 3) }, nil},
		{"cut", func(b []byte) []byte { return b[:18*slotSize+100] }, []int{18, 19}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, path := build(t, nil)
			edit(t, path, test.edit)
			s := openStore(t, cfg)
			survivors(t, s, test.gone...)
			wanted := map[ID]bool{}
			for i := range n {
				wanted[id(i)] = true
			}
			if _, missing, err := s.Settle(wanted); err != nil || len(missing) != len(test.gone) {
				t.Errorf("%d keys missing, %v", len(missing), err)
			}
			must(t, s.Put(id(n), key(n, 1)))
			check(t, s, n, 1)
		})
	}
	for name, change := range map[string]func(*Config){
		"another vault's":     func(c *Config) { c.Vault[0]++ },
		"of another data key": func(c *Config) { c.DataKey[0]++ },
	} {
		t.Run(name, func(t *testing.T) {
			_, path := build(t, change)
			s := openStore(t, testConfig(filepath.Dir(path)))
			for i := range n {
				check(t, s, i, 0)
			}
		})
	}
	t.Run("changed while it is open", func(t *testing.T) {
		cfg, path := build(t, nil)
		s := openStore(t, cfg)
		edit(t, path, func(b []byte) []byte {
			slot(b, 2)[100] ^= 1
			copy(slot(b, 3), slot(b, 4))
			clear(slot(b, 5))
			return b
		})
		for _, i := range []int{2, 3, 5} {
			if _, err := s.Get(id(i)); !errors.Is(err, ErrDamaged) || !bytes.Contains([]byte(err.Error()), []byte(path)) {
				t.Errorf("key %d: %v, want the file named", i, err)
			}
		}
		check(t, s, 4, 1)
		moves, damaged, _, _ := s.Older(s.IDs(), 2, 100)
		if len(damaged) != 3 || len(moves) != n-3 {
			t.Errorf("%d to move, %d damaged", len(moves), len(damaged))
		}
	})
	t.Run("an older file", func(t *testing.T) {
		cfg, path := build(t, nil)
		old, err := os.ReadFile(path)
		must(t, err)
		s := openStore(t, cfg)
		must(t, s.Delete(id(2)))
		moveAll(t, s, 2)
		must(t, s.Close())
		must(t, os.WriteFile(path, old, 0o600))
		s = openStore(t, cfg)
		check(t, s, 1, 1) // the same key, under the sealing key of then
		check(t, s, 2, 1) // that nothing wants, so it goes
		wanted := map[ID]bool{}
		for i := range n {
			wanted[id(i)] = i != 2
		}
		if removed, missing, err := s.Settle(wanted); removed != 1 || len(missing) != 0 || err != nil {
			t.Errorf("%d removed, %d missing, %v", removed, len(missing), err)
		}
		check(t, s, 2, 0)
	})
	t.Run("too large", func(t *testing.T) {
		cfg, path := build(t, nil)
		must(t, os.Truncate(path, (maxSlots+1)*slotSize))
		if _, err := Open(cfg); err == nil || !bytes.Contains([]byte(err.Error()), []byte(path)) {
			t.Errorf("opened: %v", err)
		}
	})
}

// TestFlippedBits flips single bits anywhere in the file, before the store opens and while it is open: one key at most is gone, which is said with the file named, and
// none is another.
func TestFlippedBits(t *testing.T) {
	flips, random := bits.Number(t, 400)
	cfg := testConfig(filepath.Join(t.TempDir(), "keys"))
	const n = 50
	s := filled(t, cfg, n)
	must(t, s.Close())
	folder, err := bits.Keep(cfg.Dir)
	must(t, err)
	classes := map[string]int{}
	for i := range flips {
		flip := folder.Draw(random)
		if random.IntN(4) > 0 { // not behind the values
			flip.Byte = random.IntN(n * slotSize)
		}
		what := flip.String()
		must(t, folder.Restore(cfg.Dir))
		var log bytes.Buffer
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		running := i%2 == 1
		if !running {
			must(t, folder.Put(cfg.Dir, flip))
		}
		open := openStore(t, cfg)
		if running {
			var b [1]byte
			_, err := open.file.ReadAt(b[:], int64(flip.Byte))
			must(t, err)
			b[0] ^= 1 << flip.Bit
			_, err = open.file.WriteAt(b[:], int64(flip.Byte))
			must(t, err)
			what += ", while it is open"
		}
		wanted, missing := map[ID]bool{}, 0
		said := ""
		for i := range n {
			wanted[id(i)] = true
			got, err := open.Get(id(i))
			if err == nil && (!bytes.Equal(got.Blob, key(i, 1).Blob) || got.Period != 1) {
				t.Fatalf("%s: key %d is another", what, i)
			}
			if err != nil {
				missing++
				said += err.Error()
			}
		}
		if !running {
			_, gone, err := open.Settle(wanted)
			if err != nil || len(gone) != missing {
				t.Fatalf("%s: %d keys are gone, %d are said to be, %v", what, missing, len(gone), err)
			}
		}
		class := "harmless"
		if missing > 0 {
			class = "detected, file named"
			if missing > 1 || !strings.Contains(said+log.String(), open.File()) {
				t.Errorf("%s: %d keys are gone; said: %s; log: %s", what, missing, said, log.String())
			}
		}
		if running {
			class = "open: " + class
		}
		classes[class]++
		must(t, open.Close())
	}
	for _, c := range slices.Sorted(maps.Keys(classes)) {
		t.Logf("%5d %s", classes[c], c)
	}
	if len(classes) < 4 {
		t.Errorf("something never happened: %v", classes)
	}
}

// TestCrashAnywhere copies the file before each write and fsync, and looks at what comes back.
func TestCrashAnywhere(t *testing.T) {
	cfg := testConfig(filepath.Join(t.TempDir(), "keys"))
	var copies [][]byte
	var promised []map[int]uint32 // what must be there at least: key to lowest period, 0 for must not
	now := map[int]uint32{}
	path := filepath.Join(cfg.Dir, fileName)
	recording := true
	note := func() {
		if !recording {
			return
		}
		data, err := os.ReadFile(path)
		must(t, err)
		state := map[int]uint32{}
		for k, v := range now {
			state[k] = v
		}
		copies, promised = append(copies, data), append(promised, state)
	}
	cfg.disk.complete()
	write, sync := cfg.disk.write, cfg.disk.sync
	cfg.disk.write = func(f *os.File, b []byte, offset int64) error {
		note()
		if err := write(f, b[:len(b)/2], offset); err != nil { // a torn one
			return err
		}
		note()
		return write(f, b, offset)
	}
	cfg.disk.sync = func(f *os.File) error { note(); return sync(f) }
	s := openStore(t, cfg)
	for i := range 5 {
		must(t, s.Put(id(i), key(i, 1)))
		now[i] = 1
	}
	delete(now, 2)
	must(t, s.Delete(id(2)))
	now[2] = 0
	moveAll(t, s, 2)
	for _, i := range []int{0, 1, 3, 4} {
		now[i] = 2
	}
	note()
	recording = false
	must(t, s.Close())
	for c := range copies {
		dir := filepath.Join(t.TempDir(), "keys")
		must(t, os.Mkdir(dir, 0o700))
		must(t, os.WriteFile(filepath.Join(dir, fileName), copies[c], 0o600))
		s := openStore(t, testConfig(dir))
		wanted := map[ID]bool{}
		for i, least := range promised[c] {
			wanted[id(i)] = least > 0
			got, err := s.Get(id(i))
			switch {
			case least == 0 && err == nil, least > 0 && (err != nil || got.Period < least || !bytes.Equal(got.Blob, key(i, 1).Blob)):
				t.Errorf("crash %d: key %d is under %d, want at least %d: %v", c, i, got.Period, least, err)
			}
		}
		for i, w := range wanted {
			if !w {
				delete(wanted, i)
			}
		}
		_, missing, err := s.Settle(wanted)
		if err != nil || len(missing) > 0 || len(s.IDs()) != len(wanted) {
			t.Errorf("crash %d: %d missing, %d keys for %d grants, %v", c, len(missing), len(s.IDs()), len(wanted), err)
		}
		must(t, s.Close())
		s = openStore(t, testConfig(dir))
		if len(s.damaged) > 0 {
			t.Errorf("crash %d: torn slots are still there", c)
		}
		must(t, s.Close())
	}
	if len(copies) < 30 {
		t.Fatalf("only %d places to crash", len(copies))
	}
}

// TestDiskErrors: after an error, of which nobody knows what it left, nothing is changed any more, and what is there is given out.
func TestDiskErrors(t *testing.T) {
	broken := errors.New("input/output error")
	for _, persisted := range []bool{false, true} {
		for name, act := range map[string]func(s *Store) error{
			"put":    func(s *Store) error { return s.Put(id(7), key(7, 1)) },
			"delete": func(s *Store) error { return s.Delete(id(1)) },
			"move": func(s *Store) error {
				moves, _, _, _ := s.Older([]ID{id(1)}, 2, 10)
				moves[0].New = key(1, 2)
				_, err := s.Replace(moves)
				return err
			},
		} {
			for step := range 2 { // the first write, the first fsync
				t.Run(fmt.Sprintf("%s, step %d, persisted %v", name, step, persisted), func(t *testing.T) {
					cfg := testConfig(filepath.Join(t.TempDir(), "keys"))
					s := filled(t, cfg, 3)
					write, sync := s.cfg.disk.write, s.cfg.disk.sync
					if step == 0 {
						s.cfg.disk.write = func(f *os.File, b []byte, offset int64) error {
							if persisted {
								must(t, write(f, b, offset))
							}
							return broken
						}
					} else {
						s.cfg.disk.sync = func(f *os.File) error {
							if persisted {
								must(t, sync(f))
							}
							return broken
						}
					}
					if err := act(s); !errors.Is(err, ErrStopped) || !errors.Is(err, broken) {
						t.Fatalf("%v", err)
					}
					s.cfg.disk.write, s.cfg.disk.sync = write, sync
					for _, err := range []error{s.Put(id(8), key(8, 1)), s.Delete(id(2)), s.Delete(id(1)), s.Fault()} {
						if !errors.Is(err, ErrStopped) {
							t.Errorf("a change after the error: %v", err)
						}
					}
					check(t, s, 0, 1)
					must(t, s.Close())
					s = openStore(t, cfg)
					check(t, s, 0, 1)
					check(t, s, 8, 0)
					must(t, s.Put(id(8), key(8, 1)))
				})
			}
		}
	}
}

// TestFullDisk: a disk that is nearly full refuses a key early, and harms nothing.
func TestFullDisk(t *testing.T) {
	for name, change := range map[string]func(*disk){
		"below the reserve": func(d *disk) { d.room = func(string) (int64, error) { return 10, nil } },
		"no room to grow": func(d *disk) {
			d.grow = func(*os.File, int64, int64) error { return errors.New("no space left on device") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(filepath.Join(t.TempDir(), "keys"))
			cfg.Reserve = 100
			s := filled(t, cfg, growth)
			real := s.cfg.disk
			change(&s.cfg.disk)
			if err := s.Put(id(growth), key(growth, 1)); !errors.Is(err, ErrFull) || errors.Is(err, ErrStopped) {
				t.Fatalf("%v", err)
			}
			moves, _, _, _ := s.Older(s.IDs(), 2, 3)
			for i := range moves {
				moves[i].New = Key{2, moves[i].Old.Blob}
			}
			if done, err := s.Replace(moves); len(done) != 0 || !errors.Is(err, ErrFull) {
				t.Fatalf("moving: %d, %v", len(done), err)
			}
			must(t, s.Delete(id(0))) // what makes room goes on
			must(t, s.Put(id(growth), key(growth, 1)))
			s.cfg.disk = real
			must(t, s.Put(id(growth+1), key(growth+1, 1)))
			check(t, s, 1, 1)
			check(t, s, growth, 1)
		})
	}
}

func TestOneStoreAtATime(t *testing.T) {
	cfg := testConfig(t.TempDir())
	s := openStore(t, cfg)
	if _, err := Open(cfg); err == nil {
		t.Fatal("opened twice")
	}
	must(t, s.Close())
	openStore(t, cfg)
}

// TestAtOnce: puts, deletions, moves and reads at the same time. No key is lost or doubled, and none that was deleted returns.
func TestAtOnce(t *testing.T) {
	cfg := testConfig(filepath.Join(t.TempDir(), "keys"))
	const each, writers = 40, 4
	s := filled(t, cfg, each)
	stop := make(chan struct{})
	var moving, wg sync.WaitGroup
	moving.Go(func() {
		for period := uint32(2); ; period++ {
			select {
			case <-stop:
				return
			default:
				moveAll(t, s, period)
			}
		}
	})
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				n := (w+1)*each + i
				if err := s.Put(id(n), key(n, 1)); err != nil {
					t.Error(err)
				}
				if got, err := s.Get(id(n)); err != nil || !bytes.Equal(got.Blob, key(n, 1).Blob) {
					t.Errorf("key %d: %v", n, err)
				}
				if i%2 == 1 {
					if err := s.Delete(id(n)); err != nil {
						t.Error(err)
					}
					if _, err := s.Get(id(n)); !errors.Is(err, ErrMissing) {
						t.Errorf("key %d was deleted: %v", n, err)
					}
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	moving.Wait()
	must(t, s.Close())
	s = openStore(t, cfg)
	if n := len(s.IDs()); n != each+writers*each/2 {
		t.Errorf("%d keys", n)
	}
	for n := range (writers + 1) * each {
		got, err := s.Get(id(n))
		if gone := n >= each && n%2 == 1; gone != errors.Is(err, ErrMissing) || !gone && !bytes.Equal(got.Blob, key(n, 1).Blob) {
			t.Errorf("key %d: %v", n, err)
		}
	}
}

// FuzzSlot: no bytes make the decoder panic, and what it takes for a value is one that this vault sealed.
func FuzzSlot(f *testing.F) {
	c := newCrypt(&[32]byte{1}, policies.VaultID{2})
	slot, err := c.seal(&value{id: id(1), version: 1, key: key(1, 1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(slot)
	f.Add(zeroSlot[:])
	f.Add(slot[:100])
	long := bytes.Clone(slot)
	binary.BigEndian.PutUint16(long[40:], 65535)
	f.Add(long)
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := c.open(data)
		if err == nil && v != nil && (v.id != id(1) || v.version != 1 || v.key.Period != 1 || !bytes.Equal(v.key.Blob, key(1, 1).Blob)) {
			t.Fatal("a value that nobody sealed")
		}
	})
}

func BenchmarkOpen100000(b *testing.B) {
	cfg := testConfig(filepath.Join(b.TempDir(), "keys"))
	cfg.disk.complete()
	sync := cfg.disk.sync
	cfg.disk.sync = func(*os.File) error { return nil }
	s := filled(b, cfg, 100_000)
	must(b, sync(s.file))
	must(b, s.Close())
	for b.Loop() {
		s, err := Open(cfg)
		must(b, err)
		must(b, s.Close())
	}
}

func BenchmarkGet(b *testing.B) {
	s := filled(b, testConfig(filepath.Join(b.TempDir(), "keys")), 100)
	for i := 0; b.Loop(); i++ {
		_, err := s.Get(id(i % 100))
		must(b, err)
	}
}
