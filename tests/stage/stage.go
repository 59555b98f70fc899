package stage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"filippo.io/nistec"
)

// Options say what to set up.
type Options struct {
	Dir string // made if needed; must be empty
	Bin Binaries

	// VaultConfig and StorefrontConfig are TOML that is appended to the configuration files, tables included.
	VaultConfig, StorefrontConfig string
	// Top-level members of either configuration, before its tables.
	VaultMembers, StorefrontMembers string
	// Module is the PKCS#11 library that the vault loads, instead of SoftHSM itself: pkcs11-spy, say. Env is its environment.
	Module string
	Env    []string
	// Socket connects storefront and vault by a Unix socket instead of mutual TLS.
	Socket bool
	// VaultAt is what the storefront is told the vault's address is, for a proxy in between. Empty: the vault.
	VaultAt string
	// StorefrontAt and OwnersAt are what clients are told. Empty: the real ones.
	StorefrontAt, OwnersAt string
	// VaultHost and StorefrontHost put the daemons elsewhere than on loopback.
	VaultHost, StorefrontHost Host
	// Reuse takes the token and the ceremony of an earlier stage that is closed, if the addresses in it fit. Nil: a new one.
	Reuse *Reuse
	// Say hears of each step. Nil: nobody.
	Say func(string)
}

// plain reports whether the ceremony, and the certificates, are those of any stage.
func (o *Options) plain() bool {
	return o.StorefrontAt == "" && o.OwnersAt == "" && o.StorefrontHost.Listen == "" && o.VaultHost.Listen == "" && o.VaultHost.Owners == ""
}

// Host is where a daemon runs and listens. The zero value is loopback and a free port.
type Host struct {
	Enter  []string // command and arguments before the daemon's own, which become the daemon's process: nsenter, say
	Listen string   // host:port of the vault's door for the storefront, or of the storefront
	Owners string   // host:port of the vault's door for owners
}

// Stage is a running Sallyport.
type Stage struct {
	Vault, Storefront *Daemon

	dir                                  string
	bin                                  Binaries
	join                                 string
	storefront, vaultDoor, ownersAddress string
	env                                  []string
	reuse                                *Reuse
	begun                                *begun
}

// ModuleRoot is the folder of go.mod, found from the working folder upwards.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod here or above: run this inside the project")
		}
		dir = parent
	}
}

// Open builds a stage in a folder and starts it. On an error everything that was started is stopped.
func Open(ctx context.Context, o Options) (s *Stage, err error) {
	say := func(text string) {
		if o.Say != nil {
			o.Say(text)
		}
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	s = &Stage{dir: o.Dir, bin: o.Bin}
	defer func() {
		if err != nil {
			s.Close()
			s = nil
		}
	}()
	if err := s.begin(ctx, o, say); err != nil {
		return s, err
	}
	s.env = append([]string{"SOFTHSM2_CONF=" + s.SoftHSMConf()}, o.Env...)
	link, err := os.ReadFile(s.path("ceremony", "join.txt"))
	if err != nil {
		return s, err
	}
	s.join = strings.TrimSpace(string(link))
	if err := s.configure(o); err != nil {
		return s, err
	}
	say("creating the vault")
	if r, err := run(ctx, s.env, "", s.bin.Vault, "init", "--config", s.Vault.config); err != nil || r.Code != 0 {
		return s, fmt.Errorf("creating the vault: %w\n%s", err, r.Stderr)
	}
	say("starting the vault")
	if err := s.Vault.Start(ctx); err != nil {
		return s, err
	}
	say("starting the storefront")
	if err := s.Storefront.Start(ctx); err != nil {
		return s, err
	}
	return s, nil
}

// begin fills the folder with a token, a ceremony and certificates, and sets the addresses that these name.
func (s *Stage) begin(ctx context.Context, o Options, say func(string)) error {
	there, err := os.ReadDir(s.dir) // disks of the caller's: what lies on them is to be written there, and durable, as a ceremony does it
	if err != nil {
		return err
	}
	reuse := o.Reuse != nil && o.plain() && len(there) == 0
	if reuse {
		if b := o.Reuse.take(o.Bin.HSM); b != nil {
			s.reuse, s.begun = o.Reuse, b
			s.storefront, s.vaultDoor, s.ownersAddress = b.ports[0], b.ports[1], b.ports[2]
			return b.put(s.dir)
		}
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	certificates := []string{"dev-tls", s.path("tls")}
	for i, address := range []string{o.StorefrontHost.Listen, o.VaultHost.Listen, o.VaultHost.Owners} {
		if address == "" {
			continue
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return err
		}
		ports[i], certificates = address, append(certificates, "--host", host)
	}
	s.storefront, s.vaultDoor, s.ownersAddress = ports[0], ports[1], ports[2]
	say("making a throwaway token")
	if _, err := s.hsm(ctx, "dev-token", s.path("token")); err != nil {
		return err
	}
	s.env = append([]string{"SOFTHSM2_CONF=" + s.SoftHSMConf()}, o.Env...)
	say("holding the ceremony")
	storefrontURL, ownersURL := or(o.StorefrontAt, "https://"+s.storefront), or(o.OwnersAt, "https://"+s.ownersAddress)
	if _, err := s.hsm(ctx, "init", "--dev", "--yes", "--dir", s.Ceremony(), "--storefront", storefrontURL, "--owners", ownersURL); err != nil {
		return err
	}
	if _, err := s.hsm(ctx, certificates...); err != nil {
		return err
	}
	if !reuse {
		return nil
	}
	s.reuse = o.Reuse
	s.begun, err = s.remember()
	return err
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// configure writes both configurations.
func (s *Stage) configure(o Options) error {
	for _, dir := range []string{"vault", "storefront"} {
		if err := os.MkdirAll(s.path(dir), 0o700); err != nil {
			return err
		}
	}
	daemon := func(name, binary string, at Host) *Daemon {
		return &Daemon{
			Name: name, Log: s.path(name + ".log"), command: append(slices.Clone(at.Enter), binary), config: s.path(name, name+".toml"),
			ready: s.path(name, "ready.json"), env: s.env,
		}
	}
	s.Vault, s.Storefront = daemon("vault", s.bin.Vault, o.VaultHost), daemon("storefront", s.bin.Storefront, o.StorefrontHost)

	door := fmt.Sprintf("listen = %q\ncertificate = %q\nkey = %q\nclient_ca = %q\n", s.vaultDoor, s.path("tls", "vault.pem"), s.path("tls", "vault-key.pem"), s.CA())
	hop := fmt.Sprintf("address = %q\nca = %q\ncertificate = %q\nkey = %q\n", or(o.VaultAt, "https://"+s.vaultDoor), s.CA(), s.path("tls", "storefront-client.pem"), s.path("tls", "storefront-client-key.pem"))
	if o.Socket {
		socket := "unix:" + s.path("vault", "door.sock")
		door, hop = fmt.Sprintf("listen = %q\n", socket), fmt.Sprintf("address = %q\n", socket)
	}
	vault := fmt.Sprintf(`ceremony = %q
pin = %q
module = %q
dev_mode = true
log = %q
state = %q
database = %q
keys = %q
ready_file = %q
%s
[storefront]
%s
[owners]
listen = %q
certificate = %q
key = %q
%s`, s.Ceremony(), "file:"+s.PINFile(), o.Module, s.path("vault", "log"), s.path("vault", "state"), s.path("vault", "database"), s.path("vault", "keys"), s.Vault.ready, o.VaultMembers,
		door, s.ownersAddress, s.path("tls", "vault.pem"), s.path("tls", "vault-key.pem"), o.VaultConfig)
	storefront := fmt.Sprintf(`listen = %q
certificate = %q
key = %q
data = %q
ready_file = %q
%s
[vault]
%s%s`, s.storefront, s.path("tls", "storefront.pem"), s.path("tls", "storefront-key.pem"), s.path("storefront", "data"), s.Storefront.ready, o.StorefrontMembers, hop, o.StorefrontConfig)
	if err := os.WriteFile(s.Vault.config, []byte(vault), 0o600); err != nil {
		return err
	}
	return os.WriteFile(s.Storefront.config, []byte(storefront), 0o600)
}

// Ports are taken from below those that the kernel gives to connections (from 32768 on), else a daemon that is started again may find its own taken.
const (
	firstPort = 20_000
	lastPort  = 32_000
)

// claims are names in the kernel (abstract Unix sockets), one for each port of a stage of this process. They end with it, so that stages of several
// processes never choose the same port, also while nobody listens there.
var (
	claiming sync.Mutex
	claims   []net.Listener
)

// freePorts finds loopback addresses that are free, and claims them. A process that knows nothing of claims may take one before it is used; then the
// start fails and says so.
func freePorts(n int) ([]string, error) {
	c, err := loopback()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	claiming.Lock()
	defer claiming.Unlock()
	var out []string
	for range 1000 {
		if len(out) == n {
			return out, nil
		}
		port := firstPort + rand.IntN(lastPort-firstPort)
		claim, err := net.Listen("unix", fmt.Sprintf("@sallyport-stage-%d", port))
		if err != nil {
			continue
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", address)
		if err != nil {
			claim.Close()
			continue
		}
		l.Close()
		claims, out = append(claims, claim), append(out, address)
	}
	return nil, fmt.Errorf("no free port from %d to %d on 127.0.0.1", firstPort, lastPort)
}

// loopback connects to a listener of its own: in a network namespace where the interface is down one can listen all the same.
func loopback() (net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("the loopback interface does not work (`ip link set lo up` as root starts it): %w", err)
	}
	return c, nil
}

func (s *Stage) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// Dir is the stage's folder.
func (s *Stage) Dir() string { return s.dir }

// Bin are the commands in use.
func (s *Stage) Bin() Binaries { return s.bin }

// Join is the join link that the ceremony printed.
func (s *Stage) Join() string { return s.join }

// CA is the PEM file of the authority that TLS clients must trust.
func (s *Stage) CA() string { return s.path("tls", "ca.pem") }

// ClientCertificate is the storefront's certificate and key toward the vault: whoever has them is a storefront.
func (s *Stage) ClientCertificate() (certificate, key string) {
	return s.path("tls", "storefront-client.pem"), s.path("tls", "storefront-client-key.pem")
}

// StorefrontURL, VaultURL and OwnersURL are where the three listeners are.
func (s *Stage) StorefrontURL() string { return "https://" + s.storefront }

// VaultURL is the vault's door for the storefront.
func (s *Stage) VaultURL() string { return "https://" + s.vaultDoor }

// OwnersURL is the vault's door for owners.
func (s *Stage) OwnersURL() string { return "https://" + s.ownersAddress }

// Ceremony is the ceremony's folder.
func (s *Stage) Ceremony() string { return s.path("ceremony") }

// PINFile holds the token user's PIN: a development ceremony writes it beside its folder.
func (s *Stage) PINFile() string { return s.path("user.pin") }

// SoftHSMConf is the configuration that leads SoftHSM to the stage's token, and TokenFolder the folder of the token's objects.
func (s *Stage) SoftHSMConf() string { return s.path("token", "softhsm2.conf") }

// TokenFolder is where SoftHSM keeps the token's objects.
func (s *Stage) TokenFolder() string { return s.path("token", "tokens") }

// StorefrontData and VaultData are the folders of databases, log and signer state.
func (s *Stage) StorefrontData() string { return s.path("storefront", "data") }

// VaultData holds the vault's log, signer state and database.
func (s *Stage) VaultData() string { return s.path("vault") }

// VaultLog is the folder of the key-use log.
func (s *Stage) VaultLog() string { return s.path("vault", "log") }

// Generator is the base point of P-256, uncompressed: a point for whoever needs one.
func (s *Stage) Generator() (p [65]byte) {
	copy(p[:], nistec.NewP256Point().SetGenerator().Bytes())
	return p
}

// hsm runs sallyport-hsm and expects it to succeed.
func (s *Stage) hsm(ctx context.Context, args ...string) (Result, error) {
	r, err := run(ctx, s.env, "", s.bin.HSM, args...)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("sallyport-hsm %s: exit code %d\n%s", args[0], r.Code, r.Stderr)
	}
	return r, err
}

// Sallyport runs the sallyport command with a profile that opens with a key file. The profile's folder is under the stage's folder by
// the profile's name; init makes it.
func (s *Stage) Sallyport(ctx context.Context, profile string, args ...string) (Result, error) {
	return s.SallyportInput(ctx, "", profile, args...)
}

// SallyportInput is Sallyport with standard input.
func (s *Stage) SallyportInput(ctx context.Context, stdin, profile string, args ...string) (Result, error) {
	folder := s.path("profiles", profile)
	if err := os.MkdirAll(s.path("profiles"), 0o700); err != nil {
		return Result{}, err
	}
	global := []string{"--profile", folder, "--key-file", folder + ".key"}
	if len(args) > 1 && args[1] == "init" {
		global = append(global, "--ca", s.CA())
		args = append(args, "--join", s.join)
	}
	return run(ctx, nil, stdin, s.bin.Sallyport, append(global, args...)...)
}

// Close stops both daemons. The folder stays.
func (s *Stage) Close() error {
	var errs []error
	for _, d := range []*Daemon{s.Storefront, s.Vault} {
		if d != nil {
			errs = append(errs, d.Stop())
		}
	}
	err := errors.Join(errs...)
	if err == nil && s.begun != nil {
		s.reuse.give(s.begun)
		s.begun = nil
	}
	return err
}
