package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// serve runs a daemon's command with a configuration to its end, which must come soon, and returns what it said and its exit code.
func serve(t *testing.T, s *stage.Stage, binary, config string, env ...string) (string, int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.toml")
	must(t, os.WriteFile(file, []byte(config), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "serve", "--config", file)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(append(os.Environ(), "SOFTHSM2_CONF="+s.SoftHSMConf()), env...)
	_ = cmd.Run() // the exit code says it
	return out.String(), cmd.ProcessState.ExitCode()
}

// TestStarts: what a daemon refuses to start with, and that it stops when it is told to.
func TestStarts(t *testing.T) {
	t.Parallel()
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	ctx := t.Context()
	p, f := devices.NewPerson(t, s, client.Options{}, map[policies.Field]string{"own/a": "a"}), devices.NewFirm(t, s, "Acme")
	devices.Meet(t, p, f, "acme")
	must(t, p.Grant(ctx, f.ID(), []policies.Field{"own/a"}, client.GrantOptions{}))
	works := func(t *testing.T) {
		t.Helper()
		if got, err := f.Value(ctx, p.ID(), "own/a"); err != nil || got != "a" {
			t.Errorf("a read gives %q, %v", got, err)
		}
	}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(s.Dir(), name, name+".toml"))
		must(t, err)
		return string(data)
	}
	vault, storefront := read("vault"), read("storefront")

	t.Run("a second vault on the same folders", func(t *testing.T) {
		said, code := serve(t, s, s.Bin().Vault, vault)
		if code != 1 || !strings.Contains(said, "in use") {
			t.Errorf("exit code %d:\n%s", code, said)
		}
		works(t)
	})
	t.Run("a second storefront on the same folder", func(t *testing.T) {
		said, code := serve(t, s, s.Bin().Storefront, storefront)
		if code != 1 {
			t.Errorf("exit code %d:\n%s", code, said)
		}
		works(t)
	})
	t.Run("classical key exchange", func(t *testing.T) {
		certificate, key := s.ClientCertificate()
		pair, err := tls.LoadX509KeyPair(certificate, key)
		must(t, err)
		for door, address := range map[string]string{"storefront": s.StorefrontURL(), "vault, for the storefront": s.VaultURL(), "vault, for owners": s.OwnersURL()} {
			dial := func(change func(*tls.Config)) error {
				c := &tls.Config{RootCAs: devices.Roots(t, s), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
				change(c)
				conn, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: c}).DialContext(ctx, "tcp", strings.TrimPrefix(address, "https://"))
				if err == nil {
					conn.Close()
				}
				return err
			}
			for name, curves := range map[string][]tls.CurveID{"X25519": {tls.X25519}, "P-256": {tls.CurveP256}, "all classical ones": {tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}} {
				if dial(func(c *tls.Config) { c.CurvePreferences = curves }) == nil {
					t.Errorf("%s: the door opens to %s", door, name)
				}
			}
			if dial(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }) == nil {
				t.Errorf("%s: the door opens to TLS 1.2", door)
			}
			if err := dial(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519, tls.X25519MLKEM768} }); err != nil {
				t.Errorf("%s: the door does not open to X25519MLKEM768 beside X25519: %v", door, err)
			}
		}
	})
	t.Run("no certificate at the vault's door for the storefront", func(t *testing.T) {
		for _, path := range []string{"/v1/vault", "/v1/health", "/v1/reencrypt"} {
			if r, err := outsider(t, s, nil).Get(s.VaultURL() + path); err == nil {
				r.Body.Close()
				t.Errorf("%s is answered with %s", path, r.Status)
			}
		}
		// A server's certificate of the same authority is no client's.
		pair, err := tls.LoadX509KeyPair(filepath.Join(s.Dir(), "tls", "storefront.pem"), filepath.Join(s.Dir(), "tls", "storefront-key.pem"))
		must(t, err)
		if r, err := outsider(t, s, func(c *tls.Config) { c.Certificates = []tls.Certificate{pair} }).Get(s.VaultURL() + "/v1/vault"); err == nil {
			r.Body.Close()
			t.Errorf("a server's certificate is taken for a client's: %s", r.Status)
		}
	})
	t.Run("loopback unless told otherwise", func(t *testing.T) {
		for _, binary := range []string{s.Bin().Vault, s.Bin().Storefront} {
			out, err := exec.Command(binary, "config").Output()
			must(t, err)
			found := regexp.MustCompile(`(?m)^listen = "([^"]*)"`).FindAllSubmatch(out, -1)
			if len(found) == 0 || len(found[0][1]) == 0 {
				t.Errorf("%s config names no listener", filepath.Base(binary))
			}
			for _, m := range found {
				if len(m[1]) == 0 { // a door that there is only if somebody says where
					continue
				}
				if host, _, err := net.SplitHostPort(string(m[1])); err != nil || !net.ParseIP(host).IsLoopback() {
					t.Errorf("%s listens on %s by default", filepath.Base(binary), m[1])
				}
			}
		}
		// The printed defaults are the real ones: somebody who has that address already keeps the storefront from it.
		if taken, err := net.Listen("tcp", "127.0.0.1:8443"); err == nil {
			defer taken.Close()
		}
		stripped := regexp.MustCompile(`(?m)^listen = .*\n`).ReplaceAllString(storefront, "")
		said, code := serve(t, s, s.Bin().Storefront, strings.ReplaceAll(stripped, s.StorefrontData(), filepath.Join(t.TempDir(), "data")))
		if code != 1 || !strings.Contains(said, "127.0.0.1:8443") {
			t.Errorf("exit code %d:\n%s", code, said)
		}
	})
	t.Run("told to stop", func(t *testing.T) {
		must(t, s.Storefront.Stop()) // an error if the exit code is not 0
		must(t, s.Vault.Stop())
		all := devices.Journal(t, s)
		if last := all[len(all)-1]; last.Entry.Kind != evidence.EntryStop {
			t.Errorf("the log's last entry is a %s", last.Entry.Kind)
		}
	})

	// From here on the vault is down.
	t.Run("a development vault without dev_mode", func(t *testing.T) {
		for name, config := range map[string]string{"left out": strings.Replace(vault, "dev_mode = true\n", "", 1), "false": strings.Replace(vault, "dev_mode = true", "dev_mode = false", 1)} {
			if config == vault {
				t.Fatal("the configuration has no dev_mode")
			}
			said, code := serve(t, s, s.Bin().Vault, config)
			if code != 1 || !strings.Contains(said, "development") {
				t.Errorf("%s: exit code %d:\n%s", name, code, said)
			}
		}
	})
	t.Run("a wrong PIN, once", func(t *testing.T) {
		wrong := filepath.Join(t.TempDir(), "wrong.pin")
		must(t, os.WriteFile(wrong, []byte("not-the-pin-7319\n"), 0o600))
		trace := &spy{file: filepath.Join(t.TempDir(), "spy.log")}
		config := strings.Replace(strings.Replace(vault, s.PINFile(), wrong, 1), `module = ""`, `module = "`+spyModule(t)+`"`, 1)
		said, code := serve(t, s, s.Bin().Vault, config, "PKCS11SPY=/usr/lib/softhsm/libsofthsm2.so", "PKCS11SPY_OUTPUT="+trace.file)
		if code != 4 || !strings.Contains(said, "PIN") || strings.Contains(said, "7319") {
			t.Errorf("exit code %d:\n%s", code, said)
		}
		if n := trace.since(t)["C_Login"]; n != 1 {
			t.Errorf("the PIN was tried %d times", n)
		}
	})
	t.Run("a PIN that others may read", func(t *testing.T) {
		open := filepath.Join(t.TempDir(), "open.pin")
		pin, err := os.ReadFile(s.PINFile())
		must(t, err)
		must(t, os.WriteFile(open, pin, 0o600))
		must(t, os.Chmod(open, 0o644))
		said, code := serve(t, s, s.Bin().Vault, strings.Replace(vault, s.PINFile(), open, 1))
		if code != 4 || strings.Contains(said, strings.TrimSpace(string(pin))) {
			t.Errorf("exit code %d:\n%s", code, said)
		}
	})
	t.Run("a member that nobody knows", func(t *testing.T) {
		for binary, config := range map[string]string{s.Bin().Vault: vault, s.Bin().Storefront: storefront} {
			said, code := serve(t, s, binary, "alow_classical = true\n"+config)
			if code != 2 || !strings.Contains(said, "alow_classical") {
				t.Errorf("%s: exit code %d:\n%s", filepath.Base(binary), code, said)
			}
		}
	})
	must(t, s.Vault.Start(ctx))
	must(t, s.Storefront.Start(ctx))
	works(t)
}
