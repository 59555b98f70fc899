package pkcs11

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

func testName(i int) (n liveName) {
	binary.BigEndian.PutUint64(n.id[:], uint64(i))
	n.period = uint32(i % 3)
	return n
}

// heat takes a key and loads it if it is cold, under the handle i+1.
func (l *liveKeys) heat(i int) (*liveKey, bool, []cryptoki.Object) {
	k, cold, evicted := l.take(testName(i))
	if cold {
		l.loaded(k, cryptoki.Object(i+1), 1, nil)
	}
	return k, cold, evicted
}

func TestLiveKeysEvictLeastRecentlyUsed(t *testing.T) {
	l := newLiveKeys(3)
	for _, i := range []int{0, 1, 2, 0} {
		k, _, evicted := l.heat(i)
		if len(evicted) > 0 {
			t.Errorf("evicted %v below the bound", evicted)
		}
		l.release(k)
	}
	held, cold, evicted := l.heat(3)
	if !cold || !slices.Equal(evicted, []cryptoki.Object{2}) {
		t.Errorf("evicted %v, not the least recently used", evicted)
	}
	// 2 and 0 are idle, 3 is in use; all in use is no reason to refuse.
	a, _, _ := l.heat(2)
	b, _, _ := l.heat(0)
	c, cold, evicted := l.heat(4)
	if !cold || len(evicted) > 0 || len(l.keys) != 4 {
		t.Errorf("evicted %v of keys in use; %d are live", evicted, len(l.keys))
	}
	for _, k := range []*liveKey{held, a, b, c} {
		l.release(k)
	}
	if _, _, evicted := l.heat(5); !slices.Equal(evicted, []cryptoki.Object{4, 3}) {
		t.Errorf("evicted %v: not back to the bound", evicted)
	}
}

func TestLiveKeysForget(t *testing.T) {
	l := newLiveKeys(3)
	k, _, _ := l.heat(7)
	forgot := make(chan []cryptoki.Object)
	for range 2 { // both wait, one gets it
		go func() { forgot <- l.forget(testName(7).id) }()
	}
	select {
	case <-forgot:
		t.Error("forgotten while in use")
	case <-time.After(50 * time.Millisecond):
	}
	if k, _, _ := l.take(testName(7)); k != nil {
		t.Error("taken after it was forgotten")
	}
	l.release(k)
	if got := append(<-forgot, <-forgot...); !slices.Equal(got, []cryptoki.Object{8}) {
		t.Errorf("%v to destroy", got)
	}
	l.admit(testName(7).id)
	if _, cold, _ := l.take(testName(7)); !cold {
		t.Error("admitted again, and not to be loaded")
	}
}

// TestLiveKeysForgetWhatIsLost: a key that is forgotten while it is in use, and whose object is lost meanwhile or does not come, leaves nothing to destroy.
func TestLiveKeysForgetWhatIsLost(t *testing.T) {
	for name, lose := range map[string]func(l *liveKeys, k *liveKey){
		"not loaded":        func(l *liveKeys, k *liveKey) { l.loaded(k, 0, 0, ErrKeyMissing) },
		"its session ended": func(l *liveKeys, k *liveKey) { l.loaded(k, 5, 1, nil); l.ended(1) },
		"vanished":          func(l *liveKeys, k *liveKey) { l.loaded(k, 5, 1, nil); l.vanished(k) },
	} {
		l := newLiveKeys(3)
		k, _, _ := l.take(testName(1))
		forgot := make(chan []cryptoki.Object)
		go func() { forgot <- l.forget(testName(1).id) }()
		eventually(t, "one that leaves", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.leaving) == 1
		})
		lose(l, k)
		l.release(k)
		if got := <-forgot; len(got) > 0 {
			t.Errorf("%s: %v to destroy", name, got)
		}
	}
	l := newLiveKeys(3)
	for i := range 3 {
		k, _, _ := l.heat(i)
		l.release(k)
	}
	if l.ended(1); len(l.keys)+l.idle.Len() != 0 {
		t.Errorf("of three keys of a session that ended %d are kept", len(l.keys))
	}
}

// TestLiveKeysForgetOneOfMany: who forgets a key waits for it, however many others are on their way out, and for no other.
func TestLiveKeysForgetOneOfMany(t *testing.T) {
	l := newLiveKeys(40)
	var held []*liveKey
	for i := range 40 {
		k, _, _ := l.heat(i)
		held = append(held, k)
	}
	for i := range 39 {
		go l.forget(testName(i).id)
	}
	eventually(t, "39 that leave", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.leaving) == 39
	})
	forgot := make(chan []cryptoki.Object)
	go func() { forgot <- l.forget(testName(0).id) }()
	go func() { forgot <- l.forget(testName(39).id) }()
	select {
	case <-forgot:
		t.Fatal("forgotten while in use")
	case <-time.After(50 * time.Millisecond):
	}
	l.release(held[39])
	if got := <-forgot; !slices.Equal(got, []cryptoki.Object{40}) {
		t.Errorf("%v to destroy", got)
	}
	for _, k := range held[:39] {
		l.release(k)
	}
	<-forgot // the object is another's to destroy
}

// A key whose load fails is the next one's to load; one whose session has
// ended is nobody's to destroy.
func TestLiveKeysLost(t *testing.T) {
	l := newLiveKeys(3)
	k, _, _ := l.take(testName(1))
	l.loaded(k, 0, 0, ErrKeyMissing)
	<-k.ready
	l.release(k)
	if k, cold, _ := l.take(testName(1)); !cold {
		t.Error("a failure was kept")
	} else {
		l.loaded(k, 5, 1, nil)
		l.ended(1)
		l.release(k)
	}
	if k, cold, _ := l.take(testName(1)); !cold {
		t.Error("a lost key was kept")
	} else {
		l.loaded(k, 6, 2, nil)
		l.ended(1)
		l.release(k)
	}
	if got := l.drop(func(liveName) bool { return true }); !slices.Equal(got, []cryptoki.Object{6}) {
		t.Errorf("%v to destroy", got)
	}
	if len(l.keys)+len(l.leaving)+l.idle.Len() != 0 {
		t.Error("something is left")
	}
}

func TestForgottenIsBounded(t *testing.T) {
	var f forgotten
	id := func(i int) KeyID { return testName(i).id }
	for i := range 3 * maxForgotten {
		f.add(id(i))
		if !f.has(id(i)) || i >= maxForgotten && !f.has(id(i-maxForgotten+1)) {
			t.Fatalf("at %d", i)
		}
	}
	if n := len(f.young) + len(f.old); n > 2*maxForgotten {
		t.Errorf("%d are remembered", n)
	}
	for _, i := range []int{3*maxForgotten - 1, 2*maxForgotten - 1} { // of either generation
		if f.remove(id(i)); f.has(id(i)) {
			t.Error("removed, and still there")
		}
	}
}

// A token of its own kind: what is destroyed while in use, loaded twice at once
// or never destroyed shows.
func TestLiveKeysUnderLoad(t *testing.T) {
	const lanes, names, bound = 8, 40, 10
	l := newLiveKeys(bound)
	var (
		next  atomic.Uint64
		alive sync.Map // object -> name
		mu    sync.Mutex
		ever  [names]bool // forgotten
	)
	destroy := func(objects []cryptoki.Object) {
		for _, o := range objects {
			if _, there := alive.LoadAndDelete(o); !there {
				t.Errorf("%d destroyed twice", o)
			}
		}
	}
	var all sync.WaitGroup
	for range lanes {
		all.Go(func() {
			for range 3000 {
				i := int(rand.NormFloat64()*8+names/2+names) % names
				mu.Lock()
				past := ever[i]
				mu.Unlock()
				k, cold, evicted := l.take(testName(i))
				if k == nil {
					continue
				}
				if past {
					t.Errorf("%d taken after it was forgotten", i)
				}
				destroy(evicted)
				if cold {
					if rand.N(20) == 0 {
						l.loaded(k, 0, 0, ErrKeyMissing)
					} else {
						o := cryptoki.Object(next.Add(1))
						alive.Store(o, testName(i))
						l.loaded(k, o, 1, nil)
					}
				}
				<-k.ready
				if k.err == nil {
					for range 3 {
						if name, there := alive.Load(k.object); !there || name != testName(i) {
							t.Errorf("%d was destroyed in use", k.object)
						}
						time.Sleep(time.Microsecond)
					}
				}
				l.mu.Lock()
				if n := len(l.keys); n > bound+lanes {
					t.Errorf("%d live keys", n)
				}
				l.mu.Unlock()
				l.release(k)
			}
		})
	}
	all.Go(func() {
		for i := range names / 4 {
			time.Sleep(5 * time.Millisecond)
			destroy(l.drop(func(n liveName) bool { return n.period == uint32(i%3) }))
			destroy(l.forget(testName(4 * i).id))
			mu.Lock()
			ever[4*i] = true
			mu.Unlock()
		}
	})
	all.Wait()
	destroy(l.drop(func(liveName) bool { return true }))
	alive.Range(func(o, name any) bool {
		t.Errorf("%v was never destroyed", o)
		return true
	})
}

// One C_UnwrapKey for however many ask for a cold key at once.
func TestColdKeyIsLoadedOnce(t *testing.T) {
	token, public := readySealed(t, func(c *Config) { c.Threads = 8 }, 1)
	s := importedSealed(t, token, public)
	before := token.Calls()["C_UnwrapKey"]
	start := make(chan struct{})
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			<-start
			if err := s.check(token); err != nil {
				t.Error(err)
			}
		})
	}
	close(start)
	all.Wait()
	if n := token.Calls()["C_UnwrapKey"] - before; n != 1 {
		t.Errorf("%d unwraps of one key", n)
	}
}

// A failed load is told to all who wait, and costs one unwrap or a few: one at a time.
func TestColdKeyThatFails(t *testing.T) {
	token, public := readySealed(t, func(c *Config) { c.Threads = 4 }, 1)
	s := importedSealed(t, token, public)
	s.req.Sealed.Blob = slices.Clone(s.req.Sealed.Blob)
	s.req.Sealed.Blob[20] ^= 0x40
	before := everything(t, token)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := s.check(token); !errors.Is(err, ErrKeyMissing) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := everything(t, token); n != before || len(token.live.keys) != 0 {
		t.Errorf("%d objects before, %d after; %d live keys", before, n, len(token.live.keys))
	}
}

// The bound holds, evicted objects are destroyed, and what was evicted loads again.
func TestLiveKeysAreBounded(t *testing.T) {
	const bound = 3
	token, public := readySealed(t, func(c *Config) { c.LiveKeys = bound }, 1)
	base := everything(t, token)
	cases := make([]sealedCase, 3*bound)
	for i := range cases {
		cases[i] = importedSealed(t, token, public)
	}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for _, i := range rand.Perm(len(cases)) {
				if err := cases[i].check(token); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	// One more load trims what concurrent derives took above the bound.
	for _, s := range cases[:2] {
		if err := s.check(token); err != nil {
			t.Fatal(err)
		}
	}
	if n := everything(t, token) - base; n > bound || n != len(token.live.keys) {
		t.Errorf("%d live objects, %d live keys, bound %d", n, len(token.live.keys), bound)
	}
}

// Live keys end with the session that keeps them, and with their objects if
// something else destroys these: readers do not notice.
func TestLiveKeysComeBack(t *testing.T) {
	token, public := readySealed(t, func(c *Config) { c.Threads = 1 }, 1)
	s, other := importedSealed(t, token, public), importedSealed(t, token, public)
	for _, c := range []sealedCase{s, other} {
		if err := c.check(token); err != nil {
			t.Fatal(err)
		}
	}
	before := token.Calls()["C_UnwrapKey"]
	keeper := <-token.keepers
	if err := token.module.CloseSession(keeper); err != nil {
		t.Fatal(err)
	}
	token.keepers <- keeper
	for _, c := range []sealedCase{s, other, s} {
		if err := c.check(token); err != nil {
			t.Errorf("after its session was closed: %v", err)
		}
	}
	if n := token.Calls()["C_UnwrapKey"] - before; n != 3 { // one found the session broken
		t.Errorf("%d unwraps", n)
	}
	o := token.live.keys[nameOf(s.req.Key, s.req.Sealed)].object
	if err := token.do(t.Context(), token.slow, "destroying", func(h cryptoki.Session) error { return token.module.DestroyObject(h, o) }); err != nil {
		t.Fatal(err)
	}
	if err := s.check(token); err != nil {
		t.Errorf("after its object was destroyed: %v", err)
	}
	// A login that is gone ends the token; it is not a missing key.
	if err := token.module.Logout(token.home); err != nil {
		t.Fatal(err)
	}
	if err := s.check(token); !errors.Is(err, ErrTokenBroken) {
		t.Errorf("without a login: %v", err)
	}
}

// Forget under load: once it has returned, nobody derives with the key.
func TestForgetUnderLoad(t *testing.T) {
	token, public := readySealed(t, func(c *Config) { c.Threads, c.LiveKeys = 4, 4 }, 1)
	base := everything(t, token)
	for range 5 {
		s := importedSealed(t, token, public)
		var done atomic.Bool
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				for {
					before := done.Load()
					err := s.check(token)
					if err == nil && before {
						t.Error("derived after it was forgotten")
					}
					if errors.Is(err, ErrKeyMissing) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		time.Sleep(rand.N(10 * time.Millisecond))
		if err := token.Forget(background, s.req.Key); err != nil {
			t.Error(err)
		}
		done.Store(true)
		all.Wait()
	}
	if n := everything(t, token); n != base {
		t.Errorf("%d objects before, %d after", base, n)
	}
}

// Who stops waiting for a cold key does not stop its load.
func TestWaitingForColdKeyEnds(t *testing.T) {
	token, public := readySealed(t, nil, 1)
	s := importedSealed(t, token, public)
	keepers := []cryptoki.Session{<-token.keepers, <-token.keepers} // so that no load ends
	ctx, cancel := context.WithCancel(t.Context())
	loads := make(chan error, 1)
	go func() { loads <- s.check(token) }()
	name := nameOf(s.req.Key, s.req.Sealed)
	refs := func() int {
		token.live.mu.Lock()
		defer token.live.mu.Unlock()
		if k := token.live.keys[name]; k != nil {
			return k.refs
		}
		return 0
	}
	eventually(t, "a load under way", func() bool { return refs() == 1 })
	waits := make(chan error, 1)
	go func() { waits <- token.Derive(ctx, []DeriveRequest{s.req})[0].Err }()
	eventually(t, "one who waits", func() bool { return refs() == 2 })
	cancel()
	if err := <-waits; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	for _, k := range keepers {
		token.keepers <- k
	}
	if err := <-loads; err != nil {
		t.Error(err)
	}
}
