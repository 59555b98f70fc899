// Package devtls makes the certificates that a developer's Sallyport needs on one machine: a certificate authority of its
// own, a server certificate each for storefront, vault and key server, and the client certificates with which the storefront shows
// itself to the vault and the key server to the storefront. Everything ends after thirty days and says "development only" in its name. The authority's private
// key is thrown away, so that nothing more can be signed with it.
package devtls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Lifetime of every certificate.
const Lifetime = 30 * 24 * time.Hour

// ErrExists: files of these names are there already, and are not overwritten.
var ErrExists = errors.New("the folder holds certificates already")

const organisation = "Sallyport DEVELOPMENT ONLY"

// Files are what Make writes, by role. Each certificate is NAME.pem with its key in NAME-key.pem (mode 0600), but for the
// authority, which has no key file.
var Files = []string{"ca.pem", "storefront.pem", "storefront-key.pem", "vault.pem", "vault-key.pem", "storefront-client.pem", "storefront-client-key.pem",
	"keyserver.pem", "keyserver-key.pem", "keyserver-client.pem", "keyserver-client-key.pem"}

// Make writes the certificates to dir, which it makes if needed. hosts are names and addresses besides localhost,
// 127.0.0.1 and ::1.
func Make(dir string, hosts []string, now time.Time) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range Files {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w: %s", ErrExists, filepath.Join(dir, name))
		}
	}
	authority, err := template("certificate authority", now)
	if err != nil {
		return err
	}
	authority.IsCA, authority.BasicConstraintsValid, authority.MaxPathLenZero = true, true, true
	authority.KeyUsage = x509.KeyUsageCertSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, key.Public(), key)
	if err != nil {
		return err
	}
	if err := write(dir, "ca.pem", "CERTIFICATE", der, 0o644); err != nil {
		return err
	}
	for _, leaf := range []struct {
		name  string
		usage x509.ExtKeyUsage
	}{
		{"storefront", x509.ExtKeyUsageServerAuth},
		{"vault", x509.ExtKeyUsageServerAuth},
		{"storefront-client", x509.ExtKeyUsageClientAuth},
		{"keyserver", x509.ExtKeyUsageServerAuth},
	} {
		t, err := template(leaf.name, now)
		if err != nil {
			return err
		}
		t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{leaf.usage}
		if leaf.usage == x509.ExtKeyUsageServerAuth {
			for _, h := range append([]string{"localhost", "127.0.0.1", "::1"}, hosts...) {
				if ip := net.ParseIP(h); ip != nil {
					t.IPAddresses = append(t.IPAddresses, ip)
				} else {
					t.DNSNames = append(t.DNSNames, h)
				}
			}
		}
		if err := issue(dir, leaf.name, t, authority, key); err != nil {
			return err
		}
	}
	// The key server's certificate toward the storefront signs itself: if the authority had signed it, the vault would take it for the storefront's.
	t, err := template("keyserver-client", now)
	if err != nil {
		return err
	}
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return issue(dir, "keyserver-client", t, nil, nil)
}

func template(name string, now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{organisation}, CommonName: name + ", development only"},
		NotBefore:    now.Add(-time.Minute), NotAfter: now.Add(Lifetime),
	}, nil
}

// issue makes a certificate. Without an authority it signs itself.
func issue(dir, name string, t, authority *x509.Certificate, signer *ecdsa.PrivateKey) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if authority == nil {
		authority, signer = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, authority, key.Public(), signer)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	defer clear(private)
	if err := write(dir, name+"-key.pem", "PRIVATE KEY", private, 0o600); err != nil {
		return err
	}
	return write(dir, name+".pem", "CERTIFICATE", der, 0o644)
}

func write(dir, name, kind string, der []byte, mode os.FileMode) error {
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	err = pem.Encode(file, &pem.Block{Type: kind, Bytes: der})
	if closed := file.Close(); err == nil {
		err = closed
	}
	return err
}
