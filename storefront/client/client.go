// Package client is the SDK: what a person's device ([Owner]) and a business's server ([Reader]) do on their side of a
// storefront that neither has to trust.
//
// # The rule
//
// Nothing that a storefront says is taken for true. Identities are compared with ids that came from outside the storefront, in
// contact codes; the vault's keys come from a vault document signed by the ceremony that the join link pinned; every acceptance is
// believed when its receipt verifies under the token's log key, and every read when the vault's answer, sealed past the
// storefront, agrees with the owner's signed manifest. Of the key-use log each device keeps a checkpoint, and demands proof that every later
// state has what it saw (see [View]). What does not check is [ErrUntrue] and is not used. A storefront can
// refuse and delay. It cannot lie.
//
// # Owners
//
// [InitOwner] draws the root and recovery key and enrols the identity. [Owner.Set] seals values and publishes them,
// [Owner.Code] and [Owner.Connect] meet a reader, [Owner.Grant] lets it read, [Owner.Revoke] stops it and rotates the fields for those
// who stay. Each of them first writes down what is wanted, signed document included, and then sends it: a process killed at any
// line loses nothing, and [Owner.Sync] (or the next command) finishes what was begun. A document that another device got ahead of
// is made again on top of that device's. A revocation goes over a second route, the vault's own listener, when the storefront
// gives no verified receipt within seconds; until one verifies, the error is [ErrNotStopped].
//
// # Readers
//
// [InitReader] makes an identity, [Reader.Connect] a key for one owner and no other. [Reader.Read] asks for any number of fields of
// any number of owners and returns each value, or why not. Sessions with the vault are opened and renewed behind it; what was
// verified once (manifests, grants) is kept. It remembers the newest manifest of every owner and refuses an older one,
// [ErrRollback]. [Reader.ReadProven] hands out only values of which the key-use log proves that they were recorded as they were answered, [Reader.Prove] and
// [Reader.Evidence] do so later, and [Reader.History] tells what the log says of this reader. A Reader may be used by many goroutines at once; [Reader.Close] saves what it learnt.
//
// # Writers
//
// [Owner.GrantWrite] lets a contact write fields, [Reader.Write] writes them, also while the owner is offline, and [Owner.Incoming], [Owner.Adopt] and [Owner.Reject] are
// how the owner looks at it later. Of several authors' values of a field a reader gets the newest by the vault's order, and in [Value] who wrote it. A writer reads nothing by
// writing.
//
// # What the caller owes
//
// A [Store] that keeps secrets secret and saves atomically (package profile is one), contact codes that really come from the
// other party, a clock that is right within a minute, and Close. Root and keys are in the process's memory meanwhile: a program that should leave no core file of them forbids that itself, as
// the command sallyport does.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/redact"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// What can go wrong besides the codes of package policies, which come through as they are: errors.Is(err, policies.CodeRevoked).
var (
	// ErrUntrue: what the storefront sent contradicts a signature, a proof or what was pinned. It was not used.
	ErrUntrue = errors.New("the storefront's answer does not check out and was not used")
	// ErrRollback: an older state of an owner's data was offered than this reader has seen. It is an ErrUntrue too.
	ErrRollback = fmt.Errorf("%w: it is older than what was seen before", ErrUntrue)
	// ErrFork: two states of the key-use log that cannot both be true. Tell the operator and the auditors.
	ErrFork = fmt.Errorf("%w: the key-use log contradicts what it said before", ErrUntrue)
	// ErrUnproven: there is no proof that the key-use log says what the vault answered. What was to be proven was not used.
	ErrUnproven = errors.New("the key-use log does not prove it, so it was not used; ask again later, and if it stays so tell the operator")
	// ErrNotStopped: no verified receipt says that the vault recorded the revocation. It is kept and tried again.
	ErrNotStopped = errors.New("NOT STOPPED YET: the vault has not confirmed the revocation")
	// ErrNotRotated: the reader was stopped, but its fields have not moved to new keys yet. Sync tries again.
	ErrNotRotated = errors.New("the reader is stopped, but the fields have not moved to new keys yet")
	// ErrRotationRefused: the reader was stopped, and moving its fields to new keys was refused for good. It is an ErrNotRotated too; nothing tries again by itself.
	ErrRotationRefused = fmt.Errorf("%w, and that was refused; rotate them yourself once the reason is gone", ErrNotRotated)
	// ErrNoContact: no contact has this id or alias.
	ErrNoContact = errors.New("no such contact; connect first")
	// ErrNotConnected: the other party has not done its half of the connection.
	ErrNotConnected = errors.New("the reader has not used your code yet; ask it to connect with the code from `code`")
	// ErrNoField: the owner has no such field.
	ErrNoField = errors.New("there is no such field; set it first")
	// ErrReplaced: another device gave the identity new keys, which this one does not have. Restore from the backup that was made then.
	ErrReplaced = errors.New("this device was replaced; restore it from the backup file that was written when that was done")
	// ErrRecovery: neither this device nor the backup has the key that is needed to replace everything at once.
	ErrRecovery = errors.New("what is needed to replace everything at once is in an earlier backup file, and in none that was given")
	// ErrState: the stored state is not one of this program.
	ErrState = errors.New("the stored state cannot be used")
	// ErrRole: a person's profile, or backup, is opened as a business's, or the other way round.
	ErrRole = errors.New("the profile in this folder, or the backup, is of another kind: a person's opens with `sallyport me`, a business's with `sallyport biz`")
)

// Store keeps a device's state between runs. Save replaces it atomically and durably; the state holds secrets. A store that
// has none yet loads nil.
type Store interface {
	Load() ([]byte, error)
	Save(state []byte) error
}

// MirrorStore also keeps an owner's own ciphertext, by its SHA-256. Item may return any error for what it does not have.
type MirrorStore interface {
	Store
	PutItem(hash policies.Hash, ciphertext []byte) error
	Item(hash policies.Hash) ([]byte, error)
	KeepItems(keep map[policies.Hash]bool) error
}

// Roles of a stored state.
const (
	roleOwner   = "owner"
	roleReader  = "reader"
	stateFormat = 1
)

// base is the part of the state that owners and readers share.
type base struct {
	Format     int            `json:"format"`
	Role       string         `json:"role"`
	Network    Network        `json:"network"`
	Root       []byte         `json:"root"`
	Recovery   []byte         `json:"recovery,omitzero"` // seed of the recovery key, until it is backed up
	Identity   jsontext.Value `json:"identity"`          // envelope
	Enrolled   bool           `json:"enrolled,omitzero"`
	Vault      jsontext.Value `json:"vault,omitzero"` // envelope of the newest vault document seen
	Version    uint64         `json:"vault_version,omitzero"`
	Checkpoint seenCheckpoint `json:"checkpoint,omitzero"` // the kept one
	Seen       seen           `json:"seen,omitzero"`
	Made       int64          `json:"made"` // Unix seconds

	Successions []jsontext.Value `json:"successions,omitzero"` // envelopes: how the identity came to the keys of this root
	FormerKEM   []formerKEM      `json:"former_kem,omitzero"`  // of the roots before, for messages on their way

	Kind policies.Kind `json:"kind"`
}

// newBase draws root and recovery key and signs the identity.
func newBase(role string, network Network, kind policies.Kind, name string, now time.Time) (base, error) {
	if err := network.validate(); err != nil {
		return base{}, err
	}
	root, err := pre.NewRoot()
	if err != nil {
		return base{}, err
	}
	defer root.Zero()
	var recovery [envelope.SeedSize]byte
	rand.Read(recovery[:])
	defer clear(recovery[:])
	recoveryKey := envelope.NewPrivateKey(&recovery)
	defer recoveryKey.Zero()
	signing := signingKey(root)
	defer signing.Zero()
	kem, login := pre.NewBlobKey(root.KEMSeed()), pre.NewLoginKey(root.LoginSeed())
	defer kem.Zero()
	defer login.Zero()
	identity, err := policies.Sign(signing, &policies.Identity{
		Header: policies.NewHeader("identity", now), Kind: kind, Name: name,
		SigningKey: signing.Public().Bytes(), KEMKey: kem.Public(), LoginKey: login.Public(),
		RecoveryHash: policies.HashKey(recoveryKey.Public().Bytes()),
	})
	if err != nil {
		return base{}, err
	}
	return base{
		Format: stateFormat, Role: role, Network: network, Root: root.Bytes(), Recovery: append([]byte(nil), recovery[:]...),
		Identity: identity.Raw, Made: now.Unix(), Kind: kind,
	}, nil
}

func signingKey(root *pre.Root) *envelope.PrivateKey {
	seed := root.IdentitySeed()
	defer clear(seed[:])
	return envelope.NewPrivateKey(&seed)
}

// loadState reads a stored state of a role into v.
func loadState(store Store, role string, v any) error {
	data, err := store.Load()
	if err != nil {
		return err
	}
	defer clear(data)
	if data == nil {
		return fmt.Errorf("%w: there is nothing in it", ErrState)
	}
	var claim struct {
		Format int    `json:"format"`
		Role   string `json:"role"`
	}
	if err := json.Unmarshal(data, &claim); err != nil { // what else is in it depends on these two
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	if claim.Format != stateFormat {
		return fmt.Errorf("%w: its format is %d, this program knows %d", ErrState, claim.Format, stateFormat)
	}
	if claim.Role != role {
		return fmt.Errorf("%w: its role is %q, not %q", ErrRole, claim.Role, role)
	}
	if err := envelope.Decode(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	return nil
}

// saveState writes a state and overwrites the plaintext.
func saveState(store Store, v any) error {
	data, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encoding the state: %w", err)
	}
	defer clear(data)
	return store.Save(data)
}

// device is what owner and reader have in common: keys, the wire, and what they know of the vault.
type device struct {
	redact.Redacted // an [Owner] and a [Reader] print so too

	base    *base
	now     func() time.Time
	root    *pre.Root
	signing *envelope.PrivateKey
	id      policies.IdentityID
	line    succession.Line // this identity's own
	wire    *wire
	trust   trust
	joiner  joiner
	network Network // the stored one, or what replaces it in this run
}

func newDevice(b *base, o Options) (*device, error) {
	network := b.Network.with(o)
	root, err := pre.ParseRoot(b.Root)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	d := &device{base: b, now: o.Now, root: root, signing: signingKey(root), network: network}
	if d.line, err = lineOf(b.Identity, b.Successions); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	d.id = d.line.ID
	if !bytes.Equal(d.line.Newest().SigningKey, d.signing.Public().Bytes()) {
		return nil, fmt.Errorf("%w: its keys are not those of the identity", ErrState)
	}
	if d.now == nil {
		d.now = time.Now
	}
	b.forgetKEM(d.now())
	if d.wire, err = newWire(network, d.id, b.Identity, pre.NewLoginKey(root.LoginSeed()), d.now); err != nil {
		return nil, err
	}
	d.wire.successions = b.Successions
	if err := d.trust.load(b); err != nil {
		return nil, err
	}
	return d, nil
}

// enrol makes the identity known, once. The same identity may be posted any number of times.
func (d *device) enrol(ctx context.Context) (changed bool, err error) {
	if d.base.Enrolled {
		return false, nil
	}
	v, err := d.vault(ctx)
	if err != nil {
		return false, err
	}
	receipt := new(evidence.Receipt)
	if err := d.wire.call(ctx, request{method: "POST", path: api.PathIdentities, raw: d.base.Identity, out: receipt}); err != nil {
		return false, fmt.Errorf("registering: %w", err)
	}
	if err := d.receipt(ctx, v, receipt, policies.Hash(d.id), evidence.EntryIdentity); err != nil {
		return false, fmt.Errorf("registering: %w", err)
	}
	d.base.Enrolled = true
	d.base.Network = d.network // with what was missing when the profile was made: a certificate, another address
	return true, nil
}

// identity fetches somebody's first identity document and compares it with the id that came from outside.
func (d *device) identity(ctx context.Context, id policies.IdentityID) (jsontext.Value, *policies.Identity, error) {
	return d.identityOf(ctx, id, policies.OwnerID{})
}

// identityOf is identity of somebody who, perhaps, may be looked up only because an owner's grant names it.
func (d *device) identityOf(ctx context.Context, id policies.IdentityID, owner policies.OwnerID) (jsontext.Value, *policies.Identity, error) {
	var raw jsontext.Value
	err := d.wire.call(ctx, request{method: "GET", path: path(api.PathIdentity, id.String()), out: &raw})
	if errors.Is(err, policies.CodeNotIntroduced) {
		var found *api.Found
		if found, err = d.lookup(ctx, api.Lookup{Identity: id, Owner: owner}); err == nil {
			raw = found.Identity
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("fetching an identity: %w", err)
	}
	doc, err := openIdentity(raw, id)
	if err != nil {
		return nil, nil, fmt.Errorf("fetching an identity: %w", err)
	}
	return raw, doc, nil
}

func openIdentity(raw jsontext.Value, id policies.IdentityID) (*policies.Identity, error) {
	e, err := envelope.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUntrue, err)
	}
	doc, got, err := policies.OpenIdentity(e)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUntrue, err)
	}
	if got != id {
		return nil, fmt.Errorf("%w: it is the identity of somebody else than the code names", ErrUntrue)
	}
	return doc, nil
}

// close forgets the keys.
func (d *device) close() {
	d.root.Zero()
	d.signing.Zero()
	d.wire.close()
	clear(d.base.Root)
	clear(d.base.Recovery)
	for _, f := range d.base.FormerKEM {
		clear(f.Seed)
	}
}
