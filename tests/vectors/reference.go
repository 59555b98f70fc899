package vectors

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"

	"github.com/cloudflare/circl/hpke"
	"github.com/cloudflare/circl/kem/xwing"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

// This file is the scheme written a second time, straight from the design and as plainly as it can be: variable-time math/big, crypto/ecdh,
// hand-made HKDF. It makes the vectors and nothing else; package pre is then checked against them. Errors cannot happen on
// the fixed inputs it is given, so it panics.

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// fixed is n bytes that depend on a name and nothing else: SHA-256(name || u32 counter), counter from 0, cut to n.
func fixed(name string, n int) []byte {
	var out []byte
	for i := uint32(0); len(out) < n; i++ {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte(name), i))
		out = append(out, sum[:]...)
	}
	return out[:n]
}

func unhex(s string) []byte { return must(hex.DecodeString(s)) }

func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// encode is label "sallyport/v1/<use>" and fields, each u16 length || bytes.
func encode(use string, fields ...[]byte) []byte {
	var out []byte
	for _, f := range append([][]byte{[]byte("sallyport/v1/" + use)}, fields...) {
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(f))), f...)
	}
	return out
}

func mac(key []byte, parts ...[]byte) []byte {
	m := hmac.New(sha256.New, key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

// hkdf is RFC 5869 section 2 with SHA-256.
func hkdf(ikm, salt, info []byte, size int) []byte {
	if salt == nil {
		salt = make([]byte, 32)
	}
	prk := mac(salt, ikm)
	var out, t []byte
	for i := byte(1); len(out) < size; i++ {
		t = mac(prk, t, info, []byte{i})
		out = append(out, t...)
	}
	return out[:size]
}

var n = new(big.Int).SetBytes(unhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"))

func modN(wide []byte) []byte {
	return new(big.Int).Mod(new(big.Int).SetBytes(wide), n).FillBytes(make([]byte, 32))
}

func divide(a, d []byte) []byte {
	inverse := new(big.Int).ModInverse(new(big.Int).SetBytes(d), n)
	inverse.Mul(inverse, new(big.Int).SetBytes(a))
	return inverse.Mod(inverse, n).FillBytes(make([]byte, 32))
}

func compress(uncompressed []byte) []byte {
	return append([]byte{2 | uncompressed[64]&1}, uncompressed[1:33]...)
}

// uncompress solves y^2 = x^3 - 3x + b.
func uncompress(c []byte) []byte {
	p := new(big.Int).SetBytes(unhex("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"))
	b := new(big.Int).SetBytes(unhex("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b"))
	x := new(big.Int).SetBytes(c[1:])
	y := new(big.Int).Exp(x, big.NewInt(3), p)
	y.Sub(y, new(big.Int).Mul(x, big.NewInt(3))).Add(y, b).Mod(y, p)
	if y.ModSqrt(y, p) == nil || x.Cmp(p) >= 0 {
		return nil
	}
	if byte(y.Bit(0)) != c[0]&1 {
		y.Sub(p, y)
	}
	return slices.Concat([]byte{4}, c[1:], y.FillBytes(make([]byte, 32)))
}

func basePoint(scalar []byte) []byte {
	return must(ecdh.P256().NewPrivateKey(scalar)).PublicKey().Bytes()
}

// mulX is x(scalar * point), the point compressed.
func mulX(scalar, point []byte) []byte {
	return must(must(ecdh.P256().NewPrivateKey(scalar)).ECDH(must(ecdh.P256().NewPublicKey(uncompress(point)))))
}

func sealGCM(key, nonce, plaintext, aad []byte) []byte {
	return must(cipher.NewGCM(must(aes.NewCipher(key)))).Seal(nil, nonce, plaintext, aad)
}

// padme is the paper's algorithm.
func padme(length int) int {
	log2 := func(v int) (e int) {
		for v >>= 1; v > 0; v >>= 1 {
			e++
		}
		return e
	}
	e := log2(length)
	s := log2(e) + 1
	unit := 1 << (e - s)
	return (length + unit - 1) / unit * unit
}

func padded(value []byte) []byte {
	out := make([]byte, padme(4+len(value)))
	binary.BigEndian.PutUint32(out, uint32(len(value)))
	copy(out[4:], value)
	return out
}

// slot, item: as in package policies, in bytes.
type slot struct {
	owner, author []byte
	field         string
	epoch         uint64
}

type item struct {
	slot
	version                                                    uint64
	dek, r, salt, e, z, kekInfo, kek, w                        []byte
	value, padded, aad, ciphertext, ciphertextHash, commitment []byte
}

func fieldOKM(root []byte, s slot) []byte {
	return hkdf(root, nil, encode("field", []byte(s.field), u64(s.epoch), s.author), 48)
}

func fieldScalar(root []byte, s slot) []byte { return modN(fieldOKM(root, s)) }

// sealItem makes every step of an item visible. random is DEK (32), r (48), s (32); plain overrides the padded value where a case wants
// it wrong.
func sealItem(a []byte, s slot, version uint64, value, random, plain []byte) item {
	it := item{slot: s, version: version, value: value, dek: random[:32], padded: plain}
	if plain == nil {
		it.padded = padded(value)
	}
	it.aad = encode("item", s.owner, []byte(s.field), u64(version))
	it.ciphertext = sealGCM(it.dek, make([]byte, 12), it.padded, it.aad)
	sum := sha256.Sum256(it.ciphertext)
	it.ciphertextHash, it.commitment = sum[:], hkdf(it.dek, nil, encode("commit"), 32)
	it.encapsulate(a, random[32:])
	return it
}

func (it *item) encapsulate(a, random []byte) {
	it.r, it.salt = modN(random[:48]), random[48:80]
	it.e = compress(basePoint(it.r))
	it.z = mulX(a, it.e)
	it.kekInfo = encode("kek", it.owner, []byte(it.field), u64(it.epoch), it.author, u64(it.version), it.e)
	it.kek = hkdf(it.z, it.salt, it.kekInfo, 32)
	it.w = sealGCM(it.kek, make([]byte, 12), it.dek, nil)
}

func (it *item) capsule() []byte { return slices.Concat(it.e, it.salt, it.w) }

func (it *item) leaf() []byte {
	return encode("leaf", it.owner, []byte(it.field), u64(it.epoch), it.author, u64(it.version), it.capsule(), it.ciphertextHash, it.commitment)
}

func grantScalarOKM(ss, grant, reader []byte, s slot) []byte {
	return hkdf(ss, nil, encode("grant", grant, s.owner, reader, []byte(s.field), u64(s.epoch), s.author), 48)
}

func pkcs8(scalar []byte) []byte {
	return append(unhex("3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420"), scalar...)
}

func xwingPublic(seed []byte) []byte {
	_, public := xwing.DeriveKeyPairPacked(seed)
	return public
}

func xwingEncapsulate(public, coins []byte) (ct, ss []byte) {
	ss, ct, err := xwing.Encapsulate(public, coins)
	if err != nil {
		panic(err)
	}
	return ct, ss
}

// sealHPKE is CIRCL's HPKE with the KEM's randomness given: 64 bytes.
func sealHPKE(public, info, plaintext, coins []byte) []byte {
	suite := hpke.NewSuite(hpke.KEM_XWING, hpke.KDF_HKDF_SHA256, hpke.AEAD_AES256GCM)
	sender := must(suite.NewSender(must(hpke.KEM_XWING.Scheme().UnmarshalBinaryPublicKey(public)), info))
	enc, sealer, err := sender.Setup(bytes.NewReader(coins))
	if err != nil {
		panic(err)
	}
	return append(enc, must(sealer.Seal(plaintext, nil))...)
}

// Merkle trees of RFC 6962 section 2.1.
func leafHash(data []byte) []byte {
	sum := sha256.Sum256(append([]byte{0}, data...))
	return sum[:]
}

func treeHash(leaves [][]byte) []byte {
	switch len(leaves) {
	case 0:
		sum := sha256.Sum256(nil)
		return sum[:]
	case 1:
		return leaves[0]
	}
	k := split(len(leaves))
	sum := sha256.Sum256(slices.Concat([]byte{1}, treeHash(leaves[:k]), treeHash(leaves[k:])))
	return sum[:]
}

func auditPath(m int, leaves [][]byte) [][]byte {
	if len(leaves) <= 1 {
		return nil
	}
	if k := split(len(leaves)); m < k {
		return append(auditPath(m, leaves[:k]), treeHash(leaves[k:]))
	} else {
		return append(auditPath(m-k, leaves[k:]), treeHash(leaves[:k]))
	}
}

// split is the largest power of two below v.
func split(v int) int {
	k := 1
	for k*2 < v {
		k *= 2
	}
	return k
}

// signer signs documents with the composite, deterministically (FIPS 204 section 3.4 allows it; real signatures are hedged).
type signer struct {
	seed  []byte
	mldsa *mldsa65.PrivateKey
	ed    ed25519.PrivateKey
	pub   []byte
}

func newSigner(name string) *signer {
	s := &signer{seed: fixed(name, 64)}
	pub, private := mldsa65.NewKeyFromSeed((*[32]byte)(s.seed[:32]))
	s.mldsa, s.ed = private, ed25519.NewKeyFromSeed(s.seed[32:])
	s.pub = append(pub.Bytes(), s.ed.Public().(ed25519.PublicKey)...)
	return s
}

const compositeLabel = "COMPSIG-MLDSA65-Ed25519-SHA512"

// representative is M' of draft-ietf-lamps-pq-composite-sigs.
func representative(context string, message []byte) []byte {
	digest := sha512.Sum512(message)
	return slices.Concat([]byte("CompositeAlgorithmSignatures2025"+compositeLabel), []byte{byte(len(context))}, []byte(context), digest[:])
}

func (s *signer) mldsaSign(message, context []byte) []byte {
	sig := make([]byte, mldsa65.SignatureSize)
	if err := mldsa65.SignTo(s.mldsa, message, context, false, sig); err != nil {
		panic(err)
	}
	return sig
}

func (s *signer) sign(context string, message []byte) []byte {
	m := representative(context, message)
	return append(s.mldsaSign(m, []byte(compositeLabel)), ed25519.Sign(s.ed, m)...)
}

// pae is DSSE's pre-authentication encoding.
func pae(docType string, payload []byte) []byte {
	t := "application/vnd.sallyport." + docType + ".v1+json"
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(t), t, len(payload), payload)
}

func paeHash(docType string, payload []byte) []byte {
	sum := sha256.Sum256(pae(docType, payload))
	return sum[:]
}

func envelopeText(docType string, payload, sig []byte) string {
	b64 := base64.StdEncoding.EncodeToString
	return `{"payloadType":"application/vnd.sallyport.` + docType + `.v1+json","payload":"` + b64(payload) + `","signatures":[{"keyid":"hint","sig":"` + b64(sig) + `"}]}`
}

func (s *signer) envelope(docType string, payload []byte) string {
	return envelopeText(docType, payload, s.sign("sallyport/v1/"+docType, pae(docType, payload)))
}
