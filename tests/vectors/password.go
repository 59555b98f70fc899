package vectors

import (
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"math/big"
	"strings"

	"golang.org/x/crypto/argon2"
)

// expandMessage is expand_message_xmd with SHA-256, RFC 9380 section 5.3.1.
func expandMessage(message, domain []byte, size int) []byte {
	tail := append(append([]byte(nil), domain...), byte(len(domain)))
	sum := func(parts ...[]byte) []byte {
		h := sha256.New()
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	b0 := sum(make([]byte, 64), message, []byte{byte(size >> 8), byte(size), 0}, tail)
	b := sum(b0, []byte{1}, tail)
	out := b
	for i := byte(2); len(out) < size; i++ {
		x := make([]byte, 32)
		for j := range x {
			x[j] = b0[j] ^ b[j]
		}
		b = sum(x, []byte{i}, tail)
		out = append(out, b...)
	}
	return out[:size]
}

// hashToCurve is P256_XMD:SHA-256_SSWU_RO_ of RFC 9380, uncompressed, by the formulas of section 6.6.2 in math/big.
func hashToCurve(message, domain []byte) []byte {
	curve := elliptic.P256().Params()
	p, a, b, z := curve.P, new(big.Int).Sub(curve.P, big.NewInt(3)), curve.B, new(big.Int).Sub(curve.P, big.NewInt(10))
	mod := func(x *big.Int) *big.Int { return x.Mod(x, p) }
	mul := func(x, y *big.Int) *big.Int { return mod(new(big.Int).Mul(x, y)) }
	add := func(x, y *big.Int) *big.Int { return mod(new(big.Int).Add(x, y)) }
	neg := func(x *big.Int) *big.Int { return mod(new(big.Int).Neg(x)) }
	inv := func(x *big.Int) *big.Int { return new(big.Int).Exp(x, new(big.Int).Sub(p, big.NewInt(2)), p) }
	g := func(x *big.Int) *big.Int { return add(add(mul(mul(x, x), x), mul(a, x)), b) }
	point := func(wide []byte) (x, y *big.Int) {
		u := mod(new(big.Int).SetBytes(wide))
		zu2 := mul(z, mul(u, u))
		tv1 := inv(add(mul(zu2, zu2), zu2))
		x = mul(mul(neg(b), inv(a)), add(big.NewInt(1), tv1))
		if tv1.Sign() == 0 {
			x = mul(b, inv(mul(z, a)))
		}
		if y = new(big.Int).ModSqrt(g(x), p); y == nil {
			x = mul(zu2, x)
			y = new(big.Int).ModSqrt(g(x), p)
		}
		if y.Bit(0) != u.Bit(0) {
			y = neg(y)
		}
		return x, y
	}
	wide := expandMessage(message, domain, 96)
	x1, y1 := point(wide[:48])
	x2, y2 := point(wide[48:])
	slope := mul(add(y2, neg(y1)), inv(add(x2, neg(x1)))) // of two points that hashes gave, which are never the same
	x := add(mul(slope, slope), neg(add(x1, x2)))
	y := add(mul(slope, add(x1, neg(x))), neg(y1))
	return append(append([]byte{4}, x.FillBytes(make([]byte, 32))...), y.FillBytes(make([]byte, 32))...)
}

func lifted(x []byte) []byte { return append([]byte{2}, x...) }

// passwordKeys goes the whole way with a password; the server's scalar is k.
func passwordKeys(account, text, random, k, salt []byte) map[string]any {
	point := compress(hashToCurve(encode("password-point", account, text), []byte("sallyport/v1/password-point")))
	r := modN(random)
	blinded := mulX(r, point)
	answer := mulX(k, lifted(blinded))
	output := mulX(divide(u64to32(1), r), lifted(answer))
	soft := hkdf(output, nil, encode("password-output", account, text), 32)
	hard := argon2.IDKey(soft, salt, 3, 64<<10, 4, 32)
	proof := hkdf(hard, nil, encode("password-proof", account), 32)
	verifier := sha256.Sum256(encode("password-verifier", account, proof))
	return map[string]any{
		"point": point, "blinded": blinded, "answer": answer, "output": output, "soft": soft, "hard": hard,
		"key": hkdf(hard, nil, encode("password-key", account), 32), "proof": proof, "verifier": verifier[:],
	}
}

// kitText writes a kit as it stands on the sheet.
func kitText(kit []byte) string {
	letters := base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)
	sum := sha256.Sum256(encode("kit-check", kit))
	text := letters.EncodeToString(kit) + letters.EncodeToString(sum[:])[:4]
	var groups []string
	for i := 0; i < len(text); i += 4 {
		groups = append(groups, text[i:i+4])
	}
	return strings.Join(groups, "-")
}

func passwordFile() File {
	f := File{Name: "password.json",
		What:      "Passwords and recovery sheets at a key server: the oblivious function by x-coordinates, Argon2id behind it, and what opens and proves.",
		Implement: "password: from account, password and random (r) blinded; from blinded and k the server's answer; from answer and salt proof, verifier and wrapped (nonce, secret). answer: the same with a given answer, which may be none. kit: the sheet's code, and its proof, verifier and wrapped. curve: hash_to_curve with the domain given, RFC 9380 appendix J.1.1.",
	}
	for _, v := range []string{"", "abc", "abcdef0123456789", "q128_" + strings.Repeat("q", 128)} {
		domain := []byte("QUUX-V01-CS02-with-P256_XMD:SHA-256_SSWU_RO_")
		f.add(fmt.Sprintf("hash_to_curve of RFC 9380, message of %d bytes", len(v)), "curve", "ok", map[string]any{"message": []byte(v), "domain": domain}, map[string]any{"point": hashToCurve([]byte(v), domain)})
	}
	secret, nonce := fixed("profile key", 32), fixed("wrapping nonce", 12)
	wrapped := func(account, key []byte) []byte {
		return append(append([]byte(nil), nonce...), sealGCM(key, nonce, secret, encode("password-wrapped", account))...)
	}
	k := modN(fixed("key server's scalar", 48))
	for _, c := range []struct {
		description string
		account     []byte
		text        string
		random      []byte
	}{
		{"a password", ownerID, "correct horse battery staple", fixed("blinding 1", 48)},
		{"the same, blinded otherwise: the same proof", ownerID, "correct horse battery staple", fixed("blinding 2", 48)},
		{"one letter less", ownerID, "correct horse battery stapl", fixed("blinding 1", 48)},
		{"another account", readerID, "correct horse battery staple", fixed("blinding 1", 48)},
		{"bytes beyond ASCII", ownerID, "пароль ключ 🔑", fixed("blinding 3", 48)},
		{"one byte", ownerID, "x", fixed("blinding 4", 48)},
	} {
		salt := fixed("password salt", 16)
		out := passwordKeys(c.account, []byte(c.text), c.random, k, salt)
		out["wrapped"] = wrapped(c.account, out["key"].([]byte))
		f.add(c.description, "password", "ok", map[string]any{"account": c.account, "password": []byte(c.text), "random": c.random, "k": k, "salt": salt, "secret": secret, "nonce": nonce}, out)
	}
	in := map[string]any{"account": ownerID, "password": []byte("correct horse battery staple"), "random": fixed("blinding 1", 48), "salt": fixed("password salt", 16)}
	f.add("an answer that is no point", "answer", "point", with(in, "answer", u64to32(1)), nil)
	f.add("an answer of p or more", "answer", "point", with(in, "answer", unhex(strings.Repeat("ff", 32))), nil)
	f.add("an empty password", "answer", "malformed", with(in, "answer", u64to32(5), "password", []byte{}), nil)
	f.add("a password of 1,025 bytes", "answer", "malformed", with(in, "answer", u64to32(5), "password", fixed("long", 1025)), nil)

	kit := fixed("recovery kit", 20)
	key, proof := hkdf(kit, nil, encode("kit-key", ownerID), 32), hkdf(kit, nil, encode("kit-proof", ownerID), 32)
	verifier := sha256.Sum256(encode("password-verifier", ownerID, proof))
	sheet := map[string]any{"account": ownerID, "text": kitText(kit), "secret": secret, "nonce": nonce}
	out := map[string]any{"text": kitText(kit), "proof": proof, "verifier": verifier[:], "wrapped": wrapped(ownerID, key)}
	f.add("a recovery sheet", "kit", "ok", sheet, out)
	f.add("typed in small letters without hyphens", "kit", "ok", with(sheet, "text", strings.ToLower(strings.ReplaceAll(kitText(kit), "-", ""))), out)
	f.add("O for 0, I and L for 1", "kit", "ok", with(sheet, "text", strings.NewReplacer("0", "O", "1", "l").Replace(kitText(make([]byte, 20)))),
		func() map[string]any {
			zero := make([]byte, 20)
			p := hkdf(zero, nil, encode("kit-proof", ownerID), 32)
			v := sha256.Sum256(encode("password-verifier", ownerID, p))
			return map[string]any{"text": kitText(zero), "proof": p, "verifier": v[:], "wrapped": wrapped(ownerID, hkdf(zero, nil, encode("kit-key", ownerID), 32))}
		}())
	swapped := []byte(kitText(kit))
	swapped[1], swapped[2] = swapped[2], swapped[1]
	f.add("two letters swapped", "kit", "malformed", with(sheet, "text", string(swapped)), nil)
	f.add("a letter short", "kit", "malformed", with(sheet, "text", kitText(kit)[1:]), nil)
	f.add("another character", "kit", "malformed", with(sheet, "text", "*"+kitText(kit)[1:]), nil)
	return f
}
