package store

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/tests/fault/bits"
)

// flipChild is set for a child process that opens stores: Badger may end the process that meets a damaged one.
const flipChild = "STORE_TEST_FLIP"

func TestMain(m *testing.M) {
	if os.Getenv(flipChild) != "" {
		serveFlips()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// seen is what a child saw of one store.
type seen struct {
	Open    string            // the error of opening it, empty if none
	Records map[string]string // "version value" of each key that was read
	Errors  map[string]string // the error of each key that was not
	Scan    string            // the error of scanning everything
	Scanned []string
	Log     string
}

// serveFlips reads a folder a line and answers with what is in it, a line each.
func serveFlips() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		dir, keys, _ := strings.Cut(lines.Text(), "\t")
		out, err := json.Marshal(look(dir, strings.Split(keys, "\t")))
		if err != nil {
			panic(err)
		}
		os.Stdout.Write(append(out, '\n'))
	}
}

func look(dir string, keys []string) (s seen) {
	var log bytes.Buffer
	s.Records, s.Errors = map[string]string{}, map[string]string{}
	defer func() { s.Log = log.String() }()
	db, err := Open(Options{Dir: dir, Reserve: flipReserve, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		s.Open = err.Error()
		return s
	}
	defer db.Close()
	ctx := context.Background()
	text := func(r Record) string { return fmt.Sprintf("%d %s", r.Version, r.Value) }
	for _, key := range keys {
		r, err := db.Get(ctx, []byte(key))
		if err != nil {
			s.Errors[key] = err.Error()
			continue
		}
		s.Records[key] = text(r)
	}
	all, err := db.Scan(ctx, nil, nil, 1<<20)
	if err != nil {
		s.Scan = err.Error()
	}
	for _, r := range all {
		s.Scanned = append(s.Scanned, string(r.Key)+" "+text(r))
	}
	// A store that answers must also take a write.
	if err := db.Commit(ctx, Change{Key: []byte("new"), Version: 1, Value: []byte("new")}); err != nil {
		s.Errors["new"] = err.Error()
	}
	db.search.Wait() // for the file, which to close the store would end
	return s
}

// flipReserve makes a store of small files.
const flipReserve = 8 << 20

// A flipper is a child that lives until a store kills it.
type flipper struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     *bufio.Writer
	out    *bufio.Reader
	stderr *bytes.Buffer
}

func (f *flipper) start() {
	f.t.Helper()
	cmd := exec.Command(os.Args[0])
	f.cmd, f.stderr = cmd, new(bytes.Buffer)
	cmd.Env, cmd.Stderr = append(os.Environ(), flipChild+"=1"), f.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	f.in, f.out = bufio.NewWriter(in), bufio.NewReaderSize(out, 1<<20)
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { in.Close(); cmd.Wait() })
}

// look has the child open a store. Died is what the child said if it did not survive.
func (f *flipper) look(dir string, keys []string) (s seen, died string) {
	f.t.Helper()
	if f.cmd == nil {
		f.start()
	}
	fmt.Fprintf(f.in, "%s\t%s\n", dir, strings.Join(keys, "\t"))
	watchdog := time.AfterFunc(20*time.Second, func() { f.cmd.Process.Signal(syscall.SIGQUIT) })
	defer watchdog.Stop()
	err := f.in.Flush()
	var line []byte
	if err == nil {
		line, err = f.out.ReadBytes('\n')
	}
	if err != nil {
		f.cmd.Wait()
		died = fmt.Sprintf("%v: %s", f.cmd.ProcessState, f.stderr)
		if !watchdog.Stop() {
			f.t.Fatalf("a store neither answers nor dies:\n%s", died)
		}
		f.cmd = nil
		return s, died
	}
	if err := json.Unmarshal(line, &s); err != nil {
		f.t.Fatal(err)
	}
	return s, ""
}

// TestFlippedBits flips one bit after the other in the files of a store that was closed and of one that was killed. What was never
// written is never read; what is missing, old or cannot be read is said, with the file named; or nothing is changed at all.
func TestFlippedBits(t *testing.T) {
	n, random := bits.Number(t, 120)
	ctx := context.Background()
	base := filepath.Join(t.TempDir(), "store")
	truth, history := map[string]string{}, map[string]bool{}
	var db *DB
	open := func() {
		var err error
		if db, err = Open(Options{Dir: base, Reserve: flipReserve}); err != nil {
			t.Fatal(err)
		}
	}
	write := func(round int) {
		for i := range 60 {
			key := fmt.Sprintf("record/%02d", (i*7+round*13)%90)
			version := uint64(round + 1)
			value := strings.Repeat(fmt.Sprintf("%s in round %d. ", key, round), 1+i*i%40*i%300)
			if err := db.Commit(ctx, Change{Key: []byte(key), Version: version, Value: []byte(value)}); err != nil {
				t.Fatal(err)
			}
			truth[key] = fmt.Sprintf("%d %s", version, value)
			history[key+" "+truth[key]] = true
		}
		gone := fmt.Sprintf("record/%02d", round)
		if err := db.Commit(ctx, Change{Key: []byte(gone), Delete: true}); err != nil {
			t.Fatal(err)
		}
		delete(truth, gone)
	}
	keep := func() *bits.Folder {
		f, err := bits.Keep(base)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for round := range 3 {
		open()
		write(round)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	states := map[string]*bits.Folder{"closed": keep()}
	closedTruth := maps.Clone(truth)
	open()
	write(3)
	states["killed"] = keep() // as a process that is killed now leaves it
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	truths := map[string]map[string]string{"closed": closedTruth, "killed": truth}

	var keys []string
	for i := range 90 {
		keys = append(keys, fmt.Sprintf("record/%02d", i))
	}
	child := &flipper{t: t}
	var dir string
	aside := t.TempDir()
	classes := map[string]int{}
	for i := range n {
		state := []string{"closed", "killed"}[i%2]
		f, truth := states[state], truths[state]
		os.RemoveAll(dir) // a folder of its own for each: a Badger that failed to open may still be at work in the last one
		dir = filepath.Join(aside, fmt.Sprint(i))
		flip := f.Draw(random)
		file := filepath.Join(dir, flip.File)
		if err := f.Put(dir, flip); err != nil {
			t.Fatal(err)
		}
		s, died := child.look(dir, keys)
		what := fmt.Sprintf("%s, %s", state, flip)
		kind := filepath.Ext(flip.File)
		if kind == "" {
			kind = filepath.Base(flip.File)
		}
		class := func(name string) { classes[fmt.Sprintf("%s %-12s %s", state, kind, name)]++ }
		if died != "" {
			class("died")
			t.Logf("%s: the process died: %.300s", what, died)
			if s, died = child.look(dir, keys); died != "" {
				if !strings.Contains(died, file) {
					t.Errorf("%s: the process dies again and again and names no file:\n%.2000s", what, died)
				}
				continue
			}
		}
		named := strings.Contains(s.Log, file)
		if s.Open != "" {
			class("refused to open")
			if !strings.Contains(s.Open, file) {
				t.Errorf("%s: refused to open without naming a file: %s", what, s.Open)
			}
			continue
		}
		differs := ""
		for _, key := range keys {
			want, there := truth[key]
			got, read := s.Records[key]
			switch err := s.Errors[key]; {
			case read && got == want:
			case read && !history[key+" "+got]:
				t.Errorf("%s: %s was served as %.80q, which nobody wrote", what, key, got)
			case read && there:
				differs = key + " is an older one"
			case read:
				differs = key + " was deleted and is back"
			case !there && err == ErrNotFound.Error():
			case err == ErrNotFound.Error():
				differs = key + " is missing"
			default:
				named = named || strings.Contains(err, file)
				differs = key + ": " + err
			}
		}
		for _, r := range s.Scanned {
			if !history[r] && !strings.HasPrefix(r, "new ") {
				t.Errorf("%s: a scan served %.80q, which nobody wrote", what, r)
			}
		}
		if s.Scan != "" {
			named = named || strings.Contains(s.Scan, file)
			differs = "scan: " + s.Scan
		}
		if err := s.Errors["new"]; err != "" {
			named = named || strings.Contains(err, file)
			differs = "a new record: " + err
		}
		switch {
		case differs == "" && len(s.Records) == len(truth) && len(s.Scanned) == len(truth):
			class("harmless")
		case named:
			class("detected")
		default:
			class("SILENT")
			t.Errorf("%s: %s; %d of %d records scanned; no file is named; log: %s", what, differs, len(s.Scanned), len(truth), s.Log)
		}
	}
	for _, c := range slices.Sorted(maps.Keys(classes)) {
		t.Logf("%5d %s", classes[c], c)
	}
}
