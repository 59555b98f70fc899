package pre_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/pre"
)

// fuzzParty has a fixed root, so that the corpus keeps its meaning.
func fuzzParty(t testing.TB) *party {
	root, err := pre.ParseRoot(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	p := &party{slot: policies.Slot{Owner: policies.OwnerID{1}, Field: "iban", Epoch: 1, Author: policies.AuthorID{1}}, grant: policies.DocumentID{1}, reader: policies.ReaderID{2}}
	p.a = fieldKey(t, root, p.slot)
	p.key = root.ReaderKey(p.slot.Owner, policies.Nonce{1})
	if _, p.secret, err = pre.NewGrantSecret(p.key.Public(), bytes.NewReader(bytes.Repeat([]byte{2}, 64))); err != nil {
		t.Fatal(err)
	}
	if p.rk, err = p.secret.ReEncryptionKey(p.grant, p.reader, p.a); err != nil {
		t.Fatal(err)
	}
	return p
}

// FuzzOpen: whatever leaf and ciphertext a storefront serves, owner and reader open the one sealed value or get ErrOpen.
func FuzzOpen(f *testing.F) {
	p := fuzzParty(f)
	leaf, ciphertext, err := p.a.Seal(1, []byte("value"), bytes.NewReader(bytes.Repeat([]byte{3}, 112)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(leaf.Bytes(), ciphertext)
	f.Add(leaf.Bytes(), []byte{})
	infinity := leaf
	clear(infinity.Capsule[:33])
	f.Add(infinity.Bytes(), ciphertext)
	f.Fuzz(func(t *testing.T, encoded, ct []byte) {
		l, err := policies.ParseLeaf(encoded)
		if err != nil {
			return
		}
		for _, rehash := range []bool{false, true} {
			if rehash {
				l.CiphertextHash = sha256.Sum256(ct)
			}
			same := bytes.Equal(l.Bytes(), leaf.Bytes()) && bytes.Equal(ct, ciphertext)
			got, err := p.a.Open(&l, ct)
			if same != (err == nil) || err != nil && !errors.Is(err, pre.ErrOpen) || err == nil && string(got) != "value" {
				t.Fatalf("the owner: %q %v", got, err)
			}
			if got, err = p.read(&l, ct); same != (err == nil) || err == nil && string(got) != "value" {
				t.Fatalf("the reader: %q %v", got, err)
			}
		}
	})
}

// FuzzPoint: the two point functions agree with each other on every capsule.
func FuzzPoint(f *testing.F) {
	p := fuzzParty(f)
	leaf, _, err := p.a.Seal(1, nil, bytes.NewReader(bytes.Repeat([]byte{3}, 112)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(leaf.Capsule[:33], make([]byte, 65))
	f.Add(make([]byte, 33), append([]byte{4}, make([]byte, 64)...))
	f.Add([]byte{2}, []byte{0})
	f.Fuzz(func(t *testing.T, e, other []byte) {
		var c policies.Capsule
		copy(c[:33], e)
		point, err := pre.Decompress(&c)
		x, err2 := pre.Reencrypt(p.rk, &c)
		if (err == nil) != (err2 == nil) {
			t.Fatalf("Decompress: %v, Reencrypt: %v (%x)", err, err2, x)
		}
		if err == nil && pre.CheckPoint(&point, &c) != nil {
			t.Fatal("CheckPoint refuses what Decompress made")
		}
		var o [65]byte
		copy(o[:], other)
		if pre.CheckPoint(&o, &c) == nil && (err != nil || o != point) {
			t.Fatalf("CheckPoint accepts %x for %x", o, c[:33])
		}
	})
}

// FuzzLift: an x from the wire never makes the reader open something else or panic.
func FuzzLift(f *testing.F) {
	p := fuzzParty(f)
	leaf, ciphertext, err := p.a.Seal(1, []byte("value"), bytes.NewReader(bytes.Repeat([]byte{3}, 112)))
	if err != nil {
		f.Fatal(err)
	}
	x, err := pre.Reencrypt(p.rk, &leaf.Capsule)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(x[:])
	f.Add(make([]byte, 32))
	f.Add(bytes.Repeat([]byte{255}, 32))
	f.Fuzz(func(t *testing.T, b []byte) {
		var y [32]byte
		copy(y[:], b)
		got, err := p.secret.Open(p.grant, p.reader, &leaf, y, ciphertext)
		if (err == nil) != (x == y) || err == nil && string(got) != "value" {
			t.Fatalf("%x: %q %v", y, got, err)
		}
	})
}

// FuzzPKCS8: what is read as a re-encryption key is written back byte for byte.
func FuzzPKCS8(f *testing.F) {
	f.Add(fuzzParty(f).rk.PKCS8())
	f.Add([]byte{0x30, 0x41})
	f.Add(make([]byte, 67))
	f.Fuzz(func(t *testing.T, der []byte) {
		rk, err := pre.ParseReEncryptionKey(der)
		if err == nil && !bytes.Equal(rk.PKCS8(), der) {
			t.Fatalf("%x was read as %x", der, rk.PKCS8())
		}
	})
}

// FuzzBlob and its kin: nothing opens that was not sealed.
func FuzzBlob(f *testing.F) {
	key, k := pre.NewBlobKey([32]byte{1}), func() *pre.SessionKey {
		s, err := pre.NewVaultKey([32]byte{1}).Decapsulate(make([]byte, 1120))
		if err != nil {
			f.Fatal(err)
		}
		return s.Key(policies.VaultID{}, policies.ReaderID{}, policies.Hash{})
	}()
	f.Add([]byte{})
	f.Add(make([]byte, 28))
	f.Add(make([]byte, 1136))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := key.Open(nil, b); err == nil {
			t.Fatalf("a blob opened: %x", got)
		}
		if got, err := k.OpenAnswer(policies.Hash{}, b); err == nil {
			t.Fatalf("an answer opened: %x", got)
		}
	})
}
