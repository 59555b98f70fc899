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
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// GiveUp ends grants of an owner to this reader, those of some fields or all, and returns the fields. The vault destroys the keys as for a revocation, and the owner is told. If
// they cannot be told now the wish is kept, and carried out with the next call that uses the network. So nil does not mean that both has happened: the vault may have it and the storefront not
// yet, or it was over before, which is only the storefront's word where the vault cannot be asked. [policies.CodeNoGrant] means that there is no such grant. That it is over already is believed
// on the vault's word, where it can be had, and that the owner's account is closed on its receipt only ([ErrSaidClosed]); else the wish is kept too, until this device is opened again or gives up
// something else.
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
	if missing := without(fields, given); len(missing) > 0 {
		return nil, fmt.Errorf("%w: %v", policies.CodeNoGrant, missing)
	}
	if len(items) == 0 {
		return nil, policies.CodeNoGrant
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
	if err := r.ready(ctx); err != nil {
		return given, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return given, r.unproven
}

// GiveUp ends what a person, named by alias or id, lets this one read: [Reader.GiveUp]. What was read is deleted here.
func (o *Owner) GiveUp(ctx context.Context, name string, fields ...policies.Field) (_ []policies.Field, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	if err := o.catchUp(ctx); err != nil {
		return nil, err
	}
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

// sendGivenUp hands in what this reader gave up. One that the storefront could not write down is sent again another time, or the owner would not hear of it. One of which nobody proves that it
// is over is kept, and keeps nothing else from being done: see GiveUp. The caller holds grantsMu.
func (r *Reader) sendGivenUp(ctx context.Context) (changed bool, err error) {
	r.mu.Lock()
	waiting := slices.Clone(r.state.GivingUp)
	r.unproven = nil
	r.mu.Unlock()
	for _, raw := range waiting {
		e, err := envelope.Parse(raw)
		if err != nil {
			return changed, fmt.Errorf("%w: %w", ErrState, err)
		}
		d, err := policies.Decode[succession.Renunciation](e)
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
		case saidToBeOver(err):
			over, why := r.over(ctx, v, e, d, err)
			if why != nil {
				r.mu.Lock()
				r.unproven = errors.Join(r.unproven, fmt.Errorf("giving up a grant, which is kept and tried again: %w", why))
				r.mu.Unlock()
			}
			if !over {
				continue
			}
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
	return changed, nil
}

// saidToBeOver reports whether a refusal of a renunciation says that there is nothing to give up any more.
func saidToBeOver(err error) bool {
	return errors.Is(err, policies.CodeRevoked) || errors.Is(err, policies.CodeClosed) || errors.Is(err, policies.CodeNoGrant) || errors.Is(err, policies.CodeKeyReplaced)
}

// over finds out whether what a storefront says to be over is so: by the receipt of the owner's closing, or this reader's own, or else by the vault's own word, where it can be had. On the
// storefront's alone the keys would stay, and the owner grant anew what was given up. If it is not, why says what is known; nil is that the vault has the renunciation, and the storefront is
// told another time. Who cannot reach the vault goes by the storefront's word, but for a closing.
func (r *Reader) over(ctx context.Context, v *policies.VaultDocument, e *envelope.Envelope, d *succession.Renunciation, said error) (over bool, why error) {
	closed := func(err error) bool {
		return errors.Is(err, policies.CodeClosed) && (r.closedBy(ctx, v, d.Owner, err) == nil || r.closedBy(ctx, v, policies.OwnerID(r.id), err) == nil)
	}
	saidClosed := fmt.Errorf("%w: it may be said of the other side's account, or of this one's", ErrSaidClosed)
	switch {
	case closed(said):
		return true, nil
	case r.wire.owners == nil && errors.Is(said, policies.CodeClosed):
		return false, saidClosed
	case r.wire.owners == nil: // nobody else can be asked
		return true, nil
	}
	second, cancel := context.WithTimeout(ctx, 2*routeTimeout)
	defer cancel()
	receipt := new(evidence.Receipt)
	err := r.wire.call(second, request{method: "POST", path: vaultapi.PathDocuments, base: r.wire.owners, in: &vaultapi.Submission{Envelope: e.Raw}, out: receipt})
	switch {
	case err == nil:
		return false, r.receipt(ctx, v, receipt, policies.Hash(e.Hash), evidence.EntryGivenUp)
	case closed(err):
		return true, nil
	case errors.Is(err, policies.CodeClosed), errors.Is(said, policies.CodeClosed) && !saidToBeOver(err):
		return false, saidClosed
	case saidToBeOver(err), errors.Is(err, policies.CodeUnavailable) && ctx.Err() == nil: // not every reader can reach the vault
		return true, nil
	}
	return false, err
}

// GivenUp is what a reader gave up of what this owner allowed it.
type GivenUp struct {
	Contact
	Fields []policies.Field `json:"fields"`
	Closed bool             `json:"closed,omitzero"` // with its account: all that it could read, and write
}

// GivenUp are the grants that readers gave up or that ended with their accounts, as far as this device heard of it since it was opened.
func (o *Owner) GivenUp() []GivenUp {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.givenUp)
}

// syncGivenUp asks the storefront what readers gave up, and which of them closed their accounts, and takes it over: it is not granted anew with the next rotation. Each must have the vault's receipt.
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
			if len(one.Document) == 0 { // the closing's own receipt says all
				d, err := o.opened(ctx, v, one.Receipt, one.Receipt.Document, evidence.EntryClosure)
				if err != nil {
					return fmt.Errorf("asking what readers gave up: %w", err)
				}
				o.applyGone(goneReader{policies.ReaderID(d.Owner), d.Document, one.Receipt.Evidence.Index})
				o.state.GivenUpTo = one.Index
				continue
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
	o.state.Gone = slices.DeleteFunc(o.state.Gone, func(g goneReader) bool { return !o.everLet(g.ID) })
	for _, g := range o.state.Gone {
		o.applyGone(g)
	}
}

// everLet reports whether this owner ever let somebody read or write, as far as this device knows.
func (o *Owner) everLet(id policies.ReaderID) bool {
	return slices.ContainsFunc(o.state.Grants, func(g ownedGrant) bool { return g.Doc.Reader == id }) ||
		slices.ContainsFunc(o.state.Writers, func(g ownedWriteGrant) bool { return g.Doc.Writer == policies.AuthorID(id) })
}

// gone finds somebody among those who closed their accounts.
func (o *Owner) gone(id policies.ReaderID) (goneReader, bool) {
	i := slices.IndexFunc(o.state.Gone, func(g goneReader) bool { return g.ID == id })
	if i < 0 {
		return goneReader{}, false
	}
	return o.state.Gone[i], true
}

// applyGone takes over that somebody closed their account: all that they could read has ended, and they write nothing more. What they wrote stays. That nothing is let them anew, the vault sees to. It is kept,
// since the chain may have grants that this device has not met yet, and dropped with the next chain if it has none.
func (o *Owner) applyGone(gone goneReader) {
	news := GivenUp{Contact: Contact{ID: policies.IdentityID(gone.ID)}, Closed: true}
	if _, known := o.gone(gone.ID); !known {
		o.state.Gone = append(o.state.Gone, gone)
		for i := range o.state.Writers {
			if g := &o.state.Writers[i]; g.Doc.Writer == policies.AuthorID(gone.ID) && o.now().Unix() < g.Doc.Expires {
				for _, w := range g.Doc.Fields {
					if g.live(w.Field) {
						news.Fields = append(news.Fields, w.Field)
					}
				}
			}
		}
	}
	for i := range o.state.Grants {
		g := &o.state.Grants[i]
		if g.Doc.Reader != gone.ID {
			continue
		}
		for j := range g.Doc.Fields {
			f := &g.Doc.Fields[j]
			if !g.live(f) {
				continue
			}
			item := policies.RevokedItem{Grant: g.Doc.ID, Field: f.Field, Author: f.Author}
			g.Ended, g.Gone = append(g.Ended, item), append(g.Gone, item)
			if o.now().Unix() < g.Doc.Expires {
				news.Fields = append(news.Fields, f.Field)
			}
		}
	}
	o.tellGivenUp(news)
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
	o.tellGivenUp(news)
}

// tellGivenUp keeps for the person what ended, if anything did.
func (o *Owner) tellGivenUp(news GivenUp) {
	if len(news.Fields) == 0 {
		return
	}
	if c, ok := o.contact(policies.ReaderID(news.ID)); ok {
		news.Contact = o.shown(c)
	}
	slices.Sort(news.Fields)
	news.Fields = slices.Compact(news.Fields)
	o.givenUp = append(o.givenUp, news)
}
