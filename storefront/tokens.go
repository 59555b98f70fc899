package storefront

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/redact"
	"github.com/sallyport/sallyport/storefront/api"
)

// tokenLifetime is long enough to type a password.
const tokenLifetime = 5 * time.Minute

// tokens makes access tokens and says whose one is. A token is subject (32 bytes), scope (1), expiry (u64, Unix seconds), and an HMAC-SHA-256 of
// them under a key that lives as long as the process: nothing has to be remembered, and a restart ends all of them.
type tokens struct {
	redact.Redacted

	key [32]byte
}

func (t *tokens) init() { rand.Read(t.key[:]) } // never fails (crypto/rand)

// tokenScopes are the scopes by their byte.
var tokenScopes = []string{api.ScopeAccount, api.ScopeRestore}

const tokenSize = 32 + 1 + 8

func (t *tokens) mac(payload []byte) []byte {
	h := hmac.New(sha256.New, t.key[:])
	h.Write(policies.Encode("access-token", payload))
	return h.Sum(nil)
}

func (t *tokens) make(subject policies.IdentityID, scope byte, now time.Time) api.AccessToken {
	expires := now.Add(tokenLifetime).Unix()
	b := binary.BigEndian.AppendUint64(append(append([]byte(nil), subject[:]...), scope), uint64(expires))
	return api.AccessToken{Token: base64.RawURLEncoding.EncodeToString(append(b, t.mac(b)...)), Expires: expires}
}

// open says whose a token is; what is none, or has ended, is not active, and nothing more is said of it (RFC 7662 section 2.2).
func (t *tokens) open(text string, now time.Time) api.Introspection {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != tokenSize+sha256.Size || !hmac.Equal(b[tokenSize:], t.mac(b[:tokenSize])) {
		return api.Introspection{}
	}
	expires := int64(binary.BigEndian.Uint64(b[33:]))
	if now.Unix() >= expires || int(b[32]) >= len(tokenScopes) {
		return api.Introspection{}
	}
	return api.Introspection{
		Active: true, Scope: tokenScopes[b[32]], Subject: policies.IdentityID(b[:32]).String(), Audience: api.TokenAudience, Expires: expires, Type: "Bearer",
	}
}

func (s *Storefront) postToken(c *call) error {
	return c.json(http.StatusOK, s.tokens.make(c.subject, 0, s.now()))
}

// postRestoreToken does not look whether there is such an identity: that is nobody's business here.
func (s *Storefront) postRestoreToken(c *call) error {
	var in api.RestoreToken
	if err := envelope.Decode(c.body, &in); err != nil {
		return err
	}
	if in.Subject.IsZero() {
		return problem.New(policies.CodeMalformed, "whose profile it is must be said")
	}
	if in.Closing != nil {
		env, err := envelope.Parse(in.Closing)
		if err != nil {
			return err
		}
		switch _, signed, err := s.ofClosed(c.ctx, in.Subject, env); {
		case err != nil:
			return err
		case !signed:
			return policies.CodeSignature
		}
		return c.json(http.StatusOK, s.tokens.make(in.Subject, 0, s.now()))
	}
	return c.json(http.StatusOK, s.tokens.make(in.Subject, 1, s.now()))
}

// maxIntrospect is the length of the longest form in bytes.
const maxIntrospect = 4 << 10

// Introspection serves [api.PathIntrospect] (RFC 7662) to key servers. Its listener must demand their certificate and no other.
func (s *Storefront) Introspection() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+api.PathIntrospect, func(w http.ResponseWriter, r *http.Request) {
		media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || media != "application/x-www-form-urlencoded" {
			problem.Write(w, problem.New(policies.CodeMalformed, "a form is needed"))
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxIntrospect))
		if err != nil {
			problem.Write(w, policies.CodeTooLarge)
			return
		}
		form, err := url.ParseQuery(string(body))
		if err != nil || len(form["token"]) != 1 {
			problem.Write(w, problem.New(policies.CodeMalformed, "the form has one token"))
			return
		}
		out, err := json.Marshal(s.tokens.open(form.Get("token"), s.now()))
		if err != nil {
			problem.Write(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(out)))
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(out) // who went away is not told
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { problem.Write(w, policies.CodeNotFound) })
	return mux
}
