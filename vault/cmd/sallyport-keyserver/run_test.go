package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyserver.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestConfig: what `config` prints is the defaults, says what is missing, and takes no other member.
func TestConfig(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"config"}, strings.NewReader(""), &out, &errs); code != exitOK || out.String() != documented {
		t.Fatalf("config: %d %s", code, errs.String())
	}
	k := koanf.New(".")
	if err := k.Load(file.Provider(written(t, documented)), toml.Parser()); err != nil {
		t.Fatal(err)
	}
	var c config
	if err := k.UnmarshalWithConf("", &c, koanf.UnmarshalConf{Tag: "koanf"}); err != nil || c != defaults() {
		t.Errorf("the documented configuration is %+v, the defaults are %+v: %v", c, defaults(), err)
	}
	for name, want := range map[string]struct{ text, says string }{
		"as it is printed":  {documented, "not set: ceremony, vault, log, state, certificate, key, storefront.introspection, storefront.ca, storefront.certificate, storefront.key"},
		"an unknown member": {documented + "\nsurprise = 1\n", "surprise"},
		"no TOML":           {"= 1", "configuration"},
	} {
		errs.Reset()
		if code := run(t.Context(), []string{"serve", "--config", written(t, want.text)}, strings.NewReader(""), &out, &errs); code != exitUsage || !strings.Contains(errs.String(), want.says) {
			t.Errorf("%s: %d %s", name, code, errs.String())
		}
	}
}

// TestVaultDocument: the document of the vault is taken whole, and one for development only where that was said.
func TestVaultDocument(t *testing.T) {
	ceremony := envelope.NewPrivateKey(&[envelope.SeedSize]byte{3})
	e, err := policies.Sign(ceremony, &policies.VaultDocument{
		Header: policies.NewHeader("vault", time.Now()), Vault: policies.VaultID{9}, Version: 1, CeremonyKey: ceremony.Public().Bytes(),
		Tokens: []policies.TokenEntry{{Serial: "soft", Label: "soft", Grade: "unproven", ImportKeys: []policies.ImportKey{
			{Custody: policies.CustodyResident, Path: "oaep-direct", OAEPHash: "SHA-1", PublicKey: []byte{1}}}}},
		LogKey:     policies.LogKey{Name: "a.test/log", Algorithm: "Ed25519", PublicKey: bytes.Repeat([]byte{1}, 32)},
		LogHostKey: policies.LogKey{Name: "a.test/log/host", Algorithm: "ML-DSA-44", PublicKey: bytes.Repeat([]byte{9}, policies.LogHostKeySize)},
		ImportHPKE: bytes.Repeat([]byte{1}, policies.KEMPublicKeySize), SessionKEM: bytes.Repeat([]byte{2}, policies.KEMPublicKeySize), DevMode: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		dev  bool
		says string
	}{
		"whole":                  {string(e.Raw), true, ""},
		"for development":        {string(e.Raw), false, "dev_mode is not set"},
		"with another signature": {strings.Replace(string(e.Raw), `"sig":"`, `"sig":"AAAA`, 1), true, "signature"},
		"no envelope":            {"{}", true, "envelope"},
		"nothing":                {"", true, "envelope"},
	} {
		d, err := (&config{Vault: written(t, c.text), DevMode: c.dev}).vault()
		if (err == nil) != (c.says == "") || err != nil && (!errors.Is(err, errConfig) || !strings.Contains(err.Error(), c.says)) || err == nil && d.Vault != (policies.VaultID{9}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (&config{Vault: filepath.Join(t.TempDir(), "none")}).vault(); !errors.Is(err, errConfig) {
		t.Errorf("no file: %v", err)
	}
}
