package e2e

import (
	"bytes"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

// TestNames walks through how a business's name comes to be believed, and how a reader gives up what it was granted. The operator's word is signed with the ceremony key, offline, and carried by
// whoever likes; a domain speaks for itself, to whoever asks it.
func TestNames(t *testing.T) {
	s := openStage(t, publishing(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits}))
	files := t.TempDir()
	play(t, s, 0, "zoe", "me", "init")
	play(t, s, 0, "zoe", "me", "set", "phone.mobile", "+49 151 23456701")
	play(t, s, 0, "zoe", "me", "set", "own/note", "a note")
	play(t, s, 0, "acme", "biz", "init", "--name", "Acme Versand")
	play(t, s, 0, "mole", "biz", "init", "--name", "Acme-Versаnd") // with a hyphen, and a Cyrillic letter
	connect(t, s, "zoe", "acme")

	// Step 1. Nobody has said anything: a name is a label.
	shows := func(want string) {
		t.Helper()
		play(t, s, 0, "zoe", "me", "sync")
		if r := play(t, s, 0, "zoe", "me", "contacts"); !strings.Contains(r.Stdout, want) {
			t.Errorf("shown: %s, want %q", r.Stdout, want)
		}
	}
	shows(`"Acme Versand" (UNVERIFIED)`)
	if r := play(t, s, 0, "acme", "biz", "name"); !strings.Contains(r.Stdout, "UNVERIFIED") {
		t.Errorf("as the business sees itself: %s", r.Stdout)
	}

	// Step 2. The operator has checked Acme, whose id came on paper. The ceremony key signs; anybody hands it in.
	web := outsider(t, s, nil)
	id := func(profile string) string {
		t.Helper()
		c, err := links.ParseContact(code(t, s, profile, "biz"))
		must(t, err)
		return c.ID.String()
	}
	where := func(id string) string { return s.StorefrontURL() + "/v1/identities/" + id }
	operator := func(exit int, id, document string, more ...string) (string, string) {
		t.Helper()
		resp, err := web.Get(where(document))
		must(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		identity, out := filepath.Join(files, "identity.json"), filepath.Join(files, "voucher.json")
		must(t, os.WriteFile(identity, body, 0o600))
		cmd := exec.CommandContext(t.Context(), s.Bin().HSM, append([]string{"voucher", "--dir", s.Ceremony(), "--id", id, "--identity", identity, "--out", out}, more...)...)
		said, _ := cmd.CombinedOutput() // how it ended is asked next
		if got := cmd.ProcessState.ExitCode(); got != exit {
			t.Fatalf("sallyport-hsm voucher %q: exit code %d, want %d: %s", more, got, exit, said)
		}
		return out, string(said)
	}
	handIn := func(id, file, want string) {
		t.Helper()
		body, err := os.ReadFile(file)
		must(t, err)
		resp, err := web.Post(where(id)+"/voucher", "application/json", bytes.NewReader(body))
		must(t, err)
		defer resp.Body.Close()
		said, err := io.ReadAll(resp.Body)
		must(t, err)
		if !strings.Contains(string(said), want) {
			t.Fatalf("handing in a voucher: %d %.300s, want %s", resp.StatusCode, said, want)
		}
	}
	acme, mole := id("acme"), id("mole")
	if _, said := operator(0, acme, acme); !strings.Contains(said, "Nothing was done") {
		t.Errorf("without --yes: %s", said)
	}
	operator(1, acme, mole, "--yes") // the storefront shows another's document: its hash is not the id
	voucher, _ := operator(0, acme, acme, "--yes")
	before, err := os.ReadFile(voucher)
	must(t, err)
	handIn(mole, voucher, "malformed") // for another identity
	damaged := filepath.Join(files, "damaged.json")
	must(t, os.WriteFile(damaged, bytes.Replace(before, []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1), 0o600))
	handIn(acme, damaged, "voucher_forged")
	handIn(acme, voucher, "receipt")
	shows("VERIFIED by the operator until ")
	if r := play(t, s, 0, "acme", "biz", "name"); !strings.Contains(r.Stdout, "VERIFIED by the operator") {
		t.Errorf("as the business sees itself: %s", r.Stdout)
	}

	// Step 3. From now on nobody gets a name that looks like it, nor is met under one.
	play(t, s, 3, "other", "biz", "init", "--name", "ACME VERSAND")
	operator(1, mole, mole, "--yes") // two alphabets in one name
	play(t, s, 0, "mole", "biz", "connect", code(t, s, "zoe", "me"), "--as", "zoe")
	if r := play(t, s, 3, "zoe", "me", "connect", code(t, s, "mole", "biz"), "--as", "mole"); !strings.Contains(r.Stderr, "looks like") {
		t.Errorf("meeting a look-alike: %s", r.Stderr)
	}

	// Step 4. Acme's website says the same. Zoë knows the domain from a shop window, and her own device asks there; nobody else hears of it.
	var file atomic.Pointer[string]
	site := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "example.com" || r.URL.Path != names.WellKnown {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, *file.Load())
	}))
	defer site.Close()
	ca, err := os.ReadFile(s.CA())
	must(t, err)
	bundle := filepath.Join(files, "bundle.pem")
	must(t, os.WriteFile(bundle, append(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: site.Certificate().Raw})...), 0o600))
	website := func(exit int) stage.Result {
		t.Helper()
		return play(t, s, exit, "zoe", "me", "website", "acme", "example.com", "--at", strings.TrimPrefix(site.URL, "https://"), "--ca", bundle)
	}
	served := play(t, s, 0, "mole", "biz", "website", "example.com").Stdout
	file.Store(&served)
	if r := website(3); !strings.Contains(r.Stderr, "does not say") {
		t.Errorf("somebody else's statement: %s", r.Stderr)
	}
	served = play(t, s, 0, "acme", "biz", "website", "example.com").Stdout
	file.Store(&served)
	if r := website(0); !strings.Contains(r.Stdout, "example.com says that acme is its own") {
		t.Errorf("its own: %s", r.Stdout)
	}
	shows("the website example.com says so")

	// Step 5. What the person sees before they answer.
	play(t, s, 0, "acme", "biz", "ask", "zoe", "--fields", "phone.mobile,own/note", "--reason", "to call", "--purpose", "delivery", "--term", "DeliveryOfGoods")
	inbox := play(t, s, 0, "zoe", "me", "inbox")
	if !strings.Contains(inbox.Stdout, "VERIFIED by the operator") || strings.Contains(inbox.Stdout, "UNVERIFIED") {
		t.Errorf("the inbox: %s", inbox.Stdout)
	}
	request := strings.Fields(inbox.Stdout)[0]
	play(t, s, 0, "zoe", "me", "answer", request, "--grant", "phone.mobile,own/note")
	play(t, s, 0, "acme", "biz", "read", "zoe", "phone.mobile", "own/note")

	// Step 6. The operator takes its word back. The old voucher is worth nothing, whoever hands it in.
	withdrawal, _ := operator(0, acme, acme, "--withdraw", "--yes")
	handIn(acme, withdrawal, "receipt")
	must(t, os.WriteFile(voucher, before, 0o600))
	handIn(acme, voucher, "receipt") // of the old entry
	play(t, s, 0, "zoe", "me", "sync")
	if r := play(t, s, 0, "zoe", "me", "contacts"); strings.Contains(r.Stdout, "by the operator") || !strings.Contains(r.Stdout, "the website example.com") {
		t.Errorf("after the withdrawal: %s", r.Stdout)
	}

	// Step 7. Acme needs the phone number no longer, and says so. It reads the rest; Zoë is told, and it is not granted anew when she changes her locks.
	play(t, s, 3, "mole", "biz", "give-up", "zoe") // nothing was granted to it
	if r := play(t, s, 0, "acme", "biz", "give-up", "zoe", "phone.mobile"); !strings.Contains(r.Stdout, "phone.mobile") {
		t.Errorf("given up: %s", r.Stdout)
	}
	play(t, s, 3, "acme", "biz", "read", "zoe", "phone.mobile")
	play(t, s, 0, "acme", "biz", "read", "zoe", "own/note")
	if r := play(t, s, 0, "zoe", "me", "sync"); !strings.Contains(r.Stderr, "acme gave up what you allowed: phone.mobile") {
		t.Errorf("told: %s", r.Stderr)
	}
	play(t, s, 0, "zoe", "me", "rotate", "phone.mobile", "own/note")
	play(t, s, 3, "acme", "biz", "read", "zoe", "phone.mobile")
	play(t, s, 0, "acme", "biz", "read", "zoe", "own/note")
	if r := play(t, s, 0, "zoe", "me", "history"); !strings.Contains(r.Stdout, "acme gave up the permission for phone.mobile by itself") {
		t.Errorf("the history: %s", r.Stdout)
	}
	play(t, s, 0, "zoe", "me", "verify")

	// Step 8. An auditor decides all of it anew.
	owner, err := links.ParseContact(code(t, s, "zoe", "me"))
	must(t, err)
	dir := published(t, s, &devices.Insider{Vault: newMole(t, s).vault}, policies.OwnerID(owner.ID))
	result, err := s.Sallyport(t.Context(), "auditor", "audit", "recheck", "--join", s.Join(), dir)
	must(t, err)
	if result.Code != 0 || !strings.Contains(result.Stdout, " 0 unjustified, 0 not checkable\n0 documents") {
		t.Errorf("exit code %d\n%s%s", result.Code, result.Stdout, result.Stderr)
	}
}
