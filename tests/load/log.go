package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/sallyport/sallyport/vault/keylog"
)

// How the key-use log is measured, beside two others on the same disk, in turns:
//
//	bare      one writer: write a record, fdatasync, again
//	keylog    64 callers; each waits until its record is on disk under a signed root that is on disk too
//	tessera   the same 64 callers with Tessera's POSIX appender and the batching that is fastest here,
//	unsigned  each waiting until its entry is integrated, which no signature says yet
//	tessera   the same, with checkpoints as often as the appender allows, each caller waiting for one that
//	signed    covers its entry
//
// Records have 300 bytes. All use one key, in this process, and a signature takes as long as tokenSignature says.
const (
	logCallers = 64
	logRecord  = 300

	// tokenSignature stands for a signature of SoftHSM's log key and a call to the worker process that loaded the module. The run without
	// --log prints what the token alone takes (signature_us), to compare.
	tokenSignature = 200 * time.Microsecond

	// The least that Tessera's POSIX appender takes, and how often its awaiter looks whether there is a new checkpoint.
	tesseraCheckpoints = 100 * time.Millisecond
	tesseraPoll        = 2 * time.Millisecond
)

// batchings are tried before the rounds; the fastest counts. Tessera's defaults (256, 250 ms) would make each of 64 callers wait
// a quarter of a second.
var batchings = []batching{{16, time.Millisecond}, {32, time.Millisecond}, {64, time.Millisecond}, {64, 5 * time.Millisecond}, {256, 2 * time.Millisecond}}

// batching is how many entries Tessera gathers, and for how long.
type batching struct {
	size uint
	age  time.Duration
}

func (b batching) String() string { return fmt.Sprintf("%d entries or %v", b.size, b.age) }

// logFigures are medians over the rounds.
type logFigures struct {
	Bare            float64 `json:"bare_per_s"`
	BareP50         float64 `json:"bare_p50_ms"`
	BareP99         float64 `json:"bare_p99_ms"`
	Keylog          float64 `json:"append_per_s"`
	KeylogP50       float64 `json:"append_p50_ms"`
	KeylogP99       float64 `json:"append_p99_ms"`
	Unsigned        float64 `json:"tessera_unsigned_per_s"`
	UnsignedP50     float64 `json:"tessera_unsigned_p50_ms"`
	Signed          float64 `json:"tessera_signed_per_s"`
	SignedP50       float64 `json:"tessera_signed_p50_ms"`
	Batching        string  `json:"tessera_batching"`
	ToSigned        float64 `json:"to_tessera_signed"`
	ToUnsigned      float64 `json:"to_tessera_unsigned"`
	P99ToBareMedian float64 `json:"p99_to_bare_p50"`
}

// slowKey signs like the token: not sooner than tokenSignature, and at work all the while.
type slowKey struct {
	note.Signer
	key ed25519.PrivateKey
}

func (k slowKey) sign(message []byte) []byte {
	begin := time.Now()
	signature := ed25519.Sign(k.key, message)
	for time.Since(begin) < tokenSignature {
	}
	return signature
}

// Sign implements note.Signer, for Tessera.
func (k slowKey) Sign(message []byte) ([]byte, error) { return k.sign(message), nil }

// logKey is the same key as the key-use log wants it.
type logKey struct{ slowKey }

func (k logKey) Sign(_ context.Context, message []byte) ([]byte, error) { return k.sign(message), nil }

// copyKeeper is the token's data object. It is written when the log opens and closes, and once a minute.
type copyKeeper struct {
	mu    sync.Mutex
	state []byte
}

func (k *copyKeeper) Save(_ context.Context, state []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = bytes.Clone(state)
	return nil
}

func (k *copyKeeper) Load(context.Context) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state, nil
}

// pace is what one round found.
type pace struct{ perSecond, p50, p99 float64 }

// drive has callers call append for a time and notes how long each call took.
func drive(ctx context.Context, callers int, length time.Duration, call func(ctx context.Context, record []byte) error) (pace, error) {
	times := make([][]time.Duration, callers)
	errs := make([]error, callers)
	begin := time.Now()
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			record := make([]byte, logRecord)
			_, _ = rand.Read(record) // never fails
			for time.Since(begin) < length {
				start := time.Now()
				if errs[c] = call(ctx, record); errs[c] != nil {
					return
				}
				times[c] = append(times[c], time.Since(start))
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	if err := errors.Join(errs...); err != nil {
		return pace{}, err
	}
	all := slices.Concat(times...)
	slices.Sort(all)
	at := func(percent int) float64 { return float64(all[len(all)*percent/100].Microseconds()) / 1000 }
	return pace{float64(len(all)) / took.Seconds(), at(50), at(99)}, nil
}

// logBench is one run's folder and key.
type logBench struct {
	dir    string
	origin string
	key    slowKey
	made   int
}

func newLogBench(dir string) (*logBench, error) {
	b := &logBench{dir: dir, origin: "load.test/keylog"}
	var err error
	if _, b.key.key, err = ed25519.GenerateKey(nil); err != nil {
		return nil, err
	}
	// The name and number of the key in a note, from a key of the note package's own making; its signatures are not used.
	private, _, err := note.GenerateKey(rand.Reader, b.origin)
	if err != nil {
		return nil, err
	}
	b.key.Signer, err = note.NewSigner(private)
	return b, err
}

// fresh is the path of a folder that does not exist.
func (b *logBench) fresh() string {
	b.made++
	return filepath.Join(b.dir, strconv.Itoa(b.made))
}

// bare is the yardstick.
func (b *logBench) bare(ctx context.Context, length time.Duration) (pace, error) {
	f, err := os.Create(b.fresh())
	if err != nil {
		return pace{}, err
	}
	defer f.Close()
	return drive(ctx, 1, length, func(_ context.Context, record []byte) error {
		if _, err := f.Write(record); err != nil {
			return err
		}
		return unix.Fdatasync(int(f.Fd()))
	})
}

func (b *logBench) keylog(ctx context.Context, length time.Duration) (p pace, err error) {
	dir := b.fresh()
	log, err := keylog.Create(ctx, keylog.Config{
		Dir: filepath.Join(dir, "log"), StateDir: filepath.Join(dir, "state"), Origin: b.origin,
		PublicKey: b.key.key.Public().(ed25519.PublicKey), Signer: logKey{b.key}, State: &copyKeeper{},
	})
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	return drive(ctx, logCallers, length, func(ctx context.Context, record []byte) error {
		_, _, err := log.Append(ctx, keylog.Record{Entry: record[:200], Body: record[200:]})
		return err
	})
}

// tessera runs one round of Tessera's POSIX appender.
func (b *logBench) tessera(ctx context.Context, length time.Duration, batch batching, signed bool) (p pace, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	driver, err := posix.New(ctx, posix.Config{Path: b.fresh()})
	if err != nil {
		return p, err
	}
	options := tessera.NewAppendOptions().WithCheckpointSigner(b.key).WithBatching(batch.size, batch.age)
	if signed {
		options = options.WithCheckpointInterval(tesseraCheckpoints)
	}
	// Its shutdown would wait for a checkpoint. Each entry that counts was answered.
	appender, _, reader, err := tessera.NewAppender(ctx, driver, options)
	if err != nil {
		return p, err
	}
	call := func(ctx context.Context, record []byte) error {
		_, err := appender.Add(ctx, tessera.NewEntry(record))()
		return err
	}
	if signed {
		awaiter := tessera.NewPublicationAwaiter(ctx, reader.ReadCheckpoint, tesseraPoll)
		call = func(ctx context.Context, record []byte) error {
			_, _, err := awaiter.Await(ctx, appender.Add(ctx, tessera.NewEntry(record)))
			return err
		}
	}
	return drive(ctx, logCallers, length, call)
}

// fastest tries each batching for a moment.
func (b *logBench) fastest(ctx context.Context, length time.Duration) (batching, error) {
	var best batching
	var most float64
	for _, batch := range batchings {
		p, err := b.tessera(ctx, length, batch, false)
		if err != nil {
			return best, err
		}
		if p.perSecond > most {
			best, most = batch, p.perSecond
		}
	}
	return best, nil
}

// measureLog runs the rounds.
func measureLog(ctx context.Context, quick bool) (*logFigures, error) {
	rounds, length := 5, 3*time.Second
	if quick {
		rounds, length = 3, time.Second
	}
	dir, err := os.MkdirTemp("", "sallyport-load-log-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	klog.LogToStderr(false) // Tessera tells of each folder that it makes
	klog.SetOutput(io.Discard)
	b, err := newLogBench(dir)
	if err != nil {
		return nil, err
	}
	fmt.Println("the key-use log, a bare loop and Tessera in turns")
	batch, err := b.fastest(ctx, length/3)
	if err != nil {
		return nil, err
	}
	kinds := []func() (pace, error){
		func() (pace, error) { return b.bare(ctx, length/2) },
		func() (pace, error) { return b.keylog(ctx, length) },
		func() (pace, error) { return b.tessera(ctx, length, batch, false) },
		func() (pace, error) { return b.tessera(ctx, length, batch, true) },
	}
	found := make([][]pace, len(kinds))
	for range rounds {
		for i, run := range kinds {
			p, err := run()
			if err != nil {
				return nil, err
			}
			found[i] = append(found[i], p)
		}
	}
	perSecond := func(i int) float64 { return median(found[i], func(p pace) float64 { return p.perSecond }) }
	p50 := func(i int) float64 { return median(found[i], func(p pace) float64 { return p.p50 }) }
	p99 := func(i int) float64 { return median(found[i], func(p pace) float64 { return p.p99 }) }
	f := &logFigures{
		Bare: perSecond(0), BareP50: p50(0), BareP99: p99(0), Keylog: perSecond(1), KeylogP50: p50(1),
		KeylogP99: p99(1), Unsigned: perSecond(2), UnsignedP50: p50(2), Signed: perSecond(3), SignedP50: p50(3), Batching: batch.String(),
	}
	f.ToSigned, f.ToUnsigned, f.P99ToBareMedian = f.Keylog/f.Signed, f.Keylog/f.Unsigned, f.KeylogP99/f.BareP50
	return f, nil
}

func (f *logFigures) report() {
	fmt.Printf("\n%-30s %10s  %s\n", "", "per second", "")
	fmt.Printf("%-30s %10.0f  p50 %.2f ms, p99 %.2f ms, one writer\n", "bare write and fdatasync", f.Bare, f.BareP50, f.BareP99)
	fmt.Printf("%-30s %10.0f  p50 %.2f ms, p99 %.2f ms, %d callers, under signed roots, %v a signature\n",
		"key-use log", f.Keylog, f.KeylogP50, f.KeylogP99, logCallers, tokenSignature)
	fmt.Printf("%-30s %10.0f  p50 %.2f ms, batches of %s\n", "Tessera, unsigned", f.Unsigned, f.UnsignedP50, f.Batching)
	fmt.Printf("%-30s %10.0f  p50 %.2f ms, a checkpoint every %v\n", "Tessera, signed checkpoint", f.Signed, f.SignedP50, tesseraCheckpoints)
	fmt.Printf("log/signed = %.1f (20 asked)   log/unsigned = %.1f (1.5 asked)   p99/bare p50 = %.1f (at most 15 asked)\n",
		f.ToSigned, f.ToUnsigned, f.P99ToBareMedian)
}
