package api

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies/evidence"
)

// Vouched is the newest voucher for an identity's name that this storefront has.
type Vouched struct {
	Document jsontext.Value    `json:"document"` // envelope
	Receipt  *evidence.Receipt `json:"receipt"`
}

// Renunciations are what readers of an owner gave up, in the order in which the storefront stored them.
type Renunciations struct {
	Renunciations []Renunciation `json:"renunciations"`
	More          bool           `json:"more,omitzero"` // ask again, after the number of the last one
}

// Renunciation is one of them.
type Renunciation struct {
	Index    uint64            `json:"index"`    // its number: the index of its entry, or more if it was stored after a later one
	Document jsontext.Value    `json:"document"` // envelope
	Receipt  *evidence.Receipt `json:"receipt"`
}
