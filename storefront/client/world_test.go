package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront"
	"github.com/sallyport/sallyport/storefront/client/profile"
	"github.com/sallyport/sallyport/storefront/internal/store"
	"github.com/sallyport/sallyport/vault"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/keylog"
	"github.com/sallyport/sallyport/vault/pre"
)

// world is a real vault with a key-use log and a real storefront with its store, both behind TLS. Only the token is software. What
// the storefront answers can be replaced, which is what a hostile one does.
type world struct {
	before  atomic.Pointer[func()]
	t       *testing.T
	vault   *vault.Vault
	doc     *policies.VaultDocument
	network Network
	logKey  ed25519.PrivateKey // of the log, for tests that make another one
	token   *softToken

	operators []policies.IdentityID // two, once there are (see freeze)

	mu     sync.Mutex
	hook   func(w http.ResponseWriter, r *http.Request, next http.Handler) // of the storefront; nil: honest
	owners bool                                                            // the second route answers
	says   error                                                           // what it answers to every document; nil: the vault decides
}

// softToken unwraps with RSA-OAEP and derives, in software. Its sealing of keys seals nothing: that is for others to test.
type softToken struct {
	vault.Token // what is not below is not asked for

	private *rsa.PrivateKey
	mu      sync.Mutex
	keys    map[vault.KeyID]*pre.ReEncryptionKey
}

func (k *softToken) Import(_ context.Context, keys []vault.WrappedKey) []vault.Imported {
	found := make([]vault.Imported, len(keys))
	for i, w := range keys {
		found[i].Check, found[i].Err = k.importOne(w.Key, w.Wrapped)
	}
	return found
}

func (k *softToken) importOne(id vault.KeyID, wrapped []byte) (vault.KeyCheck, error) {
	pkcs8, err := rsa.DecryptOAEP(sha1.New(), nil, k.private, wrapped, nil)
	if err != nil {
		return vault.KeyCheck{}, err
	}
	key, err := pre.ParseReEncryptionKey(pkcs8)
	if err != nil {
		return vault.KeyCheck{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys[id] != nil {
		return vault.KeyCheck{}, vault.ErrKeyExists
	}
	k.keys[id] = key
	return checkOf(key), nil
}

func (k *softToken) Derive(_ context.Context, uses []vault.Use) []vault.Derived {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]vault.Derived, len(uses))
	for i, u := range uses {
		key := k.keys[u.Key]
		if len(u.Sealed.Blob) > 0 {
			key, _ = pre.ParseReEncryptionKey(u.Sealed.Blob)
		}
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
	errs := make([]error, len(keys))
	for i, e := range keys {
		at, there := k.find(e.Key, e.Check)
		if there {
			delete(k.keys, at)
		}
		if there && at != e.Key {
			errs[i] = vault.ErrKeyRenamed
		}
	}
	return errs
}

// checkOf is a key's check value. A token hashes x(rk·G); any function of the key does here.
func checkOf(key *pre.ReEncryptionKey) vault.KeyCheck {
	g := policies.Capsule{3, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2,
		0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96}
	x, err := pre.Reencrypt(key, &g)
	if err != nil {
		panic(err)
	}
	return vault.KeyCheck(x[:])
}

// find is where a key is: under its name or, with a check value, under whatever name it has.
func (k *softToken) find(id vault.KeyID, check vault.KeyCheck) (at vault.KeyID, there bool) {
	if key := k.keys[id]; key != nil && (check == vault.KeyCheck{} || checkOf(key) == check) {
		return id, true
	}
	for other, key := range k.keys {
		if check != (vault.KeyCheck{}) && checkOf(key) == check {
			return other, true
		}
	}
	return id, false
}

func (k *softToken) Keys(context.Context) (held, disputed []vault.KeyID, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.keys {
		held = append(held, id)
	}
	return held, nil, nil
}

func (k *softToken) ImportSealed(_ context.Context, key vault.WrappedKey) (vault.SealedKey, error) {
	pkcs8, err := rsa.DecryptOAEP(sha1.New(), nil, k.private, key.Wrapped, nil)
	return vault.SealedKey{Period: 7, Blob: pkcs8}, err
}

func (k *softToken) Forget(context.Context, vault.KeyID) error          { return nil }
func (k *softToken) SealingKeys(context.Context) ([]uint32, int, error) { return []uint32{7}, 0, nil }

func (k *softToken) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.keys)
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

// adapter gives the vault the methods that the storefront expects of a client.
type adapter struct {
	v      *vault.Vault
	before *atomic.Pointer[func()] // run once, between the storefront's choice and the vault's decision of a read
}

func (a adapter) Submit(ctx context.Context, s vaultapi.Submission) (*evidence.Receipt, error) {
	return a.v.Submit(ctx, s)
}
func (a adapter) Reencrypt(ctx context.Context, c vaultapi.Call) (vaultapi.Reply, error) {
	if f := a.before.Swap(nil); f != nil {
		(*f)()
	}
	return a.v.Reencrypt(ctx, []vaultapi.Call{c})[0], nil
}
func (a adapter) Vault(context.Context) (*envelope.Envelope, error) { return a.v.Document(), nil }
func (a adapter) Chain(_ context.Context, o policies.OwnerID) (*vaultapi.ChainState, error) {
	return a.v.Chain(o)
}
func (a adapter) Head(_ context.Context, o policies.OwnerID, w policies.AuthorID) (*vaultapi.HeadState, error) {
	return a.v.Head(o, w)
}
func (a adapter) History(_ context.Context, o policies.OwnerID, before uint64, limit int) (*vaultapi.History, error) {
	return a.v.History(o, before, limit)
}
func (a adapter) Freeze(_ context.Context, o policies.OwnerID) (*vaultapi.FreezeState, error) {
	return a.v.Freeze(o)
}
func (a adapter) Evidence(ctx context.Context, request []byte) (*vaultapi.SealedEvidence, error) {
	sealed, err := a.v.Evidence(ctx, request)
	if err != nil {
		return nil, err
	}
	return &vaultapi.SealedEvidence{Answer: sealed}, nil
}
func (a adapter) Consistency(_ context.Context, from, to uint64) (*vaultapi.Consistency, error) {
	return a.v.Consistency(from, to)
}
func (a adapter) Health(context.Context) (*vaultapi.Health, error) {
	h := a.v.Health()
	return &h, nil
}

var importKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		panic(err)
	}
	return k
})

func newWorld(t *testing.T) *world { return newWorldOf(t, policies.CustodyResident) }

// newWorldOf is a world whose vault offers these custodies.
func newWorldOf(t *testing.T, custodies ...policies.Custody) *world {
	t.Helper()
	ctx, dir := context.Background(), t.TempDir()
	w := &world{t: t, owners: true, operators: make([]policies.IdentityID, 2), token: &softToken{private: importKey(), keys: map[vault.KeyID]*pre.ReEncryptionKey{}}}
	_, logKey, _ := ed25519.GenerateKey(nil)
	w.logKey = logKey
	hpke, session := pre.NewBlobKey([32]byte{1}), pre.NewVaultKey([32]byte{2})
	ceremony := envelope.NewPrivateKey(&[envelope.SeedSize]byte{3})
	spki, err := x509.MarshalPKIXPublicKey(importKey().Public())
	w.must(err)
	var imports []policies.ImportKey
	for _, custody := range custodies {
		imports = append(imports, policies.ImportKey{Custody: custody, Path: "oaep-direct", OAEPHash: "SHA-1", PublicKey: spki})
	}
	w.doc = &policies.VaultDocument{
		Header: policies.NewHeader("vault", time.Now()), Vault: policies.VaultID{9}, Version: 2, CeremonyKey: ceremony.Public().Bytes(),
		Tokens:     []policies.TokenEntry{{Serial: "soft", Label: "soft", Grade: "unproven", ImportKeys: imports}},
		LogKey:     policies.LogKey{Name: "client.test/log", Algorithm: "Ed25519", PublicKey: logKey.Public().(ed25519.PublicKey)},
		LogHostKey: policies.LogKey{Name: "client.test/log/host", Algorithm: "ML-DSA-44", PublicKey: bytes.Repeat([]byte{9}, policies.LogHostKeySize)},
		ImportHPKE: hpke.Public(), SessionKEM: session.Public(), DevMode: true,
	}
	signed, err := policies.Sign(ceremony, w.doc)
	w.must(err)
	log, err := keylog.Create(ctx, keylog.Config{
		Dir: filepath.Join(dir, "log"), StateDir: filepath.Join(dir, "signer"), Origin: w.doc.LogKey.Name,
		PublicKey: w.doc.LogKey.PublicKey, Signer: logSigner{logKey}, State: &stateKeeper{}, Reserve: 1,
	})
	w.must(err)
	w.must(vault.Create(ctx, log, signed, w.doc))
	w.vault, err = vault.Open(ctx, vault.Config{
		Envelope: signed, Document: w.doc, Token: w.token, Serial: "soft", Grade: "unproven", Log: log, ImportKey: hpke, SessionKey: session,
		Keys: filepath.Join(dir, "keys"), Logger: slog.New(slog.DiscardHandler), Operators: w.operators,
	})
	w.must(err)
	db, err := store.Open(store.Options{Dir: filepath.Join(dir, "data"), Reserve: 64 << 20})
	w.must(err)
	front, err := storefront.New(storefront.Options{Store: db, Vault: adapter{w.vault, &w.before}, Names: []string{"127.0.0.1"}, Limits: storefront.Limits{
		OpenRate: 1e6, OpenBurst: 1e6, LoginRate: 1e6, LoginBurst: 1e6, FieldRate: 1e6, FieldBurst: 1e6,
	}})
	w.must(err)
	honest := front.Handler()
	public := w.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		hook := w.hook
		w.mu.Unlock()
		if hook != nil {
			hook(rw, r, honest)
			return
		}
		honest.ServeHTTP(rw, r)
	}))
	owners := w.serve(w.ownersListener())
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: public.Certificate().Raw})
	w.network = Network{
		Storefront: public.URL, Owners: owners.URL, Roots: string(roots), Vault: w.doc.Vault, Ceremony: policies.HashKey(w.doc.CeremonyKey),
	}
	t.Cleanup(func() {
		public.Close()
		owners.Close()
		front.Close()
		db.Close()
		w.vault.Close(ctx)
		log.Close()
	})
	return w
}

// emptyStorefront is another storefront on the same vault.
func (w *world) emptyStorefront() *httptest.Server {
	db, err := store.Open(store.Options{Dir: w.t.TempDir(), Reserve: 64 << 20})
	w.must(err)
	front, err := storefront.New(storefront.Options{Store: db, Vault: adapter{w.vault, &w.before}, Names: []string{"127.0.0.1"}})
	w.must(err)
	s := w.serve(front.Handler())
	w.t.Cleanup(func() {
		s.Close()
		front.Close()
		db.Close()
	})
	return s
}

func (w *world) serve(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	return s
}

// ownersListener is the vault's second route.
func (w *world) ownersListener() http.Handler {
	mux := http.NewServeMux()
	answer := func(rw http.ResponseWriter, v any, err error) {
		w.mu.Lock()
		up := w.owners
		w.mu.Unlock()
		if !up {
			err = problem.New(policies.CodeUnavailable, "down")
		}
		if err != nil {
			problem.Write(rw, err)
			return
		}
		b, _ := json.Marshal(v)
		rw.Write(b)
	}
	mux.HandleFunc("GET "+vaultapi.PathVault, func(rw http.ResponseWriter, _ *http.Request) { rw.Write(w.vault.Document().Raw) })
	mux.HandleFunc("GET "+vaultapi.PathLogConsistency, func(rw http.ResponseWriter, r *http.Request) {
		from, _ := strconv.ParseUint(r.FormValue("from"), 10, 64)
		to, _ := strconv.ParseUint(r.FormValue("to"), 10, 64)
		p, err := w.vault.Consistency(from, to)
		answer(rw, p, err)
	})
	mux.HandleFunc("POST "+vaultapi.PathEvidence, func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		sealed, err := w.vault.Evidence(r.Context(), body)
		answer(rw, vaultapi.SealedEvidence{Answer: sealed}, err)
	})
	mux.HandleFunc("POST "+vaultapi.PathDocuments, func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var s vaultapi.Submission
		if err := envelope.Decode(body, &s); err != nil {
			problem.Write(rw, err)
			return
		}
		w.mu.Lock()
		up := w.owners
		w.mu.Unlock()
		if !up {
			problem.Write(rw, problem.New(policies.CodeUnavailable, "down"))
			return
		}
		w.mu.Lock()
		err := w.says
		w.mu.Unlock()
		if err != nil {
			problem.Write(rw, err)
			return
		}
		receipt, err := w.vault.Submit(r.Context(), s)
		answer(rw, receipt, err)
	})
	mux.HandleFunc("POST "+vaultapi.PathFetch, func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var f vaultapi.Fetch
		if err := envelope.Decode(body, &f); err != nil {
			problem.Write(rw, err)
			return
		}
		page, err := w.vault.Fetch(f)
		answer(rw, page, err)
	})
	return mux
}

// hostile replaces what the storefront does, until the test calls it with nil.
func (w *world) hostile(hook func(http.ResponseWriter, *http.Request, http.Handler)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hook = hook
}

// hang answers nothing, when the caller is gone neither: an end of the answer might still be read then.
func hang(r *http.Request) {
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// closedSay has the storefront answer every owner, and what is asked after a closing, with a refusal, and the second route too.
func (w *world) closedSay(err error) {
	w.mu.Lock()
	w.says = err
	w.mu.Unlock()
	if err == nil {
		w.hostile(nil)
		return
	}
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, "/owners/") || strings.HasSuffix(r.URL.Path, "/successions") && r.Method == "POST" {
			problem.Write(rw, err)
			return
		}
		next.ServeHTTP(rw, r)
	})
}

// silent makes the storefront unreachable for the paths that hold the word.
func (w *world) silent(word string) {
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, word) {
			http.Error(rw, "silence", http.StatusBadGateway)
			return
		}
		next.ServeHTTP(rw, r)
	})
}

// rewrite changes the bodies of successful answers to one path.
func (w *world) rewrite(path string, change func([]byte) []byte) {
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if !strings.Contains(r.URL.Path, path) {
			next.ServeHTTP(rw, r)
			return
		}
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		if rec.Code < 300 {
			body = change(body)
		}
		rw.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
		rw.WriteHeader(rec.Code)
		rw.Write(body)
	})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// memory is a store that lasts as long as the test.
type memory struct {
	mu    sync.Mutex
	state []byte
	items map[policies.Hash][]byte
	saves int
	limit int // saves that succeed; 0: all
}

var errCrash = errors.New("the process was killed")

func (m *memory) Load() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.state), nil
}

func (m *memory) Save(b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.limit > 0 && m.saves >= m.limit {
		return errCrash
	}
	m.saves++
	m.state = bytes.Clone(b)
	return nil
}

func (m *memory) PutItem(h policies.Hash, b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.items == nil {
		m.items = map[policies.Hash][]byte{}
	}
	m.items[h] = bytes.Clone(b)
	return nil
}

func (m *memory) Item(h policies.Hash) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, ok := m.items[h]; ok {
		return bytes.Clone(b), nil
	}
	return nil, profile.ErrNoItem
}

func (m *memory) KeepItems(keep map[policies.Hash]bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for h := range m.items {
		if !keep[h] {
			delete(m.items, h)
		}
	}
	return nil
}

func (w *world) owner() (*Owner, *memory) {
	w.t.Helper()
	m := new(memory)
	o, err := InitOwner(context.Background(), m, w.network, Options{})
	w.must(err)
	return o, m
}

func (w *world) reader(name string) (*Reader, *memory) {
	w.t.Helper()
	m := new(memory)
	r, err := InitReader(context.Background(), m, w.network, policies.KindBusiness, name, Options{})
	w.must(err)
	return r, m
}

// connect makes the two meet.
func (w *world) connect(o *Owner, r *Reader, alias string) {
	w.t.Helper()
	code, err := o.Code()
	w.must(err)
	_, err = r.Connect(context.Background(), code, alias+"-customer")
	w.must(err)
	_, err = o.Connect(context.Background(), r.Code(), alias)
	w.must(err)
}

func set(f policies.Field, text string) Change { return Change{f, []byte(text)} }

// read asks for one field of one owner.
func (w *world) read(r *Reader, o *Owner, f policies.Field) Value {
	w.t.Helper()
	values, err := r.Read(context.Background(), Item{Owner: o.ID(), Field: f})
	w.must(err)
	return values[0]
}

func (w *world) wantRead(r *Reader, o *Owner, f policies.Field, text string) {
	w.t.Helper()
	if v := w.read(r, o, f); v.Err != nil || string(v.Bytes) != text {
		w.t.Fatalf("reading %s: %q, %v; want %q", f, v.Bytes, v.Err, text)
	}
}

func (w *world) wantRefusal(r *Reader, o *Owner, f policies.Field, want error) {
	w.t.Helper()
	if v := w.read(r, o, f); !errors.Is(v.Err, want) || v.Bytes != nil {
		w.t.Fatalf("reading %s: %q, error %v; want %v", f, v.Bytes, v.Err, want)
	}
}

func reopen(m *memory, w *world) *Owner {
	w.t.Helper()
	o, err := OpenOwner(m, Options{})
	w.must(err)
	return o
}

// reachable says whether the vault's own listener answers.
func (w *world) reachable(up bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owners = up
}
