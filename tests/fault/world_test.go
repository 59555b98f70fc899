package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/vault/api"
)

// startBound is how long a daemon may take to serve again, on a machine that is busy with other tests, whose writes the token's syncfs waits for. The
// bound that is promised is 5 seconds on a quiet one; what was measured is in the output.
const startBound = 30 * time.Second

// world is a stage with three households, and what is known of its key-use log.
type world struct {
	t          *testing.T
	s          *stage.Stage
	seed       uint64
	random     *rand.Rand // moments and kinds of blows
	households []*household
	empty      int // objects in the token when no grant was in it
	shells     int // files in its folder that are none

	recorded []policies.Hash // commitments of the log's entries that were durable, by index
	used     []usedRequest   // requests that were answered before the blow
	opened   time.Time       // when their sessions were
	starts   map[string][]time.Duration
	served   []time.Duration // from the last start to the first value
	rounds   int
}

// usedRequest is a signed request that was answered once.
type usedRequest struct {
	caller  *devices.Insider
	request []byte
	offer   api.CallItem
	asked   time.Time
}

func newWorld(t *testing.T, s *stage.Stage, seed uint64) *world {
	t.Helper()
	w := &world{t: t, s: s, seed: seed, random: rand.New(rand.NewPCG(seed, 0)), starts: map[string][]time.Duration{}}
	w.empty = w.objects()
	for i, name := range []string{"Ana", "Bo", "Cem"} {
		w.households = append(w.households, newHousehold(t, s, name, seed+uint64(i)+1))
	}
	return w
}

// round has everybody live, strikes at a random moment, starts again what is down, and holds what is there then against what was acknowledged. It
// returns what is wrong.
func (w *world) round(strike func() (down []*stage.Daemon, err error)) (wrong []string) {
	ctx := w.t.Context()
	w.rounds++
	w.ask(ctx)
	stop := make(chan struct{})
	var load sync.WaitGroup
	for _, h := range w.households {
		load.Go(func() { h.live(ctx, stop) })
	}
	time.Sleep(time.Duration(w.random.IntN(400)) * time.Millisecond) // the moment of the blow
	down, err := strike()
	if err == nil {
		err = w.start(ctx, down)
	}
	if err == nil {
		err = w.first(ctx)
	}
	close(stop)
	load.Wait()
	if err != nil {
		return append(w.wrong(), err.Error())
	}
	for _, h := range w.households {
		h.look(ctx)
	}
	for _, h := range w.households {
		h.calm(ctx)
	}
	if wrong = w.wrong(); len(wrong) == 0 {
		wrong = w.audit(ctx)
	}
	return wrong
}

// first waits for the first answer to a reader, while everybody else goes on.
func (w *world) first(ctx context.Context) error {
	h := w.households[0]
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		values, err := h.readers[1].Read(ctx, client.Item{Owner: h.owner.ID(), Field: h.fields[0]})
		if err == nil {
			err = values[0].Err
		}
		took := time.Since(begin)
		if err == nil || errors.Is(err, policies.CodeRevoked) || errors.Is(err, policies.CodeNoGrant) {
			w.served = append(w.served, took)
			return nil
		}
		if took > startBound {
			return fmt.Errorf("%s after both daemons listened a reader is still told: %w", took, err)
		}
	}
}

// start starts daemons at once, as an init system would, and notes how long each took.
func (w *world) start(ctx context.Context, down []*stage.Daemon) error {
	errs, took := make([]error, len(down)), make([]time.Duration, len(down))
	var all sync.WaitGroup
	for i, d := range down {
		all.Go(func() {
			begin := time.Now()
			errs[i] = d.Start(ctx)
			took[i] = time.Since(begin)
		})
	}
	all.Wait()
	for i, d := range down {
		if errs[i] != nil {
			return errs[i]
		}
		if w.starts[d.Name] = append(w.starts[d.Name], took[i]); took[i] > startBound {
			return fmt.Errorf("the %s took %s to start", d.Name, took[i])
		}
	}
	return nil
}

// wrong collects what the households found.
func (w *world) wrong() (out []string) {
	for _, h := range w.households {
		_, wrong := h.take()
		out = append(out, wrong...)
	}
	return out
}

// ask sends, for one reader of each household, a request past the storefront, and keeps it to be sent again after the blow. Sessions are opened anew
// before they end by themselves; until then they are older than many a revocation.
func (w *world) ask(ctx context.Context) {
	if time.Since(w.opened) > policies.SessionLifetime/2 {
		w.opened, w.used = time.Now(), w.used[:0]
		for _, h := range w.households {
			w.used = append(w.used, usedRequest{caller: devices.NewInsider(w.t, w.s, h.readers[0])})
		}
	}
	for i, h := range w.households {
		u := &w.used[i]
		u.offer = h.owner.Drawer.Look(w.t).Offer(w.t, "own/a")
		u.request = u.caller.Request(w.t, client.DefaultPurpose, nil, policies.ReadItem{Owner: h.owner.ID(), Field: "own/a"})
		u.asked = time.Now()
		u.caller.Ask(w.t, u.request, u.offer)
	}
}

// audit holds the key-use log and the token against what everybody was told.
func (w *world) audit(ctx context.Context) (wrong []string) {
	t := w.t
	fail := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }

	// A request that was answered before the blow is worth nothing after it, and an old session does not bring an ended grant back.
	for i, h := range w.households {
		if code := w.used[i].caller.Ask(t, w.used[i].request, w.used[i].offer); code != policies.CodeReplay && (code != policies.CodeExpired || time.Since(w.used[i].asked) < 50*time.Second) {
			fail("%s: a request that was answered before is answered with %q", h.name, code)
		}
		for _, e := range h.ended(t) {
			if e.reader != 0 {
				continue
			}
			offer := h.owner.Drawer.Look(t).Offer(t, e.field)
			offer.Grant = e.grant
			request := w.used[i].caller.Request(t, client.DefaultPurpose, nil, policies.ReadItem{Owner: h.owner.ID(), Field: e.field})
			if code := w.used[i].caller.Ask(t, request, offer); code != policies.CodeRevoked {
				fail("%s: %s under a grant that ended, in an old session, is answered with %q", h.name, e.field, code)
			}
		}
	}

	health, err := w.used[0].caller.Vault.Health(ctx)
	if err != nil || health.Status != "ok" {
		fail("the vault's health: %+v, %v", health, err)
	}
	entries := devices.Journal(t, w.s)
	if uint64(len(entries)) < health.LogSize {
		fail("the journal has %d entries, the vault says %d", len(entries), health.LogSize)
		return wrong
	}
	for i, hash := range w.recorded {
		if entries[i].Entry.Commitment != hash {
			fail("entry %d of the log is not what it was", i)
		}
	}
	for i := len(w.recorded); i < int(health.LogSize); i++ {
		w.recorded = append(w.recorded, entries[i].Entry.Commitment)
	}
	wrong = append(wrong, order(entries)...)
	for _, h := range w.households {
		told, _ := h.take()
		for _, r := range told {
			if r.index >= uint64(len(entries)) {
				fail("%s: a value was given under entry %d of a log of %d", h.name, r.index, len(entries))
				continue
			}
			e := entries[r.index]
			if d := e.Details; e.Entry.Kind != evidence.EntryUse || e.Entry.Outcome != policies.CodeReleased || d.Reader != r.reader || d.Owner != r.owner || d.Field != r.field || d.Version != r.version {
				fail("%s: a value was given under entry %d, which says %s %s: %+v", h.name, r.index, e.Entry.Kind, e.Entry.Outcome, d)
			}
		}
	}

	// No key without a grant, no grant without its key.
	live, sealed := 0, 0
	for _, h := range w.households {
		r, s := h.keys(t)
		live, sealed = live+r, sealed+s
	}
	if int(health.Keys) != live+sealed {
		fail("the vault says that %d keys are in force, the owners say %d resident and %d sealed", health.Keys, live, sealed)
	}
	objects := 0
	for deadline := time.Now().Add(75 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		// While the vault makes its signer state's copy anew there is one more, for as long as a sync takes.
		if objects = w.objects(); objects == w.empty+live && sealedSlots(t, w.s) == sealed || time.Now().After(deadline) {
			break
		}
	}
	if objects != w.empty+live {
		// What a killed import left without a name is destroyed when the vault starts (pkcs11.Clean), and no sooner.
		err := w.s.Vault.Stop()
		if err == nil {
			err = w.s.Vault.Start(ctx)
		}
		if err != nil {
			fail("starting the vault for what a killed import left: %v", err)
		}
		objects = w.objects()
	}
	if objects != w.empty+live {
		fail("the token has %d objects and had %d without grants; %d keys in custody resident are in force", objects, w.empty, live)
	}
	if stored := sealedSlots(t, w.s); stored != sealed {
		fail("the vault stores %d sealed keys; %d are in force", stored, sealed)
	}
	return wrong
}

// sealedSlots counts the keys in the vault's file of sealed keys, whose slots are zeros when they hold none.
func sealedSlots(t *testing.T, s *stage.Stage) (n int) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.VaultData(), "keys", "sealed-keys.1"))
	must(t, err)
	for slot := range slices.Chunk(data, 512) {
		if len(bytes.Trim(slot, "\x00")) > 0 {
			n++
		}
	}
	return n
}

// order holds the log against itself: no use of what the log itself says is not granted or has ended, and no revocation or import that was not
// finished one way or the other.
func order(entries []devices.Logged) (wrong []string) {
	fail := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	type key struct {
		grant policies.DocumentID
		field policies.Field
	}
	granted, ended := map[policies.DocumentID]bool{}, map[key]bool{}
	open := map[uint64]evidence.Kind{}
	for i, e := range entries {
		d := e.Details
		if e.Index != uint64(i) {
			fail("entry %d of the log lies at %d", e.Index, i)
		}
		switch e.Entry.Kind {
		case evidence.EntryImport:
			open[e.Index] = e.Entry.Kind
		case evidence.EntryGrant:
			granted[d.Grant] = true
			delete(open, d.Index)
		case evidence.EntryFailed:
			delete(open, d.Index)
		case evidence.EntryRevocation:
			open[e.Index] = e.Entry.Kind
			for _, item := range d.Items {
				ended[key{item.Grant, item.Field}] = true
			}
		case evidence.EntryDestroyed:
			delete(open, d.Index)
		case evidence.EntryUse:
			if !granted[d.Grant] {
				fail("entry %d uses a grant that is not in force", i)
			}
			if ended[key{d.Grant, d.Field}] {
				fail("entry %d uses %s of a grant that has ended", i, d.Field)
			}
		}
	}
	for index, kind := range open {
		fail("entry %d, %s, was not finished", index, kind)
	}
	return wrong
}

// objects counts what lies in the token's folder: SoftHSM keeps a file for each object. A file without content, or with zeros
// where a power cut took its content, is no object: SoftHSM makes the file first and writes it then, and overlooks what a crash in between leaves for
// ever. Nothing of a key is in it, and no PKCS#11 call can remove it.
func (w *world) objects() (n int) {
	files, err := filepath.Glob(filepath.Join(w.s.TokenFolder(), "*", "*.object"))
	must(w.t, err)
	w.shells = 0
	for _, f := range files {
		data, err := os.ReadFile(f)
		switch {
		case err != nil || filepath.Base(f) == "token.object": // it went away meanwhile, or is the token itself
		case len(bytes.Trim(data, "\x00")) == 0:
			w.shells++
		default:
			n++
		}
	}
	return n
}

// summary says what happened, and how long starts took.
func (w *world) summary() string {
	done, failed := 0, 0
	for _, h := range w.households {
		done, failed = done+h.done, failed+h.failed
	}
	out := []string{fmt.Sprintf("%d rounds, %d operations, %d met the blow; %d entries in the log, %d empty files in the token's folder",
		w.rounds, done, failed, len(w.recorded), w.shells)}
	for _, name := range slices.Sorted(maps.Keys(w.starts)) {
		out = append(out, name+" listens "+spread(w.starts[name]))
	}
	return strings.Join(append(out, "a reader is served "+spread(w.served)), "; ")
}

func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "never"
	}
	d = slices.Sorted(slices.Values(d))
	at := func(q int) time.Duration { return d[(len(d)-1)*q/100].Round(10 * time.Millisecond) }
	return fmt.Sprintf("%d times after %s (median), %s (95 %%), %s (longest)", len(d), at(50), at(95), at(100))
}

// demand ends a test in which something is wrong, with all that a search for the reason needs.
func (w *world) demand(what string, wrong []string) {
	w.t.Helper()
	if len(wrong) == 0 {
		return
	}
	for _, d := range []*stage.Daemon{w.s.Vault, w.s.Storefront} {
		if data, err := os.ReadFile(d.Log); err == nil {
			w.t.Logf("the end of the %s's output:\n%s", d.Name, data[max(0, len(data)-3000):])
		}
	}
	for _, h := range w.households {
		if slices.ContainsFunc(wrong, func(text string) bool { return strings.HasPrefix(text, h.name) }) {
			w.t.Log(w.chain(h))
		}
	}
	w.t.Fatalf("seed %d, round %d, %s:\n%s", w.seed, w.rounds, what, strings.Join(wrong, "\n"))
}

// chain tells of the end of an owner's chain as the key-use log has it, and of what the owner's device knows of it.
func (w *world) chain(h *household) string {
	var lines []string
	for _, e := range devices.Journal(w.t, w.s) {
		if e.Details.Owner != h.owner.ID() || len(e.Document) == 0 && e.Entry.Kind != evidence.EntryGrant && e.Entry.Kind != evidence.EntryFailed {
			continue
		}
		line := fmt.Sprintf("entry %d: %s %s %x", e.Index, e.Entry.Kind, e.Entry.Outcome, e.Details.Document[:4])
		var link policies.Link
		if len(e.Document) > 0 {
			if d, err := envelope.Parse(e.Document); err == nil && json.Unmarshal(d.Payload, &link) == nil {
				line += fmt.Sprintf(" seq %d", link.Seq)
			}
		}
		lines = append(lines, line)
	}
	lines = slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, ": use ") })
	lines = append([]string{"the end of " + h.name + "'s chain in the log:"}, lines[max(0, len(lines)-25):]...)
	state, _ := h.owner.Drawer.Load()
	var device struct {
		Applied, Known struct {
			Seq  uint64        `json:"seq"`
			Hash policies.Hash `json:"hash"`
		}
		Tasks []struct {
			Kind      string          `json:"kind"`
			Attempts  []policies.Hash `json:"attempts"`
			Envelope  jsontext.Value  `json:"envelope"`
			Reason    string          `json:"reason"`
			Next      bool            `json:"next_epoch"`
			Blind     bool            `json:"blind"`
			Cancelled bool            `json:"cancelled"`
		} `json:"tasks"`
		Untold []jsontext.Value `json:"untold"`
	}
	if err := json.Unmarshal(state, &device, json.MatchCaseInsensitiveNames(true)); err != nil {
		return err.Error()
	}
	lines = append(lines, fmt.Sprintf("on the device: applied %d %x, known %d %x", device.Applied.Seq, device.Applied.Hash[:4], device.Known.Seq, device.Known.Hash[:4]))
	say := func(what string, raw []byte) {
		if e, err := envelope.Parse(raw); err == nil {
			var link policies.Link
			_ = json.Unmarshal(e.Payload, &link)
			what += fmt.Sprintf(" document %x seq %d", e.Hash[:4], link.Seq)
		}
		lines = append(lines, what)
	}
	for _, t := range device.Tasks {
		what := fmt.Sprintf("task %s %s next %t blind %t cancelled %t, attempts", t.Kind, t.Reason, t.Next, t.Blind, t.Cancelled)
		for _, a := range t.Attempts {
			what += fmt.Sprintf(" %x", a[:4])
		}
		say(what, t.Envelope)
	}
	for _, raw := range device.Untold {
		say("untold", raw)
	}
	return strings.Join(lines, "\n")
}
