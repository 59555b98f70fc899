package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// routeTimeout is how long one route may take before another is tried.
const routeTimeout = 5 * time.Second

// deliver sends a document and verifies the receipt.
func (o *Owner) deliver(ctx context.Context, t *task, v *policies.VaultDocument, e *envelope.Envelope, keys []vaultapi.SealedKey) error {
	var err error
	switch t.Kind {
	case taskPublish:
		var p *api.Publication
		if p, err = o.publication(t, e); err == nil {
			err = o.post(ctx, v, request{method: "POST", path: path(api.PathManifests, o.id.String()), in: p, login: true}, e)
		}
	case taskGrant:
		in := &vaultapi.Submission{Envelope: e.Raw, Keys: keys}
		err = o.post(ctx, v, request{method: "POST", path: path(api.PathGrants, o.id.String()), in: in, login: true}, e)
	case taskRevoke, taskEndWrite:
		err = o.deliverRevocation(ctx, v, e)
	case taskWrite:
		err = o.post(ctx, v, request{method: "POST", path: path(routeOf(e.Type), o.id.String()), in: &vaultapi.Submission{Envelope: e.Raw}, login: true}, e)
	case taskSucceed, taskNotice:
		var vaults bool
		switch vaults, err = o.deliverSuccession(ctx, v, e); {
		case vaults && errors.Is(err, policies.CodeSuccessionOld):
			err = fmt.Errorf("%w: %w", errOlder, err)
		case !vaults && (refused(err) || errors.Is(err, policies.CodeSuccessionPending)):
			err = fmt.Errorf("%w: %w", errHearsay, err)
		}
	case taskThaw:
		err = o.deliverThaw(ctx, v, e)
	}
	return err
}

// routeOf is where a storefront takes a document of an owner's chain that is no manifest.
func routeOf(docType string) string {
	switch docType {
	case "grant":
		return api.PathGrants
	case "write-grant":
		return api.PathWriteGrants
	case "write-end":
		return api.PathWriteEnds
	}
	return api.PathRevocations
}

// post sends a document and verifies the receipt.
func (o *Owner) post(ctx context.Context, v *policies.VaultDocument, r request, e *envelope.Envelope) error {
	receipt := new(evidence.Receipt)
	r.out = receipt
	if err := o.wire.call(ctx, r); err != nil {
		return err
	}
	return o.receipt(ctx, v, receipt, policies.Hash(e.Hash), evidence.Kind(e.Type))
}

// deliverRevocation takes the storefront's route and, unless that gives a verified receipt or a refusal that the vault itself signed, the
// vault's own listener. The storefront is told later what it missed.
func (o *Owner) deliverRevocation(ctx context.Context, v *policies.VaultDocument, e *envelope.Envelope) error {
	in := &vaultapi.Submission{Envelope: e.Raw}
	first, cancel := context.WithTimeout(ctx, routeTimeout)
	var status int
	err := o.post(first, v, request{method: "POST", path: path(routeOf(e.Type), o.id.String()), in: in, login: true, status: &status}, e)
	cancel()
	if err == nil && status == http.StatusAccepted { // in force, and not in the storefront's chain
		o.state.Untold = append(o.state.Untold, e.Raw)
	}
	if err == nil || o.wire.owners == nil || o.provenMoved(ctx, v, err, policies.Hash(e.Hash)) {
		return err
	}
	second, cancel := context.WithTimeout(ctx, 2*routeTimeout)
	defer cancel()
	if err2 := o.post(second, v, request{method: "POST", path: vaultapi.PathDocuments, base: o.wire.owners, in: in}, e); err2 != nil {
		if errors.Is(err2, policies.CodeChain) {
			return err2
		}
		return fmt.Errorf("%w; and over the second route: %w", err, err2)
	}
	o.state.Untold = append(o.state.Untold, e.Raw)
	return nil
}

// provenMoved reports whether a refusal carries the vault's receipt of another document that came first.
func (o *Owner) provenMoved(ctx context.Context, v *policies.VaultDocument, err error, own policies.Hash) bool {
	var p *problem.Problem
	if !errors.Is(err, policies.CodeChain) || !errors.As(err, &p) || p.Receipt == nil || p.Receipt.Document == own {
		return false
	}
	return o.receipt(ctx, v, p.Receipt, p.Receipt.Document, "") == nil
}

// publication is a manifest with the items that changed. Rotated leaves come without ciphertext: the storefront has it.
func (o *Owner) publication(t *task, e *envelope.Envelope) (*api.Publication, error) {
	p := &api.Publication{Manifest: e.Raw}
	withValue := map[string]bool{}
	for _, raw := range t.Set {
		withValue[string(raw)] = true
	}
	inTree := map[policies.Field]bool{}
	for _, l := range o.leaves() {
		inTree[l.Field] = true
	}
	for _, raw := range t.Changed {
		l, err := policies.ParseLeaf(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrState, err)
		}
		item := api.Item{Leaf: raw}
		if withValue[string(raw)] {
			if item.Ciphertext, err = o.store.Item(l.CiphertextHash); err != nil {
				return nil, err
			}
		}
		p.Items = append(p.Items, item)
	}
	for _, f := range t.Remove {
		if inTree[f] {
			p.Removed = append(p.Removed, f)
		}
	}
	return p, nil
}

// republish gives a storefront that lost data the whole current manifest again, which the vault answers with the receipt it gave before, and
// the grants in force.
func (o *Owner) republish(ctx context.Context, v *policies.VaultDocument) error {
	if o.state.Manifest.Version == 0 {
		return nil
	}
	e, err := envelope.Parse(o.state.Manifest.Raw)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	for range 2 {
		// It may have forgotten what came ahead, if it was started anew or took long.
		if err = o.republishItems(ctx, v, e); !errors.Is(err, policies.CodeBehind) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("publishing everything again: %w", err)
	}
	return o.regrant(ctx, v)
}

// republishItems publishes the newest manifest with all items. Those that do not fit one body go ahead of it.
func (o *Owner) republishItems(ctx context.Context, v *policies.VaultDocument, e *envelope.Envelope) error {
	p := &api.Publication{Manifest: e.Raw}
	where := request{method: "POST", path: path(api.PathManifests, o.id.String()), login: true}
	have := map[policies.Field]bool{}
	sent, size := 0, 0 // items of p that went ahead, bytes of the others
	for _, l := range o.leaves() {
		ciphertext, err := o.ciphertext(ctx, &l)
		if err != nil {
			return err
		}
		if size += len(ciphertext); size > maxPublication && sent < len(p.Items) {
			ahead := where
			ahead.in = &api.Publication{Manifest: e.Raw, Items: p.Items[sent:], Ahead: true}
			if err := o.wire.call(ctx, ahead); err != nil {
				return err
			}
			for i := sent; i < len(p.Items); i++ {
				p.Items[i].Ciphertext = nil
			}
			sent, size = len(p.Items), len(ciphertext)
		}
		p.Items, have[l.Field] = append(p.Items, api.Item{Leaf: l.Bytes(), Ciphertext: ciphertext}), true
	}
	if m, err := o.fetchMirror(ctx); err == nil {
		for _, raw := range m.Leaves {
			if l, err := policies.ParseLeaf(raw); err == nil && !have[l.Field] {
				p.Removed = append(p.Removed, l.Field)
			}
		}
	}
	where.in = p
	return o.post(ctx, v, where, e)
}

// regrant gives such a storefront the grants in force again, without which it cannot offer them to the vault. A document is named by what it says,
// so one that is signed anew is the same document: the vault knows it and asks for no keys.
func (o *Owner) regrant(ctx context.Context, v *policies.VaultDocument) error {
	for i := range o.state.Grants {
		g := &o.state.Grants[i]
		if o.now().Unix() >= g.Doc.Expires || len(g.Ended) == len(g.Doc.Fields) {
			continue
		}
		e, err := policies.Sign(o.signing, &g.Doc)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrState, err)
		}
		if policies.Hash(e.Hash) != g.Hash {
			return fmt.Errorf("%w: a grant is not the one that was signed", ErrState)
		}
		in := &vaultapi.Submission{Envelope: e.Raw}
		if err := o.post(ctx, v, request{method: "POST", path: path(api.PathGrants, o.id.String()), in: in, login: true}, e); err != nil {
			return fmt.Errorf("handing in a grant again: %w", err)
		}
	}
	for i := range o.state.Writers {
		g := &o.state.Writers[i]
		if o.now().Unix() >= g.Doc.Expires || len(g.Ended) == len(g.Doc.Fields) {
			continue
		}
		e, err := policies.Sign(o.signing, &g.Doc)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrState, err)
		}
		in := &vaultapi.Submission{Envelope: e.Raw}
		if err := o.post(ctx, v, request{method: "POST", path: path(api.PathWriteGrants, o.id.String()), in: in, login: true}, e); err != nil {
			return fmt.Errorf("handing in a write grant again: %w", err)
		}
	}
	return nil
}
