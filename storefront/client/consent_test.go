package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/client/safe"
	"github.com/sallyport/sallyport/vault/pre"
)

// delivery asks for an address, and for a phone number if the person likes.
func delivery() Ask {
	return Ask{
		Fields:  []consent.AskedField{{Field: "address.home", Required: true, Reason: "where to"}, {Field: "phone.mobile", Reason: "when nobody opens"}},
		Purpose: consent.Purpose{Text: "delivery", Term: "DeliveryOfGoods"}, Duration: 90 * 24 * time.Hour,
	}
}

// met is an owner with fields and a business that is a contact.
func (w *world) met() (o *Owner, om *memory, r *Reader, rm *memory) {
	w.t.Helper()
	o, om = w.owner()
	r, rm = w.reader("Acme")
	w.must(o.Set(w.t.Context(), set("address.home", "Road 1"), set("phone.mobile", "+49 1"), set("bank.iban", "DE00")))
	w.connect(o, r, "acme")
	return o, om, r, rm
}

func (w *world) asks(r *Reader, o *Owner, a Ask) Consent {
	w.t.Helper()
	c, err := r.Ask(w.t.Context(), o.ID(), a)
	w.must(err)
	return c
}

// looks fetches the owner's messages and demands that so many are taken and none refused.
func (w *world) looks(o *Owner, taken int) {
	w.t.Helper()
	mail, err := o.Receive(w.t.Context())
	w.must(err)
	if mail.Taken != taken || len(mail.Refused) > 0 {
		w.t.Fatalf("the owner took %d messages and refused %v; want %d and none", mail.Taken, mail.Refused, taken)
	}
}

func (w *world) hears(r *Reader, taken int) {
	w.t.Helper()
	mail, err := r.Receive(w.t.Context(), 0)
	w.must(err)
	if mail.Taken != taken || len(mail.Refused) > 0 {
		w.t.Fatalf("the reader took %d messages and refused %v; want %d and none", mail.Taken, mail.Refused, taken)
	}
}

func (w *world) wantStatus(r *Reader, id policies.DocumentID, want consent.State, fields ...policies.Field) Consent {
	w.t.Helper()
	for _, c := range r.Consents() {
		if c.ID == id {
			if c.Status != want || !slices.Equal(c.Fields, fields) {
				w.t.Fatalf("the request is %q with %v, want %q with %v", c.Status, c.Fields, want, fields)
			}
			return c
		}
	}
	w.t.Fatalf("there is no request %s", id)
	return Consent{}
}

// TestConsent plays a request in all its turns: asked, granted in part, read, withdrawn; with receipts on both sides for each decision.
func TestConsent(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, r, _ := w.met()
	c := w.asks(r, o, delivery())
	w.wantStatus(r, c.ID, consent.Pending)
	w.looks(o, 1)
	inbox := o.Inbox(false)
	if len(inbox) != 1 || inbox[0].ID != c.ID || inbox[0].Alias != "acme" || inbox[0].Name != "Acme" || inbox[0].Status != consent.Pending || inbox[0].Purpose.Text != "delivery" {
		t.Fatalf("the inbox holds %+v", inbox)
	}
	w.wantRefusal(r, o, "address.home", policies.CodeNoGrant)
	// More than was asked for, and less than is needed, is refused and changes nothing.
	if _, err := o.Answer(ctx, c.ID.String(), []policies.Field{"address.home", "bank.iban"}, ""); !errors.Is(err, policies.CodeTooWide) {
		t.Errorf("a grant wider than the request: %v", err)
	}
	if _, err := o.Answer(ctx, c.ID.String(), []policies.Field{"phone.mobile"}, ""); !errors.Is(err, policies.CodeRequired) {
		t.Errorf("a grant without what is required: %v", err)
	}
	if _, err := o.Answer(ctx, "0000000", nil, ""); !errors.Is(err, policies.CodeNotAsked) {
		t.Errorf("an answer to nothing: %v", err)
	}
	if len(o.Grants(true)) != 0 || len(o.Inbox(false)) != 1 {
		t.Errorf("what was refused left grants %v, inbox %v", o.Grants(true), o.Inbox(false))
	}

	mine, err := o.Answer(ctx, c.ID.String()[:8], []policies.Field{"address.home"}, "")
	w.must(err)
	if mine.Status != consent.Partly || !slices.Equal(mine.Fields, []policies.Field{"address.home"}) || len(o.Inbox(false)) != 0 {
		t.Errorf("answered: %+v", mine)
	}
	if _, err := o.Answer(ctx, c.ID.String(), nil, ""); !errors.Is(err, policies.CodeAnswered) {
		t.Errorf("a second answer: %v", err)
	}
	w.hears(r, 2) // answer and receipt
	theirs := w.wantStatus(r, c.ID, consent.Partly, "address.home")
	w.wantRead(r, o, "address.home", "Road 1")
	w.wantRefusal(r, o, "phone.mobile", policies.CodeNoGrant)
	w.looks(o, 1) // the business's receipt
	grants := o.Grants(false)
	if len(grants) != 1 || grants[0].Purpose != "delivery" || !grants[0].Expires.Equal(theirs.Until) {
		t.Errorf("the grant is %+v, the answer says until %s", grants, theirs.Until)
	}
	wantReceipts(t, o.Inbox(true)[0], theirs, consent.Partly)

	// Withdrawing is one step, tells when, and asks for deletion.
	stopped, err := o.Stop(ctx, r.ID(), nil)
	w.must(err)
	if !slices.Equal(stopped.Fields, []policies.Field{"address.home"}) || stopped.LastRead.IsZero() || stopped.Stopped.Before(stopped.LastRead) {
		t.Errorf("stopped: %+v", stopped)
	}
	w.wantRefusal(r, o, "address.home", policies.CodeRevoked)
	w.hears(r, 3) // withdrawal, receipt, request for deletion
	theirs = w.wantStatus(r, c.ID, consent.Withdrawn)
	w.looks(o, 1)
	wantReceipts(t, o.Inbox(true)[0], theirs, consent.Withdrawn)
	var kinds []string
	for i, e := range r.Events(0) {
		kinds = append(kinds, e.Kind+" "+string(e.Status))
		if e.Number != uint64(i+1) || e.Alias != "acme-customer" || e.Request != c.ID {
			t.Errorf("event %+v", e)
		}
	}
	if want := []string{"consent partly", "consent withdrawn", "deletion "}; !slices.Equal(kinds, want) {
		t.Errorf("events %q, want %q", kinds, want)
	}
	if _, err := o.Stop(ctx, r.ID(), []policies.Field{"address.home"}); !errors.Is(err, policies.CodeNoGrant) {
		t.Errorf("stopping twice: %v", err)
	}
	w.hears(r, 0)
}

// wantReceipts: both sides hold the same two receipts of the newest decision, one signed by each.
func wantReceipts(t *testing.T, owner, reader Consent, state consent.State) {
	t.Helper()
	a, b := owner.Receipts, reader.Receipts
	if len(a.Ours) != len(a.Theirs) || len(a.Ours) == 0 || len(b.Ours) != len(b.Theirs) || len(a.Ours) != len(b.Theirs) {
		t.Fatalf("the owner has %d and %d receipts, the reader %d and %d", len(a.Ours), len(a.Theirs), len(b.Ours), len(b.Theirs))
	}
	for i := range a.Ours {
		if !bytes.Equal(a.Ours[i], b.Theirs[i]) || !bytes.Equal(a.Theirs[i], b.Ours[i]) {
			t.Errorf("receipt %d: the two sides hold different ones", i)
		}
	}
	e, err := envelope.Parse(a.Theirs[len(a.Theirs)-1])
	if err != nil {
		t.Fatal(err)
	}
	d, err := policies.Decode[consent.Receipt](e)
	if err != nil || d.Event.State != state {
		t.Errorf("the newest receipt: %+v, %v", d, err)
	}
}

// TestDenial: a denial has receipts too; what was denied is not asked for again for a while, and if it is, the person does not see it.
func TestDenial(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, r, _ := w.met()
	c := w.asks(r, o, delivery())
	w.looks(o, 1)
	_, err := o.Answer(ctx, c.ID.String(), nil, "")
	w.must(err)
	w.hears(r, 2)
	w.looks(o, 1)
	wantReceipts(t, o.Inbox(true)[0], w.wantStatus(r, c.ID, consent.Denied), consent.Denied)
	if len(o.Grants(true)) != 0 {
		t.Error("a denial made a grant")
	}
	if _, err := r.Ask(ctx, o.ID(), delivery()); !errors.Is(err, policies.CodeAskedAgain) {
		t.Errorf("asking again at once: %v", err)
	}
	r.state.Mail.Asked = nil // a program that does not care
	again := w.asks(r, o, delivery())
	w.looks(o, 1)
	if len(o.Inbox(false)) != 0 || len(o.Inbox(true)) != 2 || !o.Inbox(true)[1].Hidden {
		t.Errorf("what was denied is shown again: %+v", o.Inbox(false))
	}
	// Something else may be asked for.
	other := delivery()
	other.Fields = []consent.AskedField{{Field: "bank.iban", Required: true, Reason: "refunds"}}
	w.asks(r, o, other)
	w.looks(o, 1)
	if len(o.Inbox(false)) != 1 {
		t.Errorf("another field is not shown: %+v", o.Inbox(true))
	}
	// Whoever changes their mind finds it, and after a month it is a new question.
	_, err = o.Answer(ctx, again.ID.String(), []policies.Field{"address.home"}, "")
	w.must(err)
	o.device.now = func() time.Time { return time.Now().Add(consent.Quiet + time.Hour) }
	first, _ := o.state.Mail.Inbox[0].request()
	if o.state.Mail.Inbox[0].denies(first, first, o.now()) {
		t.Error("a denial lasts for ever")
	}
}

// TestAskedAgainAfterStop: what a person took back is not asked for again for a while, as what they denied: whether the business had it on a request or by a grant of the person's own, in whole or in part, and
// also while the business has not been told yet. A business's program refuses to ask, and the person does not see what another program asks all the same.
func TestAskedAgainAfterStop(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	one := func(f policies.Field) Ask {
		a := delivery()
		a.Fields = []consent.AskedField{{Field: f, Required: true, Reason: "refunds"}}
		return a
	}
	both := delivery()
	both.Fields = []consent.AskedField{{Field: "address.home", Required: true, Reason: "to deliver"}, {Field: "phone.mobile", Reason: "to call"}}
	for _, asked := range []bool{true, false} {
		o, om, r, _ := w.met()
		if asked {
			c := w.asks(r, o, both)
			w.looks(o, 1)
			_, err := o.Answer(ctx, c.ID.String(), []policies.Field{"address.home", "phone.mobile"}, "")
			w.must(err)
			w.hears(r, 2)
			w.looks(o, 1)
		} else {
			w.must(o.Grant(ctx, r.ID(), []policies.Field{"address.home", "phone.mobile"}, GrantOptions{}))
		}
		_, err := o.Stop(ctx, r.ID(), []policies.Field{"address.home"})
		w.must(err)
		if _, err := r.Receive(ctx, 0); err != nil {
			t.Fatal(err)
		}
		for _, a := range []Ask{one("address.home"), both} {
			if _, err := r.Ask(ctx, o.ID(), a); !errors.Is(err, policies.CodeAskedAgain) {
				t.Errorf("on a request: %t: what was taken back: %v", asked, err)
			}
		}
		// Another field may be asked for, also one that was granted with it.
		_, err = o.Receive(ctx)
		w.must(err)
		w.asks(r, o, one("bank.iban"))
		w.asks(r, o, one("phone.mobile"))
		w.looks(o, 2)
		if n := len(o.Inbox(false)); n != 2 {
			t.Errorf("on a request: %t: of other fields %d requests are shown", asked, n)
		}
		// A program that does not care, and a device that was started anew.
		r.state.Mail.Asked, r.state.Mail.Events = nil, nil
		o = reopen(om, w)
		for _, a := range []Ask{one("address.home"), both} {
			again := w.asks(r, o, a)
			w.looks(o, 1)
			all := o.Inbox(true)
			if newest := all[len(all)-1]; newest.ID != again.ID || !newest.Hidden || len(o.Inbox(false)) != 2 {
				t.Errorf("on a request: %t: what was taken back is shown again: %+v", asked, o.Inbox(false))
			}
		}
		// After a month it is a new question, to both.
		later := func() time.Time { return time.Now().Add(consent.Quiet + time.Hour) }
		for i := range o.state.Mail.Taken {
			if quiet(o.state.Mail.Taken[i].Time, later()) {
				t.Error("a withdrawal lasts for ever")
			}
		}
		if now := time.Now(); !quiet(now.Add(time.Hour).Unix(), now) || quiet(now.Add(consent.Quiet+time.Hour).Unix(), now) {
			t.Error("by a clock that was ahead")
		}
		r.happened(ConsentEvent{Kind: EventDeletion, Owner: o.ID(), Fields: []policies.Field{"address.home"}})
		if !r.tookBack(o.ID(), one("address.home").Fields) || r.tookBack(policies.OwnerID{1}, one("address.home").Fields) || r.tookBack(o.ID(), one("bank.iban").Fields) {
			t.Error("it is another's, or of another field")
		}
		if r.device.now = later; r.tookBack(o.ID(), one("address.home").Fields) {
			t.Error("a withdrawal lasts for ever")
		}
		o.device.now = later
		if o.tookBack(&consent.Request{Addressed: consent.Addressed{From: r.id}, Fields: one("address.home").Fields}) {
			t.Error("a withdrawal lasts for ever")
		}
		o.device.now = time.Now
		// While it is being taken back too.
		w.silent("")
		w.reachable(false)
		if _, err := o.Stop(ctx, r.ID(), []policies.Field{"phone.mobile"}); !errors.Is(err, ErrNotStopped) {
			t.Errorf("nobody answers: %v", err)
		}
		w.hostile(nil)
		w.reachable(true)
		if !o.tookBack(&consent.Request{Addressed: consent.Addressed{From: r.id}, Fields: one("phone.mobile").Fields}) {
			t.Error("what is being taken back may be asked for")
		}
	}
}

// TestLateAnswers: a request is answered in its time or not at all.
func TestLateAnswers(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, r, _ := w.met()
	ask := delivery()
	ask.Waits = time.Hour
	c := w.asks(r, o, ask)
	w.looks(o, 1)
	o.device.now = func() time.Time { return time.Now().Add(time.Hour) }
	if _, err := o.Answer(ctx, c.ID.String(), []policies.Field{"address.home"}, ""); !errors.Is(err, policies.CodeConsentExpired) {
		t.Errorf("an answer too late: %v", err)
	}
	if len(o.Inbox(false)) != 0 || o.Inbox(true)[0].Status != consent.Expired {
		t.Errorf("an expired request: %+v", o.Inbox(true))
	}
	r.device.now = o.device.now
	w.wantStatus(r, c.ID, consent.Expired)
}

// TestAnswerOverCrashes kills the owner's device before each write of its state while it answers, and lets it start again: there is one grant, one answer,
// and the reader hears of it once.
func TestAnswerOverCrashes(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	for limit := 1; ; limit++ {
		o, om, r, _ := w.met()
		c := w.asks(r, o, delivery())
		w.looks(o, 1)
		om.limit = om.saves + limit
		_, err := o.Answer(ctx, c.ID.String(), []policies.Field{"address.home", "phone.mobile"}, "")
		om.limit = 0
		done := err == nil
		if !done && !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		o = reopen(om, w)
		if _, err := o.Receive(ctx); err != nil {
			t.Fatal(err)
		}
		if len(o.Inbox(false)) == 1 { // killed before anything was written
			_, err := o.Answer(ctx, c.ID.String(), []policies.Field{"address.home", "phone.mobile"}, "")
			w.must(err)
		}
		w.hears(r, 2)
		w.wantStatus(r, c.ID, consent.Granted, "address.home", "phone.mobile")
		w.wantRead(r, o, "phone.mobile", "+49 1")
		if n := len(o.Grants(true)); n != 2 {
			t.Errorf("killed before write %d: %d granted fields", limit, n)
		}
		if done {
			if limit < 4 {
				t.Errorf("only %d writes were tried", limit)
			}
			return
		}
	}
}

// TestAnswerWithoutStorefront: what is decided while nothing can be reached is carried out later, and not forgotten; what the vault refuses leaves the request open.
func TestAnswerWithoutStorefront(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, r, _ := w.met()
	c := w.asks(r, o, delivery())
	w.looks(o, 1)
	w.silent("/")
	mine, err := o.Answer(ctx, c.ID.String(), []policies.Field{"address.home"}, "")
	if !errors.Is(err, policies.CodeUnavailable) || !mine.Waits {
		t.Errorf("answered into silence: %+v, %v", mine, err)
	}
	w.hostile(nil)
	w.looks(o, 0)
	w.hears(r, 2)
	w.wantStatus(r, c.ID, consent.Partly, "address.home")

	second := delivery()
	second.Fields = []consent.AskedField{{Field: "bank.iban", Required: true, Reason: "refunds"}}
	c = w.asks(r, o, second)
	w.looks(o, 2)
	if _, err := o.Answer(ctx, c.ID.String(), []policies.Field{"bank.iban"}, policies.CustodySealed); !errors.Is(err, policies.CodeCustody) {
		t.Errorf("a custody that is not offered: %v", err)
	}
	if list := o.Inbox(false); len(list) != 1 || list[0].Waits {
		t.Errorf("a request whose grant was refused: %+v", list)
	}
	_, err = o.Answer(ctx, c.ID.String(), []policies.Field{"bank.iban"}, "")
	w.must(err)

	// Stopped while the storefront is silent: the reader is told when it is true, not before.
	w.mu.Lock()
	w.owners = false
	w.mu.Unlock()
	w.silent("revocations")
	if _, err := o.Stop(ctx, r.ID(), []policies.Field{"bank.iban"}); !errors.Is(err, ErrNotStopped) {
		t.Errorf("stopping without a receipt: %v", err)
	}
	if _, err := o.Receive(ctx); !errors.Is(err, ErrNotStopped) {
		t.Errorf("receiving before the stop is confirmed: %v", err)
	}
	for i := range o.state.Mail.Outbox {
		t.Errorf("a message of type %s waits although nobody is stopped", o.state.Mail.Outbox[i].Type)
	}
	w.hostile(nil)
	// An order that a crash left behind before anything was revoked says nothing to anybody, and holds nobody up.
	o.state.Mail.Stops = slices.Insert(o.state.Mail.Stops, 0, stop{r.ID(), []policies.Field{"address.home"}})
	w.looks(o, 0)
	if len(o.state.Mail.Stops) != 1 {
		t.Errorf("orders to stop: %+v", o.state.Mail.Stops)
	}
	w.hears(r, 5) // answer and receipt, withdrawal and receipt, request for deletion
	w.wantStatus(r, c.ID, consent.Withdrawn)
}

// TestSealedMessagesUnderAttack: what a hostile storefront can do to messages on their way. It changes, exchanges and repeats; none of it is taken.
func TestSealedMessagesUnderAttack(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, r, _ := w.met()
	other, _ := w.owner()
	eve, _ := w.reader("Eve")
	w.must(other.Set(ctx, set("address.home", "Road 2")))
	w.connect(other, r, "acme-too")
	w.connect(o, eve, "eve")
	w.asks(r, o, delivery())

	// A storefront answers with what it likes.
	var page api.Messages
	fetched, rising := 0, false
	capture := func(of *Owner) api.Waiting {
		t.Helper()
		got, err := of.fetchMail(ctx, 0)
		w.must(err)
		if len(got.Messages) != 1 {
			t.Fatalf("%d messages", len(got.Messages))
		}
		return got.Messages[0]
	}
	serve := func(messages ...api.Waiting) {
		page = api.Messages{Messages: messages}
		w.hostile(func(rw http.ResponseWriter, req *http.Request, next http.Handler) {
			switch {
			case req.URL.Path == api.PathMessages && req.Method == "GET":
				if fetched++; rising {
					page.Messages[0].Number++
				}
				b, _ := json.Marshal(page)
				rw.Write(b)
			case req.URL.Path == api.PathMessages && req.Method == "DELETE":
				rw.WriteHeader(http.StatusNoContent)
			default:
				next.ServeHTTP(rw, req)
			}
		})
	}
	good := capture(o)
	if bytes.Contains(good.Sealed, []byte("delivery")) || bytes.Contains(good.Sealed, []byte("address.home")) {
		t.Error("the storefront can read a message")
	}
	for name, spoil := range map[string]func(*api.Waiting){
		"from another contact": func(m *api.Waiting) { m.From = policies.IdentityID(eve.ID()) },
		"from a stranger":      func(m *api.Waiting) { m.From = policies.IdentityID(other.ID()) },
		"of another type":      func(m *api.Waiting) { m.Type = "consent-receipt" },
		"to another":           func(m *api.Waiting) { m.To = policies.IdentityID(other.ID()) },
		"a bit flipped":        func(m *api.Waiting) { m.Sealed[len(m.Sealed)/2] ^= 1 },
		"cut short":            func(m *api.Waiting) { m.Sealed = m.Sealed[:len(m.Sealed)-1] },
		"empty":                func(m *api.Waiting) { m.Sealed = nil },
	} {
		bad := good
		bad.Sealed = bytes.Clone(good.Sealed)
		spoil(&bad)
		serve(bad)
		mail, err := o.Receive(ctx)
		w.must(err)
		if mail.Taken != 0 || len(mail.Refused) != 1 || len(o.Inbox(true)) != 0 {
			t.Errorf("%s: taken %d, refused %v", name, mail.Taken, mail.Refused)
		}
	}
	// To another owner, as it is: it does not open there.
	moved := good
	moved.To = policies.IdentityID(other.ID())
	serve(moved)
	if mail, err := other.Receive(ctx); err != nil || mail.Taken != 0 || len(other.Inbox(true)) != 0 {
		t.Errorf("another owner takes it: %+v, %v", mail, err)
	}
	// Anybody can seal to anybody, in whose name they like, if the storefront helps. What is inside gives them away.
	inner, err := o.unseal(&good.Message)
	w.must(err)
	claim, err := policies.Decode[consent.Request](inner)
	w.must(err)
	to, err := openIdentity(o.state.Identity, o.id)
	w.must(err)
	sealAs := func(from policies.IdentityID, e *envelope.Envelope) api.Waiting {
		t.Helper()
		info, err := pre.MessageInfo(e.Type, from, o.id)
		w.must(err)
		sealed, err := pre.SealBlob(to.KEMKey, info, e.Raw)
		w.must(err)
		return api.Waiting{Number: 1, Message: api.Message{From: from, To: o.id, Type: e.Type, Expires: claim.Expires, Sealed: sealed}}
	}
	signed := func(by *Reader, spoil func(*consent.Request)) *envelope.Envelope {
		t.Helper()
		d := *claim
		d.ID, d.Nonce = policies.NewDocumentID(), policies.NewNonce()
		spoil(&d)
		e, err := policies.Sign[consent.Request](by.signing, &d)
		w.must(err)
		return e
	}
	for name, m := range map[string]api.Waiting{
		"Eve signs in Acme's name":                   sealAs(eve.id, signed(eve, func(*consent.Request) {})),
		"Eve signs in Acme's name and seals in it":   sealAs(r.id, signed(eve, func(*consent.Request) {})),
		"Eve passes Acme's request off as her own":   sealAs(eve.id, inner),
		"another person passes on what was for them": sealAs(r.id, signed(r, func(d *consent.Request) { d.To = policies.IdentityID(other.ID()) })),
		"Acme's request, long over":                  sealAs(r.id, signed(r, func(d *consent.Request) { d.Time -= 7200; d.Expires = d.Time + 3600 })),
	} {
		serve(m)
		if mail, err := o.Receive(ctx); err != nil || mail.Taken != 0 || len(mail.Refused) != 1 || len(o.Inbox(true)) != 0 {
			t.Errorf("%s: taken %d, refused %v, %v", name, mail.Taken, mail.Refused, err)
		}
	}
	serve(sealAs(r.id, signed(r, func(*consent.Request) {}))) // as it should be, it is taken
	if mail, err := o.Receive(ctx); err != nil || mail.Taken != 1 {
		t.Errorf("a good one: %+v, %v", mail, err)
	}
	o.state.Mail.Inbox = nil
	// Many times: it counts once.
	second := good
	second.Number++
	serve(good, second)
	mail, err := o.Receive(ctx)
	w.must(err)
	if mail.Taken != 1 || len(mail.Refused) != 1 || !errors.Is(mail.Refused[0], policies.CodeReplay) || len(o.Inbox(false)) != 1 {
		t.Errorf("sent twice: %+v, inbox %v", mail, o.Inbox(true))
	}
	// Pages that never end do not hold anybody for ever: neither the same one again, nor ever new ones.
	serve(good)
	page.More, fetched = true, 0
	if _, err := o.Receive(ctx); !errors.Is(err, ErrUntrue) || fetched != 2 {
		t.Errorf("a page that was deleted and comes again: %d fetched, %v", fetched, err)
	}
	rising, fetched = true, 0
	if mail, err := o.Receive(ctx); err != nil || mail.Taken != 0 || len(mail.Refused) != maxPages || fetched != maxPages {
		t.Errorf("endless pages: %d fetched, %+v, %v", fetched, mail, err)
	}
	rising = false

	// Answers: of another person, to another's request, again.
	w.hostile(nil)
	w.looks(other, 0)
	c := o.Inbox(false)[0]
	_, err = o.Answer(ctx, c.ID.String(), []policies.Field{"address.home"}, "")
	w.must(err)
	got, err := r.fetchMail(ctx, 0)
	w.must(err)
	if len(got.Messages) != 2 {
		t.Fatalf("%d messages for the reader", len(got.Messages))
	}
	reader, err := openIdentity(r.state.Identity, r.id)
	w.must(err)
	a := &consent.Answer{Addressed: other.address("consent-answer", r.id, c.Request, time.Hour), Nonce: claim.Nonce, State: consent.Denied}
	_, foreign, err := seal[consent.Answer](other.device, reader, a)
	w.must(err)
	serve(api.Waiting{Number: 1, Message: foreign}, got.Messages[0], got.Messages[0], got.Messages[1])
	mail, err = r.Receive(ctx, 0)
	w.must(err)
	if mail.Taken != 2 || len(mail.Refused) != 2 || !errors.Is(mail.Refused[0], policies.CodeNotAsked) || !errors.Is(mail.Refused[1], policies.CodeReplay) {
		t.Errorf("answers of others and again: %+v", mail)
	}
	w.wantStatus(r, c.ID, consent.Partly, "address.home")
	w.hostile(nil)
}

// TestUnwanted: strangers, the muted and the blocked are not seen, and nobody floods an inbox.
func TestUnwanted(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, r, _ := w.met()
	refuses := func(code policies.Code) {
		t.Helper()
		mail, err := o.Receive(ctx)
		w.must(err)
		if mail.Taken != 0 || len(mail.Refused) != 1 || !errors.Is(mail.Refused[0], code) {
			t.Errorf("taken %d, refused %v, want %s", mail.Taken, mail.Refused, code)
		}
	}
	// A stranger who learnt the id: not a contact, whatever it says.
	stranger, _ := w.reader("Mail order")
	_, err := stranger.Connect(ctx, links.Contact{Role: "owner", ID: policies.IdentityID(o.ID()), Nonce: policies.NewNonce()}, "victim")
	w.must(err)
	w.asks(stranger, o, delivery())
	refuses(policies.CodeSender)

	w.must(o.Mute(r.ID(), true))
	w.asks(r, o, delivery())
	w.looks(o, 1)
	if len(o.Inbox(false)) != 0 || len(o.Inbox(true)) != 1 {
		t.Errorf("muted: %+v", o.Inbox(true))
	}
	marked := func(muted, blocked bool) {
		t.Helper()
		for _, c := range o.Contacts() {
			if c.ID == policies.IdentityID(r.ID()) && (c.Muted != muted || c.Blocked != blocked) {
				t.Errorf("the list says %+v", c)
			}
		}
	}
	marked(true, false)
	w.must(o.Mute(r.ID(), false))
	w.must(o.Block(r.ID(), true))
	marked(false, true)
	w.asks(r, o, delivery())
	refuses(policies.CodeSender)
	w.must(o.Block(r.ID(), false))
	marked(false, false)
	for range pendingOfOne - 1 {
		w.asks(r, o, delivery())
	}
	w.looks(o, pendingOfOne-1)
	w.asks(r, o, delivery())
	refuses(policies.CodeAskedAgain)
}

// TestInvitations: one link for one person, by the business's own reference.
func TestInvitations(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, om := w.owner()
	other, _ := w.owner()
	r, rm := w.reader("Acme")
	eve, _ := w.reader("Eve")
	w.must(o.Set(ctx, set("address.home", "Road 1"), set("phone.mobile", "+49 1")))
	end := time.Now().Add(time.Hour)
	link, err := r.Invite("K-1/ö", end)
	w.must(err)
	same, err := r.Invite("K-1/ö", end)
	w.must(err)
	if link.String() != same.String() || strings.Contains(link.String(), "K-1") {
		t.Errorf("links %s and %s", link, same)
	}
	status := func(l links.Invite, want string) {
		t.Helper()
		got, reference, err := r.Invited(l)
		if got != want || err != nil || reference != "K-1/ö" {
			t.Errorf("the invitation of %q is %q, %v; want %q", reference, got, err, want)
		}
	}
	status(link, "open")
	for _, reference := range []string{"", " x", "a\nb", strings.Repeat("x", links.MaxReference+1)} {
		if _, err := r.Invite(reference, end); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("the reference %q: %v", reference, err)
		}
	}
	w.must(o.Accept(ctx, link, "acme"))
	w.hears(r, 1)
	status(link, "accepted")
	if list := r.Contacts(); len(list) != 1 || list[0].Alias != "K-1/ö" || list[0].ID != policies.IdentityID(o.ID()) {
		t.Errorf("contacts %+v", list)
	}
	// The business may ask at once; the person's device does its half when it next looks.
	w.asks(r, o, delivery())
	o = reopen(om, w)
	w.looks(o, 1)
	if list := o.Contacts(); len(list) != 1 || list[0].Alias != "acme" || len(o.Inbox(false)) != 1 || o.Inbox(false)[0].Alias != "acme" {
		t.Errorf("contacts %+v, inbox %+v", list, o.Inbox(false))
	}
	if d, err := o.state.Mail.Inbox[0].request(); err != nil || d.Invitation != policies.HashKey(link.Token) {
		t.Errorf("the request names the invitation %s, %v", d.Invitation, err)
	}
	// A request that names no invitation, or one that the person did not accept, is thrown away.
	invitedBy := func(invitations ...safe.Invitation) (before []safe.Invitation) {
		r.mu.Lock()
		defer r.mu.Unlock()
		k, _ := r.owner(o.ID())
		before, k.contact.Invited = k.contact.Invited, invitations
		return before
	}
	for what, by := range map[string][]safe.Invitation{"none": nil, "another": {{Token: policies.Hash{7}}}} {
		real := invitedBy(by...)
		w.asks(r, o, delivery())
		invitedBy(real...)
		mail, err := o.Receive(ctx)
		w.must(err)
		if len(mail.Refused) != 1 || !errors.Is(mail.Refused[0], policies.CodeNotInvited) || len(o.Inbox(true)) != 1 {
			t.Errorf("a request by %s: %+v", what, mail)
		}
	}
	// The same person again changes nothing; another one is refused, also after the reader started anew.
	w.must(o.Accept(ctx, link, "acme"))
	w.hears(r, 1)
	if n := len(r.Events(0)); n != 1 {
		t.Errorf("%d events", n)
	}
	w.must(r.Close())
	r, err = OpenReader(rm, Options{})
	w.must(err)
	refuses := func(r *Reader, what string) {
		t.Helper()
		mail, err := r.Receive(ctx, 0)
		w.must(err)
		if mail.Taken != 0 || len(mail.Refused) != 1 || !errors.Is(mail.Refused[0], policies.CodeInvitation) {
			t.Errorf("%s: taken %d, refused %v", what, mail.Taken, mail.Refused)
		}
	}
	w.must(other.Accept(ctx, link, ""))
	refuses(r, "an invitation that somebody else used")
	forged := link
	forged.Token = bytes.Clone(link.Token)
	forged.Token[len(forged.Token)-1] ^= 1
	w.must(other.Accept(ctx, forged, ""))
	refuses(r, "a forged invitation")
	w.must(other.Accept(ctx, links.Invite{Reader: r.id, Token: []byte("x")}, ""))
	refuses(r, "no invitation")
	foreign, err := eve.Invite("K-2", end)
	w.must(err)
	w.must(other.Accept(ctx, links.Invite{Reader: r.id, Token: foreign.Token}, ""))
	refuses(r, "another business's invitation")
	w.must(other.Accept(ctx, links.Invite{Reader: eve.id, Token: link.Token}, ""))
	refuses(eve, "an invitation that was taken to another business")
	old, err := r.Invite("K-3", time.Now().Add(-time.Second))
	w.must(err)
	w.must(other.Accept(ctx, old, ""))
	refuses(r, "an invitation that is over")
	if got, _, _ := r.Invited(old); got != "expired" {
		t.Errorf("an invitation that is over is %q", got)
	}
	if _, _, err := r.Invited(foreign); !errors.Is(err, policies.CodeInvitation) {
		t.Errorf("another's invitation: %v", err)
	}
	// The same person accepts another invitation of the business. The first stays used, the person keeps its first name, and is found by both.
	second, err := r.Invite("K-4", end)
	w.must(err)
	w.must(o.Accept(ctx, second, "acme"))
	w.hears(r, 1)
	w.must(r.Close())
	r, err = OpenReader(rm, Options{})
	w.must(err)
	status(link, "accepted")
	if got, reference, err := r.Invited(second); got != "accepted" || reference != "K-4" || err != nil {
		t.Errorf("the second invitation is %q, %v", got, err)
	}
	if list := r.Contacts(); len(list) != 1 || list[0].Alias != "K-1/ö" {
		t.Errorf("contacts %+v", list)
	}
	for _, name := range []string{"K-1/ö", "K-4"} {
		if id, err := r.Find(name); id != o.ID() || err != nil {
			t.Errorf("%s is %s, %v", name, id, err)
		}
	}
	if events := r.Events(0); len(events) != 2 || events[0].Alias != "K-1/ö" || events[0].Invitation != "K-1/ö" || events[1].Alias != "K-1/ö" || events[1].Invitation != "K-4" {
		t.Errorf("events %+v", events)
	}
	w.must(other.Accept(ctx, link, ""))
	refuses(r, "the first invitation of somebody who accepted a second")
	later, err := r.Invite("K-4", end.Add(time.Minute))
	w.must(err)
	w.must(other.Accept(ctx, later, ""))
	refuses(r, "a new link of a reference that is somebody else's second")
	w.looks(o, 0)
	w.asks(r, o, delivery())
	w.looks(o, 1)
	if list := o.Inbox(false); len(list) != 2 || len(o.state.Contacts[0].Invitations) != 2 {
		t.Errorf("after the second: %+v", list)
	}
	// Nobody became a contact whom nobody invited.
	if n := len(r.Contacts()); n != 1 {
		t.Errorf("%d contacts", n)
	}
}

// TestAwait: a business that waits hears at once, and not for ever.
func TestAwait(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, r, _ := w.met()
	c := w.asks(r, o, delivery())
	short, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
	defer cancel()
	if got, err := r.Await(short, c.ID.String()); got.Status != consent.Pending || err == nil {
		t.Errorf("nobody answered: %+v, %v", got, err)
	}
	done := make(chan error)
	go func() {
		got, err := r.Await(ctx, c.ID.String()[:6])
		if err == nil && got.Status != consent.Denied {
			err = fmt.Errorf("it is %q", got.Status)
		}
		done <- err
	}()
	w.looks(o, 1)
	begin := time.Now()
	_, err := o.Answer(ctx, c.ID.String(), nil, "")
	w.must(err)
	w.must(<-done)
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("it took %s to hear", took)
	}
	if _, err := r.Await(ctx, "ffff0000ffff"); !errors.Is(err, policies.CodeNotAsked) {
		t.Errorf("waiting for nothing: %v", err)
	}
}

// TestLastReadOfMany: when a contact last read is found however much others read since.
func TestLastReadOfMany(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, r, _ := w.met()
	other, _ := w.reader("Globex")
	w.connect(o, other, "globex")
	for _, reader := range []*Reader{r, other} {
		w.must(o.Grant(ctx, reader.ID(), []policies.Field{"phone.mobile"}, GrantOptions{Purpose: "calls", Duration: time.Hour}))
	}
	w.wantRead(r, o, "phone.mobile", "+49 1")
	items := slices.Repeat([]Item{{Owner: o.ID(), Field: "phone.mobile"}}, 100)
	for range 11 {
		values, err := other.Read(ctx, items...)
		w.must(err)
		w.must(values[99].Err)
	}
	stopped, err := o.Stop(ctx, r.ID(), nil)
	w.must(err)
	if stopped.LastRead.IsZero() || stopped.Stopped.Before(stopped.LastRead) {
		t.Errorf("stopped: %+v", stopped)
	}
}

// TestInvitationAfterRestore: a person whose device was restored from a backup that is older than the first invitation accepts another, and can be asked.
func TestInvitationAfterRestore(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	r, _ := w.reader("Acme")
	w.must(o.Set(ctx, set("address.home", "Road 1"), set("phone.mobile", "+49 1")))
	var plain []byte
	_, err := o.Backup(false, func(b []byte) error { plain = bytes.Clone(b); return nil })
	w.must(err)
	end := time.Now().Add(time.Hour)
	first, err := r.Invite("K-1", end)
	w.must(err)
	w.must(o.Accept(ctx, first, "acme"))
	w.hears(r, 1)
	w.looks(o, 0)
	o, err = RestoreOwner(new(memory), plain, Options{})
	w.must(err)
	w.must(o.Sync(ctx))
	second := first
	for i := 2; bytes.Compare(hashOf(second), hashOf(first)) <= 0; i++ { // by chance every other one
		second, err = r.Invite(fmt.Sprint("K-", i), end)
		w.must(err)
	}
	w.must(o.Accept(ctx, second, "acme"))
	w.hears(r, 1)
	w.looks(o, 0)
	w.asks(r, o, delivery())
	w.looks(o, 1)
}

func hashOf(l links.Invite) []byte { h := policies.HashKey(l.Token); return h[:] }

// TestAcceptanceKilled: killed after the book was written and before the state, the business still hears that an invitation was accepted, once.
func TestAcceptanceKilled(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	r, m := w.shelved()
	link, err := r.Invite("K-1", time.Now().Add(time.Hour))
	w.must(err)
	w.must(o.Accept(ctx, link, "shop"))
	m.limit = m.saves
	if _, err := r.Receive(ctx, 0); !errors.Is(err, errCrash) {
		t.Fatalf("it was not killed: %v", err)
	}
	w.must(r.safe.Close())
	m.limit = 0
	r = w.again(m)
	defer r.Close()
	w.hears(r, 1)
	if status, _, err := r.Invited(link); status != "accepted" || err != nil {
		t.Errorf("the invitation is %s, %v", status, err)
	}
	if events := r.Events(0); len(events) != 1 || events[0].Kind != EventAccepted {
		t.Errorf("events %+v", events)
	}
}

// TestManyAcceptances: who uses one link over and over does not use up what the business keeps of them: a code from hand to hand is taken afterwards.
func TestManyAcceptances(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	r, _ := w.reader("Acme")
	link, err := r.Invite("K-1", time.Now().Add(time.Hour))
	w.must(err)
	w.must(o.Accept(ctx, link, "acme"))
	w.hears(r, 1)
	_, doc, err := r.identity(ctx, policies.IdentityID(o.ID()))
	w.must(err)
	for range 520 { // as 520 messages of one more acceptance each do
		if _, err := r.meet(o.ID(), policies.NewNonce(), "K-1", policies.HashKey(link.Token), doc); err != nil && !errors.Is(err, policies.CodeInvitation) {
			t.Fatal(err)
		}
	}
	code, err := o.Code()
	w.must(err)
	if _, err := r.Connect(ctx, code, ""); err != nil {
		t.Errorf("a code from hand to hand: %v", err)
	}
}

// TestMetAgainWhileRead: reads of a person go on while the person accepts an invitation again. It is for the race detector.
func TestMetAgainWhileRead(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	r, _ := w.shelved()
	o := w.customer(r, "shop", "text")
	code := policies.NewNonce()
	_, doc, err := r.identity(ctx, policies.IdentityID(o.ID()))
	w.must(err)
	done, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			default:
				if _, err := r.meet(o.ID(), code, "", policies.Hash{}, doc); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	for i := range 20 {
		w.must(o.Set(ctx, set("own/a", fmt.Sprint("text ", i))))
		w.wantRead(r, o, "own/a", fmt.Sprint("text ", i))
	}
	close(done)
	<-stopped
}
