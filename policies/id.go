package policies

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// ID is 32 raw bytes that name one thing. K says what kind of thing, so that the compiler refuses a reader's id where
// an owner's is due; where a document makes one thing stand for another (an owner is an author of their own fields),
// the conversion is written out. The text form is 64 lower-case hexadecimal digits and no other.
type ID[K any] [32]byte

type (
	identityKind struct{}
	ownerKind    struct{}
	readerKind   struct{}
	authorKind   struct{}
	vaultKind    struct{}
	documentKind struct{}
	hashKind     struct{}
)

type (
	// IdentityID is the SHA-256 (over the PAE) of an identity's first document.
	IdentityID = ID[identityKind]
	// OwnerID is the IdentityID of a person in the role of owner.
	OwnerID = ID[ownerKind]
	// ReaderID is the IdentityID of a business or person in the role of reader.
	ReaderID = ID[readerKind]
	// AuthorID is the IdentityID of whoever wrote a version of a field: the owner, or someone with a write grant.
	AuthorID = ID[authorKind]
	// VaultID is drawn at random in the vault's ceremony.
	VaultID = ID[vaultKind]
	// DocumentID is drawn at random by whoever makes a document. A grant's DocumentID is the grant id.
	DocumentID = ID[documentKind]
	// Hash is a SHA-256 digest: of a document's PAE, a leaf, a ciphertext or a public key.
	Hash = ID[hashKind]
)

// NewDocumentID draws a document id at random.
func NewDocumentID() DocumentID {
	var id DocumentID
	rand.Read(id[:]) // never fails: see crypto/rand
	return id
}

// ParseID reads the text form of an ID.
func ParseID[K any](text string) (ID[K], error) {
	var id ID[K]
	err := id.UnmarshalText([]byte(text))
	return id, err
}

// IsZero reports whether the id is all zeroes, which names nothing.
func (id ID[K]) IsZero() bool { return id == ID[K]{} }

// String is the text form.
func (id ID[K]) String() string { return hex.EncodeToString(id[:]) }

// MarshalText is the text form.
func (id ID[K]) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText accepts exactly the text form: upper case and any other length are refused, so an id has one spelling.
func (id *ID[K]) UnmarshalText(text []byte) error {
	if len(text) != 2*len(id) {
		return fmt.Errorf("%w: an id is %d hexadecimal digits, this has %d characters", ErrMalformed, 2*len(id), len(text))
	}
	for _, c := range text {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return fmt.Errorf("%w: an id has only the digits 0-9 and a-f", ErrMalformed)
		}
	}
	_, err := hex.Decode(id[:], text)
	return err
}

// HashKey is the hash of a public key as it is written in documents, by which links and grants name it.
func HashKey(key []byte) Hash { return sha256.Sum256(key) }

// Nonce is 16 random bytes, fresh within the session or relationship it belongs to. Text form: 32 hexadecimal digits.
type Nonce [16]byte

// NewNonce draws a nonce at random.
func NewNonce() Nonce {
	var n Nonce
	rand.Read(n[:])
	return n
}

// IsZero reports whether the nonce is all zeroes, which is never a fresh one.
func (n Nonce) IsZero() bool { return n == Nonce{} }

// String is the text form.
func (n Nonce) String() string { return hex.EncodeToString(n[:]) }

// MarshalText is the text form.
func (n Nonce) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText accepts exactly the text form.
func (n *Nonce) UnmarshalText(text []byte) error {
	decoded, err := hex.DecodeString(string(text))
	if err != nil || len(decoded) != len(n) || hex.EncodeToString(decoded) != string(text) {
		return fmt.Errorf("%w: a nonce is %d lower-case hexadecimal digits", ErrMalformed, 2*len(n))
	}
	copy(n[:], decoded)
	return nil
}

// Field is a named slot of an owner, such as "phone.mobile": 1 to 64 characters of a-z, 0-9, '.', '_', '/', '-'.
type Field string

// Validate refuses a name outside the alphabet.
func (f Field) Validate() error {
	if len(f) < 1 || len(f) > 64 {
		return fmt.Errorf("%w: a field name has 1 to 64 characters, this has %d", ErrMalformed, len(f))
	}
	for _, c := range []byte(f) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '_', c == '/', c == '-':
		default:
			return fmt.Errorf("%w: field name %q: only a-z, 0-9, '.', '_', '/' and '-' are allowed", ErrMalformed, string(f))
		}
	}
	return nil
}

// Pseudonym stands for an identity in the key-use log: 16 bytes drawn at random at enrolment, so that the tree identifies
// nobody once the enrolment's body is erased. All zeroes: nobody in particular. Text form: 32 hexadecimal digits.
type Pseudonym [16]byte

// NewPseudonym draws a pseudonym at random.
func NewPseudonym() (p Pseudonym) { rand.Read(p[:]); return p }

// IsZero reports whether the pseudonym stands for nobody.
func (p Pseudonym) IsZero() bool { return p == Pseudonym{} }

// String is the text form.
func (p Pseudonym) String() string { return hex.EncodeToString(p[:]) }

// MarshalText is the text form.
func (p Pseudonym) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText accepts exactly the text form.
func (p *Pseudonym) UnmarshalText(text []byte) error { return (*Nonce)(p).UnmarshalText(text) }
