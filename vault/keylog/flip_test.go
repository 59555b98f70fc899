package keylog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/tests/fault/bits"
)

// TestFlippedBits flips one bit after the other in the files of a log that was closed, of one that was killed, and of one that was killed before
// the root of its last commit was signed; and in the token's copy. The log opens with what was acknowledged, or does not and names the file.
func TestFlippedBits(t *testing.T) {
	n, random := bits.Number(t, 300)
	b := newBench(t).unsynced()
	b.SegmentBytes = 900
	l := b.create(t)
	for i := 0; i < 30; i += 3 {
		mustAppend(t, l, records(i, 3)...)
	}
	type state struct {
		*bits.Folder
		token       []byte
		least, most int
	}
	keep := func(least, most int) state {
		f, err := bits.Keep(filepath.Dir(b.Dir))
		if err != nil {
			t.Fatal(err)
		}
		return state{f, bytes.Clone(b.keeper.value), least, most}
	}
	states := map[string]state{"killed": keep(30, 30)}
	var unsigned state
	b.signer.hook = func(sig []byte) ([]byte, error) {
		unsigned = keep(30, 33)
		return sig, nil
	}
	mustAppend(t, l, records(30, 3)...)
	b.signer.hook = nil
	states["unsigned"] = unsigned
	mustClose(t, l)
	states["closed"] = keep(33, 33)

	classes := map[string]int{}
	names := slices.Sorted(maps.Keys(states))
	for i := range n {
		name := names[i%len(names)]
		s := states[name]
		root := filepath.Join(t.TempDir(), "flipped")
		c := *b
		c.Dir, c.StateDir = filepath.Join(root, filepath.Base(b.Dir)), filepath.Join(root, filepath.Base(b.StateDir))
		c.keeper = &keeper{value: bytes.Clone(s.token)}
		c.State = c.keeper
		flip := s.Draw(random)
		if i%20 == 0 {
			flip = bits.Flip{File: "token", Byte: random.IntN(len(s.token)), Bit: random.IntN(8)}
			c.keeper.value[flip.Byte] ^= 1 << flip.Bit
		}
		if err := s.Put(root, flip); err != nil {
			t.Fatal(err)
		}
		file := filepath.Base(flip.File)
		kind, _, _ := strings.Cut(file, "-0")
		class := func(what string) { classes[fmt.Sprintf("%-8s %-12s %s", name, kind, what)]++ }
		l, err := Open(context.Background(), c.Config)
		if err != nil {
			var damage *DamageError
			if !errors.As(err, &damage) || damage.File != file {
				t.Errorf("%s, %s: %v; the file is not named", name, flip, err)
			}
			class("detected")
			continue
		}
		size := int(l.Checkpoint().Size)
		if size < s.least || size > s.most {
			t.Errorf("%s, %s: %d entries, want %d to %d", name, flip, size, s.least, s.most)
		}
		holds(t, l, size)
		mustAppend(t, l, records(size, 1)...)
		mustClose(t, l)
		class("harmless")
	}
	for _, c := range slices.Sorted(maps.Keys(classes)) {
		t.Logf("%5d %s", classes[c], c)
	}
}

// TestFlippedWhileOpen flips bits in every file of a log that is open. A read, a proof or a replay gives what was recorded, or an error that names a
// file; what is signed next is right all the same.
func TestFlippedWhileOpen(t *testing.T) {
	n, random := bits.Number(t, 30)
	b := newBench(t).unsynced()
	b.SegmentBytes = 200 << 10
	l := b.create(t)
	const size = 9000 // more hashes than are kept in memory
	for i := 0; i < size; i += 1000 {
		mustAppend(t, l, records(i, 1000)...)
	}
	f, err := bits.Keep(b.Dir)
	if err != nil {
		t.Fatal(err)
	}
	cp := l.Checkpoint()
	leaves := make([]tlog.Hash, 0, size)
	if err := l.Replay(t.Context(), 0, func(p Position, r Record) error {
		leaves = append(leaves, tlog.RecordHash(Leaf(p.Time, r.Entry)))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	classes := map[string]int{}
	for range n {
		flip := f.Draw(random)
		data := load(t, b.Dir, flip.File)
		if flip.Byte >= len(data) {
			continue
		}
		change := func() {
			data[flip.Byte] ^= 1 << flip.Bit
			file := l.hashes
			switch {
			case flip.File == checkpointFile: // nothing reads it while the log is open
				store(t, data, b.Dir, checkpointFile)
				return
			case flip.File == offsetsFile:
				file = l.offsets
			case strings.HasPrefix(flip.File, segmentPrefix):
				for _, s := range l.segments {
					if s.name == flip.File {
						file = s.file
					}
				}
			}
			if _, err := file.WriteAt(data[flip.Byte:flip.Byte+1], int64(flip.Byte)); err != nil {
				t.Fatal(err)
			}
		}
		change()
		// Near the place, and anywhere.
		near := int64(flip.Byte) * size / int64(len(data))
		class := "harmless"
		check := func(err error) {
			var damage *DamageError
			switch {
			case err == nil:
			case errors.As(err, &damage):
				class = "detected"
				if !strings.Contains(damage.Error(), flip.File) {
					t.Errorf("%s: another file is named: %v", flip, err)
				}
			default:
				t.Errorf("%s: no file is named: %v", flip, err)
			}
		}
		for _, i := range []int64{near, max(near-1, 0), min(near+1, size-1), random.Int64N(size)} {
			_, r, err := l.Read(i)
			if err == nil && (!bytes.Equal(r.Entry, record(int(i)).Entry) || !bytes.Equal(r.Body, record(int(i)).Body)) {
				t.Errorf("%s: entry %d was read as %q", flip, i, r)
			}
			check(err)
			proof, err := l.Prove(i, cp.Size)
			if err == nil && tlog.CheckRecord(proof, cp.Size, cp.Root, i, leaves[i]) != nil {
				t.Errorf("%s: a proof of entry %d that does not hold", flip, i)
			}
			check(err)
		}
		i := 0
		check(l.Replay(t.Context(), 0, func(p Position, r Record) error {
			if !bytes.Equal(r.Entry, record(i).Entry) || !bytes.Equal(r.Body, record(i).Body) {
				t.Errorf("%s: entry %d was replayed as %q", flip, i, r)
			}
			i++
			return nil
		}))
		change() // back
		kind, _, _ := strings.Cut(flip.File, "-0")
		classes[fmt.Sprintf("%-12s %s", kind, class)]++
	}
	mustAppend(t, l, records(size, 5)...)
	holds(t, l, size+5)
	for _, c := range slices.Sorted(maps.Keys(classes)) {
		t.Logf("%5d %s", classes[c], c)
	}
}
