package pre_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/pre"
)

// party is one owner and one reader with one grant of one field.
type party struct {
	slot   policies.Slot
	root   *pre.Root
	a      *pre.FieldKey
	key    *pre.ReaderKey
	grant  policies.DocumentID
	reader policies.ReaderID
	secret *pre.GrantSecret
	rk     *pre.ReEncryptionKey
}

func newRoot(t testing.TB) *pre.Root {
	t.Helper()
	r, err := pre.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func fieldKey(t testing.TB, r *pre.Root, s policies.Slot) *pre.FieldKey {
	t.Helper()
	k, err := r.FieldKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newParty(t testing.TB) *party {
	t.Helper()
	p := &party{
		slot:   policies.Slot{Owner: policies.OwnerID{1}, Field: "phone.mobile", Epoch: 3, Author: policies.AuthorID{1}},
		root:   newRoot(t),
		grant:  policies.DocumentID{7},
		reader: policies.ReaderID{9},
	}
	p.a = fieldKey(t, p.root, p.slot)
	p.key = newRoot(t).ReaderKey(p.slot.Owner, policies.Nonce{5})
	ct, secret, err := pre.NewGrantSecret(p.key.Public(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.rk, err = secret.ReEncryptionKey(p.grant, p.reader, p.a); err != nil {
		t.Fatal(err)
	}
	secret.Zero()
	if p.secret, err = p.key.OpenGrant(ct); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *party) seal(t testing.TB, version uint64, value []byte) (policies.Leaf, []byte) {
	t.Helper()
	leaf, ciphertext, err := p.a.Seal(version, value, nil)
	if err != nil {
		t.Fatal(err)
	}
	return leaf, ciphertext
}

// read is the reader's whole path: token, then opening.
func (p *party) read(leaf *policies.Leaf, ciphertext []byte) ([]byte, error) {
	x, err := pre.Reencrypt(p.rk, &leaf.Capsule)
	if err != nil {
		return nil, err
	}
	return p.secret.Open(p.grant, p.reader, leaf, x, ciphertext)
}

func TestOpenReencryptSeal(t *testing.T) {
	p := newParty(t)
	for _, size := range []int{0, 1, 4, 5, 13, 255, 4096, 65535, policies.MaxValue} {
		value := bytes.Repeat([]byte{0xa5}, size)
		leaf, ciphertext := p.seal(t, 1, value)
		if len(ciphertext) != pre.CiphertextSize(size) {
			t.Errorf("size %d: ciphertext has %d bytes, CiphertextSize says %d", size, len(ciphertext), pre.CiphertextSize(size))
		}
		if bytes.Contains(ciphertext, value) && size > 4 {
			t.Errorf("size %d: the ciphertext contains the value", size)
		}
		if got, err := p.a.Open(&leaf, ciphertext); err != nil || !bytes.Equal(got, value) {
			t.Errorf("size %d: the owner's opening: %v", size, err)
		}
		if got, err := p.read(&leaf, ciphertext); err != nil || !bytes.Equal(got, value) {
			t.Errorf("size %d: the reader's opening: %v", size, err)
		}
	}
	if _, _, err := p.a.Seal(1, make([]byte, policies.MaxValue+1), nil); !errors.Is(err, pre.ErrTooLarge) {
		t.Errorf("a value above the bound: %v", err)
	}
	if _, _, err := p.a.Seal(0, nil, nil); !errors.Is(err, policies.ErrMalformed) {
		t.Errorf("version 0: %v", err)
	}
}

// TestWrong turns one thing wrong at a time, in every way a storefront, a reader or a vault could.
func TestWrong(t *testing.T) {
	p := newParty(t)
	leaf, ciphertext := p.seal(t, 4, []byte("+49 170 1234567"))
	x, err := pre.Reencrypt(p.rk, &leaf.Capsule)
	if err != nil {
		t.Fatal(err)
	}
	otherLeaf, otherCiphertext := p.seal(t, 5, []byte("+49 170 7654321"))
	otherGrant := newParty(t)
	notOnCurve := x
	for notOnCurve[31] = 0; ; notOnCurve[31]++ {
		var c policies.Capsule
		c[0] = 2
		copy(c[1:33], notOnCurve[:])
		if _, err := pre.Decompress(&c); err != nil {
			break
		}
	}

	for name, change := range map[string]func(l *policies.Leaf, ct *[]byte){
		"owner": func(l *policies.Leaf, _ *[]byte) {
			l.Owner[0]++
		},
		"field": func(l *policies.Leaf, _ *[]byte) {
			l.Field = "phone.home"
		},
		"field not a name": func(l *policies.Leaf, _ *[]byte) {
			l.Field = policies.Field(strings.Repeat("A", 70000))
		},
		"epoch": func(l *policies.Leaf, _ *[]byte) {
			l.Epoch++
		},
		"epoch zero": func(l *policies.Leaf, _ *[]byte) {
			l.Epoch = 0
		},
		"author": func(l *policies.Leaf, _ *[]byte) {
			l.Author[0]++
		},
		"version": func(l *policies.Leaf, _ *[]byte) {
			l.Version++
		},
		"version zero": func(l *policies.Leaf, _ *[]byte) {
			l.Version = 0
		},
		"capsule of another": func(l *policies.Leaf, _ *[]byte) {
			l.Capsule = otherLeaf.Capsule
		},
		"ciphertext": func(_ *policies.Leaf, ct *[]byte) {
			*ct = otherCiphertext
		},
		"ciphertext and hash": func(l *policies.Leaf, ct *[]byte) {
			*ct = otherCiphertext
			l.CiphertextHash = otherLeaf.CiphertextHash
		},
		"no ciphertext": func(l *policies.Leaf, ct *[]byte) {
			*ct = nil
			l.CiphertextHash = sha256.Sum256(nil)
		},
		"huge ciphertext": func(l *policies.Leaf, ct *[]byte) {
			*ct = make([]byte, 2<<20)
			l.CiphertextHash = sha256.Sum256(*ct)
		},
		"commitment": func(l *policies.Leaf, _ *[]byte) {
			l.Commitment[31] ^= 1
		},
	} {
		l, ct := leaf, ciphertext
		change(&l, &ct)
		if _, err := p.a.Open(&l, ct); !errors.Is(err, pre.ErrOpen) || err.Error() != pre.ErrOpen.Error() {
			t.Errorf("%s: the owner's opening: %v", name, err)
		}
		if _, err := p.secret.Open(p.grant, p.reader, &l, x, ct); !errors.Is(err, pre.ErrOpen) || err.Error() != pre.ErrOpen.Error() {
			t.Errorf("%s: the reader's opening: %v", name, err)
		}
	}
	for name, open := range map[string]func() ([]byte, error){
		"grant":             func() ([]byte, error) { return p.secret.Open(policies.DocumentID{8}, p.reader, &leaf, x, ciphertext) },
		"reader":            func() ([]byte, error) { return p.secret.Open(p.grant, policies.ReaderID{8}, &leaf, x, ciphertext) },
		"grant's secret":    func() ([]byte, error) { return otherGrant.secret.Open(p.grant, p.reader, &leaf, x, ciphertext) },
		"x without a point": func() ([]byte, error) { return p.secret.Open(p.grant, p.reader, &leaf, notOnCurve, ciphertext) },
		"x of zero":         func() ([]byte, error) { return p.secret.Open(p.grant, p.reader, &leaf, [32]byte{}, ciphertext) },
		"x above p": func() ([]byte, error) {
			return p.secret.Open(p.grant, p.reader, &leaf, [32]byte(bytes.Repeat([]byte{255}, 32)), ciphertext)
		},
		"x of another item": func() ([]byte, error) {
			y, _ := pre.Reencrypt(p.rk, &otherLeaf.Capsule)
			return p.secret.Open(p.grant, p.reader, &leaf, y, ciphertext)
		},
		"x by another key": func() ([]byte, error) {
			y, _ := pre.Reencrypt(otherGrant.rk, &leaf.Capsule)
			return p.secret.Open(p.grant, p.reader, &leaf, y, ciphertext)
		},
		"zeroed secret":      func() ([]byte, error) { return new(pre.GrantSecret).Open(p.grant, p.reader, &leaf, x, ciphertext) },
		"field key of other": func() ([]byte, error) { return otherGrant.a.Open(&leaf, ciphertext) },
		"zeroed field key":   func() ([]byte, error) { k := fieldKey(t, p.root, p.slot); k.Zero(); return k.Open(&leaf, ciphertext) },
	} {
		if _, err := open(); !errors.Is(err, pre.ErrOpen) || err.Error() != pre.ErrOpen.Error() {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

// TestFlippedBit flips every bit of a leaf, its x and its ciphertext.
func TestFlippedBit(t *testing.T) {
	p := newParty(t)
	leaf, ciphertext := p.seal(t, 1, []byte("DE89 3704 0044 0532 0130 00"))
	x, err := pre.Reencrypt(p.rk, &leaf.Capsule)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(b []byte, bit int) []byte {
		b = bytes.Clone(b)
		b[bit/8] ^= 1 << (bit % 8)
		return b
	}
	for bit := range len(x) * 8 {
		if _, err := p.secret.Open(p.grant, p.reader, &leaf, [32]byte(flip(x[:], bit)), ciphertext); !errors.Is(err, pre.ErrOpen) {
			t.Errorf("x, bit %d: %v", bit, err)
		}
	}
	for bit := range len(ciphertext) * 8 {
		l, flipped := leaf, flip(ciphertext, bit)
		if _, err := p.a.Open(&l, flipped); !errors.Is(err, pre.ErrOpen) {
			t.Errorf("ciphertext, bit %d: %v", bit, err)
		}
		l.CiphertextHash = sha256.Sum256(flipped) // a storefront that recomputes the hash
		if _, err := p.a.Open(&l, flipped); !errors.Is(err, pre.ErrOpen) {
			t.Errorf("ciphertext and hash, bit %d: %v", bit, err)
		}
	}
	encoded := leaf.Bytes()
	for bit := range len(encoded) * 8 {
		l, err := policies.ParseLeaf(flip(encoded, bit))
		if err != nil {
			continue
		}
		if _, err := p.a.Open(&l, ciphertext); !errors.Is(err, pre.ErrOpen) {
			t.Errorf("leaf, bit %d: the owner's opening: %v", bit, err)
		}
		// The vault would re-encrypt the changed capsule if it found it under a head.
		if got, err := p.read(&l, ciphertext); err == nil {
			t.Errorf("leaf, bit %d: the reader opened %q", bit, got)
		}
	}
}

func TestBadPoints(t *testing.T) {
	p := newParty(t)
	leaf, ciphertext := p.seal(t, 1, []byte("v"))
	good, err := pre.Decompress(&leaf.Capsule)
	if err != nil {
		t.Fatal(err)
	}
	if err := pre.CheckPoint(&good, &leaf.Capsule); err != nil {
		t.Fatal(err)
	}
	offCurve, infinity, hybrid := good, [65]byte{}, good
	offCurve[64] ^= 2
	negated := leaf.Capsule
	negated[0] ^= 1
	otherSign, err := pre.Decompress(&negated)
	if err != nil {
		t.Fatal(err)
	}
	hybrid[0] = 6 | good[64]&1
	for name, point := range map[string][65]byte{"off curve": offCurve, "other sign": otherSign, "infinity": infinity, "hybrid form": hybrid} {
		if err := pre.CheckPoint(&point, &leaf.Capsule); !errors.Is(err, pre.ErrPoint) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, head := range map[string]byte{"infinity": 0, "uncompressed": 4, "hybrid": 6, "garbage": 255} {
		l := leaf
		l.Capsule[0] = head
		if head == 0 {
			clear(l.Capsule[:33])
		}
		if _, err := pre.Decompress(&l.Capsule); !errors.Is(err, pre.ErrPoint) {
			t.Errorf("decompressing %s: %v", name, err)
		}
		if _, err := pre.Reencrypt(p.rk, &l.Capsule); !errors.Is(err, pre.ErrPoint) {
			t.Errorf("re-encrypting %s: %v", name, err)
		}
		if _, err := p.a.Open(&l, ciphertext); !errors.Is(err, pre.ErrOpen) {
			t.Errorf("opening %s: %v", name, err)
		}
	}
	// The sign does not matter to Z, but E is part of the KEK's info: the negated capsule gives the same x and does not open.
	l := leaf
	l.Capsule = negated
	x, err := pre.Reencrypt(p.rk, &leaf.Capsule)
	if err != nil {
		t.Fatal(err)
	}
	if y, err := pre.Reencrypt(p.rk, &negated); err != nil || x != y {
		t.Errorf("x of the negated point differs: %v", err)
	}
	if _, err := p.a.Open(&l, ciphertext); !errors.Is(err, pre.ErrOpen) {
		t.Errorf("negated capsule: %v", err)
	}
}

func TestRotate(t *testing.T) {
	p := newParty(t)
	value := []byte("Zoë Müller, 東京都")
	leaf, ciphertext := p.seal(t, 8, value)
	slot := p.slot
	slot.Epoch++
	next := fieldKey(t, p.root, slot)
	rotated, err := p.a.Rotate(next, &leaf, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := next.Open(&rotated, ciphertext); err != nil || !bytes.Equal(got, value) {
		t.Fatalf("after rotation: %v", err)
	}
	if rotated.Version != leaf.Version || rotated.CiphertextHash != leaf.CiphertextHash || rotated.Commitment != leaf.Commitment || rotated.Epoch != slot.Epoch {
		t.Error("rotation changed more than epoch and capsule, or less")
	}
	// Unlinked: E, s and W are all fresh, and neither the old key nor the old grant opens the new capsule.
	for i, part := range [][2]int{{0, 33}, {33, 65}, {65, 113}} {
		if bytes.Equal(leaf.Capsule[part[0]:part[1]], rotated.Capsule[part[0]:part[1]]) {
			t.Errorf("part %d of the capsule survived the rotation", i)
		}
	}
	if _, err := p.a.Open(&rotated, ciphertext); !errors.Is(err, pre.ErrOpen) {
		t.Errorf("the old key: %v", err)
	}
	if _, err := p.read(&rotated, ciphertext); !errors.Is(err, pre.ErrOpen) {
		t.Errorf("the old grant: %v", err)
	}
	backdated := rotated
	backdated.Epoch = leaf.Epoch
	if _, err := p.read(&backdated, ciphertext); !errors.Is(err, pre.ErrOpen) {
		t.Errorf("the old grant, on a new capsule called old: %v", err)
	}
	// The remaining reader, with a superseding grant.
	ct, secret, err := pre.NewGrantSecret(p.key.Public(), nil)
	if err != nil {
		t.Fatal(err)
	}
	grant := policies.DocumentID{77}
	rk, err := secret.ReEncryptionKey(grant, p.reader, next)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := p.key.OpenGrant(ct)
	if err != nil {
		t.Fatal(err)
	}
	x, err := pre.Reencrypt(rk, &rotated.Capsule)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := opened.Open(grant, p.reader, &rotated, x, ciphertext); err != nil || !bytes.Equal(got, value) {
		t.Errorf("the superseding grant: %v", err)
	}

	for name, wrong := range map[string]func(s *policies.Slot){
		"owner": func(s *policies.Slot) { s.Owner[0]++ }, "field": func(s *policies.Slot) { s.Field = "iban" },
		"author": func(s *policies.Slot) { s.Author[0]++ }, "same epoch": func(s *policies.Slot) { s.Epoch-- },
		"older epoch": func(s *policies.Slot) { s.Epoch -= 2 },
	} {
		s := slot
		wrong(&s)
		if _, err := p.a.Rotate(fieldKey(t, p.root, s), &leaf, nil); !errors.Is(err, pre.ErrKey) {
			t.Errorf("rotating to another %s: %v", name, err)
		}
	}
	if _, err := next.Rotate(fieldKey(t, p.root, policies.Slot{Owner: slot.Owner, Field: slot.Field, Epoch: 9, Author: slot.Author}), &leaf, nil); !errors.Is(err, pre.ErrOpen) {
		t.Errorf("rotating a leaf of another epoch: %v", err)
	}
}

func TestAuthor(t *testing.T) {
	p := newParty(t)
	slot := p.slot
	slot.Author = policies.AuthorID{42}
	a := fieldKey(t, p.root, slot)
	author, err := a.Author()
	if err != nil {
		t.Fatal(err)
	}
	remote, err := pre.ParseAuthorKey(slot, author.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if remote.Slot() != slot || a.Slot() != slot {
		t.Error("the key forgot its slot")
	}
	leaf, ciphertext, err := remote.Seal(1, []byte("salary: 4,000"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.Open(&leaf, ciphertext); err != nil || string(got) != "salary: 4,000" {
		t.Fatalf("the owner opens what an author wrote: %v", err)
	}
	if _, err := p.a.Open(&leaf, ciphertext); !errors.Is(err, pre.ErrOpen) {
		t.Errorf("the owner's own key opens what an author wrote: %v", err)
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "infinity": {0}, "33 zeroes": make([]byte, 33), "short": author.Bytes()[:32],
		"uncompressed": append([]byte{4}, make([]byte, 64)...), "x above p": append([]byte{2}, bytes.Repeat([]byte{255}, 32)...),
	} {
		if _, err := pre.ParseAuthorKey(slot, b); !errors.Is(err, pre.ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := pre.ParseAuthorKey(policies.Slot{}, author.Bytes()); !errors.Is(err, policies.ErrMalformed) {
		t.Errorf("no slot: %v", err)
	}
	remote.Zero()
	if _, _, err := remote.Seal(2, nil, nil); !errors.Is(err, pre.ErrKey) {
		t.Errorf("a zeroed key: %v", err)
	}
}

func TestKeys(t *testing.T) {
	root := newRoot(t)
	again, err := pre.ParseRoot(root.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	slot := policies.Slot{Owner: policies.OwnerID{1}, Field: "iban", Epoch: 1, Author: policies.AuthorID{1}}
	leaf, ciphertext, err := fieldKey(t, root, slot).Seal(1, []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fieldKey(t, again, slot).Open(&leaf, ciphertext); err != nil {
		t.Errorf("a root out of a backup: %v", err)
	}
	// Every derived secret differs from every other.
	seen := map[string]string{}
	note := func(name string, b []byte) {
		if other, ok := seen[string(b)]; ok {
			t.Errorf("%s equals %s", name, other)
		}
		seen[string(b)] = name
	}
	id, kem, login := root.IdentitySeed(), root.KEMSeed(), root.LoginSeed()
	note("root", root.Bytes())
	note("ML-DSA seed", id[:32])
	note("Ed25519 seed", id[32:])
	note("KEM seed", kem[:])
	note("login seed", login[:])
	for i := range byte(3) {
		for j := range byte(3) {
			note(fmt.Sprintf("reader key %d %d", i, j), root.ReaderKey(policies.OwnerID{i}, policies.Nonce{j}).Public())
		}
	}
	for _, s := range []policies.Slot{slot, {Owner: slot.Owner, Field: "ibam", Epoch: 1, Author: slot.Author}, {Owner: slot.Owner, Field: "iban", Epoch: 2, Author: slot.Author}, {Owner: slot.Owner, Field: "iban", Epoch: 1, Author: policies.AuthorID{2}}} {
		author, err := fieldKey(t, root, s).Author()
		if err != nil {
			t.Fatal(err)
		}
		note(fmt.Sprint("field key ", s.Field, s.Epoch, s.Author), author.Bytes())
	}
	for name, b := range map[string][]byte{"short": make([]byte, 31), "long": make([]byte, 33), "zeroes": make([]byte, 32), "nothing": nil} {
		if _, err := pre.ParseRoot(b); !errors.Is(err, pre.ErrKey) {
			t.Errorf("a root, %s: %v", name, err)
		}
	}
	for name, s := range map[string]policies.Slot{
		"zero": {}, "bad field": {Owner: slot.Owner, Field: "Phone", Epoch: 1, Author: slot.Author},
		"no epoch": {Owner: slot.Owner, Field: "iban", Author: slot.Author}, "no author": {Owner: slot.Owner, Field: "iban", Epoch: 1},
		"long field": {Owner: slot.Owner, Field: policies.Field(strings.Repeat("a", 70000)), Epoch: 1, Author: slot.Author},
	} {
		if _, err := root.FieldKey(s); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("a slot, %s: %v", name, err)
		}
	}
}

func TestReEncryptionKey(t *testing.T) {
	p := newParty(t)
	der := p.rk.PKCS8()
	if len(der) != 67 {
		t.Fatalf("PKCS#8 has %d bytes", len(der))
	}
	again, err := pre.ParseReEncryptionKey(der)
	if err != nil || !bytes.Equal(again.PKCS8(), der) {
		t.Fatalf("reading it back: %v", err)
	}
	order := []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51}
	for name, b := range map[string][]byte{
		"zero": append(bytes.Clone(der[:35]), make([]byte, 32)...), "n": append(bytes.Clone(der[:35]), order...),
		"all ones": append(bytes.Clone(der[:35]), bytes.Repeat([]byte{255}, 32)...), "cut": der[:66], "long": append(bytes.Clone(der), 0), "nothing": nil,
	} {
		if _, err := pre.ParseReEncryptionKey(b); !errors.Is(err, pre.ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a := fieldKey(t, p.root, p.slot)
	a.Zero()
	if _, err := p.secret.ReEncryptionKey(p.grant, p.reader, a); !errors.Is(err, pre.ErrKey) {
		t.Errorf("a zeroed field key: %v", err)
	}
	if _, err := new(pre.GrantSecret).ReEncryptionKey(p.grant, p.reader, p.a); !errors.Is(err, pre.ErrKey) {
		t.Errorf("a zeroed secret: %v", err)
	}
	again.Zero()
	leaf, _ := p.seal(t, 1, nil)
	if _, err := pre.Reencrypt(again, &leaf.Capsule); !errors.Is(err, pre.ErrKey) {
		t.Errorf("a zeroed re-encryption key: %v", err)
	}
}

// TestBrokenRandomness: a source that runs dry or gives only zeroes is an error, never a weak key or an endless loop.
func TestBrokenRandomness(t *testing.T) {
	p := newParty(t)
	for n := range 32 + 48 + 32 {
		if _, _, err := p.a.Seal(1, []byte("v"), bytes.NewReader(make([]byte, n))); err == nil {
			t.Errorf("sealed with %d bytes of zeroes", n)
		}
	}
	if _, _, err := p.a.Seal(1, []byte("v"), zeroes{}); !errors.Is(err, pre.ErrKey) {
		t.Errorf("sealed with r = 0: %v", err)
	}
	if _, _, err := pre.NewGrantSecret(p.key.Public(), bytes.NewReader(make([]byte, 63))); err == nil || errors.Is(err, pre.ErrKey) {
		t.Errorf("encapsulated with 63 bytes: %v", err)
	}
}

type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestRedacted prints every secret in every way and looks for anything but the word.
func TestRedacted(t *testing.T) {
	p := newParty(t)
	author, err := p.a.Author()
	if err != nil {
		t.Fatal(err)
	}
	vault := pre.NewVaultKey([32]byte{1})
	_, session, err := pre.EncapsulateSession(vault.Public(), nil)
	if err != nil {
		t.Fatal(err)
	}
	login := pre.NewLoginKey([32]byte{1})
	_, challenge, err := pre.NewChallenge(login.Public(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []any{p.root, *p.root, p.a, *p.a, p.key, *p.key, p.secret, *p.secret, p.rk, *p.rk, author, *author, vault, *vault,
		session, *session, session.Key(policies.VaultID{}, policies.ReaderID{}, policies.Hash{}), login, *login, challenge, *challenge, pre.NewBlobKey([32]byte{1})} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%08b", "%p"} {
			if got := fmt.Sprintf(verb, secret); got != "(redacted)" && verb != "%p" {
				t.Errorf("%T with %s: %s", secret, verb, got)
			}
		}
		if b, err := json.Marshal(secret); err != nil || string(b) != `"(redacted)"` {
			t.Errorf("%T as JSON: %s %v", secret, b, err)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("m", "secret", secret)
		if !strings.Contains(log.String(), "secret=(redacted)") {
			t.Errorf("%T in a log: %s", secret, log.String())
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	p := newParty(b)
	for b.Loop() {
		p.seal(b, 1, []byte("+49 170 1234567"))
	}
}

func BenchmarkReaderOpen(b *testing.B) {
	p := newParty(b)
	leaf, ciphertext := p.seal(b, 1, []byte("+49 170 1234567"))
	x, err := pre.Reencrypt(p.rk, &leaf.Capsule)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := p.secret.Open(p.grant, p.reader, &leaf, x, ciphertext); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReencrypt(b *testing.B) {
	p := newParty(b)
	leaf, _ := p.seal(b, 1, nil)
	for b.Loop() {
		if _, err := pre.Reencrypt(p.rk, &leaf.Capsule); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckPoint(b *testing.B) {
	p := newParty(b)
	leaf, _ := p.seal(b, 1, nil)
	point, err := pre.Decompress(&leaf.Capsule)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := pre.CheckPoint(&point, &leaf.Capsule); err != nil {
			b.Fatal(err)
		}
	}
}
