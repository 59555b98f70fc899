package client

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

// backup is what a device cannot fetch or derive again: the root, the recovery key, the pin, and whom it met. Everything else comes back
// with the next sync.
type backup struct {
	Format   int             `json:"format"`
	Role     string          `json:"role"`
	Kind     policies.Kind   `json:"kind"`
	Network  Network         `json:"network"`
	Root     []byte          `json:"root"`
	Recovery []byte          `json:"recovery,omitzero"`
	Identity jsontext.Value  `json:"identity"`
	Readers  []readerContact `json:"readers,omitzero"` // of an owner
	Codes    []issuedCode    `json:"codes,omitzero"`

	Successions []jsontext.Value `json:"successions,omitzero"`
	FormerKEM   []formerKEM      `json:"former_kem,omitzero"`
	Former      []byte           `json:"former,omitzero"` // of an owner, while a replacement is under way
	Earlier     [][]byte         `json:"earlier,omitzero"`
	Moved       bool             `json:"moved,omitzero"`     // of an owner: nothing of their own is under Former or Earlier any more
	Replacing   *replacement     `json:"replacing,omitzero"` // from the moment at which one begins

	Chain   position           `json:"chain,omitzero"` // of a reader
	Waiting []policies.OwnerID `json:"waiting,omitzero"`

	People []byte          `json:"people,omitzero"` // of a reader: the records of its book; see package safe
	Owners []formerContact `json:"owners,omitzero"` // the same, of a program before there were safes
	Made   int64           `json:"made"`
}

// write hands the plaintext to write, which must seal it before it goes anywhere, and overwrites it afterwards.
func (b *backup) write(write func(plain []byte) error) error {
	plain, err := json.Marshal(b, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("making a backup: %w", err)
	}
	defer clear(plain)
	if err := write(plain); err != nil {
		return fmt.Errorf("making a backup: %w", err)
	}
	return nil
}

func (b *base) backup(now time.Time) *backup {
	return &backup{
		Format: stateFormat, Role: b.Role, Kind: b.Kind, Network: b.Network, Root: b.Root, Recovery: b.Recovery, Identity: b.Identity, Made: now.Unix(),
		Successions: b.Successions, FormerKEM: b.FormerKEM,
	}
}

// backup is what a device of this owner's is made of.
func (o *Owner) backup() (b *backup, err error) {
	b = o.state.base.backup(o.now())
	b.Readers, b.Codes, b.Former, b.Earlier, b.Moved, b.Replacing = o.state.Contacts, o.state.Codes, o.state.Former, o.state.Earlier, o.state.Moved, o.state.Replacing
	b.People, err = o.peopleMet()
	return b, err
}

func parseBackup(plain []byte, role string) (*backup, error) {
	b := new(backup)
	if err := envelope.Decode(plain, b); err != nil {
		return nil, fmt.Errorf("reading a backup: %w", err)
	}
	if b.Role != role && (b.Role == roleOwner || b.Role == roleReader) {
		defer b.zero()
		return nil, fmt.Errorf("reading a backup: %w", ErrRole)
	}
	if b.Format != stateFormat || b.Role != role {
		return nil, fmt.Errorf("reading a backup: %w: it is one of format %d of a %s", ErrState, b.Format, b.Role)
	}
	return b, nil
}

func (b *backup) base() base {
	return base{
		Format: stateFormat, Role: b.Role, Kind: b.Kind, Network: b.Network, Root: b.Root, Recovery: b.Recovery, Identity: b.Identity, Made: b.Made,
		Successions: b.Successions, FormerKEM: b.FormerKEM,
	}
}

// zero overwrites the secrets of a backup that no device is made of.
func (b *backup) zero() {
	clear(b.Root)
	clear(b.Recovery)
	clear(b.Former)
	for _, root := range b.Earlier {
		clear(root)
	}
	for _, f := range b.FormerKEM {
		clear(f.Seed)
	}
	if b.Replacing != nil {
		b.Replacing.zero()
	}
}

// Backup hands root, contacts and, if this device still has it, the recovery key to write, which must seal them. With forget, and once
// write has succeeded, the device forgets the recovery key, so that whoever gets hold of the device later does not get it too. It reports whether
// the backup holds the recovery key.
func (o *Owner) Backup(forget bool, write func(plain []byte) error) (recovery bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b, err := o.backup()
	if err != nil {
		return false, err
	}
	recovery = len(b.Recovery) > 0
	if err := b.write(write); err != nil || !forget || !recovery {
		return recovery, err
	}
	clear(o.state.Recovery)
	o.state.Recovery = nil
	return true, o.save()
}

// RestoreOwner makes a device from a backup. It uses no network; Sync fetches what was published and granted.
func RestoreOwner(store MirrorStore, plain []byte, o Options) (*Owner, error) {
	b, err := parseBackup(plain, roleOwner)
	if err != nil {
		return nil, err
	}
	return restored(store, b, accountState{}, b.Network, o)
}

// Backup is [Owner.Backup] for a reader.
func (r *Reader) Backup(forget bool, write func(plain []byte) error) (recovery bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.state.base.backup(r.now())
	b.People, b.Chain, b.Replacing, b.Waiting = r.book.Records(), r.state.Chain, r.state.Replacing, r.state.Waiting
	recovery = len(b.Recovery) > 0
	if err := b.write(write); err != nil || !forget || !recovery {
		return recovery, err
	}
	clear(r.state.Recovery)
	r.state.Recovery = nil
	return true, r.saveLocked()
}

// RestoreReader makes a reader from a backup.
func RestoreReader(store Store, plain []byte, o Options) (*Reader, error) {
	b, err := parseBackup(plain, roleReader)
	if err != nil {
		return nil, err
	}
	r := &Reader{store: store}
	r.state.base = b.base()
	if r.state.People, err = b.records(); err != nil {
		return nil, err
	}
	r.state.Chain, r.state.Replacing, r.state.Waiting = b.Chain, b.Replacing, b.Waiting
	if err := r.open(o); err != nil {
		return nil, err
	}
	return r, r.save()
}
