package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"github.com/sallyport/sallyport/storefront"
	"github.com/sallyport/sallyport/vault/client"
	"github.com/sallyport/sallyport/vault/gate"
)

// documented is the configuration that `sallyport-storefront config` prints: every member with what it does, set to
// its default. It is also what a configuration file is laid over.
//
//go:embed config.toml
var documented string

// config is the whole configuration. Its members are documented in config.toml.
type config struct {
	Listen         string            `koanf:"listen"`
	Certificate    string            `koanf:"certificate"`
	Key            string            `koanf:"key"`
	Names          []string          `koanf:"names"`
	AllowClassical bool              `koanf:"allow_classical"`
	Data           string            `koanf:"data"`
	Reserve        uint64            `koanf:"reserve"`
	Connections    int               `koanf:"connections"`
	Each           int               `koanf:"connections_each"`
	HeaderTimeout  time.Duration     `koanf:"header_timeout"`
	RequestTimeout time.Duration     `koanf:"request_timeout"`
	AnswerTimeout  time.Duration     `koanf:"answer_timeout"`
	IdleTimeout    time.Duration     `koanf:"idle_timeout"`
	ReadyFile      string            `koanf:"ready_file"`
	Vault          vaultConfig       `koanf:"vault"`
	Introspection  introspection     `koanf:"introspection"`
	Limits         storefront.Limits `koanf:"limits"`
}

type vaultConfig struct {
	Address        string `koanf:"address"`
	CA             string `koanf:"ca"`
	Certificate    string `koanf:"certificate"`
	Key            string `koanf:"key"`
	AllowClassical bool   `koanf:"allow_classical"`
	InFlight       int    `koanf:"in_flight"`
}

// introspection is the door for a key server.
type introspection struct {
	Listen      string `koanf:"listen"`
	Certificate string `koanf:"certificate"`
	Key         string `koanf:"key"`
	Client      string `koanf:"client"`
}

// defaults are in the documented configuration; what a file must say itself is left empty.
func defaults() config {
	return config{
		Listen: "127.0.0.1:8443", Reserve: 512 << 20, Connections: 4096, Each: 512,
		HeaderTimeout: 10 * time.Second, RequestTimeout: time.Minute, AnswerTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute,
		Vault: vaultConfig{InFlight: 4},
	}
}

// bounds are those of the public listener's connections.
func (c *config) bounds() gate.Limits {
	return gate.Limits{
		Connections: c.Connections, Each: c.Each,
		Header: c.HeaderTimeout, Request: c.RequestTimeout, Answer: c.AnswerTimeout, Idle: c.IdleTimeout,
	}
}

// loadConfig reads a file strictly and checks it.
func loadConfig(path string) (*config, error) {
	k := koanf.New(".")
	if err := k.Load(file.Provider(path), toml.Parser()); err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	c := defaults()
	err := k.UnmarshalWithConf("", &c, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		TagName: "koanf", ErrorUnused: true, DecodeHook: mapstructure.StringToTimeDurationHookFunc(),
		MatchName: func(key, name string) bool { return key == name },
	}})
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if c.Limits, err = c.Limits.WithDefaults(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return &c, c.validate()
}

func (c *config) validate() error {
	var missing []string
	for name, value := range map[string]string{
		"listen": c.Listen, "certificate": c.Certificate, "key": c.Key, "data": c.Data, "vault.address": c.Vault.Address,
	} {
		if value == "" {
			missing = append(missing, name)
		}
	}
	switch {
	case len(missing) > 0:
		return fmt.Errorf("configuration: not set: %s", strings.Join(missing, ", "))
	case c.Connections < 1 || c.Each < 1 || c.Vault.InFlight < 1:
		return errors.New("configuration: connections, connections_each and vault.in_flight are at least 1")
	case c.Reserve < 8<<20:
		return errors.New("configuration: reserve is at least 8388608 (8 MiB)")
	case min(c.HeaderTimeout, c.RequestTimeout, c.AnswerTimeout, c.IdleTimeout) < time.Second:
		return errors.New("configuration: header_timeout, request_timeout, answer_timeout and idle_timeout are durations such as \"10s\", at least a second")
	}
	if i := &c.Introspection; i.Listen != "" && (i.Certificate == "" || i.Key == "" || i.Client == "") {
		return errors.New("configuration: introspection.listen needs introspection.certificate, introspection.key and introspection.client")
	}
	if _, socket := strings.CutPrefix(c.Vault.Address, "unix:"); socket {
		if c.Vault.CA != "" || c.Vault.Certificate != "" || c.Vault.Key != "" {
			return errors.New("configuration: a vault on a Unix socket has no certificates")
		}
		return nil
	}
	if !strings.HasPrefix(c.Vault.Address, "https://") {
		return errors.New("configuration: vault.address must be an https URL, or unix: and a path")
	}
	if c.Vault.CA == "" || c.Vault.Certificate == "" || c.Vault.Key == "" {
		return errors.New("configuration: a vault at an https address needs vault.ca, vault.certificate and vault.key")
	}
	return nil
}

// loadKeyPair reads a certificate and its key, and refuses a key that others can read.
func loadKeyPair(certificate, key string) (tls.Certificate, error) {
	info, err := os.Stat(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return tls.Certificate{}, fmt.Errorf("%s can be read by everybody: set its mode to 0600", key)
	}
	return tls.LoadX509KeyPair(certificate, key)
}

// tlsConfig is the public listener's: TLS 1.3 with post-quantum key agreement, unless the configuration permits another.
func (c *config) tlsConfig() (*tls.Config, error) {
	pair, err := loadKeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the server's certificate: %w", err)
	}
	t := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair},
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768},
	}
	if c.AllowClassical {
		t.CurvePreferences = append(t.CurvePreferences, tls.X25519, tls.CurveP256)
	}
	return t, nil
}

// tlsConfig demands one certificate of the caller, byte for byte, whoever signed it: the key server's.
func (i *introspection) tlsConfig() (*tls.Config, error) {
	pair, err := loadKeyPair(i.Certificate, i.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate of the introspection listener: %w", err)
	}
	text, err := os.ReadFile(i.Client)
	if err != nil {
		return nil, fmt.Errorf("reading the key server's certificate: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("reading the key server's certificate: no certificate in %s", i.Client)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}, Certificates: []tls.Certificate{pair},
		ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || !bytes.Equal(s.PeerCertificates[0].Raw, block.Bytes) {
				return errors.New("not the key server's certificate")
			}
			if now := time.Now(); now.Before(s.PeerCertificates[0].NotBefore) || now.After(s.PeerCertificates[0].NotAfter) {
				return errors.New("the key server's certificate is not in its time")
			}
			return nil
		},
	}, nil
}

// clientConfig says how to reach the vault.
func (c *config) clientConfig() (client.Config, error) {
	out := client.Config{Address: c.Vault.Address, AllowClassical: c.Vault.AllowClassical, InFlight: c.Vault.InFlight}
	if strings.HasPrefix(c.Vault.Address, "unix:") {
		return out, nil
	}
	authority, err := os.ReadFile(c.Vault.CA)
	if err != nil {
		return out, fmt.Errorf("reading the vault's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return out, fmt.Errorf("reading the vault's authority: no certificate in %s", c.Vault.CA)
	}
	pair, err := loadKeyPair(c.Vault.Certificate, c.Vault.Key)
	if err != nil {
		return out, fmt.Errorf("reading the client certificate: %w", err)
	}
	out.TLS = &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}
	return out, nil
}
