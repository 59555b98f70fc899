package reading

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// damage changes bytes in one place: a bit, a byte, a piece cut out, put in or doubled.
func damage(r *rand.Rand, data []byte) []byte {
	out := slices.Clone(data)
	if len(out) == 0 {
		return []byte{byte(r.Uint32())}
	}
	at := r.IntN(len(out))
	switch r.IntN(8) {
	case 0, 1, 2:
		out[at] ^= 1 << r.IntN(8)
	case 3, 4:
		out[at] = byte(r.Uint32())
	case 5:
		out = slices.Delete(out, at, min(len(out), at+1+r.IntN(3)))
	case 6:
		out = slices.Insert(out, at, byte(r.Uint32()))
	case 7:
		out = out[:at]
	}
	return out
}

// node is a JSON value as it is spelt: members in order, twice if they are there twice.
type node struct {
	raw     string // of text, numbers, literals
	kind    jsontext.Kind
	names   []string // of an object's members, as JSON text
	values  []*node  // of an object or array
	leading string   // white space before it
}

func parseNode(text []byte) *node {
	d := jsontext.NewDecoder(strings.NewReader(string(text)))
	var read func() *node
	read = func() *node {
		n := &node{kind: d.PeekKind()}
		switch n.kind {
		case '{', '[':
			_, err := d.ReadToken()
			for err == nil && d.PeekKind() != '}' && d.PeekKind() != ']' {
				if n.kind == '{' {
					var name jsontext.Value
					name, err = d.ReadValue()
					n.names = append(n.names, string(name))
				}
				n.values = append(n.values, read())
			}
			_, _ = d.ReadToken()
		default:
			v, err := d.ReadValue()
			if err != nil {
				panic(err) // it is always valid JSON that comes here
			}
			n.raw = string(v)
		}
		return n
	}
	return read()
}

// String writes it out.
func (n *node) String() string {
	switch n.kind {
	case '{':
		parts := make([]string, len(n.values))
		for i, v := range n.values {
			parts[i] = n.names[i] + ":" + v.String()
		}
		return n.leading + "{" + strings.Join(parts, ",") + "}"
	case '[':
		parts := make([]string, len(n.values))
		for i, v := range n.values {
			parts[i] = v.String()
		}
		return n.leading + "[" + strings.Join(parts, ",") + "]"
	}
	return n.leading + n.raw
}

// all are the node and what is below it.
func (n *node) all() []*node {
	out := []*node{n}
	for _, v := range n.values {
		out = append(out, v.all()...)
	}
	return out
}

// literals are values that readers like to disagree on.
var literals = []string{
	"null", "true", "false", "0", "-0", "1", "-1", "2", "1.0", "1e3", "01", "+1", "9007199254740993", "9223372036854775807", "9223372036854775808",
	"18446744073709551615", "18446744073709551616", "1e400", "NaN", `""`, `" "`, `"0"`, `"x"`, `"\ud800"`, `"\udc00\ud800"`, `"\ud83d\ude00"`, `"\u0000"`, `"\/"`, `"\x"`,
	"\"\x01\"", "\"\xff\"", "\"\u202e\"", "\"\ufeff\"", "\"\u200d\"", "\"\u0085\"", "\"é\"", `"A"`, `"AA=="`, `"AB=="`, `"AA"`, `"A-_="`, `"AA==\n"`, "[]", "{}", "[null]", "[{}]", "[[]]", `{"x":1}`,
	`"` + strings.Repeat("0", 64) + `"`, `"` + strings.Repeat("0", 32) + `"`, `"` + strings.Repeat("a", 64) + `"`, `"` + strings.Repeat("F", 64) + `"`,
	`"` + strings.Repeat("n", 200) + `"`, `"` + strings.Repeat("n", 201) + `"`, `"` + strings.Repeat("é", 100) + `"`, `"` + strings.Repeat("a", 65) + `"`, strings.Repeat("[", 40) + strings.Repeat("]", 40),
	`"sealed"`, `"person"`, `"superseded"`, `"\u0072esident"`,
}

// spell writes a JSON string in another way that means the same.
func spell(r *rand.Rand, text string) string {
	var value string
	if json.Unmarshal([]byte(text), &value) != nil || value == "" || !utf8.ValidString(value) {
		return text
	}
	runes := []rune(value)
	at := r.IntN(len(runes))
	if runes[at] > 0xffff {
		return text
	}
	quote := func(s string) string { out, _ := json.Marshal(s); return strings.Trim(string(out), `"`) }
	return `"` + quote(string(runes[:at])) + fmt.Sprintf(`\u%04X`, runes[at]) + quote(string(runes[at+1:])) + `"`
}

// mangle changes a JSON text in one place that matters to JSON; the result may be the same document in another spelling.
func mangle(r *rand.Rand, text []byte) []byte {
	root := parseNode(text)
	nodes := root.all()
	n := nodes[r.IntN(len(nodes))]
	var inner []*node // that have values
	for _, m := range nodes {
		if len(m.values) > 0 {
			inner = append(inner, m)
		}
	}
	choice := r.IntN(14)
	if choice < 9 && len(inner) > 0 && (choice >= 3 || n.kind != '"') {
		n = inner[r.IntN(len(inner))]
		i, j := r.IntN(len(n.values)), r.IntN(len(n.values))
		object := n.kind == '{'
		switch choice {
		case 0, 1: // without one
			n.values = slices.Delete(slices.Clone(n.values), i, i+1)
			if object {
				n.names = slices.Delete(slices.Clone(n.names), i, i+1)
			}
		case 2: // one twice
			n.values = append(n.values, n.values[i])
			if object {
				n.names = append(n.names, n.names[i])
			}
		case 3: // two values for each other
			n.values[i], n.values[j] = n.values[j], n.values[i]
		case 4: // in another order
			n.values[i], n.values[j] = n.values[j], n.values[i]
			if object {
				n.names[i], n.names[j] = n.names[j], n.names[i]
			}
		case 5:
			if object {
				n.names[i] = spell(r, n.names[i])
			}
		case 6:
			if object {
				n.names[i] = strings.ToUpper(n.names[i])
			}
		case 7: // one more
			n.values = append(n.values, &node{raw: literals[r.IntN(len(literals))]})
			if object {
				n.names = append(n.names, `"x"`)
			}
		case 8: // another member's value
			other := inner[r.IntN(len(inner))]
			n.values[i] = &node{raw: other.values[r.IntN(len(other.values))].String()}
		}
		return []byte(root.String())
	}
	switch {
	case choice == 9:
		n.leading = []string{" ", "\n", "\t\r ", "\u00a0", "\ufeff", "\v", "/**/"}[r.IntN(7)]
	case choice == 10 && n.kind == '"':
		n.raw = spell(r, n.raw)
	default:
		*n = node{raw: literals[r.IntN(len(literals))]}
	}
	return []byte(root.String())
}
