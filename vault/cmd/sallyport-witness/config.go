package main

import (
	"crypto/tls"
	_ "embed"
	"errors"
	"fmt"
	"os"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/vault/witness"
)

// documented is what `sallyport-witness config` prints: every member, what it does, and its default.
//
//go:embed config.toml
var documented string

// config is the whole configuration. Its members are documented in config.toml.
type config struct {
	Key            string      `koanf:"key"`
	State          string      `koanf:"state"`
	Seen           string      `koanf:"seen"`
	Listen         string      `koanf:"listen"`
	Certificate    string      `koanf:"certificate"`
	CertificateKey string      `koanf:"certificate_key"`
	AllowClassical bool        `koanf:"allow_classical"`
	ReadyFile      string      `koanf:"ready_file"`
	PerSecond      float64     `koanf:"per_second"`
	Burst          int         `koanf:"burst"`
	Connections    int         `koanf:"connections"`
	Each           int         `koanf:"connections_each"`
	Logs           []logConfig `koanf:"log"`
}

type logConfig struct {
	Vault string   `koanf:"vault"`
	Join  string   `koanf:"join"`
	Key   string   `koanf:"key"`
	Also  []string `koanf:"also"`
}

func defaults() config {
	return config{Listen: "127.0.0.1:8446", PerSecond: 5, Burst: 50, Connections: 128, Each: 16}
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
	switch {
	case c.Key == "" || c.State == "" || c.Seen == "" || c.Listen == "":
		return nil, errors.New("configuration: key, state, seen and listen are needed")
	case c.State == c.Seen:
		return nil, errors.New("configuration: state and seen are two folders, not in one backup")
	case (c.Certificate == "") != (c.CertificateKey == ""):
		return nil, errors.New("configuration: certificate and certificate_key go together")
	case !(c.PerSecond > 0 && c.PerSecond <= 1e9): // which NaN is not either
		return nil, errors.New("configuration: per_second is a number, more than 0 and at most 1000000000")
	case c.Burst < 1 || c.Connections < 1 || c.Each < 1:
		return nil, errors.New("configuration: burst, connections and connections_each are more than 0")
	}
	return &c, nil
}

// logs are the logs to witness.
func (c *config) logs() ([]witness.Log, error) {
	var out []witness.Log
	for _, l := range c.Logs {
		one, err := l.open()
		if err != nil {
			return nil, fmt.Errorf("%w: log: %w", errConfig, err)
		}
		out = append(out, one)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: configuration: no [[log]]", errConfig)
	}
	return out, nil
}

func (l *logConfig) open() (one witness.Log, err error) {
	switch {
	case (l.Vault == "") == (l.Key == ""):
		return one, errors.New("vault or key is needed, and not both")
	case l.Key == "" && (l.Join == "" || len(l.Also) > 0):
		return one, errors.New("with vault goes join, and not also")
	case l.Key != "" && l.Join != "":
		return one, errors.New("join goes with vault")
	}
	if l.Key != "" {
		if one.Key, err = evidence.ParseLogKey(l.Key); err != nil {
			return one, err
		}
		for _, text := range l.Also {
			also, err := evidence.ParseCosigner(text)
			if err != nil {
				return one, err
			}
			one.Also = append(one.Also, also)
		}
		return one, nil
	}
	raw, err := os.ReadFile(l.Vault)
	if err != nil {
		return one, err
	}
	link, err := links.ParseJoin(l.Join)
	if err != nil {
		return one, err
	}
	e, err := envelope.Parse(raw)
	if err != nil {
		return one, fmt.Errorf("%s: %w", l.Vault, err)
	}
	document, err := policies.OpenVault(e, link.Vault, link.Ceremony, 0)
	if err != nil {
		return one, fmt.Errorf("%s: %w", l.Vault, err)
	}
	return witness.VaultLog(document), nil
}

// conceal forbids core dumps of this process, and debuggers of the same user and their view of its memory (prctl(2), PR_SET_DUMPABLE).
func conceal() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// readKey reads the witness's key.
func (c *config) readKey() ([]*evidence.CosignerKey, error) {
	if err := conceal(); err != nil {
		return nil, fmt.Errorf("reading the witness's key: %w", err)
	}
	if err := private(c.Key); err != nil {
		return nil, fmt.Errorf("reading the witness's key: %w", err)
	}
	data, err := os.ReadFile(c.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the witness's key: %w", err)
	}
	defer clear(data)
	keys, err := witness.ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Key, err)
	}
	return keys, nil
}

func private(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("%s can be read by others: set its mode to 0600", path)
	}
	return err
}

// tls is nil without a certificate.
func (c *config) tls() (*tls.Config, error) {
	if c.Certificate == "" {
		return nil, nil
	}
	if err := private(c.CertificateKey); err != nil {
		return nil, fmt.Errorf("reading the TLS key: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(c.Certificate, c.CertificateKey)
	if err != nil {
		return nil, fmt.Errorf("reading the TLS certificate: %w", err)
	}
	t := &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}, Certificates: []tls.Certificate{pair}}
	if c.AllowClassical {
		t.CurvePreferences = append(t.CurvePreferences, tls.X25519, tls.CurveP256)
	}
	return t, nil
}
