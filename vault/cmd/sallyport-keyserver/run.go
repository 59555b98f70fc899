package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/gate"
	"github.com/sallyport/sallyport/vault/keylog"
	"github.com/sallyport/sallyport/vault/keyserver"
	"github.com/sallyport/sallyport/vault/sockets"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // it did not start, or not stop, in good order; stderr says why
	exitUsage   = 2 // the command line or the configuration is wrong
	exitPIN     = 4 // the PIN is missing, wrong or locked: starting again would use up tries
)

// Times of a connection, and how long one that is gone without a word is held.
const (
	header   = 5 * time.Second
	request  = 30 * time.Second
	answer   = 60 * time.Second
	between  = 10 * time.Second
	patience = 30 * time.Second
	stopping = 20 * time.Second
)

type commands struct {
	Init   configFlag `cmd:"" help:"Begin the log. Once, after the ceremony and before the first serve."`
	Serve  configFlag `cmd:"" help:"Serve devices until SIGTERM or SIGINT."`
	Config struct{}   `cmd:"" help:"Print the documented configuration with its defaults."`
	Worker struct{}   `cmd:"" help:"Be a token worker. Started by serve, not by people."`
}

type configFlag struct {
	Config string `required:"" type:"path" placeholder:"FILE" help:"The configuration file (TOML)."`
}

const description = `The key server of Sallyport: a new device gets a person's profile for the password or the recovery sheet.

  sallyport-hsm init ...                           a ceremony of its own, on a token or partition of its own
  sallyport-keyserver config > keyserver.toml      then fill in what is required
  sallyport-keyserver init --config keyserver.toml
  sallyport-keyserver serve --config keyserver.toml

Exit codes: 0 done, 1 failed (stderr says why), 2 wrong command line or configuration, 4 PIN missing, wrong or locked (do not start it again by itself).`

// run is the command.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var c commands
	exited := -1
	parser, err := kong.New(&c, kong.Name("sallyport-keyserver"), kong.Description(description), kong.Writers(stdout, stderr), kong.Exit(func(code int) { exited = code }))
	if err != nil {
		fmt.Fprintln(stderr, "sallyport-keyserver:", err)
		return exitFailure
	}
	parsed, err := parser.Parse(args)
	if exited >= 0 { // help was asked for and given
		return exited
	}
	if err != nil {
		fmt.Fprintf(stderr, "sallyport-keyserver: %v\nSee sallyport-keyserver --help.\n", err)
		return exitUsage
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	switch parsed.Command() {
	case "config":
		fmt.Fprint(stdout, documented)
	case "worker":
		err = pkcs11.Serve(stdin, stdout)
	case "init":
		err = withConfig(c.Init.Config, func(cfg *config) error { return initialise(ctx, cfg, log) })
	case "serve":
		err = withConfig(c.Serve.Config, func(cfg *config) error { return serve(ctx, cfg, log) })
	}
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, "sallyport-keyserver:", err)
	switch {
	case errors.Is(err, errConfig):
		return exitUsage
	case errors.Is(err, pkcs11.ErrPINIncorrect), errors.Is(err, pkcs11.ErrPINLocked), errors.Is(err, hardware.ErrPINSource):
		return exitPIN
	}
	return exitFailure
}

var errConfig = errors.New("the configuration is not usable")

func withConfig(path string, f func(*config) error) error {
	cfg, err := loadConfig(path)
	if err != nil {
		return fmt.Errorf("%w: %w", errConfig, err)
	}
	return f(cfg)
}

// openDevice opens the token.
func openDevice(ctx context.Context, cfg *config, log *slog.Logger) (*hardware.Device, error) {
	choice, err := cfg.choice()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConfig, err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding the worker's program: %w", err)
	}
	pin, err := hardware.ReadPIN(choice.PIN, cfg.DevMode)
	if err != nil {
		return nil, err
	}
	defer pin.Zero()
	return hardware.Open(ctx, hardware.DeviceConfig{
		Dir: cfg.Ceremony, PIN: pin, Token: choice.URI, Module: choice.Module, WorkerCommand: []string{self, "worker"},
		Workers: cfg.Workers, Threads: cfg.Threads, DevMode: cfg.DevMode, Logger: log,
	})
}

func logConfig(cfg *config, device *hardware.Device) keylog.Config {
	key := device.VaultDocument().LogKey
	return keylog.Config{
		Dir: cfg.Log, StateDir: cfg.State, Origin: key.Name, PublicKey: key.PublicKey,
		Signer: device.LogSigner(), State: device.StateKeeper(), Reserve: cfg.Reserve,
	}
}

func serverConfig(device *hardware.Device, vault *policies.VaultDocument, journal *keylog.Log, log *slog.Logger) keyserver.Config {
	return keyserver.Config{ID: device.VaultDocument().Vault, Vault: vault, Token: token{device.Pool()}, Log: journal, Logger: log}
}

// initialise begins the log. It can be repeated until its first entry is there.
func initialise(ctx context.Context, cfg *config, log *slog.Logger) (err error) {
	vault, err := cfg.vault()
	if err != nil {
		return err
	}
	device, err := openDevice(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, device.Close()) }()
	journal, err := keylog.Create(ctx, logConfig(cfg, device))
	if errors.Is(err, keylog.ErrExists) {
		journal, err = keylog.Open(ctx, logConfig(cfg, device))
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	if err := keyserver.Create(ctx, serverConfig(device, vault, journal, log)); err != nil {
		return err
	}
	log.Info("created the log", "keyserver", device.VaultDocument().Vault.String())
	return nil
}

// serve opens token, log, server and listener, and closes them the other way round.
func serve(ctx context.Context, cfg *config, log *slog.Logger) (err error) {
	vault, err := cfg.vault()
	if err != nil {
		return err
	}
	device, err := openDevice(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, device.Close()) }()
	if device.VaultDocument().DevMode {
		log.Warn("DEVELOPMENT MODE: THIS KEY SERVER PROTECTS NOTHING. Do not use it for the data of real people.")
	}
	journal, err := keylog.Open(ctx, logConfig(cfg, device))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	server, err := keyserver.Open(ctx, serverConfig(device, vault, journal, log))
	if err != nil {
		return err
	}
	toStorefront, err := cfg.toStorefront()
	if err != nil {
		return err
	}
	secured, err := cfg.devices()
	if err != nil {
		return err
	}
	bounds := gate.New("devices", gate.Limits{
		Connections: cfg.Connections, Each: cfg.Each, Header: header, Request: request, Answer: answer, Idle: between,
	}, log)
	listener, err := sockets.Listen(ctx, cfg.Listen, patience)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	defer listener.Close()
	if err := sockets.Announce(cfg.ReadyFile, map[string]string{"devices": listener.Addr().String()}); err != nil {
		return err
	}
	log.Info("ready", "devices", listener.Addr().String(), "keyserver", device.VaultDocument().Vault.String())
	handler := server.Handler(keyserver.NewIntrospector(cfg.Storefront.Introspection, toStorefront),
		keyserver.Rates{PerSecond: cfg.PerSecond, Burst: cfg.Burst, Tries: cfg.Tries})
	return bounds.Serve(ctx, handler, listener, secured, stopping)
}

// token is a pool of token workers in the words of the key server.
type token struct{ pool *pkcs11.Pool }

func (t token) NewKey(ctx context.Context, key keyserver.KeyID) error {
	return t.pool.NewKey(ctx, pkcs11.KeyID(key))
}

func (t token) Derive(ctx context.Context, uses []keyserver.Use) ([][32]byte, error) {
	requests := make([]pkcs11.DeriveRequest, len(uses))
	for i, u := range uses {
		requests[i] = pkcs11.DeriveRequest{Key: pkcs11.KeyID(u.Key), Point: u.Point}
	}
	out := make([][32]byte, len(uses))
	for i, r := range t.pool.Derive(ctx, requests) {
		if r.Err != nil {
			return nil, r.Err
		}
		out[i] = r.X
	}
	return out, nil
}

func (t token) Destroy(ctx context.Context, key keyserver.KeyID) error {
	if err := t.pool.Destroy(ctx, pkcs11.KeyID(key)); !errors.Is(err, pkcs11.ErrKeyMissing) {
		return err
	}
	return nil
}

// Keys is asked at the start, before a key is made: what a process that was killed left unfinished goes first.
func (t token) Keys(ctx context.Context) ([]keyserver.KeyID, error) {
	if _, err := t.pool.Clean(ctx); err != nil {
		return nil, err
	}
	held, err := t.pool.Keys(ctx)
	out := make([]keyserver.KeyID, len(held))
	for i := range held {
		out[i] = keyserver.KeyID(held[i])
	}
	return out, err
}
