package views

import (
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/audit"
)

// String is how a party is called where there is little room: a business by the name that it gave itself, in quotation marks since nobody verified it, and the
// beginning of its id.
func (p Party) String() string {
	short := func(s string) string { return s[:8] }
	switch {
	case p.Pseudonym.IsZero() && p.ID.IsZero():
		return "nobody"
	case p.ID.IsZero():
		return "pseudonym " + short(p.Pseudonym.String())
	case p.Name != "":
		return fmt.Sprintf("%q (%s)", p.Name, short(p.ID.String()))
	}
	return short(p.ID.String())
}

// Party is who has a pseudonym, as far as the index knows.
func (x *Index) Party(p policies.Pseudonym) Party {
	if n, ok := x.state.of[p]; ok && !p.IsZero() {
		return x.state.Parties[n]
	}
	return Party{Pseudonym: p}
}

// Sentence says in plain words what an entry records. party tells who somebody is; [Index.Party] does.
func Sentence(r *audit.Record, party func(policies.Pseudonym) Party) (string, error) {
	d := new(evidence.Details)
	if r.Opening != nil {
		var err error
		if d, err = r.Details(); err != nil {
			return "", err
		}
	}
	owner, reader := party(r.Entry.Owner), party(r.Entry.Reader)
	if r.Entry.Owner.IsZero() && !d.Owner.IsZero() {
		owner = Party{ID: policies.IdentityID(d.Owner)}
	}
	if r.Opening == nil {
		what := "its details were erased when their retention was over"
		if r.Absent {
			what = "its details are not in this copy of the log"
		}
		return fmt.Sprintf("%s, owner %s, reader %s, outcome %q; %s", r.Entry.Kind, owner, reader, string(r.Entry.Outcome), what), nil
	}
	item := string(d.Field)
	if d.Version != 0 {
		item += fmt.Sprintf(" version %d", d.Version)
	}
	fields := joined(fieldsOf(r, d))
	switch r.Entry.Kind {
	case evidence.EntryGenesis:
		return "the log begins", nil
	case evidence.EntryStart:
		return fmt.Sprintf("the vault started with token %s, grade %s", d.Token, d.Grade), nil
	case evidence.EntryStop:
		return "the vault stopped in good order", nil
	case evidence.EntryIdentity:
		return fmt.Sprintf("%s was enrolled", party(d.Pseudo)), nil
	case evidence.EntryManifest:
		if !reader.Pseudonym.IsZero() {
			return fmt.Sprintf("%s published version %d of what they write for %s", reader, d.Version, owner), nil
		}
		return fmt.Sprintf("%s published version %d of what they keep", owner, d.Version), nil
	case evidence.EntryImport:
		return fmt.Sprintf("the token is about to take the keys for a grant of %s to %s: %s", owner, reader, fields), nil
	case evidence.EntryGrant:
		if fields == "" { // the grant lies beside the entry of its import
			fields = fmt.Sprintf("what entry %d names", d.Index)
		}
		return fmt.Sprintf("%s lets %s read %s, custody %s", owner, reader, fields, d.Custody), nil
	case evidence.EntryRevocation:
		return fmt.Sprintf("%s ended what could be read: %s", owner, fields), nil
	case evidence.EntryClosure:
		return fmt.Sprintf("%s closed their account; what lies beside their entries before is erased later", owner), nil
	case evidence.EntryWriteGrant:
		return fmt.Sprintf("%s lets %s write %s", owner, reader, fields), nil
	case evidence.EntryWriteEnd:
		return fmt.Sprintf("%s ended what %s could write: %s", owner, reader, fields), nil
	case evidence.EntrySuccession:
		return fmt.Sprintf("%s has new keys, generation %d (%s); nothing that the keys before sign is accepted from here", owner, d.Version, d.Note), nil
	case evidence.EntrySuspension:
		return fmt.Sprintf("%s suspended all that it had been granted before", reader), nil
	case evidence.EntryFreeze:
		return fmt.Sprintf("two operators, %s and %s, stopped all reading of %s", d.Note, d.Identity, owner), nil
	case evidence.EntryThaw:
		return fmt.Sprintf("%s ended the stop of all reading", owner), nil
	case evidence.EntryGivenUp:
		return fmt.Sprintf("%s gave up what it could read of %s: %s", reader, owner, fields), nil
	case evidence.EntryVoucher:
		return fmt.Sprintf("the name of %s was %s by the operator", reader, d.Note), nil
	case evidence.EntryGuardrails:
		if d.Count == 0 {
			return "the operator's guardrails ended", nil
		}
		return fmt.Sprintf("the operator's guardrails are %s from here on", d.Note), nil
	case evidence.EntryNotice:
		return fmt.Sprintf("a change of the keys of %s without the recovery key was %s", owner, d.Note), nil
	case evidence.EntryDestroyed:
		if !d.Reader.IsZero() {
			return fmt.Sprintf("who could read %s of %s closed their account in entry %d; the keys are gone", fields, owner, d.Index), nil
		}
		return fmt.Sprintf("the keys of a revocation of %s are gone", owner), nil
	case evidence.EntrySealing:
		return fmt.Sprintf("the sealing key of period %d is about to be destroyed; %d keys were moved from it", d.Period, d.Count), nil
	case evidence.EntrySession:
		return fmt.Sprintf("%s opened a session", reader), nil
	case evidence.EntryUse:
		if r.Entry.Outcome == policies.CodeUnchanged {
			return fmt.Sprintf("%s asked for %s of %s and had it already", reader, item, owner), nil
		}
		return fmt.Sprintf("%s read %s of %s", reader, item, owner), nil
	case evidence.EntryFailed:
		return fmt.Sprintf("what entry %d says did not happen after all: %s", d.Index, r.Entry.Outcome), nil
	case evidence.EntryRefusal:
		what := "a request"
		switch {
		case d.Field != "":
			what = item + " of " + owner.String()
		case !d.Document.IsZero():
			what = "a document of " + owner.String()
			if r.Entry.Reader.IsZero() {
				return fmt.Sprintf("%s was refused a document: %s", owner, r.Entry.Outcome), nil
			}
		}
		if r.Entry.Outcome == policies.CodeGuardrail {
			return fmt.Sprintf("%s was refused %s by the operator's guardrails: %s", reader, what, d.Note), nil
		}
		return fmt.Sprintf("%s was refused %s: %s", reader, what, r.Entry.Outcome), nil
	case evidence.EntryRefusals:
		who := "callers who could not be identified"
		if !reader.Pseudonym.IsZero() {
			who = reader.String()
		} else if !owner.Pseudonym.IsZero() {
			who = owner.String()
		}
		return fmt.Sprintf("%d refusals of %s were counted: %s", d.Count, who, d.Note), nil
	case evidence.EntryErasure:
		return fmt.Sprintf("what lies beside entries %d to %d, and need not be kept, is about to be erased: %s", d.Index, d.Index+d.Count-1, d.Note), nil
	case evidence.EntryAccess:
		who := reader
		if who.Pseudonym.IsZero() {
			who = owner
		}
		if !d.Nonce.IsZero() {
			return fmt.Sprintf("%s, an auditor, was given %s of this log from entry %d on, at most %d", who, d.Note, d.Index, d.Count), nil
		}
		return fmt.Sprintf("entries of this log that concern %s were given out %d times: %s", who, d.Count, d.Note), nil
	}
	return fmt.Sprintf("%s, owner %s, reader %s, outcome %q", r.Entry.Kind, owner, reader, string(r.Entry.Outcome)), nil
}

func joined(fields []policies.Field) string {
	words := make([]string, len(fields))
	for i, f := range fields {
		words[i] = string(f)
	}
	return strings.Join(words, ", ")
}
