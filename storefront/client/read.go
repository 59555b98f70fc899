package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// Item names what to read: one field of one owner, whoever wrote it last. Known is the version that the caller has already, 0 for none, and Author who wrote that, zero for the
// owner: if it is the newest it is not sent again.
type Item struct {
	Owner  policies.OwnerID  `json:"owner"`
	Field  policies.Field    `json:"field"`
	Author policies.AuthorID `json:"author,omitzero"`
	Known  uint64            `json:"known,omitzero"`
}

// author is whose version Known is.
func (i *Item) author() policies.AuthorID {
	if i.Author.IsZero() {
		return policies.AuthorID(i.Owner)
	}
	return i.Author
}

// Value is the outcome of one item.
type Value struct {
	Item
	Author    policies.AuthorID // who wrote it: the owner, or somebody whom the owner lets write
	Version   uint64            // of the field, among those of this author
	Bytes     []byte            // what the owner sealed; see package catalogue
	Unchanged bool              // Known is the newest version; Bytes is nil
	Custody   policies.Custody  // of the grant under which it was opened
	Time      time.Time         // the vault's
	Index     uint64            // of the entry in the key-use log
	Proof     *Proof            // of that entry, if it was demanded; see [Reader.ReadProven]
	Err       error             // why there is no value: a policies.Code, ErrUntrue, ErrRollback or ErrUnproven

	claim    claim
	accepted uint64 // place in the vault's order
}

// session is a delegation to a fresh key, as the vault knows it.
type session struct {
	hash    policies.Hash
	key     *envelope.SessionKey
	k       *pre.SessionKey
	expires time.Time
}

// zero forgets the keys, when no read uses them any more.
func (s *session) zero() {
	s.key.Zero()
	s.k.Zero()
}

// sessionSpare is how long before its end a session is replaced: no request that is under way then may outlive it.
const sessionSpare = 90 * time.Second

// sessionsMore is how many more sessions are opened for one request that is refused for want of one: the first may be lost with a daemon's memory, and the next end with the reader's keys, if another
// machine replaces them. That is what the vault says then to whoever opens one more.
const sessionsMore = 2

// liveSession returns the session, opened or renewed if need be.
func (r *Reader) liveSession(ctx context.Context) (*session, error) {
	r.sessionMu.Lock()
	defer r.sessionMu.Unlock()
	if s := r.session; s != nil && r.now().Add(sessionSpare).Before(s.expires) {
		return s, nil
	}
	v, err := r.vault(ctx)
	if err != nil {
		return nil, err
	}
	ct, secret, err := pre.EncapsulateSession(v.SessionKEM, nil)
	if err != nil {
		return nil, fmt.Errorf("opening a session: %w", err)
	}
	defer secret.Zero()
	s := &session{key: envelope.NewSessionKey()}
	seen := r.trust.largest()
	now := r.now()
	doc := &policies.Session{
		Header: policies.NewHeader("session", now), Audience: v.Vault, Reader: r.ID(), Key: s.key.Public(),
		NotBefore: now.Unix(), Expires: now.Add(policies.SessionLifetime).Unix(), Ciphertext: ct,
	}
	e, err := policies.Sign(r.signing, doc)
	if err != nil {
		return nil, fmt.Errorf("opening a session: %w", err)
	}
	receipt := new(evidence.Receipt)
	if err := r.wire.call(ctx, request{method: "POST", path: api.PathSessions, raw: e.Raw, out: receipt, login: true}); err != nil {
		return nil, fmt.Errorf("opening a session: %w", err)
	}
	s.hash, s.expires = policies.Hash(e.Hash), time.Unix(doc.Expires, 0)
	if err := r.receipt(ctx, v, receipt, s.hash, evidence.EntrySession); err != nil {
		return nil, fmt.Errorf("opening a session: %w", err)
	}
	if receipt.Evidence.Index < seen { // this very session cannot have been recorded before what was seen before it was made
		return nil, fmt.Errorf("opening a session: %w: it is entry %d, after a log of %d entries", ErrFork, receipt.Evidence.Index, seen)
	}
	s.k = secret.Key(v.Vault, r.ID(), s.hash)
	// The session before is not zeroed: reads may be under way in it. It ends within its ten minutes by itself.
	r.session = s
	return s, nil
}

// endSession drops a session that the vault does not know any more.
func (r *Reader) endSession(s *session) {
	r.sessionMu.Lock()
	defer r.sessionMu.Unlock()
	if r.session == s {
		r.session = nil
	}
}

// learnPurposes fetches grants if there is an item that none is known for: a request must name the purpose of the grant.
func (r *Reader) learnPurposes(ctx context.Context, items []Item) error {
	var unknown []Item
	for i := range items {
		if _, _, found := r.purpose(&items[i]); !found {
			unknown = append(unknown, items[i])
		}
	}
	return r.grantsOf(ctx, unknown)
}

// purpose is that of the newest grant for an item, else of the owner's newest grant, else the usual one. met says whether the owner is a
// contact, found whether there is such a grant.
func (r *Reader) purpose(it *Item) (purpose string, met, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, ok := r.owner(it.Owner)
	if !ok {
		return "", false, true // nothing that fetching would change
	}
	purpose = DefaultPurpose
	if k.contact.Purpose != "" {
		purpose = k.contact.Purpose
	}
	var newest uint64
	for _, g := range k.grants {
		if _, ok := g.doc.Field(it.Field, it.author()); ok && g.doc.Seq > newest {
			purpose, newest, found = g.doc.Purpose, g.doc.Seq, true
		}
	}
	return purpose, true, found
}

// newest is the place in its owner's chain of the newest grant for an item that is known and offered, 0 if there is none.
func (r *Reader) newest(it *Item) (seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k, ok := r.owner(it.Owner); ok {
		for _, g := range k.grants {
			if _, ok := g.doc.Field(it.Field, it.author()); ok && !g.stale {
				seq = max(seq, g.doc.Seq)
			}
		}
	}
	return seq
}

// readPurposes makes one request for each purpose and thousand items. Items that the owner moved meanwhile, or that are under a newer grant, are asked
// for once more: when an owner rotates a field or grants it anew, the older grant may end between the storefront's choice and the vault's decision.
func (r *Reader) readPurposes(ctx context.Context, out []Value, indexes []int, retry bool) error {
	groups := map[string][]int{}
	known := map[int]uint64{}
	var order []string
	for _, i := range indexes {
		known[i] = r.newest(&out[i].Item)
		purpose, met, _ := r.purpose(&out[i].Item)
		if !met {
			out[i].Err = ErrNoContact
			continue
		}
		if groups[purpose] == nil {
			order = append(order, purpose)
		}
		groups[purpose] = append(groups[purpose], i)
	}
	var again, ended []int
	for _, purpose := range order {
		for group := groups[purpose]; len(group) > 0; {
			n := min(len(group), policies.MaxReadItems)
			if err := r.readSome(ctx, out, group[:n], purpose); err != nil {
				return err
			}
			group = group[n:]
		}
		for _, i := range groups[purpose] {
			if errors.Is(out[i].Err, policies.CodeHeadMoved) || errors.Is(out[i].Err, policies.CodePurpose) {
				again = append(again, i)
			}
			if errors.Is(out[i].Err, policies.CodeRevoked) {
				ended = append(ended, i)
			}
		}
	}
	if len(again)+len(ended) == 0 || !retry {
		return nil
	}
	moved := make([]Item, 0, len(again)+len(ended))
	for _, i := range slices.Concat(again, ended) {
		moved = append(moved, out[i].Item)
	}
	if err := r.grantsOf(ctx, moved); err != nil {
		return err
	}
	for _, i := range ended {
		if r.newest(&out[i].Item) > known[i] {
			again = append(again, i)
		}
	}
	if len(again) == 0 {
		return nil
	}
	return r.readPurposes(ctx, out, again, false)
}

// readSome reads what one request may name, in several if the values are more than one answer may hold.
func (r *Reader) readSome(ctx context.Context, out []Value, indexes []int, purpose string) error {
	err := r.readOnce(ctx, out, indexes, purpose, sessionsMore, true)
	if n := len(indexes); n > 1 && errors.Is(err, policies.CodeTooLarge) {
		if err := r.readSome(ctx, out, indexes[:n/2], purpose); err != nil {
			return err
		}
		return r.readSome(ctx, out, indexes[n/2:], purpose)
	}
	return err
}

// readOnce sends one signed request and fills in the values. So many more sessions are opened for it.
func (r *Reader) readOnce(ctx context.Context, out []Value, indexes []int, purpose string, sessions int, retry bool) error {
	s, err := r.liveSession(ctx)
	if err != nil {
		return err
	}
	now := r.now()
	req := &policies.ReadRequest{
		Header: policies.NewHeader("read", now), Audience: r.state.Network.Vault, Session: s.hash, Nonce: policies.NewNonce(),
		Expires: now.Add(time.Minute).Unix(), Purpose: purpose, Items: make([]policies.ReadItem, len(indexes)),
	}
	for j, i := range indexes {
		req.Items[j] = policies.ReadItem{Owner: out[i].Owner, Field: out[i].Field, Author: out[i].Item.Author, Known: out[i].Known}
	}
	e, err := policies.Sign(s.key, req)
	if err != nil {
		return err
	}
	defer r.pin(out, indexes)() // what is known of them is what the request says it has
	body := api.Read{Request: e.Raw}
	marks := make([]mark, len(indexes))
	r.mu.Lock()
	seen := map[policies.OwnerID]bool{}
	for j, i := range indexes {
		k, met := r.owner(out[i].Owner)
		if !met {
			continue
		}
		// What an answer may not fall below is what was known when it was asked for: answers may overtake one another.
		marks[j] = *k.contact.Of(out[i].author())
		if seen[out[i].Owner] {
			continue
		}
		seen[out[i].Owner] = true
		for _, m := range k.manifests {
			body.Have = append(body.Have, m.hash)
		}
		for hash := range k.grants {
			body.Have = append(body.Have, hash)
		}
	}
	r.mu.Unlock()
	result := new(api.ReadResult)
	err = r.wire.call(ctx, request{method: "POST", path: api.PathReads, in: body, out: result, limit: maxRead})
	switch {
	case err == nil:
	case sessions > 0 && errors.Is(err, policies.CodeSession):
		r.endSession(s)
		return r.readOnce(ctx, out, indexes, purpose, sessions-1, retry)
	case retry && (errors.Is(err, policies.CodeHeadMoved) || errors.Is(err, policies.CodeReplay)):
		return r.readOnce(ctx, out, indexes, purpose, sessions, false)
	default:
		return fmt.Errorf("reading: %w", err)
	}
	plain, err := s.k.OpenAnswer(policies.Hash(e.Hash), result.Answer)
	if err != nil {
		return fmt.Errorf("reading: %w: it is not the vault's answer to this request", ErrUntrue)
	}
	defer clear(plain)
	answer, err := policies.ParseAnswer(plain)
	if err != nil {
		return fmt.Errorf("reading: %w: %w", ErrUntrue, err)
	}
	defer func() {
		for i := range answer.Items {
			clear(answer.Items[i].X[:])
		}
	}()
	if len(answer.Items) != len(indexes) || len(result.Items) != len(indexes) {
		return fmt.Errorf("reading: %w: %d outcomes for %d items", ErrUntrue, len(answer.Items), len(indexes))
	}
	documents := map[policies.Hash]*envelope.Envelope{}
	for _, raw := range result.Documents {
		d, err := envelope.Parse(raw)
		if err != nil {
			return fmt.Errorf("reading: %w: %w", ErrUntrue, err)
		}
		documents[policies.Hash(d.Hash)] = d
	}
	for j, i := range indexes {
		v := &out[i]
		v.Time, v.Index = time.UnixMilli(int64(answer.Time)).UTC(), answer.Items[j].Index
		v.claim = claim{outcome: answer.Items[j].Outcome, request: e.Hash, session: s.hash, nonce: req.Nonce, leaf: answer.Items[j].Leaf, head: answer.Items[j].Head}
		v.accepted = answer.Items[j].Accepted
		if d, ok := documents[result.Items[j].Grant]; ok { // also where nothing was released: it may name authors that this reader does not know of
			if err := r.keepGrant(ctx, d, func(*knownOwner, *verifiedGrant) {}); err != nil {
				v.Err = fmt.Errorf("%s: grant: %w", v.Field, err)
				continue
			}
		}
		if v.Err = r.learnAuthor(ctx, v.author(), v.Owner, answer.Items[j].Outcome); v.Err != nil {
			continue
		}
		v.Err = r.take(ctx, v, &answer.Items[j], &result.Items[j], documents, marks[j])
	}
	return nil
}

// take checks one item and opens it. The vault's answer decides what is believed: leaf and head must be those it names, the head
// a manifest that the owner signed and not older than one seen before, the leaf proven under it, the grant the owner's to this reader.
func (r *Reader) take(ctx context.Context, v *Value, a *policies.AnswerItem, s *api.ReadItem, documents map[policies.Hash]*envelope.Envelope, seen mark) error {
	untrue := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w: %s", v.Field, ErrUntrue, fmt.Sprintf(format, args...))
	}
	switch a.Outcome {
	case policies.CodeReleased:
		// The vault released it, and the storefront has it no more: the owner replaced it meanwhile. Nothing of it was sent.
		if moved := s.Outcome == policies.CodeHeadMoved || s.Outcome == policies.CodeBehind; moved && len(s.Leaf) == 0 && len(s.Ciphertext) == 0 {
			return s.Outcome
		}
	case policies.CodeUnchanged:
		if a.Version < seen.Version {
			return fmt.Errorf("%s: %w: manifest %d, after %d", v.Field, ErrRollback, a.Version, seen.Version)
		}
		if v.Known == 0 {
			return untrue("unchanged since nothing")
		}
		v.Unchanged, v.Version, v.Bytes, v.Author = true, v.Known, nil, v.author()
		return nil
	default:
		if !a.Outcome.Valid() {
			return untrue("an outcome that is no code")
		}
		return a.Outcome
	}
	r.mu.Lock()
	k, met := r.owner(v.Owner)
	r.mu.Unlock()
	if !met {
		return ErrNoContact
	}
	leaf, err := policies.ParseLeaf(s.Leaf)
	if err != nil {
		return untrue("leaf: %v", err)
	}
	if leaf.Hash() != a.Leaf {
		return untrue("the leaf is not the one that the vault re-encrypted")
	}
	if leaf.Owner != v.Owner || leaf.Field != v.Field || leaf.Author != v.author() {
		return untrue("the leaf is of another owner, field or author")
	}
	m, err := r.manifest(ctx, k, leaf.Author, a.Head, documents)
	if temporary(err) {
		return fmt.Errorf("%s: %w", v.Field, err)
	}
	if err != nil {
		return untrue("%v", err)
	}
	if m.Version != a.Version || m.Owner != v.Owner || m.Author != leaf.Author || m.Audience != r.state.Network.Vault {
		return untrue("the manifest is of another owner, author, version or vault")
	}
	if err := s.Proof.Verify(a.Leaf, m.TreeSize, m.Root); err != nil {
		return untrue("%v", err)
	}
	if err := r.advance(k, leaf.Author, mark{Version: m.Version, Hash: a.Head}, seen); err != nil {
		return fmt.Errorf("%s: %w", v.Field, err)
	}
	r.mu.Lock()
	g, contact := k.grants[s.Grant], k.contact
	r.mu.Unlock()
	if g == nil {
		return untrue("the grant was not sent")
	}
	if f, ok := g.doc.Field(leaf.Field, leaf.Author); !ok || f.Epoch != leaf.Epoch {
		return untrue("the grant does not name the field in this epoch")
	}
	secret, err := g.open(r, contact)
	if errors.Is(err, policies.CodeSuspended) {
		return fmt.Errorf("%s: %w", v.Field, err)
	}
	if err != nil {
		return untrue("%v", err)
	}
	value, err := secret.Open(g.doc.ID, r.ID(), &leaf, a.X, s.Ciphertext)
	if err != nil {
		return untrue("the item does not open")
	}
	v.Version, v.Author, v.Bytes, v.Unchanged, v.Custody = leaf.Version, leaf.Author, value, false, g.doc.Custody
	v.claim.epoch, v.claim.grant = leaf.Epoch, g.doc.ID
	return nil
}

// manifest returns the manifest with a hash, from memory or from what came with the answer, verified as its author's.
func (r *Reader) manifest(ctx context.Context, k *knownOwner, author policies.AuthorID, hash policies.Hash, documents map[policies.Hash]*envelope.Envelope) (*policies.Manifest, error) {
	r.mu.Lock()
	for _, m := range k.manifests {
		if m.hash == hash {
			r.mu.Unlock()
			return m.doc, nil
		}
	}
	r.mu.Unlock()
	e, ok := documents[hash]
	if !ok {
		return nil, errors.New("the manifest was not sent")
	}
	m, err := policies.Decode[policies.Manifest](e)
	if err != nil {
		return nil, err
	}
	if author == policies.AuthorID(k.contact.ID) {
		err = r.verifyOwner(ctx, k.contact.ID, e, m.Seq)
	} else {
		err = r.verifyAuthor(ctx, author, k.contact.ID, e)
	}
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k.manifests = append(k.manifests, verifiedManifest{hash, m})
	oldest, count := len(k.manifests)-1, 0
	for i := range k.manifests {
		if k.manifests[i].doc.Author != m.Author {
			continue
		}
		if count++; k.manifests[i].doc.Version < k.manifests[oldest].doc.Version {
			oldest = i
		}
	}
	if count > maxManifests {
		k.manifests = append(k.manifests[:oldest:oldest], k.manifests[oldest+1:]...)
	}
	return m, nil
}

// advance refuses what is older than seen, or another manifest of the same version, and raises the mark.
func (r *Reader) advance(k *knownOwner, author policies.AuthorID, m, seen mark) error {
	if m.Version < seen.Version {
		return fmt.Errorf("%w: manifest %d, after %d", ErrRollback, m.Version, seen.Version)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	at := k.contact.Of(author)
	switch {
	case m.Version == at.Version && m.Hash != at.Hash, m.Version == seen.Version && m.Hash != seen.Hash:
		return fmt.Errorf("%w: two manifests of version %d", ErrUntrue, m.Version)
	case m.Version > at.Version:
		*at = m
		return r.put(k)
	}
	return nil
}

// passing are the reasons for which a read may be possible later, with nothing done by the reader.
var passing = []policies.Code{policies.CodeUnavailable, policies.CodeRateLimited, policies.CodeLogStopped, policies.CodeLogFull, policies.CodeClock}

// Watch reads items again and again, every so often, and calls emit for each that is new or has failed in another way than before. It ends with
// the context, or with emit's error. Where the storefront cannot be reached it waits and goes on.
func (r *Reader) Watch(ctx context.Context, every time.Duration, emit func(Value) error, items ...Item) error {
	if every <= 0 {
		every = 30 * time.Second
	}
	failures := make([]string, len(items))
	for {
		values, err := r.Read(ctx, items...)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !slices.ContainsFunc(passing, func(c policies.Code) bool { return errors.Is(err, c) }):
			return err
		}
		for i := range values {
			v, failure := &values[i], ""
			if v.Err != nil {
				failure = v.Err.Error()
			}
			news := failure != failures[i] || v.Err == nil && !v.Unchanged
			failures[i] = failure
			if v.Err == nil {
				items[i].Known, items[i].Author = v.Version, v.Author
			}
			if news && (v.Err != nil || !v.Unchanged) {
				if err := emit(*v); err != nil {
					return err
				}
			}
		}
		if err := r.Flush(); err != nil {
			return err
		}
		timer := time.NewTimer(every)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}
