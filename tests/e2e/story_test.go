package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
)

const card = "BEGIN:VCARD\r\nVERSION:4.0\r\nFN:Zoë Brückner\r\nN:Brückner;Zoë;;;\r\nEMAIL:zoe@mail.example\r\n" +
	"TEL;VALUE=uri;TYPE=cell:tel:+49-151-23456701\r\nTEL;VALUE=uri;TYPE=\"voice,home\":tel:+49-30-5550101\r\n" +
	"ADR;TYPE=home:;Hinterhaus\\, 3. OG links;Kopernikusstraße 27a;Berlin;;10243;Deutschland\r\nNOTE:rings twice\r\nEND:VCARD\r\n"

// rows is what biz read prints with --json.
type rows struct {
	Values []struct {
		Field     policies.Field `json:"field"`
		Version   uint64         `json:"version"`
		Text      string         `json:"text"`
		Unchanged bool           `json:"unchanged"`
		Error     *struct {
			Code policies.Code `json:"code"`
		} `json:"error"`
	} `json:"values"`
}

// reads runs biz read for one field and returns its text, or demands that it is refused with exit code 3 and a code.
func reads(t *testing.T, s *stage.Stage, reader, owner string, f policies.Field, want policies.Code) (text string, version uint64) {
	t.Helper()
	exit := 0
	if want != "" {
		exit = 3
	}
	got := said[rows](t, play(t, s, exit, reader, "biz", "read", owner, string(f), "--json")).Values
	if len(got) != 1 || got[0].Field != f {
		t.Fatalf("%s reads %s of %s: %+v", reader, f, owner, got)
	}
	if want == "" && got[0].Error == nil {
		return got[0].Text, got[0].Version
	}
	if got[0].Error == nil || got[0].Error.Code != want || got[0].Text != "" {
		t.Fatalf("%s reads %s of %s: %+v, want %q", reader, f, owner, got[0], want)
	}
	return "", 0
}

// openReader opens a command's profile in this process, to read faster than commands can.
func openReader(t *testing.T, s *stage.Stage, name string) (r *client.Reader, done func()) {
	t.Helper()
	folder := filepath.Join(s.Dir(), "profiles", name)
	secret, err := profile.KeyFile(folder + ".key")
	must(t, err)
	p, err := profile.Open(folder, secret)
	must(t, err)
	r, err = client.OpenReader(p, client.Options{})
	must(t, err)
	return r, func() { must(t, errors.Join(r.Close(), p.Close())) }
}

// TestStory plays the main job through the commands, as people and businesses would type them.
func TestStory(t *testing.T) {
	t.Parallel()
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	ctx := t.Context()
	play(t, s, 0, "zoe", "me", "init")
	play(t, s, 0, "acme", "biz", "init", "--name", "Acme")
	play(t, s, 0, "globex", "biz", "init", "--name", "Globex")
	file := filepath.Join(t.TempDir(), "zoe.vcf")
	must(t, os.WriteFile(file, []byte(card), 0o600))
	play(t, s, 0, "zoe", "me", "import", file)
	connect(t, s, "zoe", "acme")
	connect(t, s, "zoe", "globex")
	play(t, s, 0, "zoe", "me", "grant", "acme", "phone.mobile", "address.home", "note", "--for", "90d", "--purpose", "delivery")
	play(t, s, 0, "zoe", "me", "grant", "globex", "email.other", "phone.mobile")

	expect := func(reader string, f policies.Field, want string) uint64 {
		t.Helper()
		text, version := reads(t, s, reader, "zoe", f, "")
		if !strings.Contains(text, want) {
			t.Fatalf("%s reads %s as %q, want %q", reader, f, text, want)
		}
		return version
	}
	expect("acme", "phone.mobile", "+49-151-23456701")
	expect("acme", "address.home", "Kopernikusstraße 27a")
	expect("globex", "email.other", "zoe@mail.example")
	// What one business may read, the other may not.
	reads(t, s, "globex", "zoe", "address.home", policies.CodeNoGrant)
	reads(t, s, "acme", "zoe", "email.other", policies.CodeNoGrant)

	// The owner updates; who may read has the new value at the next look, and what it has already costs the token nothing.
	play(t, s, 0, "zoe", "me", "set", "phone.mobile", "+49-170-999")
	version := expect("acme", "phone.mobile", "+49-170-999")
	before := derives(t, s)
	known := said[rows](t, play(t, s, 0, "acme", "biz", "read", "zoe", "phone.mobile", "--known", strconv.FormatUint(version, 10), "--json")).Values
	if len(known) != 1 || !known[0].Unchanged || known[0].Text != "" {
		t.Errorf("a version that is known: %+v", known)
	}
	if after := derives(t, s); after != before {
		t.Errorf("a version that is known cost %d derives", after-before)
	}
	expect("acme", "phone.mobile", "+49-170-999")
	if after := derives(t, s); after != before+1 {
		t.Errorf("a read cost %d derives", after-before)
	}

	// While fields move to new keys, those who may read them notice nothing.
	globex, done := openReader(t, s, "globex")
	owner, err := globex.Find("zoe")
	must(t, err)
	stop, count := make(chan struct{}), 0
	var loop sync.WaitGroup
	loop.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			values, err := globex.Read(ctx, client.Item{Owner: owner, Field: "phone.mobile"}, client.Item{Owner: owner, Field: "email.other"})
			if err != nil {
				t.Errorf("read %d during rotations: %v", count, err)
				return
			}
			for _, v := range values {
				if v.Err != nil || len(v.Bytes) == 0 {
					t.Errorf("read %d of %s during rotations: %v", count, v.Field, v.Err)
				}
			}
			count++
		}
	})
	for range 3 {
		play(t, s, 0, "zoe", "me", "rotate", "phone.mobile", "email.other")
	}
	close(stop)
	loop.Wait()
	done()
	if count < 10 {
		t.Errorf("only %d reads during three rotations", count)
	}
	t.Logf("%d reads of two fields during three rotations", count)
	expect("acme", "phone.mobile", "+49-170-999")
	expect("globex", "phone.mobile", "+49-170-999")

	// Revoking stops one reader of one field; the field moves to new keys and the others go on.
	if r := play(t, s, 0, "zoe", "me", "revoke", "acme", "phone.mobile"); !strings.Contains(r.Stdout, "STOPPED") || strings.Contains(r.Stdout, "NOT STOPPED") {
		t.Errorf("a revocation says %q", r.Stdout)
	}
	reads(t, s, "acme", "zoe", "phone.mobile", policies.CodeRevoked)
	expect("acme", "address.home", "Kopernikusstraße 27a")
	expect("globex", "phone.mobile", "+49-170-999")
	play(t, s, 0, "zoe", "me", "set", "phone.mobile", "+49-171-111")
	reads(t, s, "acme", "zoe", "phone.mobile", policies.CodeRevoked)
	expect("globex", "phone.mobile", "+49-171-111")

	// The owner sees it all, each entry proven to be in the log.
	history := said[struct {
		History []struct {
			Kind    evidence.Kind  `json:"kind"`
			Outcome policies.Code  `json:"outcome"`
			Alias   string         `json:"alias"`
			Field   policies.Field `json:"field"`
		} `json:"history"`
	}](t, play(t, s, 0, "zoe", "me", "history", "--limit", "2000", "--json")).History
	for _, want := range []struct {
		kind    evidence.Kind
		outcome policies.Code
		alias   string
		field   policies.Field
	}{
		{evidence.EntryUse, policies.CodeReleased, "acme", "phone.mobile"},
		{evidence.EntryUse, policies.CodeUnchanged, "acme", "phone.mobile"},
		{evidence.EntryUse, policies.CodeReleased, "globex", "email.other"},
		{evidence.EntryRefusal, policies.CodeNoGrant, "globex", "address.home"},
		{evidence.EntryRefusal, policies.CodeRevoked, "acme", "phone.mobile"},
		{evidence.EntryRevocation, policies.CodeAccepted, "", ""},
		{evidence.EntryDestroyed, policies.CodeAccepted, "", ""},
	} {
		found := false
		for _, e := range history {
			found = found || e.Kind == want.kind && e.Outcome == want.outcome && (want.alias == "" || e.Alias == want.alias && e.Field == want.field)
		}
		if !found {
			t.Errorf("the history has no %s, %s, %s, %s", want.kind, want.outcome, want.alias, want.field)
		}
	}

	// A field that is deleted is gone for everybody.
	expect("acme", "note", "rings twice")
	play(t, s, 0, "zoe", "me", "rm", "note")
	reads(t, s, "acme", "zoe", "note", policies.CodeNotFound)
	play(t, s, 1, "zoe", "me", "get", "note")

	// Counts, nonces and sessions outlive the vault's process.
	play(t, s, 0, "zoe", "me", "grant", "globex", "phone.home", "--reads-per-day", "2")
	expect("globex", "phone.home", "+49-30-5550101")
	expect("globex", "phone.home", "+49-30-5550101")
	p, f := devices.NewPerson(t, s, client.Options{}, map[policies.Field]string{"own/a": "a"}), devices.NewFirm(t, s, "Initech")
	devices.Meet(t, p, f, "initech")
	must(t, p.Grant(ctx, f.ID(), []policies.Field{"own/a"}, client.GrantOptions{}))
	caller := devices.NewInsider(t, s, f)
	item, offer := policies.ReadItem{Owner: p.ID(), Field: "own/a"}, p.Drawer.Look(t).Offer(t, "own/a")
	request := caller.Request(t, "general", nil, item)
	if code := caller.Ask(t, request, offer); code != policies.CodeReleased {
		t.Fatalf("the first time: %s", code)
	}
	for _, end := range []func() error{s.Vault.Stop, func() error { s.Vault.Kill(); return nil }} {
		must(t, end())
		must(t, s.Vault.Start(ctx))
		before := derives(t, s)
		if code := caller.Ask(t, request, offer); code != policies.CodeReplay {
			t.Errorf("the same request after a restart: %s", code)
		}
		reads(t, s, "globex", "zoe", "phone.home", policies.CodeLimit)
		reads(t, s, "acme", "zoe", "phone.mobile", policies.CodeRevoked)
		if after := derives(t, s); after != before {
			t.Errorf("refusals after a restart cost %d derives", after-before)
		}
		if code := caller.Ask(t, caller.Request(t, "general", nil, item), offer); code != policies.CodeReleased {
			t.Errorf("a new request in the session of before: %s", code)
		}
	}

	// What the card had is what comes out again, but for what changed.
	out := play(t, s, 0, "zoe", "me", "export").Stdout
	for _, want := range []string{"Zoë Brückner", "Kopernikusstraße 27a", "+49-171-111", "zoe@mail.example"} {
		if !strings.Contains(out, want) {
			t.Errorf("the exported card lacks %q", want)
		}
	}
	if strings.Contains(out, "rings twice") {
		t.Error("the exported card has the field that was removed")
	}
	if grants := play(t, s, 0, "zoe", "me", "grants").Stdout; !slices.Contains(strings.Fields(grants), "address.home") || strings.Count(grants, "acme") != 2 {
		t.Errorf("grants in force:\n%s", grants) // address.home and note
	}
}
