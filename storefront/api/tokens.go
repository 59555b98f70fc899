package api

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
)

// Access tokens, for the key server.
const (
	PathTokens        = "/v1/tokens"         // POST, any login, no body: [AccessToken] of scope account
	PathRestoreTokens = "/v1/tokens/restore" // #nosec G101 -- a path, no credential. POST, open, [RestoreToken]: [AccessToken]
	// PathIntrospect is not for the public: it is served on a listener of its own, to the one client certificate that is configured. POST, a form of RFC 7662:
	// whose token it is.
	PathIntrospect = "/v1/introspect"
)

// What an access token is made for and what it permits.
const (
	TokenAudience = "sallyport-keyserver"
	ScopeAccount  = "account" // a device that is logged in
	ScopeRestore  = "restore" // a device that has nothing yet
)

// AccessToken lets a device ask a key server about one identity, until it expires. It opens nothing by itself: what a key server gives out rests on a
// signature, or on a proof of the password.
type AccessToken struct {
	Token   string `json:"access_token"`
	Expires int64  `json:"expires"` // Unix seconds
}

// RestoreToken asks for a token on a new device. It is given for every id, whether there is such an identity or not. With a closing of an account that is
// closed, to which nobody logs in any more, signed by that account's key, it is one of scope account: what the key server has of it can still be deleted.
type RestoreToken struct {
	Subject policies.IdentityID `json:"subject"`
	Closing jsontext.Value      `json:"closing,omitzero"` // envelope of a closure
}

// Introspection is the answer to a key server, RFC 7662 section 2.2.
type Introspection struct {
	Active   bool   `json:"active"`
	Scope    string `json:"scope,omitempty"`
	Subject  string `json:"sub,omitempty"` // the identity's id
	Audience string `json:"aud,omitempty"`
	Expires  int64  `json:"exp,omitzero"` // Unix seconds
	Type     string `json:"token_type,omitempty"`
}
