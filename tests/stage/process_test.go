package stage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A race that a daemon's detector reported, perhaps in a life that was killed or by a process of its own, fails whoever stops the daemon.
func TestRaceIsToldAtStop(t *testing.T) {
	d := &Daemon{Name: "vault", Log: filepath.Join(t.TempDir(), "log")}
	if err := d.Stop(); err != nil {
		t.Errorf("never started: %v", err)
	}
	for said, want := range map[string]bool{
		"time=1 level=INFO msg=\"the vault is ready\"\n":                                                             false,
		"time=1 level=INFO msg=ready\n==================\nWARNING: DATA RACE\nRead at 0x1 by goroutine 7:\n":         true,
		"time=1 level=WARN msg=\"token worker\" stderr=\"==================\\nWARNING: DATA RACE\\nWrite at 0x2\"\n": true,
	} {
		if err := os.WriteFile(d.Log, []byte(said), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.Stop(); (err != nil) != want || want && !strings.Contains(err.Error(), "at 0x") {
			t.Errorf("%q: %v", said, err)
		}
	}
}
