package pkcs11

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

func probing(p Profile) *FullProbe {
	return &FullProbe{Profile: p, Selector: Selector{Label: testLabel}, User: pin(userPIN), Officer: pin(officerPIN)}
}

func probed(t testing.TB, f *FullProbe) *Assessment {
	t.Helper()
	a, err := f.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Left) > 0 {
		t.Errorf("the token is not as it was: %q", a.Left)
	}
	return a
}

// SoftHSM 2.6.1 refuses every attack, on a token with a ceremony as on one
// without, and is left as it was.
func TestFullProbe(t *testing.T) {
	token, reports := ceremonyKeys(t)
	p := token.profile
	if err := token.SaveState(t.Context(), []byte("state")); err != nil {
		t.Fatal(err)
	}
	if err := token.Import(t.Context(), newID(), OAEPDirect, wrappedKey(t, importKey(t, reports[ImportResident]), newKey(t))); err != nil {
		t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	files := func() string {
		paths, err := filepath.Glob(filepath.Join(p.Folder, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for _, path := range paths {
			if filepath.Base(path) == "token.object" {
				continue // what a login leaves there is in the token's own description, which the probe compares
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&all, "%s %x\n", path, raw)
		}
		return all.String()
	}
	before := files()
	f := probing(p)
	var heard []string
	f.Progress = func(s string) { heard = append(heard, s) }
	a := probed(t, f)
	if a.Grade != GradeA {
		t.Errorf("grade %s: %s", a.Grade, a.Why)
	}
	if after := files(); after != before {
		t.Error("the probe changed SoftHSM's files")
	}
	if len(a.Attacks) < 300 || a.Count(Refused) < 250 || len(heard) < 8 {
		t.Errorf("%d attacks, %d refused, heard %q", len(a.Attacks), a.Count(Refused), heard)
	}
	names := make(map[string]bool)
	for _, x := range a.Attacks {
		if names[x.Name] {
			t.Errorf("two attacks are called %q", x.Name)
		}
		names[x.Name] = true
		if x.Tries == "" || x.Custody == "" || x.Verdict == Succeeded && !x.Harmless {
			t.Errorf("%+v", x)
		}
	}
	for _, x := range a.Findings {
		if x.Effect != ToKnow {
			t.Errorf("%+v", x)
		}
	}
	if a.Calls["C_Login"] != 4 || a.Calls["C_InitToken"]+a.Calls["C_InitPIN"] != 0 {
		t.Errorf("calls %v", a.Calls)
	}

	// Without the officer's PIN custody sealed is not proved.
	f = probing(p)
	f.Officer = Secret{}
	if a = probed(t, f); a.Grade != GradeB || !strings.Contains(a.Why, "whose PIN was not given") {
		t.Errorf("grade %s: %s", a.Grade, a.Why)
	}
	// A wrong PIN is tried once.
	f = probing(p)
	f.User = pin("wrong-0000")
	if _, err := f.Run(t.Context()); err == nil {
		t.Error("a wrong PIN went through")
	}
	f = probing(p)
	f.Officer = pin("wrong-0000")
	if _, err := f.Run(t.Context()); err == nil {
		t.Error("a wrong officer's PIN went through")
	}
	if after := files(); after != before {
		t.Error("a probe that was not held changed SoftHSM's files")
	}
}

// The whole probe on weak ceremonies: one for each grade.
func TestFullProbeGrades(t *testing.T) {
	p := initialised(t)
	for name, c := range map[string]struct {
		key  KeyName
		weak cryptoki.Attribute
		want Grade
	}{
		"an import key that decrypts":        {ImportResident, on(cryptoki.CKA_DECRYPT), GradeC},
		"a sealing key that decrypts":        {SealingKey(1), on(cryptoki.CKA_DECRYPT), GradeB},
		"an import key that does not unwrap": {ImportResident, off(cryptoki.CKA_UNWRAP), GradeU},
	} {
		t.Run(name, func(t *testing.T) {
			f := probing(p)
			f.weaken = func(key KeyName, pl plan) plan {
				if key == c.key {
					pl.acting = replace(pl.acting, c.weak)
				}
				return pl
			}
			a := probed(t, f)
			if a.Grade != c.want || c.want != GradeU && !strings.Contains(a.Why, c.weak.Name()) {
				t.Errorf("grade %s: %s; want %s for %s", a.Grade, a.Why, c.want, c.weak.Name())
			}
			if !slices.ContainsFunc(a.Findings, func(f Finding) bool { return f.Key == c.key && f.Attribute == c.weak.Name() }) {
				t.Errorf("no finding names %s of %q: %+v", c.weak.Name(), string(c.key), a.Findings)
			}
		})
	}
}

func TestConclusion(t *testing.T) {
	f := func(e Effect, c Custody) Finding { return Finding{Effect: e, Custody: c, Says: string(e)} }
	for i, c := range []struct {
		findings []Finding
		want     Grade
	}{
		{nil, GradeA},
		{[]Finding{f(ToKnow, ""), f(ToKnow, Resident), f(ToKnow, Sealed)}, GradeA},
		{[]Finding{f(Untried, Sealed)}, GradeB},
		{[]Finding{f(Extracts, Sealed)}, GradeB},
		{[]Finding{f(Unusable, Sealed)}, GradeB},
		{[]Finding{f(Extracts, Resident)}, GradeC},
		{[]Finding{f(Extracts, "")}, GradeC},
		{[]Finding{f(Extracts, Resident), f(Untried, Sealed)}, GradeC},
		{[]Finding{f(Unusable, Resident), f(Extracts, Resident)}, GradeU},
		{[]Finding{f(Unusable, "")}, GradeU},
		{[]Finding{f(Untried, Resident)}, GradeU},
	} {
		if got, why := conclusion(c.findings); got != c.want || why == "" {
			t.Errorf("%d: %s, %s; want %s", i, got, why, c.want)
		}
	}
	for _, c := range []struct {
		grade, least Grade
		below        bool
	}{
		{GradeA, GradeA, false}, {GradeB, GradeA, true}, {GradeB, GradeB, false}, {Unproven, GradeB, true}, {GradeB, Unproven, false},
		{GradeC, Unproven, true}, {GradeU, GradeC, true}, {GradeC, GradeU, false}, {"", GradeU, true}, {"Z", GradeU, true},
	} {
		if c.grade.Below(c.least) != c.below {
			t.Errorf("%q below %q: %t", c.grade, c.least, !c.below)
		}
	}
}

// newProber is a prober with a session of the test's token, in which nobody is logged in yet.
func newProber(t *testing.T, profile Profile) *prober {
	t.Helper()
	m, err := cryptoki.Load(profile.Module, "", false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Finalize() })
	p := &prober{ctx: t.Context(), m: m, p: profile, template: derivedTemplate(profile.ValueLen)}
	if p.slot, _, err = find(m, Selector{Label: testLabel}); err != nil {
		t.Fatal(err)
	}
	if p.mechs, err = m.Mechanisms(p.slot); err != nil {
		t.Fatal(err)
	}
	if p.home, err = m.OpenSession(p.slot); err != nil {
		t.Fatal(err)
	}
	return p
}

// A weak ceremony: each attribute that protects a key is turned or left out,
// alone, and the full probe names it. TestWeaknessesTaken does what each weakness
// is good for.
//
// SoftHSM's RSA keys take long to make, so the import keys are of one pair from
// software, brought in with the attributes under test; what that changes by
// itself (CKA_LOCAL and the like) is the same in all. TestFullProbeGrades has
// keys that the token made.
func TestWeakCeremony(t *testing.T) {
	p := newProber(t, initialised(t))
	m := p.m

	type weakness struct {
		attribute string // that must be named
		acting    []cryptoki.Attribute
		sealing   cryptoki.Object
	}
	weaknesses := func(name KeyName) (all []weakness) {
		pl := p.passing(name)
		for _, a := range pl.acting {
			switch a.Type {
			case cryptoki.CKA_LABEL, cryptoki.CKA_ID, cryptoki.CKA_TOKEN, cryptoki.CKA_VALUE_LEN:
				continue // do not protect
			}
			all = append(all, weakness{attribute: a.Name(), acting: omitted(pl.acting, a.Type)})
			switch {
			case len(a.Value) == 1:
				all = append(all, weakness{attribute: a.Name(), acting: replace(pl.acting, cryptoki.Bool(a.Type, a.Value[0] == 0))})
			case a.Type == cryptoki.CKA_ALLOWED_MECHANISMS:
				more := cryptoki.Bytes(a.Type, slices.Concat(a.Value, cryptoki.Mechanisms(0, cryptoki.CKM_RSA_X_509, mechRSAPKCS, mechAESECB, mechAESKeyWrap).Value))
				all = append(all, weakness{attribute: a.Name(), acting: replace(pl.acting, more)})
			}
			for _, line := range a.Array {
				attribute := unwrapLine(line)
				all = append(all, weakness{attribute: attribute, acting: replace(pl.acting, cryptoki.Template(a.Type, omitted(a.Array, line.Type)))})
				if other, ok := turned(line); ok {
					all = append(all, weakness{attribute: attribute, acting: replace(pl.acting, cryptoki.Template(a.Type, replaced(a.Array, other)))})
				}
			}
		}
		return all
	}

	// The security officer makes the weak sealing keys.
	if err := p.as(Officer, pin(officerPIN)); err != nil {
		t.Fatal(err)
	}
	sealings := weaknesses(SealingKey(1))
	var err error
	for i, w := range sealings {
		if sealings[i].sealing, err = m.GenerateKey(p.home, cryptoki.Plain(cryptoki.CKM_AES_KEY_GEN), w.acting); err != nil {
			t.Logf("sealing key, %s: the token does not make it: %v", w.attribute, err)
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
	if err := p.ownPair(&pair.PublicKey); err != nil {
		t.Fatal(err)
	}
	imported := func(acting []cryptoki.Attribute) (cryptoki.Object, error) { return createImport(p, pair, acting) }

	broken := make(map[string]int) // key and attribute: attacks that succeeded
	named := make(map[string]bool)
	examine := func(t *testing.T, key string, w weakness, effective bool, run func()) {
		t.Helper()
		p.out = Assessment{}
		p.only = func(x Attack) bool {
			return x.Attribute == w.attribute || w.attribute == "CKA_UNWRAP_TEMPLATE" && strings.HasPrefix(x.Attribute, w.attribute)
		}
		run()
		if p.broken != nil {
			t.Fatal(p.broken)
		}
		p.out.conclude()
		found := slices.ContainsFunc(p.out.Findings, func(f Finding) bool {
			return f.Effect != ToKnow && (f.Attribute == w.attribute || w.attribute == "CKA_UNWRAP_TEMPLATE" && strings.HasPrefix(f.Attribute, w.attribute))
		})
		if found != effective {
			t.Errorf("named: %t, weak: %t: %+v", found, effective, p.out.Findings)
		}
		if effective {
			named[key+" "+w.attribute] = true
			broken[key+" "+w.attribute] += p.out.Count(Succeeded)
		}
	}
	// weak tells whether a key that was made is weaker than the plan: left out, an attribute may still be as it must.
	weak := func(t *testing.T, o cryptoki.Object, name KeyName, attribute string) bool {
		t.Helper()
		for _, want := range p.passing(name).acting {
			if first, _, _ := strings.Cut(attribute, " "); want.Name() == first {
				got, err := m.Read(p.home, o, want.Type)
				return err != nil || !got.Equal(want)
			}
		}
		t.Fatalf("%s is not in the plan", attribute)
		return false
	}
	for _, c := range []struct {
		custody Custody
		name    KeyName
	}{{Resident, ImportResident}, {Sealed, ImportSealed}} {
		for i, w := range weaknesses(c.name) {
			t.Run(fmt.Sprintf("%s/%s/%d", c.name, w.attribute, i), func(t *testing.T) {
				o, err := imported(w.acting)
				if err != nil {
					t.Logf("the token does not make it: %v", err)
					return
				}
				tr := &trial{custody: c.custody, importKey: c.name, imports: o, public: &pair.PublicKey}
				examine(t, string(c.name), w, weak(t, o, c.name, w.attribute), func() {
					p.laxHalf(c.custody, c.name, o, p.passing(c.name).acting)
					if !p.wrapped(tr) {
						t.Fatal("wrapping")
					}
					p.attackImport(tr)
				})
				_ = m.DestroyObject(p.home, o)
			})
		}
	}
	strictImport, err := imported(p.passing(ImportSealed).acting)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range sealings {
		t.Run(fmt.Sprintf("sealing key/%s/%d", w.attribute, i), func(t *testing.T) {
			if w.sealing == 0 {
				return
			}
			tr := &trial{custody: Sealed, importKey: ImportSealed, imports: strictImport, public: &pair.PublicKey, sealing: w.sealing}
			examine(t, "sealing key", w, weak(t, w.sealing, SealingKey(1), w.attribute), func() {
				p.laxHalf(Sealed, SealingKey(1), w.sealing, p.passing(SealingKey(1)).acting)
				// With a template that is not the strict one the key cannot be loaded; it can be sealed all the same.
				if !p.wrapped(tr) {
					t.Fatal("wrapping")
				}
				if p.bringIn(tr) || tr.sealed != nil {
					p.attackSealing(tr)
				}
			})
		})
	}

	// Every protective attribute of every key was weak at least once.
	for _, name := range []KeyName{ImportResident, ImportSealed, SealingKey(1)} {
		key := string(name)
		if name.sealing() {
			key = "sealing key"
		}
		for _, w := range weaknesses(name) {
			// To be private, a sealing key would have to be the user's, who cannot make it trusted: the token makes no such key.
			if !named[key+" "+w.attribute] && !(name.sealing() && w.attribute == "CKA_PRIVATE") {
				t.Errorf("%s: %s was never weak", key, w.attribute)
			}
		}
	}
	// Nothing stays, though attacks that make token objects succeeded.
	if left, err := m.Find(p.home, []cryptoki.Attribute{on(cryptoki.CKA_TOKEN)}); err != nil || len(left) > 0 {
		t.Errorf("%d token objects were left: %v", len(left), err)
	}
	var report []string
	for what, n := range broken {
		report = append(report, fmt.Sprintf("%s: %d", what, n))
	}
	slices.Sort(report)
	t.Log(strings.Join(report, "\n"))
}

// What a probe would leave is told: an object more, one changed, one less.
func TestSnapshot(t *testing.T) {
	token := open(t, initialised(t), User, 1)
	defer token.Close()
	p := &prober{ctx: t.Context(), m: token.module, slot: token.slot}
	snap := func() *snapshot {
		t.Helper()
		s, err := p.snapshot()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	h := newHost(t, token)
	empty := snap()
	o, err := h.m.CreateObject(h.s, append(stateTemplate(), cryptoki.Bytes(cryptoki.CKA_VALUE, []byte("one"))))
	if err != nil {
		t.Fatal(err)
	}
	one := snap()
	if left := empty.differs(one); len(left) != 1 || !strings.HasPrefix(left[0], "new or changed: object of class") || !strings.Contains(left[0], stateLabel) {
		t.Errorf("an object more: %q", left)
	}
	if left := one.differs(empty); len(left) != 1 || !strings.HasPrefix(left[0], "gone or changed") {
		t.Errorf("an object less: %q", left)
	}
	if err := h.set(o, cryptoki.Bytes(cryptoki.CKA_LABEL, []byte("two")))(); err != nil {
		t.Fatal(err)
	}
	if left := one.differs(snap()); len(left) != 2 {
		t.Errorf("an attribute changed: %q", left)
	}
	info := *one
	info.info.Flags ^= 1
	if left := one.differs(&info); len(left) != 1 || !strings.HasPrefix(left[0], "it said of itself") {
		t.Errorf("flags changed: %q", left)
	}
}
