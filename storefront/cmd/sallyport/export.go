package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"math"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/catalogue"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

type meExport struct {
	Format string `help:"${flag_export_format}" default:"vcard" enum:"vcard,json,csv"`
	Output string `help:"${flag_output}" placeholder:"FILE"`
	Yes    bool   `help:"${flag_yes}"`
}

// exported is everything about a person, as `me export --format json` writes it: what they published, whom they met, what they allowed, and what the vault's
// log says of them, each entry of which was proven.
type exported struct {
	ID       policies.OwnerID   `json:"id"`
	Fields   []exportedField    `json:"fields"`
	Contacts []client.Contact   `json:"contacts"`
	People   []personRow        `json:"people"`
	Requests []client.Consent   `json:"requests"` // from others, with receipts
	Asked    []client.Consent   `json:"asked"`    // of others
	Grants   []client.GrantInfo `json:"permissions"`
	History  []client.Event     `json:"history"`
}

type exportedField struct {
	client.FieldInfo
	Text  string           `json:"text"`
	Value *catalogue.Value `json:"value"`
}

func (c *meExport) Run(s *session) error {
	if err := s.fitFile(c.Output, c.Yes); err != nil {
		return err
	}
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		all := exported{ID: o.ID(), Fields: []exportedField{}}
		for _, f := range o.Fields() {
			v, err := getValue(s, o, f.Field)
			if err != nil {
				return err
			}
			all.Fields = append(all.Fields, exportedField{f, v.String(), v})
		}
		var out []byte
		result := map[string]any{"format": c.Format}
		var err error
		switch c.Format {
		case "vcard":
			out = exportCard(s, all.Fields, result)
		case "csv":
			out, err = exportTable(all.Fields)
			result["table"] = string(out)
		case "json":
			all.Contacts, all.Grants, all.Requests = o.Contacts(), o.Grants(true), o.Inbox(true)
			if all.People, err = peopleOf(o); err != nil {
				return err
			}
			if all.Asked, err = o.AskedPeople(); err != nil {
				return err
			}
			if all.History, err = o.History(s.ctx, math.MaxInt); err == nil {
				out, err = json.Marshal(all, json.Deterministic(true), jsontext.WithIndent("  "), json.FormatNilSliceAsNull(false))
				out = append(out, '\n')
			}
			result["export"] = jsontext.Value(out)
		default:
			err = errUsage
		}
		if err != nil {
			return err
		}
		if c.Output != "" {
			if err := profile.WriteFile(c.Output, out); err != nil {
				return err
			}
			s.print(map[string]any{"format": c.Format, "file": c.Output}, func(io.Writer) { s.note("%s", s.say("export.written", "file", c.Output)) })
			return nil
		}
		s.print(result, func(w io.Writer) { _, err = w.Write(out) })
		return err
	})
}

func exportCard(s *session, fields []exportedField, result map[string]any) []byte {
	values := map[policies.Field]*catalogue.Value{}
	for _, f := range fields {
		values[f.Field] = f.Value
	}
	card, omitted := catalogue.Export(values)
	if len(omitted) > 0 {
		s.note("%s", s.say("export.omitted", "fields", join(omitted)))
	}
	result["card"], result["omitted"] = string(card), omitted
	return card
}

// exportTable is RFC 4180, with a head. A value that a spreadsheet would take for a formula is led by an apostrophe (OWASP, CSV injection): it came from
// others, when it was taken from a card, and the one who opens the table may be a third.
func exportTable(fields []exportedField) ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.UseCRLF = true
	err := w.Write([]string{"field", "version", "value"})
	for _, f := range fields {
		text := f.Text
		if text != "" && bytes.ContainsRune([]byte("=+-@\t\r"), rune(text[0])) {
			text = "'" + text
		}
		err = errors.Join(err, w.Write([]string{string(f.Field), strconv.FormatUint(f.Version, 10), text}))
	}
	w.Flush()
	return b.Bytes(), errors.Join(err, w.Error())
}
