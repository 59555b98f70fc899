package names

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

func TestCheck(t *testing.T) {
	for name, want := range map[string]string{
		"Acme Versand":        "",
		"Müller & Söhne GmbH": "",
		"Ärzte-Haus 7":        "",
		"Αθήνα 2004":          "",
		"Почта России":        "",
		"東京ガス Tokyo":          "",
		"現代자동차 Hyundai":       "",
		"שלום":                "",
		"4711":                "has a letter",
		"ǃǃ ǃ":                "look like punctuation", // clicks of Khoisan languages
		"":                    "has a letter",
		"Аcme":                "Cyrillic and Latin", // the first letter is Cyrillic
		"Acme Αθήνα":          "Greek and Latin",
		"Почта 東京":            "Cyrillic and Han",
		"東京 현대 Tokyo ひ":       "Hangul",
		"Ac\u00adme":          "nobody sees",
		"Ac\u200cme":          "nobody sees",
		"Ac\u2060me":          "nobody sees",
		"Acme\ufe0f":          "nobody sees",
		"Acme ":               "single spaces",
		"Acme  Versand":       "single spaces",
		"Acme\u00a0Versand":   "single spaces",
		"Mu\u0308ller":        "NFC",
	} {
		err := Check(name)
		if want == "" && err != nil || want != "" && (!errors.Is(err, policies.ErrMalformed) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}

func TestAlike(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"Acme Versand", "Acme Versand", true},
		{"Acme Versand", "ACME VERSAND", true},
		{"Acme Versand", "AcmeVersand", true},
		{"Acme Versand", "Acme-Versand.", true},
		{"Acme", "Аcmе", true},      // two letters are Cyrillic
		{"ACME", "АСМЕ", true},      // all of them
		{"PayPal", "PayPaI", true},  // the last letter is a capital i
		{"PayPal", "paypa1", true},  // the digit one
		{"AIG", "aig", true},        // a capital i is an i too
		{"Morgan", "Rnorgan", true}, // r and n for m: told by the eye, not by the letter
		{"modern", "rnodern", true},
		{"Google", "G00gle", true},
		{"Acme", "Acm\u200ce", true},
		{"Acme", "ᎪᏟme", true}, // Cherokee
		{"Straße 1", "Strasse 1", false},
		{"Müller", "Muller", false}, // an accent is seen
		{"Acme", "Acne", false},
		{"Acme Versand", "Acme Versand Berlin", false},
		{"Bank", "Tank", false},
		{"", "", false},
		{"...", "!!!", false},
	} {
		if got := Alike(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: %v (%q, %q)", c.a, c.b, got, Keys(c.a), Keys(c.b))
		}
		if Alike(c.a, c.b) != Alike(c.b, c.a) {
			t.Errorf("%q and %q are alike one way", c.a, c.b)
		}
	}
}

func TestCheckDomain(t *testing.T) {
	for domain, ok := range map[string]bool{
		"acme.example": true, "shop.acme.co.uk": true, "xn--mller-kva.example": true, "a-1.example": true,
		"": false, "localhost": false, "ACME.example": false, "acme.example.": false, "acme..example": false, "-a.example": false, "a-.example": false, "127.0.0.1": false,
		"1.2.3": false, "a.1": false, "[::1]": false, "acme.example:443": false, "user@acme.example": false, "acme.example/x": false, "müller.example": false, "a b.example": false,
		strings.Repeat("a", 64) + ".example": false, strings.Repeat("a.", 130) + "example": false,
	} {
		if err := CheckDomain(domain); (err == nil) != ok {
			t.Errorf("%q: %v", domain, err)
		}
	}
}

var now = time.Unix(1_800_000_000, 0)

func ceremony(b byte) *envelope.PrivateKey {
	return envelope.NewPrivateKey(&[envelope.SeedSize]byte{b})
}

func voucher() *Voucher {
	return &Voucher{
		Header: policies.NewHeader("voucher", now), Audience: policies.VaultID{9}, Identity: policies.IdentityID{1}, Serial: 7, Name: "Acme Versand",
		NotBefore: now.Unix(), Expires: now.Unix() + 90*86400,
	}
}

func statement() *Statement {
	return &Statement{Header: policies.NewHeader("domain-statement", now), Identity: policies.IdentityID{1}, Domain: "acme.example", Expires: now.Unix() + 90*86400}
}

func TestVoucher(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*Voucher)
		ok     bool
	}{
		"good":                   {func(*Voucher) {}, true},
		"400 days":               {func(d *Voucher) { d.Expires = d.NotBefore + MaxVoucher }, true},
		"a second longer":        {func(d *Voucher) { d.Expires = d.NotBefore + MaxVoucher + 1 }, false},
		"it ends at once":        {func(d *Voucher) { d.Expires = d.NotBefore }, false},
		"withdrawn":              {func(d *Voucher) { d.NotBefore, d.Expires, d.Withdrawn = 0, 0, true }, true},
		"withdrawn and good":     {func(d *Voucher) { d.Withdrawn = true }, false},
		"two alphabets":          {func(d *Voucher) { d.Name = "Аcme" }, false},
		"no name":                {func(d *Voucher) { d.Name = "" }, false},
		"a name with a control":  {func(d *Voucher) { d.Name = "Ac\u202eme" }, false},
		"no serial number":       {func(d *Voucher) { d.Serial = 0 }, false},
		"nobody's":               {func(d *Voucher) { d.Identity = policies.IdentityID{} }, false},
		"another type of header": {func(d *Voucher) { d.Type = "vouchers" }, false},
	} {
		d := voucher()
		c.change(d)
		if err := d.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: %v", what, err)
		}
	}
	d := voucher()
	for at, want := range map[int64]bool{d.NotBefore - 61: false, d.NotBefore - 60: true, d.Expires - 1: true, d.Expires: false} {
		if d.In(at) != want {
			t.Errorf("good at %d: %v", at-d.NotBefore, !want)
		}
	}
}

// TestOpenVoucher: only the ceremony key vouches, for its own vault.
func TestOpenVoucher(t *testing.T) {
	vault := &policies.VaultDocument{Vault: policies.VaultID{9}, CeremonyKey: ceremony(1).Public().Bytes()}
	good, err := policies.Sign(ceremony(1), voucher())
	if err != nil {
		t.Fatal(err)
	}
	if d, err := OpenVoucher(good, vault); err != nil || d.Name != "Acme Versand" {
		t.Errorf("%+v, %v", d, err)
	}
	forged, _ := policies.Sign(ceremony(2), voucher())
	if _, err := OpenVoucher(forged, vault); !errors.Is(err, policies.CodeVoucher) {
		t.Errorf("of another key: %v", err)
	}
	other := voucher()
	other.Audience = policies.VaultID{8}
	elsewhere, _ := policies.Sign(ceremony(1), other)
	if _, err := OpenVoucher(elsewhere, vault); !errors.Is(err, policies.CodeWrongVault) {
		t.Errorf("for another vault: %v", err)
	}
}

func TestStatement(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*Statement)
		ok     bool
	}{
		"good":            {func(*Statement) {}, true},
		"nobody's":        {func(d *Statement) { d.Identity = policies.IdentityID{} }, false},
		"over":            {func(d *Statement) { d.Expires = d.Time }, false},
		"too long":        {func(d *Statement) { d.Expires = d.Time + MaxStatement + 1 }, false},
		"of an address":   {func(d *Statement) { d.Domain = "10.0.0.1" }, false},
		"of another type": {func(d *Statement) { d.Type = "voucher" }, false},
	} {
		d := statement()
		c.change(d)
		if err := d.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func file(t testing.TB, n int) []byte {
	e, err := policies.Sign(ceremony(1), statement())
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(File{slices.Repeat([]jsontext.Value{e.Raw}, n)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseFile(t *testing.T) {
	for n, ok := range map[int]bool{0: false, 1: true, 16: true, 17: false} {
		if list, err := ParseFile(file(t, n)); (err == nil) != ok || ok && len(list) != n {
			t.Errorf("%d statements: %d, %v", n, len(list), err)
		}
	}
	for _, bad := range []string{"", "{}", `{"statements":[1]}`, `{"statements":[],"more":1}`, strings.Repeat(" ", MaxFile+1)} {
		if _, err := ParseFile([]byte(bad)); err == nil {
			t.Errorf("taken: %.40q", bad)
		}
	}
}

func FuzzDocuments(f *testing.F) {
	for _, d := range []interface {
		envelope.Document
		Validate() error
	}{voucher(), statement()} {
		e, err := envelope.Seal(ceremony(1), d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(e.Raw)
	}
	f.Add(file(f, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		if list, err := ParseFile(data); err == nil && (len(list) == 0 || len(list) > 16 || len(data) > MaxFile) {
			t.Errorf("%d statements in %d bytes", len(list), len(data))
		}
		e, err := envelope.Parse(data)
		if err != nil {
			return
		}
		if d, err := policies.Decode[Voucher](e); err == nil && !d.Withdrawn && (Check(d.Name) != nil || d.Expires-d.NotBefore > MaxVoucher) {
			t.Errorf("a voucher for %q over %d s", d.Name, d.Expires-d.NotBefore)
		}
		if d, err := policies.Decode[Statement](e); err == nil && (strings.ContainsAny(d.Domain, "/:@ ?#[]%") || d.Expires <= d.Time) {
			t.Errorf("a statement for %q", d.Domain)
		}
	})
}

// FuzzAlike: looking alike is the same both ways, and a name that may be verified looks like itself.
func FuzzAlike(f *testing.F) {
	f.Add("Acme", "Аcmе")
	f.Add("PayPal", "PayPaI")
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(a) > 200 || len(b) > 200 {
			return
		}
		if Alike(a, b) != Alike(b, a) {
			t.Errorf("%q and %q are alike one way", a, b)
		}
		if Check(a) == nil && !Alike(a, a) {
			t.Errorf("%q does not look like itself", a)
		}
	})
}
