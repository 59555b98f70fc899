package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/catalogue"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

type meIncoming struct{}

func (c *meIncoming) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		list, err := o.Incoming(s.ctx)
		if err != nil {
			return err
		}
		type row struct {
			client.Written
			Text string `json:"text"`
		}
		rows := []row{}
		for _, w := range list {
			text := ""
			if v, err := catalogue.Parse(w.Bytes); err == nil {
				text = v.String()
			} else {
				text = s.say("incoming.unreadable")
			}
			rows = append(rows, row{w, text})
		}
		s.print(map[string]any{"incoming": rows}, func(w io.Writer) {
			if len(rows) == 0 {
				fmt.Fprintln(w, s.say("incoming.none"))
				return
			}
			t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
			for _, r := range rows {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.Field, oneLine(r.Text), writerName(r.Alias, r.Writer), r.Time.Local().Format("2006-01-02 15:04"))
			}
			_ = t.Flush()
			fmt.Fprintln(w, s.say("incoming.means"))
		})
		return nil
	})
}

func writerName(alias string, id policies.AuthorID) string {
	if alias == "" {
		return id.String()
	}
	return alias
}

type meAdopt struct {
	Field string `arg:"" help:"${flag_incoming_field}"`
	From  string `help:"${flag_incoming_from}" placeholder:"CONTACT"`
}

func (c *meAdopt) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		f := policies.Field(c.Field)
		writer, err := s.whoWrote(o, f, c.From)
		if err != nil {
			return err
		}
		if err := o.Adopt(s.ctx, writer, f); err != nil {
			return err
		}
		s.print(map[string]any{"adopted": f, "writer": writer}, func(w io.Writer) { fmt.Fprintln(w, s.say("adopted", "field", f)) })
		return nil
	})
}

type meReject struct {
	Field string `arg:"" help:"${flag_incoming_field}"`
	From  string `help:"${flag_incoming_from}" placeholder:"CONTACT"`
}

func (c *meReject) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		f := policies.Field(c.Field)
		writer, err := s.whoWrote(o, f, c.From)
		if err != nil {
			return err
		}
		if err := o.Reject(s.ctx, writer, f); err != nil {
			return err
		}
		s.print(map[string]any{"rejected": f, "writer": writer}, func(w io.Writer) {
			fmt.Fprintln(w, s.say("rejected", "field", f))
		})
		return nil
	})
}

// whoWrote finds the writer that is meant: the one named, or the only one there is.
func (s *session) whoWrote(o *client.Owner, f policies.Field, from string) (policies.AuthorID, error) {
	if from != "" {
		id, err := o.Find(from)
		return policies.AuthorID(id), err
	}
	var found []policies.AuthorID
	var names []string
	for _, w := range o.Writers(true) {
		if w.Field == f && !slices.Contains(found, w.Writer) {
			found, names = append(found, w.Writer), append(names, writerName(w.Alias, w.Writer))
		}
	}
	switch len(found) {
	case 0:
		return policies.AuthorID{}, fmt.Errorf("%w: nobody else may write %s", policies.CodeNoWriteGrant, f)
	case 1:
		return found[0], nil
	}
	return policies.AuthorID{}, fmt.Errorf("%w: %s", errUsage, s.say("incoming.several", "who", strings.Join(names, ", "), "field", f))
}

type bizWrite struct {
	Owner string   `arg:"" optional:"" help:"Alias or id of a customer."`
	Field string   `arg:"" optional:"" help:"The field; none lists what you may write."`
	Value []string `arg:"" optional:"" help:"The value; several are lines, or part=value pairs of a name or an address. Without one it is read from standard input."`
	File  string   `help:"Read the value from a file." placeholder:"FILE"`
}

func (c *bizWrite) Run(s *session) error {
	if c.Field == "" {
		return c.list(s)
	}
	f := policies.Field(c.Field)
	b, err := s.value(f, c.Value, c.File)
	if err != nil {
		return err
	}
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		owner, err := r.Find(c.Owner)
		if err != nil {
			return err
		}
		if err := r.Write(s.ctx, owner, client.Change{Field: f, Value: b}); err != nil {
			return err
		}
		s.print(map[string]any{"owner": owner, "written": []policies.Field{f}}, func(w io.Writer) { fmt.Fprintf(w, "%s of %s is written.\n", f, c.Owner) })
		return nil
	})
}

func (c *bizWrite) list(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		list, err := r.Writable(s.ctx)
		if err != nil {
			return err
		}
		type row struct {
			client.Writable
			Alias string `json:"alias,omitzero"`
		}
		rows := []row{}
		for _, w := range list {
			if c.Owner == "" || name(r, w.Owner) == c.Owner || w.Owner.String() == c.Owner {
				rows = append(rows, row{w, name(r, w.Owner)})
			}
		}
		s.print(map[string]any{"writable": rows}, func(w io.Writer) {
			for _, r := range rows {
				fmt.Fprintf(w, "%s\t%s\tuntil %s\n", r.Alias, r.Field, until(r.Expires))
			}
		})
		return nil
	})
}
