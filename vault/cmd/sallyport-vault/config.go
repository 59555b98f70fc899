package main

import (
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/internal/server"
)

// documented is what `sallyport-vault config` prints: every member, what it does, and its default.
//
//go:embed config.toml
var documented string

// config is the whole configuration. Its members are documented in config.toml.
type config struct {
	Ceremony     string         `koanf:"ceremony"`
	Token        string         `koanf:"token"` // a PKCS#11 URI, see hardware.ChooseToken
	PIN          string         `koanf:"pin"`   // a source, see hardware.ReadPIN
	PINVault     pinVault       `koanf:"pin_vault"`
	Module       string         `koanf:"module"`
	Workers      int            `koanf:"workers"`
	Threads      int            `koanf:"threads"`
	LiveKeys     int            `koanf:"live_keys"`
	MinimumGrade string         `koanf:"minimum_grade"`
	DevMode      bool           `koanf:"dev_mode"`
	Log          string         `koanf:"log"`
	State        string         `koanf:"state"`
	Database     string         `koanf:"database"`
	Keys         string         `koanf:"keys"`
	SealingCheck time.Duration  `koanf:"sealing_check"`
	Reserve      int64          `koanf:"reserve"`
	Cold         string         `koanf:"cold"`
	ColdAfter    time.Duration  `koanf:"cold_after"`
	ColdBytes    int64          `koanf:"cold_bytes"`
	ColdVerify   bool           `koanf:"cold_verify"`
	KeepBodies   time.Duration  `koanf:"keep_bodies"`
	ReadyFile    string         `koanf:"ready_file"`
	Publish      publication    `koanf:"publish"`
	Audit        auditing       `koanf:"audit"`
	Freeze       freezing       `koanf:"freeze"`
	Limits       limits         `koanf:"limits"`
	Storefront   storefrontDoor `koanf:"storefront"`
	Owners       ownersDoor     `koanf:"owners"`
}

// auditing says who may have all entries of the log.
type auditing struct {
	Auditors []string `koanf:"auditors"`
}

// identities are the auditors' ids.
func (a auditing) identities() ([]policies.IdentityID, error) {
	return identities("audit.auditors", a.Auditors)
}

// freezing says who may stop all reading of a person, two of them together.
type freezing struct {
	Operators []string `koanf:"operators"`
}

// identities are the operators' ids.
func (f freezing) identities() ([]policies.IdentityID, error) {
	ids, err := identities("freeze.operators", f.Operators)
	if err != nil {
		return nil, err
	}
	for i, id := range ids {
		if slices.Contains(ids[:i], id) {
			return nil, fmt.Errorf("freeze.operators: %s is listed twice", id)
		}
	}
	if len(ids) == 1 {
		return nil, errors.New("freeze.operators: it takes two; list none or at least two")
	}
	return ids, nil
}

// identities reads the ids of a member.
func identities(member string, texts []string) ([]policies.IdentityID, error) {
	ids := make([]policies.IdentityID, len(texts))
	for i, text := range texts {
		if err := ids[i].UnmarshalText([]byte(text)); err != nil || ids[i].IsZero() {
			return nil, fmt.Errorf("%s: %q is not the id of an identity", member, text)
		}
	}
	return ids, nil
}

// limits are vault.Limits.
type limits struct {
	Refusals        float64 `koanf:"refusals"`
	RefusalBurst    int     `koanf:"refusal_burst"`
	RefusalsOverall float64 `koanf:"refusals_overall"`
	Sessions        int     `koanf:"sessions"`
	SessionRate     float64 `koanf:"session_rate"`
	SessionRequests int     `koanf:"session_requests"`
	Queries         float64 `koanf:"queries"`
	QueryBurst      int     `koanf:"query_burst"`
	Evidence        float64 `koanf:"evidence"`
	EvidenceBurst   int     `koanf:"evidence_burst"`
}

type storefrontDoor struct {
	Listen         string `koanf:"listen"`
	Certificate    string `koanf:"certificate"`
	Key            string `koanf:"key"`
	ClientCA       string `koanf:"client_ca"`
	AllowClassical bool   `koanf:"allow_classical"`
}

type ownersDoor struct {
	Listen         string  `koanf:"listen"`
	Certificate    string  `koanf:"certificate"`
	Key            string  `koanf:"key"`
	AllowClassical bool    `koanf:"allow_classical"`
	PerSecond      float64 `koanf:"per_second"`
	Burst          int     `koanf:"burst"`
	Connections    int     `koanf:"connections"`
	Each           int     `koanf:"connections_each"`
}

func defaults() config {
	return config{
		PINVault: pinVaultDefaults(), Workers: 2, Threads: 1, LiveKeys: 4096, MinimumGrade: "unproven", Reserve: 256 << 20, SealingCheck: time.Minute,
		Publish:    publication{Interval: time.Second, Witnesses: []witnessConfig{}},
		Limits:     limits{Refusals: 1, RefusalBurst: 500, RefusalsOverall: 20, Sessions: 1024, SessionRate: 1, SessionRequests: 100_000, Queries: 2, QueryBurst: 100, Evidence: 2000, EvidenceBurst: 10_000},
		Storefront: storefrontDoor{Listen: "127.0.0.1:8444"},
		Owners:     ownersDoor{Listen: "127.0.0.1:8445", PerSecond: 5, Burst: 50, Connections: 256, Each: 64},
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
	return &c, c.validate()
}

func (c *config) validate() error {
	var missing []string
	for _, m := range []struct{ name, value string }{
		{"ceremony", c.Ceremony}, {"log", c.Log}, {"state", c.State}, {"database", c.Database},
		{"storefront.listen", c.Storefront.Listen}, {"owners.listen", c.Owners.Listen},
		{"owners.certificate", c.Owners.Certificate}, {"owners.key", c.Owners.Key},
	} {
		if m.value == "" {
			missing = append(missing, m.name)
		}
	}
	_, choice := c.choice()
	_, auditors := c.Audit.identities()
	_, operators := c.Freeze.identities()
	_, witnesses := c.Publish.witnesses()
	limits := c.bounded()
	d := &c.Storefront
	files := []string{d.Certificate, d.Key, d.ClientCA}
	_, socket := strings.CutPrefix(d.Listen, "unix:")
	switch {
	case len(missing) > 0:
		return fmt.Errorf("configuration: not set: %s", strings.Join(missing, ", "))
	case choice != nil:
		return fmt.Errorf("configuration: %w", choice)
	case auditors != nil:
		return fmt.Errorf("configuration: %w", auditors)
	case operators != nil:
		return fmt.Errorf("configuration: %w", operators)
	case socket && !slices.Equal(files, []string{"", "", ""}):
		return errors.New("configuration: a socket has no certificates; unset storefront.certificate, key and client_ca")
	case !socket && slices.Contains(files, ""):
		return errors.New("configuration: storefront.certificate, storefront.key and storefront.client_ca are needed, or a unix: socket")
	case !pkcs11.Grade(c.MinimumGrade).Known():
		return errors.New("configuration: minimum_grade is one of A, B, unproven, C, U")
	case c.Workers < 1 || c.Workers > 64 || c.Threads < 1 || c.Threads > 64:
		return errors.New("configuration: workers and threads are from 1 to 64")
	case c.LiveKeys < 1 || c.LiveKeys > 10_000_000:
		return errors.New("configuration: live_keys is from 1 to 10000000")
	case c.SealingCheck < time.Second:
		return errors.New("configuration: sealing_check is at least a second, such as \"1m\"")
	case limits != nil:
		return fmt.Errorf("configuration: %w", limits)
	case c.Publish.Interval < 100*time.Millisecond:
		return errors.New("configuration: publish.interval is at least \"100ms\"")
	case c.Publish.Dir != "" && (inside(c.Publish.Dir, c.Log) || inside(c.Publish.Dir, c.State)):
		return errors.New("configuration: publish.dir is not inside log or state, which are not for others")
	case witnesses != nil:
		return fmt.Errorf("configuration: %w", witnesses)
	case c.Publish.Need < 0 || c.Publish.Need > len(c.Publish.Witnesses):
		return fmt.Errorf("configuration: publish.need is %d, and there are %d publish.witnesses", c.Publish.Need, len(c.Publish.Witnesses))
	case c.Publish.Dir == "" && len(c.Publish.Witnesses) > 0:
		return errors.New("configuration: publish.witnesses cosign what is published: set publish.dir")
	case c.KeepBodies < 0 || c.KeepBodies > 0 && c.KeepBodies < 48*time.Hour:
		return errors.New("configuration: keep_bodies is \"0s\", for ever, or at least \"48h\"")
	case c.Reserve < 0:
		return errors.New("configuration: reserve is not negative")
	case c.ColdAfter < 0 || c.ColdBytes < 0 || c.Cold == "" && (c.ColdAfter != 0 || c.ColdBytes != 0):
		return errors.New("configuration: cold_after and cold_bytes are not negative, and need the folder cold")
	case c.Cold != "" && c.ColdAfter == 0 && c.ColdBytes == 0:
		return errors.New("configuration: cold needs cold_after or cold_bytes: when to move")
	}
	return nil
}

// bounded refuses a limit that is none, and names it.
func (c *config) bounded() error {
	l := &c.Limits
	for name, rate := range map[string]float64{
		"owners.per_second": c.Owners.PerSecond, "limits.refusals": l.Refusals, "limits.refusals_overall": l.RefusalsOverall, "limits.session_rate": l.SessionRate,
		"limits.queries": l.Queries, "limits.evidence": l.Evidence,
	} {
		if !(rate > 0 && rate <= 1e9) { // which NaN is not either
			return fmt.Errorf("%s is %v: it is a number a second, more than 0 and at most 1000000000", name, rate)
		}
	}
	for name, bound := range map[string][2]int{
		"owners.burst": {c.Owners.Burst, 1}, "owners.connections": {c.Owners.Connections, 1}, "owners.connections_each": {c.Owners.Each, 1},
		"limits.refusal_burst": {l.RefusalBurst, 2}, "limits.sessions": {l.Sessions, 1}, "limits.session_requests": {l.SessionRequests, 1},
		"limits.query_burst": {l.QueryBurst, 1}, "limits.evidence_burst": {l.EvidenceBurst, 1},
	} {
		if bound[0] < bound[1] {
			return fmt.Errorf("%s is %d: it is at least %d", name, bound[0], bound[1])
		}
	}
	return nil
}

// inside tells whether a path is a folder or lies in it, by their names alone.
func inside(path, folder string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// graded refuses a token below the minimum grade. A grade that this version does not know is below all.
func (c *config) graded(grade string) error {
	if pkcs11.Grade(grade).Below(pkcs11.Grade(c.MinimumGrade)) {
		return fmt.Errorf("the token's grade is %q, and minimum_grade of the configuration is %q: sallyport-hsm probe --full says what keeps it from a better one, and sallyport-hsm reissue --probe, with the security officer's PIN, grades it anew",
			grade, c.MinimumGrade)
	}
	return nil
}

func (c *config) limits() server.Limits {
	return server.Limits{PerSecond: c.Owners.PerSecond, Burst: c.Owners.Burst, Connections: c.Owners.Connections, Each: c.Owners.Each}
}

// serverTLS is TLS 1.3 with a hybrid key exchange and no other, unless the door says so.
func serverTLS(certificate, key string, classical bool) (*tls.Config, error) {
	info, err := os.Stat(key)
	if err != nil {
		return nil, fmt.Errorf("reading a TLS key: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("reading a TLS key: %s can be read by everybody: set its mode to 0600", key)
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("reading a TLS certificate: %w", err)
	}
	t := &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}, Certificates: []tls.Certificate{pair}}
	if classical {
		t.CurvePreferences = append(t.CurvePreferences, tls.X25519, tls.CurveP256)
	}
	return t, nil
}

// clientAuthority makes a door demand a certificate of this authority.
func clientAuthority(t *tls.Config, path string) error {
	pem, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the storefront's authority: %w", err)
	}
	t.ClientCAs, t.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !t.ClientCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("reading the storefront's authority: no certificate in %s", path)
	}
	return nil
}
