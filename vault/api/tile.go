package api

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/policies"
)

// TileWidth is how many hashes a full tile has (C2SP tlog-tiles).
const TileWidth = 256

// Tile names a hash tile of the published key-use log.
type Tile struct {
	Level int
	N     int64
	Width int // 1 to 255 of a partial tile, 256 of a full one
}

// ParseTile reads what follows tile/ in the name of a hash tile, such as 0/x001/234 or 1/007.p/12. There is one spelling of each.
func ParseTile(name string) (Tile, error) {
	t := Tile{Width: TileWidth}
	path, width, partial := strings.Cut(name, ".p/")
	if partial {
		if t.Width, _ = strconv.Atoi(width); t.Width < 1 || t.Width >= TileWidth {
			return Tile{}, fmt.Errorf("%w: tile: a partial one has 1 to 255 hashes", policies.ErrMalformed)
		}
	}
	parts := strings.Split(path, "/")
	t.Level, _ = strconv.Atoi(parts[0])
	if t.Level < 0 || t.Level > 7 || len(parts) < 2 || len(parts) > 7 {
		return Tile{}, fmt.Errorf("%w: tile: level or number", policies.ErrMalformed)
	}
	for _, part := range parts[1:] {
		digits, err := strconv.ParseUint(strings.TrimPrefix(part, "x"), 10, 10)
		if err != nil || digits > 999 {
			return Tile{}, fmt.Errorf("%w: tile: number", policies.ErrMalformed)
		}
		t.N = t.N*1000 + int64(digits)
	}
	if t.String() != name {
		return Tile{}, fmt.Errorf("%w: tile: this is %s in another spelling", policies.ErrMalformed, t)
	}
	return t, nil
}

// String is the name that [ParseTile] reads.
func (t Tile) String() string {
	n := t.N
	s := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		s = fmt.Sprintf("x%03d/%s", n%1000, s)
	}
	if t.Width != TileWidth {
		s += ".p/" + strconv.Itoa(t.Width)
	}
	return strconv.Itoa(t.Level) + "/" + s
}
