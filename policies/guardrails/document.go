// Package guardrails is what the operator of a vault forbids although owners granted it: no IBAN at night, nothing to a business whose name nobody checked, at most so many items in
// a request. Rules are written in Cedar (docs.cedarpolicy.com), in the words of [Schema], and every rule forbids: guardrails narrow what owners granted, and cannot widen it.
//
// The operator signs all rules that are to be in force, as one [Document], with the ceremony key, which is offline as a rule and which every client and auditor pinned. So whoever breaks into the
// vault's host cannot take a rule away without the auditor's seeing it. The vault records the document in the key-use log, and from that entry on decides by it; each use names it by its hash. An
// auditor decides every release anew ([Set.Refusals]) from what is in the log.
//
// The normal path: [Open], [Parse], [Vet], and for each item [Set.Refusals].
//
// A rule that cannot be decided, because a sum in it overflows say, refuses: Cedar itself would pass over it. The package reads no clock and opens nothing.
package guardrails

import (
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

// MaxRules is the length of the rules in bytes at most.
const MaxRules = 32 << 10

const docType = "guardrails"

// Document is all rules that are in force from its record on. That with the highest serial number counts, and one without rules ends all before.
type Document struct {
	policies.Header
	Audience policies.VaultID `json:"aud"`
	Serial   uint64           `json:"serial"` // above that of each one before
	Rules    string           `json:"rules"`  // Cedar, at most [MaxRules] bytes
}

// Validate checks the form. What the rules say is for [Parse].
func (d *Document) Validate() error {
	if err := d.Check(docType); err != nil {
		return err
	}
	if d.Audience.IsZero() || d.Serial == 0 {
		return fmt.Errorf("%w: guardrails: vault and serial number are needed", policies.ErrMalformed)
	}
	return d.CheckText("the rules, new lines and tabs apart,", strings.NewReplacer("\n", " ", "\t", " ").Replace(d.Rules), 0, MaxRules)
}

// Open verifies a document under the ceremony key of a vault's document. The error wraps [policies.CodeRules] if somebody else signed it.
func Open(e *envelope.Envelope, v *policies.VaultDocument) (*Document, error) {
	return policies.OpenByCeremony(e, v, func(d *Document) policies.VaultID { return d.Audience }, policies.CodeRules)
}
