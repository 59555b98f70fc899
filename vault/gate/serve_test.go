package gate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestServe: what is under way when a daemon is told to stop is finished, over TLS too, and what takes longer than the grace is not waited for.
func TestServe(t *testing.T) {
	trusted := x509.NewCertPool()
	for _, c := range certificates() {
		trusted.AddCert(c.Leaf)
	}
	for name, c := range map[string]struct {
		secured *tls.Config
		takes   bool // longer than the grace
	}{
		"plain":    {},
		"TLS":      {secured: &tls.Config{Certificates: certificates()}},
		"too long": {takes: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			begun, end := make(chan struct{}), make(chan struct{})
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(begun)
				<-end
				io.WriteString(w, "done")
			})
			grace, scheme := time.Minute, "http://"
			if c.takes {
				grace = 50 * time.Millisecond
			}
			transport := &http.Transport{}
			if c.secured != nil {
				scheme, transport.TLSClientConfig = "https://", &tls.Config{RootCAs: trusted, ServerName: "example.com"}
			}
			ctx, stop := context.WithCancel(t.Context())
			ended, answered := make(chan error, 1), make(chan error, 1)
			go func() { ended <- New("test", quick(8, 8), quiet).Serve(ctx, handler, l, c.secured, grace) }()
			go func() {
				resp, err := (&http.Client{Transport: transport}).Get(scheme + l.Addr().String())
				if err == nil {
					var b []byte
					if b, err = io.ReadAll(resp.Body); err == nil && string(b) != "done" {
						err = errors.New(string(b))
					}
					resp.Body.Close()
				}
				answered <- err
			}()
			select {
			case <-begun:
			case err := <-answered:
				t.Fatal(err)
			}
			stop()
			if !c.takes {
				close(end)
			} else {
				defer close(end)
			}
			if err := <-ended; errors.Is(err, context.DeadlineExceeded) != c.takes || (err != nil) != c.takes {
				t.Errorf("it ended with %v", err)
			}
			if err := <-answered; (err != nil) != c.takes {
				t.Errorf("what was under way: %v", err)
			}
			if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
				t.Error("it still listens")
			}
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := New("test", quick(8, 8), quiet).Serve(t.Context(), http.NotFoundHandler(), l, nil, time.Minute); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a listener that fails: %v", err)
	}
}
