package reference

import "slices"

// tries is how many passwords are taken until a right one, or the owner's device, begins the count anew.
const tries = 10

// is reports whether a write to the register of passwords is of this one.
func (w *write) is(password string) bool {
	return w.Event != nil && w.Do == Password && w.Attack == password
}

// secret checks what somebody was told who sets a password, guesses one, or begins the count of tries anew; or prints, tries or ends a recovery sheet.
func (m *model) secret(e *Event) {
	o := e.owner()
	away := m.trouble(e) || slices.ContainsFunc(m.halts, func(k [2]int64) bool { return k[0] < e.End && e.Start < k[1] })
	closed, _ := m.shut(e, o)
	old, must := m.outdated(e)
	if e.Do == Guess || e.Do == Rescue {
		old, must = false, false
	}
	switch e.Result {
	case OK:
		if must {
			m.violation(e, "another device replaced the root, and this one goes on")
		}
	case "unavailable":
		if !away {
			m.violation(e, "nothing was away")
		}
		return
	case Replaced, "key_replaced", "unauthorized":
		// A login and an access token end with the storefront's process, an owner's with its keys.
		if !old && !(e.Result == "unauthorized" && away) {
			m.violation(e, "no other device replaced the root, and nothing was away")
		}
		return
	case "rollback": // of nothing a device cannot know that another one deleted it
		if !e.Again && e.Do != SwitchOff || !slices.ContainsFunc(m.of[o], func(x *Event) bool { return x.Do == Drop && x.Who != e.Who && x.Start < e.End && !refusedAtHome(x) }) {
			m.violation(e, "no other device deleted the account")
		}
		return
	case EndsSheet, EndsWord: // it took over what another one did, and did nothing then
		if !slices.ContainsFunc(m.by[e.Who], func(x *Event) bool {
			return x.changesAccount() && (x.Again || x.Do == SwitchOff) && x.Result != OK && x.Start < e.Start
		}) || e.Again || (e.Do == Password) != (e.Result == EndsSheet) {
			m.violation(e, "this device has the key of the account that it knows")
		}
		return
	case "account_closed":
		if !closed {
			m.violation(e, "nobody closed the account")
		}
		return
	}
	switch e.Do {
	case Guess:
		m.guessed(e, away)
	case Password:
		if e.Result != OK && !(e.Result == "outdated" && m.apart(e)) {
			m.violation(e, "an owner is never told so")
		}
		if e.Result == OK && !e.Again && m.unknown(e) {
			m.violation(e, "another device changed the account, which this one does not know")
		}
	case Unlock:
		if _, sure := m.knows(e); e.Result != OK && !(e.Result == "no_account" && !sure) {
			m.violation(e, "an owner is never told so")
		}
	default:
		m.sheet(e)
	}
}

// guessed checks the outcome of a guess.
func (m *model) guessed(e *Event, away bool) {
	o := e.owner()
	r := m.secrets[o]
	if r == nil {
		r = newRegister()
	}
	possible := r.possible(e.Start, e.End)
	right := slices.ContainsFunc(possible, func(w *write) bool { return w.is(e.Attack) })
	wrong := slices.ContainsFunc(possible, func(w *write) bool { return !w.is(e.Attack) })
	least, most := m.tried(e)
	switch e.Result {
	case OK:
		if !right {
			m.violation(e, "it is not the password")
		}
		if len(possible) == 1 && m.rules.AnyPassword {
			m.violation(e, "another one is expected to open it")
		}
	case "password_wrong":
		if m.rules.AnyPassword {
			m.violation(e, "any password is expected to open it")
		}
		if m.rules.OldPasswords && slices.ContainsFunc(r, func(w *write) bool { return w.is(e.Attack) && w.end < e.Start }) {
			m.violation(e, "the one before is expected to open it")
		}
		if !wrong {
			m.violation(e, "it is the password")
		}
		if m.rules.DroppedOpens && !slices.ContainsFunc(possible, func(w *write) bool { return w.Event == nil || w.Do != Drop }) {
			m.violation(e, "what was deleted is expected to open")
		}
	case "password_locked":
		if m.rules.ElevenGuesses {
			m.violation(e, "one more is expected to be taken")
		}
		if most < tries {
			m.violation(e, "only %d were tried", most)
		}
		if m.rules.DropUnlocks && slices.ContainsFunc(m.of[o], func(x *Event) bool { return x.Do == Drop && x.Result == OK && x.End < e.Start }) {
			m.violation(e, "the count is expected to begin anew with a deletion")
		}
		return
	case "not_found": // the key server forgot the attempt when it was killed
		if !away {
			m.violation(e, "nothing was away")
		}
		return
	default:
		m.violation(e, "nobody is told so")
		return
	}
	if least >= tries {
		m.violation(e, "%d others were tried", least)
	}
}

// tried is how many guesses were counted, at least and at most, since the count last began anew, when a guess came, or came to nothing. Each counts before its outcome is known.
func (m *model) tried(e *Event) (least, most int) {
	anew := func(x *Event) bool { // a right one, a new version of the account, or the owner's word
		if x.Do != Guess {
			return x.Do == Unlock || x.changesAccount() && x.Do != Drop && !refusedAtHome(x)
		}
		return x.Result == OK || (x.Result == "unavailable" || x.Result == "unauthorized") && slices.ContainsFunc(m.secrets[e.owner()].possible(x.Start, x.End), func(w *write) bool {
			return w.is(x.Attack) // it may have been right, and its answer lost
		})
	}
	var perhaps, surely int64 // when it began anew
	for _, x := range m.of[e.owner()] {
		if !anew(x) || x.Start >= e.End || x.Do == Guess && x.Start == e.Start {
			continue
		}
		perhaps = max(perhaps, x.End)
		if x.Result == OK && x.End <= e.Start {
			surely = max(surely, x.Start)
		}
	}
	until := e.Start
	if e.Result == "password_wrong" { // nothing in between began it anew, so all that were over by then counted with this one, in whatever order
		until = e.End
	}
	for _, x := range m.of[e.owner()] {
		if x.Do != Guess || x.Start == e.Start && x.End == e.End || x.Start >= e.End {
			continue
		}
		if x.Result == "password_wrong" && x.Start >= perhaps && x.End <= until {
			least++
		}
		if x.Result != "password_locked" && x.End >= surely && (x.Result != OK || x.End > e.Start) {
			most++
			if x.Result == "unavailable" { // it may have been sent again
				most += 2
			}
		}
	}
	return least, most
}
