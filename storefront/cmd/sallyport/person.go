package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/phrases"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

// What `me` says to a private person is in package phrases, in their language and without the words of the craft. So are their errors: the phrase for
// what went wrong, and the error itself beside it where it has no such words either.

// language is the one that the command line asks for, or else the environment. Help is printed before the command line is understood, so it is looked for by hand.
func language(args []string) (phrases.Language, error) {
	name := os.Getenv("SALLYPORT_LANG")
	for i, a := range args {
		if value, ok := strings.CutPrefix(a, "--lang="); ok {
			name = value
		} else if a == "--lang" && i+1 < len(args) {
			name = args[i+1]
		} else if a == "--" {
			break
		}
	}
	return phrases.Choose(name, os.Getenv("LC_ALL"), os.Getenv("LC_MESSAGES"), os.Getenv("LANG"))
}

// helpTexts are the texts of help, by the names that the commands' tags give them: help.me.init is ${help_me_init}.
func helpTexts(l phrases.Language) kong.Vars {
	out := kong.Vars{}
	for _, prefix := range []string{"help.", "flag."} {
		for _, id := range phrases.IDs(prefix) {
			out[strings.ReplaceAll(id, ".", "_")] = phrases.Say(l, id)
		}
	}
	return out
}

func (s *session) say(id string, pairs ...any) string { return phrases.Say(s.lang, id, pairs...) }

// personHints say what to do about an exit code.
var personHints = map[int]string{exitNotStopped: "hint.notstopped", exitUnreachable: "hint.unreachable", exitLocked: "hint.locked", exitUntrue: "hint.untrue"}

// reasons are the phrases of errors that are no code. The first that an error is counts.
var reasons = []struct {
	err error
	id  string
}{
	{client.ErrReplaced, "why.replaced"}, {client.ErrRecovery, "why.recovery"},
	{client.ErrNoAccount, "why.no_account"}, {client.ErrNotSame, "why.not_same"},
	{errNoTerminal, "why.no_terminal"}, {errUsage, "why.usage"}, {client.ErrNoContact, "why.no_contact"}, {client.ErrNoField, "why.no_field"}, {client.ErrUntold, "why.untold"}, {client.ErrNewer, "why.newer"}, {client.ErrFork, "why.fork"}, {policies.ErrPin, "why.pin"},
	{client.ErrUntrue, "why.untrue"}, {profile.ErrUnlock, "why.unlock"}, {profile.ErrExposed, "why.exposed"}, {profile.ErrFormat, "why.format"},
	{profile.ErrMissing, "why.missing"}, {profile.ErrBusy, "why.busy"}, {profile.ErrExists, "why.profile_exists"},
}

// why is the phrase for an error, or "" if the catalogue has none.
func (s *session) why(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return s.say(r.id)
		}
	}
	var code policies.Code
	if errors.As(err, &code) && phrases.Has("why."+string(code)) {
		return s.say("why." + string(code))
	}
	return ""
}

// explain is an error for a person.
func (s *session) explain(err error) string {
	text, why := err.Error(), s.why(err)
	switch plain := phrases.Plain(text) || s.Details; {
	case why == "" && plain:
		return s.say("error", "text", text)
	case why == "":
		return s.say("error", "text", phrases.ID("error.other"))
	case !plain:
		return s.say("error", "text", why)
	case s.lang == phrases.English:
		return s.say("error", "text", text) // it says why itself, and what of
	}
	return s.say("error.details", "text", why, "details", text)
}

// errUnsure: a person was asked whether they mean it, and did not say so.
var errUnsure = errors.New("nothing was done")

// sure asks a person whether they mean what may be a mistake. Without a terminal it refuses, and says how to mean it.
func (s *session) sure(id string, pairs ...any) error { return s.sureBy("answer.yes", id, pairs...) }

// sureBy is sure with another word to be typed.
func (s *session) sureBy(word, id string, pairs ...any) error {
	f, ok := s.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || s.JSON {
		return fmt.Errorf("%w: %s", errUnsure, s.say(id, pairs...))
	}
	fmt.Fprint(s.stderr, s.say(id+".ask", pairs...))
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil || !strings.EqualFold(strings.TrimSpace(line), s.say(word)) {
		return errUnsure
	}
	return nil
}

// everything reports whether fields are all that there are, of more than a few: somebody who has two fields and shares both has not slipped.
func everything(fields, have []policies.Field) bool {
	const few = 3
	return len(have) > few && !slices.ContainsFunc(have, func(f policies.Field) bool { return !slices.Contains(fields, f) })
}
