// Package api is what devices and a key server say to each other: paths, JSON bodies, and the two documents that an identity signs for it.
// It is a leaf that both sides import. Package vault/keyserver says what a key server is.
//
// Every request carries an access token of the storefront, in the header Authorization as RFC 6750 has it. The token only lets the caller
// ask; what a caller may have rests on a signature of the identity, or on a proof of the password or of the recovery sheet.
package api

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/pre/password"
)

// Paths. Errors are RFC 9457 problem documents. The scope is that of the access token.
const (
	PathServer   = "/v1/keyserver"          // GET, no token: [Server]
	PathAsk      = "/v1/keyserver/ask"      // POST, scope account, [Signed] with a [Question]: [Answer]
	PathAccount  = "/v1/keyserver/account"  // POST, scope account, [Signed] with an [Account]: [Answer]
	PathEvaluate = "/v1/keyserver/evaluate" // POST, any scope, [Evaluation]: [Evaluated]. Counted.
	PathOpen     = "/v1/keyserver/open"     // POST, any scope, [Proof]: [Opened]
	PathKit      = "/v1/keyserver/kit"      // POST, any scope, [KitProof]: [Opened]
)

// Bounds.
const (
	// Tries is how many passwords may be tried until a right one, or the identity's signature, begins the count anew.
	Tries = 10
	// MaxProfile is the length of the longest sealed profile in bytes: an envelope has at most 1 MiB, and the profile is in it in base64 in base64.
	MaxProfile = 512 << 10
	// MaxAsk is that of the longest request with a question: MaxSuccessions and their receipts, some 26 kB each, besides.
	MaxAsk = 512 << 10
	// MaxBody is that of the longest request: MaxAsk, and the envelope of an account.
	MaxBody = MaxAsk + 1<<20
	// MaxSuccessions is how often an identity's keys may have been replaced.
	MaxSuccessions = 16
	// Lifetime is how long a question is taken after it was signed, clock skew besides.
	Lifetime = time.Minute
)

// Scopes of an access token: that of a device that is logged in, and that of one that has nothing yet.
const (
	ScopeAccount = "account"
	ScopeRestore = "restore"
)

// Server says who a key server is. A device signs for this id alone.
type Server struct {
	ID policies.VaultID `json:"id"` // that of its ceremony
}

// Signed is a document with the identity that signed it, so that the key server needs no directory.
type Signed struct {
	Identity    jsontext.Value `json:"identity"`              // envelope of the identity's first document
	Successions []Succession   `json:"successions,omitempty"` // how the identity came to the key that signed, oldest first, at most MaxSuccessions
	Document    jsontext.Value `json:"document"`              // envelope of a Question or an Account
}

// Succession is how an identity came to its next key: the vault's receipt says that it is in force.
type Succession struct {
	Document jsontext.Value    `json:"document"` // envelope
	Receipt  *evidence.Receipt `json:"receipt"`
}

// Acts are what a [Question] may ask for.
const (
	ActState   = "state"   // nothing but the answer
	ActPrepare = "prepare" // a fresh key in the token for the next password, and the answer for Blinded
	ActUnlock  = "unlock"  // begin the count of tries anew
	ActDelete  = "delete"  // there is no account any more
)

// Question is signed by a device that has the identity's key.
type Question struct {
	policies.Header
	Audience policies.VaultID `json:"aud"`
	Owner    policies.OwnerID `json:"owner"`
	Act      string           `json:"act"`
	Blinded  []byte           `json:"blinded,omitempty"` // of ActPrepare, 32 bytes
	Serial   uint64           `json:"serial,omitzero"`   // of ActUnlock and ActDelete: that of the state it is based on, so that it works once
}

// Validate checks the form.
func (d *Question) Validate() error {
	if err := header(&d.Header, "key-question"); err != nil {
		return err
	}
	switch {
	case d.Audience.IsZero() || d.Owner.IsZero():
		return fmt.Errorf("%w: key question: key server and owner are needed", policies.ErrMalformed)
	case d.Act != ActState && d.Act != ActPrepare && d.Act != ActUnlock && d.Act != ActDelete:
		return fmt.Errorf("%w: key question: the act is state, prepare, unlock or delete", policies.ErrMalformed)
	case (d.Act == ActPrepare) != (len(d.Blinded) > 0) || len(d.Blinded) > 0 && len(d.Blinded) != 32:
		return fmt.Errorf("%w: key question: 32 blinded bytes go with prepare", policies.ErrMalformed)
	case d.Act != ActUnlock && d.Act != ActDelete && d.Serial != 0:
		return fmt.Errorf("%w: key question: a serial number goes with unlock and delete", policies.ErrMalformed)
	}
	return nil
}

// Live refuses a question outside its time.
func (d *Question) Live(now time.Time) error {
	if now.Add(policies.ClockSkew).Unix() < d.Time || now.Add(-policies.ClockSkew-Lifetime).Unix() > d.Time {
		return policies.CodeExpired
	}
	return nil
}

// Account is what a key server keeps for an identity, signed by it: the profile, sealed under a key that only devices have, and that key
// wrapped under the password and under the recovery sheet, each of which may be missing. The next version replaces the whole.
type Account struct {
	policies.Header
	Audience policies.VaultID `json:"aud"`
	Owner    policies.OwnerID `json:"owner"`
	Version  uint64           `json:"version"` // one more than the one before; the first is 1
	Prev     policies.Hash    `json:"prev"`    // of the one before, zero for the first
	Profile  []byte           `json:"profile"` // nonce, 12 bytes, and AES-256-GCM with the owner as associated data: account-profile(owner)
	Password *PasswordLock    `json:"password,omitzero"`
	Kit      *KitLock         `json:"kit,omitzero"`
}

// PasswordLock is the profile's key under the password. See package password for what its parts are.
type PasswordLock struct {
	Key      policies.DocumentID `json:"key"` // of the token: the one that was prepared last, or the one before's
	Salt     []byte              `json:"salt"`
	Verifier policies.Hash       `json:"verifier"`
	Wrapped  []byte              `json:"wrapped"`
}

// KitLock is the profile's key under the recovery sheet.
type KitLock struct {
	Verifier policies.Hash `json:"verifier"`
	Wrapped  []byte        `json:"wrapped"`
}

// wrappedSize is that of a wrapped profile key in bytes.
const wrappedSize = 32 + password.Overhead

// Validate checks the form.
func (d *Account) Validate() error {
	if err := header(&d.Header, "key-account"); err != nil {
		return err
	}
	switch p, k := d.Password, d.Kit; {
	case d.Audience.IsZero() || d.Owner.IsZero():
		return fmt.Errorf("%w: key account: key server and owner are needed", policies.ErrMalformed)
	case d.Version == 0 || d.Version > 1<<53 || (d.Version == 1) != (d.Prev == policies.Hash{}):
		return fmt.Errorf("%w: key account: versions count from 1, and all but the first name the one before", policies.ErrMalformed)
	case len(d.Profile) < 12+16 || len(d.Profile) > MaxProfile:
		return fmt.Errorf("%w: key account: a sealed profile of at most %d bytes is needed", policies.ErrMalformed, MaxProfile)
	case p != nil && (p.Key.IsZero() || len(p.Salt) != password.SaltSize || p.Verifier == policies.Hash{} || len(p.Wrapped) != wrappedSize):
		return fmt.Errorf("%w: key account: the password's part is not complete", policies.ErrMalformed)
	case k != nil && (k.Verifier == policies.Hash{} || len(k.Wrapped) != wrappedSize):
		return fmt.Errorf("%w: key account: the recovery sheet's part is not complete", policies.ErrMalformed)
	}
	return nil
}

// header checks what all documents share.
func header(h *policies.Header, docType string) error {
	if h.Type != docType || h.Suite != policies.Suite || h.ID.IsZero() || h.Time <= 0 {
		return fmt.Errorf("%w: not a %s of suite %s with id and time", policies.ErrMalformed, docType, policies.Suite)
	}
	return nil
}

// Answer is the state of an account after a signed request.
type Answer struct {
	Version  uint64              `json:"version"`           // 0: there is no account yet
	Hash     policies.Hash       `json:"hash,omitzero"`     // of the newest Account
	Serial   uint64              `json:"serial"`            // grows with each change, right proof and unlocking
	Tried    int                 `json:"tried"`             // passwords since the count began
	Key      policies.DocumentID `json:"key,omitzero"`      // of ActPrepare: the fresh key
	X        []byte              `json:"x,omitempty"`       // of ActPrepare: its answer for Blinded
	Document jsontext.Value      `json:"document,omitzero"` // of ActState: the newest Account's envelope
}

// Evaluation asks for the answer to one password.
type Evaluation struct {
	Owner   policies.OwnerID `json:"owner"`
	Blinded []byte           `json:"blinded"`
}

// Evaluated is the answer. It has the same form whether there is an account or not.
type Evaluated struct {
	Attempt policies.DocumentID `json:"attempt"` // for one proof
	X       []byte              `json:"x"`
	Salt    []byte              `json:"salt"`
	Left    int                 `json:"left"` // tries after this one
}

// Proof shows that the password was right.
type Proof struct {
	Attempt policies.DocumentID `json:"attempt"`
	Proof   []byte              `json:"proof"`
}

// KitProof shows the recovery sheet.
type KitProof struct {
	Owner policies.OwnerID `json:"owner"`
	Proof []byte           `json:"proof"`
}

// Opened is the newest account. What the device makes of it must carry the owner's id, or it is not used.
type Opened struct {
	Document jsontext.Value `json:"document"` // envelope of an Account
}

// ReadAccount reads an account's document without verifying its signature: on a new device, the identity that signed it lies inside, sealed. What it returns
// is a claim.
func ReadAccount(raw jsontext.Value) (*Account, error) {
	e, err := envelope.Parse(raw)
	if err != nil {
		return nil, err
	}
	return policies.Decode[Account](e)
}

// OpenAccount verifies an account's document under an identity's signing key.
func OpenAccount(raw jsontext.Value, signingKey []byte) (*Account, policies.Hash, error) {
	e, err := envelope.Parse(raw)
	if err != nil {
		return nil, policies.Hash{}, err
	}
	key, err := envelope.ParsePublicKey(signingKey)
	if err != nil {
		return nil, policies.Hash{}, err
	}
	d, err := policies.Open[Account](e, key)
	if err != nil {
		return nil, policies.Hash{}, err
	}
	return d, e.Hash, nil
}
