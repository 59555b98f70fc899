package sockets

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// option reads one of a connection's options.
func option(t *testing.T, c net.Conn, name int) (value int) {
	t.Helper()
	if w, ok := c.(*watched); ok {
		c = w.Conn
	}
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	controlErr := raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, name) })
	if err != nil || controlErr != nil {
		t.Fatal(err, controlErr)
	}
	return value
}

// pair is a connection, seen from both sides.
func pair(t *testing.T, patience time.Duration, lost func()) (dialled, accepted net.Conn) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := Dialer{Timeout: 5 * time.Second, Patience: patience, Lost: lost}
	if dialled, err = d.DialContext(t.Context(), "tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close() })
	if accepted, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	return dialled, accepted
}

// TestBothSidesAreImpatient: what the kernel was told, on the side that dials and on the one that accepts. That it keeps to it is what tests/hosts shows.
func TestBothSidesAreImpatient(t *testing.T) {
	dialled, accepted := pair(t, 5*time.Second, func() {})
	for name, c := range map[string]net.Conn{"dialled": dialled, "accepted": accepted} {
		for what, want := range map[string][2]int{"user timeout, ms": {unix.TCP_USER_TIMEOUT, 5000}, "idle, s": {unix.TCP_KEEPIDLE, 3}, "interval, s": {unix.TCP_KEEPINTVL, 1}} {
			if got := option(t, c, want[0]); got != want[1] {
				t.Errorf("%s: %s is %d, want %d", name, what, got, want[1])
			}
		}
	}
}

// TestLost: a connection that the other side knows nothing of is told of; one that ends in good order is not.
func TestLost(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(*net.TCPConn)
		want int64
	}{
		"reset":  {func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, 1},
		"closed": {func(c *net.TCPConn) { c.Close() }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var lost atomic.Int64
			dialled, accepted := pair(t, 5*time.Second, func() { lost.Add(1) })
			test.end(accepted.(*net.TCPConn))
			if _, err := dialled.Read(make([]byte, 1)); err == nil {
				t.Fatal("read from a connection that is over")
			}
			if lost.Load() != test.want {
				t.Errorf("told %d times, want %d", lost.Load(), test.want)
			}
		})
	}
}
