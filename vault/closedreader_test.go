package vault

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/internal/ledger"
)

// close closes the account of somebody who has no documents in their chain.
func (p *party) close() (*evidence.Receipt, *envelope.Envelope) {
	p.w.t.Helper()
	e, err := policies.Sign(p.key, &policies.Closure{
		Header: policies.NewHeader("closure", p.w.clock.now()), Audience: p.w.document.Vault, Owner: policies.OwnerID(p.id), Link: policies.Link{Seq: 1, Prev: policies.Hash(p.id)},
	})
	must(p.w.t, err)
	return p.w.accepted(api.Submission{Envelope: e.Raw}), e
}

// ended waits until nothing is left to be destroyed of what closed accounts were granted.
func (w *world) ended() {
	w.t.Helper()
	until(w.t, "the keys of grants to closed accounts are gone", func() bool {
		left := 0
		w.vault.ledger.Read(func(s *ledger.State) { left = len(s.ToClosed()) })
		return left == 0
	})
}

// endings are the records of what ended with a reader's account, by owner.
func (w *world) endings(r *reader) map[policies.OwnerID][]*ledger.Record {
	out := map[policies.OwnerID][]*ledger.Record{}
	for _, one := range w.records() {
		if one.Kind == evidence.EntryDestroyed && one.Details.Reader == policies.ReaderID(r.id) {
			out[one.Details.Owner] = append(out[one.Details.Owner], one)
		}
	}
	return out
}

// stick keeps keys from being destroyed, or lets them go.
func (s *softToken) stick(keys ...KeyID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stuck = map[KeyID]bool{}
	for _, key := range keys {
		s.stuck[key] = true
	}
}

// TestGrantsToWhoClosed: what others granted to an account ends with it: the keys are destroyed, in both custodies, and each owner's history says so, once and with what it was. Who
// closed it was an owner too, whose own grants end as ever. What was granted to others or revoked before stays as it is, after restarts with the database and without.
func TestGrantsToWhoClosed(t *testing.T) {
	eachCustody(t, func(t *testing.T, w *world) {
		o, second, both, other := w.owner(), w.owner(), w.owner(), w.reader()
		for _, p := range []*owner{o, second, both} {
			p.set("name", "n")
			p.set("phone", "p")
		}
		r := &reader{party: both.party, root: both.root}
		r.openSession()
		own := both.grant(other, nil, "name")
		one, two := o.grant(r, nil, "name", "phone"), o.grant(r, nil, "name")
		o.revoke(one, "phone")
		kept := o.grant(other, nil, "name")
		theirs := second.grant(r, nil, "phone")
		r.value(ask{o, two, "name", 0}, r.read(ask{o, two, "name", 0}).Items[0])
		before := len(w.of(evidence.EntryDestroyed))
		s, e := both.closureOf(nil)
		first := w.accepted(s)
		if w.holds(keyID(own.ID, "name", policies.AuthorID(both.id))) {
			t.Error("it is acknowledged, and a key of the account's own grants is there")
		}
		w.ended()
		check := func(when string) {
			t.Helper()
			if w.held() != 1 || !w.holds(keyID(kept.ID, "name", policies.AuthorID(o.id))) {
				t.Errorf("%s: %d keys are left", when, w.held())
			}
			if n := len(w.of(evidence.EntryDestroyed)); n != before+3 {
				t.Errorf("%s: %d destructions are recorded, and %d were before", when, n, before)
			}
			got := w.endings(r)
			for owner, want := range map[*owner][]policies.RevokedItem{
				o:      {{Grant: one.ID, Field: "name", Author: policies.AuthorID(o.id)}, {Grant: two.ID, Field: "name", Author: policies.AuthorID(o.id)}},
				second: {{Grant: theirs.ID, Field: "phone", Author: policies.AuthorID(second.id)}},
			} {
				list := got[policies.OwnerID(owner.id)]
				if len(list) != 1 {
					t.Fatalf("%s: %d records for one owner", when, len(list))
				}
				d := list[0].Details
				same := len(d.Items) == len(want) && !slices.ContainsFunc(want, func(i policies.RevokedItem) bool { return !slices.Contains(d.Items, i) })
				if !same || d.Document != policies.Hash(e.Hash) || d.Index != first.Evidence.Index || d.Custody != w.custody || d.Note != "" || (d.Period != 0) != (w.custody == policies.CustodySealed) {
					t.Errorf("%s: recorded %+v", when, d)
				}
				var pseudonym policies.Pseudonym
				w.vault.ledger.Read(func(s *ledger.State) { pseudonym = s.Pseudonym(owner.id) })
				if list[0].Owner != pseudonym || !list[0].Reader.IsZero() {
					t.Errorf("%s: it is under %s and %s", when, list[0].Owner, list[0].Reader)
				}
			}
			if h := w.vault.Health(); h.Keys != 1 || h.Reason != "" {
				t.Errorf("%s: %d keys are said to be there: %s", when, h.Keys, h.Reason)
			}
		}
		check("at once")
		for _, database := range []bool{true, false} {
			w.restart(database)
			w.ended()
			check("later")
			other.openSession()
			other.value(ask{o, kept, "name", 0}, other.read(ask{o, kept, "name", 0}).Items[0])
		}
		o.revoke(two, "name") // as a device does that has not heard of it
		o.set("name", "m")
		// What an owner's history says of it goes with their own account.
		gone, _ := o.closureOf(nil)
		w.accepted(gone)
		w.clock.move(leastKeep + time.Hour)
		w.log.Roll()
		second.set("name", "k")
		w.restart(true)
		until(t, "erased", func() bool { return len(w.vault.ErasedAccounts(0)) == 2 })
		w.restart(false)
		w.ended()
		if w.held() != 0 {
			t.Errorf("%d keys are left", w.held())
		}
	})
}

// TestCrashWhileEnding kills the vault at every operation of token and log while it ends what a closed account was granted. The next start finishes it: no key is left, each is recorded once as
// destroyed, and none is said to be lost.
func TestCrashWhileEnding(t *testing.T) {
	eachCustody(t, func(t *testing.T, w *world) {
		o, second, r, other := w.owner(), w.owner(), w.reader(), w.reader()
		keys := map[KeyID]bool{}
		for _, p := range []*owner{o, second} {
			p.set("name", "n")
			p.set("phone", "p")
			g := p.grant(r, nil, "name", "phone")
			for _, f := range []policies.Field{"name", "phone"} {
				keys[keyID(g.ID, f, policies.AuthorID(p.id))] = true
			}
		}
		kept := o.grant(other, nil, "name")
		type crash struct {
			world *world
			at    string
		}
		var crashes []crash
		var mu sync.Mutex
		note := func(at string) {
			mu.Lock()
			defer mu.Unlock()
			crashes = append(crashes, crash{w.snapshot(t), at})
		}
		w.token.hook = func(op string) error { note(op); return nil }
		w.logKey.hook = func() error { note("sign"); return nil }
		r.close()
		w.ended()
		w.kill()
		if len(crashes) < 6 {
			t.Fatalf("only %d places to crash", len(crashes))
		}
		for i, c := range crashes {
			for _, database := range []bool{true, false} {
				if !database {
					c.world = c.world.snapshot(t)
				}
				w := c.world
				said := new(log)
				w.said = said
				w.reopen(database)
				if w.endings(r) != nil || len(w.of(evidence.EntryClosure)) > 0 {
					w.ended()
				} else { // the closure itself did not come to be
					w.kill()
					continue
				}
				left := 0
				for key := range keys {
					if w.holds(key) {
						left++
					}
				}
				if left > 0 && len(w.of(evidence.EntryClosure)) > 0 || !w.holds(keyID(kept.ID, "name", policies.AuthorID(o.id))) {
					t.Errorf("%d, %s, database %t: %d keys are left", i, c.at, database, left)
				}
				for owner, list := range w.endings(r) {
					if len(list) != 1 || len(list[0].Details.Items) != 2 {
						t.Errorf("%d, %s, database %t: %d records for owner %s", i, c.at, database, len(list), owner)
					}
				}
				said.mu.Lock()
				text := said.buf.String()
				said.mu.Unlock()
				if strings.Contains(text, "grant again") || strings.Contains(text, "no grant stands for") || w.vault.Health().Reason != "" {
					t.Errorf("%d, %s, database %t: it is said: %s", i, c.at, database, text)
				}
				w.kill()
			}
		}
	})
}

// TestKeyThatOutlivesItsReader: of what a closed account was granted a key is not destroyed. The others are, of other owners and after it; nothing says that this one is; and it is destroyed when the
// token lets go of it, after a start at the latest.
func TestKeyThatOutlivesItsReader(t *testing.T) {
	eachCustody(t, func(t *testing.T, w *world) {
		r := w.reader()
		var owners []*owner
		var stuck KeyID
		for i := range 3 {
			o := w.owner()
			o.set("name", "n")
			g := o.grant(r, nil, "name")
			if owners = append(owners, o); i == 1 {
				stuck = keyID(g.ID, "name", policies.AuthorID(o.id))
			}
		}
		w.token.stick(stuck)
		r.close()
		until(t, "the others are gone", func() bool { return w.held() == 1 && len(w.endings(r)) == 2 })
		w.restart(true)
		if got := w.endings(r); !w.holds(stuck) || got[policies.OwnerID(owners[1].id)] != nil {
			t.Error("a key that stays is recorded as destroyed")
		}
		w.token.stick()
		w.restart(false)
		w.ended()
		if w.held() != 0 || len(w.endings(r)) != 3 {
			t.Errorf("%d keys are left, %d owners are told", w.held(), len(w.endings(r)))
		}
	})
}

// TestManyGrantsToWhoClosed: what one owner granted a business ends in parts, and an owner who revokes meanwhile is served. Each key is recorded once by either.
func TestManyGrantsToWhoClosed(t *testing.T) {
	w := newWorld(t)
	r := w.reader()
	o := w.owner()
	fields := make([]policies.Field, 20)
	for i := range fields {
		fields[i] = policies.Field("f" + strconv.Itoa(i))
		o.seal(fields[i], 1, "v")
	}
	o.publish()
	for range 5 {
		o.grant(r, nil, fields...)
	}
	late := o.grant(r, nil, fields...)
	r.close()
	o.revoke(late, fields...)
	w.ended()
	n := 0
	for _, one := range w.of(evidence.EntryDestroyed) {
		if one.Reader.IsZero() {
			continue
		}
		if n += len(one.Items); len(one.Items) > endAtOnce+policies.MaxGrantFields {
			t.Errorf("a record of %d keys", len(one.Items))
		}
	}
	if w.held() != 0 || n != 120 && n != 100 { // those of the last by its owner, or before that
		t.Errorf("%d keys are left, %d are recorded", w.held(), n)
	}
}

// TestImportUnderWayWhenClosed: an account is closed while the token imports the keys of a grant to it. The grant never comes to be in force, and the keys go.
func TestImportUnderWayWhenClosed(t *testing.T) {
	eachCustody(t, func(t *testing.T, w *world) {
		o, r := w.owner(), w.reader()
		o.set("name", "n")
		s, g, _ := o.grantOf(r, nil, "name")
		var once sync.Once
		w.token.hook = func(op string) error {
			if op == "imported" {
				once.Do(func() { r.close(); w.ended() })
			}
			return nil
		}
		w.refuses(s, policies.CodePartyClosed, "a grant to who closed meanwhile")
		w.token.hook = nil
		if w.held() != 0 || len(w.of(evidence.EntryClosure)) != 1 {
			t.Errorf("%d keys are left", w.held())
		}
		for _, database := range []bool{true, false} {
			w.restart(database)
			w.vault.ledger.Read(func(s *ledger.State) {
				if s.Grant(g.ID) != nil || s.Importing(g.ID) != nil {
					t.Error("the grant is there")
				}
			})
		}
		o.set("name", "m") // the chain goes on
	})
}

// TestEndedAndNotRecorded: the vault died between the end of a key and its record. The next start does not call the key lost, and records it.
func TestEndedAndNotRecorded(t *testing.T) {
	eachCustody(t, func(t *testing.T, w *world) {
		o, r := w.owner(), w.reader()
		o.set("name", "n")
		g := o.grant(r, nil, "name")
		w.token.stick(keyID(g.ID, "name", policies.AuthorID(o.id)))
		r.close()
		w.loseKeys()
		w.token.stick()
		said := new(log)
		w.said = said
		w.restart(true)
		w.ended()
		list := w.endings(r)[policies.OwnerID(o.id)]
		if len(list) != 1 || (list[0].Details.Note == "1 not in the token") != (w.custody == policies.CustodyResident) {
			t.Errorf("recorded %+v", list)
		}
		said.mu.Lock()
		defer said.mu.Unlock()
		if text := said.buf.String(); strings.Contains(text, "grant again") || w.vault.Health().Reason != "" {
			t.Errorf("it is said: %s", text)
		}
	})
}

// look has the vault look for keys of grants to closed accounts, and returns when it did.
func (w *world) look() {
	for range 3 { // the first is taken up, the second waits until that is done, and the third until the second is taken up
		w.vault.accountClosed <- struct{}{}
	}
}

// TestKeysThatStayInLargeGrants: of each large grant to a closed account a key stays. All others go and are recorded, whatever the order of the grants, and each that stays is said once in the
// vault's log output, however many times it is tried.
func TestKeysThatStayInLargeGrants(t *testing.T) {
	eachCustody(t, func(t *testing.T, w *world) {
		said := new(log)
		w.said = said
		w.restart(true)
		r, o := w.reader(), w.owner()
		fields := make([]policies.Field, endAtOnce+1)
		for i := range fields {
			fields[i] = policies.Field("f" + strconv.Itoa(i))
			o.seal(fields[i], 1, "v")
		}
		o.publish()
		var stuck []KeyID
		for range 3 {
			stuck = append(stuck, keyID(o.grant(r, nil, fields...).ID, fields[0], policies.AuthorID(o.id)))
		}
		w.token.stick(stuck...)
		r.close()
		recorded := func() (n int) {
			for _, one := range w.endings(r)[policies.OwnerID(o.id)] {
				n += len(one.Details.Items)
			}
			return n
		}
		until(t, "the others are gone", func() bool { return w.held() == len(stuck) && recorded() == 3*endAtOnce })
		w.look()
		w.look()
		said.mu.Lock()
		text := said.buf.String()
		said.mu.Unlock()
		if n := strings.Count(text, "a revoked key is still there"); n != len(stuck) {
			t.Errorf("it is said %d times of %d keys", n, len(stuck))
		}
		if strings.Contains(text, "was not in the token") || strings.Count(text, "keys of grants to closed accounts are still there") != 1 {
			t.Errorf("it is said: %s", text)
		}
		w.token.stick()
		w.look()
		if w.held() != 0 || recorded() != 3*len(fields) {
			t.Errorf("%d keys are left, %d are recorded", w.held(), recorded())
		}
	})
}

// TestNothingEndsWithoutTheLog: while the log records nothing, no key of a grant to a closed account is destroyed: what nobody recorded would look taken away when it records again.
func TestNothingEndsWithoutTheLog(t *testing.T) {
	eachCustody(t, func(t *testing.T, w *world) {
		o, r := w.owner(), w.reader()
		o.set("name", "n")
		g := o.grant(r, nil, "name")
		w.token.stick(keyID(g.ID, "name", policies.AuthorID(o.id)))
		r.close()
		w.look()
		w.logKey.hook = func() error { return errors.New("the token does not sign") }
		_, s := w.identity()
		if _, err := w.submit(s); err == nil {
			t.Fatal("the log records")
		}
		w.token.stick()
		w.look()
		if w.held() != 1 {
			t.Error("a key is destroyed while nobody can record it")
		}
		w.kill()
		w.logKey.hook = nil
		w.reopen(true)
		w.ended()
		list := w.endings(r)[policies.OwnerID(o.id)]
		if len(list) != 1 || list[0].Details.Note != "" {
			t.Errorf("recorded %+v", list)
		}
	})
}
