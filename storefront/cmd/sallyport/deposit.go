package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/registry"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

type meRegistry struct {
	Rule string `arg:"" enum:"anyone,introduced" help:"${flag_registry_rule}"`
}

func (c *meRegistry) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		if err := o.Register(s.ctx, registry.Lookup(c.Rule)); err != nil {
			return err
		}
		s.print(map[string]any{"lookup": c.Rule}, func(w io.Writer) { fmt.Fprintln(w, s.say("registry."+c.Rule)) })
		return nil
	})
}

type meIntroduce struct {
	Whom    string `arg:"" help:"${flag_introduce_whom}"`
	To      string `arg:"" help:"${flag_introduce_to}"`
	Purpose string `help:"${flag_grant_purpose}" required:"" placeholder:"TEXT"`
}

func (c *meIntroduce) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		whom, err := o.Find(c.Whom)
		if err != nil {
			return err
		}
		to, err := o.Find(c.To)
		if err != nil {
			return err
		}
		if whom == to {
			return s.adding(errUsage, "usage.introduce")
		}
		if err := o.Introduce(s.ctx, whom, to, c.Purpose); err != nil {
			return err
		}
		s.print(map[string]any{"introduced": whom, "to": to}, func(w io.Writer) { fmt.Fprintln(w, s.say("introduced", "whom", c.Whom, "to", c.To)) })
		return nil
	})
}

type bizRegistry struct {
	Rule string `arg:"" enum:"anyone,introduced" help:"anyone: whoever has your id. introduced: whom you or one of your customers introduced, and whom you signed something for; then nobody can accept an invitation of yours."`
}

func (c *bizRegistry) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		if err := r.Register(s.ctx, registry.Lookup(c.Rule)); err != nil {
			return err
		}
		s.print(map[string]any{"lookup": c.Rule}, func(w io.Writer) { fmt.Fprintf(w, "You are looked up by: %s.\n", c.Rule) })
		return nil
	})
}

type bizIntroductions struct{}

func (c *bizIntroductions) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		if err := s.receive(r); err != nil {
			return err
		}
		list := r.Introductions()
		s.print(map[string]any{"introductions": list}, func(w io.Writer) {
			for _, i := range list {
				used := ""
				if i.Used {
					used = "used"
				}
				fmt.Fprintf(w, "%s\tby %s\t%s\tuntil %s\t%s\n", i.Subject, contactName(client.Contact{Alias: i.Alias, ID: i.By}), oneLine(i.Purpose), until(i.Expires), used)
			}
		})
		return nil
	})
}

// receive fetches messages, and says which were thrown away.
func (s *session) receive(r *client.Reader) error {
	mail, err := r.Receive(s.ctx, 0)
	s.noteRefused(mail)
	return err
}

type bizLookup struct {
	ID string `arg:"" help:"The id of the other party, from an introduction or from itself."`
	As string `help:"Your own name for it." placeholder:"ALIAS"`
}

func (c *bizLookup) Run(s *session) error {
	id, err := parseIdentity(c.ID)
	if err != nil {
		return err
	}
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		party, err := r.LookUp(s.ctx, id, c.As)
		if err != nil {
			return err
		}
		s.print(party, func(w io.Writer) {
			fmt.Fprintf(w, "%s\t%s\t%q, UNVERIFIED\n", contactName(party), party.ID, party.Name)
		})
		return nil
	})
}

func parseIdentity(text string) (id policies.IdentityID, err error) {
	return id, id.UnmarshalText([]byte(text))
}

type bizSpecify struct {
	bizAsk `embed:""`
	Source string `help:"Who is to deposit the fields: alias or id of a party that you looked up." required:"" placeholder:"PARTY"`
}

func (c *bizSpecify) Run(s *session) error {
	return c.send(s, func(r *client.Reader, owner policies.OwnerID, ask client.Ask) (client.Consent, error) {
		source, err := r.Party(c.Source)
		if err != nil {
			return client.Consent{}, err
		}
		return r.Specify(s.ctx, owner, source, ask)
	})
}

type bizForward struct {
	Request string `arg:"" help:"The specification, by its first digits."`
}

func (c *bizForward) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		if err := s.receive(r); err != nil {
			return err
		}
		if err := r.Forward(s.ctx, c.Request); err != nil {
			return err
		}
		s.print(map[string]any{"forwarded": c.Request}, func(w io.Writer) {
			fmt.Fprintln(w, "The order, which only the source can open, is on its way to the source.")
		})
		return nil
	})
}

type bizOrders struct{}

func (c *bizOrders) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		if err := s.receive(r); err != nil {
			return err
		}
		list := r.Orders()
		s.print(map[string]any{"orders": list}, func(w io.Writer) {
			for i := range list {
				s.printOrder(w, &list[i])
			}
		})
		return nil
	})
}

func (s *session) printOrder(w io.Writer, o *client.Order) {
	fmt.Fprintf(w, "%s  %s, for %s (%q, UNVERIFIED): %s (%s), until %s\n", shortID(o.ID), contactName(client.Contact{Alias: o.Alias, ID: policies.IdentityID(o.Customer)}),
		o.Requester, oneLine(o.Name), oneLine(o.Purpose.Text), o.Purpose.Term, until(o.Until))
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, f := range o.Asked {
		state := ""
		for _, done := range o.Deposited {
			if done == f.Field {
				state = "deposited"
			}
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\n", f.Field, oneLine(f.Reason), state)
	}
	_ = t.Flush()
}

type bizDeposit struct {
	Order string   `arg:"" help:"The order, by its first digits; see: sallyport biz orders."`
	Field string   `arg:"" help:"The field."`
	Value []string `arg:"" optional:"" help:"The value; several are lines, or part=value pairs of a name or an address. Without one it is read from standard input."`
	File  string   `help:"Read the value from a file." placeholder:"FILE"`
}

func (c *bizDeposit) Run(s *session) error {
	f := policies.Field(c.Field)
	b, err := s.value(f, c.Value, c.File)
	if err != nil {
		return err
	}
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		if err := r.Deposit(s.ctx, c.Order, client.Change{Field: f, Value: b}); err != nil {
			return err
		}
		s.print(map[string]any{"order": c.Order, "deposited": []policies.Field{f}}, func(w io.Writer) { fmt.Fprintf(w, "%s is attested and deposited.\n", f) })
		return nil
	})
}

type bizCollect struct {
	Request string `arg:"" help:"The specification, by its first digits."`
}

func (c *bizCollect) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		if err := s.receive(r); err != nil {
			return err
		}
		values, err := r.Collect(s.ctx, c.Request)
		if err != nil {
			return err
		}
		type collected struct {
			row
			Source      policies.IdentityID `json:"source"`
			Attestation jsontext.Value      `json:"attestation,omitzero"` // envelope
			Attested    time.Time           `json:"attested,omitzero"`    // by the source's clock
		}
		var rows []collected
		var failed error
		for i := range values {
			v := &values[i]
			rows = append(rows, collected{newRow(r, &v.Value), v.Source, v.Attestation, v.Time})
			if v.Err != nil && (failed == nil || errors.Is(v.Err, client.ErrUntrue)) {
				failed = v.Err
			}
		}
		s.print(map[string]any{"values": rows}, func(w io.Writer) {
			for i := range rows {
				if rows[i].Error != nil {
					rows[i].print(s.stderr)
					continue
				}
				fmt.Fprintf(w, "%s\t%s\tattested by %s on %s\n", rows[i].Field, oneLine(rows[i].Text), rows[i].Source, rows[i].Attested.Local().Format(time.DateOnly))
			}
		})
		if failed != nil {
			return errQuiet{failed}
		}
		return nil
	})
}
