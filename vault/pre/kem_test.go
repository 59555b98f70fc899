package pre_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/cloudflare/circl/hpke"
	"github.com/cloudflare/circl/kem/xwing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/pre"
)

// TestTwoHPKEs: Go's crypto/hpke, which the package uses, and CIRCL's, which shares no code with it, have the same public
// key for a seed and open each other's blobs.
func TestTwoHPKEs(t *testing.T) {
	root := newRoot(t)
	seed := root.KEMSeed()
	key := pre.NewBlobKey(seed)
	private, public := xwing.DeriveKeyPairPacked(seed[:])
	if !bytes.Equal(public, key.Public()) {
		t.Fatal("the public keys differ")
	}
	info, err := pre.ImportInfo(policies.VaultID{1}, policies.Hash{2}, "iban", 3, policies.AuthorID{4})
	if err != nil {
		t.Fatal(err)
	}
	plaintext := []byte("a wrapped key")
	suite := hpke.NewSuite(hpke.KEM_XWING, hpke.KDF_HKDF_SHA256, hpke.AEAD_AES256GCM)
	pk, err := hpke.KEM_XWING.Scheme().UnmarshalBinaryPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	sk, err := hpke.KEM_XWING.Scheme().UnmarshalBinaryPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}

	blob, err := pre.SealBlob(key.Public(), info, plaintext)
	if err != nil {
		t.Fatal(err)
	}
	if len(blob) != len(plaintext)+1136 {
		t.Errorf("a blob of %d bytes", len(blob))
	}
	receiver, err := suite.NewReceiver(sk, info)
	if err != nil {
		t.Fatal(err)
	}
	opener, err := receiver.Setup(blob[:xwing.CiphertextSize])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := opener.Open(blob[xwing.CiphertextSize:], nil); err != nil || !bytes.Equal(got, plaintext) {
		t.Errorf("CIRCL opens Go's blob: %v", err)
	}

	sender, err := suite.NewSender(pk, info)
	if err != nil {
		t.Fatal(err)
	}
	enc, sealer, err := sender.Setup(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ct, err := sealer.Seal(plaintext, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := key.Open(info, append(enc, ct...)); err != nil || !bytes.Equal(got, plaintext) {
		t.Errorf("Go opens CIRCL's blob: %v", err)
	}

	otherInfo, err := pre.ImportInfo(policies.VaultID{1}, policies.Hash{2}, "iban", 4, policies.AuthorID{4})
	if err != nil {
		t.Fatal(err)
	}
	other := pre.NewBlobKey([32]byte{9})
	for name, open := range map[string]func() ([]byte, error){
		"another info": func() ([]byte, error) { return key.Open(otherInfo, blob) },
		"another key":  func() ([]byte, error) { return other.Open(info, blob) },
		"nothing":      func() ([]byte, error) { return key.Open(info, nil) },
		"cut":          func() ([]byte, error) { return key.Open(info, blob[:1130]) },
		"flipped enc":  func() ([]byte, error) { b := bytes.Clone(blob); b[0] ^= 1; return key.Open(info, b) },
		"flipped tag":  func() ([]byte, error) { b := bytes.Clone(blob); b[len(b)-1] ^= 1; return key.Open(info, b) },
	} {
		if _, err := open(); !errors.Is(err, pre.ErrOpen) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range [][]byte{nil, make([]byte, 1215), bytes.Repeat([]byte{255}, 1216)} {
		if _, err := pre.SealBlob(bad, info, plaintext); !errors.Is(err, pre.ErrKey) {
			t.Errorf("a bad public key of %d bytes: %v", len(bad), err)
		}
		if _, _, err := pre.NewGrantSecret(bad, nil); !errors.Is(err, pre.ErrKey) {
			t.Errorf("a bad reader key of %d bytes: %v", len(bad), err)
		}
	}
	if _, err := pre.ImportInfo(policies.VaultID{}, policies.Hash{}, "Not A Field", 1, policies.AuthorID{}); !errors.Is(err, policies.ErrMalformed) {
		t.Errorf("a bad field: %v", err)
	}
	a, err := pre.MessageInfo("consent", policies.IdentityID{1}, policies.IdentityID{2})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := pre.MessageInfo("consent", policies.IdentityID{2}, policies.IdentityID{1}); err != nil || bytes.Equal(a, b) {
		t.Errorf("the direction of a message is not bound: %v", err)
	}
	if _, err := pre.MessageInfo("", policies.IdentityID{}, policies.IdentityID{}); !errors.Is(err, policies.ErrMalformed) {
		t.Errorf("no type: %v", err)
	}
}

func TestSession(t *testing.T) {
	vault := pre.NewVaultKey([32]byte{3})
	ct, reader, err := pre.EncapsulateSession(vault.Public(), nil)
	if err != nil {
		t.Fatal(err)
	}
	inVault, err := vault.Decapsulate(ct)
	if err != nil {
		t.Fatal(err)
	}
	v, r, session, request := policies.VaultID{1}, policies.ReaderID{2}, policies.Hash{3}, policies.Hash{4}
	sealed, err := inVault.Key(v, r, session).SealAnswer(request, []byte("answer"), nil)
	if err != nil {
		t.Fatal(err)
	}
	k := reader.Key(v, r, session)
	if got, err := k.OpenAnswer(request, sealed); err != nil || string(got) != "answer" {
		t.Fatalf("%q %v", got, err)
	}
	if again, err := k.SealAnswer(request, []byte("answer"), nil); err != nil || bytes.Equal(again, sealed) {
		t.Error("two answers to one request are the same bytes")
	}
	otherCt, _, err := pre.EncapsulateSession(vault.Public(), nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := vault.Decapsulate(otherCt)
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"another vault": func() ([]byte, error) { return reader.Key(policies.VaultID{9}, r, session).OpenAnswer(request, sealed) },
		"another reader": func() ([]byte, error) {
			return reader.Key(v, policies.ReaderID{9}, session).OpenAnswer(request, sealed)
		},
		"another session": func() ([]byte, error) { return reader.Key(v, r, policies.Hash{9}).OpenAnswer(request, sealed) },
		"another request": func() ([]byte, error) { return k.OpenAnswer(policies.Hash{9}, sealed) },
		"another secret":  func() ([]byte, error) { return other.Key(v, r, session).OpenAnswer(request, sealed) },
		"cut":             func() ([]byte, error) { return k.OpenAnswer(request, sealed[:27]) },
		"flipped":         func() ([]byte, error) { b := bytes.Clone(sealed); b[20] ^= 1; return k.OpenAnswer(request, b) },
		"flipped nonce":   func() ([]byte, error) { b := bytes.Clone(sealed); b[0] ^= 1; return k.OpenAnswer(request, b) },
	} {
		if _, err := open(); !errors.Is(err, pre.ErrOpen) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := vault.Decapsulate(ct[:1119]); !errors.Is(err, pre.ErrOpen) {
		t.Errorf("a short ciphertext: %v", err)
	}
}

func TestLogin(t *testing.T) {
	key := pre.NewLoginKey(newRoot(t).LoginSeed())
	ct, server, err := pre.NewChallenge(key.Public(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := pre.Challenge{Server: "store.example:443", Subject: policies.IdentityID{1}, Ciphertext: ct, Nonce: policies.Nonce{2}, FreshKey: [32]byte{3}}
	answer, err := key.Answer(&c)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Verify(&c, answer[:]); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(c *pre.Challenge){
		"server": func(c *pre.Challenge) { c.Server = "store.example.evil:443" }, "subject": func(c *pre.Challenge) { c.Subject[0]++ },
		"nonce": func(c *pre.Challenge) { c.Nonce[0]++ }, "fresh key": func(c *pre.Challenge) { c.FreshKey[0]++ },
		"ciphertext": func(c *pre.Challenge) { c.Ciphertext = bytes.Clone(c.Ciphertext); c.Ciphertext[0] ^= 1 },
	} {
		w := c
		change(&w)
		got, err := key.Answer(&w)
		if err != nil {
			t.Errorf("another %s: %v", name, err)
		}
		if err := server.Verify(&c, got[:]); !errors.Is(err, pre.ErrOpen) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	if err := server.Verify(&c, answer[:31]); !errors.Is(err, pre.ErrOpen) {
		t.Errorf("a short answer: %v", err)
	}
	for name, change := range map[string]func(c *pre.Challenge){
		"no server": func(c *pre.Challenge) { c.Server = "" }, "long server": func(c *pre.Challenge) { c.Server = string(make([]byte, 70000)) },
		"short ciphertext": func(c *pre.Challenge) { c.Ciphertext = ct[:5] }, "long ciphertext": func(c *pre.Challenge) { c.Ciphertext = make([]byte, 70000) },
	} {
		w := c
		change(&w)
		if _, err := key.Answer(&w); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		if err := server.Verify(&w, answer[:]); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s, server: %v", name, err)
		}
	}
}
