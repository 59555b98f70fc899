package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

// folder is the profile's folder.
func (s *session) folder(name string) (string, error) {
	if s.Profile != "" {
		return s.Profile, nil
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("finding the profile: %w: use --profile DIR", err)
	}
	return filepath.Join(config, "sallyport", name), nil
}

// conceal forbids core dumps of this process, and debuggers of the same user and their view of its memory (prctl(2), PR_SET_DUMPABLE). It is called before
// anything secret is read.
func conceal() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbidding core dumps: %w", err)
	}
	return nil
}

// secret gets what opens the profile: key file, passphrase file, or a prompt. fresh asks twice, and makes a key file that is missing.
func (s *session) secret(fresh bool) (*profile.Secret, error) {
	if err := conceal(); err != nil {
		return nil, err
	}
	if s.KeyFile != "" {
		if fresh {
			return profile.NewKeyFile(s.KeyFile)
		}
		return profile.KeyFile(s.KeyFile)
	}
	var phrase []byte
	var err error
	if s.PassphraseFile != "" {
		if phrase, err = profile.ReadSecretFile(s.PassphraseFile, 4096); err != nil {
			return nil, fmt.Errorf("reading the passphrase file: %w", err)
		}
		phrase = bytes.TrimRight(phrase, "\r\n")
	} else if phrase, err = s.prompt(fresh); err != nil {
		return nil, err
	}
	defer clear(phrase)
	if fresh && utf8.RuneCount(phrase) < minPassword && !s.same {
		return nil, s.adding(errUnsure, "passphrase.short", "n", minPassword)
	}
	return profile.Passphrase(phrase)
}

// errDiffer: a passphrase or password that was typed twice was not the same.
var errDiffer = errors.New("the two passwords differ")

// errFile: a file that is to be written is there.
var errFile = errors.New("there is such a file already")

// errNoTerminal: nobody can be asked for the passphrase.
var errNoTerminal error = usage("there is no terminal to ask for the passphrase; use --passphrase-file FILE or --key-file FILE")

func (s *session) prompt(twice bool) ([]byte, error) {
	f, ok := s.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, errNoTerminal
	}
	return s.hidden(f, "passphrase.ask", twice)
}

// hidden asks on a terminal for what is not to be seen there.
func (s *session) hidden(f *os.File, id string, twice bool) ([]byte, error) {
	fd := int(f.Fd())
	ask := func(id string) (text []byte, err error) {
		shown, err := term.GetState(fd)
		if err != nil {
			return nil, err
		}
		fmt.Fprint(s.stderr, s.say(id), " ")
		defer fmt.Fprintln(s.stderr)
		if text, err = whileWanted(s.ctx, func() ([]byte, error) { return term.ReadPassword(fd) }); s.ctx.Err() != nil {
			err = errors.Join(err, showAgain(fd, shown))
		}
		return text, err
	}
	text, err := ask(id)
	if err != nil || !twice {
		return text, err
	}
	again, err := ask("password.again")
	defer clear(again)
	if err == nil && !bytes.Equal(text, again) {
		err = errDiffer
	}
	if err != nil {
		clear(text)
		return nil, err
	}
	return text, nil
}

// hides is how long what reads without showing may take until it hides what is typed.
const hides = 200 * time.Millisecond

// showAgain ends that a terminal hides what is typed. It may not hide it yet: whoever reads sets that as they begin, which nobody hears of.
func showAgain(fd int, shown *term.State) error {
	for begin := time.Now(); time.Since(begin) < hides; time.Sleep(time.Millisecond) {
		if now, err := term.GetState(fd); err != nil || *now != *shown {
			break
		}
	}
	return term.Restore(fd, shown)
}

// whileWanted waits for what a person types, and no longer than they want: Ctrl-C ends a context here, and no read of a terminal.
func whileWanted[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	if err := ctx.Err(); err != nil { // nothing may hide what is typed after that
		return *new(T), err
	}
	done := make(chan answer, 1)
	go func() { // until the process ends, which is what comes after Ctrl-C
		value, err := read()
		done <- answer{value, err}
	}()
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// line is the next line that a person types.
func (s *session) line(in *bufio.Reader) (string, error) {
	return whileWanted(s.ctx, func() (string, error) { return in.ReadString('\n') })
}

// openProfile opens the profile's folder.
func (s *session) openProfile(name string) (*profile.Profile, error) {
	dir, err := s.folder(name)
	if err != nil {
		return nil, err
	}
	if !profile.Exists(dir) {
		return nil, fmt.Errorf("%s: %w; make one with `sallyport %s init`", dir, profile.ErrMissing, name)
	}
	secret, err := s.secret(false)
	if err != nil {
		return nil, err
	}
	defer secret.Zero()
	return profile.Open(dir, secret)
}

// createProfile makes the profile's folder. A person is asked about the place, unless they said yes, whichever way the profile comes to be.
func (s *session) createProfile(name string, yes bool) (*profile.Profile, error) {
	dir, err := s.folder(name)
	if err != nil {
		return nil, err
	}
	if name == "me" {
		if err := s.fit(dir, yes); err != nil {
			return nil, err
		}
	}
	if profile.Exists(dir) {
		return nil, fmt.Errorf("%s: %w", dir, profile.ErrExists)
	}
	secret, err := s.secret(true)
	if err != nil {
		return nil, err
	}
	defer secret.Zero()
	s.made = dir
	return profile.Create(dir, secret)
}

// options are what the command line says besides the profile.
func (s *session) options() (client.Options, error) {
	o := client.Options{Storefront: s.Storefront, Owners: s.VaultURL}
	if s.CA != "" {
		var err error
		if o.Roots, err = os.ReadFile(s.CA); err != nil {
			return o, fmt.Errorf("reading the TLS certificates: %w", err)
		}
	}
	return o, nil
}

// joining is the network that a join link leads to.
func (s *session) joining(link string) (client.Network, client.Options, error) {
	options, err := s.options()
	if err != nil {
		return client.Network{}, options, err
	}
	network, err := client.NewNetwork(link, options)
	return network, options, err
}

// withOwner runs work on the opened owner.
func (s *session) withOwner(work func(*client.Owner, *profile.Profile) error) error {
	options, err := s.options()
	if err != nil {
		return err
	}
	p, err := s.openProfile("me")
	if err != nil {
		return err
	}
	defer p.Close()
	o, err := client.OpenOwner(p, options)
	if err != nil {
		return err
	}
	defer o.Close()
	// Whatever a person came for: a revocation that is not confirmed comes first.
	if o.Unstopped() {
		err := o.Finish(s.ctx)
		if o.Unstopped() {
			s.note("%s", s.say("notstopped.earlier", "why", s.reason(err)))
		} else {
			s.note("%s", s.say("stopped.earlier"))
		}
	}
	_, announced := o.Announced()
	before := o.Generation()
	err = work(o, p)
	if _, still := o.Announced(); announced && !still && !s.cancelling && o.Generation() == before {
		s.note("%s", s.say("replace.overruled"))
	}
	s.noteLooked(o)
	s.warnLog(o.Log())
	return err
}

// noteLooked tells what a device learnt beside what it was asked for.
func (s *session) noteLooked(o *client.Owner) {
	renewed, err := o.Renewed()
	for _, c := range renewed {
		s.note("%s", s.say("renewed", "who", contactName(c)))
	}
	if err != nil {
		s.note("%s", s.say("renewed.not", "why", s.reason(err)))
	}
	if at := o.Frozen(); !at.IsZero() {
		s.note("%s", s.say("frozen", "date", at.Local().Format("2006-01-02 15:04")))
	}
}

// withReader runs work on the opened reader, and saves what it learnt.
func (s *session) withReader(work func(*client.Reader, *profile.Profile) error) error {
	options, err := s.options()
	if err != nil {
		return err
	}
	p, err := s.openProfile("biz")
	if err != nil {
		return err
	}
	defer p.Close()
	r, err := client.OpenReader(p, options)
	if err != nil {
		return err
	}
	err = r.Why(s.ctx, work(r, p))
	s.warnLog(r.Log())
	return errors.Join(err, r.Close())
}

// unsealBackup reads a backup file, with the profile's passphrase or another one.
func (s *session) unsealBackup(file string) ([]byte, error) {
	sealed, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	secret, err := s.secret(false)
	if err != nil {
		return nil, err
	}
	defer secret.Zero()
	return profile.Unseal(secret, sealed)
}

// writeBackup seals a backup under the profile's passphrase or key file and writes it. A file that is there is not overwritten.
func writeBackup(p *profile.Profile, file string) func([]byte) error {
	return func(plain []byte) error {
		if _, err := os.Lstat(file); err == nil {
			return fmt.Errorf("%s: %w", file, errFile)
		}
		sealed, err := p.Seal(plain)
		if err != nil {
			return err
		}
		return profile.WriteFile(file, sealed)
	}
}
