package sockets

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAnnounce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ready")
	for _, to := range []string{"127.0.0.1:1", "127.0.0.1:2"} { // the second time over the first
		if err := Announce(path, map[string]string{"owners": to, "storefront": "unix:/s"}); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if want := `{"addresses":{"owners":"` + to + `","storefront":"unix:/s"}}` + "\n"; err != nil || string(text) != want {
			t.Errorf("%q, %v", text, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v: another user's daemon cannot read it", info.Mode(), err)
	}
	if err := Announce(filepath.Join(dir, "missing", "ready"), nil); err == nil {
		t.Error("written into a folder that is not there")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := Announce("", nil); err != nil {
		t.Error(err)
	}
}
