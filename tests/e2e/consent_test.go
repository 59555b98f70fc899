package e2e

import (
	"context"
	"encoding/csv"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/tests/stage/search"
)

// consents is what the commands print of requests with --json.
type consents struct {
	Consents []consentRow `json:"consents"` // biz consents
	Requests []consentRow `json:"requests"` // me inbox
}

type consentRow struct {
	ID       policies.DocumentID `json:"auth_req_id"`
	Alias    string              `json:"alias"`
	Status   string              `json:"status"`
	Fields   []policies.Field    `json:"granted"`
	Hidden   bool                `json:"hidden"`
	Receipts struct {
		Ours   []any `json:"ours"`
		Theirs []any `json:"theirs"`
	} `json:"receipts"`
}

// TestConsent walks through consent as a business and its customers would type it. The business knows its customers by references of its own; the
// customers know the business by an invitation that came by mail. Nobody but the two parties reads what they write to each other.
func TestConsent(t *testing.T) {
	t.Parallel()
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	files := t.TempDir()
	for _, person := range []string{"zoe", "ben"} {
		play(t, s, 0, person, "me", "init")
		play(t, s, 0, person, "me", "set", "phone.mobile", "+49 151 23456701")
		play(t, s, 0, person, "me", "set", "address.home", "street=Kopernikusstraße 27a", "locality=Berlin")
		play(t, s, 0, person, "me", "set", "bank.iban", "DE02120300000000202051")
	}
	play(t, s, 0, "acme", "biz", "init", "--name", "Acme Versand")
	play(t, s, 0, "mole", "biz", "init", "--name", "Acme Versand") // another one who calls itself so

	// Step 1. The business invites the customers of its own list. It gets a link for each, made from its reference, and hands them over by mail.
	list, out := filepath.Join(files, "customers.csv"), filepath.Join(files, "links.csv")
	must(t, os.WriteFile(list, []byte("reference,name\nCUST-1,Zoë\nCUST-2,Ben\nCUST-3,Nobody\n"), 0o600))
	play(t, s, 0, "acme", "biz", "invite", "--csv", list, "--out", out, "--qr", filepath.Join(files, "qr"))
	first, err := os.ReadFile(out)
	must(t, err)
	links := map[string]string{}
	rows, err := csv.NewReader(strings.NewReader(string(first))).ReadAll()
	must(t, err)
	for _, row := range rows[1:] {
		links[row[0]] = row[1]
	}
	if len(links) != 3 {
		t.Fatalf("the links: %q", links)
	}
	// Killed in the middle of a row, it carries on, with the same links.
	must(t, os.WriteFile(out, first[:len(first)*2/3], 0o600))
	play(t, s, 0, "acme", "biz", "invite", "--csv", list, "--out", out)
	if again, err := os.ReadFile(out); err != nil || string(again) != string(first) {
		t.Errorf("carried on: %s, %v", again, err)
	}
	if pictures, _ := filepath.Glob(filepath.Join(files, "qr", "*.png")); len(pictures) != 3 {
		t.Errorf("pictures: %q", pictures)
	}

	// Step 2. Zoë and Ben accept. That gives nobody anything; the business sees who has accepted, by its own reference.
	play(t, s, 0, "zoe", "me", "accept", links["CUST-1"], "--as", "acme")
	play(t, s, 0, "ben", "me", "accept", links["CUST-2"], "--as", "acme")
	invited := play(t, s, 0, "acme", "biz", "invited", out)
	if invited.Stdout != "CUST-1\taccepted\nCUST-2\taccepted\nCUST-3\topen\n" {
		t.Errorf("invited:\n%s%s", invited.Stdout, invited.Stderr)
	}
	// Ben finds Zoë's letter: her invitation is used, and he does not become her.
	play(t, s, 0, "ben", "me", "accept", links["CUST-1"], "--as", "acme")
	if r := play(t, s, 0, "acme", "biz", "invited", out); !strings.Contains(r.Stderr, "used by somebody else") {
		t.Errorf("a used invitation: %s", r.Stderr)
	}

	// Step 3. The business asks: what it needs, what it would like, why, what for and for how long.
	ask := func(customer string) policies.DocumentID {
		t.Helper()
		return said[consentRow](t, play(t, s, 0, "acme", "biz", "ask", customer, "--fields", "address.home", "--optional", "phone.mobile", "--reason", "where to deliver",
			"--reason", "phone.mobile=when nobody opens", "--purpose", "delivery", "--term", "DeliveryOfGoods", "--for", "90d", "--json")).ID
	}
	status := func(id policies.DocumentID, want string, fields ...policies.Field) consentRow {
		t.Helper()
		for _, c := range said[consents](t, play(t, s, 0, "acme", "biz", "consents", "--json")).Consents {
			if c.ID == id {
				if c.Status != want || !slices.Equal(c.Fields, fields) {
					t.Fatalf("the request is %+v, want %s with %v", c, want, fields)
				}
				return c
			}
		}
		t.Fatalf("no request %s", id)
		return consentRow{}
	}
	zoes, bens := ask("CUST-1"), ask("CUST-2")
	if c := status(zoes, "pending"); c.Alias != "CUST-1" {
		t.Errorf("the request is of %q", c.Alias)
	}
	// What is asked of Zoë is on the storefront's disk as ciphertext alone.
	found, read, err := search.Folders([]search.Marker{{Name: "a reason", Value: []byte("when nobody opens")}}, s.StorefrontData())
	must(t, err)
	if len(found) > 0 || read == 0 {
		t.Errorf("of %d bytes the storefront holds, some are what was asked: %v", read, found)
	}

	// Step 4. Zoë sees who asks, that the name is unverified, and what for. She decides field by field. More than was asked for is refused, and less than is needed.
	inbox := play(t, s, 0, "zoe", "me", "inbox")
	for _, want := range []string{"acme", `acme ("Acme Versand", UNVERIFIED)`, "delivery (DeliveryOfGoods)", "address.home", "required", "where to deliver", "phone.mobile", "if you like", "when nobody opens", "90 days"} {
		if !strings.Contains(inbox.Stdout, want) {
			t.Errorf("the inbox does not say %q:\n%s", want, inbox.Stdout)
		}
	}
	plainWords(t, inbox.Stdout)
	id := zoes.String()[:8]
	refusedAs(t, s, "zoe", policies.CodeTooWide, "me", "answer", id, "--grant", "address.home,bank.iban")
	refusedAs(t, s, "zoe", policies.CodeRequired, "me", "answer", id, "--grant", "phone.mobile")
	refusedAs(t, s, "zoe", policies.CodeNotAsked, "me", "answer", "00000000", "--deny-all")
	reads(t, s, "acme", "CUST-1", "address.home", policies.CodeNoGrant)
	play(t, s, 2, "zoe", "me", "answer", id) // there is no terminal to ask on

	// Step 5. The business waits, or has itself told: by a webhook, signed, which its own program verifies.
	waiting := make(chan stage.Result, 1)
	go func() {
		r, err := s.Sallyport(t.Context(), "acme", "biz", "wait", id, "--timeout", "60s", "--json")
		if err != nil {
			t.Error(err)
		}
		waiting <- r
	}()
	answered := play(t, s, 0, "zoe", "me", "answer", id, "--grant", "address.home", "--deny", "phone.mobile")
	plainWords(t, answered.Stdout)
	if c := said[consentRow](t, <-waiting); c.Status != "partly" || !slices.Equal(c.Fields, []policies.Field{"address.home"}) {
		t.Errorf("waited for %+v", c)
	}
	refusedAs(t, s, "zoe", policies.CodeAnswered, "me", "answer", id, "--deny-all")
	if text, _ := reads(t, s, "acme", "CUST-1", "address.home", ""); !strings.Contains(text, "Kopernikusstraße 27a") {
		t.Errorf("read %q", text)
	}
	reads(t, s, "acme", "CUST-1", "phone.mobile", policies.CodeNoGrant)
	play(t, s, 0, "ben", "me", "inbox")
	play(t, s, 0, "ben", "me", "answer", bens.String()[:8], "--deny-all")
	status(bens, "denied")
	reads(t, s, "acme", "CUST-2", "address.home", policies.CodeNoGrant)

	secret := filepath.Join(files, "hook.key")
	target, heard := receiveWebhooks(t, s, secret)
	play(t, s, 0, "acme", "biz", "listen", "--webhook", target, "--secret-file", secret, "--once", "--json")
	// A listener that begins again sends nothing twice, and one that is told to, everything: the receiving side takes each once.
	if r := play(t, s, 0, "acme", "biz", "listen", "--webhook", target, "--secret-file", secret, "--once"); r.Stdout != "" {
		t.Errorf("sent twice: %s", r.Stdout)
	}
	if r := play(t, s, 0, "acme", "biz", "listen", "--webhook", target, "--secret-file", secret, "--once", "--from", "0"); strings.Count(r.Stdout, "\n") != 4 {
		t.Errorf("sent again: %s", r.Stdout)
	}
	if text := heard(); text != "1\tCUST-1\taccepted the invitation\n2\tCUST-2\taccepted the invitation\n3\tCUST-1\tpartly\taddress.home\n4\tCUST-2\tdenied\n" {
		t.Errorf("the webhook heard:\n%s", text)
	}

	// Step 6. Both sides hold a receipt of each decision signed by the other, of denials too.
	for _, who := range []string{"zoe", "ben"} {
		list := said[consents](t, play(t, s, 0, who, "me", "inbox", "--all", "--json")).Requests
		if len(list) != 1 || len(list[0].Receipts.Ours) != 1 || len(list[0].Receipts.Theirs) != 1 {
			t.Errorf("%s holds %+v", who, list)
		}
	}
	for _, id := range []policies.DocumentID{zoes, bens} {
		for _, c := range said[consents](t, play(t, s, 0, "acme", "biz", "consents", "--json")).Consents {
			if c.ID == id && (len(c.Receipts.Ours) != 1 || len(c.Receipts.Theirs) != 1) {
				t.Errorf("the business holds %+v", c.Receipts)
			}
		}
	}

	// Step 7. What was denied is not asked for again.
	refusedAs(t, s, "acme", policies.CodeAskedAgain, "biz", "ask", "CUST-2", "--fields", "address.home", "--reason", "please", "--purpose", "delivery")

	// Ben accepts a second letter too, meant for a third customer number. He stays who he is, and the business finds him by both numbers; nobody else can use either.
	play(t, s, 0, "ben", "me", "accept", links["CUST-3"], "--as", "acme")
	if r := play(t, s, 0, "acme", "biz", "invited", out); r.Stdout != "CUST-1\taccepted\nCUST-2\taccepted\nCUST-3\taccepted\n" {
		t.Errorf("invited:\n%s%s", r.Stdout, r.Stderr)
	}
	if r := play(t, s, 0, "acme", "biz", "listen", "--once"); r.Stdout != "5\tCUST-2\taccepted the invitation of CUST-3\n" {
		t.Errorf("the business hears:\n%s", r.Stdout)
	}
	// It asks him for much. That would be all that he has, so he is asked whether he means it.
	for field, value := range map[string]string{"email.home": "ben@example.org", "birthday": "1980-02-03", "note": "back door"} {
		play(t, s, 0, "ben", "me", "set", field, value)
	}
	for _, denied := range []string{"address.home", "phone.mobile"} { // so that what he has left is what he may be asked for
		play(t, s, 0, "ben", "me", "rm", denied)
	}
	var fields []string
	for _, f := range said[struct {
		Fields []client.FieldInfo `json:"fields"`
	}](t, play(t, s, 0, "ben", "me", "ls", "--json")).Fields {
		fields = append(fields, string(f.Field))
	}
	have := strings.Join(fields, ",")
	all := said[consentRow](t, play(t, s, 0, "acme", "biz", "ask", "CUST-3", "--fields", have, "--reason", "a survey", "--purpose", "survey", "--json"))
	if all.Alias != "CUST-2" {
		t.Errorf("asked of %q", all.Alias)
	}
	play(t, s, 0, "ben", "me", "inbox")
	if r := play(t, s, 1, "ben", "me", "answer", all.ID.String()[:8], "--grant", have); !strings.Contains(r.Stderr, "would read everything about you") {
		t.Errorf("it says %q", r.Stderr)
	}
	status(all.ID, "pending")
	play(t, s, 0, "ben", "me", "answer", all.ID.String()[:8], "--grant", have, "--yes")
	play(t, s, 0, "acme", "biz", "listen", "--once")
	reads(t, s, "acme", "CUST-3", "note", "")

	// Step 8. Withdrawing is one command. It says when the business was stopped, when it last read, and that copies may remain; it asks for deletion.
	letter := filepath.Join(files, "letter.txt")
	// A letter that cannot be written is found out while there is still something to stop.
	must(t, os.WriteFile(letter, []byte("to somebody else"), 0o600))
	play(t, s, 1, "zoe", "me", "stop", "acme", "address.home", "--letter", letter)
	play(t, s, 1, "zoe", "me", "stop", "acme", "address.home", "--letter", filepath.Join(files, "none", "letter.txt"))
	must(t, os.Remove(letter))
	stopped := play(t, s, 0, "zoe", "me", "stop", "acme", "address.home", "--letter", letter)
	for _, want := range []string{"STOPPED: acme can no longer read address.home.", "It was stopped on 20", "It last read one of these on 20", "Copies that it made before may remain"} {
		if !strings.Contains(stopped.Stdout, want) {
			t.Errorf("me stop does not say %q:\n%s", want, stopped.Stdout)
		}
	}
	plainWords(t, stopped.Stdout)
	if text, err := os.ReadFile(letter); err != nil || !strings.Contains(string(text), "To: Acme Versand") || !strings.Contains(string(text), "delete every copy") {
		t.Errorf("the letter: %s, %v", text, err)
	}
	reads(t, s, "acme", "CUST-1", "address.home", policies.CodeRevoked)
	status(zoes, "withdrawn")
	events := play(t, s, 0, "acme", "biz", "listen", "--once")
	if !strings.Contains(events.Stdout, "CUST-1\twithdrawn") || !strings.Contains(events.Stdout, "CUST-1\tasks for deletion of\taddress.home") {
		t.Errorf("the business hears:\n%s", events.Stdout)
	}

	// Step 9. Who was not invited is not heard, whatever it calls itself; who is unwanted neither.
	zoe := said[struct {
		Code string `json:"code"`
	}](t, play(t, s, 0, "zoe", "me", "code", "--json")).Code
	play(t, s, 0, "mole", "biz", "connect", zoe, "--as", "prey") // the code leaked; Zoë never connected
	if r := play(t, s, 0, "mole", "biz", "connect", zoe, "--as", "victim"); !strings.Contains(r.Stderr, "Until now you called it prey.") {
		t.Errorf("a contact is called anew without a word: %s%s", r.Stdout, r.Stderr)
	}
	play(t, s, 0, "mole", "biz", "ask", "victim", "--fields", "bank.iban", "--reason", "refunds", "--purpose", "refunds")
	if r := play(t, s, 0, "zoe", "me", "inbox"); strings.Contains(r.Stdout, "refunds") || !strings.Contains(r.Stderr, "not a contact") {
		t.Errorf("a stranger is heard: %s%s", r.Stdout, r.Stderr)
	}
	play(t, s, 0, "zoe", "me", "mute", "acme")
	play(t, s, 0, "acme", "biz", "ask", "CUST-1", "--fields", "email.home", "--reason", "news", "--purpose", "news", "--term", "DirectMarketing")
	if r := play(t, s, 0, "zoe", "me", "inbox"); !strings.Contains(r.Stdout, "Nobody is asking") {
		t.Errorf("muted: %s", r.Stdout)
	}
	play(t, s, 0, "zoe", "me", "block", "acme")
}

// plainWords: what private people read has none of the words that they need not know.
func plainWords(t *testing.T, text string) {
	t.Helper()
	for _, word := range []string{"key", "curve", "capsule", "epoch"} {
		if strings.Contains(strings.ToLower(text), word) {
			t.Errorf("a person reads the word %q:\n%s", word, text)
		}
	}
}

// refusedAs plays a command that must be refused with exit code 3 and a code.
func refusedAs(t *testing.T, s *stage.Stage, profile string, code policies.Code, args ...string) {
	t.Helper()
	r := play(t, s, 3, profile, append(args, "--json")...)
	got := said[struct {
		Error struct {
			Code policies.Code `json:"code"`
		} `json:"error"`
	}](t, r)
	if got.Error.Code != code {
		t.Errorf("sallyport %q: code %q, want %q", args, got.Error.Code, code)
	}
}

// receiveWebhooks runs biz receive, and returns its URL and, once it is interrupted, what it printed.
func receiveWebhooks(t *testing.T, s *stage.Stage, secret string) (target string, heard func() string) {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, s.Bin().Sallyport, "biz", "receive", "--secret-file", secret, "--ready-file", ready)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill() })
	var text []byte
	await(t, 20*time.Second, "biz receive is ready", func() bool {
		var err error
		text, err = os.ReadFile(ready)
		return err == nil
	})
	return strings.TrimSpace(string(text)), func() string {
		t.Helper()
		must(t, cmd.Process.Signal(os.Interrupt))
		must(t, cmd.Wait())
		return out.String()
	}
}
