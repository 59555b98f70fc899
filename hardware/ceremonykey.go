package hardware

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/crypto/argon2"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

// A cost is what one guess at a passphrase takes: Argon2id's passes, memory and threads (RFC 9106).
type cost struct {
	time, memoryKiB uint32
	threads         uint8
}

var (
	// fullCost is four times the memory of RFC 9106's second recommended option (section 4).
	fullCost = cost{time: 3, memoryKiB: 256 << 10, threads: 4}
	// leastCost is the least that a file may say.
	leastCost = cost{time: 1, memoryKiB: kdfMinMemoryKiB, threads: 4}
)

// What a file says is accepted within bounds, so that neither a weakened file passes nor a hostile one takes all memory.
const (
	kdfMinMemoryKiB = 64 << 10
	kdfMaxMemoryKiB = 2 << 20
	kdfMaxTime      = 16
	kdfMaxThreads   = 64

	minPassphrase = 12
	saltSize      = 16
	nonceSize     = 12
	tagSize       = 16

	keyFileType = "sallyport-ceremony-key"
	maxKeyFile  = 64 << 10
)

// keyFile is the ceremony key at rest: the seed of 64 bytes under AES-256-GCM, with a key that Argon2id (RFC 9106) makes of
// the passphrase. Everything else in the file is associated data.
type keyFile struct {
	Type      string `json:"type"`
	Suite     string `json:"suite"`
	PublicKey []byte `json:"public_key"`
	KDF       string `json:"kdf"`
	Time      uint32 `json:"time"`
	MemoryKiB uint32 `json:"memory_kib"`
	Threads   uint8  `json:"threads"`
	Salt      []byte `json:"salt"`
	Nonce     []byte `json:"nonce"`
	Sealed    []byte `json:"sealed"`
}

// parseKeyFile reads a ceremony key's file strictly. It opens nothing.
func parseKeyFile(raw []byte) (*keyFile, error) {
	if len(raw) > maxKeyFile {
		return nil, fmt.Errorf("%w: the file has more than %d bytes", ErrCeremonyKey, maxKeyFile)
	}
	var f keyFile
	if err := envelope.Decode(raw, &f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCeremonyKey, err)
	}
	switch {
	case f.Type != keyFileType || f.Suite != policies.Suite || f.KDF != "argon2id":
		return nil, fmt.Errorf("%w: type, suite or kdf is not known", ErrCeremonyKey)
	case len(f.PublicKey) != envelope.PublicKeySize || len(f.Salt) != saltSize || len(f.Nonce) != nonceSize || len(f.Sealed) != envelope.SeedSize+tagSize:
		return nil, fmt.Errorf("%w: a value has the wrong length", ErrCeremonyKey)
	case f.MemoryKiB < kdfMinMemoryKiB || f.MemoryKiB > kdfMaxMemoryKiB || f.Time < 1 || f.Time > kdfMaxTime || f.Threads < 1 || f.Threads > kdfMaxThreads:
		return nil, fmt.Errorf("%w: the cost of the passphrase is out of bounds", ErrCeremonyKey)
	}
	return &f, nil
}

// aead makes the cipher of a file from a passphrase, and the associated data.
func (f *keyFile) aead(passphrase []byte) (cipher.AEAD, []byte, error) {
	key := argon2.IDKey(passphrase, f.Salt, f.Time, f.MemoryKiB, f.Threads, 32)
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, err
	}
	gcm, err := cipher.NewGCM(block)
	return gcm, policies.Encode("ceremony-key", f.PublicKey, policies.U64(uint64(f.Time)), policies.U64(uint64(f.MemoryKiB)),
		policies.U64(uint64(f.Threads)), f.Salt), err
}

// createCeremonyKey draws a ceremony key and writes it to a file that must not exist yet.
func createCeremonyKey(path string, passphrase []byte, c cost) (*envelope.PrivateKey, error) {
	if len(passphrase) < minPassphrase {
		return nil, fmt.Errorf("%w: it needs at least %d characters: this key speaks for the vault for as long as it lives",
			ErrPassphrase, minPassphrase)
	}
	var seed [envelope.SeedSize]byte
	defer clear(seed[:])
	rand.Read(seed[:]) // never fails: see crypto/rand
	key := envelope.NewPrivateKey(&seed)
	f := keyFile{
		Type: keyFileType, Suite: policies.Suite, PublicKey: key.Public().Bytes(),
		KDF: "argon2id", Time: c.time, MemoryKiB: c.memoryKiB, Threads: c.threads,
		Salt: make([]byte, saltSize), Nonce: make([]byte, nonceSize),
	}
	rand.Read(f.Salt)
	rand.Read(f.Nonce)
	gcm, aad, err := f.aead(passphrase)
	if err != nil {
		return nil, fmt.Errorf("sealing the ceremony key: %w", err)
	}
	f.Sealed = gcm.Seal(nil, f.Nonce, seed[:], aad)
	raw, err := json.Marshal(f, jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("encoding the ceremony key: %w", err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("writing the ceremony key: %w", err)
	}
	_, err = file.Write(append(raw, '\n'))
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("writing the ceremony key: %w", errors.Join(err, os.Remove(path)))
	}
	return key, nil
}

// openCeremonyKey opens the file that createCeremonyKey wrote. It must hold the key called public.
func openCeremonyKey(path string, passphrase, public []byte) (*envelope.PrivateKey, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrCeremonyKey, err)
	} else if err != nil {
		return nil, fmt.Errorf("reading the ceremony key: %w", err)
	}
	f, err := parseKeyFile(raw)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(f.PublicKey, public) {
		return nil, fmt.Errorf("%w: the file holds the key of another ceremony", ErrCeremonyKey)
	}
	gcm, aad, err := f.aead(passphrase)
	if err != nil {
		return nil, fmt.Errorf("opening the ceremony key: %w", err)
	}
	plain, err := gcm.Open(nil, f.Nonce, f.Sealed, aad)
	if err != nil {
		return nil, fmt.Errorf("%w: it does not open the key, or the file was changed", ErrPassphrase)
	}
	defer clear(plain)
	seed := [envelope.SeedSize]byte(plain)
	defer clear(seed[:])
	key := envelope.NewPrivateKey(&seed)
	// GCM does not commit to its key: what was opened counts only if it is the key that the file is about.
	if !bytes.Equal(key.Public().Bytes(), public) {
		key.Zero()
		return nil, fmt.Errorf("%w: it does not open the key, or the file was changed", ErrPassphrase)
	}
	return key, nil
}
