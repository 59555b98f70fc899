package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	"github.com/sallyport/sallyport/policies/deposit"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/storefront/api"
)

// readerMail is what a reader keeps of messages.
type readerMail struct {
	Asked     []askedEntry    `json:"asked,omitzero"` // oldest first
	Outbox    []api.Message   `json:"outbox,omitzero"`
	Deletions []policies.Hash `json:"deletions,omitzero"` // requests for deletion that were taken, the newest ones
	Events    []ConsentEvent  `json:"events,omitzero"`    // the newest ones
	Last      uint64          `json:"last,omitzero"`      // number of the newest event
	Delivered uint64          `json:"delivered,omitzero"` // number of the last event that a listener took

	Introductions []introducedParty `json:"introductions,omitzero"` // the newest ones, oldest first
	Parties       []knownParty      `json:"parties,omitzero"`
	Orders        []orderEntry      `json:"orders,omitzero"` // to this reader as a source, oldest first
}

// askedEntry is a request of this reader's and what became of it.
type askedEntry struct {
	Hash    policies.Hash    `json:"hash"`
	Raw     jsontext.Value   `json:"raw"`
	State   consent.State    `json:"state,omitzero"` // empty: not answered
	Fields  []policies.Field `json:"fields,omitzero"`
	Until   int64            `json:"until,omitzero"`
	Answers []exchanged      `json:"answers,omitzero"`

	Slip      jsontext.Value `json:"slip,omitzero"` // of a specification: envelope of the order's
	Forwarded bool           `json:"forwarded,omitzero"`
}

// keptEvents and keptDeletions bound what is kept of each.
const (
	keptEvents    = 100_000
	keptDeletions = 10_000
)

// Kinds of a [ConsentEvent].
const (
	EventConsent  = "consent"    // a request was answered, or an answer withdrawn
	EventDeletion = "deletion"   // an owner asks that what was read be deleted
	EventAccepted = "invitation" // somebody accepted an invitation and is a contact now
	EventOrder    = "order"      // a customer orders this reader, as a source, to deposit fields
	EventSlip     = "slip"       // the sealed order for a specification of this reader's came, to be forwarded
)

// ConsentEvent is something that came by message. Numbers ascend by one; they are this device's own.
type ConsentEvent struct {
	Number  uint64              `json:"number"`
	Time    time.Time           `json:"time"` // when it was taken, by this device's clock
	Kind    string              `json:"kind"`
	Owner   policies.OwnerID    `json:"owner"`
	Alias   string              `json:"reference,omitzero"` // this reader's own name for the owner
	Request policies.DocumentID `json:"auth_req_id,omitzero"`
	Status  consent.State       `json:"status,omitzero"`
	Fields  []policies.Field    `json:"fields,omitempty"` // granted now; of a deletion, to be deleted; of an order, to be deposited
	Until   time.Time           `json:"until,omitzero"`

	Invitation string `json:"invitation,omitzero"` // the reference of the invitation that was accepted
}

func (e *askedEntry) request() (*consent.Request, error) {
	return (&inboxEntry{Raw: e.Raw}).request()
}

func (e *askedEntry) state(r *consent.Request, now time.Time) consent.State {
	return (&inboxEntry{State: e.State}).state(r, now)
}

// Ask are the terms of a request for consent.
type Ask struct {
	Fields   []consent.AskedField
	Purpose  consent.Purpose
	Duration time.Duration // for how long, from the answer on
	Waits    time.Duration // how long the owner has to answer; zero: 30 days
}

// Ask asks an owner who is a contact for fields. The request is saved and sent; if the storefront cannot be reached the next Receive sends it. What was denied or withdrawn
// less than [consent.Quiet] ago is not asked for again.
func (r *Reader) Ask(ctx context.Context, owner policies.OwnerID, ask Ask) (Consent, error) {
	return r.askFor(ctx, owner, policies.IdentityID{}, ask)
}

func (r *Reader) askFor(ctx context.Context, owner policies.OwnerID, source policies.IdentityID, ask Ask) (Consent, error) {
	if err := r.ready(ctx); err != nil {
		return Consent{}, err
	}
	to, err := r.newestOf(ctx, owner)
	if err != nil {
		return Consent{}, err
	}
	if ask.Waits == 0 {
		ask.Waits = 30 * 24 * time.Hour
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.state.Mail.Asked {
		e := &r.state.Mail.Asked[i]
		before, err := e.request()
		if err != nil || policies.OwnerID(before.To) != owner || len(e.Answers) == 0 {
			continue
		}
		old := inboxEntry{State: e.State, Answers: e.Answers}
		if old.denies(before, &consent.Request{Fields: ask.Fields}, r.now()) {
			return Consent{}, policies.CodeAskedAgain
		}
	}
	if r.tookBack(owner, ask.Fields) {
		return Consent{}, policies.CodeAskedAgain
	}
	k, met := r.owner(owner)
	if !met {
		return Consent{}, ErrNoContact
	}
	request := consent.Request{
		Addressed: r.address("consent-request", policies.IdentityID(owner), policies.Hash{}, ask.Waits), Fields: ask.Fields, Purpose: ask.Purpose,
		Duration: int64(ask.Duration / time.Second), Nonce: policies.NewNonce(), Invitation: k.contact.Newest(),
	}
	var e *envelope.Envelope
	var letter api.Message
	if source.IsZero() {
		e, letter, err = seal[consent.Request](r.device, to, &request)
	} else {
		request.Type = "data-specification"
		e, letter, err = seal[deposit.Specification](r.device, to, &deposit.Specification{Request: request, Source: source})
	}
	if err != nil {
		return Consent{}, err
	}
	r.state.Mail.Asked = append(r.state.Mail.Asked, askedEntry{Hash: policies.Hash(e.Hash), Raw: e.Raw})
	r.state.Mail.Outbox = append(r.state.Mail.Outbox, letter)
	c, err := r.consent(&r.state.Mail.Asked[len(r.state.Mail.Asked)-1])
	if err == nil {
		err = r.saveLocked()
	}
	if err != nil {
		return c, err
	}
	r.mu.Unlock()
	err = r.sendAll(ctx)
	r.mu.Lock()
	return c, err
}

// tookBack reports whether an owner, not long ago, demanded that one of some fields be deleted: they took it back, also if this reader had it without having asked. The caller holds mu.
func (r *Reader) tookBack(owner policies.OwnerID, fields []consent.AskedField) bool {
	for _, e := range slices.Backward(r.state.Mail.Events) {
		if !quiet(e.Time.Unix(), r.now()) { // and all before it
			return false
		}
		if e.Kind == EventDeletion && e.Owner == owner && asksFor(fields, e.Fields) {
			return true
		}
	}
	return false
}

func (r *Reader) consent(e *askedEntry) (Consent, error) {
	d, source, err := readRequest(e.Raw)
	if err != nil {
		return Consent{}, err
	}
	c := Consent{
		ID: d.ID, Source: source, Request: e.Hash, Party: d.To, Status: e.state(d, r.now()), Asked: d.Fields, Purpose: d.Purpose, Duration: d.Duration,
		Time: time.Unix(d.Time, 0).UTC(), Expires: time.Unix(d.Expires, 0).UTC(), Fields: e.Fields, Receipts: receipts(e.Answers),
	}
	if len(e.Fields) > 0 {
		c.Until = time.Unix(e.Until, 0).UTC()
	}
	switch {
	case e.Forwarded:
		c.Order = "forwarded"
	case e.Slip != nil:
		c.Order = "here"
	}
	for _, p := range r.state.Mail.Parties {
		if p.ID == source {
			c.SourceAlias = p.Alias
		}
	}
	c.Alias = r.alias(policies.OwnerID(d.To))
	return c, nil
}

// Consents lists what this reader asked for, oldest first.
func (r *Reader) Consents() []Consent {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []Consent{}
	for i := range r.state.Mail.Asked {
		if c, err := r.consent(&r.state.Mail.Asked[i]); err == nil {
			out = append(out, c)
		}
	}
	return out
}

// Await receives until a request, named by its id or the first digits of it, is answered or expires, or ctx ends.
func (r *Reader) Await(ctx context.Context, id string) (Consent, error) {
	for {
		var found []Consent
		for _, c := range r.Consents() {
			if begins(c.ID, id) {
				found = append(found, c)
			}
		}
		switch {
		case len(found) == 0:
			return Consent{}, fmt.Errorf("%w: %q", policies.CodeNotAsked, id)
		case len(found) > 1:
			return Consent{}, fmt.Errorf("%w: more than one request begins with %q", policies.ErrMalformed, id)
		case found[0].Status != consent.Pending:
			return found[0], nil
		}
		wait := max(min(time.Until(found[0].Expires), api.MaxMessageWait), time.Second)
		if end, ok := ctx.Deadline(); ok {
			wait = max(min(time.Until(end)-time.Second, wait), 0)
		}
		if _, err := r.Receive(ctx, wait); err != nil {
			return found[0], err
		}
	}
}

// Receive sends what waits to be sent, fetches messages, waiting at most so long for one, and answers what asks for it. It returns when something came or the
// time is over.
func (r *Reader) Receive(ctx context.Context, wait time.Duration) (Mail, error) {
	if err := r.ready(ctx); err != nil {
		return Mail{}, err
	}
	if err := r.sendAll(ctx); err != nil {
		return Mail{}, err
	}
	mail, err := r.collectMail(ctx, wait, r.takeMail, r.save)
	if err != nil {
		return mail, err
	}
	return mail, r.sendAll(ctx)
}

// sendAll sends the outbox in its order.
func (r *Reader) sendAll(ctx context.Context) error {
	r.mailMu.Lock() // one sends for all
	defer r.mailMu.Unlock()
	for {
		r.mu.Lock()
		if len(r.state.Mail.Outbox) == 0 {
			r.mu.Unlock()
			return nil
		}
		next := r.state.Mail.Outbox[0]
		r.mu.Unlock()
		if err := r.send(ctx, &next); temporary(err) || errors.Is(err, errNotIn) {
			return err
		}
		r.mu.Lock()
		r.state.Mail.Outbox = slices.Delete(r.state.Mail.Outbox, 0, 1)
		err := r.saveLocked()
		r.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// takeMail takes one message in. What it changes is saved after it.
func (r *Reader) takeMail(ctx context.Context, m *api.Message) error {
	e, err := r.unseal(m)
	if err != nil {
		return err
	}
	switch m.Type { // what a stranger may send
	case "invitation-answer":
		d, _, err := stranger[consent.Acceptance](ctx, r, m, e)
		if err != nil {
			return err
		}
		return r.takeAcceptance(ctx, d)
	case "introduction":
		return r.takeIntroduction(ctx, m, e)
	case "deposit-forward":
		return r.takeForward(ctx, m, e)
	}
	from, err := r.sender(ctx, m.From)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch m.Type {
	case "consent-answer":
		a, err := verify[consent.Answer](r.device, m, e, from)
		if err != nil {
			return err
		}
		return r.takeAnswer(a, e, from)
	case "consent-receipt":
		d, err := verify[consent.Receipt](r.device, m, e, from)
		if err != nil {
			return err
		}
		entry, request, err := r.asked(d.Record)
		if err != nil {
			return err
		}
		return keepReceipt(entry.Answers, request, entry.Hash, d, e)
	case "deletion-request":
		d, err := verify[consent.Deletion](r.device, m, e, from)
		if err != nil {
			return err
		}
		return r.takeDeletion(d, e)
	case "deposit-slip":
		d, err := verify[deposit.Slip](r.device, m, e, from)
		if err != nil {
			return err
		}
		return r.takeSlip(d, e)
	}
	return fmt.Errorf("%w: a message that this program does not know", policies.ErrMalformed)
}

// asked finds a request of this reader's. The caller holds mu.
func (r *Reader) asked(hash policies.Hash) (*askedEntry, *consent.Request, error) {
	for i := range r.state.Mail.Asked {
		if e := &r.state.Mail.Asked[i]; e.Hash == hash {
			d, err := e.request()
			return e, d, err
		}
	}
	return nil, nil, policies.CodeNotAsked
}

func (r *Reader) takeAnswer(a *consent.Answer, e *envelope.Envelope, from *policies.Identity) error {
	entry, request, err := r.asked(a.Answers)
	if err != nil {
		return err
	}
	hash := policies.Hash(e.Hash)
	if slices.ContainsFunc(entry.Answers, func(x exchanged) bool { return x.Hash == hash }) {
		return fmt.Errorf("%w: an answer came again", policies.CodeReplay)
	}
	state, fields, err := request.Accept(entry.Hash, entry.state(request, r.now()), entry.Fields, a)
	if err != nil {
		return err
	}
	receipt, letter, err := seal[consent.Receipt](r.device, from, consent.NewReceipt(r.id, request, entry.Hash, a, hash, r.now()))
	if err != nil {
		return err
	}
	if a.Until != 0 {
		entry.Until = a.Until
	}
	entry.State, entry.Fields = state, fields
	entry.Answers = append(entry.Answers, exchanged{Hash: hash, Answer: e.Raw, Ours: receipt.Raw})
	r.state.Mail.Outbox = append(r.state.Mail.Outbox, letter)
	event := ConsentEvent{Kind: EventConsent, Owner: policies.OwnerID(a.From), Request: request.ID, Status: state, Fields: fields}
	if len(fields) > 0 {
		event.Until = time.Unix(entry.Until, 0).UTC()
	}
	r.happened(event)
	return nil
}

func (r *Reader) takeDeletion(d *consent.Deletion, e *envelope.Envelope) error {
	hash := policies.Hash(e.Hash)
	if slices.Contains(r.state.Mail.Deletions, hash) {
		return fmt.Errorf("%w: a request for deletion came again", policies.CodeReplay)
	}
	event := ConsentEvent{Kind: EventDeletion, Owner: policies.OwnerID(d.From), Fields: d.Fields}
	if _, request, err := r.asked(d.Answers); err == nil { // else another device of this reader asked for it, or nobody did
		event.Request = request.ID
	}
	r.state.Mail.Deletions = append(r.state.Mail.Deletions, hash)
	if n := len(r.state.Mail.Deletions) - keptDeletions; n > 0 {
		r.state.Mail.Deletions = slices.Delete(r.state.Mail.Deletions, 0, n)
	}
	r.happened(event)
	return nil
}

// happened numbers an event. The caller holds mu.
func (r *Reader) happened(e ConsentEvent) {
	r.state.Mail.Last++
	e.Number, e.Time = r.state.Mail.Last, r.now().UTC().Truncate(time.Second)
	r.state.Mail.Events = append(r.state.Mail.Events, e)
	if n := len(r.state.Mail.Events) - keptEvents; n > 0 {
		r.state.Mail.Events = slices.Delete(r.state.Mail.Events, 0, n)
	}
}

// Events are the kept events after a number, oldest first.
func (r *Reader) Events(after uint64) []ConsentEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []ConsentEvent
	for _, e := range r.state.Mail.Events {
		if e.Number <= after {
			continue
		}
		e.Alias = r.alias(e.Owner)
		out = append(out, e)
	}
	return out
}

// Delivered is the number of the last event that a listener took, and SetDelivered notes it.
func (r *Reader) Delivered() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Mail.Delivered
}

// SetDelivered notes, and saves, how far a listener got.
func (r *Reader) SetDelivered(number uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Mail.Delivered = number
	return r.saveLocked()
}

// Invite makes an invitation for the person whom this reader knows under a reference, usable until expires (by whole seconds). The same reference and end give the
// same link, so no list of invitations need be kept ([pre.Root.Invitation]).
func (r *Reader) Invite(reference string, expires time.Time) (links.Invite, error) {
	if err := links.CheckReference(reference); err != nil {
		return links.Invite{}, err
	}
	return links.Invite{Reader: r.id, Token: r.root.Invitation(r.ID(), reference, uint64(expires.Unix()))}, nil
}

// openInvitation reads a token of this reader's.
func (r *Reader) openInvitation(token []byte) (reference string, expires time.Time, err error) {
	reference, end, err := r.root.OpenInvitation(r.ID(), token)
	if err != nil {
		return "", expires, policies.CodeInvitation
	}
	return reference, time.Unix(int64(end), 0), nil
}

// takeAcceptance makes a contact of who accepted an invitation, by its reference. Each invitation serves one owner; an owner may accept several.
func (r *Reader) takeAcceptance(ctx context.Context, d *consent.Acceptance) error {
	reference, expires, err := r.openInvitation(d.Invitation)
	if err != nil {
		return err
	}
	if d.Time >= expires.Unix() || r.now().Add(-answerLife).After(expires) {
		return fmt.Errorf("%w: it ended on %s", policies.CodeInvitation, expires.UTC().Format(time.DateOnly))
	}
	owner, id := policies.OwnerID(d.From), policies.HashKey(d.Invitation)
	r.mu.Lock()
	who, used := r.book.Came(id)
	r.mu.Unlock()
	if used && who != owner {
		return fmt.Errorf("%w: %s is somebody else already", policies.CodeInvitation, reference)
	}
	if err := r.freeAlias(reference, owner); err != nil {
		return fmt.Errorf("%w: %w", policies.CodeInvitation, err)
	}
	_, doc, err := r.identity(ctx, d.From)
	if err != nil {
		return err
	}
	if _, err := r.meet(owner, d.Nonce, reference, id, doc); err != nil {
		return err
	}
	return r.ready(ctx)
}

// Invited tells what became of an invitation: accepted, expired or open.
func (r *Reader) Invited(link links.Invite) (status, reference string, err error) {
	reference, expires, err := r.openInvitation(link.Token)
	if err != nil || link.Reader != r.id {
		return "", "", policies.CodeInvitation
	}
	id := policies.HashKey(link.Token)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, used := r.book.Came(id); used {
		return "accepted", reference, nil
	}
	if !r.now().Before(expires) {
		return "expired", reference, nil
	}
	return "open", reference, nil
}
