package vault

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/keylog"
)

// TestClockStep: a clock that steps by more than 5 seconds, either way, ends key use with a reason of its own, for readers and for owners, and in
// the health. It does not come back by itself when the clock does: nobody knows what it was in between. A vault that is started again goes on.
func TestClockStep(t *testing.T) {
	for name, step := range map[string]time.Duration{"ahead": 6 * time.Second, "back": -6 * time.Second, "years": -20 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			o, r := w.owner(), w.reader()
			o.set("name", "n")
			g := o.grant(r, nil, "name")
			w.clock.step(4 * time.Second) // within what a clock is set by
			r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0])
			w.clock.step(-4 * time.Second)
			r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0])
			uses, size := w.token.count(), w.log.Checkpoint().Size

			w.clock.step(step)
			revocation, _ := o.revocationOf(nil, g, "name")
			for try := range 2 {
				c, _ := r.callOf(nil, ask{o, g, "name", 0})
				if reply := w.vault.Reencrypt(t.Context(), []api.Call{c})[0]; reply.Code != policies.CodeClock || reply.Sealed != nil {
					t.Fatalf("a read was answered %q", reply.Code)
				}
				if _, err := w.submit(revocation); problem.Of(err).Code != policies.CodeClock {
					t.Fatalf("a revocation was answered %v", err)
				}
				if h := w.vault.Health(); h.Status != "stopped" || h.Reason != keylog.ErrClock.Error() {
					t.Fatalf("health %+v", h)
				}
				if try == 0 {
					w.clock.step(-step) // too late
				}
			}
			if w.token.count() != uses || w.log.Checkpoint().Size != size {
				t.Fatal("a key was used, or something recorded, with a clock that stepped")
			}

			// A start with a clock before the newest entry is refused, and one with the right clock goes on.
			must(t, ignoreStop(w.vault.Close(t.Context())))
			must(t, w.log.Close())
			if step < 0 {
				w.clock.step(step)
				if _, err := keylog.Open(context.Background(), w.logConfig()); !errors.Is(err, keylog.ErrClock) {
					t.Fatalf("with a clock before the newest entry: %v", err)
				}
				w.clock.step(-step)
			}
			w.reopen(true)
			r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0])
		})
	}
}

// ignoreStop: a stopped log takes no record of the stop.
func ignoreStop(err error) error {
	if errors.Is(err, policies.CodeClock) {
		return nil
	}
	return err
}
