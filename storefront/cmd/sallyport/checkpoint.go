package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

// maxNote is the longest checkpoint that is read from a file, in bytes.
const maxNote = 64 << 10

// keptCheckpoint is the command of owners and readers alike.
type keptCheckpoint struct {
	Compare string   `help:"${flag_checkpoint_compare}" placeholder:"FILE" xor:"what"`
	Witness []string `help:"${flag_checkpoint_witness}" placeholder:"TEXT" sep:"none" xor:"what"`
	Need    int      `help:"${flag_checkpoint_need}" placeholder:"N"`
}

// errNoState: what this device's state of the log is to be compared with is none that the vault signed. It is a client.ErrUntrue too, and not the storefront's doing.
var errNoState error = noState{}

type noState struct{}

func (noState) Error() string {
	return "what is to be compared with is not a state of the log that this vault signed: it is another file, of another vault, or was changed"
}

func (noState) Is(target error) bool { return target == client.ErrUntrue }

// keptLog is what an owner's and a reader's device keep of the log.
type keptLog interface {
	Log() client.View
	Vault(ctx context.Context) (*policies.VaultDocument, error)
	Compare(ctx context.Context, note string) error
	Witnessed(ctx context.Context, w evidence.Witnesses) (evidence.Published, error)
}

type meCheckpoint struct{ keptCheckpoint }

func (c *meCheckpoint) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error { return c.run(s, o) })
}

type bizCheckpoint struct{ keptCheckpoint }

func (c *bizCheckpoint) Run(s *session) error {
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error { return c.run(s, r) })
}

func (c *keptCheckpoint) run(s *session, log keptLog) error {
	if c.Need != 0 && len(c.Witness) == 0 {
		return fmt.Errorf("%w: %s", errUsage, s.say("checkpoint.need"))
	}
	if len(c.Witness) > 0 {
		return c.witnessed(s, log)
	}
	if c.Compare == "" {
		v := log.Log()
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
	v, err := log.Vault(s.ctx)
	if err != nil {
		return err
	}
	if _, err := evidence.OpenCheckpoint(string(note), v.LogKey); err != nil {
		return errNoState
	}
	switch err := log.Compare(s.ctx, string(note)); {
	case errors.Is(err, client.ErrFork):
		s.note("%s", s.say("checkpoint.fork", "file", c.Compare))
		return err
	case err != nil:
		return err
	}
	s.print(map[string]any{"agrees": true, "size": log.Log().Size}, func(w io.Writer) {
		fmt.Fprintln(w, s.say("checkpoint.agrees"))
	})
	return nil
}

// seenByWitnesses is what --witness prints with --json.
type seenByWitnesses struct {
	Size      uint64     `json:"size"` // of what they saw
	Kept      uint64     `json:"kept"` // of what this device saw
	Witnesses []cosigned `json:"witnesses"`
}

// witnessed demands that witnesses saw what this device sees.
func (c *keptCheckpoint) witnessed(s *session, log keptLog) error {
	rule, err := witnessRule(c.Witness, c.Need)
	if err != nil {
		return err
	}
	p, err := log.Witnessed(s.ctx, rule)
	if err != nil {
		if errors.Is(err, client.ErrFork) {
			s.note("%s", s.say("checkpoint.witness.fork"))
		}
		return err
	}
	out := seenByWitnesses{Size: p.Size, Kept: log.Log().Size}
	for _, w := range p.Witnesses {
		out.Witnesses = append(out.Witnesses, cosigned{w.By.Name, w.At})
	}
	s.print(out, func(w io.Writer) {
		for _, one := range out.Witnesses {
			fmt.Fprintln(w, s.say("checkpoint.witness.saw", "name", one.Name, "date", one.Time.Local().Format("2006-01-02 15:04:05")))
		}
		if newer := out.Kept - min(out.Kept, out.Size); newer > 0 {
			fmt.Fprintln(w, s.say("checkpoint.witness.newer", "n", fmt.Sprint(newer)))
		}
	})
	return nil
}

// warnLog says what a person should know of the key-use log, whatever they came for.
func (s *session) warnLog(v client.View) {
	if !v.Since.IsZero() {
		s.note("%s", s.say("log.since", "date", v.Since.Local().Format("2006-01-02 15:04")))
	}
}
