package hardware

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// NewDevelopmentToken makes a folder in which SoftHSM keeps tokens apart from all others of the machine, and the
// configuration that leads there. It initialises no token. SOFTHSM2_CONF must name the file that it returns, in the
// environment of the ceremony and of the vault.
func NewDevelopmentToken(dir string) (conf string, err error) {
	dir = absolute(dir)
	conf = filepath.Join(dir, "softhsm2.conf")
	if strings.ContainsAny(dir, "\n#") {
		return "", fmt.Errorf("%w: SoftHSM's configuration cannot name %q", ErrFolder, dir)
	}
	if exists(conf) {
		return "", fmt.Errorf("%w: %s exists already", ErrFolder, conf)
	}
	tokens := filepath.Join(dir, "tokens")
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		return "", fmt.Errorf("%w: %w", ErrFolder, err)
	}
	text := fmt.Sprintf("# Made by sallyport-hsm dev-token. Development only.\ndirectories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n", tokens)
	if err := writeFile(conf, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("%w: %w", ErrFolder, err)
	}
	return conf, nil
}

// NewSecretFile makes a file, readable by its owner alone, that holds a random PIN or passphrase of 26 characters (130
// bits). A file that exists stays as it is: that is not an error.
func NewSecretFile(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPINSource, err)
	}
	var random [17]byte
	rand.Read(random[:]) // never fails: see crypto/rand
	defer clear(random[:])
	text := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(random[:])[:26]
	_, err = file.WriteString(strings.ToLower(text) + "\n")
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPINSource, err)
	}
	return nil
}
