package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/tests/stage/search"
)

// stepsOfRequester are the rows of the storefront's README: what happens in each of the 27 steps, and which kinds of entries it makes.
func stepsOfRequester(t *testing.T) (what []string, entries [][]string) {
	t.Helper()
	root, err := stage.ModuleRoot()
	must(t, err)
	text, err := os.ReadFile(filepath.Join(root, "storefront", "README.md"))
	must(t, err)
	_, section, _ := strings.Cut(string(text), "### Requester, customer, source")
	kind := regexp.MustCompile("`([a-z-]+)`")
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 {
			continue
		}
		if n, err := strconv.Atoi(strings.TrimSpace(cells[1])); err != nil || n != len(what)+1 {
			continue
		}
		what = append(what, strings.TrimSpace(cells[2]))
		var kinds []string
		for _, m := range kind.FindAllStringSubmatch(cells[4], -1) {
			kinds = append(kinds, m[1])
		}
		if kinds == nil && strings.TrimSpace(cells[4]) != "nothing" {
			t.Errorf("step %d: the log has %q", len(what), cells[4])
		}
		entries = append(entries, kinds)
	}
	if len(what) != 27 {
		t.Fatalf("the README has %d steps", len(what))
	}
	return what, entries
}

// TestRequester walks through the 27 steps of the fourth source system: a bank (the requester) gets proof of income from an employer (the source) by the consent of a
// customer. The numbers and words are those of the table in the storefront's README; what each command leaves in the key-use log is compared with its last column. Between the steps,
// those who take them out of turn are refused.
func TestRequester(t *testing.T) {
	t.Parallel()
	s := openStage(t, publishing(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits}))
	what, entries := stepsOfRequester(t)
	files := t.TempDir()

	// logged are the kinds of entries since it was asked last, each once, in order.
	seen := len(devices.Journal(t, s))
	logged := func() (kinds []string) {
		t.Helper()
		all := devices.Journal(t, s)
		for _, l := range all[seen:] {
			if k := string(l.Entry.Kind); !slices.Contains(kinds, k) && l.Entry.Kind != evidence.EntryAccess {
				kinds = append(kinds, k)
			}
		}
		seen = len(all)
		slices.Sort(kinds)
		return kinds
	}
	done := 0
	// steps plays one command, which is one step or several, and compares what it left in the log.
	steps := func(play func(), texts ...string) {
		t.Helper()
		logged()
		play()
		var want []string
		for _, text := range texts {
			if done == len(what) || what[done] != text {
				t.Fatalf("step %d is %q here, and not that in the README", done+1, text)
			}
			want = append(want, entries[done]...)
			done++
		}
		slices.Sort(want)
		if got := logged(); !slices.Equal(got, slices.Compact(want)) {
			t.Errorf("up to step %d the log has %q, the README says %q", done, got, want)
		}
	}
	// command is one step that is one command.
	command := func(text, profile string, args ...string) (r stage.Result) {
		t.Helper()
		steps(func() { r = play(t, s, exitDone, profile, args...) }, text)
		return r
	}
	idOf := func(profile string) string {
		t.Helper()
		_, id, _ := strings.Cut(code(t, s, profile, "biz"), "id=")
		return id
	}

	command("The bank registers its identity", "bank", "biz", "init", "--name", "Bank AG")
	command("The employer registers its identity", "employer", "biz", "init", "--name", "Works GmbH")
	command("The customer registers her identity", "zoe", "me", "init")
	play(t, s, exitDone, "mole", "biz", "init", "--name", "Bank AG") // another one who calls itself so
	zoesCode := code(t, s, "zoe", "me")
	command("The employer, by a code from her hand, pins the customer's id and makes a key for her alone", "employer", "biz", "connect", zoesCode, "--as", "P-7")
	command("The customer, by a code from the employer, pins the employer's id", "zoe", "me", "connect", code(t, s, "employer", "biz"), "--as", "employer")
	command("The employer says that it is looked up by introduction only", "employer", "biz", "registry", "introduced")
	plainWords(t, command("The customer says the same", "zoe", "me", "registry", "introduced").Stdout)
	command("The bank says that anyone may look it up", "bank", "biz", "registry", "anyone")

	// Who has got hold of an id learns nothing by it; without a login neither.
	employer := idOf("employer")
	refusedAs(t, s, "mole", policies.CodeNotIntroduced, "biz", "lookup", employer)
	refusedAs(t, s, "bank", policies.CodeNotIntroduced, "biz", "lookup", employer)
	refusedAs(t, s, "mole", policies.CodeNotIntroduced, "biz", "connect", zoesCode)
	answer, err := outsider(t, s, nil).Get(s.StorefrontURL() + "/v1/identities/" + employer)
	must(t, err)
	var told struct {
		Code policies.Code `json:"code"`
	}
	must(t, json.NewDecoder(answer.Body).Decode(&told))
	answer.Body.Close()
	if told.Code != policies.CodeNotIntroduced {
		t.Errorf("a stranger is told %q", told.Code)
	}

	list, links := filepath.Join(files, "customers.csv"), filepath.Join(files, "links.csv")
	must(t, os.WriteFile(list, []byte("reference\nLOAN-1\n"), 0o600))
	command("The bank makes a link for the customer, which names the bank's id", "bank", "biz", "invite", "--csv", list, "--out", links)
	text, err := os.ReadFile(links)
	must(t, err)
	link := regexp.MustCompile(`sallyport:invite\?[^",\s]+`).FindString(string(text))
	command("The customer looks the bank up by that id, introduces herself to it, and accepts", "zoe", "me", "accept", link, "--as", "bank")
	if r := command("The bank looks the customer up by the introduction and makes a key for her alone", "bank", "biz", "invited", links); r.Stdout != "LOAN-1\taccepted\n" {
		t.Errorf("invited: %s%s", r.Stdout, r.Stderr)
	}
	play(t, s, exitDone, "zoe", "me", "inbox") // her device hears that the bank did its half
	if r := play(t, s, 2, "zoe", "me", "introduce", "bank", "bank", "--purpose", "a loan"); !strings.Contains(r.Stderr, "not to itself") {
		t.Errorf("introduced to itself: %s", r.Stderr)
	}
	plainWords(t, command("The customer introduces the employer to the bank, signed and sealed", "zoe", "me", "introduce", "employer", "bank", "--purpose", "a loan").Stdout)
	introduced := said[struct {
		Introductions []client.Introduced `json:"introductions"`
	}](t, command("The bank verifies that the introduction is the customer's", "bank", "biz", "introductions", "--json")).Introductions
	if len(introduced) != 1 || introduced[0].Alias != "LOAN-1" || introduced[0].Subject.String() != employer {
		t.Fatalf("the introductions are %+v", introduced)
	}
	command("The bank looks the employer up by the introduction and pins its id", "bank", "biz", "lookup", employer, "--as", "works")

	specified := said[consentRow](t, command("The bank signs a specification of the data and seals it to the customer", "bank", "biz", "specify", "LOAN-1", "--source", "works",
		"--fields", "own/income", "--reason", "net income of a month", "--purpose", "a loan", "--for", "30d", "--json"))
	id := specified.ID.String()[:8]
	inbox := command("The customer's device verifies it and shows who asks, for what, and who is to state it", "zoe", "me", "inbox")
	for _, want := range []string{`bank ("Bank AG", UNVERIFIED)`, "a loan", "own/income", "net income of a month", "employer is to state it"} {
		if !strings.Contains(inbox.Stdout, want) {
			t.Errorf("the inbox does not say %q:\n%s", want, inbox.Stdout)
		}
	}
	plainWords(t, inbox.Stdout)

	// A deposit without a permission; an answer wider than what was asked for; an order before there is one.
	play(t, s, exitRefused, "employer", "biz", "write", "P-7", "own/income", "2500")
	refusedAs(t, s, "zoe", policies.CodeTooWide, "me", "answer", id, "--grant", "own/income,bank.iban")
	refusedAs(t, s, "bank", policies.CodeNotAsked, "biz", "forward", id)
	refusedAs(t, s, "employer", policies.CodeNotAsked, "biz", "deposit", id, "own/income", "2500")

	steps(func() { plainWords(t, play(t, s, exitDone, "zoe", "me", "answer", id, "--grant", "own/income").Stdout) },
		"The customer lets the employer write these fields",
		"The customer lets the bank read them, whoever of the two writes",
		"The customer signs an order, seals it to the employer, and hands it to the bank with her answer")
	// Zoë is offline from here on: nothing of hers runs.
	if r := command("The bank verifies the answer; the order it cannot open", "bank", "biz", "consents", "--json"); !strings.Contains(r.Stdout, `"order": "here"`) {
		t.Errorf("the bank has no order:\n%s", r.Stdout)
	}
	command("The bank forwards the order to the employer", "bank", "biz", "forward", id)
	orders := said[struct {
		Orders []client.Order `json:"orders"`
	}](t, command("The employer opens the order and verifies both signatures, and that who forwards is who asked", "employer", "biz", "orders", "--json")).Orders
	if len(orders) != 1 || orders[0].ID != specified.ID || orders[0].Alias != "P-7" || orders[0].Requester.String() != idOf("bank") || len(orders[0].Asked) != 1 {
		t.Fatalf("the orders are %+v", orders)
	}
	// The order serves once, and for what it names.
	play(t, s, exitDone, "bank", "biz", "forward", id)
	if r := play(t, s, exitDone, "employer", "biz", "orders"); !strings.Contains(r.Stderr, policies.CodeOrderUsed.Error()) {
		t.Errorf("forwarded twice: %s%s", r.Stdout, r.Stderr)
	}
	refusedAs(t, s, "employer", policies.CodeTooWide, "biz", "deposit", id, "bank.iban", "DE02120300000000202051")
	play(t, s, exitRefused, "employer", "biz", "write", "P-7", "bank.iban", "DE02120300000000202051") // the vault says the same

	steps(func() { play(t, s, exitDone, "employer", "biz", "deposit", id, "own/income", "2500 EUR") },
		"The employer looks up that it may write",
		"The employer attests the value, and encrypts both for the customer's field",
		"The employer publishes it; the customer is offline")
	refusedAs(t, s, "employer", policies.CodeOrderUsed, "biz", "deposit", id, "own/income", "9500 EUR")
	reads(t, s, "employer", "P-7", "own/income", policies.CodeNoGrant) // not even what it wrote

	type collected struct {
		Values []struct {
			Text      string              `json:"text"`
			WrittenBy policies.AuthorID   `json:"written_by"`
			Source    policies.IdentityID `json:"source"`
			Error     struct {
				Code policies.Code `json:"code"`
			} `json:"error"`
		} `json:"values"`
	}
	var got *collected
	before := derives(t, s)
	steps(func() { got = said[collected](t, play(t, s, exitDone, "bank", "biz", "collect", id, "--json")) },
		"The bank reads through the token",
		"The bank verifies that the attestation is the employer's, for this value, customer, specification and order")
	if len(got.Values) != 1 || got.Values[0].Text != "2500 EUR" || got.Values[0].Source.String() != employer || got.Values[0].WrittenBy.String() != employer {
		t.Errorf("collected %+v", got)
	}
	if n := derives(t, s) - before; n != 1 {
		t.Errorf("it cost %d uses of a key", n)
	}
	if done != 27 {
		t.Fatalf("%d steps were walked through", done)
	}

	// A value that nobody attested, under the same permission, is read and not taken for proof.
	play(t, s, exitDone, "employer", "biz", "write", "P-7", "own/income", "9500 EUR")
	bad := said[collected](t, play(t, s, exitRefused, "bank", "biz", "collect", id, "--json"))
	if len(bad.Values) != 1 || bad.Values[0].Error.Code != policies.CodeAttestation || bad.Values[0].Text != "" {
		t.Errorf("without an attestation: %+v", bad)
	}

	// Zoë comes back, sees what was written and read, and ends it: the vault takes nothing more of the employer's.
	history := play(t, s, exitDone, "zoe", "me", "history", "--limit", "100").Stdout
	for _, want := range []string{"You allowed employer to write.", "employer wrote something for you", "bank read own/income"} {
		if !strings.Contains(history, want) {
			t.Errorf("the history does not say %q:\n%s", want, history)
		}
	}
	play(t, s, exitDone, "zoe", "me", "revoke", "employer", "--write-only")
	play(t, s, exitRefused, "employer", "biz", "write", "P-7", "own/income", "1 EUR")
	play(t, s, exitDone, "zoe", "me", "verify")

	// Nothing of it is in the clear on a disk; and an auditor finds every release justified.
	var markers []search.Marker
	for _, text := range []string{"2500 EUR", "9500 EUR", "net income of a month"} {
		markers = append(markers, search.Marker{Name: text, Value: []byte(text)})
	}
	found, read, err := search.Folders(markers, s.StorefrontData())
	must(t, err)
	if len(found) > 0 || read < 1<<16 {
		t.Errorf("of %d bytes the storefront holds, some are what was asked or answered: %v", read, found)
	}
	dir := published(t, s, &devices.Insider{Vault: newMole(t, s).vault}, ownerOf(t, s, "bank", "LOAN-1"))
	result, err := s.Sallyport(t.Context(), "auditor", "audit", "recheck", "--join", s.Join(), dir)
	must(t, err)
	if result.Code != 0 || !strings.Contains(result.Stdout, " 0 unjustified, 0 not checkable\n0 documents") {
		t.Errorf("exit code %d\n%s%s", result.Code, result.Stdout, result.Stderr)
	}
}
