package storefront

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/writing"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
)

// Writers: who besides the owner publishes here. The vault decides; the index here keeps strangers from filling this disk, and tells writers what they were granted.

// postWriteGrant passes a write grant on to the vault; see begin.
func (s *Storefront) postWriteGrant(c *call) error {
	sub, env, err := submission(c.body)
	if err != nil {
		return err
	}
	d, err := policies.Decode[writing.Grant](env)
	if err != nil {
		return err
	}
	return s.begin(c, sub, env, d.Owner, "write grant", func(ctx context.Context) error { return s.indexWriteGrant(ctx, d, env) })
}

// indexWriteGrant makes a write grant known. The caller holds the lock of the owner's own slot.
func (s *Storefront) indexWriteGrant(ctx context.Context, d *writing.Grant, env *envelope.Envelope) error {
	place := slices.Concat(d.Writer[:], d.Owner[:], policies.U64(d.Seq))
	switch _, err := s.store.Get(ctx, key(kindWriteGrant, place)); {
	case err == nil:
		return nil // indexed before
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	record := writeRecord{Grant: env.Raw}
	// One that comes after its end, because an index was lost, is ended at once.
	err := s.each(ctx, key(kindChain, d.Owner[:]), chainKey(d.Owner, d.Seq), func(r store.Record) error {
		env, err := envelope.Parse(r.Value)
		if err != nil || env.Type != "write-end" {
			return err
		}
		later, err := policies.Decode[writing.End](env)
		if err != nil {
			return err
		}
		for _, item := range later.Items {
			if item.Grant == d.ID {
				record.end(item)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	change, err := encodeRecord(key(kindWriteGrant, place), 1, record)
	if err != nil {
		return err
	}
	changes := []store.Change{change, {Key: key(kindWritePlaces, d.Owner[:], d.ID[:]), Version: 1, Value: place}}
	if changes, err = s.once(ctx, changes, chainKey(d.Owner, d.Seq), env.Raw); err != nil {
		return err
	}
	if err := s.store.Commit(ctx, changes...); err != nil {
		return err
	}
	return s.tellLate(ctx, policies.IdentityID(d.Writer), key(kindWriteGrant, place), kindWritePlaces)
}

// postWriteEnd passes the end of write grants on to the vault; see end.
func (s *Storefront) postWriteEnd(c *call) error {
	sub, env, err := submission(c.body)
	if err != nil {
		return err
	}
	d, err := policies.Decode[writing.End](env)
	if err != nil {
		return err
	}
	return s.end(c, sub, d.Owner, "write end", func(ctx context.Context) error { return s.indexWriteEnd(ctx, d, env) })
}

// indexWriteEnd marks what ended. The caller holds the lock of the owner's own slot.
func (s *Storefront) indexWriteEnd(ctx context.Context, d *writing.End, env *envelope.Envelope) error {
	changes, err := s.once(ctx, nil, chainKey(d.Owner, d.Seq), env.Raw)
	if err != nil {
		return err
	}
	byGrant := make(map[policies.DocumentID][]writing.Ended)
	for _, item := range d.Items {
		byGrant[item.Grant] = append(byGrant[item.Grant], item)
	}
	for id, items := range byGrant {
		at, err := s.store.Get(ctx, key(kindWritePlaces, d.Owner[:], id[:]))
		if errors.Is(err, store.ErrNotFound) {
			continue // not indexed; if it is later, the chain says that it ended
		} else if err != nil {
			return err
		}
		var record writeRecord
		version, err := s.load(ctx, key(kindWriteGrant, at.Value), &record)
		if err != nil {
			return err
		}
		news := false
		for _, item := range items {
			news = record.end(item) || news
		}
		if !news {
			continue
		}
		change, err := encodeRecord(key(kindWriteGrant, at.Value), version+1, record)
		if err != nil {
			return err
		}
		changes = append(changes, change)
	}
	if len(changes) == 0 {
		return nil
	}
	return s.store.Commit(ctx, changes...)
}

// end notes that a field ended, and reports whether that is news. What is ended twice stays as it was ended first.
func (r *writeRecord) end(item writing.Ended) bool {
	if slices.Contains(r.Ended, item.Field) {
		return false
	}
	r.Ended = append(r.Ended, item.Field)
	if !item.Kept.IsZero() {
		r.Kept = append(r.Kept, item.Kept)
	}
	return true
}

// writeGrant is a stored write grant, decoded.
type writeGrant struct {
	writing.Grant
	record writeRecord
}

func parseWriteGrant(r store.Record) (*writeGrant, error) {
	w := new(writeGrant)
	if err := decodeRecord(r, &w.record); err != nil {
		return nil, err
	}
	_, d, err := stored[writing.Grant]("write grant", w.record.Grant)
	if err != nil {
		return nil, err
	}
	w.Grant = *d
	return w, nil
}

func (w *writeGrant) over(now time.Time) bool {
	return now.Unix() >= w.Expires || len(w.record.Ended) >= len(w.Fields)
}

// mayWrite refuses an author who is not the owner and has no write grant in force as far as this storefront knows.
func (s *Storefront) mayWrite(ctx context.Context, k slot) error {
	code := policies.CodeNoWriteGrant
	err := s.each(ctx, key(kindWriteGrant, k.author[:], k.owner[:]), nil, func(r store.Record) error {
		w, err := parseWriteGrant(r)
		if err != nil {
			return err
		}
		if w.over(s.now()) {
			code = policies.CodeWriteEnded
			return nil
		}
		return errPageFull
	})
	switch {
	case errors.Is(err, errPageFull):
		return nil
	case err != nil:
		return err
	}
	return code
}

// getWriterGrants lists, a page at a time, the write grants to the caller that are in force as far as this storefront knows.
func (s *Storefront) getWriterGrants(c *call) error {
	all := key(kindWriteGrant, c.subject[:])
	after, err := parseCursor(all, c.Query("after"))
	if err != nil {
		return err
	}
	prefix, err := ofOwner(c, all, after)
	if err != nil {
		return err
	}
	out := api.WriterGrants{Grants: []api.WriterGrant{}}
	size := 0
	err = s.each(c.ctx, prefix, after, func(r store.Record) error {
		if size > pageBytes || len(out.Grants) == pageDocuments {
			out.After = hex.EncodeToString(after[len(all):])
			return errPageFull
		}
		after = r.Key
		w, err := parseWriteGrant(r)
		if err != nil {
			return err
		}
		if !w.over(s.now()) {
			out.Grants = append(out.Grants, api.WriterGrant{Grant: w.record.Grant, Ended: w.record.Ended})
			size += len(w.record.Grant)
		}
		out.Kept = append(out.Kept, w.record.Kept...)
		size += len(w.record.Kept) * hex.EncodedLen(len(policies.Hash{}))
		return nil
	})
	if err != nil && err != errPageFull {
		return err
	}
	return c.json(http.StatusOK, out)
}

// withdrawn reports whether a writer's pending manifest is one that the vault does not let the writer publish. It is dropped, and comes again from the writer if it is to.
func withdrawn(k slot, err error) bool {
	return k != own(k.owner) && (errors.Is(err, policies.CodeNoWriteGrant) || errors.Is(err, policies.CodeWriteEnded) || errors.Is(err, policies.CodeNotYet))
}

// shared reports whether a grant is for what others than the owner write too.
func (g *grant) shared() bool {
	return slices.ContainsFunc(g.Fields, func(f policies.GrantedField) bool { return f.Author != policies.AuthorID(g.Owner) })
}
