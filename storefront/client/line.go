package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/freeze"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// lineOf is an identity's line as it was stored: the first document and its successions, verified when they came and again here.
func lineOf(first jsontext.Value, successions []jsontext.Value) (succession.Line, error) {
	e, err := envelope.Parse(first)
	if err != nil {
		return succession.Line{}, err
	}
	doc, id, err := policies.OpenIdentity(e)
	if err != nil {
		return succession.Line{}, err
	}
	line := succession.Begin(id, doc)
	for _, raw := range successions {
		if e, err = envelope.Parse(raw); err != nil {
			return line, err
		}
		if _, err := line.Take(e); err != nil {
			return line, err
		}
	}
	return line, nil
}

// successions asks the storefront how an identity came to its newest keys, and returns the line with what it did not have, each verified from the first
// document on and with the vault's receipt. What the storefront holds back is missing, and then what the new keys sign is not believed.
func (d *device) successions(ctx context.Context, line succession.Line) (succession.Line, []jsontext.Value, error) {
	return d.successionsOf(ctx, line, policies.OwnerID{})
}

// successionsOf is successions of somebody who, perhaps, may be looked up only because an owner's grant names it.
func (d *device) successionsOf(ctx context.Context, line succession.Line, owner policies.OwnerID) (succession.Line, []jsontext.Value, error) {
	v, err := d.vault(ctx)
	if err != nil {
		return line, nil, err
	}
	list, err := d.listed(ctx, line.ID, owner)
	if err != nil {
		return line, nil, fmt.Errorf("asking for newer keys: %w", err)
	}
	var raw []jsontext.Value
	for _, one := range list {
		e, err := envelope.Parse(one.Document)
		if err != nil {
			return line, nil, fmt.Errorf("asking for newer keys: %w: %w", ErrUntrue, err)
		}
		known := len(line.Holders)
		if _, err := line.Take(e); err != nil {
			return line, nil, fmt.Errorf("asking for newer keys: %w: %w", ErrUntrue, err)
		}
		if raw = append(raw, one.Document); len(line.Holders) == known {
			continue
		}
		if one.Receipt == nil {
			return line, nil, fmt.Errorf("asking for newer keys: %w: a succession without the vault's receipt", ErrUntrue)
		}
		if err := d.receipt(ctx, v, one.Receipt, policies.Hash(e.Hash), evidence.EntrySuccession); err != nil {
			return line, nil, fmt.Errorf("asking for newer keys: %w", err)
		}
	}
	return line, raw, nil
}

// listed are the successions of an identity that the storefront shows, whatever they are.
func (d *device) listed(ctx context.Context, id policies.IdentityID, owner policies.OwnerID) ([]api.Succession, error) {
	var list api.Successions
	err := d.wire.call(ctx, request{method: "GET", path: path(api.PathSuccessions, id.String()), out: &list})
	if errors.Is(err, policies.CodeNotIntroduced) {
		var found *api.Found
		if found, err = d.lookup(ctx, api.Lookup{Identity: id, Owner: owner}); err == nil {
			list.Successions = found.Successions
		}
	}
	if errors.Is(err, policies.CodeNotFound) {
		err = nil
	}
	return list.Successions, err
}

// proven are the successions of this identity with the vault's receipts, for who does not read the vault's log.
func (o *Owner) proven(ctx context.Context) ([]api.Succession, error) {
	if len(o.state.Successions) == 0 {
		return nil, nil
	}
	v, err := o.vault(ctx)
	if err != nil {
		return nil, err
	}
	list, err := o.listed(ctx, o.id, policies.OwnerID{})
	if err != nil && !errors.Is(err, policies.CodeClosed) { // who closed the account has something to delete at the key server still, and the storefront has nothing more to show
		return nil, fmt.Errorf("asking for the receipts of this person's newest keys: %w", err)
	}
	shown := map[policies.Hash]*evidence.Receipt{}
	for _, one := range list {
		if e, err := envelope.Parse(one.Document); err == nil {
			shown[e.Hash] = one.Receipt
		}
	}
	var out []api.Succession
	for _, raw := range o.state.Successions {
		e, err := envelope.Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrState, err)
		}
		receipt := shown[e.Hash]
		if receipt == nil { // it went past this storefront, or the storefront lost it
			receipt = new(evidence.Receipt)
			err := o.wire.call(ctx, request{method: "POST", path: path(api.PathSuccessions, o.id.String()), raw: raw, out: receipt})
			if errors.Is(err, policies.CodeClosed) && o.wire.owners != nil {
				err = o.wire.call(ctx, request{method: "POST", path: vaultapi.PathDocuments, base: o.wire.owners, in: &vaultapi.Submission{Envelope: raw}, out: receipt})
			}
			if err != nil {
				return nil, fmt.Errorf("telling the storefront how this person came to the newest keys: %w", err)
			}
		}
		if err := o.receipt(ctx, v, receipt, policies.Hash(e.Hash), evidence.EntrySuccession); err != nil {
			return nil, err
		}
		out = append(out, api.Succession{Document: raw, Receipt: receipt})
	}
	return out, nil
}

// newestKeys is an identity with the newest of its keys that the storefront shows. Where it cannot be asked, they are those of the first document.
func (d *device) newestKeys(ctx context.Context, id policies.IdentityID, first *policies.Identity) (*policies.Identity, error) {
	line, _, err := d.successions(ctx, succession.Begin(id, first))
	if err != nil && !errors.Is(err, policies.CodeUnavailable) {
		return nil, err
	}
	out, h := *first, line.Newest()
	out.SigningKey, out.KEMKey, out.LoginKey, out.RecoveryHash = h.SigningKey, h.KEMKey, h.LoginKey, h.Recovery
	return &out, nil
}

// verifyLink checks the signature of a document of the owner's chain, and follows the line.
func verifyLink(line *succession.Line, e *envelope.Envelope) error {
	if e.Type == "succession" {
		_, err := line.Take(e)
		return err
	}
	link, err := linkOf(e)
	if err != nil {
		return err
	}
	return line.Verify(e, link.Seq)
}

func successionLink(e *envelope.Envelope) (policies.Link, error) {
	if e.Type == "succession" {
		d, err := policies.Decode[succession.Document](e)
		if err != nil {
			return policies.Link{}, err
		}
		return d.Link, nil
	}
	if e.Type == "suspension" {
		d, err := policies.Decode[succession.Suspension](e)
		if err != nil {
			return policies.Link{}, err
		}
		return d.Link, nil
	}
	if e.Type == "thaw" {
		d, err := policies.Decode[freeze.Thaw](e)
		if err != nil {
			return policies.Link{}, err
		}
		return d.Link, nil
	}
	n, err := policies.Decode[succession.Notice](e)
	if err != nil {
		return policies.Link{}, err
	}
	return n.Link, nil
}
