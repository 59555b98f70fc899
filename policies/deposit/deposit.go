// Package deposit is how a requester gets from a source what the source knows of a customer: a bank proof of income from an employer. The three are a reader, an owner and
// another reader who writes.
//
// The requester sends the customer a [Specification]: a request for consent (package consent) that names the source. The customer decides, grants the requester to read and the source
// to write, which the vault enforces, and signs an [Order] for the source. The order is sealed to the source and goes to the requester inside a [Slip], who hands it on inside a [Forward]
// and cannot open it. The source verifies both signatures ([Order.Match], [Order.Check]), and writes the value under the customer's write grant, wrapped with its [Attestation] ([Wrap]). The customer
// may be offline by then. The requester reads through the token and checks the attestation against what it asked for ([Attestation.Check]).
//
// # What is refused
//
// An order whose specification the requester did not sign, or that says other than this ([policies.CodeSpecification]); that names fields which were not asked for
// ([policies.CodeTooWide]); that another forwards ([policies.CodeForwarder]). An attestation by another source ([policies.CodeSource]); for another value, field, person,
// specification or order ([policies.CodeAttestation]). An order serves once: the source's program knows which it has carried out ([policies.CodeOrderUsed]).
package deposit

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	"github.com/sallyport/sallyport/policies/envelope"
)

// MaxFields is how many fields one specification may name: it travels signed within an order within a slip.
const MaxFields = 8

// maxSealed is the length of a sealed order in bytes, at most.
const maxSealed = 48 << 10

// Specification asks a customer for fields that a source is to deposit. The reasons say what the source shall state.
type Specification struct {
	consent.Request
	Source policies.IdentityID `json:"source"`
}

// Validate checks the form.
func (d *Specification) Validate() error {
	if err := d.CheckForm("data-specification"); err != nil {
		return err
	}
	if d.Source.IsZero() || d.Source == d.From || d.Source == d.To || len(d.Fields) > MaxFields {
		return fmt.Errorf("%w: data specification: a third party as source, and at most %d fields, are needed", policies.ErrMalformed, MaxFields)
	}
	return nil
}

// Order tells the source what to deposit, for whom and until when. From is the customer, To the source; it answers the specification.
type Order struct {
	consent.Addressed
	Requester     policies.IdentityID `json:"requester"`
	Specification jsontext.Value      `json:"specification"` // the requester's envelope
	Fields        []policies.Field    `json:"fields"`        // in the order of their names, each once
	Until         int64               `json:"until"`         // Unix seconds, exclusive: when the permission to write ends
	Nonce         policies.Nonce      `json:"nonce"`
}

// Validate checks the form.
func (d *Order) Validate() error {
	if err := d.CheckParties("deposit-order"); err != nil {
		return err
	}
	if d.Answers.IsZero() || d.Requester.IsZero() || d.Requester == d.From || d.Requester == d.To || len(d.Specification) == 0 || d.Nonce.IsZero() || d.Until <= d.Time {
		return fmt.Errorf("%w: deposit order: a specification, who asked, a nonce and an end are needed", policies.ErrMalformed)
	}
	if len(d.Fields) < 1 || len(d.Fields) > MaxFields {
		return fmt.Errorf("%w: deposit order: 1 to %d fields are allowed", policies.ErrMalformed, MaxFields)
	}
	for i, f := range d.Fields {
		if err := f.Validate(); err != nil {
			return fmt.Errorf("deposit order: %w", err)
		}
		if i > 0 && d.Fields[i-1] >= f {
			return fmt.Errorf("%w: deposit order: fields in the order of their names, each once", policies.ErrMalformed)
		}
	}
	return nil
}

// Match opens the specification that an order answers, under the requester's key, and decides whether the order is an answer to it.
func (d *Order) Match(requester envelope.Verifier) (*Specification, error) {
	e, err := envelope.Parse(d.Specification)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", policies.CodeSpecification, err)
	}
	s, err := policies.Open[Specification](e, requester)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", policies.CodeSpecification, err)
	}
	if policies.Hash(e.Hash) != d.Answers || s.From != d.Requester || s.To != d.From || s.Source != d.To {
		return nil, policies.CodeSpecification
	}
	for _, f := range d.Fields {
		if !s.Names(f) {
			return nil, fmt.Errorf("%w: %s", policies.CodeTooWide, f)
		}
	}
	switch {
	case d.Until > d.Time+s.Duration:
		return nil, fmt.Errorf("%w: it lasts longer", policies.CodeTooWide)
	case d.Time >= s.Expires:
		return nil, policies.CodeConsentExpired
	}
	return s, nil
}

// Check decides whether somebody may forward an order now.
func (d *Order) Check(by policies.IdentityID, now time.Time) error {
	switch {
	case by != d.Requester:
		return policies.CodeForwarder
	case now.Unix() >= d.Expires || now.Unix() >= d.Until:
		return policies.CodeConsentExpired
	}
	return nil
}

// Slip hands the requester an order that only the source can open. From is the customer; it answers the specification.
type Slip struct {
	consent.Addressed
	Source policies.IdentityID `json:"source"`
	Order  policies.Hash       `json:"order"`  // hash of the order: the attestation names it
	Sealed []byte              `json:"sealed"` // the order, sealed from customer to source as a message is
}

// Validate checks the form.
func (d *Slip) Validate() error {
	if err := d.CheckParties("deposit-slip"); err != nil {
		return err
	}
	return checkSealed(&d.Addressed, d.Source, d.Order, d.Sealed)
}

// Forward hands the order on. From is the requester, To the source; it answers the specification.
type Forward struct {
	consent.Addressed
	Customer policies.IdentityID `json:"customer"`
	Order    policies.Hash       `json:"order"`
	Sealed   []byte              `json:"sealed"` // as it was in the slip
}

// Validate checks the form.
func (d *Forward) Validate() error {
	if err := d.CheckParties("deposit-forward"); err != nil {
		return err
	}
	return checkSealed(&d.Addressed, d.Customer, d.Order, d.Sealed)
}

func checkSealed(d *consent.Addressed, third policies.IdentityID, order policies.Hash, sealed []byte) error {
	if d.Answers.IsZero() || third.IsZero() || third == d.From || third == d.To || order.IsZero() || len(sealed) < 1 || len(sealed) > maxSealed {
		return fmt.Errorf("%w: %s: a specification, a third party and a sealed order of at most %d bytes are needed", policies.ErrMalformed, d.Type, maxSealed)
	}
	return nil
}

// Attestation is the source's word for one value. It lies inside the ciphertext, beside the value.
type Attestation struct {
	policies.Header
	Source        policies.IdentityID `json:"source"`
	Owner         policies.OwnerID    `json:"owner"`
	Requester     policies.IdentityID `json:"requester"`
	Field         policies.Field      `json:"field"`
	Specification policies.Hash       `json:"specification"`
	Order         policies.Hash       `json:"order"`
	Value         policies.Hash       `json:"value"` // SHA-256 of the value's bytes
}

// Validate checks the form.
func (d *Attestation) Validate() error {
	if err := d.Header.Check("deposit-attestation"); err != nil {
		return err
	}
	if err := d.Field.Validate(); err != nil {
		return fmt.Errorf("deposit attestation: %w", err)
	}
	if d.Source.IsZero() || d.Owner.IsZero() || d.Requester.IsZero() || d.Specification.IsZero() || d.Order.IsZero() || d.Value.IsZero() {
		return fmt.Errorf("%w: deposit attestation: three parties, specification, order and value are needed", policies.ErrMalformed)
	}
	return nil
}

// Check decides whether an attestation, whose signature was verified under the source's key, is of this value, in this field, for this specification and order.
func (d *Attestation) Check(s *Specification, specification, order policies.Hash, field policies.Field, value []byte) error {
	switch {
	case d.Source != s.Source:
		return policies.CodeSource
	case d.Owner != policies.OwnerID(s.To) || d.Requester != s.From || d.Specification != specification || d.Order != order || d.Field != field:
		return policies.CodeAttestation
	case d.Value != policies.Hash(sha256.Sum256(value)):
		return fmt.Errorf("%w: it is of another value", policies.CodeAttestation)
	}
	return nil
}

// attested is a value with its attestation, as it lies in an item.
type attested struct {
	Format      int            `json:"v"`
	Type        string         `json:"type"`
	Text        string         `json:"text"` // the value's bytes, which are JSON
	Attestation jsontext.Value `json:"attestation"`
}

// Kind is the type of a value that carries an attestation.
const Kind = "attested"

// Wrap puts a value and the envelope of its attestation together. What is attested are the value's very bytes.
func Wrap(value []byte, attestation *envelope.Envelope) ([]byte, error) {
	out, err := json.Marshal(attested{1, Kind, string(value), attestation.Raw}, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encoding an attested value: %w", err)
	}
	return out, nil
}

// Unwrap takes an attested value apart. Nothing of it is verified.
func Unwrap(data []byte) (value []byte, attestation *envelope.Envelope, err error) {
	var w attested
	if err := envelope.Decode(data, &w); err != nil {
		return nil, nil, fmt.Errorf("attested value: %w", err)
	}
	if w.Format != 1 || w.Type != Kind || len(w.Text) == 0 {
		return nil, nil, fmt.Errorf("%w: this is no attested value", policies.ErrMalformed)
	}
	if attestation, err = envelope.Parse(w.Attestation); err != nil {
		return nil, nil, fmt.Errorf("attested value: %w", err)
	}
	return []byte(w.Text), attestation, nil
}
