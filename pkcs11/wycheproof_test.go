package pkcs11

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// wycheproofFile reads vectors that were published by C2SP/wycheproof.
func wycheproofFile[T any](t *testing.T, name string) []T {
	t.Helper()
	raw, err := os.ReadFile("../tests/vectors/published/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Tests []T }
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	return file.Tests
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type ecdhVector struct {
	TcID                                     int
	Comment, Public, Private, Shared, Result string
}

// TestWycheproofECDH imports each private key of the vectors as a re-encryption key and derives with each point, as a read does. A point that a
// caller of Derive cannot have, because package vault checks points first, is given to the module itself as well: no input may make it, or
// the binding, panic, and none may give a wrong value.
func TestWycheproofECDH(t *testing.T) {
	token, public := ready(t, 1)
	keys := map[string]KeyID{}
	imported := func(private string) KeyID {
		id, ok := keys[private]
		if !ok {
			id = newID()
			if err := token.Import(t.Context(), id, OAEPDirect, wrapped(t, public, pkcs8(t, oidP256, unhex(t, private)))); err != nil {
				t.Fatal(err)
			}
			keys[private] = id
		}
		return id
	}
	// direct gives bytes of any kind to C_DeriveKey.
	direct := func(id KeyID, point []byte) (x [32]byte, err error) {
		err = token.do(t.Context(), token.derives, "deriving", func(s cryptoki.Session) (err error) {
			x, err = derive(token.module, s, token.keys[id], point, token.template)
			return err
		})
		return x, err
	}
	// judge compares what came out with what was published. Acceptable is: refused, or right.
	judge := func(v *ecdhVector, how string, x [32]byte, err error) {
		right := err == nil && hex.EncodeToString(x[:]) == v.Shared
		switch {
		case v.Result == "valid" && !right,
			v.Result == "acceptable" && !right && err == nil,
			v.Result == "invalid" && err == nil:
			t.Errorf("%s: %d (%s): %x %v, want %s %s", how, v.TcID, v.Comment, x, err, v.Result, v.Shared)
		}
	}
	for _, f := range []struct {
		name                       string
		parse                      func([]byte) ([]byte, error)
		valid, acceptable, invalid int
	}{
		{"wycheproof_ecdh_p256.json", func(b []byte) ([]byte, error) { return b, nil }, 330, 1, 24},
		{"wycheproof_ecdh_p256_asn.json", pointOf, 330, 230, 52},
	} {
		ran, raw := map[string]int{}, 0
		for _, v := range wycheproofFile[ecdhVector](t, f.name) {
			ran[v.Result]++
			id := imported(v.Private)
			encoded := unhex(t, v.Public)
			point, err := f.parse(encoded)
			if err == nil {
				_, err = ecdh.P256().NewPublicKey(point) // as package vault does before it asks
			}
			var x [32]byte
			if err == nil {
				r := token.Derive(t.Context(), []DeriveRequest{{Key: id, Point: [65]byte(point)}})
				x, err = r[0].X, r[0].Err
			}
			judge(&v, f.name, x, err)
			// The encoding as it is. A module may take a point that the check above refuses only if the answer is right.
			if x, err := direct(id, encoded); err == nil && hex.EncodeToString(x[:]) != v.Shared {
				t.Errorf("%s: %d (%s): the module takes the bytes as they are and gives %x", f.name, v.TcID, v.Comment, x)
			} else if errors.Is(err, ErrTokenBroken) {
				t.Fatalf("%s: %d (%s): %v", f.name, v.TcID, v.Comment, err)
			}
			raw++
		}
		if ran["valid"] != f.valid || ran["acceptable"] != f.acceptable || ran["invalid"] != f.invalid || raw != f.valid+f.acceptable+f.invalid {
			t.Errorf("%s: ran %v", f.name, ran)
		}
	}
	// After all of that the token still works.
	r, want := request(t, KeyID{}, newKey(t))
	if got := token.Derive(t.Context(), []DeriveRequest{r}); !errors.Is(got[0].Err, ErrKeyMissing) {
		t.Errorf("a key that was never imported: %v, %x", got[0].Err, want)
	}
	if _, err := token.Probe(t.Context()); err != nil {
		t.Error(err)
	}
}

// pointOf reads a SubjectPublicKeyInfo on P-256.
func pointOf(der []byte) ([]byte, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	public, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T", key)
	}
	return public.Bytes()
}

// TestWycheproofKWP wraps and unwraps through the token as custody sealed does, by the profile's own mechanism number. The vectors' keys are
// throw-away session objects. Unwrapping, which decides what is valid, is as published for all of them.
//
// Wrapping is as published for keys whose length is a multiple of 8. SoftHSM 2.6.1 first fills others up with zeros and then wraps those as part of
// the key, where RFC 5649 section 3 has the true length in the initial value. It does no harm here: what was wrapped is PKCS#8, which
// ends where its own length says, and the token that wrapped is the one that unwraps.
func TestWycheproofKWP(t *testing.T) {
	token, _ := ready(t, 1)
	mech := cryptoki.Plain(token.profile.KWP)
	ran, filled := map[string]int{}, 0
	for _, v := range wycheproofFile[struct {
		TcID                          int
		Comment, Key, Msg, Ct, Result string
	}](t, "wycheproof_aes_kwp.json") {
		ran[v.Result]++
		message, cipher := unhex(t, v.Msg), unhex(t, v.Ct)
		var wrappedNow, unwrapped []byte
		var wrapErr, unwrapErr error
		err := token.do(t.Context(), token.slow, "wrapping", func(s cryptoki.Session) error {
			m := token.module
			secret := func(kind uint, value []byte, more ...cryptoki.Attribute) (cryptoki.Object, error) {
				return m.CreateObject(s, append([]cryptoki.Attribute{
					cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY), cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, kind),
					off(cryptoki.CKA_TOKEN), off(cryptoki.CKA_SENSITIVE), on(cryptoki.CKA_EXTRACTABLE), cryptoki.Bytes(cryptoki.CKA_VALUE, value),
				}, more...))
			}
			key, err := secret(cryptoki.CKK_AES, unhex(t, v.Key), on(cryptoki.CKA_WRAP), on(cryptoki.CKA_UNWRAP))
			if err != nil {
				return err
			}
			defer m.DestroyObject(s, key)
			if len(message) > 0 { // no token has a key of no bytes
				o, err := secret(cryptoki.CKK_GENERIC_SECRET, message)
				if err != nil {
					return err
				}
				wrappedNow, wrapErr = m.WrapKey(s, mech, key, o)
				if err := m.DestroyObject(s, o); err != nil {
					return err
				}
			}
			o, err := m.UnwrapKey(s, mech, key, cipher, generic())
			if unwrapErr = err; err == nil {
				value, err := m.Read(s, o, cryptoki.CKA_VALUE)
				if unwrapped = value.Value; err != nil {
					return err
				}
				return m.DestroyObject(s, o)
			}
			return nil
		})
		if err != nil {
			t.Fatalf("%d (%s): %v", v.TcID, v.Comment, err)
		}
		if v.Result == "invalid" {
			if unwrapErr == nil {
				t.Errorf("%d (%s): unwrapped to %x", v.TcID, v.Comment, unwrapped)
			}
			continue
		}
		if len(message)%8 != 0 {
			filled++
			if wrapErr != nil || bytes.Equal(wrappedNow, cipher) {
				t.Errorf("%d (%s): wrapped as published, or not at all (%v): this module is not the one that the comment speaks of", v.TcID, v.Comment, wrapErr)
			}
		} else if wrapErr != nil || !bytes.Equal(wrappedNow, cipher) {
			t.Errorf("%d (%s): wrapped to %x, %v", v.TcID, v.Comment, wrappedNow, wrapErr)
		}
		if unwrapErr != nil || !bytes.Equal(unwrapped, message) {
			t.Errorf("%d (%s): unwrapped to %x, %v", v.TcID, v.Comment, unwrapped, unwrapErr)
		}
	}
	if ran["valid"] != 77 || ran["invalid"] != 177 || filled == 0 {
		t.Errorf("ran %v, %d filled up", ran, filled)
	}
}
