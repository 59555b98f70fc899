package pkcs11

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// BenchmarkDerive is derive, read, destroy with a resident key in this process.
func BenchmarkDerive(b *testing.B) {
	p, public := ceremony(b)
	for _, threads := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("threads=%d", threads), func(b *testing.B) {
			token := open(b, p, User, threads)
			defer token.Close()
			key, id := newKey(b), newID()
			if err := token.Import(b.Context(), id, OAEPDirect, wrappedKey(b, public, key)); err != nil {
				b.Fatal(err)
			}
			req, _ := request(b, id, key)
			run(b, threads, func(n int) []DeriveResult {
				requests := make([]DeriveRequest, n)
				for i := range requests {
					requests[i] = req
				}
				return token.Derive(background, requests)
			})
		})
	}
}

// BenchmarkPoolDerive is the same through worker processes, asked by 64 callers.
func BenchmarkPoolDerive(b *testing.B) {
	profile, public := ceremony(b)
	for _, workers := range []int{1, 2, 3} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			p := pool(b, profile, func(c *PoolConfig) { c.Workers = workers })
			defer p.Close()
			key, id := newKey(b), newID()
			if _, err := p.Import(b.Context(), id, OAEPDirect, wrappedKey(b, public, key)); err != nil {
				b.Fatal(err)
			}
			req, _ := request(b, id, key)
			run(b, 64, func(int) []DeriveResult { return p.Derive(background, []DeriveRequest{req}) })
		})
	}
}

// BenchmarkSealed compares custodies in one process and one thread: a resident
// key, a sealed one that is loaded, and sealed ones of which none is. The last
// line of each tells how many derives of a resident key one of its own costs.
func BenchmarkSealed(b *testing.B) {
	p, public := whole.once(b, ImportResident, ImportSealed)
	officerMakes(b, p, 1)
	c := Config{Profile: p, PIN: pin(userPIN), Threads: 1, LiveKeys: 2}
	token, err := Open(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	defer token.Close()
	r, err := token.Inspect(b.Context(), ImportSealed)
	if err != nil {
		b.Fatal(err)
	}
	key, id := newKey(b), newID()
	if err := token.Import(b.Context(), id, OAEPDirect, wrappedKey(b, public, key)); err != nil {
		b.Fatal(err)
	}
	resident, _ := request(b, id, key)
	var cold []DeriveRequest
	for range 8 { // more than stay loaded
		cold = append(cold, importedSealed(b, token, importKey(b, r)).req)
	}
	var base float64
	for _, c := range []struct {
		name     string
		requests []DeriveRequest
	}{{"resident", []DeriveRequest{resident}}, {"sealed/warm", cold[:1]}, {"sealed/cold", cold}} {
		b.Run(c.name, func(b *testing.B) {
			b.ResetTimer()
			for i := range b.N {
				if r := token.Derive(background, c.requests[i%len(c.requests):][:1]); r[0].Err != nil {
					b.Fatal(r[0].Err)
				}
			}
			each := b.Elapsed().Seconds() / float64(b.N)
			if c.name == "resident" {
				base = each
			}
			b.ReportMetric(1/each, "derives/s")
			b.ReportMetric(each/base, "times-resident")
		})
	}
}

// BenchmarkSealedChanges is what a grant and a change of period cost.
func BenchmarkSealedChanges(b *testing.B) {
	token, public := readySealed(b, nil, 1, 2)
	s := importedSealed(b, token, public)
	blob := wrappedKey(b, public, s.key)
	b.Run("import", func(b *testing.B) {
		for range b.N {
			if _, err := token.ImportSealed(b.Context(), s.req.Key, OAEPDirect, blob); err != nil {
				b.Fatal(err)
			}
		}
	})
	o, err := token.load(token.home, s.req.Sealed)
	if err != nil {
		b.Fatal(err)
	}
	x, err := token.accept(token.home, o, Sealed)
	if err != nil {
		b.Fatal(err)
	}
	old, err := token.seal(token.home, o, x, 1)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("reseal", func(b *testing.B) {
		for range b.N {
			if _, err := token.Reseal(b.Context(), []SealedKey{old}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkUnwrap is what an import cannot do without, and nothing else: C_UnwrapKey with the template of a custody, into token objects (resident), or
// into session objects that are wrapped at once (sealed). proved does besides what must come before the acknowledgement, one key at a time: a derive
// and a sync of the folder, or a derive, and another with the key loaded back. What was unwrapped is destroyed when the time is over. tests/load measures
// imports beside it. Processor time is this process's.
func BenchmarkUnwrap(b *testing.B) {
	p, _ := whole.once(b, ImportResident, ImportSealed)
	officerMakes(b, p, 1)
	token := open(b, p, User, 1)
	defer token.Close()
	sealing, err := token.sealingKey(1)
	if err != nil {
		b.Fatal(err)
	}
	derives := func(s cryptoki.Session, o cryptoki.Object) error {
		_, err := derive(token.module, s, o, p.encode(generator[:]), token.template)
		return err
	}
	wrap := func(s cryptoki.Session, o cryptoki.Object) ([]byte, error) {
		return token.module.WrapKey(s, cryptoki.Plain(p.KWP), sealing, o)
	}
	for _, c := range []struct {
		name   string
		key    KeyName
		finish func(cryptoki.Session, cryptoki.Object) error
	}{
		{"resident", ImportResident, func(cryptoki.Session, cryptoki.Object) error { return nil }},
		{"resident-proved", ImportResident, func(s cryptoki.Session, o cryptoki.Object) error { return cmp.Or(derives(s, o), token.sync()) }},
		{"sealed", ImportSealed, func(s cryptoki.Session, o cryptoki.Object) error { _, err := wrap(s, o); return err }},
		{"sealed-proved", ImportSealed, func(s cryptoki.Session, o cryptoki.Object) error {
			blob, err := wrap(s, o)
			if err := cmp.Or(err, derives(s, o)); err != nil {
				return err
			}
			back, err := token.load(s, SealedKey{Period: 1, Blob: blob})
			if err != nil {
				return err
			}
			return cmp.Or(derives(s, back), token.module.DestroyObject(s, back))
		}},
	} {
		r, err := token.Inspect(b.Context(), c.key)
		if err != nil {
			b.Fatal(err)
		}
		with, err := token.key(c.key)
		if err != nil {
			b.Fatal(err)
		}
		var blobs [64][]byte
		for i := range blobs {
			blobs[i] = wrappedKey(b, importKey(b, r), newKey(b))
		}
		template := token.rekey
		if c.key == ImportSealed {
			template = token.sealedRekey
		}
		for _, threads := range []int{1, 2, 4, 8} {
			b.Run(fmt.Sprintf("%s/threads=%d", c.name, threads), func(b *testing.B) {
				var done atomic.Int64
				var all sync.WaitGroup
				made := make([][]cryptoki.Object, threads)
				sessions := make([]cryptoki.Session, threads)
				for t := range threads {
					if sessions[t], err = token.module.OpenSession(token.slot); err != nil {
						b.Fatal(err)
					}
				}
				before := processorTime(b)
				b.ResetTimer()
				for t, s := range sessions {
					all.Go(func() {
						for i := done.Add(1); i <= int64(b.N); i = done.Add(1) {
							id := newID()
							o, err := token.module.UnwrapKey(s, p.oaep(), with, blobs[i%int64(len(blobs))], append(slices.Clone(template),
								cryptoki.Bytes(cryptoki.CKA_LABEL, []byte(rekeyLabel)), cryptoki.Bytes(cryptoki.CKA_ID, id[:])))
							if err == nil {
								err = c.finish(s, o)
							}
							if err != nil {
								b.Error(err)
								return
							}
							made[t] = append(made[t], o)
						}
					})
				}
				all.Wait()
				b.StopTimer()
				used := processorTime(b) - before
				for t, s := range sessions {
					for _, o := range made[t] {
						if err := token.module.DestroyObject(s, o); err != nil {
							b.Fatal(err)
						}
					}
					if err := token.module.CloseSession(s); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "keys/s")
				b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-us/key")
			})
		}
	}
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkLiveKeys tells what 4096 live keys take of a process's memory, and
// what a derive costs among them. Run alone, or what others freed hides it.
func BenchmarkLiveKeys(b *testing.B) {
	token, public := readySealed(b, func(c *Config) { c.Threads = 1 }, 1)
	s := importedSealed(b, token, public)
	before := occupied(b)
	for range defaultLiveKeys { // one key under many names takes the same room
		s.req.Key = newID()
		if err := s.check(token); err != nil {
			b.Fatal(err)
		}
	}
	after := occupied(b)
	b.ResetTimer()
	for range b.N {
		if r := token.Derive(background, []DeriveRequest{s.req}); r[0].Err != nil {
			b.Fatal(r[0].Err)
		}
	}
	b.ReportMetric(float64(after-before)/defaultLiveKeys, "bytes/key")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "derives/s")
}

// occupied is how much memory this process occupies.
func occupied(b *testing.B) int {
	b.Helper()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	var size, pages int
	if _, err := fmt.Sscan(string(statm), &size, &pages); err != nil {
		b.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// run spreads b.N derives over callers.
func run(b *testing.B, callers int, derive func(n int) []DeriveResult) {
	b.ResetTimer()
	var all sync.WaitGroup
	for i := range callers {
		n := b.N / callers
		if i < b.N%callers {
			n++
		}
		all.Go(func() {
			for n > 0 {
				results := derive(min(n, maxPiece))
				for _, r := range results {
					if r.Err != nil {
						b.Error(r.Err)
						return
					}
				}
				n -= len(results)
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "derives/s")
}
