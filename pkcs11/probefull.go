package pkcs11

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// A FullProbe attacks a token as the host of a vault could, which has the user's
// PIN: with every call of PKCS#11 that might take a key out, change it or turn
// it to another use. It is for the ceremony, and for the operator who looks at
// a new HSM; the token need not be a vault's.
//
// It makes throw-away keys exactly as the ceremony makes the real ones, by the
// same plans, but as session objects: they end with their session, also if the
// process dies. An attack that would make a token object has its object
// destroyed at once if it succeeds. No attack is made on a real key, none
// needs a wrong PIN, and the token's objects and its own description are
// compared before and after.
//
// One process at a time: a vault that imports or destroys a key meanwhile
// shows up as a difference.
type FullProbe struct {
	Profile  Profile
	Selector Selector
	// User is the user's PIN. Officer is the security officer's, without which
	// custody sealed is not tried and B is the best grade. Each is sent once or
	// twice, and no more after the first refusal. The caller zeroes them.
	User, Officer Secret
	// Progress, if set, hears what begins.
	Progress func(string)

	// weaken changes the plan of a throw-away key: a test's weak ceremony.
	weaken func(KeyName, plan) plan
}

// Plan says what Run will make and try.
func (f *FullProbe) Plan() []string {
	plan := []string{
		"list every object of the token, with a hash of what can be read of it, and what the token says of itself",
	}
	if f.Officer.empty() {
		plan = append(plan, "leave custody sealed untried, because there is no security officer's PIN: B is the best grade then")
	} else {
		plan = append(plan,
			"log in as security officer and make a sealing key (AES-256) as a session object, marked trusted",
			"log out and in as user, who is what the vault's host is",
			"make an import key of custody sealed (RSA-3072) as a session object, and bring a throw-away re-encryption key in, out and in again")
	}
	return append(plan,
		"make an import key of custody resident (RSA-3072) as a session object, and bring a throw-away re-encryption key in",
		"make an AES key, an RSA public key and EC keys of the host's own, as session objects",
		"try on these keys, and on no others, to read, copy, change, wrap, unwrap, decrypt, sign and derive in every way that must be refused",
		"end the sessions, and every key with them, list the token's objects again and compare",
		"never send a wrong PIN")
}

// Run probes. An error means that the probe could not be held, and says nothing
// about the token; what it found is in the Assessment.
func (f *FullProbe) Run(ctx context.Context) (*Assessment, error) {
	if err := f.Profile.Validate(); err != nil {
		return nil, err
	}
	if f.User.empty() {
		return nil, &Error{Op: "probing token: the user's PIN is needed", Kind: ErrBadInput}
	}
	m, err := cryptoki.Load(f.Profile.Module, f.Profile.Reserved, f.Profile.Alone)
	if err != nil {
		return nil, &Error{Op: "loading module: " + err.Error(), Kind: ErrTokenBroken}
	}
	p := &prober{ctx: ctx, m: m, p: f.Profile, template: derivedTemplate(f.Profile.ValueLen), progress: f.Progress, weaken: f.weaken}
	err = p.run(f)
	p.out.Calls = m.Calls()
	if finalized := m.Finalize(); err == nil {
		err = fault("closing token", finalized)
	}
	if err != nil {
		return nil, fmt.Errorf("probing token: %w", err)
	}
	return &p.out, nil
}

// A prober is a full probe under way.
type prober struct {
	ctx      context.Context
	m        *cryptoki.Module
	p        Profile
	slot     cryptoki.Slot
	template []cryptoki.Attribute // of a derived value
	progress func(string)
	weaken   func(KeyName, plan) plan
	only     func(Attack) bool // which attacks to make; nil: all
	mechs    []uint

	// home owns the throw-away keys. Attacks have sessions of their own, since a
	// refused operation may leave one in the middle of something.
	home cryptoki.Session
	// The host's own keys.
	ownAES cryptoki.Object // its value is known, and it may do everything
	ownRSA cryptoki.Object // public half, which may wrap

	out Assessment
	// broken ends the probe: the module is of no further use.
	broken error
}

func (p *prober) say(format string, args ...any) {
	if p.progress != nil {
		p.progress(fmt.Sprintf(format, args...))
	}
}

func (p *prober) find(f Finding, format string, args ...any) {
	f.Says = fmt.Sprintf(format, args...)
	p.out.Findings = append(p.out.Findings, f)
}

func (p *prober) run(f *FullProbe) (err error) {
	p.out = Assessment{Findings: []Finding{}, Attacks: []Attack{}, Left: []string{}}
	if p.slot, p.out.Token, err = find(p.m, f.Selector); err != nil {
		return err
	}
	if p.mechs, err = p.m.Mechanisms(p.slot); err != nil {
		return fault("listing mechanisms", err)
	}
	if p.home, err = p.m.OpenSession(p.slot); err != nil {
		return fault("opening session", err)
	}
	p.say("listing the token's objects")
	if err := p.as(User, f.User); err != nil {
		return err
	}
	before, err := p.snapshot()
	if err != nil {
		return err
	}
	sealing, sealed := p.sealing(f)
	if p.broken == nil && !f.Officer.empty() {
		// The sealing key is a public session object, which C_Logout leaves alone (PKCS#11 2.40, section 5.6).
		if err := p.as(User, f.User); err != nil {
			return err
		}
	}
	if p.broken == nil && p.usable() {
		if err := p.ownKeys(); err != nil {
			return err
		}
		p.custody(Resident, 0)
		if sealed {
			p.custody(Sealed, sealing)
		}
	}
	if p.broken != nil {
		return p.broken
	}
	// The end of the session is the end of everything that was made in it.
	if err := p.m.CloseSession(p.home); err != nil {
		return fault("closing session", err)
	}
	if p.home, err = p.m.OpenSession(p.slot); err != nil {
		return fault("opening session", err)
	}
	p.say("comparing the token's objects")
	if err := p.as(User, f.User); err != nil { // the last session's end was a logout
		return err
	}
	after, err := p.snapshot()
	if err != nil {
		return err
	}
	p.out.Left = append(p.out.Left, before.differs(after)...)
	for _, left := range p.out.Left {
		p.find(Finding{Effect: ToKnow}, "The token is not as it was before: %s.", left)
	}
	p.out.conclude()
	return nil
}

// as logs in. Whoever was logged in is logged out before.
func (p *prober) as(role Role, pin Secret) error {
	info, err := p.m.TokenInfo(p.slot)
	if err != nil {
		return fault("reading token information", err)
	}
	_ = p.m.Logout(p.home) // nobody may be logged in
	return login(p.m, p.home, role, info.Flags, pin)
}

// usable finds out whether the token can do the work of a vault at all.
func (p *prober) usable() bool {
	p.say("deriving")
	needed := map[uint]string{
		cryptoki.CKM_ECDH1_DERIVE: "CKM_ECDH1_DERIVE, which is re-encryption", cryptoki.CKM_EC_KEY_PAIR_GEN: "CKM_EC_KEY_PAIR_GEN",
		cryptoki.CKM_RSA_PKCS_KEY_PAIR_GEN: "CKM_RSA_PKCS_KEY_PAIR_GEN, for import keys", cryptoki.CKM_RSA_PKCS_OAEP: "CKM_RSA_PKCS_OAEP, for imports",
		cryptoki.CKM_AES_KEY_GEN: "CKM_AES_KEY_GEN", cryptoki.CKM_AES_GCM: "CKM_AES_GCM, for the store key",
	}
	if p.p.LogAlgorithm == LogEd25519 {
		needed[p.p.EdKeyGen], needed[p.p.EdSign] = "key generation for Ed25519, for the log key", "Ed25519, for the log key"
	} else {
		needed[cryptoki.CKM_ECDSA] = "CKM_ECDSA, for the log key"
	}
	ok := true
	for _, mech := range slices.Sorted(maps.Keys(needed)) {
		if !slices.Contains(p.mechs, mech) {
			ok = false
			p.find(Finding{Effect: Unusable}, "The token does not list mechanism 0x%x: %s.", mech, needed[mech])
		}
	}
	if !slices.Contains(p.mechs, p.p.KWP) {
		p.find(Finding{Effect: Unusable, Custody: Sealed}, "The token does not list mechanism 0x%x, AES key wrap with padding, by which keys are sealed.", p.p.KWP)
	}
	if !ok {
		return false
	}
	var light Findings
	err := p.session(func(s cryptoki.Session) error {
		c, err := newCanary(p.m, s, p.p)
		if err != nil {
			return err
		}
		t := &Token{module: p.m, slot: p.slot, profile: p.p, template: p.template, canary: c}
		return t.probe(s, &light)
	})
	if err != nil {
		p.find(Finding{Effect: Unusable}, "C_DeriveKey does not give what software's own ECDH gives: %v.", err)
		return false
	}
	for _, point := range light.Points {
		if !point.Refused {
			p.find(Finding{Effect: Unusable}, "The token takes a bad point, %s, from which a key can be found out bit by bit.", point.Point)
			ok = false
		}
	}
	return ok
}

// session runs f in a session that ends with it.
func (p *prober) session(f func(cryptoki.Session) error) error {
	s, err := p.m.OpenSession(p.slot)
	if err != nil {
		return err
	}
	err = f(s)
	_ = p.m.CloseSession(s) // it may be gone: then so are its objects
	return err
}

// passing makes a plan one for session objects.
func (pl plan) passing() plan {
	pl.public, pl.acting = replaced(pl.public, cryptoki.Bool(cryptoki.CKA_TOKEN, false)), replaced(pl.acting, cryptoki.Bool(cryptoki.CKA_TOKEN, false))
	for i, a := range pl.acting {
		if a.Array != nil {
			pl.acting[i].Array = replaced(a.Array, cryptoki.Bool(cryptoki.CKA_TOKEN, false))
		}
	}
	return pl
}

// replaced is t with another value of a's type, if it has one at all.
func replaced(t []cryptoki.Attribute, a cryptoki.Attribute) []cryptoki.Attribute {
	t = slices.Clone(t)
	for i := range t {
		if t[i].Type == a.Type {
			t[i] = a
		}
	}
	return t
}

func omitted(t []cryptoki.Attribute, typ uint) []cryptoki.Attribute {
	return slices.DeleteFunc(slices.Clone(t), func(a cryptoki.Attribute) bool { return a.Type == typ })
}

// strict is what a throw-away import or sealing key forces on a re-encryption key.
func (p *prober) strict(c Custody) []cryptoki.Attribute {
	return replaced(p.p.rekeyTemplate(c), cryptoki.Bool(cryptoki.CKA_TOKEN, false))
}

// passing is the plan of a throw-away key.
func (p *prober) passing(name KeyName) plan {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails (crypto/rand)
	pl, err := p.p.plan(name, id)
	if err != nil {
		panic(err) // names are this file's own
	}
	return pl.passing()
}

// makes is the plan by which a throw-away key is made. What it must look like
// afterwards is passing.
func (p *prober) makes(name KeyName) plan {
	pl := p.passing(name)
	if p.weaken != nil {
		pl = p.weaken(name, pl)
	}
	return pl
}

// sealing makes the throw-away sealing key, as security officer.
func (p *prober) sealing(f *FullProbe) (cryptoki.Object, bool) {
	if f.Officer.empty() {
		p.find(Finding{Effect: Untried, Custody: Sealed}, "Custody sealed was not tried, because a sealing key is made by the security officer, whose PIN was not given.")
		return 0, false
	}
	p.say("making a throw-away sealing key, as security officer")
	if err := p.as(Officer, f.Officer); err != nil {
		p.broken = err
		return 0, false
	}
	pl := p.makes(SealingKey(1))
	o, err := p.m.GenerateKey(p.home, pl.mech, pl.acting)
	if err != nil {
		p.find(Finding{Effect: Untried, Custody: Sealed}, "The security officer cannot make a sealing key as a session object (%v), so custody sealed was not tried.", err)
		return 0, false
	}
	return o, true
}

// A trial is one custody's throw-away keys.
type trial struct {
	custody   Custody
	imports   cryptoki.Object
	public    *rsa.PublicKey
	software  *ecdh.PrivateKey // what is wrapped
	der, blob []byte           // as PKCS#8, and that under the import key
	rekey     cryptoki.Object
	sealing   cryptoki.Object // custody sealed
	sealed    []byte          // rekey under the sealing key
	importKey KeyName
}

// custody makes a custody's keys and attacks them.
func (p *prober) custody(c Custody, sealing cryptoki.Object) {
	p.say("making throw-away keys of custody %s", c)
	t := &trial{custody: c, sealing: sealing, importKey: ImportResident}
	if c == Sealed {
		t.importKey = ImportSealed
		if lost := p.lax(Sealed, SealingKey(1), sealing, p.passing(SealingKey(1))); lost {
			return
		}
	}
	if !p.makeImport(t, p.makes(t.importKey)) || !p.wrapped(t) {
		return
	}
	if p.ownRSA == 0 {
		if p.broken = p.ownPair(t.public); p.broken != nil {
			return
		}
	}
	usable := p.bringIn(t)
	p.say("attacking the import key of custody %s", c)
	p.attackImport(t)
	if !usable {
		return
	}
	p.say("attacking a re-encryption key of custody %s", c)
	p.attackRekey(t)
	if c == Sealed {
		p.say("attacking a sealing key")
		p.attackSealing(t)
	}
	if p.broken == nil {
		p.after(t)
		p.destroy(t)
	}
}

// makeImport makes t's import key by a plan and compares it with the strict one.
func (p *prober) makeImport(t *trial, pl plan) bool {
	pub, priv, err := p.m.GenerateKeyPair(p.home, pl.mech, pl.public, pl.acting)
	if err != nil {
		p.find(Finding{Effect: Unusable, Custody: t.custody, Key: t.importKey}, "An import key cannot be made with the attributes it must have: %v.", err)
		return false
	}
	t.imports = priv
	must := p.passing(t.importKey)
	if p.lax(t.custody, t.importKey, priv, must) {
		return false
	}
	p.laxHalf(t.custody, t.importKey, pub, must.public)
	key, err := (&Token{module: p.m, profile: p.p}).public(p.home, t.importKey, pub)
	if err == nil {
		var ok bool
		if t.public, ok = key.(*rsa.PublicKey); !ok {
			err = ErrBadInput
		}
	}
	if err != nil {
		p.find(Finding{Effect: Unusable, Custody: t.custody, Key: t.importKey}, "The public half of an import key cannot be read: %v.", err)
		return false
	}
	return true
}

// wrapped draws a key and wraps it as an owner would.
func (p *prober) wrapped(t *trial) bool {
	var err error
	if t.software, err = ecdh.P256().GenerateKey(rand.Reader); err == nil {
		var spki []byte
		if spki, err = x509.MarshalPKIXPublicKey(t.public); err == nil {
			t.blob, err = p.p.wrap(spki, t.software)
		}
	}
	if err == nil {
		t.der, err = x509.MarshalPKCS8PrivateKey(t.software)
	}
	if err != nil {
		p.find(Finding{Effect: Unusable, Custody: t.custody}, "A key cannot be wrapped under the import key: %v.", err)
	}
	return err == nil
}

// bringIn does what an import does, and for custody sealed what comes after it.
// What does not work here is no import, and no custody.
func (p *prober) bringIn(t *trial) bool {
	fail := func(format string, args ...any) bool {
		p.find(Finding{Effect: Unusable, Custody: t.custody}, format, args...)
		return false
	}
	var err error
	if t.rekey, err = p.m.UnwrapKey(p.home, p.p.oaep(), t.imports, t.blob, p.strict(t.custody)); err != nil {
		return fail("A re-encryption key cannot be brought in with the template that it must have: %v.", err)
	}
	if !p.works(t, t.rekey) {
		return fail("A re-encryption key that was brought in does not derive what software derives.")
	}
	if t.custody == Resident {
		return true
	}
	kwp := cryptoki.Plain(p.p.KWP)
	if t.sealed, err = p.m.WrapKey(p.home, kwp, t.sealing, t.rekey); err != nil {
		return fail("A re-encryption key cannot be sealed: %v.", err)
	}
	if t.rekey, err = p.m.UnwrapKey(p.home, kwp, t.sealing, t.sealed, p.strict(Sealed)); err != nil {
		return fail("A sealed re-encryption key cannot be loaded again: %v.", err)
	}
	if !p.works(t, t.rekey) {
		return fail("A re-encryption key that was sealed and loaded does not derive what software derives.")
	}
	return true
}

// works tells whether a re-encryption key gives x(k*G) for t's key.
func (p *prober) works(t *trial, key cryptoki.Object) bool {
	x, err := derive(p.m, p.home, key, p.p.encode(generator[:]), p.template)
	return err == nil && bytes.Equal(x[:], t.software.PublicKey().Bytes()[1:33])
}

// after makes sure that the attacks met living keys to the end.
func (p *prober) after(t *trial) {
	key, err := p.m.UnwrapKey(p.home, p.p.oaep(), t.imports, t.blob, p.strict(t.custody))
	if err != nil || !p.works(t, key) || !p.works(t, t.rekey) {
		p.find(Finding{Effect: Unusable, Custody: t.custody}, "After the attacks the keys of custody %s no longer work.", t.custody)
	}
}

// lax makes a finding of each attribute of a key that is not as its plan says.
// lost means that the key cannot be read at all.
func (p *prober) lax(c Custody, name KeyName, o cryptoki.Object, must plan) (lost bool) {
	if _, err := p.m.Read(p.home, o, cryptoki.CKA_CLASS); err != nil {
		p.find(Finding{Effect: Untried, Custody: c, Key: name}, "The throw-away %q is gone after C_Logout (%v), so custody %s was not tried.", string(name), err, c)
		return true
	}
	// What names a key differs from one to the next.
	p.laxHalf(c, name, o, slices.Concat(must.acting, must.implied))
	return false
}

func (p *prober) laxHalf(c Custody, name KeyName, o cryptoki.Object, must []cryptoki.Attribute) {
	for _, want := range must {
		if want.Type == cryptoki.CKA_ID {
			continue // drawn anew for each key
		}
		got, err := p.m.Read(p.home, o, want.Type)
		switch {
		case want.Array != nil && (err == cryptoki.CKR_ATTRIBUTE_TYPE_INVALID || err == cryptoki.CKR_ATTRIBUTE_SENSITIVE):
			// Not shown: the attacks tell.
		case err != nil:
			p.find(Finding{Effect: Extracts, Custody: c, Key: name, Attribute: want.Name()}, "%q: %s cannot be read back (%v).", string(name), want.Name(), err)
		case got.Equal(want):
		case want.Array == nil:
			p.find(Finding{Effect: Extracts, Custody: c, Key: name, Attribute: want.Name()},
				"%q: the token does not keep %s as it must be: it is %s, not %s.", string(name), want.Name(), describe(got), describe(want))
		default:
			for _, line := range differing(want.Array, got.Array) {
				p.find(Finding{Effect: Extracts, Custody: c, Key: name, Attribute: want.Name() + " " + line},
					"%q: the token does not keep the line %s of %s as it must be.", string(name), line, want.Name())
			}
		}
	}
}

// differing names the lines in which two templates differ.
func differing(want, got []cryptoki.Attribute) []string {
	var names []string
	for _, pair := range [][2][]cryptoki.Attribute{{want, got}, {got, want}} {
		for _, a := range pair[0] {
			if !slices.ContainsFunc(pair[1], a.Equal) && !slices.Contains(names, a.Name()) {
				names = append(names, a.Name())
			}
		}
	}
	return names
}

// A snapshot is what a token holds and says of itself.
type snapshot struct {
	objects map[string]int // description and hash, and how many are alike
	info    cryptoki.TokenInfo
}

func (p *prober) snapshot() (*snapshot, error) {
	info, err := p.m.TokenInfo(p.slot)
	if err != nil {
		return nil, fault("reading token information", err)
	}
	snap := &snapshot{objects: make(map[string]int), info: info}
	err = p.session(func(s cryptoki.Session) error {
		found, err := p.m.Find(s, nil)
		if err != nil {
			return err
		}
		for _, o := range found {
			if err := p.ctx.Err(); err != nil {
				return err
			}
			described, err := p.describe(s, o)
			if err != nil {
				return err
			}
			snap.objects[described]++
		}
		return nil
	})
	return snap, fault("listing objects", err)
}

// describe names an object for people, with a hash of everything that can be
// read of it.
func (p *prober) describe(s cryptoki.Session, o cryptoki.Object) (string, error) {
	h := sha256.New()
	var class, label, id string
	for _, typ := range cryptoki.Attributes() {
		a, err := p.m.Read(s, o, typ)
		if err != nil {
			if ckr, ok := errors.AsType[cryptoki.CKR](err); ok {
				fmt.Fprintf(h, "%x!%x;", typ, uint64(ckr))
				continue
			}
			return "", err
		}
		fmt.Fprintf(h, "%x=%s;", typ, describe(a))
		switch typ {
		case cryptoki.CKA_CLASS:
			class = describe(a)
		case cryptoki.CKA_LABEL:
			label = string(a.Value)
		case cryptoki.CKA_ID:
			id = hex.EncodeToString(a.Value)
		}
		clear(a.Value)
	}
	return fmt.Sprintf("object of class %s, label %q, id %q, hash %x", class, label, id, h.Sum(nil)[:8]), nil
}

// differs says in sentences' ends what is not the same in after.
func (b *snapshot) differs(after *snapshot) []string {
	var found []string
	for _, described := range slices.Sorted(maps.Keys(b.objects)) {
		if was, is := b.objects[described], after.objects[described]; is < was {
			found = append(found, "gone or changed: "+described)
		}
	}
	for _, described := range slices.Sorted(maps.Keys(after.objects)) {
		if was, is := b.objects[described], after.objects[described]; is > was {
			found = append(found, "new or changed: "+described)
		}
	}
	if b.info != after.info {
		found = append(found, fmt.Sprintf("it said of itself %+v, and says %+v", b.info, after.info))
	}
	return found
}
