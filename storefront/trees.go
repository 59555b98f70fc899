package storefront

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/internal/store"
	"github.com/sallyport/sallyport/vault/pre"
)

// leaf is one item of a tree with what a read needs of it. It does not change and may be shared by the trees of several heads.
type leaf struct {
	policies.Leaf
	bytes      []byte
	hash       policies.Hash
	ciphertext int // length
	point      func() [65]byte
}

func newLeaf(raw []byte, ciphertext int) (*leaf, error) {
	parsed, err := policies.ParseLeaf(raw)
	if err != nil {
		return nil, err
	}
	l := &leaf{Leaf: parsed, bytes: bytes.Clone(raw), hash: parsed.Hash(), ciphertext: ciphertext}
	// A square root, taken when the item is first read. A capsule without a point gives zeroes, which the vault refuses.
	l.point = sync.OnceValue(func() [65]byte {
		point, _ := pre.Decompress(&l.Capsule)
		return point
	})
	return l, nil
}

// tree is a manifest with all its leaves, in tree order. It does not change.
type tree struct {
	manifest policies.Manifest
	hash     policies.Hash // of the manifest
	raw      jsontext.Value
	receipt  *evidence.Receipt // none while it is pending
	leaves   []*leaf
	places   []place
	merkle   *policies.Tree
	bytes    int64 // of all ciphertexts
}

// place holds a leaf's inclusion proof, made when the item is first read under this head.
type place struct {
	once  sync.Once
	proof policies.Proof
}

// newTree checks that the leaves are those of the manifest. Errors wrap policies.ErrProof if they are not.
func newTree(env *envelope.Envelope, m *policies.Manifest, receipt *evidence.Receipt, leaves []*leaf) (*tree, error) {
	t := &tree{manifest: *m, hash: env.Hash, raw: env.Raw, receipt: receipt, leaves: leaves, places: make([]place, len(leaves))}
	slices.SortFunc(t.leaves, func(a, b *leaf) int { return cmp.Compare(a.Field, b.Field) })
	plain := make([]policies.Leaf, len(leaves))
	for i, l := range t.leaves {
		plain[i] = l.Leaf
		t.bytes += int64(l.ciphertext)
	}
	var err error
	if t.merkle, err = policies.NewTree(plain); err != nil {
		return nil, err
	}
	if t.merkle.Size() != m.TreeSize || t.merkle.Root() != m.Root {
		return nil, fmt.Errorf("%w: the manifest's root is not that of its items", policies.ErrProof)
	}
	return t, nil
}

// accepted is the tree with the vault's receipt for its manifest.
func (t *tree) accepted(receipt *evidence.Receipt) *tree {
	return &tree{
		manifest: t.manifest, hash: t.hash, raw: t.raw, receipt: receipt,
		leaves: t.leaves, places: make([]place, len(t.leaves)), merkle: t.merkle, bytes: t.bytes,
	}
}

// find returns the leaf of a field with its proof.
func (t *tree) find(f policies.Field) (*leaf, policies.Proof, bool) {
	i, ok := slices.BinarySearchFunc(t.leaves, f, func(l *leaf, f policies.Field) int { return cmp.Compare(l.Field, f) })
	if !ok {
		return nil, policies.Proof{}, false
	}
	p := &t.places[i]
	p.once.Do(func() { p.proof, _ = t.merkle.Prove(uint64(i)) }) // i is in the tree, so there is a proof
	return t.leaves[i], p.proof, true
}

func (t *tree) state() *treeState {
	if t == nil {
		return nil
	}
	st := &treeState{Manifest: t.raw, Receipt: t.receipt, Leaves: make([]byte, 0, 32*len(t.leaves))}
	for _, l := range t.leaves {
		st.Leaves = append(st.Leaves, l.hash[:]...)
	}
	return st
}

// shelf is a slot's tree in memory: exactly what its treeRecord says, unless it is unwritten. It does not change; a newer one takes its place.
type shelf struct {
	version uint64 // of the treeRecord; 0: none is stored
	current *tree  // nil before the first
	pending *tree  // nil: nothing is pending
	lost    bool   // items of the current tree are missing; the owner must publish again

	refused time.Time // when the vault last refused what is pending, or the store did
}

// What documents weigh in a cache, in leaves, which take about 512 bytes.
const (
	manifestWeight = 16 // with the vault's receipt
	grantWeight    = 20
)

// unwritten reports whether the vault has accepted what is pending and the store did not take that: then it is current here already.
func (sh *shelf) unwritten() bool {
	return sh.current != nil && sh.pending != nil && sh.current.hash == sh.pending.hash
}

func (sh *shelf) weight() int {
	n := 1
	for _, t := range []*tree{sh.current, sh.pending} {
		if t != nil {
			n += manifestWeight + len(t.leaves)
		}
	}
	return n
}

// shelf finds a slot's shelf. A shelf that is not in memory is loaded under the slot's lock.
func (s *Storefront) shelf(ctx context.Context, k slot) (*shelf, error) {
	if sh, ok := s.shelves.get(k); ok {
		return sh, nil
	}
	unlock, err := s.locks.lock(ctx, k)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return s.lockedShelf(ctx, k)
}

// lockedShelf is shelf for callers that hold the slot's lock.
func (s *Storefront) lockedShelf(ctx context.Context, k slot) (*shelf, error) {
	if sh, ok := s.shelves.get(k); ok {
		return sh, nil
	}
	var r treeRecord
	version, err := s.load(ctx, k.tree(), &r)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	sh := &shelf{version: version}
	if sh.current, err = s.loadTree(ctx, k, r.Current); errors.Is(err, policies.CodeBehind) {
		sh.lost = true
	} else if err != nil {
		return nil, err
	}
	if sh.pending, err = s.loadTree(ctx, k, r.Pending); err != nil && !errors.Is(err, policies.CodeBehind) {
		return nil, err
	}
	// A pending manifest that is not newer than the current one is done with.
	if sh.current != nil && sh.pending != nil && sh.pending.manifest.Version <= sh.current.manifest.Version {
		sh.pending = nil
	}
	s.shelves.put(k, sh, sh.weight())
	return sh, nil
}

func (s *Storefront) loadTree(ctx context.Context, k slot, st *treeState) (*tree, error) {
	if st == nil {
		return nil, nil
	}
	env, err := envelope.Parse(st.Manifest)
	if err != nil {
		return nil, fmt.Errorf("loading a tree: %v", err)
	}
	m, err := policies.Decode[policies.Manifest](env)
	if err != nil {
		return nil, fmt.Errorf("loading a tree: %v", err)
	}
	leaves := make([]*leaf, 0, len(st.Leaves)/32)
	for h := range slices.Chunk(st.Leaves, 32) {
		r, err := s.store.Get(ctx, leafKey(k.owner, policies.Hash(h)))
		if err != nil {
			return nil, fmt.Errorf("loading a tree: %w", lost(err))
		}
		raw, ciphertext, err := parseLeafRecord(r.Value)
		if err != nil {
			return nil, fmt.Errorf("loading a tree: %w", err)
		}
		l, err := newLeaf(raw, ciphertext)
		if err != nil {
			return nil, fmt.Errorf("loading a tree: %v", err)
		}
		leaves = append(leaves, l)
	}
	t, err := newTree(env, m, st.Receipt, leaves)
	if err != nil {
		return nil, fmt.Errorf("loading a tree: %v", err)
	}
	return t, nil
}

// lost turns the absence of what a tree refers to into the code that has the owner publish again.
func lost(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return policies.CodeBehind
	}
	return err
}

// cipherKey names a ciphertext.
type cipherKey struct {
	slot
	hash policies.Hash
}

// ciphertext reads an item's ciphertext. The caller must not change it.
func (s *Storefront) ciphertext(ctx context.Context, k slot, h policies.Hash) ([]byte, error) {
	ck := cipherKey{k, h}
	if c, ok := s.ciphers.get(ck); ok {
		return c, nil
	}
	r, err := s.store.Get(ctx, k.ciphertext(h))
	if err != nil {
		return nil, err
	}
	s.ciphers.put(ck, r.Value, len(r.Value)+128)
	return r.Value, nil
}

// pair is a reader and an owner.
type pair struct {
	reader policies.ReaderID
	owner  policies.OwnerID
}

// grantSet is all grants of an owner to a reader, oldest first. It does not change; a newer one takes its place.
type grantSet struct {
	grants []grant
}

func (set *grantSet) weight() int {
	n := 1
	for i := range set.grants {
		n += grantWeight + len(set.grants[i].Fields)
	}
	return n
}

type grant struct {
	policies.Grant
	hash  policies.Hash
	raw   jsontext.Value
	ended map[endedField]bool
}

type endedField struct {
	field  policies.Field
	author policies.AuthorID
}

// granted finds all grants of an owner to a reader.
func (s *Storefront) granted(ctx context.Context, p pair) (*grantSet, error) {
	if set, ok := s.grants.get(p); ok {
		return set, nil
	}
	unlock, err := s.locks.lock(ctx, own(p.owner))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if set, ok := s.grants.get(p); ok {
		return set, nil
	}
	set := new(grantSet)
	err = s.each(ctx, key(kindGrant, p.reader[:], p.owner[:]), nil, func(r store.Record) error {
		g, err := parseGrant(r)
		if err != nil {
			return err
		}
		set.grants = append(set.grants, *g)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("loading grants: %w", err)
	}
	s.grants.put(p, set, set.weight())
	return set, nil
}

func parseGrant(r store.Record) (*grant, error) {
	var record grantRecord
	if err := decodeRecord(r, &record); err != nil {
		return nil, err
	}
	env, d, err := stored[policies.Grant]("grant", record.Grant)
	if err != nil {
		return nil, err
	}
	g := &grant{Grant: *d, hash: env.Hash, raw: env.Raw, ended: make(map[endedField]bool, len(record.Ended))}
	for _, e := range record.Ended {
		g.ended[endedField{e.Field, e.Author}] = true
	}
	return g, nil
}

// inForce reports whether some field of the grant is in force as far as the storefront knows. The vault decides.
func (g *grant) inForce(now time.Time) bool {
	return now.Unix() < g.Expires && len(g.ended) < len(g.Fields)
}

// pick chooses the grant under which the vault shall be asked for a leaf: of the leaf's epoch rather than another, in force rather than
// ended, for the purpose named rather than another, and of several the newest. If none fits, one that does not is still offered,
// so that the vault can say, and record, why not.
func (set *grantSet) pick(field policies.Field, author policies.AuthorID, epoch uint64, purpose string, now time.Time) *grant {
	var best *grant
	bestRank := -1
	for i := range set.grants {
		g := &set.grants[i]
		f, ok := g.Field(field, author)
		if !ok {
			continue
		}
		rank := 0
		if f.Epoch == epoch {
			rank += 4
		}
		if !g.ended[endedField{field, author}] && now.Unix() >= g.NotBefore && now.Unix() < g.Expires {
			rank += 2
		}
		if g.Purpose == purpose {
			rank++
		}
		if rank >= bestRank {
			best, bestRank = g, rank
		}
	}
	return best
}

// each calls do for every record with a prefix, in order, a page at a time.
func (s *Storefront) each(ctx context.Context, prefix, after []byte, do func(store.Record) error) error {
	const page = 256
	for {
		records, err := s.store.Scan(ctx, prefix, after, page)
		if err != nil {
			return err
		}
		for _, r := range records {
			if err := do(r); err != nil {
				return err
			}
			after = r.Key
		}
		if len(records) < page {
			return nil
		}
	}
}
