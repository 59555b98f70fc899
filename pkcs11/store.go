package pkcs11

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"math/big"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

func (t *Token) key(name KeyName) (cryptoki.Object, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	o, ok := t.named[name]
	if !ok {
		return 0, fmt.Errorf("%q: %w", string(name), ErrKeyMissing)
	}
	return o, nil
}

// Sign signs message with the log key: Ed25519 (RFC 8032, 64 bytes), or ECDSA
// over SHA-256 as ASN.1 where the profile says so. It has a session of its own
// and does not wait behind derives.
func (t *Token) Sign(ctx context.Context, message []byte) (signature []byte, err error) {
	err = t.do(ctx, t.signs, "signing", func(s cryptoki.Session) error {
		key, err := t.key(LogKey)
		if err != nil {
			return err
		}
		if t.profile.LogAlgorithm == LogEd25519 {
			signature, err = t.module.Sign(s, cryptoki.Plain(t.profile.EdSign), key, message)
			return err
		}
		digest := sha256.Sum256(message)
		raw, err := t.module.Sign(s, cryptoki.Plain(cryptoki.CKM_ECDSA), key, digest[:])
		if err != nil {
			return err
		}
		if len(raw) != 64 {
			return fmt.Errorf("the signature has %d bytes: %w", len(raw), ErrTokenBroken)
		}
		signature, err = asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])})
		return err
	})
	return signature, err
}

const nonceSize = 12

// Seal encrypts plain under the store key (AES-256-GCM; the nonce is random and
// comes first in the result) and binds it to aad. It is for the data keys of
// the vault's database, few and small, never for the data itself.
func (t *Token) Seal(ctx context.Context, plain, aad []byte) (sealed []byte, err error) {
	nonce := make([]byte, nonceSize)
	_, _ = rand.Read(nonce) // never fails (crypto/rand)
	err = t.do(ctx, t.slow, "sealing", func(s cryptoki.Session) error {
		key, err := t.key(StoreKey)
		if err != nil {
			return err
		}
		ct, err := t.module.Encrypt(s, cryptoki.GCM(nonce, aad), key, plain)
		sealed = append(nonce, ct...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return sealed, nil
}

// Unseal opens what Seal made. Anything else is ErrBadInput.
func (t *Token) Unseal(ctx context.Context, sealed, aad []byte) (plain []byte, err error) {
	err = t.do(ctx, t.slow, "unsealing", func(s cryptoki.Session) error {
		if len(sealed) <= nonceSize+16 {
			return ErrBadInput
		}
		key, err := t.key(StoreKey)
		if err != nil {
			return err
		}
		plain, err = t.module.Decrypt(s, cryptoki.GCM(sealed[:nonceSize], aad), key, sealed[nonceSize:])
		return err
	})
	return plain, err
}

// maxState bounds the signer's state: a size, a root, a time.
const maxState = 4096

// SaveState keeps state in the token, beyond the reach of a restored disk.
//
// A new object with a higher version is made and synced. The old ones stay: this
// process knows only what it asked for, not what a full disk took of it, and
// SoftHSM says OK either way. Another process settles it (settleState). After a
// crash in between there are two, and LoadState takes the newer; a crash while
// the new one is written leaves one that fails its checksum, beside the old one.
// So LoadState answers the old state or the new.
func (t *Token) SaveState(ctx context.Context, state []byte) error {
	return t.do(ctx, t.slow, "saving signer state", func(s cryptoki.Session) error {
		if len(state) > maxState {
			return ErrBadInput
		}
		if err := t.profile.room(stateReserve); err != nil {
			return err
		}
		_, _, version, err := t.states(s)
		if err != nil {
			return err
		}
		if _, err := t.module.CreateObject(s, append(stateTemplate(),
			cryptoki.Bool(cryptoki.CKA_PRIVATE, true),
			cryptoki.Bool(cryptoki.CKA_MODIFIABLE, false),
			cryptoki.Bytes(cryptoki.CKA_VALUE, packState(version+1, state)))); err != nil {
			return err
		}
		return t.sync()
	})
}

// settleState ends a SaveState of another process: if the newest state here is
// the one that was saved, it came from the token's files, and the others may
// go. Else they stay, and the answer is ErrStateDamaged. Of the same version
// there is another if a try before was not seen by the process that made this one.
func (t *Token) settleState(ctx context.Context, saved []byte) error {
	return t.do(ctx, t.slow, "settling signer state", func(s cryptoki.Session) error {
		objects, _, version, err := t.states(s)
		if err != nil {
			return err
		}
		if version == 0 {
			return ErrStateDamaged
		}
		keep := packState(version, saved)
		var kept bool
		var others []cryptoki.Object
		for _, o := range objects {
			a, err := t.module.Read(s, o, cryptoki.CKA_VALUE)
			switch {
			case err == cryptoki.CKR_OBJECT_HANDLE_INVALID:
			case err != nil:
				return err
			case !kept && bytes.Equal(a.Value, keep):
				kept = true
			default:
				others = append(others, o)
			}
		}
		if !kept {
			return ErrStateDamaged
		}
		for _, o := range others {
			if err := t.module.DestroyObject(s, o); err != nil && err != cryptoki.CKR_OBJECT_HANDLE_INVALID {
				return err
			}
		}
		// Not synced: an old object that comes back has a lower version.
		return nil
	})
}

// LoadState returns what the last SaveState kept, or ErrStateMissing if nothing
// was ever kept. ErrStateDamaged is for people to look at: the host, or a crash
// in the very first SaveState, left what cannot be read.
func (t *Token) LoadState(ctx context.Context) (state []byte, err error) {
	err = t.do(ctx, t.slow, "loading signer state", func(s cryptoki.Session) error {
		objects, newest, version, err := t.states(s)
		switch {
		case err != nil:
			return err
		case len(objects) == 0:
			return ErrStateMissing
		case version == 0:
			return ErrStateDamaged
		}
		state = newest
		return nil
	})
	return state, err
}

func stateTemplate() []cryptoki.Attribute {
	return []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_DATA), cryptoki.Bool(cryptoki.CKA_TOKEN, true),
		cryptoki.Bytes(cryptoki.CKA_APPLICATION, []byte("sallyport")), cryptoki.Bytes(cryptoki.CKA_LABEL, []byte(stateLabel))}
}

// states returns all state objects, and the newest intact state and its
// version, which is zero if there is none.
func (t *Token) states(s cryptoki.Session) (objects []cryptoki.Object, newest []byte, version uint64, err error) {
	objects, err = t.module.Find(s, stateTemplate())
	if err != nil {
		return nil, nil, 0, err
	}
	for _, o := range objects {
		a, err := t.module.Read(s, o, cryptoki.CKA_VALUE)
		if err == cryptoki.CKR_OBJECT_HANDLE_INVALID {
			continue
		}
		if err != nil {
			return nil, nil, 0, err
		}
		if v, state, ok := unpackState(a.Value); ok && v > version {
			newest, version = state, v
		}
	}
	return objects, newest, version, nil
}

// packState lays a state out as version (u64, big-endian), state, SHA-256 of both.
func packState(version uint64, state []byte) []byte {
	b := append(binary.BigEndian.AppendUint64(nil, version), state...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func unpackState(b []byte) (version uint64, state []byte, ok bool) {
	if len(b) < 8+sha256.Size || len(b) > 8+sha256.Size+maxState {
		return 0, nil, false
	}
	body := b[:len(b)-sha256.Size]
	if sha256.Sum256(body) != [sha256.Size]byte(b[len(body):]) {
		return 0, nil, false
	}
	return binary.BigEndian.Uint64(body), body[8:], true
}
