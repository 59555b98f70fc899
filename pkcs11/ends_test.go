package pkcs11

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// destroyable is CKA_DESTROYABLE, which no key of ours has as false.
const destroyable = 0x172

// aKey is one that a test imported.
type aKey struct {
	id    KeyID
	key   *ecdh.PrivateKey
	check KeyCheck
}

// importTogether imports n keys at once.
func importTogether(t *testing.T, p *Pool, n int, wrap func(*ecdh.PrivateKey) []byte) []aKey {
	t.Helper()
	keys := make([]aKey, n)
	var all sync.WaitGroup
	for i := range keys {
		k := &keys[i]
		k.id, k.key = newID(), newKey(t)
		blob := wrap(k.key)
		all.Go(func() {
			var err error
			if k.check, err = p.Import(t.Context(), k.id, OAEPDirect, blob); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return keys
}

// endTogether ends keys in one group, as far as it holds them, and returns what was said of each.
func endTogether(t *testing.T, p *Pool, keys []aKey) []error {
	t.Helper()
	var ends []EndingKey
	for _, k := range keys {
		ends = append(ends, EndingKey{ID: k.id, Check: k.check})
	}
	return p.DestroyKeys(t.Context(), ends...)
}

// together has n callers wait for one group, as far as it holds them, and returns when all were answered.
func together[M interface {
	comparable
	common() *member
}](t *testing.T, g *groups[M], n int, call func(i int)) {
	t.Helper()
	g.lead <- struct{}{} // until all wait
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { call(i) })
	}
	eventually(t, "a group", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.waiting) == n
	})
	<-g.lead
	all.Wait()
}

// derives asks both workers for a key.
func (k *aKey) derives(t *testing.T, p *Pool) error {
	t.Helper()
	r, want := request(t, k.id, k.key)
	for _, got := range p.Derive(t.Context(), slices.Repeat([]DeriveRequest{r}, 8)) {
		if got.Err != nil {
			return got.Err
		}
		if got.X != want {
			return errors.New("another key")
		}
	}
	return nil
}

// held are the keys in the token as a process sees them that has just started.
func held(t *testing.T, profile Profile) []KeyID {
	t.Helper()
	token := open(t, profile, User, 1)
	defer token.Close()
	ids, err := token.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func sameKeys(t *testing.T, got []KeyID, want ...KeyID) {
	t.Helper()
	order := func(a, b KeyID) int { return bytes.Compare(a[:], b[:]) }
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	if !slices.Equal(got, want) {
		t.Errorf("the token holds %d keys, want %d: %v, %v", len(got), len(want), got, want)
	}
}

// TestEndsInGroups: keys that end at once share their searches, and each has an answer of its own. While no worker ran a host with the PIN destroyed one of them, gave
// two others each other's ids, hid a fourth, and made one under a fifth's id that cannot be destroyed.
func TestEndsInGroups(t *testing.T) {
	profile, public := ceremony(t)
	first := pool(t, profile, nil)
	const n = 24
	keys := importTogether(t, first, n, func(k *ecdh.PrivateKey) []byte { return wrappedKey(t, public, k) })
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	const gone, one, other, hidden, twin, wrong, stays, spared = 3, 5, 7, 9, 11, 13, 15, 20 // and those from the last on are not in the group
	stuck := newID()

	host := open(t, profile, User, 1)
	err := host.do(t.Context(), host.slow, "attacking", func(s cryptoki.Session) error {
		object := func(n int) cryptoki.Object {
			found, err := host.module.Find(s, byID(keys[n].id))
			if err != nil || len(found) != 1 {
				t.Fatalf("%d objects, %v", len(found), err)
			}
			return found[0]
		}
		name := func(o cryptoki.Object, id KeyID, label string) error {
			return host.module.SetAttributes(s, o, []cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_ID, id[:]), cryptoki.Bytes(cryptoki.CKA_LABEL, []byte(label))})
		}
		make := func(id KeyID) error {
			_, _, err := host.module.GenerateKeyPair(s, cryptoki.Plain(cryptoki.CKM_EC_KEY_PAIR_GEN),
				[]cryptoki.Attribute{cryptoki.Bool(cryptoki.CKA_TOKEN, false), cryptoki.Bytes(cryptoki.CKA_EC_PARAMS, p256Params)},
				append([]cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_LABEL, []byte(rekeyLabel)), cryptoki.Bytes(cryptoki.CKA_ID, id[:]), off(destroyable)}, host.rekey...))
			return err
		}
		a, b := object(one), object(other)
		return errors.Join(
			host.module.DestroyObject(s, object(gone)),
			name(a, keys[other].id, rekeyLabel), name(b, keys[one].id, rekeyLabel),
			name(object(hidden), newID(), "nothing to see"),
			make(keys[twin].id), make(stuck),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	host.Close()

	p := pool(t, profile, nil)
	group := slices.Clone(keys[:spared])
	group[wrong].check[0] ^= 1
	group[stays] = aKey{id: stuck}
	before := p.Calls()
	errs := endTogether(t, p, group)
	if searches := p.Calls()["C_FindObjectsInit"] - before["C_FindObjectsInit"]; searches > 10 {
		t.Errorf("%d searches for the end of %d keys", searches, len(group))
	}
	for i, err := range errs {
		var want error
		switch i {
		case gone, wrong:
			want = ErrKeyMissing
		case one, other, hidden:
			want = ErrKeyRenamed
		case stays:
			want = ErrRefused
		}
		if !errors.Is(err, want) {
			t.Errorf("end %d: %v, want %v", i, err, want)
		}
	}
	left := []KeyID{keys[twin].id, keys[wrong].id, keys[stays].id, stuck}
	for _, k := range keys[spared:] {
		left = append(left, k.id)
		if err := k.derives(t, p); err != nil {
			t.Errorf("a key that was not to end: %v", err)
		}
	}
	sameKeys(t, held(t, profile), left...)
	for i, k := range slices.Delete(group, stays, stays+1) {
		if err := k.derives(t, p); !errors.Is(err, ErrKeyMissing) {
			t.Errorf("key %d, which was to end: %v", i, err)
		}
	}
}

// TestEndOfAKeyThatKillsWorkers: the others of its group end all the same.
func TestEndOfAKeyThatKillsWorkers(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, func(c *PoolConfig) { c.Env = append(workerEnv(), "SALLYPORT_TEST_PLAYS=fragile worker") })
	keys := importTogether(t, p, 8, func(k *ecdh.PrivateKey) []byte { return wrappedKey(t, public, k) })
	killer := aKey{id: KeyID(poison[:32])}
	group := append(slices.Clone(keys[:3]), append([]aKey{killer}, keys[3:6]...)...)
	for i, err := range endTogether(t, p, group) {
		if i == 3 && !errors.Is(err, ErrTokenBroken) || i != 3 && err != nil {
			t.Errorf("end %d: %v", i, err)
		}
	}
	sameKeys(t, held(t, profile), keys[6].id, keys[7].id)
	for _, k := range keys[6:] {
		if err := k.derives(t, p); err != nil {
			t.Error(err)
		}
	}
}

// TestEndsOfOneProcess: each of the keys that one process is asked to destroy has an answer of its own, by its own check value, also behind one that cannot be destroyed.
func TestEndsOfOneProcess(t *testing.T) {
	token, public := ready(t, 1)
	const anyKey, stuck, twin, wrong, missing, known, renamed, n = 0, 1, 2, 3, 4, 5, 6, 7
	var ids [n]KeyID
	var checks [n]KeyCheck
	for i := range ids {
		if ids[i] = newID(); i == stuck || i == missing {
			continue
		}
		xs, errs := token.importKeys(t.Context(), []WrappedKey{{ids[i], OAEPDirect, wrappedKey(t, public, newKey(t))}})
		if errs[0] != nil {
			t.Fatal(errs[0])
		}
		if checks[i] = checkOf(&xs[0]); i == anyKey {
			checks[i] = KeyCheck{}
		}
	}
	checks[wrong][0] ^= 1
	err := token.do(t.Context(), token.slow, "making keys as a host", func(s cryptoki.Session) error {
		make := func(id KeyID, more ...cryptoki.Attribute) error {
			_, _, err := token.module.GenerateKeyPair(s, cryptoki.Plain(cryptoki.CKM_EC_KEY_PAIR_GEN),
				[]cryptoki.Attribute{cryptoki.Bool(cryptoki.CKA_TOKEN, false), cryptoki.Bytes(cryptoki.CKA_EC_PARAMS, p256Params)},
				append(append([]cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_LABEL, []byte(rekeyLabel)), cryptoki.Bytes(cryptoki.CKA_ID, id[:])}, more...), token.rekey...))
			return err
		}
		return errors.Join(make(ids[twin]), make(ids[stuck], off(destroyable)))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Keys(t.Context()); err != nil {
		t.Fatal(err)
	}
	elsewhere := newID()
	err = token.do(t.Context(), token.slow, "renaming", func(s cryptoki.Session) error {
		return token.module.SetAttributes(s, token.keys[ids[renamed]], []cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_ID, elsewhere[:])})
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range token.destroyKnown(t.Context(), ids[stuck:], checks[stuck:]) {
		i += stuck
		want := ErrKeyMissing // of the twins it knows neither, and what it knew under another name is for who searches
		switch i {
		case stuck:
			want = ErrRefused
		case known:
			want = nil
		}
		if !errors.Is(err, want) {
			t.Errorf("key %d, known: %v, want %v", i, err, want)
		}
	}
	for i, err := range token.destroyKeys(t.Context(), ids[:known], checks[:known]) {
		want := []error{anyKey: nil, stuck: ErrRefused, twin: nil, wrong: ErrKeyMissing, missing: ErrKeyMissing}[i]
		if !errors.Is(err, want) {
			t.Errorf("key %d: %v, want %v", i, err, want)
		}
	}
	left, err := token.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sameKeys(t, left, ids[stuck], ids[twin], ids[wrong], elsewhere)
	if token.forget(ids[wrong], ids[twin]); token.knows(ids[wrong]) || token.knows(ids[twin]) {
		t.Error("forgotten, and known to Derive")
	}
	// Who looks for what is left goes by each key's own check value too, and looks at all.
	for i, err := range token.gone(t.Context(), []KeyID{ids[missing], ids[stuck], ids[twin], ids[wrong], ids[twin]}, []KeyCheck{{}, {}, checks[twin], checks[wrong], {}}) {
		want := []error{nil, ErrTokenBroken, nil, nil, ErrTokenBroken}[i]
		if !errors.Is(err, want) {
			t.Errorf("look %d: %v, want %v", i, err, want)
		}
	}
}

// TestEndsThatOneWorkerKnows: a host with the PIN hid keys, and a worker that started since cannot find them. The other, which knows their handles, is asked, and each has an answer of its own.
func TestEndsThatOneWorkerKnows(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, nil)
	keys := importTogether(t, p, 2, func(k *ecdh.PrivateKey) []byte { return wrappedKey(t, public, k) })
	asHost(t, profile, func(host *Token, s cryptoki.Session) (err error) {
		for i := range keys {
			found, e := host.module.Find(s, byID(keys[i].id))
			err = errors.Join(err, e)
			if len(found) != 1 {
				t.Fatalf("%d objects, %v", len(found), err)
			}
			hidden := newID()
			err = errors.Join(err, host.module.SetAttributes(s, found[0], []cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_ID, hidden[:]), cryptoki.Bytes(cryptoki.CKA_LABEL, []byte("nothing to see"))}))
		}
		return err
	})
	before := p.pids()
	if err := syscall.Kill(before[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "two workers again", func() bool {
		now := p.pids()
		return len(now) == 2 && now[0] == before[1]
	})
	p.mu.Lock()
	p.turn = 0 // the newer is asked next
	p.mu.Unlock()
	for i, err := range p.DestroyKeys(t.Context(), EndingKey{ID: newID()}, EndingKey{ID: keys[0].id}, EndingKey{ID: keys[1].id}) {
		if i == 0 && !errors.Is(err, ErrKeyMissing) || i > 0 && err != nil {
			t.Errorf("end %d: %v", i, err)
		}
	}
	asHost(t, profile, func(host *Token, s cryptoki.Session) error {
		left, err := host.module.Find(s, []cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_LABEL, []byte("nothing to see"))})
		if len(left) > 0 {
			t.Errorf("%d keys are left", len(left))
		}
		return err
	})
}

// TestEndsThatAWorkerLeavesOut: of a key about which a worker says nothing nothing is known.
func TestEndsThatAWorkerLeavesOut(t *testing.T) {
	group := []*pendingEnd{{member: memberFor(newID())}, {member: memberFor(newID())}, {member: memberFor(newID())}}
	answer(group, reply{Faults: faultsOf([]error{nil, &Error{Op: "destroying key", Kind: ErrKeyMissing}})}, nil)
	for i, want := range []error{nil, ErrKeyMissing, ErrTokenBroken} {
		if err := group[i].err; !errors.Is(err, want) {
			t.Errorf("key %d: %v, want %v", i, err, want)
		}
	}
}

// TestEndsWhileWorkersDie: workers are killed in the middle of groups, again and again. Every key is gone when its end is acknowledged, and no other.
func TestEndsWhileWorkersDie(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, nil)
	const n = 60
	keys := importTogether(t, p, n+4, func(k *ecdh.PrivateKey) []byte { return wrappedKey(t, public, k) })
	stop := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		for range 4 {
			select {
			case <-stop:
				return
			case <-time.After(40 * time.Millisecond):
			}
			p.mu.Lock()
			var pids []int
			for _, w := range p.workers {
				pids = append(pids, w.cmd.Process.Pid)
			}
			p.mu.Unlock()
			for _, pid := range pids {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
	errs := endTogether(t, p, keys[:n])
	close(stop)
	killer.Wait()
	clean, missing := 0, 0
	for i, err := range errs {
		switch {
		case err == nil:
			clean++
		case errors.Is(err, ErrKeyMissing): // the worker that died had destroyed it
			missing++
		default:
			t.Errorf("end %d: %v", i, err)
		}
	}
	t.Logf("%d ends were seen to the end, %d keys were gone when it was asked again", clean, missing)
	var left []KeyID
	for _, k := range keys[n:] {
		left = append(left, k.id)
		if err := k.derives(t, p); err != nil {
			t.Error(err)
		}
	}
	sameKeys(t, held(t, profile), left...)
	// Workers that started while keys were there do not know them any more.
	var all sync.WaitGroup
	for _, k := range keys[:n] {
		all.Go(func() {
			if _, err := p.Import(t.Context(), k.id, OAEPDirect, wrappedKey(t, public, k.key)); err != nil {
				t.Errorf("the same key anew: %v", err)
			}
		})
	}
	all.Wait()
}

// TestEndSeenByAnother: while a group ends, somebody puts the files of one of its keys back, which the worker that destroyed it does not notice. The key is gone all the same when its end
// is acknowledged, and so are the others.
func TestEndSeenByAnother(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, nil)
	files := func() map[string][]byte {
		all := map[string][]byte{}
		names, err := filepath.Glob(filepath.Join(profile.Folder, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if all[name], err = os.ReadFile(name); err != nil {
				t.Fatal(err)
			}
		}
		return all
	}
	wrap := func(k *ecdh.PrivateKey) []byte { return wrappedKey(t, public, k) }
	before := files()
	keys := importTogether(t, p, 1, wrap)
	back := files()
	for name := range before {
		delete(back, name)
	}
	if len(back) != 2 {
		t.Fatalf("%d new files, want an object and its lock", len(back))
	}
	keys = append(keys, importTogether(t, p, 15, wrap)...)
	stop, restored := make(chan struct{}), make(chan int, 1)
	go func() {
		n := 0
		for n == 0 {
			gone := 0
			for name := range back {
				if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) {
					gone++
				}
			}
			if gone == len(back) {
				for name, data := range back {
					if os.WriteFile(name, data, 0o600) == nil {
						n++
					}
				}
			}
			if ended(stop) {
				break
			}
		}
		restored <- n
	}()
	errs := endTogether(t, p, keys)
	close(stop)
	if n := <-restored; n != len(back) {
		t.Fatalf("%d files were put back", n)
	}
	for i, err := range errs {
		if err != nil {
			t.Errorf("end %d: %v", i, err)
		}
	}
	sameKeys(t, held(t, profile))
}

// TestEndWithdrawn: who stops waiting before a group took the key up, or whose pool is closed, is told so, and the key stays.
func TestEndWithdrawn(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, nil)
	key := importTogether(t, p, 1, func(k *ecdh.PrivateKey) []byte { return wrappedKey(t, public, k) })[0]
	p.ends.lead <- struct{}{} // nobody leads a group
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.DestroyKeys(ctx, EndingKey{ID: key.id, Check: key.check})[0]; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waited in vain: %v", err)
	}
	closed := make(chan error)
	go func() {
		closed <- p.DestroyKeys(context.WithoutCancel(ctx), EndingKey{ID: key.id, Check: key.check})[0]
	}()
	eventually(t, "another who waits", func() bool {
		p.ends.mu.Lock()
		defer p.ends.mu.Unlock()
		return len(p.ends.waiting) == 1
	})
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-closed; !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	sameKeys(t, held(t, profile), key.id)
}

// asHost does something as another process with the PIN, while the pool runs.
func asHost(t *testing.T, profile Profile, does func(host *Token, s cryptoki.Session) error) {
	t.Helper()
	host := open(t, profile, User, 1)
	defer host.Close()
	if err := host.do(t.Context(), host.slow, "attacking", func(s cryptoki.Session) error { return does(host, s) }); err != nil {
		t.Fatal(err)
	}
}

// TestEndWhenTheLookerDies: a key is in the token twice, which the worker that knows it does not find out, and the one that is to look for what is left dies. When the end is acknowledged, no such
// key is there. dies is the call that kills a worker, once.
func TestEndWhenTheLookerDies(t *testing.T) {
	for _, dies := range []string{"gone", "destroyKnown", "destroy", "none"} {
		t.Run(dies, func(t *testing.T) {
			profile, public := ceremony(t)
			p := pool(t, profile, func(c *PoolConfig) {
				c.Env = append(workerEnv(), "SALLYPORT_TEST_PLAYS=fragile worker", "SALLYPORT_TEST_DIES="+dies+":"+filepath.Join(t.TempDir(), "died"))
			})
			var blob []byte // of the last
			keys := importTogether(t, p, 40, func(k *ecdh.PrivateKey) []byte {
				blob = wrappedKey(t, public, k)
				return bytes.Clone(blob)
			})
			twin := len(keys) - 1
			asHost(t, profile, func(host *Token, s cryptoki.Session) error {
				again := WrappedKey{ID: keys[twin].id, Path: OAEPDirect, Wrapped: blob}
				_, err := host.unwrap(s, Resident, again.Path, again.Wrapped, again.named()...)
				return err
			})
			errs := endTogether(t, p, keys)
			left := held(t, profile)
			for i, err := range errs {
				if err != nil && !errors.Is(err, ErrKeyMissing) { // which one may be told of whose worker died
					t.Errorf("end %d: %v", i, err)
				}
				if slices.Contains(left, keys[i].id) {
					t.Errorf("the end of key %d is acknowledged (%v), and it is in the token", i, err)
				}
			}
		})
	}
}

// TestNamesOfAHost: a host with the PIN makes a private key with a label longer than anybody reads, and gives one of ours an id of a hundred bytes. Imports go on, no worker is killed for it, and
// all keys end, that one too.
func TestNamesOfAHost(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, nil)
	wrap := func(k *ecdh.PrivateKey) []byte { return wrappedKey(t, public, k) }
	keys := importTogether(t, p, 4, wrap)
	asHost(t, profile, func(host *Token, s cryptoki.Session) error {
		_, _, err := host.module.GenerateKeyPair(s, cryptoki.Plain(cryptoki.CKM_EC_KEY_PAIR_GEN),
			[]cryptoki.Attribute{cryptoki.Bool(cryptoki.CKA_TOKEN, false), cryptoki.Bytes(cryptoki.CKA_EC_PARAMS, p256Params)},
			[]cryptoki.Attribute{cryptoki.Bool(cryptoki.CKA_TOKEN, true), cryptoki.Bool(cryptoki.CKA_PRIVATE, true), cryptoki.Bytes(cryptoki.CKA_LABEL, make([]byte, 1<<20+1))})
		if err != nil {
			return err
		}
		found, err := host.module.Find(s, byID(keys[1].id))
		if err != nil || len(found) != 1 {
			t.Fatalf("%d objects, %v", len(found), err)
		}
		return host.module.SetAttributes(s, found[0], []cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_ID, make([]byte, 100))})
	})
	workers := func() (pids []int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, w := range p.workers {
			pids = append(pids, w.cmd.Process.Pid)
		}
		slices.Sort(pids)
		return pids
	}
	before := workers()
	keys = append(keys, importTogether(t, p, 4, wrap)...)
	for i, err := range endTogether(t, p, keys) {
		if err != nil && !(i == 1 && errors.Is(err, ErrKeyRenamed)) {
			t.Errorf("end %d: %v", i, err)
		}
	}
	if after := workers(); !slices.Equal(before, after) {
		t.Errorf("workers %v, were %v", after, before)
	}
	sameKeys(t, held(t, profile))
	asHost(t, profile, func(host *Token, s cryptoki.Session) error {
		left, err := host.module.Find(s, rekeys())
		if len(left) > 0 {
			t.Errorf("%d keys are left under other ids", len(left))
		}
		return err
	})
}

// TestEndsOfWhoLeft: a caller leaves while the first of several groups is on its way. What was not taken up by then stays, and the caller is told so.
func TestEndsOfWhoLeft(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, nil)
	keys := importTogether(t, p, 12, func(k *ecdh.PrivateKey) []byte { return wrappedKey(t, public, k) })
	p.ends.most = 1
	ctx, leave := context.WithCancel(t.Context())
	p.admin.Lock()
	done := make(chan []error)
	go func() {
		var ends []EndingKey
		for _, k := range keys {
			ends = append(ends, EndingKey{ID: k.id, Check: k.check})
		}
		done <- p.DestroyKeys(ctx, ends...)
	}()
	eventually(t, "the first group", func() bool {
		p.ends.mu.Lock()
		defer p.ends.mu.Unlock()
		return len(p.ends.waiting) == len(keys)-1
	})
	leave()
	p.admin.Unlock()
	var left []KeyID
	for i, err := range <-done {
		if i == 0 && err != nil || i > 0 && !errors.Is(err, context.Canceled) {
			t.Errorf("end %d: %v", i, err)
		}
		if i > 0 {
			left = append(left, keys[i].id)
		}
	}
	sameKeys(t, held(t, profile), left...)
	// Another who leads does not take up what the one who left has not taken back yet.
	waits, gone := &pendingEnd{member: memberFor(newID())}, &pendingEnd{member: memberFor(newID())}
	gone.left = ctx.Done()
	g := groups[*pendingEnd]{most: 2, waiting: []*pendingEnd{gone, waits}}
	if group := g.next(); !slices.Equal(group, []*pendingEnd{waits}) {
		t.Errorf("a group of %d, with who left in it: %t", len(group), slices.Contains(group, gone))
	}
}
