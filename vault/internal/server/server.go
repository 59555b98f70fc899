// Package server is the vault's two doors: HTTP over the vault itself.
//
// The storefront's door (a client certificate of the configured authority, or a Unix socket) offers everything. The owners' door offers what
// an owner needs when the storefront is silent, lies or has lost something: the vault document, submitting signed documents, where a refusal
// tells the signer the state of their chain, fetching the chain's documents with a signed question, consistency proofs of the log, evidence for readers, and the
// log's entries for auditors. Neither caller is trusted: what they bring is signed by others and verified by the vault. So the doors only bound what
// a caller can cost: bodies, times, headers, connections, and on the owners' door requests per address.
//
// Every error is a problem document with a stable code. Nothing of a body is ever logged.
package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
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
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/gate"
)

// Vault is what stands behind the doors.
type Vault interface {
	Submit(context.Context, api.Submission) (*evidence.Receipt, error)
	Reencrypt(context.Context, []api.Call) []api.Reply
	Fetch(api.Fetch) (*api.Fetched, error)
	Chain(policies.OwnerID) (*api.ChainState, error)
	Head(policies.OwnerID, policies.AuthorID) (*api.HeadState, error)
	History(owner policies.OwnerID, before uint64, limit int) (*api.History, error)
	Freeze(owner policies.OwnerID) (*api.FreezeState, error)
	Consistency(from, to uint64) (*api.Consistency, error)
	// Query answers an auditor's signed query. done is called when the answer has gone out.
	Query(ctx context.Context, query []byte) (answer []byte, done func(), err error)
	Evidence(ctx context.Context, request []byte) ([]byte, error)
	Health() api.Health
	Document() *envelope.Envelope
	// Published is a file of the published key-use log that anybody may have: checkpoint, vault or a hash tile. What is not there, or if nothing is
	// published, is policies.CodeNotFound.
	Published(name string) ([]byte, error)
}

// Limits bound what may be asked of the owners' door: of one address a second and at once, and how many connections there may be, and from one address.
type Limits struct {
	PerSecond         float64
	Burst             int
	Connections, Each int
}

// caller is who may use a route.
type caller int

const (
	storefront caller = iota // the storefront's door only
	anyone                   // the owners' door as well
)

// route is one line of the table.
type route struct {
	method  string
	path    string
	body    int64 // bytes, 0: none
	timeout time.Duration
	who     caller
	handle  func(v Vault, w http.ResponseWriter, r *http.Request, body []byte) error
}

var routes = []route{
	{http.MethodGet, api.PathVault, 0, 5 * time.Second, anyone, vaultDocument},
	{http.MethodGet, api.PathHealth, 0, 5 * time.Second, anyone, health},
	{http.MethodGet, api.PathLogCheckpoint, 0, 5 * time.Second, anyone, logCheckpoint},
	{http.MethodGet, api.PathLogVault, 0, 5 * time.Second, anyone, logVault},
	{http.MethodGet, api.PathLogTile, 0, 5 * time.Second, anyone, logTile},
	{http.MethodGet, api.PathLogWitnessed, 0, 5 * time.Second, anyone, logWitnessed},
	{http.MethodPost, api.PathDocuments, api.MaxSubmission, 60 * time.Second, anyone, submit},
	{http.MethodPost, api.PathFetch, api.MaxFetch, 10 * time.Second, anyone, fetch},
	{http.MethodGet, api.PathChain, 0, 10 * time.Second, storefront, chain}, // an owner is told in chain_moved
	{http.MethodGet, api.PathHead, 0, 10 * time.Second, storefront, head},
	{http.MethodGet, api.PathHistory, 0, 30 * time.Second, storefront, history},
	{http.MethodGet, api.PathFreeze, 0, 10 * time.Second, storefront, frozen},
	{http.MethodGet, api.PathLogConsistency, 0, 10 * time.Second, anyone, consistency},
	{http.MethodPost, api.PathLogQuery, api.MaxQuery, 60 * time.Second, anyone, query},
	{http.MethodPost, api.PathEvidence, api.MaxEvidence, 30 * time.Second, anyone, proveEntries},
	{http.MethodPost, api.PathReencrypt, api.MaxCallsSize, 60 * time.Second, storefront, reencrypt},
}

// A Door is a server and the bounds of its connections. What it serves must be accepted through Bound.
type Door struct {
	*http.Server
	gate *gate.Gate
}

// Bound puts the door's bounds on a listener's connections, below TLS.
func (d *Door) Bound(l net.Listener) net.Listener { return d.gate.Listener(l) }

// storefrontConnections is how many connections the storefront's door has: some for reads, one for each document on its way, and room
// for strangers whose handshake has not failed yet.
const storefrontConnections = 1024

// Times of the doors. Strangers hold connections of the owners' door; an owner needs one now and then.
var (
	storefrontTimes = gate.Limits{
		Connections: storefrontConnections, Each: storefrontConnections,
		Header: 5 * time.Second, Request: 60 * time.Second, Answer: 90 * time.Second, Idle: 2 * time.Minute,
	}
	ownersTimes = gate.Limits{Header: 5 * time.Second, Request: 30 * time.Second, Answer: 90 * time.Second, Idle: 10 * time.Second}
)

// Storefront is the storefront's door.
func Storefront(v Vault, log *slog.Logger) *Door {
	return door("storefront", storefrontTimes, handler(v, storefront, nil, log), log)
}

// Owners is the owners' door.
func Owners(v Vault, limits Limits, log *slog.Logger) *Door {
	bounds := ownersTimes
	bounds.Connections, bounds.Each = limits.Connections, limits.Each
	return door("owners", bounds, handler(v, anyone, newLimiter(limits), log), log)
}

func door(name string, bounds gate.Limits, h http.Handler, log *slog.Logger) *Door {
	g := gate.New(name, bounds, log)
	return &Door{g.Server(h), g}
}

// handler makes the routes of a door.
func handler(v Vault, door caller, limit *limiter, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	memory := gate.NewBudget[netip.Prefix](ownersBodies, ownersBodiesEach)
	for _, rt := range routes {
		if rt.who < door {
			continue
		}
		mux.HandleFunc(rt.method+" "+rt.path, func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), rt.timeout)
			defer cancel()
			var share *gate.Share[netip.Prefix]
			if limit != nil {
				share = memory.Share(gate.Network(r.RemoteAddr))
				defer share.Give()
			}
			body, err := readBody(w, r, rt.body, share)
			if err == nil && limit != nil && enrols(body) && !limit.allow(r.RemoteAddr, time.Now(), limit.enrolment()) {
				err = &problem.Problem{Code: policies.CodeRateLimited, RetryAfter: 10}
			}
			if err == nil {
				err = rt.handle(v, w, r.WithContext(ctx), body)
			}
			if err != nil {
				fail(w, r, err, log)
			}
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { problem.Write(w, policies.CodeNotFound) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				log.Error("a handler panicked", "path", r.Pattern, "panic", fmt.Sprintf("%T", p))
				problem.Write(w, policies.CodeInternal)
			}
		}()
		if limit != nil && !limit.allow(r.RemoteAddr, time.Now(), 1) {
			problem.Write(w, &problem.Problem{Code: policies.CodeRateLimited, RetryAfter: 1})
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// fail answers with a problem. The text of an internal error is for the log of this process, not for a stranger.
func fail(w http.ResponseWriter, r *http.Request, err error, log *slog.Logger) {
	p := problem.Of(err)
	switch p.Code {
	case policies.CodeInternal:
		log.Error("internal error", "path", r.Pattern, "error", err.Error())
	case policies.CodeLogStopped, policies.CodeLogFull, policies.CodeClock, policies.CodeTokenFailure: // so is what is wrong with log and token, unless it was written for the caller
		if written := (*problem.Problem)(nil); !errors.As(err, &written) {
			p = problem.Of(p.Code)
		}
	}
	if p.Code == policies.CodeUnavailable && p.RetryAfter == 0 {
		p.RetryAfter = 1
	}
	problem.Write(w, p)
}

// trustedLength is up to how many bytes memory is set aside for a body before it comes.
const trustedLength = 64 << 10

// Bytes of bodies at the owners' door that are in memory at once, beyond the first trustedLength of each: over all, and from one address.
const (
	ownersBodies     = 128 << 20
	ownersBodiesEach = 4 * api.MaxSubmission
)

// readBody reads the whole body or refuses it. With a share, of the owners' door's memory, it takes from it.
func readBody(w http.ResponseWriter, r *http.Request, limit int64, share *gate.Share[netip.Prefix]) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, policies.CodeTooLarge
	}
	if limit == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	if r.ContentLength > 0 { // what was only announced takes no memory yet
		b.Grow(int(min(r.ContentLength, trustedLength)) + bytes.MinRead)
	}
	bounded := io.Reader(http.MaxBytesReader(w, r.Body, limit))
	if share != nil {
		bounded = share.Reader(bounded, trustedLength)
	}
	if _, err := b.ReadFrom(bounded); err != nil {
		if errors.Is(err, gate.ErrCrowded) {
			return nil, &problem.Problem{Code: policies.CodeRateLimited, Detail: "too many bytes at once", RetryAfter: 5}
		}
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			return nil, policies.CodeTooLarge
		}
		return nil, fmt.Errorf("%w: the body was cut short", policies.CodeMalformed)
	}
	return b.Bytes(), nil
}

func vaultDocument(v Vault, w http.ResponseWriter, _ *http.Request, _ []byte) error {
	return send(w, "application/json", v.Document().Raw)
}

func health(v Vault, w http.ResponseWriter, _ *http.Request, _ []byte) error {
	return sendJSON(w, v.Health())
}

func logCheckpoint(v Vault, w http.ResponseWriter, _ *http.Request, _ []byte) error {
	return published(v, w, "checkpoint", "text/plain; charset=utf-8", "no-cache")
}

func logVault(v Vault, w http.ResponseWriter, _ *http.Request, _ []byte) error {
	return published(v, w, "vault", "application/json", "no-cache")
}

// logTile serves hash tiles. Those of a name never change, so whoever has one may keep it.
func logTile(v Vault, w http.ResponseWriter, r *http.Request, _ []byte) error {
	tile, err := api.ParseTile(r.PathValue("tile"))
	if err != nil {
		return policies.CodeNotFound
	}
	return published(v, w, "tile/"+tile.String(), "application/octet-stream", "public, max-age=31536000, immutable")
}

// logWitnessed serves the older checkpoints that witnesses cosigned. They are numbered as full tiles are, and never change.
func logWitnessed(v Vault, w http.ResponseWriter, r *http.Request, _ []byte) error {
	tile, err := api.ParseTile("0/" + r.PathValue("number"))
	if err != nil || tile.Width != api.TileWidth {
		return policies.CodeNotFound
	}
	return published(v, w, "witnessed/"+strings.TrimPrefix(tile.String(), "0/"), "text/plain; charset=utf-8", "public, max-age=31536000, immutable")
}

func published(v Vault, w http.ResponseWriter, name, contentType, caching string) error {
	content, err := v.Published(name)
	if err != nil {
		return err
	}
	return sendCached(w, contentType, caching, content)
}

func submit(v Vault, w http.ResponseWriter, r *http.Request, body []byte) error {
	var s api.Submission
	if err := envelope.Decode(body, &s); err != nil {
		return err
	}
	receipt, err := v.Submit(r.Context(), s)
	if err != nil {
		return err
	}
	return sendJSON(w, receipt)
}

func fetch(v Vault, w http.ResponseWriter, _ *http.Request, body []byte) error {
	var f api.Fetch
	if err := envelope.Decode(body, &f); err != nil {
		return err
	}
	page, err := v.Fetch(f)
	if err != nil {
		return err
	}
	return sendJSON(w, page)
}

func chain(v Vault, w http.ResponseWriter, r *http.Request, _ []byte) error {
	var owner policies.OwnerID
	if err := owner.UnmarshalText([]byte(r.PathValue("owner"))); err != nil {
		return err
	}
	state, err := v.Chain(owner)
	if err != nil {
		return err
	}
	return sendJSON(w, state)
}

func head(v Vault, w http.ResponseWriter, r *http.Request, _ []byte) error {
	var owner policies.OwnerID
	var author policies.AuthorID
	if err := errors.Join(owner.UnmarshalText([]byte(r.PathValue("owner"))), author.UnmarshalText([]byte(r.PathValue("author")))); err != nil {
		return err
	}
	state, err := v.Head(owner, author)
	if err != nil {
		return err
	}
	return sendJSON(w, state)
}

func history(v Vault, w http.ResponseWriter, r *http.Request, _ []byte) error {
	var owner policies.OwnerID
	if err := owner.UnmarshalText([]byte(r.PathValue("owner"))); err != nil {
		return err
	}
	before, limit, err := numbers(r, "before", "limit")
	if err != nil {
		return err
	}
	page, err := v.History(owner, before, int(min(limit, 1<<20)))
	if err != nil {
		return err
	}
	return sendJSON(w, page)
}

func frozen(v Vault, w http.ResponseWriter, r *http.Request, _ []byte) error {
	var owner policies.OwnerID
	if err := owner.UnmarshalText([]byte(r.PathValue("owner"))); err != nil {
		return err
	}
	state, err := v.Freeze(owner)
	if err != nil {
		return err
	}
	return sendJSON(w, state)
}

func consistency(v Vault, w http.ResponseWriter, r *http.Request, _ []byte) error {
	from, to, err := numbers(r, "from", "to")
	if err != nil {
		return err
	}
	proof, err := v.Consistency(from, to)
	if err != nil {
		return err
	}
	return sendJSON(w, proof)
}

func query(v Vault, w http.ResponseWriter, r *http.Request, body []byte) error {
	answer, done, err := v.Query(r.Context(), body)
	if err != nil {
		return err
	}
	defer done()
	return send(w, "application/octet-stream", answer)
}

func proveEntries(v Vault, w http.ResponseWriter, r *http.Request, body []byte) error {
	sealed, err := v.Evidence(r.Context(), body)
	if err != nil {
		return err
	}
	return sendJSON(w, api.SealedEvidence{Answer: sealed})
}

// numbers reads two numbers of the query, 0 for one that is not there.
func numbers(r *http.Request, first, second string) (uint64, uint64, error) {
	var out [2]uint64
	for i, name := range []string{first, second} {
		text := r.URL.Query().Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseUint(text, 10, 63)
		if err != nil {
			return 0, 0, problem.New(policies.CodeMalformed, "%s is not a number", name)
		}
		out[i] = n
	}
	return out[0], out[1], nil
}

func reencrypt(v Vault, w http.ResponseWriter, r *http.Request, body []byte) error {
	if r.Header.Get("Content-Type") != api.ReencryptMedia {
		return problem.New(policies.CodeMalformed, "the content type is not %s", api.ReencryptMedia)
	}
	calls, err := api.ParseCalls(body)
	if err != nil {
		return err
	}
	replies := v.Reencrypt(r.Context(), calls)
	size := 4
	for i := range replies {
		size += 7 + len(replies[i].Code) + 24*len(replies[i].Outcomes) + len(replies[i].Sealed)
	}
	return send(w, api.ReencryptMedia, api.AppendReplies(make([]byte, 0, size), replies))
}

func sendJSON(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return send(w, "application/json", body)
}

func send(w http.ResponseWriter, contentType string, body []byte) error {
	return sendCached(w, contentType, "no-store", body)
}

func sendCached(w http.ResponseWriter, contentType, caching string, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", caching)
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(body) // who went away is not told
	return nil
}

// maxAddresses bounds the limiter's memory.
const maxAddresses = 16384

// limiter is a bucket for each address, or for each /64 of IPv6.
type limiter struct {
	limits  Limits
	mu      sync.Mutex
	buckets map[netip.Prefix]*bucket
}

type bucket struct {
	*rate.Limiter
	last time.Time
}

func newLimiter(limits Limits) *limiter {
	return &limiter{limits: limits, buckets: map[netip.Prefix]*bucket{}}
}

// enrolment is what an enrolment costs besides its request: the vault keeps an identity in memory for ever.
func (l *limiter) enrolment() int { return l.limits.Burst / 5 }

// enrols reports whether a body submits an identity. A body that is not well formed does not.
func enrols(body []byte) bool {
	var s api.Submission
	if len(body) == 0 || envelope.Decode(body, &s) != nil {
		return false
	}
	e, err := envelope.Parse(s.Envelope)
	return err == nil && e.Type == "identity"
}

func (l *limiter) allow(remote string, now time.Time, n int) bool {
	key := gate.Network(remote)
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[key]
	if b == nil {
		if len(l.buckets) >= maxAddresses {
			l.forget(now)
		}
		b = &bucket{Limiter: rate.NewLimiter(rate.Limit(l.limits.PerSecond), l.limits.Burst)}
		l.buckets[key] = b
	}
	b.last = now
	return b.AllowN(now, n)
}

// forget drops buckets that are full again, and if that is none of them, all.
func (l *limiter) forget(now time.Time) {
	for key, b := range l.buckets {
		if b.TokensAt(now) >= float64(l.limits.Burst) {
			delete(l.buckets, key)
		}
	}
	if len(l.buckets) >= maxAddresses {
		clear(l.buckets)
	}
}
