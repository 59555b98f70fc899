package storefront

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
)

// ahead sends items of a manifest ahead of it.
func (p *party) ahead(env *envelope.Envelope, items ...api.Item) error {
	return p.do("POST", fill(api.PathManifests, p.owner()), api.Publication{Manifest: env.Raw, Items: items, Ahead: true}, nil)
}

// here reports whether the ciphertext of a field is stored.
func (p *party) here(f policies.Field) bool {
	l := p.leaves[f]
	_, err := p.w.db.Get(p.w.t.Context(), own(p.owner()).ciphertext(l.CiphertextHash))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		p.w.t.Fatal(err)
	}
	return err == nil
}

// bare are all of the party's items without their ciphertexts, but for one field's.
func (p *party) bare(but policies.Field) []api.Item {
	var items []api.Item
	for f, l := range p.leaves {
		item := api.Item{Leaf: l.Bytes()}
		if f == but {
			item.Ciphertext = p.bodies[f]
		}
		items = append(items, item)
	}
	return items
}

// TestItemsAhead: items that came before their manifest are kept as long as it may take to send the others, count for nothing until it comes, and then are
// published like any. What no manifest comes for is collected.
func TestItemsAhead(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "before")})
	replaced := anna.leaves["name"]
	items := []api.Item{anna.set("name", "n"), anna.set("mail", "m"), anna.set("note", "o")}
	manifest := anna.sign()
	w.must(anna.ahead(manifest, items[0]))
	w.must(anna.ahead(manifest, items[1]))
	w.must(anna.ahead(manifest, items[1])) // again, as after a lost answer
	var m api.Mirror
	w.must(anna.do("GET", fill(api.PathMirror, anna.owner())+"?author="+anna.id.String(), nil, &m))
	if len(m.Leaves) != 1 {
		t.Errorf("%d leaves are published", len(m.Leaves))
	}
	begin := time.Now()
	w.front.collectDue(t.Context(), begin.Add(earlyFor-time.Minute))
	if !anna.here("name") || !anna.here("mail") {
		t.Error("they were collected before their time")
	}
	w.must(anna.post(manifest, anna.bare("note")))
	anna.signed(manifest)
	w.front.collectDue(t.Context(), begin.Add(2*earlyFor))
	if _, err := w.db.Get(t.Context(), leafKey(anna.owner(), replaced.Hash())); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the replaced item: %v", err)
	}
	g := anna.give(acme, "billing", "mail", "name", "note")
	acme.openSession()
	asked := []policies.ReadItem{{Owner: anna.owner(), Field: "mail"}, {Owner: anna.owner(), Field: "name"}, {Owner: anna.owner(), Field: "note"}}
	out, answer, err := acme.read("billing", nil, asked...)
	w.must(err)
	for i, want := range []string{"m", "n", "o"} {
		if got, err := acme.value(anna, g, out, answer, i); err != nil || got != want {
			t.Errorf("%s: %q, %v", asked[i].Field, got, err)
		}
	}

	// The manifest does not come.
	item := anna.set("name", "later")
	w.must(anna.ahead(anna.sign(), item))
	w.front.collectDue(t.Context(), time.Now().Add(earlyFor+time.Second))
	if anna.here("name") {
		t.Error("what no manifest came for is still there")
	}
	wantCode(t, anna.post(anna.sign(), anna.bare("")), policies.CodeBehind)
	w.must(anna.post(anna.sign(), []api.Item{item}))
}

// TestItemsAheadAfterACrash: a process that starts anew collects them.
func TestItemsAheadAfterACrash(t *testing.T) {
	w := newWorld(t, loose)
	anna := w.member(policies.KindPerson)
	w.must(anna.ahead(anna.sign(), anna.set("name", "n")))
	w.crash()
	if !anna.here("name") {
		t.Fatal("it is not there: nothing is tested")
	}
	deadline := time.Now().Add(10 * time.Second)
	for anna.here("name") && time.Now().Before(deadline) { // the start looks for work beside other things
		w.front.collectDue(t.Context(), time.Now().Add(2*collectAfter))
		time.Sleep(10 * time.Millisecond)
	}
	if anna.here("name") {
		t.Error("it is still there")
	}
}

// TestItemsAheadAreBounded: nobody fills the disk with items whose manifest never comes, or has items of others stored.
func TestItemsAheadAreBounded(t *testing.T) {
	limits := loose
	limits.OwnerBytes, limits.Fields = 10_000, 5
	w := newWorld(t, limits)
	anna, bert := w.member(policies.KindPerson), w.member(policies.KindPerson)
	big := string(make([]byte, 4000))
	w.must(anna.ahead(anna.sign(), anna.set("a", big)))
	w.must(anna.ahead(anna.sign(), anna.set("b", big)))
	wantCode(t, anna.ahead(anna.sign(), anna.set("c", big)), policies.CodeTooLarge)
	if anna.here("c") {
		t.Error("what is too large was stored")
	}
	var many []api.Item
	for i := range 6 {
		many = append(many, bert.set(policies.Field(fmt.Sprint("f", i)), "v"))
	}
	wantCode(t, bert.ahead(bert.sign(), many...), policies.CodeTooLarge)
	w.must(bert.ahead(bert.sign(), many[:5]...))
	wantCode(t, bert.ahead(bert.sign(), many[5]), policies.CodeTooLarge)
	wantCode(t, bert.ahead(bert.sign(), bert.bare("")...), policies.CodeMalformed)
	wantCode(t, bert.ahead(bert.sign(), anna.set("d", "d")), policies.CodeLeaf)
	wantCode(t, bert.do("POST", fill(api.PathManifests, bert.owner()), api.Publication{Manifest: bert.sign().Raw, Removed: []policies.Field{"f0"}, Ahead: true}, nil), policies.CodeMalformed)
	wantCode(t, bert.do("POST", fill(api.PathManifests, anna.owner()), api.Publication{Manifest: anna.sign().Raw, Ahead: true}, nil), policies.CodeUnauthorized)

	var e early
	l := &leaf{ciphertext: 1}
	now := time.Now()
	for i := range earlySlots {
		if _, err := e.add(slot{owner: policies.OwnerID{byte(i), byte(i >> 8)}}, []*leaf{l}, limits, now); err != nil {
			t.Fatal(err)
		}
	}
	late := slot{owner: policies.OwnerID{1, 2, 3}}
	_, err := e.add(late, []*leaf{l}, limits, now.Add(earlyFor-time.Second))
	wantCode(t, err, policies.CodeRateLimited)
	if _, err := e.add(late, []*leaf{l}, limits, now.Add(earlyFor)); err != nil || len(e.slots) != 1 {
		t.Errorf("when their time is over: %v, %d are remembered", err, len(e.slots))
	}
}
