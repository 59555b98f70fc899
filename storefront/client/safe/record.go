package safe

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"

	"github.com/sallyport/sallyport/policies"
)

// A record is the length of what follows (an unsigned varint, as binary.AppendUvarint writes it), and then, in this order:
//
//	id (32), alias (length, bytes),
//	invitations (0: none; 1 and a token (32): one, whose reference is the alias, taken when that was given; else 2 and their count; each token, reference (length, bytes) and time),
//	whether a relationship is unposted (0 or 1), named (varint), relationships (count; each nonce 16, hash 32, and 0, or 1, document id 32 and time),
//	mark, marks of others (count; each author 32 and mark), purpose (length, bytes), granted, generation of the keys and, unless it is 0, their document (32)
//
// where a mark is a version and, unless that is 0, a hash (32). Numbers, counts and lengths are unsigned varints. Each record has one form: what decodes encodes to the same bytes.

// MaxRelations is how many relationships are kept of one person.
const MaxRelations = 512

// Bounds of a record.
const (
	maxRecord  = 64 << 10
	maxAlias   = 255
	maxInvited = 64
	maxPurpose = 1 << 10
	maxMarks   = 512
)

// alone reports whether the person accepted one invitation, which gave them their name.
func (p *Person) alone() bool {
	return len(p.Invited) == 1 && p.Invited[0].Reference == p.Alias && p.Invited[0].Time == p.Named
}

func encode(p *Person) ([]byte, error) {
	switch {
	case len(p.Alias) > maxAlias:
		return nil, fmt.Errorf("%w: an alias of %d bytes", ErrRecord, len(p.Alias))
	case len(p.Invited) > maxInvited:
		return nil, fmt.Errorf("%w: %d invitations", ErrRecord, len(p.Invited))
	case !slices.Equal(p.Invited, union(p.Invited, nil)):
		return nil, fmt.Errorf("%w: invitations that are not in order, each once", ErrRecord)
	case len(p.Purpose) > maxPurpose:
		return nil, fmt.Errorf("%w: a purpose of %d bytes", ErrRecord, len(p.Purpose))
	case len(p.Relations) > MaxRelations || len(p.Marks) > maxMarks:
		return nil, fmt.Errorf("%w: %d relationships, %d authors", ErrRecord, len(p.Relations), len(p.Marks))
	}
	out := make([]byte, 0, 256+64*len(p.Relations)+80*len(p.Marks))
	text := func(s string) { out = append(binary.AppendUvarint(out, uint64(len(s))), s...) }
	flag := func(set bool) bool {
		if set {
			out = append(out, 1)
		} else {
			out = append(out, 0)
		}
		return set
	}
	number := func(n uint64) bool {
		out = binary.AppendUvarint(out, n)
		return n != 0
	}
	mark := func(m *Mark) {
		if number(m.Version) {
			out = append(out, m.Hash[:]...)
		}
	}
	out = append(out, p.ID[:]...)
	text(p.Alias)
	switch {
	case len(p.Invited) == 0:
		number(0)
	case p.alone():
		number(1)
		out = append(out, p.Invited[0].Token[:]...)
	default:
		number(2)
		number(uint64(len(p.Invited)))
		for _, i := range p.Invited {
			if len(i.Reference) > maxAlias {
				return nil, fmt.Errorf("%w: a reference of %d bytes", ErrRecord, len(i.Reference))
			}
			out = append(out, i.Token[:]...)
			text(i.Reference)
			number(uint64(i.Time))
		}
	}
	flag(p.Unposted())
	number(uint64(p.Named))
	number(uint64(len(p.Relations)))
	for i := range p.Relations {
		r := &p.Relations[i]
		out = append(append(out, r.Nonce[:]...), r.Hash[:]...)
		if flag(!r.ID.IsZero()) {
			out = append(out, r.ID[:]...)
			number(uint64(r.Time))
		}
	}
	mark(&p.Mark)
	number(uint64(len(p.Marks)))
	for i := range p.Marks {
		out = append(out, p.Marks[i].Author[:]...)
		mark(&p.Marks[i].Mark)
	}
	text(p.Purpose)
	number(p.Granted)
	if number(p.Keys.Generation) {
		out = append(out, p.Keys.Document[:]...)
	}
	if len(out) > maxRecord {
		return nil, fmt.Errorf("%w: %d bytes", ErrRecord, len(out))
	}
	return append(binary.AppendUvarint(nil, uint64(len(out))), out...), nil
}

// raw is what the indexes need of a record. Its slices are the record's.
type raw struct {
	id       policies.OwnerID
	alias    []byte
	invited  []byte // the tokens of those of form 1, or all of form 2
	alone    bool   // form 1
	given    uint64 // when the alias was
	unposted bool
	size     int // of the record with its length
}

// invitation reads one of form 2.
func (c *cursor) invitation() (token, reference []byte, time uint64) {
	return c.take(32), c.take(c.count(maxAlias)), c.number()
}

// tokens are those of the invitations.
func (r *raw) tokens() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if r.alone {
			yield(r.invited)
			return
		}
		for c := (cursor{rest: r.invited}); len(c.rest) > 0; {
			if token, _, _ := c.invitation(); !yield(token) {
				return
			}
		}
	}
}

// names are what [Person.Names] says.
func (r *raw) names() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if !yield(r.alias) || r.alone {
			return
		}
		for c := (cursor{rest: r.invited}); len(c.rest) > 0; {
			if _, reference, time := c.invitation(); int64(time) >= int64(r.given) && !yield(reference) {
				return
			}
		}
	}
}

func (r *raw) is(name string) bool { return has(r.names(), name) }

func (r *raw) cameBy(token policies.Hash) bool { return has(r.tokens(), string(token[:])) }

func has(list iter.Seq[[]byte], what string) bool {
	for one := range list {
		if string(one) == what {
			return true
		}
	}
	return false
}

// cursor reads the parts of a record. After an error it reads nothing.
type cursor struct {
	rest []byte
	bad  bool
}

func (c *cursor) number() uint64 {
	n, size := binary.Uvarint(c.rest)
	if size <= 0 || size > 1 && c.rest[size-1] == 0 { // cut off, too large, or longer than it must be
		c.rest, c.bad = nil, true
		return 0
	}
	c.rest = c.rest[size:]
	return n
}

func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.rest)) {
		c.rest, c.bad = nil, true
		return nil
	}
	out := c.rest[:n:n]
	c.rest = c.rest[n:]
	return out
}

func (c *cursor) flag() bool {
	n := c.number()
	c.bad = c.bad || n > 1
	return n == 1
}

// count reads a number of at most limit.
func (c *cursor) count(limit uint64) uint64 {
	n := c.number()
	if n > limit {
		c.rest, c.bad = nil, true
		return 0
	}
	return n
}

func (c *cursor) mark() (m Mark) {
	if m.Version = c.number(); m.Version != 0 {
		copy(m.Hash[:], c.take(32))
	}
	return m
}

// enter reads the length of a record and stands at its first part.
func enter(b []byte) (c cursor, size int, err error) {
	outer := cursor{rest: b}
	n := outer.count(maxRecord)
	body := outer.take(n)
	if outer.bad {
		return c, 0, ErrRecord
	}
	return cursor{rest: body}, len(b) - len(outer.rest), nil
}

// skim reads what the indexes need of the record that b begins with.
func skim(b []byte) (r raw, rest cursor, err error) {
	c, size, err := enter(b)
	if err != nil {
		return r, c, err
	}
	r.size = size
	copy(r.id[:], c.take(32))
	r.alias = c.take(c.count(maxAlias))
	switch c.number() {
	case 0:
	case 1:
		r.invited, r.alone = c.take(32), true
	case 2:
		n, from := c.count(maxInvited), c.rest
		for range n {
			c.invitation()
		}
		r.invited = from[:len(from)-len(c.rest)]
	default:
		c.bad = true
	}
	r.unposted = c.flag()
	r.given = c.number()
	if c.bad {
		return r, c, ErrRecord
	}
	return r, c, nil
}

// decode reads the record that b begins with, and tells its size.
func decode(b []byte) (p Person, size int, err error) {
	r, c, err := skim(b)
	if err != nil {
		return p, 0, err
	}
	p.ID, p.Alias = r.id, string(r.alias)
	p.Named = int64(r.given)
	if r.alone {
		p.Invited = []Invitation{{policies.Hash(r.invited), p.Alias, p.Named}}
	} else {
		for i := (cursor{rest: r.invited}); len(i.rest) > 0; {
			token, reference, time := i.invitation()
			p.Invited = append(p.Invited, Invitation{policies.Hash(token), string(reference), int64(time)})
		}
	}
	for range c.count(MaxRelations) {
		var rel Relation
		copy(rel.Nonce[:], c.take(uint64(len(rel.Nonce))))
		copy(rel.Hash[:], c.take(32))
		if c.flag() {
			copy(rel.ID[:], c.take(32))
			rel.Time = int64(c.number())
			c.bad = c.bad || rel.ID.IsZero()
		}
		p.Relations = append(p.Relations, rel)
	}
	p.Mark = c.mark()
	for range c.count(maxMarks) {
		var m AuthorMark
		copy(m.Author[:], c.take(32))
		m.Mark = c.mark()
		p.Marks = append(p.Marks, m)
	}
	p.Purpose = string(c.take(c.count(maxPurpose)))
	p.Granted = c.number()
	if p.Keys.Generation = c.number(); p.Keys.Generation != 0 {
		copy(p.Keys.Document[:], c.take(32))
	}
	if c.bad || len(c.rest) > 0 {
		return p, 0, ErrRecord
	}
	if again, err := encode(&p); err != nil || !slices.Equal(again, b[:r.size]) {
		return p, 0, fmt.Errorf("%w: not in its one form", ErrRecord)
	}
	return p, r.size, nil
}
