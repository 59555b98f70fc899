package reference

import "slices"

// A device that was lost is made anew by approval on the owner's other one: it has what that one has, but for the recovery key and what waits there.

// approver is the event as one of the device that approves the new one.
func (e *Event) approver() *Event {
	by := *e
	by.Who = e.owner() + "/" + map[bool]string{true: "2", false: "1"}[e.Who == e.owner()+"/1"]
	return &by
}

// paired checks what an owner was told who adds a device.
func (m *model) paired(e *Event) {
	by := e.approver()
	if m.ended(e) {
		return
	}
	old, must := m.outdated(by)
	switch e.Result {
	case OK:
		if must || m.rules.OldDevices && old {
			m.violation(e, "another device replaced the root, and one that has the old one approves a new one, or is expected to")
		}
		if m.changing(by) {
			m.violation(e, "the device that approves it announced a new root")
		}
		if e.Attack != "" {
			m.violation(e, "the person typed another word than the devices show")
		}
		if m.rules.AddedLack {
			m.violation(e, "no device is expected to be made so")
		}
	case NotSame:
		if e.Attack == "" {
			m.violation(e, "the person typed the word that the devices show")
		}
		if m.rules.AnyWord {
			m.violation(e, "any word is expected to do")
		}
	case Replaced, "key_replaced":
		if !old {
			m.violation(e, "no other device replaced the root")
		}
	case "unauthorized": // the device could not ask why
		if !old || !m.trouble(e) {
			m.violation(e, "no other device replaced the root, or nothing was away")
		}
	case "succession_pending": // two roots are not handed over while one takes the other's place
		if !m.replacing(by) && !m.announcing(by) && !m.waits(by) {
			m.violation(e, "no new root waits")
		}
	case "unavailable":
		if !m.trouble(e) {
			m.violation(e, "nothing was away")
		}
	default:
		m.violation(e, "an owner is never told so")
	}
}

// changing reports whether a device certainly has a new root that it announced: nobody ended that, or made the device anew.
func (m *model) changing(e *Event) bool {
	return slices.ContainsFunc(m.by[e.Who], func(x *Event) bool {
		return x.Do == Announce && x.Result == OK && x.End <= e.Start && !slices.ContainsFunc(m.of[e.owner()], func(y *Event) bool {
			return y.Start > x.Start && y.Start < e.End && (y.Do == Object || y.Do == Replace || y.Do == Succeed || y.Who == e.Who && y.made())
		})
	})
}

// unsigned reports whether a device may lack the recovery key in force because it was added, or has what one had that was, and whether it certainly does: nobody replaced the root, which makes
// a backup that has one.
func (m *model) unsigned(e *Event) (may, must bool) {
	added := func(of []*Event) bool {
		return slices.ContainsFunc(of, func(x *Event) bool { return x.Do == Pair && x.Result == OK && x.Start < e.Start })
	}
	if !added(m.of[e.owner()]) || !slices.ContainsFunc(m.by[e.Who], func(x *Event) bool { return x.Start < e.Start && x.made() }) {
		return false, false
	}
	return true, added(m.by[e.Who]) && !slices.ContainsFunc(m.of[e.owner()], func(x *Event) bool {
		return x.Start < e.End && x.Start != e.Start && !refusedAtHome(x) && (x.replacesRoot() || x.Do == Announce || x.Do == Rescue && x.Who == e.Who)
	})
}

// secondRoot reports whether a device may be made with a root besides the newest, that something is under still.
func (m *model) secondRoot(pair *Event) bool {
	return slices.ContainsFunc(m.of[pair.owner()], func(r *Event) bool { return r.replacesRoot() && r.Start < pair.End && !refusedAtHome(r) })
}
