package pre

import (
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"

	"filippo.io/bigmod"
	"filippo.io/nistec"

	"github.com/sallyport/sallyport/vault/pre/internal/secret"
)

// scalar is an integer modulo the order n of P-256, 32 bytes big-endian, always reduced. It is secret: what is done with it takes the
// same time whatever its value, except that zero is told from non-zero, an event of probability 2^-256.
type scalar [32]byte

// The order n of P-256 (SP 800-186 section 3.2.1.3), and n-2, the exponent that inverts (Fermat; n is prime).
var (
	order         = mustModulus("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")
	orderMinusTwo = mustHex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc63254f")
	two192        = mustNat("01000000000000000000000000000000000000000000000000") // 2^192, public
)

func mustHex(digits string) []byte {
	b, err := hex.DecodeString(digits)
	if err != nil {
		panic(err)
	}
	return b
}

func mustModulus(digits string) *bigmod.Modulus {
	m, err := bigmod.NewModulus(mustHex(digits))
	if err != nil {
		panic(err)
	}
	return m
}

func mustNat(digits string) *bigmod.Nat {
	n, err := bigmod.NewNat().SetBytes(mustHex(digits), order)
	if err != nil {
		panic(err)
	}
	return n
}

// wipe overwrites a number; Bits shares its storage.
func wipe(n *bigmod.Nat) { clear(n.Bits()) }

// reduce is OS2IP(wide) mod n. Its bias is below 2^-128 (FIPS 186-5 appendix A.2.1, extra random bits). The two halves of 24 bytes are below
// n, so that each is a residue as it stands: high * 2^192 + low.
func reduce(wide *[48]byte) scalar {
	high, err := bigmod.NewNat().SetBytes(wide[:24], order)
	if err != nil {
		panic("pre: 24 bytes are below n")
	}
	low, err := bigmod.NewNat().SetBytes(wide[24:], order)
	if err != nil {
		panic("pre: 24 bytes are below n")
	}
	defer wipe(high)
	defer wipe(low)
	return fromNat(high.Mul(two192, order).Add(low, order))
}

func fromNat(n *bigmod.Nat) scalar {
	b := n.Bytes(order)
	defer clear(b)
	return scalar(b)
}

// parseScalar accepts 32 bytes in 1..n-1.
func parseScalar(b []byte) (scalar, error) {
	if len(b) != len(scalar{}) {
		return scalar{}, ErrKey
	}
	n, err := bigmod.NewNat().SetBytes(b, order)
	if err != nil {
		return scalar{}, ErrKey
	}
	defer wipe(n)
	if n.IsZero() == 1 {
		return scalar{}, ErrKey
	}
	return fromNat(n), nil
}

// deriveScalar is OS2IP(HKDF(ikm, info), 48 bytes) mod n. It may be zero, with probability 2^-256.
func deriveScalar(ikm, info []byte) scalar {
	wide := [48]byte(secret.Derive(ikm, nil, info, 48))
	defer clear(wide[:])
	return reduce(&wide)
}

// drawScalar draws 48 bytes and reduces them; zero is drawn again. A source that gives zero eight times is broken.
func drawScalar(source io.Reader) (scalar, error) {
	var wide [48]byte
	defer clear(wide[:])
	for range 8 {
		if err := secret.Draw(source, wide[:]); err != nil {
			return scalar{}, err
		}
		if s := reduce(&wide); !s.isZero() {
			return s, nil
		}
	}
	return scalar{}, fmt.Errorf("drawing a scalar: %w: the source of randomness gives only zero", ErrKey)
}

func (s *scalar) isZero() bool { return subtle.ConstantTimeCompare(s[:], make([]byte, len(s))) == 1 }

// over is s * d^-1 mod n. d must not be zero.
func (s *scalar) over(d *scalar) (scalar, error) {
	num, err := bigmod.NewNat().SetBytes(s[:], order)
	if err != nil {
		return scalar{}, ErrKey
	}
	den, err := bigmod.NewNat().SetBytes(d[:], order)
	if err != nil {
		return scalar{}, ErrKey
	}
	defer wipe(num)
	defer wipe(den)
	if den.IsZero() == 1 {
		return scalar{}, ErrKey
	}
	inverse := bigmod.NewNat().Exp(den, orderMinusTwo, order)
	defer wipe(inverse)
	return fromNat(num.Mul(inverse, order)), nil
}

// x is x(sP). It fails only if sP is infinity, that is if s is zero or P is infinity.
func (s *scalar) x(p *nistec.P256Point) ([32]byte, error) {
	product, err := nistec.NewP256Point().ScalarMult(p, s[:])
	if err != nil {
		return [32]byte{}, ErrKey
	}
	b, err := product.BytesX()
	if err != nil {
		return [32]byte{}, ErrKey
	}
	defer clear(b)
	return [32]byte(b), nil
}

// base is sG, compressed. It fails only if s is zero.
func (s *scalar) base() ([33]byte, error) {
	p, err := nistec.NewP256Point().ScalarBaseMult(s[:])
	if err != nil || s.isZero() {
		return [33]byte{}, ErrKey
	}
	b := p.BytesCompressed()
	defer clear(b)
	return [33]byte(b), nil
}
