package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/stage"
)

// How long it takes to replace the root of a person with a thousand items, of which twenty businesses read ten each, with the SDK and real processes, beside
// what the token needs for the keys of the new grants: BenchmarkUnwrap of package pkcs11, for as many keys, right before and after. All
// items are published twice meanwhile: in capsules of the new root, and under new keys. What it may take is half as much again as the token, and 2 ms for each item.
const (
	replacedItems   = 1000
	replacedReaders = 20
	replacedFields  = 10 // of each reader
	perItem         = 2 * time.Millisecond
)

// Replaced is what a run of --replace found. Medians over the rounds.
type Replaced struct {
	Items   int     `json:"items"`
	Keys    int     `json:"keys"` // that the new grants need
	Seconds float64 `json:"replaced_s"`
	Token   float64 `json:"token_s"`   // raw, for as many keys
	Allowed float64 `json:"allowed_s"` // 1.5 times that, and 2 ms an item
	Ratio   float64 `json:"ratio"`     // of Seconds to Allowed: at most 1
	Rounds  int     `json:"rounds"`

	CPU map[string]float64 `json:"cpu_s"`
}

// runReplace is the mode of --replace.
func runReplace(ctx context.Context, quick bool, file string) error {
	f, err := measureReplace(ctx, quick)
	if err != nil {
		return err
	}
	f.report()
	return write(file, f)
}

func measureReplace(ctx context.Context, quick bool) (f Replaced, err error) {
	rounds := 5
	if quick {
		rounds = 3
	}
	dir, err := os.MkdirTemp("", "sallyport-load-")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(dir)
	fmt.Println("replacing a root: building and starting")
	s, raw, err := besideRaw(ctx, stage.Options{Dir: dir, StorefrontConfig: limits, VaultConfig: ownersLimits})
	if err != nil {
		return f, err
	}
	defer s.Close()
	h := new(household)
	defer h.close()
	if err := h.settle(ctx, s); err != nil {
		return f, err
	}
	f = Replaced{Items: replacedItems, Keys: replacedReaders * replacedFields, Rounds: rounds, CPU: map[string]float64{}}
	best, err := raw.best(ctx, string(policies.CustodyResident), f.Keys/2)
	if err != nil {
		return f, err
	}
	bare := func() (seconds float64, err error) {
		r, err := raw.run(ctx, string(policies.CustodyResident), best.threads, f.Keys)
		return float64(f.Keys) / r.perSecond, err
	}
	before, err := bare()
	if err != nil {
		return f, err
	}
	type replaced struct {
		seconds, token, allowed float64
		cpu                     map[string]time.Duration
	}
	var found []replaced
	for round := range rounds {
		fmt.Printf("round %d of %d\n", round+1, rounds)
		used, begin := cpuTimes(s), time.Now()
		if err := h.owner.Replace(ctx, client.ReplaceOptions{Reason: succession.Stolen}, func([]byte) error { return nil }); err != nil {
			return f, err
		}
		r := replaced{seconds: time.Since(begin).Seconds(), cpu: cpuTimes(s)}
		for name := range r.cpu {
			r.cpu[name] -= used[name]
		}
		if err := h.read(ctx); err != nil {
			return f, err
		}
		after, err := bare()
		if err != nil {
			return f, err
		}
		r.token, before = (before+after)/2, after
		r.allowed = 1.5*r.token + replacedItems*perItem.Seconds()
		found = append(found, r)
	}
	f.Seconds = median(found, func(r replaced) float64 { return r.seconds })
	f.Token = median(found, func(r replaced) float64 { return r.token })
	f.Allowed = median(found, func(r replaced) float64 { return r.allowed })
	f.Ratio = median(found, func(r replaced) float64 { return r.seconds / r.allowed })
	for name := range found[0].cpu {
		f.CPU[name] = median(found, func(r replaced) float64 { return r.cpu[name].Seconds() })
	}
	return f, nil
}

// household is a person and their businesses.
type household struct {
	owner   *client.Owner
	readers []*client.Reader
	names   []policies.Field
}

func (h *household) close() {
	for _, r := range h.readers {
		r.Close()
	}
	if h.owner != nil {
		h.owner.Close()
	}
}

func valueOf(i int) []byte { return fmt.Appendf(nil, "value %d of an owner", i) }

// settle publishes and grants.
func (h *household) settle(ctx context.Context, s *stage.Stage) error {
	pem, err := os.ReadFile(s.CA())
	if err != nil {
		return err
	}
	network, err := client.NewNetwork(s.Join(), client.Options{Roots: pem})
	if err != nil {
		return err
	}
	if h.owner, err = client.InitOwner(ctx, new(memory), network, client.Options{}); err != nil {
		return err
	}
	var changes []client.Change
	for i := range replacedItems {
		h.names = append(h.names, policies.Field(fmt.Sprintf("own/load-%04d", i)))
		changes = append(changes, client.Change{Field: h.names[i], Value: valueOf(i)})
	}
	if err := h.owner.Set(ctx, changes...); err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	for i := range replacedReaders {
		code, err := h.owner.Code()
		if err != nil {
			return err
		}
		r, err := client.InitReader(ctx, new(memory), network, policies.KindBusiness, fmt.Sprintf("Load %d", i), client.Options{})
		if err != nil {
			return err
		}
		h.readers = append(h.readers, r)
		if _, err := r.Connect(ctx, code, "owner"); err != nil {
			return err
		}
		if _, err := h.owner.Connect(ctx, r.Code(), fmt.Sprintf("reader-%d", i)); err != nil {
			return err
		}
		if err := h.owner.Grant(ctx, r.ID(), h.names[i*replacedFields:][:replacedFields], client.GrantOptions{Purpose: purpose}); err != nil {
			return err
		}
	}
	return nil
}

// read has every business read everything that it may.
func (h *household) read(ctx context.Context) error {
	for i, r := range h.readers {
		var items []client.Item
		for _, f := range h.names[i*replacedFields:][:replacedFields] {
			items = append(items, client.Item{Owner: h.owner.ID(), Field: f})
		}
		values, err := r.Read(ctx, items...)
		if err != nil {
			return err
		}
		for n, v := range values {
			if v.Err != nil {
				return fmt.Errorf("business %d reads %s: %w", i, v.Field, v.Err)
			}
			if !bytes.Equal(v.Bytes, valueOf(i*replacedFields+n)) {
				return fmt.Errorf("business %d reads another value of %s than was published", i, v.Field)
			}
		}
	}
	return nil
}

func (f Replaced) report() {
	fmt.Printf("\na root replaced, %d items, %d keys for new grants: %.2f s; the token alone %.2f s; may take %.2f s; ratio %.2f\n", f.Items, f.Keys, f.Seconds, f.Token, f.Allowed, f.Ratio)
	for _, name := range []string{"readers", "storefront", "vault", "token workers"} {
		what := name
		if name == "readers" {
			what = "the device"
		}
		fmt.Printf("    %-14s %6.2f s of processor time\n", what, f.CPU[name])
	}
}
