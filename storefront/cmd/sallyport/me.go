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

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/catalogue"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

type meCommands struct {
	Init       meInit       `cmd:"" help:"Make your profile: keys, backup, registration."`
	Set        meSet        `cmd:"" help:"Set a field. Example: sallyport me set phone.mobile \"+49 151 2345678\""`
	Get        meGet        `cmd:"" help:"Print a field."`
	Ls         meLs         `cmd:"" help:"List your fields."`
	Rm         meRm         `cmd:"" help:"Remove fields."`
	Import     meImport     `cmd:"" help:"Take over your vCard. Example: sallyport me import me.vcf"`
	Export     meExport     `cmd:"" help:"Print your data as a vCard."`
	Code       meCode       `cmd:"" help:"Print a code for one business; hand it over yourself."`
	Connect    meConnect    `cmd:"" help:"Meet a business by its code, after it has used yours. Example: sallyport me connect CODE --as acme"`
	Contacts   meContacts   `cmd:"" help:"List whom you have met."`
	Grant      meGrant      `cmd:"" help:"Let a contact read fields or groups. Example: sallyport me grant acme phone.mobile postal --for 90d"`
	Revoke     meRevoke     `cmd:"" help:"Stop a contact from reading, now. Example: sallyport me revoke acme phone.mobile"`
	Grants     meGrants     `cmd:"" help:"List what you granted."`
	Verify     meVerify     `cmd:"" help:"Compare all that the key-use log says of you with what this device knows."`
	History    meHistory    `cmd:"" help:"Show who read what, with proof."`
	Checkpoint meCheckpoint `cmd:"" help:"Print the newest state of the key-use log that this device has proof of, or compare it with somebody else's."`
	Rotate     meRotate     `cmd:"" help:"Move fields to new keys. Values stay, and whoever may read still may."`
	Sync       meSync       `cmd:"" help:"Finish what was begun, and fetch what your other devices did."`
	Backup     meBackup     `cmd:"" help:"Write a backup file."`
	Restore    meRestore    `cmd:"" help:"Make this device's profile from a backup file."`
	Fields     meFields     `cmd:"" help:"List the field names and groups there are."`
}

type meInit struct {
	Join   string `help:"The join link of the vault, from its operator, not from a storefront." required:"" placeholder:"LINK"`
	Backup string `help:"Where to write the backup file. Default: backup.sallyport in the profile's folder." placeholder:"FILE"`
}

func (c *meInit) Run(s *session) error {
	options, err := s.options()
	if err != nil {
		return err
	}
	network, err := client.NewNetwork(c.Join, options)
	if err != nil {
		return err
	}
	p, err := s.createProfile("me")
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
		file = filepath.Join(p.Dir(), "backup.sallyport")
	}
	// A backup inside the profile's folder is lost with it, so the recovery key stays until one is made elsewhere.
	if _, backupErr := o.Backup(elsewhere, writeBackup(p, file)); backupErr != nil {
		return errors.Join(err, backupErr)
	}
	s.warn(o, file)
	if err != nil {
		return fmt.Errorf("the profile is made, but not registered yet: %w", err)
	}
	s.warnVault(o.Vault(s.ctx))
	s.print(map[string]any{"id": o.ID(), "profile": p.Dir(), "backup": file}, func(w io.Writer) {
		fmt.Fprintf(w, "Your profile is in %s.\nYour id is %s.\n", p.Dir(), o.ID())
	})
	return nil
}

// warn says in three sentences what the person must look after.
func (s *session) warn(_ *client.Owner, backup string) {
	keep := "Remember your passphrase: nobody can reset it, and without it nobody, not even you, can read your data."
	if s.KeyFile != "" {
		keep = fmt.Sprintf("Keep the key file %s safe and secret: without it nobody, not even you, can read your data.", s.KeyFile)
	}
	s.note("%s", keep)
	s.note("Copy the backup file %s to another place, such as a memory stick at home: if this device is lost, it is the only way back.", backup)
	s.note("Take a business's code only from the business itself, on paper, in person or from its own web page: whoever's code you use can read what you grant.")
}

func (s *session) warnVault(v *policies.VaultDocument, err error) {
	if err == nil && v.DevMode {
		s.note("Warning: this vault runs in development mode. Do not give it real data.")
	}
}

type meSet struct {
	Field string   `arg:"" help:"Name of the field; see: sallyport me fields."`
	Value []string `arg:"" optional:"" help:"The value; several are lines, or part=value pairs of a name or an address. Without one it is read from standard input, which keeps it out of your shell's history."`
	File  string   `help:"Read the value from a file." placeholder:"FILE"`
}

func (c *meSet) Run(s *session) error {
	f := policies.Field(c.Field)
	if err := catalogue.Check(f); err != nil {
		return err
	}
	if c.File != "" && len(c.Value) > 0 {
		return fmt.Errorf("%w: give the value or a file with it, not both", errUsage)
	}
	text := strings.Join(c.Value, "\n")
	if len(c.Value) == 0 || len(c.Value) == 1 && text == "-" {
		data, err := s.input(c.File, policies.MaxValue+1)
		if err != nil {
			return fmt.Errorf("reading the value: %w", err)
		}
		text = strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	}
	v, err := catalogue.New(f, text)
	if err != nil {
		return err
	}
	b, err := v.Bytes()
	if err != nil {
		return err
	}
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		if err := o.Set(s.ctx, client.Change{Field: f, Value: b}); err != nil {
			return err
		}
		s.print(map[string]any{"published": []policies.Field{f}}, func(w io.Writer) { fmt.Fprintf(w, "%s is published.\n", f) })
		return nil
	})
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
	return io.ReadAll(io.LimitReader(in, limit))
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
	Values bool `help:"Show the values too."`
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
				state := "published"
				if r.Pending {
					state = "pending"
				}
				fmt.Fprintf(t, "%s\t%s\t%s\n", r.Field, state, oneLine(r.Text))
			}
			t.Flush()
		})
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
	Fields []string `arg:"" help:"Fields to remove."`
}

func (c *meRm) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		fields := toFields(c.Fields)
		if err := o.Remove(s.ctx, fields...); err != nil {
			return err
		}
		s.print(map[string]any{"removed": fields}, func(w io.Writer) { fmt.Fprintf(w, "Removed %s.\n", strings.Join(c.Fields, ", ")) })
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
	Card string `arg:"" help:"vCard file, version 3.0 or 4.0; - for standard input."`
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
			fmt.Fprintf(w, "%d fields are published, %d were so already.\n", len(names), unchanged)
		})
		return nil
	})
}

type meExport struct {
	Output string `help:"Write to a file (mode 0600) instead of standard output." placeholder:"FILE"`
}

func (c *meExport) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		values := map[policies.Field]*catalogue.Value{}
		for _, f := range o.Fields() {
			v, err := getValue(s, o, f.Field)
			if err != nil {
				return err
			}
			values[f.Field] = v
		}
		card, omitted := catalogue.Export(values)
		if len(omitted) > 0 {
			s.note("A vCard has no place for: %v", omitted)
		}
		if c.Output != "" {
			return profile.WriteFile(c.Output, card)
		}
		s.print(map[string]any{"card": string(card), "omitted": omitted}, func(w io.Writer) { w.Write(card) })
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
			s.note("Hand this code to one business yourself. It uses it once; then run `sallyport me connect` with the business's own code.")
		}
		return nil
	})
}

type meConnect struct {
	Code string `arg:"" help:"The code that the business gave you."`
	As   string `help:"Your own name for it." placeholder:"ALIAS"`
}

func (c *meConnect) Run(s *session) error {
	code, err := links.ParseContact(c.Code)
	if err != nil {
		return err
	}
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		contact, err := o.Connect(s.ctx, code, c.As)
		if err != nil {
			return err
		}
		s.printContact(contact)
		return nil
	})
}

func (s *session) printContact(c client.Contact) {
	s.print(c, func(w io.Writer) {
		fmt.Fprintf(w, "Connected with %s.\n", contactName(c))
		if c.Name != "" {
			fmt.Fprintf(w, "It calls itself %q; that is UNVERIFIED.\n", c.Name)
		}
	})
}

func contactName(c client.Contact) string {
	if c.Alias != "" {
		return c.Alias
	}
	return c.ID.String()
}

type meContacts struct{}

func (c *meContacts) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		s.printContacts(o.Contacts())
		return nil
	})
}

func (s *session) printContacts(list []client.Contact) {
	s.print(map[string]any{"contacts": list}, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		for _, c := range list {
			name := ""
			if c.Name != "" {
				name = fmt.Sprintf("%q (UNVERIFIED)", c.Name)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\n", c.Alias, c.ID, name)
		}
		t.Flush()
	})
}

type meGrant struct {
	Reader      string   `arg:"" help:"Alias or id of a contact."`
	Fields      []string `arg:"" help:"Fields, or groups such as contact or postal."`
	Purpose     string   `help:"What for." default:"general"`
	For         string   `help:"How long: 12h, 90d, 2y." default:"1y"`
	ReadsPerDay uint64   `help:"At most so many fields read a day; 0 is no limit."`
	Custody     string   `help:"Where the key rests: resident, in the token, which never gives it out; or ${sealed_means}." default:"resident" enum:"resident,sealed"`
}

func (c *meGrant) Run(s *session) error {
	duration, err := parseDuration(c.For)
	if err != nil {
		return err
	}
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		reader, err := o.Find(c.Reader)
		if err != nil {
			return err
		}
		var have []policies.Field
		for _, f := range o.Fields() {
			have = append(have, f.Field)
		}
		fields, err := catalogue.Expand(c.Fields, have)
		if err != nil {
			return err
		}
		v, err := o.Vault(s.ctx)
		s.warnVault(v, err)
		opts := client.GrantOptions{Purpose: c.Purpose, Duration: duration, ReadsPerDay: c.ReadsPerDay, Custody: policies.Custody(c.Custody)}
		if err := o.Grant(s.ctx, reader, fields, opts); err != nil {
			return err
		}
		s.print(map[string]any{"reader": reader, "granted": fields, "custody": c.Custody}, func(w io.Writer) { fmt.Fprintf(w, "%s may read %s.\n", c.Reader, join(fields)) })
		if opts.Custody == policies.CustodySealed && !s.JSON {
			s.note("You chose %s.", client.SealedMeans)
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

// parseDuration reads 12h, 90d or 2y besides what Go's durations are.
func parseDuration(text string) (time.Duration, error) {
	bad := fmt.Errorf("%w: %q is not a time such as 12h, 90d or 2y", errUsage, text)
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

type meRevoke struct {
	Reader   string   `arg:"" help:"Alias or id of a contact."`
	Fields   []string `arg:"" optional:"" help:"Fields or groups; none means everything."`
	NoRotate bool     `help:"Do not move the fields to new keys."`
}

func (c *meRevoke) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		reader, err := o.Find(c.Reader)
		if err != nil {
			return err
		}
		var have []policies.Field
		for _, g := range o.Grants(false) {
			if g.Reader == reader {
				have = append(have, g.Field)
			}
		}
		fields, err := catalogue.Expand(c.Fields, have)
		if err != nil {
			return err
		}
		sealed := slices.ContainsFunc(o.Grants(false), func(g client.GrantInfo) bool {
			return g.Reader == reader && g.Custody == policies.CustodySealed && (len(fields) == 0 || slices.Contains(fields, g.Field))
		})
		err = o.Revoke(s.ctx, reader, fields, client.RevokeOptions{KeepEpoch: c.NoRotate})
		if err != nil && !errors.Is(err, client.ErrNotRotated) {
			return err
		}
		what := "anything"
		if len(fields) > 0 {
			what = join(fields)
		}
		s.print(map[string]any{"reader": reader, "revoked": fields, "stopped": true, "rotated": err == nil && !c.NoRotate, "sealed": sealed}, func(w io.Writer) {
			fmt.Fprintf(w, "STOPPED: %s can no longer read %s. The vault's receipt is verified.\n", c.Reader, what)
			if sealed {
				fmt.Fprintln(w, "The key was in custody sealed: it is forgotten; a copy kept by the vault's host dies when its sealing key is destroyed (`sallyport me history` names it).")
			}
		})
		// The reader is stopped, which is what was asked for; the move to new keys follows with the next command.
		if errors.Is(err, policies.CodeUnavailable) {
			s.note("The fields move to new keys when the storefront answers again; `sallyport me sync` tries.")
			return nil
		}
		if err != nil {
			s.note("sallyport: %v", err)
			return errQuiet{err}
		}
		return nil
	})
}

type meGrants struct {
	All bool `help:"Also what has expired or was revoked."`
}

func (c *meGrants) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		list := o.Grants(c.All)
		s.print(map[string]any{"grants": list}, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
			for _, g := range list {
				who := g.Alias
				if who == "" {
					who = g.Reader.String()
				}
				fmt.Fprintf(t, "%s\t%s\t%s\tcustody %s\tuntil %s\tfor %s\n", who, g.Field, g.Status, g.Custody, g.Expires.Format("2006-01-02"), oneLine(g.Purpose))
			}
			t.Flush()
		})
		return nil
	})
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
				if len(c.Wrong) == 0 {
					fmt.Fprintf(w, "%-16s agrees\n", c.What)
				}
				for _, wrong := range c.Wrong {
					fmt.Fprintf(w, "%-16s DOES NOT AGREE: %s\n", c.What, wrong)
				}
			}
			fmt.Fprintf(w, "Each of %d entries about you is proven to be in the key-use log of %d entries, which has all that this device saw before.\n", v.Entries, v.Size)
		})
		if !v.Agrees() {
			return errQuiet{fmt.Errorf("%w: the log does not agree with this device", client.ErrUntrue)}
		}
		return nil
	})
}

type meHistory struct {
	Limit int `help:"At most so many entries." default:"50"`
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
			fmt.Fprintf(w, "%s  %s\n", e.Time.Local().Format("2006-01-02 15:04:05"), oneLine(e.Text))
		}
		fmt.Fprintf(w, "Each of these %d entries is proven to be in the key-use log.\n", len(events))
	})
}

type meRotate struct {
	Fields []string `arg:"" help:"Fields or groups."`
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
		s.print(map[string]any{"rotated": fields}, func(w io.Writer) { fmt.Fprintf(w, "%s: moved to new keys.\n", join(fields)) })
		return nil
	})
}

type meSync struct{}

func (c *meSync) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		if err := o.Sync(s.ctx); err != nil {
			return err
		}
		s.print(map[string]any{"synced": true}, func(w io.Writer) { fmt.Fprintln(w, "Everything is done and confirmed.") })
		return nil
	})
}

type meBackup struct {
	File string `arg:"" help:"The file to write, on another disk than the profile."`
}

func (c *meBackup) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, p *profile.Profile) error {
		recovery, err := o.Backup(!inside(c.File, p.Dir()), writeBackup(p, c.File))
		if err != nil {
			return err
		}
		s.printBackup(c.File, recovery)
		return nil
	})
}

func (s *session) printBackup(file string, recovery bool) {
	s.print(map[string]any{"backup": file, "recovery_key": recovery}, func(w io.Writer) {
		fmt.Fprintf(w, "The backup is in %s, sealed like the profile.\n", file)
		if !recovery {
			fmt.Fprintln(w, "It has no recovery key, since that was moved into an earlier backup: keep that one too.")
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
	File string `arg:"" help:"The backup file."`
}

func (c *meRestore) Run(s *session) error {
	return s.restore("me", c.File, func(p *profile.Profile, plain []byte, options client.Options) error {
		o, err := client.RestoreOwner(p, plain, options)
		if err != nil {
			return err
		}
		defer o.Close()
		if err := o.Sync(s.ctx); err != nil {
			return fmt.Errorf("the profile is restored, but not up to date yet: %w", err)
		}
		s.print(map[string]any{"id": o.ID(), "fields": len(o.Fields())}, func(w io.Writer) {
			fmt.Fprintf(w, "Restored %d fields into %s.\n", len(o.Fields()), p.Dir())
		})
		return nil
	})
}

// restore opens a backup, makes a profile for it, and hands both to use.
func (s *session) restore(name, file string, use func(p *profile.Profile, plain []byte, options client.Options) error) error {
	options, err := s.options()
	if err != nil {
		return err
	}
	plain, err := s.unsealBackup(file)
	if err != nil {
		return fmt.Errorf("opening the backup: %w", err)
	}
	defer clear(plain)
	p, err := s.createProfile(name)
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
		rows = append(rows, row{e.Name, e.Title, e.Type, e.Parts, e.Groups, e.Property})
	}
	s.print(map[string]any{"version": catalogue.Version, "fields": rows, "groups": catalogue.Groups()}, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		for _, r := range rows {
			what := r.Title
			if len(r.Parts) > 0 {
				what += " (" + strings.Join(r.Parts, ", ") + ")"
			}
			groups := ""
			if len(r.Groups) > 0 {
				groups = "in " + strings.Join(r.Groups, ", ")
			}
			fmt.Fprintf(t, "%s\t%s\t%s\n", r.Field, what, groups)
		}
		t.Flush()
		fmt.Fprintf(w, "\nA second one of a kind is called phone.mobile.2, and so on. Fields of your own begin with %s\n", catalogue.OwnPrefix)
	})
	return nil
}
