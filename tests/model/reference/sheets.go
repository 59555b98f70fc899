package reference

import "slices"

// A key server has one account of an owner: a password, a recovery sheet, and the profile that either opens. Each change of one of the two is the account's next version. A device that did
// not make the newest, and has not the key of its profile, drops the other one with it; so does a device after the root was replaced.

// changesAccount reports whether an operation makes the next version of an account.
func (e *Event) changesAccount() bool {
	switch e.Do {
	case Password, KitPrint, KitReplace, KitOff, SwitchOff, Drop:
		return true
	}
	return false
}

// prints reports whether a write to the register of sheets is one that works.
func (w *write) prints() bool { return w.Event != nil && (w.Do == KitPrint || w.Do == KitReplace) }

// unseenBy reports whether a sheet is none to the device that replaced one by it: the answer was lost, so nobody was shown its code.
func (w *write) unseenBy(device string) bool { return w.prints() && w.Who == device && w.Result != OK }

// newRoot reports whether a new root may have come into force since any version of an owner's account that was made before an event, and whether it certainly did.
func (m *model) newRoot(e *Event) (may, must bool) {
	for _, r := range m.of[e.owner()] {
		if !r.replacesRoot() || r.Start >= e.End || refusedAtHome(r) {
			continue
		}
		// A version that the same device made of the new root settles it.
		made := func(is func(x *Event) bool) bool {
			return slices.ContainsFunc(m.of[e.owner()], func(x *Event) bool {
				return x.changesAccount() && x.Start != e.Start && x.Start < e.End && is(x)
			})
		}
		may = may || !made(func(x *Event) bool {
			return x.Who == e.Who && x.Result == OK && x.Start >= m.settled(r) && x.End <= e.Start
		})
		must = must || r.Result == OK && r.End <= e.Start && !made(func(x *Event) bool { return x.End > r.Start && !refusedAtHome(x) })
	}
	return may, must
}

// account makes writes of a change of an owner's account.
func (m *model) account(w *write) {
	o := w.owner()
	at := func(of map[string]register) register {
		if of[o] == nil {
			return newRegister()
		}
		return of[o]
	}
	add := func(of map[string]register, w write) { of[o] = append(at(of), &w) }
	if w.Do == SwitchOff {
		off := *w
		may, must := m.seenTo(w.Event)
		if off.maybe = may; !must {
			add(m.accounts, off)
			add(m.secrets, off)
			add(m.sheets, off)
		}
		return
	}
	add(m.accounts, *w)
	if w.Do == Drop {
		add(m.secrets, *w)
		add(m.sheets, *w)
		return
	}
	may, must := m.newRoot(w.Event)
	other := *w // the one of the two that it does not change is on, or dropped
	other.maybe = !must || !w.acked
	switch w.Do {
	case Password:
		add(m.secrets, *w)
		if may || w.Again {
			add(m.sheets, other)
		}
	default:
		add(m.sheets, *w)
		if may || w.Again {
			add(m.secrets, other)
		}
	}
}

// seenTo reports whether another device may have changed the account since the root was replaced, so that nothing is left to be switched off, and whether it certainly has.
func (m *model) seenTo(off *Event) (may, must bool) {
	for _, x := range m.of[off.owner()] {
		if !x.changesAccount() || x.Who == off.Who || x.Start >= off.End || refusedAtHome(x) {
			continue
		}
		since := func(is func(r *Event) bool) bool { // all that replaced the root
			return !slices.ContainsFunc(m.of[off.owner()], func(r *Event) bool {
				return r.replacesRoot() && r.Start < off.End && !refusedAtHome(r) && !is(r)
			})
		}
		may = may || since(func(r *Event) bool { return x.End > r.Start })
		must = must || x.Result == OK && x.End <= off.Start && since(func(r *Event) bool { return r.Result == OK && x.Start >= r.End })
	}
	return may, must
}

// knows reports whether a device may know of an account, and whether it certainly does.
func (m *model) knows(e *Event) (may, must bool) {
	for _, x := range m.by[e.Who] {
		if x.Start >= e.Start {
			continue
		}
		switch {
		case x.Do == Restore:
			must = false
		case x.Do == Pair && x.Result == OK:
			may, must = m.knows(x.approver())
		case x.Do == Drop:
			may, must = may && x.Result != OK, must && refusedAtHome(x)
		case x.Do == Rescue && x.Result == OK, x.changesAccount() && x.Result == OK && x.Do != SwitchOff:
			may, must = true, true
		case x.changesAccount():
			may = true
		}
	}
	return may, must
}

// unknown reports whether a device certainly does not know the newest version of the account: another one made it, and this one did not ask since.
func (m *model) unknown(e *Event) bool {
	dropped := func(since *Event) bool { // and no version of it is left
		return slices.ContainsFunc(m.of[e.owner()], func(x *Event) bool {
			return x.Do == Drop && x != since && x.Start < e.End && x.End > since.Start && !refusedAtHome(x)
		})
	}
	_, knows := m.knows(e)
	return slices.ContainsFunc(m.of[e.owner()], func(x *Event) bool {
		return x.changesAccount() && x.Who != e.Who && x.Result == OK && x.End < e.Start && (x.Do != Drop || knows) && !dropped(x) && !slices.ContainsFunc(m.by[e.Who], func(y *Event) bool {
			return y.Start < e.Start && y.End > x.Start && ((y.Do == Rescue || y.Do == Pair) && y.Result == OK || y.changesAccount() && (y.Again || y.Do == SwitchOff || y.Result == OK))
		})
	})
}

// apart reports whether a device may be told that another one changed the account: so it is, or this one does not know what it did itself because the answer was lost, or it was made anew.
func (m *model) apart(e *Event) bool {
	return slices.ContainsFunc(m.of[e.owner()], func(x *Event) bool {
		if x.Start >= e.End || x.Start == e.Start && x.Who == e.Who {
			return false
		}
		if e.Again || e.Do == SwitchOff || e.Do == Drop { // somebody else is faster
			return (x.changesAccount() || x.Do == Unlock) && x.End > e.Start
		}
		return x.changesAccount() && !refusedAtHome(x) && (x.Who != e.Who || x.Result != OK) || x.Do == Restore || x.Do == Pair || x.Do == Replace || x.Do == Succeed
	})
}

// sheet checks what an owner was told about a recovery sheet.
func (m *model) sheet(e *Event) {
	possible := m.sheetsOf(e)
	may, must := m.knows(e)
	renewed, surely := m.newRoot(e)
	works := slices.ContainsFunc(possible, (*write).prints)
	none := slices.ContainsFunc(possible, func(w *write) bool { return !w.prints() || w.unseenBy(e.Who) })
	switch {
	case e.Result == "outdated" && e.changesAccount():
		if !m.apart(e) {
			m.violation(e, "no other device changed the account")
		}
	case e.Result == "no_account" && (e.Do == KitOff || e.Do == KitTest || e.Do == SwitchOff):
		if must {
			m.violation(e, "this device has an account")
		}
	case e.Result == HasSheet && e.Do == KitPrint:
		if !works || !e.Again && m.unknown(e) {
			m.violation(e, "there is no sheet that works, or this device does not know")
		}
		if m.rules.SilentSheets {
			m.violation(e, "another sheet is expected to be printed")
		}
	case e.Result == NotAsked && e.Do == Drop:
		if must {
			m.violation(e, "this device has an account")
		}
	case e.Result == NotAsked && e.Do == SwitchOff:
		old, _ := m.outdated(e)
		if _, sure := m.newRoot(e); sure && must && !old {
			m.violation(e, "what password and sheet open was replaced")
		}
	case e.Do == KitTest, e.Do == Rescue:
		m.opened(e, possible)
	case e.Result == OK && e.changesAccount():
		if !e.Again && e.Do != SwitchOff && e.Do != Drop && m.unknown(e) {
			m.violation(e, "another device changed the account, which this one does not know")
		}
		if (e.Do == KitOff || e.Do == SwitchOff || e.Do == Drop) && !may {
			m.violation(e, "this device has no account")
		}
		if e.Do == KitPrint && !none && !renewed {
			m.violation(e, "a sheet works, and nobody said that it is to end")
		}
		if e.Over && (!works || surely) || !e.Over && e.Do == KitReplace && !none && !renewed {
			m.violation(e, "what the person is told of the sheet before is not so")
		}
	default:
		m.violation(e, "an owner is never told so")
	}
}

// sheetsOf are the sheets that may have been the owner's at some time before a change of it, or of something else.
func (m *model) sheetsOf(e *Event) []*write {
	r := m.sheets[e.owner()]
	if r == nil {
		r = newRegister()
	}
	return slices.DeleteFunc(slices.Clone(r.possible(e.Start, e.End)), func(w *write) bool { return w.Event == e })
}

// opened checks what became of a sheet that somebody tried.
func (m *model) opened(e *Event, possible []*write) {
	is := func(w *write) bool { return w.prints() && w.Number == e.Number }
	switch e.Result {
	case OK:
		if !slices.ContainsFunc(possible, is) {
			m.violation(e, "this sheet was replaced, or switched off, or is none")
		}
		if m.rules.AnySheet && len(possible) == 1 {
			m.violation(e, "another one is expected to work")
		}
	case "kit_wrong":
		if !slices.ContainsFunc(possible, func(w *write) bool { return !is(w) }) {
			m.violation(e, "this sheet works")
		}
		if m.rules.OldSheets && slices.ContainsFunc(m.sheets[e.owner()], is) {
			m.violation(e, "the one before is expected to work")
		}
	default:
		m.violation(e, "nobody is told so")
	}
}

// goesOn reports whether a device that was made with a sheet may go on with a new root: what it gets was put there while one was under way, or has the root before still, under which is what others wrote.
func (m *model) goesOn(rescue *Event) bool {
	for _, r := range m.of[rescue.owner()] {
		if !r.replacesRoot() || r.Start >= rescue.End || refusedAtHome(r) {
			continue
		}
		written := slices.ContainsFunc(m.events, func(x *Event) bool {
			return x.Do == Write && x.Owner == rescue.owner() && x.Start < m.settled(r) && !refusedAtHome(x)
		})
		if slices.ContainsFunc(m.accounts[rescue.owner()].possible(rescue.Start, rescue.End), func(put *write) bool {
			return put.Event != nil && put.Do != Drop && put.end > r.Start && (written || put.start < m.settled(r))
		}) {
			return true
		}
	}
	return false
}

// stale reports whether a device that was made with a sheet may be of before a new root, and whether it certainly is: what it gets is what another one put there.
func (m *model) stale(rescue, root *Event) (may, must bool) {
	r := m.accounts[rescue.owner()]
	if r == nil {
		return true, true
	}
	must = true
	for _, put := range r.possible(rescue.Start, rescue.End) {
		if put.Event == nil || put.Do == Drop {
			continue
		}
		if put.start < root.End || root.Result != OK {
			may = true
		}
		if put.end > root.Start { // or the device was about to replace it
			must = false
		}
	}
	return may, must
}
