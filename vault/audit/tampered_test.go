package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/tests/fault/bits"
)

// TestTampered changes at random, one or two things at a time, what lies in the folder of a published log: bits, runs, whole files, files for each other, and
// files for what they were a while ago or are in a fork. Each time the verifier names the file, or what it has read is what was signed. A folder that is as a whole
// put back or a fork's holds a log that the vault signed; that is found by whoever has kept a checkpoint.
func TestTampered(t *testing.T) {
	n, random := bits.Number(t, 100)
	older := newLog(newVault(1)).fill(400)
	now, fork := older.fork(400).fill(700), older.fork(400)
	for i := 400; i < 700; i++ {
		fork.put(testTime.Add(2*time.Second), now.leaves[i][8:], now.bodies[i])
	}
	keep := func(l *testLog) *bits.Folder { return must(bits.Keep(string(l.files().write(t)))) }
	whole := keep(now)
	others := []*bits.Folder{keep(older), keep(fork)}
	root := filepath.Join(t.TempDir(), "log")
	classes := map[string]int{}
	for range n {
		base, did := whole, []string(nil)
		if random.IntN(20) == 0 {
			i := random.IntN(len(others))
			base, did = others[i], []string{[]string{"put back", "forked"}[i]}
		}
		if err := base.Restore(root); err != nil {
			t.Fatal(err)
		}
		for want := 1 + random.IntN(2); len(did) < want; {
			what, err := whole.Tamper(root, random, others...)
			if err != nil {
				t.Fatal(err)
			}
			if what != "nothing" {
				did = append(did, what)
			}
		}
		what := strings.Join(did, "; ")
		class, err := judge(t, now, Folder(root))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		classes[class]++
	}
	for _, c := range slices.Sorted(maps.Keys(classes)) {
		t.Logf("%5d %s", classes[c], c)
	}
	if classes["detected"] == 0 {
		t.Error("nothing was detected")
	}
}

// judge says what an auditor makes of a log that was tampered with, and what is wrong with that.
func judge(t *testing.T, l *testLog, source Folder) (class string, err error) {
	log, err := Open(t.Context(), source, l.doc)
	if err == nil {
		_, err = log.Verify(t.Context())
	}
	if err != nil {
		var damage *DamageError
		var missing *fs.PathError
		if !errors.As(err, &damage) && !errors.As(err, &missing) {
			return "", fmt.Errorf("no file is named: %w", err)
		}
		return "detected", nil
	}
	if log.Checkpoint.Root != l.root(len(l.leaves)) {
		if err := log.Consistent(t.Context(), l.checkpoint(len(l.leaves))); err == nil {
			return "", fmt.Errorf("another log of %d entries continues the checkpoint of %d", log.Checkpoint.Size, len(l.leaves))
		}
		return "another log, detected by a checkpoint that was kept", nil
	}
	class = "harmless"
	for r, err := range log.Records(t.Context(), 0, log.Checkpoint.Size) {
		if err != nil {
			return "", fmt.Errorf("verified, and then: %w", err)
		}
		if !bytes.Equal(r.Leaf, l.leaves[r.Index]) {
			return "", fmt.Errorf("entry %d is another", r.Index)
		}
		if r.Absent {
			class = "bodies not there, and said so"
			continue
		}
		body := must(parseBody(l.bodies[r.Index]))
		if r.Opening == nil || !bytes.Equal(r.Opening.Details, body.details) || !bytes.Equal(r.Document, body.document) {
			return "", fmt.Errorf("the body of entry %d is another", r.Index)
		}
	}
	return class, nil
}
