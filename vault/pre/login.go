package pre

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/pre/internal/secret"
	"github.com/sallyport/sallyport/vault/pre/internal/xwing"
)

// Challenge is what a login proves knowledge for. Server and FreshKey are what each side knows by itself, never what the other
// told it: a server that passes on another server's challenge gets an answer that is of no use there.
type Challenge struct {
	Server     string              // authority of the storefront (host:port, lower case), 1 to 255 bytes
	Subject    policies.IdentityID // who logs in
	Ciphertext []byte              // X-Wing, to the subject's login key, 1,120 bytes
	Nonce      policies.Nonce      // the server's
	FreshKey   [32]byte            // Ed25519 public key that will sign the requests of this login
}

// answer is HMAC-SHA-256(HKDF(ss, challenge-answer()), challenge(server, subject, ct, nonce, fresh key)).
func (c *Challenge) answer(ss *[xwing.SecretSize]byte) ([32]byte, error) {
	if len(c.Server) < 1 || len(c.Server) > 255 || len(c.Ciphertext) != xwing.CiphertextSize {
		return [32]byte{}, fmt.Errorf("answering a challenge: %w", policies.ErrMalformed)
	}
	key := secret.Derive(ss[:], nil, policies.Encode("challenge-answer"), 32)
	defer clear(key)
	mac := hmac.New(sha256.New, key)
	mac.Write(policies.Encode("challenge", []byte(c.Server), c.Subject[:], c.Ciphertext, c.Nonce[:], c.FreshKey[:]))
	return [32]byte(mac.Sum(nil)), nil
}

// LoginKey answers login challenges, and cannot do anything else: whatever ciphertext a hostile server sends, only a MAC over the
// challenge leaves the device, never a decapsulated secret.
type LoginKey struct {
	redacted
	seed [xwing.SeedSize]byte
}

// NewLoginKey makes the key of a seed, see [Root.LoginSeed]. It copies the seed.
func NewLoginKey(seed [32]byte) *LoginKey { return &LoginKey{seed: seed} }

// Public is the X-Wing public key for the identity document, 1,216 bytes.
func (k *LoginKey) Public() []byte { return xwing.Public(&k.seed) }

// Zero overwrites the key.
func (k *LoginKey) Zero() { clear(k.seed[:]) }

// Answer is the device's answer, 32 bytes.
func (k *LoginKey) Answer(c *Challenge) ([32]byte, error) {
	ss, err := xwing.Decapsulate(&k.seed, c.Ciphertext)
	if err != nil {
		return [32]byte{}, fmt.Errorf("answering a challenge: %w", policies.ErrMalformed)
	}
	defer clear(ss[:])
	return c.answer(ss)
}

// ChallengeSecret is what the server keeps until the answer comes, and then forgets: it serves one attempt.
type ChallengeSecret struct {
	redacted
	ss [xwing.SecretSize]byte
}

// NewChallenge encapsulates to a login key (1,216 bytes). Randomness: 64 bytes from source, or from crypto/rand if it is nil.
func NewChallenge(loginPublic []byte, source io.Reader) (ct []byte, s *ChallengeSecret, err error) {
	ct, ss, err := xwing.Encapsulate(loginPublic, source)
	if err != nil {
		return nil, nil, fmt.Errorf("encapsulating a challenge: %w", keyError(err))
	}
	defer clear(ss[:])
	return ct, &ChallengeSecret{ss: *ss}, nil
}

// Zero overwrites the secret.
func (s *ChallengeSecret) Zero() { clear(s.ss[:]) }

// Verify compares an answer in constant time; a wrong one is [ErrOpen], and so is any after Zero: anybody can compute the answer to zeroes.
func (s *ChallengeSecret) Verify(c *Challenge, answer []byte) error {
	if s.ss == [xwing.SecretSize]byte{} {
		return ErrOpen
	}
	want, err := c.answer(&s.ss)
	if err != nil {
		return err
	}
	if !hmac.Equal(want[:], answer) {
		return ErrOpen
	}
	return nil
}
