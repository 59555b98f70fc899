package client

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
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

// TestRevokingInAClosedAccount: what one device waits to revoke when another closes the account has ended with it. The device says so once it has it from the vault itself, and not NOT STOPPED YET for
// ever; on the storefront's word alone it goes on waiting, for a revocation would be forgotten by it.
func TestRevokingInAClosedAccount(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n"), set("tax.id", "t")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note", "tax.id"}, GrantOptions{}))
	w.must(o.GrantWrite(ctx, r.ID(), []policies.Field{"phone"}, GrantOptions{}))
	two := second(t, w, o)
	w.must(two.Sync(ctx))
	// A lie first.
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, "/owners/") {
			problem.Write(rw, policies.CodeClosed)
			return
		}
		next.ServeHTTP(rw, r)
	})
	w.reachable(false)
	if err := two.Revoke(ctx, r.ID(), []policies.Field{"note"}, RevokeOptions{}); !errors.Is(err, ErrNotStopped) || !two.Unstopped() {
		t.Fatalf("the storefront says that the account is closed: %v", err)
	}
	if err := two.Set(ctx, set("note", "m")); !errors.Is(err, ErrNotStopped) || !two.Unstopped() {
		t.Fatalf("and again: %v", err)
	}
	w.hostile(nil)
	w.must(o.CloseAccount(ctx))
	if err := two.Finish(ctx); !errors.Is(err, ErrNotStopped) || !two.Unstopped() {
		t.Fatalf("the vault itself has not said it: %v", err)
	}
	w.reachable(true)
	ended := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrEnded) || !errors.Is(err, policies.CodeClosed) || errors.Is(err, ErrNotStopped) || errors.Is(err, ErrNotRotated) || two.Unstopped() || len(two.state.Tasks) != 0 {
			t.Errorf("%s: %v, %d tasks", what, err, len(two.state.Tasks))
		}
	}
	ended("what waited", two.Finish(ctx))
	ended("another one", two.Revoke(ctx, r.ID(), []policies.Field{"tax.id"}, RevokeOptions{}))
	ended("of what nobody has", two.Revoke(ctx, r.ID(), []policies.Field{"iban"}, RevokeOptions{}))
	ended("the end of writing", two.EndWrite(ctx, r.ID(), nil))
	ended("of what nobody may write", two.EndWrite(ctx, r.ID(), []policies.Field{"note"}))
	_, err := two.Stop(ctx, r.ID(), nil)
	ended("a withdrawal", err)
	if n := len(two.state.Mail.Stops); n != 0 {
		t.Errorf("%d withdrawals wait to be told", n)
	}
	w.must(two.CloseAccount(ctx))
	// The device that closed it needs nobody to say so.
	w.reachable(false)
	if err := o.Revoke(ctx, r.ID(), []policies.Field{"note"}, RevokeOptions{}); !errors.Is(err, ErrEnded) || o.Unstopped() {
		t.Errorf("on the device that closed it: %v", err)
	}
}

// TestCloseAccountWhoseAnswerIsLost: without a second route too, a device that closed the account and did not hear of it gets the vault's receipt by the storefront, although nobody can log in to the account any more. One
// whose closing came second has no such proof, and says so.
func TestCloseAccountWhoseAnswerIsLost(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	w.must(o.Set(ctx, set("note", "n")))
	two := second(t, w, o)
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/closure") {
			next.ServeHTTP(httptest.NewRecorder(), r)
			http.Error(rw, "silence", http.StatusBadGateway)
			return
		}
		next.ServeHTTP(rw, r)
	})
	o.wire.owners = nil
	if err := o.CloseAccount(ctx); !errors.Is(err, ErrNotStopped) || o.Closed() {
		t.Fatalf("its answer is lost: %v", err)
	}
	w.hostile(nil)
	// A storefront that only says so proves nothing.
	w.silent("/successions")
	o = reopen(m, w)
	o.wire.owners = nil
	if err := o.CloseAccount(ctx); !errors.Is(err, ErrNotStopped) || o.Closed() {
		t.Errorf("the storefront's word: %v", err)
	}
	w.hostile(nil)
	if err := o.CloseAccount(ctx); err != nil || !o.Closed() || !reopen(m, w).Closed() {
		t.Errorf("it is closed, and the vault's receipt is there: %v", err)
	}
	two.wire.owners = nil
	if err := two.CloseAccount(ctx); !errors.Is(err, ErrNotStopped) || !errors.Is(err, policies.CodeClosed) || two.Closed() {
		t.Errorf("the other device, which nobody proves it to: %v", err)
	}
}
