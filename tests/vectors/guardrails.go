package vectors

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/guardrails"
)

// guardrailFiles are the operator's rules: their document, and what they refuse. What is expected of the rules was written by hand.
func guardrailFiles() []File {
	ceremony := newSigner("ceremony")
	aud := policies.VaultID(vaultID)
	rules := "// no names\n@id(\"no-name\")\n\tforbid (principal, action, resource == Field::\"name\");\n"
	document := documentFile("guardrails", "all rules by which the vault refuses what owners granted: signed by the ceremony key.",
		guardrails.Document{Header: header("guardrails"), Audience: aud, Serial: 7, Rules: rules}, composite(ceremony, "guardrails"),
		[3]string{"no vault", quoted("aud", vaultID), zeroed("aud")},
		[3]string{"serial number 0", `"serial":7`, `"serial":0`},
		[3]string{"a carriage return", `// no names\n`, `// no names\r\n`},
		[3]string{"a text that runs backwards", `// no names`, "// \u202eno names"},
		[3]string{"a space that nobody sees", `// no names`, "// no\u200bnames"},
		[3]string{"32,769 bytes", `// no names`, `//` + strings.Repeat("x", guardrails.MaxRules-len(rules)+len("// no names")-1)})
	for _, c := range [][2]string{{"none", ""}, {"what is no rule is a document all the same", "x"}, {"32,768 bytes", strings.Repeat("x", guardrails.MaxRules)}} {
		d := guardrails.Document{Header: header("guardrails"), Audience: aud, Serial: 8, Rules: c[1]}
		document.add(c[0], "payload", "ok", map[string]any{"type": "guardrails", "payload": string(payloadOf(d))}, map[string]any{})
	}

	f := File{Name: "guardrails.json",
		What: "What the operator's rules refuse, and which rules may not be in force. Rules are Cedar (docs.cedarpolicy.com), in the words of policies/guardrails/guardrails.cedarschema.",
		Implement: "refusals: the names of the rules that are against a use, in their order, of those that apply and those that cannot be decided. vet: rules that may be in force, else malformed: each forbids, has a name of its own, " +
			"and is valid by the schema."}
	monday := time.Date(2027, 1, 18, 9, 30, 0, 0, time.UTC)
	facts := map[string]any{
		"reader": readerID, "vouched": false, "owner": ownerID, "field": "phone.mobile", "author": ownerID, "purpose": "delivery", "custody": "resident", "token": "0123", "grade": "A",
		"not_before": uint64(monday.Unix() - 86400), "expires": uint64(monday.Unix() + 86400), "items": 3, "used_today": 2, "decided": uint64(monday.UnixMilli()),
	}
	const every = `forbid (principal, action, resource)`
	try := func(name, rules string, refused []string, changes ...any) {
		f.add(name, "refusals", "ok", with(with(facts, "rules", rules), changes...), map[string]any{"refusals": refused})
	}
	one := func(name, rule string, refused bool, changes ...any) {
		out := []string{}
		if refused {
			out = append(out, "rule")
		}
		try(name, `@id("rule") `+rule+`;`, out, changes...)
	}
	hexOf := func(b []byte) string { return fmt.Sprintf("%x", b) }
	try("no rules", "", []string{})
	try("three of four, in their order", `@id("z") `+every+`; @id("not") `+every+` when { false }; @id("m") `+every+` when { context.items == 3 }; @id("a") `+every+`;`, []string{"z", "m", "a"})
	one("the reader", `forbid (principal == Reader::"`+hexOf(readerID)+`", action, resource)`, true)
	one("another reader", `forbid (principal == Reader::"`+hexOf(ownerID)+`", action, resource)`, false)
	one("not vouched for", every+` unless { principal.vouched }`, true)
	one("vouched for", every+` unless { principal.vouched }`, false, "vouched", true)
	one("the action", `forbid (principal, action == Action::"read", resource)`, true)
	one("the field", `forbid (principal, action, resource == Field::"phone.mobile")`, true)
	one("the field above it", `forbid (principal, action, resource in Field::"phone")`, true)
	one("the field above it, as an equal", `forbid (principal, action, resource == Field::"phone")`, false)
	one("a field that begins alike", `forbid (principal, action, resource in Field::"phone")`, false, "field", "phones.mobile")
	one("two above, by a slash and a dot", `forbid (principal, action, resource in Field::"a") when { resource in Field::"a/b" && !(resource in Field::"a/b/") }`, true, "field", "a/b.c")
	one("a field that begins with a dot is in none", every+` when { resource in Field::"" }`, false, "field", ".a")
	one("the owner", every+` when { context.owner == Owner::"`+hexOf(ownerID)+`" }`, true)
	one("written by the owner", every+` when { context.written }`, false)
	one("written by somebody else", every+` when { context.written }`, true, "author", sourceID)
	one("the purpose, with a star", every+` when { context.purpose like "del*y" }`, true)
	one("a star that is one", every+` when { context.purpose like "del\*y" }`, false)
	one("custody, grade and token", every+` unless { context.custody == "sealed" || context.grade != "A" || context.token != "0123" }`, true)
	one("a grant of a day", every+` when { context.time.durationSince(context.granted) >= duration("24h") }`, true)
	one("a grant of a day, a millisecond before", every+` when { context.time.durationSince(context.granted) >= duration("24h") }`, false, "decided", uint64(monday.UnixMilli()-1))
	one("ends tomorrow", every+` when { context.expires == datetime("2027-01-19T09:30:00Z") }`, true)
	one("ends with the year 9999", every+` when { context.expires == datetime("9999-12-31T23:59:59Z") }`, true, "expires", uint64(253402300799))
	one("a second later is no later", every+` when { context.expires == datetime("9999-12-31T23:59:59Z") }`, true, "expires", uint64(253402300800))
	one("never begins and never ends", every+` when { context.granted > datetime("2100-01-01") && context.expires > datetime("2100-01-01") }`, true, "not_before", uint64(1<<62), "expires", uint64(math.MaxInt64))
	one("items", every+` when { context.items > 2 }`, true)
	one("used today", every+` when { context.used_today > 2 }`, false)
	one("the time of day", every+` when { context.time.toTime() < duration("9h30m") }`, false)
	one("the time of day, a millisecond before", every+` when { context.time.toTime() < duration("9h30m") }`, true, "decided", uint64(monday.UnixMilli()-1))
	one("Monday", every+` when { context.weekday == 1 }`, true)
	one("Sunday", every+` when { context.weekday == 7 }`, true, "decided", uint64(monday.UnixMilli()-86_400_000))
	one("Saturday", every+` when { context.weekday == 6 }`, true, "decided", uint64(monday.UnixMilli()-2*86_400_000))
	one("a sum that overflows", every+` when { 9223372036854775807 + context.items > 0 }`, true)
	one("a sum that does not", every+` when { 9223372036854775804 + context.items < 0 }`, false)
	one("a text that is no time", every+` when { datetime(context.purpose) > context.time }`, true)
	one("a member that there is not", every+` when { context has nothing && context.nothing == 1 }`, false)
	one("a member that there is not, asked for all the same", every+` when { context.nothing == 1 }`, true)
	one("what is not looked at is no error", every+` when { false && context.nothing == 1 }`, false)
	try("one that cannot be decided hides none", `@id("a") `+every+` when { context.nothing == 1 }; @id("b") `+every+`;`, []string{"a", "b"})

	vet := func(name, expect, rules string) {
		out := map[string]any{"names": strings.Count(rules, "@id(")}
		if expect != "ok" {
			out = nil
		}
		f.add(name, "vet", expect, map[string]any{"rules": rules}, out)
	}
	vet("two rules", "ok", `@id("one") `+every+`; @id("T.w-o_2") `+every+` unless { principal.vouched };`)
	vet("no rules", "ok", "// nothing\n")
	vet("a permit", "malformed", `@id("a") permit (principal, action, resource);`)
	vet("a permit that never applies", "malformed", `@id("a") permit (principal, action, resource) when { false };`)
	vet("no name", "malformed", every+`;`)
	vet("an empty name", "malformed", `@id("") `+every+`;`)
	vet("a name of 64 characters", "ok", `@id("`+strings.Repeat("n", 64)+`") `+every+`;`)
	vet("a name of 65 characters", "malformed", `@id("`+strings.Repeat("n", 65)+`") `+every+`;`)
	vet("a name with a space", "malformed", `@id("a b") `+every+`;`)
	vet("one name twice", "malformed", `@id("a") `+every+`; @id("a") `+every+`;`)
	vet("no Cedar", "malformed", `deny all`)
	vet("no semicolon", "malformed", `@id("a") `+every)
	vet("a template", "malformed", `@id("a") forbid (principal == ?principal, action, resource);`)
	vet("a member that there is not", "malformed", `@id("a") `+every+` when { context.purpse == "x" };`)
	vet("a text beside a number", "malformed", `@id("a") `+every+` when { context.purpose > 3 };`)
	vet("an action that there is not", "malformed", `@id("a") forbid (principal, action == Action::"write", resource);`)
	vet("a kind of thing that there is not", "malformed", `@id("a") forbid (principal is Person, action, resource);`)
	vet("is of a kind that there is not", "malformed", `@id("a") `+every+` when { resource is Feild in Field::"phone" };`)
	vet("is of a kind that it is not", "ok", `@id("a") `+every+` when { principal is Owner };`)
	vet("a decimal with a plus", "malformed", `@id("a") `+every+` when { decimal("+1.0") == decimal("1.0") };`)
	vet("a comment within a line", "malformed", `@id("a") `+every+` /* when { false } */;`)
	vet("what would be one, in a text and in a comment", "ok", `@id("a") `+every+` when { context.purpose == "/*" }; // /*`)
	vet("four signs", "ok", `@id("a") `+every+` when { !!!!context.written };`)
	vet("five signs", "malformed", `@id("a") `+every+` when { !!!!!context.written };`)
	vet("five signs, a line between them", "malformed", `@id("a") `+every+" when { 1 - -- // two\n--1 == 0 };")
	vet("five signs in a text and in a comment", "ok", `@id("a") `+every+` when { context.purpose == "\"-----" }; // !!!!!`)
	vet("64 has", "ok", `@id("a") `+every+` when { true`+strings.Repeat(" && context has items", 64)+` && context.purpose == "has" };`)
	vet("65 has", "malformed", `@id("a") `+every+` when { true`+strings.Repeat(" && context has items", 64)+` || principal.hasTag("x") };`)
	vet("has with a dot", "malformed", `@id("a") `+every+` when { context has owner.name };`)
	vet("a star by its number", "malformed", `@id("a") `+every+` when { context.purpose like "\u{2a}" };`)
	vet("a letter by its number", "malformed", `@id("a") `+every+` when { context.purpose == "\x41" };`)
	vet("the same in a comment", "malformed", `@id("a") `+every+`; // \x41`)
	vet("256 rules", "ok", numbered(256, every))
	vet("257 rules", "malformed", numbered(257, every))
	return []File{document, f}
}

func numbered(n int, rule string) (all string) {
	for i := range n {
		all += fmt.Sprintf("@id(\"r%d\") %s;\n", i, rule)
	}
	return all
}
