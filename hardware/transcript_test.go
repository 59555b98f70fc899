package hardware

import (
	"errors"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

// A token that takes a bad point is refused, though its keys are in order.
func TestSound(t *testing.T) {
	found := pkcs11.Findings{Points: []pkcs11.PointFinding{{Point: "infinity", Refused: true}, {Point: "off the curve"}}}
	if err := sound(found); !errors.Is(err, ErrProbe) {
		t.Errorf("%v", err)
	}
	found.Points[1].Refused = true
	if err := sound(found); err != nil {
		t.Error(err)
	}
}

// What a transcript does not say, no start may rest on.
func TestTranscriptValidate(t *testing.T) {
	report := func(name pkcs11.KeyName) pkcs11.KeyReport {
		return pkcs11.KeyReport{Name: name, Attributes: []pkcs11.AttributeReport{{Name: "CKA_SIGN", Value: "false"}}}
	}
	good := func() *Transcript {
		return &Transcript{
			Header: policies.Header{Type: transcriptType, Suite: policies.Suite, ID: policies.DocumentID{1}, Time: 1},
			Vault:  policies.VaultID{1}, Profile: "softhsm", Token: pkcs11.Info{Serial: "1"},
			Keys: []pkcs11.KeyReport{report(pkcs11.ImportResident), report(pkcs11.LogKey), report(pkcs11.StoreKey)},
		}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Transcript){
		"type":          func(t *Transcript) { t.Type = "vault" },
		"suite":         func(t *Transcript) { t.Suite = "SP0" },
		"id":            func(t *Transcript) { t.ID = policies.DocumentID{} },
		"time":          func(t *Transcript) { t.Time = 0 },
		"vault":         func(t *Transcript) { t.Vault = policies.VaultID{} },
		"profile":       func(t *Transcript) { t.Profile = "" },
		"serial":        func(t *Transcript) { t.Token.Serial = "" },
		"no keys":       func(t *Transcript) { t.Keys = nil },
		"no log key":    func(t *Transcript) { t.Keys = t.Keys[:1] },
		"no attributes": func(t *Transcript) { t.Keys[0].Attributes = nil },
		"grade":         func(t *Transcript) { t.Probe = &ProbeSummary{Time: 1, Grade: "Z", Attacks: 1} },
		"no grade":      func(t *Transcript) { t.Probe = &ProbeSummary{Time: 1, Attacks: 1} },
		"grade unproved": func(t *Transcript) {
			t.Probe = &ProbeSummary{Time: 1, Grade: pkcs11.Unproven, Attacks: 1}
		},
		"probe without time": func(t *Transcript) { t.Probe = &ProbeSummary{Grade: pkcs11.GradeA, Attacks: 1} },
		"more refusals than attacks": func(t *Transcript) {
			t.Probe = &ProbeSummary{Time: 1, Grade: pkcs11.GradeA, Attacks: 1, Refused: 1, NotPossible: 1}
		},
		"a key twice": func(t *Transcript) { t.Keys = append(t.Keys, t.Keys[0]) },
	} {
		changed := good()
		change(changed)
		if err := changed.Validate(); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Of the two grades that are signed one after the other the worse counts.
func TestGrade(t *testing.T) {
	for i, c := range []struct{ published, found, want pkcs11.Grade }{
		{pkcs11.GradeA, pkcs11.GradeA, pkcs11.GradeA},
		{pkcs11.GradeA, pkcs11.GradeB, pkcs11.GradeB},
		{pkcs11.GradeC, pkcs11.GradeA, pkcs11.GradeC},
		{pkcs11.Unproven, pkcs11.GradeA, pkcs11.Unproven},
		{pkcs11.GradeA, pkcs11.Unproven, pkcs11.Unproven},
		{"Z", pkcs11.GradeU, "Z"},
	} {
		r := Record{Vault: &policies.VaultDocument{Tokens: []policies.TokenEntry{{Grade: string(c.published)}}}, Transcript: &Transcript{}}
		if c.found != pkcs11.Unproven {
			r.Transcript.Probe = &ProbeSummary{Grade: c.found}
		}
		if got := r.Grade(); got != c.want {
			t.Errorf("%d: %s", i, got)
		}
	}
}

func FuzzTranscript(f *testing.F) {
	seed, err := json.Marshal(&Transcript{Version: 2, Probe: &ProbeSummary{Time: 1, Grade: pkcs11.GradeB, Attacks: 3, Refused: 2,
		Findings: []pkcs11.Finding{{Effect: pkcs11.Untried, Custody: pkcs11.Sealed, Says: "x"}}}, Header: policies.Header{Type: transcriptType, Suite: policies.Suite, ID: policies.DocumentID{1}, Time: 1},
		Keys: []pkcs11.KeyReport{{Name: pkcs11.LogKey, Attributes: []pkcs11.AttributeReport{{Name: "x", Array: []pkcs11.AttributeReport{{Name: "y"}}}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"type":"transcript","type":"transcript"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		var d Transcript
		if err := envelope.Decode(payload, &d); err != nil {
			return
		}
		if d.Validate() != nil {
			return
		}
		if p, err := d.publishes(); err != nil && !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%v", err)
		} else if err == nil {
			_, _ = p.offer([]policies.Custody{policies.CustodyResident, policies.CustodySealed})
		}
		if g := d.grade(); !g.Known() {
			t.Errorf("grade %q", g)
		}
		_ = d.compare(pkcs11.Findings{Token: d.Token, Keys: d.Keys})
	})
}
