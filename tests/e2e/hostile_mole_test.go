package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/client"
	"github.com/sallyport/sallyport/vault/pre"
)

// testPurpose is what the grants of these tests are for.
const testPurpose = "testing"

// mole is a hostile storefront: it holds the storefront's client certificate and says to the vault whatever it likes.
type mole struct {
	t     *testing.T
	s     *stage.Stage
	vault *client.Client
	doc   *policies.VaultDocument
}

func newMole(t *testing.T, s *stage.Stage) *mole {
	t.Helper()
	m := &mole{t: t, s: s}
	certificate, err := tls.LoadX509KeyPair(s.ClientCertificate())
	must(t, err)
	pem, err := os.ReadFile(s.CA())
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	m.vault, err = client.New(client.Config{Address: s.VaultURL(), TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}}})
	must(t, err)
	t.Cleanup(m.vault.Close)
	e, err := m.vault.Vault(t.Context())
	must(t, err)
	join, err := links.ParseJoin(s.Join())
	must(t, err)
	m.doc, err = policies.OpenVault(e, join.Vault, join.Ceremony, 0)
	must(t, err)
	return m
}

// submit has the vault act on a document and returns its receipt or its refusal.
func (m *mole) submit(s api.Submission) (*evidence.Receipt, policies.Code) {
	m.t.Helper()
	r, err := m.vault.Submit(m.t.Context(), s)
	var code policies.Code
	if err != nil && !errors.As(err, &code) {
		m.t.Fatalf("the vault gave no code: %v", err)
	}
	return r, code
}

// accepted submits a document that the vault must take, and verifies its receipt.
func (m *mole) accepted(s api.Submission) {
	m.t.Helper()
	r, code := m.submit(s)
	if code != "" {
		m.t.Fatalf("the vault refused an honest document: %s", code)
	}
	e, err := envelope.Parse(s.Envelope)
	must(m.t, err)
	_, _, _, err = r.Verify(m.doc, policies.Hash(e.Hash))
	must(m.t, err)
}

// party is an enrolled identity whose keys the test has.
type party struct {
	*mole
	root *pre.Root
	key  *envelope.PrivateKey
	id   policies.IdentityID
}

func (m *mole) enrol() party {
	m.t.Helper()
	p, s := m.identity()
	m.accepted(s)
	return p
}

func (m *mole) identity() (party, api.Submission) {
	m.t.Helper()
	root, err := pre.NewRoot()
	must(m.t, err)
	seed := root.IdentitySeed()
	p := party{mole: m, root: root, key: envelope.NewPrivateKey(&seed)}
	e, err := policies.Sign(p.key, &policies.Identity{
		Header: policies.NewHeader("identity", time.Now()), Kind: policies.KindPerson, SigningKey: p.key.Public().Bytes(),
		KEMKey: pre.NewBlobKey(root.KEMSeed()).Public(), LoginKey: pre.NewLoginKey(root.LoginSeed()).Public(), RecoveryHash: policies.Hash{1},
	})
	must(m.t, err)
	p.id = policies.IdentityID(e.Hash)
	return p, api.Submission{Envelope: e.Raw}
}

// owner is a person.
type owner struct {
	party
	link     policies.Link // of the next document
	version  uint64
	manifest policies.Hash
	leaves   map[policies.Field]policies.Leaf
	texts    map[policies.Hash][]byte
	tree     *policies.Tree
}

func (m *mole) owner() *owner {
	m.t.Helper()
	o := &owner{party: m.enrol(), leaves: map[policies.Field]policies.Leaf{}, texts: map[policies.Hash][]byte{}}
	o.link = policies.Link{Seq: 1, Prev: policies.Hash(o.id)}
	return o
}

// took notes that the vault accepted a document.
func (o *owner) took(hash policies.Hash) { o.link = policies.Link{Seq: o.link.Seq + 1, Prev: hash} }

func (o *owner) fieldKey(f policies.Field, epoch uint64) *pre.FieldKey {
	o.t.Helper()
	k, err := o.root.FieldKey(policies.Slot{Owner: policies.OwnerID(o.id), Field: f, Epoch: epoch, Author: policies.AuthorID(o.id)})
	must(o.t, err)
	return k
}

func (o *owner) seal(f policies.Field, value string) {
	o.t.Helper()
	leaf, text, err := o.fieldKey(f, 1).Seal(o.leaves[f].Version+1, []byte(value), nil)
	must(o.t, err)
	o.leaves[f], o.texts[leaf.CiphertextHash] = leaf, text
}

func (o *owner) manifestOf(change func(*policies.Manifest)) (api.Submission, *policies.Tree, policies.Hash) {
	o.t.Helper()
	var leaves []policies.Leaf
	for _, l := range o.leaves {
		leaves = append(leaves, l)
	}
	tree, err := policies.NewTree(leaves)
	must(o.t, err)
	m := &policies.Manifest{
		Header: policies.NewHeader("manifest", time.Now()), Audience: o.doc.Vault, Owner: policies.OwnerID(o.id), Author: policies.AuthorID(o.id),
		Link: o.link, Version: o.version + 1, PrevManifest: o.manifest, TreeSize: tree.Size(), Root: tree.Root(),
	}
	if change != nil {
		change(m)
	}
	e, err := policies.Sign(o.key, m)
	must(o.t, err)
	return api.Submission{Envelope: e.Raw}, tree, e.Hash
}

func (o *owner) publish() api.Submission {
	o.t.Helper()
	s, tree, hash := o.manifestOf(nil)
	o.accepted(s)
	o.took(hash)
	o.version, o.manifest, o.tree = o.version+1, hash, tree
	return s
}

func (o *owner) set(f policies.Field, value string) {
	o.t.Helper()
	o.seal(f, value)
	o.publish()
}

// granting is a grant on its way: what a test may bend before it is signed.
type granting struct {
	doc     *policies.Grant
	wrapped map[policies.Field][]byte // under the token's import key
	plain   map[policies.Field][]byte // what is wrapped
}

// grantOf makes a grant with one key for each field. change bends the document and what is wrapped.
func (o *owner) grantOf(r *reader, change func(*granting), fields ...policies.Field) (api.Submission, *policies.Grant, policies.Hash) {
	t := o.t
	t.Helper()
	now := time.Now().Unix()
	ct, secret, err := pre.NewGrantSecret(r.keyFor(o).Public(), nil)
	must(t, err)
	token := o.doc.Tokens[0]
	ik, ok := o.doc.ImportKey(token.Serial, policies.CustodyResident)
	if !ok || ik.OAEPHash != "SHA-1" {
		t.Fatalf("this test does not know the import key %+v", ik)
	}
	g := &granting{wrapped: map[policies.Field][]byte{}, plain: map[policies.Field][]byte{}, doc: &policies.Grant{
		Header: policies.NewHeader("grant", time.Now()), Audience: o.doc.Vault, Owner: policies.OwnerID(o.id), Link: o.link,
		Reader: policies.ReaderID(r.id), Relationship: policies.Hash{1}, Custody: policies.CustodyResident, Rights: []policies.Right{policies.RightRead},
		Purpose: testPurpose, NotBefore: now - 60, Expires: now + 86400, Ciphertext: ct,
	}}
	for _, f := range fields {
		rk, err := secret.ReEncryptionKey(g.doc.ID, g.doc.Reader, o.fieldKey(f, 1))
		must(t, err)
		g.plain[f] = rk.PKCS8()
		g.doc.Fields = append(g.doc.Fields, policies.GrantedField{Field: f, Epoch: 1, Author: policies.AuthorID(o.id), Keys: []policies.WrappedKey{
			{Token: token.Serial, ImportKey: policies.HashKey(ik.PublicKey), Path: ik.Path},
		}})
	}
	if change != nil {
		change(g)
	}
	public, err := x509.ParsePKIXPublicKey(ik.PublicKey)
	must(t, err)
	for i := range g.doc.Fields {
		f := g.doc.Fields[i].Field
		if g.wrapped[f] == nil {
			g.wrapped[f], err = rsa.EncryptOAEP(sha1.New(), rand.Reader, public.(*rsa.PublicKey), g.plain[f], nil)
			must(t, err)
		}
		if g.doc.Fields[i].Keys[0].Digest.IsZero() {
			g.doc.Fields[i].Keys[0].Digest = sha256.Sum256(g.wrapped[f])
		}
	}
	e, err := policies.Sign(o.key, g.doc)
	must(t, err)
	s := api.Submission{Envelope: e.Raw}
	for _, f := range g.doc.Fields {
		info, err := pre.ImportInfo(o.doc.Vault, e.Hash, f.Field, f.Epoch, f.Author)
		must(t, err)
		sealed, err := pre.SealBlob(o.doc.ImportHPKE, info, g.wrapped[f.Field])
		must(t, err)
		s.Keys = append(s.Keys, api.SealedKey{Field: f.Field, Author: f.Author, Token: token.Serial, Sealed: sealed})
	}
	return s, g.doc, e.Hash
}

func (o *owner) grant(r *reader, change func(*granting), fields ...policies.Field) *policies.Grant {
	o.t.Helper()
	s, g, hash := o.grantOf(r, change, fields...)
	o.accepted(s)
	o.took(hash)
	return g
}

func (o *owner) revocationOf(change func(*policies.Revocation), g *policies.Grant, fields ...policies.Field) (api.Submission, policies.Hash) {
	o.t.Helper()
	r := &policies.Revocation{
		Header: policies.NewHeader("revocation", time.Now()), Audience: o.doc.Vault, Owner: policies.OwnerID(o.id), Link: o.link, Reason: policies.ReasonWithdrawn,
	}
	for _, f := range fields {
		r.Items = append(r.Items, policies.RevokedItem{Grant: g.ID, Field: f, Author: policies.AuthorID(o.id)})
	}
	if change != nil {
		change(r)
	}
	e, err := policies.Sign(o.key, r)
	must(o.t, err)
	return api.Submission{Envelope: e.Raw}, e.Hash
}

func (o *owner) revoke(g *policies.Grant, fields ...policies.Field) api.Submission {
	o.t.Helper()
	s, hash := o.revocationOf(nil, g, fields...)
	o.accepted(s)
	o.took(hash)
	return s
}

// offer is what an honest storefront says of a field.
func (o *owner) offer(g *policies.Grant, f policies.Field) api.CallItem {
	o.t.Helper()
	item := api.CallItem{Head: o.manifest}
	if g != nil {
		item.Grant = g.ID
	}
	leaf, index, ok := o.tree.Find(f)
	if !ok {
		return item
	}
	var err error
	item.Leaf = leaf.Bytes()
	item.Point, err = pre.Decompress(&leaf.Capsule)
	must(o.t, err)
	item.Proof, err = o.tree.Prove(index)
	must(o.t, err)
	return item
}

// reader is a business with a session.
type reader struct {
	party
	session  policies.Hash
	envelope api.Submission // of the session
	sign     *envelope.SessionKey
	k        *pre.SessionKey
}

func (m *mole) reader() *reader {
	m.t.Helper()
	r := &reader{party: m.enrol()}
	r.open()
	return r
}

// keyFor is the reader's key for an owner.
func (r *reader) keyFor(o *owner) *pre.ReaderKey {
	return r.root.ReaderKey(policies.OwnerID(o.id), policies.Nonce{1})
}

func (r *reader) sessionOf(change func(*policies.Session)) (api.Submission, *envelope.Envelope, *envelope.SessionKey, *pre.SessionSecret) {
	r.t.Helper()
	ct, secret, err := pre.EncapsulateSession(r.doc.SessionKEM, nil)
	must(r.t, err)
	key, now := envelope.NewSessionKey(), time.Now()
	d := &policies.Session{
		Header: policies.NewHeader("session", now), Audience: r.doc.Vault, Reader: policies.ReaderID(r.id), Key: key.Public(),
		NotBefore: now.Unix(), Expires: now.Add(policies.SessionLifetime).Unix(), Ciphertext: ct,
	}
	if change != nil {
		change(d)
	}
	e, err := policies.Sign(r.key, d)
	must(r.t, err)
	return api.Submission{Envelope: e.Raw}, e, key, secret
}

func (r *reader) open() {
	r.t.Helper()
	s, e, key, secret := r.sessionOf(nil)
	r.accepted(s)
	r.session, r.envelope, r.sign = e.Hash, s, key
	r.k = secret.Key(r.doc.Vault, policies.ReaderID(r.id), e.Hash)
}

// ask is one item of a request.
type ask struct {
	owner *owner
	grant *policies.Grant
	field policies.Field
	known uint64
}

// callOf signs a request, and adds what an honest storefront would.
func (r *reader) callOf(change func(*policies.ReadRequest), asks ...ask) (api.Call, *envelope.Envelope) {
	r.t.Helper()
	now := time.Now()
	d := &policies.ReadRequest{
		Header: policies.NewHeader("read", now), Audience: r.doc.Vault, Session: r.session, Nonce: policies.NewNonce(), Expires: now.Add(policies.RequestLifetime).Unix(), Purpose: testPurpose,
	}
	var call api.Call
	for _, a := range asks {
		d.Items = append(d.Items, policies.ReadItem{Owner: policies.OwnerID(a.owner.id), Field: a.field, Known: a.known})
		call.Items = append(call.Items, a.owner.offer(a.grant, a.field))
	}
	if change != nil {
		change(d)
	}
	e, err := policies.Sign(r.sign, d)
	must(r.t, err)
	call.Request = e.Raw
	return call, e
}

// call has the vault carry out a call.
func (m *mole) call(c api.Call) api.Reply {
	m.t.Helper()
	reply, err := m.vault.Reencrypt(m.t.Context(), c)
	must(m.t, err)
	return reply
}

// answer opens the vault's answer to a request.
func (r *reader) answer(reply api.Reply, e *envelope.Envelope) *policies.Answer {
	r.t.Helper()
	if reply.Code != "" {
		r.t.Fatalf("the request was refused: %s", reply.Code)
	}
	plain, err := r.k.OpenAnswer(e.Hash, reply.Sealed)
	must(r.t, err)
	a, err := policies.ParseAnswer(plain)
	must(r.t, err)
	return a
}

// read reads one field honestly and returns the outcome and, if it was released, the value.
func (r *reader) read(a ask) (policies.Code, string) {
	r.t.Helper()
	c, e := r.callOf(nil, a)
	got := r.answer(r.call(c), e).Items[0]
	if got.Outcome != policies.CodeReleased {
		return got.Outcome, ""
	}
	leaf := a.owner.leaves[a.field]
	secret, err := r.keyFor(a.owner).OpenGrant(a.grant.Ciphertext)
	must(r.t, err)
	value, err := secret.Open(a.grant.ID, policies.ReaderID(r.id), &leaf, got.X, a.owner.texts[leaf.CiphertextHash])
	must(r.t, err)
	return got.Outcome, string(value)
}
