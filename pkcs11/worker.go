package pkcs11

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"
)

// drainTime is how long a worker that ends waits for calls under way. A module
// that hangs must not keep the process.
const drainTime = 5 * time.Second

// Serve is a worker: it opens a token and answers the parent until r ends
// (then nil), or the token breaks or an answer cannot be written (then
// ErrTokenBroken), which it does not survive by a moment. The caller exits the
// process afterwards, with a status other than zero on an error; the parent
// starts another.
//
// If w is standard output, Serve moves it out of the way first, so that what a
// module prints goes to standard error and not between two frames, and forbids
// the process core dumps and debuggers, since it holds the PIN for a moment.
func Serve(r io.Reader, w io.Writer) error {
	if f, ok := w.(*os.File); ok && f.Fd() == 1 {
		moved, err := privateStdout()
		if err != nil {
			return fmt.Errorf("setting up worker: %w", err)
		}
		defer moved.Close()
		w = moved
	}
	// Not through the buffer, which would keep the PIN for as long as we live.
	kind, id, body, err := readFrame(r, maxRequest)
	if err != nil {
		return fmt.Errorf("reading worker configuration: %w", err)
	}
	defer clear(body)
	if kind != frameConfig {
		return fmt.Errorf("reading worker configuration: %w", errFrame)
	}
	config, pin, err := unpackConfig(body)
	if err != nil {
		return fmt.Errorf("reading worker configuration: %w", err)
	}
	s := &server{out: w, lost: make(chan struct{})}
	token, err := Open(context.Background(), Config{Profile: config.Profile, Selector: config.Selector, Role: User, PIN: pin,
		Threads: config.Threads, LiveKeys: config.LiveKeys})
	pin.Zero()
	if err != nil {
		s.reply(frameReady, id, reply{Fault: faultOf(err)})
		return err
	}
	s.token = token
	s.reply(frameReady, id, reply{Info: token.Info(), Calls: token.Calls()})
	return s.serve(bufio.NewReaderSize(r, 64<<10), config.Threads)
}

// privateStdout returns what standard output was and makes standard output a
// second standard error.
func privateStdout() (*os.File, error) {
	fd, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	if err := unix.Dup3(2, 1, 0); err != nil {
		return nil, err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "frames"), nil
}

type server struct {
	token *Token

	mu   sync.Mutex // guards out and torn: one frame at a time
	out  io.Writer
	torn bool          // a write failed: nothing is written behind it
	lost chan struct{} // closed with torn
}

type job struct {
	id       uint32
	requests []DeriveRequest
	call     call
}

// serve reads frames and hands them to three kinds of goroutines, so that a
// signature does not wait behind derives, nor either behind an import.
func (s *server) serve(in io.Reader, threads int) error {
	derives, signs, slow := make(chan job, 16), make(chan job, 16), make(chan job, 16)
	var busy sync.WaitGroup
	for range threads {
		busy.Go(func() {
			for j := range derives {
				results := s.token.Derive(context.Background(), j.requests)
				b := packResults(results)
				s.send(frameDerive, j.id, b)
				clear(b)
				clear(results)
			}
		})
	}
	for _, queue := range []chan job{signs, slow} {
		busy.Go(func() {
			for j := range queue {
				r := s.answer(j.call)
				s.reply(frameCall, j.id, r)
				clear(j.call.Data) // a Seal's plaintext, an Unseal's result
				clear(r.Data)
			}
		})
	}
	ended := make(chan error, 1)
	go func() {
		ended <- s.read(in, derives, signs, slow)
		close(derives)
		close(signs)
		close(slow)
	}()
	var err error
	select {
	case err = <-ended:
	case <-s.lost:
		// Somebody waits for an answer that never comes, and would until the
		// parent's watchdog: the end of this process tells it now. No draining: what
		// else is under way could not be answered either.
		return fmt.Errorf("writing answer: %w", ErrTokenBroken)
	case <-s.token.broken:
		err = ErrTokenBroken
		// The reply that says so is still to be written: the goroutines end
		// with the process, after a moment.
		time.Sleep(100 * time.Millisecond)
		return err
	}
	drained := make(chan struct{})
	go func() {
		busy.Wait()
		// The last word: what was called since the parent last asked.
		s.reply(frameCall, 0, reply{Calls: s.token.Calls()})
		_ = s.token.Close()
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(drainTime):
		err = errors.Join(err, ErrTokenBroken)
	}
	return err
}

func (s *server) read(in io.Reader, derives, signs, slow chan<- job) error {
	for {
		kind, id, body, err := readFrame(in, maxRequest)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		j := job{id: id}
		switch kind {
		case frameDerive:
			if j.requests, err = unpackRequests(body); err != nil {
				return err
			}
			derives <- j
		case frameCall:
			if err := json.Unmarshal(body, &j.call, json.RejectUnknownMembers(true)); err != nil {
				return errFrame
			}
			clear(body)
			switch j.call.Method {
			case "calls":
				s.reply(frameCall, id, reply{Calls: s.token.Calls()})
			case "sign":
				signs <- j
			default:
				slow <- j
			}
		default:
			return errFrame
		}
	}
}

func (s *server) answer(c call) (r reply) {
	var (
		ctx = context.Background()
		t   = s.token
		err error
	)
	switch c.Method {
	case "sign":
		r.Data, err = t.Sign(ctx, c.Data)
	case "seal":
		r.Data, err = t.Seal(ctx, c.Data, c.AAD)
	case "unseal":
		r.Data, err = t.Unseal(ctx, c.Data, c.AAD)
	case "import":
		xs, errs := t.importKeys(ctx, c.Imports)
		r.Data = make([]byte, 0, 32*len(xs)) // a slice that grew would leave secrets behind
		r.Faults = faultsOf(errs)
		for i := range xs {
			if errs[i] == nil {
				r.Data = append(r.Data, xs[i][:]...)
			}
		}
		clear(xs)
	case "make":
		r.Data, err = t.made(ctx, c.ID)
	case "witness":
		var xs [][32]byte
		if xs, err = t.witness(ctx, c.Keys); err == nil {
			r.Data = make([]byte, 0, 32*len(xs))
			for i := range xs {
				r.Data = append(r.Data, xs[i][:]...)
			}
		}
		clear(xs)
	case "destroy", "destroyKnown", "gone":
		does := t.destroyKeys
		switch c.Method {
		case "destroyKnown":
			does = t.destroyKnown
		case "gone":
			does = t.gone
		}
		if len(c.Checks) != len(c.Keys) {
			err = &Error{Op: "destroying keys", Kind: ErrBadInput}
			break
		}
		r.Faults = faultsOf(does(ctx, c.Keys, c.Checks))
	case "hunt":
		r.Faults = faultsOf(t.hunt(ctx, c.Checks))
	case "learn":
		t.adopt(c.Keys)
		err = t.learnFresh(ctx, c.Keys)
	case "forget":
		t.forget(c.Keys...)
	case "importSealed":
		r.Sealed = make([]SealedKey, 1)
		r.Sealed[0], err = t.ImportSealed(ctx, c.ID, c.Path, c.Data)
	case "reseal":
		r.Sealed, err = t.Reseal(ctx, c.Sealed)
	case "forgetSealed":
		err = t.Forget(ctx, c.ID)
	case "admitSealed":
		t.live.admit(c.ID)
	case "sealingKeys":
		r.Periods, r.Decoys, err = t.SealingKeys(ctx)
	case "refreshSealing":
		// That one is lax is for the one to say who was asked.
		if _, _, err = t.SealingKeys(ctx); errors.Is(err, ErrAttributes) {
			err = nil
		}
	case "retireSealing":
		err = t.retire(ctx, c.Period)
	case "destroySealing":
		err = t.DestroySealingKey(ctx, c.Period)
	case "clean":
		r.Cleaned, err = t.Clean(ctx)
	case "keys":
		r.Keys, err = t.Keys(ctx)
	case "save":
		err = t.SaveState(ctx, c.Data)
	case "settle":
		err = t.settleState(ctx, c.Data)
	case "load":
		r.Data, err = t.LoadState(ctx)
	case "probe":
		r.Findings, err = t.Probe(ctx)
	case "inspect":
		r.Report, err = t.Inspect(ctx, c.Name)
	default:
		err = &Error{Op: fmt.Sprintf("calling %q", c.Method), Kind: ErrBadInput}
	}
	r.Fault = faultOf(err)
	return r
}

func (s *server) reply(kind frameKind, id uint32, r reply) {
	b, err := json.Marshal(r)
	if err != nil {
		b, _ = json.Marshal(reply{Fault: faultOf(err)})
	}
	s.send(kind, id, b)
	clear(b)
}

// send writes one frame. After a failed write, of which a part may have gone
// out, it writes no more, and serve ends.
func (s *server) send(kind frameKind, id uint32, body []byte) {
	frame := appendFrame(make([]byte, 0, 4+frameHeader+len(body)), kind, id, body)
	s.mu.Lock()
	if !s.torn {
		if _, err := s.out.Write(frame); err != nil {
			s.torn = true
			close(s.lost)
		}
	}
	s.mu.Unlock()
	clear(frame)
}
