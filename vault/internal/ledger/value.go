package ledger

import (
	"encoding/binary"
	"errors"

	"github.com/sallyport/sallyport/policies"
)

// Most values of the database are JSON. Those of which there are many are not, because a start decodes all of them:
//
//	grant     2 || revoked (u16 number, a byte each) || index || hash || the document's members, in the order of its type
//	released  day || for each field and author, in their order: field, author, number
//	trails    indexes: the first, then the distance of each from the one before, as uvarints
//	documents hash (32) || index (8), as often as there are
//	nonces    16 bytes each
//
// Integers are u64, big-endian; texts are u16 length || bytes; lists are u16 number || members. Each value has one encoding, and nothing follows it.
const grantFormat = 2

var errForm = errors.New("a value of the wrong form")

func appendText[T ~string](b []byte, s T) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// appendGrant encodes a grant. The documents of grants are valid, so no text and no list is longer than its length can say.
func appendGrant(b []byte, g *Grant) []byte {
	u64, u16 := binary.BigEndian.AppendUint64, binary.BigEndian.AppendUint16
	b = u16(append(b, grantFormat), uint16(len(g.Revoked)))
	for _, revoked := range g.Revoked {
		flag := byte(0)
		if revoked {
			flag = 1
		}
		b = append(b, flag)
	}
	b = u64(b, g.Index)
	b = append(b, g.Hash[:]...)
	d := &g.Document
	b = appendText(appendText(b, d.Type), d.Suite)
	b = u64(append(b, d.ID[:]...), uint64(d.Time))
	b = append(append(b, d.Audience[:]...), d.Owner[:]...)
	b = append(u64(b, d.Seq), d.Prev[:]...)
	b = append(append(b, d.Reader[:]...), d.Relationship[:]...)
	b = u16(appendText(b, d.Custody), uint16(len(d.Rights)))
	for _, right := range d.Rights {
		b = appendText(b, right)
	}
	b = u64(u64(appendText(b, d.Purpose), uint64(d.NotBefore)), uint64(d.Expires))
	b = u16(u64(b, d.Limits.ReadsPerDay), uint16(len(d.Fields)))
	for i := range d.Fields {
		f := &d.Fields[i]
		b = append(u64(appendText(b, f.Field), f.Epoch), f.Author[:]...)
	}
	return b
}

// decodeGrant is the inverse of appendGrant.
func decodeGrant(b []byte) (*Grant, error) {
	c := cursor{rest: b}
	if format := c.take(1); len(format) != 1 || format[0] != grantFormat {
		return nil, errForm
	}
	g := &Grant{Revoked: make([]bool, c.number(1))}
	for i, flag := range c.take(len(g.Revoked)) {
		if flag > 1 {
			return nil, errForm
		}
		g.Revoked[i] = flag == 1
	}
	g.Index = c.u64()
	c.fill(g.Hash[:])
	d := &g.Document
	d.Type, d.Suite = c.text(), c.text()
	c.fill(d.ID[:])
	d.Time = int64(c.u64())
	c.fill(d.Audience[:])
	c.fill(d.Owner[:])
	d.Seq = c.u64()
	c.fill(d.Prev[:])
	c.fill(d.Reader[:])
	c.fill(d.Relationship[:])
	d.Custody = policies.Custody(c.text())
	d.Rights = make([]policies.Right, c.number(2))
	for i := range d.Rights {
		d.Rights[i] = policies.Right(c.text())
	}
	d.Purpose = c.text()
	d.NotBefore, d.Expires = int64(c.u64()), int64(c.u64())
	d.Limits.ReadsPerDay = c.u64()
	d.Fields = make([]policies.GrantedField, c.number(2+8+32))
	for i := range d.Fields {
		f := &d.Fields[i]
		f.Field, f.Epoch = policies.Field(c.text()), c.u64()
		c.fill(f.Author[:])
	}
	if c.short || len(c.rest) > 0 || len(g.Revoked) != len(d.Fields) {
		return nil, errForm
	}
	return g, nil
}

// cursor takes a value apart. What is cut short reads as zeros, and short says so.
type cursor struct {
	rest  []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if n > len(c.rest) {
		c.rest, c.short = nil, true
		return nil
	}
	out := c.rest[:n]
	c.rest = c.rest[n:]
	return out
}

func (c *cursor) fill(out []byte) { copy(out, c.take(len(out))) }

func (c *cursor) u64() uint64 {
	if b := c.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// number is the length of a list whose members have at least so many bytes each: no more room is made than there can be members.
func (c *cursor) number(each int) int {
	b := c.take(2)
	if b == nil {
		return 0
	}
	n := int(binary.BigEndian.Uint16(b))
	if n*each > len(c.rest) {
		c.rest, c.short = nil, true
		return 0
	}
	return n
}

func (c *cursor) text() string {
	b := c.take(2)
	if b == nil {
		return ""
	}
	b = c.take(int(binary.BigEndian.Uint16(b)))
	// Of the words that stand in every grant none needs a copy for each.
	switch string(b) {
	case "grant":
		return "grant"
	case policies.Suite:
		return policies.Suite
	case string(policies.CustodyResident):
		return string(policies.CustodyResident)
	case string(policies.CustodySealed):
		return string(policies.CustodySealed)
	case string(policies.RightRead):
		return string(policies.RightRead)
	}
	return string(b)
}
