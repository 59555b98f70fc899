package vault

import (
	"errors"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/freeze"
	"github.com/sallyport/sallyport/vault/api"
)

// orderOf is an operator's order, signed by a key that need not be theirs.
func (p *party) orderOf(owner policies.OwnerID, key *envelope.PrivateKey) []byte {
	p.w.t.Helper()
	now := p.w.clock.now()
	e, err := policies.Sign(key, &freeze.Order{
		Header: policies.NewHeader("freeze-order", now), Audience: p.w.document.Vault, Owner: owner, Operator: p.id, Expires: now.Add(freeze.Lifetime).Unix(),
	})
	must(p.w.t, err)
	return e.Raw
}

// freezeOf is the whole, signed by a key that need not be this operator's.
func (p *party) freezeOf(owner policies.OwnerID, order []byte, key *envelope.PrivateKey) *envelope.Envelope {
	p.w.t.Helper()
	e, err := policies.Sign(key, &freeze.Document{
		Header: policies.NewHeader("freeze", p.w.clock.now()), Audience: p.w.document.Vault, Owner: owner, Operator: p.id, Order: order,
	})
	must(p.w.t, err)
	return e
}

func (o *owner) thawOf(link policies.Link, key *envelope.PrivateKey) *envelope.Envelope {
	return o.thawAt(o.w.clock.now(), link, key)
}

// thawAt is a thaw that was decided at a time.
func (o *owner) thawAt(at time.Time, link policies.Link, key *envelope.PrivateKey) *envelope.Envelope {
	o.w.t.Helper()
	e, err := policies.Sign(key, &freeze.Thaw{Header: policies.NewHeader("thaw", at), Audience: o.w.document.Vault, Owner: policies.OwnerID(o.id), Link: link})
	must(o.w.t, err)
	return e
}

// TestFreeze: two operators stop all reading of one owner and of nobody else, and only the owner ends it. Neither operator can do it alone, nor anybody in their name, nor
// with an order that was used or is too old.
func TestFreeze(t *testing.T) {
	w := newWorld(t)
	one, two, stranger := w.enrol(), w.enrol(), w.enrol()
	w.operators = []policies.IdentityID{one.id, two.id}
	must(t, w.vault.Close(t.Context()))
	w.log.Close()
	w.reopen(true)
	o, other, r := w.owner(), w.owner(), w.reader()
	o.set("name", "n")
	other.set("name", "m")
	mine, theirs := ask{o, o.grant(r, nil, "name"), "name", 0}, ask{other, other.grant(r, nil, "name"), "name", 0}
	id := policies.OwnerID(o.id)
	r.value(mine, r.read(mine).Items[0])

	for what, c := range map[string]struct {
		e    *envelope.Envelope
		want error
	}{
		"the first operator is none":             {two.freezeOf(id, stranger.orderOf(id, stranger.key), two.key), policies.CodeOperator},
		"the second operator is none":            {stranger.freezeOf(id, one.orderOf(id, one.key), stranger.key), policies.CodeOperator},
		"the first operator's name is forged":    {two.freezeOf(id, one.orderOf(id, two.key), two.key), policies.ErrSignature},
		"the second operator's name is forged":   {two.freezeOf(id, one.orderOf(id, one.key), one.key), policies.ErrSignature},
		"an owner whom nobody knows":             {two.freezeOf(policies.OwnerID{9}, one.orderOf(policies.OwnerID{9}, one.key), two.key), policies.CodeUnknown},
		"the owner's own signature is no second": {o.party.freezeOf(id, one.orderOf(id, one.key), o.key), policies.CodeOperator},
	} {
		if _, err := w.submit(api.Submission{Envelope: c.e.Raw}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	if e, err := envelope.Parse(one.orderOf(id, one.key)); err != nil {
		t.Error(err)
	} else if _, err := w.submit(api.Submission{Envelope: e.Raw}); !errors.Is(err, policies.ErrMalformed) {
		t.Errorf("an order alone: %v", err)
	}
	old := one.orderOf(id, one.key)
	w.clock.move(freeze.Lifetime)
	w.refuses(api.Submission{Envelope: two.freezeOf(id, old, two.key).Raw}, policies.CodeExpired, "an order of yesterday")
	w.refuses(api.Submission{Envelope: o.thawOf(o.link(), o.key).Raw}, policies.CodeNotFound, "a thaw of what is not frozen")
	r.openSession()
	r.value(mine, r.read(mine).Items[0])

	order := one.orderOf(id, one.key)
	e := two.freezeOf(id, order, two.key)
	first := w.accepted(api.Submission{Envelope: e.Raw})
	derives := w.token.count()
	frozen := func(want policies.Code) {
		t.Helper()
		items := r.read(mine, theirs).Items
		if items[0].Outcome != want {
			t.Errorf("an item of the frozen owner: %s, want %s", items[0].Outcome, want)
		}
		r.value(theirs, items[1])
	}
	shown := func(want *evidence.Receipt) {
		t.Helper()
		for owner, want := range map[policies.OwnerID]*evidence.Receipt{id: want, policies.OwnerID(other.id): nil} {
			state, err := w.vault.Freeze(owner)
			must(t, err)
			if (state.Receipt == nil) != (want == nil) {
				t.Errorf("the receipt of a freeze: %v, want %v", state.Receipt, want)
			} else if want != nil {
				if _, entry, _, err := state.Receipt.Verify(w.document, want.Document); err != nil || entry.Kind != evidence.EntryFreeze {
					t.Errorf("the receipt of the freeze: %s, %v", entry.Kind, err)
				}
			}
		}
	}
	if _, err := w.vault.Freeze(policies.OwnerID{9}); !errors.Is(err, policies.CodeNotFound) {
		t.Errorf("a freeze of an owner whom nobody knows: %v", err)
	}
	for _, database := range []bool{true, false} {
		frozen(policies.CodeFrozen)
		shown(first)
		must(t, w.vault.Close(t.Context()))
		w.log.Close()
		w.reopen(database)
		r.openSession()
	}
	if n := w.token.count() - derives; n != 2 {
		t.Errorf("%d keys were used, and 2 reads were of somebody else", n)
	}
	if again := w.accepted(api.Submission{Envelope: e.Raw}); again.Evidence.Index != first.Evidence.Index {
		t.Error("the same freeze was recorded twice")
	}
	// The owner goes on: grants and publishes, and still nothing is read.
	o.set("name", "n2")
	mine = ask{o, o.grant(r, nil, "name"), "name", 0}
	frozen(policies.CodeFrozen)
	// Operators cannot take it back, nor can a stranger. New keys alone do not.
	w.refuses(api.Submission{Envelope: o.thawOf(policies.Link{Seq: o.seq + 2, Prev: o.prev}, o.key).Raw}, policies.CodeChain, "a thaw that is not next")
	for _, p := range []party{one, two, stranger} {
		if _, err := w.submit(api.Submission{Envelope: o.thawOf(o.link(), p.key).Raw}); !errors.Is(err, policies.ErrSignature) {
			t.Errorf("a thaw by somebody else: %v", err)
		}
	}
	_, succession := o.successionOf(o.link(), 211, o.recovery, nil)
	o.take(succession)
	former := o.key
	o.key = newSigner(211)
	frozen(policies.CodeFrozen)
	w.refuses(api.Submission{Envelope: o.thawOf(o.link(), former).Raw}, policies.CodeKeyReplaced, "a thaw by the key before")
	thaw := o.thawOf(o.link(), o.key)
	o.take(thaw)
	frozen(policies.CodeReleased)
	shown(nil)
	// The order is used up: neither operator, nor who kept a copy, freezes anew with it.
	w.accepted(api.Submission{Envelope: e.Raw})
	frozen(policies.CodeReleased)
	w.clock.move(time.Minute)
	for _, database := range []bool{true, false} {
		w.refuses(api.Submission{Envelope: two.freezeOf(id, order, two.key).Raw}, policies.CodeReplay, "the first operator's order again")
		must(t, w.vault.Close(t.Context()))
		w.log.Close()
		w.reopen(database)
	}
	second := w.accepted(api.Submission{Envelope: one.freezeOf(id, two.orderOf(id, two.key), one.key).Raw})
	r.openSession()
	frozen(policies.CodeFrozen)
	shown(second)

	// It is in the owner's history, under the owner's pseudonym, with both operators.
	var told []evidence.Kind
	for _, rec := range w.records() {
		if rec.Kind == evidence.EntryFreeze || rec.Kind == evidence.EntryThaw {
			told = append(told, rec.Kind)
			if rec.Details.Owner != id || rec.Owner.IsZero() || rec.Kind == evidence.EntryFreeze && (rec.Details.Identity.IsZero() || rec.Details.Note == rec.Details.Identity.String()) {
				t.Errorf("%s: %+v", rec.Kind, rec.Details)
			}
		}
	}
	if len(told) != 3 {
		t.Errorf("the log has %v", told)
	}
}

// TestThawHeldBack: a storefront holds a thaw back, or it waits on a device, until the person has lost everything and two operators freeze. It does not end that freeze, although the owner's
// chain did not move since and it is the next document of it: neither at once nor after a restart, nor where the thaw came between two freezes. A thaw that is decided
// afterwards does. One of a time to come, as by a clock that is wrong, would end every freeze until then and is refused.
func TestThawHeldBack(t *testing.T) {
	w := newWorld(t)
	one, two := w.enrol(), w.enrol()
	w.operators = []policies.IdentityID{one.id, two.id}
	restart := func(database bool) {
		must(t, w.vault.Close(t.Context()))
		w.log.Close()
		w.reopen(database)
	}
	restart(true)
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	item, id := ask{o, o.grant(r, nil, "name"), "name", 0}, policies.OwnerID(o.id)
	read := func(want policies.Code) {
		t.Helper()
		r.openSession()
		if got := r.read(item).Items[0].Outcome; got != want {
			t.Errorf("a read: %s, want %s", got, want)
		}
	}
	refused := func(e *envelope.Envelope, what string) {
		t.Helper()
		w.refuses(api.Submission{Envelope: e.Raw}, policies.CodeExpired, what)
		read(policies.CodeFrozen)
	}

	before := o.thawOf(o.link(), o.key)
	w.clock.move(2 * time.Second)
	w.accepted(api.Submission{Envelope: two.freezeOf(id, one.orderOf(id, one.key), two.key).Raw})
	refused(before, "a thaw of before the freeze")
	between := o.thawOf(o.link(), o.key)
	w.clock.move(2 * time.Second)
	w.accepted(api.Submission{Envelope: one.freezeOf(id, two.orderOf(id, two.key), one.key).Raw})
	for _, database := range []bool{true, false} {
		refused(before, "a thaw of before both")
		refused(between, "a thaw of between the two")
		restart(database)
	}
	refused(o.thawAt(w.clock.now().Add(policies.ClockSkew+10*time.Second), o.link(), o.key), "a thaw of a time to come")
	after := o.thawOf(o.link(), o.key)
	first := w.accepted(api.Submission{Envelope: after.Raw})
	read(policies.CodeReleased)
	// Once it has ended what it may, it is answered as ever, and ends nothing more.
	w.clock.move(2 * time.Second)
	w.accepted(api.Submission{Envelope: two.freezeOf(id, one.orderOf(id, one.key), two.key).Raw})
	if again := w.accepted(api.Submission{Envelope: after.Raw}); again.Evidence.Index != first.Evidence.Index {
		t.Error("the same thaw was recorded twice")
	}
	read(policies.CodeFrozen)
}
