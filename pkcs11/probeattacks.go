package pkcs11

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// Mechanisms that only an attacker asks for (PKCS#11 2.40, pkcs11t.h).
const (
	mechRSAPKCS           = 0x0001
	mechExtractKey        = 0x0365 // CKM_EXTRACT_KEY_FROM_KEY
	mechSHA256Derivation  = 0x0393 // CKM_SHA256_KEY_DERIVATION
	mechECDSASHA256       = 0x1044
	mechECDHCofactor      = 0x1051
	mechAESECB            = 0x1081
	mechAESCBC            = 0x1082
	mechAESCBCPad         = 0x1085
	mechAESECBEncryptData = 0x1104 // CKM_AES_ECB_ENCRYPT_DATA
	mechAESKeyWrap        = 0x2109
	mechAESKeyWrapPad     = 0x210A
	mechAESKWP            = 0x210B // of PKCS#11 3.0
	kdfSHA1               = 2      // CKD_SHA1_KDF

	ckaPrivateExponent = 0x123
	ckaPrime1          = 0x124
)

// errImposed: the call went through, but the token set by itself what the
// attacker left out or turned. That is as good as a refusal.
var errImposed = errors.New("imposed by the token")

// try makes one attack, in a session of its own. needs are mechanisms without
// which it is not possible.
func (p *prober) try(x Attack, needs []uint, attack func(cryptoki.Session) error) bool {
	if p.broken != nil || p.only != nil && !p.only(x) {
		return false
	}
	if err := p.ctx.Err(); err != nil {
		p.broken = err
		return false
	}
	x.Verdict = Refused
	for _, mech := range needs {
		if !p.lists(mech) {
			x.Verdict = NotPossible
			p.out.Attacks = append(p.out.Attacks, x)
			return false
		}
	}
	err := p.session(attack)
	ckr, refused := errors.AsType[cryptoki.CKR](err)
	switch {
	case err == nil:
		x.Verdict = Succeeded
	case refused:
		x.CKR = uint64(ckr)
		switch ckr {
		case cryptoki.CKR_HOST_MEMORY, cryptoki.CKR_DEVICE_ERROR, cryptoki.CKR_DEVICE_REMOVED, cryptoki.CKR_TOKEN_NOT_PRESENT, cryptoki.CKR_CRYPTOKI_NOT_INITIALIZED:
			p.broken = fault("attacking ("+x.Name+")", err)
		}
	case errors.Is(err, errImposed) || errors.Is(err, cryptoki.ErrLength):
	default:
		p.broken = fmt.Errorf("attacking (%s): %w", x.Name, err)
	}
	p.out.Attacks = append(p.out.Attacks, x)
	return x.Verdict == Succeeded
}

func (p *prober) lists(mech uint) bool {
	for _, m := range p.mechs {
		if m == mech {
			return true
		}
	}
	return false
}

// ownKeys makes the host's own keys, which no attribute restrains.
func (p *prober) ownKeys() (err error) {
	yes := func(types ...uint) (t []cryptoki.Attribute) {
		for _, typ := range types {
			t = append(t, cryptoki.Bool(typ, true))
		}
		return append(t, cryptoki.Bool(cryptoki.CKA_TOKEN, false))
	}
	if p.ownAES, err = p.m.GenerateKey(p.home, cryptoki.Plain(cryptoki.CKM_AES_KEY_GEN), append(
		yes(cryptoki.CKA_WRAP, cryptoki.CKA_UNWRAP, cryptoki.CKA_ENCRYPT, cryptoki.CKA_DECRYPT, cryptoki.CKA_EXTRACTABLE),
		cryptoki.Bool(cryptoki.CKA_SENSITIVE, false), cryptoki.Ulong(cryptoki.CKA_VALUE_LEN, 32))); err != nil {
		return fault("making the host's own AES key", err)
	}
	return nil
}

// ownPair makes a public key of the host's own that may wrap. It takes the
// import key's modulus, because to draw another takes seconds and changes
// nothing for what the token should refuse.
func (p *prober) ownPair(public *rsa.PublicKey) (err error) {
	p.ownRSA, err = p.m.CreateObject(p.home, []cryptoki.Attribute{
		cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_PUBLIC_KEY), cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_RSA), cryptoki.Bool(cryptoki.CKA_TOKEN, false),
		cryptoki.Bool(cryptoki.CKA_WRAP, true), cryptoki.Bool(cryptoki.CKA_ENCRYPT, true),
		cryptoki.Bytes(cryptoki.CKA_MODULUS, public.N.Bytes()), cryptoki.Bytes(cryptoki.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})})
	return fault("making the host's own RSA key", err)
}

// readable is the template of a secret whose value can be read, whatever it
// was wrapped as.
func readable() []cryptoki.Attribute {
	return []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY), cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_GENERIC_SECRET),
		cryptoki.Bool(cryptoki.CKA_TOKEN, false), cryptoki.Bool(cryptoki.CKA_SENSITIVE, false), cryptoki.Bool(cryptoki.CKA_EXTRACTABLE, true)}
}

// gained says what a re-encryption key without a line of its template is good
// for.
var gained = map[uint]string{
	cryptoki.CKA_CLASS:              "as a secret key, whose value other mechanisms take in",
	cryptoki.CKA_KEY_TYPE:           "as a key of another type, for other mechanisms",
	cryptoki.CKA_TOKEN:              "to rest elsewhere than its custody says",
	cryptoki.CKA_PRIVATE:            "as a public object, for everybody without a PIN",
	cryptoki.CKA_SENSITIVE:          "so that it can be read",
	cryptoki.CKA_EXTRACTABLE:        "with another say on whether it may leave",
	cryptoki.CKA_DERIVE:             "with another say on whether it may derive",
	cryptoki.CKA_SIGN:               "so that it signs, which with a chosen nonce tells it",
	cryptoki.CKA_SIGN_RECOVER:       "so that it signs with recovery",
	cryptoki.CKA_DECRYPT:            "so that it decrypts",
	cryptoki.CKA_UNWRAP:             "so that it unwraps",
	cryptoki.CKA_COPYABLE:           "so that copies with other attributes can be made, which outlive it",
	cryptoki.CKA_ALLOWED_MECHANISMS: "for other mechanisms, such as signatures, which tell it",
	cryptoki.CKA_WRAP_WITH_TRUSTED:  "so that any key of the host's own may wrap it and take it out",
}

// turned is a line of a template the other way round, if it has one.
func turned(a cryptoki.Attribute) (cryptoki.Attribute, bool) {
	switch {
	case len(a.Value) == 1:
		return cryptoki.Bool(a.Type, a.Value[0] == 0), true
	case a.Type == cryptoki.CKA_CLASS:
		return cryptoki.Ulong(a.Type, cryptoki.CKO_SECRET_KEY), true
	case a.Type == cryptoki.CKA_KEY_TYPE:
		return cryptoki.Ulong(a.Type, cryptoki.CKK_GENERIC_SECRET), true
	case a.Type == cryptoki.CKA_ALLOWED_MECHANISMS:
		return cryptoki.Mechanisms(a.Type, cryptoki.CKM_ECDH1_DERIVE, cryptoki.CKM_ECDSA), true
	}
	return a, false
}

// templates tries to bring a key in by unwrap with every line of the template
// turned and left out. what names the key that unwraps.
func (p *prober) templates(what string, t *trial, unwrap func(s cryptoki.Session, template []cryptoki.Attribute) (cryptoki.Object, error)) {
	strict := p.strict(t.custody)
	lax := func(a cryptoki.Attribute, how string, template []cryptoki.Attribute) {
		why, known := gained[a.Type]
		if !known {
			why = "without what the vendor wants"
		}
		p.try(Attack{
			Name: fmt.Sprintf("%s: unwrap %s %s", what, how, a.Name()), Custody: t.custody, Attribute: unwrapLine(a),
			Tries: "bring a re-encryption key in " + why,
		}, nil, func(s cryptoki.Session) error {
			o, err := unwrap(s, template)
			if err != nil {
				return err
			}
			got, readErr := p.m.Read(s, o, a.Type)
			// It may be a token object: then it must not stay.
			if err := p.m.DestroyObject(s, o); err != nil {
				return fmt.Errorf("destroying what an attack made: %w", err)
			}
			if readErr == nil && got.Equal(a) {
				return errImposed
			}
			return nil
		})
	}
	for _, a := range strict {
		if other, ok := turned(a); ok {
			lax(a, "with other", replaced(strict, other))
		}
		lax(a, "without", omitted(strict, a.Type))
	}
	p.try(Attack{
		Name: what + ": unwrap as a generic secret", Custody: t.custody, Attribute: unwrapLine(cryptoki.Attribute{Type: cryptoki.CKA_CLASS}),
		Tries: "bring a re-encryption key in as a secret whose value can be read",
	}, nil, func(s cryptoki.Session) error { _, err := unwrap(s, readable()); return err })
	p.try(Attack{
		Name: what + ": unwrap with nothing asked", Custody: t.custody, Attribute: "CKA_UNWRAP_TEMPLATE",
		Tries: "bring a re-encryption key in with whatever the module sets by itself",
	}, nil, func(s cryptoki.Session) error {
		o, err := unwrap(s, []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_PRIVATE_KEY), cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_EC)})
		if err != nil {
			return err
		}
		imposed := true
		for _, a := range strict {
			got, err := p.m.Read(s, o, a.Type)
			imposed = imposed && err == nil && got.Equal(a)
		}
		if err := p.m.DestroyObject(s, o); err != nil {
			return fmt.Errorf("destroying what an attack made: %w", err)
		}
		if imposed {
			return errImposed
		}
		return nil
	})
}

func unwrapLine(a cryptoki.Attribute) string { return "CKA_UNWRAP_TEMPLATE " + a.Name() }

// An alteration is an attribute that an attacker would change in a key.
type alteration struct {
	attribute cryptoki.Attribute
	why       string
}

// alter tries to change attributes of a key in place, and to copy it with them
// changed. Each alone is what modifiable and copyable must refuse.
func (p *prober) alter(what string, c Custody, key cryptoki.Object, alterations []alteration) {
	for _, x := range alterations {
		p.try(Attack{
			Name: what + ": copy with other " + x.attribute.Name(), Custody: c, Attribute: "CKA_COPYABLE", Tries: "copy it " + x.why,
		}, nil, p.copy(key, x.attribute))
	}
	p.try(Attack{Name: what + ": copy", Custody: c, Attribute: "CKA_COPYABLE", Tries: "copy it, so that the copy outlives it"}, nil,
		p.copy(key, cryptoki.Bool(cryptoki.CKA_TOKEN, false)))
	p.try(Attack{Name: what + ": copy to a token object", Custody: c, Attribute: "CKA_COPYABLE", Tries: "copy it to where it stays"}, nil,
		p.copy(key, cryptoki.Bool(cryptoki.CKA_TOKEN, true)))
	for _, x := range alterations {
		p.try(Attack{
			Name: what + ": set " + x.attribute.Name(), Custody: c, Attribute: "CKA_MODIFIABLE", Tries: "change it " + x.why,
		}, nil, p.set(key, x.attribute))
	}
}

func (p *prober) set(o cryptoki.Object, a ...cryptoki.Attribute) func(cryptoki.Session) error {
	return func(s cryptoki.Session) error { return p.m.SetAttributes(s, o, a) }
}

func (p *prober) copy(o cryptoki.Object, a ...cryptoki.Attribute) func(cryptoki.Session) error {
	return func(s cryptoki.Session) error {
		made, err := p.m.CopyObject(s, o, a)
		if err != nil {
			return err
		}
		if err := p.m.DestroyObject(s, made); err != nil {
			return fmt.Errorf("destroying what an attack made: %w", err)
		}
		return nil
	}
}

func (p *prober) decrypt(mech cryptoki.Mechanism, o cryptoki.Object, data []byte) func(cryptoki.Session) error {
	return func(s cryptoki.Session) error {
		plain, err := p.m.Decrypt(s, mech, o, data)
		clear(plain)
		return err
	}
}

func (p *prober) sign(mech uint, o cryptoki.Object, data []byte) func(cryptoki.Session) error {
	return func(s cryptoki.Session) error { _, err := p.m.Sign(s, cryptoki.Plain(mech), o, data); return err }
}

func (p *prober) wrap(mech cryptoki.Mechanism, with, o cryptoki.Object) func(cryptoki.Session) error {
	return func(s cryptoki.Session) error { _, err := p.m.WrapKey(s, mech, with, o); return err }
}

func (p *prober) read(o cryptoki.Object, typ uint) func(cryptoki.Session) error {
	return func(s cryptoki.Session) error {
		a, err := p.m.Read(s, o, typ)
		empty := len(a.Value) == 0
		clear(a.Value)
		if err == nil && empty {
			return errImposed // an empty answer gives nothing away
		}
		return err
	}
}

// wrapAway tries to wrap a key under the host's own keys in every way.
func (p *prober) wrapAway(what string, c Custody, attribute string, o cryptoki.Object) {
	for _, mech := range []uint{mechAESKeyWrapPad, mechAESKWP, mechAESKeyWrap} {
		p.try(Attack{
			Name: fmt.Sprintf("%s: wrap under an own AES key by 0x%x", what, mech), Custody: c, Attribute: attribute,
			Tries: "wrap it under a key of the host's own, and so take it out",
		}, []uint{mech}, p.wrap(cryptoki.Plain(mech), p.ownAES, o))
	}
	p.try(Attack{
		Name: what + ": wrap under an own AES key by CBC with padding", Custody: c, Attribute: attribute,
		Tries: "wrap it under a key of the host's own, and so take it out",
	}, []uint{mechAESCBCPad}, p.wrap(cryptoki.With(mechAESCBCPad, make([]byte, 16)), p.ownAES, o))
	for _, x := range []struct {
		name string
		need uint
		mech cryptoki.Mechanism
	}{{"OAEP", cryptoki.CKM_RSA_PKCS_OAEP, p.p.oaep()}, {"PKCS#1", mechRSAPKCS, cryptoki.Plain(mechRSAPKCS)}} {
		p.try(Attack{
			Name: what + ": wrap under an own RSA key by " + x.name, Custody: c, Attribute: attribute,
			Tries: "wrap it under a key pair of the host's own, and so take it out",
		}, []uint{x.need}, p.wrap(x.mech, p.ownRSA, o))
	}
}

// attackImport attacks an import key, with a blob that the host has captured.
func (p *prober) attackImport(t *trial) {
	what := fmt.Sprintf("import key, %s", t.custody)
	p.templates(what, t, func(s cryptoki.Session, template []cryptoki.Attribute) (cryptoki.Object, error) {
		return p.m.UnwrapKey(s, p.p.oaep(), t.imports, t.blob, template)
	})
	other := Sealed
	if t.custody == Sealed {
		other = Resident
	}
	attack := func(name, attribute, tries string, needs []uint, f func(cryptoki.Session) error) {
		p.try(Attack{Name: what + ": " + name, Custody: t.custody, Attribute: attribute, Tries: tries}, needs, f)
	}
	attack("unwrap for the other custody", "CKA_UNWRAP_TEMPLATE CKA_EXTRACTABLE", "bring a key in for another custody than its grant names", nil,
		func(s cryptoki.Session) error {
			_, err := p.m.UnwrapKey(s, p.p.oaep(), t.imports, t.blob, p.strict(other))
			return err
		})
	attack("unwrap what was wrapped by PKCS#1", "CKA_ALLOWED_MECHANISMS", "learn about the padding by trial, and with it open any blob (Bleichenbacher, CRYPTO '98)", []uint{mechRSAPKCS},
		func(s cryptoki.Session) error {
			//lint:ignore SA1019 the attack is on exactly this padding
			blob, err := rsa.EncryptPKCS1v15(rand.Reader, t.public, t.der)
			if err != nil {
				return fmt.Errorf("wrapping: %w", err)
			}
			_, err = p.m.UnwrapKey(s, cryptoki.Plain(mechRSAPKCS), t.imports, blob, p.strict(t.custody))
			return err
		})
	attack("decrypt", "CKA_DECRYPT", "decrypt a wrapped key", nil, p.decrypt(p.p.oaep(), t.imports, t.blob))
	attack("decrypt raw RSA", "CKA_DECRYPT", "decrypt a wrapped key", []uint{cryptoki.CKM_RSA_X_509}, p.decrypt(cryptoki.Plain(cryptoki.CKM_RSA_X_509), t.imports, t.blob))
	attack("decrypt PKCS#1", "CKA_ALLOWED_MECHANISMS", "decrypt by another mechanism", []uint{mechRSAPKCS}, p.decryptsPKCS1(t))
	attack("sign raw RSA", "CKA_SIGN", "sign a wrapped key, which is to decrypt it", []uint{cryptoki.CKM_RSA_X_509}, p.sign(cryptoki.CKM_RSA_X_509, t.imports, t.blob))
	attack("sign PKCS#1", "CKA_SIGN", "sign with it", []uint{mechRSAPKCS}, p.sign(mechRSAPKCS, t.imports, t.blob[:32]))
	attack("sign raw RSA with recovery", "CKA_SIGN_RECOVER", "sign a wrapped key with recovery, which is to decrypt it", []uint{cryptoki.CKM_RSA_X_509},
		func(s cryptoki.Session) error {
			_, err := p.m.SignRecover(s, cryptoki.Plain(cryptoki.CKM_RSA_X_509), t.imports, t.blob)
			return err
		})
	attack("read the private exponent", "CKA_SENSITIVE", "read it", nil, p.read(t.imports, ckaPrivateExponent))
	attack("read a prime", "CKA_SENSITIVE", "read a prime, which is to read all of it", nil, p.read(t.imports, ckaPrime1))
	p.wrapAway(what, t.custody, "CKA_EXTRACTABLE", t.imports)
	if t.sealing != 0 {
		attack("wrap under the sealing key", "CKA_EXTRACTABLE", "wrap it under the sealing key", nil, p.wrap(cryptoki.Plain(p.p.KWP), t.sealing, t.imports))
	}
	p.try(Attack{
		Name: what + ": a second key of the same name", Custody: t.custody, Harmless: true,
		Tries: "make a key of its own with the import key's label; a vault that finds two does not start, and owners use the one that the vault document names",
	}, nil, func(s cryptoki.Session) error {
		_, err := p.m.GenerateKey(s, cryptoki.Plain(cryptoki.CKM_AES_KEY_GEN), []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_VALUE_LEN, 32),
			cryptoki.Bool(cryptoki.CKA_TOKEN, false), cryptoki.Bytes(cryptoki.CKA_LABEL, []byte(t.importKey))})
		return err
	})
	p.alter(what, t.custody, t.imports, []alteration{
		{cryptoki.Bool(cryptoki.CKA_DECRYPT, true), "so that it decrypts"},
		{cryptoki.Bool(cryptoki.CKA_SIGN, true), "so that it signs, which is to decrypt"},
		{cryptoki.Bool(cryptoki.CKA_SIGN_RECOVER, true), "so that it signs, which is to decrypt"},
		{cryptoki.Bool(cryptoki.CKA_SENSITIVE, false), "so that it can be read"},
		{cryptoki.Bool(cryptoki.CKA_EXTRACTABLE, true), "so that it can be wrapped out"},
		{cryptoki.Bool(cryptoki.CKA_MODIFIABLE, true), "so that everything else of it can be changed"},
		{cryptoki.Bool(cryptoki.CKA_COPYABLE, true), "so that it can be copied with other attributes"},
		{cryptoki.Bytes(cryptoki.CKA_UNWRAP_TEMPLATE, nil), "so that it forces nothing on what it unwraps"},
		{cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS, cryptoki.CKM_RSA_X_509), "so that it takes other mechanisms"},
	})
	attack("decrypt after all that", "CKA_MODIFIABLE", "decrypt a wrapped key after trying to change what it may do", nil, p.decrypt(p.p.oaep(), t.imports, t.blob))
	attack("unwrap lax after all that", "CKA_MODIFIABLE", "bring a readable key in after trying to clear the template", nil, func(s cryptoki.Session) error {
		_, err := p.m.UnwrapKey(s, p.p.oaep(), t.imports, t.blob, readable())
		return err
	})
}

// decryptsPKCS1 decrypts what the host itself wrapped by PKCS#1.
func (p *prober) decryptsPKCS1(t *trial) func(cryptoki.Session) error {
	return func(s cryptoki.Session) error {
		//lint:ignore SA1019 the attack is on exactly this padding
		blob, err := rsa.EncryptPKCS1v15(rand.Reader, t.public, []byte("sixteen bytes ab"))
		if err != nil {
			return fmt.Errorf("wrapping: %w", err)
		}
		return p.decrypt(cryptoki.Plain(mechRSAPKCS), t.imports, blob)(s)
	}
}

// attackRekey attacks a re-encryption key.
func (p *prober) attackRekey(t *trial) {
	what := fmt.Sprintf("re-encryption key, %s", t.custody)
	key := t.rekey
	leaving := "CKA_EXTRACTABLE" // the line that keeps the key in
	if t.custody == Sealed {
		leaving = "CKA_WRAP_WITH_TRUSTED"
	}
	attack := func(name, attribute, tries string, needs []uint, f func(cryptoki.Session) error) {
		p.try(Attack{Name: what + ": " + name, Custody: t.custody, Attribute: attribute, Tries: tries}, needs, f)
	}
	digest := bytes.Repeat([]byte{1}, 32)
	uses := func(after string) {
		attack("sign by ECDSA"+after, "CKA_ALLOWED_MECHANISMS", "sign, which with a chosen nonce tells the key", []uint{cryptoki.CKM_ECDSA}, p.sign(cryptoki.CKM_ECDSA, key, digest))
		attack("sign by ECDSA with SHA-256"+after, "CKA_ALLOWED_MECHANISMS", "sign, which with a chosen nonce tells the key", []uint{mechECDSASHA256}, p.sign(mechECDSASHA256, key, digest))
		attack("sign with recovery"+after, "CKA_SIGN_RECOVER", "sign with recovery", []uint{cryptoki.CKM_ECDSA}, func(s cryptoki.Session) error {
			_, err := p.m.SignRecover(s, cryptoki.Plain(cryptoki.CKM_ECDSA), key, digest)
			return err
		})
		attack("decrypt"+after, "CKA_DECRYPT", "decrypt with it as if it were another kind of key", []uint{mechAESECB}, p.decrypt(cryptoki.Plain(mechAESECB), key, digest))
		attack("unwrap"+after, "CKA_UNWRAP", "unwrap with it as if it were another kind of key", []uint{p.p.KWP}, func(s cryptoki.Session) error {
			_, err := p.m.UnwrapKey(s, cryptoki.Plain(p.p.KWP), key, make([]byte, 40), readable())
			return err
		})
	}
	attack("read", "CKA_SENSITIVE", "read its value", nil, p.read(key, cryptoki.CKA_VALUE))
	uses("")
	point := p.p.encode(generator[:])
	attack("derive with cofactor", "CKA_ALLOWED_MECHANISMS", "use it by another mechanism", []uint{mechECDHCofactor}, func(s cryptoki.Session) error {
		return p.derives(s, cryptoki.ECDHThen(mechECDHCofactor, 1, point), key, p.template) // CKD_NULL
	})
	for _, x := range []struct {
		name string
		need uint
		mech cryptoki.Mechanism
	}{
		{"a part of itself", mechExtractKey, cryptoki.With(mechExtractKey, make([]byte, 8))}, // CK_EXTRACT_PARAMS: from the first bit
		{"a hash of itself", mechSHA256Derivation, cryptoki.Plain(mechSHA256Derivation)},
	} {
		attack("derive "+x.name, "CKA_ALLOWED_MECHANISMS", "derive from its own value, a few bits at a time", []uint{x.need}, func(s cryptoki.Session) error {
			return p.derives(s, x.mech, key, omitted(readable(), cryptoki.CKA_KEY_TYPE))
		})
	}
	p.try(Attack{
		Name: what + ": derive with a key derivation function", Custody: t.custody, Harmless: true,
		Tries: "have a hash of the result instead of the result, which tells less",
	}, nil, func(s cryptoki.Session) error {
		return p.derives(s, cryptoki.ECDHThen(cryptoki.CKM_ECDH1_DERIVE, kdfSHA1, point), key, omitted(p.template, cryptoki.CKA_VALUE_LEN))
	})
	p.wrapAway(what, t.custody, leaving, key)
	if t.custody == Resident {
		attack("set CKA_EXTRACTABLE and wrap", "CKA_EXTRACTABLE", "make it extractable and take it out", nil, func(s cryptoki.Session) error {
			if err := p.set(key, cryptoki.Bool(cryptoki.CKA_EXTRACTABLE, true))(s); err != nil {
				return err
			}
			return p.wrap(cryptoki.Plain(p.p.KWP), p.ownAES, key)(s)
		})
	}
	for _, x := range []alteration{
		{cryptoki.Bool(cryptoki.CKA_SENSITIVE, false), "so that it can be read"},
		{cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS, cryptoki.CKM_ECDH1_DERIVE, cryptoki.CKM_ECDSA), "so that it takes other mechanisms"},
		{cryptoki.Bool(cryptoki.CKA_COPYABLE, true), "so that it can be copied, and a copy outlives its destruction"},
		{cryptoki.Bool(cryptoki.CKA_EXTRACTABLE, true), "so that it can be wrapped out"},
		{cryptoki.Bool(cryptoki.CKA_WRAP_WITH_TRUSTED, false), "so that any key may wrap it"},
		{cryptoki.Bool(cryptoki.CKA_PRIVATE, false), "so that it needs no login"},
	} {
		typ := x.attribute.Type
		if typ == cryptoki.CKA_EXTRACTABLE && t.custody == Sealed || typ == cryptoki.CKA_WRAP_WITH_TRUSTED && t.custody == Resident {
			continue
		}
		attack("copy with other "+x.attribute.Name(), "CKA_COPYABLE", "copy it "+x.why, nil, p.copy(key, x.attribute))
		attack("set "+x.attribute.Name(), x.attribute.Name(), "change it "+x.why, nil, p.set(key, x.attribute))
	}
	attack("copy", "CKA_COPYABLE", "copy it, so that the copy outlives its destruction", nil, p.copy(key, cryptoki.Bool(cryptoki.CKA_TOKEN, false)))
	attack("copy to a token object", "CKA_COPYABLE", "copy it to where it stays", nil, p.copy(key, cryptoki.Bool(cryptoki.CKA_TOKEN, true)))
	if t.custody == Resident {
		p.try(Attack{
			Name: what + ": set CKA_LABEL", Custody: t.custody, Harmless: true,
			Tries: "give it another name, so that a vault that revokes it does not find it; the key stays where it is, and rotation of the field, which revoking does by default, ends its use",
		}, nil, p.set(key, cryptoki.Bytes(cryptoki.CKA_LABEL, []byte("another"))))
	}
	// Of these a template cannot forbid the setting where it cannot hold CKA_MODIFIABLE; what counts is that nothing comes of it.
	for _, typ := range []uint{cryptoki.CKA_SIGN, cryptoki.CKA_SIGN_RECOVER, cryptoki.CKA_DECRYPT, cryptoki.CKA_UNWRAP} {
		a := cryptoki.Bool(typ, true)
		p.try(Attack{
			Name: what + ": set " + a.Name(), Custody: t.custody, Harmless: true,
			Tries: "set " + a.Name() + " on it, of which nothing comes while CKA_ALLOWED_MECHANISMS stays: see the attacks after it",
		}, nil, p.set(key, a))
	}
	uses(", after setting what can be set")
	if t.custody == Resident {
		return
	}
	p.attackTrust(t)
}

// derives is C_DeriveKey by any mechanism.
func (p *prober) derives(s cryptoki.Session, mech cryptoki.Mechanism, key cryptoki.Object, template []cryptoki.Attribute) error {
	_, err := p.m.DeriveKey(s, mech, key, template)
	return err
}

// attackTrust tries to get a trusted key that is not the security officer's. A
// sealed key may be wrapped by every trusted key.
func (p *prober) attackTrust(t *trial) {
	aes := func(more ...cryptoki.Attribute) []cryptoki.Attribute {
		return append(more, cryptoki.Bool(cryptoki.CKA_TOKEN, false), cryptoki.Bool(cryptoki.CKA_WRAP, true), cryptoki.Bool(cryptoki.CKA_DECRYPT, true))
	}
	trusted := cryptoki.Bool(cryptoki.CKA_TRUSTED, true)
	length := cryptoki.Ulong(cryptoki.CKA_VALUE_LEN, 32)
	secret := []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY), cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_AES)}
	for _, x := range []struct {
		how  string
		make func(cryptoki.Session) (cryptoki.Object, error)
	}{
		{"generated", func(s cryptoki.Session) (cryptoki.Object, error) {
			return p.m.GenerateKey(s, cryptoki.Plain(cryptoki.CKM_AES_KEY_GEN), aes(length, trusted))
		}},
		{"created", func(s cryptoki.Session) (cryptoki.Object, error) {
			return p.m.CreateObject(s, append(aes(trusted, cryptoki.Bytes(cryptoki.CKA_VALUE, bytes.Repeat([]byte{7}, 32))), secret...))
		}},
		{"copied", func(s cryptoki.Session) (cryptoki.Object, error) {
			return p.m.CopyObject(s, p.ownAES, []cryptoki.Attribute{trusted})
		}},
		{"unwrapped", func(s cryptoki.Session) (cryptoki.Object, error) {
			blob, err := p.m.WrapKey(s, cryptoki.Plain(p.p.KWP), p.ownAES, p.ownAES)
			if err != nil {
				return 0, err
			}
			return p.m.UnwrapKey(s, cryptoki.Plain(p.p.KWP), p.ownAES, blob, append(aes(trusted), secret...))
		}},
		{"made and then marked", func(s cryptoki.Session) (cryptoki.Object, error) {
			o, err := p.m.GenerateKey(s, cryptoki.Plain(cryptoki.CKM_AES_KEY_GEN), aes(length))
			if err == nil {
				err = p.m.SetAttributes(s, o, []cryptoki.Attribute{trusted})
			}
			return o, err
		}},
	} {
		p.try(Attack{
			Name: "re-encryption key, sealed: wrap under an own key, " + x.how + " trusted", Custody: Sealed, Attribute: "CKA_TRUSTED",
			Tries: "have a trusted key of its own, and wrap the key out under it",
		}, nil, func(s cryptoki.Session) error {
			own, err := x.make(s)
			if err != nil {
				return err
			}
			return p.wrap(cryptoki.Plain(p.p.KWP), own, t.rekey)(s)
		})
	}
	p.try(Attack{
		Name: "re-encryption key, sealed: wrap under an own trusted key pair", Custody: Sealed, Attribute: "CKA_TRUSTED",
		Tries: "have a trusted public key of its own, and wrap the key out under it",
	}, nil, func(s cryptoki.Session) error {
		// Copied, because to generate one takes long.
		own, err := p.m.CopyObject(s, p.ownRSA, []cryptoki.Attribute{trusted})
		if err != nil {
			return err
		}
		return p.wrap(p.p.oaep(), own, t.rekey)(s)
	})
}

// attackSealing attacks a sealing key, with a blob that the host has kept.
func (p *prober) attackSealing(t *trial) {
	const what = "sealing key"
	kwp := cryptoki.Plain(p.p.KWP)
	attack := func(name, attribute, tries string, needs []uint, f func(cryptoki.Session) error) {
		p.try(Attack{Name: what + ": " + name, Custody: Sealed, Attribute: attribute, Tries: tries}, needs, f)
	}
	p.templates(what, t, func(s cryptoki.Session, template []cryptoki.Attribute) (cryptoki.Object, error) {
		return p.m.UnwrapKey(s, kwp, t.sealing, t.sealed, template)
	})
	block := make([]byte, 16)
	padded := append(bytes.Clone(t.sealed), make([]byte, (16-len(t.sealed)%16)%16)...)
	attack("decrypt by ECB", "CKA_DECRYPT", "open a sealed key block by block", []uint{mechAESECB}, p.decrypt(cryptoki.Plain(mechAESECB), t.sealing, padded))
	attack("decrypt by CBC", "CKA_DECRYPT", "open a sealed key block by block", []uint{mechAESCBC}, p.decrypt(cryptoki.With(mechAESCBC, block), t.sealing, padded))
	attack("decrypt by key wrap", "CKA_DECRYPT", "open a sealed key as data", []uint{p.p.KWP}, p.decrypt(kwp, t.sealing, t.sealed))
	for _, mech := range []uint{mechAESECB, p.p.KWP} {
		attack(fmt.Sprintf("encrypt by 0x%x", mech), "CKA_ENCRYPT", "seal a key of its own choice", []uint{mech}, func(s cryptoki.Session) error {
			_, err := p.m.Encrypt(s, cryptoki.Plain(mech), t.sealing, make([]byte, 32))
			return err
		})
	}
	attack("sign by CMAC", "CKA_SIGN", "have the block cipher at a point of its choice", []uint{cryptoki.CKM_AES_CMAC}, p.sign(cryptoki.CKM_AES_CMAC, t.sealing, make([]byte, 16)))
	attack("derive a hash of itself", "CKA_DERIVE", "derive a key that is known to depend on it", []uint{mechSHA256Derivation}, func(s cryptoki.Session) error {
		return p.derives(s, cryptoki.Plain(mechSHA256Derivation), t.sealing, omitted(readable(), cryptoki.CKA_KEY_TYPE))
	})
	attack("derive by encrypting", "CKA_DERIVE", "have the block cipher at a point of its choice, and seal a key of its own choice with it", []uint{mechAESECBEncryptData}, func(s cryptoki.Session) error {
		return p.derives(s, cryptoki.Data(mechAESECBEncryptData, block), t.sealing, append(readable(), cryptoki.Ulong(cryptoki.CKA_VALUE_LEN, 16)))
	})
	for _, x := range []struct {
		name string
		mech uint
		m    cryptoki.Mechanism
	}{
		{"key wrap without padding", mechAESKeyWrap, cryptoki.Plain(mechAESKeyWrap)},
		{"CBC with padding", mechAESCBCPad, cryptoki.With(mechAESCBCPad, block)},
	} {
		attack("wrap by "+x.name, "CKA_ALLOWED_MECHANISMS", "seal a key by a weaker mechanism", []uint{x.mech}, p.wrap(x.m, t.sealing, t.rekey))
		// A key of the host's own shows that the mechanism is refused, and not the key.
		attack("wrap an own key by "+x.name, "CKA_ALLOWED_MECHANISMS", "use the sealing key by another mechanism", []uint{x.mech}, p.wrap(x.m, t.sealing, p.ownAES))
		attack("unwrap by "+x.name, "CKA_ALLOWED_MECHANISMS", "open a sealed key by another mechanism", []uint{x.mech}, func(s cryptoki.Session) error {
			_, err := p.m.UnwrapKey(s, x.m, t.sealing, t.sealed, readable())
			return err
		})
	}
	for i := range len(t.sealed) {
		if i != 0 && i != len(t.sealed)/2 && i != len(t.sealed)-1 {
			continue
		}
		attack(fmt.Sprintf("unwrap a changed blob, byte %d", i), "", "load a key that is related to the real one", nil, func(s cryptoki.Session) error {
			changed := bytes.Clone(t.sealed)
			changed[i] ^= 1
			_, err := p.m.UnwrapKey(s, kwp, t.sealing, changed, p.strict(Sealed))
			return err
		})
	}
	attack("read", "CKA_SENSITIVE", "read its value", nil, p.read(t.sealing, cryptoki.CKA_VALUE))
	p.wrapAway(what, Sealed, "CKA_EXTRACTABLE", t.sealing)
	attack("wrap under itself", "CKA_EXTRACTABLE", "wrap it under itself", nil, p.wrap(kwp, t.sealing, t.sealing))
	p.try(Attack{
		Name: what + ": wrap an own key", Custody: Sealed, Harmless: true,
		Tries: "seal a key of its own; it comes back only with the template that a re-encryption key has",
	}, nil, p.wrap(kwp, t.sealing, p.ownAES))
	p.try(Attack{
		Name: what + ": a second key of the same name", Custody: Sealed, Harmless: true,
		Tries: "make a key of its own with a sealing key's label; it is not trusted, and a vault that finds it refuses it",
	}, nil, func(s cryptoki.Session) error {
		_, err := p.m.GenerateKey(s, cryptoki.Plain(cryptoki.CKM_AES_KEY_GEN), []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_VALUE_LEN, 32),
			cryptoki.Bool(cryptoki.CKA_TOKEN, false), cryptoki.Bytes(cryptoki.CKA_LABEL, []byte(SealingKey(1)))})
		return err
	})
	p.alter(what, Sealed, t.sealing, []alteration{
		{cryptoki.Bool(cryptoki.CKA_DECRYPT, true), "so that it decrypts"},
		{cryptoki.Bool(cryptoki.CKA_ENCRYPT, true), "so that it encrypts"},
		{cryptoki.Bool(cryptoki.CKA_SIGN, true), "so that it signs"},
		{cryptoki.Bool(cryptoki.CKA_DERIVE, true), "so that it derives"},
		{cryptoki.Bool(cryptoki.CKA_SENSITIVE, false), "so that it can be read"},
		{cryptoki.Bool(cryptoki.CKA_EXTRACTABLE, true), "so that it can be wrapped out"},
		{cryptoki.Bool(cryptoki.CKA_MODIFIABLE, true), "so that everything else of it can be changed"},
		{cryptoki.Bool(cryptoki.CKA_COPYABLE, true), "so that it can be copied with other attributes"},
		{cryptoki.Bytes(cryptoki.CKA_UNWRAP_TEMPLATE, nil), "so that it forces nothing on what it unwraps"},
		{cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS, mechAESECB), "so that it takes other mechanisms"},
	})
	attack("decrypt after all that", "CKA_MODIFIABLE", "open a sealed key after trying to change what the sealing key may do", []uint{mechAESECB},
		p.decrypt(cryptoki.Plain(mechAESECB), t.sealing, padded))
	attack("unwrap lax after all that", "CKA_MODIFIABLE", "load a readable key after trying to clear the template", nil, func(s cryptoki.Session) error {
		_, err := p.m.UnwrapKey(s, kwp, t.sealing, t.sealed, readable())
		return err
	})
}

// destroy shows what no attribute prevents: the host can end a key.
func (p *prober) destroy(t *trial) {
	gone := func(what string, o cryptoki.Object, then string) {
		p.try(Attack{Name: what + ": destroy", Custody: t.custody, Harmless: true, Tries: "destroy it, which gives nothing away: " + then}, nil,
			func(s cryptoki.Session) error { return p.m.DestroyObject(s, o) })
	}
	gone(fmt.Sprintf("re-encryption key, %s", t.custody), t.rekey, "the grant's owner must grant again")
	gone(fmt.Sprintf("import key, %s", t.custody), t.imports, "a vault without it does not start")
	if t.sealing != 0 {
		gone("sealing key", t.sealing, "everything under it is lost, and owners must grant again")
	}
}
