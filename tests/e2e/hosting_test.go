package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/client/profile"
	"github.com/sallyport/sallyport/storefront/client/safe"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/tests/stage/search"
)

// by is what `biz read --json` says of one field.
type by struct {
	Text      string            `json:"text"`
	WrittenBy policies.AuthorID `json:"written_by"`
}

// loadState is a profile's state as it lies in it.
func loadState(t *testing.T, s *stage.Stage, name string) []byte {
	t.Helper()
	folder := filepath.Join(s.Dir(), "profiles", name)
	secret, err := profile.KeyFile(folder + ".key")
	must(t, err)
	p, err := profile.Open(folder, secret)
	must(t, err)
	defer p.Close()
	data, err := p.Load()
	must(t, err)
	return data
}

// met are the people in the safe of a business.
func met(t *testing.T, s *stage.Stage, name string) (people []safe.Person) {
	t.Helper()
	folder := filepath.Join(s.Dir(), "profiles", name)
	secret, err := profile.KeyFile(folder + ".key")
	must(t, err)
	p, err := profile.Open(folder, secret)
	must(t, err)
	defer p.Close()
	var state struct {
		Safe safe.Head `json:"safe"`
	}
	data, err := p.Load()
	must(t, err)
	must(t, json.Unmarshal(data, &state))
	book, err := p.Safe(state.Safe)
	must(t, err)
	defer book.Close()
	must(t, book.Each(func(p *safe.Person) error { people = append(people, *p); return nil }))
	return people
}

// ownerOf is the id of the owner that a business calls by an alias.
func ownerOf(t *testing.T, s *stage.Stage, reader, alias string) policies.OwnerID {
	t.Helper()
	r, done := openReader(t, s, reader)
	defer done()
	id, err := r.Find(alias)
	must(t, err)
	return id
}

// TestHosting walks through the first source system, an encrypted data hosting server with private clients and business clients, over real processes and a real token. Each
// step is one item of its list.
func TestHosting(t *testing.T) {
	t.Parallel()
	s := openStage(t, publishing(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits}))
	ids := map[string]policies.IdentityID{}
	readBy := func(reader, owner, field string) by {
		t.Helper()
		return said[struct {
			Values []by `json:"values"`
		}](t, play(t, s, exitDone, reader, "biz", "read", owner, field, "--json")).Values[0]
	}
	wants := func(reader, owner, field, text, writer string) {
		t.Helper()
		got := readBy(reader, owner, field)
		if got.Text != text || writer == "" != got.WrittenBy.IsZero() || writer != "" && policies.IdentityID(got.WrittenBy) != ids[writer] {
			t.Fatalf("%s reads %s of %s: %q by %s, want %q by %q", reader, field, owner, got.Text, got.WrittenBy, text, writer)
		}
	}

	step := func(name string, f func(t *testing.T)) {
		t.Helper()
		if !t.Run(name, f) {
			t.FailNow() // each step rests on the ones before
		}
	}

	step("registration: two people, three businesses", func(t *testing.T) {
		for _, name := range []string{"alice", "carol"} {
			play(t, s, exitDone, name, "me", "init")
		}
		for _, name := range []string{"shop", "bank", "gym"} {
			out := said[struct {
				ID policies.IdentityID `json:"id"`
			}](t, play(t, s, exitDone, name, "biz", "init", "--name", name, "--json"))
			ids[name] = out.ID
		}
	})

	step("login: nothing is given to somebody who did not log in", func(t *testing.T) {
		for _, path := range []string{"/v1/grants", "/v1/write-grants", "/v1/relationships"} {
			r, err := outsider(t, s, nil).Get(s.StorefrontURL() + path)
			must(t, err)
			body, _ := io.ReadAll(r.Body)
			r.Body.Close()
			if r.StatusCode != http.StatusUnauthorized || problemCode(body) != policies.CodeUnauthorized {
				t.Errorf("%s: %d %s", path, r.StatusCode, body)
			}
		}
	})

	step("initial trust: a public key per business and person, by codes that were handed over outside", func(t *testing.T) {
		for _, owner := range []string{"alice", "carol"} {
			for _, reader := range []string{"shop", "bank"} {
				connect(t, s, owner, reader)
			}
		}
		keys := map[policies.Hash]bool{}
		for _, p := range met(t, s, "bank") {
			keys[p.Relations[0].Hash] = true
		}
		if len(keys) != 2 {
			t.Errorf("the bank has %d relationships with two people", len(keys))
		}
	})

	step("a mirror of one's own data that needs no server", func(t *testing.T) {
		play(t, s, exitDone, "alice", "me", "set", "phone.mobile", "+49 30 1111111")
		play(t, s, exitDone, "alice", "me", "set", "email.home", "alice@example.org")
		play(t, s, exitDone, "carol", "me", "set", "phone.mobile", "+49 30 2222222")
		must(t, s.Storefront.Stop())
		if r := play(t, s, exitDone, "alice", "me", "get", "phone.mobile"); r.Stdout != "+49 30 1111111\n" {
			t.Errorf("%q", r.Stdout)
		}
		must(t, s.Storefront.Start(t.Context()))
	})

	step("permission to read, per business, person and field: the cipher is re-encrypted on request", func(t *testing.T) {
		play(t, s, exitDone, "alice", "me", "grant", "shop", "phone.mobile")
		play(t, s, exitDone, "carol", "me", "grant", "shop", "phone.mobile")
		play(t, s, exitDone, "carol", "me", "grant", "bank", "phone.mobile")
		before := derives(t, s)
		wants("shop", "alice", "phone.mobile", "+49 30 1111111", "")
		if n := derives(t, s) - before; n != 1 {
			t.Errorf("%d re-encryptions for one field", n)
		}
		wants("shop", "carol", "phone.mobile", "+49 30 2222222", "")
		wants("bank", "carol", "phone.mobile", "+49 30 2222222", "")
		reads(t, s, "shop", "alice", "email.home", policies.CodeNoGrant)
		reads(t, s, "bank", "alice", "phone.mobile", policies.CodeNoGrant)
	})

	step("permission to write, and not to read", func(t *testing.T) {
		play(t, s, exitRefused, "bank", "biz", "write", "alice", "bank.iban", "DE02120300000000202051")
		play(t, s, exitDone, "alice", "me", "grant", "bank", "bank.iban", "--write-only")
		play(t, s, exitDone, "alice", "me", "grant", "shop", "bank.iban") // of which alice has no value
		// Alice is offline from here on: nothing of hers runs.
		play(t, s, exitDone, "bank", "biz", "write", "alice", "bank.iban", "DE02120300000000202051")
		wants("shop", "alice", "bank.iban", "DE02120300000000202051", "bank")
		if r := play(t, s, exitDone, "shop", "biz", "read", "alice", "bank.iban"); !strings.Contains(r.Stderr, "Written by "+ids["bank"].String()) {
			t.Errorf("who wrote it is not shown: %q", r.Stderr)
		}
		reads(t, s, "bank", "alice", "bank.iban", policies.CodeNoGrant)                                                           // not even what it wrote
		play(t, s, exitRefused, "bank", "biz", "write", "alice", "phone.mobile", "+49 30 6666666")                                // another field
		play(t, s, exitRefused, "bank", "biz", "write", "carol", "bank.iban", "DE02120300000000202051")                           // another person
		play(t, s, exitRefused, "shop", "biz", "write", "alice", "bank.iban", "DE02120300000000202051")                           // another business
		play(t, s, exitError, "gym", "biz", "write", ids["bank"].String(), "bank.iban", "DE02120300000000202051")                 // who met nobody
		if r := play(t, s, exitDone, "bank", "biz", "write"); r.Stdout == "" || !strings.Contains(r.Stdout, "alice\tbank.iban") { // what it may write
			t.Errorf("%q", r.Stdout)
		}
	})

	step("permission to read and write; the newest counts, whoever wrote it", func(t *testing.T) {
		play(t, s, exitDone, "alice", "me", "grant", "shop", "phone.mobile", "--write")
		play(t, s, exitDone, "shop", "biz", "write", "alice", "phone.mobile", "+49 30 3333333")
		wants("shop", "alice", "phone.mobile", "+49 30 3333333", "shop")
		play(t, s, exitDone, "alice", "me", "set", "phone.mobile", "+49 30 4444444")
		wants("shop", "alice", "phone.mobile", "+49 30 4444444", "")
		play(t, s, exitDone, "shop", "biz", "write", "alice", "phone.mobile", "+49 30 5555555")
		wants("shop", "alice", "phone.mobile", "+49 30 5555555", "shop")
	})

	step("the owner looks later, adopts or rejects", func(t *testing.T) {
		incoming := func() []map[string]any {
			t.Helper()
			return said[struct {
				Incoming []map[string]any `json:"incoming"`
			}](t, play(t, s, exitDone, "alice", "me", "incoming", "--json")).Incoming
		}
		list := incoming()
		if len(list) != 2 || fmt.Sprint(list[0]["alias"], list[0]["text"], list[1]["alias"], list[1]["text"]) != fmt.Sprint("bank", "DE02120300000000202051", "shop", "+49 30 5555555") {
			t.Fatalf("%v", list)
		}
		play(t, s, exitDone, "alice", "me", "adopt", "bank.iban", "--from", "bank")
		wants("shop", "alice", "bank.iban", "DE02120300000000202051", "")
		play(t, s, exitDone, "alice", "me", "reject", "phone.mobile")
		wants("shop", "alice", "phone.mobile", "+49 30 4444444", "")
		if list := incoming(); len(list) != 0 {
			t.Errorf("settled, and still there: %v", list)
		}
	})

	step("killed in the middle of it: vault and storefront come back to the same order", func(t *testing.T) {
		play(t, s, exitDone, "bank", "biz", "write", "alice", "bank.iban", "DE02500105170137075030")
		s.Vault.Kill()
		s.Storefront.Kill()
		must(t, s.Vault.Start(t.Context()))
		must(t, s.Storefront.Start(t.Context()))
		wants("shop", "alice", "bank.iban", "DE02500105170137075030", "bank")
		wants("shop", "alice", "phone.mobile", "+49 30 4444444", "")
	})

	step("a permission to write ends; sending it again brings nothing back", func(t *testing.T) {
		play(t, s, exitDone, "alice", "me", "revoke", "bank", "--write-only")
		play(t, s, exitRefused, "bank", "biz", "write", "alice", "bank.iban", "DE75512108001245126199")
		wants("shop", "alice", "bank.iban", "DE02500105170137075030", "bank") // what was written stays, until alice sets something newer
		// The write grant's document, sent again at the owners' door, is known, and ended.
		var document []byte
		for _, l := range devices.Journal(t, s) {
			if l.Entry.Kind == evidence.EntryWriteGrant && policies.IdentityID(l.Details.Author) == ids["bank"] {
				document = l.Document
			}
		}
		body, err := json.Marshal(map[string]any{"envelope": json.RawMessage(document)})
		must(t, err)
		answer, err := outsider(t, s, nil).Post(s.OwnersURL()+"/v1/documents", "application/json", bytes.NewReader(body))
		must(t, err)
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Errorf("the vault does not know its own document: %d", answer.StatusCode)
		}
		play(t, s, exitRefused, "bank", "biz", "write", "alice", "bank.iban", "DE75512108001245126199")
		wants("shop", "alice", "bank.iban", "DE02500105170137075030", "bank")
	})

	step("revoking a reader moves the field to new keys, for writers too", func(t *testing.T) {
		connect(t, s, "alice", "gym")
		play(t, s, exitDone, "alice", "me", "grant", "gym", "phone.mobile")
		play(t, s, exitDone, "shop", "biz", "write", "alice", "phone.mobile", "+49 30 7777777")
		wants("gym", "alice", "phone.mobile", "+49 30 7777777", "shop")
		play(t, s, exitDone, "alice", "me", "revoke", "gym")
		reads(t, s, "gym", "alice", "phone.mobile", policies.CodeRevoked)
		wants("shop", "alice", "phone.mobile", "+49 30 7777777", "shop")
		play(t, s, exitDone, "shop", "biz", "write", "alice", "phone.mobile", "+49 30 8888888")
		wants("shop", "alice", "phone.mobile", "+49 30 8888888", "shop")
		reads(t, s, "gym", "alice", "phone.mobile", policies.CodeRevoked)
	})

	step("stopping a business ends what it may write, too", func(t *testing.T) {
		play(t, s, exitDone, "alice", "me", "grant", "gym", "phone.mobile", "--write-only")
		if r := play(t, s, exitDone, "alice", "me", "stop", "gym"); !strings.Contains(r.Stdout, "STOPPED") {
			t.Errorf("it says %q", r.Stdout)
		}
		play(t, s, exitRefused, "gym", "biz", "write", "alice", "phone.mobile", "+49 30 9999999")
		play(t, s, exitDone, "alice", "me", "grant", "gym", "phone.mobile", "--write")
		play(t, s, exitDone, "gym", "biz", "write", "alice", "phone.mobile", "+49 30 9999999")
		play(t, s, exitDone, "alice", "me", "stop", "gym", "phone.mobile")
		play(t, s, exitRefused, "gym", "biz", "write", "alice", "phone.mobile", "+49 30 0000000")
		reads(t, s, "gym", "alice", "phone.mobile", policies.CodeRevoked)
		play(t, s, exitRefused, "alice", "me", "stop", "gym") // there is nothing left
	})

	step("post-quantum transmission on all links", func(t *testing.T) {
		classical := func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256} }
		for _, url := range []string{s.StorefrontURL(), s.OwnersURL(), s.VaultURL()} {
			if r, err := outsider(t, s, classical).Get(url + "/v1/health"); err == nil {
				r.Body.Close()
				t.Errorf("%s speaks without ML-KEM", url)
			}
		}
	})

	step("secure storage: no value and no root outside the devices, and in these only sealed", func(t *testing.T) {
		var markers []search.Marker
		for _, text := range []string{"+49 30 1111111", "+49 30 3333333", "+49 30 5555555", "+49 30 8888888", "DE02120300000000202051", "DE02500105170137075030", "alice@example.org"} {
			markers = append(markers, search.Marker{Name: text, Value: []byte(text)})
		}
		for _, name := range []string{"alice", "carol", "shop", "bank"} {
			var state struct {
				Root []byte `json:"root"`
			}
			must(t, json.Unmarshal(loadState(t, s, name), &state))
			markers = append(markers, search.Marker{Name: "root of " + name, Value: state.Root})
		}
		found, read, err := search.Folders(markers, s.StorefrontData(), s.VaultData(), s.TokenFolder(), filepath.Join(s.Dir(), "profiles"))
		must(t, err)
		for _, f := range found {
			t.Error(f)
		}
		if read < 1<<16 {
			t.Errorf("only %d bytes were searched", read)
		}
	})

	step("the log: the owner's device agrees with it, and an auditor finds every release justified", func(t *testing.T) {
		play(t, s, exitDone, "alice", "me", "verify")
		history := play(t, s, exitDone, "alice", "me", "history", "--limit", "500").Stdout
		for _, text := range []string{"You allowed bank to write.", "bank wrote something for you", "You ended 1 permission of bank to write"} {
			if !strings.Contains(history, text) {
				t.Errorf("the history does not say %q:\n%s", text, history)
			}
		}
		dir := published(t, s, &devices.Insider{Vault: newMole(t, s).vault}, ownerOf(t, s, "shop", "alice"))
		result, err := s.Sallyport(t.Context(), "auditor", "audit", "recheck", "--join", s.Join(), dir)
		must(t, err)
		if result.Code != 0 || !strings.Contains(result.Stdout, " 0 unjustified, 0 not checkable\n0 documents") {
			t.Errorf("exit code %d\n%s%s", result.Code, result.Stdout, result.Stderr)
		}
	})
}
