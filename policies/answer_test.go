package policies

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

func validAnswer() *Answer {
	return &Answer{Time: 1_800_000_000_123, Items: []AnswerItem{
		{Outcome: CodeReleased, X: [32]byte{1, 2}, Leaf: Hash{3}, Head: Hash{4}, Version: 5, Index: 6, Accepted: 12},
		{Outcome: CodeUnchanged, Leaf: Hash{7}, Head: Hash{8}, Version: 9, Index: 10},
		{Outcome: CodeRevoked, Index: 11},
		{},
	}}
}

func TestAnswerInverse(t *testing.T) {
	for _, a := range []*Answer{validAnswer(), {Time: 1, Items: []AnswerItem{}}, {Items: make([]AnswerItem, MaxReadItems)}} {
		back, err := ParseAnswer(a.Bytes())
		if err != nil || !reflect.DeepEqual(back, a) {
			t.Fatalf("came back as %+v, %v", back, err)
		}
	}
	plain := validAnswer().Bytes()
	for n := range plain {
		if _, err := ParseAnswer(plain[:n]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut to %d bytes: got %v, want ErrMalformed", n, err)
		}
	}
	if _, err := ParseAnswer(append(bytes.Clone(plain), 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a byte more: got %v, want ErrMalformed", err)
	}
	for i := range plain {
		if back, err := ParseAnswer(flip(plain, i)); err == nil && reflect.DeepEqual(back, validAnswer()) {
			t.Errorf("byte %d changed makes no difference", i)
		}
	}
}

// What came out of a sealed answer is copied, so that the caller can zero the plaintext and keep the answer.
func TestParseAnswerCopies(t *testing.T) {
	plain := validAnswer().Bytes()
	a := must(ParseAnswer(plain))
	clear(plain)
	if !reflect.DeepEqual(a, validAnswer()) {
		t.Error("an answer aliases the bytes it was parsed from")
	}
}

func FuzzParseAnswer(f *testing.F) {
	plain := validAnswer().Bytes()
	f.Add(plain)
	f.Add(plain[:len(plain)-1])
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := ParseAnswer(data)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
			return
		}
		if !bytes.Equal(a.Bytes(), data) {
			t.Errorf("an answer with two spellings: %x", data)
		}
	})
}

// Ten bytes must not have megabytes set aside: no answer has more items than a request may name.
func TestParseAnswerBoundsItems(t *testing.T) {
	plain := append(make([]byte, 8), 0xff, 0xff)
	if _, err := ParseAnswer(plain); !errors.Is(err, ErrMalformed) {
		t.Errorf("65,535 items: %v", err)
	}
	full := (&Answer{Items: make([]AnswerItem, MaxReadItems+1)}).Bytes()
	if _, err := ParseAnswer(full); !errors.Is(err, ErrMalformed) {
		t.Errorf("%d items: %v", MaxReadItems+1, err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		ParseAnswer(plain)
	}
	runtime.ReadMemStats(&after)
	if size := after.TotalAlloc - before.TotalAlloc; size > 1<<20 {
		t.Errorf("%d bytes were set aside for 100 answers of 10 bytes", size)
	}
}

// Bytes makes one piece of memory, so that the caller who zeroes it leaves no copy of an E' behind.
func TestAnswerBytesIsOnePiece(t *testing.T) {
	a := validAnswer()
	for range 100 {
		a.Items = append(a.Items, AnswerItem{Outcome: CodeNotYet})
	}
	if n := testing.AllocsPerRun(10, func() { a.Bytes() }); n != 1 {
		t.Errorf("%v pieces", n)
	}
}

// E' is as secret as what it opens. An answer that ends in a log or an error by mistake does not carry it along.
func TestAnswerDoesNotPrint(t *testing.T) {
	a := &Answer{Items: []AnswerItem{{Outcome: CodeReleased, Index: 7}}}
	copy(a.Items[0].X[:], bytes.Repeat([]byte{0xab}, 32))
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "answer", a, "item", a.Items[0])
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "answer", a, "item", a.Items[0])
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q"} {
		fmt.Fprintf(&log, verb+verb+verb+verb+"\n", a, *a, a.Items, a.Items[0])
	}
	if text := strings.ToLower(log.String()); strings.Contains(text, "abab") || strings.Contains(text, "ab, ") || strings.Contains(text, "171 171") || strings.Contains(text, `\xab`) {
		t.Errorf("prints as %s", text)
	}
}
