package pkcs11

import (
	"bytes"
	"crypto/rsa"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// runningPIN makes this test the host of a vault that is at work: it attacks the token that SOFTHSM2_CONF leads to, with the re-encryption
// keys of real grants in it, and its sealing keys, while the vault uses them. tests/e2e runs it so.
var runningPIN = flag.String("running-pin", "", "attack the token of a running vault; the `file` holds the user's PIN")

// TestHostAttacksRunning is the whole list of attacks, on every re-encryption key and sealing key that the token holds. Without a running
// vault it makes a token with two of each.
func TestHostAttacksRunning(t *testing.T) {
	var c Config
	if *runningPIN != "" {
		c = runningToken(t)
	} else {
		p, public := whole.once(t, ImportResident, ImportSealed, LogKey, StoreKey)
		officerMakes(t, p, 1, 2)
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
	periods, _, err := token.SealingKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(token.keys)+len(periods) == 0 {
		t.Fatal("the token holds neither a re-encryption key nor a sealing key: there is nothing to attack")
	}
	h := newHost(t, token)
	public := func(name KeyName) *rsa.PublicKey {
		t.Helper()
		report, err := token.Inspect(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return importKey(t, report)
	}
	if len(token.keys) > 0 {
		resident := public(ImportResident)
		h.onImportKey("import key", token.named[ImportResident], resident, wrappedKey(t, resident, newKey(t)), token.rekey)
	}
	for id, rk := range token.keys {
		h.onRekey("re-encryption key "+id.String()[:8], rk, false)
		h.onOwnKeys(rk)
	}
	if len(periods) > 0 {
		h.onSealed(public(ImportSealed), periods)
	}
	t.Logf("attacked %d re-encryption keys and %d sealing keys", len(token.keys), len(periods))
}

// onSealed attacks what custody sealed rests on. Grants' own blobs are in the vault's database; a key that the host imports itself
// is wrapped, loaded and guarded like them, and leaves nothing in the token.
func (h *host) onSealed(public *rsa.PublicKey, periods []uint32) {
	h.t.Helper()
	token := h.token
	s := importedSealed(h.t, token, public)
	if err := s.check(token); err != nil {
		h.t.Fatal(err)
	}
	live := token.live.keys[nameOf(s.req.Key, s.req.Sealed)].object
	h.onImportKey("import key for custody sealed", token.named[ImportSealed], public, wrappedKey(h.t, public, s.key), token.sealedRekey)
	h.onRekey("live key", live, true)
	for _, period := range periods {
		key := h.named(SealingKey(period))
		h.onSealingKey(string(SealingKey(period)), key, h.must(h.m.WrapKey(h.s, cryptoki.Plain(token.profile.KWP), key, live)), live)
	}
	if err := s.check(token); err != nil {
		h.t.Errorf("derive afterwards: %v", err)
	}
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
