package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/hardware/hashicorp"
	"github.com/sallyport/sallyport/vault"
	"github.com/sallyport/sallyport/vault/internal/server"
	"github.com/sallyport/sallyport/vault/keylog"
	"github.com/sallyport/sallyport/vault/pre"
	"github.com/sallyport/sallyport/vault/sockets"
)

// stopTimeout is how long requests under way may take when the vault is told to stop.
const stopTimeout = 20 * time.Second

// patience is how long a caller that is gone without a word holds its connection.
const patience = 30 * time.Second

// initialise creates the key-use log and its first entry. It can be repeated until that entry is in the log.
func initialise(ctx context.Context, cfg *config, log *slog.Logger) (err error) {
	device, login, err := openDevice(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer hold(ctx, login)()
	defer func() { err = errors.Join(err, device.Close()) }()
	journal, err := keylog.Create(ctx, logConfig(cfg, device))
	if errors.Is(err, keylog.ErrExists) {
		journal, err = keylog.Open(ctx, logConfig(cfg, device))
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	if err := vault.Create(ctx, journal, device.Document(), device.VaultDocument()); err != nil {
		return err
	}
	log.Info("created the key-use log", "vault", device.VaultDocument().Vault.String(), "origin", device.VaultDocument().LogKey.Name)
	return nil
}

// serve opens everything in the order of trust, token, log, vault, doors, and closes it the other way round.
func serve(ctx context.Context, cfg *config, log *slog.Logger) (err error) {
	device, login, err := openDevice(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer hold(ctx, login)()
	defer func() { err = errors.Join(err, device.Close()) }()
	if err := cfg.graded(device.Grade()); err != nil {
		return err
	}
	if device.VaultDocument().DevMode {
		log.Warn("DEVELOPMENT MODE: THIS VAULT PROTECTS NOTHING. Do not use it for the data of real people.")
	}

	journal, err := keylog.Open(ctx, logConfig(cfg, device))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	if r := journal.Recovery(); r.CutBytes > 0 || r.SignedEntries > 0 {
		log.Warn("the key-use log was not closed in good order", "cut_bytes", r.CutBytes, "entries_signed_now", r.SignedEntries)
	}

	v, err := openVault(ctx, cfg, device, journal, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close(context.WithoutCancel(ctx))) }()

	public, stopPublishing, err := publish(ctx, cfg, v, device, journal, log)
	if err != nil {
		return err
	}
	defer stopPublishing()
	doors, err := openDoors(ctx, cfg, public, log)
	if err != nil {
		return err
	}
	defer doors.close()
	stop := reportCalls(device, log)
	defer stop()
	if err := doors.announce(cfg.ReadyFile, log); err != nil {
		return err
	}
	return doors.serve(ctx, log)
}

// openDevice opens the token. The PIN lives as long as it takes; the login that it came by, if it came by one, is the caller's to hold.
func openDevice(ctx context.Context, cfg *config, log *slog.Logger) (*hardware.Device, *hashicorp.Session, error) {
	choice, err := cfg.choice()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errConfig, err)
	}
	// What can be seen to be wrong without the PIN is seen before it is asked for: a wrapped secret id is good for one start.
	record, err := hardware.ReadRecord(cfg.Ceremony)
	if err != nil {
		return nil, nil, err
	}
	if err := record.Choose(choice.URI); err != nil {
		return nil, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("finding the worker's program: %w", err)
	}
	pin, login, err := readPIN(ctx, cfg, choice, log)
	if err != nil {
		return nil, nil, err
	}
	defer pin.Zero()
	device, err := hardware.Open(ctx, hardware.DeviceConfig{
		Dir: cfg.Ceremony, PIN: pin, Token: choice.URI, Module: choice.Module, WorkerCommand: []string{self, "worker"},
		Workers: cfg.Workers, Threads: cfg.Threads, LiveKeys: cfg.LiveKeys, DevMode: cfg.DevMode, Logger: log,
	})
	if err != nil && login != nil {
		login.Close()
	}
	return device, login, err
}

func logConfig(cfg *config, device *hardware.Device) keylog.Config {
	key := device.VaultDocument().LogKey
	return keylog.Config{
		Dir: cfg.Log, StateDir: cfg.State, Origin: key.Name, PublicKey: key.PublicKey,
		Signer: device.LogSigner(), State: stateKeeper{device.StateKeeper()}, Reserve: cfg.Reserve,
		Cold: cfg.Cold, ColdAfter: cfg.ColdAfter, ColdBytes: cfg.ColdBytes, Everything: cfg.ColdVerify,
	}
}

func openVault(ctx context.Context, cfg *config, device *hardware.Device, journal *keylog.Log, log *slog.Logger) (*vault.Vault, error) {
	findings, err := json.Marshal(device.Findings())
	if err != nil {
		return nil, fmt.Errorf("noting the probe's findings: %w", err)
	}
	auditors, err := cfg.Audit.identities()
	if err != nil {
		return nil, err
	}
	operators, err := cfg.Freeze.identities()
	if err != nil {
		return nil, err
	}
	secrets := device.Secrets()
	return vault.Open(ctx, vault.Config{
		Envelope: device.Document(), Document: device.VaultDocument(),
		Token: token{device.Pool()}, Serial: device.Serial(), Grade: device.Grade(), Findings: string(findings),
		Log: journal, ImportKey: pre.NewBlobKey(secrets.ImportHPKESeed), SessionKey: pre.NewVaultKey(secrets.SessionKEMSeed),
		Dir: cfg.Database, Keys: cfg.Keys, SealingCheck: cfg.SealingCheck, Reserve: cfg.Reserve, DataKey: secrets.DataKey,
		KeepBodies: cfg.KeepBodies, Auditors: auditors, Operators: operators, Limits: vault.Limits(cfg.Limits), Logger: log,
	})
}

// reportCalls logs the counts of PKCS#11 calls at each SIGUSR1.
func reportCalls(device *hardware.Device, log *slog.Logger) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	go func() {
		for range signals {
			var counts []any
			for name, n := range device.Pool().Calls() {
				counts = append(counts, name, n)
			}
			log.Info("pkcs11 calls", counts...)
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
	}
}

// doors are the two listeners and their servers.
type doors []*door

type door struct {
	name     string
	listener net.Listener
	server   *server.Door
}

func openDoors(ctx context.Context, cfg *config, v server.Vault, log *slog.Logger) (ds doors, err error) {
	defer func() {
		if err != nil {
			ds.close()
		}
	}()
	ownersTLS, err := serverTLS(cfg.Owners.Certificate, cfg.Owners.Key, cfg.Owners.AllowClassical)
	if err != nil {
		return nil, err
	}
	owners, err := sockets.Listen(ctx, cfg.Owners.Listen, patience)
	if err != nil {
		return nil, fmt.Errorf("opening the owners' door: %w", err)
	}
	served := server.Owners(v, cfg.limits(), log)
	ds = append(ds, &door{"owners", tls.NewListener(served.Bound(owners), ownersTLS), served})

	served = server.Storefront(v, log)
	var storefront net.Listener
	if path, ok := strings.CutPrefix(cfg.Storefront.Listen, "unix:"); ok {
		storefront, err = listenSocket(path, served)
	} else {
		storefront, err = listenStorefront(ctx, &cfg.Storefront, served)
	}
	if err != nil {
		return ds, fmt.Errorf("opening the storefront's door: %w", err)
	}
	return append(ds, &door{"storefront", storefront, served}), nil
}

func listenStorefront(ctx context.Context, d *storefrontDoor, served *server.Door) (net.Listener, error) {
	t, err := serverTLS(d.Certificate, d.Key, d.AllowClassical)
	if err != nil {
		return nil, err
	}
	if err := clientAuthority(t, d.ClientCA); err != nil {
		return nil, err
	}
	l, err := sockets.Listen(ctx, d.Listen, patience)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(served.Bound(l), t), nil
}

// listenSocket opens a Unix socket for user and group. One that a killed vault left behind is replaced; the key-use log's lock has made
// sure by now that no other vault is running.
func listenSocket(path string, served *server.Door) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	old := syscall.Umask(0o117)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, err
	}
	return served.Bound(l), nil
}

func (ds doors) addresses() map[string]string {
	out := map[string]string{}
	for _, d := range ds {
		a := d.listener.Addr()
		out[d.name] = a.String()
		if a.Network() == "unix" {
			out[d.name] = "unix:" + a.String()
		}
	}
	return out
}

// announce says that the vault listens, and where.
func (ds doors) announce(readyFile string, log *slog.Logger) error {
	addresses := ds.addresses()
	if err := sockets.Announce(readyFile, addresses); err != nil {
		return err
	}
	log.Info("ready", "storefront", addresses["storefront"], "owners", addresses["owners"])
	return nil
}

// serve serves until ctx ends or a door fails, and lets requests under way finish.
func (ds doors) serve(ctx context.Context, log *slog.Logger) error {
	failed := make(chan error, len(ds))
	for _, d := range ds {
		go func() {
			if err := d.server.Serve(d.listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serving %s: %w", d.name, err)
			}
		}()
	}
	var err error
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case err = <-failed:
	}
	late, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	for _, d := range ds {
		if shutdownErr := d.server.Shutdown(late); shutdownErr != nil {
			err = errors.Join(err, fmt.Errorf("stopping %s: %w", d.name, shutdownErr))
		}
	}
	return err
}

func (ds doors) close() {
	for _, d := range ds {
		_ = d.server.Close()
		_ = d.listener.Close()
	}
}
