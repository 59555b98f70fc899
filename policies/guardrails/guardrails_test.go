package guardrails

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

// monday is 2027-01-18 at 09:30 UTC.
var monday = time.Date(2027, 1, 18, 9, 30, 0, 0, time.UTC)

func facts(change func(*Facts)) *Facts {
	f := &Facts{
		Reader: policies.ReaderID{0xaa}, Owner: policies.OwnerID{0xbb}, Field: "phone.mobile", Author: policies.AuthorID{0xbb}, Token: "0123", Grade: "A", Items: 3, UsedToday: 2,
		Grant: &policies.Grant{Purpose: "delivery", Custody: policies.CustodyResident, NotBefore: monday.Unix() - 86400, Expires: monday.Unix() + 86400},
	}
	if change != nil {
		change(f)
	}
	return f
}

func set(t testing.TB, rules string) *Set {
	t.Helper()
	s, err := Parse(rules)
	if err != nil {
		t.Fatalf("%v, in\n%s", err, rules)
	}
	return s
}

// TestRefusals: every word of the schema, with facts for which a rule refuses and others for which it does not.
func TestRefusals(t *testing.T) {
	owner := policies.OwnerID{0xbb}.String()
	reader := policies.ReaderID{0xaa}.String()
	for _, c := range []struct {
		name, rule string
		not        func(*Facts) // with this the rule does not refuse
		at         time.Duration
	}{
		{"everybody unless vouched for", `forbid (principal, action, resource) unless { principal.vouched };`, func(f *Facts) { f.Vouched = true }, 0},
		{"one reader", `forbid (principal == Reader::"` + reader + `", action, resource);`, func(f *Facts) { f.Reader[1] = 1 }, 0},
		{"one field", `forbid (principal, action == Action::"read", resource == Field::"phone.mobile");`, func(f *Facts) { f.Field = "phone.work" }, 0},
		{"fields below one", `forbid (principal, action, resource in Field::"phone");`, func(f *Facts) { f.Field = "phonebook" }, 0},
		{"fields below two", `forbid (principal, action, resource in Field::"phone.mobile");`, func(f *Facts) { f.Field = "phone" }, 0},
		{"one owner", `forbid (principal, action, resource) when { context.owner == Owner::"` + owner + `" };`, func(f *Facts) { f.Owner[1] = 1 }, 0},
		{"written by others", `forbid (principal, action, resource) unless { context.written };`, func(f *Facts) { f.Author[1] = 1 }, 0},
		{"a purpose", `forbid (principal, action, resource) when { context.purpose like "deliver*" };`, func(f *Facts) { f.Grant.Purpose = "billing" }, 0},
		{"a custody", `forbid (principal, action, resource) unless { context.custody == "sealed" };`, func(f *Facts) { f.Grant.Custody = policies.CustodySealed }, 0},
		{"grades", `forbid (principal, action, resource) when { ["A", "B"].contains(context.grade) };`, func(f *Facts) { f.Grade = "C" }, 0},
		{"a token", `forbid (principal, action, resource) when { context.token == "0123" };`, func(f *Facts) { f.Token = "4567" }, 0},
		{"old grants", `forbid (principal, action, resource) when { context.time.durationSince(context.granted) > duration("12h") };`, func(f *Facts) { f.Grant.NotBefore = monday.Unix() - 3600 }, 0},
		{"grants that are good for long", `forbid (principal, action, resource) when { context.expires > datetime("2027-01-19") };`, func(f *Facts) { f.Grant.Expires = monday.Unix() + 1 }, 0},
		{"many items", `forbid (principal, action, resource) when { context.items > 2 };`, func(f *Facts) { f.Items = 2 }, 0},
		{"many uses", `forbid (principal, action, resource) when { context.used_today >= 2 };`, func(f *Facts) { f.UsedToday = 1 }, 0},
		{"mornings", `forbid (principal, action, resource) when { context.time.toTime() < duration("10h") };`, nil, 30 * time.Minute},
		{"Mondays", `forbid (principal, action, resource) when { context.weekday == 1 };`, nil, 15 * time.Hour},
		{"not Sundays", `forbid (principal, action, resource) unless { context.weekday == 7 };`, nil, 6 * 24 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := set(t, `@id("the-rule") `+c.rule)
			if err := s.Vet(); err != nil {
				t.Errorf("not in the schema: %v", err)
			}
			if got := s.Refusals(facts(nil), monday); !slices.Equal(got, []string{"the-rule"}) {
				t.Errorf("refused by %q", got)
			}
			if timed := c.at != 0 || strings.Contains(c.rule, "time") || strings.Contains(c.rule, "vouched") || strings.Contains(c.rule, "used_today"); s.Timed() != timed {
				t.Errorf("depends on the time: %v", s.Timed())
			}
			if got := s.Refusals(facts(c.not), monday.Add(c.at)); got != nil {
				t.Errorf("refused by %q where it should not be", got)
			}
		})
	}
}

// TestFarTimes: no grant is so long that a rule about its end, or its beginning, takes it for a short one.
func TestFarTimes(t *testing.T) {
	s := set(t, `@id("end") forbid (principal, action, resource) when { context.expires > datetime("2100-01-01") };
		@id("beginning") forbid (principal, action, resource) when { context.granted > datetime("2100-01-01") };
		@id("duration") forbid (principal, action, resource) when { context.expires.durationSince(context.time) > duration("36500d") };`)
	if err := s.Vet(); err != nil {
		t.Fatal(err)
	}
	for _, far := range []int64{253402300798, 253402300799, 253402300800, math.MaxInt64/1000 - 1, math.MaxInt64 / 1000, math.MaxInt64/1000 + 1, 2*(math.MaxInt64/1000) + 1700000000, 1 << 62, math.MaxInt64} {
		got := s.Refusals(facts(func(f *Facts) { f.Grant.NotBefore, f.Grant.Expires = far-1, far }), monday)
		if !slices.Equal(got, s.Names()) {
			t.Errorf("a grant from %d to %d is refused by %q, want all three", far-1, far, got)
		}
	}
}

// TestAllThatRefuse: of several rules those that refuse are named, in the order of the text, whatever the local time of the machine; without rules nothing is refused.
func TestAllThatRefuse(t *testing.T) {
	s := set(t, `
@id("z") forbid (principal, action, resource);
@id("m") forbid (principal, action, resource) when { context.items == 4 };
@id("a") forbid (principal, action, resource) when { context.time.toTime() == duration("9h30m") };`)
	if got := s.Refusals(facts(nil), monday.In(time.FixedZone("", 5*3600))); !slices.Equal(got, []string{"z", "a"}) {
		t.Errorf("refused by %q", got)
	}
	var none *Set
	for _, s := range []*Set{none, set(t, ""), set(t, "// nothing\n")} {
		if got := s.Refusals(facts(nil), monday); got != nil || s.Names() != nil {
			t.Errorf("without rules refused by %q", got)
		}
	}
}

// TestUndecidedRefuses: a rule that Cedar cannot decide, and would pass over, refuses, and hides no other.
func TestUndecidedRefuses(t *testing.T) {
	for _, condition := range []string{
		`9223372036854775807 + context.items > 0`, `9223372036854775807 * context.used_today < 0`, `datetime(context.purpose) > context.time`, `context.purpse == "x"`, `principal.age > 3`,
		`context.items == context.nothing`, `context.purpose > 3`, `resource.owner == principal`, `Field::"x".more`,
	} {
		s := set(t, `@id("one") forbid (principal, action, resource) when { `+condition+` }; @id("two") forbid (principal, action, resource) when { context.items == 3 };`)
		if got := s.Refusals(facts(nil), monday); !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("%s: refused by %q", condition, got)
		}
	}
}

// TestOnlyNarrow: whatever a text says, it permits nothing; what may not be in force is refused with the line, or the rule, and what to do.
func TestOnlyNarrow(t *testing.T) {
	const rule = `forbid (principal, action, resource);`
	many := ""
	for i := range maxNumber + 1 {
		many += fmt.Sprintf("@id(\"r%d\") %s\n", i, rule)
	}
	for name, c := range map[string]struct{ rules, want string }{
		"a permit":                 {"\n@id(\"open\") permit (principal, action, resource);", "line 2 permits"},
		"a permit behind a forbid": {`@id("a") ` + rule + `@id("b") permit (principal, action, resource) when { false };`, "permits"},
		"no name":                  {rule, `@id("...")`},
		"an empty name":            {`@id("") ` + rule, `@id("...")`},
		"a name without a value":   {`@id ` + rule, `@id("...")`},
		"a long name":              {`@id("` + strings.Repeat("n", 65) + `") ` + rule, `@id("...")`},
		"a name with a comma":      {`@id("a, b") ` + rule, `@id("...")`},
		"one name twice":           {`@id("a") ` + rule + ` @id("a") ` + rule, "another one has"},
		"a template":               {`@id("a") forbid (principal == ?principal, action, resource);`, "parser error: at 1:"},
		"no Cedar":                 {`@id("a") deny (principal, action, resource);`, "parser error: at 1:"},
		"half a rule":              {`@id("a") forbid (principal, action`, "parser error: at 1:"},
		"257 rules":                {many, "257 rules"},
		"more than 32 KiB":         {"//" + strings.Repeat("x", MaxRules), "32768"},
		"Windows' line ends":       {"\n" + `@id("a") ` + rule + "\r\n", "line 2"},
		"what nobody sees":         {`@id("a") ` + rule + "\n\n// no\u200b", "line 3"},
		"an inner comment":         {"\n" + `@id("a") ` + rule + " /* @id(\"b\") forbid (principal, action, resource); */", "line 2 has a comment"},
		"five signs":               {`@id("a") forbid (principal, action, resource) when { !! // no` + "\n" + `!!!context.written };`, "line 1 has more than 4 signs"},
		"a star by its number":     {`@id("a") forbid (principal, action, resource) when { context.purpose like "\u{2a}" };`, `the escape \u`},
		"another":                  {`@id("a") forbid (principal, action, resource) when { context.purpose like "\x2a" };`, `the escape \x`},
		"65 has":                   {`@id("a") forbid (principal, action, resource) when { true` + strings.Repeat("\n&& context has items", 65) + ` };`, "line 66 has the 65th has"},
		"has with a dot":           {`@id("a") forbid (principal, action, resource) when { context has owner . name };`, "behind has"},
		"65 deep":                  {`@id("a") forbid (principal, action, resource) when { ` + strings.Repeat("(", 64) + "true" + strings.Repeat(")", 64) + ` };`, "at most 64"},
	} {
		if _, err := Parse(c.rules); !errors.Is(err, policies.ErrMalformed) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := Parse(`@id("a") forbid (principal, action, resource) when { ` + strings.Repeat("(", 63) + "true" + strings.Repeat(")", 63) + ` };`); err != nil {
		t.Errorf("64 deep: %v", err)
	}
	if _, err := Parse(`@id("a") forbid (principal, action, resource) when { !!!!(3 - ---3 == 0) && context.purpose like "/*!!!!!" } unless { context.purpose == "\\*" }; // !!!!! /*`); err != nil {
		t.Errorf("signs in texts and comments: %v", err)
	}
	for name, c := range map[string]struct{ rules, want string }{
		"a word written wrongly":        {`when { context.purpse == "x" }`, "purpse"},
		"a text compared with a number": {`when { context.purpose > 3 }`, "odd-one"},
		"an attribute that is not":      {`when { principal.age > 3 }`, "age"},
		"a kind of thing that is not":   {`when { principal == Person::"x" }`, "Person"},
		"it is of no such kind":         {`unless { context.written && [!(resource is Feild)].contains(true) }`, "Feild"},
		"a decimal with a plus":         {`when { decimal("+1.0") == decimal("1.0") }`, "+1.0"},
		"nor in something":              {`when { resource is Feild in Field::"phone" }`, "Feild"},
	} {
		s := set(t, `@id("good") `+rule+` @id("odd-one") forbid (principal, action, resource) `+c.rules+`;`)
		if err := s.Vet(); !errors.Is(err, policies.ErrMalformed) || !strings.Contains(fmt.Sprint(err), c.want) || !strings.Contains(fmt.Sprint(err), `rule "odd-one"`) || strings.Contains(fmt.Sprint(err), `"good"`) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for _, scope := range []string{`principal, action == Action::"write", resource`, `principal is Owner, action, resource`, `principal, action, resource is Reader`} {
		if err := set(t, `@id("a") forbid (`+scope+`);`).Vet(); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: %v", scope, err)
		}
	}
}

// TestLongTexts: the longest texts of their kind end the parser, the check against the schema and the decision, whatever they are.
func TestLongTexts(t *testing.T) {
	fill := func(head, part, tail string) string {
		return head + strings.Repeat(part, (MaxRules-len(head)-len(tail))/len(part)) + tail
	}
	const head = `@id("a") forbid (principal, action, resource) when { `
	distinct := func(n int) (all string) {
		for i := range n {
			all += fmt.Sprintf("&&{a%d:1}has a%d", i, i)
		}
		return head + "true" + all + " };"
	}
	for name, rules := range map[string]string{
		"has another each time, as often as may be": distinct(maxHas), "has another each time": distinct(1500),
		"and":         fill(head+"true", " && true", " };"),
		"or":          fill(head+"false", "||false", " };"),
		"plus":        fill(head+"context.items == 0", "+1", " };"),
		"conditions":  fill(head+"if true then ", "if true then ", "true };"),
		"otherwise":   fill(head, "if false then true else ", "true };"),
		"members":     fill(head+"context", ".items", " };"),
		"calls":       fill(head+"context.time", ".toDate()", " == context.time };"),
		"not":         fill(head, "!", "true };"),
		"minus":       fill(head+"3 == ", "-", "3 };"),
		"has":         fill(head+"true", "&&context has items", " };"),
		"has a chain": fill(head+"context has owner", ".owner", " };"),
		"has tags":    fill(head+"true", "&&principal.hasTag(context.purpose)", " };"),
		"clauses":     fill(`@id("a") forbid (principal, action, resource) `, "when{true} ", ";"),
		"notes":       fill("", `@a("") `, `@id("a") forbid (principal, action, resource);`),
		"a set":       fill(head+"[", "1,", "2].contains(context.items) };"),
		"two sets":    fill(head+"["+strings.Repeat("1,", MaxRules/4)+"2].containsAny([", "3,", "4]) };"),
		"stars":       fill(head+`context.purpose like "`, "*a", `" };`),
		"strings":     fill(head+`context.purpose == "`, "a", `" };`),
		"words":       fill(head, "if", " };"),
		"comment":     fill("", "/", "\n"),
		"nothing":     strings.Repeat(" ", MaxRules),
		"quotes":      strings.Repeat(`"`, MaxRules),
		"escapes":     fill(head+`context.purpose == "`, `\u{61}`, `" };`),
	} {
		began := time.Now()
		s, err := Parse(rules)
		if err != nil {
			if !errors.Is(err, policies.ErrMalformed) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		s.Vet()
		s.Refusals(facts(func(f *Facts) { f.Grant.Purpose = strings.Repeat("a", 200) }), monday)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: %s", name, took.Round(time.Millisecond))
		}
	}
}

// TestDocument: the ceremony key signs for one vault; rules are text that people see.
func TestDocument(t *testing.T) {
	ceremony := envelope.NewPrivateKey(&[envelope.SeedSize]byte{7})
	v := &policies.VaultDocument{Vault: policies.VaultID{9}, CeremonyKey: ceremony.Public().Bytes()}
	make := func(key *envelope.PrivateKey, change func(*Document)) *envelope.Envelope {
		d := &Document{Header: policies.NewHeader(docType, monday), Audience: v.Vault, Serial: 7, Rules: "@id(\"a\")\n\tforbid (principal, action, resource);\n"}
		if change != nil {
			change(d)
		}
		e, err := envelope.Seal(key, d) // as it is, whether it is in order or not
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if d, err := Open(make(ceremony, nil), v); err != nil || d.Serial != 7 {
		t.Fatal(err)
	}
	if _, err := Open(make(ceremony, func(d *Document) { d.Rules = "" }), v); err != nil {
		t.Errorf("without rules: %v", err)
	}
	for name, c := range map[string]struct {
		key    *envelope.PrivateKey
		change func(*Document)
		want   error
	}{
		"by somebody else":       {envelope.NewPrivateKey(&[envelope.SeedSize]byte{8}), nil, policies.CodeRules},
		"for another vault":      {ceremony, func(d *Document) { d.Audience[0] = 1 }, policies.CodeWrongVault},
		"for no vault":           {ceremony, func(d *Document) { d.Audience = policies.VaultID{} }, policies.ErrMalformed},
		"without serial number":  {ceremony, func(d *Document) { d.Serial = 0 }, policies.ErrMalformed},
		"of another type":        {ceremony, func(d *Document) { d.Type = "voucher" }, policies.ErrMalformed},
		"too long":               {ceremony, func(d *Document) { d.Rules = strings.Repeat("x", MaxRules+1) }, policies.ErrMalformed},
		"a carriage return":      {ceremony, func(d *Document) { d.Rules = "// a\r" }, policies.ErrMalformed},
		"written backwards":      {ceremony, func(d *Document) { d.Rules = "// \u202e" }, policies.ErrMalformed},
		"with an invisible join": {ceremony, func(d *Document) { d.Rules = "// \u200b" }, policies.ErrMalformed},
	} {
		if _, err := Open(make(c.key, c.change), v); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestExample: the rules that the operators' handbook shows are in order.
func TestExample(t *testing.T) {
	text, err := os.ReadFile("../../hardware/guardrails.cedar")
	if err != nil {
		t.Fatal(err)
	}
	s := set(t, string(text))
	if err := s.Vet(); err != nil || len(s.Names()) == 0 {
		t.Errorf("%d rules, %v", len(s.Names()), err)
	}
}

// FuzzParse: no text brings the parser, the check and the decision down; what is parsed is decided the same way twice, and only by its own rules.
func FuzzParse(f *testing.F) {
	f.Add(`@id("a") forbid (principal, action, resource) unless { principal.vouched && context.items < 3 };`)
	f.Add(`@id("a") forbid (principal in Reader::"x", action, resource is Field in Field::"phone") when { [1, {"a": "\n"}.a].contains(context.purpose) };`)
	f.Add(`@id("n") forbid(principal,action,resource)when{context.time.toTime()<duration("8h")}unless{context has token&&ip("::1").isLoopback()};// x`)
	f.Fuzz(func(t *testing.T, rules string) {
		s, err := Parse(rules)
		if err != nil {
			if !errors.Is(err, policies.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		s.Vet()
		first := s.Refusals(facts(nil), monday)
		if second := s.Refusals(facts(nil), monday); !slices.Equal(first, second) {
			t.Fatalf("%q, then %q", first, second)
		}
		for _, name := range first {
			if !slices.Contains(s.Names(), name) {
				t.Fatalf("refused by %q, which is no rule", name)
			}
		}
	})
}

func BenchmarkRefusals(b *testing.B) {
	s, err := Parse(`
@id("unvouched") forbid (principal, action, resource) unless { principal.vouched };
@id("nights") forbid (principal, action, resource == Field::"iban") when { context.time.toTime() < duration("6h") };
@id("bulk") forbid (principal, action, resource) when { context.items > 50 };`)
	if err != nil {
		b.Fatal(err)
	}
	f := facts(func(f *Facts) { f.Vouched = true })
	for b.Loop() {
		if s.Refusals(f, monday) != nil {
			b.Fatal("refused")
		}
	}
}
