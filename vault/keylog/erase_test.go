package keylog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// found are the files of a bench's folders that have a text.
func (b *bench) found(t testing.TB, text string) (names []string) {
	t.Helper()
	for _, dir := range []string{b.Dir, b.Cold} {
		if dir == "" {
			continue
		}
		if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			if bytes.Contains(content, []byte(text)) {
				names = append(names, d.Name())
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// even chooses every second entry of the tests' records.
func even(entry []byte) bool {
	return bytes.HasSuffix(entry, []byte("0")) || bytes.HasSuffix(entry, []byte("2"))
}

// erased checks every entry of a log of which the first to are erased where even says so.
func erased(t testing.TB, l *Log, n, to int) {
	t.Helper()
	replayed := 0
	var tree mirror
	if err := l.Replay(context.Background(), 0, func(p Position, r Record) error {
		want := record(int(p.Index))
		if int(p.Index) < to && even(want.Entry) {
			want.Body = nil
		}
		if !bytes.Equal(r.Entry, want.Entry) || !bytes.Equal(r.Body, want.Body) || (r.Body == nil) != (want.Body == nil) {
			t.Errorf("entry %d is replayed as %q", p.Index, r)
		}
		tree.add(Leaf(p.Time, r.Entry))
		_, read, err := l.Read(p.Index)
		if err != nil || !bytes.Equal(read.Body, want.Body) || !bytes.Equal(read.Entry, want.Entry) {
			t.Errorf("entry %d is read as %q, %v", p.Index, read, err)
		}
		replayed++
		return nil
	}); err != nil || replayed != n {
		t.Fatalf("%d replayed: %v", replayed, err)
	}
	if cp := l.Checkpoint(); cp.Size != int64(n) || tree.root(int64(n)) != cp.Root {
		t.Fatalf("%d entries, and the root is another", cp.Size)
	}
}

// TestErase: bodies are gone from every file of the log's folders, in cold storage too, and all else holds, now and after a start that reads everything.
func TestErase(t *testing.T) {
	b, l := coldLog(t)
	if err := l.Erase(t.Context(), 0, 60, even); !errors.Is(err, ErrRange) {
		t.Errorf("into the newest segment: %v", err)
	}
	l.Roll()
	mustAppend(t, l, records(60, 3)...)
	if err := l.Erase(t.Context(), 0, 50, even); err != nil {
		t.Fatal(err)
	}
	erased(t, l, 63, 50)
	for i := range 63 {
		want := 1
		if i < 50 && even(record(i).Entry) {
			want = 0
		}
		if i > 9 && len(b.found(t, fmt.Sprintf("body %d", i))) != want {
			t.Errorf("body %d is in %q, want %d files", i, b.found(t, fmt.Sprintf("body %d", i)), want)
		}
	}
	if err := l.Erase(t.Context(), 0, 50, even); err != nil { // again
		t.Fatal(err)
	}
	mustAppend(t, l, records(63, 3)...)
	mustClose(t, l)
	for _, everything := range []bool{false, true} {
		b.Everything = everything
		l = b.open(t)
		erased(t, l, 66, 50)
		mustClose(t, l)
	}
	if left := b.found(t, ".new"); left != nil {
		t.Error(left)
	}
}

// TestEraseCrash: a crash at every step leaves a log that opens, holds every entry, and is erased by the next try.
func TestEraseCrash(t *testing.T) {
	b := newBench(t).unsynced()
	b.SegmentBytes = 700
	l := b.create(t)
	for i := 0; i < 60; i += 3 {
		mustAppend(t, l, records(i, 3)...)
	}
	mustClose(t, l)
	steps := 0
	for stop := 1; ; stop++ {
		c := b.clone(t)
		fault := errors.New("crash")
		left := stop
		step := func() error {
			if left--; left == 0 {
				return fault
			}
			return nil
		}
		l := c.open(t)
		write := l.cfg.disk.write
		l.cfg.disk.write = func(f *os.File, p []byte, at int64) error {
			if err := step(); err != nil {
				write(f, p[:len(p)/2], at)
				return err
			}
			return write(f, p, at)
		}
		l.cfg.disk.sync = func(*os.File) error { return step() }
		l.cfg.disk.syncDir = func(string) error { return step() }
		err := l.Erase(t.Context(), 0, 45, even)
		crashed := c.clone(t) // as it is now
		l.cfg.disk.write, l.cfg.disk.sync, l.cfg.disk.syncDir = write, func(*os.File) error { return nil }, func(string) error { return nil }
		mustClose(t, l)
		if err == nil {
			break
		}
		if !errors.Is(err, fault) {
			t.Fatal(err)
		}
		steps++
		l = crashed.open(t)
		if err := l.Erase(t.Context(), 0, 45, even); err != nil {
			t.Fatal(err)
		}
		erased(t, l, 60, 45)
		for _, i := range []int{10, 12, 30, 42} {
			if names := crashed.found(t, fmt.Sprintf("body %d", i)); names != nil {
				t.Errorf("after a crash at step %d, body %d is in %q", stop, i, names)
			}
		}
		mustClose(t, l)
	}
	if steps < 9 {
		t.Errorf("only %d steps", steps)
	}
}

// TestErasedIsNoLicence: a segment that was written anew is still the one that was signed. What is edited in it is found, and so is what was edited before.
func TestErasedIsNoLicence(t *testing.T) {
	b := newBench(t).unsynced()
	b.SegmentBytes = 700
	l := b.create(t)
	for i := 0; i < 60; i += 3 {
		mustAppend(t, l, records(i, 3)...)
	}
	mustClose(t, l)
	for name, edit := range map[string]func([]byte) []byte{
		"an entry": func(raw []byte) []byte {
			return edited(raw, 4, func(f frame) []byte { return bytes.Replace(f.entry, []byte("entry"), []byte("extry"), 1) })
		},
		"bytes in the zeros": func(raw []byte) []byte {
			return bytes.Replace(raw, []byte("entry 2\x00\x00"), []byte("entry 2\x00x"), 1)
		},
		"the last byte of all": func(raw []byte) []byte { raw[len(raw)-1] ^= 1; return raw },
	} {
		c := b.clone(t)
		l := c.open(t)
		if err := l.Erase(t.Context(), 0, 45, even); err != nil {
			t.Fatal(err)
		}
		mustClose(t, l)
		raw := load(t, c.Dir, segmentName(0))
		changed := edit(bytes.Clone(raw))
		if bytes.Equal(raw, changed) {
			t.Fatalf("%s: nothing was edited", name)
		}
		store(t, changed, c.Dir, segmentName(0))
		c.refuse(t)
	}
	// An entry that was edited behind a running log's back keeps its edit, and is found.
	l = b.open(t)
	store(t, edited(load(t, b.Dir, segmentName(0)), 1, func(f frame) []byte { return bytes.Replace(f.entry, []byte("entry"), []byte("extry"), 1) }), b.Dir, segmentName(0))
	if err := l.Erase(t.Context(), 0, 45, even); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	b.refuse(t)
}

// edited is a segment in which one frame has another entry, with a right checksum.
func edited(raw []byte, n int, change func(frame) []byte) []byte {
	out := bytes.Clone(raw[:headerSize])
	for at := headerSize; at < len(raw); {
		f, size, err := parseFrame(raw[at:])
		if err != nil {
			panic(err)
		}
		if f.kind != kindSeal && f.index == int64(n) {
			body := raw[at+frameHead+recordHead+len(f.entry) : at+size]
			out, _ = appendRecord(out, f.kind, f.index, f.time, change(f), body)
		} else {
			out = append(out, raw[at:at+size]...)
		}
		at += size
	}
	return out
}

// TestBefore: the first entry that is not older than a time.
func TestBefore(t *testing.T) {
	b := newBench(t).unsynced()
	l := b.create(t)
	for i := range 20 {
		mustAppend(t, l, records(i, 1)...)
	}
	for i := range int64(20) {
		p, _, err := l.Read(i)
		if err != nil {
			t.Fatal(err)
		}
		n, err := l.Before(p.Time)
		if err != nil {
			t.Fatal(err)
		}
		if n > i {
			t.Fatalf("before the time of entry %d: %d", i, n)
		}
		if n > 0 {
			if q, _, _ := l.Read(n - 1); !q.Time.Before(p.Time) {
				t.Errorf("entry %d is not older than entry %d", n-1, i)
			}
		}
		if q, _, _ := l.Read(n); q.Time.Before(p.Time) {
			t.Errorf("entry %d is older than entry %d", n, i)
		}
	}
	if n, err := l.Before(time.Unix(0, 0)); n != 0 || err != nil {
		t.Error(n, err)
	}
	if n, err := l.Before(time.Now().Add(time.Hour * 1e5)); n != 20 || err != nil {
		t.Error(n, err)
	}
	mustClose(t, l)
}
