package client

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
)

// TestPeople: one person reads another, and is read in turn, with one profile each. What was received is kept, refreshed, and gone when it is taken back.
func TestPeople(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	anna, annas := w.owner()
	ben, _ := w.owner()
	w.must(ben.Set(ctx, set("phone.mobile", "+49 1"), set("address.home", "Road 1")))
	w.must(anna.Set(ctx, set("phone.mobile", "+49 2")))
	acme, _ := w.reader("Acme")
	w.connect(anna, acme, "acme") // a business beside it: the two sides of a person do not get into each other's way
	w.must(anna.Grant(ctx, acme.ID(), []policies.Field{"phone.mobile"}, GrantOptions{}))

	link, err := anna.InvitePerson("ben", time.Now().Add(time.Hour))
	w.must(err)
	w.must(ben.Accept(ctx, link, "anna"))
	w.looks(anna, 1)
	if _, err := anna.AskPerson(ctx, "carl", delivery()); !errors.Is(err, ErrNoContact) {
		t.Errorf("asking nobody: %v", err)
	}
	c, err := anna.AskPerson(ctx, "ben", delivery())
	w.must(err)
	w.looks(ben, 1)
	_, err = ben.Answer(ctx, c.ID.String(), []policies.Field{"address.home", "phone.mobile"}, "")
	w.must(err)
	anna = reopen(annas, w)
	w.looks(anna, 2)
	w.looks(ben, 1)
	asked, err := anna.AskedPeople()
	w.must(err)
	if len(asked) != 1 || asked[0].Status != consent.Granted || asked[0].Alias != "ben" {
		t.Fatalf("asked: %+v", asked)
	}
	wantReceipts(t, ben.Inbox(true)[0], asked[0], consent.Granted)

	refresh := func(want map[policies.Field]string, gone ...policies.Field) {
		t.Helper()
		lost, refused, err := anna.Refresh(ctx)
		w.must(err)
		if len(refused) > 0 {
			t.Errorf("refused: %+v", refused)
		}
		var names []policies.Field
		for _, it := range lost {
			names = append(names, it.Field)
		}
		if !slices.Equal(names, gone) {
			t.Errorf("gone: %v, want %v", names, gone)
		}
		anna = reopen(annas, w)
		people, err := anna.People()
		w.must(err)
		if len(people) != 1 || people[0].Alias != "ben" || len(people[0].Pieces) != len(want) {
			t.Fatalf("people: %+v, want %v", people, want)
		}
		for _, p := range people[0].Pieces {
			if string(p.Value) != want[p.Field] || time.Since(p.Read) > time.Minute {
				t.Errorf("%s is %q, read %s; want %q", p.Field, p.Value, p.Read, want[p.Field])
			}
		}
	}
	refresh(map[policies.Field]string{"phone.mobile": "+49 1", "address.home": "Road 1"})
	w.must(ben.Set(ctx, set("phone.mobile", "+49 11")))
	refresh(map[policies.Field]string{"phone.mobile": "+49 11", "address.home": "Road 1"})

	// The other way round, between the same two.
	back, err := ben.InvitePerson("anna", time.Now().Add(time.Hour))
	w.must(err)
	w.must(anna.Accept(ctx, back, "ben"))
	w.looks(ben, 1)
	ask := delivery()
	ask.Fields = []consent.AskedField{{Field: "phone.mobile", Required: true, Reason: "to call"}}
	c, err = ben.AskPerson(ctx, "anna", ask)
	w.must(err)
	w.looks(anna, 1)
	_, err = anna.Answer(ctx, c.ID.String(), []policies.Field{"phone.mobile"}, "")
	w.must(err)
	w.looks(ben, 2)
	_, _, err = ben.Refresh(ctx)
	w.must(err)
	people, err := ben.People()
	w.must(err)
	if len(people) != 1 || len(people[0].Pieces) != 1 || string(people[0].Pieces[0].Value) != "+49 2" {
		t.Errorf("ben's people: %+v", people)
	}
	w.looks(anna, 1)
	w.wantRead(acme, anna, "phone.mobile", "+49 2")

	// A backup brings the people back, and what they let one read with them.
	var plain []byte
	_, err = anna.Backup(false, func(b []byte) error { plain = bytes.Clone(b); return nil })
	w.must(err)
	second, err := RestoreOwner(new(memory), plain, Options{})
	w.must(err)
	w.must(second.Sync(ctx))
	if _, _, err := second.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	if people, err := second.People(); err != nil || len(people) != 1 || len(people[0].Pieces) != 2 {
		t.Errorf("after a restore: %+v, %v", people, err)
	}

	// Anna's phone is stolen, and she replaces everything. What she reads ben's device grants to her new keys.
	w.must(anna.Replace(ctx, stolen(), keep(new([]byte))))
	w.must(ben.Sync(ctx))
	if renewed, err := ben.Renewed(); err != nil || len(renewed) != 1 {
		t.Errorf("ben is told of %v, %v", renewed, err)
	}
	w.must(ben.Set(ctx, set("phone.mobile", "+49 12")))
	refresh(map[policies.Field]string{"phone.mobile": "+49 12", "address.home": "Road 1"})

	// Taken back: one field by the person, with a request for deletion, which is heeded; the rest when it is next looked for.
	_, err = ben.Stop(ctx, policies.ReaderID(anna.ID()), []policies.Field{"address.home"})
	w.must(err)
	w.looks(anna, 3)
	if people, err := anna.People(); err != nil || len(people[0].Pieces) != 1 {
		t.Errorf("after a request for deletion: %+v, %v", people, err)
	}
	w.must(ben.Revoke(ctx, policies.ReaderID(anna.ID()), nil, RevokeOptions{}))
	refresh(map[policies.Field]string{}, "phone.mobile")

	// What the log says agrees with both sides.
	for name, o := range map[string]*Owner{"anna": anna, "ben": ben} {
		if v, err := o.Verify(ctx); err != nil || !v.Agrees() {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}

// TestPeopleAfterReplacement: who replaced everything keeps what was received, cannot refresh it under the old permission, and reads on once invited and
// answered anew. Whoever stole the old device cannot.
func TestPeopleAfterReplacement(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	anna, annas := w.owner()
	ben, _ := w.owner()
	w.must(ben.Set(ctx, set("phone.mobile", "+49 1")))
	ask := delivery()
	ask.Fields = []consent.AskedField{{Field: "phone.mobile", Required: true, Reason: "to call"}}
	meet := func() {
		t.Helper()
		link, err := anna.InvitePerson("ben", time.Now().Add(time.Hour))
		w.must(err)
		w.must(ben.Accept(ctx, link, "anna"))
		w.looks(anna, 1)
		c, err := anna.AskPerson(ctx, "ben", ask)
		w.must(err)
		_, err = ben.Receive(ctx)
		w.must(err)
		_, err = ben.Answer(ctx, c.ID.String(), []policies.Field{"phone.mobile"}, "")
		w.must(err)
		w.looks(anna, 2)
	}
	has := func(want string) {
		t.Helper()
		people, err := anna.People()
		w.must(err)
		if len(people) != 1 || len(people[0].Pieces) != 1 || string(people[0].Pieces[0].Value) != want {
			t.Errorf("people: %+v, want %q", people, want)
		}
	}
	meet()
	_, _, err := anna.Refresh(ctx)
	w.must(err)
	has("+49 1")
	var plain []byte
	w.must(anna.Replace(ctx, stolen(), keep(&plain)))
	w.must(ben.Set(ctx, set("phone.mobile", "+49 2")))
	anna = reopen(annas, w)
	if gone, refused, err := anna.Refresh(ctx); err != nil || len(gone) != 0 || len(refused) != 1 || !errors.Is(refused[0].Err, policies.CodeSuspended) {
		t.Errorf("refreshed under a permission for what was stolen: gone %v, refused %v, %v", gone, refused, err)
	}
	has("+49 1")
	meet()
	_, _, err = anna.Refresh(ctx)
	w.must(err)
	has("+49 2")

	// A device that is made of what was written before the replacement is let in, whatever the person does with it first.
	server, _ := w.keyServer()
	for what, first := range map[string]func(*Owner) error{
		"refresh": func(o *Owner) error { _, _, err := o.Refresh(ctx); return err },
		"ask":     func(o *Owner) error { _, err := o.AskPerson(ctx, "ben", ask); return err },
		"inbox":   func(o *Owner) error { _, err := o.Receive(ctx); return err },
		"password": func(o *Owner) error {
			return o.SetPassword(ctx, server.URL, []byte("correct horse battery"), ClaimAll)
		},
		"give up": func(o *Owner) error { _, err := o.GiveUp(ctx, "ben"); return err },
	} {
		made, err := RestoreOwner(new(memory), bytes.Clone(plain), Options{})
		w.must(err)
		if err := first(made); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestDeletionOnAnotherDevice: who withdraws is heeded by whichever device hears it, also one that did not ask.
func TestDeletionOnAnotherDevice(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	anna, _ := w.owner()
	ben, _ := w.owner()
	w.must(ben.Set(ctx, set("phone.mobile", "+49 1"), set("address.home", "Road 1")))
	link, err := anna.InvitePerson("ben", time.Now().Add(time.Hour))
	w.must(err)
	w.must(ben.Accept(ctx, link, "anna"))
	w.looks(anna, 1)
	var plain []byte
	_, err = anna.Backup(false, keep(&plain))
	w.must(err)
	c, err := anna.AskPerson(ctx, "ben", delivery())
	w.must(err)
	w.looks(ben, 1)
	_, err = ben.Answer(ctx, c.ID.String(), []policies.Field{"address.home", "phone.mobile"}, "")
	w.must(err)
	w.looks(anna, 2)
	second, err := RestoreOwner(new(memory), plain, Options{})
	w.must(err)
	_, _, err = second.Refresh(ctx)
	w.must(err)
	_, err = ben.Stop(ctx, policies.ReaderID(anna.ID()), nil)
	w.must(err)
	if _, err := second.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	if people, err := second.People(); err != nil || len(people) != 1 || len(people[0].Pieces) != 0 {
		t.Errorf("kept: %+v, %v", people, err)
	}
}

// TestRefreshOfSome: of what is read anew one thing cannot be read now, and stays; one was taken out by its owner, and goes; the rest is read.
func TestRefreshOfSome(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	anna, _ := w.owner()
	ben, _ := w.owner()
	link, err := anna.InvitePerson("ben", time.Now().Add(time.Hour))
	w.must(err)
	w.must(ben.Accept(ctx, link, "anna"))
	w.looks(anna, 1)
	_, err = ben.Receive(ctx)
	w.must(err)
	w.must(ben.Set(ctx, set("phone.mobile", "one"), set("name.full", "one"), set("note", "one")))
	w.must(ben.Grant(ctx, policies.ReaderID(anna.ID()), []policies.Field{"phone.mobile", "name.full"}, GrantOptions{}))
	w.must(ben.Grant(ctx, policies.ReaderID(anna.ID()), []policies.Field{"note"}, GrantOptions{ReadsPerDay: 1}))
	refresh := func(gone, refused []policies.Field, want map[policies.Field]string) {
		t.Helper()
		names := func(list []Value) (out []policies.Field) {
			for _, v := range list {
				out = append(out, v.Field)
			}
			return out
		}
		g, r, err := anna.Refresh(ctx)
		w.must(err)
		if !slices.Equal(names(g), gone) || !slices.Equal(names(r), refused) {
			t.Errorf("gone %+v, refused %+v; want %v and %v", g, r, gone, refused)
		}
		people, err := anna.People()
		w.must(err)
		has := map[policies.Field]string{}
		for _, p := range people[0].Pieces {
			has[p.Field] = string(p.Value)
		}
		if !maps.Equal(has, want) {
			t.Errorf("kept %v, want %v", has, want)
		}
	}
	refresh(nil, nil, map[policies.Field]string{"phone.mobile": "one", "name.full": "one", "note": "one"})
	w.must(ben.Set(ctx, set("phone.mobile", "two"), set("note", "two")))
	w.must(ben.Remove(ctx, "name.full"))
	refresh([]policies.Field{"name.full"}, []policies.Field{"note"}, map[policies.Field]string{"phone.mobile": "two", "note": "one"})
	refresh(nil, []policies.Field{"note"}, map[policies.Field]string{"phone.mobile": "two", "note": "one"})
}
