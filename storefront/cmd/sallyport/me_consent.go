package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

type meAccept struct {
	Link string `arg:"" help:"${flag_accept_link}"`
	As   string `help:"${flag_connect_as}" placeholder:"ALIAS"`
}

func (c *meAccept) Run(s *session) error {
	link, err := links.ParseInvite(c.Link)
	if err != nil {
		return err
	}
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		if err := o.Accept(s.ctx, link, c.As); err != nil {
			return err
		}
		s.print(map[string]any{"reader": link.Reader, "alias": c.As, "accepted": true}, func(w io.Writer) {
			fmt.Fprintln(w, s.say("consent.accepted"))
		})
		return nil
	})
}

type meInbox struct {
	All bool `help:"${flag_inbox_all}"`
}

func (c *meInbox) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		mail, err := o.Receive(s.ctx)
		if err != nil && !errors.Is(err, policies.CodeUnavailable) {
			return err
		}
		s.noteRefused(mail)
		list := o.Inbox(c.All)
		if err != nil && len(list) == 0 { // nobody can say that nobody asks
			return err
		}
		if err != nil {
			s.note("%s", s.explain(err))
		}
		s.print(map[string]any{"requests": list}, func(w io.Writer) {
			if len(list) == 0 {
				fmt.Fprintln(w, s.say("consent.none"))
			}
			for i := range list {
				s.printRequest(w, &list[i])
			}
		})
		return nil
	})
}

// noteRefused says that messages were thrown away, and why.
func (s *session) noteRefused(mail client.Mail) {
	for _, err := range mail.Refused {
		text := err.Error()
		if s.person {
			text = s.reason(err)
		}
		s.note("%s", s.say("consent.thrown", "why", text))
	}
}

// shortID is as much of an id as people type.
func shortID(id policies.DocumentID) string { return id.String()[:8] }

func (s *session) asker(c *client.Consent) string {
	who := c.Alias
	if who == "" {
		who = c.Party.String()
	}
	if c.Name != "" {
		who += fmt.Sprintf(" (%q, %s)", c.Name, s.standing(&c.From))
	} else if standing := s.standing(&c.From); standing != "" {
		who += fmt.Sprintf(" (%s)", standing)
	}
	return who
}

func (s *session) printRequest(w io.Writer, c *client.Consent) {
	fmt.Fprintln(w, s.say("consent.asks", "id", shortID(c.ID), "who", s.asker(c), "purpose", oneLine(c.Purpose.Text), "term", c.Purpose.Term))
	if !c.Source.IsZero() {
		fmt.Fprintf(w, "  %s\n", s.say("consent.source", "source", s.source(c)))
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, f := range c.Asked {
		kind, given := s.say("consent.optional"), ""
		if f.Required {
			kind = s.say("consent.required")
		}
		if slices.Contains(c.Fields, f.Field) {
			given = s.say("consent.allowed")
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", f.Field, kind, oneLine(f.Reason), given)
	}
	_ = t.Flush()
	var state string
	switch {
	case c.Waits:
		state = s.say("consent.waits")
	case c.Status == consent.Pending:
		state = s.say("consent.pending", "time", s.days(time.Duration(c.Duration)*time.Second), "date", until(c.Expires), "id", shortID(c.ID))
	case len(c.Fields) > 0:
		state = s.say("consent.state."+string(c.Status)) + ", " + s.say("consent.until", "date", until(c.Until))
	default:
		state = s.say("consent.state." + string(c.Status))
	}
	fmt.Fprintf(w, "  %s\n", state)
}

// source is who is to deposit what a specification asks for.
func (s *session) source(c *client.Consent) string {
	return contactName(client.Contact{Alias: c.SourceAlias, ID: c.Source})
}

// days is a time in words.
func (s *session) days(d time.Duration) string {
	day := 24 * time.Hour
	if d < 2*day {
		text := d.Round(time.Second).String() // 2h0m0s
		for _, none := range []string{"m0s", "h0m"} {
			if strings.HasSuffix(text, none) {
				text = text[:len(text)-2]
			}
		}
		return text
	}
	return s.say("consent.days", "n", int64(d/day))
}

type meAnswer struct {
	Request string   `arg:"" help:"${flag_answer_request}"`
	Grant   []string `help:"${flag_answer_grant}" placeholder:"FIELDS"`
	Deny    []string `help:"${flag_answer_deny}" placeholder:"FIELDS"`
	DenyAll bool     `help:"${flag_answer_all}"`
	Custody string   `help:"${flag_grant_custody}" default:"resident" enum:"resident,sealed"`
	Yes     bool     `help:"${flag_yes}"`
}

func (c *meAnswer) Run(s *session) error {
	if c.DenyAll && len(c.Grant)+len(c.Deny) > 0 {
		return s.adding(errUsage, "usage.deny")
	}
	for _, f := range c.Deny {
		if slices.Contains(c.Grant, f) {
			return s.adding(errUsage, "usage.both", "field", f)
		}
	}
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		grant := toFields(c.Grant)
		if len(c.Grant)+len(c.Deny) == 0 && !c.DenyAll {
			var err error
			if grant, err = s.decide(o, c.Request); err != nil {
				return err
			}
		} else if !c.Yes {
			if err := s.sureOfAll(o, c.Request, grant); err != nil {
				return err
			}
		}
		answered, err := o.Answer(s.ctx, c.Request, grant, policies.Custody(c.Custody))
		if err != nil {
			return err
		}
		s.print(answered, func(w io.Writer) {
			if len(answered.Fields) == 0 {
				fmt.Fprintln(w, s.say("consent.denied", "who", s.asker(&answered)))
				return
			}
			fmt.Fprintln(w, s.say("consent.granted", "who", s.asker(&answered), "fields", join(answered.Fields), "date", until(answered.Until),
				"alias", contactName(client.Contact{Alias: answered.Alias, ID: answered.Party})))
			if !answered.Source.IsZero() {
				fmt.Fprintln(w, s.say("consent.ordered", "source", s.source(&answered), "who", s.asker(&answered)))
			}
		})
		return nil
	})
}

// decide asks field by field on the terminal.
func (s *session) decide(o *client.Owner, id string) ([]policies.Field, error) {
	f, ok := s.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, s.adding(errUsage, "consent.no_terminal")
	}
	found, err := requestOf(o, id)
	if err != nil {
		return nil, err
	}
	s.printRequest(s.stderr, found)
	return s.askFields(found, bufio.NewReader(f), s.stderr)
}

// requestOf finds a request by its first digits, as [client.Owner.Answer] does.
func requestOf(o *client.Owner, id string) (*client.Consent, error) {
	var found []client.Consent
	for _, c := range o.Inbox(true) {
		if len(id) >= 4 && strings.HasPrefix(c.ID.String(), id) {
			found = append(found, c)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%w: %q", policies.CodeNotAsked, id)
	}
	return &found[0], nil
}

// sureOfAll asks a person who is about to allow all the fields they have, and was not asked about each.
func (s *session) sureOfAll(o *client.Owner, id string, grant []policies.Field) error {
	have := fieldsOf(o)
	if !everything(grant, have) {
		return nil
	}
	asked, err := requestOf(o, id)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(grant, func(f policies.Field) bool {
		return !slices.ContainsFunc(asked.Asked, func(a consent.AskedField) bool { return a.Field == f })
	}) {
		return nil // more than was asked for, which is refused
	}
	return s.sure("grant.all", "n", len(have), "reader", s.asker(asked))
}

// askFields asks about each field. Only yes, or its first letter, allows; an empty line denies.
func (s *session) askFields(c *client.Consent, in *bufio.Reader, out io.Writer) ([]policies.Field, error) {
	var grant []policies.Field
	for _, f := range c.Asked {
		for answered := false; !answered; {
			fmt.Fprint(out, s.say("consent.may.ask", "field", f.Field))
			line, err := s.line(in)
			if err != nil {
				return nil, fmt.Errorf("nothing is decided: %w", err)
			}
			answered = true
			switch line = strings.ToLower(strings.TrimSpace(line)); line {
			case s.say("answer.yes"), s.say("answer.yes")[:1]:
				grant = append(grant, f.Field)
			case "", s.say("answer.no"), s.say("answer.no")[:1]:
			default:
				answered = false
			}
		}
	}
	return grant, nil
}

type meStop struct {
	Reader string   `arg:"" help:"${flag_reader}"`
	Fields []string `arg:"" optional:"" help:"${flag_revoke_fields}"`
	Letter string   `help:"${flag_stop_letter}" placeholder:"FILE"`
}

// errNoneGiven: what is to end was never allowed, or has ended.
var errNoneGiven = errors.New("there is no such permission")

// noneGiven says it of an error, if that is why.
func noneGiven(reader string, err error) error {
	if errors.Is(err, policies.CodeNoGrant) {
		return fmt.Errorf("%s: %w: %w", reader, errNoneGiven, err)
	}
	return err
}

// writable reports why a new file could not be written, before it is too late to choose another name.
func writable(file string) error {
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("%s: %w", file, errFile)
	}
	dir := filepath.Dir(file)
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return &fs.PathError{Op: "writing to", Path: dir, Err: err}
	}
	return nil
}

func (c *meStop) Run(s *session) error {
	if c.Letter != "" {
		if err := writable(c.Letter); err != nil {
			return s.adding(err, "stop.not_yet")
		}
	}
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
		if writes {
			ending = o.EndWrite(s.ctx, reader, fields)
		}
		stopped, err := o.Stop(s.ctx, reader, fields)
		if writes && ending == nil && errors.Is(err, policies.CodeNoGrant) { // it could only write
			s.printWriteEnded(c.Reader, reader, fields)
			return nil
		}
		if err != nil && stopped.Stopped.IsZero() {
			return errors.Join(ending, noneGiven(c.Reader, err))
		}
		letter := s.deletionLetter(&stopped, o.ID())
		var unwritten error // which undoes nothing of what is to be told
		if c.Letter != "" {
			if unwritten = profile.WriteFile(c.Letter, []byte(letter)); unwritten != nil {
				unwritten = fmt.Errorf("writing the letter: %w", unwritten)
			}
		}
		result := struct {
			client.Stopped
			Letter string `json:"letter"`
		}{stopped, letter}
		s.print(result, func(w io.Writer) {
			fmt.Fprintln(w, s.say("stopped", "reader", c.Reader, "fields", join(stopped.Fields)))
			if writes && ending == nil {
				fmt.Fprintln(w, s.say("stopped.write", "reader", c.Reader))
			}
			fmt.Fprintln(w, s.say("stop.when", "when", when(stopped.Stopped)))
			if stopped.LastRead.IsZero() {
				fmt.Fprintln(w, s.say("stop.unread"))
			} else {
				fmt.Fprintln(w, s.say("stop.read", "when", when(stopped.LastRead)))
			}
			fmt.Fprintln(w, s.say("stop.copies"))
			if unwritten != nil {
				fmt.Fprintf(w, "\n%s\n", letter)
			} else if c.Letter != "" {
				fmt.Fprintln(w, s.say("stop.letter", "file", c.Letter))
			}
		})
		if unwritten == nil && ending == nil && errors.Is(err, policies.CodeUnavailable) {
			s.note("%s", s.say("stop.later"))
			return nil
		}
		err = errors.Join(ending, err, unwritten)
		if err != nil {
			s.note("%s", s.explain(err))
			return errQuiet{err}
		}
		return nil
	})
}

func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// deletionLetter asks for deletion on paper. A person's name is not in it, since no program here knows it.
func (s *session) deletionLetter(d *client.Stopped, owner policies.OwnerID) string {
	to := d.Name
	if to == "" {
		to = d.Alias
	}
	if to == "" {
		to = d.Reader.String()
	}
	read := ""
	if !d.LastRead.IsZero() {
		read = s.say("letter.read", "when", d.LastRead.UTC().Format("2006-01-02 15:04:05 MST")) + "\n"
	}
	return s.say("letter", "to", oneLine(to), "date", time.Now().Format(time.DateOnly), "fields", join(d.Fields), "when", d.Stopped.UTC().Format("2006-01-02 15:04:05 MST"),
		"read", read, "mine", owner, "theirs", d.Reader) + "\n"
}

type meMute struct {
	Reader string `arg:"" help:"${flag_reader}"`
	Off    bool   `help:"${flag_off}"`
}

func (c *meMute) Run(s *session) error {
	return s.quiet(c.Reader, !c.Off, (*client.Owner).Mute, "quiet.muted", "quiet.unmuted")
}

type meBlock struct {
	Reader string `arg:"" help:"${flag_reader}"`
	Off    bool   `help:"${flag_off}"`
}

func (c *meBlock) Run(s *session) error {
	return s.quiet(c.Reader, !c.Off, (*client.Owner).Block, "quiet.blocked", "quiet.unblocked")
}

func (s *session) quiet(name string, on bool, set func(*client.Owner, policies.ReaderID, bool) error, done, undone string) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		reader, err := o.Find(name)
		if err != nil {
			return err
		}
		if err := set(o, reader, on); err != nil {
			return err
		}
		text := done
		if !on {
			text = undone
		}
		s.print(map[string]any{"reader": reader, "on": on}, func(w io.Writer) { fmt.Fprintln(w, s.say(text, "who", name)) })
		return nil
	})
}
