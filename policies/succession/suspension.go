package succession

import (
	"fmt"

	"github.com/sallyport/sallyport/policies"
)

// Suspension ends the use of all grants that a reader has at once, whoever granted them: what a business orders when its safe of keys is stolen. The key in force signs it,
// and it is a link of the reader's own chain, so that an old one does not end what owners grant afterwards. It only narrows.
type Suspension struct {
	policies.Header
	Audience      policies.VaultID  `json:"aud"`
	Reader        policies.ReaderID `json:"reader"`
	policies.Link                   // seq, prev: in the reader's chain
}

// Validate checks the form.
func (d *Suspension) Validate() error {
	if err := d.Check("suspension"); err != nil {
		return err
	}
	if d.Audience.IsZero() || d.Reader.IsZero() || d.Seq == 0 {
		return fmt.Errorf("%w: suspension: vault, reader and seq are needed", policies.ErrMalformed)
	}
	return nil
}
