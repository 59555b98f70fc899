package pkcs11

import (
	"errors"
	"sync"
	"testing"
	"time"
)

// TestManyImportsDoNotStopTheRest: owners who all grant at once keep each other waiting, and nobody else. A signature that waits is the
// whole log that waits, and one that waits too long kills its worker.
func TestManyImportsDoNotStopTheRest(t *testing.T) {
	profile, public := sealedCeremony(t, 1)
	user := open(t, profile, User, 1)
	_, err := user.Generate(t.Context(), LogKey)
	if err := errors.Join(err, user.Close()); err != nil {
		t.Fatal(err)
	}
	p := pool(t, profile, func(c *PoolConfig) { c.Workers, c.Threads = 1, 1 })
	warm := importedSealed(t, p, public)
	cold := importedSealed(t, p, public)
	if err := warm.check(p); err != nil {
		t.Fatal(err)
	}
	wrapped := wrappedKey(t, public, warm.key)
	const flood = 100
	var imports sync.WaitGroup
	begin := time.Now()
	for range flood {
		imports.Go(func() {
			if _, err := p.ImportSealed(t.Context(), newID(), OAEPDirect, wrapped); err != nil {
				t.Error(err)
			}
		})
	}
	done := make(chan struct{})
	go func() { imports.Wait(); close(done) }()
	time.Sleep(50 * time.Millisecond)
	var longest time.Duration
	rounds := 0
	for ended := false; !ended; rounds++ {
		now := time.Now()
		if _, err := p.Sign(t.Context(), []byte("root")); err != nil {
			t.Fatal(err)
		}
		if err := warm.check(p); err != nil {
			t.Fatal(err)
		}
		if rounds == 0 {
			if err := p.Forget(t.Context(), cold.req.Key); err != nil {
				t.Fatal(err)
			}
		}
		longest = max(longest, time.Since(now))
		select {
		case <-done:
			ended = true
		default:
		}
	}
	all := time.Since(begin)
	t.Logf("%d imports in %v; of %d signatures with a derive, and a revocation, the longest took %v", flood, all, rounds, longest)
	if longest > all/4 {
		t.Errorf("a signature, a derive or a revocation waited %v of the %v that the imports took", longest, all)
	}
}

// TestResealTellsWhichKeyIsAtFault: a sealing key that takes nothing must not look like keys that are lost, or the vault would give those up
// and destroy the sealing key that still opens them.
func TestResealTellsWhichKeyIsAtFault(t *testing.T) {
	token, public := readySealed(t, nil, 1)
	s := importedSealed(t, token, public)
	token.mu.Lock()
	token.sealing.keys[2], token.sealing.newest = token.canary.key, 2
	token.mu.Unlock()
	before := everything(t, token)
	_, err := token.Reseal(t.Context(), []SealedKey{s.req.Sealed})
	if err == nil || errors.Is(err, ErrKeyMissing) {
		t.Errorf("a newest sealing key that does not wrap: %v", err)
	}
	token.mu.Lock()
	token.sealing.keys[2] = 0xffff
	token.mu.Unlock()
	_, err = token.Reseal(t.Context(), []SealedKey{s.req.Sealed})
	if err == nil || errors.Is(err, ErrKeyMissing) {
		t.Errorf("a newest sealing key that has just gone: %v", err)
	}
	if n := everything(t, token); n != before {
		t.Errorf("%d objects before, %d after", before, n)
	}
	if err := s.check(token); err != nil {
		t.Error(err)
	}
}

// TestHostMovesKeptBlob is no promise but its limit: while the older sealing key and the next are both in the token, whoever has the PIN can
// bring a blob that was deleted everywhere to the next, and it outlives the older one. See THREATMODEL.md.
func TestHostMovesKeptBlob(t *testing.T) {
	token, public := readySealed(t, nil, 1, 2)
	s := importedSealed(t, token, public)
	token.mu.Lock() // as it was before the second was made
	token.sealing.newest = 1
	token.mu.Unlock()
	kept := importedSealed(t, token, public)
	if kept.req.Sealed.Period != 1 || s.req.Sealed.Period != 2 {
		t.Fatal("not the periods that the test needs")
	}
	if err := token.Forget(t.Context(), kept.req.Key); err != nil {
		t.Fatal(err)
	}
	if _, _, err := token.SealingKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	carried, err := token.Reseal(t.Context(), []SealedKey{kept.req.Sealed})
	if err != nil {
		t.Fatalf("the token does refuse it: %v; then say so in THREATMODEL.md", err)
	}
	if err := token.DestroySealingKey(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	old := kept
	old.req.Key = newID() // another process of the host, which forgot nothing
	if err := old.check(token); !errors.Is(err, ErrKeyMissing) {
		t.Errorf("a copy that stayed behind: %v", err)
	}
	old.req.Sealed = carried[0]
	if err := old.check(token); err != nil {
		t.Errorf("a copy that was carried along: %v; then say so in THREATMODEL.md", err)
	}
	if err := kept.check(token); !errors.Is(err, ErrKeyMissing) {
		t.Errorf("in the process that forgot it: %v", err)
	}
}
