package hardware

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/redact"
)

// Reissue signs the next version of a vault document with the ceremony key, with the same keys in it, and writes the join
// link anew. The token is asked only for a new grade: the vault compares the document with it at the next start.
type Reissue struct {
	redact.Redacted

	// Dir is the folder of the ceremony; CeremonyKey is the ceremony key's file, and Passphrase opens it.
	Dir, CeremonyKey string
	Passphrase       []byte
	// Storefront and Owners replace the URLs of the join link where they are not empty.
	Storefront, Owners string
	// Custodies are offered from now on; empty: those of the version before. A grant that an owner has given stays in its
	// custody.
	Custodies []policies.Custody
	// Probe, if set, is a full probe to hold first, for a new grade in transcript and vault document. Its profile and selector
	// are filled in here. Before it, the vault's own keys are compared with the transcript, as [Record.Verify] does. Module is the library, if it is not in a usual place.
	Probe  *pkcs11.FullProbe
	Module string
}

// Run signs and writes.
//
// The transcript goes first, if there is a new grade: after a crash between the two the worse of their grades counts, until
// the next Reissue. The document is replaced in one rename; a crash before the link is written leaves the old link, which
// still pins the same vault and key.
func (c *Reissue) Run(ctx context.Context) (*Record, error) {
	record, key, unlock, err := openFolder(c.Dir, c.CeremonyKey, c.Passphrase)
	if err != nil {
		return nil, err
	}
	defer unlock()
	defer key.Zero()
	link, err := record.JoinLink(c.Dir)
	if err != nil {
		return nil, err
	}
	if c.Storefront != "" {
		link.Storefront = c.Storefront
	}
	if c.Owners != "" {
		link.Owners = c.Owners
	}
	if link, err = joinLink(record.Vault, link.Storefront, link.Owners); err != nil {
		return nil, err
	}
	custodies := c.Custodies
	if len(custodies) == 0 {
		custodies = record.Custodies()
	}
	published, err := record.Transcript.publishes()
	if err != nil {
		return nil, err
	}
	transcript := *record.Transcript
	if c.Probe != nil {
		_, facts, err := record.usable(c.Module, true)
		if err != nil {
			return nil, err
		}
		// The probe attacks keys of its own, so it says what the token can be; these are the keys that serve.
		if _, err := record.Verify(ctx, c.Module, c.Probe.User, true); err != nil {
			return nil, fmt.Errorf("the vault's own keys are to be as the ceremony made them, before there is a grade: %w", err)
		}
		c.Probe.Profile, c.Probe.Selector = facts, record.selector()
		found, err := c.Probe.Run(ctx)
		if err != nil {
			return nil, err
		}
		transcript.Probe = summarise(found, time.Now())
	}
	doc := *record.Vault
	doc.Header = policies.NewHeader("vault", time.Now())
	doc.Version++
	doc.Tokens = []policies.TokenEntry{doc.Tokens[0]}
	doc.Tokens[0].Grade = string(transcript.grade())
	if doc.Tokens[0].ImportKeys, err = published.offer(custodies); err != nil {
		return nil, err
	}
	if c.Probe != nil {
		if err := signTranscript(c.Dir, key, &transcript); err != nil {
			return nil, err
		}
	}
	signed, err := policies.Sign(key, &doc)
	if err != nil {
		return nil, fmt.Errorf("signing the vault document: %w", err)
	}
	if err := writeFile(filepath.Join(c.Dir, vaultFile), signed.Raw, 0o644); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFolder, err)
	}
	if err := writeJoin(c.Dir, link); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFolder, err)
	}
	return ReadRecord(c.Dir)
}

// openFolder reads a finished ceremony's folder for a change, and its ceremony key. Until unlock is called, every other
// process that wants to change it is refused with ErrBusy.
func openFolder(dir, ceremonyKey string, passphrase []byte) (record *Record, key *envelope.PrivateKey, unlock func(), err error) {
	if err := Conceal(); err != nil {
		return nil, nil, nil, err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%w: no ceremony was finished here: %w", ErrFolder, err)
	}
	unlock = func() { _ = folder.Close() } // which ends the lock
	defer func() {
		if err != nil {
			_ = folder.Close()
		}
	}()
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, nil, nil, fmt.Errorf("%w: %w", ErrBusy, err)
	}
	if record, err = ReadRecord(dir); err != nil {
		return nil, nil, nil, err
	}
	if key, err = openCeremonyKey(ceremonyKey, passphrase, record.Vault.CeremonyKey); err != nil {
		return nil, nil, nil, err
	}
	return record, key, unlock, nil
}

// signTranscript writes the next version of a transcript: one rename, the old one or the new.
func signTranscript(dir string, key *envelope.PrivateKey, next *Transcript) error {
	next.Header = policies.NewHeader(transcriptType, time.Now())
	next.Version = max(next.Version, 1) + 1
	signed, err := policies.Sign(key, next)
	if err != nil {
		return fmt.Errorf("signing the transcript: %w", err)
	}
	if err := writeFile(filepath.Join(dir, transcriptFile), signed.Raw, 0o644); err != nil {
		return fmt.Errorf("%w: %w", ErrFolder, err)
	}
	return nil
}

// NextSealingKey makes the sealing key of the next period, as security officer, and lists it in the transcript. The vault may
// be running: it is another process. When it has noticed the new key, it moves what is sealed to it and destroys the old one,
// and with it every copy of a sealed key that somebody may have kept, but for those that a host which is hostile meanwhile moves along.
type NextSealingKey struct {
	redact.Redacted

	// Dir is the folder of the ceremony; CeremonyKey is the ceremony key's file, and Passphrase opens it.
	Dir, CeremonyKey string
	Passphrase       []byte
	// Module is the library, if it is not in a usual place.
	Module string
	// OfficerPIN is the security officer's. It is tried once; the caller zeroes it.
	OfficerPIN pkcs11.Secret
}

// NewSealingKey is what NextSealingKey did.
type NewSealingKey struct {
	Record *Record `json:"-"`
	Period uint32  `json:"period"`
	// Resumed: an earlier run had made the key and was cut short before the transcript was signed.
	Resumed bool `json:"resumed"`
	// Before are the periods whose sealing keys are in the token besides, until the vault destroys them.
	Before []uint32 `json:"before"`
}

// Run makes the key.
//
// A crash between token and transcript leaves a sealing key that the transcript does not list, and that a vault refuses at its
// next start. The next Run lists it instead of making another: a vault that was running all the while may have sealed under
// it already, so it must not be destroyed. That it is no key of the host's, who has only the user's PIN, is shown by its being
// CKA_TRUSTED and CKA_LOCAL and of all the attributes that Generate asks for.
func (c *NextSealingKey) Run(ctx context.Context) (*NewSealingKey, error) {
	record, key, unlock, err := openFolder(c.Dir, c.CeremonyKey, c.Passphrase)
	if err != nil {
		return nil, err
	}
	defer unlock()
	defer key.Zero()
	_, facts, err := record.usable(c.Module, true) // a development vault's key is made like any other
	if err != nil {
		return nil, err
	}
	token, err := pkcs11.Open(ctx, pkcs11.Config{Profile: facts, Selector: record.selector(), Role: pkcs11.Officer, PIN: c.OfficerPIN, Threads: 1})
	if err != nil {
		return nil, err
	}
	made, err := c.make(ctx, record.Transcript, token, key)
	if closed := token.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return nil, err
	}
	made.Record, err = ReadRecord(c.Dir)
	return made, err
}

func (c *NextSealingKey) make(ctx context.Context, last *Transcript, token *pkcs11.Token, key *envelope.PrivateKey) (*NewSealingKey, error) {
	present, _, err := token.InspectSealing(ctx)
	if err != nil {
		return nil, different(err)
	}
	made := &NewSealingKey{Period: last.newestSealing() + 1, Before: []uint32{}}
	var report pkcs11.KeyReport
	for _, r := range present {
		period, _ := r.Name.Period() // it is one: InspectSealing
		switch was, listed := last.key(r.Name); {
		case listed:
			if err := was.Same(r); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrDifferent, err)
			}
			made.Before = append(made.Before, period)
		case period == made.Period:
			report, made.Resumed = r, true
		default:
			return nil, fmt.Errorf("%w: the token holds %q, which is neither listed in the transcript nor the next one", ErrDifferent, string(r.Name))
		}
	}
	if made.Period == 0 { // after the last of 32 bits; the vault takes periods for ascending
		return nil, fmt.Errorf("%w: sealing key %d was the last that there is; hold a new ceremony", ErrCustody, last.newestSealing())
	}
	if !made.Resumed {
		if report, err = token.Generate(ctx, pkcs11.SealingKey(made.Period)); err != nil {
			return nil, err
		}
	}
	next := *last
	next.Keys = append(next.Keys[:len(next.Keys):len(next.Keys)], report)
	return made, signTranscript(c.Dir, key, &next)
}
