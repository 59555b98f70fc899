package export

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/writing"
	"github.com/sallyport/sallyport/vault/audit"
	"github.com/sallyport/sallyport/vault/audit/views"
)

// Event is an entry of the log, or a [Fault], with what follows from the entries before it. It is a JSON line; README.md says what each member means.
type Event struct {
	Format   string                `json:"format"` // version of these fields
	UID      string                `json:"uid"`
	Log      string                `json:"log"`
	Vault    policies.VaultID      `json:"vault"`
	Kind     evidence.Kind         `json:"kind"`
	Index    *uint64               `json:"index,omitempty"` // of a fault: where it is, if that is known
	Time     string                `json:"time"`            // of the entry; of a fault: when the exporter met it
	Outcome  policies.Code         `json:"outcome,omitempty"`
	Message  string                `json:"message"`
	Severity int                   `json:"severity"` // as in OCSF: 1 informational to 5 critical
	Owner    *policies.Pseudonym   `json:"owner,omitempty"`
	OwnerID  *policies.IdentityID  `json:"owner_id,omitempty"`
	Reader   *policies.Pseudonym   `json:"reader,omitempty"`
	ReaderID *policies.IdentityID  `json:"reader_id,omitempty"`
	Name     string                `json:"reader_name,omitempty"`
	Readers  []policies.Pseudonym  `json:"readers,omitempty"`
	Author   *policies.Pseudonym   `json:"author,omitempty"`
	Field    policies.Field        `json:"field,omitempty"`
	Fields   []policies.Field      `json:"fields,omitempty"`
	Grant    *policies.DocumentID  `json:"grant,omitempty"`
	Grants   []policies.DocumentID `json:"grants,omitempty"`
	Epoch    uint64                `json:"epoch,omitempty"`
	Version  uint64                `json:"version,omitempty"`
	Purpose  string                `json:"purpose,omitempty"`
	Custody  policies.Custody      `json:"custody,omitempty"`
	Rules    *policies.Hash        `json:"guardrails,omitempty"`
	Token    string                `json:"token,omitempty"`
	Grade    string                `json:"grade,omitempty"`
	Session  *policies.Hash        `json:"session,omitempty"`
	Request  *policies.Hash        `json:"request,omitempty"`
	Document *policies.Hash        `json:"document,omitempty"`
	Expires  int64                 `json:"expires,omitempty"`
	Decided  int64                 `json:"decided,omitempty"`
	Refers   *uint64               `json:"refers_to,omitempty"`
	Count    uint64                `json:"count,omitempty"`
	Period   uint32                `json:"period,omitempty"`
	Note     string                `json:"note,omitempty"`
	Body     string                `json:"body,omitempty"` // "erased" or "absent"

	// What follows from the entries before.
	RevokedBefore bool    `json:"revoked_before,omitempty"`
	RevokedBy     *uint64 `json:"revoked_by,omitempty"`
	GradeChanged  bool    `json:"grade_changed,omitempty"`
	GradeBefore   string  `json:"grade_before,omitempty"`
	ClockStep     bool    `json:"clock_step,omitempty"`
	ClockSkew     int64   `json:"clock_skew_ms,omitempty"`

	Fault *Fault `json:"fault,omitempty"`

	at    time.Time
	ended []ended // of a revocation
}

// eventFormat is the version of the fields of an [Event]. Members may be added under one version; none changes its meaning.
const eventFormat = "sallyport-log/1"

// kindFault is the kind of events that stand for no entry.
const kindFault evidence.Kind = "fault"

// Severities, as OCSF numbers them.
const (
	informational = 1 + iota
	low
	medium
	high
	critical
)

// clockTolerance is how far the time that a use was decided at and the time of its entry may be apart. The vault stops when its clock steps by more.
const clockTolerance = 5 * time.Second

// ended is what a revocation takes from one reader.
type ended struct {
	reader policies.Pseudonym // zero: the log no longer says whose grant it was
	grant  policies.DocumentID
	fields []policies.Field
}

// granted is what a grant lets somebody do.
type granted struct {
	reader  policies.Pseudonym
	purpose string
	fields  []policies.Field
}

// history is what is known of the log up to an entry.
type history struct {
	origin     string
	vault      policies.VaultID
	pseudonyms bool

	parties map[policies.Pseudonym]views.Party
	of      map[policies.IdentityID]policies.Pseudonym
	grants  map[policies.DocumentID]granted
	revoked map[policies.RevokedItem]uint64 // by which entry
	grades  map[string]string               // of tokens, by serial
}

func newHistory(d *policies.VaultDocument, pseudonyms bool) *history {
	return &history{
		origin: d.LogKey.Name, vault: d.Vault, pseudonyms: pseudonyms,
		parties: map[policies.Pseudonym]views.Party{}, of: map[policies.IdentityID]policies.Pseudonym{}, grants: map[policies.DocumentID]granted{},
		revoked: map[policies.RevokedItem]uint64{}, grades: map[string]string{},
	}
}

// event takes the next entry in and says what it is.
func (h *history) event(r *audit.Record) (*Event, error) {
	d := new(evidence.Details)
	if r.Opening != nil {
		var err error
		if d, err = r.Details(); err != nil {
			return nil, err
		}
	}
	h.learn(r, d)
	e := &Event{
		Format: eventFormat, UID: h.origin + "/" + strconv.FormatUint(r.Index, 10), Log: h.origin, Vault: h.vault, Kind: r.Entry.Kind, Index: &r.Index,
		Outcome: r.Entry.Outcome, Epoch: d.Epoch, Version: d.Version, Purpose: d.Purpose, Custody: d.Custody, Token: d.Token,
		Grade: d.Grade, Session: some(d.Session), Request: some(d.Request), Rules: some(d.Rules), Expires: d.Expires, Decided: d.Decided, Count: d.Count, Period: d.Period, Note: d.Note,
	}
	e.stamp(r.Time)
	if !h.pseudonyms || r.Entry.Kind != evidence.EntryIdentity { // there it is the id
		e.Document = some(d.Document)
	}
	if e.Kind == evidence.EntryGrant || e.Kind == evidence.EntryFailed {
		e.Refers = &d.Index
	}
	switch {
	case r.Absent:
		e.Body = "absent"
	case r.Opening == nil:
		e.Body = "erased"
	}
	h.who(e, r, d)
	h.what(e, r, d)
	h.derive(e, r, d)
	e.Severity = severity(e)
	var err error
	e.Message, err = h.message(r, d)
	return e, err
}

// stamp gives an event its time.
func (e *Event) stamp(at time.Time) { e.at, e.Time = at, at.UTC().Format("2006-01-02T15:04:05.000Z") }

// learn notes who somebody is and whom a grant lets read.
func (h *history) learn(r *audit.Record, d *evidence.Details) {
	switch {
	case r.Entry.Kind == evidence.EntryIdentity && !d.Pseudo.IsZero():
		p := views.Party{Pseudonym: d.Pseudo, ID: policies.IdentityID(d.Document)}
		if e, err := envelope.Parse(r.Document); err == nil {
			if id, err := policies.Decode[policies.Identity](e); err == nil {
				p.Kind, p.Name = string(id.Kind), id.Name
			}
		}
		h.parties[p.Pseudonym], h.of[p.ID] = p, p.Pseudonym
	case r.Entry.Kind == evidence.EntryImport && !d.Grant.IsZero(): // the document lies beside this entry, and the entry that it is in force follows
		g := granted{reader: r.Entry.Reader}
		if e, err := envelope.Parse(r.Document); err == nil {
			if doc, err := policies.Decode[policies.Grant](e); err == nil {
				g.purpose = doc.Purpose
				for _, f := range doc.Fields {
					g.fields = append(g.fields, f.Field)
				}
			}
		}
		h.grants[d.Grant] = g
	case r.Entry.Kind == evidence.EntryWriteGrant:
		g := granted{reader: r.Entry.Reader}
		if e, err := envelope.Parse(r.Document); err == nil {
			if doc, err := policies.Decode[writing.Grant](e); err == nil {
				g.purpose = doc.Purpose
				for _, f := range doc.Fields {
					g.fields = append(g.fields, f.Field)
				}
			}
		}
		h.grants[d.Grant] = g
	}
}

// who fills in whom the entry is about.
func (h *history) who(e *Event, r *audit.Record, d *evidence.Details) {
	owner, reader := r.Entry.Owner, r.Entry.Reader
	if owner.IsZero() && !d.Owner.IsZero() { // a stranger's attempt is in no owner's history, and yet about that owner
		owner = h.of[policies.IdentityID(d.Owner)]
	}
	e.Owner, e.Reader = some(owner), some(reader)
	if !d.Author.IsZero() {
		e.Author = some(h.of[policies.IdentityID(d.Author)])
	}
	if h.pseudonyms {
		return
	}
	e.OwnerID, e.ReaderID = some(h.parties[owner].ID), some(h.parties[reader].ID)
	if e.OwnerID == nil {
		e.OwnerID = some(policies.IdentityID(d.Owner))
	}
	if e.ReaderID == nil {
		e.ReaderID = some(policies.IdentityID(d.Reader))
	}
	e.Name = h.parties[reader].Name
}

// what fills in fields and grants.
func (h *history) what(e *Event, r *audit.Record, d *evidence.Details) {
	e.Field, e.Grant = d.Field, some(d.Grant)
	for _, item := range d.Items {
		i := slices.IndexFunc(e.ended, func(x ended) bool { return x.grant == item.Grant })
		if i < 0 {
			i = len(e.ended)
			e.ended = append(e.ended, ended{h.grants[item.Grant].reader, item.Grant, nil})
			e.Grants = append(e.Grants, item.Grant)
			if reader := h.grants[item.Grant].reader; !reader.IsZero() && !slices.Contains(e.Readers, reader) {
				e.Readers = append(e.Readers, reader)
			}
		}
		e.ended[i].fields = append(e.ended[i].fields, item.Field)
		if !slices.Contains(e.Fields, item.Field) {
			e.Fields = append(e.Fields, item.Field)
		}
	}
	if r.Entry.Kind == evidence.EntryImport || r.Entry.Kind == evidence.EntryGrant || r.Entry.Kind == evidence.EntryWriteGrant {
		g := h.grants[d.Grant]
		e.Purpose, e.Fields = g.purpose, g.fields
	}
	if len(e.Readers) == 1 && e.Reader == nil {
		e.Reader = &e.Readers[0]
		if p := h.parties[e.Readers[0]]; !h.pseudonyms {
			e.ReaderID, e.Name = some(p.ID), p.Name
		}
	}
}

// derive fills in what follows from the entries before, and notes what later ones need.
func (h *history) derive(e *Event, r *audit.Record, d *evidence.Details) {
	switch r.Entry.Kind {
	case evidence.EntryUse:
		if by, ended := h.revoked[policies.RevokedItem{Grant: d.Grant, Field: d.Field, Author: d.Author}]; ended {
			e.RevokedBefore, e.RevokedBy = true, &by
		}
		if d.Decided != 0 {
			skew := r.Time.Sub(time.UnixMilli(d.Decided))
			if e.ClockSkew = skew.Milliseconds(); skew.Abs() > clockTolerance {
				e.ClockStep = true
			}
		}
	case evidence.EntryRevocation, evidence.EntryGivenUp, evidence.EntryDestroyed:
		by := r.Index
		if r.Entry.Kind == evidence.EntryDestroyed {
			if d.Reader.IsZero() { // what ended them was there before
				break
			}
			by = d.Index // who could read them closed their account
		}
		for _, item := range d.Items {
			if _, ended := h.revoked[item]; !ended {
				h.revoked[item] = by
			}
		}
	}
	if d.Grade != "" {
		if before := h.grades[d.Token]; before != "" && before != d.Grade {
			e.GradeChanged, e.GradeBefore = true, before
		}
		h.grades[d.Token] = d.Grade
	}
}

func severity(e *Event) int {
	switch {
	case e.RevokedBefore, e.ClockStep:
		return high
	case e.GradeChanged, e.Kind == evidence.EntryFailed:
		return medium
	case e.Kind == evidence.EntryRefusal, e.Kind == evidence.EntryRefusals:
		return low
	}
	return informational
}

// message is the entry in plain words.
func (h *history) message(r *audit.Record, d *evidence.Details) (string, error) {
	if h.pseudonyms && r.Entry.Owner.IsZero() && !d.Owner.IsZero() { // the sentence would name the id
		return fmt.Sprintf("%s: %s", r.Entry.Kind, r.Entry.Outcome), nil
	}
	return views.Sentence(r, func(p policies.Pseudonym) views.Party {
		if known, ok := h.parties[p]; ok && !h.pseudonyms {
			return known
		}
		return views.Party{Pseudonym: p}
	})
}

// some is a pointer to what is not zero.
func some[T interface {
	comparable
	IsZero() bool
}](v T) *T {
	if v.IsZero() {
		return nil
	}
	return &v
}
