// Package ledger is what a vault knows: who is enrolled, where every chain and head stands, which grants are in force and how
// much of them was used today, which sessions are open and which nonces they saw.
//
// All of it follows from the key-use log. [State.Apply] takes one record of the log and is the only way in which the state
// changes for good; the live path and the replay at start go through it alike, in the order of the log. So a vault that was killed
// at any point comes back, after a replay, to what its log says, and to nothing else.
//
// The state is in memory. Beside it lies a database (Badger) that is nothing but an index: it lets a start replay the
// tail of the log instead of all of it. It is written behind the log, once a minute, after so many records, and at a stop, and never on the
// path of a read; one that a crash cut short never happened. It is not believed: every value in it is sealed (AES-256-GCM, key and version as associated data), a keyed
// hash over the set of all of them says that none is missing or old, and it names the tree of the log that it was made from. A
// database that is damaged, incomplete, ahead of the log, or of another log is thrown away and made anew from the log. Nothing
// depends on a key's absence: a revocation is a newer state of a grant.
//
// The caller owes: one writer that applies records in the order of the log, without gaps ([State.Apply] refuses others), and bodies
// for as long as the state rests on them: those of enrolments, newest heads, grants and revocations may not be erased.
package ledger

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
)

// Ledger guards a State: many may read, one writes.
type Ledger struct {
	mu    sync.RWMutex
	state *State
	index *index
}

// Read calls f with the state, which f neither changes nor keeps.
func (l *Ledger) Read(f func(*State)) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	f(l.state)
}

// Write calls f with the state while nobody reads it.
func (l *Ledger) Write(f func(*State)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l.state)
}

// State is the state itself. Pointers it hands out stay valid, but what they point to may be read or changed only within
// [Ledger.Read] or [Ledger.Write], unless a field's comment says that it never changes.
type State struct {
	next       uint64 // index of the next record to apply
	vault      policies.VaultID
	document   VaultDocument // the newest that the vault was started with
	identities map[policies.IdentityID]*Identity
	pseudonyms map[policies.Pseudonym]policies.IdentityID
	chains     map[policies.OwnerID]Chain
	heads      map[headKey]Head
	imports    map[policies.DocumentID]*Grant // begun, neither granted nor failed
	grants     map[policies.DocumentID]*Grant
	pending    map[policies.Hash]*Revocation // revoked, keys not yet recorded as destroyed
	documents  map[policies.Hash]uint64      // documents of chains: index of the record of their acceptance
	accepted   []policies.Hash               // the same documents, in the order of their acceptance
	sessions   map[policies.Hash]*Session
	sessionsOf map[policies.ReaderID]int
	owned      map[policies.IdentityID]*trail // entries that concern an owner
	read       map[policies.IdentityID]*trail // entries that concern a reader
	keys       map[policies.Custody]int       // granted fields that are not revoked
	met        map[pair]struct{}              // who was ever granted anything by whom
	spent      map[pair]*spent                // what was released today, whichever grant it was released under
	erased     erasure
	closed     map[policies.IdentityID]Closure
	gone       map[policies.Pseudonym]uint64 // of whom a replay passes over entries, and the first of them
	queries    map[queryKey]int64            // nonces of auditors, with the time until which they are kept, Unix seconds
	writingState
	named map[string]policies.IdentityID // what the names that vouchers named look like, and whose the newest such voucher is
	rules Rules

	changed map[string]struct{} // database keys of what changed since the last flush
}

func newState() *State {
	return &State{
		identities:   map[policies.IdentityID]*Identity{},
		pseudonyms:   map[policies.Pseudonym]policies.IdentityID{},
		chains:       map[policies.OwnerID]Chain{},
		heads:        map[headKey]Head{},
		imports:      map[policies.DocumentID]*Grant{},
		grants:       map[policies.DocumentID]*Grant{},
		pending:      map[policies.Hash]*Revocation{},
		documents:    map[policies.Hash]uint64{},
		sessions:     map[policies.Hash]*Session{},
		sessionsOf:   map[policies.ReaderID]int{},
		owned:        map[policies.IdentityID]*trail{},
		read:         map[policies.IdentityID]*trail{},
		keys:         map[policies.Custody]int{},
		met:          map[pair]struct{}{},
		queries:      map[queryKey]int64{},
		closed:       map[policies.IdentityID]Closure{},
		gone:         map[policies.Pseudonym]uint64{},
		spent:        map[pair]*spent{},
		changed:      map[string]struct{}{},
		writingState: newWritingState(),
		named:        map[string]policies.IdentityID{},
	}
}

// VaultDocument names a vault document.
type VaultDocument struct {
	Version uint64        `json:"version"`
	Hash    policies.Hash `json:"hash"`
}

// Identity is an enrolled identity. It never changes: one that has new keys takes its place.
type Identity struct {
	ID        policies.IdentityID `json:"id"`
	Pseudonym policies.Pseudonym  `json:"pseudonym"`
	Key       []byte              `json:"key"`   // composite public key in force
	Index     uint64              `json:"index"` // of its enrolment
	Standing
	Vouched Vouched `json:"vouched,omitzero"`
}

// Verifier is the identity's key.
func (i *Identity) Verifier() (*envelope.PublicKey, error) { return envelope.ParsePublicKey(i.Key) }

// Chain is where an owner's chain stands: the newest document and the index of its record.
type Chain struct {
	Seq   uint64        `json:"seq"`
	Hash  policies.Hash `json:"hash"`
	Index uint64        `json:"index"`
}

// Head is the newest manifest of an author for an owner. Version 0 is none yet.
type Head struct {
	Version  uint64        `json:"version"`
	Manifest policies.Hash `json:"manifest"`
	Size     uint64        `json:"size"`
	Root     policies.Hash `json:"root"`
	Index    uint64        `json:"index"`
	// Of owners who let others write: when the log took it, Unix seconds, and the owner's newest version before that began.
	Time   int64  `json:"time,omitzero"`
	Before uint64 `json:"before,omitzero"`
}

type headKey struct {
	owner  policies.OwnerID
	author policies.AuthorID
}

type pair struct {
	owner  policies.OwnerID
	reader policies.ReaderID
}

// erasure is the newest range of entries that was to be erased. All before it was.
type erasure struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// Erasure is from where, and up to and without which entry, bodies were last to be erased.
func (s *State) Erasure() (from, to uint64) { return s.erased.From, s.erased.To }

// queryKey is a nonce of an auditor.
type queryKey struct {
	auditor policies.IdentityID
	nonce   policies.Nonce
}

// Grant is a grant as far as a decision needs it: without the reader's ciphertext and the wrapped keys.
type Grant struct {
	Document policies.Grant `json:"document"`
	Hash     policies.Hash  `json:"hash"`
	Index    uint64         `json:"index"`           // of the record that began the import
	Revoked  []bool         `json:"revoked"`         // for each of the document's fields
	Checks   []byte         `json:"checks,omitzero"` // a key check for each of them, or nothing
}

// Check is the key check of a granted field, or nothing.
func (g *Grant) Check(f policies.Field, author policies.AuthorID) []byte {
	i, ok := g.Find(f, author)
	if !ok || len(g.Checks) != len(g.Document.Fields)*evidence.KeyCheckSize {
		return nil
	}
	return g.Checks[i*evidence.KeyCheckSize:][:evidence.KeyCheckSize]
}

func newGrant(d *policies.Grant, hash policies.Hash, index uint64) *Grant {
	g := &Grant{Document: *d, Hash: hash, Index: index, Revoked: make([]bool, len(d.Fields))}
	g.Document.Ciphertext = nil
	g.Document.Fields = make([]policies.GrantedField, len(d.Fields))
	for i, f := range d.Fields {
		g.Document.Fields[i] = policies.GrantedField{Field: f.Field, Epoch: f.Epoch, Author: f.Author}
	}
	return g
}

// Find is the place of a field among the document's fields.
func (g *Grant) Find(f policies.Field, author policies.AuthorID) (int, bool) {
	for i := range g.Document.Fields {
		if g.Document.Fields[i].Field == f && g.Document.Fields[i].Author == author {
			return i, true
		}
	}
	return 0, false
}

// Revocation is a recorded revocation whose keys are not yet recorded as destroyed.
type Revocation struct {
	Hash  policies.Hash          `json:"hash"`
	Owner policies.OwnerID       `json:"owner"`
	Index uint64                 `json:"index"`
	Items []policies.RevokedItem `json:"items"`
}

// Session is an open session. Only its nonces change, and, once, whether it ended before its time.
type Session struct {
	Document policies.Session `json:"document"`
	Hash     policies.Hash    `json:"hash"`
	Index    uint64           `json:"index"`
	Ended    bool             `json:"ended,omitzero"` // before its time: the keys that opened it were replaced
	// Nonces are those that requests have used, with those of requests on their way into the log.
	Nonces map[policies.Nonce]struct{} `json:"-"`
	seen   []policies.Nonce            // those in the log, in its order
}

// see notes a nonce. A request has as many records as items, one after the other.
func (s *Session) see(nonce policies.Nonce) {
	s.Nonces[nonce] = struct{}{}
	if n := len(s.seen); n == 0 || s.seen[n-1] != nonce {
		s.seen = append(s.seen, nonce)
	}
}

// Next is the index of the next record.
func (s *State) Next() uint64 { return s.next }

// Vault is the vault that the log belongs to, zero before the genesis.
func (s *State) Vault() policies.VaultID { return s.vault }

// VaultDocument is the newest vault document that the vault was started with.
func (s *State) VaultDocument() VaultDocument { return s.document }

// Keys is how many re-encryption keys of a custody are in force.
func (s *State) Keys(c policies.Custody) int { return s.keys[c] }

// Identity is an enrolled identity, or nil.
func (s *State) Identity(id policies.IdentityID) *Identity { return s.identities[id] }

// Pseudonym is how the log calls an identity; zero if it is not enrolled.
func (s *State) Pseudonym(id policies.IdentityID) policies.Pseudonym {
	if i := s.identities[id]; i != nil {
		return i.Pseudonym
	}
	return policies.Pseudonym{}
}

// Chain is where an owner's chain stands: seq 0 at the identity for an owner without documents, false for a stranger.
func (s *State) Chain(owner policies.OwnerID) (Chain, bool) {
	if c, ok := s.chains[owner]; ok {
		return c, true
	}
	id := s.identities[policies.IdentityID(owner)]
	if id == nil {
		return Chain{}, false
	}
	return Chain{Hash: policies.Hash(owner), Index: id.Index}, true
}

// Head is the newest manifest of an author for an owner.
func (s *State) Head(owner policies.OwnerID, author policies.AuthorID) Head {
	return s.heads[headKey{owner, author}]
}

// Grant is a grant that is or was in force, or nil.
func (s *State) Grant(id policies.DocumentID) *Grant { return s.grants[id] }

// Met reports whether an owner ever granted a reader anything.
func (s *State) Met(owner policies.OwnerID, reader policies.ReaderID) bool {
	_, ok := s.met[pair{owner, reader}]
	return ok
}

// Importing is a grant whose import began and neither succeeded nor failed, or nil.
func (s *State) Importing(id policies.DocumentID) *Grant { return s.imports[id] }

// Imports are the grants of unfinished imports.
func (s *State) Imports() []*Grant {
	out := make([]*Grant, 0, len(s.imports))
	for _, g := range s.imports {
		out = append(out, g)
	}
	return out
}

// Document is the index of the record of an accepted document: of a chain, an identity, or an open session.
func (s *State) Document(hash policies.Hash) (uint64, bool) {
	if i, ok := s.documents[hash]; ok {
		return i, true
	}
	if id := s.identities[policies.IdentityID(hash)]; id != nil {
		return id.Index, true
	}
	if session := s.sessions[hash]; session != nil {
		return session.Index, true
	}
	return 0, false
}

// Undone are the revocations whose keys are not yet recorded as destroyed.
func (s *State) Undone() []*Revocation {
	out := make([]*Revocation, 0, len(s.pending))
	for _, r := range s.pending {
		out = append(out, r)
	}
	return out
}

// UndoneRevocation is one of them, or nil.
func (s *State) UndoneRevocation(hash policies.Hash) *Revocation { return s.pending[hash] }

// Session is an open session, or nil.
func (s *State) Session(hash policies.Hash) *Session {
	if one := s.sessions[hash]; one != nil && !one.Ended {
		return one
	}
	return nil
}

// SessionsOf is how many open sessions a reader has.
func (s *State) SessionsOf(reader policies.ReaderID) int { return s.sessionsOf[reader] }

// Queried reports whether an auditor used a nonce before, of those that are not past their time.
func (s *State) Queried(auditor policies.IdentityID, nonce policies.Nonce) bool {
	_, used := s.queries[queryKey{auditor, nonce}]
	return used
}

// EndQueries forgets the nonces of queries that ended before a time: nobody can use them any more.
func (s *State) EndQueries(before time.Time) {
	for k, expires := range s.queries {
		if expires < before.Unix() {
			delete(s.queries, k)
			s.touch(queriesKey(k))
		}
	}
}

// accept notes the acceptance of a document of a chain.
func (s *State) accept(document policies.Hash, index uint64) {
	s.documents[document] = index
	s.accepted = append(s.accepted, document)
}

func (s *State) addSession(session *Session) {
	s.sessions[session.Hash] = session
	s.sessionsOf[session.Document.Reader]++
}

// EachKey calls f for every field of every grant whose key is not ended: closed says that its reader closed their account, so that the key is about to be destroyed, or
// is, and the log does not say so yet.
func (s *State) EachKey(f func(g *Grant, field *policies.GrantedField, closed bool)) {
	for _, g := range s.grants {
		closed := s.Closed(policies.IdentityID(g.Document.Reader))
		for i := range g.Document.Fields {
			if !g.Revoked[i] {
				f(g, &g.Document.Fields[i], closed)
			}
		}
	}
}

// History is a page of the indexes of records that concern an identity as owner, newest first, below before.
func (s *State) History(id policies.IdentityID, before uint64, limit int) []uint64 {
	return s.owned[id].below(before, limit)
}

// Readings is a page of the indexes of records that concern an identity as reader, newest first, below before: what it asked for, what it was granted and
// refused, and, last, its enrolment.
func (s *State) Readings(reader policies.ReaderID, before uint64, limit int) []uint64 {
	id := policies.IdentityID(reader)
	page := s.read[id].below(before, limit)
	if i := s.identities[id]; i != nil && i.Index < before && len(page) < limit {
		page = append(page, i.Index)
	}
	return page
}

// Reading reports whether a record is one of these.
func (s *State) Reading(reader policies.ReaderID, index uint64) bool {
	id := policies.IdentityID(reader)
	i := s.identities[id]
	return i != nil && (i.Index == index || s.read[id].has(index))
}

// follow notes that the record to be applied concerns somebody.
func (s *State) follow(trails map[policies.IdentityID]*trail, kind byte, who policies.Pseudonym) {
	id, ok := s.pseudonyms[who]
	if !ok {
		return
	}
	t := trails[id]
	if t == nil {
		t = new(trail)
		trails[id] = t
	}
	t.add(s.next)
	var key [1 + 32 + 8]byte
	key[0] = kind
	copy(key[1:], id[:])
	binary.BigEndian.PutUint64(key[33:], uint64((t.n-1)/trailPage))
	if _, touched := s.changed[string(key[:])]; !touched { // looking it up takes no memory
		s.touch(string(key[:]))
	}
}

// EndSessions forgets the sessions that ended before a time and returns their hashes. Their nonces go with them: a request of a
// session that is gone is refused for that reason.
func (s *State) EndSessions(before time.Time) []policies.Hash {
	var ended []policies.Hash
	for hash, session := range s.sessions {
		if session.Document.Expires < before.Unix() {
			delete(s.sessions, hash)
			if s.sessionsOf[session.Document.Reader]--; s.sessionsOf[session.Document.Reader] == 0 {
				delete(s.sessionsOf, session.Document.Reader)
			}
			s.touch(sessionKey(hash))
			for i := 0; i < len(session.seen); i += noncesPage {
				s.touch(noncesKey(hash, i))
			}
			ended = append(ended, hash)
		}
	}
	return ended
}
