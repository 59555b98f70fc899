package pkcs11

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"testing"
	"time"
)

// keeper remembers each piece of memory that a read was to fill.
type keeper struct {
	io.Reader
	filled [][]byte
}

func (k *keeper) Read(p []byte) (int, error) {
	k.filled = append(k.filled, p)
	return k.Reader.Read(p)
}

// Once a worker is ready, none of the memory into which the PIN came holds it.
func TestServeKeepsNoPIN(t *testing.T) {
	profile, _ := ceremony(t)
	config, err := packConfig(workerConfig{Profile: profile, Selector: Selector{Label: testLabel}, Threads: 1}, pin(userPIN))
	if err != nil {
		t.Fatal(err)
	}
	requests, toWorker := io.Pipe()
	fromWorker, replies := io.Pipe()
	memory := &keeper{Reader: requests}
	ended := make(chan error, 1)
	go func() { ended <- Serve(memory, replies) }()
	if _, err := toWorker.Write(appendFrame(nil, frameConfig, 1, config)); err != nil {
		t.Fatal(err)
	}
	kind, _, body, err := readFrame(fromWorker, maxReply)
	if err != nil || kind != frameReady {
		t.Fatalf("%d %q %v", kind, body, err)
	}
	_ = toWorker.Close()
	if _, _, _, err := readFrame(fromWorker, maxReply); err != nil { // its last word
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for _, p := range memory.filled {
		if bytes.Contains(p[:cap(p)], []byte(userPIN)) {
			t.Errorf("the PIN is in a buffer of %d bytes", len(p))
		}
	}
}

// failing writes so many frames, and then half of one.
type failing struct {
	io.Writer
	left int
}

func (f *failing) Write(p []byte) (int, error) {
	if f.left--; f.left >= 0 {
		return f.Writer.Write(p)
	}
	n, _ := f.Writer.Write(p[:len(p)/2])
	return n, syscall.EIO
}

// A worker that cannot write an answer ends at once, though its input goes on: else the parent would wait until its watchdog strikes.
func TestServeEndsWhenItCannotAnswer(t *testing.T) {
	profile, _ := ceremony(t)
	token := open(t, profile, User, 1)
	t.Cleanup(func() { _ = token.Close() }) // a worker's ends with its process
	requests, toWorker := io.Pipe()
	defer toWorker.Close()
	fromWorker, replies := io.Pipe()
	ended := make(chan error, 1)
	s := &server{token: token, out: &failing{replies, 0}, lost: make(chan struct{})}
	go func() { ended <- s.serve(requests, 1) }()
	go func() {
		_, _ = toWorker.Write(appendFrame(nil, frameCall, 2, []byte(`{"method":"sign","data":"AAAA"}`)))
	}()
	go func() { _, _ = io.Copy(io.Discard, fromWorker) }()
	select {
	case err := <-ended:
		if !errors.Is(err, ErrTokenBroken) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it waits for more")
	}
}
