package vault

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/writing"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/internal/ledger"
	"github.com/sallyport/sallyport/vault/internal/sealed"
	"github.com/sallyport/sallyport/vault/keylog"
	"github.com/sallyport/sallyport/vault/pre"
)

// Submit takes a signed document and returns its receipt once it is in force. The same document again gets a receipt of the same
// entry, so a caller who does not know the outcome sends it again. An error wraps a [policies.Code]; with chain_moved the
// [problem.Problem] carries the receipt of the newest document of the chain.
func (v *Vault) Submit(ctx context.Context, submission api.Submission) (*evidence.Receipt, error) {
	e, err := envelope.Parse(submission.Envelope)
	if err != nil {
		return nil, v.stranger(err)
	}
	if len(submission.Keys) > 0 && e.Type != "grant" {
		return nil, v.stranger(fmt.Errorf("%w: only a grant comes with keys", policies.ErrMalformed))
	}
	switch e.Type {
	case "identity":
		return v.enrol(ctx, e)
	case "manifest":
		return v.publish(ctx, e)
	case "grant":
		return v.grant(ctx, e, submission.Keys)
	case "revocation":
		return v.revoke(ctx, e)
	case "closure":
		return v.closeAccount(ctx, e)
	case "write-grant":
		return v.grantWriting(ctx, e)
	case "write-end":
		return v.endWriting(ctx, e)
	case "session":
		return v.openSession(ctx, e)
	case "succession":
		return v.succeed(ctx, e)
	case "suspension":
		return v.suspend(ctx, e)
	case "succession-notice":
		return v.announce(ctx, e)
	case "freeze":
		return v.freeze(ctx, e)
	case "thaw":
		return v.thaw(ctx, e)
	case "renunciation":
		return v.giveUp(ctx, e)
	case "voucher":
		return v.vouch(ctx, e)
	case "guardrails":
		return v.guard(ctx, e)
	}
	return nil, v.stranger(fmt.Errorf("%w: a vault does not act on documents of type %q", policies.ErrMalformed, e.Type))
}

// stranger counts the refusal of a caller who was not authenticated.
func (v *Vault) stranger(err error) error {
	v.refused.add(problem.Of(err).Code)
	return err
}

// signed is a document whose signature was verified, with what all of them have.
type signed[T any] struct {
	*envelope.Envelope
	doc    *T
	signer *ledger.Identity
	owner  policies.OwnerID  // zero for a session
	author policies.AuthorID // of a manifest by somebody else than the owner
}

// open verifies a document under the key of the enrolled identity that it must be from.
func open[T any, D interface {
	*T
	envelope.Document
	Validate() error
}](v *Vault, e *envelope.Envelope, signer func(*T) policies.IdentityID) (*signed[T], error) {
	claim, err := policies.Decode[T, D](e)
	if err != nil {
		return nil, v.stranger(err)
	}
	var id *ledger.Identity
	closed := false
	v.ledger.Read(func(s *ledger.State) { id, closed = s.Identity(signer(claim)), s.Closed(signer(claim)) })
	if closed {
		return nil, v.stranger(v.proveClosed(e, id))
	}
	if id == nil {
		return nil, v.stranger(policies.CodeUnknown)
	}
	key, err := id.Verifier()
	if err != nil {
		return nil, err
	}
	if err := e.Verify(key); err != nil && !id.Replaced(e) {
		return nil, v.stranger(err)
	} else if err != nil && !v.accepted(e.Hash) { // what was accepted before is answered as ever: whoever carries it may not know of the new keys
		v.quotas.count(allowance{id.ID, refusedDocuments}, v.cfg.Clock(), id.Pseudonym, policies.Pseudonym{}, map[policies.Code]uint64{policies.CodeKeyReplaced: 1})
		return nil, policies.CodeKeyReplaced
	}
	return &signed[T]{Envelope: e, doc: claim, signer: id}, nil
}

// refusal is the record of a refused document. The document itself does not lie beside it: its hash and the reason do.
func (d *signed[T]) refusal(code policies.Code) []ledger.Record {
	r := ledger.Record{Kind: evidence.EntryRefusal, Outcome: code, Details: evidence.Details{Document: d.Hash, Identity: d.signer.ID, Owner: d.owner, Note: d.Type}}
	if d.owner.IsZero() {
		r.Reader = d.signer.Pseudonym
	} else {
		r.Owner = d.signer.Pseudonym
	}
	return []ledger.Record{r}
}

// accept records a document, or its refusal, and returns the record. check says whether it is accepted in the state as it is at that
// moment; make makes the record.
func accept[T any](ctx context.Context, v *Vault, d *signed[T], check func(*ledger.State, time.Time) error, make func() ledger.Record) (ledger.Record, keylog.Checkpoint, error) {
	return acceptBy(ctx, v, v.record, d, check, make)
}

// acceptBy is accept with the way to the log that the decision may take.
func acceptBy[T any](ctx context.Context, v *Vault, record func(context.Context, decision) ([]ledger.Record, keylog.Checkpoint, error), d *signed[T], check func(*ledger.State, time.Time) error, make func() ledger.Record) (ledger.Record, keylog.Checkpoint, error) {
	var refused error
	closed := false
	records, cp, err := record(ctx, func(s *ledger.State, now time.Time) []ledger.Record {
		refused = check(s, now)
		if s.Identity(d.signer.ID).Generation != d.signer.Generation { // its keys were replaced since the signature was verified
			refused = policies.CodeKeyReplaced
		}
		if closed = s.Closed(d.signer.ID); closed { // since then, too
			refused = policies.CodeClosed
		}
		if refused != nil {
			return refusedDocument(v, s, now, d, refused)
		}
		return []ledger.Record{make()}
	})
	if err == nil && closed && d.Type != "succession" { // keys that were to come prove nothing
		err = v.closingOf(policies.OwnerID(d.signer.ID))
	} else if err == nil {
		err = refused
	}
	if err != nil {
		return ledger.Record{}, cp, v.explain(err, d.owner, d.author)
	}
	return records[0], cp, nil
}

// explain adds to chain_moved the receipt of what is newest: to an author who is not the owner of their own manifests, since the owner's chain is nobody else's.
func (v *Vault) explain(err error, owner policies.OwnerID, author policies.AuthorID) error {
	if !errors.Is(err, policies.CodeChain) {
		return err
	}
	p := problem.Of(err)
	if !author.IsZero() {
		if state, headErr := v.Head(owner, author); headErr == nil {
			p.Receipt = state.Receipt
		}
	} else if state, chainErr := v.Chain(owner); chainErr == nil {
		p.Receipt = state.Receipt
	}
	return p
}

// enrol takes an identity's first document, which certifies itself.
func (v *Vault) enrol(ctx context.Context, e *envelope.Envelope) (*evidence.Receipt, error) {
	identity, id, err := policies.OpenIdentity(e)
	if err != nil {
		return nil, v.stranger(err)
	}
	known, closed, alike := false, false, false
	records, cp, err := v.record(ctx, func(s *ledger.State, now time.Time) []ledger.Record {
		if known, closed = s.Identity(id) != nil, s.Closed(id); known || closed {
			return nil
		}
		if alike = identity.Name != "" && s.LooksLike(identity.Name, id, now); alike {
			return nil
		}
		pseudonym := policies.NewPseudonym()
		return []ledger.Record{{
			Kind: evidence.EntryIdentity, Owner: pseudonym, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: identity,
			Details: evidence.Details{Document: e.Hash, Identity: id, Pseudo: pseudonym},
		}}
	})
	if err != nil {
		return nil, err
	}
	if closed {
		return nil, v.stranger(policies.CodeClosed)
	}
	if known {
		return v.receiptOf(e.Hash)
	}
	if alike {
		return nil, v.stranger(policies.CodeLookAlike)
	}
	return v.receipt(&records[0], cp, e.Hash)
}

// publish moves an author's head.
func (v *Vault) publish(ctx context.Context, e *envelope.Envelope) (*evidence.Receipt, error) {
	d, err := open(v, e, func(m *policies.Manifest) policies.IdentityID { return policies.IdentityID(m.Author) })
	if err != nil {
		return nil, err
	}
	m := d.doc
	d.owner = m.Owner
	if policies.AuthorID(m.Owner) != m.Author {
		d.author = m.Author
	}
	defer v.owners.lock(m.Owner)()
	if receipt, err := v.again(ctx, e.Hash); receipt != nil || err != nil {
		return receipt, err
	}
	var owner, writer policies.Pseudonym
	record, cp, err := accept(ctx, v, d, func(s *ledger.State, now time.Time) error {
		if m.Audience != v.cfg.Document.Vault {
			return policies.CodeWrongVault
		}
		owner = d.signer.Pseudonym
		if !d.author.IsZero() {
			if s.Closed(policies.IdentityID(m.Owner)) {
				return policies.CodeClosed
			}
			if err := writing.CheckAuthor(s.Writings(m.Owner, m.Author), now.Unix()); err != nil {
				return err
			}
			owner, writer = s.Pseudonym(policies.IdentityID(m.Owner)), d.signer.Pseudonym
		} else if err := follows(s, m.Owner, m.Link); err != nil {
			return err
		}
		if head := s.Head(m.Owner, m.Author); m.Version != head.Version+1 || m.PrevManifest != head.Manifest {
			return problem.New(policies.CodeChain, "the newest manifest is version %d", head.Version)
		}
		return nil
	}, func() ledger.Record {
		return ledger.Record{
			Kind: evidence.EntryManifest, Owner: owner, Reader: writer, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: m,
			Details: evidence.Details{Owner: m.Owner, Reader: policies.ReaderID(d.author), Author: m.Author, Document: e.Hash, Version: m.Version, Seq: m.Seq},
		}
	})
	if err != nil {
		return nil, err
	}
	return v.receipt(&record, cp, e.Hash)
}

// grant imports the keys of a grant and puts it in force: a record before the token is asked and one when the keys are in it. A crash in
// between leaves an unfinished import, which the next start abandons; the owner sends the grant again.
func (v *Vault) grant(ctx context.Context, e *envelope.Envelope, keys []api.SealedKey) (*evidence.Receipt, error) {
	d, err := open(v, e, func(g *policies.Grant) policies.IdentityID { return policies.IdentityID(g.Owner) })
	if err != nil {
		return nil, err
	}
	g := d.doc
	d.owner = g.Owner
	defer v.owners.lock(g.Owner)()
	if receipt, err := v.again(ctx, e.Hash); receipt != nil || err != nil {
		return receipt, err
	}
	if err := v.endImport(ctx, g); err != nil {
		return nil, err
	}
	// An import that the token refuses is on record with its grant: whoever makes them fail has an allowance of it.
	failing := allowance{d.signer.ID, failedImports}
	if !v.quotas.left(failing, v.cfg.Clock()) {
		return nil, &problem.Problem{Code: policies.CodeRateLimited, Detail: "the token refused too many grants of this owner", RetryAfter: 60}
	}
	wrapped, invalid := v.unseal(g, e.Hash, keys)
	defer func() {
		for _, w := range wrapped {
			clear(w.Wrapped)
		}
	}()
	record := func(ctx context.Context, d decision) ([]ledger.Record, keylog.Checkpoint, error) {
		return v.recordGrant(ctx, g, d)
	}
	var reader policies.Pseudonym
	begun, _, err := acceptBy(ctx, v, record, d, func(s *ledger.State, _ time.Time) error {
		if g.Audience != v.cfg.Document.Vault {
			return policies.CodeWrongVault
		}
		if err := follows(s, g.Owner, g.Link); err != nil {
			return err
		}
		if s.Grant(g.ID) != nil || s.Importing(g.ID) != nil {
			return policies.CodeExists
		}
		if s.Closed(policies.IdentityID(g.Reader)) {
			return policies.CodePartyClosed
		}
		if reader = s.Pseudonym(policies.IdentityID(g.Reader)); reader.IsZero() {
			return problem.New(policies.CodeUnknown, "the reader is not enrolled in this vault")
		}
		return invalid
	}, func() ledger.Record {
		return ledger.Record{
			Kind: evidence.EntryImport, Owner: d.signer.Pseudonym, Reader: reader, Raw: e.Raw, Document: g,
			Details: evidence.Details{Owner: g.Owner, Reader: g.Reader, Grant: g.ID, Document: e.Hash, Token: v.cfg.Serial, Custody: g.Custody},
		}
	})
	if err != nil {
		return nil, err
	}
	// The import is on record: from here to the end it is finished one way or the other, whether the caller waits or not.
	ctx = context.WithoutCancel(ctx)
	checks, err := v.importKeys(ctx, g.Custody, wrapped)
	if err != nil {
		v.quotas.take(failing, v.cfg.Clock(), 2+len(e.Raw)>>10)
		v.cfg.Logger.Warn("an import was refused", "grant", g.ID.String(), "error", err.Error())
		var importing *ledger.Grant
		v.ledger.Read(func(s *ledger.State) { importing = s.Importing(g.ID) })
		if err := v.abandon(ctx, importing); err != nil {
			return nil, err
		}
		if errors.Is(err, sealed.ErrStopped) {
			return nil, problem.New(policies.CodeUnavailable, "the vault cannot store a key in custody sealed until its operator has mended a disk and started the vault again")
		}
		if errors.Is(err, sealed.ErrFull) { // nothing that the token said
			return nil, problem.New(policies.CodeUnavailable, "the vault cannot store another key now; the operator must look")
		}
		if errors.Is(err, ErrTokenFull) { // says nothing about the key
			return nil, problem.New(policies.CodeTokenFailure, "there is no room in the token for another key; the operator must look")
		}
		return nil, policies.CodeImport // whatever else the token said: see the design, section 4
	}
	closed := false // the reader's account, meanwhile: what ends grants to them may have passed this one by
	records, cp, err := record(ctx, func(s *ledger.State, _ time.Time) []ledger.Record {
		if closed = s.Closed(policies.IdentityID(g.Reader)); closed {
			return nil
		}
		return []ledger.Record{{
			Kind: evidence.EntryGrant, Owner: begun.Owner, Reader: begun.Reader, Outcome: policies.CodeAccepted,
			Details: evidence.Details{Owner: g.Owner, Reader: g.Reader, Grant: g.ID, Document: e.Hash, Seq: g.Seq, Index: begun.Index, Custody: g.Custody, Checks: checks},
		}}
	})
	if err != nil {
		return nil, err
	}
	if closed {
		if err := v.endImport(ctx, g); err != nil {
			return nil, err
		}
		return nil, policies.CodePartyClosed
	}
	return v.receipt(&records[0], cp, e.Hash)
}

// endImport ends an earlier import of a grant that the log left without an end, because it took no record for a while. Nobody is at it any
// more: the caller holds the owner's lock.
func (v *Vault) endImport(ctx context.Context, g *policies.Grant) error {
	var begun *ledger.Grant
	v.ledger.Read(func(s *ledger.State) { begun = s.Importing(g.ID) })
	if begun == nil || begun.Document.Owner != g.Owner {
		return nil
	}
	return v.abandon(context.WithoutCancel(ctx), begun)
}

// endImports ends the imports that the log left without an end, because it took no record for a while, and whose owners are at nothing now: they need not send the grant again.
func (v *Vault) endImports(ctx context.Context) {
	var left []*ledger.Grant
	v.ledger.Read(func(s *ledger.State) { left = s.Imports() })
	for _, g := range left {
		unlock, idle := v.owners.try(g.Document.Owner)
		if !idle {
			continue
		}
		err := v.endImport(ctx, &g.Document)
		unlock()
		if err != nil { // the log takes none yet; it says so itself
			return
		}
	}
}

// unseal opens the keys of a grant and checks that they are the ones it names: one for each field and enrolled token, for the real import key
// of that token, by the path that the vault document gives, with the digest that the owner signed.
func (v *Vault) unseal(g *policies.Grant, hash policies.Hash, keys []api.SealedKey) ([]WrappedKey, error) {
	if offered := v.custodies(); !slices.Contains(offered, g.Custody) {
		return nil, problem.New(policies.CodeCustody, "this vault offers the custody %q", offered)
	}
	tokens := v.cfg.Document.Tokens
	if len(keys) != len(g.Fields)*len(tokens) {
		return nil, problem.New(policies.CodeMalformed, "the grant needs %d keys, not %d", len(g.Fields)*len(tokens), len(keys))
	}
	var out []WrappedKey
	for i := range g.Fields {
		f := &g.Fields[i]
		if len(f.Keys) != len(tokens) {
			return out, problem.New(policies.CodeCustody, "each field needs one key for each of %d tokens", len(tokens))
		}
		for _, named := range f.Keys {
			real, ok := v.cfg.Document.ImportKey(named.Token, g.Custody)
			if !ok || named.ImportKey != policies.HashKey(real.PublicKey) || named.Path != real.Path {
				return out, policies.CodeCustody
			}
			var sealed []byte
			for _, k := range keys {
				if k.Field == f.Field && k.Author == f.Author && k.Token == named.Token {
					sealed = k.Sealed
				}
			}
			info, err := pre.ImportInfo(v.cfg.Document.Vault, hash, f.Field, f.Epoch, f.Author)
			if err != nil {
				return out, policies.CodeImport
			}
			wrapped, err := v.cfg.ImportKey.Open(info, sealed)
			if err != nil {
				return out, policies.CodeImport
			}
			out = append(out, WrappedKey{Key: keyID(g.ID, f.Field, f.Author), Path: named.Path, Wrapped: wrapped})
			if digest := sha256.Sum256(wrapped); subtle.ConstantTimeCompare(digest[:], named.Digest[:]) != 1 {
				return out, policies.CodeImport
			}
		}
	}
	return out, nil
}

// importKeys imports the keys of a grant, and returns what tells each of the resident ones from others, in their order. On an error some may be in.
func (v *Vault) importKeys(ctx context.Context, custody policies.Custody, keys []WrappedKey) (checks []byte, err error) {
	if custody == policies.CustodySealed {
		errs := make([]error, len(keys))
		var all sync.WaitGroup
		for i, w := range keys {
			all.Go(func() { errs[i] = v.importSealed(ctx, w) })
		}
		all.Wait()
		return nil, cmp.Or(errs...)
	}
	found := v.cfg.Token.Import(ctx, keys)
	if err := v.importAgain(ctx, keys, found); err != nil {
		return nil, err
	}
	for _, k := range found {
		if k.Err != nil {
			return nil, k.Err
		}
		checks = append(checks, k.Check[:]...)
	}
	return checks, nil
}

// importAgain imports those keys anew that were in the token already: a failed import left them, since the grant is not in force.
func (v *Vault) importAgain(ctx context.Context, keys []WrappedKey, found []Imported) error {
	var left []WrappedKey
	var ends []EndingKey
	var places []int
	for i, k := range keys {
		if errors.Is(found[i].Err, ErrKeyExists) {
			left, ends, places = append(left, k), append(ends, EndingKey{Key: k.Key}), append(places, i)
		}
	}
	if len(left) == 0 {
		return nil
	}
	for _, err := range v.cfg.Token.Destroy(ctx, ends) {
		if err != nil && !errors.Is(err, ErrKeyMissing) {
			return err
		}
	}
	for n, again := range v.cfg.Token.Import(ctx, left) {
		found[places[n]] = again
	}
	return nil
}

// abandon ends an import that did not succeed: the log says so, and then none of its keys stays. The record comes first. If it cannot be made the outcome
// of the import's own last record may be unknown too: a grant that turns out to be in force at the next start must find its keys. A key that
// is not destroyed, because of that, a crash or the token, is an orphan that the next start sweeps; nothing can use it, because no grant stands for it.
func (v *Vault) abandon(ctx context.Context, g *ledger.Grant) error {
	_, _, err := v.record(ctx, func(s *ledger.State, _ time.Time) []ledger.Record {
		d := &g.Document
		return []ledger.Record{{
			Kind: evidence.EntryFailed, Outcome: policies.CodeImport,
			Owner: s.Pseudonym(policies.IdentityID(d.Owner)), Reader: s.Pseudonym(policies.IdentityID(d.Reader)),
			Details: evidence.Details{Owner: d.Owner, Reader: d.Reader, Grant: d.ID, Document: g.Hash, Index: g.Index, Custody: d.Custody},
		}}
	})
	if err != nil {
		return err
	}
	sealedKeys := g.Document.Custody == policies.CustodySealed
	var ends []*end
	for _, f := range g.Document.Fields {
		e := &end{key: keyID(g.Document.ID, f.Field, f.Author)}
		if sealedKeys {
			e.err = v.sealing.store.Delete(sealed.ID(e.key)) // the token never kept it
		}
		ends = append(ends, e)
	}
	if !sealedKeys {
		v.destroyResident(ctx, ends)
	}
	for _, e := range ends {
		if e.err != nil && !errors.Is(e.err, ErrKeyMissing) {
			v.cfg.Logger.Error("a key of a failed import is still there", "grant", g.Document.ID.String(), "custody", string(g.Document.Custody), "error", e.err.Error())
		}
	}
	return nil
}

// revoke ends fields of grants. The record comes first: from then on nothing new uses the keys. The receipt comes when they are
// destroyed in the token and that is recorded too. A crash in between leaves a revocation that is in force and not done;
// the next start, or the same document again, finishes it.
func (v *Vault) revoke(ctx context.Context, e *envelope.Envelope) (*evidence.Receipt, error) {
	d, err := open(v, e, func(r *policies.Revocation) policies.IdentityID { return policies.IdentityID(r.Owner) })
	if err != nil {
		return nil, err
	}
	r := d.doc
	d.owner = r.Owner
	defer v.owners.lock(r.Owner)()
	if receipt, err := v.again(ctx, e.Hash); receipt != nil || err != nil {
		return receipt, err
	}
	record, cp, err := accept(ctx, v, d, func(s *ledger.State, _ time.Time) error {
		if r.Audience != v.cfg.Document.Vault {
			return policies.CodeWrongVault
		}
		if err := follows(s, r.Owner, r.Link); err != nil {
			return err
		}
		for i, item := range r.Items {
			g := s.Grant(item.Grant)
			if g == nil || g.Document.Owner != r.Owner {
				return problem.New(policies.CodeNotFound, "item %d: no such grant", i)
			}
			if _, ok := g.Find(item.Field, item.Author); !ok {
				return problem.New(policies.CodeNotFound, "item %d: the grant has no such field", i)
			}
		}
		return nil
	}, func() ledger.Record {
		return ledger.Record{
			Kind: evidence.EntryRevocation, Owner: d.signer.Pseudonym, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: r,
			Details: evidence.Details{Owner: r.Owner, Document: e.Hash, Seq: r.Seq, Items: r.Items},
		}
	})
	if err != nil {
		return nil, err
	}
	if err := v.destroy(context.WithoutCancel(ctx), &ledger.Revocation{Hash: e.Hash, Owner: r.Owner, Index: record.Index, Items: r.Items}); err != nil {
		return nil, err
	}
	return v.receipt(&record, cp, e.Hash)
}

// An end is that of one key of a revocation.
type end struct {
	item    policies.RevokedItem
	key     KeyID
	check   KeyCheck
	custody policies.Custody
	err     error
}

// stays reports whether the key is still there, as far as the vault knows.
func (e *end) stays() bool {
	return e.err != nil && (e.custody != policies.CustodyResident || !errors.Is(e.err, ErrKeyRenamed) && !errors.Is(e.err, ErrKeyMissing))
}

// endsOf lists the keys of a revocation.
func (v *Vault) endsOf(r *ledger.Revocation) []end {
	ends := make([]end, len(r.Items))
	v.ledger.Read(func(s *ledger.State) {
		for i, item := range r.Items {
			e := &ends[i]
			*e = end{item: item, key: keyID(item.Grant, item.Field, item.Author), custody: policies.CustodyResident}
			if g := s.Grant(item.Grant); g != nil {
				e.custody = g.Document.Custody
				copy(e.check[:], g.Check(item.Field, item.Author))
			}
		}
	})
	return ends
}

// endKeys destroys keys, each for itself: one that stays keeps no other from its end. It returns what destroySealed does.
func (v *Vault) endKeys(ctx context.Context, ends []end) (period uint32) {
	var resident, kept []*end
	for i := range ends {
		if e := &ends[i]; e.custody == policies.CustodySealed {
			kept = append(kept, e)
		} else {
			resident = append(resident, e)
		}
	}
	if len(kept) > 0 {
		period = v.destroySealed(ctx, kept)
	}
	v.destroyResident(ctx, resident)
	return period
}

// destroyResident has the token destroy keys once uses of them that were decided before are over: those that nobody uses at once and together, each of the others
// when its use is over.
func (v *Vault) destroyResident(ctx context.Context, ends []*end) {
	var idle []*end
	var all sync.WaitGroup
	for _, e := range ends {
		if !v.flights.inUse(e.key) {
			idle = append(idle, e)
			continue
		}
		all.Go(func() {
			v.flights.drain(e.key)
			v.destroyNow(ctx, []*end{e})
		})
	}
	v.destroyNow(ctx, idle)
	all.Wait()
}

func (v *Vault) destroyNow(ctx context.Context, ends []*end) {
	if len(ends) == 0 {
		return
	}
	keys := make([]EndingKey, len(ends))
	for i, e := range ends {
		keys[i] = EndingKey{e.key, e.check}
	}
	errs := v.cfg.Token.Destroy(ctx, keys)
	for i, e := range ends {
		e.err = errs[i]
	}
}

// destroy finishes a recorded revocation. A sealed key is forgotten by the token and deleted by the vault. What a host may have kept of
// it is of use until the sealing key of its period is destroyed, so the record names that period. Of a resident key that was not in the token the record
// says so: nobody saw it destroyed. It is destroyed under whatever name it lies, and not what lies under its name: the record says that too.
func (v *Vault) destroy(ctx context.Context, r *ledger.Revocation) error {
	details := evidence.Details{Owner: r.Owner, Document: r.Hash, Index: r.Index, Items: r.Items, Token: v.cfg.Serial}
	ends := v.endsOf(r)
	details.Custody = custodyOf(ends)
	details.Period = v.endKeys(ctx, ends)
	f := v.tell(ends, nil)
	details.Note = f.note()
	if f.stopped { // sending it again does not help before
		return problem.New(policies.CodeTokenFailure, "the grant is refused from now on, but its key is not destroyed before the vault's operator has mended a disk and started the vault again")
	}
	if f.left > 0 && f.left == f.stuck {
		return fmt.Errorf("%w: %w", problem.New(policies.CodeTokenFailure, "the grant is refused from now on, but the token refuses to destroy its key; the operator must look"), ErrKeyStuck)
	}
	if f.left > 0 {
		return problem.New(policies.CodeTokenFailure, "the grant is refused from now on, but its key is not destroyed yet; send the revocation again")
	}
	v.ledger.Read(func(s *ledger.State) {
		if s.Closed(policies.IdentityID(r.Owner)) { // this entry stays when all of theirs before it go
			details.Items, details.Count = nil, uint64(len(r.Items))
		}
	})
	_, _, err := v.record(ctx, func(s *ledger.State, _ time.Time) []ledger.Record {
		return []ledger.Record{{
			Kind: evidence.EntryDestroyed, Owner: s.Pseudonym(policies.IdentityID(r.Owner)), Outcome: policies.CodeAccepted,
			Details: details,
		}}
	})
	return err
}

// custodyOf is what the record of a destruction names: sealed, if one of the keys was.
func custodyOf(ends []end) policies.Custody {
	if slices.ContainsFunc(ends, func(e end) bool { return e.custody == policies.CustodySealed }) {
		return policies.CustodySealed
	}
	return policies.CustodyResident
}

// found is what became of the keys of a revocation.
type found struct {
	absent, renamed int
	left, stuck     int  // not destroyed, and those of them that the token refuses to destroy
	stopped         bool // one of them, because the file of sealed keys is
}

// tell logs what became of each key out of the ordinary, and counts it. said, if there is one, are keys that stay and of which that was logged before.
func (v *Vault) tell(ends []end, said map[KeyID]bool) (f found) {
	for i := range ends {
		e := &ends[i]
		grant, field := e.item.Grant.String(), string(e.item.Field)
		switch {
		case e.err == nil:
		case !e.stays() && errors.Is(e.err, ErrKeyRenamed):
			v.cfg.Logger.Error("a revoked key was in the token under another name, and is destroyed: somebody with the PIN renamed it", "grant", grant, "field", field)
			f.renamed++
		case !e.stays(): // a crash may have come after an earlier try; or the host may have hidden it
			v.cfg.Logger.Error("a revoked key was not in the token: destroyed by a try that a crash cut short, or removed or renamed by somebody else", "grant", grant, "field", field)
			f.absent++
		default:
			if !said[e.key] {
				v.cfg.Logger.Error("a revoked key is still there; it is refused all the same", "grant", grant, "custody", string(e.custody), "error", e.err.Error())
			}
			if said != nil {
				said[e.key] = true
			}
			f.left++
			f.stopped = f.stopped || errors.Is(e.err, sealed.ErrStopped)
			if errors.Is(e.err, ErrKeyStuck) {
				f.stuck++
			}
		}
	}
	return f
}

// note is what the record of the destruction says besides.
func (f *found) note() string {
	var notes []string
	if f.absent > 0 {
		notes = append(notes, fmt.Sprintf("%d not in the token", f.absent))
	}
	if f.renamed > 0 {
		notes = append(notes, fmt.Sprintf("%d under another name", f.renamed))
	}
	return strings.Join(notes, ", ")
}

// openSession takes a reader's delegation to a short-lived key.
func (v *Vault) openSession(ctx context.Context, e *envelope.Envelope) (*evidence.Receipt, error) {
	d, err := open(v, e, func(s *policies.Session) policies.IdentityID { return policies.IdentityID(s.Reader) })
	if err != nil {
		return nil, err
	}
	session := d.doc
	if receipt, err := v.again(ctx, e.Hash); receipt != nil || err != nil {
		return receipt, err
	}
	key, unreadable := v.decapsulate(session, e.Hash)
	record, cp, err := accept(ctx, v, d, func(s *ledger.State, now time.Time) error {
		if session.Audience != v.cfg.Document.Vault {
			return policies.CodeWrongVault
		}
		if err := session.Live(now); err != nil {
			return err
		}
		if s.Session(e.Hash) != nil { // sent twice at once
			return policies.CodeExists
		}
		if unreadable != nil {
			return policies.CodeMalformed
		}
		if s.SessionsOf(session.Reader) >= v.cfg.Limits.Sessions {
			return &problem.Problem{Code: policies.CodeRateLimited, Detail: "the reader has too many sessions open; use one again, or wait until one ends", RetryAfter: 60}
		}
		if !v.quotas.take(allowance{d.signer.ID, openedSessions}, now, 1) {
			return &problem.Problem{Code: policies.CodeRateLimited, Detail: "the reader opens sessions too fast; use one again", RetryAfter: 1}
		}
		return nil
	}, func() ledger.Record {
		return ledger.Record{
			Kind: evidence.EntrySession, Reader: d.signer.Pseudonym, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: session,
			Details: evidence.Details{Reader: session.Reader, Document: e.Hash, Session: e.Hash, Expires: session.Expires},
		}
	})
	if err != nil {
		if key != nil {
			key.Zero()
		}
		return nil, err
	}
	v.keys.put(e.Hash, key)
	return v.receipt(&record, cp, e.Hash)
}

// decapsulate agrees K with the reader of a session.
func (v *Vault) decapsulate(session *policies.Session, hash policies.Hash) (*pre.SessionKey, error) {
	secret, err := v.cfg.SessionKey.Decapsulate(session.Ciphertext)
	if err != nil {
		return nil, err
	}
	defer secret.Zero()
	return secret.Key(v.cfg.Document.Vault, session.Reader, hash), nil
}

// follows refuses a link that is not the next one of an owner's chain.
func follows(s *ledger.State, owner policies.OwnerID, link policies.Link) error {
	c, ok := s.Chain(owner)
	if !ok {
		return policies.CodeUnknown
	}
	if s.Closed(policies.IdentityID(owner)) {
		return policies.CodeClosed
	}
	if err := link.Follows(c.Seq, c.Hash); err != nil {
		return problem.New(policies.CodeChain, "the newest document has seq %d", c.Seq)
	}
	return nil
}
