package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
)

// Summary is what a whole log holds.
type Summary struct {
	Size      uint64                   `json:"size"`
	Root      policies.Hash            `json:"root"`
	First     time.Time                `json:"first,omitzero"` // times of the first and of the last entry
	Last      time.Time                `json:"last,omitzero"`
	Kinds     map[evidence.Kind]uint64 `json:"kinds"`
	Bodies    uint64                   `json:"bodies"`    // that are there
	Erased    uint64                   `json:"erased"`    // bodies that were erased
	Absent    uint64                   `json:"absent"`    // bodies that the source has not got
	Documents uint64                   `json:"documents"` // signed documents whose hash is the recorded one
}

// Verify holds the whole log against the checkpoint. The first thing that is wrong, in the order of the log, is a [*DamageError].
func (l *Log) Verify(ctx context.Context) (*Summary, error) {
	s := &Summary{Kinds: map[evidence.Kind]uint64{}}
	if _, err := l.bounds(ctx); err != nil {
		return nil, err
	}
	if err := l.each(ctx, nil, s.add); err != nil {
		return nil, err
	}
	s.Size, s.Root = l.Checkpoint.Size, l.Checkpoint.Root
	return s, nil
}

func (s *Summary) add(b *hashed) error {
	for i := range b.records {
		r := &b.records[i]
		s.Kinds[r.Entry.Kind]++
		switch {
		case r.Opening != nil:
			s.Bodies++
		case r.Absent:
			s.Absent++
		default:
			s.Erased++
		}
		if len(r.Document) > 0 {
			s.Documents++
		}
	}
	if b.n == 0 {
		s.First = b.records[0].Time
	}
	s.Last = b.records[len(b.records)-1].Time
	return nil
}

// hashed is a bundle whose leaves are those of the hash tile, and the tile's root.
type hashed struct {
	*bundle
	leaves   []tlog.Hash
	root     tlog.Hash  // of a full tile
	prepared []prepared // by Recheck, one for each record
}

// each verifies the whole log and calls use for each bundle, in order, before the tree as a whole is known to be right: nothing that use does may be
// shown to anybody if each returns an error. prepare, if there is one, is called before, for many bundles at once and in no order.
func (l *Log) each(ctx context.Context, prepare, use func(*hashed) error) error {
	if l.Checkpoint.Size == 0 {
		if l.Checkpoint.Root != sha256.Sum256(nil) {
			return damage(checkpointName, -1, "the root of an empty log is not the hash of nothing")
		}
		return nil
	}
	t := &tree{log: l}
	var before time.Time
	err := inOrder(ctx, 0, int64(l.Checkpoint.Size-1)/TileWidth, func(ctx context.Context, n int64) (*hashed, error) {
		b, err := l.hash(ctx, n)
		if err == nil && b.damaged == nil && prepare != nil {
			err = prepare(b)
		}
		return b, err
	}, func(b *hashed) error {
		if b.damaged != nil {
			return b.damaged
		}
		if b.records[0].Time.Before(before) {
			return &DamageError{EntriesPath(b.n, len(b.records)), b.n * TileWidth, b.n * TileWidth, backwards(b.records[0].Time, before)}
		}
		before = b.records[len(b.records)-1].Time
		if b.n == 0 {
			if err := l.genesis(&b.records[0]); err != nil {
				return err
			}
		}
		if err := use(b); err != nil {
			return err
		}
		if err := t.add(ctx, b); err != nil {
			return err
		}
		if l.Progress != nil && b.n%16 == 15 {
			l.Progress(uint64(b.n+1)*TileWidth, l.Checkpoint.Size)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := t.finish(ctx); err != nil {
		return err
	}
	if l.Progress != nil {
		l.Progress(l.Checkpoint.Size, l.Checkpoint.Size)
	}
	return nil
}

// genesis checks that the log is the one of the vault document's vault.
func (l *Log) genesis(r *Record) error {
	if r.Entry.Kind != evidence.EntryGenesis {
		return damage(EntriesPath(0, l.width(0)), 0, "the log does not begin with a genesis but with %q", string(r.Entry.Kind))
	}
	if len(r.Document) == 0 {
		return nil
	}
	d, err := ParseDocument(r.Document)
	if err != nil {
		return damage(r.beside, 0, "%w", err)
	}
	if d.Vault != l.Document.Vault || policies.HashKey(d.CeremonyKey) != policies.HashKey(l.Document.CeremonyKey) {
		return damage(r.beside, 0, "the log is of vault %s, not of %s", d.Vault, l.Document.Vault)
	}
	return nil
}

// hash reads bundle n and holds it against its hash tile and its documents against what the details name.
func (l *Log) hash(ctx context.Context, n int64) (*hashed, error) {
	b, err := l.bundle(ctx, n)
	if err != nil {
		return nil, err
	}
	h := &hashed{bundle: b, leaves: make([]tlog.Hash, len(b.records))}
	want, name, err := l.tile(ctx, 0, n, len(b.records))
	if err != nil {
		return nil, err
	}
	for i := range b.whole {
		r := &b.records[i]
		if h.leaves[i] = leafHash(r.Leaf); h.leaves[i] != want[i] {
			b.damaged = l.blame(ctx, name, int64(r.Index), h.leaves[i])
			return h, nil
		}
		if err := checkDocument(r); err != nil {
			b.fail(r.beside, i, err)
			return h, nil
		}
	}
	if len(h.leaves) == TileWidth {
		h.root = treeHash(h.leaves)
	}
	return h, nil
}

// blame finds out who is wrong if a leaf's hash is not the one in the tile: the entry, if the tile's own hash leads to the signed root, else the tile.
func (l *Log) blame(ctx context.Context, tile string, index int64, leaf tlog.Hash) *DamageError {
	if h, err := l.leaf(ctx, index); err == nil && h != leaf {
		return notSigned(l, index, leaf, h)
	}
	return damage(tile, index, "the hash tile has another hash than the entry, and does not lead to the signed root")
}

func notSigned(l *Log, index int64, has, want tlog.Hash) *DamageError {
	return damage(EntriesPath(index/TileWidth, l.width(index/TileWidth)), index, "the entry is not the one that the signed tree has: its hash is %s, not %s", policies.Hash(has), policies.Hash(want))
}

// checkDocument checks that the document beside an entry is the one that its details name.
func checkDocument(r *Record) error {
	if len(r.Document) == 0 || named(r) {
		return nil
	}
	d, err := r.Opening.Read()
	if err != nil {
		return err
	}
	e, err := envelope.Parse(r.Document)
	if err != nil {
		return fmt.Errorf("the document beside the entry: %w", err)
	}
	if want := documentOf(r.Entry.Kind, d); policies.Hash(e.Hash) != want {
		return fmt.Errorf("the document beside the entry has the hash %s; the entry names %s", policies.Hash(e.Hash), want)
	}
	return nil
}

// named is checkDocument for what nearly all records have, an envelope and details in the spelling that this project's own programs use, at a tenth of the cost. What
// is spelt otherwise is false here, and for the strict parsers.
func named(r *Record) bool {
	rest, ok := bytes.CutPrefix(r.Document, []byte(`{"payloadType":"`))
	kind, rest, ok2 := cutString(rest, `","payload":"`)
	payload, rest, ok3 := cutString(rest, `","signatures":[{`)
	if !ok || !ok2 || !ok3 || len(kind) > 80 || bytes.IndexByte(kind, '\\') >= 0 || len(payload)%4 != 0 || bytes.Contains(rest, []byte("payload")) || bytes.IndexByte(rest, '\\') >= 0 {
		return false
	}
	length := len(payload) / 4 * 3
	length -= len(payload) - len(bytes.TrimRight(payload, "="))
	var room [2048]byte // most documents are requests, which fit
	pae := fmt.Appendf(room[:0], "DSSEv1 %d %s %d ", len(kind), kind, length)
	pae = slices.Grow(pae, length+2)
	body := pae[len(pae) : len(pae)+length+2]
	if n, err := base64.StdEncoding.Strict().Decode(body, payload); err != nil || n != length { // the decoder passes over line ends
		return false
	}
	hash := sha256.Sum256(pae[:len(pae)+length])
	member := []byte(`"document":"`)
	if k := r.Entry.Kind; k == evidence.EntryUse || k == evidence.EntryRefusal {
		member = []byte(`"request":"`)
	}
	// A quote within a text would have a backslash before it, so this is a member, and no member of details that is a list of objects has one of this name.
	before, after, ok := bytes.Cut(r.Opening.Details, member)
	var text [2 * len(hash)]byte
	hex.Encode(text[:], hash[:])
	return ok && !bytes.HasSuffix(before, []byte(`\`)) && !bytes.Contains(after, member) && len(after) > len(text) && after[len(text)] == '"' && bytes.Equal(after[:len(text)], text[:])
}

// cutString cuts what is up to the next quote from what follows it, which must begin with end.
func cutString(text []byte, end string) (before, after []byte, ok bool) {
	i := bytes.IndexByte(text, '"')
	if i < 0 {
		return nil, nil, false
	}
	after, ok = bytes.CutPrefix(text[i:], []byte(end))
	return text[:i], after, ok
}

// documentOf is the hash of the document that may lie beside an entry.
func documentOf(k evidence.Kind, d *evidence.Details) policies.Hash {
	if !d.Request.IsZero() && (k == evidence.EntryUse || k == evidence.EntryRefusal) {
		return d.Request
	}
	return d.Document
}

// leafHash is the RFC 6962 hash of a leaf.
func leafHash(leaf []byte) tlog.Hash {
	var room [512]byte
	return sha256.Sum256(append(append(room[:0], 0), leaf...))
}

func nodeHash(left, right *tlog.Hash) tlog.Hash {
	var b [1 + 2*tlog.HashSize]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+tlog.HashSize:], right[:])
	return sha256.Sum256(b[:])
}

// treeHash is the root of a tree whose leaves have these hashes (RFC 6962 section 2.1); the last may stand for fewer than the others.
func treeHash(hashes []tlog.Hash) tlog.Hash {
	if len(hashes) == 1 {
		return hashes[0]
	}
	split := 1
	for split*2 < len(hashes) {
		split *= 2
	}
	left, right := treeHash(hashes[:split]), treeHash(hashes[split:])
	return nodeHash(&left, &right)
}

// tree makes the log's tree from tiles, one level of tiles after the other, and holds each against the tile that the source has.
type tree struct {
	log    *Log
	levels []level
}

// level is the newest tile of a level that is not full yet.
type level struct {
	n      int64
	hashes []tlog.Hash
}

// add adds the tile of level 0 that hash made.
func (t *tree) add(ctx context.Context, b *hashed) error {
	if len(t.levels) == 0 {
		t.levels = make([]level, 1)
	}
	if len(b.leaves) < TileWidth {
		t.levels[0].hashes = b.leaves
		return nil
	}
	root := b.root
	for i := 1; ; i++ {
		if i == len(t.levels) {
			t.levels = append(t.levels, level{})
		}
		v := &t.levels[i]
		if v.hashes = append(v.hashes, root); len(v.hashes) < TileWidth {
			return nil
		}
		if err := t.compare(ctx, i, v); err != nil {
			return err
		}
		root = treeHash(v.hashes)
		v.n, v.hashes = v.n+1, v.hashes[:0]
	}
}

// compare holds a tile that was made from the entries against the source's.
func (t *tree) compare(ctx context.Context, i int, v *level) error {
	want, name, err := t.log.tile(ctx, i, v.n, len(v.hashes))
	if err != nil {
		return err
	}
	for k := range want {
		if want[k] != v.hashes[k] {
			span := int64(1) << (8 * i)
			first := (v.n*TileWidth + int64(k)) * span
			return &DamageError{name, first, first + span - 1, errors.New("the entries and the hash tiles below do not make the hash that is in this tile")}
		}
	}
	return nil
}

// finish compares the tiles at the right edge, and the root.
func (t *tree) finish(ctx context.Context) error {
	var root []tlog.Hash
	for i := range t.levels {
		v := &t.levels[i]
		if len(v.hashes) == 0 {
			continue
		}
		if i > 0 {
			if err := t.compare(ctx, i, v); err != nil {
				return err
			}
		}
		root = []tlog.Hash{treeHash(append(append([]tlog.Hash{}, v.hashes...), root...))}
	}
	if policies.Hash(root[0]) != t.log.Checkpoint.Root {
		return damage(checkpointName, -1, "the entries make the root %s; the signed one is %s", policies.Hash(root[0]), t.log.Checkpoint.Root)
	}
	return nil
}
