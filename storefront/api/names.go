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

// Renunciations are what readers of an owner gave up, and that one closed its account, in the order in which the storefront stored them.
type Renunciations struct {
	Renunciations []Renunciation `json:"renunciations"`
	More          bool           `json:"more,omitzero"` // ask again, after the number of the last one
}

// Renunciation is one of them. Without a document the receipt is that of a closure, by whoever is named in its details: all that the owner let them read and write has ended.
type Renunciation struct {
	Index    uint64            `json:"index"`             // its number: the index of its entry, or more if it was stored after a later one
	Document jsontext.Value    `json:"document,omitzero"` // envelope
	Receipt  *evidence.Receipt `json:"receipt"`
}
