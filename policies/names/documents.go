package names

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

// MaxVoucher and MaxStatement are for how long a voucher and a statement of a domain are good at most, in seconds. Whoever hides the end of a voucher from somebody gains no
// more than the rest of this time.
const (
	MaxVoucher   = 400 * 86400
	MaxStatement = 400 * 86400
)

// Voucher says that the operator of a vault checked who calls itself so. The ceremony key signs it. The newest, by Serial, is what counts: to end one, the operator signs
// another that is Withdrawn.
type Voucher struct {
	policies.Header
	Audience  policies.VaultID    `json:"aud"`
	Identity  policies.IdentityID `json:"identity"`
	Serial    uint64              `json:"serial"` // above that of each voucher for this identity before
	Name      string              `json:"name"`   // as in the identity's document
	NotBefore int64               `json:"not_before,omitzero"`
	Expires   int64               `json:"expires,omitzero"` // Unix seconds, exclusive
	Withdrawn bool                `json:"withdrawn,omitzero"`
}

// Validate checks the form.
func (d *Voucher) Validate() error {
	if err := d.Check("voucher"); err != nil {
		return err
	}
	if err := d.CheckText("the name", d.Name, 1, 200); err != nil {
		return err
	}
	bad := func(what string) error { return fmt.Errorf("%w: voucher: %s", policies.ErrMalformed, what) }
	switch {
	case d.Audience.IsZero() || d.Identity.IsZero() || d.Serial == 0:
		return bad("vault, identity and serial number are needed")
	case d.Withdrawn && (d.NotBefore != 0 || d.Expires != 0):
		return bad("one that is withdrawn is good at no time")
	case d.Withdrawn:
		return nil
	case d.NotBefore <= 0 || d.Expires <= d.NotBefore || d.Expires-d.NotBefore > MaxVoucher:
		return bad("it is good from its not_before until its expires, 400 days later at most")
	}
	return Check(d.Name)
}

// In reports whether the voucher is good at a time, Unix seconds, clocks aside.
func (d *Voucher) In(now int64) bool {
	return !d.Withdrawn && d.NotBefore <= now+int64(policies.ClockSkew.Seconds()) && now < d.Expires
}

// OpenVoucher verifies a voucher under the ceremony key of a vault's document. The error wraps [policies.CodeVoucher] if somebody else signed it.
func OpenVoucher(e *envelope.Envelope, v *policies.VaultDocument) (*Voucher, error) {
	return policies.OpenByCeremony(e, v, func(d *Voucher) policies.VaultID { return d.Audience }, policies.CodeVoucher)
}

// Statement is what an identity says of a domain that says the same of it. The identity's key in force signs it, so that nobody puts somebody else's identity under a domain of their own.
type Statement struct {
	policies.Header
	Identity policies.IdentityID `json:"identity"`
	Domain   string              `json:"domain"`
	Expires  int64               `json:"expires"` // Unix seconds, exclusive
}

// Validate checks the form.
func (d *Statement) Validate() error {
	if err := d.Check("domain-statement"); err != nil {
		return err
	}
	if d.Identity.IsZero() || d.Expires <= d.Time || d.Expires-d.Time > MaxStatement {
		return fmt.Errorf("%w: domain-statement: it names an identity and ends after its time, 400 days later at most", policies.ErrMalformed)
	}
	return CheckDomain(d.Domain)
}

// WellKnown is where on its web server a domain has its [File].
const WellKnown = "/.well-known/sallyport.json"

// MaxFile is the size of a [File] in bytes at most.
const MaxFile = 1 << 18

// ErrWebsite: the website of a domain could not be asked. Storefront and vault have nothing to do with it.
var ErrWebsite = errors.New("the website does not answer")

// File is what lies at [WellKnown]: envelopes of statements, at most 16.
type File struct {
	Statements []jsontext.Value `json:"statements"`
}

// ParseFile reads a file and returns the statements in it. Nothing of them is verified.
func ParseFile(data []byte) ([]*envelope.Envelope, error) {
	var f File
	if len(data) > MaxFile {
		return nil, fmt.Errorf("%w: the file of a domain has at most %d bytes", policies.ErrMalformed, MaxFile)
	}
	if err := envelope.Decode(data, &f); err != nil {
		return nil, err
	}
	if len(f.Statements) < 1 || len(f.Statements) > 16 {
		return nil, fmt.Errorf("%w: the file of a domain has 1 to 16 statements", policies.ErrMalformed)
	}
	out := make([]*envelope.Envelope, len(f.Statements))
	for i, raw := range f.Statements {
		e, err := envelope.Parse(raw)
		if err != nil {
			return nil, err
		}
		out[i] = e
	}
	return out, nil
}

// CheckDomain refuses what is not the name of a host in lower case: two labels or more of letters, digits and hyphens, and no address. Names in other letters are in their
// form for machines (xn--…), and are shown in it.
func CheckDomain(domain string) error {
	bad := fmt.Errorf("%w: %.260q is not the name of a domain, like shop.example", policies.ErrMalformed, domain)
	labels := strings.Split(domain, ".")
	if len(domain) > 253 || len(labels) < 2 {
		return bad
	}
	if _, err := netip.ParseAddr(domain); err == nil {
		return bad
	}
	for _, l := range labels {
		if len(l) < 1 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return bad
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" { // some programs take it for an address
		return bad
	}
	return nil
}
