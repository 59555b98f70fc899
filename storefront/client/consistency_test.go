package client

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/keylog"
)

// branch is another log under the same key, as a host makes one that shows different people different histories: checkpoints after each of n entries.
func (w *world) branch(n int) (*keylog.Log, []string) {
	w.t.Helper()
	ctx, dir := context.Background(), w.t.TempDir()
	log, err := keylog.Create(ctx, keylog.Config{
		Dir: filepath.Join(dir, "log"), StateDir: filepath.Join(dir, "signer"), Origin: w.doc.LogKey.Name,
		PublicKey: w.doc.LogKey.PublicKey, Signer: logSigner{w.logKey}, State: &stateKeeper{}, Reserve: 1,
	})
	w.must(err)
	w.t.Cleanup(func() { log.Close() })
	var notes []string
	for i := range n {
		e := evidence.Entry{Kind: evidence.EntryStart, Commitment: policies.Hash{byte(i), 77}}
		_, cp, err := log.Append(ctx, keylog.Record{Entry: e.Bytes()})
		w.must(err)
		notes = append(notes, cp.Note)
	}
	return log, notes
}

// noProofs silences the storefront on consistency, and the second route.
func (w *world) noProofs() {
	w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
		if q.URL.Path == api.PathConsistency {
			problem.Write(rw, policies.CodeUnavailable)
			return
		}
		next.ServeHTTP(rw, q)
	})
}

func (w *world) secondRoute(up bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owners = up
}

func TestCheckpointsAreJoined(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	first := o.Log()
	w.must(o.Set(ctx, set("note", "n")))
	second := o.Log()
	if first.Size == 0 || second.Size <= first.Size || !second.Since.IsZero() || second.Contradicted != "" {
		t.Fatalf("%+v, then %+v", first, second)
	}
	if again := reopen(m, w).Log(); again.Size != second.Size || again.Checkpoint != second.Checkpoint {
		t.Errorf("stored: %+v", again)
	}
	// An older checkpoint of the same log is no contradiction.
	w.must(o.Compare(ctx, first.Checkpoint))
	if o.Log().Size != second.Size {
		t.Error("an older checkpoint took the place of a newer one")
	}
}

// The vault shows two branches of its log, both signed. Whoever saw the one takes nothing that comes with the other, and keeps its checkpoint.
func TestTwoBranches(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	w.must(o.Set(ctx, set("note", "n")))
	kept := o.Log()
	log, notes := w.branch(40)
	for name, c := range map[string]struct {
		note  string
		proof func(from, to int64) ([]policies.Hash, error)
	}{
		"larger, with that branch's own proof": {notes[kept.Size+7], func(from, to int64) (out []policies.Hash, err error) {
			p, err := log.ProveConsistency(from, to)
			for _, h := range p {
				out = append(out, policies.Hash(h))
			}
			return out, err
		}},
		"larger, with no hashes": {notes[kept.Size+7], func(int64, int64) ([]policies.Hash, error) { return nil, nil }},
		"smaller":                {notes[kept.Size-2], func(int64, int64) ([]policies.Hash, error) { return []policies.Hash{{1}, {2}}, nil }},
		"one size":               {notes[kept.Size-1], nil},
	} {
		// Both routes belong to the liar.
		o.wire.owners = nil
		w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
			if q.URL.Path == api.PathConsistency && c.proof != nil {
				small, large := int64(kept.Size), int64(o.mustSize(t, w, c.note))
				if small > large {
					small, large = large, small
				}
				proof, err := c.proof(small, large)
				if err != nil {
					t.Error(err)
				}
				b, _ := json.Marshal(vaultapi.Consistency{From: uint64(small), To: uint64(large), Proof: proof})
				rw.Write(b)
				return
			}
			next.ServeHTTP(rw, q)
		})
		if err := o.Compare(ctx, c.note); !errors.Is(err, ErrFork) || !errors.Is(err, ErrUntrue) {
			t.Errorf("%s: %v", name, err)
		}
		if v := o.Log(); v.Checkpoint != kept.Checkpoint || v.Contradicted != c.note {
			t.Errorf("%s: afterwards %+v", name, v)
		}
	}
	w.hostile(nil)
	if err := o.Set(ctx, set("note", "m")); err != nil {
		t.Errorf("an honest storefront afterwards: %v", err)
	}

	// In place: a page of history under the other branch's checkpoint.
	kept = o.Log()
	w.rewrite("/history", func(b []byte) []byte {
		var h vaultapi.History
		w.must(envelope.Decode(b, &h))
		h.Checkpoint = notes[39]
		b, _ = json.Marshal(h)
		return b
	})
	if _, err := o.History(ctx, 10); !errors.Is(err, ErrFork) {
		t.Errorf("history under another branch: %v", err)
	}
	if o.Log().Checkpoint != kept.Checkpoint {
		t.Error("the kept checkpoint was replaced")
	}
}

func (o *Owner) mustSize(t *testing.T, w *world, note string) uint64 {
	c, err := evidence.OpenCheckpoint(note, w.doc.LogKey)
	if err != nil {
		t.Fatal(err)
	}
	return c.Size
}

// A storefront that has no proofs stops nobody, is told on, and cannot make a device forget what it saw meanwhile.
func TestNoProofs(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	kept := o.Log()
	w.noProofs()
	w.secondRoute(false)
	now := time.Now()
	o.now = func() time.Time { return now }
	w.must(o.Set(ctx, set("note", "m")))
	w.wantRead(r, o, "note", "m")
	v := o.Log()
	if v.Checkpoint != kept.Checkpoint || v.Since.IsZero() {
		t.Fatalf("without a proof: %+v", v)
	}
	if err := o.Compare(ctx, r.Log().Checkpoint); err == nil {
		t.Error("checkpoints of two sizes were called joined without a proof")
	}
	// What waited is not forgotten: it is compared with what comes later, also after a restart.
	if waiting := reopen(m, w).trust.seen.Waiting; len(waiting) == 0 {
		t.Error("the checkpoint that waits was not stored")
	}
	o.trust.seen.Waiting[0].Root[0] ^= 1
	w.hostile(nil)
	now = now.Add(2 * proofPause)
	if err := o.Set(ctx, set("note", "o")); !errors.Is(err, ErrFork) {
		t.Errorf("a branch that was seen while proofs were withheld: %v", err)
	}
	o.trust.seen.Waiting[0].Root[0] ^= 1
	now = now.Add(2 * proofPause)
	w.must(o.Sync(ctx))
	if v := o.Log(); !v.Since.IsZero() || v.Size <= kept.Size {
		t.Errorf("with proofs again: %+v", v)
	}

	// The second route serves when the storefront does not, and when it lies.
	w.noProofs()
	w.secondRoute(true)
	w.must(o.Set(ctx, set("note", "p")))
	if v := o.Log(); !v.Since.IsZero() {
		t.Errorf("over the second route: %+v", v)
	}
	w.rewrite(api.PathConsistency, func([]byte) []byte { return []byte(`{"from":1,"to":2,"proof":[]}`) })
	w.must(o.Set(ctx, set("note", "q")))
	if v := o.Log(); !v.Since.IsZero() || v.Contradicted == "" && v.Size == 0 {
		t.Errorf("past a storefront that lies: %+v", v)
	}
}

// A vault that was set back to an older log cannot open a session to a reader that saw the newer one.
func TestRollbackOfTheLog(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	// The reader has seen what the vault now denies.
	_, notes := w.branch(60)
	r.trust.checkpoint = seenCheckpoint{60, policies.Hash{1}, notes[59]}
	if _, err := r.Read(ctx, Item{Owner: o.ID(), Field: "note"}); !errors.Is(err, ErrFork) {
		t.Errorf("a log with fewer entries: %v", err)
	}
	// Also when no proof is to be had: the session's own entry shows it.
	w.noProofs()
	w.secondRoute(false)
	if _, err := r.Read(ctx, Item{Owner: o.ID(), Field: "note"}); !errors.Is(err, ErrFork) {
		t.Errorf("a log with fewer entries, and no proof: %v", err)
	}
	if r.trust.checkpoint.Size != 60 {
		t.Error("the kept checkpoint was replaced")
	}
}

// Nobody saw both branches, and no witness was there: two who compare find out, from the two notes alone if they have one size.
func TestTwoWhoCompare(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	w.must(o.Set(ctx, set("note", "n")))
	_, notes := w.branch(30)
	other, _ := w.owner()
	other.trust.checkpoint = seenCheckpoint{20, policies.Hash{}, notes[19]} // they were shown the other branch
	w.must(o.Compare(ctx, o.Log().Checkpoint))
	if err := o.Compare(ctx, other.Log().Checkpoint); !errors.Is(err, ErrFork) {
		t.Errorf("%v", err)
	}
	for name, note := range map[string]string{
		"nothing": "", "cut short": notes[3][:40], "unsigned": strings.SplitAfter(notes[3], "\n\n")[0], "edited": strings.Replace(notes[3], "\n4\n", "\n5\n", 1),
		"of another log": string(bytes.Replace([]byte(notes[3]), []byte("client.test"), []byte("cl1ent.test"), -1)),
	} {
		if err := o.Compare(ctx, note); !errors.Is(err, ErrUntrue) || errors.Is(err, ErrFork) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSeenWhileItIsStored: what was handed over to be stored stays as it was, whatever is seen meanwhile.
func TestSeenWhileItIsStored(t *testing.T) {
	var tr trust
	for i := range uint64(maxWaiting) {
		tr.wait(seenCheckpoint{Size: 2 + i}, time.Unix(5, 0))
	}
	var b base
	tr.store(&b)
	was := slices.Clone(b.Seen.Waiting)
	tr.wait(seenCheckpoint{Size: 500}, time.Unix(6, 0))
	tr.joined(seenCheckpoint{Size: 3})
	if !slices.Equal(b.Seen.Waiting, was) {
		t.Errorf("what is stored changed: %v, was %v", b.Seen.Waiting, was)
	}
	var again trust
	if err := again.load(&b); err != nil {
		t.Fatal(err)
	}
	again.wait(seenCheckpoint{Size: 600}, time.Unix(7, 0))
	if !slices.Equal(b.Seen.Waiting, was) {
		t.Errorf("what was loaded changed: %v, was %v", b.Seen.Waiting, was)
	}
}

func TestWaitingIsBounded(t *testing.T) {
	tr := &trust{checkpoint: seenCheckpoint{Size: 1}}
	for i := range uint64(100) {
		tr.wait(seenCheckpoint{Size: 2 + i}, time.Unix(5, 0))
	}
	if n := len(tr.seen.Waiting); n != maxWaiting || tr.seen.Waiting[n-1].Size != 101 || tr.seen.Waiting[0].Size != 2 || tr.seen.Since != 5 {
		t.Errorf("%d wait: %+v", n, tr.seen)
	}
}
