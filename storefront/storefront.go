// Package storefront is the public door of Sallyport: it keeps people's ciphertext and signed documents, and carries reads
// between businesses and the vault. It is trusted for availability and nothing else. It holds no secret that helps to read
// anything, and it never sees a re-encrypted capsule: the vault's answers are sealed to the reader.
//
// # The normal path
//
// A daemon opens a store, connects to a vault and calls [New]; [Storefront.Handler] serves the routes, which are a table
// (routes.go). A person or business registers an identity, which certifies itself and is enrolled at the vault, logs in
// (login.go: no device ever returns a decapsulated secret, and there is no bearer token), and from then on signs every request.
//
// An owner publishes (publish.go). The vault's head is the only commit point, so a publication is written here as pending
// first, in one synced transaction with its items; then the vault decides; then what was pending becomes current in a second
// transaction. After a crash or a time-out the pending manifest is sent again: at start, and before the next operation of that owner.
// The vault answers the same manifest with the same receipt.
//
// An owner grants and revokes (documents.go). The storefront passes a grant's sealed keys on and keeps no copy of them. What the
// vault accepted is indexed; an index that a crash lost is made good when the client, which has no receipt, sends the same document again.
//
// A reader reads (reads.go): the storefront adds to the reader's own signed request, for each item, the leaf, its proof and
// the grant, has the vault decide and re-encrypt, and adds the ciphertext to what was released.
//
// # What it refuses
//
// Requests that are not signed by a login of the right party, signed for another server, or sent before; bodies over the
// route's bound; callers over their rate; leaves whose root is not the manifest's or whose ciphertext is missing; writes when the disk is
// nearly full. It does not check again what the vault and the clients check: signatures of manifests, grants, sessions and
// requests are the vault's business, and nobody takes the storefront's word for them. Errors are RFC 9457 problem documents.
//
// # What the caller owes
//
// A [Store] that keeps its word about durability and a [Vault]; TLS in front of Handler; [Storefront.Close] before the store is closed.
package storefront

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/pairing"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/internal/store"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/gate"
)

// Store is the durability that the storefront counts on. Commit applies all changes or none, and when it returns nil they survive
// a power cut. Get and Scan return records as they were committed or an error, never something else. A key's absence proves nothing.
type Store interface {
	Get(ctx context.Context, key []byte) (store.Record, error)
	Scan(ctx context.Context, prefix, after []byte, limit int) ([]store.Record, error)
	Commit(ctx context.Context, changes ...store.Change) error
	Health() error
}

// Vault is what the storefront asks of a vault. Errors are problems: what is not a refusal by the vault is CodeUnavailable.
type Vault interface {
	// Submit has the vault act on a signed document. The same document again gets the same receipt.
	Submit(ctx context.Context, s vaultapi.Submission) (*evidence.Receipt, error)
	// Reencrypt has the vault decide about one read request. Concurrent calls may share a connection.
	Reencrypt(ctx context.Context, c vaultapi.Call) (vaultapi.Reply, error)
	Vault(ctx context.Context) (*envelope.Envelope, error)
	Chain(ctx context.Context, owner policies.OwnerID) (*vaultapi.ChainState, error)
	Head(ctx context.Context, owner policies.OwnerID, author policies.AuthorID) (*vaultapi.HeadState, error)
	History(ctx context.Context, owner policies.OwnerID, before uint64, limit int) (*vaultapi.History, error)
	Freeze(ctx context.Context, owner policies.OwnerID) (*vaultapi.FreezeState, error)
	Consistency(ctx context.Context, from, to uint64) (*vaultapi.Consistency, error)
	// Evidence has the vault answer a reader's signed request for evidence, for the reader alone.
	Evidence(ctx context.Context, request []byte) (*vaultapi.SealedEvidence, error)
	Health(ctx context.Context) (*vaultapi.Health, error)
}

// Options are what a storefront is made of.
type Options struct {
	Store Store
	Vault Vault
	Log   *slog.Logger // nil: nothing is logged

	// Names are the hosts, with or without a port, by which clients know this server. A login or a signed request for any other is
	// refused, so that another server cannot pass on what was meant for it. If there are none, the names are those of Certificate.
	Names       []string
	Certificate *x509.Certificate

	Limits Limits
}

// Storefront answers requests. Its methods may be used from any number of goroutines.
type Storefront struct {
	store  Store
	vault  Vault
	log    *slog.Logger
	names  names
	limits Limits
	now    func() time.Time

	logins   logins
	tokens   tokens
	meetings meetings
	sessions sessions
	callers  limiters
	memory   *gate.Budget[string]

	locks   locks
	shelves *lru[slot, *shelf]      // replaced only under the slot's lock
	grants  *lru[pair, *grantSet]   // replaced only under the lock of the owner's own slot
	ciphers *lru[cipherKey, []byte] // never change
	cached  cachedVault

	mailboxes *lru[policies.IdentityID, *mailbox] // replaced and changed only under the lock of the mailbox
	waiters   waiters

	collector collector
	early     early
	stop      context.CancelFunc
	running   sync.WaitGroup
}

// New makes a storefront and begins, in the background, to complete what an earlier process left pending.
func New(o Options) (*Storefront, error) {
	if o.Store == nil || o.Vault == nil {
		return nil, errors.New("a storefront needs a store and a vault")
	}
	if len(o.Names) == 0 && o.Certificate == nil {
		return nil, errors.New("a storefront needs names, or a certificate that has them")
	}
	limits, err := o.Limits.WithDefaults()
	if err != nil {
		return nil, err
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Storefront{
		store: o.Store, vault: o.Vault, log: log, limits: limits, now: time.Now,
		names:   names{configured: o.Names, certificate: o.Certificate},
		shelves: newLRU[slot, *shelf](limits.CachedLeaves),
		grants:  newLRU[pair, *grantSet](limits.CachedLeaves),
		ciphers: newLRU[cipherKey, []byte](limits.CachedBytes),
		memory:  gate.NewBudget[string](limits.Memory, limits.MemoryEach),
		callers: limiters{lru: newLRU[string, *limiter](limits.Callers)},
	}
	s.mailboxes = newLRU[policies.IdentityID, *mailbox](limits.CachedLeaves)
	s.logins.init()
	s.tokens.init()
	s.meetings.of = map[pairing.Code]*meeting{}
	s.sessions.init()
	s.waiters.init()
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.running.Go(func() { s.resume(ctx) })
	s.running.Go(func() { s.resumeClosures(ctx) })
	s.running.Go(func() { s.resumeGivingUp(ctx) })
	s.running.Go(func() { s.collect(ctx) })
	s.running.Go(func() { s.sweepMessages(ctx) })
	return s, nil
}

// Close ends the work in the background. Requests must have ended before.
func (s *Storefront) Close() {
	s.stop()
	s.running.Wait()
}

// Release answers at once those who wait for messages, and all who would: for a server that is about to shut down.
func (s *Storefront) Release() { s.waiters.release() }

// Handler serves the routes.
func (s *Storefront) Handler() http.Handler { return s.engine() }

// detach is for what must be carried to its end once it has begun, whether or not the client waits for it: the vault must not be left
// with a document that the storefront forgot about because somebody hung up.
func detach(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), vaultTimeout)
}

// vaultTimeout bounds one submission to the vault, in which a token may import hundreds of keys.
const vaultTimeout = 30 * time.Second

// unavailable tells a caller that the store takes no writes, and why.
func unavailable(err error) error {
	switch {
	case errors.Is(err, store.ErrFull):
		return &problem.Problem{Code: policies.CodeUnavailable, Detail: "the storefront's disk is nearly full, so it takes no writes; the operator must make room", RetryAfter: 60}
	case errors.Is(err, store.ErrBroken):
		return &problem.Problem{Code: policies.CodeUnavailable, Detail: "the storefront's store failed and must be opened again; the operator must look", RetryAfter: 60}
	}
	return err
}
