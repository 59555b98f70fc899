package password

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/redact"
)

// kitSize is that of a kit's secret in bytes: too much to guess, so nothing needs to be counted.
const kitSize = 20

// Kit is the secret of a recovery sheet: 20 random bytes, written as nine groups of four letters and digits of which the last four are a
// checksum. It opens what the password opens.
type Kit struct {
	redact.Redacted
	bytes [kitSize]byte
}

// NewKit draws a kit.
func NewKit() *Kit {
	k := new(Kit)
	rand.Read(k.bytes[:]) // never fails (crypto/rand)
	return k
}

// letters are those of Crockford's base 32: without I, L, O and U, which are read as 1, 1, 0 and V.
var letters = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// check is the checksum: 20 bits of a hash, so that a slip of the pen is found before anybody is asked.
func (k *Kit) check() string {
	sum := sha256.Sum256(policies.Encode("kit-check", k.bytes[:]))
	return letters.EncodeToString(sum[:3])[:4]
}

// Text is the kit as it stands on the sheet. It is the secret.
func (k *Kit) Text() string {
	text := letters.EncodeToString(k.bytes[:]) + k.check()
	var groups []string
	for ; text != ""; text = text[4:] {
		groups = append(groups, text[:4])
	}
	return strings.Join(groups, "-")
}

// ParseKit reads what a person typed: small or large letters, with or without hyphens and spaces. What it refuses wraps policies.ErrMalformed
// and does not repeat the text.
func ParseKit(text string) (*Kit, error) {
	clean := strings.NewReplacer("-", "", " ", "", "\t", "", "\r", "", "\n", "", "O", "0", "I", "1", "L", "1", "U", "V").Replace(strings.ToUpper(text))
	k := new(Kit)
	size := letters.EncodedLen(kitSize)
	if len(clean) != size+4 {
		return nil, fmt.Errorf("%w: the code on the sheet has %d letters and digits, and this has %d", policies.ErrMalformed, size+4, len(clean))
	}
	b, err := letters.DecodeString(clean[:size])
	if err != nil {
		return nil, fmt.Errorf("%w: there is a character in it that the sheet does not have", policies.ErrMalformed)
	}
	copy(k.bytes[:], b)
	clear(b)
	if k.check() != clean[size:] {
		return nil, fmt.Errorf("%w: it was not copied right; compare it with the sheet", policies.ErrMalformed)
	}
	return k, nil
}

// Keys are the kit's for an account.
func (k *Kit) Keys(account policies.OwnerID) *Keys {
	return derive(account, k.bytes[:], "kit-key", "kit-proof")
}

// Zero overwrites the kit.
func (k *Kit) Zero() { clear(k.bytes[:]) }
