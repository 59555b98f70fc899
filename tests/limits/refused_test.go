package limits

import (
	"context"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/vault/api"
)

// unlimited is a vault that lists every refusal, as all did before there was an allowance.
const unlimited = "\n[limits]\nrefusals = 1e9\nrefusal_burst = 1000000000\nrefusals_overall = 1e9\n"

// size is what the log's folder holds in bytes.
func size(t *testing.T, dir string) (n int64) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	}))
	return n
}

// TestFailingCallersAndTheLog: enrolled readers who send nothing but requests that are refused, past the storefront and its rates, do not fill
// the log; and a reader who means well is served. A read that is refused in each of many items is the dearest they have.
func TestFailingCallersAndTheLog(t *testing.T) {
	cases := []struct {
		name    string
		readers int
		config  string
		perHour float64 // most bytes, once the allowances are used up
	}{
		{"1 reader", 1, "", 8e6},
		{"100 readers", 100, "", 200e6},
		{"1 reader, no allowance", 1, unlimited, 0},
		{"100 readers, no allowance", 100, unlimited, 0},
	}
	if *measure == 0 {
		cases = cases[:1]
		cases[0].config = "\n[limits]\nrefusal_burst = 50\n"
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			s := openStage(t, stage.Options{VaultConfig: test.config})
			anna := devices.NewPerson(t, s, client.Options{}, map[policies.Field]string{"name": "Anna"})
			honest := devices.NewFirm(t, s, "honest")
			devices.Meet(t, anna, honest, "honest")
			must(t, anna.Grant(t.Context(), honest.ID(), []policies.Field{"name"}, client.GrantOptions{}))
			crowd := make([]*devices.Insider, test.readers)
			for i := range crowd {
				crowd[i] = devices.NewInsider(t, s, devices.NewFirm(t, s, "hostile"))
			}

			// What an honest read adds.
			before := size(t, s.VaultLog())
			for range 20 {
				if _, err := honest.Value(t.Context(), anna.ID(), "name"); err != nil {
					t.Fatal(err)
				}
			}
			each := float64(size(t, s.VaultLog())-before) / 20

			ctx, stop := context.WithCancel(t.Context())
			var running sync.WaitGroup
			defer running.Wait()
			defer stop()
			var refused, limited atomic.Int64
			items := make([]policies.ReadItem, 20)
			for i := range items {
				items[i] = policies.ReadItem{Owner: anna.ID(), Field: "name"}
			}
			for i := range max(2, min(test.readers, 8)) {
				running.Go(func() {
					for n := i; ctx.Err() == nil; n++ {
						c := crowd[n%len(crowd)]
						reply, err := c.Vault.Reencrypt(ctx, api.Call{Request: c.Request(t, "general", nil, items...), Items: make([]api.CallItem, len(items))})
						if err == nil && reply.Code == policies.CodeRateLimited {
							limited.Add(1)
						} else if err == nil {
							refused.Add(1)
						}
					}
				})
			}
			served, slowest := 0, time.Duration(0)
			serve := func(d time.Duration) {
				for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
					begin := time.Now()
					if v, err := honest.Value(t.Context(), anna.ID(), "name"); err != nil || v != "Anna" {
						t.Fatalf("a reader who means well: %q, %v", v, err)
					}
					served, slowest = served+1, max(slowest, time.Since(begin))
				}
			}
			empty := size(t, s.VaultLog())
			serve(lasting(3*time.Second) / 2)
			half, began, sent, reads := size(t, s.VaultLog()), time.Now(), refused.Load()+limited.Load(), served
			serve(lasting(3*time.Second) / 2)
			took, grown := time.Since(began), size(t, s.VaultLog())-half
			perHour := max(0, float64(grown)-each*float64(served-reads)) / took.Hours()
			t.Logf("%s: first half %.1f MB; then %.1f MB an hour, without what the honest reads leave, at %.0f refused requests of %d items a second (of all, %d listed, %d rate limited); %d reads of an honest reader, %.1f kB each, the slowest in %s",
				test.name, float64(half-empty)/1e6, perHour/1e6, float64(refused.Load()+limited.Load()-sent)/took.Seconds(), len(items), refused.Load(), limited.Load(), served, each/1e3, slowest.Round(time.Millisecond))
			if test.perHour > 0 && perHour > test.perHour {
				t.Errorf("the log grows by %.1f MB an hour, at most %.1f MB are to be had", perHour/1e6, test.perHour/1e6)
			}
			if limited.Load() == 0 && test.config != unlimited {
				t.Error("nobody was rate limited")
			}
		})
	}
}
