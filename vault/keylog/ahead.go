package keylog

import (
	"errors"
	"io"
)

// ahead reads a file before its reader asks, on another processor: to fetch a journal of a gigabyte takes as long as to check it.
type ahead struct {
	blocks chan block    // closed when there are no more
	spare  chan []byte   // to be filled
	stop   chan struct{} // closed when nobody reads any more

	block []byte // being read
	rest  []byte // of it
	err   error
}

// block is some of the file, and why there is no more.
type block struct {
	b   []byte
	err error
}

const (
	aheadBlock  = 1 << 18
	aheadBlocks = 4
)

// readAhead begins. The caller owes a call of close.
func readAhead(r io.Reader) *ahead {
	a := &ahead{blocks: make(chan block, aheadBlocks), spare: make(chan []byte, aheadBlocks), stop: make(chan struct{})}
	for range aheadBlocks {
		a.spare <- make([]byte, aheadBlock)
	}
	go func() {
		defer close(a.blocks)
		for {
			var b []byte
			select {
			case b = <-a.spare:
			case <-a.stop:
				return
			}
			n, err := io.ReadFull(r, b)
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = io.EOF
			}
			a.blocks <- block{b[:n], err} // has room for all blocks there are
			if err != nil {
				return
			}
		}
	}()
	return a
}

// Read implements io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.err != nil {
			return 0, a.err
		}
		if a.block != nil {
			a.spare <- a.block[:aheadBlock]
		}
		next := <-a.blocks // there is one: err was not set yet
		a.block, a.rest, a.err = next.b, next.b, next.err
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// close waits until nothing is read any more.
func (a *ahead) close() {
	close(a.stop)
	for range a.blocks {
	}
}
