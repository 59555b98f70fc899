package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/registry"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/pre"
)

func (m *memory) clone() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &memory{state: bytes.Clone(m.state), items: map[policies.Hash][]byte{}}
	for h, b := range m.items {
		c.items[h] = b
	}
	return c
}

// household is an owner with fields that two readers read.
func (w *world) household(fields int) (o *Owner, m *memory, acme, globex *Reader) {
	w.t.Helper()
	o, m = w.owner()
	acme, _ = w.reader("Acme")
	globex, _ = w.reader("Globex")
	w.connect(o, acme, "acme")
	w.connect(o, globex, "globex")
	var changes []Change
	var names []policies.Field
	for i := range fields {
		names = append(names, policies.Field(fmt.Sprintf("own/f%d", i)))
		changes = append(changes, set(names[i], fmt.Sprintf("value %d", i)))
	}
	ctx := context.Background()
	w.must(o.Set(ctx, changes...))
	w.must(o.Grant(ctx, acme.ID(), names, GrantOptions{}))
	w.must(o.Grant(ctx, globex.ID(), names[:1], GrantOptions{}))
	return o, m, acme, globex
}

func stolen() ReplaceOptions { return ReplaceOptions{Reason: succession.Stolen} }

func keep(into *[]byte) func([]byte) error {
	return func(plain []byte) error { *into = bytes.Clone(plain); return nil }
}

// TestReplace: a device was stolen. The owner replaces the root; readers read all the while and see no error; the thief's copy of the device can do nothing
// any more, and what it has opens nothing that is stored.
func TestReplace(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	o, m, acme, globex := w.household(4)
	thief := m.clone()
	oldRoot := bytes.Clone(o.state.Root)
	stop, ended := make(chan struct{}), make(chan error, 1)
	reads := 0
	go func() {
		items := []Item{{Owner: o.ID(), Field: "own/f0"}, {Owner: o.ID(), Field: "own/f3"}}
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			values, err := acme.Read(ctx, items...)
			for _, v := range values {
				err = errors.Join(err, v.Err)
			}
			if err != nil {
				ended <- err
				return
			}
			reads++
		}
	}()
	var backup []byte
	w.must(o.Replace(ctx, stolen(), keep(&backup)))
	close(stop)
	if err := <-ended; err != nil || reads == 0 {
		t.Errorf("%d reads, then: %v", reads, err)
	}
	for i := range 4 {
		w.wantRead(acme, o, policies.Field(fmt.Sprintf("own/f%d", i)), fmt.Sprintf("value %d", i))
	}
	w.wantRead(globex, o, "own/f0", "value 0")
	w.wantRefusal(globex, o, "own/f1", policies.CodeNoGrant)
	if o.former != nil || len(o.state.Tasks) != 0 || o.state.Replacing != nil {
		t.Errorf("not finished: %d tasks", len(o.state.Tasks))
	}
	if v, err := o.Verify(ctx); err != nil || !v.Agrees() {
		t.Errorf("the log and the device: %+v, %v", v, err)
	}
	old, err := pre.ParseRoot(oldRoot)
	w.must(err)
	for _, l := range o.leaves() {
		key, err := old.FieldKey(l.Slot)
		w.must(err)
		if key.Opens(&l) {
			t.Errorf("the old root opens %s", l.Field)
		}
	}
	// The thief's device.
	stolen := reopen(thief, w)
	if err := stolen.Set(ctx, set("own/f0", "forged")); !errors.Is(err, ErrReplaced) {
		t.Errorf("the stolen device set a field: %v", err)
	}
	if err := stolen.Revoke(ctx, acme.ID(), nil, RevokeOptions{}); !errors.Is(err, ErrNotStopped) {
		t.Errorf("the stolen device revoked: %v", err)
	}
	w.wantRead(acme, o, "own/f0", "value 0")

	// The device goes on after it is opened again, and a new one comes from the backup that was made first.
	w.must(o.Set(ctx, set("own/f1", "changed")))
	again := reopen(m, w)
	w.must(again.Set(ctx, set("own/f2", "changed too")))
	fresh, err := RestoreOwner(new(memory), backup, Options{})
	w.must(err)
	w.must(fresh.Sync(ctx))
	w.must(fresh.Set(ctx, set("own/f3", "from the new device")))
	for f, want := range map[policies.Field]string{"own/f0": "value 0", "own/f1": "changed", "own/f2": "changed too", "own/f3": "from the new device"} {
		w.wantRead(acme, o, f, want)
		if got, err := fresh.Get(ctx, f); err != nil || string(got) != want {
			t.Errorf("the new device has %s as %q: %v", f, got, err)
		}
	}
	// A second replacement needs the recovery key that the first one made, which the backup holds.
	fresh.state.Recovery = nil
	if err := fresh.Replace(ctx, ReplaceOptions{Reason: succession.Lost}, keep(new([]byte))); !errors.Is(err, ErrRecovery) {
		t.Errorf("without the recovery key: %v", err)
	}
	w.must(fresh.Replace(ctx, ReplaceOptions{Reason: succession.Lost, Recovery: backup}, keep(new([]byte))))
	w.wantRead(acme, o, "own/f3", "from the new device")
}

// TestReplaceKilledAnywhere: killed at any point at which something is stored, the device goes on, and nothing is lost or doubled.
func TestReplaceKilledAnywhere(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	first, step := saves(t)
	for saves, begun := first, true; begun; saves += step {
		o, m, acme, _ := w.household(2)
		m.limit = m.saves + saves
		var backup []byte
		err := o.Replace(ctx, stolen(), keep(&backup))
		if begun = errors.Is(err, errCrash); !begun {
			w.must(err)
			if saves < 8 {
				t.Errorf("killed at %d points only", saves-1)
			}
		}
		w.wantRead(acme, o, "own/f0", "value 0")
		m.limit = 0
		again := reopen(m, w)
		unbegun := again.state.Replacing == nil && again.line.Newest().Generation == 1
		w.must(again.Sync(ctx))
		if unbegun { // killed before it was stored that anything is to be replaced: nothing is
			w.wantRead(acme, o, "own/f0", "value 0")
			continue
		}
		if again.former != nil || len(again.state.Tasks) != 0 || again.state.Replacing != nil || again.line.Newest().Generation != 2 {
			t.Fatalf("killed at save %d: %d tasks are left, generation %d", saves, len(again.state.Tasks), again.line.Newest().Generation)
		}
		w.wantRead(acme, o, "own/f0", "value 0")
		w.wantRead(acme, o, "own/f1", "value 1")
		if grants := again.Grants(false); len(grants) != 3 {
			t.Fatalf("killed at save %d: %d grants are in force, want 3", saves, len(grants))
		}
		w.must(again.Set(ctx, set("own/f1", "later")))
		w.wantRead(acme, o, "own/f1", "later")
		// The backup that was written first restores a device at any of these points.
		fresh, err := RestoreOwner(new(memory), backup, Options{})
		w.must(err)
		w.must(fresh.Sync(ctx))
		if got, err := fresh.Get(ctx, "own/f0"); err != nil || string(got) != "value 0" {
			t.Fatalf("restored: %q, %v", got, err)
		}
	}
}

// TestRestoreInTheMiddle: the device is lost in the middle of a replacement. The backup that was written first finishes it.
func TestRestoreInTheMiddle(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	first, step := saves(t)
	for saves, begun := first, true; begun; saves += step {
		o, m, acme, _ := w.household(2)
		m.limit = m.saves + saves
		var backup []byte
		if begun = errors.Is(o.Replace(ctx, stolen(), keep(&backup)), errCrash); backup == nil {
			continue
		}
		fresh, err := RestoreOwner(new(memory), backup, Options{})
		w.must(err)
		if !fresh.Replacing() {
			t.Errorf("lost at save %d: a device made from its backup does not know that a replacement is under way", saves)
		}
		w.must(fresh.Sync(ctx))
		if fresh.Replacing() || fresh.Generation() != 2 || fresh.former != nil || len(fresh.state.Tasks) != 0 || fresh.line.Newest().Generation != 2 {
			t.Fatalf("lost at save %d: %d tasks are left, generation %d", saves, len(fresh.state.Tasks), fresh.line.Newest().Generation)
		}
		for i := range 2 {
			w.wantRead(acme, o, policies.Field(fmt.Sprintf("own/f%d", i)), fmt.Sprintf("value %d", i))
		}
		w.must(fresh.Set(ctx, set("own/f0", "later")))
		w.wantRead(acme, o, "own/f0", "later")
	}
}

// TestAnnouncedReplacement: without the recovery key it is announced, every device sees it, and any of them takes it back.
func TestAnnouncedReplacement(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	o, m, acme, _ := w.household(1)
	thief := reopen(m.clone(), w)
	w.must(thief.Replace(ctx, ReplaceOptions{Reason: succession.Planned, Announce: true}, keep(new([]byte))))
	if at, own := thief.Announced(); !own || time.Until(at) < 71*time.Hour {
		t.Errorf("the thief's device: %v, %v", at, own)
	}
	w.must(o.Sync(ctx))
	if at, own := o.Announced(); own || time.Until(at) < 71*time.Hour {
		t.Errorf("the owner's device: %v, %v", at, own)
	}
	// The thief's device claims that the time is over.
	thief.now = func() time.Time { return time.Now().Add(succession.Wait + time.Hour) }
	if err := thief.Sync(ctx); !errors.Is(err, policies.CodeSuccessionPending) && !errors.Is(err, policies.CodeExpired) && !errors.Is(err, policies.CodeUnauthorized) {
		t.Errorf("the thief's succession: %v", err)
	}
	w.must(o.CancelReplacement(ctx))
	if at, _ := o.Announced(); !at.IsZero() {
		t.Error("it is announced still")
	}
	thief.now = time.Now
	if thief.Replacing() {
		t.Error("what is announced only is said to have begun")
	}
	w.must(thief.Sync(ctx))
	if at, _ := thief.Announced(); !at.IsZero() || thief.state.Replacing != nil {
		t.Error("the thief's device goes on")
	}
	// Announced again; the recovery key outranks it.
	w.must(thief.Replace(ctx, ReplaceOptions{Reason: succession.Planned, Announce: true}, keep(new([]byte))))
	var backup []byte
	w.must(o.Replace(ctx, stolen(), keep(&backup)))
	if err := thief.Sync(ctx); !errors.Is(err, ErrReplaced) {
		t.Errorf("the thief's device: %v", err)
	}
	fresh, err := RestoreOwner(new(memory), backup, Options{})
	w.must(err)
	w.must(fresh.Sync(ctx))
	if at, _ := fresh.Announced(); !at.IsZero() {
		t.Error("a restored device says that it is announced still")
	}
	w.wantRead(acme, o, "own/f0", "value 0")
}

// TestAnnouncedByAnother: where another device has announced a change of keys, a second announcement is refused and leaves nothing behind: with the recovery key everything is replaced at once.
func TestAnnouncedByAnother(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	o, m, acme, _ := w.household(1)
	thief := reopen(m.clone(), w)
	w.must(thief.Replace(ctx, ReplaceOptions{Reason: succession.Planned, Announce: true}, keep(new([]byte))))
	if err := o.Replace(ctx, ReplaceOptions{Reason: succession.Stolen, Announce: true}, keep(new([]byte))); !errors.Is(err, policies.CodeSuccessionPending) {
		t.Fatalf("a second announcement: %v", err)
	}
	if at, own := o.Announced(); at.IsZero() || own {
		t.Errorf("the owner's device: %v, %v", at, own)
	}
	o = reopen(m, w)
	w.must(o.Replace(ctx, stolen(), keep(new([]byte))))
	if err := thief.Sync(ctx); !errors.Is(err, ErrReplaced) {
		t.Errorf("the thief's device: %v", err)
	}
	w.wantRead(acme, o, "own/f0", "value 0")
}

// TestAnnouncedAndCarriedOutElsewhere: two devices have what was announced, and one carries it out. What the other does next it does under the new root, and nothing of it is lost.
func TestAnnouncedAndCarriedOutElsewhere(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	for _, up := range []bool{false, true} {
		w.reachable(up)
		o, _, acme, globex := w.household(2)
		var backup []byte
		w.must(o.Replace(ctx, ReplaceOptions{Reason: succession.Planned, Announce: true}, keep(&backup)))
		var others []*Owner
		for range 4 {
			other, err := RestoreOwner(new(memory), backup, Options{})
			w.must(err)
			w.must(other.Sync(ctx))
			others = append(others, other)
		}
		// It takes 72 hours, or the recovery key.
		o.state.Replacing.Authority = bytes.Clone(o.state.Recovery)
		o.state.Tasks = append(o.state.Tasks, task{Kind: taskSucceed, Stroke: policies.NewDocumentID()})
		w.must(o.run(ctx))
		w.must(others[0].Set(ctx, set("own/f0", "later")))
		w.wantRead(acme, o, "own/f0", "later")
		w.must(others[1].Revoke(ctx, globex.ID(), nil, RevokeOptions{}))
		w.wantRefusal(globex, o, "own/f0", policies.CodeRevoked)
		if err := others[2].CancelReplacement(ctx); !errors.Is(err, ErrNotAnnounced) {
			t.Errorf("objecting to what is in force: %v", err)
		}
		w.must(others[3].Sync(ctx))
		w.must(others[3].Replace(ctx, stolen(), keep(new([]byte))))
		w.wantRead(acme, o, "own/f0", "later")
	}
}

// TestHiddenSuccession: a storefront that hides from a reader how the owner came to new keys, or makes it up, gets an error for it and no value is believed.
func TestHiddenSuccession(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	o, _, acme, _ := w.household(1)
	other, _, _, _ := w.household(1)
	w.must(o.Replace(ctx, stolen(), keep(new([]byte))))
	w.must(other.Replace(ctx, stolen(), keep(new([]byte))))
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/successions") {
			problem.Write(rw, policies.CodeNotFound)
			return
		}
		next.ServeHTTP(rw, r)
	})
	untrue := func(what string) {
		t.Helper()
		values, err := acme.Read(ctx, Item{Owner: o.ID(), Field: "own/f0"})
		for _, v := range values {
			err = errors.Join(err, v.Err)
			if v.Bytes != nil {
				t.Errorf("%s: the reader was given %q", what, v.Bytes)
			}
		}
		if !errors.Is(err, ErrUntrue) {
			t.Errorf("%s: %v", what, err)
		}
	}
	untrue("hidden")
	rewrite := func(change func(*api.Successions)) {
		w.rewrite("/successions", func(body []byte) []byte {
			var s api.Successions
			w.must(json.Unmarshal(body, &s))
			change(&s)
			out, err := json.Marshal(s)
			w.must(err)
			return out
		})
	}
	for what, change := range map[string]func(*api.Successions){
		"none":              func(s *api.Successions) { s.Successions = nil },
		"without a receipt": func(s *api.Successions) { s.Successions[0].Receipt = nil },
		"of another":        func(s *api.Successions) { s.Successions[0].Receipt.Document[0]++ },
		"of somebody else":  func(s *api.Successions) { s.Successions[0].Document = other.state.Successions[0] },
		"signed by the thief": func(s *api.Successions) {
			s.Successions[0].Document = bytes.Replace(s.Successions[0].Document, []byte(`"sig":"`), []byte(`"sig":"A`), 1)
		},
	} {
		rewrite(change)
		untrue(what)
	}
	w.silent("/successions") // that says nothing of the value
	values, err := acme.Read(ctx, Item{Owner: o.ID(), Field: "own/f0"})
	for _, v := range values {
		err = errors.Join(err, v.Err)
		if v.Bytes != nil {
			t.Errorf("silent: the reader was given %q", v.Bytes)
		}
	}
	if !errors.Is(err, policies.CodeUnavailable) || errors.Is(err, ErrUntrue) {
		t.Errorf("silent: %v", err)
	}
	w.hostile(nil)
	w.wantRead(acme, o, "own/f0", "value 0")
	w.silent("/successions") // what it learnt it remembers
	w.wantRead(acme, o, "own/f0", "value 0")
}

// TestReaderReplace: a business's safe of keys was stolen. It suspends everything and makes new keys; who has the old ones reads nothing, the business reads again as owners'
// devices renew what they had granted, and knows who has not.
func TestReaderReplace(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	r, m := w.reader("Acme")
	var owners []*Owner
	for i := range 2 {
		o, _ := w.owner()
		w.connect(o, r, fmt.Sprintf("acme%d", i))
		w.must(o.Set(ctx, set("own/a", "a"), set("own/b", "b")))
		w.must(o.Grant(ctx, r.ID(), []policies.Field{"own/a"}, GrantOptions{Purpose: "delivery"}))
		w.must(o.Grant(ctx, r.ID(), []policies.Field{"own/b"}, GrantOptions{}))
		owners = append(owners, o)
	}
	w.wantRead(r, owners[0], "own/a", "a")
	stranger, _ := w.owner()
	w.connect(stranger, r, "no grant")
	stolenSafe := m.clone()
	thief, err := OpenReader(stolenSafe, Options{})
	w.must(err)
	w.wantRead(thief, owners[0], "own/a", "a")

	var backup []byte
	w.must(r.Replace(ctx, stolen(), keep(&backup)))
	if err := thief.Close(); err != nil {
		t.Fatal(err)
	}
	thief, err = OpenReader(stolenSafe, Options{})
	w.must(err)
	values, err := thief.Read(ctx, Item{Owner: owners[0].ID(), Field: "own/a"})
	if err == nil {
		t.Errorf("the thief reads %q: %v", values[0].Bytes, values[0].Err)
	}
	if err := thief.Why(ctx, err); !errors.Is(err, ErrReplaced) {
		t.Errorf("a machine of before is told %v", err)
	}
	if err := r.Why(ctx, policies.CodeSignature); errors.Is(err, ErrReplaced) {
		t.Error("the newest machine is told that it was replaced")
	}
	w.wantRefusal(r, owners[0], "own/a", policies.CodeSuspended)
	waiting, err := r.Waiting(ctx)
	w.must(err)
	if len(waiting) != 2 {
		t.Errorf("%d owners are waited for, want 2", len(waiting))
	}
	w.must(owners[0].Sync(ctx))
	if renewed, err := owners[0].Renewed(); err != nil || len(renewed) != 1 || renewed[0].Alias != "acme0" {
		t.Errorf("the owner is told of %v, %v", renewed, err)
	}
	w.wantRead(r, owners[0], "own/a", "a")
	w.wantRead(r, owners[0], "own/b", "b")
	if grants := owners[0].Grants(false); len(grants) != 2 || grants[0].Purpose != "delivery" {
		t.Errorf("in force: %+v", grants)
	}
	if waiting, err = r.Waiting(ctx); err != nil || len(waiting) != 1 || waiting[0].ID != owners[1].id {
		t.Errorf("waited for: %v, %v", waiting, err)
	}
	// A second sync changes nothing. A machine that is restored from the new backup reads; one from before does not.
	seq := owners[0].state.Known.Seq
	w.must(owners[0].Sync(ctx))
	if owners[0].state.Known.Seq != seq {
		t.Error("a second sync granted again")
	}
	w.must(r.Close())
	fresh, err := RestoreReader(new(memory), backup, Options{})
	w.must(err)
	w.wantRead(fresh, owners[0], "own/b", "b")
	w.must(owners[1].Sync(ctx))
	w.wantRead(fresh, owners[1], "own/a", "a")
}

// TestRenewedAtAnyContact: whatever an owner's device is used for, it renews what a reader had that replaced its keys since; it looks once a minute at most, and what it cannot look up or
// renew fails nothing else, and is told.
func TestRenewedAtAnyContact(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	r, _ := w.reader("Acme")
	other, _ := w.reader("Globex")
	uses := map[string]func(*Owner) error{
		"set":    func(o *Owner) error { return o.Set(ctx, set("own/b", "new")) },
		"remove": func(o *Owner) error { return o.Remove(ctx, "own/b") },
		"rotate": func(o *Owner) error { return o.Rotate(ctx, "own/b") },
		"inbox":  func(o *Owner) error { _, err := o.Receive(ctx); return err },
		"grant":  func(o *Owner) error { return o.Grant(ctx, other.ID(), []policies.Field{"own/b"}, GrantOptions{}) },
		"revoke": func(o *Owner) error { return o.Revoke(ctx, other.ID(), []policies.Field{"own/c"}, RevokeOptions{}) },
		"write":  func(o *Owner) error { return o.GrantWrite(ctx, other.ID(), []policies.Field{"own/b"}, GrantOptions{}) },
	}
	owners, stores := map[string]*Owner{}, map[string]*memory{}
	for use := range uses {
		o, m := w.owner()
		w.connect(o, r, "acme of "+use)
		w.connect(o, other, "globex of "+use)
		w.must(o.Set(ctx, set("own/a", "a"), set("own/b", "b"), set("own/c", "c")))
		w.must(o.Grant(ctx, r.ID(), []policies.Field{"own/a"}, GrantOptions{Purpose: "delivery"}))
		w.must(o.Grant(ctx, other.ID(), []policies.Field{"own/c"}, GrantOptions{}))
		owners[use], stores[use] = o, m
	}
	var backup []byte
	w.must(r.Replace(ctx, stolen(), keep(&backup)))
	for use, do := range uses {
		o := owners[use]
		looks := 0
		count := func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/freeze") {
				looks++
			}
			next.ServeHTTP(rw, r)
		}
		w.hostile(count)
		o.looked = time.Now()
		w.must(o.Set(ctx, set("note", "a")))
		w.wantRefusal(r, o, "own/a", policies.CodeSuspended)
		if looks != 0 {
			t.Errorf("%s: a device that looked just now looks again", use)
		}
		o = reopen(stores[use], w)
		w.silent("/identities")
		w.must(o.Set(ctx, set("note", "b"))) // nothing can be looked up
		w.hostile(count)
		o = reopen(stores[use], w)
		w.must(do(o))
		w.wantRead(r, o, "own/a", "a")
		if renewed, err := o.Renewed(); err != nil || len(renewed) != 1 || renewed[0].Alias != "acme of "+use {
			t.Errorf("%s: the owner is told of %v, %v", use, renewed, err)
		}
		if looks == 0 {
			t.Errorf("%s: it did not look", use)
		}
		seq := o.state.Known.Seq
		o = reopen(stores[use], w)
		w.must(o.Sync(ctx))
		if o.state.Known.Seq != seq {
			t.Errorf("%s: granted again", use)
		}
	}
	w.hostile(nil)

	// A storefront that falls silent afterwards keeps nobody waiting for long.
	o := reopen(stores["set"], w)
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/freeze") || r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/successions") {
			hang(r)
		}
		next.ServeHTTP(rw, r)
	})
	begin := time.Now()
	w.must(o.Set(ctx, set("note", "silent")))
	if took := time.Since(begin); took > 3*lookPatience {
		t.Errorf("it took %s", took)
	}
	w.hostile(nil)

	// What cannot be renewed fails nothing, is told, and is done later.
	w.must(r.Replace(ctx, stolen(), keep(&backup)))
	o = reopen(stores["set"], w)
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/grants") && r.Method == http.MethodPost {
			http.Error(rw, "silence", http.StatusBadGateway)
			return
		}
		next.ServeHTTP(rw, r)
	})
	w.reachable(false)
	w.must(o.Set(ctx, set("own/a", "aa")))
	if _, err := o.Renewed(); !errors.Is(err, policies.CodeUnavailable) {
		t.Errorf("what could not be renewed: %v", err)
	}
	w.hostile(nil)
	w.reachable(true)
	o = reopen(stores["set"], w)
	w.must(o.Set(ctx, set("note", "c")))
	w.wantRead(r, o, "own/a", "aa")
}

// TestReplacedAtTheVaultAlone: the vault accepted what replaces the keys, the storefront was killed before it stored it, and the device that sent it is lost. Who is restored from the backup
// makes the same documents: the vault answers them again, and the storefront has them.
func TestReplacedAtTheVaultAlone(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	o, _ := w.owner()
	w.must(o.Set(ctx, set("own/a", "a")))
	// killed has the storefront pass on what replaces keys, from the nth document on, and store nothing.
	killed := func(n int) {
		w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/successions") {
				next.ServeHTTP(rw, r)
				return
			}
			if n--; n > 0 {
				next.ServeHTTP(rw, r)
				return
			}
			raw, err := io.ReadAll(r.Body)
			if err == nil {
				_, err = w.vault.Submit(ctx, vaultapi.Submission{Envelope: raw})
			}
			if err != nil {
				t.Error(err)
			}
			http.Error(rw, "killed", http.StatusBadGateway)
		})
	}
	for n, what := range []string{1: "suspension", 2: "succession"} {
		if n == 0 {
			continue
		}
		r, _ := w.reader("Acme")
		w.connect(o, r, what)
		w.must(o.Grant(ctx, r.ID(), []policies.Field{"own/a"}, GrantOptions{}))
		var backup []byte
		killed(n)
		if err := r.Replace(ctx, stolen(), keep(&backup)); !errors.Is(err, policies.CodeUnavailable) {
			t.Fatalf("%s: %v", what, err)
		}
		w.hostile(nil)
		fresh, err := RestoreReader(new(memory), backup, Options{})
		w.must(err)
		if _, err := fresh.Granted(ctx); err != nil {
			t.Fatalf("%s: restored: %v", what, err)
		}
		w.must(o.Sync(ctx))
		w.wantRead(fresh, o, "own/a", "a")
	}
	for _, direct := range []bool{false, true} { // whether the owner's own way to the vault is open
		lost, _, acme, _ := w.household(2)
		w.secondRoute(direct)
		var backup []byte
		killed(1)
		if err := lost.Replace(ctx, stolen(), keep(&backup)); !errors.Is(err, policies.CodeUnavailable) {
			t.Fatal(err)
		}
		w.hostile(nil)
		fresh, err := RestoreOwner(new(memory), backup, Options{})
		w.must(err)
		if err := fresh.Sync(ctx); err != nil {
			t.Fatalf("own way open: %t: %v", direct, err)
		}
		w.wantRead(acme, fresh, "own/f1", "value 1")
		w.must(fresh.Set(ctx, set("own/f1", "later")))
		w.wantRead(acme, fresh, "own/f1", "later")
	}
}

// TestMessagesAcrossAReplacement: what was under way while a business replaced its keys it opens all the same, and so does a machine restored from the backup of that. What an owner
// had not sent by then is sealed to the new keys before it goes out. After as long as a message may be under way the old key opens nothing.
func TestMessagesAcrossAReplacement(t *testing.T) {
	ctx, w := context.Background(), newWorld(t)
	o, _, r, m := w.met()
	fields := []policies.Field{"address.home", "phone.mobile"}
	first, second := w.asks(r, o, delivery()), w.asks(r, o, delivery())
	w.looks(o, 2)
	_, err := o.Answer(ctx, first.ID.String(), fields, "")
	w.must(err)
	old := r.root.KEMSeed()
	var backup []byte
	w.must(r.Replace(ctx, stolen(), keep(&backup)))
	restored, err := RestoreReader(new(memory), backup, Options{})
	w.must(err)
	w.must(restored.ready(ctx))
	if len(restored.base.FormerKEM) != 1 {
		t.Errorf("a restored machine opens messages with %d former keys, want 1", len(restored.base.FormerKEM))
	}
	w.must(r.Close())
	r, err = OpenReader(m, Options{})
	w.must(err)
	w.hears(r, 2)
	w.wantStatus(r, first.ID, consent.Granted, fields...)

	w.silent(api.PathMessages)
	if _, err := o.Answer(ctx, second.ID.String(), nil, ""); !errors.Is(err, policies.CodeUnavailable) {
		t.Errorf("an answer without a storefront: %v", err)
	}
	w.hostile(nil)
	newer := r.root.KEMSeed()
	w.must(r.Replace(ctx, stolen(), keep(&backup)))
	var sent []api.Message
	w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
		if q.Method == http.MethodPost && q.URL.Path == api.PathMessages {
			body, _ := io.ReadAll(q.Body)
			var one api.Message
			w.must(envelope.Decode(body, &one))
			sent = append(sent, one)
			q.Body = io.NopCloser(bytes.NewReader(body))
		}
		next.ServeHTTP(rw, q)
	})
	_, err = o.Receive(ctx)
	w.must(err)
	w.hostile(nil)
	for i := range sent {
		for _, seed := range [][32]byte{old, newer} {
			if _, err := r.unsealWith(seed, &sent[i]); err == nil {
				t.Errorf("a message of type %s was sent to a key that was replaced", sent[i].Type)
			}
		}
	}
	if len(sent) != 2 {
		t.Errorf("%d messages were sent, want 2", len(sent))
	}
	w.hears(r, 2)
	w.wantStatus(r, second.ID, consent.Denied)

	late := sent[0]
	late.Sealed = nil
	info, err := pre.MessageInfo(late.Type, late.From, late.To)
	w.must(err)
	key := pre.NewBlobKey(newer)
	raw, err := pre.NewBlobKey(r.root.KEMSeed()).Open(info, sent[0].Sealed)
	w.must(err)
	late.Sealed, err = pre.SealBlob(key.Public(), info, raw)
	w.must(err)
	if _, err := r.unseal(&late); err != nil {
		t.Errorf("a message to the key before: %v", err)
	}
	r.device.now = func() time.Time { return time.Now().Add(api.MaxMessageLife + time.Hour) }
	if _, err := r.unseal(&late); !errors.Is(err, ErrUntrue) {
		t.Errorf("a message to the key before, too late: %v", err)
	}
	now := r.device.now
	w.must(r.Close())
	r, err = OpenReader(m, Options{Now: now})
	w.must(err)
	if len(r.base.FormerKEM) != 0 {
		t.Errorf("%d keys are kept for ever", len(r.base.FormerKEM))
	}
}

// TestReaderReplaceKilledAnywhere: it goes on with the next call.
func TestReaderReplaceKilledAnywhere(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	o, _ := w.owner()
	w.must(o.Set(ctx, set("own/a", "a")))
	first, step := saves(t)
	for saves, begun := first, true; begun; saves += step {
		r, m := w.reader("Acme")
		w.connect(o, r, fmt.Sprintf("acme%d", saves))
		w.must(o.Grant(ctx, r.ID(), []policies.Field{"own/a"}, GrantOptions{}))
		w.wantRead(r, o, "own/a", "a")
		w.must(r.Flush())
		m.limit = m.saves + saves
		if begun = errors.Is(r.Replace(ctx, stolen(), keep(new([]byte))), errCrash); !begun && saves < 5 {
			t.Errorf("killed at %d points only", saves-1)
		}
		m.limit = 0
		again, err := OpenReader(m, Options{})
		w.must(err)
		unbegun := again.state.Replacing == nil && again.line.Newest().Generation == 1
		_, err = again.Granted(ctx)
		w.must(err)
		if g := again.line.Newest().Generation; g != 2 && !unbegun || again.state.Replacing != nil {
			t.Fatalf("killed at save %d: generation %d", saves, g)
		}
		w.must(o.Sync(ctx))
		w.wantRead(again, o, "own/a", "a")
	}
}

// TestGrantToKeysThatWereReplaced: a reader replaced its keys and could not show the new ones yet, when an owner's device granted. What it cannot open it calls suspended, not untrue, until the
// owner's device has seen the new keys.
func TestGrantToKeysThatWereReplaced(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, globex := w.household(2)
	w.silent("/relationships")
	if err := acme.Replace(ctx, stolen(), keep(new([]byte))); !errors.Is(err, policies.CodeUnavailable) {
		t.Fatal(err)
	}
	w.must(o.Rotate(ctx, "own/f0"))
	w.hostile(nil)
	w.wantRefusal(acme, o, "own/f0", policies.CodeSuspended)
	w.wantRead(globex, o, "own/f0", "value 0")
	w.must(o.Sync(ctx))
	w.wantRead(acme, o, "own/f0", "value 0")
	w.wantRead(acme, o, "own/f1", "value 1")
}

// TestGrantToWhoReplacedItsKeys: a device that has not heard of it grants to the new keys all the same, to a reader that had something and to one that had nothing.
func TestGrantToWhoReplacedItsKeys(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, globex := w.household(2)
	w.must(o.Revoke(ctx, globex.ID(), nil, RevokeOptions{}))
	for _, r := range []*Reader{acme, globex} {
		w.must(r.Replace(ctx, stolen(), keep(new([]byte))))
		w.must(o.Grant(ctx, r.ID(), []policies.Field{"own/f0"}, GrantOptions{}))
		w.wantRead(r, o, "own/f0", "value 0")
	}
	w.wantRead(acme, o, "own/f1", "value 1") // which it was granted before
	w.wantRefusal(globex, o, "own/f1", policies.CodeNoGrant)
}

// TestRenewalUndoesNothing: what a reader had before it replaced its keys is granted anew only as far as the owner still wants it, whatever was decided before the
// turn of that came: in this run, in one that was cut short, or on another device.
func TestRenewalUndoesNothing(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	only := func(o *Owner, acme *Reader, purposes map[policies.Field]string) {
		t.Helper()
		got := map[policies.Field]string{}
		for _, g := range o.Grants(false) {
			if g.Reader != acme.ID() {
				continue
			}
			if _, twice := got[g.Field]; twice {
				t.Errorf("%s is granted twice", g.Field)
			}
			got[g.Field] = g.Purpose
		}
		if !maps.Equal(got, purposes) {
			t.Errorf("in force: %v, want %v", got, purposes)
		}
	}
	narrower := GrantOptions{Purpose: "narrower", ReadsPerDay: 1}

	o, _, acme, _ := w.household(2)
	w.must(acme.Replace(ctx, stolen(), keep(new([]byte))))
	w.must(o.Grant(ctx, acme.ID(), []policies.Field{"own/f0"}, narrower))
	before := o.Grants(true)
	w.must(o.Sync(ctx))
	only(o, acme, map[policies.Field]string{"own/f0": "narrower", "own/f1": DefaultPurpose})
	if len(o.Grants(true)) != len(before) {
		t.Error("a second look granted again")
	}

	// The person decides while the vault is away, and the storefront tells of the new keys.
	o, m, acme, _ := w.household(2)
	w.must(o.GrantWrite(ctx, acme.ID(), []policies.Field{"own/f0", "own/f1"}, GrantOptions{}))
	other := reopen(m.clone(), w)
	w.must(acme.Replace(ctx, stolen(), keep(new([]byte))))
	w.silent("/grants")
	w.secondRoute(false)
	if err := o.Grant(ctx, acme.ID(), []policies.Field{"own/f0"}, narrower); err == nil {
		t.Fatal("it was granted")
	}
	if err := o.Sync(ctx); err == nil {
		t.Fatal("it was granted")
	}
	w.hostile(nil)
	w.secondRoute(true)
	// Meanwhile another device ends one, and the writing of the other.
	w.must(other.Revoke(ctx, acme.ID(), []policies.Field{"own/f1"}, RevokeOptions{}))
	w.must(other.EndWrite(ctx, acme.ID(), []policies.Field{"own/f0"}))
	w.must(o.Sync(ctx))
	w.must(other.Sync(ctx))
	for _, d := range []*Owner{o, other} {
		only(d, acme, map[policies.Field]string{"own/f0": "narrower"})
		if n := len(d.Writers(false)); n != 1 {
			t.Errorf("%d permissions to write are in force, want one", n)
		}
	}
	w.wantRead(acme, o, "own/f0", "value 0")
	w.wantRefusal(acme, o, "own/f0", policies.CodeLimit)
	w.wantRefusal(acme, o, "own/f1", policies.CodeRevoked)
}

// TestLeftUndone: a device is lost after it let a reader read what somebody had written in a field, and before it let it read what they would write. The one that is restored does the rest,
// whatever it is restored from.
func TestLeftUndone(t *testing.T) {
	t.Run("a backup", func(t *testing.T) {
		leftUndone(t, func(backup []byte) (*Owner, error) { return RestoreOwner(new(memory), backup, Options{}) })
	})
	t.Run("an account, or another device", func(t *testing.T) {
		leftUndone(t, func(backup []byte) (*Owner, error) {
			b, err := parseBackup(backup, roleOwner)
			if err != nil {
				return nil, err
			}
			return restored(new(memory), b, accountState{}, b.Network, Options{})
		})
	})
}

func leftUndone(t *testing.T, restore func(backup []byte) (*Owner, error)) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, globex := w.household(1)
	w.must(o.GrantWrite(ctx, globex.ID(), []policies.Field{"own/c"}, GrantOptions{}))
	w.must(globex.Write(ctx, o.ID(), set("own/c", "theirs")))
	var backup []byte
	w.must(o.Replace(ctx, stolen(), keep(&backup)))
	w.secondRoute(false)
	w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) { // the vault accepts the first grant, and no more is heard of it
		if q.Method == "POST" && strings.HasSuffix(q.URL.Path, "/grants") {
			next.ServeHTTP(httptest.NewRecorder(), q)
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(rw, q)
	})
	if err := o.Grant(ctx, acme.ID(), []policies.Field{"own/c"}, GrantOptions{}); err == nil {
		t.Fatal("it was finished")
	}
	w.hostile(nil)
	w.secondRoute(true)
	o.Close()
	w.wantRead(acme, o, "own/c", "theirs")
	w.must(globex.Write(ctx, o.ID(), set("own/c", "later")))
	w.wantRefusal(acme, o, "own/c", policies.CodeNotFound)
	again, err := restore(backup)
	w.must(err)
	w.must(again.Sync(ctx))
	w.wantRead(acme, again, "own/c", "later")
	seq := again.state.Known.Seq
	w.must(again.Sync(ctx))
	if again.state.Known.Seq != seq {
		t.Error("a second look did something again")
	}
}

// TestRevokeAfterALostGrant: a device whose grant was lost on the way revokes, and another device has granted meanwhile: the reader is stopped all the same.
func TestRevokeAfterALostGrant(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m, _, globex := w.household(2)
	w.must(o.Revoke(ctx, globex.ID(), nil, RevokeOptions{}))
	second := reopen(m.clone(), w)
	w.silent("/grants")
	if err := o.Grant(ctx, globex.ID(), []policies.Field{"own/f0", "own/f1"}, GrantOptions{}); err == nil {
		t.Fatal("it was not lost")
	}
	w.hostile(nil)
	w.must(second.Grant(ctx, globex.ID(), []policies.Field{"own/f0"}, GrantOptions{}))
	w.wantRead(globex, o, "own/f0", "value 0")
	w.must(o.Revoke(ctx, globex.ID(), nil, RevokeOptions{}))
	w.wantRefusal(globex, o, "own/f0", policies.CodeRevoked)
}

// TestReplacedIsSaid: whatever a person does on a device that was replaced, it says so, and not that the storefront does not know it.
func TestReplacedIsSaid(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	o, m, acme, globex := w.household(1)
	w.must(o.GrantWrite(ctx, acme.ID(), []policies.Field{"own/f0"}, GrantOptions{}))
	before := m.clone()
	w.must(o.Replace(ctx, stolen(), keep(new([]byte))))
	for name, do := range map[string]func(o *Owner) error{
		"adopt":     func(o *Owner) error { return o.Adopt(ctx, policies.AuthorID(acme.ID()), "own/f0") },
		"close":     func(o *Owner) error { return o.CloseAccount(ctx) },
		"end-write": func(o *Owner) error { return o.EndWrite(ctx, acme.ID(), nil) },
		"grant":     func(o *Owner) error { return o.Grant(ctx, globex.ID(), []policies.Field{"own/f0"}, GrantOptions{}) },
		"history":   func(o *Owner) error { _, err := o.History(ctx, 1); return err },
		"incoming":  func(o *Owner) error { _, err := o.Incoming(ctx); return err },
		"introduce": func(o *Owner) error { return o.Introduce(ctx, acme.ID(), globex.ID(), "work") },
		"receive":   func(o *Owner) error { _, err := o.Receive(ctx); return err },
		"register":  func(o *Owner) error { return o.Register(ctx, registry.Introduced) },
		"reject":    func(o *Owner) error { return o.Reject(ctx, policies.AuthorID(acme.ID()), "own/f0") },
		"remove":    func(o *Owner) error { return o.Remove(ctx, "own/f0") },
		"replace":   func(o *Owner) error { return o.Replace(ctx, stolen(), keep(new([]byte))) },
		"revoke":    func(o *Owner) error { return o.Revoke(ctx, acme.ID(), nil, RevokeOptions{}) },
		"rotate":    func(o *Owner) error { return o.Rotate(ctx, "own/f0") },
		"stop":      func(o *Owner) error { _, err := o.Stop(ctx, acme.ID(), nil); return err },
		"sync":      func(o *Owner) error { return o.Sync(ctx) },
		"thaw":      func(o *Owner) error { return o.Thaw(ctx) },
		"verify":    func(o *Owner) error { _, err := o.Verify(ctx); return err },
		"write-grant": func(o *Owner) error {
			return o.GrantWrite(ctx, globex.ID(), []policies.Field{"own/f0"}, GrantOptions{})
		},
	} {
		if err := do(reopen(before.clone(), w)); !errors.Is(err, ErrReplaced) {
			t.Errorf("%s: %v", name, err)
		}
	}
	old := reopen(before.clone(), w)
	if err := old.CloseAccount(ctx); errors.Is(err, ErrNotStopped) || old.state.Closing != nil {
		t.Errorf("a device that can close nothing waits for that: %v", err)
	}
}

// TestReplacedWhileItReads: a reader's session was lost with the storefront's memory, and that which it opens in its place ends with its keys, which another machine replaces. It is told that it was
// replaced, and not that it may open one more.
func TestReplacedWhileItReads(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	o, _, acme, _ := w.household(1)
	r, m := w.reader("Initech")
	w.connect(o, r, "initech")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"own/f0"}, GrantOptions{}))
	item := Item{Owner: o.ID(), Field: "own/f0"}
	for path, read := range map[string]func(r *Reader) error{
		api.PathReads:    func(r *Reader) error { _, err := r.Read(ctx, item); return err },
		api.PathEvidence: func(r *Reader) error { _, err := r.History(ctx, HistoryFilter{}); return err },
	} {
		w.wantRead(r, o, "own/f0", "value 0")
		other, err := OpenReader(m.clone(), Options{})
		w.must(err)
		w.must(read(other))
		asked := 0
		w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
			if q.URL.Path != path {
				next.ServeHTTP(rw, q)
				return
			}
			switch asked++; asked {
			case 1:
				problem.Write(rw, policies.CodeSession)
				return
			case 2:
				w.must(r.Replace(ctx, stolen(), keep(new([]byte))))
			}
			next.ServeHTTP(rw, q)
		})
		if err := other.Why(ctx, read(other)); !errors.Is(err, ErrReplaced) || asked != 2 {
			t.Errorf("%s: %v, asked %d times", path, err, asked)
		}
		w.hostile(nil)
		w.must(o.Sync(ctx))
	}
	w.wantRead(acme, o, "own/f0", "value 0")
}

// TestChallengeOfBefore: who asked for a login challenge before a succession and answers it afterwards does not get in by it, and ends nobody else's login.
func TestChallengeOfBefore(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	o, m := w.owner()
	thief := reopen(m.clone(), w)
	ask := func(fresh *envelope.SessionKey) (c api.LoginChallenge) {
		w.must(thief.wire.once(ctx, request{method: "POST", path: api.PathChallenges, out: &c}, encode(api.ChallengeRequest{Subject: o.id, Key: fresh.Public()})))
		return c
	}
	answer := func(c *api.LoginChallenge, fresh *envelope.SessionKey) error {
		proof, err := thief.wire.loginKey.Answer(&pre.Challenge{
			Server: thief.wire.storefront.Host, Subject: o.id, Ciphertext: c.Ciphertext, Nonce: c.Nonce, FreshKey: fresh.Public(),
		})
		w.must(err)
		return thief.wire.once(ctx, request{method: "POST", path: api.PathLogins, out: new(api.Login)}, encode(api.LoginAnswer{ID: c.ID, Proof: proof[:]}))
	}
	fresh := envelope.NewSessionKey()
	before, after := ask(fresh), ask(fresh)
	w.must(answer(&before, fresh))
	w.must(o.Replace(ctx, stolen(), keep(new([]byte))))
	w.must(o.Sync(ctx))
	mine := o.wire.login
	if err := answer(&after, fresh); !errors.Is(err, policies.CodeUnauthorized) {
		t.Errorf("the login with the key of before: %v", err)
	}
	if w.must(o.Sync(ctx)); mine == nil || o.wire.login != mine {
		t.Error("the login of the device that replaced it ended")
	}
}

// TestReplacedByTwo: two devices replace the root, and the storefront was away when the vault heard the first. The second is told that it was replaced, but only if the vault itself says what
// came first: a storefront that says so makes nobody believe it.
func TestReplacedByTwo(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	posted := func(answer func(http.ResponseWriter)) {
		w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/successions") {
				answer(rw)
				return
			}
			next.ServeHTTP(rw, r)
		})
	}
	away := func(rw http.ResponseWriter) { http.Error(rw, "silence", http.StatusBadGateway) }
	old := func(rw http.ResponseWriter) { problem.Write(rw, policies.CodeSuccessionOld) }
	for what, front := range map[string]func(http.ResponseWriter){"honest": nil, "away": away, "it says so too": old} {
		one, _ := w.owner()
		w.must(one.Set(ctx, set("own/a", "a")))
		two := second(t, w, one)
		posted(away)
		if err := one.Replace(ctx, stolen(), keep(new([]byte))); !errors.Is(err, policies.CodeUnavailable) || one.line.Newest().Generation != 2 {
			t.Fatalf("%s: the first: %v", what, err)
		}
		if w.hostile(nil); front != nil {
			posted(front)
		}
		if err := two.Replace(ctx, stolen(), keep(new([]byte))); !errors.Is(err, ErrReplaced) || !errors.Is(err, policies.CodeSuccessionOld) {
			t.Errorf("%s: the second: %v", what, err)
		}
		if len(two.state.Tasks) != 0 || two.state.Replacing != nil {
			t.Errorf("%s: %d tasks wait", what, len(two.state.Tasks))
		}
		w.hostile(nil)
		w.must(one.Sync(ctx))
	}

	// Nothing was replaced, and the storefront lies.
	one, _ := w.owner()
	w.must(one.Set(ctx, set("own/a", "a")))
	posted(old)
	for _, up := range []bool{false, true} {
		w.secondRoute(up)
		if err := one.Replace(ctx, stolen(), keep(new([]byte))); errors.Is(err, ErrReplaced) {
			t.Errorf("the vault answers: %t: %v", up, err)
		}
	}
	w.hostile(nil)
	w.must(one.Sync(ctx))
	if one.line.Newest().Generation != 2 {
		t.Error("the root is the one before")
	}
}

// TestReplacedByItsOwnBackup: what came first at the vault is the same replacement, sent by a device that was made from the same backup. This one goes on with it.
func TestReplacedByItsOwnBackup(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	one, _, acme, _ := w.household(1)
	two := second(t, w, one)
	var backup []byte
	w.silent("/successions")
	w.secondRoute(false)
	if err := one.Replace(ctx, stolen(), keep(&backup)); !errors.Is(err, policies.CodeUnavailable) {
		t.Fatal(err)
	}
	fresh, err := RestoreOwner(new(memory), backup, Options{})
	w.must(err)
	if err := fresh.Sync(ctx); err == nil {
		t.Fatal("the storefront is silent")
	}
	w.must(two.Set(ctx, set("own/f0", "meanwhile"))) // the place in the chain is taken
	w.secondRoute(true)
	if err := one.Sync(ctx); err == nil || one.line.Newest().Generation != 2 {
		t.Fatalf("generation %d: %v", one.line.Newest().Generation, err)
	}
	if err := fresh.Sync(ctx); errors.Is(err, ErrReplaced) || fresh.line.Newest().Generation != 2 {
		t.Fatalf("generation %d: %v", fresh.line.Newest().Generation, err)
	}
	w.hostile(nil)
	w.must(fresh.Sync(ctx))
	w.must(fresh.Set(ctx, set("own/f0", "later")))
	w.wantRead(acme, fresh, "own/f0", "later")
}

// TestSuccessionSentAgain: whoever sends an accepted succession again, which everybody may fetch, ends nobody's login.
func TestSuccessionSentAgain(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, _ := w.household(1)
	w.must(o.Replace(ctx, stolen(), keep(new([]byte))))
	w.must(acme.Replace(ctx, stolen(), keep(new([]byte))))
	w.must(o.Sync(ctx))
	w.wantRead(acme, o, "own/f0", "value 0")
	logins := 0
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, "/logins") {
			logins++
		}
		next.ServeHTTP(rw, r)
	})
	for _, d := range []*device{o.device, acme.device} {
		raw := d.base.Successions[0]
		w.must(d.wire.call(ctx, request{method: "POST", path: path(api.PathSuccessions, d.id.String()), raw: raw, out: new(evidence.Receipt)}))
	}
	w.must(o.Set(ctx, set("own/f1", "new")))
	w.wantRead(acme, o, "own/f0", "value 0")
	if logins > 0 {
		t.Errorf("%d requests to log in again", logins)
	}
}
