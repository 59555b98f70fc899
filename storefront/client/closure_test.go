package client

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
)

// TestCloseAccount: after the receipt nobody reads anything, the token has no key, the storefront knows nobody of that id and registers them never again, and other devices are told.
func TestCloseAccount(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n"), set("tax.id", "t")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note", "tax.id"}, GrantOptions{}))
	w.wantRead(r, o, "note", "n")
	two := second(t, w, o)
	w.must(two.Sync(ctx))
	w.must(two.Set(ctx, set("note", "m"))) // the first device does not know of it yet

	w.must(o.CloseAccount(ctx))
	w.must(o.CloseAccount(ctx)) // again, as after a lost answer
	if !o.Closed() || !reopen(m, w).Closed() {
		t.Error("the device does not know that the account is closed")
	}
	if n := w.token.count(); n != 0 {
		t.Errorf("%d keys are left in the token", n)
	}
	if v := w.read(r, o, "note"); v.Err == nil {
		t.Errorf("read %q", v.Bytes)
	}
	if err := two.Sync(ctx); !errors.Is(err, policies.CodeClosed) {
		t.Errorf("the other device: %v", err)
	}
	if err := two.Set(ctx, set("note", "k")); !errors.Is(err, policies.CodeClosed) {
		t.Errorf("the other device publishes: %v", err)
	}
}

// TestCloseAccountPastTheStorefront: a storefront that is silent, or says no, keeps nobody from closing their account; killed at any moment, the device goes on.
func TestCloseAccountPastTheStorefront(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	w.silent("/closure")
	owners := o.wire.owners
	o.wire.owners = nil
	short, cancel := context.WithCancel(ctx)
	cancel()
	if err := o.CloseAccount(short); !errors.Is(err, ErrNotStopped) {
		t.Fatalf("nobody answers: %v", err)
	}
	o = reopen(m, w)
	sent := bytes.Clone(o.state.Closing)
	if sent == nil {
		t.Fatal("what was sent is not kept")
	}
	o.wire.owners = owners
	if err := o.CloseAccount(ctx); !errors.Is(err, ErrUntold) || !o.Closed() {
		t.Fatalf("past the storefront: %v", err)
	}
	w.wantRefusal(r, o, "note", policies.CodeRevoked)
	// When it answers again it is told, deletes what it has, and the device may forget; also if the answer is lost.
	w.hostile(nil)
	o = reopen(m, w)
	w.must(o.CloseAccount(ctx))
	w.must(o.CloseAccount(ctx))
	if !bytes.Equal(sent, o.state.Closing) {
		t.Error("another document was sent the second time")
	}
	if v := w.read(r, o, "note"); v.Err == nil {
		t.Errorf("read %q", v.Bytes)
	}
}

// TestCloseAccountOfTwo: the second device of a closed account may close it too, and then forget its keys; also if the first told the vault alone: the storefront hears of it by the second.
func TestCloseAccountOfTwo(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	for _, away := range []bool{false, true} {
		o, _ := w.owner()
		r, _ := w.reader("R")
		w.must(o.Set(ctx, set("note", "n")))
		w.connect(o, r, "r")
		w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
		two := second(t, w, o)
		if away {
			w.silent("/closure")
		}
		if err := o.CloseAccount(ctx); err != nil && !(away && errors.Is(err, ErrUntold)) {
			t.Fatal(err)
		}
		if away {
			if err := two.CloseAccount(ctx); !errors.Is(err, ErrUntold) || !two.Closed() {
				t.Fatalf("while the storefront is silent: %v", err)
			}
			w.hostile(nil)
		}
		w.must(two.CloseAccount(ctx))
		if !two.Closed() {
			t.Error("the second device does not know that the account is closed")
		}
		w.wantRefusal(r, o, "note", policies.CodeNoGrant)
		if err := two.Sync(ctx); !errors.Is(err, policies.CodeClosed) {
			t.Errorf("the storefront was told by the first: %t: %v", !away, err)
		}
		w.must(o.CloseAccount(ctx))
	}
	// Nothing is closed, and the storefront says so.
	o, _ := w.owner()
	w.must(o.Set(ctx, set("note", "n")))
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/closure") {
			problem.Write(rw, policies.CodeClosed)
			return
		}
		next.ServeHTTP(rw, r)
	})
	w.secondRoute(false)
	if err := o.CloseAccount(ctx); !errors.Is(err, ErrNotStopped) || o.Closed() {
		t.Errorf("the storefront says that it is closed, and the vault nothing: %v", err)
	}
	w.secondRoute(true)
	if err := o.CloseAccount(ctx); err != nil || !o.Closed() {
		t.Errorf("the vault has it: %v", err)
	}
}
