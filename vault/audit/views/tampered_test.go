package views

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/tests/fault/bits"
	"github.com/sallyport/sallyport/vault/audit"
)

// TestTampered changes at random, one or two things at a time, what lies in an index's folder: bits, runs, whole files, files for each other, and files for what they
// were a while ago or are in the index of another log. Each time the damage is said, or the index answers what it would have.
func TestTampered(t *testing.T) {
	n, random := bits.Number(t, 100)
	w, other := populate(900), populateAs(900, "Shop")
	part := *w.testLog
	part.leaves, part.bodies, part.hashes = w.leaves[:500], w.bodies[:500], w.hashes[:tlog.StoredHashCount(500)]
	keep := func(log *audit.Log) *bits.Folder {
		dir := t.TempDir()
		x := must(Open(dir))
		must(updated(t, x, log))
		x.Close()
		return must(bits.Keep(dir))
	}
	now, others := keep(w.open(t)), []*bits.Folder{keep(part.open(t)), keep(other.open(t))}
	root := filepath.Join(t.TempDir(), "index")
	var want []any
	classes := map[string]int{}
	for i := range n + 1 {
		if err := now.Restore(root); err != nil {
			t.Fatal(err)
		}
		var did []string
		for changes := 1 + random.IntN(2); i > 0 && len(did) < changes; {
			what, err := now.Tamper(root, random, others...)
			if err != nil {
				t.Fatal(err)
			}
			if what != "nothing" {
				did = append(did, what)
			}
		}
		got, err := answers(t, root, w.open(t))
		switch {
		case errors.Is(err, ErrIndex):
			classes["detected"]++
		case err != nil:
			t.Fatalf("%s: %v", strings.Join(did, "; "), err)
		case i == 0:
			want = got
		case !reflect.DeepEqual(got, want):
			t.Fatalf("%s: another answer", strings.Join(did, "; "))
		default:
			classes["harmless"]++
		}
	}
	for _, c := range slices.Sorted(maps.Keys(classes)) {
		t.Logf("%5d %s", classes[c], c)
	}
	if classes["detected"] == 0 || classes["harmless"] == 0 {
		t.Error("it cannot be that all or nothing was detected")
	}
}

func updated(t *testing.T, x *Index, log *audit.Log) (uint64, error) {
	added, _, err := x.Update(t.Context(), log)
	return added, err
}

// answers asks an index for everything that it has.
func answers(t *testing.T, dir string, log *audit.Log) ([]any, error) {
	x, err := Open(dir)
	if err != nil {
		return nil, err
	}
	defer x.Close()
	if _, err := updated(t, x, log); err != nil {
		return nil, err
	}
	rows, _, err := x.Search(Query{})
	if err != nil {
		return nil, err
	}
	counts, err := x.Count(Query{Field: "iban"}, ByReader, ByOutcome, ByDay)
	if err != nil {
		return nil, err
	}
	var html strings.Builder
	if err := Report(t.Context(), &html, x, log, Query{}); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	return []any{rows, counts, x.Parties(), html.String()}, nil
}
