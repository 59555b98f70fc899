package pkcs11

import (
	"errors"
	"sync"
	"testing"
)

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
	// Three or four groups, each looked for once by its maker and once by its witness. One by one it would be 2 for each key at least.
	if searches := p.Calls()["C_FindObjectsInit"] - before["C_FindObjectsInit"]; searches > n {
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
