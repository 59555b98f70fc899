// Package keyserver keeps, for a person with a password, what sets up a new device: the profile, sealed on the old one. It is a part of the vault's
// tier, a process apart from the vault, with a token and a log of its own.
//
// # What it is for
//
// Whoever loses the only device loses the root. A backup file is a way back that few people keep. Here a password is enough, and a password is
// little: whoever could try a million of them would find most. So the server holds what is needed to try even one, a scalar for each account
// that its token made and never gives out (see package password, which has the mathematics), and it counts.
//
// # The normal path
//
//  1. A device that is logged in asks with a signed [api.Question] for a fresh key (prepare), and gets the token's answer for its blinded password.
//  2. It signs an [api.Account]: the sealed profile, and the key of it wrapped under the password. The server checks version and predecessor,
//     records it, and destroys the token's key of the password before.
//  3. A new device sends a blinded password ([Server.Evaluate]). The server counts the try in its log, durably, and only then asks the token.
//  4. With the answer the device makes a proof. If it is the right one ([Server.Open]), the count begins anew and the device gets the account.
//
// A recovery sheet opens the same account without a token, as nobody can guess it ([Server.Kit]).
//
// # Who is trusted for what
//
// The server learns no password and no profile. A copy of all that it stores is worth nothing without its token. Who has host and token PIN can
// try passwords, at the token's speed and Argon2id's price, and the tries do not show in the log if the host does not write them: that is
// what a hostile key server can do, and why a weak password is weak against its operator. The storefront's tokens are needed and not enough: a
// storefront that mints tokens for everybody gets ten tries at each account, and people see that they are locked out.
//
// # What it refuses
//
// The eleventh try ([policies.CodePasswordLocked]), until a signature of the identity begins the count anew. An account of another version
// than the next ([policies.CodeOutdated]): two devices that changed it apart do not overwrite each other. A question that was used before.
// An account that is not there answers like one that is: the same form, the same work, the same count.
//
// A key that another took the place of ([policies.CodeKeyReplaced]). Which key of an identity is in force the vault's log says, and nobody else: a succession counts
// with the vault's receipt of it, whoever signed it. So what was announced and not taken back counts when the vault has put it in force, a thief whom the recovery key
// overruled has no receipt to show, and neither has whoever holds a recovery key that is void. A succession that is recorded here counts for ever, and begins no count
// of tries anew.
//
// # State
//
// The log is the truth and the only store (package keylog): a try is an entry, an account is an entry with its document beside it. It is read at
// the start, and what is kept of each account in memory is some 300 bytes. A log that was put back to an earlier state does not open, because the token
// knows a newer one; so no restored backup gives tries back.
package keyserver

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/vault/keylog"
	"github.com/sallyport/sallyport/vault/keyserver/api"
	"github.com/sallyport/sallyport/vault/pre/password"
)

// KeyID names a key in the token.
type KeyID [32]byte

// probe is the key that imitates accounts which are not there. There is one, made when the log is.
var probe = KeyID(sha256.Sum256([]byte("sallyport/v1/keyserver-probe")))

// Use asks the token for x(k Point).
type Use struct {
	Key   KeyID
	Point [65]byte
}

// Token is what the key server needs of its token. NewKey is durable when it returns nil, and so is Destroy; a key that is not there is
// destroyed.
type Token interface {
	NewKey(ctx context.Context, key KeyID) error
	Derive(ctx context.Context, uses []Use) ([][32]byte, error)
	Destroy(ctx context.Context, key KeyID) error
	Keys(ctx context.Context) ([]KeyID, error)
}

// Log is a key-use log: what Append returned without an error is there for ever.
type Log interface {
	Append(ctx context.Context, records ...keylog.Record) ([]keylog.Position, keylog.Checkpoint, error)
	Replay(ctx context.Context, from int64, f func(keylog.Position, keylog.Record) error) error
	Read(index int64) (keylog.Position, keylog.Record, error)
}

// Config is what a key server is made of.
type Config struct {
	ID     policies.VaultID        // of the ceremony that made the token's keys
	Vault  *policies.VaultDocument // of the vault whose log says which keys of an identity are in force
	Token  Token
	Log    Log
	Logger *slog.Logger
	Now    func() time.Time // nil: time.Now
}

// Server answers devices. Its methods may be called from several goroutines.
type Server struct {
	id     policies.VaultID
	vault  *policies.VaultDocument
	token  Token
	log    Log
	logger *slog.Logger
	now    func() time.Time

	turns [256]sync.Mutex // by the owner's first byte: held over a whole decision, so that the log's order is that of the decisions

	mu       sync.Mutex // guards what follows
	accounts map[policies.OwnerID]*account
	attempts map[policies.DocumentID]attempt
	seen     map[policies.DocumentID]time.Time // questions, until when they could be accepted again
}

// account is the state of an owner. One that was only ever tried has a count and nothing else.
type account struct {
	tried    int
	serial   uint64
	version  uint64
	hash     policies.Hash
	index    int64 // of its entry
	prepared KeyID // the fresh key, zero for none
	key      KeyID // zero: there is no password
	salt     [password.SaltSize]byte
	verifier policies.Hash
	kit      policies.Hash   // its verifier, zero for none
	firsts   []policies.Hash // accounts of version 1 that were taken: a deleted one is not taken again
	// The newest generation of the identity's keys that was seen, if it is not the first, and its document.
	generation uint64
	holder     policies.Hash
}

type attempt struct {
	owner   policies.OwnerID
	expires time.Time
}

const (
	attemptLifetime = 5 * time.Minute
	maxAttempts     = 100_000
	maxSeen         = 100_000
)

// Kinds of entries.
const (
	kindStart   = "keyserver"
	kindPrepare = "prepared"
	kindAccount = "account"
	kindTry     = "try"
	kindOpen    = "opened"
	kindKit     = "kit-opened"
	kindUnlock  = "unlocked"
	kindDelete  = "deleted"
	// kindSuccession: the identity has other keys since. Version is their generation, Hash that of the succession.
	kindSuccession = "succession"
)

// entry is one entry of the log. The ids are pseudonymous; there is nothing of a password in it.
type entry struct {
	Kind    string              `json:"kind"`
	Server  policies.VaultID    `json:"server,omitzero"`
	Owner   policies.OwnerID    `json:"owner,omitzero"`
	Key     policies.DocumentID `json:"key,omitzero"`
	Version uint64              `json:"version,omitzero"`
	Hash    policies.Hash       `json:"hash,omitzero"` // of the account's document, which is the record's body, or of a succession
}

// Create makes the key that imitates accounts, and the log's first entry. It can be repeated until it succeeds.
func Create(ctx context.Context, c Config) error {
	begun := false
	if err := c.Log.Replay(ctx, 0, func(keylog.Position, keylog.Record) error { begun = true; return nil }); err != nil {
		return err
	}
	if begun {
		return errors.New("this log was begun before")
	}
	keys, err := c.Token.Keys(ctx)
	if err != nil {
		return err
	}
	for _, key := range keys { // of an earlier attempt
		if err := c.Token.Destroy(ctx, key); err != nil {
			return err
		}
	}
	if err := c.Token.NewKey(ctx, probe); err != nil {
		return fmt.Errorf("making the token's first key: %w", err)
	}
	return record(ctx, c.Log, entry{Kind: kindStart, Server: c.ID}, nil)
}

// preparedLifetime is how long a key that was prepared outlives a restart. A device names it in the next account within seconds; who does not come back leaves a key that nobody uses.
const preparedLifetime = time.Hour

// Open reads the log and destroys keys of the token that belong to no account: those of passwords that were replaced, and those that were
// prepared more than an hour ago and not used.
func Open(ctx context.Context, c Config) (*Server, error) {
	if c.Vault == nil || c.Vault.Vault == c.ID {
		return nil, errors.New("a key server needs the document of the vault whose receipts it takes, which is not its own ceremony's")
	}
	s := &Server{id: c.ID, vault: c.Vault, token: c.Token, log: c.Log, logger: c.Logger, now: c.Now,
		accounts: map[policies.OwnerID]*account{}, attempts: map[policies.DocumentID]attempt{}, seen: map[policies.DocumentID]time.Time{}}
	if s.now == nil {
		s.now = time.Now
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	first, prepared := true, map[policies.OwnerID]time.Time{}
	err := c.Log.Replay(ctx, 0, func(p keylog.Position, r keylog.Record) error {
		var e entry
		if err := envelope.Decode(r.Entry, &e); err != nil {
			return fmt.Errorf("entry %d: %w", p.Index, err)
		}
		if first != (e.Kind == kindStart) || first && e.Server != c.ID {
			return fmt.Errorf("entry %d: this is not the log of this key server", p.Index)
		}
		first = false
		if e.Kind == kindPrepare {
			prepared[e.Owner] = p.Time
		}
		if err := s.apply(p.Index, &e, r.Body); err != nil {
			return fmt.Errorf("entry %d: %w", p.Index, err)
		}
		return nil
	})
	if err == nil && first {
		err = errors.New("the log is empty; create it first")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the key server's log: %w", err)
	}
	return s, s.sweep(ctx, prepared)
}

// sweep destroys the keys that nobody uses, and says which are missing. prepared is when each owner's was prepared last.
func (s *Server) sweep(ctx context.Context, prepared map[policies.OwnerID]time.Time) error {
	keys, err := s.token.Keys(ctx)
	if err != nil {
		return err
	}
	there := map[KeyID]bool{}
	for _, key := range keys {
		there[key] = true
	}
	used := map[KeyID]bool{probe: true}
	missing := 0
	for owner, a := range s.accounts {
		if a.key != (KeyID{}) {
			if used[a.key] = true; !there[a.key] {
				missing++
			}
		}
		// It is not there either if the process ended before it was made; then nobody knows of it.
		if !there[a.prepared] || s.now().Sub(prepared[owner]) > preparedLifetime {
			a.prepared = KeyID{}
		}
		used[a.prepared] = true
	}
	for _, key := range keys {
		if used[key] {
			continue
		}
		if err := s.token.Destroy(ctx, key); err != nil {
			return fmt.Errorf("destroying key %x, which no account uses: %w", key, err)
		}
	}
	switch {
	case !there[probe]:
		return errors.New("the token does not hold the key that was made with the log; it is not the token of this key server")
	case missing > 0:
		s.logger.Error("the token lacks keys; the passwords of their accounts open nothing, and must be set anew", "keys", missing)
	}
	return nil
}

// apply is how an entry changes the state, at the start as when it is made. It is called with the owner's turn, or before anybody else.
func (s *Server) apply(index int64, e *entry, body []byte) error {
	if e.Kind == kindStart {
		return nil
	}
	s.mu.Lock()
	a := s.accounts[e.Owner]
	if a == nil {
		a = new(account)
		s.accounts[e.Owner] = a
	}
	s.mu.Unlock()
	switch e.Kind {
	case kindTry:
		a.tried++
		return nil
	case kindPrepare:
		a.prepared = KeyID(e.Key)
		return nil
	case kindOpen, kindUnlock:
		a.tried = 0
	case kindDelete:
		a.version, a.hash, a.index, a.prepared, a.key = 0, policies.Hash{}, 0, KeyID{}, KeyID{}
		a.salt, a.verifier, a.kit = [password.SaltSize]byte{}, policies.Hash{}, policies.Hash{}
	case kindKit:
	case kindSuccession:
		a.generation, a.holder = e.Version, e.Hash
	case kindAccount:
		env, err := envelope.Parse(body)
		if err != nil {
			return err
		}
		if env.Hash != e.Hash {
			return errors.New("the document is not the one that was recorded")
		}
		d, err := policies.Decode[api.Account](env)
		if err != nil {
			return err
		}
		if d.Version == 1 {
			a.firsts = append(a.firsts, e.Hash)
		}
		a.tried, a.version, a.hash, a.index, a.prepared = 0, d.Version, e.Hash, index, KeyID{}
		a.key, a.verifier, a.kit = KeyID{}, policies.Hash{}, policies.Hash{}
		if d.Password != nil {
			a.key, a.salt, a.verifier = KeyID(d.Password.Key), [password.SaltSize]byte(d.Password.Salt), d.Password.Verifier
		}
		if d.Kit != nil {
			a.kit = d.Kit.Verifier
		}
	default:
		return fmt.Errorf("an entry of the unknown kind %q", e.Kind)
	}
	a.serial++
	return nil
}

// turn gives the caller the owner's turn.
func (s *Server) turn(owner policies.OwnerID) (done func()) {
	m := &s.turns[owner[0]]
	m.Lock()
	return m.Unlock
}

// state is that of an owner, zero if nothing is known. The caller has the owner's turn.
func (s *Server) state(owner policies.OwnerID) account {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[owner]; a != nil {
		return *a
	}
	return account{}
}

func record(ctx context.Context, log Log, e entry, body []byte) error {
	_, err := appendEntry(ctx, log, e, body)
	return err
}

func appendEntry(ctx context.Context, log Log, e entry, body []byte) (int64, error) {
	text, err := json.Marshal(e, json.Deterministic(true))
	if err != nil {
		return 0, err
	}
	at, _, err := log.Append(ctx, keylog.Record{Entry: text, Body: body})
	switch {
	case err == nil:
		return at[0].Index, nil
	case errors.Is(err, keylog.ErrNoSpace):
		return 0, fmt.Errorf("%w: %w", policies.CodeLogFull, err)
	case errors.Is(err, keylog.ErrClock):
		return 0, fmt.Errorf("%w: %w", policies.CodeClock, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return 0, fmt.Errorf("%w: %w", policies.CodeUnavailable, err)
	}
	return 0, fmt.Errorf("%w: %w", policies.CodeLogStopped, err)
}

// record makes an entry durable, and then part of the state. The caller has the owner's turn.
func (s *Server) record(ctx context.Context, e entry, body []byte) error {
	index, err := appendEntry(ctx, s.log, e, body)
	if err != nil {
		return err
	}
	return s.apply(index, &e, body)
}

func (s *Server) derive(ctx context.Context, uses ...Use) ([][32]byte, error) {
	x, err := s.token.Derive(ctx, uses)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", policies.CodeTokenFailure, err)
	}
	return x, nil
}

// signed verifies a document of a device: the identity certifies itself, its id is the owner's, and the key server is this one. It says by which line of keys it
// did so; whether another key took their place is for [Server.succeed] to say, in the same turn in which the document takes effect.
func signed[T any, D interface {
	*T
	envelope.Document
	Validate() error
}](s *Server, in *api.Signed, subject policies.OwnerID, about func(*T) (policies.VaultID, policies.OwnerID)) (*T, *envelope.Envelope, *succession.Line, error) {
	fail := func(err error) (*T, *envelope.Envelope, *succession.Line, error) { return nil, nil, nil, err }
	e, err := envelope.Parse(in.Identity)
	if err != nil {
		return fail(err)
	}
	identity, id, err := policies.OpenIdentity(e)
	if err != nil {
		return fail(err)
	}
	line, err := s.line(id, identity, in.Successions)
	if err != nil {
		return fail(err)
	}
	key, err := envelope.ParsePublicKey(line.Newest().SigningKey)
	if err != nil {
		return fail(err)
	}
	if e, err = envelope.Parse(in.Document); err != nil {
		return fail(err)
	}
	d, err := policies.Open[T, D](e, key)
	if err != nil {
		return fail(err)
	}
	audience, owner := about(d)
	switch {
	case audience != s.id:
		return fail(policies.CodeWrongVault)
	case policies.IdentityID(owner) != id:
		return fail(problem.New(policies.CodeSignature, "the document is signed by somebody else than it is of"))
	case owner != subject:
		return fail(problem.New(policies.CodeUnauthorized, "the access token is of somebody else"))
	}
	return d, e, &line, nil
}

// line is an identity with its successions, each with the vault's receipt: whether the recovery key was the one in force, and whether the 72 hours of one that it did
// not sign were over and nobody took it back, only the vault's log says.
func (s *Server) line(id policies.IdentityID, identity *policies.Identity, successions []api.Succession) (succession.Line, error) {
	line := succession.Begin(id, identity)
	if len(successions) > api.MaxSuccessions {
		return line, policies.CodeTooLarge
	}
	for _, one := range successions {
		e, err := envelope.Parse(one.Document)
		if err != nil {
			return line, err
		}
		if _, err := line.Take(e); err != nil {
			return line, err
		}
		if one.Receipt == nil {
			return line, problem.New(policies.CodeProof, "a succession without the vault's receipt")
		}
		_, entry, _, err := one.Receipt.Verify(s.vault, policies.Hash(e.Hash))
		if err != nil {
			return line, err
		}
		if entry.Kind != evidence.EntrySuccession {
			return line, problem.New(policies.CodeProof, "the receipt of a succession is for an entry %q", entry.Kind)
		}
	}
	return line, nil
}

// succeed refuses a key of an identity that another took the place of, and remembers a newer one for ever. The caller has the owner's turn and keeps it until what that key
// signed is done.
func (s *Server) succeed(ctx context.Context, owner policies.OwnerID, line *succession.Line) error {
	a := s.state(owner)
	known := a.generation == 0
	for _, h := range line.Holders {
		known = known || h.Document == a.holder
	}
	newest := line.Newest()
	switch {
	case !known || newest.Generation < max(a.generation, 1):
		return policies.CodeKeyReplaced
	case newest.Generation == max(a.generation, 1):
		return nil
	}
	return s.record(ctx, entry{Kind: kindSuccession, Owner: owner, Version: newest.Generation, Hash: newest.Document}, nil)
}

// Ask answers a signed question. subject is whose access token came with it.
func (s *Server) Ask(ctx context.Context, subject policies.OwnerID, in *api.Signed) (*api.Answer, error) {
	q, _, line, err := signed[api.Question](s, in, subject, func(q *api.Question) (policies.VaultID, policies.OwnerID) { return q.Audience, q.Owner })
	if err != nil {
		return nil, err
	}
	if err := q.Live(s.now()); err != nil {
		return nil, err
	}
	if err := s.once(q.ID); err != nil {
		return nil, err
	}
	defer s.turn(q.Owner)()
	if err := s.succeed(ctx, q.Owner, line); err != nil {
		return nil, err
	}
	switch q.Act {
	case api.ActPrepare:
		return s.prepare(ctx, q)
	case api.ActUnlock:
		if q.Serial != s.state(q.Owner).serial {
			return nil, policies.CodeOutdated
		}
		if err := s.record(ctx, entry{Kind: kindUnlock, Owner: q.Owner}, nil); err != nil {
			return nil, err
		}
	case api.ActDelete:
		a := s.state(q.Owner)
		if q.Serial != a.serial {
			return nil, policies.CodeOutdated
		}
		if err := s.record(ctx, entry{Kind: kindDelete, Owner: q.Owner}, nil); err != nil {
			return nil, err
		}
		s.discard(ctx, a.key, a.prepared)
	}
	out := s.answer(q.Owner)
	if q.Act == api.ActState && out.Version > 0 {
		if out.Document, err = s.document(q.Owner); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// once refuses a question that was seen before. What is remembered dies with the process; what a replayed question could then do is bounded by the two
// minutes of its life, and an unlocking by its serial number.
func (s *Server) once(id policies.DocumentID) error {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.seen[id]; again {
		return policies.CodeReplay
	}
	if len(s.seen) >= maxSeen {
		for old, until := range s.seen {
			if now.After(until) {
				delete(s.seen, old)
			}
		}
		if len(s.seen) >= maxSeen {
			return policies.CodeRateLimited
		}
	}
	s.seen[id] = now.Add(api.Lifetime + 3*policies.ClockSkew)
	return nil
}

func (s *Server) answer(owner policies.OwnerID) *api.Answer {
	a := s.state(owner)
	return &api.Answer{Version: a.version, Hash: a.hash, Serial: a.serial, Tried: a.tried}
}

// document reads the newest account's document. The caller has the owner's turn.
func (s *Server) document(owner policies.OwnerID) ([]byte, error) {
	_, r, err := s.log.Read(s.state(owner).index)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", policies.CodeLogStopped, err)
	}
	return r.Body, nil
}

// prepare makes the token's key for the next password. One that was prepared before is given up: an account has at most two keys.
func (s *Server) prepare(ctx context.Context, q *api.Question) (*api.Answer, error) {
	point, err := password.Point([32]byte(q.Blinded))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", policies.CodePoint, err)
	}
	old, id := s.state(q.Owner).prepared, policies.NewDocumentID()
	if err := s.record(ctx, entry{Kind: kindPrepare, Owner: q.Owner, Key: id}, nil); err != nil {
		return nil, err
	}
	s.discard(ctx, old) // not before: until then an account may name it
	if err := s.token.NewKey(ctx, KeyID(id)); err != nil {
		return nil, fmt.Errorf("%w: %w", policies.CodeTokenFailure, err)
	}
	x, err := s.derive(ctx, Use{KeyID(id), point})
	if err != nil {
		return nil, err
	}
	out := s.answer(q.Owner)
	out.Key, out.X = id, x[0][:]
	return out, nil
}

// Put records the next version of an account.
func (s *Server) Put(ctx context.Context, subject policies.OwnerID, in *api.Signed) (*api.Answer, error) {
	d, e, line, err := signed[api.Account](s, in, subject, func(d *api.Account) (policies.VaultID, policies.OwnerID) { return d.Audience, d.Owner })
	if err != nil {
		return nil, err
	}
	defer s.turn(d.Owner)()
	if err := s.succeed(ctx, d.Owner, line); err != nil {
		return nil, err
	}
	a := s.state(d.Owner)
	if e.Hash == a.hash { // the answer to the first one was lost
		return s.answer(d.Owner), nil
	}
	if d.Version != a.version+1 || d.Prev != a.hash {
		return nil, policies.CodeOutdated
	}
	if slices.Contains(a.firsts, policies.Hash(e.Hash)) {
		return nil, problem.New(policies.CodeReplay, "this account was there before, and was deleted")
	}
	if p := d.Password; p != nil && (KeyID(p.Key) != a.prepared && KeyID(p.Key) != a.key) {
		return nil, problem.New(policies.CodeOutdated, "the password's part names another key than the one that was prepared last")
	}
	if p := d.Password; p != nil && KeyID(p.Key) == a.key && p.Verifier != a.verifier {
		return nil, problem.New(policies.CodeMalformed, "another password needs another key; prepare one")
	}
	if err := s.record(ctx, entry{Kind: kindAccount, Owner: d.Owner, Version: d.Version, Hash: e.Hash}, e.Raw); err != nil {
		return nil, err
	}
	now := s.state(d.Owner)
	for _, old := range []KeyID{a.key, a.prepared} {
		if old != now.key {
			s.discard(ctx, old)
		}
	}
	return s.answer(d.Owner), nil
}

// discard destroys keys that no account uses any more. What fails the next start does.
func (s *Server) discard(ctx context.Context, keys ...KeyID) {
	for _, key := range keys {
		if key == (KeyID{}) {
			continue
		}
		if err := s.token.Destroy(context.WithoutCancel(ctx), key); err != nil {
			s.logger.Error("a key that is not used any more could not be destroyed", "error", err.Error())
		}
	}
}

// Evaluate answers one try at one password. It is counted before the token is asked: whoever gets an answer has paid for it, and so has who is
// killed, or hangs up, in between.
func (s *Server) Evaluate(ctx context.Context, subject policies.OwnerID, in *api.Evaluation) (*api.Evaluated, error) {
	if in.Owner != subject {
		return nil, problem.New(policies.CodeUnauthorized, "the access token is of somebody else")
	}
	if len(in.Blinded) != 32 {
		return nil, policies.CodeMalformed
	}
	blinded := [32]byte(in.Blinded)
	point, err := password.Point(blinded)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", policies.CodePoint, err)
	}
	defer s.turn(in.Owner)()
	if s.state(in.Owner).tried >= api.Tries {
		return nil, policies.CodePasswordLocked
	}
	id := policies.NewDocumentID()
	if err := s.hold(id, in.Owner); err != nil {
		return nil, err
	}
	if err := s.record(ctx, entry{Kind: kindTry, Owner: in.Owner}, nil); err != nil {
		return nil, err
	}
	// The same work whether there is an account or not: two derivations by the token and one here.
	a := s.state(in.Owner)
	key := a.key
	if key == (KeyID{}) {
		key = probe
	}
	x, err := s.derive(ctx, Use{probe, password.Probe(in.Owner)}, Use{key, point})
	if err != nil {
		return nil, err
	}
	answer, salt, err := password.Imitate(x[0], in.Owner, blinded)
	if err != nil {
		return nil, err
	}
	if a.key != (KeyID{}) {
		answer, salt = x[1], a.salt
	}
	return &api.Evaluated{Attempt: id, X: answer[:], Salt: salt[:], Left: api.Tries - a.tried}, nil
}

// hold keeps an attempt for its one proof.
func (s *Server) hold(id policies.DocumentID, owner policies.OwnerID) error {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.attempts) >= maxAttempts {
		for old, a := range s.attempts {
			if now.After(a.expires) {
				delete(s.attempts, old)
			}
		}
		if len(s.attempts) >= maxAttempts {
			return policies.CodeRateLimited
		}
	}
	s.attempts[id] = attempt{owner, now.Add(attemptLifetime)}
	return nil
}

// take hands an attempt out once.
func (s *Server) take(id policies.DocumentID) (policies.OwnerID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.attempts[id]
	delete(s.attempts, id)
	return a.owner, ok && !s.now().After(a.expires)
}

// Open gives the account to who proves the password. Each attempt takes one proof.
func (s *Server) Open(ctx context.Context, subject policies.OwnerID, in *api.Proof) (*api.Opened, error) {
	owner, ok := s.take(in.Attempt)
	switch {
	case !ok:
		return nil, problem.New(policies.CodeNotFound, "no such attempt, or it was used, or it is older than five minutes")
	case owner != subject:
		return nil, problem.New(policies.CodeUnauthorized, "the access token is of somebody else")
	}
	return s.prove(ctx, owner, in.Proof, kindOpen, policies.CodePasswordWrong, func(a account) policies.Hash { return a.verifier })
}

// Kit gives the account to who has the recovery sheet. It is not counted: the sheet holds 160 random bits.
func (s *Server) Kit(ctx context.Context, subject policies.OwnerID, in *api.KitProof) (*api.Opened, error) {
	if in.Owner != subject {
		return nil, problem.New(policies.CodeUnauthorized, "the access token is of somebody else")
	}
	return s.prove(ctx, in.Owner, in.Proof, kindKit, policies.CodeKitWrong, func(a account) policies.Hash { return a.kit })
}

func (s *Server) prove(ctx context.Context, owner policies.OwnerID, proof []byte, kind string, wrong policies.Code, verifier func(account) policies.Hash) (*api.Opened, error) {
	if len(proof) != 32 {
		return nil, policies.CodeMalformed
	}
	defer s.turn(owner)()
	want := verifier(s.state(owner))
	got := password.Verifier(owner, [32]byte(proof))
	// No hash is all zero, so an account without a verifier takes no proof.
	if subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
		return nil, wrong
	}
	if err := s.record(ctx, entry{Kind: kind, Owner: owner}, nil); err != nil {
		return nil, err
	}
	raw, err := s.document(owner)
	if err != nil {
		return nil, err
	}
	return &api.Opened{Document: raw}, nil
}
