package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/hardware/hashicorp"
	"github.com/sallyport/sallyport/pkcs11"
)

// pinVault is the table [pin_vault]: the PIN comes from a HashiCorp Vault.
type pinVault struct {
	Address         string        `koanf:"address"`
	CA              string        `koanf:"ca"`
	AllowClassical  bool          `koanf:"allow_classical"`
	Namespace       string        `koanf:"namespace"`
	Mount           string        `koanf:"mount"`
	Path            string        `koanf:"path"`
	Field           string        `koanf:"field"`
	Version         int           `koanf:"version"`
	Auth            string        `koanf:"auth"`
	AuthMount       string        `koanf:"auth_mount"`
	Role            string        `koanf:"role"`
	RoleID          string        `koanf:"role_id"`
	WrappedSecretID string        `koanf:"wrapped_secret_id"` // a source, see hardware.ReadSecret
	Certificate     string        `koanf:"certificate"`
	Key             string        `koanf:"key"`
	Timeout         time.Duration `koanf:"timeout"`
	Patience        time.Duration `koanf:"patience"`
}

func pinVaultDefaults() pinVault {
	return pinVault{Mount: "secret", Field: "pin", Timeout: 10 * time.Second, Patience: time.Minute}
}

// used tells whether the table is there.
func (p *pinVault) used() bool { return *p != pinVaultDefaults() }

// session is the table as package hashicorp takes it.
func (p *pinVault) session(development bool, log *slog.Logger) hashicorp.Config {
	c := hashicorp.Config{
		Address: p.Address, CA: p.CA, AllowClassical: p.AllowClassical, Namespace: p.Namespace, Mount: p.Mount, Path: p.Path, Field: p.Field, Version: p.Version,
		Auth: hashicorp.Method(p.Auth), AuthMount: p.AuthMount, Role: p.Role, RoleID: p.RoleID, CertificateFile: p.Certificate, KeyFile: p.Key,
		Timeout: p.Timeout, Patience: p.Patience,
	}
	if p.WrappedSecretID != "" {
		c.WrappedSecretID = func() ([]byte, error) { return hardware.ReadSecret(p.WrappedSecretID, development) }
		c.Unwrapped = func() { discard(p.WrappedSecretID, log) }
	}
	return c
}

// discard removes the file of a wrapping token that was used: the next start would take it for a stolen one. A crash just before
// leaves it there, and that start sounds the alarm: rather once too often.
func discard(source string, log *slog.Logger) {
	path, ok := strings.CutPrefix(source, "file:")
	if !ok { // systemd makes credentials anew for each start
		return
	}
	if err := os.Remove(path); err != nil {
		log.Warn("the used wrapping token could not be removed; remove it, or the next start takes it for a stolen one", "error", err.Error())
	}
}

// choice is what the configuration says of token, library and PIN, put together.
func (c *config) choice() (hardware.TokenChoice, error) {
	choice, err := hardware.ChooseToken(c.Token, c.Module, c.PIN)
	if err != nil {
		return choice, err
	}
	if !c.PINVault.used() {
		if choice.PIN == "" {
			return choice, errors.New("not set: pin (or pin-source in token, or the table pin_vault)")
		}
		return choice, nil
	}
	if choice.PIN != "" {
		return choice, errors.New("the PIN comes from pin_vault or from pin, not from both")
	}
	p := c.PINVault.session(c.DevMode, nil)
	return choice, p.Validate()
}

// readPIN gets the PIN, and the login that it came by if it came from a HashiCorp Vault. The caller zeroes the one and closes the other.
func readPIN(ctx context.Context, cfg *config, choice hardware.TokenChoice, log *slog.Logger) (pkcs11.Secret, *hashicorp.Session, error) {
	if choice.PIN != "" {
		pin, err := hardware.ReadPIN(choice.PIN, cfg.DevMode)
		return pin, nil, err
	}
	if err := hardware.Conceal(); err != nil {
		return pkcs11.Secret{}, nil, err
	}
	session, err := hashicorp.Open(ctx, cfg.PINVault.session(cfg.DevMode, log), log)
	if err != nil {
		return pkcs11.Secret{}, nil, sortError(err)
	}
	pin, err := session.PIN(ctx)
	if err != nil {
		session.Close()
		return pkcs11.Secret{}, nil, sortError(err)
	}
	return pkcs11.NewSecret(pin), session, nil
}

// sortError adds the kind by which run chooses an exit code. What only a person can mend is a missing PIN; what may pass is not.
func sortError(err error) error {
	for _, kind := range []error{hashicorp.ErrLogin, hashicorp.ErrWrapped, hashicorp.ErrDenied, hashicorp.ErrMissing, hashicorp.ErrField} {
		if errors.Is(err, kind) {
			return fmt.Errorf("%w: %w", hardware.ErrPINSource, err)
		}
	}
	if errors.Is(err, hashicorp.ErrConfig) {
		return fmt.Errorf("%w: %w", errConfig, err)
	}
	return err
}

// hold keeps a login until it is released. Nothing waits for it meanwhile: the token's workers have the PIN.
func hold(ctx context.Context, session *hashicorp.Session) (release func()) {
	if session == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		session.Keep(ctx)
		close(ended)
	}()
	return func() {
		cancel()
		<-ended
		session.Close()
	}
}
