package client

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
)

// TestNeedlessThaw: who ends what is not stopped is told so. A thaw that could not be sent is kept, and when another device came first it is done and nobody is
// told that it failed; but not on the word of the storefront.
func TestNeedlessThaw(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	w.must(o.Set(ctx, set("note", "n")))
	if err := o.Thaw(ctx); !errors.Is(err, policies.CodeNotFound) {
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
	w.reachable(true)
	w.must(o.Sync(ctx))
	w.hostile(nil)
	w.must(o.Set(ctx, set("note", "o")))
}
