package guardrails

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"github.com/sallyport/sallyport/policies"
)

// Schema is the Cedar schema of what a rule may speak of.
//
//go:embed guardrails.cedarschema
var Schema string

// Bounds of rules, so that no text takes much time or stack.
const (
	maxNumber = 256 // of rules
	maxName   = 64  // bytes
	maxDepth  = 64  // parentheses, brackets and braces in each other
	maxSigns  = 4   // '!' and '-' in a row, which is what Cedar's grammar has room for
	maxHas    = 64  // questions whether there is a member: the schema has none that may be missing
)

// Facts are what is known of one item that a reader asks for, all of it also to an auditor.
type Facts struct {
	Reader  policies.ReaderID
	Vouched bool // a voucher for its name is in force
	Owner   policies.OwnerID
	Field   policies.Field
	Author  policies.AuthorID

	Grant     *policies.Grant // custody, purpose and time are of it
	Token     string          // serial number
	Grade     string
	Items     int // of the request
	UsedToday uint64
}

// Set is rules that can be applied. A nil Set has none. It may be used by many at once.
type Set struct {
	names    []string
	policies []*cedar.Policy
	timed    bool
}

// Parse reads rules. Each has a name of its own, which is what the log and the operator call it: @id("...") before the rule, 1 to 64 characters of a-z, A-Z, 0-9, '.', '_' and '-'. Each forbids.
// The error wraps [policies.ErrMalformed]. Text without any rule is a Set that refuses nothing.
func Parse(rules string) (*Set, error) {
	if err := plain(rules); err != nil {
		return nil, err
	}
	list, err := cedar.NewPolicyListFromBytes("rules", []byte(rules))
	if err != nil { // it names line and column
		return nil, fmt.Errorf("%w: guardrails: %s", policies.ErrMalformed, strings.NewReplacer("parse error at ", "", "<input>:", "at ").Replace(err.Error()))
	}
	if len(list) > maxNumber {
		return nil, fmt.Errorf("%w: guardrails: %d rules, at most %d are allowed", policies.ErrMalformed, len(list), maxNumber)
	}
	s := &Set{policies: list}
	seen := map[string]bool{}
	for _, p := range list {
		name, at := string(p.Annotations()["id"]), p.Position()
		bad := func(format string, args ...any) error {
			return fmt.Errorf("%w: guardrails: the rule in line %d %s", policies.ErrMalformed, at.Line, fmt.Sprintf(format, args...))
		}
		switch {
		case !isName(name):
			return nil, bad(`has no name of 1 to %d characters of a-z, A-Z, 0-9, '.', '_' and '-': write @id("...") before it`, maxName)
		case seen[name]:
			return nil, bad("has the name %q, which another one has", name)
		case p.Effect() != cedar.Forbid:
			return nil, bad("permits: guardrails only forbid what owners granted; write forbid, and what is exempt behind unless")
		}
		seen[name] = true
		s.names = append(s.names, name)
		text := p.MarshalCedar() // without comments
		s.timed = s.timed || slices.ContainsFunc(timely, func(word string) bool { return bytes.Contains(text, []byte(word)) })
	}
	return s, nil
}

// timely are the words of the schema that say something else at another moment.
var timely = []string{"time", "weekday", "used_today", "vouched"}

// Timed reports whether a rule may decide otherwise at another moment, all else being the same: whether one names such a fact.
func (s *Set) Timed() bool { return s != nil && s.timed }

func isName(name string) bool {
	return 1 <= len(name) && len(name) <= maxName && !strings.ContainsFunc(name, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("._-", c))
	})
}

// What plain looks for: texts and comments, signs in a row, and what the validator takes the third power of the time for.
var (
	aside = regexp.MustCompile(`"(?:\\.|[^"\\])*"|//[^\n]*`)
	signs = regexp.MustCompile(fmt.Sprintf(`(?:[!-]\s*){%d}`, maxSigns+1))
	has   = regexp.MustCompile(`\bhas(?:Tag)?\b`)
	chain = regexp.MustCompile(`\bhas\s+\w+\s*\.`)
)

// plain refuses what would take parser and validator deep or long, whatever it means (brackets are counted within texts and comments too), and what Cedar in Go reads and Cedar in Rust does not, or otherwise:
// comments between /* and */, long rows of signs, and characters by their numbers: "\u{2a}" behind like is a star in the one and stands for any text in the other.
func plain(rules string) error {
	if len(rules) > MaxRules {
		return fmt.Errorf("%w: guardrails: %d bytes, at most %d are allowed", policies.ErrMalformed, len(rules), MaxRules)
	}
	depth, deepest := 0, 0
	for _, c := range []byte(rules) {
		switch c {
		case '(', '[', '{':
			depth++
			deepest = max(deepest, depth)
		case ')', ']', '}':
			depth = max(0, depth-1)
		}
	}
	if deepest > maxDepth {
		return fmt.Errorf("%w: guardrails: parentheses, brackets and braces are %d deep, at most %d are allowed", policies.ErrMalformed, deepest, maxDepth)
	}
	bad := func(text string, at int, what string) error {
		return fmt.Errorf("%w: guardrails: line %d has %s", policies.ErrMalformed, 1+strings.Count(text[:at], "\n"), what)
	}
	form := policies.Header{Type: docType}
	for i, line := range strings.Split(rules, "\n") { // as in Document
		if err := form.CheckText(fmt.Sprintf("line %d, tabs apart,", i+1), strings.ReplaceAll(line, "\t", " "), 0, MaxRules); err != nil {
			return err
		}
	}
	for _, escape := range []string{`\u`, `\x`} {
		if at := strings.Index(rules, escape); at >= 0 {
			return bad(rules, at, "the escape "+escape+": write the character itself")
		}
	}
	bare := aside.ReplaceAllStringFunc(rules, func(s string) string {
		if s[0] == '"' {
			return `""`
		}
		return " "
	})
	if at := strings.Index(bare, "/*"); at >= 0 {
		return bad(bare, at, "a comment that begins with /*: begin each line of it with //")
	}
	if at := signs.FindStringIndex(bare); at != nil {
		return bad(bare, at[0], fmt.Sprintf("more than %d signs in a row", maxSigns))
	}
	if at := has.FindAllStringIndex(bare, maxHas+1); len(at) > maxHas {
		return bad(bare, at[maxHas][0], fmt.Sprintf("the %dth has, at most %d are allowed", maxHas+1, maxHas))
	}
	if at := chain.FindStringIndex(bare); at != nil {
		return bad(bare, at[0], "a name with a dot behind has: write one has for each name")
	}
	return nil
}

// schemas is the schema, resolved; it is a constant of the program.
var schemas = sync.OnceValues(func() (*vetter, error) {
	var s schema.Schema
	if err := s.UnmarshalCedar([]byte(Schema)); err != nil {
		return nil, err
	}
	known, err := s.Resolve()
	if err != nil {
		return nil, err
	}
	return &vetter{validate.New(known), known}, nil
})

// vetter checks rules against the schema.
type vetter struct {
	*validate.Validator
	known *resolved.Schema
}

// rest refuses what Cedar's own validator refuses and the one here passes over: a kind of thing behind "is" that there is not ("resource is Feild" is never so), and a decimal with a plus sign.
func (v *vetter) rest(p *ast.Policy) error {
	var errs []error
	kind := func(t types.EntityType) {
		if _, ok := v.known.Entities[t]; !ok && t != "Action" {
			errs = append(errs, fmt.Errorf("unrecognized entity type `%s`", t))
		}
	}
	for _, c := range p.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			switch n := n.(type) {
			case ast.NodeTypeIs:
				kind(n.EntityType)
			case ast.NodeTypeIsIn:
				kind(n.EntityType)
			case ast.NodeTypeExtensionCall:
				for _, arg := range n.Args {
					value, _ := arg.(ast.NodeValue)
					if text, ok := value.Value.(types.String); ok && n.Name == "decimal" && strings.HasPrefix(string(text), "+") {
						errs = append(errs, fmt.Errorf("failed to parse as a decimal value: `%s`", text))
					}
				}
			}
			return true
		})
	}
	return errors.Join(errs...)
}

// Vet refuses rules that speak of what is not in the [Schema], or compare what cannot be compared: a word that is written wrongly would else refuse everything, or nothing. It is for
// whoever is about to put rules in force. The error names each rule, and wraps [policies.ErrMalformed].
func (s *Set) Vet() error {
	v, err := schemas()
	if err != nil {
		return err
	}
	var errs []error
	for i, p := range s.policies {
		rule := (*ast.Policy)(p.AST())
		if err := errors.Join(v.Policy("", rule), v.rest(rule)); err != nil { // a line for each fault
			errs = append(errs, fmt.Errorf("%w: guardrails: rule %q: %s", policies.ErrMalformed, s.names[i], strings.ReplaceAll(err.Error(), "\n", "; ")))
		}
	}
	return errors.Join(errs...)
}

// Names are the rules' names, in their order.
func (s *Set) Names() []string {
	if s == nil {
		return nil
	}
	return s.names
}

// all is the set with a permit for everything, which each rule then narrows.
func (s *Set) all() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		if !yield("", everything) {
			return
		}
		for i, p := range s.policies {
			if !yield(cedar.PolicyID(s.names[i]), p) {
				return
			}
		}
	}
}

type iterator func() iter.Seq2[cedar.PolicyID, *cedar.Policy]

func (i iterator) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] { return i() }

var everything = func() *cedar.Policy {
	var p cedar.Policy
	if err := p.UnmarshalCedar([]byte("permit (principal, action, resource);")); err != nil { // it is a constant
		panic(err)
	}
	return &p
}()

// Refusals are the names of the rules by which an item is not released at a time, in the order of the rules; none if it may be. The same Set, facts and time give the same answer for ever.
func (s *Set) Refusals(f *Facts, now time.Time) []string {
	if s == nil || len(s.policies) == 0 {
		return nil
	}
	entities, request := f.ask(now.UTC())
	_, said := cedar.Authorize(iterator(s.all), entities, request)
	var against map[string]bool
	note := func(id cedar.PolicyID) {
		if against == nil {
			against = map[string]bool{}
		}
		against[string(id)] = true
	}
	for _, e := range said.Errors { // a rule that cannot be decided refuses
		note(e.PolicyID)
	}
	for _, r := range said.Reasons {
		if r.PolicyID != "" {
			note(r.PolicyID)
		}
	}
	if against == nil {
		return nil
	}
	var out []string
	for _, name := range s.names {
		if against[name] {
			out = append(out, name)
		}
	}
	return out
}

// lastSecond is the end of the year 9999. A later time counts as that: in milliseconds it could be any time, also one long ago.
const lastSecond = 253402300799

// ask puts the facts into Cedar's words.
func (f *Facts) ask(now time.Time) (cedar.EntityMap, cedar.Request) {
	reader := cedar.NewEntityUID("Reader", cedar.String(f.Reader.String()))
	field := cedar.NewEntityUID("Field", cedar.String(f.Field))
	var above []cedar.EntityUID
	for i, c := range f.Field {
		if i > 0 && (c == '.' || c == '/') {
			above = append(above, cedar.NewEntityUID("Field", cedar.String(f.Field[:i])))
		}
	}
	day := cedar.Long(now.Weekday())
	if day == 0 {
		day = 7
	}
	entities := cedar.EntityMap{
		reader: {UID: reader, Attributes: cedar.NewRecord(cedar.RecordMap{"vouched": cedar.Boolean(f.Vouched)})},
		field:  {UID: field, Parents: cedar.NewEntityUIDSet(above...)},
	}
	seconds := func(t int64) cedar.Datetime { return cedar.NewDatetimeFromMillis(min(t, lastSecond) * 1000) }
	return entities, cedar.Request{
		Principal: reader, Action: cedar.NewEntityUID("Action", "read"), Resource: field,
		Context: cedar.NewRecord(cedar.RecordMap{
			"owner":      cedar.NewEntityUID("Owner", cedar.String(f.Owner.String())),
			"written":    cedar.Boolean(policies.AuthorID(f.Owner) != f.Author),
			"purpose":    cedar.String(f.Grant.Purpose),
			"custody":    cedar.String(f.Grant.Custody),
			"grade":      cedar.String(f.Grade),
			"token":      cedar.String(f.Token),
			"granted":    seconds(f.Grant.NotBefore),
			"expires":    seconds(f.Grant.Expires),
			"items":      cedar.Long(f.Items),
			"used_today": cedar.Long(f.UsedToday),
			"time":       cedar.NewDatetimeFromMillis(now.UnixMilli()),
			"weekday":    day,
		}),
	}
}
