package pairing

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
)

func part() (Code, *Opening, *Answer) {
	return Code{1, 2, 3, 4, 5}, &Opening{Key: bytes.Repeat([]byte{1}, policies.KEMPublicKeySize), Nonce: bytes.Repeat([]byte{2}, NonceSize)},
		&Answer{Owner: policies.OwnerID{3}, Nonce: bytes.Repeat([]byte{4}, NonceSize)}
}

// TestTranscript: whatever one of the two devices said otherwise makes other words, and another seal.
func TestTranscript(t *testing.T) {
	c, o, a := part()
	was := Meet(c, o, a)
	if was.First() == was.Second() || len(was.First()) != 9 {
		t.Errorf("the words are %s and %s", was.First(), was.Second())
	}
	commitment := o.Commitment(c)
	for what, change := range map[string]func(c *Code, o *Opening, a *Answer){
		"code":                 func(c *Code, o *Opening, a *Answer) { c[4]++ },
		"key":                  func(c *Code, o *Opening, a *Answer) { o.Key[7]++ },
		"nonce":                func(c *Code, o *Opening, a *Answer) { o.Nonce[31]++ },
		"owner":                func(c *Code, o *Opening, a *Answer) { a.Owner[0]++ },
		"first device's nonce": func(c *Code, o *Opening, a *Answer) { a.Nonce[0]++ },
	} {
		c, o, a := part()
		change(&c, o, a)
		if now := Meet(c, o, a); now.First() == was.First() || now.Second() == was.Second() || bytes.Equal(now.Info(), was.Info()) {
			t.Errorf("another %s, and a word or the seal is the same", what)
		}
		if ofNew := what == "code" || what == "key" || what == "nonce"; (o.Commitment(c) != commitment) != ofNew {
			t.Errorf("another %s: the commitment is the same: %t", what, ofNew)
		}
	}
}

func TestTyped(t *testing.T) {
	c, _, _ := part()
	for text, good := range map[string]bool{
		c.String(): true, strings.ToLower(c.String()): true, strings.ReplaceAll(c.String(), "-", " "): true,
		"": false, c.String()[:8]: false, c.String() + "0": false, "!!!!-!!!!": false,
	} {
		if got, err := ParseCode(text); (err == nil) != good || good && got != c {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	if !Same(" o1lu-2345 \n", "011V-2345") || Same("", "0000-0000") || Same("011V-2346", "011V-2345") || Same("011V-23450", "011V-2345") {
		t.Error("what a person typed is not read as it should be")
	}
	if one, two := NewCode(), NewCode(); one == two {
		t.Error("two codes are one")
	}
}

func TestForm(t *testing.T) {
	for _, bend := range []func(o *Opening, a *Answer){
		func(o *Opening, _ *Answer) { o.Key = o.Key[1:] }, func(o *Opening, _ *Answer) { o.Nonce = nil },
		func(_ *Opening, a *Answer) { a.Owner = policies.OwnerID{} }, func(_ *Opening, a *Answer) { a.Nonce = append(a.Nonce, 1) },
	} {
		_, o, a := part()
		if o.Validate() != nil || a.Validate() != nil {
			t.Fatal("what is right is refused")
		}
		if bend(o, a); o.Validate() == nil && a.Validate() == nil {
			t.Error("a part that is not whole is taken")
		}
	}
}

func FuzzCode(f *testing.F) {
	f.Add("0123-4567")
	f.Add("o1lu 2345")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCode(text)
		if err != nil {
			return
		}
		if again, err := ParseCode(c.String()); err != nil || again != c || !Same(text, c.String()) {
			t.Errorf("%q is read as %s, and that as %s, %v", text, c, again, err)
		}
	})
}
