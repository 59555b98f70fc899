package keylog

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"
)

// Cold storage is a folder on another file system that whole segments are moved to, oldest first. What a start needs of them is in the border
// file, in StateDir: where the hot segments begin, the right edge of the tree there, the time of the last entry before, and which segments are
// cold. It is under a MAC of the seal key. So a start reads the hot segments only, and what it signs rests on the border, which was computed from
// segments that were verified when they were moved; nothing that is signed ever rests on a cold segment again.
//
// Nor is a cold segment trusted: an entry that is read from one must lead to the signed root, and a replay of one checks its seals. One that is changed
// or gone is named when it is read, and harms nothing else. The hash and offset files keep what they say of cold segments; if they are damaged,
// or the border is gone, the next start reads the cold segments too, as Config.Everything makes it do, and makes both anew.
//
//	border  magic (24) | log id (32) | size (8) | time (8) | n (4) | first index of n cold segments (8 each) | edge (32 for each set bit of size) | MAC (32)
const (
	borderFile  = "border"
	borderMagic = "sallyport keylog 1 bord\n"
	borderHead  = len(borderMagic) + sha256.Size + 8 + 8 + 4
	maxCold     = 1 << 24 // segments
)

// A border is where the hot segments begin. The zero border is that of a log without cold ones.
type border struct {
	edge edge
	time int64
	cold []int64 // first indexes
}

// mac authenticates an encoded border.
func (k *sealKey) mac(b []byte) []byte {
	m := hmac.New(sha256.New, k.secret[:])
	_, _ = io.WriteString(m, "sallyport/v1/keylog-border\n") // a hash takes everything
	m.Write(b)
	return m.Sum(nil)
}

func (b *border) encode(id logID, key *sealKey) []byte {
	out := append([]byte(borderMagic), id[:]...)
	out = appendU64(out, uint64(b.edge.size))
	out = appendU64(out, uint64(b.time))
	out = binary.BigEndian.AppendUint32(out, uint32(len(b.cold)))
	for _, first := range b.cold {
		out = appendU64(out, uint64(first))
	}
	for level := range b.edge.node {
		if b.edge.size>>level&1 == 1 {
			out = append(out, b.edge.node[level][:]...)
		}
	}
	return append(out, key.mac(out)...)
}

var errBorder = errors.New("not the border of this log")

func parseBorder(raw []byte, id logID, key *sealKey) (b border, err error) {
	if len(raw) < borderHead+sha256.Size || string(raw[:len(borderMagic)]) != borderMagic {
		return b, errBorder
	}
	body := raw[:len(raw)-sha256.Size]
	if !hmac.Equal(key.mac(body), raw[len(body):]) || logID(body[len(borderMagic):len(borderMagic)+sha256.Size]) != id {
		return b, errBorder
	}
	body = body[len(borderMagic)+sha256.Size:]
	size, at, n := binary.BigEndian.Uint64(body), binary.BigEndian.Uint64(body[8:]), binary.BigEndian.Uint32(body[16:])
	body = body[20:]
	if size > 1<<62 || at > 1<<62 || n > maxCold || len(body) != int(n)*8+bits.OnesCount64(size)*tlog.HashSize {
		return b, errBorder
	}
	b.edge.size, b.time = int64(size), int64(at)
	for ; n > 0; n-- {
		b.cold = append(b.cold, int64(binary.BigEndian.Uint64(body)))
		body = body[8:]
	}
	for level := range b.edge.node {
		if size>>level&1 == 1 {
			body = body[copy(b.edge.node[level][:], body):]
		}
	}
	return b, nil
}

// loadBorder reads the border file. A log that has none has no cold segments, or has forgotten where they end.
func (l *Log) loadBorder() (border, error) {
	raw, err := os.ReadFile(filepath.Join(l.cfg.StateDir, borderFile))
	if errors.Is(err, fs.ErrNotExist) {
		return border{}, nil
	}
	if err != nil {
		return border{}, err
	}
	b, err := parseBorder(raw, l.id, l.key)
	if err != nil {
		return b, &DamageError{File: borderFile, Offset: -1, Index: -1, What: err.Error()}
	}
	return b, nil
}

// with calls f with the segment's file while it can be neither moved nor closed.
func (l *Log) with(s *segment, f func(r io.ReaderAt, size int64) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	file := s.file
	if file == nil {
		var err error
		if file, err = os.Open(filepath.Join(l.cfg.Cold, s.name)); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrCold, s.name, err)
		}
		defer file.Close()
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return f(file, info.Size())
}

// cold reports whether the segment was moved.
func (s *segment) cold() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.file == nil
}

// walk reads the whole commits of a segment that begins at an edge, each verified by its seal, and returns the edge behind the last of them and
// the last time. The frames are valid during the call only.
func (l *Log) walk(r io.ReaderAt, size int64, name string, begin edge, time int64, commit func([]frame) error) (edge, int64, error) {
	damage := func(at int64, what string) error {
		return &DamageError{File: name, Offset: at, Index: begin.size, What: what}
	}
	header := make([]byte, headerSize)
	if _, err := r.ReadAt(header, 0); err != nil && !errors.Is(err, io.EOF) {
		return begin, time, err
	}
	if string(header) != string(journalHeader(l.id, begin.size)) {
		return begin, time, damage(0, "the header is not that of this log and segment")
	}
	scan := newScanner(r, int64(headerSize), size)
	defer scan.close()
	tree := begin
	var frames []frame
	var room []byte
	for {
		f, at, err := scan.next()
		switch {
		case err == io.EOF && len(frames) == 0:
			return tree, time, nil
		case err == io.EOF:
			return begin, time, damage(at, "its last commit has no seal")
		case errors.Is(err, errTorn), errors.Is(err, errForeign):
			return begin, time, damage(at, err.Error())
		case err != nil:
			return begin, time, err
		case f.index != tree.size:
			return begin, time, damage(at, fmt.Sprintf("entry %d lies here", f.index))
		case f.kind != kindSeal && f.time < time:
			return begin, time, damage(at, "its time is earlier than the time of the entry before")
		case f.kind != kindSeal:
			time = f.time
			room = tree.add(room[:0], f.hash())
			if commit != nil {
				f.leaf = append([]byte(nil), f.leaf...)
				f.entry, f.body = f.leaf[1+8:], append([]byte(nil), f.body...)
			}
			frames = append(frames, f)
			continue
		case len(frames) == 0:
			return begin, time, damage(at, "a seal without entries")
		case !hmac.Equal(f.mac, l.key.seal(l.id, tree.size, tree.root())):
			return begin, time, damage(at, "edited: what lies before this seal is not what this log wrote")
		}
		if commit != nil {
			if err := commit(frames); err != nil {
				return begin, time, err
			}
		}
		frames = frames[:0]
	}
}

// edgeAt is the right edge of the tree of the first size entries, from the hash file. Nobody may trust it before a seal has confirmed it.
func (l *Log) edgeAt(v *view, size int64) (e edge, err error) {
	e.size = size
	tree := l.tree(v)
	for level := range e.node {
		if size>>level&1 == 1 {
			h, err := tree.ReadHashes([]int64{tlog.StoredHashIndex(level, size>>level-1)})
			if err != nil {
				return e, err
			}
			e.node[level] = h[0]
		}
	}
	return e, nil
}

// replayCold is replaySegment for a segment in cold storage: records are handed on when their seal is verified.
func (l *Log) replayCold(ctx context.Context, v *view, s *segment, next *int64, f func(Position, Record) error) error {
	begin, err := l.edgeAt(v, s.first)
	if err != nil {
		return err
	}
	return l.with(s, func(r io.ReaderAt, size int64) error {
		_, _, err := l.walk(r, size, s.name, begin, 0, func(frames []frame) error {
			for i := range frames {
				if frames[i].index != *next || *next >= v.cp.Size {
					continue
				}
				*next++
				if *next%256 == 0 && ctx.Err() != nil {
					return ctx.Err()
				}
				if err := f(frames[i].position(), frames[i].record()); err != nil {
					return err
				}
			}
			return nil
		})
		return err
	})
}

// reachCold fails if the folder is missing, or is needed and not configured.
func (l *Log) reachCold() error {
	if l.cfg.Cold == "" {
		if n := len(l.border.cold); n > 0 {
			return fmt.Errorf("%w: %d segments are there, and its folder is not configured", ErrCold, n)
		}
		return nil
	}
	if info, err := os.Stat(l.cfg.Cold); err != nil || !info.IsDir() {
		return fmt.Errorf("%w: its folder is missing", ErrCold)
	}
	return nil
}

// moveCold moves what is old enough, or too much. One goroutine at a time calls it: keep. A crash leaves a segment in both places, or a
// temporary file; the next call goes on from there.
func (l *Log) moveCold() error {
	l.moving.Lock()
	defer l.moving.Unlock()
	if err := l.reachCold(); err != nil || l.cfg.Cold == "" || l.stopped() != nil {
		return err
	}
	if err := l.clearMoved(); err != nil {
		return fmt.Errorf("%w: %w", ErrCold, err)
	}
	v := l.view.Load()
	hot := v.segments[len(l.border.cold) : len(v.segments)-1]
	for i, s := range hot {
		end := v.segments[len(l.border.cold)+1].first
		old, err := true, error(nil) // there already, but the border was lost
		if !s.cold() {
			old, err = l.isOld(v, end, hot[i:])
		}
		if err != nil || !old || end > l.saved { // the token's copy must be at or behind the border
			return err
		}
		if err := l.moveSegment(s, end); err != nil {
			return fmt.Errorf("%w: moving %s: %w", ErrCold, s.name, err)
		}
	}
	return nil
}

// clearMoved removes what a move left that was interrupted behind the border.
func (l *Log) clearMoved() error {
	names, err := segmentNames(l.cfg.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name >= segmentName(l.border.edge.size) {
			break
		}
		left, err := os.Stat(filepath.Join(l.cfg.Dir, name))
		if err != nil {
			return err
		}
		if moved, err := os.Stat(filepath.Join(l.cfg.Cold, name)); err != nil || moved.Size() != left.Size() {
			return fmt.Errorf("%s is needed and not there", name)
		}
		if err := os.Remove(filepath.Join(l.cfg.Dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// isOld says whether the first of the hot segments, which ends before the entry end, is to be moved.
func (l *Log) isOld(v *view, end int64, hot []*segment) (bool, error) {
	if l.cfg.ColdBytes > 0 {
		var bytes int64
		for _, s := range append(hot[:len(hot):len(hot)], v.segments[len(v.segments)-1]) {
			if err := l.with(s, func(_ io.ReaderAt, size int64) error { bytes += size; return nil }); err != nil {
				return false, err
			}
		}
		if bytes > l.cfg.ColdBytes {
			return true, nil
		}
	}
	if l.cfg.ColdAfter <= 0 {
		return false, nil
	}
	p, _, err := l.Read(end - 1)
	if err != nil {
		return false, err
	}
	wall, _ := l.cfg.Clock()
	return wall.Sub(p.Time) >= l.cfg.ColdAfter, nil
}

// moveSegment copies a segment, verifies the copy, moves the border behind it, and then removes the segment.
func (l *Log) moveSegment(s *segment, end int64) error {
	d, path := &l.cfg.disk, filepath.Join(l.cfg.Cold, s.name)
	if !s.cold() {
		if err := l.copyCold(s, path); err != nil {
			return err
		}
	}
	copied, err := os.Open(path)
	if err != nil {
		return err
	}
	defer copied.Close()
	info, err := copied.Stat()
	if err != nil {
		return err
	}
	behind, time, err := l.walk(copied, info.Size(), s.name, l.border.edge, l.border.time, nil)
	if err != nil {
		return fmt.Errorf("verifying the copy: %w", err)
	}
	if behind.size != end {
		return fmt.Errorf("the copy ends with entry %d, not %d", behind.size, end)
	}
	// From here on the next start makes neither of them anew for these entries.
	for _, index := range []*os.File{l.hashes, l.offsets} {
		if err := d.sync(index); err != nil {
			return err
		}
	}
	b := border{edge: behind, time: time, cold: append(l.border.cold[:len(l.border.cold):len(l.border.cold)], s.first)}
	if err := d.replace(l.cfg.StateDir, borderFile, b.encode(l.id, l.key)); err != nil {
		return err
	}
	l.border = b
	s.mu.Lock()
	if s.file != nil {
		_ = s.file.Close()
		s.file = nil
	}
	s.mu.Unlock()
	if err := os.Remove(filepath.Join(l.cfg.Dir, s.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.syncDir(l.cfg.Dir)
}

// copyCold makes the copy durable under its name.
func (l *Log) copyCold(s *segment, path string) error {
	d := &l.cfg.disk
	return l.with(s, func(r io.ReaderAt, size int64) error {
		free, err := d.free(l.cfg.Cold)
		if err != nil {
			return err
		}
		if free-l.cfg.Reserve < size {
			return fmt.Errorf("%d bytes free there, reserve is %d", free, l.cfg.Reserve)
		}
		f, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		buf := make([]byte, 1<<20)
		for at := int64(0); at < size; at += int64(len(buf)) {
			buf = buf[:min(int64(len(buf)), size-at)]
			if _, err := r.ReadAt(buf, at); err != nil {
				return err
			}
			if err := d.write(f, buf, at); err != nil {
				return err
			}
		}
		if err := d.sync(f); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
		return d.syncDir(l.cfg.Cold)
	})
}

// keepCold moves segments, and remembers for Health why it could not.
func (l *Log) keepCold() {
	if err := l.moveCold(); err != nil {
		l.coldFault.Store(&err)
		return
	}
	l.coldFault.Store(nil)
}
