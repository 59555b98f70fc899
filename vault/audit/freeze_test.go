package audit

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/freeze"
)

// order is the first operator's, signed by a key that need not be theirs.
func (p *person) order(owner policies.OwnerID, key *envelope.PrivateKey) []byte {
	return must(policies.Sign(key, &freeze.Order{
		Header: policies.NewHeader("freeze-order", p.w.now), Audience: p.w.doc.Vault, Owner: owner, Operator: p.id, Expires: p.w.now.Add(freeze.Lifetime).Unix(),
	})).Raw
}

// freeze is the second operator's, of somebody.
func (p *person) freeze(of *person, order []byte, key *envelope.PrivateKey) uint64 {
	e := must(policies.Sign(key, &freeze.Document{
		Header: policies.NewHeader("freeze", p.w.now), Audience: p.w.doc.Vault, Owner: of.owner(), Operator: p.id, Order: order,
	}))
	return p.w.add(p.w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryFreeze, Owner: of.pseudo, Outcome: policies.CodeAccepted},
		&evidence.Details{Owner: of.owner(), Identity: p.id, Document: e.Hash}, e.Raw)
}

func (p *person) thaw(key *envelope.PrivateKey) uint64 { return p.thawOf(p.w.now, key) }

// thawOf is a thaw that was decided at another time than its record's.
func (p *person) thawOf(at time.Time, key *envelope.PrivateKey) uint64 {
	d := &freeze.Thaw{Header: policies.NewHeader("thaw", at), Audience: p.w.doc.Vault, Owner: p.owner(), Link: p.link}
	e := must(policies.Sign(key, d))
	p.took(d.Seq, e.Hash)
	return p.w.add(p.w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryThaw, Owner: p.pseudo, Outcome: policies.CodeAccepted},
		&evidence.Details{Owner: p.owner(), Identity: p.id, Document: e.Hash, Seq: d.Seq}, e.Raw)
}

// TestRecheckOfFreezes: what a vault releases while its owner is frozen is not justified, whatever is granted; and a vault that takes a freeze or a thaw of who
// may not make one is told.
func TestRecheckOfFreezes(t *testing.T) {
	type scene struct {
		*world
		o, r, one, two *person
		read           func() uint64
	}
	for _, c := range []struct {
		name       string
		act        func(w *scene) uint64 // what is wrong, if anything
		release    bool                  // it is a release
		code, text string
	}{
		{"a release while frozen", func(w *scene) uint64 {
			w.two.freeze(w.o, w.one.order(w.o.owner(), w.one.key), w.two.key)
			entry := w.read()
			w.o.thaw(w.o.key)
			w.read()
			return entry
		}, true, string(policies.CodeFrozen), "two operators froze"},
		{"a release while frozen, after new keys", func(w *scene) uint64 {
			w.two.freeze(w.o, w.one.order(w.o.owner(), w.one.key), w.two.key)
			w.o.succeed(recoveryKey(w.o.seed), nil)
			return w.read()
		}, true, string(policies.CodeFrozen), "two operators froze"},
		{"frozen and thawed", func(w *scene) uint64 {
			w.two.freeze(w.o, w.one.order(w.o.owner(), w.one.key), w.two.key)
			w.o.thaw(w.o.key)
			return w.read()
		}, false, "", ""},
		{"the first operator did not sign", func(w *scene) uint64 {
			return w.two.freeze(w.o, w.one.order(w.o.owner(), w.two.key), w.two.key)
		}, false, ReasonFreeze, "first operator"},
		{"the second operator did not sign", func(w *scene) uint64 {
			return w.two.freeze(w.o, w.one.order(w.o.owner(), w.one.key), w.one.key)
		}, false, ReasonFreeze, "second operator"},
		{"an order of long ago", func(w *scene) uint64 {
			order := w.one.order(w.o.owner(), w.one.key)
			w.tick(freeze.Lifetime + time.Hour)
			return w.two.freeze(w.o, order, w.two.key)
		}, false, ReasonFreeze, "was over"},
		{"an order twice", func(w *scene) uint64 {
			order := w.one.order(w.o.owner(), w.one.key)
			w.two.freeze(w.o, order, w.two.key)
			w.o.thaw(w.o.key)
			return w.two.freeze(w.o, order, w.two.key)
		}, false, ReasonFreeze, "used before"},
		{"a thaw by an operator", func(w *scene) uint64 {
			w.two.freeze(w.o, w.one.order(w.o.owner(), w.one.key), w.two.key)
			return w.o.thaw(w.one.key)
		}, false, ReasonFreeze, "not signed by the owner"},
		{"a thaw that was held back since before the freeze", func(w *scene) uint64 {
			before := w.now
			w.tick(time.Hour)
			w.two.freeze(w.o, w.one.order(w.o.owner(), w.one.key), w.two.key)
			return w.o.thawOf(before, w.o.key)
		}, false, ReasonFreeze, "before the freeze"},
		{"one that was held back since between two freezes, after new keys", func(w *scene) uint64 {
			w.two.freeze(w.o, w.one.order(w.o.owner(), w.one.key), w.two.key)
			between := w.now
			w.tick(time.Hour)
			w.two.freeze(w.o, w.one.order(w.o.owner(), w.one.key), w.two.key)
			w.o.succeed(recoveryKey(w.o.seed), nil)
			return w.o.thawOf(between, newKey(w.o.seed))
		}, false, ReasonFreeze, "before the freeze"},
		{"one by a clock that is a minute late", func(w *scene) uint64 {
			w.two.freeze(w.o, w.one.order(w.o.owner(), w.one.key), w.two.key)
			w.o.thawOf(w.now.Add(-policies.ClockSkew), w.o.key)
			return w.read()
		}, false, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &scene{world: newWorld()}
			w.o, w.r, w.one, w.two = w.enrol(), w.enrol(), w.enrol(), w.enrol()
			w.o.publish(nil)
			g := w.o.grant(w.r, w.o.key, nil, "phone")
			s := w.r.open(w.r.key, nil)
			w.read = func() uint64 {
				entry, _ := s.read(w.o, g, "phone", nil)
				return entry
			}
			w.read()
			entry := c.act(w)
			report := w.recheck(t, Range{})
			wrong, right := &report.Documents, &report.Unjustified
			if c.release {
				wrong, right = right, wrong
			}
			if right.Count != 0 || c.code == "" && wrong.Count != 0 || c.code != "" && wrong.Count != 1 {
				t.Fatalf("%s", report.Bytes())
			}
			if c.code == "" {
				return
			}
			if f := wrong.Listed[0]; f.Index != entry || len(f.Reasons) != 1 || f.Reasons[0].Code != c.code || !strings.Contains(f.Reasons[0].Text, c.text) {
				t.Errorf("entry %d: %+v, want entry %d", f.Index, f.Reasons, entry)
			}
		})
	}
}

// TestRecheckOfHeldBackThaws: a thaw that was held back since before a freeze does not justify what is released after it; one of later does.
func TestRecheckOfHeldBackThaws(t *testing.T) {
	w := newWorld()
	o, r, one, two := w.enrol(), w.enrol(), w.enrol(), w.enrol()
	o.publish(nil)
	g := o.grant(r, o.key, nil, "phone")
	s := r.open(r.key, nil)
	before := w.now
	w.tick(2 * time.Minute)
	two.freeze(o, one.order(o.owner(), one.key), two.key)
	thaw := o.thawOf(before, o.key)
	released, _ := s.read(o, g, "phone", nil)
	o.thaw(o.key)
	s.read(o, g, "phone", nil)
	report := w.recheck(t, Range{})
	if report.Documents.Count != 1 || report.Documents.Listed[0].Index != thaw || report.Unjustified.Count != 1 || report.Unjustified.Listed[0].Index != released {
		t.Errorf("entries %d and %d are wrong: %s", thaw, released, report.Bytes())
	}
}
