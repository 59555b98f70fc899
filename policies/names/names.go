// Package names is how a business's name is believed, and what a name that is not believed may not look like.
//
// A name in an identity's document is a label that the business chose. It says nothing, and is shown as unverified, until one of two says that it is right:
//
//   - the operator of the vault, by a [Voucher]: signed with the ceremony key, which every client pinned, and an entry of the key-use log;
//   - the owner of a domain, by a [Statement] that lies at a fixed place of that domain's web server ([WellKnown]) and that the identity signed. A person names the
//     domain, which they know from a letter or a shop window, and their own device asks there.
//
// A verified name is of one writing system ([Check]), so that no letter of it is another's in disguise, and no other identity gets a name that looks the same ([Alike]):
// by the confusable letters of Unicode (UTS #39), without regard to case, spaces and punctuation. An accent makes a difference, as it does to the eye.
//
// The package reads no clock and opens nothing.
package names

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/mtibben/confusables"
	"golang.org/x/text/unicode/norm"

	"github.com/sallyport/sallyport/policies"
)

// cjk are the writing systems that are written together, and with Latin letters.
var cjk = [][]string{{"Han", "Hiragana", "Katakana"}, {"Han", "Bopomofo"}, {"Han", "Hangul"}}

// Check refuses a name that must not be verified: one without a letter, or with none that looks like one, one not in the form NFC or with white space at its ends or twice in a row, and one whose letters are of more
// than one writing system, apart from those that are written together (Latin, Han, Hiragana and Katakana, say). This is "highly restrictive" of UTS #39. The error is
// [policies.ErrMalformed].
func Check(name string) error {
	bad := func(what string) error { return fmt.Errorf("%w: a name %s", policies.ErrMalformed, what) }
	switch {
	case !strings.ContainsFunc(name, unicode.IsLetter):
		return bad("has a letter")
	case !slices.ContainsFunc(Keys(name), func(k string) bool { return k != "" }): // nothing that others could be held against
		return bad("has a letter that does not look like punctuation")
	case strings.ContainsFunc(name, invisible):
		return bad("has no characters that nobody sees")
	case !norm.NFC.IsNormalString(name):
		return bad("is in Unicode's form NFC")
	case strings.Join(strings.Fields(name), " ") != name:
		return bad("has single spaces, and none at its ends")
	}
	var scripts []string
	for _, c := range name {
		if s := script(c); s != "" && !slices.Contains(scripts, s) {
			scripts = append(scripts, s)
		}
	}
	if len(scripts) > 1 && !slices.ContainsFunc(cjk, func(set []string) bool {
		return !slices.ContainsFunc(scripts, func(s string) bool { return s != "Latin" && !slices.Contains(set, s) })
	}) {
		slices.Sort(scripts)
		return bad("is in one writing system, not in " + strings.Join(scripts, " and "))
	}
	return nil
}

// invisible reports whether a character has no look of its own.
func invisible(c rune) bool {
	return unicode.In(c, unicode.Cf, unicode.Co, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// script is the writing system of a character, empty for what all have in common.
func script(c rune) string {
	if unicode.In(c, unicode.Common, unicode.Inherited) {
		return ""
	}
	for _, often := range []string{"Latin", "Greek", "Cyrillic", "Han"} {
		if unicode.Is(unicode.Scripts[often], c) {
			return often
		}
	}
	for name, table := range unicode.Scripts {
		if unicode.Is(table, c) {
			return name
		}
	}
	return "Unknown"
}

// Keys are what a name looks like: two names look alike if they have one of their two in common. There are two, because a capital i looks like an l as it stands and is
// an i all the same.
func Keys(name string) []string {
	seen := strings.ToLower(confusables.Skeleton(name))
	said := strings.ToLower(name)
	out := []string{bare(seen), bare(said)}
	if out[0] == out[1] {
		return out[:1]
	}
	return out
}

// bare is the skeleton of a text, without spaces and punctuation.
func bare(s string) string {
	return strings.Map(func(c rune) rune {
		if (unicode.IsLetter(c) || unicode.IsDigit(c) || unicode.IsMark(c)) && !invisible(c) {
			return c
		}
		return -1
	}, strings.ToLower(confusables.Skeleton(s)))
}

// Alike reports whether two names look alike.
func Alike(a, b string) bool {
	other := Keys(b)
	return slices.ContainsFunc(Keys(a), func(k string) bool { return k != "" && slices.Contains(other, k) })
}
