// Package sockets is TCP connections that find out in time when the other side is gone without a word: a machine that lost its power, a link
// that is down, a firewall that drops what it let pass before. Without it a request over such a connection waits as long as its caller is
// willing to, and a pool goes on to give such connections out.
//
// Two questions are asked of the kernel, for each connection. What was sent and is not acknowledged within a patience ends the connection (TCP_USER_TIMEOUT
// of RFC 5482, on Linux only). One that is silent is asked whether the other side still is there (keep-alive), and ends when no answer
// comes within the patience either. A process that hangs while its kernel answers is not found this way: bounding that is the caller's.
//
// Both sides of the hop between storefront and vault use it, and the SDK. It knows nothing of either. [Announce] tells other programs where a daemon listens.
package sockets

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

// A Dialer opens connections that end when nothing came from the other side for Patience although something was due.
type Dialer struct {
	Timeout  time.Duration // for opening one
	Patience time.Duration // at least a second
	// Lost, if set, is called when a connection turned out to be dead, before whoever uses it is told. Others to the same machine are likely to be dead too.
	Lost func()
}

// DialContext is for an http.Transport.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	inner := net.Dialer{Timeout: d.Timeout, KeepAliveConfig: keepAlive(d.Patience), Control: impatient(d.Patience)}
	c, err := inner.DialContext(ctx, network, address)
	if err != nil || d.Lost == nil {
		return c, err
	}
	return &watched{c, d.Lost}, nil
}

// Listen listens on a TCP address. Connections that are accepted end when nothing came from the other side for patience although something was due.
func Listen(ctx context.Context, address string, patience time.Duration) (net.Listener, error) {
	// The options of a listening socket are those of what it accepts.
	c := net.ListenConfig{KeepAliveConfig: keepAlive(patience), Control: impatient(patience)}
	return c.Listen(ctx, "tcp", address)
}

// keepAlive has a silent connection asked often enough that the patience is kept to. Where there is no TCP_USER_TIMEOUT the count ends it.
func keepAlive(patience time.Duration) net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: max(patience/2, time.Second), Interval: max(patience/5, time.Second), Count: 3}
}

// watched tells of its end.
type watched struct {
	net.Conn
	lost func()
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	// No acknowledgement, or that of a machine which was started anew and knows of no connection.
	if errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.ECONNRESET) {
		w.lost()
	}
	return n, err
}
