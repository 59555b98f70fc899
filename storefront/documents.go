package storefront

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/gate"
)

// Bounds on one page of an answer.
const (
	pageDocuments = 256
	pageBytes     = 4 * mib
	// relationshipsOfPair is how many relationships of one reader with one owner are kept.
	relationshipsOfPair = 16
)

// identity finds a registered identity.
func (s *Storefront) identity(ctx context.Context, id policies.IdentityID) (*policies.Identity, error) {
	env, err := s.identityEnvelope(ctx, id)
	if err != nil {
		return nil, err
	}
	return policies.Decode[policies.Identity](env)
}

func (s *Storefront) identityEnvelope(ctx context.Context, id policies.IdentityID) (*envelope.Envelope, error) {
	r, err := s.store.Get(ctx, key(kindIdentity, id[:]))
	if errors.Is(err, store.ErrNotFound) {
		if err := s.closed(ctx, id); err != nil {
			return nil, err
		}
		return nil, problem.New(policies.CodeNotFound, "no identity with this id is registered here")
	} else if err != nil {
		return nil, err
	}
	env, err := envelope.Parse(r.Value)
	if err != nil || policies.IdentityID(env.Hash) != id {
		return nil, errNotIdentity
	}
	return env, nil
}

// postIdentity registers an identity. The one document whose signature the storefront verifies itself besides a relationship: it gives
// out identities, and keeps no junk under a key that it could have checked.
func (s *Storefront) postIdentity(c *call) error {
	env, err := envelope.Parse(c.body)
	if err != nil {
		return err
	}
	_, id, err := policies.OpenIdentity(env)
	if err != nil {
		return err
	}
	if err := s.store.Health(); err != nil {
		return err
	}
	if err := s.closed(c.ctx, id); err != nil {
		return err
	}
	changes, err := s.once(c.ctx, nil, key(kindIdentity, id[:]), env.Raw)
	if err != nil {
		return err
	}
	if len(changes) > 0 && !s.callers.allow("i"+gate.Network(c.Request.RemoteAddr).String(), s.now(), s.limits.IdentityRate, s.limits.IdentityBurst, 1) {
		return rateLimited()
	}
	receipt, err := s.submit(c.ctx, env)
	if err != nil {
		return err
	}
	if err := s.commit(c.ctx, changes); err != nil {
		return err
	}
	return c.json(http.StatusOK, receipt)
}

// commit writes, going on when the client has gone. That somebody wrote the same documents first is no error.
func (s *Storefront) commit(ctx context.Context, changes []store.Change) error {
	if len(changes) == 0 {
		return nil
	}
	err := s.store.Commit(context.WithoutCancel(ctx), changes...)
	if errors.Is(err, store.ErrStale) {
		return nil
	}
	return err
}

func (s *Storefront) getIdentity(c *call) error {
	var id policies.IdentityID
	if err := id.UnmarshalText([]byte(c.Param("id"))); err != nil {
		return err
	}
	if err := s.openly(c.ctx, id); err != nil {
		return err
	}
	env, err := s.identityEnvelope(c.ctx, id)
	if err != nil {
		return err
	}
	return c.send(http.StatusOK, "application/json", env.Raw)
}

// postRelationship keeps a reader's key for one owner, and the last few before it: grants name the one they were made from. The owner
// checks signature and nonce.
func (s *Storefront) postRelationship(c *call) error {
	env, err := envelope.Parse(c.body)
	if err != nil {
		return err
	}
	claim, err := policies.Decode[policies.Relationship](env)
	if err != nil {
		return err
	}
	if policies.IdentityID(claim.Reader) != c.subject {
		return problem.New(policies.CodeUnauthorized, "the relationship is of another reader than the one who logged in")
	}
	line, _, err := s.line(c.ctx, c.subject)
	if err != nil {
		return err
	}
	verifier, err := envelope.ParsePublicKey(line.Newest().SigningKey)
	if err != nil {
		return err
	}
	d, err := policies.Open[policies.Relationship](env, verifier)
	if err != nil {
		return err
	}
	unlock, err := s.locks.lock(c.ctx, slot{author: policies.AuthorID(d.Reader)})
	if err != nil {
		return err
	}
	defer unlock()
	old, err := s.store.Scan(c.ctx, key(kindByReader, d.Reader[:], d.Owner[:]), nil, relationshipsOfPair+1)
	if err != nil {
		return err
	}
	seq := uint64(1)
	for _, r := range old {
		kept, err := envelope.Parse(r.Value)
		if err != nil {
			return fmt.Errorf("a stored relationship: %v", err)
		}
		if kept.Hash == env.Hash {
			return c.created()
		}
		seq = binary.BigEndian.Uint64(r.Key[len(r.Key)-8:]) + 1
	}
	both := func(seq uint64) (byReader, byOwner []byte) {
		return key(kindByReader, d.Reader[:], d.Owner[:], policies.U64(seq)), key(kindByOwner, d.Owner[:], d.Reader[:], policies.U64(seq))
	}
	byReader, byOwner := both(seq)
	changes := []store.Change{{Key: byReader, Version: 1, Value: env.Raw}, {Key: byOwner, Version: 1, Value: env.Raw}}
	if len(old) >= relationshipsOfPair {
		oldReader, oldOwner := both(binary.BigEndian.Uint64(old[0].Key[len(old[0].Key)-8:]))
		changes = append(changes, store.Change{Key: oldReader, Delete: true}, store.Change{Key: oldOwner, Delete: true})
	} else {
		count, version, err := s.countRelationships(c.ctx, d.Reader)
		if err != nil {
			return err
		}
		if count >= uint64(s.limits.Relationships) {
			return problem.New(policies.CodeTooLarge, "a reader has at most %d relationships here", s.limits.Relationships)
		}
		changes = append(changes, store.Change{Key: key(kindCount, d.Reader[:]), Version: version + 1, Value: policies.U64(count + 1)})
	}
	if err := s.store.Commit(c.ctx, changes...); err != nil {
		return err
	}
	return c.created()
}

// countRelationships tells how many relationships a reader has, and the version of the record that says so. If that record is missing they
// are counted. The caller holds the lock of the reader's relationships.
func (s *Storefront) countRelationships(ctx context.Context, reader policies.ReaderID) (n, version uint64, err error) {
	if n, version, err = s.number(ctx, key(kindCount, reader[:])); !errors.Is(err, store.ErrNotFound) {
		return n, version, err
	}
	err = s.each(ctx, key(kindByReader, reader[:]), nil, func(store.Record) error { n++; return nil })
	return n, 0, err
}

func (c *call) created() error {
	c.Status(http.StatusCreated)
	c.Writer.WriteHeaderNow()
	return nil
}

// getRelationships lists the caller's own, as reader and then as owner, a page at a time; with ?with=ID only those with one other party, who are so
// few that they are one page.
func (s *Storefront) getRelationships(c *call) error {
	var with []byte
	if text, ok := c.GetQuery("with"); ok {
		id, err := policies.ParseID[struct{}](text)
		if err != nil {
			return err
		}
		with = id[:]
	}
	after, err := relationshipCursor(c.subject, with, c.Query("after"))
	if err != nil {
		return err
	}
	out := api.Envelopes{Envelopes: []jsontext.Value{}}
	size := 0
	for _, kind := range []byte{kindByReader, kindByOwner} {
		if len(after) > 0 && after[0] != kind {
			continue // these pages are past
		}
		last := after
		err := s.each(c.ctx, key(kind, c.subject[:], with), after, func(r store.Record) error {
			if len(out.Envelopes) == pageDocuments || size > pageBytes {
				return errPageFull
			}
			last = r.Key
			out.Envelopes = append(out.Envelopes, r.Value)
			size += len(r.Value)
			return nil
		})
		if err == errPageFull && last == nil { // the page was full before the first of this kind
			last = key(kind, c.subject[:], make([]byte, 40))
		}
		if err == errPageFull {
			out.After = hex.EncodeToString(slices.Concat(last[:1], last[1+len(c.subject):]))
			break
		} else if err != nil {
			return err
		}
		after = nil
	}
	return c.json(http.StatusOK, out)
}

// errPageFull ends a scan for a page.
var errPageFull = errors.New("the page is full")

// relationshipCursor reads where a page of relationships ended: kind || other party || number in hexadecimal.
func relationshipCursor(subject policies.IdentityID, with []byte, text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	place, err := hex.DecodeString(text)
	if err != nil || len(place) != 41 || hex.EncodeToString(place) != text || place[0] != kindByReader && place[0] != kindByOwner || with != nil {
		return nil, problem.New(policies.CodeMalformed, "after is not a cursor that this server gave")
	}
	return slices.Concat(place[:1], subject[:], place[1:]), nil
}

// submission reads a grant or revocation as the vault wants it.
func submission(body []byte) (*vaultapi.Submission, *envelope.Envelope, error) {
	var sub vaultapi.Submission
	if err := envelope.Decode(body, &sub); err != nil {
		return nil, nil, err
	}
	env, err := envelope.Parse(sub.Envelope)
	return &sub, env, err
}

// postGrant passes a grant on to the vault, sealed keys and all, and indexes what was accepted. The keys are in this function's memory
// and nowhere else. If the index cannot be written the client gets no receipt and sends the grant again.
func (s *Storefront) postGrant(c *call) error {
	sub, env, err := submission(c.body)
	if err != nil {
		return err
	}
	d, err := policies.Decode[policies.Grant](env)
	if err != nil {
		return err
	}
	return s.begin(c, sub, env, d.Owner, "grant", func(ctx context.Context) error { return s.indexGrant(ctx, d, env) })
}

// begin has the vault act on a document with which an owner permits something, and index note what was accepted, both under the lock of the owner's own slot. If that cannot
// be written the client gets no receipt, and sends the document again.
func (s *Storefront) begin(c *call, sub *vaultapi.Submission, env *envelope.Envelope, owner policies.OwnerID, what string, index func(context.Context) error) error {
	if policies.IdentityID(owner) != c.subject {
		return problem.New(policies.CodeUnauthorized, "the %s is of another owner than the path", what)
	}
	if err := s.chargeDocument(c.subject, env); err != nil {
		return err
	}
	if err := s.store.Health(); err != nil {
		return err
	}
	k := own(owner)
	unlock, err := s.locks.lock(c.ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := s.lockedSettled(c.ctx, k); err != nil {
		return err
	}
	ctx, cancel := detach(c.ctx)
	defer cancel()
	receipt, err := s.vault.Submit(ctx, *sub)
	if err != nil {
		return err
	}
	if err := index(ctx); err != nil {
		return fmt.Errorf("indexing a %s: %w", what, err)
	}
	return c.json(http.StatusOK, receipt)
}

// end is the same for a document with which an owner ends something. Nothing here may stand in its way, and once the vault has acknowledged it the owner
// gets the receipt, even if this storefront cannot write its index: the vault refuses from then on whatever is offered to it. The status is then
// 202, and the owner's device sends the document again later, or the chain here would keep a gap.
func (s *Storefront) end(c *call, sub *vaultapi.Submission, owner policies.OwnerID, what string, index func(context.Context) error) error {
	if policies.IdentityID(owner) != c.subject {
		return problem.New(policies.CodeUnauthorized, "the %s is of another owner than the path", what)
	}
	k := own(owner)
	unlock, err := s.locks.lock(c.ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := s.lockedSettled(c.ctx, k); err != nil {
		s.log.Error("completing a pending manifest before a "+what, "error", err)
	}
	ctx, cancel := detach(c.ctx)
	defer cancel()
	receipt, err := s.vault.Submit(ctx, *sub)
	if err != nil {
		return err
	}
	if err := index(ctx); err != nil {
		s.log.Error("indexing a "+what, "error", err)
		return c.json(http.StatusAccepted, receipt)
	}
	return c.json(http.StatusOK, receipt)
}

// indexGrant makes a grant known to reads. The caller holds the lock of the owner's own slot.
func (s *Storefront) indexGrant(ctx context.Context, d *policies.Grant, env *envelope.Envelope) error {
	place := slices.Concat(d.Reader[:], d.Owner[:], policies.U64(d.Seq))
	switch _, err := s.store.Get(ctx, key(kindGrant, place)); {
	case err == nil:
		return nil // indexed before
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	record := grantRecord{Grant: env.Raw}
	// A grant that comes after its revocation, because an index was lost, is ended at once.
	err := s.each(ctx, key(kindChain, d.Owner[:]), chainKey(d.Owner, d.Seq), func(r store.Record) error {
		env, err := envelope.Parse(r.Value)
		if err != nil || env.Type != "revocation" {
			return err
		}
		later, err := policies.Decode[policies.Revocation](env)
		if err != nil {
			return err
		}
		for _, item := range later.Items {
			if item.Grant == d.ID {
				record.Ended = append(record.Ended, item)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = s.each(ctx, key(kindGivenUp, d.Owner[:]), nil, func(r store.Record) error {
		given, err := parseGivenUp(r)
		if err != nil || given == nil {
			return err
		}
		for _, item := range given.Items {
			if item.Grant == d.ID {
				record.Ended = append(record.Ended, item)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	change, err := encodeRecord(key(kindGrant, place), 1, record)
	if err != nil {
		return err
	}
	changes := []store.Change{change, {Key: key(kindGrantPlaces, d.Owner[:], d.ID[:]), Version: 1, Value: place}}
	if changes, err = s.once(ctx, changes, chainKey(d.Owner, d.Seq), env.Raw); err != nil {
		return err
	}
	defer s.grants.remove(pair{d.Reader, d.Owner}) // whether or not the commit says it worked
	if err := s.store.Commit(ctx, changes...); err != nil {
		return err
	}
	return s.tellLate(ctx, policies.IdentityID(d.Reader), key(kindGrant, place), kindGrantPlaces)
}

// postRevocation passes a revocation on to the vault; see end.
func (s *Storefront) postRevocation(c *call) error {
	sub, env, err := submission(c.body)
	if err != nil {
		return err
	}
	d, err := policies.Decode[policies.Revocation](env)
	if err != nil {
		return err
	}
	return s.end(c, sub, d.Owner, "revocation", func(ctx context.Context) error { return s.indexRevocation(ctx, d, env) })
}

// indexRevocation marks what ended. The caller holds the lock of the owner's own slot.
func (s *Storefront) indexRevocation(ctx context.Context, d *policies.Revocation, env *envelope.Envelope) error {
	changes, err := s.once(ctx, nil, chainKey(d.Owner, d.Seq), env.Raw)
	if err != nil {
		return err
	}
	return s.endItems(ctx, changes, d.Owner, d.Items)
}

// endItems marks fields of an owner's grants as ended, together with other changes. The caller holds the lock of the owner's own slot.
func (s *Storefront) endItems(ctx context.Context, changes []store.Change, owner policies.OwnerID, items []policies.RevokedItem) error {
	byGrant := make(map[policies.DocumentID][]policies.RevokedItem)
	for _, item := range items {
		byGrant[item.Grant] = append(byGrant[item.Grant], item)
	}
	var touched []pair
	for id, items := range byGrant {
		at, err := s.store.Get(ctx, key(kindGrantPlaces, owner[:], id[:]))
		if errors.Is(err, store.ErrNotFound) {
			continue // not indexed; if it is later, the chain says that it ended
		} else if err != nil {
			return err
		}
		var record grantRecord
		version, err := s.load(ctx, key(kindGrant, at.Value), &record)
		if err != nil {
			return err
		}
		news := false
		for _, item := range items {
			if !slices.Contains(record.Ended, item) {
				record.Ended, news = append(record.Ended, item), true
			}
		}
		if !news {
			continue
		}
		change, err := encodeRecord(key(kindGrant, at.Value), version+1, record)
		if err != nil {
			return err
		}
		changes = append(changes, change)
		touched = append(touched, pair{policies.ReaderID(at.Value[:32]), owner})
	}
	defer func() {
		for _, p := range touched {
			s.grants.remove(p)
		}
	}()
	if len(changes) == 0 {
		return nil
	}
	return s.store.Commit(ctx, changes...)
}

// getReaderGrants lists, a page at a time, the grants to the caller that are in force as far as this storefront knows.
func (s *Storefront) getReaderGrants(c *call) error {
	all := key(kindGrant, c.subject[:])
	after, err := parseCursor(all, c.Query("after"))
	if err != nil {
		return err
	}
	prefix, err := ofOwner(c, all, after)
	if err != nil {
		return err
	}
	out := api.ReaderGrants{Grants: []jsontext.Value{}}
	size, now := 0, s.now()
	err = s.each(c.ctx, prefix, after, func(r store.Record) error {
		if size > pageBytes || len(out.Grants) == pageDocuments {
			out.After = hex.EncodeToString(after[len(all):])
			return errPageFull
		}
		after = r.Key
		g, err := parseGrant(r)
		if err != nil {
			return err
		}
		if g.inForce(now) {
			out.Grants = append(out.Grants, g.raw)
			size += len(g.raw)
		}
		return nil
	})
	if err != nil && err != errPageFull {
		return err
	}
	return c.json(http.StatusOK, out)
}

// ofOwner narrows a list of records by owner to those of the one whom the query names, if it names one.
func ofOwner(c *call, all, after []byte) ([]byte, error) {
	text, ok := c.GetQuery("owner")
	if !ok {
		return all, nil
	}
	var owner policies.OwnerID
	if err := owner.UnmarshalText([]byte(text)); err != nil {
		return nil, err
	}
	prefix := slices.Concat(all, owner[:])
	if after != nil && !bytes.HasPrefix(after, prefix) {
		return nil, problem.New(policies.CodeMalformed, "after is a cursor of another list")
	}
	return prefix, nil
}

// parseCursor reads where a page ended: owner || seq in hexadecimal.
func parseCursor(prefix []byte, text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	place, err := hex.DecodeString(text)
	if err != nil || len(place) != 40 || hex.EncodeToString(place) != text {
		return nil, problem.New(policies.CodeMalformed, "after is not a cursor that this server gave")
	}
	return slices.Concat(prefix, place), nil
}

// getMirror gives an author's current leaves for an owner. A storefront that knows of a newer head than it has says so rather than
// give an old copy.
func (s *Storefront) getMirror(c *call) error {
	owner, err := c.owner()
	if err != nil {
		return err
	}
	k := own(owner)
	if text, ok := c.GetQuery("author"); ok {
		if err := k.author.UnmarshalText([]byte(text)); err != nil {
			return err
		}
	}
	if c.subject != policies.IdentityID(k.owner) && c.subject != policies.IdentityID(k.author) {
		return problem.New(policies.CodeUnauthorized, "a mirror is for the owner and the author")
	}
	unlock, err := s.locks.lock(c.ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	sh, err := s.lockedSettled(c.ctx, k)
	if err != nil {
		return err
	}
	if behind, receipt := s.behind(c.ctx, k, sh); behind {
		return &problem.Problem{Code: policies.CodeBehind, Receipt: receipt}
	}
	var out api.Mirror
	if t := sh.current; t != nil {
		out.Manifest, out.Receipt = t.raw, t.receipt
		for _, l := range t.leaves {
			out.Leaves = append(out.Leaves, l.bytes)
		}
	}
	return c.json(http.StatusOK, out)
}

// behind reports whether the vault has a head that is not current here. If the vault does not say, what is here is taken to be
// the newest: whoever relies on it checks.
func (s *Storefront) behind(ctx context.Context, k slot, sh *shelf) (bool, *evidence.Receipt) {
	if sh.pending != nil {
		return false, nil // the vault could not be asked, or it has not decided
	}
	head, err := s.vault.Head(ctx, k.owner, k.author)
	if err != nil {
		return sh.lost, nil
	}
	current := policies.Hash{}
	if sh.current != nil {
		current = sh.current.hash
	}
	return head.Manifest != current, head.Receipt
}

// getItem gives an owner one of their own ciphertexts.
func (s *Storefront) getItem(c *call) error {
	owner, err := c.owner()
	if err != nil {
		return err
	}
	var h policies.Hash
	if err := h.UnmarshalText([]byte(c.Param("leaf"))); err != nil {
		return err
	}
	missing := problem.New(policies.CodeNotFound, "no such item")
	r, err := s.store.Get(c.ctx, leafKey(owner, h))
	if errors.Is(err, store.ErrNotFound) {
		return missing
	} else if err != nil {
		return err
	}
	raw, _, err := parseLeafRecord(r.Value)
	if err != nil {
		return err
	}
	l, err := policies.ParseLeaf(raw)
	if err != nil {
		return fmt.Errorf("a stored leaf: %v", err)
	}
	body, err := s.ciphertext(c.ctx, slot{l.Owner, l.Author}, l.CiphertextHash)
	if errors.Is(err, store.ErrNotFound) {
		return missing
	} else if err != nil {
		return err
	}
	return c.send(http.StatusOK, "application/octet-stream", body)
}

// getChain gives a piece of the owner's chain as far as it came through here. What took the second route is missing until its owner
// sends it again; the chain's links show that.
func (s *Storefront) getChain(c *call) error {
	owner, err := c.owner()
	if err != nil {
		return err
	}
	after, err := number(c, "after", 1<<62)
	if err != nil {
		return err
	}
	unlock, err := s.locks.lock(c.ctx, own(owner))
	if err != nil {
		return err
	}
	_, err = s.lockedSettled(c.ctx, own(owner))
	unlock()
	if err != nil {
		return err
	}
	records, err := s.store.Scan(c.ctx, key(kindChain, owner[:]), chainKey(owner, after), pageDocuments+1)
	if err != nil {
		return err
	}
	out := api.Chain{Documents: []jsontext.Value{}}
	size := 0
	for _, r := range records {
		if len(out.Documents) == pageDocuments || size > pageBytes {
			out.More = true
			break
		}
		out.Documents = append(out.Documents, r.Value)
		size += len(r.Value)
	}
	return c.json(http.StatusOK, out)
}

func number(c *call, name string, most uint64) (uint64, error) {
	text := c.Query(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n > most {
		return 0, problem.New(policies.CodeMalformed, "%s is a number of at most %d", name, most)
	}
	return n, nil
}

// getHistory passes on what the vault's key-use log says about the owner. The owner verifies it.
func (s *Storefront) getHistory(c *call) error {
	owner, err := c.owner()
	if err != nil {
		return err
	}
	before, err := number(c, "before", 1<<62)
	if err != nil {
		return err
	}
	limit, err := number(c, "limit", 1000)
	if err != nil {
		return err
	}
	history, err := s.vault.History(c.ctx, owner, before, int(limit))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, history)
}

// getFreeze passes on whether operators stopped all reading of the owner, which the vault proves.
func (s *Storefront) getFreeze(c *call) error {
	owner, err := c.owner()
	if err != nil {
		return err
	}
	state, err := s.vault.Freeze(c.ctx, owner)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, state)
}

// getConsistency passes on the vault's proof that its log still begins with what it had. Whoever asks verifies it.
func (s *Storefront) getConsistency(c *call) error {
	from, err := number(c, "from", 1<<62)
	if err != nil {
		return err
	}
	to, err := number(c, "to", 1<<62)
	if err != nil {
		return err
	}
	proof, err := s.vault.Consistency(c.ctx, from, to)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, proof)
}

// getHealth tells whether reads can be served, and changes accepted.
func (s *Storefront) getHealth(c *call) error {
	h := api.Health{Status: "ok"}
	degraded := func(reason string) { h.Status, h.Reason = "degraded", reason }
	ctx, cancel := context.WithTimeout(c.ctx, 2*time.Second)
	defer cancel()
	switch v, err := s.vault.Health(ctx); {
	case err != nil:
		degraded("the vault does not answer")
	case v.Status == "degraded":
		degraded("the vault: " + v.Reason)
	case v.Status != "ok":
		degraded("the vault uses no keys: " + v.Reason)
	}
	switch err := s.store.Health(); {
	case errors.Is(err, store.ErrFull):
		degraded("the disk is nearly full, so nothing is written")
	case err != nil:
		degraded("the store takes no writes")
	}
	return c.json(http.StatusOK, h)
}

// cachedVault is the vault document seen last. Clients check it against their pin, so an old one does no harm.
type cachedVault struct {
	mu  sync.Mutex
	env *envelope.Envelope
	at  time.Time
}

// vaultFor is how long the vault document is believed to be the newest.
const vaultFor = 10 * time.Second

// vaultPatience is how long a vault is asked for a newer document while there is one to give.
const vaultPatience = 2 * time.Second

// vaultEnvelope holds no lock while it asks: callers of a silent vault wait side by side. One that fails while there is a document to
// give has the others leave the vault alone for as long.
func (s *Storefront) vaultEnvelope(ctx context.Context) (*envelope.Envelope, error) {
	now := s.now()
	env, fresh := s.cached.get(now)
	if fresh {
		return env, nil
	}
	if env != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, vaultPatience)
		defer cancel()
	}
	env, err := s.vault.Vault(ctx)
	return s.cached.put(env, err, now)
}

func (c *cachedVault) get(now time.Time) (env *envelope.Envelope, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.env, c.env != nil && now.Sub(c.at) < vaultFor
}

// put takes the vault's answer and returns what to go by.
func (c *cachedVault) put(env *envelope.Envelope, err error, now time.Time) (*envelope.Envelope, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.env = env
	} else if c.env == nil {
		return nil, err
	}
	c.at = now
	return c.env, nil
}

func (s *Storefront) vaultDocument(ctx context.Context) (*policies.VaultDocument, error) {
	env, err := s.vaultEnvelope(ctx)
	if err != nil {
		return nil, err
	}
	return policies.Decode[policies.VaultDocument](env)
}

func (s *Storefront) getVault(c *call) error {
	env, err := s.vaultEnvelope(c.ctx)
	if err != nil {
		return err
	}
	return c.send(http.StatusOK, "application/json", env.Raw)
}
