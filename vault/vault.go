// Package vault decides whether a re-encryption key may be used, records the decision, and only then has the token use it.
//
// # The normal path
//
// A vault is made once: [Create] writes the first entry of its key-use log. At each start [Open] makes the state from the log,
// finishes what a crash left half done and removes keys from the token that no grant stands for. Then it serves two calls.
//
// [Vault.Submit] takes signed documents: enrolments, owners' manifests, grants and revocations, readers' sessions. Each is verified under
// the key of the identity that it must be from, must be the next of its chain, is recorded, and is answered with a receipt: the
// log's own proof that it is in force.
//
// [Vault.Reencrypt] takes readers' signed requests and what the storefront found for them, and answers each reader under a key
// that the storefront does not have. It is the page that matters; read it first.
//
// # Decide, record durably, act
//
// Every decision goes through one place, Vault.record. One goroutine takes the decisions that are waiting, makes them one
// after the other, records them (many reads, or many grants, in one commit of the log), and lets their callers act. So the order of the decisions is the order of
// the log: no use stands behind the revocation that forbids it, no head moves between a decision and its record, and an auditor
// who replays the log meets each decision in the state in which it was made. No record, no derive.
//
// What is decided and not yet done is counted by key. A revocation is recorded first, which refuses all later uses; then it waits until the
// uses decided before it are over; then the token destroys the keys, which is recorded too; then it is acknowledged.
//
// # Custody
//
// A grant names its custody. Resident: the key is an object of the token, which it never leaves. Sealed: the token wraps the key under a sealing key and
// the vault keeps it, for more grants than a token has room for; sealing.go says how. Of a sealed key that was revoked the host may have kept a copy,
// which the token would take for as long as it has that sealing key. So sealing keys have periods: when the security officer makes the next one,
// the vault moves all keys to it and destroys the one before.
//
// # What it refuses
//
// It never takes the storefront's word. An item is re-encrypted only if its leaf is proven under the newest manifest that this vault
// accepted, is the one that was asked for, and is of the slot that the grant names. A nonce is used once, a grant's id too, limits are counted
// over restarts. Refusals of callers whose signature verified are recorded one by one, up to an allowance ([Limits]), others as a count. The operator's guardrails, when there are
// some, narrow what [policies.Check] permits in the same place.
//
// If the log cannot record, nothing is done. That state sticks until the vault is opened again, which verifies the log; only a disk that is
// nearly full is a state that passes when there is room.
//
// # What the caller owes
//
// A [Token] that keeps its promises, a log that belongs to the token, the vault document that the ceremony signed, and one Vault
// to a log. The daemon in cmd/sallyport-vault puts them together.
package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/redact"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/internal/ledger"
	"github.com/sallyport/sallyport/vault/internal/sealed"
	"github.com/sallyport/sallyport/vault/keylog"
	"github.com/sallyport/sallyport/vault/pre"
)

// KeyID names a re-encryption key in the token: SHA-256(Encode("key-id", grant id, field, author)). It is used once, ever.
type KeyID [32]byte

func keyID(grant policies.DocumentID, field policies.Field, author policies.AuthorID) KeyID {
	return sha256.Sum256(policies.Encode("key-id", grant[:], []byte(field), author[:]))
}

// String is as tools show the key's CKA_ID.
func (k KeyID) String() string { return hex.EncodeToString(k[:]) }

// KeyCheck tells one re-encryption key from another, whatever name the token's host gives it: 16 bytes of a hash of x(rk·G). It is in the `grant`
// entry, so that a revocation destroys the key that was granted. The zero value, of grants before it was there, checks nothing.
type KeyCheck [evidence.KeyCheckSize]byte

// SealedKey is a re-encryption key outside the token, wrapped under the sealing key of a period.
type SealedKey struct {
	Period uint32
	Blob   []byte
}

// Use asks the token to use a key on a point, 04 || x || y, which the vault has found to be on the curve. A key that the token does not hold
// comes along, sealed.
type Use struct {
	Key    KeyID
	Point  [65]byte
	Sealed SealedKey // an empty Blob: a resident key
}

// Derived is x(rk·E), or why there is none. The vault zeroes it.
type Derived struct {
	X   [32]byte
	Err error
}

// WrappedKey is a re-encryption key on its way into the token: wrapped under the token's import key, by the import path that the grant names.
type WrappedKey struct {
	Key     KeyID
	Path    string
	Wrapped []byte
}

// Imported is what came of the import of a resident key.
type Imported struct {
	Check KeyCheck
	Err   error
}

// EndingKey is a resident key that is to be destroyed.
type EndingKey struct {
	Key   KeyID
	Check KeyCheck
}

// Token is what the vault needs of a PKCS#11 device.
type Token interface {
	// Import unwraps keys, each for itself, and answers in their order. One without an error is a P-256 key that derives, and would survive a power cut. Of one
	// with an error nothing stays behind, except after ErrKeyExists the key that was there before.
	Import(ctx context.Context, keys []WrappedKey) []Imported
	// Derive carries out uses, each for itself, and answers in their order.
	Derive(ctx context.Context, uses []Use) []Derived
	// Destroy removes keys for good, each for itself, and answers in their order. nil says that the key is gone, durably. ErrKeyMissing says that it was not
	// there, durably. With a check value it removes that key and no other: ErrKeyRenamed says that it lay under another name, and is gone, durably.
	Destroy(ctx context.Context, keys []EndingKey) []error
	// Keys are the names of the re-encryption keys that the token holds. Of a disputed one among them it holds several different keys, or cannot tell, and uses none.
	Keys(ctx context.Context) (held, disputed []KeyID, err error)

	// ImportSealed unwraps a key, makes sure that it works, and returns it wrapped under the newest sealing key. Nothing of it stays in the token.
	ImportSealed(ctx context.Context, key WrappedKey) (SealedKey, error)
	// Forget ends the life of a sealed key in the token. When it returns nil no use of it is under way and none will be, also if it comes along again.
	Forget(ctx context.Context, key KeyID) error
	// Reseal moves keys to the newest sealing key, inside the token. It moves all of them, or none and fails; ErrKeyMissing says that one does not unwrap.
	Reseal(ctx context.Context, keys []SealedKey) ([]SealedKey, error)
	// SealingKeys are the periods of the sealing keys that the token has now, ascending. From then on ImportSealed and Reseal use the last of them.
	// Decoys is how many keys only call themselves sealing keys, and are passed over.
	SealingKeys(ctx context.Context) (periods []uint32, decoys int, err error)
	// DestroySealingKey destroys the sealing key of a period for good, also if it was not there, but never the newest.
	DestroySealingKey(ctx context.Context, period uint32) error
}

// Errors of a [Token] that the vault tells apart.
var (
	// ErrKeyMissing: the token holds no such key.
	ErrKeyMissing = errors.New("key is not in the token")
	// ErrKeyRenamed: the key was under another name, and is destroyed.
	ErrKeyRenamed = errors.New("key was under another name in the token")
	// ErrKeyExists: the token holds a key of this id already.
	ErrKeyExists = errors.New("key is in the token already")
	// ErrKeyStuck: the token refuses to destroy the key. A host with the PIN made it so.
	ErrKeyStuck = errors.New("the token refuses to destroy the key")
	// ErrTokenFull: the token, or the disk on which it rests, has no room for another key, or for the log's state.
	ErrTokenFull = errors.New("no room in the token")
)

// ErrOldDocument: the vault document is not the newest that the vault was started with. Its file was put back to an older state.
var ErrOldDocument = errors.New("the vault document is an old one")

// Config is everything a Vault is made of.
type Config struct {
	redact.Redacted

	// Envelope is the vault document as the ceremony signed it; Document is its verified content.
	Envelope *envelope.Envelope
	Document *policies.VaultDocument

	// Token is the one token that the document enrols, Serial its serial number. Grade and Findings are what the light probe
	// said of it, for the log.
	Token    Token
	Serial   string
	Grade    string
	Findings string

	// Log is the open key-use log. The Vault is its only writer. The caller closes it, after the Vault.
	Log *keylog.Log

	// ImportKey opens re-encryption keys on their way to the token, SessionKey opens sessions. The document carries their
	// public halves. The Vault zeroes both at Close.
	ImportKey  *pre.BlobKey
	SessionKey *pre.VaultKey

	// Dir is the folder of the database, DataKey seals what is in it. An empty Dir means no database: every start replays all of the log.
	Dir     string
	DataKey [32]byte

	// Keys is the folder of the sealed keys. It is needed if the document offers custody sealed, or ever did and grants of it are in force.
	Keys string
	// SealingCheck is how often the vault looks for a new sealing key. Zero means a minute.
	SealingCheck time.Duration
	// Reserve is the free space in bytes below which no sealed key is taken and the database is not written. Zero means 256 MiB.
	Reserve int64
	// KeepBodies is how long what lies beside entries is kept, as far as no state rests on it. Zero: for ever; else 48 hours at least.
	KeepBodies time.Duration
	// Auditors may have all entries of the log, and what lies beside them.
	Auditors []policies.IdentityID
	// Operators may freeze an owner, two of them together. With fewer than two on the list nobody is ever frozen.
	Operators []policies.IdentityID
	// Limits bound what callers can add to the log and to memory.
	Limits Limits

	Logger *slog.Logger

	// Clock is the wall clock. Nil means the system's.
	Clock func() time.Time
}

// Vault is an open vault. Its methods may be called from any goroutine.
type Vault struct {
	cfg      Config
	document policies.Hash
	ledger   *ledger.Ledger

	decisions chan *pending // to run
	fault     error         // run's own: why nothing can be applied any more
	stopped   bool          // run's own: the last commit failed
	recorder  sync.WaitGroup
	chores    sync.WaitGroup
	warned    time.Time    // of the disk, by the chores
	lost      atomic.Int64 // keys of grants in force that were not there at the start
	disputed  atomic.Int64 // and those of whose names there were several
	closing   chan struct{}
	closeOnce sync.Once
	closeErr  error

	mu       sync.RWMutex // held for reading while a decision is handed to run; guards closed
	closed   bool
	owners   ownerLocks
	flights  flights
	keys     sessionKeys
	refused  refusalCount
	accesses accesses
	answers  answers
	erased   atomic.Uint64 // below it, what may be erased is

	accountClosed chan struct{} // to keepEnding
	closedMu      sync.Mutex    // guards closedEntries
	closedEntries [][]uint64    // see ErasedAccounts
	quotas        quotas
	sealing       sealing
}

// flushTries bounds how often a flush asks where the log stands.
const flushTries = 16

// spaceWarning is how long before its disk is full the log warns.
const spaceWarning = 72 * time.Hour

// Create writes the first entry of an empty log: which vault it belongs to, under which vault document.
func Create(ctx context.Context, log *keylog.Log, e *envelope.Envelope, d *policies.VaultDocument) error {
	if log.Checkpoint().Size != 0 {
		return fmt.Errorf("creating a vault: %w", keylog.ErrExists)
	}
	genesis := ledger.Record{
		Kind: evidence.EntryGenesis, Outcome: policies.CodeAccepted,
		Details: evidence.Details{Document: e.Hash}, Raw: e.Raw, Document: d,
	}
	if _, _, err := log.Append(ctx, genesis.Seal()); err != nil {
		return fmt.Errorf("creating a vault: %w", err)
	}
	return nil
}

// Open opens a vault. When it returns, everything that a crash left half done is finished and recorded.
func Open(ctx context.Context, cfg Config) (*Vault, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("opening the vault: %w", err)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	limits, err := cfg.Limits.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("opening the vault: %w", err)
	}
	cfg.Limits = limits
	var store *sealed.Store
	var storeErr error
	var opening sync.WaitGroup
	opening.Go(func() { store, storeErr = openSealed(&cfg) })
	state, err := ledger.Open(ctx, ledger.Config{Dir: cfg.Dir, DataKey: cfg.DataKey, Reserve: cfg.Reserve, Log: cfg.Log, Logger: cfg.Logger})
	opening.Wait()
	clear(cfg.DataKey[:])
	if err = errors.Join(err, storeErr); err != nil {
		if state != nil {
			_ = state.Close()
		}
		if store != nil {
			_ = store.Close()
		}
		return nil, fmt.Errorf("opening the vault: %w", err)
	}
	v := &Vault{
		cfg: cfg, document: cfg.Envelope.Hash, ledger: state,
		decisions: make(chan *pending, 256), closing: make(chan struct{}), accountClosed: make(chan struct{}, 1),
	}
	v.owners.init()
	v.flights.init()
	v.keys.init()
	v.refused.init()
	v.accesses.init()
	v.answers.init()
	v.quotas.init(cfg.Limits)
	v.sealing.store = store
	if err := v.checkDocument(); err != nil {
		v.release()
		return nil, fmt.Errorf("opening the vault: %w", err)
	}
	if err := v.startSealing(ctx); err != nil {
		v.release()
		return nil, fmt.Errorf("opening the vault: %w", err)
	}
	v.endSessions() // the replay met all that ever were
	v.recorder.Go(v.run)
	if err := v.start(ctx); err != nil {
		v.shut()
		return nil, fmt.Errorf("opening the vault: %w", err)
	}
	v.chores.Go(v.keep)
	v.chores.Go(v.keepErasing)
	v.chores.Go(v.keepEnding)
	if v.sealing.store != nil {
		v.chores.Go(v.keepSealing)
	}
	return v, nil
}

// checkDocument refuses a vault document that is not of this log's vault, or older than one that the vault was started with before. What a newer one
// takes back, a key above all, an older one would bring again. Two of one version are a mistake of the ceremony, or no work of it.
func (v *Vault) checkDocument() error {
	var vault policies.VaultID
	var seen ledger.VaultDocument
	v.ledger.Read(func(s *ledger.State) { vault, seen = s.Vault(), s.VaultDocument() })
	d := v.cfg.Document
	switch {
	case vault != d.Vault:
		return fmt.Errorf("the key-use log belongs to vault %s, the vault document to %s", vault, d.Vault)
	case d.Version < seen.Version:
		return fmt.Errorf("%w: it is version %d, and the vault was started with version %d before; put the newest back", ErrOldDocument, d.Version, seen.Version)
	case d.Version == seen.Version && v.document != seen.Hash:
		return fmt.Errorf("%w: another one of version %d was in use before; the ceremony gives each a version of its own", ErrOldDocument, d.Version)
	}
	return nil
}

func (c *Config) validate() error {
	switch {
	case c.Envelope == nil || c.Document == nil || c.Token == nil || c.Log == nil || c.ImportKey == nil || c.SessionKey == nil || c.Logger == nil:
		return errors.New("document, token, log, keys and logger are required")
	case c.KeepBodies < 0 || c.KeepBodies > 0 && c.KeepBodies < leastKeep:
		return errKeep
	case c.Log.Checkpoint().Size == 0:
		return errors.New("the key-use log is empty: create the vault first")
	case len(c.Document.Tokens) != 1 || c.Document.Tokens[0].Serial != c.Serial:
		return fmt.Errorf("the vault document must enrol the token %q and no other", c.Serial)
	case !bytes.Equal(c.ImportKey.Public(), c.Document.ImportHPKE):
		return errors.New("the import key is not the one in the vault document")
	case !bytes.Equal(c.SessionKey.Public(), c.Document.SessionKEM):
		return errors.New("the session key is not the one in the vault document")
	}
	return nil
}

// start records the start and finishes what a crash left half done.
func (v *Vault) start(ctx context.Context) error {
	_, _, err := v.record(ctx, func(*ledger.State, time.Time) []ledger.Record {
		return []ledger.Record{{
			Kind: evidence.EntryStart, Outcome: policies.CodeAccepted, Raw: v.cfg.Envelope.Raw, Details: evidence.Details{
				Document: v.document, Version: v.cfg.Document.Version, Token: v.cfg.Serial, Grade: v.cfg.Grade, Note: v.cfg.Findings,
			},
		}}
	})
	if err != nil {
		return err
	}
	var imports []*ledger.Grant
	var undone []*ledger.Revocation
	v.ledger.Read(func(s *ledger.State) { imports, undone = s.Imports(), s.Undone() })
	for _, r := range undone {
		switch err := v.destroy(ctx, r); {
		case errors.Is(err, ErrKeyStuck): // whoever can have that cannot keep the vault from starting by it
			v.cfg.Logger.Error("a revocation is still not completed: it is refused, and sent again it tries again", "entry", r.Index, "error", err.Error())
		case err != nil:
			return err
		}
	}
	for _, g := range imports {
		if err := v.abandon(ctx, g); err != nil {
			return err
		}
	}
	return v.sweep(ctx)
}

// sweep destroys keys in the token that no grant in force stands for: what an import left behind whose process died.
func (v *Vault) sweep(ctx context.Context) error {
	held, disputed, err := v.cfg.Token.Keys(ctx)
	if err != nil {
		return fmt.Errorf("listing the token's keys: %w", err)
	}
	wanted, ending, sealedWanted := map[KeyID]bool{}, map[KeyID]bool{}, map[sealed.ID]bool{}
	v.eachKey(func(key KeyID, g *ledger.Grant, _ *policies.GrantedField, closed bool) {
		switch {
		case closed: // destroyed with a record, which says what became of it: see keepEnding
			ending[key] = true
		case g.Document.Custody != policies.CustodySealed:
			wanted[key] = true
		}
		if g.Document.Custody == policies.CustodySealed {
			sealedWanted[sealed.ID(key)] = true
		}
	})
	var orphans []*end
	for _, key := range held {
		switch {
		case wanted[key]:
			delete(wanted, key)
		case !ending[key]:
			orphans = append(orphans, &end{key: key})
		}
	}
	v.destroyResident(ctx, orphans)
	destroyed := 0
	for _, e := range orphans {
		switch {
		case errors.Is(e.err, ErrKeyStuck):
			v.cfg.Logger.Error("a key that no grant stands for cannot be destroyed: somebody with the PIN made it so. The vault does not use it; stop it and remove the object with the token's own tools", "key", e.key.String())
		case e.err != nil && !errors.Is(e.err, ErrKeyMissing):
			return fmt.Errorf("destroying a key that no grant stands for: %w", e.err)
		default:
			destroyed++
		}
	}
	if destroyed > 0 {
		v.cfg.Logger.Info("destroyed keys that no grant stands for", "keys", destroyed)
	}
	if len(wanted) > 0 {
		v.cfg.Logger.Error("keys of grants in force are not in the token; their owners must grant again", "keys", len(wanted), "token", v.cfg.Serial)
		v.lost.Add(v.nameLost("it is not in the token", func(key KeyID) bool { return wanted[key] }))
	}
	if len(disputed) > 0 {
		several := make(map[KeyID]bool, len(disputed))
		for _, key := range disputed {
			several[key] = true
		}
		v.disputed.Add(v.nameLost("the token has different keys of this name, of which it uses none: somebody with the PIN made or changed one", func(key KeyID) bool { return several[key] }))
	}
	return v.sweepSealed(sealedWanted, ending)
}

// keep does the chores: counts of refusals and accesses, and imports without an end, every second, ended sessions and the log's health every minute, the database every minute and whenever it is
// far behind the log.
func (v *Vault) keep() {
	second, minute := time.NewTicker(time.Second), time.NewTicker(ledger.FlushInterval)
	flushed := true // at the last attempt
	defer second.Stop()
	defer minute.Stop()
	for {
		select {
		case <-v.closing:
			return
		case <-second.C:
			v.recordRefusals()
			v.recordCounts(false)
			v.recordAccesses(false)
			v.endImports(context.Background())
			if flushed && v.ledger.Behind() >= ledger.FlushRecords {
				flushed = v.flush()
			}
		case <-minute.C:
			v.endSessions()
			flushed = v.flush()
			if err := v.cfg.Log.Health(); err != nil {
				v.cfg.Logger.Error("the key-use log is not well", "error", err.Error())
			}
			v.forecast()
		}
	}
}

// forecast warns, once in an hour, of a disk that will be full soon.
func (v *Vault) forecast() {
	now := v.cfg.Clock()
	s, err := v.cfg.Log.Space()
	if err != nil || s.PerHour <= 0 || s.Left() > spaceWarning || now.Sub(v.warned).Abs() < time.Hour {
		return
	}
	v.warned = now
	v.cfg.Logger.Warn("the key-use log's disk will be full soon; then no key is used", "left", s.Left().Round(time.Minute).String(), "bytes_an_hour", s.PerHour, "bytes_left", s.Free)
}

// endSessions forgets sessions that nobody can use any more, and what was counted on days that are over. The delay is longer than any request lives, so no key is zeroed that
// a request on its way still needs.
func (v *Vault) endSessions() {
	var ended []policies.Hash
	before := v.cfg.Clock().Add(-policies.RequestLifetime - policies.ClockSkew)
	v.ledger.Write(func(s *ledger.State) {
		ended = s.EndSessions(before)
		s.EndDays(before)
		s.EndQueries(before)
	})
	for _, hash := range ended {
		v.keys.forget(hash)
	}
}

// flush writes the database. A commit that comes between the question where the log stands and the answer makes it ask again.
func (v *Vault) flush() bool {
	for range flushTries {
		cp := v.cfg.Log.Checkpoint()
		if err := v.ledger.Flush(policies.Hash(cp.Root), uint64(cp.Size)); err != nil {
			v.cfg.Logger.Error("the vault's database was not written", "error", err.Error())
			return false
		}
		if v.ledger.Behind() < ledger.FlushRecords/2 {
			break
		}
	}
	return true
}

// Close records the stop and brings the database up to date. The caller has ended its calls before; later ones are refused.
func (v *Vault) Close(ctx context.Context) error {
	v.closeOnce.Do(func() {
		close(v.closing)
		v.chores.Wait()
		v.recordRefusals()
		v.recordCounts(true)
		v.recordAccesses(true)
		_, _, v.closeErr = v.record(ctx, func(*ledger.State, time.Time) []ledger.Record {
			return []ledger.Record{{Kind: evidence.EntryStop, Outcome: policies.CodeAccepted}}
		})
		v.shut()
	})
	return v.closeErr
}

// shut ends the recorder and lets go of everything.
func (v *Vault) shut() {
	v.mu.Lock()
	v.closed = true
	close(v.decisions)
	v.mu.Unlock()
	v.recorder.Wait()
	v.flush()
	v.release()
}

// release closes what is open on disk and zeroes what is secret.
func (v *Vault) release() {
	if err := v.ledger.Close(); err != nil {
		v.cfg.Logger.Error("closing the vault's database", "error", err.Error())
	}
	if v.sealing.store != nil {
		if err := v.sealing.store.Close(); err != nil {
			v.cfg.Logger.Error("closing the file of sealed keys", "error", err.Error())
		}
	}
	v.keys.zero()
	v.cfg.ImportKey.Zero()
	v.cfg.SessionKey.Zero()
}

// Health tells whether keys can be used. Anybody may ask, so the reason is the kind of the fault and names no file; the rest is logged.
func (v *Vault) Health() api.Health {
	h := api.Health{Status: "ok", DevMode: v.cfg.Document.DevMode, LogSize: uint64(v.cfg.Log.Checkpoint().Size)}
	v.ledger.Read(func(s *ledger.State) {
		h.Resident, h.Sealed = uint64(s.Keys(policies.CustodyResident)), uint64(s.Keys(policies.CustodySealed))
		if in := s.Rules(); len(in.Set.Names()) > 0 {
			h.Guardrails = &api.Guardrails{Document: in.Document, Index: in.Index, Rules: len(in.Set.Names())}
		}
	})
	h.Keys, h.Custodies, h.Sealing, h.Disputed = h.Resident+h.Sealed, v.custodies(), v.sealing.health(), uint64(v.disputed.Load())
	if s, err := v.cfg.Log.Space(); err == nil {
		h.Space = &api.Space{Free: uint64(s.Free), PerHour: uint64(max(s.PerHour, 0))}
		if s.PerHour > 0 {
			days := math.Floor(s.Left().Hours()/24*10) / 10
			h.Space.DaysLeft = &days
		}
	}
	err := v.cfg.Log.Health()
	if reason := v.keysTrouble(); reason != "" && (err == nil || goesOn(err)) {
		h.Status, h.Reason = "degraded", reason
		return h
	}
	if err == nil {
		var reasons []string
		if n := v.lost.Load(); n > 0 {
			reasons = append(reasons, fmt.Sprintf("lost keys of grants in force at the start: %d; the log of the vault names them", n))
		}
		if n := v.disputed.Load(); n > 0 {
			reasons = append(reasons, fmt.Sprintf("keys of grants in force that are in the token beside others of the same name, and not used: %d; the log of the vault names them", n))
		}
		h.Reason = strings.Join(reasons, ". ")
		return h
	}
	if !goesOn(err) {
		h.Status = "stopped"
	}
	h.Reason = "the key-use log cannot record; the log of the vault says why"
	for _, kind := range []error{ErrTokenFull, keylog.ErrStaleCopy, keylog.ErrCold, keylog.ErrNoSpace, keylog.ErrClock, keylog.ErrClosed, keylog.ErrFatal} {
		if errors.Is(err, kind) {
			h.Reason = kind.Error()
			break
		}
	}
	return h
}

// goesOn tells whether keys are used in spite of what is wrong with the log.
func goesOn(err error) bool {
	return errors.Is(err, keylog.ErrStaleCopy) || errors.Is(err, keylog.ErrCold)
}

// Document is the vault document's envelope.
func (v *Vault) Document() *envelope.Envelope { return v.cfg.Envelope }
