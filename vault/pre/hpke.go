package pre

import (
	"crypto/hpke"
	"fmt"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/pre/internal/xwing"
)

// blobOverhead is what a blob is longer than its plaintext: the encapsulated key and the tag.
const blobOverhead = xwing.CiphertextSize + tagSize

// BlobKey opens blobs: HPKE of RFC 9180 in base mode with X-Wing (KEM 0x647a), HKDF-SHA-256 and AES-256-GCM. An identity has one for sealed
// messages, a vault one for imports.
type BlobKey struct {
	redacted
	seed [xwing.SeedSize]byte
}

// NewBlobKey makes the key of a seed. It copies the seed.
func NewBlobKey(seed [32]byte) *BlobKey { return &BlobKey{seed: seed} }

// Public is the X-Wing public key, 1,216 bytes.
func (k *BlobKey) Public() []byte { return xwing.Public(&k.seed) }

// Zero overwrites the key.
func (k *BlobKey) Zero() { clear(k.seed[:]) }

// SealBlob encrypts to a [BlobKey]. info must name everything the blob is bound to: see [ImportInfo] and [MessageInfo].
// The result is 1,136 bytes longer than the plaintext. It says nothing about who made it.
func SealBlob(public, info, plaintext []byte) ([]byte, error) {
	key, err := hpke.MLKEM768X25519().NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("sealing a blob: %w", ErrKey)
	}
	blob, err := hpke.Seal(key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, plaintext)
	if err != nil {
		return nil, fmt.Errorf("sealing a blob: %w", ErrKey)
	}
	return blob, nil
}

// Open decrypts a blob made with the same info.
func (k *BlobKey) Open(info, blob []byte) ([]byte, error) {
	if len(blob) < blobOverhead {
		return nil, ErrOpen
	}
	key, err := hpke.MLKEM768X25519().NewPrivateKey(k.seed[:])
	if err != nil {
		return nil, ErrOpen
	}
	plaintext, err := hpke.Open(key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, blob)
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}

// ImportInfo binds a wrapped re-encryption key on its way to a vault: import(vault, grant hash, field, epoch, author). The name of the field
// must be a valid one.
func ImportInfo(vault policies.VaultID, grant policies.Hash, field policies.Field, epoch uint64, author policies.AuthorID) ([]byte, error) {
	if err := field.Validate(); err != nil {
		return nil, err
	}
	return policies.Encode("import", vault[:], grant[:], []byte(field), policies.U64(epoch), author[:]), nil
}

// MessageInfo binds a sealed message between two parties: message(document type, from, to). A document type has 1 to 64
// bytes.
func MessageInfo(docType string, from, to policies.IdentityID) ([]byte, error) {
	if len(docType) < 1 || len(docType) > 64 {
		return nil, fmt.Errorf("%w: a document type has 1 to 64 bytes", policies.ErrMalformed)
	}
	return policies.Encode("message", []byte(docType), from[:], to[:]), nil
}
