package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/internal/ledger"
)

// Limits bound what callers can add to the log and to the memory of a vault. Zero means the default. What somebody is refused is on record, and the
// record costs disk for ever while the refused request costs its sender nothing: so everybody has an allowance of it. It is counted in units of
// a record of a refusal, or a KiB of the request that lies beside it. A request that begins within the allowance is recorded whole.
//
// Beyond it nothing is listed and all of it counted: the log says once in a while who was refused how often, and why. A read with a refused item is
// then refused as a whole, with rate_limited; one without is served as ever. A refused document is answered with its reason all the same, because an
// owner may need it (the receipt in chain_moved) to revoke.
type Limits struct {
	Refusals     float64 // of one identity, a second; default 1
	RefusalBurst int     // and at once; default 500
	// RefusalsOverall is a second, of all identities together; default 20. Half of what an identity may at once, and a hundredth of its rate, do not
	// draw on it: many who are refused for ever leave room for those who are refused now and then.
	RefusalsOverall float64

	Sessions        int     // of one reader at a time, default 1024: a command that is run once a second, with a session each time, stays below
	SessionRate     float64 // of one reader, opened a second; default 1, as many at once as there may be
	SessionRequests int     // in one session, default 100,000: their nonces are kept until it ends

	Queries    float64 // of one auditor, a second; default 2
	QueryBurst int     // and at once; default 100

	Evidence      float64 // entries of the log proven to one reader, a second; default 2000
	EvidenceBurst int     // and at once; default 10,000
}

func (l Limits) withDefaults() (Limits, error) {
	l.Refusals = cmp.Or(l.Refusals, 1)
	l.RefusalBurst = cmp.Or(l.RefusalBurst, 500)
	l.RefusalsOverall = cmp.Or(l.RefusalsOverall, 20)
	l.Sessions = cmp.Or(l.Sessions, 1024)
	l.SessionRate = cmp.Or(l.SessionRate, 1)
	l.SessionRequests = cmp.Or(l.SessionRequests, 100_000)
	l.Evidence = cmp.Or(l.Evidence, 2000)
	l.EvidenceBurst = cmp.Or(l.EvidenceBurst, 10_000)
	l.Queries = cmp.Or(l.Queries, 2)
	l.QueryBurst = cmp.Or(l.QueryBurst, 100)
	if l.Evidence < 0 || l.EvidenceBurst < 0 || l.Refusals < 0 || l.RefusalBurst < 0 || l.RefusalsOverall < 0 || l.Sessions < 0 || l.SessionRate < 0 || l.SessionRequests < 0 || l.Queries < 0 || l.QueryBurst < 0 {
		return l, errors.New("a limit is below zero")
	}
	return l, nil
}

// A bucket is an allowance that fills with time. It may be overdrawn by what is taken at once: then it is empty for the longer.
type bucket struct {
	level float64
	at    time.Time
}

// fill brings a bucket up to a time. A clock that was set back fills nothing.
func (b *bucket) fill(now time.Time, perSecond, most float64) {
	if b.at.IsZero() {
		b.level = most
	} else if since := now.Sub(b.at).Seconds(); since > 0 {
		b.level = min(most, b.level+since*perSecond)
	}
	b.at = now
}

// An allowance is for one kind of thing, so that a storefront that sends an owner's old documents again and again uses up no reader's.
type allowance struct {
	id   policies.IdentityID
	kind allowanceKind
}

type allowanceKind byte

const (
	refusedReads allowanceKind = iota
	refusedDocuments
	failedImports
	openedSessions
	auditQueries
	shownEntries
)

// refused reports whether an allowance is of refusals, of which all identities together have one too.
func (k allowanceKind) refused() bool {
	return k != openedSessions && k != auditQueries && k != shownEntries
}

// quota is what an identity has left of an allowance, and what was refused beyond it and is not recorded yet.
type quota struct {
	bucket
	grace         bucket             // of it, what does not draw on the overall rate
	owner, reader policies.Pseudonym // whom the log names
	counts        map[policies.Code]uint64
	recorded      time.Time     // when counts were recorded last
	pause         time.Duration // until they are recorded again
}

// Bounds of how often counts beyond an allowance are recorded: of one identity, after the first time, and of how many identities in a second.
const (
	firstPause   = time.Second
	longestPause = time.Minute
	countsAtOnce = 16
)

// quotas are the allowances that are not full. They are in memory only: after a restart everybody has all of theirs.
type quotas struct {
	limits  Limits
	mu      sync.Mutex
	of      map[allowance]*quota
	overall bucket
}

func (q *quotas) init(l Limits) { q.limits, q.of = l, map[allowance]*quota{} }

func (q *quotas) bounds(kind allowanceKind) (perSecond, most float64) {
	switch kind {
	case openedSessions:
		return q.limits.SessionRate, float64(q.limits.Sessions)
	case auditQueries:
		return q.limits.Queries, float64(q.limits.QueryBurst)
	case shownEntries:
		return q.limits.Evidence, float64(q.limits.EvidenceBurst)
	}
	return q.limits.Refusals, float64(q.limits.RefusalBurst)
}

// get is called with mu held.
func (q *quotas) get(a allowance, now time.Time) *quota {
	one := q.of[a]
	if one == nil {
		one = new(quota)
		q.of[a] = one
	}
	perSecond, most := q.bounds(a.kind)
	one.fill(now, perSecond, most)
	one.grace.fill(now, perSecond/100, most/2)
	return one
}

// take takes cost units, all or, if none is left, nothing.
func (q *quotas) take(a allowance, now time.Time, cost int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	one := q.get(a, now)
	if one.level < 1 {
		return false
	}
	if one.grace.level >= 1 || !a.kind.refused() {
		one.grace.level -= float64(cost)
	} else {
		q.overall.fill(now, q.limits.RefusalsOverall, 60*q.limits.RefusalsOverall)
		if q.overall.level < 1 {
			return false
		}
		q.overall.level -= float64(cost)
	}
	one.level -= float64(cost)
	return true
}

// left reports whether anything is left.
func (q *quotas) left(a allowance, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.get(a, now).level >= 1
}

// count counts what is refused and not listed.
func (q *quotas) count(a allowance, now time.Time, owner, reader policies.Pseudonym, codes map[policies.Code]uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	one := q.get(a, now)
	one.owner, one.reader = owner, reader
	if one.counts == nil {
		one.counts = make(map[policies.Code]uint64)
	}
	for code, n := range codes {
		one.counts[code] += n
	}
}

// due takes the counts whose time has come, of those that were recorded longest ago, and forgets allowances that are full. An identity whose
// counts come in for ever is recorded after a second, then ever more rarely, at last once a minute. With all, everything is taken.
func (q *quotas) due(now time.Time, all bool) map[allowance]*quota {
	q.mu.Lock()
	defer q.mu.Unlock()
	var waiting []allowance
	for a, one := range q.of {
		switch since := now.Sub(one.recorded); {
		case one.counts != nil && (all || since >= one.pause || since < 0):
			waiting = append(waiting, a)
		case one.counts == nil && since >= 2*longestPause:
			perSecond, most := q.bounds(a.kind)
			one.fill(now, perSecond, most)
			if one.grace.fill(now, perSecond/100, most/2); one.level >= most && one.grace.level >= most/2 {
				delete(q.of, a)
			}
		}
	}
	slices.SortFunc(waiting, func(a, b allowance) int { return q.of[a].recorded.Compare(q.of[b].recorded) })
	if !all && len(waiting) > countsAtOnce {
		waiting = waiting[:countsAtOnce]
	}
	taken := make(map[allowance]*quota, len(waiting))
	for _, a := range waiting {
		one := q.of[a]
		taken[a] = &quota{owner: one.owner, reader: one.reader, counts: one.counts}
		if one.counts = nil; now.Sub(one.recorded) > 2*longestPause {
			one.pause = 0
		}
		one.recorded, one.pause = now, min(longestPause, max(firstPause, 2*one.pause))
	}
	return taken
}

// giveBack restores counts that could not be recorded.
func (q *quotas) giveBack(taken map[allowance]*quota, now time.Time) {
	for a, one := range taken {
		q.count(a, now, one.owner, one.reader, one.counts)
	}
}

// countsOf is a refusals entry's count and note.
func countsOf(counts map[policies.Code]uint64) (sum uint64, note string) {
	var parts []string
	for _, code := range slices.Sorted(maps.Keys(counts)) {
		sum += counts[code]
		parts = append(parts, fmt.Sprintf("%s %d", string(code), counts[code]))
	}
	return sum, strings.Join(parts, ", ")
}

// recordCounts records how often callers were refused beyond what is listed. At the end all, else those whose time has come.
func (v *Vault) recordCounts(all bool) {
	now := v.cfg.Clock()
	taken := v.quotas.due(now, all)
	if len(taken) == 0 {
		return
	}
	_, _, err := v.record(context.Background(), func(s *ledger.State, _ time.Time) (out []ledger.Record) {
		for a, one := range taken {
			sum, note := countsOf(one.counts)
			r := ledger.Record{Kind: evidence.EntryRefusals, Owner: one.owner, Reader: one.reader, Details: evidence.Details{Identity: a.id, Count: sum, Note: note}}
			if s.Closed(a.id) { // who closed their account is named no more
				r.Owner, r.Reader, r.Details.Identity = policies.Pseudonym{}, policies.Pseudonym{}, policies.IdentityID{}
			}
			out = append(out, r)
		}
		return out
	})
	if err != nil {
		v.quotas.giveBack(taken, now)
	}
}

// refusable decides whether the refusals among a read's records may be listed. If not, the read is undone and refused as a whole: the records from
// first on go, and a count takes their place. It is called in a decision.
func (v *Vault) refusable(s *ledger.State, now time.Time, r *read, out []ledger.Record, first int) []ledger.Record {
	codes, cost, used := map[policies.Code]uint64{}, 0, false
	for i := first; i < len(out); i++ {
		if out[i].Kind == evidence.EntryUse {
			used = true
			continue
		}
		codes[out[i].Outcome]++
		cost++
	}
	if cost == 0 {
		return out
	}
	if !used { // else the request lies there for the sake of the uses
		cost += len(out[first].Raw) >> 10
	}
	reader := r.session.Document.Reader
	a := allowance{policies.IdentityID(reader), refusedReads}
	if v.quotas.take(a, now, cost) {
		return out
	}
	v.quotas.count(a, now, policies.Pseudonym{}, s.Pseudonym(a.id), codes)
	v.withdraw(s, r)
	r.refusal = policies.CodeRateLimited
	return out[:first]
}

// refusedDocument is the record of a refused document, if it may be listed; else it is counted. It is called in a decision.
func refusedDocument[T any](v *Vault, s *ledger.State, now time.Time, d *signed[T], refused error) []ledger.Record {
	code := problem.Of(refused).Code
	if s.Closed(d.signer.ID) { // since the signature was verified; an entry of theirs would stay when all of theirs before it go
		v.refused.add(code)
		return nil
	}
	records := d.refusal(code)
	a := allowance{d.signer.ID, refusedDocuments}
	if v.quotas.take(a, now, len(records)) {
		return records
	}
	v.quotas.count(a, now, records[0].Owner, records[0].Reader, map[policies.Code]uint64{code: 1})
	return nil
}
