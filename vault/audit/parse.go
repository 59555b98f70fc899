package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrDamaged: the log is not what its checkpoint says, or not of the form that it must have.
var ErrDamaged = errors.New("the key-use log is damaged")

// DamageError says what is wrong with a log, and where. It wraps [ErrDamaged] and the reason, if that is an error.
type DamageError struct {
	File  string // below the log's folder or URL
	Index int64  // of the entry; -1 if it is not about one
	Last  int64  // if not one entry but a run of them is in doubt, the last of it; else Index
	Err   error
}

func (e *DamageError) Error() string {
	switch {
	case e.Index < 0:
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	case e.Last > e.Index:
		return fmt.Sprintf("%s: entries %d to %d: %v", e.File, e.Index, e.Last, e.Err)
	}
	return fmt.Sprintf("%s: entry %d: %v", e.File, e.Index, e.Err)
}

// Unwrap makes errors.Is work.
func (e *DamageError) Unwrap() []error { return []error{ErrDamaged, e.Err} }

func damage(file string, index int64, format string, args ...any) *DamageError {
	return &DamageError{File: file, Index: index, Last: index, Err: fmt.Errorf(format, args...)}
}

// erasedBody is the length that stands for a body that was erased.
const erasedBody = 1<<32 - 1

// parseBundle splits an entry bundle into its leaves: u16 length and bytes, as often as there are entries, and nothing after. place is the number of the entry
// that is wrong, if one is. The leaves point into data.
func parseBundle(data []byte, entries int) (leaves [][]byte, place int, err error) {
	leaves = make([][]byte, entries)
	for i := range leaves {
		if len(data) < 2 {
			return nil, i, fmt.Errorf("the bundle ends after %d entries, not %d", i, entries)
		}
		n := int(binary.BigEndian.Uint16(data))
		if len(data)-2 < n {
			return nil, i, fmt.Errorf("the entry has %d bytes, of which %d are there", n, len(data)-2)
		}
		leaves[i], data = data[2:2+n:2+n], data[2+n:]
	}
	if len(data) != 0 {
		return nil, entries - 1, fmt.Errorf("%d bytes after the last entry", len(data))
	}
	return leaves, 0, nil
}

// parseBodies splits the bodies beside a bundle: u32 length and bytes, or 2^32-1 and nothing for one that was erased, which is nil here.
func parseBodies(data []byte, entries int) (bodies [][]byte, place int, err error) {
	bodies = make([][]byte, entries)
	for i := range bodies {
		if len(data) < 4 {
			return nil, i, fmt.Errorf("the bodies end after %d entries, not %d", i, entries)
		}
		n := binary.BigEndian.Uint32(data)
		if data = data[4:]; n == erasedBody {
			continue
		}
		if n > maxBody || uint64(len(data)) < uint64(n) {
			return nil, i, fmt.Errorf("the body has %d bytes, of which %d are there", n, len(data))
		}
		bodies[i], data = data[:n:n], data[n:]
	}
	if len(data) != 0 {
		return nil, entries - 1, fmt.Errorf("%d bytes after the last body", len(data))
	}
	return bodies, 0, nil
}

// A bodyParts is a body: what opens the entry's commitment, and the signed document, if this entry is the first to speak of it.
type bodyParts struct{ salt, details, document []byte }

// parseBody splits a body: three times u32 length and bytes, the first 16 long.
func parseBody(data []byte) (bodyParts, error) {
	var parts [3][]byte
	for i, name := range []string{"salt", "details", "document"} {
		if len(data) < 4 {
			return bodyParts{}, fmt.Errorf("the body ends before its %s", name)
		}
		n := binary.BigEndian.Uint32(data)
		if data = data[4:]; uint64(len(data)) < uint64(n) {
			return bodyParts{}, fmt.Errorf("the body's %s has %d bytes, of which %d are there", name, n, len(data))
		}
		parts[i], data = data[:n:n], data[n:]
	}
	switch {
	case len(data) != 0:
		return bodyParts{}, fmt.Errorf("%d bytes after the body's document", len(data))
	case len(parts[0]) != 16:
		return bodyParts{}, fmt.Errorf("the body's salt has %d bytes, not 16", len(parts[0]))
	}
	return bodyParts{parts[0], parts[1], parts[2]}, nil
}
