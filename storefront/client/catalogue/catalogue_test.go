package catalogue

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-vcard"

	"github.com/sallyport/sallyport/policies"
)

const card = "BEGIN:VCARD\r\n" +
	"VERSION:4.0\r\n" +
	"FN:Dr. Åsa Øygard\\, née Łukasiewicz\r\n" +
	"N:Øygard;Åsa;Maria,Lena;Dr.;\r\n" +
	"NICKNAME:Asi,Oy\\, oy\r\n" +
	"TEL;TYPE=cell;PREF=2:+47 900 00 002\r\n" +
	"TEL;TYPE=cell;PREF=1:+47 900 00 001\r\n" +
	"TEL;TYPE=\"work,voice\":+47 22 00 00 00\r\n" +
	"TEL;VALUE=uri;TYPE=home:tel:+47-22-11-11-11;ext=5\r\n" +
	"item1.EMAIL;TYPE=home:åsa@example.org\r\n" +
	"item1.X-ABLABEL:Post\\, privat\r\n" +
	"ADR;TYPE=home;LABEL=\"Storgata 1^n0155 Oslo\":;;Storgata 1,Oppgang B\\; 3. etasje,\r\n" +
	"  c/o Ødegård ved den lange veien som aldri tar slutt;Oslo;;0155;Norge\r\n" +
	"BDAY:19850412\r\n" +
	"ORG:ACME\\; Inc.;Nord;Salg\r\n" +
	"NOTE:linje en\\nlinje to \\\\ slutt\r\n" +
	"PHOTO:data:image/png;base64,iVBORw0KGgo=\r\n" +
	"X-FAVOURITE-COLOUR:blå;grønn\r\n" +
	"END:VCARD\r\n"

func TestImport(t *testing.T) {
	values, err := Import([]byte(card))
	if err != nil {
		t.Fatal(err)
	}
	for f, want := range map[policies.Field]string{
		"name.full":                "Dr. Åsa Øygard, née Łukasiewicz",
		"name":                     "family=Øygard\ngiven=Åsa\nadditional=Maria\nadditional=Lena\nprefix=Dr.",
		"name.nick":                "Asi\nOy, oy",
		"phone.mobile":             "+47 900 00 001",
		"phone.mobile.2":           "+47 900 00 002",
		"phone.work":               "+47 22 00 00 00",
		"phone.home":               "tel:+47-22-11-11-11;ext=5",
		"email.home":               "åsa@example.org",
		"vcard/x-ablabel":          "Post\\, privat",
		"address.home":             "street=Storgata 1\nstreet=Oppgang B; 3. etasje\nstreet= c/o Ødegård ved den lange veien som aldri tar slutt\nlocality=Oslo\ncode=0155\ncountry=Norge",
		"birthday":                 "19850412",
		"organization":             "ACME; Inc.\nNord\nSalg",
		"note":                     "linje en\nlinje to \\ slutt",
		"photo":                    "data:image/png;base64,iVBORw0KGgo=",
		"vcard/x-favourite-colour": "blå;grønn",
	} {
		v := values[f]
		if v == nil {
			t.Errorf("%s is missing", f)
			continue
		}
		if v.String() != want {
			t.Errorf("%s is %q, want %q", f, v, want)
		}
		delete(values, f)
	}
	if len(values) != 0 {
		t.Errorf("left over: %v", slices.Collect(maps.Keys(values)))
	}
}

func TestRoundTrip(t *testing.T) {
	values, err := Import([]byte(card))
	if err != nil {
		t.Fatal(err)
	}
	// As it goes through items: encoded and parsed.
	for f, v := range values {
		b, err := v.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if values[f], err = Parse(b); err != nil {
			t.Fatal(err)
		}
	}
	out, omitted := Export(values)
	if len(omitted) != 0 {
		t.Errorf("omitted %v", omitted)
	}
	for line := range bytes.Lines(out) {
		if len(line) > maxLine+2 || !bytes.HasSuffix(line, []byte("\r\n")) {
			t.Errorf("not folded at %d bytes: %q", maxLine, line)
		}
	}
	again, err := Import(out)
	if err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	if !reflect.DeepEqual(values, again) {
		for f := range values {
			if !reflect.DeepEqual(values[f], again[f]) {
				t.Errorf("%s: %+v became %+v", f, values[f], again[f])
			}
		}
	}
	// Another program reads it too.
	theirs, err := vcard.NewDecoder(bytes.NewReader(out)).Decode()
	if err != nil {
		t.Fatal(err)
	}
	if got := theirs.Values("TEL"); len(got) != 4 || got[0] != "+47 900 00 001" {
		t.Errorf("another decoder sees the phones %q", got)
	}
	if got := theirs.Value("FN"); got != "Dr. Åsa Øygard, née Łukasiewicz" {
		t.Errorf("another decoder sees the name %q", got)
	}
	// Not the address: go-vcard takes an escaped ';' for the end of a component, which is why Import does not use it.
	if got := theirs.Name(); got == nil || got.FamilyName != "Øygard" || got.GivenName != "Åsa" || got.HonorificPrefix != "Dr." {
		t.Errorf("another decoder sees the name in parts %+v", got)
	}
}

func TestVersion3(t *testing.T) {
	values, err := Import([]byte("BEGIN:VCARD\nVERSION:3.0\nFN:A B\nN:B;A;;;\nTEL;TYPE=HOME,pref:1\nTEL;CELL:2\nPHOTO;ENCODING=b;TYPE=JPEG:/9j/\nEMAIL;TYPE=INTERNET:a@b\nEND:VCARD"))
	if err != nil {
		t.Fatal(err)
	}
	for f, want := range map[policies.Field]string{
		"phone.home": "1", "phone.mobile": "2", "photo": "data:image/jpeg;base64,/9j/", "email.other": "a@b", "name": "family=B\ngiven=A",
	} {
		if values[f] == nil || values[f].String() != want {
			t.Errorf("%s is %v, want %q", f, values[f], want)
		}
	}
	out, _ := Export(values)
	if !bytes.Contains(out, []byte("TEL;PREF=1;TYPE=HOME:1\r\n")) {
		t.Errorf("exported\n%s", out)
	}
}

func TestCardsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty":         "",
		"no begin":      "FN:A\nEND:VCARD\n",
		"no end":        "BEGIN:VCARD\nVERSION:4.0\nFN:A\n",
		"two":           "BEGIN:VCARD\nVERSION:4.0\nEND:VCARD\nBEGIN:VCARD\nVERSION:4.0\nEND:VCARD\n",
		"nested":        "BEGIN:VCARD\nVERSION:4.0\nBEGIN:VCARD\nEND:VCARD\nEND:VCARD\n",
		"version 2.1":   "BEGIN:VCARD\nVERSION:2.1\nFN:A\nEND:VCARD\n",
		"no version":    "BEGIN:VCARD\nFN:A\nEND:VCARD\n",
		"not UTF-8":     "BEGIN:VCARD\nVERSION:4.0\nFN:\xff\nEND:VCARD\n",
		"no colon":      "BEGIN:VCARD\nVERSION:4.0\nFN\nEND:VCARD\n",
		"bad name":      "BEGIN:VCARD\nVERSION:4.0\nF N:a\nEND:VCARD\n",
		"open quote":    "BEGIN:VCARD\nVERSION:4.0\nTEL;TYPE=\"a:1\nEND:VCARD\n",
		"after the end": "BEGIN:VCARD\nVERSION:4.0\nEND:VCARD\nFN:A\n",
		"a long name":   "BEGIN:VCARD\nVERSION:4.0\nX-" + strings.Repeat("A", 80) + ":1\nEND:VCARD\n",
	} {
		if v, err := Import([]byte(text)); !errors.Is(err, ErrCard) {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
}

func TestExport(t *testing.T) {
	mk := func(f policies.Field, text string) *Value {
		v, err := New(f, text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	out, omitted := Export(map[policies.Field]*Value{
		"bank.iban": mk("bank.iban", "DE02120300000000202051"), "own/cat": mk("own/cat", "Miez"), "name": mk("name", "family=B\ngiven=A"),
		"phone.mobile": mk("phone.mobile", "1\r\nEND:VCARD"), "url.home": mk("url.home", "https://a\r\nX:1"),
	})
	if fmt.Sprint(omitted) != "[bank.iban own/cat]" {
		t.Errorf("omitted %v", omitted)
	}
	if want := "BEGIN:VCARD\r\nVERSION:4.0\r\nFN:A B\r\nN:B;A;;;\r\nTEL;TYPE=cell:1\\nEND:VCARD\r\nURL;TYPE=home:https://aX:1\r\nEND:VCARD\r\n"; string(out) != want {
		t.Errorf("exported\n%q, want\n%q", out, want)
	}
}

func TestNames(t *testing.T) {
	for _, f := range []policies.Field{"phone.mobile", "phone.mobile.2", "phone.mobile.17", "own/a", "own/a.b/c", "vcard/x-y", "name"} {
		if err := Check(f); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
	for _, f := range []policies.Field{"phone.mobil", "phone.mobile.1", "phone.mobile.02", "phone.mobile.-2", "own/", "vcard/", "owned", "contact"} {
		if err := Check(f); !errors.Is(err, ErrUnknownField) {
			t.Errorf("%s: %v", f, err)
		}
	}
	if err := Check("Phone"); !errors.Is(err, policies.ErrMalformed) {
		t.Errorf("upper case: %v", err)
	}
	have := []policies.Field{"phone.mobile", "phone.mobile.2", "address.home", "birthday", "own/x"}
	got, err := Expand([]string{"contact", "own/x", "phone.mobile"}, have)
	if err != nil || fmt.Sprint(got) != "[own/x phone.mobile phone.mobile.2]" {
		t.Errorf("expanded to %v, %v", got, err)
	}
	if _, err := Expand([]string{"payment"}, have); !errors.Is(err, ErrUnknownField) {
		t.Errorf("an empty group: %v", err)
	}
	seen := map[policies.Field]bool{}
	for _, e := range Entries() {
		if seen[e.Name] || e.Name.Validate() != nil || e.Since < 1 || e.Since > Version || (e.Type == Parts) != (len(e.Parts) > 0) || Base(e.Name) != e.Name {
			t.Errorf("the row of %q is not right", e.Name)
		}
		seen[e.Name] = true
	}
	for _, g := range Groups() {
		if err := Check(policies.Field(g)); err == nil {
			t.Errorf("%q is a group and a field", g)
		}
	}
}

func TestValues(t *testing.T) {
	v, err := New("address.home", "street=Main Street 1\nlocality=Town\ncode=123")
	if err != nil || v.Parts["locality"][0] != "Town" {
		t.Errorf("%+v, %v", v, err)
	}
	if again, err := New("address.home", v.String()); err != nil || !reflect.DeepEqual(v, again) {
		t.Errorf("from its own text: %+v, %v", again, err)
	}
	if v, err := New("address.home", "Main Street 1, Town"); err != nil || v.Parts["street"][0] != "Main Street 1, Town" {
		t.Errorf("one line: %+v, %v", v, err)
	}
	if _, err := New("address.home", "stret=Main Street 1"); err == nil {
		t.Error("a part that does not exist was accepted")
	}
	if _, err := New("note", "\xff"); err == nil {
		t.Error("bytes that are no text were accepted")
	}
	for _, bad := range []string{
		``, `{}`, `{"v":2,"type":"text"}`, `{"v":1,"type":"blob"}`, `{"v":1,"type":"text","x":1}`, `{"v":1,"type":"text","text":"a","list":["b"]}`,
		`{"v":1,"type":"list","text":"a"}`, `{"v":1,"type":"parts","parts":{"A":["b"]}}`, `{"v":1,"type":"text","text":"a"} ` + "x", `{"v":1,"v":1,"type":"text"}`,
	} {
		if v, err := Parse([]byte(bad)); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: %+v, %v", bad, v, err)
		}
	}
	if _, err := (&Value{Format: 1, Type: Text, Text: strings.Repeat("a", policies.MaxValue)}).Bytes(); !errors.Is(err, policies.CodeTooLarge) {
		t.Errorf("a value above 1 MiB: %v", err)
	}
}

func FuzzImport(f *testing.F) {
	f.Add([]byte(card))
	f.Add([]byte("BEGIN:VCARD\nVERSION:3.0\nTEL;HOME;PREF:1\nEND:VCARD"))
	f.Add([]byte("BEGIN:VCARD\nVERSION:4.0\nTEL;TYPE=\"0^',^n^^\":1\nX-A:\x00\nEND:VCARD"))
	f.Add([]byte("BEGIN:VCARD\nVERSION:4.0\na.b;c=\"d\",e;f=g^n^^^':h\\\n END:VCARD\nEND:VCARD"))
	f.Fuzz(func(t *testing.T, data []byte) {
		values, err := Import(data)
		if err != nil {
			return
		}
		for f, v := range values {
			b, err := v.Bytes()
			if errors.Is(err, policies.CodeTooLarge) {
				return
			}
			if err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			if back, err := Parse(b); err != nil || back.String() != v.String() {
				t.Fatalf("%s: %+v became %+v, %v", f, v, back, err)
			}
		}
		// What is exported is a card again, with the same fields, and exporting that changes nothing.
		once, _ := Export(values)
		again, err := Import(once)
		if err != nil {
			t.Fatalf("%v in %q", err, once)
		}
		twice, _ := Export(again)
		if !bytes.Equal(once, twice) {
			t.Fatalf("exported %q, then %q", once, twice)
		}
	})
}

func FuzzParseValue(f *testing.F) {
	f.Add([]byte(`{"v":1,"type":"text","text":"a"}`))
	f.Add([]byte(`{"v":1,"type":"parts","parts":{"street":["a","b"]},"vcard":{"params":{"TYPE":["home"]}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Parse(data)
		if err != nil {
			return
		}
		b, err := v.Bytes()
		if errors.Is(err, policies.CodeTooLarge) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Parse(b); err != nil || again.String() != v.String() {
			t.Fatalf("%+v became %+v, %v", v, again, err)
		}
	})
}

// TestMistyped: what a person mistypes in a date or an account number is refused, and what is right is kept as machines write it.
func TestMistyped(t *testing.T) {
	for _, c := range []struct {
		field      policies.Field
		text, want string
		err        error
	}{
		{"birthday", "1985-04-12", "1985-04-12", nil},
		{"birthday", "19850412", "19850412", nil},
		{"birthday", "--0229", "--0229", nil},
		{"birthday", "--04-12", "--04-12", nil},
		{"anniversary", "2004-02", "2004-02", nil},
		{"birthday", "1985", "1985", nil},
		{"birthday", "1980-13-41", "", ErrDate},
		{"birthday", "2023-02-29", "", ErrDate},
		{"birthday", "12.4.1985", "", ErrDate},
		{"birthday", "19850412 ", "", ErrDate},
		{"bank.iban", "de02 1203 0000 0000 2020 51", "DE02120300000000202051", nil},
		{"bank.iban", "GB29NWBK60161331926819", "GB29NWBK60161331926819", nil},
		{"bank.iban", "NO9386011117947", "NO9386011117947", nil},
		{"bank.iban", "DE02120300000000202015", "", ErrIBAN},
		{"bank.iban", "DE00123", "", ErrIBAN},
		{"bank.iban", "0212030000000020205100", "", ErrIBAN},
		{"bank.iban", "DE02-1203-0000-0000-2020-51", "", ErrIBAN},
		{"bank.iban", "DE02120300000000202051DE02120300000000202051", "", ErrIBAN},
		{"own/iban", "DE00123", "DE00123", nil},
	} {
		v, err := New(c.field, c.text)
		if !errors.Is(err, c.err) {
			t.Errorf("%s %q: %v, want %v", c.field, c.text, err, c.err)
		} else if err == nil && v.Text != c.want {
			t.Errorf("%s %q is kept as %q, want %q", c.field, c.text, v.Text, c.want)
		}
		if err != nil && (!errors.Is(err, policies.ErrMalformed) || c.text != "" && strings.Contains(err.Error(), c.text)) {
			t.Errorf("%s: the error says %q", c.field, err)
		}
	}
}
