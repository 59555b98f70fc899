package hardware

import (
	"context"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/pkcs11"
)

// A prober is a token in this process or behind workers.
type prober interface {
	Probe(ctx context.Context) (pkcs11.Findings, error)
}

// examine probes a token and refuses one that is not what the transcript says.
func (r *Record) examine(ctx context.Context, token prober) (pkcs11.Findings, error) {
	found, err := token.Probe(ctx)
	if err != nil {
		return found, different(fmt.Errorf("%w: %w", ErrProbe, err))
	}
	return found, r.Transcript.compare(found)
}

// different marks an error about a key as one of the kind ErrDifferent.
func different(err error) error {
	if errors.Is(err, pkcs11.ErrAttributes) || errors.Is(err, pkcs11.ErrKeyMissing) {
		return fmt.Errorf("%w: %w", ErrDifferent, err)
	}
	return err
}

// usable refuses a development vault where none was asked for, and finds the module of the record's profile.
func (r *Record) usable(module string, development bool) (Profile, pkcs11.Profile, error) {
	if r.Vault.DevMode && !development {
		return Profile{}, pkcs11.Profile{}, fmt.Errorf("%w: it protects nothing; ask for development mode, or hold a ceremony without --dev", ErrDevelopment)
	}
	profile, err := FindProfile(r.Transcript.Profile)
	if err != nil {
		return Profile{}, pkcs11.Profile{}, err
	}
	facts, err := profile.PKCS11(module)
	if err == nil {
		err = named(&r.chosen, facts.Module)
	}
	facts.Alone = development && spied()
	return profile, facts, err
}

func (r *Record) selector() pkcs11.Selector {
	return pkcs11.Selector{Serial: r.Transcript.Token.Serial, Label: r.chosen.Token}
}

// Verify runs the light probe and compares every key's attributes with the transcript, in this process. It changes nothing
// and tries the PIN once. module, if not empty, is the library to load.
func (r *Record) Verify(ctx context.Context, module string, pin pkcs11.Secret, development bool) (pkcs11.Findings, error) {
	_, facts, err := r.usable(module, development)
	if err != nil {
		return pkcs11.Findings{}, err
	}
	token, err := pkcs11.Open(ctx, pkcs11.Config{Profile: facts, Selector: r.selector(), PIN: pin, Threads: 1})
	if err != nil {
		return pkcs11.Findings{}, err
	}
	found, err := r.examine(ctx, token)
	if err == nil {
		var s *Secrets
		if s, err = openSecrets(ctx, token, r.Vault, r.sealed); err == nil {
			s.Zero()
		}
	}
	return found, errors.Join(err, token.Close())
}
