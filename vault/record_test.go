package vault

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
)

// TestGrantsShareCommits: grants of several owners that wait at once are recorded together, with one signature of the root, and each as if it had come alone:
// two of one id do not both begin, and the closure of the reader's account that comes behind them finds them begun.
func TestGrantsShareCommits(t *testing.T) {
	w := newWorld(t)
	r := w.reader()
	const owners = 8
	var grants []*policies.Grant
	errs := make([]error, owners)
	var start []func()
	for i := range owners {
		o := w.owner()
		o.set("name", "Ada")
		s, g, _ := o.grantOf(r, func(g *granting) {
			if i == owners-1 { // its owner saw the id of another's
				g.doc.ID = grants[0].ID
			}
		}, "name")
		grants = append(grants, g)
		start = append(start, func() { _, errs[i] = w.submit(s) })
	}
	// The first commit is held in its signature until all others wait.
	_, enrolment := w.identity()
	held, release := make(chan struct{}), make(chan struct{})
	signatures := 0
	w.logKey.hook = func() error {
		if signatures++; signatures == 1 {
			close(held)
			<-release
		}
		return nil
	}
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := w.submit(enrolment); err != nil {
			t.Error(err)
		}
	})
	<-held
	for _, f := range start {
		all.Go(f)
	}
	for deadline := time.Now().Add(30 * time.Second); len(w.vault.decisions) < owners; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d decisions wait", len(w.vault.decisions))
		}
	}
	close(release)
	all.Wait()
	// One of each two of one id is another commit, and the second records come as the imports are done.
	if signatures > 1+2+owners {
		t.Errorf("%d signatures for %d grants and an enrolment", signatures, owners)
	}
	refused := 0
	for i, err := range errs {
		if errors.Is(err, policies.CodeExists) && (i == 0 || i == owners-1) {
			refused++
		} else if err != nil {
			t.Errorf("grant %d: %v", i, err)
		}
	}
	if refused != 1 {
		t.Errorf("%d of two grants of one id were refused", refused)
	}
	w.logKey.hook = nil
	w.restart(false) // the log, read again, is what a vault can have written
}

// TestBeside: what may be decided in a commit that has something already.
func TestBeside(t *testing.T) {
	grant := func(owner, id byte) *pending {
		return &pending{company: grants, owner: policies.OwnerID{owner}, grant: policies.DocumentID{id}}
	}
	read, other := &pending{company: reads}, new(pending)
	for _, c := range []struct {
		name  string
		batch []*pending
		p     *pending
		want  bool
	}{
		{"first", nil, other, true},
		{"read behind a read", []*pending{read}, read, true},
		{"grant behind a read", []*pending{read}, grant(1, 1), true},
		{"other behind a read", []*pending{read}, other, true},
		{"grant behind another's", []*pending{read, grant(1, 1)}, grant(2, 2), true},
		{"grant of the same owner", []*pending{grant(1, 1)}, grant(1, 2), false},
		{"grant of the same id", []*pending{grant(1, 1), grant(3, 3)}, grant(2, 1), false},
		{"read behind a grant", []*pending{grant(1, 1)}, read, false}, // refused, it would stand behind the grant that allows it
		{"other behind a grant", []*pending{grant(1, 1)}, other, false},
		{"grant behind another kind", []*pending{other}, grant(1, 1), false},
		{"read behind another kind", []*pending{read, other}, read, false},
	} {
		if got := c.p.beside(c.batch); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}
