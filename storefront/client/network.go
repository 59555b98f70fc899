package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/vault/pre"
	"github.com/sallyport/sallyport/vault/sockets"
)

// Network is where a device's storefront and vault are, and which vault is the real one. URLs may change, the pin may not.
type Network struct {
	Storefront string           `json:"storefront"`      // https URL
	Owners     string           `json:"owners,omitzero"` // https URL of the vault's listener for owners, the second route
	Roots      string           `json:"roots,omitzero"`  // PEM certificates that TLS trusts; empty: the system's
	Vault      policies.VaultID `json:"vault"`
	Ceremony   policies.Hash    `json:"ceremony"`
}

// Options are for one run of a device and are not stored.
type Options struct {
	Storefront string           // instead of the network's
	Owners     string           // instead of the network's
	Roots      []byte           // instead of the network's, PEM
	Now        func() time.Time // instead of time.Now
}

// NewNetwork reads a join link. What the options say replaces the link's.
func NewNetwork(link string, o Options) (Network, error) {
	l, err := links.ParseJoin(link)
	if err != nil {
		return Network{}, err
	}
	n := Network{Storefront: l.Storefront, Owners: l.Owners, Vault: l.Vault, Ceremony: l.Ceremony}.with(o)
	return n, n.validate()
}

// Join is the link that leads others, and other devices, there.
func (n Network) Join() links.Join {
	return links.Join{Vault: n.Vault, Ceremony: n.Ceremony, Storefront: n.Storefront, Owners: n.Owners}
}

func (n Network) with(o Options) Network {
	if o.Storefront != "" {
		n.Storefront = o.Storefront
	}
	if o.Owners != "" {
		n.Owners = o.Owners
	}
	if o.Roots != nil {
		n.Roots = string(o.Roots)
	}
	return n
}

func (n Network) validate() error {
	if n.Vault.IsZero() || n.Ceremony.IsZero() {
		return fmt.Errorf("%w: no vault is pinned; a join link names it", policies.ErrPin)
	}
	if n.Storefront == "" {
		return fmt.Errorf("%w: no storefront is named, neither by the join link nor besides", policies.ErrMalformed)
	}
	for _, u := range []string{n.Storefront, n.Owners} {
		if u == "" {
			continue
		}
		if _, err := parseBase(u); err != nil {
			return err
		}
	}
	if n.Roots != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(n.Roots)) {
		return fmt.Errorf("%w: no certificate in the file of TLS roots", policies.ErrMalformed)
	}
	return nil
}

func parseBase(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("%w: %q is not an https URL of a host alone", policies.ErrMalformed, text)
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host)}, nil
}

// Bounds of one call.
const (
	callTimeout = 60 * time.Second
	maxAnswer   = 24 << 20  // bytes
	maxRead     = 256 << 20 // bytes, of a read's answer
	// A server that is gone without a word is found out after this long: mobile networks pause for seconds.
	patience = 15 * time.Second
)

// wire speaks HTTP. It is safe for concurrent use.
type wire struct {
	http       *http.Client
	storefront *url.URL
	owners     *url.URL // nil: there is no second route
	subject    policies.IdentityID
	identity   jsontext.Value // posted to a storefront that does not know it
	now        func() time.Time

	mu    sync.Mutex // guards what follows, and is held while logging in so that one login serves all
	login *login

	loginKey    *pre.LoginKey
	successions []jsontext.Value // the same for a storefront that does not know how the identity came to this key
}

type login struct {
	id      policies.DocumentID
	key     *envelope.SessionKey
	expires time.Time
}

func newWire(n Network, subject policies.IdentityID, identity jsontext.Value, key *pre.LoginKey, now func() time.Time) (*wire, error) {
	if err := n.validate(); err != nil {
		return nil, err
	}
	w := &wire{subject: subject, identity: identity, loginKey: key, now: now}
	w.storefront, _ = parseBase(n.Storefront)
	if n.Owners != "" {
		w.owners, _ = parseBase(n.Owners)
	}
	var roots *x509.CertPool
	if n.Roots != "" {
		roots = x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(n.Roots))
	}
	// Post-quantum key agreement or none: what is recorded today must not be readable with a quantum computer later.
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}, RootCAs: roots},
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     90 * time.Second,
	}
	transport.DialContext = (&sockets.Dialer{Timeout: 10 * time.Second, Patience: patience, Lost: transport.CloseIdleConnections}).DialContext
	w.http = &http.Client{
		Transport: transport,
		// A redirect would send signed requests elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return w, nil
}

// request is one call. in is encoded as JSON unless raw is given; out is decoded strictly, or gets the bytes if it is a
// *jsontext.Value or *[]byte.
type request struct {
	method, path string
	query        url.Values
	base         *url.URL // nil: the storefront
	in           any
	raw          []byte
	out          any
	login        bool   // signed by the login's key
	bearer       string // access token, for a key server
	limit        int64
	status       *int // if set, told the status of an answer that is no problem
}

func path(pattern string, ids ...string) string {
	for _, id := range ids {
		open, rest, _ := strings.Cut(pattern, "{")
		_, rest, _ = strings.Cut(rest, "}")
		pattern = open + url.PathEscape(id) + rest
	}
	return pattern
}

// call carries out a request. A login that the storefront no longer knows is made anew, once.
func (w *wire) call(ctx context.Context, r request) error {
	body := r.raw
	if r.in != nil {
		var err error
		if body, err = json.Marshal(r.in); err != nil {
			return fmt.Errorf("encoding a request: %w", err)
		}
	}
	err := w.once(ctx, r, body)
	if r.login && errors.Is(err, policies.CodeUnauthorized) {
		w.forget()
		err = w.once(ctx, r, body)
	}
	return err
}

// ErrCertificate: who answered has a certificate that this device does not trust. It is policies.CodeUnavailable too: nothing was asked for there.
var ErrCertificate = errors.New("its certificate is not one that this device trusts; if whoever runs it has their own, --ca FILE names theirs")

// distrusted is an ErrCertificate.
type distrusted struct{ error }

func (d distrusted) Error() string { return ErrCertificate.Error() + ": " + d.error.Error() }

func (d distrusted) Unwrap() []error {
	return []error{ErrCertificate, policies.CodeUnavailable, d.error}
}

// unreached is why a call was not answered, without the address, which net/http puts in front.
func unreached(err error) error {
	var call *url.Error
	if errors.As(err, &call) {
		err = call.Err
	}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return distrusted{certificate.Err}
	}
	return fmt.Errorf("%w: %w", policies.CodeUnavailable, err)
}

func (w *wire) once(ctx context.Context, r request, body []byte) error {
	base, who := r.base, "the account server"
	if base == nil {
		base, who = w.storefront, "the storefront"
	} else if w.owners != nil && *base == *w.owners {
		who = "the vault"
	}
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	target := *base
	target.Path, target.RawQuery = r.path, r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, target.String(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: %w", policies.ErrMalformed, err)
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.login {
		l, err := w.loggedIn(ctx)
		if err != nil {
			return err
		}
		api.Sign(req, body, l.id, l.key, w.now())
	}
	if r.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+r.bearer)
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return fmt.Errorf("reaching %s at %s: %w", who, base.Host, unreached(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("%s: %w", who, problem.Read(resp.StatusCode, resp.Header.Get("Content-Type"), resp.Body))
	}
	if r.status != nil {
		*r.status = resp.StatusCode
	}
	limit := r.limit
	if limit == 0 {
		limit = maxAnswer
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return fmt.Errorf("reading the answer of %s: %w: %w", who, policies.CodeUnavailable, err)
	}
	if int64(len(data)) > limit {
		return fmt.Errorf("%w: the answer has more than %d bytes", ErrUntrue, limit)
	}
	switch out := r.out.(type) {
	case nil:
	case *jsontext.Value:
		*out = data
	case *[]byte:
		*out = data
	default:
		if err := envelope.Decode(data, out); err != nil {
			return fmt.Errorf("%w: %w", ErrUntrue, err)
		}
	}
	return nil
}

// errNotIn: there is no login. That says nothing of what was to be done with it.
var errNotIn = errors.New("logging in")

// loggedIn returns the login, made or renewed if need be.
func (w *wire) loggedIn(ctx context.Context) (*login, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.login != nil && w.now().Add(30*time.Second).Before(w.login.expires) {
		return w.login, nil
	}
	err := w.logIn(ctx)
	if errors.Is(err, policies.CodeUnauthorized) && len(w.successions) > 0 {
		for _, raw := range w.successions {
			if err := w.once(ctx, request{method: "POST", path: path(api.PathSuccessions, w.subject.String())}, raw); err != nil {
				return nil, fmt.Errorf("%w: %w", errNotIn, err)
			}
		}
		err = w.logIn(ctx)
	}
	return w.login, err
}

// logIn is called with mu held.
func (w *wire) logIn(ctx context.Context) error {
	key := envelope.NewSessionKey()
	var c api.LoginChallenge
	ask := func() error {
		return w.once(ctx, request{method: "POST", path: api.PathChallenges, out: &c}, encode(api.ChallengeRequest{Subject: w.subject, Key: key.Public()}))
	}
	err := ask()
	if errors.Is(err, policies.CodeNotFound) { // another storefront, or one that lost its data
		if err = w.once(ctx, request{method: "POST", path: api.PathIdentities}, w.identity); err == nil {
			err = ask()
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errNotIn, err)
	}
	// The server's name in the proof is the one this device dialled, so that a storefront cannot pass on another's challenge.
	proof, err := w.loginKey.Answer(&pre.Challenge{
		Server: w.storefront.Host, Subject: w.subject, Ciphertext: c.Ciphertext, Nonce: c.Nonce, FreshKey: key.Public(),
	})
	if err != nil {
		return fmt.Errorf("%w: %w: %w", errNotIn, ErrUntrue, err)
	}
	var l api.Login
	if err := w.once(ctx, request{method: "POST", path: api.PathLogins, out: &l}, encode(api.LoginAnswer{ID: c.ID, Proof: proof[:]})); err != nil {
		return fmt.Errorf("%w: %w", errNotIn, err)
	}
	w.login = &login{id: l.ID, key: key, expires: time.Unix(l.Expires, 0)}
	return nil
}

// forget drops the login.
func (w *wire) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.login = nil
}

// renew gives up the login, and logs in with another key from now on.
func (w *wire) renew(key *pre.LoginKey, successions []jsontext.Value) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loginKey.Zero()
	w.login, w.loginKey, w.successions = nil, key, successions
}

func (w *wire) close() {
	w.forget()
	w.loginKey.Zero()
	w.http.CloseIdleConnections()
}

// encode is for values that cannot fail to encode.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("client: " + err.Error())
	}
	return b
}
