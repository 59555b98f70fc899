package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/alecthomas/kong"

	"github.com/sallyport/sallyport/storefront"
	"github.com/sallyport/sallyport/storefront/internal/store"
	"github.com/sallyport/sallyport/vault/client"
	"github.com/sallyport/sallyport/vault/gate"
	"github.com/sallyport/sallyport/vault/sockets"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

const (
	patience    = 30 * time.Second // with a client that is gone without a word
	stopTimeout = 15 * time.Second // for requests under way when the server is told to stop
)

type commandLine struct {
	Serve struct {
		Config string `required:"" placeholder:"FILE" help:"The configuration, TOML. See the command config."`
	} `cmd:"" help:"Serve until SIGTERM or SIGINT."`
	Config struct{} `cmd:"" help:"Print a documented configuration with the defaults."`
}

const description = `The public door of Sallyport: keeps ciphertext and signed documents, carries reads to a vault.

Example:
  sallyport-storefront config > storefront.toml
  sallyport-storefront serve --config storefront.toml

Exit codes: 0 stopped cleanly, 1 an error, 2 a wrong command line or configuration.`

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var cli commandLine
	helped := false
	parser, err := kong.New(&cli, kong.Name("sallyport-storefront"), kong.Description(description),
		kong.Writers(stdout, stderr), kong.Exit(func(int) { helped = true }))
	if err != nil {
		fmt.Fprintln(stderr, "sallyport-storefront:", err)
		return exitError
	}
	command, err := parser.Parse(args)
	switch {
	case helped:
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "sallyport-storefront: %v\nTry sallyport-storefront --help\n", err)
		return exitUsage
	case command.Command() == "config":
		_, _ = io.WriteString(stdout, documented)
		return exitOK
	}
	cfg, err := loadConfig(cli.Serve.Config)
	if err != nil {
		fmt.Fprintln(stderr, "sallyport-storefront:", err)
		return exitUsage
	}
	logger := slog.New(slog.NewTextHandler(stderr, nil))
	if err := serve(ctx, cfg, logger); err != nil {
		logger.Error("stopped", "error", err)
		return exitError
	}
	return exitOK
}

// serve runs a storefront until ctx ends.
func serve(ctx context.Context, cfg *config, logger *slog.Logger) (err error) {
	tlsConfig, err := cfg.tlsConfig()
	if err != nil {
		return err
	}
	vaultConfig, err := cfg.clientConfig()
	if err != nil {
		return err
	}
	vault, err := client.New(vaultConfig)
	if err != nil {
		return fmt.Errorf("connecting to the vault: %w", err)
	}
	defer vault.Close()
	db, err := store.Open(store.Options{Dir: cfg.Data, Reserve: cfg.Reserve, Log: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	front, err := storefront.New(storefront.Options{
		Store: db, Vault: vault, Log: logger, Limits: cfg.Limits,
		Names: cfg.Names, Certificate: tlsConfig.Certificates[0].Leaf,
	})
	if err != nil {
		return err
	}
	defer front.Close()

	door := gate.New("public", cfg.bounds(), logger)
	server := door.Server(front.Handler())
	server.TLSConfig = tlsConfig
	server.RegisterOnShutdown(front.Release)
	listener, err := sockets.Listen(ctx, cfg.Listen, patience)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	address := listener.Addr().String()
	addresses := map[string]string{"storefront": address}
	served := make(chan error, 2)
	if cfg.Introspection.Listen != "" {
		introspection, at, err := openIntrospection(ctx, cfg, front, logger, served)
		if err != nil {
			_ = listener.Close()
			return err
		}
		defer introspection.Close()
		addresses["introspection"] = at
	}
	go func() {
		served <- server.ServeTLS(door.Listener(listener), "", "")
	}()
	if err := sockets.Announce(cfg.ReadyFile, addresses); err != nil {
		_ = server.Close()
		<-served
		return err
	}
	logger.Info("ready", "storefront", address, "post_quantum_only", !cfg.AllowClassical)

	select {
	case err := <-served:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		_ = server.Close()
	}
	<-served
	logger.Info("stopped")
	return nil
}

// openIntrospection opens the key server's door. One that fails ends the storefront: a key server that gets no answer must not be mistaken for one that has
// nobody to serve.
func openIntrospection(ctx context.Context, cfg *config, front *storefront.Storefront, logger *slog.Logger, failed chan<- error) (*http.Server, string, error) {
	secured, err := cfg.Introspection.tlsConfig()
	if err != nil {
		return nil, "", err
	}
	door := gate.New("introspection", cfg.bounds(), logger)
	server := door.Server(front.Introspection())
	server.TLSConfig = secured
	listener, err := sockets.Listen(ctx, cfg.Introspection.Listen, patience)
	if err != nil {
		return nil, "", fmt.Errorf("listening for the key server: %w", err)
	}
	go func() {
		if err := server.ServeTLS(door.Listener(listener), "", ""); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("the key server's door: %w", err)
		}
	}()
	return server, listener.Addr().String(), nil
}
