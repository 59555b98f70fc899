package client

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
)

// What waits in the queue of a device was wanted when it was put there. It undoes nothing that the person decided since, on this device or another.

// wantNoWriter has a writer try.
func (w *world) wantNoWriter(o *Owner, r *Reader, f policies.Field) {
	w.t.Helper()
	if err := r.Write(w.t.Context(), o.ID(), set(f, "not wanted")); !errors.Is(err, policies.CodeWriteEnded) && !errors.Is(err, policies.CodeNoWriteGrant) {
		w.t.Errorf("%s is written: %v", f, err)
	}
}

// TestNoAnswerDropsARevocation: whatever a storefront says of a revocation, it is kept until the vault has it.
func TestNoAnswerDropsARevocation(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, _ := w.household(1)
	w.must(o.GrantWrite(ctx, acme.ID(), []policies.Field{"own/f0"}, GrantOptions{}))
	w.secondRoute(false)
	for _, code := range []policies.Code{policies.CodeSuccessionPending, policies.CodeMalformed, policies.CodeNotFound, policies.CodeUnknown} {
		w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/revocations") && !strings.HasSuffix(r.URL.Path, "/write-ends") {
				next.ServeHTTP(rw, r)
				return
			}
			problem.Write(rw, code)
		})
		if err := o.Revoke(ctx, acme.ID(), nil, RevokeOptions{}); !errors.Is(err, ErrNotStopped) || errors.Is(err, ErrNotRotated) || !o.Unstopped() {
			t.Errorf("%s: %v", code, err)
		}
		if err := o.EndWrite(ctx, acme.ID(), nil); !errors.Is(err, ErrNotStopped) {
			t.Errorf("%s: %v", code, err)
		}
	}
	w.hostile(nil)
	w.secondRoute(true)
	w.must(o.Sync(ctx))
	w.wantRefusal(acme, o, "own/f0", policies.CodeRevoked)
	w.wantNoWriter(o, acme, "own/f0")
}
