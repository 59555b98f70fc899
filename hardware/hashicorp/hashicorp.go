// Package hashicorp gets a token's PIN out of a HashiCorp Vault: a value of its KV secrets engine, version 2.
//
// ("Vault" in this package's words is HashiCorp's server. Sallyport's own vault is "the program".)
//
// [Open] logs in and [Session.PIN] reads the value, at the start of the program. [Session.Keep] then holds the login for as long as
// the program runs: it renews the token, and when that comes to its end, logs in again. Nothing the program serves depends on it, because
// the PIN was read before: Keep is there so that the end of a login, a lost permission or a Vault that went away stands in the log
// on the day it happens, and not on the day of the next start.
//
// # Logging in
//
// By certificate: the client certificate is the login. By AppRole: with a role id, which is no secret, and a secret id, which arrives
// wrapped (response wrapping): the file holds a token that is good for taking the secret id out of Vault once. So whoever takes it before
// the program does is found out, because the program comes too late: that is [ErrWrapped], and it is to be treated as an alarm. Before it is
// unwrapped, Vault is asked which path made it; a wrapping token of another path was put there by somebody else and is not unwrapped.
// The secret id is then kept in memory for logging in again.
//
// # What is trusted
//
// The server is trusted with the PIN, which it has, and with nothing else. The link is TLS 1.3 to a server under the configured authority,
// with the key exchange X25519MLKEM768 unless Config.AllowClassical: a server of HashiCorp built with Go before 1.24 has only classical ones,
// and who records that link can read the PIN with a quantum computer later. The environment (VAULT_TOKEN, VAULT_ADDR, proxies, ...) is
// not obeyed, and no redirection is followed.
//
// # What stays in memory
//
// PIN and secret id are read into bytes that are zeroed, never into strings. The zeroing does not reach the buffers of net/http and crypto/tls,
// through which they came, and which are overwritten or collected when the runtime sees fit. Vault's tokens, the wrapping token among
// them, are strings in github.com/hashicorp/vault/api and cannot be zeroed: a wrapping token is worth nothing once it was used, and the login's
// token is revoked by [Session.Close]. No secret is in an error, a log line, a URL, an argument or the environment.
package hashicorp

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// The kinds of failure. Each error is an *Error.
var (
	// ErrAway: the server cannot be reached, is sealed, overloaded or silent. Trying again later helps.
	ErrAway = errors.New("HashiCorp Vault is away")
	// ErrTLS: there is no trust between the two: another authority, no certificate, or no common key exchange.
	ErrTLS = errors.New("no TLS connection to HashiCorp Vault")
	// ErrLogin: the login was refused.
	ErrLogin = errors.New("login refused by HashiCorp Vault")
	// ErrWrapped: the wrapped secret id was used already, has expired, or was made by another path than the role's. An alarm.
	ErrWrapped = errors.New("the wrapped secret id cannot be trusted")
	// ErrDenied: the login may not read the value.
	ErrDenied = errors.New("reading is not permitted by HashiCorp Vault")
	// ErrMissing: there is no such value, or its version was deleted.
	ErrMissing = errors.New("no such secret in HashiCorp Vault")
	// ErrField: the value has no such field, or what is in the field cannot be a PIN.
	ErrField = errors.New("no PIN in the secret of HashiCorp Vault")
	// ErrAnswer: the server says what this package does not understand.
	ErrAnswer = errors.New("not understood from HashiCorp Vault")
	// ErrConfig: the configuration is not usable.
	ErrConfig = errors.New("configuration of HashiCorp Vault")
)

// An Error says what was being done, where, and the kind of failure.
type Error struct {
	Op     string // "logging in", ...
	Path   string // of Vault's API, without /v1/
	Status int    // of HTTP; zero if there was no answer
	Said   string // what the server said, if it is safe to repeat
	Kind   error
	Cause  error // below HTTP; may be nil
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s): %v", e.Op, e.Path, e.Kind)
	if e.Status != 0 {
		fmt.Fprintf(&b, ": status %d", e.Status)
	}
	if e.Said != "" {
		fmt.Fprintf(&b, ": it says %q", e.Said)
	}
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %v", e.Cause)
	}
	return b.String()
}

// Unwrap gives the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// Method is a way to log in.
type Method string

// The ways to log in.
const (
	AppRole     Method = "approle"
	Certificate Method = "cert"
)

// Config says where the PIN is and how to get at it.
type Config struct {
	Address string // https://host:port
	CA      string // PEM file of the authority of the server's certificate
	// AllowClassical permits a key exchange without ML-KEM.
	AllowClassical bool
	Namespace      string // of Vault Enterprise; may be empty

	Mount string // of the KV engine, version 2
	Path  string // of the secret under it
	Field string // of the secret
	// Version is the secret's version. Zero: the newest at each start.
	Version int

	Auth      Method
	AuthMount string // where the method is mounted. Empty: under its own name
	// Role is the role's name: for AppRole the one whose secret id is expected to be wrapped, for Certificate the one to log in as (may be empty).
	Role string
	// RoleID is for AppRole.
	RoleID string
	// WrappedSecretID gives, for AppRole, the wrapping token as it was delivered. It is called once, and what it returns is zeroed.
	WrappedSecretID func() ([]byte, error)
	// Unwrapped, if not nil, is called when the wrapping token has been used, and so is worth nothing any more, wherever it is kept.
	Unwrapped func()
	// CertificateFile and KeyFile are the client's certificate: the login of Certificate, optional for AppRole.
	CertificateFile, KeyFile string

	// Timeout bounds each request, Patience how long Open tries to reach a server that is away.
	Timeout, Patience time.Duration
}

// Validate checks what can be checked without reading a file.
func (c *Config) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...)
	}
	u, err := url.Parse(c.Address)
	switch {
	case err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return bad("address is https://host:port and nothing besides") // not repeated: it may have a password in it
	case c.CA == "":
		return bad("ca is needed: the PEM file of the authority of the server's certificate")
	case !plainPath(c.Mount) || !plainPath(c.Path) || !plainPath(c.authMount()):
		return bad("mount, path and auth_mount are paths without a slash at begin or end, and without . and .. in them")
	case c.Field == "":
		return bad("field is needed")
	case c.Version < 0:
		return bad("version is 0 for the newest, or a number")
	case (c.CertificateFile == "") != (c.KeyFile == ""):
		return bad("certificate and key go together")
	case c.Timeout <= 0 || c.Patience < 0:
		return bad("timeout is more than 0, and patience is not negative")
	}
	switch c.Auth {
	case AppRole:
		if !plainPath(c.Role) || strings.Contains(c.Role, "/") || c.RoleID == "" || c.WrappedSecretID == nil {
			return bad("auth approle needs role, role_id and the wrapped secret id")
		}
	case Certificate:
		if c.CertificateFile == "" || c.RoleID != "" || c.WrappedSecretID != nil {
			return bad("auth cert needs certificate and key, and has no role_id and no secret id")
		}
	default:
		return bad("auth is %s or %s", AppRole, Certificate)
	}
	return nil
}

// plainPath keeps a name that was mistyped from becoming another path.
func plainPath(p string) bool {
	return p != "" && path.Clean("/"+p) == "/"+p && !strings.ContainsAny(p, "?#%\\ \t\r\n")
}

func (c *Config) authMount() string {
	if c.AuthMount != "" {
		return c.AuthMount
	}
	return string(c.Auth)
}

// link is TLS to the server. note hears of the first connection.
func (c *Config) link(note func(tls.ConnectionState)) (*http.Transport, error) {
	pem, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, fmt.Errorf("%w: reading the authority: %w", ErrConfig, err)
	}
	t := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool(), CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}
	if !t.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%w: no certificate in %s", ErrConfig, c.CA)
	}
	if c.AllowClassical {
		t.CurvePreferences = append(t.CurvePreferences, tls.X25519, tls.CurveP256, tls.CurveP384)
	}
	if c.CertificateFile != "" {
		info, err := os.Stat(c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("%w: reading the key: %w", ErrConfig, err)
		}
		if info.Mode().Perm()&0o007 != 0 {
			return nil, fmt.Errorf("%w: %s can be read by everybody: set its mode to 0600", ErrConfig, c.KeyFile)
		}
		pair, err := tls.LoadX509KeyPair(c.CertificateFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("%w: reading certificate and key: %w", ErrConfig, err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	t.VerifyConnection = func(s tls.ConnectionState) error { note(s); return nil }
	// A connection for each request: minutes lie between them, and its buffers, which the PIN went through, go with it. No proxy.
	return &http.Transport{TLSClientConfig: t, TLSHandshakeTimeout: c.Timeout, DisableKeepAlives: true, MaxResponseHeaderBytes: 1 << 16}, nil
}

// client is the API's, which would otherwise listen to the environment.
func (c *Config) client(note func(tls.ConnectionState)) (*api.Client, error) {
	transport, err := c.link(note)
	if err != nil {
		return nil, err
	}
	client, err := api.NewClient(&api.Config{
		Address: c.Address, Timeout: c.Timeout, DisableRedirects: true,
		MaxRetries: 0, // one request is one request: an unwrapping that was sent twice would look like a theft
		HttpClient: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	client.ClearToken()
	client.SetHeaders(http.Header{api.RequestHeaderName: {"true"}}) // replaces those of the environment
	client.ClearNamespace()
	client.SetWrappingLookupFunc(func(string, string) string { return "" }) // VAULT_WRAP_TTL would have every answer wrapped
	if c.Namespace != "" {
		client.SetNamespace(c.Namespace)
	}
	return client, nil
}

// fault makes an *Error of what the API returned. refused is the kind of a refusal of this request.
func fault(op, path string, err error, refused error, secrets ...[]byte) *Error {
	e := &Error{Op: op, Path: path, Kind: ErrAway}
	var answer *api.ResponseError
	if !errors.As(err, &answer) {
		e.Cause = err
		var (
			alert tls.AlertError
			cert  *tls.CertificateVerificationError
			plain tls.RecordHeaderError
		)
		// "handshake failure" is what a server says that knows no X25519MLKEM768; net/http hides the alert's type in a text.
		if errors.As(err, &alert) || errors.As(err, &cert) || errors.As(err, &plain) || strings.Contains(err.Error(), "remote error: tls:") ||
			strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
			e.Kind = ErrTLS
			if strings.Contains(err.Error(), "handshake failure") {
				e.Said = "handshake failure: it may not know X25519MLKEM768; see allow_classical"
				e.Cause = nil
			}
		}
		if errors.Is(err, context.Canceled) {
			e.Kind = context.Canceled
		}
		return e
	}
	e.Status = answer.StatusCode
	e.Said = repeatable(answer, secrets)
	switch s := answer.StatusCode; {
	case s == http.StatusInternalServerError && refused == ErrLogin && strings.Contains(e.Said, "invalid secret id"):
		e.Kind = ErrLogin // so says Vault 1.14 of a secret id that is used up
	case s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s == http.StatusPreconditionFailed || s >= 500:
		// 500 besides 502, 503 (sealed, or a standby without a leader) and 504: Vault gives it for a storage that is away.
	case s == http.StatusNotFound:
		e.Kind = ErrMissing
	case s >= 300 && s < 400:
		e.Kind = ErrAnswer
	default:
		e.Kind = refused
	}
	return e
}

// repeatable is the server's reason, if it is a short text of one line without any secret in it.
func repeatable(answer *api.ResponseError, secrets [][]byte) string {
	if answer.RawError || len(answer.Errors) == 0 {
		return ""
	}
	said := strings.TrimSpace(answer.Errors[len(answer.Errors)-1])
	said = strings.TrimSpace(said[strings.LastIndexByte(said, '\n')+1:]) // "1 error occurred:\n\t* permission denied"
	said = strings.TrimPrefix(said, "* ")
	for _, s := range secrets {
		if len(s) > 0 && bytes.Contains([]byte(said), s) {
			return ""
		}
	}
	if len(said) > 200 {
		return ""
	}
	return said
}
