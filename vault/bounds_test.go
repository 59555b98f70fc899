package vault

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/api"
)

// TestImportThatTheLogInterrupted: a log that takes nothing for a while, as when the disk is nearly full, between an import and its
// grant does not keep the owner from granting until somebody restarts the vault.
func TestImportThatTheLogInterrupted(t *testing.T) {
	w := newWorld(t)
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	s, g, hash := o.grantOf(r, nil, "name")
	log, away := filepath.Join(w.dir, "log"), filepath.Join(w.dir, "away")
	w.token.hook = func(op string) error {
		if op == "imported" {
			return os.Rename(log, away) // there is no telling how much room is left
		}
		return nil
	}
	if _, err := w.submit(s); !errors.Is(err, policies.CodeLogStopped) {
		t.Fatalf("granting without a log: %v", err)
	}
	w.token.hook = nil
	must(t, os.Rename(away, log))
	w.accepted(s)
	o.seq, o.prev = o.seq+1, hash
	r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0])
	if len(w.token.keys) != 1 {
		t.Errorf("%d keys in the token", len(w.token.keys))
	}
	w.restart(false) // the log replays
}

// TestSessionsOfOneReader: a reader has so many sessions at a time, over restarts, and no more; others are not touched.
func TestSessionsOfOneReader(t *testing.T) {
	w := newWorld(t)
	r := w.reader() // one
	for range 3 {
		r.openSession()
	}
	refused := func() {
		t.Helper()
		w.vault.cfg.Limits.Sessions = 4
		s, _, _, _ := r.sessionOf(nil)
		if _, err := w.submit(s); !errors.Is(err, policies.CodeRateLimited) || problem.Of(err).RetryAfter == 0 {
			t.Fatalf("one session too many: %v", err)
		}
	}
	refused()
	w.reader()
	w.restart(true)
	refused()
	w.restart(false)
	refused()
	w.clock.move(20 * time.Minute)
	w.restart(false) // whose sessions are over, the replay notwithstanding
	w.vault.cfg.Limits.Sessions = 4
	r.openSession()
}

// TestHealthNamesNoFiles: anybody may ask for the health, so the reason is the kind of the fault. The rest is in the daemon's log.
func TestHealthNamesNoFiles(t *testing.T) {
	w := newWorld(t)
	w.logKey.hook = func() error { return errors.New("cannot open " + filepath.Join(w.dir, "log")) }
	w.submit(func() (s api.Submission) { _, s = w.identity(); return }())
	if h := w.vault.Health(); h.Status != "stopped" || h.Reason == "" || strings.Contains(h.Reason, w.dir) {
		t.Errorf("health %+v", h)
	}
}
