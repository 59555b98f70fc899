package vault

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/freeze"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/policies/writing"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/internal/ledger"
	"github.com/sallyport/sallyport/vault/keylog"
)

// maxHistory is the longest page of a history.
const maxHistory = 500

// Chain is where an owner's chain stands, with the receipt of its newest document.
func (v *Vault) Chain(owner policies.OwnerID) (*api.ChainState, error) {
	var chain ledger.Chain
	var ok bool
	v.ledger.Read(func(s *ledger.State) { chain, ok = s.Chain(owner) })
	if !ok {
		return nil, policies.CodeNotFound
	}
	receipt, err := v.receiptAt(chain.Index, chain.Hash)
	if err != nil {
		return nil, err
	}
	return &api.ChainState{Seq: chain.Seq, Hash: chain.Hash, Receipt: receipt}, nil
}

// Fetch is a page of an owner's chain for the owner, newest first. Documents that the owner signed for any other end are no key to it: readers have
// grants, and a storefront manifests, also such as were never accepted.
func (v *Vault) Fetch(f api.Fetch) (*api.Fetched, error) {
	e, err := envelope.Parse(f.Envelope)
	if err != nil {
		return nil, v.stranger(err)
	}
	d, err := open[policies.Manifest](v, e, func(m *policies.Manifest) policies.IdentityID { return policies.IdentityID(m.Owner) })
	if err != nil {
		return nil, err
	}
	m, now := d.doc, v.cfg.Clock().Unix()
	if m.Audience != v.cfg.Document.Vault {
		return nil, v.stranger(policies.CodeWrongVault)
	}
	if m.Time < now-fetchLifetime || m.Time > now+fetchLifetime {
		return nil, v.stranger(policies.CodeExpired)
	}
	var at ledger.Chain
	var serious bool
	v.ledger.Read(func(s *ledger.State) {
		_, follows := s.Document(m.Prev)
		_, accepted := s.Document(e.Hash)
		serious = m.Author != policies.AuthorID(m.Owner) || m.Version != 1 || follows || accepted
		at, _ = s.Chain(m.Owner)
	})
	if serious {
		return nil, v.stranger(fmt.Errorf("%w: a document that could be in force is no question", policies.ErrMalformed))
	}
	page := &api.Fetched{Documents: []jsontext.Value{}}
	next, size := at.Hash, 0
	if !f.Before.IsZero() {
		raw, link, err := v.linkAt(m.Owner, f.Before)
		if err != nil {
			return nil, err
		}
		if raw == nil {
			return nil, policies.CodeNotFound
		}
		next = link.Prev
	}
	for len(page.Documents) < fetchPage && next != policies.Hash(m.Owner) {
		raw, link, err := v.linkAt(m.Owner, next)
		if err != nil {
			return nil, err
		}
		if size += len(raw); len(page.Documents) > 0 && size > api.MaxFetched {
			break
		}
		page.Documents, next = append(page.Documents, raw), link.Prev
	}
	return page, nil
}

const (
	fetchLifetime = 60 // seconds, to either side
	fetchPage     = 100
)

// linkAt is an accepted document of an owner's chain and its place there, nil if it is none.
func (v *Vault) linkAt(owner policies.OwnerID, hash policies.Hash) ([]byte, policies.Link, error) {
	var index uint64
	var known bool
	v.ledger.Read(func(s *ledger.State) { index, known = s.Document(hash) })
	if !known {
		return nil, policies.Link{}, nil
	}
	r, err := v.read(index)
	if err == nil && r.Kind == evidence.EntryGrant { // the document lies beside the import
		v.ledger.Read(func(s *ledger.State) { index = s.Grant(r.Details.Grant).Index })
		r, err = v.read(index)
	}
	if err != nil {
		return nil, policies.Link{}, err
	}
	switch d := r.Document.(type) {
	case *policies.Manifest:
		if d.Owner == owner && d.Author == policies.AuthorID(owner) {
			return r.Raw, d.Link, nil
		}
	case *policies.Grant:
		if d.Owner == owner {
			return r.Raw, d.Link, nil
		}
	case *policies.Revocation:
		if d.Owner == owner {
			return r.Raw, d.Link, nil
		}
	case *policies.Closure:
		if d.Owner == owner {
			return r.Raw, d.Link, nil
		}
	case *writing.Grant:
		if d.Owner == owner {
			return r.Raw, d.Link, nil
		}
	case *writing.End:
		if d.Owner == owner {
			return r.Raw, d.Link, nil
		}
	case *succession.Document:
		if d.Identity == policies.IdentityID(owner) {
			return r.Raw, d.Link, nil
		}
	case *succession.Suspension:
		if d.Reader == policies.ReaderID(owner) {
			return r.Raw, d.Link, nil
		}
	case *freeze.Thaw:
		if d.Owner == owner {
			return r.Raw, d.Link, nil
		}
	case *succession.Notice:
		if d.Identity == policies.IdentityID(owner) {
			return r.Raw, d.Link, nil
		}
	}
	return nil, policies.Link{}, nil
}

// Head is the newest manifest of an author for an owner, version 0 if there is none.
func (v *Vault) Head(owner policies.OwnerID, author policies.AuthorID) (*api.HeadState, error) {
	var head ledger.Head
	var ok bool
	v.ledger.Read(func(s *ledger.State) { _, ok = s.Chain(owner); head = s.Head(owner, author) })
	if !ok {
		return nil, policies.CodeNotFound
	}
	state := &api.HeadState{Version: head.Version, Manifest: head.Manifest}
	if head.Version == 0 {
		return state, nil
	}
	var err error
	state.Receipt, err = v.receiptAt(head.Index, head.Manifest)
	return state, err
}

// History is a page of the entries that concern an owner, newest first, of those with an index below before (0: from the newest).
func (v *Vault) History(owner policies.OwnerID, before uint64, limit int) (*api.History, error) {
	cp := v.cfg.Log.Checkpoint()
	if before == 0 || before > uint64(cp.Size) {
		before = uint64(cp.Size)
	}
	if limit <= 0 || limit > maxHistory {
		limit = maxHistory
	}
	var indexes []uint64
	known := false
	v.ledger.Read(func(s *ledger.State) {
		known = s.Identity(policies.IdentityID(owner)) != nil
		indexes = s.History(policies.IdentityID(owner), before, limit)
	})
	if !known {
		return nil, policies.CodeNotFound
	}
	v.accesses.add(policies.IdentityID(owner), historyAsked, v.cfg.Clock())
	page := &api.History{Checkpoint: cp.Note, Entries: make([]evidence.Evidence, 0, len(indexes))}
	for _, index := range indexes {
		record, err := v.read(index)
		if err != nil {
			return nil, err
		}
		proven, err := v.evidence(record, cp)
		if err != nil {
			return nil, err
		}
		page.Entries = append(page.Entries, *proven)
	}
	if len(indexes) == limit && indexes[limit-1] > 0 {
		page.Before = indexes[limit-1]
	}
	return page, nil
}

// Consistency proves that the log of to entries begins with the log of from entries. Whoever asks for more entries than there are has seen a log
// that this one does not have: CodeProof.
func (v *Vault) Consistency(from, to uint64) (*api.Consistency, error) {
	size := v.cfg.Log.Checkpoint().Size
	switch {
	case from == 0 || from > to:
		return nil, problem.New(policies.CodeMalformed, "from is at least 1 and at most to")
	case to > uint64(size):
		return nil, problem.New(policies.CodeProof, "the log has %d entries", size)
	}
	proof, err := v.cfg.Log.ProveConsistency(int64(from), int64(to))
	if err != nil {
		return nil, unreadable(err)
	}
	out := &api.Consistency{From: from, To: to, Proof: make([]policies.Hash, len(proof))}
	for i := range proof {
		out.Proof[i] = policies.Hash(proof[i])
	}
	return out, nil
}

// again answers a chain's document that was accepted before, nil if it was not. A revocation that is not done yet is finished first.
func (v *Vault) again(ctx context.Context, hash policies.Hash) (*evidence.Receipt, error) {
	var undone *ledger.Revocation
	var known bool
	v.ledger.Read(func(s *ledger.State) { _, known = s.Document(hash); undone = s.UndoneRevocation(hash) })
	if !known {
		return nil, nil
	}
	if undone != nil {
		if err := v.destroy(context.WithoutCancel(ctx), undone); err != nil {
			return nil, err
		}
	}
	return v.receiptOf(hash)
}

// receiptOf is the receipt of an accepted document.
func (v *Vault) receiptOf(hash policies.Hash) (*evidence.Receipt, error) {
	var index uint64
	var ok bool
	v.ledger.Read(func(s *ledger.State) { index, ok = s.Document(hash) })
	if !ok {
		return nil, policies.CodeNotFound
	}
	return v.receiptAt(index, hash)
}

func (v *Vault) receiptAt(index uint64, document policies.Hash) (*evidence.Receipt, error) {
	record, err := v.read(index)
	if err != nil {
		return nil, err
	}
	return v.receipt(record, v.cfg.Log.Checkpoint(), document)
}

func (v *Vault) read(index uint64) (*ledger.Record, error) {
	p, raw, err := v.cfg.Log.Read(int64(index))
	if err != nil {
		return nil, unreadable(err)
	}
	return ledger.Decode(p, raw)
}

// receipt proves a record under a checkpoint that contains it.
func (v *Vault) receipt(r *ledger.Record, cp keylog.Checkpoint, document policies.Hash) (*evidence.Receipt, error) {
	proven, err := v.evidence(r, cp)
	if err != nil {
		return nil, err
	}
	return &evidence.Receipt{
		Type: "receipt", Suite: policies.Suite, Vault: v.cfg.Document.Vault,
		Document: document, Evidence: *proven, Checkpoint: cp.Note,
	}, nil
}

func (v *Vault) evidence(r *ledger.Record, cp keylog.Checkpoint) (*evidence.Evidence, error) {
	proof, err := v.cfg.Log.Prove(int64(r.Index), cp.Size)
	if err != nil {
		return nil, unreadable(err)
	}
	e := &evidence.Evidence{Index: r.Index, Leaf: r.Leaf, Opening: r.Opening, Proof: make([]policies.Hash, len(proof))}
	for i := range proof {
		e.Proof[i] = policies.Hash(proof[i])
	}
	return e, nil
}

func unreadable(err error) error {
	if errors.Is(err, keylog.ErrClosed) || errors.Is(err, keylog.ErrCold) {
		return fmt.Errorf("%w: %w", policies.CodeUnavailable, err)
	}
	return fmt.Errorf("%w: %w", stopCode(err), err)
}

// stopCode is what a caller is told of a log that does not record.
func stopCode(err error) policies.Code {
	switch {
	case errors.Is(err, keylog.ErrNoSpace):
		return policies.CodeLogFull
	case errors.Is(err, keylog.ErrClock):
		return policies.CodeClock
	}
	return policies.CodeLogStopped
}
