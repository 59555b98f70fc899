package client

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// TestNeedlessThaw: who ends what is not stopped is told so. A thaw that could not be sent is kept, and when another device came first it is done and nobody is
// told that it failed; but not on the word of the storefront.
func TestNeedlessThaw(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	w.must(o.Set(ctx, set("note", "n")))
	if err := o.Thaw(ctx); !errors.Is(err, ErrNotFrozen) {
		t.Fatalf("nothing is stopped: %v", err)
	}
	kept := func() {
		t.Helper()
		w.reachable(false)
		w.silent("/successions")
		if err := o.Thaw(ctx); !errors.Is(err, policies.CodeUnavailable) {
			t.Fatalf("nothing answers: %v", err)
		}
		w.hostile(nil)
		w.reachable(true)
		o = reopen(m, w)
	}
	kept()
	w.must(o.Set(ctx, set("note", "m")))
	kept()
	w.must(o.Sync(ctx))
	kept()
	w.must(o.Thaw(ctx))
	if len(o.state.Tasks) != 0 {
		t.Errorf("%d tasks are left", len(o.state.Tasks))
	}

	// The storefront says that there is nothing to end, and the vault is not there to be asked: the thaw is kept.
	kept()
	w.reachable(false)
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/successions") && r.Method == http.MethodPost {
			problem.Write(rw, policies.CodeNotFound)
			return
		}
		next.ServeHTTP(rw, r)
	})
	if err := o.Sync(ctx); !errors.Is(err, policies.CodeUnavailable) || len(o.state.Tasks) != 1 {
		t.Errorf("the storefront's word is enough: %v, %d tasks", err, len(o.state.Tasks))
	}
	// Where the vault cannot be asked at all its word is what there is, and nothing more is made of it.
	alone := reopen(&memory{state: mustState(o)}, w)
	alone.wire.owners = nil
	if err := alone.Thaw(ctx); !errors.Is(err, policies.CodeNotFound) || errors.Is(err, ErrNotFrozen) {
		t.Errorf("the storefront's word is told as the vault's: %v", err)
	}
	w.reachable(true)
	w.must(o.Sync(ctx))
	w.hostile(nil)
	w.must(o.Set(ctx, set("note", "o")))
}

// freezers are two readers whom the vault takes for operators.
func (w *world) freezers() (freeze func(*Owner)) {
	one, _ := w.reader("One")
	two, _ := w.reader("Two")
	for i, r := range []*Reader{one, two} {
		w.must(r.ready(w.t.Context())) // which enrols it
		w.operators[i] = r.id
	}
	return func(o *Owner) {
		w.t.Helper()
		order, err := one.FreezeOrder(w.t.Context(), o.ID())
		w.must(err)
		w.must(two.Freeze(w.t.Context(), order))
	}
}

// TestThawOfBefore: what waits on a device, or a storefront holds back, ends only what was stopped when the person asked. They have lost everything since and two operators stop all reading: it
// stays stopped when the device that was lost goes on by itself, and when the storefront sends what it held back. The device gives the wish up, says so, and does what waits
// behind it. When the person asks again, that is a new wish, and what became of the one before does not matter.
func TestThawOfBefore(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	freeze := w.freezers()
	o, m := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	var held []byte
	thaw := func(passed bool, ago time.Duration) { // whose answer is lost, or which is held back too
		t.Helper()
		w.reachable(false)
		w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/successions") {
				next.ServeHTTP(rw, r)
				return
			}
			held, _ = io.ReadAll(r.Body)
			if r.Body = io.NopCloser(bytes.NewReader(held)); passed {
				next.ServeHTTP(httptest.NewRecorder(), r)
			}
			http.Error(rw, "silence", http.StatusBadGateway)
		})
		o.device.now = func() time.Time { return time.Now().Add(-ago) }
		if err := o.Thaw(ctx); !errors.Is(err, policies.CodeUnavailable) {
			t.Fatalf("nothing answers: %v", err)
		}
		w.hostile(nil)
		w.reachable(true)
		o = reopen(m, w)
	}
	left := func(n int) {
		t.Helper()
		if len(o.state.Tasks) != n {
			t.Errorf("%d tasks are left, want %d", len(o.state.Tasks), n)
		}
	}

	freeze(o)
	thaw(false, 10*time.Second)
	freeze(o)
	if _, err := w.vault.Submit(ctx, vaultapi.Submission{Envelope: held}); !errors.Is(err, policies.CodeExpired) {
		t.Errorf("what was held back: %v", err)
	}
	w.wantRefusal(r, o, "note", policies.CodeFrozen)
	if err := o.Set(ctx, set("note", "m")); !errors.Is(err, ErrThawOld) {
		t.Errorf("a device with a wish of before: %v", err)
	}
	left(0)
	if text, err := o.Get(ctx, "note"); err != nil || string(text) != "m" {
		t.Errorf("what was behind it is not done: %q, %v", text, err)
	}
	w.wantRefusal(r, o, "note", policies.CodeFrozen)
	w.must(o.Sync(ctx))
	w.must(o.Thaw(ctx))
	w.wantRead(r, o, "note", "m")

	// A look at everything says so too.
	freeze(o)
	thaw(false, 10*time.Second)
	if err := o.Sync(ctx); !errors.Is(err, ErrThawOld) {
		t.Errorf("a look at everything: %v", err)
	}
	left(0)
	w.wantRefusal(r, o, "note", policies.CodeFrozen)

	// It was in force and its answer was lost; then comes another stop. The person ends that too.
	thaw(true, 0)
	w.wantRead(r, o, "note", "m")
	freeze(o)
	w.wantRefusal(r, o, "note", policies.CodeFrozen)
	w.must(o.Thaw(ctx))
	w.wantRead(r, o, "note", "m")
	left(0)

	// The person asks again while a wish of before waits.
	freeze(o)
	thaw(false, 10*time.Second)
	w.must(o.Thaw(ctx))
	w.wantRead(r, o, "note", "m")

	// That it is too old the vault must say.
	freeze(o)
	thaw(false, 0)
	w.reachable(false)
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/successions") {
			problem.Write(rw, policies.CodeExpired)
			return
		}
		next.ServeHTTP(rw, r)
	})
	if err := o.Sync(ctx); !errors.Is(err, policies.CodeUnavailable) || errors.Is(err, ErrThawOld) {
		t.Errorf("the storefront's word is enough: %v", err)
	}
	left(1)
	w.reachable(true)
	if err := o.Sync(ctx); errors.Is(err, ErrThawOld) { // the storefront, which is told afterwards, does not want it
		t.Errorf("the vault has it: %v", err)
	}
	w.hostile(nil)
	w.must(o.Sync(ctx))
	w.wantRead(r, o, "note", "m")
	left(0)

	// A device whose clock is late is told.
	freeze(o)
	o.device.now = func() time.Time { return time.Now().Add(-10 * time.Second) }
	if err := o.Thaw(ctx); !errors.Is(err, ErrThawOld) {
		t.Errorf("by a clock that is late: %v", err)
	}
	left(0)
}

// TestToldOfFreeze: whatever a person's device does, it hears that two operators stopped all reading, and it hears of it once more only if they do so again. A storefront can make
// nobody believe that they are stopped, with a receipt of somebody else's or of before, and nobody who has heard of it that it is over.
func TestToldOfFreeze(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	freeze := w.freezers()
	o, m := w.owner()
	other, _ := w.owner()
	w.must(o.Set(ctx, set("note", "n")))
	w.must(other.Set(ctx, set("note", "n")))
	told := func(o *Owner, want bool) {
		t.Helper()
		if got := !o.Frozen().IsZero(); got != want {
			t.Errorf("told that it is stopped: %v, want %v", got, want)
		}
	}
	told(o, false)
	freeze(o)
	told(o, false)
	o = reopen(m, w)
	w.must(o.Set(ctx, set("note", "m")))
	told(o, true)
	told(reopen(m, w), true)
	var before []byte // what the storefront said of the first freeze
	w.rewrite("/freeze", func(body []byte) []byte {
		before = bytes.Clone(body)
		return body
	})
	w.must(o.Sync(ctx))
	freezeIs := func(body []byte) {
		w.rewrite("/freeze", func([]byte) []byte { return body })
	}
	freezeIs([]byte(`{}`))
	w.must(o.Sync(ctx))
	told(o, true) // only the person ends it
	freezeIs(before)
	if err := other.Sync(ctx); !errors.Is(err, ErrUntrue) {
		t.Errorf("a receipt of somebody else's: %v", err)
	}
	told(other, false)
	w.hostile(nil)

	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // a thaw ends what was stopped in its second too
	second := reopen(m.clone(), w)
	w.must(second.Thaw(ctx))
	told(second, false)
	w.must(o.Sync(ctx)) // the thaw is another device's
	told(o, false)
	freezeIs(before)
	w.must(o.Sync(ctx))
	told(o, false)
	w.hostile(nil)
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
	freeze(o)
	w.must(o.Sync(ctx))
	told(o, true)
	if _, err := second.Verify(ctx); err != nil {
		t.Error(err)
	}
	told(second, true)

	// A device that was in use before such things were heard of does not know the thaw, and is shown the first stop. That the vault knows of none is the end of that.
	w.must(o.Thaw(ctx))
	o.state.Thawed = 0
	freezeIs(before)
	w.must(o.Sync(ctx))
	told(o, true)
	if err := o.Thaw(ctx); !errors.Is(err, ErrNotFrozen) {
		t.Errorf("nothing is stopped: %v", err)
	}
	told(o, false)
	w.must(o.Sync(ctx))
	told(o, false)
}
