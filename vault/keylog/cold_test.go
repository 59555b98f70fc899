package keylog

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// coldLog is a log of 60 entries of which all segments but two are in cold storage, open.
func coldLog(t testing.TB) (*bench, *Log) {
	t.Helper()
	b := newBench(t).unsynced()
	b.SegmentBytes = 700
	b.Cold = filepath.Join(filepath.Dir(b.Dir), "cold")
	b.ColdBytes = 2 * b.SegmentBytes
	if err := os.Mkdir(b.Cold, 0o700); err != nil {
		t.Fatal(err)
	}
	l := b.create(t)
	for i := 0; i < 60; i += 3 {
		mustAppend(t, l, records(i, 3)...)
	}
	move(t, l)
	if n := len(l.border.cold); n < 3 {
		t.Fatalf("%d segments were moved", n)
	}
	return b, l
}

// move does what the goroutine keep does every minute.
func move(t testing.TB, l *Log) {
	t.Helper()
	if err := l.keepState(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := l.moveCold(); err != nil {
		t.Fatal(err)
	}
}

// TestCold: what was moved is gone from the log's folder, and is read, proved and replayed as before; a start reads none of it.
func TestCold(t *testing.T) {
	b, l := coldLog(t)
	cold, err := segmentNames(b.Cold)
	if err != nil {
		t.Fatal(err)
	}
	hot, err := segmentNames(b.Dir)
	if err != nil || len(cold) != len(l.border.cold) || hot[0] != segmentName(l.border.edge.size) {
		t.Fatal(cold, hot, l.border, err)
	}
	check := func(l *Log, n int) {
		t.Helper()
		holds(t, l, n)
		for i := range int64(n) {
			_, r, err := l.Read(i)
			if err != nil || !bytes.Equal(r.Entry, record(int(i)).Entry) || !bytes.Equal(r.Body, record(int(i)).Body) {
				t.Fatalf("entry %d is %q: %v", i, r, err)
			}
			leaf, err := l.ReadLeaf(i)
			if err != nil {
				t.Fatal(err)
			}
			cp := l.Checkpoint()
			proof, err := l.Prove(i, cp.Size)
			if err != nil || tlog.CheckRecord(proof, cp.Size, cp.Root, i, tlog.RecordHash(leaf)) != nil {
				t.Fatalf("entry %d is not proved: %v", i, err)
			}
		}
		for from := range n {
			next := from
			if err := l.Replay(t.Context(), int64(from), func(p Position, r Record) error {
				if p.Index != int64(next) || !bytes.Equal(r.Entry, record(next).Entry) {
					t.Fatalf("from %d: entry %d is %d %q", from, next, p.Index, r.Entry)
				}
				next++
				return nil
			}); err != nil || next != n {
				t.Fatalf("replayed %d to %d: %v", from, next, err)
			}
		}
	}
	check(l, 60)
	mustAppend(t, l, records(60, 3)...)
	check(l, 63)
	mustClose(t, l)

	// A start must not read cold segments: here it cannot.
	away := b.Cold + " away"
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Rename(b.Cold, away))
	l = b.open(t)
	if err := l.Health(); !errors.Is(err, ErrCold) {
		t.Fatalf("health without cold storage: %v", err)
	}
	if _, _, err := l.Read(0); !errors.Is(err, ErrCold) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), cold[0]) {
		t.Fatalf("a read from cold storage that is away: %v", err)
	}
	if err := l.Replay(t.Context(), 0, func(Position, Record) error { return nil }); !errors.Is(err, ErrCold) {
		t.Fatalf("a replay: %v", err)
	}
	if _, _, err := l.Read(62); err != nil {
		t.Fatal(err)
	}
	if cp := mustAppend(t, l, records(63, 3)...); cp.Size != 66 {
		t.Fatal(cp)
	}
	must(os.Rename(away, b.Cold))
	check(l, 66)
	mustClose(t, l)

	// All that a start makes anew it can make anew from cold storage: no border, no indexes, or told to read everything.
	for name, lose := range map[string]func(c *bench){
		"nothing":    func(*bench) {},
		"border":     func(c *bench) { must(os.Remove(filepath.Join(c.StateDir, borderFile))) },
		"hashes":     func(c *bench) { must(os.Remove(filepath.Join(c.Dir, hashesFile))) },
		"offsets":    func(c *bench) { must(os.Truncate(filepath.Join(c.Dir, offsetsFile), 9)) },
		"everything": func(c *bench) { c.Everything = true },
		"the edge": func(c *bench) {
			h := load(t, c.Dir, hashesFile)
			store(t, make([]byte, len(h)), c.Dir, hashesFile)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := cloneCold(t, b)
			lose(c)
			l := c.open(t)
			check(l, 66)
			mustAppend(t, l, records(66, 30)...)
			move(t, l)
			check(l, 96)
			mustClose(t, l)
			c.Everything = false
			l = c.open(t)
			check(l, 96)
			if len(l.border.cold) == 0 {
				t.Fatal("no border")
			}
			mustClose(t, l)
		})
	}
	for _, file := range []string{filepath.Join(b.StateDir, borderFile), filepath.Join(b.Dir, hashesFile)} {
		c := cloneCold(t, b)
		rel, err := filepath.Rel(filepath.Dir(b.Dir), file)
		must(err)
		must(os.Remove(filepath.Join(filepath.Dir(c.Dir), rel)))
		must(os.RemoveAll(c.Cold))
		c.refuse(t) // they are needed, and gone
	}
}

func cloneCold(t testing.TB, b *bench) *bench {
	t.Helper()
	c := b.clone(t)
	c.Cold = filepath.Join(filepath.Dir(c.Dir), "cold")
	copyDir(t, c.Cold, b.Cold)
	return c
}

// TestColdTampered: who can write to cold storage changes what lies there. It is noticed when it is read, and by whoever verifies everything; what is
// signed does not rest on it. So is the border, at the start.
func TestColdTampered(t *testing.T) {
	b, l := coldLog(t)
	mustClose(t, l)
	names, err := segmentNames(b.Cold)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(5, 6))
	forged := 0
	for i := range 60 {
		c := cloneCold(t, b)
		name := names[random.IntN(len(names))]
		old := load(t, c.Cold, name)
		fs := frames(t, old)
		n := random.IntN(len(fs))
		f, _, err := parseFrame(fs[n])
		if err != nil {
			t.Fatal(err)
		}
		if f.kind == kindSeal {
			fs = slices.Delete(fs, n, n+1)
		} else if i%2 == 0 {
			fs[n], _ = appendRecord(nil, kindRecord, f.index, f.time, []byte("grant everything"), f.body)
		} else { // of the same length, and the hash file is made to agree
			entry := bytes.Clone(f.entry)
			entry[len(entry)-1] ^= 3
			var leaf tlog.Hash
			fs[n], leaf = appendRecord(nil, kindRecord, f.index, f.time, entry, f.body)
			hashes := load(t, c.Dir, hashesFile)
			copy(hashes[tlog.StoredHashIndex(0, f.index)*tlog.HashSize:], leaf[:])
			store(t, hashes, c.Dir, hashesFile)
			forged++
		}
		store(t, join(old, fs...), c.Cold, name)

		l, err := Open(t.Context(), c.Config)
		if err != nil {
			var damage *DamageError
			if !errors.As(err, &damage) {
				t.Fatal(err)
			}
			continue // it was a hash of the edge, so everything was read
		}
		mustAppend(t, l, records(60, 1)...)
		if f.kind != kindSeal {
			if _, r, err := l.Read(f.index); err == nil && !bytes.Equal(r.Entry, record(int(f.index)).Entry) {
				t.Fatalf("read %q", r.Entry)
			} else if err == nil {
				t.Fatalf("a changed entry %d was read as if it were not", f.index)
			}
		}
		next := 0
		if err := l.Replay(t.Context(), 0, func(_ Position, r Record) error {
			if !bytes.Equal(r.Entry, record(next).Entry) {
				t.Errorf("entry %d was replayed as %q", next, r.Entry)
			}
			next++
			return nil
		}); err == nil && f.kind != kindSeal {
			t.Errorf("a changed segment was replayed")
		}
		mustClose(t, l)
		c.Everything = true
		if f.kind == kindSeal {
			continue // a seal that is cut out makes one commit of two
		}
		if d := c.refuse(t); d.File != name {
			t.Errorf("damage in %s, want %s", d.File, name)
		}
	}
	if forged == 0 {
		t.Fatal("nothing was forged")
	}

	border := load(t, b.StateDir, borderFile)
	for range 100 {
		c := cloneCold(t, b)
		changed := bytes.Clone(border)
		changed[random.IntN(len(changed))] ^= 1 << random.IntN(8)
		if random.IntN(4) == 0 {
			changed = border[:random.IntN(len(border))]
		}
		store(t, changed, c.StateDir, borderFile)
		if d := c.refuse(t); d.File != borderFile {
			t.Error(d)
		}
	}
}

// TestColdInterrupted: a move that ends anywhere is gone on with, and nothing is lost.
func TestColdInterrupted(t *testing.T) {
	broken := errors.New("broken")
	for at := 0; ; at++ {
		b := newBench(t).unsynced()
		b.SegmentBytes = 700
		b.Cold = filepath.Join(filepath.Dir(b.Dir), "cold")
		b.ColdBytes = b.SegmentBytes
		if err := os.Mkdir(b.Cold, 0o700); err != nil {
			t.Fatal(err)
		}
		l := b.create(t)
		for i := 0; i < 30; i += 3 {
			mustAppend(t, l, records(i, 3)...)
		}
		if err := l.keepState(t.Context()); err != nil {
			t.Fatal(err)
		}
		left := at
		count := func() error {
			if left--; left < 0 {
				return broken
			}
			return nil
		}
		write := l.cfg.disk.write
		l.cfg.disk.write = func(f *os.File, b []byte, offset int64) error {
			if err := count(); err != nil {
				write(f, b[:len(b)/2], offset)
				return err
			}
			return write(f, b, offset)
		}
		l.cfg.disk.sync = func(*os.File) error { return count() }
		l.cfg.disk.syncDir = func(string) error { return count() }
		l.keepCold()
		healthy := l.Health()
		if left >= 0 && healthy != nil || left < 0 && !errors.Is(healthy, ErrCold) {
			t.Fatalf("after %d steps: %v", at, healthy)
		}
		c := cloneCold(t, b) // the machine stops here
		l.cfg.disk = b.disk
		l.cfg.disk.complete()
		move(t, l)
		holds(t, l, 30)
		mustClose(t, l)

		l = c.open(t)
		holds(t, l, 30)
		mustAppend(t, l, records(30, 3)...)
		move(t, l)
		holds(t, l, 33)
		names, err := segmentNames(c.Dir)
		if err != nil || len(names) != len(l.segments)-len(l.border.cold) {
			t.Fatalf("%v are left, %d of %d segments are cold", names, len(l.border.cold), len(l.segments))
		}
		mustClose(t, l)
		if left >= 0 {
			if at < 15 {
				t.Fatalf("only %d steps", at)
			}
			return
		}
	}
}
