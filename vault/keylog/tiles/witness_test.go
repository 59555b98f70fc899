package tiles

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/witness"
)

// theWitness is a real one behind a server that a test can bend.
type theWitness struct {
	*httptest.Server
	witness *witness.Witness
	key     *evidence.CosignerKey

	mu    sync.Mutex
	bend  func(http.ResponseWriter, *http.Request) // nil: the witness answers
	asked int
}

// bent has the witness answer otherwise; nil: as it should.
func (w *theWitness) bent(by func(http.ResponseWriter, *http.Request)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bend = by
}

// count is how often it was asked.
func (w *theWitness) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked
}

func newWitness(t testing.TB, name string, now func() time.Time) *theWitness {
	t.Helper()
	secret, err := witness.NewKey(name)
	must(t, err)
	keys, err := witness.ParseKey(secret)
	must(t, err)
	w := &theWitness{key: keys[0]}
	w.witness, err = witness.Open(witness.Config{Logs: []witness.Log{witness.VaultLog(document(t))}, Keys: keys, State: t.TempDir(), Seen: t.TempDir(), Now: now})
	must(t, err)
	honest := w.witness.Handler(witness.Rate{PerSecond: 1e6, Burst: 1e6})
	w.Server = httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		w.mu.Lock()
		w.asked++
		bend := w.bend
		w.mu.Unlock()
		if bend != nil {
			body, _ := io.ReadAll(in.Body) // else the server does not notice that the client is gone
			in.Body = io.NopCloser(bytes.NewReader(body))
			bend(out, in)
			return
		}
		honest.ServeHTTP(out, in)
	}))
	t.Cleanup(func() { w.Server.CloseClientConnections(); w.Server.Close(); w.witness.Close() })
	return w
}

func (w *theWitness) entry() Witness {
	return Witness{Key: w.key.Cosigner(), URL: w.URL, Client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// cosignedBy opens the published checkpoint under a rule.
func cosignedBy(t testing.TB, dir string, need int, of ...*theWitness) (evidence.Published, error) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	must(t, err)
	rule := evidence.Witnesses{Need: need}
	for _, w := range of {
		rule.Of = append(rule.Of, w.key.Cosigner())
	}
	return evidence.OpenPublished(string(text), document(t), rule)
}

func TestWitnesses(t *testing.T) {
	dir := t.TempDir()
	w1, w2 := newWitness(t, "witness.test/w1", nil), newWitness(t, "witness.test/w2", nil)
	m := &memory{}
	cfg := config(t, dir, m)
	cfg.Witnesses, cfg.Need = []Witness{w1.entry(), w2.entry()}, 2
	p := publisher(t, cfg)
	for i, size := range []int64{1, 2, 255, 257, 700} {
		m.size = size
		if i == 2 { // another process, which does not know how far the witnesses are
			p = publisher(t, cfg)
		}
		must(t, p.Publish(t.Context()))
		got, err := cosignedBy(t, dir, 2, w1, w2)
		if err != nil || int64(got.Size) != size {
			t.Fatalf("%d entries: %v, %+v", size, err, got)
		}
		check(t, dir)
		for _, s := range p.Status().Witnesses {
			if s.Size != size || s.Err != nil || s.At.IsZero() {
				t.Errorf("%d entries: %+v", size, s)
			}
		}
	}
	before := w1.count()
	must(t, p.Publish(t.Context()))
	if w1.count() != before {
		t.Error("asked again, though nothing was added")
	}
	// Another branch under the same keys: neither cosigns it, from whatever folder.
	forked := config(t, t.TempDir(), &memory{size: 800, forks: map[int64]bool{300: true}})
	forked.Witnesses, forked.Need = cfg.Witnesses, 1
	if err := publisher(t, forked).Publish(t.Context()); !errors.Is(err, ErrWitnesses) || !errors.Is(err, ErrRefused) {
		t.Errorf("a fork: %v", err)
	}
	if _, err := os.Stat(filepath.Join(forked.Dir, "checkpoint")); err == nil {
		t.Error("a fork was published")
	}
	// And a log that lost entries.
	forked = config(t, t.TempDir(), &memory{size: 600})
	forked.Witnesses, forked.Need = cfg.Witnesses, 1
	if err := publisher(t, forked).Publish(t.Context()); !errors.Is(err, ErrAhead) {
		t.Errorf("a log that lost entries: %v", err)
	}
	for _, need := range []int{-1, 3} {
		bad := cfg
		bad.Need = need
		if _, err := New(bad); err == nil {
			t.Errorf("%d of 2 are needed", need)
		}
	}
	bad := cfg
	bad.Witnesses = []Witness{w1.entry(), w1.entry()}
	if _, err := New(bad); err == nil {
		t.Error("one witness twice")
	}
}

// A witness that is away, slow, or lies, delays nothing where another one is enough, and stops publication where it is needed, with its reason. Nothing it sends
// comes to be published. When it is mended, publication goes on.
func TestBadWitnesses(t *testing.T) {
	other, err := evidence.NewCosignerKey("witness.test/bad", &[32]byte{77})
	must(t, err)
	text := func(s string) func(http.ResponseWriter, *http.Request) {
		return func(out http.ResponseWriter, in *http.Request) { io.Copy(io.Discard, in.Body); io.WriteString(out, s) }
	}
	conflict := func(s string) func(http.ResponseWriter, *http.Request) {
		return func(out http.ResponseWriter, in *http.Request) {
			io.Copy(io.Discard, in.Body)
			out.WriteHeader(http.StatusConflict)
			io.WriteString(out, s)
		}
	}
	flips := 0
	for name, c := range map[string]struct {
		bend func(http.ResponseWriter, *http.Request)
		want error
	}{
		"hangs":               {hang, ErrAway},
		"hangs in its answer": {func(out http.ResponseWriter, in *http.Request) { out.(http.Flusher).Flush(); hang(out, in) }, ErrAway},
		"breaks off":          {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ErrAway},
		"says nothing":        {text(""), ErrAnswer},
		"garbage":             {text("\u2014 witness.test/bad AAAA\n\x00\xff"), ErrAnswer},
		"without an end": {func(out http.ResponseWriter, in *http.Request) {
			for in.Context().Err() == nil {
				if _, err := out.Write(bytes.Repeat([]byte("x\n"), 4096)); err != nil {
					break
				}
			}
			hang(out, in)
		}, ErrAway},
		"another key": {func(out http.ResponseWriter, _ *http.Request) {
			io.WriteString(out, must1(other.Cosign(origin, evidence.Checkpoint{Size: 10}, begun)))
		}, ErrAnswer},
		"a thousand lines": {text(strings.Repeat("\u2014 witness.test/bad "+base64.StdEncoding.EncodeToString(make([]byte, 30))+"\n", 1000)), ErrAnswer},
		"refuses":          {func(out http.ResponseWriter, _ *http.Request) { out.WriteHeader(422) }, ErrRefused},
		"is broken":        {func(out http.ResponseWriter, _ *http.Request) { out.WriteHeader(503) }, ErrRefused},
		"sends elsewhere": {func(out http.ResponseWriter, in *http.Request) {
			http.Redirect(out, in, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}, ErrRefused},
		"is ahead":             {conflict("11\n"), ErrAhead},
		"is far ahead":         {conflict("9223372036854775807\n"), ErrAhead},
		"a size beyond all":    {conflict("99999999999999999999\n"), ErrAnswer},
		"a negative size":      {conflict("-1\n"), ErrAnswer},
		"a conflict of words":  {conflict("no\n"), ErrAnswer},
		"a conflict with zero": {conflict("0\n"), ErrAnswer},
		"two numbers":          {conflict("3\n4\n"), ErrAnswer},
		"another size each time": {func(out http.ResponseWriter, in *http.Request) {
			flips++
			conflict(fmt.Sprintf("%d\n", 1+flips%9))(out, in)
		}, ErrAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good, bad := newWitness(t, "witness.test/good", nil), newWitness(t, "witness.test/bad", nil)
			bad.bent(c.bend)
			dir := t.TempDir()
			m := &memory{size: 10}
			cfg := config(t, dir, m)
			cfg.Witnesses, cfg.Need = []Witness{bad.entry(), good.entry()}, 1
			p := publisher(t, cfg)
			begin := time.Now()
			must(t, p.Publish(t.Context()))
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("one that is good is enough, and it took %v", took)
			}
			if s := p.Status(); s.Err != nil || !errors.Is(s.Witnesses[0].Err, c.want) || s.Witnesses[1].Err != nil {
				t.Errorf("status %+v, want %v", s, c.want)
			}
			if got, err := cosignedBy(t, dir, 1, good, bad); err != nil || len(got.Witnesses) != 1 {
				t.Errorf("%v, %+v", err, got)
			}
			if name == "hangs" || name == "hangs in its answer" {
				return // that it stops publication where it is needed takes askTimeout, and is the same for both: see TestPause
			}

			cfg.Dir, cfg.Need = t.TempDir(), 2
			p = publisher(t, cfg)
			if err := p.Publish(t.Context()); !errors.Is(err, ErrWitnesses) || !errors.Is(err, c.want) {
				t.Errorf("where both are needed: %v, want %v", err, c.want)
			}
			if _, err := os.Stat(filepath.Join(cfg.Dir, "checkpoint")); err == nil {
				t.Error("published with one of two")
			}
			before := bad.count()
			if err := p.Publish(t.Context()); !errors.Is(err, ErrWitnesses) || bad.count() != before {
				t.Errorf("asked again at once: %v", err)
			}
			m.size = 300 // it grows meanwhile
			bad.bent(nil)
			for end := time.Now().Add(10 * time.Second); p.Publish(t.Context()) != nil; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("mended, and still: %v", p.Status().Err)
				}
			}
			if got, err := cosignedBy(t, cfg.Dir, 2, good, bad); err != nil || got.Size != 300 || check(t, cfg.Dir) != 300 {
				t.Errorf("%v, %+v", err, got)
			}
			left, err := filepath.Glob(filepath.Join(cfg.Dir, "tile/0/000.p"))
			if must(t, err); left != nil {
				t.Errorf("left over: %v", left)
			}
		})
	}
}

// hang answers nothing, when its caller is gone neither: an end of the answer might still be read then.
func hang(_ http.ResponseWriter, in *http.Request) {
	<-in.Context().Done()
	panic(http.ErrAbortHandler)
}

func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A witness that fails is asked again after one second, two, four, and then a minute at most. A checkpoint that was long under way is not published.
func TestPause(t *testing.T) {
	w := newWitness(t, "witness.test/w1", nil)
	now := begun
	cfg := config(t, t.TempDir(), &memory{size: 10})
	cfg.Witnesses, cfg.Need, cfg.Now = []Witness{w.entry()}, 1, func() time.Time { return now }
	var log bytes.Buffer
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	p := publisher(t, cfg)
	a := p.witnesses[0]
	at := time.Now()
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		a.took(0, at, ErrAway, at)
		if got := a.due.Sub(at); got != want*time.Second {
			t.Errorf("a pause of %v, want %v s", got, want)
		}
	}
	a.took(0, at, nil, at)

	w.bent(func(out http.ResponseWriter, in *http.Request) {
		now = now.Add(maxAge + time.Second)
		w.bent(nil)
		w.Config.Handler.ServeHTTP(out, in)
	})
	if err := p.Publish(t.Context()); !errors.Is(err, ErrWitnesses) || !strings.Contains(err.Error(), "31s old") {
		t.Errorf("a checkpoint that was long under way: %v", err)
	}
	a.due = time.Time{}
	must(t, p.Publish(t.Context()))
	if !strings.Contains(log.String(), "a witness does not cosign") || !strings.Contains(log.String(), "cosigns again") {
		t.Errorf("the log says %s", &log)
	}

	begin := time.Now()
	w.bent(hang)
	cfg.Dir = t.TempDir()
	if err := publisher(t, cfg).Publish(t.Context()); !errors.Is(err, ErrAway) {
		t.Errorf("one that hangs: %v", err)
	}
	if took := time.Since(begin); took < askTimeout || took > askTimeout+5*time.Second {
		t.Errorf("one that hangs took %v", took)
	}
}

// A log that does not grow is cosigned again each hour, and one checkpoint an hour is kept, over restarts too.
func TestKept(t *testing.T) {
	now := begun
	clock := func() time.Time { return now }
	w := newWitness(t, "witness.test/w1", clock)
	m := &memory{size: 5}
	cfg := config(t, t.TempDir(), m)
	cfg.Witnesses, cfg.Need, cfg.Now = []Witness{w.entry()}, 1, clock
	p := publisher(t, cfg)
	kept := func() (sizes []uint64) {
		for n := int64(0); ; n++ {
			text, err := os.ReadFile(filepath.Join(cfg.Dir, WitnessedPath(n)))
			if errors.Is(err, os.ErrNotExist) {
				return sizes
			}
			must(t, err)
			c, err := evidence.OpenPublished(string(text), document(t), evidence.Witnesses{Need: 1, Of: []evidence.Cosigner{w.key.Cosigner()}})
			must(t, err)
			sizes = append(sizes, c.Size)
		}
	}
	for _, c := range []struct {
		pass time.Duration
		size int64
		want []uint64
	}{
		{0, 5, []uint64{5}},
		{59 * time.Minute, 6, []uint64{5}},
		{59 * time.Second, 7, []uint64{5}},
		{2 * time.Second, 8, []uint64{5, 8}},
		{59 * time.Minute, 8, []uint64{5, 8}},
		{2 * time.Minute, 8, []uint64{5, 8, 8}}, // idle
		{24 * time.Hour, 8, []uint64{5, 8, 8, 8}},
		{time.Hour, 9, []uint64{5, 8, 8, 8, 9}},
		{time.Hour, 9, []uint64{5, 8, 8, 8, 9, 9}},
	} {
		now = now.Add(c.pass)
		m.size = c.size
		if c.size != 7 {
			p = publisher(t, cfg)
		}
		must(t, p.Publish(t.Context()))
		if got := kept(); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Fatalf("after %v and %d entries are kept %v, want %v", c.pass, c.size, got, c.want)
		}
	}
	got, err := cosignedBy(t, cfg.Dir, 1, w)
	if err != nil || !got.Witnesses[0].At.Equal(now) {
		t.Errorf("the newest cosignature is of %v, want %v: %v", got.Witnesses, now, err)
	}

	// Nobody is needed and nobody answers: the published checkpoint stays as it is.
	cfg.Need = 0
	before, err := os.ReadFile(filepath.Join(cfg.Dir, "checkpoint"))
	must(t, err)
	w.Server.Close()
	now = now.Add(2 * time.Hour)
	must(t, publisher(t, cfg).Publish(t.Context()))
	after, err := os.ReadFile(filepath.Join(cfg.Dir, "checkpoint"))
	must(t, err)
	if string(before) != string(after) {
		t.Error("signed again, though nothing was added and nobody cosigned")
	}
}
