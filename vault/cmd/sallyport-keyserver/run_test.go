package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
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
		"as it is printed":  {documented, "not set: ceremony, log, state, certificate, key, storefront.introspection, storefront.ca, storefront.certificate, storefront.key"},
		"an unknown member": {documented + "\nsurprise = 1\n", "surprise"},
		"no TOML":           {"= 1", "configuration"},
	} {
		errs.Reset()
		if code := run(t.Context(), []string{"serve", "--config", written(t, want.text)}, strings.NewReader(""), &out, &errs); code != exitUsage || !strings.Contains(errs.String(), want.says) {
			t.Errorf("%s: %d %s", name, code, errs.String())
		}
	}
}
