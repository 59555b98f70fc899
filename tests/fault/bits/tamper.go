package bits

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Names lists the files that were kept.
func (f *Folder) Names() []string { return f.names }

// Restore makes the folder from what was kept, unchanged.
func (f *Folder) Restore(dir string) error { return f.Put(dir, Flip{}) }

// Tamper changes one thing in a folder that stands: a bit, a run of bytes, a whole file, two files for each other, or a file for what the same
// file was in others, an older or another state of the folder. Files are written in place, so who has one open sees it. It says what it did.
func (f *Folder) Tamper(dir string, random *rand.Rand, others ...*Folder) (what string, err error) {
	name := f.names[random.IntN(len(f.names))]
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) { // by what was done before
		return "nothing", nil
	}
	if err != nil {
		return "", err
	}
	write := func(b []byte) error { return os.WriteFile(path, b, 0o600) }
	// A run of bytes, mostly short.
	run := func() (from, to int) {
		from = random.IntN(len(b) + 1)
		return from, min(len(b), from+1+random.IntN(1<<random.IntN(11)))
	}
	other := func() string { return f.names[random.IntN(len(f.names))] }
	switch random.IntN(10) {
	case 0, 1:
		flip := Flip{name, random.IntN(f.worth(name) + 1), random.IntN(8)}
		if flip.Byte >= len(b) {
			return "nothing", nil
		}
		b[flip.Byte] ^= 1 << flip.Bit
		return "flipped " + flip.String(), write(b)
	case 2:
		at := random.IntN(len(b) + 1)
		return fmt.Sprintf("%s cut off at %d of %d", name, at, len(b)), os.Truncate(path, int64(at))
	case 3:
		from, to := run()
		clear(b[from:to])
		return fmt.Sprintf("%s zeroed from %d to %d", name, from, to), write(b)
	case 4:
		from, to := run()
		return fmt.Sprintf("%s without %d to %d", name, from, to), write(append(bytes.Clone(b[:from]), b[to:]...))
	case 5:
		from, to := run()
		return fmt.Sprintf("%s with %d to %d twice", name, from, to), write(append(bytes.Clone(b[:to]), b[from:]...))
	case 6:
		return name + " deleted", os.Remove(path)
	case 7:
		second := other()
		c, err := os.ReadFile(filepath.Join(dir, second))
		if err != nil || second == name {
			return "nothing", nil
		}
		if err := write(c); err != nil {
			return "", err
		}
		return name + " and " + second + " exchanged", os.WriteFile(filepath.Join(dir, second), b, 0o600)
	case 8:
		second := other()
		c, err := os.ReadFile(filepath.Join(dir, second))
		if err != nil {
			return "nothing", nil
		}
		return name + " overwritten with " + second, write(c)
	default:
		if len(others) == 0 {
			return "nothing", nil
		}
		n := random.IntN(len(others))
		c, ok := others[n].data[name]
		if !ok {
			return "nothing", nil
		}
		c = append(bytes.Clone(c), make([]byte, int(others[n].size[name])-len(c))...)
		return fmt.Sprintf("%s as it was in state %d", name, n), write(c)
	}
}
