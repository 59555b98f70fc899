package pre

import (
	"fmt"
	"io"
	"sync"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/pre/internal/secret"
	"github.com/sallyport/sallyport/vault/pre/internal/xwing"
)

// VaultKey is the vault's X-Wing key pair for sessions, and for nothing else. Its public half is in the vault document.
type VaultKey struct {
	redacted
	seed [xwing.SeedSize]byte
}

// NewVaultKey makes the key of a seed. It copies the seed.
func NewVaultKey(seed [32]byte) *VaultKey { return &VaultKey{seed: seed} }

// Public is the X-Wing public key, 1,216 bytes.
func (k *VaultKey) Public() []byte { return xwing.Public(&k.seed) }

// Zero overwrites the key.
func (k *VaultKey) Zero() { clear(k.seed[:]) }

// Decapsulate opens the ciphertext of a session document, 1,120 bytes. One made for another vault gives a secret that opens nothing.
func (k *VaultKey) Decapsulate(ct []byte) (*SessionSecret, error) {
	ss, err := xwing.Decapsulate(&k.seed, ct)
	if err != nil {
		return nil, fmt.Errorf("opening a session: %w", ErrOpen)
	}
	defer clear(ss[:])
	return &SessionSecret{ss: *ss}, nil
}

// SessionSecret is what reader and vault share before the session document has a hash. See [SessionSecret.Key].
type SessionSecret struct {
	redacted
	ss [xwing.SecretSize]byte
}

// EncapsulateSession begins a session with a vault (public key of 1,216 bytes). ct, 1,120 bytes, goes into the session document.
// Randomness: 64 bytes from source, or from crypto/rand if it is nil.
func EncapsulateSession(vaultPublic []byte, source io.Reader) (ct []byte, s *SessionSecret, err error) {
	ct, ss, err := xwing.Encapsulate(vaultPublic, source)
	if err != nil {
		return nil, nil, fmt.Errorf("encapsulating to a vault: %w", keyError(err))
	}
	defer clear(ss[:])
	return ct, &SessionSecret{ss: *ss}, nil
}

// Zero overwrites the secret.
func (s *SessionSecret) Zero() { clear(s.ss[:]) }

// Key is K, bound to the vault, the reader and the hash of the signed session document. Of a zeroed secret it is a zeroed key.
func (s *SessionSecret) Key(vault policies.VaultID, reader policies.ReaderID, session policies.Hash) *SessionKey {
	if s.ss == [xwing.SecretSize]byte{} {
		return new(SessionKey)
	}
	k := secret.Derive(s.ss[:], nil, policies.Encode("session-key", vault[:], reader[:], session[:]), 32)
	defer clear(k)
	return &SessionKey{k: [32]byte(k)}
}

// SessionKey is K: the vault's answers of a session are encrypted under keys derived from it, so that the storefront never sees a
// re-encrypted capsule. Its methods may be called from any goroutine: a vault forgets a session while it answers a request of it.
type SessionKey struct {
	redacted
	mu sync.RWMutex // guards k
	k  [32]byte
}

// Zero overwrites the key. A zeroed key gives [ErrKey] or [ErrOpen].
func (k *SessionKey) Zero() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.k[:])
}

// What the vault says to a reader under K. Each has keys of its own, so that one is never taken for another.
const (
	useAnswer   = "answer"
	useEvidence = "evidence"
)

// answerKey is the key of the answers to one request, and the associated data that goes with it. A zeroed K is refused: everybody knows
// what is derived from zeroes.
func (k *SessionKey) answerKey(use string, request policies.Hash) (key [32]byte, context []byte, err error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.k == [32]byte{} {
		return key, nil, ErrKey
	}
	context = policies.Encode(use, request[:])
	b := secret.Derive(k.k[:], nil, context, 32)
	defer clear(b)
	return [32]byte(b), context, nil
}

// SealAnswer encrypts the answer to the read request of that hash: nonce (12 bytes) || AES-256-GCM. The nonce is read from source, or from
// crypto/rand if it is nil: a request that is answered twice, after a crash, does not use a nonce twice.
func (k *SessionKey) SealAnswer(request policies.Hash, answer []byte, source io.Reader) ([]byte, error) {
	return k.seal(useAnswer, request, answer, source)
}

// OpenAnswer decrypts an answer. An answer to another request, or in another session, or evidence, is [ErrOpen].
func (k *SessionKey) OpenAnswer(request policies.Hash, sealed []byte) ([]byte, error) {
	return k.open(useAnswer, request, sealed)
}

// SealEvidence is [SessionKey.SealAnswer] for the answer to a request for evidence.
func (k *SessionKey) SealEvidence(request policies.Hash, answer []byte, source io.Reader) ([]byte, error) {
	return k.seal(useEvidence, request, answer, source)
}

// OpenEvidence is [SessionKey.OpenAnswer] for the answer to a request for evidence.
func (k *SessionKey) OpenEvidence(request policies.Hash, sealed []byte) ([]byte, error) {
	return k.open(useEvidence, request, sealed)
}

func (k *SessionKey) seal(use string, request policies.Hash, answer []byte, source io.Reader) ([]byte, error) {
	key, context, err := k.answerKey(use, request)
	if err != nil {
		return nil, fmt.Errorf("sealing an answer: %w", err)
	}
	defer clear(key[:])
	sealed := make([]byte, len(zeroNonce), len(zeroNonce)+len(answer)+tagSize)
	if err := secret.Draw(source, sealed); err != nil {
		return nil, fmt.Errorf("sealing an answer: %w", err)
	}
	return gcm(&key).Seal(sealed, sealed, answer, context), nil // #nosec G407 -- drawn at random above
}

func (k *SessionKey) open(use string, request policies.Hash, sealed []byte) ([]byte, error) {
	if len(sealed) < len(zeroNonce)+tagSize {
		return nil, ErrOpen
	}
	key, context, err := k.answerKey(use, request)
	if err != nil {
		return nil, ErrOpen
	}
	defer clear(key[:])
	answer, err := gcm(&key).Open(nil, sealed[:len(zeroNonce)], sealed[len(zeroNonce):], context)
	if err != nil {
		return nil, ErrOpen
	}
	return answer, nil
}
