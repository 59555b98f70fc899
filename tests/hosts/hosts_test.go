//go:build root

package hosts

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
)

// Bounds that the README promises.
const (
	answerBound   = 16 * time.Second // a reader waits no longer for an answer, whatever it is
	aloneBound    = 5 * time.Second  // what the storefront does alone
	recoveryBound = 10 * time.Second // from the moment on at which nothing is in the way any more, until every reader is served and the owner can publish
)

// TestHosts plays everything that can happen between machines, one after the other, in one Sallyport under traffic.
func TestHosts(t *testing.T) {
	w := newTown(t)
	for range *rounds {
		t.Run("ports", w.ports)
		for _, f := range w.failures() {
			if f.long && !*every {
				continue
			}
			t.Run("vault/"+f.name, func(t *testing.T) { w.vaultAway(t, f) })
		}
		for _, f := range w.absences() {
			if f.long && !*every {
				continue
			}
			t.Run("storefront/"+f.name, func(t *testing.T) { w.storefrontAway(t, f) })
		}
	}
}

// failure is something that comes between the storefront and the vault, or between people and the storefront.
type failure struct {
	name   string
	strike func() error
	hold   time.Duration
	heal   func() error
	serves bool // readers are served while it lasts
	long   bool // played only with -every
}

func (w *town) failures() []failure {
	vault := wires.vault
	return []failure{
		{name: "killed", hold: 3 * time.Second,
			strike: func() error { w.s.Vault.Kill(); return nil },
			heal:   func() error { return w.s.Vault.Start(w.t.Context()) }},
		{name: "link down", hold: 6 * time.Second,
			strike: func() error { return vault.link("to-storefront", "down") },
			heal:   func() error { return vault.link("to-storefront", "up") }},
		{name: "black hole for a moment", hold: 2 * time.Second,
			strike: func() error { return vault.lose("to-storefront") },
			heal:   func() error { return vault.lose() }},
		{name: "black hole", hold: 10 * time.Second,
			strike: func() error { return vault.lose("to-storefront") },
			heal:   func() error { return vault.lose() }},
		{name: "half-open connections", hold: time.Second,
			strike: func() error {
				if err := wires.storefront.forsake(vaultPort); err != nil {
					return err
				}
				w.s.Vault.Kill()
				return nil
			},
			heal: func() error { return w.s.Vault.Start(w.t.Context()) }}, // and what was forsaken stays so
		{name: "restarted behind a link that is down", hold: 4 * time.Second,
			strike: func() error {
				if err := errors.Join(wires.storefront.forsake(""), vault.link("to-storefront", "down")); err != nil {
					return err
				}
				w.s.Vault.Kill()
				return w.s.Vault.Start(w.t.Context())
			},
			heal: func() error { return vault.link("to-storefront", "up") }},
		{name: "hangs", hold: 17 * time.Second, long: true,
			strike: func() error { return w.s.Vault.Signal(syscall.SIGSTOP) },
			heal:   func() error { return w.s.Vault.Signal(syscall.SIGCONT) }},
		{name: "slow link", hold: 4 * time.Second, serves: true,
			strike: func() error {
				return errors.Join(vault.narrow("to-storefront", "256kbit"), wires.storefront.narrow("to-vault", "256kbit"))
			},
			heal: func() error { return errors.Join(vault.widen("to-storefront"), wires.storefront.widen("to-vault")) }},
	}
}

// vaultAway: readers get an answer in time, the right one, and nobody waits longer; what needs no vault is served; nothing that was acknowledged
// is lost; and when nothing is in the way any more, everybody is served by itself.
func (w *town) vaultAway(t *testing.T, f failure) {
	w.t = t
	r := w.live()
	t.Cleanup(r.halt)
	calm := time.Now()
	until(t, recoveryBound, "readers are served and the owner can publish, before anything happens", func() bool { return r.served(calm) == len(r.visits) && r.wrote(calm) })
	begin := time.Now()
	must(t, f.strike())
	alone := time.Duration(0)
	if f.hold >= 3*time.Second && !f.serves {
		time.Sleep(time.Second)
		if alone = w.withoutVault(); alone > aloneBound {
			t.Errorf("what needs no vault took %s", alone)
		}
	}
	time.Sleep(time.Until(begin.Add(f.hold)))
	if f.serves && r.served(begin) == 0 {
		t.Error("no reader was served")
	}
	must(t, f.heal())
	healed := time.Now()
	first := until(t, recoveryBound, "a reader is served again", func() bool { return r.served(healed) > 0 })
	all := first + until(t, recoveryBound-first, "all readers are served again", func() bool { return r.served(healed) == len(r.visits) })
	wrote := all + until(t, recoveryBound, "the owner can publish again", func() bool { return r.wrote(healed) })
	if wrote > recoveryBound {
		t.Errorf("the owner could publish only after %s", wrote)
	}
	longest, refused := r.end(t)
	if longest > answerBound {
		t.Errorf("a reader waited %s", longest)
	}
	w.settle(t)
	t.Logf("| %s | %s | %d, %.1f s | %.1f s | %.1f s, %.1f s | %.1f s |", f.name, f.hold, refused, longest.Seconds(), alone.Seconds(), first.Seconds(), all.Seconds(), wrote.Seconds())
}

// settle: everything that the owner was told, and all that it wanted, is there.
func (w *town) settle(t *testing.T) {
	t.Helper()
	must(t, w.owner.Sync(t.Context()))
	for _, r := range w.readers {
		value, err := r.Value(t.Context(), w.owner.ID(), busy)
		if err != nil {
			t.Errorf("a reader, when all is well: %v", err)
		} else if got := number(t, value); got < w.acked.Load() {
			t.Errorf("a reader is given value %d of %d", got, w.acked.Load())
		}
	}
}

func (w *town) absences() []failure {
	people := wires.people
	return []failure{
		{name: "killed",
			strike: func() error { w.s.Storefront.Kill(); return nil },
			heal:   func() error { return w.s.Storefront.Start(w.t.Context()) }},
		{name: "link down",
			strike: func() error { return wires.storefront.link("to-people", "down") },
			heal:   func() error { return wires.storefront.link("to-people", "up") }},
		{name: "black hole",
			strike: func() error { return people.lose("to-storefront") },
			heal:   func() error { return people.lose() }},
		{name: "hangs", long: true,
			strike: func() error { return w.s.Storefront.Signal(syscall.SIGSTOP) },
			heal:   func() error { return w.s.Storefront.Signal(syscall.SIGCONT) }},
		{name: "half-open connections", long: true,
			strike: func() error {
				if err := people.forsake(storefrontPort); err != nil {
					return err
				}
				w.s.Storefront.Kill()
				return nil
			},
			heal: func() error { return w.s.Storefront.Start(w.t.Context()) }},
	}
}

// storefrontAway: with the storefront away, owners revoke by the second route, with the vault's receipt; from then on the reader is refused, before
// the owner's device has told the storefront anything; and when it has, everything agrees again.
func (w *town) storefrontAway(t *testing.T, f failure) {
	w.t = t
	ctx, field := t.Context(), policies.Field("own/a")
	victim, other := w.readers[0], w.readers[1]
	for _, r := range w.readers {
		_, err := r.Value(ctx, w.owner.ID(), field)
		must(t, err)
	}
	must(t, f.strike())
	begin := time.Now()
	err := w.owner.Revoke(ctx, victim.ID(), []policies.Field{field}, client.RevokeOptions{})
	stopped := time.Since(begin)
	if err != nil && !errors.Is(err, client.ErrNotRotated) {
		t.Errorf("revoking by the second route: %v", err)
	}
	must(t, f.heal())
	healed := time.Now()
	var code error
	refused := until(t, 30*time.Second, "the reader gets an answer of the storefront", func() bool {
		value, err := victim.Value(ctx, w.owner.ID(), field)
		if err == nil {
			t.Fatalf("a reader that was stopped is given %q", value)
		}
		code = err
		return !errors.Is(err, policies.CodeUnavailable)
	})
	if !errors.Is(code, policies.CodeRevoked) {
		t.Errorf("the reader is told: %v", code)
	}
	must(t, w.owner.Sync(ctx))
	agreed := time.Since(healed)
	if _, err := victim.Value(ctx, w.owner.ID(), field); !errors.Is(err, policies.CodeRevoked) && !errors.Is(err, policies.CodeNoGrant) {
		t.Errorf("after the owner's sync the reader is told: %v", err)
	}
	if value, err := other.Value(ctx, w.owner.ID(), field); err != nil || value != "a" {
		t.Errorf("another reader is given %q: %v", value, err)
	}
	must(t, w.owner.Grant(ctx, victim.ID(), []policies.Field{field}, client.GrantOptions{})) // the chain goes on
	t.Logf("| %s | %.1f s | %.1f s | %.1f s |", f.name, stopped.Seconds(), refused.Seconds(), agreed.Seconds())
	must(t, wires.people.forsake(""))
}
