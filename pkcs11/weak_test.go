package pkcs11

import (
	"bytes"
	"crypto/aes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// A lapse is a ceremony that left an attribute out, and what a host with the PIN
// makes of it.
type lapse struct {
	attribute string   // as findings name it
	besides   []string // that must be left out too before anything comes of it: SoftHSM has two locks on this door
	gain      string   // in a few words, for the report
	// take does it, and is content only when it has what it wanted: a key's
	// value that is the right one, a signature that verifies. Whatever the token
	// or the arithmetic refuses is an error.
	take func(*thief) error
	// never: SoftHSM refuses it also without the attribute, and why. take, if
	// there is any, must then be refused on the weak key too.
	never string
}

var (
	errNothing = errors.New("nothing was gained")
	errUnlike  = errors.New("what came is not what was sought")
)

// A thief is the host before one key of a ceremony.
type thief struct {
	t       *testing.T
	p       *prober
	s       cryptoki.Session
	custody Custody
	free    []string // attributes that the ceremony left out
	key     cryptoki.Object
	mech    cryptoki.Mechanism // by which key unwraps
	blob    []byte             // software's key, under key
	trial   *trial
	pair    *rsa.PrivateKey // an import key's
}

// bring brings a re-encryption key in: what the token forces is repeated, what
// it does not is chosen.
func (th *thief) bring(choices ...cryptoki.Attribute) (cryptoki.Object, error) {
	var template []cryptoki.Attribute
	for _, a := range th.p.strict(th.custody) {
		if !slices.Contains(th.free, unwrapLine(a)) {
			template = append(template, a)
			continue
		}
		for _, c := range choices {
			if c.Type == a.Type {
				template = append(template, c)
			}
		}
	}
	return th.p.m.UnwrapKey(th.s, th.mech, th.key, th.blob, template)
}

// brought is bring, and what then is done with the key.
func brought(f func(*thief, cryptoki.Object) error, choices ...cryptoki.Attribute) func(*thief) error {
	return func(th *thief) error {
		o, err := th.bring(choices...)
		if err != nil {
			return err
		}
		return f(th, o)
	}
}

// value reads a key.
func (th *thief) value(o cryptoki.Object, typ uint) ([]byte, error) {
	a, err := th.p.m.Read(th.s, o, typ)
	if err == nil && len(a.Value) == 0 {
		err = errNothing
	}
	return a.Value, err
}

func alike(got, want []byte) error {
	if new(big.Int).SetBytes(got).Cmp(new(big.Int).SetBytes(want)) != 0 {
		return errUnlike
	}
	return nil
}

func readsScalar(th *thief, o cryptoki.Object) error {
	v, err := th.value(o, cryptoki.CKA_VALUE)
	if err != nil {
		return err
	}
	return alike(v, th.trial.software.Bytes())
}

// out wraps a key under one of the host's own and opens it.
func (th *thief) out(o cryptoki.Object) ([]byte, error) {
	kwp := cryptoki.Plain(th.p.p.KWP)
	blob, err := th.p.m.WrapKey(th.s, kwp, th.p.ownAES, o)
	if err != nil {
		return nil, err
	}
	open, err := th.p.m.UnwrapKey(th.s, kwp, th.p.ownAES, blob, readable())
	if err != nil {
		return nil, err
	}
	return th.value(open, cryptoki.CKA_VALUE)
}

func wrapsScalarOut(th *thief, o cryptoki.Object) error {
	der, err := th.out(o)
	if err != nil {
		return err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return err
	}
	got, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return errUnlike
	}
	if !th.same(got) {
		return errUnlike
	}
	return nil
}

// same reports whether a key is the one that was wrapped.
func (th *thief) same(key *ecdsa.PrivateKey) bool {
	k, err := key.ECDH()
	return err == nil && k.Equal(th.trial.software)
}

// opened demands that plain is the wrapped key as it was wrapped.
func (th *thief) opened(plain []byte, err error) error {
	if err == nil && !bytes.Equal(plain, th.trial.der) {
		key, parsed := x509.ParsePKCS8PrivateKey(plain) // SoftHSM's own form of it
		if k, ok := key.(*ecdsa.PrivateKey); !ok || parsed != nil || !th.same(k) {
			err = errUnlike
		}
	}
	return err
}

func (th *thief) decrypts(o cryptoki.Object) error {
	return th.opened(th.p.m.Decrypt(th.s, th.p.p.oaep(), o, th.blob))
}

// signs makes a signature by ECDSA and verifies it.
func signs(th *thief, o cryptoki.Object) error {
	digest := sha256.Sum256([]byte("a message of the host's choice"))
	sig, err := th.p.m.Sign(th.s, cryptoki.Plain(cryptoki.CKM_ECDSA), o, digest[:])
	if err != nil {
		return err
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), th.trial.software.PublicKey().Bytes())
	if err != nil {
		return err
	}
	if len(sig) != 64 || !ecdsa.Verify(public, digest[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return errUnlike
	}
	return nil
}

// macs has HMAC-SHA-256 under the wrapped key, taken as a secret.
func macs(th *thief, o cryptoki.Object) error {
	const hmacSHA256 = 0x251
	got, err := th.p.m.Sign(th.s, cryptoki.Plain(hmacSHA256), o, []byte("message"))
	if err != nil {
		return err
	}
	own, err := th.encoded()
	if err != nil {
		return err
	}
	for _, der := range [][]byte{th.trial.der, own} {
		h := hmac.New(sha256.New, der)
		h.Write([]byte("message"))
		if hmac.Equal(got, h.Sum(nil)) {
			return nil
		}
	}
	return errUnlike
}

// encoded is software's key in the token's own encoding, in which it seals it.
func (th *thief) encoded() ([]byte, error) {
	o, err := th.p.m.CreateObject(th.s, []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_PRIVATE_KEY), cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_EC),
		off(cryptoki.CKA_TOKEN), on(cryptoki.CKA_EXTRACTABLE), cryptoki.Bytes(cryptoki.CKA_EC_PARAMS, p256Params), cryptoki.Bytes(cryptoki.CKA_VALUE, th.trial.software.Bytes())})
	if err != nil {
		return nil, err
	}
	return th.out(o)
}

// signsRecovering and the like: what SoftHSM never does.
func signsRecovering(mech uint) func(*thief, cryptoki.Object) error {
	return func(th *thief, o cryptoki.Object) error {
		_, err := th.p.m.SignRecover(th.s, cryptoki.Plain(mech), o, bytes.Repeat([]byte{1}, 32))
		return err
	}
}

// block is the sealing key as a block cipher.
type block func([]byte) ([]byte, error)

// wrapKWP and unwrapKWP are RFC 5649, for more than eight bytes, on a block cipher.
func wrapKWP(encrypt block, plain []byte) ([]byte, error) {
	a := binary.BigEndian.AppendUint32([]byte{0xa6, 0x59, 0x59, 0xa6}, uint32(len(plain)))
	r := append(bytes.Clone(plain), make([]byte, (8-len(plain)%8)%8)...)
	n := len(r) / 8
	for j := range 6 {
		for i := range n {
			b, err := encrypt(slices.Concat(a, r[8*i:8*i+8]))
			if err != nil {
				return nil, err
			}
			a = binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(b)^uint64(n*j+i+1))
			copy(r[8*i:], b[8:])
		}
	}
	return slices.Concat(a, r), nil
}

func unwrapKWP(decrypt block, blob []byte) ([]byte, error) {
	a, r := bytes.Clone(blob[:8]), bytes.Clone(blob[8:])
	n := len(r) / 8
	for j := 5; j >= 0; j-- {
		for i := n - 1; i >= 0; i-- {
			b, err := decrypt(slices.Concat(binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(a)^uint64(n*j+i+1)), r[8*i:8*i+8]))
			if err != nil {
				return nil, err
			}
			a = b[:8]
			copy(r[8*i:], b[8:])
		}
	}
	length := int(binary.BigEndian.Uint32(a[4:]))
	if !bytes.Equal(a[:4], []byte{0xa6, 0x59, 0x59, 0xa6}) || length > len(r) || length <= len(r)-8 {
		return nil, errUnlike
	}
	return r[:length], nil
}

// opensByBlocks opens the kept blob with nothing but the block cipher.
func (th *thief) opensByBlocks(key cryptoki.Object) error {
	return th.opened(unwrapKWP(func(b []byte) ([]byte, error) { return th.p.m.Decrypt(th.s, cryptoki.Plain(mechAESECB), key, b) }, th.blob))
}

// forges seals a key of the host's own choice by blocks, and has the token load it as if an owner had granted it.
func (th *thief) forges(encrypt block) error {
	own := newKey(th.t)
	blob, err := wrapKWP(encrypt, pkcs8(th.t, oidP256, own.Bytes()))
	if err != nil {
		return err
	}
	o, err := th.p.m.UnwrapKey(th.s, th.mech, th.key, blob, th.p.strict(Sealed))
	if err != nil {
		return err
	}
	if !th.p.works(&trial{software: own}, o) {
		return errUnlike
	}
	return nil
}

// sealingValue is what a sealing key's value is good for: it opens the kept blob.
func (th *thief) sealingValue(value []byte, err error) error {
	if err != nil {
		return err
	}
	cipher, err := aes.NewCipher(value)
	if err != nil {
		return err
	}
	return th.opened(unwrapKWP(func(b []byte) ([]byte, error) {
		out := make([]byte, len(b))
		cipher.Decrypt(out, b)
		return out, nil
	}, th.blob))
}

// loggedOut does something while nobody is logged in.
func (th *thief) loggedOut(f func() error) error {
	if err := th.p.m.Logout(th.p.home); err != nil {
		return err
	}
	err := f()
	if again := th.p.as(User, pin(userPIN)); again != nil {
		return fmt.Errorf("logging in again: %w", again)
	}
	if again := th.p.ownKeys(); again != nil { // they were private
		return fmt.Errorf("after logging in again: %w", again)
	}
	return err
}

// lines are the lapses in CKA_UNWRAP_TEMPLATE, the same for an import key and a sealing key.
func lines(c Custody) []lapse {
	line := func(typ uint) string { return unwrapLine(cryptoki.Attribute{Type: typ}) }
	class, keyType, mechs := line(cryptoki.CKA_CLASS), line(cryptoki.CKA_KEY_TYPE), line(cryptoki.CKA_ALLOWED_MECHANISMS)
	sign, recovering := line(cryptoki.CKA_SIGN), line(cryptoki.CKA_SIGN_RECOVER)
	asSecret := brought(macs, cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY), cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_GENERIC_SECRET), on(cryptoki.CKA_SIGN))
	stays := brought(func(th *thief, o cryptoki.Object) error {
		label := []byte("kept by the host")
		if err := th.p.m.SetAttributes(th.s, o, []cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_LABEL, label)}); err != nil {
			return err
		}
		if err := th.p.m.CloseSession(th.s); err != nil {
			return err
		}
		var err error
		if th.s, err = th.p.m.OpenSession(th.p.slot); err != nil {
			return err
		}
		found, err := th.p.m.Find(th.s, []cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_LABEL, label)})
		if err != nil || len(found) == 0 {
			return errors.Join(errNothing, err)
		}
		defer th.p.m.DestroyObject(th.s, found[0])
		if !th.p.works(th.trial, found[0]) {
			return errUnlike
		}
		return nil
	}, on(cryptoki.CKA_TOKEN))
	all := []lapse{
		{attribute: class, besides: []string{keyType, recovering, sign, mechs}, gain: "brought in as a secret, it makes HMACs", take: asSecret},
		{attribute: keyType, besides: []string{class, recovering, sign, mechs}, gain: "brought in as a secret, it makes HMACs", take: asSecret},
		{attribute: line(cryptoki.CKA_TOKEN), gain: "kept in the token after the session's end", take: stays},
		{attribute: line(cryptoki.CKA_PRIVATE), gain: "used with nobody logged in", take: brought(func(th *thief, o cryptoki.Object) error {
			return th.loggedOut(func() error {
				open := append(slices.Clone(th.p.template), off(cryptoki.CKA_PRIVATE))
				x, err := derive(th.p.m, th.s, o, th.p.p.encode(generator[:]), open)
				if err == nil && !bytes.Equal(x[:], th.trial.software.PublicKey().Bytes()[1:33]) {
					err = errUnlike
				}
				return err
			})
		}, off(cryptoki.CKA_PRIVATE))},
		{attribute: line(cryptoki.CKA_DERIVE), never: "it permits the work itself and guards nothing"},
		{attribute: sign, besides: []string{mechs}, gain: "signs by ECDSA", take: brought(signs, on(cryptoki.CKA_SIGN))},
		{attribute: recovering, besides: []string{mechs, sign}, never: "SoftHSM has no C_SignRecoverInit", take: brought(signsRecovering(cryptoki.CKM_ECDSA), on(cryptoki.CKA_SIGN_RECOVER))},
		{attribute: line(cryptoki.CKA_DECRYPT), besides: []string{mechs}, never: "SoftHSM decrypts with no EC key", take: brought(func(th *thief, o cryptoki.Object) error {
			_, err := th.p.m.Decrypt(th.s, th.p.p.oaep(), o, make([]byte, 32))
			return err
		}, on(cryptoki.CKA_DECRYPT))},
		{attribute: line(cryptoki.CKA_UNWRAP), besides: []string{mechs}, never: "SoftHSM unwraps with no EC key", take: brought(func(th *thief, o cryptoki.Object) error {
			_, err := th.p.m.UnwrapKey(th.s, th.p.p.oaep(), o, make([]byte, 40), readable())
			return err
		}, on(cryptoki.CKA_UNWRAP))},
		{attribute: line(cryptoki.CKA_COPYABLE), gain: "a copy outlives its destruction", take: brought(func(th *thief, o cryptoki.Object) error {
			made, err := th.p.m.CopyObject(th.s, o, []cryptoki.Attribute{off(cryptoki.CKA_TOKEN)})
			if err != nil {
				return err
			}
			if err := th.p.m.DestroyObject(th.s, o); err != nil {
				return err
			}
			if !th.p.works(th.trial, made) {
				return errUnlike
			}
			return nil
		}, on(cryptoki.CKA_COPYABLE))},
		{attribute: mechs, gain: "signs by ECDSA, once CKA_SIGN is set", take: brought(func(th *thief, o cryptoki.Object) error {
			if err := th.p.m.SetAttributes(th.s, o, []cryptoki.Attribute{on(cryptoki.CKA_SIGN)}); err != nil {
				return err
			}
			return signs(th, o)
		})},
	}
	sensitive := lapse{attribute: line(cryptoki.CKA_SENSITIVE), gain: "its value is read", take: brought(readsScalar, off(cryptoki.CKA_SENSITIVE), on(cryptoki.CKA_EXTRACTABLE))}
	if c == Resident {
		sensitive.besides = []string{line(cryptoki.CKA_EXTRACTABLE)}
		return append(all, sensitive, lapse{attribute: line(cryptoki.CKA_EXTRACTABLE), gain: "wrapped out under an own key", take: brought(wrapsScalarOut, on(cryptoki.CKA_EXTRACTABLE))})
	}
	return append(all, sensitive,
		lapse{attribute: line(cryptoki.CKA_EXTRACTABLE), never: "it permits the sealing and guards nothing"},
		lapse{attribute: line(cryptoki.CKA_WRAP_WITH_TRUSTED), gain: "wrapped out under an own key", take: brought(wrapsScalarOut, off(cryptoki.CKA_WRAP_WITH_TRUSTED))})
}

// lax unwraps the key as a secret that can be read.
func lax(th *thief) error {
	o, err := th.p.m.UnwrapKey(th.s, th.mech, th.key, th.blob, readable())
	if err != nil {
		return err
	}
	return th.opened(th.value(o, cryptoki.CKA_VALUE))
}

func importLapses(c Custody) []lapse {
	const (
		mechs, modifiable = "CKA_ALLOWED_MECHANISMS", "CKA_MODIFIABLE"
	)
	return append([]lapse{
		{attribute: "CKA_SENSITIVE", besides: []string{"CKA_EXTRACTABLE"}, gain: "its private exponent is read", take: func(th *thief) error {
			v, err := th.value(th.key, ckaPrivateExponent)
			if err != nil {
				return err
			}
			return alike(v, th.pair.D.Bytes())
		}},
		{attribute: "CKA_EXTRACTABLE", gain: "wrapped out under an own key", take: func(th *thief) error {
			der, err := th.out(th.key)
			if err != nil {
				return err
			}
			key, err := x509.ParsePKCS8PrivateKey(der)
			if got, ok := key.(*rsa.PrivateKey); err != nil || !ok || got.D.Cmp(th.pair.D) != 0 {
				return errors.Join(errUnlike, err)
			}
			return nil
		}},
		{attribute: modifiable, gain: "CKA_DECRYPT is set, and a wrapped key decrypted", take: func(th *thief) error {
			if err := th.p.m.SetAttributes(th.s, th.key, []cryptoki.Attribute{on(cryptoki.CKA_DECRYPT)}); err != nil {
				return err
			}
			return th.decrypts(th.key)
		}},
		{attribute: "CKA_COPYABLE", besides: []string{modifiable}, gain: "copied with CKA_DECRYPT, and a wrapped key decrypted", take: func(th *thief) error {
			made, err := th.p.m.CopyObject(th.s, th.key, []cryptoki.Attribute{off(cryptoki.CKA_TOKEN), on(cryptoki.CKA_DECRYPT)})
			if err != nil {
				return err
			}
			return th.decrypts(made)
		}},
		{attribute: "CKA_PRIVATE", gain: "its private exponent lies in the token's folder, unencrypted"}, // see folderTells
		{attribute: "CKA_UNWRAP", never: "it permits the import itself and guards nothing"},
		{attribute: "CKA_DECRYPT", gain: "a wrapped key is decrypted", take: func(th *thief) error { return th.decrypts(th.key) }},
		{attribute: "CKA_SIGN", besides: []string{mechs}, gain: "signs a wrapped key raw, which is to decrypt it", take: func(th *thief) error {
			em, err := th.p.m.Sign(th.s, cryptoki.Plain(cryptoki.CKM_RSA_X_509), th.key, th.blob)
			if err != nil {
				return err
			}
			// What came is the padded key if the public operation leads back.
			back := new(big.Int).Exp(new(big.Int).SetBytes(em), big.NewInt(int64(th.pair.E)), th.pair.N)
			return alike(back.Bytes(), th.blob)
		}},
		{attribute: "CKA_SIGN_RECOVER", besides: []string{mechs}, never: "SoftHSM has no C_SignRecoverInit", take: func(th *thief) error { return signsRecovering(cryptoki.CKM_RSA_X_509)(th, th.key) }},
		{attribute: "CKA_DERIVE", besides: []string{mechs}, never: "SoftHSM derives from no RSA key", take: func(th *thief) error {
			return th.p.derives(th.s, cryptoki.ECDH(th.p.p.encode(generator[:])), th.key, th.p.template)
		}},
		{attribute: mechs, gain: "opens PKCS#1, and says whether its padding is right", take: func(th *thief) error {
			//lint:ignore SA1019 the attack is on exactly this padding
			blob, err := rsa.EncryptPKCS1v15(rand.Reader, &th.pair.PublicKey, th.trial.der)
			if err != nil {
				return err
			}
			pkcs1 := cryptoki.Plain(mechRSAPKCS)
			o, err := th.p.m.UnwrapKey(th.s, pkcs1, th.key, blob, th.p.strict(th.custody))
			if err != nil {
				return err
			}
			if !th.p.works(th.trial, o) {
				return errUnlike
			}
			blob[len(blob)-1] ^= 1
			if _, err := th.p.m.UnwrapKey(th.s, pkcs1, th.key, blob, th.p.strict(th.custody)); err == nil {
				return errUnlike
			}
			return nil
		}},
		{attribute: "CKA_UNWRAP_TEMPLATE", gain: "a wrapped key comes in readable", take: lax},
	}, lines(c)...)
}

func sealingLapses() []lapse {
	const (
		mechs, modifiable = "CKA_ALLOWED_MECHANISMS", "CKA_MODIFIABLE"
	)
	return append([]lapse{
		{attribute: "CKA_SENSITIVE", besides: []string{"CKA_EXTRACTABLE"}, gain: "its value is read, and opens a kept blob", take: func(th *thief) error {
			return th.sealingValue(th.value(th.key, cryptoki.CKA_VALUE))
		}},
		{attribute: "CKA_EXTRACTABLE", gain: "wrapped out under an own key, and opens a kept blob", take: func(th *thief) error { return th.sealingValue(th.out(th.key)) }},
		// What SoftHSM lets nobody change, in no key, are the template and the allowed mechanisms.
		{attribute: modifiable, besides: []string{mechs}, gain: "CKA_DECRYPT is set, and a kept blob opened block by block", take: func(th *thief) error {
			if err := th.p.m.SetAttributes(th.s, th.key, []cryptoki.Attribute{on(cryptoki.CKA_DECRYPT)}); err != nil {
				return err
			}
			return th.opensByBlocks(th.key)
		}},
		{attribute: "CKA_COPYABLE", besides: []string{mechs, modifiable}, gain: "copied with CKA_DECRYPT, and a kept blob opened block by block", take: func(th *thief) error {
			made, err := th.p.m.CopyObject(th.s, th.key, []cryptoki.Attribute{off(cryptoki.CKA_TOKEN), on(cryptoki.CKA_DECRYPT)})
			if err != nil {
				return err
			}
			return th.opensByBlocks(made)
		}},
		{attribute: "CKA_PRIVATE", never: "SoftHSM lets the security officer make no private key: a sealing key is public there, whatever is asked for"},
		{attribute: "CKA_TRUSTED", never: "it permits the sealing and guards nothing: without it SoftHSM wraps no key under it"},
		{attribute: "CKA_WRAP", never: "it permits the sealing and guards nothing"},
		{attribute: "CKA_UNWRAP", never: "it permits the loading and guards nothing"},
		{attribute: "CKA_ENCRYPT", besides: []string{mechs}, gain: "a key of the host's choice is sealed, and loaded as if it were granted", take: func(th *thief) error {
			return th.forges(func(b []byte) ([]byte, error) { return th.p.m.Encrypt(th.s, cryptoki.Plain(mechAESECB), th.key, b) })
		}},
		{attribute: "CKA_DECRYPT", besides: []string{mechs}, gain: "a kept blob is opened block by block", take: func(th *thief) error { return th.opensByBlocks(th.key) }},
		{attribute: "CKA_SIGN", besides: []string{mechs}, gain: "makes a MAC", take: func(th *thief) error {
			mac, err := th.p.m.Sign(th.s, cryptoki.Plain(cryptoki.CKM_AES_CMAC), th.key, []byte("message"))
			if err == nil && len(mac) != 16 {
				err = errUnlike
			}
			return err
		}},
		{attribute: "CKA_VERIFY", never: "to verify a MAC tells nothing that whoever may not sign could use"},
		{attribute: "CKA_DERIVE", besides: []string{mechs}, gain: "encrypts by derivation: a key of the host's choice is sealed, and loaded as if it were granted", take: func(th *thief) error {
			return th.forges(func(b []byte) ([]byte, error) {
				o, err := th.p.m.DeriveKey(th.s, cryptoki.Data(mechAESECBEncryptData, b), th.key, append(readable(), cryptoki.Ulong(cryptoki.CKA_VALUE_LEN, 16)))
				if err != nil {
					return nil, err
				}
				return th.value(o, cryptoki.CKA_VALUE)
			})
		}},
		{attribute: mechs, besides: []string{"CKA_DECRYPT"}, gain: "a kept blob is opened block by block", take: func(th *thief) error { return th.opensByBlocks(th.key) }},
		{attribute: "CKA_UNWRAP_TEMPLATE", gain: "a kept blob comes in readable", take: lax},
	}, lines(Sealed)...)
}

// leftOut is a key's attributes without some, which are named as findings name them. Where without means as it must be, it is turned.
func leftOut(acting []cryptoki.Attribute, names ...string) []cryptoki.Attribute {
	acting = slices.Clone(acting)
	for i := len(acting) - 1; i >= 0; i-- {
		a := &acting[i]
		a.Array = slices.DeleteFunc(slices.Clone(a.Array), func(line cryptoki.Attribute) bool { return slices.Contains(names, unwrapLine(line)) })
		switch {
		case !slices.Contains(names, a.Name()):
		case len(a.Value) == 1:
			*a = cryptoki.Bool(a.Type, a.Value[0] == 0)
		default:
			acting = slices.Delete(acting, i, i+1)
		}
	}
	return acting
}

// TestWeaknessesTaken: what each protective attribute of an import key and of a sealing key prevents is done, without it: keys are read, wrapped out, copied, changed, and
// used by other mechanisms, and what comes of it is held against the key in software. With it, the same is refused, also where everything else that stands in the way was left
// out. Where SoftHSM refuses all the same, the lapse says why.
func TestWeaknessesTaken(t *testing.T) {
	p := newProber(t, initialised(t))
	m := p.m

	// The security officer makes a sealing key for each lapse: as it must be but for it, with it as well, and one that is as it must be.
	if err := p.as(Officer, pin(officerPIN)); err != nil {
		t.Fatal(err)
	}
	sealing := func(names ...string) cryptoki.Object {
		o, err := m.GenerateKey(p.home, cryptoki.Plain(cryptoki.CKM_AES_KEY_GEN), leftOut(p.passing(SealingKey(1)).acting, names...))
		if err != nil {
			t.Fatalf("making a sealing key without %q: %v", names, err)
		}
		return o
	}
	type sealings struct{ weak, guarded cryptoki.Object }
	strictSealing, lax := sealing(), make(map[string]sealings)
	for _, l := range sealingLapses() {
		if l.take != nil {
			lax[l.attribute] = sealings{sealing(append(l.besides, l.attribute)...), sealing(l.besides...)}
		}
	}
	if err := p.as(User, pin(userPIN)); err != nil {
		t.Fatal(err)
	}
	if err := p.ownKeys(); err != nil {
		t.Fatal(err)
	}
	pair, err := rsa.GenerateKey(rand.Reader, importBits)
	if err != nil {
		t.Fatal(err)
	}

	// rob has one thief at one key.
	rob := func(t *testing.T, c Custody, l lapse, free []string, at func(tr *trial) (key cryptoki.Object, blob []byte, mech cryptoki.Mechanism)) error {
		t.Helper()
		th := &thief{t: t, p: p, custody: c, free: free, pair: pair, trial: &trial{custody: c, public: &pair.PublicKey}}
		if !p.wrapped(th.trial) {
			t.Fatal("wrapping")
		}
		th.trial.der = pkcs8(t, oidP256, th.trial.software.Bytes())
		var err error
		if th.s, err = m.OpenSession(p.slot); err != nil {
			t.Fatal(err)
		}
		th.key, th.blob, th.mech = at(th.trial)
		err = l.take(th)
		_ = m.CloseSession(th.s)
		return err
	}
	judge := func(t *testing.T, l lapse, weak, guarded, strict error) {
		t.Helper()
		if (weak == nil) != (l.never == "") {
			t.Errorf("%s, left out with %q: %v; never: %q", l.attribute, l.besides, weak, l.never)
		}
		// A refusal is the token's, and no mistake of the attack's.
		refused := func(err error) bool {
			_, ok := errors.AsType[cryptoki.CKR](err)
			return ok || errors.Is(err, errNothing)
		}
		if !refused(guarded) {
			t.Errorf("%s, with %q left out beside it: %v", l.attribute, l.besides, guarded)
		}
		if !refused(strict) {
			t.Errorf("%s, of a key that is as it must be: %v", l.attribute, strict)
		}
		if l.never != "" && !refused(weak) {
			t.Errorf("%s: %v, not refused", l.attribute, weak)
		}
	}
	var report []string
	tell := func(key string, l lapse) {
		says := l.gain
		if l.never != "" {
			says = "no: " + l.never
		}
		if len(l.besides) > 0 && l.never == "" {
			says += ", if these are left out too: " + strings.Join(l.besides, ", ")
		}
		report = append(report, fmt.Sprintf("%-24s %-44s %s", key, l.attribute, says))
	}
	complete := func(t *testing.T, name KeyName, lapses []lapse) {
		t.Helper()
		var must []string
		for _, a := range p.passing(name).acting {
			switch a.Type {
			case cryptoki.CKA_LABEL, cryptoki.CKA_ID, cryptoki.CKA_TOKEN, cryptoki.CKA_VALUE_LEN:
				continue // do not protect
			}
			must = append(must, a.Name())
			for _, line := range a.Array {
				must = append(must, unwrapLine(line))
			}
		}
		var have []string
		for _, l := range lapses {
			have = append(have, l.attribute)
		}
		slices.Sort(must)
		slices.Sort(have)
		if !slices.Equal(must, have) {
			t.Errorf("%s has %q, and there are lapses for %q", name, must, have)
		}
	}

	for _, c := range []struct {
		custody Custody
		name    KeyName
	}{{Resident, ImportResident}, {Sealed, ImportSealed}} {
		lapses := importLapses(c.custody)
		complete(t, c.name, lapses)
		for _, l := range lapses {
			tell(string(c.name), l)
			t.Run(string(c.name)+"/"+l.attribute, func(t *testing.T) {
				if l.attribute == "CKA_PRIVATE" {
					folderTells(t, p, pair, c.name)
					return
				}
				if l.take == nil {
					return
				}
				at := func(names ...string) error {
					return rob(t, c.custody, l, names, func(tr *trial) (cryptoki.Object, []byte, cryptoki.Mechanism) {
						o, err := createImport(p, pair, leftOut(p.passing(c.name).acting, names...))
						if err != nil {
							t.Fatal(err)
						}
						return o, wrapped(t, &pair.PublicKey, tr.der), p.p.oaep()
					})
				}
				judge(t, l, at(append(l.besides, l.attribute)...), at(l.besides...), at())
			})
		}
	}
	complete(t, SealingKey(1), sealingLapses())
	for _, l := range sealingLapses() {
		tell("sealing key", l)
		t.Run("sealing key/"+l.attribute, func(t *testing.T) {
			if l.take == nil {
				return
			}
			at := func(key cryptoki.Object, names ...string) error {
				return rob(t, Sealed, l, names, func(tr *trial) (cryptoki.Object, []byte, cryptoki.Mechanism) {
					strictImport, err := createImport(p, pair, p.passing(ImportSealed).acting)
					if err == nil {
						tr.rekey, err = m.UnwrapKey(p.home, p.p.oaep(), strictImport, tr.blob, p.strict(Sealed))
					}
					var blob []byte
					if err == nil {
						blob, err = m.WrapKey(p.home, cryptoki.Plain(p.p.KWP), key, tr.rekey)
					}
					if err != nil {
						t.Fatal(err)
					}
					return key, blob, cryptoki.Plain(p.p.KWP)
				})
			}
			judge(t, l, at(lax[l.attribute].weak, append(l.besides, l.attribute)...), at(lax[l.attribute].guarded, l.besides...), at(strictSealing))
		})
	}
	if left, err := m.Find(p.home, []cryptoki.Attribute{cryptoki.Bool(cryptoki.CKA_TOKEN, true)}); err != nil || len(left) > 0 {
		t.Errorf("%d token objects were left: %v", len(left), err)
	}
	t.Log("what each attribute is worth:\n" + strings.Join(report, "\n"))
}

// createImport brings an import key in, whose numbers are known.
func createImport(p *prober, pair *rsa.PrivateKey, acting []cryptoki.Attribute) (cryptoki.Object, error) {
	pair.Precompute()
	return p.m.CreateObject(p.home, append(slices.Clone(acting), cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_PRIVATE_KEY), cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_RSA),
		cryptoki.Bytes(cryptoki.CKA_MODULUS, pair.N.Bytes()), cryptoki.Bytes(cryptoki.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
		cryptoki.Bytes(ckaPrivateExponent, pair.D.Bytes()), cryptoki.Bytes(ckaPrime1, pair.Primes[0].Bytes()), cryptoki.Bytes(0x125, pair.Primes[1].Bytes()),
		cryptoki.Bytes(0x126, pair.Precomputed.Dp.Bytes()), cryptoki.Bytes(0x127, pair.Precomputed.Dq.Bytes()), cryptoki.Bytes(0x128, pair.Precomputed.Qinv.Bytes())))
}

// folderTells looks for an import key's private exponent in the token's folder, where whoever has no PIN would read it.
func folderTells(t *testing.T, p *prober, pair *rsa.PrivateKey, name KeyName) {
	for _, private := range []bool{false, true} {
		acting := replaced(replaced(p.passing(name).acting, on(cryptoki.CKA_TOKEN)), cryptoki.Bool(cryptoki.CKA_PRIVATE, private))
		o, err := createImport(p, pair, acting)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		err = filepath.WalkDir(p.p.Folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			raw, err := os.ReadFile(path)
			found = found || bytes.Contains(raw, pair.D.Bytes())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if found == private {
			t.Errorf("CKA_PRIVATE %t: the private exponent lies in the token's folder: %t", private, found)
		}
		if err := p.m.DestroyObject(p.home, o); err != nil {
			t.Fatal(err)
		}
	}
}
