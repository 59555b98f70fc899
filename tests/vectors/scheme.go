package vectors

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
)

// The people and things of the vectors.
var (
	ownerRoot  = fixed("owner root", 32)
	readerRoot = fixed("reader root", 32)
	ownerID    = fixed("owner id", 32)
	readerID   = fixed("reader id", 32)
	sourceID   = fixed("source id", 32)
	vaultID    = fixed("vault id", 32)
	grantID    = fixed("grant id", 32)
	relNonce   = fixed("relationship nonce", 16)
	mobile     = slot{owner: ownerID, author: ownerID, field: "phone.mobile", epoch: 3}
	theValue   = []byte("+49 170 1234567")
)

func slotIn(root []byte, s slot) map[string]any {
	return map[string]any{"root": root, "owner": s.owner, "field": s.field, "epoch": s.epoch, "author": s.author}
}

func hkdfFile() File {
	f := File{Name: "hkdf.json",
		What:      "Every derivation of the suite: HKDF-SHA-256 with the pinned info, which is the label sallyport/v1/<use> and the fields, each as u16 length || bytes.",
		Implement: "Encode use and fields to info, then compute okm = HKDF(ikm, salt, info, size). An empty salt is 32 zero bytes (RFC 5869 section 2.2)."}
	ss, z := fixed("shared secret", 32), fixed("Z", 32)
	for _, c := range []struct {
		description, use string
		ikm, salt        []byte
		size             int
		fields           [][]byte
	}{
		{"ML-DSA-65 seed", "identity-mldsa65", ownerRoot, nil, 32, nil},
		{"Ed25519 seed", "identity-ed25519", ownerRoot, nil, 32, nil},
		{"identity X-Wing seed", "identity-kem", ownerRoot, nil, 32, nil},
		{"login X-Wing seed", "login-kem", ownerRoot, nil, 32, nil},
		{"reader X-Wing seed: owner, nonce", "reader", readerRoot, nil, 32, [][]byte{ownerID, relNonce}},
		{"field key: field, epoch, author", "field", ownerRoot, nil, 48, [][]byte{[]byte("phone.mobile"), u64(3), ownerID}},
		{"field key, drawn again after a zero: one more field, the counter", "field", ownerRoot, nil, 48, [][]byte{[]byte("phone.mobile"), u64(3), ownerID, u64(1)}},
		{"field key, greatest epoch", "field", ownerRoot, nil, 48, [][]byte{[]byte("phone.mobile"), u64(1<<64 - 1), ownerID}},
		{"commitment to a DEK", "commit", fixed("DEK", 32), nil, 32, nil},
		{"KEK: owner, field, epoch, author, version, E, with salt s", "kek", z, fixed("salt", 32), 32, [][]byte{ownerID, []byte("phone.mobile"), u64(3), ownerID, u64(4), compress(basePoint(u64to32(1)))}},
		{"d of a grant: grant, owner, reader, field, epoch, author", "grant", ss, nil, 48, [][]byte{grantID, ownerID, readerID, []byte("phone.mobile"), u64(3), ownerID}},
		{"session key K: vault, reader, session hash", "session-key", ss, nil, 32, [][]byte{vaultID, readerID, fixed("session hash", 32)}},
		{"answer key: request hash", "answer", fixed("K", 32), nil, 32, [][]byte{fixed("request hash", 32)}},
		{"evidence key: request hash", "evidence", fixed("K", 32), nil, 32, [][]byte{fixed("request hash", 32)}},
		{"key of a login answer", "challenge-answer", ss, nil, 32, nil},
		{"no two lists of fields encode alike: ab, c", "field", ownerRoot, nil, 48, [][]byte{[]byte("ab"), []byte("c")}},
		{"no two lists of fields encode alike: a, bc", "field", ownerRoot, nil, 48, [][]byte{[]byte("a"), []byte("bc")}},
		{"no two lists of fields encode alike: ab, c, empty", "field", ownerRoot, nil, 48, [][]byte{[]byte("ab"), []byte("c"), {}}},
	} {
		info := encode(c.use, c.fields...)
		f.add(c.description, "hkdf", "ok", map[string]any{"ikm": c.ikm, "salt": c.salt, "use": c.use, "fields": c.fields, "size": c.size},
			map[string]any{"info": info, "okm": hkdf(c.ikm, c.salt, info, c.size)})
	}
	return f
}

func u64to32(v uint64) []byte { return append(make([]byte, 24), u64(v)...) }

func scalarFile() File {
	f := File{Name: "scalar.json",
		What:      "Scalars: OS2IP of 48 bytes mod n, the field key a with A = aG, and rk = a * d^-1 mod n.",
		Implement: "reduce: scalar = OS2IP(wide) mod n. quotient: a * d^-1 mod n, d = 0 refused. field-key: a from the root, A compressed. re-encryption-key: encapsulate with the given 64 bytes to the reader's key for this owner, derive d, compute rk."}
	order := n.FillBytes(make([]byte, 48))
	one := append(make([]byte, 47), 1)
	for name, wide := range map[string][]byte{"zero": make([]byte, 48), "one": one, "n": order, "all ones": bytes.Repeat([]byte{255}, 48),
		"2^192": append(append(make([]byte, 23), 1), make([]byte, 24)...), "2^256": append(append(make([]byte, 15), 1), make([]byte, 32)...), "any": fixed("wide", 48)} {
		f.add(name, "reduce", "ok", map[string]any{"wide": wide}, map[string]any{"scalar": modN(wide)})
	}
	slices.SortFunc(f.Cases, func(a, b Case) int { return bytes.Compare([]byte(a.Description), []byte(b.Description)) })
	a, d := modN(fixed("a", 48)), modN(fixed("d", 48))
	for _, c := range []struct {
		name string
		a, d []byte
	}{{"any", a, d}, {"d = 1", a, u64to32(1)}, {"d = n-1", a, minusOne()}, {"a = d", a, a}} {
		f.add("quotient, "+c.name, "quotient", "ok", map[string]any{"a": c.a, "d": c.d}, map[string]any{"rk": divide(c.a, c.d)})
	}
	f.add("quotient, d = 0", "quotient", "key", map[string]any{"a": a, "d": make([]byte, 32)}, nil)

	for _, s := range []slot{mobile, {ownerID, sourceID, "salary/net_2026-01", 1}, {ownerID, ownerID, "a", 1<<64 - 1}} {
		okm := fieldOKM(ownerRoot, s)
		f.add("field key of "+s.field, "field-key", "ok", slotIn(ownerRoot, s), map[string]any{"okm": okm, "a": modN(okm), "A": compress(basePoint(modN(okm)))})
	}
	for name, s := range map[string]slot{"epoch 0": {ownerID, ownerID, "iban", 0}, "no owner": {make([]byte, 32), ownerID, "iban", 1}, "no author": {ownerID, make([]byte, 32), "iban", 1},
		"upper case in the field's name": {ownerID, ownerID, "Iban", 1}, "no field": {ownerID, ownerID, "", 1}} {
		f.add("field key, "+name, "field-key", "malformed", slotIn(ownerRoot, s), nil)
	}
	sortTail(f.Cases, "field key, ")
	in, out := grantIn(mobile)
	f.add("re-encryption key", "re-encryption-key", "ok", in, out)
	return f
}

// minusOne is n-1.
func minusOne() []byte {
	b := n.FillBytes(make([]byte, 32))
	b[31]--
	return b
}

// sortTail puts the cases that came out of a map into order.
func sortTail(cases []Case, prefix string) {
	first := len(cases)
	for first > 0 && bytes.HasPrefix([]byte(cases[first-1].Description), []byte(prefix)) {
		first--
	}
	slices.SortStableFunc(cases[first:], func(a, b Case) int { return bytes.Compare([]byte(a.Description), []byte(b.Description)) })
}

// grantIn is a grant to the reader of one slot, with every secret of it.
func grantIn(s slot) (in, out map[string]any) {
	seed := hkdf(readerRoot, nil, encode("reader", s.owner, relNonce), 32)
	coins := fixed("grant randomness", 64)
	ct, ss := xwingEncapsulate(xwingPublic(seed), coins)
	okm := grantScalarOKM(ss, grantID, readerID, s)
	a, d := fieldScalar(ownerRoot, s), modN(okm)
	rk := divide(a, d)
	in = with(slotIn(ownerRoot, s), "reader_root", readerRoot, "nonce", relNonce, "random", coins, "grant", grantID, "reader", readerID)
	out = map[string]any{"ct": ct, "ss": ss, "okm": okm, "d": d, "a": a, "rk": rk, "pkcs8": pkcs8(rk)}
	return in, out
}

func pkcs8File() File {
	f := File{Name: "pkcs8.json",
		What:      "The re-encryption key as it is wrapped for the token: PKCS#8 (RFC 5208) around ECPrivateKey (RFC 5915), named curve P-256, no public key, exactly 67 bytes.",
		Implement: "Read the bytes strictly: this one form and a scalar in 1..n-1. Writing the scalar gives the same bytes back."}
	rk := modN(fixed("rk", 48))
	der := pkcs8(rk)
	ok := func(name string, scalar []byte) {
		f.add(name, "parse", "ok", map[string]any{"pkcs8": pkcs8(scalar)}, map[string]any{"scalar": scalar})
	}
	bad := func(name string, b []byte) { f.add(name, "parse", "key", map[string]any{"pkcs8": b}, nil) }
	ok("any scalar", rk)
	ok("one", u64to32(1))
	ok("n-1", minusOne())
	order := n.FillBytes(make([]byte, 32))
	bad("zero", pkcs8(make([]byte, 32)))
	bad("n", pkcs8(order))
	bad("n+1", pkcs8(append(slices.Clone(order[:31]), order[31]+1)))
	bad("2^256-1", pkcs8(bytes.Repeat([]byte{255}, 32)))
	bad("nothing", nil)
	bad("cut by one byte", der[:66])
	bad("one byte more", append(slices.Clone(der), 0))
	bad("the scalar alone", rk)
	bad("bare ECPrivateKey", der[28:])
	bad("curve secp256k1", slices.Concat(unhex("303e020100301006072a8648ce3d020106052b8104000a042730250201010420"), rk))
	bad("curve P-384, 48-byte scalar", slices.Concat(unhex("304e020100301006072a8648ce3d020106052b81040022043730350201010430"), make([]byte, 16), rk))
	bad("curve P-384 by name only", slices.Concat(unhex("303e020100301006072a8648ce3d020106052b81040022042730250201010420"), rk))
	bad("version 1", slices.Concat(der[:4], []byte{1}, der[5:]))
	bad("ECPrivateKey version 2", slices.Concat(der[:32], []byte{2}, der[33:]))
	bad("BER long length", slices.Concat([]byte{0x30, 0x81, 0x41}, der[2:]))
	bad("31-byte scalar", slices.Concat(unhex("3040020100301306072a8648ce3d020106082a8648ce3d03010704263024020101041f"), rk[1:]))
	public := basePoint(rk)
	bad("with the public key", slices.Concat(unhex("308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420"), rk, unhex("a144034200"), public))
	return f
}

func sealIn(s slot, version uint64, value, random []byte) map[string]any {
	return with(slotIn(ownerRoot, s), "version", version, "value", value, "random", random)
}

func sealOut(it *item) map[string]any {
	return map[string]any{"leaf": it.leaf(), "ciphertext": it.ciphertext}
}

// openIn is an opening by the owner's key of a slot.
func openIn(s slot, leaf, ciphertext []byte) map[string]any {
	return with(slotIn(ownerRoot, s), "leaf", leaf, "ciphertext", ciphertext)
}

var sealRandom = fixed("item randomness", 112)

func theItem() item {
	return sealItem(fieldScalar(ownerRoot, mobile), mobile, 4, theValue, sealRandom, nil)
}

func itemFile() File {
	f := File{Name: "item.json",
		What:      "Items: value, padding, ciphertext. AES-256-GCM under the DEK, nonce of 12 zero bytes, associated data item(owner, field, version). The padded value is u32 length || value || zeroes up to the Padme size.",
		Implement: "seal: randomness is DEK (32), r (48), s (32), in this order. open: check slot, SHA-256 of the ciphertext, capsule, commitment, tag and padding; every failure is the same refusal."}
	a := fieldScalar(ownerRoot, mobile)
	for name, value := range map[string][]byte{"a telephone number": theValue, "nothing": {}, "one byte": {0}, "text in several scripts": []byte("Zoë Müller, 東京都, العنوان"), "1,000 bytes": fixed("1000", 1000)} {
		it := sealItem(a, mobile, 4, value, fixed("item "+name, 112), nil)
		f.add("seal, "+name, "seal", "ok", sealIn(mobile, 4, value, fixed("item "+name, 112)),
			with(sealOut(&it), "dek", it.dek, "padded", it.padded, "aad", it.aad, "commitment", it.commitment, "ciphertext_hash", it.ciphertextHash))
	}
	sortTail(f.Cases, "seal, ")
	f.add("seal, version 0", "seal", "malformed", sealIn(mobile, 0, theValue, sealRandom), nil)
	it := theItem()
	open := func(name, expect string, leaf, ct []byte) {
		f.add("open, "+name, "open", expect, openIn(mobile, leaf, ct), nil)
	}
	f.add("open", "open", "ok", openIn(mobile, it.leaf(), it.ciphertext), map[string]any{"value": theValue})
	open("flipped bit in the ciphertext", "open", it.leaf(), flip(it.ciphertext, 5))
	rehashed := it
	rehashed.ciphertext = flip(it.ciphertext, 5)
	rehash(&rehashed)
	open("flipped bit in the ciphertext, hash of the leaf recomputed", "open", rehashed.leaf(), rehashed.ciphertext)
	rehashed.ciphertext = flip(it.ciphertext, -1)
	rehash(&rehashed)
	open("flipped bit in the tag, hash of the leaf recomputed", "open", rehashed.leaf(), rehashed.ciphertext)
	rehashed.ciphertext = nil
	rehash(&rehashed)
	open("no ciphertext", "open", rehashed.leaf(), nil)
	hash := it
	hash.ciphertextHash = flip(it.ciphertextHash, 31)
	open("another hash in the leaf: everything else would open", "open", hash.leaf(), it.ciphertext)
	stranger := mobile
	stranger.owner = flip(ownerID, 0)
	theirs := sealItem(a, stranger, 4, theValue, sealRandom, nil) // a does not depend on the owner's id
	open("sealed under the same root for another owner", "open", theirs.leaf(), theirs.ciphertext)
	commit := it
	commit.commitment = flip(it.commitment, 0)
	open("another commitment: GCM alone would open", "open", commit.leaf(), it.ciphertext)
	for name, plain := range map[string][]byte{
		"padding not zero":                     append(padded(make([]byte, 30))[:35], 1),
		"one zero too many":                    append(padded(theValue), 0),
		"not padded":                           append([]byte{0, 0, 0, 200}, make([]byte, 200)...),
		"length beyond the end":                {0, 0, 0, 9, 1, 2, 3, 4},
		"length of 2^32-1":                     {255, 255, 255, 255, 1, 2, 3, 4},
		"no room for the length":               {0, 0, 0},
		"length shorter than the padding says": append([]byte{0, 0, 0, 1}, make([]byte, 40)...),
	} {
		wrong := sealItem(a, mobile, 4, nil, sealRandom, plain)
		open("sealed with wrong padding: "+name, "open", wrong.leaf(), wrong.ciphertext)
	}
	sortTail(f.Cases, "open, sealed with wrong padding")
	return f
}

func rehash(it *item) {
	sum := sha256.Sum256(it.ciphertext)
	it.ciphertextHash = sum[:]
}

func capsuleFile() File {
	f := File{Name: "capsule.json",
		What:      "Capsules: E (33) || s (32) || W (48). Z = x(aE) = x(rA); KEK = HKDF(Z, salt s, kek(owner, field, epoch, author, version, E)); W = AES-256-GCM(KEK, nonce 0, DEK).",
		Implement: "seal as in item.json, with every step. author-seal: with A instead of a. open: refuse whatever differs in one bit, in slot or version, and every E that is not a compressed point."}
	it := theItem()
	steps := map[string]any{"r": it.r, "E": it.e, "s": it.salt, "Z": it.z, "kek_info": it.kekInfo, "KEK": it.kek, "W": it.w, "capsule": it.capsule(), "leaf": it.leaf(), "ciphertext": it.ciphertext}
	f.add("seal", "seal", "ok", sealIn(mobile, 4, theValue, sealRandom), steps)
	source := slot{ownerID, sourceID, "salary", 1}
	sa := fieldScalar(ownerRoot, source)
	si := sealItem(sa, source, 1, theValue, sealRandom, nil)
	authorIn := with(sealIn(source, 1, theValue, sealRandom), "A", compress(basePoint(sa)))
	delete(authorIn, "root")
	f.add("sealed by an author who has only A", "author-seal", "ok", authorIn, sealOut(&si))
	f.add("A off the curve", "author-seal", "key", with(authorIn, "A", noPoint()), nil)
	f.add("A is infinity", "author-seal", "key", with(authorIn, "A", []byte{0}), nil)
	f.add("A uncompressed", "author-seal", "key", with(authorIn, "A", basePoint(sa)), nil)
	f.add("open what an author wrote", "open", "ok", openIn(source, si.leaf(), si.ciphertext), map[string]any{"value": theValue})
	f.add("open", "open", "ok", openIn(mobile, it.leaf(), it.ciphertext), map[string]any{"value": theValue})
	bad := func(name string, change func(*item)) {
		wrong := it
		change(&wrong)
		f.add("open, "+name, "open", "open", openIn(mobile, wrong.leaf(), it.ciphertext), nil)
		same := wrong.slot
		if !bytes.Equal(same.owner, mobile.owner) || !bytes.Equal(same.author, mobile.author) || same.field != mobile.field || same.epoch != mobile.epoch {
			f.add("open, "+name+", with the key of that slot", "open", "open", openIn(same, wrong.leaf(), it.ciphertext), nil)
		}
	}
	bad("another owner", func(i *item) { i.owner = flip(i.owner, 0) })
	bad("another field", func(i *item) { i.field = "phone.home" })
	bad("another epoch", func(i *item) { i.epoch++ })
	bad("another author", func(i *item) { i.author = sourceID })
	bad("another version", func(i *item) { i.version++ })
	bad("flipped bit in the x of E", func(i *item) { i.e = flip(i.e, 20) })
	bad("the other sign of E", func(i *item) { i.e = flip(i.e, 0) })
	bad("flipped bit in s", func(i *item) { i.salt = flip(i.salt, 0) })
	bad("flipped bit in W", func(i *item) { i.w = flip(i.w, 0) })
	bad("flipped bit in the tag of W", func(i *item) { i.w = flip(i.w, -1) })
	bad("E is an x without a point", func(i *item) { i.e = noPoint() })
	bad("E is infinity, in zeroes", func(i *item) { i.e = make([]byte, 33) })
	bad("E with x of p or more", func(i *item) { i.e = append([]byte{2}, bytes.Repeat([]byte{255}, 32)...) })
	bad("E with the head of an uncompressed point", func(i *item) { i.e = append([]byte{4}, i.e[1:]...) })
	bad("the capsule of another item of the slot", func(i *item) {
		other := sealItem(fieldScalar(ownerRoot, mobile), mobile, 5, theValue, fixed("other item", 112), nil)
		i.e, i.salt, i.w = other.e, other.salt, other.w
	})
	return f
}

// noPoint is a compressed encoding whose x has no point.
func noPoint() []byte {
	c := append([]byte{2}, make([]byte, 32)...)
	for uncompress(c) != nil {
		c[32]++
	}
	return c
}

func leafFile() File {
	f := File{Name: "leaf.json",
		What:      "Leaves of a manifest's tree: the pinned encoding leaf(owner, field, epoch, author, version, capsule, SHA-256 of the ciphertext, C) and its RFC 6962 leaf hash.",
		Implement: "parse: accept exactly what the encoder makes. Whether E is a point is not asked here."}
	it := theItem()
	leaf := it.leaf()
	f.add("a leaf", "parse", "ok", map[string]any{"leaf": leaf}, map[string]any{"owner": it.owner, "field": it.field, "epoch": it.epoch, "author": it.author,
		"version": it.version, "capsule": it.capsule(), "ciphertext_hash": it.ciphertextHash, "commitment": it.commitment, "leaf_hash": leafHash(leaf)})
	bad := func(name string, b []byte) { f.add(name, "parse", "malformed", map[string]any{"leaf": b}, nil) }
	parts := func(change func(p [][]byte) [][]byte) []byte {
		return encode("leaf", change([][]byte{it.owner, []byte(it.field), u64(it.epoch), it.author, u64(it.version), it.capsule(), it.ciphertextHash, it.commitment})...)
	}
	set := func(i int, v []byte) []byte { return parts(func(p [][]byte) [][]byte { p[i] = v; return p }) }
	bad("nothing", nil)
	bad("cut by one byte", leaf[:len(leaf)-1])
	bad("one byte more", append(slices.Clone(leaf), 0))
	bad("a field less", parts(func(p [][]byte) [][]byte { return p[:7] }))
	bad("a field more", parts(func(p [][]byte) [][]byte { return append(p, nil) }))
	bad("another label", encode("leav", it.owner, []byte(it.field), u64(it.epoch), it.author, u64(it.version), it.capsule(), it.ciphertextHash, it.commitment))
	bad("epoch 0", set(2, u64(0)))
	bad("version 0", set(4, u64(0)))
	bad("epoch of 4 bytes", set(2, u64(3)[4:]))
	bad("owner of 31 bytes", set(0, it.owner[1:]))
	bad("capsule of 112 bytes", set(5, it.capsule()[1:]))
	bad("no field name", set(1, nil))
	bad("field name of 65 bytes", set(1, bytes.Repeat([]byte("a"), 65)))
	bad("field name in upper case", set(1, []byte("Phone")))
	bad("field name with a zero byte", set(1, []byte("phone\x00")))
	bad("field name outside ASCII", set(1, []byte("adreß")))
	return f
}

func rotateFile() File {
	f := File{Name: "rotate.json",
		What:      "Rotation: the same DEK in a fresh capsule under the key of a later epoch. Ciphertext, hash, commitment and version stay.",
		Implement: "rotate: open W under the old key, check the commitment, seal the DEK under the key of next_epoch with randomness r (48), s (32). The new leaf opens the same ciphertext."}
	it := theItem()
	random := fixed("rotation randomness", 80)
	next := it
	next.epoch = 4
	next.encapsulate(fieldScalar(ownerRoot, next.slot), random)
	in := with(openIn(mobile, it.leaf(), it.ciphertext), "next_epoch", uint64(4), "random", random)
	f.add("to the next epoch", "rotate", "ok", in, map[string]any{"leaf": next.leaf(), "value": theValue})
	f.add("to the same epoch", "rotate", "key", with(in, "next_epoch", uint64(3)), nil)
	f.add("to an older epoch", "rotate", "key", with(in, "next_epoch", uint64(2)), nil)
	f.add("a leaf that is rotated already", "rotate", "open", with(in, "leaf", next.leaf()), nil)
	wrong := it
	wrong.commitment = flip(wrong.commitment, 0)
	f.add("a leaf with another commitment", "rotate", "open", with(in, "leaf", wrong.leaf()), nil)
	wrong = it
	wrong.w = flip(wrong.w, 3)
	f.add("a leaf with a flipped bit in W", "rotate", "open", with(in, "leaf", wrong.leaf()), nil)
	f.add("the old key does not open the new leaf", "open", "open", openIn(mobile, next.leaf(), it.ciphertext), nil)
	backdated := next
	backdated.epoch = 3
	f.add("the old key does not open the new leaf called old", "open", "open", openIn(mobile, backdated.leaf(), it.ciphertext), nil)
	return f
}

func reencryptFile() File {
	f := File{Name: "reencrypt.json",
		What:      "Re-encryption, the token's whole work, and the reader's opening: E' = x(rk E), Z = x(d lift(E')), lift(x) = the point with that x and even y (either would do).",
		Implement: "decompress: E as 04 || x || y. check-point: accept exactly what decompress gives. reencrypt: x(rk E). open: with the reader's key, the grant's ct and the token's x."}
	it := theItem()
	_, g := grantIn(mobile)
	rk, d, ct := g["rk"].([]byte), g["d"].([]byte), g["ct"].([]byte)
	x := mulX(rk, it.e)
	point := uncompress(it.e)
	f.add("decompress", "decompress", "ok", map[string]any{"capsule": it.capsule()}, map[string]any{"point": point})
	f.add("check the point", "check-point", "ok", map[string]any{"capsule": it.capsule(), "point": point}, map[string]any{})
	for _, c := range []struct {
		name string
		e    []byte
	}{{"x without a point", noPoint()}, {"infinity", make([]byte, 33)}, {"x of p or more", append([]byte{3}, bytes.Repeat([]byte{255}, 32)...)}, {"head of an uncompressed point", append([]byte{4}, it.e[1:]...)}} {
		wrong := it
		wrong.e = c.e
		f.add("decompress, "+c.name, "decompress", "point", map[string]any{"capsule": wrong.capsule()}, nil)
		f.add("reencrypt, "+c.name, "reencrypt", "point", map[string]any{"capsule": wrong.capsule(), "pkcs8": pkcs8(rk)}, nil)
	}
	negated := flip(it.e, 0)
	for _, c := range []struct {
		name  string
		point []byte
	}{{"off the curve", flip(flip(point, 63), 5)}, {"the other sign", uncompress(negated)}, {"another point", basePoint(u64to32(1))}, {"infinity", make([]byte, 65)}, {"hybrid form", append([]byte{6 | point[64]&1}, point[1:]...)}} {
		f.add("check the point, "+c.name, "check-point", "point", map[string]any{"capsule": it.capsule(), "point": c.point}, nil)
	}
	f.add("re-encrypt", "reencrypt", "ok", map[string]any{"capsule": it.capsule(), "pkcs8": pkcs8(rk)}, map[string]any{"x": x})
	other := it
	other.e = negated
	f.add("re-encrypt the other sign: the same x", "reencrypt", "ok", map[string]any{"capsule": other.capsule(), "pkcs8": pkcs8(rk)}, map[string]any{"x": x})

	in := map[string]any{"reader_root": readerRoot, "owner": ownerID, "nonce": relNonce, "ct": ct, "grant": grantID, "reader": readerID, "leaf": it.leaf(), "x": x, "ciphertext": it.ciphertext}
	f.add("open", "open", "ok", in, map[string]any{"d": d, "Z": it.z, "value": theValue})
	bad := func(name string, changes ...any) { f.add("open, "+name, "open", "open", with(in, changes...), nil) }
	leafWith := func(change func(*item)) []byte { w := it; change(&w); return w.leaf() }
	bad("another grant", "grant", flip(grantID, 0))
	bad("another reader", "reader", flip(readerID, 0))
	bad("another reader's key", "reader_root", ownerRoot)
	bad("the reader's key for another owner", "owner", flip(ownerID, 0))
	bad("the reader's key of another relationship", "nonce", flip(relNonce, 0))
	bad("flipped bit in ct", "ct", flip(ct, 100))
	bad("short ct", "ct", ct[:1119])
	bad("flipped bit in x", "x", flip(x, 31))
	bad("x of zero", "x", make([]byte, 32))
	bad("x of p or more", "x", bytes.Repeat([]byte{255}, 32))
	bad("x without a point", "x", noPoint()[1:])
	bad("x of the base point", "x", basePoint(u64to32(1))[1:33])
	bad("E itself for x", "x", it.e[1:])
	bad("owner of the leaf", "leaf", leafWith(func(i *item) { i.owner = flip(i.owner, 0) }))
	bad("field of the leaf", "leaf", leafWith(func(i *item) { i.field = "phone.home" }))
	bad("epoch of the leaf", "leaf", leafWith(func(i *item) { i.epoch++ }))
	bad("author of the leaf", "leaf", leafWith(func(i *item) { i.author = sourceID }))
	bad("version of the leaf", "leaf", leafWith(func(i *item) { i.version++ }))
	bad("sign of E", "leaf", leafWith(func(i *item) { i.e = flip(i.e, 0) }))
	bad("salt", "leaf", leafWith(func(i *item) { i.salt = flip(i.salt, 0) }))
	bad("W", "leaf", leafWith(func(i *item) { i.w = flip(i.w, 0) }))
	bad("commitment", "leaf", leafWith(func(i *item) { i.commitment = flip(i.commitment, 0) }))
	bad("ciphertext", "ciphertext", flip(it.ciphertext, 0))
	return f
}

func padmeFile() File {
	f := File{Name: "padme.json",
		What:      "Sizes: a value of length bytes, with its u32 length before it, is padded to the Padme size (PURBs, PETS 2019) and grows by the 16-byte tag.",
		Implement: "Compute padded and ciphertext sizes; above 1,048,576 bytes refuse."}
	for _, length := range []int{0, 1, 4, 5, 6, 7, 12, 13, 15, 27, 28, 29, 60, 61, 100, 124, 125, 252, 253, 1000, 4096, 65535, 65536, 1 << 19, 1<<20 - 1, 1 << 20} {
		f.add(fmt.Sprintf("%d bytes", length), "size", "ok", map[string]any{"length": length}, map[string]any{"padded": padme(4 + length), "ciphertext": padme(4+length) + 16})
	}
	for _, length := range []int{1<<20 + 1, 1 << 24} {
		f.add(fmt.Sprintf("%d bytes", length), "size", "too_large", map[string]any{"length": length}, nil)
	}
	return f
}

func merkleFile() File {
	f := File{Name: "merkle.json",
		What:      "Manifest trees: RFC 6962 section 2.1 over leaf encodings, in byte order of the field's name, one leaf a field.",
		Implement: "tree: sort the leaves by field, compute root and every inclusion proof (leaf upwards). verify: check one proof."}
	var leaves, hashes [][]byte
	for i, name := range []string{"a", "a.b", "a/b", "ab", "phone.home", "phone.mobile", "phone_mobile", "z", "z-9"} {
		s := slot{ownerID, ownerID, name, 1}
		it := sealItem(fieldScalar(ownerRoot, s), s, uint64(i+1), []byte(name), fixed("merkle "+name, 112), nil)
		leaves, hashes = append(leaves, it.leaf()), append(hashes, leafHash(it.leaf()))
	}
	for size := range len(leaves) + 1 {
		sorted := hashes[:size] // the names above are in byte order
		given := slices.Clone(leaves[:size])
		slices.Reverse(given)
		proofs := make([]any, size)
		for i := range size {
			path := []string{}
			for _, h := range auditPath(i, sorted) {
				path = append(path, text(map[string]any{"h": h})["h"].(string))
			}
			proofs[i] = path
		}
		f.add(fmt.Sprintf("%d leaves, given in reverse order", size), "tree", "ok", map[string]any{"leaves": given}, map[string]any{"root": treeHash(sorted), "proofs": proofs})
	}
	f.add("two leaves of one field", "tree", "malformed", map[string]any{"leaves": [][]byte{leaves[0], leaves[1], leaves[0]}}, nil)
	foreign := slot{sourceID, ownerID, "x", 1}
	fi := sealItem(fieldScalar(ownerRoot, foreign), foreign, 1, nil, sealRandom, nil)
	f.add("leaves of two owners", "tree", "malformed", map[string]any{"leaves": [][]byte{leaves[0], fi.leaf()}}, nil)
	foreign = slot{ownerID, sourceID, "x", 1}
	fi = sealItem(fieldScalar(ownerRoot, foreign), foreign, 1, nil, sealRandom, nil)
	f.add("leaves of two authors", "tree", "malformed", map[string]any{"leaves": [][]byte{leaves[0], fi.leaf()}}, nil)

	path := auditPath(4, hashes[:7])
	in := map[string]any{"leaf": leaves[4], "index": 4, "size": 7, "root": treeHash(hashes[:7]), "path": path}
	f.add("leaf 4 of 7", "verify", "ok", in, map[string]any{})
	bad := func(name string, changes ...any) {
		f.add("leaf 4 of 7, "+name, "verify", "proof", with(in, changes...), nil)
	}
	bad("another leaf", "leaf", leaves[5])
	bad("another index", "index", 5)
	bad("index beyond the size", "index", 7)
	bad("another size", "size", 9)
	bad("size 0", "size", 0)
	bad("another root", "root", treeHash(hashes[:6]))
	bad("path cut", "path", path[:2])
	bad("path longer", "path", append(slices.Clone(path), hashes[0]))
	bad("path in reverse", "path", [][]byte{path[2], path[1], path[0]})
	bad("flipped bit in the path", "path", [][]byte{path[0], flip(path[1], 0), path[2]})
	bad("no path", "path", [][]byte{})
	return f
}
