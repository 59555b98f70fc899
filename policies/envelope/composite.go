package envelope

import (
	"crypto/ed25519"
	"crypto/sha512"
	"fmt"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"github.com/sallyport/sallyport/policies/redact"
)

// Sizes of id-MLDSA65-Ed25519-SHA512 in bytes: the ML-DSA part followed by the Ed25519 part.
const (
	SeedSize      = mldsa65.SeedSize + ed25519.SeedSize           // 64
	PublicKeySize = mldsa65.PublicKeySize + ed25519.PublicKeySize // 1,984
	SignatureSize = mldsa65.SignatureSize + ed25519.SignatureSize // 3,373
)

// Prefix and label of draft-ietf-lamps-pq-composite-sigs. The label is also the context of the ML-DSA component, so that
// a component signature cannot be passed off as a signature of its own.
const (
	compositePrefix = "CompositeAlgorithmSignatures2025"
	compositeLabel  = "COMPSIG-MLDSA65-Ed25519-SHA512"
)

// PrivateKey signs with id-MLDSA65-Ed25519-SHA512. It prints as redacted.
type PrivateKey struct {
	redact.Redacted

	mldsa   *mldsa65.PrivateKey
	ed25519 ed25519.PrivateKey
	public  *PublicKey
}

// PublicKey verifies id-MLDSA65-Ed25519-SHA512. Both components must verify.
type PublicKey struct {
	mldsa   mldsa65.PublicKey
	ed25519 ed25519.PublicKey
	bytes   [PublicKeySize]byte
}

// NewPrivateKey expands a seed of 64 bytes: the ML-DSA-65 seed (xi of FIPS 204), then the Ed25519 seed (RFC 8032). This
// is also the draft's serialisation of the private key.
func NewPrivateKey(seed *[SeedSize]byte) *PrivateKey {
	var mldsaSeed [mldsa65.SeedSize]byte
	copy(mldsaSeed[:], seed[:])
	defer clear(mldsaSeed[:])
	public, private := mldsa65.NewKeyFromSeed(&mldsaSeed)
	k := &PrivateKey{mldsa: private, ed25519: ed25519.NewKeyFromSeed(seed[mldsa65.SeedSize:])}
	k.public = &PublicKey{mldsa: *public, ed25519: k.ed25519.Public().(ed25519.PublicKey)}
	copy(k.public.bytes[:], public.Bytes())
	copy(k.public.bytes[mldsa65.PublicKeySize:], k.public.ed25519)
	return k
}

// Public is the key that verifies.
func (k *PrivateKey) Public() *PublicKey { return k.public }

// Zero overwrites the Ed25519 part and drops the ML-DSA part, whose memory CIRCL does not let us overwrite.
func (k *PrivateKey) Zero() {
	clear(k.ed25519)
	k.mldsa = nil
}

// ParsePublicKey reads the draft's serialisation, 1,984 bytes.
func ParsePublicKey(data []byte) (*PublicKey, error) {
	if len(data) != PublicKeySize {
		return nil, fmt.Errorf("%w: a composite public key has %d bytes, this has %d", ErrMalformed, PublicKeySize, len(data))
	}
	k := &PublicKey{ed25519: ed25519.PublicKey(append([]byte(nil), data[mldsa65.PublicKeySize:]...))}
	if err := k.mldsa.UnmarshalBinary(data[:mldsa65.PublicKeySize]); err != nil {
		return nil, fmt.Errorf("%w: ML-DSA-65 public key: %w", ErrMalformed, err)
	}
	copy(k.bytes[:], data)
	return k, nil
}

// Bytes is the draft's serialisation: the ML-DSA-65 key (1,952 bytes), then the Ed25519 key (32).
func (k *PublicKey) Bytes() []byte { return append([]byte(nil), k.bytes[:]...) }

// representative is M' of the draft: Prefix || Label || len(ctx) || ctx || SHA-512(message).
func representative(context string, message []byte) ([]byte, error) {
	if len(context) > 255 {
		return nil, fmt.Errorf("%w: a signature context has at most 255 bytes", ErrMalformed)
	}
	digest := sha512.Sum512(message)
	m := make([]byte, 0, len(compositePrefix)+len(compositeLabel)+1+len(context)+len(digest))
	m = append(m, compositePrefix...)
	m = append(m, compositeLabel...)
	m = append(m, byte(len(context)))
	m = append(m, context...)
	return append(m, digest[:]...), nil
}

// sign makes a signature of 3,373 bytes. The ML-DSA part is hedged, as FIPS 204 section 3.4 prefers.
func (k *PrivateKey) sign(context string, message []byte) ([]byte, error) {
	if k.mldsa == nil {
		return nil, fmt.Errorf("%w: the private key was zeroed", ErrKey)
	}
	m, err := representative(context, message)
	if err != nil {
		return nil, err
	}
	sig := make([]byte, mldsa65.SignatureSize, SignatureSize)
	if err := mldsa65.SignTo(k.mldsa, m, []byte(compositeLabel), true, sig); err != nil {
		return nil, fmt.Errorf("%w: ML-DSA-65: %w", ErrKey, err)
	}
	return append(sig, ed25519.Sign(k.ed25519, m)...), nil
}

// verify checks both parts.
func (k *PublicKey) verify(context string, message, sig []byte) error {
	if len(sig) != SignatureSize {
		return fmt.Errorf("%w: a composite signature has %d bytes, this has %d", ErrSignature, SignatureSize, len(sig))
	}
	m, err := representative(context, message)
	if err != nil {
		return err
	}
	pq := k.verifyMLDSA([]byte(compositeLabel), m, sig[:mldsa65.SignatureSize])
	classical := SessionPublicKey(k.ed25519).Verify(m, sig[mldsa65.SignatureSize:])
	if pq != nil || classical != nil {
		return ErrSignature
	}
	return nil
}

// verifyMLDSA checks an ML-DSA-65 signature alone (FIPS 204, algorithm 3). No document rests on it without the other part.
func (k *PublicKey) verifyMLDSA(context, message, sig []byte) error {
	if !mldsa65.Verify(&k.mldsa, message, context, sig) {
		return ErrSignature
	}
	return nil
}
