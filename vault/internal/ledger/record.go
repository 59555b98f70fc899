package ledger

import (
	"fmt"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/freeze"
	"github.com/sallyport/sallyport/policies/guardrails"
	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/policies/writing"
	"github.com/sallyport/sallyport/vault/keylog"
)

// Record is one record of the key-use log, with what it means already decoded.
type Record struct {
	Kind    evidence.Kind
	Owner   policies.Pseudonym
	Reader  policies.Pseudonym
	Outcome policies.Code
	Details evidence.Details
	Raw     []byte // the signed document that lies beside the entry, if this one is the first to speak of it
	// Document is Raw decoded, for kinds that change the state by it: *policies.VaultDocument (genesis), Identity, Manifest, Grant
	// (import), Revocation, WriteGrant, WriteEnd, Session, AuditQuery (access, if it is one), *succession.Document, Notice, Suspension or Renunciation, *freeze.Document or Thaw,
	// *names.Voucher, *guardrails.Document.
	Document any
	// Gone: what the state rests on was erased, as it may be of an owner who closed their account.
	Gone bool

	// Set by the log.
	Index   uint64
	Time    time.Time
	Opening evidence.Opening
	Leaf    []byte
}

// Decided is when a use was decided. The log stamps its entry a little later, and the day of a limit is that of the decision.
func (r *Record) Decided() time.Time {
	if r.Details.Decided == 0 { // an entry of a vault that did not record it
		return r.Time
	}
	return time.UnixMilli(r.Details.Decided)
}

// Seal makes what the log keeps: the entry, which commits to the details, and the body.
func (r *Record) Seal() keylog.Record {
	opening, commitment := evidence.Commit(&r.Details)
	r.Opening = opening
	entry := evidence.Entry{Kind: r.Kind, Owner: r.Owner, Reader: r.Reader, Outcome: r.Outcome, Commitment: commitment}
	body := evidence.Body{Opening: opening, Document: r.Raw}
	return keylog.Record{Entry: entry.Bytes(), Body: body.Bytes()}
}

// Recorded notes where the log put the record.
func (r *Record) Recorded(p keylog.Position, entry []byte) {
	r.Index, r.Time, r.Leaf = uint64(p.Index), p.Time, keylog.Leaf(p.Time, entry)
}

// Decode reads a record of the log. The tree of the log commits to entries and not to bodies, so everything that the state will
// rest on is checked here: the opening against the entry's commitment, the document's hash against the opened details.
func Decode(p keylog.Position, raw keylog.Record) (*Record, error) {
	fail := func(err error) (*Record, error) {
		return nil, fmt.Errorf("entry %d of the key-use log: %w", p.Index, err)
	}
	entry, err := evidence.ParseEntry(raw.Entry)
	if err != nil {
		return fail(err)
	}
	r := &Record{Kind: entry.Kind, Owner: entry.Owner, Reader: entry.Reader, Outcome: entry.Outcome}
	r.Recorded(p, raw.Entry)
	if len(raw.Body) == 0 {
		if r.Gone = needsBody(&entry) && !entry.Owner.IsZero() && !kept(entry.Kind); r.Gone {
			return r, nil
		}
		if needsBody(&entry) {
			return fail(fmt.Errorf("the body of a %s, which the vault's state rests on, was erased", entry.Kind))
		}
		return r, nil
	}
	body, err := evidence.ParseBody(raw.Body)
	if err != nil {
		return fail(err)
	}
	if body.Opening.Commitment() != entry.Commitment {
		return fail(fmt.Errorf("%w: the body is not the one that the entry commits to", policies.ErrProof))
	}
	details, err := body.Opening.Read()
	if err != nil {
		return fail(err)
	}
	r.Details, r.Opening, r.Raw = *details, body.Opening, body.Document
	if err := r.decodeDocument(); err != nil {
		return fail(err)
	}
	return r, nil
}

// Erasable reports whether what lies beside an entry may be erased when its retention is over: what people did, as far as no state rests on it. Of the
// operator's own entries nothing is.
func Erasable(raw []byte) bool {
	e, err := evidence.ParseEntry(raw)
	if err != nil {
		return false
	}
	switch e.Kind {
	case evidence.EntryUse, evidence.EntrySession, evidence.EntryRefusal, evidence.EntryRefusals, evidence.EntryAccess:
		return true
	case evidence.EntryFailed: // a use; the end of a sealing key is nobody's
		return !needsBody(&e) && !e.Owner.IsZero()
	}
	return false
}

// needsBody tells the entries whose bodies must not be erased while the state rests on them.
func needsBody(e *evidence.Entry) bool {
	switch e.Kind {
	case evidence.EntryFailed:
		return e.Outcome == policies.CodeImport
	case evidence.EntryErasure, evidence.EntryGenesis, evidence.EntryIdentity, evidence.EntryManifest, evidence.EntryImport, evidence.EntryGrant,
		evidence.EntryRevocation, evidence.EntryClosure, evidence.EntryDestroyed, evidence.EntryStart, evidence.EntryWriteGrant, evidence.EntryWriteEnd,
		evidence.EntrySuccession, evidence.EntryNotice, evidence.EntrySuspension,
		evidence.EntryFreeze, evidence.EntryThaw, evidence.EntryGivenUp, evidence.EntryVoucher, evidence.EntryGuardrails:
		return true
	}
	return false
}

func (r *Record) decodeDocument() error {
	switch r.Kind {
	case evidence.EntryGenesis:
		return document[policies.VaultDocument](r)
	case evidence.EntryIdentity:
		return document[policies.Identity](r)
	case evidence.EntryManifest:
		return document[policies.Manifest](r)
	case evidence.EntryImport:
		return document[policies.Grant](r)
	case evidence.EntryRevocation:
		return document[policies.Revocation](r)
	case evidence.EntryClosure:
		return document[policies.Closure](r)
	case evidence.EntryWriteGrant:
		return document[writing.Grant](r)
	case evidence.EntryWriteEnd:
		return document[writing.End](r)
	case evidence.EntrySession:
		return document[policies.Session](r)
	case evidence.EntrySuccession:
		return document[succession.Document](r)
	case evidence.EntrySuspension:
		return document[succession.Suspension](r)
	case evidence.EntryFreeze:
		return document[freeze.Document](r)
	case evidence.EntryThaw:
		return document[freeze.Thaw](r)
	case evidence.EntryGivenUp:
		return document[succession.Renunciation](r)
	case evidence.EntryVoucher:
		return document[names.Voucher](r)
	case evidence.EntryGuardrails:
		return document[guardrails.Document](r)
	case evidence.EntryNotice:
		return document[succession.Notice](r)
	case evidence.EntryAccess:
		if len(r.Raw) > 0 {
			return document[policies.AuditQuery](r)
		}
	}
	return nil
}

func document[T any, D interface {
	*T
	envelope.Document
	Validate() error
}](r *Record) error {
	e, err := envelope.Parse(r.Raw)
	if err != nil {
		return err
	}
	if policies.Hash(e.Hash) != r.Details.Document {
		return fmt.Errorf("%w: the document is not the one that the entry names", policies.ErrProof)
	}
	d, err := policies.Decode[T, D](e)
	if err != nil {
		return err
	}
	r.Document = d
	return nil
}
