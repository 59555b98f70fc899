package client

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/succession"
)

// Several may write one field of an owner: the owner, and whom the owner lets. A reader has a key for each, asks for all of them in one request, and takes the newest
// by the vault's order, which the vault tells under the session's key. The storefront can hold a writer's item back, as it can any: the vault then says that there
// is none, and the reader sees the owner's. It cannot give an older one for a newer, nor one writer's for another's.

// Read asks for items, all of them in as few requests as possible, and returns one Value for each, in order: of several authors' the newest. Its error is about the whole
// (nothing could be asked); what concerns one item is in its Value.
func (r *Reader) Read(ctx context.Context, items ...Item) ([]Value, error) {
	if err := r.ready(ctx); err != nil {
		return nil, err
	}
	if err := r.learnPurposes(ctx, items); err != nil {
		return nil, err
	}
	asked, before := newAsked(items), make([]uint64, len(items))
	for i := range items {
		before[i] = r.newest(&items[i])
	}
	// The grants that come with the first answers may name authors that this reader did not know of.
	for turn := range 2 {
		from := len(asked.values)
		for i := range items {
			asked.add(i, r.authorsOf(&items[i])...)
		}
		if err := r.ask(ctx, asked, from); err != nil {
			return nil, err
		}
		var learnt []Item
		for i := range items {
			if r.newest(&items[i]) > before[i] {
				learnt = append(learnt, items[i])
			}
		}
		if turn == 0 && len(learnt) > 0 { // a newer grant may name some of the authors, and one before it that did not come the others
			if err := r.grantsOf(ctx, learnt); err != nil {
				return nil, err
			}
		}
	}
	out := make([]Value, len(items))
	from := len(asked.values)
	for i := range items {
		var again *Value
		if out[i], again = asked.newest(i); again != nil { // the newest is one that was thought to be older, and not sent
			it := again.Item
			it.Known, again.Err = 0, errAskedAgain
			asked.values = append(asked.values, Value{Item: it})
			asked.of[i] = append(asked.of[i], len(asked.values)-1)
		}
	}
	if len(asked.values) > from {
		if err := r.ask(ctx, asked, from); err != nil {
			return nil, err
		}
		for i := range items {
			out[i], _ = asked.newest(i)
		}
	}
	r.remember(asked)
	return out, nil
}

// errAskedAgain marks an outcome that a later one takes the place of.
var errAskedAgain = errors.New("asked for again")

// asked is what is asked for items: one value for each author of each.
type asked struct {
	items  []Item
	values []Value
	of     [][]int // for each item its values
}

func newAsked(items []Item) *asked { return &asked{items: items, of: make([][]int, len(items))} }

// authors are those who may have written an item, with what the caller, or this reader, has of each already.
func (a *asked) add(i int, authors ...Item) {
	for _, it := range authors {
		if !slices.ContainsFunc(a.of[i], func(j int) bool { return a.values[j].author() == it.author() }) {
			a.values = append(a.values, Value{Item: it})
			a.of[i] = append(a.of[i], len(a.values)-1)
		}
	}
}

// ask asks for the values from a place on.
func (r *Reader) ask(ctx context.Context, a *asked, from int) error {
	indexes := make([]int, 0, len(a.values)-from)
	for j := from; j < len(a.values); j++ {
		indexes = append(indexes, j)
	}
	if len(indexes) == 0 {
		return nil
	}
	return r.readPurposes(ctx, a.values, indexes, true)
}

// authorsOf lists an item once for each who may have written it: the owner first, and whom the reader's grants name besides.
func (r *Reader) authorsOf(it *Item) []Item {
	owner := Item{Owner: it.Owner, Field: it.Field}
	if it.author() == policies.AuthorID(it.Owner) {
		owner.Known = it.Known
	}
	out := []Item{owner}
	r.mu.Lock()
	defer r.mu.Unlock()
	k, met := r.owner(it.Owner)
	if !met {
		return out
	}
	newest := k.order[writtenField{it.Field, it.author()}]
	for _, g := range k.grants {
		if g.stale {
			continue
		}
		for i := range g.doc.Fields {
			f := &g.doc.Fields[i]
			if f.Field != it.Field || f.Author == policies.AuthorID(it.Owner) || slices.ContainsFunc(out, func(o Item) bool { return o.author() == f.Author }) {
				continue
			}
			out = append(out, Item{Owner: it.Owner, Field: it.Field, Author: f.Author})
		}
	}
	// What the caller has is newer than what another author had when this reader last looked: that need not be sent again, unless it is newer now.
	for i := range out {
		o := &out[i]
		if o.author() == it.author() {
			o.Known = it.Known
			continue
		}
		if p, seen := k.order[writtenField{o.Field, o.author()}]; seen && it.Known != 0 && newest.version == it.Known && p.accepted < newest.accepted {
			o.Known = p.version
		}
	}
	slices.SortFunc(out[1:], func(a, b Item) int { return slices.Compare(a.Author[:], b.Author[:]) })
	return out
}

// absent reports whether an outcome means that an author has nothing to say about a field.
func absent(v *Value) bool {
	// A key for another author's items ended, is not there yet, or is for those to come; the owner's own decides whether the field may be read. The vault says so of an item
	// that does not count, too: a writer cannot keep others from reading by what it puts where it may not.
	return outcome(v.Err, policies.CodeNotFound, policies.CodeNoWriteGrant, policies.CodeWriteEnded) ||
		v.author() != policies.AuthorID(v.Owner) && outcome(v.Err, policies.CodeNoGrant, policies.CodeRevoked, policies.CodeGrantExpired, policies.CodeLeaf)
}

// outcome reports whether why an item was not read is one of some outcomes in the vault's answer. A storefront can give the same codes for what it is asked for besides.
func outcome(err error, codes ...policies.Code) bool {
	code, is := err.(policies.Code)
	return is && slices.Contains(codes, code)
}

// newest chooses among the values of an item. An error other than that there is nothing counts before any value: what it hides might be newer. again is a value that must be asked
// for once more, because the vault did not send it.
func (a *asked) newest(i int) (best Value, again *Value) {
	var at, failed, none *Value
	for _, j := range a.of[i] {
		v := &a.values[j]
		switch {
		case v.Err == errAskedAgain:
		case v.Err == nil:
			if at == nil || v.accepted > at.accepted {
				at = v
			}
		case absent(v):
			if none == nil {
				none = v
			}
		case failed == nil:
			failed = v
		}
	}
	choice := at
	if failed != nil {
		choice = failed
	} else if choice == nil {
		choice = none
	}
	it := a.items[i]
	if choice == nil {
		return Value{Item: it, Err: policies.CodeNotFound}, nil
	}
	best = *choice
	if best.Err == nil && best.Unchanged && (best.Item.author() != it.author() || best.Item.Known != it.Known) {
		again = choice
	}
	best.Item = it
	if best.Author.IsZero() {
		best.Author = choice.author()
	}
	return best, again
}

// remember notes where items stand, so that what is older is not sent with every look.
func (r *Reader) remember(a *asked) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range a.of {
		if len(of) == 1 { // there is nobody to compare with
			continue
		}
		for _, j := range of {
			v := &a.values[j]
			if k, met := r.owner(v.Owner); met && v.Err == nil {
				k.order[writtenField{v.Field, v.author()}] = place{v.Version, v.accepted}
			}
		}
	}
}

// learnAuthor makes the key of an author known who is not the owner. The author's id is in the grant that the owner signed.
func (r *Reader) learnAuthor(ctx context.Context, author policies.AuthorID, owner policies.OwnerID, outcome policies.Code) error {
	if author == policies.AuthorID(owner) || outcome != policies.CodeReleased {
		return nil
	}
	r.mu.Lock()
	known := len(r.authors[author].Holders) > 0
	r.mu.Unlock()
	if known {
		return nil
	}
	_, doc, err := r.identityOf(ctx, policies.IdentityID(author), owner)
	if err != nil {
		return fmt.Errorf("who wrote it: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.authors[author] = succession.Begin(policies.IdentityID(author), doc)
	return nil
}

// verifyAuthor checks the signature of a manifest of somebody else than the owner. It has no place in its author's own chain, so a key of any time will do: that
// it is the newest the vault says.
func (r *Reader) verifyAuthor(ctx context.Context, author policies.AuthorID, owner policies.OwnerID, e *envelope.Envelope) error {
	r.mu.Lock()
	line := r.authors[author]
	r.mu.Unlock()
	err := line.Verify(e, 0)
	if err == nil || len(line.Holders) == 0 {
		return err
	}
	newer, _, learnErr := r.successionsOf(ctx, line, owner)
	if learnErr != nil {
		return fmt.Errorf("%w; %w", err, learnErr)
	}
	r.mu.Lock()
	r.authors[author] = newer
	r.mu.Unlock()
	return newer.Verify(e, 0)
}
