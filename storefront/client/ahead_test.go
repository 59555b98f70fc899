package client

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
)

// TestGrantAheadOfALostOne: while the first grant of a replacement is on its way the second is made and stored. The first is lost, or its answer is, or it is refused, and
// the device is killed or goes on. Nothing is lost or doubled, and a second one that does not fit any more is never in force.
func TestGrantAheadOfALostOne(t *testing.T) {
	for _, c := range []struct {
		name   string
		passed bool // the vault accepts the first grant
		answer policies.Code
		killed bool
	}{
		{"lost, killed", false, "", true},
		{"accepted, killed", true, "", true},
		{"lost", false, "", false},
		{"accepted", true, "", false},
		{"refused", false, policies.CodeGuardrail, false},
		{"refused, killed", false, policies.CodeGuardrail, true},
		{"another came first", false, policies.CodeChain, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, w := t.Context(), newWorld(t)
			o, m, acme, globex := w.household(2)
			keys, met := w.token.count(), false
			stored := func() (ahead int) { // grants whose documents are stored
				var s ownerState
				w.must(loadState(m, roleOwner, &s))
				for i := range s.Tasks {
					if s.Tasks[i].Kind == taskGrant && s.Tasks[i].Envelope != nil {
						ahead++
					}
				}
				return ahead
			}
			w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
				if !strings.HasSuffix(r.URL.Path, "/grants") || met {
					next.ServeHTTP(rw, r)
					return
				}
				met = true
				for begun := time.Now(); stored() < 2 && time.Since(begun) < 20*time.Second; {
					time.Sleep(time.Millisecond)
				}
				if got := stored(); got != 2 {
					t.Errorf("%d grants are stored, want 2", got)
				}
				if c.passed {
					next.ServeHTTP(httptest.NewRecorder(), r)
				}
				if c.killed {
					m.mu.Lock()
					m.limit = m.saves
					m.mu.Unlock()
				}
				if c.answer != "" {
					problem.Write(rw, problem.New(c.answer, "so it says"))
					return
				}
				http.Error(rw, "silence", http.StatusBadGateway)
			})
			if err := o.Replace(ctx, stolen(), keep(new([]byte))); err == nil {
				t.Fatal("it was not lost")
			} else if c.killed && !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			w.hostile(nil)
			m.mu.Lock()
			m.limit = 0
			m.mu.Unlock()
			if c.killed {
				o = reopen(m, w)
			} else if got := stored(); got > 1 {
				t.Fatalf("%d grants count as sent, and one was", got)
			}
			w.must(o.Sync(ctx))
			w.must(o.Sync(ctx))
			if o.former != nil || len(o.state.Tasks) != 0 {
				t.Fatalf("%d tasks are left", len(o.state.Tasks))
			}
			if grants := o.Grants(false); len(grants) != 3 {
				t.Fatalf("%d grants are in force, want 3", len(grants))
			}
			if got := w.token.count(); got != keys {
				t.Fatalf("the token holds %d keys, want %d", got, keys)
			}
			w.wantRead(acme, o, "own/f1", "value 1")
			w.wantRead(globex, o, "own/f0", "value 0")
			if bytes.Contains(m.state, []byte(`"cancelled"`)) {
				t.Error("a grant counts as revoked")
			}
		})
	}
}
