package views

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// Query says which entries. What is left out asks for nothing; several of a list are alternatives.
type Query struct {
	Owner, Reader policies.Pseudonym
	Field         policies.Field
	Kinds         []evidence.Kind
	Outcomes      []policies.Code
	From, To      time.Time // from the first to before the second
	Before        uint64    // only entries with a lower index; 0: from the newest
	Limit         int       // at most so many; 0: all
}

// Row is an entry as the index has it.
type Row struct {
	Index   uint64         `json:"index"`
	Time    time.Time      `json:"time"`
	Kind    evidence.Kind  `json:"kind"`
	Outcome policies.Code  `json:"outcome,omitzero"`
	Owner   Party          `json:"owner,omitzero"`
	Reader  Party          `json:"reader,omitzero"`
	Field   policies.Field `json:"field,omitzero"` // empty also if there are several
}

// Search gives the entries asked for, newest first. before is what to put into [Query.Before] for the next page, 0 if there is none.
func (x *Index) Search(q Query) (rows []Row, before uint64, err error) {
	err = x.scan(q, 1<<columns-1, func(b *block) (bool, error) {
		for word := len(b.set) - 1; word >= 0; word-- {
			for set := b.set[word]; set != 0; {
				i := bits.Len64(set) - 1
				set &^= 1 << i
				if q.Limit > 0 && len(rows) == q.Limit {
					before = rows[len(rows)-1].Index
					return false, nil
				}
				r, err := x.row(b, 64*word+i)
				if err != nil {
					return false, err
				}
				rows = append(rows, r)
			}
		}
		return true, nil
	})
	return rows, before, err
}

// row is row i of a block of which all columns were read.
func (x *Index) row(block *block, i int) (Row, error) {
	row := block.first + uint64(i)
	var v [columns]uint64
	for c := range v {
		var b [8]byte
		copy(b[:], block.columns[c][i*layout[c].width:][:layout[c].width])
		v[c] = binary.LittleEndian.Uint64(b[:])
	}
	s := &x.state
	if v[colKind] >= uint64(len(s.Kinds)) || v[colOutcome] >= uint64(len(s.Outcomes)) || v[colOwner] >= uint64(len(s.Parties)) ||
		v[colReader] != several && v[colReader] >= uint64(len(s.Parties)) || v[colField] != several && v[colField] >= uint64(len(s.Fields)) {
		return Row{}, fmt.Errorf("%w: row %d names what is in no dictionary", ErrIndex, row)
	}
	r := Row{
		Index: row, Time: time.UnixMilli(int64(v[colTime])).UTC(), Kind: evidence.Kind(s.Kinds[v[colKind]]), Outcome: policies.Code(s.Outcomes[v[colOutcome]]),
		Owner: s.Parties[v[colOwner]],
	}
	if v[colReader] != several {
		r.Reader = s.Parties[v[colReader]]
	}
	if v[colField] != several {
		r.Field = policies.Field(s.Fields[v[colField]])
	}
	return r, nil
}

// By is a property by which entries are counted.
type By string

// The properties.
const (
	ByKind    By = "kind"
	ByOutcome By = "outcome"
	ByOwner   By = "owner"
	ByReader  By = "reader"
	ByField   By = "field"
	ByMinute  By = "minute" // UTC, like the next two
	ByHour    By = "hour"
	ByDay     By = "day"
)

// Count is how many entries have the same properties.
type Count struct {
	Kind    evidence.Kind  `json:"kind,omitzero"`
	Outcome policies.Code  `json:"outcome,omitzero"`
	Owner   Party          `json:"owner,omitzero"`
	Reader  Party          `json:"reader,omitzero"` // of kind "several": an entry that speaks of more than one
	Field   policies.Field `json:"field,omitzero"`  // "several": likewise
	Time    string         `json:"time,omitzero"`   // where the minute, hour or day begins: 2006-01-02T15:04Z, or 2006-01-02
	Entries uint64         `json:"entries"`
}

var columnOf = map[By]column{ByKind: colKind, ByOutcome: colOutcome, ByOwner: colOwner, ByReader: colReader, ByField: colField, ByMinute: colTime, ByHour: colTime, ByDay: colTime}

const (
	// maxBy is how many properties entries are counted by at once.
	maxBy = 3
	// dense is up to how many possible combinations have a counter each; beyond, only those that occur have one.
	dense = 1 << 22
)

// units are the lengths of what time is counted by, in milliseconds, and how its beginning is written.
var units = map[By]struct {
	millis uint64
	layout string
}{ByMinute: {60_000, "2006-01-02T15:04Z"}, ByHour: {3_600_000, "2006-01-02T15:04Z"}, ByDay: {86_400_000, time.DateOnly}}

// A dimension is a property by which entries are counted, as numbers from 0 to size.
type dimension struct {
	by     By
	column column
	size   uint64 // with one more, the last, for several
	unit   uint64 // of time, in milliseconds; 0 for other properties
	first  uint64 // unit of the log's first entry
}

// dimensions are those of a query's properties.
func (x *Index) dimensions(q Query, by []By) ([]dimension, error) {
	if len(by) > maxBy {
		return nil, fmt.Errorf("entries can be counted by %d properties at once", maxBy)
	}
	s := &x.state
	out := make([]dimension, len(by))
	for i, b := range by {
		c, ok := columnOf[b]
		if !ok {
			return nil, fmt.Errorf("entries cannot be counted by %q", b)
		}
		out[i] = dimension{by: b, column: c}
		switch b {
		case ByKind:
			out[i].size = uint64(len(s.Kinds))
		case ByOutcome:
			out[i].size = uint64(len(s.Outcomes))
		case ByOwner:
			out[i].size = uint64(len(s.Parties))
		case ByReader:
			out[i].size = uint64(len(s.Parties)) + 1
		case ByField:
			out[i].size = uint64(len(s.Fields)) + 1
		default:
			if out[i].unit = units[b].millis; s.Rows == 0 {
				continue
			}
			buf := timeBuffer()
			oldest, err := x.time(0, buf)
			if err != nil {
				return nil, err
			}
			newest, err := x.time(s.Rows-1, buf)
			if err != nil {
				return nil, err
			}
			out[i].first = uint64(oldest.UnixMilli()) / out[i].unit
			out[i].size = uint64(newest.UnixMilli())/out[i].unit - out[i].first + 1
		}
	}
	return out, nil
}

// Count counts the entries asked for by at most three properties, most first; of equal counts in the order of the properties' words. Before and Limit of
// the query are passed over.
func (x *Index) Count(q Query, by ...By) ([]Count, error) {
	q.Before, q.Limit = 0, 0
	dims, err := x.dimensions(q, by)
	if err != nil {
		return nil, err
	}
	var need columnSet
	combinations := uint64(1)
	for _, d := range dims {
		need |= 1 << d.column
		if d.size != 0 && combinations > (1<<63)/d.size {
			return nil, errors.New("too many combinations to count; ask for fewer properties")
		}
		combinations *= d.size
	}
	var counters []uint64
	var rare map[uint64]uint64
	if combinations <= dense {
		counters = make([]uint64, combinations)
	} else {
		rare = map[uint64]uint64{}
	}
	keys := make([]uint64, blockRows)
	err = x.scan(q, need, func(b *block) (bool, error) {
		places := b.places(keys[:0:len(keys)])
		for i, n := range places { // from place to key, in the same memory
			key := uint64(0)
			for d := range dims {
				v, err := dims[d].digit(b, int(n))
				if err != nil {
					return false, err
				}
				key = key*dims[d].size + v
			}
			places[i] = key
		}
		if rare != nil {
			for _, key := range places {
				rare[key]++
			}
			return true, nil
		}
		for _, key := range places {
			counters[key]++
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	var out []Count
	add := func(key, n uint64) {
		c := Count{Entries: n}
		for i := len(dims) - 1; i >= 0; i-- {
			x.name(&c, &dims[i], key%dims[i].size)
			key /= dims[i].size
		}
		out = append(out, c)
	}
	for key, n := range counters {
		if n > 0 {
			add(uint64(key), n)
		}
	}
	for key, n := range rare {
		add(key, n)
	}
	slices.SortFunc(out, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Entries, a.Entries), cmp.Compare(a.Time, b.Time), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Outcome, b.Outcome),
			cmp.Compare(a.Field, b.Field), bytes.Compare(a.Reader.Pseudonym[:], b.Reader.Pseudonym[:]), bytes.Compare(a.Owner.Pseudonym[:], b.Owner.Pseudonym[:]))
	})
	return out, nil
}

// digit is the value at a place of a block, below the dimension's size.
func (d *dimension) digit(b *block, i int) (uint64, error) {
	data := b.columns[d.column]
	var v uint64
	switch d.by {
	case ByKind, ByOutcome:
		v = uint64(data[i])
	case ByMinute, ByHour, ByDay:
		v = binary.LittleEndian.Uint64(data[8*i:])/d.unit - d.first
	default:
		v = uint64(binary.LittleEndian.Uint32(data[4*i:]))
		if v == several && d.by != ByOwner {
			v = d.size - 1
		}
	}
	if v >= d.size {
		return 0, fmt.Errorf("%w: row %d: its %s is in no dictionary", ErrIndex, b.first+uint64(i), d.by)
	}
	return v, nil
}

func (x *Index) name(c *Count, d *dimension, v uint64) {
	s := &x.state
	switch d.by {
	case ByKind:
		c.Kind = evidence.Kind(s.Kinds[v])
	case ByOutcome:
		c.Outcome = policies.Code(s.Outcomes[v])
	case ByOwner:
		c.Owner = s.Parties[v]
	case ByReader:
		if c.Reader = (Party{Kind: "several"}); v < d.size-1 {
			c.Reader = s.Parties[v]
		}
	case ByField:
		if c.Field = "several"; v < d.size-1 {
			c.Field = policies.Field(s.Fields[v])
		}
	default:
		c.Time = time.UnixMilli(int64((v + d.first) * d.unit)).UTC().Format(units[d.by].layout)
	}
}

// columnSet is a set of columns.
type columnSet uint

// block is a run of rows of the columns that a query reads, and which of them it asks for.
type block struct {
	first     uint64 // row of place 0
	low, high int    // places that the query's span covers
	columns   [columns][]byte
	buffers   [columns][]byte // their memory
	set       []uint64        // a bit for each place
	any       bool            // one of them is set
	err       error
}

// places appends the places of the set, ascending.
func (b *block) places(to []uint64) []uint64 {
	for word, set := range b.set {
		for ; set != 0; set &= set - 1 {
			to = append(to, uint64(64*word+bits.TrailingZeros64(set)))
		}
	}
	return to
}

// scan calls f for each block with rows asked for, newest first, until it says false. need are columns that f looks at.
//
// As many blocks as there are processors are read and matched at once.
func (x *Index) scan(q Query, need columnSet, f func(*block) (bool, error)) error {
	first, end, err := x.span(q)
	if err != nil || first >= end {
		return err
	}
	filter, ok, err := x.filter(q)
	if err != nil || !ok {
		return err
	}
	blocks := make([]block, runtime.GOMAXPROCS(0))
	for i := range blocks {
		blocks[i].set = make([]uint64, blockRows/64)
	}
	last, next := int64(first/blockRows), int64((end-1)/blockRows)
	for next >= last {
		round := blocks[:min(int64(len(blocks)), next-last+1)]
		var wg sync.WaitGroup
		for i := range round {
			n := uint64(next - int64(i))
			wg.Go(func() { round[i].read(x, n, first, end, &filter, need) })
		}
		wg.Wait()
		for i := range round {
			if round[i].err != nil {
				return round[i].err
			}
			if round[i].any {
				if more, err := f(&round[i]); err != nil || !more {
					return err
				}
			}
		}
		next -= int64(len(round))
	}
	return nil
}

// read reads block n of an index as far as the span from first to end covers it, matches it, and if any row is left loads the columns that are needed.
func (b *block) read(x *Index, n, first, end uint64, filter *filter, need columnSet) {
	b.first = n * blockRows
	b.low, b.high = 0, int(min(x.state.Rows-b.first, blockRows))
	if n == first/blockRows {
		b.low = int(first % blockRows)
	}
	if n == (end-1)/blockRows {
		b.high = int((end-1)%blockRows) + 1
	}
	load := func(c column) (err error) {
		if b.buffers[c] == nil {
			b.buffers[c] = make([]byte, blockRows*layout[c].width)
		}
		b.columns[c], err = x.block(c, n, b.buffers[c])
		return err
	}
	if b.any, b.err = filter.match(b, load); !b.any || b.err != nil {
		return
	}
	for c := range columns {
		if need&(1<<c) != 0 && filter.columns&(1<<c) == 0 {
			if b.err = load(c); b.err != nil {
				return
			}
		}
	}
}

// span is the range of rows that times and Before leave.
func (x *Index) span(q Query) (first, end uint64, err error) {
	end = x.state.Rows
	if q.Before > 0 {
		end = min(end, q.Before)
	}
	buf := timeBuffer()
	search := func(t time.Time) uint64 {
		return uint64(sort.Search(int(end), func(i int) bool {
			at, failed := x.time(uint64(i), buf)
			if failed != nil {
				err = failed
			}
			return !at.Before(t)
		}))
	}
	if !q.To.IsZero() {
		end = search(q.To)
	}
	if !q.From.IsZero() {
		first = search(q.From)
	}
	return first, end, err
}

// filter holds a query as numbers.
type filter struct {
	columns         columnSet
	owner, reader   uint32
	kinds, outcomes [256]uint64 // 1: let through
	field           uint32
	// Rows with several, the one asked for among them, ascending.
	moreReaders, moreFields []uint64
}

// filter translates a query. ok is false if it names what the log never spoke of.
func (x *Index) filter(q Query) (f filter, ok bool, err error) {
	s := &x.state
	party := func(p policies.Pseudonym, c column, n *uint32) bool {
		if p.IsZero() {
			return true
		}
		f.columns |= 1 << c
		*n, ok = s.of[p]
		return ok
	}
	if !party(q.Owner, colOwner, &f.owner) || !party(q.Reader, colReader, &f.reader) {
		return f, false, nil
	}
	if len(q.Kinds) > 0 {
		f.columns |= 1 << colKind
		for i, k := range s.Kinds {
			if slices.Contains(q.Kinds, evidence.Kind(k)) {
				f.kinds[i] = 1
			}
		}
	}
	if len(q.Outcomes) > 0 {
		f.columns |= 1 << colOutcome
		for i, o := range s.Outcomes {
			if slices.Contains(q.Outcomes, policies.Code(o)) {
				f.outcomes[i] = 1
			}
		}
	}
	if q.Field != "" {
		f.columns |= 1 << colField
		if f.field, ok = s.seen[string(q.Field)]; !ok {
			return f, false, nil
		}
	}
	if f.columns&(1<<colField|1<<colReader) != 0 {
		more, err := x.list(listMore)
		if err != nil {
			return f, false, err
		}
		for ; len(more) > 0; more = more[listLayout[listMore].width:] {
			switch index, c, v := binary.LittleEndian.Uint64(more), column(binary.LittleEndian.Uint32(more[8:])), binary.LittleEndian.Uint32(more[12:]); {
			case c == colField && v == f.field && q.Field != "":
				f.moreFields = append(f.moreFields, index)
			case c == colReader && v == f.reader && !q.Reader.IsZero():
				f.moreReaders = append(f.moreReaders, index)
			}
		}
	}
	return f, true, nil
}

// match marks the rows of a block that the filter lets through, reading one column after the other and only while any row is left.
func (f *filter) match(b *block, load func(column) error) (any bool, err error) {
	clear(b.set)
	if any = b.low < b.high; !any {
		return false, nil
	}
	from, to := b.low/64, (b.high-1)/64
	for word := from; word <= to; word++ {
		b.set[word] = 1<<64 - 1
	}
	b.set[from] &= (1<<64 - 1) << (b.low % 64)
	b.set[to] &= (1<<64 - 1) >> (63 - (b.high-1)%64)
	for _, c := range []column{colReader, colOwner, colField, colKind, colOutcome} {
		if f.columns&(1<<c) == 0 || !any {
			continue
		}
		if err := load(c); err != nil {
			return false, err
		}
		any = false
		for word := b.low / 64; word <= (b.high-1)/64; word++ {
			if b.set[word] == 0 {
				continue
			}
			b.set[word] &= f.keep(b, c, max(b.low, word*64), min(b.high, word*64+64))
			any = any || b.set[word] != 0
		}
	}
	return any, nil
}

// keep are the places of a word of the set that one column lets through.
func (f *filter) keep(b *block, c column, from, to int) (keep uint64) {
	data := b.columns[c]
	switch c {
	case colOwner, colReader, colField:
		want, more := f.owner, []uint64(nil)
		switch c {
		case colReader:
			want, more = f.reader, f.moreReaders
		case colField:
			want, more = f.field, f.moreFields
		}
		for i := from; i < to; i++ {
			if n := binary.LittleEndian.Uint32(data[4*i:]); n == want || n == several && among(more, b.first+uint64(i)) {
				keep |= 1 << (i % 64)
			}
		}
	default:
		want := &f.kinds
		if c == colOutcome {
			want = &f.outcomes
		}
		for i := from; i < to; i++ {
			keep |= want[data[i]] << (i % 64)
		}
	}
	return keep
}

func among(rows []uint64, row uint64) bool {
	_, found := slices.BinarySearch(rows, row)
	return found
}
