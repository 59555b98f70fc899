package gate

import (
	"errors"
	"io"
	"sync"
)

// ErrCrowded: requests have so many bytes in memory that there is no room for more of them now.
var ErrCrowded = errors.New("too much at once")

// A Budget bounds the bytes that requests have in memory at once, over all and for each caller. Rates do not: a request that is slow stays.
type Budget[K comparable] struct {
	all, each int64

	mu    sync.Mutex // guards what follows, and the shares
	taken int64
	of    map[K]int64
}

// NewBudget makes a budget of so many bytes.
func NewBudget[K comparable](all, each int64) *Budget[K] {
	return &Budget[K]{all: all, each: each, of: map[K]int64{}}
}

// A Share is what one request takes of a budget. Its methods are for one goroutine at a time.
type Share[K comparable] struct {
	budget *Budget[K]
	who    K
	taken  int64
}

// Share is an empty share of a caller's.
func (b *Budget[K]) Share(who K) *Share[K] { return &Share[K]{budget: b, who: who} }

// Take takes n bytes more, or none and returns [ErrCrowded].
func (s *Share[K]) Take(n int64) error {
	b := s.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken+n > b.all || b.of[s.who]+n > b.each {
		return ErrCrowded
	}
	b.taken, s.taken = b.taken+n, s.taken+n
	b.of[s.who] += n
	return nil
}

// Give gives everything back.
func (s *Share[K]) Give() {
	b := s.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken -= s.taken
	if b.of[s.who] -= s.taken; b.of[s.who] == 0 {
		delete(b.of, s.who)
	}
	s.taken = 0
}

// step is in what portions bytes are taken while they come, so that what was only announced takes none.
const step = 256 << 10

// Reader takes the bytes that come from r, all but the first free ones.
func (s *Share[K]) Reader(r io.Reader, free int64) io.Reader {
	return &meter[K]{r, s, free}
}

type meter[K comparable] struct {
	io.Reader
	share *Share[K]
	left  int64 // that may come before more must be taken
}

func (m *meter[K]) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	for m.left -= int64(n); m.left < 0; m.left += step {
		if err := m.share.Take(step); err != nil {
			return n, err
		}
	}
	return n, err
}
