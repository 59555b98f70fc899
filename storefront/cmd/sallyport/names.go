package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/catalogue"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

// standing is what is known of a contact's name, in words, empty for one without a name and a website.
func (s *session) standing(c *client.Contact) string {
	var out []string
	if !c.VouchedUntil.IsZero() {
		out = append(out, s.say("verified.operator", "date", c.VouchedUntil.Local().Format(time.DateOnly)))
	}
	if c.Domain != "" {
		out = append(out, s.say("verified.domain", "domain", c.Domain, "date", c.DomainUntil.Local().Format(time.DateOnly)))
	}
	if len(out) == 0 && c.Name != "" {
		out = append(out, s.say("unverified"))
	}
	if c.LooksLike != "" {
		out = append(out, s.say("name.alike", "other", c.LooksLike))
	}
	if c.Mixed {
		out = append(out, s.say("name.mixed"))
	}
	return strings.Join(out, "; ")
}

// named is a contact's name with what is known of it.
func (s *session) named(c *client.Contact) string {
	standing := s.standing(c)
	switch {
	case c.Name != "":
		return fmt.Sprintf("%q (%s)", c.Name, standing)
	case standing != "":
		return fmt.Sprintf("(%s)", standing)
	}
	return ""
}

// silenced says that a contact was muted or blocked.
func (s *session) silenced(c *client.Contact) string {
	switch {
	case c.Blocked:
		return s.say("contacts.blocked")
	case c.Muted:
		return s.say("contacts.muted")
	}
	return ""
}

type meWebsite struct {
	Contact string `arg:"" help:"${flag_reader}"`
	Domain  string `arg:"" help:"${flag_website_domain}"`
	At      string `help:"Reach the domain at this address, with a development vault." placeholder:"HOST:PORT" hidden:""`
}

func (c *meWebsite) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		reader, err := o.Find(c.Contact)
		if err != nil {
			return err
		}
		contact, err := o.CheckWebsite(s.ctx, reader, c.Domain, c.At)
		if err != nil {
			return err
		}
		s.print(contact, func(w io.Writer) {
			fmt.Fprintln(w, s.say("website.done", "domain", c.Domain, "name", contactName(contact), "date", contact.DomainUntil.Local().Format(time.DateOnly)))
		})
		return nil
	})
}

type meGiveUp struct {
	Person string   `arg:"" help:"${flag_ask_person}"`
	Fields []string `arg:"" optional:"" help:"${flag_giveup_fields}"`
}

func (c *meGiveUp) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		fields, err := catalogue.Expand(c.Fields, nil)
		if err != nil {
			return err
		}
		given, err := o.GiveUp(s.ctx, c.Person, fields...)
		if err != nil {
			return saidClosed(s, c.Person, err)
		}
		s.print(map[string]any{"given_up": given}, func(w io.Writer) { fmt.Fprintln(w, s.say("giveup.done", "fields", join(given), "name", c.Person)) })
		return nil
	})
}

// saidClosed adds to an error of giving up, if a closing is only said, whose it may be and that the wish is kept.
func saidClosed(s *session, person string, err error) error {
	if errors.Is(err, client.ErrSaidClosed) {
		return s.adding(err, "giveup.said_closed", "name", person)
	}
	return err
}

type bizGiveUp struct {
	Owner  string   `arg:"" help:"A customer: your reference, or the id."`
	Fields []string `arg:"" optional:"" help:"Fields or groups; none means all that this customer granted."`
}

func (c *bizGiveUp) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		owner, err := r.Find(c.Owner)
		if err != nil {
			return err
		}
		fields, err := catalogue.Expand(c.Fields, nil)
		if err != nil {
			return err
		}
		given, err := r.GiveUp(s.ctx, owner, fields...)
		if err != nil {
			return err
		}
		s.print(map[string]any{"given_up": given}, func(w io.Writer) {
			fmt.Fprintf(w, "Given up: %s. `sallyport biz grants` lists what may still be read.\n", join(given))
		})
		return nil
	})
}

type bizName struct{}

func (c *bizName) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		me, err := r.Name(s.ctx)
		if err != nil {
			return err
		}
		s.print(me, func(w io.Writer) {
			if me.Name == "" {
				fmt.Fprintln(w, "This profile has no public name.")
				return
			}
			fmt.Fprintln(w, s.named(&me))
		})
		return nil
	})
}

type bizWebsite struct {
	Domain string `arg:"" help:"Your domain, like shop.example."`
	For    string `help:"For how long the statement is good: 90d, 1y." default:"1y"`
}

func (c *bizWebsite) Run(s *session) error {
	duration, err := parseDuration(c.For)
	if err != nil {
		return err
	}
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		file, err := r.State(c.Domain, duration)
		if err != nil {
			return err
		}
		b, err := json.Marshal(file, jsontext.WithIndent("  "))
		if err != nil {
			return err
		}
		fmt.Fprintln(s.stdout, string(b))
		s.note("Serve this at https://%s%s, without a redirect. It is no secret. Customers check it with `sallyport me website`.", c.Domain, names.WellKnown)
		return nil
	})
}
