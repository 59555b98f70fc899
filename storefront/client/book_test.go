package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/client/safe"
)

// shelf is a store with a safe in a file beside it.
type shelf struct {
	memory
	path string
}

func newShelf(t *testing.T) *shelf { return &shelf{path: filepath.Join(t.TempDir(), "safe")} }

func (s *shelf) Safe(head safe.Head) (*safe.Safe, error) { return safe.Open(s.path, [32]byte{7}, head) }

// shelved is a reader whose book is in a file.
func (w *world) shelved() (*Reader, *shelf) {
	w.t.Helper()
	m := newShelf(w.t)
	r, err := InitReader(context.Background(), m, w.network, policies.KindBusiness, "Shop", Options{})
	w.must(err)
	return r, m
}

// again opens the reader as another process does after this one ended or was killed.
func (w *world) again(m *shelf) *Reader {
	w.t.Helper()
	r, err := OpenReader(m, Options{})
	w.must(err)
	return r
}

// customer is an owner with a field that the reader may read.
func (w *world) customer(r *Reader, alias, text string) *Owner {
	w.t.Helper()
	o, _ := w.owner()
	w.must(o.Set(w.t.Context(), set("own/a", text)))
	w.connect(o, r, alias)
	w.must(o.Grant(w.t.Context(), r.ID(), []policies.Field{"own/a"}, GrantOptions{}))
	return o
}

// TestBookInAFile: what is kept of a person is in the safe, the state does not grow with people, and a process that begins anew reads all the same.
func TestBookInAFile(t *testing.T) {
	w := newWorld(t)
	r, m := w.shelved()
	w.must(r.Flush())
	empty := len(m.state)
	var people []*Owner
	for i := range 3 {
		people = append(people, w.customer(r, fmt.Sprint("shop", i), fmt.Sprint("text ", i)))
	}
	for i, o := range people {
		w.wantRead(r, o, "own/a", fmt.Sprint("text ", i))
	}
	w.must(r.Close())
	if grown := len(m.state) - empty; grown > 1<<10 || bytes.Contains(m.state, []byte("shop0-customer")) {
		t.Errorf("the state grew by %d bytes with three people", grown)
	}
	r = w.again(m)
	defer r.Close()
	for i, o := range people {
		w.wantRead(r, o, "own/a", fmt.Sprint("text ", i))
		if id, err := r.Find(fmt.Sprint("shop", i, "-customer")); err != nil || id != o.ID() {
			t.Errorf("found %v, %v", id, err)
		}
	}
	if _, err := r.Find("nobody"); !errors.Is(err, ErrNoContact) {
		t.Errorf("somebody who is not there: %v", err)
	}
}

// TestFormerContacts: what a program before there were safes stored is taken over when it is first opened, with its marks, and a relationship that was not posted is posted.
func TestFormerContacts(t *testing.T) {
	w := newWorld(t)
	r, m := w.shelved()
	o, _ := w.owner()
	ctx := t.Context()
	w.must(o.Set(ctx, set("own/a", "a")))
	code, err := o.Code()
	w.must(err)
	made := policies.NewHeader("relationship", r.now())
	e, err := r.relate(made, o.ID(), code.Nonce)
	w.must(err)
	var state map[string]jsontext.Value
	w.must(r.Close())
	w.must(json.Unmarshal(m.state, &state))
	delete(state, "safe")
	old := map[string]any{
		"alias": "anna", "id": o.ID(), "identity": o.state.Identity, "mark": formerMark{9, policies.Hash{9}},
		"relations": []any{map[string]any{"nonce": code.Nonce, "hash": policies.Hash(e.Hash), "raw": jsontext.Value(e.Raw)}},
	}
	state["owners"], err = json.Marshal([]any{old})
	w.must(err)
	state["grants"], err = json.Marshal([]any{map[string]any{"hash": policies.Hash{1}, "doc": map[string]any{}}})
	w.must(err)
	m.state, err = json.Marshal(state)
	w.must(err)
	w.must(os.Remove(m.path))
	for _, limit := range []int{m.saves, 0} { // killed between the safe and the state, and then not
		m.limit = limit
		r = w.again(m)
		if id, err := r.Find("anna"); err != nil || id != o.ID() {
			t.Fatalf("found %v, %v", id, err)
		}
		if err := r.Close(); errors.Is(err, errCrash) != (limit > 0) {
			t.Fatal(err)
		}
	}
	clear(state)
	if w.must(json.Unmarshal(m.state, &state)); state["owners"] != nil || state["grants"] != nil {
		t.Error("the old form is there still")
	}
	r = w.again(m)
	defer r.Close()
	if p, _ := r.book.Get(o.ID()); p.Mark != (mark{Version: 9, Hash: policies.Hash{9}}) || len(p.Relations) != 1 || p.Relations[0].Hash != policies.Hash(e.Hash) {
		t.Errorf("taken over: %+v", p)
	}
	_, err = o.Connect(ctx, r.Code(), "shop")
	if err == nil {
		t.Error("the owner found a relationship that was not posted")
	}
	w.must(r.ready(ctx))
	_, err = o.Connect(ctx, r.Code(), "shop")
	w.must(err)
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"own/a"}, GrantOptions{}))
	w.wantRefusal(r, o, "own/a", ErrRollback) // by the mark of before
}

// TestRoomForOne: with room for one owner in memory, reads of several, and many at once, are what they are with room for all.
func TestRoomForOne(t *testing.T) {
	w := newWorld(t)
	r, _ := w.shelved()
	r.room = 1
	var items []Item
	for i := range 4 {
		o := w.customer(r, fmt.Sprint("shop", i), fmt.Sprint("text ", i))
		items = append(items, Item{Owner: o.ID(), Field: "own/a"})
	}
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			for round := range 3 {
				some := items[(g+round)%3 : 4]
				values, err := r.Read(t.Context(), some...)
				if err != nil {
					t.Error(err)
					return
				}
				for _, v := range values {
					if v.Err != nil || !strings.HasPrefix(string(v.Bytes), "text ") {
						t.Errorf("%q, %v", v.Bytes, v.Err)
					}
				}
			}
		})
	}
	wg.Wait()
	r.mu.Lock()
	r.makeRoom()
	if len(r.owners) > 1 {
		t.Errorf("%d owners in memory", len(r.owners))
	}
	r.mu.Unlock()
	if fields, err := r.GrantedFields(t.Context(), policies.OwnerID{}); err != nil || len(fields) != 4 {
		t.Errorf("granted: %v, %v", fields, err)
	}
	if fields, err := r.GrantedFields(t.Context(), items[2].Owner); err != nil || len(fields) != 1 || fields[0].Alias != "shop2-customer" {
		t.Errorf("granted by one: %v, %v", fields, err)
	}
	w.must(r.Close())
}

// TestKeysHeldBack: the book has of an owner's keys only which replacement was seen last. A storefront that shows a new process the keys of before is not believed.
func TestKeysHeldBack(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	r, m := w.shelved()
	o := w.customer(r, "shop", "before")
	w.wantRead(r, o, "own/a", "before")
	w.must(o.Replace(ctx, ReplaceOptions{Reason: succession.Stolen}, keep(new([]byte))))
	w.must(o.Set(ctx, set("own/a", "after")))
	w.wantRead(r, o, "own/a", "after")
	w.must(r.Close())
	r = w.again(m)
	w.wantRead(r, o, "own/a", "after") // fetched anew
	w.must(r.Close())
	w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
		if q.Method == "GET" && strings.HasSuffix(q.URL.Path, "/successions") {
			rw.Header().Set("Content-Type", "application/json")
			_, _ = rw.Write([]byte(`{"successions":[]}`))
			return
		}
		next.ServeHTTP(rw, q)
	})
	r = w.again(m)
	defer r.Close()
	if _, err := r.lineOf(ctx, o.ID()); !errors.Is(err, ErrRollback) {
		t.Errorf("the keys of before: %v", err)
	}
	values, err := r.Read(ctx, Item{Owner: o.ID(), Field: "own/a"})
	if err == nil {
		err = values[0].Err
	}
	if !errors.Is(err, ErrRollback) {
		t.Errorf("read under the keys of before: %v", err)
	}
}

// TestMachines: two machines of one business, each with a file of its own, meet people by themselves and take in one another's backups.
func TestMachines(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	one, m := w.shelved()
	anna := w.customer(one, "anna", "a")
	w.wantRead(one, anna, "own/a", "a")
	backup := func(r *Reader) (plain []byte) {
		t.Helper()
		_, err := r.Backup(false, keep(&plain))
		w.must(err)
		return plain
	}
	two, err := RestoreReader(newShelf(t), backup(one), Options{})
	w.must(err)
	w.wantRead(two, anna, "own/a", "a")
	ben, cara := w.customer(one, "ben", "b"), w.customer(two, "cara", "c")
	w.must(anna.Set(ctx, set("own/a", "a2")))
	w.wantRead(two, anna, "own/a", "a2")
	merge := func(r *Reader, from *Reader) Merged {
		t.Helper()
		merged, err := r.Merge(backup(from))
		w.must(err)
		return merged
	}
	if got := merge(one, two); got.People != 2 || got.News != 2 || len(got.Conflicts) != 0 {
		t.Errorf("merged: %+v", got)
	}
	merge(two, one)
	if got := merge(one, two); got.News != 0 {
		t.Errorf("merged again: %+v", got)
	}
	for _, r := range []*Reader{one, two} {
		w.wantRead(r, anna, "own/a", "a2")
		w.wantRead(r, ben, "own/a", "b")
		w.wantRead(r, cara, "own/a", "c")
	}
	// What the other machine saw counts here too, and after a restart: a mark is not taken back by an older backup.
	old := backup(one)
	seenBefore(one, anna, mark{Version: 99, Hash: policies.Hash{1}})
	if got, err := one.Merge(old); err != nil || got.News != 0 {
		t.Errorf("an older backup: %+v, %v", got, err)
	}
	merge(two, one)
	w.wantRefusal(two, anna, "own/a", ErrRollback)
	w.must(one.Close())
	again := w.again(m)
	defer again.Close()
	w.wantRefusal(again, anna, "own/a", ErrRollback)
	// Another business's backup, and one with other keys, are refused.
	other, _ := w.reader("Other")
	if _, err := two.Merge(backup(other)); !errors.Is(err, errOtherKeys) {
		t.Errorf("another business's backup: %v", err)
	}
	w.must(again.Replace(ctx, stolen(), keep(new([]byte))))
	if _, err := again.Merge(old); !errors.Is(err, errOtherKeys) {
		t.Errorf("a backup with the keys of before: %v", err)
	}
	w.must(two.Close())
}

// TestSafeAheadOfState: a process that is killed after the safe and before the state, at every save, loses nothing and opens.
func TestSafeAheadOfState(t *testing.T) {
	w := newWorld(t)
	o, _ := w.owner()
	w.must(o.Set(t.Context(), set("own/a", "a")))
	first, step := saves(t)
	for saves, begun := first, true; begun; saves += step {
		r, m := w.shelved()
		w.connect(o, r, fmt.Sprint("shop", saves))
		w.must(o.Grant(t.Context(), r.ID(), []policies.Field{"own/a"}, GrantOptions{}))
		w.wantRead(r, o, "own/a", "a")
		w.must(r.Flush())
		m.limit = m.saves + saves
		begun = errors.Is(r.Replace(t.Context(), stolen(), keep(new([]byte))), errCrash)
		m.limit = 0
		again := w.again(m)
		if err := again.ready(t.Context()); err != nil {
			t.Fatalf("killed at save %d: %v", saves, err)
		}
		w.must(o.Sync(t.Context()))
		w.wantRead(again, o, "own/a", "a")
		w.must(again.Close())
	}
}
