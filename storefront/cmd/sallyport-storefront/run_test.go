package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"github.com/sallyport/sallyport/storefront"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDocumentedConfigurationIsTheDefault(t *testing.T) {
	got, err := loadConfig(write(t, documented))
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	if got.Listen != want.Listen || got.Reserve != want.Reserve || got.bounds() != want.bounds() || got.Vault.InFlight != want.Vault.InFlight {
		t.Errorf("the documented configuration is not the default: %+v", got)
	}
	filled, err := storefront.Limits{}.WithDefaults()
	if err != nil || got.Limits != filled {
		t.Errorf("documented limits %+v, defaults %+v, %v", got.Limits, filled, err)
	}
	// Every member is documented.
	k := koanf.New(".")
	if err := k.Load(file.Provider(write(t, documented)), toml.Parser()); err != nil {
		t.Fatal(err)
	}
	var check func(prefix string, typ reflect.Type)
	check = func(prefix string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			name := prefix + f.Tag.Get("koanf")
			if f.Type.Kind() == reflect.Struct {
				check(name+".", f.Type)
			} else if !k.Exists(name) {
				t.Errorf("%s is not documented", name)
			}
		}
	}
	check("", reflect.TypeFor[config]())
}

// TestLimitsAreDocumented: the README's table "What callers can take" has every limit, with the default that the code has, and names tests that exist.
func TestLimitsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## What callers can take\n")
	section, _, _ = strings.Cut(section, "\n## ")
	documented, tests := map[string]string{}, map[string]bool{}
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		names, _, _ := strings.Cut(cells[1], ":")
		values := strings.Split(cells[2], ";")
		for i, name := range strings.Split(names, ",") {
			if i < len(values) {
				documented[strings.Trim(name, " `")] = strings.TrimSpace(values[i])
			}
		}
		for _, name := range strings.Split(cells[4], ",") {
			tests[strings.Trim(name, " `")] = true
		}
	}
	c := defaults()
	if c.Limits, err = c.Limits.WithDefaults(); err != nil {
		t.Fatal(err)
	}
	check := func(name string, v reflect.Value) {
		got, ok := documented[name]
		number, unit, _ := strings.Cut(got, " ")
		var same bool
		switch d := v.Interface().(type) {
		case time.Duration:
			said, err := time.ParseDuration(got)
			same = err == nil && said == d
		default:
			factor := 1.0
			if unit == "MiB" {
				factor = 1 << 20
			}
			var said float64
			_, err := fmt.Sscan(strings.ReplaceAll(number, ",", ""), &said)
			same = err == nil && said*factor == v.Convert(reflect.TypeFor[float64]()).Float()
		}
		if !ok || !same {
			t.Errorf("%s: the README says %q, the code %v", name, got, v.Interface())
		}
		delete(documented, name)
	}
	limits := reflect.ValueOf(c.Limits)
	for i := range limits.NumField() {
		check("limits."+limits.Type().Field(i).Tag.Get("koanf"), limits.Field(i))
	}
	own := reflect.ValueOf(c)
	for i := range own.NumField() {
		switch name := own.Type().Field(i).Tag.Get("koanf"); name {
		case "connections", "connections_each", "header_timeout", "request_timeout", "answer_timeout", "idle_timeout":
			check(name, own.Field(i))
		}
	}
	for name := range documented {
		t.Errorf("the README has a limit that is none: %s", name)
	}
	var sources []byte
	for _, folder := range []string{"../..", "../../../vault/gate", "../../../tests/limits"} {
		files, _ := filepath.Glob(filepath.Join(folder, "*_test.go"))
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sources = append(sources, source...)
		}
	}
	if len(tests) < 10 {
		t.Errorf("the README names %d tests", len(tests))
	}
	for name := range tests {
		if !bytes.Contains(sources, []byte("\nfunc "+name+"(t *testing.T)")) {
			t.Errorf("the README names a test that is none: %q", name)
		}
	}
}

func TestConfigurationRefused(t *testing.T) {
	const good = "certificate='c'\nkey='k'\ndata='d'\n[vault]\naddress='unix:s'\n"
	if _, err := loadConfig(write(t, good)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":              "",
		"unknown member":     "colour='red'\n" + good,
		"another case":       "Listen='127.0.0.1:0'\n" + good,
		"unknown limit":      good + "[limits]\nspeed=3\n",
		"wrong type":         "listen=3\n" + good,
		"no vault":           "certificate='c'\nkey='k'\ndata='d'\n",
		"plain http":         "certificate='c'\nkey='k'\ndata='d'\n[vault]\naddress='http://v'\n",
		"https without keys": "certificate='c'\nkey='k'\ndata='d'\n[vault]\naddress='https://v'\n",
		"socket with keys":   good + "ca='x'\n",
		"no connections":     "connections=0\n" + good,
		"none of an address": "connections_each=0\n" + good,
		"no time":            "idle_timeout='1ms'\n" + good,
		"no reserve":         "reserve=100\n" + good,
		"a rate of NaN":      good + "[limits]\nopen_rate=nan\n",
		"a rate of infinity": good + "[limits]\nfield_rate=inf\n",
		"a rate below zero":  good + "[limits]\nlogin_rate=-1\n",
		"bad duration":       good + "[limits]\nlogin='soon'\n",
	} {
		if c, err := loadConfig(write(t, text)); err == nil {
			t.Errorf("%s: accepted as %+v", name, c)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for name, c := range map[string]struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		"help":       {[]string{"--help"}, exitOK, "Exit codes", ""},
		"config":     {[]string{"config"}, exitOK, "allow_classical = false", ""},
		"none":       {nil, exitUsage, "", "--help"},
		"unknown":    {[]string{"fly"}, exitUsage, "", "fly"},
		"no config":  {[]string{"serve"}, exitUsage, "", "--config"},
		"not a file": {[]string{"serve", "--config", "/nonexistent/file"}, exitUsage, "", "nonexistent"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(context.Background(), c.args, &stdout, &stderr); code != c.code {
				t.Errorf("exit code %d, want %d; %s", code, c.code, stderr.String())
			}
			if !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) {
				t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
			}
		})
	}
}

func writeCertificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, "c.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	os.WriteFile(filepath.Join(dir, "k.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
	roots := x509.NewCertPool()
	parsed, _ := x509.ParseCertificate(der)
	roots.AddCert(parsed)
	return roots
}

func TestServe(t *testing.T) {
	dir := t.TempDir()
	roots := writeCertificate(t, dir)
	text := fmt.Sprintf("listen='127.0.0.1:0'\ncertificate='%[1]s/c.pem'\nkey='%[1]s/k.pem'\ndata='%[1]s/data'\nready_file='%[1]s/ready'\n[vault]\naddress='unix:%[1]s/none.sock'\n", dir)
	path := filepath.Join(dir, "config.toml")
	os.WriteFile(path, []byte(text), 0o600)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan int, 1)
	var stderr bytes.Buffer
	go func() { done <- run(ctx, []string{"serve", "--config", path}, &bytes.Buffer{}, &stderr) }()
	var ready struct {
		Addresses map[string]string `json:"addresses"`
	}
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if data, err := os.ReadFile(filepath.Join(dir, "ready")); err == nil {
			if err := json.Unmarshal(data, &ready); err != nil {
				t.Fatal(err)
			}
			break
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatal("not ready")
		}
	}
	get := func(c *tls.Config) (*http.Response, error) {
		c.RootCAs = roots
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: c}, Timeout: 10 * time.Second}
		defer client.CloseIdleConnections()
		return client.Get("https://" + ready.Addresses["storefront"] + "/v1/health")
	}
	resp, err := get(&tls.Config{CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}})
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.TLS.Version != tls.VersionTLS13 {
		t.Errorf("health: status %d, TLS %x", resp.StatusCode, resp.TLS.Version)
	}
	resp.Body.Close()
	for name, c := range map[string]*tls.Config{
		"classical key agreement": {CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256}},
		"TLS 1.2":                 {MaxVersion: tls.VersionTLS12},
	} {
		if resp, err := get(c); err == nil {
			resp.Body.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	resp, err = http.Get("http://" + ready.Addresses["storefront"] + "/v1/health")
	if err == nil && resp.StatusCode == 200 {
		t.Error("plain HTTP: accepted")
	}
	stop()
	select {
	case code := <-done:
		if code != exitOK || !strings.Contains(stderr.String(), "msg=ready") {
			t.Errorf("exit code %d; %s", code, stderr.String())
		}
	case <-time.After(30 * time.Second):
		t.Fatal("does not stop")
	}
}

func TestReadableKeyIsRefused(t *testing.T) {
	dir := t.TempDir()
	writeCertificate(t, dir)
	os.Chmod(filepath.Join(dir, "k.pem"), 0o644)
	if _, err := loadKeyPair(filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")); err == nil {
		t.Fatal("a key that everybody can read was taken")
	}
}
