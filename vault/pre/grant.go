package pre

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/pre/internal/xwing"
)

// ReaderKey is a reader's X-Wing key pair for one owner: it opens that owner's grants. See [Root.ReaderKey].
type ReaderKey struct {
	redacted
	seed [xwing.SeedSize]byte
}

// Public is the key for the relationship document, 1,216 bytes.
func (k *ReaderKey) Public() []byte { return xwing.Public(&k.seed) }

// Zero overwrites the key.
func (k *ReaderKey) Zero() { clear(k.seed[:]) }

// OpenGrant recovers the secret of a grant from its ciphertext, 1,120 bytes. A ciphertext for another key gives a secret that opens
// nothing; only a wrong length is noticed here.
func (k *ReaderKey) OpenGrant(ct []byte) (*GrantSecret, error) {
	ss, err := xwing.Decapsulate(&k.seed, ct)
	if err != nil {
		return nil, fmt.Errorf("opening a grant: %w", ErrOpen)
	}
	defer clear(ss[:])
	return &GrantSecret{ss: *ss}, nil
}

// GrantSecret is what owner and reader share for one grant: the source of the scalars d, one per field of the grant. The
// owner forgets it when the re-encryption keys are wrapped; the reader can open the grant's ciphertext again at any time.
type GrantSecret struct {
	redacted
	ss [xwing.SecretSize]byte
}

// NewGrantSecret encapsulates a fresh secret to a reader's key for this owner (1,216 bytes). ct, 1,120 bytes, goes into the grant. Use it for
// one grant. Randomness: 64 bytes from source, or from crypto/rand if it is nil.
func NewGrantSecret(readerPublic []byte, source io.Reader) (ct []byte, s *GrantSecret, err error) {
	ct, ss, err := xwing.Encapsulate(readerPublic, source)
	if err != nil {
		return nil, nil, fmt.Errorf("encapsulating to a reader: %w", keyError(err))
	}
	defer clear(ss[:])
	return ct, &GrantSecret{ss: *ss}, nil
}

// Zero overwrites the secret.
func (s *GrantSecret) Zero() { clear(s.ss[:]) }

// scalar is d for one field of the grant.
func (s *GrantSecret) scalar(grant policies.DocumentID, reader policies.ReaderID, slot *policies.Slot) (scalar, error) {
	if s.ss == [xwing.SecretSize]byte{} {
		return scalar{}, ErrKey
	}
	d := deriveScalar(s.ss[:], policies.Encode("grant", grant[:], slot.Owner[:], reader[:], []byte(slot.Field), policies.U64(slot.Epoch), slot.Author[:]))
	if d.isZero() {
		return scalar{}, ErrKey
	}
	return d, nil
}

// ReEncryptionKey is rk = a * d^-1 mod n, for the token. If d is zero ([ErrKey], probability 2^-256) the owner draws the grant's secret anew.
func (s *GrantSecret) ReEncryptionKey(grant policies.DocumentID, reader policies.ReaderID, a *FieldKey) (*ReEncryptionKey, error) {
	fail := func(err error) (*ReEncryptionKey, error) {
		return nil, fmt.Errorf("making a re-encryption key: %w", err)
	}
	d, err := s.scalar(grant, reader, &a.slot)
	if err != nil {
		return fail(err)
	}
	defer clear(d[:])
	if a.a.isZero() {
		return fail(ErrKey)
	}
	rk, err := a.a.over(&d)
	if err != nil {
		return fail(err)
	}
	return &ReEncryptionKey{rk: rk}, nil
}

// Open is the reader's opening of an item with x = x(rk E), the token's answer for it. What is not exactly as the owner sealed
// and granted it is [ErrOpen].
func (s *GrantSecret) Open(grant policies.DocumentID, reader policies.ReaderID, leaf *policies.Leaf, x [32]byte, ciphertext []byte) ([]byte, error) {
	defer clear(x[:])
	if validate(&leaf.Slot) != nil || leaf.Version == 0 {
		return nil, ErrOpen
	}
	point, err := lift(&x)
	if err != nil {
		return nil, ErrOpen
	}
	d, err := s.scalar(grant, reader, &leaf.Slot)
	if err != nil {
		return nil, ErrOpen
	}
	defer clear(d[:])
	z, err := d.x(point)
	if err != nil {
		return nil, ErrOpen
	}
	defer clear(z[:])
	k, err := unwrap(&z, leaf)
	if err != nil {
		return nil, err
	}
	defer clear(k[:])
	return k.open(leaf, ciphertext)
}

// ReEncryptionKey is rk, the scalar that turns capsules of one slot toward one reader. In the clear it exists on the owner's device, for as
// long as it takes to wrap it, and inside the token.
type ReEncryptionKey struct {
	redacted
	rk scalar
}

// The 67-byte PKCS#8 form (RFC 5208) is these 35 bytes and the scalar: PrivateKeyInfo{0, {id-ecPublicKey, prime256v1},
// OCTET STRING{ECPrivateKey (RFC 5915){1, OCTET STRING(32)}}}, neither parameters nor public key repeated inside. It fits
// straight under RSA-3072 OAEP, and the public key rk G stays unknown.
var pkcs8Prefix = mustHex("3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420")

// ParseReEncryptionKey accepts exactly the form that [ReEncryptionKey.PKCS8] makes, with a scalar in 1..n-1.
func ParseReEncryptionKey(pkcs8 []byte) (*ReEncryptionKey, error) {
	digits, ok := bytes.CutPrefix(pkcs8, pkcs8Prefix)
	if !ok {
		return nil, fmt.Errorf("reading a re-encryption key: %w", ErrKey)
	}
	rk, err := parseScalar(digits)
	if err != nil {
		return nil, fmt.Errorf("reading a re-encryption key: %w", err)
	}
	return &ReEncryptionKey{rk: rk}, nil
}

// PKCS8 is the form to be wrapped under the token's import key, 67 bytes. The caller overwrites it after use.
func (k *ReEncryptionKey) PKCS8() []byte { return append(bytes.Clone(pkcs8Prefix), k.rk[:]...) }

// Zero overwrites the key.
func (k *ReEncryptionKey) Zero() { clear(k.rk[:]) }

// Reencrypt is x(rk E): in software what the token does by C_DeriveKey with CKM_ECDH1_DERIVE and CKD_NULL. It is for known answers, test
// vectors and probes; a vault asks its token.
func Reencrypt(k *ReEncryptionKey, c *policies.Capsule) ([32]byte, error) {
	e, err := compressed(c.E())
	if err != nil {
		return [32]byte{}, err
	}
	return k.rk.x(e)
}

// keyError tells a public key that is no key from a source of randomness that ran dry.
func keyError(err error) error {
	if errors.Is(err, xwing.ErrMalformed) {
		return fmt.Errorf("%w: not an X-Wing public key of %d bytes", ErrKey, xwing.PublicKeySize)
	}
	return err
}
