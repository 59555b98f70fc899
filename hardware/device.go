package hardware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/sallyport/sallyport/hardware/pkcs11uri"
	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

// DeviceConfig says which vault's token to open, and how.
type DeviceConfig struct {
	// Dir is the folder of the ceremony.
	Dir string
	// PIN is the user's. The pool keeps a copy, for workers that it must start again, until it is closed; the caller zeroes
	// its own when Open has returned.
	PIN pkcs11.Secret
	// Token, if not nil, must name the token of the ceremony, or nothing is opened.
	Token *pkcs11uri.URI
	// Module is the library, if it is not in one of the profile's usual places.
	Module string
	// WorkerCommand starts a token worker, such as {"/usr/bin/sallyport-vault", "worker"}.
	WorkerCommand []string
	// Workers is the number of processes and Threads that of derives at once in each. Zero: two and one.
	Workers, Threads int
	// LiveKeys bounds the keys of custody sealed that each worker keeps loaded. Zero: the pool's default.
	LiveKeys int
	// DevMode lets a development vault in.
	DevMode bool
	// Logger hears of workers that stop and start. Nil: slog.Default().
	Logger *slog.Logger
}

// Device is a vault's token, verified and open. Its methods may be called by several goroutines.
type Device struct {
	record  *Record
	pool    *pkcs11.Pool
	found   pkcs11.Findings
	secrets *Secrets
}

// Open opens the device that the ceremony in c.Dir made, with the checks that the package comment lists. The caller closes it.
func Open(ctx context.Context, c DeviceConfig) (*Device, error) {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Workers == 0 {
		c.Workers = 2
	}
	if c.Threads == 0 {
		c.Threads = 1
	}
	record, err := ReadRecord(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening the token: %w", err)
	}
	if err := record.Choose(c.Token); err != nil {
		return nil, fmt.Errorf("opening the token: %w", err)
	}
	profile, facts, err := record.usable(c.Module, c.DevMode)
	if err != nil {
		return nil, fmt.Errorf("opening the token: %w", err)
	}
	if module, err := describeModule(facts.Module); err != nil {
		return nil, fmt.Errorf("opening the token: %w", err)
	} else if module.SHA256 != record.Transcript.Module.SHA256 {
		// An update of the library is no attack; the probe below measures it. But a person should know.
		c.Logger.Warn("the PKCS#11 module is not the one of the ceremony", "path", module.Path, "sha256", module.SHA256,
			"ceremony_sha256", record.Transcript.Module.SHA256)
	}
	pool, err := pkcs11.Start(ctx, pkcs11.PoolConfig{
		Command: c.WorkerCommand, Env: profile.environ(c.DevMode), Workers: c.Workers, Threads: c.Threads, LiveKeys: c.LiveKeys,
		Profile: facts, Selector: record.selector(), PIN: c.PIN, Logger: c.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("opening the token: %w", err)
	}
	d := &Device{record: record, pool: pool}
	if d.found, err = record.examine(ctx, pool); err == nil {
		d.secrets, err = openSecrets(ctx, pool, record.Vault, record.sealed)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the token: %w", errors.Join(err, pool.Close()))
	}
	if d.found.Strangers > 0 {
		c.Logger.Error("the token holds private keys that have no place in it; one may be a re-encryption key that somebody renamed to keep it from being destroyed",
			"keys", d.found.Strangers)
	}
	return d, nil
}

// Pool is the token, behind its workers. The device closes it.
func (d *Device) Pool() *pkcs11.Pool { return d.pool }

// Document is the vault document as it was signed, to hand to clients.
func (d *Device) Document() *envelope.Envelope { return d.record.Envelope }

// VaultDocument is what it says.
func (d *Device) VaultDocument() *policies.VaultDocument { return d.record.Vault }

// Serial is the token's serial number.
func (d *Device) Serial() string { return d.record.Transcript.Token.Serial }

// Grade is the token's grade: "A", "B", "C", "U", or "unproven" where no full probe was held.
func (d *Device) Grade() string { return string(d.record.Grade()) }

// Findings are what the light probe of this start found, for the key-use log.
func (d *Device) Findings() pkcs11.Findings { return d.found }

// Secrets are the vault's. Close zeroes them: copy nothing out that is to live longer.
func (d *Device) Secrets() *Secrets { return d.secrets }

// LogSigner signs checkpoints with the log key.
func (d *Device) LogSigner() LogSigner { return LogSigner{d.pool} }

// StateKeeper keeps the signer's state in the token.
func (d *Device) StateKeeper() StateKeeper { return StateKeeper{d.pool} }

// Close zeroes the secrets and ends the workers.
func (d *Device) Close() error {
	d.secrets.Zero()
	return d.pool.Close()
}

// LogSigner is the token's log key as the key-use log wants it.
type LogSigner struct{ pool *pkcs11.Pool }

// Sign makes an Ed25519 signature.
func (s LogSigner) Sign(ctx context.Context, message []byte) ([]byte, error) {
	return s.pool.Sign(ctx, message)
}

// StateKeeper is the token's memory for the last signed root, as the key-use log wants it.
type StateKeeper struct{ pool *pkcs11.Pool }

// Save replaces the state; it is durable when Save returns, and a crash leaves the old one or the new.
func (k StateKeeper) Save(ctx context.Context, state []byte) error {
	return k.pool.SaveState(ctx, state)
}

// Load returns the state, or nil and no error if the token holds none.
func (k StateKeeper) Load(ctx context.Context) ([]byte, error) {
	state, err := k.pool.LoadState(ctx)
	if errors.Is(err, pkcs11.ErrStateMissing) {
		return nil, nil
	}
	return state, err
}
