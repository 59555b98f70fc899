// Package bits changes single bits in a folder's files, and whole runs and files, for the tests that show what that does: kept once, the folder is put
// back before each change, since whoever opens it changes it.
//
// The environment sets how much is tried: SALLYPORT_FLIPS is the number of flips of each test, SALLYPORT_SEED what they are drawn from.
package bits

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// A Folder is the files of a folder in memory.
type Folder struct {
	names []string
	data  map[string][]byte // without the zeroes at the end: some files are made long and filled later
	size  map[string]int64
	bytes int
}

// A Flip is one bit of one file.
type Flip struct {
	File string // relative to the folder
	Byte int
	Bit  int
}

// String is one line for a report.
func (f Flip) String() string { return fmt.Sprintf("bit %d of byte %d of %s", f.Bit, f.Byte, f.File) }

// tail is how many of the zeroes at a file's end are worth a flip: something reads them.
const tail = 32

// Keep reads a folder.
func Keep(dir string) (*Folder, error) {
	f := &Folder{data: map[string][]byte{}, size: map[string]int64{}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		f.names, f.size[name] = append(f.names, name), int64(len(b))
		f.data[name] = bytes.TrimRight(b, "\x00")
		f.bytes += f.worth(name)
		return err
	})
	return f, err
}

func (f *Folder) worth(name string) int { return min(int(f.size[name]), len(f.data[name])+tail) }

// Draw draws a bit. Half of the draws take any bit of the folder, half any file first: small files matter as much as large ones.
func (f *Folder) Draw(random *rand.Rand) Flip {
	if random.IntN(2) == 0 {
		name := f.names[random.IntN(len(f.names))]
		if f.worth(name) > 0 {
			return Flip{name, random.IntN(f.worth(name)), random.IntN(8)}
		}
	}
	at := random.IntN(f.bytes)
	for _, name := range f.names {
		if at < f.worth(name) {
			return Flip{name, at, random.IntN(8)}
		}
		at -= f.worth(name)
	}
	panic("more bytes than files")
}

// Put makes the folder from what was kept, with one bit changed.
func (f *Folder) Put(dir string, flip Flip) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	for _, name := range f.names {
		path, b := filepath.Join(dir, name), f.data[name]
		if name == flip.File {
			b = append(bytes.Clone(b), make([]byte, max(0, flip.Byte+1-len(b)))...)
			b[flip.Byte] ^= 1 << flip.Bit
		}
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600), os.Truncate(path, f.size[name]))
		if err != nil {
			return err
		}
	}
	return nil
}

// Number is how many bits a test flips, usual unless the environment says otherwise, and what it draws them from.
func Number(t testing.TB, usual int) (int, *rand.Rand) {
	t.Helper()
	number := func(name string, usual uint64) uint64 {
		text := os.Getenv(name)
		if text == "" {
			return usual
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	n, seed := number("SALLYPORT_FLIPS", uint64(usual)), number("SALLYPORT_SEED", uint64(time.Now().UnixNano()))
	t.Logf("%d changes, seed %d", n, seed)
	return int(n), rand.New(rand.NewPCG(seed, 0))
}
