package pkcs11

import (
	"fmt"
	"sync"
	"testing"
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
			if err := p.Import(b.Context(), id, OAEPDirect, wrappedKey(b, public, key)); err != nil {
				b.Fatal(err)
			}
			req, _ := request(b, id, key)
			run(b, 64, func(int) []DeriveResult { return p.Derive(background, []DeriveRequest{req}) })
		})
	}
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
