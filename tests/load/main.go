// Command load measures what the project claims about speed, and prints ratios: in one run, interleaved, on a throwaway set-up of real
// processes on loopback.
//
//	(a) raw_derive_per_s            derive + read + destroy through the same Go binding, one process, best number of threads
//	(b) read_single_per_s           authorised reads of one field through the whole stack over TLS, 64 readers at once
//	(c) read_batch100_fields_per_s  the same with a hundred fields a request, counted in fields
//
// and then the key-use log alone, beside a bare loop of write and fdatasync and beside Tessera (log.go).
//
// The log is synced and signed, every signature is made and checked, and one answer in a hundred is opened and verified by the SDK. Absolute
// figures depend on the machine; the ratios (b)/(a) and (c)/(a) are what to look at. It talks to loopback only, is bounded, and stops by itself.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/tests/stage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	quick := flag.Bool("quick", false, "a short run, under a minute")
	file := flag.String("json", "", "write the figures to this `file`")
	readers := flag.Int("readers", 64, "readers at once")
	grants := flag.Int("grants", 0, "instead: make so many `grants` in custody sealed, kill the vault, start it again, and read")
	log := flag.Bool("log", false, "instead: the key-use log alone")
	install := flag.Bool("install", false, "instead: how fast grants are installed, in both custodies")
	replace := flag.Bool("replace", false, "instead: how long the replacement of a root takes")
	safes := flag.Bool("safe", false, "instead: how long the safe of a business takes to open, and how much memory")
	child := flag.Bool("open-safe", false, "for --safe: be the process that opens it, as standard input says")
	flag.Parse()
	var err error
	switch {
	case *grants > 0:
		err = runGrants(ctx, *grants, *file)
	case *log:
		err = logAlone(ctx, *quick, *file)
	case *install:
		err = runInstall(ctx, *quick, *file)
	case *child:
		err = openSafe()
	case *safes:
		err = runSafe(ctx, *file)
	case *replace:
		err = runReplace(ctx, *quick, *file)
	default:
		err = measure(ctx, *quick, *file, *readers)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// Figures are what a run found. Medians over the rounds.
type Figures struct {
	RawDerive       float64            `json:"raw_derive_per_s"`
	RawThreads      int                `json:"raw_threads"`
	ReadSingle      float64            `json:"read_single_per_s"`
	ReadSingleP50   float64            `json:"read_single_p50_ms"`
	ReadSingleP99   float64            `json:"read_single_p99_ms"`
	ReadBatch       float64            `json:"read_batch100_fields_per_s"`
	ReadBatchP50    float64            `json:"read_batch100_p50_ms"`
	ReadBatchP99    float64            `json:"read_batch100_p99_ms"`
	SingleRatio     float64            `json:"read_single_ratio"`
	BatchRatio      float64            `json:"read_batch100_ratio"`
	Readers         int                `json:"readers"`
	Rounds          int                `json:"rounds"`
	Opened          int                `json:"answers_opened"`
	SingleCPU       map[string]float64 `json:"single_cpu_us_per_read"`
	BatchCPU        map[string]float64 `json:"batch_cpu_us_per_field"`
	ResidentMB      map[string]float64 `json:"resident_mb"`
	Signature       float64            `json:"signature_us"`
	DevelopmentOnly bool               `json:"development_only"`
	Log             *logFigures        `json:"log"`
	Install         *Install           `json:"install,omitzero"` // of a full run, as the next
	Replaced        *Replaced          `json:"replaced,omitzero"`
	Safe            *SafeOpened        `json:"safe,omitzero"`
}

// logAlone measures nothing but the key-use log.
func logAlone(ctx context.Context, quick bool, file string) error {
	f, err := measureLog(ctx, quick)
	if err != nil {
		return err
	}
	f.report()
	return write(file, f)
}

// write puts figures into a file, if one is named.
func write(file string, figures any) error {
	if file == "" {
		return nil
	}
	out, err := json.Marshal(figures, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(out, '\n'), 0o644)
}

func measure(ctx context.Context, quick bool, file string, readers int) error {
	rounds, length := 5, 4*time.Second
	if quick {
		rounds, length = 3, 2*time.Second
	}
	dir, err := os.MkdirTemp("", "sallyport-load-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Println("building and starting")
	module, err := stage.ModuleRoot()
	if err != nil {
		return err
	}
	bin, err := stage.Build(ctx, module, filepath.Join(dir, "bin"))
	if err != nil {
		return err
	}
	s, err := stage.Open(ctx, stage.Options{Dir: filepath.Join(dir, "stage"), Bin: bin, StorefrontMembers: "connections_each = 4096\n", StorefrontConfig: limits, VaultConfig: ownersLimits})
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Println("four owners publish a hundred fields each and grant them")
	crowd, err := newCrowd(ctx, s, readers)
	if err != nil {
		return err
	}
	defer crowd.close()
	raw, err := newRaw(ctx, s)
	if err != nil {
		return err
	}
	defer raw.close()

	f := Figures{Readers: readers, Rounds: rounds, DevelopmentOnly: true}
	if f.RawThreads, err = raw.best(ctx); err != nil {
		return err
	}
	// One short round of each to warm caches and connections, not counted.
	for _, fields := range []int{1, 100} {
		if _, err := crowd.read(ctx, fields, length/4); err != nil {
			return err
		}
	}
	var derives []float64
	var single, batch []outcome
	for round := range rounds {
		fmt.Printf("round %d of %d\n", round+1, rounds)
		d, err := raw.run(ctx, f.RawThreads, length)
		if err != nil {
			return err
		}
		derives = append(derives, d)
		one, err := crowd.read(ctx, 1, length)
		if err != nil {
			return err
		}
		single = append(single, one)
		hundred, err := crowd.read(ctx, 100, length)
		if err != nil {
			return err
		}
		batch = append(batch, hundred)
		f.Opened += one.opened + hundred.opened
	}
	f.RawDerive = median(derives, func(v float64) float64 { return v })
	f.ReadSingle = median(single, func(o outcome) float64 { return o.fieldsPerSecond })
	f.ReadSingleP50 = median(single, func(o outcome) float64 { return o.p50 })
	f.ReadSingleP99 = median(single, func(o outcome) float64 { return o.p99 })
	f.ReadBatch = median(batch, func(o outcome) float64 { return o.fieldsPerSecond })
	f.ReadBatchP50 = median(batch, func(o outcome) float64 { return o.p50 })
	f.ReadBatchP99 = median(batch, func(o outcome) float64 { return o.p99 })
	f.SingleRatio, f.BatchRatio = f.ReadSingle/f.RawDerive, f.ReadBatch/f.RawDerive
	f.SingleCPU, f.BatchCPU = medianCPU(single), medianCPU(batch)
	f.ResidentMB = resident(s)
	if f.Signature, err = raw.signature(ctx); err != nil {
		return err
	}
	s.Close()
	report(f)
	if f.Log, err = measureLog(ctx, quick); err != nil {
		return err
	}
	f.Log.report()
	if !quick {
		install, err := measureInstall(ctx, quick)
		if err != nil {
			return err
		}
		install.report()
		f.Install = &install
		replaced, err := measureReplace(ctx, quick)
		if err != nil {
			return err
		}
		replaced.report()
		f.Replaced = &replaced
		opened, err := measureSafe(ctx)
		if err != nil {
			return err
		}
		opened.report()
		f.Safe = &opened
	}
	return write(file, f)
}

func median[T any](of []T, value func(T) float64) float64 {
	v := make([]float64, len(of))
	for i := range of {
		v[i] = value(of[i])
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func medianCPU(of []outcome) map[string]float64 {
	out := map[string]float64{}
	for name := range of[0].cpu {
		out[name] = median(of, func(o outcome) float64 { return o.cpu[name] })
	}
	return out
}

func report(f Figures) {
	fmt.Printf("\n%-30s %10s  %s\n", "", "per second", "")
	fmt.Printf("%-30s %10.0f  %d threads, one process, custody resident\n", "(a) raw derives", f.RawDerive, f.RawThreads)
	fmt.Printf("%-30s %10.0f  p50 %.1f ms, p99 %.1f ms, %d readers\n", "(b) reads of one field", f.ReadSingle, f.ReadSingleP50, f.ReadSingleP99, f.Readers)
	fmt.Printf("%-30s %10.0f  p50 %.1f ms, p99 %.1f ms\n", "(c) fields in hundreds", f.ReadBatch, f.ReadBatchP50, f.ReadBatchP99)
	fmt.Printf("(b)/(a) = %.2f   (c)/(a) = %.2f   %d answers opened and verified\n", f.SingleRatio, f.BatchRatio, f.Opened)
	fmt.Printf("a signature of the log key takes %.0f us in the token\n", f.Signature)
	fmt.Printf("\n%-14s %18s %18s %12s\n", "process", "CPU us/read (b)", "CPU us/field (c)", "memory MB")
	names := make([]string, 0, len(f.SingleCPU))
	for name := range f.SingleCPU {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(a, b) })
	for _, name := range names {
		fmt.Printf("%-14s %18.0f %18.0f %12.0f\n", name, f.SingleCPU[name], f.BatchCPU[name], f.ResidentMB[name])
	}
}
