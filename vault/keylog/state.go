package keylog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"
)

// The signer state file has three pages: a head, and two slots that are written
// in turn, so that a torn write leaves the slot before it. It never grows, so a
// commit is one small write and one fdatasync.
//
//	head  magic (24) | log id (32) | seal key (32) | CRC-32C (4)
//	slot  magic (8) | generation (8) | size (8) | root (32) | log id (32) | signature (64) | CRC-32C (4)
//
// The token's copy is the slot's bytes.
const (
	stateFile  = "signer-state"
	statePage  = 4096
	stateMagic = "sallyport keylog 1 stat\n"
	slotMagic  = "spklsig1"
	slotSize   = len(slotMagic) + 8 + 8 + 32 + 32 + ed25519.SignatureSize + 4
	headSize   = len(stateMagic) + 32 + 32 + 4
)

// A logID binds files to one origin and log key.
type logID [sha256.Size]byte

func newLogID(origin string, key ed25519.PublicKey) logID {
	b := append([]byte("sallyport/v1/keylog-id\n"), key...)
	return sha256.Sum256(append(b, origin...))
}

// A sealKey authenticates what the log itself wrote to the journal. It never
// prints: fmt calls Format where it can, and where it cannot, in an unexported
// field, it stops at a pointer. It takes two, since fmt follows the first one
// when it reports a verb that does not fit.
type sealKey struct{ secret *[32]byte }

func newSealKey(b []byte) *sealKey {
	k := &sealKey{new([32]byte)}
	copy(k.secret[:], b)
	return k
}

func (k *sealKey) wipe() { clear(k.secret[:]) }

// Format prints the word redacted for every verb.
func (sealKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "redacted") }

// LogValue keeps the key out of structured logs.
func (sealKey) LogValue() slog.Value { return slog.StringValue("redacted") }

// seal returns the MAC over a tree. The root commits to every entry and time,
// the id to the log.
func (k *sealKey) seal(id logID, size int64, root tlog.Hash) []byte {
	m := hmac.New(sha256.New, k.secret[:])
	_, _ = io.WriteString(m, "sallyport/v1/keylog-seal\n") // a hash takes everything
	m.Write(id[:])
	m.Write(appendU64(make([]byte, 0, 8), uint64(size)))
	m.Write(root[:])
	return m.Sum(nil)
}

// signed is the last thing the signer signed.
type signed struct {
	generation uint64 // grows by one with every write of the state file
	size       int64
	root       tlog.Hash
	id         logID
	signature  [ed25519.SignatureSize]byte
}

func (s *signed) encode() []byte {
	b := make([]byte, 0, slotSize)
	b = append(b, slotMagic...)
	b = appendU64(b, s.generation)
	b = appendU64(b, uint64(s.size))
	b = append(b, s.root[:]...)
	b = append(b, s.id[:]...)
	b = append(b, s.signature[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

var errState = errors.New("not a signer state")

func parseSigned(b []byte) (signed, error) {
	var s signed
	if len(b) != slotSize || string(b[:len(slotMagic)]) != slotMagic {
		return s, errState
	}
	body, sum := b[:slotSize-4], b[slotSize-4:]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(sum) {
		return s, errState
	}
	body = body[len(slotMagic):]
	size := binary.BigEndian.Uint64(body[8:])
	if size > math.MaxInt64 {
		return s, errState
	}
	s.generation, s.size = binary.BigEndian.Uint64(body), int64(size)
	body = body[16:]
	body = body[copy(s.root[:], body):]
	body = body[copy(s.id[:], body):]
	copy(s.signature[:], body)
	return s, nil
}

func encodeHead(id logID, key *sealKey) []byte {
	b := append(make([]byte, 0, headSize), stateMagic...)
	b = append(b, id[:]...)
	b = append(b, key.secret[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// parseState reads the whole state file. It returns the seal key and the one or
// two states found, newest first.
func parseState(b []byte, id logID) (key *sealKey, states []signed, err error) {
	damage := func(offset int64, what string) error {
		return &DamageError{File: stateFile, Offset: offset, Index: -1, What: what}
	}
	if len(b) != 3*statePage {
		return nil, nil, damage(-1, "the file does not have its size")
	}
	at := len(stateMagic)
	if string(b[:at]) != stateMagic ||
		crc32.Checksum(b[:headSize-4], castagnoli) != binary.BigEndian.Uint32(b[headSize-4:]) {
		return nil, nil, damage(0, "the head is not whole")
	}
	if !bytes.Equal(b[at:at+len(id)], id[:]) {
		return nil, nil, damage(0, "the state belongs to another log or log key")
	}

	for slot := range uint64(2) {
		offset := (1 + slot) * statePage
		s, err := parseSigned(b[offset : offset+uint64(slotSize)])
		if err != nil {
			continue // never written, or torn by a crash: the other slot counts
		}
		if s.id != id || s.generation%2 != slot {
			return nil, nil, damage(int64(offset), "the slot belongs elsewhere")
		}
		states = append(states, s)
	}
	switch len(states) {
	case 0:
		return nil, nil, damage(statePage, "no slot is readable")
	case 2:
		if states[0].generation < states[1].generation {
			states[0], states[1] = states[1], states[0]
		}
		if states[0].generation != states[1].generation+1 || states[0].size < states[1].size {
			return nil, nil, damage(statePage, "one slot is older than it can be")
		}
	}
	return newSealKey(b[at+len(id) : at+len(id)+32]), states, nil
}

// readState reads the state file. A missing file is nil states and no error.
func readState(dir string, id logID) (key *sealKey, states []signed, err error) {
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer clear(b)
	return parseState(b, id)
}

// createState makes the state file with a fresh seal key. A crash before it
// returns leaves no state file or a whole one.
func createState(d *disk, dir string, s *signed) error {
	key := newSealKey(nil)
	rand.Read(key.secret[:])
	defer key.wipe()
	b := make([]byte, 3*statePage)
	defer clear(b)
	head := encodeHead(s.id, key)
	defer clear(head)
	copy(b, head)
	copy(b[(1+s.generation%2)*statePage:], s.encode())
	return d.replace(dir, stateFile, b)
}

// writeSlot makes s durable in the slot that does not hold its predecessor.
func writeSlot(d *disk, f *os.File, s *signed) error {
	if err := d.write(f, s.encode(), int64(1+s.generation%2)*statePage); err != nil {
		return err
	}
	return d.sync(f)
}
