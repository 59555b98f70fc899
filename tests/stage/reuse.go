package stage

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// Reuse keeps what a stage's folder holds after the ceremony, for later stages of the same process: making a token's keys takes longer than many a test. A stage gets
// a copy, as the ceremony left it, and the ports that the ceremony names; nobody else has either until it is closed. So two stages that run at a time are two vaults. The
// zero value is ready, and empty.
type Reuse struct {
	mu   sync.Mutex
	free []*begun
}

// begun is a folder after the ceremony.
type begun struct {
	hsm   string // the command that made it
	ports []string
	files []file
}

type file struct {
	path  string // in the folder
	mode  fs.FileMode
	data  []byte
	named bool // the name of the folder stands in it, as a zero byte here
}

// take returns one that nobody has, or nil.
func (r *Reuse) take(hsm string) *begun {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, b := range r.free {
		if b.hsm == hsm {
			r.free = append(r.free[:i], r.free[i+1:]...)
			return b
		}
	}
	return nil
}

func (r *Reuse) give(b *begun) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free = append(r.free, b)
}

// remember reads the folder of a stage that holds its ceremony and nothing more.
func (s *Stage) remember() (*begun, error) {
	b := &begun{hsm: s.bin.HSM, ports: []string{s.storefront, s.vaultDoor, s.ownersAddress}}
	return b, filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == s.dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := file{mode: info.Mode()}
		if f.path, err = filepath.Rel(s.dir, path); err != nil {
			return err
		}
		if !d.IsDir() {
			if f.data, err = os.ReadFile(path); err != nil {
				return err
			}
			if f.path == filepath.Join("token", "softhsm2.conf") { // the only file that names the folder
				f.data, f.named = bytes.ReplaceAll(f.data, []byte(s.dir), []byte{0}), true
			}
		}
		b.files = append(b.files, f)
		return nil
	})
}

// put writes the folder of a stage.
func (b *begun) put(dir string) error {
	for _, f := range b.files {
		path, data := filepath.Join(dir, f.path), f.data
		if f.named {
			data = bytes.ReplaceAll(data, []byte{0}, []byte(dir))
		}
		var err error
		if f.mode.IsDir() {
			err = os.Mkdir(path, f.mode.Perm())
		} else {
			err = os.WriteFile(path, data, f.mode.Perm())
		}
		if err != nil {
			return err
		}
	}
	return nil
}
