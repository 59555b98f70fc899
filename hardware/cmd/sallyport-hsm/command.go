package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/alecthomas/kong"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/policies"
)

// Exit codes, as the help says them.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3
	exitPIN     = 4
	exitGrade   = 5
)

const description = `Holds the key ceremony of a Sallyport vault's token, and shows and checks what it left.

For development, with SoftHSM, three commands are enough:

  export $(sallyport-hsm dev-token ./dev)
  sallyport-hsm init --dev --yes --dir ./dev/vault
  sallyport-hsm dev-tls ./dev/tls

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 token, folder or vault refused; 4 PIN or passphrase missing, wrong or locked;
5 the token's grade is below --minimum.`

// Types of arguments. Their names are what the help shows in their place.
type (
	dir  string
	file string
	url  string
	name string
	uri  string // of PKCS#11
)

// beside is a file in the folder that the folder d lies in.
func (d dir) beside(base string) string {
	return filepath.Join(filepath.Dir(filepath.Clean(string(d))), base)
}

// cli is every command and flag. Help text is made from it.
type cli struct {
	Init       initCommand       `cmd:"" help:"Hold the key ceremony on an empty token. Without --yes: say what would be done."`
	Show       showCommand       `cmd:"" help:"Show the vault document and the join link."`
	Verify     verifyCommand     `cmd:"" help:"Probe the token and compare every key with the transcript."`
	Probe      probeCommand      `cmd:"" help:"Probe any token; with --full, attack it as a vault's host could and grade it."`
	Doctor     doctorCommand     `cmd:"" help:"Say which devices are installed here, and which are not supported and why."`
	Reissue    reissueCommand    `cmd:"" help:"Sign the next version of the vault document, for instance with new URLs in the join link."`
	Sealing    sealingKeyCommand `cmd:"" name:"sealing-key" help:"Make the sealing key of the next period, for custody sealed. Without --yes: say what would be done."`
	Voucher    voucherCommand    `cmd:"" help:"Sign that a business's name is its own, or withdraw that. Without --yes: say what would be done."`
	Guardrails guardrailsCommand `cmd:"" help:"Sign the rules by which the vault refuses what owners granted. Without --yes: check them, and say what would be done."`
	HandIn     handInCommand     `cmd:"" name:"hand-in" help:"Take guardrails or a voucher to the vault, and verify its receipt."`
	DevToken   devTokenCommand   `cmd:"" help:"Make a SoftHSM token folder of its own and print its SOFTHSM2_CONF. Development only."`
	DevTLS     devTLSCommand     `cmd:"" name:"dev-tls" help:"Make TLS certificates for one machine, good for 30 days. Development only."`
}

// terminal is what a command talks to.
type terminal struct {
	ctx    context.Context
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

func (t *terminal) say(format string, args ...any)  { fmt.Fprintf(t.stdout, format+"\n", args...) }
func (t *terminal) warn(format string, args ...any) { fmt.Fprintf(t.stderr, format+"\n", args...) }

// Run is the command without the process: it returns the exit code.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var commands cli
	exited := -1
	parser, err := kong.New(&commands,
		kong.Name("sallyport-hsm"), kong.Description(description), kong.Vars{"custody": custodyHelp},
		kong.Writers(stdout, stderr), kong.Exit(func(code int) { exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		fmt.Fprintf(stderr, "sallyport-hsm: %v\n", err)
		return exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if exited >= 0 { // help was asked for, and printed
		return exited
	}
	if err != nil {
		fmt.Fprintf(stderr, "sallyport-hsm: %v\nTry: sallyport-hsm --help\n", err)
		return exitUsage
	}
	if err := parsed.Run(&terminal{ctx, stdin, stdout, stderr}); err != nil {
		fmt.Fprintf(stderr, "sallyport-hsm: %v\n", err)
		if h := hint(err); h != "" {
			fmt.Fprintf(stderr, "hint: %s\n", h)
		}
		return exitCode(err)
	}
	return exitDone
}

// errUsage is a combination of flags that means nothing.
var errUsage = errors.New("wrong usage")

func exitCode(err error) int {
	is := func(kinds ...error) bool {
		for _, k := range kinds {
			if errors.Is(err, k) {
				return true
			}
		}
		return false
	}
	switch {
	case is(errUsage):
		return exitUsage
	case is(errGrade):
		return exitGrade
	case is(pkcs11.ErrPINIncorrect, pkcs11.ErrPINLocked, hardware.ErrPINSource, hardware.ErrPassphrase):
		return exitPIN
	case is(hardware.ErrNotEmpty, hardware.ErrUnfinished, hardware.ErrDifferent, hardware.ErrProbe, hardware.ErrDevelopment,
		hardware.ErrUnsupported, hardware.ErrFolder, hardware.ErrCeremonyKey, hardware.ErrTokenChoice, hardware.ErrCustody, pkcs11.ErrAttributes, pkcs11.ErrTokenMissing):
		return exitRefused
	case is(policies.CodeUnavailable, policies.CodeRateLimited, policies.CodeLogStopped, policies.CodeLogFull, policies.CodeClock, policies.CodeTokenFailure,
		policies.CodeInternal): // the vault refused nothing, and later it may take it
		return exitFailed
	}
	if code := policies.Code(""); errors.As(err, &code) {
		return exitRefused
	}
	return exitFailed
}

// hint is what to do about an error that does not say so itself.
func hint(err error) string {
	switch {
	case errors.Is(err, pkcs11.ErrPINLocked):
		return "the PIN is locked, or one wrong try away from it; look at the device, and have the security officer set a new PIN"
	case errors.Is(err, pkcs11.ErrPINIncorrect):
		return "the PIN was tried once and not again, because tokens count; check the file before the next attempt"
	case errors.Is(err, pkcs11.ErrTokenMissing):
		return "if several match, name one by its serial number; if none does: is the device connected, and for SoftHSM, is SOFTHSM2_CONF the one of the ceremony? sallyport-hsm doctor lists tokens"
	case errors.Is(err, hardware.ErrDifferent):
		return "do not use this token: its keys are not as the ceremony made them"
	case errors.Is(err, hardware.ErrModule):
		return "sallyport-hsm doctor says what is looked for"
	}
	return ""
}
