package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/api"
)

// GiveUp ends grants of an owner to this reader, those of some fields or all, and returns the fields. The vault destroys the keys as for a revocation, and the owner is told. If
// they cannot be told now the wish is kept, and carried out with the next call that uses the network. [policies.CodeNoGrant] means that there is no such grant.
func (r *Reader) GiveUp(ctx context.Context, owner policies.OwnerID, fields ...policies.Field) ([]policies.Field, error) {
	if err := r.ready(ctx); err != nil {
		return nil, err
	}
	if _, err := r.lineOf(ctx, owner); err != nil {
		return nil, err
	}
	var items []policies.RevokedItem
	var given []policies.Field
	err := r.fetchGrants(ctx, owner, func(_ *knownOwner, g *verifiedGrant) {
		if g.doc.Expires <= r.now().Unix() {
			return
		}
		for i := range g.doc.Fields {
			if f := &g.doc.Fields[i]; len(fields) == 0 || slices.Contains(fields, f.Field) {
				items = append(items, policies.RevokedItem{Grant: g.doc.ID, Field: f.Field, Author: f.Author})
				given = append(given, f.Field)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(given)
	given = slices.Compact(given)
	if missing := without(fields, given); len(items) == 0 || len(missing) > 0 {
		return nil, fmt.Errorf("%w: %v", policies.CodeNoGrant, missing)
	}
	r.mu.Lock()
	for part := range slices.Chunk(items, policies.MaxRevokedItems) {
		e, err := policies.Sign(r.signing, &succession.Renunciation{
			Header: policies.NewHeader("renunciation", r.now()), Audience: r.state.Network.Vault, Reader: r.ID(), Owner: owner, Items: part,
		})
		if err != nil {
			r.mu.Unlock()
			return nil, err
		}
		r.state.GivingUp = append(r.state.GivingUp, e.Raw)
	}
	r.settled = false
	err = r.saveLocked()
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return given, r.ready(ctx)
}

// GiveUp ends what a person, named by alias or id, lets this one read: [Reader.GiveUp]. What was read is deleted here.
func (o *Owner) GiveUp(ctx context.Context, name string, fields ...policies.Field) (_ []policies.Field, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	r, err := o.side()
	if err != nil {
		return nil, err
	}
	owner, err := r.Find(name)
	if err != nil {
		return nil, err
	}
	given, err := r.GiveUp(ctx, owner, fields...)
	for i := range o.state.Pieces {
		if p := &o.state.Pieces[i]; p.Owner == owner && slices.Contains(given, p.Field) {
			clear(p.Value)
		}
	}
	o.state.Pieces = slices.DeleteFunc(o.state.Pieces, func(p piece) bool { return p.Owner == owner && slices.Contains(given, p.Field) })
	return given, errors.Join(err, r.save())
}

// sendGivenUp hands in what this reader gave up. One that the storefront could not write down is sent again another time, or the owner would not hear of it. The caller holds grantsMu.
func (r *Reader) sendGivenUp(ctx context.Context) (changed bool, err error) {
	for {
		r.mu.Lock()
		if len(r.state.GivingUp) == 0 {
			r.mu.Unlock()
			return changed, nil
		}
		raw := r.state.GivingUp[0]
		r.mu.Unlock()
		e, err := envelope.Parse(raw)
		if err != nil {
			return changed, fmt.Errorf("%w: %w", ErrState, err)
		}
		v, err := r.vault(ctx)
		if err != nil {
			return changed, err
		}
		receipt, status := new(evidence.Receipt), 0
		err = r.wire.call(ctx, request{method: "POST", path: api.PathRenunciations, raw: raw, out: receipt, login: true, status: &status})
		switch {
		case errors.Is(err, policies.CodeRevoked), errors.Is(err, policies.CodeClosed), errors.Is(err, policies.CodeNoGrant), errors.Is(err, policies.CodeKeyReplaced): // it is over anyway
		case err != nil:
			return changed, fmt.Errorf("giving up a grant: %w", err)
		default:
			if err := r.receipt(ctx, v, receipt, policies.Hash(e.Hash), evidence.EntryGivenUp); err != nil {
				return changed, err
			}
			if status == http.StatusAccepted {
				return changed, nil
			}
		}
		r.mu.Lock()
		r.state.GivingUp = slices.DeleteFunc(r.state.GivingUp, func(have jsontext.Value) bool { return string(have) == string(raw) })
		changed = true
		r.mu.Unlock()
	}
}

// GivenUp is what a reader gave up of what this owner allowed it.
type GivenUp struct {
	Contact
	Fields []policies.Field `json:"fields"`
}

// GivenUp are the grants that readers gave up, as far as this device heard of it since it was opened.
func (o *Owner) GivenUp() []GivenUp {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.givenUp)
}

// syncGivenUp asks the storefront what readers gave up, and takes it over: it is not granted anew with the next rotation. Each must have the vault's receipt.
func (o *Owner) syncGivenUp(ctx context.Context) error {
	v, err := o.vault(ctx)
	if err != nil {
		return err
	}
	for more := true; more; {
		q, page := url.Values{"after": {strconv.FormatUint(o.state.GivenUpTo, 10)}}, api.Renunciations{}
		if err := o.wire.call(ctx, request{method: "GET", path: api.PathRenunciations, query: q, out: &page, login: true}); err != nil {
			return fmt.Errorf("asking what readers gave up: %w", err)
		}
		for _, one := range page.Renunciations {
			if one.Receipt == nil || one.Index <= o.state.GivenUpTo || one.Receipt.Evidence.Index > one.Index {
				return fmt.Errorf("asking what readers gave up: %w: it is not in order", ErrUntrue)
			}
			e, err := envelope.Parse(one.Document)
			if err != nil {
				return fmt.Errorf("asking what readers gave up: %w: %w", ErrUntrue, err)
			}
			d, err := policies.Decode[succession.Renunciation](e)
			if err != nil || d.Owner != o.ID() {
				return fmt.Errorf("asking what readers gave up: %w: a document of somebody else", ErrUntrue)
			}
			if err := o.receipt(ctx, v, one.Receipt, policies.Hash(e.Hash), evidence.EntryGivenUp); err != nil {
				return err
			}
			o.applyGivenUp(d)
			o.state.GivenUpTo = one.Index
		}
		more = page.More && len(page.Renunciations) > 0
	}
	return nil
}

// settleGivenUp takes over what waited for grants. Called with the chain fetched, what is of none that is known now is of one that was over before.
func (o *Owner) settleGivenUp() {
	early := o.state.GivenUpEarly
	o.state.GivenUpEarly = nil
	for i := range early {
		o.applyGivenUp(&early[i])
	}
	o.state.GivenUpEarly = nil
}

// applyGivenUp takes over that a reader gave something up. That the reader signed it the vault verified before it made the entry. Nothing need be rotated: the reader could have read on.
// What is of a grant that this device does not know yet waits until it has fetched the chain.
func (o *Owner) applyGivenUp(d *succession.Renunciation) {
	news := GivenUp{Contact: Contact{ID: policies.IdentityID(d.Reader)}}
	early := *d
	early.Items = nil
	for _, item := range d.Items {
		if !slices.ContainsFunc(o.state.Grants, func(g ownedGrant) bool { return g.Doc.ID == item.Grant }) {
			early.Items = append(early.Items, item)
		}
		for i := range o.state.Grants {
			g := &o.state.Grants[i]
			if f, ok := g.Doc.Field(item.Field, item.Author); g.Doc.ID == item.Grant && g.Doc.Reader == d.Reader && ok && g.live(f) {
				g.Ended = append(g.Ended, item)
				news.Fields = append(news.Fields, item.Field)
			}
		}
	}
	if len(early.Items) > 0 {
		o.state.GivenUpEarly = append(o.state.GivenUpEarly, early)
	}
	if len(news.Fields) == 0 {
		return
	}
	if c, ok := o.contact(d.Reader); ok {
		news.Contact = o.shown(c)
	}
	slices.Sort(news.Fields)
	news.Fields = slices.Compact(news.Fields)
	o.givenUp = append(o.givenUp, news)
}
