package audit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
)

func TestVerify(t *testing.T) {
	for _, size := range []int{1, 2, 255, 256, 257, 511, 512, 513, 1000, 65536, 65537 + 300} {
		if size > 1000 && testing.Short() {
			continue
		}
		l := newLog(newVault(1)).fill(size)
		if size > 3 {
			l.bodies[2] = nil
		}
		for name, source := range map[string]Source{"memory": l.files(), "folder": l.files().write(t)} {
			log := l.opened(t, source)
			var done uint64
			log.Progress = func(n, of uint64) { done = n }
			s, err := log.Verify(t.Context())
			if err != nil {
				t.Fatalf("%d entries, %s: %v", size, name, err)
			}
			if s.Size != uint64(size) || s.Root != l.root(size) || s.Bodies+s.Erased != uint64(size) || (size > 3) != (s.Erased == 1) || s.Documents != 1 || done != uint64(size) {
				t.Errorf("%d entries, %s: %+v, progress %d", size, name, s, done)
			}
		}
	}
}

// A log that has no entry has the root of nothing, and no tiles.
func TestVerifyEmpty(t *testing.T) {
	l := &testLog{vaultOf: newVault(1)}
	log := l.opened(t, memory{checkpointName: []byte(l.checkpoint(0))})
	if _, err := log.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	forged := memory{checkpointName: []byte(l.signed(0, policies.Hash{}))}
	if _, err := l.opened(t, forged).Verify(t.Context()); !errors.Is(err, ErrDamaged) {
		t.Errorf("an empty log with another root: %v", err)
	}
}

// Whatever is changed in a published log is found, and named.
func TestVerifyNamesWhatIsWrong(t *testing.T) {
	const size = 600
	l := newLog(newVault(1)).fill(size)
	l.bodies[40] = nil
	stranger := newLog(newVault(2)).fill(size)
	good := l.files()
	entryAt := func(m memory, name string, place int) (at, n int) { // of an entry's bytes in a bundle
		data := m[name]
		for ; place > 0; place-- {
			at += 2 + int(binary.BigEndian.Uint16(data[at:]))
		}
		return at + 2, int(binary.BigEndian.Uint16(data[at:]))
	}
	bodyAt := func(m memory, name string, place int) (at, n int) {
		data := m[name]
		for ; place > 0; place-- {
			if k := binary.BigEndian.Uint32(data[at:]); k != erasedBody {
				at += int(k)
			}
			at += 4
		}
		return at + 4, int(binary.BigEndian.Uint32(data[at:]))
	}
	full, last := EntriesPath(1, 256), EntriesPath(2, 88)
	other := func(f func(o *testLog)) memory { // another log that the same key signed
		o := newLog(l.vaultOf)
		f(o)
		return o.files()
	}
	for _, c := range []struct {
		name  string
		spoil func(m memory) memory
		file  string
		index int64
		what  string
	}{
		{"a bit of an entry", func(m memory) memory {
			at, n := entryAt(m, full, 44)
			m[full][at+n-1] ^= 1
			return m
		}, BodiesPath(1, 256), 300, "not the one that the entry commits to"},
		{"a bit of an entry whose body was erased", func(m memory) memory {
			at, n := entryAt(m, EntriesPath(0, 256), 40)
			m[EntriesPath(0, 256)][at+n-1] ^= 1
			return m
		}, EntriesPath(0, 256), 40, "not the one that the signed tree has"},
		{"an entry and its body, both well formed", func(m memory) memory {
			o := newLog(l.vaultOf).fill(300)
			o.add(testTime.Add(300*time.Millisecond), evidence.Entry{Kind: evidence.EntryUse, Outcome: policies.CodeUnchanged}, &evidence.Details{}, nil)
			return swap(m, l, o, 300)
		}, full, 300, "not the one that the signed tree has"},
		{"an entry, its body and the hash tile", func(m memory) memory {
			o := newLog(l.vaultOf).fill(300)
			o.add(testTime.Add(300*time.Millisecond), evidence.Entry{Kind: evidence.EntryUse, Outcome: policies.CodeUnchanged}, &evidence.Details{}, nil)
			m = swap(m, l, o, 300)
			h := tlog.RecordHash(o.leaves[300])
			copy(m[TilePath(0, 1, 256)][44*32:], h[:])
			return m
		}, TilePath(1, 0, 2), 256, "do not make the hash"},
		{"an entry, its body and all hash tiles", func(m memory) memory {
			return other(func(o *testLog) {
				o.fill(300)
				o.add(testTime.Add(300*time.Millisecond), evidence.Entry{Kind: evidence.EntryUse, Outcome: policies.CodeUnchanged}, &evidence.Details{}, nil)
				o.fill(size)
			}).with(checkpointName, m[checkpointName])
		}, checkpointName, -1, "the signed one is"},
		{"a bit of a leaf tile", func(m memory) memory { m[TilePath(0, 1, 256)][70] ^= 1; return m }, TilePath(0, 1, 256), 258, "does not lead to the signed root"},
		{"a bit of the partial leaf tile", func(m memory) memory { m[TilePath(0, 2, 88)][3] ^= 1; return m }, TilePath(0, 2, 88), 512, "does not lead to the signed root"},
		{"a bit of a tile above", func(m memory) memory { m[TilePath(1, 0, 2)][40] ^= 1; return m }, TilePath(1, 0, 2), 256, "do not make the hash"},
		{"a tile that is cut", func(m memory) memory { m[TilePath(0, 1, 256)] = m[TilePath(0, 1, 256)][1:]; return m }, TilePath(0, 1, 256), -1, "has 8192 bytes, this has 8191"},
		{"a bundle that is cut", func(m memory) memory { m[last] = m[last][:len(m[last])-1]; return m }, last, 599, "of which"},
		{"a bundle with an entry too few", func(m memory) memory {
			at, _ := entryAt(m, last, 87)
			m[last] = m[last][:at-2]
			return m
		}, last, 599, "ends after 87 entries, not 88"},
		{"a bundle with a byte more", func(m memory) memory { m[last] = append(m[last], 7); return m }, last, 599, "1 bytes after"},
		{"an entry that is none", func(m memory) memory {
			at, _ := entryAt(m, full, 3)
			m[full][at+10] ^= 1
			return m
		}, full, 259, "malformed"},
		{"a bit of a body's details", func(m memory) memory {
			at, n := bodyAt(m, BodiesPath(0, 256), 41)
			m[BodiesPath(0, 256)][at+n-6] ^= 1
			return m
		}, BodiesPath(0, 256), 41, "not the one that the entry commits to"},
		{"a body of another entry", func(m memory) memory {
			b := BodiesPath(0, 256)
			at, n := bodyAt(m, b, 12)
			from, k := bodyAt(m, b, 13)
			if n != k {
				panic("choose two of a length")
			}
			copy(m[b][at:at+n], bytes.Clone(m[b][from:from+k]))
			return m
		}, BodiesPath(0, 256), 12, "not the one that the entry commits to"},
		{"a body with a length beyond the end", func(m memory) memory { m[BodiesPath(2, 88)][0] = 0x7f; return m }, BodiesPath(2, 88), 512, "of which"},
		{"a body that is cut inside", func(m memory) memory {
			at, _ := bodyAt(m, BodiesPath(0, 256), 9)
			m[BodiesPath(0, 256)][at+3]++ // the salt's length
			return m
		}, BodiesPath(0, 256), 9, "the body's"},
		{"bodies with a byte more", func(m memory) memory { m[BodiesPath(2, 88)] = append(m[BodiesPath(2, 88)], 7); return m }, BodiesPath(2, 88), 599, "1 bytes after"},
		{"another document beside the entry", func(m memory) memory {
			b := BodiesPath(0, 256)
			at, n := bodyAt(m, b, 0)
			body := must(parseBody(m[b][at : at+n]))
			changed := evidence.Body{Opening: evidence.Opening{Salt: policies.Nonce(body.salt), Details: body.details}, Document: stranger.envelope}
			data := changed.Bytes()
			rest := m[b][at+n:]
			m[b] = append(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...), rest...)
			return m
		}, BodiesPath(0, 256), 0, "the entry names"},
		{"a time that goes backwards", func(memory) memory {
			return other(func(o *testLog) {
				o.fill(400)
				o.put(testTime.Add(3*time.Millisecond), o.leaves[17][8:], o.bodies[17])
				o.fill(size)
			})
		}, full, 400, "before that of the entry before"},
		{"a time that goes backwards between bundles", func(memory) memory {
			return other(func(o *testLog) {
				o.fill(256)
				o.put(testTime.Add(3*time.Millisecond), o.leaves[17][8:], o.bodies[17])
				o.fill(size)
			})
		}, full, 256, "before that of the entry before"},
		{"no genesis", func(memory) memory {
			o := &testLog{vaultOf: l.vaultOf}
			return o.fill(size).files()
		}, EntriesPath(0, 256), 0, "does not begin with a genesis"},
		{"another vault's genesis", func(memory) memory {
			o := &testLog{vaultOf: l.vaultOf}
			e := must(envelope.Parse(stranger.envelope))
			o.add(testTime, evidence.Entry{Kind: evidence.EntryGenesis}, &evidence.Details{Document: e.Hash}, stranger.envelope)
			return o.fill(size).files()
		}, BodiesPath(0, 256), 0, "the log is of vault"},
	} {
		log := l.opened(t, c.spoil(good.clone()))
		_, err := log.Verify(t.Context())
		var d *DamageError
		if !errors.As(err, &d) || !errors.Is(err, ErrDamaged) || d.File != c.file || d.Index != c.index || !strings.Contains(err.Error(), c.what) {
			t.Errorf("%s: got %v, want %s, entry %d: ... %s", c.name, err, c.file, c.index, c.what)
		}
	}
	// What is not there is named too, and is no damage. Bodies that are not there are counted.
	for _, name := range []string{full, last, TilePath(0, 0, 256), TilePath(1, 0, 2)} {
		m := good.clone()
		delete(m, name)
		if _, err := l.opened(t, m).Verify(t.Context()); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is gone: %v", name, err)
		}
	}
	m := good.clone()
	delete(m, BodiesPath(1, 256))
	if s, err := l.opened(t, m).Verify(t.Context()); err != nil || s.Absent != 256 || s.Erased != 1 {
		t.Errorf("a file of bodies is gone: %+v, %v", s, err)
	}
}

// swap puts entry i of another log, with its body, in the place of a log's own.
func swap(m memory, l, other *testLog, i int) memory {
	c := &testLog{vaultOf: l.vaultOf, leaves: append([][]byte{}, l.leaves...), bodies: append([][]byte{}, l.bodies...), hashes: l.hashes}
	c.leaves[i], c.bodies[i] = other.leaves[i], other.bodies[i]
	files := c.files()
	for name := range files {
		if strings.HasPrefix(name, "tile/entries/") || strings.HasPrefix(name, "bodies/") {
			m[name] = files[name]
		}
	}
	return m
}

func (m memory) with(name string, data []byte) memory { m[name] = data; return m }

// While the log is published, full files take the place of partial ones.
func TestVerifyWithFullTilesInPlaceOfPartialOnes(t *testing.T) {
	l := newLog(newVault(1)).fill(300)
	old := l.checkpoint(300)
	l.fill(700)
	files := l.files()
	files[checkpointName] = []byte(old)
	files[TilePath(1, 0, 1)] = files[TilePath(1, 0, 2)][:32] // those of a level that is not full stay
	s, err := l.opened(t, files).Verify(t.Context())
	if err != nil || s.Size != 300 {
		t.Fatalf("%+v, %v", s, err)
	}
}

func TestCheckpoint(t *testing.T) {
	l, stranger := newLog(newVault(1)).fill(10), newLog(newVault(2)).fill(10)
	for name, text := range map[string]string{
		"another vault's":        stranger.checkpoint(10),
		"none":                   "",
		"a huge size":            l.signed(1<<53+1, policies.Hash{}),
		"the token's line alone": strings.Join(strings.SplitAfter(l.checkpoint(10), "\n")[:5], ""),
		"the host's line alone":  strings.Join(slices.Delete(strings.SplitAfter(l.checkpoint(10), "\n"), 4, 5), ""),
	} {
		if _, err := Open(t.Context(), memory{checkpointName: []byte(text)}, l.doc); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(t.Context(), memory{}, l.doc); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no checkpoint: %v", err)
	}
}

func TestConsistent(t *testing.T) {
	l := newLog(newVault(1)).fill(700)
	log := l.opened(t, l.files())
	for _, size := range []int{0, 1, 2, 255, 256, 257, 511, 699, 700} {
		if err := log.Consistent(t.Context(), l.checkpoint(size)); err != nil {
			t.Errorf("%d: %v", size, err)
		}
	}
	if err := log.Consistent(t.Context(), strings.Join(strings.SplitAfter(l.checkpoint(300), "\n")[:5], "")); err != nil {
		t.Errorf("a receipt's checkpoint: %v", err)
	}
	fork := l.fork(350)
	fork.add(testTime.Add(time.Second), evidence.Entry{Kind: evidence.EntryStop}, &evidence.Details{}, nil)
	fork.fill(700)
	if err := log.Consistent(t.Context(), fork.checkpoint(1)); err != nil {
		t.Errorf("before the fork: %v", err)
	}
	longer := l.fork(700).fill(800)
	for name, text := range map[string]string{
		"a fork":                    fork.checkpoint(400),
		"a fork of the same length": fork.checkpoint(700),
		"a longer log":              longer.checkpoint(800),
		"another vault's":           newLog(newVault(2)).fill(600).checkpoint(600),
	} {
		if err := log.Consistent(t.Context(), text); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m := l.files()
	m[TilePath(1, 0, 2)][3] ^= 1
	if err := l.opened(t, m).Consistent(t.Context(), l.checkpoint(300)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a changed tile: %v", err)
	}
	delete(m, TilePath(1, 0, 2))
	if err := l.opened(t, m).Consistent(t.Context(), l.checkpoint(300)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a tile that is gone: %v", err)
	}
}

func TestInclude(t *testing.T) {
	l := newLog(newVault(1)).fill(700)
	log := l.opened(t, l.files())
	for _, index := range []uint64{0, 1, 255, 256, 511, 512, 699} {
		r, err := log.Include(t.Context(), index)
		if err != nil || !bytes.Equal(r.Leaf, l.leaves[index]) {
			t.Errorf("entry %d: %v", index, err)
		}
	}
	if _, err := log.Include(t.Context(), 700); !errors.Is(err, policies.ErrProof) {
		t.Errorf("beyond the end: %v", err)
	}
	for name, spoil := range map[string]func(memory){
		"a changed leaf tile": func(m memory) { m[TilePath(0, 1, 256)][5*32] ^= 1 },
		"a changed tile":      func(m memory) { m[TilePath(1, 0, 2)][33] ^= 1 },
		"a changed entry": func(m memory) {
			o := newLog(l.vaultOf).fill(261)
			o.add(testTime.Add(261*time.Millisecond), evidence.Entry{Kind: evidence.EntryStop}, &evidence.Details{}, nil)
			swap(m, l, o, 261)
		},
	} {
		m := l.files()
		spoil(m)
		if _, err := l.opened(t, m).Include(t.Context(), 261); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRecords(t *testing.T) {
	l := newLog(newVault(1)).fill(700)
	l.bodies[300] = nil
	m := l.files()
	delete(m, BodiesPath(2, 188))
	log := l.opened(t, m)
	next := uint64(250)
	for r, err := range log.Records(t.Context(), 250, 600) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Index != next || !r.Time.Equal(testTime.Add(time.Duration(next)*time.Millisecond)) {
			t.Fatalf("record %d at %v, want %d", r.Index, r.Time, next)
		}
		if erased := next == 300; (r.Opening == nil) != (erased || next >= 512) || r.Absent != (next >= 512) {
			t.Errorf("record %d: opening %v, absent %v", r.Index, r.Opening, r.Absent)
		}
		if r.Opening != nil {
			if d, err := r.Details(); err != nil || d.Count != next {
				t.Errorf("record %d: %+v, %v", r.Index, d, err)
			}
		}
		next++
	}
	if next != 600 {
		t.Errorf("ended at %d", next)
	}
	for range log.Records(t.Context(), 700, 800) {
		t.Error("a record beyond the end")
	}
	for range log.Records(t.Context(), 0, 700) { // whoever stops early leaves nothing behind
		break
	}
	// What comes before a damage is given, then the damage, then nothing.
	m[EntriesPath(1, 256)] = m[EntriesPath(1, 256)][:5000]
	m[BodiesPath(0, 256)][len(m[BodiesPath(0, 256)])-9] ^= 1
	var seen, failed int
	for r, err := range l.opened(t, m).Records(t.Context(), 200, 700) {
		if err != nil {
			var d *DamageError
			if failed++; !errors.As(err, &d) || d.Index != 255 {
				t.Errorf("got %v", err)
			}
			continue
		}
		if seen++; r.Index >= 255 {
			t.Errorf("record %d after the damage", r.Index)
		}
	}
	if seen != 55 || failed != 1 {
		t.Errorf("%d records, %d errors", seen, failed)
	}
}

// The short way to a document's hash says yes only where the long one does, and to all that this project's programs write.
func TestNamed(t *testing.T) {
	l := benchmarkLog(100)
	log := l.opened(t, l.files())
	short := 0
	for r, err := range log.Records(t.Context(), 0, 100) {
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Document) == 0 {
			continue
		}
		if short++; !named(r) {
			t.Fatalf("entry %d takes the long way: %s", r.Index, r.Document)
		}
		whole := func(x *Record) error {
			d, err := x.Opening.Read()
			if err != nil {
				return err
			}
			e, err := envelope.Parse(x.Document)
			if err == nil && policies.Hash(e.Hash) != documentOf(x.Entry.Kind, d) {
				err = errors.New("another")
			}
			return err
		}
		if err := whole(r); err != nil {
			t.Fatal(err)
		}
		for i := range r.Document { // but for what a hash does not say: keyid and signature, which Recheck reads
			x := *r
			x.Document = bytes.Clone(r.Document)
			if x.Document[i] ^= 1; named(&x) && whole(&x) != nil && i < bytes.Index(r.Document, []byte(`"signatures"`)) {
				t.Errorf("entry %d: byte %d of its document may be anything", r.Index, i)
			}
		}
		member := map[bool]string{true: `"document":"`, false: `"request":"`}[r.Index == 0]
		at := bytes.Index(r.Opening.Details, []byte(member)) + len(member)
		for i := at - len(member); i < at+65; i++ {
			x := *r
			x.Opening = &evidence.Opening{Details: bytes.Clone(r.Opening.Details)}
			if x.Opening.Details[i] ^= 1; named(&x) {
				t.Errorf("entry %d: byte %d of its details may be anything", r.Index, i)
			}
		}
		for _, tail := range []string{`,"payload":"e30="}`, "," + `"p\u0061yload":"e30="}`} {
			x := *r
			x.Document = append(bytes.Clone(r.Document[:len(r.Document)-1]), tail...)
			if named(&x) {
				t.Errorf("a second payload is not noticed: %s", tail)
			}
		}
	}
	if short != 11 { // the genesis and ten requests
		t.Errorf("%d documents", short)
	}
}

func TestPaths(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{TilePath(0, 0, 256), "tile/0/000"},
		{TilePath(2, 1234067, 256), "tile/2/x001/x234/067"},
		{TilePath(0, 1000, 17), "tile/0/x001/000.p/17"},
		{EntriesPath(999, 256), "tile/entries/999"},
		{BodiesPath(1234067, 1), "bodies/x001/x234/067.p/1"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
}

func FuzzBundle(f *testing.F) {
	l := newLog(newVault(1)).fill(5)
	f.Add(l.files()[EntriesPath(0, 5)], 5)
	f.Add([]byte{0, 1, 7}, 1)
	f.Add([]byte{0xff, 0xff}, 1)
	f.Fuzz(func(t *testing.T, data []byte, entries int) {
		if entries < 1 || entries > TileWidth {
			return
		}
		leaves, place, err := parseBundle(data, entries)
		if err != nil {
			if place < 0 || place >= entries {
				t.Errorf("place %d of %d", place, entries)
			}
			return
		}
		var back []byte
		for _, leaf := range leaves {
			back = append(binary.BigEndian.AppendUint16(back, uint16(len(leaf))), leaf...)
		}
		if len(leaves) != entries || !bytes.Equal(back, data) {
			t.Errorf("a bundle with two spellings: %x", data)
		}
	})
}

func FuzzBodies(f *testing.F) {
	l := newLog(newVault(1)).fill(5)
	l.bodies[3] = nil
	f.Add(l.files()[BodiesPath(0, 5)], 5)
	f.Add([]byte{0, 0, 0, 0}, 1)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, 1)
	f.Add([]byte{0xff, 0xff, 0xff, 0xfe}, 1)
	f.Fuzz(func(t *testing.T, data []byte, entries int) {
		if entries < 1 || entries > TileWidth {
			return
		}
		bodies, place, err := parseBodies(data, entries)
		if err != nil {
			if place < 0 || place >= entries {
				t.Errorf("place %d of %d", place, entries)
			}
			return
		}
		var back []byte
		for _, body := range bodies {
			if body == nil {
				back = append(back, 0xff, 0xff, 0xff, 0xff)
				continue
			}
			back = append(binary.BigEndian.AppendUint32(back, uint32(len(body))), body...)
			// The parser of the vault's own language must agree on every body.
			parts, err := parseBody(body)
			theirs, other := evidence.ParseBody(body)
			if (err == nil) != (other == nil) {
				t.Errorf("two parsers disagree on %x: %v, %v", body, err, other)
			}
			if err == nil && (!bytes.Equal(parts.salt, theirs.Salt[:]) || !bytes.Equal(parts.details, theirs.Details) || !bytes.Equal(parts.document, theirs.Document)) {
				t.Errorf("two parsers read %x differently", body)
			}
		}
		if len(bodies) != entries || !bytes.Equal(back, data) {
			t.Errorf("bodies with two spellings: %x", data)
		}
	})
}

// BenchmarkVerify is the rate at which a log is verified, on as many processors as -cpu says. With bodies, each entry has the details of a use, and one in ten a
// signed request of ten items.
func BenchmarkVerify(b *testing.B) {
	const size = 100_000
	for _, kind := range []string{"entries", "bodies"} {
		l := benchmarkLog(size)
		files := l.files()
		for name := range files {
			if kind == "entries" && strings.HasPrefix(name, "bodies/") {
				delete(files, name)
			}
		}
		var bytes int
		for _, data := range files {
			bytes += len(data)
		}
		folder := files.write(b)
		b.Run(kind, func(b *testing.B) {
			runtime.GC()
			before := processorTime(b)
			for b.Loop() {
				log := l.opened(b, folder)
				if _, err := log.Verify(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(size*b.N)/b.Elapsed().Seconds(), "entries/s")
			b.ReportMetric(float64(size*b.N)/(processorTime(b)-before).Seconds(), "entries/cpu-s") // what a busy machine does not change
			b.ReportMetric(float64(bytes)/size, "bytes/entry")
		})
	}
}

// processorTime is what this process has used of all processors.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchmarkLog(size int) *testLog {
	l := newLog(newVault(1))
	key := envelope.NewSessionKey()
	for len(l.leaves) < size {
		now := testTime.Add(time.Duration(len(l.leaves)) * time.Millisecond)
		q := &policies.ReadRequest{
			Header: policies.NewHeader("read", now), Audience: l.doc.Vault, Session: policies.Hash{7}, Nonce: policies.NewNonce(), Expires: now.Unix() + 60, Purpose: "billing",
		}
		for i := range 10 {
			q.Items = append(q.Items, policies.ReadItem{Owner: policies.OwnerID{byte(i), 1}, Field: "phone.mobile"})
		}
		e := must(policies.Sign(key, q))
		for i := range q.Items {
			var document []byte
			if i == 0 {
				document = e.Raw
			}
			l.add(now, evidence.Entry{Kind: evidence.EntryUse, Owner: policies.Pseudonym{1}, Reader: policies.Pseudonym{2}, Outcome: policies.CodeReleased}, &evidence.Details{
				Owner: q.Items[i].Owner, Reader: policies.ReaderID{3}, Grant: policies.DocumentID{4}, Field: "phone.mobile", Author: policies.AuthorID(q.Items[i].Owner),
				Epoch: 1, Version: 1, Head: policies.Hash{5}, Leaf: policies.Hash{6}, Session: q.Session, Request: e.Hash, Nonce: q.Nonce, Custody: policies.CustodyResident,
			}, document)
		}
	}
	return l
}

func ExampleDamageError() {
	fmt.Println(damage("tile/entries/001", 300, "the entry is not the one that the signed tree has"))
	// Output: tile/entries/001: entry 300: the entry is not the one that the signed tree has
}

// An entry that was rewritten together with its hash tile is of the right form, so only a proof under the signed root finds it.
func TestProven(t *testing.T) {
	l := newLog(newVault(1)).fill(700)
	read := func(m memory, from uint64) (n uint64, err error) {
		for r, e := range l.opened(t, m).Proven(t.Context(), from, 1<<40) {
			if e != nil {
				return n, e
			}
			if r.Index != from+n {
				t.Fatalf("entry %d came where %d was due", r.Index, from+n)
			}
			n++
		}
		return n, nil
	}
	whole := l.files()
	for _, from := range []uint64{0, 255, 256, 699, 700} {
		if n, err := read(whole, from); err != nil || n != 700-from {
			t.Errorf("from %d: %d records, %v", from, n, err)
		}
	}
	other := newLog(newVault(1)).fill(700)
	forged := whole.clone()
	for _, name := range []string{EntriesPath(1, TileWidth), BodiesPath(1, TileWidth), TilePath(0, 1, TileWidth)} {
		forged[name] = other.files()[name]
	}
	for _, err := range l.opened(t, forged).Records(t.Context(), 0, 1<<40) {
		if err != nil {
			t.Fatalf("records alone find the forgery: %v", err)
		}
	}
	var d *DamageError
	if n, err := read(forged, 0); n != 256 || !errors.As(err, &d) {
		t.Errorf("entries that were rewritten with their hash tile: %d records, %v", n, err)
	}
	delete(forged, TilePath(0, 1, TileWidth))
	forged[TilePath(0, 1, TileWidth)] = whole[TilePath(0, 1, TileWidth)]
	if n, err := read(forged, 0); n != 256 || !errors.As(err, &d) || d.Index != 256 {
		t.Errorf("entries that were rewritten alone: %d records, %v", n, err)
	}
}
