package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/catalogue"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

type bizAsk struct {
	Customer string   `arg:"" help:"Alias, which is your reference, or id of a customer."`
	Fields   []string `help:"Fields or groups that you need: a,b. The customer grants all of them or nothing." placeholder:"FIELDS"`
	Optional []string `help:"Fields or groups that you would like: c,d." placeholder:"FIELDS"`
	Reason   []string `help:"Why, for all fields, or FIELD=REASON for one; may be given several times." required:"" sep:"none" placeholder:"TEXT"`
	Purpose  string   `help:"What for, in your own words. It becomes the purpose of the grant." required:""`
	Term     string   `help:"The same as a term of the Data Privacy Vocabulary, such as ServiceProvision; see: sallyport biz purposes." default:"ServiceProvision"`
	For      string   `help:"How long you want to read: 12h, 90d, 2y." default:"1y"`
	Within   string   `help:"How long the customer has to answer, at most 60d." default:"30d"`
}

func (c *bizAsk) Run(s *session) error {
	return c.send(s, func(r *client.Reader, owner policies.OwnerID, ask client.Ask) (client.Consent, error) {
		return r.Ask(s.ctx, owner, ask)
	})
}

// send asks, by a request for consent or by another document that is one.
func (c *bizAsk) send(s *session, ask func(*client.Reader, policies.OwnerID, client.Ask) (client.Consent, error)) error {
	duration, err := parseDuration(c.For)
	if err != nil {
		return err
	}
	within, err := parseDuration(c.Within)
	if err != nil {
		return err
	}
	fields, err := c.fields()
	if err != nil {
		return err
	}
	if !consent.Term(c.Term).Valid() {
		return fmt.Errorf("%w: no purpose has the term %q; `sallyport biz purposes` lists them", errUsage, c.Term)
	}
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		owner, err := r.Find(c.Customer)
		if err != nil {
			return err
		}
		asked, err := ask(r, owner, client.Ask{
			Fields: fields, Purpose: consent.Purpose{Text: c.Purpose, Term: consent.Term(c.Term)}, Duration: duration, Waits: within,
		})
		if err != nil {
			return err
		}
		s.print(asked, func(w io.Writer) {
			fmt.Fprintf(w, "%s\t%s\tasked. The answer comes with: sallyport biz wait %s\n", shortID(asked.ID), c.Customer, shortID(asked.ID))
		})
		return nil
	})
}

// fields puts the command line's fields and reasons together.
func (c *bizAsk) fields() ([]consent.AskedField, error) {
	reason, each := "", map[policies.Field]string{}
	for _, text := range c.Reason {
		name, why, of := strings.Cut(text, "=")
		if of && policies.Field(name).Validate() == nil {
			each[policies.Field(name)] = why
			continue
		}
		if reason != "" {
			return nil, fmt.Errorf("%w: two reasons for all fields", errUsage)
		}
		reason = text
	}
	var out []consent.AskedField
	for _, part := range []struct {
		names    []string
		required bool
	}{{c.Fields, true}, {c.Optional, false}} {
		names, err := catalogue.Expand(part.names, nil)
		if err != nil {
			return nil, err
		}
		for _, f := range names {
			why := reason
			if own, ok := each[f]; ok {
				why = own
				delete(each, f)
			}
			if why == "" {
				return nil, fmt.Errorf("%w: no reason is given for %s", errUsage, f)
			}
			out = append(out, consent.AskedField{Field: f, Required: part.required, Reason: why})
		}
	}
	for f := range each {
		return nil, fmt.Errorf("%w: a reason for %s, which is not asked for", errUsage, f)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: say --fields or --optional", errUsage)
	}
	return out, nil
}

type bizPurposes struct{}

func (c *bizPurposes) Run(s *session) error {
	terms := consent.Terms()
	s.print(map[string]any{"vocabulary": consent.Namespace, "terms": terms}, func(w io.Writer) {
		for _, t := range terms {
			fmt.Fprintln(w, t)
		}
	})
	return nil
}

type bizConsents struct {
	Status  string `help:"Only these: pending, granted, partly, denied, expired, withdrawn." placeholder:"STATUS"`
	Offline bool   `help:"Do not look for new messages first."`
}

func (c *bizConsents) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		if !c.Offline {
			mail, err := r.Receive(s.ctx, 0)
			s.noteRefused(mail)
			if err != nil {
				return err
			}
		}
		list := []client.Consent{}
		for _, one := range r.Consents() {
			if c.Status == "" || string(one.Status) == c.Status {
				list = append(list, one)
			}
		}
		s.print(map[string]any{"consents": list}, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
			for i := range list {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", shortID(list[i].ID), consentParty(&list[i]), list[i].Status, consentDetail(&list[i]))
			}
			_ = t.Flush()
		})
		return nil
	})
}

func consentParty(c *client.Consent) string {
	return contactName(client.Contact{Alias: c.Alias, ID: c.Party})
}

func consentDetail(c *client.Consent) string {
	switch {
	case len(c.Fields) > 0:
		return fmt.Sprintf("%s until %s", join(c.Fields), until(c.Until))
	case c.Status == consent.Pending:
		return "until " + until(c.Expires)
	}
	return ""
}

type bizWait struct {
	Request string        `arg:"" help:"The request, by its first digits."`
	Timeout time.Duration `help:"End, with exit code 5, when nothing came for so long; 0 never." default:"0"`
}

func (c *bizWait) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		ctx, cancel := s.ctx, context.CancelFunc(func() {})
		if c.Timeout > 0 {
			ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		}
		defer cancel()
		found, err := r.Await(ctx, c.Request)
		if ctx.Err() != nil && s.ctx.Err() == nil {
			err = fmt.Errorf("%w: authorization_pending: nobody has answered yet", policies.CodeUnavailable)
		}
		if err != nil {
			return err
		}
		s.print(found, func(w io.Writer) {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", shortID(found.ID), consentParty(&found), found.Status, consentDetail(&found))
		})
		return nil
	})
}

type bizListen struct {
	Webhook    string `help:"Send each event to this URL: https, or http on this machine." placeholder:"URL"`
	SecretFile string `help:"The secret (32 random bytes, mode 0600) that signs what is sent; made if it is missing. Give the receiving program the same." placeholder:"FILE"`
	From       int64  `help:"Begin after the event of this number instead of where the last listener ended; 0 sends all that are kept again." default:"-1" placeholder:"NUMBER"`
	Once       bool   `help:"End when everything that is there has been told, or the webhook did not take an event in five tries."`
	Count      int    `help:"End after so many events; 0 never."`
}

func (c *bizListen) Run(s *session) error {
	var hook *webhook
	if c.Webhook != "" {
		if c.SecretFile == "" {
			return fmt.Errorf("%w: --webhook needs --secret-file", errUsage)
		}
		var err error
		if hook, err = newWebhook(c.Webhook, c.SecretFile); err != nil {
			return err
		}
		if hook.tell = s.note; c.Once {
			hook.tries = webhookTries
		}
	}
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		after := r.Delivered()
		if c.From >= 0 {
			after = uint64(c.From)
		}
		told := 0
		wait := time.Duration(0)
		for {
			mail, err := r.Receive(s.ctx, wait)
			s.noteRefused(mail)
			if err != nil && s.ctx.Err() == nil && (c.Once || !errors.Is(err, policies.CodeUnavailable)) {
				return err
			}
			for _, e := range r.Events(after) {
				if hook != nil {
					if err := hook.deliver(s.ctx, &e); err != nil {
						if s.ctx.Err() != nil {
							return nil // what was not taken is sent by the next listener
						}
						return err
					}
				}
				s.printLine(e, eventText(&e))
				if after = e.Number; after > r.Delivered() {
					if err := r.SetDelivered(after); err != nil {
						return err
					}
				}
				if told++; c.Count > 0 && told >= c.Count {
					return nil
				}
			}
			switch {
			case c.Once || s.ctx.Err() != nil:
				return nil
			case err != nil: // not reachable: not at once again
				sleep(s.ctx, 5*time.Second)
			}
			wait = 25 * time.Second
		}
	})
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func eventText(e *client.ConsentEvent) string {
	who := e.Alias
	if who == "" {
		who = e.Owner.String()
	}
	what := map[string]string{
		client.EventConsent: string(e.Status), client.EventDeletion: "asks for deletion of", client.EventAccepted: "accepted the invitation",
		client.EventOrder: "orders a deposit of", client.EventSlip: "sent the order to forward",
	}[e.Kind]
	if e.Invitation != "" && e.Invitation != e.Alias {
		what += " of " + oneLine(e.Invitation)
	}
	return strings.TrimSpace(fmt.Sprintf("%d\t%s\t%s\t%s", e.Number, who, what, join(e.Fields)))
}
