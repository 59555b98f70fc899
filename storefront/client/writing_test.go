package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/writing"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// clinic is an owner with a phone number that acme may read and bank may write.
func (w *world) clinic() (o *Owner, om *memory, acme *Reader, bank *Reader, bm *memory) {
	w.t.Helper()
	ctx := w.t.Context()
	o, om = w.owner()
	acme, _ = w.reader("Acme")
	bank, bm = w.reader("Bank")
	w.connect(o, acme, "acme")
	w.connect(o, bank, "bank")
	w.must(o.Set(ctx, set("phone.mobile", "one"), set("email.home", "mail")))
	w.must(o.Grant(ctx, acme.ID(), []policies.Field{"phone.mobile", "email.home"}, GrantOptions{}))
	w.wantRead(acme, o, "phone.mobile", "one")
	return o, om, acme, bank, bm
}

func author(r *Reader) policies.AuthorID { return policies.AuthorID(r.ID()) }

func (w *world) wantBy(r *Reader, o *Owner, f policies.Field, text string, by policies.AuthorID) {
	w.t.Helper()
	if v := w.read(r, o, f); v.Err != nil || string(v.Bytes) != text || v.Author != by {
		w.t.Fatalf("%s: %q by %s, %v; want %q by %s", f, v.Bytes, v.Author, v.Err, text, by)
	}
}

// The newest counts, whoever wrote it, and readers see who. A reader that was granted before anybody could write learns of writers by itself.
func TestTheNewestCounts(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, om, acme, bank, _ := w.clinic()
	me, them := policies.AuthorID(o.ID()), author(bank)
	if err := bank.Write(ctx, o.ID(), set("phone.mobile", "x")); !errors.Is(err, policies.CodeNoWriteGrant) {
		t.Fatalf("a write without a grant: %v", err)
	}
	w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{"phone.mobile"}, GrantOptions{}))
	w.wantBy(acme, o, "phone.mobile", "one", me)
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "two")))
	w.wantBy(acme, o, "phone.mobile", "two", them)
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "three")))
	w.wantBy(acme, o, "phone.mobile", "three", them)
	if err := bank.Write(ctx, o.ID(), set("email.home", "x")); !errors.Is(err, policies.CodeNoWriteGrant) {
		t.Fatalf("a field beyond the write grant: %v", err)
	}

	in, err := o.Incoming(ctx)
	w.must(err)
	if len(in) != 1 || string(in[0].Bytes) != "three" || in[0].Alias != "bank" || in[0].Writer != them || time.Since(in[0].Time) > time.Minute {
		t.Fatalf("%+v", in)
	}
	w.must(o.Adopt(ctx, them, "phone.mobile"))
	w.wantBy(acme, o, "phone.mobile", "three", me)
	if b, err := o.Get(ctx, "phone.mobile"); err != nil || string(b) != "three" {
		t.Fatalf("%q, %v", b, err)
	}
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "four")))
	w.wantBy(acme, o, "phone.mobile", "four", them)
	o2 := reopen(om, w) // what was seen is remembered
	if err := o2.Adopt(ctx, them, "phone.mobile"); !errors.Is(err, ErrNewer) {
		t.Fatalf("adopted without having been seen: %v", err)
	}
	w.must(o2.Reject(ctx, them, "phone.mobile"))
	w.wantBy(acme, o2, "phone.mobile", "three", me)
	if in, err := o2.Incoming(ctx); err != nil || len(in) != 0 {
		t.Fatalf("settled, and still there: %+v, %v", in, err)
	}

	// A reader that comes later reads what was written too.
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "five")))
	later, _ := w.reader("Later")
	w.connect(o2, later, "later")
	w.must(o2.Grant(ctx, later.ID(), []policies.Field{"phone.mobile"}, GrantOptions{Purpose: "delivery"}))
	w.wantBy(later, o2, "phone.mobile", "five", them)
	w.wantBy(acme, o2, "phone.mobile", "five", them)
	// Granted anew under other terms, both authors' items are read under these.
	w.must(o2.Grant(ctx, acme.ID(), []policies.Field{"phone.mobile"}, GrantOptions{Purpose: "billing"}))
	w.wantBy(acme, o2, "phone.mobile", "five", them)

	w.must(o2.EndWrite(ctx, bank.ID(), nil))
	if err := bank.Write(ctx, o.ID(), set("phone.mobile", "six")); !errors.Is(err, policies.CodeWriteEnded) && !errors.Is(err, policies.CodeNoWriteGrant) {
		t.Fatalf("after the end: %v", err)
	}
	w.wantBy(acme, o2, "phone.mobile", "five", them) // it stays until the owner sets something newer
	w.must(o2.Set(ctx, set("phone.mobile", "mine")))
	w.wantBy(acme, o2, "phone.mobile", "mine", me)
	v, err := o2.Verify(ctx)
	w.must(err)
	if !v.Agrees() {
		t.Fatalf("the log does not agree: %+v", v)
	}
	if _, err := o2.History(ctx, 200); err != nil {
		t.Fatal(err)
	}
	if _, err := bank.History(ctx, HistoryFilter{}); err != nil {
		t.Fatal(err)
	}
}

// TestWritersOfSeveralGrants: a reader that has not read since several may write learns of all of them, although each is named by a grant of its own.
func TestWritersOfSeveralGrants(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	for _, removed := range []bool{false, true} {
		o, _, acme, globex := w.household(1)
		w.wantRead(acme, o, "own/f0", "value 0")
		if removed {
			w.must(o.Remove(ctx, "own/f0"))
		}
		w.must(o.GrantWrite(ctx, globex.ID(), []policies.Field{"own/f0"}, GrantOptions{}))
		w.must(globex.Write(ctx, o.ID(), set("own/f0", "theirs")))
		w.must(o.GrantWrite(ctx, acme.ID(), []policies.Field{"own/f0"}, GrantOptions{}))
		w.wantRead(acme, o, "own/f0", "theirs")
	}
}

// TestWrittenBeforeARemoval: a reader that has not read since somebody else may write finds what they wrote, also when the owner has removed their own value.
func TestWrittenBeforeARemoval(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, globex := w.household(1)
	w.wantRead(acme, o, "own/f0", "value 0")
	w.must(o.GrantWrite(ctx, globex.ID(), []policies.Field{"own/f0"}, GrantOptions{}))
	w.must(globex.Write(ctx, o.ID(), set("own/f0", "theirs")))
	w.must(o.Remove(ctx, "own/f0"))
	w.wantRead(acme, o, "own/f0", "theirs")
}

// A field of which the owner has no value can be written and read.
func TestWrittenBeforeTheOwner(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, bank, _ := w.clinic()
	w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{"bank.iban"}, GrantOptions{}))
	w.must(o.Grant(ctx, acme.ID(), []policies.Field{"bank.iban"}, GrantOptions{}))
	w.must(bank.Write(ctx, o.ID(), set("bank.iban", "DE1")))
	w.wantBy(acme, o, "bank.iban", "DE1", author(bank))
	if err := o.Reject(ctx, author(bank), "bank.iban"); !errors.Is(err, ErrNoField) {
		t.Fatalf("rejected for nothing: %v", err)
	}
	w.must(o.Revoke(ctx, acme.ID(), []policies.Field{"bank.iban"}, RevokeOptions{}))
	if v := w.read(acme, o, "bank.iban"); v.Err == nil {
		t.Fatal("read after the revocation")
	}
	w.must(bank.Write(ctx, o.ID(), set("bank.iban", "DE2")))
	w.must(o.Set(ctx, set("bank.iban", "DE3")))
	later, _ := w.reader("Later")
	w.connect(o, later, "later")
	w.must(o.Grant(ctx, later.ID(), []policies.Field{"bank.iban"}, GrantOptions{}))
	w.wantBy(later, o, "bank.iban", "DE3", policies.AuthorID(o.ID()))
	w.must(bank.Write(ctx, o.ID(), set("bank.iban", "DE4")))
	w.wantBy(later, o, "bank.iban", "DE4", author(bank))
}

// A rotation moves what others write too: old and new readers read what was written before it and after it, and a revoked one nothing.
func TestRotationWithWriters(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, bank, _ := w.clinic()
	gone, _ := w.reader("Gone")
	w.connect(o, gone, "gone")
	w.must(o.Grant(ctx, gone.ID(), []policies.Field{"phone.mobile"}, GrantOptions{}))
	w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{"phone.mobile"}, GrantOptions{}))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "before")))
	w.wantBy(gone, o, "phone.mobile", "before", author(bank))
	w.must(o.Revoke(ctx, gone.ID(), nil, RevokeOptions{}))
	w.wantRefusal(gone, o, "phone.mobile", policies.CodeRevoked)
	w.wantBy(acme, o, "phone.mobile", "before", author(bank)) // still in the old epoch
	later, _ := w.reader("Later")
	w.connect(o, later, "later")
	w.must(o.Grant(ctx, later.ID(), []policies.Field{"phone.mobile"}, GrantOptions{}))
	w.wantBy(later, o, "phone.mobile", "before", author(bank))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "after")))
	for _, r := range []*Reader{acme, later} {
		w.wantBy(r, o, "phone.mobile", "after", author(bank))
	}
	w.wantRefusal(gone, o, "phone.mobile", policies.CodeRevoked)
	var epochs []uint64
	for _, s := range o.writeSlots("phone.mobile") {
		epochs = append(epochs, s.Epoch)
	}
	w.must(o.Sync(ctx))
	w.must(o.Rotate(ctx, "phone.mobile"))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "again")))
	w.wantBy(acme, o, "phone.mobile", "again", author(bank))
	if !slices.Contains(epochs, 2) || o.fieldEpoch("phone.mobile") != 3 {
		t.Errorf("epochs %v, now %d", epochs, o.fieldEpoch("phone.mobile"))
	}
}

// With everything that a writer holds it reads nothing: not what others wrote, and not what it wrote itself.
func TestAWriterReadsNothing(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, _, bank, _ := w.clinic()
	other, _ := w.reader("Other")
	w.connect(o, other, "other")
	w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{"phone.mobile"}, GrantOptions{}))
	w.must(o.GrantWrite(ctx, other.ID(), []policies.Field{"phone.mobile"}, GrantOptions{}))
	w.must(other.Write(ctx, o.ID(), set("phone.mobile", "of the other")))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "of the bank")))
	// Through the front door.
	for _, by := range []policies.AuthorID{policies.AuthorID(o.ID()), author(bank), author(other)} {
		values, err := bank.Read(ctx, Item{Owner: o.ID(), Field: "phone.mobile", Author: by})
		w.must(err)
		if values[0].Err == nil {
			t.Errorf("the writer reads what %s wrote", by)
		}
	}
	// The mirrors of others are not for it, its own has nothing that it can open.
	for _, by := range []policies.AuthorID{policies.AuthorID(o.ID()), author(other)} {
		var m api.Mirror
		err := bank.wire.call(ctx, request{method: "GET", path: path(api.PathMirror, o.ID().String()), query: map[string][]string{"author": {by.String()}}, out: &m, login: true})
		if !errors.Is(err, policies.CodeUnauthorized) {
			t.Errorf("the mirror of %s: %v", by, err)
		}
	}
	// With the points it was given and all its keys: the capsules of every author, taken from the storefront's disk, do not open.
	grants, _, err := bank.fetchWriteGrants(ctx, o.ID())
	w.must(err)
	kem := pre.NewBlobKey(bank.root.KEMSeed())
	points, err := kem.Open(grants[0].Info(), grants[0].Sealed)
	w.must(err)
	w.must(o.syncWritten(ctx, author(bank)))
	w.must(o.syncWritten(ctx, author(other)))
	leaves := o.leaves()
	for _, by := range []policies.AuthorID{author(bank), author(other)} {
		l, _, ok := o.written(by, "phone.mobile")
		if !ok {
			t.Fatal("nothing written")
		}
		leaves = append(leaves, l)
	}
	for _, l := range leaves {
		ciphertext, err := o.ciphertext(ctx, &l)
		w.must(err)
		// What it holds is secret keys of its own and a public point; the only keys that open are scalars, and these are not of the slot.
		for _, slot := range []policies.Slot{l.Slot, {Owner: o.ID(), Field: l.Field, Epoch: l.Epoch, Author: author(bank)}} {
			key, err := bank.root.FieldKey(slot)
			w.must(err)
			if _, err := key.Open(&l, ciphertext); err == nil {
				t.Error("a capsule opens under the writer's root")
			}
		}
		// Z = x(r A) needs r or a: the x-coordinate of A itself, of E, and of what the token would give a reader are none.
		if bytes.Contains(l.Capsule[:], points[1:33]) {
			t.Error("the capsule holds the point")
		}
	}
	// The points of another writer are sealed to that one alone.
	others, _, err := other.fetchWriteGrants(ctx, o.ID())
	w.must(err)
	if _, err := kem.Open(others[0].Info(), others[0].Sealed); err == nil {
		t.Error("the points of another writer open")
	}
	moved := others[0]
	moved.Writer = author(bank)
	if _, err := pre.NewBlobKey(other.root.KEMSeed()).Open(moved.Info(), moved.Sealed); err == nil {
		t.Error("sealed points open under another writer's name")
	}
}

// A device that makes somebody a writer on old knowledge gives nothing to a reader whom another device stopped meanwhile, and forgets none whom another device let read.
func TestAWriterMadeOnOldKnowledge(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, om, acme, bank, _ := w.clinic()
	phone := []policies.Field{"phone.mobile"}
	w.must(o.Sync(ctx))
	second := reopen(om.clone(), w)
	w.must(o.Revoke(ctx, acme.ID(), phone, RevokeOptions{KeepEpoch: true}))
	later, _ := w.reader("Later")
	w.connect(o, later, "later")
	w.must(o.Grant(ctx, later.ID(), phone, GrantOptions{}))
	w.must(second.GrantWrite(ctx, bank.ID(), phone, GrantOptions{}))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "two")))
	w.wantRefusal(acme, o, "phone.mobile", policies.CodeRevoked)
	for _, g := range second.state.Grants {
		for i := range g.Doc.Fields {
			if f := &g.Doc.Fields[i]; g.Doc.Reader == acme.ID() && f.Field == phone[0] && g.live(f) {
				t.Errorf("the reader who was stopped has a grant of what %s writes", f.Author)
			}
		}
	}
	w.wantBy(later, o, "phone.mobile", "two", author(bank))
}

// Two machines of one business write for the same owner; one of them is always behind, and nothing is lost.
func TestTwoMachinesWrite(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, bank, bm := w.clinic()
	w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{"phone.mobile", "email.home"}, GrantOptions{}))
	copied := &memory{state: slices.Clone(bm.state)}
	second, err := OpenReader(copied, Options{})
	w.must(err)
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "by the first")))
	w.must(second.Write(ctx, o.ID(), set("email.home", "by the second")))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "by the first again")))
	w.wantBy(acme, o, "phone.mobile", "by the first again", author(bank))
	w.wantBy(acme, o, "email.home", "by the second", author(bank))
}

// A write whose answer is lost, or whose process is killed at any save, is finished by the next and made once.
func TestAWriteIsMadeOnce(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, bank, bm := w.clinic()
	w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{"phone.mobile"}, GrantOptions{}))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "first")))
	lost := 0
	w.hostile(func(rw http.ResponseWriter, r *http.Request, h http.Handler) {
		if r.Method == "POST" && lost == 0 && r.URL.Path == path(api.PathManifests, o.ID().String()) {
			lost++
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r) // it counts, and nobody is told
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		h.ServeHTTP(rw, r)
	})
	if err := bank.Write(ctx, o.ID(), set("phone.mobile", "second")); err == nil || lost != 1 {
		t.Fatalf("the answer was lost: %v", err)
	}
	again, err := OpenReader(bm, Options{}) // killed
	w.must(err)
	w.must(again.Write(ctx, o.ID(), set("phone.mobile", "second")))
	w.wantBy(acme, o, "phone.mobile", "second", author(bank))
	if got := again.writingFor(o.ID()).Manifest.Version; got != 2 {
		t.Errorf("version %d: it was made twice", got)
	}
	// Another write than the one whose answer was lost: both are made, in their order.
	lost = 0
	if err := again.Write(ctx, o.ID(), set("phone.mobile", "third")); err == nil {
		t.Fatal("the answer was not lost")
	}
	w.must(again.Write(ctx, o.ID(), set("phone.mobile", "fourth")))
	w.wantBy(acme, o, "phone.mobile", "fourth", author(bank))
	if got := again.writingFor(o.ID()).Manifest.Version; got != 4 {
		t.Errorf("version %d, want 4", got)
	}
	var state map[string]any
	if err := json.Unmarshal(bm.state, &state); err != nil || bytes.Contains(bm.state, []byte(`"wish"`)) {
		t.Error("the wish is still stored")
	}
}

// A storefront cannot pass an older item of a writer's off as the newest, nor one that the writer did not sign. That it can hold a writer's item back is stated.
func TestAHostileStorefrontAndWriters(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, bank, _ := w.clinic()
	w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{"phone.mobile"}, GrantOptions{}))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "one of the bank's")))
	var mirror api.Mirror
	w.must(o.wire.call(ctx, request{method: "GET", path: path(api.PathMirror, o.ID().String()), query: map[string][]string{"author": {author(bank).String()}}, out: &mirror, login: true}))
	old, err := json.Marshal(mirror)
	w.must(err)
	in, err := o.Incoming(ctx)
	w.must(err)
	if len(in) != 1 {
		t.Fatalf("%+v", in)
	}
	// One that says that it does not know the writer has the reader fail, and not read what the owner wrote before.
	w.hostile(func(rw http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.URL.Path == path(api.PathIdentity, bank.ID().String()) {
			problem.Write(rw, policies.CodeNotFound)
			return
		}
		next.ServeHTTP(rw, req)
	})
	if v := w.read(acme, o, "phone.mobile"); v.Err == nil {
		t.Errorf("%q, which the bank took the place of", v.Bytes)
	}
	w.hostile(nil)
	w.wantBy(acme, o, "phone.mobile", "one of the bank's", author(bank))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "two of the bank's")))
	if _, err := o.Incoming(ctx); err != nil {
		t.Fatal(err)
	}
	w.rewrite(path(api.PathMirror, o.ID().String()), func([]byte) []byte { return old })
	if err := o.syncWritten(ctx, author(bank)); !errors.Is(err, ErrRollback) {
		t.Errorf("an older mirror: %v", err)
	}
	w.rewrite(path(api.PathMirror, o.ID().String()), func([]byte) []byte { return []byte(`{}`) })
	if err := o.syncWritten(ctx, author(bank)); !errors.Is(err, ErrRollback) {
		t.Errorf("nothing any more: %v", err)
	}
	// A write grant made up, or to somebody else, is not taken.
	forged, err := policies.Sign(bank.signing, &writing.Grant{
		Header: policies.NewHeader("write-grant", time.Now()), Audience: bank.state.Network.Vault, Owner: o.ID(), Link: policies.Link{Seq: 1, Prev: policies.Hash{1}},
		Writer: author(bank), Purpose: "x", NotBefore: 1, Expires: 1 << 40, Fields: []writing.Field{{Field: "bank.iban", Epoch: 1}}, Sealed: make([]byte, 1120+33+16),
	})
	w.must(err)
	w.rewrite(api.PathWriterGrants, func([]byte) []byte {
		b, _ := json.Marshal(map[string]any{"grants": []any{map[string]any{"grant": json.RawMessage(forged.Raw)}}})
		return b
	})
	if err := bank.Write(ctx, o.ID(), set("bank.iban", "x")); !errors.Is(err, ErrUntrue) {
		t.Errorf("a forged write grant: %v", err)
	}
}

// Killed at any save, a device finishes what it began: who writes and who reads, a rotation with a writer, and the end of a permission. Readers see no error on the way.
func TestWritersKilledAtEverySave(t *testing.T) {
	ctx := t.Context()
	begin, step := saves(t)
	for limit := begin; ; limit += step {
		w := newWorld(t)
		o, om, acme, bank, bm := w.clinic()
		phone := []policies.Field{"phone.mobile"}
		kill := func(m *memory, act func() error) error {
			m.mu.Lock()
			m.limit = m.saves + limit
			m.mu.Unlock()
			err := act()
			m.mu.Lock()
			m.limit = 0
			m.mu.Unlock()
			return err
		}
		first := kill(om, func() error {
			return errors.Join(o.GrantWrite(ctx, bank.ID(), phone, GrantOptions{}), o.Rotate(ctx, phone...))
		})
		o = reopen(om, w)
		if err := o.Sync(ctx); err != nil {
			t.Fatalf("killed at save %d: %v", limit, err)
		}
		w.wantBy(acme, o, "phone.mobile", "one", policies.AuthorID(o.ID()))
		w.must(o.GrantWrite(ctx, bank.ID(), phone, GrantOptions{}))
		w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "two")))
		w.wantBy(acme, o, "phone.mobile", "two", author(bank))

		second := kill(bm, func() error { return bank.Write(ctx, o.ID(), set("phone.mobile", "three")) })
		bank, err := OpenReader(bm, Options{})
		w.must(err)
		w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "three")))
		w.wantBy(acme, o, "phone.mobile", "three", author(bank))

		want := uint64(2)
		if second == nil { // it was done, and then done again
			want = 3
		}
		if got := bank.writingFor(o.ID()).Manifest.Version; got != want {
			t.Fatalf("killed at save %d: %d manifests, want %d", limit, got, want)
		}

		third := kill(om, func() error { return errors.Join(o.Rotate(ctx, phone...), o.EndWrite(ctx, bank.ID(), nil)) })
		o = reopen(om, w)
		if err := o.Sync(ctx); err != nil {
			t.Fatalf("killed at save %d: %v", limit, err)
		}
		w.wantBy(acme, o, "phone.mobile", "three", author(bank))
		if err := o.EndWrite(ctx, bank.ID(), nil); err != nil && !errors.Is(err, policies.CodeNoWriteGrant) {
			t.Fatalf("killed at save %d: %v", limit, err)
		}
		if err := bank.Write(ctx, o.ID(), set("phone.mobile", "four")); !final(err) {
			t.Fatalf("killed at save %d: written after the end: %v", limit, err)
		}
		w.wantBy(acme, o, "phone.mobile", "three", author(bank))
		if !errors.Is(first, errCrash) && !errors.Is(second, errCrash) && !errors.Is(third, errCrash) {
			if limit < 10 {
				t.Fatalf("only %d saves were cut", limit)
			}
			return
		}
	}
}

// A stolen device is replaced while somebody writes for its owner: what was written stays readable, what is written afterwards is under the new root, and the thief's copy opens
// none of that.
func TestReplacedRootAndWriters(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, om, acme, bank, _ := w.clinic()
	w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{"phone.mobile"}, GrantOptions{}))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "before")))
	w.must(o.Sync(ctx))
	thief := theft(t, om)
	var backup []byte
	w.must(o.Replace(ctx, stolen(), keep(&backup)))
	w.wantBy(acme, o, "phone.mobile", "before", author(bank))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "after")))
	w.wantBy(acme, o, "phone.mobile", "after", author(bank))
	in, err := o.Incoming(ctx)
	w.must(err)
	if len(in) != 1 || string(in[0].Bytes) != "after" {
		t.Fatalf("%+v", in)
	}
	l, _, ok := o.written(author(bank), "phone.mobile")
	if !ok {
		t.Fatal("nothing written")
	}
	ciphertext, err := o.ciphertext(ctx, &l)
	w.must(err)
	key, err := thief.root.FieldKey(l.Slot)
	w.must(err)
	if _, err := key.Open(&l, ciphertext); err == nil {
		t.Error("the root that was stolen opens what was written after it was replaced")
	}
	w.must(o.Adopt(ctx, author(bank), "phone.mobile"))
	w.wantBy(acme, o, "phone.mobile", "after", policies.AuthorID(o.ID()))
}

// theft is a device as it was, in somebody else's hands.
func theft(t *testing.T, m *memory) *Owner {
	t.Helper()
	thief, err := OpenOwner(m.clone(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return thief
}

// A storefront that lost everything is given it again by each author: the owner's device and the writer's.
func TestAStorefrontThatLostWhatWasWritten(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, om, acme, bank, bm := w.clinic()
	w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{"phone.mobile", "email.home"}, GrantOptions{}))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "number"), set("email.home", "address")))
	w.wantBy(acme, o, "phone.mobile", "number", author(bank))
	empty := w.emptyStorefront().Config.Handler
	w.hostile(func(rw http.ResponseWriter, r *http.Request, _ http.Handler) { empty.ServeHTTP(rw, r) })
	owner := reopen(om, w)
	owner.state.Enrolled = false // it does not know them
	if _, err := owner.enrol(ctx); err != nil {
		t.Fatal(err)
	}
	writer, err := OpenReader(bm, Options{})
	w.must(err)
	writer.state.Enrolled = false
	if _, err := writer.enrol(ctx); err != nil {
		t.Fatal(err)
	}
	if err := owner.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	w.must(writer.Write(ctx, o.ID(), set("phone.mobile", "another number")))
	var m api.Mirror
	w.must(writer.wire.call(ctx, request{method: "GET", path: path(api.PathMirror, o.ID().String()), query: map[string][]string{"author": {author(bank).String()}}, out: &m, login: true}))
	if len(m.Leaves) != 2 {
		t.Errorf("%d items are there again, want 2", len(m.Leaves))
	}
	in, err := owner.Incoming(ctx)
	w.must(err)
	if len(in) != 2 {
		t.Errorf("%+v", in)
	}
}

// A writer whose keys were replaced: what it wrote before is its own still, also for a device that had not seen it, and after the owner's next sync it writes on.
func TestAWriterReplacesItsKeys(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, om, acme, bank, _ := w.clinic()
	phone := []policies.Field{"phone.mobile"}
	w.must(o.GrantWrite(ctx, bank.ID(), phone, GrantOptions{}))
	second := reopen(om.clone(), w)
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "two")))
	w.must(bank.Replace(ctx, stolen(), keep(new([]byte))))
	w.wantBy(acme, o, "phone.mobile", "two", author(bank))
	in, err := o.Incoming(ctx)
	w.must(err)
	if len(in) != 1 || string(in[0].Bytes) != "two" {
		t.Errorf("%+v", in)
	}
	w.must(o.Sync(ctx))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "three")))
	w.wantBy(acme, o, "phone.mobile", "three", author(bank))
	w.must(bank.Replace(ctx, stolen(), keep(new([]byte))))
	w.must(second.EndWrite(ctx, bank.ID(), phone))
	w.wantBy(acme, o, "phone.mobile", "three", author(bank)) // it stays until the owner sets something newer
}

// A root is replaced a second time while somebody's value is under the first one still: it stays readable, for a reader who comes later too, until it is written anew.
func TestReplacedTwiceUnderAWriter(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, om, acme, bank, _ := w.clinic()
	phone := []policies.Field{"phone.mobile"}
	w.must(o.GrantWrite(ctx, bank.ID(), phone, GrantOptions{}))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "two")))
	w.must(o.Sync(ctx))
	var backup []byte
	for range 2 {
		thief := theft(t, om)
		w.must(o.Replace(ctx, stolen(), keep(&backup)))
		w.wantBy(acme, o, "phone.mobile", "two", author(bank))
		if err := thief.Set(ctx, set("phone.mobile", "forged")); !errors.Is(err, ErrReplaced) {
			t.Errorf("the device that was stolen: %v", err)
		}
	}
	again, err := RestoreOwner(new(memory), backup, Options{})
	w.must(err)
	w.must(again.Sync(ctx))
	for i, device := range []*Owner{o, reopen(om, w), again} {
		later, _ := w.reader("Later")
		w.connect(device, later, "later")
		w.must(device.Grant(ctx, later.ID(), phone, GrantOptions{Purpose: "delivery"}))
		w.wantBy(later, o, "phone.mobile", "two", author(bank))
		if in, err := device.Incoming(ctx); err != nil || len(in) != 1 || string(in[0].Bytes) != "two" {
			t.Errorf("device %d: %+v, %v", i, in, err)
		}
	}
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "three")))
	w.wantBy(acme, o, "phone.mobile", "three", author(bank))
	w.must(again.Sync(ctx))
	if again.former != nil || len(again.earlier) != 0 || len(again.state.Earlier) != 0 {
		t.Error("the roots before are not forgotten")
	}
}

// TestHiddenWritingKeepsTheRoot: what a writer wrote under the root before cannot be had on a device that was restored, or the storefront says that there is nothing. The device keeps that root until it has
// seen it, over a restart too, and can hand itself to another meanwhile; it forgets it when the writer has written anew. A writer who never wrote keeps nothing.
func TestHiddenWritingKeepsTheRoot(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, _, bank, _ := w.clinic()
	phone := []policies.Field{"phone.mobile"}
	silent, _ := w.reader("Silent")
	w.connect(o, silent, "silent")
	w.must(o.GrantWrite(ctx, bank.ID(), phone, GrantOptions{}))
	w.must(o.GrantWrite(ctx, silent.ID(), phone, GrantOptions{}))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "two")))
	w.must(o.Sync(ctx))
	var early, late []byte
	w.must(o.Replace(ctx, stolen(), keep(&early)))
	_, err := o.Backup(false, keep(&late))
	w.must(err)
	hide := func(code policies.Code) {
		w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			if code != "" && r.URL.Query().Get("author") == author(bank).String() {
				problem.Write(rw, code)
				return
			}
			next.ServeHTTP(rw, r)
		})
	}
	var last []*Owner
	for name, backup := range map[string][]byte{"in the middle": early, "afterwards": late} {
		for _, code := range []policies.Code{policies.CodeUnavailable, policies.CodeNotFound} {
			m := new(memory)
			restored, err := RestoreOwner(m, backup, Options{})
			w.must(err)
			hide(code)
			for range 2 {
				w.must(restored.Sync(ctx))
				if restored.former == nil || restored.changing() != nil {
					t.Fatalf("%s, %s: the root before is forgotten (%t), or nothing can be handed over: %v", name, code, restored.former == nil, restored.changing())
				}
				restored = reopen(m, w)
			}
			hide("")
			w.must(restored.Sync(ctx))
			if in, err := restored.Incoming(ctx); err != nil || len(in) != 1 || string(in[0].Bytes) != "two" {
				t.Errorf("%s, %s: %+v, %v", name, code, in, err)
			}
			last = append(last, restored)
		}
	}
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "three")))
	for _, device := range append(last, o) {
		if w.must(device.Sync(ctx)); device.former != nil {
			t.Error("the root before is kept for nothing")
		}
	}
}

// TestWrittenUnseenByADevice: a writer wrote since the second device last looked, and the field moved on since. Whatever the second device then does, readers
// keep, or get, the key for what was written; so also if what was written cannot be had.
func TestWrittenUnseenByADevice(t *testing.T) {
	phone, mail := policies.Field("phone.mobile"), policies.Field("email.home")
	begin := func(t *testing.T, before bool) (*world, *Owner, *Reader, *Reader) {
		ctx, w := t.Context(), newWorld(t)
		o, om, acme, bank, _ := w.clinic()
		second := om.clone()
		w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{phone}, GrantOptions{}))
		if !before {
			second = om.clone()
		}
		w.must(bank.Write(ctx, o.ID(), set(phone, "theirs")))
		w.must(o.Rotate(ctx, phone))
		w.wantBy(acme, o, phone, "theirs", author(bank))
		return w, reopen(second, w), acme, bank
	}
	for name, before := range map[string]bool{"that knew of the writer": false, "that did not": true} {
		t.Run("by a device "+name, func(t *testing.T) {
			for what, do := range map[string]func(context.Context, *world, *Owner) error{
				"rotated another field": func(ctx context.Context, _ *world, o *Owner) error { return o.Rotate(ctx, mail) },
				"rotated the field":     func(ctx context.Context, _ *world, o *Owner) error { return o.Rotate(ctx, phone) },
				"granted another field": func(ctx context.Context, w *world, o *Owner) error {
					return o.Grant(ctx, policies.ReaderID(w.contactOf(o, "acme").ID), []policies.Field{mail}, GrantOptions{})
				},
				"granted the field anew": func(ctx context.Context, w *world, o *Owner) error {
					return o.Grant(ctx, policies.ReaderID(w.contactOf(o, "acme").ID), []policies.Field{phone}, GrantOptions{Purpose: "again"})
				},
				"not shown it, rotated another field": func(ctx context.Context, w *world, o *Owner) error {
					w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
						if a := r.URL.Query().Get("author"); a != "" && a != o.ID().String() {
							http.Error(rw, "silence", http.StatusBadGateway)
							return
						}
						next.ServeHTTP(rw, r)
					})
					defer w.hostile(nil)
					return o.Rotate(ctx, mail)
				},
			} {
				w, second, acme, bank := begin(t, before)
				if err := do(t.Context(), w, second); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if v := w.read(acme, second, phone); v.Err != nil || string(v.Bytes) != "theirs" {
					t.Errorf("%s: %q is read, %v", what, v.Bytes, v.Err)
				}
				later, _ := w.reader("Later")
				w.connect(second, later, "later")
				w.must(second.Grant(t.Context(), later.ID(), []policies.Field{phone}, GrantOptions{}))
				w.wantBy(later, second, phone, "theirs", author(bank))
			}
		})
	}
}

// TestWriteTooEarly: who may write one field is not told that another was written whose time has not come: the vault, which sees only a manifest, would take it, and nobody would ever read it.
func TestWriteTooEarly(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	r, _ := w.reader("R")
	w.connect(o, r, "r")
	w.must(o.Set(ctx, set("note", "n"), set("tax.id", "t")))
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note", "tax.id"}, GrantOptions{}))
	w.must(o.GrantWrite(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	w.must(o.GrantWrite(ctx, r.ID(), []policies.Field{"tax.id"}, GrantOptions{Begins: time.Now().Add(time.Hour)}))
	if err := r.Write(ctx, o.ID(), set("note", "n2"), set("tax.id", "t2")); !errors.Is(err, policies.CodeNotYet) {
		t.Errorf("both: %v", err)
	}
	w.wantRead(r, o, "note", "n")
	w.must(r.Write(ctx, o.ID(), set("note", "n3")))
	w.wantRead(r, o, "note", "n3")
	w.must(o.GrantWrite(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{Begins: time.Now().Add(time.Hour)}))
	if err := r.Write(ctx, o.ID(), set("note", "n4")); !errors.Is(err, policies.CodeNotYet) {
		t.Errorf("what took the place of a permission: %v", err)
	}
	grants, _, err := r.fetchWriteGrants(ctx, o.ID())
	w.must(err)
	r.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if _, _, err := r.mayWrite(grants, "tax.id"); err != nil {
		t.Errorf("when its time has come: %v", err)
	}
}
