package main

import (
	"errors"
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

// TestShortPassphrases: a profile is not made with a passphrase that is soon guessed. One that was made so opens, and is made again from its backup.
func TestShortPassphrases(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	for _, c := range []struct {
		text                  string
		fresh, same, tooShort bool
	}{{"abc", true, false, true}, {"pässworte", true, false, true}, {"passwörter", true, false, false}, {"abc", false, false, false}, {"abc", true, true, false}} {
		if err := os.WriteFile(file, []byte(c.text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s := &session{Global: &Global{PassphraseFile: file}, lang: phrases.English, stdin: strings.NewReader(""), same: c.same}
		if _, err := s.secret(c.fresh); errors.Is(err, errUnsure) != c.tooShort || err != nil && !strings.Contains(err.Error(), "at least 10 characters") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
