package storefront

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/internal/store"
)

// The keys of the store. The first byte says what kind of record it is; ids follow as their 32 bytes, sequence numbers as 8 bytes,
// big-endian, so that a scan gives them in order.
//
//	i identity                       envelope of the identity
//	r reader owner number            a relationship of the two, an envelope; the highest number is the newest
//	R owner reader number            the same, to be found by its owner
//	n reader                         how many relationships there are under r, 8 bytes
//	t owner author                   treeRecord: what is current and what is pending
//	w owner author                   a hint that there is something to complete or to collect
//	l owner leaf-hash                an item's leafRecord; never overwritten
//	b owner author ciphertext-hash   an item's ciphertext; never overwritten
//	k owner seq                      a document of the owner's chain, an envelope
//	g reader owner seq               grantRecord
//	G owner grant-id                 where the grant is: reader || seq
//	s identity generation            api.Succession
//	v identity                       api.Vouched: the newest voucher for its name
//	e owner index                    api.Renunciation: what a reader gave up, by its entry in the key-use log
//	E owner hash                     one that is on its way to the vault, an envelope
//	m receiver number                letterRecord: a sealed message that waits for its receiver
//	y receiver number                what is sealed in it
//	M receiver                       the highest number used, 8 bytes
//	z identity                       closureRecord: the account is closed
//	a writer owner seq               writeRecord
//	A owner grant-id                 where the write grant is: writer || owner || seq
//	d identity                       envelope of the registration
//	o identity other                 introducedRecord: the other was introduced to the identity
//	O other identity                 the same, to be found by the other; nothing in it
//	f identity                       how many there are under o, 8 bytes
//
// A record that is missing, or came back after it was deleted, changes nothing that matters: a tree whose items are gone is
// the case storefront_behind, a returned item is collected again, an ended grant that returned is refused by the vault.
const (
	kindIdentity    = 'i'
	kindByReader    = 'r'
	kindByOwner     = 'R'
	kindCount       = 'n'
	kindTree        = 't'
	kindWork        = 'w'
	kindLeaf        = 'l'
	kindCiphertext  = 'b'
	kindChain       = 'k'
	kindGrant       = 'g'
	kindGrantPlaces = 'G'
	kindSuccession  = 's'
	kindVoucher     = 'v'
	kindGivenUp     = 'e'
	kindGivingUp    = 'E'
	kindLetter      = 'm'
	kindSealed      = 'y'
	kindNumber      = 'M'
	kindClosed      = 'z'
	kindWriteGrant  = 'a'
	kindWritePlaces = 'A'

	kindRegistration    = 'd'
	kindIntroduced      = 'o'
	kindIntroducedTo    = 'O'
	kindIntroducedCount = 'f'
)

func key(kind byte, parts ...[]byte) []byte {
	return append([]byte{kind}, slices.Concat(parts...)...)
}

// slot is whose tree it is.
type slot struct {
	owner  policies.OwnerID
	author policies.AuthorID
}

// own is the slot of an owner's own fields, whose manifests are links of the owner's chain.
func own(owner policies.OwnerID) slot { return slot{owner, policies.AuthorID(owner)} }

func (k slot) tree() []byte { return key(kindTree, k.owner[:], k.author[:]) }
func (k slot) work() []byte { return key(kindWork, k.owner[:], k.author[:]) }

func (k slot) ciphertext(h policies.Hash) []byte {
	return key(kindCiphertext, k.owner[:], k.author[:], h[:])
}

func leafKey(owner policies.OwnerID, leaf policies.Hash) []byte {
	return key(kindLeaf, owner[:], leaf[:])
}

func chainKey(owner policies.OwnerID, seq uint64) []byte {
	return key(kindChain, owner[:], policies.U64(seq))
}

// treeRecord is rewritten as a whole, so that nothing depends on a record's being absent: that nothing is pending is said, not
// left out. Its version in the store grows by one with each writing.
type treeRecord struct {
	Current *treeState `json:"current"`
	Pending *treeState `json:"pending"`
}

// treeState is a manifest and its leaves.
type treeState struct {
	Manifest jsontext.Value    `json:"manifest"`
	Receipt  *evidence.Receipt `json:"receipt,omitempty"` // of the vault; none while it is pending
	Leaves   []byte            `json:"leaves"`            // leaf hashes in tree order, 32 bytes each
}

// grantRecord is a grant that the vault accepted.
type grantRecord struct {
	Grant jsontext.Value         `json:"grant"`
	Ended []policies.RevokedItem `json:"ended,omitempty"`
}

// writeRecord is a write grant that the vault accepted.
type writeRecord struct {
	Grant jsontext.Value   `json:"grant"`
	Ended []policies.Field `json:"ended,omitempty"`
	Kept  []policies.Hash  `json:"kept,omitempty"` // leaves that may be read on
}

func (s *Storefront) load(ctx context.Context, key []byte, v any) (version uint64, err error) {
	r, err := s.store.Get(ctx, key)
	if err != nil {
		return 0, err
	}
	return r.Version, decodeRecord(r, v)
}

// decodeRecord reads a record that has been authenticated: what does not decode was written by another version of this program.
func decodeRecord(r store.Record, v any) error {
	if err := envelope.Decode(r.Value, v); err != nil {
		return fmt.Errorf("a stored record of kind %q is not one that this version knows: %v", r.Key[:1], err)
	}
	return nil
}

func encodeRecord(key []byte, version uint64, v any) (store.Change, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return store.Change{}, fmt.Errorf("encoding a record: %w", err)
	}
	return store.Change{Key: key, Version: version, Value: value}, nil
}

// once is a change that writes a record whose key says what is in it, unless it is there.
func (s *Storefront) once(ctx context.Context, changes []store.Change, key, value []byte) ([]store.Change, error) {
	switch _, err := s.store.Get(ctx, key); {
	case errors.Is(err, store.ErrNotFound):
		return append(changes, store.Change{Key: key, Version: 1, Value: value}), nil
	case err != nil:
		return nil, err
	}
	return changes, nil
}

// number is a record that is a count, 8 bytes big-endian, and its version. The error is [store.ErrNotFound] if there is none.
func (s *Storefront) number(ctx context.Context, at []byte) (n, version uint64, err error) {
	r, err := s.store.Get(ctx, at)
	if err != nil {
		return 0, 0, err
	}
	if len(r.Value) != 8 {
		return 0, 0, fmt.Errorf("a stored count has %d bytes", len(r.Value))
	}
	return binary.BigEndian.Uint64(r.Value), r.Version, nil
}

// stored is a document that this storefront took in and keeps: what does not decode was written by another version of this program.
func stored[T any, D interface {
	*T
	envelope.Document
	Validate() error
}](what string, raw []byte) (*envelope.Envelope, *T, error) {
	env, err := envelope.Parse(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("a stored %s: %v", what, err)
	}
	d, err := policies.Decode[T, D](env)
	if err != nil {
		return nil, nil, fmt.Errorf("a stored %s: %v", what, err)
	}
	return env, d, nil
}

// A leaf's record is u32 length of its ciphertext, big-endian || leaf: the length is for the owner's share of the disk.
func leafRecord(leaf []byte, ciphertext int) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(ciphertext)), leaf...)
}

func parseLeafRecord(value []byte) (leaf []byte, ciphertext int, err error) {
	if len(value) < 4 {
		return nil, 0, fmt.Errorf("a stored leaf has %d bytes", len(value))
	}
	return value[4:], int(binary.BigEndian.Uint32(value)), nil
}

// locks are one lock for each slot that somebody holds or waits for. Whoever holds a slot's lock alone changes its tree, its pending
// manifest and its cached shelf; the lock of the owner's own slot also covers chain and grants. A reader's relationships, and what an identity has with the registry, are covered by
// the lock of the slot that has them as author and no owner, a receiver's mailbox by that of the slot that has the receiver as owner and no author.
type locks struct {
	mu   sync.Mutex // guards held and users
	held map[slot]*slotLock
}

type slotLock struct {
	free  chan struct{} // holds one token while nobody holds the lock
	users int           // holding or waiting
}

// lock waits for the slot or for the end of ctx.
func (l *locks) lock(ctx context.Context, k slot) (unlock func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = make(map[slot]*slotLock)
	}
	one, ok := l.held[k]
	if !ok {
		one = &slotLock{free: make(chan struct{}, 1)}
		one.free <- struct{}{}
		l.held[k] = one
	}
	one.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(l.held, k)
		}
	}
	select {
	case <-one.free:
		return func() { one.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
