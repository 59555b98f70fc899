package consent

import (
	"fmt"

	"github.com/sallyport/sallyport/policies"
)

// Addressed is what documents begin with that travel sealed from one identity to another. They are for the two parties alone: no vault acts on them, and the
// storefront that carries them cannot read them. Whoever opens one compares both ids with those that the seal names.
type Addressed struct {
	policies.Header
	From    policies.IdentityID `json:"from"`
	To      policies.IdentityID `json:"to"`
	Answers policies.Hash       `json:"answers,omitzero"` // hash of the document that this one answers; zero: it begins something
	Expires int64               `json:"expires"`          // Unix seconds, exclusive; whoever gets it later throws it away
}

// Address is this part of a document, whatever the rest is.
func (d *Addressed) Address() *Addressed { return d }

// CheckParties refuses this part of a document that is declared in another package, unless it is well formed and of this type.
func (d *Addressed) CheckParties(docType string) error { return d.check(docType) }

func (d *Addressed) check(docType string) error {
	if err := d.Check(docType); err != nil {
		return err
	}
	if d.From.IsZero() || d.To.IsZero() || d.From == d.To || d.Expires <= d.Time {
		return fmt.Errorf("%w: %s: two parties, and an end after its time, are needed", policies.ErrMalformed, docType)
	}
	return nil
}
