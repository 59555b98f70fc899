// Package consent is how one party asks another for fields, how the other decides, and what both keep of it.
//
// A reader sends a [Request]: fields, each required or optional and with a reason, a purpose in words and as a term of the W3C's Data Privacy
// Vocabulary, and for how long. The owner decides field by field; [Request.Decide] says what that amounts to. What is granted is granted first, by a
// policies.Grant that the vault enforces; then an [Answer] tells the reader. An answer gives no right and takes none away: it is the letter beside the grant. For every
// answer, denials too, each side signs a [Receipt] and sends it to the other, so both hold the other's signature.
//
// Everything travels sealed and signed ([Addressed]). The normal path of who receives something: open the seal, policies.Open with the
// sender's key, compare both ids, and then [Request.Live] or [Request.Accept].
//
// # States
//
// pending, granted, partly, denied, withdrawn are said in documents or follow from them; expired is a pending request whose time is over. A request is
// answered once. After granted or partly, withdrawals may follow, of some fields or all.
//
// # What is refused
//
// An answer that names a field that was not asked for, or a longer time ([policies.CodeTooWide]); that grants something and not all that is required
// ([policies.CodeRequired]); to a request of another or to another ([policies.CodeNotAsked]); the second one ([policies.CodeAnswered]); one made too late ([policies.CodeConsentExpired]).
//
// # Names
//
// They follow the habits of OAuth 2.0 Rich Authorization Requests (RFC 9396), OpenID Connect CIBA and ISO/IEC TS 27560, where those have a name for
// the thing. No conformance to any of them is claimed.
package consent

import (
	"fmt"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
)

// Bounds.
const (
	// MaxFields is how many fields one request may name: what one grant may.
	MaxFields = policies.MaxGrantFields
	// MaxReason is the length of a reason in bytes.
	MaxReason = 300
	// MaxDuration is the longest time that may be asked for.
	MaxDuration = 100 * 365 * 24 * time.Hour
	// Lifetime is how long a request may wait for its answer.
	Lifetime = 60 * 24 * time.Hour
	// Quiet is for how long after a denial or a withdrawal the same field is not asked for again.
	Quiet = 30 * 24 * time.Hour
)

// State is what became of a request.
type State string

// The states.
const (
	Pending   State = "pending"
	Granted   State = "granted"   // all that was asked for
	Partly    State = "partly"    // all that is required, and not all
	Denied    State = "denied"    // nothing
	Expired   State = "expired"   // not answered in time; no document says so
	Withdrawn State = "withdrawn" // granted before, and taken back
)

// Purpose is what for, in words and as a term of the Data Privacy Vocabulary.
type Purpose struct {
	Text string `json:"text"` // 1 to 200 bytes; the grant's purpose
	Term Term   `json:"term"`
}

// AskedField is one field of a request.
type AskedField struct {
	Field    policies.Field `json:"field"`
	Required bool           `json:"required,omitzero"` // without it the rest is of no use to who asks
	Reason   string         `json:"reason"`            // 1 to MaxReason bytes
}

// Request asks an owner for fields. Its hash, over a fresh nonce, is what the one answer names.
type Request struct {
	Addressed
	Fields   []AskedField   `json:"fields"`
	Purpose  Purpose        `json:"purpose"`
	Duration int64          `json:"requested_duration"` // seconds, from the answer on
	Nonce    policies.Nonce `json:"nonce"`
	// Invitation is the hash of the invitation's token that the owner accepted, if the two met by one: who was not let in by the owner does not know it.
	Invitation policies.Hash `json:"invitation,omitzero"`
}

// Validate checks the form.
func (d *Request) Validate() error { return d.CheckForm("consent-request") }

// CheckForm is Validate for a document that begins as a request does and is of another type.
func (d *Request) CheckForm(docType string) error {
	if err := d.check(docType); err != nil {
		return err
	}
	switch {
	case !d.Answers.IsZero():
		return fmt.Errorf("%w: consent request: it answers nothing", policies.ErrMalformed)
	case d.Expires-d.Time > int64(Lifetime/time.Second):
		return fmt.Errorf("%w: consent request: it waits at most %d days", policies.ErrMalformed, int(Lifetime.Hours()/24))
	case d.Nonce.IsZero():
		return fmt.Errorf("%w: consent request: no nonce", policies.ErrMalformed)
	case d.Duration < 1 || d.Duration > int64(MaxDuration/time.Second):
		return fmt.Errorf("%w: consent request: it is for 1 second to 100 years", policies.ErrMalformed)
	case len(d.Fields) < 1 || len(d.Fields) > MaxFields:
		return fmt.Errorf("%w: consent request: 1 to %d fields are allowed", policies.ErrMalformed, MaxFields)
	case !d.Purpose.Term.Valid():
		return fmt.Errorf("%w: consent request: purpose %q is not in the list", policies.ErrMalformed, string(d.Purpose.Term))
	}
	if err := d.CheckText("a purpose", d.Purpose.Text, 1, 200); err != nil {
		return err
	}
	for i, f := range d.Fields {
		if err := f.Field.Validate(); err != nil {
			return fmt.Errorf("consent request: %w", err)
		}
		if err := d.CheckText("a reason", f.Reason, 1, MaxReason); err != nil {
			return err
		}
		if slices.ContainsFunc(d.Fields[:i], func(other AskedField) bool { return other.Field == f.Field }) {
			return fmt.Errorf("%w: consent request: %s twice", policies.ErrMalformed, f.Field)
		}
	}
	return nil
}

// Names reports whether the request asks for a field.
func (d *Request) Names(f policies.Field) bool {
	return slices.ContainsFunc(d.Fields, func(a AskedField) bool { return a.Field == f })
}

// Live refuses a request whose time is over.
func (d *Request) Live(now time.Time) error {
	if now.Unix() >= d.Expires {
		return policies.CodeConsentExpired
	}
	return nil
}

// Decide says what granting these fields amounts to, or why it is no answer to this request.
func (d *Request) Decide(grant []policies.Field) (State, error) {
	for _, f := range grant {
		if !d.Names(f) {
			return "", fmt.Errorf("%w: %s", policies.CodeTooWide, f)
		}
	}
	if len(grant) == 0 {
		return Denied, nil
	}
	state := Granted
	for _, f := range d.Fields {
		if slices.Contains(grant, f.Field) {
			continue
		}
		if f.Required {
			return "", fmt.Errorf("%w: %s", policies.CodeRequired, f.Field)
		}
		state = Partly
	}
	return state, nil
}

// Answer tells who asked what the owner decided.
type Answer struct {
	Addressed
	Nonce  policies.Nonce   `json:"nonce"`            // the request's, which was sealed: who knows it opened the request
	State  State            `json:"state"`            // granted, partly, denied, withdrawn
	Fields []policies.Field `json:"fields,omitempty"` // what is granted, or what is withdrawn; in the order of their names
	Until  int64            `json:"until,omitzero"`   // Unix seconds, exclusive: when what is granted ends
}

// Validate checks the form.
func (d *Answer) Validate() error {
	if err := d.check("consent-answer"); err != nil {
		return err
	}
	bad := func(what string) error { return fmt.Errorf("%w: consent answer: %s", policies.ErrMalformed, what) }
	switch d.State {
	case Granted, Partly:
		if d.Until <= d.Time {
			return bad("what is granted lasts for a while")
		}
	case Denied, Withdrawn:
		if d.Until != 0 {
			return bad("only what is granted has an end")
		}
	default:
		return bad("the state is granted, partly, denied or withdrawn")
	}
	if d.Answers.IsZero() || d.Nonce.IsZero() {
		return bad("it answers nothing")
	}
	if (len(d.Fields) == 0) != (d.State == Denied) || len(d.Fields) > MaxFields {
		return bad("a denial names no field, anything else at least one")
	}
	for i, f := range d.Fields {
		if err := f.Validate(); err != nil {
			return fmt.Errorf("consent answer: %w", err)
		}
		if i > 0 && d.Fields[i-1] >= f {
			return bad("fields in the order of their names, each once")
		}
	}
	return nil
}

// Accept decides whether an answer is one to this request, whose hash is given, and says what is so then. before is what was so until now, and had what was
// granted and not withdrawn.
func (d *Request) Accept(hash policies.Hash, before State, had []policies.Field, a *Answer) (State, []policies.Field, error) {
	if a.Answers != hash || a.Nonce != d.Nonce || a.From != d.To || a.To != d.From {
		return "", nil, policies.CodeNotAsked
	}
	for _, f := range a.Fields {
		if !d.Names(f) {
			return "", nil, fmt.Errorf("%w: %s", policies.CodeTooWide, f)
		}
	}
	if a.State == Withdrawn {
		if before != Granted && before != Partly && before != Withdrawn {
			return "", nil, fmt.Errorf("%w: it was never granted", policies.CodeNotAsked)
		}
		left := slices.DeleteFunc(slices.Clone(had), func(f policies.Field) bool { return slices.Contains(a.Fields, f) })
		if len(left) == 0 {
			return Withdrawn, nil, nil
		}
		return Partly, left, nil
	}
	if before != Pending && before != Expired {
		return "", nil, policies.CodeAnswered
	}
	if a.Time >= d.Expires {
		return "", nil, policies.CodeConsentExpired
	}
	state, err := d.Decide(a.Fields)
	if err != nil {
		return "", nil, err
	}
	if state != a.State {
		return "", nil, fmt.Errorf("%w: consent answer: it says %q, and its fields amount to %q", policies.ErrMalformed, string(a.State), string(state))
	}
	if state != Denied && a.Until > a.Time+d.Duration {
		return "", nil, fmt.Errorf("%w: it lasts longer", policies.CodeTooWide)
	}
	return state, slices.Clone(a.Fields), nil
}

// Deletion asks a reader to delete what it has read. It is a letter, and nothing enforces it.
type Deletion struct {
	Addressed                  // answers: the request for consent, if there was one
	Fields    []policies.Field `json:"fields"`        // at least one
	Stopped   int64            `json:"stopped"`       // Unix seconds, by the vault's clock: since then the reader reads no more
	LastRead  int64            `json:"read,omitzero"` // when one of them was last read, Unix seconds, as the key-use log says; 0: never, as far as the sender knows
}

// Validate checks the form.
func (d *Deletion) Validate() error {
	if err := d.check("deletion-request"); err != nil {
		return err
	}
	if len(d.Fields) < 1 || len(d.Fields) > MaxFields || d.Stopped <= 0 || d.LastRead < 0 {
		return fmt.Errorf("%w: deletion request: 1 to %d fields, and when the reader was stopped, are needed", policies.ErrMalformed, MaxFields)
	}
	for _, f := range d.Fields {
		if err := f.Validate(); err != nil {
			return fmt.Errorf("deletion request: %w", err)
		}
	}
	return nil
}

// Acceptance answers an invitation: the person who got it hands their code to who invited, sealed, so that the storefront learns neither. From is the person.
type Acceptance struct {
	Addressed
	Invitation []byte         `json:"invitation"` // as the link has it; 1 to 512 bytes
	Nonce      policies.Nonce `json:"nonce"`      // of the owner's code
}

// Validate checks the form.
func (d *Acceptance) Validate() error {
	if err := d.check("invitation-answer"); err != nil {
		return err
	}
	if len(d.Invitation) < 1 || len(d.Invitation) > 512 || d.Nonce.IsZero() || !d.Answers.IsZero() {
		return fmt.Errorf("%w: invitation answer: the invitation and a nonce are needed", policies.ErrMalformed)
	}
	return nil
}
