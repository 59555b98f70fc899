package gate

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestBudget(t *testing.T) {
	b := NewBudget[string](10*step, 4*step)
	read := func(who string, n int) (*Share[string], error) {
		s := b.Share(who)
		got, err := io.Copy(io.Discard, s.Reader(bytes.NewReader(make([]byte, n)), step))
		if err == nil && got != int64(n) {
			t.Fatalf("%d bytes came of %d", got, n)
		}
		return s, err
	}
	full, err := read("a", 5*step) // the first is free
	if err != nil {
		t.Fatalf("exactly what one may have: %v", err)
	}
	over, err := read("a", step+1)
	if !errors.Is(err, ErrCrowded) {
		t.Errorf("a byte more: %v", err)
	}
	over.Give()
	if _, err := read("a", step); err != nil {
		t.Errorf("what is free: %v", err)
	}
	second, err := read("b", 5*step)
	if err != nil {
		t.Errorf("another caller: %v", err)
	}
	third, err := read("c", 4*step)
	if !errors.Is(err, ErrCrowded) {
		t.Errorf("more than there is for all: %v", err)
	}
	third.Give()
	full.Give()
	full.Give() // gives back once
	if b.taken != 4*step || len(b.of) != 1 {
		t.Errorf("%d taken by %d", b.taken, len(b.of))
	}
	if again, err := read("a", 5*step); err != nil {
		t.Errorf("after it was given back: %v", err)
	} else {
		again.Give()
	}
	if second.Give(); b.taken != 0 || len(b.of) != 0 {
		t.Errorf("%d taken at the end by %d", b.taken, len(b.of))
	}
}
