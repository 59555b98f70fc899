package ledger

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// inOrder works on portions of something long: work on as many at once as there are processors, then use on one after the other, in the order in
// which they were given. A start with a hundred thousand grants spends most of its time in it.
type inOrder[P any] struct {
	jobs, order chan *portion[P]
	failed      atomic.Bool
	first       error // the inserter's, until finish has waited for it
	working     sync.WaitGroup
	using       sync.WaitGroup
	once        sync.Once
}

type portion[P any] struct {
	p    P
	err  error
	done chan struct{} // closed when work is done
}

func newInOrder[P any](work func(P) error, use func(P) error) *inOrder[P] {
	o := &inOrder[P]{jobs: make(chan *portion[P], 8), order: make(chan *portion[P], 8)}
	for range runtime.GOMAXPROCS(0) {
		o.working.Go(func() {
			for p := range o.jobs {
				if p.err = work(p.p); p.err != nil {
					o.failed.Store(true)
				}
				close(p.done)
			}
		})
	}
	o.using.Go(func() {
		for p := range o.order {
			<-p.done
			if o.first != nil {
				continue
			}
			if o.first = p.err; o.first == nil {
				o.first = use(p.p)
			}
			if o.first != nil {
				o.failed.Store(true)
			}
		}
	})
	return o
}

// add gives the next portion. It tells whether it is worth going on.
func (o *inOrder[P]) add(p P) bool {
	next := &portion[P]{p: p, done: make(chan struct{})}
	o.jobs <- next
	o.order <- next
	return !o.failed.Load()
}

// finish waits until everything is used, and returns the first error in the order of the portions. It may be called again.
func (o *inOrder[P]) finish() error {
	o.once.Do(func() {
		close(o.jobs)
		o.working.Wait()
		close(o.order)
		o.using.Wait()
	})
	return o.first
}
