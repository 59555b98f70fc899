package safe

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/redact"
)

// A file is magic || header, one line of strict JSON || chunks. A chunk is the length of its ciphertext (u32) || nonce (12) || AES-256-GCM(key, nonce, records,
// SHA-256 of magic and header || number of the chunk (u64) || tag of the chunk before (16)). key = HKDF-SHA-256(the profile's key, salt, safe). Each file has a salt,
// and so a key, of its own; nonces are random, so that two copies of a file to which two machines append never use one twice. The chain of tags holds each
// chunk in its place in its own file.
const magic = "sallyport-safe-v1\n"

const (
	maxHeader = 1024
	maxChunk  = pageSize + maxRecord + 64
	nonceSize = 12
	tagSize   = 16
)

// KeySize is the length of the key that a safe is sealed under in bytes.
const KeySize = 32

// Head is what a file holds at least: the caller keeps it where it cannot be changed, and gives it to [Open].
type Head struct {
	File   policies.Hash `json:"file"`   // its salt
	Chunks uint64        `json:"chunks"` // how many were committed
	Tag    []byte        `json:"tag"`    // of the last of them
}

type header struct {
	Salt    policies.Hash `json:"salt"`
	People  int           `json:"people"`           // in the file when it was made
	Follows Head          `json:"follows,omitzero"` // what the caller kept of the file in whose place it was put
}

var (
	// ErrDamaged: a chunk was changed, moved, or belongs to another file.
	ErrDamaged = errors.New("the safe is damaged")
	// ErrShort: something that was committed is missing.
	ErrShort = errors.New("the safe is shorter than it was")
	// ErrOther: the safe is not the one of this profile, or an older copy of it.
	ErrOther = errors.New("this is not the safe that belongs to the profile")
)

// Safe is a Book with its file.
type Safe struct {
	redact.Redacted

	*Book
	path    string
	key     [KeySize]byte
	head    Head
	headers policies.Hash // SHA-256 of magic and header
	aead    cipher.AEAD
	file    *os.File
	size    int64 // of the file as far as it is committed
	kept    Head  // what the caller keeps
	broken  bool  // the end of the file is unknown: a new one takes its place
}

// Open opens a file, or makes one if there is none and head is zero.
func Open(path string, key [KeySize]byte, head Head) (s *Safe, err error) {
	s = &Safe{path: path, key: key, kept: head}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if head.Chunks > 0 {
			return nil, fmt.Errorf("opening the safe: %w: %s is missing", ErrShort, path)
		}
		s.Book, s.broken = NewBook(0), true
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening the safe: %w", err)
	}
	defer func() {
		if err != nil {
			_ = file.Close()
		}
	}()
	s.file = file
	if err := s.read(head); err != nil {
		return nil, fmt.Errorf("opening the safe: %w", err)
	}
	return s, nil
}

// read takes the whole file in.
func (s *Safe) read(committed Head) error {
	in := bufio.NewReaderSize(s.file, maxHeader+len(magic))
	line, err := in.Peek(len(magic))
	if err != nil || string(line) != magic {
		return fmt.Errorf("%w: it does not begin as one", ErrDamaged)
	}
	line, err = in.Peek(maxHeader + len(magic))
	if err != nil && err != io.EOF {
		return err
	}
	end := bytes.IndexByte(line[len(magic):], '\n') + len(magic) + 1
	if end == len(magic) {
		return fmt.Errorf("%w: its header has no end", ErrDamaged)
	}
	var h header
	if err := envelope.Decode(line[len(magic):end-1], &h); err != nil {
		return fmt.Errorf("%w: its header is malformed", ErrDamaged)
	}
	switch {
	case committed.Chunks == 0 || h.Salt == committed.File:
	case h.Follows.File == committed.File && h.Follows.Chunks >= committed.Chunks: // made after the caller last kept a head
		committed = Head{}
	default:
		return ErrOther
	}
	if err := s.begin(h.Salt, line[:end]); err != nil {
		return err
	}
	if _, err := in.Discard(end); err != nil {
		return err
	}
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	s.Book = NewBook(max(0, min(h.People, int(info.Size()/64))))
	s.head, s.size = Head{File: h.Salt}, int64(end)
	buffer := make([]byte, min(nonceSize+maxChunk, info.Size()))
	for s.size < info.Size() {
		page, size, err := s.chunk(in, buffer)
		if err != nil && s.head.Chunks >= max(committed.Chunks, 1) && s.Len() >= h.People {
			s.broken = true // never acknowledged: it does not count, and nothing is built on it
			break
		}
		if err == nil {
			err = s.takePage(page)
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("%w: it ends within chunk %d, at byte %d", ErrShort, s.head.Chunks, s.size)
		case err != nil:
			return fmt.Errorf("%w: chunk %d, at byte %d: %w", ErrDamaged, s.head.Chunks, s.size, err)
		}
		s.size += size
		s.head.Chunks++
		if s.head.Chunks == committed.Chunks && !bytes.Equal(s.head.Tag, committed.Tag) {
			return fmt.Errorf("%w: chunk %d is another than was committed", ErrOther, s.head.Chunks-1)
		}
	}
	if s.head.Chunks < max(committed.Chunks, 1) || s.Len() < h.People {
		return fmt.Errorf("%w: it has %d chunks and %d people, of at least %d and %d", ErrShort, s.head.Chunks, s.Len(), max(committed.Chunks, 1), h.People)
	}
	return nil
}

// chunk reads and opens the next one. size is what it takes in the file.
func (s *Safe) chunk(in io.Reader, buffer []byte) (page []byte, size int64, err error) {
	var prefix [4]byte
	if _, err := io.ReadFull(in, prefix[:]); err != nil {
		return nil, 0, err
	}
	n := int(binary.BigEndian.Uint32(prefix[:]))
	if n < tagSize || n > maxChunk {
		return nil, 0, errors.New("a length that no chunk has")
	}
	if size = int64(4 + nonceSize + n); nonceSize+n > len(buffer) {
		return nil, 0, io.ErrUnexpectedEOF
	}
	sealed := buffer[:nonceSize+n]
	if _, err := io.ReadFull(in, sealed); err != nil {
		return nil, 0, err
	}
	tag := slices.Clone(sealed[len(sealed)-tagSize:])
	if page, err = s.aead.Open(make([]byte, 0, n-tagSize), sealed[:nonceSize], sealed[nonceSize:], s.bind()); err != nil {
		return nil, 0, errors.New("it does not open")
	}
	s.head.Tag = tag
	return page, size, nil
}

// begin makes the key of a file.
func (s *Safe) begin(salt policies.Hash, start []byte) error {
	key, err := hkdf.Key(sha256.New, s.key[:], salt[:], string(policies.Encode("safe")), KeySize)
	if err != nil {
		return err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	s.headers = sha256.Sum256(start)
	s.aead, err = cipher.NewGCM(block)
	return err
}

// bind is what the next chunk is bound to.
func (s *Safe) bind() []byte {
	out := binary.BigEndian.AppendUint64(s.headers[:len(s.headers):len(s.headers)], s.head.Chunks)
	return append(append(out, s.head.Tag...), make([]byte, tagSize-len(s.head.Tag))...)
}

// seal appends the next chunk to out.
func (s *Safe) seal(out, page []byte) []byte {
	out = binary.BigEndian.AppendUint32(out, uint32(len(page)+tagSize))
	nonce := make([]byte, nonceSize)
	rand.Read(nonce)
	out = s.aead.Seal(append(out, nonce...), nonce, page, s.bind())
	s.head.Tag = slices.Clone(out[len(out)-tagSize:])
	s.head.Chunks++
	return out
}

// Head is the last one committed.
func (s *Safe) Head() Head { return s.head }

// Keep tells that the caller has stored the last Head.
func (s *Safe) Keep() { s.kept = s.head }

// Commit makes durable what was put since the last one. When it has returned nil, that outlives a power cut, and the Head may be kept. After an error the file may
// hold a part of it, and the next Commit writes a new file.
func (s *Safe) Commit() error {
	if len(s.changed) == 0 && !s.broken {
		return nil
	}
	if s.broken || s.size > 2*int64(s.live)+(4<<20) {
		return s.rewrite()
	}
	var out []byte
	page := make([]byte, 0, pageSize)
	for id := range s.changed {
		at, _ := s.find(id)
		page = append(page, s.from(at)[:s.Book.raw(at).size]...)
		if len(page) >= pageSize {
			out, page = s.seal(out, page), page[:0]
		}
	}
	if len(page) > 0 {
		out = s.seal(out, page)
	}
	s.broken = true // until it is known otherwise
	if _, err := s.file.WriteAt(out, s.size); err != nil {
		return fmt.Errorf("writing to the safe: %w", err)
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("writing to the safe: %w", err)
	}
	s.size += int64(len(out))
	s.broken = false
	clear(s.changed)
	return nil
}

// rewrite puts a new file with everybody in the place of the old one.
func (s *Safe) rewrite() (err error) {
	defer func() {
		if err != nil {
			s.broken, err = true, fmt.Errorf("writing the safe anew: %w", err)
		}
	}()
	h := header{People: s.Len(), Follows: s.kept}
	rand.Read(h.Salt[:])
	line, err := json.Marshal(h, json.Deterministic(true))
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(s.path), ".safe-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(file.Name())
		}
	}()
	start := slices.Concat([]byte(magic), line, []byte("\n"))
	next := *s
	next.file, next.head = file, Head{File: h.Salt}
	if err := next.begin(h.Salt, start); err != nil {
		return err
	}
	next.size = int64(len(start))
	if _, err := file.Write(start); err != nil {
		return err
	}
	var out []byte
	write := func(page []byte) error {
		out = next.seal(out[:0], page)
		next.size += int64(len(out))
		_, err := file.Write(out)
		return err
	}
	if s.Len() == 0 {
		err = write(nil)
	} else {
		err = s.Pages(write)
	}
	if err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), s.path); err != nil {
		return err
	}
	if s.file != nil {
		_ = s.file.Close()
	}
	next.broken = false
	*s = next
	clear(s.changed)
	folder, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

// Close gives the file free and forgets the key. What was not committed is lost.
func (s *Safe) Close() error {
	clear(s.key[:])
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
