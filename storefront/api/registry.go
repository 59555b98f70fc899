package api

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
)

// Paths of the identity registry.
const (
	PathRegistrations = "/v1/registrations" // POST, the identity's login, a registration's envelope: 201
	PathLookups       = "/v1/lookups"       // POST, any login, [Lookup]: [Found]
)

// Lookup asks for an identity that may be looked up by introduction only. The introduction is for the caller, and serves once: until it ends, the caller looks up
// without it from then on. Owner is somebody whose grant to the caller names the identity as an author.
type Lookup struct {
	Identity     policies.IdentityID `json:"identity"`
	Introduction jsontext.Value      `json:"introduction,omitzero"` // envelope
	Owner        policies.OwnerID    `json:"owner,omitzero"`
}

// Found is an identity as the registry has it. Whoever asked compares the document's hash with the id that it has from elsewhere.
type Found struct {
	Identity     jsontext.Value `json:"identity"`              // envelope of the first document
	Successions  []Succession   `json:"successions"`           // oldest first
	Registration jsontext.Value `json:"registration,omitzero"` // envelope of the newest; absent: none
}
