package audit

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// TileWidth is how many entries a full bundle holds, and how many hashes a full tile (C2SP tlog-tiles).
const TileWidth = 256

// Source is where a published log lies. What is not there is an error that wraps [io/fs.ErrNotExist]; the answers are not trusted.
type Source interface {
	// Checkpoint is the signed note.
	Checkpoint(ctx context.Context) ([]byte, error)
	// Tile is hash tile n of a level. width is how many hashes it has, [TileWidth] for a full one.
	Tile(ctx context.Context, level int, n int64, width int) ([]byte, error)
	// Entries is bundle n of the log's leaves.
	Entries(ctx context.Context, n int64, width int) ([]byte, error)
	// Bodies is what lies beside the leaves of bundle n.
	Bodies(ctx context.Context, n int64, width int) ([]byte, error)
}

// Names of the files of a published log, below its folder or URL.
const (
	checkpointName = "checkpoint"
	vaultName      = "vault"
)

// number is n as tlog-tiles writes it: three digits an element, an x before all but the last, such as x001/x234/067.
func number(n int64, width int) string {
	s := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		s = fmt.Sprintf("x%03d/%s", n%1000, s)
	}
	if width != TileWidth {
		s += ".p/" + strconv.Itoa(width)
	}
	return s
}

// TilePath is the name of a hash tile.
func TilePath(level int, n int64, width int) string {
	return "tile/" + strconv.Itoa(level) + "/" + number(n, width)
}

// EntriesPath is the name of an entry bundle.
func EntriesPath(n int64, width int) string { return "tile/entries/" + number(n, width) }

// BodiesPath is the name of the bodies beside an entry bundle.
func BodiesPath(n int64, width int) string { return "bodies/" + number(n, width) }

// Bounds of files in bytes, so that a hostile source fills no memory.
const (
	maxNote    = 1 << 20
	maxTile    = TileWidth * 32
	maxEntries = TileWidth * (2 + 1<<16)
	maxBody    = 4 << 20 // the log takes no larger record
	maxBodies  = TileWidth * (4 + maxBody)
)

// Folder is a published log as plain files.
type Folder string

// Checkpoint implements Source.
func (f Folder) Checkpoint(context.Context) ([]byte, error) { return f.read(checkpointName, maxNote) }

// Vault is the vault document's envelope that lies there. It is not trusted.
func (f Folder) Vault(context.Context) ([]byte, error) { return f.read(vaultName, maxNote) }

// Tile implements Source.
func (f Folder) Tile(_ context.Context, level int, n int64, width int) ([]byte, error) {
	return f.read(TilePath(level, n, width), maxTile)
}

// Entries implements Source.
func (f Folder) Entries(_ context.Context, n int64, width int) ([]byte, error) {
	return f.read(EntriesPath(n, width), maxEntries)
}

// Bodies implements Source.
func (f Folder) Bodies(_ context.Context, n int64, width int) ([]byte, error) {
	return f.read(BodiesPath(n, width), maxBodies)
}

func (f Folder) read(name string, most int64) ([]byte, error) {
	file, err := os.Open(filepath.Join(string(f), filepath.FromSlash(name)))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > most {
		return nil, tooLong(name, most)
	}
	data := make([]byte, info.Size())
	_, err = io.ReadFull(file, data)
	return data, err
}

func tooLong(name string, most int64) error {
	return damage(name, -1, "%d bytes or more, which no file of its kind has", most+1)
}
