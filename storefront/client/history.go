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
}

// History returns the newest events, at most limit of them, newest first. Each was verified; one that does not verify is an error, since
// somebody made it up. What nobody can see from here is whether the storefront left entries out: only a full copy of the log shows that.
func (o *Owner) History(ctx context.Context, limit int) ([]Event, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []Event
	err := o.eachEntry(ctx, limit, false, func(index uint64, at time.Time, entry evidence.Entry, d *evidence.Details) {
		out = append(out, o.event(index, at, entry, d))
	})
	if err != nil {
		return out, err
	}
	return out, o.save()
}

// eachEntry calls visit for the newest entries of the history, at most limit, newest first, each verified. Strict: only under checkpoints that are
// proven to have what the kept one has.
func (o *Owner) eachEntry(ctx context.Context, limit int, strict bool, visit func(uint64, time.Time, evidence.Entry, *evidence.Details)) error {
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
			visit(e.Index, at, entry, details)
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
	reader := "somebody"
	if !d.Reader.IsZero() {
		reader = d.Reader.String()[:16] + "…"
		if c, ok := o.contact(d.Reader); ok && c.Alias != "" {
			reader, e.Alias = c.Alias, c.Alias
		}
	}
	if d.Note == erasedNote {
		what := map[evidence.Kind]string{
			evidence.EntryUse: "Somebody asked for data of yours", evidence.EntryRefusal: "Somebody, or a document of yours, was refused", evidence.EntryRefusals: "Documents of yours were refused",
			evidence.EntryFailed: "Something that was recorded did not happen after all", evidence.EntryAccess: "This history was given out",
		}[entry.Kind]
		e.Text = fmt.Sprintf("%s (%s); %s.", what, entry.Outcome.Error(), erasedNote)
		return e
	}
	what := string(d.Field)
	if what == "" {
		what = "your data"
	}
	if d.Owner.IsZero() && d.Identity.IsZero() {
		e.Text = erased(entry.Kind)
		return e
	}
	switch entry.Kind {
	case evidence.EntryIdentity:
		e.Text = "You registered with the vault."
	case evidence.EntryManifest:
		e.Text = fmt.Sprintf("You published version %d of your data.", d.Version)
	case evidence.EntryImport:
		e.Text = fmt.Sprintf("The token was given keys for a grant to %s%s.", reader, kept(d.Custody))
	case evidence.EntryGrant:
		e.Text = fmt.Sprintf("You allowed %s to read.", reader)
		if d.Reader.IsZero() {
			e.Text = "A grant of yours came into force."
		}
	case evidence.EntryRevocation:
		e.Text = fmt.Sprintf("You ended %d permissions; nobody reads with them from here on.", len(d.Items))
		if len(d.Items) == 1 {
			e.Text = fmt.Sprintf("You ended the permission for %s; nobody reads with it from here on.", d.Items[0].Field)
		}
	case evidence.EntryDestroyed:
		e.Text = "The token destroyed the keys of the permissions that you ended."
		if d.Note != "" {
			e.Text = fmt.Sprintf("The keys of the permissions that you ended are refused; the vault says of some that the token did not have them any more (%s).", d.Note)
		}
		if d.Custody == policies.CustodySealed {
			e.Text = fmt.Sprintf("The keys of the permissions that you ended are forgotten; a copy kept by the vault's host dies when sealing key %d is destroyed, unless the host is dishonest then.", d.Period)
		}
	case evidence.EntryUse:
		switch entry.Outcome {
		case policies.CodeReleased:
			e.Text = fmt.Sprintf("%s read %s%s.", reader, what, kept(d.Custody))
		case policies.CodeUnchanged:
			e.Text = fmt.Sprintf("%s asked for %s and had the newest version already.", reader, what)
		default:
			e.Text = fmt.Sprintf("%s asked for %s: %s.", reader, what, entry.Outcome.Error())
		}
	case evidence.EntryRefusal:
		if d.Reader.IsZero() {
			e.Text = fmt.Sprintf("A document of yours was refused (%s): %s.", d.Note, entry.Outcome.Error())
			break
		}
		e.Text = fmt.Sprintf("%s was refused %s: %s.", reader, what, entry.Outcome.Error())
	case evidence.EntryRefusals:
		e.Text = fmt.Sprintf("Documents of yours were refused %d times more (%s).", d.Count, d.Note)
	case evidence.EntryAccess:
		e.Text = fmt.Sprintf("This history, or what the log says of you, was given out %d times (%s).", d.Count, d.Note)
	case evidence.EntryFailed:
		e.Text = fmt.Sprintf("Something that was recorded did not happen after all: %s.", entry.Outcome.Error())
	default:
		e.Text = fmt.Sprintf("%s: %s.", entry.Kind, entry.Outcome.Error())
	}
	return e
}
