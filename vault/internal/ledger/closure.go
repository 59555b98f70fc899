package ledger

import (
	"bytes"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// Closure is an account that was closed. What lies beside the owner's entries before Index may be erased later, also what the state otherwise rests on: a
// replay meets entries without it, passes over them, and finds the closure behind them. If it does not, somebody took it away.
type Closure struct {
	ID        policies.IdentityID `json:"id"`
	Pseudonym policies.Pseudonym  `json:"pseudonym"`
	Index     uint64              `json:"index"` // of its entry
	Time      int64               `json:"time"`  // of its entry, Unix seconds
}

// Closed reports whether an identity closed its account.
func (s *State) Closed(id policies.IdentityID) bool {
	_, ok := s.closed[id]
	return ok
}

// Closures are the accounts that were closed before a time, in the order of the log.
func (s *State) Closures(before time.Time) (out []Closure) {
	for _, c := range s.closed {
		if c.Time < before.Unix() {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b Closure) int { return int(a.Index) - int(b.Index) })
	return out
}

// ToClosed are the grants to those who closed their accounts of which the keys are not all recorded as destroyed. Nothing is released under them any more: that their readers are closed
// says so, and not a mark on each, of which there may be hundreds of thousands.
func (s *State) ToClosed() (out []*Grant) {
	for _, g := range s.grants {
		if s.Closed(policies.IdentityID(g.Document.Reader)) && slices.Contains(g.Revoked, false) {
			out = append(out, g)
		}
	}
	return out
}

// endToClosed ends fields of an owner's grants to a reader who closed their account, whose keys are destroyed. Nothing of that is pending: what the log does not have yet is among
// those that [State.ToClosed] returns.
func (s *State) endToClosed(d *evidence.Details) error {
	id := policies.IdentityID(d.Reader)
	c, ok := s.closed[id]
	if closing := s.chains[policies.OwnerID(id)]; !ok || c.Index != d.Index || closing.Hash != d.Document {
		return ErrOrder
	}
	return s.endKeys(d.Owner, d.Reader, d.Items)
}

// Entries are the indexes of an owner's entries before their closure, ascending.
func (s *State) Entries(c Closure) []uint64 {
	out := []uint64{}
	t := s.owned[c.ID]
	for n := uint64(0); t != nil && n < uint64(len(t.pages)); n++ {
		indexes, _ := readPage(t.page(n))
		for _, index := range indexes {
			if index < c.Index {
				out = append(out, index)
			}
		}
	}
	return out
}

// Closable reports whether what lies beside an entry, in its pinned encoding, goes when the account of the owner with this pseudonym was closed. Three things stay, so that
// anybody can see that it was the owner who closed it: the closure, the identity, which has keys and no name, and its successions, which have keys alone.
func Closable(raw []byte, owner policies.Pseudonym) bool {
	e, err := evidence.ParseEntry(raw)
	return err == nil && e.Owner == owner && !kept(e.Kind)
}

// kept are the kinds of an owner's entries of which nothing is ever erased.
func kept(k evidence.Kind) bool {
	return k == evidence.EntryClosure || k == evidence.EntryIdentity || k == evidence.EntrySuccession
}

// passOver reports whether a record is one that a replay passes over: of an owner of whom something was erased that the state would rest on, up to the closure that allows
// it. The nonces of requests still count.
func (s *State) passOver(r *Record) bool {
	if kept(r.Kind) || r.Owner.IsZero() {
		return false
	}
	_, over := s.gone[r.Owner]
	if r.Gone && !over {
		s.gone[r.Owner], over = r.Index, true
	}
	if over && (r.Kind == evidence.EntryUse || r.Kind == evidence.EntryRefusal) {
		s.use(r)
	}
	return over
}

// taken is the first entry, if any, whose body is gone although no closure of its owner follows.
func (s *State) taken() (first uint64, taken bool) {
	for _, index := range s.gone {
		if !taken || index < first {
			first, taken = index, true
		}
	}
	return first, taken
}

// close ends an account: all that is granted, the heads, so that nothing is proven under them, and what the identity opened as a reader.
func (s *State) close(r *Record, d *policies.Closure) error {
	id, hash := policies.IdentityID(d.Owner), r.Details.Document
	if s.Closed(id) {
		return ErrOrder
	}
	if _, over := s.gone[r.Owner]; over {
		delete(s.gone, r.Owner)
		s.chains[d.Owner] = Chain{Seq: d.Seq, Hash: hash, Index: r.Index}
		s.accept(hash, r.Index)
		s.touch(chainKey(d.Owner))
		s.touch(documentKey(len(s.accepted) - 1))
	} else if err := s.advance(r, d.Owner, d.Link); err != nil {
		return err
	}
	s.closed[id] = Closure{ID: id, Pseudonym: r.Owner, Index: r.Index, Time: r.Time.Unix()}
	s.touch(closedKey(id))
	s.endSessions(policies.ReaderID(id))
	for key := range s.heads {
		if key.owner == d.Owner {
			delete(s.heads, key)
			s.touch(headsKey(key))
		}
	}
	s.closeWriting(d.Owner)
	pending := &Revocation{Hash: hash, Owner: d.Owner, Index: r.Index, Items: []policies.RevokedItem{}}
	for grant, g := range s.grants {
		if g.Document.Owner != d.Owner {
			continue
		}
		for i := range g.Document.Fields {
			if !g.Revoked[i] {
				g.Revoked[i] = true
				s.keys[g.Document.Custody]--
				pending.Items = append(pending.Items, policies.RevokedItem{Grant: grant, Field: g.Document.Fields[i].Field, Author: g.Document.Fields[i].Author})
			}
		}
		s.touch(grantKey(grant))
	}
	slices.SortFunc(pending.Items, func(a, b policies.RevokedItem) int { return bytes.Compare(a.Grant[:], b.Grant[:]) })
	s.pending[hash] = pending
	s.touch(pendingKey(hash))
	return nil
}
