package pkcs11

import (
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// TestNewKey: a key that the token made is known to every worker, outlives them, is gone when it is destroyed, and its name is taken once.
func TestNewKey(t *testing.T) {
	profile, _ := ceremony(t)
	p := pool(t, profile, nil)
	id := newID()
	if err := p.NewKey(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := p.NewKey(t.Context(), id); !errors.Is(err, ErrKeyExists) {
		t.Errorf("the same id again: %v", err)
	}
	ask := make([]DeriveRequest, 50)
	for i := range ask {
		ask[i] = DeriveRequest{Key: id, Point: generator}
	}
	first := p.Derive(t.Context(), ask)
	for _, r := range first {
		if r.Err != nil || r.X != first[0].X || r.X == [32]byte{} {
			t.Fatalf("%x, %v", r.X, r.Err)
		}
	}
	if again := pool(t, profile, nil).Derive(t.Context(), ask[:1]); again[0].Err != nil || again[0].X != first[0].X {
		t.Errorf("after a restart: %v", again[0].Err)
	}
	if keys, err := p.Keys(t.Context()); err != nil || len(keys) != 1 || keys[0] != id {
		t.Errorf("keys: %v, %v", keys, err)
	}
	if err := p.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if r := p.Derive(t.Context(), ask[:1]); !errors.Is(r[0].Err, ErrKeyMissing) {
		t.Errorf("after it was destroyed: %v", r[0].Err)
	}
}

// TestNewKeyAttacked: a host with the PIN gets nothing of such a key but x-coordinates, nor its public half.
func TestNewKeyAttacked(t *testing.T) {
	token, _ := ready(t, 1)
	id := newID()
	if _, err := token.makeKey(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	err := token.do(t.Context(), token.slow, "attacking", func(s cryptoki.Session) error {
		o := token.keys[id]
		for _, attribute := range []uint{cryptoki.CKA_VALUE, cryptoki.CKA_EC_POINT} {
			if a, err := token.module.Read(s, o, attribute); err == nil && len(a.Value) > 0 {
				t.Errorf("attribute 0x%x is %x", attribute, a.Value)
			}
		}
		for _, door := range []uint{cryptoki.CKA_SIGN, cryptoki.CKA_DECRYPT, cryptoki.CKA_UNWRAP, cryptoki.CKA_EXTRACTABLE} {
			if err := token.module.SetAttributes(s, o, []cryptoki.Attribute{cryptoki.Bool(door, true)}); err == nil {
				t.Errorf("attribute 0x%x was set", door)
			}
		}
		digest := sha256.Sum256([]byte("a signature with a known nonce would tell the key"))
		if _, err := token.module.Sign(s, cryptoki.Plain(cryptoki.CKM_ECDSA), o, digest[:]); err == nil {
			t.Error("it signs")
		}
		found, err := token.module.Find(s, []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_PUBLIC_KEY), cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_EC)})
		if err != nil || len(found) != 0 {
			t.Errorf("%d public halves are left: %v", len(found), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
