package api

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

var (
	signTime = time.Unix(1_800_000_000, 0)
	login    = policies.DocumentID{0: 0xab, 31: 1}
	body     = []byte(`{"manifest":{}}`)
)

// signed is a request as the client makes it.
func signed(key *envelope.SessionKey, method, target string, body []byte) *http.Request {
	r, err := http.NewRequest(method, target, nil)
	if err != nil {
		panic(err)
	}
	Sign(r, body, login, key, signTime)
	return r
}

// check is what a server does with a request.
func check(r *http.Request, body []byte, key envelope.SessionPublicKey, now time.Time) error {
	s, err := ParseSignature(r)
	if err != nil {
		return err
	}
	return s.Verify(r, body, key, now)
}

const target = "https://Shop.example:8443/v1/owners/a%2Fb/chain?after=7&x=%20y"

func TestSignatureRoundTrip(t *testing.T) {
	key := envelope.NewSessionKey()
	for _, c := range []struct {
		method, target string
		body           []byte
	}{
		{"POST", target, body},
		{"GET", target, nil},
		{"GET", "https://shop.example", nil},
		{"GET", "https://shop.example?", nil},
		{"DELETE", "https://[::1]:8443/v1/x", []byte{}},
	} {
		r := signed(key, c.method, c.target, c.body)
		s, err := ParseSignature(r)
		if err != nil {
			t.Fatal(err)
		}
		if s.Login != login || s.Nonce.IsZero() || !s.Created.Equal(signTime) {
			t.Errorf("claims %+v", s)
		}
		if err := s.Verify(r, c.body, key.Public(), signTime); err != nil {
			t.Errorf("%s %s: %v", c.method, c.target, err)
		}
	}
	a, b := signed(key, "GET", target, nil), signed(key, "GET", target, nil)
	if a.Header.Get("Signature-Input") == b.Header.Get("Signature-Input") {
		t.Error("two requests have the same nonce")
	}
}

// What a client signs is what a server behind net/http sees.
func TestSignatureOverHTTP(t *testing.T) {
	key := envelope.NewSessionKey()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, err := io.ReadAll(r.Body)
		if err == nil {
			err = check(r, got, key.Public(), signTime)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	for _, path := range []string{"", "/", "/v1/owners/a%2Fb/chain?after=7&x=%20y", "/a//b/../c", "/é?é=1", "/v1/x?", "/a%20b;c=1"} {
		for _, body := range []string{"", `{"a":1}`} {
			r, err := http.NewRequest("POST", server.URL+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			Sign(r, []byte(body), login, key, signTime)
			answer, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			if answer.StatusCode != http.StatusOK {
				t.Errorf("POST %q: %s", path, text)
			}
		}
	}
}

// Every component of the signature is bound: change one and the request is refused.
func TestSignatureBindsEveryComponent(t *testing.T) {
	key := envelope.NewSessionKey()
	replaceInput := func(old, new string) func(*http.Request) {
		return func(r *http.Request) {
			before := r.Header.Get("Signature-Input")
			after := strings.Replace(before, old, new, 1)
			if before == after {
				panic(fmt.Sprintf("%q is not in %s", old, before))
			}
			r.Header.Set("Signature-Input", after)
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(r *http.Request)
		body  []byte
	}{
		{"method", func(r *http.Request) { r.Method = "PUT" }, body},
		{"method in small letters", func(r *http.Request) { r.Method = "post" }, body},
		{"host", func(r *http.Request) { r.Host = "evil.example:8443" }, body},
		{"port", func(r *http.Request) { r.Host = "shop.example" }, body},
		{"path", func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/v1/owners/a/b/grants", "/v1/owners/a%2Fb/grants" }, body},
		{"escaping of the path", func(r *http.Request) { r.URL.RawPath = "" }, body},
		{"query", func(r *http.Request) { r.URL.RawQuery = "after=8&x=%20y" }, body},
		{"escaping of the query", func(r *http.Request) { r.URL.RawQuery = "after=7&x=+y" }, body},
		{"no query", func(r *http.Request) { r.URL.RawQuery = "" }, body},
		{"body", func(*http.Request) {}, append([]byte(" "), body...)},
		{"no body", func(*http.Request) {}, nil},
		{"body and digest", func(r *http.Request) { r.Header.Set("Content-Digest", contentDigest([]byte("other"))) }, []byte("other")},
		{"no digest", func(r *http.Request) { r.Header.Del("Content-Digest") }, body},
		{"a second digest", func(r *http.Request) { r.Header.Add("Content-Digest", contentDigest(body)) }, body},
		{"digest by another hash", func(r *http.Request) {
			r.Header.Set("Content-Digest", "sha-512"+strings.TrimPrefix(r.Header.Get("Content-Digest"), "sha-256"))
		}, body},
		{"created", replaceInput("created=1800000000", "created=1800000001"), body},
		{"created with a zero before", replaceInput("created=", "created=0"), body},
		{"nonce", func(r *http.Request) {
			s, _ := ParseSignature(r)
			replaceInput(s.Nonce.String(), policies.NewNonce().String())(r)
		}, body},
		{"login", replaceInput(login.String(), (policies.DocumentID{2}).String()), body},
	} {
		r := signed(key, "POST", target, body)
		if err := check(r, body, key.Public(), signTime); err != nil {
			t.Fatal(err)
		}
		c.spoil(r)
		if err := check(r, c.body, key.Public(), signTime); !errors.Is(err, policies.CodeUnauthorized) {
			t.Errorf("%s: got %v, want %v", c.name, err, policies.CodeUnauthorized)
		}
	}
	r := signed(key, "POST", target, body)
	if err := check(r, body, envelope.NewSessionKey().Public(), signTime); !errors.Is(err, policies.CodeUnauthorized) {
		t.Errorf("another login's key: got %v, want %v", err, policies.CodeUnauthorized)
	}
	// One signature does not serve for another request.
	other := signed(key, "GET", target, nil)
	other.Header.Set("Signature", r.Header.Get("Signature"))
	if err := check(other, nil, key.Public(), signTime); !errors.Is(err, policies.CodeUnauthorized) {
		t.Errorf("another request's signature: got %v, want %v", err, policies.CodeUnauthorized)
	}
	// The host's spelling does not matter, as RFC 9421 section 2.2.3 says.
	r.Host = "shop.EXAMPLE:8443"
	if err := check(r, body, key.Public(), signTime); err != nil {
		t.Errorf("host in other letters: %v", err)
	}
}

func TestSignatureWindow(t *testing.T) {
	key := envelope.NewSessionKey()
	r := signed(key, "POST", target, body)
	for _, c := range []struct {
		after time.Duration
		ok    bool
	}{
		{-policies.ClockSkew - time.Second, false},
		{-policies.ClockSkew - 1, false},
		{-policies.ClockSkew, true},
		{0, true},
		{SignatureLifetime + policies.ClockSkew, true},
		{SignatureLifetime + policies.ClockSkew + 1, false},
		{24 * time.Hour, false},
		{-24 * time.Hour, false},
		{1 << 62, false},
	} {
		if err := check(r, body, key.Public(), signTime.Add(c.after)); (err == nil) != c.ok {
			t.Errorf("%s after signing: %v", c.after, err)
		}
	}
}

func TestParseSignatureRefuses(t *testing.T) {
	key := envelope.NewSessionKey()
	good := signed(key, "POST", target, body)
	input, sig := good.Header.Get("Signature-Input"), good.Header.Get("Signature")
	raw := strings.TrimSuffix(strings.TrimPrefix(sig, "sallyport=:"), ":")
	for _, c := range []struct {
		name        string
		inputs, sig []string
	}{
		{"nothing", nil, nil},
		{"no signature", []string{input}, nil},
		{"no input", nil, []string{sig}},
		{"two inputs", []string{input, input}, []string{sig}},
		{"two signatures", []string{input}, []string{sig, sig}},
		{"two in one header", []string{input + ", " + input}, []string{sig}},
		{"another label", []string{"sig1" + strings.TrimPrefix(input, "sallyport")}, []string{sig}},
		{"another label on the signature", []string{input}, []string{"sig1" + strings.TrimPrefix(sig, "sallyport")}},
		{"fewer components", []string{strings.Replace(input, ` "@query"`, "", 1)}, []string{sig}},
		{"more components", []string{strings.Replace(input, `"@query"`, `"@query" "date"`, 1)}, []string{sig}},
		{"other order", []string{strings.Replace(input, `"@path" "@query"`, `"@query" "@path"`, 1)}, []string{sig}},
		{"no components", []string{strings.Replace(input, signatureComponents, "()", 1)}, []string{sig}},
		{"parameters in another order", []string{strings.Replace(input, ";created=1800000000", "", 1) + ";created=1800000000"}, []string{sig}},
		{"no algorithm", []string{strings.TrimSuffix(input, `;alg="ed25519"`)}, []string{sig}},
		{"another algorithm", []string{strings.Replace(input, "ed25519", "hmac-sha256", 1)}, []string{sig}},
		{"a parameter more", []string{input + ";expires=1"}, []string{sig}},
		{"a tag", []string{input + `;tag="x"`}, []string{sig}},
		{"white space", []string{" " + input}, []string{sig}},
		{"white space at the end", []string{input + " "}, []string{sig}},
		{"no created", []string{strings.Replace(input, "created=1800000000", "created=", 1)}, []string{sig}},
		{"negative created", []string{strings.Replace(input, "created=", "created=-", 1)}, []string{sig}},
		{"signed created", []string{strings.Replace(input, "created=", "created=+", 1)}, []string{sig}},
		{"created as a fraction", []string{strings.Replace(input, "created=1800000000", "created=1800000000.0", 1)}, []string{sig}},
		{"created beyond reason", []string{strings.Replace(input, "created=", "created=99999", 1)}, []string{sig}},
		{"short nonce", []string{strings.Replace(input, `nonce="`, `nonce="0`, 1)}, []string{sig}},
		{"login in capitals", []string{strings.Replace(input, `keyid="ab`, `keyid="AB`, 1)}, []string{sig}},
		{"short login", []string{strings.Replace(input, `keyid="ab`, `keyid="`, 1)}, []string{sig}},
		{"signature not base64", []string{input}, []string{"sallyport=:!" + raw[1:] + ":"}},
		{"signature with a line break", []string{input}, []string{"sallyport=:" + raw[:4] + "\n" + raw[4:] + ":"}},
		{"signature unpadded", []string{input}, []string{"sallyport=:" + strings.TrimRight(raw, "=") + ":"}},
		{"signature without colons", []string{input}, []string{"sallyport=" + raw}},
		{"signature with a parameter", []string{input}, []string{sig + ";a"}},
		{"one colon", []string{input}, []string{"sallyport=:"}},
	} {
		r := signed(key, "POST", target, body)
		r.Header["Signature-Input"], r.Header["Signature"] = c.inputs, c.sig
		if _, err := ParseSignature(r); !errors.Is(err, policies.CodeUnauthorized) {
			t.Errorf("%s: got %v, want %v", c.name, err, policies.CodeUnauthorized)
		}
	}
	// Well formed but of the wrong length: refused when it is verified, without a panic.
	for _, n := range []int{0, 63, 65, 3373} {
		r := signed(key, "POST", target, body)
		r.Header.Set("Signature", "sallyport=:"+base64.StdEncoding.EncodeToString(make([]byte, n))+":")
		if err := check(r, body, key.Public(), signTime); !errors.Is(err, policies.CodeUnauthorized) {
			t.Errorf("a signature of %d bytes: got %v, want %v", n, err, policies.CodeUnauthorized)
		}
	}
}

// The base is RFC 9421's, written out once by hand.
func TestSignatureBase(t *testing.T) {
	r := &http.Request{Method: "POST", Host: "Shop.example", URL: &url.URL{Path: "/v1/reads", RawQuery: "a=b"}, Header: http.Header{}}
	r.Header.Set("Content-Digest", contentDigest(nil))
	want := "\"@method\": POST\n\"@authority\": shop.example\n\"@path\": /v1/reads\n\"@query\": ?a=b\n" +
		"\"content-digest\": sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:\n\"@signature-params\": (params)"
	if got := string(signatureBase(r, "(params)")); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func FuzzParseSignature(f *testing.F) {
	key := envelope.NewSessionKey()
	good := signed(key, "POST", target, body)
	f.Add(good.Header.Get("Signature-Input"), good.Header.Get("Signature"))
	f.Add(`sallyport=("@method");created=1`, "sallyport=::")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, input, sig string) {
		r := signed(key, "POST", target, body)
		r.Header["Signature-Input"], r.Header["Signature"] = []string{input}, []string{sig}
		s, err := ParseSignature(r)
		if err != nil {
			if !errors.Is(err, policies.CodeUnauthorized) {
				t.Errorf("got %v, want %v", err, policies.CodeUnauthorized)
			}
			return
		}
		if s.Verify(r, body, key.Public(), signTime) == nil && input != good.Header.Get("Signature-Input") {
			t.Error("a signature was forged")
		}
		if sig != "sallyport=:"+base64.StdEncoding.EncodeToString(s.sig)+":" {
			t.Errorf("a signature with two spellings: %q", sig)
		}
	})
}
