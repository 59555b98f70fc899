package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/catalogue"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

type meInvite struct {
	Name string `arg:"" help:"${flag_invite_name}"`
	For  string `help:"${flag_invite_for}" default:"30d"`
}

func (c *meInvite) Run(s *session) error {
	duration, err := parseDuration(c.For)
	if err != nil {
		return err
	}
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		expires := time.Now().Add(duration)
		link, err := o.InvitePerson(c.Name, expires)
		if err != nil {
			return err
		}
		s.print(map[string]any{"link": link.String(), "expires": expires.UTC().Truncate(time.Second)}, func(w io.Writer) { fmt.Fprintln(w, link) })
		if !s.JSON {
			s.note("%s", s.say("invite.hand", "name", c.Name))
		}
		return nil
	})
}

type meAsk struct {
	Person   string   `arg:"" help:"${flag_ask_person}"`
	Fields   []string `help:"${flag_ask_fields}" placeholder:"FIELDS"`
	Optional []string `help:"${flag_ask_optional}" placeholder:"FIELDS"`
	Reason   []string `help:"${flag_ask_reason}" required:"" sep:"none" placeholder:"TEXT"`
	For      string   `help:"${flag_grant_for}" default:"1y"`
}

func (c *meAsk) Run(s *session) error {
	duration, err := parseDuration(c.For)
	if err != nil {
		return err
	}
	asked := bizAsk{Fields: c.Fields, Optional: c.Optional, Reason: c.Reason}
	fields, err := asked.fields()
	if err != nil {
		return err
	}
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		done, err := o.AskPerson(s.ctx, c.Person, client.Ask{
			Fields: fields, Purpose: consent.Purpose{Text: client.DefaultPurpose, Term: "NonCommercialPurpose"}, Duration: duration,
		})
		if err != nil {
			return err
		}
		s.print(done, func(w io.Writer) { fmt.Fprintln(w, s.say("ask.done", "id", shortID(done.ID), "name", c.Person)) })
		return nil
	})
}

type meAsked struct{}

func (c *meAsked) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		mail, err := o.Receive(s.ctx)
		s.noteRefused(mail)
		if err != nil {
			return err
		}
		list, err := o.AskedPeople()
		if err != nil {
			return err
		}
		s.print(map[string]any{"asked": list}, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
			for i := range list {
				state := s.say("consent.waiting")
				if list[i].Status != consent.Pending {
					state = s.say("consent.state." + string(list[i].Status))
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", shortID(list[i].ID), consentParty(&list[i]), state, join(list[i].Fields))
			}
			_ = t.Flush()
		})
		s.noteNone(len(list), "asked")
		return nil
	})
}

type meContacts struct {
	Refresh bool `help:"${flag_contacts_refresh}"`
}

func (c *meContacts) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		var failed error // which hides nobody what is here
		if c.Refresh {
			mail, err := o.Receive(s.ctx)
			s.noteRefused(mail)
			if err != nil {
				return err
			}
			gone, refused, err := o.Refresh(s.ctx)
			if err != nil {
				return err
			}
			for i := range gone {
				s.note("%s", s.say("contacts.gone", "field", gone[i].Field))
			}
			for i := range refused {
				failed = refused[i].Err
				s.note("%s", s.say("contacts.refused", "field", refused[i].Field, "why", s.reason(failed)))
			}
		}
		contacts := o.Contacts()
		people, err := peopleOf(o)
		if err != nil {
			return err
		}
		s.print(map[string]any{"contacts": contacts, "people": people}, func(w io.Writer) {
			s.contactTable(w, contacts)
			t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
			for _, p := range people {
				for _, f := range p.Fields {
					fmt.Fprintf(t, "%s\t%s\t%s\n", contactName(p.Contact), f.Field, oneLine(f.Text))
				}
				if len(p.Fields) == 0 {
					fmt.Fprintf(t, "%s\t\t%s\n", contactName(p.Contact), s.say("contacts.nothing"))
				}
			}
			_ = t.Flush()
		})
		s.noteNone(len(contacts)+len(people), "contacts")
		if failed != nil {
			return errQuiet{failed}
		}
		return nil
	})
}

// personRow is somebody of whom this person may read something, as printed.
type personRow struct {
	client.Contact
	Fields []pieceRow `json:"fields"`
}

type pieceRow struct {
	Field   policies.Field   `json:"field"`
	Text    string           `json:"text"`
	Value   *catalogue.Value `json:"value"`
	Version uint64           `json:"version"`
	Read    time.Time        `json:"read"` // when it was last known to be the newest
}

func peopleOf(o *client.Owner) ([]personRow, error) {
	people, err := o.People()
	if err != nil {
		return nil, err
	}
	out := []personRow{}
	for _, p := range people {
		row := personRow{Contact: p.Contact, Fields: []pieceRow{}}
		for _, have := range p.Pieces {
			v, err := catalogue.Parse(have.Value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", have.Field, err)
			}
			row.Fields = append(row.Fields, pieceRow{Field: have.Field, Text: v.String(), Value: v, Version: have.Version, Read: have.Read})
		}
		out = append(out, row)
	}
	return out, nil
}
