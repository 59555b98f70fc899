package reference

import "math"

const never = math.MaxInt64

// write is one write to a register, as far as it concerns it.
type write struct {
	*Event
	start, end int64 // it took effect in between; end is never if nothing bounds it
	order      int64 // of its device: when it began
	acked      bool  // its own answer was a success
	dead       int64 // reads that begin later cannot be explained by it; never if they can
	until      int64 // of one that publishes older values anew: what they were by then; end says nothing of it
	maybe      bool  // it may not have happened: it takes no other's place
	lost       bool  // what a writer wrote while its permission ended: it may never count
}

// before reports whether w took effect before x, whatever happened.
func (w *write) before(x *write) bool {
	return w.end < x.start || w.Event != nil && x.Event != nil && w.Who == x.Who && w.order < x.order
}

// register is all writes to one thing. The first is its beginning: no value, no permission.
type register []*write

func newRegister() register {
	return register{{start: math.MinInt64, end: math.MinInt64, dead: never}}
}

// possible are the writes that may have been the newest at some time from start to end.
func (r register) possible(start, end int64) []*write {
	var out []*write
search:
	for _, w := range r {
		if w.start >= end || w.dead < start {
			continue
		}
		for i := len(r) - 1; i >= 0; i-- { // the newest takes the place of most
			if x := r[i]; x.end < start && !x.maybe && w.before(x) {
				continue search
			}
		}
		out = append(out, w)
	}
	return out
}

// observed notes that a read from start to end showed w and nothing else: w took effect before the read's end, and what had
// taken effect before the read's start was before w.
func (r register) observed(w *write, start, end int64) {
	w.end = min(w.end, end)
	for _, x := range r {
		if x != w && x.end < start {
			x.dead = min(x.dead, end)
		}
	}
}

// observed is that of a register, with what an event showed.
func (m *model) observed(r register, w *write, e *Event) {
	if !m.deaf {
		r.observed(w, e.Start, e.End)
	}
}
