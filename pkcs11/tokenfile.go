package pkcs11

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// SoftHSM writes the token's own file anew at every login: it truncates it and writes it then. Of a process that is killed between the two, or on a disk that is
// full, an empty file stays, and the token is gone with all its keys (2.6.1, TestTornTokenFile and TestKilledAtLogin). So before each login a copy is laid
// beside it, which SoftHSM passes over, and where the file is torn the copy is put back.
const (
	tokenFile = "token.object"
	keptFile  = "token.kept"
)

// A torn file may be on its way, so it is looked at again for so long. SoftHSM needs less than a millisecond between the two calls.
const writtenWithin = 300 * time.Millisecond

// guard keeps a copy of the own file of each token that matches sel, or puts it back where it is torn. That no copy can be made is no reason to serve
// nothing: the log says so.
func (p Profile) guard(sel Selector) error {
	if p.Sync != SyncFolder {
		return nil
	}
	entries, err := os.ReadDir(p.Folder)
	if err != nil {
		return &Error{Op: "reading the token folder: " + err.Error(), Kind: ErrTokenMissing}
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		err := guardToken(filepath.Join(p.Folder, e.Name()), sel)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) { // no token, or another user's
			return &Error{Op: "looking at the token's own file: " + err.Error(), Kind: ErrTokenBroken}
		}
	}
	return nil
}

func guardToken(folder string, sel Selector) error {
	dir, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil { // others of us do the same
		return err
	}
	kept, keptErr := os.ReadFile(filepath.Join(folder, keptFile))
	mine := keptErr == nil && intact(kept) && sel.names(kept)
	for deadline := time.Now().Add(writtenWithin); ; time.Sleep(time.Millisecond) {
		file, err := os.ReadFile(filepath.Join(folder, tokenFile))
		switch {
		case err != nil:
			return err
		case intact(file):
			if sel.names(file) && (keptErr != nil || !sameToken(file, kept)) {
				if err := replaceFile(dir, keptFile, file); err != nil {
					slog.Warn("no copy of the token's own file can be kept: if a process is killed at login, the token may be lost", "folder", folder, "error", err)
				}
			}
			return nil
		case !mine:
			return nil // somebody else's, or nothing can be done: the module will say that there is no token
		case time.Now().After(deadline):
			slog.Warn("the token's own file was torn, as a process leaves it that is killed at login: it was put back from the copy", "folder", folder)
			return replaceFile(dir, tokenFile, kept)
		}
	}
}

// names reports whether the own file of a token is of one that sel may mean.
func (s Selector) names(file []byte) bool {
	return bytes.Contains(file, []byte(s.Serial)) && bytes.Contains(file, []byte(s.Label))
}

// sameToken compares two own files but for the number of times that they were written, which they begin with.
func sameToken(a, b []byte) bool { return len(a) >= 8 && len(b) >= 8 && bytes.Equal(a[8:], b[8:]) }

// intact reports whether the own file of a token is as SoftHSM writes it, to its end: a number, and attributes, each a type, a kind and a value; numbers have
// 8 bytes. It is not judged from an attribute on that is of a kind which the file has none of in 2.6.1.
func intact(file []byte) bool {
	number := func() (n uint64, ok bool) {
		if len(file) < 8 {
			return 0, false
		}
		n, file = binary.BigEndian.Uint64(file), file[8:]
		return n, true
	}
	if _, ok := number(); !ok || len(file) == 0 {
		return false
	}
	for len(file) > 0 {
		_, ok := number()
		kind, also := number()
		var size uint64
		switch {
		case !ok || !also || kind == 0:
			return false
		case kind == 1:
			size = 1 // CK_BBOOL
		case kind == 2:
			size = 8 // CK_ULONG
		case kind == 3:
			if size, ok = number(); !ok {
				return false
			}
		default:
			return true
		}
		if size > uint64(len(file)) {
			return false
		}
		file = file[size:]
	}
	return true
}

// replaceFile writes a file of a token's folder anew: whatever happens, it is there as before or as after. It belongs to whom the folder belongs to.
func replaceFile(dir *os.File, name string, content []byte) error {
	path := filepath.Join(dir.Name(), name)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	var owner unix.Stat_t
	if unix.Fstat(int(dir.Fd()), &owner) == nil {
		_ = f.Chown(int(owner.Uid), int(owner.Gid)) // root's to do; the others own it
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = dir.Sync()
	}
	return err
}
