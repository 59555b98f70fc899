package reconcile

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"time"
)

// The trace of OpenSC's pkcs11-spy. Each call is a run of lines:
//
//	14: C_DeriveKey                      its number in its process, from 0
//	2026-11-28 16:19:27.191              local time; newer versions put "P:pid; T:thread " before it
//	[in] hBaseKey = 0x3                  arguments; bytes follow as lines of hex
//	[out] hKey = 0x4
//	Returned:  0 CKR_OK
//
// Several processes write into one file, each a call at a time. Handles are of a process, so a call is first given to its process, by pid or by its number.
//
// The spy holds no lock through a call, so threads of one process that make calls side by side mix the lines of them, and no line says whose it is: what
// is between the first line of such calls and the last return is a tangle. Nothing in a tangle is taken for that of one call. What is certain is which
// functions were called, and how many of them failed; an operation in a tangle is mixed, a handle or a session that is named in it stands for a key that is
// not known from then on, until a search that is not mixed finds it again.

const spyFormat = "spy"

var (
	spyHead     = pattern(`^(\d{1,9}): (C_\w{1,40})$`)
	spyTime     = pattern(`^(?:P:(\d{1,10}); T:\S{1,40} )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})$`)
	spyArgument = pattern(`^\[(in|out)\] ([^ \[=:]{1,80})(?:\[[^\]]{0,40}\])?:?(?: (.*))?$`)
	spyHex      = pattern(`^ {4}(?:[0-9A-F]{8}  ((?:[0-9A-F]{2} ){1,16}) .*|((?:[0-9A-F]{2,8} ?){1,16}))$`)
	spyAttr     = pattern(`^ {4}(CKA_[A-Z0-9_]+|CKA_\? \(0x[0-9a-f]{8}\)) +(.*)$`)
	spyReturned = pattern(`^Returned:  (\d{1,20}) (.*)$`)
	spyObject   = pattern(`^Object 0x([0-9a-f]{1,16}) matches$`)
	spyNamed    = pattern(`^ {4}DN: `)

	// In a tangle, where another thread may write within a line. What bytes look like beside their hex, 16 of them, is too short for a return.
	spyReturns  = pattern(`Returned:  (\d{1,20}) (?:CKR_[A-Z0-9_]+|\(null\))$`)
	spyTimes    = pattern(`(?:P:(\d{1,10}); T:\S{1,40} )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})$`)
	spyMakes    = pattern(`(?:\[out\] \S*h[A-Za-z]*(?:Key|Object) = |Object )0x([0-9a-f]{1,16})`)
	spyObjects  = pattern(`\[in\] hObject = 0x([0-9a-f]{1,16})`)
	spySessions = pattern(`\[in\] hSession = 0x([0-9a-f]{1,16})`)
)

// generator is the generator of P-256, uncompressed.
const generator = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296" +
	"4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"

// spyCall is one call of a trace.
type spyCall struct {
	line    int
	number  int
	name    string
	process *spyProcess
	at      time.Time

	handles map[string]uint64 // arguments that are numbers, by direction and name
	seen    map[string]bool   // arguments that were there
	null    map[string]bool   // arguments that are NULL: a question for a length
	in, out []spyAttribute    // templates, and arguments that are bytes
	found   []uint64

	open    *[]byte // where lines of hex go
	outputs bool    // attributes that come are those of the answer
}

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

type spyAttribute struct {
	name  string
	value []byte
	word  string
}

func attribute(t []spyAttribute, name string) (spyAttribute, bool) {
	for _, a := range t {
		if a.name == name {
			return a, true
		}
	}
	return spyAttribute{}, false
}

// spyProcess is one process of a trace, and what is known of its objects.
type spyProcess struct {
	pid       string
	next      int
	skipped   map[int]bool // numbers below next that were not there: threads do not write in the order of their numbers
	open      int          // calls that did not return
	blurred   bool         // calls of another process may have been taken for its own
	ended     bool         // C_Finalize was called
	operation []*operation
	objects   map[uint64]*spyThing
	search    map[uint64]spySearch // by session
	signing   map[uint64]key       // by session: the key of C_SignInit and so on
}

// spySearch is what a session looks for.
type spySearch struct {
	template []spyAttribute
	mixed    bool // that is not known
}

// spyThing is an object of a process.
type spyThing struct {
	key
	label string
}

type spyReader struct {
	token     *Token
	location  *time.Location
	processes []*spyProcess
	pids      bool       // the trace has them
	heads     []*spyCall // calls whose process or time is not known yet
	open      []*spyCall // calls that did not return
	tangle    *tangle    // where there is more than one
	line      int
}

// ReadSpy reads a trace of pkcs11-spy, whose times are in location. A trace holds what must not be shown: PINs and derived values. Nothing
// of them is kept, and no error quotes a line.
func ReadSpy(r io.Reader, location *time.Location) (*Token, error) {
	s := &spyReader{token: newToken(spyFormat, named), location: location}
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		text, err := in.ReadString('\n')
		if len(text) > 1<<16 {
			return nil, s.fault("a line of more than 65,536 bytes")
		}
		if text != "" {
			s.line++
			if err := s.take(strings.TrimRight(text, "\r\n")); err != nil {
				return nil, err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading the trace: %w", err)
		}
	}
	if s.token.records == 0 {
		return nil, s.fault("there is no call in this file: it is not a trace of pkcs11-spy")
	}
	s.finish()
	return s.token, nil
}

func (s *spyReader) fault(what string, args ...any) error {
	return &FormatError{Format: spyFormat, Line: max(s.line, 1), What: fmt.Sprintf(what, args...)}
}

// take takes one line.
func (s *spyReader) take(text string) error {
	if m := spyHead().FindStringSubmatch(text); m != nil {
		n, _ := strconv.Atoi(m[1])
		return s.head(&spyCall{line: s.line, number: n, name: m[2], handles: map[string]uint64{}, seen: map[string]bool{}, null: map[string]bool{}})
	}
	if m := spyTime().FindStringSubmatch(text); m != nil {
		return s.time(m[1], m[2])
	}
	switch {
	case text == "" || strings.HasPrefix(text, "*************** OpenSC PKCS#11 spy") || strings.HasPrefix(text, "Loaded: "):
		return nil
	case spyNamed().MatchString(text): // it is printed in pieces, and could hold what looks like a return
		return s.fault("a certificate's name, of which Sallyport has none")
	case s.tangle != nil:
		return s.mixed(text)
	case len(s.open) == 0:
		return s.fault("a line outside of a call")
	}
	c := s.open[0]
	if m := spyReturned().FindStringSubmatch(text); m != nil {
		if c.process == nil {
			return s.fault("a call that returns before its time is told")
		}
		s.end(c, m[1] == "0")
		return nil
	}
	if strings.HasPrefix(text, "[in] ") || strings.HasPrefix(text, "[out] ") {
		m := spyArgument().FindStringSubmatch(text)
		if m == nil {
			return s.fault("an argument in no known form")
		}
		c.argument(m[1], m[2], m[3])
		return nil
	}
	if m := spyObject().FindStringSubmatch(text); m != nil {
		n, err := strconv.ParseUint(m[1], 16, 64)
		if err != nil {
			return s.fault("an object without a handle")
		}
		c.found = append(c.found, n)
		return nil
	}
	c.more(text)
	return nil
}

// head takes the first line of a call. One that comes while another call is open makes a tangle of both.
func (s *spyReader) head(c *spyCall) error {
	s.heads = append(s.heads, c)
	if s.open = append(s.open, c); len(s.open) > 1 {
		if s.tangle == nil {
			first := s.open[0]
			s.tangle = &tangle{from: first.line, at: first.at, calls: []*spyCall{first}, made: map[uint64]bool{}, objects: map[uint64]bool{}, sessions: map[uint64]bool{}}
			first.names(s.tangle)
		}
		s.tangle.calls = append(s.tangle.calls, c)
	}
	if s.token.records > 0 && !s.pids {
		return s.begin(c, "")
	}
	return nil
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
		for session := range t.sessions {
			p.signing[session] = key{kind: entangled}
			p.search[session] = spySearch{mixed: true}
		}
	}
	t.calls, t.made, t.objects, t.sessions = nil, nil, nil, nil
}

// asks are the classes whose functions are called twice, first for the length of the answer.
var asks = map[Class]bool{Wrap: true, Sign: true, Encrypt: true, Decrypt: true}

// time takes the second line of a call, which says when it was and, in newer versions, whose.
func (s *spyReader) time(pid, text string) error {
	at, err := time.ParseInLocation("2006-01-02 15:04:05.000", text, s.location)
	if err != nil {
		return s.fault("a time that does not exist")
	}
	if len(s.heads) == 0 {
		return s.fault("a time outside of a call")
	}
	i := 0
	if pid != "" {
		s.pids = true
		near := -1
		for k, c := range s.heads { // of those that wait, the one that comes next in that process
			may, exact := s.candidates(pid, c.number)
			if exact || c.number == 0 {
				near = k
				break
			}
			if len(may) > 0 && near < 0 {
				near = k
			}
		}
		i = max(i, near)
	}
	c := s.heads[i]
	s.heads = append(s.heads[:i:i], s.heads[i+1:]...)
	c.at = at
	if c.process == nil {
		if err := s.begin(c, pid); err != nil {
			return err
		}
	}
	if s.tangle != nil && s.tangle.at.IsZero() {
		s.tangle.at = at
	}
	s.token.saw(c.name, at)
	return nil
}

// begin gives a call to its process.
func (s *spyReader) begin(c *spyCall, pid string) error {
	p, err := s.process(pid, c.number)
	if err != nil {
		return err
	}
	for n := p.next; n < c.number; n++ {
		p.skipped[n] = true
	}
	delete(p.skipped, c.number)
	p.next = max(p.next, c.number+1)
	c.process = p
	p.open++
	return nil
}

// reorder is how far threads of a process may be out of order, in calls.
const reorder = 16

// candidates are the processes that a call may be of: those whose next number it is, or else those in which threads may have written it out of order.
func (s *spyReader) candidates(pid string, number int) (may []*spyProcess, exact bool) {
	for _, p := range s.processes {
		if p.pid == pid && !p.ended && p.next == number {
			may = append(may, p)
		}
	}
	if len(may) > 0 {
		return may, true
	}
	for _, p := range s.processes {
		near := number > p.next && number <= p.next+reorder || p.skipped[number] || number < p.next && number >= p.next-reorder && p.open > 0
		if p.pid == pid && !p.ended && near {
			may = append(may, p)
		}
	}
	return may, false
}

func newProcess(pid string) *spyProcess {
	return &spyProcess{pid: pid, skipped: map[int]bool{}, objects: map[uint64]*spyThing{}, search: map[uint64]spySearch{}, signing: map[uint64]key{}}
}

// process finds whose call it is: that of a pid, or of the process whose next number it is.
func (s *spyReader) process(pid string, number int) (*spyProcess, error) {
	if number == 0 {
		p := newProcess(pid)
		s.processes = append(s.processes, p)
		return p, nil
	}
	may, _ := s.candidates(pid, number)
	switch {
	case len(may) == 0:
		return nil, s.fault("call %d follows no other: lines are missing, or the trace does not begin with its processes", number)
	case len(may) > 1 && pid == "":
		for _, p := range may {
			p.blurred = true
		}
	case len(may) > 1: // a pid was given again: the newest
		may = may[len(may)-1:]
	}
	for _, p := range may {
		if p.open == 0 {
			return p, nil
		}
	}
	return may[0], nil
}

// wanted are the arguments whose bytes are looked at. All others, PINs and keys among them, are passed over.
var wanted = map[string]bool{"in pMechanism->pParameter->pPublicData": true, "in pData": true}

// argument takes an argument.
func (c *spyCall) argument(direction, name, rest string) {
	full := direction + " " + name
	c.seen[full], c.open = true, nil
	rest = strings.TrimPrefix(rest, "= ")
	switch {
	case strings.HasSuffix(name, "emplate"):
		c.outputs = direction == "out"
	case strings.HasPrefix(rest, "NULL"):
		c.null[full] = true
	case strings.HasPrefix(rest, "0x"):
		if n, err := strconv.ParseUint(rest[2:], 16, 64); err == nil {
			c.handles[full] = n
		}
	case wanted[full]:
		c.in = append(c.in, spyAttribute{name: full})
		c.open = &c.in[len(c.in)-1].value
	}
}

// more takes a line that goes on with an argument: an attribute of a template, or bytes.
func (c *spyCall) more(text string) {
	if m := spyAttr().FindStringSubmatch(text); m != nil {
		t := &c.in
		if c.outputs {
			t = &c.out
		}
		*t = append(*t, spyAttribute{name: m[1], word: strings.TrimSpace(m[2])})
		c.open = nil
		if m[1] == "CKA_ID" || m[1] == "CKA_LABEL" {
			c.open = &(*t)[len(*t)-1].value
		}
		return
	}
	m := spyHex().FindStringSubmatch(text)
	if m == nil {
		return
	}
	b, err := hex.DecodeString(strings.ReplaceAll(m[1]+m[2], " ", ""))
	if err != nil {
		return
	}
	if c.open != nil && len(*c.open) < 1<<12 {
		*c.open = append(*c.open, b...)
	}
}

// end ends the one call that is open: what it did is taken down.
func (s *spyReader) end(c *spyCall, ok bool) {
	s.open, s.heads = nil, nil
	if c.at.IsZero() {
		s.token.saw(c.name, c.at)
	}
	c.process.open--
	c.process.did(s.token, c, ok)
}

// finish ends the trace. A call that did not return counts if it has an answer.
func (s *spyReader) finish() {
	switch {
	case s.tangle != nil:
		s.untangle()
	case len(s.open) > 0 && s.open[0].process != nil:
		c := s.open[0]
		answered := c.name == "C_DestroyObject"
		for name := range c.seen {
			answered = answered || strings.HasPrefix(name, "out ")
		}
		s.end(c, answered)
	}
	blurred := 0
	for _, p := range s.processes {
		if p.blurred {
			blurred++
		}
		for _, o := range p.operation {
			o.cut = !p.ended
		}
	}
	s.token.notes = append(s.token.notes, "A trace of pkcs11-spy holds PINs and derived values: it is for test tokens only. Delete it.")
	if blurred > 0 {
		s.token.detail = canaries
		s.token.notes = append(s.token.notes, fmt.Sprintf("The trace does not tell the calls of %d processes apart, so uses are compared by time and number, not by key. "+
			"A pkcs11-spy that writes process numbers, or `workers = 1`, gives more.", blurred))
	}
}
