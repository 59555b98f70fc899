// Package pairing is how two devices of one person, a new one that has nothing and one that works, find out over a storefront that they talk to each other and to nobody in
// between. It is bytes and hashes alone; the SDK carries them, and package pre seals what is handed over.
//
// # The meeting
//
//  1. The new device draws a [Code], a key and a nonce, and leaves their [Commitment] under the code. The person types the code into the first device: it says where the two meet and is no secret.
//  2. The first device leaves its person's id and a nonce of its own.
//  3. The new device leaves key and nonce ([Opening]), which must be what it committed to.
//  4. Both make the same [Transcript] of all of that. The new device shows its first word, the person types it into the first device, and only if it is the
//     same does that device seal the profile to the key. It then shows the second word, and only who types that into the new device has the profile used.
//
// Whoever is in between, the storefront say, runs two meetings, one with each device, and must have the words of both agree. The new device has committed to its part before it sees the
// other's, and the first device draws its nonce after it has the commitment; so nothing is left to try, and 40 bits agree by chance once in 10^12 meetings, each of which costs a
// person's attention.
package pairing

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/policies"
)

// NonceSize is that of each device's nonce in bytes.
const NonceSize = 32

// letters are those of Crockford's base 32: without I, L, O and U, which are read as 1, 1, 0 and V.
var letters = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

var readAs = strings.NewReplacer("-", "", " ", "", "\t", "", "\r", "", "\n", "", "O", "0", "I", "1", "L", "1", "U", "V")

// word is 40 bits as eight letters and digits in two groups.
func word(b []byte) string {
	text := letters.EncodeToString(b)
	return text[:4] + "-" + text[4:]
}

// Code says where two devices meet.
type Code [5]byte

// NewCode draws a code.
func NewCode() (c Code) {
	rand.Read(c[:]) // never fails (crypto/rand)
	return c
}

// ParseCode reads what a person typed: small or large letters, with or without hyphen and spaces.
func ParseCode(text string) (c Code, err error) {
	clean := readAs.Replace(strings.ToUpper(text))
	b, err := letters.DecodeString(clean)
	if err != nil || len(b) != len(c) || len(clean) != letters.EncodedLen(len(c)) {
		return c, fmt.Errorf("%w: the code of a new device has eight letters and digits", policies.ErrMalformed)
	}
	return Code(b), nil
}

// String is the code as it is shown.
func (c Code) String() string { return word(c[:]) }

// Opening is what a new device commits to.
type Opening struct {
	Key   []byte `json:"key"`   // X-Wing public key, policies.KEMPublicKeySize bytes
	Nonce []byte `json:"nonce"` // NonceSize bytes
}

// Validate checks the form.
func (o *Opening) Validate() error {
	if len(o.Key) != policies.KEMPublicKeySize || len(o.Nonce) != NonceSize {
		return fmt.Errorf("%w: pairing: a key of %d and a nonce of %d bytes are needed", policies.ErrMalformed, policies.KEMPublicKeySize, NonceSize)
	}
	return nil
}

// Commitment binds a new device to its opening before it sees the other's part.
func (o *Opening) Commitment(c Code) policies.Hash {
	return sha256.Sum256(policies.Encode("device-commitment", c[:], o.Key, o.Nonce))
}

// Answer is the first device's part.
type Answer struct {
	Owner policies.OwnerID `json:"owner"`
	Nonce []byte           `json:"nonce"` // NonceSize bytes
}

// Validate checks the form.
func (a *Answer) Validate() error {
	if a.Owner.IsZero() || len(a.Nonce) != NonceSize {
		return fmt.Errorf("%w: pairing: an owner and a nonce of %d bytes are needed", policies.ErrMalformed, NonceSize)
	}
	return nil
}

// Transcript is all that both devices said.
type Transcript policies.Hash

// Meet makes the transcript.
func Meet(c Code, o *Opening, a *Answer) Transcript {
	return sha256.Sum256(policies.Encode("device-transcript", c[:], o.Key, o.Nonce, a.Owner[:], a.Nonce))
}

// First is the word that the new device shows and the first one is told.
func (t Transcript) First() string { return word(t[:5]) }

// Second is the word that the first device shows and the new one is told.
func (t Transcript) Second() string { return word(t[5:10]) }

// Info is what the profile is sealed under.
func (t Transcript) Info() []byte { return policies.Encode("device-profile", t[:]) }

// Same tells whether a person typed a word.
func Same(typed, word string) bool {
	return readAs.Replace(strings.ToUpper(typed)) == strings.ReplaceAll(word, "-", "")
}
