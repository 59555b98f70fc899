package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/tests/model/reference"
	"github.com/sallyport/sallyport/tests/stage"
)

// What every run of the tests plays: some hundred operations.
const (
	ciScripts = 6
	ciLines   = 40
	ciTime    = 30 * time.Second
)

// Of the scripts that failed once so many are played at once, if they have no more lines than that.
const (
	besides    = 4
	longScript = 30
)

// binaries are the five commands, built once for all tests.
var binaries stage.Binaries

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "sallyport-model-")
		if err == nil {
			defer os.RemoveAll(dir)
			binaries, err = build(context.Background(), dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// logged hears of progress.
type logged struct{ t *testing.T }

func (l logged) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func newRunner(t *testing.T) *Runner {
	t.Helper()
	r := &Runner{Out: logged{t}, bin: binaries}
	if err := r.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// ciSeed is of the scripts that are played each time, the same ones: new ones are for ./tests/model/run, which may find what nobody broke today.
const ciSeed = 70000

// TestModel plays the scripts that failed once, and some random ones. Short ones in which nothing is killed are played beside each other, in one world: people who never met.
func TestModel(t *testing.T) {
	r := newRunner(t)
	files, err := filepath.Glob("testdata/scripts/*.script")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	if err := r.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var quiet sync.WaitGroup
	var mu sync.Mutex // guards what the quiet ones come to
	var failed []string
	turns, alone := make(chan bool, besides), []string{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ParseScript(string(text))
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if len(s.Lines) > longScript || slices.ContainsFunc(s.Lines, func(l Line) bool { return l.Do == reference.Kill }) {
			alone = append(alone, f)
			continue
		}
		quiet.Go(func() {
			turns <- true
			defer func() { <-turns }()
			events, err := r.world.Play(t.Context(), s)
			sum, violations := reference.Check(events, r.Rules)
			mu.Lock()
			defer mu.Unlock()
			if r.Total.add(sum); err != nil || len(violations) > 0 {
				failed = append(failed, fmt.Sprintf("%s: %v: %v", f, err, violations))
			}
		})
	}
	if quiet.Wait(); len(failed) > 0 {
		t.Fatal(strings.Join(failed, "\n"))
	}
	for _, f := range alone {
		name := strings.TrimSuffix(filepath.Base(f), ".script")
		trace := filepath.Join(dir, name)
		if err := r.file(t.Context(), f, trace); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		played[name] = readTrace(t, trace)
	}
	if err := r.Run(t.Context(), ciSeed, ciTime, ciScripts, ciLines); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &r.Total)
	if r.Total.Operations < 100 || r.Total.Outcomes["released"] == 0 || r.Total.Outcomes["grant_revoked"] == 0 {
		t.Errorf("too little happened to have tested anything")
	}
}

// A script survives being written and read.
func TestScriptText(t *testing.T) {
	for seed := range uint64(200) {
		s := NewScript(seed+1, 50, true)
		again, err := ParseScript(s.String())
		if err != nil {
			t.Fatalf("%v in\n%s", err, s)
		}
		if again.String() != s.String() {
			t.Fatalf("wrote\n%s\nread\n%s", s, again)
		}
		kills := 0
		for i := range s.Lines {
			if !s.Lines[i].With {
				kills = 0
			}
			if s.Lines[i].Do == reference.Kill {
				kills++
			}
			if kills > 1 {
				t.Fatalf("line %d: killed twice at once\n%s", i+1, s)
			}
		}
		if !slices.EqualFunc(again.Lines, s.Lines, func(a, b Line) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
			t.Fatalf("seed %d: not the same lines", s.Seed)
		}
	}
	for _, bad := range []string{"owners a\nreaders b\na/3 set x", "owners a\nreaders b\nb/1 set x", "kill world", "wait 2h", "owners a\nreaders b\nb/1 read x", "a/1 dance", "a", "owners a\na/1 set x y=1"} {
		if _, err := ParseScript(bad); err == nil {
			t.Errorf("played %q", bad)
		}
	}
}

// What fails because of two lines is shrunk to these two.
func TestShrink(t *testing.T) {
	s := NewScript(7, 60, false)
	d := rand.New(rand.NewPCG(1, 2))
	s.Lines[11] = Line{Who: "ana/1", Do: reference.Rotate, Fields: []string{"here"}}
	s.Lines[42] = Line{Who: "ana/2", Do: reference.Rotate, Fields: []string{"there"}}
	tries := 0
	short := shrink(s, func(c *Script) bool {
		tries++
		text := c.String()
		return strings.Contains(text, " here") && strings.Contains(text, " there") && d.IntN(4) > 0 // now and then it does not show
	}, time.Now().Add(time.Minute), 1000)
	if len(short.Lines) > 6 || !strings.Contains(short.String(), " here") || !strings.Contains(short.String(), " there") {
		t.Errorf("after %d attempts:\n%s", tries, short)
	}
	if most := 20; len(shrink(s, func(*Script) bool { most--; return true }, time.Now().Add(time.Minute), 20).Lines) == 0 || most < 0 {
		t.Error("more attempts than were allowed")
	}
	t.Logf("%d attempts", tries)
}

// played are the traces of the scripts that this run has played, by their names.
var played = map[string][]reference.Event{}

func readTrace(t *testing.T, path string) []reference.Event {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	events, err := reference.ReadTrace(f)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// With a rule made wrong the model must fail against the real thing. What TestModel played, if it ran, is not played again.
func TestWrongModelFails(t *testing.T) {
	noticed := map[string]bool{}
	for _, file := range []string{"everything", "sheets-and-roots", "added-and-deleted", "people"} {
		events := played[file]
		if events == nil {
			r, trace := newRunner(t), filepath.Join(t.TempDir(), file)
			if err := r.file(context.WithoutCancel(t.Context()), "testdata/scripts/"+file+".script", trace); err != nil {
				t.Fatal(err)
			}
			events = readTrace(t, trace)
		}
		if _, violations := reference.Check(events, reference.Rules{}); len(violations) > 0 {
			t.Fatalf("with the right rules: %v", violations)
		}
		for name, rules := range wrongRules {
			_, violations := reference.Check(events, rules)
			noticed[name] = noticed[name] || len(violations) > 0
		}
	}
	for name, wrong := range noticed {
		if !wrong {
			t.Errorf("%s: a model with this mistake agrees with the product", name)
		}
	}
}
