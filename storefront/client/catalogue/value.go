package catalogue

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/deposit"
	"github.com/sallyport/sallyport/policies/envelope"
)

// Format is the version of the encoding of values.
const Format = 1

// Value is what is inside an item. Its encoding is strict JSON: {"v":1,"type":"text","text":"..."}.
type Value struct {
	Format int                 `json:"v"`
	Type   Type                `json:"type"`
	Text   string              `json:"text,omitzero"`  // text, uri, date, raw
	List   []string            `json:"list,omitzero"`  // list
	Parts  map[string][]string `json:"parts,omitzero"` // parts
	Card   *Origin             `json:"vcard,omitzero"` // of a value that came from a vCard

	attested []byte // the encoding with the source's attestation, as it was parsed
}

// Origin is what a vCard says about a value besides the value, kept so that an export says it again.
type Origin struct {
	Group  string              `json:"group,omitzero"`
	Params map[string][]string `json:"params,omitzero"` // names in upper case
}

// New makes the value of a field from a text a person wrote. For a field with parts the text is "part=value" pairs,
// separated by newlines, or one line without a part's name, which goes into the most telling part; for a list, one entry a line.
func New(f policies.Field, text string) (*Value, error) {
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("%w: %s: the value is not UTF-8 text", policies.ErrMalformed, f)
	}
	e, ok := Lookup(f)
	if !ok {
		e.Type = Text
	}
	v := &Value{Format: Format, Type: e.Type}
	switch e.Type {
	case List:
		v.List = lines(text)
	case Parts:
		v.Parts = map[string][]string{}
		for _, line := range lines(text) {
			part, rest, ok := strings.Cut(line, "=")
			if !ok || !slices.Contains(e.Parts, part) {
				if ok && !strings.ContainsAny(part, " ,") {
					return nil, fmt.Errorf("%w: %s has the parts %s, not %q", policies.ErrMalformed, f, strings.Join(e.Parts, ", "), part)
				}
				part, rest = mainPart(e), line
			}
			v.Parts[part] = append(v.Parts[part], rest)
		}
	case Date:
		if !slices.ContainsFunc(dates, func(form string) bool { _, err := time.Parse(form, text); return err == nil }) {
			return nil, fmt.Errorf("%s: %w", f, ErrDate)
		}
		v.Text = text
	default:
		v.Text = text
	}
	if f == "bank.iban" {
		if v.Text = iban(text); v.Text == "" {
			return nil, fmt.Errorf("%s: %w", f, ErrIBAN)
		}
	}
	return v, v.Validate()
}

// What a person mistypes, and nobody finds out before it is needed.
var (
	ErrDate = fmt.Errorf("%w: a date is written as 1985-04-12, or --04-12 without a year", policies.ErrMalformed)
	ErrIBAN = fmt.Errorf("%w: the check digits of the IBAN do not fit; it is mistyped, or another kind of number", policies.ErrMalformed)
)

// dates are the forms of RFC 6350 section 4.3.1 that people write, as package time writes them. Years as RFC 3339 has them, of four digits.
var dates = []string{"2006-01-02", "20060102", "--01-02", "--0102", "2006-01", "2006"}

// iban is the electronic form (ISO 13616: no spaces, capitals) of an IBAN whose check digits fit (ISO 7064, MOD 97-10), else empty.
func iban(text string) string {
	text = strings.ToUpper(strings.Join(strings.Fields(text), ""))
	if len(text) < 15 || len(text) > 34 || !isIn(text[:2], 'A', 'Z') || !isIn(text[2:4], '0', '9') {
		return ""
	}
	remainder := 0
	for _, c := range []byte(text[4:] + text[:4]) {
		switch {
		case '0' <= c && c <= '9':
			remainder = (remainder*10 + int(c-'0')) % 97
		case 'A' <= c && c <= 'Z':
			remainder = (remainder*100 + int(c-'A') + 10) % 97
		default:
			return ""
		}
	}
	if remainder != 1 {
		return ""
	}
	return text
}

func isIn(text string, from, to rune) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c < from || c > to })
}

// mainPart is where a line without a part's name goes.
func mainPart(e Entry) string {
	for _, p := range []string{"street", "family"} {
		if slices.Contains(e.Parts, p) {
			return p
		}
	}
	return e.Parts[len(e.Parts)-1]
}

func lines(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// Validate checks the form.
func (v *Value) Validate() error {
	bad := func(what string) error { return fmt.Errorf("%w: value: %s", policies.ErrMalformed, what) }
	if v.Format != Format {
		return bad(fmt.Sprintf("format %d is not known, only %d", v.Format, Format))
	}
	switch v.Type {
	case Text, URI, Date, Raw:
		if v.List != nil || v.Parts != nil {
			return bad("a text has neither list nor parts")
		}
	case List:
		if v.Text != "" || v.Parts != nil {
			return bad("a list has neither text nor parts")
		}
	case Parts:
		if v.Text != "" || v.List != nil {
			return bad("parts come without text and list")
		}
		for name := range v.Parts {
			if err := policies.Field(name).Validate(); err != nil {
				return fmt.Errorf("value: part: %w", err)
			}
		}
	default:
		return bad(fmt.Sprintf("type %q is not known", v.Type))
	}
	return nil
}

// Bytes is the encoding. Equal values encode alike, so that an import can see what did not change.
func (v *Value) Bytes() ([]byte, error) {
	if err := v.Validate(); err != nil {
		return nil, err
	}
	if v.attested != nil {
		return bytes.Clone(v.attested), nil
	}
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encoding a value: %w", err)
	}
	if len(b) > policies.MaxValue {
		return nil, fmt.Errorf("%w: the value has %d bytes, at most %d are allowed", policies.CodeTooLarge, len(b), policies.MaxValue)
	}
	return b, nil
}

// Parse reads an encoded value strictly.
//
// What a source attested (package deposit) is read as the value that it is; Bytes gives back both.
func Parse(data []byte) (*Value, error) {
	if plain, _, err := deposit.Unwrap(data); err == nil {
		v, err := parse(plain)
		if err != nil {
			return nil, fmt.Errorf("attested: %w", err)
		}
		v.attested = bytes.Clone(data)
		return v, nil
	}
	return parse(data)
}

func parse(data []byte) (*Value, error) {
	v := new(Value)
	if err := envelope.Decode(data, v); err != nil {
		return nil, fmt.Errorf("value: %w", err)
	}
	return v, v.Validate()
}

// String is the value as a person reads it: a text as it is, a list one entry a line, parts as "part=value" lines. [New]
// accepts what it gives.
func (v *Value) String() string {
	switch v.Type {
	case List:
		return strings.Join(v.List, "\n")
	case Parts:
		var out []string
		for _, name := range partOrder(v.Parts) {
			for _, text := range v.Parts[name] {
				out = append(out, name+"="+text)
			}
		}
		return strings.Join(out, "\n")
	default:
		return v.Text
	}
}

// partOrder puts known parts into the order of the table, others behind them.
func partOrder(parts map[string][]string) []string {
	names := slices.Sorted(maps.Keys(parts))
	rank := func(name string) int {
		for i, known := range [][]string{nameParts, addressParts, {"sex", "identity"}} {
			if j := slices.Index(known, name); j >= 0 {
				return i*16 + j
			}
		}
		return 1 << 10
	}
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	return names
}
