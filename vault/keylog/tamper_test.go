package keylog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// closedLog is a log of 30 entries in 10 commits over several segments, closed.
func closedLog(t testing.TB) *bench {
	t.Helper()
	b := newBench(t).unsynced()
	b.SegmentBytes = 600
	l := b.create(t)
	for i := range 10 {
		mustAppend(t, l, records(3*i, 3)...)
	}
	mustClose(t, l)
	return b
}

// intact demands that the log is refused as damaged, or opens with everything
// that was signed.
func intact(t *testing.T, b *bench, what string) {
	t.Helper()
	l, err := Open(t.Context(), b.Config)
	if err != nil {
		var damage *DamageError
		if !errors.As(err, &damage) {
			t.Fatalf("%s: %v", what, err)
		}
		return
	}
	defer l.Close()
	holds(t, l, 30)
}

// TestTamperAnywhere changes each file at random. Nothing that was signed may
// get lost or change without a refusal.
func TestTamperAnywhere(t *testing.T) {
	b := closedLog(t)
	type target struct{ dir, name string }
	var targets []target
	for _, dir := range []string{"log", "state"} {
		path := map[string]string{"log": b.Dir, "state": b.StateDir}[dir]
		entries, err := os.ReadDir(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			targets = append(targets, target{dir, e.Name()})
		}
	}
	if len(targets) < 7 {
		t.Fatalf("only %v", targets)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for _, target := range targets {
		path := func(c *bench) string {
			return filepath.Join(map[string]string{"log": c.Dir, "state": c.StateDir}[target.dir], target.name)
		}
		content := load(t, path(b))
		change := func(what string, f func(path string) error) {
			c := b.clone(t)
			if err := f(path(c)); err != nil {
				t.Fatal(err)
			}
			intact(t, c, target.name+": "+what)
		}
		change("deleted", os.Remove)
		change("emptied", func(p string) error { return os.Truncate(p, 0) })
		change("lengthened", func(p string) error { return os.WriteFile(p, append(bytes.Clone(content), 0), 0o600) })
		for range 10 { // more at random: TestTampered
			at, bit := rng.IntN(len(content)), byte(1)<<rng.IntN(8)
			change("flipped", func(p string) error {
				c := bytes.Clone(content)
				c[at] ^= bit
				return os.WriteFile(p, c, 0o600)
			})
			change("truncated", func(p string) error { return os.Truncate(p, int64(at)) })
			change("zeroed", func(p string) error {
				c := bytes.Clone(content)
				clear(c[at:])
				return os.WriteFile(p, c, 0o600)
			})
		}
	}
}

// frames splits a segment's bytes after the header.
func frames(t testing.TB, b []byte) (fs [][]byte) {
	t.Helper()
	for b = b[headerSize:]; len(b) > 0; {
		_, n, err := parseFrame(b)
		if err != nil {
			t.Fatal(err)
		}
		fs = append(fs, b[:n])
		b = b[n:]
	}
	return fs
}

func join(header []byte, fs ...[]byte) []byte {
	return append(bytes.Clone(header[:headerSize]), bytes.Join(fs, nil)...)
}

// TestForgeries are changes by someone who knows the format. Each must be
// refused, and the damage named.
func TestForgeries(t *testing.T) {
	b := closedLog(t)
	names, err := segmentNames(b.Dir)
	if err != nil || len(names) < 3 {
		t.Fatal(names, err)
	}
	id := newLogID(b.Origin, b.PublicKey)
	last := names[len(names)-1]
	edit := func(name string, f func(fs [][]byte) [][]byte) func(t *testing.T, c *bench) {
		return func(t *testing.T, c *bench) {
			old := load(t, c.Dir, name)
			store(t, join(old, f(frames(t, old))...), c.Dir, name)
		}
	}
	forged := func(index int64, time int64) []byte {
		f, _ := appendRecord(nil, kindRecord, index, time, []byte("grant everything"), nil)
		return f
	}
	timeOf := func(f []byte) int64 {
		p, _, err := parseFrame(f)
		if err != nil {
			t.Fatal(err)
		}
		return p.time
	}

	for name, test := range map[string]struct {
		tamper func(t *testing.T, c *bench)
		index  int64 // first entry in doubt
	}{
		"an entry edited, checksum made right": {edit(names[0], func(fs [][]byte) [][]byte {
			fs[1] = forged(1, timeOf(fs[1]))
			return fs
		}), 0},
		"an entry's time edited, checksum made right": {edit(last, func(fs [][]byte) [][]byte {
			p, _, _ := parseFrame(fs[0])
			fs[0], _ = appendRecord(nil, kindRecord, p.index, p.time+1000, p.entry, p.body)
			return fs
		}), -1},
		"two entries swapped": {edit(names[0], func(fs [][]byte) [][]byte {
			fs[0], fs[1] = fs[1], fs[0]
			return fs
		}), 0},
		"two entries swapped, renumbered": {edit(names[0], func(fs [][]byte) [][]byte {
			p, _, _ := parseFrame(fs[0])
			q, _, _ := parseFrame(fs[1])
			fs[0], _ = appendRecord(nil, kindRecord, 0, q.time, q.entry, q.body)
			fs[1], _ = appendRecord(nil, kindRecord, 1, p.time, p.entry, p.body)
			return fs
		}), -1},
		"an entry cut out": {edit(names[0], func(fs [][]byte) [][]byte { return append(fs[:1:1], fs[2:]...) }), 1},
		"a commit cut out": {edit(names[0], func(fs [][]byte) [][]byte { return fs[4:] }), 0},
		"a seal twice":     {edit(names[0], func(fs [][]byte) [][]byte { return append(fs[:4:4], fs[3:]...) }), 3},
		"last commit cut":  {edit(last, func(fs [][]byte) [][]byte { return fs[:len(fs)-4] }), 27},
		"last seal cut":    {edit(last, func(fs [][]byte) [][]byte { return fs[:len(fs)-1] }), 30},
		"last segment cut": {func(t *testing.T, c *bench) { os.Remove(filepath.Join(c.Dir, last)) }, -1},
		"middle segment":   {func(t *testing.T, c *bench) { os.Remove(filepath.Join(c.Dir, names[1])) }, -1},
		"first segment":    {func(t *testing.T, c *bench) { os.Remove(filepath.Join(c.Dir, names[0])) }, 0},
		"segments exchanged": {func(t *testing.T, c *bench) {
			x, y := load(t, c.Dir, names[0]), load(t, c.Dir, names[1])
			store(t, y, c.Dir, names[0])
			store(t, x, c.Dir, names[1])
		}, 0},
		"entries appended with a seal of another key": {edit(last, func(fs [][]byte) [][]byte {
			var e edge
			other := newSealKey([]byte("guess"))
			return append(fs, forged(30, 1<<42), appendSeal(nil, 31, other.seal(id, 31, e.root())))
		}), 30},
		"an old seal replayed over new entries": {edit(last, func(fs [][]byte) [][]byte {
			p, _, _ := parseFrame(fs[len(fs)-1])
			return append(fs, forged(30, 1<<42), appendSeal(nil, 31, p.mac))
		}), 30},
		"unknown frame appended": {edit(last, func(fs [][]byte) [][]byte {
			f := bytes.Clone(forged(30, 1<<42))
			f[frameHead] = 9
			putCRC(f)
			return append(fs, f)
		}), 30},
		"another log's header": {func(t *testing.T, c *bench) {
			s := load(t, c.Dir, last)
			copy(s, journalHeader(newLogID("other", b.PublicKey), 0))
			store(t, s, c.Dir, last)
		}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			c := b.clone(t)
			test.tamper(t, c)
			damage := c.refuse(t)
			if damage.File == "" || damage.What == "" || test.index >= 0 && damage.Index != test.index {
				t.Errorf("damage named as %+v, want entry %d", damage, test.index)
			}
			// What was refused once is refused again: open repairs nothing then.
			c.refuse(t)
		})
	}

	t.Run("entries appended without a seal", func(t *testing.T) {
		// Indistinguishable from a crash, so it is cut, never signed.
		c := b.clone(t)
		edit(last, func(fs [][]byte) [][]byte { return append(fs, forged(30, 1<<42)) })(t, c)
		l := c.open(t)
		holds(t, l, 30)
		if l.Recovery().CutBytes != int64(len(forged(30, 0))) {
			t.Fatalf("%+v", l.Recovery())
		}
	})

	t.Run("a seal cut out", func(t *testing.T) {
		// The next seal covers the entries of both commits: nothing is lost.
		c := b.clone(t)
		edit(names[0], func(fs [][]byte) [][]byte { return append(fs[:3:3], fs[4:]...) })(t, c)
		holds(t, c.open(t), 30)
	})

	t.Run("a body erased", func(t *testing.T) {
		// Not an attack: retention. The tree and every proof stay.
		c := b.clone(t)
		edit(names[0], func(fs [][]byte) [][]byte {
			p, _, _ := parseFrame(fs[1])
			fs[1], _ = appendRecord(nil, kindErased, p.index, p.time, p.entry, nil)
			return fs
		})(t, c)
		l := c.open(t)
		_, r, err := l.Read(1)
		if err != nil || r.Body != nil || !bytes.Equal(r.Entry, record(1).Entry) {
			t.Fatalf("%q: %v", r, err)
		}
		if _, r, err := l.Read(2); err != nil || !bytes.Equal(r.Body, record(2).Body) {
			t.Fatalf("%q: %v", r, err)
		}
		cp := l.Checkpoint()
		proof, err := l.Prove(1, cp.Size)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := l.ReadLeaf(1)
		if err != nil || tlog.CheckRecord(proof, cp.Size, cp.Root, 1, tlog.RecordHash(leaf)) != nil {
			t.Fatal("the proof does not hold after the body was erased", err)
		}
	})
}

// TestRollback puts older copies back, of each place alone and together.
func TestRollback(t *testing.T) {
	b := closedLog(t)
	older := b.clone(t)
	l := b.open(t)
	mustAppend(t, l, records(30, 3)...)
	mustClose(t, l)

	for name, test := range map[string]struct {
		log, state, token bool // put back
		opens             int  // entries, if it opens
	}{
		"nothing":         {opens: 33},
		"log":             {log: true},
		"state":           {state: true},
		"log and state":   {log: true, state: true},
		"state and token": {state: true, token: true}, // the checkpoint in the folder tells
		"log and token":   {log: true, token: true},
		"token":           {token: true, opens: 33},                         // older than the file, as it may be
		"all":             {log: true, state: true, token: true, opens: 30}, // only clients can tell
	} {
		t.Run(name, func(t *testing.T) {
			c := b.clone(t)
			if test.log {
				copyDir(t, c.Dir, older.Dir)
			}
			if test.state {
				copyDir(t, c.StateDir, older.StateDir)
			}
			if test.token {
				c.keeper.value = bytes.Clone(older.keeper.value)
			}
			if test.opens == 0 {
				c.refuse(t)
				return
			}
			holds(t, c.open(t), test.opens)
		})
	}
}

// TestFork has two valid continuations of one log and mixes them.
func TestFork(t *testing.T) {
	b := closedLog(t)
	fork := b.clone(t)
	extend := func(b *bench, n int) {
		l := b.open(t)
		mustAppend(t, l, records(n, 3)...)
		mustClose(t, l)
	}
	extend(b, 30)
	extend(fork, 1000)
	for name, mix := range map[string]func(c *bench){
		"log":        func(c *bench) { copyDir(t, c.Dir, fork.Dir) },
		"state":      func(c *bench) { copyDir(t, c.StateDir, fork.StateDir) },
		"token":      func(c *bench) { c.keeper.value = fork.keeper.value },
		"checkpoint": func(c *bench) { store(t, load(t, fork.Dir, checkpointFile), c.Dir, checkpointFile) },
		"both folders": func(c *bench) {
			copyDir(t, c.Dir, fork.Dir)
			copyDir(t, c.StateDir, fork.StateDir)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := b.clone(t)
			mix(c)
			c.refuse(t)
		})
	}
}

// TestOtherKey opens a log with a key that did not sign it, and with states
// signed by another key.
func TestOtherKey(t *testing.T) {
	b := closedLog(t)
	seed := sha256.Sum256([]byte("another key"))
	other := ed25519.NewKeyFromSeed(seed[:])

	c := b.clone(t)
	c.PublicKey = other.Public().(ed25519.PublicKey)
	c.refuse(t)

	c = b.clone(t)
	c.Origin = "vault.test/other"
	c.refuse(t)

	resign := func(raw []byte) []byte {
		s, err := parseSigned(raw)
		if err != nil {
			t.Fatal(err)
		}
		copy(s.signature[:], ed25519.Sign(other, []byte(checkpointText(origin, s.size, s.root))))
		return s.encode()
	}
	c = b.clone(t)
	c.keeper.value = resign(c.keeper.value)
	if d := c.refuse(t); d.File != "token" {
		t.Error(d)
	}
	c = b.clone(t)
	state := load(t, c.StateDir, stateFile)
	for slot := 1; slot <= 2; slot++ {
		at := slot * statePage
		copy(state[at:], resign(state[at:at+slotSize]))
	}
	store(t, state, c.StateDir, stateFile)
	if d := c.refuse(t); d.File != stateFile {
		t.Error(d)
	}
}

// TestIndexFilesAreNotTrusted changes the hash and offset files of an open log:
// reads and proofs refuse, and what is signed next is right all the same.
func TestIndexFilesAreNotTrusted(t *testing.T) {
	b := newBench(t).unsynced()
	l := b.create(t)
	const n = 9000 // more hashes than are kept in memory
	for i := 0; i < n; i += 1000 {
		mustAppend(t, l, records(i, 1000)...)
	}
	garbage := bytes.Repeat([]byte{7}, 32*1000)
	if _, err := l.hashes.WriteAt(garbage, 0); err != nil {
		t.Fatal(err)
	}
	var damage *DamageError
	if _, err := l.Prove(5, n); !errors.As(err, &damage) || damage.File != hashesFile {
		t.Fatalf("proof from edited hashes: %v", err)
	}
	if _, _, err := l.Read(5); !errors.As(err, &damage) {
		t.Fatalf("read against edited hashes: %v", err)
	}
	if _, err := l.offsets.WriteAt(binary.BigEndian.AppendUint64(nil, uint64(headerSize)), 8*(n-1)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Read(n - 1); !errors.As(err, &damage) {
		t.Fatalf("read by an edited offset: %v", err)
	}
	mustAppend(t, l, records(n, 5)...)
	holds(t, l, n+5)
	mustClose(t, l)
	l = b.open(t)
	holds(t, l, n+5)
	if _, err := l.Prove(5, n+5); err != nil {
		t.Fatal(err)
	}
}

// TestLinksInTheLogFolder: who can write to the log's folder puts a link where
// the log makes a file. Open must not overwrite what the link points to, the
// signer state first of all.
func TestLinksInTheLogFolder(t *testing.T) {
	for _, name := range []string{hashesFile, offsetsFile, checkpointFile} {
		t.Run(name, func(t *testing.T) {
			b := closedLog(t)
			before := load(t, b.StateDir, stateFile)
			link := filepath.Join(b.Dir, name+".new")
			if err := os.Symlink(filepath.Join(b.StateDir, stateFile), link); err != nil {
				t.Fatal(err)
			}
			l, err := Open(t.Context(), b.Config)
			if err == nil {
				l.Close()
				t.Fatal("opened over a link")
			}
			if !strings.Contains(err.Error(), name+".new") {
				t.Fatalf("the place is not named: %v", err)
			}
			after := load(t, b.StateDir, stateFile)
			if len(after) != len(before) || !bytes.Equal(after[:headSize], before[:headSize]) {
				t.Fatal("the signer state was overwritten through a link")
			}
			if err := os.Remove(link); err != nil {
				t.Fatal(err)
			}
			mustClose(t, b.open(t))
		})
	}
}
