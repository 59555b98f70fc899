package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/policies"
)

type initCommand struct {
	Dir         dir  `required:"" help:"Folder to make, which stays with the vault."`
	Profile     name `default:"softhsm" help:"The device (doctor lists them). Default: ${default}."`
	Module      file `help:"PKCS#11 library, if it is not in a usual place."`
	SlotFree    bool `xor:"token" help:"Take the first empty token (the default)."`
	Serial      name `xor:"token" help:"Take the empty token with this serial number."`
	Token       uri  `xor:"token" help:"PKCS#11 URI: serial is that of the empty token to take, token what it will be called. It may name library (module-path) and the file of the user's PIN (pin-source)."`
	TokenLabel  name `help:"What the token will be called. Default: the vault's label."`
	VaultLabel  name `default:"sallyport" help:"What the vault is called, for people here only. Default: ${default}."`
	SoPINFile   file `name:"so-pin-file" help:"File with the security officer's PIN to set, mode 0600."`
	PINFile     file `name:"pin-file" help:"File with the user's PIN to set, mode 0600."`
	CeremonyKey file `help:"File to make for the ceremony key, outside DIR, on a medium that goes offline."`
	Storefront  url  `help:"https URL of the storefront, for the join link."`
	Owners      url  `help:"https URL of the vault's listener for owners, for the join link."`
	Custody     name `enum:",resident,sealed,both" default:"" help:"${custody} Default: resident; with --dev both."`
	Yes         bool `help:"Do it. A token's initialisation cannot be taken back."`
	Dev         bool `help:"Development vault, marked so for ever. Missing PINs and passphrase are drawn and written beside DIR."`

	PassphraseFile file `help:"With --dev only: file with the ceremony key's passphrase, instead of the terminal."`
}

// Help is the worked example.
func (c *initCommand) Help() string {
	return `Example, with the ceremony key on a stick that is taken out afterwards:

  sallyport-hsm init --dir /var/lib/sallyport/vault --so-pin-file so.pin --pin-file user.pin \
    --ceremony-key /media/stick/ceremony.key \
    --storefront https://store.example --owners https://vault.example:8445

Look at what it would do, then add --yes. Hand the join link or its QR code to people and businesses by a way that the storefront does not control.`
}

// choose takes the flags out of --token that it stands for.
func (c *initCommand) choose() error {
	if c.Token == "" {
		return nil
	}
	choice, err := choose(c.Token, c.Module, c.PINFile)
	if err != nil {
		return err
	}
	u := choice.URI
	pin, isFile := strings.CutPrefix(choice.PIN, "file:")
	switch {
	case u.Has("manufacturer") || u.Has("model") || u.Has("module-name"):
		return fmt.Errorf("%w: --token: init takes serial, token, module-path and pin-source", errUsage)
	case u.Has("serial") && u.Serial == "" || u.Has("token") && u.Token == "":
		return fmt.Errorf("%w: --token: init chooses no token by an empty serial, and gives it no empty label", errUsage)
	case choice.PIN != "" && !isFile:
		return fmt.Errorf("%w: --token: for init, the PIN is in a file", errUsage)
	case u.Token != "" && c.TokenLabel != "" && string(c.TokenLabel) != u.Token:
		return fmt.Errorf("%w: --token and --token-label say different labels", errUsage)
	}
	c.Serial, c.Module, c.PINFile = name(u.Serial), file(choice.Module), file(pin)
	if u.Token != "" {
		c.TokenLabel = name(u.Token)
	}
	return nil
}

// Run holds the ceremony.
func (c *initCommand) Run(t *terminal) error {
	if c.PassphraseFile != "" && !c.Dev {
		return fmt.Errorf("%w: --passphrase-file is for --dev; a real passphrase is typed at a terminal", errUsage)
	}
	if err := c.choose(); err != nil {
		return err
	}
	if c.TokenLabel == "" {
		c.TokenLabel = c.VaultLabel
	}
	for _, f := range []struct {
		flag, name string
		path       *file
		drawn      bool
	}{
		{"--so-pin-file", "so.pin", &c.SoPINFile, true},
		{"--pin-file", "user.pin", &c.PINFile, true},
		{"--passphrase-file", "ceremony.passphrase", &c.PassphraseFile, true},
		{"--ceremony-key", "ceremony.key", &c.CeremonyKey, false},
	} {
		if *f.path != "" || f.path == &c.PassphraseFile && !c.Dev {
			continue
		}
		if !c.Dev {
			return fmt.Errorf("%w: %s is needed", errUsage, f.flag)
		}
		*f.path = file(c.Dir.beside(f.name))
		if f.drawn && c.Yes {
			if err := os.MkdirAll(c.Dir.beside(""), 0o700); err != nil {
				return err
			}
			if err := hardware.NewSecretFile(string(*f.path)); err != nil {
				return err
			}
		}
	}
	ceremony := &hardware.Ceremony{
		Dir: string(c.Dir), Profile: string(c.Profile), Module: string(c.Module), Serial: string(c.Serial), Label: string(c.TokenLabel),
		CeremonyKey: string(c.CeremonyKey), Storefront: string(c.Storefront), Owners: string(c.Owners), Custodies: custodies(c.Custody), Development: c.Dev,
		Passphrase: func() ([]byte, error) { return t.passphrase(c.PassphraseFile, true) },
		Progress:   func(step string) { t.warn("%s", step) },
	}
	if !c.Yes {
		plan, err := ceremony.Check()
		if err != nil {
			return err
		}
		t.say("Nothing was done. With --yes this would:")
		for _, step := range plan {
			t.say("  - %s", step)
		}
		return nil
	}
	var err error
	if ceremony.OfficerPIN, err = hardware.ReadPIN("file:"+string(c.SoPINFile), false); err != nil {
		return err
	}
	defer ceremony.OfficerPIN.Zero()
	if ceremony.UserPIN, err = hardware.ReadPIN("file:"+string(c.PINFile), false); err != nil {
		return err
	}
	defer ceremony.UserPIN.Zero()
	record, err := ceremony.Run(t.ctx)
	if err != nil {
		return err
	}
	if err := t.join(record, c.Dir); err != nil {
		return err
	}
	t.say("The ceremony is finished. Its folder is %s.", c.Dir)
	t.say("transcript hash %s", record.TranscriptHash)
	t.say("offered to owners: custody %s", join(record.Custodies()))
	t.say("grade %s: %s", record.Grade(), record.Transcript.Probe.Why)
	if c.Dev {
		t.say("DEVELOPMENT ONLY: PINs, passphrase and ceremony key lie beside it, in %s.", c.Dir.beside(""))
		return nil
	}
	t.say("Now: take the ceremony key (%s) offline, and a copy of it with it; keep the security officer's PIN apart from the user's.", c.CeremonyKey)
	t.say("This proves the ceremony, not the silicon: write down which device this was.")
	return nil
}

// custodyHelp says what the choice means.
const custodyHelp = "What owners are offered: resident, sealed or both. Resident: a grant's key is an object of the token. Sealed: it rests outside, wrapped " +
	"under a sealing key of the token, for more grants than the token has room for; a copy that the host keeps of a revoked key dies only with that sealing key."

func custodies(c name) []policies.Custody {
	switch c {
	case "":
		return nil
	case "both":
		return []policies.Custody{policies.CustodyResident, policies.CustodySealed}
	}
	return []policies.Custody{policies.Custody(c)}
}

func join(custodies []policies.Custody) string {
	var words []string
	for _, c := range custodies {
		words = append(words, string(c))
	}
	return strings.Join(words, " and ")
}

// signing are the flags of a command that needs the ceremony key.
type signing struct {
	Dir            dir  `required:"" help:"Folder of the ceremony."`
	CeremonyKey    file `help:"The ceremony key's file. Needed, but for a development vault."`
	PassphraseFile file `help:"For a development vault only: file with the passphrase, instead of the terminal."`
}

// open reads the folder and fills in what a development vault has beside it.
func (c *signing) open() (*hardware.Record, error) {
	record, err := hardware.ReadRecord(string(c.Dir))
	if err != nil {
		return nil, err
	}
	dev := record.Vault.DevMode
	if c.PassphraseFile != "" && !dev {
		return nil, fmt.Errorf("%w: --passphrase-file is for development vaults; a real passphrase is typed at a terminal", errUsage)
	}
	if dev && c.CeremonyKey == "" {
		c.CeremonyKey = file(c.Dir.beside("ceremony.key"))
	}
	if dev && c.PassphraseFile == "" {
		c.PassphraseFile = file(c.Dir.beside("ceremony.passphrase"))
	}
	if c.CeremonyKey == "" {
		return nil, fmt.Errorf("%w: --ceremony-key is needed", errUsage)
	}
	return record, nil
}

type reissueCommand struct {
	signing
	Storefront url  `help:"New https URL of the storefront."`
	Owners     url  `help:"New https URL of the vault's listener for owners."`
	Custody    name `enum:",resident,sealed,both" default:"" help:"${custody} Default: as before."`
	Probe      bool `help:"Hold the full probe again, for a new grade. Needs the user's PIN, and the security officer's for a grade above B."`
	PINFile    file `name:"pin-file" help:"With --probe: file with the user's PIN, mode 0600. For a development vault: user.pin beside DIR."`
	SoPINFile  file `name:"so-pin-file" help:"With --probe: file with the security officer's PIN, mode 0600. For a development vault: so.pin beside DIR."`
	Module     file `help:"With --probe: PKCS#11 library, if it is not in a usual place."`
	Yes        bool `help:"Do it. A version that clients have seen cannot be taken back."`
}

// Run signs a new version.
func (c *reissueCommand) Run(t *terminal) error {
	record, err := c.open()
	if err != nil {
		return err
	}
	offer := custodies(c.Custody)
	if len(offer) == 0 {
		offer = record.Custodies()
	}
	probe, err := c.probe(t, record.Vault.DevMode)
	if err != nil {
		return err
	}
	if probe != nil {
		defer func() { probe.User.Zero(); probe.Officer.Zero() }()
	}
	if !c.Yes {
		if probe != nil {
			t.say("Nothing was done. With --yes this would first:")
			for _, step := range probe.Plan() {
				t.say("  - %s", step)
			}
		}
		t.say("Nothing was done. With --yes this would sign version %d of the vault document in %s, which offers custody %s.",
			record.Vault.Version+1, c.Dir, join(offer))
		return nil
	}
	passphrase, err := t.passphrase(c.PassphraseFile, false)
	if err != nil {
		return err
	}
	defer clear(passphrase)
	reissue := hardware.Reissue{
		Dir: string(c.Dir), CeremonyKey: string(c.CeremonyKey), Passphrase: passphrase,
		Storefront: string(c.Storefront), Owners: string(c.Owners), Custodies: offer,
		Probe: probe, Module: string(c.Module),
	}
	if record, err = reissue.Run(t.ctx); err != nil {
		return err
	}
	if err := t.join(record, c.Dir); err != nil {
		return err
	}
	t.say("Version %d is signed. It offers custody %s and says grade %s. Restart the vault, so that it hands it out.",
		record.Vault.Version, join(record.Custodies()), record.Grade())
	if probe != nil {
		t.say("%s", record.Transcript.Probe.Why)
	}
	return nil
}

// probe is the full probe that --probe asks for, with the PINs.
func (c *reissueCommand) probe(t *terminal, dev bool) (*pkcs11.FullProbe, error) {
	switch {
	case !c.Probe && (c.PINFile != "" || c.SoPINFile != "" || c.Module != ""):
		return nil, fmt.Errorf("%w: --pin-file, --so-pin-file and --module belong to --probe", errUsage)
	case !c.Probe:
		return nil, nil
	case c.PINFile == "" && dev:
		c.PINFile = file(c.Dir.beside("user.pin"))
		if c.SoPINFile == "" {
			c.SoPINFile = file(c.Dir.beside("so.pin"))
		}
	case c.PINFile == "":
		return nil, fmt.Errorf("%w: --probe needs --pin-file", errUsage)
	}
	probe := &pkcs11.FullProbe{Progress: func(step string) { t.warn("%s", step) }}
	var err error
	if probe.User, err = hardware.ReadPIN("file:"+string(c.PINFile), false); err != nil {
		return nil, err
	}
	if c.SoPINFile != "" {
		if probe.Officer, err = hardware.ReadPIN("file:"+string(c.SoPINFile), false); err != nil {
			probe.User.Zero()
			return nil, err
		}
	}
	return probe, nil
}
