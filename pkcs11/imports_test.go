package pkcs11

import (
	"bytes"
	"crypto/ecdh"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// poison kills a fragile worker that is to import it. In base64 it is the same four characters over and over, so each piece of it shows.
var poison = bytes.Repeat([]byte{0xde, 0xad, 0xbe}, 128)

// fragile is what a worker reads whose module does not survive a certain input, or, once, a certain call.
type fragile struct{ io.Reader }

func (f fragile) Read(b []byte) (int, error) {
	n, err := f.Reader.Read(b)
	if method, marker, ok := strings.Cut(os.Getenv("SALLYPORT_TEST_DIES"), ":"); ok && bytes.Contains(b[:n], []byte(`"method":"`+method+`"`)) {
		if f, err := os.OpenFile(marker, os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			f.Close()
			if object, err := os.ReadFile(marker + ".object"); err == nil { // of a destruction that came so far
				_ = os.Remove(string(object))
			}
			os.Exit(9)
		}
	}
	if bytes.Contains(b[:n], bytes.Repeat([]byte("3q2+"), 8)) {
		os.Exit(9)
	}
	return n, err
}

// TestAKeyThatKillsWorkers: it is refused, and those that were in one group with it are imported.
func TestAKeyThatKillsWorkers(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, func(c *PoolConfig) { c.Env = append(workerEnv(), "SALLYPORT_TEST_PLAYS=fragile worker") })
	const n = 6
	var errs [n]error
	key := newKey(t)
	together(t, &p.importing, n, func(i int) {
		blob := wrappedKey(t, public, key)
		if i == 2 {
			blob = poison
		}
		_, errs[i] = p.Import(t.Context(), newID(), OAEPDirect, blob)
	})
	for i, err := range errs {
		if i == 2 && !errors.Is(err, ErrTokenBroken) || i != 2 && err != nil {
			t.Errorf("import %d: %v", i, err)
		}
	}
	if keys, err := p.Keys(t.Context()); err != nil || len(keys) != n-1 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

// TestImportsInGroups: imports that wait at once share searches, and each has an answer of its own: a bad one is refused among good ones, of two of one id one
// exists already, and both workers know every key that was acknowledged.
func TestImportsInGroups(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, nil)
	before := p.Calls()
	const n = 2*importsAtOnce + 2
	var (
		all    sync.WaitGroup
		ids    [n]KeyID
		checks [n]KeyCheck
		errs   [n]error
		blobs  [n][]byte
	)
	bad, first, second := 3, 5, 7
	key := newKey(t)
	for i := range n {
		ids[i], blobs[i] = newID(), wrappedKey(t, public, key)
	}
	ids[second] = ids[first]
	blobs[bad][17] ^= 1
	for i := range n {
		all.Go(func() { checks[i], errs[i] = p.Import(t.Context(), ids[i], OAEPDirect, blobs[i]) })
	}
	all.Wait()
	if !errors.Is(errs[bad], ErrBadInput) {
		t.Errorf("a bad key: %v", errs[bad])
	}
	if one, other := errs[first], errs[second]; !(one == nil && errors.Is(other, ErrKeyExists)) && !(other == nil && errors.Is(one, ErrKeyExists)) {
		t.Errorf("two of one id: %v, %v", one, other)
	}
	// Three or four groups, each looked for once, by its witness, and one once more for what a bad key left. One by one it would be n at least.
	if searches := p.Calls()["C_FindObjectsInit"] - before["C_FindObjectsInit"]; searches > n/2 {
		t.Errorf("%d searches for %d imports", searches, n)
	}
	req, want := request(t, ids[0], key)
	var requests []DeriveRequest
	for i := range n {
		if i == bad || i == second {
			continue
		}
		if errs[i] != nil && i != first {
			t.Errorf("import %d: %v", i, errs[i])
		}
		if checks[i] != checks[0] && errs[i] == nil {
			t.Errorf("import %d has another check value than another of the same key", i)
		}
		req.Key = ids[i]
		for range 4 { // by whichever worker
			requests = append(requests, req)
		}
	}
	for i, r := range p.Derive(t.Context(), requests) {
		if r.Err != nil || r.X != want {
			t.Errorf("derive %d: %v", i, r.Err)
		}
	}
	keys, err := p.Keys(t.Context())
	if err != nil || len(keys) != n-2 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Import(t.Context(), newID(), OAEPDirect, blobs[0]); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestImportIsSearchedForOnce: by the witness. The worker that brought a key knows it, ends it and brings another of the same id.
func TestImportIsSearchedForOnce(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, nil)
	id := newID()
	for range 3 {
		key := newKey(t)
		before := p.Calls()
		if _, err := p.Import(t.Context(), id, OAEPDirect, wrappedKey(t, public, key)); err != nil {
			t.Fatal(err)
		}
		if searches := p.Calls()["C_FindObjectsInit"] - before["C_FindObjectsInit"]; searches != 1 {
			t.Errorf("%d searches for an import", searches)
		}
		req, want := request(t, id, key)
		for _, r := range p.Derive(t.Context(), []DeriveRequest{req, req, req, req}) { // by whichever worker
			if r.Err != nil || r.X != want {
				t.Errorf("derive: %v", r.Err)
			}
		}
		if err := p.Destroy(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		for _, r := range p.Derive(t.Context(), []DeriveRequest{req, req, req, req}) {
			if !errors.Is(r.Err, ErrKeyMissing) {
				t.Errorf("derive after the end: %v", r.Err)
			}
		}
	}
}

// TestImportsSideBySide: keys that are unwrapped at the same time are each what they are alone, also among those that make the module create an object and destroy it again, which is when
// SoftHSM fails on others; and of those that are refused nothing stays, also for a process that is started afterwards.
func TestImportsSideBySide(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, nil)
	bad := [][]byte{
		make([]byte, 256),                    // no ciphertext
		wrapped(t, public, []byte("no key")), // a ciphertext of something else
		wrapped(t, public, pkcs8(t, oidP384, bytes.Repeat([]byte{3}, 48))), // of a key of another curve
		wrapped(t, public, pkcs8(t, oidP256, make([]byte, 32))),            // of zero
	}
	honest, before := 0, p.pids()
	for range 6 {
		var keys [importsAtOnce]*ecdh.PrivateKey
		var ids [importsAtOnce]KeyID
		var errs [importsAtOnce]error
		together(t, &p.importing, len(keys), func(i int) {
			keys[i], ids[i] = newKey(t), newID()
			blob := wrappedKey(t, public, keys[i])
			if i%3 == 0 {
				blob = bad[i/3%len(bad)]
			}
			_, errs[i] = p.Import(t.Context(), ids[i], OAEPDirect, blob)
		})
		for i, err := range errs {
			if i%3 == 0 {
				if !errors.Is(err, ErrBadInput) {
					t.Errorf("bad key %d: %v", i/3%len(bad), err)
				}
				continue
			}
			if err != nil {
				t.Errorf("honest key: %v", err)
				continue
			}
			honest++
			req, want := request(t, ids[i], keys[i])
			for _, r := range p.Derive(t.Context(), []DeriveRequest{req, req, req, req}) { // by whichever worker
				if r.Err != nil || r.X != want {
					t.Errorf("derive: %v", r.Err)
				}
			}
		}
	}
	if after := p.pids(); !slices.Equal(before, after) {
		t.Errorf("workers %v, were %v: one did not find what the other made", after, before)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	token := open(t, profile, User, 1)
	defer token.Close()
	if ids, err := token.Keys(t.Context()); err != nil || len(ids) != honest {
		t.Errorf("%d keys of %d, %v", len(ids), honest, err)
	}
}
