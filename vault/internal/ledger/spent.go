package ledger

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policies"
)

// spent is what was released to one reader of one owner's fields on a UTC day. It belongs to the fields and not to a grant: a rotation
// gives readers new grants, and an owner may revoke and grant anew, and the day goes on.
type spent struct {
	day  int64 // UTC day of used, days since 1970
	used map[written]uint64
	// promised counts decisions that are on their way into the log. It is memory only.
	promised map[promise]uint64
}

// promise is a release that was decided on a UTC day.
type promise struct {
	written
	day int64
}

// written is a field by one author.
type written struct {
	field  policies.Field
	author policies.AuthorID
}

func (w written) compare(o written) int {
	if c := strings.Compare(string(w.field), string(o.field)); c != 0 {
		return c
	}
	return strings.Compare(string(w.author[:]), string(o.author[:]))
}

func day(t time.Time) int64 { return t.Unix() / 86400 }

// UsedOn is how many of a grant's fields were released to its reader, or are promised, on the UTC day of a time, under whichever grant.
// It looks at each of the fields, so it is asked for where there is a limit or a guardrail.
func (s *State) UsedOn(g *Grant, t time.Time) (n uint64) {
	sp := s.spent[pair{g.Document.Owner, g.Document.Reader}]
	if sp == nil {
		return 0
	}
	today := sp.day == day(t)
	for i := range g.Document.Fields {
		w := written{g.Document.Fields[i].Field, g.Document.Fields[i].Author}
		if n += sp.promised[promise{w, day(t)}]; today {
			n += sp.used[w]
		}
	}
	return n
}

// Promise counts a release that was decided and is on its way into the log. Apply makes a use of it, or Withdraw takes it back.
func (s *State) Promise(g *Grant, f policies.Field, author policies.AuthorID, decided time.Time) {
	sp := s.spending(pair{g.Document.Owner, g.Document.Reader})
	if sp.promised == nil {
		sp.promised = map[promise]uint64{}
	}
	sp.promised[promise{written{f, author}, day(decided)}]++
}

// Withdraw takes a promise back.
func (s *State) Withdraw(g *Grant, f policies.Field, author policies.AuthorID, decided time.Time) {
	if sp := s.spent[pair{g.Document.Owner, g.Document.Reader}]; sp != nil {
		sp.kept(promise{written{f, author}, day(decided)})
	}
}

func (s *State) spending(p pair) *spent {
	sp := s.spent[p]
	if sp == nil {
		sp = &spent{used: map[written]uint64{}}
		s.spent[p] = sp
	}
	return sp
}

// kept ends one promise, if there is one: a replay has none.
func (s *spent) kept(p promise) {
	if n := s.promised[p]; n > 1 {
		s.promised[p] = n - 1
	} else {
		delete(s.promised, p)
	}
}

// release counts a release that is in the log.
func (s *State) release(g *Grant, f policies.Field, author policies.AuthorID, t time.Time) {
	p := pair{g.Document.Owner, g.Document.Reader}
	sp := s.spending(p)
	w := written{f, author}
	sp.kept(promise{w, day(t)})
	if today := day(t); sp.day != today {
		sp.day = today
		clear(sp.used)
	}
	sp.used[w]++
	s.touch(spentKey(p))
}

// EndDays forgets the counts of days that were over before a time.
func (s *State) EndDays(before time.Time) {
	for p, sp := range s.spent {
		if sp.day < day(before) && len(sp.promised) == 0 {
			delete(s.spent, p)
			s.touch(spentKey(p))
		}
	}
}

// appendSpent encodes what was released.
func appendSpent(b []byte, sp *spent) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(sp.day))
	for _, w := range slices.SortedFunc(maps.Keys(sp.used), written.compare) {
		b = append(appendText(b, w.field), w.author[:]...)
		b = binary.BigEndian.AppendUint64(b, sp.used[w])
	}
	return b
}

// decodeSpent is the inverse of appendSpent.
func decodeSpent(b []byte) (*spent, error) {
	c := cursor{rest: b}
	sp := &spent{day: int64(c.u64()), used: map[written]uint64{}}
	for last := (written{}); len(c.rest) > 0; {
		w := written{field: policies.Field(c.text())}
		c.fill(w.author[:])
		n := c.u64()
		if n == 0 || w.compare(last) <= 0 {
			return nil, errForm
		}
		sp.used[w], last = n, w
	}
	if c.short {
		return nil, errForm
	}
	return sp, nil
}
