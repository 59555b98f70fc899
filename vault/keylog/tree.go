package keylog

import (
	"crypto/sha256"
	"math/bits"
	"os"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// An edge is the right edge of the tree: for each set bit of size, the hash of
// the complete subtree of that many leaves. It is all that is needed to append
// and to compute the root, so nothing that is signed is ever read back from a
// file.
type edge struct {
	size int64
	node [63]tlog.Hash
}

// add appends a leaf to the tree and to dst the hashes it completes, in the
// order of tlog.StoredHashIndex.
func (e *edge) add(dst []byte, leaf tlog.Hash) []byte {
	h, level := leaf, 0
	dst = append(dst, h[:]...)
	for ; e.size>>level&1 == 1; level++ {
		h = tlog.NodeHash(e.node[level], h)
		dst = append(dst, h[:]...)
	}
	e.node[level] = h
	e.size++
	return dst
}

// root returns the tree's hash (RFC 6962, section 2.1).
func (e *edge) root() tlog.Hash {
	if e.size == 0 {
		return sha256.Sum256(nil)
	}
	level := bits.TrailingZeros64(uint64(e.size))
	h := e.node[level]
	for level++; e.size>>level != 0; level++ {
		if e.size>>level&1 == 1 {
			h = tlog.NodeHash(e.node[level], h)
		}
	}
	return h
}

// lookup returns the hash stored at index if it lies on the edge.
func (e *edge) lookup(index int64) (tlog.Hash, bool) {
	level, n := tlog.SplitStoredHashIndex(index)
	if e.size>>level&1 == 1 && n == e.size>>level-1 {
		return e.node[level], true
	}
	return tlog.Hash{}, false
}

// recent holds the newest stored hashes in memory. With the edge it answers
// most of a proof for a fresh entry without touching the hash file.
type recent struct {
	mu    sync.RWMutex
	first int64 // stored index of the first hash that was ever added
	next  int64 // and of the next
	ring  [1 << 13]tlog.Hash
}

func (r *recent) add(hashes []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for ; len(hashes) > 0; hashes = hashes[tlog.HashSize:] {
		r.ring[r.next%int64(len(r.ring))] = tlog.Hash(hashes[:tlog.HashSize])
		r.next++
	}
}

func (r *recent) lookup(index int64) (tlog.Hash, bool) {
	if index >= r.next || index < max(r.first, r.next-int64(len(r.ring))) {
		return tlog.Hash{}, false
	}
	return r.ring[index%int64(len(r.ring))], true
}

// hashReader reads the stored hashes of one view of the log.
type hashReader struct {
	edge   *edge
	recent *recent
	file   *os.File
}

// ReadHashes implements tlog.HashReader.
func (r hashReader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	missing := make([]int, 0, len(indexes))
	r.recent.mu.RLock()
	for i, index := range indexes {
		h, ok := r.recent.lookup(index)
		if !ok {
			h, ok = r.edge.lookup(index)
		}
		if !ok {
			missing = append(missing, i)
		}
		hashes[i] = h
	}
	r.recent.mu.RUnlock()
	for _, i := range missing {
		if _, err := r.file.ReadAt(hashes[i][:], indexes[i]*tlog.HashSize); err != nil {
			return nil, err
		}
	}
	return hashes, nil
}
