package pkcs11

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// PoolConfig says how many workers to run and with what.
type PoolConfig struct {
	// Command is the program and arguments that call Serve.
	Command []string
	// Env is the environment of a worker, beside settings of its Go and C
	// runtimes. The parent's is not passed on: in development it may hold the PIN.
	Env []string
	// Workers is the number of processes, Threads the number of derives that
	// each runs at once.
	Workers, Threads int

	Profile  Profile
	Selector Selector
	// PIN is copied, because workers are restarted with it; Close zeroes the copy.
	PIN Secret

	// RequestTimeout bounds one batch of derives or a signature, SlowTimeout
	// everything else. A worker that exceeds it is killed. Zero: 10 s and 2 min.
	RequestTimeout, SlowTimeout time.Duration
	// RecycleAfter is the number of derives and unwrapped keys after which a
	// worker is replaced, since each leaks some 245 bytes in SoftHSM. Zero:
	// 2,000,000.
	RecycleAfter uint64
	// LiveKeys bounds the sealed keys that each worker keeps unwrapped. Zero:
	// 4096, which takes some 36 MB of each in SoftHSM (measured: 9 kB a key).
	LiveKeys int
	// Logger gets what workers print and what happens to them. Nil: slog.Default().
	Logger *slog.Logger
}

const (
	defaultRequestTimeout = 10 * time.Second
	defaultSlowTimeout    = 2 * time.Minute
	defaultRecycleAfter   = 2_000_000

	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 30 * time.Second
	watchEvery   = time.Second
	queueLength  = 1024
	maxPiece     = 16 // derives in one piece of a batch
)

// A Pool is several workers on one token, with the methods of a Token. A worker
// that dies or hangs is replaced, and the derives it had are asked of another.
//
// Which keys exist is a matter of all workers: after Import every one of them
// knows the new key, before Destroy every one has forgotten the old. One alone
// makes or destroys token objects at a time, and another looks. A worker
// that cannot be told is killed; its successor looks for itself.
type Pool struct {
	config PoolConfig
	pin    Secret
	queue  chan []*item
	queued atomic.Int64 // derives in the queue, for the size of frames

	launcher chan launchRequest
	starting sync.Mutex // one worker starts at a time: a wrong PIN is tried once
	admin    sync.Mutex // held through Import, Destroy, Keys, SaveState and LoadState
	// sealing is held through SealingKeys and DestroySealingKey, for reading
	// through ImportSealed and Reseal: what these return is not under a sealing
	// key that is being destroyed.
	sealing sync.RWMutex
	// imports holds as many as imports may be on their way to workers: all that
	// wait do so before admin and sealing, and not in a worker's pipe, where what
	// comes behind them, signatures and revocations too, would wait for all of them.
	imports chan struct{}

	importing groups[*pendingImport] // of resident keys
	ends      groups[*pendingEnd]    // the same

	forgetting sync.RWMutex // guards forgotten
	forgotten  forgotten

	mu      sync.Mutex // guards the rest
	workers []*worker  // all that live, also those that retire
	joining []*joiner  // those that are opening the token
	joined  chan struct{}
	retired map[string]uint64 // calls of workers that are gone
	turn    int

	once    sync.Once
	closing chan struct{} // closed by Close or by a permanent failure
	cause   error         // written before closing is closed
	shut    sync.Once
	slots   sync.WaitGroup
	alive   atomic.Int32 // workers at work, for the size of pieces
}

// A joiner is a worker on its way. It may have listed the keys before a change
// and become ready after it, so changes are kept and told to it then.
type joiner struct{ changes []call }

type launchRequest struct {
	cmd    *exec.Cmd
	result chan error
}

// Start starts the workers and returns when all have opened the token. ctx is
// for the start alone.
func Start(ctx context.Context, c PoolConfig) (*Pool, error) {
	if err := c.Profile.Validate(); err != nil {
		return nil, err
	}
	if len(c.Command) == 0 || c.Workers < 1 || c.Threads < 1 || c.LiveKeys < 0 || c.PIN.empty() {
		return nil, &Error{Op: "starting token workers: a command, a PIN, and numbers of workers and threads are needed", Kind: ErrBadInput}
	}
	if c.RequestTimeout <= 0 {
		c.RequestTimeout = defaultRequestTimeout
	}
	if c.SlowTimeout <= 0 {
		c.SlowTimeout = defaultSlowTimeout
	}
	if c.RecycleAfter == 0 {
		c.RecycleAfter = defaultRecycleAfter
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	p := &Pool{config: c, pin: c.PIN.clone(), queue: make(chan []*item, queueLength), launcher: make(chan launchRequest),
		imports:   make(chan struct{}, 2*c.Workers),
		importing: groups[*pendingImport]{op: "importing key", most: importsAtOnce, lead: make(chan struct{}, 1)},
		ends:      groups[*pendingEnd]{op: "destroying key", most: endsAtOnce, lead: make(chan struct{}, 1)},
		joined:    make(chan struct{}), retired: make(map[string]uint64), closing: make(chan struct{})}
	p.config.PIN = Secret{}
	go p.launch()
	for range c.Workers {
		err := ctx.Err()
		var w *worker
		if err == nil {
			w, err = p.start()
		}
		if err != nil {
			_ = p.Close()
			return nil, fmt.Errorf("starting token workers: %w", err)
		}
		p.slots.Go(func() { p.supervise(w) })
	}
	return p, nil
}

// launch starts processes on one thread that lives as long as the pool: Linux
// sends the parent-death signal when the *thread* that forked ends (prctl(2),
// PR_SET_PDEATHSIG).
func (p *Pool) launch() {
	runtime.LockOSThread()
	for r := range p.launcher {
		r.result <- r.cmd.Start()
	}
	runtime.UnlockOSThread()
}

// start brings up one worker, tells it what changed meanwhile, and puts it to work.
func (p *Pool) start() (*worker, error) {
	p.starting.Lock()
	defer p.starting.Unlock()
	if p.closed() {
		return nil, p.cause
	}
	j := &joiner{}
	p.mu.Lock()
	p.joining = append(p.joining, j)
	p.mu.Unlock()
	leave := func() {
		p.joining = slices.DeleteFunc(p.joining, func(o *joiner) bool { return o == j })
	}
	w, err := launch(&p.config, p.pin, func(cmd *exec.Cmd) error {
		r := launchRequest{cmd, make(chan error, 1)}
		p.launcher <- r
		return <-r.result
	})
	if err != nil {
		p.mu.Lock()
		leave()
		p.mu.Unlock()
		if permanent(err) {
			p.fail(err)
		}
		return nil, err
	}
	for {
		p.mu.Lock()
		changes := j.changes
		j.changes = nil
		if len(changes) == 0 {
			leave()
			p.workers = append(p.workers, w)
			p.alive.Add(1)
			close(p.joined)
			p.joined = make(chan struct{})
			p.mu.Unlock()
			break
		}
		p.mu.Unlock()
		for _, c := range changes {
			// A key to learn of may be gone again: to forget it comes next.
			if _, err := w.call(c, p.config.SlowTimeout); err != nil && !errors.Is(err, ErrKeyMissing) {
				w.kill()
				p.mu.Lock()
				leave()
				p.mu.Unlock()
				return nil, err
			}
		}
	}
	// One more than there are threads: the next batch waits in the pipe.
	for range p.config.Threads + 1 {
		w.loops.Go(func() { p.feed(w) })
	}
	return w, nil
}

// supervise keeps one place filled.
func (p *Pool) supervise(w *worker) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.dead:
			p.remove(w)
			p.config.Logger.Warn("token worker ended", "pid", w.cmd.Process.Pid)
			if w = p.restart(); w == nil {
				return
			}
		case <-p.closing:
			p.stop(w)
			return
		case <-tick.C:
			// Also the watch: a worker that does not answer this is killed.
			if r, err := w.call(call{Method: "calls"}, p.config.RequestTimeout); err == nil {
				w.heard(r.Calls)
			}
			if w.used() < p.config.RecycleAfter {
				continue
			}
			next, err := p.start() // the new one first
			if err != nil {
				p.config.Logger.Warn("token worker could not be replaced", "error", err)
				continue
			}
			p.stop(w)
			w = next
		}
	}
}

func (p *Pool) restart() *worker {
	for wait := firstBackoff; ; wait = min(2*wait, lastBackoff) {
		select {
		case <-p.closing:
			return nil
		case <-time.After(wait):
		}
		w, err := p.start()
		if err == nil {
			return w
		}
		p.config.Logger.Error("token worker could not be started", "error", err)
	}
}

// stop lets nobody take w any more; who holds it may finish.
func (p *Pool) stop(w *worker) {
	p.mu.Lock()
	close(w.retiring)
	p.mu.Unlock()
	w.retire(p.config.RequestTimeout)
	p.remove(w)
}

// remove forgets a dead worker, but not what it called.
func (p *Pool) remove(w *worker) {
	w.loops.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.workers = slices.DeleteFunc(p.workers, func(o *worker) bool { return o == w })
	p.alive.Add(-1)
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, n := range w.calls {
		p.retired[name] += n
	}
}

func (p *Pool) fail(err error) {
	p.once.Do(func() {
		p.cause = err
		close(p.closing)
	})
}

func (p *Pool) closed() bool {
	select {
	case <-p.closing:
		return true
	default:
		return false
	}
}

// Close ends all workers, in order where they let it, and zeroes the PIN.
func (p *Pool) Close() error {
	p.fail(ErrClosed)
	p.slots.Wait()
	p.admin.Lock() // who holds it may be starting a worker, and stops that first
	defer p.admin.Unlock()
	p.shut.Do(func() { // every worker had a supervisor or a holder of admin, and all of those are done
		close(p.launcher)
		p.pin.Zero()
	})
	return nil
}

// An item is one derive on its way through the queue.
type item struct {
	request DeriveRequest
	result  DeriveResult
	ctx     context.Context
	batch   *batch
	tries   int
}

// A batch is what one caller of Derive waits for.
type batch struct {
	left atomic.Int32
	done chan struct{}
}

func (i *item) deliver(r DeriveResult) {
	i.result = r
	if i.batch.left.Add(-1) == 0 {
		close(i.batch.done)
	}
}

// lanes is how many derives run at once.
func (p *Pool) lanes() int { return max(1, int(p.alive.Load())*p.config.Threads) }

// Derive answers each request in its place. The batch is cut into as many
// pieces as derives run at once; what concurrent callers ask goes to a worker
// together.
func (p *Pool) Derive(ctx context.Context, requests []DeriveRequest) []DeriveResult {
	results := make([]DeriveResult, len(requests))
	if len(requests) == 0 {
		return results
	}
	b := &batch{done: make(chan struct{})}
	b.left.Store(int32(len(requests)))
	items := make([]item, len(requests))
	all := make([]*item, len(requests))
	for i := range items {
		items[i] = item{request: requests[i], ctx: ctx, batch: b}
		all[i] = &items[i]
	}
	// Longer than any worker is given: only when no worker lives.
	limit := time.NewTimer(3 * p.config.RequestTimeout)
	defer limit.Stop()
	failed := func(err error) []DeriveResult {
		for i := range results {
			results[i] = DeriveResult{Err: err}
		}
		return results
	}
	lanes := p.lanes()
	for piece := range slices.Chunk(all, min(maxPiece, (len(all)+lanes-1)/lanes)) {
		p.queued.Add(int64(len(piece)))
		var err error
		select {
		case p.queue <- piece:
			continue
		case <-ctx.Done():
			err = fmt.Errorf("deriving: %w", ctx.Err())
		case <-p.closing:
			err = &Error{Op: "deriving", Kind: p.cause}
		case <-limit.C:
			err = &Error{Op: "deriving: no token worker answers", Kind: ErrTokenBroken}
		}
		p.queued.Add(int64(-len(piece)))
		return failed(err)
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		return failed(fmt.Errorf("deriving: %w", ctx.Err()))
	case <-p.closing:
		return failed(&Error{Op: "deriving", Kind: p.cause})
	case <-limit.C:
		return failed(&Error{Op: "deriving: no token worker answers", Kind: ErrTokenBroken})
	}
	for i := range items {
		results[i] = items[i].result
		clear(items[i].result.X[:])
	}
	return results
}

// feed takes what is queued, a fair share of it in whole pieces, sends it to w
// in one frame, and awaits the answer.
func (p *Pool) feed(w *worker) {
	var (
		room     [2 * maxPiece]*item
		requests [2 * maxPiece]DeriveRequest
		results  [2 * maxPiece]DeriveResult
	)
	defer clear(results[:])
	for {
		items := room[:0]
		take := func(piece []*item) {
			p.queued.Add(int64(-len(piece)))
			items = append(items, piece...)
		}
		select {
		case <-w.dead:
			return
		case <-w.retiring:
			return
		case piece := <-p.queue:
			take(piece)
		}
		if ended(w.dead) { // select had both to choose from
			for _, i := range items {
				p.again(i, DeriveResult{Err: errLost})
			}
			return
		}
		share := len(items) + int(p.queued.Load())/p.lanes()
	more:
		for len(items) < min(share, maxPiece) { // so that one piece more has room
			select {
			case piece := <-p.queue:
				take(piece)
			default:
				break more
			}
		}
		sent := items[:0]
		for _, i := range items {
			if err := i.ctx.Err(); err != nil {
				i.deliver(DeriveResult{Err: err})
				continue
			}
			if !p.sendable(&i.request) {
				i.deliver(DeriveResult{Err: &Error{Op: "deriving", Kind: ErrKeyMissing}})
				continue
			}
			requests[len(sent)] = i.request
			sent = append(sent, i)
		}
		if len(sent) == 0 {
			continue
		}
		err := w.derive(requests[:len(sent)], results[:len(sent)], p.config.RequestTimeout)
		w.derived.Add(uint64(len(sent)))
		for k, i := range sent {
			r := results[k]
			if err != nil {
				r = DeriveResult{Err: errLost}
			}
			// To derive is to read: it may be done twice. Once more only, or
			// an input that kills workers would kill them all.
			if i.tries == 0 && (errors.Is(r.Err, ErrTokenBroken) || errors.Is(r.Err, ErrSessionBroken)) {
				i.tries++
				p.again(i, r)
				continue
			}
			i.deliver(r)
		}
	}
}

var errLost = &Error{Op: "deriving: the token worker is gone", Kind: ErrTokenBroken}

// again puts i back into the queue; r is its result if the pool closes first.
// It does not wait: the queue may be full, and the caller is who empties it.
func (p *Pool) again(i *item, r DeriveResult) {
	go func() {
		p.queued.Add(1)
		select {
		case p.queue <- []*item{i}:
		case <-p.closing:
			p.queued.Add(-1)
			i.deliver(r)
		}
	}()
}

// some returns a worker at work, in turn, and waits for one if there is none.
// The worker is held: it does not retire before loops.Done.
func (p *Pool) some(ctx context.Context) (*worker, error) {
	limit := time.NewTimer(p.config.SlowTimeout)
	defer limit.Stop()
	for {
		if p.closed() {
			return nil, p.cause
		}
		p.mu.Lock()
		for range p.workers {
			p.turn++
			w := p.workers[p.turn%len(p.workers)]
			if !ended(w.retiring) && !ended(w.dead) {
				w.loops.Add(1)
				p.mu.Unlock()
				return w, nil
			}
		}
		joined := p.joined
		p.mu.Unlock()
		select {
		case <-joined:
		case <-p.closing:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-limit.C:
			return nil, errGone
		}
	}
}

func ended(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// ask calls a worker. Once it is sent, a call is not abandoned when ctx ends:
// the caller gets to know what came of it. again: it may be sent a second time
// if the first worker died over it, and so on until it met one that was started
// after all who live now are gone: the log stops at a signature that fails.
func (p *Pool) ask(ctx context.Context, c call, limit time.Duration, again bool) (reply, error) {
	for left := p.config.Workers; ; left-- {
		w, err := p.some(ctx)
		if err != nil {
			return reply{}, fmt.Errorf("calling token worker: %w", err)
		}
		r, err := w.call(c, limit)
		w.loops.Done()
		if again && left > 0 && (errors.Is(err, ErrTokenBroken) || errors.Is(err, ErrSessionBroken)) {
			continue
		}
		return r, err
	}
}

// tell makes a change known to every worker but one, and to those that join.
// Who cannot be told is killed, and is dead on return.
func (p *Pool) tell(c call, except *worker) {
	p.mu.Lock()
	workers := slices.Clone(p.workers)
	for _, j := range p.joining {
		j.changes = append(j.changes, c)
	}
	p.mu.Unlock()
	var all sync.WaitGroup
	for _, w := range workers {
		if w == except {
			continue
		}
		all.Go(func() {
			if _, err := w.call(c, p.config.SlowTimeout); err != nil {
				w.kill()
				<-w.dead
			}
		})
	}
	all.Wait()
}

// queueImport waits for a place among the imports. Whoever came first gets it first.
func (p *Pool) queueImport(ctx context.Context) error {
	select {
	case p.imports <- struct{}{}:
		return nil
	case <-p.closing:
		return &Error{Op: "importing key", Kind: p.cause}
	case <-ctx.Done():
		return fmt.Errorf("importing key: %w", ctx.Err())
	}
}

// witnessed has one worker make something in the token and another say what it
// finds there: it is made if both answer the same. A module that keeps objects
// in memory and in files says OK, and believes itself, whatever became of the
// files. If they differ, the maker is killed, so that nobody goes by what only
// it remembers. The caller holds admin.
func (p *Pool) witnessed(ctx context.Context, what, question call) error {
	maker, err := p.some(ctx)
	if err != nil {
		return fmt.Errorf("calling token worker: %w", err)
	}
	defer maker.loops.Done()
	made, err := maker.call(what, p.config.SlowTimeout)
	if err != nil {
		return err
	}
	defer clear(made.Data)
	// From here to the end, whether the caller waits or not.
	if err := p.otherSees(maker, question, made.Data); err != nil {
		return p.unseen(err, what.Method, maker)
	}
	return nil
}

// errDiffers: a worker does not find in the token what another made.
var errDiffers = errors.New("it answers something else")

// otherSees asks a worker that is not the maker what it finds.
func (p *Pool) otherSees(maker *worker, question call, want []byte) error {
	found, err := p.otherLooks(maker, question)
	if err == nil && !bytes.Equal(found.Data, want) {
		err = errDiffers
	}
	clear(found.Data)
	return err
}

// otherLooks asks a worker that is not the one that made or destroyed something, and another if it died, and has seen nothing.
func (p *Pool) otherLooks(than *worker, question call) (reply, error) {
	for left := p.config.Workers; ; left-- {
		var r reply
		w, release, err := p.other(than)
		if err == nil {
			r, err = w.call(question, p.config.SlowTimeout)
			release()
		}
		if left > 0 && !p.closed() && (errors.Is(err, ErrTokenBroken) || errors.Is(err, ErrSessionBroken)) {
			continue
		}
		return r, err
	}
}

// unseen kills the maker of what is not in the token for everyone, and returns the error that says so.
func (p *Pool) unseen(err error, made string, maker *worker) error {
	maker.kill()
	<-maker.dead
	kind := ErrTokenBroken
	if errors.Is(p.config.Profile.room(keyReserve), ErrTokenFull) {
		kind = ErrTokenFull
	}
	p.config.Logger.Error("what a token worker made is not in the token for another", "call", made, "error", err)
	return &Error{Op: "looking from another process for what was made", Kind: kind}
}

// beside returns a worker at work that is not w, and holds it; nil if there is none.
func (p *Pool) beside(w *worker) *worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range p.workers {
		p.turn++
		o := p.workers[p.turn%len(p.workers)]
		if o != w && !ended(o.retiring) && !ended(o.dead) {
			o.loops.Add(1)
			return o
		}
	}
	return nil
}

// other is beside; if there is none it starts one, which ends with its
// release. The caller holds admin, for which Close waits.
func (p *Pool) other(w *worker) (o *worker, release func(), err error) {
	if o = p.beside(w); o != nil {
		return o, o.loops.Done, nil
	}
	if o, err = p.start(); err != nil {
		return nil, nil, err
	}
	return o, func() { p.stop(o) }, nil
}

// Clean is Token.Clean. What it finds is logged.
func (p *Pool) Clean(ctx context.Context) (Cleaned, error) {
	p.admin.Lock()
	defer p.admin.Unlock()
	r, err := p.ask(ctx, call{Method: "clean"}, p.config.SlowTimeout, true)
	if err != nil {
		return Cleaned{}, err
	}
	if r.Cleaned.Unfinished > 0 {
		p.config.Logger.Info("destroyed objects that were never finished", "objects", r.Cleaned.Unfinished)
	}
	if r.Cleaned.Surplus > 0 {
		p.config.Logger.Warn("keys lay in the token more than once, and lie there once now", "destroyed", r.Cleaned.Surplus)
		p.tell(call{Method: "keys"}, nil) // who knew a key by the object that is gone
	}
	for _, id := range r.Cleaned.Disputed {
		p.config.Logger.Error("a key's name has several objects in the token of which none is surely the key, and none is used: somebody with the PIN made or changed one, or a crash left halves", "key", id.String())
	}
	for _, id := range r.Cleaned.Stuck {
		p.config.Logger.Error("a key lies in the token more than once, and the token refuses to destroy the other objects: somebody with the PIN made them so (CKA_DESTROYABLE). The key is used; "+
			"a revocation of it is not completed before they are gone. Stop the daemon and remove the objects of this CKA_ID with the token's own tools", "key", id.String(), "label", rekeyLabel)
	}
	if n := r.Cleaned.Nameless; n > 0 {
		p.config.Logger.Warn("objects without a name look as if they were never finished, and the token refuses to destroy them: somebody with the PIN made them so", "objects", n)
	}
	return r.Cleaned, nil
}

// Keys is Token.Keys.
func (p *Pool) Keys(ctx context.Context) ([]KeyID, error) {
	p.admin.Lock()
	defer p.admin.Unlock()
	r, err := p.ask(ctx, call{Method: "keys"}, p.config.SlowTimeout, true)
	return r.Keys, err
}

// sendable is asked right before a request goes to a worker. Forget marks
// first and tells the workers then: a worker that it does not tell has joined
// after the mark.
func (p *Pool) sendable(r *DeriveRequest) bool {
	if len(r.Sealed.Blob) == 0 {
		return true
	}
	p.forgetting.RLock()
	defer p.forgetting.RUnlock()
	return r.Sealed.valid() && !p.forgotten.has(r.Key)
}

// ImportSealed is Token.ImportSealed. Imports run in all workers at once.
func (p *Pool) ImportSealed(ctx context.Context, id KeyID, path string, wrapped []byte) (SealedKey, error) {
	if err := p.queueImport(ctx); err != nil {
		return SealedKey{}, err
	}
	defer func() { <-p.imports }()
	p.sealing.RLock()
	defer p.sealing.RUnlock()
	r, err := p.ask(ctx, call{Method: "importSealed", ID: id, Path: path, Data: wrapped}, p.config.SlowTimeout, true)
	if err != nil {
		return SealedKey{}, err
	}
	if len(r.Sealed) != 1 || !r.Sealed[0].valid() {
		return SealedKey{}, errGone
	}
	p.forgetting.Lock()
	known := p.forgotten.has(id)
	p.forgotten.remove(id)
	p.forgetting.Unlock()
	if known {
		p.tell(call{Method: "admitSealed", ID: id}, nil)
	}
	return r.Sealed[0], nil
}

// Reseal is Token.Reseal, in one worker.
func (p *Pool) Reseal(ctx context.Context, keys []SealedKey) ([]SealedKey, error) {
	p.sealing.RLock()
	defer p.sealing.RUnlock()
	r, err := p.ask(ctx, call{Method: "reseal", Sealed: keys}, p.config.SlowTimeout, true)
	if err != nil {
		return nil, err
	}
	if len(r.Sealed) != len(keys) {
		return nil, errGone
	}
	return r.Sealed, nil
}

// Forget is Token.Forget, for all workers, those to come included: on return
// no derive uses the key, and no request can load it.
func (p *Pool) Forget(ctx context.Context, id KeyID) error {
	p.forgetting.Lock()
	p.forgotten.add(id)
	p.forgetting.Unlock()
	p.tell(call{Method: "forgetSealed", ID: id}, nil)
	if p.closed() {
		return &Error{Op: "forgetting key", Kind: p.cause}
	}
	return nil
}

// SealingKeys is Token.SealingKeys. On return all workers seal under the newest.
func (p *Pool) SealingKeys(ctx context.Context) (periods []uint32, decoys int, err error) {
	p.sealing.Lock()
	defer p.sealing.Unlock()
	return p.refresh(ctx)
}

// refresh is SealingKeys, under its lock.
func (p *Pool) refresh(ctx context.Context) (periods []uint32, decoys int, err error) {
	r, err := p.ask(ctx, call{Method: "sealingKeys"}, p.config.SlowTimeout, true)
	if err == nil || errors.Is(err, ErrAttributes) {
		p.tell(call{Method: "refreshSealing"}, nil)
	}
	return r.Periods, r.Decoys, err
}

// DestroySealingKey is Token.DestroySealingKey. On return no worker uses
// anything that came in under the key. If a worker dies over it, ErrKeyMissing
// may mean that it had destroyed the key.
func (p *Pool) DestroySealingKey(ctx context.Context, period uint32) error {
	p.sealing.Lock()
	defer p.sealing.Unlock()
	periods, _, err := p.refresh(ctx)
	if err != nil {
		return fmt.Errorf("destroying sealing key: %w", err)
	}
	if len(periods) > 0 && period == periods[len(periods)-1] {
		return &Error{Op: fmt.Sprintf("destroying %q, the newest", string(SealingKey(period))), Kind: ErrRefused}
	}
	p.tell(call{Method: "retireSealing", Period: period}, nil)
	_, err = p.ask(ctx, call{Method: "destroySealing", Period: period}, p.config.SlowTimeout, true)
	// A worker that started between the two may have found the key and used
	// it; and if it was not destroyed, all go on with it.
	p.tell(call{Method: "refreshSealing"}, nil)
	return err
}

// Sign is Token.Sign. Both algorithms may sign a message twice.
func (p *Pool) Sign(ctx context.Context, message []byte) ([]byte, error) {
	r, err := p.ask(ctx, call{Method: "sign", Data: message}, p.config.RequestTimeout, true)
	return r.Data, err
}

// Seal is Token.Seal.
func (p *Pool) Seal(ctx context.Context, plain, aad []byte) ([]byte, error) {
	r, err := p.ask(ctx, call{Method: "seal", Data: plain, AAD: aad}, p.config.SlowTimeout, true)
	return r.Data, err
}

// Unseal is Token.Unseal.
func (p *Pool) Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	r, err := p.ask(ctx, call{Method: "unseal", Data: sealed, AAD: aad}, p.config.SlowTimeout, true)
	return r.Data, err
}

// SaveState is Token.SaveState, and then the older states are destroyed, by
// another process, which has found the new one in the token. Until then they
// stay, so LoadState never answers less than the last SaveState that returned nil.
func (p *Pool) SaveState(ctx context.Context, state []byte) error {
	p.admin.Lock()
	defer p.admin.Unlock()
	for left := p.config.Workers; ; left-- {
		err := p.witnessed(ctx, call{Method: "save", Data: state}, call{Method: "settle", Data: state})
		if err == nil || left <= 0 || !errors.Is(err, ErrTokenBroken) && !errors.Is(err, ErrSessionBroken) {
			return err
		}
	}
}

// LoadState is Token.LoadState.
func (p *Pool) LoadState(ctx context.Context) ([]byte, error) {
	p.admin.Lock() // else it might find only what SaveState destroys before it is read
	defer p.admin.Unlock()
	r, err := p.ask(ctx, call{Method: "load"}, p.config.SlowTimeout, true)
	return r.Data, err
}

// Probe is Token.Probe, in one worker.
func (p *Pool) Probe(ctx context.Context) (Findings, error) {
	r, err := p.ask(ctx, call{Method: "probe"}, p.config.SlowTimeout, true)
	return r.Findings, err
}

// Inspect is Token.Inspect.
func (p *Pool) Inspect(ctx context.Context, name KeyName) (KeyReport, error) {
	r, err := p.ask(ctx, call{Method: "inspect", Name: name}, p.config.SlowTimeout, true)
	return r.Report, err
}

// Info is Token.Info.
func (p *Pool) Info(ctx context.Context) (Info, error) {
	w, err := p.some(ctx)
	if err != nil {
		return Info{}, err
	}
	w.loops.Done()
	return w.info, nil
}

// Calls returns how often each C_ function was called, by all workers that
// ever lived. Of one that was killed it is what it last reported, at most
// about a second before.
func (p *Pool) Calls() map[string]uint64 {
	p.mu.Lock()
	workers := slices.Clone(p.workers)
	p.mu.Unlock()
	for _, w := range workers {
		if r, err := w.call(call{Method: "calls"}, p.config.RequestTimeout); err == nil {
			w.heard(r.Calls)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := make(map[string]uint64)
	for name, n := range p.retired {
		sum[name] += n
	}
	for _, w := range p.workers {
		w.mu.Lock()
		for name, n := range w.calls {
			sum[name] += n
		}
		w.mu.Unlock()
	}
	return sum
}
