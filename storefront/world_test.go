package storefront

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
	"github.com/sallyport/sallyport/vault"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/keylog"
	"github.com/sallyport/sallyport/vault/pre"
)

// world is a real store, a real vault with a key-use log, and a storefront between them. Only the token is software, and what
// lies between storefront and vault can be made to fail.
type world struct {
	t     *testing.T
	dir   string
	vault *line
	doc   *policies.VaultDocument

	db     *store.DB
	store  *brokenStore
	front  *Storefront
	server *httptest.Server
	limits Limits
}

// line is the connection to the vault. The hooks run before and after a submission reaches it.
type line struct {
	*vault.Vault
	mu     sync.Mutex
	before func(docType string) error
	after  func(docType string) error
	calls  map[string]int
	reply  func(vaultapi.Reply) vaultapi.Reply
	seen   []vaultapi.Call
	health *vaultapi.Health // said in place of the vault's own
}

func (l *line) hook(which *func(string) error, docType string) error {
	l.mu.Lock()
	h := *which
	l.mu.Unlock()
	if h == nil {
		return nil
	}
	return h(docType)
}

func (l *line) set(before, after func(string) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before, l.after = before, after
}

// asked is how many documents of a type the vault was sent.
func (l *line) asked(docType string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls[docType]
}

func (l *line) Submit(ctx context.Context, s vaultapi.Submission) (*evidence.Receipt, error) {
	env, err := envelope.Parse(s.Envelope)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.calls[env.Type]++
	l.mu.Unlock()
	if err := l.hook(&l.before, env.Type); err != nil {
		return nil, err
	}
	r, err := l.Vault.Submit(ctx, s)
	if err != nil {
		return nil, err
	}
	return r, l.hook(&l.after, env.Type)
}

func (l *line) Reencrypt(ctx context.Context, c vaultapi.Call) (vaultapi.Reply, error) {
	calls, err := vaultapi.ParseCalls(vaultapi.AppendCalls(nil, []vaultapi.Call{c})) // as the wire would
	if err != nil {
		return vaultapi.Reply{}, err
	}
	reply := l.Vault.Reencrypt(ctx, calls)[0]
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, c)
	if l.reply != nil {
		reply = l.reply(reply)
	}
	return reply, nil
}

// adapter gives the vault the methods of a client.
type adapter struct{ *line }

func (a adapter) Vault(context.Context) (*envelope.Envelope, error) {
	return a.line.Vault.Document(), nil
}
func (a adapter) Chain(_ context.Context, o policies.OwnerID) (*vaultapi.ChainState, error) {
	return a.line.Vault.Chain(o)
}
func (a adapter) Head(_ context.Context, o policies.OwnerID, w policies.AuthorID) (*vaultapi.HeadState, error) {
	return a.line.Vault.Head(o, w)
}
func (a adapter) History(_ context.Context, o policies.OwnerID, before uint64, limit int) (*vaultapi.History, error) {
	return a.line.Vault.History(o, before, limit)
}
func (a adapter) Freeze(_ context.Context, o policies.OwnerID) (*vaultapi.FreezeState, error) {
	return a.line.Vault.Freeze(o)
}
func (a adapter) Evidence(ctx context.Context, request []byte) (*vaultapi.SealedEvidence, error) {
	sealed, err := a.line.Vault.Evidence(ctx, request)
	if err != nil {
		return nil, err
	}
	return &vaultapi.SealedEvidence{Answer: sealed}, nil
}
func (a adapter) Consistency(_ context.Context, from, to uint64) (*vaultapi.Consistency, error) {
	return a.line.Vault.Consistency(from, to)
}
func (a adapter) Health(context.Context) (*vaultapi.Health, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.line.Vault.Health()
	if a.health != nil {
		h = *a.health
	}
	return &h, nil
}

// brokenStore fails commits on demand, before or after they were carried out.
type brokenStore struct {
	Store
	mu     sync.Mutex
	before func([]store.Change) error
	after  func([]store.Change) error
	wrote  []store.Change
	broken bool // it says so, and takes no writes
}

func (s *brokenStore) Health() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return store.ErrBroken
	}
	return s.Store.Health()
}

func (s *brokenStore) Commit(ctx context.Context, changes ...store.Change) error {
	s.mu.Lock()
	before, after, broken := s.before, s.after, s.broken
	s.mu.Unlock()
	if broken {
		return store.ErrBroken
	}
	if before != nil {
		if err := before(changes); err != nil {
			return err
		}
	}
	if err := s.Store.Commit(ctx, changes...); err != nil {
		return err
	}
	s.mu.Lock()
	s.wrote = append(s.wrote, changes...)
	s.mu.Unlock()
	if after != nil {
		return after(changes)
	}
	return nil
}

func (s *brokenStore) set(before, after func([]store.Change) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.after = before, after
}

// softToken is re-encryption in software.
type softToken struct {
	vault.Token // of custody sealed nothing is asked for

	mu   sync.Mutex
	keys map[vault.KeyID]*pre.ReEncryptionKey
}

func (k *softToken) Import(_ context.Context, keys []vault.WrappedKey) []vault.Imported {
	found := make([]vault.Imported, len(keys))
	for i, w := range keys {
		found[i].Check, found[i].Err = k.importOne(w.Key, w.Wrapped)
	}
	return found
}

func (k *softToken) importOne(id vault.KeyID, wrapped []byte) (vault.KeyCheck, error) {
	key, err := pre.ParseReEncryptionKey(wrapped)
	if err != nil {
		return vault.KeyCheck{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys[id] != nil {
		return vault.KeyCheck{}, vault.ErrKeyExists
	}
	k.keys[id] = key
	return vault.KeyCheck{}, nil
}

func (k *softToken) Derive(_ context.Context, uses []vault.Use) []vault.Derived {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]vault.Derived, len(uses))
	for i, u := range uses {
		key := k.keys[u.Key]
		if key == nil {
			out[i].Err = vault.ErrKeyMissing
			continue
		}
		var c policies.Capsule
		c[0] = 2 | u.Point[64]&1
		copy(c[1:], u.Point[1:33])
		out[i].X, out[i].Err = pre.Reencrypt(key, &c)
	}
	return out
}

func (k *softToken) Destroy(_ context.Context, keys []vault.EndingKey) []error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range keys {
		delete(k.keys, e.Key)
	}
	return make([]error, len(keys))
}

func (k *softToken) Keys(context.Context) (held, disputed []vault.KeyID, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.keys {
		held = append(held, id)
	}
	return held, nil, nil
}

type logSigner struct{ ed25519.PrivateKey }

func (s logSigner) Sign(_ context.Context, m []byte) ([]byte, error) {
	return ed25519.Sign(s.PrivateKey, m), nil
}

type stateKeeper struct {
	mu   sync.Mutex
	data []byte
}

func (k *stateKeeper) Save(_ context.Context, b []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.data = bytes.Clone(b)
	return nil
}

func (k *stateKeeper) Load(context.Context) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return bytes.Clone(k.data), nil
}

// loose are limits that tests do not run into.
var loose = Limits{OpenRate: 1e6, OpenBurst: 1e6, LoginRate: 1e6, LoginBurst: 1e6, FieldRate: 1e6, FieldBurst: 1e6}

func newWorld(t *testing.T, limits Limits) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), limits: limits}
	w.openVault()
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) openVault() {
	t, ctx := w.t, context.Background()
	_, logKey, _ := ed25519.GenerateKey(nil)
	var importSeed, sessionSeed [32]byte
	importSeed[0], sessionSeed[0] = 1, 2
	importKey, sessionKey := pre.NewBlobKey(importSeed), pre.NewVaultKey(sessionSeed)
	var seed [envelope.SeedSize]byte
	ceremony := envelope.NewPrivateKey(&seed)
	w.doc = &policies.VaultDocument{
		Header: policies.NewHeader("vault", time.Now()), Vault: policies.VaultID{9}, Version: 1, CeremonyKey: ceremony.Public().Bytes(),
		Tokens: []policies.TokenEntry{{Serial: "soft", Label: "soft", Grade: "unproven", ImportKeys: []policies.ImportKey{
			{Custody: policies.CustodyResident, Path: "oaep-direct", OAEPHash: "SHA-1", PublicKey: []byte("an import key")},
		}}},
		LogKey:     policies.LogKey{Name: "storefront.test/log", Algorithm: "Ed25519", PublicKey: logKey.Public().(ed25519.PublicKey)},
		LogHostKey: policies.LogKey{Name: "storefront.test/log/host", Algorithm: "ML-DSA-44", PublicKey: bytes.Repeat([]byte{9}, policies.LogHostKeySize)},
		ImportHPKE: importKey.Public(), SessionKEM: sessionKey.Public(), DevMode: true,
	}
	env, err := policies.Sign(ceremony, w.doc)
	w.must(err)
	log, err := keylog.Create(ctx, keylog.Config{
		Dir: filepath.Join(w.dir, "log"), StateDir: filepath.Join(w.dir, "state"), Origin: w.doc.LogKey.Name,
		PublicKey: w.doc.LogKey.PublicKey, Signer: logSigner{logKey}, State: &stateKeeper{}, Reserve: 1,
	})
	w.must(err)
	w.must(vault.Create(ctx, log, env, w.doc))
	v, err := vault.Open(ctx, vault.Config{
		Envelope: env, Document: w.doc, Token: &softToken{keys: make(map[vault.KeyID]*pre.ReEncryptionKey)}, Serial: "soft", Grade: "unproven",
		Log: log, ImportKey: importKey, SessionKey: sessionKey, Logger: slog.New(slog.DiscardHandler),
	})
	w.must(err)
	w.vault = &line{Vault: v, calls: make(map[string]int)}
	t.Cleanup(func() {
		v.Close(ctx)
		log.Close()
	})
}

// open starts the storefront on the folder as it is.
func (w *world) open() {
	w.t.Helper()
	var err error
	w.db, err = store.Open(store.Options{Dir: filepath.Join(w.dir, "data"), Reserve: 64 << 20})
	w.must(err)
	w.store = &brokenStore{Store: w.db}
	w.start()
}

func (w *world) start() {
	w.t.Helper()
	var err error
	w.front, err = New(Options{Store: w.store, Vault: adapter{w.vault}, Names: []string{"127.0.0.1"}, Limits: w.limits})
	w.must(err)
	w.server = httptest.NewServer(w.front.Handler())
}

func (w *world) close() {
	w.server.Close()
	w.front.Close()
	w.must(w.db.Close())
}

// crash loses the process's memory but nothing that was committed.
func (w *world) crash() {
	w.t.Helper()
	w.server.Close()
	w.front.Close()
	w.store.set(nil, nil)
	w.start()
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// party is a person or business with its device.
type party struct {
	w        *world
	root     *pre.Root
	signer   *envelope.PrivateKey
	identity *envelope.Envelope
	id       policies.IdentityID
	login    policies.DocumentID
	key      *envelope.SessionKey

	// an owner's
	seq      uint64
	prev     policies.Hash
	leaves   map[policies.Field]policies.Leaf
	bodies   map[policies.Field][]byte
	version  uint64
	manifest policies.Hash

	// a reader's
	session *policies.Session
	sessKey *envelope.SessionKey
	hash    policies.Hash
	k       *pre.SessionKey
}

func (w *world) newParty(kind policies.Kind) *party {
	w.t.Helper()
	root, err := pre.NewRoot()
	w.must(err)
	p := &party{w: w, root: root, leaves: map[policies.Field]policies.Leaf{}, bodies: map[policies.Field][]byte{}}
	seed := root.IdentitySeed()
	p.signer = envelope.NewPrivateKey(&seed)
	p.identity, err = policies.Sign(p.signer, &policies.Identity{
		Header: policies.NewHeader("identity", time.Now()), Kind: kind, SigningKey: p.signer.Public().Bytes(),
		KEMKey: pre.NewBlobKey(root.KEMSeed()).Public(), LoginKey: pre.NewLoginKey(root.LoginSeed()).Public(), RecoveryHash: policies.Hash{1},
	})
	w.must(err)
	p.id = policies.IdentityID(p.identity.Hash)
	p.prev = policies.Hash(p.id)
	return p
}

// member is a party that is registered and logged in.
func (w *world) member(kind policies.Kind) *party {
	w.t.Helper()
	p := w.newParty(kind)
	w.must(p.open("POST", api.PathIdentities, p.identity.Raw, nil))
	p.logIn()
	return p
}

func (p *party) logIn() {
	p.w.t.Helper()
	p.key = envelope.NewSessionKey()
	var c api.LoginChallenge
	p.w.must(p.open("POST", api.PathChallenges, api.ChallengeRequest{Subject: p.id, Key: p.key.Public()}, &c))
	var l api.Login
	p.w.must(p.open("POST", api.PathLogins, api.LoginAnswer{ID: c.ID, Proof: p.answer(&c, p.host())}, &l))
	p.login = l.ID
}

func (p *party) host() string { return strings.TrimPrefix(p.w.server.URL, "http://") }

func (p *party) answer(c *api.LoginChallenge, server string) []byte {
	proof, err := pre.NewLoginKey(p.root.LoginSeed()).Answer(&pre.Challenge{
		Server: server, Subject: p.id, Ciphertext: c.Ciphertext, Nonce: c.Nonce, FreshKey: p.key.Public(),
	})
	p.w.must(err)
	return proof[:]
}

func fill(path string, ids ...fmt.Stringer) string {
	for _, id := range ids {
		from, to := strings.Index(path, "{"), strings.Index(path, "}")
		path = path[:from] + id.String() + path[to+1:]
	}
	return path
}

func (p *party) request(method, path string, body any) *http.Request {
	p.w.t.Helper()
	var data []byte
	switch b := body.(type) {
	case nil:
	case []byte:
		data = b
	case jsontext.Value:
		data = b
	default:
		var err error
		data, err = json.Marshal(body)
		p.w.must(err)
	}
	r, err := http.NewRequest(method, p.w.server.URL+path, bytes.NewReader(data))
	p.w.must(err)
	if p.login != (policies.DocumentID{}) {
		api.Sign(r, data, p.login, p.key, time.Now())
	}
	return r
}

// open sends a request without a login's signature, do one with it. Errors are the problems that come back.
func (p *party) open(method, path string, body, out any) error {
	p.w.t.Helper()
	stranger := *p // a copy: several goroutines ask for one party
	stranger.login = policies.DocumentID{}
	return p.w.send(stranger.request(method, path, body), out)
}

func (p *party) do(method, path string, body, out any) error {
	p.w.t.Helper()
	return p.w.send(p.request(method, path, body), out)
}

func (w *world) send(r *http.Request, out any) error {
	w.t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		err := problem.Read(resp.StatusCode, resp.Header.Get("Content-Type"), resp.Body)
		if p := new(problem.Problem); errors.As(err, &p) && p.Type == "" {
			return fmt.Errorf("not a problem document: status %d", resp.StatusCode)
		}
		return err
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	switch out := out.(type) {
	case nil:
		return nil
	case *[]byte:
		*out = data
		return nil
	}
	return envelope.Decode(data, out)
}

func wantCode(t *testing.T, err error, code policies.Code) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Errorf("got %v, want %s", err, code)
	}
	if p := (*problem.Problem)(nil); code == policies.CodeUnavailable && errors.As(err, &p) && p.RetryAfter == 0 {
		t.Errorf("%v does not say when to come back", err)
	}
}

func (p *party) owner() policies.OwnerID { return policies.OwnerID(p.id) }

func (p *party) slot(f policies.Field, epoch uint64) policies.Slot {
	return policies.Slot{Owner: p.owner(), Field: f, Epoch: epoch, Author: policies.AuthorID(p.id)}
}

func (p *party) fieldKey(f policies.Field, epoch uint64) *pre.FieldKey {
	p.w.t.Helper()
	k, err := p.root.FieldKey(p.slot(f, epoch))
	p.w.must(err)
	return k
}

// set seals a new version of a field and returns the item to publish.
func (p *party) set(f policies.Field, value string) api.Item {
	p.w.t.Helper()
	old := p.leaves[f]
	leaf, body, err := p.fieldKey(f, max(old.Epoch, 1)).Seal(old.Version+1, []byte(value), nil)
	p.w.must(err)
	p.leaves[f], p.bodies[f] = leaf, body
	return api.Item{Leaf: leaf.Bytes(), Ciphertext: body}
}

// rotate moves a field's capsule to the next epoch; the ciphertext stays.
func (p *party) rotate(f policies.Field) api.Item {
	p.w.t.Helper()
	old := p.leaves[f]
	leaf, err := p.fieldKey(f, old.Epoch).Rotate(p.fieldKey(f, old.Epoch+1), &old, nil)
	p.w.must(err)
	p.leaves[f] = leaf
	return api.Item{Leaf: leaf.Bytes()}
}

// sign signs the next manifest over the party's leaves as they are now, without counting on it.
func (p *party) sign() *envelope.Envelope {
	p.w.t.Helper()
	leaves := make([]policies.Leaf, 0, len(p.leaves))
	for _, l := range p.leaves {
		leaves = append(leaves, l)
	}
	tree, err := policies.NewTree(leaves)
	p.w.must(err)
	env, err := policies.Sign(p.signer, &policies.Manifest{
		Header: policies.NewHeader("manifest", time.Now()), Audience: p.w.doc.Vault, Owner: p.owner(), Author: policies.AuthorID(p.id),
		Link: policies.Link{Seq: p.seq + 1, Prev: p.prev}, Version: p.version + 1, PrevManifest: p.manifest, TreeSize: tree.Size(), Root: tree.Root(),
	})
	p.w.must(err)
	return env
}

func (p *party) signed(env *envelope.Envelope) {
	p.seq++
	p.prev = env.Hash
	if env.Type == "manifest" {
		p.version++
		p.manifest = env.Hash
	}
}

func (p *party) post(env *envelope.Envelope, items []api.Item, removed ...policies.Field) error {
	p.w.t.Helper()
	var r evidence.Receipt
	err := p.do("POST", fill(api.PathManifests, p.owner()), api.Publication{Manifest: env.Raw, Items: items, Removed: removed}, &r)
	if err != nil {
		return err
	}
	_, _, _, err = r.Verify(p.w.doc, env.Hash)
	return err
}

// publish publishes and demands success.
func (p *party) publish(items []api.Item, removed ...policies.Field) *envelope.Envelope {
	p.w.t.Helper()
	for _, f := range removed {
		delete(p.leaves, f)
	}
	env := p.sign()
	p.w.must(p.post(env, items, removed...))
	p.signed(env)
	return env
}

func (p *party) all() []api.Item {
	var items []api.Item
	for f, l := range p.leaves {
		items = append(items, api.Item{Leaf: l.Bytes(), Ciphertext: p.bodies[f]})
	}
	return items
}

// grant signs a grant of fields at their present epoch.
func (p *party) grant(reader *party, purpose string, fields ...policies.Field) (*policies.Grant, vaultapi.Submission) {
	p.w.t.Helper()
	key := reader.root.ReaderKey(p.owner(), policies.Nonce{1})
	ct, secret, err := pre.NewGrantSecret(key.Public(), nil)
	p.w.must(err)
	g := &policies.Grant{
		Header: policies.NewHeader("grant", time.Now()), Audience: p.w.doc.Vault, Owner: p.owner(), Link: policies.Link{Seq: p.seq + 1, Prev: p.prev},
		Reader: policies.ReaderID(reader.id), Relationship: policies.Hash{1}, Custody: policies.CustodyResident, Rights: []policies.Right{policies.RightRead},
		Purpose: purpose, NotBefore: time.Now().Unix() - 5, Expires: time.Now().Unix() + 3600, Ciphertext: ct,
	}
	wrapped := make(map[policies.Field][]byte)
	for _, f := range fields {
		rk, err := secret.ReEncryptionKey(g.ID, g.Reader, p.fieldKey(f, p.leaves[f].Epoch))
		p.w.must(err)
		wrapped[f] = rk.PKCS8()
		g.Fields = append(g.Fields, policies.GrantedField{Field: f, Epoch: p.leaves[f].Epoch, Author: policies.AuthorID(p.id), Keys: []policies.WrappedKey{{
			Token: "soft", ImportKey: policies.HashKey([]byte("an import key")), Path: "oaep-direct", Digest: sha256.Sum256(wrapped[f]),
		}}})
	}
	env, err := policies.Sign(p.signer, g)
	p.w.must(err)
	sub := vaultapi.Submission{Envelope: env.Raw}
	for _, f := range fields {
		info, err := pre.ImportInfo(p.w.doc.Vault, env.Hash, f, p.leaves[f].Epoch, policies.AuthorID(p.id))
		p.w.must(err)
		sealed, err := pre.SealBlob(p.w.doc.ImportHPKE, info, wrapped[f])
		p.w.must(err)
		sub.Keys = append(sub.Keys, vaultapi.SealedKey{Field: f, Author: policies.AuthorID(p.id), Token: "soft", Sealed: sealed})
	}
	return g, sub
}

func (p *party) submit(path string, sub vaultapi.Submission) error {
	p.w.t.Helper()
	env, err := envelope.Parse(sub.Envelope)
	p.w.must(err)
	var r evidence.Receipt
	if err := p.do("POST", fill(path, p.owner()), sub, &r); err != nil {
		return err
	}
	if _, _, _, err := r.Verify(p.w.doc, env.Hash); err != nil {
		return err
	}
	if env.Hash != p.prev {
		p.signed(env)
	}
	return nil
}

// give grants and demands success.
func (p *party) give(reader *party, purpose string, fields ...policies.Field) *policies.Grant {
	p.w.t.Helper()
	g, sub := p.grant(reader, purpose, fields...)
	p.w.must(p.submit(api.PathGrants, sub))
	return g
}

func (p *party) revocation(g *policies.Grant, fields ...policies.Field) vaultapi.Submission {
	p.w.t.Helper()
	d := &policies.Revocation{
		Header: policies.NewHeader("revocation", time.Now()), Audience: p.w.doc.Vault, Owner: p.owner(),
		Link: policies.Link{Seq: p.seq + 1, Prev: p.prev}, Reason: policies.ReasonWithdrawn,
	}
	for _, f := range fields {
		d.Items = append(d.Items, policies.RevokedItem{Grant: g.ID, Field: f, Author: policies.AuthorID(p.id)})
	}
	env, err := policies.Sign(p.signer, d)
	p.w.must(err)
	return vaultapi.Submission{Envelope: env.Raw}
}

func (p *party) openSession() {
	p.w.t.Helper()
	p.sessKey = envelope.NewSessionKey()
	ct, secret, err := pre.EncapsulateSession(p.w.doc.SessionKEM, nil)
	p.w.must(err)
	p.session = &policies.Session{
		Header: policies.NewHeader("session", time.Now()), Audience: p.w.doc.Vault, Reader: policies.ReaderID(p.id), Key: p.sessKey.Public(),
		NotBefore: time.Now().Unix(), Expires: time.Now().Unix() + 600, Ciphertext: ct,
	}
	env, err := policies.Sign(p.signer, p.session)
	p.w.must(err)
	var r evidence.Receipt
	p.w.must(p.do("POST", api.PathSessions, env.Raw, &r))
	p.hash = env.Hash
	p.k = secret.Key(p.w.doc.Vault, policies.ReaderID(p.id), env.Hash)
}

func (p *party) readRequest(purpose string, items ...policies.ReadItem) *envelope.Envelope {
	p.w.t.Helper()
	now := time.Now()
	env, err := policies.Sign(p.sessKey, &policies.ReadRequest{
		Header: policies.NewHeader("read", now), Audience: p.w.doc.Vault, Session: p.hash, Nonce: policies.NewNonce(),
		Expires: now.Unix() + 60, Purpose: purpose, Items: items,
	})
	p.w.must(err)
	return env
}

// read reads and opens the vault's answer.
func (p *party) read(purpose string, have []policies.Hash, items ...policies.ReadItem) (*api.ReadResult, *policies.Answer, error) {
	p.w.t.Helper()
	env := p.readRequest(purpose, items...)
	var out api.ReadResult
	if err := p.open("POST", api.PathReads, api.Read{Request: env.Raw, Have: have}, &out); err != nil {
		return nil, nil, err
	}
	plain, err := p.k.OpenAnswer(env.Hash, out.Answer)
	p.w.must(err)
	answer, err := policies.ParseAnswer(plain)
	p.w.must(err)
	return &out, answer, nil
}

// value opens one released item, checking it as a reader must.
func (p *party) value(owner *party, g *policies.Grant, out *api.ReadResult, answer *policies.Answer, i int) (string, error) {
	p.w.t.Helper()
	it, a := &out.Items[i], &answer.Items[i]
	if a.Outcome != policies.CodeReleased {
		return "", a.Outcome
	}
	leaf, err := policies.ParseLeaf(it.Leaf)
	if err != nil {
		return "", err
	}
	if leaf.Hash() != a.Leaf || it.Manifest != a.Head {
		return "", errors.New("the storefront's leaf or manifest is not the vault's")
	}
	secret, err := p.root.ReaderKey(owner.owner(), policies.Nonce{1}).OpenGrant(g.Ciphertext)
	if err != nil {
		return "", err
	}
	value, err := secret.Open(g.ID, g.Reader, &leaf, a.X, it.Ciphertext)
	return string(value), err
}
