package pkcs11uri

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// The examples of RFC 7512, section 3, without those that hold a PIN or a vendor's attribute.
func TestParseExamplesOfTheRFC(t *testing.T) {
	for _, c := range []struct {
		in   string
		want URI
	}{
		{"pkcs11:", URI{}},
		{"pkcs11:object=my-pubkey;type=public", URI{Object: "my-pubkey", Type: "public"}},
		{"pkcs11:object=my-key;type=private?pin-source=file:/etc/token", URI{Object: "my-key", Type: "private", PINSource: "file:/etc/token"}},
		{"pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;object=my-certificate;type=cert;" +
			"id=%69%95%3E%5C%F4%BD%EC%91;serial=?pin-source=file:/etc/token_pin",
			URI{Token: "The Software PKCS#11 Softtoken", Manufacturer: "Snake Oil, Inc.", Model: "1.0", Object: "my-certificate", Type: "cert",
				ID: "\x69\x95\x3e\x5c\xf4\xbd\xec\x91", PINSource: "file:/etc/token_pin", empty: 1 << 2}},
		{"pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;object=my-certificate;type=cert;" +
			"id=%69%95%3E%5C%F4%BD%EC%91?pin-source=file:/etc/token_pin",
			URI{Token: "The Software PKCS#11 Softtoken", Manufacturer: "Snake Oil, Inc.", Model: "1.0", Object: "my-certificate", Type: "cert",
				ID: "\x69\x95\x3e\x5c\xf4\xbd\xec\x91", PINSource: "file:/etc/token_pin"}},
		{"pkcs11:slot-description=Sun%20Metaslot", URI{SlotDescription: "Sun Metaslot"}},
		{"pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token%20Library;library-version=1.23",
			URI{LibraryManufacturer: "Snake Oil, Inc.", LibraryDescription: "Soft Token Library", LibraryVersion: "1.23"}},
		{"pkcs11:object=my-sign-key;type=private?module-name=mypkcs11", URI{Object: "my-sign-key", Type: "private", ModuleName: "mypkcs11"}},
		{"pkcs11:object=my-sign-key;type=private?module-path=/mnt/libmypkcs11.so.1", URI{Object: "my-sign-key", Type: "private", ModulePath: "/mnt/libmypkcs11.so.1"}},
		{"pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.?pin-source=|/usr/lib/pinomatic",
			URI{Token: "Software PKCS#11 softtoken", Manufacturer: "Snake Oil, Inc.", PINSource: "|/usr/lib/pinomatic"}},
		{"pkcs11:token=my%25%20token%20with%20a%20percent;object=%C3%BC", URI{Token: "my% token with a percent", Object: "ü"}},
		{"PKCS11:slot-id=7;token=a&b?module-path=a%26b", URI{SlotID: "7", Token: "a&b", ModulePath: "a&b"}},
		{"pkcs11:token=a=b:[c]@!$'()*+,?pin-source=/a?b|c", URI{Token: "a=b:[c]@!$'()*+,", PINSource: "/a?b|c"}},
	} {
		got, err := Parse(c.in)
		if err != nil || *got != c.want {
			t.Errorf("%s: %+v, %v", c.in, got, err)
			continue
		}
		again, err := Parse(got.String())
		if err != nil || *again != c.want {
			t.Errorf("%s is written as %s, which reads %+v, %v", c.in, got, again, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"nothing":                  "",
		"another scheme":           "pkcs12:token=a",
		"no colon":                 "pkcs11",
		"twice":                    "pkcs11:token=a;token=a",
		"twice, behind":            "pkcs11:?pin-source=/a&pin-source=/b",
		"unknown":                  "pkcs11:tokn=a",
		"a vendor's":               "pkcs11:x-muppet=a",
		"in capitals":              "pkcs11:Token=a",
		"without a value":          "pkcs11:token",
		"empty number":             "pkcs11:slot-id=",
		"empty version":            "pkcs11:library-version=",
		"empty type":               "pkcs11:type=",
		"empty, behind":            "pkcs11:?pin-source=",
		"empty and twice":          "pkcs11:token=;token=",
		"empty and not":            "pkcs11:token=;token=a",
		"not empty and empty":      "pkcs11:token=a;token=",
		"empty attribute":          "pkcs11:token=a;;serial=1",
		"a semicolon at the end":   "pkcs11:token=a;",
		"path attribute behind":    "pkcs11:?token=a",
		"query attribute before":   "pkcs11:pin-source=a",
		"a blank":                  "pkcs11:token=a b",
		"a slash":                  "pkcs11:token=a/b",
		"a hash":                   "pkcs11:token=a#b",
		"an umlaut as it is":       "pkcs11:token=ü",
		"cut encoding":             "pkcs11:token=a%2",
		"encoding cut to nothing":  "pkcs11:token=a%",
		"wrong encoding":           "pkcs11:token=%zz",
		"signed encoding":          "pkcs11:token=%+1",
		"not UTF-8":                "pkcs11:token=%ff",
		"NUL":                      "pkcs11:token=a%00",
		"newline":                  "pkcs11:?module-path=/a%0ab",
		"slot that is no number":   "pkcs11:slot-id=0x1",
		"slot that is negative":    "pkcs11:slot-id=-1",
		"slot that is too large":   "pkcs11:slot-id=99999999999999999999",
		"version":                  "pkcs11:library-version=1.",
		"version of three numbers": "pkcs11:library-version=1.2.3",
		"type":                     "pkcs11:type=secret",
		"module with a path":       "pkcs11:?module-name=../evil",
		"too long":                 "pkcs11:token=" + strings.Repeat("a", maxURI),
	} {
		if u, err := Parse(in); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
}

// An attribute that is empty is there all the same, and one that is absent is not.
func TestHas(t *testing.T) {
	u, err := Parse("pkcs11:token=;serial=1;object=;id=;manufacturer=;model=;library-manufacturer=;library-description=;slot-description=;slot-manufacturer=?module-name=x")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range u.attributes() {
		want := !slices.Contains([]string{"library-version", "slot-id", "type", "pin-source", "module-path"}, a.name)
		if u.Has(a.name) != want {
			t.Errorf("%s: %t", a.name, !want)
		}
	}
	if u.Has("tokn") {
		t.Error("an attribute that there is not")
	}
	again, err := Parse(u.String())
	if err != nil || *again != *u {
		t.Errorf("written as %s, which reads %+v, %v", u, again, err)
	}
}

// No error repeats what may be a PIN, wherever somebody wrote it.
func TestParseKeepsPINs(t *testing.T) {
	const pin = "73519"
	for _, in := range []string{
		"pkcs11:token=a?pin-value=" + pin,
		"pkcs11:token=a?PIN-Value=" + pin,
		"pkcs11:pin-value=" + pin,
		"pkcs11:token=a b?pin-value=" + pin,
		"pkcs11:token=a?pin-value=%zz" + pin,
		"pkcs11:token=a?pin-value=12&" + pin + "=1",
		"pkcs11:token=a?pin-source=/x&pin-value=" + pin,
	} {
		_, err := Parse(in)
		if !errors.Is(err, ErrPINValue) || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", in, err)
		}
		if err != nil && strings.Contains(err.Error(), pin) {
			t.Errorf("the error repeats the PIN: %v", err)
		}
	}
	for _, in := range []string{
		pin, "pkcs11:" + pin, "pkcs11:" + pin + "=1", "pkcs11:token=a?pin=" + pin, "pkcs11:token=a?pin-source=" + pin + "%", "pkcs11:slot-id=x" + pin, "pkcs11:token=a?" + pin,
	} {
		if _, err := Parse(in); !errors.Is(err, ErrMalformed) || strings.Contains(err.Error(), pin) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("pkcs11:token=The%20Software;manufacturer=Snake%20Oil,%20Inc.;serial=1;model=1.0;type=cert;id=%69%95?pin-source=file:/etc/pin&module-path=/a.so")
	f.Add("pkcs11:slot-id=7;library-version=1.23?module-name=x")
	f.Add("pkcs11:token=a?pin-value=1")
	f.Add("pkcs11:?")
	f.Add("pkcs11:token=a;serial=;id=")
	f.Fuzz(func(t *testing.T, in string) {
		u, err := Parse(in)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("%v is of another kind", err)
			}
			return
		}
		again, err := Parse(u.String())
		if len(u.String()) <= maxURI && (err != nil || *again != *u) {
			t.Fatalf("%q is written as %q, which reads %+v, %v", in, u, again, err)
		}
	})
}
