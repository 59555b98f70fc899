package export

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bradleyjkemp/sigma-go"
	"github.com/bradleyjkemp/sigma-go/evaluator"
	"gopkg.in/yaml.v3"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/audit"
)

// A correlation is the part of Sigma's correlation rules that the rules here use: at least so many events of one rule, with the same value of one field, in a time.
// sigma-go, which evaluates the rules themselves, knows no correlations.
type correlation struct {
	Title       string
	Correlation struct {
		Type      string
		Rules     []string
		GroupBy   []string `yaml:"group-by"`
		Timespan  time.Duration
		Condition struct{ Gte int }
	}
}

// alerts are the titles of the rules that fire on events, without those that only feed a correlation.
func alerts(t *testing.T, events []map[string]any) (fired []string) {
	t.Helper()
	files := must(filepath.Glob("sigma/*.yml"))
	if len(files) != 7 {
		t.Fatalf("%d files of rules", len(files))
	}
	for _, file := range files {
		matched := map[string][]map[string]any{} // by the rule's name
		d := yaml.NewDecoder(bytes.NewReader(must(os.ReadFile(file))))
		for {
			var node yaml.Node
			if err := d.Decode(&node); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			var c correlation
			if err := node.Decode(&c); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if c.Correlation.Type != "" {
				if correlated(t, c, matched) {
					fired = append(fired, c.Title)
				}
				continue
			}
			rule, err := sigma.ParseRule(must(yaml.Marshal(&node)))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if rule.Logsource.Product != "sallyport" || rule.Logsource.Service != "key-use" || rule.ID == "" || rule.Level == "" {
				t.Errorf("%s: %q has another log source, or no id or level", file, rule.Title)
			}
			e := evaluator.ForRule(rule)
			for _, event := range events {
				result, err := e.Matches(t.Context(), event)
				if err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				if !result.Match {
					continue
				}
				if name, feeds := rule.AdditionalFields["name"].(string); feeds {
					matched[name] = append(matched[name], event)
				} else if !slices.Contains(fired, rule.Title) {
					fired = append(fired, rule.Title)
				}
			}
		}
	}
	slices.Sort(fired)
	return fired
}

func correlated(t *testing.T, c correlation, matched map[string][]map[string]any) bool {
	t.Helper()
	if k := c.Correlation; k.Type != "event_count" || len(k.Rules) != 1 || len(k.GroupBy) != 1 || k.Timespan == 0 || k.Condition.Gte == 0 {
		t.Fatalf("a correlation that this does not evaluate: %+v", c)
	}
	times := map[any][]time.Time{}
	for _, e := range matched[c.Correlation.Rules[0]] {
		by := e[c.Correlation.GroupBy[0]]
		at := append(times[by], must(time.Parse(time.RFC3339, e["time"].(string))))
		times[by] = at
		if n := c.Correlation.Condition.Gte; len(at) >= n && at[len(at)-1].Sub(at[len(at)-n]) <= c.Correlation.Timespan {
			return true
		}
	}
	return false
}

// TestSigma: each rule fires on a log with what it is for, alone, and none on a log that is innocent.
func TestSigma(t *testing.T) {
	type scene struct {
		l           *testLog
		owner, acme *person
		grant       policies.DocumentID
	}
	refusal := func(s scene, by *person, n int) {
		for range n {
			s.l.add(evidence.Entry{Kind: evidence.EntryRefusal, Reader: by.pseudo, Outcome: policies.CodeNoGrant}, evidence.Details{Reader: by.reader(), Field: "iban", Request: policies.Hash{6}}, nil)
		}
	}
	refuse := func(code policies.Code) func(scene) {
		return func(s scene) {
			s.l.add(evidence.Entry{Kind: evidence.EntryRefusals}, evidence.Details{Count: 2, Note: string(code) + " 2"}, nil)
		}
	}
	for name, c := range map[string]struct {
		do   func(scene)
		want string
	}{
		"innocent": {func(scene) {}, ""},
		"a use after a revocation": {func(s scene) {
			s.l.revoke(s.owner, policies.RevokedItem{Grant: s.grant, Field: "phone.mobile", Author: s.owner.author()})
			s.l.use(s.owner, s.acme, s.grant, "phone.mobile", nil)
		}, "Sallyport: use after revocation"},
		"a refusal after a revocation": {func(s scene) {
			s.l.revoke(s.owner, policies.RevokedItem{Grant: s.grant, Field: "phone.mobile", Author: s.owner.author()})
			s.l.use(s.owner, s.acme, s.grant, "phone.mobile", func(e *evidence.Entry, _ *evidence.Details) {
				e.Kind, e.Outcome = evidence.EntryRefusal, policies.CodeRevoked
			})
		}, ""},
		"a burst": {func(s scene) { s.l.grow(len(s.l.leaves)+1000, s.owner, s.acme, s.grant) }, "Sallyport: burst of reads by one business"},
		"as many reads in more time": {func(s scene) {
			s.l.grow(len(s.l.leaves)+600, s.owner, s.acme, s.grant)
			s.l.at = s.l.at.Add(10 * time.Minute)
			s.l.grow(len(s.l.leaves)+600, s.owner, s.acme, s.grant)
		}, ""},
		"refusals":                {func(s scene) { refusal(s, s.acme, 20) }, "Sallyport: many refusals of one business"},
		"as many refusals of two": {func(s scene) { refusal(s, s.acme, 15); refusal(s, s.owner, 15) }, ""},
		"refusals that are counted": {func(s scene) {
			s.l.add(evidence.Entry{Kind: evidence.EntryRefusals, Reader: s.acme.pseudo}, evidence.Details{Count: 400, Note: "no_grant 400"}, nil)
		}, "Sallyport: many refusals of one business, counted by the vault"},
		"counted refusals of nobody": {func(s scene) {
			s.l.add(evidence.Entry{Kind: evidence.EntryRefusals}, evidence.Details{Count: 400, Note: "bad_signature 400"}, nil)
		}, ""},
		"another grade": {func(s scene) { s.l.vaultStart("B") }, "Sallyport: token grade changed"},
		"another token": {func(s scene) {
			s.l.add(evidence.Entry{Kind: evidence.EntryStart}, evidence.Details{Token: "token-2", Grade: "B"}, nil)
		}, ""},
		"other guardrails": {func(s scene) {
			s.l.add(evidence.Entry{Kind: evidence.EntryGuardrails, Outcome: policies.CodeAccepted}, evidence.Details{Document: policies.Hash{7}, Count: 1, Note: "no-iban"}, nil)
		}, "Sallyport: guardrails changed"},
		"a use under guardrails": {func(s scene) {
			s.l.use(s.owner, s.acme, s.grant, "phone.mobile", func(_ *evidence.Entry, d *evidence.Details) { d.Rules = policies.Hash{7} })
		}, ""},
		"a clock step": {func(s scene) {
			s.l.use(s.owner, s.acme, s.grant, "phone.mobile", func(_ *evidence.Entry, d *evidence.Details) { d.Decided += 6000 })
		}, "Sallyport: clock step"},
		"refused because of the clock": {refuse("clock_stepped"), "Sallyport: clock step"},
		"refused for another reason":   {refuse(policies.CodeSession), ""},
		"a slow disk": {func(s scene) {
			s.l.use(s.owner, s.acme, s.grant, "phone.mobile", func(_ *evidence.Entry, d *evidence.Details) { d.Decided -= 4000 })
		}, ""},
	} {
		l, owner, acme, _, grants := innocent(t)
		c.do(scene{l, owner, acme, grants[0]})
		if got := strings.Join(alerts(t, objects(t, l.exported(t, JSONL, true))), "; "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	// A log that is not in order, as the export says it, and as the verifier does.
	l, _, _, _, _ := innocent(t)
	l.publish(len(l.leaves))
	if err := os.Remove(l.path(audit.EntriesPath(0, len(l.leaves)))); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := l.exporter(JSONL, Pipe{&b}).Run(t.Context()); !errors.Is(err, audit.ErrDamaged) {
		t.Fatal(err)
	}
	verifier := func(verified bool) []map[string]any {
		return []map[string]any{{"verified": verified, "pinned": true, "size": 3.0}}
	}
	for name, c := range map[string]struct {
		events []map[string]any
		want   string
	}{
		"exported": {objects(t, b.Bytes()), "Sallyport: gap or signature fault of the log"}, "verified": {verifier(false), "Sallyport: gap or signature fault of the log"}, "in order": {verifier(true), ""},
	} {
		if got := strings.Join(alerts(t, c.events), "; "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
