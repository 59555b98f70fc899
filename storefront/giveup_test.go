package storefront

import (
	"fmt"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
)

// givesUp is a renunciation of the owner's fields of a grant.
func (p *party) givesUp(owner *party, grant policies.DocumentID, fields ...policies.Field) *envelope.Envelope {
	p.w.t.Helper()
	d := &succession.Renunciation{Header: policies.NewHeader("renunciation", time.Now()), Audience: p.w.doc.Vault, Reader: policies.ReaderID(p.id), Owner: owner.owner()}
	for _, f := range fields {
		d.Items = append(d.Items, policies.RevokedItem{Grant: grant, Field: f, Author: policies.AuthorID(owner.id)})
	}
	e, err := policies.Sign(p.signer, d)
	p.w.must(err)
	return e
}

// TestGivingUpOverACrash fails the handing on of a renunciation at each step, as a crash or a lost connection would, and has another reader give up something after it. The owner,
// who asks from where they last were, hears of all that counts, in the order of the log; of what the vault refused of nothing.
func TestGivingUpOverACrash(t *testing.T) {
	lost := fmt.Errorf("connection lost: %w", policies.CodeUnavailable)
	nth := func(n int) func([]store.Change) error {
		return func([]store.Change) error {
			if n--; n == 0 {
				return errInjected
			}
			return nil
		}
	}
	once := func(err error) func(string) error {
		return func(string) (out error) { out, err = err, nil; return out }
	}
	for name, c := range map[string]struct {
		arm    func(*world)
		counts int // of the two, how many the owner hears of
	}{
		"nothing":                       {func(*world) {}, 2},
		"not written down before":       {func(w *world) { w.store.set(nth(1), nil) }, 2},
		"written down before, and lost": {func(w *world) { w.store.set(nil, nth(1)) }, 2},
		"before the vault is asked":     {func(w *world) { w.vault.set(once(lost), nil) }, 2},
		"after the vault accepted":      {func(w *world) { w.vault.set(nil, once(lost)) }, 2},
		"before it is stored":           {func(w *world) { w.store.set(nth(2), nil) }, 2},
		"after it is stored":            {func(w *world) { w.store.set(nil, nth(2)) }, 2},
		"the vault refuses":             {func(w *world) { w.vault.set(once(policies.CodeNoGrant), nil) }, 1},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restart=%v", name, restart), func(t *testing.T) {
				w := newWorld(t, loose)
				anna, acme, shop := w.member(policies.KindPerson), w.member(policies.KindBusiness), w.member(policies.KindBusiness)
				anna.publish([]api.Item{anna.set("name", "Anna"), anna.set("city", "Ulm")})
				g, h := anna.give(acme, "billing", "name"), anna.give(shop, "billing", "city")
				first := acme.givesUp(anna, g.ID, "name")
				c.arm(w)
				_ = acme.do("POST", api.PathRenunciations, first.Raw, nil)
				w.store.set(nil, nil)
				w.vault.set(nil, nil)
				if restart {
					w.crash()
					anna.logIn()
					shop.logIn()
				}
				second := shop.givesUp(anna, h.ID, "city")
				w.must(shop.do("POST", api.PathRenunciations, second.Raw, nil))
				var heard api.Renunciations
				w.must(anna.do("GET", api.PathRenunciations, nil, &heard))
				if len(heard.Renunciations) != c.counts {
					t.Fatalf("heard of %d, want %d", len(heard.Renunciations), c.counts)
				}
				last := uint64(0)
				for _, one := range heard.Renunciations {
					if one.Index <= last {
						t.Errorf("entry %d after %d", one.Index, last)
					}
					last = one.Index
				}
				left := 0
				w.must(w.front.each(t.Context(), []byte{kindGivingUp}, nil, func(store.Record) error { left++; return nil }))
				if left != 0 {
					t.Errorf("%d are on their way still", left)
				}
			})
		}
	}
}

// TestGivenUpTwice: a reader that did not hear the answer sends the same again. The owner hears of it once.
func TestGivenUpTwice(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "Anna")})
	document := acme.givesUp(anna, anna.give(acme, "billing", "name").ID, "name")
	for range 3 {
		w.must(acme.do("POST", api.PathRenunciations, document.Raw, nil))
	}
	var heard api.Renunciations
	w.must(anna.do("GET", api.PathRenunciations, nil, &heard))
	if len(heard.Renunciations) != 1 {
		t.Errorf("heard of %d, want one", len(heard.Renunciations))
	}
}

// TestGivingUpIsSentAtStart: what waited for the vault goes to it with the next start, and whoever asks meanwhile is not told that nothing was given up.
func TestGivingUpIsSentAtStart(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "Anna")})
	g := anna.give(acme, "billing", "name")
	w.vault.set(func(string) error { return policies.CodeUnavailable }, nil)
	wantCode(t, acme.do("POST", api.PathRenunciations, acme.givesUp(anna, g.ID, "name").Raw, nil), policies.CodeUnavailable)
	wantCode(t, anna.do("GET", api.PathRenunciations, nil, nil), policies.CodeUnavailable)
	w.vault.set(nil, nil)
	w.crash()
	anna.logIn()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		left := 0
		w.must(w.front.each(t.Context(), []byte{kindGivingUp}, nil, func(store.Record) error { left++; return nil }))
		if left == 0 {
			break
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatal("it was not sent")
		}
	}
	var heard api.Renunciations
	w.must(anna.do("GET", api.PathRenunciations, nil, &heard))
	if len(heard.Renunciations) != 1 {
		t.Fatalf("heard of %d, want one", len(heard.Renunciations))
	}
}

// TestGivingUpThatNeverEnds: the vault has a renunciation on record and cannot destroy the key; it says token_failure each time it is sent, until an operator has looked. Meanwhile
// the owner is told of what others gave up, and others can give up something of this owner's.
func TestGivingUpThatNeverEnds(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme, shop := w.member(policies.KindPerson), w.member(policies.KindBusiness), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "Anna"), anna.set("city", "Ulm")})
	g, h := anna.give(acme, "billing", "name"), anna.give(shop, "billing", "city")
	first := acme.givesUp(anna, g.ID, "name")
	fails := true
	w.vault.set(nil, func(string) error { // it is accepted, and the key stays
		if fails {
			return policies.CodeTokenFailure
		}
		return nil
	})
	wantCode(t, acme.do("POST", api.PathRenunciations, first.Raw, nil), policies.CodeTokenFailure)
	var heard api.Renunciations
	if err := anna.do("GET", api.PathRenunciations, nil, &heard); err != nil {
		t.Errorf("the owner asks: %v", err)
	}
	// Another reader's: the vault would take it (fails only concerns the first one's key).
	calls := 0
	w.vault.set(func(string) error { calls++; return nil }, func(string) error {
		if calls == 1 { // the first one, sent again before it
			return policies.CodeTokenFailure
		}
		return nil
	})
	if err := shop.do("POST", api.PathRenunciations, shop.givesUp(anna, h.ID, "city").Raw, nil); err != nil {
		t.Errorf("another reader gives up something of this owner's: %v, after %d calls of the vault", err, calls)
	}
}

// TestGivenUpBehindAnother: a store takes nothing for a moment, neither that a renunciation is on its way nor that it is done. Sent again it comes behind another's, and the owner, who
// goes on from where they were, hears of both.
func TestGivenUpBehindAnother(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme, shop := w.member(policies.KindPerson), w.member(policies.KindBusiness), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "Anna"), anna.set("city", "Ulm")})
	g, h := anna.give(acme, "billing", "name"), anna.give(shop, "billing", "city")
	first := acme.givesUp(anna, g.ID, "name")
	w.store.set(func([]store.Change) error { return errInjected }, nil)
	w.must(acme.do("POST", api.PathRenunciations, first.Raw, nil)) // 202: it is sent again
	w.store.set(nil, nil)
	w.must(shop.do("POST", api.PathRenunciations, shop.givesUp(anna, h.ID, "city").Raw, nil))
	var heard api.Renunciations
	w.must(anna.do("GET", api.PathRenunciations, nil, &heard))
	last := heard.Renunciations[len(heard.Renunciations)-1].Index
	n := len(heard.Renunciations)
	w.must(acme.do("POST", api.PathRenunciations, first.Raw, nil))
	heard = api.Renunciations{}
	w.must(anna.do("GET", fmt.Sprintf("%s?after=%d", api.PathRenunciations, last), nil, &heard))
	if n += len(heard.Renunciations); n != 2 {
		t.Errorf("the owner, who goes on from where they were, heard of %d, want 2", n)
	}
}
