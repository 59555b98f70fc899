package vault

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/internal/ledger"
	"github.com/sallyport/sallyport/vault/keylog/tiles"
)

// holding are the files under a folder that have some bytes.
// A file that is written anew meanwhile makes it begin again.
func holding(t *testing.T, dir string, text []byte) (names []string) {
	t.Helper()
	for {
		names = nil
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			if bytes.Contains(content, text) {
				names = append(names, path)
			}
			return err
		})
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		must(t, err)
		return names
	}
}

// TestErasure: when their retention is over, requests, sessions and the details of uses are gone from every file, and everything that the vault does goes on: reads,
// limits, revocations, restarts with the database and without. The log says what was erased, before it is.
func TestErasure(t *testing.T) {
	w := newWorld(t)
	w.keep = leastKeep
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	call, request := r.callOf(nil, ask{o, g, "name", 0})
	old := r.open(w.vault.Reencrypt(t.Context(), []api.Call{call})[0], request).Items[0].Index
	r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0])
	folder := t.TempDir()
	if len(holding(t, w.dir, request.Raw)) == 0 {
		t.Fatal("the request is nowhere: nothing is tested")
	}
	publish := func() {
		t.Helper()
		p, err := tiles.New(tiles.Config{
			Dir: folder, Log: w.log, Document: w.document, Envelope: w.envelope.Raw, Host: hostKey("vault.test/log/host"), Erased: w.vault.Erased,
		})
		must(t, err)
		must(t, p.Publish(t.Context()))
	}
	publish()
	if len(holding(t, folder, request.Raw)) == 0 {
		t.Fatal("the request is not published: nothing is tested")
	}

	w.clock.move(leastKeep + time.Hour)
	w.restart(true)
	until(t, "erased", func() bool { return w.vault.Erased() > old })
	publish()
	for _, dir := range []string{filepath.Join(w.dir, "log"), folder} {
		if names := holding(t, dir, request.Raw); names != nil {
			t.Errorf("the request is still in %q", names)
		}
	}
	erasures := 0
	for _, e := range w.records() {
		if e.Kind == evidence.EntryErasure {
			if erasures++; e.Details.Index != 0 || e.Details.Count < old || e.Details.Count > e.Index {
				t.Errorf("entry %d says %+v", e.Index, e.Details)
			}
		}
		if gone := len(e.Opening.Details) == 0; gone != (e.Index <= old+1 && (e.Kind == evidence.EntryUse || e.Kind == evidence.EntrySession)) {
			t.Errorf("entry %d, %s, erased: %v", e.Index, e.Kind, gone)
		}
	}
	if erasures != 1 {
		t.Errorf("%d entries of the erasure", erasures)
	}
	page, err := w.vault.History(policies.OwnerID(o.id), 0, 100)
	must(t, err)
	cp, err := evidence.OpenCheckpoint(page.Checkpoint, w.document.LogKey)
	must(t, err)
	told := 0
	for i := range page.Entries {
		if _, entry, _, err := page.Entries[i].Verify(cp); errors.Is(err, evidence.ErrErased) && entry.Kind == evidence.EntryUse {
			told++
		} else if err != nil {
			t.Errorf("entry %d of the history: %v", page.Entries[i].Index, err)
		}
	}
	if told != 2 {
		t.Errorf("%d uses in the history are told to be erased, want 2", told)
	}
	for _, database := range []bool{true, false} {
		w.restart(database)
		r.openSession()
		r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0])
		var to uint64
		w.vault.ledger.Read(func(s *ledger.State) { _, to = s.Erasure() })
		if to <= old {
			t.Errorf("database %v: the vault forgot that it erased up to %d", database, to)
		}
	}
	o.revoke(g, "name")
	if outcome := r.read(ask{o, g, "name", 0}).Items[0].Outcome; outcome != policies.CodeRevoked {
		t.Errorf("after a revocation: %s", outcome)
	}
}

// TestErasureCutShort: what the log says is to be erased, and is not, is erased by the next start.
func TestErasureCutShort(t *testing.T) {
	w := newWorld(t)
	w.keep = leastKeep
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	call, request := r.callOf(nil, ask{o, g, "name", 0})
	r.open(w.vault.Reencrypt(t.Context(), []api.Call{call})[0], request)
	end := w.log.Checkpoint().Size
	w.log.Roll()
	_, _, err := w.vault.record(t.Context(), func(*ledger.State, time.Time) []ledger.Record {
		return []ledger.Record{{Kind: evidence.EntryErasure, Outcome: policies.CodeAccepted, Details: evidence.Details{Count: uint64(end)}}}
	})
	must(t, err)
	w.clock.move(leastKeep)
	w.restart(true)                                                            // killed before it did
	until(t, "erased", func() bool { return w.vault.Erased() >= uint64(end) }) // what is older than a moment later may be erased too by now
	if names := holding(t, filepath.Join(w.dir, "log"), request.Raw); names != nil {
		t.Errorf("the request is still in %q", names)
	}
}
