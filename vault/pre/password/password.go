// Package password turns a password into keys with the help of a server that never learns the password, and without which nobody can try
// one. It is pure mathematics and bytes, like package pre.
//
// # The idea
//
// The server has a secret scalar k for each account, inside a token. The device hashes the password to a point P of P-256, blinds it with a
// random scalar r, and sends x(rP). The token answers x(k rP): the same ECDH derivation that re-encryption is. The device lifts it to a
// point, multiplies by 1/r, and has x(kP), which is as good as random to everybody who cannot ask the token. Lifting loses the sign, which
// does not matter: of P and -P only x is used. From x(kP) and the password, by Argon2id, come two keys: one opens what the server keeps
// for the account, the other proves to the server that the password was right.
//
// So a copy of everything the server stores is worth nothing without its token, each guess costs a question that the server counts, and the
// server sees a random x-coordinate each time.
//
// # What it is, said plainly
//
// An oblivious pseudorandom function in the manner of 2HashDH, on x-coordinates alone. It is not verifiable: a server that uses another k
// makes the device fail, and is noticed only by that. A server that answers with a k of its own choice learns nothing of the
// password either, as it sees only x(rP); but one that also serves a record of its own making could test the proof that comes back
// against guesses, at the price of Argon2id for each; the device therefore sends the proof only to the server that it was given, over TLS.
// It is classical: with a quantum computer, whoever has recorded k's use or its public key, and the record, can try
// passwords offline. What keeps them out until then is that both travel in post-quantum TLS only.
//
// # Encodings
//
// use(x, y) is policies.Encode. The account is the identity's id, HKDF is HKDF-SHA-256 with an empty salt.
//
//	P                = hash_to_curve of password-point(account, password), suite P256_XMD:SHA-256_SSWU_RO_ (RFC 9380),
//	                   domain "sallyport/v1/password-point"
//	r            48  = random, modulo n
//	blinded      32  = x(rP)
//	answer       32  = x(k lift(blinded)), lift = the point with even y
//	output       32  = x(lift(answer) / r) = x(kP)
//	soft         32  = HKDF(output, password-output(account, password))
//	hard         32  = Argon2id(soft, salt of 16 bytes, 3 passes, 64 MiB, 4 lanes)
//	wrapping key 32  = HKDF(hard, password-key(account))
//	proof        32  = HKDF(hard, password-proof(account))
//	verifier     32  = SHA-256(password-verifier(account, proof))
//	wrapped          = nonce (12, random) || AES-256-GCM(wrapping key, nonce, secret, password-wrapped(account))
//
//	profile          = nonce (12, random) || AES-256-GCM(profile key, nonce, profile, account-profile(account)); the profile key is what is wrapped
//
// A recovery kit has the same two keys from 20 random bytes: HKDF(kit, kit-key(account)) and HKDF(kit, kit-proof(account)).
//
// # What it promises about secrets
//
// Password, P, r and output meet only filippo.io/bigmod, filippo.io/nistec and crypto/subtle, in constant time. Argon2id is in
// golang.org/x/crypto. Types that hold a secret print as "(redacted)".
package password

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/argon2"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/redact"
	"github.com/sallyport/sallyport/vault/pre/internal/secret"
)

// Sizes in bytes.
const (
	SaltSize = 16
	// MaxSize is that of the longest password.
	MaxSize = 1024
	// Overhead is what wrapping adds.
	Overhead = 12 + 16
)

// Argon2id: the second choice of RFC 9106 section 4. They are part of the suite, so that no server can ask for less.
const (
	passes = 3
	memory = 64 << 10 // KiB
	lanes  = 4
)

var (
	// ErrPoint: not the x-coordinate of a point of P-256.
	ErrPoint = errors.New("not the x-coordinate of a point of P-256")
	// ErrOpen: the password, or the kit, is not the one.
	ErrOpen = errors.New("does not open")
	// ErrSize: an empty password, or one of more than 1,024 bytes.
	ErrSize = errors.New("a password has 1 to 1024 bytes")
)

const domain = "sallyport/v1/password-point"

// Attempt is one question to the server about one password. It answers for one blinding: make a new one for each question.
type Attempt struct {
	redact.Redacted
	account  policies.OwnerID
	password []byte
	r        number
	blinded  [32]byte
}

// NewAttempt blinds a password. It copies it. Randomness: 48 bytes from source, or from crypto/rand if it is nil.
func NewAttempt(account policies.OwnerID, password []byte, source io.Reader) (*Attempt, error) {
	if len(password) == 0 || len(password) > MaxSize {
		return nil, ErrSize
	}
	a := &Attempt{account: account, password: append([]byte(nil), password...)}
	var err error
	if a.r, err = draw(source); err != nil {
		return nil, err
	}
	message := policies.Encode("password-point", account[:], password)
	defer clear(message)
	a.blinded, err = times(a.r, hash(message, []byte(domain)))
	return a, err
}

// Blinded is what the server is asked with.
func (a *Attempt) Blinded() [32]byte { return a.blinded }

// Zero overwrites password and blinding.
func (a *Attempt) Zero() {
	clear(a.password)
	a.r = number{}
}

// Keys takes the server's answer and the account's salt. It uses 64 MiB of memory for about a tenth of a second. An answer that is no point
// is ErrPoint; one of another key gives keys that open nothing.
func (a *Attempt) Keys(answer [32]byte, salt [SaltSize]byte) (*Keys, error) {
	p, err := lift(&answer)
	if err != nil {
		return nil, err
	}
	inverse := scalars.invert(a.r)
	defer clear(inverse[:])
	output, err := times(inverse, p)
	if err != nil {
		return nil, err
	}
	defer clear(output[:])
	info := policies.Encode("password-output", a.account[:], a.password)
	defer clear(info)
	soft := secret.Derive(output[:], nil, info, 32)
	defer clear(soft)
	hard := argon2.IDKey(soft, salt[:], passes, memory, lanes, 32)
	defer clear(hard)
	return derive(a.account, hard, "password-key", "password-proof"), nil
}

// Keys are what a right password, or a kit, gives.
type Keys struct {
	redact.Redacted
	account policies.OwnerID
	key     [32]byte
	proof   [32]byte
}

func derive(account policies.OwnerID, ikm []byte, key, proof string) *Keys {
	k := &Keys{account: account}
	for _, d := range []struct {
		to  []byte
		use string
	}{{k.key[:], key}, {k.proof[:], proof}} {
		b := secret.Derive(ikm, nil, policies.Encode(d.use, account[:]), 32)
		copy(d.to, b)
		clear(b)
	}
	return k
}

// Proof shows the server that the password is right. It opens nothing.
func (k *Keys) Proof() [32]byte { return k.proof }

// Zero overwrites the keys.
func (k *Keys) Zero() { clear(k.key[:]); clear(k.proof[:]) }

// Verifier is what the server keeps of a proof: proofs are random, so a hash is enough.
func Verifier(account policies.OwnerID, proof [32]byte) policies.Hash {
	return sha256.Sum256(policies.Encode("password-verifier", account[:], proof[:]))
}

// Wrap encrypts a short secret. Its randomness is a nonce of 12 bytes from source, or from crypto/rand if it is nil.
func (k *Keys) Wrap(plain []byte, source io.Reader) ([]byte, error) {
	nonce := make([]byte, 12, Overhead+len(plain))
	if err := secret.Draw(source, nonce); err != nil {
		return nil, err
	}
	return k.aead().Seal(nonce, nonce, plain, policies.Encode("password-wrapped", k.account[:])), nil // #nosec G407 -- drawn at random above
}

// Unwrap opens what Wrap made with the same keys.
func (k *Keys) Unwrap(wrapped []byte) ([]byte, error) {
	if len(wrapped) < Overhead {
		return nil, ErrOpen
	}
	plain, err := k.aead().Open(nil, wrapped[:12], wrapped[12:], policies.Encode("password-wrapped", k.account[:]))
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

func (k *Keys) aead() cipher.AEAD { return gcm(&k.key) }

func gcm(key *[32]byte) cipher.AEAD {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("password: " + err.Error()) // 32 bytes are a key
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("password: " + err.Error())
	}
	return aead
}

// SealProfile encrypts a profile of an account under a key that is used for that account's profiles and nothing else. The nonce is random, from source or from
// crypto/rand if it is nil; a person does not change a profile so often that two would meet.
func SealProfile(key *[32]byte, account policies.OwnerID, plain []byte, source io.Reader) ([]byte, error) {
	nonce := make([]byte, 12, Overhead+len(plain))
	if err := secret.Draw(source, nonce); err != nil {
		return nil, err
	}
	return gcm(key).Seal(nonce, nonce, plain, policies.Encode("account-profile", account[:])), nil // #nosec G407 -- drawn at random above
}

// OpenProfile opens what SealProfile made.
func OpenProfile(key *[32]byte, account policies.OwnerID, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, ErrOpen
	}
	plain, err := gcm(key).Open(nil, sealed[:12], sealed[12:], policies.Encode("account-profile", account[:]))
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

// Point is a blinded password as a token takes it: 04 || x || y, y even.
func Point(blinded [32]byte) ([65]byte, error) {
	p, err := lift(&blinded)
	if err != nil {
		return [65]byte{}, err
	}
	return [65]byte(p.Bytes()), nil
}

// Imitate is what a server answers for an account that it does not have: x(k lift(blinded)) with a k of its own for each account, made of
// a seed that a token gave for Probe(account). To who asks it is as good as the answer for an account that there is.
func Imitate(seed [32]byte, account policies.OwnerID, blinded [32]byte) (answer [32]byte, salt [SaltSize]byte, err error) {
	wide := secret.Derive(seed[:], nil, policies.Encode("password-imitation", account[:]), 48)
	defer clear(wide)
	p, err := lift(&blinded)
	if err != nil {
		return answer, salt, err
	}
	if answer, err = times(scalars.reduce(wide), p); err != nil {
		return answer, salt, fmt.Errorf("imitating an account: %w", err)
	}
	copy(salt[:], secret.Derive(seed[:], nil, policies.Encode("password-imitated-salt", account[:]), SaltSize))
	return answer, salt, nil
}

// Probe is the point with which the server asks its token for the seed of Imitate.
func Probe(account policies.OwnerID) [65]byte {
	return [65]byte(hash(account[:], []byte("sallyport/v1/password-imitation")).Bytes())
}
