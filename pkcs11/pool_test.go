package pkcs11

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"
)

// The test binary plays the worker, as sallyport-vault does, and for one test
// the parent too.
func TestMain(m *testing.M) {
	switch os.Getenv("SALLYPORT_TEST_PLAYS") {
	case "worker", "noisy worker", "slow worker", "fragile worker":
		if starts := os.Getenv("SALLYPORT_TEST_STARTS"); starts != "" {
			f, err := os.OpenFile(starts, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				os.Exit(3)
			}
			_, _ = f.WriteString("x")
			_ = f.Close()
		}
		if text := os.Getenv("SALLYPORT_TEST_FILE_SIZE"); text != "" { // a write beyond it fails, as on a full disk
			n, err := strconv.ParseUint(text, 10, 64)
			if err != nil || unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: n}) != nil {
				os.Exit(3)
			}
		}
		if os.Getenv("SALLYPORT_TEST_PLAYS") == "noisy worker" {
			go func() {
				time.Sleep(200 * time.Millisecond)
				for {
					_, _ = syscall.Write(1, []byte("a module prints what it likes\n"))
					time.Sleep(5 * time.Millisecond)
				}
			}()
		}
		if os.Getenv("SALLYPORT_TEST_PLAYS") == "slow worker" {
			time.Sleep(2 * time.Second)
		}
		var in io.Reader = os.Stdin
		if os.Getenv("SALLYPORT_TEST_PLAYS") == "fragile worker" {
			in = fragile{in}
		}
		if err := Serve(in, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case "officer": // another process makes a sealing key while workers live
		var p Profile
		if err := json.Unmarshal([]byte(os.Getenv("SALLYPORT_TEST_CONFIG")), &p); err != nil {
			os.Exit(3)
		}
		period, err := strconv.ParseUint(os.Getenv("SALLYPORT_TEST_PERIOD"), 10, 32)
		if err != nil {
			os.Exit(3)
		}
		token, err := Open(context.Background(), Config{Profile: p, Role: Officer, PIN: pin(officerPIN), Threads: 1})
		if err == nil {
			_, err = token.Generate(context.Background(), SealingKey(uint32(period)))
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		_ = token.Close()
		os.Exit(0)
	case "parent":
		var c PoolConfig
		if err := json.Unmarshal([]byte(os.Getenv("SALLYPORT_TEST_CONFIG")), &c.Profile); err != nil {
			os.Exit(3)
		}
		c.Command, c.Env = os.Args[:1], workerEnv()
		c.Selector, c.PIN, c.Workers, c.Threads = Selector{Label: testLabel}, pin(userPIN), 1, 1
		p, err := Start(context.Background(), c)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(p.workers[0].cmd.Process.Pid)
		select {}
	}
	os.Exit(m.Run())
}

func workerEnv(more ...string) []string {
	return append([]string{"SALLYPORT_TEST_PLAYS=worker", "SOFTHSM2_CONF=" + os.Getenv("SOFTHSM2_CONF")}, more...)
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func pool(t testing.TB, p Profile, change func(*PoolConfig)) *Pool {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := PoolConfig{Command: []string{executable}, Env: workerEnv(), Workers: 2, Threads: 2, Profile: p,
		Selector: Selector{Label: testLabel}, PIN: pin(userPIN), Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if change != nil {
		change(&c)
	}
	pool, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return pool
}

// imported puts a new key into the pool and returns a check that derives with it n times.
func imported(t testing.TB, p *Pool, public *rsa.PublicKey) (KeyID, func(n int) error) {
	t.Helper()
	key, id := newKey(t), newID()
	if _, err := p.Import(t.Context(), id, OAEPDirect, wrappedKey(t, public, key)); err != nil {
		t.Fatal(err)
	}
	req, want := request(t, id, key)
	return id, func(n int) error {
		requests := make([]DeriveRequest, n)
		for i := range requests {
			requests[i] = req
		}
		for _, r := range p.Derive(background, requests) {
			if r.Err != nil {
				return r.Err
			}
			if r.X != want {
				return errors.New("wrong x")
			}
		}
		return nil
	}
}

func (p *Pool) pids() (pids []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		pids = append(pids, w.cmd.Process.Pid)
	}
	return pids
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func TestPool(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, nil)
	id, check := imported(t, p, public)
	if err := check(100); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Import(t.Context(), id, OAEPDirect, make([]byte, 384)); !errors.Is(err, ErrKeyExists) {
		t.Errorf("the same id again: %v", err)
	}
	if _, err := p.Import(t.Context(), newID(), OAEPDirect, make([]byte, 384)); !errors.Is(err, ErrBadInput) {
		t.Errorf("garbage: %v", err)
	}
	if keys, err := p.Keys(t.Context()); err != nil || len(keys) != 1 || keys[0] != id {
		t.Errorf("keys: %v %v", keys, err)
	}
	if sig, err := p.Sign(t.Context(), []byte("m")); err != nil || len(sig) != 64 {
		t.Errorf("signature: %v", err)
	}
	sealed, err := p.Seal(t.Context(), []byte("k"), []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := p.Unseal(t.Context(), sealed, []byte("a")); err != nil || string(plain) != "k" {
		t.Errorf("%q %v", plain, err)
	}
	if _, err := p.Unseal(t.Context(), sealed, []byte("b")); !errors.Is(err, ErrBadInput) {
		t.Errorf("unsealed with other data: %v", err)
	}
	if _, err := p.LoadState(t.Context()); !errors.Is(err, ErrStateMissing) {
		t.Errorf("no state: %v", err)
	}
	for i := range 4 { // by different workers
		want := strconv.Itoa(i)
		if err := p.SaveState(t.Context(), []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := p.LoadState(t.Context()); err != nil || string(got) != want {
			t.Errorf("%q %v", got, err)
		}
	}
	if f, err := p.Probe(t.Context()); err != nil || len(f.Keys) != 3 || len(f.Derives) != 4 {
		t.Errorf("%+v %v", f, err)
	}
	if r, err := p.Inspect(t.Context(), LogKey); err != nil || r.Name != LogKey {
		t.Errorf("%+v %v", r, err)
	}
	if i, err := p.Info(t.Context()); err != nil || i.Label != testLabel {
		t.Errorf("%+v %v", i, err)
	}
	calls := p.Calls()
	if err := check(10); err != nil {
		t.Fatal(err)
	}
	if n := p.Calls()["C_DeriveKey"] - calls["C_DeriveKey"]; n != 10 {
		t.Errorf("%d derives counted for 10", n)
	}
	if err := p.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := check(10); !errors.Is(err, ErrKeyMissing) {
			t.Fatalf("after the end: %v", err)
		}
	}
	if err := p.Destroy(t.Context(), id); !errors.Is(err, ErrKeyMissing) {
		t.Errorf("destroyed twice: %v", err)
	}
}

// Killing workers under load is not seen by callers, and counts are kept.
func TestPoolSurvivesKills(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, func(c *PoolConfig) { c.Workers = 3 })
	_, check := imported(t, p, public)
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for !ended(stop) {
				if err := check(7); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	last := p.Calls()["C_DeriveKey"]
	for range 3 {
		before := p.pids()
		if err := syscall.Kill(before[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "three workers again", func() bool {
			now := p.pids()
			return len(now) == 3 && now[2] != before[2]
		})
		_, later := imported(t, p, public)
		if err := later(30); err != nil {
			t.Error(err)
		}
		if n := p.Calls()["C_DeriveKey"]; n < last {
			t.Errorf("count fell from %d to %d", last, n)
		} else {
			last = n
		}
	}
	close(stop)
	load.Wait()
}

// A worker that hangs is killed after its time, and its derives are answered
// by another.
func TestPoolEndsHungWorker(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, func(c *PoolConfig) { c.RequestTimeout = 700 * time.Millisecond })
	_, check := imported(t, p, public)
	hung := p.pids()[0]
	if err := syscall.Kill(hung, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := check(8); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a replacement", func() bool {
		now := p.pids()
		return len(now) == 2 && now[0] != hung && now[1] != hung
	})
}

func TestPoolRecycles(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, func(c *PoolConfig) { c.Workers, c.RecycleAfter = 1, 50 })
	_, check := imported(t, p, public)
	before := p.pids()[0]
	if err := check(60); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another process", func() bool {
		if err := check(1); err != nil { // there is always one to answer
			t.Fatal(err)
		}
		now := p.pids()
		return len(now) == 1 && now[0] != before
	})
	if n := p.Calls()["C_DeriveKey"]; n < 60 {
		t.Errorf("%d derives counted", n)
	}
}

// A wrong PIN is sent once, by one worker, and never again.
func TestPoolWrongPIN(t *testing.T) {
	profile, _ := ceremony(t)
	starts := filepath.Join(t.TempDir(), "starts")
	var log logBuffer
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	_, err = Start(t.Context(), PoolConfig{Command: []string{executable}, Env: workerEnv("SALLYPORT_TEST_STARTS=" + starts), Workers: 3, Threads: 1,
		Profile: profile, Selector: Selector{Label: testLabel}, PIN: pin("wrong-0000"), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if !errors.Is(err, ErrPINIncorrect) {
		t.Errorf("got %v", err)
	}
	if n, err := os.ReadFile(starts); err != nil || len(n) != 1 {
		t.Errorf("%d attempts, %v", len(n), err)
	}
	if all := fmt.Sprint(err) + log.String(); strings.Contains(all, "wrong-0000") {
		t.Error("the PIN is shown")
	}
}

// Keys come and go while workers die: whoever answers knows the truth.
func TestPoolChangesWhileWorkersJoin(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, nil)
	stop := make(chan struct{})
	var killer sync.WaitGroup
	var checks atomic.Int64
	var kills atomic.Int64
	killer.Go(func() {
		for at := int64(-1); !ended(stop); time.Sleep(50 * time.Millisecond) {
			// One at a time, and not the one that may be importing: its outcome would be open. Nor before what the last kill hit is answered: a derive
			// survives one worker, not two.
			if checks.Load() > at && p.admin.TryLock() {
				if pids := p.pids(); len(pids) == 2 {
					_ = syscall.Kill(pids[0], syscall.SIGKILL)
					at = checks.Load()
					kills.Add(1)
				}
				p.admin.Unlock()
			}
		}
	})
	for round := 0; round < 30 || kills.Load() < 10; round++ {
		id, one := imported(t, p, public)
		check := func(n int) error {
			defer checks.Add(1)
			return one(n)
		}
		if err := check(20); err != nil {
			t.Error(err)
		}
		if err := p.Destroy(t.Context(), id); err != nil {
			t.Error(err)
		}
		if err := check(20); !errors.Is(err, ErrKeyMissing) {
			t.Errorf("after the end: %v", err)
		}
	}
	close(stop)
	killer.Wait()
	t.Logf("%d kills", kills.Load())
}

// A worker is killed while it imports or destroys. What is acknowledged holds,
// whoever answers; what is not can be destroyed, and is then gone, and can be
// imported again.
func TestPoolKilledWhileItChanges(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, nil)
	kill := func() func() {
		var killer sync.WaitGroup
		pids, wait := p.pids(), rand.N(25*time.Millisecond)
		killer.Go(func() {
			time.Sleep(wait)
			for _, pid := range pids {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		})
		return killer.Wait
	}
	open := 0
	for range 12 {
		key, id := newKey(t), newID()
		req, want := request(t, id, key)
		derive := func() (err error) {
			for range 3 { // each of the two that were killed may take one try with it
				for _, r := range p.Derive(background, []DeriveRequest{req, req, req, req}) {
					if err = r.Err; err == nil && r.X != want {
						err = errors.New("wrong x")
					}
					if err != nil {
						break
					}
				}
				if !errors.Is(err, ErrTokenBroken) {
					break
				}
			}
			return err
		}
		blob := wrappedKey(t, public, key)
		wait := kill()
		_, err := p.Import(background, id, OAEPDirect, blob)
		wait()
		if err != nil {
			open++
			if !errors.Is(err, ErrTokenBroken) {
				t.Errorf("importing: %v", err)
			}
			if err := p.Destroy(background, id); err != nil && !errors.Is(err, ErrKeyMissing) {
				t.Fatalf("after a failed import: %v", err)
			}
			if err := derive(); !errors.Is(err, ErrKeyMissing) {
				t.Errorf("after it was destroyed: %v", err)
			}
			if _, err := p.Import(background, id, OAEPDirect, blob); err != nil {
				t.Fatalf("importing again: %v", err)
			}
		}
		if err := derive(); err != nil {
			t.Errorf("after an acknowledged import: %v", err)
		}
		wait = kill()
		err = p.Destroy(background, id)
		wait()
		if err != nil {
			open++
			if err := p.Destroy(background, id); err != nil && !errors.Is(err, ErrKeyMissing) {
				t.Fatalf("destroying again: %v", err)
			}
		}
		if err := derive(); !errors.Is(err, ErrKeyMissing) {
			t.Errorf("after an acknowledged end: %v", err)
		}
	}
	if keys, err := p.Keys(background); err != nil || len(keys) != 0 {
		t.Errorf("left: %v %v", keys, err)
	}
	t.Logf("%d of 24 outcomes were open", open)
}

// A worker that joins is told of changes that are no longer so, and joins.
func TestPoolKeyGoneBeforeWorkerJoins(t *testing.T) {
	profile, public := ceremony(t)
	p := pool(t, profile, func(c *PoolConfig) { c.Workers = 1 })
	p.config.Env = append(workerEnv(), "SALLYPORT_TEST_PLAYS=slow worker")
	type started struct {
		w   *worker
		err error
	}
	done := make(chan started, 1)
	go func() {
		w, err := p.start()
		done <- started{w, err}
	}()
	eventually(t, "a worker on its way", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.joining) == 1
	})
	gone, _ := imported(t, p, public)
	if err := p.Destroy(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	_, check := imported(t, p, public)
	s := <-done
	if s.err != nil {
		t.Fatalf("it did not join: %v", s.err)
	}
	if err := check(50); err != nil {
		t.Error(err)
	}
	p.stop(s.w)
}

// What a module prints does not come between frames.
func TestPoolNoisyModule(t *testing.T) {
	profile, public := ceremony(t)
	var log logBuffer
	p := pool(t, profile, func(c *PoolConfig) {
		c.Env = append(workerEnv(), "SALLYPORT_TEST_PLAYS=noisy worker")
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	before := p.pids()
	_, check := imported(t, p, public)
	eventually(t, "noise in the log", func() bool {
		if err := check(5); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(log.String(), "prints what it likes")
	})
	if now := p.pids(); now[0] != before[0] || now[1] != before[1] {
		t.Error("a worker was replaced")
	}
}

// The PIN is on no command line and in no environment.
func TestPoolHidesPIN(t *testing.T) {
	profile, _ := ceremony(t)
	t.Setenv("SALLYPORT_DEV_PIN", userPIN)
	p := pool(t, profile, nil)
	for _, pid := range p.pids() {
		for _, file := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if errors.Is(err, os.ErrPermission) {
				continue // not dumpable: better still
			}
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b, []byte(userPIN)) {
				t.Errorf("the PIN is in %s", file)
			}
		}
	}
}

// Workers do not outlive a parent that was killed.
func TestWorkersDieWithParent(t *testing.T) {
	profile, _ := ceremony(t)
	config, err := json.Marshal(profile)
	if err != nil {
		t.Fatal(err)
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(executable)
	parent.Env = []string{"SALLYPORT_TEST_PLAYS=parent", "SALLYPORT_TEST_CONFIG=" + string(config), "SOFTHSM2_CONF=" + os.Getenv("SOFTHSM2_CONF")}
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var line [32]byte
	n, _ := out.Read(line[:])
	worker, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil {
		t.Fatalf("%q", line[:n])
	}
	// Stopped, so that only the death signal can end it.
	if err := syscall.Kill(worker, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	eventually(t, "the worker's end", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", worker))
		return err != nil || bytes.Contains(stat, []byte(") Z "))
	})
}

func TestPoolClosed(t *testing.T) {
	profile, _ := ceremony(t)
	p := pool(t, profile, nil)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if r := p.Derive(t.Context(), make([]DeriveRequest, 2)); !errors.Is(r[1].Err, ErrClosed) {
		t.Errorf("%v", r[1].Err)
	}
	if _, err := p.Sign(t.Context(), []byte("m")); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	if len(p.pids()) != 0 {
		t.Error("workers left")
	}
}
