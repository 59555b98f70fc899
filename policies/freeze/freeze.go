// Package freeze is how the operator of a vault stops all reading of a person who has lost everything: every device, every backup, the recovery sheet.
// Such a person can revoke nothing. They come in person, two operators see who it is, each by themselves, and each signs.
//
// The first operator signs an [Order]. The second one looks at the person again, and signs a [Document] that has the order within. The vault takes it if both are on
// its list and are not the same, records it in the person's history, and from there on releases nothing of that person ([policies.CodeFrozen]). Nothing else changes: grants, keys
// and items stay as they are, so a freeze only narrows.
//
// Operators cannot take a freeze back. The person can, with a [Thaw]: a link of their own chain, signed by the key in force. Who finds the device again has that key; who finds
// the first backup or a sheet gets it back, or a new one by a succession. A thaw ends what was frozen when the person decided it: one that waited on a device which is lost since, or
// that somebody held back, does not end a freeze that came later.
//
// An order is taken once, and within a day ([Lifetime]): after a thaw neither operator alone, nor who kept a copy, freezes anew.
package freeze

import (
	"fmt"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

// Lifetime is the time that the second operator has at most.
const Lifetime = 24 * time.Hour

// Document types.
const (
	orderType = "freeze-order"
	docType   = "freeze"
	thawType  = "thaw"
)

// Order is signed by the first operator. No vault acts on it alone.
type Order struct {
	policies.Header
	Audience policies.VaultID    `json:"aud"`
	Owner    policies.OwnerID    `json:"owner"`
	Operator policies.IdentityID `json:"operator"` // who signs
	Expires  int64               `json:"expires"`  // exclusive, Unix seconds, at most Lifetime after time
}

// Validate checks the form.
func (d *Order) Validate() error {
	if err := d.Check(orderType); err != nil {
		return err
	}
	if d.Audience.IsZero() || d.Owner.IsZero() || d.Operator.IsZero() {
		return fmt.Errorf("%w: freeze order: vault, owner and operator are needed", policies.ErrMalformed)
	}
	if d.Expires <= d.Time || d.Expires-d.Time > int64(Lifetime/time.Second) {
		return fmt.Errorf("%w: freeze order: it expires at most %s after its time", policies.ErrMalformed, Lifetime)
	}
	return nil
}

// Live refuses an order outside its time.
func (d *Order) Live(now time.Time) error {
	if now.Add(policies.ClockSkew).Unix() < d.Time || now.Unix() >= d.Expires {
		return policies.CodeExpired
	}
	return nil
}

// Document is signed by the second operator: all reading of the owner ends.
type Document struct {
	policies.Header
	Audience policies.VaultID    `json:"aud"`
	Owner    policies.OwnerID    `json:"owner"`
	Operator policies.IdentityID `json:"operator"` // who signs
	Order    []byte              `json:"order"`    // envelope of the first operator's
}

// Validate checks the form of both documents, and that they say the same and are of two operators.
func (d *Document) Validate() error {
	if err := d.Check(docType); err != nil {
		return err
	}
	if d.Audience.IsZero() || d.Owner.IsZero() || d.Operator.IsZero() {
		return fmt.Errorf("%w: freeze: vault, owner and operator are needed", policies.ErrMalformed)
	}
	o, _, err := d.First()
	switch {
	case err != nil:
		return err
	case o.Audience != d.Audience || o.Owner != d.Owner:
		return fmt.Errorf("%w: freeze: the order is for another vault, or of another owner", policies.ErrMalformed)
	case o.Operator == d.Operator:
		return fmt.Errorf("%w: freeze: two operators are needed, and both signatures are of one", policies.ErrMalformed)
	}
	return nil
}

// First is the first operator's order, with its envelope. Its signature is not verified here.
func (d *Document) First() (*Order, *envelope.Envelope, error) {
	e, err := envelope.Parse(d.Order)
	if err != nil {
		return nil, nil, err
	}
	o, err := policies.Decode[Order](e)
	return o, e, err
}

// Thaw ends every freeze of the owner who signs it, up to its time: when the person decided it.
type Thaw struct {
	policies.Header
	Audience      policies.VaultID `json:"aud"`
	Owner         policies.OwnerID `json:"owner"`
	policies.Link                  // seq, prev: in the owner's chain
}

// Validate checks the form.
func (d *Thaw) Validate() error {
	if err := d.Check(thawType); err != nil {
		return err
	}
	if d.Audience.IsZero() || d.Owner.IsZero() || d.Seq == 0 {
		return fmt.Errorf("%w: thaw: vault, owner and seq are needed", policies.ErrMalformed)
	}
	return nil
}

// Ends refuses a thaw that was decided before the newest freeze was recorded, at frozen by the vault's log, to the second. No skew is allowed for: what was decided a minute
// before a freeze must not end it, and a person whose clock is late asks again when it has got there. One of a later time than now can be would end what is not frozen yet.
func (d *Thaw) Ends(frozen, now time.Time) error {
	if d.Time < frozen.Unix() || now.Add(policies.ClockSkew).Unix() < d.Time {
		return policies.CodeExpired
	}
	return nil
}
