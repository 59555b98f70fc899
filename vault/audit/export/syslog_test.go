package export

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"crypto/rand"
)

// receiver is a strict RFC 5425 server. cut, if set, makes it break a connection off after so many messages, before it has read the rest.
type receiver struct {
	address string
	roots   *x509.CertPool
	mu      sync.Mutex
	events  []string // the text of each message
	wrong   []string
	cut     func(connection int) (after int, rude bool)
	n       int
}

// message5424 is a message of RFC 5424 as this export writes it.
var message5424 = regexp.MustCompile(`(?s)^<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ([!-~]{1,255}) sallyport - ([!-~]{1,32}) - (.+)$`)

func newReceiver(t *testing.T, bend func(*tls.Config)) *receiver {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	r := &receiver{roots: x509.NewCertPool()}
	r.roots.AddCert(must(x509.ParseCertificate(der)))
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	if bend != nil {
		bend(config)
	}
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	r.address = "localhost:" + port
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { r.serve(tls.Server(c, config), c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return r
}

// serve reads frames to the end and closes the connection in good order.
func (r *receiver) serve(c *tls.Conn, raw net.Conn) {
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(20 * time.Second))
	if c.Handshake() != nil {
		return
	}
	r.mu.Lock()
	r.n++
	after, rude := -1, false
	if r.cut != nil {
		after, rude = r.cut(r.n)
	}
	r.mu.Unlock()
	in := bufio.NewReader(c)
	for got := 0; got != after; got++ {
		length, err := in.ReadString(' ')
		if errors.Is(err, io.EOF) && length == "" {
			if !rude {
				c.Close()
			}
			return
		}
		n, number := strconv.Atoi(length[:max(len(length)-1, 0)])
		if err != nil || number != nil || n < 1 || n > 1<<20 || length[0] == '0' {
			r.note(fmt.Sprintf("a frame begins with %q: %v", length, err))
			return
		}
		message := make([]byte, n)
		if _, err := io.ReadFull(in, message); err != nil {
			r.note(err.Error())
			return
		}
		m := message5424.FindSubmatch(message)
		if m == nil {
			r.note(fmt.Sprintf("no message of RFC 5424: %q", message))
			return
		}
		r.mu.Lock()
		r.events = append(r.events, string(m[1])+" "+string(m[5]))
		r.mu.Unlock()
	}
}

func (r *receiver) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong = append(r.wrong, text)
}

func (r *receiver) output(classical bool) *Syslog {
	s := &Syslog{Address: r.address, TLS: SyslogTLS(classical), Hostname: "vault host"}
	s.TLS.RootCAs = r.roots
	return s
}

// TestSyslog: each event arrives as RFC 5424 over TLS 1.3 with post-quantum key exchange.
func TestSyslog(t *testing.T) {
	l, _, _, _ := everything(t)
	want := bytes.Split(bytes.TrimSuffix(l.exported(t, CEF, false), []byte("\n")), []byte("\n"))
	var curve tls.CurveID
	r := newReceiver(t, func(c *tls.Config) {
		c.VerifyConnection = func(s tls.ConnectionState) error {
			curve = s.CurveID
			return nil
		}
	})
	if err := l.exporter(CEF, r.output(false)).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(r.events) != len(want) || len(r.wrong) > 0 || curve != tls.X25519MLKEM768 {
		t.Fatalf("%d messages of %d, key exchange %v, wrong: %v", len(r.events), len(want), curve, r.wrong)
	}
	for i, e := range want {
		priority := map[string]string{"|1|": "110", "|3|": "109", "|5|": "108", "|8|": "107"}[regexp.MustCompile(`\|\d\|`).FindString(string(e))]
		if r.events[i] != priority+" "+string(e) {
			t.Errorf("message %d is %s, want %s %s", i, r.events[i], priority, e)
		}
	}
}

// TestSyslogRefused: a server that is not the one, or that would have the traffic read later, gets nothing.
func TestSyslogRefused(t *testing.T) {
	l, _, _, _, _ := innocent(t)
	l.publish(len(l.leaves))
	for name, c := range map[string]struct {
		server func(*tls.Config)
		client func(*Syslog)
		taken  bool
	}{
		"TLS 1.2":                          {server: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }},
		"no post-quantum key exchange":     {server: func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} }},
		"the same, allowed":                {server: func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} }, client: func(s *Syslog) { s.TLS = SyslogTLS(true) }, taken: true},
		"a certificate of somebody else":   {client: func(s *Syslog) { s.TLS.RootCAs = x509.NewCertPool() }},
		"a certificate for another name":   {client: func(s *Syslog) { s.TLS.ServerName = "siem.example" }},
		"a server that asks who is there":  {server: func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }},
		"as it should be":                  {taken: true},
		"classical allowed and not needed": {client: func(s *Syslog) { s.TLS = SyslogTLS(true) }, taken: true},
	} {
		r := newReceiver(t, c.server)
		out := r.output(false)
		if c.client != nil {
			c.client(out)
			if out.TLS.RootCAs == nil {
				out.TLS.RootCAs = r.roots
			}
		}
		err := l.exporter(CEF, out).Run(t.Context())
		r.mu.Lock()
		n := len(r.events)
		r.mu.Unlock()
		if c.taken && (err != nil || n != len(l.leaves)) || !c.taken && (!errors.Is(err, ErrReceiver) || n > 0) {
			t.Errorf("%s: %d messages, %v", name, n, err)
		}
	}
}

// TestSyslogBroken: connections that break off, with or without having taken all, lose nothing: what was in doubt comes again.
func TestSyslogBroken(t *testing.T) {
	l, owner, acme, _, grants := innocent(t)
	l.grow(2500, owner, acme, grants[0])
	l.publish(2500)
	r := newReceiver(t, nil)
	r.cut = func(n int) (int, bool) {
		switch n {
		case 1:
			return 0, true // nothing was read
		case 2, 5:
			return 700, true // a part
		case 3:
			return -1, true // all, but it does not say so
		}
		return -1, false
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	x := l.exporter(JSONL, r.output(false))
	x.Cursor = filepath.Join(t.TempDir(), "cursor")
	delayed := 0
	x.Delayed = func(error) { delayed++ }
	done := make(chan error, 1)
	go func() { done <- x.Follow(ctx, time.Millisecond) }()
	for {
		c, err := readCursor(x.Cursor)
		if err == nil && c.Next == 2500 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("it does not end: %+v, %v", c, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	uid := regexp.MustCompile(`"uid":"([^"]+)"`)
	seen := map[string]int{}
	for _, e := range r.events {
		seen[uid.FindStringSubmatch(e)[1]]++
	}
	if len(seen) != 2500 || delayed != 4 || len(r.wrong) > 0 {
		t.Errorf("%d of 2500 entries arrived, %d delays, wrong: %v", len(seen), delayed, r.wrong)
	}
	if len(r.events) != 2500+700+1000+700 {
		t.Errorf("%d messages arrived", len(r.events))
	}
}
