package limits

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// crowdSize is how many connections a crowd holds, or tries to hold. The go command's children have their soft limit of open files raised to the hard
// one by Go itself.
const crowdSize = 10_000

// A kind of idle connection: what it does before it does nothing. One that fails was not let in.
type kind struct {
	name string
	idle func(c net.Conn, secure *tls.Config) (net.Conn, error)
}

var kinds = []kind{
	{"TCP only", func(c net.Conn, _ *tls.Config) (net.Conn, error) { return c, nil }},
	{"TLS, then silent", func(c net.Conn, secure *tls.Config) (net.Conn, error) {
		t := tls.Client(c, secure)
		return t, t.Handshake()
	}},
	{"one request, then kept alive", func(c net.Conn, secure *tls.Config) (net.Conn, error) {
		t := tls.Client(c, secure)
		if _, err := io.WriteString(t, "GET /v1/vault HTTP/1.1\r\nHost: "+secure.ServerName+"\r\n\r\n"); err != nil {
			return t, err
		}
		r, err := http.ReadResponse(bufio.NewReader(t), nil)
		if err != nil {
			return t, err
		}
		_, err = io.Copy(io.Discard, r.Body)
		return t, err
	}},
}

// crowd opens so many connections, from so many addresses, and leaves them alone. It returns when all were tried; those that the other side ended stay
// among them.
func crowd(t *testing.T, address string, k kind, secure *tls.Config, size, addresses int) (letIn int) {
	t.Helper()
	var files unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &files))
	if int(files.Cur) < size+500 {
		t.Fatalf("%d open files are allowed, a crowd of %d needs more: ulimit -n", files.Cur, size)
	}
	var next, in atomic.Int64
	var working sync.WaitGroup
	for range 32 {
		working.Go(func() {
			for i := next.Add(1); i <= int64(size); i = next.Add(1) {
				from := net.IPv4(127, 1, byte(i%int64(addresses)>>8), byte(i%int64(addresses))+1)
				c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: 20 * time.Second}).Dial("tcp", address)
				if err != nil {
					continue
				}
				t.Cleanup(func() { c.Close() })
				c.SetDeadline(time.Now().Add(time.Minute))
				if _, err := k.idle(c, secure); err == nil {
					in.Add(1)
				}
			}
		})
	}
	working.Wait()
	return int(in.Load())
}

// sockets counts a process's open sockets, and memory is what it holds, in bytes.
func sockets(t *testing.T, pid int) (n int) {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

func memory(t *testing.T, pid int) (n int64) {
	t.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	must(t, err)
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// honest calls again and again, each time over a connection of its own, until stop, and tells how often and the slowest.
type honest struct {
	calls   int
	slowest time.Duration
	err     error
	stop    context.CancelFunc
	done    chan struct{}
}

func (h *honest) end(t *testing.T, what string) {
	t.Helper()
	h.stop()
	<-h.done
	if h.err != nil || h.calls == 0 {
		t.Errorf("%s: a caller who means well: %d calls, then %v", what, h.calls, h.err)
	}
}

func serve(t *testing.T, pause time.Duration, call func(context.Context) error) *honest {
	ctx, stop := context.WithCancel(t.Context())
	h := &honest{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(h.done)
		for ; ctx.Err() == nil; time.Sleep(pause) {
			begin := time.Now()
			if err := call(t.Context()); err != nil {
				h.err = err
				return
			}
			h.calls, h.slowest = h.calls+1, max(h.slowest, time.Since(begin))
		}
	}()
	return h
}

func getter(url string, secure *tls.Config) func(context.Context) error {
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: secure, DisableKeepAlives: true}, Timeout: 20 * time.Second}
	return func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
		if err != nil {
			return err
		}
		resp, err := c.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
			return fmt.Errorf("status %d, %v", resp.StatusCode, err)
		}
		return nil
	}
}

// host is a URL's host and port.
func host(url string) string { return strings.TrimPrefix(url, "https://") }

// TestIdleCrowd: ten thousand connections that do nothing, from one address and from forty, are survived by all three listeners, within their bounds of
// connections and with bounded memory, while callers from another address are served over connections of their own.
func TestIdleCrowd(t *testing.T) {
	// What all ten thousand take when they are let in, and what they may do with the limits as they are.
	room := fmt.Sprintf("connections = %d\nconnections_each = %d\nheader_timeout = \"1h\"\nidle_timeout = \"1h\"\n", 2*crowdSize, 2*crowdSize)
	const storefrontBound, ownersBound, vaultBound = 4096, 256, 1024
	type listener struct {
		name  string
		bound int
		each  int
	}
	for _, config := range []struct {
		name, members string
		listeners     []listener
	}{
		{"limits as they are", "", []listener{{"storefront", storefrontBound, 512}, {"owners", ownersBound, 64}, {"vault", vaultBound, vaultBound}}},
		{"room for all", room, []listener{{"storefront", crowdSize, crowdSize}}},
	} {
		if config.members != "" && *measure == 0 {
			continue
		}
		t.Run(config.name, func(t *testing.T) {
			s := openStage(t, stage.Options{StorefrontMembers: config.members})
			anna := devices.NewPerson(t, s, client.Options{}, map[policies.Field]string{"name": "Anna"})
			firm := devices.NewFirm(t, s, "firm")
			devices.Meet(t, anna, firm, "firm")
			must(t, anna.Grant(t.Context(), firm.ID(), []policies.Field{"name"}, client.GrantOptions{}))
			read := func(ctx context.Context) error {
				v, err := firm.Value(ctx, anna.ID(), "name")
				if err == nil && v != "Anna" {
					err = fmt.Errorf("read %q", v)
				}
				return err
			}
			for _, l := range config.listeners {
				at, daemon := map[string]string{"storefront": s.StorefrontURL(), "owners": s.OwnersURL(), "vault": s.VaultURL()}[l.name], s.Vault
				if l.name == "storefront" {
					daemon = s.Storefront
				}
				name, _, err := net.SplitHostPort(host(at))
				must(t, err)
				secure := &tls.Config{RootCAs: devices.Roots(t, s), ServerName: name, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}
				for _, k := range kinds {
					if l.name == "vault" && k.name != "TCP only" {
						continue // its door wants a certificate
					}
					for _, addresses := range []int{1, 40} {
						size := crowdSize
						if *measure == 0 && (k.name != "TCP only" || addresses == 1) {
							if addresses > 1 {
								continue
							}
							size = l.each + 100
						}
						what := fmt.Sprintf("%s, %s, %d from %d addresses", l.name, k.name, size, addresses)
						t.Run(what, func(t *testing.T) {
							before, empty := memory(t, daemon.PID()), sockets(t, daemon.PID())
							good := []*honest{serve(t, 50*time.Millisecond, read)}
							if l.name != "vault" {
								good = append(good, serve(t, 500*time.Millisecond, getter(at+"/v1/vault", secure)))
							}
							begin := time.Now()
							in := crowd(t, host(at), k, secure, size, addresses)
							came, held := time.Since(begin), sockets(t, daemon.PID())-empty
							time.Sleep(lasting(time.Second) / 10)
							grown := memory(t, daemon.PID()) - before
							for _, h := range good {
								h.end(t, what)
							}
							slowest := good[0].slowest
							calls := good[0].calls
							for _, h := range good[1:] {
								slowest, calls = max(slowest, h.slowest), calls+h.calls
							}
							t.Logf("%s: let in %d in %.1f s, %d held, memory grew by %.1f MB (%.1f kB for each held); %d calls of others, the slowest in %s",
								what, in, came.Seconds(), held, float64(grown)/1e6, float64(grown)/1e3/float64(max(1, held)), calls, slowest.Round(time.Millisecond))
							most := l.bound
							if addresses == 1 {
								most = l.each
							}
							if held > most+32 { // those of the ones who mean well
								t.Errorf("%s: %d connections are held, at most %d may be", what, held, most)
							}
							if grown > 64e6+int64(most)*150e3 {
								t.Errorf("%s: memory grew by %.1f MB", what, float64(grown)/1e6)
							}
							if !daemon.Running() {
								t.Fatalf("%s: the daemon is gone", what)
							}
						})
					}
				}
			}
			if config.members == "" {
				for _, d := range []*stage.Daemon{s.Storefront, s.Vault} {
					text, err := os.ReadFile(d.Log)
					must(t, err)
					if n := strings.Count(string(text), "the bound of connections is reached"); n < 1 || n > 20 {
						t.Errorf("%s: %d lines about the bound in the log", d.Name, n)
					}
				}
			}
		})
	}
}
