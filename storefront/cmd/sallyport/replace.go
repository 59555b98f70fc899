package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

type meReplace struct {
	LostDevice bool     `help:"${flag_replace_lost}" xor:"why"`
	Stolen     bool     `help:"${flag_replace_stolen}" xor:"why"`
	Fields     []string `help:"${flag_replace_fields}" xor:"how,what,whole,account" placeholder:"FIELD"`
	Cancel     bool     `help:"${flag_replace_cancel}" xor:"why,what"`
	Backup     string   `help:"${flag_replace_backup}" placeholder:"FILE" xor:"whole"`
	OldBackup  string   `help:"${flag_replace_old}" placeholder:"FILE" xor:"how"`
	Announce   bool     `help:"${flag_replace_announce}" xor:"how,account"`
	Password   string   `name:"new-password-file" help:"${flag_replace_password}" placeholder:"FILE" xor:"account"`
	Yes        bool     `help:"${flag_yes}"`
}

func (c *meReplace) Run(s *session) error {
	switch {
	case c.Cancel:
		s.cancelling = true
		return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
			if err := o.CancelReplacement(s.ctx); err != nil {
				return err
			}
			s.print(map[string]any{"cancelled": true}, func(w io.Writer) { fmt.Fprintln(w, s.say("replace.cancelled")) })
			return nil
		})
	case c.Stolen && len(c.Fields) > 0:
		return s.adding(errUsage, "usage.replace.stolen")
	case len(c.Fields) > 0:
		return (&meRotate{Fields: c.Fields}).Run(s)
	case !c.LostDevice && !c.Stolen:
		return s.adding(errUsage, "usage.replace")
	case c.Backup == "":
		return s.adding(errUsage, "usage.backup")
	}
	if err := s.fitFile(c.Backup, c.Yes); err != nil {
		return err
	}
	opts := client.ReplaceOptions{Reason: succession.Lost, Announce: c.Announce}
	if c.Stolen {
		opts.Reason = succession.Stolen
	}
	return s.withOwner(func(o *client.Owner, p *profile.Profile) error {
		var password []byte // what is wrong with it is found out before anything is replaced
		if c.Password != "" {
			if o.AccountServer() == "" {
				return s.adding(client.ErrNoAccount, "usage.replace.password")
			}
			var err error
			if password, err = s.newPassword(c.Password); err != nil {
				return err
			}
			defer clear(password)
		}
		if c.OldBackup != "" {
			plain, err := s.unsealBackup(c.OldBackup)
			if err != nil {
				return fmt.Errorf("opening the backup: %w", err)
			}
			defer clear(plain)
			opts.Recovery = plain
		}
		opts.Away = !inside(c.Backup, p.Dir())
		written := false
		err := o.Replace(s.ctx, opts, func(plain []byte) error {
			err := writeBackup(p, c.Backup)(plain)
			written = err == nil
			return err
		})
		if err != nil && written {
			return s.adding(err, "replaced.later")
		}
		if err != nil {
			return err
		}
		if sameDisk(c.Backup, p.Dir()) {
			s.note("%s", s.say("place.backup", "file", c.Backup))
		}
		if at, own := o.Announced(); own {
			s.print(map[string]any{"announced": at, "backup": c.Backup}, func(w io.Writer) {
				fmt.Fprintln(w, s.say("replace.announced", "time", at.Local().Format("2006-01-02 15:04")))
			})
			return nil
		}
		account, unset := renewAccount(s.ctx, o, password) // the replacement stands, whatever becomes of these
		readers := whoReads(o)
		s.print(map[string]any{"replaced": true, "backup": c.Backup, "readers": readers, "account": account}, func(w io.Writer) {
			fmt.Fprintln(w, s.say("replaced", "file", c.Backup))
			if len(readers) > 0 {
				fmt.Fprintln(w, s.say("replaced.readers", "who", strings.Join(readers, ", ")))
			}
			switch {
			case account != "":
				fmt.Fprintln(w, s.say("replaced.account."+account))
			case o.AccountServer() == "":
				fmt.Fprintln(w, s.say("replaced.account.none"))
			}
		})
		if unset != nil && account != "sheet" {
			s.note("%s", s.explain(unset))
		}
		if unset != nil && password != nil {
			return errQuiet{unset}
		}
		return nil
	})
}

// accountHolder is what renewAccount needs of a person's device.
type accountHolder interface {
	AccountOutdated() bool
	SetPassword(ctx context.Context, server string, text []byte, claim client.Claim) error
	SwitchOff(ctx context.Context) error
}

// renewAccount does what can be done about a password and a sheet, which open what was just replaced: with a new password it is set; else both are switched off. It returns which
// phrase says so, "" if there is no account.
func renewAccount(ctx context.Context, o accountHolder, password []byte) (string, error) {
	switch {
	case !o.AccountOutdated():
		return "", nil
	case password == nil:
		if err := o.SwitchOff(ctx); err != nil {
			return "old", err
		}
		return "off", nil
	}
	err := o.SetPassword(ctx, "", password, client.ClaimOwn)
	switch {
	case errors.Is(err, client.ErrEndsSheet): // another device printed one of what replaced it
		return "sheet", err
	case err != nil:
		return "old", err
	}
	return "set", nil
}

// whoReads are the contacts who may read something, by this device's names for them.
func whoReads(o *client.Owner) []string {
	out := []string{}
	for _, g := range o.Grants(false) {
		name := g.Alias
		if name == "" {
			name = g.Reader.String()
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// noteReplaced tells of a replacement that was carried on and is done.
func (s *session) noteReplaced(o *client.Owner) {
	s.note("%s", s.say("replaced.synced"))
	if readers := whoReads(o); len(readers) > 0 {
		s.note("%s", s.say("replaced.readers", "who", strings.Join(readers, ", ")))
	}
	if o.AccountOutdated() {
		s.note("%s", s.say("replaced.account.old"))
	}
}

// warnAnnounced tells of a replacement that is announced.
func (s *session) warnAnnounced(o *client.Owner) {
	at, own := o.Announced()
	if at.IsZero() {
		return
	}
	id := "replace.foreign"
	if own {
		id = "replace.announced"
	}
	s.note("%s", s.say(id, "time", at.Local().Format("2006-01-02 15:04")))
}

type bizReplace struct {
	Backup    string `help:"Where to write the new backup file, on another disk than the profile. All older ones are worth nothing afterwards." placeholder:"FILE"`
	OldBackup string `help:"The first backup file: it has the recovery key, unless the profile has it still." placeholder:"FILE"`
	Progress  bool   `help:"Only list the customers who have not renewed yet what they had granted."`
}

func (c *bizReplace) Run(s *session) error {
	if !c.Progress && c.Backup == "" {
		return fmt.Errorf("%w: --backup names the new backup file", errUsage)
	}
	return s.withReader(func(r *client.Reader, p *profile.Profile) error {
		if !c.Progress {
			opts := client.ReplaceOptions{Reason: succession.Stolen, Away: !inside(c.Backup, p.Dir())}
			if c.OldBackup != "" {
				plain, err := s.unsealBackup(c.OldBackup)
				if err != nil {
					return fmt.Errorf("opening the backup: %w", err)
				}
				defer clear(plain)
				opts.Recovery = plain
			}
			err := r.Replace(s.ctx, opts, writeBackup(p, c.Backup))
			if errors.Is(err, client.ErrRecovery) {
				return fmt.Errorf("%w; --old-backup names it: the first one, or the one that the last replacement wrote", err)
			}
			if err != nil {
				return err
			}
		}
		waiting, err := r.Waiting(s.ctx)
		if err != nil {
			return err
		}
		s.print(map[string]any{"replaced": !c.Progress, "waiting": waiting}, func(w io.Writer) {
			if !c.Progress {
				fmt.Fprintln(w, "All that was granted before is suspended, and the keys are new. Only the new backup is of use now.")
			}
			who, their := "customers have", "their devices do"
			if len(waiting) == 1 {
				who, their = "customer has", "the device does"
			}
			fmt.Fprintf(w, "%d %s not renewed yet what was granted; %s at the next sync.\n", len(waiting), who, their)
			for _, one := range waiting {
				fmt.Fprintln(w, contactName(one))
			}
		})
		return nil
	})
}
