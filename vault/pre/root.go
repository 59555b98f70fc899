package pre

import (
	"fmt"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/redact"
	"github.com/sallyport/sallyport/vault/pre/internal/secret"
)

type redacted = redact.Redacted

// Root is the one secret of an owner, reader or source, 32 bytes, from which their other keys follow. The recovery key does not: it must
// survive the loss of the root.
type Root struct {
	redacted
	key [32]byte
}

// NewRoot draws a root.
func NewRoot() (*Root, error) {
	r := new(Root)
	if err := secret.Draw(nil, r.key[:]); err != nil {
		return nil, err
	}
	return r, nil
}

// ParseRoot reads the 32 bytes of a backup. All zeroes are no root.
func ParseRoot(b []byte) (*Root, error) {
	r := new(Root)
	if len(b) != len(r.key) {
		return nil, fmt.Errorf("%w: a root has %d bytes, this has %d", ErrKey, len(r.key), len(b))
	}
	copy(r.key[:], b)
	if r.key == [32]byte{} {
		return nil, fmt.Errorf("%w: a root of zeroes", ErrKey)
	}
	return r, nil
}

// Bytes is the root itself, for a backup and nothing else. The caller overwrites it after use.
func (r *Root) Bytes() []byte { return append([]byte(nil), r.key[:]...) }

// Zero overwrites the root. Keys derived earlier stay as they are. Whoever uses a zeroed root derives keys of a root of
// zeroes, which [ParseRoot] refuses.
func (r *Root) Zero() { clear(r.key[:]) }

func (r *Root) derive(use string, fields ...[]byte) [32]byte {
	b := secret.Derive(r.key[:], nil, policies.Encode(use, fields...), 32)
	defer clear(b)
	return [32]byte(b)
}

// IdentitySeed is the seed of the composite signature key: ML-DSA-65 (32 bytes), then Ed25519 (32).
func (r *Root) IdentitySeed() [64]byte {
	var seed [64]byte
	mldsa, ed25519 := r.derive("identity-mldsa65"), r.derive("identity-ed25519")
	copy(seed[:32], mldsa[:])
	copy(seed[32:], ed25519[:])
	return seed
}

// KEMSeed is the X-Wing seed of the identity, for [NewBlobKey].
func (r *Root) KEMSeed() [32]byte { return r.derive("identity-kem") }

// LoginSeed is the X-Wing seed of the login challenge, for [NewLoginKey] and nothing else.
func (r *Root) LoginSeed() [32]byte { return r.derive("login-kem") }

// FieldKey derives a for a slot. The slot's owner must be the one this root belongs to; it is bound into everything that
// is made with the key, not into the key.
//
// a is never 0: should HKDF give 0 mod n, the info gets one more field, a counter from 1, until it does not. Nobody will
// ever see that happen.
func (r *Root) FieldKey(slot policies.Slot) (*FieldKey, error) {
	if err := validate(&slot); err != nil {
		return nil, fmt.Errorf("deriving a field key: %w", err)
	}
	fields := [][]byte{[]byte(slot.Field), policies.U64(slot.Epoch), slot.Author[:]}
	a := deriveScalar(r.key[:], policies.Encode("field", fields...))
	for i := uint64(1); a.isZero(); i++ {
		a = deriveScalar(r.key[:], policies.Encode("field", append(fields[:3:3], policies.U64(i))...))
	}
	return &FieldKey{slot: slot, a: a}, nil
}

// ReaderKey derives the X-Wing key pair that a reader uses with one owner, and with no other. The nonce is the relationship's, so that a
// connection made anew has a new key.
func (r *Root) ReaderKey(owner policies.OwnerID, nonce policies.Nonce) *ReaderKey {
	return &ReaderKey{seed: r.derive("reader", owner[:], nonce[:])}
}
