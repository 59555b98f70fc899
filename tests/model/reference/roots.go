package reference

import (
	"slices"
	"time"
)

// Wait is how long a root that is replaced without the recovery key is announced before: that of the vault which is played against, where people wait for 72 hours.
const Wait = 2 * time.Second

// replacesRoot reports whether an operation gives an owner a new root.
func (e *Event) replacesRoot() bool {
	return e.Do == Replace || e.Do == Succeed && e.Result != NotAsked
}

// restates reports whether an operation publishes everything anew, or may: it gives the owner a new root, or makes a device that goes on with that.
func (e *Event) restates() bool { return e.replacesRoot() || e.made() }

// made reports whether a device was made anew: what it had begun is gone.
func (e *Event) made() bool {
	return e.Do == Restore || (e.Do == Rescue || e.Do == Pair) && e.Result == OK
}

// announced reports whether a new root may have been announced at some time of an event, and whether it certainly was throughout.
func (m *model) announced(e *Event) (may, must bool) {
	r := m.roots[e.owner()]
	if r == nil {
		return false, false
	}
	must = true
	for _, w := range r.possible(e.Start, e.End) {
		switch {
		case w.Event == e:
		case w.Event != nil && w.Do == Announce:
			may = true
		default:
			must = false
		}
	}
	return may, may && must
}

// announcing reports whether a device may have something of a new root that it announced, or that it was made with: until it learns that this is over.
func (m *model) announcing(e *Event) bool {
	some := func(is func(y *Event) bool) bool { return slices.ContainsFunc(m.of[e.owner()], is) }
	for _, x := range m.of[e.owner()] {
		if x.Do != Announce || x.Start >= e.Start || refusedAtHome(x) {
			continue
		}
		if x.Who != e.Who && !some(func(y *Event) bool {
			return y.Who == e.Who && y.made() && y.Do != Pair && y.End > x.Start && y.Start < e.Start
		}) {
			continue // it has nothing of this one
		}
		ends := func(y *Event) bool {
			return (y.Do == Object || y.Do == Replace || y.Do == Succeed) && y.Result == OK && y.Start >= x.End
		}
		if !some(func(y *Event) bool {
			return y.Who == e.Who && y.End <= e.Start && (ends(y) || (y.Do == Sync && y.Result == OK || y.Do == Succeed && y.Result == NotAsked) && some(func(z *Event) bool { return ends(z) && z.End <= y.Start }))
		}) {
			return true
		}
	}
	return false
}

// waits reports whether something of an announcement may be in the queue of a device.
func (m *model) waits(e *Event) bool {
	for _, x := range m.by[e.Who] {
		if (x.Do == Announce || x.Do == Succeed || x.Do == Object) && x.Start < e.Start && !refusedAtHome(x) && m.settled(x) >= e.Start {
			return true
		}
	}
	return false
}

// pending reports whether an owner's device may be told that a new root waits.
func (m *model) pending(e *Event) bool {
	switch e.Do {
	case Replace:
		return m.replacing(e) || m.takesOver(e)
	case Announce:
		may, _ := m.announced(e)
		return may || m.replacing(e) || m.announcing(e)
	case Succeed:
		return m.early(e) || m.waits(e)
	}
	return m.waits(e)
}

// early reports whether the time of what is announced may not be over when a device carries it out.
func (m *model) early(e *Event) bool {
	return slices.ContainsFunc(m.roots[e.owner()].possible(e.Start, e.End), func(w *write) bool {
		return w.Event != nil && w.Do == Announce && (w.end == never || seconds(e.Start) <= seconds(w.end+int64(Wait)))
	})
}

// root checks what an owner was told who announces a new root, objects, or carries it out, and reports whether that explains it.
func (m *model) root(e *Event) bool {
	may, must := m.announced(e)
	switch {
	case e.Do == Announce && e.Result == OK:
		if must {
			m.violation(e, "another one was announced")
		}
	case e.Do == Object && e.Result == OK:
		if !may && !m.announcing(e) {
			m.violation(e, "nothing was announced")
		}
		if m.rules.DeafToObjections {
			m.violation(e, "nobody is expected to be heard who objects")
		}
	case e.Do == Object && e.Result == "not_found":
		if must {
			m.violation(e, "a new root was announced")
		}
	case e.Do == Succeed && e.Result == OK:
		if !slices.ContainsFunc(m.roots[e.owner()].possible(e.Start, e.End), func(w *write) bool {
			return w.Event != nil && w.Do == Announce && seconds(e.End) >= seconds(w.start+int64(Wait))
		}) {
			m.violation(e, "nobody announced it, or its time is not over")
		}
	case e.Do == Succeed && e.Result == NotAsked:
		if may && must && !m.rivalRoot(e) {
			m.violation(e, "this device announced a new root")
		}
		if m.rules.ObjectedRoots && slices.ContainsFunc(m.of[e.owner()], func(x *Event) bool { return x.Do == Object && x.End <= e.Start }) {
			m.violation(e, "what somebody objected to is expected to be in force")
		}
	case e.Result == "succession_pending":
		if !m.pending(e) {
			m.violation(e, "no new root waits")
		}
		if e.Do == Succeed && m.rules.EarlyRoots {
			m.violation(e, "what is announced is expected to be in force at once")
		}
	default:
		return false
	}
	return true
}

// follows reports whether a device may have the root that another one put in force, which was announced, and whether it certainly has: then it goes on with it.
func (m *model) follows(e, succeed *Event) (may, must bool) {
	if succeed.Do != Succeed {
		return false, false
	}
	announced := 0
	for _, w := range m.roots[e.owner()].possible(succeed.Start, succeed.End) {
		if w.Event == nil || w.Do != Announce {
			continue
		}
		announced++
		since := func(y *Event) bool { return y.made() && y.End > w.start && y.Start < e.End }
		may = may || w.Who == e.Who || slices.ContainsFunc(m.by[e.Who], func(y *Event) bool { return since(y) && y.Do != Pair }) // which hands over nothing of it
		must = w.Who == e.Who && w.acked && !slices.ContainsFunc(m.by[e.Who], since)
	}
	return may, must && announced == 1
}

// takesOver reports whether a device may learn by an operation that another one carried out what was announced, with the root that it has too.
func (m *model) takesOver(e *Event) bool {
	return settles(e) && slices.ContainsFunc(m.of[e.owner()], func(r *Event) bool {
		if r.Do != Succeed || refusedAtHome(r) || r.Who == e.Who || r.Start >= e.End {
			return false
		}
		has, _ := m.follows(e, r)
		return has && !slices.ContainsFunc(m.by[e.Who], func(x *Event) bool {
			return settles(x) && x.Result == OK && x.Start >= r.End && x.End <= e.Start
		})
	})
}

// rivalRoot reports whether what is announced may be another device's: this one announced nothing, or was made anew since.
func (m *model) rivalRoot(e *Event) bool {
	return slices.ContainsFunc(m.roots[e.owner()].possible(e.Start, e.End), func(w *write) bool {
		return w.Event != nil && w.Do == Announce && (w.Who != e.Who || slices.ContainsFunc(m.by[e.Who], func(x *Event) bool { return x.made() && x.End > w.start && x.Start < e.Start }))
	})
}
