package hardware

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/pkcs11"
)

// maxPIN bounds what is read as a PIN or passphrase, in bytes.
const maxPIN = 1024

// ReadPIN reads a PIN from where source says, as [ReadSecret] does.
func ReadPIN(source string, development bool) (pkcs11.Secret, error) {
	pin, err := ReadSecret(source, development)
	if err != nil {
		return pkcs11.Secret{}, err
	}
	return pkcs11.NewSecret(pin), nil
}

// ReadSecret reads a PIN or another secret of one line from where source says. A PIN is never taken from an argument, which every process of the machine
// can read.
//
//	file:/path/to/pin   a file that only its owner may read (mode 0600 or stricter); one trailing newline is cut off
//	credential:NAME     a systemd credential, $CREDENTIALS_DIRECTORY/NAME (systemd.exec(5), LoadCredential=)
//	env:NAME            the environment variable NAME, in development mode only; it is removed from the environment,
//	                    so that no child process inherits it
//
// From then on the process can neither be dumped nor debugged. The caller zeroes what it returns.
func ReadSecret(source string, development bool) ([]byte, error) {
	bad := func(format string, args ...any) ([]byte, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{ErrPINSource}, args...)...)
	}
	if err := Conceal(); err != nil {
		return bad("%w", err)
	}
	scheme, rest, ok := strings.Cut(source, ":")
	// A source without a scheme may be a PIN that somebody put there by mistake: it is not repeated in the error.
	if !ok || rest == "" {
		return bad("a source is file:/path, credential:NAME or, in development mode, env:NAME")
	}
	switch scheme {
	case "file":
		return readSecretFile(rest)
	case "credential":
		if rest != filepath.Base(rest) || rest == "." || rest == ".." {
			return bad("a credential is named as in LoadCredential=NAME:..., without a folder: it lies in $CREDENTIALS_DIRECTORY and nowhere else; for another file use file:/path")
		}
		folder := os.Getenv("CREDENTIALS_DIRECTORY")
		if folder == "" {
			return bad("CREDENTIALS_DIRECTORY is not set: not started by systemd with LoadCredential=%s:...", rest)
		}
		return readSecretFile(filepath.Join(folder, rest))
	case "env":
		if !development {
			return bad("the environment is for development mode only: children and crash reports can see it")
		}
		value, ok := os.LookupEnv(rest)
		if !ok || value == "" {
			return bad("the environment variable %s is not set", rest)
		}
		if err := os.Unsetenv(rest); err != nil {
			return bad("removing %s from the environment: %w", rest, err)
		}
		return []byte(value), nil
	}
	return bad("a source is file:/path, credential:NAME or, in development mode, env:NAME")
}

func readSecretFile(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // or a pipe that nobody writes to would be waited for
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPINSource, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPINSource, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrPINSource, path)
	}
	// systemd's credentials are 0400, or 0440 with an access list for the service's user; a group bit is all the same a
	// reader too many in any other place.
	if credentials := os.Getenv("CREDENTIALS_DIRECTORY"); info.Mode().Perm()&0o077 != 0 &&
		(credentials == "" || filepath.Dir(path) != filepath.Clean(credentials) || info.Mode().Perm()&0o037 != 0) {
		return nil, fmt.Errorf("%w: %s can be read by others (mode %04o): chmod 600 it", ErrPINSource, path, info.Mode().Perm())
	}
	buffer := make([]byte, maxPIN+3)
	n, err := io.ReadFull(file, buffer)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		clear(buffer)
		return nil, fmt.Errorf("%w: reading %s: %w", ErrPINSource, path, err)
	}
	pin := buffer[:n]
	pin = bytes.TrimSuffix(pin, []byte("\n"))
	pin = bytes.TrimSuffix(pin, []byte("\r"))
	if len(pin) == 0 || len(pin) > maxPIN || bytes.IndexByte(pin, 0) >= 0 || bytes.IndexByte(pin, '\n') >= 0 {
		clear(buffer)
		return nil, fmt.Errorf("%w: %s must hold one line of 1 to %d bytes", ErrPINSource, path, maxPIN)
	}
	return pin, nil
}

// ReadPassphrase reads the passphrase of a development vault's ceremony key from a file that only its owner can read. A real
// one is typed. The caller zeroes it.
func ReadPassphrase(path string) ([]byte, error) { return ReadSecret("file:"+path, false) }

// Conceal forbids core dumps of this process, and debuggers of the same user and their view of /proc/PID/mem and
// /proc/PID/environ, in which a variable that was removed still stands (prctl(2), PR_SET_DUMPABLE). Programs that it
// starts are not concealed by it: token workers do it for themselves. Whoever gets a secret in another way than by this
// package calls it first.
func Conceal() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbidding core dumps: %w", err)
	}
	return nil
}
