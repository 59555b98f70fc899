// Package registry says who may look up whom.
//
// A storefront is also the registry of identities. Whoever has an id may look it up, unless the identity [Registration] says that it is looked up by
// introduction only. Then the registry answers whom the party itself signed something for (a relationship, a grant), and who shows an [Introduction] by the party itself or by
// a customer of the party: somebody with whom the party signed a relationship. An introduction names the one whom it introduces, ends, and serves once.
//
// The registry vouches for nothing: who looks an id up has it from elsewhere, from an introduction or a code, and compares. So a hostile registry can refuse, and can
// show to strangers what an identity's first document says; it cannot put another identity in the place of one.
package registry

import (
	"fmt"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
)

// Lifetime is the longest life of an introduction.
const Lifetime = 30 * 24 * time.Hour

// Lookup is who may look an identity up.
type Lookup string

// The rules.
const (
	Anyone     Lookup = "anyone"     // whoever has the id; so it is without a registration
	Introduced Lookup = "introduced" // by introduction only
)

// Registration is what an identity says of itself at the registry. The highest version counts.
type Registration struct {
	policies.Header
	Identity policies.IdentityID `json:"identity"`
	Version  uint64              `json:"version"` // from 1 on
	Lookup   Lookup              `json:"lookup"`
}

// Validate checks the form.
func (d *Registration) Validate() error {
	if err := d.Check("registration"); err != nil {
		return err
	}
	if d.Identity.IsZero() || d.Version == 0 || d.Lookup != Anyone && d.Lookup != Introduced {
		return fmt.Errorf("%w: registration: identity, version and one of the rules are needed", policies.ErrMalformed)
	}
	return nil
}

// Introduction lets To look Subject up, once. It is signed by From: the subject itself, or a customer of the subject.
type Introduction struct {
	consent.Addressed
	Subject policies.IdentityID `json:"subject"`
	Purpose string              `json:"purpose"` // 1 to 200 bytes, in words
	Nonce   policies.Nonce      `json:"nonce"`
}

// Validate checks the form.
func (d *Introduction) Validate() error {
	if err := d.CheckParties("introduction"); err != nil {
		return err
	}
	if err := d.CheckText("a purpose", d.Purpose, 1, 200); err != nil {
		return err
	}
	if d.Subject.IsZero() || d.Subject == d.To || d.Nonce.IsZero() || !d.Answers.IsZero() || d.Expires-d.Time > int64(Lifetime/time.Second) {
		return fmt.Errorf("%w: introduction: somebody to introduce, a nonce and an end within %d days are needed", policies.ErrMalformed, int(Lifetime.Hours()/24))
	}
	return nil
}

// Check decides whether an introduction, whose signature was verified, lets somebody look a party up now. customer says whether the party signed a relationship with
// who introduces. That it was not shown before is for the registry to know.
func (d *Introduction) Check(subject, by policies.IdentityID, customer bool, now time.Time) error {
	switch {
	case d.Subject != subject || d.To != by:
		return policies.CodeNotIntroduced
	case d.From != d.Subject && !customer:
		return policies.CodeIntroducer
	case now.Unix() >= d.Expires:
		return policies.CodeIntroductionExpired
	}
	return nil
}
