package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/vault/pre"
)

// The limits of a storefront and vault that are to be measured and not protected.
const (
	limits = `
[limits]
open_rate = 1000000.0
open_burst = 1000000
login_rate = 1000000.0
login_burst = 1000000
document_burst = 10000000
relationships = 1000000
field_rate = 10000000.0
field_burst = 10000000
`
	ownersLimits = ""
)

const (
	pairs   = 4   // owners, each with one reader
	fields  = 100 // of each owner, all granted
	purpose = "load"
)

// memory is a device's store for as long as the process lives.
type memory struct {
	mu    sync.Mutex
	state []byte
	items map[policies.Hash][]byte
}

func (m *memory) Load() ([]byte, error) { m.mu.Lock(); defer m.mu.Unlock(); return m.state, nil }
func (m *memory) Save(state []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = bytes.Clone(state)
	return nil
}

func (m *memory) PutItem(h policies.Hash, ciphertext []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.items == nil {
		m.items = map[policies.Hash][]byte{}
	}
	m.items[h] = ciphertext
	return nil
}

func (m *memory) Item(h policies.Hash) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c, ok := m.items[h]; ok {
		return c, nil
	}
	return nil, errors.New("not here")
}
func (m *memory) KeepItems(map[policies.Hash]bool) error { return nil }

// crowd is the readers. Most requests are made by a bare client that signs and checks that everything was released; one in a hundred goes through the
// SDK, which verifies and opens.
type crowd struct {
	http    *http.Client
	url     string
	sdk     []*client.Reader
	readers []*reader
	stage   *stage.Stage
}

// reader is one of those who read at once. It has a session and a connection of its own.
type reader struct {
	line    *line
	sdk     *client.Reader
	owner   policies.OwnerID
	vault   policies.VaultID
	session policies.Hash
	key     *envelope.SessionKey
	have    []policies.Hash
	turn    int
}

func newCrowd(ctx context.Context, s *stage.Stage, count int) (*crowd, error) {
	pem, err := os.ReadFile(s.CA())
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c := &crowd{url: s.StorefrontURL(), stage: s, http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		MaxIdleConnsPerHost: count, MaxConnsPerHost: count, DisableCompression: true,
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}},
		TLSNextProto:    map[string]func(string, *tls.Conn) http.RoundTripper{}, // HTTP/1.1: cheaper for both sides than HTTP/2
	}}}
	network, err := client.NewNetwork(s.Join(), client.Options{Roots: pem})
	if err != nil {
		return nil, err
	}
	for pair := range pairs {
		store := new(memory)
		sdk, err := client.InitReader(ctx, store, network, policies.KindBusiness, fmt.Sprintf("Load %d", pair), client.Options{})
		if err != nil {
			return nil, err
		}
		c.sdk = append(c.sdk, sdk)
		owner, err := newOwner(ctx, network, sdk)
		if err != nil {
			return nil, err
		}
		for range (count + pairs - 1) / pairs {
			r, err := c.newReader(ctx, store, sdk, owner)
			if err != nil {
				return nil, err
			}
			c.readers = append(c.readers, r)
		}
	}
	c.readers = c.readers[:count]
	return c, nil
}

func newOwner(ctx context.Context, network client.Network, sdk *client.Reader) (policies.OwnerID, error) {
	owner, err := client.InitOwner(ctx, new(memory), network, client.Options{})
	if err != nil {
		return policies.OwnerID{}, err
	}
	defer owner.Close()
	var changes []client.Change
	var names []policies.Field
	for i := range fields {
		names = append(names, policies.Field(fmt.Sprintf("own/load-%03d", i)))
		changes = append(changes, client.Change{Field: names[i], Value: []byte(fmt.Sprintf("value %d of an owner", i))})
	}
	if err := owner.Set(ctx, changes...); err != nil {
		return owner.ID(), err
	}
	code, err := owner.Code()
	if err != nil {
		return owner.ID(), err
	}
	if _, err := sdk.Connect(ctx, code, "owner"); err != nil {
		return owner.ID(), err
	}
	if _, err := owner.Connect(ctx, sdk.Code(), "reader"); err != nil {
		return owner.ID(), err
	}
	return owner.ID(), owner.Grant(ctx, sdk.ID(), names, client.GrantOptions{Purpose: purpose})
}

// newReader opens a session in the name of an SDK's identity, whose root it takes from its store.
func (c *crowd) newReader(ctx context.Context, store *memory, sdk *client.Reader, owner policies.OwnerID) (*reader, error) {
	var state struct {
		Root []byte `json:"root"`
	}
	if err := json.Unmarshal(store.state, &state); err != nil {
		return nil, err
	}
	root, err := pre.ParseRoot(state.Root)
	if err != nil {
		return nil, err
	}
	defer root.Zero()
	seed := root.IdentitySeed()
	signing := envelope.NewPrivateKey(&seed)
	defer signing.Zero()
	vault, err := sdk.Vault(ctx)
	if err != nil {
		return nil, err
	}
	ct, _, err := pre.EncapsulateSession(vault.SessionKEM, nil)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	r := &reader{sdk: sdk, owner: owner, vault: vault.Vault, key: envelope.NewSessionKey()}
	e, err := policies.Sign(signing, &policies.Session{
		Header: policies.NewHeader("session", now), Audience: vault.Vault, Reader: sdk.ID(), Key: r.key.Public(),
		NotBefore: now.Unix(), Expires: now.Add(policies.SessionLifetime).Unix(), Ciphertext: ct,
	})
	if err != nil {
		return nil, err
	}
	r.session = e.Hash
	login, err := c.login(ctx, root, policies.IdentityID(sdk.ID()))
	if err != nil {
		return nil, err
	}
	if err := c.post(ctx, api.PathSessions, e.Raw, login, nil); err != nil {
		return nil, fmt.Errorf("opening a session: %w", err)
	}
	return r, nil
}

// login logs an identity in and returns how to sign its requests.
func (c *crowd) login(ctx context.Context, root *pre.Root, subject policies.IdentityID) (func(*http.Request, []byte), error) {
	key := envelope.NewSessionKey()
	ask, err := json.Marshal(api.ChallengeRequest{Subject: subject, Key: key.Public()})
	if err != nil {
		return nil, err
	}
	var challenge api.LoginChallenge
	if err := c.post(ctx, api.PathChallenges, ask, nil, &challenge); err != nil {
		return nil, fmt.Errorf("asking for a challenge: %w", err)
	}
	proof, err := pre.NewLoginKey(root.LoginSeed()).Answer(&pre.Challenge{
		Server: strings.TrimPrefix(c.url, "https://"), Subject: subject, Ciphertext: challenge.Ciphertext, Nonce: challenge.Nonce, FreshKey: key.Public(),
	})
	if err != nil {
		return nil, err
	}
	answer, err := json.Marshal(api.LoginAnswer{ID: challenge.ID, Proof: proof[:]})
	if err != nil {
		return nil, err
	}
	var login api.Login
	if err := c.post(ctx, api.PathLogins, answer, nil, &login); err != nil {
		return nil, fmt.Errorf("logging in: %w", err)
	}
	return func(r *http.Request, body []byte) { api.Sign(r, body, login.ID, key, time.Now()) }, nil
}

func (c *crowd) post(ctx context.Context, path string, body []byte, sign func(*http.Request, []byte), out any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	if sign != nil {
		sign(r, body)
	}
	response, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("HTTP status %d: %s", response.StatusCode, data)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

// line is one connection to the storefront, HTTP/1.1 over TLS 1.3. A reader waits for its answer anyway, so it needs none of the two goroutines
// that net/http has for each connection: what is measured is the storefront, on a machine that the readers share with it.
type line struct {
	conn *tls.Conn
	in   *bufio.Reader
	out  *bufio.Writer
}

func (c *crowd) dial(ctx context.Context) (*line, error) {
	config := c.http.Transport.(*http.Transport).TLSClientConfig
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", strings.TrimPrefix(c.url, "https://"))
	if err != nil {
		return nil, err
	}
	return &line{conn: conn.(*tls.Conn), in: bufio.NewReaderSize(conn, 16<<10), out: bufio.NewWriterSize(conn, 16<<10)}, nil
}

// exchange sends a request and reads the whole answer.
func (l *line) exchange(r *http.Request) (*http.Response, []byte, error) {
	if err := l.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, nil, err
	}
	if err := errors.Join(r.Write(l.out), l.out.Flush()); err != nil {
		return nil, nil, err
	}
	response, err := http.ReadResponse(l.in, r)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	body := make([]byte, max(0, response.ContentLength))
	_, err = io.ReadFull(response.Body, body)
	return response, body, err
}

func (c *crowd) close() {
	for _, r := range c.readers {
		if r.line != nil {
			r.line.conn.Close()
		}
	}
	for _, sdk := range c.sdk {
		sdk.Close()
	}
}

// outcome is one round of one kind.
type outcome struct {
	fieldsPerSecond, p50, p99 float64
	opened                    int
	cpu                       map[string]float64 // microseconds per field, by process
}

// read has all readers read n fields a request for a time.
func (c *crowd) read(ctx context.Context, n int, length time.Duration) (outcome, error) {
	var mu sync.Mutex
	var latencies []time.Duration
	var first error
	opened := 0
	before := cpuTimes(c.stage)
	begin := time.Now()
	var wg sync.WaitGroup
	for _, r := range c.readers {
		wg.Go(func() {
			var mine []time.Duration
			var err error
			sdk := 0
			for time.Since(begin) < length && ctx.Err() == nil && err == nil {
				start := time.Now()
				r.turn++
				if r.turn%100 == 0 {
					err = r.open(ctx, n)
					sdk++
				} else {
					err = c.ask(ctx, r, n)
				}
				mine = append(mine, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			latencies, opened = append(latencies, mine...), opened+sdk
			if err != nil && first == nil {
				first = err
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	if first != nil {
		return outcome{}, first
	}
	slices.Sort(latencies)
	total := float64(len(latencies) * n)
	at := func(q float64) float64 {
		return float64(latencies[int(q*float64(len(latencies)-1))].Microseconds()) / 1000
	}
	o := outcome{fieldsPerSecond: total / took.Seconds(), p50: at(0.5), p99: at(0.99), opened: opened, cpu: map[string]float64{}}
	for name, after := range cpuTimes(c.stage) {
		o.cpu[name] = float64((after - before[name]).Microseconds()) / total
	}
	return o, ctx.Err()
}

func (r *reader) field(i int) policies.Field {
	return policies.Field(fmt.Sprintf("own/load-%03d", i%fields))
}

// open reads through the SDK.
func (r *reader) open(ctx context.Context, n int) error {
	items := make([]client.Item, n)
	for i := range items {
		items[i] = client.Item{Owner: r.owner, Field: r.field(r.turn + i)}
	}
	values, err := r.sdk.Read(ctx, items...)
	if err != nil {
		return err
	}
	for i := range values {
		if values[i].Err != nil {
			return values[i].Err
		}
		var number int
		if k, _ := fmt.Sscanf(string(values[i].Bytes), "value %d of an owner", &number); k != 1 || r.field(number) != items[i].Field {
			return fmt.Errorf("%s opened as %q", items[i].Field, values[i].Bytes)
		}
	}
	return nil
}

// ask makes a signed request and checks that every field was released.
func (c *crowd) ask(ctx context.Context, r *reader, n int) error {
	now := time.Now()
	request := &policies.ReadRequest{
		Header: policies.NewHeader("read", now), Audience: r.vault, Session: r.session, Nonce: policies.NewNonce(),
		Expires: now.Add(time.Minute).Unix(), Purpose: purpose, Items: make([]policies.ReadItem, n),
	}
	for i := range request.Items {
		request.Items[i] = policies.ReadItem{Owner: r.owner, Field: r.field(r.turn + i)}
	}
	e, err := policies.Sign(r.key, request)
	if err != nil {
		return err
	}
	body, err := json.Marshal(api.Read{Request: jsontext.Value(e.Raw), Have: r.have})
	if err != nil {
		return err
	}
	if r.line == nil { // not before the first request: the storefront does not wait long for that
		if r.line, err = c.dial(ctx); err != nil {
			return err
		}
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+api.PathReads, bytes.NewReader(body))
	if err != nil {
		return err
	}
	post.Header.Set("Content-Type", "application/json")
	response, data, err := r.line.exchange(post)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP status %d: %s", response.StatusCode, data)
	}
	var result api.ReadResult
	if err := json.Unmarshal(data, &result); err != nil {
		return err
	}
	if len(result.Items) != n || len(result.Answer) == 0 {
		return fmt.Errorf("%d items of %d", len(result.Items), n)
	}
	for i := range result.Items {
		if result.Items[i].Outcome != policies.CodeReleased || len(result.Items[i].Ciphertext) == 0 {
			return fmt.Errorf("item %d: %s", i, strconv.Quote(string(result.Items[i].Outcome)))
		}
	}
	for _, raw := range result.Documents {
		d, err := envelope.Parse(raw)
		if err != nil {
			return err
		}
		r.have = append(r.have, d.Hash)
	}
	return nil
}
