package main

import (
	"bytes"
	"os"
	"slices"
	"testing"
)

// TestSeedsAreTheVectors: what the vectors say now is what the targets begin with.
func TestSeedsAreTheVectors(t *testing.T) {
	const root = "../.."
	wanted, err := vectorSeeds(root)
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range wanted {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s is not what the vectors make: go run ./tests/fuzz -seeds", path)
		}
	}
	for _, path := range seedFiles(root) {
		if _, ok := wanted[path]; !ok {
			t.Errorf("%s belongs to no vector: go run ./tests/fuzz -seeds", path)
		}
	}
}

// TestSeedsNameTargets: a seed for a target that is not there would go nowhere.
func TestSeedsNameTargets(t *testing.T) {
	targets, err := list("../architecture/fuzz.txt", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range seeds {
		if !slices.Contains(targets, s.target) {
			t.Errorf("no target is called %s", s.target)
		}
	}
}

func TestRecordAddsUp(t *testing.T) {
	path := t.TempDir() + "/record.txt"
	for range 2 {
		if err := record(path, result{target: "vault FuzzA", took: 90e9, tried: 7}); err != nil {
			t.Fatal(err)
		}
	}
	if err := record(path, result{target: "policies FuzzB", took: 1e9, tried: 1, failure: "panic"}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const want = "policies FuzzB 1 1 1\nvault FuzzA 180 14 0\n"
	if _, rest, _ := bytes.Cut(got, []byte("\n")); string(rest) != want {
		t.Errorf("%s", got)
	}
}
