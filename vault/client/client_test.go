package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/api"
)

// serve answers on a Unix socket.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	s.Start()
	t.Cleanup(s.Close)
	c, err := New(Config{Address: "unix:" + path, InFlight: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// echo answers each call with its request.
func echo(w http.ResponseWriter, r *http.Request) int {
	body, _ := io.ReadAll(r.Body)
	calls, err := api.ParseCalls(body)
	if err != nil {
		problem.Write(w, err)
		return 0
	}
	replies := make([]api.Reply, len(calls))
	for i := range calls {
		replies[i] = api.Reply{Outcomes: []policies.Code{policies.CodeReleased}, Sealed: calls[i].Request}
	}
	w.Write(api.AppendReplies(nil, replies))
	return len(calls)
}

func TestReencryptSharesRequests(t *testing.T) {
	var requests, calls, under, most atomic.Int64
	release := make(chan struct{})
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		most.Store(max(most.Load(), under.Add(1)))
		defer under.Add(-1)
		<-release
		calls.Add(int64(echo(w, r)))
	})
	var wg sync.WaitGroup
	ask := func(i int) {
		wg.Go(func() {
			want := fmt.Sprint("request ", i)
			reply, err := c.Reencrypt(t.Context(), api.Call{Request: []byte(want), Items: make([]api.CallItem, 3)})
			if err != nil || string(reply.Sealed) != want {
				t.Errorf("call %d: %q, %v", i, reply.Sealed, err)
			}
		})
	}
	for line := range int64(2) { // one after the other, or one line takes both
		ask(int(line))
		for requests.Load() <= line {
			time.Sleep(time.Millisecond)
		}
	}
	for i := range 100 {
		ask(2 + i)
	}
	for {
		c.mu.Lock()
		n := len(c.queue)
		c.mu.Unlock()
		if n == 100 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()
	if calls.Load() != 102 || requests.Load() > 4 || most.Load() > 2 {
		t.Errorf("%d calls in %d requests, %d at once", calls.Load(), requests.Load(), most.Load())
	}
}

// TestReencryptKeepsToTheBounds: what waits goes together as far as the bounds allow. Both lines are held with a small call each until all
// wait. The race detector makes megabytes dear: there are no more of them than it takes, and the answers are short.
func TestReencryptKeepsToTheBounds(t *testing.T) {
	big := make([]byte, api.MaxCallsSize/3)
	for name, test := range map[string]struct {
		waiting int
		call    api.Call
		most    int // that go together
	}{
		"bytes": {3, api.Call{Request: big}, 2},
		"calls": {api.MaxCalls + 1, api.Call{Request: []byte("small")}, api.MaxCalls},
	} {
		t.Run(name, func(t *testing.T) {
			release, held := make(chan struct{}), make(chan struct{}, 2)
			var holding sync.Once
			let := func() { holding.Do(func() { close(release) }) }
			defer let()
			var mu sync.Mutex
			var together []int // calls of each request
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body := make([]byte, max(r.ContentLength, 0))
				_, err := io.ReadFull(r.Body, body)
				calls, parseErr := api.ParseCalls(body)
				if err = errors.Join(err, parseErr); err != nil || r.ContentLength > api.MaxCallsSize {
					t.Errorf("%d bytes: %v", r.ContentLength, err)
				}
				if len(calls) == 1 && string(calls[0].Request) == "hold" {
					held <- struct{}{}
					<-release
				} else {
					mu.Lock()
					together = append(together, len(calls))
					mu.Unlock()
				}
				w.Write(api.AppendReplies(nil, make([]api.Reply, len(calls))))
			})
			var wg sync.WaitGroup
			ask := func(call api.Call) {
				wg.Go(func() {
					if _, err := c.Reencrypt(t.Context(), call); err != nil {
						t.Error(err)
					}
				})
			}
			for range 2 { // one after the other, or one line takes both
				ask(api.Call{Request: []byte("hold")})
				select {
				case <-held:
				case <-time.After(30 * time.Second):
					t.Fatal("a call did not reach the vault")
				}
			}
			for range test.waiting {
				ask(test.call)
			}
			for waiting := 0; waiting < test.waiting; time.Sleep(time.Millisecond) {
				c.mu.Lock()
				waiting = len(c.queue)
				c.mu.Unlock()
			}
			let()
			wg.Wait()
			slices.Sort(together)
			if want := []int{test.waiting - test.most, test.most}; !slices.Equal(together, want) {
				t.Errorf("%d calls went as %v, want %v", test.waiting, together, want)
			}
		})
	}
	c := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a call over the bound was sent") })
	if _, err := c.Reencrypt(t.Context(), api.Call{Request: make([]byte, api.MaxCallsSize)}); !errors.Is(err, policies.CodeTooLarge) {
		t.Errorf("a call over the bound: %v", err)
	}
}

func TestReencryptFailures(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   error
	}{
		"problem":      {func(w http.ResponseWriter, r *http.Request) { problem.Write(w, policies.CodeTooLarge) }, policies.CodeTooLarge},
		"no problem":   {func(w http.ResponseWriter, r *http.Request) { http.Error(w, "x", http.StatusBadGateway) }, policies.CodeUnavailable},
		"garbage":      {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "garbage") }, policies.CodeUnavailable},
		"too few":      {func(w http.ResponseWriter, r *http.Request) { w.Write(api.AppendReplies(nil, nil)) }, policies.CodeUnavailable},
		"broken off":   {func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, policies.CodeUnavailable},
		"redirection":  {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }, policies.CodeUnavailable},
		"much too big": {func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "99999999999") }, policies.CodeUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, test.answer)
			for range 2 { // a failure does not stay
				if _, err := c.Reencrypt(t.Context(), api.Call{}); !errors.Is(err, test.want) {
					t.Errorf("%v, want %v", err, test.want)
				}
			}
			if c.mu.Lock(); c.busy != 0 {
				// The line is given up after the callers were answered.
				c.mu.Unlock()
				time.Sleep(20 * time.Millisecond)
				c.mu.Lock()
				if c.busy != 0 {
					t.Errorf("%d lines are still busy", c.busy)
				}
			}
			c.mu.Unlock()
		})
	}
}

func TestContextEndsTheWaiting(t *testing.T) {
	release, arrived := make(chan struct{}), make(chan struct{}, 8)
	var calls atomic.Int64
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
		calls.Add(int64(echo(w, r)))
	})
	var wg sync.WaitGroup
	for n := range 5 { // two are on their way, three wait
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if _, err := c.Reencrypt(ctx, api.Call{}); !errors.Is(err, policies.CodeUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
		if n < 2 { // alone on its line before the next one comes
			select {
			case <-arrived:
			case <-time.After(10 * time.Second):
				close(release)
				t.Fatal("a call did not reach the vault")
			}
		}
	}
	wg.Wait()
	close(release)
	if _, err := c.Reencrypt(t.Context(), api.Call{}); err != nil {
		t.Error(err)
	}
	if calls.Load() > 3 {
		t.Errorf("%d calls reached the vault: abandoned ones were sent", calls.Load())
	}
}

func TestAnswersAreReadStrictly(t *testing.T) {
	answer := ""
	c := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, answer) })
	ask := map[string]func() error{
		"submit":      func() error { _, err := c.Submit(t.Context(), api.Submission{Envelope: []byte(`{}`)}); return err },
		"vault":       func() error { _, err := c.Vault(t.Context()); return err },
		"chain":       func() error { _, err := c.Chain(t.Context(), policies.OwnerID{}); return err },
		"head":        func() error { _, err := c.Head(t.Context(), policies.OwnerID{}, policies.AuthorID{}); return err },
		"history":     func() error { _, err := c.History(t.Context(), policies.OwnerID{}, 1, 2); return err },
		"freeze":      func() error { _, err := c.Freeze(t.Context(), policies.OwnerID{}); return err },
		"consistency": func() error { _, err := c.Consistency(t.Context(), 1, 2); return err },
		"evidence":    func() error { _, err := c.Evidence(t.Context(), []byte(`{}`)); return err },
		"health":      func() error { _, err := c.Health(t.Context()); return err },
	}
	for _, answer = range []string{"", "{", `{"surprise":1}`, "[]"} {
		for name, f := range ask {
			if err := f(); !errors.Is(err, policies.CodeUnavailable) {
				t.Errorf("%s, answer %q: %v", name, answer, err)
			}
		}
	}
	answer = `{"status":"ok","log_size":1,"keys":2}`
	if h, err := c.Health(t.Context()); err != nil || h.Keys != 2 {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestAddresses(t *testing.T) {
	for _, bad := range []string{"", "unix:", "http://localhost:1", "https://", "https://u@h", "https://h/path", "https://h?x=1", "localhost:1"} {
		if _, err := New(Config{Address: bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	c, err := New(Config{Address: "https://localhost:1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Health(t.Context()); !errors.Is(err, policies.CodeUnavailable) || !strings.Contains(err.Error(), "vault") {
		t.Error(err)
	}
}

// TestConnectionsOfBefore: a vault that knows nothing of the connections of before costs nobody an answer. A new connection that breaks does: the vault may
// have broken off because of what was asked.
func TestConnectionsOfBefore(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	type key struct{}
	var numbers atomic.Int64
	s := &httptest.Server{Listener: l, Config: &http.Server{
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, key{}, fmt.Sprint(numbers.Add(1)))
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if len(r.Header["Idempotency-Key"]) > 0 {
				t.Error("the header is sent")
			}
			mu.Lock()
			connection := r.Context().Value(key{}).(string)
			seen[connection]++
			again := seen[connection] > 1
			mu.Unlock()
			if again {
				panic(http.ErrAbortHandler)
			}
			echo(w, r)
		}),
		ErrorLog: log.New(io.Discard, "", 0),
	}}
	s.Start()
	t.Cleanup(s.Close)
	c, err := New(Config{Address: "unix:" + path, InFlight: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for range 3 {
		if _, err := c.Reencrypt(t.Context(), api.Call{Request: []byte("x")}); err != nil {
			t.Error(err)
		}
	}
	if len(seen) != 3 {
		t.Errorf("%d connections for 3 calls, of which each but the first met one of before", len(seen))
	}
}
