package main

import (
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/pkcs11"
)

type probeCommand struct {
	Full      bool `help:"Hold the full probe: attack throw-away keys as the vault's host could, and grade the token. Without --yes: say what it would make and try."`
	Dir       dir  `help:"Folder of a ceremony, for its token. A token without a ceremony is chosen by --serial or --label."`
	Profile   name `default:"softhsm" help:"The device (doctor lists them), if there is no --dir. Default: ${default}."`
	Module    file `help:"PKCS#11 library, if it is not in a usual place."`
	Serial    name `help:"The token with this serial number."`
	Label     name `help:"The token with this label."`
	PINFile   file `name:"pin-file" help:"File with the user's PIN, mode 0600. For a development vault: user.pin beside DIR."`
	SoPINFile file `name:"so-pin-file" help:"File with the security officer's PIN, for --full. Without it custody sealed is not tried, and B is the best grade. For a development vault: so.pin beside DIR."`
	Minimum   name `enum:"A,B,unproven,C,U" default:"unproven" help:"With --full: the exit code is 5 for a grade below this, as a vault with the same minimum_grade would refuse it. Default: ${default}."`
	Yes       bool `help:"With --full: do it."`
	JSON      bool `name:"json" help:"Write what was found as JSON."`
}

// Help is the worked example.
func (c *probeCommand) Help() string {
	return `Without --full: which forms of derivation work, and whether bad points are refused. It makes one session key and changes nothing.

With --full, to look at a new HSM, on a token that was initialised by the vendor's tool and holds nothing that matters:

  sallyport-hsm probe --full --label test --pin-file user.pin --so-pin-file so.pin --yes

Grades: A, every attack of a host that has the user's PIN is refused in both custodies; B, in custody resident; C, such a host can take a key out;
U, the token cannot do the work. All keys that are attacked are session objects made for it. No PIN is guessed. With --dir, the ceremony's own keys
must be as its transcript says, or there is no grade.`
}

// errGrade: the token is below the grade that was asked for.
var errGrade = errors.New("the grade is below the minimum")

// Run probes.
func (c *probeCommand) Run(t *terminal) error {
	facts, selector, err := c.token()
	if err != nil {
		return err
	}
	if c.PINFile == "" {
		return fmt.Errorf("%w: --pin-file is needed", errUsage)
	}
	if !c.Full {
		return c.light(t, facts, selector)
	}
	probe := pkcs11.FullProbe{Profile: facts, Selector: selector, Progress: func(step string) { t.warn("%s", step) }}
	if probe.User, err = hardware.ReadPIN("file:"+string(c.PINFile), false); err != nil {
		return err
	}
	defer func() { probe.User.Zero() }()
	if c.SoPINFile != "" {
		if probe.Officer, err = hardware.ReadPIN("file:"+string(c.SoPINFile), false); err != nil {
			return err
		}
		defer func() { probe.Officer.Zero() }()
	}
	if !c.Yes {
		t.say("Nothing was done. With --yes this would, with %s:", facts.Module)
		for _, step := range probe.Plan() {
			t.say("  - %s", step)
		}
		return nil
	}
	if err := c.own(t, probe.User); err != nil {
		return err
	}
	found, err := probe.Run(t.ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		err = t.json(found)
	} else {
		err = t.assessment(found)
	}
	if err == nil && len(found.Left) > 0 {
		err = fmt.Errorf("%w: the token is not as it was before", hardware.ErrProbe)
	}
	if err == nil && found.Grade.Below(pkcs11.Grade(c.Minimum)) {
		err = fmt.Errorf("%w: it is %s, at least %s is wanted", errGrade, found.Grade, c.Minimum)
	}
	return err
}

// own compares the keys of the ceremony whose token is probed with its transcript: the probe itself attacks throw-away keys.
func (c *probeCommand) own(t *terminal, pin pkcs11.Secret) error {
	if c.Dir == "" {
		return nil
	}
	record, err := hardware.ReadRecord(string(c.Dir))
	if err != nil {
		return err
	}
	if _, err := record.Verify(t.ctx, string(c.Module), pin, record.Vault.DevMode); err != nil {
		return fmt.Errorf("the vault's own keys are not as the ceremony made them, so the token gets no grade: %w", err)
	}
	t.warn("the vault's own keys are as the ceremony made them")
	return nil
}

// token says which token is meant, and fills in what a development vault has beside its folder.
func (c *probeCommand) token() (pkcs11.Profile, pkcs11.Selector, error) {
	selector := pkcs11.Selector{Serial: string(c.Serial), Label: string(c.Label)}
	name := string(c.Profile)
	if c.Dir != "" {
		record, err := hardware.ReadRecord(string(c.Dir))
		if err != nil {
			return pkcs11.Profile{}, selector, err
		}
		name, selector = record.Transcript.Profile, pkcs11.Selector{Serial: record.Transcript.Token.Serial}
		if c.Serial != "" || c.Label != "" {
			return pkcs11.Profile{}, selector, fmt.Errorf("%w: --dir names its token; leave out --serial and --label", errUsage)
		}
		if record.Vault.DevMode && c.PINFile == "" {
			c.PINFile = file(c.Dir.beside("user.pin"))
			if c.SoPINFile == "" {
				c.SoPINFile = file(c.Dir.beside("so.pin"))
			}
		}
	} else if selector == (pkcs11.Selector{}) {
		return pkcs11.Profile{}, selector, fmt.Errorf("%w: --dir, --serial or --label is needed", errUsage)
	}
	profile, err := hardware.FindProfile(name)
	if err != nil {
		return pkcs11.Profile{}, selector, err
	}
	facts, err := profile.PKCS11(string(c.Module))
	return facts, selector, err
}

func (c *probeCommand) light(t *terminal, facts pkcs11.Profile, selector pkcs11.Selector) error {
	pin, err := hardware.ReadPIN("file:"+string(c.PINFile), false)
	if err != nil {
		return err
	}
	defer pin.Zero()
	token, err := pkcs11.Open(t.ctx, pkcs11.Config{Profile: facts, Selector: selector, PIN: pin, Threads: 1})
	if err != nil {
		return err
	}
	found, err := token.Probe(t.ctx)
	if err = errors.Join(err, token.Close()); err != nil {
		return err
	}
	if c.JSON {
		return t.json(found)
	}
	t.say("token %s, serial %s: %s %s", found.Token.Label, found.Token.Serial, found.Token.Manufacturer, found.Token.Model)
	t.findings(found)
	for _, k := range found.Keys {
		t.say("  %-28s as a ceremony makes it", string(k.Name))
	}
	return nil
}

// findings prints what the light probe found.
func (t *terminal) findings(found pkcs11.Findings) {
	for _, d := range found.Derives {
		result := "works"
		if !d.Works {
			result = "does not work: " + d.Got
		}
		t.say("  derive, %s point, length named %-5t %s", d.Point, d.ValueLen, result)
	}
	for _, p := range found.Points {
		if p.Refused {
			t.say("  bad point refused: %s", p.Point)
		} else {
			t.say("  BAD POINT TAKEN: %s", p.Point)
		}
	}
}

// assessment prints a table of every attack, then each finding in a sentence, then the grade.
func (t *terminal) assessment(found *pkcs11.Assessment) error {
	table := tabwriter.NewWriter(t.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "attack\tverdict\tCKR\trefused by")
	for _, x := range found.Attacks {
		ckr, by, verdict := "", x.Attribute, string(x.Verdict)
		if x.CKR != 0 {
			ckr = fmt.Sprintf("0x%x", x.CKR)
		}
		if x.Verdict == pkcs11.Succeeded && x.Harmless {
			verdict = "succeeded, harmless"
		}
		if x.Verdict != pkcs11.Refused {
			by = ""
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", x.Name, verdict, ckr, by)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	t.say("")
	for _, effect := range []pkcs11.Effect{pkcs11.Unusable, pkcs11.Extracts, pkcs11.Untried, pkcs11.ToKnow} {
		of := slices.DeleteFunc(slices.Clone(found.Findings), func(f pkcs11.Finding) bool { return f.Effect != effect })
		if len(of) == 0 {
			continue
		}
		t.say("%s:", map[pkcs11.Effect]string{
			pkcs11.Unusable: "why the token cannot do the work", pkcs11.Extracts: "WHAT LETS A KEY OUT", pkcs11.Untried: "what was not tried",
			pkcs11.ToKnow: "to know, without effect on the grade",
		}[effect])
		for _, f := range of {
			t.say("  - %s", f.Says)
		}
	}
	t.say("%d attacks: %d refused, %d not possible here, %d succeeded", len(found.Attacks), found.Count(pkcs11.Refused), found.Count(pkcs11.NotPossible), found.Count(pkcs11.Succeeded))
	t.say("token %s, serial %s: grade %s. %s", found.Token.Label, found.Token.Serial, found.Grade, found.Why)
	return nil
}
