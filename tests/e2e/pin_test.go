package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/hashicorp"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/tests/stage/search"
)

// pinVaultTest is a stage whose vault gets its PIN from a real HashiCorp Vault, and nowhere else: the file is gone.
type pinVaultTest struct {
	*stage.Stage
	server *hashicorp.Server
	pin    []byte
	roleID string
	base   string // the vault's configuration without a PIN
	config string // its file
	wrap   string // where the wrapped secret id is delivered
	tokens []string
}

// table is [pin_vault] for AppRole.
func (p *pinVaultTest) table(patience string) string {
	return fmt.Sprintf(`
[pin_vault]
address = %q
ca = %q
allow_classical = true
mount = "kv"
path = "sallyport/token"
auth = "approle"
role = "sallyport"
role_id = %q
wrapped_secret_id = %q
timeout = "1s"
patience = %q
`, p.server.URL(), p.server.CA(), p.roleID, "file:"+p.wrap, patience)
}

// deliver puts a new wrapped secret id in its place.
func (p *pinVaultTest) deliver(t *testing.T) string {
	t.Helper()
	token, err := p.server.Wrap(t.Context(), "auth/approle/role/sallyport/secret-id")
	must(t, err)
	p.place(t, token)
	return token
}

func (p *pinVaultTest) place(t *testing.T, token string) {
	t.Helper()
	must(t, os.WriteFile(p.wrap, []byte(token+"\n"), 0o600))
	p.tokens = append(p.tokens, token)
}

func (p *pinVaultTest) configure(t *testing.T, config string) {
	t.Helper()
	must(t, os.WriteFile(p.config, []byte(config), 0o600))
}

func (p *pinVaultTest) log(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(p.Vault.Log)
	must(t, err)
	return string(text)
}

func TestPINFromHashiCorpVault(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server, err := hashicorp.Start(ctx, t.TempDir())
	must(t, err)
	t.Cleanup(server.Kill)
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	p := &pinVaultTest{Stage: s, server: server, config: filepath.Join(s.Dir(), "vault", "vault.toml"), wrap: filepath.Join(t.TempDir(), "wrapped")}

	pin, err := os.ReadFile(s.PINFile())
	must(t, err)
	p.pin = bytes.TrimSpace(pin)
	must(t, server.Put(ctx, "sallyport/token", map[string]any{"pin": string(p.pin)}))
	p.roleID, err = server.Role(ctx, "sallyport", map[string]any{"token_policies": "pin", "token_ttl": "2s", "token_max_ttl": "4s"})
	must(t, err)
	config, err := os.ReadFile(p.config)
	must(t, err)
	p.base = strings.Replace(string(config), fmt.Sprintf("pin = %q\n", "file:"+s.PINFile()), "", 1)
	must(t, s.Vault.Stop())
	must(t, os.Remove(s.PINFile()))

	first := p.deliver(t)
	p.configure(t, p.base+p.table("20s"))
	must(t, s.Vault.Start(ctx))
	if _, err := os.Stat(p.wrap); !os.IsNotExist(err) {
		t.Errorf("the used wrapping token lies there: %v", err)
	}
	owner, firm := devices.NewPerson(t, s, client.Options{}, map[policies.Field]string{"own/a": "a"}), devices.NewFirm(t, s, "Acme")
	devices.Meet(t, owner, firm, "acme")
	must(t, owner.Grant(ctx, firm.ID(), []policies.Field{"own/a"}, client.GrantOptions{}))
	works := func(when string) {
		t.Helper()
		if got, err := firm.Value(ctx, owner.ID(), "own/a"); err != nil || got != "a" {
			t.Errorf("%s: a read gives %q, %v", when, got, err)
		}
	}
	works("at first")
	p.nowhere(t)

	t.Run("a login ends", func(t *testing.T) {
		await(t, 30*time.Second, "logged in again", func() bool { return strings.Contains(p.log(t), "logged in at HashiCorp Vault again") })
		works("after another login")
	})

	t.Run("away while serving", func(t *testing.T) {
		gone := func(when string) {
			t.Helper()
			before := strings.Count(p.log(t), "serving goes on without it")
			await(t, 40*time.Second, "noticed: "+when, func() bool { return strings.Count(p.log(t), "serving goes on without it") > before })
			works(when)
			// A worker that dies gets the PIN from the pool.
			worker := workers(t, s.Vault.PID())[0]
			must(t, syscall.Kill(worker, syscall.SIGKILL))
			await(t, 20*time.Second, "another worker", func() bool {
				now := workers(t, s.Vault.PID())
				return len(now) == 2 && now[0] != worker && now[1] != worker
			})
			works(when + ", with a new worker")
		}
		back := func() {
			t.Helper()
			before := strings.Count(p.log(t), "HashiCorp Vault again")
			await(t, 60*time.Second, "logged in again", func() bool { return strings.Count(p.log(t), "HashiCorp Vault again") > before })
		}
		must(t, server.Signal(syscall.SIGSTOP))
		gone("hanging")
		must(t, server.Signal(syscall.SIGCONT))
		back()
		must(t, server.Seal(ctx))
		gone("sealed")
		must(t, server.Unseal(ctx))
		back()
		p.deliver(t) // for the next start, while there is somebody to make it
		server.Kill()
		works("killed")
	})

	t.Run("started while it is away", func(t *testing.T) {
		must(t, s.Vault.Stop())
		said, code := serve(t, s, s.Bin().Vault, p.base+p.table("1s"))
		if code != 5 || !strings.Contains(said, "HashiCorp Vault is away") {
			t.Errorf("exit code %d:\n%s", code, said)
		}
		if _, err := os.Stat(p.wrap); err != nil {
			t.Errorf("the wrapped secret id did not survive it: %v", err)
		}
		// A patient one starts when the server is back.
		began := time.Now()
		up := make(chan error, 1)
		p.configure(t, p.base+p.table("50s"))
		go func() { up <- s.Vault.Start(ctx) }()
		await(t, 30*time.Second, "trying", func() bool {
			return strings.Contains(p.log(t)[strings.LastIndex(p.log(t), "stopping"):], "trying again")
		})
		must(t, server.Run(ctx))
		must(t, server.Unseal(ctx))
		must(t, <-up)
		works(fmt.Sprintf("%s after a start while it was away", time.Since(began).Round(time.Second)))
	})

	t.Run("a wrapped secret id that was used", func(t *testing.T) {
		must(t, s.Vault.Stop())
		p.place(t, first)
		said, code := serve(t, s, s.Bin().Vault, p.base+p.table("1s"))
		if code != 4 || !strings.Contains(said, "ALARM") || strings.Contains(said, first) {
			t.Errorf("exit code %d:\n%s", code, said)
		}
	})

	t.Run("another token in the URI", func(t *testing.T) {
		token := p.deliver(t)
		said, code := serve(t, s, s.Bin().Vault, "token = \"pkcs11:serial=0123456789abcdef\"\n"+p.base+p.table("1s"))
		if code != 1 || !strings.Contains(said, "names a token with serial") {
			t.Errorf("exit code %d:\n%s", code, said)
		}
		// Found out before the secret id was taken, which is good for one start.
		if now, err := os.ReadFile(p.wrap); err != nil || strings.TrimSpace(string(now)) != token {
			t.Errorf("%v", err)
		}
	})

	t.Run("wrong path, field and permission", func(t *testing.T) {
		must(t, server.Put(ctx, "elsewhere/token", map[string]any{"pin": string(p.pin)}))
		for _, change := range [][2]string{
			{`path = "sallyport/token"`, `path = "sallyport/none"`},
			{`path = "sallyport/token"`, `path = "elsewhere/token"`},
			{`mount = "kv"`, "mount = \"kv\"\nfield = \"pim\""},
		} {
			p.deliver(t)
			said, code := serve(t, s, s.Bin().Vault, p.base+strings.Replace(p.table("1s"), change[0], change[1], 1))
			if code != 4 || !strings.Contains(said, "no PIN: reading the PIN (kv/data/") {
				t.Errorf("%s: exit code %d:\n%s", change[1], code, said)
			}
		}
	})

	t.Run("by certificate, the token by its URI", func(t *testing.T) {
		certificate, key := server.ClientCertificate()
		table := fmt.Sprintf("\n[pin_vault]\naddress = %q\nca = %q\nallow_classical = true\nmount = \"kv\"\npath = \"sallyport/token\"\nauth = \"cert\"\ncertificate = %q\nkey = %q\n",
			server.URL(), server.CA(), certificate, key)
		p.configure(t, "token = \"pkcs11:token=sallyport\"\n"+p.base+table)
		must(t, s.Vault.Start(ctx))
		works("with a certificate")
	})
	p.nowhere(t)
}

// workers are the processes that a vault started.
func workers(t *testing.T, vault int) []int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", vault))
	must(t, err)
	var all []int
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // a thread that has ended
		}
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			must(t, err)
			all = append(all, pid)
		}
	}
	return all
}

// nowhere demands that PIN and wrapping tokens are in nothing that the vault left or shows: files, logs, arguments, environment; nor in
// what the HashiCorp Vault records.
func (p *pinVaultTest) nowhere(t *testing.T) {
	t.Helper()
	shown := t.TempDir()
	for _, pid := range append(workers(t, p.Vault.PID()), p.Vault.PID()) {
		for _, name := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
			must(t, err)
			if len(text) == 0 {
				t.Errorf("%s of %d is empty", name, pid)
			}
			must(t, os.WriteFile(filepath.Join(shown, fmt.Sprintf("%d-%s", pid, name)), text, 0o600))
		}
	}
	audit, err := os.ReadFile(p.server.AuditLog())
	must(t, err)
	if !bytes.Contains(audit, []byte("kv/data/sallyport/token")) {
		t.Error("the audit log does not show the reading")
	}
	must(t, os.WriteFile(filepath.Join(shown, "audit.log"), audit, 0o600))
	markers := []search.Marker{{Name: "the PIN", Value: p.pin}}
	for _, token := range p.tokens {
		markers = append(markers, search.Marker{Name: "a wrapping token", Value: []byte(token)})
	}
	found, read, err := search.Folders(markers, p.Dir(), shown)
	must(t, err)
	for _, f := range found {
		t.Error(f)
	}
	if read < 1<<16 {
		t.Errorf("only %d bytes were searched", read)
	}
}
