package pre

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"github.com/sallyport/sallyport/policies"
)

// Invitation makes the token of an invitation: a reader's reference of a person and when the invitation ends, Unix seconds, under keys that only the reader has. The same
// reference and end give the same token, so no list of tokens need be kept. Only the length of the reference shows.
//
//	token = nonce (12) || AES-256-GCM(cipher key, nonce, expires (u64) || reference, invitation(reader))
//	nonce = first 12 bytes of HMAC-SHA-256(mac key, invitation(reader, expires, reference))
//
// The nonce is a function of what is sealed, so two different plaintexts have one nonce with probability 2^-96.
func (r *Root) Invitation(reader policies.ReaderID, reference string, expires uint64) []byte {
	key := r.derive("invitation-cipher")
	defer clear(key[:])
	plain := append(binary.BigEndian.AppendUint64(nil, expires), reference...)
	nonce := r.invitationNonce(reader, plain)
	return gcm(&key).Seal(nonce, nonce, plain, policies.Encode("invitation", reader[:]))
}

// OpenInvitation reads a token that this reader made. Any other is [ErrOpen].
func (r *Root) OpenInvitation(reader policies.ReaderID, token []byte) (reference string, expires uint64, err error) {
	key := r.derive("invitation-cipher")
	defer clear(key[:])
	aead := gcm(&key)
	if len(token) < aead.NonceSize() {
		return "", 0, ErrOpen
	}
	plain, err := aead.Open(nil, token[:aead.NonceSize()], token[aead.NonceSize():], policies.Encode("invitation", reader[:]))
	if err != nil || len(plain) < 8 || !hmac.Equal(r.invitationNonce(reader, plain), token[:aead.NonceSize()]) {
		return "", 0, ErrOpen
	}
	return string(plain[8:]), binary.BigEndian.Uint64(plain), nil
}

func (r *Root) invitationNonce(reader policies.ReaderID, plain []byte) []byte {
	key := r.derive("invitation-mac")
	defer clear(key[:])
	mac := hmac.New(sha256.New, key[:])
	mac.Write(policies.Encode("invitation", reader[:], plain[:8], plain[8:]))
	return mac.Sum(nil)[:12]
}
