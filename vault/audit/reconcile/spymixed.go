package reconcile

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
)

// The spy holds no lock through a call, so threads of one process that make calls side by side mix the lines of them, and no line says whose it is: what
// is between the first line of such calls and the last return is a tangle. Nothing in a tangle is taken for that of one call. What is certain is which
// functions were called, and how many of them failed; an operation in a tangle is mixed, a handle or a session that is named in it stands for a key that is
// not known from then on, until a search that is not mixed finds it again.

var (
	// In a tangle, where another thread may write within a line. What bytes look like beside their hex, 16 of them, is too short for a return.
	spyReturns  = pattern(`Returned:  (\d{1,20}) (?:CKR_[A-Z0-9_]+|\(null\))$`)
	spyTimes    = pattern(`(?:P:(\d{1,10}); T:\S{1,40} )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})$`)
	spyMakes    = pattern(`(?:\[out\] \S*h[A-Za-z]*(?:Key|Object) = |Object )0x([0-9a-f]{1,16})`)
	spyObjects  = pattern(`\[in\] hObject = 0x([0-9a-f]{1,16})`)
	spySessions = pattern(`\[in\] hSession = 0x([0-9a-f]{1,16})`)
)

// tangle is a run of lines in which calls are mixed.
type tangle struct {
	from, to int // lines
	at       time.Time
	calls    []*spyCall // until it ends
	returned int
	failed   int
	lengths  bool            // one may have asked for a length only
	made     map[uint64]bool // handles that it gave out
	objects  map[uint64]bool // that it was about
	sessions map[uint64]bool

	functions map[string]int // that were called
}

// names tells a tangle what its first call named before there was a second.
func (c *spyCall) names(t *tangle) {
	for name, handle := range c.handles {
		switch {
		case name == "in hSession":
			t.sessions[handle] = true
		case name == "in hObject":
			t.objects[handle] = true
		case strings.HasPrefix(name, "out ") && (strings.HasSuffix(name, "Key") || strings.HasSuffix(name, "Object")):
			t.made[handle] = true
		}
	}
	for _, handle := range c.found {
		t.made[handle] = true
	}
	t.lengths = len(c.null) > 0
}

// mixed takes a line of a tangle, which may be of any of its calls, or of several.
func (s *spyReader) mixed(text string) error {
	if m := spyTimes().FindStringSubmatch(text); m != nil {
		return s.time(m[1], m[2])
	}
	t := s.tangle
	handles := func(into map[uint64]bool, found [][]string) {
		for _, m := range found {
			if n, err := strconv.ParseUint(m[1], 16, 64); err == nil {
				into[n] = true
			}
		}
	}
	handles(t.made, spyMakes().FindAllStringSubmatch(text, -1))
	handles(t.objects, spyObjects().FindAllStringSubmatch(text, -1))
	handles(t.sessions, spySessions().FindAllStringSubmatch(text, -1))
	t.lengths = t.lengths || strings.Contains(text, "NULL")
	m := spyReturns().FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	t.returned++
	if m[1] != "0" {
		t.failed++
	}
	if t.returned == len(t.calls) {
		s.untangle()
	}
	return nil
}

// untangle ends a tangle: what its calls did is taken down, and what is not known any more because of them.
func (s *spyReader) untangle() {
	t := s.tangle
	t.to = s.line
	s.tangle, s.open, s.heads = nil, nil, nil
	s.token.tangles = append(s.token.tangles, t)
	t.functions = map[string]int{}
	allFailed := t.failed == len(t.calls)
	processes := map[*spyProcess]bool{}
	for _, c := range t.calls {
		if c.at.IsZero() {
			s.token.saw(c.name, t.at)
			c.at = t.at
		}
		t.functions[c.name]++
		p := c.process
		if p == nil { // the trace ends before that is known
			p = newProcess("")
			s.processes = append(s.processes, p)
		}
		p.open--
		processes[p] = true
		class, does := c.class()
		switch {
		case c.name == "C_Finalize":
			p.ended = p.ended || t.failed == 0
		case c.name == "C_DestroyObject":
			maps.Copy(t.made, t.objects)
		}
		switch {
		case does && allFailed:
			s.token.failed[class]++
		case does:
			o := &operation{class: class, function: c.name, at: c.at, place: fmt.Sprintf("lines %d to %d, call %d", t.from, t.to, c.number), mixed: true, maybe: t.lengths && asks[class]}
			s.token.ops, p.operation = append(s.token.ops, o), append(p.operation, o)
		}
	}
	for p := range processes {
		for handle := range t.made {
			p.objects[handle] = &spyThing{key: key{kind: entangled}}
		}
		for handle := range t.objects { // of which the answer may have been what it is
			if k := p.what(handle); k.kind == unknown || k.kind == reencryption && k.id == "" {
				p.thing(handle).key = key{kind: entangled}
			}
		}
		for session := range t.sessions {
			p.signing[session] = key{kind: entangled}
			p.search[session] = spySearch{mixed: true}
		}
	}
	t.calls, t.made, t.objects, t.sessions = nil, nil, nil, nil
}

// asks are the classes whose functions are called twice, first for the length of the answer.
var asks = map[Class]bool{Wrap: true, Sign: true, Encrypt: true, Decrypt: true}
