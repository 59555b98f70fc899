package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

type meDelete struct {
	Yes   string `help:"${flag_delete_yes}" placeholder:"DELETE"`
	Leave bool   `name:"leave-account" help:"${flag_delete_leave}"`
}

func (c *meDelete) Run(s *session) error {
	var dir string
	var left []string
	var undeleted error
	known := false // that there is something at the account server
	err := s.withOwner(func(o *client.Owner, p *profile.Profile) error {
		if c.Yes != s.say("answer.delete") && c.Yes != "DELETE" {
			readers := map[string]bool{}
			for _, g := range o.Grants(false) {
				readers[g.Reader.String()] = true
			}
			if err := s.sureBy("answer.delete", "delete.ask", "fields", len(o.Fields()), "readers", len(readers)); err != nil {
				return err
			}
		}
		// The account first: what opens it needs the keys that go with the profile.
		if known = o.AccountServer() != ""; !c.Leave {
			if err := o.DropAccount(s.ctx); err != nil {
				if o.Closed() {
					return s.adding(err, "delete.account.closed")
				}
				return s.adding(err, "delete.account")
			}
		}
		// Again, if need be: the profile goes only when the storefront was told.
		if err := o.CloseAccount(s.ctx); err != nil {
			return err
		}
		dir = p.Dir()
		if undeleted = os.Remove(filepath.Join(dir, ownBackup)); errors.Is(undeleted, fs.ErrNotExist) {
			undeleted = nil
		}
		var profiles error
		left, profiles = p.Discard()
		undeleted = errors.Join(undeleted, profiles)
		return nil
	})
	if err != nil {
		return err
	}
	if undeleted != nil {
		return s.adding(undeleted, "delete.folder", "dir", dir)
	}
	s.noteLeft(dir, left)
	s.print(map[string]any{"closed": true, "profile": dir, "left": left}, func(w io.Writer) {
		fmt.Fprintln(w, strings.TrimSpace(s.say("delete.done", "dir", dir)))
		if !known {
			fmt.Fprintln(w, s.say("delete.elsewhere"))
		}
	})
	return nil
}
