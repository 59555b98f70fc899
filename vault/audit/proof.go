package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// Consistent shows that an older checkpoint is a beginning of this log. It needs hash tiles only. Of the older one the token's line is enough: that is what
// owners and readers have from receipts.
func (l *Log) Consistent(ctx context.Context, older string) error {
	c, err := evidence.OpenCheckpoint(older, l.Document.LogKey)
	if err != nil {
		return &DamageError{File: checkpointName, Index: -1, Err: fmt.Errorf("the older one: %w", err)}
	}
	switch {
	case c.Size > l.Checkpoint.Size:
		return damage(checkpointName, -1, "it is of %d entries and the other of %d: entries are gone, or the other is the newer one", l.Checkpoint.Size, c.Size)
	case c.Size == l.Checkpoint.Size && c.Root != l.Checkpoint.Root:
		return damage(checkpointName, -1, "two checkpoints of %d entries with different roots: the log was forked", c.Size)
	case c.Size == l.Checkpoint.Size || c.Size == 0:
		return nil
	}
	proof, err := tlog.ProveTree(int64(l.Checkpoint.Size), int64(c.Size), l.hashes(ctx))
	if err != nil {
		return l.explain(err)
	}
	if tlog.CheckTree(proof, int64(l.Checkpoint.Size), tlog.Hash(l.Checkpoint.Root), int64(c.Size), tlog.Hash(c.Root)) != nil {
		return damage(checkpointName, -1, "the first %d entries are not those of the older checkpoint: the log was forked or rewritten", c.Size)
	}
	return nil
}

// Include shows that the entry with an index is in the log, and returns it. It needs hash tiles, and the bundle of the entry.
func (l *Log) Include(ctx context.Context, index uint64) (*Record, error) {
	if index >= l.Checkpoint.Size {
		return nil, fmt.Errorf("%w: entry %d is not in a log of %d", policies.ErrProof, index, l.Checkpoint.Size)
	}
	for r, err := range l.Records(ctx, index, index+1) {
		if err != nil {
			return nil, err
		}
		h, err := l.leaf(ctx, int64(index))
		if err != nil {
			return nil, err
		}
		if got := leafHash(r.Leaf); got != h {
			return nil, notSigned(l, int64(index), got, h)
		}
		if err := checkDocument(r); err != nil {
			return nil, damage(r.beside, int64(index), "%w", err)
		}
		return r, nil
	}
	return nil, fmt.Errorf("entry %d: %w", index, fs.ErrNotExist) // Records gives one or an error
}

// Proven is [Log.Records], with each record shown to be in the log before it is given, as [Log.Include] shows it. It is for who goes on where they
// ended: what lies before from is not read.
func (l *Log) Proven(ctx context.Context, from, to uint64) iter.Seq2[*Record, error] {
	return l.records(ctx, from, to, l.proven)
}

// proven reads bundle n and holds its leaves against hashes that lead to the signed root.
func (l *Log) proven(ctx context.Context, n int64) (*bundle, error) {
	b, err := l.bundle(ctx, n)
	if err != nil {
		return nil, err
	}
	indexes := make([]int64, len(b.records))
	for i := range indexes {
		indexes[i] = tlog.StoredHashIndex(0, n*TileWidth+int64(i))
	}
	want, err := l.hashes(ctx).ReadHashes(indexes)
	if err != nil {
		return nil, l.explain(err)
	}
	for i := range b.whole {
		r := &b.records[i]
		if got := leafHash(r.Leaf); got != want[i] {
			b.whole, b.damaged = i, notSigned(l, int64(r.Index), got, want[i])
			return b, nil
		}
		if err := checkDocument(r); err != nil {
			b.whole = i
			b.fail(r.beside, i, err)
			return b, nil
		}
	}
	return b, nil
}

// leaf is the hash of a leaf, proven by the hash tiles to be under the signed root.
func (l *Log) leaf(ctx context.Context, index int64) (tlog.Hash, error) {
	h, err := l.hashes(ctx).ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
	if err != nil {
		return tlog.Hash{}, l.explain(err)
	}
	return h[0], nil
}

// hashes reads hashes from tiles that lead to the signed root, and no others.
func (l *Log) hashes(ctx context.Context) tlog.HashReader {
	return tlog.TileHashReader(tlog.Tree{N: int64(l.Checkpoint.Size), Hash: tlog.Hash(l.Checkpoint.Root)}, &tiles{ctx, l})
}

// explain tells a tile that is not there from one that is wrong.
func (l *Log) explain(err error) error {
	var d *DamageError
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, &d) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return damage("tile", -1, "the hash tiles do not lead to the signed root: %w", err)
}

// tiles is the source as x/mod reads one.
type tiles struct {
	ctx context.Context
	log *Log
}

// Height implements tlog.TileReader.
func (*tiles) Height() int { return 8 }

// ReadTiles implements tlog.TileReader.
func (t *tiles) ReadTiles(want []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(want))
	for i, w := range want {
		hashes, _, err := t.log.tile(t.ctx, w.L, w.N, w.W)
		if err != nil {
			return nil, err
		}
		for _, h := range hashes {
			out[i] = append(out[i], h[:]...)
		}
	}
	return out, nil
}

// SaveTiles implements tlog.TileReader.
func (*tiles) SaveTiles([]tlog.Tile, [][]byte) {}
