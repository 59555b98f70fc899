// Package sealed keeps re-encryption keys of custody sealed: each wrapped by the token under the sealing key of a period, and sealed once
// more under the vault's data key.
//
// # Why not the ledger's database
//
// The ledger's database is an index that is made anew from the log. This one is not: the log never sees a re-encryption key, wrapped or not,
// so what is lost here is lost, and its owner has to grant again. So it is a format of its own, as simple as can be: one file
// of slots of 512 bytes, each holding one value, found by a map in memory. That buys what a general store does not give.
// A flipped bit costs one key and no other, is noticed when the value is opened, and ends no process. A value that is deleted
// is overwritten where it lies, at once and durably, instead of staying in older files until they are merged. The file is
// written with pwrite into blocks that were set aside for it, so a full disk refuses a new key and harms none that is there.
//
// # What is believed
//
// Nothing in the file. A value is AES-256-GCM under a key derived from the data key for this vault and period, with key id, period and version as
// associated data. So a value that was changed, moved to another key's place, or made by another vault does not open. It
// counts as damaged, and that key is missing: never another's key. Nothing depends on a key's absence, either: a value that was put
// back after its deletion opens, and is refused all the same, because the ledger says that its grant was revoked; the next start removes it. An
// older version that was put back is the same key under an older sealing key: it is of use for as long as the token has that.
//
// # Crashes
//
// [Store.Put] and [Store.Delete] return when what they did is on disk. [Store.Replace] writes the new version into a free slot, and
// empties the old slot only when the new one is on disk. After a crash in between, both are there, and the newer counts.
// A write that was torn leaves a slot that does not open, whose Put nobody was told of: [Store.Settle] removes it, unless a grant misses its key,
// since then it may have been that one.
//
// An error of a write or fsync leaves its outcome unknown. From then on the store gives out keys but takes no change until it is opened again.
package sealed

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/sallyport/sallyport/policies"
)

// ID names a re-encryption key. It is the vault's KeyID.
type ID [32]byte

// Key is a re-encryption key as the token wrapped it under the sealing key of a period.
type Key struct {
	Period uint32
	Blob   []byte
}

// Errors of this package.
var (
	// ErrMissing: no value is stored for the key.
	ErrMissing = errors.New("no sealed key is stored")
	// ErrDamaged: the value does not open: it was changed, or is not the one that was written last.
	ErrDamaged = errors.New("sealed key is damaged")
	// ErrFull: the disk is nearly full.
	ErrFull = errors.New("no room for another sealed key")
	// ErrStopped: a write failed, with an unknown outcome; nothing more is changed until the store is opened again.
	ErrStopped = errors.New("the store of sealed keys takes no changes")
	// ErrTooLong: the wrapped key is longer than a slot holds.
	ErrTooLong = errors.New("wrapped key is too long")
)

// A slot is version (4, from 1) || period (4) || key id (32) || length of blob (2) || nonce (12) || blob, encrypted || tag (16) || zeros. One that is
// all zeros is free. It is a sector, so no power cut tears it on disks that write sectors whole; nothing relies on that.
const (
	slotSize = 512
	headSize = 4 + 4 + 32 + 2 + 12
	tagSize  = 16
	// MaxBlob is the longest wrapped key that a slot holds.
	MaxBlob = slotSize - headSize - tagSize
)

var zeroSlot [slotSize]byte

// value is a slot, opened.
type value struct {
	id      ID
	version uint32
	key     Key
}

// crypt seals and opens values of one vault.
type crypt struct {
	master []byte

	mu      sync.Mutex
	ciphers map[uint32]cipher.AEAD // by period, the few that are in use
}

// maxCiphers bounds the map: the period of a slot is believed only when the slot opened.
const maxCiphers = 16

// newCrypt derives the vault's key from the data key, which has other uses.
func newCrypt(dataKey *[32]byte, vault policies.VaultID) *crypt {
	master, err := hkdf.Expand(sha256.New, dataKey[:], string(policies.Encode("sealed-keys", vault[:])), 32)
	if err != nil {
		panic(err) // 32 bytes can always be had
	}
	return &crypt{master: master, ciphers: map[uint32]cipher.AEAD{}}
}

func (c *crypt) zero() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.master)
	clear(c.ciphers)
}

// cipher is that of a period. Each period has a key of its own, and in one a value is written a few times at most, so random nonces stay far
// from their bound, which is 2^32 of them.
func (c *crypt) cipher(period uint32) cipher.AEAD {
	c.mu.Lock()
	defer c.mu.Unlock()
	if aead := c.ciphers[period]; aead != nil {
		return aead
	}
	key, err := hkdf.Expand(sha256.New, c.master, string(policies.Encode("sealed-keys-period", policies.U64(uint64(period)))), 32)
	if err != nil {
		panic(err)
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	if len(c.ciphers) >= maxCiphers {
		clear(c.ciphers)
	}
	c.ciphers[period] = aead
	return aead
}

func associated(id *ID, period, version uint32) []byte {
	return policies.Encode("sealed-key", id[:], policies.U64(uint64(period)), policies.U64(uint64(version)))
}

// seal makes a slot.
func (c *crypt) seal(v *value) ([]byte, error) {
	if len(v.key.Blob) == 0 || len(v.key.Blob) > MaxBlob {
		return nil, fmt.Errorf("%w: %d bytes, of at most %d", ErrTooLong, len(v.key.Blob), MaxBlob)
	}
	slot := make([]byte, headSize, slotSize)
	binary.BigEndian.PutUint32(slot, v.version)
	binary.BigEndian.PutUint32(slot[4:], v.key.Period)
	copy(slot[8:], v.id[:])
	binary.BigEndian.PutUint16(slot[40:], uint16(len(v.key.Blob)))
	rand.Read(slot[42:headSize])
	slot = c.cipher(v.key.Period).Seal(slot, slot[42:headSize], v.key.Blob, associated(&v.id, v.key.Period, v.version))
	return slot[:slotSize], nil // the rest is zeros: it was made here
}

// open is the inverse of seal: nil for a free slot, [ErrDamaged] for one that is neither free nor a value of this vault. What lies behind a value is not
// looked at.
func (c *crypt) open(slot []byte) (*value, error) {
	if len(slot) != slotSize {
		return nil, ErrDamaged
	}
	if bytes.Equal(slot, zeroSlot[:]) {
		return nil, nil
	}
	v := &value{version: binary.BigEndian.Uint32(slot), id: ID(slot[8:40]), key: Key{Period: binary.BigEndian.Uint32(slot[4:])}}
	length := int(binary.BigEndian.Uint16(slot[40:]))
	if v.version == 0 || length == 0 || length > MaxBlob {
		return nil, ErrDamaged
	}
	blob, err := c.cipher(v.key.Period).Open(nil, slot[42:headSize], slot[headSize:headSize+length+tagSize], associated(&v.id, v.key.Period, v.version))
	if err != nil {
		return nil, ErrDamaged
	}
	v.key.Blob = blob
	return v, nil
}
