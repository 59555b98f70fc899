package client

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// TestEndsInTheHistory: what ended is counted by fields, of which a person thinks, and an entry that a hostile vault left empty is told all the same.
func TestEndsInTheHistory(t *testing.T) {
	w := newWorld(t)
	o, _ := w.owner()
	end := func(fields ...policies.Field) (d evidence.Details) {
		d.Owner = o.ID()
		for i, f := range fields {
			d.Items = append(d.Items, policies.RevokedItem{Grant: policies.DocumentID{byte(i)}, Field: f})
		}
		return d
	}
	for _, c := range []struct {
		kind evidence.Kind
		d    evidence.Details
		want string
	}{
		{evidence.EntryRevocation, end("note"), "permission for note"},
		{evidence.EntryRevocation, end("note", "note"), "permission for note"},
		{evidence.EntryRevocation, end("note", "name", "note"), "for 2 fields"},
		{evidence.EntryRevocation, end(), "for 0 fields"},
		{evidence.EntryGivenUp, end("note", "note"), "permission for note"},
		{evidence.EntryGivenUp, end("note", "name"), "for 2 fields"},
		{evidence.EntryGivenUp, end(), "for 0 fields"},
	} {
		if e := o.event(7, time.Now(), evidence.Entry{Kind: c.kind, Outcome: policies.CodeAccepted}, &c.d); !strings.Contains(e.Text, c.want) {
			t.Errorf("%s of %d items: %q", c.kind, len(c.d.Items), e.Text)
		}
	}
}
