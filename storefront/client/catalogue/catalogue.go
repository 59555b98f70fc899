// Package catalogue says what people's fields are called, what is in them, and how they come from a vCard and go back into one.
//
// A field has a name such as "phone.mobile", from a table that is versioned and only grows ([Entries], [Version]). A person
// may have several of a kind: the second is "phone.mobile.2". What the table does not have, a person names themselves, under "own/";
// properties of a vCard that the table does not know are kept under "vcard/", so that an export loses nothing. Fields that are
// usually needed together form groups ("contact", "postal"), which a person can grant in one word.
//
// What is inside an item is a [Value]: strict JSON that names its format and type, so that a reader written in another year
// and language knows whether it holds a text, a date or an address of seven parts.
//
// The normal path: [Import] turns a card into named values, [Value.Bytes] is what goes into an item, [Parse] is what a
// reader does with an opened item, [Export] makes a card again. Refused: names outside the table ([Check]), values of
// an unknown format, cards older than version 3.0, more than one card at once.
//
// The package knows no network, no key and no file.
package catalogue

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/policies"
)

// Version is the version of the table. A new one may add names; none is ever removed or changes its meaning.
const Version = 1

// ErrUnknownField: the name is neither in the table nor under "own/" or "vcard/".
var ErrUnknownField = errors.New("unknown field")

// Prefixes of names that are not in the table.
const (
	// OwnPrefix begins the names of fields that a person made up.
	OwnPrefix = "own/"
	// CardPrefix begins the names of properties of an imported vCard that the table does not know.
	CardPrefix = "vcard/"
)

// Type is what a value is.
type Type string

// The types.
const (
	Text  Type = "text"  // any text
	URI   Type = "uri"   // RFC 3986
	Date  Type = "date"  // RFC 6350 section 4.3, such as 1985-04-12, 19850412 or --0412
	List  Type = "list"  // several texts
	Parts Type = "parts" // named parts, each a list of texts
	Raw   Type = "raw"   // a vCard property's value as it stood
)

// Entry is one row of the table.
type Entry struct {
	Name     policies.Field // what it is called is in package phrases
	Type     Type
	Parts    []string // of a value with parts, in the order of the vCard property's components
	Groups   []string
	Property string // of RFC 6350; empty: not in a vCard
	Kind     string // TYPE that tells this row from others of the same property; empty: any
	Since    int    // version of the table
}

var (
	nameParts    = []string{"family", "given", "additional", "prefix", "suffix"}
	addressParts = []string{"pobox", "extended", "street", "locality", "region", "code", "country"}
)

// entries is the table. For a property, the first row whose kind is among the TYPE parameters takes it; a row without kind
// takes what is left.
var entries = []Entry{
	{"name.full", Text, nil, []string{"contact", "postal", "delivery", "payment"}, "FN", "", 1},
	{"name", Parts, nameParts, []string{"contact", "postal", "delivery"}, "N", "", 1},
	{"name.nick", List, nil, nil, "NICKNAME", "", 1},
	{"phone.mobile", Text, nil, []string{"contact", "delivery"}, "TEL", "cell", 1},
	{"phone.fax", Text, nil, nil, "TEL", "fax", 1},
	{"phone.pager", Text, nil, nil, "TEL", "pager", 1},
	{"phone.work", Text, nil, []string{"contact"}, "TEL", "work", 1},
	{"phone.home", Text, nil, []string{"contact"}, "TEL", "home", 1},
	{"phone.other", Text, nil, []string{"contact"}, "TEL", "", 1},
	{"email.work", Text, nil, []string{"contact"}, "EMAIL", "work", 1},
	{"email.home", Text, nil, []string{"contact", "delivery"}, "EMAIL", "home", 1},
	{"email.other", Text, nil, []string{"contact"}, "EMAIL", "", 1},
	{"address.work", Parts, addressParts, []string{"postal"}, "ADR", "work", 1},
	{"address.home", Parts, addressParts, []string{"postal", "delivery"}, "ADR", "home", 1},
	{"address.other", Parts, addressParts, []string{"postal"}, "ADR", "", 1},
	{"birthday", Date, nil, []string{"person"}, "BDAY", "", 1},
	{"anniversary", Date, nil, nil, "ANNIVERSARY", "", 1},
	{"gender", Parts, []string{"sex", "identity"}, []string{"person"}, "GENDER", "", 1},
	{"language", Text, nil, []string{"contact"}, "LANG", "", 1},
	{"timezone", Text, nil, nil, "TZ", "", 1},
	{"location", URI, nil, nil, "GEO", "", 1},
	{"organization", List, nil, []string{"work"}, "ORG", "", 1},
	{"job.title", Text, nil, []string{"work"}, "TITLE", "", 1},
	{"job.role", Text, nil, []string{"work"}, "ROLE", "", 1},
	{"url.work", URI, nil, nil, "URL", "work", 1},
	{"url.home", URI, nil, nil, "URL", "home", 1},
	{"url.other", URI, nil, nil, "URL", "", 1},
	{"messenger", URI, nil, nil, "IMPP", "", 1},
	{"related", URI, nil, nil, "RELATED", "", 1},
	{"photo", URI, nil, nil, "PHOTO", "", 1},
	{"categories", List, nil, nil, "CATEGORIES", "", 1},
	{"note", Text, nil, nil, "NOTE", "", 1},
	{"bank.iban", Text, nil, []string{"payment"}, "", "", 1},
	{"bank.bic", Text, nil, []string{"payment"}, "", "", 1},
	{"bank.holder", Text, nil, []string{"payment"}, "", "", 1},
	{"tax.id", Text, nil, nil, "", "", 1},
	{"tax.vat", Text, nil, nil, "", "", 1},
	{"id.passport", Text, nil, nil, "", "", 1},
	{"id.card", Text, nil, nil, "", "", 1},
	{"insurance.health", Text, nil, nil, "", "", 1},
}

// Entries is the table, in its order. The caller may change the copy.
func Entries() []Entry { return slices.Clone(entries) }

// Base is the name without the number of a second, third, ... of its kind: "phone.mobile" for "phone.mobile.2".
func Base(f policies.Field) policies.Field {
	base, _ := split(f)
	return base
}

// split takes the number off a name; the first of a kind has number 1 and no suffix.
func split(f policies.Field) (policies.Field, int) {
	i := strings.LastIndexByte(string(f), '.')
	if i < 0 {
		return f, 1
	}
	n, err := strconv.Atoi(string(f[i+1:]))
	if err != nil || n < 2 || strconv.Itoa(n) != string(f[i+1:]) {
		return f, 1
	}
	return f[:i], n
}

// numbered is the inverse of split.
func numbered(base policies.Field, n int) policies.Field {
	if n == 1 {
		return base
	}
	return base + policies.Field("."+strconv.Itoa(n))
}

// Lookup finds the row of a field, also of a second one of its kind. Fields outside the table have none.
func Lookup(f policies.Field) (Entry, bool) {
	base := Base(f)
	for _, e := range entries {
		if e.Name == base {
			return e, true
		}
	}
	return Entry{}, false
}

// Check refuses a name that is neither in the table nor under a prefix for others.
func Check(f policies.Field) error {
	if err := f.Validate(); err != nil {
		return err
	}
	for _, prefix := range []string{OwnPrefix, CardPrefix} {
		if rest, ok := strings.CutPrefix(string(f), prefix); ok && rest != "" {
			return nil
		}
	}
	if _, ok := Lookup(f); !ok {
		return fmt.Errorf("%w %q: `sallyport me fields` lists those there are; a field of your own begins with %q", ErrUnknownField, string(f), OwnPrefix)
	}
	return nil
}

// Groups names the groups, in alphabetical order.
func Groups() []string {
	var out []string
	for _, e := range entries {
		out = append(out, e.Groups...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Expand replaces each group by those fields of have that belong to it, and checks that every other word is a
// field. The result is sorted and has nothing twice. A group of which there is no field is an error, since nobody means nothing.
func Expand(words []string, have []policies.Field) ([]policies.Field, error) {
	var out []policies.Field
	groups := Groups()
	for _, w := range words {
		if !slices.Contains(groups, w) {
			if err := Check(policies.Field(w)); err != nil {
				return nil, err
			}
			out = append(out, policies.Field(w))
			continue
		}
		before := len(out)
		for _, f := range have {
			if e, ok := Lookup(f); ok && slices.Contains(e.Groups, w) {
				out = append(out, f)
			}
		}
		if len(out) == before {
			return nil, fmt.Errorf("%w: there is none of the group %q yet", ErrUnknownField, w)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
