package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// syncChain fetches the documents after the newest applied one, verifies that they are this owner's and follow one another, has the
// last of them vouched for by a receipt, and takes them over. Nothing is taken over that the vault did not accept: a hostile storefront
// could show a revocation that it never passed on.
//
// Another device may publish between one answer and the next, which then do not fit together. That is no lie: the chain is fetched again.
func (o *Owner) syncChain(ctx context.Context) error {
	var err error
	for range 3 {
		if err = o.syncChainOnce(ctx); !errors.Is(err, errOvertaken) {
			break
		}
	}
	if errors.Is(err, policies.CodeBehind) && o.wire.owners != nil {
		return o.recover(ctx, err)
	}
	return err
}

// syncWhole is syncChain before a person is told that there is nothing to end: where the vault itself answers, it is asked whether that was all, since a storefront can hide what another
// device granted.
func (o *Owner) syncWhole(ctx context.Context) error {
	if err := o.syncChain(ctx); err != nil || o.wire.owners == nil {
		return err
	}
	v, err := o.vault(ctx)
	if err != nil {
		return err
	}
	switch end, err := o.ask(ctx, v); {
	case errors.Is(err, policies.CodeUnavailable):
		return nil
	case err != nil:
		return err
	case end.Seq > o.state.Known.Seq:
		return o.recover(ctx, fmt.Errorf("%w: the storefront does not show what the vault has accepted", policies.CodeBehind))
	}
	return nil
}

// errOvertaken: the owner's chain grew while it was fetched.
var errOvertaken = errors.New("it grows while it is fetched")

func (o *Owner) syncChainOnce(ctx context.Context) error {
	v, err := o.vault(ctx)
	if err != nil {
		return err
	}
	changed, err := o.enrol(ctx)
	if err != nil {
		return err
	}
	if changed {
		if err := o.save(); err != nil {
			return err
		}
	}
	if err := o.tell(ctx, v); err != nil {
		return err
	}
	end, news, err := o.fetchChain(ctx, o.state.Applied)
	if errors.Is(err, errGap) || err == nil && end.Seq < o.state.Known.Seq {
		sent, sendErr := o.sendAgain(ctx, v, end)
		if sendErr != nil {
			return sendErr
		}
		if sent {
			end, news, err = o.fetchChain(ctx, o.state.Applied)
		}
	}
	if err != nil {
		return err
	}
	switch {
	case end.Seq < o.state.Known.Seq:
		return fmt.Errorf("%w: the storefront does not show what the vault has accepted", policies.CodeBehind)
	case end.Seq == o.state.Known.Seq && end != o.state.Known:
		return fmt.Errorf("%w: the storefront shows another chain than the vault has accepted", ErrUntrue)
	case end.Seq > o.state.Known.Seq:
		if err := o.confirm(ctx, v, end, news[len(news)-1]); err != nil {
			return err
		}
	}
	for _, e := range news {
		if err := o.accepted(e); err != nil {
			return err
		}
	}
	o.settleGivenUp()
	if err := o.syncMirror(ctx); err != nil {
		return err
	}
	o.syncContacts(ctx)
	return o.save()
}

// recover fetches from the vault what the storefront's chain lacks: documents that went to the vault over the second route from a device that is no more, or that
// a storefront lost. It takes them over, and passes on to the storefront what it can take.
func (o *Owner) recover(ctx context.Context, gap error) error {
	v, err := o.vault(ctx)
	if err != nil {
		return err
	}
	end, news, err := o.fetchFromVault(ctx, v)
	if err != nil {
		return fmt.Errorf("%w; and fetching from the vault what it lacks: %w", gap, err)
	}
	for _, e := range news {
		if err := o.accepted(e); err != nil {
			return err
		}
		if e.Type != "manifest" && !slices.ContainsFunc(o.state.Untold, func(raw jsontext.Value) bool { return bytes.Equal(raw, e.Raw) }) {
			o.state.Untold = append(o.state.Untold, e.Raw)
		}
	}
	if end.Seq < o.state.Known.Seq {
		return fmt.Errorf("%w: the vault is behind what it acknowledged", ErrFork)
	}
	if err := o.save(); err != nil {
		return err
	}
	if err := o.tell(ctx, v); err != nil {
		return err
	}
	o.settleGivenUp()
	if err := o.syncMirror(ctx); err != nil {
		return err
	}
	o.syncContacts(ctx)
	return o.save()
}

// fetchFromVault fetches the documents after the newest applied one from the vault itself, newest first, each of which this owner signed and the one after it names. The
// newest is the one that the vault gives a receipt of.
func (o *Owner) fetchFromVault(ctx context.Context, v *policies.VaultDocument) (end position, news []*envelope.Envelope, err error) {
	if end, err = o.ask(ctx, v); err != nil {
		return end, nil, err
	}
	lie := func(what string) error { return fmt.Errorf("%w: %s", ErrUntrue, what) }
	for next, before := end, (policies.Hash{}); next.Seq > o.state.Applied.Seq; {
		var page vaultapi.Fetched
		if err := o.question(v, func(e *envelope.Envelope) error {
			in := &vaultapi.Fetch{Envelope: e.Raw, Before: before}
			return o.wire.call(ctx, request{method: "POST", path: vaultapi.PathFetch, base: o.wire.owners, in: in, out: &page})
		}); err != nil {
			return end, nil, err
		}
		if len(news) == 0 { // another device may have gone on meanwhile: begin where the receipt says
			page.Documents = slices.DeleteFunc(page.Documents, func(raw jsontext.Value) bool {
				e, err := envelope.Parse(raw)
				if err != nil {
					return false
				}
				link, err := linkOf(e)
				return err == nil && link.Seq > end.Seq
			})
		}
		if len(page.Documents) == 0 {
			return end, nil, lie("the vault does not show what it has accepted")
		}
		for _, raw := range page.Documents {
			if next.Seq == o.state.Applied.Seq {
				break
			}
			e, err := envelope.Parse(raw)
			if err != nil || policies.Hash(e.Hash) != next.Hash {
				return end, nil, lie("the vault shows another chain than it has accepted")
			}
			link, err := linkOf(e)
			if err != nil || link.Seq != next.Seq {
				return end, nil, lie("the vault shows another chain than it has accepted")
			}
			news = append(news, e)
			before, next = next.Hash, position{link.Seq - 1, link.Prev}
		}
		if next.Seq == o.state.Applied.Seq && next != o.state.Applied {
			return end, nil, lie("the vault shows another chain than this device knows")
		}
	}
	slices.Reverse(news)
	line := o.line
	for _, e := range news {
		if err := verifyLink(&line, e); err != nil {
			return end, nil, lie("the vault shows what this owner did not sign")
		}
	}
	return end, news, nil
}

// errGap: the storefront's chain lacks a document between two others, as after a revocation that another device sent past it, and has not told it of
// yet.
var errGap = fmt.Errorf("%w: a document of the chain is not there", policies.CodeBehind)

// sendAgain sends the document of this device's own that comes next in the chain and whose outcome is unknown here. The vault may have accepted it
// without the storefront having written it down; then all later ones wait for it, also those whose task is before its own. Several may have been made for
// the same place while nobody could be reached. The vault accepted one of them at most, and says of the others that another document came first.
func (o *Owner) sendAgain(ctx context.Context, v *policies.VaultDocument, end position) (sent bool, err error) {
	for i := range o.state.Tasks {
		t := &o.state.Tasks[i]
		if t.Envelope == nil {
			continue
		}
		e, err := envelope.Parse(t.Envelope)
		if err != nil {
			return false, fmt.Errorf("%w: %w", ErrState, err)
		}
		if link, err := linkOf(e); err != nil || link.Follows(end.Seq, end.Hash) != nil {
			continue
		}
		switch err := o.deliver(ctx, t, v, e, nil); {
		case errors.Is(err, policies.CodeChain):
			continue
		case err != nil:
			return false, fmt.Errorf("sending a document again that the storefront lacks: %w", err)
		}
		return true, nil
	}
	return false, nil
}

// fetchChain fetches the documents after one of them, each of which this owner signed and which follow one another, up to a gap.
func (o *Owner) fetchChain(ctx context.Context, from position) (end position, news []*envelope.Envelope, err error) {
	fail := func(err error) (position, []*envelope.Envelope, error) { return end, nil, err }
	end = from
	line := o.line
	for more := true; more; {
		var c api.Chain
		q := url.Values{"after": {strconv.FormatUint(end.Seq, 10)}}
		if err := o.wire.call(ctx, request{method: "GET", path: path(api.PathChain, o.id.String()), query: q, out: &c, login: true}); err != nil && !errors.Is(err, policies.CodeNotFound) {
			return fail(fmt.Errorf("fetching the chain: %w", err))
		}
		for _, raw := range c.Documents {
			e, err := envelope.Parse(raw)
			if err == nil {
				err = verifyLink(&line, e)
			}
			if err != nil {
				return fail(fmt.Errorf("fetching the chain: %w: %w", ErrUntrue, err))
			}
			link, err := linkOf(e)
			if err != nil {
				return fail(fmt.Errorf("fetching the chain: %w: %w", ErrUntrue, err))
			}
			if link.Seq > end.Seq+1 {
				return fail(fmt.Errorf("%w: document %d", errGap, end.Seq+1))
			}
			if err := link.Follows(end.Seq, end.Hash); err != nil {
				return fail(fmt.Errorf("%w: document %d of the chain does not follow the one before", ErrUntrue, link.Seq))
			}
			end = position{link.Seq, policies.Hash(e.Hash)}
			news = append(news, e)
		}
		more = c.More && len(c.Documents) > 0
	}
	return end, news, nil
}

// confirm has the newest document of the chain vouched for: by the vault itself if it can be reached, else by the receipt that it gives
// when the same document is sent again.
func (o *Owner) confirm(ctx context.Context, v *policies.VaultDocument, end position, newest *envelope.Envelope) error {
	if o.wire.owners != nil {
		c, err := o.ask(ctx, v)
		switch {
		case err == nil && c == end:
			return nil
		case err == nil && c.Seq > end.Seq:
			return fmt.Errorf("%w: the vault has accepted %d documents, the storefront shows %d (%w)", policies.CodeBehind, c.Seq, end.Seq, errOvertaken)
		case err == nil:
			return fmt.Errorf("%w: it shows documents that the vault did not accept", ErrUntrue)
		case !errors.Is(err, policies.CodeUnavailable):
			return err
		}
	}
	var err error
	switch newest.Type {
	case "manifest":
		var m *api.Mirror
		if m, err = o.fetchMirror(ctx); err == nil {
			if o.published(m) > manifestVersion(newest) {
				return fmt.Errorf("%w: another device published (%w)", policies.CodeChain, errOvertaken)
			}
			if m.Receipt == nil {
				return fmt.Errorf("%w: no receipt of the newest manifest", ErrUntrue)
			}
			err = o.receipt(ctx, v, m.Receipt, end.Hash, evidence.EntryManifest)
		}
	case "succession", "succession-notice", "thaw":
		err = o.post(ctx, v, request{method: "POST", path: path(api.PathSuccessions, o.id.String()), raw: newest.Raw}, newest)
	default:
		err = o.post(ctx, v, request{method: "POST", path: path(routeOf(newest.Type), o.id.String()), in: &vaultapi.Submission{Envelope: newest.Raw}, login: true}, newest)
	}
	if err != nil {
		return fmt.Errorf("having the chain confirmed: %w", err)
	}
	return nil
}

// ask asks the vault itself where the chain stands. The vault tells nobody but the owner, and the owner by the refusal of a document that is not
// the next. So the question is a document that can never be: a first one that does not follow the identity. It says nothing, and the log notes it.
func (o *Owner) ask(ctx context.Context, v *policies.VaultDocument) (position, error) {
	ctx, cancel := context.WithTimeout(ctx, routeTimeout)
	defer cancel()
	err := o.question(v, func(e *envelope.Envelope) error {
		return o.post(ctx, v, request{method: "POST", path: vaultapi.PathDocuments, base: o.wire.owners, in: &vaultapi.Submission{Envelope: e.Raw}}, e)
	})
	if err != nil && !errors.Is(err, policies.CodeChain) {
		return position{}, fmt.Errorf("asking the vault for the chain: %w", err)
	}
	return o.newest(ctx, v, err)
}

// question asks with a manifest that can never be published. That the owner signed it is all that it says. A device that is restored from the backup of a replacement may have the newest key
// before it knows that the vault has it.
func (o *Owner) question(v *policies.VaultDocument, ask func(*envelope.Envelope) error) error {
	by := func(key *envelope.PrivateKey) error {
		nonce := policies.NewNonce()
		nowhere := policies.Hash(sha256.Sum256(nonce[:]))
		e, err := policies.Sign(key, &policies.Manifest{
			Header: policies.NewHeader("manifest", o.now()), Audience: v.Vault, Owner: o.ID(), Author: o.author(),
			Link: policies.Link{Seq: 1, Prev: nowhere}, Version: 1, Root: nowhere,
		})
		if err != nil {
			return err
		}
		return ask(e)
	}
	err := by(o.signing)
	if !errors.Is(err, policies.CodeKeyReplaced) || o.state.Replacing == nil {
		return err
	}
	root, rootErr := pre.ParseRoot(o.state.Replacing.Root)
	if rootErr != nil {
		return fmt.Errorf("%w: %w", ErrState, rootErr)
	}
	defer root.Zero()
	next := signingKey(root)
	defer next.Zero()
	return by(next)
}

// newest is the newest document of the chain by a refusal that carries the vault's receipt of it, or why it does not say.
func (o *Owner) newest(ctx context.Context, v *policies.VaultDocument, refusal error) (position, error) {
	var p *problem.Problem
	if !errors.As(refusal, &p) || p.Code != policies.CodeChain || p.Receipt == nil {
		return position{}, fmt.Errorf("%w: nobody shows what came first: %w", policies.CodeUnavailable, refusal)
	}
	details, err := o.opened(ctx, v, p.Receipt, p.Receipt.Document, "")
	if err != nil {
		return position{}, err
	}
	// Before the first document the receipt is the identity's.
	if details.Owner != o.ID() && !(details.Identity == o.id && details.Seq == 0) {
		return position{}, fmt.Errorf("%w: the receipt is of somebody else's document", ErrUntrue)
	}
	return position{details.Seq, p.Receipt.Document}, nil
}

// locate learns from the vault's refusal what a revocation must be signed on top of, when the storefront does not say. What lies between is
// applied once the storefront shows it.
func (o *Owner) locate(ctx context.Context, v *policies.VaultDocument, refusal error) error {
	at, err := o.newest(ctx, v, refusal)
	if err != nil {
		return err
	}
	if at.Seq < o.state.Known.Seq {
		return fmt.Errorf("%w: the vault is behind what it acknowledged", ErrFork)
	}
	o.state.Known = at
	return nil
}

// newestManifest is the newest manifest, nil if nothing was published.
func (o *Owner) newestManifest() (*policies.Manifest, error) {
	if o.state.Manifest.Version == 0 {
		return nil, nil
	}
	e, err := envelope.Parse(o.state.Manifest.Raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	m, err := policies.Decode[policies.Manifest](e)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	return m, nil
}
