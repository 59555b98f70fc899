package policies

import "fmt"

// Closure ends an owner's account for ever. It is the last link of their chain: every grant ends with it, and its keys are destroyed as those of a revocation are. Nothing
// of that identity is accepted any more. What lies beside the owner's entries in the key-use log is erased later; the entries stay, and
// are under a pseudonym that leads to nobody then.
type Closure struct {
	Header
	Audience VaultID `json:"aud"`
	Owner    OwnerID `json:"owner"`
	Link             // seq, prev
}

// Validate checks the form.
func (d *Closure) Validate() error {
	if err := d.validate("closure"); err != nil {
		return err
	}
	if d.Audience.IsZero() || d.Owner.IsZero() || d.Seq == 0 {
		return fmt.Errorf("%w: closure: vault, owner and seq are needed", ErrMalformed)
	}
	return nil
}
