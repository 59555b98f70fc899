package pre_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/pre"
)

// TestWycheproof runs Wycheproof's ECDH vectors for P-256 through the software twin of the token: an ECDH is what a re-encryption is.
func TestWycheproof(t *testing.T) {
	raw, err := os.ReadFile("../../tests/vectors/published/wycheproof_ecdh_p256.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Tests []struct {
			TcID                                     int
			Comment, Public, Private, Shared, Result string
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	prefix, _ := hex.DecodeString("3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420")
	ran := map[string]int{}
	for _, v := range file.Tests {
		public, err1 := hex.DecodeString(v.Public)
		private, err2 := hex.DecodeString(v.Private)
		if err1 != nil || err2 != nil {
			t.Fatal(v.TcID, err1, err2)
		}
		rk, err := pre.ParseReEncryptionKey(slices.Concat(prefix, private))
		if err != nil {
			t.Errorf("%d (%s): %v", v.TcID, v.Comment, err)
			continue
		}
		var c policies.Capsule
		switch {
		case len(public) == 33:
			copy(c[:], public)
		case len(public) == 65:
			c[0] = 2 | public[64]&1
			copy(c[1:], public[1:33])
			err := pre.CheckPoint((*[65]byte)(public), &c)
			if (err == nil) != (v.Result == "valid") {
				t.Errorf("%d (%s): CheckPoint: %v, want %s", v.TcID, v.Comment, err, v.Result)
			}
		}
		ran[v.Result]++
		x, err := pre.Reencrypt(rk, &c)
		if v.Result == "invalid" {
			// An uncompressed point off the curve may share its x with a point on it: CheckPoint above is what refuses it.
			if err == nil && len(public) != 65 {
				t.Errorf("%d (%s): accepted", v.TcID, v.Comment)
			}
			continue
		}
		if err != nil || hex.EncodeToString(x[:]) != v.Shared {
			t.Errorf("%d (%s): %x %v, want %s", v.TcID, v.Comment, x, err, v.Shared)
			continue
		}
		if point, err := pre.Decompress(&c); err != nil || len(public) == 65 && hex.EncodeToString(point[:]) != v.Public {
			t.Errorf("%d (%s): Decompress: %x %v", v.TcID, v.Comment, point, err)
		}
	}
	if ran["valid"] < 300 || ran["invalid"] < 20 {
		t.Errorf("only %v vectors ran", ran)
	}
}
