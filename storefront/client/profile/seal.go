package profile

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/go-json-experiment/json"
	"golang.org/x/crypto/argon2"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/redact"
	"github.com/sallyport/sallyport/storefront/client/safe"
)

// Argon2id of new files: three passes over 64 MiB with four lanes, the second choice of RFC 9106 section 4. Files say which
// they were made with; less is refused (a file cannot talk the program into a weak key), and so is what would exhaust it.
const (
	argonTime      = 3
	argonMemory    = 64 << 10 // KiB
	argonLanes     = 4
	maxArgonTime   = 32
	maxArgonMemory = 1 << 20 // KiB
)

// KeyFileSize is the length of a key file in bytes.
const KeyFileSize = 32

// Secret is what opens a profile: a passphrase or the content of a key file. It prints as redacted.
type Secret struct {
	redact.Redacted

	kdf   string
	bytes []byte
}

const (
	kdfPassphrase = "argon2id"
	kdfKeyFile    = "key-file"
)

// Passphrase is a secret that a person remembers. It copies the bytes.
func Passphrase(p []byte) (*Secret, error) {
	if len(p) == 0 {
		return nil, errors.New("the passphrase is empty")
	}
	return &Secret{kdf: kdfPassphrase, bytes: bytes.Clone(p)}, nil
}

// KeyFile reads a key file: 32 bytes that only their owner may read.
func KeyFile(path string) (*Secret, error) {
	key, err := ReadSecretFile(path, KeyFileSize)
	if err != nil {
		return nil, fmt.Errorf("reading the key file: %w", err)
	}
	if len(key) != KeyFileSize || bytes.Equal(key, make([]byte, KeyFileSize)) {
		clear(key)
		return nil, fmt.Errorf("reading the key file: %w: a key file has %d random bytes", ErrFormat, KeyFileSize)
	}
	return &Secret{kdf: kdfKeyFile, bytes: key}, nil
}

// NewKeyFile draws a key file, or reads the one that is there.
func NewKeyFile(path string) (*Secret, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, KeyFileSize)
		defer clear(key)
		rand.Read(key)
		if err := WriteFile(path, key); err != nil {
			return nil, fmt.Errorf("writing the key file: %w", err)
		}
	}
	return KeyFile(path)
}

// Zero overwrites the secret.
func (s *Secret) Zero() { clear(s.bytes) }

// A sealed file is magic || header, one line of strict JSON || AES-256-GCM(key, nonce 0, plaintext, everything before).
// key = HKDF-SHA-256(master, salt = file salt, info = profile(magic)), where the file salt is fresh for each file and so the key is
// used once. master = Argon2id(passphrase, salt) or HKDF(key file, salt).
const magic = "sallyport-sealed-v1\n"

// maxHeader bounds the header's line.
const maxHeader = 1024

type header struct {
	KDF    string `json:"kdf"`
	Salt   []byte `json:"salt"` // 16 bytes, of the master key
	Time   uint32 `json:"time,omitzero"`
	Memory uint32 `json:"memory_kib,omitzero"`
	Lanes  uint8  `json:"lanes,omitzero"`
	File   []byte `json:"file_salt"` // 32 bytes
}

func (h *header) validate() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrFormat, what) }
	if len(h.Salt) != 16 || len(h.File) != 32 {
		return bad("a salt has the wrong length")
	}
	switch h.KDF {
	case kdfKeyFile:
		if h.Time != 0 || h.Memory != 0 || h.Lanes != 0 {
			return bad("a key file has no parameters")
		}
	case kdfPassphrase:
		if h.Time < argonTime || h.Memory < argonMemory || h.Lanes < 1 {
			return bad("the passphrase is hardened too little")
		}
		if h.Time > maxArgonTime || h.Memory > maxArgonMemory || h.Lanes > 64 {
			return bad("the parameters of the passphrase are out of bounds")
		}
	default:
		return bad(fmt.Sprintf("key derivation %q is not known", h.KDF))
	}
	return nil
}

// box seals under a master key that was derived once, since Argon2id is meant to be slow.
type box struct {
	head   header // all but the file salt
	master [32]byte
}

func newBox(secret *Secret) (*box, error) {
	h := header{KDF: secret.kdf, Salt: make([]byte, 16), File: make([]byte, 32)}
	rand.Read(h.Salt)
	if h.KDF == kdfPassphrase {
		h.Time, h.Memory, h.Lanes = argonTime, argonMemory, argonLanes
	}
	return deriveBox(secret, h)
}

func deriveBox(secret *Secret, h header) (*box, error) {
	if err := h.validate(); err != nil {
		return nil, err
	}
	if secret.kdf != h.KDF {
		if h.KDF == kdfKeyFile {
			return nil, fmt.Errorf("%w: this is sealed with a key file, not with a passphrase", ErrUnlock)
		}
		return nil, fmt.Errorf("%w: this is sealed with a passphrase, not with a key file", ErrUnlock)
	}
	b := &box{head: h}
	var key []byte
	if h.KDF == kdfPassphrase {
		key = argon2.IDKey(secret.bytes, h.Salt, h.Time, h.Memory, h.Lanes, 32)
	} else {
		var err error
		if key, err = hkdf.Key(sha256.New, secret.bytes, h.Salt, string(policies.Encode("profile-key-file")), 32); err != nil {
			return nil, err
		}
	}
	copy(b.master[:], key)
	clear(key)
	return b, nil
}

// openBox derives the key that a sealed file asks for and opens the file with it.
func openBox(secret *Secret, sealed []byte) (*box, []byte, error) {
	h, _, err := parse(sealed)
	if err != nil {
		return nil, nil, err
	}
	b, err := deriveBox(secret, h)
	if err != nil {
		return nil, nil, err
	}
	plain, err := b.open(sealed)
	if err != nil {
		b.zero()
		return nil, nil, err
	}
	return b, plain, nil
}

// parse splits a sealed file into its header and the length of what comes before the ciphertext.
func parse(sealed []byte) (header, int, error) {
	rest, ok := bytes.CutPrefix(sealed, []byte(magic))
	if !ok {
		return header{}, 0, ErrFormat
	}
	end := bytes.IndexByte(rest[:min(len(rest), maxHeader)], '\n')
	if end < 0 {
		return header{}, 0, fmt.Errorf("%w: its header is cut short", ErrFormat)
	}
	var h header
	if err := envelope.Decode(rest[:end], &h); err != nil {
		return header{}, 0, fmt.Errorf("%w: its header is malformed", ErrFormat)
	}
	return h, len(magic) + end + 1, h.validate()
}

func (b *box) aead(fileSalt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, b.master[:], fileSalt, string(policies.Encode("profile", []byte(magic))), 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (b *box) seal(plain []byte) ([]byte, error) {
	h := b.head
	h.File = make([]byte, 32)
	rand.Read(h.File)
	line, err := json.Marshal(h, json.Deterministic(true))
	if err != nil {
		return nil, err
	}
	aead, err := b.aead(h.File)
	if err != nil {
		return nil, err
	}
	out := append([]byte(magic), append(line, '\n')...)
	return aead.Seal(out, make([]byte, aead.NonceSize()), plain, bytes.Clone(out)), nil // #nosec G407 -- the key is derived from a fresh salt for each file
}

func (b *box) open(sealed []byte) ([]byte, error) {
	h, n, err := parse(sealed)
	if err != nil {
		return nil, err
	}
	aead, err := b.aead(h.File)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, make([]byte, aead.NonceSize()), sealed[n:], sealed[:n])
	if err != nil {
		return nil, ErrUnlock
	}
	return plain, nil
}

// safeKey is what the safe is sealed under.
func (b *box) safeKey() (key [safe.KeySize]byte, err error) {
	k, err := hkdf.Key(sha256.New, b.master[:], nil, string(policies.Encode("profile-safe")), len(key))
	copy(key[:], k)
	clear(k)
	return key, err
}

func (b *box) zero() { clear(b.master[:]) }
