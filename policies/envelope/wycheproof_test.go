package envelope

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

// wycheproof is one vector of a signature.
type wycheproof struct {
	TcID                              int
	Comment, Public, Msg, Sig, Result string
	Ctx                               string
	Key                               int
}

// classify runs all vectors of a file and expects each to come out as published.
func classify(t *testing.T, name string, verify func(t *testing.T, keys []string, v *wycheproof, msg, sig []byte) error, valid, invalid int) {
	t.Helper()
	raw, err := os.ReadFile("../../tests/vectors/published/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Keys  []string
		Tests []wycheproof
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	ran := map[string]int{}
	for i := range file.Tests {
		v := &file.Tests[i]
		err := verify(t, file.Keys, v, unhex(t, v.Msg), unhex(t, v.Sig))
		if (err == nil) != (v.Result == "valid") {
			t.Errorf("%d (%s): %v, want %s", v.TcID, v.Comment, err, v.Result)
		}
		ran[v.Result]++
	}
	if ran["valid"] != valid || ran["invalid"] != invalid || len(ran) != 2 {
		t.Errorf("ran %v, want %d valid and %d invalid", ran, valid, invalid)
	}
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWycheproofEd25519: keys of requests, and the classical part of every signature. Go's verification is the cofactorless one with
// canonical S, as RFC 8032 section 5.1.7 permits.
func TestWycheproofEd25519(t *testing.T) {
	classify(t, "wycheproof_ed25519.json", func(t *testing.T, _ []string, v *wycheproof, msg, sig []byte) error {
		return SessionPublicKey(unhex(t, v.Public)).Verify(msg, sig)
	}, 88, 63)
}

// TestWycheproofMLDSA: the post-quantum part. A public key of the wrong length is refused where it is parsed.
func TestWycheproofMLDSA(t *testing.T) {
	var ed25519Key [PublicKeySize - mldsa65.PublicKeySize]byte
	classify(t, "wycheproof_mldsa65.json", func(t *testing.T, keys []string, v *wycheproof, msg, sig []byte) error {
		k, err := ParsePublicKey(append(unhex(t, keys[v.Key]), ed25519Key[:]...))
		if err != nil {
			return err
		}
		return k.verifyMLDSA(unhex(t, v.Ctx), msg, sig)
	}, 79, 131)
}
