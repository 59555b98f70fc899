package keyserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/time/rate"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/gate"
	"github.com/sallyport/sallyport/vault/keyserver/api"
)

// Access is what a storefront says of an access token.
type Access struct {
	Owner policies.OwnerID
	Scope string
}

// Tokens asks the storefront whose an access token is. One that is not active is policies.CodeUnauthorized.
type Tokens interface {
	Introspect(ctx context.Context, token string) (Access, error)
}

// Rates bound what may be asked.
type Rates struct {
	PerSecond float64 // requests of one network address
	Burst     int
	Tries     float64 // passwords and sheets a second over all, each of which is an entry of the log
}

// maxAddresses bounds the limiter's memory.
const maxAddresses = 16384

// shut refuses what is asked too often.
type shut struct {
	rates Rates
	tries *rate.Limiter
	mu    sync.Mutex
	of    map[netip.Prefix]*rate.Limiter
}

func (l *shut) allow(remote string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := gate.Network(remote)
	if l.of[key] == nil {
		if len(l.of) >= maxAddresses {
			for old, b := range l.of {
				if b.TokensAt(now) >= float64(l.rates.Burst) {
					delete(l.of, old)
				}
			}
			if len(l.of) >= maxAddresses {
				clear(l.of)
			}
		}
		l.of[key] = rate.NewLimiter(rate.Limit(l.rates.PerSecond), l.rates.Burst)
	}
	return l.of[key].AllowN(now, 1)
}

// route is one line of the table.
type route struct {
	method, path string
	body         int64 // bytes, 0: none, and no access token either
	scope        string
	try          bool // counts against Rates.Tries
	handle       func(s *Server, ctx context.Context, owner policies.OwnerID, body []byte) (any, error)
}

var routes = []route{
	{http.MethodGet, api.PathServer, 0, "", false, func(s *Server, _ context.Context, _ policies.OwnerID, _ []byte) (any, error) {
		return api.Server{ID: s.id}, nil
	}},
	{http.MethodPost, api.PathAsk, api.MaxAsk, api.ScopeAccount, false, with((*Server).Ask)},
	{http.MethodPost, api.PathAccount, api.MaxBody, api.ScopeAccount, false, with((*Server).Put)},
	{http.MethodPost, api.PathEvaluate, 4 << 10, "", true, with((*Server).Evaluate)},
	{http.MethodPost, api.PathOpen, 4 << 10, "", false, with((*Server).Open)},
	{http.MethodPost, api.PathKit, 4 << 10, "", true, with((*Server).Kit)},
}

// with decodes a body for a method.
func with[In, Out any](f func(*Server, context.Context, policies.OwnerID, *In) (*Out, error)) func(*Server, context.Context, policies.OwnerID, []byte) (any, error) {
	return func(s *Server, ctx context.Context, owner policies.OwnerID, body []byte) (any, error) {
		in := new(In)
		if err := envelope.Decode(body, in); err != nil {
			return nil, err
		}
		return f(s, ctx, owner, in)
	}
}

// timeout bounds one request, in which the token may make a key.
const timeout = 30 * time.Second

// Handler serves devices. Nothing of a body and no access token is ever logged.
func (s *Server) Handler(tokens Tokens, rates Rates) http.Handler {
	limits := &shut{rates: rates, tries: rate.NewLimiter(rate.Limit(rates.Tries), int(rates.Tries)+1), of: map[netip.Prefix]*rate.Limiter{}}
	mux := http.NewServeMux()
	for _, rt := range routes {
		mux.HandleFunc(rt.method+" "+rt.path, func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), timeout)
			defer cancel()
			out, err := s.serve(ctx, w, r, &rt, tokens, limits)
			if err != nil {
				s.fail(w, r, err)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", strconv.Itoa(len(out)))
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			_, _ = w.Write(out) // who went away is not told
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { problem.Write(w, policies.CodeNotFound) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				s.logger.Error("a handler panicked", "path", r.Pattern, "panic", fmt.Sprintf("%T", p))
				problem.Write(w, policies.CodeInternal)
			}
		}()
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) serve(ctx context.Context, w http.ResponseWriter, r *http.Request, rt *route, tokens Tokens, limits *shut) ([]byte, error) {
	if !limits.allow(r.RemoteAddr, s.now()) {
		return nil, &problem.Problem{Code: policies.CodeRateLimited, RetryAfter: 1}
	}
	var owner policies.OwnerID
	var body []byte
	if rt.body > 0 {
		access, err := s.authorise(ctx, r, tokens)
		if err != nil {
			return nil, err
		}
		if rt.scope != "" && access.Scope != rt.scope {
			return nil, problem.New(policies.CodeUnauthorized, "the access token is not that of a device that is logged in")
		}
		owner = access.Owner
		if rt.try && !limits.tries.AllowN(s.now(), 1) {
			return nil, &problem.Problem{Code: policies.CodeRateLimited, RetryAfter: 2}
		}
		if body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, rt.body)); err != nil {
			if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
				return nil, policies.CodeTooLarge
			}
			return nil, fmt.Errorf("%w: the body was cut short", policies.CodeMalformed)
		}
		defer clear(body)
	}
	out, err := rt.handle(s, ctx, owner, body)
	if err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

// maxToken is the length of the longest access token.
const maxToken = 1024

func (s *Server) authorise(ctx context.Context, r *http.Request, tokens Tokens) (Access, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" || len(token) > maxToken {
		return Access{}, problem.New(policies.CodeUnauthorized, "an access token of the storefront is needed")
	}
	return tokens.Introspect(ctx, token)
}

// fail answers with a problem. What is wrong inside is for the log of this process, not for a stranger.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := problem.Of(err)
	switch p.Code {
	case policies.CodeInternal, policies.CodeLogStopped, policies.CodeLogFull, policies.CodeClock, policies.CodeTokenFailure:
		s.logger.Error("a request failed", slog.String("path", r.Pattern), slog.String("error", err.Error()))
		p = problem.Of(p.Code)
	}
	problem.Write(w, p)
}
