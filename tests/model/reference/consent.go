package reference

import "slices"

// decided checks what an owner's device was told who answers a request, and reports whether it may be told so.
func (m *model) decided(e *Event) bool {
	wider := slices.ContainsFunc(e.Fields, func(f string) bool { return !slices.Contains(e.Asked, f) })
	want := OK
	switch {
	case e.Again:
		want = "already_answered"
	case e.Over:
		want = "consent_expired"
	case wider:
		want = "wider_than_asked"
	}
	switch e.Result {
	case NotAsked:
		return true
	case OK, "wider_than_asked", "already_answered":
		if e.Result != want || len(e.Asked) == 0 {
			m.violation(e, "it should be %s", want)
		}
		return true
	case "consent_expired":
		if !e.Over && e.Terms.Waits == 0 {
			m.violation(e, "the request was not over")
		}
		return true
	}
	return false
}

// asked checks what a reader was told who asks, or hears.
func (m *model) asked(e *Event) {
	if e.Do == Hear && m.person(e.owner()) { // who does what waits first
		m.answer(e)
		m.heardOf(e)
		return
	}
	if m.replaced(e) || m.left(e) {
		return
	}
	switch e.Result {
	case OK:
		if _, open := m.shut(e, e.owner()); !open {
			m.violation(e, "the account was closed")
		}
	case "asked_again_too_soon":
		if !slices.ContainsFunc(m.of[e.Owner], func(x *Event) bool { return m.denies(x, e) }) {
			m.violation(e, "nothing was denied or taken back")
		}
	case "no_contact": // this session did not look the source up
		if e.Do != Specify || m.lookedUp(e) {
			m.violation(e, "it looked that one up")
		}
	case "account_closed":
		if closed, _ := m.shut(e, e.Owner); !closed {
			m.violation(e, "nobody closed the account")
		}
	case "unavailable":
		if !m.trouble(e) {
			m.violation(e, "nothing was away")
		}
	default:
		m.violation(e, "a reader is never told so")
	}
	m.heardOf(e)
}

// heardOf checks what a reader hears of what it asked for.
func (m *model) heardOf(e *Event) {
	for i := range e.Items {
		it := &e.Items[i]
		if !slices.ContainsFunc(m.of[it.Owner], func(x *Event) bool {
			return x.Do == Answer && x.Reader == e.owner() && x.Start < e.End && !refusedAtHome(x) && slices.Contains(x.Fields, it.Field)
		}) {
			m.violation(e, "it hears that %s:%s was granted, which nobody answered", it.Owner, it.Field)
		}
	}
}

// denies reports whether an owner may have denied a reader something that it asks for again, or have taken it back.
func (m *model) denies(x, ask *Event) bool {
	if x.Reader != ask.owner() || x.Start >= ask.End {
		return false
	}
	return slices.ContainsFunc(ask.Fields, func(f string) bool {
		return x.Do == Stop && slices.Contains(m.meant(x), f) || x.Do == Answer && slices.Contains(x.Asked, f) && !(x.Result == OK && slices.Contains(x.Fields, f))
	})
}
