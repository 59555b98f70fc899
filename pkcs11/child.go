package pkcs11

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
)

// errGone: the worker died, or was killed because it did not answer in time.
// What it was doing may have happened or not.
var errGone = &Error{Op: "asking token worker: it is gone", Kind: ErrTokenBroken}

// A worker is the parent's side of a child process.
type worker struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	info  Info

	write sync.Mutex // one frame at a time

	mu      sync.Mutex // guards next, pending, calls
	next    uint32
	pending map[uint32]chan []byte
	calls   map[string]uint64 // what it last told of itself

	derived  atomic.Uint64
	retiring chan struct{}  // closed: take no more work
	dead     chan struct{}  // closed: the process is gone
	loops    sync.WaitGroup // those who use it; added to under Pool.mu, never once retiring
}

// tuning suits a process that is a C library with a little Go around it. What
// PoolConfig.Env says of the same variables goes before it.
//
// A call of the module holds no P, so one P serves all threads; more of them
// only wake each other around every call. And a module makes and frees hundreds
// of small objects in one derive, for which glibc keeps 7 of a size at hand
// where it may keep 1,000. (SoftHSM 2.6.1, CPU time of a derive: 200 us; with
// one P 162; with both 143.)
var tuning = []string{"GOMAXPROCS=1", "GLIBC_TUNABLES=glibc.malloc.tcache_count=1000"}

// launch starts a process and opens the token in it. start runs cmd.Start on a
// thread that outlives the process (see Pool.launcher).
func launch(c *PoolConfig, pin Secret, start func(*exec.Cmd) error) (*worker, error) {
	cmd := exec.Command(c.Command[0], c.Command[1:]...) // #nosec G204 -- the daemon's own program; no shell
	cmd.Env = slices.Concat(tuning, c.Env)              // never nil, which would pass on the parent's
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	w := &worker{cmd: cmd, pending: make(map[uint32]chan []byte), calls: make(map[string]uint64),
		retiring: make(chan struct{}), dead: make(chan struct{})}
	var err error
	if w.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = &lineLogger{log: c.Logger}
	if err := start(cmd); err != nil {
		return nil, err
	}
	go w.read(stdout)
	config, err := packConfig(workerConfig{Profile: c.Profile, Selector: c.Selector, Threads: c.Threads, LiveKeys: c.LiveKeys}, pin)
	if err != nil {
		w.kill()
		return nil, err
	}
	body, err := w.exchange(frameConfig, config, c.SlowTimeout)
	clear(config)
	if err != nil {
		return nil, err
	}
	var r reply
	if err := json.Unmarshal(body, &r); err != nil {
		w.kill()
		return nil, errFrame
	}
	if err := r.Fault.err(); err != nil {
		w.kill()
		<-w.dead
		return nil, err
	}
	w.info = r.Info
	w.heard(r.Calls)
	return w, nil
}

func (w *worker) kill() { _ = w.cmd.Process.Kill() }

// read delivers replies until the process ends, and then makes sure of it.
func (w *worker) read(stdout io.Reader) {
	in := bufio.NewReaderSize(stdout, 64<<10)
	for {
		_, id, body, err := readFrame(in, maxReply)
		if err != nil {
			break
		}
		if id == 0 {
			var r reply
			if json.Unmarshal(body, &r) == nil {
				w.heard(r.Calls)
			}
			continue
		}
		w.mu.Lock()
		c, wanted := w.pending[id]
		delete(w.pending, id)
		w.mu.Unlock()
		if wanted {
			c <- body
		}
	}
	w.kill()
	_ = w.cmd.Wait()
	close(w.dead)
}

// exchange sends one frame and awaits its reply. A worker that does not reply
// in time is killed: a hung vendor call has no other end.
func (w *worker) exchange(kind frameKind, body []byte, limit time.Duration) ([]byte, error) {
	c := make(chan []byte, 1)
	w.mu.Lock()
	w.next++
	if w.next == 0 {
		w.next = 1
	}
	id := w.next
	w.pending[id] = c
	w.mu.Unlock()
	watchdog := time.AfterFunc(limit, w.kill)
	defer watchdog.Stop()
	frame := appendFrame(make([]byte, 0, 4+frameHeader+len(body)), kind, id, body)
	w.write.Lock()
	_, err := w.stdin.Write(frame)
	w.write.Unlock()
	clear(frame)
	if err != nil {
		w.kill()
	}
	select {
	case b := <-c:
		return b, nil
	case <-w.dead:
	}
	select {
	case b := <-c: // it died right after the reply
		return b, nil
	default:
		return nil, errGone
	}
}

func (w *worker) call(c call, limit time.Duration) (reply, error) {
	var r reply
	body, err := json.Marshal(c)
	if err != nil {
		return r, err
	}
	b, err := w.exchange(frameCall, body, limit)
	clear(body) // a Seal's plaintext
	if err != nil {
		return r, err
	}
	defer clear(b)
	if err := json.Unmarshal(b, &r); err != nil {
		w.kill()
		return r, errGone
	}
	return r, r.Fault.err()
}

func (w *worker) derive(requests []DeriveRequest, results []DeriveResult, limit time.Duration) error {
	body := packRequests(requests)
	b, err := w.exchange(frameDerive, body, limit)
	clear(body) // sealed keys
	if err != nil {
		return err
	}
	defer clear(b)
	if err := unpackResults(b, results); err != nil {
		w.kill()
		return errGone
	}
	return nil
}

// used is how many objects it may have leaked: one for each derive and each
// key unwrapped, of which there is word every second.
func (w *worker) used() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.derived.Load() + w.calls["C_UnwrapKey"]
}

func (w *worker) heard(calls map[string]uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, n := range calls {
		w.calls[name] = max(w.calls[name], n)
	}
}

// retire ends a worker that takes no more work: what is under way finishes, end
// of input, exit. One that does not exit is killed.
func (w *worker) retire(limit time.Duration) {
	w.loops.Wait()
	w.write.Lock()
	_ = w.stdin.Close()
	w.write.Unlock()
	watchdog := time.AfterFunc(limit, w.kill)
	defer watchdog.Stop()
	<-w.dead
}

// A lineLogger passes a worker's standard error on, line by line.
type lineLogger struct {
	log  *slog.Logger
	line []byte
}

const maxLine = 4096

func (l *lineLogger) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			l.line = append(l.line, p[:min(len(p), maxLine-len(l.line))]...)
			break
		}
		l.line = append(l.line, p[:min(i, maxLine-len(l.line))]...)
		l.log.Warn("token worker", "stderr", string(l.line))
		l.line = l.line[:0]
		p = p[i+1:]
	}
	return n, nil
}

// permanent tells whether starting a worker again can only do harm: each
// attempt with a wrong PIN brings the token closer to locking.
func permanent(err error) bool {
	return errors.Is(err, ErrPINIncorrect) || errors.Is(err, ErrPINLocked)
}
