package pre

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"testing"
)

// TestScalars compares the constant-time arithmetic with math/big, which serves as the oracle here and is not allowed anywhere else in
// the package.
func TestScalars(t *testing.T) {
	n := new(big.Int).SetBytes(mustHex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"))
	wides := [][]byte{make([]byte, 48), bytes.Repeat([]byte{255}, 48)}
	for _, k := range []int64{-2, -1, 0, 1, 2} { // around n, 2^128 n, 2^192
		for _, base := range []*big.Int{n, new(big.Int).Lsh(n, 128), new(big.Int).Lsh(big.NewInt(1), 192), new(big.Int).Lsh(n, 64)} {
			wides = append(wides, new(big.Int).Add(base, big.NewInt(k)).FillBytes(make([]byte, 48)))
		}
	}
	for range 200 {
		b := make([]byte, 48)
		rand.Read(b)
		wides = append(wides, b)
	}
	var previous scalar
	for _, wide := range wides {
		want := new(big.Int).Mod(new(big.Int).SetBytes(wide), n)
		got := reduce((*[48]byte)(wide))
		if want.Cmp(new(big.Int).SetBytes(got[:])) != 0 {
			t.Fatalf("%x mod n = %x, want %x", wide, got[:], want)
		}
		if got.isZero() != (want.Sign() == 0) {
			t.Fatalf("isZero of %x", got[:])
		}
		quotient, err := previous.over(&got)
		if want.Sign() == 0 {
			if err == nil {
				t.Fatal("divided by zero")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		inverse := new(big.Int).ModInverse(want, n)
		inverse.Mul(inverse, new(big.Int).SetBytes(previous[:])).Mod(inverse, n)
		if inverse.Cmp(new(big.Int).SetBytes(quotient[:])) != 0 {
			t.Fatalf("%x / %x = %x, want %x", previous[:], got[:], quotient[:], inverse)
		}
		previous = got
	}
}

// TestScalarVectors runs the cases of scalar.json that no public function reaches.
func TestScalarVectors(t *testing.T) {
	raw, err := os.ReadFile("../../tests/vectors/scalar.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []struct {
			Description, Operation, Expect string
			In, Out                        map[string]any
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	get := func(m map[string]any, name string) []byte {
		b, err := hex.DecodeString(m[name].(string))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var ran int
	for _, c := range file.Cases {
		switch c.Operation {
		case "reduce":
			ran++
			if got := reduce((*[48]byte)(get(c.In, "wide"))); !bytes.Equal(got[:], get(c.Out, "scalar")) {
				t.Errorf("%s: %x", c.Description, got[:])
			}
		case "quotient":
			ran++
			a, d := scalar(get(c.In, "a")), scalar(get(c.In, "d"))
			got, err := a.over(&d)
			if c.Expect != "ok" {
				if !errors.Is(err, ErrKey) {
					t.Errorf("%s: %v", c.Description, err)
				}
			} else if err != nil || !bytes.Equal(got[:], get(c.Out, "rk")) {
				t.Errorf("%s: %x %v", c.Description, got[:], err)
			}
		}
	}
	if ran < 12 {
		t.Errorf("only %d cases ran", ran)
	}
}

// TestPadme compares with the algorithm as the paper writes it, and checks its promise.
func TestPadme(t *testing.T) {
	for length := lengthSize; length < 1<<21; length += 1 + length/97 {
		e := 0
		for 1<<(e+1) <= length {
			e++
		}
		s := 0
		for 1<<(s+1) <= e {
			s++
		}
		s++
		last := e - s
		want := length
		for want%(1<<last) != 0 {
			want++
		}
		got := padme(length)
		if got != want {
			t.Fatalf("padme(%d) = %d, want %d", length, got, want)
		}
		if float64(got-length) > 0.12*float64(length) {
			t.Fatalf("padme(%d) = %d: more than 12 %%", length, got)
		}
	}
}

// TestUnpad: only what pad makes is accepted.
func TestUnpad(t *testing.T) {
	for _, size := range []int{0, 1, 5, 100, 1000} {
		good, err := pad(bytes.Repeat([]byte{7}, size))
		if err != nil {
			t.Fatal(err)
		}
		if v, err := unpad(bytes.Clone(good)); err != nil || len(v) != size {
			t.Fatalf("size %d: %v", size, err)
		}
		if _, err := unpad(append(bytes.Clone(good), 0)); err == nil {
			t.Errorf("size %d: one zero more was accepted", size)
		}
		if _, err := unpad(good[:len(good)-1]); err == nil {
			t.Errorf("size %d: one byte less was accepted", size)
		}
		if len(good) > lengthSize+size {
			dirty := bytes.Clone(good)
			dirty[len(dirty)-1] = 1
			if _, err := unpad(dirty); err == nil {
				t.Errorf("size %d: padding that is not zero was accepted", size)
			}
		}
	}
	for _, b := range [][]byte{nil, {0}, {0, 0, 0}, {255, 255, 255, 255}, {0, 16, 0, 1}} {
		if _, err := unpad(b); err == nil {
			t.Errorf("%x was accepted", b)
		}
	}
}
