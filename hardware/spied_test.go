package hardware

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport/sallyport/policies"
)

// A vault calls its module from one thread at a time only if it is a development vault and pkcs11-spy is in its environment.
func TestSpied(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	for _, row := range []struct {
		spy                string
		development, alone bool
	}{{"", true, false}, {"/y", true, true}, {"/y", false, false}} {
		t.Setenv("PKCS11SPY", row.spy)
		r := Record{Vault: &policies.VaultDocument{}, Transcript: &Transcript{Profile: softHSM.Name}}
		_, facts, err := r.usable("", row.development)
		if err != nil || facts.Alone != row.alone {
			t.Errorf("%+v: alone %t, %v", row, facts.Alone, err)
		}
	}
}
