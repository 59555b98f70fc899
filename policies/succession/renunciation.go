package succession

import (
	"fmt"

	"github.com/sallyport/sallyport/policies"
)

// Renunciation gives up fields of grants: a reader who needs something no longer says so, and the keys are destroyed as if the owner had revoked them. The reader's key in
// force signs it. It is no link of a chain, neither the owner's, where the reader writes nothing, nor the reader's: it names grants, which are accepted once, ever, so an old
// one ends nothing that is granted afterwards.
type Renunciation struct {
	policies.Header
	Audience policies.VaultID       `json:"aud"`
	Reader   policies.ReaderID      `json:"reader"`
	Owner    policies.OwnerID       `json:"owner"`
	Items    []policies.RevokedItem `json:"items"`
}

// Validate checks the form.
func (d *Renunciation) Validate() error {
	if err := d.Check("renunciation"); err != nil {
		return err
	}
	switch {
	case d.Audience.IsZero() || d.Reader.IsZero() || d.Owner.IsZero():
		return fmt.Errorf("%w: renunciation: vault, reader and owner are needed", policies.ErrMalformed)
	case len(d.Items) < 1 || len(d.Items) > policies.MaxRevokedItems:
		return fmt.Errorf("%w: renunciation: 1 to %d items are allowed", policies.ErrMalformed, policies.MaxRevokedItems)
	}
	for _, i := range d.Items {
		if err := i.Field.Validate(); err != nil {
			return fmt.Errorf("renunciation: %w", err)
		}
		if i.Grant.IsZero() || i.Author.IsZero() {
			return fmt.Errorf("%w: renunciation: an item needs grant and author", policies.ErrMalformed)
		}
	}
	return nil
}
