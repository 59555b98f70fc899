package catalogue

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sallyport/sallyport/policies"
)

// ErrCard: the bytes are not one vCard of version 3.0 or 4.0.
var ErrCard = errors.New("not a vCard that can be read")

// MaxCard is the longest vCard that is read, in bytes: photos make them long.
const MaxCard = 16 << 20

// maxLine is the length in bytes at which RFC 6350 section 3.2 wants a line folded.
const maxLine = 75

// property is one content line of RFC 6350 section 3.3. value is as it stands in the card, still escaped.
type property struct {
	group, name string
	params      map[string][]string
	value       string
}

// Import reads one vCard (RFC 6350; version 3.0 of RFC 2426 too). Every property becomes a value: under a name of the table where
// it has one, else under "vcard/" and its own name. Of several of a kind the preferred one comes first, then in the card's order.
func Import(data []byte) (map[policies.Field]*Value, error) {
	properties, err := parseCard(data)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(properties, func(a, b property) int { return preference(a) - preference(b) })
	out := make(map[policies.Field]*Value, len(properties))
	count := map[policies.Field]int{}
	for _, p := range properties {
		e, known := row(p)
		if !known {
			e = Entry{Name: policies.Field(CardPrefix + strings.ToLower(p.name)), Type: Raw}
		}
		if slices.ContainsFunc(p.params["VALUE"], func(v string) bool { return strings.EqualFold(v, "uri") }) && e.Type == Text {
			e.Type = URI
		}
		count[e.Name]++
		name := numbered(e.Name, count[e.Name])
		if err := name.Validate(); err != nil {
			return nil, fmt.Errorf("%w: property %s: %w", ErrCard, p.name, err)
		}
		v := &Value{Format: Format, Type: e.Type}
		switch e.Type {
		case Text:
			v.Text = unescape(p.value)
		case List:
			v.List = splitEscaped(p.value, separator(p.name))
		case Parts:
			v.Parts = map[string][]string{}
			for i, component := range splitRaw(p.value, ';') {
				if texts := splitEscaped(component, ','); i < len(e.Parts) && len(texts) > 0 {
					v.Parts[e.Parts[i]] = texts
				}
			}
		default: // URI, Date, Raw: no escaping is defined for them, or we do not know
			v.Text = p.value
		}
		if p.group != "" || len(p.params) > 0 {
			v.Card = &Origin{Group: p.group, Params: p.params}
		}
		out[name] = v
	}
	return out, nil
}

// Export makes a vCard of version 4.0 of those values that have a place in one, and says which have none. A card must
// have a formatted name (RFC 6350 section 6.2.1): if there is no "name.full", it is put together from "name" or left empty.
func Export(values map[policies.Field]*Value) (card []byte, omitted []policies.Field) {
	var b bytes.Buffer
	line := func(text string) { b.WriteString(fold(text)) }
	line("BEGIN:VCARD")
	line("VERSION:4.0")
	if _, ok := values["name.full"]; !ok {
		full := ""
		if n := values["name"]; n != nil {
			full = strings.Join(slices.Concat(n.Parts["prefix"], n.Parts["given"], n.Parts["additional"], n.Parts["family"], n.Parts["suffix"]), " ")
		}
		line("FN:" + escape(full))
	}
	for _, f := range exportOrder(values) {
		v := values[f]
		name, kind := "", ""
		var parts []string
		if e, ok := Lookup(f); ok {
			name, kind, parts = e.Property, e.Kind, e.Parts
		} else if rest, ok := strings.CutPrefix(string(Base(f)), CardPrefix); ok {
			name = strings.ToUpper(rest)
		}
		if name == "" || !isName(name) {
			omitted = append(omitted, f)
			continue
		}
		p := property{name: name, params: map[string][]string{}}
		if v.Card != nil {
			p.group, p.params = v.Card.Group, v.Card.Params
		} else if kind != "" {
			p.params["TYPE"] = []string{kind}
		}
		switch v.Type {
		case Text:
			p.value = escape(v.Text)
		case List:
			p.value = joinEscaped(v.List, separator(name))
		case Parts:
			components := make([]string, len(parts))
			for i, part := range parts {
				components[i] = joinEscaped(v.Parts[part], ',')
			}
			p.value = strings.Join(components, ";")
		default:
			p.value = strings.Map(dropControl, v.Text)
		}
		line(p.String())
	}
	line("END:VCARD")
	return b.Bytes(), omitted
}

// exportOrder is the order of the table, then by name.
func exportOrder(values map[policies.Field]*Value) []policies.Field {
	rank := func(f policies.Field) int {
		if i := slices.IndexFunc(entries, func(e Entry) bool { return e.Name == Base(f) }); i >= 0 {
			return i
		}
		return len(entries)
	}
	names := slices.Collect(maps.Keys(values))
	slices.SortFunc(names, func(a, b policies.Field) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		baseA, numberA := split(a)
		baseB, numberB := split(b)
		if c := strings.Compare(string(baseA), string(baseB)); c != 0 {
			return c
		}
		return numberA - numberB
	})
	return names
}

// row finds the row of the table for a property.
func row(p property) (Entry, bool) {
	for _, e := range entries {
		if e.Property == p.name && (e.Kind == "" || hasType(p, e.Kind)) {
			return e, true
		}
	}
	return Entry{}, false
}

func hasType(p property, kind string) bool {
	return slices.ContainsFunc(p.params["TYPE"], func(t string) bool {
		return strings.EqualFold(t, kind) || kind == "cell" && strings.EqualFold(t, "iphone")
	})
}

// preference is PREF of RFC 6350 section 5.3, 1 (most) to 100; 101 where it says nothing.
func preference(p property) int {
	n := 101
	if values := p.params["PREF"]; len(values) == 1 {
		_, _ = fmt.Sscanf(values[0], "%d", &n) // what is no number counts as none
	}
	return max(1, min(n, 101))
}

// separator is what parts the entries of a list: components of ORG by ';', all others by ','.
func separator(name string) byte {
	if name == "ORG" {
		return ';'
	}
	return ','
}

// parseCard reads the lines between BEGIN and END, and brings version 3.0 into the form of 4.0.
func parseCard(data []byte) ([]property, error) {
	if len(data) > MaxCard {
		return nil, fmt.Errorf("%w: it has more than %d bytes", ErrCard, MaxCard)
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("%w: it is not UTF-8 text", ErrCard)
	}
	var out []property
	version, state := "", 0 // 0: before BEGIN, 1: inside, 2: after END
	for n, text := range unfold(string(data)) {
		text = strings.Map(dropControl, text) // no line may have them (section 3.3), some cards do
		if strings.TrimSpace(text) == "" {
			continue
		}
		p, err := parseLine(text)
		if err != nil {
			return nil, fmt.Errorf("%w: property %d: %w", ErrCard, n+1, err)
		}
		begins := p.name == "BEGIN" && strings.EqualFold(p.value, "VCARD")
		switch {
		case state == 0 && begins:
			state = 1
		case state == 0:
			return nil, fmt.Errorf("%w: it does not begin with BEGIN:VCARD", ErrCard)
		case state == 2 && begins:
			return nil, fmt.Errorf("%w: there is more than one card in it; give the one that is yours", ErrCard)
		case state == 2 || p.name == "BEGIN":
			return nil, fmt.Errorf("%w: there is something after END:VCARD, or a card within the card", ErrCard)
		case p.name == "END":
			state = 2
		case p.name == "VERSION":
			version = p.value
		case p.value == "" || strings.Trim(p.value, ";,") == "":
			// An empty property says nothing.
		default:
			out = append(out, p)
		}
	}
	if state != 2 {
		return nil, fmt.Errorf("%w: END:VCARD is missing", ErrCard)
	}
	switch version {
	case "4.0":
	case "3.0":
		for i := range out {
			modernise(&out[i])
		}
	default:
		return nil, fmt.Errorf("%w: its version is %q; export it again as 3.0 or 4.0", ErrCard, version)
	}
	return out, nil
}

// modernise turns the forms of RFC 2426 that RFC 6350 dropped into their successors: TYPE=pref into PREF=1, and inline
// binary into a data URI (RFC 6350 appendix A.2).
func modernise(p *property) {
	types := p.params["TYPE"]
	isPref := func(t string) bool { return strings.EqualFold(t, "pref") }
	if slices.ContainsFunc(types, isPref) {
		types = slices.DeleteFunc(slices.Clone(types), isPref)
		p.params["PREF"] = []string{"1"}
	}
	encoding := p.params["ENCODING"]
	if len(encoding) == 1 && (strings.EqualFold(encoding[0], "b") || strings.EqualFold(encoding[0], "base64")) {
		media := "application/octet-stream"
		if len(types) == 1 && (p.name == "PHOTO" || p.name == "LOGO") {
			media = "image/" + strings.ToLower(types[0])
			types = nil
		}
		p.value = "data:" + media + ";base64," + p.value
		delete(p.params, "ENCODING")
	}
	if len(types) > 0 {
		p.params["TYPE"] = types
	} else {
		delete(p.params, "TYPE")
	}
}

// unfold joins continued lines (RFC 6350 section 3.2).
func unfold(text string) []string {
	var out []string
	var line strings.Builder
	for raw := range strings.Lines(text) {
		raw = strings.TrimRight(raw, "\r\n")
		if raw != "" && (raw[0] == ' ' || raw[0] == '\t') {
			line.WriteString(raw[1:])
			continue
		}
		out = append(out, line.String())
		line.Reset()
		line.WriteString(raw)
	}
	return append(out, line.String())
}

// parseLine reads [group "."] name *(";" param) ":" value.
func parseLine(text string) (property, error) {
	p := property{params: map[string][]string{}}
	i := strings.IndexAny(text, ";:")
	if i < 0 {
		return p, errors.New("no colon")
	}
	p.name = text[:i]
	if group, name, ok := strings.Cut(p.name, "."); ok {
		p.group, p.name = group, name
		if !isName(group) {
			return p, fmt.Errorf("%q is not the name of a group", group)
		}
	}
	if !isName(p.name) {
		return p, fmt.Errorf("%q is not the name of a property", p.name)
	}
	p.name = strings.ToUpper(p.name)
	rest := text[i:]
	for rest[0] == ';' {
		rest = rest[1:]
		end := strings.IndexAny(rest, "=;:")
		if end < 0 {
			return p, errors.New("a parameter without an end")
		}
		name := strings.ToUpper(rest[:end])
		if !isName(name) {
			return p, fmt.Errorf("%q is not the name of a parameter", name)
		}
		if rest[end] != '=' { // RFC 2425 style: TEL;HOME:...
			p.params["TYPE"] = append(p.params["TYPE"], name)
			rest = rest[end:]
			continue
		}
		rest = rest[end+1:]
		for {
			var value string
			if strings.HasPrefix(rest, `"`) {
				close := strings.IndexByte(rest[1:], '"')
				if close < 0 {
					return p, errors.New("a quoted parameter without an end")
				}
				value, rest = rest[1:1+close], rest[close+2:]
			} else {
				close := strings.IndexAny(rest, ",;:")
				if close < 0 {
					return p, errors.New("a parameter without an end")
				}
				value, rest = rest[:close], rest[close:]
			}
			if name == "TYPE" { // TYPE="work,voice" is a list all the same (RFC 6350 erratum 3086)
				for part := range strings.SplitSeq(value, ",") {
					p.params[name] = append(p.params[name], paramUnescape(part))
				}
			} else {
				p.params[name] = append(p.params[name], paramUnescape(value))
			}
			if rest == "" || !strings.ContainsRune(",;:", rune(rest[0])) {
				return p, errors.New("something after a quoted parameter")
			}
			if rest[0] != ',' {
				break
			}
			rest = rest[1:]
		}
	}
	p.value = rest[1:]
	return p, nil
}

// isName accepts iana-token and x-name: letters, digits and '-'.
func isName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != ""
}

// String is the content line, unfolded.
func (p property) String() string {
	var b strings.Builder
	if isName(p.group) {
		b.WriteString(p.group + ".")
	}
	b.WriteString(p.name)
	for _, name := range slices.Sorted(maps.Keys(p.params)) {
		if !isName(name) || len(p.params[name]) == 0 {
			continue
		}
		b.WriteString(";" + name + "=")
		for i, value := range p.params[name] {
			if i > 0 {
				b.WriteByte(',')
			}
			if value = paramEscape(value); strings.ContainsAny(value, ",;:") {
				value = `"` + value + `"`
			}
			b.WriteString(value)
		}
	}
	b.WriteString(":" + p.value)
	return b.String()
}

// paramEscape and paramUnescape are RFC 6868.
func paramEscape(s string) string {
	return strings.Map(dropControl, strings.NewReplacer("^", "^^", "\n", "^n", `"`, "^'").Replace(s))
}

func paramUnescape(s string) string {
	return strings.NewReplacer("^^", "^", "^n", "\n", "^'", `"`).Replace(s)
}

// dropControl keeps a value from ending its line, whatever is in it.
func dropControl(r rune) rune {
	if r < ' ' && r != '\t' || r == 0x7f {
		return -1
	}
	return r
}

// fold ends a line and folds it at 75 bytes, never within a character.
func fold(text string) string {
	var b strings.Builder
	limit := maxLine
	for len(text) > limit {
		cut := limit
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		if cut == 0 {
			break
		}
		b.WriteString(text[:cut] + "\r\n ")
		text, limit = text[cut:], maxLine-1
	}
	b.WriteString(text + "\r\n")
	return b.String()
}

// escape and unescape are RFC 6350 section 3.4.
func escape(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	s = strings.NewReplacer(`\`, `\\`, "\n", `\n`, ",", `\,`, ";", `\;`).Replace(s)
	return strings.Map(dropControl, s)
}

func unescape(s string) string {
	return strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\N`, "\n", `\,`, ",", `\;`, ";").Replace(s)
}

// splitRaw parts a value at each separator that is not escaped and leaves the pieces escaped.
func splitRaw(s string, separator byte) []string {
	var out []string
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case separator:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}

// splitEscaped is splitRaw with the pieces unescaped, and nothing for an empty value.
func splitEscaped(s string, separator byte) []string {
	if s == "" {
		return nil
	}
	pieces := splitRaw(s, separator)
	for i := range pieces {
		pieces[i] = unescape(pieces[i])
	}
	return pieces
}

func joinEscaped(texts []string, separator byte) string {
	pieces := make([]string, len(texts))
	for i := range texts {
		pieces[i] = escape(texts[i])
	}
	return strings.Join(pieces, string(separator))
}
