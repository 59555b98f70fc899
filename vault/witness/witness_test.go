package witness

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// begun is when the tests' clock begins.
var begun = time.Unix(1_800_000_000, 0).UTC()

// testLog is a log whose host signs whatever it likes.
type testLog struct {
	name   string
	key    ed25519.PrivateKey
	host   *evidence.CosignerKey
	hashes stored
	size   int64
}

type stored []tlog.Hash

func (s stored) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = s[x]
	}
	return out, nil
}

func newLog(t testing.TB, name string) *testLog {
	host, err := evidence.NewCosignerKey(name+"/host", &[32]byte{1})
	must(t, err)
	return &testLog{name: name, key: ed25519.NewKeyFromSeed(make([]byte, 32)), host: host}
}

func (l *testLog) grow(size int64, branch string) *testLog {
	for ; l.size < size; l.size++ {
		h, err := tlog.StoredHashes(l.size, fmt.Appendf(nil, "%s %d", branch, l.size), l.hashes)
		if err != nil {
			panic(err)
		}
		l.hashes = append(l.hashes, h...)
	}
	return l
}

// fork is another log of the same keys that begins alike.
func (l *testLog) fork() *testLog {
	o := *l
	o.hashes = l.hashes[:len(l.hashes):len(l.hashes)]
	return &o
}

func (l *testLog) witnessed() Log {
	return Log{policies.LogKey{Name: l.name, Algorithm: "Ed25519", PublicKey: l.key.Public().(ed25519.PublicKey)}, []evidence.Cosigner{l.host.Cosigner()}}
}

func (l *testLog) root(size int64) tlog.Hash {
	h, err := tlog.TreeHash(size, l.hashes)
	if err != nil {
		panic(err)
	}
	return h
}

// token is the checkpoint with the token's line.
func (l *testLog) token(size int64, root tlog.Hash) string {
	public, err := note.NewEd25519VerifierKey(l.name, l.key.Public().(ed25519.PublicKey))
	if err != nil {
		panic(err)
	}
	signer, err := note.NewSigner("PRIVATE+KEY+" + l.name + "+" + strings.Split(public, "+")[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, l.key.Seed()...)))
	if err != nil {
		panic(err)
	}
	text, err := note.Sign(&note.Note{Text: evidence.Checkpoint{Size: uint64(size), Root: policies.Hash(root)}.Text(l.name)}, signer)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (l *testLog) hostLine(size int64, root tlog.Hash) string {
	line, err := l.host.Cosign(l.name, evidence.Checkpoint{Size: uint64(size), Root: policies.Hash(root)}, begun)
	if err != nil {
		panic(err)
	}
	return line
}

func (l *testLog) checkpoint(size int64) string {
	return l.token(size, l.root(size)) + l.hostLine(size, l.root(size))
}

// ask is the body of a request.
func ask(old int64, proof tlog.TreeProof, text string) []byte {
	b := fmt.Appendf(nil, "old %d\n", old)
	for _, h := range proof {
		b = append(b, base64.StdEncoding.EncodeToString(h[:])+"\n"...)
	}
	return append(append(b, '\n'), text...)
}

// step is a request for a size, with the proof from another.
func (l *testLog) step(old, size int64) []byte {
	var proof tlog.TreeProof
	if old > 0 && old < size {
		var err error
		if proof, err = tlog.ProveTree(size, old, l.hashes); err != nil {
			panic(err)
		}
	}
	return ask(old, proof, l.checkpoint(size))
}

// world is a witness of a log and what it keeps.
type world struct {
	*Witness
	t    testing.TB
	cfg  Config
	keys []evidence.Cosigner
	now  time.Time
}

func newWorld(t testing.TB, logs ...*testLog) *world {
	t.Helper()
	w := &world{t: t, now: begun}
	key, err := NewKey("witness.test/w1")
	must(t, err)
	w.cfg.Keys, err = ParseKey(key)
	must(t, err)
	for _, k := range w.cfg.Keys {
		w.keys = append(w.keys, k.Cosigner())
	}
	w.cfg.State, w.cfg.Seen, w.cfg.Now = t.TempDir(), t.TempDir(), func() time.Time { return w.now }
	for _, l := range logs {
		w.cfg.Logs = append(w.cfg.Logs, l.witnessed())
	}
	must(t, w.open())
	t.Cleanup(w.close)
	return w
}

func (w *world) open() (err error) {
	w.close()
	w.Witness, err = Open(w.cfg)
	return err
}

func (w *world) close() {
	if w.Witness != nil {
		must(w.t, w.Close())
	}
	w.Witness = nil
}

// cosigned checks an answer under both keys of the witness.
func (w *world) cosigned(l *testLog, text, lines string) evidence.Checkpoint {
	w.t.Helper()
	var c evidence.Checkpoint
	for _, k := range w.keys {
		got, by, err := evidence.OpenCosigned(text+lines, l.witnessed().Key, evidence.Witnesses{Need: 1, Of: []evidence.Cosigner{k}})
		if err != nil || !by[0].At.Equal(w.now) {
			w.t.Fatalf("the answer does not verify: %v, %+v", err, by)
		}
		c = got
	}
	return c
}

// refusal is the status and what comes with it.
func refusal(t testing.TB, err error) *Refusal {
	t.Helper()
	r := (*Refusal)(nil)
	if !errors.As(err, &r) {
		t.Fatalf("not refused: %v", err)
	}
	return r
}

func TestAddCheckpoint(t *testing.T) {
	l := newLog(t, "vault.test/log").grow(300, "a")
	w := newWorld(t, l)
	other := newLog(t, "other.test/log").grow(300, "a")
	stranger := newLog(t, "vault.test/log").grow(300, "a")
	stranger.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))

	for _, c := range []struct{ old, size int64 }{{0, 0}, {0, 7}, {7, 7}, {7, 8}, {8, 256}, {256, 299}} {
		w.now = w.now.Add(time.Second)
		text := l.checkpoint(c.size)
		lines, err := w.AddCheckpoint(l.step(c.old, c.size))
		must(t, err)
		if got := w.cosigned(l, text, lines); got.Size != uint64(c.size) || w.Size(l.name) != uint64(c.size) {
			t.Fatalf("cosigned %d entries, want %d", got.Size, c.size)
		}
		if c.size == 7 {
			must(t, w.open())
		}
	}

	fork := newLog(t, "vault.test/log").grow(200, "a").grow(300, "b")
	proof := func(l *testLog, old, size int64) tlog.TreeProof {
		p, err := tlog.ProveTree(size, old, l.hashes)
		must(t, err)
		return p
	}
	text := l.checkpoint(300)
	hash := base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n"
	for name, c := range map[string]struct {
		body   string
		status int
	}{
		"nothing":                     {"", 400},
		"no old line":                 {"\n\n" + text, 400},
		"no size":                     {"old \n\n" + text, 400},
		"leading zero":                {"old 0299\n\n" + text, 400},
		"signed size":                 {"old +299\n\n" + text, 400},
		"negative size":               {"old -1\n\n" + text, 400},
		"two spaces":                  {"old  299\n\n" + text, 400},
		"carriage return":             {"old 299\r\n\r\n" + text, 400},
		"a proof that is no base64":   {"old 299\nxyz\n\n" + text, 400},
		"a hash of 31 bytes":          {"old 299\n" + base64.StdEncoding.EncodeToString(make([]byte, 31)) + "\n\n" + text, 400},
		"64 hashes":                   {"old 299\n" + strings.Repeat(hash, 64) + "\n" + text, 400},
		"63 hashes":                   {"old 299\n" + strings.Repeat(hash, 63) + "\n" + text, 422},
		"no checkpoint":               {"old 299\n\n", 400},
		"an old size above the new":   {"old 301\n\n" + text, 400},
		"four lines":                  {"old 299\n\n" + strings.Replace(text, "\n\n", "\nextension\n\n", 1), 403},
		"an unknown log":              {string(other.step(0, 300)), 404},
		"no signature":                {"old 299\n\n" + text[:strings.Index(text, "\n\n")+2], 403},
		"the token's line alone":      {string(ask(299, proof(l, 299, 300), l.token(300, l.root(300)))), 403},
		"the host's line alone":       {"old 299\n\n" + text[:strings.Index(text, "\n\n")+2] + l.hostLine(300, l.root(300)), 403},
		"a stranger's key":            {string(stranger.step(299, 300)), 403},
		"the host's line of another":  {string(ask(299, proof(l, 299, 300), l.token(300, l.root(300))+l.hostLine(299, l.root(299)))), 403},
		"another tree under the line": {strings.Replace(string(l.step(299, 300)), "\n300\n", "\n301\n", 1), 403},
		"an older old size":           {string(l.step(256, 300)), 409},
		"from nothing":                {string(l.step(0, 300)), 409},
		"back":                        {string(l.step(256, 298)), 409},
		"no proof":                    {string(ask(299, nil, text)), 422},
		"a proof of another size":     {string(ask(299, proof(l, 298, 300), text)), 422},
		"another root for its size":   {string(fork.step(299, 299)), 422},
		"a fork":                      {string(fork.step(299, 300)), 422},
		"a proof where none is due":   {string(ask(299, tlog.TreeProof{{}}, l.checkpoint(299))), 422},
	} {
		if _, err := w.AddCheckpoint([]byte(c.body)); refusal(t, err).Status != c.status {
			t.Errorf("%s: %d %s, want %d", name, refusal(t, err).Status, err, c.status)
		} else if c.status == 409 && refusal(t, err).Size != 299 {
			t.Errorf("%s: the size is said to be %d", name, refusal(t, err).Size)
		}
	}
	if w.Size(l.name) != 299 {
		t.Errorf("a refusal moved the state to %d", w.Size(l.name))
	}
	lines, err := w.AddCheckpoint(append(l.step(299, 300), "\u2014 stranger.test "+base64.StdEncoding.EncodeToString(make([]byte, 70))+"\n"...))
	must(t, err)
	w.cosigned(l, text, lines)

	// An empty log has one root, and a proof from it has no hashes.
	fresh := newWorld(t, l)
	if _, err := fresh.AddCheckpoint(ask(0, nil, l.token(0, tlog.Hash{})+l.hostLine(0, tlog.Hash{}))); refusal(t, err).Status != 422 {
		t.Error(err)
	}
	if _, err := fresh.AddCheckpoint(ask(0, tlog.TreeProof{{}}, l.checkpoint(5))); refusal(t, err).Status != 422 {
		t.Error(err)
	}
}

// Of two histories that a host shows at once, from many connections, one is cosigned, and each size with one root.
func TestTwoHistoriesAtOnce(t *testing.T) {
	a := newLog(t, "vault.test/log").grow(10, "a")
	b := a.fork()
	a.grow(120, "a")
	b.grow(120, "b")
	w := newWorld(t, a)
	var mu sync.Mutex
	roots := map[uint64]policies.Hash{}
	var wait sync.WaitGroup
	for _, l := range []*testLog{a, b, a, b} {
		wait.Go(func() {
			for size := int64(1); size <= 120; size++ {
				lines, err := w.AddCheckpoint(l.step(min(int64(w.Size(l.name)), size), size))
				if err != nil {
					refusal(t, err)
					continue
				}
				mu.Lock()
				c := w.cosigned(l, l.checkpoint(size), lines)
				if root, ok := roots[c.Size]; ok && root != c.Root {
					t.Errorf("two roots of %d entries", c.Size)
				}
				roots[c.Size] = c.Root
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if len(roots) < 20 {
		t.Errorf("only %d sizes were cosigned: the test tests nothing", len(roots))
	}
	var branch string
	for size, root := range roots {
		if size <= 10 {
			continue
		}
		of := "a"
		if root == policies.Hash(b.root(int64(size))) {
			of = "b"
		}
		if branch == "" {
			branch = of
		}
		if of != branch {
			t.Errorf("%d entries of branch %s, others of %s", size, of, branch)
		}
	}
}

// After a fault at any step nothing is signed until the witness is started again, and then whatever was or was not on disk, no size has two roots.
func TestFaults(t *testing.T) {
	a := newLog(t, "vault.test/log").grow(10, "a")
	b := a.fork()
	a.grow(20, "a")
	b.grow(20, "b")
	steps := map[string]bool{}
	for n := 0; ; n++ {
		w := newWorld(t, a)
		first, err := w.AddCheckpoint(a.step(0, 10))
		must(t, err)
		w.cosigned(a, a.checkpoint(10), first)
		left, failed := n, ""
		w.cfg.fault = func(step string) error {
			if left--; left == -1 {
				failed = strings.NewReplacer(w.cfg.State, "state", w.cfg.Seen, "seen").Replace(step)
				return errors.New("the disk is gone")
			}
			return nil
		}
		must(t, w.open())
		lines, err := w.AddCheckpoint(a.step(10, 20))
		switch {
		case failed == "" && err == nil:
			w.cosigned(a, a.checkpoint(20), lines)
			if len(steps) != 8 {
				t.Errorf("%d steps failed, of %d tries: %v", len(steps), n, steps)
			}
			return
		case err == nil:
			t.Fatalf("%s: signed all the same", failed)
		}
		for _, l := range []*testLog{a, b} {
			if _, err := w.AddCheckpoint(l.step(10, 20)); err == nil {
				t.Fatalf("%s: signed after it", failed)
			}
		}
		steps[failed[:strings.LastIndex(failed, "/")]] = true
		w.cfg.fault = nil
		must(t, w.open())
		persisted := w.Size(a.name) == 20
		if strings.HasPrefix(failed, "sync folder of state") != persisted && !strings.Contains(failed, "seen") {
			t.Errorf("%s: cosigned %d", failed, w.Size(a.name))
		}
		_, err = w.AddCheckpoint(b.step(int64(w.Size(a.name)), 20))
		if persisted && err == nil {
			t.Fatalf("%s: a second root", failed)
		}
		if !persisted {
			must(t, err)
		}
	}
}

func TestState(t *testing.T) {
	l := newLog(t, "vault.test/log").grow(30, "a")
	fork := newLog(t, "vault.test/log").grow(30, "b")
	file := hex.EncodeToString(func() []byte { s := sha256.Sum256([]byte(l.name)); return s[:] }())
	setup := func(t *testing.T) (w *world, state, seen string, older, olderSeen []byte) {
		w = newWorld(t, l)
		state, seen = filepath.Join(w.cfg.State, file), filepath.Join(w.cfg.Seen, file)
		_, err := w.AddCheckpoint(l.step(0, 10))
		must(t, err)
		older, err = os.ReadFile(state)
		must(t, err)
		olderSeen, err = os.ReadFile(seen)
		must(t, err)
		_, err = w.AddCheckpoint(l.step(10, 20))
		must(t, err)
		return w, state, seen, older, olderSeen
	}
	elsewhere := newWorld(t, fork) // another witness, of the other branch
	_, err := elsewhere.AddCheckpoint(fork.step(0, 20))
	must(t, err)
	foreign, err := os.ReadFile(filepath.Join(elsewhere.cfg.State, file))
	must(t, err)
	for name, c := range map[string]struct {
		change func(t *testing.T, state, seen string, older, olderSeen []byte)
		want   string
	}{
		"an older state":     {func(t *testing.T, state, _ string, older, _ []byte) { must(t, os.WriteFile(state, older, 0o600)) }, "an older state was put back"},
		"no state":           {func(t *testing.T, state, _ string, _, _ []byte) { must(t, os.Remove(state)) }, "is gone"},
		"no record":          {func(t *testing.T, _, seen string, _, _ []byte) { must(t, os.Remove(seen)) }, "is gone"},
		"an empty state":     {func(t *testing.T, state, _ string, _, _ []byte) { must(t, os.WriteFile(state, nil, 0o600)) }, "malformed"},
		"an empty record":    {func(t *testing.T, _, seen string, _, _ []byte) { must(t, os.WriteFile(seen, nil, 0o600)) }, "not origin, size and root"},
		"a state of another": {func(t *testing.T, state, _ string, _, _ []byte) { must(t, os.WriteFile(state, foreign, 0o600)) }, "witnesses signed it"},
		"a state without our line": {func(t *testing.T, state, _ string, _, _ []byte) {
			must(t, os.WriteFile(state, []byte(fork.checkpoint(20)), 0o600))
		}, "witnesses signed it"},
		"another root on record": {func(t *testing.T, _, seen string, _, _ []byte) {
			must(t, os.WriteFile(seen, []byte(evidence.Checkpoint{Size: 20, Root: policies.Hash{1}}.Text(l.name)), 0o600))
		}, "another root"},
		"a huge state": {func(t *testing.T, state, _ string, _, _ []byte) { must(t, os.Truncate(state, 1<<20)) }, "not a file of at most"},
		"a folder": {func(t *testing.T, state, _ string, _, _ []byte) {
			must(t, os.Remove(state))
			must(t, os.Mkdir(state, 0o700))
		}, "not a file"},
		"no folder of the state": {func(t *testing.T, state, _ string, _, _ []byte) { must(t, os.RemoveAll(filepath.Dir(state))) }, "the folder"},
		"no folder of records":   {func(t *testing.T, _, seen string, _, _ []byte) { must(t, os.RemoveAll(filepath.Dir(seen))) }, "the folder"},
		"an older record":        {func(t *testing.T, _, seen string, _, olderSeen []byte) { must(t, os.WriteFile(seen, olderSeen, 0o600)) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w, state, seen, older, olderSeen := setup(t)
			w.close()
			c.change(t, state, seen, older, olderSeen)
			err := w.open()
			if c.want == "" {
				must(t, err)
				if w.Size(l.name) != 20 {
					t.Errorf("cosigned %d", w.Size(l.name))
				}
				return
			}
			if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}

	// Each byte of either file, flipped: refused, or nothing is lost.
	w, state, seen, _, _ := setup(t)
	for _, path := range []string{state, seen} {
		content, err := os.ReadFile(path)
		must(t, err)
		for i := range content {
			if path == state && i > 400 && i%97 != 0 { // of the signatures, some
				continue
			}
			w.close()
			flipped := bytes.Clone(content)
			flipped[i] ^= 1 << (i % 8)
			must(t, os.WriteFile(path, flipped, 0o600))
			if err := w.open(); err == nil && w.Size(l.name) != 20 {
				t.Fatalf("%s: byte %d flipped, and %d entries are cosigned", path, i, w.Size(l.name))
			} else if err == nil {
				if _, err := w.AddCheckpoint(fork.step(20, 20)); err == nil {
					t.Fatalf("%s: byte %d flipped, and a second root signed", path, i)
				}
			} else if !errors.Is(err, ErrState) {
				t.Fatal(err)
			}
			must(t, os.WriteFile(path, content, 0o600))
		}
	}
	must(t, w.open())

	// Two processes at one state.
	if _, err := Open(w.cfg); err == nil || !strings.Contains(err.Error(), "another witness") {
		t.Errorf("a second witness: %v", err)
	}

	// A clock that goes back.
	_, err = w.AddCheckpoint(l.step(20, 21))
	must(t, err)
	w.now = w.now.Add(-time.Second)
	must(t, w.open())
	if _, err := w.AddCheckpoint(l.step(21, 22)); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Errorf("with a clock before the last cosignature: %v", err)
	}
	w.now = w.now.Add(time.Second)
	_, err = w.AddCheckpoint(l.step(21, 22))
	must(t, err)
}

func TestConfig(t *testing.T) {
	l := newLog(t, "vault.test/log")
	w := newWorld(t, l)
	w.close()
	own := *l
	own.name = "witness.test/w1"
	for want, change := range map[string]func(c *Config){
		"needs a key":       func(c *Config) { c.Keys = nil },
		"a log to witness":  func(c *Config) { c.Logs = nil },
		"named twice":       func(c *Config) { c.Logs = append(c.Logs, c.Logs[0]) },
		"witness itself":    func(c *Config) { c.Logs = []Log{own.witnessed()} },
		"the key of log":    func(c *Config) { c.Logs = []Log{{Key: policies.LogKey{Name: "x", PublicKey: []byte{1}}}} },
		"none is not there": func(c *Config) { c.State += "/none" },
	} {
		cfg := w.cfg
		change(&cfg)
		if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for _, name := range []string{"", "a b", "a+b", strings.Repeat("x", 256)} {
		if _, err := NewKey(name); err == nil {
			t.Errorf("a witness named %q", name)
		}
	}
	if _, err := ParseKey([]byte(`{"name":"w","seed":"c2VjcmV0"}`)); err == nil || strings.Contains(err.Error(), "c2VjcmV0") {
		t.Errorf("%v", err)
	}
}

func TestHTTP(t *testing.T) {
	l := newLog(t, "vault.test/log").grow(30, "a")
	w := newWorld(t, l)
	server := httptest.NewServer(w.Handler(Rate{PerSecond: 0.001, Burst: 9}))
	defer server.Close()
	sum := sha256.Sum256([]byte(l.name))
	monitor := "/" + hex.EncodeToString(sum[:]) + "/checkpoint"
	do := func(method, path string, body []byte) (int, string, string) {
		t.Helper()
		request, err := http.NewRequest(method, server.URL+path, bytes.NewReader(body))
		must(t, err)
		response, err := http.DefaultClient.Do(request)
		must(t, err)
		defer response.Body.Close()
		var b bytes.Buffer
		_, err = b.ReadFrom(response.Body)
		must(t, err)
		return response.StatusCode, response.Header.Get("Content-Type"), b.String()
	}
	if status, _, _ := do("GET", monitor, nil); status != 404 {
		t.Errorf("before anything was cosigned: %d", status)
	}
	status, _, lines := do("POST", "/add-checkpoint", l.step(0, 12))
	if status != 200 {
		t.Fatal(status, lines)
	}
	w.cosigned(l, l.checkpoint(12), lines)
	if status, kind, body := do("POST", "/add-checkpoint", l.step(0, 13)); status != 409 || kind != "text/x.tlog.size" || body != "12\n" {
		t.Errorf("%d %s %q", status, kind, body)
	}
	if status, kind, body := do("POST", "/add-checkpoint", l.step(12, 13)[:100]); status != 400 || kind != "application/problem+json" || !strings.Contains(body, `"code":"malformed"`) {
		t.Errorf("%d %s %q", status, kind, body)
	}
	if status, _, _ := do("POST", "/add-checkpoint", make([]byte, MaxBody+1)); status != 413 {
		t.Errorf("a huge body: %d", status)
	}
	if status, _, _ := do("GET", "/add-checkpoint", nil); status != 404 {
		t.Errorf("a GET: %d", status)
	}
	// The monitor's copy has the log's lines and the witness's, and nothing that somebody added.
	_, err := w.AddCheckpoint(append(l.step(12, 14), "\u2014 stranger.test "+base64.StdEncoding.EncodeToString(make([]byte, 70))+"\n"...))
	must(t, err)
	status, _, body := do("GET", monitor, nil)
	c, by, err := evidence.OpenCosigned(body, l.witnessed().Key, evidence.Witnesses{Need: 2, Of: []evidence.Cosigner{l.host.Cosigner(), w.keys[0]}})
	if status != 200 || err != nil || c.Size != 14 || len(by) != 2 || strings.Contains(body, "stranger") {
		t.Errorf("%d, %v: %s", status, err, body)
	}
	if status, _, _ := do("GET", "/00/checkpoint", nil); status != 404 {
		t.Errorf("another log: %d", status)
	}
	do("GET", monitor, nil)
	if status, _, body := do("POST", "/add-checkpoint", l.step(14, 15)); status != 429 || w.Size(l.name) != 14 {
		t.Errorf("beyond the rate: %d %s", status, body)
	}
}

func FuzzRequest(f *testing.F) {
	l := newLog(f, "vault.test/log").grow(9, "a")
	f.Add(l.step(0, 5))
	f.Add(l.step(5, 9))
	f.Add([]byte("old 0\n\n\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseRequest(body)
		if err != nil {
			return
		}
		if again := ask(int64(r.old), r.proof, string(r.note)); r.old < 1<<63 && !bytes.Equal(again, body) {
			t.Errorf("%q is read as %q", body, again)
		}
	})
}

func FuzzSeen(f *testing.F) {
	f.Add([]byte(evidence.Checkpoint{Size: 5, Root: policies.Hash{1}}.Text("o")))
	f.Fuzz(func(t *testing.T, record []byte) {
		if c, err := parseSeen(record, "o"); err == nil && c.Text("o") != string(record) {
			t.Errorf("%q is read as %+v", record, c)
		}
	})
}

func FuzzKey(f *testing.F) {
	key, err := NewKey("w")
	must(f, err)
	f.Add(key)
	f.Fuzz(func(t *testing.T, data []byte) {
		if keys, err := ParseKey(data); err == nil && (len(keys) != 2 || keys[0].Cosigner().Name != keys[1].Cosigner().Name) {
			t.Errorf("%q gives %v", data, keys)
		}
	})
}
