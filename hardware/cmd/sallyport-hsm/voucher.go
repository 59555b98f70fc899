package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/policies"
)

type voucherCommand struct {
	signing
	ID       name `name:"id" required:"" help:"Id of the business, as it gave it itself: on paper, say, and not from a storefront."`
	Identity file `required:"" help:"Its identity document, from the storefront: GET /v1/identities/ID. Its hash is the id."`
	Out      file `required:"" help:"Where to write the voucher. POST it to the storefront's /v1/identities/ID/voucher; it is no secret."`
	Days     int  `default:"90" help:"For how many days it is good, 1 to 400. Somebody from whom its end is hidden believes it so long."`
	Withdraw bool `help:"Say that no voucher before this one holds any more."`
	Yes      bool `help:"Do it: you have checked that the business is who it says."`
}

// Run signs a voucher.
func (c *voucherCommand) Run(t *terminal) error {
	if _, err := c.open(); err != nil {
		return err
	}
	var id policies.IdentityID
	if err := id.UnmarshalText([]byte(strings.TrimSpace(string(c.ID)))); err != nil {
		return fmt.Errorf("%w: --id: %w", errUsage, err)
	}
	if c.Days < 1 || c.Days > 400 {
		return fmt.Errorf("%w: --days is 1 to 400", errUsage)
	}
	document, err := os.ReadFile(string(c.Identity))
	if err != nil {
		return err
	}
	if !c.Yes {
		t.say("Nothing was done. With --yes this would sign, with the ceremony key, what the vault's operator says of the name of %s.", id)
		return nil
	}
	passphrase, err := t.passphrase(c.PassphraseFile, false)
	if err != nil {
		return err
	}
	defer clear(passphrase)
	vouch := hardware.Vouch{
		Dir: string(c.Dir), CeremonyKey: string(c.CeremonyKey), Passphrase: passphrase,
		ID: id, Identity: document, Life: time.Duration(c.Days) * 24 * time.Hour, Withdrawn: c.Withdraw,
	}
	e, d, err := vouch.Run(t.ctx)
	if err != nil {
		return err
	}
	if err := os.WriteFile(string(c.Out), e.Raw, 0o644); err != nil { // #nosec G306 -- a voucher is public
		return err
	}
	if d.Withdrawn {
		t.say("The voucher for %q is withdrawn as soon as the vault has %s.", d.Name, c.Out)
		return nil
	}
	t.say("%q is vouched for until %s, as soon as the vault has %s. It refuses it if the name looks like another that is vouched for.", d.Name, time.Unix(d.Expires, 0).UTC().Format(time.DateOnly), c.Out)
	return nil
}
