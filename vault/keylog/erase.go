package keylog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"time"

	"golang.org/x/sys/unix"
)

// Erasing is for bodies whose retention is over. A segment that nothing is appended to any more is written anew, with zeros where the bodies were, and takes
// the old one's place in one step: a crash leaves the one or the other. Every frame stays where it was and every leaf what it was, so offsets,
// hashes, seals and signed roots hold as before, in cold storage too; and whatever was changed in a segment by somebody else is as wrong as before. No
// room is gained. Whether the medium keeps older sectors (flash, copy-on-write, snapshots, backups) is not known here.

// Roll has the next commit begin a new segment, so that what was written until then can be erased.
func (l *Log) Roll() { l.rollNext.Store(true) }

// Before is the index of the first entry that is not older than a time.
func (l *Log) Before(t time.Time) (int64, error) {
	var failed error
	size := l.Checkpoint().Size
	n := sort.Search(int(size), func(i int) bool {
		if failed != nil {
			return true
		}
		p, _, err := l.Read(int64(i))
		failed = err
		return err != nil || !p.Time.Before(t)
	})
	return int64(n), failed
}

// Erase removes the bodies of those entries from one index up to, and without, another that erasable chooses, durably. It fails with
// ErrRange if the newest segment has some of them: see Roll. What is erased already stays so, and a call that was interrupted can be made again.
func (l *Log) Erase(ctx context.Context, from, to int64, erasable func(entry []byte) bool) error {
	l.moving.Lock()
	defer l.moving.Unlock()
	err := l.read(func(v *view) error {
		last := len(v.segments) - 1
		if from < 0 || to > v.segments[last].first {
			return fmt.Errorf("entries %d to %d, of which some may be in the newest segment: %w", from, to, ErrRange)
		}
		for i, s := range v.segments[:last] {
			if v.segments[i+1].first <= from || s.first >= to {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := l.eraseSegment(s, func(f *frame) bool {
				return f.kind == kindRecord && len(f.body) > 0 && f.index >= from && f.index < to && erasable(f.entry)
			}); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("erasing bodies: %w", err)
	}
	return nil
}

// eraseSegment writes a segment anew, if there is anything to erase in it.
func (l *Log) eraseSegment(s *segment, erase func(*frame) bool) error {
	dir := l.cfg.Dir
	if s.cold() {
		dir = l.cfg.Cold
	}
	path, d := filepath.Join(dir, s.name), &l.cfg.disk
	var fresh *os.File
	err := l.with(s, func(r io.ReaderAt, size int64) error {
		any := false
		err := eachFrame(r, size, s.name, func(f *frame, _ []byte) error {
			any = any || erase(f)
			return nil
		})
		if err != nil || !any {
			return err
		}
		free, err := d.free(dir)
		if err != nil {
			return err
		}
		if free-l.cfg.Reserve < size {
			return fmt.Errorf("%w: to write it anew takes %d bytes, %d are free", ErrNoSpace, size, free)
		}
		if fresh, err = os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600); err != nil {
			return err
		}
		header := make([]byte, headerSize)
		if _, err := r.ReadAt(header, 0); err != nil {
			return err
		}
		pending, at := header, int64(0)
		flush := func() error {
			err := d.write(fresh, pending, at)
			at, pending = at+int64(len(pending)), pending[:0]
			return err
		}
		if err := eachFrame(r, size, s.name, func(f *frame, raw []byte) error {
			if erase(f) {
				raw[frameHead] = kindErased
				clear(f.body)
				putCRC(raw)
			}
			if pending = append(pending, raw...); len(pending) < 1<<20 {
				return nil
			}
			return flush()
		}); err != nil {
			return err
		}
		if err := flush(); err != nil {
			return err
		}
		if at != size {
			return fmt.Errorf("%d bytes were written of %d", at, size)
		}
		return d.sync(fresh)
	})
	if fresh == nil {
		return err
	}
	if err != nil {
		_ = fresh.Close()
		return err
	}
	// Readers of the old file go on with it; those who come after the swap find the new one, with every frame in its place.
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Rename(path+".new", path); err != nil {
		_ = fresh.Close()
		return err
	}
	if s.file == nil {
		_ = fresh.Close()
	} else {
		_ = s.file.Close() // the old one, which was replaced
		s.file = fresh
	}
	return d.syncDir(dir)
}

// eachFrame calls f with every frame of a segment and the bytes that it was parsed from, which f may change.
func eachFrame(r io.ReaderAt, size int64, name string, f func(*frame, []byte) error) error {
	scan := newScanner(r, int64(headerSize), size)
	defer scan.close()
	for {
		parsed, at, err := scan.next()
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, errTorn), errors.Is(err, errForeign):
			return &DamageError{File: name, Offset: at, Index: -1, What: err.Error()}
		case err != nil:
			return err
		}
		if err := f(&parsed, scan.buf); err != nil {
			return err
		}
	}
}
