package pkcs11

import (
	"crypto/ecdh"
	"errors"
	"testing"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// TestDestroyKeys: while no worker runs a host with the PIN gives two keys each other's ids and hides a third. Each is destroyed for good when its turn
// comes, under whatever name it lies, and the others go on.
func TestDestroyKeys(t *testing.T) {
	profile, public := ceremony(t)
	var ids [3]KeyID
	var keys [3]*ecdh.PrivateKey
	var checks [3]KeyCheck
	first := pool(t, profile, nil)
	for i := range ids {
		ids[i], keys[i] = newID(), newKey(t)
		var err error
		if checks[i], err = first.Import(t.Context(), ids[i], OAEPDirect, wrappedKey(t, public, keys[i])); err != nil {
			t.Fatal(err)
		}
	}
	if checks[0] == checks[1] || checks[1] == checks[2] || checks[0] == (KeyCheck{}) {
		t.Fatalf("check values %x", checks)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	host := open(t, profile, User, 1)
	err := host.do(t.Context(), host.slow, "renaming", func(s cryptoki.Session) error {
		var objects [3]cryptoki.Object
		for i, id := range ids {
			found, err := host.module.Find(s, byID(id))
			if err != nil || len(found) != 1 {
				t.Fatalf("%d objects, %v", len(found), err)
			}
			objects[i] = found[0]
		}
		hidden := newID()
		return errors.Join(
			host.module.SetAttributes(s, objects[0], []cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_ID, ids[1][:])}),
			host.module.SetAttributes(s, objects[1], []cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_ID, ids[0][:])}),
			host.module.SetAttributes(s, objects[2], []cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_ID, hidden[:]), cryptoki.Bytes(cryptoki.CKA_LABEL, []byte("nothing to see"))}),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	host.Close()

	p := pool(t, profile, nil)
	derives := func(id KeyID, want *ecdh.PrivateKey) error {
		r, x := request(t, id, want)
		got := p.Derive(t.Context(), []DeriveRequest{r})[0]
		if got.Err == nil && got.X != x {
			return errors.New("another key")
		}
		return got.Err
	}
	if err := p.DestroyKeys(t.Context(), EndingKey{ID: ids[0], Check: checks[0]})[0]; !errors.Is(err, ErrKeyRenamed) {
		t.Fatalf("a key with another's id: %v", err)
	}
	if err := p.DestroyKeys(t.Context(), EndingKey{ID: ids[0], Check: checks[0]})[0]; !errors.Is(err, ErrKeyMissing) {
		t.Fatalf("once more: %v", err)
	}
	if held, err := p.Keys(t.Context()); err != nil || len(held) != 1 || held[0] != ids[0] {
		t.Fatalf("left: %v, %v", held, err)
	}
	if err := derives(ids[1], keys[0]); !errors.Is(err, ErrKeyMissing) {
		t.Errorf("the destroyed key, under the other's id: %v", err)
	}
	if err := p.DestroyKeys(t.Context(), EndingKey{ID: ids[2], Check: checks[2]})[0]; !errors.Is(err, ErrKeyRenamed) {
		t.Fatalf("a hidden key: %v", err)
	}
	if err := p.DestroyKeys(t.Context(), EndingKey{ID: ids[1], Check: checks[1]})[0]; !errors.Is(err, ErrKeyRenamed) {
		t.Fatalf("the other key: %v", err)
	}
	if held, err := p.Keys(t.Context()); err != nil || len(held) != 0 {
		t.Fatalf("left: %v, %v", held, err)
	}
	// Of the right name but another key: it stays.
	check, err := p.Import(t.Context(), ids[0], OAEPDirect, wrappedKey(t, public, keys[0]))
	if err != nil || check != checks[0] {
		t.Fatalf("the same key has the check value %x, it had %x; %v", check, checks[0], err)
	}
	if err := p.DestroyKeys(t.Context(), EndingKey{ID: ids[0], Check: KeyCheck{1}})[0]; !errors.Is(err, ErrKeyMissing) {
		t.Fatalf("another check value: %v", err)
	}
	if err := p.DestroyKeys(t.Context(), EndingKey{ID: ids[0], Check: check})[0]; err != nil {
		t.Fatal(err)
	}
}

// TestHuntOfTwins: a key that lies under two other names is destroyed under both, and of two who ask for it the second is told that there is none.
func TestHuntOfTwins(t *testing.T) {
	token, public := ready(t, 1)
	blob := wrappedKey(t, public, newKey(t))
	var check KeyCheck
	for range 2 {
		xs, errs := token.importKeys(t.Context(), []WrappedKey{{newID(), OAEPDirect, blob}})
		if errs[0] != nil {
			t.Fatal(errs[0])
		}
		check = checkOf(&xs[0])
	}
	other := newID()
	if err := token.Import(t.Context(), other, OAEPDirect, wrappedKey(t, public, newKey(t))); err != nil {
		t.Fatal(err)
	}
	if errs := token.hunt(t.Context(), []KeyCheck{check, check}); errs[0] != nil || !errors.Is(errs[1], ErrKeyMissing) {
		t.Errorf("%v", errs)
	}
	left, err := token.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sameKeys(t, left, other)
}
