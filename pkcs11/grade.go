package pkcs11

import (
	"fmt"
	"slices"
	"strings"
)

// A Grade is what the full probe found, in one letter.
type Grade string

const (
	// GradeA: every attack was refused, in both custodies.
	GradeA Grade = "A"
	// GradeB: every attack was refused in custody resident. In custody sealed one was not, or none could be tried.
	GradeB Grade = "B"
	// GradeC: a host that has the user's PIN can take a key out.
	GradeC Grade = "C"
	// GradeU: the token cannot do the work.
	GradeU Grade = "U"
	// Unproven: no full probe ran.
	Unproven Grade = "unproven"
)

// grades from the best to the worst.
var grades = []Grade{GradeA, GradeB, Unproven, GradeC, GradeU}

// Below tells whether g is worse than least. A grade that is none of the five
// is below all of them.
func (g Grade) Below(least Grade) bool {
	i := slices.Index(grades, g)
	return i < 0 || i > slices.Index(grades, least)
}

// Known tells whether g is one of the five.
func (g Grade) Known() bool { return slices.Contains(grades, g) }

// A Verdict is how an attack ended.
type Verdict string

const (
	// Refused: the token did not do it.
	Refused Verdict = "refused"
	// Succeeded: it did.
	Succeeded Verdict = "SUCCEEDED"
	// NotPossible: it has no mechanism for it.
	NotPossible Verdict = "not possible here"
)

// An Attack is one thing that a host with the user's PIN tries.
type Attack struct {
	// Name says of which key and custody, and what: it is the same on every token.
	Name string `json:"name"`
	// Tries is what it tries, and to what end.
	Tries   string  `json:"tries"`
	Custody Custody `json:"custody"`
	// Attribute is the one that must refuse it; empty where it is no attribute's work.
	Attribute string  `json:"attribute,omitempty"`
	Verdict   Verdict `json:"verdict"`
	// CKR is the module's return value; zero if it was not the module that refused.
	CKR uint64 `json:"ckr,omitzero"`
	// Harmless: that it succeeds gives no key away, but people should know it.
	Harmless bool `json:"harmless,omitzero"`
}

// An Effect is what a finding does to the grade.
type Effect string

const (
	// Extracts: a key of the finding's custody can be taken out, or what must prevent it is not kept.
	Extracts Effect = "extracts"
	// Unusable: the token cannot do the work of the finding's custody.
	Unusable Effect = "unusable"
	// Untried: custody sealed could not be tried.
	Untried Effect = "untried"
	// ToKnow: no effect.
	ToKnow Effect = "to know"
)

// A Finding is something that the full probe found and that is not as it should
// be, or that people should know.
type Finding struct {
	Effect  Effect  `json:"effect"`
	Custody Custody `json:"custody,omitempty"` // empty: both
	// Key and Attribute name what is at fault, where it is an attribute of a key.
	Key       KeyName `json:"key,omitempty"`
	Attribute string  `json:"attribute,omitempty"`
	// Says is the finding in a sentence.
	Says string `json:"says"`
}

// An Assessment is what the full probe found.
type Assessment struct {
	Grade Grade `json:"grade"`
	// Why is the grade in a sentence.
	Why      string    `json:"why"`
	Token    Info      `json:"token"`
	Findings []Finding `json:"findings"`
	Attacks  []Attack  `json:"attacks"`
	// Left is every difference between the token before and after, in a sentence each. It must be empty.
	Left []string `json:"left"`
	// Calls counts the calls of each C_ function.
	Calls map[string]uint64 `json:"calls,omitempty"`
}

// Count counts the attacks with a verdict.
func (a *Assessment) Count(v Verdict) (n int) {
	for _, x := range a.Attacks {
		if x.Verdict == v {
			n++
		}
	}
	return n
}

// conclude makes findings of the attacks that succeeded, and the grade of the
// findings.
func (a *Assessment) conclude() {
	for _, x := range a.Attacks {
		if x.Verdict != Succeeded {
			continue
		}
		f := Finding{Effect: Extracts, Custody: x.Custody, Attribute: x.Attribute, Says: fmt.Sprintf("%s: the token let it happen. The host can %s.", x.Name, x.Tries)}
		if x.Harmless {
			f.Effect = ToKnow
			f.Says = fmt.Sprintf("%s: the host can %s.", x.Name, x.Tries)
		}
		a.Findings = append(a.Findings, f)
	}
	a.Grade, a.Why = conclusion(a.Findings)
}

// conclusion is the whole rule of grades.
func conclusion(findings []Finding) (Grade, string) {
	is := func(c Custody, effects ...Effect) []string {
		var keys []string
		for _, f := range findings {
			if (f.Custody == "" || f.Custody == c) && slices.Contains(effects, f.Effect) {
				keys = append(keys, f.Says)
			}
		}
		return keys
	}
	if bad := is(Resident, Unusable, Untried); len(bad) > 0 {
		return GradeU, "The token cannot do a vault's work: " + first(bad)
	}
	if bad := is(Resident, Extracts); len(bad) > 0 {
		return GradeC, "A host that has the user's PIN is not kept from the keys in custody resident: " + first(bad)
	}
	if bad := is(Sealed, Extracts); len(bad) > 0 {
		return GradeB, "Every attack was refused in custody resident, but a host that has the user's PIN is not kept from the keys in custody sealed: " + first(bad)
	}
	if bad := is(Sealed, Unusable, Untried); len(bad) > 0 {
		return GradeB, "Every attack was refused in custody resident; custody sealed is not proved: " + first(bad)
	}
	return GradeA, "Every attack of a host that has the user's PIN was refused, in both custodies."
}

// first is the first of some sentences, and how many there are besides.
func first(sentences []string) string {
	if n := len(sentences) - 1; n > 0 {
		return fmt.Sprintf("%s (And %d more.)", sentences[0], n)
	}
	return strings.TrimSpace(sentences[0])
}
