// Command sallyport is what a person (me), a business (biz), an auditor (audit) and an operator of a vault (operator) type.
//
// A person's commands keep fields encrypted on their own device, publish them, and let readers read them field by field; a business's
// read what was granted. Each command opens the profile, does one thing, and ends with an exit code that a script can rely on. An auditor's commands
// verify a published key-use log and need no profile. The exit codes:
//
//	0  done
//	1  something went wrong; the message says what to do
//	2  the command line was not understood
//	3  refused, by the vault or the storefront; the message says why
//	4  NOT STOPPED YET: a revocation has no verified receipt; it is kept and tried again by every later command
//	5  the storefront or the vault could not be reached; what was wanted is kept where that is possible
//	6  the profile did not open: wrong passphrase or key file, or others may read it
//	7  what came back contradicts a signature, a proof or the pinned vault, or lacks a proof that was demanded, and was not used
//
// Passphrases and keys come from a prompt or a file, never from the command line or the environment itself. With --json every result, and
// every error, is one JSON value on standard output. An error's code is a [policies.Code], or "interrupted".
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/phrases"
	"github.com/sallyport/sallyport/storefront/client/profile"
	"github.com/sallyport/sallyport/storefront/client/safe"
	"github.com/sallyport/sallyport/vault/audit"
)

// Exit codes, see the package comment.
const (
	exitOK = iota
	exitError
	exitUsage
	exitRefused
	exitNotStopped
	exitUnreachable
	exitLocked
	exitUntrue
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// commands is the command line. Help is made from it.
type commands struct {
	Global
	Me  meCommands  `cmd:"" help:"${help_me}"`
	Biz bizCommands `cmd:"" help:"For a business, or anyone who reads: read what was granted to you."`

	Audit auditCommands `cmd:"" help:"For an auditor: verify a published key-use log, away from the vault."`

	Operator operatorCommands `cmd:"" help:"For two operators of a vault: stop all reading of a person who lost everything."`
}

// Global is what every command takes.
type Global struct {
	Profile        string `help:"${flag_shared_profile}" env:"SALLYPORT_PROFILE" placeholder:"DIR"`
	PassphraseFile string `help:"${flag_shared_passphrase}" env:"SALLYPORT_PASSPHRASE_FILE" placeholder:"FILE"`
	KeyFile        string `help:"Open the profile with a key file (32 random bytes, mode 0600) instead of a passphrase." placeholder:"FILE" hidden:""`
	JSON           bool   `name:"json" help:"${flag_shared_json}"`
	Lang           string `help:"${flag_shared_lang}" env:"SALLYPORT_LANG" placeholder:"LANG"`
	Details        bool   `help:"${flag_shared_details}"`
	Storefront     string `help:"${flag_shared_storefront}" placeholder:"URL"`
	VaultURL       string `help:"${flag_shared_vault}" placeholder:"URL"`
	CA             string `name:"ca" help:"${flag_shared_ca}" placeholder:"FILE"`
}

// session is what a command runs with.
type session struct {
	*Global
	ctx            context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
	lang           phrases.Language
	person         bool     // the command is one of a private person
	words          []string // the command line
	same           bool     // the profile that is made opens with what opened its backup, however short that is
	made           string   // folder of the profile that the command makes
	cancelling     bool     // the command takes back what was announced
}

const description = `Keep your data encrypted on your own device and let those you choose read it, field by field.

Start with "sallyport me init --join LINK". The link comes from whoever runs the vault.

Exit codes: 0 done, 1 error, 2 command line not understood, 3 refused, 4 NOT STOPPED YET (a revocation without a verified receipt), 5 not reachable, 6 profile not opened, 7 an answer that does not check out.`

// exit is how kong ends after it printed help.
type exit int

// Run carries out one command line and returns the exit code.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	lang, err := language(args)
	if err != nil {
		return misunderstood(args, stdout, stderr, fmt.Sprintf("sallyport: %v", err), err)
	}
	defer func() {
		if e, ok := recover().(exit); ok {
			code = int(e)
		}
	}()
	parsed, global, err := parse(args, helpLanguage(args, lang), stdout, stderr)
	if err != nil {
		if lang != phrases.English && slices.Contains(args, "me") {
			s := &session{Global: &Global{}, lang: lang, words: args}
			return misunderstood(args, stdout, stderr, s.say("error", "text", s.say("why.grammar")+"\n"+s.say("error.details", "text", err)), err)
		}
		return misunderstood(args, stdout, stderr, fmt.Sprintf("sallyport: %v\nTry: sallyport %s--help", err, commandWords(reflect.TypeFor[commands](), args)), err)
	}
	s := &session{Global: global, ctx: ctx, stdin: stdin, stdout: stdout, stderr: stderr, lang: lang, person: strings.HasPrefix(parsed.Command(), "me "), words: args}
	if !s.person && s.Lang == "" { // the texts for businesses, operators and auditors are in English
		s.lang = phrases.English
	}
	if err := parsed.Run(s); err != nil {
		return s.fail(err)
	}
	return exitOK
}

// misunderstood tells of a command line that was not understood, as text or, if --json is among its words, as JSON.
func misunderstood(args []string, stdout, stderr io.Writer, text string, err error) int {
	s := &session{Global: &Global{JSON: slices.Contains(args, "--json")}, stdout: stdout, stderr: stderr}
	if !s.JSON {
		fmt.Fprintln(stderr, text)
		return exitUsage
	}
	s.printError(exitUsage, err)
	return exitUsage
}

// helpLanguage is the language of help: English for businesses, operators and auditors.
func helpLanguage(args []string, person phrases.Language) phrases.Language {
	for i, word := range args {
		if i > 0 && strings.HasPrefix(args[i-1], "--") && !strings.Contains(args[i-1], "=") && args[i-1] != "--json" && args[i-1] != "--details" && args[i-1] != "--help" {
			continue // a flag's value
		}
		switch word {
		case "me":
			return person
		case "biz", "audit", "operator":
			return phrases.English
		}
	}
	return person
}

// parse reads a command line.
func parse(args []string, lang phrases.Language, stdout, stderr io.Writer) (*kong.Context, *Global, error) {
	whole := reflect.TypeFor[commands]()
	grammar := narrowed(whole, args)
	parsed, global, err := parseBy(grammar, args, lang, stdout, stderr)
	if err != nil && grammar != whole { // its errors know of one command only
		return parseBy(whole, args, lang, stdout, stderr)
	}
	return parsed, global, err
}

// parseBy reads a command line by a grammar like that of [commands].
func parseBy(grammar reflect.Type, args []string, lang phrases.Language, stdout, stderr io.Writer) (*kong.Context, *Global, error) {
	c := reflect.New(grammar)
	parser, err := kong.New(c.Interface(), kong.Name("sallyport"), kong.Description(description), helpTexts(lang), kong.Writers(stdout, stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}), kong.Exit(func(code int) { panic(exit(code)) }))
	if err != nil {
		return nil, nil, err
	}
	parsed, err := parser.Parse(args)
	return parsed, c.Elem().FieldByName("Global").Addr().Interface().(*Global), err
}

// errQuiet ends a command whose output has said already what went wrong.
type errQuiet struct{ error }

func (e errQuiet) Unwrap() error { return e.error }

// errUsage is a command line that kong accepts and the command does not.
var errUsage = errors.New("the command line was not understood")

// usage is an errUsage that says all there is to say.
type usage string

func (e usage) Error() string { return string(e) }

func (e usage) Is(target error) bool { return target == errUsage }

// errInterrupted is a command that its user ended.
var errInterrupted = errors.New("it was interrupted")

// codeInterrupted is the code of that. It goes over no wire.
const codeInterrupted policies.Code = "interrupted"

// interrupted reports whether an error comes of that the user ended the command.
func (s *session) interrupted(err error) bool {
	return s.ctx != nil && s.ctx.Err() != nil && errors.Is(err, context.Canceled)
}

// fail prints an error and returns its exit code. Joined errors are told in one message each.
func (s *session) fail(err error) int {
	code := exitCode(err)
	var quiet errQuiet
	if errors.As(err, &quiet) {
		return code
	}
	done := errors.Is(err, client.ErrNotStopped) || errors.Is(err, client.ErrUntold) || errors.Is(err, client.ErrNotRotated) // these say what was done
	if s.interrupted(err) && !done {
		err, code = fmt.Errorf("%w: %w", errInterrupted, err), exitError // whatever it was that did not answer any more
	}
	if s.JSON {
		s.printError(code, err)
		return code
	}
	if errors.Is(err, client.ErrNotStopped) {
		fmt.Fprintln(s.stdout, s.say("notstopped"))
	}
	blameless := errors.Is(err, errNoState) // nobody but who gave it is to be looked at
	if s.person {
		fmt.Fprintln(s.stderr, s.explain(err))
		if id, ok := personHints[code]; ok && !blameless && (code != exitLocked || errors.Is(err, profile.ErrUnlock)) { // others say themselves what to do
			if code == exitUnreachable && s.made != "" && !profile.Exists(s.made) { // what made no profile keeps nothing
				id = "hint.again"
			}
			fmt.Fprintln(s.stderr, s.say(id))
		}
		return code
	}
	fmt.Fprintf(s.stderr, "sallyport: %v\n", err)
	if hint := hints[code]; errors.Is(err, audit.ErrDamaged) {
		fmt.Fprintln(s.stderr, "Keep the log and every checkpoint of it as they are: they show what was changed.")
	} else if errors.Is(err, errOtherLog) {
		fmt.Fprintln(s.stderr, "This is the log of another vault, or the link is: have the operator say which, by another way than the log came.")
	} else if hint != "" && !blameless && (code != exitLocked || errors.Is(err, profile.ErrUnlock)) {
		fmt.Fprintln(s.stderr, hint)
	}
	return code
}

// printError writes an error as JSON.
func (s *session) printError(code int, err error) {
	var stable policies.Code
	if errors.As(err, &stable); s.interrupted(err) { // whatever it was that did not answer any more
		stable = codeInterrupted
	}
	s.print(map[string]any{"error": map[string]any{"exit": code, "code": stable, "text": err.Error()}}, nil)
}

var hints = map[int]string{
	exitUnreachable: "Nothing is lost: run it again later.",
	exitLocked:      "Check --profile, and --passphrase-file or --key-file.",
	exitUntrue:      "Nothing of it was used. If it stays, tell the operator, and do not trust this storefront until it is explained.",
}

func exitCode(err error) int {
	var code policies.Code
	switch {
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, client.ErrNotStopped):
		return exitNotStopped
	case errors.Is(err, client.ErrUntrue), errors.Is(err, policies.ErrPin), errors.Is(err, audit.ErrDamaged), errors.Is(err, errFindings):
		return exitUntrue
	case errors.Is(err, client.ErrUnproven) && !errors.Is(err, policies.CodeUnavailable) && !errors.Is(err, policies.CodeRateLimited):
		return exitUntrue
	case errors.Is(err, profile.ErrUnlock), errors.Is(err, profile.ErrExposed), errors.Is(err, profile.ErrFormat), errors.Is(err, profile.ErrMissing), errors.Is(err, profile.ErrBusy), errors.Is(err, profile.ErrExists),
		errors.Is(err, safe.ErrDamaged), errors.Is(err, safe.ErrShort), errors.Is(err, safe.ErrOther):
		return exitLocked
	case errors.Is(err, policies.CodeUnavailable):
		return exitUnreachable
	case errors.As(err, &code), errors.Is(err, client.ErrReplaced), errors.Is(err, client.ErrOvertaken):
		return exitRefused
	}
	return exitError
}

// print writes a result: as JSON, or by text.
func (s *session) print(v any, text func(w io.Writer)) {
	if !s.JSON {
		if text != nil {
			text(s.stdout)
		}
		return
	}
	b, err := json.Marshal(v, json.Deterministic(true), jsontext.WithIndent("  "), json.FormatNilSliceAsNull(false))
	if err != nil {
		fmt.Fprintf(s.stderr, "sallyport: printing the result: %v\n", err)
		return
	}
	fmt.Fprintln(s.stdout, string(b))
}

// printLine writes one of many results: as JSON on a line of its own, or as text.
func (s *session) printLine(v any, text string) {
	if !s.JSON {
		fmt.Fprintln(s.stdout, text)
		return
	}
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		fmt.Fprintf(s.stderr, "sallyport: printing the result: %v\n", err)
		return
	}
	fmt.Fprintln(s.stdout, string(b))
}

// noteNone tells a person that a list is empty, who else would see nothing at all.
func (s *session) noteNone(n int, what string) {
	if n == 0 && !s.JSON {
		s.note("%s", s.say("none."+what))
	}
}

// note tells a person something besides the result.
func (s *session) note(format string, args ...any) {
	fmt.Fprintf(s.stderr, format+"\n", args...)
}
