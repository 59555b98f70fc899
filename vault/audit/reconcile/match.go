package reconcile

import (
	"cmp"
	"container/heap"
	"slices"
	"time"
)

// window is when the operation of a want may have been, by the token's clock: zero is any time.
func (w *want) window(o *Options) (from, to time.Time) {
	switch {
	case w.open:
		return time.Time{}, w.at.Add(o.Skew)
	case w.before:
		return w.at.Add(-o.Window), w.at.Add(o.Skew)
	}
	return w.at.Add(-o.Skew), w.at.Add(o.Window)
}

// pair is a want and the operation that it was given.
type pair struct {
	w        *want
	from, to time.Time
	op       *operation

	search int // that saw it last, of a spread
	dead   bool
}

// missing are the wants that were to have an operation and have none.
func missing(pairs []*pair) (out []*want) {
	for _, p := range pairs {
		if p.op == nil && !p.w.optional {
			out = append(out, p.w)
		}
	}
	return out
}

// match gives each operation to a want, as many as can be: of those whose time has come the one that ends first (which is the most there can be, for
// intervals). Without a clock the order of neither side says anything, and numbers alone count. An optional want gives its operation to
// one that is demanded.
func match(wants []*want, ops []*operation, o *Options) (pairs []*pair, surplus []*operation) {
	pairs = make([]*pair, len(wants))
	for i, w := range wants {
		p := &pair{w: w}
		p.from, p.to = w.window(o)
		pairs[i] = p
	}
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b *operation) int { return a.at.Compare(b.at) })
	slices.SortStableFunc(pairs, func(a, b *pair) int {
		if a.w.optional != b.w.optional && a.from.Equal(b.from) {
			return cmp.Compare(truth(a.w.optional), truth(b.w.optional))
		}
		return a.from.Compare(b.from)
	})
	open := &queue[*pair]{less: func(a, b *pair) bool {
		if !a.to.Equal(b.to) {
			return a.to.Before(b.to)
		}
		return !a.w.optional && b.w.optional
	}}
	next := 0
	for _, op := range ops {
		for next < len(pairs) && (op.at.IsZero() || !pairs[next].from.After(op.at)) {
			heap.Push(open, pairs[next])
			next++
		}
		for open.Len() > 0 && !op.at.IsZero() && open.items[0].to.Before(op.at) {
			heap.Pop(open)
		}
		if open.Len() == 0 {
			surplus = append(surplus, op)
			continue
		}
		heap.Pop(open).(*pair).op = op
	}
	var spare []*pair // optional ones that have an operation, by its time
	for _, p := range pairs {
		if p.op != nil && p.w.optional {
			spare = append(spare, p)
		}
	}
	slices.SortStableFunc(spare, func(a, b *pair) int { return a.op.at.Compare(b.op.at) })
	for _, p := range pairs {
		if p.op != nil || p.w.optional {
			continue
		}
		i := 0
		if len(spare) > 0 && !spare[0].op.at.IsZero() {
			i, _ = slices.BinarySearchFunc(spare, p.from, func(q *pair, from time.Time) int { return q.op.at.Compare(from) })
		}
		if i < len(spare) && (spare[i].op.at.IsZero() || !spare[i].op.at.After(p.to)) {
			p.op, spare[i].op = spare[i].op, nil
			spare = slices.Delete(spare, i, i+1)
		}
	}
	return pairs, surplus
}

// spread gives operations of which not all is known to wants that are left, as many as can be. One may take the place of another operation that can go
// elsewhere, so no order in which they are looked at makes one too many that is not. Demanded wants come first.
func spread(pairs []*pair, ops []*operation, fits func(*operation, *want) bool) (surplus []*operation) {
	s := &spreading{pairs: slices.Clone(pairs), latest: make([]time.Time, len(pairs)), fits: fits}
	slices.SortStableFunc(s.pairs, func(a, b *pair) int { return a.from.Compare(b.from) })
	for i, p := range s.pairs {
		if s.latest[i] = p.to; i > 0 && s.latest[i-1].After(p.to) {
			s.latest[i] = s.latest[i-1]
		}
	}
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b *operation) int { return a.at.Compare(b.at) })
	for _, s.optional = range []bool{false, true} {
		for _, p := range s.pairs {
			p.dead = false
		}
		ops = s.fill(ops)
		ops = slices.DeleteFunc(ops, s.place)
	}
	return ops
}

// spreading is a spread under way.
type spreading struct {
	pairs    []*pair     // by the beginning of their time
	latest   []time.Time // the end that is last, of those up to each
	fits     func(*operation, *want) bool
	optional bool // optional wants are given operations too
	search   int
}

// free tells whether a want can be given an operation without another's leaving it.
func (s *spreading) free(p *pair) bool { return p.op == nil && (s.optional || !p.w.optional) }

// fill gives operations to free wants, to those first that end first, and returns the operations that are left. It moves none, and so does not find all
// that there is to find.
func (s *spreading) fill(ops []*operation) (left []*operation) {
	ends := func(a, b *pair) bool { return a.to.Before(b.to) }
	open := []*queue[*pair]{{less: ends}, {less: ends}} // the second of canaries, which do not fit all
	next := 0
	for _, op := range ops {
		for ; next < len(s.pairs) && (op.at.IsZero() || !s.pairs[next].from.After(op.at)); next++ {
			if p := s.pairs[next]; s.free(p) {
				heap.Push(open[truth(p.w.generator)], p)
			}
		}
		var best *queue[*pair]
		for _, q := range open {
			for q.Len() > 0 && !op.at.IsZero() && q.items[0].to.Before(op.at) {
				heap.Pop(q)
			}
			if q.Len() > 0 && s.fits(op, q.items[0].w) && (best == nil || ends(q.items[0], best.items[0])) {
				best = q
			}
		}
		if best == nil {
			left = append(left, op)
			continue
		}
		heap.Pop(best).(*pair).op = op
	}
	return left
}

// place gives one operation to a want, and moves others to make room if it must.
func (s *spreading) place(op *operation) bool {
	if !slices.ContainsFunc(s.pairs, s.free) {
		return false
	}
	type step struct {
		op   *operation
		held *pair // that op would leave
		by   *step // to make room for
	}
	s.search++
	var seen []*pair
	for queue := []*step{{op: op}}; len(queue) > 0; queue = queue[1:] {
		o := queue[0]
		at, ever := o.op.at, o.op.at.IsZero()
		end := len(s.pairs)
		if !ever {
			end, _ = slices.BinarySearchFunc(s.pairs, at, func(p *pair, at time.Time) int {
				if p.from.After(at) {
					return 1
				}
				return -1
			})
		}
		for i := end - 1; i >= 0 && (ever || !s.latest[i].Before(at)); i-- {
			p := s.pairs[i]
			if p.dead || p.search == s.search || !ever && p.to.Before(at) || !s.fits(o.op, p.w) {
				continue
			}
			p.search, seen = s.search, append(seen, p)
			switch {
			case p.op != nil:
				queue = append(queue, &step{op: p.op, held: p, by: o})
				continue
			case !s.free(p):
				continue
			}
			for ; o != nil; o = o.by {
				p.op = o.op
				p = o.held
			}
			return true
		}
	}
	for _, p := range seen {
		p.dead = true // a way that led nowhere never will
	}
	return false
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// queue is a heap.
type queue[T any] struct {
	items []T
	less  func(a, b T) bool
}

func (q *queue[T]) Len() int           { return len(q.items) }
func (q *queue[T]) Less(i, j int) bool { return q.less(q.items[i], q.items[j]) }
func (q *queue[T]) Swap(i, j int)      { q.items[i], q.items[j] = q.items[j], q.items[i] }
func (q *queue[T]) Push(x any)         { q.items = append(q.items, x.(T)) }
func (q *queue[T]) Pop() any {
	x := q.items[len(q.items)-1]
	q.items = q.items[:len(q.items)-1]
	return x
}
