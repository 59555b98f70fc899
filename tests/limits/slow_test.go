package limits

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// The storefront's times in TestSlowCallers, in seconds; those of the vault's doors are as documented.
const quickTimes = "header_timeout = \"1s\"\nrequest_timeout = \"2s\"\nanswer_timeout = \"3s\"\nidle_timeout = \"2s\"\n"

// ended waits until the other side ends a connection, on which drip puts a byte now and then, and returns how long after begin that was. What comes is thrown away.
func ended(t *testing.T, begin time.Time, c net.Conn, drip string) time.Duration {
	t.Helper()
	c.SetDeadline(begin.Add(90 * time.Second))
	over := make(chan struct{})
	defer close(over)
	go func() {
		for i := 0; drip != ""; i++ {
			select {
			case <-over:
				return
			case <-time.After(200 * time.Millisecond):
				c.Write([]byte{drip[i%len(drip)]})
			}
		}
	}()
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the connection is not ended")
	}
	return time.Since(begin)
}

// TestSlowCallers: whoever is slow, or never comes to an end, is cut off after the documented time, by each listener of the real daemons.
func TestSlowCallers(t *testing.T) {
	s := openStage(t, stage.Options{StorefrontMembers: quickTimes, StorefrontConfig: "\n[limits]\nopen_rate = 100000\nopen_burst = 100000\n"})
	front, owners, vault := host(s.StorefrontURL()), host(s.OwnersURL()), host(s.VaultURL())
	name, _, err := net.SplitHostPort(front)
	must(t, err)
	secure := &tls.Config{RootCAs: devices.Roots(t, s), ServerName: name}
	dial := func(t *testing.T, address string, plain bool) net.Conn {
		t.Helper()
		small := &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error { // a window that is soon full
			return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
		}}
		c, err := small.Dial("tcp", address)
		must(t, err)
		t.Cleanup(func() { c.Close() })
		if plain {
			return c
		}
		tc := tls.Client(c, secure)
		must(t, tc.Handshake())
		return tc
	}
	const get = "GET /v1/vault HTTP/1.1\r\nHost: x\r\n"
	body := func(path string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n"
	}
	const hello = "\x16\x03\x01\x06\x00\x01\x00\x05\xfc\x03\x03" // the beginning of a long one
	t.Run("all", func(t *testing.T) {
		for _, test := range []struct {
			name, address string
			plain         bool
			first, drip   string
			after         time.Duration
		}{
			{"storefront, no handshake", front, true, "", "", time.Second},
			{"storefront, a handshake by drops", front, true, hello, "a", time.Second},
			{"storefront, a handshake and no more", front, false, "", "", time.Second},
			{"storefront, a head by drops", front, false, get, "X-A: b\r\n", time.Second},
			{"storefront, a body by drops", front, false, body("/v1/identities"), " ", 2 * time.Second},
			{"storefront, kept alive", front, false, get + "\r\n", "", 2 * time.Second},
			{"owners, no handshake", owners, true, "", "", 5 * time.Second},
			{"owners, a handshake by drops", owners, true, hello, "a", 5 * time.Second},
			{"owners, a handshake and no more", owners, false, "", "", 5 * time.Second},
			{"owners, a head by drops", owners, false, get, "X-A: b\r\n", 5 * time.Second},
			{"owners, a body by drops", owners, false, body("/v1/documents"), " ", 30 * time.Second},
			{"owners, kept alive", owners, false, get + "\r\n", "", 10 * time.Second},
			{"vault, no handshake", vault, true, "", "", 5 * time.Second},
			{"vault, a handshake by drops", vault, true, hello, "a", 5 * time.Second},
		} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				begin := time.Now() // before it is accepted: this process may then have to wait for a processor
				c := dial(t, test.address, test.plain)
				io.WriteString(c, test.first)
				if took := ended(t, begin, c, test.drip); took < test.after-time.Second || took > test.after+4*time.Second {
					t.Errorf("ended after %s, documented are %s", took.Round(time.Millisecond), test.after)
				}
			})
		}
		t.Run("storefront, answers are not taken", func(t *testing.T) {
			t.Parallel()
			const asked = 3000 // of 10 kB and more each: more than any buffer on the way
			c := dial(t, front, false)
			go func() {
				for range asked {
					if _, err := io.WriteString(c, get+"\r\n"); err != nil {
						return
					}
				}
			}()
			time.Sleep(8 * time.Second)
			c.SetReadDeadline(time.Now().Add(30 * time.Second))
			all, err := io.ReadAll(bufio.NewReader(c))
			if n := bytes.Count(all, []byte("HTTP/1.1 200")); n == 0 || n == asked || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%d answers of %d were kept for whoever did not take them; %v", n, asked, err)
			}
		})
		t.Run("vault, a stranger", func(t *testing.T) {
			t.Parallel()
			c := dial(t, vault, false) // TLS 1.3: the client learns what is wrong with the first byte that it reads
			io.WriteString(c, get+"\r\n")
			if n, err := c.Read(make([]byte, 1)); err == nil || n > 0 {
				t.Error("without a certificate, and answered")
			}
		})
		for _, address := range []string{owners, vault} {
			t.Run("the vault speaks no HTTP/2 "+address, func(t *testing.T) {
				t.Parallel()
				offers := secure.Clone()
				offers.NextProtos = []string{"h2", "http/1.1"}
				c, err := tls.Dial("tcp", address, offers)
				if err == nil {
					defer c.Close()
					if p := c.ConnectionState().NegotiatedProtocol; p == "h2" {
						t.Error("negotiated h2")
					}
				}
			})
		}
		abuseHTTP2(t, front, secure, func(t *testing.T) net.Conn { return dial(t, front, true) })
	})
	if !s.Storefront.Running() || !s.Vault.Running() {
		t.Error("a daemon is gone")
	}
	must(t, getter(s.StorefrontURL()+"/v1/health", secure)(t.Context()))
}

// h2 is a client that keeps no rules.
type h2 struct {
	*http2.Framer
	conn  net.Conn
	heads bytes.Buffer
	pack  *hpack.Encoder
}

func (c *h2) head(method, path string) []byte {
	c.heads.Reset()
	for _, f := range [][2]string{{":method", method}, {":scheme", "https"}, {":authority", "x"}, {":path", path}} {
		c.pack.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	return c.heads.Bytes()
}

// request begins a request on a stream.
func (c *h2) request(stream uint32, method, path string, whole bool) error {
	return c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.head(method, path), EndHeaders: true, EndStream: whole})
}

// until reads frames until one is what is waited for, or the connection ends.
func (c *h2) until(wanted func(http2.Frame) bool) (http2.Frame, error) {
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return nil, err
		}
		if wanted(f) {
			return f, nil
		}
	}
}

// abuseHTTP2 does what is known to hurt servers of HTTP/2.
func abuseHTTP2(t *testing.T, address string, secure *tls.Config, dial func(*testing.T) net.Conn) {
	open := func(t *testing.T, settings ...http2.Setting) *h2 {
		t.Helper()
		offers := secure.Clone()
		offers.NextProtos = []string{"h2"}
		tc := tls.Client(dial(t), offers)
		must(t, tc.Handshake())
		if p := tc.ConnectionState().NegotiatedProtocol; p != "h2" {
			t.Fatalf("negotiated %q", p)
		}
		tc.SetDeadline(time.Now().Add(60 * time.Second))
		c := &h2{Framer: http2.NewFramer(tc, tc), conn: tc}
		c.pack = hpack.NewEncoder(&c.heads)
		if settings == nil {
			return c
		}
		_, err := io.WriteString(tc, http2.ClientPreface)
		must(t, err)
		must(t, c.WriteSettings(settings...))
		return c
	}
	usual := http2.Setting{ID: http2.SettingEnablePush, Val: 0}
	within := func(t *testing.T, begin time.Time, least, most time.Duration) {
		t.Helper()
		if took := time.Since(begin); took < least || took > most {
			t.Errorf("ended after %s, documented are %s to %s", took.Round(time.Millisecond), least, most)
		}
	}
	isReset := func(f http2.Frame) bool { _, ok := f.(*http2.RSTStreamFrame); return ok }
	never := func(http2.Frame) bool { return false }

	t.Run("HTTP/2, no preface", func(t *testing.T) {
		t.Parallel()
		c := open(t)
		begin := time.Now()
		c.until(never)
		within(t, begin, 8*time.Second, 14*time.Second)
	})
	t.Run("HTTP/2, no requests", func(t *testing.T) {
		t.Parallel()
		c := open(t, usual)
		begin := time.Now()
		c.until(never)
		within(t, begin, time.Second, 7*time.Second)
	})
	t.Run("HTTP/2, more streams than allowed", func(t *testing.T) {
		t.Parallel()
		c := open(t, usual)
		f, err := c.until(func(f http2.Frame) bool { s, ok := f.(*http2.SettingsFrame); return ok && !s.IsAck() })
		must(t, err)
		if v, ok := f.(*http2.SettingsFrame).Value(http2.SettingMaxConcurrentStreams); !ok || v != 32 {
			t.Errorf("%d streams are offered", v)
		}
		must(t, c.WriteSettingsAck())
		for i := range uint32(33) {
			must(t, c.request(2*i+1, "POST", "/v1/identities", false))
		}
		f, err = c.until(isReset)
		must(t, err)
		// "Protocol error" is said to a client that has acknowledged the settings, and so knows better.
		if r := f.(*http2.RSTStreamFrame); r.StreamID != 65 || r.ErrCode != http2.ErrCodeRefusedStream && r.ErrCode != http2.ErrCodeProtocol {
			t.Errorf("stream %d: %s", r.StreamID, r.ErrCode)
		}
		// And the bodies that do not come are not waited for: each stream is answered or reset.
		begin, over := time.Now(), map[uint32]bool{}
		c.until(func(f http2.Frame) bool {
			if h := f.Header(); h.Type == http2.FrameRSTStream || h.Flags.Has(http2.FlagHeadersEndStream) && (h.Type == http2.FrameHeaders || h.Type == http2.FrameData) {
				over[h.StreamID] = true
			}
			return len(over) == 32
		})
		if within(t, begin, 0, 8*time.Second); len(over) != 32 {
			t.Errorf("%d of 32 streams came to an end", len(over))
		}
	})
	t.Run("HTTP/2, an answer is not taken", func(t *testing.T) {
		t.Parallel()
		c := open(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		begin := time.Now()
		must(t, c.request(1, "GET", "/v1/vault", true))
		if _, err := c.until(isReset); err != nil {
			t.Errorf("the stream is not reset: %v", err)
		}
		within(t, begin, 2*time.Second, 9*time.Second)
	})
	// Floods: whoever sends without end, and reads nothing, is cut off. What is sent until then is bounded by what the server reads.
	for name, flood := range map[string]func(c *h2, i uint32) error{
		"resets": func(c *h2, i uint32) error {
			return errors.Join(c.request(2*i+1, "GET", "/v1/health", true), c.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		},
		"pings":    func(c *h2, i uint32) error { return c.WritePing(false, [8]byte{byte(i)}) },
		"settings": func(c *h2, i uint32) error { return c.WriteSettings(usual) },
		"continuations": func(c *h2, i uint32) error {
			if i == 0 {
				return c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.head("GET", "/v1/vault")})
			}
			c.heads.Reset()
			c.pack.WriteField(hpack.HeaderField{Name: fmt.Sprintf("x-%d", i), Value: strings.Repeat("a", 1000), Sensitive: true})
			return c.WriteContinuation(1, false, c.heads.Bytes())
		},
		"empty continuations": func(c *h2, i uint32) error {
			if i == 0 {
				return c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.head("GET", "/v1/vault")})
			}
			return c.WriteContinuation(1, false, nil)
		},
	} {
		t.Run("HTTP/2, a flood of "+name, func(t *testing.T) {
			t.Parallel()
			c := open(t, usual)
			begin := time.Now()
			i, err := uint32(0), error(nil)
			for ; err == nil && time.Since(begin) < 40*time.Second; i++ {
				err = flood(c, i)
			}
			if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%d of them, and not cut off; %v", i, err)
			}
			t.Logf("cut off after %d, %s", i, time.Since(begin).Round(time.Millisecond))
		})
	}
}
