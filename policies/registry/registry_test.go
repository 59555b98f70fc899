package registry

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	"github.com/sallyport/sallyport/policies/envelope"
)

var (
	now      = time.Unix(1_800_000_000, 0)
	employer = policies.IdentityID{1}
	bank     = policies.IdentityID{2}
	zoe      = policies.IdentityID{3}
	other    = policies.IdentityID{4}
)

func header(docType string) policies.Header {
	return policies.Header{Type: docType, Suite: policies.Suite, ID: policies.DocumentID{9}, Time: now.Unix()}
}

func registration() *Registration {
	return &Registration{Header: header("registration"), Identity: employer, Version: 1, Lookup: Introduced}
}

func introduction() *Introduction {
	return &Introduction{
		Addressed: consent.Addressed{Header: header("introduction"), From: zoe, To: bank, Expires: now.Add(time.Hour).Unix()},
		Subject:   employer, Purpose: "a loan", Nonce: policies.Nonce{1},
	}
}

// TestForms: as they are made both documents pass, strict JSON and back; spoilt in any one place they are refused.
func TestForms(t *testing.T) {
	for name, spoil := range map[string]func(*Registration){
		"another type": func(d *Registration) { d.Type = "letter" }, "no id": func(d *Registration) { d.ID = policies.DocumentID{} },
		"nobody": func(d *Registration) { d.Identity = policies.IdentityID{} }, "version 0": func(d *Registration) { d.Version = 0 },
		"no rule": func(d *Registration) { d.Lookup = "" }, "a rule that is none": func(d *Registration) { d.Lookup = "friends" },
	} {
		d := registration()
		if err := d.Validate(); err != nil {
			t.Fatal(err)
		}
		if spoil(d); !errors.Is(d.Validate(), policies.ErrMalformed) {
			t.Errorf("registration, %s: accepted", name)
		}
	}
	for name, spoil := range map[string]func(*Introduction){
		"another type": func(d *Introduction) { d.Type = "letter" }, "from nobody": func(d *Introduction) { d.From = policies.IdentityID{} },
		"to oneself": func(d *Introduction) { d.To = d.From }, "of nobody": func(d *Introduction) { d.Subject = policies.IdentityID{} },
		"to whom it introduces": func(d *Introduction) { d.Subject = d.To }, "no purpose": func(d *Introduction) { d.Purpose = "" },
		"a long purpose": func(d *Introduction) { d.Purpose = strings.Repeat("x", 201) }, "no nonce": func(d *Introduction) { d.Nonce = policies.Nonce{} },
		"answers something": func(d *Introduction) { d.Answers = policies.Hash{1} }, "over at once": func(d *Introduction) { d.Expires = d.Time },
		"lasts long": func(d *Introduction) { d.Expires = d.Time + int64(Lifetime/time.Second) + 1 },
	} {
		d := introduction()
		if err := d.Validate(); err != nil {
			t.Fatal(err)
		}
		if spoil(d); !errors.Is(d.Validate(), policies.ErrMalformed) {
			t.Errorf("introduction, %s: accepted", name)
		}
	}
	for _, d := range []any{registration(), introduction()} {
		back := reflect.New(reflect.TypeOf(d).Elem()).Interface()
		data, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := envelope.Decode(data, back); err != nil || !reflect.DeepEqual(back, d) {
			t.Errorf("%T came back as %+v, %v", d, back, err)
		}
	}
}

func TestCheck(t *testing.T) {
	self := func(d *Introduction) { d.From = d.Subject }
	for _, c := range []struct {
		name     string
		spoil    func(*Introduction)
		subject  policies.IdentityID
		by       policies.IdentityID
		customer bool
		at       time.Time
		want     error
	}{
		{"by a customer", nil, employer, bank, true, now, nil},
		{"by itself", self, employer, bank, false, now, nil},
		{"by a stranger", nil, employer, bank, false, now, policies.CodeIntroducer},
		{"shown by another", nil, employer, other, true, now, policies.CodeNotIntroduced},
		{"of another", nil, other, bank, true, now, policies.CodeNotIntroduced},
		{"at its end", nil, employer, bank, true, now.Add(time.Hour), policies.CodeIntroductionExpired},
	} {
		d := introduction()
		if c.spoil != nil {
			c.spoil(d)
		}
		if err := d.Check(c.subject, c.by, c.customer, c.at); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func FuzzDocuments(f *testing.F) {
	key := envelope.NewSessionKey()
	for _, d := range []envelope.Document{registration(), introduction()} {
		e, err := envelope.Seal(key, d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(e.Raw)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := envelope.Parse(data)
		if err != nil {
			return
		}
		if d, err := policies.Decode[Registration](e); err == nil && (d.Version == 0 || d.Identity.IsZero()) {
			t.Errorf("a registration: %+v", d)
		}
		if d, err := policies.Decode[Introduction](e); err == nil {
			if d.Check(d.Subject, d.To, false, time.Unix(d.Time, 0)) == nil && d.From != d.Subject {
				t.Errorf("a stranger introduces: %+v", d)
			}
			if d.Check(d.Subject, d.To, true, time.Unix(d.Expires, 0)) == nil {
				t.Errorf("over, and accepted: %+v", d)
			}
		}
	})
}
