package pkcs11

import (
	"container/list"
	"crypto/sha256"
	"sync"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// defaultLiveKeys bounds the unwrapped sealed keys of a process where its
// configuration does not. SoftHSM needs about 9 kB for each.
const defaultLiveKeys = 4096

// A liveName names a live key by all that its request says. So a key that is
// loaded answers only to the very blob it was loaded from: whether a blob is
// right never depends on what happens to be loaded.
type liveName struct {
	id     KeyID
	period uint32
	blob   [sha256.Size]byte
}

func nameOf(id KeyID, k SealedKey) liveName {
	return liveName{id: id, period: k.Period, blob: sha256.Sum256(k.Blob)}
}

// A liveKey is a sealed key that was unwrapped into a session object, or is
// about to be.
type liveKey struct {
	name  liveName
	ready chan struct{} // closed by loaded; the next three are written before

	object cryptoki.Object
	owner  cryptoki.Session // the object ends with this session
	err    error

	// Guarded by liveKeys.mu.
	refs  int           // derives that use it or wait for it
	place *list.Element // in idle while it is known and refs is 0
	lost  bool          // the token has no such object any more
}

// liveKeys is a bounded set of live keys, the least recently used going first.
// It calls nobody: objects that are to be destroyed are handed to the caller,
// and no derive can use them then.
//
// A key is in one place: in keys and idle (loaded, not in use), in keys alone
// (in use, or being loaded), in leaving (in use, but nobody gets it any more),
// or nowhere.
type liveKeys struct {
	max int

	mu        sync.Mutex // guards all below
	drained   sync.Cond  // a key has left leaving
	keys      map[liveName]*liveKey
	idle      *list.List // of *liveKey, least recently used first
	leaving   map[*liveKey]struct{}
	forgotten forgotten
}

func newLiveKeys(bound int) *liveKeys {
	if bound == 0 {
		bound = defaultLiveKeys
	}
	l := &liveKeys{max: bound, keys: make(map[liveName]*liveKey), idle: list.New(), leaving: make(map[*liveKey]struct{})}
	l.drained.L = &l.mu
	return l
}

// take returns a key, which the caller must give back, or nil if it was
// forgotten. If cold is true the caller loads the key, after it has destroyed
// the evicted ones, and says what came of it by loaded; else it waits for
// ready. A key in use is never evicted: with all in use the bound is exceeded,
// by no more than there are derives at once.
func (l *liveKeys) take(name liveName) (k *liveKey, cold bool, evicted []cryptoki.Object) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.forgotten.has(name.id) {
		return nil, false, nil
	}
	if k = l.keys[name]; k != nil {
		k.refs++
		if k.place != nil {
			l.idle.Remove(k.place)
			k.place = nil
		}
		return k, false, nil
	}
	for len(l.keys) >= l.max && l.idle.Len() > 0 {
		old := l.idle.Front().Value.(*liveKey)
		l.remove(old)
		evicted = append(evicted, old.object)
	}
	k = &liveKey{name: name, ready: make(chan struct{}), refs: 1}
	l.keys[name] = k
	return k, true, evicted
}

// loaded tells those who wait for k. A key that could not be loaded is not
// kept: the next request tries again.
func (l *liveKeys) loaded(k *liveKey, o cryptoki.Object, owner cryptoki.Session, err error) {
	l.mu.Lock()
	k.object, k.owner, k.err = o, owner, err
	if err != nil {
		k.lost = true
		l.remove(k)
	}
	l.mu.Unlock()
	close(k.ready)
}

// release gives back what take returned.
func (l *liveKeys) release(k *liveKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k.refs--
	if k.refs > 0 {
		return
	}
	if _, ok := l.leaving[k]; ok {
		delete(l.leaving, k)
		l.drained.Broadcast()
	} else if l.keys[k.name] == k {
		k.place = l.idle.PushBack(k)
	}
}

// remove makes k unknown. The caller holds mu.
func (l *liveKeys) remove(k *liveKey) {
	if l.keys[k.name] != k {
		return
	}
	delete(l.keys, k.name)
	if k.place != nil {
		l.idle.Remove(k.place)
		k.place = nil
	}
	if k.refs > 0 {
		l.leaving[k] = struct{}{}
	}
}

// drop removes the keys that match, waits until no derive uses one of them, and
// returns their objects.
func (l *liveKeys) drop(match func(liveName) bool) []cryptoki.Object {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropLocked(match)
}

func (l *liveKeys) dropLocked(match func(liveName) bool) (objects []cryptoki.Object) {
	var mine []*liveKey
	for name, k := range l.keys {
		if match(name) {
			l.remove(k)
			mine = append(mine, k)
		}
	}
	// Those that another removed are awaited too.
	for {
		waiting := false
		for k := range l.leaving {
			waiting = waiting || match(k.name)
		}
		if !waiting {
			break
		}
		l.drained.Wait()
	}
	for _, k := range mine {
		if !k.lost {
			objects = append(objects, k.object)
		}
	}
	return objects
}

// forget is drop for one id, which take refuses from now on.
func (l *liveKeys) forget(id KeyID) []cryptoki.Object {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgotten.add(id)
	return l.dropLocked(func(n liveName) bool { return n.id == id })
}

// admit undoes forget: the id is imported anew.
func (l *liveKeys) admit(id KeyID) {
	l.mu.Lock()
	l.forgotten.remove(id)
	l.mu.Unlock()
}

// ended removes the keys whose session has ended, without waiting: the objects
// are gone already, and who derives with one finds out.
func (l *liveKeys) ended(owner cryptoki.Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.keys {
		if k.object != 0 && k.owner == owner {
			k.lost = true
			l.remove(k)
		}
	}
	for k := range l.leaving {
		if k.object != 0 && k.owner == owner {
			k.lost = true
		}
	}
}

// vanished removes a key that the token turned out not to have any more.
func (l *liveKeys) vanished(k *liveKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k.lost = true
	l.remove(k)
}

// maxForgotten is how many forgotten ids are remembered at least. A request
// that was on its way when its key was forgotten is answered within seconds; it
// would take this many revocations in that time to forget that one was
// forgotten.
const maxForgotten = 1 << 17

// forgotten is a bounded set of ids: two generations, of which the older is
// dropped when the younger is full. The zero value is empty.
type forgotten struct{ young, old map[KeyID]struct{} }

func (f *forgotten) add(id KeyID) {
	if len(f.young) >= maxForgotten {
		f.young, f.old = nil, f.young
	}
	if f.young == nil {
		f.young = make(map[KeyID]struct{})
	}
	f.young[id] = struct{}{}
}

func (f *forgotten) has(id KeyID) bool {
	_, young := f.young[id]
	_, old := f.old[id]
	return young || old
}

func (f *forgotten) remove(id KeyID) {
	delete(f.young, id)
	delete(f.old, id)
}
