package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/policies/envelope"
)

type guardrailsCommand struct {
	signing
	Rules file `arg:"" help:"All rules that are to be in force, in Cedar; an empty file ends those before."`
	Out   file `required:"" help:"Where to write the signed document, for hand-in; it is no secret."`
	Yes   bool `help:"Do it: you have read the rules."`
}

// Run signs rules.
func (c *guardrailsCommand) Run(t *terminal) error {
	if _, err := c.open(); err != nil {
		return err
	}
	text, err := os.ReadFile(string(c.Rules))
	if err != nil {
		return err
	}
	set, err := hardware.CheckRules(string(text))
	if err != nil {
		return err
	}
	what := "There are no rules: all before would end."
	switch n := set.Names(); len(n) {
	case 0:
	case 1:
		what = fmt.Sprintf("1 rule: %s.", n[0])
	default:
		what = fmt.Sprintf("%d rules: %s.", len(n), strings.Join(n, ", "))
	}
	if !c.Yes {
		t.say("Nothing was done. With --yes this would sign, with the ceremony key, all rules by which the vault refuses what owners granted. %s", what)
		return nil
	}
	passphrase, err := t.passphrase(c.PassphraseFile, false)
	if err != nil {
		return err
	}
	defer clear(passphrase)
	guard := hardware.Guard{Dir: string(c.Dir), CeremonyKey: string(c.CeremonyKey), Passphrase: passphrase, Text: string(text)}
	e, err := guard.Run(t.ctx)
	if err != nil {
		return err
	}
	if err := os.WriteFile(string(c.Out), e.Raw, 0o644); err != nil { // #nosec G306 -- guardrails are public
		return err
	}
	t.say("Signed. %s They take the place of all before as soon as the vault has %s: sallyport-hsm hand-in.", what, c.Out)
	return nil
}

type handInCommand struct {
	Document file `arg:"" help:"What guardrails or voucher wrote."`
	Dir      dir  `required:"" help:"Folder of the ceremony; its public part is enough."`
	Owners   url  `required:"" help:"URL of the vault's owners' door."`
	CA       file `name:"ca" help:"PEM file with the authority of its certificate, if the system does not know it."`
}

// Run hands a document in.
func (c *handInCommand) Run(t *terminal) error {
	document, err := os.ReadFile(string(c.Document))
	if err != nil {
		return err
	}
	var roots []byte
	if c.CA != "" {
		if roots, err = os.ReadFile(string(c.CA)); err != nil {
			return err
		}
	}
	index, at, err := (&hardware.HandIn{Dir: string(c.Dir), Owners: string(c.Owners), Roots: roots, Envelope: document}).Run(t.ctx)
	if err != nil {
		return err
	}
	what := "In force since" // the vault gives no receipt of guardrails that others replaced; of vouchers it does
	if e, err := envelope.Parse(document); err == nil && e.Type != "guardrails" {
		what = "Of those for one identity the one signed last counts. Recorded as"
	}
	t.say("%s entry %d of the key-use log, %s. The vault's receipt is verified.", what, index, at.UTC().Format(time.RFC3339))
	return nil
}
