// Package envelope signs and opens documents: DSSE envelopes (the Dead Simple Signing Envelope of in-toto, protocol
// version 1) around strict JSON, signed with a hybrid of ML-DSA-65 and Ed25519 or, within a session, with Ed25519 alone.
//
// The normal path: [Seal] turns a document into an envelope; the other side calls [Parse], looks at the payload
// to learn whose key it must verify under, calls [Envelope.Verify] with that key and [Envelope.Decode] with the type it expects.
// A decoded but unverified document is a claim and nothing more; package policies has one function per document that does
// all of it in the right order, and is what callers should use.
//
// What is signed is the PAE ("DSSEv1", the payload type, the payload bytes): the bytes as they came, never a second
// rendering of them. A document's hash is SHA-256 over the PAE, never over the envelope, so that neither a changed keyid nor
// white space around the payload makes a second hash.
//
// Refused: a member that the type does not know, a member twice, a member spelt in another case, bytes after the
// value, invalid UTF-8, base64 that is not the one standard spelling, more or fewer than one signature (of a succession: two), a payload type that differs from the
// payload's own "type", an envelope of more than [MaxSize] bytes.
package envelope

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/sallyport/sallyport/policies/redact"
)

// MaxSize bounds an envelope, in bytes. The largest document is a grant of many fields for many tokens.
const MaxSize = 1 << 20

// Payload types are typePrefix, the document's type, typeSuffix.
const (
	typePrefix = "application/vnd.sallyport."
	typeSuffix = ".v1+json"
)

var (
	// ErrMalformed: the bytes are not an envelope, a key or the document they claim to be.
	ErrMalformed = errors.New("malformed")
	// ErrSignature: the signature does not verify under the key given.
	ErrSignature = errors.New("signature does not verify")
	// ErrKey: a private key cannot sign.
	ErrKey = errors.New("key cannot sign")
)

// Signer makes the signature of an envelope of the given document type over the PAE.
type Signer interface {
	keyID() string
	signPAE(docType string, pae []byte) ([]byte, error)
}

// Verifier checks the signature of an envelope of the given document type over the PAE.
type Verifier interface {
	verifyPAE(docType string, pae, sig []byte) error
}

func (k *PrivateKey) keyID() string { return keyID(k.public.bytes[:]) }

func (k *PrivateKey) signPAE(docType string, pae []byte) ([]byte, error) {
	return k.sign(context(docType), pae)
}

func (k *PublicKey) verifyPAE(docType string, pae, sig []byte) error {
	return k.verify(context(docType), pae, sig)
}

func context(docType string) string { return "sallyport/v1/" + docType }

// SessionKey signs read requests for the few minutes that a session lasts: Ed25519 alone (RFC 8032), over the PAE.
type SessionKey struct {
	redact.Redacted

	private ed25519.PrivateKey
}

// NewSessionKey draws a fresh key.
func NewSessionKey() *SessionKey {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil { // crypto/rand never fails
		panic(err)
	}
	return &SessionKey{private: private}
}

// Public is the key to put into the session document.
func (k *SessionKey) Public() SessionPublicKey {
	return SessionPublicKey(k.private.Public().(ed25519.PublicKey))
}

// Sign signs a message as it is, for callers who bind it to its purpose themselves (HTTP requests of a login).
func (k *SessionKey) Sign(message []byte) []byte { return ed25519.Sign(k.private, message) }

// Zero overwrites the key.
func (k *SessionKey) Zero() { clear(k.private) }

func (k *SessionKey) keyID() string { p := k.Public(); return keyID(p[:]) }

func (k *SessionKey) signPAE(_ string, pae []byte) ([]byte, error) { return k.Sign(pae), nil }

// SessionPublicKey is an Ed25519 public key, 32 bytes.
type SessionPublicKey [ed25519.PublicKeySize]byte

// Verify checks a signature made by [SessionKey.Sign].
func (k SessionPublicKey) Verify(message, sig []byte) error {
	if !ed25519.Verify(k[:], message, sig) {
		return ErrSignature
	}
	return nil
}

func (k SessionPublicKey) verifyPAE(_ string, pae, sig []byte) error { return k.Verify(pae, sig) }

// MarshalText is the base64 form.
func (k SessionPublicKey) MarshalText() ([]byte, error) {
	return []byte(base64.StdEncoding.EncodeToString(k[:])), nil
}

// UnmarshalText accepts exactly the base64 form of 32 bytes.
func (k *SessionPublicKey) UnmarshalText(text []byte) error {
	raw, err := decodeBase64(text)
	if err != nil || len(raw) != len(k) {
		return fmt.Errorf("%w: a session key is the base64 of %d bytes", ErrMalformed, len(k))
	}
	copy(k[:], raw)
	return nil
}

// keyID is a hint for people and tools; nothing is decided by it.
func keyID(public []byte) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:8])
}

// Envelope is one signed document as it came. Its fields are unverified until Verify said otherwise.
type Envelope struct {
	Raw     []byte   // the envelope's own JSON, as received
	Type    string   // the document type, such as "grant"
	Payload []byte   // the document's JSON
	Hash    [32]byte // SHA-256 over the PAE
	sig     []byte
	second  []byte // of a type that has two signatures
}

// twice is the one type of document that has two signatures: of whom it puts in and of whom it takes the place of.
const twice = "succession"

// Seal signs a document under its own type. A succession is signed by its new key first, and by another that says that it may.
func Seal(signer Signer, doc Document, more ...Signer) (*Envelope, error) {
	docType := doc.DocumentType()
	payload, err := json.Marshal(doc, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encoding a %s: %w", docType, err)
	}
	payloadType := typePrefix + docType + typeSuffix
	pae := dsse.PAE(payloadType, payload)
	w := wireEnvelope{PayloadType: payloadType, Payload: payload}
	for _, k := range append([]Signer{signer}, more...) {
		sig, err := k.signPAE(docType, pae)
		if err != nil {
			return nil, fmt.Errorf("signing a %s: %w", docType, err)
		}
		w.Signatures = append(w.Signatures, wireSignature{KeyID: k.keyID(), Sig: sig})
	}
	raw, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("encoding a %s: %w", docType, err)
	}
	return Parse(raw)
}

type wireEnvelope struct {
	PayloadType string          `json:"payloadType"`
	Payload     []byte          `json:"payload"`
	Signatures  []wireSignature `json:"signatures"`
}

type wireSignature struct {
	KeyID string `json:"keyid,omitempty"`
	Sig   []byte `json:"sig"`
}

// Parse reads an envelope strictly. It verifies nothing.
func Parse(raw []byte) (*Envelope, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("%w: an envelope has at most %d bytes, this has %d", ErrMalformed, MaxSize, len(raw))
	}
	var w wireEnvelope
	if err := Decode(raw, &w); err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	docType, ok := strings.CutPrefix(w.PayloadType, typePrefix)
	docType, ok2 := strings.CutSuffix(docType, typeSuffix)
	if !ok || !ok2 || !isType(docType) {
		return nil, fmt.Errorf("%w: envelope: unknown payload type %.80q", ErrMalformed, w.PayloadType)
	}
	want := 1
	if docType == twice {
		want = 2
	}
	if len(w.Signatures) != want {
		return nil, fmt.Errorf("%w: envelope: a %s has exactly %d signature(s), this has %d", ErrMalformed, docType, want, len(w.Signatures))
	}
	if len(w.Payload) == 0 {
		return nil, fmt.Errorf("%w: envelope: no payload", ErrMalformed)
	}
	e := &Envelope{
		Raw: bytes.Clone(raw), Type: docType, Payload: w.Payload, sig: w.Signatures[0].Sig,
		Hash: sha256.Sum256(dsse.PAE(w.PayloadType, w.Payload)),
	}
	if want == 2 {
		e.second = w.Signatures[1].Sig
	}
	return e, nil
}

// isType tells what may be a document type: 1 to 32 of a-z and '-'. It goes into errors and logs as it is.
func isType(docType string) bool {
	return len(docType) >= 1 && len(docType) <= 32 && strings.Trim(docType, "abcdefghijklmnopqrstuvwxyz-") == ""
}

// Verify checks the signature. The caller found the key by other means than this envelope, except where a document is
// self-certifying (an identity's first).
func (e *Envelope) Verify(key Verifier) error {
	if e.Type == twice {
		return fmt.Errorf("%s: %w: it has two signatures, and one key was given", e.Type, ErrSignature)
	}
	return e.verify(key, e.sig)
}

// VerifyTwo checks the two signatures of a succession, each under its own key.
func (e *Envelope) VerifyTwo(first, second Verifier) error {
	if e.Type != twice {
		return fmt.Errorf("%s: %w: it has one signature, and two keys were given", e.Type, ErrSignature)
	}
	if err := e.verify(first, e.sig); err != nil {
		return err
	}
	return e.verify(second, e.second)
}

func (e *Envelope) verify(key Verifier, sig []byte) error {
	pae := dsse.PAE(typePrefix+e.Type+typeSuffix, e.Payload)
	if err := key.verifyPAE(e.Type, pae, sig); err != nil {
		return fmt.Errorf("%s: %w", e.Type, err)
	}
	return nil
}

// Document is a payload that knows the type it was decoded with.
type Document interface{ DocumentType() string }

// Decode reads the payload strictly into doc and refuses a payload whose "type" is not the envelope's.
func (e *Envelope) Decode(doc Document) error {
	if err := Decode(e.Payload, doc); err != nil {
		return fmt.Errorf("%s: %w", e.Type, err)
	}
	if doc.DocumentType() != e.Type {
		return fmt.Errorf("%w: the payload says it is a %q, the envelope says %q", ErrMalformed, doc.DocumentType(), e.Type)
	}
	return nil
}

// Decode is the strict JSON decoder of everything that comes from outside: unknown, doubled or differently spelt
// members, invalid UTF-8 and bytes after the value are refused with [ErrMalformed].
func Decode(data []byte, v any) error {
	if err := json.Unmarshal(data, v, json.RejectUnknownMembers(true), strictBytes); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// strictBytes reads bytes with decodeBase64 where the JSON package would let the unused bits of the last character be anything.
var strictBytes = json.WithUnmarshalers(json.UnmarshalFunc(func(value []byte, out *[]byte) error {
	if string(value) == "null" {
		*out = nil
		return nil
	}
	text, err := jsontext.AppendUnquote(nil, value)
	if err != nil {
		return err
	}
	*out, err = decodeBase64(text)
	return err
}))

// decodeBase64 accepts the one spelling that encoding makes (RFC 4648 section 4): padded, without line breaks, the unused bits zero.
func decodeBase64(text []byte) ([]byte, error) {
	if bytes.IndexByte(text, '\r') >= 0 || bytes.IndexByte(text, '\n') >= 0 { // which even the strict decoder skips
		return nil, fmt.Errorf("%w: a line break within base64", ErrMalformed)
	}
	return base64.StdEncoding.Strict().AppendDecode([]byte{}, text)
}
