package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/client/profile"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// Limits of a stage whose subject is not rates.
const (
	storefrontLimits = `
[limits]
open_rate = 100000.0
open_burst = 100000
login_rate = 100000.0
login_burst = 100000
document_burst = 100000
`
	ownersLimits = "per_second = 100000.0\nburst = 100000\n"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// message is a request on its way through a proxy, and what the other side answers.
type message struct {
	*http.Request
	body []byte
	t    *testing.T
	to   *proxy
}

// answer is an HTTP answer.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// hook decides what a hostile proxy does with a message. Nil is an answer that never comes.
type hook func(m *message) *answer

// proxy terminates TLS on the way to a daemon with the daemon's own certificate: to its clients it is that daemon, or a hostile machine in
// its place. Without a hook it passes everything on as it is.
type proxy struct {
	t        *testing.T
	name     string
	dir      string // of the stage
	listener net.Listener
	daemon   string // "vault" or "storefront", whose ready file says where
	door     string // the name of the listener in it
	upstream func() (*http.Client, error)

	mu     sync.Mutex
	hook   hook
	record string // folder for everything that passes; empty: none
	count  int
}

// newProxy listens; the daemon behind it may start later.
func newProxy(t *testing.T, dir, name, daemon, door string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{t: t, name: name, dir: dir, listener: l, daemon: daemon, door: door}
	// Certificates are made while the stage opens, so they are read when somebody first knocks.
	config := sync.OnceValues(func() (*tls.Config, error) {
		own, err := tls.LoadX509KeyPair(p.path("tls", daemon+".pem"), p.path("tls", daemon+"-key.pem"))
		return &tls.Config{Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}, err
	})
	front := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return config() }}
	server := &http.Server{Handler: p, ErrorLog: p.quiet()}
	p.upstream = sync.OnceValues(func() (*http.Client, error) {
		roots := x509.NewCertPool()
		pem, err := os.ReadFile(p.path("tls", "ca.pem"))
		roots.AppendCertsFromPEM(pem)
		if err != nil {
			return nil, err
		}
		client, err := tls.LoadX509KeyPair(p.path("tls", "storefront-client.pem"), p.path("tls", "storefront-client-key.pem"))
		return &http.Client{
			Timeout:       time.Minute,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{DisableCompression: true, TLSClientConfig: &tls.Config{
				RootCAs: roots, Certificates: []tls.Certificate{client}, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768},
			}},
		}, err
	})
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(tls.NewListener(l, front)) }()
	t.Cleanup(func() {
		p.set(nil)
		server.Close()
		if c, err := p.upstream(); err == nil {
			c.CloseIdleConnections()
		}
		<-done
	})
	return p
}

func (p *proxy) path(parts ...string) string {
	return filepath.Join(append([]string{p.dir}, parts...)...)
}

// quiet is the log of a server whose clients break off on purpose.
func (p *proxy) quiet() *log.Logger { return slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) }

// url is what clients are told.
func (p *proxy) url() string { return "https://" + p.listener.Addr().String() }

// set makes the proxy hostile, or honest again with nil.
func (p *proxy) set(h hook) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook = h
}

func (p *proxy) target() (string, error) {
	data, err := os.ReadFile(p.path(p.daemon, "ready.json"))
	if err != nil {
		return "", err
	}
	var ready struct {
		Addresses map[string]string `json:"addresses"`
	}
	err = json.Unmarshal(data, &ready)
	return "https://" + ready.Addresses[p.door], err
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	m := &message{r, body, p.t, p}
	p.mu.Lock()
	h := p.hook
	p.mu.Unlock()
	a := m.through(h)
	p.keep(m, a)
	if a == nil {
		panic(http.ErrAbortHandler)
	}
	for k, v := range a.header {
		if k != "Content-Length" {
			w.Header()[k] = v
		}
	}
	w.WriteHeader(a.status)
	w.Write(a.body)
}

// through has a hook decide. A hook that panics is a mistake of its test, not an attack.
func (m *message) through(h hook) (a *answer) {
	if h == nil {
		return m.pass()
	}
	defer func() {
		if r := recover(); r != nil {
			m.t.Errorf("lying about %s: %v", m.URL.Path, r)
			a = nil
		}
	}()
	return h(m)
}

// pass passes a message on, changed or not; nil if nobody answers.
func (m *message) pass() *answer {
	target, err := m.to.target()
	if err != nil {
		return nil
	}
	r, err := http.NewRequestWithContext(m.Context(), m.Method, target+m.URL.RequestURI(), bytes.NewReader(m.body))
	if err != nil {
		return nil
	}
	r.Header, r.Host = m.Header.Clone(), m.Host
	upstream, err := m.to.upstream()
	if err != nil {
		return nil
	}
	resp, err := upstream.Do(r)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil
	}
	return &answer{resp.StatusCode, resp.Header, body}
}

// is reports whether a message is a call of a path of package api, whose {parts} match anything.
func (m *message) is(method, path string) bool {
	pattern := regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllString(path, "[^/]+")
	return m.Method == method && regexp.MustCompile("^"+pattern+"$").MatchString(m.URL.Path)
}

// keep writes a message and its answer to the recordings.
func (p *proxy) keep(m *message, a *answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.record == "" {
		return
	}
	p.count++
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s\n", m.Method, m.URL.RequestURI())
	m.Header.Write(&b)
	b.WriteString("\n")
	b.Write(m.body)
	if a != nil {
		fmt.Fprintf(&b, "\n\n%d\n", a.status)
		a.header.Write(&b)
		b.WriteString("\n")
		b.Write(a.body)
	}
	if err := os.WriteFile(filepath.Join(p.record, fmt.Sprintf("%s-%05d", p.name, p.count)), b.Bytes(), 0o600); err != nil {
		p.t.Error(err)
	}
}

// rewrite changes the JSON of an answer.
func rewrite[T any](m *message, a *answer, change func(*T)) *answer {
	if a == nil || a.status > 299 {
		return a
	}
	v := new(T)
	if err := json.Unmarshal(a.body, v); err != nil {
		m.t.Errorf("%s: %v", m.URL.Path, err)
		return a
	}
	change(v)
	var err error
	if a.body, err = json.Marshal(v); err != nil {
		m.t.Error(err)
	}
	return a
}

// since are the entries from an index on, without the counts of strangers, which come when they come.
func since(t *testing.T, s *stage.Stage, index int) []devices.Logged {
	t.Helper()
	all := devices.Journal(t, s)
	if len(all) < index {
		t.Fatalf("the journal has %d entries, and had %d", len(all), index)
	}
	return slices.DeleteFunc(all[index:], func(l devices.Logged) bool { return l.Entry.Kind == evidence.EntryRefusals })
}

// strangers is how many refusals of callers who could not be authenticated the log counts, by code.
func strangers(t *testing.T, s *stage.Stage) map[policies.Code]int {
	t.Helper()
	out := map[policies.Code]int{}
	for _, l := range devices.Journal(t, s) {
		if l.Entry.Kind != evidence.EntryRefusals {
			continue
		}
		for part := range strings.SplitSeq(l.Details.Note, ", ") {
			code, n, _ := strings.Cut(part, " ")
			count, err := strconv.Atoi(n)
			must(t, err)
			out[policies.Code(code)] += count
		}
	}
	return out
}

// cryptokiCalls asks the vault process for its counts of PKCS#11 calls, over a signal, and reads them from its log.
func cryptokiCalls(t *testing.T, s *stage.Stage) map[string]uint64 {
	t.Helper()
	report := func() (lines []string) {
		data, err := os.ReadFile(s.Vault.Log)
		must(t, err)
		whole := data[:bytes.LastIndexByte(data, '\n')+1]
		for line := range strings.Lines(string(whole)) {
			if strings.Contains(line, `msg="pkcs11 calls"`) {
				lines = append(lines, line)
			}
		}
		return lines
	}
	before := len(report())
	must(t, syscall.Kill(s.Vault.PID(), syscall.SIGUSR1))
	var line string
	await(t, 20*time.Second, "told how many PKCS#11 calls there were", func() bool {
		lines := report()
		if len(lines) > before {
			line = lines[len(lines)-1]
			return true
		}
		return false
	})
	out := map[string]uint64{}
	for _, match := range regexp.MustCompile(`(C_\w+)=(\d+)`).FindAllStringSubmatch(line, -1) {
		n, err := strconv.ParseUint(match[2], 10, 64)
		must(t, err)
		out[match[1]] = n
	}
	return out
}

func derives(t *testing.T, s *stage.Stage) uint64 {
	t.Helper()
	return cryptokiCalls(t, s)["C_DeriveKey"]
}

// tokenObjects counts what lies in the token's folder: SoftHSM keeps a file for each object. The vault makes its signer state's copy anew once a
// minute, and then there is one more for a moment: the count is taken when it stands still.
func tokenObjects(t *testing.T, s *stage.Stage) int {
	t.Helper()
	count := func() (n int) {
		must(t, filepath.WalkDir(s.TokenFolder(), func(path string, _ os.DirEntry, err error) error {
			if strings.HasSuffix(path, ".object") {
				n++
			}
			if errors.Is(err, fs.ErrNotExist) { // went away meanwhile
				return nil
			}
			return err
		}))
		return n
	}
	last := -1
	await(t, 10*time.Second, "a token that stands still", func() bool {
		now := count()
		same := now == last
		last = now
		return same
	})
	return last
}

// profileState is what these tests know of a device's stored state.
type profileState struct {
	Role     string         `json:"role"`
	Root     []byte         `json:"root"`
	Recovery []byte         `json:"recovery"`
	Leaves   [][]byte       `json:"leaves"`
	Codes    []stateCode    `json:"codes"`
	Contacts []stateCode    `json:"contacts"`
	Grants   []stateGrant   `json:"grants"`
	Tasks    []stateNothing `json:"tasks"`
}

type (
	stateCode struct {
		ID    policies.IdentityID `json:"id"`
		Nonce policies.Nonce      `json:"nonce"`
	}
	stateGrant struct {
		Doc policies.Grant `json:"doc"`
	}
	stateNothing struct {
		Kind string `json:"kind"`
	}
)

// openState opens a profile as the command does, and reads its state.
func openState(t *testing.T, s *stage.Stage, name string) *profileState {
	t.Helper()
	folder := filepath.Join(s.Dir(), "profiles", name)
	secret, err := profile.KeyFile(folder + ".key")
	must(t, err)
	p, err := profile.Open(folder, secret)
	must(t, err)
	defer p.Close()
	data, err := p.Load()
	must(t, err)
	state := new(profileState)
	must(t, json.Unmarshal(data, state))
	return state
}

// twin copies a profile, so that what a device learns in one case is not known in the next.
func twin(t *testing.T, s *stage.Stage, name, copy string) string {
	t.Helper()
	from, to := filepath.Join(s.Dir(), "profiles", name), filepath.Join(s.Dir(), "profiles", copy)
	must(t, filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		into := filepath.Join(to, strings.TrimPrefix(path, from))
		if d.IsDir() {
			return os.MkdirAll(into, 0o700)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(into, data, 0o600)
	}))
	key, err := os.ReadFile(from + ".key")
	must(t, err)
	must(t, os.WriteFile(to+".key", key, 0o600))
	return copy
}

// said reads the JSON that a command printed.
func said[T any](t *testing.T, r stage.Result) *T {
	t.Helper()
	v := new(T)
	if err := json.Unmarshal([]byte(r.Stdout), v); err != nil {
		t.Fatalf("%v\n%s", err, r.Stdout)
	}
	return v
}

// code takes a contact code from a command.
func code(t *testing.T, s *stage.Stage, profile, role string) string {
	t.Helper()
	return said[struct {
		Code string `json:"code"`
	}](t, play(t, s, 0, profile, role, "code", "--json")).Code
}

// connect has an owner and a reader meet.
func connect(t *testing.T, s *stage.Stage, owner, reader string) {
	t.Helper()
	play(t, s, 0, reader, "biz", "connect", code(t, s, owner, "me"), "--as", owner)
	play(t, s, 0, owner, "me", "connect", code(t, s, reader, "biz"), "--as", reader)
}

// outsider is a TLS client without a client certificate.
func outsider(t *testing.T, s *stage.Stage, change func(*tls.Config)) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(s.CA())
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}
	if change != nil {
		change(c)
	}
	transport := &http.Transport{TLSClientConfig: c}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// problemCode is the code of a problem document.
func problemCode(body []byte) policies.Code {
	var p struct {
		Code policies.Code `json:"code"`
	}
	_ = json.Unmarshal(body, &p)
	return p.Code
}

// clean removes a profile's folder and leaves its key file.
func clean(t *testing.T, s *stage.Stage, name string) {
	t.Helper()
	must(t, os.RemoveAll(filepath.Join(s.Dir(), "profiles", name)))
}
