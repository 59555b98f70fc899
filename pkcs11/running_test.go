package pkcs11

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runningPIN makes this test the host of a vault that is at work: it attacks the token that SOFTHSM2_CONF leads to, with the re-encryption
// keys of real grants in it, while the vault uses them. tests/e2e runs it so.
var runningPIN = flag.String("running-pin", "", "attack the token of a running vault; the `file` holds the user's PIN")

// TestHostAttacksRunning is the whole list of attacks, on every re-encryption key that the token holds. Without a running vault it makes a
// token with two keys.
func TestHostAttacksRunning(t *testing.T) {
	var c Config
	if *runningPIN != "" {
		c = runningToken(t)
	} else {
		p, public := ceremony(t)
		c = Config{Profile: p, PIN: pin(userPIN), Threads: 1}
		token := open(t, p, User, 1)
		for range 2 {
			if err := token.Import(t.Context(), newID(), OAEPDirect, wrappedKey(t, public, newKey(t))); err != nil {
				t.Fatal(err)
			}
		}
		if err := token.Close(); err != nil {
			t.Fatal(err)
		}
	}
	token, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	if len(token.keys) == 0 {
		t.Fatal("the token holds no re-encryption key: there is nothing to attack")
	}
	report, err := token.Inspect(t.Context(), ImportResident)
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, token)
	public := importKey(t, report)
	h.onImportKey("import key", token.named[ImportResident], public, wrappedKey(t, public, newKey(t)), token.rekey)
	for id, rk := range token.keys {
		h.onRekey("re-encryption key "+id.String()[:8], rk, false)
		h.onOwnKeys(rk)
	}
	t.Logf("attacked %d re-encryption keys", len(token.keys))
}

// runningToken is how to open the token of the running vault.
func runningToken(t *testing.T) Config {
	t.Helper()
	secret, err := os.ReadFile(*runningPIN)
	if err != nil {
		t.Fatal(err)
	}
	conf := os.Getenv("SOFTHSM2_CONF")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	_, folder, _ := strings.Cut(string(text), "directories.tokendir = ")
	folder, _, _ = strings.Cut(folder, "\n")
	if !filepath.IsAbs(folder) {
		t.Fatalf("%s names no token folder", conf)
	}
	p := softHSM(t) // with a folder of its own, which is not the one to attack
	p.Folder = folder
	t.Setenv("SOFTHSM2_CONF", conf)
	return Config{Profile: p, PIN: NewSecret(bytes.TrimSpace(secret)), Threads: 1}
}
