package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/catalogue"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

type bizCommands struct {
	Init     bizInit     `cmd:"" help:"Make the business's profile: keys, backup, registration."`
	Code     bizCode     `cmd:"" help:"Print the business's code, for customers."`
	Connect  bizConnect  `cmd:"" help:"Meet a customer by the code they gave you. Example: sallyport biz connect CODE --as CUST-1"`
	Contacts bizContacts `cmd:"" help:"List whom you have met."`
	Grants   bizGrants   `cmd:"" help:"List the fields that may be read now."`
	Read     bizRead     `cmd:"" help:"Read fields. Example: sallyport biz read CUST-1 phone.mobile postal"`
	Write    bizWrite    `cmd:"" help:"Write a field of a customer who lets you. Example: sallyport biz write CUST-1 phone.mobile \"+49 151 2345678\""`
	Watch    bizWatch    `cmd:"" help:"Print fields whenever they change."`
	Ask      bizAsk      `cmd:"" help:"Ask a customer for fields. Example: sallyport biz ask CUST-1 --fields address.home --reason \"where to\" --purpose delivery"`
	Purposes bizPurposes `cmd:"" help:"List the terms for purposes."`
	Consents bizConsents `cmd:"" help:"List what you asked for and what became of it."`
	Wait     bizWait     `cmd:"" help:"Wait for the answer to a request."`
	Listen   bizListen   `cmd:"" help:"Print answers as they come, or send them to a webhook. Example: sallyport biz listen --webhook https://shop.example/hook --secret-file hook.key"`
	Receive  bizReceive  `cmd:"" help:"Be the webhook, for trying it out: verify and print what biz listen sends."`
	Invite   bizInvite   `cmd:"" help:"Make invitations, one for each row of a CSV file. Example: sallyport biz invite --csv customers.csv --out links.csv"`
	Invited  bizInvited  `cmd:"" help:"Show who has accepted. Example: sallyport biz invited links.csv"`
	Registry bizRegistry `cmd:"" help:"Say who may look you up. Example: sallyport biz registry introduced"`

	Introductions bizIntroductions `cmd:"" help:"List whom your customers introduced to you."`
	Lookup        bizLookup        `cmd:"" help:"Look a party up and keep who it is. Example: sallyport biz lookup ID --as employer"`
	Specify       bizSpecify       `cmd:"" help:"Ask a customer for fields that a source is to deposit. Example: sallyport biz specify CUST-1 --source employer --fields own/income --reason \"net income\" --purpose loan"`
	Forward       bizForward       `cmd:"" help:"Hand the customer's order, which you cannot open, to the source."`
	Orders        bizOrders        `cmd:"" help:"List what customers order you to deposit for others."`
	Deposit       bizDeposit       `cmd:"" help:"Attest and deposit a value for a customer. Example: sallyport biz deposit 3f9a02c1 own/income 2500"`
	Collect       bizCollect       `cmd:"" help:"Read what a source deposited, and verify its attestation. Example: sallyport biz collect 3f9a02c1"`

	History    bizHistory    `cmd:"" help:"Show what the key-use log says of you, with proof. Example: sallyport biz history --owner CUST-1 --since 30d"`
	Checkpoint bizCheckpoint `cmd:"" help:"Print the newest state of the key-use log that this device has proof of, or compare it with somebody else's."`
	GiveUp     bizGiveUp     `cmd:"" help:"Give up what a customer granted: the keys are destroyed. Example: sallyport biz give-up CUST-1 phone.mobile"`
	Name       bizName       `cmd:"" help:"Show the business's name as others see it, and whether the operator vouches for it."`
	Website    bizWebsite    `cmd:"" help:"Print the file by which your website says that this business is yours. Example: sallyport biz website shop.example"`
	Replace    bizReplace    `cmd:"" help:"The keys were stolen: suspend all that was granted, and make new ones. Example: sallyport biz replace --backup /media/stick/new.sallyport --old-backup /media/stick/backup.sallyport"`
	Backup     bizBackup     `cmd:"" help:"Write a backup file."`
	Restore    bizRestore    `cmd:"" help:"Make the profile from a backup file, also on a second machine of the business."`
	Merge      bizMerge      `cmd:"" help:"Take in from another machine's backup file whom it met. Example: sallyport biz merge /media/stick/office.sallyport"`
}

type bizInit struct {
	Join   string `help:"The join link of the vault, from its operator, not from a storefront." required:"" placeholder:"LINK"`
	Name   string `help:"How the business calls itself. Others see it as UNVERIFIED until the operator vouches for it, or your website does."`
	Person bool   `help:"The reader is a person, not a business, and has no public name."`
	Backup string `help:"Where to write the backup file. Default: backup.sallyport in the profile's folder." placeholder:"FILE"`
}

func (c *bizInit) Run(s *session) error {
	kind := policies.KindBusiness
	if c.Person {
		kind = policies.KindPerson
		if c.Name != "" {
			return fmt.Errorf("%w: a person's identity carries no name; leave out --name", errUsage)
		}
	}
	network, options, err := s.joining(c.Join)
	if err != nil {
		return err
	}
	p, err := s.createProfile("biz", true)
	if err != nil {
		return err
	}
	defer p.Close()
	r, err := client.InitReader(s.ctx, p, network, kind, c.Name, options)
	if r == nil {
		return err
	}
	defer r.Close()
	file, elsewhere := c.Backup, c.Backup != ""
	if file == "" {
		file = filepath.Join(p.Dir(), ownBackup)
	}
	if _, backupErr := r.Backup(elsewhere, writeBackup(p, file)); backupErr != nil {
		return errors.Join(err, backupErr)
	}
	if s.KeyFile != "" {
		s.note("Keep the key file %s safe and secret: without it nothing that customers grant can be read.", s.KeyFile)
	} else {
		s.note("Keep the passphrase safe: nobody can reset it, and without it nothing that customers grant can be read.")
	}
	s.note("Copy the backup file %s to another place: if this machine is lost, it is the only way back.", file)
	s.note("Take a customer's code only from the customer: the code is what makes sure that the data is theirs.")
	if err != nil {
		return fmt.Errorf("the profile is made, but not registered yet; the next command tries again: %w", err)
	}
	s.warnVault(r.Vault(s.ctx))
	s.print(map[string]any{"id": r.ID(), "code": r.Code().String(), "profile": p.Dir(), "backup": file}, func(w io.Writer) {
		fmt.Fprintf(w, "The profile is in %s.\nThe code for customers is %s\n", p.Dir(), r.Code())
	})
	return nil
}

type bizCode struct{}

func (c *bizCode) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		s.print(map[string]any{"code": r.Code().String()}, func(w io.Writer) { fmt.Fprintln(w, r.Code()) })
		return nil
	})
}

type bizConnect struct {
	Code string `arg:"" help:"The code that the customer gave you."`
	As   string `help:"Your own name for the customer." placeholder:"ALIAS"`
}

func (c *bizConnect) Run(s *session) error {
	code, err := links.ParseContact(c.Code)
	if err != nil {
		return err
	}
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		was := r.Alias(policies.OwnerID(code.ID))
		contact, err := r.Connect(s.ctx, code, c.As)
		if err != nil {
			return err
		}
		s.print(contact, func(w io.Writer) {
			fmt.Fprintf(w, "%s is in your contacts. Next the customer takes your code, which `sallyport biz code` prints; that does not work if somebody else used theirs before you.\n", contactName(contact))
		})
		s.noteRenamed(was, contact)
		return nil
	})
}

type bizContacts struct{}

func (c *bizContacts) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		s.printContacts(r.Contacts())
		return nil
	})
}

// name is what this business calls an owner: the alias, or else the id.
func name(r *client.Reader, owner policies.OwnerID) string {
	return cmp.Or(r.Alias(owner), owner.String())
}

type bizGrants struct{}

func (c *bizGrants) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		fields, err := r.GrantedFields(s.ctx, policies.OwnerID{})
		if err != nil {
			return err
		}
		type row struct {
			Owner   policies.OwnerID `json:"owner"`
			Alias   string           `json:"alias,omitzero"`
			Field   policies.Field   `json:"field"`
			Custody policies.Custody `json:"custody"`
		}
		rows := []row{}
		for _, f := range fields {
			rows = append(rows, row{f.Owner, cmp.Or(f.Alias, f.Owner.String()), f.Field, f.Custody})
		}
		s.print(map[string]any{"grants": rows}, func(w io.Writer) {
			for _, row := range rows {
				fmt.Fprintf(w, "%s\t%s\tcustody %s\n", row.Alias, row.Field, row.Custody)
			}
		})
		return nil
	})
}

type bizRead struct {
	Owner  string   `arg:"" optional:"" help:"Alias or id of a customer."`
	Fields []string `arg:"" optional:"" help:"Fields or groups; none means all that this customer granted."`
	All    bool     `help:"All fields of all customers."`
	Known  uint64   `help:"The version you have already: prints nothing new if it is the newest. For one field." placeholder:"VERSION"`

	Evidence bool `help:"Demand proof, now, that the key-use log has each of these reads as they were answered. A value without it is not printed. With --json the proof is printed too, for your own files."`
}

// row is one value as printed.
type row struct {
	Owner     policies.OwnerID  `json:"owner"`
	Alias     string            `json:"alias,omitzero"`
	Field     policies.Field    `json:"field"`
	Version   uint64            `json:"version,omitzero"`
	Text      string            `json:"text,omitzero"`
	Value     *catalogue.Value  `json:"value,omitzero"`
	Unchanged bool              `json:"unchanged,omitzero"`
	Custody   policies.Custody  `json:"custody,omitzero"`
	WrittenBy policies.AuthorID `json:"written_by,omitzero"` // if it was not the owner
	Time      time.Time         `json:"time,omitzero"`       // the vault's
	LogIndex  uint64            `json:"log_index,omitzero"`
	Evidence  *client.Proof     `json:"evidence,omitzero"`
	Error     *rowError         `json:"error,omitzero"`
}

type rowError struct {
	Code policies.Code `json:"code,omitzero"`
	Text string        `json:"text"`
}

func newRow(r *client.Reader, v *client.Value) row {
	out := row{Owner: v.Owner, Alias: name(r, v.Owner), Field: v.Field, Version: v.Version, Unchanged: v.Unchanged, Custody: v.Custody, Time: v.Time, LogIndex: v.Index, Evidence: v.Proof}
	if v.Err == nil && v.Author != policies.AuthorID(v.Owner) {
		out.WrittenBy = v.Author
	}
	err := v.Err
	if err == nil && !v.Unchanged {
		if out.Value, err = catalogue.Parse(v.Bytes); err == nil {
			out.Text = out.Value.String()
		}
	}
	if err != nil {
		out.Error = &rowError{Text: err.Error()}
		errors.As(err, &out.Error.Code)
	}
	return out
}

func (out *row) print(w io.Writer) {
	what := oneLine(out.Text)
	switch {
	case out.Error != nil:
		what = "refused: " + out.Error.Text
	case out.Unchanged:
		what = "unchanged"
	}
	if !out.WrittenBy.IsZero() {
		what += fmt.Sprintf("\twritten by %s", out.WrittenBy)
	}
	fmt.Fprintf(w, "%s\t%s\t%s\n", out.Alias, out.Field, what)
}

// items finds out what a command line asks for.
func (s *session) items(r *client.Reader, owner string, fields []string, all bool) ([]client.Item, error) {
	if all == (owner != "") {
		return nil, fmt.Errorf("%w: name a customer, or say --all", errUsage)
	}
	var id policies.OwnerID
	if !all {
		var err error
		if id, err = r.Find(owner); err != nil {
			return nil, err
		}
		// Names that are no groups need no look-up, and a field that is no longer granted must be asked for, to be refused.
		if names, err := catalogue.Expand(fields, nil); err == nil && len(names) > 0 {
			return itemsOf(id, names), nil
		}
	}
	granted, err := r.Granted(s.ctx)
	if err != nil || all {
		return granted, err
	}
	var have []policies.Field
	for _, it := range granted {
		if it.Owner == id {
			have = append(have, it.Field)
		}
	}
	if len(fields) == 0 {
		return itemsOf(id, have), nil
	}
	for _, f := range fields {
		if _, err := catalogue.Expand([]string{f}, have); err != nil && slices.Contains(catalogue.Groups(), f) {
			return nil, fmt.Errorf("%w: this customer has granted nothing of the group %q that is in force", policies.CodeNoGrant, f)
		}
	}
	names, err := catalogue.Expand(fields, have)
	return itemsOf(id, names), err
}

func itemsOf(owner policies.OwnerID, fields []policies.Field) []client.Item {
	out := make([]client.Item, len(fields))
	for i, f := range fields {
		out[i] = client.Item{Owner: owner, Field: f}
	}
	return out
}

func (c *bizRead) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		items, err := s.items(r, c.Owner, c.Fields, c.All)
		if err != nil {
			return err
		}
		if len(items) == 0 {
			if !c.All {
				return fmt.Errorf("%w: this customer has granted nothing that is in force", policies.CodeNoGrant)
			}
			s.print(map[string]any{"values": []row{}}, nil)
			s.note("Nothing is granted to you that is in force. After `sallyport biz replace`, `sallyport biz replace --progress` lists whose grants are to be renewed.")
			return nil
		}
		if c.Known != 0 {
			if len(items) != 1 {
				return fmt.Errorf("%w: --known is for one field", errUsage)
			}
			items[0].Known = c.Known
		}
		read := r.Read
		if c.Evidence {
			read = r.ReadProven
		}
		values, err := read(s.ctx, items...)
		if err != nil {
			return err
		}
		rows := make([]row, len(values))
		var failed error
		for i := range values {
			rows[i] = newRow(r, &values[i])
			if values[i].Err != nil && (failed == nil || errors.Is(values[i].Err, client.ErrUntrue)) {
				failed = values[i].Err
			}
		}
		single := len(c.Fields) == 1 && len(rows) == 1 && failed == nil && !rows[0].Unchanged
		s.print(map[string]any{"values": rows}, func(w io.Writer) {
			if single {
				fmt.Fprintln(w, rows[0].Text)
				if !rows[0].WrittenBy.IsZero() {
					s.note("Written by %s, not by %s.", cmp.Or(r.Alias(policies.OwnerID(rows[0].WrittenBy)), rows[0].WrittenBy.String()), c.Owner)
				}
				return
			}
			for i := range rows {
				if rows[i].Error != nil {
					rows[i].print(s.stderr)
				} else {
					rows[i].print(w)
				}
			}
		})
		if proven := provenEntries(values); c.Evidence && len(proven) > 0 && !s.JSON {
			s.note("Proven to be in the key-use log of %d entries: %s.", r.Log().Size, strings.Join(proven, ", "))
		}
		if failed != nil {
			if !s.JSON {
				for _, text := range advice(values) {
					s.note("%s", text)
				}
			}
			return errQuiet{failed}
		}
		return nil
	})
}

// advice is what can be done about fields that were refused, where the refusal does not say it.
func advice(values []client.Value) (out []string) {
	refused := func(codes ...policies.Code) bool {
		return slices.ContainsFunc(values, func(v client.Value) bool {
			return slices.ContainsFunc(codes, func(code policies.Code) bool { return errors.Is(v.Err, code) })
		})
	}
	if refused(policies.CodeNoGrant, policies.CodeRevoked, policies.CodeGrantExpired) {
		out = append(out, "Only the customer can grant what is not granted, or not any more: `sallyport biz ask` asks for it.")
	}
	if refused(policies.CodeNotFound) {
		out = append(out, "A field that is not there was taken out by the customer, or there never was one.")
	}
	return out
}

// provenEntries are the places in the log of the values that came with proof.
func provenEntries(values []client.Value) (out []string) {
	for i := range values {
		if values[i].Proof != nil {
			out = append(out, fmt.Sprintf("%s is entry %d", values[i].Field, values[i].Index))
		}
	}
	return out
}

type bizHistory struct {
	Owner string   `help:"Only what concerns this customer: alias or id." placeholder:"CUSTOMER"`
	Field string   `help:"Only what concerns this field." placeholder:"FIELD"`
	Since bizSince `help:"Only what is not older: 12h, 30d, or a date such as 2026-11-28." placeholder:"TIME"`
	Limit int      `help:"At most so many entries, the newest." default:"50"`
}

// bizSince is a time on the command line: so long ago, or a date.
type bizSince struct{ time.Time }

// UnmarshalText reads what was typed.
func (t *bizSince) UnmarshalText(text []byte) error {
	var err error
	if t.Time, err = time.ParseInLocation(time.DateOnly, string(text), time.Local); err == nil {
		return nil
	}
	d, err := parseDuration(string(text))
	if err != nil {
		return err
	}
	t.Time = time.Now().Add(-d)
	return nil
}

func (c *bizHistory) Run(s *session) error {
	if c.Limit < 1 {
		return fmt.Errorf("%w: --limit is at least 1", errUsage)
	}
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		filter := client.HistoryFilter{Field: policies.Field(c.Field), Since: c.Since.Time, Limit: c.Limit}
		if c.Field != "" {
			if err := filter.Field.Validate(); err != nil {
				return err
			}
		}
		if c.Owner != "" {
			var err error
			if filter.Owner, err = r.Find(c.Owner); err != nil {
				return err
			}
		}
		events, err := r.History(s.ctx, filter)
		if err != nil {
			return err
		}
		s.printHistory(events)
		return nil
	})
}

type bizWatch struct {
	Owner  string        `arg:"" optional:"" help:"Alias or id of a customer."`
	Fields []string      `arg:"" optional:"" help:"Fields or groups; none means all that this customer granted."`
	All    bool          `help:"All fields of all customers."`
	Every  time.Duration `help:"How often to look." default:"30s"`
	Count  int           `help:"End after so many changes; 0 never."`
}

// errEnough ends a watch that has seen what it was to see.
var errEnough = errors.New("enough")

func (c *bizWatch) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		items, err := s.items(r, c.Owner, c.Fields, c.All)
		if err != nil {
			return err
		}
		if len(items) == 0 {
			return fmt.Errorf("%w: nothing is granted that could be watched", policies.CodeNoGrant)
		}
		seen := 0
		err = r.Watch(s.ctx, c.Every, func(v client.Value) error {
			out := newRow(r, &v)
			s.print(out, out.print)
			if seen++; c.Count > 0 && seen >= c.Count {
				return errEnough
			}
			return nil
		}, items...)
		if errors.Is(err, errEnough) || errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	})
}

type bizBackup struct {
	File string `arg:"" help:"The file to write, on another disk than the profile."`
}

func (c *bizBackup) Run(s *session) error {
	return s.withReader(func(r *client.Reader, p *profile.Profile) error {
		recovery, err := r.Backup(!inside(c.File, p.Dir()), writeBackup(p, c.File))
		if err != nil {
			return err
		}
		s.printBackup(c.File, recovery)
		return nil
	})
}

type bizRestore struct {
	File string `arg:"" help:"The backup file."`
}

func (c *bizRestore) Run(s *session) error {
	return s.restore("biz", c.File, true, func(p *profile.Profile, plain []byte, options client.Options) error {
		r, err := client.RestoreReader(p, plain, options)
		if err != nil {
			return err
		}
		defer r.Close()
		s.note("The backup is of %s: what the business saw and whom it met after that is not known here. Is there a newer one, of any machine of the business, `sallyport biz merge FILE` takes it in.", r.Made().Local().Format("2006-01-02 15:04"))
		s.print(map[string]any{"id": r.ID(), "contacts": r.People(), "made": r.Made()}, func(w io.Writer) {
			fmt.Fprintf(w, "Restored %d contacts into %s.\n", r.People(), p.Dir())
		})
		return nil
	})
}

type bizMerge struct {
	File string `arg:"" help:"A backup file that another machine of the same business wrote."`
}

func (c *bizMerge) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		plain, err := s.unsealBackup(c.File)
		if err != nil {
			return fmt.Errorf("opening the backup: %w", err)
		}
		defer clear(plain)
		merged, err := r.Merge(plain)
		if err != nil {
			return err
		}
		s.print(merged, func(w io.Writer) {
			fmt.Fprintf(w, "Of %d contacts, %d were new here or known to be newer there.\n", merged.People, merged.News)
			for _, conflict := range merged.Conflicts {
				fmt.Fprintf(w, "%s: %s\n", name(r, conflict.ID), conflict.What)
			}
		})
		return nil
	})
}
