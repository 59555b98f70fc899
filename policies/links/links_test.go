package links

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
)

func TestJoinLink(t *testing.T) {
	full := Join{Vault: testVault, Ceremony: policies.Hash{4}, Storefront: "https://shop.example:8443/a?b=c&d=e", Owners: "https://[::1]:9443"}
	bare := Join{Vault: testVault, Ceremony: policies.Hash{4}}
	for _, l := range []Join{full, bare} {
		if back, err := ParseJoin(l.String()); err != nil || back != l {
			t.Errorf("%s came back as %+v, %v", l, back, err)
		}
	}
	good := bare.String()
	vault, ceremony := "vault="+testVault.String(), "ceremony="+(policies.Hash{4}).String()
	for name, text := range map[string]string{
		"empty":                              "",
		"another scheme":                     "https" + strings.TrimPrefix(good, "sallyport"),
		"another kind":                       strings.Replace(good, ":join", ":owner", 1),
		"as a host":                          strings.Replace(good, ":join", "://join", 1),
		"kind in capitals":                   strings.Replace(good, ":join", ":JOIN", 1),
		"nothing in it":                      "sallyport:join",
		"no vault":                           "sallyport:join?" + ceremony,
		"no ceremony":                        "sallyport:join?" + vault,
		"short vault":                        strings.Replace(good, vault, vault[:len(vault)-1], 1),
		"vault in capitals":                  strings.Replace(good, ceremony, "ceremony=0A"+ceremony[11:], 1),
		"vault twice":                        good + "&" + vault,
		"unknown member":                     good + "&more=1",
		"member in capitals":                 strings.Replace(good, "vault=", "Vault=", 1),
		"fragment":                           good + "#x",
		"semicolon":                          strings.Replace(good, "&", ";", 1),
		"bad escape":                         good + "&owners=%zz",
		"plain http":                         good + "&storefront=http://shop.example",
		"no host":                            good + "&storefront=https:///x",
		"a host that not every parser takes": good + "&storefront=https://shop!example",
		"no URL":                             good + "&owners=shop.example",
		"a password in it":                   good + "&owners=https://a:b@shop.example",
		"a control character":                good + "&owners=https://shop.example/%0a",
		"white space around":                 " " + good,
		"line break at end":                  good + "\n",
		"longer than any link":               good + "&owners=https://shop.example/" + long(4096),
	} {
		if _, err := ParseJoin(text); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func TestContactCode(t *testing.T) {
	owner := Contact{Role: "owner", ID: policies.IdentityID{1}, Nonce: policies.Nonce{2}}
	reader := Contact{Role: "reader", ID: policies.IdentityID{1}}
	for _, c := range []Contact{owner, reader} {
		if back, err := ParseContact(c.String()); err != nil || back != c {
			t.Errorf("%s came back as %+v, %v", c, back, err)
		}
	}
	for name, text := range map[string]string{
		"empty":                  "",
		"a join link":            Join{Vault: testVault, Ceremony: policies.Hash{4}}.String(),
		"unknown role":           strings.Replace(reader.String(), "reader", "source", 1),
		"owner without nonce":    strings.Replace(reader.String(), "reader", "owner", 1),
		"owner with short nonce": owner.String()[:len(owner.String())-2],
		"reader with nonce":      strings.Replace(owner.String(), "owner", "reader", 1),
		"no id":                  "sallyport:reader?",
		"short id":               reader.String()[:len(reader.String())-1],
		"id in capitals":         "sallyport:reader?id=0A" + strings.Repeat("0", 62),
		"id twice":               reader.String() + "&id=" + reader.ID.String(),
		"unknown member":         reader.String() + "&name=Acme",
		"fragment":               reader.String() + "#Acme",
		"another scheme":         "https:reader?id=" + reader.ID.String(),
		"white space around":     " " + reader.String(),
	} {
		if _, err := ParseContact(text); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func TestInvite(t *testing.T) {
	l := Invite{Reader: policies.IdentityID{1}, Token: []byte{0xff, 0xfe, 0, 1}}
	if back, err := ParseInvite(l.String()); err != nil || back.Reader != l.Reader || !bytes.Equal(back.Token, l.Token) {
		t.Errorf("%s came back as %+v, %v", l, back, err)
	}
	reader := "reader=" + l.Reader.String()
	for name, text := range map[string]string{
		"empty":              "",
		"another kind":       strings.Replace(l.String(), ":invite", ":reader", 1),
		"no reader":          "sallyport:invite?token=_w",
		"no token":           "sallyport:invite?" + reader,
		"empty token":        "sallyport:invite?token=&" + reader,
		"padded":             "sallyport:invite?token=_w%3D%3D&" + reader,
		"the other base64":   "sallyport:invite?token=%2Fw&" + reader,
		"spare bits":         "sallyport:invite?token=_x&" + reader,
		"a line break":       "sallyport:invite?token=_w%0A&" + reader,
		"513 bytes":          Invite{Reader: l.Reader, Token: make([]byte, 513)}.String(),
		"token twice":        l.String() + "&token=_w",
		"unknown member":     l.String() + "&name=Acme",
		"reader in capitals": "sallyport:invite?token=_w&reader=0A" + strings.Repeat("0", 62),
		"fragment":           l.String() + "#",
		"white space around": " " + l.String(),
	} {
		if _, err := ParseInvite(text); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func FuzzParseInvite(f *testing.F) {
	f.Add(Invite{Reader: policies.IdentityID{1}, Token: []byte("token")}.String())
	f.Add("sallyport:invite?reader=&token=%5F")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseInvite(text)
		if err != nil {
			if !errors.Is(err, policies.ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
			return
		}
		if back, err := ParseInvite(l.String()); err != nil || back.Reader != l.Reader || !bytes.Equal(back.Token, l.Token) {
			t.Errorf("%q: %+v came back as %+v, %v", text, l, back, err)
		}
	})
}

func FuzzParseJoinLink(f *testing.F) {
	f.Add(Join{Vault: testVault, Ceremony: policies.Hash{4}, Storefront: "https://shop.example", Owners: "https://[::1]:9443"}.String())
	f.Add("sallyport:join?vault=&ceremony=")
	f.Add("sallyport:join?%zz#")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseJoin(text)
		if err != nil {
			if !errors.Is(err, policies.ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
			return
		}
		if back, err := ParseJoin(l.String()); len(text) < 1000 && (err != nil || back != l) {
			t.Errorf("%q: %+v came back as %+v, %v", text, l, back, err)
		}
	})
}

func FuzzParseContactCode(f *testing.F) {
	f.Add(Contact{Role: "owner", ID: policies.IdentityID{1}, Nonce: policies.Nonce{2}}.String())
	f.Add(Contact{Role: "reader", ID: policies.IdentityID{1}}.String())
	f.Add("sallyport:owner?id=%30")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseContact(text)
		if err != nil {
			if !errors.Is(err, policies.ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
			return
		}
		if back, err := ParseContact(c.String()); err != nil || back != c {
			t.Errorf("%q: %+v came back as %+v, %v", text, c, back, err)
		}
	})
}
