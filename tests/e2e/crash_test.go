package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/stage"
)

// crashRounds is how often the daemons are killed.
const crashRounds = 30

// household is an owner and two readers who do at random what such people do, and a model of what must hold whatever is killed
// meanwhile. One goroutine uses it at a time.
type household struct {
	t       *testing.T
	name    string
	owner   *person
	readers [2]*firm
	random  *rand.Rand
	fields  []policies.Field

	issued, acked map[policies.Field]int // number of the newest value that Set was called with, and that Set acknowledged
	mayRead       [2]map[policies.Field]permission
	log           []string // what was done, for a failure's report
	done, failed  int
}

// permission is what the owner asked for last. It is settled when the owner was told that it is in force.
type permission struct{ granted, settled bool }

func newHousehold(t *testing.T, s *stage.Stage, name string, seed uint64) *household {
	h := &household{
		t: t, name: name, random: rand.New(rand.NewPCG(seed, 1)), fields: []policies.Field{"own/a", "own/b", "own/c", "own/d"},
		issued: map[policies.Field]int{}, acked: map[policies.Field]int{},
	}
	values := map[policies.Field]string{}
	for _, f := range h.fields {
		h.issued[f], h.acked[f] = 1, 1
		values[f] = h.text(f, 1)
	}
	h.owner = newPerson(t, s, values)
	for i := range h.readers {
		h.readers[i], h.mayRead[i] = newFirm(t, s, fmt.Sprintf("%s's reader %d", name, i)), map[policies.Field]permission{}
		meet(t, h.owner, h.readers[i], fmt.Sprintf("reader%d", i))
		must(t, h.owner.Grant(t.Context(), h.readers[i].ID(), h.fields, client.GrantOptions{}))
		for _, f := range h.fields {
			h.mayRead[i][f] = permission{true, true}
		}
	}
	return h
}

func (h *household) text(f policies.Field, n int) string {
	return fmt.Sprintf("%s %s %d", h.name, f, n)
}

func (h *household) note(format string, args ...any) {
	h.log = append(h.log, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (h *household) fail(format string, args ...any) {
	h.t.Helper()
	h.t.Errorf("%s: %s\nbefore that:\n  %s", h.name, fmt.Sprintf(format, args...), strings.Join(h.log[max(0, len(h.log)-12):], "\n  "))
}

// excused tells what somebody is told while a daemon is away, from what nobody may ever be told.
func excused(err error) bool { return errors.Is(err, policies.CodeUnavailable) }

// step does one thing.
func (h *household) step(ctx context.Context) {
	i, f := h.random.IntN(2), h.fields[h.random.IntN(len(h.fields))]
	var err error
	switch kind := h.random.IntN(10); {
	case kind < 3:
		var changes []client.Change
		for _, f := range h.fields[:1+h.random.IntN(len(h.fields))] {
			h.issued[f]++
			changes = append(changes, client.Change{Field: f, Value: []byte(h.text(f, h.issued[f]))})
		}
		if err = h.owner.Set(ctx, changes...); err == nil {
			for _, c := range changes {
				h.acked[c.Field] = h.issued[c.Field]
			}
		}
		h.note("set %d fields: %v", len(changes), err)
	case kind < 5:
		h.mayRead[i][f] = permission{true, false}
		if err = h.owner.Grant(ctx, h.readers[i].ID(), []policies.Field{f}, client.GrantOptions{}); err == nil {
			h.mayRead[i][f] = permission{true, true}
		}
		h.note("grant %s to %d: %v", f, i, err)
	case kind < 6:
		if !h.mayRead[i][f].granted {
			return
		}
		h.mayRead[i][f] = permission{false, false}
		err = h.owner.Revoke(ctx, h.readers[i].ID(), []policies.Field{f}, client.RevokeOptions{KeepEpoch: h.random.IntN(2) == 0})
		if err == nil || errors.Is(err, client.ErrNotRotated) {
			h.mayRead[i][f] = permission{false, true}
		}
		h.note("revoke %s from %d: %v", f, i, err)
	case kind < 7:
		err = h.owner.Rotate(ctx, f)
		h.note("rotate %s: %v", f, err)
	default:
		err = h.read(ctx, i)
	}
	h.done++
	if err != nil {
		h.failed++
		if !excused(err) {
			h.fail("%v", err)
		}
	}
}

// read reads all fields and holds them against the model: no acknowledged value is lost, no revocation undone.
func (h *household) read(ctx context.Context, i int) error {
	var items []client.Item
	for _, f := range h.fields {
		items = append(items, client.Item{Owner: h.owner.ID(), Field: f})
	}
	values, err := h.readers[i].Read(ctx, items...)
	h.note("read by %d: %v", i, err)
	if err != nil {
		return err
	}
	for n, v := range values {
		f, p := h.fields[n], h.mayRead[i][h.fields[n]]
		h.note("  %s: %q %v", f, v.Bytes, v.Err)
		switch {
		case v.Err == nil:
			if p.settled && !p.granted {
				h.fail("a revocation was undone: reader %d has %s", i, f)
			}
			var number int
			if text := string(v.Bytes); !strings.HasPrefix(text, h.name+" "+string(f)+" ") {
				h.fail("%s opened as %q", f, text)
			} else if _, err := fmt.Sscanf(text[strings.LastIndexByte(text, ' ')+1:], "%d", &number); err != nil || number < h.acked[f] || number > h.issued[f] {
				h.fail("%s is %q; %d was acknowledged, %d is the newest", f, text, h.acked[f], h.issued[f])
			}
		case excused(v.Err):
			err = v.Err
		case errors.Is(v.Err, policies.CodeRevoked) || errors.Is(v.Err, policies.CodeNoGrant):
			if p.settled && p.granted {
				h.fail("a grant was lost: reader %d is refused %s: %v", i, f, v.Err)
			}
		default:
			h.fail("reader %d, %s: %v", i, f, v.Err)
		}
	}
	return err
}

// calm demands that everything works again and that everything which was begun is finished.
func (h *household) calm(ctx context.Context) {
	if err := h.owner.Sync(ctx); err != nil {
		h.fail("with everything running again, sync: %v", err)
		return
	}
	for f := range h.issued {
		h.acked[f] = h.issued[f]
		for i := range h.readers {
			h.mayRead[i][f] = permission{h.mayRead[i][f].granted, true}
		}
	}
	for i := range h.readers {
		if err := h.read(ctx, i); err != nil {
			h.fail("with everything running again, reader %d: %v", i, err)
		}
	}
}

// TestCrashes kills vault, storefront or both at random moments under a mixed load, starts them again with no repair in between, and goes
// on. No acknowledged write is lost, no revocation undone, and what was half done is finished or undone.
func TestCrashes(t *testing.T) {
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	ctx := t.Context()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	households := []*household{newHousehold(t, s, "Ana", seed+1), newHousehold(t, s, "Bo", seed+2), newHousehold(t, s, "Cem", seed+3)}

	for round := range crashRounds {
		stop := make(chan struct{})
		var load sync.WaitGroup
		for _, h := range households {
			load.Go(func() {
				failed := h.failed
				for {
					select {
					case <-stop:
						return
					default:
						h.step(ctx)
						if h.failed > failed { // nobody knocks a hundred times a second at a closed door
							failed = h.failed
							time.Sleep(time.Duration(50+h.random.IntN(100)) * time.Millisecond)
						}
					}
				}
			})
		}
		time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond) // the moment of the crash
		killed := [][]*stage.Daemon{{s.Vault}, {s.Storefront}, {s.Vault, s.Storefront}}[random.IntN(3)]
		for _, d := range killed {
			d.Kill()
		}
		time.Sleep(time.Duration(random.IntN(50)) * time.Millisecond)
		for _, d := range killed {
			must(t, d.Start(ctx))
		}
		close(stop)
		load.Wait()
		for _, h := range households {
			h.calm(ctx)
		}
		if t.Failed() {
			t.Fatalf("in round %d, after killing %d daemons, %s first", round, len(killed), killed[0].Name)
		}
	}

	// Nothing stays behind in the token, and nothing that is promised is missing in it.
	live, steps, failed := 0, 0, 0
	for _, h := range households {
		for _, g := range h.owner.drawer.look(t).Grants {
			live += len(g.Doc.Fields) - len(g.Ended)
		}
		steps, failed = steps+h.done, failed+h.failed
	}
	must(t, s.Vault.Stop())
	must(t, s.Vault.Start(ctx))
	health, err := newInsider(t, s, households[0].readers[0]).vault.Health(ctx)
	must(t, err)
	if health.Status != "ok" || int(health.Keys) != live {
		t.Errorf("the vault says %+v, %d keys are in force", health, live)
	}
	token := openToken(t, s)
	defer token.Close()
	keys, err := token.Keys(ctx)
	must(t, err)
	if len(keys) != live {
		t.Errorf("the token holds %d re-encryption keys, %d are in force", len(keys), live)
	}
	if failed == 0 || steps-failed < crashRounds {
		t.Errorf("%d operations, %d of which met a crash: nothing was tested", steps, failed)
	}
	t.Logf("%d operations, %d of which met a crash; %d keys in force at the end, %d entries in the log", steps, failed, live, len(journal(t, s)))
}
