// Package profile keeps what a person's or business's device must not lose and must not show: one folder with one sealed state
// file, and beside it the mirror of one's own ciphertext.
//
// The state file holds roots and keys; it is sealed with AES-256-GCM under a key that comes from a passphrase (Argon2id, RFC
// 9106) or from a key file. Every save replaces the whole file: a new file is written, synced and renamed over the old one, and
// the folder synced, so that a crash at any line leaves the old state or the new one and never a part. Each save has a key of its
// own (HKDF with a fresh salt), so no nonce is ever used twice under one key.
//
// An open profile is locked (flock), because two commands that save at once would lose what one of them did. The folder has
// mode 0700. A key file or passphrase file that others may read is refused, and so is a profile folder that is not one's own.
//
// The normal path: [Create] or [Open], [Profile.Load], work, [Profile.Save], [Profile.Close]. A wrong passphrase and a damaged
// file look alike, [ErrUnlock]; a file that is no state file at all is [ErrFormat].
//
// A business's people are in a safe of their own beside the state (package safe), under a key of the same profile; the state says which safe, and how much of it
// there must be at least.
//
// What it does not do: it cannot tell an old copy of the folder from the newest. Whoever restores an old copy must sync before
// they publish; the vault's chain sees to it that they cannot do otherwise.
package profile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client/safe"
)

var (
	// ErrUnlock: the passphrase or key file is not this profile's, or the file was changed.
	ErrUnlock = errors.New("the passphrase or key file does not open this, or the file is damaged")
	// ErrFormat: the bytes are not a sealed file of this program, or of a version it does not know.
	ErrFormat = errors.New("not a sealed Sallyport file")
	// ErrExists: there is a profile in this folder already.
	ErrExists = errors.New("there is a profile in this folder already")
	// ErrMissing: there is no profile in this folder.
	ErrMissing = errors.New("there is no profile in this folder")
	// ErrBusy: another command has the profile open.
	ErrBusy = errors.New("another command is using this profile; wait until it ends")
	// ErrExposed: others may read a file or folder that must be private.
	ErrExposed = errors.New("others may read this; make it private with chmod go-rwx")
	// ErrNoItem: the mirror does not have this ciphertext.
	ErrNoItem = errors.New("not in the mirror")
)

const (
	stateName  = "state"
	lockName   = "lock"
	mirrorName = "mirror"
	safeName   = "safe"
)

// Profile is an open profile: its folder is locked and its key in memory until Close. One goroutine may use it at a time.
type Profile struct {
	dir  string
	lock *os.File
	box  *box
	gone bool // discarded: nothing is written any more
}

// Create makes the folder (if need be) and a profile in it that [Profile.Load] finds empty. Nothing is on disk before the
// first Save but the folder and its lock.
func Create(dir string, secret *Secret) (*Profile, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating a profile: %w", err)
	}
	p, err := lockFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("creating a profile: %w", err)
	}
	if _, err := os.Lstat(p.path(stateName)); !errors.Is(err, fs.ErrNotExist) {
		_ = p.Close()
		return nil, fmt.Errorf("creating a profile in %s: %w", dir, ErrExists)
	}
	// A safe without a state is what a profile left that was never finished: the key to it is gone.
	if err := os.Remove(p.path(safeName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		_ = p.Close()
		return nil, fmt.Errorf("creating a profile: %w", err)
	}
	if p.box, err = newBox(secret); err != nil {
		_ = p.Close()
		return nil, fmt.Errorf("creating a profile: %w", err)
	}
	return p, nil
}

// Open opens the profile in a folder. The state is decrypted once here, so that a wrong passphrase shows at once.
func Open(dir string, secret *Secret) (*Profile, error) {
	if _, err := os.Stat(filepath.Join(dir, stateName)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("opening a profile in %s: %w", dir, ErrMissing)
	}
	p, err := lockFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("opening a profile: %w", err)
	}
	sealed, err := os.ReadFile(p.path(stateName))
	if err == nil {
		var state []byte
		p.box, state, err = openBox(secret, sealed)
		clear(state)
	}
	if err != nil {
		_ = p.Close()
		return nil, fmt.Errorf("opening the profile in %s: %w", dir, err)
	}
	return p, nil
}

// Exists reports whether there is a profile in a folder.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, stateName))
	return err == nil
}

func lockFolder(dir string) (*Profile, error) {
	if err := private(dir); err != nil {
		return nil, err
	}
	p := &Profile{dir: dir}
	lock, err := os.OpenFile(p.path(lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, err
	}
	p.lock = lock
	return p, nil
}

// private refuses what other users can read or write, or what belongs to another user.
func private(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&0o077 != 0 {
		return fmt.Errorf("%s: %w", path, ErrExposed)
	}
	if uid := os.Geteuid(); uid != 0 && int(st.Uid) != uid {
		return fmt.Errorf("%s: %w: it belongs to another user", path, ErrExposed)
	}
	return nil
}

func (p *Profile) path(name string) string { return filepath.Join(p.dir, name) }

// Dir is the profile's folder.
func (p *Profile) Dir() string { return p.dir }

// Load returns the state as it was last saved, nil if it never was. The caller overwrites it after use.
func (p *Profile) Load() ([]byte, error) {
	sealed, err := os.ReadFile(p.path(stateName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("loading the profile: %w", err)
	}
	state, err := p.box.open(sealed)
	if err != nil {
		return nil, fmt.Errorf("loading the profile: %w", err)
	}
	return state, nil
}

// Save replaces the state atomically. When it returns nil, the state outlives a power cut.
func (p *Profile) Save(state []byte) error {
	if p.gone {
		return fmt.Errorf("saving the profile: %w", ErrMissing)
	}
	sealed, err := p.box.seal(state)
	if err != nil {
		return fmt.Errorf("saving the profile: %w", err)
	}
	if err := WriteFile(p.path(stateName), sealed); err != nil {
		return fmt.Errorf("saving the profile: %w", err)
	}
	return nil
}

// PutItem keeps a ciphertext in the mirror, under its hash.
func (p *Profile) PutItem(hash policies.Hash, ciphertext []byte) error {
	if p.gone {
		return fmt.Errorf("writing to the mirror: %w", ErrMissing)
	}
	path := p.itemPath(hash)
	if _, err := os.Stat(path); err == nil {
		return nil // named by its content, which Item checks
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("writing to the mirror: %w", err)
	}
	if err := WriteFile(path, ciphertext); err != nil {
		return fmt.Errorf("writing to the mirror: %w", err)
	}
	return nil
}

// Item reads a ciphertext from the mirror. A file whose content is not what its name says counts as missing and is
// removed, so that the next sync fetches it again.
func (p *Profile) Item(hash policies.Hash) ([]byte, error) {
	data, err := os.ReadFile(p.itemPath(hash))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoItem
	}
	if err != nil {
		return nil, fmt.Errorf("reading the mirror: %w", err)
	}
	if policies.HashKey(data) != hash {
		_ = os.Remove(p.itemPath(hash))
		return nil, ErrNoItem
	}
	return data, nil
}

// KeepItems removes from the mirror what is not named.
func (p *Profile) KeepItems(keep map[policies.Hash]bool) error {
	files, err := filepath.Glob(p.path(mirrorName) + "/??/*")
	if err != nil {
		return err
	}
	for _, file := range files {
		if hash, err := parseHash(filepath.Base(file)); err == nil && !keep[hash] {
			if err := os.Remove(file); err != nil {
				return fmt.Errorf("tidying the mirror: %w", err)
			}
		}
	}
	return nil
}

func (p *Profile) itemPath(hash policies.Hash) string {
	name := hash.String()
	return filepath.Join(p.dir, mirrorName, name[:2], name)
}

// Safe opens the profile's safe, or makes it. The caller closes it, and keeps its Head in the state.
func (p *Profile) Safe(head safe.Head) (*safe.Safe, error) {
	key, err := p.box.safeKey()
	if err != nil {
		return nil, err
	}
	defer clear(key[:])
	return safe.Open(p.path(safeName), key, head)
}

// Seal seals bytes under the profile's passphrase or key file, for a backup that opens without the profile.
func (p *Profile) Seal(plain []byte) ([]byte, error) { return p.box.seal(plain) }

// Unseal opens what [Profile.Seal] made, in any profile, under a passphrase or key file.
func Unseal(secret *Secret, sealed []byte) ([]byte, error) {
	b, plain, err := openBox(secret, sealed)
	if err != nil {
		return nil, err
	}
	b.zero()
	return plain, nil
}

// Discard deletes what the profile made, the keys first, and the folder if nothing else is in it. It returns what else is, which nobody asked to be deleted: a person may keep backups
// there. Nothing can be saved afterwards; the caller closes the profile still.
func (p *Profile) Discard() (left []string, err error) {
	p.gone = true
	keep := func(e error) {
		if e != nil && !errors.Is(e, fs.ErrNotExist) && !errors.Is(e, unix.ENOTEMPTY) {
			err = errors.Join(err, e)
		}
	}
	list := func(dir string) []fs.DirEntry {
		entries, e := os.ReadDir(dir)
		keep(e)
		return entries
	}
	keep(os.Remove(p.path(stateName)))
	keep(os.Remove(p.path(safeName)))
	mirror := p.path(mirrorName)
	for _, shelf := range list(mirror) {
		if !shelf.IsDir() {
			continue
		}
		dir := filepath.Join(mirror, shelf.Name())
		for _, item := range list(dir) {
			if _, e := parseHash(item.Name()); e == nil || unfinished(item) {
				keep(os.Remove(filepath.Join(dir, item.Name())))
			}
		}
		keep(os.Remove(dir))
	}
	keep(os.Remove(mirror))
	for _, one := range list(p.dir) {
		if unfinished(one) {
			keep(os.Remove(p.path(one.Name())))
		}
	}
	keep(os.Remove(p.path(lockName)))
	for _, one := range list(p.dir) {
		left = append(left, one.Name())
	}
	if err == nil && len(left) == 0 {
		keep(os.Remove(p.dir))
	}
	if err != nil {
		return left, fmt.Errorf("deleting the profile: %w", err)
	}
	return left, nil
}

// unfinished reports whether a file is one that an interrupted command left while it replaced another. It has the name that [os.CreateTemp] gave it.
func unfinished(file fs.DirEntry) bool {
	kind, number, _ := strings.Cut(file.Name(), "-")
	return file.Type().IsRegular() && (kind == ".new" || kind == ".safe") && number != "" && strings.Trim(number, "0123456789") == ""
}

// Close forgets the key and gives the folder free.
func (p *Profile) Close() error {
	if p.box != nil {
		p.box.zero()
	}
	return p.lock.Close() // gives up the flock
}

// WriteFile replaces a file atomically and durably, with mode 0600: temporary file, fsync, rename, fsync of the folder.
func WriteFile(path string, data []byte) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	var failed *fs.PathError
	if errors.As(err, &failed) { // nobody knows the name that it was to have for a moment
		return &fs.PathError{Op: "writing to", Path: filepath.Dir(path), Err: failed.Err}
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
		var renamed *os.LinkError
		if errors.As(err, &failed) && failed.Path == tmp.Name() {
			err = &fs.PathError{Op: failed.Op, Path: path, Err: failed.Err}
		} else if errors.As(err, &renamed) {
			err = &fs.PathError{Op: renamed.Op, Path: path, Err: renamed.Err}
		}
	}()
	if _, err = tmp.Write(data); err != nil {
		return err
	}
	if err = tmp.Sync(); err != nil {
		return err
	}
	if err = tmp.Close(); err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

// ReadSecretFile reads a file that only its owner may read, of at most limit bytes.
func ReadSecretFile(path string, limit int) ([]byte, error) {
	if err := private(path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // or a pipe that nobody writes to would be waited for
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: it is not a regular file", path, ErrFormat)
	}
	buffer := make([]byte, limit+1) // at once: a buffer that grows leaves copies behind
	n, err := io.ReadFull(f, buffer)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		clear(buffer)
		return nil, err
	}
	if n > limit {
		clear(buffer)
		return nil, fmt.Errorf("%s: %w: longer than %d bytes", path, ErrFormat, limit)
	}
	return buffer[:n], nil
}

func parseHash(text string) (hash policies.Hash, err error) {
	err = hash.UnmarshalText([]byte(text))
	return hash, err
}
