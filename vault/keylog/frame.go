package keylog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"

	"golang.org/x/mod/sumdb/tlog"
)

// The journal is a header followed by frames. Integers are big-endian.
//
//	header  magic (24) | log id (32) | first index (8) | CRC-32C (4)
//	frame   length (4) | CRC-32C (4) | payload (length bytes)
//	record  kind 1 or 2 (1) | index (8) | entry length (4) | 0x00 (1) | time (8) | entry | body
//	seal    kind 3 (1) | tree size (8) | MAC (32)
//
// A frame's CRC covers its length and its payload. The zero byte before the
// time is the leaf prefix of RFC 6962, section 2.1, so that what the tree hashes
// is one run of bytes. Kind 2 is a record whose body was erased: zeros are in its
// place and the CRC is new; leaf and length are the same.
const (
	journalMagic = "sallyport keylog 1 jrnl\n"
	headerSize   = len(journalMagic) + 32 + 8 + 4

	frameHead  = 8
	recordHead = 1 + 8 + 4 + 1 + 8
	leafAt     = 1 + 8 + 4 // offset of the leaf prefix in the payload
	sealSize   = 1 + 8 + sha256.Size

	maxPayload = recordHead + MaxRecord
)

const (
	kindRecord byte = 1
	kindErased byte = 2
	kindSeal   byte = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errTorn: these bytes are not a whole frame. At the unsigned end of the journal
// that is what a power cut leaves; anywhere else it is damage.
var errTorn = errors.New("not a whole frame")

// errForeign: a whole frame with a right checksum that this log does not write.
// No crash leaves that, so it is damage wherever it lies.
var errForeign = errors.New("not a frame of this log")

// A frame is one parsed frame. Its slices point into the parsed bytes.
type frame struct {
	kind  byte
	index int64  // of the record; for a seal, the tree size it seals
	time  int64  // Unix milliseconds
	leaf  []byte // leaf prefix, time and entry: what is hashed
	entry []byte
	body  []byte
	mac   []byte
}

func (f *frame) hash() tlog.Hash { return sha256.Sum256(f.leaf) }

func appendU64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

// appendRecord appends a record's frame to b and returns it with its leaf hash.
func appendRecord(b []byte, kind byte, index, time int64, entry, body []byte) ([]byte, tlog.Hash) {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(recordHead+len(entry)+len(body)))
	b = append(b, 0, 0, 0, 0, kind)
	b = appendU64(b, uint64(index))
	b = binary.BigEndian.AppendUint32(b, uint32(len(entry)))
	leaf := len(b)
	b = append(b, 0)
	b = appendU64(b, uint64(time))
	b = append(b, entry...)
	hash := tlog.Hash(sha256.Sum256(b[leaf:]))
	b = append(b, body...)
	putCRC(b[start:])
	return b, hash
}

func appendSeal(b []byte, size int64, mac []byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, sealSize)
	b = append(b, 0, 0, 0, 0, kindSeal)
	b = appendU64(b, uint64(size))
	b = append(b, mac...)
	putCRC(b[start:])
	return b
}

func frameCRC(length, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, payload)
}

func putCRC(b []byte) {
	binary.BigEndian.PutUint32(b[4:], frameCRC(b[:4], b[frameHead:]))
}

// payloadLength reads a frame's head. It answers errTorn for a length no frame
// has, so that nothing is allocated for it.
func payloadLength(head []byte) (int, error) {
	if len(head) < frameHead {
		return 0, errTorn
	}
	n := binary.BigEndian.Uint32(head)
	if n < recordHead || n > maxPayload { // a seal is longer than recordHead
		return 0, errTorn
	}
	return int(n), nil
}

// parseFrame parses the frame at the beginning of b and returns its length.
func parseFrame(b []byte) (frame, int, error) {
	n, err := payloadLength(b)
	if err != nil {
		return frame{}, 0, err
	}
	if len(b)-frameHead < n {
		return frame{}, 0, errTorn
	}
	p := b[frameHead : frameHead+n : frameHead+n]
	if frameCRC(b[:4], p) != binary.BigEndian.Uint32(b[4:]) {
		return frame{}, 0, errTorn
	}
	index := binary.BigEndian.Uint64(p[1:])
	if index > math.MaxInt64 {
		return frame{}, 0, errForeign
	}
	f := frame{kind: p[0], index: int64(index)}
	switch f.kind {
	case kindRecord, kindErased:
		size := int64(binary.BigEndian.Uint32(p[9:]))
		time := binary.BigEndian.Uint64(p[leafAt+1:])
		if size > int64(n-recordHead) || p[leafAt] != 0 || time > math.MaxInt64 {
			return frame{}, 0, errForeign
		}
		end := recordHead + int(size)
		f.time, f.leaf, f.entry, f.body = int64(time), p[leafAt:end:end], p[recordHead:end:end], p[end:]
		if f.kind == kindErased {
			if len(bytes.TrimLeft(f.body, "\x00")) != 0 {
				return frame{}, 0, errForeign
			}
			f.body = nil
		}
	case kindSeal:
		if n != sealSize {
			return frame{}, 0, errForeign
		}
		f.mac = p[9:]
	default:
		return frame{}, 0, errForeign
	}
	return f, frameHead + n, nil
}

func journalHeader(id logID, first int64) []byte {
	b := append([]byte(journalMagic), id[:]...)
	b = appendU64(b, uint64(first))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// A scanner reads the frames of one segment in order.
type scanner struct {
	r      *ahead
	offset int64 // of the next frame
	end    int64
	buf    []byte
}

// newScanner reads the frames from offset to end. The caller owes a call of close.
func newScanner(r io.ReaderAt, offset, end int64) *scanner {
	return &scanner{r: readAhead(io.NewSectionReader(r, offset, end-offset)), offset: offset, end: end}
}

func (s *scanner) close() { s.r.close() }

// next returns the next frame and its offset. The frame is valid until the next
// call. It returns io.EOF only at the end of a whole frame.
func (s *scanner) next() (frame, int64, error) {
	at := s.offset
	if at == s.end {
		return frame{}, at, io.EOF
	}
	s.buf = append(s.buf[:0], make([]byte, frameHead)...)
	if err := s.fill(s.buf); err != nil {
		return frame{}, at, err
	}
	n, err := payloadLength(s.buf)
	if err != nil {
		return frame{}, at, err
	}
	if int64(n) > s.end-at-frameHead {
		return frame{}, at, errTorn
	}
	if cap(s.buf) < frameHead+n {
		s.buf = append(make([]byte, 0, 2*(frameHead+n)), s.buf...)
	}
	s.buf = s.buf[:frameHead+n]
	if err := s.fill(s.buf[frameHead:]); err != nil {
		return frame{}, at, err
	}
	f, size, err := parseFrame(s.buf)
	if err != nil {
		return frame{}, at, err
	}
	s.offset = at + int64(size)
	return f, at, nil
}

func (s *scanner) fill(b []byte) error {
	_, err := io.ReadFull(s.r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errTorn
	}
	return err
}
