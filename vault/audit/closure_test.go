package audit

import (
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// A recheck follows what ended with the account of a reader: keys that are said to have ended with one must be of grants to who closed it, and nothing is released to them afterwards, in a session
// that the vault takes later either.
func TestRecheckOfClosedReaders(t *testing.T) {
	for _, c := range []struct {
		name      string
		change    func(*evidence.Details)
		entry     func(*evidence.Entry)
		open      bool // the account is not closed
		after     bool // a release after it
		documents string
		faults    uint64
	}{
		{name: "ended"},
		{name: "of an account that is not closed", open: true, documents: ReasonDetails},
		{name: "by another entry", change: func(d *evidence.Details) { d.Index-- }, documents: ReasonDetails},
		{name: "of another's grant", change: func(d *evidence.Details) { d.Items[0].Grant[0] ^= 1 }}, // one that is not known may have expired
		{name: "of a reader who is not enrolled", change: func(d *evidence.Details) { d.Reader[0] ^= 1 }, documents: ReasonIdentity},
		{name: "by another document", change: func(d *evidence.Details) { d.Document[0] ^= 1 }, documents: ReasonDetails},
		{name: "under another's pseudonym", entry: func(e *evidence.Entry) { e.Owner[0] ^= 1 }, documents: ReasonPseudonym},
		{name: "under a reader's pseudonym too", entry: func(e *evidence.Entry) { e.Reader = e.Owner }, documents: ReasonPseudonym},
		{name: "of another owner's", change: func(d *evidence.Details) { d.Owner[0] ^= 1 }, documents: ReasonPseudonym},
		{name: "a release after it", after: true, faults: 1},
	} {
		w := newWorld()
		o, r, other := w.enrol(), w.enrol(), w.enrol()
		o.publish(nil)
		g, kept := o.grant(r, o.key, nil, "phone"), o.grant(other, o.key, nil, "phone")
		s, theirs := r.open(r.key, nil), other.open(other.key, nil)
		s.read(o, g, "phone", nil)
		closing := uint64(len(w.bodies) - 1)
		if !c.open {
			closing = r.close(r.key)
		}
		items := []policies.RevokedItem{{Grant: g.ID, Field: "phone", Author: policies.AuthorID(o.id)}}
		d := &evidence.Details{Owner: o.owner(), Reader: policies.ReaderID(r.id), Document: r.link.Prev, Index: closing, Items: items, Custody: policies.CustodyResident}
		if c.change != nil {
			c.change(d)
		}
		e := evidence.Entry{Kind: evidence.EntryDestroyed, Owner: o.pseudo, Outcome: policies.CodeAccepted}
		if c.entry != nil {
			c.entry(&e)
		}
		w.add(w.tick(time.Millisecond), e, d, nil)
		theirs.read(o, kept, "phone", nil)
		if c.after {
			r.open(r.key, nil).read(o, g, "phone", nil)
		}
		report := w.recheck(t, Range{})
		code := ""
		if report.Documents.Count > 0 {
			code = report.Documents.Reasons[0].Code
		}
		if code != c.documents || report.Unjustified.Count != c.faults || report.Unchecked.Count != 0 {
			t.Errorf("%s: %s", c.name, report.Bytes())
		}
		for _, f := range report.Unjustified.Listed {
			codes := map[string]bool{}
			for _, reason := range f.Reasons {
				codes[reason.Code] = true
			}
			if !codes[string(policies.CodePartyClosed)] || !codes[string(policies.CodeRevoked)] {
				t.Errorf("%s: %+v", c.name, f)
			}
		}
	}
	// What ended is a grant to somebody else.
	w := newWorld()
	o, r, other := w.enrol(), w.enrol(), w.enrol()
	o.publish(nil)
	kept := o.grant(other, o.key, nil, "phone")
	closing := r.close(r.key)
	w.add(w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryDestroyed, Owner: o.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{
		Owner: o.owner(), Reader: policies.ReaderID(r.id), Document: r.link.Prev, Index: closing, Items: []policies.RevokedItem{{Grant: kept.ID, Field: "phone", Author: policies.AuthorID(o.id)}},
	}, nil)
	other.open(other.key, nil).read(o, kept, "phone", nil)
	if report := w.recheck(t, Range{}); report.Documents.Count != 1 || report.Documents.Reasons[0].Code != ReasonGrantChain || report.Unjustified.Count != 0 {
		t.Errorf("a grant to somebody else: %s", report.Bytes())
	}
}
