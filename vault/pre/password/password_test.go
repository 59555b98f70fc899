package password

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"filippo.io/nistec"

	"github.com/sallyport/sallyport/policies"
)

// TestHashToCurve: the vectors of RFC 9380 appendix J.1.1.
func TestHashToCurve(t *testing.T) {
	for _, v := range []struct{ message, x, y string }{
		{"", "2c15230b26dbc6fc9a37051158c95b79656e17a1a920b11394ca91c44247d3e4", "8a7a74985cc5c776cdfe4b1f19884970453912e9d31528c060be9ab5c43e8415"},
		{"abc", "0bb8b87485551aa43ed54f009230450b492fead5f1cc91658775dac4a3388a0f", "5c41b3d0731a27a7b14bc0bf0ccded2d8751f83493404c84a88e71ffd424212e"},
		{"abcdef0123456789", "65038ac8f2b1def042a5df0b33b1f4eca6bff7cb0f9c6c1526811864e544ed80", "cad44d40a656e7aff4002a8de287abc8ae0482b5ae825822bb870d6df9b56ca3"},
		{"q128_" + strings.Repeat("q", 128), "4be61ee205094282ba8a2042bcb48d88dfbb609301c49aa8b078533dc65a0b5d", "98f8df449a072c4721d241a3b1236d3caccba603f916ca680f4539d2bfb3c29e"},
		{"a512_" + strings.Repeat("a", 512), "457ae2981f70ca85d8e24c308b14db22f3e3862c5ea0f652ca38b5e49cd64bc5", "ecb9f0eadc9aeed232dabc53235368c1394c78de05dd96893eefa62b0f4757dc"},
	} {
		got := hex.EncodeToString(hash([]byte(v.message), []byte("QUUX-V01-CS02-with-P256_XMD:SHA-256_SSWU_RO_")).Bytes())
		if got != "04"+v.x+v.y {
			t.Errorf("%.20q: %s", v.message, got)
		}
	}
}

// TestMap: the one number at which the map divides by zero, zero, is a point too; and numbers of either sign give points of either sign.
func TestMap(t *testing.T) {
	if got := swu(number{}).Bytes(); got[64]&1 != 0 {
		t.Errorf("0 is mapped to an odd y: %x", got)
	}
	if a, b := swu(small(7)).Bytes(), swu(coordinates.negate(small(7))).Bytes(); !bytes.Equal(a[:33], b[:33]) || bytes.Equal(a, b) {
		t.Errorf("7 and -7 are mapped to %x and %x", a, b)
	}
}

var account = policies.OwnerID{1, 2, 3}

// server is a key server in software.
func server(k number, blinded [32]byte) [32]byte {
	point, err := Point(blinded)
	if err != nil {
		panic(err)
	}
	p, err := nistec.NewP256Point().SetBytes(point[:])
	if err != nil {
		panic(err)
	}
	x, err := times(k, p)
	if err != nil {
		panic(err)
	}
	return x
}

func keys(t *testing.T, account policies.OwnerID, text string, k number, salt [SaltSize]byte) *Keys {
	t.Helper()
	a, err := NewAttempt(account, []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := a.Keys(server(k, a.Blinded()), salt)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestKeys: the same password gives the same keys however it was blinded, and whatever else differs gives others.
func TestKeys(t *testing.T) {
	salt := [SaltSize]byte{5}
	first := keys(t, account, "correct horse", small(9), salt)
	if again := keys(t, account, "correct horse", small(9), salt); again.key != first.key || again.proof != first.proof {
		t.Fatal("the same password gave other keys")
	}
	wrapped, err := first.Wrap([]byte("root"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := first.Unwrap(wrapped); err != nil || string(plain) != "root" {
		t.Fatalf("%q, %v", plain, err)
	}
	for name, other := range map[string]*Keys{
		"password": keys(t, account, "correct hors", small(9), salt),
		"server":   keys(t, account, "correct horse", small(10), salt),
		"salt":     keys(t, account, "correct horse", small(9), [SaltSize]byte{6}),
		"account":  keys(t, policies.OwnerID{1}, "correct horse", small(9), salt),
	} {
		if other.key == first.key || other.proof == first.proof || other.key == other.proof {
			t.Errorf("another %s gives the same keys", name)
		}
		if _, err := other.Unwrap(wrapped); !errors.Is(err, ErrOpen) {
			t.Errorf("another %s opens: %v", name, err)
		}
	}
}

// TestBlinding: what the server sees of the same password is never the same.
func TestBlinding(t *testing.T) {
	seen := map[[32]byte]bool{}
	for range 20 {
		a, err := NewAttempt(account, []byte("password"), nil)
		if err != nil {
			t.Fatal(err)
		}
		seen[a.Blinded()] = true
	}
	if len(seen) != 20 {
		t.Errorf("20 questions showed %d values", len(seen))
	}
}

// TestImitation: an account that is not there gives answers as regular as one that is: the same for the same password, others for another account.
func TestImitation(t *testing.T) {
	seed := [32]byte{3}
	output := func(account policies.OwnerID) [32]byte {
		a, err := NewAttempt(account, []byte("password"), nil)
		if err != nil {
			t.Fatal(err)
		}
		x, _, err := Imitate(seed, account, a.Blinded())
		if err != nil {
			t.Fatal(err)
		}
		p, err := lift(&x)
		if err != nil {
			t.Fatal(err)
		}
		out, err := times(scalars.invert(a.r), p)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if first, second := output(account), output(account); first != second {
		t.Error("an account that is not there gives itself away: its answers differ")
	}
	x := [32]byte(nistec.NewP256Point().SetGenerator().Bytes()[1:33])
	a, salt, err := Imitate(seed, policies.OwnerID{1}, x)
	if err != nil {
		t.Fatal(err)
	}
	if b, other, err := Imitate(seed, policies.OwnerID{2}, x); err != nil || a == b || salt == other {
		t.Error("two accounts that are not there give themselves away: they answer the same")
	}
}

func TestRefused(t *testing.T) {
	for _, text := range []string{"", strings.Repeat("x", MaxSize+1)} {
		if _, err := NewAttempt(account, []byte(text), nil); !errors.Is(err, ErrSize) {
			t.Errorf("a password of %d bytes: %v", len(text), err)
		}
	}
	for _, x := range [][32]byte{[32]byte(bytes.Repeat([]byte{255}, 32)), {31: 1}} {
		if _, err := Point(x); !errors.Is(err, ErrPoint) {
			t.Errorf("%x is no x-coordinate: %v", x, err)
		}
	}
	a, err := NewAttempt(account, []byte("password"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%v %+v %#v", a, a, *a); strings.Contains(text, "password\"") || !strings.Contains(text, "redacted") {
		t.Errorf("an attempt prints as %s", text)
	}
}

func TestKit(t *testing.T) {
	kit := NewKit()
	text := kit.Text()
	if len(text) != 9*4+8 {
		t.Fatalf("a kit of %d characters", len(text))
	}
	for _, typed := range []string{text, strings.ToLower(text), strings.ReplaceAll(text, "-", " "), strings.ReplaceAll(strings.ReplaceAll(text, "0", "o"), "1", "l") + "\n"} {
		if again, err := ParseKit(typed); err != nil || again.bytes != kit.bytes {
			t.Errorf("%v", err)
		}
	}
	// One wrong character is found, whichever it is, but for one in a million.
	missed := 0
	for i := range text {
		if text[i] == '-' {
			continue
		}
		wrong := []byte(text)
		if wrong[i] = '2'; text[i] == '2' {
			wrong[i] = '3'
		}
		if _, err := ParseKit(string(wrong)); err == nil {
			missed++
		} else if strings.Contains(err.Error(), text[:4]) {
			t.Errorf("the error repeats the kit: %v", err)
		}
	}
	if missed > 1 {
		t.Errorf("%d slips of the pen pass", missed)
	}
	if kit.Keys(account).Proof() == kit.Keys(policies.OwnerID{9}).Proof() {
		t.Error("a kit proves itself for every account")
	}
}

// FuzzKit: whatever is typed is refused, or is the kit that it is written as.
func FuzzKit(f *testing.F) {
	k := &Kit{}
	f.Add(k.Text())
	f.Add(strings.ToLower(k.Text()))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParseKit(text)
		if err != nil {
			return
		}
		again, err := ParseKit(k.Text())
		if err != nil || again.bytes != k.bytes {
			t.Fatalf("%q is read as %q", text, k.Text())
		}
	})
}

// FuzzPoint: what is taken for an x-coordinate is one.
func FuzzPoint(f *testing.F) {
	f.Add(make([]byte, 32))
	f.Add(nistec.NewP256Point().SetGenerator().Bytes()[1:33])
	f.Fuzz(func(t *testing.T, b []byte) {
		var x [32]byte
		copy(x[:], b)
		p, err := Point(x)
		if err != nil {
			return
		}
		if [32]byte(p[1:33]) != x || p[64]&1 != 0 {
			t.Fatalf("%x becomes %x", x, p)
		}
	})
}
