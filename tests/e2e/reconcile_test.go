package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/vault/audit/reconcile"
)

// watched is a stage whose token is traced, with an owner and a reader.
type watched struct {
	*stage.Stage
	trace string
	p     *devices.Person
	f     *devices.Firm
}

func watch(t *testing.T, bin stage.Binaries, members string) *watched {
	t.Helper()
	w := &watched{trace: filepath.Join(t.TempDir(), "spy.log")}
	w.Stage = openStageOf(t, bin, publishing(t, stage.Options{
		Module: spyModule(t), Env: []string{"PKCS11SPY=/usr/lib/softhsm/libsofthsm2.so", "PKCS11SPY_OUTPUT=" + w.trace},
		VaultMembers: members, VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits,
	}))
	w.p, w.f = devices.NewPerson(t, w.Stage, client.Options{}, map[policies.Field]string{"own/a": "a", "own/b": "b", "own/c": "c"}), devices.NewFirm(t, w.Stage, "Acme")
	devices.Meet(t, w.p, w.f, "acme")
	return w
}

// reads reads fields so many times, one after the other.
func (w *watched) reads(t *testing.T, times int, fields ...policies.Field) {
	t.Helper()
	for range times {
		for _, field := range fields {
			if _, err := w.f.Value(t.Context(), w.p.ID(), field); err != nil {
				t.Error(err)
			}
		}
	}
}

// reconcile runs the command on the published log and the trace, and demands an exit code.
func (w *watched) reconcile(t *testing.T, code int) *reconcile.Report {
	t.Helper()
	log := published(t, w.Stage, devices.NewInsider(t, w.Stage, w.f), w.p.ID())
	r, err := w.Sallyport(t.Context(), "auditor", "audit", "verify", "--join", w.Join(), log)
	if err != nil || r.Code != 0 {
		t.Fatalf("audit verify: %v, %+v", err, r)
	}
	r, err = w.Sallyport(t.Context(), "auditor", "--json", "audit", "reconcile", "--token-log", w.trace, "--join", w.Join(), log)
	must(t, err)
	report := new(reconcile.Report)
	must(t, json.Unmarshal([]byte(r.Stdout), report))
	if r.Code != code {
		t.Errorf("audit reconcile: exit code %d, want %d\n%s%s", r.Code, code, r.Stdout, r.Stderr)
	}
	pin, err := os.ReadFile(w.PINFile())
	must(t, err)
	trace, err := os.ReadFile(w.trace)
	must(t, err)
	secret := strings.TrimSpace(string(pin))
	if !strings.Contains(strings.ReplaceAll(string(trace), " ", ""), strings.ToUpper(hexOf(secret[:4]))) {
		t.Error("the trace does not hold the PIN, so that no report holds it was not tested")
	} else if strings.Contains(r.Stdout+r.Stderr, secret) || strings.Contains(strings.ToUpper(r.Stdout), strings.ToUpper(hexOf(secret))) {
		t.Error("the report holds the PIN")
	}
	return report
}

func hexOf(text string) string {
	const digits = "0123456789abcdef"
	var out strings.Builder
	for _, c := range []byte(text) {
		out.WriteByte(digits[c>>4])
		out.WriteByte(digits[c&15])
	}
	return out.String()
}

// TestReconcileHonestVault: all that a vault does in a life, both custodies, is in its log, as the token's own record has it: nothing is left over, and no
// lines are mixed, though the keys of one grant are imported side by side.
func TestReconcileHonestVault(t *testing.T) {
	t.Parallel()
	r := honestLife(t)
	if !r.Clean || len(r.Findings) > 0 || r.Signatures < 20 {
		t.Errorf("%+v", r)
	}
	for _, row := range r.Rows {
		if row.Class == reconcile.Derive && row.Demanded != 36+4+2+2*2+1*2+1*2+1 {
			t.Errorf("uses, canaries of two keys resident, one sealed and one moved, and a look at the one that is revoked: %d", row.Demanded)
		}
	}
}

// honestLife is a life of a vault, reconciled with its token's record.
func honestLife(t *testing.T) *reconcile.Report {
	t.Helper()
	w := watch(t, binaries, "workers = 1\nthreads = 1\nsealing_check = \"1s\"\n")
	ctx := t.Context()
	must(t, w.p.Grant(ctx, w.f.ID(), []policies.Field{"own/a", "own/c"}, client.GrantOptions{}))
	must(t, w.p.Grant(ctx, w.f.ID(), []policies.Field{"own/b"}, client.GrantOptions{Custody: policies.CustodySealed}))
	w.reads(t, 12, "own/a", "own/b", "own/c")
	must(t, w.p.Revoke(ctx, w.f.ID(), []policies.Field{"own/a"}, client.RevokeOptions{KeepEpoch: true}))
	if _, err := w.f.Value(ctx, w.p.ID(), "own/a"); err == nil {
		t.Error("a revoked field was read")
	}
	next := exec.CommandContext(ctx, w.Bin().HSM, "sealing-key", "--dir", w.Ceremony(), "--yes")
	next.Env = append(os.Environ(), "SOFTHSM2_CONF="+w.SoftHSMConf())
	if out, err := next.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	await(t, 30*time.Second, "moved to the next sealing key", func() bool {
		log, err := os.ReadFile(w.Vault.Log)
		must(t, err)
		return strings.Contains(string(log), "destroyed a sealing key")
	})
	w.reads(t, 2, "own/b", "own/c")
	must(t, w.Vault.Stop())
	must(t, w.Vault.Start(ctx))
	w.reads(t, 1, "own/b", "own/c")
	return w.reconcile(t, 0)
}

// TestReconcileCorruptVault: what a vault does without saying so is in the token's record. Two builds of a vault whose sources were changed: one derives every
// use twice, one derives without a record. Readers notice neither.
func TestReconcileCorruptVault(t *testing.T) {
	t.Parallel()
	twice := corruptVault(t, patch{"vault/reencrypt.go", "	derived := v.use(ctx, uses, ",
		"	stolen := append([]Use(nil), uses...)\n	v.use(ctx, stolen, func(i int) bool { return items[i].grant.Document.Custody == policies.CustodySealed })\n	derived := v.use(ctx, uses, "})
	silent := corruptVault(t,
		patch{"vault/reencrypt.go", "records, _, err := v.recordReads(ctx, ", "records, _, err := v.recordNothing("},
		patch{"vault/record.go", "func (v *Vault) wait(", `func (v *Vault) recordNothing(d decision) (out []ledger.Record, cp keylog.Checkpoint, err error) {
	v.ledger.Write(func(s *ledger.State) { out = d(s, v.cfg.Clock()) })
	for i := range out {
		out[i].Time = v.cfg.Clock()
	}
	return out, cp, nil
}

func (v *Vault) wait(`})
	for _, row := range []struct {
		name     string
		bin      stage.Binaries
		members  string
		unlogged uint64
	}{
		{"twice", twice, "workers = 1\nthreads = 1\n", 6},
		{"silent", silent, "workers = 1\nthreads = 1\n", 6},
		{"silent, several workers", silent, "workers = 2\nthreads = 1\n", 6},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := watch(t, row.bin, row.members)
			must(t, w.p.Grant(t.Context(), w.f.ID(), []policies.Field{"own/a"}, client.GrantOptions{}))
			must(t, w.p.Grant(t.Context(), w.f.ID(), []policies.Field{"own/b"}, client.GrantOptions{Custody: policies.CustodySealed}))
			w.reads(t, 3, "own/a", "own/b")
			r := w.reconcile(t, 7)
			derives := uint64(0)
			for _, f := range r.Findings {
				if f.What == reconcile.Unlogged && f.Class == reconcile.Derive && f.Place != "" && !f.Time.IsZero() {
					derives++
				}
			}
			if r.Clean || derives != row.unlogged {
				t.Errorf("%d derives without an entry, want %d: %+v", derives, row.unlogged, r.Findings)
			}
		})
	}
}
