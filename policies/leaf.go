package policies

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// capsuleSize is the length of a capsule: E (33 bytes), s (32), W (48).
const capsuleSize = 33 + 32 + 48

// Capsule is the small part of an item that is re-encrypted: E || s || W, where E is a compressed point of P-256, s an
// HKDF salt and W the data encryption key under AES-256-GCM. Package pre makes and opens it.
type Capsule [capsuleSize]byte

// E is the compressed point, 33 bytes, that the token multiplies by the re-encryption key.
func (c *Capsule) E() []byte { return c[:33] }

// Slot is what a field key belongs to: one field of one owner, in one epoch, written by one author.
type Slot struct {
	Owner  OwnerID
	Field  Field
	Epoch  uint64 // counts from 1; a rotation adds one
	Author AuthorID
}

// Leaf is what a manifest commits to for one field: its newest item. The ciphertext itself lies beside the tree, by hash.
type Leaf struct {
	Slot
	Version        uint64 // counts from 1 over the field's life, never reused
	Capsule        Capsule
	CiphertextHash Hash // SHA-256 of the ciphertext
	Commitment     Hash // C = HKDF(DEK, "commit"), checked before opening because GCM does not commit to its key
}

// Bytes is the pinned encoding of the leaf, the input of the RFC 6962 leaf hash.
func (l *Leaf) Bytes() []byte {
	return Encode("leaf", l.Owner[:], []byte(l.Field), U64(l.Epoch), l.Author[:], U64(l.Version), l.Capsule[:], l.CiphertextHash[:], l.Commitment[:])
}

// Hash is the RFC 6962 leaf hash.
func (l *Leaf) Hash() Hash { return Hash(rfc6962.DefaultHasher.HashLeaf(l.Bytes())) }

// ParseLeaf is the inverse of [Leaf.Bytes]. It accepts exactly what Bytes makes; whether E is a point is for package pre.
func ParseLeaf(data []byte) (Leaf, error) {
	var l Leaf
	f, err := Split("leaf", data, 8)
	if err != nil {
		return l, err
	}
	for i, size := range []int{32, len(f[1]), 8, 32, 8, capsuleSize, 32, 32} {
		if len(f[i]) != size {
			return l, fmt.Errorf("%w: leaf: field %d has %d bytes, want %d", ErrMalformed, i+1, len(f[i]), size)
		}
	}
	l.Owner, l.Field, l.Epoch = OwnerID(f[0]), Field(f[1]), binary.BigEndian.Uint64(f[2])
	l.Author, l.Version = AuthorID(f[3]), binary.BigEndian.Uint64(f[4])
	l.Capsule, l.CiphertextHash, l.Commitment = Capsule(f[5]), Hash(f[6]), Hash(f[7])
	if err := l.Field.Validate(); err != nil {
		return Leaf{}, fmt.Errorf("leaf: %w", err)
	}
	if l.Epoch == 0 || l.Version == 0 {
		return Leaf{}, fmt.Errorf("%w: leaf: epochs and versions count from 1", ErrMalformed)
	}
	return l, nil
}

// Proof says that a leaf is in a manifest's tree: the RFC 6962 inclusion proof, leaf upwards.
type Proof struct {
	Index uint64 `json:"index"`
	Path  []Hash `json:"path,omitzero"`
}

// Verify checks the proof for the leaf's hash against a tree of the given size and root.
func (p Proof) Verify(leaf Hash, size uint64, root Hash) error {
	path := make([][]byte, len(p.Path))
	for i := range p.Path {
		path[i] = p.Path[i][:]
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, p.Index, size, leaf[:], path, root[:]); err != nil {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	return nil
}

// Tree is an author's leaves for one owner: exactly one a field, the newest, in byte order of the field's name.
type Tree struct {
	leaves []Leaf
	hashes []Hash
}

// NewTree sorts the leaves and refuses two of one field, or leaves of different owners or authors.
func NewTree(leaves []Leaf) (*Tree, error) {
	t := &Tree{leaves: slices.Clone(leaves), hashes: make([]Hash, len(leaves))}
	slices.SortFunc(t.leaves, func(a, b Leaf) int {
		if a.Field < b.Field {
			return -1
		} else if a.Field > b.Field {
			return 1
		}
		return 0
	})
	for i := range t.leaves {
		l := &t.leaves[i]
		if l.Owner != t.leaves[0].Owner || l.Author != t.leaves[0].Author {
			return nil, fmt.Errorf("%w: leaves of more than one owner or author in one tree", ErrMalformed)
		}
		if i > 0 && l.Field == t.leaves[i-1].Field {
			return nil, fmt.Errorf("%w: two leaves of field %q in one tree", ErrMalformed, l.Field)
		}
		t.hashes[i] = l.Hash()
	}
	return t, nil
}

// Leaves are the leaves in tree order. The caller must not change them.
func (t *Tree) Leaves() []Leaf { return t.leaves }

// Size is the number of leaves.
func (t *Tree) Size() uint64 { return uint64(len(t.leaves)) }

// Find returns the leaf of a field and its place.
func (t *Tree) Find(f Field) (leaf *Leaf, index uint64, ok bool) {
	i, ok := slices.BinarySearchFunc(t.leaves, f, func(l Leaf, f Field) int {
		if l.Field < f {
			return -1
		} else if l.Field > f {
			return 1
		}
		return 0
	})
	if !ok {
		return nil, 0, false
	}
	return &t.leaves[i], uint64(i), true
}

// Root is the RFC 6962 tree hash, for no leaves the hash of the empty string.
func (t *Tree) Root() Hash {
	if len(t.hashes) == 0 {
		return sha256.Sum256(nil)
	}
	return t.subtree(0, len(t.hashes))
}

// Prove makes the inclusion proof of the leaf at index.
func (t *Tree) Prove(index uint64) (Proof, error) {
	nodes, err := proof.Inclusion(index, t.Size())
	if err != nil {
		return Proof{}, fmt.Errorf("%w: %w", ErrProof, err)
	}
	hashes := make([][]byte, len(nodes.IDs))
	for i, id := range nodes.IDs {
		h := t.node(id)
		hashes[i] = h[:]
	}
	hashes, err = nodes.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
	if err != nil {
		return Proof{}, fmt.Errorf("%w: %w", ErrProof, err)
	}
	p := Proof{Index: index, Path: make([]Hash, len(hashes))}
	for i := range hashes {
		p.Path[i] = Hash(hashes[i])
	}
	return p, nil
}

// node is the hash of a perfect subtree that lies wholly within the tree.
func (t *Tree) node(id compact.NodeID) Hash {
	begin, end := id.Coverage()
	return t.subtree(int(begin), int(end))
}

// subtree is MTH of RFC 6962 section 2.1 over leaves begin to end.
func (t *Tree) subtree(begin, end int) Hash {
	if end-begin == 1 {
		return t.hashes[begin]
	}
	split := 1
	for split*2 < end-begin {
		split *= 2
	}
	left, right := t.subtree(begin, begin+split), t.subtree(begin+split, end)
	return Hash(rfc6962.DefaultHasher.HashChildren(left[:], right[:]))
}
