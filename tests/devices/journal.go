package devices

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/tests/stage"
)

// Logged is an entry of the key-use log as it lies in the journal.
type Logged struct {
	Index    uint64
	Entry    evidence.Entry
	Details  *evidence.Details
	Document []byte

	Leaf, Body []byte // as they are in the tree, and beside it
}

// Journal reads the key-use log's files while the vault writes them. It shares no code with the vault's own reader: what is not a whole frame at
// the end is a commit under way.
func Journal(t testing.TB, s *stage.Stage) (out []Logged) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.VaultLog(), "journal-*"))
	must(t, err)
	slices.Sort(files)
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, err)
		for at := 24 + 32 + 8 + 4; at+8 <= len(data); {
			n := int(binary.BigEndian.Uint32(data[at:]))
			if n > len(data)-at-8 {
				break
			}
			frame := data[at+8 : at+8+n]
			table := crc32.MakeTable(crc32.Castagnoli)
			if crc32.Update(crc32.Checksum(data[at:at+4], table), table, frame) != binary.BigEndian.Uint32(data[at+4:]) {
				break
			}
			at += 8 + n
			if frame[0] != 1 {
				continue
			}
			size := int(binary.BigEndian.Uint32(frame[9:]))
			l := Logged{Index: binary.BigEndian.Uint64(frame[1:]), Leaf: bytes.Clone(frame[14 : 22+size]), Body: bytes.Clone(frame[22+size:])}
			l.Entry, err = evidence.ParseEntry(frame[22 : 22+size])
			must(t, err)
			body, err := evidence.ParseBody(frame[22+size:])
			must(t, err)
			if body.Commitment() != l.Entry.Commitment {
				t.Fatalf("entry %d of the journal does not commit to its body", l.Index)
			}
			l.Details, err = body.Read()
			must(t, err)
			l.Document = bytes.Clone(body.Document)
			out = append(out, l)
		}
	}
	return out
}
