// Package gate stands between a listener and its HTTP server, and bounds what connections cost before anybody has asked for anything. The
// storefront and both doors of the vault use it. It knows nothing of what is served.
//
// # The normal path
//
//	g := gate.New("owners", limits, log)
//	g.Server(handler).Serve(tls.NewListener(g.Listener(tcp), config))
//
// The server is told when a connection begins and ends a request, so the gate knows which of them merely wait. [Gate.Serve] does the same for a daemon with one
// door, until it is to stop.
//
// # What it bounds
//
// Connections at once, over all and of one network address. A connection over either bound does not wait for another to end: whoever holds
// slots and does nothing would keep everybody out. It takes the place of one that can be spared, or is closed.
//
//   - Of an address with all it may have, its own connection that has waited longest gives way.
//   - Of a full house, the connection that has waited longest, and for a second at least, of the address that has most; if it is of an address
//     that has fewer than the newcomer's, for ten seconds.
//   - If none has, one without a request under way, of the address that has most, if that is more than the newcomer's would then have. An address
//     with many pays before one with few, so a crowd from one place makes room for callers from elsewhere.
//   - If there is none of that either, the one that has waited longest, of the addresses that have no fewer than the newcomer's.
//   - Then one with a request under way, of the address that has most, if that is more than the newcomer's would then have.
//   - Else the newcomer is closed.
//
// A connection waits when its last request is answered, or when a second after it came it has not begun its first: after a handshake that does
// not end, say. A crowd that has just come does not wait yet, hence the second: it would take the places of all who are between two requests.
//
// Times: to shake hands and for the head of a request ([Limits.Header]), for a whole request ([Limits.Request]), for an answer to be taken
// ([Limits.Answer]), between requests ([Limits.Idle]). Over HTTP/2, where it is offered: streams at once, and how long a byte may wait to be taken.
//
// Memory: a [Budget] bounds the bytes of bodies and answers that are in memory at once. Handlers take their share of it.
//
// # What the caller owes
//
// Serve with the [Gate.Server] of the same gate, else every connection seems to wait. The longest body and rates are the handler's business.
package gate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits are the bounds of one gate. All of them are needed.
type Limits struct {
	Connections int // at once
	Each        int // of them from one address, see Network

	Header  time.Duration // for the handshake, and then for the head of a request; of the first request from the handshake on
	Request time.Duration // for a request with its body, from its first byte on
	Answer  time.Duration // until an answer is made and taken, from the request's head on
	Idle    time.Duration // between two requests
}

// What is the same for every gate.
const (
	maxHeader = 16 << 10 // bytes of a request's head; net/http allows 4 KiB more
	// MaxStreams is how many requests at once one HTTP/2 connection may have, each of which may have a body in memory.
	MaxStreams = 32
	// TakeByte is how long an HTTP/2 connection may leave what is written to it untaken. Over HTTP/1.1 the bound is Limits.Answer.
	TakeByte = 15 * time.Second

	grace     = time.Second // in which a new connection is not said to wait
	patience  = 10 * grace  // of a connection that waits, with a newcomer whose address has more than its own
	reportGap = time.Minute // between two lines in the log
	ownFiles  = 128         // files that the process needs besides connections
)

// A Gate counts the connections of one listener.
type Gate struct {
	name   string
	limits Limits
	log    *slog.Logger
	now    func() time.Time

	mu    sync.Mutex // guards what follows, and the conns' fields
	conns map[*conn]struct{}
	of    map[netip.Prefix]int

	closed, refused int  // since the last line in the log
	quiet           bool // a line was written less than reportGap ago
}

// New makes a gate. The name is for the log. Of more connections than the process may have files open, the surplus is not counted on, and the log
// says so.
func New(name string, limits Limits, logger *slog.Logger) *Gate {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil && uint64(limits.Connections) > max(files.Max, 2*ownFiles)-ownFiles {
		most := int(max(files.Max, 2*ownFiles) - ownFiles)
		logger.Warn("fewer connections than configured: the process may not have so many files open", "door", name, "configured", limits.Connections, "connections", most)
		limits.Connections = most
	}
	limits.Each = min(limits.Each, limits.Connections)
	return &Gate{name: name, limits: limits, log: logger, now: time.Now, conns: map[*conn]struct{}{}, of: map[netip.Prefix]int{}}
}

// Server is a server with the gate's times that tells the gate what its connections do. Errors of connections are not logged: they name the
// addresses of strangers.
func (g *Gate) Server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: g.limits.Header, // with TLS, of the handshake too
		ReadTimeout:       g.limits.Request,
		WriteTimeout:      g.limits.Answer,
		IdleTimeout:       g.limits.Idle,
		MaxHeaderBytes:    maxHeader,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: MaxStreams, MaxReadFrameSize: 64 << 10, WriteByteTimeout: TakeByte},
		ConnState:         g.state,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
}

// Serve serves a handler on a listener, over TLS if it is configured, until ctx ends, and lets requests under way finish for a grace. It closes the listener.
func (g *Gate) Serve(ctx context.Context, h http.Handler, l net.Listener, secured *tls.Config, grace time.Duration) error {
	l = g.Listener(l)
	if secured != nil {
		l = tls.NewListener(l, secured)
	}
	server := g.Server(h)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := server.Shutdown(late); err != nil {
		return errors.Join(fmt.Errorf("stopping: %w", err), server.Close())
	}
	<-ended
	return nil
}

// Listener bounds a listener's connections.
func (g *Gate) Listener(l net.Listener) net.Listener { return &listener{l, g} }

// Network is a caller's address as far as bounds are concerned: whoever has an IPv6 address has the 2^64 beside it. It is the zero prefix for
// whoever has none, as on a socket.
func Network(remote string) (key netip.Prefix) {
	if a, err := netip.ParseAddrPort(remote); err == nil {
		addr := a.Addr().Unmap().WithZone("")
		bits := 32
		if addr.Is6() {
			bits = 64
		}
		key, _ = addr.Prefix(bits)
	}
	return key
}

type listener struct {
	net.Listener
	gate *Gate
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if one := l.gate.admit(c); one != nil {
			return one, nil
		}
		_ = c.Close()
	}
}

// conn is a connection that was let in.
type conn struct {
	net.Conn
	gate *Gate
	from netip.Prefix

	state http.ConnState // StateNew, StateActive or StateIdle
	since time.Time      // when it came to be so
}

func (c *conn) Close() error {
	c.gate.mu.Lock()
	c.gate.forget(c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}

// forget is called with mu held, and may be called again.
func (g *Gate) forget(c *conn) {
	if _, in := g.conns[c]; !in {
		return
	}
	delete(g.conns, c)
	if g.of[c.from]--; g.of[c.from] == 0 {
		delete(g.of, c.from)
	}
}

// admit lets a connection in, in place of another one if there must be, or returns nil.
func (g *Gate) admit(raw net.Conn) *conn {
	c := &conn{Conn: raw, gate: g, from: Network(raw.RemoteAddr().String()), since: g.now()}
	g.mu.Lock()
	defer g.mu.Unlock()
	var gone *conn
	switch {
	case g.of[c.from] >= g.limits.Each:
		gone = g.spare(c.since, func(o *conn) bool { return o.from == c.from && o.waits(c.since) })
	case len(g.conns) >= g.limits.Connections:
		for _, may := range []func(*conn) bool{
			func(o *conn) bool {
				waited := c.since.Sub(o.since)
				return o.waits(c.since) && (waited >= patience || waited >= grace && g.of[o.from] >= g.of[c.from])
			},
			func(o *conn) bool { return o.state != http.StateActive && g.of[o.from] > g.of[c.from]+1 },
			func(o *conn) bool { return o.waits(c.since) && g.of[o.from] >= g.of[c.from] },
			func(o *conn) bool { return g.of[o.from] > g.of[c.from]+1 },
		} {
			if gone = g.spare(c.since, may); gone != nil {
				break
			}
		}
	default:
		g.conns[c] = struct{}{}
		g.of[c.from]++
		return c
	}
	if gone == nil {
		g.refused++
		g.report()
		return nil
	}
	g.closed++
	g.report()
	g.forget(gone)
	if t, ok := gone.Conn.(*net.TCPConn); ok && gone.state == http.StateActive {
		_ = t.SetLinger(0) // the kernel shall not go on offering what its peer does not take
	}
	_ = gone.Conn.Close()
	g.conns[c] = struct{}{}
	g.of[c.from]++
	return c
}

// waits reports whether nothing is under way on a connection. It is called with mu held.
func (c *conn) waits(now time.Time) bool {
	return c.state == http.StateIdle || c.state == http.StateNew && now.Sub(c.since) >= grace
}

// spare is which of the connections that may go can be spared rather than others, nil if none may: one of the address that has most, one that waits before
// one that does not, then the one that has been so for longest. It is called with mu held, and looks at every connection: some thousands, at a bound that
// was reached.
func (g *Gate) spare(now time.Time, may func(*conn) bool) (best *conn) {
	for c := range g.conns {
		if may(c) && (best == nil || g.rather(c, best, now)) {
			best = c
		}
	}
	return best
}

func (g *Gate) rather(a, b *conn, now time.Time) bool {
	if na, nb := g.of[a.from], g.of[b.from]; na != nb {
		return na > nb
	}
	if wa, wb := a.waits(now), b.waits(now); wa != wb {
		return wa
	}
	return a.since.Before(b.since)
}

// state is told by the server what became of a connection.
func (g *Gate) state(nc net.Conn, s http.ConnState) {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	c, ok := nc.(*conn)
	if !ok || s == http.StateNew || s == http.StateClosed {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if s == http.StateHijacked { // nobody tells what becomes of it
		s = http.StateActive
	}
	c.state, c.since = s, g.now()
}

// report writes a line when a bound is reached, and then no more than one a minute, with what came together in between. It is called with mu held.
func (g *Gate) report() {
	if g.quiet {
		return
	}
	g.quiet = true
	g.line()
	time.AfterFunc(reportGap, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.quiet = false
		if g.closed+g.refused > 0 {
			g.report()
		}
	})
}

func (g *Gate) line() {
	g.log.Warn("the bound of connections is reached", "door", g.name, "open", len(g.conns), "addresses", len(g.of), "closed_to_make_room", g.closed, "refused", g.refused)
	g.closed, g.refused = 0, 0
}
