package vault

import (
	"context"
	"errors"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/internal/ledger"
	"github.com/sallyport/sallyport/vault/pre"
)

const (
	// maxBatchItems bounds the items of one decision, so that its records fit into one commit of the log.
	maxBatchItems = 4096
	// deriveTimeout is how long a batch may take in the token.
	deriveTimeout = 30 * time.Second
)

// Reencrypt answers readers' requests, in their order. Every item of every request is decided, recorded, and only then
// carried out; the answer is for the reader alone.
func (v *Vault) Reencrypt(ctx context.Context, calls []api.Call) []api.Reply {
	replies := make([]api.Reply, len(calls))
	for first := 0; first < len(calls); {
		end, items := first+1, len(calls[first].Items)
		for end < len(calls) && items+len(calls[end].Items) <= maxBatchItems {
			items += len(calls[end].Items)
			end++
		}
		v.reencrypt(ctx, calls[first:end], replies[first:end])
		first = end
	}
	return replies
}

func (v *Vault) reencrypt(ctx context.Context, calls []api.Call, replies []api.Reply) {
	// 1. Who asks? A caller whose session and signature do not hold is refused and counted.
	reads := make([]*read, 0, len(calls))
	for i := range calls {
		if r, code := v.admit(&calls[i]); code != "" {
			v.refused.add(code)
			replies[i].Code = code
		} else {
			r.reply = &replies[i]
			reads = append(reads, r)
		}
	}
	if len(reads) == 0 {
		return
	}
	defer func() {
		for _, r := range reads {
			r.zero()
		}
	}()

	// 2. Decide, and record durably. If that fails nothing happened, and nothing happens.
	records, _, err := v.recordReads(ctx, func(s *ledger.State, now time.Time) []ledger.Record {
		var out []ledger.Record
		for _, r := range reads {
			r.first = len(out)
			out = v.decide(s, now, r, out)
		}
		return out
	})
	if err != nil {
		v.takeBack(reads)
		refuseAll(reads, err)
		return
	}

	// 3. Act: one derive for each released item, all of them in one call of the token.
	failed := v.derive(context.WithoutCancel(ctx), reads, records)
	if len(failed) > 0 {
		// The log says that these keys were about to be used. That it came to nothing is said before the reader hears of it.
		_, _, err := v.record(context.WithoutCancel(ctx), func(*ledger.State, time.Time) []ledger.Record { return failed })
		if err != nil {
			refuseAll(reads, err)
			return
		}
	}

	// 4. Answer, under the key of the session.
	for _, r := range reads {
		v.answer(r, records)
	}
}

// read is one request on its way.
type read struct {
	call    *api.Call
	reply   *api.Reply
	signed  *envelope.Envelope
	request *policies.ReadRequest
	session *ledger.Session
	key     *pre.SessionKey
	refusal policies.Code // of the request as a whole, by a decision
	decided bool
	at      time.Time // then when
	first   int       // place of its first record
	items   []readItem
}

// readItem is one item of a request.
type readItem struct {
	leaf    policies.Leaf
	hash    policies.Hash
	fault   policies.Code // what is wrong with leaf, proof or point, whoever asks; empty if nothing
	head    ledger.Head
	grant   *ledger.Grant
	key     KeyID
	outcome policies.Code
	rules   policies.Hash // the operator's, as far as they were asked
	against []string      // those of them that refuse it
	// accepted is the item's place in the vault's order.
	accepted uint64
	x        [32]byte
}

// zero overwrites what the token gave.
func (r *read) zero() {
	for i := range r.items {
		clear(r.items[i].x[:])
	}
}

// admit finds out who asks: it opens the request under its session's key. What it returns an error code for came from nobody in particular.
// It also checks the mathematics of what the storefront offers, which needs no decision.
func (v *Vault) admit(call *api.Call) (*read, policies.Code) {
	e, err := envelope.Parse(call.Request)
	if err != nil {
		return nil, policies.CodeMalformed
	}
	request, err := policies.Decode[policies.ReadRequest](e)
	if err != nil {
		return nil, policies.CodeMalformed
	}
	r := &read{call: call, signed: e, request: request}
	v.ledger.Read(func(s *ledger.State) { r.session = s.Session(request.Session) })
	if r.session == nil {
		return nil, policies.CodeSession
	}
	if err := e.Verify(r.session.Document.Key); err != nil {
		return nil, policies.CodeSignature
	}
	if r.key, err = v.sessionKey(r.session); err != nil {
		return nil, policies.CodeSession
	}
	if len(call.Items) == len(request.Items) {
		r.items = make([]readItem, len(call.Items))
		v.ledger.Read(func(s *ledger.State) {
			for i := range r.items {
				r.items[i].head = s.Head(request.Items[i].Owner, request.Items[i].Writer())
			}
		})
		for i := range r.items {
			r.items[i].fault = r.items[i].verify(&request.Items[i], &call.Items[i])
		}
	}
	return r, ""
}

// sessionKey is K of an open session.
func (v *Vault) sessionKey(session *ledger.Session) (*pre.SessionKey, error) {
	if key := v.keys.get(session.Hash); key != nil {
		return key, nil
	}
	key, err := v.decapsulate(&session.Document, session.Hash) // the vault was restarted since
	if err != nil {
		return nil, err
	}
	return v.keys.put(session.Hash, key), nil
}

// verify checks that what is offered is the item that was asked for, under the author's head, with a point that is on the curve.
func (it *readItem) verify(ask *policies.ReadItem, offer *api.CallItem) policies.Code {
	if it.head.Version == 0 || offer.Head != it.head.Manifest {
		if len(offer.Leaf) == 0 && it.head.Version == 0 {
			return policies.CodeNotFound
		}
		return policies.CodeHeadMoved
	}
	if len(offer.Leaf) == 0 {
		return policies.CodeNotFound
	}
	leaf, err := policies.ParseLeaf(offer.Leaf)
	if err != nil || leaf.Owner != ask.Owner || leaf.Field != ask.Field || leaf.Author != ask.Writer() {
		return policies.CodeLeaf
	}
	it.leaf, it.hash = leaf, leaf.Hash()
	if offer.Proof.Verify(it.hash, it.head.Size, it.head.Root) != nil {
		return policies.CodeProof
	}
	if pre.CheckPoint(&offer.Point, &it.leaf.Capsule) != nil {
		return policies.CodePoint
	}
	return ""
}

// decide decides a request and appends its records: one for a request that is refused as a whole, else one for each item. The first carries
// the request.
func (v *Vault) decide(s *ledger.State, now time.Time, r *read, out []ledger.Record) []ledger.Record {
	r.decided, r.at = true, now
	reader := s.Pseudonym(policies.IdentityID(r.session.Document.Reader))
	first := len(out)
	if r.refusal = v.refuse(now, r); r.refusal != "" {
		if s.Closed(policies.IdentityID(r.session.Document.Reader)) { // since the request was admitted; no entry names them any more
			v.refused.add(r.refusal)
			return out
		}
		refusal := ledger.Record{Kind: evidence.EntryRefusal, Reader: reader, Outcome: r.refusal, Details: evidence.Details{
			Reader: r.session.Document.Reader, Session: r.session.Hash, Request: r.signed.Hash,
		}}
		if r.refusal != policies.CodeReplay { // the record of the request's first coming has it
			refusal.Raw = r.signed.Raw
		}
		return v.refusable(s, now, r, append(out, refusal), first)
	}
	r.session.Nonces[r.request.Nonce] = struct{}{}
	for i := range r.items {
		it, ask, offer := &r.items[i], &r.request.Items[i], &r.call.Items[i]
		it.outcome = v.permit(s, now, r, i)
		kind := evidence.EntryRefusal
		switch it.outcome {
		case policies.CodeReleased:
			kind = evidence.EntryUse
			it.key = keyID(offer.Grant, ask.Field, ask.Writer())
			s.Promise(it.grant, ask.Field, ask.Writer(), now)
			v.flights.begin(it.key)
		case policies.CodeUnchanged:
			kind = evidence.EntryUse
		}
		record := ledger.Record{
			Kind: kind, Reader: reader, Outcome: it.outcome,
			Details: evidence.Details{
				Owner: ask.Owner, Reader: r.session.Document.Reader, Grant: offer.Grant, Field: ask.Field, Author: ask.Writer(),
				Session: r.session.Hash, Request: r.signed.Hash, Nonce: r.request.Nonce,
			},
		}
		if seesItem(it.outcome) {
			d := &record.Details
			d.Epoch, d.Version, d.Head, d.Leaf = it.leaf.Epoch, it.leaf.Version, offer.Head, it.hash
			d.Rules, d.Note = it.rules, few(it.against)
		}
		if kind == evidence.EntryUse {
			record.Details.Token, record.Details.Grade, record.Details.Decided = v.cfg.Serial, v.cfg.Grade, now.UnixMilli()
		}
		if it.outcome != policies.CodeNoGrant {
			record.Details.Custody = it.grant.Document.Custody
		}
		// What an owner never granted anything to does not get into their history: any enrolled reader could fill it.
		// Nor does what comes after they closed their account: it is over, and what lies beside its entries goes.
		if (it.outcome != policies.CodeNoGrant || s.Met(ask.Owner, r.session.Document.Reader)) && !s.Closed(policies.IdentityID(ask.Owner)) {
			record.Owner = s.Pseudonym(policies.IdentityID(ask.Owner))
		}
		if i == 0 {
			record.Raw = r.signed.Raw
		}
		out = append(out, record)
	}
	return v.refusable(s, now, r, out, first)
}

// seesItem reports whether a reader with this outcome has a grant in force and may know of the item. Of a refusal of others the log does not say which version was
// there to be refused: the reader is given what the log says of it ([Vault.Evidence]), and a stranger must not learn whether the owner has such a field.
func seesItem(outcome policies.Code) bool {
	switch outcome {
	case policies.CodeNoGrant, policies.CodeRevoked, policies.CodeSuspended, policies.CodeFrozen, policies.CodeNotYet, policies.CodeGrantExpired:
		return false
	}
	return true
}

// refuse says why a request is refused as a whole.
func (v *Vault) refuse(now time.Time, r *read) policies.Code {
	if r.request.Audience != v.cfg.Document.Vault {
		return policies.CodeWrongVault
	}
	if r.session.Ended || r.session.Document.Live(now) != nil {
		return policies.CodeSession
	}
	if r.request.Live(now) != nil {
		return policies.CodeExpired
	}
	if len(r.call.Items) != len(r.request.Items) {
		return policies.CodeMalformed
	}
	if _, used := r.session.Nonces[r.request.Nonce]; used {
		return policies.CodeReplay
	}
	if len(r.session.Nonces) >= v.cfg.Limits.SessionRequests { // its reader opens another
		return policies.CodeSession
	}
	return ""
}

// permit decides one item: released, unchanged, or why not. A stranger to the grant, and a reader whose grant is not in force, learns nothing
// of the owner's data, not even whether there is any.
func (v *Vault) permit(s *ledger.State, now time.Time, r *read, i int) policies.Code {
	it, ask, offer := &r.items[i], &r.request.Items[i], &r.call.Items[i]
	it.grant = s.Grant(offer.Grant)
	if it.grant == nil || it.grant.Document.Reader != r.session.Document.Reader || it.grant.Document.Owner != ask.Owner {
		return policies.CodeNoGrant
	}
	place, ok := it.grant.Find(ask.Field, ask.Writer())
	if !ok {
		return policies.CodeNoGrant
	}
	if it.grant.Revoked[place] {
		return policies.CodeRevoked
	}
	if s.Suspended(it.grant) {
		return policies.CodeSuspended
	}
	if s.Frozen(ask.Owner) {
		return policies.CodeFrozen
	}
	if code := it.grant.Document.InForce(now); code != "" {
		return code
	}
	if it.fault != "" {
		return it.fault
	}
	if s.Head(ask.Owner, ask.Writer()).Manifest != it.head.Manifest { // it moved since verify looked
		return policies.CodeHeadMoved
	}
	var used uint64
	if it.grant.Document.Limits.ReadsPerDay != 0 || len(s.Rules().Set.Names()) > 0 {
		used = s.UsedOn(it.grant, now)
	}
	err := policies.Check(&it.grant.Document, policies.Use{
		Reader: r.session.Document.Reader, Purpose: r.request.Purpose, Leaf: &it.leaf, Item: ask, UsedToday: used,
	}, now)
	if err != nil {
		var code policies.Code
		if !errors.As(err, &code) {
			return policies.CodeInternal
		}
		return code
	}
	var uncovered policies.Code
	if it.accepted, uncovered = written(s, it); uncovered != "" {
		return uncovered
	}
	if refused := v.guarded(s, now, r, it, used); refused != "" {
		return refused
	}
	if ask.Known == it.leaf.Version {
		return policies.CodeUnchanged
	}
	return policies.CodeReleased
}

// derive has the token carry out the released items, and lets revocations that wait for them go on. It returns the records of those that failed.
func (v *Vault) derive(ctx context.Context, reads []*read, records []ledger.Record) []ledger.Record {
	var uses []Use
	var items []*readItem
	var places []int
	for _, r := range reads {
		for i := range r.items {
			if r.items[i].outcome == policies.CodeReleased {
				uses = append(uses, Use{Key: r.items[i].key, Point: r.call.Items[i].Point})
				items, places = append(items, &r.items[i]), append(places, r.first+i)
			}
		}
	}
	if len(uses) == 0 {
		return nil
	}
	defer v.land(uses)
	ctx, cancel := context.WithTimeout(ctx, deriveTimeout)
	defer cancel()
	derived := v.use(ctx, uses, func(i int) bool { return items[i].grant.Document.Custody == policies.CustodySealed })
	var failed []ledger.Record
	for n, it := range items {
		var err error
		if n >= len(derived) {
			err = errors.New("the token gave no answer")
		} else if err = derived[n].Err; err == nil {
			it.x = derived[n].X
			clear(derived[n].X[:])
			continue
		}
		it.outcome = policies.CodeTokenFailure
		if errors.Is(err, ErrKeyMissing) {
			it.outcome = policies.CodeKeyMissing
		}
		v.cfg.Logger.Error("the token did not carry out a use", "key", it.key.String(), "grant", it.grant.Document.ID.String(), "field", string(records[places[n]].Details.Field), "error", err.Error())
		use := &records[places[n]]
		d := use.Details
		failed = append(failed, ledger.Record{
			Kind: evidence.EntryFailed, Owner: use.Owner, Reader: use.Reader, Outcome: it.outcome,
			Details: evidence.Details{
				Owner: d.Owner, Reader: d.Reader, Field: d.Field, Author: d.Author, Request: d.Request, Index: use.Index, Token: v.cfg.Serial, Custody: d.Custody,
			},
		})
	}
	return failed
}

// land says that uses are over.
func (v *Vault) land(uses []Use) {
	keys := make([]KeyID, len(uses))
	for i := range uses {
		keys[i] = uses[i].Key
	}
	v.flights.end(keys)
}

// takeBack undoes what decisions that were not recorded changed in memory.
func (v *Vault) takeBack(reads []*read) {
	v.ledger.Write(func(s *ledger.State) {
		for _, r := range reads {
			if r.decided {
				v.withdraw(s, r)
			}
		}
	})
}

// withdraw undoes what a decision changed in memory. It is called while the state is held for writing.
func (v *Vault) withdraw(s *ledger.State, r *read) {
	if r.refusal != "" {
		return
	}
	var uses []Use
	delete(r.session.Nonces, r.request.Nonce)
	for i := range r.items {
		if r.items[i].outcome == policies.CodeReleased {
			s.Withdraw(r.items[i].grant, r.request.Items[i].Field, r.request.Items[i].Writer(), r.at)
			uses = append(uses, Use{Key: r.items[i].key})
		}
		r.items[i].outcome = ""
	}
	v.land(uses)
}

// refuseAll answers requests that could not be recorded.
func refuseAll(reads []*read, err error) {
	code := policies.CodeLogStopped
	errors.As(err, &code)
	for _, r := range reads {
		*r.reply = api.Reply{Code: code}
	}
}

// answer seals what the reader learns. A request that was refused as a whole gets the reason and no answer.
func (v *Vault) answer(r *read, records []ledger.Record) {
	if r.refusal != "" {
		r.reply.Code = r.refusal
		return
	}
	a := policies.Answer{Time: uint64(records[r.first].Time.UnixMilli()), Items: make([]policies.AnswerItem, len(r.items))}
	outcomes := make([]policies.Code, len(r.items))
	for i := range r.items {
		it := &r.items[i]
		outcomes[i] = it.outcome
		a.Items[i] = policies.AnswerItem{Outcome: it.outcome, Index: records[r.first+i].Index}
		if it.outcome == policies.CodeReleased || it.outcome == policies.CodeUnchanged {
			a.Items[i].Leaf, a.Items[i].Head, a.Items[i].Version, a.Items[i].Accepted = it.hash, it.head.Manifest, it.head.Version, it.accepted
		}
		if it.outcome == policies.CodeReleased {
			a.Items[i].X = it.x
		}
	}
	plain := a.Bytes()
	defer func() {
		clear(plain)
		for i := range a.Items {
			clear(a.Items[i].X[:])
		}
	}()
	sealed, err := r.key.SealAnswer(r.signed.Hash, plain, nil)
	if err != nil {
		v.cfg.Logger.Error("sealing an answer", "error", err.Error())
		*r.reply = api.Reply{Code: policies.CodeInternal}
		return
	}
	r.reply.Outcomes, r.reply.Sealed = outcomes, sealed
}
