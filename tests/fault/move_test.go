package fault

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// TestKillsDuringMove kills the vault while it moves sealed keys to the next sealing key, some times over, with an owner who revokes meanwhile. What is
// in force can be read after it, the older sealing key is destroyed in the end and that is on record, what was revoked stays dead, and no key is left over.
func TestKillsDuringMove(t *testing.T) {
	random := rand.New(rand.NewPCG(seed(t), 0))
	ctx := t.Context()
	s := openStage(t, stage.Options{VaultMembers: "sealing_check = \"1s\"\n", VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	const fields, rounds, kills = 40, 2, 3
	values := map[policies.Field]string{}
	var all []policies.Field
	for i := range fields {
		f := policies.Field(fmt.Sprintf("own/f%02d", i))
		values[f] = fmt.Sprint("value ", i)
		all = append(all, f)
	}
	p, firm := devices.NewPerson(t, s, client.Options{}, values), devices.NewFirm(t, s, "Acme")
	devices.Meet(t, p, firm, "acme")
	must(t, p.Grant(ctx, firm.ID(), all, client.GrantOptions{Custody: policies.CustodySealed}))
	kept, revoked := all, []policies.Field{}
	revoke := func(f policies.Field) error {
		return p.Revoke(ctx, firm.ID(), []policies.Field{f}, client.RevokeOptions{})
	}
	must(t, revoke(kept[0]))
	kept, revoked = kept[1:], append(revoked, kept[0])

	vendor, err := hardware.FindProfile("softhsm")
	must(t, err)
	t.Setenv("SOFTHSM2_CONF", s.SoftHSMConf())
	facts, err := vendor.PKCS11("")
	must(t, err)
	pin, err := hardware.ReadPIN("file:"+s.PINFile(), true)
	must(t, err)
	defer pin.Zero()
	token, err := pkcs11.Open(ctx, pkcs11.Config{Profile: facts, PIN: pin, Threads: 1})
	must(t, err)
	defer token.Close()

	killed := 0
	for round := range rounds {
		command := exec.CommandContext(ctx, s.Bin().HSM, "sealing-key", "--dir", s.Ceremony(), "--yes")
		command.Env = append(os.Environ(), "SOFTHSM2_CONF="+s.SoftHSMConf())
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		newest := uint32(round + 2)
		done := func() bool {
			t.Helper()
			periods, _, err := token.SealingKeys(ctx)
			must(t, err)
			return len(periods) == 1 && periods[0] == newest
		}
		ending, ended := kept[0], make(chan error, 1)
		go func() { ended <- revoke(ending) }()
		for range kills {
			// A move takes half a second here; it begins within a second, and at once after a start.
			time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
			if done() {
				break
			}
			killed++
			s.Vault.Kill()
			must(t, s.Vault.Start(ctx))
		}
		if err := <-ended; err != nil {
			if err := errors.Join(p.Sync(ctx), revoke(ending)); err != nil {
				t.Logf("revoking again: %v", err) // it was accepted the first time, as the reads below must show
			}
		}
		kept, revoked = kept[1:], append(revoked, ending)
		for begin := time.Now(); !done(); time.Sleep(100 * time.Millisecond) {
			if time.Since(begin) > startBound {
				t.Fatalf("round %d: the older sealing key is still there", round)
			}
		}
		var items []client.Item
		for _, f := range kept {
			items = append(items, client.Item{Owner: p.ID(), Field: f})
		}
		got, err := firm.Read(ctx, items...)
		must(t, err)
		for i, f := range kept {
			if got[i].Err != nil || string(got[i].Bytes) != values[f] {
				t.Errorf("round %d: %s reads as %q, %v", round, f, got[i].Bytes, got[i].Err)
			}
		}
		for _, f := range revoked {
			if got, err := firm.Value(ctx, p.ID(), f); err == nil {
				t.Errorf("round %d: %s was revoked, and reads as %q", round, f, got)
			}
		}
	}
	if killed < rounds {
		t.Errorf("killed %d times: nothing was tested", killed)
	}
	recorded := map[uint32]bool{}
	for _, e := range devices.Journal(t, s) {
		if e.Entry.Kind == evidence.EntrySealing {
			recorded[e.Details.Period] = true
		}
	}
	for period := uint32(1); period <= rounds; period++ {
		if !recorded[period] {
			t.Errorf("the end of sealing key %d is not on record", period)
		}
	}
	must(t, s.Vault.Stop())
	must(t, s.Vault.Start(ctx)) // which removes what no grant stands for
	if slots := sealedSlots(t, s); slots != len(kept) {
		t.Errorf("%d keys are stored for %d permissions", slots, len(kept))
	}
	t.Logf("killed %d times in %d moves of %d keys", killed, rounds, len(kept))
}
