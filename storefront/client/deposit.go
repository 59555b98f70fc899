package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	"github.com/sallyport/sallyport/policies/deposit"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/storefront/api"
)

// Deposits of a source that a requester asked for (package deposit). A specification is a request for consent that names a source, so on the owner's side and the requester's it is one
// of the requests there. What is added: the owner lets the source write before the requester may read, and makes the order, sealed to the source; the requester hands it on; the source keeps
// the orders that it has, and what of them it carried out.

// readRequest reads a request for consent, or the one within a specification, and the source that this names. It was verified when it came or was made.
func readRequest(raw jsontext.Value) (*consent.Request, policies.IdentityID, error) {
	e, err := envelope.Parse(raw)
	if err != nil {
		return nil, policies.IdentityID{}, fmt.Errorf("%w: %w", ErrState, err)
	}
	if e.Type == "data-specification" {
		d, err := policies.Decode[deposit.Specification](e)
		if err != nil {
			return nil, policies.IdentityID{}, err
		}
		return &d.Request, d.Source, nil
	}
	d, err := policies.Decode[consent.Request](e)
	return d, policies.IdentityID{}, err
}

// planAnswer plans what granting some fields of a request needs: that its source, if it has one, may write them, and then that the reader may read them.
func (o *Owner) planAnswer(r *consent.Request, source policies.IdentityID, fields []policies.Field, opts GrantOptions) (stroke policies.DocumentID, until int64, err error) {
	if source.IsZero() {
		return o.planGrant(policies.ReaderID(r.From), fields, opts)
	}
	if _, ok := o.contact(policies.ReaderID(source)); !ok {
		return stroke, 0, fmt.Errorf("the source: %w", ErrNoContact)
	}
	t, err := o.newTerms(opts)
	if err != nil {
		return stroke, 0, err
	}
	t.ReadsPerDay, t.Custody = 0, ""
	at := len(o.state.Tasks)
	o.state.Tasks = append(o.state.Tasks, task{Kind: taskFollow, Reader: policies.ReaderID(source), Fields: fields, Terms: t, Wished: o.now().Unix()})
	if stroke, until, err = o.planGrant(policies.ReaderID(r.From), fields, opts); err != nil {
		o.state.Tasks = o.state.Tasks[:at]
		return stroke, 0, err
	}
	o.state.Tasks[at].Stroke, o.state.Tasks[at].Terms.Expires = stroke, until
	return stroke, until, nil
}

// comes reports whether somebody else is about to be let write a field.
func (o *Owner) comes(f policies.Field) bool {
	return slices.ContainsFunc(o.state.Tasks, func(t task) bool {
		return (t.Kind == taskFollow || t.Kind == taskWrite) && !t.Reader.IsZero() && slices.Contains(t.Fields, f)
	})
}

// mayWrite reports whether somebody may write all of some fields, as far as this device knows.
func (o *Owner) mayWrite(writer policies.IdentityID, fields []policies.Field) bool {
	return !slices.ContainsFunc(fields, func(f policies.Field) bool {
		return !slices.ContainsFunc(o.state.Writers, func(g ownedWriteGrant) bool {
			_, ok := g.Doc.Epoch(f)
			return ok && g.Doc.Writer == policies.AuthorID(writer) && g.live(f) && o.now().Unix() < g.Doc.Expires
		})
	})
}

// formerWrite is a field that a source could write before a specification was answered, and the terms of that.
type formerWrite struct {
	Field policies.Field `json:"field"`
	Terms terms          `json:"terms"`
}

// mayWriteNow is what somebody may write of some fields.
func (o *Owner) mayWriteNow(writer policies.IdentityID, fields []policies.Field) (out []formerWrite) {
	for _, f := range fields {
		if g := o.newestWrite(writer, f); g != nil {
			out = append(out, formerWrite{f, terms{Purpose: g.Doc.Purpose, NotBefore: g.Doc.NotBefore, Expires: g.Doc.Expires}})
		}
	}
	return out
}

// noteFormer keeps what a source could write before, when the permission that an answer gives it is made: with what other devices decided until then.
func (o *Owner) noteFormer(t *task) {
	for i := range o.state.Mail.Inbox {
		if e := &o.state.Mail.Inbox[i]; e.Decided != "" && e.State == "" && e.Stroke == t.Stroke && t.Renews.IsZero() {
			e.Former = o.mayWriteNow(policies.IdentityID(t.Reader), e.Fields)
		}
	}
}

// newestWrite is the newest permission by which somebody may write a field, or nil if that is over.
func (o *Owner) newestWrite(writer policies.IdentityID, f policies.Field) *ownedWriteGrant {
	g := o.writeGrantOf(policies.AuthorID(writer), f)
	if g == nil || o.now().Unix() >= g.Doc.Expires {
		return nil
	}
	return g
}

// takeBackWrite plans the end of what a source was let write, of some fields, for an answer whose grant was refused or stopped: half of an answer is worse than none. What it could write before stays, on
// the terms of then. It reports whether there is anything to be done; the caller saves, and runs.
func (o *Owner) takeBackWrite(e *inboxEntry, r *consent.Request, source policies.IdentityID, fields []policies.Field) bool {
	if source.IsZero() {
		return false
	}
	stroke := policies.NewDocumentID()
	var ends []policies.Field
	before := len(o.state.Tasks)
	for _, f := range fields {
		g := o.newestWrite(source, f)
		if g == nil || g.Doc.Expires != e.Until || g.Doc.Purpose != r.Purpose.Text { // the other permission is none of this answer's
			continue
		}
		if at := slices.IndexFunc(e.Former, func(w formerWrite) bool { return w.Field == f }); at >= 0 {
			o.state.Tasks = append(o.state.Tasks, task{
				Kind: taskFollow, Stroke: stroke, Reader: policies.ReaderID(source), Fields: []policies.Field{f}, Terms: e.Former[at].Terms, Renews: g.Hash,
			})
			continue
		}
		ends = append(ends, f)
	}
	if len(ends) > 0 {
		o.state.Tasks = slices.Insert(o.state.Tasks, 0, task{
			Kind: taskEndWrite, Stroke: stroke, Reader: policies.ReaderID(source), Fields: ends, Terms: e.terms(r), Wished: e.decided(r), Reason: policies.ReasonWithdrawn,
		})
	}
	return len(o.state.Tasks) > before
}

// tellSource makes the order for a specification that was granted, and hands it, sealed to the source, to the requester. The caller saves.
func (o *Owner) tellSource(e *inboxEntry, r *consent.Request, source policies.IdentityID) error {
	s, ok := o.contact(policies.ReaderID(source))
	if !ok {
		return ErrNoContact
	}
	c, ok := o.contact(policies.ReaderID(r.From))
	if !ok {
		return ErrNoContact
	}
	theirs, err := s.identity()
	if err != nil {
		return err
	}
	to, err := c.identity()
	if err != nil {
		return err
	}
	order, sealed, err := seal[deposit.Order](o.device, theirs, &deposit.Order{
		Addressed: o.address("deposit-order", source, e.Hash, answerLife), Requester: r.From, Specification: e.Raw, Fields: e.Fields, Until: e.Until, Nonce: policies.NewNonce(),
	})
	if err != nil {
		return err
	}
	slip, letter, err := seal[deposit.Slip](o.device, to, &deposit.Slip{
		Addressed: o.address("deposit-slip", r.From, e.Hash, answerLife), Source: source, Order: policies.Hash(order.Hash), Sealed: sealed.Sealed,
	})
	if err != nil {
		return err
	}
	o.state.Mail.Outbox = append(o.state.Mail.Outbox, outgoingOf(slip, letter, to))
	return nil
}

// Specify asks an owner who is a contact for fields that a source, whom this reader looked up, is to deposit: [Reader.Ask] besides.
func (r *Reader) Specify(ctx context.Context, owner policies.OwnerID, source policies.IdentityID, ask Ask) (Consent, error) {
	if _, err := r.Party(source.String()); err != nil {
		return Consent{}, err
	}
	return r.askFor(ctx, owner, source, ask)
}

// takeSlip keeps an order that is for the source of a specification of this reader's. The caller holds mu.
func (r *Reader) takeSlip(d *deposit.Slip, e *envelope.Envelope) error {
	entry, request, err := r.asked(d.Answers)
	if err != nil {
		return err
	}
	_, source, err := readRequest(entry.Raw)
	if err != nil {
		return err
	}
	switch {
	case request.To != d.From || source.IsZero():
		return policies.CodeNotAsked
	case source != d.Source:
		return policies.CodeSource
	case entry.Slip != nil:
		return fmt.Errorf("%w: another order for it came before", policies.CodeAnswered)
	}
	entry.Slip = e.Raw
	r.happened(ConsentEvent{Kind: EventSlip, Owner: policies.OwnerID(d.From), Request: request.ID})
	return nil
}

// own finds a request of this reader's by the beginning of its id. The caller holds mu.
func (r *Reader) own(id string) (*askedEntry, *consent.Request, policies.IdentityID, error) {
	var found *askedEntry
	var request *consent.Request
	var source policies.IdentityID
	for i := range r.state.Mail.Asked {
		e := &r.state.Mail.Asked[i]
		d, s, err := readRequest(e.Raw)
		if err != nil || !begins(d.ID, id) {
			continue
		}
		if found != nil {
			return nil, nil, source, fmt.Errorf("%w: more than one request begins with %q", policies.ErrMalformed, id)
		}
		found, request, source = e, d, s
	}
	if found == nil {
		return nil, nil, source, fmt.Errorf("%w: %q", policies.CodeNotAsked, id)
	}
	return found, request, source, nil
}

// slip reads the order that came for a specification. It was verified when it came.
func (e *askedEntry) slip() (*deposit.Slip, error) {
	if e.Slip == nil {
		return nil, fmt.Errorf("%w: the customer has not sent an order for it", policies.CodeNotAsked)
	}
	env, err := envelope.Parse(e.Slip)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	return policies.Decode[deposit.Slip](env)
}

// Forward hands the order for a specification, named by its id or the first digits of it, to the source. Doing it again sends it again: the source takes it once.
func (r *Reader) Forward(ctx context.Context, id string) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	e, request, source, err := r.own(id)
	var slip *deposit.Slip
	if err == nil {
		slip, err = e.slip()
	}
	r.mu.Unlock()
	if err != nil {
		return err
	}
	to, err := r.party(ctx, source)
	if err != nil {
		return err
	}
	letters, err := r.introduceSelf(ctx, source, to, request.Purpose.Text)
	if err != nil {
		return err
	}
	_, letter, err := seal[deposit.Forward](r.device, to, &deposit.Forward{
		Addressed: r.address("deposit-forward", source, slip.Answers, answerLife), Customer: slip.From, Order: slip.Order, Sealed: slip.Sealed,
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.state.Mail.Outbox = append(append(r.state.Mail.Outbox, letters...), letter)
	if e, _, _, err = r.own(id); err == nil {
		e.Forwarded = true
		err = r.saveLocked()
	}
	r.mu.Unlock()
	if err != nil {
		return err
	}
	return r.sendAll(ctx)
}

// orderEntry is an order that a source has, and what it carried out.
type orderEntry struct {
	Hash          policies.Hash       `json:"hash"`
	Specification policies.Hash       `json:"specification"`
	ID            policies.DocumentID `json:"id"` // of the specification
	Raw           jsontext.Value      `json:"raw"`
	Name          string              `json:"name,omitzero"` // what the requester calls itself
	Deposits      []depositEntry      `json:"deposits,omitzero"`
}

// depositEntry is a field that was deposited, or is about to be.
type depositEntry struct {
	Field policies.Field `json:"field"`
	Plain policies.Hash  `json:"plain"`          // of the value
	Value []byte         `json:"value,omitzero"` // with its attestation, until it is written
	Done  bool           `json:"done,omitzero"`  // the vault has accepted it
}

// order reads a stored order and the specification in it. Both were verified when they came.
func (e *orderEntry) order() (*deposit.Order, *deposit.Specification, error) {
	env, err := envelope.Parse(e.Raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	d, err := policies.Decode[deposit.Order](env)
	if err != nil {
		return nil, nil, err
	}
	if env, err = envelope.Parse(d.Specification); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	s, err := policies.Decode[deposit.Specification](env)
	return d, s, err
}

// takeForward takes an order in, from the requester whom it names: signed by a customer of this reader's, over a specification that the requester signed, and not known yet.
func (r *Reader) takeForward(ctx context.Context, m *api.Message, e *envelope.Envelope) error {
	f, requester, err := stranger[deposit.Forward](ctx, r, m, e)
	if err != nil {
		return err
	}
	from, err := r.sender(ctx, f.Customer)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	inner := &api.Message{From: f.Customer, To: r.id, Type: "deposit-order", Sealed: f.Sealed}
	env, err := r.unseal(inner)
	if err != nil {
		return err
	}
	d, err := verify[deposit.Order](r.device, inner, env, from)
	if err != nil {
		return err
	}
	if policies.Hash(env.Hash) != f.Order || d.Answers != f.Answers {
		return policies.CodeSpecification
	}
	if err := d.Check(m.From, r.now()); err != nil {
		return err
	}
	key, err := requester.Key()
	if err != nil {
		return err
	}
	s, err := d.Match(key)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(r.state.Mail.Orders, func(o orderEntry) bool { return o.Hash == policies.Hash(env.Hash) || o.Specification == d.Answers }) {
		return policies.CodeOrderUsed
	}
	r.state.Mail.Orders = append(r.state.Mail.Orders, orderEntry{Hash: policies.Hash(env.Hash), Specification: d.Answers, ID: s.ID, Raw: env.Raw, Name: requester.Name})
	r.happened(ConsentEvent{Kind: EventOrder, Owner: policies.OwnerID(d.From), Request: s.ID, Fields: d.Fields, Until: time.Unix(d.Until, 0).UTC()})
	return nil
}

// Order is what a customer orders this reader, as a source, to deposit for a requester.
type Order struct {
	ID        policies.DocumentID  `json:"auth_req_id"` // of the requester's specification
	Customer  policies.OwnerID     `json:"customer"`
	Alias     string               `json:"alias,omitzero"` // this reader's own name for the customer
	Requester policies.IdentityID  `json:"requester"`
	Name      string               `json:"name,omitzero"`         // what the requester calls itself: UNVERIFIED
	Asked     []consent.AskedField `json:"authorization_details"` // those that the customer lets this source deposit
	Purpose   consent.Purpose      `json:"purpose"`
	Until     time.Time            `json:"until"` // when the permission to write ends
	Deposited []policies.Field     `json:"deposited,omitempty"`
}

// Orders lists the orders that came, oldest first.
func (r *Reader) Orders() []Order {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []Order{}
	for i := range r.state.Mail.Orders {
		e := &r.state.Mail.Orders[i]
		d, s, err := e.order()
		if err != nil {
			continue
		}
		o := Order{ID: e.ID, Customer: policies.OwnerID(d.From), Requester: d.Requester, Name: e.Name, Purpose: s.Purpose, Until: time.Unix(d.Until, 0).UTC()}
		for _, f := range s.Fields {
			if slices.Contains(d.Fields, f.Field) {
				o.Asked = append(o.Asked, f)
			}
		}
		o.Alias = r.alias(o.Customer)
		for _, done := range e.Deposits {
			if done.Done {
				o.Deposited = append(o.Deposited, done.Field)
			}
		}
		out = append(out, o)
	}
	return out
}

// ordered finds an order by the beginning of its specification's id. The caller holds mu.
func (r *Reader) ordered(id string) (*orderEntry, error) {
	var found *orderEntry
	for i := range r.state.Mail.Orders {
		if e := &r.state.Mail.Orders[i]; begins(e.ID, id) {
			if found != nil {
				return nil, fmt.Errorf("%w: more than one order begins with %q", policies.ErrMalformed, id)
			}
			found = e
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: %q", policies.CodeNotAsked, id)
	}
	return found, nil
}

// Deposit carries an order out, named by its specification's id or the first digits of it: each value is attested, and written for the customer under the customer's write
// grant, whether or not the customer is there. Each field of an order is deposited once. Killed anywhere, the same call goes on, with the same attestation.
func (r *Reader) Deposit(ctx context.Context, id string, values ...Change) error {
	r.mu.Lock()
	e, err := r.ordered(id)
	if err != nil {
		r.mu.Unlock()
		return err
	}
	customer, changes, err := r.attest(e, values)
	if err == nil {
		err = r.saveLocked()
	}
	r.mu.Unlock()
	if err != nil {
		return err
	}
	err = r.Write(ctx, customer, changes...)
	if err != nil && !final(err) {
		return err // kept: the same call goes on
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, orderErr := r.ordered(id); orderErr == nil {
		for i := range e.Deposits {
			if d := &e.Deposits[i]; !d.Done && slices.ContainsFunc(changes, func(c Change) bool { return c.Field == d.Field }) {
				clear(d.Value)
				d.Value, d.Done = nil, err == nil
			}
		}
		e.Deposits = slices.DeleteFunc(e.Deposits, func(d depositEntry) bool { return !d.Done && d.Value == nil }) // refused for good
	}
	return errors.Join(err, r.saveLocked())
}

// attest wraps values with attestations, once for each field of an order. The caller holds mu, and saves.
func (r *Reader) attest(e *orderEntry, values []Change) (customer policies.OwnerID, changes []Change, err error) {
	d, s, err := e.order()
	if err != nil {
		return customer, nil, err
	}
	if r.now().Unix() >= d.Until {
		return customer, nil, policies.CodeWriteEnded
	}
	customer = policies.OwnerID(d.From)
	begun := func(f policies.Field) int {
		return slices.IndexFunc(e.Deposits, func(have depositEntry) bool { return have.Field == f })
	}
	for _, v := range values { // what is refused for one field uses up no other
		if !slices.Contains(d.Fields, v.Field) {
			return customer, nil, fmt.Errorf("%w: %s", policies.CodeTooWide, v.Field)
		}
		if at := begun(v.Field); at >= 0 && (e.Deposits[at].Done || e.Deposits[at].Plain != sha256.Sum256(v.Value)) {
			return customer, nil, fmt.Errorf("%w: %s", policies.CodeOrderUsed, v.Field)
		}
	}
	for _, v := range values {
		plain := policies.Hash(sha256.Sum256(v.Value))
		at := begun(v.Field)
		if at < 0 {
			a, err := policies.Sign(r.signing, &deposit.Attestation{
				Header: policies.NewHeader("deposit-attestation", r.now()), Source: r.id, Owner: customer, Requester: s.From, Field: v.Field,
				Specification: d.Answers, Order: e.Hash, Value: plain,
			})
			if err != nil {
				return customer, nil, err
			}
			wrapped, err := deposit.Wrap(v.Value, a)
			if err != nil {
				return customer, nil, err
			}
			e.Deposits = append(e.Deposits, depositEntry{Field: v.Field, Plain: plain, Value: wrapped})
			at = len(e.Deposits) - 1
		}
		changes = append(changes, Change{Field: v.Field, Value: bytes.Clone(e.Deposits[at].Value)})
	}
	return customer, changes, nil
}

// Attested is a value that a source deposited, with its attestation.
type Attested struct {
	Value
	Source      policies.IdentityID
	Attestation jsontext.Value // envelope
	Time        time.Time      // when the source attested it, by its clock
}

// Collect reads what the source deposited for a specification of this reader's, named by its id or the first digits of it. A value without an attestation by that source, for this very
// specification, field and value, is an error, and not handed out.
func (r *Reader) Collect(ctx context.Context, id string) ([]Attested, error) {
	if err := r.ready(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	e, request, source, err := r.own(id)
	var slip *deposit.Slip
	if err == nil {
		slip, err = e.slip()
	}
	if err != nil {
		r.mu.Unlock()
		return nil, err
	}
	spec, hash := &deposit.Specification{Request: *request, Source: source}, e.Hash
	var items []Item
	for _, f := range e.Fields {
		items = append(items, Item{Owner: policies.OwnerID(request.To), Field: f})
	}
	r.mu.Unlock()
	if len(items) == 0 {
		return nil, policies.CodeNoGrant
	}
	identity, err := r.party(ctx, source)
	if err != nil {
		return nil, err
	}
	key, err := identity.Key()
	if err != nil {
		return nil, err
	}
	values, err := r.Read(ctx, items...)
	if err != nil {
		return nil, err
	}
	out := make([]Attested, len(values))
	for i := range values {
		out[i] = Attested{Value: values[i], Source: source}
		v := &out[i]
		if v.Err != nil {
			continue
		}
		var value []byte
		if value, v.Attestation, v.Time, v.Err = attestedBy(key, spec, hash, slip.Order, v.Field, v.Bytes); v.Err != nil {
			value = nil
		}
		v.Bytes = value
	}
	return out, nil
}

// attestedBy takes a deposited value apart and verifies its attestation under the source's key.
func attestedBy(key envelope.Verifier, s *deposit.Specification, specification, order policies.Hash, f policies.Field, data []byte) ([]byte, jsontext.Value, time.Time, error) {
	value, e, err := deposit.Unwrap(data)
	if err != nil {
		return nil, nil, time.Time{}, fmt.Errorf("%w: %w", policies.CodeAttestation, err)
	}
	claim, err := policies.Decode[deposit.Attestation](e)
	if err != nil {
		return nil, nil, time.Time{}, fmt.Errorf("%w: %w", policies.CodeAttestation, err)
	}
	if err := e.Verify(key); err != nil {
		return nil, nil, time.Time{}, fmt.Errorf("%w: %w", policies.CodeSource, err)
	}
	if err := claim.Check(s, specification, order, f, value); err != nil {
		return nil, nil, time.Time{}, err
	}
	return value, e.Raw, time.Unix(claim.Time, 0).UTC(), nil
}
