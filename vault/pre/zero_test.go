package pre_test

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/pre"
)

// A secret that was overwritten is one that everybody knows. What is used after Zero must fail and not go on with zeroes: a session
// that ends while an answer is being sealed would hand E' to the storefront, a challenge answered twice would let anybody in.
func TestZeroedSecretsFail(t *testing.T) {
	vaultKey := pre.NewVaultKey([32]byte{1})
	request := policies.Hash{4}
	session := func() (*pre.SessionSecret, *pre.SessionKey) {
		_, s, err := pre.EncapsulateSession(vaultKey.Public(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return s, s.Key(policies.VaultID{1}, policies.ReaderID{2}, policies.Hash{3})
	}

	s, k := session()
	sealed, err := k.SealAnswer(request, []byte("answer"), nil)
	if err != nil {
		t.Fatal(err)
	}
	k.Zero()
	if got, err := k.SealAnswer(request, []byte("answer"), nil); !errors.Is(err, pre.ErrKey) || got != nil {
		t.Errorf("a zeroed session key seals: %x, %v", got, err)
	}
	if _, err := k.OpenAnswer(request, sealed); !errors.Is(err, pre.ErrOpen) {
		t.Errorf("a zeroed session key opens: %v", err)
	}
	s.Zero()
	if got, err := s.Key(policies.VaultID{1}, policies.ReaderID{2}, policies.Hash{3}).SealAnswer(request, []byte("answer"), nil); !errors.Is(err, pre.ErrKey) || got != nil {
		t.Errorf("the key of a zeroed session secret seals: %x, %v", got, err)
	}

	login := pre.NewLoginKey([32]byte{2})
	ct, secret, err := pre.NewChallenge(login.Public(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &pre.Challenge{Server: "storefront.example:443", Subject: policies.IdentityID{1}, Ciphertext: ct, Nonce: policies.Nonce{2}, FreshKey: [32]byte{3}}
	secret.Zero()
	key, err := hkdf.Key(sha256.New, make([]byte, 32), nil, string(policies.Encode("challenge-answer")), 32)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(policies.Encode("challenge", []byte(c.Server), c.Subject[:], c.Ciphertext, c.Nonce[:], c.FreshKey[:]))
	if err := secret.Verify(c, mac.Sum(nil)); !errors.Is(err, pre.ErrOpen) {
		t.Errorf("a zeroed challenge accepts what anybody can compute: %v", err)
	}
}

// A vault forgets a session in one goroutine while it answers a request of it in another. With -race this also shows that a half
// overwritten key is never used.
func TestSessionKeyZeroedWhileSealing(t *testing.T) {
	vaultKey := pre.NewVaultKey([32]byte{1})
	ct, s, err := pre.EncapsulateSession(vaultKey.Public(), nil)
	if err != nil {
		t.Fatal(err)
	}
	remote, err := vaultKey.Decapsulate(ct)
	if err != nil {
		t.Fatal(err)
	}
	mine := s.Key(policies.VaultID{1}, policies.ReaderID{2}, policies.Hash{3})
	theirs := remote.Key(policies.VaultID{1}, policies.ReaderID{2}, policies.Hash{3})
	var wg sync.WaitGroup
	for i := range 4 {
		request := policies.Hash{byte(i)}
		wg.Go(func() {
			for range 200 {
				sealed, err := theirs.SealAnswer(request, []byte("answer"), nil)
				if errors.Is(err, pre.ErrKey) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := mine.OpenAnswer(request, sealed); err != nil {
					t.Errorf("sealed under another key than K: %v", err)
					return
				}
			}
		})
	}
	theirs.Zero()
	wg.Wait()
}
