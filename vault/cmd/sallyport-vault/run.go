package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/alecthomas/kong"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/hardware/hashicorp"
	"github.com/sallyport/sallyport/pkcs11"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // it did not start, or not stop, in good order; the log on stderr says why
	exitUsage   = 2 // the command line or the configuration is wrong
	exitPIN     = 4 // the PIN is missing, wrong or locked: starting again would use up tries; sallyport-hsm has the same code
	exitAway    = 5 // the HashiCorp Vault that has the PIN is away: starting again later may help, and harms nothing
)

// commands are the command line.
type commands struct {
	Init   configFlag `cmd:"" help:"Create the key-use log. Once, after the ceremony and before the first serve."`
	Serve  configFlag `cmd:"" help:"Open token and log, and serve the storefront and owners."`
	Config struct{}   `cmd:"" help:"Print the documented configuration with its defaults."`
	Worker struct{}   `cmd:"" help:"Be a token worker. Started by serve, not by people."`
}

type configFlag struct {
	Config string `required:"" type:"path" placeholder:"FILE" help:"The configuration file (TOML)."`
}

const description = `The vault of Sallyport: decides, records, and has the token re-encrypt.

  sallyport-hsm init ...                        the ceremony makes the token's keys
  sallyport-vault config > vault.toml           then fill in what is required
  sallyport-vault init --config vault.toml      creates the key-use log, once
  sallyport-vault serve --config vault.toml     until SIGTERM or SIGINT

Exit codes: 0 done, 1 failed (stderr says why), 2 wrong command line or configuration, 4 PIN missing, wrong or locked
(do not start it again by itself: tokens count wrong PINs), 5 the HashiCorp Vault with the PIN is away (starting it again later may help).
SIGUSR1 logs how often each PKCS#11 function was called.`

// run is the command.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var c commands
	exited := -1
	parser, err := kong.New(&c, kong.Name("sallyport-vault"), kong.Description(description), kong.Writers(stdout, stderr),
		kong.ConfigureHelp(kong.HelpOptions{NoExpandSubcommands: false}), kong.Exit(func(code int) { exited = code }))
	if err != nil {
		fmt.Fprintln(stderr, "sallyport-vault:", err)
		return exitFailure
	}
	parsed, err := parser.Parse(args)
	if exited >= 0 { // help was asked for and given
		return exited
	}
	if err != nil {
		fmt.Fprintf(stderr, "sallyport-vault: %v\nSee sallyport-vault --help.\n", err)
		return exitUsage
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	switch parsed.Command() {
	case "config":
		fmt.Fprint(stdout, documented)
		return exitOK
	case "worker":
		err = pkcs11.Serve(stdin, stdout)
	case "init":
		err = withConfig(c.Init.Config, func(cfg *config) error { return initialise(ctx, cfg, log) })
	case "serve":
		err = withConfig(c.Serve.Config, func(cfg *config) error { return serve(ctx, cfg, log) })
	}
	if errors.Is(err, errConfig) {
		fmt.Fprintln(stderr, "sallyport-vault:", err)
		return exitUsage
	}
	if err != nil {
		log.Error("sallyport-vault ends", "error", err.Error())
		if errors.Is(err, hashicorp.ErrAway) {
			return exitAway
		}
		if errors.Is(err, pkcs11.ErrPINIncorrect) || errors.Is(err, pkcs11.ErrPINLocked) || errors.Is(err, hardware.ErrPINSource) {
			return exitPIN
		}
		return exitFailure
	}
	return exitOK
}

var errConfig = errors.New("the configuration is not usable")

func withConfig(path string, f func(*config) error) error {
	cfg, err := loadConfig(path)
	if err != nil {
		return fmt.Errorf("%w: %w", errConfig, err)
	}
	return f(cfg)
}
