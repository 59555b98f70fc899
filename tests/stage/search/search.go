// Package search looks through folders for what must not be there.
//
// It has no goroutines, and looks at every byte that was written to large folders: tests/run builds it without the race detector.
package search

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"unicode/utf16"

	"golang.org/x/sys/unix"
)

// Finding is a place where something was found that must not be there.
type Finding struct {
	File   string
	Offset int64
	What   string // the marker's name, never its value
	Form   string // the encoding it was found in
}

// String is one line for a report.
func (f Finding) String() string {
	return fmt.Sprintf("%s at byte %d holds %s (%s)", f.File, f.Offset, f.What, f.Form)
}

// Marker is something to search for. Short ones are skipped by form: fewer than six bytes match by chance.
type Marker struct {
	Name  string
	Value []byte
}

// forms are the encodings in which a careless program could have written a value: as it is, hexadecimal in both cases, UTF-16 in both
// orders, base64 (both alphabets) at each of the three alignments, quoted as Go does, and as a list of numbers.
func (m Marker) forms() map[string][]byte {
	out := map[string][]byte{"plain": m.Value}
	out["hex"] = []byte(hex.EncodeToString(m.Value))
	out["HEX"] = bytes.ToUpper(out["hex"])
	var le, be []byte
	for _, u := range utf16.Encode([]rune(string(m.Value))) {
		le, be = append(le, byte(u), byte(u>>8)), append(be, byte(u>>8), byte(u))
	}
	out["UTF-16LE"], out["UTF-16BE"] = le, be
	for shift := range 3 {
		padded := append(make([]byte, shift), m.Value...)
		for name, enc := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			text := enc.EncodeToString(padded)
			// Characters that also hold bits of a neighbour are not the marker's own.
			begin := (shift*8 + 5) / 6
			end := len(padded) * 8 / 6
			out[fmt.Sprintf("%s+%d", name, shift)] = []byte(text[begin:end])
		}
	}
	// What a careless log line makes of bytes: slog quotes them, fmt lists them.
	if quoted := strconv.Quote(string(m.Value)); quoted[1:len(quoted)-1] != string(m.Value) {
		out["quoted"] = []byte(quoted[1 : len(quoted)-1])
	}
	list := fmt.Sprint(m.Value)
	out["decimal"] = []byte(list[1 : len(list)-1])
	out["decimal, commas"] = bytes.ReplaceAll(out["decimal"], []byte(" "), []byte(","))
	for name, form := range out {
		if len(form) < 6 {
			delete(out, name)
		}
	}
	return out
}

// Folders reads all that was written to every file under the folders and reports every marker found in any form. It also returns how many bytes the
// files have, so that a caller can see that it searched something.
func Folders(markers []Marker, folders ...string) (found []Finding, read int64, err error) {
	type form struct {
		marker, name string
		bytes        []byte
	}
	// One pass a file: forms are bucketed by their first four bytes, and few places begin with the first two of any.
	index, begins, longest := map[[4]byte][]form{}, new([1 << 16]bool), 0
	for _, m := range markers {
		for name, b := range m.forms() {
			index[[4]byte(b)] = append(index[[4]byte(b)], form{m.Name, name, b})
			begins[binary.BigEndian.Uint16(b)], longest = true, max(longest, len(b))
		}
	}
	for _, folder := range folders {
		err = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			size, err := written(path, longest, func(data []byte, at int64) {
				for i := 0; i+4 <= len(data); i++ {
					if !begins[binary.BigEndian.Uint16(data[i:])] {
						continue
					}
					for _, f := range index[[4]byte(data[i:])] {
						if bytes.HasPrefix(data[i:], f.bytes) {
							found = append(found, Finding{path, at + int64(i), f.marker, f.name})
						}
					}
				}
			})
			if err != nil {
				return err
			}
			read += size
			return nil
		})
		if err != nil {
			return found, read, fmt.Errorf("searching %s: %w", folder, err)
		}
	}
	return found, read, nil
}

// written reads what was ever written of a file, stretch by stretch with its place, and returns the file's size. The rest of a file that was made large in advance, as
// databases do, is zeros: of these each stretch has so many more on both sides as a form is long.
func written(path string, longest int, use func(data []byte, at int64)) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	for end := int64(0); end < size; {
		begin, err := f.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // nothing more
			break
		} else if err != nil {
			return 0, err
		}
		if end, err = f.Seek(begin, unix.SEEK_HOLE); err != nil {
			return 0, err
		}
		begin = max(0, begin-int64(longest))
		data := make([]byte, min(size, end+int64(longest))-begin)
		n, err := f.ReadAt(data, begin)
		if err != nil && !errors.Is(err, io.EOF) { // it may have become shorter
			return 0, err
		}
		use(data[:n], begin)
	}
	return size, nil
}

// Squeeze copies what was written to every file under the folders into files of a new folder, without long runs of zeros: databases reserve hundreds of megabytes
// that they never fill.
func Squeeze(into string, folders ...string) error {
	const run = 4096
	empty := make([]byte, run)
	return copies(into, folders, func(path string) (out []byte, err error) {
		_, err = written(path, 0, func(data []byte, _ int64) {
			for len(data) > 0 {
				block := data[:min(run, len(data))]
				if !bytes.Equal(block, empty[:len(block)]) {
					out = append(out, block...)
				}
				data = data[len(block):]
			}
		})
		return out, err
	})
}

// Unfold writes what is inside base64 in every file under the folders into files of a new folder, three deep: a signed document is
// JSON in base64, with bytes in base64. [Folders] looks for a value in base64, but not for one in base64 in base64.
func Unfold(into string, folders ...string) error {
	return copies(into, folders, func(path string) ([]byte, error) {
		data, err := os.ReadFile(path)
		var out []byte
		for range 3 {
			data = unfolded(data)
			out = append(out, data...)
		}
		return out, err
	})
}

// unfolded is what is inside the runs of base64 in data, each with the end of a line.
func unfolded(data []byte) (out []byte) {
	const shortest = 24
	for i := 0; i < len(data); i++ {
		begin := i
		for i < len(data) && digits[data[i]] {
			i++
		}
		if run := data[begin:i]; len(run) >= shortest {
			for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				if inside, err := enc.AppendDecode(nil, run); err == nil {
					out = append(append(out, inside...), '\n')
					break
				}
			}
		}
	}
	return out
}

// digits are those of both alphabets of base64.
var digits = func() (is [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_") {
		is[c] = true
	}
	return is
}()

// copies writes what it makes of every file under the folders, unless that is nothing, into a file of a new folder.
func copies(into string, folders []string, of func(path string) ([]byte, error)) error {
	if err := os.MkdirAll(into, 0o700); err != nil {
		return err
	}
	var paths []string // first, since the new folder may lie in one of the others
	for _, folder := range folders {
		if err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				paths = append(paths, path)
			}
			return err
		}); err != nil {
			return err
		}
	}
	for i, path := range paths {
		out, err := of(path)
		if err != nil {
			return err
		}
		if len(out) == 0 {
			continue
		}
		if err := os.WriteFile(filepath.Join(into, fmt.Sprintf("%d-%s", i+1, filepath.Base(path))), out, 0o600); err != nil {
			return err
		}
	}
	return nil
}
