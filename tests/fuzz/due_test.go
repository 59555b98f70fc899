package main

import (
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestDue: what a run adds to the record is what the next one goes by.
func TestDue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record.txt")
	for target, seconds := range map[string]time.Duration{"a FuzzOld": 3600, "b FuzzSome": 3599, "c FuzzLittle": 7} {
		for range 2 {
			if err := record(path, result{target: target, took: seconds * time.Second / 2, tried: 5}); err != nil {
				t.Fatal(err)
			}
		}
	}
	had, err := readRecord(path)
	if err != nil {
		t.Fatal(err)
	}
	if had["a FuzzOld"] != [3]int64{3600, 10, 0} {
		t.Errorf("the record says %v", had)
	}
	got := due([]string{"a FuzzOld", "b FuzzSome", "c FuzzLittle", "d FuzzNever"}, had, time.Hour)
	if want := []string{"d FuzzNever", "c FuzzLittle", "b FuzzSome"}; !slices.Equal(got, want) {
		t.Errorf("due are %v, not %v", got, want)
	}
}
