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
		"a key twice":   func(t *Transcript) { t.Keys = append(t.Keys, t.Keys[0]) },
	} {
		changed := good()
		change(changed)
		if err := changed.Validate(); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzTranscript(f *testing.F) {
	seed, err := json.Marshal(&Transcript{Header: policies.Header{Type: transcriptType, Suite: policies.Suite, ID: policies.DocumentID{1}, Time: 1},
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
		if _, err := d.publishes(); err != nil && !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%v", err)
		}
	})
}
