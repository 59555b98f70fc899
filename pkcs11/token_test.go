package pkcs11

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

func TestCeremony(t *testing.T) {
	p := initialised(t)
	if _, err := Initialise(p, Selector{Label: testLabel}, pin(officerPIN), pin(userPIN)); !errors.Is(err, ErrTokenExists) {
		t.Errorf("a second time: %v", err)
	}
	token := open(t, p, User, 1)
	reports := make(map[KeyName]KeyReport)
	for _, name := range []KeyName{ImportResident, ImportSealed, LogKey, StoreKey} {
		r, err := token.Generate(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		reports[name] = r
		if _, err := token.Generate(t.Context(), name); !errors.Is(err, ErrKeyExists) {
			t.Errorf("%s generated twice: %v", name, err)
		}
		now, err := token.Inspect(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Same(now); err != nil {
			t.Error(err)
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s", text)
	}
	if _, err := token.Generate(t.Context(), SealingKey(1)); !errors.Is(err, ErrRefused) {
		t.Errorf("a sealing key made by the user: %v", err)
	}
	if _, err := token.Generate(t.Context(), "sallyport sealing 01"); !errors.Is(err, ErrBadInput) {
		t.Errorf("a second spelling of a sealing key: %v", err)
	}
	if err := reports[ImportResident].Same(reports[ImportSealed]); !errors.Is(err, ErrAttributes) {
		t.Errorf("two keys the same: %v", err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	officer := open(t, p, Officer, 1)
	defer officer.Close()
	r, err := officer.Generate(t.Context(), SealingKey(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r)
	if _, err := officer.Generate(t.Context(), StoreKey); !errors.Is(err, ErrRefused) {
		t.Errorf("a store key made by the officer: %v", err)
	}
}

// A transcript must show the import key's template itself.
func TestUnwrapTemplateReadBack(t *testing.T) {
	token, _ := ready(t, 1)
	r, err := token.Inspect(t.Context(), ImportResident)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range r.Attributes {
		if a.Name == "CKA_UNWRAP_TEMPLATE" {
			if a.Unreadable || len(a.Array) != len(token.rekey) {
				t.Errorf("%+v", a)
			}
			return
		}
	}
	t.Error("no CKA_UNWRAP_TEMPLATE in the report")
}

func TestInspectFindsDifference(t *testing.T) {
	token, _ := ready(t, 1)
	// The host makes a log key of its own beside the real one.
	err := token.do(t.Context(), token.slow, "planting", func(s cryptoki.Session) error {
		pl, err := token.profile.plan(LogKey, []byte("host"))
		if err != nil {
			return err
		}
		_, _, err = token.module.GenerateKeyPair(s, pl.mech, pl.public, pl.acting)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Probe(t.Context()); !errors.Is(err, ErrAttributes) {
		t.Errorf("two log keys: %v", err)
	}
	var named *AttributeError
	// A store key that lacks one protection.
	err = token.do(t.Context(), token.slow, "planting", func(s cryptoki.Session) error {
		o := token.named[StoreKey]
		if err := token.module.DestroyObject(s, o); err != nil {
			return err
		}
		pl, err := token.profile.plan(StoreKey, []byte("host"))
		if err != nil {
			return err
		}
		for i, a := range pl.acting {
			if a.Type == cryptoki.CKA_WRAP {
				pl.acting[i] = cryptoki.Bool(a.Type, true)
			}
		}
		_, err = token.module.GenerateKey(s, pl.mech, pl.acting)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Inspect(t.Context(), StoreKey); !errors.As(err, &named) || named.Attribute != "CKA_WRAP" {
		t.Errorf("a store key that wraps: %v", err)
	}
}

func TestImportDeriveDestroy(t *testing.T) {
	token, public := ready(t, 2)
	key, id := newKey(t), newID()
	req, want := request(t, id, key)
	if r := token.Derive(t.Context(), []DeriveRequest{req}); !errors.Is(r[0].Err, ErrKeyMissing) {
		t.Fatalf("before the import: %v", r[0].Err)
	}
	blob := wrappedKey(t, public, key)
	if err := token.Import(t.Context(), id, OAEPDirect, blob); err != nil {
		t.Fatal(err)
	}
	if err := token.Import(t.Context(), id, OAEPDirect, blob); !errors.Is(err, ErrKeyExists) {
		t.Errorf("the same id again: %v", err)
	}
	noPoint := DeriveRequest{Key: id}
	offCurve := req
	offCurve.Point[64] ^= 1
	unknown := req
	unknown.Key = newID()
	r := token.Derive(t.Context(), []DeriveRequest{req, noPoint, offCurve, unknown, req})
	for i, kind := range []error{nil, ErrBadInput, ErrBadInput, ErrKeyMissing, nil} {
		if !errors.Is(r[i].Err, kind) {
			t.Errorf("request %d: %v, want %v", i, r[i].Err, kind)
		}
		if kind == nil && r[i].X != want {
			t.Errorf("request %d: wrong x", i)
		}
	}
	if ids, err := token.Keys(t.Context()); err != nil || len(ids) != 1 || ids[0] != id {
		t.Errorf("keys: %v %v", ids, err)
	}
	before := objects(t, token)
	if err := token.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if after := objects(t, token); after != before-1 {
		t.Errorf("%d objects before, %d after", before, after)
	}
	if err := token.Destroy(t.Context(), id); !errors.Is(err, ErrKeyMissing) {
		t.Errorf("destroyed twice: %v", err)
	}
	if r := token.Derive(t.Context(), []DeriveRequest{req}); !errors.Is(r[0].Err, ErrKeyMissing) {
		t.Errorf("after the end: %v", r[0].Err)
	}
	// Another process must see what this one acknowledged.
	second := newID()
	if err := token.Import(t.Context(), second, OAEPDirect, blob); err != nil {
		t.Fatal(err)
	}
	p := token.profile
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, p, User, 1)
	defer again.Close()
	req.Key = second
	if r := again.Derive(t.Context(), []DeriveRequest{req}); r[0].Err != nil || r[0].X != want {
		t.Errorf("after reopening: %v", r[0].Err)
	}
}

func TestImportRefuses(t *testing.T) {
	token, public := ready(t, 1)
	scalar := func(n *big.Int) []byte { return n.FillBytes(make([]byte, 32)) }
	rsaKey, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	rsaDER := x509.MarshalPKCS1PrivateKey(rsaKey)
	ecKey := newKey(t)
	flipped := wrappedKey(t, public, ecKey)
	flipped[17] ^= 1
	other, err := rsa.GenerateKey(rand.Reader, importBits)
	if err != nil {
		t.Fatal(err)
	}
	good := pkcs8(t, oidP256, ecKey.Bytes())
	ed := append([]byte{0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20}, make([]byte, 32)...)
	for _, c := range []struct {
		name, path string
		blob       []byte
	}{
		{"nothing", OAEPDirect, nil},
		{"garbage", OAEPDirect, bytes.Repeat([]byte{7}, importBits/8)},
		{"too short", OAEPDirect, flipped[1:]},
		{"flipped bit", OAEPDirect, flipped},
		{"another path", "rsa-aes-key-wrap", wrappedKey(t, public, ecKey)},
		{"for another import key", OAEPDirect, wrappedKey(t, &other.PublicKey, ecKey)},
		{"P-384", OAEPDirect, wrapped(t, public, pkcs8(t, oidP384, bytes.Repeat([]byte{3}, 48)))},
		{"P-384 scalar of 32 bytes", OAEPDirect, wrapped(t, public, pkcs8(t, oidP384, bytes.Repeat([]byte{3}, 32)))},
		{"zero", OAEPDirect, wrapped(t, public, pkcs8(t, oidP256, make([]byte, 32)))},
		{"n", OAEPDirect, wrapped(t, public, pkcs8(t, oidP256, scalar(orderN)))},
		{"forty bytes", OAEPDirect, wrapped(t, public, pkcs8(t, oidP256, bytes.Repeat([]byte{0x11}, 40)))},
		{"empty scalar", OAEPDirect, wrapped(t, public, pkcs8(t, oidP256, nil))},
		{"PKCS#1 RSA, as much as fits", OAEPDirect, wrapped(t, public, rsaDER[:300])},
		{"Ed25519", OAEPDirect, wrapped(t, public, ed)},
		{"cut PKCS#8", OAEPDirect, wrapped(t, public, good[:40])},
		{"bare scalar", OAEPDirect, wrapped(t, public, ecKey.Bytes())},
		{"empty", OAEPDirect, wrapped(t, public, nil)},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := objects(t, token)
			err := token.Import(t.Context(), newID(), c.path, c.blob)
			if !errors.Is(err, ErrBadInput) {
				t.Errorf("got %v", err)
			}
			if after := objects(t, token); after != before {
				t.Errorf("%d objects before, %d after", before, after)
			}
		})
	}
	if err := token.Import(t.Context(), newID(), OAEPDirect, wrapped(t, public, good)); err != nil {
		t.Errorf("a good key afterwards: %v", err)
	}
}

// A scalar in (n, 2^256) is refused, or is the same key as the reduced scalar:
// an owner gains nothing by it.
func TestImportLargerScalar(t *testing.T) {
	token, public := ready(t, 1)
	for _, k := range []*big.Int{new(big.Int).Add(orderN, big.NewInt(5)), new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))} {
		id := newID()
		err := token.Import(t.Context(), id, OAEPDirect, wrapped(t, public, pkcs8(t, oidP256, k.Bytes())))
		if errors.Is(err, ErrBadInput) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		reduced, err := ecdh.P256().NewPrivateKey(new(big.Int).Mod(k, orderN).FillBytes(make([]byte, 32)))
		if err != nil {
			t.Fatal(err)
		}
		req, want := request(t, id, reduced)
		if r := token.Derive(t.Context(), []DeriveRequest{req}); r[0].Err != nil || r[0].X != want {
			t.Errorf("%x: %v", k, r[0].Err)
		}
	}
}

// The whole of an RSA key fits under OAEP only if it is small. It is refused
// because the template says EC.
func TestImportRefusesRSA(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	token, public := ready(t, 1)
	small, err := rsa.GenerateKey(rand.Reader, 480)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(small)
	if err != nil {
		t.Fatal(err)
	}
	before := objects(t, token)
	if len(der) > importBits/8-42 {
		t.Fatalf("%d bytes do not fit", len(der))
	}
	if err := token.Import(t.Context(), newID(), OAEPDirect, wrapped(t, public, der)); !errors.Is(err, ErrBadInput) {
		t.Errorf("got %v", err)
	}
	if after := objects(t, token); after != before {
		t.Errorf("%d objects before, %d after", before, after)
	}
}

func TestSign(t *testing.T) {
	for _, algorithm := range []string{LogEd25519, LogECDSA} {
		t.Run(algorithm, func(t *testing.T) {
			p := initialised(t)
			p.LogAlgorithm = algorithm
			token := open(t, p, User, 1)
			defer token.Close()
			if _, err := token.Sign(t.Context(), []byte("x")); !errors.Is(err, ErrKeyMissing) {
				t.Errorf("without a key: %v", err)
			}
			r, err := token.Generate(t.Context(), LogKey)
			if err != nil {
				t.Fatal(err)
			}
			public, err := x509.ParsePKIXPublicKey(r.Public)
			if err != nil {
				t.Fatal(err)
			}
			message := []byte("sallyport.example/log\n7\n")
			sig, err := token.Sign(t.Context(), message)
			if err != nil {
				t.Fatal(err)
			}
			switch key := public.(type) {
			case ed25519.PublicKey:
				if !ed25519.Verify(key, message, sig) {
					t.Error("signature does not verify")
				}
			case *ecdsa.PublicKey:
				digest := sha256.Sum256(message)
				if !ecdsa.VerifyASN1(key, digest[:], sig) {
					t.Error("signature does not verify")
				}
			default:
				t.Errorf("%T", public)
			}
		})
	}
}

func TestSeal(t *testing.T) {
	token, _ := ready(t, 1)
	plain, aad := []byte("data key"), []byte("vault 7")
	sealed, err := token.Seal(t.Context(), plain, aad)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := token.Unseal(t.Context(), sealed, aad); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%q %v", got, err)
	}
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)-1] ^= 1
	for name, c := range map[string][2][]byte{
		"flipped": {flipped, aad}, "other aad": {sealed, []byte("vault 8")}, "no aad": {sealed, nil},
		"short": {sealed[:28], aad}, "empty": {nil, aad},
	} {
		if _, err := token.Unseal(t.Context(), c[0], c[1]); !errors.Is(err, ErrBadInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := token.Seal(t.Context(), nil, aad); !errors.Is(err, ErrBadInput) {
		t.Errorf("nothing: %v", err)
	}
	if got, err := token.Unseal(t.Context(), sealed, aad); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("afterwards: %q %v", got, err)
	}
}

func TestState(t *testing.T) {
	token, _ := ready(t, 1)
	if _, err := token.LoadState(t.Context()); !errors.Is(err, ErrStateMissing) {
		t.Errorf("before: %v", err)
	}
	base := objects(t, token)
	save := func(state string) {
		t.Helper()
		if err := token.SaveState(t.Context(), []byte(state)); err != nil {
			t.Fatal(err)
		}
		before := objects(t, token)
		if err := token.settleState(t.Context(), []byte("another")); !errors.Is(err, ErrStateDamaged) || objects(t, token) != before {
			t.Errorf("settled what was not saved: %v, %d objects of %d", err, objects(t, token), before)
		}
		if err := token.settleState(t.Context(), []byte(state)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		want := fmt.Sprintf("size %d", i)
		save(want)
		if got, err := token.LoadState(t.Context()); err != nil || string(got) != want {
			t.Errorf("%q %v", got, err)
		}
	}
	if n := objects(t, token); n != base+1 {
		t.Errorf("%d state objects", n-base)
	}
	plant := func(value []byte) {
		t.Helper()
		err := token.do(t.Context(), token.slow, "planting", func(s cryptoki.Session) error {
			_, err := token.module.CreateObject(s, append(stateTemplate(), cryptoki.Bool(cryptoki.CKA_PRIVATE, true), cryptoki.Bytes(cryptoki.CKA_VALUE, value)))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	load := func(want string) {
		t.Helper()
		if got, err := token.LoadState(t.Context()); err != nil || string(got) != want {
			t.Errorf("%q %v, want %q", got, err, want)
		}
	}
	plant(packState(5, []byte("same version as the live one, whichever wins"))[:20]) // cut while written
	load("size 4")
	plant(packState(3, []byte("older, not yet destroyed")))
	load("size 4")
	plant(packState(6, []byte("newer, old ones not yet destroyed")))
	load("newer, old ones not yet destroyed")
	save("next")
	load("next")
	if n := objects(t, token); n != base+1 {
		t.Errorf("%d state objects left", n-base)
	}
	if err := token.SaveState(t.Context(), make([]byte, maxState+1)); !errors.Is(err, ErrBadInput) {
		t.Errorf("too large: %v", err)
	}
	// What cannot be read is not nothing: a log must not begin anew over it.
	err := token.do(t.Context(), token.slow, "spoiling", func(s cryptoki.Session) error {
		all, _, _, err := token.states(s)
		for _, o := range all {
			err = errors.Join(err, token.module.DestroyObject(s, o))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	plant([]byte("not a state"))
	if got, err := token.LoadState(t.Context()); !errors.Is(err, ErrStateDamaged) || errors.Is(err, ErrStateMissing) {
		t.Errorf("a damaged state alone: %q %v", got, err)
	}
}

func TestProbe(t *testing.T) {
	token, _ := ready(t, 1)
	before := objects(t, token)
	f, err := token.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := objects(t, token); n != before {
		t.Errorf("the probe left %d objects", n-before)
	}
	if len(f.Keys) != 3 || f.Token.Label != testLabel {
		t.Errorf("%+v", f)
	}
	for _, d := range f.Derives {
		t.Logf("%+v", d)
	}
	for _, p := range f.Points {
		t.Logf("%+v", p)
		if !p.Refused {
			t.Errorf("SoftHSM accepts a point that is %s", p.Point)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	p := initialised(t)
	ok := Config{Profile: p, Selector: Selector{Label: testLabel}, Role: User, PIN: pin(userPIN), Threads: 1}
	for name, c := range map[string]struct {
		change func(*Config)
		want   error
	}{
		"other label":  {func(c *Config) { c.Selector.Label = "other" }, ErrTokenMissing},
		"other serial": {func(c *Config) { c.Selector.Serial = "0" }, ErrTokenMissing},
		"wrong PIN":    {func(c *Config) { c.PIN = pin("wrong-0000") }, ErrPINIncorrect},
		"no PIN":       {func(c *Config) { c.PIN = Secret{} }, ErrBadInput},
		"no threads":   {func(c *Config) { c.Threads = 0 }, ErrBadInput},
		"no module":    {func(c *Config) { c.Profile.Module = "/nonexistent.so" }, ErrTokenBroken},
	} {
		c2 := ok
		c.change(&c2)
		token, err := Open(t.Context(), c2)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			token.Close()
		}
		if err != nil && (strings.Contains(err.Error(), "wrong-0000") || strings.Contains(err.Error(), userPIN)) {
			t.Errorf("%s: the error shows the PIN", name)
		}
	}
}

// No session is opened or closed and nothing searched for on the hot path.
func TestHotPathCalls(t *testing.T) {
	token, public := ready(t, 2)
	key, id := newKey(t), newID()
	if err := token.Import(t.Context(), id, OAEPDirect, wrappedKey(t, public, key)); err != nil {
		t.Fatal(err)
	}
	req, _ := request(t, id, key)
	before := token.Calls()
	for range 10 {
		if r := token.Derive(t.Context(), []DeriveRequest{req}); r[0].Err != nil {
			t.Fatal(r[0].Err)
		}
		if _, err := token.Sign(t.Context(), []byte("m")); err != nil {
			t.Fatal(err)
		}
	}
	diff := token.Calls()
	for name, n := range before {
		if diff[name] -= n; diff[name] == 0 {
			delete(diff, name)
		}
	}
	want := map[string]uint64{"C_DeriveKey": 10, "C_GetAttributeValue": 10, "C_DestroyObject": 10, "C_SignInit": 10, "C_Sign": 10}
	if !maps.Equal(diff, want) {
		t.Errorf("calls: %v", diff)
	}
	// What is refused before the token is asked causes no call, nor does a missing key right after one that was looked for in vain.
	bad, missing := req, req
	bad.Point[0], missing.Key = 0x02, newID()
	token.Derive(t.Context(), []DeriveRequest{missing})
	before = token.Calls()
	token.Derive(t.Context(), []DeriveRequest{bad, missing})
	if !maps.Equal(before, token.Calls()) {
		t.Error("a bad point, or a missing key, caused a call")
	}
}

// A session closed behind our back is replaced, and the token goes on; a login
// that is gone ends the token.
func TestBrokenSession(t *testing.T) {
	token, public := ready(t, 1)
	key, id := newKey(t), newID()
	if err := token.Import(t.Context(), id, OAEPDirect, wrappedKey(t, public, key)); err != nil {
		t.Fatal(err)
	}
	req, want := request(t, id, key)
	s := <-token.derives
	if err := token.module.CloseSession(s); err != nil {
		t.Fatal(err)
	}
	token.derives <- s
	r := token.Derive(t.Context(), []DeriveRequest{req, req})
	if !errors.Is(r[0].Err, ErrSessionBroken) || r[1].Err != nil || r[1].X != want {
		t.Errorf("%v, %v", r[0].Err, r[1].Err)
	}
	if err := token.module.Logout(token.home); err != nil {
		t.Fatal(err)
	}
	r = token.Derive(t.Context(), []DeriveRequest{req, req})
	if !errors.Is(r[0].Err, ErrTokenBroken) || !errors.Is(r[1].Err, ErrTokenBroken) {
		t.Errorf("without a login: %v, %v", r[0].Err, r[1].Err)
	}
}

func TestConcurrent(t *testing.T) {
	token, public := ready(t, 3)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for range 4 {
				key, id := newKey(t), newID()
				if err := token.Import(background, id, OAEPDirect, wrappedKey(t, public, key)); err != nil {
					t.Error(err)
					return
				}
				for range 5 {
					req, want := request(t, id, key)
					if r := token.Derive(background, []DeriveRequest{req, req}); r[1].Err != nil || r[1].X != want {
						t.Error(r[1].Err)
					}
				}
				if _, err := token.Sign(background, []byte("m")); err != nil {
					t.Error(err)
				}
				if err := token.Destroy(background, id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if ids, err := token.Keys(t.Context()); err != nil || len(ids) != 0 {
		t.Errorf("left: %v %v", ids, err)
	}
}

func TestDeriveStopsWithContext(t *testing.T) {
	token, _ := ready(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, r := range token.Derive(ctx, make([]DeriveRequest, 3)) {
		if !errors.Is(r.Err, context.Canceled) {
			t.Errorf("%v", r.Err)
		}
	}
}

// Nothing begins under a context that has ended, also where a session is free.
func TestNothingAfterContext(t *testing.T) {
	token, _ := ready(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := token.Calls()
	for range 20 {
		if _, err := token.Sign(ctx, []byte("m")); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	if !maps.Equal(before, token.Calls()) {
		t.Error("the token was asked")
	}
}

func TestClosed(t *testing.T) {
	p, _ := ceremony(t)
	token := open(t, p, User, 1)
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	if r := token.Derive(t.Context(), make([]DeriveRequest, 1)); !errors.Is(r[0].Err, ErrClosed) {
		t.Errorf("%v", r[0].Err)
	}
}

func TestSecretIsRedacted(t *testing.T) {
	s := pin(userPIN)
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "pin", s, "config", Config{PIN: s})
	all := fmt.Sprintf("%v %+v %#v %s %q %x %d ", s, s, s, s, s, s, s) + fmt.Sprintf("%v %+v %#v", Config{PIN: s}, Config{PIN: s}, Config{PIN: s}) + string(text) + log.String()
	// Inside of something that prints its fields one by one.
	pool := &Pool{config: PoolConfig{PIN: s}, pin: s}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		all += fmt.Sprintf(verb, pool.pin) + fmt.Sprintf(verb, &pool.config) + fmt.Sprintf(verb, struct{ pin Secret }{s}) + fmt.Sprintf(verb, &struct{ config PoolConfig }{pool.config})
	}
	hex := fmt.Sprintf("%x", userPIN)
	if strings.Contains(all, userPIN) || strings.Contains(all, hex) || strings.Contains(all, fmt.Sprint([]byte(userPIN))) || strings.Contains(all, fmt.Sprintf("%#v", []byte(userPIN))) {
		t.Errorf("printed: %s", all)
	}
	s.Zero()
	if !bytes.Equal(s.bytes(), make([]byte, len(userPIN))) {
		t.Error("not zeroed")
	}
}

func TestProfileValidate(t *testing.T) {
	good := softHSM(t)
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Profile){
		"module":       func(p *Profile) { p.Module = "libsofthsm2.so" },
		"name":         func(p *Profile) { p.Name = "" },
		"import_path":  func(p *Profile) { p.ImportPath = "oaep-then-kwp" },
		"oaep_hash":    func(p *Profile) { p.OAEPHash = "md5" },
		"kwp":          func(p *Profile) { p.KWP = 0 },
		"log_alg":      func(p *Profile) { p.LogAlgorithm = "rsa" },
		"ed_params":    func(p *Profile) { p.EdParams = nil },
		"point":        func(p *Profile) { p.Point = "compressed" },
		"sync":         func(p *Profile) { p.Sync = "" },
		"folder":       func(p *Profile) { p.Folder = "tokens" },
		"unprotected":  func(p *Profile) { p.UnwrapWithout = []uint{cryptoki.CKA_SENSITIVE} },
		"unwrap_extra": func(p *Profile) { p.UnwrapWith = []ExtraAttribute{{Type: cryptoki.CKA_EXTRACTABLE, Value: []byte{1}}} },
	} {
		p := good
		change(&p)
		if p.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestDestroyRenamed: the host can give a re-encryption key another CKA_ID and label (a module that does not take CKA_MODIFIABLE in an
// unwrap template). Its end is the end all the same.
func TestDestroyRenamed(t *testing.T) {
	token, public := ready(t, 1)
	before := objects(t, token)
	id, other := newID(), newID()
	for _, k := range []KeyID{id, other} {
		if err := token.Import(t.Context(), k, OAEPDirect, wrappedKey(t, public, newKey(t))); err != nil {
			t.Fatal(err)
		}
	}
	token.mu.RLock()
	o := token.keys[id]
	token.mu.RUnlock()
	stranger := newID()
	err := token.do(t.Context(), token.slow, "renaming", func(s cryptoki.Session) error {
		return token.module.SetAttributes(s, o, []cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_ID, stranger[:]), cryptoki.Bytes(cryptoki.CKA_LABEL, []byte("nothing to see"))})
	})
	if err != nil {
		t.Fatal(err)
	}
	token.forget(id) // as a pool tells every worker first
	if err := token.Destroy(t.Context(), id); err != nil {
		t.Fatalf("a renamed key: %v", err)
	}
	if n := objects(t, token); n != before+1 {
		t.Errorf("%d objects, %d before, one key is left", n, before)
	}
	r, _ := request(t, other, newKey(t))
	if got := token.Derive(t.Context(), []DeriveRequest{r}); got[0].Err != nil {
		t.Errorf("the other key: %v", got[0].Err)
	}
	if err := token.Destroy(t.Context(), id); !errors.Is(err, ErrKeyMissing) {
		t.Errorf("once more: %v", err)
	}
}

// TestProbeCountsStrangers: a start after the renaming cannot know which key it was. It says that there is one.
func TestProbeCountsStrangers(t *testing.T) {
	token, public := ready(t, 1)
	id := newID()
	if err := token.Import(t.Context(), id, OAEPDirect, wrappedKey(t, public, newKey(t))); err != nil {
		t.Fatal(err)
	}
	if f, err := token.Probe(t.Context()); err != nil || f.Strangers != 0 {
		t.Fatalf("%d strangers, %v", f.Strangers, err)
	}
	err := token.do(t.Context(), token.slow, "renaming", func(s cryptoki.Session) error {
		return token.module.SetAttributes(s, token.keys[id], []cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_LABEL, []byte("nothing to see"))})
	})
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := token.Keys(t.Context()); err != nil || len(keys) != 0 {
		t.Fatalf("%v, %v", keys, err)
	}
	if f, err := token.Probe(t.Context()); err != nil || f.Strangers != 1 {
		t.Errorf("%d strangers, %v", f.Strangers, err)
	}
}
