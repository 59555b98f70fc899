package vault

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/internal/ledger"
	"github.com/sallyport/sallyport/vault/keylog"
	"github.com/sallyport/sallyport/vault/pre"
)

// commitBytes is the size of records from which on no further decision is taken into a commit. The log takes 64 MiB at once, and one
// decision makes less than the difference: see maxBatchItems.
const commitBytes = 8 << 20

// A decision looks at the state, at a time, and says what is to be recorded. It is called once, alone, in the order of the log, and
// must be quick. It changes nothing but, in a read, what the reads after it in the same commit must see: nonces taken, releases promised.
type decision func(s *ledger.State, now time.Time) []ledger.Record

// pending is a decision that waits for its record. The zero value of company is a decision that is taken alone.
type pending struct {
	decide     decision
	company    company
	owner      policies.OwnerID // with grants
	grant      policies.DocumentID
	records    []ledger.Record
	checkpoint keylog.Checkpoint
	err        error
	done       chan struct{}
}

// company is what a decision may share a commit with. All decisions of a commit are taken in the state before it, and must be the same as if each were taken
// in the state that those before it leave: an auditor who replays the log meets it there.
type company int

const (
	alone  company = iota // behind reads, and with nothing behind it
	reads                 // behind reads
	grants                // behind reads, and grants of another owner and id
)

// beside reports whether a decision may be taken in a commit that has others.
func (p *pending) beside(batch []*pending) bool {
	for _, o := range batch {
		apart := p.company == grants && o.company == grants && p.owner != o.owner && p.grant != o.grant
		if o.company != reads && !apart {
			return false
		}
	}
	return true
}

// record makes a decision and returns when it is durable in the log and part of the state. An error means that it is not in force and that the
// caller must not act: the error wraps the code of [stopCode].
//
// ctx is asked before, not during: once a decision has been handed over its outcome is waited for.
func (v *Vault) record(ctx context.Context, d decision) ([]ledger.Record, keylog.Checkpoint, error) {
	return v.wait(ctx, &pending{decide: d, done: make(chan struct{})})
}

// recordReads is record for reads. They may share a commit with one another, since none changes what another rests on but nonces and
// limits, which they take at once.
func (v *Vault) recordReads(ctx context.Context, d decision) ([]ledger.Record, keylog.Checkpoint, error) {
	return v.wait(ctx, &pending{decide: d, company: reads, done: make(chan struct{})})
}

// recordGrant is record for the two records of a grant. What they change is the chain of the owner, who is at nothing else, and what is known of the grant: no
// grant of another owner and id rests on that.
func (v *Vault) recordGrant(ctx context.Context, g *policies.Grant, d decision) ([]ledger.Record, keylog.Checkpoint, error) {
	return v.wait(ctx, &pending{decide: d, company: grants, owner: g.Owner, grant: g.ID, done: make(chan struct{})})
}

func (v *Vault) wait(ctx context.Context, p *pending) ([]ledger.Record, keylog.Checkpoint, error) {
	if err := ctx.Err(); err != nil {
		return nil, keylog.Checkpoint{}, fmt.Errorf("%w: %w", policies.CodeUnavailable, err)
	}
	v.mu.RLock()
	if v.closed {
		v.mu.RUnlock()
		return nil, keylog.Checkpoint{}, fmt.Errorf("%w: the vault is closed", policies.CodeUnavailable)
	}
	v.decisions <- p
	v.mu.RUnlock()
	<-p.done
	return p.records, p.checkpoint, p.err
}

// run makes decisions until the vault is shut. Whatever reads or grants are waiting go into one commit, so a burst of them costs
// one signature and few fsyncs, and a lone one waits for nobody.
func (v *Vault) run() {
	for next := range v.decisions {
		for next != nil {
			next = v.commit(next)
		}
	}
}

// commit takes a decision and those that wait and may be beside it. It returns the one that may not.
func (v *Vault) commit(next *pending) *pending {
	var batch []*pending
	var records []keylog.Record
	size := 0
	for next != nil && size < commitBytes && next.beside(batch) {
		p := next
		batch = append(batch, p)
		v.ledger.Write(func(s *ledger.State) { p.records = p.decide(s, v.cfg.Clock()) })
		for i := range p.records {
			r := p.records[i].Seal()
			size += len(r.Entry) + len(r.Body)
			records = append(records, r)
		}
		select {
		case next = <-v.decisions: // nil once the vault is shut
		default:
			next = nil
		}
	}
	positions, checkpoint, err := []keylog.Position(nil), keylog.Checkpoint{}, v.fault
	if err == nil {
		positions, checkpoint, err = v.cfg.Log.Append(context.Background(), records...)
	}
	if err == nil {
		// A crash before this line leaves the decisions in the log and nobody having acted on them; the replay applies them.
		v.ledger.Write(func(s *ledger.State) {
			n := 0
			for _, p := range batch {
				for i := range p.records {
					p.records[i].Recorded(positions[n], records[n].Entry)
					if err == nil {
						err = s.Apply(&p.records[i])
					}
					n++
				}
			}
		})
		v.fault = err // the state is not what the log says: never again without a replay
	}
	if (err != nil) != v.stopped { // said once, not for every request
		if v.stopped = err != nil; v.stopped {
			v.cfg.Logger.Error("no key is used: the key-use log did not record", "error", err.Error())
		} else {
			v.cfg.Logger.Info("the key-use log records again")
		}
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", stopCode(err), err)
	}
	for _, p := range batch {
		p.checkpoint, p.err = checkpoint, err
		close(p.done)
	}
	return next
}

// flights counts uses of keys that were decided and are not over.
type flights struct {
	mu      sync.Mutex
	landed  sync.Cond
	flights map[KeyID]int
}

func (f *flights) init() {
	f.landed.L = &f.mu
	f.flights = map[KeyID]int{}
}

func (f *flights) begin(key KeyID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flights[key]++
}

func (f *flights) end(keys []KeyID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range keys {
		if f.flights[key]--; f.flights[key] == 0 {
			delete(f.flights, key)
		}
	}
	f.landed.Broadcast()
}

// inUse reports whether a use of the key is under way.
func (f *flights) inUse(key KeyID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flights[key] > 0
}

// drain returns when no use of the key is under way. That no new one begins is for the ledger.
func (f *flights) drain(key KeyID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.flights[key] > 0 {
		f.landed.Wait()
	}
}

// ownerLocks is a lock for each owner who is at it, so that two documents of one owner's chain are not taken up at once.
type ownerLocks struct {
	mu    sync.Mutex
	locks map[policies.OwnerID]*ownerLock
}

type ownerLock struct {
	mu      sync.Mutex
	waiting int // guarded by ownerLocks.mu
}

func (o *ownerLocks) init() { o.locks = map[policies.OwnerID]*ownerLock{} }

// lock waits for the owner's lock and returns what gives it up.
func (o *ownerLocks) lock(owner policies.OwnerID) (unlock func()) {
	o.mu.Lock()
	l := o.locks[owner]
	if l == nil {
		l = new(ownerLock)
		o.locks[owner] = l
	}
	l.waiting++
	o.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		o.mu.Lock()
		defer o.mu.Unlock()
		if l.waiting--; l.waiting == 0 {
			delete(o.locks, owner)
		}
	}
}

// try is lock for who does not wait: false if somebody is at it.
func (o *ownerLocks) try(owner policies.OwnerID) (unlock func(), ok bool) {
	o.mu.Lock()
	busy := o.locks[owner] != nil
	o.mu.Unlock()
	if busy {
		return nil, false
	}
	return o.lock(owner), true
}

// sessionKeys keeps K of each open session in memory, and nowhere else: after a restart it is opened again from the session document.
type sessionKeys struct {
	mu   sync.Mutex
	keys map[policies.Hash]*pre.SessionKey
}

func (k *sessionKeys) init() { k.keys = map[policies.Hash]*pre.SessionKey{} }

func (k *sessionKeys) get(session policies.Hash) *pre.SessionKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[session]
}

// put keeps the key of a session and returns the one that is kept: of two that were opened at once the first, and the other is zeroed.
func (k *sessionKeys) put(session policies.Hash, key *pre.SessionKey) *pre.SessionKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	if first := k.keys[session]; first != nil {
		key.Zero()
		return first
	}
	k.keys[session] = key
	return key
}

func (k *sessionKeys) forget(session policies.Hash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key := k.keys[session]; key != nil {
		key.Zero()
		delete(k.keys, session)
	}
}

func (k *sessionKeys) zero() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.keys {
		key.Zero()
	}
	clear(k.keys)
}

// refusalCount counts refusals of callers who could not be authenticated: anybody can cause them, so they cost a number
// and not an entry each.
type refusalCount struct {
	mu     sync.Mutex
	counts map[policies.Code]uint64
}

func (c *refusalCount) init() { c.counts = map[policies.Code]uint64{} }

func (c *refusalCount) add(code policies.Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[code]++
}

// take empties the count.
func (c *refusalCount) take() map[policies.Code]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.counts) == 0 {
		return nil
	}
	taken := c.counts
	c.counts = map[policies.Code]uint64{}
	return taken
}

// giveBack restores a count that could not be recorded.
func (c *refusalCount) giveBack(taken map[policies.Code]uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for code, n := range taken {
		c.counts[code] += n
	}
}

// recordRefusals records the count, if there is one.
func (v *Vault) recordRefusals() {
	taken := v.refused.take()
	if taken == nil {
		return
	}
	sum, note := countsOf(taken)
	_, _, err := v.record(context.Background(), func(*ledger.State, time.Time) []ledger.Record {
		return []ledger.Record{{Kind: evidence.EntryRefusals, Details: evidence.Details{Count: sum, Note: note}}}
	})
	if err != nil {
		v.refused.giveBack(taken)
	}
}
