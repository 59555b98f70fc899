package main

import (
	"fmt"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/pkcs11"
)

type sealingKeyCommand struct {
	signing
	Module    file `help:"PKCS#11 library, if it is not in a usual place."`
	SoPINFile file `name:"so-pin-file" help:"File with the security officer's PIN, mode 0600. For a development vault: so.pin beside DIR."`
	Yes       bool `help:"Do it."`
	JSON      bool `name:"json" help:"Write what was done as JSON."`
}

// Help is the worked example.
func (c *sealingKeyCommand) Help() string {
	return `Example, on the vault's host, with the ceremony key's stick and the security officer there:

  sallyport-hsm sealing-key --dir /var/lib/sallyport/vault --so-pin-file so.pin --ceremony-key /media/stick/ceremony.key --yes

Do it regularly, and after many revocations: a revoked key of custody sealed is beyond everybody's reach only when the sealing key of its period is destroyed.
A host that is hostile while both keys are in the token can take a copy along to the new one: if you have doubts about the host, put it right first.`
}

// Run makes the sealing key of the next period.
func (c *sealingKeyCommand) Run(t *terminal) error {
	record, err := c.open()
	if err != nil {
		return err
	}
	if c.SoPINFile == "" {
		if !record.Vault.DevMode {
			return fmt.Errorf("%w: --so-pin-file is needed", errUsage)
		}
		c.SoPINFile = file(c.Dir.beside("so.pin"))
	}
	if !c.Yes {
		t.say("Nothing was done. With --yes this would, while the vault may go on running:")
		t.say("  - log in to token %s, serial %s, as security officer", record.Transcript.Token.Label, record.Transcript.Token.Serial)
		t.say("  - make the sealing key of the next period (AES-256, not extractable), unless an earlier run that was cut short made it already")
		t.say("  - list it in the transcript in %s, signed with the ceremony key", c.Dir)
		return nil
	}
	passphrase, err := t.passphrase(c.PassphraseFile, false)
	if err != nil {
		return err
	}
	defer clear(passphrase)
	pin, err := hardware.ReadPIN("file:"+string(c.SoPINFile), false)
	if err != nil {
		return err
	}
	defer pin.Zero()
	next := hardware.NextSealingKey{
		Dir: string(c.Dir), CeremonyKey: string(c.CeremonyKey), Passphrase: passphrase, Module: string(c.Module), OfficerPIN: pin,
	}
	made, err := next.Run(t.ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return t.json(made)
	}
	if made.Resumed {
		t.say("An earlier run was cut short after it had made %q: that key is in the transcript now.", string(pkcs11.SealingKey(made.Period)))
	} else {
		t.say("Made %q and listed it in the transcript.", string(pkcs11.SealingKey(made.Period)))
	}
	t.say("transcript hash %s, version %d", made.Record.TranscriptHash, made.Record.Transcript.Version)
	for _, period := range made.Before {
		t.say("The vault moves what is under %q to the new one, inside the token, then destroys the old key. Until its log says so, a copy that "+
			"the host kept of a key revoked before can still be loaded.", string(pkcs11.SealingKey(period)))
	}
	t.say("A running vault notices it by itself; one that is stopped, at its next start. Now take the ceremony key offline again.")
	return nil
}
