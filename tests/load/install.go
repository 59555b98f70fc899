package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/tests/stage"
)

// How fast grants are installed, in each custody, beside what the token cannot do without:
//
//	install   32 owners hand grants of one field to the vault, as a storefront would, and verify the receipts. The grants were made before: what an owner's
//	          device does is not the vault's
//	raw       BenchmarkUnwrap of package pkcs11: C_UnwrapKey in a loop through the same binding, into token objects, and for custody sealed with C_WrapKey,
//	          in one process and on a token of its own, with the fastest of 1, 2, 4 and 8 threads
//	proved    raw with what must come before the acknowledgement, one key at a time: a derive and a sync of the token's folder; or a derive, and another with
//	          the key loaded back
//
// All end what they made after each round, which is not counted: SoftHSM reads the whole folder for each new object, so a token with more keys is a slower one.
// Rounds alternate; each ratio is that of neighbouring rounds. Beside the rates stands what the vault and its workers take of the processors, and what raw
// does: that ratio does not depend on what else the machine does.

var custodies = []policies.Custody{policies.CustodyResident, policies.CustodySealed}

// Install is what a run of --install found. Medians over the rounds.
type Install struct {
	Resident Installed `json:"resident"`
	Sealed   Installed `json:"sealed"`
	Rounds   int       `json:"rounds"`
	// What some parts of an import take alone, in microseconds.
	Verify float64 `json:"signature_verification_us"`
	Derive float64 `json:"derive_us"`
	Sync   float64 `json:"sync_us"`
}

// Installed is one custody.
type Installed struct {
	PerSecond   float64            `json:"grants_per_s"`
	Raw         float64            `json:"raw_per_s"`
	RawThreads  int                `json:"raw_threads"`
	Proved      float64            `json:"raw_proved_per_s"`
	Ratio       float64            `json:"ratio"`
	ProvedRatio float64            `json:"ratio_proved"`
	CPU         map[string]float64 `json:"cpu_us_per_grant"`
	RawCPU      float64            `json:"raw_cpu_us"`
	CPURatio    float64            `json:"cpu_ratio"` // of raw to vault and workers
}

// runInstall is the mode of --install.
func runInstall(ctx context.Context, quick bool, file string) error {
	f, err := measureInstall(ctx, quick)
	if err != nil {
		return err
	}
	f.report()
	return write(file, f)
}

func measureInstall(ctx context.Context, quick bool) (f Install, err error) {
	rounds, each := 7, map[policies.Custody]int{policies.CustodyResident: 160, policies.CustodySealed: 640}
	if quick {
		rounds = 3
	}
	dir, err := os.MkdirTemp("", "sallyport-load-")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(dir)
	fmt.Println("grants: building and starting")
	s, raw, err := besideRaw(ctx, stage.Options{Dir: dir})
	if err != nil {
		return f, err
	}
	defer s.Close()
	towns := map[policies.Custody]*town{}
	best := map[policies.Custody]unwrapped{}
	for _, c := range custodies {
		towns[c] = &town{stage: s, custody: c}
		if err := towns[c].settle(ctx); err != nil {
			return f, err
		}
		if best[c], err = raw.best(ctx, string(c), each[c]/2); err != nil {
			return f, err
		}
		if _, _, err := towns[c].install(ctx, grantingOwners); err != nil { // not counted: connections
			return f, err
		}
	}
	found := map[policies.Custody][]installRound{}
	for round := range rounds {
		fmt.Printf("round %d of %d\n", round+1, rounds)
		for _, c := range custodies {
			var r installRound
			if r.raw, err = raw.run(ctx, string(c), best[c].threads, each[c]); err != nil {
				return f, err
			}
			if r.rate, r.cpu, err = towns[c].install(ctx, each[c]); err != nil {
				return f, err
			}
			if r.proved, err = raw.run(ctx, string(c)+"-proved", best[c].threads, each[c]); err != nil {
				return f, err
			}
			found[c] = append(found[c], r)
		}
	}
	of := func(c policies.Custody) Installed {
		of := func(value func(installRound) float64) float64 { return median(found[c], value) }
		i := Installed{
			RawThreads: best[c].threads, CPU: map[string]float64{},
			PerSecond: of(func(r installRound) float64 { return r.rate }), Raw: of(func(r installRound) float64 { return r.raw.perSecond }),
			Proved: of(func(r installRound) float64 { return r.proved.perSecond }), Ratio: of(func(r installRound) float64 { return r.rate / r.raw.perSecond }),
			ProvedRatio: of(func(r installRound) float64 { return r.rate / r.proved.perSecond }), RawCPU: of(func(r installRound) float64 { return r.raw.cpu }),
			CPURatio: of(func(r installRound) float64 { return r.raw.cpu / (r.cpu["vault"] + r.cpu["token workers"]) }),
		}
		for name := range found[c][0].cpu {
			i.CPU[name] = of(func(r installRound) float64 { return r.cpu[name] })
		}
		return i
	}
	f = Install{Resident: of(policies.CustodyResident), Sealed: of(policies.CustodySealed), Rounds: rounds}
	return f, f.parts(ctx, towns[policies.CustodyResident])
}

// installRound is what one round of one custody found.
type installRound struct {
	raw, proved unwrapped
	rate        float64
	cpu         map[string]float64
}

// install has all owners hand n grants to the vault, which were made before. It returns grants a second and what each took of the processors.
func (t *town) install(ctx context.Context, n int) (rate float64, cpu map[string]float64, err error) {
	batches := make([][]*prepared, len(t.owners))
	for i := range n {
		p, err := t.prepare(t.owners[i%len(t.owners)])
		if err != nil {
			return 0, nil, err
		}
		batches[i%len(t.owners)] = append(batches[i%len(t.owners)], p)
	}
	errs := make([]error, len(batches))
	before, begin := cpuTimes(t.stage), time.Now()
	var all sync.WaitGroup
	for i, batch := range batches {
		all.Go(func() {
			for _, p := range batch {
				if errs[i] = t.hand(ctx, p); errs[i] != nil {
					return
				}
			}
		})
	}
	all.Wait()
	length := time.Since(begin)
	after := cpuTimes(t.stage)
	cpu = map[string]float64{}
	for name, used := range after {
		if name != "storefront" { // has no part in it
			cpu[name] = float64((used - before[name]).Microseconds()) / float64(n)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return 0, nil, err
	}
	for i, batch := range batches {
		all.Go(func() { errs[i] = t.end(ctx, t.owners[i], batch) })
	}
	all.Wait()
	return float64(n) / length.Seconds(), cpu, errors.Join(errs...)
}

// end revokes grants of an owner.
func (t *town) end(ctx context.Context, o *townOwner, grants []*prepared) error {
	r := &policies.Revocation{Header: policies.NewHeader("revocation", time.Now()), Audience: t.doc.Vault, Owner: o.id, Link: o.link, Reason: policies.ReasonWithdrawn}
	for _, p := range grants {
		r.Items = append(r.Items, policies.RevokedItem{Grant: p.made.id, Field: townField, Author: policies.AuthorID(o.id)})
	}
	e, err := policies.Sign(o.key, r)
	if err != nil {
		return err
	}
	o.link = policies.Link{Seq: o.link.Seq + 1, Prev: e.Hash}
	return t.submit(ctx, e)
}

// parts measures what some parts of an import take alone: the medians of a hundred.
func (f *Install) parts(ctx context.Context, t *town) error {
	p, err := t.prepare(t.owners[0])
	if err != nil {
		return err
	}
	if err := t.hand(ctx, p); err != nil { // a key to derive with
		return err
	}
	folder, err := os.Open(t.stage.TokenFolder())
	if err != nil {
		return err
	}
	defer folder.Close()
	token, err := newRaw(ctx, t.stage)
	if err != nil {
		return err
	}
	defer token.close()
	for _, part := range []struct {
		into *float64
		do   func() error
	}{
		{&f.Verify, func() error { return p.envelope.Verify(t.owners[0].key.Public()) }},
		{&f.Derive, token.derive},
		{&f.Sync, func() error { return unix.Syncfs(int(folder.Fd())) }},
	} {
		var times []time.Duration
		for range 100 {
			begin := time.Now()
			if err := part.do(); err != nil {
				return err
			}
			times = append(times, time.Since(begin))
		}
		*part.into = median(times, func(t time.Duration) float64 { return float64(t.Nanoseconds()) / 1000 })
	}
	return nil
}

// unwrap is the test binary of package pkcs11, for its benchmark of the bare loop.
type unwrap struct{ binary string }

type unwrapped struct {
	threads   int
	perSecond float64
	cpu       float64 // microseconds a key
}

// besideRaw opens a stage, below a folder, and builds the bare loop that is to run beside it.
func besideRaw(ctx context.Context, o stage.Options) (s *stage.Stage, raw unwrap, err error) {
	module, err := stage.ModuleRoot()
	if err != nil {
		return nil, raw, err
	}
	if o.Bin, err = stage.Build(ctx, module, filepath.Join(o.Dir, "bin")); err != nil {
		return nil, raw, err
	}
	if raw, err = buildUnwrap(ctx, module, filepath.Join(o.Dir, "bin", "pkcs11.test")); err != nil {
		return nil, raw, err
	}
	o.Dir = filepath.Join(o.Dir, "stage")
	s, err = stage.Open(ctx, o)
	return s, raw, err
}

func buildUnwrap(ctx context.Context, module, binary string) (unwrap, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-buildvcs=false", "-c", "-o", binary, "./pkcs11")
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return unwrap{}, fmt.Errorf("building the bare loop: %w\n%s", err, out)
	}
	return unwrap{binary}, nil
}

// best tries 1, 2, 4 and 8 threads.
func (u unwrap) best(ctx context.Context, what string, keys int) (most unwrapped, err error) {
	all, err := u.bench(ctx, "^"+what+"$", keys)
	for _, r := range all {
		if r.perSecond > most.perSecond {
			most = r
		}
	}
	return most, err
}

func (u unwrap) run(ctx context.Context, what string, threads, keys int) (unwrapped, error) {
	all, err := u.bench(ctx, fmt.Sprintf("^%s$/^threads=%d$", what, threads), keys)
	if err != nil {
		return unwrapped{}, err
	}
	return all[0], nil
}

var benchLine = regexp.MustCompile(`(?m)^BenchmarkUnwrap/[\w-]+/threads=(\d+)\S*\s.*\s([0-9.]+) cpu-us/key\s+([0-9.]+) keys/s`)

func (u unwrap) bench(ctx context.Context, which string, keys int) (out []unwrapped, err error) {
	cmd := exec.CommandContext(ctx, u.binary, "-test.run=^$", "-test.bench=^BenchmarkUnwrap$/"+which, fmt.Sprintf("-test.benchtime=%dx", keys))
	cmd.Dir = filepath.Dir(u.binary)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("the bare loop: %w\n%s", err, said.Bytes())
	}
	for _, line := range benchLine.FindAllSubmatch(said.Bytes(), -1) {
		var r unwrapped
		var errs [3]error
		r.threads, errs[0] = strconv.Atoi(string(line[1]))
		r.cpu, errs[1] = strconv.ParseFloat(string(line[2]), 64)
		r.perSecond, errs[2] = strconv.ParseFloat(string(line[3]), 64)
		if err := errors.Join(errs[:]...); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the bare loop measured nothing:\n%s", said.Bytes())
	}
	return out, nil
}

func (f Install) report() {
	fmt.Printf("\n%-18s %10s %10s %8s %12s %8s   %s\n", "grants installed", "per second", "raw", "ratio", "raw, proved", "ratio", "of processor time")
	for _, line := range []struct {
		custody policies.Custody
		i       Installed
	}{{policies.CustodyResident, f.Resident}, {policies.CustodySealed, f.Sealed}} {
		i := line.i
		fmt.Printf("custody %-10s %10.0f %10.0f %8.2f %12.0f %8.2f   %.2f\n", line.custody, i.PerSecond, i.Raw, i.Ratio, i.Proved, i.ProvedRatio, i.CPURatio)
		fmt.Printf("    microseconds of processor time a grant: raw %.0f (%d threads)", i.RawCPU, i.RawThreads)
		for _, name := range slices.Sorted(maps.Keys(i.CPU)) {
			fmt.Printf(", %s %.0f", name, i.CPU[name])
		}
		fmt.Println()
	}
	fmt.Printf("alone: a signature verified %.0f us, a derive %.0f us, a sync of the token's folder %.0f us\n", f.Verify, f.Derive, f.Sync)
}
