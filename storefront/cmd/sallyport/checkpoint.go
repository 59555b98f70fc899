package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

// maxNote is the longest checkpoint that is read from a file, in bytes.
const maxNote = 64 << 10

// keptCheckpoint is the command of owners and readers alike.
type keptCheckpoint struct {
	Compare string `help:"${flag_checkpoint_compare}" placeholder:"FILE"`
}

type meCheckpoint struct{ keptCheckpoint }

func (c *meCheckpoint) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error { return c.run(s, o.Log, o.Compare) })
}

type bizCheckpoint struct{ keptCheckpoint }

func (c *bizCheckpoint) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error { return c.run(s, r.Log, r.Compare) })
}

func (c *keptCheckpoint) run(s *session, log func() client.View, compare func(context.Context, string) error) error {
	if c.Compare == "" {
		v := log()
		if v.Checkpoint == "" {
			return errors.New(s.say("checkpoint.none"))
		}
		s.print(v, func(w io.Writer) { fmt.Fprint(w, v.Checkpoint) })
		return nil
	}
	f, err := os.Open(c.Compare)
	if err != nil {
		return err
	}
	defer f.Close()
	note, err := io.ReadAll(io.LimitReader(f, maxNote))
	if err != nil {
		return fmt.Errorf("reading a checkpoint: %w", err)
	}
	switch err := compare(s.ctx, string(note)); {
	case errors.Is(err, client.ErrFork):
		s.note("%s", s.say("checkpoint.fork", "file", c.Compare))
		return err
	case err != nil:
		return err
	}
	v := log()
	s.print(map[string]any{"agrees": true, "size": v.Size}, func(w io.Writer) {
		fmt.Fprintln(w, s.say("checkpoint.agrees"))
	})
	return nil
}

// warnLog says what a person should know of the key-use log, whatever they came for.
func (s *session) warnLog(v client.View) {
	if !v.Since.IsZero() {
		s.note("%s", s.say("log.since", "date", v.Since.Local().Format("2006-01-02 15:04")))
	}
}
