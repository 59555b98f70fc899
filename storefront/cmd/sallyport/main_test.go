package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/phrases"
)

// TestScripts runs the command as people do, where it needs no server: $JOIN names a storefront and a vault where nobody listens.
func TestScripts(t *testing.T) {
	// The command as people have it: with the race detector in it, each passphrase takes seconds.
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the command: %v\n%s", err, out)
	}
	link := links.Join{Vault: policies.VaultID{1}, Ceremony: policies.Hash{2}, Storefront: "https://127.0.0.1:1", Owners: "https://127.0.0.1:2"}
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": code},
		Setup: func(e *testscript.Env) error {
			e.Setenv("JOIN", link.String())
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			if err := os.WriteFile(filepath.Join(e.WorkDir, "passphrase"), []byte("correct horse battery\n"), 0o600); err != nil {
				return err
			}
			if err := publishedLog(e); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(e.WorkDir, "ca.pem"), certificate(), 0o644)
		},
	})
}

// code runs a command and expects an exit code: code 3 sallyport me ...
func code(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

func certificate() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"12h": 12 * time.Hour, "90d": 90 * 24 * time.Hour, "2w": 14 * 24 * time.Hour, "1y": 365 * 24 * time.Hour, "30m": 30 * time.Minute} {
		if got, err := parseDuration(text); got != want || err != nil {
			t.Errorf("%s is %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "0d", "-1d", "1000000y", "soon", "-5h", "1.5d"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("%q was taken for %s", text, got)
		}
	}
}

// TestUntil: of a permission of two hours the date alone says nothing.
func TestUntil(t *testing.T) {
	for d, want := range map[time.Duration]string{2 * time.Hour: "2006-01-02 15:04", -time.Hour: "2006-01-02 15:04", 90 * 24 * time.Hour: time.DateOnly} {
		at := time.Now().Add(d)
		if got := until(at.UTC()); got != at.Format(want) {
			t.Errorf("in %s: %s", d, got)
		}
	}
}

// TestSilencedContacts: the list of contacts tells who is muted or blocked.
func TestSilencedContacts(t *testing.T) {
	for _, c := range []struct {
		contact client.Contact
		want    string
	}{{client.Contact{Alias: "acme"}, ""}, {client.Contact{Alias: "acme", Blocked: true, Muted: true}, "blocked"}, {client.Contact{Alias: "acme", Name: "Acme", Muted: true}, "muted"}} {
		var out strings.Builder
		(&session{Global: &Global{}, lang: phrases.English}).contactTable(&out, []client.Contact{c.contact})
		if got := out.String(); !strings.HasSuffix(got, c.want+"\n") || strings.Contains(got, "ed\n") != (c.want != "") {
			t.Errorf("%+v: %q", c.contact, got)
		}
	}
}

// Nothing that comes from others may move a terminal's cursor or begin a new line of a table.
// TestAdvice: who is refused hears what can be done about it, once, and only where the refusal does not say it.
func TestAdvice(t *testing.T) {
	values := func(errs ...error) (out []client.Value) {
		for _, err := range errs {
			out = append(out, client.Value{Err: err})
		}
		return out
	}
	wrapped := fmt.Errorf("the vault: %w", policies.CodeRevoked)
	if got := advice(values(nil, policies.CodeGrantExpired, wrapped, policies.CodeNoGrant)); len(got) != 1 || !strings.Contains(got[0], "biz ask") {
		t.Errorf("no grant any more: %q", got)
	}
	if got := advice(values(policies.CodeNotFound)); len(got) != 1 || !strings.Contains(got[0], "taken out") {
		t.Errorf("no such field: %q", got)
	}
	if got := advice(values(nil, policies.CodeFrozen, policies.CodeLimit, client.ErrUntrue)); got != nil {
		t.Errorf("refusals that say it themselves: %q", got)
	}
}

func TestOneLine(t *testing.T) {
	for _, text := range []string{"a\nb", "a\x1b[2Jb", "a\rb", "a\x9bb"} {
		if got := oneLine(text); strings.ContainsAny(got, "\n\r\x1b\u009b") {
			t.Errorf("%q becomes %q", text, got)
		}
	}
	if got := oneLine("Ünal, 東京"); got != "Ünal, 東京" {
		t.Errorf("plain text becomes %q", got)
	}
}
