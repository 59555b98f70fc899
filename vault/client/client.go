// Package client is how a storefront talks to a vault.
//
// The normal path: [New] once, then its methods from any goroutine. [Client.Reencrypt] takes one reader's request at a time;
// concurrent ones share HTTP requests, because a vault that decides, records and derives for many at once pays for one record and one call
// of the token. There is no timer: a request that finds the line free goes at once, and whatever waits while all lines are
// busy goes together.
//
// The vault is not trusted with anything here, nor is the storefront by the vault: documents and requests are signed by others,
// answers are sealed to readers. TLS keeps strangers out and, with its hybrid key exchange, metadata from whoever records today.
//
// Errors wrap a [policies.Code]. What is not a refusal by the vault itself is policies.CodeUnavailable: nothing is known of the outcome,
// and a document may be sent again.
//
// A vault whose machine or network is gone is found out within seconds, on connections in use and on idle ones. A request that met a connection of
// before, whose other side knows nothing of it, is sent once more over a new one: the vault gives the same document the same receipt, and a read
// that it had decided all the same gets policies.CodeReplay, upon which a reader signs anew.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/sockets"
)

const (
	defaultInFlight = 4
	// callTimeout bounds a shared reencrypt request: longer than the vault gives its token.
	callTimeout = 45 * time.Second
	// dialTimeout and patience bound what a vault costs that is gone without a word: longer than a packet or two that got lost, and together below what a
	// reader waits for.
	dialTimeout = 3 * time.Second
	patience    = 5 * time.Second
	maxAnswer   = 16 << 20 // bytes of a JSON answer
)

// Config says where the vault is.
type Config struct {
	// Address is an https URL, or unix: and the path of a socket.
	Address string
	// TLS has the vault's certificate authority and the storefront's certificate. New sets the version and the key exchange.
	TLS *tls.Config
	// AllowClassical permits a key exchange without ML-KEM.
	AllowClassical bool
	// InFlight is how many reencrypt requests may be under way at once. Zero means 4: fewer requests carry more
	// calls each, and vault, log and token are asked less often (tests/load, two cores: 8 took a tenth more CPU time a read, 2 left cores idle).
	InFlight int
}

// Client talks to one vault.
type Client struct {
	base string
	http *http.Client

	inFlight int
	mu       sync.Mutex // guards queue and busy
	queue    []*waiting
	busy     int
}

// waiting is one call of Reencrypt in the queue.
type waiting struct {
	call      api.Call
	size      int
	reply     api.Reply
	err       error
	abandoned atomic.Bool
	done      chan struct{}
}

// New makes a client. It opens no connection yet.
func New(cfg Config) (*Client, error) {
	c := &Client{inFlight: cfg.InFlight}
	if c.inFlight <= 0 {
		c.inFlight = defaultInFlight
	}
	transport := &http.Transport{
		MaxIdleConns: c.inFlight + 16, MaxIdleConnsPerHost: c.inFlight + 16, IdleConnTimeout: 90 * time.Second,
		DisableCompression: true, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: callTimeout,
		ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10,
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}, // HTTP/1.1: one request, one connection
	}
	dialer := &sockets.Dialer{Timeout: dialTimeout, Patience: patience, Lost: transport.CloseIdleConnections}
	if path, ok := strings.CutPrefix(cfg.Address, "unix:"); ok {
		if path == "" {
			return nil, errors.New("vault address: unix: needs the path of a socket")
		}
		c.base = "http://vault"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) }
	} else {
		u, err := url.Parse(cfg.Address)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return nil, fmt.Errorf("vault address %q is neither https://HOST:PORT nor unix:PATH", cfg.Address)
		}
		c.base = "https://" + u.Host
		transport.DialContext = dialer.DialContext
		transport.TLSClientConfig = &tls.Config{}
		if cfg.TLS != nil {
			transport.TLSClientConfig = cfg.TLS.Clone()
		}
		transport.TLSClientConfig.MinVersion = tls.VersionTLS13
		if !cfg.AllowClassical {
			transport.TLSClientConfig.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768}
		}
	}
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Submit has the vault act on a signed document. The same document again gets a receipt of the same entry.
func (c *Client) Submit(ctx context.Context, s api.Submission) (*evidence.Receipt, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", policies.CodeMalformed, err)
	}
	if len(body) > api.MaxSubmission {
		return nil, policies.CodeTooLarge
	}
	data, err := c.do(ctx, http.MethodPost, api.PathDocuments, "application/json", body, maxAnswer)
	if err != nil {
		return nil, err
	}
	r, err := evidence.ParseReceipt(data)
	if err != nil {
		return nil, strange(err)
	}
	return r, nil
}

// Vault is the vault document's envelope. Whoever relies on it verifies it against a pin.
func (c *Client) Vault(ctx context.Context) (*envelope.Envelope, error) {
	data, err := c.do(ctx, http.MethodGet, api.PathVault, "", nil, maxAnswer)
	if err != nil {
		return nil, err
	}
	e, err := envelope.Parse(data)
	if err != nil {
		return nil, strange(err)
	}
	return e, nil
}

// Chain is where an owner's chain stands.
func (c *Client) Chain(ctx context.Context, owner policies.OwnerID) (*api.ChainState, error) {
	return get[api.ChainState](ctx, c, strings.Replace(api.PathChain, "{owner}", owner.String(), 1))
}

// Head is the newest manifest of an author for an owner.
func (c *Client) Head(ctx context.Context, owner policies.OwnerID, author policies.AuthorID) (*api.HeadState, error) {
	return get[api.HeadState](ctx, c, strings.NewReplacer("{owner}", owner.String(), "{author}", author.String()).Replace(api.PathHead))
}

// History is a page of the entries that concern an owner, newest first, below before (0: from the newest).
func (c *Client) History(ctx context.Context, owner policies.OwnerID, before uint64, limit int) (*api.History, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if before != 0 {
		q.Set("before", strconv.FormatUint(before, 10))
	}
	return get[api.History](ctx, c, strings.Replace(api.PathHistory, "{owner}", owner.String(), 1)+"?"+q.Encode())
}

// Freeze says whether all reading of an owner is stopped.
func (c *Client) Freeze(ctx context.Context, owner policies.OwnerID) (*api.FreezeState, error) {
	return get[api.FreezeState](ctx, c, strings.Replace(api.PathFreeze, "{owner}", owner.String(), 1))
}

// Consistency proves that the log of to entries begins with the log of from entries. Clients verify it.
func (c *Client) Consistency(ctx context.Context, from, to uint64) (*api.Consistency, error) {
	q := url.Values{"from": {strconv.FormatUint(from, 10)}, "to": {strconv.FormatUint(to, 10)}}
	return get[api.Consistency](ctx, c, api.PathLogConsistency+"?"+q.Encode())
}

// Evidence has the vault answer a reader's request for evidence. The answer is for the reader alone.
func (c *Client) Evidence(ctx context.Context, request []byte) (*api.SealedEvidence, error) {
	data, err := c.do(ctx, http.MethodPost, api.PathEvidence, "application/json", request, maxAnswer)
	if err != nil {
		return nil, err
	}
	v := new(api.SealedEvidence)
	if err := envelope.Decode(data, v); err != nil {
		return nil, strange(err)
	}
	return v, nil
}

// Health tells whether keys can be used.
func (c *Client) Health(ctx context.Context) (*api.Health, error) {
	return get[api.Health](ctx, c, api.PathHealth)
}

// Reencrypt has the vault decide one read request and carry it out. If ctx ends first the outcome is unknown: the request may
// have been recorded and its nonce used.
func (c *Client) Reencrypt(ctx context.Context, call api.Call) (api.Reply, error) {
	w := &waiting{call: call, size: size(&call), done: make(chan struct{})}
	if w.size > api.MaxCallsSize-4 {
		return api.Reply{}, policies.CodeTooLarge
	}
	c.mu.Lock()
	c.queue = append(c.queue, w)
	if c.busy < c.inFlight {
		c.busy++
		go c.send()
	}
	c.mu.Unlock()
	select {
	case <-w.done:
		return w.reply, w.err
	case <-ctx.Done():
		w.abandoned.Store(true)
		return api.Reply{}, fmt.Errorf("%w: waiting for the vault: %w", policies.CodeUnavailable, ctx.Err())
	}
}

// send is one line to the vault: it carries what waits until nothing does.
func (c *Client) send() {
	for {
		batch := c.take()
		if batch == nil {
			return
		}
		replies, err := c.reencrypt(batch)
		for i, w := range batch {
			if err != nil {
				w.err = err
			} else {
				w.reply = replies[i]
			}
			close(w.done)
		}
	}
}

// take takes from the queue what fits into one request, or gives up the line.
func (c *Client) take() []*waiting {
	c.mu.Lock()
	defer c.mu.Unlock()
	var batch []*waiting
	n, total := 0, 4
	for ; n < len(c.queue); n++ {
		w := c.queue[n]
		if w.abandoned.Load() {
			continue
		}
		if len(batch) == api.MaxCalls || total+w.size > api.MaxCallsSize {
			break
		}
		batch, total = append(batch, w), total+w.size
	}
	rest := copy(c.queue, c.queue[n:])
	clear(c.queue[rest:])
	c.queue = c.queue[:rest]
	if batch == nil {
		c.busy--
	}
	return batch
}

func (c *Client) reencrypt(batch []*waiting) ([]api.Reply, error) {
	// The callers' contexts end their waiting, not the work of the others in the same request.
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	calls := make([]api.Call, len(batch))
	total := 4
	for i, w := range batch {
		calls[i], total = w.call, total+w.size
	}
	body := api.AppendCalls(make([]byte, 0, total), calls)
	data, err := c.do(ctx, http.MethodPost, api.PathReencrypt, api.ReencryptMedia, body, api.MaxCallsSize)
	if err != nil {
		return nil, err
	}
	replies, err := api.ParseReplies(data)
	if err != nil {
		return nil, strange(err)
	}
	if len(replies) != len(batch) {
		return nil, strange(fmt.Errorf("%d replies to %d calls", len(replies), len(batch)))
	}
	return replies, nil
}

// size is the length of a call in api.AppendCalls.
func size(call *api.Call) int {
	n := 4 + len(call.Request) + 2
	for i := range call.Items {
		n += 32 + 32 + 2 + len(call.Items[i].Leaf) + 65 + 8 + 1 + 32*len(call.Items[i].Proof.Path)
	}
	return n
}

func get[T any](ctx context.Context, c *Client, path string) (*T, error) {
	data, err := c.do(ctx, http.MethodGet, path, "", nil, maxAnswer)
	if err != nil {
		return nil, err
	}
	v := new(T)
	if err := envelope.Decode(data, v); err != nil {
		return nil, strange(err)
	}
	return v, nil
}

// do sends one request and reads the whole answer.
func (c *Client) do(ctx context.Context, method, path, contentType string, body []byte, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", policies.CodeMalformed, err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header["Idempotency-Key"] = []string{} // not sent; tells the transport that it may send the request again over another connection
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: asking the vault: %w", policies.CodeUnavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, problem.Read(resp.StatusCode, resp.Header.Get("Content-Type"), resp.Body)
	}
	data, err := readAll(resp, limit)
	if err != nil {
		return nil, fmt.Errorf("%w: reading the vault's answer: %w", policies.CodeUnavailable, err)
	}
	return data, nil
}

func readAll(resp *http.Response, limit int64) ([]byte, error) {
	if resp.ContentLength > limit {
		return nil, errors.New("it is longer than allowed")
	}
	var b bytes.Buffer
	if resp.ContentLength > 0 {
		b.Grow(int(resp.ContentLength) + bytes.MinRead)
	}
	n, err := b.ReadFrom(io.LimitReader(resp.Body, limit+1))
	if err == nil && n > limit {
		err = errors.New("it is longer than allowed")
	}
	return b.Bytes(), err
}

// strange is an answer that no vault gives.
func strange(err error) error {
	return fmt.Errorf("%w: the vault's answer makes no sense: %w", policies.CodeUnavailable, err)
}
