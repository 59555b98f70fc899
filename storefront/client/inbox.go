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
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/storefront/api"
)

// ownerMail is what an owner's device keeps of messages.
type ownerMail struct {
	Inbox   []inboxEntry          `json:"inbox,omitzero"` // oldest first
	Outbox  []outgoing            `json:"outbox,omitzero"`
	Stops   []stop                `json:"stops,omitzero"`
	Invited []invited             `json:"invited,omitzero"`
	Taken   []takenBack           `json:"taken,omitzero"` // of the last [consent.Quiet]
	Muted   []policies.IdentityID `json:"muted,omitzero"`
	Blocked []policies.IdentityID `json:"blocked,omitzero"`
}

// inboxEntry is a request and how far it got: nothing; decided, with a grant on its way; answered.
type inboxEntry struct {
	Hash    policies.Hash       `json:"hash"`
	Raw     jsontext.Value      `json:"raw"` // the request's envelope, verified when it came
	Got     int64               `json:"got"`
	Hidden  bool                `json:"hidden,omitzero"`
	Decided consent.State       `json:"decided,omitzero"`
	Stroke  policies.DocumentID `json:"stroke,omitzero"` // of the grant
	Fields  []policies.Field    `json:"fields,omitzero"` // granted, or to be
	Until   int64               `json:"until,omitzero"`
	State   consent.State       `json:"state,omitzero"` // once answered
	Answers []exchanged         `json:"answers,omitzero"`
	Former  []formerWrite       `json:"former,omitzero"` // what the source could write before it was decided
}

// exchanged is an answer, and the receipts of both sides.
type exchanged struct {
	Hash   policies.Hash  `json:"hash"`
	Answer jsontext.Value `json:"answer"`
	Ours   jsontext.Value `json:"ours"`
	Theirs jsontext.Value `json:"theirs,omitzero"`
}

// stop is a reader that is being stopped and has not been told yet.
type stop struct {
	Reader policies.ReaderID `json:"reader"`
	Fields []policies.Field  `json:"fields"` // none: of everything, by a device that knew of nothing
}

func (s *stop) same(other stop) bool {
	return s.Reader == other.Reader && slices.Equal(s.Fields, other.Fields)
}

// takenBack is what a person took back from a reader.
type takenBack struct {
	Reader policies.ReaderID `json:"reader"`
	Fields []policies.Field  `json:"fields"`
	Time   int64             `json:"time"`
}

// quiet reports whether what was decided at a time is not asked for again yet. What a clock that was far ahead decided is not kept quiet until that time has come.
func quiet(at int64, now time.Time) bool {
	const most = int64(consent.Quiet / time.Second)
	passed := now.Unix() - at
	return -most < passed && passed < most
}

// asksFor reports whether one of some fields is asked for.
func asksFor(asked []consent.AskedField, fields []policies.Field) bool {
	return slices.ContainsFunc(asked, func(f consent.AskedField) bool { return slices.Contains(fields, f.Field) })
}

// invited is an invitation that was accepted and has not led to a contact yet.
type invited struct {
	Reader policies.IdentityID `json:"reader"`
	Nonce  policies.Nonce      `json:"nonce"`
	Alias  string              `json:"alias,omitzero"`
	Time   int64               `json:"time"`
	Token  policies.Hash       `json:"token,omitzero"` // hash of the invitation's
}

// Receipts are the signed receipts of a decision, newest last: envelopes.
type Receipts struct {
	Ours   []jsontext.Value `json:"ours,omitempty"`   // signed here, for the other side
	Theirs []jsontext.Value `json:"theirs,omitempty"` // signed by the other side
}

func receipts(list []exchanged) (out Receipts) {
	for i := range list {
		out.Ours = append(out.Ours, list[i].Ours)
		if list[i].Theirs != nil {
			out.Theirs = append(out.Theirs, list[i].Theirs)
		}
	}
	return out
}

// pendingOfOne is how many requests of one reader wait for an answer. A reader that asks more is not heard.
const pendingOfOne = 8

// answerLife is how long an answer, a receipt and a request for deletion wait for who they are for.
const answerLife = 60 * 24 * time.Hour

// request reads the stored request. It was verified when it came.
func (e *inboxEntry) request() (*consent.Request, error) {
	r, _, err := readRequest(e.Raw)
	return r, err
}

func (e *inboxEntry) state(r *consent.Request, now time.Time) consent.State {
	switch {
	case e.State != "":
		return e.State
	case r.Live(now) != nil && e.Decided == "":
		return consent.Expired
	}
	return consent.Pending
}

// Inbox lists requests for consent, oldest first: those that wait for an answer, or, with all, the answered, expired and hidden ones too.
func (o *Owner) Inbox(all bool) []Consent {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := []Consent{}
	for i := range o.state.Mail.Inbox {
		e := &o.state.Mail.Inbox[i]
		if c, err := o.consent(e); err == nil && (all || c.Status == consent.Pending && !e.Hidden) {
			out = append(out, c)
		}
	}
	return out
}

func (o *Owner) consent(e *inboxEntry) (Consent, error) {
	r, source, err := readRequest(e.Raw)
	if err != nil {
		return Consent{}, err
	}
	c := Consent{
		ID: r.ID, Source: source, Request: e.Hash, Party: r.From, Status: e.state(r, o.now()), Asked: r.Fields, Purpose: r.Purpose, Duration: r.Duration,
		Time: time.Unix(r.Time, 0).UTC(), Expires: time.Unix(r.Expires, 0).UTC(), Hidden: e.Hidden, Waits: e.Decided != "" && e.State == "", Receipts: receipts(e.Answers),
	}
	if e.State == consent.Granted || e.State == consent.Partly {
		c.Fields, c.Until = e.Fields, time.Unix(e.Until, 0).UTC()
	}
	if contact, ok := o.contact(policies.ReaderID(r.From)); ok {
		c.From = o.shown(contact)
		c.Alias, c.Name = c.From.Alias, c.From.Name
	}
	if contact, ok := o.contact(policies.ReaderID(source)); ok {
		c.SourceAlias = contact.Alias
	}
	return c, nil
}

// Receive fetches messages, finishes answers that were begun, and sends what waits to be sent.
func (o *Owner) Receive(ctx context.Context) (_ Mail, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	if err := o.catchUp(ctx); err != nil {
		return Mail{}, err
	}
	if err := o.run(ctx); err != nil {
		return Mail{}, err
	}
	if err := o.settleInvited(ctx); err != nil { // or the first request of a new contact would be a stranger's
		return Mail{}, err
	}
	mail, err := o.collectMail(ctx, 0, o.takeMail, o.keepMail)
	if err != nil {
		return mail, err
	}
	if err := o.settleMail(ctx); err != nil {
		return mail, err
	}
	o.lookAround(ctx)
	return mail, nil
}

// settleMail carries on with everything that a message is to follow from. It ends at the first error: what could not be saved is not sent.
func (o *Owner) settleMail(ctx context.Context) error {
	for _, next := range []func(context.Context) error{o.settleAnswers, o.sendAll, o.settleStops, o.sendAll} {
		if err := next(ctx); err != nil {
			return err
		}
	}
	return nil
}

// keepMail saves what was taken.
func (o *Owner) keepMail() error {
	o.forgetOld()
	if o.reader != nil {
		return o.reader.save() // which saves both
	}
	return o.save()
}

// sendAll sends the outbox in its order. [ErrEnded]: the account is closed, and nothing of it is sent any more.
func (o *Owner) sendAll(ctx context.Context) error {
	if o.reader != nil {
		if err := o.reader.sendAll(ctx); err != nil {
			return err
		}
	}
	for len(o.state.Mail.Outbox) > 0 {
		next := &o.state.Mail.Outbox[0]
		anew, refused := o.sealMessageAnew(ctx, next)
		switch {
		case refused == nil && anew:
			if err := o.save(); err != nil {
				return err
			}
		case refused != nil && !errors.Is(refused, policies.CodeClosed): // of whom it is for
			return refused
		}
		if refused == nil {
			refused = o.send(ctx, &next.Message)
		}
		switch {
		case errors.Is(refused, errNotIn):
			return o.afterClosing(ctx, refused)
		case temporary(refused):
			return refused
		} // what is refused for good is dropped: it will not be taken tomorrow either
		o.state.Mail.Outbox = slices.Delete(o.state.Mail.Outbox, 0, 1)
		if err := o.save(); err != nil {
			return err
		}
	}
	return nil
}

// forgetOld drops requests that were never answered and are long over.
func (o *Owner) forgetOld() {
	o.state.Mail.Inbox = slices.DeleteFunc(o.state.Mail.Inbox, func(e inboxEntry) bool {
		r, err := e.request()
		return e.Decided == "" && (err != nil || o.now().Unix() > r.Expires+int64(consent.Quiet/time.Second))
	})
	o.state.Mail.Invited = slices.DeleteFunc(o.state.Mail.Invited, func(i invited) bool {
		return o.now().Unix() > i.Time+int64(api.MaxMessageLife/time.Second)
	})
	o.state.Mail.Taken = slices.DeleteFunc(o.state.Mail.Taken, func(w takenBack) bool { return !quiet(w.Time, o.now()) })
}

// takeMail takes one message in. The caller saves.
func (o *Owner) takeMail(ctx context.Context, m *api.Message) error {
	if slices.Contains(o.state.Mail.Blocked, m.From) {
		return policies.CodeSender
	}
	switch m.Type {
	case "consent-answer", "deletion-request", "invitation-answer", "introduction":
		return o.takeAsReader(ctx, m)
	}
	c, ok := o.contact(policies.ReaderID(m.From))
	if !ok && m.Type == "consent-receipt" {
		return o.takeAsReader(ctx, m)
	}
	if !ok {
		return policies.CodeSender
	}
	from, err := c.identity()
	if err != nil {
		return err
	}
	e, err := o.unseal(m)
	for _, former := range o.held()[1:] {
		if err != nil {
			e, err = o.unsealWith(former.KEMSeed(), m)
		}
	}
	if err != nil {
		return err
	}
	switch m.Type {
	case "consent-request":
		r, err := verify[consent.Request](o.device, m, e, from)
		if err != nil {
			return err
		}
		if err := o.mayAsk(ctx, c, r); err != nil {
			return err
		}
		return o.takeRequest(r, e)
	case "data-specification":
		d, err := verify[deposit.Specification](o.device, m, e, from)
		if err != nil {
			return err
		}
		if _, ok := o.contact(policies.ReaderID(d.Source)); !ok {
			return fmt.Errorf("the source: %w", policies.CodeSender)
		}
		if err := o.mayAsk(ctx, c, &d.Request); err != nil {
			return err
		}
		return o.takeRequest(&d.Request, e)
	case "consent-receipt":
		r, err := verify[consent.Receipt](o.device, m, e, from)
		if err != nil {
			return err
		}
		if r.Principal != o.id { // of a request of this person's to another
			return o.takeAsReader(ctx, m)
		}
		return o.takeReceipt(r, e)
	}
	return fmt.Errorf("%w: a message that this program does not know", policies.ErrMalformed)
}

// mayAsk refuses a request of a contact that looks like another, and one that is not by the invitation that let the contact in. A contact that was met by codes needs none, nor
// does one that another device of this person met: this one does not know how.
func (o *Owner) mayAsk(ctx context.Context, c *readerContact, r *consent.Request) error {
	_ = o.renewVoucher(ctx, c) // who asks is shown as what is known now
	if err := o.refuseAlike(c); err != nil {
		return err
	}
	if len(c.Invitations) > 0 && !slices.Contains(c.Invitations, r.Invitation) {
		return policies.CodeNotInvited
	}
	return nil
}

func (o *Owner) takeRequest(r *consent.Request, e *envelope.Envelope) error {
	if err := r.Live(o.now()); err != nil {
		return err
	}
	waiting, hidden := 0, slices.Contains(o.state.Mail.Muted, r.From) || o.tookBack(r)
	for i := range o.state.Mail.Inbox {
		old := &o.state.Mail.Inbox[i]
		before, err := old.request()
		if err != nil || before.From != r.From {
			continue
		}
		if old.Hash == policies.Hash(e.Hash) || before.Nonce == r.Nonce || before.ID == r.ID {
			return fmt.Errorf("%w: a request came again", policies.CodeReplay)
		}
		if old.state(before, o.now()) == consent.Pending {
			waiting++
		}
		hidden = hidden || old.denies(before, r, o.now())
	}
	if waiting >= pendingOfOne {
		return fmt.Errorf("%w: %d requests of this reader wait already", policies.CodeAskedAgain, waiting)
	}
	o.state.Mail.Inbox = append(o.state.Mail.Inbox, inboxEntry{Hash: policies.Hash(e.Hash), Raw: e.Raw, Got: o.now().Unix(), Hidden: hidden})
	return nil
}

// tookBack reports whether a request asks for something that the person took back from this reader lately, or is taking back: also what it was granted without a request.
func (o *Owner) tookBack(r *consent.Request) bool {
	for _, s := range o.state.Mail.Stops {
		if policies.IdentityID(s.Reader) == r.From && (len(s.Fields) == 0 || asksFor(r.Fields, s.Fields)) {
			return true
		}
	}
	return slices.ContainsFunc(o.state.Mail.Taken, func(w takenBack) bool {
		return policies.IdentityID(w.Reader) == r.From && quiet(w.Time, o.now()) && asksFor(r.Fields, w.Fields)
	})
}

// denies reports whether a later request asks for something that was denied or withdrawn lately.
func (e *inboxEntry) denies(before, later *consent.Request, now time.Time) bool {
	if e.State == "" {
		return false
	}
	return slices.ContainsFunc(e.Answers, func(x exchanged) bool {
		env, err := envelope.Parse(x.Answer)
		if err != nil {
			return false
		}
		a, err := policies.Decode[consent.Answer](env)
		return err == nil && denied(before, a, later.Fields, now)
	})
}

// denied reports whether an answer denied or withdrew, not long ago, one of some fields.
func denied(r *consent.Request, a *consent.Answer, fields []consent.AskedField, now time.Time) bool {
	if !quiet(a.Time, now) {
		return false
	}
	if a.State == consent.Withdrawn {
		return asksFor(fields, a.Fields)
	}
	return slices.ContainsFunc(fields, func(f consent.AskedField) bool { return r.Names(f.Field) && !slices.Contains(a.Fields, f.Field) })
}

// takeReceipt keeps the other side's receipt of an answer.
func (o *Owner) takeReceipt(d *consent.Receipt, e *envelope.Envelope) error {
	for i := range o.state.Mail.Inbox {
		entry := &o.state.Mail.Inbox[i]
		if entry.Hash != d.Record {
			continue
		}
		r, err := entry.request()
		if err != nil {
			return err
		}
		return keepReceipt(entry.Answers, r, entry.Hash, d, e)
	}
	return policies.CodeNotAsked
}

func keepReceipt(answers []exchanged, r *consent.Request, hash policies.Hash, d *consent.Receipt, e *envelope.Envelope) error {
	for i := range answers {
		x := &answers[i]
		if x.Hash != d.Answers {
			continue
		}
		env, err := envelope.Parse(x.Answer)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrState, err)
		}
		a, err := policies.Decode[consent.Answer](env)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrState, err)
		}
		if err := d.Matches(r, hash, a, x.Hash); err != nil {
			return err
		}
		if x.Theirs == nil {
			x.Theirs = e.Raw
		}
		return nil
	}
	return policies.CodeNotAsked
}

// findRequest looks a request up by the beginning of its id.
func (o *Owner) findRequest(id string) (*inboxEntry, *consent.Request, error) {
	var found *inboxEntry
	var request *consent.Request
	for i := range o.state.Mail.Inbox {
		e := &o.state.Mail.Inbox[i]
		r, err := e.request()
		if err != nil || !begins(r.ID, id) {
			continue
		}
		if found != nil {
			return nil, nil, fmt.Errorf("%w: more than one request begins with %q", policies.ErrMalformed, id)
		}
		found, request = e, r
	}
	if found == nil {
		return nil, nil, fmt.Errorf("%w: %q", policies.CodeNotAsked, id)
	}
	return found, request, nil
}

// begins reports whether an id begins with what a person typed, at least four digits of it.
func begins(id policies.DocumentID, typed string) bool {
	text := id.String()
	return len(typed) >= 4 && len(typed) <= len(text) && text[:len(typed)] == typed
}

// Answer decides a request, named by its id or the first digits of it: the fields named are granted, all others denied. The grant comes first; when the vault has
// confirmed it the answer and the receipt go out. Killed anywhere, or cut off from the storefront, the next Receive carries on; the request is not
// answered twice. A grant that the vault refuses leaves the request as it was.
func (o *Owner) Answer(ctx context.Context, id string, grant []policies.Field, custody policies.Custody) (Consent, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e, r, err := o.findRequest(id)
	if err != nil {
		return Consent{}, err
	}
	if e.Decided != "" {
		return Consent{}, policies.CodeAnswered
	}
	if err := r.Live(o.now()); err != nil {
		return Consent{}, err
	}
	grant = slices.Compact(slices.Sorted(slices.Values(grant)))
	state, err := r.Decide(grant)
	if err != nil {
		return Consent{}, err
	}
	e.Decided, e.Fields = state, grant
	if state != consent.Denied {
		_, source, _ := readRequest(e.Raw)
		e.Stroke, e.Until, err = o.planAnswer(r, source, grant, GrantOptions{Purpose: r.Purpose.Text, Duration: time.Duration(r.Duration) * time.Second, Custody: custody})
		if err != nil {
			e.undecide()
			return Consent{}, err
		}
	}
	hash := e.Hash
	runErr := o.saveAndRun(ctx)
	if runErr == nil {
		runErr = o.settleMail(ctx)
	} else if err := o.settleAnswers(ctx); err != nil { // a grant that was refused is not tried again
		return Consent{}, errors.Join(runErr, err)
	}
	at := slices.IndexFunc(o.state.Mail.Inbox, func(e inboxEntry) bool { return e.Hash == hash })
	c, err := o.consent(&o.state.Mail.Inbox[at])
	return c, errors.Join(runErr, err)
}

func (e *inboxEntry) undecide() {
	e.Decided, e.Stroke, e.Fields, e.Until, e.Former = "", policies.DocumentID{}, nil, 0, nil
}

// settleAnswers answers every request whose grant is in force, and takes a decision back whose grant was refused or stopped, with what the source was let write for it and
// what the reader has of it.
func (o *Owner) settleAnswers(ctx context.Context) error {
	takenBack := false
	for i := range o.state.Mail.Inbox {
		e := &o.state.Mail.Inbox[i]
		if e.Decided == "" || e.State != "" {
			continue
		}
		r, source, err := readRequest(e.Raw)
		if err != nil {
			return err
		}
		if e.Decided != consent.Denied {
			if slices.ContainsFunc(o.state.Tasks, func(t task) bool { return t.Stroke == e.Stroke }) {
				continue // on its way
			}
			given := o.given(e, r)                                                                         // what it reads by other grants is no answer, and has other terms
			if state, err := r.Decide(given); len(given) > 0 && len(given) < len(e.Fields) && err == nil { // a part was stopped before it was in force
				takenBack = o.takeBackWrite(e, r, source, without(e.Fields, given)) || takenBack
				e.Fields, e.Decided = given, state
			}
			if len(given) != len(e.Fields) || !source.IsZero() && !o.mayWrite(source, e.Fields) {
				takenBack = o.takeBackWrite(e, r, source, e.Fields) || takenBack
				if len(given) > 0 {
					o.state.Tasks = slices.Insert(o.state.Tasks, 0, task{
						Kind: taskRevoke, Stroke: policies.NewDocumentID(), Reader: policies.ReaderID(r.From), Fields: given, Terms: e.terms(r), Wished: e.decided(r), Reason: policies.ReasonWithdrawn,
					})
					takenBack = true
				}
				e.undecide()
				if err := o.save(); err != nil {
					return err
				}
				continue
			}
		}
		a := &consent.Answer{Addressed: o.address("consent-answer", r.From, e.Hash, answerLife), Nonce: r.Nonce, State: e.Decided, Fields: e.Fields, Until: e.Until}
		if err := o.tellDecision(e, r, a); err != nil {
			return err
		}
		if !source.IsZero() && e.Decided != consent.Denied {
			if err := o.tellSource(e, r, source); err != nil {
				return err
			}
		}
		e.State, e.Former = e.Decided, nil
		if err := o.save(); err != nil {
			return err
		}
	}
	if takenBack {
		return o.run(ctx)
	}
	return nil
}

// terms are what tells that which an answer gave from that which the person gave otherwise.
func (e *inboxEntry) terms(r *consent.Request) terms {
	return terms{Purpose: r.Purpose.Text, Expires: e.Until}
}

// decided is when the person answered, Unix seconds: what is taken back because it was refused is no decision of theirs since.
func (e *inboxEntry) decided(r *consent.Request) int64 { return e.Until - r.Duration }

// given are those of the fields of an answer that its reader may read by it.
func (o *Owner) given(e *inboxEntry, r *consent.Request) (out []policies.Field) {
	for i := range o.state.Grants {
		g := &o.state.Grants[i]
		if g.Doc.Reader != policies.ReaderID(r.From) || g.Doc.Expires != e.Until || g.Doc.Purpose != r.Purpose.Text {
			continue
		}
		for j := range g.Doc.Fields {
			if f := &g.Doc.Fields[j]; g.live(f) && slices.Contains(e.Fields, f.Field) && !slices.Contains(out, f.Field) {
				out = append(out, f.Field)
			}
		}
	}
	slices.Sort(out)
	return out
}

// tellDecision puts an answer and its receipt into the outbox. The caller saves.
func (o *Owner) tellDecision(e *inboxEntry, r *consent.Request, a *consent.Answer) error {
	c, ok := o.contact(policies.ReaderID(r.From))
	if !ok {
		return ErrNoContact
	}
	to, err := c.identity()
	if err != nil {
		return err
	}
	answer, letter, err := seal[consent.Answer](o.device, to, a)
	if err != nil {
		return err
	}
	receipt, second, err := seal[consent.Receipt](o.device, to, consent.NewReceipt(o.id, r, e.Hash, a, policies.Hash(answer.Hash), o.now()))
	if err != nil {
		return err
	}
	e.Answers = append(e.Answers, exchanged{Hash: policies.Hash(answer.Hash), Answer: answer.Raw, Ours: receipt.Raw})
	o.state.Mail.Outbox = append(o.state.Mail.Outbox, outgoingOf(answer, letter, to), outgoingOf(receipt, second, to))
	return nil
}

// Stopped is what an owner is told who stopped a reader.
type Stopped struct {
	Reader   policies.ReaderID `json:"reader"`
	Alias    string            `json:"alias,omitzero"`
	Name     string            `json:"name,omitzero"`
	Fields   []policies.Field  `json:"fields"`
	Stopped  time.Time         `json:"stopped"`            // by the vault's clock
	LastRead time.Time         `json:"last_read,omitzero"` // zero: no read of these fields is in the newest entries of the history
}

// historyOfStop is how many of the newest entries of the history are searched for the last read at most: 200 answers of the vault.
const historyOfStop = 20_000

// Stop withdraws: it revokes fields of a reader, all if none is named, with [Owner.Revoke] and its errors, finds out when the reader was stopped and when one of
// the fields was last read, and sends the reader a withdrawal for each consent that is concerned and a signed request to delete what it has. After [ErrNotStopped] the
// next Receive sends them, once the reader is stopped. [ErrNotRotated] comes with a result.
func (o *Owner) Stop(ctx context.Context, reader policies.ReaderID, fields []policies.Field) (Stopped, error) {
	o.mu.Lock()
	revoke, known := fields, len(o.state.Grants) // no field: what waits to be granted is meant too, and what other devices granted
	if len(fields) == 0 {
		fields = o.granted(reader, nil)
	}
	fields = slices.Compact(slices.Sorted(slices.Values(fields)))
	wanted := stop{reader, fields}
	o.state.Mail.Stops = append(slices.DeleteFunc(o.state.Mail.Stops, wanted.same), wanted)
	err := o.save()
	o.mu.Unlock()
	if err != nil {
		return Stopped{}, err
	}
	revokeErr := o.Revoke(ctx, reader, revoke, RevokeOptions{})
	o.mu.Lock()
	defer o.mu.Unlock()
	if revokeErr != nil && !errors.Is(revokeErr, ErrNotRotated) {
		if !errors.Is(revokeErr, ErrNotStopped) { // there was nothing to stop
			o.state.Mail.Stops = slices.DeleteFunc(o.state.Mail.Stops, wanted.same)
			revokeErr = errors.Join(revokeErr, o.save())
		}
		return Stopped{}, revokeErr
	}
	if len(revoke) == 0 {
		fields = slices.Compact(slices.Sorted(slices.Values(slices.Concat(fields, o.over(reader, known)))))
		if at := slices.IndexFunc(o.state.Mail.Stops, wanted.same); at >= 0 {
			o.state.Mail.Stops[at].Fields = fields
		}
	}
	out := Stopped{Reader: reader, Fields: fields, Stopped: o.now()}
	if c, ok := o.contact(reader); ok {
		public := c.public()
		out.Alias, out.Name = public.Alias, public.Name
	}
	last, at, err := o.lastRead(ctx, reader, fields)
	if err == nil {
		if !at.IsZero() {
			out.Stopped = at
		}
		out.LastRead = last
	}
	return out, errors.Join(revokeErr, err, o.settleMail(ctx))
}

// lastRead looks in the history for when a reader last read one of some fields, and when it was stopped.
func (o *Owner) lastRead(ctx context.Context, reader policies.ReaderID, fields []policies.Field) (read, stopped time.Time, err error) {
	err = o.eachEntry(ctx, historyOfStop, false, func(_ uint64, at time.Time, entry evidence.Entry, d *evidence.Details) bool {
		switch {
		case entry.Kind == evidence.EntryRevocation && stopped.IsZero() && slices.ContainsFunc(d.Items, func(i policies.RevokedItem) bool { return o.endedFor(reader, fields, i) }):
			stopped = at
		case entry.Kind == evidence.EntryUse && entry.Outcome == policies.CodeReleased && read.IsZero() && d.Reader == reader && slices.Contains(fields, d.Field):
			read = at
		}
		return read.IsZero() || stopped.IsZero()
	})
	return read, stopped, err
}

// endedFor reports whether an ended item is one of a reader's grants of some fields.
func (o *Owner) endedFor(reader policies.ReaderID, fields []policies.Field, item policies.RevokedItem) bool {
	return slices.Contains(fields, item.Field) && slices.ContainsFunc(o.state.Grants, func(g ownedGrant) bool { return g.Doc.ID == item.Grant && g.Doc.Reader == reader })
}

// over lists what a reader was granted, from one grant on, and is not any more.
func (o *Owner) over(reader policies.ReaderID, from int) (out []policies.Field) {
	for i := range o.state.Grants[from:] {
		if g := &o.state.Grants[from+i]; g.Doc.Reader == reader {
			for j := range g.Doc.Fields {
				out = append(out, g.Doc.Fields[j].Field)
			}
		}
	}
	slices.Sort(out)
	return without(slices.Compact(out), o.granted(reader, nil))
}

// settleStops tells readers that were stopped: a withdrawal for each consent, and the request to delete.
func (o *Owner) settleStops(ctx context.Context) error {
	for _, s := range slices.Clone(o.state.Mail.Stops) {
		if o.stopping(s.Reader, "") || slices.ContainsFunc(s.Fields, func(f policies.Field) bool { return o.stopping(s.Reader, f) }) || len(o.granted(s.Reader, s.Fields)) > 0 {
			continue // not stopped yet, and nobody says that it is
		}
		if len(s.Fields) == 0 {
			o.state.Mail.Stops = slices.DeleteFunc(o.state.Mail.Stops, s.same)
			if s.Fields = o.over(s.Reader, 0); len(s.Fields) == 0 { // there was nothing
				continue
			}
			o.state.Mail.Stops = append(o.state.Mail.Stops, s)
		}
		read, stopped, err := o.lastRead(ctx, s.Reader, s.Fields)
		if err != nil {
			return err
		}
		c, ok := o.contact(s.Reader)
		if !ok {
			return ErrNoContact
		}
		to, err := c.identity()
		if err != nil {
			return err
		}
		var newest policies.Hash
		for i := range o.state.Mail.Inbox {
			e := &o.state.Mail.Inbox[i]
			r, err := e.request()
			if err != nil {
				return err
			}
			gone := slices.DeleteFunc(slices.Clone(e.Fields), func(f policies.Field) bool { return !slices.Contains(s.Fields, f) })
			if policies.ReaderID(r.From) != s.Reader || e.State != consent.Granted && e.State != consent.Partly || len(gone) == 0 {
				continue
			}
			a := &consent.Answer{Addressed: o.address("consent-answer", r.From, e.Hash, answerLife), Nonce: r.Nonce, State: consent.Withdrawn, Fields: gone}
			if err := o.tellDecision(e, r, a); err != nil {
				return err
			}
			newest, e.Fields = e.Hash, without(e.Fields, gone)
			if e.State = consent.Partly; len(e.Fields) == 0 {
				e.State = consent.Withdrawn
			}
		}
		d := &consent.Deletion{Addressed: o.address("deletion-request", c.ID, newest, answerLife), Fields: s.Fields, Stopped: o.now().Unix()}
		if !stopped.IsZero() {
			d.Stopped = stopped.Unix()
		}
		if !read.IsZero() {
			d.LastRead = read.Unix()
		}
		e, letter, err := seal[consent.Deletion](o.device, to, d)
		if err != nil {
			return err
		}
		o.state.Mail.Outbox = append(o.state.Mail.Outbox, outgoingOf(e, letter, to))
		o.state.Mail.Stops = slices.DeleteFunc(o.state.Mail.Stops, s.same)
		o.state.Mail.Taken = append(o.state.Mail.Taken, takenBack{s.Reader, s.Fields, o.now().Unix()})
		if err := o.save(); err != nil {
			return err
		}
	}
	return nil
}

// Mute hides the requests of a reader from now on, or no longer; [Owner.Block] drops all its messages. Neither takes a grant back.
func (o *Owner) Mute(reader policies.ReaderID, on bool) error {
	return o.mark(&o.state.Mail.Muted, reader, on)
}

// Block drops the messages of a reader from now on, or no longer.
func (o *Owner) Block(reader policies.ReaderID, on bool) error {
	return o.mark(&o.state.Mail.Blocked, reader, on)
}

func (o *Owner) mark(list *[]policies.IdentityID, reader policies.ReaderID, on bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := policies.IdentityID(reader)
	*list = slices.DeleteFunc(*list, func(have policies.IdentityID) bool { return have == id })
	if on {
		*list = append(*list, id)
	}
	return o.save()
}

// Accept answers an invitation: a code for this reader alone goes to it, sealed. Once the reader has used it, a later Receive makes it a contact under
// the alias. The link came from outside the storefront, and names the reader by its id.
func (o *Owner) Accept(ctx context.Context, link links.Invite, alias string) (err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	if link.Reader == o.id {
		return fmt.Errorf("%w: this invitation is your own; hand it to whom you mean", policies.ErrMalformed)
	}
	if err := o.freeAlias(alias, link.Reader); err != nil {
		return err
	}
	if err := o.run(ctx); err != nil {
		return err
	}
	raw, to, err := o.identity(ctx, link.Reader)
	if err != nil {
		return err
	}
	if to, err = o.newestKeys(ctx, link.Reader, to); err != nil {
		return err
	}
	stranger := readerContact{ID: link.Reader, Identity: raw}
	_ = o.renewVoucher(ctx, &stranger)
	if err := o.refuseAlike(&stranger); err != nil {
		return err
	}
	letters, err := o.introduceSelf(ctx, link.Reader, to, "an invitation")
	if err != nil {
		return err
	}
	nonce := policies.NewNonce()
	_, letter, err := seal[consent.Acceptance](o.device, to, &consent.Acceptance{
		Addressed: o.address("invitation-answer", link.Reader, policies.Hash{}, answerLife), Invitation: link.Token, Nonce: nonce,
	})
	if err != nil {
		return err
	}
	now := o.now().Unix()
	o.state.Codes = append(o.state.Codes, issuedCode{Nonce: nonce, Reader: link.Reader, Time: now})
	o.state.Mail.Invited = append(o.state.Mail.Invited, invited{Reader: link.Reader, Nonce: nonce, Alias: alias, Time: now, Token: policies.HashKey(link.Token)})
	for _, m := range append(letters, letter) { // their keys were asked for just now
		o.state.Mail.Outbox = append(o.state.Mail.Outbox, outgoing{Message: m})
	}
	if err := o.save(); err != nil {
		return err
	}
	return o.sendAll(ctx)
}

// settleInvited makes contacts of the readers whose invitation was accepted and who did their half.
func (o *Owner) settleInvited(ctx context.Context) error {
	for _, i := range slices.Clone(o.state.Mail.Invited) {
		c, err := o.findRelationship(ctx, i.Reader, func(_ policies.Hash, r *policies.Relationship) bool { return r.Nonce == i.Nonce })
		if errors.Is(err, ErrNotConnected) {
			continue
		} else if err != nil {
			return err
		}
		c.Alias = i.Alias
		if o.freeAlias(c.Alias, c.ID) != nil {
			c.Alias = "" // taken meanwhile
		}
		if !i.Token.IsZero() {
			c.Invitations = []policies.Hash{i.Token}
		}
		o.putContact(c)
		o.state.Mail.Invited = slices.DeleteFunc(o.state.Mail.Invited, func(have invited) bool { return have == i })
		if err := o.save(); err != nil {
			return err
		}
	}
	return nil
}
