package keylog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const origin = "vault.test/keylog"

// signer signs with a key in memory, and counts.
type signer struct {
	key   ed25519.PrivateKey
	mu    sync.Mutex
	count int
	hook  func(sig []byte) ([]byte, error) // may replace the answer
}

func (s *signer) Sign(_ context.Context, message []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	sig := ed25519.Sign(s.key, message)
	if s.hook != nil {
		return s.hook(sig)
	}
	return sig, nil
}

func (s *signer) signatures() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// keeper is a token data object in memory.
type keeper struct {
	mu    sync.Mutex
	value []byte
	err   error
}

func (k *keeper) Save(_ context.Context, b []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	k.value = bytes.Clone(b)
	return nil
}

func (k *keeper) Load(context.Context) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return bytes.Clone(k.value), k.err
}

// bench is a log's surroundings.
type bench struct {
	Config
	signer *signer
	keeper *keeper
}

func newBench(t testing.TB) *bench {
	root := t.TempDir()
	seed := sha256.Sum256([]byte("log key"))
	key := ed25519.NewKeyFromSeed(seed[:])
	b := &bench{signer: &signer{key: key}, keeper: &keeper{}}
	b.Config = Config{
		Dir:       filepath.Join(root, "log"),
		StateDir:  filepath.Join(root, "state"),
		Origin:    origin,
		PublicKey: key.Public().(ed25519.PublicKey),
		Signer:    b.signer,
		State:     b.keeper,
		Reserve:   1,
	}
	return b
}

// unsynced leaves out fsync, for tests that simulate a crash by a copy and open
// thousands of logs.
func (b *bench) unsynced() *bench {
	b.disk.sync = func(*os.File) error { return nil }
	b.disk.syncDir = func(string) error { return nil }
	return b
}

func (b *bench) create(t testing.TB) *Log {
	t.Helper()
	l, err := Create(t.Context(), b.Config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func (b *bench) open(t testing.TB) *Log {
	t.Helper()
	l, err := Open(t.Context(), b.Config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// refuse demands that the log does not open, with damage named.
func (b *bench) refuse(t *testing.T) *DamageError {
	t.Helper()
	l, err := Open(context.Background(), b.Config)
	if err == nil {
		l.Close()
		t.Fatal("opened a damaged log")
	}
	var damage *DamageError
	if !errors.As(err, &damage) {
		t.Fatalf("error is no DamageError: %v", err)
	}
	return damage
}

// clone copies folders and the token's copy.
func (b *bench) clone(t testing.TB) *bench {
	t.Helper()
	root := t.TempDir()
	c := *b
	c.Dir, c.StateDir = filepath.Join(root, "log"), filepath.Join(root, "state")
	c.keeper = &keeper{value: bytes.Clone(b.keeper.value)}
	c.State = c.keeper
	copyDir(t, c.Dir, b.Dir)
	copyDir(t, c.StateDir, b.StateDir)
	return &c
}

func copyDir(t testing.TB, to, from string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func load(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func store(t testing.TB, b []byte, path ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(path...), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func record(n int) Record {
	return Record{Entry: fmt.Appendf(nil, "entry %d", n), Body: fmt.Appendf(nil, "body %d", n)}
}

func records(from, n int) []Record {
	var rs []Record
	for i := range n {
		rs = append(rs, record(from+i))
	}
	return rs
}

func mustAppend(t testing.TB, l *Log, rs ...Record) Checkpoint {
	t.Helper()
	_, cp, err := l.Append(t.Context(), rs...)
	if err != nil {
		t.Fatal(err)
	}
	return cp
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// holds demands that the log holds record(0) to record(n-1) and nothing else,
// under a valid checkpoint.
func holds(t testing.TB, l *Log, n int) {
	t.Helper()
	cp := l.Checkpoint()
	if cp.Size != int64(n) {
		t.Fatalf("log has %d entries, want %d", cp.Size, n)
	}
	var tree mirror
	next := 0
	err := l.Replay(context.Background(), 0, func(p Position, r Record) error {
		if want := record(next); p.Index != int64(next) || !bytes.Equal(r.Entry, want.Entry) || !bytes.Equal(r.Body, want.Body) {
			return fmt.Errorf("entry %d is %d %q %q", next, p.Index, r.Entry, r.Body)
		}
		tree.add(Leaf(p.Time, r.Entry))
		next++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if next != n {
		t.Fatalf("replayed %d of %d", next, n)
	}
	if root := tree.root(int64(n)); root != cp.Root {
		t.Fatalf("root of %d entries is %v, want %v", n, cp.Root, root)
	}
	checkNote(t, l, cp)
}

// checkNote verifies a checkpoint with a verifier built from the key alone.
func checkNote(t testing.TB, l *Log, cp Checkpoint) {
	t.Helper()
	key, err := note.NewEd25519VerifierKey(origin, l.cfg.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open([]byte(cp.Note), note.VerifierList(verifier))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%s\n%d\n%s\n", origin, cp.Size, cp.Root); n.Text != want {
		t.Fatalf("checkpoint is %q, want %q", n.Text, want)
	}
}

// mirror is the same tree by tlog's own functions, in memory.
type mirror struct {
	hashes []tlog.Hash
	size   int64
}

func (m *mirror) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var hs []tlog.Hash
	for _, i := range indexes {
		hs = append(hs, m.hashes[i])
	}
	return hs, nil
}

func (m *mirror) add(leaf []byte) {
	hs, err := tlog.StoredHashes(m.size, leaf, m)
	if err != nil {
		panic(err)
	}
	m.hashes = append(m.hashes, hs...)
	m.size++
}

func (m *mirror) root(size int64) tlog.Hash {
	h, err := tlog.TreeHash(size, m)
	if err != nil {
		panic(err)
	}
	return h
}

func TestEdgeIsTlog(t *testing.T) {
	var e edge
	var m mirror
	var stored []byte
	if e.root() != m.root(0) {
		t.Fatal("the empty tree has another root")
	}
	for i := range 600 {
		leaf := fmt.Appendf(nil, "leaf %d", i)
		m.add(leaf)
		stored = e.add(stored, tlog.RecordHash(leaf))
		if e.root() != m.root(int64(i+1)) {
			t.Fatalf("root differs at %d", i+1)
		}
	}
	for i, h := range m.hashes {
		if !bytes.Equal(stored[i*32:(i+1)*32], h[:]) {
			t.Fatalf("stored hash %d differs", i)
		}
		if got, ok := e.lookup(int64(i)); ok && got != h {
			t.Fatalf("edge has another hash %d", i)
		}
	}
}

func TestAppendProveReadReopen(t *testing.T) {
	b := newBench(t)
	b.SegmentBytes = 2000
	l := b.create(t)
	rng := rand.New(rand.NewPCG(1, 2))
	var m mirror
	var roots []Checkpoint
	n := 0
	for n < 300 {
		k := 1 + rng.IntN(20)
		positions, cp, err := l.Append(t.Context(), records(n, k)...)
		if err != nil {
			t.Fatal(err)
		}
		if cp.Size != int64(n+k) {
			t.Fatalf("size %d after %d", cp.Size, n+k)
		}
		for i, p := range positions {
			if p.Index != int64(n+i) {
				t.Fatalf("position %d, want %d", p.Index, n+i)
			}
			m.add(Leaf(p.Time, record(n+i).Entry))
		}
		n += k
		if cp.Root != m.root(cp.Size) {
			t.Fatalf("root at %d differs", cp.Size)
		}
		roots = append(roots, cp)
		if rng.IntN(8) == 0 {
			mustClose(t, l)
			l = b.open(t)
			if l.Recovery() != (Recovery{}) {
				t.Fatalf("clean close needed recovery: %+v", l.Recovery())
			}
		}
	}
	if names, _ := segmentNames(b.Dir); len(names) < 5 {
		t.Fatalf("only %d segments", len(names))
	}
	holds(t, l, n)
	for i, cp := range roots {
		index := rng.Int64N(cp.Size)
		proof, err := l.Prove(index, cp.Size)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := l.ReadLeaf(index)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(proof, cp.Size, cp.Root, index, tlog.RecordHash(leaf)); err != nil {
			t.Fatal(err)
		}
		if tlog.CheckRecord(proof, cp.Size, cp.Root, index, tlog.RecordHash(append(leaf, 0))) == nil {
			t.Fatal("proof holds for another leaf")
		}
		old := roots[rng.IntN(i+1)]
		consistency, err := l.ProveConsistency(old.Size, cp.Size)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckTree(consistency, cp.Size, cp.Root, old.Size, old.Root); err != nil {
			t.Fatal(err)
		}
		p, r, err := l.Read(index)
		if err != nil || p.Index != index || !bytes.Equal(r.Entry, record(int(index)).Entry) || !bytes.Equal(Leaf(p.Time, r.Entry), leaf) {
			t.Fatalf("read %v %q: %v", p, r.Entry, err)
		}
	}
	for _, f := range []func() error{
		func() error { _, err := l.Prove(int64(n), int64(n)); return err },
		func() error { _, err := l.Prove(0, int64(n)+1); return err },
		func() error { _, err := l.Prove(-1, 1); return err },
		func() error { _, err := l.ProveConsistency(0, 1); return err },
		func() error { _, err := l.ProveConsistency(2, 1); return err },
		func() error { _, _, err := l.Read(int64(n)); return err },
		func() error { _, err := l.ReadLeaf(-1); return err },
		func() error {
			return l.Replay(t.Context(), int64(n)+1, func(Position, Record) error { return nil })
		},
	} {
		if err := f(); !errors.Is(err, ErrRange) {
			t.Errorf("out of range: %v", err)
		}
	}
}

func TestReplayStops(t *testing.T) {
	l := newBench(t).create(t)
	mustAppend(t, l, records(0, 10)...)
	stop := errors.New("enough")
	var seen []int64
	err := l.Replay(t.Context(), 4, func(p Position, _ Record) error {
		seen = append(seen, p.Index)
		if p.Index == 6 {
			return stop
		}
		mustAppend(t, l, record(int(10+p.Index))) // not deadlocked, not replayed
		return nil
	})
	if !errors.Is(err, stop) || fmt.Sprint(seen) != "[4 5 6]" {
		t.Fatalf("saw %v: %v", seen, err)
	}
	if err := l.Replay(t.Context(), l.Checkpoint().Size, nil); err != nil {
		t.Fatal(err)
	}
}

func TestCreateAndOpenAreExplicit(t *testing.T) {
	b := newBench(t)
	if _, err := Open(t.Context(), b.Config); !errors.Is(err, ErrNotCreated) {
		t.Fatalf("open of nothing: %v", err)
	}
	if _, err := os.Stat(b.Dir); err == nil {
		t.Fatal("open made a folder")
	}
	l := b.create(t)
	if _, err := Open(t.Context(), b.Config); !errors.Is(err, ErrLocked) {
		t.Fatalf("second open: %v", err)
	}
	// A copy of the log's folder must not find a second signer.
	fork := *b
	fork.Dir = t.TempDir()
	copyDir(t, fork.Dir, b.Dir)
	if _, err := Open(t.Context(), fork.Config); !errors.Is(err, ErrLocked) {
		t.Fatalf("open of a copy: %v", err)
	}
	mustAppend(t, l, record(0))
	mustClose(t, l)
	if _, err := Create(t.Context(), b.Config); !errors.Is(err, ErrExists) {
		t.Fatalf("create over a log: %v", err)
	}
	value := b.keeper.value
	b.keeper.value = nil
	if _, err := Create(t.Context(), b.Config); !errors.Is(err, ErrExists) {
		t.Fatalf("create over state and journal: %v", err)
	}
	if err := os.RemoveAll(b.StateDir); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), b.Config); !errors.Is(err, ErrExists) {
		t.Fatalf("create over a journal: %v", err)
	}
	b.refuse(t) // state gone, here and in the token
	b.keeper.value = value
	b.refuse(t) // state gone here
	if err := os.RemoveAll(b.Dir); err != nil {
		t.Fatal(err)
	}
	b.refuse(t) // only the token remembers
	if _, err := Create(t.Context(), b.Config); !errors.Is(err, ErrExists) {
		t.Fatalf("create where the token remembers: %v", err)
	}
}

func TestCreateCanBeRepeatedUntilTheTokenKnows(t *testing.T) {
	b := newBench(t)
	lost := errors.New("lost")
	for fail := 0; ; fail++ {
		n := 0
		step := func() error {
			if n++; n > fail {
				return lost
			}
			return nil
		}
		c := *b
		c.disk.write = func(f *os.File, p []byte, at int64) error {
			if err := step(); err != nil {
				return err
			}
			return writeAt(f, p, at)
		}
		c.disk.syncDir = func(dir string) error {
			if err := step(); err != nil {
				return err
			}
			return syncDir(dir)
		}
		l, err := Create(t.Context(), c.Config)
		if err != nil {
			if !errors.Is(err, lost) {
				t.Fatal(err)
			}
			if b.keeper.value == nil {
				continue
			}
			// The token knows: what was created opens from here on.
			l = b.open(t)
		}
		mustAppend(t, l, record(0))
		holds(t, l, 1)
		if fail < 5 {
			t.Fatalf("only %d steps failed", fail)
		}
		return
	}
}

func TestConfig(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no folder":          func(c *Config) { c.Dir = "" },
		"no signer":          func(c *Config) { c.Signer = nil },
		"no keeper":          func(c *Config) { c.State = nil },
		"bad origin":         func(c *Config) { c.Origin = "two words" },
		"plus in origin":     func(c *Config) { c.Origin = "a+b" },
		"short key":          func(c *Config) { c.PublicKey = c.PublicKey[1:] },
		"negative segment":   func(c *Config) { c.SegmentBytes = -1 },
		"negative reserve":   func(c *Config) { c.Reserve = -1 },
		"state in log":       func(c *Config) { c.StateDir = filepath.Join(c.Dir, "state") },
		"state is log":       func(c *Config) { c.StateDir = c.Dir },
		"state in log, dots": func(c *Config) { c.StateDir = c.Dir + "/x/../y" },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			change(&b.Config)
			if l, err := Create(t.Context(), b.Config); err == nil {
				l.Close()
				t.Fatal("accepted")
			} else if errors.Is(err, ErrLocked) {
				t.Fatal(err)
			}
		})
	}
	t.Run("state beside log", func(t *testing.T) {
		b := newBench(t)
		b.StateDir = b.Dir + "-state" // a common prefix is no containment
		b.create(t)
	})
}

func TestLimits(t *testing.T) {
	l := newBench(t).create(t)
	big := make([]byte, MaxRecord)
	mustAppend(t, l, Record{Entry: big[:10], Body: big[10:]})
	if _, _, err := l.Append(t.Context(), Record{Entry: big, Body: []byte{1}}); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	if _, _, err := l.Append(t.Context(), make([]Record, MaxBatch/30+1)...); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	if _, r, err := l.Read(0); err != nil || len(r.Body) != MaxRecord-10 {
		t.Fatal(err)
	}
	positions, cp, err := l.Append(t.Context())
	if err != nil || len(positions) != 0 || cp.Size != 1 {
		t.Fatalf("no records: %v %v %v", positions, cp, err)
	}
	mustAppend(t, l, Record{}) // empty, yet a record
	if _, r, err := l.Read(1); err != nil || len(r.Entry) != 0 || r.Body != nil {
		t.Fatalf("%v %v", r, err)
	}
	mustClose(t, l)
	if _, _, err := l.Append(t.Context(), record(0)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if _, err := l.Prove(0, 1); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if err := l.Health(); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	mustClose(t, l)
}

// TestOneSignatureForAllThatQueued also holds that a call's context ends only
// what has not begun.
func TestOneSignatureForAllThatQueued(t *testing.T) {
	b := newBench(t)
	l := b.create(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	b.signer.mu.Lock()
	b.signer.hook = func(sig []byte) ([]byte, error) {
		entered <- struct{}{}
		<-leave
		return sig, nil
	}
	b.signer.mu.Unlock()

	ctx, cancel := context.WithCancel(t.Context())
	begun := make(chan error, 1)
	go func() { _, _, err := l.Append(ctx, record(0)); begun <- err }()
	<-entered
	queued := make(chan error, 1)
	go func() { _, _, err := l.Append(ctx, record(999)); queued <- err }()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() { mustAppend(t, l, record(i), record(i)) })
	}
	for {
		l.mu.Lock()
		n := len(l.queue)
		l.mu.Unlock()
		if n == 51 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-queued; !errors.Is(err, context.Canceled) {
		t.Fatalf("queued call: %v", err)
	}
	select {
	case err := <-begun:
		t.Fatalf("a call returned before its commit ended: %v", err)
	default:
	}
	leave <- struct{}{}
	if err := <-begun; err != nil {
		t.Fatalf("begun call: %v", err)
	}
	<-entered
	before := l.Checkpoint().Size
	leave <- struct{}{}
	wg.Wait()
	if before != 1 || l.Checkpoint().Size != 101 {
		t.Fatalf("one commit took the log from %d to %d", before, l.Checkpoint().Size)
	}
	err := l.Replay(t.Context(), 0, func(_ Position, r Record) error {
		if bytes.Equal(r.Entry, record(999).Entry) {
			return errors.New("a withdrawn record was recorded")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestConcurrentUse(t *testing.T) {
	b := newBench(t)
	b.SegmentBytes = 20000
	l := b.create(t)
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	for w := range 16 {
		writers.Go(func() {
			for i := range 30 {
				positions, cp, err := l.Append(t.Context(), records(w*1000+i, 1+i%4)...)
				if err != nil {
					t.Error(err)
					return
				}
				p := positions[len(positions)-1]
				proof, err := l.Prove(p.Index, cp.Size)
				if err != nil {
					t.Error(err)
					return
				}
				leaf := tlog.RecordHash(Leaf(p.Time, record(w*1000+i+i%4).Entry))
				if err := tlog.CheckRecord(proof, cp.Size, cp.Root, p.Index, leaf); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 3 {
		readers.Go(func() {
			last := Checkpoint{}
			for {
				select {
				case <-done:
					return
				default:
				}
				cp := l.Checkpoint()
				if last.Size > 0 {
					proof, err := l.ProveConsistency(last.Size, cp.Size)
					if err == nil {
						err = tlog.CheckTree(proof, cp.Size, cp.Root, last.Size, last.Root)
					}
					if err != nil {
						t.Error(err)
					}
				}
				last = cp
				before := time.Time{}
				err := l.Replay(t.Context(), 0, func(p Position, _ Record) error {
					if p.Time.Before(before) {
						return errors.New("time goes backwards")
					}
					before = p.Time
					return nil
				})
				if err == nil {
					err = l.Health()
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	size := l.Checkpoint().Size
	if want := int64(16 * (7*(1+2+3+4) + 1 + 2)); size != want {
		t.Fatalf("%d entries, want %d", size, want)
	}
	mustClose(t, l)
	if got := b.open(t).Checkpoint().Size; got != size {
		t.Fatalf("%d entries after reopening, want %d", got, size)
	}
}

func TestCloseWhileAppending(t *testing.T) {
	b := newBench(t)
	l := b.create(t)
	var mu sync.Mutex
	acknowledged := int64(0)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				_, cp, err := l.Append(t.Context(), record(0))
				if err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				acknowledged = max(acknowledged, cp.Size)
				mu.Unlock()
			}
		})
	}
	for l.Checkpoint().Size < 20 {
		time.Sleep(time.Millisecond)
	}
	mustClose(t, l)
	wg.Wait()
	if size := b.open(t).Checkpoint().Size; size != acknowledged {
		t.Fatalf("%d entries, %d acknowledged", size, acknowledged)
	}
}

func TestClock(t *testing.T) {
	b := newBench(t)
	wall, mono := time.UnixMilli(1_800_000_000_000), time.Duration(0)
	var mu sync.Mutex
	b.Clock = func() (time.Time, time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		return wall, mono
	}
	pass := func(w, m time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		wall, mono = wall.Add(w), mono+m
	}
	l := b.create(t)
	at := func() time.Time {
		t.Helper()
		positions, _, err := l.Append(t.Context(), record(0))
		if err != nil {
			t.Fatal(err)
		}
		return positions[0].Time
	}
	first := at()
	if !first.Equal(wall) {
		t.Fatalf("stamped %v at %v", first, wall)
	}
	pass(-3*time.Second, 0)
	if got := at(); !got.Equal(first) {
		t.Fatalf("a small step back was stamped %v, want %v", got, first)
	}
	pass(time.Hour, time.Hour)
	if got := at(); !got.Equal(wall) {
		t.Fatalf("stamped %v at %v", got, wall)
	}
	size := l.Checkpoint().Size
	for _, step := range []time.Duration{10 * time.Second, -3 * time.Second} { // from -3 s to +7 s, to +4 s
		pass(step, 0)
		if step > 0 {
			if err := l.Health(); !errors.Is(err, ErrClock) {
				t.Fatalf("health after a step: %v", err)
			}
		}
		if _, _, err := l.Append(t.Context(), record(0)); !errors.Is(err, ErrClock) {
			t.Fatalf("append after a step: %v", err)
		}
	}
	if err := l.Health(); !errors.Is(err, ErrClock) {
		t.Fatal("the clock's step did not stick")
	}
	if l.Checkpoint().Size != size {
		t.Fatal("recorded with a clock that stepped")
	}
	mustClose(t, l)

	pass(-20*time.Second, 0)
	if _, err := Open(t.Context(), b.Config); !errors.Is(err, ErrClock) {
		t.Fatalf("open with a clock before the newest entry: %v", err)
	}
	pass(14*time.Second, 0)
	l = b.open(t)
	at()
}

func TestNoSpace(t *testing.T) {
	b := newBench(t)
	var mu sync.Mutex
	free := int64(1 << 30)
	b.Reserve = 1 << 20
	b.disk.free = func(string) (int64, error) {
		mu.Lock()
		defer mu.Unlock()
		return free, nil
	}
	l := b.create(t)
	mustAppend(t, l, record(0))
	set := func(n int64) { mu.Lock(); free = n; mu.Unlock() }
	for _, n := range []int64{1<<20 - 1, 1<<20 + 10, 0} {
		set(n)
		if _, _, err := l.Append(t.Context(), record(1)); !errors.Is(err, ErrNoSpace) || errors.Is(err, ErrFatal) {
			t.Fatalf("%d bytes free: %v", n, err)
		}
		if err := l.Health(); n < 1<<20 && !errors.Is(err, ErrNoSpace) {
			t.Fatalf("health with %d bytes free: %v", n, err)
		}
	}
	set(1 << 30)
	if err := l.Health(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, record(1))
	mustClose(t, l)
	holds(t, b.open(t), 2)
}

func TestTokenCopyIsNeverNewer(t *testing.T) {
	b := newBench(t)
	l := b.create(t)
	copied := func() int64 {
		s, err := parseSigned(b.keeper.value)
		if err != nil {
			t.Fatal(err)
		}
		return s.size
	}
	mustAppend(t, l, records(0, 5)...)
	if copied() != 0 {
		t.Fatal("the token was written to by an Append")
	}
	if err := l.keepState(t.Context()); err != nil || copied() != 5 {
		t.Fatalf("copy at %d: %v", copied(), err)
	}
	b.keeper.err = errors.New("token away")
	if err := l.keepState(t.Context()); !errors.Is(err, ErrStaleCopy) {
		t.Fatal(err)
	}
	if err := l.Health(); !errors.Is(err, ErrStaleCopy) {
		t.Fatal(err)
	}
	mustAppend(t, l, record(5)) // key use goes on
	if err := l.Close(); !errors.Is(err, ErrStaleCopy) {
		t.Fatalf("close without the token: %v", err)
	}
	if _, err := Open(t.Context(), b.Config); err == nil {
		t.Fatal("opened without the token's copy")
	}
	b.keeper.err = nil
	l = b.open(t)
	holds(t, l, 6)
	if copied() != 6 {
		t.Fatalf("copy at %d after open", copied())
	}
	mustAppend(t, l, record(6))
	mustClose(t, l)
	if copied() != 7 {
		t.Fatalf("copy at %d after close", copied())
	}
}

func TestSealKeyDoesNotPrint(t *testing.T) {
	key := newSealKey([]byte{0xab, 0xcd, 0xef, 0x99})
	type holder struct{ log *Log }
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q", "%t", "%p", "%e"} {
		for _, v := range []any{*key, key, &Log{key: key}, holder{&Log{key: key}}, &holder{&Log{key: key}}} {
			s := fmt.Sprintf(verb, v)
			if strings.Contains(s, "abcdef99") || strings.Contains(s, "171 205 239") || strings.Contains(s, "0xab, 0xcd") {
				t.Errorf("%s prints the seal key in %T", verb, v)
			}
		}
	}
	if key.LogValue().String() != "redacted" {
		t.Error("log value is not redacted")
	}
}
