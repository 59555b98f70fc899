package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/tests/devices"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// refusal is what a command prints with --json when it fails.
type refusal struct {
	Error struct {
		Exit int           `json:"exit"`
		Code policies.Code `json:"code"`
		Text string        `json:"text"`
	} `json:"error"`
}

// statuses are what `me grants --json` says of each field granted to a reader.
func (l *liars) statuses(t *testing.T, owner, reader string) map[policies.Field]string {
	t.Helper()
	out := map[policies.Field]string{}
	type list struct {
		Grants []struct {
			Alias  string         `json:"alias"`
			Field  policies.Field `json:"field"`
			Status string         `json:"status"`
		} `json:"grants"`
	}
	for _, g := range said[list](t, play(t, l.Stage, exitDone, owner, "me", "grants", "--json")).Grants {
		if g.Alias == reader {
			out[g.Field] = g.Status
		}
	}
	return out
}

// pending lists the fields that wait to be published.
func (l *liars) pending(t *testing.T, owner string) (out []policies.Field) {
	t.Helper()
	type list struct {
		Fields []struct {
			Field   policies.Field `json:"field"`
			Pending bool           `json:"pending"`
		} `json:"fields"`
	}
	for _, f := range said[list](t, play(t, l.Stage, exitDone, owner, "me", "ls", "--json")).Fields {
		if f.Pending {
			out = append(out, f.Field)
		}
	}
	return out
}

// kinds are the kinds of the entries since an index that are not refusals.
func kinds(list []devices.Logged) (out []evidence.Kind) {
	for _, e := range list {
		if e.Entry.Kind != evidence.EntryRefusal {
			out = append(out, e.Entry.Kind)
		}
	}
	return out
}

// TestHostileToOwners is a storefront that lies to owners: whatever it does, the owner's command never says that something is done when
// the vault has not done it, and above all never that a reader is stopped.
func TestHostileToOwners(t *testing.T) {
	t.Parallel()
	l := newLiars(t)
	s := l.Stage
	play(t, s, exitDone, "alice", "me", "init")
	for _, name := range []string{"shop", "bank"} {
		play(t, s, exitDone, name, "biz", "init", "--name", name)
	}
	fields := []string{"own/a", "own/b", "own/c", "own/d", "own/e", "own/f", "own/g", "own/h", "own/i", "own/j", "own/k", "own/l", "own/m", "own/n"}
	for _, f := range fields {
		play(t, s, exitDone, "alice", "me", "set", f, "value of "+f)
	}
	l.introductions(t)
	connect(t, s, "alice", "shop")

	// Receipts of other documents and kinds, for later.
	var receipt, older *evidence.Receipt
	l.front.set(at("POST", api.PathManifests, func(m *message) *answer {
		return rewrite(m, m.pass(), func(r *evidence.Receipt) { c := *r; older = &c })
	}))
	play(t, s, exitDone, "alice", "me", "set", "own/z", "z")
	l.honest()
	play(t, s, exitDone, "alice", append([]string{"me", "grant", "shop", "--yes"}, fields...)...)

	t.Run("receipts", func(t *testing.T) {
		bend := func(change func(*evidence.Receipt)) hook {
			return func(m *message) *answer { return rewrite(m, m.pass(), change) }
		}
		replace := func(r **evidence.Receipt) hook {
			return func(m *message) *answer { b, _ := json.Marshal(*r); return says(200, string(b)) }
		}
		rows := []struct {
			name string
			lie  hook
			exit int
			code policies.Code
			done bool // the vault has it all the same
		}{
			{"kept back", silence, exitUnreachable, policies.CodeUnavailable, false},
			{"kept back, and called done", func(*message) *answer { return says(200, `{}`) }, exitUntrue, "", false},
			{"kept back, and an older receipt shown", replace(&older), exitUntrue, "", false},
			{"passed on, and the receipt kept back", func(m *message) *answer { m.pass(); return nil }, exitUnreachable, policies.CodeUnavailable, true},
			{"passed on, and an older receipt shown", func(m *message) *answer { m.pass(); return replace(&older)(m) }, exitUntrue, "", true},
			{"a refusal that the vault did not make", func(*message) *answer { return refuses(policies.CodeUnavailable, 503) }, exitUnreachable, policies.CodeUnavailable, false},
			{"another document came first, it says", func(*message) *answer { return refuses(policies.CodeChain, 409) }, exitRefused, policies.CodeChain, false},
			{"a receipt of another vault", bend(func(r *evidence.Receipt) { r.Vault[0] ^= 1 }), exitUntrue, "", true},
			{"a receipt of another document", bend(func(r *evidence.Receipt) { r.Document[0] ^= 1 }), exitUntrue, "", true},
			{"another place in the log", bend(func(r *evidence.Receipt) { r.Evidence.Index-- }), exitUntrue, "", true},
			{"a bent entry", bend(func(r *evidence.Receipt) { r.Evidence.Leaf[20] ^= 1 }), exitUntrue, "", true},
			{"other details", bend(func(r *evidence.Receipt) {
				r.Evidence.Opening.Details = bytes.Replace(r.Evidence.Opening.Details, []byte(`"version":`), []byte(`"version":1`), 1)
			}), exitUntrue, "", true},
			{"another salt", bend(func(r *evidence.Receipt) { r.Evidence.Opening.Salt[0] ^= 1 }), exitUntrue, "", true},
			{"no proof", bend(func(r *evidence.Receipt) { r.Evidence.Proof = nil }), exitUntrue, "", true},
			{"a bent proof", bend(func(r *evidence.Receipt) { r.Evidence.Proof[0][3] ^= 1 }), exitUntrue, "", true},
			{"an older checkpoint", bend(func(r *evidence.Receipt) { r.Checkpoint = older.Checkpoint }), exitUntrue, "", true},
			{"a checkpoint with another size", bend(func(r *evidence.Receipt) { r.Checkpoint = strings.Replace(r.Checkpoint, "\n", "\n1", 1) }), exitUntrue, "", true},
			{"a checkpoint without a signature", bend(func(r *evidence.Receipt) { r.Checkpoint, _, _ = strings.Cut(r.Checkpoint, "\u2014") }), exitUntrue, "", true},
		}
		for i, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				defer l.honest()
				f := policies.Field(fields[i%len(fields)])
				from := len(devices.Journal(t, s))
				l.front.set(at("POST", api.PathManifests, row.lie))
				r := l.run(t, "alice", "me", "set", string(f), "value of "+string(f), "--json")
				got := said[refusal](t, r)
				if r.Code != row.exit || got.Error.Code != row.code {
					t.Errorf("exit code %d, want %d\n%s", r.Code, row.exit, r.Stdout)
				}
				if list := l.pending(t, "alice"); !slices.Contains(list, f) {
					t.Errorf("not pending: %v", list)
				}
				if done := slices.Contains(kinds(since(t, s, from)), evidence.EntryManifest); done != row.done {
					t.Errorf("the vault has it: %v, want %v", done, row.done)
				}
				l.honest()
				play(t, s, exitDone, "alice", "me", "sync")
				if list := l.pending(t, "alice"); len(list) != 0 {
					t.Errorf("still pending: %v", list)
				}
				if news := kinds(since(t, s, from)); !slices.Equal(news, []evidence.Kind{evidence.EntryManifest}) {
					t.Errorf("the key-use log got %v", news)
				}
			})
		}
	})

	// A receipt of a revocation of something else, fit for a lie about another one.
	l.front.set(at("POST", api.PathRevocations, func(m *message) *answer {
		return rewrite(m, m.pass(), func(r *evidence.Receipt) { c := *r; receipt = &c })
	}))
	play(t, s, exitDone, "alice", "me", "revoke", "shop", fields[13], "--no-rotate")
	l.honest()

	t.Run("revocations", func(t *testing.T) {
		replace := func(r **evidence.Receipt) hook {
			return func(m *message) *answer { b, _ := json.Marshal(*r); return says(200, string(b)) }
		}
		forged := func(m *message) *answer {
			// The right words, under a log key of one's own.
			e, err := envelope.Parse(submissionOf(t, m.body).Envelope)
			must(t, err)
			c := *receipt
			c.Document = e.Hash
			c.Evidence.Opening.Details = bytes.ReplaceAll(c.Evidence.Opening.Details, []byte(receipt.Document.String()), []byte(c.Document.String()))
			b, _ := json.Marshal(c)
			return says(200, string(b))
		}
		rows := []struct {
			name          string
			front, second hook
		}{
			{"silence", silence, silence},
			{"called done", func(*message) *answer { return says(200, `{}`) }, silence},
			{"called done in words", func(*message) *answer { return says(200, `done`) }, silence},
			{"nothing said", func(*message) *answer { return says(204, ``) }, silence},
			{"the receipt of another revocation", replace(&receipt), replace(&receipt)},
			{"the receipt of a manifest", replace(&older), replace(&older)},
			{"a forged receipt", forged, forged},
			{"called malformed", func(*message) *answer { return refuses(policies.CodeMalformed, 400) }, silence},
			{"called unknown", func(*message) *answer { return refuses(policies.CodeNotFound, 404) }, silence},
			{"called known already", func(*message) *answer { return refuses(policies.CodeExists, 409) }, silence},
			{"called overtaken", func(*message) *answer { return refuses(policies.CodeChain, 409) }, silence},
			{"called revoked", func(*message) *answer { return refuses(policies.CodeRevoked, 403) }, silence},
		}
		for i, row := range rows {
			f := policies.Field(fields[i])
			second := at("POST", vaultapi.PathDocuments, row.second)
			if i%2 == 0 { // the second door does not even say where the chain stands
				second = func(m *message) *answer {
					if m.Method == http.MethodPost {
						return row.second(m)
					}
					return nil
				}
			}
			t.Run(row.name, func(t *testing.T) {
				defer l.honest()
				from := len(devices.Journal(t, s))
				l.front.set(at("POST", api.PathRevocations, row.front))
				l.owners.set(second)
				for range 2 { // said once, it is said until it is true
					r := l.run(t, "alice", "me", "revoke", "shop", string(f), "--no-rotate")
					if r.Code != exitNotStopped || !strings.Contains(r.Stdout, "NOT STOPPED YET") || strings.Contains(r.Stdout, "STOPPED:") {
						t.Fatalf("exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
					}
				}
				r := l.run(t, "alice", "me", "sync")
				if r.Code != exitNotStopped || !strings.Contains(r.Stdout, "NOT STOPPED YET") {
					t.Errorf("sync: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
				}
				if status := l.statuses(t, "alice", "shop")[f]; status != "NOT STOPPED YET" {
					t.Errorf("listed as %q", status)
				}
				if slices.Contains(kinds(since(t, s, from)), evidence.EntryRevocation) {
					t.Error("the vault has it all the same")
				}
				// And so it is: the reader still reads.
				play(t, s, exitDone, "shop", "biz", "read", "alice", string(f))

				// The storefront goes on lying; the second route opens.
				l.owners.set(nil)
				r = l.run(t, "alice", "me", "sync")
				if strings.Contains(r.Stdout, "NOT STOPPED YET") || r.Code == exitNotStopped {
					t.Errorf("over the second route: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
				}
				if got := kinds(since(t, s, from)); !slices.Contains(got, evidence.EntryRevocation) || !slices.Contains(got, evidence.EntryDestroyed) {
					t.Errorf("the key-use log got %v", got)
				}
				l.stopped(t, "shop", f)
				l.honest()
				play(t, s, exitDone, "alice", "me", "sync")
				if status, ok := l.statuses(t, "alice", "shop")[f]; ok {
					t.Errorf("still listed as %q", status)
				}
			})
		}
		t.Run("over the second route at once", func(t *testing.T) {
			defer l.honest()
			f := policies.Field(fields[12])
			l.front.set(at("POST", api.PathRevocations, replace(&receipt)))
			r := play(t, s, exitDone, "alice", "me", "revoke", "shop", string(f), "--no-rotate")
			if !strings.HasPrefix(r.Stdout, "STOPPED:") {
				t.Errorf("%s%s", r.Stdout, r.Stderr)
			}
			l.stopped(t, "shop", f)
		})
	})

	t.Run("late", func(t *testing.T) {
		// The storefront passes a revocation on when nobody waits for it any more.
		defer l.honest()
		f := policies.Field("own/late")
		play(t, s, exitDone, "alice", "me", "set", string(f), "v")
		play(t, s, exitDone, "alice", "me", "grant", "shop", string(f))
		release, passed := make(chan struct{}), make(chan *answer, 8)
		var once sync.Once
		l.front.set(at("POST", api.PathRevocations, func(m *message) *answer {
			held := *m
			held.Request = m.Request.Clone(context.Background())
			once.Do(func() { go func() { <-release; passed <- held.pass() }() })
			return nil
		}))
		l.owners.set(silence)
		if r := l.run(t, "alice", "me", "revoke", "shop", string(f), "--no-rotate"); r.Code != exitNotStopped {
			t.Errorf("held back: exit code %d\n%s", r.Code, r.Stdout)
		}
		play(t, s, exitDone, "shop", "biz", "read", "alice", string(f))
		close(release)
		if a := <-passed; a == nil || a.status != 200 {
			t.Fatalf("passed on late: %+v", a)
		}
		l.stopped(t, "shop", f)
		if status := l.statuses(t, "alice", "shop")[f]; status != "NOT STOPPED YET" {
			t.Errorf("nobody told the owner, and it is listed as %q", status)
		}
		l.honest()
		from := len(devices.Journal(t, s))
		play(t, s, exitDone, "alice", "me", "sync")
		if news := kinds(since(t, s, from)); slices.Contains(news, evidence.EntryRevocation) {
			t.Errorf("revoked twice: %v", news)
		}
	})

	t.Run("the end of writing held back", func(t *testing.T) {
		// Who may read and write is stopped reading, although nobody takes the end of the writing; the command says that something is not stopped yet, and the next one ends that.
		f := policies.Field("own/both")
		play(t, s, exitDone, "alice", "me", "set", string(f), "v")
		play(t, s, exitDone, "alice", "me", "grant", "shop", string(f), "--write")
		play(t, s, exitDone, "shop", "biz", "write", "alice", string(f), "w")
		l.front.set(at("POST", api.PathWriteEnds, silence))
		l.owners.set(silence)
		if r := l.run(t, "alice", "me", "revoke", "shop", string(f), "--no-rotate"); r.Code != exitNotStopped || !strings.Contains(r.Stdout, "NOT STOPPED YET") || strings.Contains(r.Stdout, "can no longer") {
			t.Errorf("it could not end the writing: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		l.stopped(t, "shop", f)
		play(t, s, exitDone, "shop", "biz", "write", "alice", string(f), "x")
		l.honest()
		play(t, s, exitDone, "alice", "me", "sync")
		play(t, s, exitRefused, "shop", "biz", "write", "alice", string(f), "y")
	})

	t.Run("a grant held back", func(t *testing.T) {
		// The storefront keeps a grant, lets the owner revoke, and passes the grant on afterwards.
		for _, before := range []bool{true, false} {
			f := policies.Field("own/held")
			play(t, s, exitDone, "alice", "me", "set", string(f), "v")
			var held []byte
			l.front.set(at("POST", api.PathGrants, func(m *message) *answer { held = bytes.Clone(m.body); return nil }))
			if r := l.run(t, "alice", "me", "grant", "shop", string(f), "--json"); r.Code != exitUnreachable {
				t.Fatalf("exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
			}
			if status := l.statuses(t, "alice", "shop")[f]; status != "pending" {
				t.Errorf("listed as %q", status)
			}
			l.front.set(silence)
			l.owners.set(silence)
			if r := l.run(t, "alice", "me", "revoke", "shop", string(f)); r.Code != exitNotStopped || !strings.Contains(r.Stdout, "NOT STOPPED YET") {
				t.Fatalf("a grant of unknown fate is revoked: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
			}
			l.honest()
			m := newMole(t, s)
			if before {
				// It gets to the vault before the owner does: in force, until the owner's device finds it.
				m.accepted(submissionOf(t, held))
				play(t, s, exitDone, "alice", "me", "sync")
			} else {
				play(t, s, exitDone, "alice", "me", "sync")
				if _, code := m.submit(submissionOf(t, held)); code != policies.CodeChain {
					t.Errorf("a grant held back until it was revoked: %q", string(code))
				}
			}
			if r := l.run(t, "shop", "biz", "read", "alice", string(f), "--json"); r.Code != exitRefused {
				t.Errorf("delivered before the owner's sync (%v): exit code %d\n%s", before, r.Code, r.Stdout)
			}
			if status, ok := l.statuses(t, "alice", "shop")[f]; ok {
				t.Errorf("listed as %q", status)
			}
		}
	})

	t.Run("not rotated", func(t *testing.T) {
		// Stopped is stopped; that the field did not move to a new key is said, and not called done.
		defer l.honest()
		f := policies.Field("own/rotated")
		play(t, s, exitDone, "alice", "me", "set", string(f), "v")
		play(t, s, exitDone, "alice", "me", "grant", "shop", string(f))
		l.front.set(at("POST", api.PathManifests, silence))
		type done struct {
			Stopped bool  `json:"stopped"`
			Rotated *bool `json:"rotated"`
		}
		r := play(t, s, exitDone, "alice", "me", "revoke", "shop", string(f), "--json")
		if d := said[done](t, r); !d.Stopped || d.Rotated == nil || *d.Rotated {
			t.Errorf("%s%s", r.Stdout, r.Stderr)
		}
		l.stopped(t, "shop", f)
		epoch := func() uint64 {
			for _, raw := range openState(t, s, "alice").Leaves {
				leaf, err := policies.ParseLeaf(raw)
				must(t, err)
				if leaf.Field == f {
					return leaf.Epoch
				}
			}
			return 0
		}
		before := epoch()
		l.honest()
		play(t, s, exitDone, "alice", "me", "sync")
		if now := epoch(); now != before+1 {
			t.Errorf("the field is in epoch %d after epoch %d", now, before)
		}
	})

	t.Run("chains", func(t *testing.T) {
		// What the storefront shows a second device of the owner's own chain and mirror.
		backup := s.Dir() + "/alice.backup"
		play(t, s, exitDone, "alice", "me", "backup", backup)
		documents := func(change func(*api.Chain)) hook {
			return at("GET", api.PathChain, func(m *message) *answer { return rewrite(m, m.pass(), change) })
		}
		mirror := func(change func(*api.Mirror)) hook {
			return at("GET", api.PathMirror, func(m *message) *answer { return rewrite(m, m.pass(), change) })
		}
		rows := []struct {
			name string
			lie  hook
			exit int
		}{
			// A gap looks the same as what a storefront has that lost a document, or was passed by: the vault has what is lacking, and is asked for it.
			{"the end cut off", documents(func(c *api.Chain) { c.Documents, c.More = c.Documents[:len(c.Documents)-1], false }), exitDone},
			{"one left out", documents(func(c *api.Chain) { c.Documents = slices.Delete(c.Documents, 2, 3) }), exitDone},
			{"two swapped", documents(func(c *api.Chain) { c.Documents[1], c.Documents[2] = c.Documents[2], c.Documents[1] }), exitDone},
			{"one bent", documents(func(c *api.Chain) { c.Documents[1] = bendSignature(c.Documents[1]) }), exitUntrue},
			{"one that is none", documents(func(c *api.Chain) { c.Documents[1] = jsontext.Value(`{}`) }), exitUntrue},
			{"a leaf left out", mirror(func(m *api.Mirror) { m.Leaves = m.Leaves[1:] }), exitUntrue},
			{"a bent leaf", mirror(func(m *api.Mirror) { m.Leaves[0][60] ^= 1 }), exitUntrue},
			{"another ciphertext", at("GET", api.PathItem, func(m *message) *answer {
				a := m.pass()
				a.body[len(a.body)-1] ^= 1
				return a
			}), exitUntrue},
		}
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				defer l.honest()
				device := l.twin("alice")
				clean(t, s, device)
				l.front.set(row.lie)
				if r := l.run(t, device, "me", "restore", backup, "--json"); r.Code != row.exit {
					t.Errorf("exit code %d, want %d\n%s%s", r.Code, row.exit, r.Stdout, r.Stderr)
				}
				l.honest()
				play(t, s, exitDone, device, "me", "sync")
				if r := play(t, s, exitDone, device, "me", "get", fields[0]); strings.TrimSpace(r.Stdout) != "value of "+fields[0] {
					t.Errorf("honest afterwards: %s", r.Stdout)
				}
			})
		}
	})

	t.Run("history", func(t *testing.T) {
		pages := func(change func(*vaultapi.History)) hook {
			return at("GET", api.PathHistory, func(m *message) *answer { return rewrite(m, m.pass(), change) })
		}
		for name, lie := range map[string]hook{
			"a bent entry":               pages(func(h *vaultapi.History) { h.Entries[0].Leaf[9] ^= 1 }),
			"other details":              pages(func(h *vaultapi.History) { h.Entries[0].Opening = h.Entries[1].Opening }),
			"another order":              pages(func(h *vaultapi.History) { slices.Reverse(h.Entries) }),
			"an entry twice":             pages(func(h *vaultapi.History) { h.Entries[1] = h.Entries[0] }),
			"an unsigned checkpoint":     pages(func(h *vaultapi.History) { h.Checkpoint, _, _ = strings.Cut(h.Checkpoint, "\u2014") }),
			"an older signed checkpoint": pages(func(h *vaultapi.History) { h.Checkpoint = older.Checkpoint }),
		} {
			l.front.set(lie)
			if r := l.run(t, "alice", "me", "history", "--json"); r.Code != exitUntrue {
				t.Errorf("%s: exit code %d\n%s", name, r.Code, r.Stdout)
			}
			l.honest()
		}
		play(t, s, exitDone, "alice", "me", "history")
	})
}

// stopped demands that a reader is refused, and that nobody asks the token about it.
func (l *liars) stopped(t *testing.T, reader string, f policies.Field) {
	t.Helper()
	before := derives(t, l.Stage)
	r := l.run(t, reader, "biz", "read", "alice", string(f), "--json")
	got := said[values](t, r)
	if r.Code != exitRefused || len(got.Values) != 1 || got.Values[0].Error.Code != policies.CodeRevoked {
		t.Errorf("a read after the revocation: exit code %d\n%s", r.Code, r.Stdout)
	}
	if n := derives(t, l.Stage) - before; n != 0 {
		t.Errorf("%d derives after the revocation", n)
	}
}

// introductions: who the storefront says somebody is, and which vault is the real one.
func (l *liars) introductions(t *testing.T) {
	s := l.Stage
	defer l.honest()
	ids := map[string]string{}
	for _, name := range []string{"shop", "bank"} {
		text := code(t, s, name, "biz")
		c, err := links.ParseContact(text)
		must(t, err)
		ids[name] = c.ID.String()
	}
	mine := code(t, s, "alice", "me")
	contact, err := links.ParseContact(mine)
	must(t, err)
	swapIdentity := at("GET", api.PathIdentity, func(m *message) *answer {
		m.URL.Path = strings.ReplaceAll(api.PathIdentity, "{id}", ids["bank"])
		return m.pass()
	})
	t.Run("another identity to the reader", func(t *testing.T) {
		defer l.honest()
		l.front.set(swapIdentity)
		if r := l.run(t, "shop", "biz", "connect", mine, "--as", "alice", "--json"); r.Code != exitUntrue {
			t.Errorf("exit code %d\n%s", r.Code, r.Stdout)
		}
	})
	t.Run("another identity to the owner", func(t *testing.T) {
		defer l.honest()
		l.front.set(swapIdentity)
		if r := l.run(t, "alice", "me", "connect", code(t, s, "shop", "biz"), "--as", "shop", "--json"); r.Code != exitUntrue {
			t.Errorf("exit code %d\n%s", r.Code, r.Stdout)
		}
	})
	t.Run("another reader's key", func(t *testing.T) {
		defer l.honest()
		play(t, s, exitDone, "shop", "biz", "connect", mine, "--as", "alice")
		bank := openState(t, s, "bank")
		root, err := pre.ParseRoot(bank.Root)
		must(t, err)
		seed := root.IdentitySeed()
		shop, err := policies.ParseID[struct{}](ids["shop"])
		must(t, err)
		doc := newMole(t, s).doc
		sign := func(change func(*policies.Relationship)) jsontext.Value {
			d := &policies.Relationship{
				Header: policies.NewHeader("relationship", time.Now()), Audience: doc.Vault, Reader: policies.ReaderID(shop), Owner: policies.OwnerID(contact.ID),
				KEMKey: root.ReaderKey(policies.OwnerID(contact.ID), contact.Nonce).Public(), Nonce: contact.Nonce,
			}
			change(d)
			e, err := policies.Sign(envelope.NewPrivateKey(&seed), d)
			must(t, err)
			return e.Raw
		}
		var real jsontext.Value
		for name, lie := range map[string]func(*api.Envelopes){
			"signed by the bank in the shop's name": func(e *api.Envelopes) {
				e.Envelopes = []jsontext.Value{sign(func(*policies.Relationship) {})}
			},
			"the bank's own": func(e *api.Envelopes) {
				id, _ := policies.ParseID[struct{}](ids["bank"])
				e.Envelopes = []jsontext.Value{sign(func(d *policies.Relationship) { d.Reader = policies.ReaderID(id) })}
			},
			"the shop's, bent": func(e *api.Envelopes) { real = e.Envelopes[0]; e.Envelopes = []jsontext.Value{bendSignature(real)} },
			"none":             func(e *api.Envelopes) { e.Envelopes = nil },
		} {
			l.front.set(at("GET", api.PathRelationships, func(m *message) *answer { return rewrite(m, m.pass(), lie) }))
			if r := l.run(t, "alice", "me", "connect", code(t, s, "shop", "biz"), "--as", "shop", "--json"); r.Code != exitError {
				t.Errorf("%s: exit code %d\n%s", name, r.Code, r.Stdout)
			}
			l.honest()
			if r := play(t, s, exitDone, "alice", "me", "contacts"); strings.Contains(r.Stdout, "shop") {
				t.Errorf("%s: it is a contact now: %s", name, r.Stdout)
			}
		}
	})
	t.Run("another vault", func(t *testing.T) {
		defer l.honest()
		m := newMole(t, s)
		var seed [envelope.SeedSize]byte
		seed[0] = 9
		ceremony := envelope.NewPrivateKey(&seed)
		sign := func(change func(*policies.VaultDocument)) []byte {
			d := *m.doc
			d.CeremonyKey = ceremony.Public().Bytes()
			change(&d)
			e, err := policies.Sign(ceremony, &d)
			must(t, err)
			return e.Raw
		}
		genuine, err := m.vault.Vault(t.Context())
		must(t, err)
		for name, raw := range map[string][]byte{
			"of another ceremony":                    sign(func(d *policies.VaultDocument) { d.Version++ }),
			"with the real ceremony's key named":     sign(func(d *policies.VaultDocument) { d.CeremonyKey = m.doc.CeremonyKey }),
			"with an import key of the storefront's": sign(func(d *policies.VaultDocument) { d.ImportHPKE = pre.NewBlobKey([32]byte{5}).Public() }),
			"with a session key of the storefront's": sign(func(d *policies.VaultDocument) { d.SessionKEM = pre.NewVaultKey([32]byte{5}).Public() }),
			"of another vault":                       sign(func(d *policies.VaultDocument) { d.Vault[0] ^= 1 }),
			"bent":                                   bendSignature(genuine.Raw),
			"none":                                   []byte(`{}`),
		} {
			lie := at("GET", api.PathVault, func(*message) *answer { return says(200, string(raw)) })
			l.front.set(lie)
			l.owners.set(lie)
			if r := l.run(t, "alice", "me", "sync", "--json"); r.Code != exitUntrue {
				t.Errorf("%s, shown to an owner: exit code %d\n%s%s", name, r.Code, r.Stdout, r.Stderr)
			}
			l.copies++
			if r := l.run(t, fmt.Sprintf("new-%d", l.copies), "biz", "init", "--name", "new", "--json"); r.Code != exitUntrue {
				t.Errorf("%s, shown to a new reader: exit code %d\n%s%s", name, r.Code, r.Stdout, r.Stderr)
			}
			// The vault itself has the real one, and that is taken.
			l.owners.set(nil)
			play(t, s, exitDone, "alice", "me", "sync")
		}
	})
}

func submissionOf(t *testing.T, body []byte) (s vaultapi.Submission) {
	t.Helper()
	must(t, json.Unmarshal(body, &s))
	if len(s.Envelope) == 0 {
		t.Fatal(errors.New("no envelope in what the client sent"))
	}
	return s
}
