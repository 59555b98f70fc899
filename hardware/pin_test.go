package hardware

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A process that has read a PIN can neither be dumped nor debugged.
func TestReadPINConceals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	if err := NewSecretFile(path); err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func() error{
		"PIN":        func() error { _, err := ReadPIN("file:"+path, false); return err },
		"passphrase": func() error { _, err := ReadPassphrase(path); return err },
		"ceremony key": func() error {
			if _, err := (&Reissue{Dir: t.TempDir(), CeremonyKey: path}).Run(t.Context()); !errors.Is(err, ErrFolder) {
				return err
			}
			return nil
		},
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

func TestReadPIN(t *testing.T) {
	dir := t.TempDir()
	credentials := filepath.Join(dir, "credentials")
	if err := os.Mkdir(credentials, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string, mode os.FileMode) string {
		path = filepath.Join(dir, path)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // past the umask
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	write("credentials/pin", "secret-1\n", 0o400)
	write("credentials/grouped", "secret-2\n", 0o440)
	write("credentials/open", "secret-3\n", 0o444)
	// As systemd leaves it: a folder that nobody writes to.
	if err := os.Chmod(credentials, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(credentials, 0o700) })

	open := filepath.Join(dir, "folder")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, source string
		development  bool
		want         string // empty: refused
	}{
		{"file", "file:" + write("a", "1234", 0o600), false, "1234"},
		{"newline", "file:" + write("b", "1234\n", 0o400), false, "1234"},
		{"newline of Windows", "file:" + write("c", "1234\r\n", 0o600), false, "1234"},
		{"blanks are part of it", "file:" + write("d", " 12 34 \n", 0o600), false, " 12 34 "},
		{"two lines", "file:" + write("e", "12\n34\n", 0o600), false, ""},
		{"empty", "file:" + write("f", "", 0o600), false, ""},
		{"newline alone", "file:" + write("g", "\n", 0o600), false, ""},
		{"a pipe that nobody writes to", "file:" + pipe, false, ""},
		{"readable by the group", "file:" + write("h", "1234", 0o640), false, ""},
		{"readable by all", "file:" + write("i", "1234", 0o604), true, ""},
		{"NUL", "file:" + write("j", "12\x0034", 0o600), false, ""},
		{"too long", "file:" + write("k", strings.Repeat("x", maxPIN+1), 0o600), false, ""},
		{"longest", "file:" + write("l", strings.Repeat("x", maxPIN)+"\r\n", 0o600), false, strings.Repeat("x", maxPIN)},
		{"missing", "file:" + filepath.Join(dir, "none"), false, ""},
		{"a folder", "file:" + credentials, false, ""},
		{"a folder open to all", "file:" + open, false, ""},
		{"credential", "credential:pin", false, "secret-1"},
		{"credential with an access list", "credential:grouped", false, "secret-2"},
		{"credential open to all", "credential:open", false, ""},
		{"credential elsewhere", "credential:../a", false, ""},
		{"credential up", "credential:..", false, ""},
		{"environment", "env:SALLYPORT_TEST_PIN", true, "from-env"},
		{"environment, not in development", "env:SALLYPORT_TEST_PIN", false, ""},
		{"environment, not set", "env:SALLYPORT_TEST_NONE", true, ""},
		{"a PIN by mistake", "1234", true, ""},
		{"another scheme", "argv:1234", true, ""},
		{"nothing", "", true, ""},
		{"nothing after the colon", "file:", true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("SALLYPORT_TEST_PIN", "from-env")
			got, err := ReadSecret(c.source, c.development)
			if string(got) != c.want || (err == nil) != (c.want != "") {
				t.Errorf("%q, %v", got, err)
			}
			if err != nil && !errors.Is(err, ErrPINSource) {
				t.Errorf("%v is of another kind", err)
			}
			if strings.HasPrefix(c.name, "a folder") && !strings.Contains(err.Error(), "not a regular file") { // and not that a chmod would help
				t.Errorf("a folder: %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "1234") {
				t.Errorf("the error repeats what may be a PIN: %v", err)
			}
			if c.want == "from-env" {
				if _, still := os.LookupEnv("SALLYPORT_TEST_PIN"); still {
					t.Error("the PIN is still in the environment")
				}
			}
		})
	}
	t.Run("no systemd", func(t *testing.T) {
		t.Setenv("CREDENTIALS_DIRECTORY", "")
		if _, err := ReadPIN("credential:pin", false); !errors.Is(err, ErrPINSource) || !strings.Contains(err.Error(), "LoadCredential=pin:") {
			t.Errorf("%v", err)
		}
		// Who wrote a path is told so, and not to load a credential of that name.
		for _, path := range []string{"../x", "..", ".", "/x", "x/"} {
			if _, err := ReadPIN("credential:"+path, false); !errors.Is(err, ErrPINSource) || !strings.Contains(err.Error(), "without a folder") {
				t.Errorf("%s: %v", path, err)
			}
		}
	})
}

func TestNewSecretFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	if err := NewSecretFile(path); err != nil {
		t.Fatal(err)
	}
	first, err := ReadPassphrase(path)
	if err != nil || len(first) != 26 {
		t.Fatalf("%d characters, %v", len(first), err)
	}
	if err := NewSecretFile(path); err != nil {
		t.Fatal(err)
	}
	again, err := ReadPassphrase(path)
	if err != nil || string(again) != string(first) {
		t.Errorf("a file that exists was changed: %v", err)
	}
}
