package reference

import "slices"

// halves notes that half of an answer to a specification is worse than none: if what it gives one of the two is ended while its outcome is unknown, the other may lose it too.
func (m *model) halves(w *write) {
	for _, x := range m.of[w.owner()] {
		if x.Do != Answer || !x.letsWrite() || x.Result == OK || x.Start >= w.end {
			continue
		}
		of, other, concerns := m.writers, x.Source, x.Reader
		if w.Do == EndWrite {
			of, other, concerns = m.permits, x.Reader, x.Source
		}
		if concerns != w.Reader {
			continue
		}
		for _, f := range x.Fields {
			r, k := *w, permitKey{w.owner(), other, f}
			r.acked, r.end = false, never
			of[k] = append(of.at(k), &r)
		}
	}
}

// back notes that an answer to a specification whose outcome is unknown may be taken back by the device itself: its time was over before both halves were in force.
func (m *model) back(w *write) {
	if w.Result == OK {
		return
	}
	taken := *w.Event
	taken.Do = Stop
	for _, f := range w.Fields {
		r := *w
		r.Event, r.acked, r.end = &taken, false, never
		read, written := permitKey{w.owner(), w.Reader, f}, permitKey{w.owner(), w.Source, f}
		m.permits[read] = append(m.permits.at(read), &r)
		again := r
		m.writers[written] = append(m.writers.at(written), &again)
	}
}

// heard reports whether something that was sent to a reader may have been taken by another session of it, or may not be kept any more by this one, before an event.
func (m *model) heard(e *Event) bool {
	return slices.ContainsFunc(m.of[e.owner()], func(x *Event) bool {
		if x.Start >= e.End {
			return false
		}
		switch x.Do {
		case Hear, Forward, LookUp, Write, Collect:
			return x.Who != e.Who
		case Restore, Restart, Suspend:
			return true
		}
		return false
	})
}

// lookedUp reports whether a session certainly knows the source that an event is about, which it looked up.
func (m *model) lookedUp(e *Event) bool {
	return !m.heard(e) && slices.ContainsFunc(m.by[e.Who], func(x *Event) bool {
		return x.Do == LookUp && x.Reader == e.Source && x.Result == OK && x.End < e.Start
	})
}

// registry checks what a reader was told who says who may look it up, looks somebody up, or hands an order on.
func (m *model) registry(e *Event) {
	if m.replaced(e) {
		return
	}
	switch {
	case e.Result == OK && e.Do == LookUp:
		if m.only(e) && !m.introduced(e) {
			m.violation(e, "nobody introduced it")
		}
	case e.Result == OK && e.Do == Forward:
		if !m.answered(e) {
			m.violation(e, "no owner ordered anything")
		}
	case e.Result == OK:
	case e.Result == "not_introduced" && e.Do == LookUp:
		if m.rules.StrangersLook {
			m.violation(e, "a stranger is expected to look it up")
		}
		if !slices.ContainsFunc(m.of[e.Reader], func(x *Event) bool { return x.Do == Register && x.Start < e.End }) {
			m.violation(e, "everybody may look it up")
		}
		if !m.heard(e) && slices.ContainsFunc(m.events, func(x *Event) bool {
			return x.Do == Introduce && x.Reader == e.Reader && x.To == e.owner() && x.Result == OK && x.End < e.Start
		}) {
			m.violation(e, "it was introduced")
		}
	case e.Result == NotAsked && e.Do == Forward: // it has none, or another session of it has
		if !m.heard(e) && m.must(e) {
			m.violation(e, "the owner's order came")
		}
	case e.Result == "no_contact" && e.Do == Forward:
		if e.About == "" || m.lookedUp(e) {
			m.violation(e, "it has no order, or looked that one up")
		}
	case e.Result == "unavailable":
		if !m.trouble(e) {
			m.violation(e, "nothing was away")
		}
	default:
		m.violation(e, "a reader is never told so")
	}
}

// only reports whether somebody certainly let nobody look it up but by introduction, before an event.
func (m *model) only(e *Event) bool {
	return slices.ContainsFunc(m.of[e.Reader], func(x *Event) bool {
		return x.Do == Register && x.Result == OK && x.End < e.Start
	})
}

// introduced reports whether somebody may have been introduced to a reader who looks it up: by an owner, by itself, or since it looked it up before; or whether an owner's grant may name both.
func (m *model) introduced(e *Event) bool {
	return slices.ContainsFunc(m.events, func(x *Event) bool {
		if x.Start >= e.End {
			return false
		}
		switch x.Do {
		case Introduce:
			return x.Reader == e.Reader && x.To == e.owner()
		case LookUp:
			return x.Reader == e.Reader && x.owner() == e.owner() && x.Start < e.Start && x.Result == OK
		case Forward:
			return x.owner() == e.Reader && x.Source == e.owner()
		}
		return false
	})
}

// answered reports whether an owner may have answered the specification that an event is about.
func (m *model) answered(e *Event) bool {
	return slices.ContainsFunc(m.events, func(x *Event) bool {
		return x.Do == Answer && x.About == e.About && len(x.Fields) > 0 && x.Start < e.End && !refusedAtHome(x)
	})
}

// must reports whether a reader certainly has the owner's order for the newest specification that it made.
func (m *model) must(e *Event) bool {
	return e.About != "" && slices.ContainsFunc(m.events, func(x *Event) bool {
		return x.Do == Answer && x.About == e.About && len(x.Fields) > 0 && x.Result == OK && x.End < e.Start
	})
}

// deposited checks what a source was told who deposits, as far as it is about the order and not about what it may write, and reports whether that was all.
func (m *model) deposited(e *Event) bool {
	wide := slices.ContainsFunc(e.Fields, func(f string) bool { return !slices.Contains(e.Asked, f) })
	used := slices.ContainsFunc(m.by[e.Who], func(x *Event) bool {
		return x.deposits() && x.About == e.About && x.Start < e.Start && !refusedAtHome(x) && slices.ContainsFunc(e.Fields, func(f string) bool { return slices.Contains(x.Fields, f) })
	})
	switch e.Result {
	case NotAsked:
		if e.About != "" {
			m.violation(e, "it has an order")
		}
	case "wider_than_asked":
		if e.About == "" || !wide || m.rules.WideDeposits {
			m.violation(e, "all of it was ordered, or is expected to be")
		}
	case "order_used":
		if !used || m.rules.DepositsAgain {
			m.violation(e, "none of it was deposited before, or is expected to have been")
		}
	case OK:
		if e.About == "" || wide || !m.answered(e) {
			m.violation(e, "nobody ordered that")
		}
		if slices.ContainsFunc(m.by[e.Who], func(x *Event) bool {
			return x.deposits() && x.About == e.About && x.End < e.Start && x.Result == OK && slices.ContainsFunc(e.Fields, func(f string) bool { return slices.Contains(x.Fields, f) })
		}) {
			m.violation(e, "it was deposited before")
		}
		return false
	case "write_ended": // by this machine's clock
		if e.About == "" {
			m.violation(e, "it has no order")
		}
		return e.Over
	default:
		if e.About == "" && (e.Result == "no_write_grant" || e.Result == "grant_not_yet_valid") {
			m.violation(e, "it has no order")
		}
		return false
	}
	return true
}

// collected checks what a reader was told who collects: a read, of which it is given only what the source attested.
func (m *model) collected(e *Event, sum *Summary) {
	if m.replaced(e) {
		return
	}
	switch e.Result {
	case NotAsked, "no_contact":
		if e.Result == NotAsked && !m.heard(e) && m.must(e) {
			m.violation(e, "the owner's order came")
		}
		if e.Result == "no_contact" && (e.About == "" || m.lookedUp(e)) {
			m.violation(e, "it has no order, or looked that one up")
		}
		return
	case "no_grant": // nothing of it was granted
		return
	}
	for i := range e.Items {
		sum.Items++
		sum.Outcomes[e.Items[i].Result]++
	}
	if e.Result != OK {
		m.read(e)
		return
	}
	for i := range e.Items {
		it := &e.Items[i]
		if it.Result == "attestation_mismatch" || it.Result == "not_the_source" { // there is a value, and none that the source attested for this
			m.counts(e, it, true)
			continue
		}
		m.item(e, it)
		if it.Result == "released" && !slices.ContainsFunc(m.of[e.Source], func(x *Event) bool {
			return x.deposits() && x.About == e.About && x.Number == it.Number
		}) {
			m.violation(e, "%s:%s: the source deposited no such value for this", it.Owner, it.Field)
		}
	}
}
