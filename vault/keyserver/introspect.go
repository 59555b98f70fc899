package keyserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
)

// Introspector asks a storefront about access tokens, by RFC 7662 over TLS with certificates on both sides. It keeps no answer: a token that the
// storefront takes back is refused at once.
type Introspector struct {
	url  string
	http *http.Client
	now  func() time.Time
}

// introspectTimeout bounds one question to the storefront.
const introspectTimeout = 10 * time.Second

// NewIntrospector asks at an https URL.
func NewIntrospector(url string, config *tls.Config) *Introspector {
	return &Introspector{url: url, now: time.Now, http: &http.Client{
		Transport:     &http.Transport{TLSClientConfig: config, IdleConnTimeout: 90 * time.Second, MaxIdleConnsPerHost: 16},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       introspectTimeout,
	}}
}

// introspection is the answer of RFC 7662 section 2.2, as far as it counts here. A storefront may say more.
type introspection struct {
	Active   bool             `json:"active"`
	Scope    string           `json:"scope"`
	Subject  policies.OwnerID `json:"sub"`
	Audience string           `json:"aud"`
	Expires  int64            `json:"exp"`
}

// Audience is what an access token for a key server is made for.
const Audience = "sallyport-keyserver"

// maxIntrospection is the length of the longest answer in bytes.
const maxIntrospection = 16 << 10

// Introspect says whose a token is.
func (i *Introspector) Introspect(ctx context.Context, token string) (Access, error) {
	away := func(err error) (Access, error) {
		return Access{}, fmt.Errorf("%w: asking the storefront about an access token: %w", policies.CodeUnavailable, err)
	}
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, i.url, strings.NewReader(form.Encode()))
	if err != nil {
		return away(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	resp, err := i.http.Do(req)
	if err != nil {
		return away(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxIntrospection))
	if err != nil {
		return away(err)
	}
	if resp.StatusCode != http.StatusOK {
		return away(fmt.Errorf("it answered with status %d", resp.StatusCode))
	}
	return parseIntrospection(body, i.now())
}

// parseIntrospection refuses every token that is not active, for key servers, in its time, and of somebody.
func parseIntrospection(body []byte, now time.Time) (Access, error) {
	var in introspection
	if err := json.Unmarshal(body, &in); err != nil {
		return Access{}, fmt.Errorf("%w: the storefront's answer about an access token is none", policies.CodeUnavailable)
	}
	if !in.Active || in.Audience != Audience || in.Expires <= now.Unix() || in.Subject.IsZero() || in.Scope == "" {
		return Access{}, problem.New(policies.CodeUnauthorized, "the access token is unknown, has ended, or is for something else")
	}
	return Access{Owner: in.Subject, Scope: in.Scope}, nil
}
