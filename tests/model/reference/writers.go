package reference

import (
	"math"
	"slices"
)

// authors are all who ever may write a field in the trace: the owner, and whom the owner lets.
func (m *model) authors(owner, field string) []string {
	return append([]string{owner}, m.lets[permitKey{owner: owner, field: field}]...)
}

// others counts those who ever may write a field besides its owner.
func (m *model) others(owner, field string) int {
	return len(m.lets[permitKey{owner: owner, field: field}])
}

// ending reports whether a write may have come while its permission ended. It is accepted if the writer may go on with another field, and then may never count.
func (m *model) ending(w *write, owner, writer, field string) bool {
	for _, x := range m.of[owner] {
		if x.Do == EndWrite && x.Reader == writer && x.Start < w.end && m.settled(x) > w.start && !refusedAtHome(x) && slices.Contains(m.meant(x), field) {
			return true
		}
	}
	return false
}

// beginning reports whether the time of a permission may have begun during a write. It is accepted if the writer may write another field then, and may never count.
func (m *model) beginning(w *write, owner, writer, field string) bool {
	for _, x := range m.of[owner] {
		if !x.lets(writer) || x.Terms.From == 0 || refusedAtHome(x) || x.Start >= w.end || !slices.Contains(x.Fields, field) {
			continue
		}
		if seconds(w.start) <= seconds(x.Start+int64(x.Terms.From)) {
			return true
		}
	}
	return false
}

// lapsed reports whether what somebody wrote in the time of a permission may not count any more when an event ends: the vault sees the writer's newest manifest only, and that may have come after the time.
func (m *model) lapsed(w *write, owner, writer, field string, e *Event) bool {
	for _, x := range m.of[owner] {
		if !x.lets(writer) || x.Terms.For == 0 || refusedAtHome(x) || x.Start >= w.end || !slices.Contains(x.Fields, field) {
			continue
		}
		ends := seconds(x.Start + int64(x.Terms.From+x.Terms.For))
		if slices.ContainsFunc(m.of[writer], func(next *Event) bool {
			return next.Do == Write && next.Owner == owner && next.Start < e.End && !refusedAtHome(next) && (next.Result != OK || seconds(next.End) >= ends)
		}) {
			return true
		}
	}
	return false
}

// leftBehind reports whether a value that somebody else wrote may be gone by some time: its field moved to other keys since, and the owner has adopted or rejected it. The keys that it
// lies under are ended then, with whatever moves next.
func (m *model) leftBehind(w *write, owner, writer, field string, by int64) bool {
	moved, decided := false, false
	for _, x := range m.of[owner] {
		if x.Start >= by || m.settled(x) <= w.start || refusedAtHome(x) {
			continue
		}
		switch x.Do {
		case Adopt, Reject:
			decided = decided || x.Reader == writer && slices.Contains(x.Fields, field)
		case Rotate:
			moved = moved || slices.Contains(x.Fields, field)
		case Replace, Restore, Succeed, Rescue:
			moved = true
		case Pair:
			moved = moved || m.secondRoot(x)
		case Revoke, Stop:
			moved = moved || !x.Keep && slices.Contains(m.meant(x), field)
		}
	}
	return moved && decided
}

// written reports whether a read may have found that somebody else than the owner wrote a field, and whether it may have found that nobody did.
func (m *model) written(e *Event, it *Item) (written, unwritten bool) {
	unwritten = true
	for _, author := range m.authors(it.Owner, it.Field) {
		if author == it.Owner {
			continue
		}
		none := false
		for _, w := range m.value(slot{it.Owner, author, it.Field}).possible(e.Start, e.End) {
			written = written || w.Event != nil
			none = none || w.Event == nil || w.lost || m.lapsed(w, it.Owner, author, it.Field, e) || m.leftBehind(w, it.Owner, author, it.Field, e.End)
		}
		unwritten = unwritten && none
	}
	return written, unwritten
}

// newest checks that a value is the newest of all authors': nobody else wrote, certainly later, what certainly counts.
func (m *model) newest(e *Event, it *Item) {
	if m.rules.OwnersOnly && it.Author != "" {
		m.violation(e, "%s:%s: only what the owner wrote is expected to count", it.Owner, it.Field)
	}
	possible := m.value(slot{it.Owner, it.author(), it.Field}).possible(e.Start, e.End)
	if m.rules.RejectedReads && !slices.ContainsFunc(possible, func(w *write) bool { return w.Event == nil || w.Do != Reject }) {
		m.violation(e, "%s:%s: what was rejected is expected to count", it.Owner, it.Field)
	}
	for _, author := range m.authors(it.Owner, it.Field) {
		if author == it.author() {
			continue
		}
		other := m.value(slot{it.Owner, author, it.Field}).possible(e.Start, e.End)
		if !slices.ContainsFunc(other, func(p *write) bool {
			return p.Event == nil || p.Do == Remove || p.lost || m.lapsed(p, it.Owner, author, it.Field, e) || slices.ContainsFunc(possible, func(w *write) bool { return m.carries(w, it) && w.end >= p.start })
		}) {
			m.violation(e, "%s:%s: #%d by %s is not the newest: %s wrote later", it.Owner, it.Field, it.Number, it.author(), author)
		}
	}
}

// carries reports whether a publication may be of a value: its own, or that of an older one.
func (m *model) carries(w *write, it *Item) bool { return m.carried(w, it, 8) }

// carried is carries with so many publications of older values before it.
func (m *model) carried(w *write, it *Item, deep int) bool {
	if w.Event == nil || deep == 0 {
		return false
	}
	of := m.sets[it.Owner][it.Number]
	if of == nil || !slices.Contains(of.Fields, it.Field) {
		return false
	}
	switch w.Do {
	case Set, Write:
		return of == w.Event
	case Adopt:
		return of.owner() == w.Reader && of.Start < w.end
	case Reject, Replace, Restore, Succeed, Rescue, Pair:
		// What the owner had then.
		return slices.ContainsFunc(m.value(slot{it.Owner, it.Owner, it.Field}).possible(w.start, w.until), func(p *write) bool {
			return p.Event != w.Event && !w.before(p) && m.carried(p, it, deep-1)
		})
	}
	return false
}

// writersAnswer checks what an owner is told about writers, and reports whether an owner may be told so.
func (m *model) writersAnswer(e *Event) bool {
	o := e.owner()
	wrote := func(able func(*write) bool) bool {
		return slices.ContainsFunc(e.Fields, func(f string) bool {
			return slices.ContainsFunc(m.value(slot{o, e.Reader, f}).possible(math.MinInt64, e.End), able)
		})
	}
	switch {
	case e.Do == EndWrite && e.Result == "no_write_grant":
		for _, f := range m.meant(e) {
			if !slices.ContainsFunc(m.writers.at(permitKey{o, e.Reader, f}).possible(e.Start, e.End), func(w *write) bool { return w.Event == nil || !w.letsWrite() || w.expired(e) }) {
				m.violation(e, "%s may be written", f)
			}
		}
	case (e.Do == Adopt || e.Do == Reject) && e.Result == "not_found":
		for _, f := range e.Fields {
			if !slices.ContainsFunc(m.value(slot{o, e.Reader, f}).possible(e.Start, e.End), func(w *write) bool { return w.Event == nil }) {
				m.violation(e, "%s was written", f)
			}
		}
	case e.Do == Adopt && e.Result == Newer:
		if !wrote(func(w *write) bool { return w.Event != nil }) {
			m.violation(e, "nothing was written")
		}
	default:
		return false
	}
	return true
}

// wrote checks what a writer was told.
func (m *model) wrote(e *Event) {
	may := func(f string, do string) bool {
		return slices.ContainsFunc(m.writers.at(permitKey{e.Owner, e.owner(), f}).possible(e.Start, e.End), func(w *write) bool {
			switch {
			case w.Event == nil:
				return do == ""
			case w.letsWrite():
				return do == GrantWrite && m.inTime(w, e)
			}
			return do == EndWrite
		})
	}
	untimely := func(is func(*write) bool) bool {
		return slices.ContainsFunc(e.Fields, func(f string) bool {
			return slices.ContainsFunc(m.writers.at(permitKey{e.Owner, e.owner(), f}).possible(e.Start, e.End), func(w *write) bool { return w.Event != nil && w.letsWrite() && is(w) })
		})
	}
	late := untimely(func(w *write) bool { return w.expired(e) })
	early := untimely(func(w *write) bool { return w.early(e) })
	if m.replaced(e) {
		return
	}
	closed, open := m.shut(e, e.Owner)
	if closed && (e.Result == "no_write_grant" || e.Result == "account_closed") {
		return
	}
	if e.deposits() && m.deposited(e) {
		return
	}
	switch e.Result {
	case OK:
		if !open {
			m.violation(e, "the account was closed")
		}
		for _, f := range e.Fields {
			if !may(f, GrantWrite) {
				m.violation(e, "%s may not be written", f)
			}
		}
	case "no_write_grant", "write_ended":
		if m.rules.EndedWrites && slices.ContainsFunc(e.Fields, func(f string) bool { return may(f, EndWrite) }) {
			m.violation(e, "a writer whose permission ended is expected to write")
		}
		if m.rules.LateWrites && late {
			m.violation(e, "a writer whose time is over is expected to write on")
		}
		if !late && !slices.ContainsFunc(e.Fields, func(f string) bool { return may(f, EndWrite) || e.Result == "no_write_grant" && may(f, "") }) {
			m.violation(e, "all of it may be written")
		}
	case "grant_not_yet_valid":
		if !early || m.rules.EarlyWrites {
			m.violation(e, "its time has come, or is expected to")
		}
	case "unavailable", "log_stopped", "log_full":
		if !m.trouble(e) {
			m.violation(e, "nothing was away")
		}
	case "chain_moved", "storefront_behind":
		// Another machine of the same writer came first again and again.
		if !slices.ContainsFunc(m.of[e.owner()], func(x *Event) bool {
			return x.Do == Write && x.Who != e.Who && x.Start < e.End
		}) {
			m.violation(e, "no other machine was at work")
		}
	case "untrue":
		// What was sealed to the keys before does not open.
		if suspended, _ := m.renewed(e, &Item{Owner: e.Owner}); !suspended {
			m.violation(e, "this writer has the keys that it had")
		}
	default:
		m.violation(e, "a writer is never told so")
	}
}

// incoming checks what a device was shown of what a writer wrote.
func (m *model) incoming(e *Event) {
	for i := range e.Items {
		m.valueOf(e, &e.Items[i])
	}
}
