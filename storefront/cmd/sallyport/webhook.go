package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/redact"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

// A webhook is told of events in the habit of the Standard Webhooks specification: headers webhook-id, webhook-timestamp (Unix seconds) and webhook-signature, which is
// "v1," and the base64 of HMAC-SHA-256 under the shared secret over id "." timestamp "." body. The id is the same when an event is sent again, so whoever
// receives can tell. Values of fields are never in it.

// Bounds of webhooks.
const (
	webhookSkew    = 5 * time.Minute  // how old or young what is received may be
	webhookTimeout = 15 * time.Second // of one try
	webhookPause   = time.Minute      // the longest pause between two tries
	maxWebhookBody = 64 << 10
)

// webhookBody is what is sent.
type webhookBody struct {
	Type string              `json:"type"` // consent.granted, deletion, invitation, ...
	Time time.Time           `json:"timestamp"`
	Data client.ConsentEvent `json:"data"`
}

type webhook struct {
	redact.Redacted

	url    string
	secret []byte
	http   *http.Client
	first  time.Duration // pause after the first failure
	tries  int           // for one event; 0: until it is taken
	tell   func(string, ...any)
}

// webhookSecret reads the shared secret, or makes it.
func webhookSecret(path string) ([]byte, error) {
	if _, err := profile.NewKeyFile(path); err != nil { // checks mode and form
		return nil, fmt.Errorf("the webhook's secret is %d random bytes in a file of its own, which is made if it is not there: %w", profile.KeyFileSize, err)
	}
	return profile.ReadSecretFile(path, profile.KeyFileSize)
}

func newWebhook(target, secretFile string) (*webhook, error) {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return nil, fmt.Errorf("%w: a webhook is an https URL, or an http URL of this machine", errUsage)
	}
	secret, err := webhookSecret(secretFile)
	if err != nil {
		return nil, err
	}
	return &webhook{url: target, secret: secret, first: time.Second, tell: func(string, ...any) {}, http: &http.Client{
		Timeout:   webhookTimeout,
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13}, TLSHandshakeTimeout: 10 * time.Second},
		// Elsewhere than where it was meant to go nobody may read it.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func signWebhook(secret []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// webhookTries is how often a listener that is to end tries to send an event: with pauses of 15 seconds in all, and at most [webhookTimeout] for each try.
const webhookTries = 5

// errNotTaken: the webhook did not take an event in as many tries as there were to be.
var errNotTaken = fmt.Errorf("%w: the webhook does not take what is sent", policies.CodeUnavailable)

// errGone: the receiving side says that it wants no more events.
var errGone = errors.New("the webhook answers 410 Gone; nothing more is sent to it")

// deliver sends an event until it is taken, with growing pauses. It gives up when ctx ends, when the other side is gone for good ([errGone]), or after
// h.tries ([errNotTaken]).
func (h *webhook) deliver(ctx context.Context, e *client.ConsentEvent) error {
	kind := e.Kind
	if e.Status != "" {
		kind += "." + string(e.Status)
	}
	body, err := json.Marshal(webhookBody{kind, e.Time, *e}, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encoding an event: %w", err)
	}
	id := "msg_" + policies.HashKey(body).String()[:32] // the same for the same event, whoever sends it
	for tried, pause := 1, h.first; ; tried, pause = tried+1, min(2*pause, webhookPause) {
		err := h.try(ctx, id, body)
		switch {
		case err == nil || errors.Is(err, errGone) || ctx.Err() != nil:
			return err
		case tried == h.tries:
			return fmt.Errorf("%w: event %d (to begin with it: --from %d): %w", errNotTaken, e.Number, e.Number-1, err)
		}
		h.tell("event %d was not taken (%v); again in %s", e.Number, err, pause)
		sleep(ctx, pause)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (h *webhook) try(ctx context.Context, id string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, "POST", h.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	now := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", now)
	req.Header.Set("Webhook-Signature", signWebhook(h.secret, id, now, body))
	resp, err := h.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxWebhookBody)) // so that the connection can be used again
	switch {
	case resp.StatusCode == http.StatusGone:
		return errGone
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return fmt.Errorf("it answers %d", resp.StatusCode)
	}
	return nil
}

// checkWebhook verifies what was received, and returns the event.
func checkWebhook(secret []byte, header http.Header, body []byte, now time.Time) (id string, in *webhookBody, err error) {
	id, stamp := header.Get("Webhook-Id"), header.Get("Webhook-Timestamp")
	at, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || id == "" || strconv.FormatInt(at, 10) != stamp {
		return "", nil, fmt.Errorf("%w: a webhook has an id and a time", policies.ErrMalformed)
	}
	good := false
	for _, given := range strings.Fields(header.Get("Webhook-Signature")) { // several while a secret is exchanged
		good = hmac.Equal([]byte(given), []byte(signWebhook(secret, id, stamp, body))) || good
	}
	if !good {
		return "", nil, policies.CodeSignature
	}
	if age := now.Sub(time.Unix(at, 0)); age > webhookSkew || age < -webhookSkew {
		return "", nil, policies.CodeExpired
	}
	in = new(webhookBody)
	if err := envelope.Decode(body, in); err != nil {
		return "", nil, err
	}
	return id, in, nil
}

type bizReceive struct {
	Listen     string `help:"Address on this machine." default:"127.0.0.1:0" placeholder:"HOST:PORT"`
	SecretFile string `help:"The secret that the listener signs with." required:"" placeholder:"FILE"`
	ReadyFile  string `help:"Write the URL to this file once it listens." placeholder:"FILE"`
	Count      int    `help:"End after so many events; 0 never."`
}

func (c *bizReceive) Run(s *session) error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil || !loopback(host) {
		return fmt.Errorf("%w: --listen is an address of this machine alone, such as 127.0.0.1:0", errUsage)
	}
	secret, err := webhookSecret(c.SecretFile)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(s.ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	target := "http://" + listener.Addr().String() + "/"
	s.note("Listening on %s", target)
	ctx, stop := context.WithCancel(s.ctx)
	defer stop()
	r := &receiver{session: s, secret: secret, count: c.Count, stop: stop, seen: map[string]bool{}}
	server := &http.Server{Handler: r, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: webhookTimeout, WriteTimeout: webhookTimeout, MaxHeaderBytes: 16 << 10}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	if c.ReadyFile != "" {
		if err := writeWhole(c.ReadyFile, target+"\n"); err != nil {
			_ = server.Close()
			return err
		}
	}
	select {
	case err := <-served:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), webhookTimeout)
	defer cancel()
	return server.Shutdown(end)
}

// writeWhole makes a file in one step.
func writeWhole(name, text string) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".ready-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// receiver takes events, and prints each once.
type receiver struct {
	redact.Redacted

	*session
	secret []byte
	count  int
	stop   func()

	mu   sync.Mutex // guards what follows, and printing
	seen map[string]bool
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != "POST" {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxWebhookBody))
	if err != nil {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	id, in, err := checkWebhook(r.secret, req.Header, body, time.Now())
	if err != nil {
		r.note("Refused: %v", err)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
	if r.seen[id] {
		return
	}
	r.seen[id] = true
	r.printLine(in.Data, eventText(&in.Data))
	if r.count > 0 && len(r.seen) >= r.count {
		r.stop()
	}
}
