// Package succession is how an identity gets new keys and stays the same identity.
//
// An identity's id is the hash of its first document, for ever. What follows is a line of documents, each signed twice: by its own new key and
// by one that may decide this. That is the recovery key, whose hash the document before names: then the new keys are in force at once, and this
// outranks everything else. Or it is the key before: then the change must have been announced ([Notice]) for [Wait] before, in the chain that every device of
// the identity reads, and until then the recovery key, or a notice that takes the announcement back, ends it.
//
// Successions and notices are links of the identity's chain, as manifests and grants are. So which key is in force is a matter of place and not
// of time: a document of the chain is signed by the key of the last succession before it. [Line] knows them; the normal path is [Begin] with
// the first document, [Line.Open] for each succession, and [Line.Verify] for every other document of the chain.
//
// Refused: a document of an older generation, or of none that follows ([policies.CodeSuccessionOld]), another recovery key ([policies.CodeRecovery]), a
// signature of anybody else. That an announcement was made and its time is over the vault says, which takes nothing else: whoever relies on a succession
// without the recovery key demands the vault's receipt.
package succession

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

// Wait is how long a succession without the recovery key is announced before it can take effect.
const Wait = 72 * time.Hour

// Document types.
const (
	docType    = "succession"
	noticeType = "succession-notice"
)

// Reason is why keys are replaced.
type Reason string

const (
	// Lost: a device that held the keys is gone.
	Lost Reason = "lost"
	// Stolen: somebody else may have the keys.
	Stolen Reason = "stolen"
	// Planned: neither.
	Planned Reason = "planned"
)

// Document is an identity's next document. It is signed by its own SigningKey first, and then by the recovery key or by the key before.
type Document struct {
	policies.Header
	Audience      policies.VaultID    `json:"aud"`
	Identity      policies.IdentityID `json:"identity"`
	policies.Link                     // seq, prev: in the identity's chain
	Generation    uint64              `json:"generation"` // that of an identity's first document is 1
	Previous      policies.Hash       `json:"previous"`   // hash of the document of the generation before
	SigningKey    []byte              `json:"signing_key"`
	KEMKey        []byte              `json:"kem_key"`
	LoginKey      []byte              `json:"login_key"`
	RecoveryHash  policies.Hash       `json:"recovery_hash"`
	RecoveryKey   []byte              `json:"recovery_key,omitempty"` // the one before, if it signs
	Notice        policies.Hash       `json:"notice,omitzero"`        // of the notice that announced this, if the key before signs
	Reason        Reason              `json:"reason"`
}

// Validate checks the form.
func (d *Document) Validate() error {
	if err := d.Check(docType); err != nil {
		return err
	}
	bad := func(what string) error { return fmt.Errorf("%w: succession: %s", policies.ErrMalformed, what) }
	switch {
	case d.Audience.IsZero() || d.Identity.IsZero() || d.Seq == 0 || d.Previous.IsZero():
		return bad("vault, identity, seq and the document before are needed")
	case d.Generation < 2 || d.Generation > 1<<32:
		return bad("a succession has generation 2 or more")
	case len(d.SigningKey) != envelope.PublicKeySize:
		return bad(fmt.Sprintf("a signing key has %d bytes", envelope.PublicKeySize))
	case len(d.KEMKey) != policies.KEMPublicKeySize || len(d.LoginKey) != policies.KEMPublicKeySize || bytes.Equal(d.KEMKey, d.LoginKey):
		return bad(fmt.Sprintf("two different X-Wing keys of %d bytes are needed", policies.KEMPublicKeySize))
	case d.RecoveryHash.IsZero():
		return bad("no recovery key")
	case (len(d.RecoveryKey) == 0) == d.Notice.IsZero():
		return bad("either the recovery key signs, or a notice came before")
	case len(d.RecoveryKey) != 0 && len(d.RecoveryKey) != envelope.PublicKeySize:
		return bad(fmt.Sprintf("a recovery key has %d bytes", envelope.PublicKeySize))
	case policies.HashKey(d.SigningKey) == d.RecoveryHash:
		return bad("one key to sign and to recover")
	case d.Reason != Lost && d.Reason != Stolen && d.Reason != Planned:
		return bad(fmt.Sprintf("reason %.40q is not known", string(d.Reason)))
	}
	return nil
}

// Successor is what a notice announces: SHA-256(Encode("successor", identity, signing key, KEM key, login key, recovery hash)).
func (d *Document) Successor() policies.Hash {
	return sha256.Sum256(policies.Encode("successor", d.Identity[:], d.SigningKey, d.KEMKey, d.LoginKey, d.RecoveryHash[:]))
}

// Sign seals a succession: by the new key, and by the recovery key or the key before.
func Sign(d *Document, next, authority envelope.Signer) (*envelope.Envelope, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	return envelope.Seal(next, d, authority)
}

// Notice announces a succession that the recovery key does not sign, or takes an announcement back. The key in force signs it.
type Notice struct {
	policies.Header
	Audience      policies.VaultID    `json:"aud"`
	Identity      policies.IdentityID `json:"identity"`
	policies.Link                     // seq, prev
	Successor     policies.Hash       `json:"successor,omitzero"` // of the succession to come; zero: what was announced is taken back
}

// Validate checks the form.
func (d *Notice) Validate() error {
	if err := d.Check(noticeType); err != nil {
		return err
	}
	if d.Audience.IsZero() || d.Identity.IsZero() || d.Seq == 0 {
		return fmt.Errorf("%w: succession notice: vault, identity and seq are needed", policies.ErrMalformed)
	}
	return nil
}

// Holder is one generation of an identity: the keys that speak for it after a place in its chain.
type Holder struct {
	Generation uint64
	Document   policies.Hash // its own; of the first the identity's id
	Seq        uint64        // its place in the chain; 0 for the first
	SigningKey []byte
	KEMKey     []byte
	LoginKey   []byte
	Recovery   policies.Hash
}

// Line is an identity with all its generations that are known, oldest first.
type Line struct {
	ID      policies.IdentityID
	Holders []Holder
}

// Begin is the line of an identity that has its first document only.
func Begin(id policies.IdentityID, d *policies.Identity) Line {
	return Line{id, []Holder{{
		Generation: 1, Document: policies.Hash(id), SigningKey: d.SigningKey, KEMKey: d.KEMKey, LoginKey: d.LoginKey, Recovery: d.RecoveryHash,
	}}}
}

// Newest are the keys in force.
func (l *Line) Newest() *Holder { return &l.Holders[len(l.Holders)-1] }

// Open verifies a succession as the next one of the line, which stays as it is. The error wraps a code, ErrMalformed or ErrSignature.
func (l *Line) Open(e *envelope.Envelope) (*Document, error) {
	d, err := policies.Decode[Document](e)
	if err != nil {
		return nil, err
	}
	h := l.Newest()
	switch {
	case d.Identity != l.ID:
		return nil, fmt.Errorf("%w: succession: it is of another identity", policies.ErrMalformed)
	case d.Generation != h.Generation+1 || d.Previous != h.Document || d.Seq <= h.Seq:
		return nil, policies.CodeSuccessionOld
	case bytes.Equal(d.SigningKey, h.SigningKey) || bytes.Equal(d.LoginKey, h.LoginKey) || bytes.Equal(d.KEMKey, h.KEMKey):
		return nil, fmt.Errorf("%w: succession: a key stays the same", policies.ErrMalformed)
	case len(d.RecoveryKey) > 0 && policies.HashKey(d.RecoveryKey) != h.Recovery:
		return nil, policies.CodeRecovery
	}
	authority := h.SigningKey
	if len(d.RecoveryKey) > 0 {
		authority = d.RecoveryKey
	}
	next, err := envelope.ParsePublicKey(d.SigningKey)
	if err != nil {
		return nil, err
	}
	by, err := envelope.ParsePublicKey(authority)
	if err != nil {
		return nil, err
	}
	if err := e.VerifyTwo(next, by); err != nil {
		return nil, err
	}
	return d, nil
}

// Append takes a succession that [Line.Open] returned, with the hash of its envelope, into the line.
func (l *Line) Append(d *Document, hash policies.Hash) {
	l.Holders = append(l.Holders[:len(l.Holders):len(l.Holders)], Holder{
		Generation: d.Generation, Document: hash, Seq: d.Seq, SigningKey: d.SigningKey, KEMKey: d.KEMKey, LoginKey: d.LoginKey, Recovery: d.RecoveryHash,
	})
}

// Take is Open and Append. A succession that the line has already changes nothing.
func (l *Line) Take(e *envelope.Envelope) (*Document, error) {
	for _, h := range l.Holders[1:] {
		if h.Document == policies.Hash(e.Hash) {
			return policies.Decode[Document](e)
		}
	}
	d, err := l.Open(e)
	if err == nil {
		l.Append(d, e.Hash)
	}
	return d, err
}

// Verify checks the signature of a document at a place of the identity's chain: of the key that was in force there, or of a later one, since
// a document that is signed anew is the same document.
func (l *Line) Verify(e *envelope.Envelope, seq uint64) error {
	err := fmt.Errorf("%s: %w", e.Type, policies.ErrSignature)
	for i := len(l.Holders) - 1; i >= 0 && err != nil; i-- {
		var key *envelope.PublicKey
		if key, err = envelope.ParsePublicKey(l.Holders[i].SigningKey); err == nil {
			err = e.Verify(key)
		}
		if l.Holders[i].Seq < seq {
			break
		}
	}
	return err
}
