package hashicorp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/tests/hashicorp"
)

// testPIN is what must be found nowhere but in what PIN returns.
const testPIN = "pin-8c1f20e7b5"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lines is a log that can be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *lines) await(t *testing.T, text string, n int, within time.Duration) {
	t.Helper()
	for deadline := time.Now().Add(within); l.count(text) < n; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %s the log does not say %q %d times:\n%s", within, text, n, l)
		}
	}
}

// world is a server with secrets and roles.
type world struct {
	*hashicorp.Server
	roleID string // of the role sallyport, whose logins last
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx := t.Context()
	s, err := hashicorp.Start(ctx, t.TempDir())
	must(t, err)
	t.Cleanup(s.Kill)
	w := &world{Server: s}
	must(t, s.Put(ctx, "sallyport/token", map[string]any{"pin": testPIN, "number": 1234, "empty": ""}))
	must(t, s.Put(ctx, "sallyport/versions", map[string]any{"pin": "first"}))
	must(t, s.Put(ctx, "sallyport/versions", map[string]any{"pin": testPIN}))
	must(t, s.Put(ctx, "other/token", map[string]any{"pin": testPIN}))
	w.roleID, err = s.Role(ctx, "sallyport", map[string]any{"token_policies": "pin", "token_ttl": "1h"})
	must(t, err)
	return w
}

func (w *world) secretIDPath(role string) string { return "auth/approle/role/" + role + "/secret-id" }

// approle is the configuration of a login by AppRole, with the wrapping token in memory.
func (w *world) approle(t *testing.T, role, roleID string) Config {
	t.Helper()
	token, err := w.Wrap(t.Context(), w.secretIDPath(role))
	must(t, err)
	return w.wrapped(role, roleID, token)
}

func (w *world) wrapped(role, roleID, token string) Config {
	return Config{
		Address: w.URL(), CA: w.CA(), AllowClassical: true, Mount: "kv", Path: "sallyport/token", Field: "pin", Auth: AppRole, Role: role, RoleID: roleID,
		WrappedSecretID: func() ([]byte, error) { return []byte(token), nil }, Timeout: 5 * time.Second,
	}
}

func (w *world) certificate() Config {
	c := Config{Address: w.URL(), CA: w.CA(), AllowClassical: true, Mount: "kv", Path: "sallyport/token", Field: "pin", Auth: Certificate, Timeout: 5 * time.Second}
	c.CertificateFile, c.KeyFile = w.ClientCertificate()
	return c
}

// open logs in and reads the PIN.
func open(t *testing.T, c Config, log *lines) (*Session, string, error) {
	t.Helper()
	s, err := Open(t.Context(), c, log.logger())
	if err != nil {
		return nil, "", err
	}
	t.Cleanup(s.Close)
	pin, err := s.PIN(t.Context())
	return s, string(pin), err
}

// quiet demands that a log holds nothing secret.
func quiet(t *testing.T, log *lines, secrets ...string) {
	t.Helper()
	for _, s := range append(secrets, testPIN, "hvs.") {
		if log.count(s) > 0 {
			t.Errorf("the log holds a secret:\n%s", log)
		}
	}
}

func TestServer(t *testing.T) {
	w := newWorld(t)
	t.Run("logins", func(t *testing.T) { testLogins(t, w) })
	t.Run("wrapping", func(t *testing.T) { testWrapping(t, w) })
	t.Run("refusals", func(t *testing.T) { testRefusals(t, w) })
	t.Run("environment", func(t *testing.T) { testEnvironment(t, w) })
}

func testLogins(t *testing.T, w *world) {
	var log lines
	c := w.approle(t, "sallyport", w.roleID)
	unwrapped := 0
	c.Unwrapped = func() { unwrapped++ }
	s, pin, err := open(t, c, &log)
	if err != nil || pin != testPIN || unwrapped != 1 {
		t.Errorf("%q, %v, unwrapped %d times", pin, err, unwrapped)
	}
	must(t, s.login(t.Context())) // the secret id is good for more
	secretID, token := string(s.secretID), s.client.Token()
	s.Close()
	if !bytes.Equal(s.secretID, make([]byte, len(s.secretID))) {
		t.Error("the secret id is still in memory")
	}
	if s.client.Token() != "" {
		t.Error("the client still has its token")
	}
	s.client.SetToken(token)
	if _, err := s.PIN(t.Context()); !errors.Is(err, ErrDenied) {
		t.Errorf("after Close the token works: %v", err)
	}
	_, pin, err = open(t, w.certificate(), &log)
	if err != nil || pin != testPIN {
		t.Errorf("certificate: %q, %v", pin, err)
	}
	c = w.certificate()
	c.Role = "sallyport"
	if _, pin, err = open(t, c, &log); err != nil || pin != testPIN {
		t.Errorf("certificate, with a role: %q, %v", pin, err)
	}
	c.Path, c.Version = "sallyport/versions", 1
	if _, pin, err = open(t, c, &log); err != nil || pin != "first" {
		t.Errorf("version 1: %q, %v", pin, err)
	}
	if log.count("not post-quantum") == 0 {
		t.Errorf("nobody was told of the classical link:\n%s", &log)
	}
	quiet(t, &log, secretID)
	audit, err := os.ReadFile(w.AuditLog())
	must(t, err)
	for name, secret := range map[string]string{"PIN": testPIN, "secret id": secretID} {
		if bytes.Contains(audit, []byte(secret)) {
			t.Errorf("the %s is in the server's audit log", name)
		}
	}
	if !bytes.Contains(audit, []byte(`"path":"kv/data/sallyport/token"`)) {
		t.Error("the audit log does not show the reading: it was searched for nothing")
	}
}

func testWrapping(t *testing.T, w *world) {
	ctx := t.Context()
	wrap := func(path string) string {
		token, err := w.Wrap(ctx, path)
		must(t, err)
		return token
	}
	refused := func(t *testing.T, token string) {
		t.Helper()
		var log lines
		c := w.wrapped("sallyport", w.roleID, token)
		c.Patience = time.Minute // being refused is not being away: no second try
		c.Unwrapped = func() { t.Error("it was unwrapped") }
		begin := time.Now()
		_, _, err := open(t, c, &log)
		if !errors.Is(err, ErrWrapped) || log.count("ALARM") != 1 || time.Since(begin) > 30*time.Second {
			t.Errorf("%v\n%s", err, &log)
		}
		quiet(t, &log, token)
		if strings.Contains(fmt.Sprint(err), token) {
			t.Errorf("the error repeats the token: %v", err)
		}
	}
	t.Run("used twice", func(t *testing.T) {
		token := wrap(w.secretIDPath("sallyport"))
		var log lines
		_, pin, err := open(t, w.wrapped("sallyport", w.roleID, token), &log)
		if err != nil || pin != testPIN {
			t.Fatalf("%q, %v", pin, err)
		}
		refused(t, token)
	})
	t.Run("a thief was faster", func(t *testing.T) {
		token := wrap(w.secretIDPath("sallyport"))
		must(t, w.Unwrap(ctx, token))
		refused(t, token)
	})
	t.Run("swapped for another role's", func(t *testing.T) {
		roleID, err := w.Role(ctx, "mallory", map[string]any{"token_policies": "default"})
		must(t, err)
		_ = roleID
		token := wrap(w.secretIDPath("mallory"))
		refused(t, token)
		must(t, w.Unwrap(ctx, token)) // it was left alone
	})
	t.Run("swapped for one of somebody's own", func(t *testing.T) {
		token := wrap("sys/wrapping/wrap")
		refused(t, token)
		must(t, w.Unwrap(ctx, token))
	})
	t.Run("garbage", func(t *testing.T) { refused(t, "hvs.garbage") })
}

func testRefusals(t *testing.T, w *world) {
	ctx := t.Context()
	must(t, w.Put(ctx, "sallyport/deleted", map[string]any{"pin": testPIN}))
	must(t, w.Write(ctx, "kv/delete/sallyport/deleted", map[string]any{"versions": []int{1}}, nil))
	stranger, strangerKey := w.StrangerCertificate()
	foreign := filepath.Join(t.TempDir(), "ca.pem")
	other, err := os.ReadFile(stranger) // a certificate, but of no authority
	must(t, err)
	must(t, os.WriteFile(foreign, other, 0o600))
	for name, c := range map[string]struct {
		change func(*Config)
		want   error
		word   string
	}{
		"path":              {func(c *Config) { c.Path = "sallyport/none" }, ErrMissing, "kv/data/sallyport/none"},
		"mount":             {func(c *Config) { c.Mount = "none" }, ErrDenied, "none/data"}, // Vault does not tell a stranger what there is
		"version":           {func(c *Config) { c.Version = 9 }, ErrMissing, ""},
		"deleted":           {func(c *Config) { c.Path = "sallyport/deleted" }, ErrMissing, ""},
		"field":             {func(c *Config) { c.Field = "pim" }, ErrField, `"pim"`},
		"number":            {func(c *Config) { c.Field = "number" }, ErrField, "quotes"},
		"empty":             {func(c *Config) { c.Field = "empty" }, ErrField, "one line"},
		"permission":        {func(c *Config) { c.Path = "other/token" }, ErrDenied, "permission denied"},
		"stranger":          {func(c *Config) { c.CertificateFile, c.KeyFile = stranger, strangerKey }, ErrLogin, "auth/cert/login"},
		"role":              {func(c *Config) { c.Role = "other" }, ErrLogin, ""},
		"method elsewhere":  {func(c *Config) { c.AuthMount = "none" }, ErrLogin, "auth/none/login"},
		"another authority": {func(c *Config) { c.CA = foreign }, ErrTLS, "certificate"},
		"no ML-KEM":         {func(c *Config) { c.AllowClassical = false }, ErrTLS, "allow_classical"},
		"plain HTTP's port": {func(c *Config) { c.Address = "https://127.0.0.1:1" }, ErrAway, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			var log lines
			config := w.certificate()
			c.change(&config)
			_, pin, err := open(t, config, &log)
			var typed *Error
			if pin != "" || !errors.Is(err, c.want) || !errors.As(err, &typed) || !strings.Contains(err.Error(), c.word) {
				t.Errorf("%q, %v, want %v", pin, err, c.want)
			}
			quiet(t, &log)
		})
	}
	t.Run("role id", func(t *testing.T) {
		var log lines
		unwrapped := false
		c := w.approle(t, "sallyport", "not-the-role-id")
		c.Unwrapped = func() { unwrapped = true }
		if _, _, err := open(t, c, &log); !errors.Is(err, ErrLogin) || !unwrapped {
			t.Errorf("%v, unwrapped: %v", err, unwrapped)
		}
	})
}

// What stands in the environment for the vault command is not for this program.
func testEnvironment(t *testing.T, w *world) {
	for name, value := range map[string]string{
		"VAULT_ADDR": "https://127.0.0.1:1", "VAULT_TOKEN": "hvs.somebody", "VAULT_NAMESPACE": "elsewhere", "VAULT_HEADERS": `{"x":"y"}`,
		"VAULT_SKIP_VERIFY": "true", "VAULT_AGENT_ADDR": "https://127.0.0.1:1", "VAULT_HTTP_PROXY": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1",
		"VAULT_WRAP_TTL": "60s",
	} {
		t.Setenv(name, value)
	}
	var log lines
	if _, pin, err := open(t, w.approle(t, "sallyport", w.roleID), &log); err != nil || pin != testPIN {
		t.Errorf("%q, %v", pin, err)
	}
}

// keep runs Keep beside the test and waits for its end.
func keep(t *testing.T, s *Session) (stop func(), done <-chan struct{}) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		s.Keep(ctx)
		close(ended)
	}()
	stop = func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("Keep does not end")
		}
	}
	t.Cleanup(stop)
	return stop, ended
}

func TestLifetime(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	t.Run("renewed, then logged in again", func(t *testing.T) {
		t.Parallel()
		roleID, err := w.Role(ctx, "short", map[string]any{"token_policies": "pin", "token_ttl": "2s", "token_max_ttl": "5s"})
		must(t, err)
		var log lines
		s, _, err := open(t, w.approle(t, "short", roleID), &log)
		must(t, err)
		stop, _ := keep(t, s)
		log.await(t, "renewed the login", 3, 15*time.Second) // so it lived past its first two seconds
		log.await(t, "logged in at HashiCorp Vault again", 1, 30*time.Second)
		stop()
		if pin, err := s.PIN(ctx); err != nil || string(pin) != testPIN {
			t.Errorf("%q, %v", pin, err)
		}
		quiet(t, &log)
	})
	t.Run("a secret id for one login", func(t *testing.T) {
		t.Parallel()
		roleID, err := w.Role(ctx, "once", map[string]any{"token_policies": "pin", "token_ttl": "2s", "token_max_ttl": "2s", "secret_id_num_uses": 1})
		must(t, err)
		var log lines
		s, _, err := open(t, w.approle(t, "once", roleID), &log)
		must(t, err)
		if log.count("good for one login") != 1 {
			t.Errorf("nobody was told:\n%s", &log)
		}
		_, done := keep(t, s)
		select {
		case <-done:
		case <-time.After(15 * time.Second):
			t.Error("Keep goes on")
		}
		if log.count("refuses another login") != 1 {
			t.Errorf("nobody was told:\n%s", &log)
		}
	})
	t.Run("a login without end", func(t *testing.T) {
		t.Parallel()
		var log lines
		s, _, err := open(t, w.certificate(), &log)
		must(t, err)
		s.lease.LeaseDuration = 0
		stop, done := keep(t, s)
		select {
		case <-done:
			t.Errorf("Keep ends:\n%s", &log)
		case <-time.After(time.Second):
		}
		stop()
	})
}

func TestAway(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	roleID, err := w.Role(ctx, "short", map[string]any{"token_policies": "pin", "token_ttl": "2s", "token_max_ttl": "3s"})
	must(t, err)
	var kept lines
	c := w.approle(t, "short", roleID)
	c.Timeout = time.Second
	s, _, err := open(t, c, &kept)
	must(t, err)
	stop, _ := keep(t, s)
	again := func() {
		t.Helper()
		before := kept.count("logged in at HashiCorp Vault again")
		kept.await(t, "logged in at HashiCorp Vault again", before+1, 40*time.Second)
	}
	gone := func() {
		t.Helper()
		before := kept.count("the login there has ended; serving goes on")
		kept.await(t, "the login there has ended; serving goes on", before+1, 40*time.Second)
	}
	away := func(word string, timeout time.Duration) {
		t.Helper()
		var log lines
		c := w.certificate()
		c.Timeout = timeout
		if _, _, err := open(t, c, &log); !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), word) {
			t.Errorf("%v", err)
		}
		// The wrapping token that was delivered outlives this.
		c = w.wrapped("sallyport", w.roleID, "hvs.waits")
		c.Timeout, c.Unwrapped = timeout, func() { t.Error("it was unwrapped") }
		if _, _, err := open(t, c, &log); !errors.Is(err, ErrAway) || log.count("ALARM") != 0 {
			t.Errorf("%v\n%s", err, &log)
		}
	}

	must(t, w.Seal(ctx))
	away("503", 10*time.Second)
	gone()
	// One that is patient gets in when the server is back.
	type result struct {
		pin string
		err error
	}
	patient := make(chan result, 1)
	var log lines
	go func() {
		c := w.certificate()
		c.Patience = time.Minute
		_, pin, err := open(t, c, &log)
		patient <- result{pin, err}
	}()
	log.await(t, "trying again", 2, 20*time.Second)
	must(t, w.Unseal(ctx))
	if r := <-patient; r.err != nil || r.pin != testPIN {
		t.Errorf("%q, %v", r.pin, r.err)
	}
	again()

	must(t, w.Signal(syscall.SIGSTOP))
	away("", time.Second)
	gone()
	must(t, w.Signal(syscall.SIGCONT))
	again()

	w.Kill()
	away("refused", 10*time.Second)
	gone()
	must(t, w.Run(ctx))
	must(t, w.Unseal(ctx))
	again()

	w.Kill()
	begin := time.Now()
	stop()
	s.Close() // does not wait for a server that is not there
	if took := time.Since(begin); took > closeTime+10*time.Second {
		t.Errorf("closing took %s", took)
	}
	quiet(t, &kept)
}
