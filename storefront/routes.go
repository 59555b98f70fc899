package storefront

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/gate"
)

// who says whose request a route answers. The rate class follows from it: open routes are limited by network address, the
// others by identity; reads, which carry their session's signature for the vault, by the session's reader.
type who int

const (
	anyone  who = iota // no login
	session            // no login: the body is signed by a session, which the handler looks up
	member             // any login; the handler checks what else must hold
	owner              // the login of the owner in the path
)

// route is one line of the table of what the storefront answers.
type route struct {
	method  string
	path    string
	who     who
	body    int64 // longest body in bytes
	timeout time.Duration
	handle  func(*Storefront, *call) error
}

const (
	kib = 1 << 10
	mib = 1 << 20
)

// readTimeout is how long a read may take: a reader rather asks again than waits.
const readTimeout = 15 * time.Second

var routes = []route{
	{"GET", api.PathVault, anyone, 0, 10 * time.Second, (*Storefront).getVault},
	{"GET", api.PathHealth, anyone, 0, 5 * time.Second, (*Storefront).getHealth},
	{"POST", api.PathIdentities, anyone, 32 * kib, vaultTimeout, (*Storefront).postIdentity},
	{"GET", api.PathIdentity, anyone, 0, 5 * time.Second, (*Storefront).getIdentity},
	{"POST", api.PathSuccessions, anyone, 64 * kib, 2 * vaultTimeout, (*Storefront).postSuccession},
	{"GET", api.PathSuccessions, anyone, 0, 5 * time.Second, (*Storefront).getSuccessions},
	{"POST", api.PathVoucher, anyone, 16 * kib, 2 * vaultTimeout, (*Storefront).postVoucher},
	{"GET", api.PathVoucher, anyone, 0, 5 * time.Second, (*Storefront).getVoucher},
	{"POST", api.PathChallenges, anyone, kib, 5 * time.Second, (*Storefront).postChallenge},
	{"POST", api.PathLogins, anyone, kib, 5 * time.Second, (*Storefront).postLogin},
	{"POST", api.PathRelationships, member, 32 * kib, 10 * time.Second, (*Storefront).postRelationship},
	{"GET", api.PathRelationships, member, 0, 10 * time.Second, (*Storefront).getRelationships},
	{"POST", api.PathManifests, member, api.MaxBody, 2 * vaultTimeout, (*Storefront).postManifest},
	{"GET", api.PathMirror, member, 0, vaultTimeout, (*Storefront).getMirror},
	{"GET", api.PathItem, owner, 0, 10 * time.Second, (*Storefront).getItem},
	{"GET", api.PathChain, owner, 0, 10 * time.Second, (*Storefront).getChain},
	{"POST", api.PathGrants, owner, vaultapi.MaxSubmission, 2 * vaultTimeout, (*Storefront).postGrant},
	{"POST", api.PathRevocations, owner, 2 * mib, 2 * vaultTimeout, (*Storefront).postRevocation},
	{"POST", api.PathClosure, owner, 32 * kib, 2 * vaultTimeout, (*Storefront).postClosure},
	{"POST", api.PathWriteGrants, owner, 64 * kib, 2 * vaultTimeout, (*Storefront).postWriteGrant},
	{"POST", api.PathWriteEnds, owner, mib, 2 * vaultTimeout, (*Storefront).postWriteEnd},
	{"GET", api.PathWriterGrants, member, 0, 10 * time.Second, (*Storefront).getWriterGrants},
	{"GET", api.PathHistory, owner, 0, 10 * time.Second, (*Storefront).getHistory},
	{"GET", api.PathFreeze, owner, 0, 10 * time.Second, (*Storefront).getFreeze},
	{"GET", api.PathConsistency, anyone, 0, 10 * time.Second, (*Storefront).getConsistency},
	{"GET", api.PathReaderGrants, member, 0, 10 * time.Second, (*Storefront).getReaderGrants},
	{"POST", api.PathRenunciations, member, 2 * mib, 2 * vaultTimeout, (*Storefront).postRenunciation},
	{"GET", api.PathRenunciations, member, 0, 10 * time.Second, (*Storefront).getRenunciations},
	{"POST", api.PathSessions, member, 32 * kib, 10 * time.Second, (*Storefront).postSession},
	{"POST", api.PathEvidence, session, vaultapi.MaxEvidence, readTimeout, (*Storefront).postEvidence},
	{"POST", api.PathMessages, member, api.MaxMessageBody, 10 * time.Second, (*Storefront).postMessage},
	{"GET", api.PathMessages, member, 0, api.MaxMessageWait + 15*time.Second, (*Storefront).getMessages},
	{"DELETE", api.PathMessages, member, 0, 10 * time.Second, (*Storefront).deleteMessages},
	{"POST", api.PathRegistrations, member, 16 * kib, 10 * time.Second, (*Storefront).postRegistration},
	{"POST", api.PathLookups, member, 32 * kib, 10 * time.Second, (*Storefront).postLookup},
	{"POST", api.PathTokens, member, 0, 5 * time.Second, (*Storefront).postToken},
	{"POST", api.PathRestoreTokens, anyone, 16 * kib, 5 * time.Second, (*Storefront).postRestoreToken},
	{"POST", api.PathDeviceOffer, anyone, kib, 5 * time.Second, postDeviceOffer},
	{"POST", api.PathDeviceAnswer, member, kib, 5 * time.Second, postDeviceAnswer},
	{"POST", api.PathDeviceOpening, anyone, 4 * kib, 5 * time.Second, postDeviceOpening},
	{"POST", api.PathDeviceProfile, member, 2 * mib, 10 * time.Second, postDeviceProfile},
	{"GET", api.PathDeviceOffer, anyone, 0, 5 * time.Second, (*Storefront).getDevice},
	{"GET", api.PathDeviceAnswer, anyone, 0, 5 * time.Second, (*Storefront).getDevice},
	{"GET", api.PathDeviceOpening, anyone, 0, 5 * time.Second, (*Storefront).getDevice},
	{"GET", api.PathDeviceProfile, anyone, 0, 10 * time.Second, (*Storefront).getDevice},
	{"POST", api.PathReads, session, mib, readTimeout, (*Storefront).postRead},
}

// engine builds the Gin engine from the table. No proxy is trusted: the peer's address is the address.
func (s *Storefront) engine() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	_ = e.SetTrustedProxies(nil) // nothing to parse, so nothing fails
	e.ForwardedByClientIP = false
	e.RedirectTrailingSlash, e.RedirectFixedPath = false, false
	e.HandleMethodNotAllowed = true
	e.Use(s.recover)
	e.NoRoute(func(c *gin.Context) {
		problem.Write(c.Writer, problem.New(policies.CodeNotFound, "no such path"))
	})
	e.NoMethod(methodNotAllowed)
	toGin := strings.NewReplacer("{", ":", "}", "")
	for _, r := range routes {
		e.Handle(r.method, toGin.Replace(r.path), func(c *gin.Context) { s.serve(&r, c) })
	}
	return e
}

// methodNotAllowed is the one problem whose status is not its code's.
func methodNotAllowed(c *gin.Context) {
	p := problem.Of(problem.New(policies.CodeMalformed, "the path does not take this method; see Allow"))
	p.Status = http.StatusMethodNotAllowed
	body, err := json.Marshal(p)
	if err != nil {
		problem.Write(c.Writer, err)
		return
	}
	c.Header("Content-Type", problem.ContentType)
	c.Header("Cache-Control", "no-store")
	c.Status(http.StatusMethodNotAllowed)
	_, _ = c.Writer.Write(body)
}

// recover turns a panic into a problem. The stack goes to the log, the request does not.
func (s *Storefront) recover(c *gin.Context) {
	defer func() {
		if r := recover(); r != nil {
			if r == http.ErrAbortHandler {
				panic(r)
			}
			s.log.Error("a request handler panicked", "path", c.FullPath(), "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			if !c.Writer.Written() {
				problem.Write(c.Writer, policies.CodeInternal)
			}
			c.Abort()
		}
	}()
	c.Next()
}

// call is one request on its way through a handler.
type call struct {
	*gin.Context
	ctx     context.Context
	body    []byte
	subject policies.IdentityID // whose login signed it; zero for open routes
	shares  []*gate.Share[string]
}

func (s *Storefront) serve(r *route, g *gin.Context) {
	ctx, cancel := context.WithTimeout(g.Request.Context(), r.timeout)
	defer cancel()
	c := &call{Context: g, ctx: ctx}
	defer func() {
		for _, share := range c.shares {
			share.Give()
		}
	}()
	if err := s.admit(r, c); err != nil {
		s.fail(c, err)
		return
	}
	if err := r.handle(s, c); err != nil {
		s.fail(c, err)
	}
}

// admit applies the route's limits and reads the body. A request that must be signed is charged to its network address until
// its signature has verified, so that forged ones cannot use up an identity's rate.
func (s *Storefront) admit(r *route, c *call) error {
	var err error
	switch r.who {
	case anyone:
		if err := s.chargeNetwork(c); err != nil {
			return err
		}
		c.body, err = s.readBody(c, r.body, "a"+gate.Network(c.Request.RemoteAddr).String())
		return err
	case session:
		if c.body, err = s.readBody(c, r.body, "a"+gate.Network(c.Request.RemoteAddr).String()); err != nil {
			if limited := s.chargeNetwork(c); limited != nil {
				return limited
			}
			return err
		}
		return nil
	}
	c.subject, c.body, err = s.authenticate(c, r.body)
	if errors.Is(err, policies.CodeRateLimited) {
		return err
	}
	if err != nil {
		if limited := s.chargeNetwork(c); limited != nil {
			return limited
		}
		return err
	}
	if r.who == owner {
		id, err := c.owner()
		if err != nil {
			return err
		}
		if policies.IdentityID(id) != c.subject {
			return problem.New(policies.CodeUnauthorized, "this belongs to another owner than the one who logged in")
		}
	}
	return nil
}

// chargeNetwork takes a request off the rate of its network address.
func (s *Storefront) chargeNetwork(c *call) error {
	if !s.callers.allow("a"+gate.Network(c.Request.RemoteAddr).String(), s.now(), s.limits.OpenRate, s.limits.OpenBurst, 1) {
		return rateLimited()
	}
	return nil
}

func rateLimited() error { return &problem.Problem{Code: policies.CodeRateLimited, RetryAfter: 1} }

// trustedLength is up to how many bytes memory is set aside for a body before it comes.
const trustedLength = 64 * kib

// share is what a call takes of the memory that callers may have, until it is answered.
func (s *Storefront) share(c *call, who string) *gate.Share[string] {
	share := s.memory.Share(who)
	c.shares = append(c.shares, share)
	return share
}

func crowded() error {
	return &problem.Problem{Code: policies.CodeRateLimited, Detail: "too many bytes at once", RetryAfter: 1}
}

// readBody reads the whole body or refuses it. Who it is from shares out the memory for it.
func (s *Storefront) readBody(c *call, limit int64, who string) ([]byte, error) {
	if limit == 0 {
		if c.Request.ContentLength > 0 {
			return nil, problem.New(policies.CodeTooLarge, "this request has no body")
		}
		return nil, nil
	}
	if c.Request.ContentLength > limit {
		return nil, problem.New(policies.CodeTooLarge, "a body of at most %d bytes is allowed", limit)
	}
	var b bytes.Buffer
	if n := c.Request.ContentLength; n > 0 { // what was only announced takes no memory yet
		b.Grow(int(min(n, trustedLength)) + bytes.MinRead)
	}
	_, err := b.ReadFrom(s.share(c, who).Reader(http.MaxBytesReader(c.Writer, c.Request.Body, limit), trustedLength))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, gate.ErrCrowded):
		return nil, crowded()
	case errors.As(err, &tooLarge):
		return nil, problem.New(policies.CodeTooLarge, "a body of at most %d bytes is allowed", limit)
	case err != nil:
		return nil, problem.New(policies.CodeMalformed, "the body ended early")
	}
	return b.Bytes(), nil
}

// fail answers with a problem, and tells the operator what the caller is not told.
func (s *Storefront) fail(c *call, err error) {
	switch {
	case errors.Is(err, store.ErrFull), errors.Is(err, store.ErrBroken):
		s.log.Error("the store takes no writes", "error", err)
		err = unavailable(err)
	case errors.Is(err, store.ErrTooLarge):
		err = problem.New(policies.CodeTooLarge, "more at once than the storefront's database is set up for")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		err = &problem.Problem{Code: policies.CodeUnavailable, Detail: "it took too long", RetryAfter: 1}
	}
	p := problem.Of(err)
	switch {
	case p.Code == policies.CodeInternal:
		s.log.Error("a request failed", "path", c.FullPath(), "error", err)
	case p.Code == policies.CodeUnavailable && p.RetryAfter == 0: // a vault that does not answer, say
		p.RetryAfter = 1
	}
	problem.Write(c.Writer, p)
}

// buffers are reused for answers, which are encoded once and written once.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// keptBuffer is the largest buffer that is kept for reuse, in bytes.
const keptBuffer = mib

func (c *call) json(status int, v any) error {
	b := buffers.Get().(*bytes.Buffer)
	defer func() {
		if b.Cap() <= keptBuffer {
			b.Reset()
			buffers.Put(b)
		}
	}()
	if err := json.MarshalWrite(b, v); err != nil {
		return fmt.Errorf("encoding an answer: %w", err)
	}
	return c.send(status, "application/json", b.Bytes())
}

func (c *call) send(status int, contentType string, body []byte) error {
	h := c.Writer.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", fmt.Sprint(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	c.Writer.WriteHeader(status)
	if _, err := io.Copy(c.Writer, bytes.NewReader(body)); err != nil {
		return nil // the caller hung up; nobody is left to be told
	}
	return nil
}

func (c *call) owner() (policies.OwnerID, error) {
	var id policies.OwnerID
	err := id.UnmarshalText([]byte(c.Param("owner")))
	return id, err
}
