//go:build root

package hosts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// Limits of a stage whose subject is not rates.
const (
	storefrontLimits = `
[limits]
open_rate = 100000.0
open_burst = 100000
login_rate = 100000.0
login_burst = 100000
field_rate = 100000.0
field_burst = 100000
`
	ownersLimits = "per_second = 100000.0\nburst = 100000\n\n[limits]\nrefusals = 100000.0\nrefusal_burst = 100000\nrefusals_overall = 100000.0\n"
)

// busy is the field that its owner changes all the time.
const busy = policies.Field("own/busy")

// town is a Sallyport on two machines, and an owner and three readers on the third.
type town struct {
	t       *testing.T
	s       *stage.Stage
	owner   *devices.Person
	readers [3]*devices.Firm
	number  int          // of the newest value of busy that was set
	acked   atomic.Int64 // of the newest value of busy that the owner was told is published
}

func newTown(t *testing.T) *town {
	t.Helper()
	bin := os.Getenv(binariesVariable)
	w := &town{t: t}
	var err error
	w.s, err = stage.Open(t.Context(), stage.Options{
		Dir: filepath.Join(t.TempDir(), "stage"), VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits,
		Bin: stage.Binaries{
			HSM: filepath.Join(bin, "sallyport-hsm"), Vault: filepath.Join(bin, "sallyport-vault"),
			Storefront: filepath.Join(bin, "sallyport-storefront"), Sallyport: filepath.Join(bin, "sallyport"),
		},
		VaultHost:      stage.Host{Enter: wires.vault.enter(), Listen: vaultToStorefront + ":" + vaultPort, Owners: vaultToPeople + ":" + ownersPort},
		StorefrontHost: stage.Host{Enter: wires.storefront.enter(), Listen: storefrontToPeople + ":" + storefrontPort},
	})
	must(t, err)
	t.Cleanup(func() {
		if err := w.s.Close(); err != nil && !t.Failed() {
			t.Error(err)
		}
	})
	w.owner = devices.NewPerson(t, w.s, client.Options{}, map[policies.Field]string{busy: "0", "own/a": "a", "own/b": "b", "own/c": "c", "own/d": "d"})
	for i := range w.readers {
		w.readers[i] = devices.NewFirm(t, w.s, fmt.Sprintf("Firm %d", i))
		devices.Meet(t, w.owner, w.readers[i], fmt.Sprintf("firm%d", i))
		must(t, w.owner.Grant(t.Context(), w.readers[i].ID(), []policies.Field{busy, "own/a", "own/b", "own/c", "own/d"}, client.GrantOptions{}))
	}
	return w
}

// visit is one attempt to read.
type visit struct {
	begin time.Time
	took  time.Duration
	acked int64 // when it began
	value string
	err   error
}

// traffic is four attempts at a time of each reader, and one owner's changes, one after the other.
type traffic struct {
	w      *town
	stop   chan struct{}
	once   sync.Once
	all    sync.WaitGroup
	mu     sync.Mutex
	visits [][]visit // of each line of attempts
	writes []visit
}

// live begins the traffic.
func (w *town) live() *traffic {
	r := &traffic{w: w, stop: make(chan struct{}), visits: make([][]visit, 4*len(w.readers))}
	ctx := w.t.Context()
	loop := func(pause time.Duration, step func() error) {
		r.all.Go(func() {
			for {
				select {
				case <-r.stop:
					return
				default:
				}
				if step() != nil {
					time.Sleep(100 * time.Millisecond)
				}
				time.Sleep(pause)
			}
		})
	}
	for line := range r.visits {
		loop(10*time.Millisecond, func() error {
			v := visit{begin: time.Now(), acked: w.acked.Load()}
			for again := true; again; again = errors.Is(v.err, policies.CodeHeadMoved) { // a reader that is told to ask again does
				v.value, v.err = w.readers[line%len(w.readers)].Value(ctx, w.owner.ID(), busy)
			}
			v.took = time.Since(v.begin)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.visits[line] = append(r.visits[line], v)
			return v.err
		})
	}
	loop(100*time.Millisecond, func() error {
		w.number++
		v := visit{begin: time.Now()}
		if v.err = w.owner.Set(ctx, client.Change{Field: busy, Value: []byte(fmt.Sprint(w.number))}); v.err == nil {
			w.acked.Store(int64(w.number))
		}
		v.took = time.Since(v.begin)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.writes = append(r.writes, v)
		return v.err
	})
	return r
}

// halt ends the traffic.
func (r *traffic) halt() {
	r.once.Do(func() { close(r.stop) })
	r.all.Wait()
}

// served reports in how many lines an attempt that succeeded has ended after a moment.
func (r *traffic) served(after time.Time) (lines int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, visits := range r.visits {
		for i := len(visits) - 1; i >= 0 && visits[i].begin.Add(visits[i].took).After(after); i-- {
			if visits[i].err == nil {
				lines++
				break
			}
		}
	}
	return lines
}

func (r *traffic) wrote(after time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.writes)
	return n > 0 && r.writes[n-1].err == nil && r.writes[n-1].begin.Add(r.writes[n-1].took).After(after)
}

// end ends the traffic and holds all of it to account. Every failure must have been told by the storefront, as a problem that says when to come back.
func (r *traffic) end(t *testing.T) (longest time.Duration, refused int) {
	t.Helper()
	r.halt()
	wrong := map[string]int{}
	for _, visits := range r.visits {
		for _, v := range visits {
			longest = max(longest, v.took)
			if v.err != nil {
				refused++
				if p := (*problem.Problem)(nil); !errors.Is(v.err, policies.CodeUnavailable) || !errors.As(v.err, &p) || p.RetryAfter == 0 {
					wrong[v.err.Error()]++
				}
				continue
			}
			if got := number(t, v.value); got < v.acked {
				t.Errorf("a reader is given value %d; the owner had been told before that %d is published", got, v.acked)
			}
		}
	}
	for text, n := range wrong {
		t.Errorf("%d times a reader is told, without when to come back or what is not so: %s", n, text)
	}
	for _, v := range r.writes {
		if v.err != nil && !errors.Is(v.err, policies.CodeUnavailable) {
			t.Errorf("the owner is told: %v", v.err)
		}
	}
	return longest, refused
}

func number(t *testing.T, value string) (n int64) {
	t.Helper()
	if _, err := fmt.Sscan(value, &n); err != nil {
		t.Errorf("value %q: %v", value, err)
	}
	return n
}

// withoutVault asks the storefront for what it can do alone, from a device that has no connection yet, and returns how long the slowest took.
func (w *town) withoutVault() (slowest time.Duration) {
	t := w.t
	measure := func(what string, f func(context.Context) error) {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := f(ctx); err != nil {
			t.Errorf("without the vault, %s: %v", what, err)
		}
		slowest = max(slowest, time.Since(begin))
	}
	browser := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: devices.Roots(t, w.s)}}}
	defer browser.CloseIdleConnections()
	get := func(path, want string) func(context.Context) error {
		return func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, "GET", w.s.StorefrontURL()+path, nil)
			if err != nil {
				return err
			}
			resp, err := browser.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err == nil && (resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want)) {
				err = fmt.Errorf("status %d: %s", resp.StatusCode, body)
			}
			return err
		}
	}
	measure("health", get(api.PathHealth, `"degraded"`))
	measure("the vault document", get(api.PathVault, "vault"))
	measure("an identity", get(strings.Replace(api.PathIdentity, "{id}", w.owner.ID().String(), 1), "identity"))
	measure("a login and the list of grants", func(ctx context.Context) error {
		contents, _ := w.readers[0].Drawer.Load()
		again := new(devices.Drawer)
		must(t, again.Save(contents))
		r, err := client.OpenReader(again, client.Options{})
		if err != nil {
			return err
		}
		defer r.Close()
		items, err := r.Granted(ctx)
		if err == nil && len(items) == 0 {
			err = errors.New("it is empty")
		}
		return err
	})
	return slowest
}
