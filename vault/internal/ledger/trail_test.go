package ledger

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// A trail answers as a plain list would, whatever its length and the distances in it.
func TestTrail(t *testing.T) {
	for _, n := range []int{0, 1, 2, trailPage - 1, trailPage, trailPage + 1, 3*trailPage + 7} {
		var tr trail
		var all []uint64
		for next := uint64(rand.N(3)); len(all) < n; next += 1 + uint64(rand.N(400)) {
			tr.add(next)
			all = append(all, next)
		}
		if tr.n != n || len(tr.pages) != (n+trailPage-1)/trailPage {
			t.Fatalf("%d indexes on %d pages, want %d", tr.n, len(tr.pages), n)
		}
		for range 300 {
			before, limit := rand.Uint64N(uint64(410*n+10)), rand.N(2*trailPage)
			if rand.N(8) == 0 {
				before = math.MaxUint64
			}
			end, _ := slices.BinarySearch(all, before)
			want := slices.Clone(all[max(0, end-limit):end])
			slices.Reverse(want)
			if got := tr.below(before, limit); !slices.Equal(got, want) {
				t.Fatalf("%d below %d of %d: %d indexes, want %d", limit, before, n, len(got), len(want))
			}
			index := rand.Uint64N(uint64(410*n + 10))
			if n > 0 && rand.N(2) == 0 {
				index = all[rand.N(n)]
			}
			if _, want := slices.BinarySearch(all, index); tr.has(index) != want {
				t.Fatalf("has %d: %v, want %v", index, !want, want)
			}
		}
		// Page for page into a database and back, and on from there.
		var back trail
		s := &State{read: map[policies.IdentityID]*trail{{1}: &tr}}
		other := newState()
		for i := range uint64(len(tr.pages)) {
			key := string(kindRead) + string(append([]byte{1}, make([]byte, 31)...)) + page(int(i))
			insert, err := decode(key, slices.Clone(s.encode(key)))
			must(t, err)
			insert(other)
		}
		if n > 0 {
			back = *other.read[policies.IdentityID{1}]
		}
		tr.add(1 << 62)
		back.add(1 << 62)
		if !reflect.DeepEqual(tr, back) {
			t.Errorf("%d indexes came back as another list", n)
		}
	}
}

// What is written to the database while the trail grows stays as it was.
func TestTrailPagesStay(t *testing.T) {
	var tr trail
	for i := range uint64(10) {
		tr.add(i * 1000)
	}
	page := tr.page(0)
	was := slices.Clone(page)
	for i := uint64(10); i < 3*trailPage; i++ {
		tr.add(i * 1000)
	}
	if !slices.Equal(page, was) {
		t.Error("a page changed under whoever writes it")
	}
}

func TestReadPage(t *testing.T) {
	uvarints := func(vs ...uint64) (out []byte) {
		for _, v := range vs {
			out = binary.AppendUvarint(out, v)
		}
		return out
	}
	if got, ok := readPage(uvarints(0, 1, 300)); !ok || !slices.Equal(got, []uint64{0, 1, 301}) {
		t.Errorf("%d, %v", got, ok)
	}
	for name, page := range map[string][]byte{
		"nothing":         {},
		"one twice":       uvarints(5, 0),
		"beyond the end":  uvarints(math.MaxUint64, 1),
		"cut":             uvarints(1 << 40)[:3],
		"a long spelling": {5, 0x81, 0},
		"a long uvarint":  {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1},
		"too many":        append(uvarints(0), slices.Repeat([]byte{1}, trailPage)...),
	} {
		if _, ok := readPage(page); ok {
			t.Errorf("%s is taken for a page", name)
		}
	}
}

// trailRecord is a use, as far as the trails are concerned.
func trailRecord(owner, reader policies.Pseudonym, index uint64) *Record {
	return &Record{Kind: evidence.EntryUse, Owner: owner, Reader: reader, Index: index}
}

// BenchmarkTrails applies 10 million uses by one business, and then by a thousand of them, and tells what a use takes of memory, beyond the owners' trails, and
// what a question costs.
func BenchmarkTrails(b *testing.B) {
	const uses = 10_000_000
	for name, readers := range map[string]int{"one business": 1, "a thousand": 1000} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s := newState()
				id := func(i int) (out [32]byte) {
					binary.BigEndian.PutUint64(out[:], uint64(i)+1)
					return out
				}
				for i := range readers {
					s.pseudonyms[policies.Pseudonym{byte(i), byte(i >> 8), 1}] = id(i)
					s.identities[id(i)] = &Identity{}
				}
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				begin := time.Now()
				for i := range uint64(uses) {
					n := int(i) % readers
					must(b, s.Apply(trailRecord(policies.Pseudonym{}, policies.Pseudonym{byte(n), byte(n >> 8), 1}, i)))
				}
				clear(s.changed)
				s.changed = nil
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/uses, "bytes/use")
				b.ReportMetric(float64(time.Since(begin).Nanoseconds())/uses, "ns/use")
				reader := policies.ReaderID(id(readers / 2))
				b.ReportMetric(timed(func() { s.Reading(reader, rand.Uint64N(uses)) }), "ns/has")
				b.ReportMetric(timed(func() { s.Readings(reader, rand.Uint64N(uses), 1000) }), "ns/page")
				runtime.KeepAlive(s)
			}
		})
	}
}

// timed is how many nanoseconds a call takes.
func timed(f func()) float64 {
	const times = 10_000
	begin := time.Now()
	for range times {
		f()
	}
	return float64(time.Since(begin).Nanoseconds()) / times
}
