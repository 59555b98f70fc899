package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/audit"
	"github.com/sallyport/sallyport/vault/client"
	"github.com/sallyport/sallyport/vault/pre"
)

// TestMain lets the test's own program be the token worker.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "worker" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestDocumentedConfigurationIsTheDefault(t *testing.T) {
	// What is required is set; all else must be what the documentation says.
	text, table, _ := strings.Cut(documented, "\n[pin_vault]\n") // of which nothing is required
	for _, name := range []string{"ceremony", "pin", "log", "state", "database", "certificate", "key", "client_ca"} {
		text = strings.ReplaceAll(text, "\n"+name+" = \"\"", "\n"+name+" = \"x\"")
	}
	path := filepath.Join(t.TempDir(), "vault.toml")
	must(t, os.WriteFile(path, []byte(text+"\n[pin_vault]\n"+table), 0o600))
	got, err := loadConfig(path)
	must(t, err)
	want := defaults()
	want.Ceremony, want.PIN, want.Log, want.State, want.Database = "x", "x", "x", "x", "x"
	want.Storefront.Certificate, want.Storefront.Key, want.Storefront.ClientCA = "x", "x", "x"
	want.Owners.Certificate, want.Owners.Key = "x", "x"
	want.Audit.Auditors, want.Freeze.Operators = []string{}, []string{}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("documented %+v\ndefault    %+v", *got, want)
	}
}

// aWitness is a verifier key.
var aWitness = func() string {
	key, err := evidence.NewEd25519CosignerKey("witness.test/w1", &[32]byte{1})
	if err != nil {
		panic(err)
	}
	return key.Cosigner().String()
}()

func TestConfigurationRefuses(t *testing.T) {
	good := "ceremony='x'\npin='x'\nlog='x'\nstate='x'\ndatabase='x'\n"
	doors := "[storefront]\nlisten='unix:/x'\n[owners]\ncertificate='x'\nkey='x'\n"
	for text, want := range map[string]string{
		"":                                                         "not set",
		good:                                                       "owners.certificate",
		good + "surprise=1\n" + doors:                              "surprise",
		good + "Log='y'\n" + doors:                                 "Log",
		good + "workers=0\n" + doors:                               "workers",
		good + "workers='two'\n" + doors:                           "workers",
		good + "minimum_grade='Z'\n" + doors:                       "minimum_grade",
		good + "reserve=-1\n" + doors:                              "reserve",
		good + "live_keys=0\n" + doors:                             "live_keys",
		good + "sealing_check=60\n" + doors:                        "sealing_check",
		good + "sealing_check='x'\n" + doors:                       "sealing_check",
		good + doors + "burst=0\n":                                 "owners.burst",
		good + doors + "[publish]\ninterval='1ms'\n":               "publish.interval",
		good + doors + "[publish]\ndir='x'\n":                      "publish.dir",
		good + doors + "[publish]\ndir='x/y'\n":                    "publish.dir",
		good + doors + "[x":                                        "reading",
		good + doors + "[audit]\nauditors=['x']\n":                 "audit.auditors",
		good + doors + "[limits]\nqueries=0\n":                     "limits.queries",
		good + doors + "[limits]\nrefusals=nan\n":                  "limits.refusals is NaN",
		good + doors + "[limits]\nsession_rate=inf\n":              "limits.session_rate",
		good + doors + "[limits]\nrefusal_burst=1\n":               "limits.refusal_burst",
		good + doors + "per_second=nan\n":                          "owners.per_second",
		good + doors + "per_second=-inf\n":                         "owners.per_second",
		good + "workers=1000000\n" + doors:                         "workers",
		good + "live_keys=999999999999\n" + doors:                  "live_keys",
		good + strings.Replace(doors, "unix:/x", "127.0.0.1:0", 1): "client_ca",
		good + strings.Replace(doors, "[owners]", "certificate='x'\n[owners]", 1):                              "socket",
		good + doors + "[publish]\nneed=1\n":                                                                   "publish.need",
		good + doors + "[publish]\nneed=-1\n":                                                                  "publish.need",
		good + doors + "[publish]\ndir='y'\nwitnesses=[{key='x',url='https://x'}]\n":                           "verifier key",
		good + doors + "[publish]\nwitnesses=[{key='" + aWitness + "',url='https://x'}]\n":                     "publish.dir",
		good + doors + "[publish]\ndir='y'\nwitnesses=[{key='" + aWitness + "',url='http://x'}]\n":             "loopback",
		good + doors + "[publish]\ndir='y'\nwitnesses=[{key='" + aWitness + "',url='https://u:p@x'}]\n":        "https://",
		good + doors + "[publish]\ndir='y'\nwitnesses=[{key='" + aWitness + "',url='https://x',surprise=1}]\n": "surprise",
		good + doors + "[publish]\ndir='y'\nwitnesses=[{key='" + aWitness + "',url='https://x',ca='/none'}]\n": "authority",
	} {
		path := filepath.Join(t.TempDir(), "vault.toml")
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if _, err := loadConfig(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want a word on %s", text, err, want)
		}
	}
	vault := "[pin_vault]\naddress='https://x:1'\nca='x'\npath='x'\nauth='cert'\ncertificate='x'\nkey='x'\n"
	noPIN := strings.Replace(good, "pin='x'\n", "", 1)
	for text, want := range map[string]string{
		noPIN + doors: "not set: pin",
		noPIN + "token='pkcs11:serial=1'\n" + doors:                                                                               "not set: pin",
		noPIN + "token='pkcs11:serial=1?pin-source=/p'\n" + doors:                                                                 "",
		noPIN + doors + vault:                                                                                                     "",
		good + doors + vault:                                                                                                      "not from both",
		noPIN + "token='pkcs11:?pin-source=/p'\n" + doors + vault:                                                                 "not from both",
		good + "token='pkcs11:?pin-source=/p'\n" + doors:                                                                          "said twice",
		good + "token='pkcs11:?pin-value=73519'\n" + doors:                                                                        "must not hold a PIN",
		good + "token='pkcs11:?module-path=/a.so'\nmodule='/b.so'\n" + doors:                                                      "said twice",
		good + "token='pkcs11:?module-path=/a.so'\nmodule='/a.so'\n" + doors:                                                      "",
		noPIN + doors + "[pin_vault]\nca='x'\n":                                                                                   "https://",
		noPIN + doors + strings.Replace(vault, "https", "http", 1):                                                                "https://",
		noPIN + doors + strings.Replace(vault, "https://x", "https://u:p@x", 1):                                                   "https://",
		noPIN + doors + strings.Replace(vault, "https://x:1", "https://x:1/v1", 1):                                                "https://",
		noPIN + doors + strings.Replace(vault, "ca='x'\n", "", 1):                                                                 "ca is needed",
		noPIN + doors + strings.Replace(vault, "path='x'", "path='../x'", 1):                                                      "paths",
		noPIN + doors + strings.Replace(vault, "path='x'", "path='x/'", 1):                                                        "paths",
		noPIN + doors + strings.Replace(vault, "'cert'", "'token'", 1):                                                            "auth",
		noPIN + doors + strings.Replace(vault, "key='x'\n", "", 1):                                                                "together",
		noPIN + doors + vault + "role_id='x'\n":                                                                                   "auth cert",
		noPIN + doors + strings.Replace(vault, "'cert'", "'approle'", 1):                                                          "auth approle",
		noPIN + doors + vault + "timeout='0s'\n":                                                                                  "timeout",
		noPIN + doors + vault + "timeout='soon'\n":                                                                                "timeout",
		noPIN + doors + vault + "secret_id='x'\n":                                                                                 "secret_id",
		noPIN + doors + strings.Replace(vault, "'cert'", "'approle'", 1) + "role='r'\nrole_id='x'\nwrapped_secret_id='file:/x'\n": "",
	} {
		path := filepath.Join(t.TempDir(), "vault.toml")
		must(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := loadConfig(path)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want a word on %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "73519") {
			t.Errorf("the error repeats the PIN: %v", err)
		}
	}
	c := defaults()
	for grade, ok := range map[string]bool{"A": true, "unproven": true, "C": false, "Z": false, "": false} {
		if (c.graded(grade) == nil) != ok {
			t.Errorf("grade %q against %q", grade, c.MinimumGrade)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for _, test := range []struct {
		args []string
		code int
		out  string
	}{
		{[]string{"--help"}, exitOK, "Exit codes"},
		{[]string{"serve", "--help"}, exitOK, "--config"},
		{[]string{"config"}, exitOK, "[storefront]"},
		{nil, exitUsage, ""},
		{[]string{"serve"}, exitUsage, ""},
		{[]string{"serve", "--config", "/does/not/exist"}, exitUsage, ""},
		{[]string{"serve", "--pin", "1234"}, exitUsage, ""},
		{[]string{"dance"}, exitUsage, ""},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), test.args, nil, &out, &errs); code != test.code || !strings.Contains(out.String(), test.out) {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", test.args, code, out.String(), errs.String())
		}
	}
}

// authority is a certificate authority for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue("ca", nil)
	return a
}

// issue writes NAME.pem and NAME.key.
func (a *authority) issue(name string, parent *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: parent == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	signer, signerKey := template, key
	if parent != nil {
		signer, signerKey = parent.cert, parent.key
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, &key.PublicKey, signerKey)
	must(a.t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	must(a.t, err)
	must(a.t, os.WriteFile(filepath.Join(a.dir, name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(a.t, os.WriteFile(filepath.Join(a.dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600))
	cert, err := x509.ParseCertificate(der)
	must(a.t, err)
	return cert, key
}

func (a *authority) client(certificate string) *tls.Config {
	t := &tls.Config{RootCAs: x509.NewCertPool()}
	t.RootCAs.AddCert(a.cert)
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(a.dir, certificate+".pem"), filepath.Join(a.dir, certificate+".key"))
		must(a.t, err)
		t.Certificates = []tls.Certificate{pair}
	}
	return t
}

// ceremony makes sealing keys.
type ceremony hardware.Ceremony

func (c *ceremony) nextSealingKey(t *testing.T) (*hardware.NewSealingKey, error) {
	t.Helper()
	passphrase, err := c.Passphrase()
	must(t, err)
	next := hardware.NextSealingKey{Dir: c.Dir, CeremonyKey: c.CeremonyKey, OfficerPIN: pkcs11.NewSecret([]byte("officer-pin-of-a-test")), Passphrase: passphrase}
	return next.Run(t.Context())
}

// daemon is a vault with a real token, from the ceremony on.
type daemon struct {
	t        *testing.T
	ceremony *ceremony
	keys     string
	config   string
	ready    string
	stop     context.CancelFunc
	code     chan int
	log      *bytes.Buffer
	mu       *sync.Mutex
}

func (d *daemon) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.Write(b)
}

func (d *daemon) output() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String()
}

func newDaemon(t *testing.T, a *authority) *daemon {
	dir := t.TempDir()
	conf, err := hardware.NewDevelopmentToken(filepath.Join(dir, "token"))
	must(t, err)
	t.Setenv("SOFTHSM2_CONF", conf)
	pin := filepath.Join(dir, "user.pin")
	must(t, hardware.NewSecretFile(pin))
	text, err := os.ReadFile(pin)
	must(t, err)
	rite := hardware.Ceremony{
		Dir: filepath.Join(dir, "ceremony"), Profile: "softhsm", Label: "test", CeremonyKey: filepath.Join(dir, "ceremony.key"), Development: true,
		OfficerPIN: pkcs11.NewSecret([]byte("officer-pin-of-a-test")), UserPIN: pkcs11.NewSecret(bytes.TrimSpace(text)),
		Passphrase: func() ([]byte, error) { return []byte("a passphrase of a test"), nil },
		Storefront: "https://store.example", Owners: "https://vault.example",
	}
	_, err = rite.Run(t.Context())
	must(t, err)
	a.issue("vault", a)
	a.issue("storefront", a)
	d := &daemon{t: t, ceremony: (*ceremony)(&rite), keys: filepath.Join(dir, "keys"), config: filepath.Join(dir, "vault.toml"), ready: filepath.Join(dir, "ready.json"), log: new(bytes.Buffer), mu: new(sync.Mutex)}
	must(t, os.WriteFile(d.config, fmt.Appendf(nil, `
ceremony = %q
pin = "file:%s"
dev_mode = true
log = %q
state = %q
database = %q
keys = %q
sealing_check = "1s"
ready_file = %q
[storefront]
listen = "127.0.0.1:0"
certificate = "%[8]s/vault.pem"
key = "%[8]s/vault.key"
client_ca = "%[8]s/ca.pem"
[owners]
listen = "127.0.0.1:0"
certificate = "%[8]s/vault.pem"
key = "%[8]s/vault.key"
[publish]
dir = %[9]q
interval = "100ms"
`, rite.Dir, pin, filepath.Join(dir, "log"), filepath.Join(dir, "state"), filepath.Join(dir, "db"), d.keys, d.ready, a.dir, filepath.Join(dir, "published")), 0o600))
	return d
}

func (d *daemon) keysFile() []byte {
	d.t.Helper()
	data, err := os.ReadFile(filepath.Join(d.keys, "sealed-keys.1"))
	must(d.t, err)
	return data
}

// serve starts the vault and returns its addresses.
func (d *daemon) serve() map[string]string {
	d.t.Helper()
	os.Remove(d.ready)
	ctx, stop := context.WithCancel(context.Background())
	d.stop, d.code = stop, make(chan int, 1)
	go func() { d.code <- run(ctx, []string{"serve", "--config", d.config}, nil, d, d) }()
	for range 600 {
		if text, err := os.ReadFile(d.ready); err == nil {
			var ready struct{ Addresses map[string]string }
			must(d.t, json.Unmarshal(text, &ready))
			return ready.Addresses
		}
		select {
		case code := <-d.code:
			d.t.Fatalf("the vault ended with %d: %s", code, d.output())
		case <-time.After(50 * time.Millisecond):
		}
	}
	d.t.Fatalf("the vault is not ready: %s", d.output())
	return nil
}

func (d *daemon) end() {
	d.t.Helper()
	d.stop()
	if code := <-d.code; code != exitOK {
		d.t.Fatalf("the vault ended with %d: %s", code, d.output())
	}
}

// TestVaultWithARealToken goes from the ceremony to a revoked grant, over TLS and a restart, in each custody.
func TestVaultWithARealToken(t *testing.T) {
	for _, custody := range []policies.Custody{policies.CustodyResident, policies.CustodySealed} {
		t.Run(string(custody), func(t *testing.T) { vaultWithARealToken(t, custody) })
	}
}

// publishes asks the owners' door, as a stranger, for the published log: its checkpoint comes up to the log's size, under the token's signature and the
// host's, with the hash tile of the entries; entries and bodies are not to be had.
func publishes(t *testing.T, a *authority, owners string, doc *policies.VaultDocument) {
	t.Helper()
	stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: a.client("")}}
	defer stranger.CloseIdleConnections()
	get := func(path string) (int, []byte) {
		t.Helper()
		resp, err := stranger.Get("https://" + owners + path)
		must(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		return resp.StatusCode, body
	}
	var health api.Health
	var text []byte
	for begin := time.Now(); ; time.Sleep(250 * time.Millisecond) { // the door lets an address ask five times a second
		status, body := get(api.PathHealth)
		if status != http.StatusOK || json.Unmarshal(body, &health) != nil || health.Publication == nil || health.Publication.Failed {
			t.Fatalf("health %d: %s", status, body)
		}
		if status, text = get(api.PathLogCheckpoint); status == http.StatusOK && health.Publication.Size == health.LogSize {
			break
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("not published after 20 s: %d, %+v of %d", status, health.Publication, health.LogSize)
		}
	}
	c, err := evidence.OpenPublished(string(text), doc, evidence.Witnesses{})
	if err != nil || c.Size != health.LogSize || time.Since(c.Host).Abs() > time.Hour {
		t.Fatalf("checkpoint %+v, %v", c, err)
	}
	width := fmt.Sprintf("000.p/%d", c.Size)
	if status, tile := get("/v1/log/tile/0/" + width); status != http.StatusOK || uint64(len(tile)) != 32*c.Size {
		t.Errorf("hash tile: %d, %d bytes", status, len(tile))
	}
	for _, path := range []string{"/v1/log/tile/entries/" + width, "/v1/log/bodies/" + width, "/v1/log/tile/0/../entries/" + width} {
		if status, body := get(path); status != http.StatusNotFound {
			t.Errorf("%s: %d, %q", path, status, body)
		}
	}
}

func vaultWithARealToken(t *testing.T, custody policies.Custody) {
	a := newAuthority(t)
	d := newDaemon(t, a)
	if code := run(t.Context(), []string{"serve", "--config", d.config}, nil, d, d); code != exitFailure || !strings.Contains(d.output(), "create it first") {
		t.Fatalf("serve before init: %d, %s", code, d.output())
	}
	if code := run(t.Context(), []string{"init", "--config", d.config}, nil, d, d); code != exitOK {
		t.Fatalf("init: %s", d.output())
	}
	if code := run(t.Context(), []string{"init", "--config", d.config}, nil, d, d); code != exitFailure {
		t.Fatal("init twice")
	}
	addresses := d.serve()
	connect := func() *client.Client {
		c, err := client.New(client.Config{Address: "https://" + addresses["storefront"], TLS: a.client("storefront")})
		must(t, err)
		t.Cleanup(c.Close)
		return c
	}
	c := connect()

	t.Run("doors", func(t *testing.T) {
		nobody, err := client.New(client.Config{Address: "https://" + addresses["storefront"], TLS: a.client("")})
		must(t, err)
		if _, err := nobody.Health(t.Context()); !errors.Is(err, policies.CodeUnavailable) {
			t.Errorf("the storefront's door without a certificate: %v", err)
		}
		other := newAuthority(t)
		other.issue("storefront", other)
		stranger := other.client("storefront")
		stranger.RootCAs = a.client("").RootCAs
		wrong, err := client.New(client.Config{Address: "https://" + addresses["storefront"], TLS: stranger})
		must(t, err)
		if _, err := wrong.Health(t.Context()); !errors.Is(err, policies.CodeUnavailable) {
			t.Errorf("the storefront's door with a certificate of another authority: %v", err)
		}
		for door, address := range addresses {
			classical := a.client("storefront")
			classical.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}
			if conn, err := tls.Dial("tcp", address, classical); err == nil {
				conn.Close()
				t.Errorf("%s: a classical key exchange was accepted", door)
			}
			old := a.client("storefront")
			old.MaxVersion = tls.VersionTLS12
			if conn, err := tls.Dial("tcp", address, old); err == nil {
				conn.Close()
				t.Errorf("%s: TLS 1.2 was accepted", door)
			}
		}
		owners, err := client.New(client.Config{Address: "https://" + addresses["owners"], TLS: a.client("")})
		must(t, err)
		if h, err := owners.Health(t.Context()); err != nil || h.Status != "ok" || !h.DevMode {
			t.Errorf("health at the owners' door: %+v, %v", h, err)
		}
		if _, err := owners.Reencrypt(t.Context(), api.Call{}); !errors.Is(err, policies.CodeNotFound) {
			t.Errorf("reencrypt at the owners' door: %v", err)
		}
	})

	// One owner, one reader, one field.
	document, err := c.Vault(t.Context())
	must(t, err)
	doc, err := policies.Decode[policies.VaultDocument](document)
	must(t, err)
	submit := func(e *envelope.Envelope, keys ...api.SealedKey) {
		t.Helper()
		receipt, err := c.Submit(t.Context(), api.Submission{Envelope: e.Raw, Keys: keys})
		must(t, err)
		_, _, _, err = receipt.Verify(doc, e.Hash)
		must(t, err)
	}
	enrol := func(seed byte) (*envelope.PrivateKey, policies.IdentityID) {
		key := envelope.NewPrivateKey(&[envelope.SeedSize]byte{seed})
		kem := pre.NewBlobKey([32]byte{seed}).Public()
		e, err := policies.Sign[policies.Identity](key, &policies.Identity{
			Header: policies.NewHeader("identity", time.Now()), Kind: policies.KindPerson, SigningKey: key.Public().Bytes(), KEMKey: kem, LoginKey: kem, RecoveryHash: policies.Hash{1},
		})
		must(t, err)
		submit(e)
		return key, policies.IdentityID(e.Hash)
	}
	ownerKey, ownerID := enrol(1)
	readerKey, readerID := enrol(2)
	owner := policies.OwnerID(ownerID)
	root, err := pre.ParseRoot(bytes.Repeat([]byte{1}, 32))
	must(t, err)
	fieldKey, err := root.FieldKey(policies.Slot{Owner: owner, Field: "phone.mobile", Epoch: 1, Author: policies.AuthorID(owner)})
	must(t, err)
	leaf, ciphertext, err := fieldKey.Seal(1, []byte("+41 79 000 00 00"), nil)
	must(t, err)
	tree, err := policies.NewTree([]policies.Leaf{leaf})
	must(t, err)
	manifest, err := policies.Sign[policies.Manifest](ownerKey, &policies.Manifest{
		Header: policies.NewHeader("manifest", time.Now()), Audience: doc.Vault, Owner: owner, Author: policies.AuthorID(owner),
		Link: policies.Link{Seq: 1, Prev: policies.Hash(owner)}, Version: 1, TreeSize: 1, Root: tree.Root(),
	})
	must(t, err)
	submit(manifest)

	relationship := root.ReaderKey(owner, policies.Nonce{1})
	ct, secret, err := pre.NewGrantSecret(relationship.Public(), nil)
	must(t, err)
	importKey, _ := doc.ImportKey(doc.Tokens[0].Serial, custody)
	if importKey.OAEPHash != "SHA-1" {
		t.Fatalf("SoftHSM does OAEP with SHA-1, not %s", importKey.OAEPHash)
	}
	public, err := x509.ParsePKIXPublicKey(importKey.PublicKey)
	must(t, err)
	id := policies.NewDocumentID()
	rk, err := secret.ReEncryptionKey(id, policies.ReaderID(readerID), fieldKey)
	must(t, err)
	wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, public.(*rsa.PublicKey), rk.PKCS8(), nil)
	must(t, err)
	g := &policies.Grant{
		Header: policies.NewHeader("grant", time.Now()), Audience: doc.Vault, Owner: owner, Link: policies.Link{Seq: 2, Prev: manifest.Hash},
		Reader: policies.ReaderID(readerID), Relationship: policies.Hash{1}, Custody: custody, Rights: []policies.Right{policies.RightRead},
		Purpose: "delivery", NotBefore: time.Now().Unix() - 10, Expires: time.Now().Unix() + 3600, Ciphertext: ct,
		Fields: []policies.GrantedField{{Field: "phone.mobile", Epoch: 1, Author: policies.AuthorID(owner), Keys: []policies.WrappedKey{{
			Token: doc.Tokens[0].Serial, ImportKey: policies.HashKey(importKey.PublicKey), Path: importKey.Path, Digest: sha256.Sum256(wrapped),
		}}}},
	}
	g.ID = id
	grant, err := policies.Sign[policies.Grant](ownerKey, g)
	must(t, err)
	info, err := pre.ImportInfo(doc.Vault, grant.Hash, "phone.mobile", 1, policies.AuthorID(owner))
	must(t, err)
	sealed, err := pre.SealBlob(doc.ImportHPKE, info, wrapped)
	must(t, err)
	submit(grant, api.SealedKey{Field: "phone.mobile", Author: policies.AuthorID(owner), Token: doc.Tokens[0].Serial, Sealed: sealed})

	signer := envelope.NewSessionKey()
	sessionCT, sessionSecret, err := pre.EncapsulateSession(doc.SessionKEM, nil)
	must(t, err)
	session, err := policies.Sign[policies.Session](readerKey, &policies.Session{
		Header: policies.NewHeader("session", time.Now()), Audience: doc.Vault, Reader: policies.ReaderID(readerID), Key: signer.Public(),
		NotBefore: time.Now().Unix(), Expires: time.Now().Unix() + 600, Ciphertext: sessionCT,
	})
	must(t, err)
	submit(session)
	read := func() policies.AnswerItem {
		t.Helper()
		request, err := policies.Sign[policies.ReadRequest](signer, &policies.ReadRequest{
			Header: policies.NewHeader("read", time.Now()), Audience: doc.Vault, Session: session.Hash, Nonce: policies.NewNonce(),
			Expires: time.Now().Unix() + 60, Purpose: "delivery", Items: []policies.ReadItem{{Owner: owner, Field: "phone.mobile"}},
		})
		must(t, err)
		point, err := pre.Decompress(&leaf.Capsule)
		must(t, err)
		reply, err := c.Reencrypt(t.Context(), api.Call{Request: request.Raw, Items: []api.CallItem{{Grant: id, Head: manifest.Hash, Leaf: leaf.Bytes(), Point: point}}})
		must(t, err)
		if reply.Code != "" {
			t.Fatalf("refused: %s", string(reply.Code))
		}
		plain, err := sessionSecret.Key(doc.Vault, policies.ReaderID(readerID), session.Hash).OpenAnswer(request.Hash, reply.Sealed)
		must(t, err)
		answer, err := policies.ParseAnswer(plain)
		must(t, err)
		return answer.Items[0]
	}
	opens := func(item policies.AnswerItem) {
		t.Helper()
		if item.Outcome != policies.CodeReleased {
			t.Fatalf("outcome %s", string(item.Outcome))
		}
		readers, err := relationship.OpenGrant(ct)
		must(t, err)
		value, err := readers.Open(id, policies.ReaderID(readerID), &leaf, item.X, ciphertext)
		if err != nil || string(value) != "+41 79 000 00 00" {
			t.Fatalf("opened %q, %v", value, err)
		}
	}
	opens(read())
	publishes(t, a, addresses["owners"], doc)
	d.end()
	// The auditor's reading, which shares nothing with the vault, finds what was published whole.
	published, err := audit.Open(t.Context(), audit.Folder(filepath.Join(filepath.Dir(d.config), "published")), doc)
	must(t, err)
	summary, err := published.Verify(t.Context())
	must(t, err)
	if summary.Kinds[evidence.EntryUse] != 1 || summary.Kinds[evidence.EntryGrant] != 1 || summary.Bodies != summary.Size || summary.Documents == 0 {
		t.Errorf("the published log holds %+v", summary)
	}
	if strings.Contains(d.output(), "orphan") || !strings.Contains(d.output(), "PROTECTS NOTHING") {
		t.Errorf("log: %s", d.output())
	}
	addresses = d.serve()
	c = connect()
	opens(read()) // the session goes on too

	health, err := c.Health(t.Context())
	must(t, err)
	if health.Keys != 1 || len(health.Custodies) != 2 || health.Sealing == nil || health.Sealing.Period != 1 || (health.Sealed == 1) != (custody == policies.CustodySealed) {
		t.Errorf("health %+v", health)
	}
	if custody == policies.CustodySealed { // the security officer makes the next sealing key while the vault serves
		before := d.keysFile()
		made, err := d.ceremony.nextSealingKey(t)
		if err != nil || made.Period != 2 {
			t.Fatalf("sealing key %+v, %v", made, err)
		}
		for begin := time.Now(); !strings.Contains(d.output(), "destroyed a sealing key"); time.Sleep(20 * time.Millisecond) {
			if opens(read()); time.Since(begin) > 20*time.Second {
				t.Fatalf("the sealing key of before is still there: %s", d.output())
			}
		}
		opens(read())
		if health, err = c.Health(t.Context()); err != nil || health.Sealing.Period != 2 || health.Sealing.Older != 0 || health.Sealing.Missing != 0 {
			t.Errorf("health %+v, %v", health.Sealing, err)
		}
		after := d.keysFile()
		d.end()
		must(t, os.WriteFile(filepath.Join(d.keys, "sealed-keys.1"), before, 0o600)) // a copy that the host kept
		addresses = d.serve()
		c = connect()
		if item := read(); item.Outcome != policies.CodeKeyMissing {
			t.Fatalf("with a copy from before, whose sealing key is destroyed: %s", string(item.Outcome))
		}
		d.end()
		must(t, os.WriteFile(filepath.Join(d.keys, "sealed-keys.1"), after, 0o600))
		addresses = d.serve()
		c = connect()
		opens(read())
	}

	revocation, err := policies.Sign[policies.Revocation](ownerKey, &policies.Revocation{
		Header: policies.NewHeader("revocation", time.Now()), Audience: doc.Vault, Owner: owner, Link: policies.Link{Seq: 3, Prev: grant.Hash},
		Items: []policies.RevokedItem{{Grant: id, Field: "phone.mobile", Author: policies.AuthorID(owner)}}, Reason: policies.ReasonWithdrawn,
	})
	must(t, err)
	submit(revocation)
	if item := read(); item.Outcome != policies.CodeRevoked {
		t.Fatalf("after the revocation: %s", string(item.Outcome))
	}
	state, err := c.Chain(t.Context(), owner)
	must(t, err)
	if state.Seq != 3 || state.Hash != policies.Hash(revocation.Hash) {
		t.Errorf("chain at %d", state.Seq)
	}
	history, err := c.History(t.Context(), owner, 0, 3)
	must(t, err)
	if len(history.Entries) != 3 || history.Before == 0 {
		t.Errorf("history of %d entries", len(history.Entries))
	}
	for i := range history.Entries { // a refusal, the destruction, the revocation
		details, err := history.Entries[i].Opening.Read()
		must(t, err)
		if want := [...]policies.Custody{custody, custody, ""}[i]; details.Custody != want {
			t.Errorf("entry %d names the custody %q", i, details.Custody)
		}
		if want := map[policies.Custody]uint32{policies.CustodySealed: 2}[custody]; i == 1 && details.Period != want {
			t.Errorf("the destruction names sealing key %d, want %d", details.Period, want)
		}
	}
	d.end()
}

// TestOperators: a freeze takes two operators, so one alone on the list, or one listed twice, is a mistake.
func TestOperators(t *testing.T) {
	a, b := strings.Repeat("1", 64), strings.Repeat("2", 64)
	for _, c := range []struct {
		listed []string
		good   bool
	}{{nil, true}, {[]string{a, b}, true}, {[]string{a}, false}, {[]string{a, a}, false}, {[]string{a, b, a}, false}, {[]string{a, "b"}, false}, {[]string{a, strings.Repeat("0", 64)}, false}} {
		if _, err := (freezing{c.listed}).identities(); (err == nil) != c.good {
			t.Errorf("%v: %v", c.listed, err)
		}
	}
}
