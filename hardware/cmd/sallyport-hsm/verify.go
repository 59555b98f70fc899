package main

import (
	"fmt"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/pkcs11"
)

type verifyCommand struct {
	Dir     dir  `required:"" help:"Folder of the ceremony."`
	Module  file `help:"PKCS#11 library, if it is not in a usual place."`
	PINFile file `name:"pin-file" help:"File with the user's PIN. For a development vault: user.pin beside DIR."`
	JSON    bool `name:"json" help:"Write what was found as JSON."`
}

// Run compares token and transcript.
func (c *verifyCommand) Run(t *terminal) error {
	record, err := hardware.ReadRecord(string(c.Dir))
	if err != nil {
		return err
	}
	if c.PINFile == "" {
		if !record.Vault.DevMode {
			return fmt.Errorf("%w: --pin-file is needed", errUsage)
		}
		c.PINFile = file(c.Dir.beside("user.pin"))
	}
	pin, err := hardware.ReadPIN("file:"+string(c.PINFile), false)
	if err != nil {
		return err
	}
	defer pin.Zero()
	// Looking at a development vault harms nobody; only serving with it would.
	found, err := record.Verify(t.ctx, string(c.Module), pin, record.Vault.DevMode)
	if err != nil {
		return err
	}
	if c.JSON {
		return t.json(struct {
			Serial     string          `json:"serial"`
			Transcript string          `json:"transcript"`
			Findings   pkcs11.Findings `json:"findings"`
		}{found.Token.Serial, record.TranscriptHash.String(), found})
	}
	t.say("token %s, serial %s: every key is as the transcript says", found.Token.Label, found.Token.Serial)
	for _, k := range found.Keys {
		t.say("  %-28s %d attributes read back", string(k.Name), len(k.Attributes))
	}
	for _, d := range found.Derives {
		result := "works"
		if !d.Works {
			result = "does not work: " + d.Got
		}
		t.say("  derive, %s point, length named %-5t %s", d.Point, d.ValueLen, result)
	}
	for _, p := range found.Points {
		t.say("  bad point refused: %s", p.Point)
	}
	t.say("the sealed secrets open, and belong to the published keys")
	return nil
}
