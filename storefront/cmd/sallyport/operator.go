package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

type operatorCommands struct {
	Order  operatorOrder  `cmd:"" help:"First operator: you saw who it is, and all reading of this person is to stop. Example: sallyport operator order --as ~/operator-1 ID -o order.json"`
	Freeze operatorFreeze `cmd:"" help:"Second operator: you saw it too. All reading of this person stops. Example: sallyport operator freeze --as ~/operator-2 order.json"`
}

type operatorOrder struct {
	Person policies.OwnerID `arg:"" name:"id" help:"The person's id, such as their recovery sheet has it."`
	As     string           `required:"" help:"The profile of the operator: an identity that the vault's configuration lists." placeholder:"PROFILE"`
	Out    string           `short:"o" required:"" help:"Where to write the order. It is worth nothing without the second operator, and nothing after a day." placeholder:"FILE"`
}

func (c *operatorOrder) Run(s *session) error {
	if c.Person.IsZero() {
		return fmt.Errorf("%w: the id of nobody", errUsage)
	}
	s.Profile = c.As
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		raw, err := r.FreezeOrder(s.ctx, c.Person)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) // #nosec G302 -- an order goes to the second operator; nothing in it is secret
		if err != nil {
			return err
		}
		_, err = f.Write(raw)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		s.print(map[string]any{"person": c.Person, "order": c.Out}, func(w io.Writer) {
			fmt.Fprintf(w, "%s is for another operator, who must see the person too, within a day. Until then everything goes on as it was.\n", c.Out)
		})
		return nil
	})
}

type operatorFreeze struct {
	Order string `arg:"" help:"The first operator's order." type:"existingfile"`
	As    string `required:"" help:"The profile of the operator: an identity that the vault's configuration lists." placeholder:"PROFILE"`
	Yes   string `help:"Do not ask: the first eight digits of the person's id." placeholder:"DIGITS"`
}

// maxOrder bounds the file of an order in bytes.
const maxOrder = 64 << 10

func (c *operatorFreeze) Run(s *session) error {
	f, err := os.Open(c.Order)
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxOrder))
	if err != nil {
		return err
	}
	order, err := client.ReadFreezeOrder(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Order, err)
	}
	digits := order.Owner.String()[:8]
	fmt.Fprintf(s.stderr, "person    %s\noperator  %s, at %s\n", order.Owner, order.Operator, time.Unix(order.Time, 0).Local().Format("2006-01-02 15:04"))
	said := c.Yes
	if said == "" {
		fmt.Fprintf(s.stderr, "All reading of this person stops, and only the person can end that. Type the first eight digits of the person's id: ")
		if said, err = s.line(bufio.NewReader(s.stdin)); err != nil {
			return cmp.Or(s.ctx.Err(), error(usage("nothing was typed, so nothing was done")))
		}
	}
	if strings.TrimSpace(said) != digits {
		return fmt.Errorf("%w: these are not the first digits of %s; nothing was done", errUsage, order.Owner)
	}
	s.Profile = c.As
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		if err := r.Freeze(s.ctx, raw); err != nil {
			return err
		}
		s.print(map[string]any{"person": order.Owner, "frozen": true}, func(w io.Writer) {
			fmt.Fprintf(w, "Nothing of %s is read any more. The person ends that with `sallyport me thaw`.\n", order.Owner)
		})
		return nil
	})
}
