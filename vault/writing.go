package vault

import (
	"context"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/writing"
	"github.com/sallyport/sallyport/vault/internal/ledger"
)

// Writers: who besides the owner may be an author. The vault sees manifests and not what is in them, so it decides twice. A manifest is accepted if any write grant
// of the owner's to its author is in force. An item is released if one covers it (writing.Check), which is seen when somebody reads it.

// grantWriting puts a write grant in force. No key comes with it: what the writer needs is in the document, sealed to the writer.
func (v *Vault) grantWriting(ctx context.Context, e *envelope.Envelope) (*evidence.Receipt, error) {
	d, err := open(v, e, func(g *writing.Grant) policies.IdentityID { return policies.IdentityID(g.Owner) })
	if err != nil {
		return nil, err
	}
	g := d.doc
	d.owner = g.Owner
	defer v.owners.lock(g.Owner)()
	if receipt, err := v.again(ctx, e.Hash); receipt != nil || err != nil {
		return receipt, err
	}
	var writer policies.Pseudonym
	record, cp, err := accept(ctx, v, d, func(s *ledger.State, _ time.Time) error {
		if g.Audience != v.cfg.Document.Vault {
			return policies.CodeWrongVault
		}
		if err := follows(s, g.Owner, g.Link); err != nil {
			return err
		}
		if s.WriteGrant(g.ID) != nil {
			return policies.CodeExists
		}
		if s.Closed(policies.IdentityID(g.Writer)) {
			return policies.CodePartyClosed
		}
		if writer = s.Pseudonym(policies.IdentityID(g.Writer)); writer.IsZero() {
			return problem.New(policies.CodeUnknown, "the writer is not enrolled in this vault")
		}
		return nil
	}, func() ledger.Record {
		return ledger.Record{
			Kind: evidence.EntryWriteGrant, Owner: d.signer.Pseudonym, Reader: writer, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: g,
			Details: evidence.Details{Owner: g.Owner, Reader: policies.ReaderID(g.Writer), Author: g.Writer, Grant: g.ID, Document: e.Hash, Seq: g.Seq},
		}
	})
	if err != nil {
		return nil, err
	}
	return v.receipt(&record, cp, e.Hash)
}

// endWriting ends fields of write grants. The last manifest that the owner names must be one that this vault has accepted, and new enough (writing.CheckEnd). Of what
// came after it nothing counts.
func (v *Vault) endWriting(ctx context.Context, e *envelope.Envelope) (*evidence.Receipt, error) {
	d, err := open(v, e, func(w *writing.End) policies.IdentityID { return policies.IdentityID(w.Owner) })
	if err != nil {
		return nil, err
	}
	w := d.doc
	d.owner = w.Owner
	defer v.owners.lock(w.Owner)()
	if receipt, err := v.again(ctx, e.Hash); receipt != nil || err != nil {
		return receipt, err
	}
	var writer policies.Pseudonym
	record, cp, err := accept(ctx, v, d, func(s *ledger.State, _ time.Time) error {
		if w.Audience != v.cfg.Document.Vault {
			return policies.CodeWrongVault
		}
		if err := follows(s, w.Owner, w.Link); err != nil {
			return err
		}
		for i, item := range w.Items {
			g := s.WriteGrant(item.Grant)
			if g == nil || g.Document.Owner != w.Owner || g.Document.Writer != w.Writer {
				return problem.New(policies.CodeNotFound, "item %d: no such write grant to this writer", i)
			}
			if _, ok := g.Document.Epoch(item.Field); !ok {
				return problem.New(policies.CodeNotFound, "item %d: the write grant has no such field", i)
			}
		}
		if w.Last.Version != 0 {
			at, ok := s.Accepted(w.Owner, w.Writer, w.Last.Version)
			if index, known := s.Document(w.Last.Manifest); !ok || !known || index != at {
				return problem.New(policies.CodeNotFound, "the last manifest is none that this vault accepted")
			}
		}
		if err := writing.CheckEnd(s.Writings(w.Owner, w.Writer), w, s.Head(w.Owner, w.Writer).Version); err != nil {
			return problem.New(policies.CodeHeadMoved, "the writer published something newer than the last manifest; look at it and sign again")
		}
		writer = s.Pseudonym(policies.IdentityID(w.Writer))
		return nil
	}, func() ledger.Record {
		items := make([]policies.RevokedItem, len(w.Items))
		for i, item := range w.Items {
			items[i] = policies.RevokedItem{Grant: item.Grant, Field: item.Field, Author: w.Writer}
		}
		return ledger.Record{
			Kind: evidence.EntryWriteEnd, Owner: d.signer.Pseudonym, Reader: writer, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: w,
			Details: evidence.Details{Owner: w.Owner, Reader: policies.ReaderID(w.Writer), Author: w.Writer, Document: e.Hash, Seq: w.Seq, Version: w.Last.Version, Head: w.Last.Manifest, Items: items},
		}
	})
	if err != nil {
		return nil, err
	}
	return v.receipt(&record, cp, e.Hash)
}

// written decides whether an item counts, of an owner who let others write, and finds its place in the vault's order.
func written(s *ledger.State, it *readItem) (accepted uint64, code policies.Code) {
	owner, author := it.leaf.Owner, it.leaf.Author
	if !s.Shared(owner) {
		if author != policies.AuthorID(owner) {
			return 0, policies.CodeNoWriteGrant
		}
		return 0, ""
	}
	accepted, ok := s.Accepted(owner, author, it.leaf.Version)
	if !ok {
		return 0, policies.CodeLeaf // no manifest has the version that the leaf gives itself
	}
	if author == policies.AuthorID(owner) {
		return accepted, ""
	}
	err := writing.Check(s.Writings(owner, author), writing.Item{
		Leaf: it.hash, Field: it.leaf.Field, Epoch: it.leaf.Epoch, Version: it.leaf.Version,
		Head: it.head.Version, Index: it.head.Index, Accepted: it.head.Time,
	})
	if err != nil {
		return 0, err.(policies.Code)
	}
	return accepted, ""
}
