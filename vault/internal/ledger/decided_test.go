package ledger

import (
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// A use that was decided before midnight and logged after it counts for the day before. An entry that does not say when it was decided counts for the
// day of its own time.
func TestUsesCountForTheDayOfTheirDecision(t *testing.T) {
	midnight := time.Unix(20000*86400, 0)
	use := func(s *State, decided, logged time.Time) {
		r := &Record{Kind: evidence.EntryUse, Outcome: policies.CodeReleased, Time: logged, Index: s.next, Details: evidence.Details{Grant: policies.DocumentID{1}, Field: "a"}}
		if !decided.IsZero() {
			r.Details.Decided = decided.UnixMilli()
		}
		must(t, s.Apply(r))
	}
	s := newState()
	g := &Grant{Document: policies.Grant{Limits: policies.Limits{ReadsPerDay: 9}, Fields: []policies.GrantedField{{Field: "a"}}}}
	s.grants[policies.DocumentID{1}] = g
	use(s, midnight.Add(-3*time.Millisecond), midnight.Add(2*time.Millisecond))
	if got := s.UsedOn(g, midnight.Add(-time.Millisecond)); got != 1 {
		t.Errorf("%d uses on the day of the decision, want 1", got)
	}
	if got := s.UsedOn(g, midnight); got != 0 {
		t.Errorf("%d uses on the day after it, want 0", got)
	}
	use(s, time.Time{}, midnight.Add(time.Second))
	if got := s.UsedOn(g, midnight); got != 1 {
		t.Errorf("%d uses on the day of an entry that does not say, want 1", got)
	}
}
