package keylog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// disk is how this package changes durable state: every write and fsync goes
// through it, so that tests can make each one fail, before or after it happened.
type disk struct {
	write   func(f *os.File, b []byte, offset int64) error
	sync    func(f *os.File) error
	syncDir func(dir string) error
	free    func(dir string) (int64, error)
}

func (d *disk) complete() {
	if d.write == nil {
		d.write = writeAt
	}
	if d.sync == nil {
		d.sync = syncFile
	}
	if d.syncDir == nil {
		d.syncDir = syncDir
	}
	if d.free == nil {
		d.free = freeSpace
	}
}

func writeAt(f *os.File, b []byte, offset int64) error {
	_, err := f.WriteAt(b, offset)
	return err
}

// syncFile flushes the data and as much of the metadata as reading it back
// needs, the file's size included (fdatasync(2)). Only EINTR is tried again:
// after any other error the kernel may have dropped the dirty pages.
func syncFile(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return &os.PathError{Op: "fdatasync", Path: filepath.Base(f.Name()), Err: err}
		}
	}
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func freeSpace(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// replace gives the file its content in one step: a crash leaves the old file
// or the new one. A file under a temporary name may stay behind; the next
// replace overwrites it and nothing reads it. A link under that name is refused:
// the log's folder is not trusted, and the link may point at the signer state.
func (d *disk) replace(dir, name string, content []byte) error {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := d.write(f, content, 0); err != nil {
		return err
	}
	if err := d.sync(f); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return d.syncDir(dir)
}

// lockFolder takes an exclusive flock(2) on the folder itself, so there is no
// lock file to delete. The kernel releases it when the process ends.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", dir, ErrLocked)
		}
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	return f, nil
}
