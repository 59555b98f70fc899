package keylog

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/tests/fault/bits"
)

// A moment is a log's folders and the token's copy, at a moment.
type moment struct {
	*bits.Folder
	token  []byte
	size   int // entries
	leaves []tlog.Hash
}

// tampered is a log at three moments: now, a while ago, and as it would be had something else been recorded since.
type tampered struct {
	*bench
	now, older, fork moment
}

func newTampered(t *testing.T) *tampered {
	b := newBench(t).unsynced()
	b.SegmentBytes = 900
	keep := func(b *bench, n int) moment {
		l := b.open(t)
		m := moment{size: n}
		err := l.Replay(t.Context(), 0, func(p Position, r Record) error {
			m.leaves = append(m.leaves, tlog.RecordHash(Leaf(p.Time, r.Entry)))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		mustClose(t, l)
		if m.Folder, err = bits.Keep(filepath.Dir(b.Dir)); err != nil {
			t.Fatal(err)
		}
		m.token = bytes.Clone(b.keeper.value)
		return m
	}
	l := b.create(t)
	for i := 0; i < 30; i += 3 {
		mustAppend(t, l, records(i, 3)...)
	}
	mustClose(t, l)
	w := &tampered{bench: b, older: keep(b, 30)}
	fork := b.clone(t)
	extend := func(b *bench, from int) {
		l := b.open(t)
		for i := range 4 {
			mustAppend(t, l, records(from+3*i, 3)...)
		}
		mustClose(t, l)
	}
	extend(b, 30)
	extend(fork, 1000)
	w.now, w.fork = keep(b, 42), keep(fork, 42)
	return w
}

// put makes a copy of the log as it is now.
func (w *tampered) put(t *testing.T, root string) *bench {
	t.Helper()
	if err := w.now.Restore(root); err != nil {
		t.Fatal(err)
	}
	c := *w.bench
	c.Dir, c.StateDir = filepath.Join(root, filepath.Base(w.Dir)), filepath.Join(root, filepath.Base(w.StateDir))
	c.keeper = &keeper{value: bytes.Clone(w.now.token)}
	c.State = c.keeper
	return &c
}

// places are the three that remember what was signed last. Who puts all of them back to one moment is not noticed here, but by clients
// (see TestRollback), so at most two are.
func (w *tampered) rollBack(t *testing.T, root string, c *bench, random *rand.Rand) string {
	from, what := &w.older, "older"
	if random.IntN(2) == 0 {
		from, what = &w.fork, "forked"
	}
	whole := filepath.Join(filepath.Dir(root), "whole")
	if err := from.Restore(whole); err != nil {
		t.Fatal(err)
	}
	keep := random.IntN(3)
	var names []string
	for i, place := range []string{filepath.Base(c.Dir), filepath.Base(c.StateDir), "token"} {
		if i == keep || random.IntN(3) == 0 {
			continue
		}
		names = append(names, place)
		if place == "token" {
			c.keeper.value = bytes.Clone(from.token)
			continue
		}
		copyDir(t, filepath.Join(root, place), filepath.Join(whole, place))
	}
	return what + ": " + strings.Join(names, " and ")
}

// forge changes the journal as someone would who knows the format: whole records and seals, with right checksums.
func forge(t *testing.T, c *bench, random *rand.Rand) string {
	names, err := segmentNames(c.Dir)
	if err != nil || len(names) == 0 {
		return "nothing"
	}
	name := names[random.IntN(len(names))]
	b := load(t, c.Dir, name)
	if len(b) < headerSize {
		return "nothing"
	}
	var fs [][]byte
	for rest := b[headerSize:]; len(rest) > 0; {
		_, n, err := parseFrame(rest)
		if err != nil {
			break
		}
		fs = append(fs, rest[:n])
		rest = rest[n:]
	}
	if len(fs) < 2 {
		return "nothing"
	}
	i, j := random.IntN(len(fs)), random.IntN(len(fs))
	what := fmt.Sprintf("%s, frames %d and %d of %d: ", name, i, j, len(fs))
	switch random.IntN(6) {
	case 0:
		what += "exchanged"
		fs[i], fs[j] = fs[j], fs[i]
	case 1:
		what += "the first deleted"
		fs = slices.Delete(fs, i, i+1)
	case 2:
		what += "the first again in place of the second"
		fs[j] = fs[i]
	case 3:
		what += "the first once more before the second"
		fs = slices.Insert(fs, j, fs[i])
	case 4:
		what += "all from the first on deleted"
		fs = fs[:i]
	default:
		f, _, err := parseFrame(fs[i])
		if err != nil || f.kind == kindSeal {
			return "nothing"
		}
		index, at, entry := f.index, f.time, bytes.Clone(f.entry)
		switch random.IntN(3) {
		case 0:
			what += "another number in the first"
			index += int64(random.IntN(7)) - 3
		case 1:
			what += "another time in the first"
			at += int64(random.IntN(2001)) - 1000
		default:
			what += "another entry in the first"
			entry[random.IntN(len(entry))] ^= 1 << random.IntN(8)
		}
		fs[i], _ = appendRecord(nil, kindRecord, index, at, entry, f.body)
	}
	store(t, join(b, fs...), c.Dir, name)
	return what
}

// TestTampered changes at random, one or two things at a time, what lies in the log's folder, in the signer's and in the token, of a log that is closed
// or open: bits, runs, records, files, whole places put back or exchanged for those of a fork. Each time the change is found before anything is signed,
// with a reason; or it harmed nothing: every entry is there, and what is signed next begins with them.
func TestTampered(t *testing.T) {
	n, random := bits.Number(t, 250)
	w := newTampered(t)
	root := filepath.Join(t.TempDir(), "tampered")
	classes := map[string]int{}
	for range n {
		c := w.put(t, root)
		var l *Log
		state := "closed"
		if random.IntN(4) == 0 {
			state, l = "open", c.open(t)
		}
		var did []string
		rolled := false
		for want := 1 + random.IntN(2); len(did) < want; {
			what, err := "", error(nil)
			switch k := random.IntN(10); {
			case k < 6:
				others := []*bits.Folder{w.older.Folder, w.fork.Folder}
				if rolled { // the last of three places would be put back too
					others = nil
				}
				what, err = w.now.Tamper(root, random, others...)
			case k < 9:
				what = forge(t, c, random)
			case len(did) == 0 && l == nil:
				what, rolled = w.rollBack(t, root, c, random), true
			default:
				what = "nothing"
			}
			if err != nil {
				t.Fatal(err)
			}
			if what != "nothing" {
				did = append(did, what)
			}
		}
		what := state + ": " + strings.Join(did, "; ")
		class := w.judge(t, c, l, what)
		if t.Failed() {
			return
		}
		kind, _, _ := strings.Cut(did[0], ":")
		for _, word := range []string{"flipped", "cut off", "zeroed", "without", "twice", "deleted", "exchanged", "overwritten", "as it was", "older", "forked", "frames"} {
			if strings.Contains(kind, word) {
				kind = word
				break
			}
		}
		classes[fmt.Sprintf("%-6s %-12s %s", state, kind, class)]++
	}
	for _, c := range slices.Sorted(maps.Keys(classes)) {
		t.Logf("%5d %s", classes[c], c)
	}
}

// judge says what became of a log that was tampered with. One that is open signs on from what it has in memory; then it is closed.
func (w *tampered) judge(t *testing.T, c *bench, l *Log, what string) (class string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Log(what)
		}
	}()
	size, leaves := w.now.size, w.now.leaves
	grow := func(l *Log) {
		at, cp, err := l.Append(t.Context(), record(size))
		if err != nil {
			t.Fatal(err)
		}
		var e edge
		for _, leaf := range leaves {
			e.add(nil, leaf)
		}
		leaf := tlog.RecordHash(Leaf(at[0].Time, record(size).Entry))
		e.add(nil, leaf)
		size, leaves = size+1, append(slices.Clip(leaves), leaf)
		if cp.Size != int64(size) || cp.Root != e.root() {
			t.Fatalf("signed %d entries under %v, want %d under %v", cp.Size, cp.Root, size, e.root())
		}
		checkNote(t, l, cp)
	}
	if l != nil {
		grow(l)
		if err := l.Close(); err != nil && !errors.Is(err, ErrStaleCopy) {
			t.Fatal(err)
		}
	}
	before, token := c.signer.signatures(), sha256.Sum256(c.keeper.value)
	l, err := Open(t.Context(), c.Config)
	if err != nil {
		var damage *DamageError
		var path *fs.PathError
		if !errors.As(err, &damage) && !errors.As(err, &path) {
			t.Errorf("no place is named: %v", err)
		}
		if c.signer.signatures() != before || sha256.Sum256(c.keeper.value) != token {
			t.Errorf("something was signed before the damage was found: %v", err)
		}
		return "detected"
	}
	defer os.RemoveAll(filepath.Dir(c.Dir))
	defer l.Close()
	holds(t, l, size)
	grow(l)
	holds(t, l, size)
	return "harmless"
}
