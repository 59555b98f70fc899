package ledger

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/guardrails"
	"github.com/sallyport/sallyport/policies/redact"
	"github.com/sallyport/sallyport/vault/intact"
)

// Database keys: one byte for the kind, then what names the object.
const (
	kindMeta     = 'm'
	kindIdentity = 'i'
	kindChain    = 'c'
	kindHead     = 'h'
	kindImport   = 'b'
	kindGrant    = 'g'
	kindPending  = 'p'
	kindDocument = 'd'
	kindSession  = 's'
	kindNonces   = 'u' // after their session
	kindOwned    = 'o' // entries that concern an owner
	kindRead     = 'e' // entries that concern a reader
	kindSpent    = 'r' // released to a reader
	kindQuery    = 'q' // nonce of an auditor
	kindClosed   = 'x' // account
	kindWriter   = 'w' // a write grant
	kindOrder    = 'a' // entries of an author's manifests
)

// A list that only grows lies in pages, so that a flush writes its end and not all of it.
const (
	documentsPage = 256 // hashes and indexes
	noncesPage    = 512
)

// keySize is the length of the database keys of a kind, 0 for one that this version does not know.
func keySize(kind byte) int {
	switch kind {
	case kindIdentity, kindChain, kindImport, kindGrant, kindPending, kindSession, kindClosed, kindWriter:
		return 1 + 32
	case kindHead, kindSpent:
		return 1 + 64
	case kindOrder:
		return 1 + 64 + 8
	case kindNonces, kindOwned, kindRead:
		return 1 + 32 + 8
	case kindQuery:
		return 1 + 32 + 16
	case kindDocument:
		return 1 + 8
	}
	return 0
}

func closedKey(id policies.IdentityID) string    { return string(kindClosed) + string(id[:]) }
func identityKey(id policies.IdentityID) string  { return string(kindIdentity) + string(id[:]) }
func chainKey(owner policies.OwnerID) string     { return string(kindChain) + string(owner[:]) }
func headsKey(k headKey) string                  { return string(kindHead) + string(k.owner[:]) + string(k.author[:]) }
func spentKey(p pair) string                     { return string(kindSpent) + string(p.owner[:]) + string(p.reader[:]) }
func importKey(grant policies.DocumentID) string { return string(kindImport) + string(grant[:]) }
func grantKey(grant policies.DocumentID) string  { return string(kindGrant) + string(grant[:]) }
func writerKey(grant policies.DocumentID) string { return string(kindWriter) + string(grant[:]) }
func orderKey(k headKey, place int) string {
	return string(kindOrder) + string(k.owner[:]) + string(k.author[:]) + page(place/trailPage)
}
func pendingKey(revocation policies.Hash) string { return string(kindPending) + string(revocation[:]) }
func documentKey(place int) string               { return string(kindDocument) + page(place/documentsPage) }
func sessionKey(session policies.Hash) string    { return string(kindSession) + string(session[:]) }
func queriesKey(k queryKey) string {
	return string(kindQuery) + string(k.auditor[:]) + string(k.nonce[:])
}
func noncesKey(session policies.Hash, place int) string {
	return string(kindNonces) + string(session[:]) + page(place/noncesPage)
}
func page(number int) string { return string(policies.U64(uint64(number))) }

// pageOf is the part of a list that a page holds.
func pageOf[T any](all []T, number []byte, size int) []T {
	n := binary.BigEndian.Uint64(number)
	if n >= uint64((len(all)+size-1)/size) {
		return nil
	}
	all = all[int(n)*size:]
	return all[:min(len(all), size)]
}

// errUseless means that a database cannot be relied on, for whatever reason: it is made anew from the log.
var errUseless = errors.New("database is of no use")

// index is the database. Only one goroutine at a time uses it: open, then flush, then close.
type index struct {
	redact.Redacted

	db       *badger.DB
	dir      string
	reserve  int64
	log      *slog.Logger
	dataKey  [32]byte
	instance policies.Nonce // drawn when the database was made: values of an older one under the same data key do not fit
	version  uint64         // of the last flush, also of one that was not finished
	next     atomic.Uint64  // records applied at the last flush
	versions map[string]uint64
	left     map[string]struct{} // keys that a flush wrote that was not finished
	set      [32]byte            // see member
	cipherMu sync.Mutex          // guards ciphers
	ciphers  map[uint64]cipher.AEAD
	broken   bool
}

// meta is the one value that speaks of all others. It is written last. Badger keeps what a flush writes under the flush's version, and what was there before
// under the older ones until meta is written: so a flush that a crash cut short never happened. What it left is written over by the next.
type meta struct {
	Next   uint64           `json:"next"` // records applied
	Root   policies.Hash    `json:"root"` // of the log's tree of that size
	Set    policies.Hash    `json:"set"`
	Values uint64           `json:"values"` // how many there are
	Vault  policies.VaultID `json:"vault"`

	Document VaultDocument `json:"document"`
	Erased   erasure       `json:"erased,omitzero"`
	Rules    Rules         `json:"guardrails,omitzero"`
}

// memTable is the size of Badger's tables in memory. It writes them to disk when they are full and when it is opened or closed, whether there is
// room or not, so they are small against the reserve.
func memTable(reserve int64) int64 { return min(max(reserve/8, 1<<20), 16<<20) }

func (x *index) openDatabase() (*badger.DB, error) {
	dir, log, table := x.dir, x.log, memTable(x.reserve)
	return badger.OpenManaged(badger.DefaultOptions(dir).
		WithLogger(badgerLog{log}).
		WithSyncWrites(true).
		WithVerifyValueChecksum(true).
		WithChecksumVerificationMode(options.OnTableAndBlockRead).
		WithCompression(options.None). // sealed values do not shrink
		WithBlockCacheSize(8 << 20).
		WithMemTableSize(table).
		WithNumMemtables(2).
		WithValueThreshold(min(1<<20, table/16)).
		WithBaseTableSize(min(2<<20, table)).
		WithBaseLevelSize(min(10<<20, 2*table)).
		WithValueLogFileSize(4 * table).
		WithDetectConflicts(false).
		WithNumCompactors(2))
}

// load opens the database and fills an empty state from it. Whatever is wrong with it, the answer is errUseless.
func (x *index) load(s *State) (m meta, err error) {
	defer func() {
		if r := recover(); r != nil { // Badger meets damaged files with a panic here and there
			err = fmt.Errorf("%w: %v", errUseless, r)
		}
	}()
	// Badger ends the process, from goroutines of its own, where a table is damaged. The mark tells the next start.
	if _, err := os.Stat(x.dir); errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%w: there is none", errUseless)
	}
	torn, err := intact.Prepare(x.dir)
	if err != nil {
		return m, fmt.Errorf("%w: %w", errUseless, err)
	}
	for _, t := range torn {
		x.log.Warn("a file of the vault's database is not whole to its end, as after a crash", "file", t.File, "offset", t.Offset, "what", t.What)
	}
	mark := x.dir + ".reading"
	if _, err := os.Lstat(mark); err == nil {
		return m, fmt.Errorf("%w: the vault died while it read it", errUseless)
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return m, err
	}
	db, err := x.openDatabase()
	if err != nil {
		return m, fmt.Errorf("%w: %w", errUseless, err)
	}
	x.db = db
	if err := x.read(s, &m); err != nil {
		return m, fmt.Errorf("%w: %w", errUseless, err)
	}
	if subtle.ConstantTimeCompare(x.set[:], m.Set[:]) != 1 {
		return m, fmt.Errorf("%w: values are missing or old", errUseless)
	}
	if err := os.Remove(mark); err != nil {
		return m, err
	}
	if m.Rules.Serial != 0 {
		if m.Rules.Set, err = guardrails.Parse(m.Rules.Text); err != nil {
			return m, fmt.Errorf("%w: %w", errUseless, err)
		}
	}
	s.next, s.vault, s.document, s.erased, s.rules = m.Next, m.Vault, m.Document, m.Erased, m.Rules
	x.next.Store(m.Next)
	return m, nil
}

func (x *index) read(s *State, m *meta) error {
	newest := x.db.NewTransactionAt(math.MaxUint64, false)
	defer newest.Discard()
	item, err := newest.Get([]byte{kindMeta})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return errors.New("it is empty")
	} else if err != nil {
		return err
	}
	sealed, err := item.ValueCopy(nil)
	if err != nil {
		return err
	}
	if len(sealed) < len(x.instance) {
		return errors.New("its head is cut short")
	}
	copy(x.instance[:], sealed)
	plain, version, err := x.unseal(string(kindMeta), sealed[len(x.instance):])
	if err != nil {
		return err
	}
	if version != item.Version() {
		return errors.New("its head is not where it was written")
	}
	if err := envelope.Decode(plain, m); err != nil {
		return err
	}
	x.db.SetDiscardTs(version) // nothing is merged away that this flush wrote
	x.version = max(version, x.db.MaxVersion())
	if x.version == math.MaxUint64 {
		return errors.New("its versions are at their end")
	}
	if x.version > version {
		if err := x.findLeft(newest, s, version); err != nil {
			return err
		}
	}
	flushed := x.db.NewTransactionAt(version, false)
	defer flushed.Discard()
	return x.loadValues(flushed, s, m.Values)
}

// findLeft notes what a flush wrote that was not finished: the next one writes these keys again, as the state has them then, or removes them.
func (x *index) findLeft(txn *badger.Txn, s *State, version uint64) error {
	it := txn.NewIterator(badger.IteratorOptions{AllVersions: true, SinceTs: version})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		key := string(it.Item().Key())
		if len(key) == 0 || len(key) != keySize(key[0]) {
			return errors.New("a key of the wrong form")
		}
		x.left[key] = struct{}{}
		s.touch(key)
	}
	return nil
}

// values are some of the database's, on their way into the state.
type values struct {
	keys     []string
	sealed   [][]byte
	versions []uint64
	inserts  []func(*State)
	set      [32]byte
}

// loadValues fills the state. One goroutine reads, as many as there are processors open and decode, and one inserts, in the order of the keys.
func (x *index) loadValues(txn *badger.Txn, s *State, number uint64) error {
	const size = 256
	number = min(number, 1<<24) // it is a hint
	x.versions = make(map[string]uint64, number)
	s.grants = make(map[policies.DocumentID]*Grant, number)
	o := newInOrder(x.decode, func(p *values) error {
		subtle.XORBytes(x.set[:], x.set[:], p.set[:])
		for i, insert := range p.inserts {
			x.versions[p.keys[i]] = p.versions[i]
			insert(s)
		}
		return nil
	})
	defer o.finish() // Badger meets damaged files with a panic here and there: nobody may be left waiting then
	options := badger.DefaultIteratorOptions
	options.PrefetchValues = false // they lie beside their keys, but for the longest
	it := txn.NewIterator(options)
	defer it.Close()
	p := new(values)
	for it.Rewind(); it.Valid(); it.Next() {
		key := string(it.Item().Key())
		if key == string(kindMeta) {
			continue
		}
		sealed, err := it.Item().ValueCopy(nil)
		if err != nil {
			return err
		}
		if p.keys, p.sealed = append(p.keys, key), append(p.sealed, sealed); len(p.keys) < size {
			continue
		}
		if !o.add(p) {
			return o.finish()
		}
		p = new(values)
	}
	o.add(p)
	return o.finish()
}

// decode opens and decodes values.
func (x *index) decode(p *values) error {
	p.versions, p.inserts = make([]uint64, len(p.keys)), make([]func(*State), len(p.keys))
	mac := x.newMAC()
	for i, key := range p.keys {
		plain, version, err := x.unseal(key, p.sealed[i])
		if err != nil {
			return err
		}
		if p.inserts[i], err = decode(key, plain); err != nil {
			return fmt.Errorf("value of kind %q: %w", key[0], err)
		}
		p.versions[i], p.sealed[i] = version, nil
		x.member(&p.set, mac, key, version)
	}
	return nil
}

// reset throws the database away and begins an empty one.
func (x *index) reset() error {
	x.drop()
	if err := os.MkdirAll(x.dir, 0o700); err != nil {
		return err
	}
	// The folder itself stays: a file system may be mounted there.
	entries, err := os.ReadDir(x.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(x.dir, e.Name())); err != nil {
			return err
		}
	}
	if err := os.Remove(x.dir + ".reading"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	x.instance, x.version, x.set = policies.NewNonce(), 0, [32]byte{}
	x.next.Store(0)
	clear(x.versions)
	clear(x.left)
	clear(x.ciphers)
	db, err := x.openDatabase()
	if err != nil {
		return err
	}
	x.db = db
	return nil
}

// drop closes a database that may be too damaged to be closed.
func (x *index) drop() {
	defer func() { recover() }()
	if x.db != nil {
		db := x.db
		x.db = nil
		_ = db.Close()
	}
}

// Flush brings the database up to the state. It is not on anybody's path: if it fails the database is left marked as
// useless, the next start replays the whole log, and the vault goes on.
func (l *Ledger) Flush(root policies.Hash, size uint64) error {
	x := l.index
	if x == nil || x.broken { // nobody will ask what changed
		l.Write(func(s *State) { clear(s.changed) })
		return nil
	}
	if free, err := freeSpace(x.dir); err != nil {
		return fmt.Errorf("measuring free space: %w", err)
	} else if free < x.reserve { // Badger maps its files: a full disk would end the process
		return fmt.Errorf("writing the database: %d bytes free, the reserve is %d; it stays as it is", free, x.reserve)
	}
	l.mu.Lock()
	s := l.state
	if s.next != size || s.next == x.next.Load() {
		l.mu.Unlock()
		return nil
	}
	values := make(map[string][]byte, len(s.changed))
	for key := range s.changed {
		values[key] = s.encode(key)
	}
	clear(s.changed)
	m := meta{Next: s.next, Root: root, Vault: s.vault, Document: s.document, Erased: s.erased, Rules: s.rules}
	l.mu.Unlock()

	if err := x.write(values, m); err != nil {
		x.broken = true
		return fmt.Errorf("writing the database: %w; it will be made anew from the log", err)
	}
	x.next.Store(m.Next)
	return nil
}

func (x *index) write(values map[string][]byte, m meta) error {
	x.version++
	clear(x.ciphers)
	batch := x.db.NewWriteBatchAt(x.version)
	defer batch.Cancel()
	mac := x.newMAC()
	for key, plain := range values {
		old, had := x.versions[key]
		if had {
			x.member(&x.set, mac, key, old) // out of the set
			delete(x.versions, key)
		}
		if plain == nil {
			if _, left := x.left[key]; had || left {
				if err := batch.Delete([]byte(key)); err != nil {
					return err
				}
			}
			continue
		}
		if err := batch.Set([]byte(key), x.seal(key, plain)); err != nil {
			return err
		}
		x.versions[key] = x.version
		x.member(&x.set, mac, key, x.version)
	}
	if err := batch.Flush(); err != nil {
		return err
	}
	clear(x.left)
	m.Set, m.Values = x.set, uint64(len(x.versions))
	if err := x.writeMeta(m); err != nil {
		return err
	}
	x.db.SetDiscardTs(x.version)
	return nil
}

func (x *index) writeMeta(m meta) error {
	plain, err := json.Marshal(m)
	if err != nil {
		return err
	}
	value := append(append([]byte(nil), x.instance[:]...), x.seal(string(kindMeta), plain)...)
	txn := x.db.NewTransactionAt(math.MaxUint64, true)
	defer txn.Discard()
	if err := txn.Set([]byte{kindMeta}, value); err != nil {
		return err
	}
	return txn.CommitAt(x.version, nil)
}

// seal is version (8 bytes) || nonce (12) || AES-256-GCM with key and version as associated data. Each version has a key of its own, so
// that random nonces stay far from their bound however long the database lives.
func (x *index) seal(key string, plain []byte) []byte {
	out := binary.BigEndian.AppendUint64(make([]byte, 0, 8+12+len(plain)+16), x.version)
	out = out[:8+12]
	rand.Read(out[8:])
	return x.cipher(x.version).Seal(out, out[8:20], plain, associated(key, x.version))
}

func (x *index) unseal(key string, sealed []byte) ([]byte, uint64, error) {
	if len(sealed) < 8+12 {
		return nil, 0, errors.New("a value is cut short")
	}
	version := binary.BigEndian.Uint64(sealed)
	plain, err := x.cipher(version).Open(nil, sealed[8:20], sealed[20:], associated(key, version))
	if err != nil {
		return nil, 0, errors.New("a value does not open under the data key")
	}
	return plain, version, nil
}

func associated(key string, version uint64) []byte {
	return policies.Encode("ledger-value", []byte(key), policies.U64(version))
}

func (x *index) cipher(version uint64) cipher.AEAD {
	x.cipherMu.Lock()
	defer x.cipherMu.Unlock()
	if c := x.ciphers[version]; c != nil {
		return c
	}
	key, err := hkdf.Expand(sha256.New, x.dataKey[:], string(policies.Encode("ledger-key", x.instance[:], policies.U64(version))), 32)
	if err != nil {
		panic(err) // 32 bytes can always be had
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	c, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	x.ciphers[version] = c
	return c
}

// member puts a value into a set hash, or takes it out again: the exclusive or of a keyed hash per value (Clarke et al., Incremental
// Multiset Hash Functions, ASIACRYPT 2003). The version stands for the value, which is authenticated with it.
func (x *index) member(set *[32]byte, mac hash.Hash, key string, version uint64) {
	var sum [32]byte
	mac.Reset()
	mac.Write(policies.Encode("ledger-set", x.instance[:], []byte(key), policies.U64(version)))
	subtle.XORBytes(set[:], set[:], mac.Sum(sum[:0]))
}

// newMAC is the hash of member. It keeps what it computed from the key, so it is made once for many values.
func (x *index) newMAC() hash.Hash { return hmac.New(sha256.New, x.dataKey[:]) }

func (x *index) close() error {
	clear(x.dataKey[:])
	if x.db == nil {
		return nil
	}
	return x.db.Close()
}

// encode is the value of a database key in the state, nil if there is none any more.
func (s *State) encode(key string) []byte {
	name := []byte(key[1:])
	var v any
	switch key[0] {
	case kindIdentity:
		i := s.identities[policies.IdentityID(name)]
		if i == nil {
			return nil
		}
		v = i
	case kindClosed:
		c, ok := s.closed[policies.IdentityID(name)]
		if !ok {
			return nil
		}
		v = c
	case kindChain:
		c, ok := s.chains[policies.OwnerID(name)]
		if !ok {
			return nil
		}
		v = c
	case kindHead:
		h, ok := s.heads[headKey{policies.OwnerID(name[:32]), policies.AuthorID(name[32:])}]
		if !ok {
			return nil
		}
		v = h
	case kindImport, kindGrant:
		from := s.grants
		if key[0] == kindImport {
			from = s.imports
		}
		g := from[policies.DocumentID(name)]
		if g == nil {
			return nil
		}
		return appendGrant(make([]byte, 0, 512), g)
	case kindSpent:
		sp := s.spent[pair{policies.OwnerID(name[:32]), policies.ReaderID(name[32:])}]
		if sp == nil || len(sp.used) == 0 {
			return nil
		}
		return appendSpent(nil, sp)
	case kindQuery:
		expires, ok := s.queries[queryKey{policies.IdentityID(name[:32]), policies.Nonce(name[32:])}]
		if !ok {
			return nil
		}
		return policies.U64(uint64(expires))
	case kindPending:
		r := s.pending[policies.Hash(name)]
		if r == nil {
			return nil
		}
		v = r
	case kindDocument:
		var out []byte
		for _, hash := range pageOf(s.accepted, name, documentsPage) {
			out = binary.BigEndian.AppendUint64(append(out, hash[:]...), s.documents[hash])
		}
		return out
	case kindSession:
		session := s.sessions[policies.Hash(name)]
		if session == nil {
			return nil
		}
		v = session
	case kindNonces:
		session := s.sessions[policies.Hash(name[:32])]
		if session == nil {
			return nil
		}
		var out []byte
		for _, nonce := range pageOf(session.seen, name[32:], noncesPage) {
			out = append(out, nonce[:]...)
		}
		return out
	case kindWriter:
		w := s.writeGrants[policies.DocumentID(name)]
		if w == nil {
			return nil
		}
		v = w
	case kindOrder:
		return s.orders[headKey{policies.OwnerID(name[:32]), policies.AuthorID(name[32:64])}].page(binary.BigEndian.Uint64(name[64:]))
	case kindOwned, kindRead:
		return s.trails(key[0])[policies.IdentityID(name[:32])].page(binary.BigEndian.Uint64(name[32:]))
	}
	out, err := json.Marshal(v)
	if err != nil {
		panic(err) // none of these types has a member that can fail
	}
	return out
}

// decode is the inverse of encode, up to the insertion into the state. Keys are inserted in byte order, so the pages of a list come in theirs, and a session
// before its nonces.
func decode(key string, value []byte) (insert func(*State), err error) {
	if len(key) == 0 || keySize(key[0]) == 0 {
		return nil, errors.New("a kind that this version does not know")
	}
	if len(key) != keySize(key[0]) {
		return nil, errors.New("a name of the wrong length")
	}
	name := []byte(key[1:])
	switch key[0] {
	case kindIdentity:
		i := new(Identity)
		if err = envelope.Decode(value, i); err == nil && i.Generation == 0 {
			err = errForm // of a version that knew no successions
		}
		insert = func(s *State) {
			s.identities[i.ID], s.pseudonyms[i.Pseudonym] = i, i.ID
			s.name(i)
		}
	case kindClosed:
		var c Closure
		err = envelope.Decode(value, &c)
		insert = func(s *State) { s.closed[c.ID] = c }
	case kindChain:
		var c Chain
		err = envelope.Decode(value, &c)
		insert = func(s *State) { s.chains[policies.OwnerID(name)] = c }
	case kindHead:
		var h Head
		err = envelope.Decode(value, &h)
		insert = func(s *State) { s.heads[headKey{policies.OwnerID(name[:32]), policies.AuthorID(name[32:])}] = h }
	case kindImport, kindGrant:
		var g *Grant
		g, err = decodeGrant(value)
		insert = func(s *State) { s.insertGrant(g, key[0] == kindImport) }
	case kindSpent:
		var sp *spent
		sp, err = decodeSpent(value)
		insert = func(s *State) { s.spent[pair{policies.OwnerID(name[:32]), policies.ReaderID(name[32:])}] = sp }
	case kindQuery:
		if len(value) != 8 {
			return nil, errForm
		}
		insert = func(s *State) {
			s.queries[queryKey{policies.IdentityID(name[:32]), policies.Nonce(name[32:])}] = int64(binary.BigEndian.Uint64(value))
		}
	case kindPending:
		r := new(Revocation)
		err = envelope.Decode(value, r)
		insert = func(s *State) { s.pending[r.Hash] = r }
	case kindDocument:
		if len(value)%40 != 0 {
			return nil, errForm
		}
		insert = func(s *State) {
			for ; len(value) > 0; value = value[40:] {
				s.accept(policies.Hash(value[:32]), binary.BigEndian.Uint64(value[32:]))
			}
		}
	case kindSession:
		session := &Session{Nonces: map[policies.Nonce]struct{}{}}
		err = envelope.Decode(value, session)
		insert = func(s *State) { s.addSession(session) }
	case kindNonces:
		if len(value)%len(policies.Nonce{}) != 0 {
			return nil, errForm
		}
		insert = func(s *State) {
			session := s.sessions[policies.Hash(name[:32])]
			for ; session != nil && len(value) > 0; value = value[len(policies.Nonce{}):] {
				session.see(policies.Nonce(value[:len(policies.Nonce{})]))
			}
		}
	case kindWriter:
		w := new(Writer)
		err = envelope.Decode(value, w)
		insert = func(s *State) { s.insertWriter(w) }
	case kindOrder:
		indexes, ok := readPage(value)
		if !ok {
			return nil, errForm
		}
		insert = func(s *State) {
			s.insertOrder(headKey{policies.OwnerID(name[:32]), policies.AuthorID(name[32:64])}, value, indexes)
		}
	case kindOwned, kindRead:
		indexes, ok := readPage(value)
		if !ok {
			return nil, errForm
		}
		insert = func(s *State) {
			trails, id := s.trails(key[0]), policies.IdentityID(name[:32])
			t := trails[id]
			if t == nil {
				t = new(trail)
				trails[id] = t
			}
			t.pages, t.n, t.last = append(t.pages, slices.Clip(value)), t.n+len(indexes), indexes[len(indexes)-1]
		}
	}
	return insert, err
}

// trails are those of a kind of database key.
func (s *State) trails(kind byte) map[policies.IdentityID]*trail {
	if kind == kindOwned {
		return s.owned
	}
	return s.read
}

func (s *State) insertGrant(g *Grant, importing bool) {
	if importing {
		s.imports[g.Document.ID] = g
		return
	}
	s.grants[g.Document.ID] = g
	s.met[pair{g.Document.Owner, g.Document.Reader}] = struct{}{}
	for _, revoked := range g.Revoked {
		if !revoked {
			s.keys[g.Document.Custody]++
		}
	}
}

func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Clean(dir), &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// badgerLog passes on what matters of Badger's own messages.
type badgerLog struct{ log *slog.Logger }

func (b badgerLog) Errorf(f string, a ...any) { b.log.Error("database: " + trim(f, a)) }

// Warningf leaves out what Badger thinks of its cache, every minute after a start: nobody can set it, and values are hardly read twice.
func (b badgerLog) Warningf(f string, a ...any) {
	if strings.Contains(f, "might be too small") || strings.HasPrefix(f, "Cache life expectancy") {
		b.Infof(f, a...)
		return
	}
	b.log.Warn("database: " + trim(f, a))
}

func (b badgerLog) Infof(f string, a ...any) { b.log.Debug("database: " + trim(f, a)) }
func (b badgerLog) Debugf(string, ...any)    {}

func trim(f string, a []any) string {
	text := fmt.Sprintf(f, a...)
	for len(text) > 0 && text[len(text)-1] == '\n' {
		text = text[:len(text)-1]
	}
	return text
}

// FlushInterval and FlushRecords are how far the database may be behind the log while the vault runs: whatever comes first. A start reads that much of
// the log again.
const (
	FlushInterval = time.Minute
	FlushRecords  = 20_000
)

// Behind is how many records the log had beyond the database when it was last written; 0 if there is no database to write. Whoever calls Flush calls it.
func (l *Ledger) Behind() uint64 {
	x := l.index
	if x == nil || x.broken {
		return 0
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.state.next - x.next.Load()
}
