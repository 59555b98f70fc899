package pkcs11

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// unseen has another process do something in the token that those that run do not notice: what SoftHSM counts changes in is as it was. That is what a write of it that fails leaves.
func unseen(t *testing.T, profile Profile, does func(host *Token, s cryptoki.Session) error) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(profile.Folder, "*", "generation"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	before, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	asHost(t, profile, does)
	if after, err := os.ReadFile(files[0]); err != nil || bytes.Equal(before, after) {
		t.Fatalf("nothing to hide: %v", err)
	}
	if err := os.WriteFile(files[0], before, 0o600); err != nil {
		t.Fatal(err)
	}
}

// bring is an import of which nobody was told.
func (k *WrappedKey) bring(host *Token, s cryptoki.Session) error {
	_, err := host.unwrap(s, Resident, k.Path, k.Wrapped, k.named()...)
	return err
}

// resting counts the objects that a process sees under a name which has just started.
func resting(t *testing.T, profile Profile, id KeyID) (n int) {
	t.Helper()
	asHost(t, profile, func(host *Token, s cryptoki.Session) error {
		found, err := host.module.Find(s, byID(id))
		n = len(found)
		return err
	})
	return n
}

// TestImportAfterOneThatNobodySaw: an import left its key in the token, and no worker knows. The key is imported again, and lies there once.
func TestImportAfterOneThatNobodySaw(t *testing.T) {
	for _, workers := range []int{1, 2} {
		profile, public := ceremony(t)
		p := pool(t, profile, func(c *PoolConfig) { c.Workers = workers })
		k := aKey{id: newID(), key: newKey(t)}
		w := WrappedKey{ID: k.id, Path: OAEPDirect, Wrapped: wrappedKey(t, public, k.key)}
		unseen(t, profile, w.bring)
		if _, err := p.Import(t.Context(), w.ID, w.Path, w.Wrapped); err != nil {
			t.Fatalf("%d workers: %v", workers, err)
		}
		if err := k.derives(t, p); err != nil {
			t.Errorf("%d workers: %v", workers, err)
		}
		if n := resting(t, profile, k.id); n != 1 {
			t.Errorf("%d workers: the key lies %d times in the token", workers, n)
		}
	}
}

// TestWitnessOfTwo: what a process knew before another imported the key is not what the other made.
func TestWitnessOfTwo(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, func(c *PoolConfig) { c.Workers = 1 })
	w := WrappedKey{ID: newID(), Path: OAEPDirect, Wrapped: wrappedKey(t, public, newKey(t))}
	asHost(t, profile, func(host *Token, s cryptoki.Session) error { // who joins between two tries of an import
		if err := w.bring(host, s); err != nil {
			return err
		}
		host.slow <- s
		ids, err := host.Keys(t.Context())
		<-host.slow
		if err != nil || !slices.Equal(ids, []KeyID{w.ID}) {
			t.Errorf("%v, %v", ids, err)
		}
		r, err := p.workers[0].call(call{Method: "import", Imports: []WrappedKey{w}}, p.config.SlowTimeout)
		if err != nil || r.Faults[0].err() != nil {
			t.Errorf("%v, %v", err, r.Faults)
		}
		host.slow <- s
		_, err = host.witness(t.Context(), []KeyID{w.ID})
		<-host.slow
		if !errors.Is(err, ErrKeyExists) {
			t.Errorf("two keys: %v", err)
		}
		return nil
	})
}

// TestFailedImportThatNobodySaw: imports fail, and what they left is destroyed although no worker knows of it.
func TestFailedImportThatNobodySaw(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, nil)
	w := []WrappedKey{{Wrapped: wrappedKey(t, public, newKey(t))}, {Wrapped: wrappedKey(t, public, newKey(t))}, {}}
	var left []*pendingEnd
	for i := range w {
		w[i].ID, w[i].Path = newID(), OAEPDirect
		left = append(left, &pendingEnd{member: memberFor(w[i].ID)})
	}
	unseen(t, profile, func(host *Token, s cryptoki.Session) error {
		return errors.Join(w[0].bring(host, s), w[1].bring(host, s))
	})
	p.admin.Lock()
	p.endAll(left)
	p.admin.Unlock()
	for i, e := range left {
		if i < 2 && e.err != nil || i == 2 && !errors.Is(e.err, ErrKeyMissing) {
			t.Errorf("key %d: %v", i, e.err)
		}
	}
	sameKeys(t, held(t, profile))
	if _, err := p.Import(t.Context(), w[1].ID, w[1].Path, w[1].Wrapped); err != nil {
		t.Errorf("anew: %v", err)
	}
}

// importKept imports a key, and returns it with what it was wrapped in, which brings it once more.
func importKept(t *testing.T, p *Pool, public *rsa.PublicKey) (key aKey, w WrappedKey) {
	t.Helper()
	key = importTogether(t, p, 1, func(k *ecdh.PrivateKey) []byte {
		w = WrappedKey{Path: OAEPDirect, Wrapped: wrappedKey(t, public, k)}
		return bytes.Clone(w.Wrapped)
	})[0]
	w.ID = key.id
	return key, w
}

// TestEndOfTwoOfWhichOneIsUnseen: a key lies in the token twice, and the worker that ends it knows of one, also when it is asked again. The end is acknowledged when both are gone.
func TestEndOfTwoOfWhichOneIsUnseen(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, func(c *PoolConfig) { c.Workers = 1 })
	key, w := importKept(t, p, public)
	unseen(t, profile, w.bring)
	if n := resting(t, profile, key.id); n != 2 {
		t.Fatalf("%d keys: nothing is tested", n)
	}
	if err := endTogether(t, p, []aKey{key})[0]; err != nil {
		t.Error(err)
	}
	if n := resting(t, profile, key.id); n > 0 {
		t.Errorf("the key lies %d times in the token", n)
	}
}

// TestEndWhoseWorkerDiedOfTwo: the worker that ends a key is killed when the object that it knows is destroyed and nobody could notice yet, and no other knows of the second. Nothing is acknowledged before that is gone too.
func TestEndWhoseWorkerDiedOfTwo(t *testing.T) {
	profile, public := ceremony(t)
	died := filepath.Join(t.TempDir(), "died")
	p := pool(t, profile, func(c *PoolConfig) {
		c.Env = append(workerEnv(), "SALLYPORT_TEST_PLAYS=fragile worker", "SALLYPORT_TEST_DIES=destroyKnown:"+died)
	})
	folder := filepath.Join(profile.Folder, "*", "*.object")
	before, err := filepath.Glob(folder)
	if err != nil {
		t.Fatal(err)
	}
	key, w := importKept(t, p, public)
	after, err := filepath.Glob(folder)
	if err != nil {
		t.Fatal(err)
	}
	after = slices.DeleteFunc(after, func(name string) bool { return slices.Contains(before, name) })
	if len(after) != 1 || os.WriteFile(died+".object", []byte(after[0]), 0o600) != nil {
		t.Fatalf("%d files were made", len(after))
	}
	unseen(t, profile, w.bring)
	p.starting.Lock() // a machine that is busy: it takes a while until the dead one has a successor, at whose login the others look
	time.AfterFunc(time.Second, p.starting.Unlock)
	if err := endTogether(t, p, []aKey{key})[0]; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(died); err != nil {
		t.Errorf("no worker died: %v", err)
	}
	if n := resting(t, profile, key.id); n > 0 {
		t.Errorf("the key lies %d times in the token", n)
	}
}

// halve has a process import a key and be killed before the last of SoftHSM's writes of its object: label and name are there, curve and value are not.
func halve(t *testing.T, profile Profile, w *WrappedKey) {
	t.Helper()
	folder := filepath.Join(profile.Folder, "*", "*.object")
	before, err := filepath.Glob(folder)
	if err != nil {
		t.Fatal(err)
	}
	asHost(t, profile, w.bring)
	after, err := filepath.Glob(folder)
	if err != nil {
		t.Fatal(err)
	}
	after = slices.DeleteFunc(after, func(name string) bool { return slices.Contains(before, name) })
	if len(after) != 1 {
		t.Fatalf("%d files were made", len(after))
	}
	object, err := os.ReadFile(after[0])
	if err != nil {
		t.Fatal(err)
	}
	// A number that counts changes; then for each attribute its type, the kind of its value, and the value: a byte, a number, or a length and bytes.
	half, emptied := slices.Clone(object[:8]), 0
	for rest := object[8:]; len(rest) > 0; {
		n := len(rest) // lists come last
		switch binary.BigEndian.Uint64(rest[8:]) {
		case 1:
			n = 17
		case 2:
			n = 24
		case 3:
			n = 24 + int(binary.BigEndian.Uint64(rest[16:]))
		}
		switch typ := binary.BigEndian.Uint64(rest); {
		case typ == uint64(cryptoki.CKA_EC_PARAMS) || typ == uint64(cryptoki.CKA_VALUE):
			half = append(append(half, rest[:16]...), make([]byte, 8)...)
			emptied++
		default:
			half = append(half, rest[:n]...)
		}
		rest = rest[n:]
	}
	if emptied != 2 {
		t.Fatalf("%d attributes were emptied", emptied)
	}
	if err := os.WriteFile(after[0], half, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDoublesAtTheStart: of a key that lies in the token twice, or once whole and once half made, one object stays, and every worker derives with it. Of two different keys of one name, and of
// two of which one derives no more, neither is used, and the log names them.
func TestDoublesAtTheStart(t *testing.T) {
	profile, public := ceremony(t)
	first := pool(t, profile, nil)
	var wraps []WrappedKey
	keys := importTogether(t, first, 5, func(k *ecdh.PrivateKey) []byte {
		wraps = append(wraps, WrappedKey{Path: OAEPDirect, Wrapped: wrappedKey(t, public, k)})
		return bytes.Clone(wraps[len(wraps)-1].Wrapped)
	})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	const single, double, half, disputed, off = 0, 1, 2, 3, 4
	for i := range wraps {
		wraps[i].ID = keys[i].id
	}
	other := WrappedKey{ID: keys[disputed].id, Path: OAEPDirect, Wrapped: wrappedKey(t, public, newKey(t))}
	asHost(t, profile, func(host *Token, s cryptoki.Session) error {
		still, err := host.unwrap(s, Resident, OAEPDirect, wraps[off].Wrapped, wraps[off].named()...)
		return errors.Join(err, wraps[double].bring(host, s), wraps[double].bring(host, s), other.bring(host, s),
			host.module.SetAttributes(s, still, []cryptoki.Attribute{cryptoki.Bool(cryptoki.CKA_DERIVE, false)}))
	})
	halve(t, profile, &wraps[half])
	var log logBuffer
	p := pool(t, profile, func(c *PoolConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	c, err := p.Clean(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Disputed) != 2 || !slices.Contains(c.Disputed, keys[disputed].id) || !slices.Contains(c.Disputed, keys[off].id) || c.Surplus != 3 || len(c.Stuck) != 0 {
		t.Errorf("%+v", c)
	}
	for i, want := range []int{single: 1, double: 1, half: 1, disputed: 2, off: 2} {
		if n := resting(t, profile, keys[i].id); n != want {
			t.Errorf("key %d lies %d times in the token, want %d", i, n, want)
		}
		if err := keys[i].derives(t, p); (want == 1) != (err == nil) || want > 1 && !errors.Is(err, ErrKeyMissing) {
			t.Errorf("key %d: %v", i, err)
		}
	}
	if ids, err := p.Keys(t.Context()); err != nil || len(ids) != len(keys) {
		t.Errorf("%d keys, %v", len(ids), err)
	}
	if text := log.String(); !strings.Contains(text, "destroyed=3") || strings.Count(text, keys[disputed].id.String()) != 1 || strings.Count(text, keys[off].id.String()) != 1 || strings.Contains(text, keys[single].id.String()) {
		t.Errorf("the log says:\n%s", text)
	}
}

// TestIndestructibleDoubles: a host with the PIN made copies of a key that nobody can destroy, and an object that looks unfinished. The vault starts, the key is used, the log names it and says what to do,
// and the end of the key is not acknowledged while one is there; of what can be destroyed nothing stays.
func TestIndestructibleDoubles(t *testing.T) {
	profile, public := ceremony(t)
	first := pool(t, profile, nil)
	key, w := importKept(t, first, public)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	asHost(t, profile, func(host *Token, s cryptoki.Session) error {
		for range 2 { // whichever object is used, another cannot be destroyed
			if _, err := host.unwrap(s, Resident, w.Path, w.Wrapped, append(w.named(), off(destroyable))...); err != nil {
				return err
			}
		}
		_, err := host.module.CreateObject(s, []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_DATA), on(cryptoki.CKA_TOKEN), off(destroyable)})
		return err
	})
	for range 2 { // the next start is like it
		var log logBuffer
		p := pool(t, profile, func(c *PoolConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		c, err := p.Clean(t.Context())
		if err != nil || !slices.Equal(c.Stuck, []KeyID{key.id}) || len(c.Disputed) != 0 || c.Nameless != 1 {
			t.Fatalf("%+v, %v", c, err)
		}
		if text := log.String(); strings.Count(text, "CKA_DESTROYABLE") != 1 || !strings.Contains(text, "key="+key.id.String()+` label="`+rekeyLabel+`"`) || !strings.Contains(text, "objects=1") {
			t.Errorf("the log says:\n%s", text)
		}
		if err := key.derives(t, p); err != nil {
			t.Error(err)
		}
		if err := endTogether(t, p, []aKey{key})[0]; !errors.Is(err, ErrRefused) {
			t.Errorf("the end of the key: %v", err)
		}
		if n := resting(t, profile, key.id); n != 2 {
			t.Errorf("%d objects are left, want the two that nobody can destroy", n)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSessionEndsAfterARefusal: the token refuses to destroy the first of a key's objects, and the session ends at the second: that is what is judged, so that the session goes no further. A refusal alone
// keeps no other object from its end.
func TestSessionEndsAfterARefusal(t *testing.T) {
	const stays, gone = cryptoki.CKR_ACTION_PROHIBITED, cryptoki.CKR_SESSION_HANDLE_INVALID
	for _, c := range []struct {
		says  []error
		want  error
		tried int
	}{
		{[]error{stays, gone, nil}, gone, 2},
		{[]error{gone, stays, nil}, gone, 1},
		{[]error{stays, nil, nil}, stays, 3},
		{[]error{nil, nil, nil}, nil, 3},
	} {
		tried := 0
		err := destroyAll([]cryptoki.Object{0, 1, 2}, func(o cryptoki.Object) error { tried++; return c.says[o] })
		if err != c.want || tried != c.tried {
			t.Errorf("%v: %v after %d objects, want %v after %d", c.says, err, tried, c.want, c.tried)
		}
	}
}

// TestStatesOfOneVersion: a state that was saved before, and that the process which saves did not see, has the version of the newer one. It does not come back.
func TestStatesOfOneVersion(t *testing.T) {
	token, _ := ready(t, 1)
	before := objects(t, token)
	for range 8 { // SoftHSM lists them in the order of their addresses
		err := token.do(t.Context(), token.slow, "", func(s cryptoki.Session) error {
			_, _, version, err := token.states(s)
			for _, state := range []string{"unseen", "saved", "saved", "unseen too"} {
				_, made := token.module.CreateObject(s, append(stateTemplate(), on(cryptoki.CKA_PRIVATE), cryptoki.Bytes(cryptoki.CKA_VALUE, packState(version+1, []byte(state)))))
				err = errors.Join(err, made)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		all := objects(t, token)
		if err := token.settleState(t.Context(), []byte("something else")); !errors.Is(err, ErrStateDamaged) || objects(t, token) != all {
			t.Errorf("a state that is not there: %v, and %d objects of %d", err, objects(t, token), all)
		}
		if err := token.settleState(t.Context(), []byte("saved")); err != nil {
			t.Error(err)
		}
		if state, err := token.LoadState(t.Context()); err != nil || string(state) != "saved" {
			t.Errorf("%q, %v", state, err)
		}
	}
	if n := objects(t, token); n != before+1 {
		t.Errorf("%d objects, want those of the ceremony, %d, and the state", n, before)
	}
}
