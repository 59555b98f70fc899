package pre

import (
	"encoding/binary"
	"math/bits"

	"github.com/sallyport/sallyport/policies"
)

const (
	lengthSize = 4  // u32 before the value
	tagSize    = 16 // of AES-GCM
)

// padme is the length to which Padmé pads a length of at least 2: the last floor(log2 L) - (floor(log2 floor(log2 L)) + 1) bits become
// zero, rounding up (PURBs, PETS 2019, algorithm 1).
func padme(length int) int {
	e := bits.Len(uint(length)) - 1
	s := bits.Len(uint(e))
	mask := 1<<(e-s) - 1
	return (length + mask) &^ mask
}

// CiphertextSize is the length of the ciphertext of a value of n bytes, for 0 <= n <= policies.MaxValue, else 0.
func CiphertextSize(n int) int {
	if n < 0 || n > policies.MaxValue {
		return 0
	}
	return padme(lengthSize+n) + tagSize
}

// pad makes u32 length || value || zeroes.
func pad(value []byte) ([]byte, error) {
	if len(value) > policies.MaxValue {
		return nil, ErrTooLarge
	}
	// Room for the tag, so that sealing in place does not leave a second copy of the plaintext.
	padded := make([]byte, padme(lengthSize+len(value)), CiphertextSize(len(value)))
	binary.BigEndian.PutUint32(padded, uint32(len(value)))
	copy(padded[lengthSize:], value)
	return padded, nil
}

// unpad accepts exactly what pad makes. The value aliases padded.
func unpad(padded []byte) ([]byte, error) {
	if len(padded) < lengthSize {
		return nil, ErrOpen
	}
	n := binary.BigEndian.Uint32(padded)
	if n > policies.MaxValue || len(padded) != padme(lengthSize+int(n)) {
		return nil, ErrOpen
	}
	var rest byte
	for _, b := range padded[lengthSize+int(n):] {
		rest |= b
	}
	if rest != 0 {
		return nil, ErrOpen
	}
	return padded[lengthSize : lengthSize+int(n) : lengthSize+int(n)], nil
}
