package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/catalogue"
	"github.com/sallyport/sallyport/storefront/client/phrases"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

type meCommands struct {
	Init       meInit       `cmd:"" help:"${help_me_init}"`
	Set        meSet        `cmd:"" help:"${help_me_set}"`
	Get        meGet        `cmd:"" help:"${help_me_get}"`
	Ls         meLs         `cmd:"" help:"${help_me_ls}"`
	Rm         meRm         `cmd:"" help:"${help_me_rm}"`
	Import     meImport     `cmd:"" help:"${help_me_import}"`
	Export     meExport     `cmd:"" help:"${help_me_export}"`
	Code       meCode       `cmd:"" help:"${help_me_code}"`
	Connect    meConnect    `cmd:"" help:"${help_me_connect}"`
	Contacts   meContacts   `cmd:"" help:"${help_me_contacts}"`
	Grant      meGrant      `cmd:"" help:"${help_me_grant}"`
	Revoke     meRevoke     `cmd:"" help:"${help_me_revoke}"`
	Grants     meGrants     `cmd:"" help:"${help_me_grants}"`
	Incoming   meIncoming   `cmd:"" help:"${help_me_incoming}"`
	Adopt      meAdopt      `cmd:"" help:"${help_me_adopt}"`
	Reject     meReject     `cmd:"" help:"${help_me_reject}"`
	Accept     meAccept     `cmd:"" help:"${help_me_accept}"`
	Inbox      meInbox      `cmd:"" help:"${help_me_inbox}"`
	Answer     meAnswer     `cmd:"" help:"${help_me_answer}"`
	Stop       meStop       `cmd:"" help:"${help_me_stop}"`
	Invite     meInvite     `cmd:"" help:"${help_me_invite}"`
	Ask        meAsk        `cmd:"" help:"${help_me_ask}"`
	Asked      meAsked      `cmd:"" help:"${help_me_asked}"`
	GiveUp     meGiveUp     `cmd:"" help:"${help_me_giveup}"`
	Website    meWebsite    `cmd:"" help:"${help_me_website}"`
	Registry   meRegistry   `cmd:"" help:"${help_me_registry}"`
	Introduce  meIntroduce  `cmd:"" help:"${help_me_introduce}"`
	Mute       meMute       `cmd:"" help:"${help_me_mute}"`
	Block      meBlock      `cmd:"" help:"${help_me_block}"`
	Verify     meVerify     `cmd:"" help:"${help_me_verify}"`
	History    meHistory    `cmd:"" help:"${help_me_history}"`
	Checkpoint meCheckpoint `cmd:"" help:"${help_me_checkpoint}"`
	Rotate     meRotate     `cmd:"" help:"${help_me_rotate}"`
	Replace    meReplace    `cmd:"" help:"${help_me_replace}"`
	Thaw       meThaw       `cmd:"" help:"${help_me_thaw}"`
	Sync       meSync       `cmd:"" help:"${help_me_sync}"`
	Backup     meBackup     `cmd:"" help:"${help_me_backup}"`
	Restore    meRestore    `cmd:"" help:"${help_me_restore}"`
	Delete     meDelete     `cmd:"" help:"${help_me_delete}"`
	Device     meDevice     `cmd:"" help:"${help_me_device}"`
	Password   mePassword   `cmd:"" help:"${help_me_password}"`
	Kit        meKit        `cmd:"" help:"${help_me_kit}"`
	Fields     meFields     `cmd:"" help:"${help_me_fields}"`
}

// ownBackup is the file in the profile's folder that `init` writes unless told otherwise.
const ownBackup = "backup.sallyport"

type meInit struct {
	Join   string `help:"${flag_join}" required:"" placeholder:"LINK"`
	Backup string `help:"${flag_init_backup}" placeholder:"FILE"`
	Yes    bool   `help:"${flag_yes}"`
}

func (c *meInit) Run(s *session) error {
	network, options, err := s.joining(c.Join)
	if err != nil {
		return err
	}
	if err := s.fitFile(c.Backup, c.Yes); err != nil {
		return err
	}
	p, err := s.createProfile("me", c.Yes)
	if err != nil {
		return err
	}
	defer p.Close()
	o, err := client.InitOwner(s.ctx, p, network, options)
	if o == nil {
		return err
	}
	defer o.Close()
	file, elsewhere := c.Backup, c.Backup != ""
	if file == "" {
		file = filepath.Join(p.Dir(), ownBackup)
	}
	// A backup inside the profile's folder is lost with it, so the recovery key stays until one is made elsewhere.
	if _, backupErr := o.Backup(elsewhere, writeBackup(p, file)); backupErr != nil {
		return errors.Join(err, backupErr)
	}
	s.warn(file)
	if err != nil {
		return s.adding(err, "init.later")
	}
	s.warnVault(o.Vault(s.ctx))
	s.print(map[string]any{"id": o.ID(), "profile": p.Dir(), "backup": file}, func(w io.Writer) {
		fmt.Fprintln(w, s.say("init.done", "dir", p.Dir(), "id", o.ID()))
	})
	return nil
}

// warn says in three sentences what the person must look after.
func (s *session) warn(backup string) {
	keep := s.say("init.password")
	if s.KeyFile != "" {
		keep = s.say("init.file", "file", s.KeyFile)
	}
	s.note("%s", keep)
	s.note("%s", s.say("init.backup", "file", backup))
	s.note("%s", s.say("init.codes"))
}

func (s *session) warnVault(v *policies.VaultDocument, err error) {
	if err == nil && v.DevMode {
		s.note("%s", s.say("vault.dev"))
	}
}

type meSet struct {
	Field string   `arg:"" help:"${flag_set_field}"`
	Value []string `arg:"" optional:"" help:"${flag_set_value}"`
	File  string   `help:"${flag_set_file}" placeholder:"FILE"`
}

func (c *meSet) Run(s *session) error {
	f := policies.Field(c.Field)
	b, err := s.value(f, c.Value, c.File)
	if err != nil {
		return err
	}
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		if err := o.Set(s.ctx, client.Change{Field: f, Value: b}); err != nil {
			return err
		}
		s.print(map[string]any{"published": []policies.Field{f}}, func(w io.Writer) { fmt.Fprintln(w, s.say("published", "fields", f)) })
		return nil
	})
}

// value makes the value of a field from words, a file, or standard input.
func (s *session) value(f policies.Field, words []string, file string) ([]byte, error) {
	if err := catalogue.Check(f); err != nil {
		return nil, err
	}
	if file != "" && len(words) > 0 {
		return nil, s.adding(errUsage, "usage.value")
	}
	if len(words) > 0 && slices.ContainsFunc(s.words, func(word string) bool { return !utf8.ValidString(word) }) { // else it would be kept with replacements in it
		return nil, fmt.Errorf("%w: the command line is not UTF-8 text; a file can be given with --file if it is", policies.ErrMalformed)
	}
	text := strings.Join(words, "\n")
	if len(words) == 0 || len(words) == 1 && text == "-" {
		data, err := s.input(file, policies.MaxValue+1)
		if err != nil {
			return nil, fmt.Errorf("reading the value: %w", err)
		}
		text = strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	}
	if text == "" { // a variable that is not set, a file that is empty: nobody means to lose what is there
		return nil, s.adding(errUsage, "usage.empty", "field", f)
	}
	v, err := catalogue.New(f, text)
	if err != nil {
		return nil, err
	}
	return v.Bytes()
}

// input reads a file, or standard input if there is no name, up to a limit.
func (s *session) input(name string, limit int64) ([]byte, error) {
	in := s.stdin
	if name != "" {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	return whileWanted(s.ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(in, limit)) })
}

type meGet struct {
	Field string `arg:""`
}

func (c *meGet) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		v, err := getValue(s, o, policies.Field(c.Field))
		if err != nil {
			return err
		}
		s.print(map[string]any{"field": c.Field, "text": v.String(), "value": v}, func(w io.Writer) { fmt.Fprintln(w, v) })
		return nil
	})
}

func getValue(s *session, o *client.Owner, f policies.Field) (*catalogue.Value, error) {
	b, err := o.Get(s.ctx, f)
	if err != nil {
		return nil, err
	}
	return catalogue.Parse(b)
}

type meLs struct {
	Values bool `help:"${flag_ls_values}"`
}

func (c *meLs) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		type row struct {
			client.FieldInfo
			Text string `json:"text,omitzero"`
		}
		rows := []row{}
		for _, f := range o.Fields() {
			r := row{FieldInfo: f}
			if c.Values {
				v, err := getValue(s, o, f.Field)
				if err != nil {
					return err
				}
				r.Text = v.String()
			}
			rows = append(rows, r)
		}
		s.print(map[string]any{"fields": rows}, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
			for _, r := range rows {
				state := s.say("state.published")
				if r.Pending {
					state = s.say("state.pending")
				}
				fmt.Fprintf(t, "%s\t%s\t%s\n", r.Field, state, oneLine(r.Text))
			}
			_ = t.Flush()
		})
		s.noteNone(len(rows), "fields")
		return nil
	})
}

// oneLine keeps a value from breaking a table, or a terminal.
func oneLine(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }) {
		return strings.Trim(strconv.QuoteToGraphic(text), `"`)
	}
	return text
}

type meRm struct {
	Fields []string `arg:"" help:"${flag_rm_fields}"`
}

func (c *meRm) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		fields := toFields(c.Fields)
		if err := o.Remove(s.ctx, fields...); err != nil {
			return err
		}
		s.print(map[string]any{"removed": fields}, func(w io.Writer) { fmt.Fprintln(w, s.say("removed", "fields", strings.Join(c.Fields, ", "))) })
		return nil
	})
}

func toFields(words []string) []policies.Field {
	out := make([]policies.Field, len(words))
	for i, w := range words {
		out[i] = policies.Field(w)
	}
	return out
}

type meImport struct {
	Card string `arg:"" help:"${flag_import_card}"`
}

func (c *meImport) Run(s *session) error {
	name := c.Card
	if name == "-" {
		name = ""
	}
	data, err := s.input(name, catalogue.MaxCard+1)
	if err != nil {
		return fmt.Errorf("reading the card: %w", err)
	}
	values, err := catalogue.Import(data)
	if err != nil {
		return err
	}
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		have := map[policies.Field]bool{}
		for _, f := range o.Fields() {
			have[f.Field] = true
		}
		changes, names, unchanged := []client.Change{}, []policies.Field{}, 0
		for f, v := range values {
			b, err := v.Bytes()
			if err != nil {
				return fmt.Errorf("%s: %w", f, err)
			}
			if have[f] {
				if old, err := o.Get(s.ctx, f); err == nil && string(old) == string(b) {
					unchanged++
					continue
				}
			}
			changes, names = append(changes, client.Change{Field: f, Value: b}), append(names, f)
		}
		slices.Sort(names)
		slices.SortFunc(changes, func(a, b client.Change) int { return strings.Compare(string(a.Field), string(b.Field)) })
		if err := o.Set(s.ctx, changes...); err != nil {
			return err
		}
		s.print(map[string]any{"published": names, "unchanged": unchanged}, func(w io.Writer) {
			fmt.Fprintln(w, s.say("imported", "n", len(names), "same", unchanged))
		})
		return nil
	})
}

type meCode struct{}

func (c *meCode) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		code, err := o.Code()
		if err != nil {
			return err
		}
		s.print(map[string]any{"code": code.String()}, func(w io.Writer) { fmt.Fprintln(w, code) })
		if !s.JSON {
			s.note("%s", s.say("code.note"))
		}
		return nil
	})
}

type meConnect struct {
	Code string `arg:"" help:"${flag_connect_code}"`
	As   string `help:"${flag_connect_as}" placeholder:"ALIAS"`
}

func (c *meConnect) Run(s *session) error {
	code, err := links.ParseContact(c.Code)
	if err != nil {
		return err
	}
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		was := ""
		for _, have := range o.Contacts() {
			if have.ID == code.ID {
				was = have.Alias
			}
		}
		contact, err := o.Connect(s.ctx, code, c.As)
		if err != nil {
			return err
		}
		s.printContact(contact)
		s.noteRenamed(was, contact)
		return nil
	})
}

// noteRenamed says that a contact had another name here before.
func (s *session) noteRenamed(was string, c client.Contact) {
	if was != "" && was != c.Alias {
		s.note("%s", s.say("contact.renamed", "name", was))
	}
}

func (s *session) printContact(c client.Contact) {
	s.print(c, func(w io.Writer) {
		fmt.Fprintln(w, s.say("contact.done", "name", contactName(c)))
		if c.Name != "" {
			fmt.Fprintln(w, s.say("contact.claims", "name", oneLine(c.Name), "state", s.standing(&c)))
		}
	})
}

func contactName(c client.Contact) string {
	if c.Alias != "" {
		return c.Alias
	}
	return c.ID.String()
}

func (s *session) printContacts(list []client.Contact) {
	s.print(map[string]any{"contacts": list}, func(w io.Writer) { s.contactTable(w, list) })
}

func (s *session) contactTable(w io.Writer, list []client.Contact) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, c := range list {
		fmt.Fprintln(t, strings.TrimRight(strings.Join([]string{c.Alias, c.ID.String(), s.named(&c), s.silenced(&c)}, "\t"), "\t"))
	}
	_ = t.Flush()
}

// fieldsOf are the fields that a person has.
func fieldsOf(o *client.Owner) (have []policies.Field) {
	for _, f := range o.Fields() {
		have = append(have, f.Field)
	}
	return have
}

type meGrant struct {
	Reader      string   `arg:"" help:"${flag_reader}"`
	Fields      []string `arg:"" help:"${flag_grant_fields}"`
	Purpose     string   `help:"${flag_grant_purpose}" default:"general"`
	For         string   `help:"${flag_grant_for}" default:"1y"`
	ReadsPerDay uint64   `help:"${flag_grant_reads}"`
	Write       bool     `help:"${flag_grant_write}"`
	WriteOnly   bool     `help:"${flag_grant_writeonly}"`
	Custody     string   `help:"${flag_grant_custody}" default:"resident" enum:"resident,sealed"`
	Yes         bool     `help:"${flag_yes}"`
}

func (c *meGrant) Run(s *session) error {
	if c.Write && c.WriteOnly {
		return s.adding(errUsage, "usage.write")
	}
	duration, err := parseDuration(c.For)
	if err != nil {
		return err
	}
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		reader, err := o.Find(c.Reader)
		if err != nil {
			return err
		}
		have := fieldsOf(o)
		fields, err := catalogue.Expand(c.Fields, have)
		if err != nil {
			return err
		}
		if everything(fields, have) && !c.Yes {
			if err := s.sure("grant.all", "n", len(have), "reader", c.Reader); err != nil {
				return err
			}
		}
		v, err := o.Vault(s.ctx)
		s.warnVault(v, err)
		opts := client.GrantOptions{Purpose: c.Purpose, Duration: duration, ReadsPerDay: c.ReadsPerDay, Custody: policies.Custody(c.Custody)}
		if c.Write || c.WriteOnly { // first, so that the grant to read names the writer too
			if err := o.GrantWrite(s.ctx, reader, fields, opts); err != nil {
				return err
			}
		}
		if c.WriteOnly {
			s.print(map[string]any{"writer": reader, "writes": fields}, func(w io.Writer) { fmt.Fprintln(w, s.say("granted.write", "reader", c.Reader, "fields", join(fields))) })
			return nil
		}
		if err := o.Grant(s.ctx, reader, fields, opts); err != nil {
			return err
		}
		if c.Write {
			s.print(map[string]any{"reader": reader, "granted": fields, "writer": reader, "writes": fields, "custody": c.Custody}, func(w io.Writer) {
				fmt.Fprintln(w, s.say("granted.both", "reader", c.Reader, "fields", join(fields)))
			})
			return nil
		}
		s.print(map[string]any{"reader": reader, "granted": fields, "custody": c.Custody}, func(w io.Writer) {
			fmt.Fprintln(w, s.say("granted", "reader", c.Reader, "fields", join(fields)))
		})
		if opts.Custody == policies.CustodySealed && !s.JSON {
			s.note("%s", s.say("granted.sealed"))
		}
		return nil
	})
}

func join(fields []policies.Field) string {
	words := make([]string, len(fields))
	for i, f := range fields {
		words[i] = string(f)
	}
	return strings.Join(words, ", ")
}

// errDuration: the command line has a time that is none.
var errDuration error = usage("that is not a time such as 12h, 90d or 2y")

// parseDuration reads 12h, 90d or 2y besides what Go's durations are.
func parseDuration(text string) (time.Duration, error) {
	bad := fmt.Errorf("%q: %w", text, errDuration)
	day := 24 * time.Hour
	if text == "" {
		return 0, bad
	}
	unit := map[byte]time.Duration{'d': day, 'w': 7 * day, 'y': 365 * day}[text[len(text)-1]]
	if unit == 0 {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			return 0, bad
		}
		return d, nil
	}
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 32)
	if err != nil || n == 0 || n > uint64(100*365*day/unit) {
		return 0, bad
	}
	return time.Duration(n) * unit, nil
}

// given expands the names of fields to what a reader was given of them, no name to none, and reports whether it may write any of that.
func given(o *client.Owner, reader policies.ReaderID, names []string) (fields []policies.Field, writes bool, err error) {
	var have []policies.Field
	for _, g := range o.Grants(false) {
		if g.Reader == reader {
			have = append(have, g.Field)
		}
	}
	writers := slices.DeleteFunc(o.Writers(false), func(w client.WriterInfo) bool { return policies.ReaderID(w.Writer) != reader })
	for _, w := range writers {
		have = append(have, w.Field)
	}
	if fields, err = catalogue.Expand(names, have); err != nil {
		return nil, false, err
	}
	return fields, slices.ContainsFunc(writers, func(w client.WriterInfo) bool { return len(fields) == 0 || slices.Contains(fields, w.Field) }), nil
}

func (s *session) printWriteEnded(name string, writer policies.ReaderID, fields []policies.Field) {
	s.print(map[string]any{"writer": writer, "ended": fields, "stopped": true}, func(w io.Writer) {
		fmt.Fprintln(w, s.say("stopped.write", "reader", name))
	})
}

type meRevoke struct {
	Reader   string   `arg:"" help:"${flag_reader}"`
	Fields   []string `arg:"" optional:"" help:"${flag_revoke_fields}"`
	NoRotate bool     `help:"${flag_revoke_norotate}"`

	WriteOnly bool `help:"${flag_revoke_writeonly}"`
}

func (c *meRevoke) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		reader, err := o.Find(c.Reader)
		if err != nil {
			return err
		}
		fields, writes, err := given(o, reader, c.Fields)
		if err != nil {
			return err
		}
		var ending error // which keeps nobody from being stopped reading
		if writes || c.WriteOnly {
			if ending = o.EndWrite(s.ctx, reader, fields); c.WriteOnly {
				if ending == nil {
					s.printWriteEnded(c.Reader, reader, fields)
				}
				return ending
			}
		}
		sealed := slices.ContainsFunc(o.Grants(false), func(g client.GrantInfo) bool {
			return g.Reader == reader && g.Custody == policies.CustodySealed && (len(fields) == 0 || slices.Contains(fields, g.Field))
		})
		err = o.Revoke(s.ctx, reader, fields, client.RevokeOptions{KeepEpoch: c.NoRotate})
		if writes && ending == nil && errors.Is(err, policies.CodeNoGrant) { // it could only write
			s.printWriteEnded(c.Reader, reader, fields)
			return nil
		}
		if ending != nil || err != nil && !errors.Is(err, client.ErrNotRotated) {
			return errors.Join(ending, noneGiven(c.Reader, err))
		}
		s.print(map[string]any{"reader": reader, "revoked": fields, "stopped": true, "rotated": err == nil && !c.NoRotate, "sealed": sealed}, func(w io.Writer) {
			if len(fields) > 0 {
				fmt.Fprintln(w, s.say("stopped", "reader", c.Reader, "fields", join(fields)))
			} else {
				fmt.Fprintln(w, s.say("stopped.all", "reader", c.Reader))
			}
			if sealed {
				fmt.Fprintln(w, s.say("stopped.sealed"))
			}
		})
		// The reader is stopped, which is what was asked for; the move to new keys follows with the next command.
		if errors.Is(err, policies.CodeUnavailable) {
			s.note("%s", s.say("stopped.later"))
			return nil
		}
		if err != nil {
			s.note("%s", s.explain(err))
			return errQuiet{err}
		}
		return nil
	})
}

type meGrants struct {
	All bool `help:"${flag_grants_all}"`
}

func (c *meGrants) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		list, writers := o.Grants(c.All), o.Writers(c.All)
		who := func(alias string, id fmt.Stringer) string {
			if alias == "" {
				return id.String()
			}
			return alias
		}
		s.print(map[string]any{"grants": list, "writers": writers, "frozen": !o.Frozen().IsZero()}, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
			for _, g := range list {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", who(g.Alias, g.Reader), g.Field, s.say("grant."+g.Status), s.say("grants.row", "custody", s.say("custody."+string(g.Custody)), "date", until(g.Expires), "purpose", oneLine(g.Purpose)))
			}
			for _, g := range writers {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", who(g.Alias, g.Writer), g.Field, s.say("grant."+g.Status), s.say("grants.writer", "date", until(g.Expires), "purpose", oneLine(g.Purpose)))
			}
			_ = t.Flush()
		})
		s.noteNone(len(list)+len(writers), "grants")
		return nil
	})
}

// until is when something ends: a date, and if it is hours rather than days the time too.
func until(t time.Time) string {
	if d := time.Until(t); d.Abs() < 48*time.Hour {
		return t.Local().Format("2006-01-02 15:04")
	}
	return t.Local().Format(time.DateOnly)
}

type meVerify struct{}

func (c *meVerify) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		v, err := o.Verify(s.ctx)
		if err != nil {
			return err
		}
		s.print(map[string]any{"agrees": v.Agrees(), "verification": v}, func(w io.Writer) {
			for _, c := range v.Checks {
				what := s.say("verify." + c.What)
				if len(c.Wrong) == 0 {
					fmt.Fprintf(w, "%-16s %s\n", what, s.say("verify.agrees"))
				}
				for _, wrong := range c.Wrong {
					fmt.Fprintf(w, "%-16s %s: %s\n", what, s.say("verify.differs"), wrong.In(s.lang))
				}
			}
			fmt.Fprintln(w, s.say("verify.done", "n", v.Entries, "size", v.Size))
		})
		if !v.Agrees() {
			return errQuiet{s.adding(client.ErrUntrue, "verify.wrong")}
		}
		return nil
	})
}

type meHistory struct {
	Limit int `help:"${flag_history_limit}" default:"50"`
}

func (c *meHistory) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		events, err := o.History(s.ctx, c.Limit)
		if err != nil {
			return err
		}
		s.printHistory(events)
		return nil
	})
}

func (s *session) printHistory(events []client.Event) {
	s.print(map[string]any{"history": events}, func(w io.Writer) {
		for _, e := range events {
			fmt.Fprintf(w, "%s  %s\n", e.Time.Local().Format("2006-01-02 15:04:05"), oneLine(e.In(s.lang)))
		}
		fmt.Fprintln(w, s.say("history.done", "n", len(events)))
	})
}

type meRotate struct {
	Fields []string `arg:"" help:"${flag_rotate_fields}"`
}

func (c *meRotate) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		var have []policies.Field
		for _, f := range o.Fields() {
			have = append(have, f.Field)
		}
		fields, err := catalogue.Expand(c.Fields, have)
		if err != nil {
			return err
		}
		if err := o.Rotate(s.ctx, fields...); err != nil {
			return err
		}
		s.print(map[string]any{"rotated": fields}, func(w io.Writer) { fmt.Fprintln(w, s.say("rotated", "fields", join(fields))) })
		return nil
	})
}

type meSync struct{}

func (c *meSync) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		began, before := o.Replacing(), o.Generation()
		if err := o.Sync(s.ctx); err != nil {
			return err
		}
		replaced := !o.Replacing() && (began || o.Generation() > before)
		mail, err := o.Receive(s.ctx)
		s.noteRefused(mail)
		if err != nil {
			return err
		}
		s.print(map[string]any{"synced": true, "frozen": !o.Frozen().IsZero()}, func(w io.Writer) { fmt.Fprintln(w, s.say("synced")) })
		s.warnAnnounced(o)
		if replaced {
			s.noteReplaced(o)
		}
		for _, g := range o.GivenUp() {
			what := "synced.givenup"
			if g.Closed {
				what = "synced.closed"
			}
			s.note("%s", s.say(what, "who", contactName(g.Contact), "fields", join(g.Fields)))
		}
		return nil
	})
}

type meBackup struct {
	File string `arg:"" help:"${flag_backup_file}"`
	Yes  bool   `help:"${flag_yes}"`
}

func (c *meBackup) Run(s *session) error {
	if err := s.fitFile(c.File, c.Yes); err != nil {
		return err
	}
	return s.withOwner(func(o *client.Owner, p *profile.Profile) error {
		recovery, err := o.Backup(!inside(c.File, p.Dir()), writeBackup(p, c.File))
		if err != nil {
			return err
		}
		if sameDisk(c.File, p.Dir()) {
			s.note("%s", s.say("place.backup", "file", c.File))
		}
		s.printBackup(c.File, recovery)
		return nil
	})
}

func (s *session) printBackup(file string, recovery bool) {
	s.print(map[string]any{"backup": file, "recovery_key": recovery}, func(w io.Writer) {
		fmt.Fprintln(w, s.say("backup.done", "file", file))
		if !recovery {
			fmt.Fprintln(w, s.say("backup.older"))
		}
	})
}

// inside reports whether a file is in a folder, as far as names tell.
func inside(file, dir string) bool {
	a, errA := filepath.Abs(file)
	b, errB := filepath.Abs(dir)
	return errA == nil && errB == nil && strings.HasPrefix(a, b+string(filepath.Separator))
}

type meRestore struct {
	File         string `arg:"" optional:"" help:"${flag_restore_file}"`
	Password     bool   `help:"${flag_restore_password}"`
	Kit          bool   `help:"${flag_restore_kit}"`
	Server       string `name:"account-server" help:"${flag_account_server}" placeholder:"URL"`
	Account      string `help:"${flag_restore_account}" placeholder:"ID"`
	Join         string `help:"${flag_join}" placeholder:"LINK"`
	PasswordFile string `help:"${flag_restore_passwordfile}" placeholder:"FILE"`
	CodeFile     string `help:"${flag_kit_code}" placeholder:"FILE"`
	Yes          bool   `help:"${flag_yes}"`
}

func (c *meRestore) Run(s *session) error {
	if c.Password || c.Kit {
		return c.wayBack(s)
	}
	if c.File == "" {
		return s.adding(errUsage, "restore.needs")
	}
	return s.restore("me", c.File, c.Yes, func(p *profile.Profile, plain []byte, options client.Options) error {
		o, err := client.RestoreOwner(p, plain, options)
		if err != nil {
			return ofBackup(err)
		}
		return s.restored(o, p)
	})
}

// errBackupRole: what is to be restored is the backup of a business.
var errBackupRole = errors.New("it is a business's")

// ofBackup tells that a backup is of another kind from that a profile is.
func ofBackup(err error) error {
	if errors.Is(err, client.ErrRole) {
		return fmt.Errorf("%w: %w", errBackupRole, err)
	}
	return err
}

// restored fetches what was published and granted, and says so.
func (s *session) restored(o *client.Owner, p *profile.Profile) error {
	defer o.Close()
	err := o.Sync(s.ctx)
	if errors.Is(err, client.ErrReplaced) { // of no use, and in the way of the backup that is
		return s.restoredOld(p, err)
	}
	if errors.Is(err, client.ErrEnded) {
		return s.adding(err, "restored.closed")
	}
	if err != nil {
		return s.adding(err, "restored.later")
	}
	s.print(map[string]any{"id": o.ID(), "fields": len(o.Fields())}, func(w io.Writer) {
		fmt.Fprintln(w, s.say("restored", "n", len(o.Fields()), "dir", p.Dir()))
	})
	return nil
}

// restoredOld deletes the profile that was made from a backup that is of no use any more, and nothing else that is in its folder.
func (s *session) restoredOld(p *profile.Profile, why error) error {
	left, err := p.Discard()
	if err != nil {
		return errors.Join(s.adding(why, "restored.folder", "dir", p.Dir()), err)
	}
	s.noteLeft(p.Dir(), left)
	return s.adding(why, "restored.old")
}

// noteLeft tells what stays in the folder of a profile that was deleted.
func (s *session) noteLeft(dir string, left []string) {
	if len(left) > 0 {
		s.note("%s", s.say("folder.left", "dir", dir, "files", strings.Join(left, ", ")))
	}
}

// restore opens a backup, makes a profile for it, and hands both to use.
func (s *session) restore(name, file string, yes bool, use func(p *profile.Profile, plain []byte, options client.Options) error) error {
	options, err := s.options()
	if err != nil {
		return err
	}
	plain, err := s.unsealBackup(file)
	if err != nil {
		return fmt.Errorf("opening the backup: %w", err)
	}
	defer clear(plain)
	s.same = s.PassphraseFile != ""
	p, err := s.createProfile(name, yes)
	if err != nil {
		return err
	}
	defer p.Close()
	return use(p, plain, options)
}

type meFields struct{}

func (c *meFields) Run(s *session) error {
	type row struct {
		Field  policies.Field `json:"field"`
		Title  string         `json:"title"`
		Type   catalogue.Type `json:"type"`
		Parts  []string       `json:"parts,omitzero"`
		Groups []string       `json:"groups,omitzero"`
		Card   string         `json:"vcard,omitzero"`
	}
	var rows []row
	for _, e := range catalogue.Entries() {
		rows = append(rows, row{e.Name, phrases.Say(phrases.English, "field."+string(e.Name)), e.Type, e.Parts, e.Groups, e.Property})
	}
	s.print(map[string]any{"version": catalogue.Version, "fields": rows, "groups": catalogue.Groups()}, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		for _, r := range rows {
			groups := ""
			if len(r.Groups) > 0 {
				groups = s.say("fields.groups", "groups", strings.Join(r.Groups, ", "))
			}
			fmt.Fprintf(t, "%s\t%s\t%s\n", r.Field, s.say("field."+string(r.Field)), groups)
			for _, part := range r.Parts {
				fmt.Fprintf(t, "  %s=\t%s\n", part, s.say("part."+part))
			}
		}
		_ = t.Flush()
		fmt.Fprintf(w, "\n%s\n", s.say("fields.more", "prefix", catalogue.OwnPrefix))
	})
	return nil
}
