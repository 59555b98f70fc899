package envelope

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

// published is the draft's test vector for id-MLDSA65-Ed25519-SHA512.
type published struct {
	M     []byte `json:"m"`
	Ctx   []byte `json:"ctx"`
	Tests []struct {
		TcID         string `json:"tcId"`
		PK           []byte `json:"pk"`
		SK           []byte `json:"sk"`
		S            []byte `json:"s"`
		SWithContext []byte `json:"sWithContext"`
	} `json:"tests"`
}

func TestCompositePublishedVectors(t *testing.T) {
	data, err := os.ReadFile("../../tests/vectors/published/composite_mldsa65_ed25519_sha512.json")
	if err != nil {
		t.Fatal(err)
	}
	var v published
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Tests) != 1 || v.Tests[0].TcID != "id-MLDSA65-Ed25519-SHA512" {
		t.Fatalf("the file holds %d tests, want the one of id-MLDSA65-Ed25519-SHA512", len(v.Tests))
	}
	tc := v.Tests[0]
	if len(tc.PK) != PublicKeySize || len(tc.SK) != SeedSize || len(tc.S) != SignatureSize {
		t.Fatalf("sizes are %d, %d, %d; want %d, %d, %d", len(tc.PK), len(tc.SK), len(tc.S), PublicKeySize, SeedSize, SignatureSize)
	}

	private := NewPrivateKey((*[SeedSize]byte)(tc.SK))
	if !bytes.Equal(private.Public().Bytes(), tc.PK) {
		t.Error("the seed gives another public key than the draft's")
	}
	public, err := ParsePublicKey(tc.PK)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(public.Bytes(), tc.PK) {
		t.Error("a public key does not survive parsing")
	}

	ctx := string(v.Ctx)
	ours, err := private.sign(ctx, v.M)
	if err != nil {
		t.Fatal(err)
	}
	// The Ed25519 part is deterministic and covers prefix, label, context and digest alike: it must come out as the draft's.
	if !bytes.Equal(ours[mldsa65.SignatureSize:], tc.SWithContext[mldsa65.SignatureSize:]) {
		t.Error("our Ed25519 part is not the draft's")
	}
	for _, c := range []struct {
		name, context string
		message, sig  []byte
		ok            bool
	}{
		{"draft, no context", "", v.M, tc.S, true},
		{"draft, context", ctx, v.M, tc.SWithContext, true},
		{"ours", ctx, v.M, ours, true},
		{"context where there was none", ctx, v.M, tc.S, false},
		{"no context where there was one", "", v.M, tc.SWithContext, false},
		{"other context", ctx + ".", v.M, tc.SWithContext, false},
		{"context cut", ctx[:len(ctx)-1], v.M, tc.SWithContext, false},
		{"other message", "", append(bytes.Clone(v.M), 0), tc.S, false},
		{"parts of two signatures", "", v.M, append(bytes.Clone(tc.S[:mldsa65.SignatureSize]), ours[mldsa65.SignatureSize:]...), false},
		{"cut", "", v.M, tc.S[:SignatureSize-1], false},
		{"longer", "", v.M, append(bytes.Clone(tc.S), 0), false},
		{"empty", "", v.M, nil, false},
	} {
		err := public.verify(c.context, c.message, c.sig)
		if c.ok && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if !c.ok && !errors.Is(err, ErrSignature) {
			t.Errorf("%s: got %v, want ErrSignature", c.name, err)
		}
	}
	if err := public.verify(strings.Repeat("c", 256), v.M, tc.S); !errors.Is(err, ErrMalformed) {
		t.Errorf("context of 256 bytes: got %v, want ErrMalformed", err)
	}
	if err := public.verify(strings.Repeat("c", 255), v.M, tc.S); !errors.Is(err, ErrSignature) {
		t.Errorf("context of 255 bytes: got %v, want ErrSignature", err)
	}
}

// Each component key, used alone on the message or on the representative, makes nothing that verifies, and a composite
// signature taken apart verifies nowhere as a signature over the message.
func TestCompositeComponentsAlone(t *testing.T) {
	key := testKey(1)
	message := []byte("message")
	good, err := key.sign("ctx", message)
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Public().verify("ctx", message, good); err != nil {
		t.Fatal(err)
	}
	representative, err := representative("ctx", message)
	if err != nil {
		t.Fatal(err)
	}
	pq := func(m, ctx []byte) []byte {
		sig := make([]byte, mldsa65.SignatureSize)
		if err := mldsa65.SignTo(key.mldsa, m, ctx, false, sig); err != nil {
			t.Fatal(err)
		}
		return sig
	}
	var (
		noPQ        = make([]byte, mldsa65.SignatureSize)
		noClassical = make([]byte, ed25519.SignatureSize)
		goodPQ      = good[:mldsa65.SignatureSize]
		goodEd      = good[mldsa65.SignatureSize:]
		label       = []byte(compositeLabel)
	)
	for _, c := range []struct {
		name    string
		pq, eds []byte
	}{
		{"ML-DSA alone", goodPQ, noClassical},
		{"Ed25519 alone", noPQ, goodEd},
		{"both over the bare message", pq(message, nil), ed25519.Sign(key.ed25519, message)},
		{"ML-DSA over the bare message", pq(message, nil), goodEd},
		{"ML-DSA without the label as context", pq(representative, nil), goodEd},
		{"ML-DSA over the bare message with the label", pq(message, label), goodEd},
		{"Ed25519 over the bare message", goodPQ, ed25519.Sign(key.ed25519, message)},
		{"other order", goodEd, goodPQ},
	} {
		if err := key.Public().verify("ctx", message, append(bytes.Clone(c.pq), c.eds...)); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: got %v, want ErrSignature", c.name, err)
		}
	}
	if mldsa65.Verify(&key.public.mldsa, message, nil, goodPQ) || mldsa65.Verify(&key.public.mldsa, representative, nil, goodPQ) {
		t.Error("the ML-DSA part passes as a signature of its own")
	}
	if ed25519.Verify(key.public.ed25519, message, goodEd) {
		t.Error("the Ed25519 part passes as a signature over the message")
	}
	// A key whose one component was replaced by an attacker's does not verify either way round.
	other := testKey(2)
	for name, mixed := range map[string][]byte{
		"attacker's Ed25519 key": append(bytes.Clone(key.public.bytes[:mldsa65.PublicKeySize]), other.public.ed25519...),
		"attacker's ML-DSA key":  append(bytes.Clone(other.public.bytes[:mldsa65.PublicKeySize]), key.public.ed25519...),
	} {
		public, err := ParsePublicKey(mixed)
		if err != nil {
			t.Fatal(err)
		}
		if err := public.verify("ctx", message, good); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: got %v, want ErrSignature", name, err)
		}
	}
}

func TestParsePublicKeyLength(t *testing.T) {
	good := testKey(1).Public().Bytes()
	for _, data := range [][]byte{nil, good[:PublicKeySize-1], append(bytes.Clone(good), 0)} {
		if _, err := ParsePublicKey(data); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes: got %v, want ErrMalformed", len(data), err)
		}
	}
	copied := testKey(1).Public().Bytes()
	copied[0] ^= 1
	if !bytes.Equal(good, testKey(1).Public().Bytes()) {
		t.Error("Bytes hands out the key's own memory")
	}
}

func TestZeroedKeysDoNotSign(t *testing.T) {
	key := testKey(1)
	classical := key.ed25519
	key.Zero()
	if !bytes.Equal(classical, make([]byte, len(classical))) {
		t.Error("Zero left the Ed25519 key in memory")
	}
	if _, err := key.sign("ctx", []byte("message")); !errors.Is(err, ErrKey) {
		t.Errorf("a zeroed key: got %v, want ErrKey", err)
	}
	session := NewSessionKey()
	public := session.Public()
	session.Zero()
	if public.Verify([]byte("message"), session.Sign([]byte("message"))) == nil {
		t.Error("a zeroed session key still signs")
	}
}

func FuzzParsePublicKey(f *testing.F) {
	f.Add(testKey(1).Public().Bytes())
	f.Add([]byte{})
	sig, err := testKey(1).sign("ctx", []byte("message"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := ParsePublicKey(data)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
			return
		}
		if !bytes.Equal(key.Bytes(), data) {
			t.Error("a public key has two spellings")
		}
		if key.verify("ctx", []byte("message"), sig) == nil && !bytes.Equal(data, testKey(1).Public().Bytes()) {
			t.Error("a signature verifies under another key")
		}
	})
}
