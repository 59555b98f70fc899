package password

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"io"

	"filippo.io/bigmod"
	"filippo.io/nistec"

	"github.com/sallyport/sallyport/vault/pre/internal/secret"
)

// number is an integer modulo a prime, 32 bytes big-endian, always reduced. It may be secret: what is done with it takes the same time whatever
// its value.
type number [32]byte

// field is arithmetic modulo one of the two primes of P-256.
type field struct {
	modulus  *bigmod.Modulus
	minusTwo []byte // the exponent that inverts (Fermat)
	two192   number
}

// The prime p that coordinates are taken modulo, and the order n of the group (SP 800-186 section 3.2.1.3).
var (
	coordinates = newField("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff", "ffffffff00000001000000000000000000000000fffffffffffffffffffffffd")
	scalars     = newField("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc63254f")
)

// What RFC 9380 section 8.2 says of P-256: y^2 = x^3 + Ax + B, Z = -10; and (p+1)/4, the exponent of a square root, as p is 3 modulo 4.
var (
	curveA = coordinates.negate(small(3))
	curveB = number(unhex("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b"))
	curveZ = coordinates.negate(small(10))
	root   = unhex("3fffffffc0000000400000000000000000000000400000000000000000000000")
)

func small(n byte) (out number) {
	out[31] = n
	return out
}

func unhex(digits string) []byte {
	b, err := hex.DecodeString(digits)
	if err != nil {
		panic(err)
	}
	return b
}

func newField(modulus, minusTwo string) *field {
	m, err := bigmod.NewModulus(unhex(modulus))
	if err != nil {
		panic(err)
	}
	f := &field{modulus: m, minusTwo: unhex(minusTwo)}
	f.two192[7] = 1
	return f
}

// nat is a number for bigmod. A number is always reduced, so it cannot fail.
func (f *field) nat(a number) *bigmod.Nat {
	n, err := bigmod.NewNat().SetBytes(a[:], f.modulus)
	if err != nil {
		panic("password: a number is not reduced")
	}
	return n
}

// out takes a result and overwrites it; Bits shares its storage.
func (f *field) out(n *bigmod.Nat) number {
	b := n.Bytes(f.modulus)
	defer clear(b)
	defer clear(n.Bits())
	return number(b)
}

func (f *field) add(a, b number) number { return f.out(f.nat(a).Add(f.nat(b), f.modulus)) }

func (f *field) multiply(a, b number) number { return f.out(f.nat(a).Mul(f.nat(b), f.modulus)) }

func (f *field) negate(a number) number { return f.out(f.nat(number{}).Sub(f.nat(a), f.modulus)) }

// power is a^e for an exponent that is public.
func (f *field) power(a number, e []byte) number {
	return f.out(bigmod.NewNat().Exp(f.nat(a), e, f.modulus))
}

// invert is 1/a, and 0 of 0 (inv0 of RFC 9380 section 4).
func (f *field) invert(a number) number { return f.power(a, f.minusTwo) }

// reduce is OS2IP(wide) modulo the prime. The halves of 24 bytes are below it, so each is a residue as it stands.
func (f *field) reduce(wide []byte) number {
	var high, low number
	copy(high[8:], wide[:24])
	copy(low[8:], wide[24:48])
	return f.add(f.multiply(high, f.two192), low)
}

// choose is b if on is 1 and a if it is 0.
func choose(on int, a, b number) number {
	subtle.ConstantTimeCopy(on, a[:], b[:])
	return a
}

func same(a, b number) int { return subtle.ConstantTimeCompare(a[:], b[:]) }

// expand is expand_message_xmd with SHA-256 (RFC 9380 section 5.3.1), for up to 255 blocks and a domain of up to 255 bytes.
func expand(message, domain []byte, size int) []byte {
	blocks := (size + sha256.Size - 1) / sha256.Size
	if blocks > 255 || len(domain) > 255 {
		panic("password: more than expand_message_xmd gives")
	}
	suffix := append(append([]byte(nil), domain...), byte(len(domain)))
	h := sha256.New()
	h.Write(make([]byte, h.BlockSize()))
	h.Write(message)
	h.Write([]byte{byte(size >> 8), byte(size), 0})
	h.Write(suffix)
	first := h.Sum(nil)
	var out []byte
	block := make([]byte, sha256.Size)
	for i := 1; i <= blocks; i++ {
		subtle.XORBytes(block, block, first)
		h.Reset()
		h.Write(block)
		h.Write([]byte{byte(i)})
		h.Write(suffix)
		block = h.Sum(nil)
		out = append(out, block...)
	}
	return out[:size]
}

// swu is the simplified Shallue-van de Woestijne-Ulas map of RFC 9380 section 6.6.2: a point of the curve for any number.
func swu(u number) *nistec.P256Point {
	f := coordinates
	square := func(a number) number { return f.multiply(a, a) }
	g := func(x number) number { // x^3 + Ax + B
		return f.add(f.multiply(f.add(square(x), curveA), x), curveB)
	}
	zu2 := f.multiply(curveZ, square(u))
	t := f.add(square(zu2), zu2)
	// x1 = -B/A (1 + 1/t), or B/(ZA) where t is 0.
	x1 := f.multiply(f.multiply(f.negate(curveB), f.invert(curveA)), f.add(small(1), f.invert(t)))
	x1 = choose(same(t, number{}), x1, f.multiply(curveB, f.invert(f.multiply(curveZ, curveA))))
	x2 := f.multiply(zu2, x1)
	g1, g2 := g(x1), g(x2)
	y1, y2 := f.power(g1, root), f.power(g2, root)
	first := same(square(y1), g1)
	x, y := choose(first, x2, x1), choose(first, y2, y1)
	y = choose(int((u[31]^y[31])&1), y, f.negate(y)) // the sign of u
	b := append(append([]byte{4}, x[:]...), y[:]...)
	defer clear(b)
	p, err := nistec.NewP256Point().SetBytes(b)
	if err != nil {
		panic("password: the map left the curve")
	}
	return p
}

// hash is P256_XMD:SHA-256_SSWU_RO_ of RFC 9380 section 8.2.
func hash(message, domain []byte) *nistec.P256Point {
	wide := expand(message, domain, 96)
	defer clear(wide)
	a, b := swu(coordinates.reduce(wide[:48])), swu(coordinates.reduce(wide[48:]))
	return a.Add(a, b)
}

// draw is a random scalar that is not zero: 48 bytes, reduced. Zero, of probability 2^-256, is refused by times.
func draw(source io.Reader) (number, error) {
	var wide [48]byte
	defer clear(wide[:])
	if err := secret.Draw(source, wide[:]); err != nil {
		return number{}, err
	}
	return scalars.reduce(wide[:]), nil
}

// times is x(kP). It fails only if kP is infinity.
func times(k number, p *nistec.P256Point) ([32]byte, error) {
	product, err := nistec.NewP256Point().ScalarMult(p, k[:])
	if err != nil {
		return [32]byte{}, ErrPoint
	}
	b, err := product.BytesX()
	if err != nil {
		return [32]byte{}, ErrPoint
	}
	defer clear(b)
	return [32]byte(b), nil
}

// lift is the point with even y whose x-coordinate is x.
func lift(x *[32]byte) (*nistec.P256Point, error) {
	var b [33]byte
	defer clear(b[:])
	b[0] = 2
	copy(b[1:], x[:])
	p, err := nistec.NewP256Point().SetBytes(b[:])
	if err != nil {
		return nil, ErrPoint
	}
	return p, nil
}
