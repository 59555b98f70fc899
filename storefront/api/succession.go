package api

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies/evidence"
)

// Successions are how an identity came to its newest keys, oldest first. Whoever relies on them verifies them from the first document on, whose hash is
// the identity's id, and each one's receipt.
type Successions struct {
	Successions []Succession `json:"successions"`
}

// Succession is a succession that the vault accepted.
type Succession struct {
	Document jsontext.Value    `json:"document"` // envelope
	Receipt  *evidence.Receipt `json:"receipt"`
}
