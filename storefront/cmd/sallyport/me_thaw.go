package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

type meThaw struct{}

// errNotFrozen: there is no stop to be ended.
var errNotFrozen = errors.New("nothing is stopped")

func (c *meThaw) Run(s *session) error {
	return s.withOwner(func(o *client.Owner, _ *profile.Profile) error {
		err := o.Thaw(s.ctx)
		if errors.Is(err, policies.CodeNotFound) {
			return fmt.Errorf("%w: %w", errNotFrozen, err)
		}
		if err != nil {
			return err
		}
		readers := whoReads(o)
		s.print(map[string]any{"thawed": true, "readers": readers}, func(w io.Writer) {
			fmt.Fprintln(w, s.say("thaw.done", "n", len(readers)))
		})
		return nil
	})
}
