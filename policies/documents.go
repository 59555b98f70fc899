package policies

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policies/envelope"
)

// Sizes of X-Wing values in bytes (draft-connolly-cfrg-xwing-kem).
const (
	KEMPublicKeySize  = 1216
	KEMCiphertextSize = 1120
)

// Bounds on time.
const (
	// ClockSkew is how far two honest clocks may differ.
	ClockSkew = 60 * time.Second
	// SessionLifetime is the longest life of a session.
	SessionLifetime = 10 * time.Minute
	// RequestLifetime is the longest life of a read request, of a request for evidence, and of an auditor's query.
	RequestLifetime = 2 * time.Minute
)

// Bounds on size.
const (
	// MaxReadItems is how many items one read request may name.
	MaxReadItems int = 1000
	// MaxEvidence is how many entries of the key-use log one request for evidence may ask for.
	MaxEvidence int = 1000
	// MaxGrantFields is how many fields one grant may name.
	MaxGrantFields int = 256
	// MaxRevokedItems is how many (grant, field) pairs one revocation may name.
	MaxRevokedItems int = 4096
	// MaxQueryEntries is how many entries of the key-use log one query of an auditor may ask for.
	MaxQueryEntries int = 1 << 16
	// MaxValue is the length of the longest value of an item in bytes.
	MaxValue = 1 << 20
)

// Custody is where a re-encryption key rests.
type Custody string

const (
	// CustodyResident keeps the key as an object of the token.
	CustodyResident Custody = "resident"
	// CustodySealed keeps the key outside, wrapped under a sealing key of the token.
	CustodySealed Custody = "sealed"
)

// Header is the part that all documents share.
type Header struct {
	Type  string     `json:"type"`
	Suite string     `json:"suite"`
	ID    DocumentID `json:"id"`
	Time  int64      `json:"time"` // when it was made, or what it says was decided, Unix seconds, by the maker's clock
}

// NewHeader begins a document of a type.
func NewHeader(docType string, now time.Time) Header {
	return Header{Type: docType, Suite: Suite, ID: NewDocumentID(), Time: now.Unix()}
}

// DocumentType is the type the payload claims.
func (h *Header) DocumentType() string { return h.Type }

func (h *Header) validate(docType string) error {
	switch {
	case h.Type != docType:
		return fmt.Errorf("%w: this is a %q, not a %s", ErrMalformed, h.Type, docType)
	case h.Suite != Suite:
		return fmt.Errorf("%w: %s: suite %q is not known, only %s", ErrMalformed, docType, h.Suite, Suite)
	case h.ID.IsZero():
		return fmt.Errorf("%w: %s: no id", ErrMalformed, docType)
	case h.Time <= 0:
		return fmt.Errorf("%w: %s: no time", ErrMalformed, docType)
	}
	return nil
}

// legible refuses text that people would not see as it is: controls, which draw on terminals and split lines, and what turns the direction of
// writing or hides. The list is fixed, and not asked of a Unicode table, so that a document is valid for ever or never.
func legible(text string) bool {
	for _, c := range text {
		switch {
		case c < 0x20, 0x7f <= c && c < 0xa0, c == 0x061c, c == 0x200b, c == 0x200e, c == 0x200f, 0x2028 <= c && c <= 0x202e, 0x2066 <= c && c <= 0x2069, c == 0xfeff:
			return false
		}
	}
	return true
}

// Link is the place of a document in a chain: seq is one more than that of the document before, prev its hash. An
// owner's chain begins with seq 1 over the hash of their identity.
type Link struct {
	Seq  uint64 `json:"seq"`
	Prev Hash   `json:"prev"`
}

// Follows refuses a link that is not the next one after (seq, head).
func (l Link) Follows(seq uint64, head Hash) error {
	if l.Seq != seq+1 || l.Prev != head {
		return CodeChain
	}
	return nil
}

// Kind tells what an identity is, which decides how it is shown and nothing about what it may do.
type Kind string

const (
	// KindPerson is a private person. Its identity has no name: the storefront would read it.
	KindPerson Kind = "person"
	// KindBusiness is an organisation. Its name is a label, unverified without a voucher.
	KindBusiness Kind = "business"
)

// Identity is who signs. The hash of the first one is the identity's id for ever; it is signed with its own key.
type Identity struct {
	Header
	Kind         Kind   `json:"kind"`
	Name         string `json:"name,omitempty"` // businesses only; at most 200 bytes
	SigningKey   []byte `json:"signing_key"`    // composite, envelope.PublicKeySize bytes
	KEMKey       []byte `json:"kem_key"`        // X-Wing, for sealed messages
	LoginKey     []byte `json:"login_key"`      // X-Wing, for login challenges and nothing else
	RecoveryHash Hash   `json:"recovery_hash"`  // SHA-256 of the recovery key's composite public key
}

// Key is the identity's verifier.
func (d *Identity) Key() (*envelope.PublicKey, error) { return envelope.ParsePublicKey(d.SigningKey) }

// Validate checks the form.
func (d *Identity) Validate() error {
	if err := d.validate("identity"); err != nil {
		return err
	}
	switch {
	case d.Kind != KindPerson && d.Kind != KindBusiness:
		return fmt.Errorf("%w: identity: kind %q is not known", ErrMalformed, d.Kind)
	case d.Kind == KindPerson && d.Name != "":
		return fmt.Errorf("%w: identity: a person's identity carries no name", ErrMalformed)
	case len(d.Name) > 200 || !legible(d.Name):
		return fmt.Errorf("%w: identity: a name has at most 200 bytes, no controls and nothing invisible", ErrMalformed)
	case len(d.SigningKey) != envelope.PublicKeySize:
		return fmt.Errorf("%w: identity: the signing key has %d bytes, want %d", ErrMalformed, len(d.SigningKey), envelope.PublicKeySize)
	case len(d.KEMKey) != KEMPublicKeySize || len(d.LoginKey) != KEMPublicKeySize:
		return fmt.Errorf("%w: identity: an X-Wing key has %d bytes", ErrMalformed, KEMPublicKeySize)
	case d.RecoveryHash.IsZero():
		return fmt.Errorf("%w: identity: no recovery key", ErrMalformed)
	}
	return nil
}

// VaultDocument says which keys of a vault are real. It is signed offline by the ceremony key that clients pinned.
type VaultDocument struct {
	Header
	Vault       VaultID      `json:"vault"`
	Version     uint64       `json:"version"` // grows with every issue
	CeremonyKey []byte       `json:"ceremony_key"`
	Tokens      []TokenEntry `json:"tokens"`
	LogKey      LogKey       `json:"log_key"`
	LogHostKey  LogKey       `json:"log_host_key"`    // the host's, which signs published checkpoints besides: post-quantum, not in the token
	ImportHPKE  []byte       `json:"import_hpke_key"` // X-Wing: re-encryption keys on their way to the vault
	SessionKEM  []byte       `json:"session_kem_key"` // X-Wing: sessions
	DevMode     bool         `json:"dev_mode,omitempty"`
}

// TokenEntry is one enrolled token.
type TokenEntry struct {
	Serial     string      `json:"serial"`
	Label      string      `json:"label"`
	Model      string      `json:"model,omitempty"`
	Grade      string      `json:"grade"` // "A", "B", "C", "U", or "unproven" before the full probe ran
	ImportKeys []ImportKey `json:"import_keys"`
}

// ImportKey is a token's RSA key under which re-encryption keys are wrapped for one custody.
type ImportKey struct {
	Custody   Custody `json:"custody"`
	Path      string  `json:"path"`       // such as "oaep-direct"
	OAEPHash  string  `json:"oaep_hash"`  // "SHA-1" or "SHA-256": OAEP hash and MGF1 hash alike, empty label
	PublicKey []byte  `json:"public_key"` // SubjectPublicKeyInfo, DER, RSA of 3,072 bits, e = 65537
}

// LogHostKeySize is the size of an ML-DSA-44 public key in bytes (FIPS 204).
const LogHostKeySize = 1312

// LogKey is a key that signs checkpoints of the key-use log (C2SP signed note).
type LogKey struct {
	Name      string `json:"name"`      // the note's key name; of the token's key, the checkpoint's origin too
	Algorithm string `json:"algorithm"` // "Ed25519" of the token's key, "ML-DSA-44" of the host's
	PublicKey []byte `json:"public_key"`
}

// keyName tells whether a name can stand in a note and be signed: 1 to 255 visible characters of ASCII, no plus.
func keyName(name string) bool {
	return name != "" && len(name) <= 255 && !strings.ContainsFunc(name, func(r rune) bool { return r <= 0x20 || r >= 0x7f || r == '+' })
}

// Validate checks the form.
func (d *VaultDocument) Validate() error {
	if err := d.validate("vault"); err != nil {
		return err
	}
	switch {
	case d.Vault.IsZero() || d.Version == 0:
		return fmt.Errorf("%w: vault document: no vault id or version", ErrMalformed)
	case len(d.CeremonyKey) != envelope.PublicKeySize:
		return fmt.Errorf("%w: vault document: the ceremony key has %d bytes, want %d", ErrMalformed, len(d.CeremonyKey), envelope.PublicKeySize)
	case len(d.ImportHPKE) != KEMPublicKeySize || len(d.SessionKEM) != KEMPublicKeySize:
		return fmt.Errorf("%w: vault document: an X-Wing key has %d bytes", ErrMalformed, KEMPublicKeySize)
	case bytes.Equal(d.ImportHPKE, d.SessionKEM):
		return fmt.Errorf("%w: vault document: one X-Wing key for imports and for sessions", ErrMalformed)
	case d.LogKey.Algorithm != "Ed25519" || len(d.LogKey.PublicKey) != 32 || !keyName(d.LogKey.Name):
		return fmt.Errorf("%w: vault document: the log key is not a named Ed25519 key", ErrMalformed)
	case d.LogHostKey.Algorithm != "ML-DSA-44" || len(d.LogHostKey.PublicKey) != LogHostKeySize || !keyName(d.LogHostKey.Name):
		return fmt.Errorf("%w: vault document: the host's log key is not a named ML-DSA-44 key", ErrMalformed)
	case d.LogKey.Name == d.LogHostKey.Name:
		return fmt.Errorf("%w: vault document: the two log keys have one name", ErrMalformed)
	case len(d.Tokens) == 0:
		return fmt.Errorf("%w: vault document: no token", ErrMalformed)
	}
	for _, t := range d.Tokens {
		if t.Serial == "" || len(t.ImportKeys) == 0 {
			return fmt.Errorf("%w: vault document: a token without serial or import key", ErrMalformed)
		}
	}
	return nil
}

// ImportKey finds the import key of a token for a custody.
func (d *VaultDocument) ImportKey(serial string, c Custody) (ImportKey, bool) {
	for _, t := range d.Tokens {
		if t.Serial != serial {
			continue
		}
		for _, k := range t.ImportKeys {
			if k.Custody == c {
				return k, true
			}
		}
	}
	return ImportKey{}, false
}

// Relationship carries a reader's X-Wing key for one owner, signed by the reader. The nonce is the owner's, from the code
// that the owner handed over outside the storefront.
type Relationship struct {
	Header
	Audience VaultID  `json:"aud"`
	Reader   ReaderID `json:"reader"`
	Owner    OwnerID  `json:"owner"`
	KEMKey   []byte   `json:"kem_key"`
	Nonce    Nonce    `json:"nonce"`
}

// Validate checks the form.
func (d *Relationship) Validate() error {
	if err := d.validate("relationship"); err != nil {
		return err
	}
	if d.Audience.IsZero() || d.Reader.IsZero() || d.Owner.IsZero() || d.Nonce.IsZero() || len(d.KEMKey) != KEMPublicKeySize {
		return fmt.Errorf("%w: relationship: vault, reader, owner, nonce and an X-Wing key of %d bytes are needed", ErrMalformed, KEMPublicKeySize)
	}
	return nil
}

// Manifest is an author's signed list of an owner's items: one Merkle root over exactly one leaf a field.
//
// The owner's own manifests are links of the owner's chain. Those of another author form a chain of their own per (owner,
// author), whose seq is the version.
type Manifest struct {
	Header
	Audience     VaultID  `json:"aud"`
	Owner        OwnerID  `json:"owner"`
	Author       AuthorID `json:"author"`
	Link                  // seq, prev
	Version      uint64   `json:"version"`       // counts from 1 per (owner, author)
	PrevManifest Hash     `json:"prev_manifest"` // hash of the version before; zero for version 1
	TreeSize     uint64   `json:"tree_size"`
	Root         Hash     `json:"root"`
}

// Validate checks the form.
func (d *Manifest) Validate() error {
	if err := d.validate("manifest"); err != nil {
		return err
	}
	switch {
	case d.Audience.IsZero() || d.Owner.IsZero() || d.Author.IsZero() || d.Seq == 0 || d.Version == 0 || d.Root.IsZero():
		return fmt.Errorf("%w: manifest: vault, owner, author, seq, version and root are needed", ErrMalformed)
	case d.PrevManifest.IsZero() != (d.Version == 1):
		return fmt.Errorf("%w: manifest: version 1 and no other has no manifest before it", ErrMalformed)
	case AuthorID(d.Owner) != d.Author && (d.Seq != d.Version || d.Prev != d.PrevManifest):
		return fmt.Errorf("%w: manifest: of an author who is not the owner, chain and versions are the same", ErrMalformed)
	case d.TreeSize > 1<<20:
		return fmt.Errorf("%w: manifest: at most %d items", ErrMalformed, 1<<20)
	}
	return nil
}

// Grant is an owner's permission to one reader. Its id is accepted once, ever.
type Grant struct {
	Header
	Audience     VaultID        `json:"aud"`
	Owner        OwnerID        `json:"owner"`
	Link                        // seq, prev
	Reader       ReaderID       `json:"reader"`
	Relationship Hash           `json:"relationship"` // hash of the document that the reader's key came from
	Custody      Custody        `json:"custody"`
	Rights       []Right        `json:"rights"`
	Purpose      string         `json:"purpose"`    // 1 to 200 bytes; a request must name the same
	NotBefore    int64          `json:"not_before"` // Unix seconds, inclusive
	Expires      int64          `json:"expires"`    // Unix seconds, exclusive
	Limits       Limits         `json:"limits"`
	Ciphertext   []byte         `json:"ct"` // X-Wing ciphertext to the reader's key for this owner
	Fields       []GrantedField `json:"fields"`
}

// Right is what a grant permits.
type Right string

// RightRead lets the reader read.
const RightRead Right = "read"

// Limits narrow a grant. Zero is no limit.
type Limits struct {
	ReadsPerDay uint64 `json:"reads_per_day,omitzero"` // released fields per UTC day, all fields of the grant together, whichever grant they were released under
}

// GrantedField is one field of a grant.
type GrantedField struct {
	Field  Field        `json:"field"`
	Epoch  uint64       `json:"epoch"`
	Author AuthorID     `json:"author"`
	Keys   []WrappedKey `json:"keys"` // one per enrolled token
}

// WrappedKey commits the owner to the wrapped re-encryption key that a token may import.
type WrappedKey struct {
	Token     string `json:"token"`      // serial
	ImportKey Hash   `json:"import_key"` // SHA-256 of the import key's SubjectPublicKeyInfo
	Path      string `json:"path"`
	Digest    Hash   `json:"digest"` // SHA-256 of the wrapped key
}

// Field finds a granted field.
func (d *Grant) Field(f Field, author AuthorID) (*GrantedField, bool) {
	for i := range d.Fields {
		if d.Fields[i].Field == f && d.Fields[i].Author == author {
			return &d.Fields[i], true
		}
	}
	return nil, false
}

// Slot is the slot of a granted field.
func (d *Grant) Slot(f *GrantedField) Slot {
	return Slot{Owner: d.Owner, Field: f.Field, Epoch: f.Epoch, Author: f.Author}
}

// Validate checks the form.
func (d *Grant) Validate() error {
	if err := d.validate("grant"); err != nil {
		return err
	}
	bad := func(what string) error { return fmt.Errorf("%w: grant: %s", ErrMalformed, what) }
	switch {
	case d.Audience.IsZero() || d.Owner.IsZero() || d.Reader.IsZero() || d.Relationship.IsZero() || d.Seq == 0:
		return bad("vault, owner, reader, relationship and seq are needed")
	case d.Custody != CustodyResident && d.Custody != CustodySealed:
		return bad("custody is resident or sealed")
	case len(d.Rights) != 1 || d.Rights[0] != RightRead:
		return bad("the one right known is read")
	case len(d.Purpose) < 1 || len(d.Purpose) > 200 || !legible(d.Purpose):
		return bad("a purpose has 1 to 200 bytes, no controls and nothing invisible")
	case d.NotBefore <= 0 || d.Expires <= d.NotBefore:
		return bad("not_before must be before expires")
	case len(d.Ciphertext) != KEMCiphertextSize:
		return bad(fmt.Sprintf("an X-Wing ciphertext has %d bytes", KEMCiphertextSize))
	case len(d.Fields) < 1 || len(d.Fields) > MaxGrantFields:
		return bad(fmt.Sprintf("1 to %d fields are allowed", MaxGrantFields))
	}
	for i := range d.Fields {
		f := &d.Fields[i]
		if err := f.Field.Validate(); err != nil {
			return fmt.Errorf("grant: %w", err)
		}
		if f.Epoch == 0 || f.Author.IsZero() || len(f.Keys) == 0 {
			return bad("a field needs epoch, author and a key")
		}
		if slices.ContainsFunc(d.Fields[:i], func(o GrantedField) bool { return o.Field == f.Field && o.Author == f.Author }) {
			return bad("a field and author appear twice")
		}
		for j, k := range f.Keys {
			if k.Token == "" || k.Path == "" || k.ImportKey.IsZero() || k.Digest.IsZero() {
				return bad("a wrapped key needs token, import key, path and digest")
			}
			if slices.ContainsFunc(f.Keys[:j], func(o WrappedKey) bool { return o.Token == k.Token }) {
				return bad("two keys of one field for one token")
			}
		}
	}
	return nil
}

// Revocation ends fields of grants for ever: their keys are destroyed in the token.
type Revocation struct {
	Header
	Audience VaultID       `json:"aud"`
	Owner    OwnerID       `json:"owner"`
	Link                   // seq, prev
	Items    []RevokedItem `json:"items"`
	Reason   Reason        `json:"reason"`
}

// RevokedItem is one field of one grant.
type RevokedItem struct {
	Grant  DocumentID `json:"grant"`
	Field  Field      `json:"field"`
	Author AuthorID   `json:"author"`
}

// Reason is why a grant ended.
type Reason string

const (
	// ReasonWithdrawn: the owner no longer permits it.
	ReasonWithdrawn Reason = "withdrawn"
	// ReasonSuperseded: a newer grant took its place after a rotation.
	ReasonSuperseded Reason = "superseded"
)

// Validate checks the form.
func (d *Revocation) Validate() error {
	if err := d.validate("revocation"); err != nil {
		return err
	}
	switch {
	case d.Audience.IsZero() || d.Owner.IsZero() || d.Seq == 0:
		return fmt.Errorf("%w: revocation: vault, owner and seq are needed", ErrMalformed)
	case len(d.Items) < 1 || len(d.Items) > MaxRevokedItems:
		return fmt.Errorf("%w: revocation: 1 to %d items are allowed", ErrMalformed, MaxRevokedItems)
	case d.Reason != ReasonWithdrawn && d.Reason != ReasonSuperseded:
		return fmt.Errorf("%w: revocation: reason %q is not known", ErrMalformed, d.Reason)
	}
	for _, i := range d.Items {
		if err := i.Field.Validate(); err != nil {
			return fmt.Errorf("revocation: %w", err)
		}
		if i.Grant.IsZero() || i.Author.IsZero() {
			return fmt.Errorf("%w: revocation: an item needs grant and author", ErrMalformed)
		}
	}
	return nil
}

// Session delegates a reader's signature to a fresh Ed25519 key for at most ten minutes, and agrees a key K with the
// vault by an X-Wing encapsulation to the vault document's session key.
type Session struct {
	Header
	Audience   VaultID                   `json:"aud"`
	Reader     ReaderID                  `json:"reader"`
	Key        envelope.SessionPublicKey `json:"key"`
	NotBefore  int64                     `json:"not_before"`
	Expires    int64                     `json:"expires"`
	Ciphertext []byte                    `json:"ct"`
}

// Validate checks the form.
func (d *Session) Validate() error {
	if err := d.validate("session"); err != nil {
		return err
	}
	switch {
	case d.Audience.IsZero() || d.Reader.IsZero() || d.Key == (envelope.SessionPublicKey{}):
		return fmt.Errorf("%w: session: vault, reader and key are needed", ErrMalformed)
	case len(d.Ciphertext) != KEMCiphertextSize:
		return fmt.Errorf("%w: session: an X-Wing ciphertext has %d bytes", ErrMalformed, KEMCiphertextSize)
	case d.NotBefore <= 0 || d.Expires <= d.NotBefore || d.Expires-d.NotBefore > int64(SessionLifetime/time.Second): // both positive: no overflow
		return fmt.Errorf("%w: session: at most %s", ErrMalformed, SessionLifetime)
	}
	return nil
}

// Live refuses a session outside its time.
func (d *Session) Live(now time.Time) error {
	if now.Add(ClockSkew).Unix() < d.NotBefore || now.Unix() >= d.Expires {
		return CodeSession
	}
	return nil
}

// ReadRequest asks for the newest version of any number of fields. It is signed by the session's key.
type ReadRequest struct {
	Header
	Audience VaultID    `json:"aud"`
	Session  Hash       `json:"session"` // hash of the session document
	Nonce    Nonce      `json:"nonce"`   // fresh within the session
	Expires  int64      `json:"expires"` // Unix seconds, at most RequestLifetime after time
	Purpose  string     `json:"purpose"`
	Items    []ReadItem `json:"items"`
}

// ReadItem names one field of one owner, by one author. Known is the version that the reader already has, 0 for none.
type ReadItem struct {
	Owner  OwnerID  `json:"owner"`
	Field  Field    `json:"field"`
	Author AuthorID `json:"author,omitzero"` // zero: the owner
	Known  uint64   `json:"known,omitzero"`
}

// Writer is the author the item asks for.
func (i *ReadItem) Writer() AuthorID {
	if i.Author.IsZero() {
		return AuthorID(i.Owner)
	}
	return i.Author
}

// Validate checks the form.
func (d *ReadRequest) Validate() error {
	if err := d.validate("read"); err != nil {
		return err
	}
	switch {
	case d.Audience.IsZero() || d.Session.IsZero() || d.Nonce.IsZero():
		return fmt.Errorf("%w: read: vault, session and nonce are needed", ErrMalformed)
	case d.Expires <= d.Time || d.Expires-d.Time > int64(RequestLifetime/time.Second):
		return fmt.Errorf("%w: read: a request lives at most %s", ErrMalformed, RequestLifetime)
	case len(d.Purpose) < 1 || len(d.Purpose) > 200 || !legible(d.Purpose):
		return fmt.Errorf("%w: read: a purpose has 1 to 200 bytes, no controls and nothing invisible", ErrMalformed)
	case len(d.Items) < 1 || len(d.Items) > MaxReadItems:
		return fmt.Errorf("%w: read: 1 to %d items are allowed", ErrMalformed, MaxReadItems)
	}
	for i := range d.Items {
		if err := d.Items[i].Field.Validate(); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if d.Items[i].Owner.IsZero() {
			return fmt.Errorf("%w: read: item %d has no owner", ErrMalformed, i)
		}
	}
	return nil
}

// Live refuses a request outside its time.
func (d *ReadRequest) Live(now time.Time) error {
	if now.Add(ClockSkew).Unix() < d.Time || now.Unix() >= d.Expires {
		return CodeExpired
	}
	return nil
}

// EvidenceRequest asks for proof of entries of the key-use log that concern the reader: those with certain indexes, or the newest Limit ones
// below Before (0: of all). It is signed by the session's key.
type EvidenceRequest struct {
	Header
	Audience VaultID  `json:"aud"`
	Session  Hash     `json:"session"` // hash of the session document
	Nonce    Nonce    `json:"nonce"`   // fresh within the session, among those of reads
	Expires  int64    `json:"expires"` // Unix seconds, at most RequestLifetime after time
	Indexes  []uint64 `json:"indexes,omitzero"`
	Before   uint64   `json:"before,omitzero"`
	Limit    uint64   `json:"limit,omitzero"`
}

// Validate checks the form.
func (d *EvidenceRequest) Validate() error {
	if err := d.validate("evidence"); err != nil {
		return err
	}
	switch {
	case d.Audience.IsZero() || d.Session.IsZero() || d.Nonce.IsZero():
		return fmt.Errorf("%w: evidence: vault, session and nonce are needed", ErrMalformed)
	case d.Expires <= d.Time || d.Expires-d.Time > int64(RequestLifetime/time.Second):
		return fmt.Errorf("%w: evidence: a request lives at most %s", ErrMalformed, RequestLifetime)
	case (len(d.Indexes) == 0) == (d.Limit == 0) || d.Limit == 0 && d.Before != 0:
		return fmt.Errorf("%w: evidence: either indexes or a limit, and before with a limit only", ErrMalformed)
	case len(d.Indexes) > MaxEvidence || d.Limit > uint64(MaxEvidence):
		return fmt.Errorf("%w: evidence: at most %d entries at once", ErrMalformed, MaxEvidence)
	}
	for i := range d.Indexes {
		if i > 0 && d.Indexes[i] <= d.Indexes[i-1] {
			return fmt.Errorf("%w: evidence: indexes ascend, each once", ErrMalformed)
		}
	}
	return nil
}

// Most is how many entries the answer has at most.
func (d *EvidenceRequest) Most() int { return len(d.Indexes) + int(d.Limit) }

// Live refuses a request outside its time.
func (d *EvidenceRequest) Live(now time.Time) error {
	if now.Add(ClockSkew).Unix() < d.Time || now.Unix() >= d.Expires {
		return CodeExpired
	}
	return nil
}

// AuditQuery asks a vault for entries of its key-use log, or for what lies beside them. An auditor signs it with their identity; the vault's
// configuration says who is one.
type AuditQuery struct {
	Header
	Audience VaultID    `json:"aud"`
	Auditor  IdentityID `json:"auditor"`
	Nonce    Nonce      `json:"nonce"`   // used once, ever, by this auditor
	Expires  int64      `json:"expires"` // Unix seconds, at most RequestLifetime after time
	From     uint64     `json:"from"`    // index of the first entry
	Count    uint64     `json:"count"`   // the answer may have fewer
	What     string     `json:"what"`    // "entries" or "bodies", as in those files of the published form
}

// Validate checks the form.
func (d *AuditQuery) Validate() error {
	if err := d.validate("audit-query"); err != nil {
		return err
	}
	switch {
	case d.Audience.IsZero() || d.Auditor.IsZero() || d.Nonce.IsZero():
		return fmt.Errorf("%w: audit query: vault, auditor and nonce are needed", ErrMalformed)
	case d.Expires <= d.Time || d.Expires-d.Time > int64(RequestLifetime/time.Second):
		return fmt.Errorf("%w: audit query: a query lives at most %s", ErrMalformed, RequestLifetime)
	case d.Count < 1 || d.Count > uint64(MaxQueryEntries) || d.From > 1<<62:
		return fmt.Errorf("%w: audit query: 1 to %d entries are allowed, from one below 2^62", ErrMalformed, MaxQueryEntries)
	case d.What != "entries" && d.What != "bodies":
		return fmt.Errorf("%w: audit query: what is entries or bodies", ErrMalformed)
	}
	return nil
}

// Live refuses a query outside its time.
func (d *AuditQuery) Live(now time.Time) error {
	if now.Add(ClockSkew).Unix() < d.Time || now.Unix() >= d.Expires {
		return CodeExpired
	}
	return nil
}

// document is what open needs of a pointer to a document type.
type document[T any] interface {
	*T
	envelope.Document
	Validate() error
}

// Decode parses the payload of an envelope as a document of type T and checks its form, without verifying the signature:
// to learn whose key is needed. What it returns is a claim.
func Decode[T any, D document[T]](e *envelope.Envelope) (*T, error) {
	d := D(new(T))
	if err := e.Decode(d); err != nil {
		return nil, err
	}
	if err := d.Validate(); err != nil {
		return nil, err
	}
	return (*T)(d), nil
}

// Open is Decode with a verified signature: the one way to a document that may be acted on.
func Open[T any, D document[T]](e *envelope.Envelope, key envelope.Verifier) (*T, error) {
	if err := e.Verify(key); err != nil {
		return nil, err
	}
	return Decode[T, D](e)
}

// Sign seals a document after checking its form, so that nobody signs what nobody will accept.
func Sign[T any, D document[T]](signer envelope.Signer, d D) (*envelope.Envelope, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	return envelope.Seal(signer, d)
}

// OpenIdentity verifies an identity's first document, which certifies itself, and returns its id. Compare the id with one
// that came from outside the storefront.
func OpenIdentity(e *envelope.Envelope) (*Identity, IdentityID, error) {
	claim, err := Decode[Identity](e)
	if err != nil {
		return nil, IdentityID{}, err
	}
	key, err := claim.Key()
	if err != nil {
		return nil, IdentityID{}, err
	}
	if err := e.Verify(key); err != nil {
		return nil, IdentityID{}, err
	}
	return claim, IdentityID(e.Hash), nil
}

// OpenVault verifies a vault document against what the client pinned: the vault's id and the hash of the ceremony key.
// Remember the version and refuse an older one: newest is the highest version seen before.
func OpenVault(e *envelope.Envelope, vault VaultID, ceremony Hash, newest uint64) (*VaultDocument, error) {
	claim, err := Decode[VaultDocument](e)
	if err != nil {
		return nil, err
	}
	if HashKey(claim.CeremonyKey) != ceremony || claim.Vault != vault {
		return nil, fmt.Errorf("%w: the vault document is signed by another ceremony than the join link names", ErrPin)
	}
	if claim.Version < newest {
		return nil, fmt.Errorf("%w: version %d of the vault document is older than %d, seen before", ErrPin, claim.Version, newest)
	}
	key, err := envelope.ParsePublicKey(claim.CeremonyKey)
	if err != nil {
		return nil, err
	}
	if err := e.Verify(key); err != nil {
		return nil, err
	}
	return claim, nil
}

// OpenByCeremony verifies a document that the ceremony key signs for its vault, whose document v is. The error is [CodeWrongVault] if it is for another one, and wraps forged if somebody else signed it.
func OpenByCeremony[T any, D document[T]](e *envelope.Envelope, v *VaultDocument, audience func(*T) VaultID, forged Code) (*T, error) {
	d, err := Decode[T, D](e)
	if err != nil {
		return nil, err
	}
	if audience(d) != v.Vault {
		return nil, CodeWrongVault
	}
	key, err := envelope.ParsePublicKey(v.CeremonyKey)
	if err != nil {
		return nil, err
	}
	if err := e.Verify(key); err != nil {
		return nil, fmt.Errorf("%w: %w", forged, err)
	}
	return d, nil
}
