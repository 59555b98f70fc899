package export

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/sallyport/sallyport/policies"
)

// ErrCursor: the cursor is not one of this export, or another process uses it.
var ErrCursor = errors.New("the cursor does not fit")

const cursorFormat = 1

// cursor says how far an export is.
type cursor struct {
	Format     int              `json:"format"`
	Log        string           `json:"log"`
	Vault      policies.VaultID `json:"vault"`
	Events     Format           `json:"events"`
	Pseudonyms bool             `json:"pseudonyms,omitempty"`
	Next       uint64           `json:"next"` // index of the next entry
	// Of the checkpoint that the entries before Next were proven under, and its text. All three are empty before the first.
	Size       uint64        `json:"size,omitempty"`
	Root       policies.Hash `json:"root,omitzero"`
	Checkpoint string        `json:"checkpoint,omitempty"`
	Output     int64         `json:"output"`          // how many bytes of the output are safe
	Fault      string        `json:"fault,omitempty"` // uid of the fault that was handed over last
}

func readCursor(name string) (*cursor, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	c, err := parseCursor(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCursor, name, err)
	}
	return c, nil
}

func parseCursor(text []byte) (*cursor, error) {
	c := new(cursor)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return nil, err
	}
	switch _, err := d.Token(); {
	case !errors.Is(err, io.EOF):
		return nil, errors.New("something follows it")
	case c.Format != cursorFormat:
		return nil, fmt.Errorf("it is of version %d; this knows %d", c.Format, cursorFormat)
	case c.Output < 0 || (c.Size == 0) != (c.Checkpoint == ""):
		return nil, errors.New("it contradicts itself")
	}
	return c, nil
}

// fits refuses to go on with a cursor of another export, which would mix two in one output.
func (c *cursor) fits(with *cursor) error {
	switch {
	case c.Log != with.Log || c.Vault != with.Vault:
		return fmt.Errorf("%w: it is of the log %s of vault %s, not of %s of %s", ErrCursor, c.Log, c.Vault, with.Log, with.Vault)
	case c.Events != with.Events || c.Pseudonyms != with.Pseudonyms:
		return fmt.Errorf("%w: it is of an export as %s (pseudonyms only: %t), not as %s (%t)", ErrCursor, c.Events, c.Pseudonyms, with.Events, with.Pseudonyms)
	}
	return nil
}

// write replaces the cursor such that a crash leaves the old one or the new one.
func (c *cursor) write(name string) error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, filepath.Base(name)+".new-*")
	if err != nil {
		return fmt.Errorf("writing the cursor: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("writing the cursor: %w", err)
	}
	return syncDir(dir)
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lock keeps a second export away from a cursor. The lock ends with the process.
func lock(name string) (unlock func() error, err error) {
	f, err := os.OpenFile(name+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s: another process exports with it", ErrCursor, name), f.Close())
	}
	return f.Close, nil
}
