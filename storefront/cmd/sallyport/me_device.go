package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

type meDevice struct {
	Add     meDeviceAdd     `cmd:"" help:"${help_device_add}"`
	Approve meDeviceApprove `cmd:"" help:"${help_device_approve}"`
}

// meetingTime is how long two devices have for each other: the storefront forgets what they left after that.
const meetingTime = 10 * time.Minute

type meDeviceAdd struct {
	Join string `help:"${flag_join}" required:"" placeholder:"LINK"`
	Yes  bool   `help:"${flag_yes}"`
}

func (c *meDeviceAdd) Run(s *session) error {
	network, options, err := s.joining(c.Join)
	if err != nil {
		return err
	}
	p, err := s.createProfile("me", c.Yes)
	if err != nil {
		return err
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(s.ctx, meetingTime)
	defer cancel()
	d, err := client.BeginDevice(ctx, network, options)
	if err != nil {
		return err
	}
	defer d.Close()
	s.printLine(map[string]any{"code": d.Code()}, s.say("device.code", "code", d.Code()))
	word, err := d.Meet(ctx)
	if err != nil {
		return err
	}
	s.printLine(map[string]any{"shows": word}, s.say("device.show", "word", word))
	said, err := s.typed("device.ask.other")
	if err != nil {
		return err
	}
	o, err := d.Finish(ctx, said, p)
	if err != nil {
		return err
	}
	return s.restored(o, p)
}

type meDeviceApprove struct {
	Code string `arg:"" help:"${flag_device_code}"`
}

func (c *meDeviceApprove) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		ctx, cancel := context.WithTimeout(s.ctx, meetingTime)
		defer cancel()
		a, err := o.MeetDevice(ctx, c.Code)
		if err != nil {
			return err
		}
		said, err := s.typed("device.ask.new")
		if err != nil {
			return err
		}
		word, err := a.Approve(ctx, said)
		if err != nil {
			return err
		}
		s.print(map[string]any{"approved": true, "shows": word}, func(w io.Writer) { fmt.Fprintln(w, s.say("device.approved", "word", word)) })
		return nil
	})
}

// typed asks for a line that a person reads off another screen. It is no secret.
func (s *session) typed(id string) (string, error) {
	fmt.Fprint(s.stderr, s.say(id), " ")
	text, err := s.line(bufio.NewReader(s.stdin))
	if s.ctx.Err() != nil {
		return "", err
	}
	if err != nil && !(errors.Is(err, io.EOF) && text != "") {
		return "", s.adding(errUsage, "usage.nothing_typed")
	}
	return text, nil
}
