package pkcs11

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rsa"
	"fmt"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// The host of the vault knows the user's PIN and calls the module as it likes.
// Each attack is one thing it tries on the keys that the ceremony made and on
// a re-encryption key; each must be refused. Controls beside them show that
// the same call succeeds where nothing forbids it, so that a refusal means
// something.

type host struct {
	t     *testing.T
	token *Token
	m     *cryptoki.Module
	s     cryptoki.Session
}

func newHost(t *testing.T, token *Token) *host {
	h := &host{t: t, token: token, m: token.module}
	var err error
	if h.s, err = h.m.OpenSession(token.slot); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) refused(name string, attack func() error) {
	h.t.Run(name, func(t *testing.T) {
		err := attack()
		if err == nil {
			t.Error("the attack succeeded")
		}
		if _, ok := err.(cryptoki.CKR); err != nil && !ok {
			t.Errorf("not refused by the token: %v", err)
		}
	})
	// A refused operation may leave the session in the middle of something.
	_ = h.m.CloseSession(h.s)
	var err error
	if h.s, err = h.m.OpenSession(h.token.slot); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) set(o cryptoki.Object, a ...cryptoki.Attribute) func() error {
	return func() error { return h.m.SetAttributes(h.s, o, a) }
}

func (h *host) copyWith(o cryptoki.Object, a ...cryptoki.Attribute) func() error {
	return func() error { _, err := h.m.CopyObject(h.s, o, a); return err }
}

func (h *host) read(o cryptoki.Object, typ uint) func() error {
	return func() error {
		var b [512]byte
		n, err := h.m.ReadInto(h.s, o, typ, b[:])
		if err == nil && n == 0 {
			return cryptoki.CKR_ATTRIBUTE_SENSITIVE // an empty answer gives nothing away
		}
		return err
	}
}

func (h *host) wrap(mech cryptoki.Mechanism, with, o cryptoki.Object) func() error {
	return func() error { _, err := h.m.WrapKey(h.s, mech, with, o); return err }
}

func (h *host) unwrap(key cryptoki.Object, blob []byte, t []cryptoki.Attribute) func() error {
	return func() error { _, err := h.m.UnwrapKey(h.s, h.token.profile.oaep(), key, blob, t); return err }
}

func (h *host) decrypt(mech cryptoki.Mechanism, key cryptoki.Object, blob []byte) func() error {
	return func() error { _, err := h.m.Decrypt(h.s, mech, key, blob); return err }
}

func (h *host) sign(mech uint, key cryptoki.Object) func() error {
	return func() error {
		_, err := h.m.Sign(h.s, cryptoki.Plain(mech), key, bytes.Repeat([]byte{1}, 32))
		return err
	}
}

// aes creates a key with a value that the host knows.
func (h *host) aes(more ...cryptoki.Attribute) (cryptoki.Object, error) {
	return h.m.CreateObject(h.s, append([]cryptoki.Attribute{
		cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY), cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_AES),
		cryptoki.Bytes(cryptoki.CKA_VALUE, bytes.Repeat([]byte{7}, 32)), cryptoki.Bool(cryptoki.CKA_TOKEN, false),
		cryptoki.Bool(cryptoki.CKA_SENSITIVE, false), cryptoki.Bool(cryptoki.CKA_EXTRACTABLE, true)}, more...))
}

func replace(t []cryptoki.Attribute, a cryptoki.Attribute) []cryptoki.Attribute {
	t = slices.Clone(t)
	for i := range t {
		if t[i].Type == a.Type {
			t[i] = a
			return t
		}
	}
	return append(t, a)
}

func without(t []cryptoki.Attribute, typ uint) []cryptoki.Attribute {
	return slices.DeleteFunc(slices.Clone(t), func(a cryptoki.Attribute) bool { return a.Type == typ })
}

// onImportKey attacks an import key with a captured wrapped key.
func (h *host) onImportKey(name string, key cryptoki.Object, blob []byte, template []cryptoki.Attribute) {
	on, off := func(t uint) cryptoki.Attribute { return cryptoki.Bool(t, true) }, func(t uint) cryptoki.Attribute { return cryptoki.Bool(t, false) }
	for _, a := range template {
		if len(a.Value) == 1 {
			h.refused(name+"/unwrap with other "+a.Name(), h.unwrap(key, blob, replace(template, cryptoki.Bool(a.Type, a.Value[0] == 0))))
		}
		h.refused(name+"/unwrap without "+a.Name(), func() error {
			o, err := h.m.UnwrapKey(h.s, h.token.profile.oaep(), key, blob, without(template, a.Type))
			if err != nil {
				return err
			}
			// What the module fills in by itself is as good as a refusal.
			got, err := h.m.Read(h.s, o, a.Type)
			if err == nil && got.Equal(a) {
				err = cryptoki.CKR_TEMPLATE_INCONSISTENT
			}
			if destroyed := h.m.DestroyObject(h.s, o); destroyed != nil {
				return fmt.Errorf("destroying: %w", destroyed)
			}
			return err
		})
	}
	h.refused(name+"/unwrap as a generic secret", h.unwrap(key, blob, []cryptoki.Attribute{
		cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY), cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_GENERIC_SECRET),
		off(cryptoki.CKA_TOKEN), off(cryptoki.CKA_SENSITIVE), on(cryptoki.CKA_EXTRACTABLE)}))
	h.refused(name+"/unwrap as a secret with every other attribute right", h.unwrap(key, blob,
		replace(template, cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY))))
	h.refused(name+"/unwrap as RSA", h.unwrap(key, blob, replace(template, cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_RSA))))
	h.refused(name+"/unwrap with ECDSA allowed", h.unwrap(key, blob,
		replace(template, cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS, cryptoki.CKM_ECDH1_DERIVE, cryptoki.CKM_ECDSA))))
	h.refused(name+"/unwrap with nothing asked", h.unwrap(key, blob, []cryptoki.Attribute{
		cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_PRIVATE_KEY), cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_EC)}))
	h.refused(name+"/decrypt", h.decrypt(h.token.profile.oaep(), key, blob))
	h.refused(name+"/decrypt raw RSA", h.decrypt(cryptoki.Plain(cryptoki.CKM_RSA_X_509), key, blob))
	for _, a := range []cryptoki.Attribute{
		on(cryptoki.CKA_DECRYPT), on(cryptoki.CKA_SIGN), on(cryptoki.CKA_EXTRACTABLE), off(cryptoki.CKA_SENSITIVE), on(cryptoki.CKA_MODIFIABLE), on(cryptoki.CKA_COPYABLE),
		cryptoki.Bytes(cryptoki.CKA_UNWRAP_TEMPLATE, nil), cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS, cryptoki.CKM_RSA_X_509),
	} {
		h.refused(name+"/set "+a.Name(), h.set(key, a))
	}
	h.refused(name+"/copy with CKA_DECRYPT", h.copyWith(key, on(cryptoki.CKA_DECRYPT)))
	h.refused(name+"/copy as it is", h.copyWith(key))
	h.refused(name+"/read private exponent", h.read(key, 0x123)) // CKA_PRIVATE_EXPONENT
	h.refused(name+"/still no decrypt", h.decrypt(h.token.profile.oaep(), key, blob))
}

// onRekey attacks a re-encryption key in the token.
func (h *host) onRekey(name string, rk cryptoki.Object, extractable bool) {
	on, off := func(t uint) cryptoki.Attribute { return cryptoki.Bool(t, true) }, func(t uint) cryptoki.Attribute { return cryptoki.Bool(t, false) }
	h.refused(name+"/read value", h.read(rk, cryptoki.CKA_VALUE))
	h.refused(name+"/unset sensitive", h.set(rk, off(cryptoki.CKA_SENSITIVE)))
	if !extractable {
		h.refused(name+"/set extractable", h.set(rk, on(cryptoki.CKA_EXTRACTABLE)))
	} else {
		h.refused(name+"/clear wrap with trusted", h.set(rk, off(cryptoki.CKA_WRAP_WITH_TRUSTED)))
	}
	h.refused(name+"/set allowed mechanisms", h.set(rk, cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS, cryptoki.CKM_ECDSA)))
	h.refused(name+"/copy", h.copyWith(rk))
	h.refused(name+"/copy to token object", h.copyWith(rk, on(cryptoki.CKA_TOKEN)))
	h.refused(name+"/copy to session object", h.copyWith(rk, off(cryptoki.CKA_TOKEN)))
	h.refused(name+"/copy without wrap with trusted", h.copyWith(rk, off(cryptoki.CKA_WRAP_WITH_TRUSTED)))
	h.refused(name+"/sign ECDSA", h.sign(cryptoki.CKM_ECDSA, rk))
	// SoftHSM lets the host set these; the allowed mechanisms make it useless.
	_ = h.m.SetAttributes(h.s, rk, []cryptoki.Attribute{on(cryptoki.CKA_SIGN)})
	_ = h.m.SetAttributes(h.s, rk, []cryptoki.Attribute{on(cryptoki.CKA_COPYABLE)})
	h.refused(name+"/sign ECDSA after setting CKA_SIGN", h.sign(cryptoki.CKM_ECDSA, rk))
	h.refused(name+"/copy without sensitive after setting CKA_COPYABLE", h.copyWith(rk, off(cryptoki.CKA_SENSITIVE)))
	h.refused(name+"/copy without wrap with trusted after setting CKA_COPYABLE", func() error {
		c, err := h.m.CopyObject(h.s, rk, []cryptoki.Attribute{off(cryptoki.CKA_WRAP_WITH_TRUSTED), on(cryptoki.CKA_EXTRACTABLE)})
		if err != nil {
			return err
		}
		own, err := h.aes(on(cryptoki.CKA_WRAP))
		if err != nil {
			return err
		}
		_, err = h.m.WrapKey(h.s, cryptoki.Plain(h.token.profile.KWP), own, c)
		return err
	})
	for _, mech := range []uint{h.token.profile.KWP, 0x2109, cryptoki.CKM_AES_CBC_PAD} { // 0x2109: CKM_AES_KEY_WRAP
		own, err := h.aes(on(cryptoki.CKA_WRAP), on(cryptoki.CKA_ENCRYPT), on(cryptoki.CKA_DECRYPT))
		if err != nil {
			h.t.Fatal(err)
		}
		h.refused(name+"/wrap under own key", h.wrap(cryptoki.Plain(mech), own, rk))
	}
	// A key that the token made, which may wrap and decrypt.
	made, err := h.m.GenerateKey(h.s, cryptoki.Plain(cryptoki.CKM_AES_KEY_GEN), []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_VALUE_LEN, 32),
		on(cryptoki.CKA_WRAP), on(cryptoki.CKA_UNWRAP), on(cryptoki.CKA_ENCRYPT), on(cryptoki.CKA_DECRYPT), off(cryptoki.CKA_TOKEN)})
	if err != nil {
		h.t.Fatal(err)
	}
	h.refused(name+"/own key made trusted", h.set(made, on(cryptoki.CKA_TRUSTED)))
	h.refused(name+"/own key created trusted", func() error {
		_, err := h.aes(on(cryptoki.CKA_WRAP), on(cryptoki.CKA_TRUSTED))
		return err
	})
	made, err = h.m.GenerateKey(h.s, cryptoki.Plain(cryptoki.CKM_AES_KEY_GEN), []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_VALUE_LEN, 32),
		on(cryptoki.CKA_WRAP), on(cryptoki.CKA_DECRYPT), off(cryptoki.CKA_TOKEN)})
	if err != nil {
		h.t.Fatal(err)
	}
	h.refused(name+"/wrap under a wrap and decrypt key", h.wrap(cryptoki.Plain(h.token.profile.KWP), made, rk))
	pub, _, err := h.m.GenerateKeyPair(h.s, cryptoki.Plain(cryptoki.CKM_RSA_PKCS_KEY_PAIR_GEN),
		[]cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_MODULUS_BITS, 3072), cryptoki.Bytes(cryptoki.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}), on(cryptoki.CKA_WRAP), off(cryptoki.CKA_TOKEN)},
		[]cryptoki.Attribute{on(cryptoki.CKA_DECRYPT), off(cryptoki.CKA_TOKEN)})
	if err != nil {
		h.t.Fatal(err)
	}
	h.refused(name+"/wrap under own RSA key", h.wrap(h.token.profile.oaep(), pub, rk))
}

// onOwnKeys attacks the vault's own keys: the one that opens its database, and the one that signs its log.
func (h *host) onOwnKeys(rk cryptoki.Object) {
	token := h.token
	for _, at := range []struct {
		name KeyName
		bad  []cryptoki.Attribute
	}{
		{StoreKey, []cryptoki.Attribute{cryptoki.Bool(cryptoki.CKA_WRAP, true), cryptoki.Bool(cryptoki.CKA_EXTRACTABLE, true)}},
		{LogKey, []cryptoki.Attribute{cryptoki.Bool(cryptoki.CKA_DERIVE, true), cryptoki.Bool(cryptoki.CKA_EXTRACTABLE, true)}},
	} {
		o := token.named[at.name]
		for _, a := range at.bad {
			h.refused(string(at.name)+"/set "+a.Name(), h.set(o, a))
		}
		h.refused(string(at.name)+"/copy", h.copyWith(o, cryptoki.Bool(cryptoki.CKA_TOKEN, false)))
		h.refused(string(at.name)+"/read value", h.read(o, cryptoki.CKA_VALUE))
	}
	h.refused("store key/CMAC", h.sign(cryptoki.CKM_AES_CMAC, token.named[StoreKey]))
	h.refused("store key/wrap with it", h.wrap(cryptoki.Plain(token.profile.KWP), token.named[StoreKey], rk))
}

func TestHostAttacksResident(t *testing.T) {
	token, public := ready(t, 1)
	key, id := newKey(t), newID()
	blob := wrappedKey(t, public, key)
	if err := token.Import(t.Context(), id, OAEPDirect, blob); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, token)
	rk := token.keys[id]
	h.onImportKey("import key", token.named[ImportResident], blob, token.rekey)
	h.onRekey("re-encryption key", rk, false)
	h.onOwnKeys(rk)
	// After all of that, it works as before.
	req, want := request(t, id, key)
	if r := token.Derive(t.Context(), []DeriveRequest{req}); r[0].Err != nil || r[0].X != want {
		t.Errorf("derive afterwards: %v", r[0].Err)
	}
}

// The mechanics of custody sealed: a re-encryption key leaves only wrapped
// under the sealing key, and comes back only as it was.
func TestHostAttacksSealed(t *testing.T) {
	p := initialised(t)
	officer := open(t, p, Officer, 1)
	if _, err := officer.Generate(t.Context(), SealingKey(1)); err != nil {
		t.Fatal(err)
	}
	if err := officer.Close(); err != nil {
		t.Fatal(err)
	}
	token := open(t, p, User, 1)
	defer token.Close()
	r, err := token.Generate(t.Context(), ImportSealed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Inspect(t.Context(), SealingKey(1)); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, token)
	found, err := h.m.Find(h.s, []cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_LABEL, []byte(SealingKey(1)))})
	if err != nil || len(found) != 1 {
		t.Fatalf("%v %v", found, err)
	}
	sealing, key := found[0], newKey(t)
	template := p.rekeyTemplate(Sealed)
	blob := wrappedKey(t, importKey(t, r), key)
	importKey := token.named[ImportSealed]
	h.onImportKey("import key", importKey, blob, template)

	// The host keeps one session open: objects of a session end with it.
	keep, err := h.m.OpenSession(token.slot)
	if err != nil {
		t.Fatal(err)
	}
	rk, err := h.m.UnwrapKey(keep, p.oaep(), importKey, blob, template)
	if err != nil {
		t.Fatal(err)
	}
	kwp := cryptoki.Plain(p.KWP)
	sealed, err := h.m.WrapKey(keep, kwp, sealing, rk)
	if err != nil {
		t.Fatal(err)
	}
	back, err := h.m.UnwrapKey(keep, kwp, sealing, sealed, template)
	if err != nil {
		t.Fatal(err)
	}
	h.onRekey("re-encryption key", back, true)
	for _, a := range template {
		if len(a.Value) == 1 {
			h.refused("sealing key/unseal with other "+a.Name(), func() error {
				_, err := h.m.UnwrapKey(h.s, kwp, sealing, sealed, replace(template, cryptoki.Bool(a.Type, a.Value[0] == 0)))
				return err
			})
		}
	}
	for _, a := range []uint{cryptoki.CKA_DECRYPT, cryptoki.CKA_SIGN, cryptoki.CKA_DERIVE, cryptoki.CKA_EXTRACTABLE} {
		h.refused("sealing key/set", h.set(sealing, cryptoki.Bool(a, true)))
		h.refused("sealing key/copy", h.copyWith(sealing, cryptoki.Bool(a, true)))
	}
	h.refused("sealing key/read value", h.read(sealing, cryptoki.CKA_VALUE))
	h.refused("sealing key/CMAC", h.sign(cryptoki.CKM_AES_CMAC, sealing))
	h.refused("sealing key/decrypt a blob", h.decrypt(cryptoki.Plain(cryptoki.CKM_AES_CBC_PAD), sealing, make([]byte, 32)))
	h.refused("sealing key/wrap with another mechanism", h.wrap(cryptoki.Plain(0x2109), sealing, back))
	own, err := h.aes(cryptoki.Bool(cryptoki.CKA_WRAP, true), cryptoki.Bool(cryptoki.CKA_SENSITIVE, false))
	if err != nil {
		t.Fatal(err)
	}
	h.refused("sealing key/wrap it under own key", h.wrap(kwp, own, sealing))

	again, err := h.m.UnwrapKey(keep, kwp, sealing, sealed, template)
	if err != nil {
		t.Fatal(err)
	}
	x, err := derive(h.m, keep, again, generator[:], token.template)
	if err != nil || !bytes.Equal(x[:], key.PublicKey().Bytes()[1:33]) {
		t.Errorf("derive afterwards: %v", err)
	}
}

// The same attacks succeed on keys that lack the attributes: the tests above
// can fail. And Generate would not let such keys pass.
func TestAttacksSucceedWithoutProtection(t *testing.T) {
	p := initialised(t)
	token := open(t, p, User, 1)
	defer token.Close()
	h := newHost(t, token)
	weak := func(drop ...uint) (cryptoki.Object, []byte, *ecdh.PrivateKey) {
		t.Helper()
		pl, err := p.plan(ImportResident, []byte("weak"))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range drop {
			pl.acting = without(pl.acting, d)
		}
		pub, priv, err := h.m.GenerateKeyPair(h.s, pl.mech, pl.public, pl.acting)
		if err != nil {
			t.Fatal(err)
		}
		public, err := token.public(h.s, ImportResident, pub)
		if err != nil {
			t.Fatal(err)
		}
		key := newKey(t)
		return priv, wrappedKey(t, public.(*rsa.PublicKey), key), key
	}
	lax := replace(replace(token.rekey, cryptoki.Bool(cryptoki.CKA_SENSITIVE, false)), cryptoki.Bool(cryptoki.CKA_EXTRACTABLE, true))

	priv, blob, key := weak(cryptoki.CKA_UNWRAP_TEMPLATE)
	o, err := h.m.UnwrapKey(h.s, p.oaep(), priv, blob, lax)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := h.m.Read(h.s, o, cryptoki.CKA_VALUE); err != nil || !bytes.Equal(v.Value, key.Bytes()) {
		t.Errorf("no template: %v", err)
	}
	priv, blob, _ = weak(cryptoki.CKA_MODIFIABLE)
	if err := h.set(priv, cryptoki.Bool(cryptoki.CKA_DECRYPT, true))(); err != nil {
		t.Errorf("modifiable: %v", err)
	} else if err := h.decrypt(p.oaep(), priv, blob)(); err != nil {
		t.Errorf("modifiable, decrypt: %v", err)
	}
	priv, _, _ = weak(cryptoki.CKA_COPYABLE, cryptoki.CKA_MODIFIABLE)
	if err := h.copyWith(priv, cryptoki.Bool(cryptoki.CKA_DECRYPT, true))(); err != nil {
		t.Errorf("copyable: %v", err)
	}
}
