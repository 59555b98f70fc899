package devtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestMake(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	now := time.Now()
	if err := Make(dir, []string{"sallyport.example", "192.0.2.7"}, now); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != len(Files) {
		t.Errorf("%v, %v", entries, err)
	}
	for _, name := range Files {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if private := len(name) > 8 && name[len(name)-8:] == "-key.pem"; private && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", name, info.Mode().Perm())
		}
	}
	if err := Make(dir, nil, now); !errors.Is(err, ErrExists) {
		t.Errorf("over certificates that exist: %v", err)
	}

	load := func(name string) tls.Certificate {
		c, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	pool := func() *x509.CertPool {
		pem, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
		if err != nil {
			t.Fatal(err)
		}
		p := x509.NewCertPool()
		if !p.AppendCertsFromPEM(pem) {
			t.Fatal("no authority")
		}
		return p
	}()
	storefront, vault, client := load("storefront"), load("vault"), load("storefront-client")

	// The handshake of design section 3.6: TLS 1.3, X25519MLKEM768 only, and the vault asks for the storefront's certificate.
	handshake := func(server, client tls.Certificate, name string, at time.Time) error {
		here, there := net.Pipe()
		defer here.Close()
		defer there.Close()
		clock := func() time.Time { return at }
		s := tls.Server(there, &tls.Config{Certificates: []tls.Certificate{server}, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, Time: clock})
		c := tls.Client(here, &tls.Config{Certificates: []tls.Certificate{client}, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768},
			RootCAs: pool, ServerName: name, Time: clock})
		done := make(chan error, 1)
		go func() {
			err := s.Handshake()
			there.Close()
			done <- err
		}()
		err := c.Handshake()
		here.Close()
		return errors.Join(err, <-done)
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "sallyport.example", "192.0.2.7"} {
		if err := handshake(vault, client, name, now); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for what, err := range map[string]error{
		"another name":                         handshake(vault, client, "elsewhere.example", now),
		"after its end":                        handshake(vault, client, "localhost", now.Add(Lifetime+time.Second)),
		"a server's certificate of the client": handshake(vault, storefront, "localhost", now),
		"the client's certificate of a server": handshake(client, client, "localhost", now),
	} {
		if err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}
