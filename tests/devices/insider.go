package devices

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/vault/api"
	vaultclient "github.com/sallyport/sallyport/vault/client"
	"github.com/sallyport/sallyport/vault/pre"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// An Insider stands at the vault's door with the storefront's certificate, as a storefront that does as it likes, and has a reader's
// keys besides: what it is refused, nobody is given.
type Insider struct {
	Vault   *vaultclient.Client
	id      policies.VaultID
	reader  policies.ReaderID
	session policies.Hash
	key     *envelope.SessionKey
}

// NewInsider opens a session at the vault's door in the name of a firm.
func NewInsider(t testing.TB, s *stage.Stage, f *Firm) *Insider {
	t.Helper()
	certificate, key := s.ClientCertificate()
	pair, err := tls.LoadX509KeyPair(certificate, key)
	must(t, err)
	c := &Insider{reader: f.ID(), key: envelope.NewSessionKey()}
	c.Vault, err = vaultclient.New(vaultclient.Config{Address: s.VaultURL(), TLS: &tls.Config{RootCAs: Roots(t, s), Certificates: []tls.Certificate{pair}}})
	must(t, err)
	t.Cleanup(c.Vault.Close)
	document, err := f.Vault(t.Context())
	must(t, err)
	c.id = document.Vault
	root, err := pre.ParseRoot(f.Drawer.Look(t).Root)
	must(t, err)
	defer root.Zero()
	seed := root.IdentitySeed()
	signing := envelope.NewPrivateKey(&seed)
	defer signing.Zero()
	ct, _, err := pre.EncapsulateSession(document.SessionKEM, nil)
	must(t, err)
	now := time.Now()
	e, err := policies.Sign(signing, &policies.Session{
		Header: policies.NewHeader("session", now), Audience: c.id, Reader: c.reader, Key: c.key.Public(),
		NotBefore: now.Unix(), Expires: now.Add(policies.SessionLifetime).Unix(), Ciphertext: ct,
	})
	must(t, err)
	_, err = c.Vault.Submit(t.Context(), api.Submission{Envelope: e.Raw})
	must(t, err)
	c.session = e.Hash
	return c
}

// Roots are the authority that every door of the stage is certified by.
func Roots(t testing.TB, s *stage.Stage) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(s.CA())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return pool
}

// Request is a read request as the firm itself would sign it, after change has had its way with it.
func (c *Insider) Request(t testing.TB, purpose string, change func(*policies.ReadRequest), items ...policies.ReadItem) []byte {
	t.Helper()
	now := time.Now()
	r := &policies.ReadRequest{
		Header: policies.NewHeader("read", now), Audience: c.id, Session: c.session, Nonce: policies.NewNonce(),
		Expires: now.Add(time.Minute).Unix(), Purpose: purpose, Items: items,
	}
	if change != nil {
		change(r)
	}
	e, err := policies.Sign(c.key, r)
	if err != nil {
		t.Fatal(err)
	}
	return e.Raw
}

// Ask has the vault answer a request, and returns the outcome of the first item or of the whole.
func (c *Insider) Ask(t testing.TB, request []byte, offers ...api.CallItem) policies.Code {
	t.Helper()
	reply, err := c.Vault.Reencrypt(t.Context(), api.Call{Request: request, Items: offers})
	if err != nil {
		t.Fatal(err)
	}
	if reply.Code != "" {
		return reply.Code
	}
	return reply.Outcomes[0]
}
