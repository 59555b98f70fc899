// Package xwing is the X-Wing KEM (draft-connolly-cfrg-xwing-kem, X25519 with ML-KEM-768) by CIRCL, with lengths checked
// where CIRCL would panic. It hands out raw shared secrets, which is why it is internal: the packages above it give out
// only what was derived from one for a named purpose.
package xwing

import (
	"errors"
	"io"

	"github.com/cloudflare/circl/kem/xwing"

	"github.com/sallyport/sallyport/vault/pre/internal/secret"
)

// Lengths in bytes.
const (
	SeedSize       = xwing.PrivateKeySize // 32: a private key is its seed
	PublicKeySize  = xwing.PublicKeySize  // 1,216
	CiphertextSize = xwing.CiphertextSize // 1,120
	SecretSize     = xwing.SharedKeySize  // 32
)

// ErrMalformed: a public key or ciphertext of the wrong length, or an ML-KEM key that is not in reduced form (FIPS 203
// section 7.2).
var ErrMalformed = errors.New("malformed X-Wing value")

// Public expands a seed to its public key.
func Public(seed *[SeedSize]byte) []byte {
	_, public := xwing.DeriveKeyPairPacked(seed[:])
	return public
}

// Encapsulate draws 64 bytes and makes a ciphertext and the secret inside it.
func Encapsulate(public []byte, source io.Reader) (ct []byte, ss *[SecretSize]byte, err error) {
	if len(public) != PublicKeySize {
		return nil, nil, ErrMalformed
	}
	var pk xwing.PublicKey
	if err := pk.Unpack(public); err != nil {
		return nil, nil, ErrMalformed
	}
	var coins [xwing.EncapsulationSeedSize]byte
	defer clear(coins[:])
	if err := secret.Draw(source, coins[:]); err != nil {
		return nil, nil, err
	}
	ct, ss = make([]byte, CiphertextSize), new([SecretSize]byte)
	pk.EncapsulateTo(ct, ss[:], coins[:])
	return ct, ss, nil
}

// Decapsulate opens a ciphertext. A ciphertext of the right length that was made for another key, or changed on the way,
// gives an unrelated secret and no error (implicit rejection).
func Decapsulate(seed *[SeedSize]byte, ct []byte) (*[SecretSize]byte, error) {
	if len(ct) != CiphertextSize {
		return nil, ErrMalformed
	}
	var sk xwing.PrivateKey
	sk.Unpack(seed[:])
	ss := new([SecretSize]byte)
	sk.DecapsulateTo(ss[:], ct)
	return ss, nil
}
