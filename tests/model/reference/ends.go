package reference

import "slices"

// stopped reports whether all reading of an owner may have been stopped at some time of an event, and whether it may not have been.
func (m *model) stopped(e *Event, owner string) (frozen, thawed bool) {
	r := m.frozen[owner]
	if r == nil {
		return false, true
	}
	for _, w := range r.possible(e.Start, e.End) {
		if w.Event != nil && w.Do == Freeze {
			frozen = true
		} else {
			thawed = true
		}
	}
	return frozen, thawed
}

// outlive notes which thaws ended nothing any more after a freeze: those that were asked for before it, by the second, ended what was frozen then, if anything.
func (m *model) outlive() {
	for _, r := range m.frozen {
		for _, f := range r {
			for _, w := range r {
				if f.Event != nil && w.Event != nil && f.Do == Freeze && f.acked && w.Do == Thaw && seconds(w.End) < seconds(f.Start) {
					w.dead = min(w.dead, f.End)
				}
			}
		}
	}
}

// thawedBefore reports whether the device of an event may have asked for the end of a freeze before another freeze came.
func (m *model) thawedBefore(e *Event) bool {
	return slices.ContainsFunc(m.of[e.owner()], func(f *Event) bool {
		return f.Do == Freeze && f.Start < e.End && slices.ContainsFunc(m.by[e.Who], func(x *Event) bool {
			return x.Do == Thaw && x.Start < f.End && (x.Start == e.Start || x.Start < e.Start && x.Result != OK && !refusedAtHome(x))
		})
	})
}

// regranting reports whether an owner's device may have been about to grant the same anew when a reader gave it up: with a rotation, or because somebody was let write.
// What is given up is what the reader had then.
func (m *model) regranting(w *write, owner, reader, field string) bool {
	for _, x := range m.of[owner] {
		if x.Start >= w.end || m.settled(x) <= w.start || refusedAtHome(x) {
			continue
		}
		switch x.Do {
		case Replace, Restore, Succeed, Rescue:
			return true
		case Pair:
			if m.secondRoot(x) {
				return true
			}
		case Rotate, GrantWrite:
			if slices.Contains(x.Fields, field) {
				return true
			}
		case Revoke, Stop:
			if !x.Keep && slices.Contains(m.meant(x), field) {
				return true
			}
		case Set:
			if m.removed(owner, []string{field}) && slices.Contains(x.Fields, field) {
				return true
			}
		case Grant, Answer:
			if (x.Reader == reader || x.letsWrite()) && slices.Contains(x.Fields, field) {
				return true
			}
		case Sync:
			if m.person(reader) && m.hasSuspended(w.Event) {
				return true
			}
		}
	}
	return false
}

// suspends reports whether an operation takes keys out of use that owners granted to.
func (e *Event) suspends() bool { return e.Do == Suspend || e.replacesRoot() }

// suspenders are the readers, and people, that ever suspend their grants in the trace.
func (m *model) suspenders() (out []string) {
	for _, e := range m.events {
		if e.suspends() && !slices.Contains(out, e.owner()) {
			out = append(out, e.owner())
		}
	}
	return out
}

// hasSuspended reports whether a reader had begun to suspend its grants when its read ended.
func (m *model) hasSuspended(read *Event) bool {
	return slices.ContainsFunc(m.of[read.owner()], func(e *Event) bool { return e.suspends() && e.Start < read.End && !refusedAtHome(e) })
}

// renewed reports whether what a reader has of an owner may have been suspended during a read, and whether it may have been in force.
func (m *model) renewed(e *Event, it *Item) (suspended, renewed bool) {
	if !m.hasSuspended(e) {
		return false, true
	}
	for _, w := range m.suspends.at(permitKey{owner: it.Owner, reader: e.owner()}).possible(e.Start, e.End) {
		if w.Event != nil && w.suspends() && w.owner() == e.owner() {
			suspended = true
		} else {
			renewed = true
		}
	}
	return suspended, renewed
}

// replaced checks a reader's device whose keys another one replaced, and reports whether it was told so.
func (m *model) replaced(e *Event) bool {
	may, must := m.outdated(e)
	told := slices.Contains([]string{Replaced, "key_replaced", "unauthorized"}, e.Result)
	if told && !may && !(e.Result == "key_replaced" && m.person(e.owner()) && m.replacing(e)) { // what it replaces, or was made with, may be with the vault alone until it has synced
		m.violation(e, "no other device replaced the keys")
	}
	if must && (e.Result == OK || m.rules.OldDevices) {
		m.violation(e, "another device replaced the keys, and this one goes on, or is expected to")
	}
	return told
}

// suspended checks what a reader was told who suspends its grants.
func (m *model) suspended(e *Event) {
	if m.replaced(e) || e.Result == OK {
		return
	}
	switch e.Result {
	case NoRecovery, "succession_pending":
		if may, _ := m.outdated(e); !may && !slices.ContainsFunc(m.of[e.owner()], func(x *Event) bool { return x.Do == Suspend && x.Start < e.Start }) {
			m.violation(e, "nothing was replaced before")
		}
	case "unavailable", "log_stopped", "log_full":
		if !m.trouble(e) {
			m.violation(e, "nothing was away")
		}
	default:
		m.violation(e, "a reader is never told so")
	}
}

// gaveUp checks what a reader was told who gives something up.
func (m *model) gaveUp(e *Event) {
	may := func(f string, able func(*write) bool) bool {
		return slices.ContainsFunc(m.permits.at(permitKey{e.Owner, e.owner(), f}).possible(e.Start, e.End), able)
	}
	if m.replaced(e) || m.left(e) {
		return
	}
	closed, open := m.shut(e, e.Owner)
	if closed && (e.Result == "no_grant" || e.Result == "account_closed") {
		return
	}
	switch e.Result {
	case OK:
		if !open {
			m.violation(e, "the account was closed")
		}
		// What is over anyway, of a grant that is in force otherwise, may be given up too.
		for _, f := range e.Fields {
			if !slices.ContainsFunc(m.permits.at(permitKey{e.Owner, e.owner(), f}), func(w *write) bool { return w.Event != nil && w.grants() && w.start < e.End }) {
				m.violation(e, "%s was never granted", f)
			}
		}
	case "no_grant":
		if !slices.ContainsFunc(e.Fields, func(f string) bool {
			return may(f, func(w *write) bool { return w.Event == nil || !w.grants() || w.expired(e) })
		}) {
			m.violation(e, "all of it was granted")
		}
	case "unavailable", "log_stopped", "log_full":
		if !m.trouble(e) {
			m.violation(e, "nothing was away")
		}
	default:
		m.violation(e, "a reader is never told so")
	}
}

// everSet are the fields that an owner ever publishes in the trace.
func (m *model) everSet(owner string) []string {
	var out []string
	for _, x := range m.of[owner] {
		if x.Do == Set || x.Do == Adopt {
			out = append(out, x.Fields...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// replacing reports whether a device may be in the middle of replacing the root, by itself or since it was made anew.
func (m *model) replacing(e *Event) bool {
	for _, x := range m.by[e.Who] {
		if x.restates() && x.Start < e.Start && m.settled(x) >= e.Start {
			return true
		}
	}
	return false
}

// outdated reports whether another device may have replaced the root since this one was made, and whether it certainly had before the event. One that was made with a sheet is what the sheet
// opened: of before a new root, perhaps, which it replaced itself.
func (m *model) outdated(e *Event) (may, must bool) {
	for _, r := range m.of[e.owner()] {
		if !r.replacesRoot() && r.Do != Suspend || r.Start >= e.End || refusedAtHome(r) || r.Result == Replaced {
			continue
		}
		renewed, perhaps := m.has(e, r)
		if has, sure := m.follows(e, r); has {
			renewed, perhaps = renewed || sure, true
		}
		may = may || !renewed
		must = must || !perhaps && r.Result == OK && r.End <= e.Start
	}
	return may, must
}

// has reports whether a device certainly has a new root, and whether it may have it: it made that, or was made anew since of something that has it.
func (m *model) has(e, r *Event) (certainly, perhaps bool) {
	certainly = r.Who == e.Who && r.Start < e.End
	perhaps = certainly
	for _, x := range m.by[e.Who] {
		switch {
		case x.Start >= e.End || x == e:
		case x.Do == Restore:
			certainly = certainly || x.Start >= r.End
			perhaps = perhaps || x.End > r.Start
		case !x.made() || x.Start <= r.Start && r.Who == e.Who:
		case x.Do == Pair && x.End <= e.Start:
			certainly, perhaps = m.has(x.approver(), r)
		case x.Do == Rescue:
			old, sure := m.stale(x, r)
			certainly, perhaps = !old, !sure
		}
	}
	return certainly, perhaps
}
