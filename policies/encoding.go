package policies

import (
	"encoding/binary"
	"fmt"
)

// Suite names the one set of algorithms of this version; every format carries it.
const Suite = "SP1"

// labelPrefix is the prefix of every domain-separation string.
const labelPrefix = "sallyport/v1/"

// Encode is the pinned encoding of everything that is hashed, fed to HKDF or authenticated: the label
// "sallyport/v1/<use>" and then each field, all of them as a big-endian u16 length followed by the bytes. It is injective:
// no two lists of fields encode alike. Integers are fields of eight bytes, see [U64].
//
// A field of more than 65,535 bytes cannot be encoded; every caller passes fields of bounded size, so that is a
// programming error and panics.
func Encode(use string, fields ...[]byte) []byte {
	size := 2 + len(labelPrefix) + len(use)
	for _, f := range fields {
		size += 2 + len(f)
	}
	out := make([]byte, 0, size)
	out = binary.BigEndian.AppendUint16(out, uint16(len(labelPrefix)+len(use)))
	out = append(append(out, labelPrefix...), use...)
	for _, f := range fields {
		if len(f) > 1<<16-1 {
			panic("policies: encoding a field of more than 65,535 bytes")
		}
		out = binary.BigEndian.AppendUint16(out, uint16(len(f)))
		out = append(out, f...)
	}
	return out
}

// U64 is the pinned form of an integer: eight bytes, big-endian.
func U64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// Split is the inverse of Encode for a known number of fields. The fields alias data.
func Split(use string, data []byte, fields int) ([][]byte, error) {
	next := func() ([]byte, bool) {
		if len(data) < 2 {
			return nil, false
		}
		n := int(binary.BigEndian.Uint16(data))
		if len(data) < 2+n {
			return nil, false
		}
		field := data[2 : 2+n : 2+n]
		data = data[2+n:]
		return field, true
	}
	label, ok := next()
	if !ok || string(label) != labelPrefix+use {
		return nil, fmt.Errorf("%w: these bytes do not begin with %q", ErrMalformed, labelPrefix+use)
	}
	out := make([][]byte, fields)
	for i := range out {
		if out[i], ok = next(); !ok {
			return nil, fmt.Errorf("%w: %s: cut short in field %d of %d", ErrMalformed, use, i+1, fields)
		}
	}
	if len(data) != 0 {
		return nil, fmt.Errorf("%w: %s: %d bytes after the last field", ErrMalformed, use, len(data))
	}
	return out, nil
}
