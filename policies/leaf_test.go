package policies

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

func TestLeafInverse(t *testing.T) {
	l := validLeaf("phone.mobile")
	data := l.Bytes()
	back, err := ParseLeaf(data)
	if err != nil || back != l {
		t.Fatalf("came back as %+v, %v", back, err)
	}
	if l.Hash() != Hash(tlog.RecordHash(data)) {
		t.Error("the leaf hash is not RFC 6962's")
	}
	for n := range data {
		if _, err := ParseLeaf(data[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut to %d bytes: got %v, want ErrMalformed", n, err)
		}
	}
	for i := range data {
		changed := flip(data, i)
		back, err := ParseLeaf(changed)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("byte %d: got %v, want ErrMalformed", i, err)
			}
		} else if back == l || !bytes.Equal(back.Bytes(), changed) {
			t.Errorf("byte %d changed makes no difference", i)
		}
	}
	if string(l.Capsule.E()) != string(l.Capsule[:33]) {
		t.Error("E is not the first 33 bytes")
	}
}

func TestParseLeafRefuses(t *testing.T) {
	l := validLeaf("phone.mobile")
	u := func(v uint64) []byte { return U64(v) }
	for _, c := range []struct {
		name string
		data []byte
	}{
		{"nothing", nil},
		{"a byte more", append(l.Bytes(), 0)},
		{"another label", Encode("entry", l.Owner[:], []byte(l.Field), u(2), l.Author[:], u(7), l.Capsule[:], l.CiphertextHash[:], l.Commitment[:])},
		{"a field more", append(l.Bytes(), 0, 0)},
		{"short owner", Encode("leaf", l.Owner[1:], []byte(l.Field), u(2), l.Author[:], u(7), l.Capsule[:], l.CiphertextHash[:], l.Commitment[:])},
		{"no field name", Encode("leaf", l.Owner[:], nil, u(2), l.Author[:], u(7), l.Capsule[:], l.CiphertextHash[:], l.Commitment[:])},
		{"bad field name", Encode("leaf", l.Owner[:], []byte("Phone"), u(2), l.Author[:], u(7), l.Capsule[:], l.CiphertextHash[:], l.Commitment[:])},
		{"short epoch", Encode("leaf", l.Owner[:], []byte(l.Field), []byte{2}, l.Author[:], u(7), l.Capsule[:], l.CiphertextHash[:], l.Commitment[:])},
		{"epoch 0", Encode("leaf", l.Owner[:], []byte(l.Field), u(0), l.Author[:], u(7), l.Capsule[:], l.CiphertextHash[:], l.Commitment[:])},
		{"long author", Encode("leaf", l.Owner[:], []byte(l.Field), u(2), filled(33, 1), u(7), l.Capsule[:], l.CiphertextHash[:], l.Commitment[:])},
		{"version 0", Encode("leaf", l.Owner[:], []byte(l.Field), u(2), l.Author[:], u(0), l.Capsule[:], l.CiphertextHash[:], l.Commitment[:])},
		{"long version", Encode("leaf", l.Owner[:], []byte(l.Field), u(2), l.Author[:], filled(9, 0), l.Capsule[:], l.CiphertextHash[:], l.Commitment[:])},
		{"short capsule", Encode("leaf", l.Owner[:], []byte(l.Field), u(2), l.Author[:], u(7), l.Capsule[1:], l.CiphertextHash[:], l.Commitment[:])},
		{"long ciphertext hash", Encode("leaf", l.Owner[:], []byte(l.Field), u(2), l.Author[:], u(7), l.Capsule[:], filled(33, 1), l.Commitment[:])},
		{"no commitment", Encode("leaf", l.Owner[:], []byte(l.Field), u(2), l.Author[:], u(7), l.Capsule[:], l.CiphertextHash[:], nil)},
	} {
		if _, err := ParseLeaf(c.data); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", c.name, err)
		}
	}
}

// reference is a tree by another implementation, golang.org/x/mod's.
type reference []tlog.Hash

func (r reference) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		out[i] = r[index]
	}
	return out, nil
}

func TestTreeAgainstReference(t *testing.T) {
	const most = 130
	var ref reference
	var leaves []Leaf
	for size := 0; size <= most; size++ {
		// Given in the wrong order: a tree sorts.
		given := make([]Leaf, size)
		for i := range leaves {
			given[size-1-i] = leaves[i]
		}
		tree, err := NewTree(given)
		if err != nil {
			t.Fatal(err)
		}
		if size > 1 && given[0].Field < given[1].Field {
			t.Fatal("NewTree sorted the caller's slice")
		}
		want := tlog.Hash(sha256.Sum256(nil))
		if size > 0 {
			want = must(tlog.TreeHash(int64(size), ref))
		}
		if tree.Root() != Hash(want) || tree.Size() != uint64(size) {
			t.Fatalf("size %d: root %v, want %v", size, tree.Root(), want)
		}
		if _, err := tree.Prove(uint64(size)); !errors.Is(err, ErrProof) {
			t.Errorf("size %d: proof of a leaf that is not there: %v", size, err)
		}
		for i := range size {
			p, err := tree.Prove(uint64(i))
			if err != nil {
				t.Fatal(err)
			}
			wantPath := must(tlog.ProveRecord(int64(size), int64(i), ref))
			if fmt.Sprint(wantPath) != fmt.Sprint(asTlog(p)) {
				t.Fatalf("size %d: the proof of leaf %d is not the reference's", size, i)
			}
			if err := p.Verify(leaves[i].Hash(), tree.Size(), tree.Root()); err != nil {
				t.Fatalf("size %d: proof of leaf %d: %v", size, i, err)
			}
			leaf, index, ok := tree.Find(leaves[i].Field)
			if !ok || index != uint64(i) || *leaf != leaves[i] || tree.Leaves()[i] != leaves[i] {
				t.Fatalf("size %d: field %s found at %d, %t", size, leaves[i].Field, index, ok)
			}
		}
		next := validLeaf(Field(fmt.Sprintf("field.%03d", size)))
		next.Version = uint64(size + 1)
		ref = append(ref, must(tlog.StoredHashes(int64(size), next.Bytes(), ref))...)
		leaves = append(leaves, next)
	}
}

func asTlog(p Proof) tlog.RecordProof {
	out := make(tlog.RecordProof, len(p.Path))
	for i := range p.Path {
		out[i] = tlog.Hash(p.Path[i])
	}
	return out
}

func TestTreeOrderIsOfBytes(t *testing.T) {
	names := []Field{"a-b", "a.b", "a/b", "a0", "a_b", "aa", "b"}
	leaves := make([]Leaf, len(names))
	for i := range names {
		leaves[i] = validLeaf(names[len(names)-1-i])
	}
	tree := must(NewTree(leaves))
	for i, l := range tree.Leaves() {
		if l.Field != names[i] {
			t.Errorf("at %d stands %q, want %q", i, l.Field, names[i])
		}
	}
	for _, missing := range []Field{"", "a", "a00", "c"} {
		if _, _, ok := tree.Find(missing); ok {
			t.Errorf("found %q", missing)
		}
	}
}

func TestNewTreeRefuses(t *testing.T) {
	a, b := validLeaf("a"), validLeaf("b")
	twice := a
	twice.Version++
	owner := b
	owner.Owner = OwnerID{9}
	author := b
	author.Author = AuthorID{9}
	for name, leaves := range map[string][]Leaf{
		"a field twice": {a, b, twice}, "two owners": {a, owner}, "two authors": {a, author},
	} {
		if _, err := NewTree(leaves); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func TestProofRefuses(t *testing.T) {
	leaves := make([]Leaf, 11)
	for i := range leaves {
		leaves[i] = validLeaf(Field(fmt.Sprintf("f%02d", i)))
	}
	tree := must(NewTree(leaves))
	smaller := must(NewTree(leaves[:10]))
	good := must(tree.Prove(4))
	leaf, root := leaves[4].Hash(), tree.Root()
	if err := good.Verify(leaf, 11, root); err != nil {
		t.Fatal(err)
	}
	path := func(change func([]Hash) []Hash) Proof {
		return Proof{Index: 4, Path: change(append([]Hash(nil), good.Path...))}
	}
	for _, c := range []struct {
		name string
		p    Proof
		leaf Hash
		size uint64
		root Hash
	}{
		{"another leaf", good, leaves[5].Hash(), 11, root},
		{"another index", Proof{5, good.Path}, leaf, 11, root},
		{"an index outside", Proof{11, good.Path}, leaf, 11, root},
		{"a huge index", Proof{1<<64 - 1, good.Path}, leaf, 11, root},
		{"a larger tree", good, leaf, 30, root},
		{"a smaller tree", good, leaf, 5, root},
		{"no tree", good, leaf, 0, root},
		{"another tree's root", good, leaf, 11, smaller.Root()},
		{"no root", good, leaf, 11, Hash{}},
		{"no path", Proof{Index: 4}, leaf, 11, root},
		{"path cut", path(func(p []Hash) []Hash { return p[:len(p)-1] }), leaf, 11, root},
		{"path longer", path(func(p []Hash) []Hash { return append(p, Hash{}) }), leaf, 11, root},
		{"path in another order", path(func(p []Hash) []Hash { p[0], p[1] = p[1], p[0]; return p }), leaf, 11, root},
		{"a bit of the path", path(func(p []Hash) []Hash { p[2][31] ^= 1; return p }), leaf, 11, root},
	} {
		if err := c.p.Verify(c.leaf, c.size, c.root); !errors.Is(err, ErrProof) {
			t.Errorf("%s: got %v, want ErrProof", c.name, err)
		}
	}
}

func FuzzParseLeaf(f *testing.F) {
	l := validLeaf("phone.mobile")
	f.Add(l.Bytes())
	f.Add(l.Bytes()[:100])
	f.Add(Encode("leaf"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseLeaf(data)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
			return
		}
		if !bytes.Equal(l.Bytes(), data) {
			t.Errorf("a leaf with two spellings: %x", data)
		}
	})
}

func FuzzProofVerify(f *testing.F) {
	leaves := make([]Leaf, 5)
	for i := range leaves {
		leaves[i] = validLeaf(Field(fmt.Sprintf("f%d", i)))
	}
	tree := must(NewTree(leaves))
	p := must(tree.Prove(3))
	var path []byte
	for _, h := range p.Path {
		path = append(path, h[:]...)
	}
	outside := validLeaf("g")
	f.Add(uint64(3), uint64(5), path)
	f.Add(uint64(1<<63), uint64(1<<64-1), path)
	f.Fuzz(func(t *testing.T, index, size uint64, path []byte) {
		p := Proof{Index: index}
		for ; len(path) >= 32 && len(p.Path) < 70; path = path[32:] {
			p.Path = append(p.Path, Hash(path))
		}
		if p.Verify(outside.Hash(), size, tree.Root()) == nil {
			t.Error("a leaf outside the tree was proven")
		}
	})
}
