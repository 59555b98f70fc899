package reconcile

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
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
// Several processes write into one file, each a call at a time; threads of one process mix theirs. Handles are of a process, so a call is first
// given to its process, by pid or by its number, and lines to the call that can have them.

const spyFormat = "spy"

var (
	spyHead     = pattern(`^(\d{1,9}): (C_\w{1,40})$`)
	spyTime     = pattern(`^(?:P:(\d{1,10}); T:\S{1,40} )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})$`)
	spyArgument = pattern(`^\[(in|out)\] ([^ \[=:]{1,80})(?:\[[^\]]{0,40}\])?:?(?: (.*))?$`)
	spyHex      = pattern(`^ {4}(?:[0-9A-F]{8}  ((?:[0-9A-F]{2} ){1,16}) .*|((?:[0-9A-F]{2,8} ?){1,16}))$`)
	spyAttr     = pattern(`^ {4}(CKA_[A-Z0-9_]+|CKA_\? \(0x[0-9a-f]{8}\)) +(.*)$`)
	spyBroken   = pattern(`^(\[(?:in|out)\] \S{1,80}(?: =)?) ?((?:\[(?:in|out)\] |Returned:  ).*)$`)
	spyValue    = pattern(`^[0-9a-f]{16} / \d{1,10}$`)
	spyReturned = pattern(`^Returned:  (\d{1,20}) (.*)$`)
	spyObject   = pattern(`^Object 0x([0-9a-f]{1,16}) matches$`)
)

// generator is the generator of P-256, uncompressed.
const generator = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296" +
	"4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"

// spyForms are the arguments of functions in the order in which the trace has them, when they succeed. By them a line goes to the call that can have it.
var spyForms = map[string][]string{
	"C_FindObjectsInit":   {"in hSession", "in pTemplate"},
	"C_FindObjects":       {"in hSession", "in ulMaxObjectCount", "out ulObjectCount"},
	"C_FindObjectsFinal":  {"in hSession"},
	"C_GetAttributeValue": {"in hSession", "in hObject", "in pTemplate", "out pTemplate"},
	"C_DestroyObject":     {"in hSession", "in hObject"},
	"C_CreateObject":      {"in hSession", "in pTemplate", "out *phObject"},
	"C_DeriveKey":         {"in hSession", "in pMechanism", "in hBaseKey", "in pTemplate", "out hKey"},
	"C_UnwrapKey":         {"in hSession", "in pMechanism", "in hUnwrappingKey", "in pWrappedKey", "in pTemplate", "out hKey"},
	"C_WrapKey":           {"in hSession", "in pMechanism", "in hWrappingKey", "in hKey", "out pWrappedKey"},
	"C_GenerateKey":       {"in hSession", "in pMechanism", "in pTemplate", "out hKey"},
	"C_GenerateKeyPair":   {"in hSession", "in pMechanism", "in pPublicKeyTemplate", "in pPrivateKeyTemplate", "out hPublicKey", "out hPrivateKey"},
	"C_SignInit":          {"in hSession", "in pMechanism", "in hKey"},
	"C_Sign":              {"in hSession", "in pData", "out pSignature"},
	"C_EncryptInit":       {"in hSession", "in pMechanism", "in hKey"},
	"C_Encrypt":           {"in hSession", "in pData", "out pEncryptedData"},
	"C_DecryptInit":       {"in hSession", "in pMechanism", "in hKey"},
	"C_Decrypt":           {"in hSession", "in pEncryptedData", "out pData"},
}

// spyCall is one call of a trace.
type spyCall struct {
	line    int
	number  int
	name    string
	process *spyProcess
	at      time.Time
	unclear bool // a line may be of another call
	spyArguments
}

// spyArguments are those of a call, as far as they were there.
type spyArguments struct {
	handles map[string]uint64 // arguments that are numbers, by direction and name
	seen    map[string]bool   // arguments that were there
	null    map[string]bool   // arguments that are NULL: a question for a length
	in, out []spyAttribute    // templates, and arguments that are bytes
	found   []uint64
	step    int // how many of its form were there

	open     *[]byte // where lines of hex go
	left     int     // bytes that are to come as lines of hex
	template bool    // its attributes are to come
	outputs  bool    // and are those of the answer
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
	open      []*spyCall
	functions map[string]bool // session and function, of calls before
	blurred   bool            // calls of another process may have been taken for its own
	ended     bool            // C_Finalize was called
	operation []*operation
	objects   map[uint64]*spyThing
	search    map[uint64][]spyAttribute // by session
	signing   map[uint64]key            // by session: the key of C_SignInit and so on
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
	last      *spyCall   // that got the line before
	waiting   *spyCall   // whose line was broken off
	line      int
	mixed     int // calls with lines that may be of another
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
		c := &spyCall{line: s.line, number: n, name: m[2]}
		c.handles, c.seen, c.null = map[string]uint64{}, map[string]bool{}, map[string]bool{}
		s.heads = append(s.heads, c)
		s.last = c
		if s.token.records > 0 && !s.pids {
			return s.begin(c, "")
		}
		return nil
	}
	if m := spyBroken().FindStringSubmatch(text); m != nil { // another thread wrote within the line
		if err := s.take(m[1]); err != nil {
			return err
		}
		s.waiting = s.last
		return s.take(m[2])
	}
	if s.waiting != nil && spyValue().MatchString(text) {
		s.last, s.waiting = s.waiting, nil
		s.last.left = length(text)
		return nil
	}
	if m := spyTime().FindStringSubmatch(text); m != nil {
		return s.time(m[1], m[2])
	}
	switch {
	case text == "" || strings.HasPrefix(text, "*************** OpenSC PKCS#11 spy") || strings.HasPrefix(text, "Loaded: "):
		return nil
	case spyReturned().MatchString(text):
		m := spyReturned().FindStringSubmatch(text)
		c := s.returning(m[1] == "0")
		if c == nil {
			return s.fault("a call returns that did not begin")
		}
		s.end(c, m[1] == "0")
		return nil
	case strings.HasPrefix(text, "[in] ") || strings.HasPrefix(text, "[out] "):
		m := spyArgument().FindStringSubmatch(text)
		if m == nil {
			return s.fault("an argument in no known form")
		}
		c := s.taking(m[1], m[2], m[3])
		if c == nil {
			return s.fault("an argument outside of a call")
		}
		s.last = c
		c.argument(m[1], m[2], m[3])
		return nil
	}
	c := s.going(text)
	if c == nil {
		return s.fault("text outside of a call")
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
	for k, c := range s.heads { // a thread mostly goes on with the line after
		if c == s.last {
			i = k
		}
	}
	if pid != "" {
		s.pids = true
		for k, c := range s.heads { // of those that wait, the one that comes next in that process
			if may, exact := s.candidates(pid, c.number); exact || len(may) > 0 && c == s.last {
				i = k
			}
		}
	}
	c := s.heads[i]
	s.heads = append(s.heads[:i:i], s.heads[i+1:]...)
	c.at = at
	if c.process == nil {
		if err := s.begin(c, pid); err != nil {
			return err
		}
	}
	s.last = c
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
	p.open = append(p.open, c)
	s.last = c
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
		near := number > p.next && number <= p.next+reorder || p.skipped[number] || number < p.next && number >= p.next-reorder && len(p.open) > 0
		if p.pid == pid && !p.ended && near {
			may = append(may, p)
		}
	}
	return may, false
}

// process finds whose call it is: that of a pid, or of the process whose next number it is.
func (s *spyReader) process(pid string, number int) (*spyProcess, error) {
	if number == 0 {
		p := &spyProcess{
			pid: pid, skipped: map[int]bool{}, functions: map[string]bool{}, objects: map[uint64]*spyThing{}, search: map[uint64][]spyAttribute{}, signing: map[uint64]key{},
		}
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
		if len(p.open) == 0 {
			return p, nil
		}
	}
	return may[0], nil
}

// open are all calls that did not return yet.
func (s *spyReader) open() (all []*spyCall) {
	for _, p := range s.processes {
		all = append(all, p.open...)
	}
	return all
}

// taking finds the call that an argument is of. value is what follows its name.
func (s *spyReader) taking(direction, name, value string) *spyCall {
	all := s.open()
	if len(all) < 2 {
		return s.choose(all, false)
	}
	var may, used []*spyCall
	for _, c := range all {
		if !c.accepts(direction, name) {
			continue
		}
		may = append(may, c)
		if name == "hSession" && c.process.functions[value+" "+c.name] { // sessions are used for the same functions again and again
			used = append(used, c)
		}
	}
	if len(used) > 0 {
		may = used
	}
	if len(may) == 0 {
		if c := s.exchange(direction, name); c != nil {
			return c
		}
		may = all
	}
	return s.choose(may, true)
}

// exchange finds a call that could have an argument if it had those that another was given, and gives them to it: two calls that begin alike were taken
// for one another.
func (s *spyReader) exchange(direction, name string) *spyCall {
	all := s.open()
	for _, c := range all {
		at := c.place(direction, name)
		for _, d := range all {
			if c == d || at < 2 || c.step >= at-1 || d.step != at-1 || len(spyForms[d.name]) < at-1 || !slices.Equal(spyForms[c.name][:at-1], spyForms[d.name][:at-1]) {
				continue
			}
			c.spyArguments, d.spyArguments = d.spyArguments, c.spyArguments
			c.unclear, d.unclear = true, true
			return c
		}
	}
	return nil
}

// returning finds the call that returns.
func (s *spyReader) returning(ok bool) *spyCall {
	all := s.open()
	if len(all) < 2 {
		return s.choose(all, false)
	}
	var may []*spyCall
	for _, c := range all {
		form, has := spyForms[c.name]
		if has && ok && c.step < len(form) || has && !ok && c.step == 0 {
			continue
		}
		may = append(may, c)
	}
	if len(may) == 0 {
		may = all
	}
	return s.choose(may, true)
}

// choose prefers the call that got the line before, then the newest.
func (s *spyReader) choose(may []*spyCall, several bool) *spyCall {
	if len(may) == 0 {
		return nil
	}
	chosen := may[len(may)-1]
	for _, c := range may {
		if c == s.last {
			chosen = c
		}
	}
	for _, c := range may {
		c.unclear = c.unclear || several && len(may) > 1
	}
	return chosen
}

// place is where in its form an argument is, from 1; 0 if it is not in it.
func (c *spyCall) place(direction, name string) int {
	if strings.HasPrefix(name, "pMechanism") {
		name = "pMechanism"
	}
	for i, argument := range spyForms[c.name] {
		if argument == direction+" "+name {
			return i + 1
		}
	}
	return 0
}

// accepts tells whether an argument can be the next of this call.
func (c *spyCall) accepts(direction, name string) bool {
	if _, has := spyForms[c.name]; !has {
		return !c.seen[direction+" "+name]
	}
	at := c.place(direction, name)
	return at > 0 && (at == c.step+1 || at == c.step && strings.HasPrefix(name, "pMechanism"))
}

// wanted are the arguments whose bytes are looked at. All others, PINs and keys among them, are passed over.
var wanted = map[string]bool{"in pMechanism->pParameter->pPublicData": true, "in pData": true}

// argument takes an argument.
func (c *spyCall) argument(direction, name, rest string) {
	full := direction + " " + name
	c.seen[full], c.open, c.template, c.left = true, nil, false, length(rest)
	c.step = max(c.step, c.place(direction, name))
	if name == "hSession" && c.process != nil {
		c.process.functions[rest+" "+c.name] = true
	}
	rest = strings.TrimPrefix(rest, "= ")
	switch {
	case strings.HasSuffix(name, "emplate"):
		c.template, c.outputs = true, direction == "out"
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

// length is how many bytes follow what begins as "address / length".
func length(text string) int {
	_, digits, _ := strings.Cut(text, " / ")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || n > 1<<20 {
		return 0
	}
	return n
}

// going finds the call that text goes on with: the one that got the line before, if that is what is to come of it, or else another of which it is.
func (s *spyReader) going(text string) *spyCall {
	expects := func(c *spyCall) bool {
		return c != nil && (c.template && spyAttr().MatchString(text) || c.left > 0 && spyHex().MatchString(text) || c.step > 0 && spyObject().MatchString(text) && c.name == "C_FindObjects")
	}
	if expects(s.last) {
		return s.last
	}
	all := s.open()
	for i := len(all) - 1; i >= 0; i-- {
		if expects(all[i]) {
			return all[i]
		}
	}
	if s.last == nil && len(all) > 0 {
		return all[len(all)-1]
	}
	return s.last
}

// more takes a line that goes on with an argument: an attribute of a template, or bytes.
func (c *spyCall) more(text string) {
	if m := spyAttr().FindStringSubmatch(text); m != nil {
		t := &c.in
		if c.outputs {
			t = &c.out
		}
		*t = append(*t, spyAttribute{name: m[1], word: strings.TrimSpace(m[2])})
		c.open, c.left = nil, length(m[2])
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
	c.left = max(0, c.left-len(b))
	if c.open != nil && len(*c.open) < 1<<12 {
		*c.open = append(*c.open, b...)
	}
}

// end ends a call: what it did is taken down. A call whose lines may be another's counts as one that succeeded, whatever seems to have come of it: so nothing
// hides behind calls that fail beside it.
func (s *spyReader) end(c *spyCall, ok bool) {
	p := c.process
	p.open = slices.DeleteFunc(p.open, func(o *spyCall) bool { return o == c })
	if s.last == c {
		s.last = nil
	}
	if c.unclear {
		s.mixed++
		ok = true
	}
	p.did(s.token, c, ok)
}

// finish ends the trace. Of calls that did not return those count that have an answer.
func (s *spyReader) finish() {
	for _, c := range s.open() {
		form, has := spyForms[c.name]
		c.unclear = c.unclear || has && c.step == len(form)
		s.end(c, false)
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
	if s.mixed > 0 {
		s.token.notes = append(s.token.notes, fmt.Sprintf("%d calls of several threads are mixed in the trace; which line is of which was told by their form.", s.mixed))
	}
}
