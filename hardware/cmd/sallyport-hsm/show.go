package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/term"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/hardware/internal/devtls"
	"github.com/sallyport/sallyport/policies"
)

type showCommand struct {
	Dir        dir  `required:"" help:"Folder of the ceremony."`
	Transcript bool `help:"Show the transcript, as JSON, instead."`
	JSON       bool `name:"json" help:"Write the vault document and the join link as JSON."`
}

// Run shows what a ceremony left.
func (c *showCommand) Run(t *terminal) error {
	record, err := hardware.ReadRecord(string(c.Dir))
	if err != nil {
		return err
	}
	if c.Transcript {
		return t.json(record.Transcript)
	}
	if c.JSON {
		link, err := record.JoinLink(string(c.Dir))
		if err != nil {
			return err
		}
		return t.json(struct {
			Vault      *policies.VaultDocument `json:"vault_document"`
			Hash       policies.Hash           `json:"hash"`
			Transcript policies.Hash           `json:"transcript"`
			Join       string                  `json:"join"`
		}{record.Vault, policies.Hash(record.Envelope.Hash), record.TranscriptHash, link.String()})
	}
	if err := t.join(record, c.Dir); err != nil {
		return err
	}
	v := record.Vault
	t.say("vault       %s", v.Vault)
	t.say("version     %d, signed %s", v.Version, time.Unix(v.Time, 0).UTC().Format(time.RFC3339))
	t.say("document    %s", policies.Hash(record.Envelope.Hash))
	t.say("transcript  %s", record.TranscriptHash)
	for _, k := range record.Transcript.Keys {
		if period, ok := k.Name.Period(); ok {
			t.say("sealing     key of period %d", period)
		}
	}
	for _, k := range []policies.LogKey{v.LogKey, v.LogHostKey} {
		t.say("log key     %s (%s)", k.Name, k.Algorithm)
	}
	for _, token := range v.Tokens {
		t.say("token       %s, serial %s, %s, grade %s", token.Label, token.Serial, token.Model, record.Grade())
		if p := record.Transcript.Probe; p != nil {
			t.say("  probed    %s, %d attacks: %s", time.Unix(p.Time, 0).UTC().Format(time.RFC3339), p.Attacks, p.Why)
		}
		for _, k := range token.ImportKeys {
			t.say("  import    custody %s, %s with %s, key %s", k.Custody, k.Path, k.OAEPHash, policies.HashKey(k.PublicKey))
		}
	}
	return nil
}

// join prints the join link and its QR code.
func (t *terminal) join(record *hardware.Record, from dir) error {
	link, err := record.JoinLink(string(from))
	if err != nil {
		return err
	}
	out, ok := t.stdout.(*os.File)
	code, err := hardware.QRCode(link, ok && term.IsTerminal(int(out.Fd())))
	if err != nil {
		return err
	}
	fmt.Fprint(t.stdout, code)
	t.say("%s", link)
	if record.Vault.DevMode {
		t.say("DEVELOPMENT ONLY: this vault protects nothing.")
	}
	return nil
}

type doctorCommand struct {
	Module file `help:"PKCS#11 library to look at, if it is not in a usual place."`
	JSON   bool `name:"json" help:"Write what was found as JSON."`
}

// errNoDevice: doctor found nothing to hold a ceremony on.
var errNoDevice = errors.New("no supported device is ready here")

// Run looks for devices.
func (c *doctorCommand) Run(t *terminal) error {
	var surveys []hardware.Survey
	ready := false
	for _, p := range hardware.Profiles() {
		s := p.Survey(t.ctx, string(c.Module))
		ready = ready || s.Module != "" && len(s.Faults) == 0
		surveys = append(surveys, s)
	}
	if c.JSON {
		if err := t.json(struct {
			Ready       bool                         `json:"ready"`
			Devices     []hardware.Survey            `json:"devices"`
			Unsupported []hardware.UnsupportedDevice `json:"unsupported"`
		}{ready, surveys, hardware.Unsupported()}); err != nil {
			return err
		}
	} else {
		for i, p := range hardware.Profiles() {
			t.survey(p, surveys[i])
		}
		t.say("\nnot supported:")
		for _, u := range hardware.Unsupported() {
			t.say("  %-18s %s", u.Device, u.Reason)
		}
	}
	if !ready {
		return errNoDevice
	}
	return nil
}

func (t *terminal) survey(p hardware.Profile, s hardware.Survey) {
	t.say("%s: %s", p.Name, p.Vendor)
	if s.Module == "" {
		t.say("  module     not found")
	} else {
		t.say("  module     %s", s.Module)
		t.say("  sha256     %s", s.SHA256)
	}
	if s.Version != "" {
		t.say("  version    %s (measured: %s)", s.Version, p.Versions)
	}
	if s.Folder != "" {
		t.say("  tokens in  %s", s.Folder)
	}
	for _, token := range s.Tokens {
		if token.Initialised {
			t.say("  token      %q, serial %s", token.Label, token.Serial)
		} else {
			t.say("  token      empty: a ceremony can be held on it")
		}
	}
	for _, f := range s.Faults {
		t.say("  FAULT      %s", f)
	}
	for _, n := range p.Notes {
		t.say("  note       %s", n)
	}
}

type devTokenCommand struct {
	Dir dir `arg:"" help:"Folder to make."`
}

// Run makes a token folder and prints one line for the shell.
func (c *devTokenCommand) Run(t *terminal) error {
	conf, err := hardware.NewDevelopmentToken(string(c.Dir))
	if err != nil {
		return err
	}
	t.say("SOFTHSM2_CONF=%s", conf)
	t.warn("Development only. Set it: export $(sallyport-hsm dev-token DIR), or copy the line above.")
	return nil
}

type devTLSCommand struct {
	Dir  dir    `arg:"" help:"Folder to make."`
	Host []name `help:"A name or address of this machine besides localhost, 127.0.0.1 and ::1. May be repeated."`
}

// Run makes certificates.
func (c *devTLSCommand) Run(t *terminal) error {
	now := time.Now()
	hosts := make([]string, len(c.Host))
	for i, h := range c.Host {
		hosts[i] = string(h)
	}
	if err := devtls.Make(string(c.Dir), hosts, now); err != nil {
		return err
	}
	t.say("DEVELOPMENT ONLY: certificates good until %s in %s: %s", now.Add(devtls.Lifetime).UTC().Format(time.RFC3339), c.Dir, strings.Join(devtls.Files, ", "))
	return nil
}

// json writes a value for programs to read.
func (t *terminal) json(v any) error {
	if err := json.MarshalWrite(t.stdout, v, jsontext.WithIndent("  ")); err != nil {
		return err
	}
	_, err := fmt.Fprintln(t.stdout)
	return err
}

// passphrase reads the ceremony key's passphrase: from a file in development, else from the terminal, twice if it is new.
func (t *terminal) passphrase(from file, isNew bool) ([]byte, error) {
	if from != "" {
		return hardware.ReadPassphrase(string(from))
	}
	if err := hardware.Conceal(); err != nil {
		return nil, err
	}
	tty, ok := t.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(tty.Fd())) {
		return nil, fmt.Errorf("%w: the passphrase is typed, and standard input is not a terminal", hardware.ErrPassphrase)
	}
	ask := func(prompt string) ([]byte, error) {
		fmt.Fprint(t.stderr, prompt)
		defer fmt.Fprintln(t.stderr)
		return term.ReadPassword(int(tty.Fd()))
	}
	first, err := ask("Passphrase of the ceremony key: ")
	if err != nil || !isNew {
		return first, err
	}
	second, err := ask("The same again: ")
	defer clear(second)
	if err == nil && !bytes.Equal(first, second) {
		err = fmt.Errorf("%w: the two differ", hardware.ErrPassphrase)
	}
	if err != nil {
		clear(first)
		return nil, err
	}
	return first, nil
}
