package api

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

// One fixed profile of RFC 9421 (HTTP Message Signatures) with RFC 9530 digests: algorithm ed25519, label "sallyport",
// covering method, authority, path, query and content digest, with created, nonce and keyid (the login's id). Nothing else
// is accepted, so there is nothing to negotiate and nothing to downgrade.
const (
	signatureLabel      = "sallyport"
	signatureComponents = `("@method" "@authority" "@path" "@query" "content-digest")`
)

// SignatureLifetime is how long after its creation a signed request is accepted, clock skew besides. A server remembers a
// nonce until SignatureLifetime and policies.ClockSkew after the creation time, which may itself lie ClockSkew ahead of the server's clock.
const SignatureLifetime = 60 * time.Second

// Sign signs a request with the login's key. body is the whole body, nil for none.
func Sign(r *http.Request, body []byte, login policies.DocumentID, key *envelope.SessionKey, now time.Time) {
	r.Header.Set("Content-Digest", contentDigest(body))
	params := fmt.Sprintf(`%s;created=%d;nonce="%s";keyid="%s";alg="ed25519"`, signatureComponents, now.Unix(), policies.NewNonce(), login)
	sig := key.Sign(signatureBase(r, params))
	r.Header.Set("Signature-Input", signatureLabel+"="+params)
	r.Header.Set("Signature", signatureLabel+"=:"+base64.StdEncoding.EncodeToString(sig)+":")
}

// Signature is what a request's signature claims. Verify it with the login's key, then refuse a nonce seen before.
type Signature struct {
	Login   policies.DocumentID
	Nonce   policies.Nonce
	Created time.Time
	params  string
	sig     []byte
}

// ParseSignature reads a request's signature headers and verifies nothing. Errors wrap policies.CodeUnauthorized.
func ParseSignature(r *http.Request) (*Signature, error) {
	bad := fmt.Errorf("%w: the request has no signature of the one profile", policies.CodeUnauthorized)
	inputs, sigs := r.Header.Values("Signature-Input"), r.Header.Values("Signature")
	if len(inputs) != 1 || len(sigs) != 1 {
		return nil, bad
	}
	params, ok := strings.CutPrefix(inputs[0], signatureLabel+"=")
	rest, ok2 := strings.CutPrefix(params, signatureComponents+";created=")
	if !ok || !ok2 {
		return nil, bad
	}
	created, rest, ok := strings.Cut(rest, `;nonce="`)
	nonce, rest, ok2 := strings.Cut(rest, `";keyid="`)
	login, rest, ok3 := strings.Cut(rest, `";alg="ed25519"`)
	if !ok || !ok2 || !ok3 || rest != "" {
		return nil, bad
	}
	s := &Signature{params: params}
	seconds, err := strconv.ParseUint(created, 10, 40)
	if err != nil || s.Nonce.UnmarshalText([]byte(nonce)) != nil || s.Login.UnmarshalText([]byte(login)) != nil {
		return nil, bad
	}
	s.Created = time.Unix(int64(seconds), 0)
	encoded, ok := strings.CutPrefix(sigs[0], signatureLabel+"=:")
	encoded, ok2 = strings.CutSuffix(encoded, ":")
	if s.sig, err = base64.StdEncoding.DecodeString(encoded); !ok || !ok2 || err != nil || base64.StdEncoding.EncodeToString(s.sig) != encoded {
		return nil, bad
	}
	return s, nil
}

// Verify checks the signature over the request and its whole body, and its time. Errors wrap policies.CodeUnauthorized.
func (s *Signature) Verify(r *http.Request, body []byte, key envelope.SessionPublicKey, now time.Time) error {
	if age := now.Sub(s.Created); age > SignatureLifetime+policies.ClockSkew || age < -policies.ClockSkew {
		return fmt.Errorf("%w: the signature's time is off by %s; check the clock", policies.CodeUnauthorized, age.Round(time.Second))
	}
	if digests := r.Header.Values("Content-Digest"); len(digests) != 1 || digests[0] != contentDigest(body) {
		return fmt.Errorf("%w: the body is not the one that was signed", policies.CodeUnauthorized)
	}
	if err := key.Verify(signatureBase(r, s.params), s.sig); err != nil {
		return fmt.Errorf("%w: the request's signature does not verify", policies.CodeUnauthorized)
	}
	return nil
}

func contentDigest(body []byte) string {
	sum := sha256.Sum256(body)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// signatureBase is RFC 9421 section 2.5.
func signatureBase(r *http.Request, params string) []byte {
	authority := r.Host
	if authority == "" {
		authority = r.URL.Host
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "\"@method\": %s\n", r.Method)
	fmt.Fprintf(&b, "\"@authority\": %s\n", strings.ToLower(authority))
	fmt.Fprintf(&b, "\"@path\": %s\n", cmp.Or(r.URL.EscapedPath(), "/")) // section 2.2.6: an empty path is "/"
	fmt.Fprintf(&b, "\"@query\": ?%s\n", r.URL.RawQuery)
	fmt.Fprintf(&b, "\"content-digest\": %s\n", r.Header.Get("Content-Digest"))
	fmt.Fprintf(&b, "\"@signature-params\": %s", params)
	return b.Bytes()
}
