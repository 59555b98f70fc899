package fault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// household is an owner and two readers who do at random what such people do, all three at the same time, and a model of what must hold
// whatever is taken away from under them.
type household struct {
	name    string
	owner   *devices.Person
	readers [2]*devices.Firm
	fields  []policies.Field
	random  [3]*rand.Rand   // of the owner and of each reader; a goroutine each
	excuses []policies.Code // what they may be told while something is away
	full    atomic.Int64    // how often they were told that the log's disk is full

	mu            sync.Mutex
	issued, acked map[policies.Field]int // number of the newest value that Set was called with, and that Set acknowledged
	mayRead       [2]map[policies.Field]permission
	seen          [2]map[policies.Field]int // the newest value that a reader has had
	told          []release                 // what readers were given since the log was last looked at
	log           []string                  // what was done, for a failure's report
	wrong         []string                  // what may not be
	done, failed  int
	changing      int // how many changes the owner has begun and ended: odd while one is under way
}

var custodies = [2]policies.Custody{policies.CustodyResident, policies.CustodySealed}

// permission is what the owner asked for last. It is settled when the owner was told that it is in force. Its turn grows with each asking.
type permission struct {
	granted, settled bool
	turn             int
}

// release is a value that a reader was given, and where it was told that this is recorded.
type release struct {
	reader  policies.ReaderID
	owner   policies.OwnerID
	field   policies.Field
	version uint64
	index   uint64
}

func newHousehold(t *testing.T, s *stage.Stage, name string, seed uint64) *household {
	t.Helper()
	h := &household{name: name, fields: []policies.Field{"own/a", "own/b", "own/c", "own/d"}, issued: map[policies.Field]int{}, acked: map[policies.Field]int{}}
	h.excuses = []policies.Code{policies.CodeUnavailable, policies.CodeTokenFailure}
	for i := range h.random {
		h.random[i] = rand.New(rand.NewPCG(seed, uint64(i)))
	}
	values := map[policies.Field]string{}
	for _, f := range h.fields {
		h.issued[f], h.acked[f] = 1, 1
		values[f] = h.text(f, 1)
	}
	h.owner = devices.NewPerson(t, s, client.Options{}, values)
	for i := range h.readers {
		h.readers[i] = devices.NewFirm(t, s, fmt.Sprintf("%s's reader %d", name, i))
		h.mayRead[i], h.seen[i] = map[policies.Field]permission{}, map[policies.Field]int{}
		devices.Meet(t, h.owner, h.readers[i], fmt.Sprintf("reader%d", i))
		must(t, h.owner.Grant(t.Context(), h.readers[i].ID(), h.fields, client.GrantOptions{Custody: custodies[i]}))
		for _, f := range h.fields {
			h.mayRead[i][f] = permission{granted: true, settled: true}
		}
	}
	return h
}

func (h *household) text(f policies.Field, n int) string {
	return fmt.Sprintf("%s %s %d", h.name, f, n)
}

// note and fail are called with mu held.
func (h *household) note(format string, args ...any) {
	h.log = append(h.log, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	if len(h.log) > 60 {
		h.log = h.log[30:]
	}
}

func (h *household) fail(format string, args ...any) {
	h.wrong = append(h.wrong, fmt.Sprintf("%s: %s\n  before that:\n    %s", h.name, fmt.Sprintf(format, args...), strings.Join(h.log[max(0, len(h.log)-25):], "\n    ")))
}

// excused tells what somebody is told while something is away, from what nobody may ever be told.
func (h *household) excused(err error) bool {
	if errors.Is(err, policies.CodeLogFull) {
		h.full.Add(1)
	}
	return slices.ContainsFunc(h.excuses, func(c policies.Code) bool { return errors.Is(err, c) })
}

// live has all three do things until stop is closed.
func (h *household) live(ctx context.Context, stop <-chan struct{}) {
	var all sync.WaitGroup
	loop := func(random *rand.Rand, step func(context.Context) error) {
		for {
			select {
			case <-stop:
				return
			default:
				if err := step(ctx); err != nil { // nobody knocks a hundred times a second at a closed door
					time.Sleep(time.Duration(50+random.IntN(100)) * time.Millisecond)
				}
			}
		}
	}
	all.Go(func() { loop(h.random[0], h.change) })
	for i := range h.readers {
		all.Go(func() {
			loop(h.random[1+i], func(ctx context.Context) error {
				time.Sleep(time.Duration(h.random[1+i].IntN(20)) * time.Millisecond)
				return h.read(ctx, i)
			})
		})
	}
	all.Wait()
}

// ask notes that the owner wants something of a permission, and answer that it was told that it is so.
func (h *household) ask(i int, f policies.Field, granted bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mayRead[i][f] = permission{granted: granted, turn: h.mayRead[i][f].turn + 1}
}

func (h *household) settle(i int, f policies.Field) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.mayRead[i][f]
	p.settled = true
	p.turn++
	h.mayRead[i][f] = p
}

func (h *household) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changing++
}

// change has the owner do one thing.
func (h *household) change(ctx context.Context) error {
	random := h.random[0]
	i, f := random.IntN(2), h.fields[random.IntN(len(h.fields))]
	var err error
	var what string
	h.begin()
	switch kind := random.IntN(7); {
	case kind < 3:
		var changes []client.Change
		h.mu.Lock()
		for _, f := range h.fields[:1+random.IntN(len(h.fields))] {
			h.issued[f]++
			changes = append(changes, client.Change{Field: f, Value: []byte(h.text(f, h.issued[f]))})
		}
		newest := maps.Clone(h.issued)
		h.mu.Unlock()
		if err = h.owner.Set(ctx, changes...); err == nil {
			h.mu.Lock()
			for _, c := range changes {
				h.acked[c.Field] = newest[c.Field]
			}
			h.mu.Unlock()
		}
		what = fmt.Sprintf("set %d fields", len(changes))
	case kind < 5:
		h.mu.Lock()
		before := h.mayRead[i][f]
		h.mu.Unlock()
		h.ask(i, f, true)
		switch err = h.owner.Grant(ctx, h.readers[i].ID(), []policies.Field{f}, client.GrantOptions{Custody: custodies[random.IntN(2)]}); {
		case err == nil:
			h.settle(i, f)
		case errors.Is(err, policies.CodeImport): // refused for good: it is as it was
			h.mu.Lock()
			h.mayRead[i][f] = permission{granted: before.granted, settled: before.settled, turn: before.turn + 2}
			h.mu.Unlock()
		}
		what = fmt.Sprintf("grant %s to %d", f, i)
	case kind < 6:
		h.mu.Lock()
		granted := h.mayRead[i][f].granted
		h.mu.Unlock()
		if granted {
			h.ask(i, f, false)
			err = h.owner.Revoke(ctx, h.readers[i].ID(), []policies.Field{f}, client.RevokeOptions{KeepEpoch: random.IntN(2) == 0})
			if err == nil || errors.Is(err, client.ErrNotRotated) {
				h.settle(i, f)
			}
		}
		what = fmt.Sprintf("revoke %s from %d (granted: %t)", f, i, granted)
	default:
		err = h.owner.Rotate(ctx, f)
		what = fmt.Sprintf("rotate %s", f)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changing++
	h.note("%s: %v", what, err)
	h.done++
	if err != nil {
		h.failed++
		if !h.excused(err) {
			h.fail("%s: %v", what, err)
		}
	}
	return err
}

// read reads all fields and holds them against the model: no acknowledged value is lost, no revocation undone, and no grant lost either. What the
// owner changed meanwhile may be or not.
//
// Who reads while the owner moves a field again and again may meet an end of a grant twice in a row, which is how often the SDK asks. That is no loss if it
// can be read when it is asked for anew.
func (h *household) read(ctx context.Context, i int) error { return h.readAgain(ctx, i, 3) }

func (h *household) readAgain(ctx context.Context, i, left int) error {
	var items []client.Item
	for _, f := range h.fields {
		items = append(items, client.Item{Owner: h.owner.ID(), Field: f})
	}
	h.mu.Lock()
	acked, may, before := maps.Clone(h.acked), maps.Clone(h.mayRead[i]), h.changing
	h.mu.Unlock()
	values, err := h.readers[i].Read(ctx, items...)
	h.mu.Lock()
	unlock := sync.OnceFunc(h.mu.Unlock)
	defer unlock()
	h.note("read by %d: %v", i, err)
	h.done++
	if err != nil {
		h.failed++
		if !h.excused(err) {
			h.fail("read by %d: %v", i, err)
		}
		return err
	}
	moving, again := before%2 == 1 || before != h.changing, false
	for n, v := range values {
		f := h.fields[n]
		p, same := may[f], may[f] == h.mayRead[i][f]
		h.note("  %s: %q %v", f, v.Bytes, v.Err)
		switch {
		case v.Err == nil:
			if same && p.settled && !p.granted {
				h.fail("a revocation was undone: reader %d has %s", i, f)
			}
			var number int
			if text := string(v.Bytes); !strings.HasPrefix(text, h.name+" "+string(f)+" ") {
				h.fail("%s opened as %q", f, text)
			} else if _, err := fmt.Sscanf(text[strings.LastIndexByte(text, ' ')+1:], "%d", &number); err != nil || number < acked[f] || number > h.issued[f] {
				h.fail("reader %d has %s as %q; %d was acknowledged, %d is the newest", i, f, text, acked[f], h.issued[f])
			}
			if number < h.seen[i][f] {
				h.fail("reader %d has %s as number %d and had %d", i, f, number, h.seen[i][f])
			}
			h.seen[i][f] = max(number, h.seen[i][f])
			h.told = append(h.told, release{h.readers[i].ID(), v.Owner, f, v.Version, v.Index})
		case h.excused(v.Err):
			err = v.Err
			h.failed++
		case errors.Is(v.Err, policies.CodeRevoked) || errors.Is(v.Err, policies.CodeNoGrant):
			if same && p.settled && p.granted && moving && left > 0 {
				again = true
			} else if same && p.settled && p.granted {
				h.fail("a grant was lost: reader %d is refused %s: %v", i, f, v.Err)
			}
		case errors.Is(v.Err, policies.CodeHeadMoved) && moving:
			// The owner was faster than two attempts.
		default:
			h.fail("reader %d, %s: %v", i, f, v.Err)
		}
	}
	if again {
		unlock()
		return h.readAgain(ctx, i, left-1)
	}
	return err
}

// look has both readers read while the owner's device is silent: what was acknowledged must be there without its help.
func (h *household) look(ctx context.Context) {
	for i := range h.readers {
		if err := h.read(ctx, i); err != nil {
			h.mu.Lock()
			h.fail("with everything running again, reader %d: %v", i, err)
			h.mu.Unlock()
		}
	}
}

// calm demands that everything works again and that everything which was begun is finished.
func (h *household) calm(ctx context.Context) {
	h.look(ctx)
	err := h.owner.Sync(ctx)
	h.mu.Lock()
	h.note("sync: %v", err)
	if err != nil {
		h.fail("with everything running again, sync: %v", err)
		h.mu.Unlock()
		return
	}
	for f := range h.issued {
		h.acked[f] = h.issued[f]
		for i := range h.readers {
			p := h.mayRead[i][f]
			p.settled = true
			h.mayRead[i][f] = p
		}
	}
	h.mu.Unlock()
	h.look(ctx)
}

// take hands over what was told, and what was found wrong.
func (h *household) take() (told []release, wrong []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	told, wrong = h.told, h.wrong
	h.told, h.wrong = nil, nil
	return told, wrong
}

// keys is how many keys are in force by the owner's device, in each custody.
func (h *household) keys(t *testing.T) (resident, sealed int) {
	for _, g := range h.owner.Drawer.Look(t).Grants {
		if n := len(g.Doc.Fields) - len(g.Ended); g.Doc.Custody == policies.CustodySealed {
			sealed += n
		} else {
			resident += n
		}
	}
	return resident, sealed
}

// ended picks up to three fields of grants that have ended, each with its reader.
func (h *household) ended(t *testing.T) (out []endedItem) {
	for _, g := range h.owner.Drawer.Look(t).Grants {
		for _, e := range g.Ended {
			i := slices.IndexFunc(h.readers[:], func(f *devices.Firm) bool { return f.ID() == g.Doc.Reader })
			out = append(out, endedItem{i, e.Grant, e.Field})
		}
	}
	h.random[0].Shuffle(len(out), func(a, b int) { out[a], out[b] = out[b], out[a] })
	return out[:min(3, len(out))]
}

type endedItem struct {
	reader int
	grant  policies.DocumentID
	field  policies.Field
}
