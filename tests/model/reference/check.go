package reference

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Violation is an outcome that no state allows.
type Violation struct {
	Event *Event
	What  string
}

// String is the violation for people.
func (v Violation) String() string { return v.What + "\n    " + v.Event.String() }

// Rules can be made wrong on purpose, one at a time, to see that a trace then fails.
type Rules struct {
	RevokedReads     bool // a revoked reader is expected to read on
	ExpiredReads     bool // so is one whose grant has expired
	OlderVersions    bool // a reader is expected to be given the value before the newest
	RemovedReads     bool // a removed field is expected to be there still
	LimitsOneMore    bool // limits are expected one higher
	StrangersReads   bool // a reader without a grant is expected to read
	EndedWrites      bool // a writer whose permission ended is expected to write on
	OwnersOnly       bool // what a writer wrote is expected not to count
	RejectedReads    bool // what was rejected is expected to count
	GivenUpReads     bool // a reader is expected to read what it gave up
	FrozenReads      bool // all reading of an owner was stopped, and a reader is expected to read
	SuspendedReads   bool // a reader is expected to read what it suspended
	DeniedReads      bool // a reader is expected to read what it asked for and was denied
	LateWrites       bool // a writer whose time is over is expected to write on
	EarlyWrites      bool // and one whose time has not come, to write already
	WideDeposits     bool // a source is expected to deposit what the owner did not order
	DepositsAgain    bool // or once more
	StrangersLook    bool // a reader is expected to look up whom only the introduced may
	OldPasswords     bool // a password that was changed is expected to open the profile
	ElevenGuesses    bool // an eleventh is expected to be taken
	AnyPassword      bool // a wrong one is expected to open it
	OldSheets        bool // a sheet that was replaced, or switched off, is expected to work
	AnySheet         bool // one that works, to open nothing
	SilentSheets     bool // and one that works, to be ended without a word
	EarlyRoots       bool // a root that is announced is expected to be in force at once
	ObjectedRoots    bool // and one that somebody objected to, when its time is over
	DeafToObjections bool // nobody is expected to be heard who objects
	OldDevices       bool // a device that was replaced is expected to go on
	ClosedReads      bool // a reader is expected to read of an account that is closed
	ClosedGoesOn     bool // so is its owner, to go on
	ClosedStays      bool // and the storefront to keep what it has of it
	AddedLack        bool // no device is expected to be made by approval
	AnyWord          bool // and whatever word the person types, to do
	AddedSign        bool // one that was added is expected to have the recovery key
	DroppedOpens     bool // what a key server deleted is expected to open
	DropUnlocks      bool // and a deletion, to begin the count of tries anew
	ThawedStops      bool // and to read nothing after the owner ended that
	ForgottenPieces  bool // what a person read of another is expected not to be kept
	KeptForEver      bool // or to be kept when it was taken back, or given up
	BlockedAsk       bool // who is blocked is expected to be heard
}

// Summary counts what was checked.
type Summary struct {
	Operations int            // of owners and readers
	Items      int            // outcomes of reads that were held against the model
	Outcomes   map[string]int // items by outcome
	Answers    map[string]int // operations by result
	Unknown    int            // operations whose outcome was unknown
	Kills      int
}

// slot is what one author says about a field.
type slot struct{ owner, author, field string }

// permitKey is what a reader may read, or a writer write.
type permitKey struct{ owner, reader, field string }

// permissions are of readers, or of writers.
type permissions map[permitKey]register

// authorOf is an owner and somebody who writes for that owner, or the owner again.
type authorOf struct{ owner, author string }

// model is what is known of a trace.
type model struct {
	rules    Rules
	events   []*Event
	of       map[string][]*Event // those of an owner or reader
	by       map[string][]*Event // those of a device
	values   map[slot]register
	permits  permissions
	writers  permissions
	lets     map[permitKey][]string // by field: whom its owner ever lets write it
	frozen   map[string]register    // by owner
	closed   map[string]register    // by owner
	suspends permissions            // of nothing; without a field
	owners   []string
	done     map[*Event]int64               // see settled
	versions map[authorOf]map[uint64]*Event // which publication a version is of
	numbers  map[*Event]uint64              // and the other way round
	anew     map[restated]uint64            // the same of one that publishes everything anew
	shown    map[slot]map[uint64]int        // the number that a version has
	highest  map[slot][]seen
	changes  map[string][]*write // by owner: everything that moves a head
	sets     map[string]map[int]*Event
	ops      map[*Event]*write // of publications
	uses     map[permitKey][]use
	kills    [][2]int64
	secrets  map[string]register // by owner: passwords
	sheets   map[string]register // by owner: recovery sheets
	accounts map[string]register // by owner: versions of what a key server has
	roots    map[string]register // by owner: whether a new one is announced
	halts    [][2]int64          // when the key server was away
	deaf     bool                // it learns nothing from what it checks
	out      []Violation
}

type seen struct {
	start, end int64
	version    uint64
}

// restated is a field that a publication of everything published anew.
type restated struct {
	*Event
	field string
}

// use is a release of a field to a reader, or may be one.
type use struct {
	start, end int64
	certain    bool
	grant      *Event // under which it was, if only one can be meant
	author     string
}

// Check holds a trace against the model. The trace is complete: what happened before it is nothing, and all writes are in it.
func Check(events []Event, rules Rules) (Summary, []Violation) {
	return check(events, rules, false)
}

// check is Check, and ends at the first violation where that is enough.
func check(events []Event, rules Rules, enough bool) (Summary, []Violation) {
	m := &model{
		rules: rules, of: map[string][]*Event{}, by: map[string][]*Event{}, done: map[*Event]int64{}, lets: map[permitKey][]string{}, values: map[slot]register{}, permits: permissions{}, writers: permissions{}, frozen: map[string]register{}, closed: map[string]register{}, secrets: map[string]register{}, sheets: map[string]register{}, accounts: map[string]register{}, roots: map[string]register{}, suspends: permissions{},
		versions: map[authorOf]map[uint64]*Event{}, numbers: map[*Event]uint64{}, anew: map[restated]uint64{}, shown: map[slot]map[uint64]int{}, highest: map[slot][]seen{},
		changes: map[string][]*write{}, sets: map[string]map[int]*Event{},
		ops: map[*Event]*write{}, uses: map[permitKey][]use{},
	}
	for i := range events {
		e := &events[i]
		m.events, m.of[e.owner()], m.by[e.Who] = append(m.events, e), append(m.of[e.owner()], e), append(m.by[e.Who], e)
	}
	m.write()
	sum := Summary{Outcomes: map[string]int{}, Answers: map[string]int{}}
	byEnd := slices.Clone(m.events)
	slices.SortStableFunc(byEnd, func(a, b *Event) int { return cmp.Compare(a.End, b.End) })
	for _, e := range byEnd {
		if enough && len(m.out) > 0 {
			return sum, m.out
		}
		switch e.Do {
		case Kill:
			sum.Kills++
			continue
		case Restart, Restore:
			continue
		case Calm:
			if _, open := m.shut(e, e.owner()); e.Result != OK && (open || e.Result != "account_closed" && e.Result != NotStopped) {
				m.violation(e, "with everything running again, the device does not finish")
			}
			continue
		}
		sum.Operations++
		do := e.Do
		if e.deposits() {
			do = e.Attack
		}
		if e.Terms.Custody != "" {
			do += " " + e.Terms.Custody
		}
		sum.Answers[strings.TrimSpace(do+" "+e.Result)]++
		switch e.Do {
		case Read, Refresh:
			for i := range e.Items {
				sum.Items++
				sum.Outcomes[e.Items[i].Result]++
			}
			if e.Do == Refresh {
				m.refreshed(e)
				break
			}
			m.read(e)
		case Contacts:
			m.contacts(e)
		case Block, Unblock:
			if e.Result != OK {
				m.violation(e, "a person is never told so")
			}
		case Replay, Forge:
			m.attack(e)
		case Suspend:
			if e.Result != OK {
				sum.Unknown++
			}
			m.suspended(e)
		case Ask, Hear, Specify:
			m.asked(e)
		case Register, LookUp, Forward:
			m.registry(e)
		case Collect:
			m.collected(e, &sum)
		case Password, Unlock, Guess, KitPrint, KitReplace, KitOff, KitTest, Rescue, SwitchOff, Drop:
			m.secret(e)
		case Pair:
			m.paired(e)
		case GiveUp:
			if e.Result != OK && !refusedAtHome(e) {
				sum.Unknown++
			}
			m.gaveUp(e)
		case Freeze:
			closed, open := m.shut(e, e.owner())
			if e.Result == OK && !open {
				m.violation(e, "the account was closed")
			}
			if e.Result != OK && (e.Result != "unavailable" || !m.trouble(e)) && (e.Result != "account_closed" || !closed) {
				m.violation(e, "nothing was away")
			}
		case Write:
			if e.Result != OK && !refusedAtHome(e) {
				sum.Unknown++
			}
			m.wrote(e)
		default:
			if e.Result != OK && !refusedAtHome(e) {
				sum.Unknown++
			}
			m.answer(e)
			if e.Do == Answer {
				m.heeded(e)
			}
			if e.Do == Sync && e.Result == OK {
				m.look(e)
			}
			if e.Do == Adopt {
				m.incoming(e)
			}
		}
	}
	m.order()
	m.limits()
	return sum, m.out
}

func (m *model) violation(e *Event, format string, args ...any) {
	m.out = append(m.out, Violation{e, fmt.Sprintf(format, args...)})
}

// refusedAtHome reports whether a device refused an operation before it wrote anything down.
func refusedAtHome(e *Event) bool {
	switch e.Do {
	case Revoke, Stop, GiveUp:
		return e.Result == NoField || e.Result == "no_grant"
	case Thaw:
		return e.Result == "not_found"
	case Password, KitPrint, KitReplace, KitOff, SwitchOff, Drop:
		return slices.Contains([]string{"outdated", "rollback", HasSheet, EndsSheet, EndsWord, "no_account", NotAsked, "not_the_recovery_key"}, e.Result)
	case Announce, Succeed:
		return e.Result == "succession_pending" || e.Result == NotAsked
	case Object:
		return e.Result == "not_found"
	case Answer: // to deny is to grant nothing
		return e.Result == NoField || e.Result == NotAsked || e.Result == "wider_than_asked" || e.Result == "consent_expired" || e.Result == "already_answered"
	case Replace:
		return e.Result == "succession_pending" || e.Result == NoRecovery
	case EndWrite:
		return e.Result == "no_write_grant"
	case Write:
		if e.deposits() && slices.Contains([]string{NotAsked, "wider_than_asked", "order_used"}, e.Result) {
			return true
		}
		return e.Result == "no_write_grant" || e.Result == "write_ended" || e.Result == "grant_not_yet_valid"
	case Adopt, Reject:
		return e.Result == NoField || e.Result == Newer || e.Result == "not_found"
	}
	return e.Result == NoField
}

// write makes registers out of what owners did.
func (m *model) write() {
	for _, e := range m.events {
		if e.Do == Kill && e.Who == "keys" {
			m.halts = append(m.halts, [2]int64{e.Start, e.End})
		} else if e.Do == Kill {
			m.kills = append(m.kills, [2]int64{e.Start, e.End})
		}
	}
	for _, e := range m.events {
		if (settles(e) || e.changesAccount()) && !slices.Contains(m.owners, e.owner()) {
			m.owners = append(m.owners, e.owner())
		}
	}
	suspenders := m.suspenders()
	for _, e := range m.events {
		switch e.Do {
		case Write, GiveUp, Freeze, Suspend, Close:
		default:
			if !settles(e) && !e.changesAccount() && !e.made() {
				continue
			}
		}
		if _, must := m.outdated(e); refusedAtHome(e) || must && e.Result == Replaced {
			continue
		}
		w := write{Event: e, start: e.Start, end: never, order: e.Start, dead: never, acked: e.Result == OK || e.revokes() && e.Result == NotRotated || e.Result == Untold}
		settled := m.settled(e)
		if w.end = settled; w.acked {
			w.end = e.End
		}
		w.until = w.end
		o := e.owner()
		publishes := func(owner, author string, fields []string) {
			if m.sets[owner] == nil {
				m.sets[owner] = map[int]*Event{}
			}
			if e.Number != 0 {
				m.sets[owner][e.Number] = e
			}
			op := w
			m.ops[e] = &op
			for _, f := range fields {
				r, k := w, slot{owner, author, f}
				r.lost = author != owner && (m.ending(&w, owner, author, f) || m.beginning(&w, owner, author, f))
				m.values[k] = append(m.value(k), &r)
			}
		}
		moves := func(owner string) {
			c := w
			c.end = settled
			m.changes[owner] = append(m.changes[owner], &c)
		}
		permits := func(of permissions, fields []string) {
			for _, f := range fields {
				r, k := w, permitKey{o, e.Reader, f}
				of[k] = append(of.at(k), &r)
			}
		}
		announces := func() {
			r := w
			r.maybe = !w.acked // it may have been refused later
			if m.roots[o] == nil {
				m.roots[o] = newRegister()
			}
			m.roots[o] = append(m.roots[o], &r)
		}
		freezes := func() {
			r := m.frozen[o]
			if r == nil {
				r = newRegister()
			}
			m.frozen[o] = append(r, &w)
		}
		if m.takesOver(e) { // it goes on with the new root as well, and publishes the same values anew
			anew := w
			taken := *e
			taken.Do, taken.Number = Restore, 0
			anew.Event, anew.acked, anew.end, anew.until = &taken, false, never, settled
			moved := anew
			moved.end = settled
			m.changes[o] = append(m.changes[o], &moved)
			for _, f := range m.everSet(o) {
				r, k := anew, slot{o, o, f}
				m.values[k] = append(m.value(k), &r)
			}
		}
		if e.suspends() {
			for _, owner := range m.owners {
				r, k := w, permitKey{owner: owner, reader: o}
				r.maybe = e.Do != Suspend && !w.acked
				m.suspends[k] = append(m.suspends.at(k), &r)
			}
		}
		switch e.Do {
		case Set, Adopt, Reject, Remove:
			moves(o)
			publishes(o, o, e.Fields)
		case Write:
			moves(e.Owner)
			publishes(e.Owner, o, e.Fields)
		case Rotate:
			moves(o)
		case Announce, Object:
			announces()
		case Replace, Restore, Succeed, Rescue, Pair:
			if e.replacesRoot() {
				announces()
			}
			if e.Do == Rescue && !m.goesOn(e) || e.Do == Pair && !m.secondRoot(e) {
				continue
			}
			moves(o)
			// The same values anew, but for those that others overtook: what was newest before may be on.
			w.acked, w.end, w.until = false, never, settled
			publishes(o, o, m.everSet(o))
		case Grant, Answer:
			permits(m.permits, e.Fields)
			if e.letsWrite() && e.Do == Answer {
				m.back(&w)
				for _, f := range e.Fields {
					r, k := w, permitKey{o, e.Source, f}
					m.writers[k] = append(m.writers.at(k), &r)
				}
			}
		case Revoke, Stop:
			if !e.Keep {
				moves(o)
			}
			permits(m.permits, m.meant(e))
			m.halves(&w)
		case GrantWrite:
			permits(m.writers, e.Fields)
		case EndWrite:
			permits(m.writers, m.meant(e))
			m.halves(&w)
		case GiveUp:
			for _, f := range e.Fields {
				r, k := w, permitKey{e.Owner, o, f}
				if m.regranting(&w, e.Owner, o, f) {
					r.acked, r.end = false, never
				}
				m.permits[k] = append(m.permits.at(k), &r)
			}
		case Freeze, Thaw:
			freezes()
		case Password, KitPrint, KitReplace, KitOff, SwitchOff, Drop:
			m.account(&w)
		case Close:
			if w.start, w.order = e.Start, e.Start; m.closed[o] == nil {
				m.closed[o] = newRegister()
			}
			m.closed[o] = append(m.closed[o], &w)
		}
		if settles(e) { // a device that sees a reader's new keys grants the same to them: it looks when it syncs, and when it grants something
			for _, reader := range suspenders {
				r, k := w, permitKey{owner: o, reader: reader}
				if m.trouble(e) || e.Do != Sync && (!e.grants() || e.Reader != reader) || !m.showsKeys(reader, e) {
					r.acked, r.maybe, r.end = false, true, settled
				}
				m.suspends[k] = append(m.suspends.at(k), &r)
			}
		}
	}
	for k := range m.writers {
		field := permitKey{owner: k.owner, field: k.field}
		m.lets[field] = append(m.lets[field], k.reader)
	}
	m.outlive()
}

// settled is when everything that the device of an event had begun by then was done. A device takes one thing after the other: the first
// success ends all before it. What a device may have dropped before it wrote it down is never settled.
func (m *model) settled(e *Event) int64 {
	done, known := m.done[e]
	if !known {
		done = m.settles(e)
		m.done[e] = done
	}
	return done
}

func (m *model) settles(e *Event) int64 {
	if e.Result == OK && !e.made() { // which goes on with what had begun
		return e.End
	}
	settled := int64(never)
	switch e.Do {
	case Write, Adopt, Reject, Answer, GiveUp, Freeze, Sync, Close, Password, KitPrint, KitReplace, KitOff, SwitchOff, Drop:
		return settled
	}
	for _, x := range m.by[e.Who] {
		if x.Result == OK && x.Start >= e.End && settles(x) {
			settled = min(settled, x.End)
		}
	}
	// What a device had begun is gone with it.
	for _, x := range m.by[e.Who] {
		if x.made() && x.Start >= e.End && x.Start < settled {
			return never
		}
	}
	return settled
}

// settles reports whether the success of an operation says that everything its device began before is done.
func settles(e *Event) bool {
	switch e.Do {
	case Set, Remove, Grant, Revoke, Answer, Stop, Rotate, Sync, GrantWrite, EndWrite, Adopt, Reject, Thaw, Replace, Announce, Object, Succeed:
		return true
	}
	return false
}

func (m *model) value(k slot) register {
	if r, ok := m.values[k]; ok {
		return r
	}
	return newRegister()
}

func (p permissions) at(k permitKey) register {
	if r, ok := p[k]; ok {
		return r
	}
	return newRegister()
}

// meant are the fields that an owner ends: without names all that were ever given to that reader, or writer, in the trace.
func (m *model) meant(e *Event) []string {
	if len(e.Fields) > 0 {
		return e.Fields
	}
	var out []string
	for _, x := range m.of[e.owner()] {
		if x.Reader == e.Reader && e.revokes() && x.grants() || e.Do == EndWrite && x.lets(e.Reader) {
			out = append(out, x.Fields...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// trouble reports whether a daemon was away at some time in between, or the event's own process was ended.
func (m *model) trouble(e *Event) bool {
	return e.Cut || slices.ContainsFunc(m.kills, func(k [2]int64) bool { return k[0] < e.End && e.Start < k[1] })
}

// rival reports whether another device of the same owner was at something, or had something unfinished, since this device last learnt all there was.
func (m *model) rival(e *Event) bool {
	var learnt int64 = math.MinInt64
	for _, x := range m.by[e.Who] {
		if x.Do == Sync && x.Result == OK && x.End <= e.Start {
			learnt = max(learnt, x.Start)
		}
	}
	for _, x := range m.of[e.owner()] {
		if x.Who == e.Who || !settles(x) && !x.made() || x.Start >= e.End {
			continue
		}
		if x.End >= learnt || !refusedAtHome(x) && m.settled(x) >= learnt {
			return true
		}
	}
	return false
}

// ignorant reports whether a device may know of nothing yet: it was made anew, and has learnt nothing since. One that is made of a backup syncs at once. Who denies needs to learn nothing.
func (m *model) ignorant(e *Event) (ignorant bool) {
	for _, x := range m.by[e.Who] {
		switch {
		case x.Start >= e.Start:
			return ignorant
		case x.made():
			ignorant = x.Do != Restore || m.trouble(x)
		case settles(x) && x.Do != Answer && x.Result == OK:
			ignorant = false
		}
	}
	return ignorant
}

// answer checks what an owner was told.
func (m *model) answer(e *Event) {
	o := e.owner()
	old, must := m.outdated(e)
	if m.ended(e) {
		return
	}
	if must && e.Result == OK || must && m.rules.OldDevices {
		m.violation(e, "another device replaced the root, and this one goes on, or is expected to")
	}
	if m.root(e) {
		return
	}
	switch e.Result {
	case TakenBack:
		if e.Do != Answer || !m.rival(e) && (e.Terms.For == 0 || seconds(e.End) < seconds(e.Start+int64(e.Terms.For))) {
			m.violation(e, "it is no answer, or no other device ended anything of it, and its time was not over")
		}
	case OK:
		if e.Do == Answer {
			m.decided(e)
		}
		if _, lacks := m.unsigned(e); e.Do == Replace && lacks {
			m.violation(e, "a device that was added has no recovery key")
		}
	case Replaced, "key_replaced": // the latter is what the vault says while the storefront does not have the succession yet
		if !old {
			m.violation(e, "no other device replaced the root")
		}
	case "unauthorized": // the device could not ask why
		if !old || !m.trouble(e) {
			m.violation(e, "no other device replaced the root, or nothing was away")
		}
	case NoRecovery:
		if added, _ := m.unsigned(e); e.Do != Replace || !added && !slices.ContainsFunc(m.of[o], func(x *Event) bool { return x.replacesRoot() && x.Start < e.Start }) {
			m.violation(e, "nothing was replaced before")
		}
		if m.rules.AddedSign {
			m.violation(e, "a device that was added is expected to replace the root")
		}
	case "unavailable":
		if !m.trouble(e) {
			m.violation(e, "nothing was away")
		}
	case Untold:
		if e.Do != Close || !m.trouble(e) {
			m.violation(e, "nothing was away, or there is nothing to tell")
		}
	case NotStopped, NotRotated:
		if !m.trouble(e) && !old && (e.Do == Close && !m.beside(e) || !m.rival(e)) {
			m.violation(e, "nothing was away, and no other device at work")
		}
	case ThawOld:
		if !m.thawedBefore(e) {
			m.violation(e, "this device did not ask for the end of a freeze before another one came")
		}
	case Overtaken:
		if !m.rival(e) {
			m.violation(e, "no other device decided anything")
		}
	case "storefront_behind", "chain_moved":
		// What another device did is not on the storefront yet, or came first again and again.
		if !m.rival(e) {
			m.violation(e, "no other device was at work")
		}
	case "party_closed":
		if closed, _ := m.shut(e, e.Reader); !closed {
			m.violation(e, "nobody closed that account")
		}
	case NoField:
		absent := false
		for _, f := range e.Fields {
			for _, w := range m.value(slot{o, o, f}).possible(e.Start, e.End) {
				absent = absent || w.Event == nil || w.Do == Remove
			}
		}
		if len(e.Fields) == 0 || !absent && !m.rival(e) && !m.ignorant(e) {
			m.violation(e, "the fields are there, or none are named, and no other device was at work")
		}
	case "no_grant":
		if !e.revokes() {
			m.violation(e, "an owner is never told so")
		}
		// What a reader gave up a device may not have heard of, or have; and so with all that one had who closed the account.
		if closed, _ := m.shut(e, e.Reader); closed && e.revokes() {
			return
		}
		for _, f := range m.meant(e) {
			if !slices.ContainsFunc(m.permits.at(permitKey{o, e.Reader, f}).possible(e.Start, e.End), func(w *write) bool { return w.Event == nil || !w.grants() }) {
				m.violation(e, "%s is granted", f)
			}
		}
	default:
		if e.Do == Answer && m.decided(e) {
			return
		}
		if e.Do == Thaw && e.Result == "not_found" {
			if _, thawed := m.stopped(e, o); !thawed {
				m.violation(e, "all reading was stopped")
			}
		} else if !m.writersAnswer(e) {
			m.violation(e, "an owner is never told so")
		}
	}
}

// attack checks that what was sent again or made up came to nothing. Whether it had an effect all the same, reads tell.
func (m *model) attack(e *Event) {
	allowed := map[string][]string{
		"read": {"replayed", "request_expired", "unknown_session"},
		// accepted: the newest once more, or one that its owner still waits for. What a writer wrote is refused for its permission first. key_replaced: one that was never
		// accepted, and whose signer, of this script or one before it on the same stage, has other keys since.
		"document":  {"chain_moved", "malformed", "accepted", "no_write_grant", "write_ended", "key_replaced", "account_closed"},
		"author":    {"no_write_grant"},
		"writer":    {"no_write_grant", "write_ended"},
		"signature": {"bad_signature"},
		"old key":   {"key_replaced"},
		"old root":  {"opens nothing"},
		"left":      {"account_closed"},
	}[e.Attack]
	if closed, _ := m.shut(e, e.owner()); closed && slices.Contains([]string{"author", "writer", "signature", "old key"}, e.Attack) {
		allowed = append(allowed, "account_closed")
	}
	if e.Attack == "left" && m.rules.ClosedStays {
		m.violation(e, "the storefront is expected to keep what it has")
	}
	if e.Result == "unavailable" && m.trouble(e) || slices.Contains(allowed, e.Result) {
		return
	}
	m.violation(e, "an attack has this outcome")
}

// read checks a read's items, and what they say together.
func (m *model) read(e *Event) {
	if m.replaced(e) {
		return
	}
	if e.Result != OK {
		if e.Result != "unavailable" && e.Result != "unknown_session" && e.Result != "log_stopped" && e.Result != "log_full" || !m.trouble(e) {
			m.violation(e, "nothing was away, and the reader got no answer")
		}
		// The vault may have counted what it never heard of.
		for i := range e.Items {
			m.counts(e, &e.Items[i], false)
		}
		return
	}
	for i := range e.Items {
		if e.Items[i].Result == None {
			m.none(e, &e.Items[i])
		} else {
			m.item(e, &e.Items[i])
		}
	}
	if e.Do != Refresh { // which is several answers
		m.together(e)
	}
}

// item checks one outcome: is there a permission and a value, both possible at some time of the read, that give it?
func (m *model) item(e *Event, it *Item) {
	permits := m.permits.at(permitKey{it.Owner, e.owner(), it.Field})
	values := m.value(slot{it.Owner, it.Owner, it.Field}) // by the owner
	mayPermit, mayValue := permits.possible(e.Start, e.End), values.possible(e.Start, e.End)
	present := slices.ContainsFunc(mayValue, func(w *write) bool { return w.Event != nil && w.Do != Remove })
	absent := slices.ContainsFunc(mayValue, func(w *write) bool { return w.Event == nil || w.Do == Remove })
	granted := slices.DeleteFunc(slices.Clone(mayPermit), func(w *write) bool { return w.Event == nil || !w.grants() })
	revoked := slices.DeleteFunc(slices.Clone(mayPermit), func(w *write) bool { return w.Event == nil || !w.revokes() && w.Do != GiveUp && w.Do != EndWrite })
	nothing := slices.ContainsFunc(mayPermit, func(w *write) bool { return w.Event == nil })
	bad := func(why string) {
		m.violation(e, "%s:%s is %s: %s", it.Owner, it.Field, it.Result, why)
	}
	frozen, thawed := m.stopped(e, it.Owner)
	if !thawed && !slices.Contains([]string{"no_grant", "grant_revoked", "suspended", "not_found", "frozen", "unavailable", "log_stopped", "log_full", "unknown_session", "storefront_behind"}, it.Result) {
		bad("all reading of this owner was stopped")
	}
	shut, open := m.shut(e, it.Owner)
	if !open {
		if !slices.Contains([]string{"no_grant", "grant_revoked", "unavailable", "log_stopped", "log_full", "unknown_session", "storefront_behind"}, it.Result) {
			bad("the account was closed")
		}
		if m.rules.ClosedReads {
			bad("a reader is expected to read of a closed account")
		}
	}
	suspended, renewed := m.renewed(e, it)
	person := m.person(e.owner())
	if !renewed && person && it.Result == "released" || !renewed && !person && !slices.Contains([]string{"no_grant", "grant_revoked", "suspended", "not_found", "unavailable", "log_stopped", "log_full", "unknown_session", "storefront_behind"}, it.Result) {
		bad("this reader suspended what it had")
	}
	var because []*write // the permissions that explain the outcome
	switch it.Result {
	case "released", "unchanged":
		for _, w := range granted {
			if m.inTime(w, e) {
				because = append(because, w)
			}
		}
		if m.rules.ThawedStops && slices.ContainsFunc(m.frozen[it.Owner], func(w *write) bool { return w.Event != nil && w.Do == Thaw && w.end < e.Start }) {
			bad("all reading is expected to be stopped")
		}
		if m.rules.RevokedReads && len(revoked) == len(mayPermit) || m.rules.StrangersReads && nothing && len(mayPermit) == 1 {
			break
		}
		if len(because) == 0 {
			bad("no grant is in force")
			return
		}
		m.valueOf(e, it)
		m.newest(e, it)
		m.counts(e, it, it.Result == "released")
	case "no_grant":
		if m.rules.DeniedReads && slices.ContainsFunc(m.of[it.Owner], func(x *Event) bool {
			return x.Do == Answer && x.Reader == e.owner() && x.Result == OK && x.End < e.Start && slices.Contains(x.Asked, it.Field)
		}) {
			bad("what was denied is expected to be read")
		}
		if m.rules.StrangersReads && nothing && len(mayPermit) == 1 {
			bad("a stranger is expected to read")
		}
		// A grant that is on its way may be with the vault and not yet on the storefront; one that was revoked before it ever was, too.
		if otherwise := nothing || len(revoked) > 0 && !m.wasGranted(permits, e); !m.shutBy(e, it.Owner, otherwise) && !otherwise {
			bad("there was a grant")
		}
	case "grant_revoked":
		if m.rules.GivenUpReads && slices.ContainsFunc(revoked, func(w *write) bool { return w.Do == GiveUp }) {
			bad("what was given up is expected to be there")
		}
		if m.rules.RevokedReads {
			bad("a revoked reader is expected to read")
		}
		because = revoked
		if otherwise := len(revoked) > 0 || m.otherPurpose(permits, granted, e); !m.shutBy(e, it.Owner, otherwise) && !otherwise {
			bad("nothing was revoked")
		}
		if shut {
			because = nil
		}
	case "suspended":
		if m.rules.SuspendedReads {
			bad("a reader is expected to read")
		}
		// What expired before its owner heard of the suspension is not granted anew.
		if because = granted; len(granted) == 0 || !suspended && !(m.expired(granted, e) && m.hasSuspended(e)) {
			bad("nothing was suspended, or the reader has no grant")
		}
		if person { // the vault released it
			m.counts(e, it, false)
		}
	case "frozen":
		if m.rules.FrozenReads {
			bad("a reader is expected to read")
		}
		if because = granted; len(granted) == 0 || !frozen {
			bad("nothing was stopped, or the reader has no grant")
		}
	case "not_found":
		if m.rules.RemovedReads && slices.ContainsFunc(mayValue, func(w *write) bool { return w.Event != nil }) {
			bad("a removed field is expected to be there")
		}
		// What is there is said after the grant's time was looked at. Of others the grant may be another one, which has expired and does not say what they wrote.
		_, unwritten := m.written(e, it)
		for _, w := range granted {
			if m.inTime(w, e) {
				because = append(because, w)
			}
		}
		if len(because) == 0 || !absent || !unwritten && !m.expired(granted, e) {
			bad("the field is there, or the reader has no grant")
		} else if left := slices.DeleteFunc(slices.Clone(mayValue), func(w *write) bool { return w.Event != nil && w.Do != Remove }); len(left) == 1 {
			m.observed(values, left[0], e)
		}
	case "grant_expired":
		if m.rules.ExpiredReads {
			bad("an expired grant is expected to hold")
		}
		for _, w := range granted {
			if w.expired(e) {
				because = append(because, w)
			}
		}
		if len(because) == 0 { // whether anything is there is not looked at
			bad("no grant has expired")
		}
	case "grant_not_yet_valid":
		for _, w := range granted {
			if w.early(e) {
				because = append(because, w)
			}
		}
		if len(because) == 0 { // likewise
			bad("no grant lies ahead")
		}
	case "limit_reached":
		for _, w := range granted {
			if w.Terms.Limit != 0 && m.inTime(w, e) && m.spent(w.Event, e) >= m.limit(w.Event) {
				because = append(because, w)
			}
		}
		if written, _ := m.written(e, it); len(because) == 0 || !present && !written {
			bad("no limit is reached")
		}
	case "head_moved":
		if !m.moving(it.Owner, e) {
			bad("the owner published nothing meanwhile")
		}
	case "wrong_purpose":
		if !slices.ContainsFunc(granted, func(w *write) bool { return w.Terms.Purpose != granted[0].Terms.Purpose }) {
			bad("there is one purpose, and it is known")
		}
	case "unavailable", "log_stopped", "log_full", "unknown_session", "storefront_behind":
		if !m.trouble(e) {
			bad("nothing was away")
		}
	default:
		bad("a reader is never told so")
	}
	if len(because) == 1 {
		m.observed(permits, because[0], e)
	}
	if it.Result != "released" && it.Result != "unchanged" && m.others(it.Owner, it.Field) > 0 { // others' values may have been released, and were not shown
		m.counts(e, it, false)
	}
}

// expired reports whether a grant may have been over during a read.
func (w *write) expired(e *Event) bool {
	return w.Terms.For != 0 && seconds(e.End) >= seconds(w.Start+int64(w.Terms.From+w.Terms.For))
}

// early reports whether a grant may not have begun during an event.
func (w *write) early(e *Event) bool {
	return w.Terms.From != 0 && seconds(e.Start) < seconds(w.Start+int64(w.Terms.From))+1
}

func (m *model) expired(granted []*write, e *Event) bool {
	return slices.ContainsFunc(granted, func(w *write) bool { return w.expired(e) })
}

func seconds(nanos int64) int64 { return int64(math.Floor(float64(nanos) / float64(time.Second))) }

// inTime reports whether a grant may be in force during a read, by the clock.
func (m *model) inTime(w *write, e *Event) bool {
	t := w.Terms
	if t.From != 0 && seconds(e.End) < seconds(w.Start+int64(t.From)) {
		return false
	}
	return t.For == 0 || seconds(e.Start) < seconds(w.Start+int64(t.From+t.For))+1
}

// wasGranted reports whether a reader was acknowledged a grant before a read, so that the storefront has it to offer.
func (m *model) wasGranted(r register, e *Event) bool {
	return slices.ContainsFunc(r, func(w *write) bool { return w.Event != nil && w.grants() && w.acked && w.end < e.Start })
}

// otherPurpose reports whether a grant for another purpose came before the one in force, which is not usable now. A reader that still names the
// older purpose is offered the older grant, and told that it was revoked: so it is.
func (m *model) otherPurpose(r register, granted []*write, e *Event) bool {
	return slices.ContainsFunc(granted, func(w *write) bool {
		return (w.Terms.For != 0 || w.Terms.From != 0) && slices.ContainsFunc(r, func(x *write) bool {
			return x.Event != nil && x.grants() && x.Terms.Purpose != w.Terms.Purpose && x.start < e.End
		})
	})
}

// moving reports whether the owner's head may have moved during a read.
func (m *model) moving(owner string, e *Event) bool {
	return slices.ContainsFunc(m.changes[owner], func(w *write) bool { return w.start < e.End && w.end >= e.Start })
}

// valueOf checks the value that somebody was shown: it is its author's newest.
func (m *model) valueOf(e *Event, it *Item) {
	bad := func(format string, args ...any) {
		m.violation(e, "%s:%s: %s", it.Owner, it.Field, fmt.Sprintf(format, args...))
	}
	k, by := slot{it.Owner, it.author(), it.Field}, authorOf{it.Owner, it.author()}
	r := m.value(k)
	possible := r.possible(e.Start, e.End)
	if m.shown[k] == nil {
		m.shown[k] = map[uint64]int{}
	}
	known := it.Known == it.Version && cmp.Or(it.By, it.Owner) == it.author()
	if it.Result == "unchanged" {
		if !known || it.Known == 0 {
			bad("unchanged, but version %d was known and %d is named", it.Known, it.Version)
		}
		var seen bool
		if it.Number, seen = m.shown[k][it.Version]; !seen {
			bad("version %d was never seen", it.Version)
			return
		}
	} else if it.Known != 0 && known {
		bad("version %d was known, and sent again", it.Known)
	}
	if m.sets[it.Owner][it.Number] == nil {
		bad("the value #%d was never set", it.Number)
		return
	}
	if other, seen := m.shown[k][it.Version]; seen && other != it.Number {
		bad("version %d stands for #%d and #%d", it.Version, other, it.Number)
	}
	m.shown[k][it.Version] = it.Number
	if m.versions[by] == nil {
		m.versions[by] = map[uint64]*Event{}
	}
	// What may have been published as this version with this value?
	of := m.versions[by][it.Version]
	var because []*write
	for _, w := range possible {
		version, numbered := m.numbers[w.Event]
		if w.Event != nil && w.restates() {
			version, numbered = m.anew[restated{w.Event, it.Field}]
		}
		if w.Event != nil && m.carries(w, it) && (of == nil || of == w.Event || w.restates()) && (!numbered || version == it.Version) {
			because = append(because, w)
		}
	}
	if len(because) == 0 || m.rules.OlderVersions && len(possible) == 1 && len(r) > 2 {
		bad("#%d (version %d) is not what the newest documents say", it.Number, it.Version)
		return
	}
	if len(because) == 1 && because[0].restates() {
		m.anew[restated{because[0].Event, it.Field}] = it.Version
		m.observed(r, because[0], e)
	} else if len(because) == 1 {
		w := because[0]
		m.versions[by][it.Version], m.numbers[w.Event] = w.Event, it.Version
		m.observed(r, w, e)
		op := m.ops[w.Event]
		op.end = min(op.end, e.End)
	}
	for _, s := range m.highest[k] {
		if s.end < e.Start && s.version > it.Version {
			bad("version %d was read before, and now %d", s.version, it.Version)
		}
		if s.end < e.Start && s.version != it.Version && !slices.ContainsFunc(m.changes[it.Owner], func(c *write) bool { return c.start < e.End && c.end >= s.start }) {
			bad("version %d was read before, and now %d, and nobody published meanwhile", s.version, it.Version)
		}
	}
	m.highest[k] = append(m.highest[k], seen{e.Start, e.End, it.Version})
}

// together checks that values which were published at once were read at once: of items in one answer, none may be older than what another's
// publication says of it.
func (m *model) together(e *Event) {
	for i := range e.Items {
		a := &e.Items[i]
		set := m.versions[authorOf{a.Owner, a.author()}][a.Version]
		if a.Number == 0 || set == nil {
			continue
		}
		for j := range e.Items {
			b := &e.Items[j]
			if b.Number != 0 && b.Owner == a.Owner && b.Author == a.Author && b.At == a.At && b.Version < a.Version && slices.Contains(set.Fields, b.Field) {
				m.violation(e, "%s is of version %d, which changed %s too, but that is of version %d", a.Field, a.Version, b.Field, b.Version)
			}
		}
	}
}

// order checks that versions grow with time.
func (m *model) order() {
	for a, va := range m.numbers {
		for b, vb := range m.numbers {
			if a.owner() == b.owner() && a.Owner == b.Owner && m.ops[a].before(m.ops[b]) && va >= vb {
				m.violation(b, "#%d was set after #%d, but its version is %d after %d", b.Number, a.Number, vb, va)
			}
		}
	}
}

// look checks what a device has after it synced: the newest of everything.
func (m *model) look(e *Event) {
	o := e.owner()
	has := map[string]bool{}
	for i := range e.Items {
		it := &e.Items[i]
		if has[it.Field] = true; m.values[slot{o, o, it.Field}] == nil {
			m.violation(e, "the device has %s, which was never set", it.Field)
			continue
		}
		m.valueOf(e, it)
	}
	for k, r := range m.values {
		absent := func(w *write) bool { return w.Event == nil || w.Do == Remove }
		if k.owner == o && k.author == o && !has[k.field] && !slices.ContainsFunc(r.possible(e.Start, e.End), absent) {
			m.violation(e, "the device lacks %s", k.field)
		}
	}
}

// counts notes a use. It counts against every limit on its field and reader, whichever grant it is of.
func (m *model) counts(e *Event, it *Item, certain bool) {
	if !certain && it.Result == "unchanged" || m.deaf {
		return
	}
	key := permitKey{it.Owner, e.owner(), it.Field}
	var grants []*Event
	for _, w := range m.permits.at(key).possible(e.Start, e.End) {
		if w.Event != nil && w.grants() && m.inTime(w, e) {
			grants = append(grants, w.Event)
		}
	}
	u := use{start: e.Start, end: e.End, certain: certain, author: it.author()}
	if certain && len(grants) == 1 {
		u.grant = grants[0]
	}
	m.uses[key] = append(m.uses[key], u)
}

func (m *model) limit(grant *Event) int {
	if m.rules.LimitsOneMore {
		return grant.Terms.Limit + 1
	}
	return grant.Terms.Limit
}

// spent is how many uses may have counted against a grant when a read came. One that failed may count more than once: it was tried again.
func (m *model) spent(grant *Event, read *Event) (n int) {
	for _, f := range grant.Fields {
		each := 1 + 2*m.others(grant.owner(), f) // a read asks for what others wrote too, and for some of it again
		for _, u := range m.uses[permitKey{grant.owner(), grant.Reader, f}] {
			switch {
			case u.certain:
				n += each
			case u.start < read.End:
				n += 3 * each
			}
		}
	}
	// Reads that end later are not in the list yet, and may have been first. What this one asks for besides, of what others wrote, counts too.
	for _, e := range m.of[grant.Reader] {
		if (e.Do == Read || e.Do == Refresh) && e.End >= read.End && e.Start < read.End {
			for _, it := range e.Items {
				if it.Owner == grant.owner() && slices.Contains(grant.Fields, it.Field) {
					n += 2 * m.others(it.Owner, it.Field)
					if e != read {
						n++
					}
				}
			}
		}
	}
	return n
}

// removed reports whether an owner ever removes one of some fields.
func (m *model) removed(owner string, fields []string) bool {
	return slices.ContainsFunc(m.changes[owner], func(c *write) bool {
		return c.Do == Remove && slices.ContainsFunc(c.Fields, func(f string) bool { return slices.Contains(fields, f) })
	})
}

// limits checks that nothing was released beyond a limit: a release under a grant comes after fewer releases of the grant's fields to that reader, that
// day, than the grant permits, whichever grants those were under. Where some of a grant's fields may have moved to a grant of their own, or others
// write them too, that is so field by field and author by author.
func (m *model) limits() {
	for _, grant := range m.events {
		if !grant.grants() || grant.Terms.Limit == 0 {
			continue
		}
		shared := slices.ContainsFunc(grant.Fields, func(f string) bool { return m.others(grant.owner(), f) > 0 })
		if !m.divided(grant) && !shared {
			m.within(grant, grant.Fields, grant.owner())
			continue
		}
		for _, f := range grant.Fields {
			for _, author := range m.authors(grant.owner(), f) {
				m.within(grant, []string{f}, author)
			}
		}
	}
}

// within checks the limit for what one author wrote.
func (m *model) within(grant *Event, fields []string, author string) {
	var uses []use
	for _, f := range fields {
		uses = append(uses, m.uses[permitKey{grant.owner(), grant.Reader, f}]...)
	}
	uses = slices.DeleteFunc(uses, func(u use) bool { return u.author != author })
	day := func(at int64) int64 { return at / int64(24*time.Hour) }
	under := map[int64]int{}
	for _, u := range uses {
		if u.grant != grant || day(u.start) != day(u.end) {
			continue
		}
		before := 0
		for _, o := range uses {
			if o.certain && o.end < u.start && day(o.start) == day(u.start) {
				before++
			}
		}
		// Whichever of those under the grant came last, all others had come before it.
		under[day(u.start)]++
		if max(before, under[day(u.start)]-1) >= m.limit(grant) {
			m.violation(grant, "%v was released under a limit of %d after at least %d releases that day", fields, grant.Terms.Limit, max(before, under[day(u.start)]-1))
			return
		}
	}
}

// divided reports whether some of a grant's fields, and not all, may have got another grant with the same terms: in a rotation, or when a field was set again
// that was removed.
func (m *model) divided(grant *Event) bool {
	return len(grant.Fields) > 1 && slices.ContainsFunc(m.changes[grant.owner()], func(c *write) bool {
		return (c.Do == Rotate || c.restates() || c.revokes() || c.Do == Set && m.removed(c.owner(), c.Fields)) && c.end >= grant.Start
	})
}
