package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/tests/model/reference"
)

// A Script is what is played: who takes part, and lines that are played one after the other. A line that begins with "|" is played at
// the same time as the one before. It is text, so that one that failed can be read, kept and played again:
//
//	owners ana bo
//	readers acme globex
//	ana/1 set a b                      # publishes; what the values are follows from the line
//	ana/1 grant acme a b limit=3 purpose=p for=2s from=1s custody=sealed
//	| acme/1 read ana:a ana:b known    # "known": it says which versions it has
//	ana/2 sync                         # a second device of ana's
//	ana/2 revoke acme a keep           # no fields: all; "keep": rotates nothing
//	| kill vault after=20ms down=30ms  # or storefront, or both
//	ana/1 grant-write acme a           # acme may write a; for=2s from=1s as above
//	acme/1 write ana:a                 # and does
//	ana/1 adopt acme a                 # or reject
//	ana/1 end-write acme               # no fields: all
//	ana/1 rotate a cut=10ms            # the device's process ends 10 ms later, and begins anew
//	replay read                        # or document: somebody sends again what was sent before
//	forge author ana                   # or signature: somebody publishes in her name
//	acme/1 give-up ana:a
//	ana/1 replace stolen               # or lost: a new root; the other device is of no use any more
//	acme/1 ask ana:a ana:b purpose=p for=2s waits=1s
//	ana/1 answer acme a                # what is not named is denied; "again": answers what was answered
//	acme/1 hear
//	ana/1 stop acme a                  # withdraws
//	acme/1 suspend                     # a reader does: it suspends its grants, and has new keys
//	ana/2 restore                      # until it is made anew from the newest backup
//	ana/1 close                        # the account, for ever
//	globex/1 register                  # only who was introduced may look it up
//	ana/1 introduce globex to=acme
//	acme/1 look-up globex
//	acme/1 specify globex ana:a ana:b  # purpose=p for=2s as above; ana answers it as a request
//	acme/1 forward                     # what ana orders, to globex
//	globex/1 deposit ana:a
//	acme/1 collect
//	ana/1 password one                 # sets it, or changes it; "again": whatever another device changed
//	guess ana two                      # somebody with a new device tries one
//	ana/1 unlock                       # begins the count of tries anew
//	kill keys                          # the key server
//	ana/1 kit-print                    # a recovery sheet; "again" as of a password; kit-replace ends one that works, kit-off switches it off
//	ana/1 kit-test newest              # or older: the sheet before
//	ana/2 rescue newest                # the device was lost, and is made anew with a sheet
//	ana/1 switch-off                   # takes password and sheet away if they open what was replaced
//	ana/2 pair                         # the device was lost, and is made anew by approval on the other; "wrong": the person types another word
//	ana/1 drop                         # has the key server delete what password and sheet open
//	ana/1 announce stolen              # a new root, without the recovery key
//	ana/2 object                       # takes it back
//	ana/1 succeed                      # by its own clock the time is over, and it carries out what it announced
//	ana/1 ask bo:a                     # a person asks another one, who grants, answers and stops as of any reader
//	ana/1 refresh                      # reads all that others let her, and keeps it
//	ana/1 contacts                     # looks at what she keeps
//	ana/1 give-up bo:a
//	bo/1 block ana                     # or unblock
//	freeze ana                         # two operators do
//	ana/1 thaw
//	wait 500ms
type Script struct {
	Seed            uint64 // that it was made from; 0: by hand
	Owners, Readers []string
	Lines           []Line
}

// Line is one thing that happens.
type Line struct {
	With          bool // at the same time as the line before
	Who, Do       string
	Fields        []string // of a read, or a write: owner:field
	Reader        string   // or writer
	To            string   // of an introduction
	Terms         reference.Terms
	Keep, Known   bool
	Again         bool
	Cut           time.Duration
	After, Length time.Duration // of a kill: when, and how long the daemons are down; of a wait
	Attack        string        // of a replay or a forgery: what kind; of a replacement: why
}

// String is the line as it is written.
func (l *Line) String() string {
	words := []string{l.Who, l.Do}
	if l.With {
		words = append([]string{"|"}, words...)
	}
	if l.Do == reference.Kill || l.Do == reference.Replay || l.Do == reference.Forge || l.Do == reference.Freeze || l.Do == reference.Guess || l.Do == "wait" {
		words = words[:len(words)-2]
		words = append(words, l.Do)
	}
	add := func(format string, value any, is bool) {
		if is {
			words = append(words, fmt.Sprintf(format, value))
		}
	}
	add("%s", l.Who, l.Do == reference.Guess)
	add("%s", l.Attack, l.Attack != "")
	add("%s", l.Who, l.Do == reference.Kill || l.Do == reference.Forge || l.Do == reference.Freeze)
	add("%s", l.Reader, l.Reader != "")
	words = append(words, l.Fields...)
	add("to=%s", l.To, l.To != "")
	add("limit=%d", l.Terms.Limit, l.Terms.Limit != 0)
	add("purpose=%s", l.Terms.Purpose, l.Terms.Purpose != "")
	add("from=%s", l.Terms.From, l.Terms.From != 0)
	add("for=%s", l.Terms.For, l.Terms.For != 0)
	add("custody=%s", l.Terms.Custody, l.Terms.Custody != "")
	add("waits=%s", l.Terms.Waits, l.Terms.Waits != 0)
	add("%s", "again", l.Again)
	add("%s", "keep", l.Keep)
	add("%s", "known", l.Known)
	add("cut=%s", l.Cut, l.Cut != 0)
	add("after=%s", l.After, l.After != 0)
	add("down=%s", l.Length, l.Length != 0 && l.Do == reference.Kill)
	add("%s", l.Length, l.Do == "wait")
	return strings.Join(words, " ")
}

// String is the script as it is written.
func (s *Script) String() string {
	var b strings.Builder
	if s.Seed != 0 {
		fmt.Fprintf(&b, "seed %d\n", s.Seed)
	}
	fmt.Fprintf(&b, "owners %s\nreaders %s\n", strings.Join(s.Owners, " "), strings.Join(s.Readers, " "))
	for i := range s.Lines {
		b.WriteString(s.Lines[i].String() + "\n")
	}
	return b.String()
}

// ParseScript reads a script.
func ParseScript(text string) (*Script, error) {
	s := new(Script)
	for n, raw := range strings.Split(text, "\n") {
		raw, _, _ = strings.Cut(raw, "#")
		words := strings.Fields(raw)
		if len(words) == 0 {
			continue
		}
		var err error
		switch words[0] {
		case "seed":
			if len(words) == 2 {
				s.Seed, err = strconv.ParseUint(words[1], 10, 64)
			}
		case "owners":
			s.Owners = words[1:]
		case "readers":
			s.Readers = words[1:]
		default:
			var l Line
			if l, err = parseLine(words); err == nil {
				s.Lines = append(s.Lines, l)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("line %d, %q: %w", n+1, raw, err)
		}
	}
	return s, s.validate()
}

func parseLine(words []string) (l Line, err error) {
	if l.With = words[0] == "|"; l.With {
		words = words[1:]
	}
	if len(words) < 2 {
		return l, fmt.Errorf("too short")
	}
	switch words[0] {
	case reference.Kill, reference.Freeze:
		l.Do, l.Who, words = words[0], words[1], words[2:]
	case reference.Guess:
		if len(words) < 3 {
			return l, fmt.Errorf("whose, and which?")
		}
		l.Do, l.Who, l.Attack, words = words[0], words[1], words[2], words[3:]
	case reference.Replay:
		l.Do, l.Attack, words = words[0], words[1], words[2:]
	case reference.Forge:
		if len(words) < 3 {
			return l, fmt.Errorf("who is forged?")
		}
		l.Do, l.Attack, l.Who, words = words[0], words[1], words[2], words[3:]
	case "wait":
		l.Do = words[0]
		l.Length, err = time.ParseDuration(words[1])
		return l, err
	default:
		l.Who, l.Do, words = words[0], words[1], words[2:]
		if names(l.Do) && len(words) > 0 {
			l.Attack, words = words[0], words[1:]
		}
		if concerns(l.Do) && len(words) > 0 {
			l.Reader, words = words[0], words[1:]
		}
	}
	for _, w := range words {
		name, value, has := strings.Cut(w, "=")
		switch {
		case w == "keep":
			l.Keep = true
		case w == "known":
			l.Known = true
		case w == "again":
			l.Again = true
		case w == wrongWord && l.Do == reference.Pair:
			l.Attack = w
		case !has:
			l.Fields = append(l.Fields, w)
		case name == "limit":
			l.Terms.Limit, err = strconv.Atoi(value)
		case name == "to":
			l.To = value
		case name == "purpose":
			l.Terms.Purpose = value
		case name == "custody":
			l.Terms.Custody = value
		case name == "from":
			l.Terms.From, err = time.ParseDuration(value)
		case name == "waits":
			l.Terms.Waits, err = time.ParseDuration(value)
		case name == "for":
			l.Terms.For, err = time.ParseDuration(value)
		case name == "cut":
			l.Cut, err = time.ParseDuration(value)
		case name == "after":
			l.After, err = time.ParseDuration(value)
		case name == "down":
			l.Length, err = time.ParseDuration(value)
		default:
			err = fmt.Errorf("%q is not known", name)
		}
		if err != nil {
			return l, err
		}
	}
	return l, nil
}

// deposit is a write that carries out an order.
const deposit = "deposit"

// names reports whether a word says why, or which.
func names(do string) bool {
	switch do {
	case reference.Replace, reference.Announce, reference.Password, reference.KitTest, reference.Rescue:
		return true
	}
	return false
}

// concerns reports whether what an owner does is about a reader, or a writer.
func concerns(do string) bool {
	switch do {
	case reference.Grant, reference.Revoke, reference.GrantWrite, reference.EndWrite, reference.Adopt, reference.Reject, reference.Answer, reference.Stop, reference.Introduce, reference.LookUp, reference.Specify, reference.Block, reference.Unblock:
		return true
	}
	return false
}

// validate refuses what cannot be played.
func (s *Script) validate() error {
	for i := range s.Lines {
		l := &s.Lines[i]
		name, device, _ := strings.Cut(l.Who, "/")
		good := false
		switch l.Do {
		case reference.Set, reference.Remove, reference.Rotate:
			good = slices.Contains(s.Owners, name) && (device == "1" || device == "2") && len(l.Fields) > 0
		case reference.Replace, reference.Announce:
			good = slices.Contains(s.Owners, name) && (device == "1" || device == "2") && (l.Attack == "stolen" || l.Attack == "lost")
		case reference.Hear:
			good = (slices.Contains(s.Readers, name) || slices.Contains(s.Owners, name)) && (device == "1" || device == "2")
		case reference.Block, reference.Unblock:
			good = slices.Contains(s.Owners, name) && (device == "1" || device == "2") && slices.Contains(s.Owners, l.Reader) && l.Reader != name && len(l.Fields) == 0
		case reference.Suspend, reference.Register, reference.Forward, reference.Collect:
			good = slices.Contains(s.Readers, name) && (device == "1" || device == "2")
		case reference.Password:
			good = slices.Contains(s.Owners, name) && (device == "1" || device == "2") && l.Attack != ""
		case reference.Guess:
			good = slices.Contains(s.Owners, l.Who) && l.Attack != ""
		case reference.KitTest, reference.Rescue:
			good = slices.Contains(s.Owners, name) && (device == "1" || device == "2") && (l.Attack == newest || l.Attack == older)
		case reference.Pair:
			good = slices.Contains(s.Owners, name) && (device == "1" || device == "2") && len(l.Fields) == 0
		case reference.Sync, reference.Thaw, reference.Close, reference.Drop, reference.Unlock, reference.KitPrint, reference.KitReplace, reference.KitOff, reference.SwitchOff, reference.Object, reference.Succeed, reference.Refresh, reference.Contacts:
			good = slices.Contains(s.Owners, name) && (device == "1" || device == "2")
		case reference.Grant, reference.Revoke, reference.GrantWrite, reference.EndWrite, reference.Answer, reference.Stop:
			all := l.Do == reference.Revoke || l.Do == reference.EndWrite || l.Do == reference.Answer
			person := slices.Contains(s.Owners, l.Reader) && l.Reader != name && l.Do != reference.GrantWrite && l.Do != reference.EndWrite
			good = slices.Contains(s.Owners, name) && (device == "1" || device == "2") && (slices.Contains(s.Readers, l.Reader) || person) && (all || len(l.Fields) > 0)
		case reference.Adopt, reference.Reject:
			good = slices.Contains(s.Owners, name) && (device == "1" || device == "2") && slices.Contains(s.Readers, l.Reader) && len(l.Fields) == 1
		case reference.Introduce:
			good = slices.Contains(s.Owners, name) && (device == "1" || device == "2") && slices.Contains(s.Readers, l.Reader) && slices.Contains(s.Readers, l.To) && l.To != l.Reader
		case reference.LookUp:
			good = slices.Contains(s.Readers, name) && (device == "1" || device == "2") && slices.Contains(s.Readers, l.Reader) && l.Reader != name
		case reference.Restart, reference.Restore:
			good = (device == "1" || device == "2") && (slices.Contains(s.Owners, name) || slices.Contains(s.Readers, name))
		case reference.Read, reference.Write, reference.GiveUp, reference.Ask, reference.Specify, deposit:
			person := slices.Contains(s.Owners, name) && (l.Do == reference.Ask || l.Do == reference.GiveUp)
			good = (l.Do != reference.Specify || slices.Contains(s.Readers, l.Reader) && l.Reader != name) && (slices.Contains(s.Readers, name) || person) && (device == "1" || device == "2") && len(l.Fields) > 0 && !slices.ContainsFunc(l.Fields, func(f string) bool {
				owner, field, ok := strings.Cut(f, ":")
				return !ok || field == "" || !slices.Contains(s.Owners, owner) || owner == name || l.Do != reference.Read && !strings.HasPrefix(l.Fields[0], owner+":")
			})
		case reference.Kill:
			good = l.Who == "vault" || l.Who == "storefront" || l.Who == "both" || l.Who == "keys"
		case reference.Freeze:
			good = slices.Contains(s.Owners, l.Who)
		case reference.Replay:
			good = l.Attack == "read" || l.Attack == "document"
		case reference.Forge:
			good = (l.Attack == "author" || l.Attack == "signature") && slices.Contains(s.Owners, l.Who)
		case "wait":
			good = l.Length > 0 && l.Length < time.Minute
		}
		if !good {
			return fmt.Errorf("this cannot be played: %s", l)
		}
	}
	return nil
}

// dice makes scripts.
type dice struct{ *rand.Rand }

func (d dice) one(list ...string) string { return list[d.IntN(len(list))] }

// some are one or more of a list, in its order.
func (d dice) some(list []string) []string {
	var out []string
	for _, x := range list {
		if d.IntN(3) == 0 {
			out = append(out, x)
		}
	}
	if len(out) == 0 {
		out = []string{d.one(list...)}
	}
	return out
}

// writer is one of the lines that let somebody write, nil if there is none.
func (d dice) writer(s *Script) *Line {
	var out []*Line
	for i := range s.Lines {
		if s.Lines[i].Do == reference.GrantWrite {
			out = append(out, &s.Lines[i])
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out[d.IntN(len(out))]
}

// asked is the newest line that asks, nil if there is none.
func (d dice) asked(s *Script) *Line {
	for i := len(s.Lines) - 1; i >= 0; i-- {
		if s.Lines[i].Do == reference.Ask {
			return &s.Lines[i]
		}
	}
	return nil
}

func (d dice) ms(least, most int) time.Duration {
	return time.Duration(least+d.IntN(most-least)) * time.Millisecond
}

// NewScript makes a script out of a seed: lines of it, about a third of which happen at the same time as others.
func NewScript(seed uint64, lines int, sealed bool) *Script {
	d := dice{rand.New(rand.NewPCG(seed, 0))}
	fields := []string{"a", "b", "c", "d"}
	s := &Script{Seed: seed, Owners: []string{"ana", "bo"}, Readers: []string{"acme", "globex", "carl"}}
	if d.IntN(3) == 0 {
		s.Owners = s.Owners[:1] // a narrow world, where all meet
		s.Readers = s.Readers[:2]
		fields = fields[:2]
	}
	for _, o := range s.Owners {
		s.Lines = append(s.Lines, Line{Who: o + "/1", Do: reference.Set, Fields: fields[:len(fields)-1]})
		for _, r := range s.Readers[:len(s.Readers)-d.IntN(2)] {
			s.Lines = append(s.Lines, Line{Who: o + "/1", Do: reference.Grant, Reader: r, Fields: fields[:1+d.IntN(len(fields)-1)]})
		}
		if d.IntN(2) == 0 {
			s.Lines = append(s.Lines, Line{Who: o + "/1", Do: reference.GrantWrite, Reader: d.one(s.Readers...), Fields: d.some(fields)})
		}
		s.Lines = append(s.Lines, Line{Who: o + "/2", Do: reference.Sync})
	}
	busy := map[string]bool{} // who has something to do in the group of lines
	killed, apart := false, false
	for len(s.Lines) < lines {
		l := d.line(s, fields, sealed)
		if l.Do == reference.Close && len(s.Lines) < lines*3/4 { // nothing happens to an account after that
			continue
		}
		l.With = d.IntN(5) < 2 && !apart
		if !l.With || l.Do == "wait" {
			l.With, killed = false, false
			clear(busy)
		}
		if len(s.Readers) > 1 && d.IntN(40) == 0 {
			s.Lines = append(s.Lines, d.deposit(s, fields, sealed)...)
			apart = true // what follows is not at the same time: a daemon is not killed twice at once
			continue
		}
		if d.IntN(90) == 0 {
			s.Lines = append(s.Lines, d.passwords(s)...)
			apart = true // what follows is not at the same time: a daemon is not killed twice at once
			continue
		}
		if d.IntN(60) == 0 {
			s.Lines = append(s.Lines, d.sheets(s, fields, sealed)...)
			apart = true
			continue
		}
		if d.IntN(60) == 0 {
			s.Lines = append(s.Lines, d.roots(s, fields, sealed)...)
			apart = true
			continue
		}
		if d.IntN(60) == 0 {
			s.Lines = append(s.Lines, d.pairing(s, fields, sealed)...)
			apart = true
			continue
		}
		if len(s.Owners) > 1 && d.IntN(40) == 0 {
			s.Lines = append(s.Lines, d.people(s, fields, sealed)...)
			apart = true
			continue
		}
		if len(s.Lines) > lines*3/4 && d.IntN(40) == 0 { // nothing happens to an account after that
			s.Lines = append(s.Lines, d.deletion(s, fields, sealed)...)
			apart = true
			continue
		}
		if l.Do == reference.Kill && killed || l.Who != "" && busy[l.Who] {
			continue
		}
		if l.Do == reference.Close && !l.With && d.IntN(2) == 0 { // on the way
			s.Lines = append(s.Lines, Line{Who: d.one("vault", "storefront", "both"), Do: reference.Kill, After: d.ms(1, 30), Length: d.ms(1, 60)})
			l.With, killed = true, true
		}
		apart = false
		killed = killed || l.Do == reference.Kill
		busy[l.Who] = true
		s.Lines = append(s.Lines, l)
		if l.Do == reference.Replace && d.IntN(3) > 0 { // as the command does
			s.Lines = append(s.Lines, Line{Who: l.Who, Do: reference.SwitchOff})
			clear(busy)
			killed = false
		}
		if l.Do == reference.Replace || l.Do == reference.Suspend { // the other one is used once more, perhaps, and made anew
			owner, device, _ := strings.Cut(l.Who, "/")
			other := owner + "/" + map[string]string{"1": "2", "2": "1"}[device]
			if d.IntN(2) == 0 && !busy[other] {
				able := []string{reference.Set, reference.Grant, reference.Revoke, reference.Sync}
				if l.Do == reference.Suspend {
					able = []string{reference.Read, reference.Write}
				}
				l := d.line(s, fields, sealed)
				for !slices.Contains(able, l.Do) {
					l = d.line(s, fields, sealed)
				}
				l.Who, l.With = other, d.IntN(2) == 0
				s.Lines = append(s.Lines, l)
			}
			if d.IntN(3) > 0 {
				s.Lines = append(s.Lines, Line{Who: other, Do: reference.Restore})
				clear(busy)
				killed = false
			}
		}
		if l.Do == reference.Kill { // somebody meets it
			for range 2 + d.IntN(2) {
				if l := d.line(s, fields, sealed); l.Do != reference.Kill && l.Do != "wait" && l.Do != reference.Close && !busy[l.Who] {
					l.With = true
					busy[l.Who] = true
					s.Lines = append(s.Lines, l)
				}
			}
		}
	}
	return s
}

// passwords are somebody who sets one, or changes it, and others who guess, once or until no more is taken, with the key server killed in between.
func (d dice) passwords(s *Script) (out []Line) {
	owner := d.one(s.Owners...)
	words := []string{"one", "two", "three"}
	guesses := d.IntN(4)
	if d.IntN(3) == 0 {
		guesses = 9 + d.IntN(5)
	}
	out = append(out, Line{Who: owner + "/1", Do: reference.Password, Attack: d.one(words...)})
	for range guesses {
		if d.IntN(5) == 0 {
			out = append(out, Line{Who: d.one("keys", "keys", "keys", "storefront"), Do: reference.Kill, After: d.ms(1, 300), Length: d.ms(1, 40)})
		}
		l := Line{Who: owner, Do: reference.Guess, Attack: d.one("none", "none", "none", "none", d.one(words...)), With: d.IntN(3) == 0}
		l.With = l.With || len(out) > 0 && out[len(out)-1].Do == reference.Kill
		out = append(out, l)
	}
	switch d.IntN(4) {
	case 0:
		out = append(out, Line{Who: owner + "/" + d.one("1", "2"), Do: reference.Unlock})
	case 1:
		out = append(out, Line{Who: owner + "/" + d.one("1", "2"), Do: reference.Password, Attack: d.one(words...), Again: d.IntN(2) == 0})
	}
	return append(out, Line{Who: owner, Do: reference.Guess, Attack: d.one(words...)})
}

// deposit is all that a deposit takes, with something in between now and then, or something left out.
func (d dice) deposit(s *Script, fields []string, sealed bool) (out []Line) {
	owner := d.one(s.Owners...)
	at := d.IntN(len(s.Readers))
	reader, source := s.Readers[at], s.Readers[(at+1+d.IntN(len(s.Readers)-1))%len(s.Readers)]
	named := d.some(fields)
	var of []string
	for _, f := range named {
		of = append(of, owner+":"+f)
	}
	ask := Line{Who: reader + "/1", Do: reference.Specify, Reader: source, Fields: of}
	if d.IntN(4) == 0 {
		ask.Terms.For = time.Duration(2+d.IntN(2)) * time.Second
	}
	if d.IntN(3) == 0 {
		ask.Terms.Purpose = d.one("billing", "delivery")
	}
	beyond := of
	if d.IntN(5) == 0 {
		beyond = append(slices.Clone(of), owner+":beyond")
	}
	for _, l := range []Line{
		{Who: source + "/1", Do: reference.Register},
		{Who: owner + "/1", Do: reference.Introduce, Reader: source, To: reader},
		{Who: reader + "/1", Do: reference.LookUp, Reader: source},
		ask,
		{Who: owner + "/" + d.one("1", "1", "2"), Do: reference.Answer, Reader: reader, Fields: d.some(named)},
		{Who: reader + "/1", Do: reference.Forward},
		{Who: source + "/1", Do: deposit, Fields: of[:1]},
		{Who: source + "/1", Do: deposit, Fields: beyond},
		{Who: reader + "/1", Do: reference.Collect},
	} {
		switch {
		case l.Do == reference.Register && d.IntN(2) == 0, d.IntN(16) == 0:
			continue
		case d.IntN(8) == 0 && len(out) > 0:
			out = append(out, Line{Who: d.one("vault", "storefront", "both"), Do: reference.Kill, After: d.ms(1, 40), Length: d.ms(1, 60)})
			l.With = true
		case d.IntN(8) == 0:
			if other := d.line(s, fields, sealed); other.Do != reference.Close && other.Do != reference.Replace && other.Do != reference.Suspend {
				out = append(out, other)
				l.With = other.Who != l.Who && other.Do != "wait"
			}
		}
		out = append(out, l)
	}
	return out
}

// beside may put a line of anybody's before l, so that both are under way at once. It ends nothing that the lines after it are about.
func (d dice) beside(out []Line, l *Line, s *Script, fields []string, sealed bool) []Line {
	other := d.line(s, fields, sealed)
	if other.Do == reference.Close || other.Do == reference.Suspend || other.Do == reference.Kill {
		return out
	}
	other.With = false
	l.With = other.Who != l.Who && other.Do != "wait"
	return append(out, other)
}

func (d dice) line(s *Script, fields []string, sealed bool) Line {
	owner, reader := d.one(s.Owners...), d.one(s.Readers...)
	l := Line{Who: owner + "/" + d.one("1", "1", "2"), Fields: d.some(fields)}
	if d.IntN(25) == 0 {
		l.Cut = d.ms(1, 60)
	}
	switch n := d.IntN(143); {
	case n < 14:
		l.Do = reference.Set
	case n < 18:
		l.Do = reference.Remove
		l.Fields = l.Fields[:1]
	case n < 32:
		l.Do, l.Reader = reference.Grant, reader
		if d.IntN(3) == 0 {
			l.Terms.Limit = 1 + d.IntN(4)
		}
		if d.IntN(3) == 0 {
			l.Terms.Purpose = d.one("billing", "delivery")
		}
		if d.IntN(5) == 0 {
			l.Terms.For = time.Duration(1+d.IntN(2)) * time.Second
		}
		if d.IntN(8) == 0 {
			l.Terms.From = time.Second
		}
		if sealed && d.IntN(2) == 0 {
			l.Terms.Custody = "sealed"
		}
	case n < 41:
		l.Do, l.Reader, l.Keep = reference.Revoke, reader, d.IntN(2) == 0
		if d.IntN(3) == 0 {
			l.Fields = nil
		}
	case n < 46:
		l.Do = reference.Rotate
	case n < 52:
		l.Do, l.Fields, l.Cut = reference.Sync, nil, 0
	case n < 84:
		l = Line{Who: reader + "/" + d.one("1", "1", "2"), Do: reference.Read, Known: d.IntN(3) == 0}
		for _, o := range s.Owners {
			for _, f := range fields {
				if d.IntN(2) == 0 {
					l.Fields = append(l.Fields, o+":"+f)
				}
			}
		}
		if len(l.Fields) == 0 {
			l.Fields = []string{owner + ":" + d.one(fields...)}
		}
	case n < 90:
		l = Line{Who: d.one("vault", "storefront", "both"), Do: reference.Kill, After: d.ms(1, 80), Length: d.ms(1, 60)}
	case n < 93:
		l = Line{Do: reference.Replay, Attack: d.one("read", "document")}
	case n < 95:
		l = Line{Do: reference.Forge, Who: owner, Attack: d.one("author", "signature")}
	case n < 98:
		l = Line{Who: d.one(owner, reader) + "/" + d.one("1", "2"), Do: reference.Restart}
	case n < 104:
		l.Do, l.Reader = reference.GrantWrite, reader
		if d.IntN(3) == 0 {
			l.Terms.For = time.Duration(1+d.IntN(2)) * time.Second
		}
		if d.IntN(8) == 0 {
			l.Terms.From = time.Second
		}
	case n < 107:
		l.Do, l.Reader = reference.EndWrite, reader
		if d.IntN(3) == 0 {
			l.Fields = nil
		}
	case n < 113:
		l.Do = reference.Write
		if may := d.writer(s); may != nil && d.IntN(5) > 0 {
			owner, _, _ = strings.Cut(may.Who, "/")
			reader, l.Fields = may.Reader, d.some(may.Fields)
		}
		l.Who = reader + "/" + d.one("1", "1", "2")
		for i := range l.Fields {
			l.Fields[i] = owner + ":" + l.Fields[i]
		}
	case n < 116:
		l.Do, l.Reader, l.Fields = d.one(reference.Adopt, reference.Adopt, reference.Reject), reader, l.Fields[:1]
		if may := d.writer(s); may != nil && d.IntN(5) > 0 {
			l.Who, l.Reader, l.Fields = may.Who, may.Reader, []string{d.one(may.Fields...)}
		}
	case n < 119:
		l.Who, l.Do, l.Fields = reader+"/"+d.one("1", "2"), reference.GiveUp, []string{owner + ":" + l.Fields[0]}
	case n < 121:
		l = Line{Do: reference.Freeze, Who: owner}
		if d.IntN(2) == 0 {
			l = Line{Do: reference.Thaw, Who: owner + "/" + d.one("1", "2")}
		}
	case n < 123:
		l.Do, l.Fields, l.Attack = reference.Replace, nil, d.one("stolen", "lost")
		if d.IntN(3) == 0 {
			l = Line{Who: reader + "/" + d.one("1", "1", "2"), Do: reference.Suspend}
		}
	case n < 128:
		l = Line{Who: reader + "/" + d.one("1", "1", "2"), Do: reference.Ask}
		for _, f := range d.some(fields) {
			l.Fields = append(l.Fields, owner+":"+f)
		}
		if d.IntN(3) == 0 {
			l.Terms.Purpose = d.one("billing", "delivery")
		}
		if d.IntN(5) == 0 {
			l.Terms.For = 2 * time.Second
		}
		if d.IntN(6) == 0 {
			l.Terms.Waits = time.Second
		}
	case n < 134:
		l.Do, l.Reader, l.Again = reference.Answer, reader, d.IntN(5) == 0
		if asked := d.asked(s); asked != nil && d.IntN(5) > 0 {
			owner, _, _ := strings.Cut(asked.Fields[0], ":")
			var of []string
			for _, f := range asked.Fields {
				of = append(of, strings.TrimPrefix(f, owner+":"))
			}
			l.Who = owner + "/" + d.one("1", "1", "2")
			l.Reader, _, _ = strings.Cut(asked.Who, "/")
			l.Fields = of
			if d.IntN(3) == 0 {
				l.Fields = d.some(of)
			}
		}
		if d.IntN(6) == 0 {
			l.Fields = nil
		}
	case n < 136:
		l = Line{Who: reader + "/" + d.one("1", "2"), Do: reference.Hear}
	case n < 138:
		l.Do, l.Reader = reference.Stop, reader
	case n < 141:
		l.Do, l.Fields = reference.Close, nil
	default:
		l = Line{Do: "wait", Length: d.ms(200, 1200)}
	}
	return l
}
