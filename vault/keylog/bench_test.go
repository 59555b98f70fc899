package keylog

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkAppend measures 300-byte records, by writers and records a call.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		name          string
		writers, call int
	}{
		{"1writer", 1, 1}, {"64writers", 64, 1}, {"8writers100records", 8, 100},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := newBench(b)
			l := s.create(b)
			call := make([]Record, c.call)
			for i := range call {
				call[i] = Record{Entry: bytes.Repeat([]byte{1}, 200), Body: bytes.Repeat([]byte{2}, 100)}
			}
			signatures := s.signer.signatures()
			times := make([][]time.Duration, c.writers)
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for w := range c.writers {
				wg.Go(func() {
					for next.Add(int64(c.call)) <= int64(b.N+c.call-1) {
						start := time.Now()
						if _, _, err := l.Append(b.Context(), call...); err != nil {
							b.Error(err)
							return
						}
						times[w] = append(times[w], time.Since(start))
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			all := slices.Concat(times...)
			slices.Sort(all)
			size := l.Checkpoint().Size
			b.ReportMetric(float64(size)/b.Elapsed().Seconds(), "entries/s")
			b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(size)/float64(s.signer.signatures()-signatures), "entries/signature")
		})
	}
}

// BenchmarkOpen measures the verification of a log of 200,000 entries, and
// BenchmarkProve proofs in it.
func BenchmarkOpen(b *testing.B) {
	s, n := longLog(b)
	for b.Loop() {
		mustClose(b, s.open(b))
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkProve(b *testing.B) {
	s, n := longLog(b)
	l := s.open(b)
	for _, c := range []struct {
		name string
		span int64
	}{{"newest", 100}, {"anywhere", int64(n)}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			i := int64(0)
			for b.Loop() {
				i++
				if _, err := l.Prove(int64(n)-1-i*7919%c.span, int64(n)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func longLog(b *testing.B) (*bench, int) {
	s := newBench(b)
	l := s.create(b)
	call := slices.Repeat([]Record{{Entry: make([]byte, 200), Body: make([]byte, 100)}}, 100)
	for range 2000 {
		mustAppend(b, l, call...)
	}
	mustClose(b, l)
	return s, 200_000
}
