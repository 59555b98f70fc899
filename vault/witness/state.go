package witness

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// maxState bounds a file of the state in bytes: a checkpoint with some signatures.
const maxState = 128 << 10

// load reads what is known of a log, and refuses what cannot be.
func (w *Witness) load(o *one) error {
	state, seen := filepath.Join(w.cfg.State, o.name), filepath.Join(w.cfg.Seen, o.name)
	text, stateErr := read(state)
	record, seenErr := read(seen)
	for _, err := range []error{stateErr, seenErr} {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %w", ErrState, err)
		}
	}
	if stateErr != nil && seenErr != nil { // a log that is new to this witness
		return w.replace(seen, []byte(evidence.Checkpoint{}.Text(o.Key.Name)))
	}
	if seenErr != nil {
		return fmt.Errorf("%w: %s is gone, so nobody knows whether %s is the newest", ErrState, seen, state)
	}
	was, err := parseSeen(record, o.Key.Name)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrState, seen, err)
	}
	if stateErr != nil {
		if was.Size == 0 && was.Root.IsZero() {
			return nil
		}
		return fmt.Errorf("%w: %s is gone, and a log of %d entries was cosigned", ErrState, state, was.Size)
	}
	if err := w.reopen(o, text); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrState, state, err)
	}
	switch {
	case o.last.Size < was.Size:
		return fmt.Errorf("%w: %s is of %d entries, and a log of %d was cosigned: an older state was put back", ErrState, state, o.last.Size, was.Size)
	case o.last.Size == was.Size && o.last.Root != was.Root && !was.Root.IsZero():
		return fmt.Errorf("%w: %s has another root of %d entries than %s", ErrState, state, was.Size, seen)
	}
	if was == o.last {
		return nil
	}
	return w.replace(seen, []byte(o.last.Text(o.Key.Name)))
}

// reopen takes a checkpoint that the witness stored: the log's lines and its own must all verify.
func (w *Witness) reopen(o *one, text []byte) error {
	all := evidence.Witnesses{Of: append([]evidence.Cosigner{}, o.Also...)}
	own := w.cfg.Keys[0].Cosigner() // what was stored under other keys besides says no more
	all.Of = append(all.Of, own)
	all.Need = len(all.Of)
	c, by, err := evidence.OpenCosigned(string(text), o.Key, all)
	if err != nil {
		return err
	}
	o.last, o.note = c, text
	for _, b := range by {
		if b.By.Name == own.Name {
			o.at = b.At
		}
	}
	return nil
}

// parseSeen reads origin, size and root, a line each. A log of which nothing was cosigned has size 0 and a root of zeros.
func parseSeen(record []byte, origin string) (c evidence.Checkpoint, err error) {
	lines := strings.Split(string(record), "\n")
	if len(lines) == 4 {
		root, rootErr := base64.StdEncoding.DecodeString(lines[2])
		if c.Size, err = strconv.ParseUint(lines[1], 10, 64); err == nil && rootErr == nil && len(root) == len(c.Root) {
			c.Root = policies.Hash(root)
		}
	}
	if c.Text(origin) != string(record) {
		return evidence.Checkpoint{}, fmt.Errorf("%w: not origin, size and root", policies.ErrMalformed)
	}
	return c, nil
}

// store has the new state on disk: the checkpoint first, and then what was seen. A crash between the two leaves a record that is older, which is no harm.
func (w *Witness) store(o *one, text []byte, c evidence.Checkpoint) error {
	if err := w.replace(filepath.Join(w.cfg.State, o.name), text); err != nil {
		return err
	}
	return w.replace(filepath.Join(w.cfg.Seen, o.name), []byte(c.Text(o.Key.Name)))
}

// replace gives a file its content in one step, and returns when that is on disk.
func (w *Witness) replace(path string, content []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if err = w.cfg.fault("write " + path); err == nil {
		_, err = f.Write(content)
	}
	if err == nil {
		if err = w.cfg.fault("sync " + path); err == nil {
			err = f.Sync()
		}
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = w.cfg.fault("rename " + path)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = w.cfg.fault("sync folder of " + path)
	}
	if err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

func read(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxState {
		return nil, fmt.Errorf("%s is not a file of at most %d bytes", path, maxState)
	}
	return os.ReadFile(path)
}
