package main

import (
	"fmt"
	"io"

	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

type meThaw struct{}

func (c *meThaw) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		if err := o.Thaw(s.ctx); err != nil {
			return err
		}
		readers := whoReads(o)
		s.print(map[string]any{"thawed": true, "readers": readers}, func(w io.Writer) {
			fmt.Fprintln(w, s.say("thaw.done", "n", len(readers)))
		})
		return nil
	})
}
