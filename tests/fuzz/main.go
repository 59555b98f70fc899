package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "tests/fuzz:", err)
		os.Exit(1)
	}
}

// A result is what a run of one target came to.
type result struct {
	target  string
	took    time.Duration // of one processor: what others had of the machine meanwhile does not count
	tried   int64
	failure string // the end of its output; empty if it held
}

func run(ctx context.Context) error {
	each := flag.Duration("time", time.Minute, "how long each target runs")
	match := flag.String("match", "", "only targets whose \"package Target\" matches this regular expression")
	keep := flag.Bool("keep", false, "keep new inputs in the tree and add to the record")
	until := flag.Duration("until", 0, "only targets that ran for less than this in all, those that ran least first")
	jobs := flag.Int("jobs", 1, "how many targets run at a time, each on one core")
	renew := flag.Bool("seeds", false, "renew the seeds that the vectors make, and stop")
	flag.Parse()
	if flag.NArg() > 0 || *each < time.Second || *jobs < 1 {
		return errors.New("nothing but flags, --time of at least 1s, and --jobs of at least 1; see --help")
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	if *renew {
		return writeSeeds(root)
	}
	targets, err := list(filepath.Join(root, "tests", "architecture", "fuzz.txt"), *match)
	if err != nil {
		return err
	}
	written := filepath.Join(root, "tests", "fuzz", "record.txt")
	if *until > 0 {
		had, err := readRecord(written)
		if err != nil {
			return err
		}
		targets = due(targets, had, *until)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	f := fuzzer{root: root, cache: filepath.Join(cache, "sallyport", "fuzz"), each: *each, keep: *keep}
	rounds := (len(targets) + *jobs - 1) / *jobs
	fmt.Printf("%d targets, %s each, about %s in all\n", len(targets), *each, time.Duration(rounds)*(*each+5*time.Second))
	results, err := f.all(ctx, targets, *jobs, written)
	if err != nil {
		return err
	}
	return summary(results, len(targets))
}

// all fuzzes the targets, so many at a time. What cannot run ends it.
func (f *fuzzer) all(ctx context.Context, targets []string, jobs int, written string) ([]result, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex // guards what follows, and the record
	var results []result
	var failed error
	one := func(target string) error {
		r, err := f.fuzz(ctx, target)
		if err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
		mu.Lock()
		defer mu.Unlock()
		results = append(results, r)
		verdict := "held"
		if r.failure != "" {
			verdict = "FAILED"
		}
		fmt.Printf("%3d/%d %-50s %s, %d inputs in %s\n", len(results), len(targets), target, verdict, r.tried, r.took.Round(time.Second))
		if !f.keep {
			return nil
		}
		return record(written, r)
	}
	next := make(chan string)
	var group sync.WaitGroup
	for range jobs {
		group.Go(func() {
			for target := range next {
				if err := one(target); err != nil {
					mu.Lock()
					failed = cmp.Or(failed, err)
					mu.Unlock()
					stop()
				}
			}
		})
	}
	for _, target := range targets {
		select {
		case next <- target:
		case <-ctx.Done():
		}
	}
	close(next)
	group.Wait()
	return results, failed
}

// due are the targets that ran for less than so long, those that ran least first.
func due(targets []string, had map[string][3]int64, until time.Duration) []string {
	targets = slices.DeleteFunc(targets, func(t string) bool { return time.Duration(had[t][0])*time.Second >= until })
	slices.SortStableFunc(targets, func(a, b string) int { return cmp.Compare(had[a][0], had[b][0]) })
	return targets
}

func summary(results []result, of int) error {
	failed, tried := 0, int64(0)
	for _, r := range results {
		tried += r.tried
		if r.failure != "" {
			failed++
			fmt.Printf("\n%s:\n%s\n", r.target, r.failure)
		}
	}
	fmt.Printf("\n%d of %d targets ran, %d inputs, %d failed\n", len(results), of, tried, failed)
	if failed > 0 {
		return errors.New("a target failed; the input is in its testdata folder")
	}
	return nil
}

func list(path, match string) ([]string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w (run it in the module's root)", err)
	}
	wanted, err := regexp.Compile(match)
	if err != nil {
		return nil, err
	}
	var targets []string
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line != "" && wanted.MatchString(line) {
			targets = append(targets, line)
		}
	}
	if len(targets) == 0 {
		return nil, fmt.Errorf("no target matches %q", match)
	}
	return targets, nil
}

// fuzzer runs targets.
type fuzzer struct {
	root, cache string
	each        time.Duration
	keep        bool
}

var progress = regexp.MustCompile(`execs: (\d+)`)

// fuzz builds a target with coverage instrumentation and runs it. What fails is in the result; an error means that it could not run.
func (f *fuzzer) fuzz(ctx context.Context, target string) (result, error) {
	pkg, name, _ := strings.Cut(target, " ")
	r := result{target: target}
	work, err := os.MkdirTemp("", "sallyport-fuzz-*")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(work)
	binary := filepath.Join(work, "target.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-fuzz=^"+name+"$", "-o", binary, "./"+pkg)
	build.Dir = f.root
	if out, err := build.CombinedOutput(); err != nil {
		return r, fmt.Errorf("building: %w\n%s", err, out)
	}
	corpus := filepath.Join(f.cache, filepath.FromSlash(pkg))
	before := names(filepath.Join(corpus, name))
	// Inputs that reach something new are not made smaller: by default up to a minute goes into each, and of documents of some kilobytes nothing else got a turn.
	// The target ends by itself; the limit is for one that hangs.
	limited, cancel := context.WithTimeout(ctx, f.each+2*time.Minute)
	defer cancel()
	c := exec.CommandContext(limited, binary, "-test.run=^$", "-test.fuzz=^"+name+"$", "-test.fuzztime="+f.each.String(),
		"-test.fuzzminimizetime=0", "-test.fuzzcachedir="+corpus, "-test.parallel=1")
	c.Dir = filepath.Join(f.root, filepath.FromSlash(pkg))
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 10 * time.Second
	out, err := c.CombinedOutput()
	r.took = c.ProcessState.UserTime() + c.ProcessState.SystemTime() // with its worker, which it waits for
	if all := progress.FindAllSubmatch(out, -1); len(all) > 0 {
		r.tried, _ = strconv.ParseInt(string(all[len(all)-1][1]), 10, 64) // digits
	}
	// On a busy machine the testing package may not be ready for its own end of time (go.dev/issue/48591): nothing failed then.
	late := strings.Contains(string(out), "context deadline exceeded") && !strings.Contains(string(out), "Failing input written")
	if err != nil && ctx.Err() == nil && !late {
		r.failure = tail(string(out), 40)
	}
	if f.keep {
		err = f.choose(filepath.Join(corpus, name), before, folder(f.root, target))
	} else {
		err = nil
	}
	return r, err
}

const (
	mostKept    = 24      // inputs of a target in the tree
	largestKept = 2 << 10 // bytes
)

// choose copies the smallest new inputs into the tree, until there are enough.
func (f *fuzzer) choose(from string, before map[string]int64, to string) error {
	kept, err := filepath.Glob(filepath.Join(to, "corpus-*"))
	if err != nil {
		return err
	}
	now := names(from)
	var fresh []string
	for name, size := range now {
		if _, old := before[name]; !old && size <= largestKept {
			fresh = append(fresh, name)
		}
	}
	slices.SortFunc(fresh, func(a, b string) int {
		if now[a] != now[b] {
			return int(now[a] - now[b])
		}
		return strings.Compare(a, b)
	})
	for _, name := range fresh[:min(len(fresh), max(0, mostKept-len(kept)))] {
		raw, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, "corpus-"+name), raw, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// names are the files of a folder with their sizes; none if there is no such folder.
func names(dir string) map[string]int64 {
	out := map[string]int64{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return out
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			out[e.Name()] = info.Size()
		}
	}
	return out
}

// readRecord reads how long each target ran in all: seconds of a processor, inputs, failures.
func readRecord(path string) (map[string][3]int64, error) {
	totals := map[string][3]int64{}
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for line := range strings.Lines(string(raw)) {
		var pkg, name string
		var t [3]int64
		if n, _ := fmt.Sscan(line, &pkg, &name, &t[0], &t[1], &t[2]); n == 5 {
			totals[pkg+" "+name] = t
		}
	}
	return totals, nil
}

// record adds a result to the file that says how long each target ran in all.
func record(path string, r result) error {
	const head = "# How long each fuzz target ran in all. Written by ./tests/fuzz/run --keep: package target seconds inputs failures\n"
	totals, err := readRecord(path)
	if err != nil {
		return err
	}
	t := totals[r.target]
	t[0] += int64(r.took.Seconds())
	t[1] += r.tried
	if r.failure != "" {
		t[2]++
	}
	totals[r.target] = t
	var b strings.Builder
	b.WriteString(head)
	for _, k := range slices.Sorted(maps.Keys(totals)) {
		fmt.Fprintf(&b, "%s %d %d %d\n", k, totals[k][0], totals[k][1], totals[k][2])
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
