package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/catalogue"
	"github.com/sallyport/sallyport/storefront/client/phrases"
	"github.com/sallyport/sallyport/storefront/client/profile"
	"github.com/sallyport/sallyport/vault/pre"
	"github.com/sallyport/sallyport/vault/pre/password"
)

// What `me` says to a private person is in package phrases, in their language and without the words of the craft. So are their errors ([session.reason]).

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

// helpTexts gives the commands and flags of a grammar their texts in a language: ${help_me_init} in a tag is the phrase help.me.init. Kong could be given all the
// phrases as variables, but would read each of them anew for each flag, which takes longer than most commands.
func helpTexts(l phrases.Language) kong.Option {
	return kong.PostBuild(func(k *kong.Kong) error {
		return kong.Visit(k.Model, func(v kong.Visitable, next kong.Next) error {
			switch v := v.(type) {
			case *kong.Node:
				v.Help = helpText(l, v.Help)
			case *kong.Value:
				v.Help = helpText(l, v.Help)
			}
			return next(nil)
		})
	})
}

var helpPhrase = regexp.MustCompile(`\$\{(?:help|flag)_[a-z0-9_]+\}`)

func helpText(l phrases.Language, text string) string {
	return helpPhrase.ReplaceAllStringFunc(text, func(found string) string {
		if id := strings.ReplaceAll(found[2:len(found)-1], "_", "."); phrases.Has(id) {
			return phrases.Say(l, id)
		}
		return found // of which kong says that there is none
	})
}

func (s *session) say(id string, pairs ...any) string { return phrases.Say(s.lang, id, pairs...) }

// personHints say what to do about an exit code.
var personHints = map[int]string{exitNotStopped: "hint.notstopped", exitUnreachable: "hint.unreachable", exitLocked: "hint.locked", exitUntrue: "hint.untrue"}

// reasons are the phrases of errors that are no code. The first that an error is counts.
var reasons = []struct {
	err error
	id  string
}{
	{client.ErrRotationRefused, "why.rotation_refused"}, {client.ErrNotRotated, "why.not_rotated"}, {client.ErrReplaced, "why.replaced"}, {client.ErrAnnounced, "why.announced"}, {client.ErrNotAnnounced, "why.not_announced"}, {client.ErrReplacing, "why.replacing"}, {client.ErrRecovery, "why.recovery"},
	{client.ErrNoAccount, "why.no_account"}, {errElsewhere, "account.elsewhere"}, {client.ErrNotSame, "why.not_same"}, {client.ErrKit, "kit.have"}, {client.ErrEndsSheet, "account.ends.sheet"}, {client.ErrEndsPassword, "account.ends.password"}, {errUnsure, "why.unsure"},
	{errInterrupted, "why.interrupted"}, {errBackupRole, "why.backup_role"}, {client.ErrRole, "why.role"}, {client.ErrNoDevice, "why.no_device"}, {client.ErrAlone, "why.alone"}, {client.ErrCertificate, "why.certificate"}, {names.ErrWebsite, "why.website"}, {errNoneGiven, "why.none_given"}, {errNoTerminal, "why.no_terminal"}, {errDuration, "why.duration"}, {errUsage, "why.usage"},
	{client.ErrNoContact, "why.no_contact"}, {client.ErrNotConnected, "why.not_connected"}, {client.ErrNoField, "why.no_field"}, {catalogue.ErrUnknownField, "why.unknown_field"},
	{catalogue.ErrCard, "why.card"}, {catalogue.ErrDate, "why.date"}, {catalogue.ErrIBAN, "why.iban"}, {client.ErrUntold, "why.untold"}, {client.ErrNewer, "why.newer"}, {client.ErrOvertaken, "why.overtaken"}, {client.ErrThawOld, "why.thaw_old"}, {client.ErrNotFrozen, "why.not_frozen"}, {client.ErrEnded, "why.ended"}, {client.ErrSaidClosed, "why.said_closed"}, {client.ErrContactClosed, "why.party_closed"}, {errNoState, "why.no_state"}, {client.ErrFork, "why.fork"}, {policies.ErrPin, "why.pin"},
	{client.ErrRollback, "why.rollback"}, {client.ErrUntrue, "why.untrue"}, {profile.ErrUnlock, "why.unlock"}, {profile.ErrExposed, "why.exposed"}, {profile.ErrFormat, "why.format"},
	{profile.ErrMissing, "why.missing"}, {profile.ErrBusy, "why.busy"}, {profile.ErrExists, "why.profile_exists"}, {errFile, "why.file_exists"}, {errDiffer, "password.differ"},
	{pre.ErrTooLarge, "why.too_large"}, {password.ErrSize, "why.password_size"},
}

// causes are the phrases of errors that say less than a code that they come with.
var causes = []struct {
	err error
	id  string
}{
	{client.ErrNotStopped, "why.not_stopped"}, {client.ErrUnproven, "why.unproven"}, {client.ErrState, "why.state"}, {profile.ErrNoItem, "why.not_found"},
	{password.ErrOpen, "why.unlock"}, {pre.ErrOpen, "why.bad_point"}, {policies.ErrProof, "why.bad_proof"}, {policies.ErrSignature, "why.bad_signature"}, {policies.ErrMalformed, "why.malformed"},
	{context.Canceled, "why.interrupted"}, {context.DeadlineExceeded, "why.unavailable"}, {syscall.ENOSPC, "why.disk_full"}, {syscall.EROFS, "why.read_only"},
	{fs.ErrNotExist, "why.no_file"}, {fs.ErrPermission, "why.no_permission"}, {fs.ErrExist, "why.file_exists"},
}

// why is the phrase for an error, or "" if the catalogue has none.
func (s *session) why(err error) string {
	if id := whyID(err); id != "" {
		return s.say(id)
	}
	return ""
}

func whyID(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.id
		}
	}
	var code policies.Code
	if errors.As(err, &code) && phrases.Has("why."+string(code)) {
		return "why." + string(code)
	}
	for _, r := range causes {
		if errors.Is(err, r.err) {
			return r.id
		}
	}
	return ""
}

// told is an error of which the catalogue has more to say than what kind it is. Its own text is English, as that of all errors.
type told struct {
	error
	text, english string
}

func (e *told) Error() string { return e.error.Error() + ": " + e.english }

func (e *told) Unwrap() error { return e.error }

// adding adds a phrase to an error.
func (s *session) adding(err error, id string, pairs ...any) error {
	return &told{err, s.say(id, pairs...), phrases.Say(phrases.English, id, pairs...)}
}

// explain is an error for a person, as a message.
func (s *session) explain(err error) string { return s.say("error", "text", s.reason(err)) }

// fuller are errors of which the catalogue says in English too what to do.
var fuller = []error{
	client.ErrNoContact, client.ErrNotConnected, client.ErrNoField, client.ErrNewer, client.ErrAnnounced, client.ErrNotAnnounced, client.ErrNotFrozen, client.ErrRecovery, errBackupRole, client.ErrRole, errNoState, client.ErrNoDevice, client.ErrAlone, client.ErrNoAccount, errElsewhere, client.ErrKit, policies.CodeNotAsked, errInterrupted, errNoneGiven, names.ErrWebsite, profile.ErrExists,
}

// vague are phrases that say less than the errors do, which come with them.
var vague = []string{"why.malformed", "why.card", "why.state", "why.usage"}

// reason is an error for a person. What errors say of themselves is English, so only who reads English sees it beside the phrases; others see it on a line of
// its own, if there is no phrase or they want it whole. What has words of the craft is seen only by who wants it.
func (s *session) reason(err error) string {
	text, why := err.Error(), s.why(err)
	plain := phrases.Plain(text) || s.Details
	if s.lang == phrases.English && !slices.ContainsFunc(fuller, func(one error) bool { return errors.Is(err, one) }) {
		switch {
		case plain:
			return once(strings.ReplaceAll(text, policies.ErrMalformed.Error()+": ", "")) // it says why itself, and what of
		case why == "":
			return s.say("error.other")
		}
		return why
	}
	var parts []string
	spoken := false
	if subject := s.subject(err); subject != "" {
		parts = append(parts, subject)
	}
	for e := err; ; { // whatever the catalogue had to say on the way
		var t *told
		if !errors.As(e, &t) {
			break
		}
		parts, e, spoken = append(parts, t.text), t.error, true
	}
	switch {
	case errors.Is(err, errUnsure): // what was not done comes before how to do it
		parts = slices.Insert(parts, 0, why)
	case why != "":
		parts = append(parts, why)
	case !plain:
		parts = append(parts, s.say("error.other"))
	default:
		parts = append(parts, s.say("error.untold"))
	}
	if plain && (why == "" || !spoken && slices.Contains(vague, whyID(err))) || s.Details {
		return strings.Join(parts, ": ") + "\n" + s.say("error.details", "text", text)
	}
	return strings.Join(parts, ": ")
}

// once leaves out of a text the lines with which a later one begins: joined errors often have one cause.
func once(text string) string {
	lines := strings.Split(text, "\n")
	var kept []string
	for i, line := range lines {
		if !slices.ContainsFunc(lines[i+1:], func(later string) bool { return later == line || strings.HasPrefix(later, line+": ") }) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

// subject is what an error is of, as far as it is a word of no language: a file, a field, a contact, or what the person typed.
func (s *session) subject(err error) string {
	var file *fs.PathError
	if errors.As(err, &file) {
		return file.Path
	}
	var overtaken *client.Overtaken
	if errors.As(err, &overtaken) {
		return overtaken.What
	}
	text := err.Error()
	for _, part := range append(strings.Split(text, ": "), strings.Split(text, `"`)...) {
		if part = strings.Trim(part, `"`); part != "" && (slices.Contains(s.words, part) || catalogue.Check(policies.Field(part)) == nil) {
			return part
		}
	}
	return ""
}

// errUnsure: a person was asked whether they mean it, and did not say so.
var errUnsure = errors.New("nothing was done")

// sure asks a person whether they mean what may be a mistake. Without a terminal it refuses, and says how to mean it.
func (s *session) sure(id string, pairs ...any) error { return s.sureBy("answer.yes", id, pairs...) }

// sureBy is sure with another word to be typed.
func (s *session) sureBy(word, id string, pairs ...any) error {
	f, ok := s.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || s.JSON {
		return s.adding(errUnsure, id, pairs...)
	}
	fmt.Fprint(s.stderr, s.say(id+".ask", pairs...))
	line, err := s.line(bufio.NewReader(f))
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
