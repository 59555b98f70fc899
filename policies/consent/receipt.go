package consent

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
)

// Receipt is a record of a decision about a request, signed by one of the two parties for the other. Its members have the names of ISO/IEC TS 27560 where that
// has one.
type Receipt struct {
	Addressed                      // answers: the hash of the answer
	Record     policies.Hash       `json:"record_id"`         // hash of the request
	Principal  policies.IdentityID `json:"pii_principal_id"`  // the owner
	Language   string              `json:"language"`          // of what a person wrote in it; "und": nobody said
	Processing []Processing        `json:"purposes"`          // one entry
	Parties    []Party             `json:"parties"`           // one entry: who asked
	Event      Event               `json:"event"`             // the decision
	Withdrawal string              `json:"withdrawal_method"` // how it is taken back
}

// Processing is what is done with which fields, and why.
type Processing struct {
	Purpose     string        `json:"purpose"`      // in words
	PurposeType string        `json:"purpose_type"` // IRI of a term of the Data Privacy Vocabulary
	LawfulBasis string        `json:"lawful_basis"` // "consent"
	Information []Information `json:"pii_information"`
	Duration    int64         `json:"retention_period"` // seconds for which access was asked
}

// Information is one field.
type Information struct {
	Type     policies.Field `json:"pii_type"`
	Optional bool           `json:"pii_optional"`
	Reason   string         `json:"reason"`
	Allowed  bool           `json:"allowed"`
}

// Party is who asked.
type Party struct {
	ID   policies.IdentityID `json:"party_id"`
	Role string              `json:"party_role"` // "PII controller"
}

// Event is the decision.
type Event struct {
	Time     int64  `json:"event_time"` // Unix seconds, by the owner's clock
	Type     string `json:"event_type"` // "explicit"
	State    State  `json:"event_state"`
	Validity int64  `json:"validity_duration"` // seconds; 0 where nothing is granted
}

// withdrawal is how a consent is taken back.
const withdrawal = "sallyport me stop"

// NewReceipt makes the receipt that one of the two parties, by whom it is signed, gives the other for an answer to a request.
func NewReceipt(by policies.IdentityID, r *Request, request policies.Hash, a *Answer, answer policies.Hash, now time.Time) *Receipt {
	to := r.From
	if by == r.From {
		to = r.To
	}
	// A document is not refused for its clock: the two parties' may differ.
	d := &Receipt{
		Addressed: Addressed{Header: policies.NewHeader("consent-receipt", now), From: by, To: to, Answers: answer, Expires: now.Add(Lifetime).Unix()},
		Record:    request, Principal: r.To, Language: "und", Parties: []Party{{ID: r.From, Role: "PII controller"}}, Withdrawal: withdrawal,
		Event: Event{Time: a.Time, Type: "explicit", State: a.State},
	}
	if a.Until != 0 {
		d.Event.Validity = a.Until - a.Time
	}
	p := Processing{Purpose: r.Purpose.Text, PurposeType: r.Purpose.Term.IRI(), LawfulBasis: "consent", Duration: r.Duration}
	for _, f := range r.Fields {
		named := slices.Contains(a.Fields, f.Field)
		if a.State == Withdrawn && !named {
			continue // it is about what is withdrawn
		}
		p.Information = append(p.Information, Information{Type: f.Field, Optional: !f.Required, Reason: f.Reason, Allowed: named && a.State != Withdrawn})
	}
	d.Processing = []Processing{p}
	return d
}

// Validate checks the form.
func (d *Receipt) Validate() error {
	if err := d.check("consent-receipt"); err != nil {
		return err
	}
	bad := func(what string) error { return fmt.Errorf("%w: consent receipt: %s", policies.ErrMalformed, what) }
	switch {
	case d.Answers.IsZero() || d.Record.IsZero() || d.Principal.IsZero():
		return bad("request, answer and owner are needed")
	case len(d.Parties) != 1 || d.Parties[0].ID.IsZero() || d.Parties[0].Role != "PII controller" || d.Parties[0].ID == d.Principal:
		return bad("one party that asked is needed")
	case d.From != d.Principal && d.From != d.Parties[0].ID || d.To != d.Principal && d.To != d.Parties[0].ID:
		return bad("it is from one of the two to the other")
	case len(d.Processing) != 1 || len(d.Processing[0].Information) < 1 || len(d.Processing[0].Information) > MaxFields:
		return bad("one purpose with its fields is needed")
	case d.Event.Time <= 0 || d.Event.Validity < 0 || d.Event.Type != "explicit":
		return bad("an explicit decision with its time is needed")
	case d.Event.State != Granted && d.Event.State != Partly && d.Event.State != Denied && d.Event.State != Withdrawn:
		return bad("the state is granted, partly, denied or withdrawn")
	case d.Language != "und" || d.Withdrawal != withdrawal || d.Processing[0].LawfulBasis != "consent" || d.Processing[0].Duration < 1:
		return bad("language, way of withdrawal, lawful basis or duration are not known")
	}
	return d.CheckText("a purpose", d.Processing[0].Purpose, 1, 200)
}

// Matches reports whether the receipt is the one that belongs to an answer to a request.
func (d *Receipt) Matches(r *Request, request policies.Hash, a *Answer, answer policies.Hash) error {
	want := NewReceipt(d.From, r, request, a, answer, time.Unix(d.Time, 0))
	want.Header, want.Expires = d.Header, d.Expires
	if d.From != r.From && d.From != r.To || !reflect.DeepEqual(d, want) {
		return fmt.Errorf("%w: the receipt says something else than request and answer", policies.CodeNotAsked)
	}
	return nil
}
