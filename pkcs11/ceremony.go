package pkcs11

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// A KeyReport is a ceremony key as the token shows it: its public half and
// every attribute that matters. It goes into the transcript, and a later
// Inspect must give the same.
type KeyReport struct {
	Name KeyName `json:"name"`
	ID   string  `json:"id"` // CKA_ID, hexadecimal
	// Public is the public key as SubjectPublicKeyInfo (RFC 5280); none for a secret key.
	Public     []byte            `json:"public,omitempty"`
	Attributes []AttributeReport `json:"attributes"`
	// Proofs are what Generate tried on the new key, with what came of it.
	Proofs []string `json:"proofs,omitempty"`
}

// Same compares r, from a transcript, with what the token shows now. Proofs do
// not count. The difference is ErrAttributes.
func (r KeyReport) Same(now KeyReport) error {
	switch {
	case r.Name != now.Name || r.ID != now.ID:
		return &AttributeError{Key: now.Name, Attribute: "CKA_ID", Want: r.ID, Got: now.ID}
	case !slices.Equal(r.Public, now.Public):
		return &AttributeError{Key: now.Name, Attribute: "public key", Want: hex.EncodeToString(r.Public), Got: hex.EncodeToString(now.Public)}
	case len(r.Attributes) != len(now.Attributes):
		return &AttributeError{Key: now.Name, Attribute: "number of attributes", Want: fmt.Sprint(len(r.Attributes)), Got: fmt.Sprint(len(now.Attributes))}
	}
	for i, a := range r.Attributes {
		if b := now.Attributes[i]; !reflect.DeepEqual(a, b) {
			return &AttributeError{Key: now.Name, Attribute: a.Name, Want: fmt.Sprint(a), Got: fmt.Sprint(b)}
		}
	}
	return nil
}

// Initialise makes an empty token: C_InitToken with the security officer's PIN
// and the selector's label, then the user's PIN. It takes the first empty
// token that the module shows, or the one with the selector's serial number,
// and refuses one that is initialised: to erase a token is not its business.
func Initialise(p Profile, sel Selector, officer, user Secret) (Info, error) {
	if err := p.Validate(); err != nil {
		return Info{}, err
	}
	if sel.Label == "" || len(sel.Label) > 32 || officer.empty() || user.empty() {
		return Info{}, &Error{Op: "initialising token: a label of at most 32 bytes and two PINs are needed", Kind: ErrBadInput}
	}
	m, err := cryptoki.Load(p.Module, p.Reserved, p.Alone)
	if err != nil {
		return Info{}, &Error{Op: "loading module: " + err.Error(), Kind: ErrTokenBroken}
	}
	defer m.Finalize()
	info, err := initialise(m, p, sel, officer, user)
	if err != nil {
		return Info{}, fmt.Errorf("initialising token: %w", err)
	}
	return info, nil
}

func initialise(m *cryptoki.Module, p Profile, sel Selector, officer, user Secret) (Info, error) {
	slots, err := m.Slots()
	if err != nil {
		return Info{}, fault("listing slots", err)
	}
	empty := -1
	for i, slot := range slots {
		info, err := m.TokenInfo(slot)
		if err != nil {
			continue
		}
		used := info.Flags&cryptoki.CKF_TOKEN_INITIALIZED != 0
		if used && (info.Label == sel.Label || sel.Serial != "" && info.Serial == sel.Serial) {
			return Info{}, &Error{Op: "selecting token", Kind: ErrTokenExists}
		}
		if !used && empty < 0 && (sel.Serial == "" || info.Serial == sel.Serial) {
			empty = i
		}
	}
	if empty < 0 {
		return Info{}, &Error{Op: "selecting token", Kind: ErrTokenMissing}
	}
	if err := m.InitToken(slots[empty], officer.bytes(), sel.Label); err != nil {
		return Info{}, fault("erasing", err)
	}
	// A crash from here to the end leaves a token without a user's PIN, which
	// this function then refuses: the operator erases it and starts again. It
	// holds nothing yet. Slots may have new numbers now.
	slot, info, err := find(m, Selector{Label: sel.Label})
	if err != nil {
		return Info{}, err
	}
	s, err := m.OpenSession(slot)
	if err != nil {
		return Info{}, fault("opening session", err)
	}
	if err := m.Login(s, cryptoki.CKU_SO, officer.bytes()); err != nil {
		return Info{}, fault("logging in as security officer", err)
	}
	if err := m.InitPIN(s, user.bytes()); err != nil {
		return Info{}, fault("setting the user's PIN", err)
	}
	if err := m.Logout(s); err != nil {
		return Info{}, fault("logging out", err)
	}
	return info, syncFolder(p)
}

// Generate makes one of the ceremony's keys and returns its report: sealing
// keys as Officer, the others as User. The report is of what a fresh session
// read after the folder was synced. If anything is not as it must be, or if an
// import key lets a laxer key through, the new key is destroyed again and the
// error is ErrAttributes.
func (t *Token) Generate(ctx context.Context, name KeyName) (KeyReport, error) {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails (crypto/rand)
	pl, err := t.profile.plan(name, id)
	if err != nil {
		return KeyReport{}, err
	}
	if pl.officer != (t.role == Officer) {
		return KeyReport{}, &Error{Op: fmt.Sprintf("generating %q: wrong role", string(name)), Kind: ErrRefused}
	}
	var r KeyReport
	err = t.do(ctx, t.slow, fmt.Sprintf("generating %q", string(name)), func(s cryptoki.Session) error {
		if _, err := t.only(s, name); !errors.Is(err, ErrKeyMissing) {
			if err == nil {
				err = ErrKeyExists
			}
			return err
		}
		if err := t.profile.room(keyReserve); err != nil {
			return err
		}
		var made []cryptoki.Object
		if len(pl.public) == 0 {
			o, err := t.module.GenerateKey(s, pl.mech, pl.acting)
			if err != nil {
				return err
			}
			made = []cryptoki.Object{o}
		} else {
			pub, priv, err := t.module.GenerateKeyPair(s, pl.mech, pl.public, pl.acting)
			if err != nil {
				return err
			}
			made = []cryptoki.Object{priv, pub}
		}
		err := t.sync()
		if err == nil {
			err = t.fresh(func(s cryptoki.Session) (err error) {
				r, err = t.inspect(s, name, pl)
				if err == nil && (name == ImportResident || name == ImportSealed) {
					r.Proofs, err = t.prove(s, name, made[0], r.Public)
				}
				return err
			})
		}
		if err != nil {
			for _, o := range made {
				_ = t.module.DestroyObject(s, o)
			}
			_ = t.sync()
			return err
		}
		t.mu.Lock()
		t.named[name] = made[0]
		t.mu.Unlock()
		return nil
	})
	return r, err
}

// Inspect reads a ceremony key back. It returns ErrAttributes on any
// difference from what Generate asks for.
func (t *Token) Inspect(ctx context.Context, name KeyName) (r KeyReport, err error) {
	err = t.do(ctx, t.slow, fmt.Sprintf("inspecting %q", string(name)), func(s cryptoki.Session) error {
		o, err := t.only(s, name)
		if err != nil {
			return err
		}
		id, err := t.module.Read(s, o, cryptoki.CKA_ID)
		if err != nil {
			return err
		}
		pl, err := t.profile.plan(name, id.Value)
		if err != nil {
			return err
		}
		r, err = t.inspect(s, name, pl)
		return err
	})
	return r, err
}

func (t *Token) inspect(s cryptoki.Session, name KeyName, pl plan) (KeyReport, error) {
	o, err := t.only(s, name)
	if err != nil {
		return KeyReport{}, err
	}
	r := KeyReport{Name: name}
	for _, want := range slices.Concat(pl.acting, pl.implied) {
		got, err := t.module.Read(s, o, want.Type)
		if want.Array != nil && (err == cryptoki.CKR_ATTRIBUTE_TYPE_INVALID || err == cryptoki.CKR_ATTRIBUTE_SENSITIVE) {
			r.Attributes = append(r.Attributes, AttributeReport{Name: want.Name(), Unreadable: true})
			continue
		}
		if err != nil {
			return KeyReport{}, fmt.Errorf("reading %s: %w", want.Name(), err)
		}
		if !got.Equal(want) {
			return KeyReport{}, &AttributeError{Key: name, Attribute: want.Name(), Want: describe(want), Got: describe(got)}
		}
		if want.Type == cryptoki.CKA_ID {
			r.ID = hex.EncodeToString(got.Value)
		}
		r.Attributes = append(r.Attributes, report(got))
	}
	if len(pl.public) == 0 {
		return r, nil
	}
	id, _ := hex.DecodeString(r.ID) // written two lines above
	found, err := t.module.Find(s, []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_PUBLIC_KEY),
		cryptoki.Bool(cryptoki.CKA_TOKEN, true), cryptoki.Bytes(cryptoki.CKA_LABEL, []byte(name)), cryptoki.Bytes(cryptoki.CKA_ID, id)})
	if err != nil {
		return KeyReport{}, err
	}
	if len(found) != 1 {
		return KeyReport{}, &AttributeError{Key: name, Attribute: "public half", Want: "one", Got: fmt.Sprint(len(found))}
	}
	if err := t.hasAll(s, found[0], name, pl.public); err != nil {
		return KeyReport{}, err
	}
	public, err := t.public(s, name, found[0])
	if err != nil {
		return KeyReport{}, err
	}
	r.Public, err = x509.MarshalPKIXPublicKey(public)
	return r, err
}

// public reads a public key out of its object.
func (t *Token) public(s cryptoki.Session, name KeyName, o cryptoki.Object) (any, error) {
	if name != LogKey {
		n, err := t.module.Read(s, o, cryptoki.CKA_MODULUS)
		if err != nil {
			return nil, err
		}
		key := &rsa.PublicKey{N: new(big.Int).SetBytes(n.Value), E: 65537}
		if bits := key.N.BitLen(); bits != importBits {
			return nil, &AttributeError{Key: name, Attribute: "CKA_MODULUS", Want: fmt.Sprint(importBits, " bits"), Got: fmt.Sprint(bits, " bits")}
		}
		return key, nil
	}
	a, err := t.module.Read(s, o, cryptoki.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	if t.profile.LogAlgorithm == LogEd25519 {
		if key := bare(a.Value, ed25519.PublicKeySize); len(key) == ed25519.PublicKeySize {
			return ed25519.PublicKey(key), nil
		}
	} else if key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), bare(a.Value, 65)); err == nil {
		return key, nil
	}
	return nil, &AttributeError{Key: name, Attribute: "CKA_EC_POINT", Want: "a point", Got: hex.EncodeToString(a.Value)}
}

// prove tries an import key with throw-away keys. First the template as it
// must be: the key comes in and derives what software says, so public and
// private half belong together. Then, one by one, each attribute of the
// template turned or left out: all must be refused. This holds also where the
// module does not let the template be read.
func (t *Token) prove(s cryptoki.Session, name KeyName, importKey cryptoki.Object, public []byte) ([]string, error) {
	custody := Resident
	if name == ImportSealed {
		custody = Sealed
	}
	strict := t.profile.rekeyTemplate(custody)
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	wrapped, err := t.profile.wrap(public, key)
	if err != nil {
		return nil, err
	}
	o, err := t.module.UnwrapKey(s, t.profile.oaep(), importKey, wrapped, strict)
	if err != nil {
		return nil, fmt.Errorf("unwrapping a throw-away key: %w", err)
	}
	x, err := derive(t.module, s, o, t.profile.encode(generator[:]), t.template)
	if destroyed := t.module.DestroyObject(s, o); err == nil {
		err = destroyed
	}
	if err != nil {
		return nil, fmt.Errorf("deriving with a throw-away key: %w", err)
	}
	if x != [32]byte(key.PublicKey().Bytes()[1:33]) {
		return nil, &AttributeError{Key: name, Attribute: "unwrapped key", Want: "the key that was wrapped", Got: "another"}
	}
	proofs := []string{"unwrap with the template: derives as software does"}
	for i, a := range strict {
		lax := slices.Clone(strict)
		if len(a.Value) == 1 {
			lax[i] = cryptoki.Bool(a.Type, a.Value[0] == 0)
		} else {
			lax = slices.Delete(lax, i, i+1)
		}
		o, err := t.module.UnwrapKey(s, t.profile.oaep(), importKey, wrapped, lax)
		if err == nil {
			got, readErr := t.module.Read(s, o, a.Type)
			if err := t.module.DestroyObject(s, o); err != nil {
				return nil, err
			}
			// A module may fill in what the caller left out. That is as good.
			if readErr == nil && got.Equal(a) {
				proofs = append(proofs, "unwrap with other "+a.Name()+": template imposed")
				continue
			}
			return nil, &AttributeError{Key: name, Attribute: "CKA_UNWRAP_TEMPLATE", Want: "enforced for " + a.Name(), Got: "ignored"}
		}
		if _, ok := err.(cryptoki.CKR); !ok {
			return nil, err
		}
		proofs = append(proofs, fmt.Sprintf("unwrap with other %s: refused (%v)", a.Name(), err))
	}
	return proofs, nil
}

// wrap does what an owner's device does: PKCS#8 under the import key's OAEP.
// Only throw-away keys are wrapped here.
func (p Profile) wrap(public []byte, key *ecdh.PrivateKey) ([]byte, error) {
	parsed, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	rsaKey, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, ErrBadInput
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return rsa.EncryptOAEP(oaepHashes[p.OAEPHash].hash.New(), rand.Reader, rsaKey, der, nil)
}
