//go:build root

package fault

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/tests/stage"
)

var (
	cuts     = flag.Int("cuts", 5, "how often TestPowerCuts cuts the power of vault, storefront and token, each")
	cutsMore = flag.Int("cuts-more", 3, "how often it cuts that of everything, and of single folders, each")
)

const loopSize = 4 << 30 // above both daemons' reserves; a sparse file

// powered is a stage whose folders, some of them, lie on file systems whose power can be cut.
type powered struct {
	*world
	loops []*loop
	users func(*stage.Stage) []*stage.Daemon // who uses them
}

// newPowered opens a stage in which the named folders are file systems of their own: "" is the whole stage.
func newPowered(t *testing.T, seed uint64, bin stage.Binaries, users func(*stage.Stage) []*stage.Daemon, folders ...string) *powered {
	t.Helper()
	base := loopFolder(t)
	p := &powered{users: users}
	dir := filepath.Join(base, "stage")
	for i, folder := range folders {
		p.loops = append(p.loops, newLoop(t, filepath.Join(base, fmt.Sprintf("image-%d", i)), filepath.Join(dir, folder), loopSize))
	}
	s := openStage(t, stage.Options{Dir: dir, Bin: bin, VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	// Configurations and development certificates are the stage's own, and nobody syncs them.
	for _, l := range p.loops {
		must(t, l.sync())
	}
	p.world = newWorld(t, s, seed)
	for _, h := range p.households {
		// Until it is killed, a daemon whose disk is gone says so in its own words.
		h.excuses = append(h.excuses, policies.CodeLogStopped, policies.CodeInternal)
	}
	return p
}

// cut cuts the power of all file systems at once, and lets the daemons that use them live for a moment longer, or for long enough that they notice.
func (p *powered) cut() (down []*stage.Daemon, err error) {
	for _, l := range p.loops {
		if err := l.cut(); err != nil {
			return nil, err
		}
	}
	if p.random.IntN(2) == 0 {
		time.Sleep(time.Duration(p.random.IntN(100)) * time.Millisecond)
	}
	down = p.users(p.s)
	for _, d := range down {
		d.Kill()
	}
	for _, l := range p.loops {
		if err := l.remount(); err != nil {
			return nil, err
		}
	}
	return down, nil
}

func vaultOnly(s *stage.Stage) []*stage.Daemon      { return []*stage.Daemon{s.Vault} }
func storefrontOnly(s *stage.Stage) []*stage.Daemon { return []*stage.Daemon{s.Storefront} }
func both(s *stage.Stage) []*stage.Daemon           { return []*stage.Daemon{s.Vault, s.Storefront} }

// TestPowerCuts cuts the power under folders of a Sallyport at random moments under a mixed load, and holds it to what TestKills holds it to. Where one
// folder of the vault loses its power alone, the others are newer than it when it comes back.
func TestPowerCuts(t *testing.T) {
	seed := seed(t)
	for i, part := range []struct {
		name    string
		users   func(*stage.Stage) []*stage.Daemon
		rounds  int
		folders []string
	}{
		{"vault", vaultOnly, *cuts, []string{"vault"}},
		{"storefront", storefrontOnly, *cuts, []string{"storefront"}},
		{"token", vaultOnly, *cuts, []string{"token"}},
		{"everything", both, *cutsMore, []string{""}},
		{"log", vaultOnly, *cutsMore, []string{"vault/log"}},
		{"signer state", vaultOnly, *cutsMore, []string{"vault/state"}},
		{"database", vaultOnly, *cutsMore, []string{"vault/database"}},
		{"four disks", vaultOnly, *cutsMore, []string{"vault/log", "vault/state", "vault/database", "token"}},
	} {
		t.Run(part.name, func(t *testing.T) {
			p := newPowered(t, seed+uint64(100*i), binaries, part.users, part.folders...)
			for round := range part.rounds {
				p.demand("after a power cut of "+part.name, p.round(p.cut))
				progress(t, round, part.rounds, p.summary())
			}
			t.Log(p.summary())
		})
	}
}

// TestPowerCutControl: the same power cuts under daemons for whom fsync does nothing find that something is lost. Without this the other tests
// would prove nothing.
func TestPowerCutControl(t *testing.T) {
	seed := seed(t)
	self, err := os.Executable()
	must(t, err)
	// unsynced is a script that runs this test binary as a daemon without fsync.
	unsynced := func(t *testing.T, program string) string {
		t.Helper()
		script := filepath.Join(t.TempDir(), filepath.Base(program))
		text := fmt.Sprintf("#!/bin/sh\n%s='%s' exec '%s' \"$@\"\n", unsyncedVariable, program, self)
		must(t, os.WriteFile(script, []byte(text), 0o700))
		return script
	}
	for i, part := range []struct {
		name, folder string
		users        func(*stage.Stage) []*stage.Daemon
		change       func(t *testing.T, b *stage.Binaries)
	}{
		{"vault", "vault", vaultOnly, func(t *testing.T, b *stage.Binaries) { b.Vault = unsynced(t, b.Vault) }},
		{"storefront", "storefront", storefrontOnly, func(t *testing.T, b *stage.Binaries) { b.Storefront = unsynced(t, b.Storefront) }},
		{"token", "token", vaultOnly, func(t *testing.T, b *stage.Binaries) { b.Vault = unsynced(t, b.Vault) }},
	} {
		t.Run(part.name, func(t *testing.T) {
			bin := binaries
			part.change(t, &bin)
			p := newPowered(t, seed+uint64(100*i), bin, part.users, part.folder)
			for range 5 {
				if wrong := p.round(p.cut); len(wrong) > 0 {
					first, _, _ := strings.Cut(wrong[0], "\n")
					t.Logf("found in round %d: %s", p.rounds, first)
					return
				}
			}
			t.Errorf("the power was cut %d times under daemons that sync nothing, and nothing is found wrong", p.rounds)
		})
	}
}

// TestPowerCutCeremony: what the ceremony and the creation of the vault said is done is there after a power cut, and a cut right after the very first
// start of the daemons, when their databases are being made, leaves nothing that keeps them from starting.
func TestPowerCutCeremony(t *testing.T) {
	base := loopFolder(t)
	dir := filepath.Join(base, "stage")
	for round := range *cutsMore {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			var loops []*loop
			for _, folder := range []string{"token", "ceremony", "vault/log", "vault/state", "vault/database", "storefront/data"} {
				image := filepath.Join(base, fmt.Sprintf("image-%d-%s", round, filepath.Base(folder)))
				loops = append(loops, newLoop(t, image, filepath.Join(dir, fmt.Sprint(round), folder), loopSize))
			}
			power := func() {
				for _, l := range loops {
					must(t, l.cut())
				}
				for _, l := range loops {
					must(t, l.remount())
				}
			}
			o := stage.Options{Dir: filepath.Join(dir, fmt.Sprint(round)), VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits}
			o.Say = func(step string) {
				switch step {
				case "holding the ceremony": // the development token's folder and configuration are the stage's own
					must(t, loops[0].sync())
				case "creating the vault", "starting the vault":
					power()
				}
			}
			s := openStage(t, o)
			for range 3 { // the second and third time while they start
				for _, l := range loops {
					must(t, l.cut())
				}
				s.Vault.Kill()
				s.Storefront.Kill()
				for _, l := range loops {
					must(t, l.remount())
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(300))*time.Millisecond)
				_ = s.Storefront.Start(ctx) // killed when the time is over, if it does not listen before
				_ = s.Vault.Start(ctx)
				cancel()
			}
			s.Vault.Kill()
			s.Storefront.Kill()
			must(t, s.Vault.Start(t.Context()))
			must(t, s.Storefront.Start(t.Context()))
			w := newWorld(t, s, uint64(round))
			w.demand("after a power cut at the ceremony", w.round(func() ([]*stage.Daemon, error) { return nil, nil }))
			must(t, s.Close())
		})
	}
}
