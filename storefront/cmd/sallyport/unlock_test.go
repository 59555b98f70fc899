package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/storefront/client/phrases"
)

// TestSecretsConceal: from the first secret on that a command reads, its process can be neither dumped nor debugged by its own user.
func TestSecretsConceal(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &session{Global: &Global{PassphraseFile: file}, lang: phrases.English, stdin: strings.NewReader("")}
	for name, read := range map[string]func() error{
		"passphrase": func() error { _, err := s.secret(false); return err },
		"password":   func() error { _, err := s.password(file, "--password-file", false); return err },
	} {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := read(); err != nil {
			t.Fatal(err)
		}
		if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 {
			t.Errorf("%s: dumpable is %d, %v", name, dumpable, err)
		}
	}
}
