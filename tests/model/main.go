// Command model plays random scripts of owners and readers, with crashes, restarts, two devices of each and people at work at the same time, against
// real processes, and holds what everybody was told against a small model of what may be read: package reference.
//
// A script (see Script) is made from a seed. What happened is a trace, which the model judges when the script is over. A script that
// fails is made shorter as long as it still fails, and printed with its seed; the folder that is named then holds script, trace and the
// daemons' logs. It talks to loopback only, is bounded, and stops by itself.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/tests/model/reference"
	"github.com/sallyport/sallyport/tests/stage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	minutes := flag.Float64("minutes", 1, "how long to play new scripts")
	seed := flag.Uint64("seed", 0, "of the first script; the next has the next; 0: of the day's time")
	lines := flag.Int("lines", 60, "lines of a script")
	file := flag.String("script", "", "play this `file` instead, once")
	trace := flag.String("trace", "", "write what happened in the script to this `file`")
	wrong := flag.String("wrong", "", "have the model expect something wrong, to see it fail: "+strings.Join(slices.Sorted(maps.Keys(wrongRules)), ", "))
	flag.Parse()
	rules, known := wrongRules[*wrong]
	if !known && *wrong != "" || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "model: unknown argument; -h tells the known ones")
		os.Exit(2)
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	r := &Runner{Out: os.Stdout, Rules: rules}
	err := r.open(ctx)
	if err == nil {
		if *file != "" {
			err = r.file(ctx, *file, *trace)
		} else {
			err = r.Run(ctx, *seed, time.Duration(*minutes*float64(time.Minute)), 1<<30, *lines)
		}
	}
	err = errors.Join(err, r.close())
	fmt.Print(&r.Total)
	if err != nil {
		fmt.Fprintln(os.Stderr, "model:", err)
		os.Exit(1)
	}
}

// wrongRules are mistakes that the model can be told to make.
var wrongRules = map[string]reference.Rules{
	"revoked-reads": {RevokedReads: true}, "expired-reads": {ExpiredReads: true}, "older-versions": {OlderVersions: true},
	"removed-reads": {RemovedReads: true}, "limits-one-more": {LimitsOneMore: true}, "strangers-read": {StrangersReads: true},
	"ended-writes": {EndedWrites: true}, "owners-only": {OwnersOnly: true}, "rejected-reads": {RejectedReads: true},
	"suspended-reads": {SuspendedReads: true}, "denied-reads": {DeniedReads: true}, "old-devices": {OldDevices: true}, "given-up-reads": {GivenUpReads: true}, "frozen-reads": {FrozenReads: true}, "thawed-stops": {ThawedStops: true},
	"late-writes": {LateWrites: true}, "early-writes": {EarlyWrites: true}, "wide-deposits": {WideDeposits: true}, "deposits-again": {DepositsAgain: true}, "strangers-look": {StrangersLook: true},
	"added-lack": {AddedLack: true}, "any-word": {AnyWord: true}, "added-sign": {AddedSign: true}, "dropped-opens": {DroppedOpens: true}, "drop-unlocks": {DropUnlocks: true},
	"old-sheets": {OldSheets: true}, "any-sheet": {AnySheet: true}, "silent-sheets": {SilentSheets: true},
	"early-roots": {EarlyRoots: true}, "objected-roots": {ObjectedRoots: true}, "deaf-to-objections": {DeafToObjections: true},
	"old-passwords": {OldPasswords: true}, "eleven-guesses": {ElevenGuesses: true}, "any-password": {AnyPassword: true},
	"forgotten-pieces": {ForgottenPieces: true}, "kept-for-ever": {KeptForEver: true}, "blocked-ask": {BlockedAsk: true},
	"closed-reads": {ClosedReads: true}, "closed-goes-on": {ClosedGoesOn: true}, "closed-stays": {ClosedStays: true},
}

// Runner plays scripts, one after the other.
type Runner struct {
	Out   io.Writer // hears of progress
	Rules reference.Rules
	Total Total

	dir    string
	bin    stage.Binaries
	world  *World
	count  int  // worlds opened
	sealed bool // they offer custody sealed
}

// Total sums up a run.
type Total struct {
	Scripts, Failed int
	reference.Summary
	Time time.Duration
}

func (t *Total) add(s reference.Summary) {
	t.Scripts++
	t.Operations += s.Operations
	t.Items += s.Items
	t.Unknown += s.Unknown
	t.Kills += s.Kills
	if t.Outcomes == nil {
		t.Outcomes, t.Answers = map[string]int{}, map[string]int{}
	}
	for k, n := range s.Outcomes {
		t.Outcomes[k] += n
	}
	for k, n := range s.Answers {
		t.Answers[k] += n
	}
}

// String is the summary that a run ends with.
func (t *Total) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d scripts in %s: %d operations, %d with an unknown outcome, %d kills; %d outcomes of reads checked; %d scripts failed\n",
		t.Scripts, t.Time.Round(time.Second), t.Operations, t.Unknown, t.Kills, t.Items, t.Failed)
	for _, list := range []struct {
		name string
		of   map[string]int
	}{{"reads", t.Outcomes}, {"operations", t.Answers}} {
		fmt.Fprintf(&b, "%s:", list.name)
		for _, k := range slices.Sorted(maps.Keys(list.of)) {
			fmt.Fprintf(&b, " %s %d,", strings.TrimSpace(k), list.of[k])
		}
		b.WriteString("\n")
	}
	return strings.ReplaceAll(b.String(), ",\n", "\n")
}

// worldLife is how many scripts a world sees: each leaves people, and a log that grows.
const worldLife = 40

func (r *Runner) open(ctx context.Context) (err error) {
	if r.dir, err = os.MkdirTemp("", "sallyport-model-"); err != nil {
		return err
	}
	if r.bin != (stage.Binaries{}) {
		return nil
	}
	fmt.Fprintln(r.Out, "building the commands")
	r.bin, err = build(ctx, r.dir)
	return err
}

func (r *Runner) close() error {
	err := r.end()
	if r.Total.Failed == 0 {
		err = errors.Join(err, os.RemoveAll(r.dir))
	}
	return err
}

// end closes the world, if there is one.
func (r *Runner) end() error {
	if r.world == nil {
		return nil
	}
	err := r.world.Close()
	r.world = nil
	if r.Total.Failed == 0 {
		err = errors.Join(err, os.RemoveAll(r.place()))
	}
	return err
}

// place is the folder of the world in use.
func (r *Runner) place() string { return filepath.Join(r.dir, fmt.Sprintf("world%d", r.count)) }

// ready sees to it that there is a world that is not worn.
func (r *Runner) ready(ctx context.Context) error {
	if r.world != nil && r.world.played.Load() >= worldLife {
		if err := r.end(); err != nil {
			return err
		}
	}
	if r.world == nil {
		r.count++
		var err error
		if r.world, err = OpenWorld(ctx, r.bin, r.place()); err != nil {
			return err
		}
		r.sealed = r.world.sealed
	}
	return nil
}

// judge plays a script and holds it against the model. An error is one of the machinery, or of the product: a daemon that does not start.
func (r *Runner) judge(ctx context.Context, s *Script) ([]reference.Event, []reference.Violation, reference.Summary, error) {
	if err := r.ready(ctx); err != nil {
		return nil, nil, reference.Summary{}, err
	}
	events, err := r.world.Play(ctx, s)
	sum, violations := reference.Check(events, r.Rules)
	return events, violations, sum, err
}

// Run plays new scripts until a time is over, or most of them were played, or one fails.
func (r *Runner) Run(ctx context.Context, seed uint64, long time.Duration, most, lines int) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	begin := time.Now()
	next := begin
	for n := 0; n < most && time.Since(begin) < long; n, seed = n+1, seed+1 {
		if now := time.Now(); now.After(next) {
			fmt.Fprintf(r.Out, "%4.0f s: %d scripts, %d operations, %d outcomes of reads; now seed %d\n", time.Since(begin).Seconds(), r.Total.Scripts, r.Total.Operations, r.Total.Items, seed)
			next = now.Add(20 * time.Second)
		}
		if err := r.one(ctx, NewScript(seed, lines, r.sealed), ""); err != nil {
			return err
		}
	}
	return nil
}

// file plays a script that was written down, and writes its trace if somebody wants it.
func (r *Runner) file(ctx context.Context, path, trace string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	s, err := ParseScript(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return r.one(ctx, s, trace)
}

// one plays a script, and makes it shorter if it fails.
func (r *Runner) one(ctx context.Context, s *Script, file string) error {
	begin := time.Now()
	events, violations, sum, err := r.judge(ctx, s)
	r.Total.add(sum)
	r.Total.Time += time.Since(begin)
	if file != "" {
		if writeErr := writeTrace(file, events); writeErr != nil {
			return writeErr
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil && len(violations) == 0 {
		return nil
	}
	r.Total.Failed++
	fmt.Fprintf(r.Out, "script of seed %d fails; making it shorter\n", s.Seed)
	short := shrink(s, func(c *Script) bool {
		if err != nil { // the world may be broken
			if endErr := r.end(); endErr != nil {
				fmt.Fprintln(r.Out, endErr)
			}
		}
		again, found, _, againErr := r.judge(ctx, c)
		if len(found) == 0 && againErr == nil || ctx.Err() != nil {
			return false
		}
		events, violations, err = again, found, againErr
		return true
	}, time.Now().Add(2*time.Minute), 150)
	writeErr := errors.Join(os.WriteFile(filepath.Join(r.dir, "failing.script"), []byte(short.String()), 0o600), writeTrace(filepath.Join(r.dir, "failing.trace"), events))
	if writeErr != nil {
		return writeErr
	}
	var why strings.Builder
	for _, v := range violations {
		fmt.Fprintf(&why, "  %s\n", v)
	}
	if err != nil {
		fmt.Fprintf(&why, "  %v\n", err)
	}
	return fmt.Errorf("this script fails (it, its trace and the daemons' logs are in %s):\n\n%s\n%s", r.dir, short, why.String())
}

func writeTrace(path string, events []reference.Event) error {
	var b bytes.Buffer
	if err := reference.WriteTrace(&b, events); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o600)
}
