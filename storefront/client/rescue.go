package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/client/safe"
	"github.com/sallyport/sallyport/vault/pre"
)

// A reader whose safe of keys was stolen. One order suspends all grants that it has, the recovery key gives its identity new keys, and it makes a new key for each owner it has
// met. Owners' devices notice when they next look, and grant the same again to the new keys; until then what they had granted is refused, to the thief and to the reader.

// Replace does all of it and returns nil when it is done; what a crash cut short the next call that uses the network finishes. write must seal the backup and store it; it is the only
// one of use from then on. Nobody else may use the Reader meanwhile.
func (r *Reader) Replace(ctx context.Context, opts ReplaceOptions, write func(plain []byte) error) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	authority, err := r.recoverySeed(opts.Recovery)
	if err != nil {
		return err
	}
	root, err := pre.NewRoot()
	if err != nil {
		return err
	}
	defer root.Zero()
	next := &replacement{Root: root.Bytes(), Recovery: make([]byte, envelope.SeedSize), Authority: authority, Reason: opts.Reason, Away: opts.Away, Begun: r.now().Unix()}
	rand.Read(next.Recovery)
	waiting := map[policies.OwnerID]bool{}
	fetchErr := r.fetchGrants(ctx, policies.OwnerID{}, func(_ *knownOwner, g *verifiedGrant) {
		if g.doc.Expires > r.now().Unix() {
			waiting[g.doc.Owner] = true
		}
	})
	if fetchErr != nil && !errors.Is(fetchErr, policies.CodeUnavailable) {
		return fetchErr
	}
	r.mu.Lock()
	if fetchErr != nil { // who ever granted something, as far as it was seen
		_ = r.book.Each(func(p *safe.Person) error {
			if p.Granted > 0 {
				waiting[p.ID] = true
			}
			return nil
		})
	}
	for _, owner := range r.state.Waiting {
		delete(waiting, owner)
	}
	r.state.Waiting = slices.AppendSeq(r.state.Waiting, maps.Keys(waiting))
	err = r.saveLocked()
	if err == nil {
		b := r.state.base.backup(r.now())
		b.People, b.Chain, b.Replacing, b.Waiting = r.book.Records(), r.state.Chain, next, r.state.Waiting
		err = b.write(write)
	}
	if err == nil {
		r.state.Replacing = next
		err = r.saveLocked()
	}
	r.mu.Unlock()
	if err != nil {
		return err
	}
	return r.ready(ctx)
}

// Waiting are the owners who had granted this reader something before it replaced its keys, and have not renewed it as far as it knows.
func (r *Reader) Waiting(ctx context.Context) ([]Contact, error) {
	granted, err := r.Granted(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	renewed := map[policies.OwnerID]bool{}
	for i := range granted {
		renewed[granted[i].Owner] = true
	}
	left := slices.DeleteFunc(slices.Clone(r.state.Waiting), func(owner policies.OwnerID) bool { return renewed[owner] })
	if len(left) != len(r.state.Waiting) {
		r.state.Waiting, r.dirty = left, true
	}
	out := []Contact{}
	for _, owner := range left {
		if p, met := r.book.Get(owner); met {
			out = append(out, public(owner, p.Alias))
		}
	}
	return out, nil
}

// finishReplacing carries out a replacement that has begun: the suspension, then the succession. Each document is stored before it is sent, and sent again as the same bytes; a
// device that is restored makes the same documents, see renewing.
func (r *Reader) finishReplacing(ctx context.Context) error {
	r.replaceMu.Lock()
	defer r.replaceMu.Unlock()
	if r.state.Replacing == nil { // changed under replaceMu only
		return nil
	}
	for tries := 0; tries < 8; tries++ {
		p := r.state.Replacing
		if p == nil {
			return nil
		}
		if p.Sent == nil {
			e, err := r.nextDocument(p)
			if err != nil {
				return err
			}
			p.Sent = e.Raw
			if err := r.save(); err != nil {
				return err
			}
		}
		e, err := envelope.Parse(p.Sent)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrState, err)
		}
		link, err := linkOf(e)
		if err != nil {
			return err
		}
		v, err := r.vault(ctx)
		if err != nil {
			return err
		}
		receipt := new(evidence.Receipt)
		err = r.wire.call(ctx, request{method: "POST", path: path(api.PathSuccessions, r.id.String()), raw: e.Raw, out: receipt})
		var p2 *problem.Problem
		switch {
		case err == nil:
			if err := r.receipt(ctx, v, receipt, policies.Hash(e.Hash), evidence.Kind(e.Type)); err != nil {
				return err
			}
			p.Sent, r.state.Chain = nil, position{link.Seq, policies.Hash(e.Hash)}
			if e.Type == "suspension" {
				p.Suspended = true
				break
			}
			line := r.line
			if _, err := line.Take(e); err != nil {
				return fmt.Errorf("%w: %w", ErrUntrue, err)
			}
			if err := r.installRoot(line, append(slices.Clone(r.state.Successions), e.Raw)); err != nil {
				return err
			}
		case errors.Is(err, policies.CodeChain) && errors.As(err, &p2) && p2.Receipt != nil: // another process, or a restored one, was here
			details, err := r.opened(ctx, v, p2.Receipt, p2.Receipt.Document, "")
			if err != nil {
				return err
			}
			p.Sent, r.state.Chain = nil, position{details.Seq, p2.Receipt.Document}
		case errors.Is(err, policies.CodeKeyReplaced) || errors.Is(err, policies.CodeSuccessionOld):
			line, raw, lineErr := r.successions(ctx, r.line)
			if lineErr != nil {
				return errors.Join(err, lineErr)
			}
			if err := r.installRoot(line, raw); err != nil {
				return err
			}
		default:
			return fmt.Errorf("replacing the keys: %w", err)
		}
		if err := r.save(); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: replacing the keys", policies.CodeChain)
}

// nextDocument is what a replacement sends next.
func (r *Reader) nextDocument(p *replacement) (*envelope.Envelope, error) {
	at := r.state.Chain
	if at.Seq == 0 {
		at.Hash = policies.Hash(r.id)
	}
	link := policies.Link{Seq: at.Seq + 1, Prev: at.Hash}
	d, next, err := r.successor(p, link)
	if err != nil {
		return nil, err
	}
	defer next.Zero()
	if !p.Suspended {
		return policies.Sign(r.signing, &succession.Suspension{
			Header: r.renewing(p, "suspension", next, link), Audience: r.state.Network.Vault, Reader: r.ID(), Link: link,
		})
	}
	authority := recoveryKey(p.Authority)
	defer authority.Zero()
	d.RecoveryKey, d.Notice = authority.Public().Bytes(), policies.Hash{}
	return succession.Sign(d, next, authority)
}

// installRoot puts the new root in force, if it is the one of the newest succession of a line: grants to the old keys are of no use any more, and each owner gets a new key.
func (r *Reader) installRoot(line succession.Line, raw []jsontext.Value) error {
	p := r.state.Replacing
	root, err := pre.ParseRoot(p.Root)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	signing := signingKey(root)
	if !bytes.Equal(signing.Public().Bytes(), line.Newest().SigningKey) {
		return ErrReplaced
	}
	r.sessionMu.Lock()
	r.session = nil
	r.sessionMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.base.keepKEM(r.root, r.now())
	r.root.Zero()
	clear(r.state.Root)
	r.root, r.state.Root = root, p.Root
	r.signing.Zero()
	r.signing = signing
	clear(r.state.Recovery)
	clear(p.Authority)
	if r.state.Recovery = p.Recovery; p.Away {
		r.state.Recovery = nil
		clear(p.Recovery)
	}
	r.line, r.state.Successions, r.state.Replacing = line, raw, nil
	r.state.Chain = position{line.Newest().Seq, line.Newest().Document}
	r.wire.renew(pre.NewLoginKey(root.LoginSeed()), raw)
	return r.relateAnew()
}

// relateAnew makes a key of the new root for each owner that was met. The caller holds r.mu.
func (r *Reader) relateAnew() error {
	newest, err := envelope.Parse(r.base.Successions[len(r.base.Successions)-1])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	made, err := policies.Decode[succession.Document](newest)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	for _, k := range r.owners {
		clear(k.grants)
	}
	r.settled = false
	return r.book.Each(func(p *safe.Person) error {
		if len(p.Relations) == 0 {
			return nil
		}
		last := p.Relations[len(p.Relations)-1]
		header := renewedHeader(r.line.Newest(), made.Time, p.ID, last.Nonce)
		e, err := r.relate(header, p.ID, last.Nonce)
		if err != nil {
			return err
		}
		p.Relations = []safe.Relation{{Nonce: last.Nonce, Hash: policies.Hash(e.Hash), ID: header.ID, Time: header.Time}}
		if k, ok := r.owners[p.ID]; ok {
			k.contact.Relations = p.Relations
		}
		return r.book.Put(p)
	})
}

// renewSide is the same for a person who reads other people: their devices see the succession, and grant the same again to the new keys.
func (o *Owner) renewSide() error {
	if o.state.Side == nil && o.reader == nil {
		return nil
	}
	r, err := o.side()
	if err != nil {
		return err
	}
	r.sessionMu.Lock()
	r.session = nil
	r.sessionMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.relateAnew(); err != nil {
		return err
	}
	return r.saveLocked() // with the rest: what is left of the replacement is found out by the next sync
}

// showSide posts the keys that a person made anew for the people whom they read. What cannot be posted now is with the next sync.
func (o *Owner) showSide(ctx context.Context) {
	if o.state.Side == nil {
		return
	}
	if r, err := o.side(); err == nil {
		_ = r.ready(ctx)
	}
}

// renewedHeader is the same on every machine that is restored from the backup of a replacement, so that all of them know the relationship that an owner granted to.
func renewedHeader(h *succession.Holder, made int64, owner policies.OwnerID, nonce policies.Nonce) policies.Header {
	id := sha256.Sum256(policies.Encode("renewed-relationship", h.Document[:], owner[:], nonce[:]))
	return policies.Header{Type: "relationship", Suite: policies.Suite, ID: id, Time: made}
}

// relate signs this reader's key for an owner.
func (r *Reader) relate(header policies.Header, owner policies.OwnerID, nonce policies.Nonce) (*envelope.Envelope, error) {
	key := r.root.ReaderKey(owner, nonce)
	defer key.Zero()
	return policies.Sign(r.signing, &policies.Relationship{
		Header: header, Audience: r.state.Network.Vault, Reader: r.ID(), Owner: owner, KEMKey: key.Public(), Nonce: nonce,
	})
}

// renewReaders looks whether readers replaced their keys, and puts into the queue to grant them the same again. What cannot be asked now is asked next time. It reports whether there is
// something to do.
func (o *Owner) renewReaders(ctx context.Context) (news bool) {
	for i := range o.state.Contacts {
		c := &o.state.Contacts[i]
		if o.serves(c) && o.renewReader(ctx, c) {
			news = true
		}
	}
	return news
}

// readersMoved reports whether a reader has more to show than is known of it: then it may have replaced its keys. Nothing is believed here.
func (o *Owner) readersMoved(ctx context.Context) bool {
	var all sync.WaitGroup
	var moved atomic.Bool
	next := make(chan *readerContact)
	for range 8 {
		all.Go(func() {
			for c := range next {
				list, err := o.listed(ctx, c.ID, policies.OwnerID{})
				if err == nil && len(list) > len(c.Successions) {
					moved.Store(true)
				}
			}
		})
	}
	for i := range o.state.Contacts {
		if c := &o.state.Contacts[i]; o.serves(c) {
			next <- c
		}
	}
	close(next)
	all.Wait()
	return moved.Load()
}

// serves reports whether a contact reads or writes something.
func (o *Owner) serves(c *readerContact) bool {
	return len(o.granted(policies.ReaderID(c.ID), nil)) > 0 || slices.Contains(o.writersOf(nil), policies.AuthorID(c.ID))
}

// renewReader does so for one: a contact that is about to be granted something may have replaced its keys too.
func (o *Owner) renewReader(ctx context.Context, c *readerContact) bool {
	if !o.replacedKeys(ctx, c) {
		return false
	}
	found, err := o.findRelationship(ctx, c.ID, func(_ policies.Hash, r *policies.Relationship) bool { return r.Nonce == c.Nonce })
	if err != nil {
		return false
	}
	found.Alias = c.Alias
	o.putContact(found) // in its place
	o.regrantTo(policies.ReaderID(c.ID))
	o.renewed = append(o.renewed, c.public())
	return true
}

// replacedKeys asks whether a contact has newer keys than are known of it.
func (o *Owner) replacedKeys(ctx context.Context, c *readerContact) bool {
	line, err := lineOf(c.Identity, c.Successions)
	if err != nil {
		return false
	}
	newer, _, err := o.successions(ctx, line)
	return err == nil && len(newer.Holders) != len(line.Holders)
}

// toRenew are those of the fields of a task that the grant which it renews still gives its reader: nothing ended them since it was queued, no newer grant took their
// place, of this device or another.
func (o *Owner) toRenew(t *task) []policies.Field {
	epochs := map[policies.Field]uint64{}
	for _, l := range o.leaves() {
		epochs[l.Field] = l.Epoch
	}
	newest := map[policies.Field]*ownedGrant{}
	for i := range o.state.Grants {
		g := &o.state.Grants[i]
		if g.Doc.Reader != t.Reader {
			continue
		}
		for j := range g.Doc.Fields {
			f := &g.Doc.Fields[j]
			if epoch, ok := epochs[f.Field]; f.Author != o.author() || !g.live(f) || ok && f.Epoch != epoch {
				continue
			}
			if n := newest[f.Field]; n == nil || n.Doc.Seq < g.Doc.Seq {
				newest[f.Field] = g
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(t.Fields), func(f policies.Field) bool { return newest[f] == nil || newest[f].Hash != t.Renews })
}

// regrantTo queues what a reader has, to be granted anew to its newest key, and then the end of the older grants; and the same of what it may write.
func (o *Owner) regrantTo(reader policies.ReaderID) {
	stroke := policies.NewDocumentID()
	var tasks []task
	var others []policies.Field // of which it reads what others wrote
	for i := range o.state.Grants {
		g := &o.state.Grants[i]
		if g.Doc.Reader != reader || o.now().Unix() >= g.Doc.Expires {
			continue
		}
		t := task{Kind: taskGrant, Stroke: stroke, Reader: reader, Renews: g.Hash, Terms: terms{
			Purpose: g.Doc.Purpose, NotBefore: g.Doc.NotBefore, Expires: g.Doc.Expires, ReadsPerDay: g.Doc.Limits.ReadsPerDay, Custody: g.Doc.Custody,
		}}
		for j := range g.Doc.Fields {
			switch f := &g.Doc.Fields[j]; {
			case !g.live(f):
			case f.Author == o.author():
				t.Fields = append(t.Fields, f.Field)
			case !slices.Contains(others, f.Field):
				others = append(others, f.Field)
			}
		}
		if len(t.Fields) > 0 {
			tasks = append(tasks, t)
		}
	}
	if len(tasks) > 0 {
		o.state.Tasks = append(append(o.state.Tasks, tasks...), task{Kind: taskRevoke, Stroke: stroke, Reason: policies.ReasonSuperseded})
	}
	if len(others) > 0 { // the grants above name what others will write; what they wrote may be under an older key
		o.state.Tasks = append(o.state.Tasks, task{Kind: taskFollow, Stroke: policies.NewDocumentID(), Fields: others})
	}
	// What it needs to write was sealed to the keys before.
	for i := range o.state.Writers {
		g := &o.state.Writers[i]
		if g.Doc.Writer != policies.AuthorID(reader) || o.now().Unix() >= g.Doc.Expires {
			continue
		}
		t := task{Kind: taskFollow, Stroke: policies.NewDocumentID(), Reader: reader, Renews: g.Hash, Terms: terms{Purpose: g.Doc.Purpose, NotBefore: g.Doc.NotBefore, Expires: g.Doc.Expires}}
		for _, f := range g.Doc.Fields {
			if g.live(f.Field) {
				t.Fields = append(t.Fields, f.Field)
			}
		}
		if len(t.Fields) > 0 {
			o.state.Tasks = append(o.state.Tasks, t)
		}
	}
}

// Renewed are the contacts whose grants were renewed since this device was opened, because they replaced their keys. The error is what failed while this device looked for
// such contacts beside what it was asked for; the rest of it is done by the next operation.
func (o *Owner) Renewed() ([]Contact, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.renewed), o.aside
}
