package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/tests/stage"
)

// raw is the yardstick: the loop derive + read + destroy on the keys that the vault imported, in one process, by the binding that the workers use.
type raw struct {
	token *pkcs11.Token
	keys  []pkcs11.KeyID
	point [65]byte
}

func newRaw(ctx context.Context, s *stage.Stage) (*raw, error) {
	// The module reads its configuration from the environment when it is loaded.
	if err := os.Setenv("SOFTHSM2_CONF", s.SoftHSMConf()); err != nil {
		return nil, err
	}
	record, err := hardware.ReadRecord(s.Ceremony())
	if err != nil {
		return nil, err
	}
	vendor, err := hardware.FindProfile("softhsm")
	if err != nil {
		return nil, err
	}
	profile, err := vendor.PKCS11("")
	if err != nil {
		return nil, err
	}
	pin, err := hardware.ReadPIN("file:"+s.PINFile(), false)
	if err != nil {
		return nil, err
	}
	defer pin.Zero()
	token, err := pkcs11.Open(ctx, pkcs11.Config{
		Profile: profile, Selector: pkcs11.Selector{Serial: record.Transcript.Token.Serial}, Role: pkcs11.User, PIN: pin, Threads: 8,
	})
	if err != nil {
		return nil, err
	}
	r := &raw{token: token, point: s.Generator()}
	if r.keys, err = token.Keys(ctx); err != nil || len(r.keys) == 0 {
		token.Close()
		return nil, fmt.Errorf("the token has %d keys: %v", len(r.keys), err)
	}
	return r, nil
}

func (r *raw) close() { r.token.Close() }

// signature returns how long the token takes to sign with the log key, in microseconds: the median of 500.
func (r *raw) signature(ctx context.Context) (float64, error) {
	times := make([]time.Duration, 500)
	message := make([]byte, 120) // about a checkpoint's text
	for i := range times {
		begin := time.Now()
		if _, err := r.token.Sign(ctx, message); err != nil {
			return 0, err
		}
		times[i] = time.Since(begin)
	}
	return median(times, func(t time.Duration) float64 { return float64(t.Nanoseconds()) / 1000 }), nil
}

// derive derives once.
func (r *raw) derive() error {
	return r.token.Derive(context.Background(), []pkcs11.DeriveRequest{{Key: r.keys[0], Point: r.point}})[0].Err
}

// best tries 1, 2, 4 and 8 threads and returns the fastest.
func (r *raw) best(ctx context.Context) (threads int, err error) {
	var most float64
	for _, n := range []int{1, 2, 4, 8} {
		rate, err := r.run(ctx, n, 700*time.Millisecond)
		if err != nil {
			return 0, err
		}
		if rate > most {
			threads, most = n, rate
		}
	}
	return threads, nil
}

// run derives for a time and returns derives per second.
func (r *raw) run(ctx context.Context, threads int, length time.Duration) (float64, error) {
	var done atomic.Int64
	var failed atomic.Pointer[error]
	begin := time.Now()
	var wg sync.WaitGroup
	for t := range threads {
		wg.Go(func() {
			request := make([]pkcs11.DeriveRequest, 1)
			for i := t; time.Since(begin) < length && ctx.Err() == nil; i++ {
				request[0] = pkcs11.DeriveRequest{Key: r.keys[i%len(r.keys)], Point: r.point}
				if result := r.token.Derive(ctx, request); result[0].Err != nil {
					failed.Store(&result[0].Err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(done.Load()) / time.Since(begin).Seconds(), ctx.Err()
}
