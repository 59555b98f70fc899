package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/vault/api"
)

// TestRefusedReadsReachNoKey: what is refused is refused before the token is asked. Two witnesses say so, and they must agree: the
// vault's own count at the cryptoki boundary, and pkcs11-spy, which knows nothing of Sallyport and stands between it and the token. The same
// witnesses show what a good read costs: one C_DeriveKey a field, and no session opened or closed and no object searched for.
func TestRefusedReadsReachNoKey(t *testing.T) {
	t.Parallel()
	trace := &spy{file: filepath.Join(t.TempDir(), "spy.log")}
	// One worker with one thread: so many calls are under way at once, and the trace's lines do not mix.
	s := openStage(t, stage.Options{
		Module: spyModule(t), Env: []string{"PKCS11SPY=/usr/lib/softhsm/libsofthsm2.so", "PKCS11SPY_OUTPUT=" + trace.file},
		VaultMembers: "workers = 1\nthreads = 1\n", VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits,
	})
	ctx := t.Context()

	values := map[policies.Field]string{}
	names := []policies.Field{"own/good", "own/good2", "own/revoked", "own/expired", "own/early", "own/limited", "own/purpose", "own/stranger"}
	for _, f := range names {
		values[f] = "value of " + string(f)
	}
	p, f, other := devices.NewPerson(t, s, client.Options{}, values), devices.NewFirm(t, s, "Acme"), devices.NewFirm(t, s, "Globex")
	devices.Meet(t, p, f, "acme")
	devices.Meet(t, p, other, "globex")
	grant := func(reader *devices.Firm, o client.GrantOptions, fields ...policies.Field) {
		t.Helper()
		if err := p.Grant(ctx, reader.ID(), fields, o); err != nil {
			t.Fatal(err)
		}
	}
	grant(f, client.GrantOptions{Begins: time.Now().Add(2 * time.Hour)}, "own/early")
	grant(f, client.GrantOptions{Duration: 2 * time.Second}, "own/expired")
	expired := time.Now().Add(3 * time.Second)
	grant(f, client.GrantOptions{}, "own/good", "own/good2", "own/revoked")
	grant(f, client.GrantOptions{ReadsPerDay: 2}, "own/limited")
	grant(f, client.GrantOptions{Purpose: "delivery"}, "own/purpose")
	grant(other, client.GrantOptions{}, "own/stranger")
	if err := p.Revoke(ctx, f.ID(), []policies.Field{"own/revoked"}, client.RevokeOptions{KeepEpoch: true}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := f.Value(ctx, p.ID(), "own/limited"); err != nil || got != values["own/limited"] {
			t.Fatalf("within the limit: %q, %v", got, err)
		}
	}
	caller := devices.NewInsider(t, s, f)
	have := p.Drawer.Look(t)
	item := func(field policies.Field) policies.ReadItem { return policies.ReadItem{Owner: p.ID(), Field: field} }
	good := have.Offer(t, "own/good")
	used := caller.Request(t, "general", nil, item("own/good"))
	if code := caller.Ask(t, used, good); code != policies.CodeReleased {
		t.Fatalf("the control: %s", code)
	}
	time.Sleep(time.Until(expired)) // a moment in time is what is awaited

	// watch runs an action between two marks and demands so many derives and nothing else.
	watch := func(t *testing.T, derives int, action func()) {
		t.Helper()
		before := cryptokiCalls(t, s)
		trace.since(t)
		action()
		if bad := surplus(trace.since(t), derives); bad != nil {
			t.Errorf("pkcs11-spy saw %v", bad)
		}
		if bad := surplus(difference(before, cryptokiCalls(t, s)), derives); bad != nil {
			t.Errorf("the vault counted %v", bad)
		}
	}
	offered := func(field policies.Field, change func(*api.CallItem)) api.CallItem {
		o := have.Offer(t, field)
		if change != nil {
			change(&o)
		}
		return o
	}
	for _, row := range []struct {
		name    string
		want    policies.Code
		request []byte
		offer   api.CallItem
		counted bool // the caller is not authenticated: counted, not recorded by itself
	}{
		{"revoked", policies.CodeRevoked, caller.Request(t, "general", nil, item("own/revoked")), offered("own/revoked", nil), false},
		{"expired", policies.CodeGrantExpired, caller.Request(t, "general", nil, item("own/expired")), offered("own/expired", nil), false},
		{"not yet valid", policies.CodeNotYet, caller.Request(t, "general", nil, item("own/early")), offered("own/early", nil), false},
		{"over its limit", policies.CodeLimit, caller.Request(t, "general", nil, item("own/limited")), offered("own/limited", nil), false},
		{"another purpose", policies.CodePurpose, caller.Request(t, "marketing", nil, item("own/purpose")), offered("own/purpose", nil), false},
		{"another reader's grant", policies.CodeNoGrant, caller.Request(t, "general", nil, item("own/stranger")), offered("own/stranger", nil), false},
		{"a grant for another field", policies.CodeNoGrant, caller.Request(t, "general", nil, item("own/stranger")),
			offered("own/stranger", func(o *api.CallItem) { o.Grant = good.Grant }), false},
		{"no grant at all", policies.CodeNoGrant, caller.Request(t, "general", nil, item("own/good")), offered("own/good", func(o *api.CallItem) { o.Grant = policies.DocumentID{} }), false},
		{"another field's item", policies.CodeLeaf, caller.Request(t, "general", nil, item("own/good")),
			offered("own/good2", func(o *api.CallItem) { o.Grant = good.Grant }), false},
		{"an older head", policies.CodeHeadMoved, caller.Request(t, "general", nil, item("own/good")), offered("own/good", func(o *api.CallItem) { o.Head[0] ^= 1 }), false},
		{"a broken proof", policies.CodeProof, caller.Request(t, "general", nil, item("own/good")), offered("own/good", func(o *api.CallItem) { o.Proof.Path[0][0] ^= 1 }), false},
		{"an off-curve point", policies.CodePoint, caller.Request(t, "general", nil, item("own/good")), offered("own/good", func(o *api.CallItem) { o.Point[64] ^= 1 }), false},
		{"the point of another item", policies.CodePoint, caller.Request(t, "general", nil, item("own/good")),
			offered("own/good", func(o *api.CallItem) { o.Point = have.Offer(t, "own/good2").Point }), false},
		{"a request sent before", policies.CodeReplay, used, good, false},
		{"a request out of its time", policies.CodeExpired, caller.Request(t, "general", func(r *policies.ReadRequest) {
			r.Time -= 600
			r.Expires = r.Time + 30
		}, item("own/good")), good, false},
		{"a request to another vault", policies.CodeWrongVault, caller.Request(t, "general", func(r *policies.ReadRequest) { r.Audience[0] ^= 1 }, item("own/good")), good, false},
		{"an unknown session", policies.CodeSession, caller.Request(t, "general", func(r *policies.ReadRequest) { r.Session[0] ^= 1 }, item("own/good")), good, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			from := len(devices.Journal(t, s))
			watch(t, 0, func() {
				if code := caller.Ask(t, row.request, row.offer); code != row.want {
					t.Errorf("answered %q, want %q", code, row.want)
				}
			})
			recorded := func() bool {
				for _, e := range devices.Journal(t, s)[from:] {
					if row.counted && e.Entry.Kind == evidence.EntryRefusals || !row.counted && e.Entry.Kind == evidence.EntryRefusal && e.Entry.Outcome == row.want && e.Details.Reader == f.ID() {
						return true
					}
				}
				return false
			}
			if row.counted { // once a second
				await(t, 10*time.Second, "in the key-use log's count", recorded)
			} else if !recorded() {
				t.Errorf("the refusal is not in the key-use log")
			}
		})
	}

	// Through the storefront and the SDK the same grants are refused for the same reasons.
	for field, want := range map[policies.Field]policies.Code{
		"own/revoked": policies.CodeRevoked, "own/expired": policies.CodeGrantExpired, "own/early": policies.CodeNotYet, "own/limited": policies.CodeLimit,
		"own/stranger": policies.CodeNoGrant,
	} {
		t.Run("through the storefront "+string(field), func(t *testing.T) {
			watch(t, 0, func() {
				if got, err := f.Value(ctx, p.ID(), field); !errors.Is(err, want) || got != "" {
					t.Errorf("%q, %v; want %v", got, err, want)
				}
			})
		})
	}

	// The controls: what is permitted does reach the key, once a field; what the reader has already does not.
	t.Run("one field", func(t *testing.T) {
		watch(t, 1, func() {
			if code := caller.Ask(t, caller.Request(t, "delivery", nil, item("own/purpose")), have.Offer(t, "own/purpose")); code != policies.CodeReleased {
				t.Errorf("answered %q", code)
			}
		})
	})
	t.Run("forty fields in twenty requests", func(t *testing.T) {
		watch(t, 40, func() {
			for i := range 20 {
				values, err := f.Read(ctx, client.Item{Owner: p.ID(), Field: "own/good"}, client.Item{Owner: p.ID(), Field: "own/good2"})
				if err != nil || values[0].Err != nil || values[1].Err != nil || string(values[1].Bytes) != "value of own/good2" {
					t.Fatalf("read %d: %v, %+v", i, err, values)
				}
			}
		})
	})
	t.Run("a version that the reader has", func(t *testing.T) {
		values, err := f.Read(ctx, client.Item{Owner: p.ID(), Field: "own/good"})
		if err != nil || values[0].Err != nil {
			t.Fatal(err, values)
		}
		watch(t, 0, func() {
			again, err := f.Read(ctx, client.Item{Owner: p.ID(), Field: "own/good", Known: values[0].Version})
			if err != nil || !again[0].Unchanged || again[0].Bytes != nil {
				t.Error(err, fmt.Sprintf("%+v", again))
			}
		})
	})
}
