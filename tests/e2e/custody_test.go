package e2e

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// TestHostAttacksToken: somebody on the vault's host, who has the PIN, tries to carry re-encryption keys of real grants out of the token of a
// vault at work. The list of attacks is that of pkcs11 (attack_test.go), run as a process of its own. Readers are served meanwhile and
// afterwards, also by a vault that is started anew on the token that was attacked.
func TestHostAttacksToken(t *testing.T) {
	root, err := stage.ModuleRoot()
	must(t, err)
	attacker := filepath.Join(t.TempDir(), "attacker")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", attacker, "./pkcs11")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	ctx := t.Context()
	p, f := devices.NewPerson(t, s, client.Options{}, map[policies.Field]string{"own/a": "a", "own/b": "b"}), devices.NewFirm(t, s, "Acme")
	devices.Meet(t, p, f, "acme")
	must(t, p.Grant(ctx, f.ID(), []policies.Field{"own/a", "own/b"}, client.GrantOptions{}))

	stop, ended, served := make(chan struct{}), make(chan error, 1), 0
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			case <-time.After(20 * time.Millisecond): // a reader who does not take the machine from the attacker
			}
			got, err := f.Value(ctx, p.ID(), "own/a")
			if err != nil || got != "a" {
				ended <- errors.Join(err, errors.New("read "+got))
				return
			}
			served++
		}
	}()
	attack := exec.CommandContext(ctx, attacker, "-test.v", "-test.run", "^TestHostAttacksRunning$", "-running-pin", s.PINFile())
	attack.Env = append(os.Environ(), "SOFTHSM2_CONF="+s.SoftHSMConf())
	out, err := attack.CombinedOutput()
	close(stop)
	if err := <-ended; err != nil {
		t.Errorf("a reader during the attacks, after %d reads: %v", served, err)
	}
	if err != nil {
		t.Errorf("the host got somewhere: %v\n%s", err, out)
	}
	refused := strings.Count(string(out), "    --- PASS: ")
	if !strings.Contains(string(out), "attacked 2 re-encryption keys") || refused < 80 || served == 0 {
		t.Errorf("%d attacks were refused, %d reads served meanwhile: nothing was tested\n%s", refused, served, out)
	}
	t.Logf("%d attacks refused, %d reads served meanwhile", refused, served)

	// Whatever the host changed in the token, the vault works with it, or says that it does not.
	must(t, s.Vault.Stop())
	must(t, s.Vault.Start(ctx))
	for field, want := range map[policies.Field]string{"own/a": "a", "own/b": "b"} {
		if got, err := f.Value(ctx, p.ID(), field); err != nil || got != want {
			t.Errorf("after the attacks %s is %q, %v", field, got, err)
		}
	}
	must(t, p.Revoke(ctx, f.ID(), []policies.Field{"own/a"}, client.RevokeOptions{}))
	must(t, s.Vault.Stop())
	token := openToken(t, s)
	keys, err := token.Keys(ctx)
	must(t, errors.Join(err, token.Close()))
	if len(keys) != 1 {
		t.Errorf("after a revocation the token holds %d keys, want 1", len(keys))
	}
	must(t, s.Vault.Start(ctx))
}

// TestForgedVaultDocument: the vault's host has a key pair of its own, whose private half it knows, and wants owners to wrap their keys under
// it. It controls both ways to a vault document. What it cannot do is sign as the ceremony that clients pinned.
func TestForgedVaultDocument(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "stage")
	front, owners := newProxy(t, dir, "front", "storefront", "storefront"), newProxy(t, dir, "owners", "vault", "owners")
	s := openStage(t, stage.Options{Dir: dir, StorefrontAt: front.url(), OwnersAt: owners.url(), VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	show := func(document []byte) { // nil: the real one
		for _, p := range []*proxy{front, owners} {
			p.set(func(m *message) *answer {
				if document != nil && m.is("GET", api.PathVault) {
					return &answer{http.StatusOK, http.Header{"Content-Type": {"application/json"}}, document}
				}
				return m.pass()
			})
		}
	}
	play(t, s, 0, "ida", "me", "init")
	play(t, s, 0, "acme", "biz", "init", "--name", "Acme")
	play(t, s, 0, "ida", "me", "set", "own/a", "a")
	play(t, s, 0, "ida", "me", "set", "own/b", "b")
	connect(t, s, "ida", "acme")
	play(t, s, 0, "ida", "me", "grant", "acme", "own/a")

	genuine := func() *envelope.Envelope {
		raw, err := os.ReadFile(filepath.Join(s.Ceremony(), "vault.json"))
		must(t, err)
		e, err := envelope.Parse(raw)
		must(t, err)
		return e
	}
	first := genuine()
	own, err := rsa.GenerateKey(rand.Reader, 3072)
	must(t, err)
	public, err := x509.MarshalPKIXPublicKey(own.Public())
	must(t, err)
	var seed [envelope.SeedSize]byte
	rand.Read(seed[:])
	host := envelope.NewPrivateKey(&seed)
	// forged is the document with the host's key as the import key, signed by the host.
	forged := func(change func(*policies.VaultDocument)) []byte {
		d, err := policies.Decode[policies.VaultDocument](first)
		must(t, err)
		d.Version++
		for i := range d.Tokens {
			for j := range d.Tokens[i].ImportKeys {
				d.Tokens[i].ImportKeys[j].PublicKey = public
			}
		}
		change(d)
		e, err := policies.Sign(host, d)
		must(t, err)
		return e.Raw
	}
	// grafted is a forged document under the ceremony's own signature of the genuine one.
	grafted := func() []byte {
		type signature struct {
			KeyID string `json:"keyid,omitzero"`
			Sig   []byte `json:"sig"`
		}
		type dsse struct {
			Payload     []byte      `json:"payload"`
			PayloadType string      `json:"payloadType"`
			Signatures  []signature `json:"signatures"`
		}
		var body, signed dsse
		must(t, json.Unmarshal(forged(func(*policies.VaultDocument) {}), &body))
		must(t, json.Unmarshal(first.Raw, &signed))
		body.Signatures = signed.Signatures
		raw, err := json.Marshal(body)
		must(t, err)
		return raw
	}

	// A new version by the real ceremony is taken; from then on the one before is old.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, s.Bin().HSM, "reissue", "--dir", s.Ceremony(), "--yes").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	must(t, s.Vault.Stop())
	must(t, s.Vault.Start(ctx))
	must(t, s.Storefront.Stop()) // it keeps the document for a while
	must(t, s.Storefront.Start(ctx))
	play(t, s, 0, "ida", "me", "sync")
	if text, _ := reads(t, s, "acme", "ida", "own/a", ""); text != "a" {
		t.Errorf("under the new document acme reads %q", text)
	}

	for i, row := range []struct {
		name     string
		document []byte
		old      bool // new people cannot know that it is
	}{
		{"the host's own ceremony key", forged(func(d *policies.VaultDocument) { d.CeremonyKey = host.Public().Bytes() }), false},
		{"the real ceremony key, the host's signature", forged(func(*policies.VaultDocument) {}), false},
		{"the real ceremony's signature of another document", grafted(), false},
		{"the host's own vault", forged(func(d *policies.VaultDocument) {
			d.CeremonyKey = host.Public().Bytes()
			rand.Read(d.Vault[:])
		}), false},
		{"an older version", first.Raw, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			show(row.document)
			defer show(nil)
			from, objects := len(devices.Journal(t, s)), tokenObjects(t, s)
			play(t, s, 7, "ida", "me", "grant", "acme", "own/b")
			play(t, s, 7, "acme", "biz", "read", "ida", "own/a")
			if !row.old {
				play(t, s, 7, "new"+string(rune('a'+i)), "me", "init")
			}
			for _, e := range since(t, s, from) {
				t.Errorf("the vault recorded a %s", e.Entry.Kind)
			}
			if n := tokenObjects(t, s); n != objects {
				t.Errorf("the token holds %d objects, and held %d", n, objects)
			}
		})
	}

	// What could not be granted then is done now, under the real key, and nothing is confused by what was tried.
	play(t, s, 0, "ida", "me", "grant", "acme", "own/b")
	for _, f := range []policies.Field{"own/a", "own/b"} {
		if text, _ := reads(t, s, "acme", "ida", f, ""); "own/"+text != string(f) {
			t.Errorf("%s reads as %q", f, text)
		}
	}
}
