package vault

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/internal/ledger"
	"github.com/sallyport/sallyport/vault/internal/sealed"
	"github.com/sallyport/sallyport/vault/keylog"
	"github.com/sallyport/sallyport/vault/pre"
)

const (
	testSerial  = "0123456789abcdef"
	testPath    = "in-the-clear" // the software token takes PKCS#8 as it is
	testPurpose = "delivery"
)

// softToken is a token in software: the mathematics of pre behind the interface of a device.
type softToken struct {
	mu       sync.Mutex
	keys     map[KeyID]*pre.ReEncryptionKey
	sealing  map[uint32][16]byte // sealing keys by period
	decoys   int                 // keys that call themselves sealing keys
	forgot   map[KeyID]bool
	stuck    map[KeyID]bool
	refuses  map[KeyID]bool // to destroy them
	disputed []KeyID
	late     bool // it says that keys are under sealing key 1
	derives  int
	loads    int                   // sealed keys that came along
	hook     func(op string) error // called before and after each operation, as "import", "imported", ...
}

func (s *softToken) call(op string) error {
	if s.hook == nil {
		return nil
	}
	return s.hook(op)
}

func (s *softToken) Import(_ context.Context, keys []WrappedKey) []Imported {
	found := make([]Imported, len(keys))
	var all sync.WaitGroup
	for i, k := range keys {
		all.Go(func() { found[i].Check, found[i].Err = s.importOne(k.Key, k.Path, k.Wrapped) })
	}
	all.Wait()
	return found
}

func (s *softToken) importOne(key KeyID, path string, wrapped []byte) (KeyCheck, error) {
	if err := s.call("import"); err != nil {
		return KeyCheck{}, err
	}
	s.mu.Lock()
	if s.keys[key] != nil {
		s.mu.Unlock()
		return KeyCheck{}, ErrKeyExists
	}
	rk, err := pre.ParseReEncryptionKey(wrapped)
	if err != nil || path != testPath {
		s.mu.Unlock()
		return KeyCheck{}, fmt.Errorf("refused: %v", err)
	}
	s.keys[key] = rk
	s.mu.Unlock()
	return checkOf(rk), s.call("imported")
}

func (s *softToken) Derive(_ context.Context, uses []Use) []Derived {
	out := make([]Derived, len(uses))
	err := s.call("derive")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.derives += len(uses)
	for i, u := range uses {
		if err != nil {
			out[i].Err = err
			continue
		}
		rk := s.keys[u.Key]
		if len(u.Sealed.Blob) > 0 && !s.forgot[u.Key] {
			s.loads++
			rk = s.unwrap(u.Sealed)
		}
		if rk == nil {
			out[i].Err = ErrKeyMissing
			continue
		}
		var c policies.Capsule
		c[0] = 2 | u.Point[64]&1
		copy(c[1:], u.Point[1:33])
		out[i].X, out[i].Err = pre.Reencrypt(rk, &c)
	}
	return out
}

func (s *softToken) Destroy(_ context.Context, keys []EndingKey) []error {
	errs := make([]error, len(keys))
	for i, k := range keys {
		errs[i] = s.destroyOne(k.Key, k.Check)
	}
	return errs
}

func (s *softToken) destroyOne(key KeyID, check KeyCheck) error {
	if err := s.call("destroy"); err != nil {
		return err
	}
	s.mu.Lock()
	if s.stuck[key] {
		s.mu.Unlock()
		return errors.New("device error")
	}
	at, there := s.find(key, check)
	if there && s.refuses[at] {
		s.mu.Unlock()
		return ErrKeyStuck
	}
	if there {
		delete(s.keys, at)
	}
	s.mu.Unlock()
	switch err := s.call("destroyed"); {
	case err != nil:
		return err
	case !there:
		return ErrKeyMissing
	case at != key:
		return ErrKeyRenamed
	}
	return nil
}

// checkOf is a key's check value. A token hashes x(rk·G); any function of the key does here.
func checkOf(key *pre.ReEncryptionKey) KeyCheck {
	g := policies.Capsule{3, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2,
		0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96}
	x, err := pre.Reencrypt(key, &g)
	if err != nil {
		panic(err)
	}
	return KeyCheck(x[:])
}

// find is where a key is: under its name or, with a check value, under whatever name it has.
func (s *softToken) find(id KeyID, check KeyCheck) (at KeyID, there bool) {
	if key := s.keys[id]; key != nil && (check == KeyCheck{} || checkOf(key) == check) {
		return id, true
	}
	for other, key := range s.keys {
		if check != (KeyCheck{}) && checkOf(key) == check {
			return other, true
		}
	}
	return id, false
}

func (s *softToken) Keys(context.Context) (held, disputed []KeyID, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.keys)), s.disputed, nil
}

func (s *softToken) newest() (newest uint32) {
	for p := range s.sealing {
		newest = max(newest, p)
	}
	return newest
}

func (s *softToken) wrap(rk *pre.ReEncryptionKey) SealedKey {
	period := s.newest()
	return SealedKey{Period: period, Blob: sealer(s.sealing[period]).Seal(nil, make([]byte, 12), rk.PKCS8(), nil)}
}

// unwrap returns nil for what it did not wrap, or not under a sealing key that is left.
func (s *softToken) unwrap(k SealedKey) *pre.ReEncryptionKey {
	key, ok := s.sealing[k.Period]
	if !ok {
		return nil
	}
	plain, err := sealer(key).Open(nil, make([]byte, 12), k.Blob, nil)
	if err != nil {
		return nil
	}
	rk, err := pre.ParseReEncryptionKey(plain)
	if err != nil {
		return nil
	}
	return rk
}

func sealer(key [16]byte) cipher.AEAD {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func (s *softToken) ImportSealed(_ context.Context, key WrappedKey) (SealedKey, error) {
	if err := s.call("import"); err != nil {
		return SealedKey{}, err
	}
	s.mu.Lock()
	rk, err := pre.ParseReEncryptionKey(key.Wrapped)
	if err != nil || key.Path != testPath {
		s.mu.Unlock()
		return SealedKey{}, fmt.Errorf("refused: %v", err)
	}
	k := s.wrap(rk)
	if s.late {
		k.Period = 1
	}
	s.mu.Unlock()
	return k, s.call("imported")
}

func (s *softToken) Forget(_ context.Context, key KeyID) error {
	if err := s.call("forget"); err != nil {
		return err
	}
	s.mu.Lock()
	stuck := s.stuck[key]
	s.forgot[key] = !stuck
	s.mu.Unlock()
	if stuck {
		return errors.New("device error")
	}
	return s.call("forgot")
}

func (s *softToken) Reseal(_ context.Context, keys []SealedKey) ([]SealedKey, error) {
	if err := s.call("reseal"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	out := make([]SealedKey, len(keys))
	for i := range keys {
		rk := s.unwrap(keys[i])
		if rk == nil {
			s.mu.Unlock()
			return nil, ErrKeyMissing
		}
		out[i] = s.wrap(rk)
	}
	s.mu.Unlock()
	return out, s.call("resealed")
}

// SealingKeys calls no hook: the mover asks whenever it likes, also while a test sets one. A test sets it before it makes a sealing key.
func (s *softToken) SealingKeys(context.Context) (periods []uint32, decoys int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.sealing)), s.decoys, nil
}

func (s *softToken) DestroySealingKey(_ context.Context, period uint32) error {
	if err := s.call("destroy sealing key"); err != nil {
		return err
	}
	s.mu.Lock()
	if period == s.newest() {
		s.mu.Unlock()
		return errors.New("refused: it is the newest")
	}
	delete(s.sealing, period)
	s.mu.Unlock()
	return s.call("destroyed sealing key")
}

// newSealingKey is what the security officer does, in a process of its own.
func (s *softToken) newSealingKey() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	period := s.newest() + 1
	var key [16]byte
	rand.Read(key[:])
	s.sealing[period] = key
	return period
}

// periods are those of the sealing keys that are left.
func (s *softToken) periods() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.sealing))
}

// newSoftToken has one sealing key.
func newSoftToken() *softToken {
	s := &softToken{keys: map[KeyID]*pre.ReEncryptionKey{}, sealing: map[uint32][16]byte{}, forgot: map[KeyID]bool{}}
	s.newSealingKey()
	return s
}

func (s *softToken) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.derives
}

// logKey signs checkpoints and keeps the signer's state, as a token would.
type logKey struct {
	key   ed25519.PrivateKey
	mu    sync.Mutex
	state []byte
	hook  func() error
}

func (k *logKey) Sign(_ context.Context, msg []byte) ([]byte, error) {
	if k.hook != nil {
		if err := k.hook(); err != nil {
			return nil, err
		}
	}
	return ed25519.Sign(k.key, msg), nil
}

func (k *logKey) Save(_ context.Context, b []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = slices.Clone(b)
	return nil
}

func (k *logKey) Load(context.Context) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.state), nil
}

// testClock is a wall clock that a test moves. The log's monotonic clock moves along, so the log sees no step, unless it is told to step.
type testClock struct {
	mu      sync.Mutex
	ahead   time.Duration
	stepped time.Duration // of ahead, what the monotonic clock does not know
	start   time.Time
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *testClock) both() (time.Time, time.Duration) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Round(0), now.Add(-c.stepped).Sub(c.start)
}

// step is what somebody does who sets the machine's clock.
func (c *testClock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead, c.stepped = c.ahead+d, c.stepped+d
}

func (c *testClock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// world is a vault with everything around it.
type world struct {
	t         testing.TB
	dir       string
	document  *policies.VaultDocument
	envelope  *envelope.Envelope
	token     *softToken
	logKey    *logKey
	clock     *testClock
	log       *keylog.Log
	vault     *Vault
	check     time.Duration // for new sealing keys; zero: not within a test
	limits    Limits
	auditors  []policies.IdentityID
	operators []policies.IdentityID
	keep      time.Duration    // of bodies
	said      io.Writer        // what the vault logs
	custody   policies.Custody // of the grants that owners make
}

func newWorld(t testing.TB) *world {
	_, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	w := &world{t: t, dir: t.TempDir(), token: newSoftToken(), logKey: &logKey{key: private},
		said: io.Discard, custody: policies.CustodyResident}
	w.clock = &testClock{start: time.Now()}
	ceremony := newSigner(1)
	w.document = &policies.VaultDocument{
		Header: policies.NewHeader("vault", time.Now()), Vault: policies.VaultID{7}, Version: 1, CeremonyKey: publicBytes(ceremony),
		Tokens: []policies.TokenEntry{{Serial: testSerial, Label: "test", Grade: "unproven", ImportKeys: []policies.ImportKey{
			{Custody: policies.CustodyResident, Path: testPath, OAEPHash: "SHA-1", PublicKey: []byte("an import key")},
			{Custody: policies.CustodySealed, Path: testPath, OAEPHash: "SHA-1", PublicKey: []byte("another import key")},
		}}},
		LogKey:     policies.LogKey{Name: "vault.test/log", Algorithm: "Ed25519", PublicKey: private.Public().(ed25519.PublicKey)},
		LogHostKey: policies.LogKey{Name: "vault.test/log/host", Algorithm: "ML-DSA-44", PublicKey: hostKey("vault.test/log/host").Cosigner().PublicKey},
		ImportHPKE: pre.NewBlobKey([32]byte{1}).Public(), SessionKEM: pre.NewVaultKey([32]byte{2}).Public(),
	}
	w.envelope, err = policies.Sign[policies.VaultDocument](ceremony, w.document)
	must(t, err)
	w.log, err = keylog.Create(t.Context(), w.logConfig())
	must(t, err)
	must(t, Create(t.Context(), w.log, w.envelope, w.document))
	w.open()
	t.Cleanup(func() {
		if w.vault != nil {
			w.kill()
		}
	})
	return w
}

// hostKey is the same in every run.
func hostKey(name string) *evidence.CosignerKey {
	k, err := evidence.NewCosignerKey(name, &[32]byte{9})
	if err != nil {
		panic(err)
	}
	return k
}

func (w *world) logConfig() keylog.Config {
	return keylog.Config{
		Dir: filepath.Join(w.dir, "log"), StateDir: filepath.Join(w.dir, "signer"), Origin: w.document.LogKey.Name,
		PublicKey: w.document.LogKey.PublicKey, Signer: w.logKey, State: w.logKey, Clock: w.clock.both, Reserve: 1 << 20,
	}
}

func (w *world) config() Config {
	return Config{
		Envelope: w.envelope, Document: w.document, Token: w.token, Serial: testSerial, Grade: "unproven", Log: w.log,
		ImportKey: pre.NewBlobKey([32]byte{1}), SessionKey: pre.NewVaultKey([32]byte{2}),
		Dir: filepath.Join(w.dir, "db"), Keys: filepath.Join(w.dir, "keys"), SealingCheck: cmp.Or(w.check, time.Hour), DataKey: [32]byte{3}, Limits: w.limits, Auditors: w.auditors, Operators: w.operators, KeepBodies: w.keep,
		Logger: slog.New(slog.NewTextHandler(w.said, nil)), Clock: w.clock.now,
	}
}

func (w *world) open() {
	w.t.Helper()
	var err error
	w.vault, err = Open(context.Background(), w.config())
	must(w.t, err)
}

// eachCustody runs a test for grants of each custody.
func eachCustody(t *testing.T, test func(*testing.T, *world)) {
	for _, custody := range []policies.Custody{policies.CustodyResident, policies.CustodySealed} {
		t.Run(string(custody), func(t *testing.T) {
			w := newWorld(t)
			w.custody = custody
			test(t, w)
		})
	}
}

// held is how many keys of the world's custody are kept.
func (w *world) held() int {
	if w.custody == policies.CustodySealed {
		return len(w.vault.sealing.store.IDs())
	}
	w.token.mu.Lock()
	defer w.token.mu.Unlock()
	return len(w.token.keys)
}

func (w *world) holds(key KeyID) bool {
	if w.custody == policies.CustodySealed {
		_, ok := w.vault.sealing.store.Period(sealed.ID(key))
		return ok
	}
	w.token.mu.Lock()
	defer w.token.mu.Unlock()
	return w.token.keys[key] != nil
}

// plant leaves a key behind that no grant stands for.
func (w *world) plant(key, like KeyID) {
	if w.custody == policies.CustodySealed {
		k, err := w.vault.sealing.store.Get(sealed.ID(like))
		must(w.t, err)
		must(w.t, w.vault.sealing.store.Put(sealed.ID(key), k))
		return
	}
	w.token.keys[key] = w.token.keys[like]
}

// loseKeys removes all keys behind the vault's back.
func (w *world) loseKeys() {
	clear(w.token.keys)
	must(w.t, w.vault.sealing.store.Delete(w.vault.sealing.store.IDs()...))
}

// kill stops the vault without a word: no stop entry, no flush of the database.
func (w *world) kill() {
	v := w.vault
	close(v.closing)
	v.chores.Wait()
	v.mu.Lock()
	v.closed = true
	close(v.decisions)
	v.mu.Unlock()
	v.recorder.Wait()
	v.release()
	w.log.Close()
	w.vault = nil
}

// restart kills the vault and opens it from what is on disk, without the database if it is to be gone.
func (w *world) restart(database bool) {
	w.t.Helper()
	w.kill()
	w.reopen(database)
}

func (w *world) reopen(database bool) {
	w.t.Helper()
	if !database {
		must(w.t, os.RemoveAll(filepath.Join(w.dir, "db")))
	}
	var err error
	w.log, err = keylog.Open(w.t.Context(), w.logConfig())
	must(w.t, err)
	w.open()
}

// snapshot is the world as a crash at this moment would leave it.
func (w *world) snapshot(t testing.TB) *world {
	c := *w
	c.t, c.dir, c.vault = t, t.TempDir(), nil
	copyFolder(t, c.dir, w.dir)
	c.logKey = &logKey{key: w.logKey.key}
	c.logKey.state, _ = w.logKey.Load(context.Background())
	c.token = newSoftToken()
	w.token.mu.Lock()
	c.token.sealing = maps.Clone(w.token.sealing)
	for k, rk := range w.token.keys {
		c.token.keys[k] = rk
	}
	w.token.mu.Unlock()
	return &c
}

// copyFolder copies files with their holes: Badger's are mostly holes.
func copyFolder(t testing.TB, to, from string) {
	t.Helper()
	must(t, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.Create(filepath.Join(to, rel))
		if err != nil {
			return err
		}
		defer out.Close()
		info, err := in.Stat()
		if err != nil {
			return err
		}
		for data := int64(0); data < info.Size(); {
			if data, err = unix.Seek(int(in.Fd()), data, unix.SEEK_DATA); err != nil {
				break // a hole up to the end
			}
			hole, err := unix.Seek(int(in.Fd()), data, unix.SEEK_HOLE)
			if err != nil {
				return err
			}
			chunk := make([]byte, hole-data)
			if _, err := in.ReadAt(chunk, data); err != nil {
				return err
			}
			if _, err := out.WriteAt(chunk, data); err != nil {
				return err
			}
			data = hole
		}
		return out.Truncate(info.Size())
	}))
}

// records are the log's, decoded.
func (w *world) records() []*ledger.Record {
	w.t.Helper()
	var out []*ledger.Record
	must(w.t, w.log.Replay(context.Background(), 0, func(p keylog.Position, raw keylog.Record) error {
		raw.Body = slices.Clone(raw.Body)
		r, err := ledger.Decode(p, raw)
		out = append(out, r)
		return err
	}))
	return out
}

func (w *world) submit(s api.Submission) (*evidence.Receipt, error) {
	return w.vault.Submit(context.Background(), s)
}

// accepted submits a document and verifies the receipt as a client does.
func (w *world) accepted(s api.Submission) *evidence.Receipt {
	w.t.Helper()
	receipt, err := w.submit(s)
	if err != nil {
		w.t.Fatalf("submitting: %v", err)
	}
	e, err := envelope.Parse(s.Envelope)
	must(w.t, err)
	if _, _, _, err := receipt.Verify(w.document, e.Hash); err != nil {
		w.t.Fatalf("receipt: %v", err)
	}
	return receipt
}

func newSigner(seed byte) *envelope.PrivateKey {
	return envelope.NewPrivateKey(&[envelope.SeedSize]byte{seed, 1})
}

func publicBytes(k *envelope.PrivateKey) []byte { return k.Public().Bytes() }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// party is an enrolled identity.
type party struct {
	w   *world
	key *envelope.PrivateKey
	id  policies.IdentityID

	recovery *envelope.PrivateKey
}

func recoveryKey(seed byte) *envelope.PrivateKey {
	return envelope.NewPrivateKey(&[envelope.SeedSize]byte{seed, 2})
}

// parties counts those that the tests of this process made. Each has keys that no other has, and that none of newSigner and recoveryKey are.
var parties uint16

func newParty() (key, recovery *envelope.PrivateKey, kem []byte) {
	parties++
	return envelope.NewPrivateKey(&[envelope.SeedSize]byte{byte(parties), 3, byte(parties >> 8)}), envelope.NewPrivateKey(&[envelope.SeedSize]byte{byte(parties), 4, byte(parties >> 8)}), partyKEM()
}

// partyKEM is the key of the party that was made last.
func partyKEM() []byte {
	return pre.NewBlobKey([32]byte{byte(parties), 3, byte(parties >> 8)}).Public()
}

func (w *world) enrol() party {
	w.t.Helper()
	p, s := w.identity()
	w.accepted(s)
	return p
}

func (w *world) identity() (party, api.Submission) {
	w.t.Helper()
	key, recovery, kem := newParty()
	e, err := policies.Sign[policies.Identity](key, &policies.Identity{
		Header: policies.NewHeader("identity", time.Now()), Kind: policies.KindPerson, SigningKey: publicBytes(key),
		KEMKey: kem, LoginKey: kem, RecoveryHash: policies.HashKey(publicBytes(recovery)),
	})
	must(w.t, err)
	return party{w, key, policies.IdentityID(e.Hash), recovery}, api.Submission{Envelope: e.Raw}
}

// owner is a person with fields.
type owner struct {
	party
	root     *pre.Root
	seq      uint64
	prev     policies.Hash
	version  uint64
	manifest policies.Hash
	leaves   map[policies.Field]policies.Leaf
	texts    map[policies.Hash][]byte // ciphertexts
	tree     *policies.Tree
}

func (w *world) owner() *owner {
	w.t.Helper()
	root, err := pre.NewRoot()
	must(w.t, err)
	o := &owner{party: w.enrol(), root: root, leaves: map[policies.Field]policies.Leaf{}, texts: map[policies.Hash][]byte{}}
	o.prev = policies.Hash(o.id)
	return o
}

func (o *owner) fieldKey(f policies.Field, epoch uint64) *pre.FieldKey {
	k, err := o.root.FieldKey(policies.Slot{Owner: policies.OwnerID(o.id), Field: f, Epoch: epoch, Author: policies.AuthorID(o.id)})
	must(o.w.t, err)
	return k
}

// seal writes a new version of a field.
func (o *owner) seal(f policies.Field, epoch uint64, value string) {
	leaf, text, err := o.fieldKey(f, epoch).Seal(o.leaves[f].Version+1, []byte(value), nil)
	must(o.w.t, err)
	o.leaves[f], o.texts[leaf.CiphertextHash] = leaf, text
}

func (o *owner) link() policies.Link { return policies.Link{Seq: o.seq + 1, Prev: o.prev} }

// manifestOf signs the next manifest over the leaves.
func (o *owner) manifestOf(change func(*policies.Manifest)) (api.Submission, *policies.Tree, policies.Hash) {
	var leaves []policies.Leaf
	for _, l := range o.leaves {
		leaves = append(leaves, l)
	}
	tree, err := policies.NewTree(leaves)
	must(o.w.t, err)
	m := &policies.Manifest{
		Header: policies.NewHeader("manifest", o.w.clock.now()), Audience: o.w.document.Vault, Owner: policies.OwnerID(o.id), Author: policies.AuthorID(o.id),
		Link: o.link(), Version: o.version + 1, PrevManifest: o.manifest, TreeSize: tree.Size(), Root: tree.Root(),
	}
	if change != nil {
		change(m)
	}
	e, err := policies.Sign[policies.Manifest](o.key, m)
	must(o.w.t, err)
	return api.Submission{Envelope: e.Raw}, tree, e.Hash
}

// publish publishes the leaves.
func (o *owner) publish() {
	o.w.t.Helper()
	s, tree, hash := o.manifestOf(nil)
	o.w.accepted(s)
	o.seq, o.prev, o.version, o.manifest, o.tree = o.seq+1, hash, o.version+1, hash, tree
}

func (o *owner) set(f policies.Field, value string) {
	o.w.t.Helper()
	o.seal(f, 1, value)
	o.publish()
}

// granting is a grant on its way: what a test may bend before it is signed and after.
type granting struct {
	doc     *policies.Grant
	wrapped map[policies.Field][]byte
}

// grantOf makes a grant of fields to a reader. change bends the document or the wrapped keys before digests and signature are made, late the
// submission afterwards.
func (o *owner) grantOf(r *reader, change func(*granting), fields ...policies.Field) (api.Submission, *policies.Grant, policies.Hash) {
	t := o.w.t
	t.Helper()
	now := o.w.clock.now()
	ct, secret, err := pre.NewGrantSecret(r.readerKey(o).Public(), nil)
	must(t, err)
	g := &granting{wrapped: map[policies.Field][]byte{}, doc: &policies.Grant{
		Header: policies.NewHeader("grant", now), Audience: o.w.document.Vault, Owner: policies.OwnerID(o.id), Link: o.link(),
		Reader: policies.ReaderID(r.id), Relationship: policies.Hash{1}, Custody: o.w.custody, Rights: []policies.Right{policies.RightRead},
		Purpose: testPurpose, NotBefore: now.Unix() - 60, Expires: now.Unix() + 30*86400, Ciphertext: ct,
	}}
	for _, f := range fields {
		epoch := max(o.leaves[f].Epoch, 1)
		rk, err := secret.ReEncryptionKey(g.doc.ID, g.doc.Reader, o.fieldKey(f, epoch))
		must(t, err)
		g.wrapped[f] = rk.PKCS8()
		g.doc.Fields = append(g.doc.Fields, policies.GrantedField{Field: f, Epoch: epoch, Author: policies.AuthorID(o.id), Keys: []policies.WrappedKey{
			{Token: testSerial, ImportKey: o.w.importKey(), Path: testPath, Digest: policies.Hash{1}},
		}})
	}
	if change != nil {
		change(g)
	}
	for i := range g.doc.Fields {
		for j := range g.doc.Fields[i].Keys {
			g.doc.Fields[i].Keys[j].Digest = sha256.Sum256(g.wrapped[g.doc.Fields[i].Field])
		}
	}
	e, err := policies.Sign[policies.Grant](o.key, g.doc)
	must(t, err)
	s := api.Submission{Envelope: e.Raw}
	for _, f := range g.doc.Fields {
		info, err := pre.ImportInfo(o.w.document.Vault, e.Hash, f.Field, f.Epoch, f.Author)
		must(t, err)
		sealed, err := pre.SealBlob(o.w.document.ImportHPKE, info, g.wrapped[f.Field])
		must(t, err)
		s.Keys = append(s.Keys, api.SealedKey{Field: f.Field, Author: f.Author, Token: testSerial, Sealed: sealed})
	}
	return s, g.doc, e.Hash
}

func (w *world) importKey() policies.Hash {
	k, _ := w.document.ImportKey(testSerial, w.custody)
	return policies.HashKey(k.PublicKey)
}

func (o *owner) grant(r *reader, change func(*granting), fields ...policies.Field) *policies.Grant {
	o.w.t.Helper()
	s, g, hash := o.grantOf(r, change, fields...)
	o.w.accepted(s)
	o.seq, o.prev = o.seq+1, hash
	return g
}

func (o *owner) revocationOf(change func(*policies.Revocation), g *policies.Grant, fields ...policies.Field) (api.Submission, policies.Hash) {
	r := &policies.Revocation{
		Header: policies.NewHeader("revocation", o.w.clock.now()), Audience: o.w.document.Vault, Owner: policies.OwnerID(o.id), Link: o.link(),
		Reason: policies.ReasonWithdrawn,
	}
	for _, f := range fields {
		r.Items = append(r.Items, policies.RevokedItem{Grant: g.ID, Field: f, Author: policies.AuthorID(o.id)})
	}
	if change != nil {
		change(r)
	}
	e, err := policies.Sign[policies.Revocation](o.key, r)
	must(o.w.t, err)
	return api.Submission{Envelope: e.Raw}, e.Hash
}

func (o *owner) revoke(g *policies.Grant, fields ...policies.Field) {
	o.w.t.Helper()
	s, hash := o.revocationOf(nil, g, fields...)
	o.w.accepted(s)
	o.seq, o.prev = o.seq+1, hash
}

// offer is what an honest storefront says about a field.
func (o *owner) offer(g *policies.Grant, f policies.Field) api.CallItem {
	o.w.t.Helper()
	item := api.CallItem{Head: o.manifest}
	if g != nil {
		item.Grant = g.ID
	}
	leaf, index, ok := o.tree.Find(f)
	if !ok {
		return item
	}
	item.Leaf = leaf.Bytes()
	var err error
	item.Proof, err = o.tree.Prove(index)
	must(o.w.t, err)
	item.Point, err = pre.Decompress(&leaf.Capsule)
	must(o.w.t, err)
	return item
}

// reader is a business with a session.
type reader struct {
	party
	root    *pre.Root
	signer  *envelope.SessionKey
	k       *pre.SessionKey
	session policies.Hash
}

func (w *world) reader() *reader {
	w.t.Helper()
	root, err := pre.NewRoot()
	must(w.t, err)
	r := &reader{party: w.enrol(), root: root}
	r.openSession()
	return r
}

func (r *reader) readerKey(o *owner) *pre.ReaderKey {
	return r.root.ReaderKey(policies.OwnerID(o.id), policies.Nonce{1})
}

func (r *reader) sessionOf(change func(*policies.Session)) (api.Submission, *envelope.SessionKey, *pre.SessionKey, policies.Hash) {
	t, now := r.w.t, r.w.clock.now()
	t.Helper()
	signer := envelope.NewSessionKey()
	ct, secret, err := pre.EncapsulateSession(r.w.document.SessionKEM, nil)
	must(t, err)
	d := &policies.Session{
		Header: policies.NewHeader("session", now), Audience: r.w.document.Vault, Reader: policies.ReaderID(r.id), Key: signer.Public(),
		NotBefore: now.Unix(), Expires: now.Unix() + 600, Ciphertext: ct,
	}
	if change != nil {
		change(d)
	}
	e, err := policies.Sign[policies.Session](r.key, d)
	must(t, err)
	return api.Submission{Envelope: e.Raw}, signer, secret.Key(d.Audience, d.Reader, e.Hash), e.Hash
}

func (r *reader) openSession() {
	r.w.t.Helper()
	s, signer, k, hash := r.sessionOf(nil)
	r.w.accepted(s)
	r.signer, r.k, r.session = signer, k, hash
}

// ask is one item that a reader wants.
type ask struct {
	o     *owner
	grant *policies.Grant
	field policies.Field
	known uint64
}

// requestOf signs a request.
func (r *reader) requestOf(change func(*policies.ReadRequest), asks ...ask) *envelope.Envelope {
	now := r.w.clock.now()
	d := &policies.ReadRequest{
		Header: policies.NewHeader("read", now), Audience: r.w.document.Vault, Session: r.session, Nonce: policies.NewNonce(),
		Expires: now.Unix() + 60, Purpose: testPurpose,
	}
	for _, a := range asks {
		d.Items = append(d.Items, policies.ReadItem{Owner: policies.OwnerID(a.o.id), Field: a.field, Known: a.known})
	}
	if change != nil {
		change(d)
	}
	e, err := policies.Sign[policies.ReadRequest](r.signer, d)
	must(r.w.t, err)
	return e
}

// callOf is the call that an honest storefront makes of a request.
func (r *reader) callOf(change func(*policies.ReadRequest), asks ...ask) (api.Call, *envelope.Envelope) {
	e := r.requestOf(change, asks...)
	c := api.Call{Request: e.Raw}
	for _, a := range asks {
		c.Items = append(c.Items, a.o.offer(a.grant, a.field))
	}
	return c, e
}

// read asks honestly and opens the answer.
func (r *reader) read(asks ...ask) *policies.Answer {
	r.w.t.Helper()
	c, e := r.callOf(nil, asks...)
	reply := r.w.vault.Reencrypt(context.Background(), []api.Call{c})[0]
	return r.open(reply, e)
}

func (r *reader) open(reply api.Reply, e *envelope.Envelope) *policies.Answer {
	r.w.t.Helper()
	if reply.Code != "" {
		r.w.t.Fatalf("refused: %s", reply.Code)
	}
	plain, err := r.k.OpenAnswer(e.Hash, reply.Sealed)
	must(r.w.t, err)
	a, err := policies.ParseAnswer(plain)
	must(r.w.t, err)
	return a
}

// value opens an item of an answer to the plaintext.
func (r *reader) value(a ask, item policies.AnswerItem) string {
	r.w.t.Helper()
	if item.Outcome != policies.CodeReleased {
		r.w.t.Fatalf("outcome %s", item.Outcome)
	}
	secret, err := r.readerKey(a.o).OpenGrant(a.grant.Ciphertext)
	must(r.w.t, err)
	leaf, _, _ := a.o.tree.Find(a.field)
	if item.Leaf != leaf.Hash() || item.Head != a.o.manifest || item.Version != a.o.version {
		r.w.t.Fatal("the answer speaks of another leaf or head")
	}
	value, err := secret.Open(a.grant.ID, a.grant.Reader, leaf, item.X, a.o.texts[leaf.CiphertextHash])
	must(r.w.t, err)
	return string(value)
}

type ledgerState = ledger.State

func preBlobKey(seed byte) *pre.BlobKey   { return pre.NewBlobKey([32]byte{seed}) }
func preVaultKey(seed byte) *pre.VaultKey { return pre.NewVaultKey([32]byte{seed}) }

// reseal seals other bytes as the key of an owner's grant of "name".
func (o *owner) reseal(grant policies.Hash, wrapped []byte) []byte {
	info, err := pre.ImportInfo(o.w.document.Vault, grant, "name", 1, policies.AuthorID(o.id))
	must(o.w.t, err)
	sealed, err := pre.SealBlob(o.w.document.ImportHPKE, info, wrapped)
	must(o.w.t, err)
	return sealed
}

// pkcs8Head is PKCS#8 without the scalar.
func pkcs8Head() []byte {
	rk, err := pre.ParseReEncryptionKey(pkcs8One)
	if err != nil {
		panic(err)
	}
	return rk.PKCS8()[:35]
}

var pkcs8One = append([]byte{
	0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
	0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01, 0x01, 0x04, 0x20,
}, append(make([]byte, 31), 1)...)
