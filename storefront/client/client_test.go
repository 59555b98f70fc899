package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

func TestMainJob(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	acme, acmeStore := w.reader("Acme")
	bank, _ := w.reader("Bank")
	w.must(o.Set(ctx, set("phone.mobile", "+49 151 1"), set("name.full", "Ünal Ålesund"), set("bank.iban", "DE00")))
	w.connect(o, acme, "acme")
	w.connect(o, bank, "bank")
	w.must(o.Grant(ctx, acme.ID(), []policies.Field{"phone.mobile", "name.full"}, GrantOptions{Purpose: "delivery"}))
	w.must(o.Grant(ctx, bank.ID(), []policies.Field{"phone.mobile", "bank.iban"}, GrantOptions{Purpose: "payment", ReadsPerDay: 100}))
	w.wantRead(acme, o, "phone.mobile", "+49 151 1")
	w.wantRead(acme, o, "name.full", "Ünal Ålesund")
	w.wantRead(bank, o, "bank.iban", "DE00")
	w.wantRefusal(acme, o, "bank.iban", policies.CodeNoGrant)

	w.must(o.Set(ctx, set("phone.mobile", "+49 151 2")))
	w.wantRead(acme, o, "phone.mobile", "+49 151 2")

	// What the reader has is not sent again.
	v := w.read(acme, o, "phone.mobile")
	again, err := acme.Read(ctx, Item{Owner: o.ID(), Field: "phone.mobile", Known: v.Version})
	w.must(err)
	if again[0].Err != nil || !again[0].Unchanged || again[0].Bytes != nil {
		t.Errorf("a known version: %+v", again[0])
	}

	// Revoking stops one reader, rotates, and the other does not notice.
	w.must(o.Revoke(ctx, acme.ID(), []policies.Field{"phone.mobile"}, RevokeOptions{}))
	w.wantRefusal(acme, o, "phone.mobile", policies.CodeRevoked)
	w.wantRead(acme, o, "name.full", "Ünal Ålesund")
	w.wantRead(bank, o, "phone.mobile", "+49 151 2")
	for _, f := range o.Fields() {
		if want := map[policies.Field]uint64{"phone.mobile": 2}[f.Field]; want != 0 && f.Epoch != want {
			t.Errorf("%s is in epoch %d, want %d", f.Field, f.Epoch, want)
		}
	}
	w.must(o.Rotate(ctx, "name.full", "bank.iban"))
	w.wantRead(acme, o, "name.full", "Ünal Ålesund")
	w.wantRead(bank, o, "bank.iban", "DE00")
	w.must(o.Set(ctx, set("phone.mobile", "+49 151 3")))
	w.wantRead(bank, o, "phone.mobile", "+49 151 3")
	if got := w.token.count(); got != 3 { // acme: name.full; bank: phone.mobile, bank.iban
		t.Errorf("the token holds %d keys, want 3", got)
	}

	// The reader starts anew from what it stored.
	w.must(acme.Close())
	acme, err = OpenReader(acmeStore, Options{})
	w.must(err)
	w.wantRead(acme, o, "name.full", "Ünal Ålesund")
	items, err := acme.Granted(ctx)
	w.must(err)
	if len(items) != 1 || items[0].Field != "name.full" {
		t.Errorf("granted: %+v", items)
	}

	events, err := o.History(ctx, 100)
	w.must(err)
	seen := map[evidence.Kind]int{}
	for _, e := range events {
		seen[e.Kind]++
		if e.Text == "" || e.Time.IsZero() {
			t.Errorf("an empty event: %+v", e)
		}
	}
	if seen[evidence.EntryUse] < 8 || seen[evidence.EntryRevocation] < 3 || seen[evidence.EntryRefusal] < 1 || seen[evidence.EntryIdentity] != 1 {
		t.Errorf("history: %v", seen)
	}
	w.must(o.Sync(ctx))

	w.must(o.Remove(ctx, "name.full"))
	if v := w.read(acme, o, "name.full"); v.Err == nil {
		t.Errorf("a removed field was read: %q", v.Bytes)
	}
	w.must(o.Set(ctx, set("name.full", "Ü")))
	w.wantRead(acme, o, "name.full", "Ü")
}

// TestCustodySealed: it is chosen on purpose, and everybody whom it concerns is told.
func TestCustodySealed(t *testing.T) {
	ctx, w := t.Context(), newWorldOf(t, policies.CustodyResident, policies.CustodySealed)
	o, _ := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n"), set("other", "o")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{Custody: policies.CustodySealed}))
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"other"}, GrantOptions{}))
	for f, want := range map[policies.Field]policies.Custody{"note": policies.CustodySealed, "other": policies.CustodyResident} {
		w.wantRead(r, o, f, string(f[:1]))
		if v := w.read(r, o, f); v.Custody != want {
			t.Errorf("%s was read in custody %q", f, v.Custody)
		}
		granted, err := r.GrantedFields(ctx, policies.OwnerID{})
		if at := slices.IndexFunc(granted, func(g GrantedField) bool { return g.Field == f && g.Owner == o.ID() }); err != nil || at < 0 || granted[at].Custody != want {
			t.Errorf("%s is granted as %+v, %v", f, granted, err)
		}
	}
	for _, g := range o.Grants(false) {
		if want := map[policies.Field]policies.Custody{"note": policies.CustodySealed, "other": policies.CustodyResident}[g.Field]; g.Custody != want {
			t.Errorf("%s: custody %q", g.Field, g.Custody)
		}
	}
	// Rotation keeps the custody that the owner chose.
	w.must(o.Rotate(ctx, "note"))
	w.wantRead(r, o, "note", "n")
	if v := w.read(r, o, "note"); v.Custody != policies.CustodySealed {
		t.Errorf("after a rotation: custody %q", v.Custody)
	}
	w.must(o.Revoke(ctx, r.ID(), []policies.Field{"note"}, RevokeOptions{}))
	events, err := o.History(ctx, 100)
	w.must(err)
	destroyed, used := 0, 0
	for _, e := range events {
		switch {
		case e.Kind == evidence.EntryDestroyed:
			destroyed++
			if e.Custody != policies.CustodySealed || e.Period != 7 || !strings.Contains(e.Text, "lock 7") {
				t.Errorf("told of the destruction: %+v", e)
			}
		case e.Kind == evidence.EntryUse && e.Field == "note":
			used++
			if e.Custody != policies.CustodySealed || !strings.Contains(e.Text, "kind sealed") {
				t.Errorf("told of a use: %+v", e)
			}
		}
	}
	if destroyed < 2 || used < 4 { // superseded by the rotation, and revoked
		t.Errorf("%d destructions and %d uses in the history", destroyed, used)
	}

	// A vault that offers sealed only does not get it by default.
	only := newWorldOf(t, policies.CustodySealed)
	o, _ = only.owner()
	r, _ = only.reader("R")
	only.must(o.Set(ctx, set("note", "n")))
	only.connect(o, r, "r")
	err = o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{})
	if !errors.Is(err, policies.CodeCustody) || !strings.Contains(err.Error(), "on purpose") || !strings.Contains(err.Error(), sealedMeans) {
		t.Errorf("granting without a choice: %v", err)
	}
	only.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{Custody: policies.CustodySealed}))
	only.wantRead(r, o, "note", "n")
}

func TestGrantAnewEndsTheOlder(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{Purpose: "one"}))
	w.wantRead(r, o, "note", "n")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{Purpose: "two"}))
	w.wantRead(r, o, "note", "n")
	if list := o.Grants(false); len(list) != 1 || list[0].Purpose != "two" {
		t.Errorf("grants: %+v", list)
	}
	if got := w.token.count(); got != 1 {
		t.Errorf("the token holds %d keys, want 1", got)
	}
}

func TestTwoDevices(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	one, _ := w.owner()
	r, _ := w.reader("R")
	other, _ := w.reader("Other")
	w.must(one.Set(ctx, set("note", "first"), set("name.full", "N")))
	w.connect(one, r, "r")
	var plain []byte
	recovery, err := one.Backup(true, func(b []byte) error { plain = append(plain, b...); return nil })
	w.must(err)
	if again, _ := one.Backup(true, func([]byte) error { return nil }); !recovery || again {
		t.Errorf("recovery key in the first backup %t, in the second %t", recovery, again)
	}
	w.must(one.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	w.connect(one, other, "other")
	w.must(one.Grant(ctx, other.ID(), []policies.Field{"note"}, GrantOptions{}))

	two, err := RestoreOwner(new(memory), plain, Options{})
	w.must(err)
	w.must(two.Sync(ctx))
	if b, err := two.Get(ctx, "note"); err != nil || string(b) != "first" {
		t.Fatalf("second device: %q, %v", b, err)
	}
	// Both write the same field; the second to come rebases, and no version stands for two values.
	w.must(two.Set(ctx, set("note", "second")))
	w.must(one.Set(ctx, set("note", "third"), set("own/x", "x")))
	w.wantRead(r, one, "note", "third")
	w.must(two.Sync(ctx))
	if b, err := two.Get(ctx, "own/x"); err != nil || string(b) != "x" {
		t.Fatalf("second device: %q, %v", b, err)
	}
	// It learns of readers that it never met, and can stop them and keep the others reading.
	w.must(two.Revoke(ctx, r.ID(), nil, RevokeOptions{}))
	w.wantRefusal(r, one, "note", policies.CodeRevoked)
	w.wantRead(other, one, "note", "third")
	w.must(one.Set(ctx, set("note", "fourth")))
	w.wantRead(other, one, "note", "fourth")
	if list := one.Grants(false); len(list) != 1 || list[0].Reader != other.ID() {
		t.Errorf("grants on the first device: %+v", list)
	}
}

// A process that is killed before any of its saves finishes later what it began, and nothing is done twice.
// second is another device of the same owner, which knows what it knows of.
func second(t *testing.T, w *world, one *Owner) *Owner {
	t.Helper()
	var two *Owner
	_, err := one.Backup(false, func(plain []byte) (err error) { two, err = RestoreOwner(new(memory), plain, Options{}); return err })
	w.must(err)
	w.must(two.Sync(t.Context()))
	return two
}

// A device that learnt of another's manifest, and could not fetch what is new in it, does not publish what it had before in its place.
func TestHalfSynced(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	one, _ := w.owner()
	r, _ := w.reader("R")
	w.must(one.Set(ctx, set("note", "n1"), set("tax.id", "t1")))
	w.connect(one, r, "r")
	w.must(one.Grant(ctx, r.ID(), []policies.Field{"note", "tax.id"}, GrantOptions{}))
	two := second(t, w, one)
	w.must(two.Set(ctx, set("note", "n2")))
	w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
		if strings.Contains(q.URL.Path, "/items/") {
			http.Error(rw, "silence", http.StatusBadGateway)
			return
		}
		next.ServeHTTP(rw, q)
	})
	if err := one.Sync(ctx); !errors.Is(err, policies.CodeUnavailable) {
		t.Fatalf("without the item: %v", err)
	}
	w.hostile(nil)
	w.must(one.Set(ctx, set("tax.id", "t2")))
	w.wantRead(r, one, "note", "n2")
	w.wantRead(r, one, "tax.id", "t2")
}

// A rotation gives the readers who stay what they had, as it is when its turn comes: not to whom another device has stopped meanwhile, not on terms that it
// has replaced, and to whom it has granted.
func TestRotateBehindAnotherDevice(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	one, _ := w.owner()
	gone, _ := w.reader("gone")
	stays, _ := w.reader("stays")
	comes, _ := w.reader("comes")
	note := []policies.Field{"note"}
	w.must(one.Set(ctx, set("note", "n")))
	for name, r := range map[string]*Reader{"gone": gone, "stays": stays, "comes": comes} {
		w.connect(one, r, name)
	}
	w.must(one.Grant(ctx, gone.ID(), note, GrantOptions{}))
	w.must(one.Grant(ctx, stays.ID(), note, GrantOptions{}))
	two := second(t, w, one)
	w.must(one.Revoke(ctx, gone.ID(), note, RevokeOptions{KeepEpoch: true}))
	w.must(one.Grant(ctx, stays.ID(), note, GrantOptions{Purpose: "another", ReadsPerDay: 2}))
	w.must(one.Grant(ctx, comes.ID(), note, GrantOptions{}))
	w.must(two.Rotate(ctx, "note"))
	w.must(one.Sync(ctx))
	w.wantRefusal(gone, one, "note", policies.CodeRevoked)
	w.wantRead(comes, one, "note", "n")
	w.wantRead(stays, one, "note", "n")
	w.wantRead(stays, one, "note", "n")
	w.wantRefusal(stays, one, "note", policies.CodeLimit)

	// A field that was removed keeps its readers, whichever device sets it again, and also if both do.
	w.must(one.Revoke(ctx, stays.ID(), note, RevokeOptions{}))
	two = second(t, w, one)
	w.must(one.Remove(ctx, "note"))
	w.must(second(t, w, one).Set(ctx, set("note", "again")))
	w.wantRead(comes, one, "note", "again")
	w.must(one.Set(ctx, set("note", "and again")))
	w.wantRead(comes, one, "note", "and again")
	w.must(two.Set(ctx, set("note", "the last")))
	w.wantRead(comes, one, "note", "the last")
	w.wantRefusal(stays, one, "note", policies.CodeRevoked)
}

// The vault accepted a document of one device, and nobody heard of it: the storefront's chain has a gap. The other device revokes on top of it, and so
// does the first. Neither waits for the other for ever.
func TestGapInTheMiddle(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	one, _ := w.owner()
	note, keep := []policies.Field{"note"}, RevokeOptions{KeepEpoch: true}
	w.must(one.Set(ctx, set("note", "n")))
	var readers [3]*Reader
	for i := range readers {
		readers[i], _ = w.reader("R")
		w.connect(one, readers[i], fmt.Sprint("r", i))
		w.must(one.Grant(ctx, readers[i].ID(), note, GrantOptions{}))
	}
	two := second(t, w, one)
	w.mu.Lock()
	w.owners = false
	w.mu.Unlock()
	w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
		if !strings.HasSuffix(q.URL.Path, "/revocations") {
			next.ServeHTTP(rw, q)
			return
		}
		body, _ := io.ReadAll(q.Body)
		var s vaultapi.Submission
		w.must(envelope.Decode(body, &s))
		_, err := w.vault.Submit(ctx, s)
		w.must(err)
		http.Error(rw, "silence", http.StatusBadGateway)
	})
	if err := one.Revoke(ctx, readers[0].ID(), note, keep); !errors.Is(err, ErrNotStopped) {
		t.Fatalf("without an answer: %v", err)
	}
	w.hostile(nil)
	w.mu.Lock()
	w.owners = true
	w.mu.Unlock()
	w.must(two.Revoke(ctx, readers[1].ID(), note, keep)) // what the storefront does not show, the vault does
	w.must(one.Revoke(ctx, readers[2].ID(), note, keep))
	w.must(two.Sync(ctx))
	w.must(one.Sync(ctx))
	for _, r := range readers {
		w.wantRefusal(r, one, "note", policies.CodeRevoked)
	}
	if one.Unstopped() || two.Unstopped() {
		t.Error("a device still waits")
	}
}

// saves is at which of a test's saves a process is killed: at each, or, since each takes a world of its own, with the race detector at every third, from a random one on.
// SALLYPORT_EVERY_SAVE=1 makes it each.
func saves(t *testing.T) (first, step int) {
	t.Helper()
	if os.Getenv("SALLYPORT_EVERY_SAVE") != "" || !raceDetector {
		return 1, 1
	}
	first = 1 + rand.IntN(3)
	t.Logf("killed at every third save, from save %d on", first)
	return first, 3
}

func TestKilledAtEverySave(t *testing.T) {
	ctx := t.Context()
	first, step := saves(t)
	for limit := first; ; limit += step {
		w := newWorld(t)
		o, m := w.owner()
		r, _ := w.reader("R")
		stay, _ := w.reader("Stay")
		w.must(o.Set(ctx, set("note", "a")))
		w.connect(o, r, "r")
		w.connect(o, stay, "stay")
		w.must(o.Grant(ctx, stay.ID(), []policies.Field{"note"}, GrantOptions{}))
		m.mu.Lock()
		m.limit = m.saves + limit
		m.mu.Unlock()
		err := errors.Join(
			o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}),
			o.Set(ctx, set("note", "b")),
			o.Revoke(ctx, r.ID(), nil, RevokeOptions{}))
		m.mu.Lock()
		m.limit = 0
		m.mu.Unlock()
		o = reopen(m, w)
		if err := o.Sync(ctx); err != nil {
			t.Fatalf("killed at save %d: %v", limit, err)
		}
		// Whatever of it was begun is done, and can be done again.
		w.must(o.Set(ctx, set("note", "b")))
		if err := o.Revoke(ctx, r.ID(), nil, RevokeOptions{}); err != nil && !errors.Is(err, policies.CodeNoGrant) {
			t.Fatalf("killed at save %d: %v", limit, err)
		}
		w.wantRead(stay, o, "note", "b")
		if v := w.read(r, o, "note"); v.Err == nil {
			t.Fatalf("killed at save %d: the stopped reader reads %q", limit, v.Bytes)
		}
		if got := w.token.count(); got != 1 {
			t.Fatalf("killed at save %d: the token holds %d keys, want 1", limit, got)
		}
		if !errors.Is(err, errCrash) {
			if limit < 8 {
				t.Fatalf("only %d saves were cut", limit)
			}
			return
		}
	}
}

func TestManyReadersAtOnce(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "0"), set("name.full", "N")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note", "name.full"}, GrantOptions{}))
	var wg sync.WaitGroup
	errs := make(chan error, 64)
	for range 32 {
		wg.Go(func() {
			for range 6 {
				values, err := r.Read(ctx, Item{Owner: o.ID(), Field: "note"}, Item{Owner: o.ID(), Field: "name.full"})
				if err != nil {
					errs <- err
					return
				}
				for _, v := range values {
					if v.Err != nil || len(v.Bytes) == 0 {
						errs <- fmt.Errorf("%s: %q, %v", v.Field, v.Bytes, v.Err)
						return
					}
				}
			}
		})
	}
	for i := range 4 {
		w.must(o.Set(ctx, set("note", fmt.Sprint(i))))
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	w.must(r.Close())
}

func TestWatch(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	o, _ := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "one")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	var got []string
	done := errors.New("done")
	err := r.Watch(ctx, 10*time.Millisecond, func(v Value) error {
		switch {
		case v.Err != nil:
			got = append(got, string(policies.CodeRevoked))
			if !errors.Is(v.Err, policies.CodeRevoked) {
				t.Errorf("unexpected: %v", v.Err)
			}
			return done
		case string(v.Bytes) == "one":
			w.must(o.Set(ctx, set("note", "two")))
		default:
			w.must(o.Revoke(ctx, r.ID(), nil, RevokeOptions{}))
		}
		got = append(got, string(v.Bytes))
		return nil
	}, Item{Owner: o.ID(), Field: "note"})
	if !errors.Is(err, done) || fmt.Sprint(got) != "[one two grant_revoked]" {
		t.Errorf("watched %v, %v", got, err)
	}
}

func TestRefusedAtHome(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n")))
	code, err := o.Code()
	w.must(err)
	if _, err := o.Connect(ctx, r.Code(), "r"); !errors.Is(err, ErrNotConnected) {
		t.Errorf("connecting before the reader did: %v", err)
	}
	if err := o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}); !errors.Is(err, ErrNoContact) {
		t.Errorf("granting to a stranger: %v", err)
	}
	_, err = r.Connect(ctx, code, "")
	w.must(err)
	// A code serves one reader.
	second, _ := w.reader("Second")
	_, err = o.Connect(ctx, r.Code(), "r")
	w.must(err)
	_, err = second.Connect(ctx, code, "")
	w.must(err)
	if _, err := o.Connect(ctx, second.Code(), "s"); !errors.Is(err, ErrNotConnected) {
		t.Errorf("a code used twice: %v", err)
	}
	if err := o.Grant(ctx, r.ID(), []policies.Field{"nothing"}, GrantOptions{}); !errors.Is(err, ErrNoField) {
		t.Errorf("granting what is not there: %v", err)
	}
	if err := o.Revoke(ctx, r.ID(), nil, RevokeOptions{}); !errors.Is(err, policies.CodeNoGrant) {
		t.Errorf("revoking nothing: %v", err)
	}
	if err := o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{Custody: policies.CustodySealed}); !errors.Is(err, policies.CodeCustody) {
		t.Errorf("a custody that the vault does not offer: %v", err)
	}
	if len(o.state.Tasks) != 0 {
		t.Errorf("what was refused for good still waits: %d tasks", len(o.state.Tasks))
	}
	if err := o.Set(ctx, Change{"note", make([]byte, policies.MaxValue+1)}); err == nil {
		t.Error("a value above 1 MiB was accepted")
	}
	wrong := w.network
	wrong.Ceremony = policies.Hash{1}
	if _, err := InitOwner(ctx, new(memory), wrong, Options{}); !errors.Is(err, policies.ErrPin) || !errors.Is(err, ErrUntrue) {
		t.Errorf("another ceremony than the pinned one: %v", err)
	}
	var kept []byte
	if _, err := o.Backup(false, keep(&kept)); err != nil {
		t.Fatal(err)
	}
	if _, err := RestoreReader(new(memory), kept, Options{}); !errors.Is(err, ErrRole) {
		t.Errorf("a person's backup is restored as a business's: %v", err)
	}
	if _, err := OpenReader(&memory{state: mustState(o)}, Options{}); !errors.Is(err, ErrRole) {
		t.Errorf("an owner's state opened as a reader's: %v", err)
	}
}

func mustState(o *Owner) []byte {
	b, _ := o.store.Load()
	return b
}

// TestReadWhileOwnerMoves: what the owner rotates or grants anew between the storefront's choice and the vault's decision is read all the same; what
// was revoked there is not.
func TestReadWhileOwnerMoves(t *testing.T) {
	w, ctx := newWorld(t), context.Background()
	o, _ := w.owner()
	r, _ := w.reader("Acme")
	w.connect(o, r, "acme")
	w.must(o.Set(ctx, set("note", "a")))
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	w.wantRead(r, o, "note", "a")
	for name, move := range map[string]func() error{
		"rotated":       func() error { return o.Rotate(ctx, "note") },
		"granted again": func() error { return o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}) },
	} {
		moved := false
		f := func() { moved = true; w.must(move()) }
		w.before.Store(&f)
		if v := w.read(r, o, "note"); v.Err != nil || string(v.Bytes) != "a" || !moved {
			t.Errorf("%s: %q, %v", name, v.Bytes, v.Err)
		}
	}
	f := func() { w.must(o.Revoke(ctx, r.ID(), nil, RevokeOptions{})) }
	w.before.Store(&f)
	w.wantRefusal(r, o, "note", policies.CodeRevoked)
}

// TestManyForOnePlace: while nobody can be reached a device makes several revocations for the same place of its chain. The vault has accepted one of them,
// and the storefront died before it wrote that down. With both back, all of them get through.
func TestManyForOnePlace(t *testing.T) {
	w, ctx := newWorld(t), context.Background()
	o, _ := w.owner()
	r, _ := w.reader("Acme")
	w.connect(o, r, "acme")
	fields := []policies.Field{"a", "b", "c", "d", "e"}
	for _, f := range fields {
		w.must(o.Set(ctx, set(f, string(f))))
	}
	w.must(o.Grant(ctx, r.ID(), fields, GrantOptions{}))
	w.owners = false
	reaches := true
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if body, err := io.ReadAll(r.Body); err == nil && reaches && strings.HasSuffix(r.URL.Path, "/revocations") {
			var s vaultapi.Submission
			w.must(envelope.Decode(body, &s))
			_, err := w.vault.Submit(ctx, s)
			w.must(err)
		}
		http.Error(rw, "silence", http.StatusBadGateway)
	})
	for _, f := range fields[:4] {
		if err := o.Revoke(ctx, r.ID(), []policies.Field{f}, RevokeOptions{KeepEpoch: true}); !errors.Is(err, ErrNotStopped) {
			t.Fatalf("revoking %s from behind silence: %v", f, err)
		}
		reaches = false
	}
	w.hostile(nil)
	w.mu.Lock()
	w.owners = true
	w.mu.Unlock()
	w.must(o.Sync(ctx))
	for _, f := range fields[:4] {
		w.wantRefusal(r, o, f, policies.CodeRevoked)
	}
	w.wantRead(r, o, "e", "e")
}

// TestReadInSeveral: values that are more than one answer may hold are read all the same.
func TestReadInSeveral(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	r, _ := w.reader("R")
	large := strings.Repeat("x", policies.MaxValue)
	w.must(o.Set(ctx, set("large", large)))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"large"}, GrantOptions{}))
	items := make([]Item, 40)
	for i := range items {
		items[i] = Item{Owner: o.ID(), Field: "large"}
	}
	values, err := r.Read(ctx, items...)
	w.must(err)
	for i, v := range values {
		if v.Err != nil || string(v.Bytes) != large {
			t.Fatalf("value %d: %d bytes, %v", i, len(v.Bytes), v.Err)
		}
	}
}

// TestConnectAmongStrangers: an owner asks for the relationships with one reader, so that strangers' cannot come between.
func TestConnectAmongStrangers(t *testing.T) {
	w := newWorld(t)
	o, _ := w.owner()
	r, _ := w.reader("R")
	asked := 0
	w.hostile(func(out http.ResponseWriter, in *http.Request, next http.Handler) {
		if in.Method == "GET" && in.URL.Path == api.PathRelationships {
			if asked++; in.URL.Query().Get("with") != r.ID().String() {
				t.Errorf("asked for %q", in.URL.RawQuery)
			}
		}
		next.ServeHTTP(out, in)
	})
	w.connect(o, r, "r")
	if asked == 0 {
		t.Error("nothing was asked")
	}
}

// TestCertificates: a server with a certificate that is not trusted has answered, and it is said what to do; that it is away is said of one that is.
func TestCertificates(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{http: &http.Client{}, storefront: base, owners: base}
	for name, r := range map[string]request{"the storefront": {}, "the vault": {base: &url.URL{Scheme: base.Scheme, Host: base.Host}}} {
		r.method, r.path = http.MethodGet, "/"
		err := w.call(t.Context(), r)
		if !errors.Is(err, ErrCertificate) || !errors.Is(err, policies.CodeUnavailable) || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "does not answer") ||
			strings.Contains(err.Error(), "Get ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	server.Close()
	w.owners = nil
	err = w.call(t.Context(), request{method: http.MethodGet, path: "/", base: base})
	if errors.Is(err, ErrCertificate) || !errors.Is(err, policies.CodeUnavailable) || !strings.Contains(err.Error(), "the account server at "+base.Host+": a part that this needs does not answer") ||
		strings.Contains(err.Error(), "Get ") {
		t.Errorf("away: %v", err)
	}
}

// TestMissingAtInit: what was missing for the first contact, and came later, is kept.
func TestMissingAtInit(t *testing.T) {
	w := newWorld(t)
	ctx, m, network := context.Background(), new(memory), w.network
	network.Roots = ""
	o, err := InitOwner(ctx, m, network, Options{})
	if !errors.Is(err, ErrCertificate) || o == nil {
		t.Fatalf("it is %v", err)
	}
	o.Close()
	for _, options := range []Options{{Roots: []byte(w.network.Roots)}, {}} {
		o, err := OpenOwner(m, options)
		w.must(err)
		w.must(o.Sync(ctx))
		if got := o.Network(); got != w.network {
			t.Errorf("it keeps %+v", got)
		}
		o.Close()
	}
}
