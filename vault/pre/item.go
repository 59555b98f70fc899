package pre

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/pre/internal/secret"
)

// dek is the data encryption key of one version of one field. It encrypts one value, once, and may be wrapped again when the field
// is rotated.
type dek [32]byte

// zeroNonce serves keys that encrypt one message in their life: DEKs and KEKs.
var zeroNonce [12]byte

// gcm is AES-256-GCM.
func gcm(key *[32]byte) cipher.AEAD {
	block, err := aes.NewCipher(key[:])
	if err != nil { // only for another key length
		panic("pre: " + err.Error())
	}
	aead, err := cipher.NewGCM(block)
	if err != nil { // only for another block size
		panic("pre: " + err.Error())
	}
	return aead
}

// commitment is C of the leaf.
func (k *dek) commitment() policies.Hash {
	return policies.Hash(secret.Derive(k[:], nil, policies.Encode("commit"), 32))
}

// itemContext is the associated data of the ciphertext. It has no epoch: rotation keeps the ciphertext.
func itemContext(l *policies.Leaf) []byte {
	return policies.Encode("item", l.Owner[:], []byte(l.Field), policies.U64(l.Version))
}

func (k *dek) seal(l *policies.Leaf, value []byte) ([]byte, error) {
	padded, err := pad(value)
	if err != nil {
		return nil, err
	}
	return gcm((*[32]byte)(k)).Seal(padded[:0], zeroNonce[:], padded, itemContext(l)), nil // #nosec G407 -- the key is used once, ever: design 3.2
}

// open checks the ciphertext against the leaf's hash first.
func (k *dek) open(l *policies.Leaf, ciphertext []byte) ([]byte, error) {
	if len(ciphertext) > CiphertextSize(policies.MaxValue) {
		return nil, ErrOpen
	}
	if sum := sha256.Sum256(ciphertext); sum != l.CiphertextHash {
		return nil, ErrOpen
	}
	padded, err := gcm((*[32]byte)(k)).Open(nil, zeroNonce[:], ciphertext, itemContext(l))
	if err != nil {
		return nil, ErrOpen
	}
	return unpad(padded)
}

// kek derives the key that wraps the DEK. Everything that makes a leaf what it is goes in, except the ciphertext, which the commitment
// and the leaf's hash bind.
func kek(z *[32]byte, l *policies.Leaf) [32]byte {
	info := policies.Encode("kek", l.Owner[:], []byte(l.Field), policies.U64(l.Epoch), l.Author[:], policies.U64(l.Version), l.Capsule.E())
	key := secret.Derive(z[:], l.Capsule[33:65], info, 32)
	defer clear(key)
	return [32]byte(key)
}

// wrap fills W of the leaf's capsule, whose E and s are in place.
func (k *dek) wrap(z *[32]byte, l *policies.Leaf) {
	key := kek(z, l)
	defer clear(key[:])
	gcm(&key).Seal(l.Capsule[65:65], zeroNonce[:], k[:], nil) // #nosec G407 -- the key is used once, ever: design 3.2
}

// unwrap opens W and checks the commitment, so that a DEK that comes out is the one the leaf was made with.
func unwrap(z *[32]byte, l *policies.Leaf) (*dek, error) {
	key := kek(z, l)
	defer clear(key[:])
	k := new(dek)
	if _, err := gcm(&key).Open(k[:0], zeroNonce[:], l.Capsule[65:], nil); err != nil {
		return nil, ErrOpen
	}
	if c := k.commitment(); subtle.ConstantTimeCompare(c[:], l.Commitment[:]) != 1 {
		clear(k[:])
		return nil, ErrOpen
	}
	return k, nil
}

// validate refuses slots that name nothing. It also bounds the field's name, which policies.Encode demands.
func validate(s *policies.Slot) error {
	if err := s.Field.Validate(); err != nil {
		return err
	}
	if s.Owner.IsZero() || s.Author.IsZero() || s.Epoch == 0 {
		return fmt.Errorf("%w: a slot needs owner and author, and epochs count from 1", policies.ErrMalformed)
	}
	return nil
}
