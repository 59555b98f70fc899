package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/tests/stage"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// provenRows is what `biz read --evidence --json` prints.
type provenRows struct {
	Values []provenRow `json:"values"`
}

type provenRow struct {
	Field    policies.Field `json:"field"`
	Text     string         `json:"text"`
	Index    uint64         `json:"log_index"`
	Evidence *struct {
		Checkpoint string `json:"checkpoint"`
		evidence.Evidence
	} `json:"evidence"`
	Error *struct {
		Code policies.Code `json:"code"`
		Text string        `json:"text"`
	} `json:"error"`
}

// events is what `history --json` prints.
type events struct {
	History []struct {
		Index   uint64         `json:"index"`
		Kind    evidence.Kind  `json:"kind"`
		Outcome policies.Code  `json:"outcome"`
		Alias   string         `json:"alias"`
		Field   policies.Field `json:"field"`
		Text    string         `json:"text"`
	} `json:"history"`
}

// vaultDocument is the vault document that a reader's profile trusts.
func vaultDocument(t *testing.T, s *stage.Stage, reader string) *policies.VaultDocument {
	t.Helper()
	r, done := openReader(t, s, reader)
	defer done()
	v, err := r.Vault(t.Context())
	must(t, err)
	return v
}

// TestReadsWithEvidence: a business demands proof of what it reads, keeps it, and sees its own history; whatever a storefront makes of that, a value that is not proven is not
// printed.
func TestReadsWithEvidence(t *testing.T) {
	t.Parallel()
	l := newLiars(t)
	s := l.Stage
	play(t, s, exitDone, "alice", "me", "init")
	for _, name := range []string{"shop", "bank"} {
		play(t, s, exitDone, name, "biz", "init", "--name", name)
	}
	play(t, s, exitDone, "alice", "me", "set", "own/note", "the note")
	play(t, s, exitDone, "alice", "me", "set", "own/name", "the name")
	connect(t, s, "alice", "shop")
	connect(t, s, "alice", "bank")
	play(t, s, exitDone, "alice", "me", "grant", "shop", "own/note", "own/name")
	play(t, s, exitDone, "alice", "me", "grant", "bank", "own/note")

	// A group is of what this customer granted, and who reads has no fields of its own.
	if r := play(t, s, exitRefused, "bank", "biz", "read", "alice", "postal"); !strings.Contains(r.Stderr, `granted nothing of the group "postal"`) {
		t.Errorf("a group of which nothing is granted: %s", r.Stderr)
	}

	// With proof, in text and as JSON. What is printed is proof for anybody who has the vault document.
	if r := play(t, s, exitDone, "shop", "biz", "read", "alice", "own/note", "--evidence"); r.Stdout != "the note\n" || !strings.Contains(r.Stderr, "Proven to be in the key-use log of") {
		t.Errorf("%q, %q", r.Stdout, r.Stderr)
	}
	document := vaultDocument(t, s, "shop")
	got := said[provenRows](t, play(t, s, exitDone, "shop", "biz", "read", "alice", "--evidence", "--json")).Values
	if len(got) != 2 {
		t.Fatalf("%+v", got)
	}
	for _, row := range got {
		if row.Evidence == nil || row.Evidence.Index != row.Index || row.Text == "" {
			t.Fatalf("%+v, %+v", row, row.Error)
		}
		c, err := evidence.OpenCheckpoint(row.Evidence.Checkpoint, document.LogKey)
		must(t, err)
		_, entry, d, err := row.Evidence.Verify(c)
		if err != nil || entry.Kind != evidence.EntryUse || entry.Outcome != policies.CodeReleased || d.Field != row.Field {
			t.Errorf("%+v, %+v, %v", entry, d, err)
		}
	}
	if plain := said[provenRows](t, play(t, s, exitDone, "shop", "biz", "read", "alice", "own/note", "--json")).Values[0]; plain.Evidence != nil || plain.Text == "" {
		t.Errorf("proof that was not demanded: %+v", plain)
	}
	mixed := said[provenRows](t, play(t, s, exitRefused, "bank", "biz", "read", "alice", "own/note", "own/name", "--evidence", "--json")).Values
	slices.SortFunc(mixed, func(a, b provenRow) int { return -strings.Compare(string(a.Field), string(b.Field)) }) // own/note first
	if mixed[0].Evidence == nil || mixed[1].Error == nil || mixed[1].Error.Code != policies.CodeNoGrant || mixed[1].Evidence != nil {
		t.Errorf("%+v", mixed)
	}

	// Its own history, from the vault that has it in memory and from one that was killed and read its log again.
	want := []string{"You read own/note of alice, version 1.", "You read own/name of alice, version 2.", "alice allowed you to read.", "You opened a session.", "You registered with the vault."}
	history := func(reader string, args ...string) (indexes []uint64, texts []string) {
		t.Helper()
		for _, e := range said[events](t, play(t, s, exitDone, reader, append([]string{"biz", "history", "--json"}, args...)...)).History {
			if e.Kind != evidence.EntryAccess && e.Kind != evidence.EntrySession { // every command makes a session of its own
				indexes = append(indexes, e.Index)
			}
			texts = append(texts, e.Text)
		}
		return indexes, texts
	}
	before, texts := history("shop")
	for _, text := range want {
		if !slices.Contains(texts, text) {
			t.Errorf("the history has no %q: %q", text, texts)
		}
	}
	if r := play(t, s, exitDone, "shop", "biz", "history", "--limit", "3"); strings.Count(r.Stdout, "\n") != 4 || !strings.Contains(r.Stdout, "Each of these 3 entries is proven") {
		t.Errorf("%q", r.Stdout)
	}
	if _, texts := history("shop", "--field", "own/name", "--owner", "alice"); !slices.Equal(texts, want[1:2]) {
		t.Errorf("one field: %q", texts)
	}
	if _, texts := history("shop", "--since", "2999-01-01"); len(texts) != 0 {
		t.Errorf("since a day to come: %q", texts)
	}
	theirs, _ := history("bank")
	for _, index := range theirs {
		if slices.Contains(before, index) {
			t.Errorf("entry %d is in two businesses' histories", index)
		}
	}
	s.Vault.Kill()
	must(t, s.Vault.Start(t.Context()))
	if after, _ := history("shop"); !slices.Equal(after, before) {
		t.Errorf("after a restart: entries %d, before %d", after, before)
	}
	for _, args := range [][]string{{"--since", "yesterday"}, {"--limit", "0"}} {
		play(t, s, 2, "shop", append([]string{"biz", "history"}, args...)...)
	}

	// The storefront lies. Where the vault's own door answers, it does no harm.
	var recorded atomic.Pointer[[]byte]
	l.front.set(at("POST", api.PathEvidence, func(m *message) *answer {
		a := m.pass()
		if a != nil {
			body := bytes.Clone(a.body)
			recorded.Store(&body)
		}
		return a
	}))
	play(t, s, exitDone, "bank", "biz", "read", "alice", "own/note", "--evidence")
	others := recorded.Load()
	play(t, s, exitDone, "shop", "biz", "read", "alice", "own/note", "--evidence")
	older := recorded.Load()
	if others == nil || older == nil || others == older {
		t.Fatal("no evidence went through the proxy")
	}
	for name, c := range map[string]struct {
		lie  hook
		exit int // when the vault's own door is silent too
	}{
		"another reader's evidence": {func(*message) *answer { return says(200, string(*others)) }, exitUntrue},
		"an old answer":             {func(*message) *answer { return says(200, string(*older)) }, exitUntrue},
		"an answer that is no more": {func(*message) *answer { return says(200, `{"answer":""}`) }, exitUntrue},
		"not found":                 {func(*message) *answer { return refuses(policies.CodeNotFound, 404) }, exitUntrue},
		"silence":                   {silence, exitUnreachable},
		"a flipped bit": {func(m *message) *answer {
			return rewrite(m, m.pass(), func(e *vaultapi.SealedEvidence) { e.Answer[40] ^= 1 })
		}, exitUntrue},
		"a request that comes twice": {func(m *message) *answer { m.pass(); return m.pass() }, exitUntrue},
	} {
		t.Run(name, func(t *testing.T) {
			l.front.set(at("POST", api.PathEvidence, c.lie))
			l.owners.set(silence)
			if r := l.run(t, "shop", "biz", "read", "alice", "own/note", "--evidence"); r.Code != c.exit || strings.Contains(r.Stdout, "the note") || !strings.Contains(r.Stderr, "does not prove it") {
				t.Errorf("exit %d, want %d: %q, %q", r.Code, c.exit, r.Stdout, r.Stderr)
			}
			l.owners.set(nil)
			if r := l.run(t, "shop", "biz", "read", "alice", "own/note", "--evidence"); r.Code != exitDone || r.Stdout != "the note\n" {
				t.Errorf("past the storefront: exit %d: %q, %q", r.Code, r.Stdout, r.Stderr)
			}
		})
	}
	l.honest()
	// Without demanding proof nothing changed for anybody.
	play(t, s, exitDone, "shop", "biz", "read", "alice", "own/note")
}

// TestCheckpointCommands: what a device keeps of the log is printed, compared with others', and refused when it is not of this log.
func TestCheckpointCommands(t *testing.T) {
	t.Parallel()
	l := newLiars(t)
	s := l.Stage
	play(t, s, exitDone, "alice", "me", "init")
	play(t, s, exitDone, "shop", "biz", "init", "--name", "shop")
	document := vaultDocument(t, s, "shop")
	dir := t.TempDir()
	kept := func(profile, role string) (file string, size uint64) {
		t.Helper()
		r := play(t, s, exitDone, profile, role, "checkpoint")
		c, err := evidence.OpenCheckpoint(r.Stdout, document.LogKey)
		must(t, err)
		file = filepath.Join(dir, profile)
		must(t, os.WriteFile(file, []byte(r.Stdout), 0o600))
		return file, c.Size
	}
	old, before := kept("alice", "me")
	was, err := os.ReadFile(old)
	must(t, err)
	play(t, s, exitDone, "alice", "me", "set", "own/note", "note")
	hers, size := kept("alice", "me")
	shops, other := kept("shop", "biz")
	if size <= before || other >= size {
		t.Errorf("sizes %d, then %d; the shop's %d", before, size, other)
	}
	if v := said[struct {
		Size       uint64 `json:"size"`
		Checkpoint string `json:"checkpoint"`
	}](t, play(t, s, exitDone, "alice", "me", "checkpoint", "--json")); v.Size != size || !strings.HasPrefix(v.Checkpoint, document.LogKey.Name+"\n") {
		t.Errorf("%+v", v)
	}
	if r := play(t, s, exitDone, "alice", "me", "checkpoint", "--compare", shops); !strings.Contains(r.Stdout, "They agree") {
		t.Errorf("%q", r.Stdout)
	}
	if v := said[struct {
		Agrees bool   `json:"agrees"`
		Size   uint64 `json:"size"`
	}](t, play(t, s, exitDone, "shop", "biz", "checkpoint", "--compare", hers, "--json")); !v.Agrees || v.Size != size {
		t.Errorf("%+v", v)
	}
	must(t, os.WriteFile(old, was, 0o600))
	play(t, s, exitDone, "shop", "biz", "checkpoint", "--compare", old)

	// What is not of this log, or of nobody.
	stranger := openStage(t, stage.Options{})
	play(t, stranger, exitDone, "eve", "me", "init")
	foreign := play(t, stranger, exitDone, "eve", "me", "checkpoint").Stdout
	hersNow, err := os.ReadFile(hers)
	must(t, err)
	note := string(hersNow)
	for name, text := range map[string]string{
		"of another vault": foreign, "edited": strings.Replace(note, "\n", "x\n", 1), "unsigned": strings.SplitAfter(note, "\n\n")[0], "nothing": "",
		"of another size": strings.Replace(note, "\n", "\n1", 1),
	} {
		file := filepath.Join(dir, "bad")
		must(t, os.WriteFile(file, []byte(text), 0o600))
		if r := play(t, s, exitUntrue, "alice", "me", "checkpoint", "--compare", file); strings.Contains(r.Stdout, "They agree") || strings.Contains(r.Stderr, "two histories") || strings.Contains(r.Stderr, "do not trust this storefront") {
			t.Errorf("%s: %q, %q", name, r.Stdout, r.Stderr)
		}
	}
	play(t, s, exitError, "alice", "me", "checkpoint", "--compare", filepath.Join(dir, "none"))

	// No proof is to be had: nothing is said to agree.
	play(t, s, exitDone, "alice", "me", "set", "own/note", "another note")
	hers, _ = kept("alice", "me")
	l.front.set(at("GET", api.PathConsistency, silence))
	l.owners.set(silence)
	if r := l.run(t, "shop", "biz", "checkpoint", "--compare", hers); r.Code != exitUnreachable || strings.Contains(r.Stdout, "They agree") {
		t.Errorf("without a proof: exit %d: %q", r.Code, r.Stdout)
	}
	// A proof that holds for nothing is a contradiction, signed.
	l.front.set(at("GET", api.PathConsistency, func(m *message) *answer {
		return rewrite(m, m.pass(), func(p *vaultapi.Consistency) { p.Proof = append(p.Proof, policies.Hash{1}) })
	}))
	if r := l.run(t, "shop", "biz", "checkpoint", "--compare", hers); r.Code != exitUntrue || !strings.Contains(r.Stderr, "two histories") {
		t.Errorf("with a wrong proof: exit %d: %q", r.Code, r.Stderr)
	}
	l.honest()
	play(t, s, exitDone, "shop", "biz", "checkpoint", "--compare", hers)
}

// TestVerifyCommand: me verify agrees with an honest log, and names what a storefront leaves out or makes up.
func TestVerifyCommand(t *testing.T) {
	t.Parallel()
	l := newLiars(t)
	s := l.Stage
	play(t, s, exitDone, "alice", "me", "init")
	play(t, s, exitDone, "shop", "biz", "init", "--name", "shop")
	play(t, s, exitDone, "alice", "me", "set", "own/note", "note")
	connect(t, s, "alice", "shop")
	play(t, s, exitDone, "alice", "me", "grant", "shop", "own/note")
	play(t, s, exitDone, "shop", "biz", "read", "alice", "own/note")
	play(t, s, exitDone, "alice", "me", "revoke", "shop", "own/note")
	play(t, s, exitDone, "alice", "me", "grant", "shop", "own/note")
	type verification struct {
		Agrees       bool `json:"agrees"`
		Verification struct {
			Entries int    `json:"entries"`
			Size    uint64 `json:"size"`
			Checks  []struct {
				What  string   `json:"what"`
				Wrong []string `json:"wrong"` // sentences
			} `json:"checks"`
		} `json:"verification"`
	}
	all := said[verification](t, play(t, s, exitDone, "alice", "me", "verify", "--json"))
	v := all.Verification
	if !all.Agrees || v.Entries < 8 || v.Size == 0 || len(v.Checks) != 5 {
		t.Fatalf("%+v", v)
	}
	for _, c := range v.Checks {
		if len(c.Wrong) > 0 {
			t.Errorf("an honest log, %s: %q", c.What, c.Wrong)
		}
	}
	if r := play(t, s, exitDone, "alice", "me", "verify"); !strings.Contains(r.Stdout, "is proven to be in the log") {
		t.Errorf("%q", r.Stdout)
	}

	// An entry of a kind is left out of the history, as a storefront can; the check that misses it names it.
	without := func(kind evidence.Kind) hook {
		return at("GET", api.PathHistory, func(m *message) *answer {
			return rewrite(m, m.pass(), func(h *vaultapi.History) {
				h.Entries = slices.DeleteFunc(h.Entries, func(e evidence.Evidence) bool {
					_, entry, err := evidence.ParseLogLeaf(e.Leaf)
					return err == nil && entry.Kind == kind
				})
			})
		})
	}
	for kind, what := range map[evidence.Kind]string{
		evidence.EntryIdentity: "enrolment", evidence.EntryGrant: "grants", evidence.EntryRevocation: "grants", evidence.EntryManifest: "newest manifest", evidence.EntryDestroyed: "revocations",
	} {
		l.front.set(without(kind))
		r := play(t, s, exitUntrue, "alice", "me", "verify", "--json")
		found, named := said[verification](t, r), false
		if found.Agrees {
			t.Errorf("without %s: it agrees", kind)
		}
		for _, c := range found.Verification.Checks {
			named = named || c.What == what && len(c.Wrong) > 0
		}
		if !named {
			t.Errorf("without %s: %s", kind, r.Stdout)
		}
	}
	// What is made up is refused, and no comparison is shown.
	for name, change := range map[string]func(*vaultapi.History){
		"a flipped leaf":        func(h *vaultapi.History) { h.Entries[0].Leaf[20] ^= 1 },
		"another entry's place": func(h *vaultapi.History) { h.Entries[0].Index-- },
		"details made up":       func(h *vaultapi.History) { h.Entries[0].Opening.Details = []byte(`{}`) },
	} {
		l.front.set(at("GET", api.PathHistory, func(m *message) *answer { return rewrite(m, m.pass(), change) }))
		if r := l.run(t, "alice", "me", "verify"); r.Code != exitUntrue || strings.Contains(r.Stdout, "proven") {
			t.Errorf("%s: exit %d: %q, %q", name, r.Code, r.Stdout, r.Stderr)
		}
	}
	// Where the log grew and no proof of consistency is to be had, nothing is said to agree.
	l.honest()
	play(t, s, exitDone, "shop", "biz", "read", "alice", "own/note")
	l.front.set(func(m *message) *answer {
		if m.is("GET", api.PathConsistency) {
			return nil
		}
		return m.pass()
	})
	l.owners.set(silence)
	if r := l.run(t, "alice", "me", "verify"); r.Code != exitUnreachable || strings.Contains(r.Stdout, "proven") {
		t.Errorf("without consistency: exit %d: %q, %q", r.Code, r.Stdout, r.Stderr)
	}
	l.honest()
	play(t, s, exitDone, "alice", "me", "verify")
}
