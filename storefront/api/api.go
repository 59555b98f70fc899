// Package api is what people, businesses and their SDKs say to a storefront: paths and JSON bodies. It is a leaf that both
// sides import.
//
// Whoever speaks it logs in once ([LoginChallenge], [LoginAnswer]) and then signs every request with the login's fresh key (see [Sign]);
// there is no bearer token to steal. What matters is signed by owners and readers themselves, in documents of package policies: the
// login only keeps strangers from asking.
package api

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
)

// Paths. Errors are RFC 9457 problem documents, see package problem. "Login" says whose login a request must be signed with.
const (
	PathVault         = "/v1/vault"                       // GET, open: the vault document's envelope
	PathHealth        = "/v1/health"                      // GET, open: [Health]
	PathIdentities    = "/v1/identities"                  // POST, open, an identity's envelope: evidence.Receipt
	PathIdentity      = "/v1/identities/{id}"             // GET, open: the identity's envelope
	PathSuccessions   = "/v1/identities/{id}/successions" // POST, open, the envelope of a succession, a notice, a suspension or a thaw, or again the closure of a closed account: evidence.Receipt. GET, open: [Successions]
	PathChallenges    = "/v1/logins/challenges"           // POST, open, [ChallengeRequest]: [LoginChallenge]
	PathLogins        = "/v1/logins"                      // POST, open, [LoginAnswer]: [Login]
	PathRelationships = "/v1/relationships"               // POST, the reader's login, a relationship's envelope: 201. GET ?after=CURSOR or ?with=ID, the login's own: [Envelopes]
	PathManifests     = "/v1/owners/{owner}/manifests"    // POST, the author's login, [Publication]: evidence.Receipt
	PathMirror        = "/v1/owners/{owner}/mirror"       // GET ?author=, the author's or owner's login: [Mirror]
	PathItem          = "/v1/owners/{owner}/items/{leaf}" // GET, the owner's login: the ciphertext, application/octet-stream
	PathChain         = "/v1/owners/{owner}/chain"        // GET ?after=SEQ, the owner's login: [Chain]
	PathGrants        = "/v1/owners/{owner}/grants"       // POST, the owner's login, vault api.Submission: evidence.Receipt
	PathRevocations   = "/v1/owners/{owner}/revocations"  // POST, the owner's login, vault api.Submission: evidence.Receipt; 202: in force, and to be sent again
	PathClosure       = "/v1/owners/{owner}/closure"      // POST, the owner's login, a closure's envelope: evidence.Receipt
	PathHistory       = "/v1/owners/{owner}/history"      // GET ?before=&limit=, the owner's login: vault api.History
	PathFreeze        = "/v1/owners/{owner}/freeze"       // GET, the owner's login: vault api.FreezeState
	PathConsistency   = "/v1/log/consistency"             // GET ?from=&to=, no login: vault api.Consistency
	PathRenunciations = "/v1/renunciations"               // POST, the reader's login, a renunciation's envelope: evidence.Receipt; 202: in force, and to be sent again. GET ?after=INDEX, the owner's login: [Renunciations]
	PathVoucher       = "/v1/identities/{id}/voucher"     // POST, open, a voucher's envelope: evidence.Receipt. GET, open: [Vouched], or 404
	PathReaderGrants  = "/v1/grants"                      // GET ?owner=ID&after=CURSOR, the reader's login: [ReaderGrants]
	PathSessions      = "/v1/sessions"                    // POST, the reader's login, a session's envelope: evidence.Receipt
	PathEvidence      = "/v1/evidence"                    // POST, no login: a request for evidence, signed by its session: vault api.SealedEvidence
	PathMessages      = "/v1/messages"                    // POST, the sender's login, [Message]: 201. GET ?after=&wait=, the receiver's login: [Messages]. DELETE ?through=, the receiver's login: 204
	PathReads         = "/v1/reads"                       // POST, no login: signed by its session: [Read]: [ReadResult]
)

// MaxBody is the longest request body in bytes, for publications; other routes allow less.
const MaxBody = 16 << 20

// Health tells whether reads can be served, and changes accepted.
type Health struct {
	Status string `json:"status"` // "ok" or "degraded"
	Reason string `json:"reason,omitempty"`
}

// ChallengeRequest begins a login: who, and the fresh Ed25519 key that is to sign the requests.
type ChallengeRequest struct {
	Subject policies.IdentityID       `json:"subject"`
	Key     envelope.SessionPublicKey `json:"key"`
}

// LoginChallenge asks for proof that the device holds the identity's login key. The answer is an HMAC over ciphertext and nonce, which no
// other challenge has, besides server, subject and fresh key; no device ever returns a decapsulated secret.
type LoginChallenge struct {
	ID         policies.DocumentID `json:"id"`
	Ciphertext []byte              `json:"ct"` // X-Wing, to the identity's login key
	Nonce      policies.Nonce      `json:"nonce"`
	Expires    int64               `json:"expires"` // Unix seconds
}

// LoginAnswer ends a login. Proof is the answer of pre.LoginKey to a pre.Challenge whose Server is the authority (host:port, lower case,
// as in the URL) under which the device knows the storefront, whatever the storefront says. 32 bytes.
type LoginAnswer struct {
	ID    policies.DocumentID `json:"id"`
	Proof []byte              `json:"proof"`
}

// Login is valid until it expires, for requests signed with its key. ID goes into the signature's keyid.
type Login struct {
	ID      policies.DocumentID `json:"id"`
	Expires int64               `json:"expires"` // Unix seconds
}

// Envelopes is a page of a list of signed documents.
type Envelopes struct {
	Envelopes []jsontext.Value `json:"envelopes"`
	After     string           `json:"after,omitempty"` // cursor of the next page; empty: there is none
}

// Publication is a manifest and the items that changed since the one before.
type Publication struct {
	Manifest jsontext.Value   `json:"manifest"` // envelope
	Items    []Item           `json:"items,omitempty"`
	Removed  []policies.Field `json:"removed,omitempty"` // fields that have no leaf any more
	// Ahead: these are some of the manifest's items, of which there are more than one body holds. They are kept for ten minutes, and nothing is
	// published. The manifest comes again, with all leaves and the ciphertexts that are missing.
	Ahead bool `json:"ahead,omitzero"`
}

// Item is a leaf and, unless the storefront has it already (a rotation moves capsules only), its ciphertext.
type Item struct {
	Leaf       []byte `json:"leaf"`
	Ciphertext []byte `json:"ciphertext,omitempty"`
}

// Mirror is everything an author published for an owner that is current, for the owner's own copy and a second device.
type Mirror struct {
	Manifest jsontext.Value    `json:"manifest,omitzero"` // envelope; absent before the first
	Receipt  *evidence.Receipt `json:"receipt,omitempty"`
	Leaves   [][]byte          `json:"leaves,omitempty"` // in tree order
}

// Chain is a piece of an owner's chain, oldest first.
type Chain struct {
	Documents []jsontext.Value `json:"documents"` // envelopes of manifests, grants, revocations, successions and their notices
	More      bool             `json:"more,omitzero"`
}

// ReaderGrants is a page of the grants that name the caller as reader and are in force as far as the storefront knows.
type ReaderGrants struct {
	Grants []jsontext.Value `json:"grants"`          // envelopes
	After  string           `json:"after,omitempty"` // cursor of the next page; empty: there is none
}

// Read is a signed read request and what the reader has already, so that it need not be sent again.
type Read struct {
	Request jsontext.Value  `json:"request"`        // envelope of a read request
	Have    []policies.Hash `json:"have,omitempty"` // hashes of manifests and grants that the reader keeps
}

// ReadResult is the vault's sealed answer and the storefront's part of every item that was released.
type ReadResult struct {
	Answer    []byte           `json:"answer"`              // sealed: pre.SessionKey.OpenAnswer, policies.ParseAnswer
	Items     []ReadItem       `json:"items"`               // in the order of the request
	Documents []jsontext.Value `json:"documents,omitempty"` // envelopes of manifests and grants that the reader does not have
}

// ReadItem is what the storefront adds to one item. What the reader relies on is checked against answer and manifest.
type ReadItem struct {
	Outcome    policies.Code  `json:"outcome"` // a hint; the answer decides
	Leaf       []byte         `json:"leaf,omitempty"`
	Proof      policies.Proof `json:"proof,omitzero"`
	Manifest   policies.Hash  `json:"manifest,omitzero"`
	Grant      policies.Hash  `json:"grant,omitzero"`
	Ciphertext []byte         `json:"ciphertext,omitempty"`
}
