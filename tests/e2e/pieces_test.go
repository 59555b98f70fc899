package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/tests/stage/search"
)

// contacts is what me contacts prints with --json.
type contacts struct {
	People []struct {
		Alias  string `json:"alias"`
		Fields []struct {
			Field   policies.Field `json:"field"`
			Text    string         `json:"text"`
			Version uint64         `json:"version"`
		} `json:"fields"`
	} `json:"people"`
}

// TestPieces walks through the seven calls of pieces between users. Each has the name that it has there, in a comment: what stands behind it here is in the
// storefront's README. A piece is a field; Anna wants Ben's phone number.
func TestPieces(t *testing.T) {
	t.Parallel()
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	for _, person := range []string{"anna", "ben", "eve"} {
		play(t, s, 0, person, "me", "init")
	}

	// piece_store: Ben keeps a piece, encrypted on his own device. piece_store_get: he gets it back.
	play(t, s, 0, "ben", "me", "set", "phone.mobile", "+49 151 23456701")
	play(t, s, 0, "ben", "me", "set", "bank.iban", "DE02120300000000202051")
	if r := play(t, s, 0, "ben", "me", "get", "phone.mobile"); r.Stdout != "+49 151 23456701\n" {
		t.Errorf("Ben gets %q", r.Stdout)
	}

	// piece_getkeys: Anna and Ben learn each other's keys. Which identity is Ben's comes from outside the storefront, by a link that Anna hands him; the rest is
	// signed and sealed. Nobody can be looked up.
	link := strings.TrimSpace(play(t, s, 0, "anna", "me", "invite", "ben").Stdout)
	accepted := play(t, s, 0, "ben", "me", "accept", link, "--as", "anna")
	plainWords(t, accepted.Stdout)
	play(t, s, 0, "anna", "me", "inbox")
	// Eve comes too late with the same link, and does not become Ben.
	play(t, s, 0, "eve", "me", "accept", link)
	if r := play(t, s, 0, "anna", "me", "inbox"); !strings.Contains(r.Stderr, "used by somebody else") {
		t.Errorf("a link that is used: %s", r.Stderr)
	}

	// piece_request: Anna asks. The request has a nonce, sealed to Ben.
	play(t, s, 0, "anna", "me", "ask", "ben", "--fields", "phone.mobile", "--reason", "to call you")
	asked := func() consentRow {
		t.Helper()
		list := said[struct {
			Asked []consentRow `json:"asked"`
		}](t, play(t, s, 0, "anna", "me", "asked", "--json")).Asked
		if len(list) != 1 || list[0].Alias != "ben" {
			t.Fatalf("asked: %+v", list)
		}
		return list[0]
	}
	if got := asked(); got.Status != "pending" {
		t.Errorf("asked: %+v", got)
	}

	// piece_request_receive: Ben sees who asks, for what and why.
	inbox := play(t, s, 0, "ben", "me", "inbox")
	for _, want := range []string{"anna", "phone.mobile", "to call you", "required"} {
		if !strings.Contains(inbox.Stdout, want) {
			t.Errorf("Ben's inbox does not say %q:\n%s", want, inbox.Stdout)
		}
	}

	// piece_send: Ben lets Anna read. His key for the vault goes to the token; his answer, signed, to the hash of that very request and with its nonce, to Anna.
	answered := play(t, s, 0, "ben", "me", "answer", asked().ID.String()[:8], "--grant", "phone.mobile")
	plainWords(t, answered.Stdout)

	// piece_send_receive: Anna hears, reads through the token, and keeps what she read, encrypted, in her contacts.
	if got := asked(); got.Status != "granted" || len(got.Receipts.Ours) != 1 || len(got.Receipts.Theirs) != 1 {
		t.Errorf("asked: %+v", got)
	}
	holds := func(want string, args ...string) {
		t.Helper()
		people := said[contacts](t, play(t, s, 0, "anna", append([]string{"me", "contacts", "--json"}, args...)...)).People
		text := ""
		if len(people) == 1 && people[0].Alias == "ben" && len(people[0].Fields) == 1 && people[0].Fields[0].Field == "phone.mobile" {
			text = people[0].Fields[0].Text
		}
		if text != want {
			t.Errorf("Anna's contacts: %+v, want %q", people, want)
		}
	}
	holds("")
	before := derives(t, s)
	holds("+49 151 23456701", "--refresh")
	if after := derives(t, s); after != before+1 {
		t.Errorf("a piece cost %d uses of a key", after-before)
	}
	found, read, err := search.Folders([]search.Marker{{Name: "Ben's number", Value: []byte("+49 151 23456701")}}, s.Dir())
	must(t, err)
	if len(found) > 0 || read == 0 {
		t.Errorf("of %d bytes some hold the number in the clear: %v", read, found)
	}

	// It is refreshed: the newest, without a key's use where there is nothing new.
	before = derives(t, s)
	holds("+49 151 23456701", "--refresh")
	if after := derives(t, s); after != before {
		t.Errorf("nothing new cost %d uses of a key", after-before)
	}
	play(t, s, 0, "ben", "me", "set", "phone.mobile", "+49 170 999")
	holds("+49 151 23456701") // kept, also without the network
	holds("+49 170 999", "--refresh")

	// What cannot be read now stays as it was, and hides nothing else.
	play(t, s, 0, "ben", "me", "grant", "anna", "bank.iban", "--reads-per-day", "1")
	play(t, s, 0, "anna", "me", "contacts", "--refresh")
	play(t, s, 0, "ben", "me", "set", "bank.iban", "DE75512108001245126199")
	play(t, s, 0, "ben", "me", "set", "phone.mobile", "+49 170 1000")
	if r := play(t, s, 3, "anna", "me", "contacts", "--refresh"); !strings.Contains(r.Stdout, "DE02120300000000202051") || !strings.Contains(r.Stdout, "+49 170 1000") || !strings.Contains(r.Stderr, "bank.iban was not fetched") {
		t.Errorf("with one field that cannot be read now:\n%s%s", r.Stdout, r.Stderr)
	}
	play(t, s, 0, "ben", "me", "rm", "bank.iban")
	holds("+49 170 1000", "--refresh")

	// Ben sees that she read, and takes it back; her program deletes its copy.
	if r := play(t, s, 0, "ben", "me", "history"); !strings.Contains(r.Stdout, "anna read phone.mobile") {
		t.Errorf("Ben's history:\n%s", r.Stdout)
	}
	play(t, s, 0, "ben", "me", "stop", "anna")
	holds("", "--refresh")
	play(t, s, 0, "anna", "me", "verify")
	play(t, s, 0, "ben", "me", "verify")

	// Anna deletes her account. What Ben gives her ends with it: he is told, it is listed with the reason, and the log shows that nobody can undo it.
	play(t, s, 0, "ben", "me", "grant", "anna", "phone.mobile")
	play(t, s, 0, "anna", "me", "delete", "--yes", "DELETE")
	told := ""
	for begin := time.Now(); !strings.Contains(told, "anna deleted the account. What you allowed has ended: phone.mobile") && time.Since(begin) < 30*time.Second; {
		r := play(t, s, 0, "ben", "me", "sync")
		told = r.Stdout + r.Stderr
	}
	plainWords(t, told)
	if gone := play(t, s, 0, "ben", "me", "grants", "--all").Stdout; !strings.Contains(gone, "account deleted") || strings.Contains(gone, "in force") {
		t.Errorf("what Ben has given:\n%s\nand he was told: %s", gone, told)
	}
	for begin, n := time.Now(), 0; n < 2 && time.Since(begin) < 30*time.Second; { // of her own, of which there are none, and of Ben's
		n = 0
		closed := false
		for _, e := range devices.Journal(t, s) {
			closed = closed || e.Entry.Kind == evidence.EntryClosure
			if closed && e.Entry.Kind == evidence.EntryDestroyed {
				n++
			}
		}
	}
	play(t, s, 0, "ben", "me", "verify")
	if r := play(t, s, 0, "ben", "me", "history"); !strings.Contains(r.Stdout, "anna deleted the account. The vault destroyed the permissions") {
		t.Errorf("Ben's history:\n%s", r.Stdout)
	}
}
