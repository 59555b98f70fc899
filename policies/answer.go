package policies

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Answer is what the vault tells a reader about each item of a read request. It travels sealed under a key that the
// storefront does not have (pre.SessionKey).
type Answer struct {
	Time  uint64 // the vault's clock, Unix milliseconds
	Items []AnswerItem
}

// AnswerItem is the outcome of one item, in the order of the request.
type AnswerItem struct {
	Outcome Code     // CodeReleased, CodeUnchanged or the reason of a refusal
	X       [32]byte `json:"-"` // E': the x-coordinate of rk·E, if released; a secret, which does not print
	Leaf    Hash     // leaf hash, if released or unchanged
	Head    Hash     // hash of the manifest it was proven under
	Version uint64   // of that manifest
	Index   uint64   // of the entry in the key-use log
	// Accepted is the place of the item in the vault's order: the index of the entry that accepted the author's manifest whose version is the item's. 0: before
	// anybody but the owner could write. Of the items of several authors the one with the highest is the newest.
	Accepted uint64
}

// String leaves out X.
func (i AnswerItem) String() string {
	return fmt.Sprintf("%q, leaf %s, head %s, version %d, entry %d, accepted %d", string(i.Outcome), i.Leaf, i.Head, i.Version, i.Index, i.Accepted)
}

// GoString leaves out X.
func (i AnswerItem) GoString() string { return i.String() }

// Format leaves out X whatever the verb.
func (i AnswerItem) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, i.String()) }

// answerItemSize is the fixed part of an item: all but the outcome's text.
const answerItemSize = 32 + 32 + 32 + 8 + 8 + 8

// Bytes is u64 time, u16 count, and per item u8 length || outcome, x (32), leaf (32), head (32), u64 version, u64 index,
// u64 accepted; integers are big-endian. The caller seals it (pre.SessionKey.SealAnswer) and zeroes it.
func (a *Answer) Bytes() []byte {
	size := 10
	for i := range a.Items {
		size += 1 + len(a.Items[i].Outcome) + answerItemSize
	}
	plain := binary.BigEndian.AppendUint64(make([]byte, 0, size), a.Time) // never moved, so that zeroing it leaves no copy of an x
	plain = binary.BigEndian.AppendUint16(plain, uint16(len(a.Items)))
	for i := range a.Items {
		it := &a.Items[i]
		plain = append(plain, byte(len(it.Outcome)))
		plain = append(plain, it.Outcome...)
		plain = append(plain, it.X[:]...)
		plain = append(plain, it.Leaf[:]...)
		plain = append(plain, it.Head[:]...)
		plain = binary.BigEndian.AppendUint64(plain, it.Version)
		plain = binary.BigEndian.AppendUint64(plain, it.Index)
		plain = binary.BigEndian.AppendUint64(plain, it.Accepted)
	}
	return plain
}

// ParseAnswer is the inverse of [Answer.Bytes], for what came out of pre.SessionKey.OpenAnswer. The caller zeroes the X values when done.
func ParseAnswer(plain []byte) (*Answer, error) {
	short := fmt.Errorf("%w: answer: cut short", ErrMalformed)
	if len(plain) < 10 {
		return nil, short
	}
	n, rest := int(binary.BigEndian.Uint16(plain[8:])), plain[10:]
	if n > MaxReadItems {
		return nil, fmt.Errorf("%w: answer: %d items, a request names at most %d", ErrMalformed, n, MaxReadItems)
	}
	if len(rest) < n*(1+answerItemSize) {
		return nil, short
	}
	a := &Answer{Time: binary.BigEndian.Uint64(plain), Items: make([]AnswerItem, n)}
	for i := range a.Items {
		if len(rest) < 1 || len(rest) < 1+int(rest[0])+answerItemSize {
			return nil, short
		}
		it, n := &a.Items[i], int(rest[0])
		it.Outcome, rest = Code(rest[1:1+n]), rest[1+n:]
		copy(it.X[:], rest)
		copy(it.Leaf[:], rest[32:])
		copy(it.Head[:], rest[64:])
		it.Version, it.Index = binary.BigEndian.Uint64(rest[96:]), binary.BigEndian.Uint64(rest[104:])
		it.Accepted = binary.BigEndian.Uint64(rest[112:])
		rest = rest[answerItemSize:]
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("%w: answer: %d bytes too many", ErrMalformed, len(rest))
	}
	return a, nil
}
