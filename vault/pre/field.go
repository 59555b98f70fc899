package pre

import (
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/pre/internal/secret"
)

// FieldKey is the owner's secret scalar a for one slot. It seals, opens, rotates, and grants.
type FieldKey struct {
	redacted
	slot policies.Slot
	a    scalar
}

// Slot is what the key belongs to.
func (k *FieldKey) Slot() policies.Slot { return k.slot }

// Zero overwrites the key. A zeroed key gives [ErrKey] or [ErrOpen].
func (k *FieldKey) Zero() { clear(k.a[:]) }

// Author is the part of the key that seals and cannot open: A = aG. It is secret too, see [AuthorKey].
func (k *FieldKey) Author() (*AuthorKey, error) {
	point, err := k.a.base()
	if err != nil {
		return nil, err
	}
	return &AuthorKey{slot: k.slot, point: point}, nil
}

// Seal makes version of the field out of a value of at most 1 MiB, and the leaf that commits to it. No version may ever be sealed twice with
// different values, or readers who know the first are told that nothing changed.
//
// Randomness is read from source, or from crypto/rand if it is nil: DEK (32 bytes), r (48), s (32), in this order.
func (k *FieldKey) Seal(version uint64, value []byte, source io.Reader) (policies.Leaf, []byte, error) {
	author, err := k.Author()
	if err != nil {
		return policies.Leaf{}, nil, fmt.Errorf("sealing an item: %w", err)
	}
	defer author.Zero()
	return author.Seal(version, value, source)
}

// Open is the owner's own reading. It refuses a leaf of another slot, a ciphertext that is not the leaf's, and whatever else is not
// as [FieldKey.Seal] made it, with [ErrOpen].
func (k *FieldKey) Open(leaf *policies.Leaf, ciphertext []byte) ([]byte, error) {
	d, err := k.unwrap(leaf)
	if err != nil {
		return nil, err
	}
	defer clear(d[:])
	return d.open(leaf, ciphertext)
}

// Opens reports whether an item is under this key: of an owner whose root was replaced it may be under the one before.
func (k *FieldKey) Opens(leaf *policies.Leaf) bool {
	d, err := k.unwrap(leaf)
	if err != nil {
		return false
	}
	clear(d[:])
	return true
}

func (k *FieldKey) unwrap(leaf *policies.Leaf) (*dek, error) {
	if leaf.Slot != k.slot || leaf.Version == 0 {
		return nil, ErrOpen
	}
	e, err := compressed(leaf.Capsule.E())
	if err != nil {
		return nil, ErrOpen
	}
	z, err := k.a.x(e)
	if err != nil {
		return nil, ErrOpen
	}
	defer clear(z[:])
	return unwrap(&z, leaf)
}

// Rotate moves an item from this key to next, the key of the same owner, field and author in a later epoch: the same DEK in a fresh
// capsule. Version, ciphertext and commitment stay, so the ciphertext is neither needed nor moved, and readers who have the
// version are told that nothing changed. Old and new capsule have nothing in common that a stranger could see beyond what the
// leaf says openly.
//
// Rotation shuts a reader out of what is written later. What it could have read before it may have kept, DEK included: after a
// compromise seal the value anew, as a new version.
//
// Randomness is read from source, or from crypto/rand if it is nil: r (48 bytes), s (32).
func (k *FieldKey) Rotate(next *FieldKey, leaf *policies.Leaf, source io.Reader) (policies.Leaf, error) {
	if next.slot.Owner != k.slot.Owner || next.slot.Field != k.slot.Field || next.slot.Author != k.slot.Author || next.slot.Epoch <= k.slot.Epoch {
		return policies.Leaf{}, fmt.Errorf("rotating an item: %w: the next key is not one of the same field in a later epoch", ErrKey)
	}
	author, err := next.Author()
	if err != nil {
		return policies.Leaf{}, fmt.Errorf("rotating an item: %w", err)
	}
	defer author.Zero()
	d, err := k.unwrap(leaf)
	if err != nil {
		return policies.Leaf{}, fmt.Errorf("rotating an item: %w", err)
	}
	defer clear(d[:])
	rotated := policies.Leaf{Slot: next.slot, Version: leaf.Version, CiphertextHash: leaf.CiphertextHash, Commitment: leaf.Commitment}
	if err := author.encapsulate(&rotated, d, source); err != nil {
		return policies.Leaf{}, fmt.Errorf("rotating an item: %w", err)
	}
	return rotated, nil
}

// AuthorKey is the point A = aG of a slot, 33 bytes compressed. Whoever has it can seal items of that slot and open none,
// not even its own. It is a secret all the same: with it and a quantum computer every capsule of the slot opens. It
// goes to an author only in a sealed message.
type AuthorKey struct {
	redacted
	slot  policies.Slot
	point [33]byte
}

// ParseAuthorKey reads the 33 bytes that the owner sent for a slot.
func ParseAuthorKey(slot policies.Slot, b []byte) (*AuthorKey, error) {
	if err := validate(&slot); err != nil {
		return nil, fmt.Errorf("reading an author's key: %w", err)
	}
	if _, err := compressed(b); err != nil {
		return nil, fmt.Errorf("reading an author's key: %w", ErrKey)
	}
	return &AuthorKey{slot: slot, point: [33]byte(b)}, nil
}

// Bytes is the compressed point, to be sealed to the author. The caller overwrites it after use.
func (k *AuthorKey) Bytes() []byte { return append([]byte(nil), k.point[:]...) }

// Slot is what the key belongs to.
func (k *AuthorKey) Slot() policies.Slot { return k.slot }

// Zero overwrites the key.
func (k *AuthorKey) Zero() { clear(k.point[:]) }

// Seal is [FieldKey.Seal] by an author who is not the owner.
func (k *AuthorKey) Seal(version uint64, value []byte, source io.Reader) (policies.Leaf, []byte, error) {
	fail := func(err error) (policies.Leaf, []byte, error) {
		return policies.Leaf{}, nil, fmt.Errorf("sealing an item: %w", err)
	}
	if version == 0 {
		return fail(fmt.Errorf("%w: versions count from 1", policies.ErrMalformed))
	}
	leaf := policies.Leaf{Slot: k.slot, Version: version}
	var d dek
	defer clear(d[:])
	if err := secret.Draw(source, d[:]); err != nil {
		return fail(err)
	}
	ciphertext, err := d.seal(&leaf, value)
	if err != nil {
		return fail(err)
	}
	leaf.CiphertextHash, leaf.Commitment = sha256.Sum256(ciphertext), d.commitment()
	if err := k.encapsulate(&leaf, &d, source); err != nil {
		return fail(err)
	}
	return leaf, ciphertext, nil
}

// encapsulate makes the leaf's capsule afresh around a DEK.
func (k *AuthorKey) encapsulate(leaf *policies.Leaf, d *dek, source io.Reader) error {
	point, err := compressed(k.point[:])
	if err != nil {
		return ErrKey
	}
	r, err := drawScalar(source)
	if err != nil {
		return err
	}
	defer clear(r[:])
	e, err := r.base()
	if err != nil {
		return err
	}
	copy(leaf.Capsule[:33], e[:])
	if err := secret.Draw(source, leaf.Capsule[33:65]); err != nil {
		return err
	}
	z, err := r.x(point)
	if err != nil {
		return err
	}
	defer clear(z[:])
	d.wrap(&z, leaf)
	return nil
}
