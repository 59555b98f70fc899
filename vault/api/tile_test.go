package api

import (
	"errors"
	"testing"

	"github.com/sallyport/sallyport/policies"
)

func TestTile(t *testing.T) {
	for name, want := range map[string]Tile{
		"0/000": {0, 0, 256}, "0/999": {0, 999, 256}, "1/x001/000": {1, 1000, 256}, "0/x001/x234/067": {0, 1234067, 256},
		"2/000.p/1": {2, 0, 1}, "7/x001/x234/067.p/255": {7, 1234067, 255}, "0/x999/x999/x999/x999/x999/999": {0, 999_999_999_999_999_999, 256},
	} {
		if got, err := ParseTile(name); err != nil || got != want || got.String() != name {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	for _, name := range []string{
		"", "0", "/", "0/", "0/0", "0/00", "0/0000", "0/x000", "0/x000/001", "0/001/002", "0/x001/x002", "0/1000", "00/000", "-1/000", "8/000", "+1/000", "0/-01", "0/+01",
		"0/000.p", "0/000.p/", "0/000.p/0", "0/000.p/256", "0/000.p/01", "0/000.p/+1", "0/000.p/1/", "0/000.p/1.p/1", "0/000/", "/0/000", "0//000", "entries/000", "0/../000", "0/x001/..",
		"0/x001/x001/x001/x001/x001/x001/001",
	} {
		if got, err := ParseTile(name); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%q: got %+v, %v", name, got, err)
		}
	}
}

func FuzzParseTile(f *testing.F) {
	f.Add("0/x001/x234/067")
	f.Add("1/000.p/12")
	f.Add("entries/000")
	f.Fuzz(func(t *testing.T, name string) {
		got, err := ParseTile(name)
		if err == nil && (got.String() != name || got.N < 0 || got.Width < 1 || got.Width > TileWidth) {
			t.Errorf("%q is %+v", name, got)
		}
		if err != nil && !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("got %v", err)
		}
	})
}
