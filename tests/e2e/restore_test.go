package e2e

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// TestRestored puts an old backup of the vault's database under today's log. Before the first read is served, all that happened since holds: a
// revocation, a nonce that was used, a day's reads that were used up. An old backup of the log is refused, with the reason.
func TestRestored(t *testing.T) {
	t.Parallel()
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	ctx := t.Context()
	values := map[policies.Field]string{"own/good": "good", "own/revoked": "revoked", "own/limited": "limited"}
	p, f := devices.NewPerson(t, s, client.Options{}, values), devices.NewFirm(t, s, "Acme")
	devices.Meet(t, p, f, "acme")
	must(t, p.Grant(ctx, f.ID(), []policies.Field{"own/good", "own/revoked"}, client.GrantOptions{}))
	must(t, p.Grant(ctx, f.ID(), []policies.Field{"own/limited"}, client.GrantOptions{ReadsPerDay: 2}))
	caller := devices.NewInsider(t, s, f)
	have := p.Drawer.Look(t)
	item := func(field policies.Field) policies.ReadItem { return policies.ReadItem{Owner: p.ID(), Field: field} }

	backup := t.TempDir()
	must(t, s.Vault.Stop())
	for _, part := range []string{"database", "log"} {
		put(t, filepath.Join(s.VaultData(), part), filepath.Join(backup, part))
	}
	must(t, s.Vault.Start(ctx))
	used := caller.Request(t, "general", nil, item("own/good"))
	if code := caller.Ask(t, used, have.Offer(t, "own/good")); code != policies.CodeReleased {
		t.Fatalf("the control: %s", code)
	}
	unused := caller.Request(t, "general", nil, item("own/revoked"))
	for range 2 {
		if got, err := f.Value(ctx, p.ID(), "own/limited"); err != nil || got != "limited" {
			t.Fatalf("within the limit: %q, %v", got, err)
		}
	}
	// Without a new epoch, so that nothing but the revocation stands in the way of the old offer.
	must(t, p.Revoke(ctx, f.ID(), []policies.Field{"own/revoked"}, client.RevokeOptions{KeepEpoch: true}))

	must(t, s.Vault.Stop())
	put(t, filepath.Join(backup, "database"), filepath.Join(s.VaultData(), "database"))
	must(t, s.Vault.Start(ctx))
	// The first requests that it is asked, past the storefront.
	if code := caller.Ask(t, unused, have.Offer(t, "own/revoked")); code != policies.CodeRevoked {
		t.Errorf("a read of what was revoked since the backup: %s", code)
	}
	if code := caller.Ask(t, used, have.Offer(t, "own/good")); code != policies.CodeReplay {
		t.Errorf("a request that was answered since the backup, again: %s", code)
	}
	if _, err := f.Value(ctx, p.ID(), "own/limited"); !errors.Is(err, policies.CodeLimit) {
		t.Errorf("the third read of two in a day: %v", err)
	}
	if got, err := f.Value(ctx, p.ID(), "own/good"); err != nil || got != "good" {
		t.Errorf("what may be read is %q, %v", got, err)
	}

	must(t, s.Vault.Stop())
	put(t, filepath.Join(backup, "log"), filepath.Join(s.VaultData(), "log"))
	err := s.Vault.Start(ctx)
	if err == nil {
		must(t, s.Vault.Stop())
		t.Fatal("the vault started with an old log")
	}
	if !strings.Contains(err.Error(), "key-use log damaged: journal-") || !strings.Contains(err.Error(), "were signed") {
		t.Errorf("it does not say why: %v", err)
	}
}
