package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
	"rsc.io/qr"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
	"github.com/sallyport/sallyport/vault/pre/password"
)

// The way back for who loses a device: a password, or a sheet of paper.

type mePassword struct {
	Set    mePasswordSet    `cmd:"" help:"${help_password_set}"`
	Change mePasswordSet    `cmd:"" help:"${help_password_change}"`
	Status mePasswordStatus `cmd:"" help:"${help_password_status}"`
	Unlock mePasswordUnlock `cmd:"" help:"${help_password_unlock}"`
}

type mePasswordSet struct {
	Server string `name:"account-server" help:"${flag_account_server}" placeholder:"URL"`
	File   string `name:"new-password-file" help:"${flag_account_new}" placeholder:"FILE"`
	replaceAccount
}

// replaceAccount is what a person says of an account that another device changed.
type replaceAccount struct {
	Replace    bool `help:"${flag_account_replace}" xor:"replace"`
	ReplaceAll bool `help:"${flag_account_replace_all}" xor:"replace"`
}

// errElsewhere: another device changed the account, and nobody said that this one is to count.
var errElsewhere = fmt.Errorf("%w: another device changed the password or the sheet", policies.CodeOutdated)

// claiming does something with what the person said, and once more if they are sure that what this device cannot keep is to end.
func (c *replaceAccount) claiming(s *session, do func(client.Claim) error) error {
	claim := client.ClaimNothing
	switch {
	case c.ReplaceAll:
		claim = client.ClaimAll
	case c.Replace:
		claim = client.ClaimOwn
	}
	err := do(claim)
	question := ""
	switch {
	case errors.Is(err, client.ErrEndsSheet):
		question = "account.ends.sheet"
	case errors.Is(err, client.ErrEndsPassword):
		question = "account.ends.password"
	case errors.Is(err, client.ErrRollback) && errors.Is(err, client.ErrNoAccount):
		return s.adding(client.ErrRollback, "account.gone") // and not that a password is to be set first
	case errors.Is(err, policies.CodeOutdated):
		return errElsewhere
	default:
		return err
	}
	if err := s.sure(question); err != nil {
		return err
	}
	return do(client.ClaimAll)
}

// minPassword is how many characters a new password, or passphrase, has at least: whoever runs the account server and its protected device could try many, and so could who has a
// profile's folder or a backup.
const minPassword = 10

func (c *mePasswordSet) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		text, err := s.newPassword(c.File)
		if err != nil {
			return err
		}
		defer clear(text)
		if err := c.claiming(s, func(claim client.Claim) error { return o.SetPassword(s.ctx, c.Server, text, claim) }); err != nil {
			return err
		}
		s.print(map[string]any{"id": o.ID(), "password": true}, func(w io.Writer) { fmt.Fprintln(w, s.say("password.set", "id", o.ID())) })
		return nil
	})
}

// newPassword is a password that is long enough, from a file or typed twice.
func (s *session) newPassword(file string) ([]byte, error) {
	text, err := s.password(file, "--new-password-file", true)
	if err != nil {
		return nil, err
	}
	if utf8.RuneCount(text) < minPassword {
		clear(text)
		return nil, s.adding(errUnsure, "password.short", "n", minPassword)
	}
	return text, nil
}

// password reads a password, or the code of a sheet, from a file that only its owner can read, which a flag names, or asks for it.
func (s *session) password(file, flag string, twice bool) ([]byte, error) {
	if err := conceal(); err != nil {
		return nil, err
	}
	if file != "" {
		text, err := profile.ReadSecretFile(file, 4096)
		if err != nil {
			return nil, fmt.Errorf("reading the file of %s: %w", flag, err)
		}
		return bytes.TrimRight(text, "\r\n"), nil
	}
	f, ok := s.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, s.adding(errUsage, "usage.no_terminal", "flag", flag)
	}
	return s.hidden(f, "password.ask", twice)
}

type mePasswordStatus struct{}

func (c *mePasswordStatus) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		info, err := o.Account(s.ctx)
		if err != nil {
			return err
		}
		s.print(info, func(w io.Writer) {
			yes := map[bool]string{true: s.say("account.yes"), false: s.say("account.no")}
			fmt.Fprintln(w, s.say("account.status", "server", info.Server, "password", yes[info.Password], "sheet", yes[info.Kit], "n", info.Tried))
			if info.Outdated {
				fmt.Fprintln(w, s.say("account.outdated"))
			}
			if info.Elsewhere {
				fmt.Fprintln(w, s.say("account.changed"))
			}
		})
		return nil
	})
}

type mePasswordUnlock struct{}

func (c *mePasswordUnlock) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		if err := o.UnlockPassword(s.ctx); err != nil {
			return err
		}
		s.print(map[string]any{"unlocked": true}, func(w io.Writer) { fmt.Fprintln(w, s.say("password.unlocked")) })
		return nil
	})
}

type meKit struct {
	Print   meKitPrint   `cmd:"" help:"${help_kit_print}"`
	Replace meKitReplace `cmd:"" help:"${help_kit_replace}"`
	Test    meKitTest    `cmd:"" help:"${help_kit_test}"`
	Off     meKitOff     `cmd:"" help:"${help_kit_off}"`
}

type meKitPrint struct {
	Server string `name:"account-server" help:"${flag_account_server}" placeholder:"URL"`
	Output string `help:"${flag_output}" placeholder:"FILE"`
	Yes    bool   `help:"${flag_yes}"`
	replaceAccount
}

func (c *meKitPrint) Run(s *session) error { return c.print(s, false) }

type meKitReplace struct{ meKitPrint }

func (c *meKitReplace) Run(s *session) error { return c.print(s, true) }

// print makes a new sheet. One that works is ended by it only if that was said.
func (c *meKitPrint) print(s *session, again bool) error {
	if err := s.fitFile(c.Output, c.Yes); err != nil {
		return err
	}
	if c.Output != "" {
		if _, err := os.Lstat(c.Output); err == nil {
			return fmt.Errorf("%s: %w", c.Output, errFile)
		}
	}
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		if c.Output != "" { // a new sheet ends the one before, so where it goes is made sure of first
			if err := profile.WriteFile(c.Output, nil); err != nil {
				return err
			}
		}
		var kit *password.Kit
		var ended bool
		err := c.claiming(s, func(claim client.Claim) (err error) {
			kit, ended, err = o.NewKit(s.ctx, c.Server, claim, again)
			return err
		})
		if err != nil && c.Output != "" {
			_ = os.Remove(c.Output)
		}
		if err != nil {
			return err
		}
		defer kit.Zero()
		if ended {
			s.note("%s", s.say("kit.before"))
		}
		server := o.AccountServer()
		join := o.Network().Join().String()
		sheet, err := s.sheet(o.ID(), server, join, kit.Text())
		if err != nil {
			return err
		}
		said := map[string]any{"id": o.ID(), "server": server, "join": join, "code": kit.Text()}
		if c.Output != "" {
			if err := profile.WriteFile(c.Output, []byte(sheet)); err != nil {
				_ = os.Remove(c.Output)
				s.print(said, func(w io.Writer) { fmt.Fprint(w, sheet) }) // it is the only one that works by now
				return err
			}
			s.print(map[string]any{"sheet": c.Output}, func(w io.Writer) { fmt.Fprintln(w, s.say("kit.written", "file", c.Output)) })
			return nil
		}
		s.print(said, func(w io.Writer) { fmt.Fprint(w, sheet) })
		return nil
	})
}

// sheet is the recovery sheet: what to type, as text, and the secret code as a QR code too.
func (s *session) sheet(id policies.OwnerID, server, join, code string) (string, error) {
	q, err := qr.Encode(code, qr.M)
	if err != nil {
		return "", fmt.Errorf("drawing the QR code: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", s.say("kit.sheet", "id", id, "server", server, "code", code, "join", join))
	for y := -2; y < q.Size+2; y += 2 {
		for x := -2; x < q.Size+2; x++ {
			upper, lower := q.Black(x, y), q.Black(x, y+1)
			switch {
			case upper && lower:
				b.WriteString("█")
			case upper:
				b.WriteString("▀")
			case lower:
				b.WriteString("▄")
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// kit reads the code of a sheet: from a file, or typed.
func (s *session) kit(file string) (*password.Kit, error) {
	text, err := s.password(file, "--code-file", false)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	return password.ParseKit(string(text))
}

type meKitTest struct {
	File string `name:"code-file" help:"${flag_kit_code}" placeholder:"FILE"`
}

func (c *meKitTest) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		kit, err := s.kit(c.File)
		if err != nil {
			return err
		}
		defer kit.Zero()
		if err := o.TestKit(s.ctx, kit); err != nil {
			return err
		}
		s.print(map[string]any{"works": true}, func(w io.Writer) { fmt.Fprintln(w, s.say("kit.works")) })
		return nil
	})
}

type meKitOff struct {
	Yes bool `help:"${flag_yes}"`
	replaceAccount
}

func (c *meKitOff) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		if !c.Yes {
			if err := s.sure("kit.last"); err != nil {
				return err
			}
		}
		was := false
		err := c.claiming(s, func(claim client.Claim) (err error) {
			was, err = o.DropKit(s.ctx, claim)
			return err
		})
		if err != nil {
			return err
		}
		s.printKitOff(was)
		return nil
	})
}

// printKitOff says that no sheet opens anything now, and whether one did before.
func (s *session) printKitOff(was bool) {
	done := "kit.off"
	if !was {
		done = "kit.none"
	}
	s.print(map[string]any{"off": true, "was": was}, func(w io.Writer) { fmt.Fprintln(w, s.say(done)) })
}

// wayBack restores from the account server.
func (c *meRestore) wayBack(s *session) error {
	if c.Server == "" || c.Account == "" || c.Join == "" || c.Password && c.Kit {
		return s.adding(errUsage, "restore.needs")
	}
	network, options, err := s.joining(c.Join)
	if err != nil {
		return err
	}
	way := client.WayBack{Server: c.Server}
	if err := way.Owner.UnmarshalText([]byte(c.Account)); err != nil {
		return err
	}
	if c.Kit {
		if way.Kit, err = s.kit(c.CodeFile); err != nil {
			return err
		}
		defer way.Kit.Zero()
	} else {
		if way.Password, err = s.password(c.PasswordFile, "--password-file", false); err != nil {
			return err
		}
		defer clear(way.Password)
	}
	p, err := s.createProfile("me", c.Yes)
	if err != nil {
		return err
	}
	defer p.Close()
	o, err := client.RestoreFromAccount(s.ctx, p, network, way, options)
	if err != nil {
		return err
	}
	return s.restored(o, p)
}
