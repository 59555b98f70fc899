package export

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Syslog is a server that takes RFC 5424 messages over TLS, each with its length before it (RFC 5425). What is delivered is in one connection: see the
// package comment for why.
type Syslog struct {
	Address  string      // host:port; the port that RFC 5425 names is 6514
	TLS      *tls.Config // see [SyslogTLS]
	Hostname string      // of this machine, as messages name it
}

// SyslogTLS is how a server is spoken to: TLS 1.3 with X25519MLKEM768. classical lets a server that has no post-quantum key exchange do without: who records
// the traffic now can read it when there is a quantum computer.
func SyslogTLS(classical bool) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}
	if classical {
		c.CurvePreferences = append(c.CurvePreferences, tls.X25519, tls.CurveP256)
	}
	return c
}

// patience bounds a connection: to come about, to take a batch, and to end.
const patience = 30 * time.Second

func (s *Syslog) begin(context.Context) (int64, error) { return 0, nil }

func (s *Syslog) deliver(ctx context.Context, at int64, events []message) (int64, error) {
	var b bytes.Buffer
	for _, m := range events {
		frame(&b, s.Hostname, m)
	}
	if err := s.send(ctx, b.Bytes()); err != nil {
		return 0, fmt.Errorf("%w: %s: %w", ErrReceiver, s.Address, err)
	}
	return at + int64(b.Len()), nil
}

// send opens a connection, writes, says that this was all, and waits until the server, too, has nothing more to say. A connection that breaks off,
// be it after the last byte, leaves unknown what was received.
func (s *Syslog) send(ctx context.Context, frames []byte) (err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", s.Address)
	if err != nil {
		return err
	}
	config := s.TLS.Clone()
	if config.ServerName == "" {
		if config.ServerName, _, err = net.SplitHostPort(s.Address); err != nil {
			return errors.Join(err, raw.Close())
		}
	}
	watched := &watchedConn{Conn: raw}
	conn := tls.Client(watched, config)
	defer conn.Close()
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(frames); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	switch _, err := io.Copy(io.Discard, conn); {
	case err != nil:
		return fmt.Errorf("it did not close the connection: %w", err)
	case watched.ended:
		return errors.New("it broke the connection off instead of closing it")
	}
	return nil
}

// watchedConn notes that TCP ended. Package tls reports that as it reports the peer's word that there is nothing more (close_notify), which nobody on the way can forge.
type watchedConn struct {
	net.Conn
	ended bool
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.ended = c.ended || errors.Is(err, io.EOF)
	return n, err
}

// auditFacility is the facility of audit logs in RFC 5424.
const auditFacility = 13

// syslogSeverity is RFC 5424's severity of ours.
var syslogSeverity = [...]int{informational: 6, low: 5, medium: 4, high: 3, critical: 2}

// frame writes a message with its length before it. There is no byte order mark before the text, which RFC 5424 asks for with UTF-8: receivers take it for a part of the event.
func frame(b *bytes.Buffer, hostname string, m message) {
	head := fmt.Sprintf("<%d>1 %s %s sallyport - %s - ", 8*auditFacility+syslogSeverity[m.event.Severity], m.event.Time, word(hostname, 255), word(string(m.event.Kind), 32))
	b.WriteString(strconv.Itoa(len(head) + len(m.line)))
	b.WriteByte(' ')
	b.WriteString(head)
	b.Write(m.line)
}

// word is a header field: printable ASCII of a bounded length, or "-".
func word(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	if s = s[:min(len(s), most)]; s == "" {
		return "-"
	}
	return s
}
