package main

import (
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

// documented is what `sallyport-keyserver config` prints: every member, what it does, and its default.
//
//go:embed config.toml
var documented string

// config is the whole configuration. Its members are documented in config.toml.
type config struct {
	Ceremony       string           `koanf:"ceremony"`
	Vault          string           `koanf:"vault"`
	PIN            string           `koanf:"pin"` // a source, see hardware.ReadPIN
	Token          string           `koanf:"token"`
	Module         string           `koanf:"module"`
	Workers        int              `koanf:"workers"`
	Threads        int              `koanf:"threads"`
	DevMode        bool             `koanf:"dev_mode"`
	Log            string           `koanf:"log"`
	State          string           `koanf:"state"`
	Reserve        int64            `koanf:"reserve"`
	Listen         string           `koanf:"listen"`
	Certificate    string           `koanf:"certificate"`
	Key            string           `koanf:"key"`
	AllowClassical bool             `koanf:"allow_classical"`
	ReadyFile      string           `koanf:"ready_file"`
	PerSecond      float64          `koanf:"per_second"`
	Burst          int              `koanf:"burst"`
	Connections    int              `koanf:"connections"`
	Each           int              `koanf:"connections_each"`
	Tries          float64          `koanf:"tries"`
	Storefront     storefrontConfig `koanf:"storefront"`
}

type storefrontConfig struct {
	Introspection string `koanf:"introspection"`
	CA            string `koanf:"ca"`
	Certificate   string `koanf:"certificate"`
	Key           string `koanf:"key"`
}

func defaults() config {
	return config{Workers: 2, Threads: 1, Reserve: 256 << 20, Listen: "127.0.0.1:8447", PerSecond: 5, Burst: 50, Connections: 256, Each: 32, Tries: 20}
}

// loadConfig reads a file strictly and checks it.
func loadConfig(path string) (*config, error) {
	k := koanf.New(".")
	if err := k.Load(file.Provider(path), toml.Parser()); err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	c := defaults()
	err := k.UnmarshalWithConf("", &c, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		TagName: "koanf", ErrorUnused: true, MatchName: func(key, name string) bool { return key == name },
	}})
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return &c, c.validate()
}

func (c *config) validate() error {
	var missing []string
	for _, m := range []struct{ name, value string }{
		{"ceremony", c.Ceremony}, {"vault", c.Vault}, {"log", c.Log}, {"state", c.State}, {"listen", c.Listen}, {"certificate", c.Certificate}, {"key", c.Key},
		{"storefront.introspection", c.Storefront.Introspection}, {"storefront.ca", c.Storefront.CA}, {"storefront.certificate", c.Storefront.Certificate},
		{"storefront.key", c.Storefront.Key},
	} {
		if m.value == "" {
			missing = append(missing, m.name)
		}
	}
	_, choice := c.choice()
	u, err := url.Parse(c.Storefront.Introspection)
	switch {
	case len(missing) > 0:
		return fmt.Errorf("configuration: not set: %s", strings.Join(missing, ", "))
	case choice != nil:
		return fmt.Errorf("configuration: %w", choice)
	case err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil:
		return errors.New("configuration: storefront.introspection is an https URL")
	case c.Workers < 1 || c.Workers > 64 || c.Threads < 1 || c.Threads > 64:
		return errors.New("configuration: workers and threads are from 1 to 64")
	case c.Reserve < 0:
		return errors.New("configuration: reserve is not negative")
	case !(c.PerSecond > 0 && c.PerSecond <= 1e9 && c.Tries > 0 && c.Tries <= 1e9): // which NaN is not either
		return errors.New("configuration: per_second and tries are numbers, more than 0 and at most 1000000000")
	case c.Burst < 1 || c.Connections < 1 || c.Each < 1:
		return errors.New("configuration: burst, connections and connections_each are more than 0")
	}
	return nil
}

// vault reads the document of the vault whose log says which keys of an identity are in force. The file is the operator's word for which vault that is; the
// signature says that it is whole.
func (c *config) vault() (*policies.VaultDocument, error) {
	d, err := readVault(c.Vault)
	if err == nil && d.DevMode && !c.DevMode {
		err = errors.New("it is for development, and dev_mode is not set")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the vault's document %s: %w", errConfig, c.Vault, err)
	}
	return d, nil
}

func readVault(path string) (*policies.VaultDocument, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	e, err := envelope.Parse(raw)
	if err != nil {
		return nil, err
	}
	claim, err := policies.Decode[policies.VaultDocument](e)
	if err != nil {
		return nil, err
	}
	return policies.OpenVault(e, claim.Vault, policies.HashKey(claim.CeremonyKey), 0)
}

// choice is what the configuration says of token, library and PIN, put together.
func (c *config) choice() (hardware.TokenChoice, error) {
	choice, err := hardware.ChooseToken(c.Token, c.Module, c.PIN)
	if err == nil && choice.PIN == "" {
		err = errors.New("not set: pin (or pin-source in token)")
	}
	return choice, err
}

// pair reads a certificate and its key, and refuses a key that others can read.
func pair(certificate, key string) (tls.Certificate, error) {
	info, err := os.Stat(key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading a TLS key: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return tls.Certificate{}, fmt.Errorf("reading a TLS key: %s can be read by everybody: set its mode to 0600", key)
	}
	p, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading a TLS certificate: %w", err)
	}
	return p, nil
}

// devices is TLS 1.3 with a hybrid key exchange and no other, unless the configuration says so.
func (c *config) devices() (*tls.Config, error) {
	p, err := pair(c.Certificate, c.Key)
	if err != nil {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}, Certificates: []tls.Certificate{p}}
	if c.AllowClassical {
		t.CurvePreferences = append(t.CurvePreferences, tls.X25519, tls.CurveP256)
	}
	return t, nil
}

// toStorefront is how the storefront is asked: its certificate is verified, and ours shown.
func (c *config) toStorefront() (*tls.Config, error) {
	p, err := pair(c.Storefront.Certificate, c.Storefront.Key)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(c.Storefront.CA)
	if err != nil {
		return nil, fmt.Errorf("reading the storefront's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading the storefront's authority: no certificate in %s", c.Storefront.CA)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}, RootCAs: roots, Certificates: []tls.Certificate{p}}, nil
}
