package main

import (
	"fmt"
	"path/filepath"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/pkcs11"
)

type verifyCommand struct {
	Dir     dir  `required:"" help:"Folder of the ceremony."`
	Module  file `help:"PKCS#11 library, if it is not in a usual place."`
	Token   uri  `help:"PKCS#11 URI of the token; verify refuses it if the ceremony's is another. It may name library (module-path) and PIN (pin-source)."`
	PINFile file `name:"pin-file" help:"File with the user's PIN. For a development vault: user.pin beside DIR."`
	JSON    bool `name:"json" help:"Write what was found as JSON."`
}

// choose puts together what flags say of the token.
func choose(token uri, module, pinFile file) (hardware.TokenChoice, error) {
	pin := ""
	if pinFile != "" {
		absolute, err := filepath.Abs(string(pinFile)) // as a pin-source is
		if err != nil {
			return hardware.TokenChoice{}, err
		}
		pin = "file:" + absolute
	}
	choice, err := hardware.ChooseToken(string(token), string(module), pin)
	if err != nil {
		return choice, fmt.Errorf("%w: --token: %w", errUsage, err)
	}
	return choice, nil
}

// Run compares token and transcript.
func (c *verifyCommand) Run(t *terminal) error {
	record, err := hardware.ReadRecord(string(c.Dir))
	if err != nil {
		return err
	}
	choice, err := choose(c.Token, c.Module, c.PINFile)
	if err != nil {
		return err
	}
	if err := record.Choose(choice.URI); err != nil {
		return err
	}
	if choice.PIN == "" {
		if !record.Vault.DevMode {
			return fmt.Errorf("%w: --pin-file is needed, or a pin-source in --token", errUsage)
		}
		choice.PIN = "file:" + c.Dir.beside("user.pin")
	}
	pin, err := hardware.ReadPIN(choice.PIN, false)
	if err != nil {
		return err
	}
	defer pin.Zero()
	// Looking at a development vault harms nobody; only serving with it would.
	found, err := record.Verify(t.ctx, choice.Module, pin, record.Vault.DevMode)
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
	t.findings(found)
	t.say("the sealed secrets open, and belong to the published keys")
	return nil
}
