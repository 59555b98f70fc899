package api

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
)

// Paths of write grants: who besides the owner may publish ([PathManifests], with the author's login).
const (
	PathWriteGrants  = "/v1/owners/{owner}/write-grants" // POST, the owner's login, vault api.Submission: evidence.Receipt
	PathWriteEnds    = "/v1/owners/{owner}/write-ends"   // POST, the owner's login, vault api.Submission: evidence.Receipt; 202: in force, and to be sent again
	PathWriterGrants = "/v1/write-grants"                // GET ?after=CURSOR&owner=, the writer's login: [WriterGrants]
)

// WriterGrants is a page of the write grants that name the caller as writer and are in force as far as the storefront knows.
type WriterGrants struct {
	Grants []WriterGrant `json:"grants"`
	After  string        `json:"after,omitempty"` // cursor of the next page; empty: there is none

	// Kept are leaves, by their hashes, that owners kept when they ended what lets the caller write: of the grants of this page, and of those between them that are in force no
	// more. Nobody signed them.
	Kept []policies.Hash `json:"kept,omitempty"`
}

// WriterGrant is a write grant and which of its fields have ended. The vault goes by its own record.
type WriterGrant struct {
	Grant jsontext.Value   `json:"grant"` // envelope
	Ended []policies.Field `json:"ended,omitempty"`
}
