package pre

import (
	"crypto/subtle"

	"filippo.io/nistec"

	"github.com/sallyport/sallyport/policies"
)

// compressed reads a compressed point (SEC 1 section 2.3.4): 33 bytes beginning with 2 or 3. Infinity, whose encoding is one zero
// byte, cannot be spelt in it. nistec refuses an x of p or more and an x without a point.
func compressed(b []byte) (*nistec.P256Point, error) {
	if len(b) != 33 || b[0] != 2 && b[0] != 3 {
		return nil, ErrPoint
	}
	p, err := nistec.NewP256Point().SetBytes(b)
	if err != nil {
		return nil, ErrPoint
	}
	return p, nil
}

// lift gives a point whose x-coordinate is x, the one with even y. The sign does not matter: only x of its multiples is used.
func lift(x *[32]byte) (*nistec.P256Point, error) {
	var b [33]byte
	defer clear(b[:])
	b[0] = 2
	copy(b[1:], x[:])
	return compressed(b[:])
}

// Decompress is the point E of a capsule as a token takes it: 04 || x || y. It costs a square root, so a vault may keep
// the result beside the leaf and use [CheckPoint] later.
func Decompress(c *policies.Capsule) ([65]byte, error) {
	p, err := compressed(c.E())
	if err != nil {
		return [65]byte{}, err
	}
	return [65]byte(p.Bytes()), nil
}

// CheckPoint refuses an uncompressed point that is not on the curve or is not E of the capsule. It costs no square root: the curve
// equation, the x-coordinate and the parity of y. What it accepts is what [Decompress] returns.
func CheckPoint(point *[65]byte, c *policies.Capsule) error {
	if point[0] != 4 {
		return ErrPoint
	}
	if _, err := nistec.NewP256Point().SetBytes(point[:]); err != nil {
		return ErrPoint
	}
	e := c.E()
	if e[0] != 2|point[64]&1 || subtle.ConstantTimeCompare(e[1:], point[1:33]) != 1 {
		return ErrPoint
	}
	return nil
}
