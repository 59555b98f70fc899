package reference

import "slices"

// shut reports whether an owner's account may have been closed at some time of an event, and whether it may not have been.
func (m *model) shut(e *Event, owner string) (closed, open bool) {
	for _, w := range m.closed[owner].possible(e.Start, e.End) {
		if w.Event == nil {
			open = true
		} else {
			closed = true
		}
	}
	return closed, open || m.closed[owner] == nil
}

// shutBy reports whether an outcome of a read is what a closed account gives, and learns from one that nothing else explains that it is closed.
func (m *model) shutBy(e *Event, owner string, otherwise bool) bool {
	closed, _ := m.shut(e, owner)
	if !closed || otherwise || m.deaf {
		return closed
	}
	open := m.closed[owner][0]
	open.dead = min(open.dead, e.End) // whichever closed it
	return true
}

// closedBefore reports whether another operation than e may have closed an account before e was over, and told whether the storefront certainly knew before e.
func (m *model) closedBefore(e *Event, owner string) (may, told bool) {
	for _, x := range m.of[owner] {
		if x != e && x.Do == Close && x.Start < e.End {
			may = true
			told = told || x.Result == OK && x.End <= e.Start
		}
	}
	return may, told
}

// ended checks what an owner's device was told whose account is closed, perhaps, and reports whether that explains it.
func (m *model) ended(e *Event) bool {
	o := e.owner()
	closed, open := m.shut(e, o)
	before, told := m.closedBefore(e, o)
	if before && !open && m.rules.ClosedGoesOn {
		m.violation(e, "a device of a closed account is expected to go on")
	}
	if e.Do == Close {
		return e.Result == OK && before
	}
	if e.Result == OK && (told || !open && slices.Contains([]string{Set, Remove, Adopt, Reject, Rotate, Grant, GrantWrite, Replace, Announce, Succeed, Thaw}, e.Do)) {
		m.violation(e, "the account was closed")
	}
	// What was to be ended has ended with the account, as the vault says: a device goes on waiting only while nobody says it.
	if told && !m.trouble(e) && (e.Result == NotStopped || e.Result == NotRotated) {
		m.violation(e, "the account was closed, and all reading with it")
	}
	// A device that was made anew since has nothing any more that it could end.
	return closed && slices.Contains([]string{"account_closed", NotStopped, NotRotated, NoField, "no_grant"}, e.Result)
}

// beside reports whether another device of the same owner was at something during an event: a closing takes the next place in the chain, whatever was there before.
func (m *model) beside(e *Event) bool {
	for _, x := range m.of[e.owner()] {
		if x.Who != e.Who && settles(x) && x.Start < e.End && m.settled(x) > e.Start && !refusedAtHome(x) && x.Result != "account_closed" {
			return true
		}
	}
	return false
}
