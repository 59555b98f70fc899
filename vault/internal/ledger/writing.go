package ledger

import (
	"slices"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/writing"
)

// What others may write for an owner, and the vault's order of what was written. An owner who never let anybody write costs nothing: the order begins with their first
// write grant.

// Writer is a write grant that was accepted, without its sealed points.
type Writer struct {
	Document writing.Grant   `json:"document"`
	Hash     policies.Hash   `json:"hash"`
	Index    uint64          `json:"index"`
	Ended    []writing.Ended `json:"ended,omitzero"`
}

// writing is the grant as a decision takes it.
func (w *Writer) writing() writing.Standing {
	out := writing.Standing{Grant: &w.Document, Index: w.Index}
	if len(w.Ended) > 0 {
		out.Ended = make(map[policies.Field]writing.Ended, len(w.Ended))
		for _, item := range w.Ended {
			out.Ended[item.Field] = item
		}
	}
	return out
}

// Writings are the write grants of an owner to an author, oldest first.
func (s *State) Writings(owner policies.OwnerID, author policies.AuthorID) []writing.Standing {
	list := s.writers[headKey{owner, author}]
	out := make([]writing.Standing, len(list))
	for i, w := range list {
		out[i] = w.writing()
	}
	return out
}

// WriteGrant is a write grant that is or was in force, or nil.
func (s *State) WriteGrant(id policies.DocumentID) *Writer { return s.writeGrants[id] }

// Shared reports whether an owner ever let anybody else write.
func (s *State) Shared(owner policies.OwnerID) bool {
	_, ok := s.shared[owner]
	return ok
}

// Accepted is the place of an author's version in the vault's order: the index of the entry that accepted the author's manifest of that version, 0 if that was before
// anybody else could write for the owner. False: there is no such manifest.
func (s *State) Accepted(owner policies.OwnerID, author policies.AuthorID, version uint64) (uint64, bool) {
	k := headKey{owner, author}
	head := s.heads[k]
	if version == 0 || version > head.Version {
		return 0, false
	}
	if version <= head.Before {
		return 0, true
	}
	return s.orders[k].at(version - head.Before - 1)
}

// at is a place of the list.
func (t *trail) at(place uint64) (uint64, bool) {
	if t == nil || place >= uint64(t.n) {
		return 0, false
	}
	indexes, ok := readPage(t.pages[place/trailPage])
	if !ok || place%trailPage >= uint64(len(indexes)) {
		return 0, false
	}
	return indexes[place%trailPage], true
}

// publish moves a head.
func (s *State) publish(r *Record, m *policies.Manifest) error {
	key := headKey{m.Owner, m.Author}
	h := s.heads[key]
	if m.Author != policies.AuthorID(m.Owner) { // a chain of its own
		if len(s.writers[key]) == 0 || m.Seq != m.Version {
			return ErrOrder
		}
		s.accept(r.Details.Document, r.Index)
		s.touch(documentKey(len(s.accepted) - 1))
	} else if err := s.advance(r, m.Owner, m.Link); err != nil {
		return err
	}
	if m.Version != h.Version+1 || m.PrevManifest != h.Manifest {
		return ErrOrder
	}
	s.heads[key] = Head{Version: m.Version, Manifest: r.Details.Document, Size: m.TreeSize, Root: m.Root, Index: r.Index, Before: h.Before}
	if s.Shared(m.Owner) {
		next := s.heads[key]
		next.Time = r.Time.Unix()
		s.heads[key] = next
		t := s.orders[key]
		if t == nil {
			t = new(trail)
			s.orders[key] = t
		}
		t.add(r.Index)
		s.touch(orderKey(key, t.n-1))
	}
	s.touch(headsKey(key))
	return nil
}

// grantWriting puts a write grant in force.
func (s *State) grantWriting(r *Record, d *writing.Grant) error {
	if err := s.advance(r, d.Owner, d.Link); err != nil {
		return err
	}
	if s.writeGrants[d.ID] != nil {
		return ErrOrder
	}
	if !s.Shared(d.Owner) { // what the owner published so far comes before all that anybody else will
		key := headKey{d.Owner, policies.AuthorID(d.Owner)}
		if h := s.heads[key]; h.Version != 0 {
			h.Before = h.Version
			s.heads[key] = h
			s.touch(headsKey(key))
		}
	}
	w := &Writer{Document: *d, Hash: r.Details.Document, Index: r.Index}
	w.Document.Sealed, w.Document.Fields = nil, slices.Clone(d.Fields)
	s.insertWriter(w)
	s.touch(writerKey(d.ID))
	return nil
}

// insertWriter takes a write grant in. Those of one author are in the order of the log.
func (s *State) insertWriter(w *Writer) {
	k := headKey{w.Document.Owner, w.Document.Writer}
	s.writeGrants[w.Document.ID] = w
	at, _ := slices.BinarySearchFunc(s.writers[k], w.Index, func(o *Writer, index uint64) int {
		if o.Index < index {
			return -1
		}
		return 1
	})
	s.writers[k] = slices.Insert(s.writers[k], at, w)
	s.shared[w.Document.Owner] = struct{}{}
}

// endWriting ends fields of write grants. What is ended twice stays as it was ended first.
func (s *State) endWriting(r *Record, d *writing.End) error {
	if err := s.advance(r, d.Owner, d.Link); err != nil {
		return err
	}
	for _, item := range d.Items {
		w := s.writeGrants[item.Grant]
		if w == nil || w.Document.Owner != d.Owner || w.Document.Writer != d.Writer {
			return ErrOrder
		}
		if _, ok := w.Document.Epoch(item.Field); !ok {
			return ErrOrder
		}
		if !slices.ContainsFunc(w.Ended, func(o writing.Ended) bool { return o.Field == item.Field }) {
			w.Ended = append(slices.Clone(w.Ended), item)
		}
		s.touch(writerKey(item.Grant))
	}
	return nil
}

// closeWriting forgets what others wrote for an owner who closed their account.
func (s *State) closeWriting(owner policies.OwnerID) {
	for k, list := range s.writers {
		if k.owner != owner {
			continue
		}
		for _, w := range list {
			delete(s.writeGrants, w.Document.ID)
			s.touch(writerKey(w.Document.ID))
		}
		delete(s.writers, k)
	}
	for k, t := range s.orders {
		if k.owner != owner {
			continue
		}
		for at := 0; at < t.n; at += trailPage {
			s.touch(orderKey(k, at))
		}
		delete(s.orders, k)
	}
	delete(s.shared, owner)
}

// writingState is this part of the state.
type writingState struct {
	writeGrants map[policies.DocumentID]*Writer
	writers     map[headKey][]*Writer
	shared      map[policies.OwnerID]struct{}
	orders      map[headKey]*trail // of owners who ever let others write: the entries of the manifests after [Head.Before]
}

func newWritingState() writingState {
	return writingState{
		writeGrants: map[policies.DocumentID]*Writer{}, writers: map[headKey][]*Writer{},
		shared: map[policies.OwnerID]struct{}{}, orders: map[headKey]*trail{},
	}
}

// Pages of one list have keys in the order of their numbers, and are inserted in that order.
func (s *State) insertOrder(k headKey, value []byte, indexes []uint64) {
	t := s.orders[k]
	if t == nil {
		t = new(trail)
		s.orders[k] = t
	}
	t.pages, t.n, t.last = append(t.pages, slices.Clip(value)), t.n+len(indexes), indexes[len(indexes)-1]
}
