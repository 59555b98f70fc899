package pkcs11

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
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

// Mechanisms that only an attacker asks for.
const (
	ckmRSAPKCS    = 0x0001
	ckmAESECB     = 0x1081
	ckmAESKeyWrap = 0x2109
	ckmAESCBC     = 0x1082
	ckmAESCTR     = 0x1086
)

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

// unwrapPKCS1 has the import key open what was wrapped by PKCS#1 v1.5. Whether that works tells about the
// padding, from which any blob can be opened in time (Bleichenbacher, CRYPTO '98).
func (h *host) unwrapPKCS1(key cryptoki.Object, public *rsa.PublicKey, t []cryptoki.Attribute) func() error {
	return func() error {
		//lint:ignore SA1019 the attack is on exactly this padding
		blob, err := rsa.EncryptPKCS1v15(rand.Reader, public, pkcs8(h.t, oidP256, newKey(h.t).Bytes()))
		if err != nil {
			return fmt.Errorf("wrapping: %w", err)
		}
		_, err = h.m.UnwrapKey(h.s, cryptoki.Plain(ckmRSAPKCS), key, blob, t)
		return err
	}
}

// signRaw has an RSA key exponentiate.
func (h *host) signRaw(key cryptoki.Object, blob []byte) func() error {
	return func() error {
		_, err := h.m.Sign(h.s, cryptoki.Plain(cryptoki.CKM_RSA_X_509), key, blob)
		return err
	}
}

func (h *host) decrypt(mech cryptoki.Mechanism, key cryptoki.Object, blob []byte) func() error {
	return func() error { _, err := h.m.Decrypt(h.s, mech, key, blob); return err }
}

func (h *host) encrypt(mech cryptoki.Mechanism, key cryptoki.Object, plain []byte) func() error {
	return func() error { _, err := h.m.Encrypt(h.s, mech, key, plain); return err }
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
		cryptoki.Bytes(cryptoki.CKA_VALUE, bytes.Repeat([]byte{7}, 32)), off(cryptoki.CKA_TOKEN),
		off(cryptoki.CKA_SENSITIVE), on(cryptoki.CKA_EXTRACTABLE)}, more...))
}

// wrapUnderOwn takes a key out under a key of known value.
func (h *host) wrapUnderOwn(mech uint, o cryptoki.Object) func() error {
	return func() error {
		own, err := h.aes(on(cryptoki.CKA_WRAP), on(cryptoki.CKA_ENCRYPT), on(cryptoki.CKA_DECRYPT))
		if err != nil {
			return fmt.Errorf("making an own key: %w", err)
		}
		return h.wrap(cryptoki.Plain(mech), own, o)()
	}
}

func on(typ uint) cryptoki.Attribute  { return cryptoki.Bool(typ, true) }
func off(typ uint) cryptoki.Attribute { return cryptoki.Bool(typ, false) }

// generic is the template of a secret that can be read, whatever it was wrapped as.
func generic() []cryptoki.Attribute {
	return []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY), cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_GENERIC_SECRET),
		off(cryptoki.CKA_TOKEN), off(cryptoki.CKA_SENSITIVE), on(cryptoki.CKA_EXTRACTABLE)}
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
func (h *host) onImportKey(name string, key cryptoki.Object, public *rsa.PublicKey, blob []byte, template []cryptoki.Attribute) {
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
	h.refused(name+"/unwrap as a generic secret", h.unwrap(key, blob, generic()))
	h.refused(name+"/unwrap as a secret with every other attribute right", h.unwrap(key, blob,
		replace(template, cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY))))
	h.refused(name+"/unwrap as RSA", h.unwrap(key, blob, replace(template, cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_RSA))))
	h.refused(name+"/unwrap with ECDSA allowed", h.unwrap(key, blob,
		replace(template, cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS, cryptoki.CKM_ECDH1_DERIVE, cryptoki.CKM_ECDSA))))
	h.refused(name+"/unwrap with nothing asked", h.unwrap(key, blob, []cryptoki.Attribute{
		cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_PRIVATE_KEY), cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_EC)}))
	other := Sealed
	if slices.ContainsFunc(template, on(cryptoki.CKA_EXTRACTABLE).Equal) {
		other = Resident
	}
	h.refused(name+"/unwrap for the other custody", h.unwrap(key, blob, h.token.profile.rekeyTemplate(other)))
	h.refused(name+"/unwrap what was wrapped by PKCS#1, an oracle", h.unwrapPKCS1(key, public, template))
	h.refused(name+"/decrypt", h.decrypt(h.token.profile.oaep(), key, blob))
	h.refused(name+"/decrypt raw RSA", h.decrypt(cryptoki.Plain(cryptoki.CKM_RSA_X_509), key, blob))
	h.refused(name+"/decrypt PKCS#1", h.decrypt(cryptoki.Plain(ckmRSAPKCS), key, blob))
	h.refused(name+"/sign raw RSA, which is to decrypt", h.signRaw(key, blob))
	h.refused(name+"/wrap it under own key", h.wrapUnderOwn(h.token.profile.KWP, key))
	for _, a := range []cryptoki.Attribute{
		on(cryptoki.CKA_DECRYPT), on(cryptoki.CKA_SIGN), on(cryptoki.CKA_EXTRACTABLE), off(cryptoki.CKA_SENSITIVE), on(cryptoki.CKA_MODIFIABLE), on(cryptoki.CKA_COPYABLE),
		cryptoki.Bytes(cryptoki.CKA_UNWRAP_TEMPLATE, nil), cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS, cryptoki.CKM_RSA_X_509),
	} {
		h.refused(name+"/set "+a.Name(), h.set(key, a))
	}
	h.refused(name+"/copy with CKA_DECRYPT", h.copyWith(key, on(cryptoki.CKA_DECRYPT)))
	h.refused(name+"/copy as it is", h.copyWith(key, off(cryptoki.CKA_TOKEN)))
	h.refused(name+"/read private exponent", h.read(key, 0x123)) // CKA_PRIVATE_EXPONENT
	h.refused(name+"/still no decrypt", h.decrypt(h.token.profile.oaep(), key, blob))
}

// onRekey attacks a re-encryption key in the token.
func (h *host) onRekey(name string, rk cryptoki.Object, extractable bool) {
	h.refused(name+"/read value", h.read(rk, cryptoki.CKA_VALUE))
	h.refused(name+"/unset sensitive", h.set(rk, off(cryptoki.CKA_SENSITIVE)))
	if !extractable {
		h.refused(name+"/set extractable", h.set(rk, on(cryptoki.CKA_EXTRACTABLE)))
	} else {
		h.refused(name+"/clear wrap with trusted", h.set(rk, off(cryptoki.CKA_WRAP_WITH_TRUSTED)))
	}
	h.refused(name+"/set allowed mechanisms", h.set(rk, cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS, cryptoki.CKM_ECDSA)))
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
	h.refused(name+"/copy extractable and not sensitive after setting CKA_COPYABLE", h.copyWith(rk, on(cryptoki.CKA_EXTRACTABLE), off(cryptoki.CKA_SENSITIVE)))
	for _, mech := range []uint{h.token.profile.KWP, ckmAESKeyWrap, cryptoki.CKM_AES_CBC_PAD} {
		h.refused(fmt.Sprintf("%s/wrap under own key by 0x%x", name, mech), h.wrapUnderOwn(mech, rk))
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
	for _, name := range []KeyName{StoreKey, LogKey} {
		o := token.named[name]
		for _, a := range []cryptoki.Attribute{on(cryptoki.CKA_EXTRACTABLE), off(cryptoki.CKA_SENSITIVE), on(cryptoki.CKA_DERIVE), on(cryptoki.CKA_WRAP),
			on(cryptoki.CKA_UNWRAP), on(cryptoki.CKA_MODIFIABLE), on(cryptoki.CKA_COPYABLE), cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS)} {
			h.refused(string(name)+"/set "+a.Name(), h.set(o, a))
		}
		h.refused(string(name)+"/copy", h.copyWith(o, off(cryptoki.CKA_TOKEN)))
		h.refused(string(name)+"/copy extractable", h.copyWith(o, on(cryptoki.CKA_EXTRACTABLE)))
		h.refused(string(name)+"/read value", h.read(o, cryptoki.CKA_VALUE))
		h.refused(string(name)+"/wrap it under own key", h.wrapUnderOwn(token.profile.KWP, o))
	}
	store := token.named[StoreKey]
	h.refused("store key/CMAC", h.sign(cryptoki.CKM_AES_CMAC, store))
	h.refused("store key/wrap with it", h.wrap(cryptoki.Plain(token.profile.KWP), store, rk))
	h.refused("store key/decrypt in another mode", h.decrypt(cryptoki.Plain(ckmAESECB), store, make([]byte, 32)))
	h.refused("log key/sign by another mechanism", h.sign(cryptoki.CKM_ECDSA, token.named[LogKey]))
}

// ceremonyKeys makes every key of a ceremony, as it makes them, and opens the token for the user.
func ceremonyKeys(t *testing.T, periods ...uint32) (*Token, map[KeyName]KeyReport) {
	t.Helper()
	p := initialised(t)
	reports := make(map[KeyName]KeyReport)
	generate := func(token *Token, name KeyName) {
		t.Helper()
		r, err := token.Generate(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		reports[name] = r
	}
	officer := open(t, p, Officer, 1)
	for _, period := range periods {
		generate(officer, SealingKey(period))
	}
	if err := officer.Close(); err != nil {
		t.Fatal(err)
	}
	token := open(t, p, User, 1)
	t.Cleanup(func() { _ = token.Close() })
	for _, name := range []KeyName{ImportResident, ImportSealed, LogKey, StoreKey} {
		generate(token, name)
	}
	return token, reports
}

func (h *host) named(name KeyName) cryptoki.Object {
	h.t.Helper()
	o, err := h.token.only(h.s, name)
	if err != nil {
		h.t.Fatal(err)
	}
	return o
}

func (h *host) must(b []byte, err error) []byte {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

// untouched checks that after all attacks the ceremony's keys read as they did
// when they were made.
func (h *host) untouched(reports map[KeyName]KeyReport) {
	h.t.Helper()
	for name, was := range reports {
		now, err := h.token.Inspect(h.t.Context(), name)
		if err == nil {
			err = was.Same(now)
		}
		if err != nil {
			h.t.Errorf("afterwards: %v", err)
		}
	}
}

func TestHostAttacksResident(t *testing.T) {
	token, reports := ceremonyKeys(t, 1)
	public := importKey(t, reports[ImportResident])
	key, id := newKey(t), newID()
	blob := wrappedKey(t, public, key)
	if err := token.Import(t.Context(), id, OAEPDirect, blob); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, token)
	rk := token.keys[id]
	h.onImportKey("import key", token.named[ImportResident], public, blob, token.rekey)
	h.refused("import key of custody sealed/unwrap", h.unwrap(token.named[ImportSealed], blob, token.profile.rekeyTemplate(Sealed)))
	h.onRekey("re-encryption key", rk, false)
	h.refused("re-encryption key/wrap under the sealing key", h.wrap(cryptoki.Plain(token.profile.KWP), h.named(SealingKey(1)), rk))
	h.onOwnKeys(rk)

	req, want := request(t, id, key)
	if r := token.Derive(t.Context(), []DeriveRequest{req}); r[0].Err != nil || r[0].X != want {
		t.Errorf("derive afterwards: %v", r[0].Err)
	}
	h.untouched(reports)
}

// onSealingKey attacks a sealing key with a captured blob, and with rk, a live key that it may wrap.
func (h *host) onSealingKey(name string, key cryptoki.Object, blob []byte, rk cryptoki.Object) {
	p, template := h.token.profile, h.token.sealedRekey
	kwp := cryptoki.Plain(p.KWP)
	unwrap := func(mech cryptoki.Mechanism, blob []byte, t []cryptoki.Attribute) func() error {
		return func() error { _, err := h.m.UnwrapKey(h.s, mech, key, blob, t); return err }
	}
	class := func(typ uint) cryptoki.Attribute { return cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, typ) }
	for _, a := range template {
		if len(a.Value) == 1 {
			h.refused(name+"/unwrap with other "+a.Name(), unwrap(kwp, blob, replace(template, cryptoki.Bool(a.Type, a.Value[0] == 0))))
		}
		h.refused(name+"/unwrap without "+a.Name(), func() error {
			o, err := h.m.UnwrapKey(h.s, kwp, key, blob, without(template, a.Type))
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
	h.refused(name+"/unwrap as a generic secret", unwrap(kwp, blob, generic()))
	h.refused(name+"/unwrap as an AES key", unwrap(kwp, blob, replace(generic(), class(cryptoki.CKK_AES))))
	h.refused(name+"/unwrap as a secret with every other attribute right",
		unwrap(kwp, blob, replace(template, cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY))))
	h.refused(name+"/unwrap as RSA", unwrap(kwp, blob, replace(template, class(cryptoki.CKK_RSA))))
	h.refused(name+"/unwrap as a generic key, private", unwrap(kwp, blob, replace(template, class(cryptoki.CKK_GENERIC_SECRET))))
	h.refused(name+"/unwrap with ECDSA allowed",
		unwrap(kwp, blob, replace(template, cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS, cryptoki.CKM_ECDH1_DERIVE, cryptoki.CKM_ECDSA))))
	h.refused(name+"/unwrap for custody resident", unwrap(kwp, blob, h.token.rekey))
	h.refused(name+"/unwrap with nothing asked", unwrap(kwp, blob, []cryptoki.Attribute{
		cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_PRIVATE_KEY), class(cryptoki.CKK_EC)}))
	h.refused(name+"/unwrap as a trusted sealing key", unwrap(kwp, blob, append(replace(generic(), class(cryptoki.CKK_AES)), on(cryptoki.CKA_TRUSTED), on(cryptoki.CKA_WRAP))))
	for _, mech := range []uint{ckmAESKeyWrap, cryptoki.CKM_AES_CBC_PAD, ckmAESECB} {
		h.refused(fmt.Sprintf("%s/unwrap by 0x%x", name, mech), unwrap(cryptoki.Plain(mech), blob, generic()))
		h.refused(fmt.Sprintf("%s/wrap by 0x%x", name, mech), h.wrap(cryptoki.Plain(mech), key, rk))
	}
	for i := range blob {
		bad := bytes.Clone(blob)
		bad[i] ^= 1 << (i % 8)
		if _, err := h.m.UnwrapKey(h.s, kwp, key, bad, template); err == nil {
			h.t.Errorf("%s: a blob with a bit flipped in byte %d unwraps", name, i)
		}
	}
	for _, mech := range []uint{ckmAESECB, ckmAESCBC, cryptoki.CKM_AES_CBC_PAD, ckmAESCTR, ckmAESKeyWrap, p.KWP} {
		h.refused(fmt.Sprintf("%s/decrypt the blob by 0x%x", name, mech), forbidden(h.decrypt(cryptoki.Plain(mech), key, blob)))
		h.refused(fmt.Sprintf("%s/encrypt by 0x%x", name, mech), forbidden(h.encrypt(cryptoki.Plain(mech), key, blob)))
	}
	gcm := cryptoki.GCM(make([]byte, 12), nil)
	h.refused(name+"/encrypt by GCM", h.encrypt(gcm, key, blob))
	h.refused(name+"/decrypt by GCM", h.decrypt(gcm, key, blob))
	h.refused(name+"/CMAC", h.sign(cryptoki.CKM_AES_CMAC, key))
	for _, a := range []cryptoki.Attribute{
		on(cryptoki.CKA_DECRYPT), on(cryptoki.CKA_ENCRYPT), on(cryptoki.CKA_SIGN), on(cryptoki.CKA_DERIVE), on(cryptoki.CKA_EXTRACTABLE), off(cryptoki.CKA_SENSITIVE),
		on(cryptoki.CKA_MODIFIABLE), on(cryptoki.CKA_COPYABLE), off(cryptoki.CKA_TRUSTED), cryptoki.Bytes(cryptoki.CKA_LABEL, []byte("another")),
		cryptoki.Bytes(cryptoki.CKA_UNWRAP_TEMPLATE, nil), cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS),
		cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS, ckmAESECB),
	} {
		h.refused(name+"/set "+a.Name(), h.set(key, a))
	}
	for _, typ := range []uint{cryptoki.CKA_DECRYPT, cryptoki.CKA_SIGN, cryptoki.CKA_DERIVE, cryptoki.CKA_EXTRACTABLE, cryptoki.CKA_MODIFIABLE, cryptoki.CKA_COPYABLE} {
		h.refused(name+"/copy with "+on(typ).Name(), h.copyWith(key, on(typ)))
	}
	h.refused(name+"/copy as it is", h.copyWith(key, off(cryptoki.CKA_TOKEN)))
	h.refused(name+"/copy with an empty template", h.copyWith(key, cryptoki.Bytes(cryptoki.CKA_UNWRAP_TEMPLATE, nil)))
	h.refused(name+"/read value", h.read(key, cryptoki.CKA_VALUE))
	for _, mech := range []uint{p.KWP, ckmAESKeyWrap} {
		h.refused(fmt.Sprintf("%s/wrap it under own key by 0x%x", name, mech), h.wrapUnderOwn(mech, key))
	}
	h.refused(name+"/wrap it under itself", h.wrap(kwp, key, key))
	h.refused(name+"/still no decrypt", h.decrypt(cryptoki.Plain(ckmAESECB), key, blob))
}

// forbidden insists that it is the use of the key that was refused: some of these mechanisms want a parameter, which nothing here
// gives them, and to be refused for that would mean nothing.
func forbidden(attack func() error) func() error {
	return func() error {
		err := attack()
		if err == cryptoki.CKR_ARGUMENTS_BAD || err == cryptoki.CKR_MECHANISM_PARAM_INVALID {
			return fmt.Errorf("the parameter was refused, not the use: %w", err)
		}
		return err
	}
}

// fakeSealing has the user make a key that calls itself the sealing key of a period, as like to one as the user can.
func (h *host) fakeSealing(period uint32, more ...cryptoki.Attribute) (cryptoki.Object, error) {
	pl, err := h.token.profile.plan(SealingKey(period), []byte("fake"))
	if err != nil {
		return 0, err
	}
	acting := without(pl.acting, cryptoki.CKA_TRUSTED)
	for _, a := range more {
		acting = replace(acting, a)
	}
	return h.m.GenerateKey(h.s, pl.mech, acting)
}

// Custody sealed: a re-encryption key leaves only wrapped under a sealing key,
// and comes back only as it was. The live key under attack is the very one that
// readers' derives use.
func TestHostAttacksSealed(t *testing.T) {
	token, reports := ceremonyKeys(t, 1, 2)
	p := token.profile
	public := importKey(t, reports[ImportSealed])
	s := importedSealed(t, token, public)
	if err := s.check(token); err != nil {
		t.Fatal(err)
	}
	captured := wrappedKey(t, public, s.key)
	h := newHost(t, token)
	older, sealing := h.named(SealingKey(1)), h.named(SealingKey(2))
	live := token.live.keys[nameOf(s.req.Key, s.req.Sealed)].object
	h.onImportKey("import key", token.named[ImportSealed], public, captured, token.sealedRekey)
	h.refused("import key of custody resident/unwrap", h.unwrap(token.named[ImportResident], captured, token.rekey))
	h.onRekey("live key", live, true)
	h.onSealingKey("sealing key", sealing, s.req.Sealed.Blob, live)
	h.onSealingKey("older sealing key", older, h.must(h.m.WrapKey(h.s, cryptoki.Plain(p.KWP), older, live)), live)
	h.onOwnKeys(live)

	kwp := cryptoki.Plain(p.KWP)
	h.refused("blob of another period/unwrap", func() error {
		_, err := h.m.UnwrapKey(h.s, kwp, older, s.req.Sealed.Blob, token.sealedRekey)
		return err
	})
	h.refused("sealing keys/wrap one under the other", h.wrap(kwp, older, sealing))
	h.refused("own key/unwrap a blob with it", func() error {
		own, err := h.aes(on(cryptoki.CKA_UNWRAP))
		if err != nil {
			return fmt.Errorf("making an own key: %w", err)
		}
		_, err = h.m.UnwrapKey(h.s, kwp, own, s.req.Sealed.Blob, generic())
		return err
	})
	h.refused("own key/unwrapped as trusted", func() error {
		own, err := h.aes(on(cryptoki.CKA_WRAP), on(cryptoki.CKA_UNWRAP))
		if err != nil {
			return fmt.Errorf("making an own key: %w", err)
		}
		known, err := h.m.WrapKey(h.s, kwp, own, own)
		if err != nil {
			return fmt.Errorf("wrapping it: %w", err)
		}
		_, err = h.m.UnwrapKey(h.s, kwp, own, known, append(replace(generic(), cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_AES)),
			cryptoki.Bytes(cryptoki.CKA_LABEL, []byte(SealingKey(3))), on(cryptoki.CKA_WRAP), on(cryptoki.CKA_TRUSTED)))
		return err
	})
	h.refused("fake sealing key/trusted", func() error {
		_, err := h.fakeSealing(3, on(cryptoki.CKA_TRUSTED))
		return err
	})
	if err := s.check(token); err != nil {
		t.Errorf("derive afterwards: %v", err)
	}
	h.untouched(reports)

	// Decoys are found, counted and passed over: everything goes on, under the real keys.
	old := SealedKey{Period: 1, Blob: h.must(h.m.WrapKey(h.s, kwp, older, live))}
	decoys := map[string]uint32{"of the older one's name": 1, "of the newest one's name": 2, "newer than all": 99}
	for name, period := range decoys {
		fake, err := h.fakeSealing(period, on(cryptoki.CKA_DECRYPT), on(cryptoki.CKA_ENCRYPT), cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS, p.KWP, ckmAESECB))
		if err != nil {
			t.Fatal(err)
		}
		h.refused("decoy "+name+"/wrap a live key under it", h.wrap(kwp, fake, live))
		h.refused("decoy "+name+"/unwrap a blob with it", func() error {
			_, err := h.m.UnwrapKey(h.s, kwp, fake, s.req.Sealed.Blob, token.sealedRekey)
			return err
		})
	}
	if _, err := h.fakeSealing(3, cryptoki.Bytes(cryptoki.CKA_LABEL, []byte(sealingPrefix+"of no period"))); err != nil {
		t.Fatal(err)
	}
	sealings := func(want ...uint32) {
		t.Helper()
		if periods, n, err := token.SealingKeys(t.Context()); err != nil || n != len(decoys)+1 || !slices.Equal(periods, want) {
			t.Errorf("with decoys: periods %v, %d decoys, %v", periods, n, err)
		}
		if f, err := token.Probe(t.Context()); err != nil || f.Decoys != len(decoys)+1 {
			t.Errorf("probed with decoys: %d, %v", f.Decoys, err)
		}
	}
	sealings(1, 2)
	beside := importedSealed(t, token, public)
	moved, err := token.Reseal(t.Context(), []SealedKey{old})
	if err != nil || moved[0].Period != 2 || beside.req.Sealed.Period != 2 {
		t.Fatalf("with decoys: moved %v, imported under %d, %v", moved, beside.req.Sealed.Period, err)
	}
	if err := token.DestroySealingKey(t.Context(), 1); err != nil {
		t.Errorf("destroying the older one beside a decoy of its name: %v", err)
	}
	sealings(2)
	if _, err := token.Reseal(t.Context(), []SealedKey{old}); !errors.Is(err, ErrKeyMissing) {
		t.Errorf("under the older one when it is destroyed: %v", err)
	}
	if err := token.DestroySealingKey(t.Context(), 2); !errors.Is(err, ErrRefused) {
		t.Errorf("destroying the newest: %v", err)
	}
	s.req.Sealed = moved[0]
	for _, c := range []*sealedCase{&s, &beside} {
		if err := c.check(token); err != nil {
			t.Errorf("derive afterwards: %v", err)
		}
	}
}

// The same attacks, by the same calls, succeed on keys that lack an attribute
// each: the tests above can fail, and it is the attributes that refuse. Two
// have no such control here, because SoftHSM refuses them to any key of this
// kind: to wrap by CBC, and under an RSA key.
func TestAttacksSucceedWithoutProtection(t *testing.T) {
	p := initialised(t)
	weak := func(t *testing.T, name KeyName, changes ...cryptoki.Attribute) plan {
		pl, err := p.plan(name, []byte("weak"))
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range changes {
			pl.acting = without(pl.acting, a.Type)
			if len(a.Value) > 0 || len(a.Array) > 0 {
				pl.acting = append(pl.acting, a)
			}
		}
		return pl
	}
	none := func(typ uint) cryptoki.Attribute { return cryptoki.Attribute{Type: typ} }

	// Weak sealing keys, which only the security officer can make: nothing forbidden, no template.
	officer := open(t, p, Officer, 1)
	so := newHost(t, officer)
	lenient := weak(t, SealingKey(1), none(cryptoki.CKA_MODIFIABLE), none(cryptoki.CKA_COPYABLE), none(cryptoki.CKA_ALLOWED_MECHANISMS),
		none(cryptoki.CKA_UNWRAP_TEMPLATE), on(cryptoki.CKA_SIGN), on(cryptoki.CKA_ENCRYPT), on(cryptoki.CKA_DECRYPT), on(cryptoki.CKA_EXTRACTABLE))
	modifiable := weak(t, SealingKey(2), none(cryptoki.CKA_MODIFIABLE), none(cryptoki.CKA_COPYABLE))
	for _, pl := range []struct {
		acting []cryptoki.Attribute
		mech   cryptoki.Mechanism
	}{{lenient.acting, lenient.mech}, {modifiable.acting, modifiable.mech}} {
		if _, err := so.m.GenerateKey(so.s, pl.mech, pl.acting); err != nil {
			t.Fatal(err)
		}
	}
	if err := officer.Close(); err != nil {
		t.Fatal(err)
	}

	token := open(t, p, User, 1)
	defer token.Close()
	h := newHost(t, token)
	succeeds := func(name string, attack func() error) {
		t.Run(name, func(t *testing.T) {
			if err := attack(); err != nil {
				t.Error(err)
			}
		})
	}
	must := func(o cryptoki.Object, err error) cryptoki.Object {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	pair := func(name KeyName, changes ...cryptoki.Attribute) (cryptoki.Object, *rsa.PublicKey) {
		t.Helper()
		pl := weak(t, name, changes...)
		pub, priv, err := h.m.GenerateKeyPair(h.s, pl.mech, pl.public, pl.acting)
		if err != nil {
			t.Fatal(err)
		}
		public, err := token.public(h.s, name, pub)
		if err != nil {
			t.Fatal(err)
		}
		key, _ := public.(*rsa.PublicKey)
		return priv, key
	}
	kwp := cryptoki.Plain(p.KWP)
	key := newKey(t)
	gives := func(o cryptoki.Object) error {
		v, err := h.m.Read(h.s, o, cryptoki.CKA_VALUE)
		if err == nil && !bytes.Contains(v.Value, key.Bytes()) {
			err = errors.New("another value")
		}
		return err
	}

	// An import key without a template opens to any use.
	open, public := pair(ImportResident, none(cryptoki.CKA_UNWRAP_TEMPLATE), none(cryptoki.CKA_ALLOWED_MECHANISMS), on(cryptoki.CKA_DECRYPT), on(cryptoki.CKA_SIGN))
	blob := wrappedKey(t, public, key)
	session := replace(token.rekey, off(cryptoki.CKA_TOKEN))
	unwrapped := func(changes ...cryptoki.Attribute) cryptoki.Object {
		t.Helper()
		template := session
		for _, a := range changes {
			if template = without(template, a.Type); len(a.Value) > 0 {
				template = append(template, a)
			}
		}
		return must(h.m.UnwrapKey(h.s, p.oaep(), open, blob, template))
	}
	succeeds("unwrap lax, read", func() error { return gives(unwrapped(off(cryptoki.CKA_SENSITIVE), on(cryptoki.CKA_EXTRACTABLE))) })
	succeeds("unwrap as a generic secret, read", func() error { return gives(must(h.m.UnwrapKey(h.s, p.oaep(), open, blob, generic()))) })
	succeeds("unwrap for the other custody", h.unwrap(open, blob, p.rekeyTemplate(Sealed)))
	succeeds("unwrap what was wrapped by PKCS#1", h.unwrapPKCS1(open, public, session))
	succeeds("decrypt", h.decrypt(p.oaep(), open, blob))
	succeeds("decrypt raw RSA", h.decrypt(cryptoki.Plain(cryptoki.CKM_RSA_X_509), open, blob))
	succeeds("sign raw RSA", h.signRaw(open, blob))

	// A re-encryption key that may sign, be copied, or leave.
	succeeds("sign ECDSA", h.sign(cryptoki.CKM_ECDSA, unwrapped(on(cryptoki.CKA_SIGN), none(cryptoki.CKA_ALLOWED_MECHANISMS))))
	succeeds("copy to session object", h.copyWith(unwrapped(on(cryptoki.CKA_COPYABLE)), off(cryptoki.CKA_TOKEN)))
	succeeds("copy to token object", h.copyWith(unwrapped(on(cryptoki.CKA_COPYABLE)), on(cryptoki.CKA_TOKEN)))
	loose := unwrapped(on(cryptoki.CKA_EXTRACTABLE))
	succeeds("wrap under own key by 0x210a", h.wrapUnderOwn(p.KWP, loose))
	succeeds("wrap under own key by 0x2109", h.wrapUnderOwn(ckmAESKeyWrap, loose))
	succeeds("wrap under own key and read", func() error {
		own := must(h.aes(on(cryptoki.CKA_WRAP), on(cryptoki.CKA_UNWRAP)))
		taken, err := h.m.WrapKey(h.s, kwp, own, loose)
		if err != nil {
			return err
		}
		return gives(must(h.m.UnwrapKey(h.s, kwp, own, taken, generic())))
	})

	// Keys that may be changed or copied.
	changeable, public2 := pair(ImportResident, none(cryptoki.CKA_MODIFIABLE), none(cryptoki.CKA_COPYABLE))
	blob2 := wrappedKey(t, public2, key)
	succeeds("copy with CKA_DECRYPT, decrypt", func() error {
		return h.decrypt(p.oaep(), must(h.m.CopyObject(h.s, changeable, []cryptoki.Attribute{on(cryptoki.CKA_DECRYPT)})), blob2)()
	})
	succeeds("set CKA_DECRYPT", h.set(changeable, on(cryptoki.CKA_DECRYPT)))
	succeeds("decrypt after setting CKA_DECRYPT", h.decrypt(p.oaep(), changeable, blob2))
	leaving, _ := pair(ImportResident, on(cryptoki.CKA_EXTRACTABLE))
	succeeds("wrap an import key under own key", h.wrapUnderOwn(p.KWP, leaving))
	logKey, _ := pair(LogKey, none(cryptoki.CKA_MODIFIABLE), none(cryptoki.CKA_COPYABLE))
	succeeds("copy a log key", h.copyWith(logKey, off(cryptoki.CKA_TOKEN)))
	store := weak(t, StoreKey, on(cryptoki.CKA_EXTRACTABLE), on(cryptoki.CKA_SIGN), on(cryptoki.CKA_WRAP), none(cryptoki.CKA_ALLOWED_MECHANISMS), none(cryptoki.CKA_MODIFIABLE))
	storeKey := must(h.m.GenerateKey(h.s, store.mech, store.acting))
	succeeds("CMAC with a store key", h.sign(cryptoki.CKM_AES_CMAC, storeKey))
	succeeds("wrap with a store key", h.wrap(kwp, storeKey, loose))
	succeeds("decrypt with a store key in another mode", h.decrypt(cryptoki.Plain(ckmAESECB), storeKey, make([]byte, 32)))
	succeeds("wrap a store key under own key", h.wrapUnderOwn(p.KWP, storeKey))
	succeeds("set CKA_DERIVE on a store key", h.set(storeKey, on(cryptoki.CKA_DERIVE)))

	// Sealing keys.
	sealing, changing := h.named(SealingKey(1)), h.named(SealingKey(2))
	trusting := unwrapped(on(cryptoki.CKA_EXTRACTABLE), on(cryptoki.CKA_WRAP_WITH_TRUSTED))
	sealed, err := h.m.WrapKey(h.s, kwp, sealing, trusting)
	if err != nil {
		t.Fatal(err)
	}
	succeeds("unseal lax, read", func() error {
		return gives(must(h.m.UnwrapKey(h.s, kwp, sealing, sealed, replace(replace(session, off(cryptoki.CKA_SENSITIVE)), on(cryptoki.CKA_EXTRACTABLE)))))
	})
	succeeds("unseal as a generic secret, read", func() error { return gives(must(h.m.UnwrapKey(h.s, kwp, sealing, sealed, generic()))) })
	succeeds("unseal for custody resident", func() error {
		o := must(h.m.UnwrapKey(h.s, kwp, sealing, sealed, token.rekey))
		return h.m.DestroyObject(h.s, o)
	})
	succeeds("unseal with ECDSA allowed", func() error {
		_, err := h.m.UnwrapKey(h.s, kwp, sealing, sealed, replace(token.sealedRekey, cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS, cryptoki.CKM_ECDH1_DERIVE, cryptoki.CKM_ECDSA)))
		return err
	})
	succeeds("unseal with nothing asked", func() error {
		_, err := h.m.UnwrapKey(h.s, kwp, sealing, sealed, []cryptoki.Attribute{
			cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_PRIVATE_KEY), cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_EC)})
		return err
	})
	for _, a := range token.sealedRekey[2:] { // class and type cannot be left out of any unwrap
		if len(a.Value) == 1 && a.Type != cryptoki.CKA_PRIVATE {
			succeeds("unseal with other "+a.Name(), func() error {
				o, err := h.m.UnwrapKey(h.s, kwp, sealing, sealed, replace(token.sealedRekey, cryptoki.Bool(a.Type, a.Value[0] == 0)))
				if err == nil {
					err = h.m.DestroyObject(h.s, o)
				}
				return err
			})
		}
	}
	succeeds("wrap by 0x2109 under a sealing key", h.wrap(cryptoki.Plain(ckmAESKeyWrap), sealing, trusting))
	succeeds("encrypt with a sealing key", h.encrypt(cryptoki.Plain(ckmAESECB), sealing, make([]byte, 32)))
	succeeds("encrypt by GCM with a sealing key, decrypt", func() error {
		gcm := cryptoki.GCM(make([]byte, 12), nil)
		ct, err := h.m.Encrypt(h.s, gcm, sealing, make([]byte, 32))
		if err != nil {
			return err
		}
		return h.decrypt(gcm, sealing, ct)()
	})
	succeeds("wrap a sealing key under own key by 0x210a", h.wrapUnderOwn(p.KWP, sealing))
	succeeds("wrap a sealing key under own key by 0x2109", h.wrapUnderOwn(ckmAESKeyWrap, sealing))
	succeeds("wrap a sealing key under itself", h.wrap(kwp, sealing, sealing))
	succeeds("wrap a key that does not insist on a trusted one under a fake sealing key", func() error {
		return h.wrap(kwp, must(h.fakeSealing(9)), loose)()
	})
	succeeds("copy a sealing key as it is", h.copyWith(changing, off(cryptoki.CKA_TOKEN)))
	for _, a := range []cryptoki.Attribute{on(cryptoki.CKA_ENCRYPT), on(cryptoki.CKA_SIGN), on(cryptoki.CKA_DERIVE), cryptoki.Bytes(cryptoki.CKA_LABEL, []byte("another"))} {
		succeeds("set "+a.Name()+" on a sealing key", h.set(changing, a))
	}
	succeeds("CMAC with a sealing key", h.sign(cryptoki.CKM_AES_CMAC, sealing))
	succeeds("decrypt with a sealing key", h.decrypt(cryptoki.Plain(ckmAESECB), sealing, make([]byte, 32)))
	succeeds("copy a sealing key with CKA_DECRYPT", h.copyWith(changing, on(cryptoki.CKA_DECRYPT)))
	succeeds("set CKA_DECRYPT on a sealing key", h.set(changing, on(cryptoki.CKA_DECRYPT)))
}
