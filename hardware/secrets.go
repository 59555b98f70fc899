package hardware

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"

	"github.com/cloudflare/circl/kem/xwing"
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/redact"
)

// Secrets are a vault's own: drawn in the ceremony, kept sealed under the token's store key, in the clear only in the memory
// of the ceremony and of a running vault. They print as redacted. Zero them after use.
type Secrets struct {
	redact.Redacted

	DataKey        [32]byte // seals the values of the vault's database
	ImportHPKESeed [32]byte // X-Wing seed: opens re-encryption keys on their way to the token
	SessionKEMSeed [32]byte // X-Wing seed: opens sessions
	LogHostSeed    [32]byte // ML-DSA-44 seed: signs published checkpoints, beside the token
}

// secretsSize is the size of the secrets before they are sealed.
const secretsSize = 4 * 32

// Zero overwrites the secrets.
func (s *Secrets) Zero() { *s = Secrets{} }

func drawSecrets() *Secrets {
	var s Secrets
	for _, b := range []*[32]byte{&s.DataKey, &s.ImportHPKESeed, &s.SessionKEMSeed, &s.LogHostSeed} {
		rand.Read(b[:]) // never fails: see crypto/rand
	}
	return &s
}

// importPublic and sessionPublic are the X-Wing public keys of the seeds (draft-connolly-cfrg-xwing-kem: a private key is
// its seed of 32 bytes).
func (s *Secrets) importPublic() []byte  { return xwingPublic(&s.ImportHPKESeed) }
func (s *Secrets) sessionPublic() []byte { return xwingPublic(&s.SessionKEMSeed) }

// logHostPublic is the ML-DSA-44 public key of its seed (FIPS 204).
func (s *Secrets) logHostPublic() []byte {
	public, _ := mldsa44.NewKeyFromSeed(&s.LogHostSeed)
	return public.Bytes()
}

func xwingPublic(seed *[32]byte) []byte {
	_, public := xwing.DeriveKeyPairPacked(seed[:])
	return public
}

// A sealer is the token's store key.
type sealer interface {
	Seal(ctx context.Context, plain, aad []byte) ([]byte, error)
	Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error)
}

// secretsContext binds the sealed secrets to one vault.
func secretsContext(vault policies.VaultID) []byte { return policies.Encode("vault-secrets", vault[:]) }

func (s *Secrets) seal(ctx context.Context, token sealer, vault policies.VaultID) ([]byte, error) {
	plain := make([]byte, 0, secretsSize)
	defer func() { clear(plain[:cap(plain)]) }()
	plain = append(append(append(append(plain, s.DataKey[:]...), s.ImportHPKESeed[:]...), s.SessionKEMSeed[:]...), s.LogHostSeed[:]...)
	sealed, err := token.Seal(ctx, plain, secretsContext(vault))
	if err != nil {
		return nil, fmt.Errorf("sealing the vault's secrets: %w", err)
	}
	return sealed, nil
}

// openSecrets opens the sealed secrets and refuses those whose public keys are not the published ones.
func openSecrets(ctx context.Context, token sealer, doc *policies.VaultDocument, sealed []byte) (*Secrets, error) {
	plain, err := token.Unseal(ctx, sealed, secretsContext(doc.Vault))
	if err != nil {
		return nil, fmt.Errorf("opening the vault's secrets, %s: %w", secretsFile, err)
	}
	defer clear(plain)
	if len(plain) != secretsSize {
		return nil, fmt.Errorf("%w: the vault's secrets have %d bytes, want %d", ErrFolder, len(plain), secretsSize)
	}
	s := &Secrets{DataKey: [32]byte(plain), ImportHPKESeed: [32]byte(plain[32:]), SessionKEMSeed: [32]byte(plain[64:]), LogHostSeed: [32]byte(plain[96:])}
	if subtle.ConstantTimeCompare(s.importPublic(), doc.ImportHPKE) != 1 || subtle.ConstantTimeCompare(s.sessionPublic(), doc.SessionKEM) != 1 ||
		subtle.ConstantTimeCompare(s.logHostPublic(), doc.LogHostKey.PublicKey) != 1 {
		s.Zero()
		return nil, fmt.Errorf("%w: the sealed secrets are not those of the published keys", ErrFolder)
	}
	return s, nil
}
