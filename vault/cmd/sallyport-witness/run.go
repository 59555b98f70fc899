package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/alecthomas/kong"

	"github.com/sallyport/sallyport/vault/gate"
	"github.com/sallyport/sallyport/vault/sockets"
	"github.com/sallyport/sallyport/vault/witness"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // it did not start, or not stop, in good order; stderr says why
	exitUsage   = 2 // the command line or the configuration is wrong
	exitState   = 3 // the state is damaged, gone or older than what was cosigned: starting again does not help
)

// Times of a connection, and how long one that is gone without a word is held.
const (
	header   = 5 * time.Second
	request  = 15 * time.Second
	between  = 2 * time.Minute
	patience = 30 * time.Second
	stopping = 10 * time.Second
)

type commands struct {
	Init   initCommand `cmd:"" help:"Make the key and the folders. Once. Prints the verifier keys that logs and auditors are given."`
	Serve  configFlag  `cmd:"" help:"Witness."`
	Keys   configFlag  `cmd:"" help:"Print the verifier keys again."`
	Config struct{}    `cmd:"" help:"Print the documented configuration with its defaults."`
}

type configFlag struct {
	Config string `required:"" type:"path" placeholder:"FILE" help:"The configuration file (TOML)."`
}

type initCommand struct {
	configFlag
	Name string `required:"" help:"The witness's name, such as witness.example/w1: without space or plus, and never used by another." placeholder:"NAME"`
}

const description = `A witness of key-use logs (C2SP tlog-witness): cosigns checkpoints of logs that only grow.

  sallyport-witness config > witness.toml        then fill in what is required
  sallyport-witness init --config witness.toml --name witness.example/w1
  sallyport-witness serve --config witness.toml  until SIGTERM or SIGINT

Logs and auditors are given a verifier key that init prints, the first if they know ML-DSA-44. Exit codes: 0 done, 1 failed (stderr says why), 2 wrong command
line or configuration, 3 the state is damaged, gone or older than what was cosigned (do not start it again by itself).`

// run is the command.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var c commands
	exited := -1
	parser, err := kong.New(&c, kong.Name("sallyport-witness"), kong.Description(description), kong.Writers(stdout, stderr), kong.Exit(func(code int) { exited = code }))
	if err != nil {
		fmt.Fprintln(stderr, "sallyport-witness:", err)
		return exitFailure
	}
	parsed, err := parser.Parse(args)
	if exited >= 0 { // help was asked for and given
		return exited
	}
	if err != nil {
		fmt.Fprintf(stderr, "sallyport-witness: %v\nSee sallyport-witness --help.\n", err)
		return exitUsage
	}
	switch parsed.Command() {
	case "config":
		fmt.Fprint(stdout, documented)
	case "init":
		err = withConfig(c.Init.Config, func(cfg *config) error { return initialise(cfg, c.Init.Name, stdout) })
	case "keys":
		err = withConfig(c.Keys.Config, func(cfg *config) error { return printKeys(cfg, stdout) })
	case "serve":
		err = withConfig(c.Serve.Config, func(cfg *config) error { return serve(ctx, cfg, slog.New(slog.NewTextHandler(stderr, nil))) })
	}
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, "sallyport-witness:", err)
	switch {
	case errors.Is(err, errConfig):
		return exitUsage
	case errors.Is(err, witness.ErrState):
		return exitState
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

// initialise makes key and folders. A key that is there is not replaced: what was signed with it would be nobody's any more.
func initialise(cfg *config, name string, stdout io.Writer) error {
	for _, folder := range []string{cfg.State, cfg.Seen} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
	}
	if err := conceal(); err != nil {
		return fmt.Errorf("making the witness's key: %w", err)
	}
	key, err := witness.NewKey(name)
	if err != nil {
		return fmt.Errorf("%w: %w", errConfig, err)
	}
	defer clear(key)
	f, err := os.OpenFile(cfg.Key, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("making the witness's key: %w", err)
	}
	_, err = f.Write(key)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("making the witness's key: %w", err)
	}
	folder, err := os.Open(filepath.Dir(cfg.Key))
	if err != nil {
		return err
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return fmt.Errorf("making the witness's key: %w", err)
	}
	return printKeys(cfg, stdout)
}

func printKeys(cfg *config, stdout io.Writer) error {
	keys, err := cfg.readKey()
	for _, k := range keys {
		fmt.Fprintln(stdout, k.Cosigner())
	}
	return err
}

// serve witnesses until ctx ends or the listener fails, and lets requests under way finish.
func serve(ctx context.Context, cfg *config, log *slog.Logger) (err error) {
	keys, err := cfg.readKey()
	if err != nil {
		return err
	}
	logs, err := cfg.logs()
	if err != nil {
		return err
	}
	secured, err := cfg.tls()
	if err != nil {
		return err
	}
	w, err := witness.Open(witness.Config{Logs: logs, Keys: keys, State: cfg.State, Seen: cfg.Seen, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	bounds := gate.New("witness", gate.Limits{
		Connections: cfg.Connections, Each: cfg.Each, Header: header, Request: request, Answer: request, Idle: between,
	}, log)
	listener, err := sockets.Listen(ctx, cfg.Listen, patience)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	defer listener.Close()
	for _, l := range logs {
		log.Info("witnesses", "log", l.Key.Name, "cosigned", w.Size(l.Key.Name))
	}
	if err := sockets.Announce(cfg.ReadyFile, map[string]string{"witness": listener.Addr().String()}); err != nil {
		return err
	}
	log.Info("ready", "address", listener.Addr().String(), "witness", keys[0].Cosigner().Name)
	return bounds.Serve(ctx, w.Handler(witness.Rate{PerSecond: cfg.PerSecond, Burst: cfg.Burst}), listener, secured, stopping)
}
