package safe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
)

var testKey = [KeySize]byte{1, 2, 3}

// person makes up number i.
func person(i int) *Person {
	p := &Person{Alias: fmt.Sprintf("CUST-%07d", i), Named: 1_700_000_000 + int64(i), Purpose: "delivery", Granted: uint64(i % 40)}
	id := policies.HashKey(binary.BigEndian.AppendUint64(nil, uint64(i)))
	p.ID = policies.OwnerID(id)
	p.Relations = []Relation{{Nonce: policies.Nonce(id[:16]), Hash: policies.HashKey(id[:])}}
	p.Mark = Mark{uint64(i%100 + 1), policies.HashKey(id[:8])}
	p.Invite(policies.HashKey(id[1:]), p.Alias, time.Unix(p.Named, 0))
	return p
}

// rich is one with everything that a record can have.
func rich(i int) *Person {
	p := person(i)
	p.Relations = append(p.Relations, Relation{Nonce: policies.Nonce{9}, Hash: policies.Hash{9}, ID: policies.DocumentID{7}, Time: 1_700_000_123})
	p.Marks = []AuthorMark{{policies.AuthorID{5}, Mark{3, policies.Hash{4}}}, {policies.AuthorID{6}, Mark{}}}
	p.Keys = Keys{2, policies.Hash{8}}
	p.Invite(policies.Hash{3}, fmt.Sprintf("second of %d", i), time.Unix(p.Named+7, 0))
	return p
}

func put(t testing.TB, b *Book, people ...*Person) {
	t.Helper()
	for _, p := range people {
		if err := b.Put(p); err != nil {
			t.Fatal(err)
		}
	}
}

func want(t testing.TB, b *Book, people ...*Person) {
	t.Helper()
	for _, p := range people {
		got, ok := b.Get(p.ID)
		if !ok {
			t.Fatalf("%s is not there", p.Alias)
		}
		if a, c := mustEncode(t, &got), mustEncode(t, p); !bytes.Equal(a, c) {
			t.Fatalf("%s is\n%x, not\n%x", p.Alias, a, c)
		}
	}
}

func mustEncode(t testing.TB, p *Person) []byte {
	t.Helper()
	b, err := encode(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t testing.TB, path string, head Head) *Safe {
	t.Helper()
	s, err := Open(path, testKey, head)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func commit(t testing.TB, s *Safe) Head {
	t.Helper()
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	s.Keep()
	return s.Head()
}

func TestBook(t *testing.T) {
	b := NewBook(0)
	var people []*Person
	for i := range 3000 {
		people = append(people, person(i))
	}
	people = append(people, rich(5000))
	people[7].Invited = nil // met otherwise: the alias is a mere alias
	put(t, b, people...)
	want(t, b, people...)
	if id, found, err := b.Named("CUST-0000007"); id != people[7].ID || !found || err != nil {
		t.Errorf("by alias: %v, %v, %v", id, found, err)
	}
	if id, found := b.Came(people[8].Invited[0].Token); id != people[8].ID || !found {
		t.Errorf("by invitation: %v, %v", id, found)
	}
	if u := b.Unposted(); len(u) != 1 || u[0] != people[3000].ID {
		t.Errorf("unposted: %v", u)
	}
	// What is put anew counts, and what it is called now.
	people[7].Alias, people[7].Mark.Version = "renamed", 500
	put(t, b, people[7])
	if _, found, _ := b.Named("CUST-0000007"); found {
		t.Error("the former alias is found")
	}
	if id, _, _ := b.Named("renamed"); id != people[7].ID || b.Len() != len(people) {
		t.Errorf("after a new name: %v, %d people", id, b.Len())
	}
	people[9].Alias = "renamed"
	put(t, b, people[9])
	if _, _, err := b.Named("renamed"); !errors.Is(err, ErrShared) {
		t.Errorf("an alias of two: %v", err)
	}
	people[9].Alias = "CUST-9"
	put(t, b, people[9])
	if id, found, err := b.Named("renamed"); id != people[7].ID || !found || err != nil {
		t.Errorf("of one again: %v, %v", found, err)
	}
	if _, found, _ := b.Named(""); found {
		t.Error("nobody is found by no alias")
	}
	// Marks that rise take no more memory than the records that count, give or take as much again.
	for i := range 60_000 {
		people[i%50].Mark.Version++
		put(t, b, people[i%50])
	}
	want(t, b, people...)
	if b.bytes > 2*b.live+5*pageSize || len(b.IDs()) != len(people) {
		t.Errorf("%d bytes for %d that count; %d people of %d", b.bytes, b.live, len(b.IDs()), len(people))
	}
}

// TestCollisions: people whose hashes are all the same are told apart.
func TestCollisions(t *testing.T) {
	b := NewBook(0)
	one := func([]byte) uint64 { return 1 }
	b.ids.hash, b.aliases.hash, b.invited.hash = one, one, one
	var people []*Person
	for i := range 20 {
		people = append(people, person(i))
	}
	people[3].Invited = nil
	put(t, b, people...)
	people[3].Alias = "third"
	put(t, b, people[3], people[5], people[3])
	want(t, b, people...)
	if id, found, err := b.Named("third"); id != people[3].ID || !found || err != nil {
		t.Errorf("by alias: %v, %v", found, err)
	}
	if _, found, _ := b.Named("CUST-0000003"); found {
		t.Error("a former alias is found")
	}
	if id, found := b.Came(people[4].Invited[0].Token); id != people[4].ID || !found || b.Len() != 20 || len(b.IDs()) != 20 {
		t.Errorf("%d people, %d ids", b.Len(), len(b.IDs()))
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "safe")
	s := open(t, path, Head{})
	people := []*Person{rich(1), person(2), person(3)}
	put(t, s.Book, people...)
	head := commit(t, s)
	for i := range 20 {
		people[1].Mark.Version = uint64(1000 + i)
		put(t, s.Book, people[1])
		head = commit(t, s)
	}
	s.Close()
	raw, err := os.ReadFile(path)
	if err != nil || bytes.Contains(raw, []byte("CUST-")) || bytes.Contains(raw, people[0].ID[:]) {
		t.Fatalf("the file is in the clear, or %v", err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %o", info.Mode().Perm())
	}
	s = open(t, path, head)
	want(t, s.Book, people...)
	if s.Head().Chunks != 21 || s.Len() != 3 {
		t.Errorf("%d chunks, %d people", s.Head().Chunks, s.Len())
	}
	if _, err := Open(path, [KeySize]byte{9}, head); !errors.Is(err, ErrDamaged) {
		t.Errorf("another key: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, testKey, head); !errors.Is(err, ErrShort) {
		t.Errorf("a file that is gone: %v", err)
	}
}

// TestCrash cuts the file at every byte, as a process that was killed or a power cut leaves it. What a head tells of is all there, or is said to be missing; what none
// tells of may be lost, and nothing else with it; and the next commit goes on.
func TestCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "safe")
	s := open(t, path, Head{})
	first, second := person(1), person(2)
	put(t, s.Book, first)
	committed := commit(t, s)
	end := s.size
	put(t, s.Book, second)
	commit(t, s)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "safe")
	for n := range len(whole) {
		for _, zeros := range []int{0, len(whole) - n} { // a power cut may leave the length without the bytes
			data := append(whole[:n:n], make([]byte, zeros)...)
			write(t, cut, data)
			got, err := Open(cut, testKey, committed)
			if !bytes.HasPrefix(data, whole[:end]) { // zeros in place of zeros are no loss
				if !errors.Is(err, ErrShort) && !errors.Is(err, ErrDamaged) {
					t.Fatalf("cut at %d of %d, where %d were committed: %v", n, len(whole), end, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("cut at %d of %d, where %d were committed: %v", n, len(whole), end, err)
			}
			want(t, got.Book, first)
			if _, there := got.Get(second.ID); there {
				t.Fatalf("cut at %d: half a record counts", n)
			}
			if n%24 != 0 && n < len(whole)-1 {
				got.Close()
				continue
			}
			put(t, got.Book, second)
			head := commit(t, got)
			got.Close()
			want(t, open(t, cut, head).Book, first, second)
		}
	}
}

// TestBits: each bit of the file counts, and so does the place of each chunk, and which copy of the file it is in.
func TestBits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "safe")
	s := open(t, path, Head{})
	var marks []int64
	var heads []Head
	for i := range 3 {
		put(t, s.Book, person(i))
		heads = append(heads, commit(t, s))
		marks = append(marks, s.size)
	}
	head := heads[2]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(what string, data []byte) {
		t.Helper()
		write(t, path, data)
		if _, err := Open(path, testKey, head); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrShort) && !errors.Is(err, ErrOther) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for bit := range 8 * len(whole) {
		changed := bytes.Clone(whole)
		changed[bit/8] ^= 1 << (bit % 8)
		refuse(fmt.Sprintf("bit %d", bit), changed)
	}
	one, two, three := whole[:marks[0]], whole[marks[0]:marks[1]], whole[marks[1]:]
	refuse("two chunks in the other order", slices.Concat(one, three, two))
	refuse("a chunk left out", slices.Concat(one, three))
	refuse("a chunk twice", slices.Concat(one, two, two, three))
	refuse("an older copy", slices.Concat(one, two))
	// A chunk that another copy of the same file got in the same place.
	write(t, path, slices.Concat(one, two))
	s = open(t, path, heads[1])
	put(t, s.Book, person(77))
	commit(t, s)
	refuse("another copy that went on by itself", mustRead(t, path))
}

// write makes a file anew: one that is cut and written again is put on disk at once by some file systems, which is slow.
func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRewrite: a file that is mostly what was put anew is written anew, also if the caller did not come to keep the head, again and again; the copy from before is refused.
func TestRewrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "safe")
	s := open(t, path, Head{})
	put(t, s.Book, person(1), rich(2))
	kept := commit(t, s)
	old := mustRead(t, path)
	for range 3 { // processes that were killed before they kept the head
		s.broken = true
		if err := s.Commit(); err != nil {
			t.Fatal(err)
		}
		s.Close()
		s = open(t, path, kept)
		want(t, s.Book, person(1), rich(2))
	}
	s.broken = true
	kept = commit(t, s)
	s.Close()
	write(t, path, old)
	if _, err := Open(path, testKey, kept); !errors.Is(err, ErrOther) {
		t.Errorf("the file from before: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".safe-*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// TestGrows: the file does not grow for ever.
func TestGrows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "safe")
	s := open(t, path, Head{})
	for i := range 2000 {
		put(t, s.Book, person(i))
	}
	commit(t, s)
	fresh := s.size
	for round := range 40 {
		for i := range 2000 {
			p := person(i)
			p.Mark.Version += uint64(round)
			put(t, s.Book, p)
		}
		commit(t, s)
		if s.size > 4*fresh+(5<<20) {
			t.Fatalf("%d bytes, of %d at first", s.size, fresh)
		}
	}
	head := s.Head()
	s.Close()
	if got := open(t, path, head); got.Len() != 2000 {
		t.Errorf("%d people", got.Len())
	}
}

// TestJoin: machines that take from one another in any order, and any number of times, end with the same, and lose nothing.
func TestJoin(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		machines := []*Book{NewBook(0), NewBook(0), NewBook(0)}
		highest := map[policies.OwnerID]uint64{}
		for range 12 {
			p := person(dice.IntN(4))
			p.Alias, p.Named = fmt.Sprintf("A%d", dice.IntN(3)), int64(dice.IntN(3))
			p.Mark = Mark{uint64(dice.IntN(5)), policies.Hash{byte(dice.IntN(2))}}
			if p.Mark.Version == 0 {
				p.Mark.Hash = policies.Hash{}
			}
			p.Relations[0].Hash[0] = byte(dice.IntN(3))
			if dice.IntN(2) == 0 {
				p.Relations[0].ID, p.Relations[0].Time = policies.DocumentID{1}, 5
			}
			*p.Of(policies.AuthorID{byte(dice.IntN(3))}) = Mark{uint64(1 + dice.IntN(3)), policies.Hash{1}}
			p.Purpose, p.Granted = fmt.Sprintf("P%d", dice.IntN(2)), uint64(dice.IntN(3))
			if g := uint64(dice.IntN(3)); g > 0 {
				p.Keys = Keys{g, policies.Hash{byte(dice.IntN(2))}}
			}
			m := machines[dice.IntN(3)]
			if old, ok := m.Get(p.ID); ok { // a machine's own marks only rise
				p.join(&old)
			}
			put(t, m, p)
			highest[p.ID] = max(highest[p.ID], p.Mark.Version)
		}
		for range 9 { // three rounds are enough for what one has to reach all
			for _, i := range dice.Perm(3) {
				for _, j := range dice.Perm(3) {
					if _, _, err := machines[i].Join(machines[j].Records()); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		for i, m := range machines {
			if m.Len() != len(highest) {
				t.Fatalf("round %d: machine %d has %d of %d people", round, i, m.Len(), len(highest))
			}
			for id, version := range highest {
				got, _ := m.Get(id)
				first, _ := machines[0].Get(id)
				if got.Mark.Version != version {
					t.Fatalf("round %d: a mark of %d where %d was seen", round, got.Mark.Version, version)
				}
				if !bytes.Equal(canonical(t, got), canonical(t, first)) {
					t.Fatalf("round %d: machine %d has\n%+v, machine 0\n%+v", round, i, got, first)
				}
			}
			if news, _, err := m.Join(machines[0].Records()); news != 0 || err != nil {
				t.Fatalf("round %d: %d news after the last", round, news)
			}
		}
	}
}

// canonical is a record whose relationships are in one order.
func canonical(t testing.TB, p Person) []byte {
	p.Relations = slices.SortedFunc(slices.Values(p.Relations), func(a, b Relation) int { return slices.Compare(a.Hash[:], b.Hash[:]) })
	return mustEncode(t, &p)
}

// TestSeveralInvitations: who accepted several is found by the references of all, until they are given another name, and by the tokens of all for ever, on all machines.
func TestSeveralInvitations(t *testing.T) {
	a, b := NewBook(0), NewBook(0)
	one, two := person(1), person(1)
	at := func(seconds int64) time.Time { return time.Unix(one.Named+seconds, 0) }
	if !one.Invite(policies.Hash{3}, "K-2", at(3)) || one.Invite(policies.Hash{3}, "K-2", at(4)) {
		t.Error("an invitation that is known is news, or a new one is not")
	}
	one.Invite(policies.Hash{5}, "K-5", at(20))
	put(t, a, one)
	two.Call("anna", at(10))
	two.Invite(policies.Hash{4}, "K-3", at(11))
	put(t, b, two)
	for _, books := range [][2]*Book{{a, b}, {b, a}} {
		if _, conflicts, err := books[0].Join(books[1].Records()); len(conflicts) > 0 || err != nil {
			t.Fatal(conflicts, err)
		}
	}
	for round := range 3 { // as it was put, read anew, packed
		for what, book := range map[string]*Book{"first": a, "second": b} {
			for name, found := range map[string]bool{"anna": true, "K-3": true, "K-5": true, "K-2": false, "CUST-0000001": false} {
				if id, got, err := book.Named(name); got != found || found && id != one.ID || err != nil {
					t.Errorf("%d: %q is %v, %v, %v on the %s machine", round, name, id, got, err, what)
				}
			}
			for _, token := range []policies.Hash{one.Invited[0].Token, {3}, {4}, {5}} {
				if id, found := book.Came(token); id != one.ID || !found {
					t.Errorf("%d: an invitation is nobody's on the %s machine", round, what)
				}
			}
			if got, _ := book.Get(one.ID); got.Newest() != (policies.Hash{5}) {
				t.Errorf("%d: the newest is %s on the %s machine", round, got.Newest(), what)
			}
		}
		if round == 0 {
			again := NewBook(0)
			if err := again.takePage(a.Records()); err != nil {
				t.Fatal(err)
			}
			a = again
		}
		got, _ := a.Get(one.ID)
		for range 3 << 12 {
			put(t, a, &got)
		}
	}
	// Another person of one of the names makes it mean nobody, and no more than that one.
	other := person(2)
	other.Alias = "K-3"
	put(t, a, other)
	if _, _, err := a.Named("K-3"); !errors.Is(err, ErrShared) {
		t.Errorf("a name of two: %v", err)
	}
	if id, _, err := a.Named("K-5"); id != one.ID || err != nil {
		t.Errorf("a name of one: %v", err)
	}
	// A record that could not be read again is not taken.
	before := a.Records()
	for i := range maxInvited + 1 {
		other.Invite(policies.Hash{9, byte(i)}, "K-9", at(0))
	}
	full := person(3)
	for i := range maxMarks {
		full.Marks = append(full.Marks, AuthorMark{policies.AuthorID{byte(i), byte(i >> 8)}, Mark{1, policies.Hash{1}}})
	}
	for i := range MaxRelations - 1 {
		full.Relations = append(full.Relations, Relation{Hash: policies.Hash{byte(i), byte(i >> 8)}, ID: policies.DocumentID{1}})
	}
	for _, p := range []*Person{other, full} {
		if err := a.Put(p); !errors.Is(err, ErrRecord) || !bytes.Equal(a.Records(), before) {
			t.Errorf("a record that is too large: %v", err)
		}
	}
}

// TestFormerRecord: the record of one invitation is the bytes that it always was.
func TestFormerRecord(t *testing.T) {
	p := &Person{ID: policies.OwnerID{1}, Alias: "K-1", Named: 300, Invited: []Invitation{{policies.Hash{2}, "K-1", 300}}}
	want := slices.Concat([]byte{78}, p.ID[:], []byte{3}, []byte("K-1"), []byte{1}, p.Invited[0].Token[:], []byte{0, 0xac, 2, 0, 0, 0, 0, 0, 0})
	if got := mustEncode(t, p); !bytes.Equal(got, want) {
		t.Errorf("it is\n%x, not\n%x", got, want)
	}
	if got, _, err := decode(want); err != nil || !reflect.DeepEqual(&got, p) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestConflicts: what cannot both be so is named.
func TestConflicts(t *testing.T) {
	a, b := NewBook(0), NewBook(0)
	one, two := person(1), person(1)
	two.Mark.Hash = policies.Hash{0xff}
	put(t, a, one)
	other := person(2)
	other.Alias = one.Alias
	put(t, b, two, other)
	_, conflicts, err := a.Join(b.Records())
	if err != nil || len(conflicts) != 2 {
		t.Fatalf("%v, %v", conflicts, err)
	}
	if _, _, err := a.Named(one.Alias); !errors.Is(err, ErrShared) {
		t.Errorf("the alias of both: %v", err)
	}
	before := a.Records()
	bad := append(b.Records(), 1, 2, 3)
	if _, _, err := a.Join(bad); !errors.Is(err, ErrRecord) || !bytes.Equal(a.Records(), before) {
		t.Errorf("records of which the last is none: %v", err)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(mustEncode(f, person(1)))
	f.Add(mustEncode(f, rich(2)))
	f.Add(mustEncode(f, &Person{}))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, n, err := decode(data)
		if err != nil {
			return
		}
		if !bytes.Equal(mustEncode(t, &p), data[:n]) {
			t.Error("it has another form")
		}
		r, _, err := skim(data)
		if err != nil || r.id != p.ID || string(r.alias) != p.Alias || r.unposted != p.Unposted() || r.size != n {
			t.Errorf("the index sees %+v", r)
		}
	})
}

func FuzzOpen(f *testing.F) {
	path := filepath.Join(f.TempDir(), "safe")
	s := open(f, path, Head{})
	put(f, s.Book, person(1))
	commit(f, s)
	put(f, s.Book, rich(2))
	head := commit(f, s)
	f.Add(mustRead(f, path))
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "safe")
		write(t, file, data)
		for _, h := range []Head{{}, head} {
			s, err := Open(file, testKey, h)
			if err == nil {
				s.Close()
			}
			if err == nil && h.Chunks > 0 && s.Len() != 2 {
				t.Error("it opened without all that was committed")
			}
		}
	})
}

// BenchmarkOpen opens the safe of a business with 400,000 people.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "safe")
	s := open(b, path, Head{})
	for i := range 400_000 {
		put(b, s.Book, person(i))
	}
	head := commit(b, s)
	s.Close()
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		start := time.Now()
		s, err := Open(path, testKey, head)
		if err != nil {
			b.Fatal(err)
		}
		took := time.Since(start)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
		b.ReportMetric(float64(s.size)/1e6, "MB-file")
		b.ReportMetric(took.Seconds(), "s")
		s.Close()
	}
}

// TestJoinOfFullRecords: two machines whose records of one person are each within bounds can be joined, and everybody else's records with them.
func TestJoinOfFullRecords(t *testing.T) {
	for what, fill := range map[string]func(p *Person, machine byte){
		"invitations": func(p *Person, machine byte) {
			for i := range 40 {
				p.Invite(policies.Hash{machine, byte(i)}, "K-1", time.Unix(int64(i), 0))
			}
		},
		"relationships": func(p *Person, machine byte) {
			for i := range 300 {
				p.Relations = append(p.Relations, Relation{Nonce: policies.Nonce{machine, byte(i), byte(i >> 8)}, Hash: policies.Hash{machine, byte(i), byte(i >> 8)}})
			}
		},
	} {
		a, b := NewBook(0), NewBook(0)
		for machine, book := range []*Book{a, b} {
			p := person(1)
			fill(p, byte(machine+1))
			put(t, book, p)
		}
		put(t, b, person(2)) // somebody else, whom only one machine met; stored after the full one
		before, _ := a.Get(person(1).ID)
		_, conflicts, err := a.Join(b.Records())
		if err != nil || len(conflicts) == 0 {
			t.Errorf("%s: machines can never be joined again: %v, or nobody is told: %v", what, err, conflicts)
		}
		after, _ := a.Get(before.ID)
		for _, rel := range before.Relations { // on which permissions rest
			if !slices.Contains(after.Relations, rel) {
				t.Errorf("%s: a relationship is lost", what)
			}
		}
		if _, ok := a.Get(person(2).ID); !ok {
			t.Errorf("%s: somebody else is lost to this machine", what)
		}
	}
}

// TestReferenceOfTheWrongPerson: a reference that came to two people (two machines, or a letter that the wrong person used) can be given back by naming the wrong one
// anew, as it could when it was an alias.
func TestReferenceOfTheWrongPerson(t *testing.T) {
	b := NewBook(0)
	right, wrong := person(1), person(2)
	for i, p := range []*Person{right, wrong} {
		p.Alias, p.Invited = "", nil
		p.Invite(policies.Hash{byte(i + 1)}, "K-1", time.Unix(p.Named, 0))
	}
	put(t, b, right, wrong)
	wrong.Call("not K-1", time.Unix(wrong.Named, 0)) // biz connect --as, within the second
	put(t, b, wrong)
	if id, found, err := b.Named("K-1"); id != right.ID || !found || err != nil {
		t.Errorf("K-1 is %v, %v, %v", id, found, err)
	}
}

// TestFormerAlias: in a record of an older program, where somebody who had accepted an invitation was renamed by hand, the alias is that: another alias later takes its place.
func TestFormerAlias(t *testing.T) {
	p := person(1)
	p.Alias, p.Invited = "anna", []Invitation{{policies.Hash{1}, "anna", p.Named}} // encodes to the bytes of an older program's record of {Alias: anna, Invited: 1}, whose invitation was for K-1
	b := NewBook(0)
	if err := b.takePage(mustEncode(t, p)); err != nil {
		t.Fatal(err)
	}
	got, _ := b.Get(p.ID)
	got.Call("bella", time.Unix(got.Named, 0))
	put(t, b, &got)
	if _, found, _ := b.Named("anna"); found {
		t.Error("a former alias, no reference, is found for ever")
	}
}
