// Package storetest is the conformance suite of the storefront's stores: what any implementation must do for the storefront to
// keep its word. Run it with [Run] from the tests of an implementation.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/storefront/internal/store"
)

// Store is what is tested: the interface that the storefront declares, and how to end.
type Store interface {
	Get(ctx context.Context, key []byte) (store.Record, error)
	Scan(ctx context.Context, prefix, after []byte, limit int) ([]store.Record, error)
	Commit(ctx context.Context, changes ...store.Change) error
	Health() error
	Close() error
}

// Run tests the stores that open makes. open is given a folder; the same folder again must bring back the same records.
func Run(t *testing.T, open func(t *testing.T, dir string) Store) {
	ctx := context.Background()
	put := func(key string, version uint64, value string) store.Change {
		return store.Change{Key: []byte(key), Version: version, Value: []byte(value)}
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(t *testing.T, s Store, key string, version uint64, value string) {
		t.Helper()
		r, err := s.Get(ctx, []byte(key))
		must(t, err)
		if r.Version != version || string(r.Value) != value || string(r.Key) != key {
			t.Fatalf("%q is version %d, %q; want version %d, %q", r.Key, r.Version, r.Value, version, value)
		}
	}
	fresh := func(t *testing.T) Store {
		s := open(t, t.TempDir())
		t.Cleanup(func() { _ = s.Close() })
		return s
	}

	t.Run("absent", func(t *testing.T) {
		if _, err := fresh(t).Get(ctx, []byte("a")); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("got %v, want ErrNotFound", err)
		}
	})
	t.Run("values of every size", func(t *testing.T) {
		s := fresh(t)
		for _, size := range []int{0, 1, 4095, 4096, 4097, 1<<20 + 17} {
			key, value := fmt.Sprintf("size-%d", size), bytes.Repeat([]byte{7}, size)
			must(t, s.Commit(ctx, put(key, 1, string(value))))
			want(t, s, key, 1, string(value))
		}
	})
	t.Run("versions only grow", func(t *testing.T) {
		s := fresh(t)
		must(t, s.Commit(ctx, put("a", 2, "two")))
		must(t, s.Commit(ctx, put("a", 2, "two"))) // the same again is harmless
		for _, c := range []store.Change{put("a", 1, "one"), put("a", 2, "another two")} {
			if err := s.Commit(ctx, c); !errors.Is(err, store.ErrStale) {
				t.Errorf("version %d %q over version 2: %v, want ErrStale", c.Version, c.Value, err)
			}
		}
		want(t, s, "a", 2, "two")
		must(t, s.Commit(ctx, put("a", 5, "five")))
		want(t, s, "a", 5, "five")
	})
	t.Run("all or none", func(t *testing.T) {
		s := fresh(t)
		must(t, s.Commit(ctx, put("b", 3, "three")))
		if err := s.Commit(ctx, put("a", 1, "x"), put("b", 2, "older"), put("c", 1, "x")); !errors.Is(err, store.ErrStale) {
			t.Fatalf("got %v, want ErrStale", err)
		}
		for _, key := range []string{"a", "c"} {
			if _, err := s.Get(ctx, []byte(key)); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%q of a refused commit is there: %v", key, err)
			}
		}
		must(t, s.Commit(ctx, put("d", 1, "healthy after a refusal")))
	})
	t.Run("delete", func(t *testing.T) {
		s := fresh(t)
		must(t, s.Commit(ctx, put("a", 1, "x")))
		must(t, s.Commit(ctx, store.Change{Key: []byte("a"), Delete: true}, store.Change{Key: []byte("never there"), Delete: true}))
		if _, err := s.Get(ctx, []byte("a")); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("got %v, want ErrNotFound", err)
		}
	})
	t.Run("scan", func(t *testing.T) {
		s := fresh(t)
		for _, key := range []string{"a", "p", "p\x00", "p\x00\x00", "pq", "p\xff", "p\xff\xff", "q"} {
			must(t, s.Commit(ctx, put(key, 1, "value of "+key)))
		}
		var got []string
		var after []byte
		for pages := 0; ; pages++ {
			page, err := s.Scan(ctx, []byte("p"), after, 2)
			must(t, err)
			if len(page) == 0 {
				break
			}
			if pages > 10 {
				t.Fatal("the scan does not end")
			}
			for _, r := range page {
				if string(r.Value) != "value of "+string(r.Key) || r.Version != 1 {
					t.Errorf("%q holds version %d, %q", r.Key, r.Version, r.Value)
				}
				got, after = append(got, string(r.Key)), r.Key
			}
		}
		if want := []string{"p", "p\x00", "p\x00\x00", "pq", "p\xff", "p\xff\xff"}; fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
	t.Run("malformed changes", func(t *testing.T) {
		s := fresh(t)
		for name, c := range map[string]store.Change{
			"no key": put("", 1, "x"), "no version": put("a", 0, "x"), "long key": put(string(make([]byte, 600)), 1, "x"),
		} {
			if s.Commit(ctx, c) == nil {
				t.Errorf("%s: accepted", name)
			}
		}
		must(t, s.Health())
	})
	t.Run("a whole publication at once", func(t *testing.T) {
		s := fresh(t)
		var changes []store.Change
		for i := range 1000 {
			changes = append(changes, put(fmt.Sprintf("leaf-%d", i), 1, string(make([]byte, 350))))
		}
		for i := range 11 {
			changes = append(changes, put(fmt.Sprintf("blob-%d", i), 1, string(make([]byte, 1<<20))))
		}
		must(t, s.Commit(ctx, changes...))
		want(t, s, "blob-10", 1, string(make([]byte, 1<<20)))
	})
	t.Run("reopened", func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir)
		must(t, s.Commit(ctx, put("a", 1, "x"), put("b", 7, "y")))
		must(t, s.Commit(ctx, store.Change{Key: []byte("a"), Delete: true}))
		must(t, s.Close())
		s = open(t, dir)
		defer s.Close()
		want(t, s, "b", 7, "y")
	})
	t.Run("a cancelled context writes nothing", func(t *testing.T) {
		s := fresh(t)
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		if err := s.Commit(cancelled, put("a", 1, "x")); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want context.Canceled", err)
		}
		if _, err := s.Get(ctx, []byte("a")); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("got %v, want ErrNotFound", err)
		}
	})
	t.Run("one winner", func(t *testing.T) {
		s := fresh(t)
		var wins, refusals int
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				err := s.Commit(ctx, put("a", 1, fmt.Sprint("writer ", i)))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					wins++
				} else {
					refusals++
				}
			})
		}
		wg.Wait()
		if wins != 1 || refusals != 15 {
			t.Fatalf("%d writers of one version won, want 1", wins)
		}
		must(t, s.Health())
	})
}
