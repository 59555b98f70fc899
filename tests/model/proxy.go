package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
)

// tap stands between clients and storefront and keeps what they post, as somebody might who sends it again.
type tap struct {
	listener net.Listener
	server   *http.Server
	client   *http.Client
	target   *url.URL

	mu        sync.Mutex // guards what follows
	reads     []posted
	documents []posted
}

// posted is a request as it came by.
type posted struct {
	path string
	body []byte
}

// noted notes the status that goes through it.
type noted struct {
	http.ResponseWriter
	status int
}

func (a *noted) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

func (a *noted) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// mostPosted is how many of each are kept.
const mostPosted = 32

// newTap listens; where to, and with what certificate, is said when the stage is open.
func newTap() (*tap, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &tap{listener: l}, nil
}

func (t *tap) url() string { return "https://" + t.listener.Addr().String() }

// serve begins to pass on. dir is the stage's folder.
func (t *tap) serve(dir, target string, out *tls.Config) error {
	certificate, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls", "storefront.pem"), filepath.Join(dir, "tls", "storefront-key.pem"))
	if err != nil {
		return err
	}
	if t.target, err = url.Parse(target); err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: out, MaxIdleConnsPerHost: 64, DisableCompression: true}
	t.client = &http.Client{Transport: transport, Timeout: time.Minute}
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	forward := &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(t.target); r.Out.Host = r.In.Host },
		Transport:    transport,
		ErrorLog:     quiet,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }, // nobody answers
	}
	// Of devices that wait to be added a storefront takes few from one address, and here all have the same.
	elsewhere := transport.Clone()
	elsewhere.DisableKeepAlives = true
	elsewhere.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(256)), byte(1+rand.IntN(254)))}}
		return from.DialContext(ctx, network, address)
	}
	strangers := *forward
	strangers.Transport = elsewhere
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if r.URL.Path != api.PathReads {
			t.keep(r, body)
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		answer := &noted{ResponseWriter: w}
		if strings.HasSuffix(r.URL.Path, path.Base(api.PathDeviceOffer)) {
			strangers.ServeHTTP(answer, r)
		} else {
			forward.ServeHTTP(answer, r)
		}
		if r.URL.Path == api.PathReads && answer.status == http.StatusOK { // any other the vault may never have seen: to it that is new, and no replay
			t.keep(r, body)
		}
	})
	t.server = &http.Server{Handler: handler, ErrorLog: quiet}
	own := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}
	go func() { _ = t.server.Serve(tls.NewListener(t.listener, own)) }()
	return nil
}

func (t *tap) keep(r *http.Request, body []byte) {
	if r.Method != http.MethodPost {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	list := &t.documents
	switch path := r.URL.Path; {
	case path == api.PathReads:
		list = &t.reads
	case strings.HasSuffix(path, "/manifests"), strings.HasSuffix(path, "/grants"), strings.HasSuffix(path, "/revocations"), strings.HasSuffix(path, "/write-grants"), strings.HasSuffix(path, "/write-ends"):
	default:
		return
	}
	*list = append(*list, posted{r.URL.Path, body})
	*list = (*list)[max(0, len(*list)-mostPosted):]
}

// pick is one of what was kept; ok is false if nothing was.
func (t *tap) pick(reads bool, n int) (p posted, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.documents
	if reads {
		list = t.reads
	}
	if len(list) == 0 {
		return posted{}, false
	}
	return list[n%len(list)], true
}

// again posts something once more and returns the code of the refusal, or "accepted".
func (t *tap) again(ctx context.Context, p posted) string {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.target.JoinPath(p.path).String(), bytes.NewReader(p.body))
	if err != nil {
		return err.Error()
	}
	r.Header.Set("Content-Type", "application/json")
	r.Host = t.listener.Addr().String()
	resp, err := t.client.Do(r)
	if err != nil {
		return string(policies.CodeUnavailable)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return string(policies.CodeAccepted)
	}
	return string(problem.Of(problem.Read(resp.StatusCode, resp.Header.Get("Content-Type"), resp.Body)).Code)
}

// left is what the storefront says to somebody who asks for the identity of an account that was closed: it deletes what it has soon after.
func (t *tap) left(ctx context.Context, owner policies.OwnerID) string {
	for tries := 0; ; tries++ {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, t.target.JoinPath(strings.Replace(api.PathIdentity, "{id}", owner.String(), 1)).String(), nil)
		if err != nil {
			return err.Error()
		}
		r.Host = t.listener.Addr().String()
		resp, err := t.client.Do(r)
		if err != nil {
			return string(policies.CodeUnavailable)
		}
		if resp.StatusCode != http.StatusOK {
			defer resp.Body.Close()
			return string(problem.Of(problem.Read(resp.StatusCode, resp.Header.Get("Content-Type"), resp.Body)).Code)
		}
		resp.Body.Close()
		if tries == 100 {
			return "it is there still"
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (t *tap) close() error {
	if t.server == nil {
		return t.listener.Close()
	}
	t.client.CloseIdleConnections()
	if err := t.server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("closing the tap: %w", err)
	}
	return nil
}
