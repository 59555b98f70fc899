package hardware

import (
	"context"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	naming "github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/policies/redact"
)

// Vouch signs, with the ceremony key, that a business's name is its own, or that this is not said any more. That key is offline as a rule and every client pinned it, so nobody who breaks into
// storefront or vault can make names.
//
// Whoever runs it has checked that the identity is that business's: its id came from the business itself, on paper say, and never from a storefront.
type Vouch struct {
	redact.Redacted

	// Dir is the folder of the ceremony; CeremonyKey is the ceremony key's file, and Passphrase opens it.
	Dir, CeremonyKey string
	Passphrase       []byte
	// ID is the business's id, as it gave it; Identity its document, from anywhere: its hash is the id.
	ID       policies.IdentityID
	Identity []byte
	// Life is for how long the voucher is good, at most 400 days. Withdrawn, in place of it, ends those before.
	Life      time.Duration
	Withdrawn bool
}

// Run signs. The serial number is the time in milliseconds, so no list of vouchers need be kept here: of two the later counts.
func (c *Vouch) Run(context.Context) (*envelope.Envelope, *naming.Voucher, error) {
	record, key, unlock, err := openFolder(c.Dir, c.CeremonyKey, c.Passphrase)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	defer key.Zero()
	signed, err := envelope.Parse(c.Identity)
	if err != nil {
		return nil, nil, fmt.Errorf("the identity's document: %w", err)
	}
	identity, id, err := policies.OpenIdentity(signed)
	if err != nil {
		return nil, nil, fmt.Errorf("the identity's document: %w", err)
	}
	if id != c.ID {
		return nil, nil, fmt.Errorf("%w: the document is of the identity %s, which is another", policies.ErrMalformed, id)
	}
	now := time.Now()
	d := &naming.Voucher{
		Header: policies.NewHeader("voucher", now), Audience: record.Vault.Vault, Identity: id, Name: identity.Name, Serial: uint64(now.UnixMilli()), Withdrawn: c.Withdrawn,
	}
	if !c.Withdrawn {
		d.NotBefore, d.Expires = now.Unix(), now.Add(c.Life).Unix()
	}
	e, err := policies.Sign(key, d)
	if err != nil {
		return nil, nil, err
	}
	return e, d, nil
}
