package policies

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
)

// Answer is what the vault tells a reader about each item of a read request. It travels sealed under a key that the
// storefront does not have.
type Answer struct {
	Time  uint64 // the vault's clock, Unix milliseconds
	Items []AnswerItem
}

// AnswerItem is the outcome of one item, in the order of the request.
type AnswerItem struct {
	Outcome Code     // CodeReleased, CodeUnchanged or the reason of a refusal
	X       [32]byte // E': the x-coordinate of rk·E, if released
	Leaf    Hash     // leaf hash, if released or unchanged
	Head    Hash     // hash of the manifest it was proven under
	Version uint64   // of that manifest
	Index   uint64   // of the entry in the key-use log
}

// answerItemSize is the fixed part of an item: all but the outcome's text.
const answerItemSize = 32 + 32 + 32 + 8 + 8

// Seal encrypts the answer with AES-256-GCM under the answer key, which is derived from the session's K and the request's
// hash and used for this request alone. The hash is also the associated data. The 12-byte nonce comes first.
func (a *Answer) Seal(key *[32]byte, request Hash) ([]byte, error) {
	plain := binary.BigEndian.AppendUint64(make([]byte, 0, 10+len(a.Items)*(answerItemSize+10)), a.Time)
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
	}
	defer clear(plain)
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plain)+aead.Overhead())
	rand.Read(nonce)
	return aead.Seal(nonce, nonce, plain, Encode("answer", request[:])), nil
}

// OpenAnswer decrypts an answer to the request with this hash. The caller zeroes the X values when done.
func OpenAnswer(sealed []byte, key *[32]byte, request Hash) (*Answer, error) {
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	if len(sealed) < aead.NonceSize() {
		return nil, fmt.Errorf("%w: answer: cut short", ErrMalformed)
	}
	n := aead.NonceSize()
	plain, err := aead.Open(nil, sealed[:n], sealed[n:], Encode("answer", request[:]))
	if err != nil {
		return nil, fmt.Errorf("%w: the answer is not the vault's answer to this request", ErrSignature)
	}
	defer clear(plain)
	return parseAnswer(plain)
}

func parseAnswer(plain []byte) (*Answer, error) {
	short := fmt.Errorf("%w: answer: cut short", ErrMalformed)
	if len(plain) < 10 {
		return nil, short
	}
	a := &Answer{Time: binary.BigEndian.Uint64(plain), Items: make([]AnswerItem, binary.BigEndian.Uint16(plain[8:]))}
	rest := plain[10:]
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
		rest = rest[answerItemSize:]
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("%w: answer: %d bytes too many", ErrMalformed, len(rest))
	}
	return a, nil
}

func newGCM(key *[32]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
