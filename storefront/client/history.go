package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/client/phrases"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// Event is one entry of the key-use log that concerns the owner, or the reader, who asked, proven under a checkpoint that the token signed.
type Event struct {
	Index   uint64            `json:"index"`
	Time    time.Time         `json:"time"`
	Kind    evidence.Kind     `json:"kind"`
	Outcome policies.Code     `json:"outcome"`
	Reader  policies.ReaderID `json:"reader,omitzero"` // in an owner's history
	Owner   policies.OwnerID  `json:"owner,omitzero"`  // in a reader's
	Alias   string            `json:"alias,omitzero"`  // of either
	Field   policies.Field    `json:"field,omitzero"`
	Version uint64            `json:"version,omitzero"`
	Purpose string            `json:"purpose,omitzero"`
	Custody policies.Custody  `json:"custody,omitzero"` // of the grant; of a destruction: sealed, if one of the keys was
	Period  uint32            `json:"period,omitzero"`  // of a destruction in custody sealed: the sealing key with which kept copies die
	Text    string            `json:"text"`             // a plain sentence

	phrase phrases.ID // of the catalogue; empty: there is only Text
	pairs  []any
}

// In is the sentence in a language.
func (e *Event) In(l phrases.Language) string {
	if e.phrase == "" {
		return e.Text
	}
	return phrases.Say(l, string(e.phrase), e.pairs...)
}

// History returns the newest events, at most limit of them, newest first. Each was verified; one that does not verify is an error, since
// somebody made it up. What nobody can see from here is whether the storefront left entries out: only a full copy of the log shows that.
func (o *Owner) History(ctx context.Context, limit int) (_ []Event, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	var out []Event
	err = o.eachEntry(ctx, limit, false, func(index uint64, at time.Time, entry evidence.Entry, d *evidence.Details) bool {
		out = append(out, o.event(index, at, entry, d))
		return true
	})
	if err != nil {
		return out, err
	}
	return out, o.save()
}

// eachEntry calls visit for the newest entries of the history, at most limit, newest first, each verified, until it returns false. Strict: only under checkpoints that are
// proven to have what the kept one has.
func (o *Owner) eachEntry(ctx context.Context, limit int, strict bool, visit func(uint64, time.Time, evidence.Entry, *evidence.Details) bool) error {
	v, err := o.vault(ctx)
	if err != nil {
		return err
	}
	n, last, before := 0, uint64(0), uint64(0)
	var pseudonym policies.Pseudonym
	for n < limit {
		q := url.Values{"limit": {strconv.Itoa(min(limit-n, 100))}}
		if before != 0 {
			q.Set("before", strconv.FormatUint(before, 10))
		}
		var h vaultapi.History
		if err := o.wire.call(ctx, request{method: "GET", path: path(api.PathHistory, o.id.String()), query: q, out: &h, login: true}); err != nil {
			return fmt.Errorf("fetching the history: %w", err)
		}
		if len(h.Entries) == 0 {
			break
		}
		if err := o.notice(ctx, v, h.Checkpoint, strict); err != nil {
			return fmt.Errorf("fetching the history: %w", err)
		}
		checkpoint, err := evidence.OpenCheckpoint(h.Checkpoint, v.LogKey)
		if err != nil {
			return fmt.Errorf("fetching the history: %w: %w", ErrUntrue, err)
		}
		for i := range h.Entries {
			e := &h.Entries[i]
			at, entry, details, err := e.Verify(checkpoint)
			if errors.Is(err, evidence.ErrErased) && o.mayBeErased(at, entry.Kind) {
				details, err = &evidence.Details{Owner: o.ID(), Note: erasedNote}, nil
			}
			if err != nil {
				return fmt.Errorf("entry %d of the history: %w: %w", e.Index, ErrUntrue, err)
			}
			if n > 0 && e.Index >= last {
				return fmt.Errorf("entry %d of the history: %w: not newest first", e.Index, ErrUntrue)
			}
			// Which entries concern this owner, the opening says; one of somebody else's would prove nothing here.
			if err == nil && details.Owner != o.ID() && details.Identity != o.id {
				return fmt.Errorf("entry %d of the history: %w: it is about somebody else", e.Index, ErrUntrue)
			}
			// Nor does it say so when it is gone; but all of an owner's entries are under one pseudonym, and of some the opening is always there.
			if pseudonym.IsZero() {
				pseudonym = entry.Owner
			}
			if entry.Owner != pseudonym {
				return fmt.Errorf("entry %d of the history: %w: it is about somebody else", e.Index, ErrUntrue)
			}
			n, last = n+1, e.Index
			if !visit(e.Index, at, entry, details) {
				return nil
			}
		}
		if before = h.Before; before == 0 {
			break
		}
	}
	return nil
}

// erasedNote takes the place of details that were erased.
const erasedNote = "the details were erased when their retention was over"

// leastKept is for how long a vault keeps the details of what it records at least.
const leastKept = 47 * time.Hour

// mayBeErased reports whether an entry may be without its details. Of what is in force they are never erased, and of nothing new: then somebody left them out.
func (o *Owner) mayBeErased(at time.Time, kind evidence.Kind) bool {
	switch kind {
	case evidence.EntryUse, evidence.EntryRefusal, evidence.EntryRefusals, evidence.EntryFailed, evidence.EntryAccess:
		return o.now().Sub(at) > leastKept
	}
	return false
}

// kept is what an owner is told of a key that does not rest in the token.
func kept(c policies.Custody) string {
	if c == policies.CustodySealed {
		return " (custody sealed)"
	}
	return ""
}

// erased is what a person is told of an entry of which only kind, outcome and time are left.
func erased(k evidence.Kind) string {
	return fmt.Sprintf("The details of this entry (%s) were erased when their time was over.", k)
}

func (o *Owner) event(index uint64, at time.Time, entry evidence.Entry, d *evidence.Details) Event {
	e := Event{Index: index, Time: at, Kind: entry.Kind, Outcome: entry.Outcome, Reader: d.Reader, Field: d.Field, Version: d.Version, Purpose: d.Purpose, Custody: d.Custody, Period: d.Period}
	e.phrase, e.pairs = o.sentence(&e, entry, d)
	e.Text = e.In(phrases.English)
	return e
}

// sentence is the phrase for an entry, and what fills its places.
func (o *Owner) sentence(e *Event, entry evidence.Entry, d *evidence.Details) (phrases.ID, []any) {
	var reader, what, sealed any = phrases.ID("history.somebody"), phrases.ID("history.data"), ""
	if !d.Reader.IsZero() {
		reader = d.Reader.String()[:16] + "…"
		if c, ok := o.contact(d.Reader); ok && c.Alias != "" {
			reader, e.Alias = c.Alias, c.Alias
		}
	}
	if d.Field != "" {
		what = d.Field
	}
	if d.Custody == policies.CustodySealed {
		sealed = phrases.ID("history.sealed")
	}
	why := phrases.ID("why." + string(entry.Outcome))
	fill := []any{"reader", reader, "what", what, "sealed", sealed, "why", why, "version", d.Version, "note", d.Note, "period", d.Period, "n", d.Count, "kind", entry.Kind}
	if d.Note == erasedNote || d.Owner.IsZero() && d.Identity.IsZero() {
		what := phrases.ID("history.erased." + string(entry.Kind))
		if !phrases.Has(string(what)) { // a kind that is never erased
			return "history.other", fill
		}
		return "history.erased", []any{"what", what, "why", why}
	}
	if !d.Author.IsZero() && d.Author != o.author() && entry.Kind != evidence.EntryRevocation {
		return o.byWriter(entry, d, reader, fill)
	}
	switch entry.Kind {
	case evidence.EntryIdentity, evidence.EntryClosure, evidence.EntryManifest, evidence.EntryImport, evidence.EntryRefusals, evidence.EntryAccess, evidence.EntryFailed:
		return phrases.ID("history." + string(entry.Kind)), fill
	case evidence.EntryGrant:
		if d.Reader.IsZero() {
			return "history.grant.own", fill
		}
		return "history.grant", fill
	case evidence.EntryRevocation:
		if n := fieldsEnded(d.Items); n != 1 {
			return "history.revocation", []any{"n", n}
		}
		return "history.revocation.one", []any{"what", d.Items[0].Field}
	case evidence.EntryGivenUp:
		if n := fieldsEnded(d.Items); n != 1 {
			return "history.renunciation", []any{"reader", reader, "n", n}
		}
		return "history.renunciation.one", []any{"reader", reader, "what", d.Items[0].Field}
	case evidence.EntrySuccession:
		return "history.succession", fill
	case evidence.EntryFreeze, evidence.EntryThaw:
		return phrases.ID("history." + string(entry.Kind)), fill
	case evidence.EntryNotice:
		return phrases.ID("history.notice." + d.Note), fill
	case evidence.EntryDestroyed:
		closed := ""
		if !d.Reader.IsZero() { // whose account was closed
			closed = ".closed"
		}
		switch {
		case d.Custody == policies.CustodySealed:
			return phrases.ID("history.destroyed" + closed + ".sealed"), fill
		case d.Note != "":
			return phrases.ID("history.destroyed" + closed + ".absent"), fill
		}
		return phrases.ID("history.destroyed" + closed), fill
	case evidence.EntryUse:
		switch entry.Outcome {
		case policies.CodeReleased:
			return "history.read", fill
		case policies.CodeUnchanged:
			return "history.unchanged", fill
		}
		return "history.asked", fill
	case evidence.EntryRefusal:
		if d.Reader.IsZero() && entry.Outcome == policies.CodeChain { // so the vault answers a device that asks for the newest, too
			return "history.refusal.behind", fill
		}
		if d.Reader.IsZero() {
			return "history.refusal.own", fill
		}
		return "history.refusal", fill
	}
	return "history.other", fill
}

// fieldsEnded is of how many fields permissions ended: of one there may be several, of an earlier time too.
func fieldsEnded(items []policies.RevokedItem) int {
	fields := map[policies.Field]bool{}
	for _, i := range items {
		fields[i.Field] = true
	}
	return len(fields)
}

// byWriter is the phrase for an entry about what somebody else writes.
func (o *Owner) byWriter(entry evidence.Entry, d *evidence.Details, who any, fill []any) (phrases.ID, []any) {
	switch entry.Kind {
	case evidence.EntryManifest:
		return "history.written", fill
	case evidence.EntryWriteGrant:
		return "history.write-grant", fill
	case evidence.EntryWriteEnd:
		return "history.write-end", []any{"reader", who, "n", len(d.Items)}
	case evidence.EntryUse:
		by := d.Author.String()[:16] + "…"
		if c, ok := o.contact(policies.ReaderID(d.Author)); ok && c.Alias != "" {
			by = c.Alias
		}
		if entry.Outcome == policies.CodeReleased {
			return "history.read.written", append(fill, "by", by)
		}
		return "history.unchanged", fill
	case evidence.EntryRefusal:
		return "history.refusal", fill
	case evidence.EntryFailed:
		return "history.failed", fill
	}
	return "history.other", fill
}
