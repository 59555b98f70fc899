package reference

import (
	"cmp"
	"slices"
)

// A person is a reader as a business is, under the identity of an owner. What others let a person read the device fetches all at once and keeps. A new root suspends nothing at the vault: the person
// reads on what is no news, and what is news once the others' devices have seen the new keys.

// person reports whether a reader is a person.
func (m *model) person(reader string) bool { return slices.Contains(m.owners, reader) }

// left reports whether a person is told that the account is closed, or is not let in for that.
func (m *model) left(e *Event) bool {
	closed, _ := m.shut(e, e.owner())
	return closed && (e.Result == "account_closed" || e.Result == "unauthorized")
}

// showsKeys reports whether a person has certainly shown the keys of the newest root before an event, as one does who reads. Others grant nothing to keys that they do not see.
func (m *model) showsKeys(reader string, e *Event) bool {
	return !slices.ContainsFunc(m.of[reader], func(r *Event) bool {
		return r.replacesRoot() && r.Start < e.End && !refusedAtHome(r) && !slices.ContainsFunc(m.of[reader], func(x *Event) bool {
			return x.Do == Refresh && x.Result == OK && x.Start >= r.End && x.End <= e.Start
		})
	})
}

// receives reports whether a person's operation fetches what was sent to them.
func (e *Event) receives() bool { return e.Do == Hear || e.Do == Answer }

// gone reports whether a refusal says that there is nothing any more that may be read, so that it is not kept either.
func gone(result string) bool {
	return slices.Contains([]string{"no_grant", "grant_revoked", "grant_expired", "not_found"}, result)
}

// keeps are what a device may keep of somebody's field when an event begins; nil is nothing.
func (m *model) keeps(e *Event, owner, field string) []*Item {
	may := []*Item{nil}
	for _, x := range m.by[e.Who] {
		if x.Start >= e.Start {
			break
		}
		switch {
		case x.made():
			may = []*Item{nil}
		case x.Do == Refresh && x.Result == OK:
			for i := range x.Items {
				switch it := &x.Items[i]; {
				case it.Owner != owner || it.Field != field:
				case it.Result == "released" || it.Result == "unchanged":
					may = []*Item{it}
				case it.Result == None || gone(it.Result):
					may = []*Item{nil}
				}
			}
		case x.Do == GiveUp && x.Owner == owner && slices.Contains(x.Fields, field) && !refusedAtHome(x):
			if may = append(may, nil); x.Result == OK {
				may = []*Item{nil}
			}
		case x.receives():
			told, surely := m.toldToDelete(x, owner, field)
			if told {
				may = append(may, nil)
			}
			if surely {
				may = []*Item{nil}
			}
		}
	}
	return may
}

// toldToDelete reports whether a device that receives may be told to delete somebody's field, and whether it certainly is: the owner withdrew it, and no device of that person looked since.
func (m *model) toldToDelete(e *Event, owner, field string) (may, must bool) {
	received := e.Result == OK || refusedAtHome(e) // which comes after it
	_, blocks := m.blocks(e, owner)
	for _, stop := range m.of[owner] {
		if stop.Do != Stop || stop.Reader != e.owner() || stop.Start >= e.End || refusedAtHome(stop) || !slices.Contains(m.meant(stop), field) {
			continue
		}
		may = true
		must = must || received && stop.Result == OK && stop.End <= e.Start && !slices.ContainsFunc(m.of[e.owner()], func(x *Event) bool {
			return x != e && x.receives() && x.Start < e.End && x.End > stop.Start
		}) && !blocks
	}
	return may, must
}

// keepsThis reports whether a device may keep what it says it does.
func (m *model) keepsThis(e *Event, it *Item, version uint64, by string) bool {
	return slices.ContainsFunc(m.keeps(e, it.Owner, it.Field), func(have *Item) bool {
		return have == nil && version == 0 || have != nil && have.Version == version && have.author() == by && (it.Result != Kept || have.Number == it.Number)
	})
}

// contacts checks what a person keeps: what was read last, until it was taken away, and nothing else.
func (m *model) contacts(e *Event) {
	if e.Result != OK {
		m.violation(e, "a person is never told so")
	}
	type place struct{ owner, field string }
	has := map[place]bool{}
	for i := range e.Items {
		it := &e.Items[i]
		if has[place{it.Owner, it.Field}] = true; it.Result != Kept || !m.keepsThis(e, it, it.Version, it.author()) {
			m.violation(e, "%s:%s is not what was kept", it.Owner, it.Field)
		}
		if m.rules.ForgottenPieces {
			m.violation(e, "what was read is expected to be forgotten")
		}
	}
	for _, x := range m.by[e.Who] {
		for i := range x.Items {
			it := &x.Items[i]
			if at := (place{it.Owner, it.Field}); !has[at] {
				if has[at] = true; !m.keepsThis(e, &Item{Owner: it.Owner, Field: it.Field}, 0, "") {
					m.violation(e, "%s:%s was kept, and nobody took it away", it.Owner, it.Field)
				}
				if m.rules.KeptForEver && slices.ContainsFunc(m.by[e.Who], func(y *Event) bool {
					return y.Do == GiveUp && y.Result == OK && y.Owner == it.Owner && slices.Contains(y.Fields, it.Field)
				}) {
					m.violation(e, "what was given up is expected to be kept")
				}
			}
		}
	}
}

// refreshed checks what a person was told who reads anew all that others let them: each item is one of a read, or nothing that could be read.
func (m *model) refreshed(e *Event) {
	if m.left(e) {
		return
	}
	for i := range e.Items {
		it := &e.Items[i]
		if !m.keepsThis(e, it, it.Known, cmp.Or(it.By, it.Owner)) {
			m.violation(e, "%s:%s: what was kept is not what was read last", it.Owner, it.Field)
		}
		if it.Known == 0 && gone(it.Result) {
			m.violation(e, "%s:%s is gone, and was not here", it.Owner, it.Field)
		}
		if m.rules.KeptForEver && it.Known != 0 && gone(it.Result) {
			m.violation(e, "what was taken back is expected to be kept")
		}
	}
	m.read(e)
}

// none checks that nothing of a field was there to be read, for whatever reason.
func (m *model) none(e *Event, it *Item) {
	if it.Known != 0 {
		m.violation(e, "%s:%s was kept, and it is not said why it is gone", it.Owner, it.Field)
	}
	m.either(e, it, "no_grant", "grant_revoked", "grant_expired", "not_found", "suspended")
}

// either checks that one of several outcomes is possible. If it is one alone, that is what came of it; of several it learns nothing.
func (m *model) either(e *Event, it *Item, results ...string) {
	before, learns := len(m.out), m.deaf
	var fits []Item
	m.deaf = true
	for _, r := range results {
		m.out = m.out[:before]
		other := *it
		other.Result = r
		if m.item(e, &other); len(m.out) == before {
			fits = append(fits, other)
		}
	}
	m.deaf = learns
	if len(fits) > 0 {
		m.out = m.out[:before]
	}
	if len(fits) == 1 {
		m.item(e, &fits[0])
	}
}

// blocks reports whether a device throws away what somebody sends when an event begins, and since when. One that was made anew throws away nothing.
func (m *model) blocks(e *Event, whose string) (since int64, blocks bool) {
	for _, x := range m.by[e.Who] {
		switch {
		case x.Start >= e.Start:
			return since, blocks
		case x.Do == Block && x.Reader == whose && !blocks:
			since, blocks = x.End, true
		case x.Do == Unblock && x.Reader == whose, x.made():
			blocks = false
		}
	}
	return since, blocks
}

// heeded checks that nobody answers who does not hear.
func (m *model) heeded(e *Event) {
	since, blocks := m.blocks(e, e.Reader)
	if !blocks {
		return
	}
	for _, ask := range m.of[e.Reader] {
		if ask.Start < since {
			continue
		}
		if e.About != "" && ask.About == e.About {
			m.violation(e, "it was blocked when it asked")
		}
		if m.rules.BlockedAsk && e.Result == NotAsked && ask.Do == Ask && ask.Owner == e.owner() && ask.End <= e.Start {
			m.violation(e, "who is blocked is expected to be heard")
		}
	}
}
