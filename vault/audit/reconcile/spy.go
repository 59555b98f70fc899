package reconcile

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
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
// Lines of calls that are open at the same time are for spymixed.go.

const spyFormat = "spy"

var (
	spyHead     = pattern(`^(\d{1,9}): (C_\w{1,40})$`)
	spyTime     = pattern(`^(?:P:(\d{1,10}); T:\S{1,40} )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})$`)
	spyArgument = pattern(`^\[(in|out)\] ([^ \[=:]{1,80})(?:\[[^\]]{0,40}\])?:?(?: (.*))?$`)
	spyHex      = pattern(`^ {4}(?:[0-9A-F]{8}  ((?:[0-9A-F]{2} ){1,16}) .*|((?:[0-9A-F]{2,8} ?){1,16}))$`)
	spyAttr     = pattern(`^ {4}(CKA_[A-Z0-9_]+|CKA_\? \(0x[0-9a-f]{8}\)) +(.*)$`)
	spyReturned = pattern(`^Returned:  (\d{1,20}) (.*)$`)
	spyObject   = pattern(`^Object 0x([0-9a-f]{1,16}) matches$`)
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
	case strings.Contains(text, "    DN: "): // it is printed in pieces, and could hold what looks like a return
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
