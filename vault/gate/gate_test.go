package gate

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var quiet = slog.New(slog.DiscardHandler)

// quick are limits in which a test ends soon.
func quick(connections, each int) Limits {
	return Limits{Connections: connections, Each: each, Header: time.Second, Request: 3 * time.Second, Answer: 4 * time.Second, Idle: 2 * time.Second}
}

// end is a connection's end without a network, from an address of the test's choice.
type end struct {
	net.Conn
	from   string
	closed bool
}

func (e *end) RemoteAddr() net.Addr {
	a, _ := net.ResolveTCPAddr("tcp", e.from)
	return a
}
func (e *end) Close() error { e.closed = true; return nil }

// house is a gate whose clock the test turns.
type house struct {
	*Gate
	clock time.Time
}

func newHouse(connections, each int) *house {
	h := &house{Gate: New("test", quick(connections, each), quiet), clock: time.Unix(1e9, 0)}
	h.now = func() time.Time { return h.clock }
	return h
}

// come is a connection from an address, a millisecond after the last; state is what it does then.
func (h *house) come(from string, state http.ConnState) (*end, *conn) {
	h.clock = h.clock.Add(time.Millisecond)
	e := &end{from: from + ":1000"}
	c := h.admit(e)
	if c != nil && state != http.StateNew {
		h.state(c, state)
	}
	return e, c
}

func TestWhoGivesWay(t *testing.T) {
	const a, b, c, d = "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"
	type one struct {
		from  string
		state http.ConnState
	}
	for _, test := range []struct {
		name              string
		connections, each int
		there             []one
		later             time.Duration // the newcomer comes so much later
		from              string
		gone              int // which one gives way; -1: none, and the newcomer is closed; -2: none, there is room
	}{
		{"there is room", 2, 2, []one{{a, http.StateActive}}, 0, a, -2},
		{"an address that has all, one waits", 9, 2, []one{{a, http.StateActive}, {a, http.StateIdle}}, 0, a, 1},
		{"an address that has all, the longest waits", 9, 3, []one{{a, http.StateActive}, {a, http.StateIdle}, {a, http.StateIdle}}, 0, a, 1},
		{"an address that has all, all work", 9, 2, []one{{a, http.StateActive}, {a, http.StateActive}, {b, http.StateIdle}}, 0, a, -1},
		{"an address that has all, all are new", 9, 2, []one{{a, http.StateNew}, {a, http.StateNew}}, 0, a, -1},
		{"an address that has all, and says nothing for long", 9, 2, []one{{a, http.StateNew}, {a, http.StateNew}}, grace, a, 0},
		{"full, one waits", 3, 3, []one{{a, http.StateActive}, {b, http.StateIdle}, {a, http.StateActive}}, 0, c, 1},
		{"full, the address that has most", 4, 4, []one{{b, http.StateIdle}, {a, http.StateActive}, {a, http.StateIdle}, {a, http.StateIdle}}, 0, c, 2},
		{"full, all wait alike", 3, 3, []one{{a, http.StateIdle}, {b, http.StateIdle}, {c, http.StateIdle}}, 0, d, 0},
		{"full, one has waited for long, not of the address that has most", 3, 3, []one{{a, http.StateActive}, {b, http.StateIdle}, {a, http.StateActive}}, grace, c, 1},
		{"full, one has waited for very long, one of the crowd comes", 3, 3, []one{{a, http.StateActive}, {b, http.StateIdle}, {a, http.StateActive}}, patience, a, 1},
		{"full, one has waited for long, one of the crowd comes", 3, 3, []one{{a, http.StateActive}, {b, http.StateIdle}, {a, http.StateActive}}, grace, a, -1},
		{"full of a crowd that has just come, one is between two requests", 4, 4, []one{{b, http.StateIdle}, {a, http.StateNew}, {a, http.StateNew}, {a, http.StateNew}}, 0, c, 1},
		{"full of a crowd that has just come, one more of it comes", 4, 4, []one{{b, http.StateIdle}, {a, http.StateNew}, {a, http.StateNew}, {a, http.StateNew}}, 0, a, -1},
		{"full of work, a crowd", 4, 4, []one{{b, http.StateActive}, {a, http.StateActive}, {a, http.StateActive}, {a, http.StateActive}}, 0, c, 1},
		{"full of work, one of the crowd comes", 4, 4, []one{{b, http.StateActive}, {a, http.StateActive}, {a, http.StateActive}, {a, http.StateActive}}, 0, a, -1},
		{"full of work, no crowd", 3, 3, []one{{a, http.StateActive}, {b, http.StateActive}, {c, http.StateActive}}, 0, d, -1},
		{"full of new ones", 3, 3, []one{{a, http.StateNew}, {b, http.StateNew}, {c, http.StateNew}}, 0, d, -1},
		{"full of new ones that say nothing for long", 3, 3, []one{{a, http.StateNew}, {b, http.StateNew}, {c, http.StateNew}}, grace, d, 0},
		{"one /64 is one address", 9, 2, []one{{"[2001:db8::1]", http.StateIdle}, {"[2001:db8::2]", http.StateActive}}, 0, "[2001:db8::3]", 0},
		{"another /64 is not", 9, 2, []one{{"[2001:db8::1]", http.StateIdle}, {"[2001:db8::2]", http.StateActive}}, 0, "[2001:db8:0:1::3]", -2},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHouse(test.connections, test.each)
			var ends []*end
			for _, o := range test.there {
				e, c := h.come(o.from, o.state)
				if c == nil {
					t.Fatal("closed where there is room")
				}
				ends = append(ends, e)
			}
			h.clock = h.clock.Add(test.later)
			_, came := h.come(test.from, http.StateNew)
			if (came == nil) != (test.gone == -1) {
				t.Errorf("the newcomer was let in: %v", came != nil)
			}
			for i, e := range ends {
				if e.closed != (i == test.gone) {
					t.Errorf("connection %d is closed: %v", i, e.closed)
				}
			}
			if len(h.conns) > test.connections {
				t.Errorf("%d connections", len(h.conns))
			}
			sum := 0
			for from, n := range h.of {
				if sum += n; n > test.each || n == 0 {
					t.Errorf("%d of %s", n, from)
				}
			}
			if sum != len(h.conns) {
				t.Errorf("%d connections, counted %d", len(h.conns), sum)
			}
		})
	}
}

// TestClosedOnceIsOneLess: a connection that is closed twice, or after it gave way, gives back one place.
func TestClosedOnceIsOneLess(t *testing.T) {
	h := newHouse(2, 2)
	_, first := h.come("192.0.2.1", http.StateIdle)
	_, second := h.come("192.0.2.1", http.StateIdle)
	h.come("192.0.2.1", http.StateIdle) // in place of the first
	first.Close()
	second.Close()
	second.Close()
	if len(h.conns) != 1 || h.of[second.from] != 1 {
		t.Errorf("%d connections, %d counted", len(h.conns), h.of[second.from])
	}
}

// TestALineAMinute: at a bound the log gets a line at once, and what comes together afterwards a minute later.
func TestALineAMinute(t *testing.T) {
	var out bytes.Buffer
	h := newHouse(1, 1)
	h.log = slog.New(slog.NewTextHandler(&out, nil))
	for range 1000 {
		h.come("192.0.2.1", http.StateActive)
	}
	if n := strings.Count(out.String(), "\n"); n != 1 || !strings.Contains(out.String(), "door=test open=1 addresses=1 closed_to_make_room=0 refused=1") || h.refused != 998 {
		t.Errorf("%d lines, %d to be told: %s", n, h.refused, out.String())
	}
	if strings.Contains(out.String(), "192.0.2") {
		t.Error("the log names an address")
	}
}

func TestNetwork(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:5": "192.0.2.1/32", "[::ffff:192.0.2.1]:5": "192.0.2.1/32", "[2001:db8:1:2:3:4:5:6]:5": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:5": "fe80::/64", "": "invalid Prefix", "@": "invalid Prefix",
	} {
		if got := Network(remote).String(); got != want {
			t.Errorf("%q: %s, want %s", remote, got, want)
		}
	}
}

// TestFewerFiles: more connections than files are not promised.
func TestFewerFiles(t *testing.T) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	g := New("test", Limits{Connections: int(files.Max), Each: int(files.Max)}, slog.New(slog.NewTextHandler(&out, nil)))
	if g.limits.Connections != int(files.Max)-ownFiles || g.limits.Each != g.limits.Connections || !strings.Contains(out.String(), "fewer connections") {
		t.Errorf("%+v; %s", g.limits, out.String())
	}
}

// served is a gate on a real listener. Its handler reads the whole request, and under /large answers without end.
func served(t *testing.T, l Limits, secure bool) (address string, g *Gate) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g = New("test", l, quiet)
	s := g.Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/large" {
			for piece := make([]byte, 64<<10); err == nil; { // without end
				_, err = w.Write(piece)
			}
		}
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if secure {
			s.Serve(tls.NewListener(g.Listener(inner), &tls.Config{Certificates: certificates()}))
		} else {
			s.Serve(g.Listener(inner))
		}
	}()
	t.Cleanup(func() { s.Close(); <-done })
	return inner.Addr().String(), g
}

// certificates are those of the standard library's tests.
var certificates = sync.OnceValue(func() []tls.Certificate {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	return s.TLS.Certificates
})

func dial(t *testing.T, address, from string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(40 * time.Second))
	return c
}

// lasts is how long it takes the other side to end a connection on which drip writes a byte now and then.
func lasts(t *testing.T, c net.Conn, drip string) time.Duration {
	t.Helper()
	begin := time.Now()
	ended := make(chan struct{})
	go func() {
		for i := 0; ; i++ {
			select {
			case <-ended:
				return
			case <-time.After(50 * time.Millisecond):
				if drip != "" {
					c.Write([]byte{drip[i%len(drip)]})
				}
			}
		}
	}()
	defer close(ended)
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the connection is not ended")
	}
	return time.Since(begin)
}

func TestSlowOnesAreCutOff(t *testing.T) {
	const request = "GET / HTTP/1.1\r\nHost: x\r\n"
	within := func(name string, took, want time.Duration) {
		t.Helper()
		if took < want-500*time.Millisecond || took > want+10*time.Second { // a busy machine is late
			t.Errorf("%s: ended after %s, want %s", name, took, want)
		}
	}
	l := quick(100, 100)
	for _, test := range []struct {
		name         string
		secure       bool
		first, drips string
		want         time.Duration
	}{
		{"says nothing", false, "", "", l.Header},
		{"a head by drops", false, request, "X-A: b\r\n", l.Header},
		{"a body by drops", false, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", "a", l.Request},
		{"between requests", false, request + "\r\n", "", l.Idle},
		{"no handshake", true, "", "", l.Header},
		{"a handshake by drops", true, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "a", l.Header},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			address, _ := served(t, l, test.secure)
			c := dial(t, address, "127.0.0.1")
			io.WriteString(c, test.first)
			within(test.name, lasts(t, c, test.drips), test.want)
		})
	}
	t.Run("an answer is not taken", func(t *testing.T) {
		t.Parallel()
		address, g := served(t, l, false)
		c := dial(t, address, "127.0.0.1")
		begin := time.Now()
		io.WriteString(c, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		for {
			g.mu.Lock()
			n := len(g.conns)
			g.mu.Unlock()
			if n == 0 {
				break
			}
			if time.Sleep(10 * time.Millisecond); time.Since(begin) > 20*time.Second {
				t.Fatal("the connection is not ended")
			}
		}
		within("an answer that is not taken", time.Since(begin), l.Answer)
	})
}

// TestACrowdMakesRoom: a server whose every connection is held by a crowd that does nothing, or too little, serves a caller from another address.
func TestACrowdMakesRoom(t *testing.T) {
	for name, first := range map[string]string{
		"says nothing":      "",
		"a head by drops":   "GET / HTTP/1.1\r\nHost: x\r\nX-A: b",
		"a body is missing": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
		"keeps alive":       "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := quick(8, 4)
			l.Header, l.Request, l.Idle = time.Minute, time.Minute, time.Minute
			address, g := served(t, l, false)
			for i := range 20 {
				c := dial(t, address, fmt.Sprintf("127.0.0.%d", 2+i%2))
				io.WriteString(c, first)
				time.Sleep(time.Millisecond)
			}
			begin := time.Now()
			for range 5 {
				c := dial(t, address, "127.0.0.1")
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
					t.Fatalf("%q, %v", line, err)
				}
			}
			if took := time.Since(begin); took > 30*time.Second { // before anything else ends the crowd's
				t.Errorf("served in %s", took)
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			if len(g.conns) > 8 {
				t.Errorf("%d connections", len(g.conns))
			}
		})
	}
}
