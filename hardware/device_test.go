package hardware

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

func (b *bench) config(t *testing.T, logs *bytes.Buffer) DeviceConfig {
	return DeviceConfig{
		Dir: b.dir, PIN: b.pin(t), WorkerCommand: []string{os.Args[0], workerArgument}, Workers: 2, Threads: 1,
		Logger: slog.New(slog.NewTextHandler(logs, nil)),
	}
}

// wrap does what an owner's device does with the published import key.
func wrap(t *testing.T, doc *policies.VaultDocument, c policies.Custody, scalar *ecdh.PrivateKey) []byte {
	t.Helper()
	k, ok := doc.ImportKey(doc.Tokens[0].Serial, c)
	if !ok {
		t.Fatal("no import key")
	}
	return wrapUnder(t, k.PublicKey, scalar)
}

func wrapUnder(t *testing.T, spki []byte, scalar *ecdh.PrivateKey) []byte {
	t.Helper()
	public, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(scalar)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, public.(*rsa.PublicKey), der, nil)
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}

func newScalar(t *testing.T) *ecdh.PrivateKey {
	t.Helper()
	k, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestDevice(t *testing.T) {
	b, record := held(t)
	var logs bytes.Buffer
	ctx := t.Context()
	d, err := Open(ctx, b.config(t, &logs))
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			d.Close()
		}
	}()

	if d.Serial() != record.Transcript.Token.Serial || d.Grade() != string(pkcs11.GradeA) || d.Document().Hash != record.Envelope.Hash ||
		d.VaultDocument().Vault != record.Vault.Vault || len(d.Findings().Keys) != 5 {
		t.Error("the device is not the ceremony's")
	}
	s := d.Secrets()
	if s.DataKey == [32]byte{} || s.DataKey == s.ImportHPKESeed || s.ImportHPKESeed == s.SessionKEMSeed || s.SessionKEMSeed == s.LogHostSeed {
		t.Error("secrets are not four")
	}
	host, err := evidence.NewCosignerKey(d.VaultDocument().LogHostKey.Name, &s.LogHostSeed)
	if err != nil || host.Cosigner().String() != evidence.HostCosigner(d.VaultDocument()).String() {
		t.Errorf("the sealed seed is not that of the host's published log key: %v", err)
	}

	rk, peer := newScalar(t), newScalar(t)
	id := pkcs11.KeyID{1}
	if _, err := d.Pool().Import(ctx, id, "oaep-direct", wrap(t, d.VaultDocument(), policies.CustodyResident, rk)); err != nil {
		t.Fatal(err)
	}
	want, err := rk.ECDH(peer.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	r := d.Pool().Derive(ctx, []pkcs11.DeriveRequest{{Key: id, Point: [65]byte(peer.PublicKey().Bytes())}})
	if r[0].Err != nil || !bytes.Equal(r[0].X[:], want) {
		t.Errorf("derive: %v", r[0].Err)
	}

	sig, err := d.LogSigner().Sign(ctx, []byte("checkpoint"))
	if err != nil || !ed25519.Verify(d.VaultDocument().LogKey.PublicKey, []byte("checkpoint"), sig) {
		t.Errorf("log key: %v", err)
	}

	keeper := d.StateKeeper()
	if state, err := keeper.Load(ctx); err != nil || state != nil {
		t.Errorf("state of a new token: %q, %v", state, err)
	}
	for _, state := range []string{"one", "two"} {
		if err := keeper.Save(ctx, []byte(state)); err != nil {
			t.Fatal(err)
		}
		if got, err := keeper.Load(ctx); err != nil || string(got) != state {
			t.Errorf("state: %q, %v", got, err)
		}
	}

	kept := *s
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	closed = true
	if *s != (Secrets{}) {
		t.Error("the secrets outlive the device")
	}
	for _, secret := range [][]byte{kept.DataKey[:], kept.ImportHPKESeed[:], kept.SessionKEMSeed[:], kept.LogHostSeed[:]} {
		if bytes.Contains(logs.Bytes(), secret) {
			t.Error("a secret is in the log output")
		}
	}

	// The keys and the state are those of the token: a second start finds them.
	d, err = Open(ctx, b.config(t, &logs))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if *d.Secrets() != kept {
		t.Error("a second start finds other secrets")
	}
	if keys, err := d.Pool().Keys(ctx); err != nil || len(keys) != 1 || keys[0] != id {
		t.Errorf("keys %v, %v", keys, err)
	}
	if state, err := d.StateKeeper().Load(ctx); err != nil || string(state) != "two" {
		t.Errorf("state: %q, %v", state, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	b := newBench(t)
	b.ceremony.Development = true
	if _, err := b.ceremony.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var logs bytes.Buffer
	for name, c := range map[string]struct {
		change func(*DeviceConfig)
		want   error
	}{
		"a development vault": {func(c *DeviceConfig) { c.DevMode = false }, ErrDevelopment},
		"a wrong PIN":         {func(c *DeviceConfig) { c.PIN = pkcs11.NewSecret([]byte("wrong-0000")) }, pkcs11.ErrPINIncorrect},
		"no PIN":              {func(c *DeviceConfig) { c.PIN = pkcs11.Secret{} }, pkcs11.ErrBadInput},
		"no module":           {func(c *DeviceConfig) { c.Module = "/nowhere.so" }, ErrModule},
		"no ceremony":         {func(c *DeviceConfig) { c.Dir = t.TempDir() }, ErrFolder},
		"no worker command":   {func(c *DeviceConfig) { c.WorkerCommand = nil }, pkcs11.ErrBadInput},
	} {
		t.Run(name, func(t *testing.T) {
			config := b.config(t, &logs)
			config.DevMode = true
			c.change(&config)
			d, err := Open(t.Context(), config)
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if d != nil {
				d.Close()
			}
		})
	}
	t.Run("another token", func(t *testing.T) {
		other := t.TempDir()
		conf, err := NewDevelopmentToken(other)
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("SOFTHSM2_CONF", conf)
		config := b.config(t, &logs)
		config.DevMode = true
		if _, err := Open(t.Context(), config); !errors.Is(err, pkcs11.ErrTokenMissing) {
			t.Errorf("%v", err)
		}
	})
	pin, err := os.ReadFile(filepath.Join(b.beside, "user.pin"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(logs.String(), strings.TrimSpace(string(pin))) {
		t.Error("the PIN is in the log output")
	}
}

// Workers get what the module reads and nothing else: not the PIN of development mode, not pkcs11-spy in a real vault.
func TestWorkerEnvironment(t *testing.T) {
	t.Setenv("SOFTHSM2_CONF", "/x")
	t.Setenv("SALLYPORT_PIN", "1234")
	t.Setenv("PKCS11SPY", "/y")
	for _, development := range []bool{false, true} {
		env := strings.Join(softHSM.environ(development), "\n")
		if !strings.Contains(env, "SOFTHSM2_CONF=/x") || strings.Contains(env, "1234") || strings.Contains(env, "PKCS11SPY=/y") != development {
			t.Errorf("development %t: %q", development, env)
		}
	}
}

func TestSecretsAreRedacted(t *testing.T) {
	s := drawSecrets()
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "value", *s, "pointer", s)
	encoded, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{"log": log.String(), "json": string(encoded)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		texts[verb] = fmt.Sprintf(verb, s) + fmt.Sprintf(verb, *s)
	}
	for name, text := range texts {
		if !strings.Contains(text, "redacted") || strings.Contains(text, fmt.Sprintf("%x", s.DataKey[:4])) || strings.Contains(text, fmt.Sprint(s.DataKey[0], " ", s.DataKey[1])) {
			t.Errorf("%s: %s", name, text)
		}
	}
}
