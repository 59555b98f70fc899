package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/vault/api"
	vaultclient "github.com/sallyport/sallyport/vault/client"
	"github.com/sallyport/sallyport/vault/pre"
)

// drawer is a device's store that lives as long as the test. The test may look into it.
type drawer struct {
	mu    sync.Mutex
	state []byte
	items map[policies.Hash][]byte
}

func (d *drawer) Load() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.state), nil
}

func (d *drawer) Save(state []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state = bytes.Clone(state)
	return nil
}

func (d *drawer) PutItem(h policies.Hash, ciphertext []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.items == nil {
		d.items = map[policies.Hash][]byte{}
	}
	d.items[h] = bytes.Clone(ciphertext)
	return nil
}

func (d *drawer) Item(h policies.Hash) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c, ok := d.items[h]; ok {
		return c, nil
	}
	return nil, errors.New("not in the drawer")
}

func (d *drawer) KeepItems(keep map[policies.Hash]bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for h := range d.items {
		if !keep[h] {
			delete(d.items, h)
		}
	}
	return nil
}

// contents is what a test reads in a drawer.
type contents struct {
	Root     []byte `json:"root"`
	Manifest struct {
		Hash policies.Hash `json:"hash"`
	} `json:"manifest"`
	Leaves [][]byte `json:"leaves"`
	Grants []struct {
		Hash  policies.Hash          `json:"hash"`
		Doc   policies.Grant         `json:"doc"`
		Ended []policies.RevokedItem `json:"ended"`
	} `json:"grants"`
}

func (d *drawer) look(t *testing.T) *contents {
	t.Helper()
	state, _ := d.Load()
	c := new(contents)
	if err := json.Unmarshal(state, c); err != nil {
		t.Fatal(err)
	}
	return c
}

// grantOf is the newest grant that names a field, in force or not.
func (c *contents) grantOf(t *testing.T, f policies.Field) policies.Grant {
	t.Helper()
	for _, g := range slices.Backward(c.Grants) {
		for i := range g.Doc.Fields {
			if g.Doc.Fields[i].Field == f {
				return g.Doc
			}
		}
	}
	t.Fatalf("no grant names %s", f)
	return policies.Grant{}
}

// offer is what an honest storefront would offer the vault for a field.
func (c *contents) offer(t *testing.T, f policies.Field) api.CallItem {
	t.Helper()
	var leaves []policies.Leaf
	for _, raw := range c.Leaves {
		l, err := policies.ParseLeaf(raw)
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, l)
	}
	tree, err := policies.NewTree(leaves)
	if err != nil {
		t.Fatal(err)
	}
	leaf, index, ok := tree.Find(f)
	if !ok {
		t.Fatalf("no leaf of %s", f)
	}
	proof, err := tree.Prove(index)
	if err != nil {
		t.Fatal(err)
	}
	point, err := pre.Decompress(&leaf.Capsule)
	if err != nil {
		t.Fatal(err)
	}
	return api.CallItem{Grant: c.grantOf(t, f).ID, Head: c.Manifest.Hash, Leaf: leaf.Bytes(), Point: point, Proof: proof}
}

// wall is a wall clock that a test can make lie once.
type wall struct {
	mu   sync.Mutex
	next time.Duration
}

func (w *wall) lieOnce(by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = by
}

func (w *wall) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	by := w.next
	w.next = 0
	return time.Now().Add(by)
}

// person is an owner's device in this process.
type person struct {
	*client.Owner
	drawer *drawer
	wall   *wall
}

// firm is a reader in this process.
type firm struct {
	*client.Reader
	drawer *drawer
}

func network(t *testing.T, s *stage.Stage) client.Network {
	t.Helper()
	pem, err := os.ReadFile(s.CA())
	if err != nil {
		t.Fatal(err)
	}
	n, err := client.NewNetwork(s.Join(), client.Options{Roots: pem})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newPerson(t *testing.T, s *stage.Stage, values map[policies.Field]string) *person {
	t.Helper()
	p := &person{drawer: new(drawer), wall: new(wall)}
	var err error
	if p.Owner, err = client.InitOwner(t.Context(), p.drawer, network(t, s), client.Options{Now: p.wall.now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	var changes []client.Change
	for f, v := range values {
		changes = append(changes, client.Change{Field: f, Value: []byte(v)})
	}
	if err := p.Set(t.Context(), changes...); err != nil {
		t.Fatal(err)
	}
	return p
}

func newFirm(t *testing.T, s *stage.Stage, name string) *firm {
	t.Helper()
	f := &firm{drawer: new(drawer)}
	var err error
	if f.Reader, err = client.InitReader(t.Context(), f.drawer, network(t, s), policies.KindBusiness, name, client.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// meet connects the two.
func meet(t *testing.T, p *person, f *firm, alias string) {
	t.Helper()
	code, err := p.Code()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Connect(t.Context(), code, "owner-"+p.ID().String()[:8]); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Connect(t.Context(), f.Code(), alias); err != nil {
		t.Fatal(err)
	}
}

// value reads one field through the SDK and the storefront.
func (f *firm) value(ctx context.Context, owner policies.OwnerID, field policies.Field) (string, error) {
	values, err := f.Read(ctx, client.Item{Owner: owner, Field: field})
	if err != nil {
		return "", err
	}
	return string(values[0].Bytes), values[0].Err
}

// insider stands at the vault's door with the storefront's certificate, as a storefront that does as it likes, and has a reader's
// keys besides: what it is refused, nobody is given.
type insider struct {
	vault   *vaultclient.Client
	id      policies.VaultID
	reader  policies.ReaderID
	session policies.Hash
	key     *envelope.SessionKey
}

// newInsider opens a session at the vault's door in the name of a firm.
func newInsider(t *testing.T, s *stage.Stage, f *firm) *insider {
	t.Helper()
	certificate, key := s.ClientCertificate()
	pair, err := tls.LoadX509KeyPair(certificate, key)
	must(t, err)
	c := &insider{reader: f.ID(), key: envelope.NewSessionKey()}
	c.vault, err = vaultclient.New(vaultclient.Config{Address: s.VaultURL(), TLS: &tls.Config{RootCAs: roots(t, s), Certificates: []tls.Certificate{pair}}})
	must(t, err)
	t.Cleanup(c.vault.Close)
	document, err := f.Vault(t.Context())
	must(t, err)
	c.id = document.Vault
	root, err := pre.ParseRoot(f.drawer.look(t).Root)
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
	_, err = c.vault.Submit(t.Context(), api.Submission{Envelope: e.Raw})
	must(t, err)
	c.session = e.Hash
	return c
}

func roots(t *testing.T, s *stage.Stage) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(s.CA())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return pool
}

// request is a read request as the firm itself would sign it, after change has had its way with it.
func (c *insider) request(t *testing.T, purpose string, change func(*policies.ReadRequest), items ...policies.ReadItem) []byte {
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

// ask has the vault answer a request, and returns the outcome of the first item or of the whole.
func (c *insider) ask(t *testing.T, request []byte, offers ...api.CallItem) policies.Code {
	t.Helper()
	reply, err := c.vault.Reencrypt(t.Context(), api.Call{Request: request, Items: offers})
	if err != nil {
		t.Fatal(err)
	}
	if reply.Code != "" {
		return reply.Code
	}
	return reply.Outcomes[0]
}

// spy is the trace of OpenSC's pkcs11-spy, which stands between a vault's worker and the token.
type spy struct {
	file string
	mark int64
}

// spyModule finds the library.
func spyModule(t *testing.T) string {
	t.Helper()
	for _, pattern := range []string{"/usr/lib/*/pkcs11-spy.so", "/usr/lib/*/pkcs11/pkcs11-spy.so", "/usr/lib/pkcs11-spy.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatal("pkcs11-spy.so is not installed (Debian: opensc-pkcs11)")
	return ""
}

var traced = regexp.MustCompile(`(?m)^\d+: (C_\w+)$`)

// since counts the calls since it was last asked.
func (s *spy) since(t *testing.T) map[string]int {
	t.Helper()
	data, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, m := range traced.FindAllSubmatch(data[s.mark:], -1) {
		out[string(m[1])]++
	}
	s.mark = int64(len(data))
	return out
}

// Calls that a commit of the key-use log makes, and those by which the vault renews the signer's state in the token once a minute.
var (
	commitCalls = []string{"C_SignInit", "C_Sign"}
	stateCalls  = []string{"C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_GetAttributeValue", "C_CreateObject", "C_DestroyObject"}
	deriveCalls = []string{"C_DeriveKey", "C_GetAttributeValue", "C_DestroyObject"}
)

// surplus names the calls that are neither allowed nor part of renewing the signer's state, and those of derives if there are not as many as wanted.
func surplus(got map[string]int, derives int) []string {
	allowed := slices.Clone(commitCalls)
	if derives > 0 {
		allowed = append(allowed, deriveCalls...)
	}
	if got["C_CreateObject"] > 0 {
		allowed = append(allowed, stateCalls...)
	}
	var out []string
	for name, n := range got {
		if n > 0 && !slices.Contains(allowed, name) {
			out = append(out, fmt.Sprintf("%s %d times", name, n))
		}
	}
	if got["C_DeriveKey"] != derives {
		out = append(out, fmt.Sprintf("C_DeriveKey %d times, want %d", got["C_DeriveKey"], derives))
	}
	slices.Sort(out)
	return out
}

// difference is what was called between two reports.
func difference(before, after map[string]uint64) map[string]int {
	out := map[string]int{}
	for name, n := range after {
		if n != before[name] {
			out[name] = int(n - before[name])
		}
	}
	return out
}
