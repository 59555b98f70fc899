package hardware

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/links"
)

// Ceremony makes an empty token a vault's own. Its steps and what they leave are told in the package comment.
type Ceremony struct {
	// Dir is the folder to make. It must not exist, or be empty.
	Dir string
	// Profile names the device; Module is its library if not in a usual place.
	Profile, Module string
	// Serial chooses among several empty tokens; empty: the first one.
	Serial string
	// Label is what the token will be called, at most 32 bytes.
	Label string
	// OfficerPIN and UserPIN become the token's. The caller zeroes them.
	OfficerPIN, UserPIN pkcs11.Secret
	// CeremonyKey is the file to make for the ceremony key. It should be on a medium that can be taken offline.
	CeremonyKey string
	// Passphrase is asked once, before the token is touched.
	Passphrase func() ([]byte, error)
	// Storefront and Owners are the https URLs of the join link. Both may be empty and come later, by Reissue.
	Storefront, Owners string
	// Custodies are offered in the vault document. Empty: resident alone, but both for a development vault. The keys of both
	// are made in any case, so that Reissue can offer the other later.
	Custodies []policies.Custody
	// Development marks the vault as one of a developer, for ever: clients and vault refuse it where a real one is due.
	Development bool
	// Progress, if set, hears what each step does as it begins.
	Progress func(step string)

	// cost of a guess at the passphrase; zero: fullCost, or leastCost for a development vault, whose passphrase lies beside it.
	cost cost
}

// The steps of a ceremony, in order, in the words of progress and of UnfinishedError.
const (
	stepKey     = "making the ceremony key"
	stepToken   = "initialising the token"
	stepSealing = "making the sealing key, as security officer"
	stepImport  = "making the import key"
	stepSealed  = "making the import key of custody sealed"
	stepLog     = "making the log key"
	stepStore   = "making the store key"
	stepSecrets = "drawing and sealing the vault's secrets"
	stepProbe   = "attacking throw-away keys, as the vault's host could"
	stepSign    = "signing the vault document and the transcript"
	stepCheck   = "reading everything back"
	stepJoin    = "writing the join link"
)

// Check says whether the ceremony could begin, without changing anything or asking the token, and what it would do.
func (c *Ceremony) Check() (plan []string, err error) {
	_, facts, err := c.check()
	if err != nil {
		return nil, err
	}
	token := "the first empty token"
	if c.Serial != "" {
		token = "the empty token with serial " + c.Serial
	}
	plan = []string{
		fmt.Sprintf("load %s", facts.Module),
		fmt.Sprintf("draw the ceremony key and write it, under a passphrase, to %s", c.CeremonyKey),
		fmt.Sprintf("initialise %s, label %q, with the two PINs", token, c.Label),
		fmt.Sprintf("make in it, none of them extractable: %q (RSA-3072), %q (Ed25519), %q (AES-256)",
			string(pkcs11.ImportResident), string(pkcs11.LogKey), string(pkcs11.StoreKey)),
		fmt.Sprintf("and for custody sealed: %q (AES-256, as security officer), %q (RSA-3072)",
			string(pkcs11.SealingKey(1)), string(pkcs11.ImportSealed)),
		"offer owners " + describeCustodies(c.custodies()),
		"attack throw-away keys in it, made like the real ones as session objects, in every way that a host with the user's PIN has, and grade the token",
		fmt.Sprintf("write %s, %s, %s and the join link to %s", vaultFile, transcriptFile, secretsFile, c.Dir),
	}
	if facts.Folder != "" {
		plan[0] += ", which keeps its tokens in " + facts.Folder
	}
	if c.Development {
		plan = append(plan, "mark the vault as a development vault, for ever")
	}
	return plan, nil
}

func (c *Ceremony) custodies() []policies.Custody {
	switch {
	case len(c.Custodies) > 0:
		return c.Custodies
	case c.Development:
		return []policies.Custody{policies.CustodyResident, policies.CustodySealed}
	}
	return []policies.Custody{policies.CustodyResident}
}

// describeCustodies says in a clause what an owner is offered.
func describeCustodies(custodies []policies.Custody) string {
	var said []string
	for _, c := range custodies {
		switch c {
		case policies.CustodyResident:
			said = append(said, "custody resident (each grant's key is an object of the token and never leaves it; bounded by the token's room)")
		case policies.CustodySealed:
			said = append(said, "custody sealed (each grant's key rests outside the token, wrapped under its sealing key: for more grants than the token has room for; "+
				"a copy that the host keeps of a revoked key dies only when the sealing key of its period is destroyed)")
		default:
			said = append(said, string(c))
		}
	}
	return strings.Join(said, ", and ")
}

func (c *Ceremony) check() (Profile, pkcs11.Profile, error) {
	fail := func(err error) (Profile, pkcs11.Profile, error) { return Profile{}, pkcs11.Profile{}, err }
	if c.Dir == "" || c.CeremonyKey == "" || c.Passphrase == nil {
		return fail(fmt.Errorf("%w: a folder, a file for the ceremony key and a passphrase are needed", ErrFolder))
	}
	if c.Label == "" || len(c.Label) > 32 {
		return fail(fmt.Errorf("%w: a token's label has 1 to 32 bytes", ErrFolder))
	}
	profile, err := FindProfile(c.Profile)
	if err != nil {
		return fail(err)
	}
	facts, err := profile.PKCS11(c.Module)
	if err != nil {
		return fail(err)
	}
	for _, custody := range c.custodies() {
		if custody != policies.CustodyResident && custody != policies.CustodySealed {
			return fail(fmt.Errorf("%w: %q is none", ErrCustody, string(custody)))
		}
	}
	if err := unfinished(c.Dir); err != nil {
		return fail(err)
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fail(fmt.Errorf("%w: %w", ErrFolder, err))
	}
	if len(entries) > 0 {
		return fail(fmt.Errorf("%w: %s is not empty: a ceremony writes to a new folder", ErrFolder, c.Dir))
	}
	if exists(c.CeremonyKey) {
		return fail(fmt.Errorf("%w: %s exists: a ceremony key is never overwritten", ErrFolder, c.CeremonyKey))
	}
	inside, err := filepath.Rel(absolute(c.Dir), absolute(c.CeremonyKey))
	if err == nil && filepath.IsLocal(inside) {
		return fail(fmt.Errorf("%w: the ceremony key must not lie in %s, which stays with the vault", ErrFolder, c.Dir))
	}
	if info, err := os.Stat(filepath.Dir(c.CeremonyKey)); err != nil {
		return fail(fmt.Errorf("%w: folder of the ceremony key: %w", ErrFolder, err))
	} else if !info.IsDir() {
		return fail(fmt.Errorf("%w: %s is not a folder", ErrFolder, filepath.Dir(c.CeremonyKey)))
	}
	// The vault's id and ceremony key do not exist yet; any of the same length shows whether the URLs will do.
	if _, err := joinLink(&policies.VaultDocument{Vault: policies.VaultID{1}}, c.Storefront, c.Owners); err != nil {
		return fail(err)
	}
	return profile, facts, nil
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// Run holds the ceremony. What it returns has been read back from folder and token.
//
// A failure before the token is touched leaves nothing. A later one, and a process killed in the middle, leaves a token
// that nobody pinned and a marker in the folder; the error, and that of the next attempt, is an [*UnfinishedError] that
// says how to clean up. Package pkcs11 destroys a key that it refuses, so a weak key does not outlive its refusal.
func (c *Ceremony) Run(ctx context.Context) (*Record, error) {
	profile, facts, err := c.check()
	if err != nil {
		return nil, err
	}
	module, err := describeModule(facts.Module)
	if err != nil {
		return nil, err
	}
	passphrase, err := c.Passphrase()
	if err != nil {
		return nil, fmt.Errorf("asking the passphrase: %w", err)
	}
	defer clear(passphrase)

	run := &run{Ceremony: c, profile: profile, facts: facts, module: module}
	run.marker = marker{Label: c.Label, Serial: c.Serial, CeremonyKey: absolute(c.CeremonyKey), Profile: profile.Name}
	made, err := run.begin(ctx, passphrase)
	if err != nil {
		return nil, errors.Join(err, run.undo(made))
	}
	defer run.key.Zero()
	if err := run.initialise(ctx); err != nil {
		if errors.Is(err, pkcs11.ErrTokenExists) || errors.Is(err, pkcs11.ErrTokenMissing) || errors.Is(err, ctx.Err()) { // nothing was touched
			return nil, errors.Join(err, run.undo(made))
		}
		return nil, run.marker.stopped(c.Dir, err)
	}
	record, err := run.rest(ctx)
	if err != nil {
		return nil, run.marker.stopped(c.Dir, err)
	}
	return record, nil
}

// run is a ceremony under way.
type run struct {
	*Ceremony
	profile Profile
	facts   pkcs11.Profile
	module  Module
	marker  marker
	key     *envelope.PrivateKey
	keys    []pkcs11.KeyReport
	secrets *Secrets
	vault   policies.VaultID
	found   pkcs11.Findings
	probe   *ProbeSummary
}

// step records durably which step begins. Killed at any point, a ceremony leaves the name of the step it was in. One that
// is called off begins no step more.
func (r *run) step(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.marker.Step = name
	raw, err := json.Marshal(r.marker, jsontext.WithIndent("  "))
	if err == nil {
		err = writeFile(filepath.Join(r.Dir, unfinishedFile), append(raw, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFolder, err)
	}
	if r.Progress != nil {
		r.Progress(name)
	}
	return ctx.Err()
}

// begin makes folder and ceremony key, and returns what it made for undo.
func (r *run) begin(ctx context.Context, passphrase []byte) (made []string, err error) {
	if err := os.Mkdir(r.Dir, 0o700); err == nil {
		made = append(made, r.Dir)
	} else if !errors.Is(err, os.ErrExist) {
		return made, fmt.Errorf("%w: %w", ErrFolder, err)
	}
	made = append(made, filepath.Join(r.Dir, unfinishedFile))
	if err := r.step(ctx, stepKey); err != nil {
		return made, err
	}
	if r.key, err = createCeremonyKey(r.CeremonyKey, passphrase, r.guess()); err != nil {
		return made, err
	}
	return append(made, r.CeremonyKey), nil
}

// guess is what a guess at the passphrase will cost.
func (r *run) guess() cost {
	switch {
	case r.cost != cost{}:
		return r.cost
	case r.Development:
		return leastCost
	}
	return fullCost
}

// undo takes back what begin made, newest first.
func (r *run) undo(made []string) error {
	var faults []error
	for i := len(made) - 1; i >= 0; i-- {
		if err := os.Remove(made[i]); err != nil && !errors.Is(err, os.ErrNotExist) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

func (r *run) initialise(ctx context.Context) error {
	if err := r.step(ctx, stepToken); err != nil {
		return err
	}
	info, err := pkcs11.Initialise(r.facts, pkcs11.Selector{Serial: r.Serial, Label: r.Label}, r.OfficerPIN, r.UserPIN)
	switch {
	case errors.Is(err, pkcs11.ErrTokenExists):
		return fmt.Errorf("%w: a token with this label or serial is initialised already. A ceremony takes only a token that nothing was ever in: choose another label, or empty it (%s): %w",
			ErrNotEmpty, r.profile.Erase, err)
	case errors.Is(err, pkcs11.ErrTokenMissing) && r.Serial != "": // perhaps mistyped: whoever is told to empty a token might empty another
		return fmt.Errorf("the module shows no empty token with serial %s: %w", r.Serial, err)
	case errors.Is(err, pkcs11.ErrTokenMissing):
		return fmt.Errorf("%w: the module shows no uninitialised token; empty one first (%s): %w", ErrNotEmpty, r.profile.Erase, err)
	case err != nil:
		return err
	}
	r.marker.Serial = info.Serial
	return nil
}

// rest is everything after the token has PINs.
func (r *run) rest(ctx context.Context) (*Record, error) {
	token := pkcs11.Selector{Serial: r.marker.Serial, Label: r.Label}
	if err := r.as(ctx, token, pkcs11.Officer, func(t *pkcs11.Token) error {
		return r.generate(ctx, t, stepSealing, pkcs11.SealingKey(1))
	}); err != nil {
		return nil, err
	}
	r.secrets = drawSecrets()
	defer r.secrets.Zero()
	if err := r.as(ctx, token, pkcs11.User, func(t *pkcs11.Token) error { return r.user(ctx, t) }); err != nil {
		return nil, err
	}
	if err := r.attack(ctx, token); err != nil {
		return nil, err
	}
	if err := r.step(ctx, stepSign); err != nil {
		return nil, err
	}
	if err := r.sign(); err != nil {
		return nil, err
	}
	// From here the module is loaded anew: what is read now was kept by the token, not by the process that made it.
	if err := r.step(ctx, stepCheck); err != nil {
		return nil, err
	}
	if err := r.as(ctx, token, pkcs11.User, func(t *pkcs11.Token) error { return r.readBack(ctx, t) }); err != nil {
		return nil, err
	}
	if err := r.step(ctx, stepJoin); err != nil {
		return nil, err
	}
	// Everything is in place: the marker's removal is what finishes the ceremony. A crash before it leaves a token that is
	// whole and that no start accepts; the operator begins again.
	link, err := r.link()
	if err == nil {
		err = writeJoin(r.Dir, link)
	}
	if err == nil {
		err = os.Remove(filepath.Join(r.Dir, unfinishedFile))
	}
	if err == nil {
		err = syncDir(r.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFolder, err)
	}
	return ReadRecord(r.Dir)
}

// as opens the token in a role for the time of f.
func (r *run) as(ctx context.Context, sel pkcs11.Selector, role pkcs11.Role, f func(*pkcs11.Token) error) error {
	pin := r.UserPIN
	if role == pkcs11.Officer {
		pin = r.OfficerPIN
	}
	t, err := pkcs11.Open(ctx, pkcs11.Config{Profile: r.facts, Selector: sel, Role: role, PIN: pin, Threads: 1})
	if err != nil {
		return err
	}
	err = f(t)
	if closed := t.Close(); err == nil {
		err = closed
	}
	return err
}

func (r *run) generate(ctx context.Context, t *pkcs11.Token, step string, name pkcs11.KeyName) error {
	if err := r.step(ctx, step); err != nil {
		return err
	}
	report, err := t.Generate(ctx, name)
	if err != nil {
		return err
	}
	r.keys = append(r.keys, report)
	return nil
}

// user is what the user does in the new token: the keys, the secrets and, with what the token then answers, the documents.
func (r *run) user(ctx context.Context, t *pkcs11.Token) error {
	for _, k := range []struct {
		step string
		name pkcs11.KeyName
	}{
		{stepImport, pkcs11.ImportResident},
		{stepSealed, pkcs11.ImportSealed},
		{stepLog, pkcs11.LogKey},
		{stepStore, pkcs11.StoreKey},
	} {
		if err := r.generate(ctx, t, k.step, k.name); err != nil {
			return err
		}
	}
	if err := r.step(ctx, stepSecrets); err != nil {
		return err
	}
	rand.Read(r.vault[:]) // never fails: see crypto/rand
	sealed, err := r.secrets.seal(ctx, t, r.vault)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(r.Dir, secretsFile), sealed, 0o600); err != nil {
		return fmt.Errorf("%w: %w", ErrFolder, err)
	}
	if r.found, err = t.Probe(ctx); err != nil {
		return err
	}
	return sound(r.found)
}

// attack holds the full probe. It attacks keys of its own and leaves the token as it was: nobody else is at work on it, so a
// difference is the probe's fault or the token's, and the ceremony stops.
func (r *run) attack(ctx context.Context, token pkcs11.Selector) error {
	if err := r.step(ctx, stepProbe); err != nil {
		return err
	}
	probe := pkcs11.FullProbe{Profile: r.facts, Selector: token, User: r.UserPIN, Officer: r.OfficerPIN}
	found, err := probe.Run(ctx)
	if err != nil {
		return err
	}
	if len(found.Left) > 0 {
		return fmt.Errorf("%w: the full probe left the token other than it was: %s", ErrProbe, strings.Join(found.Left, "; "))
	}
	r.probe = summarise(found, time.Now())
	return nil
}

// sign writes the two documents.
func (r *run) sign() error {
	now, vault, found := time.Now(), r.vault, r.found
	facts := r.facts
	facts.Module, facts.Folder = "", "" // where they lie is this host's business and may change
	transcript := &Transcript{
		Header: policies.NewHeader(transcriptType, now), Version: 1, Vault: vault, DevMode: r.Development, Tool: tool(), Profile: r.profile.Name,
		Facts: facts, Module: r.module, Token: found.Token, Keys: r.keys, Derives: found.Derives, Points: found.Points, Probe: r.probe,
	}
	published, err := transcript.publishes()
	if err != nil {
		return err
	}
	offered, err := published.offer(r.custodies())
	if err != nil {
		return err
	}
	doc := &policies.VaultDocument{
		Header: policies.NewHeader("vault", now), Vault: vault, Version: 1, CeremonyKey: r.key.Public().Bytes(),
		Tokens: []policies.TokenEntry{{
			Serial: found.Token.Serial, Label: found.Token.Label, Model: found.Token.Model, Grade: string(transcript.grade()), ImportKeys: offered,
		}},
		LogKey:     policies.LogKey{Name: logKeyName(vault), Algorithm: "Ed25519", PublicKey: published.log},
		LogHostKey: policies.LogKey{Name: logKeyName(vault) + "/host", Algorithm: "ML-DSA-44", PublicKey: r.secrets.logHostPublic()},
		ImportHPKE: r.secrets.importPublic(), SessionKEM: r.secrets.sessionPublic(), DevMode: r.Development,
	}
	signed, err := policies.Sign(r.key, transcript)
	if err != nil {
		return fmt.Errorf("signing the transcript: %w", err)
	}
	if err := writeFile(filepath.Join(r.Dir, transcriptFile), signed.Raw, 0o644); err != nil {
		return fmt.Errorf("%w: %w", ErrFolder, err)
	}
	if signed, err = policies.Sign(r.key, doc); err != nil {
		return fmt.Errorf("signing the vault document: %w", err)
	}
	if err := writeFile(filepath.Join(r.Dir, vaultFile), signed.Raw, 0o644); err != nil {
		return fmt.Errorf("%w: %w", ErrFolder, err)
	}
	return nil
}

// readBack does what the vault will do at its next start.
func (r *run) readBack(ctx context.Context, t *pkcs11.Token) error {
	record, err := readRecord(r.Dir)
	if err != nil {
		return err
	}
	if _, err := record.examine(ctx, t); err != nil {
		return err
	}
	again, err := openSecrets(ctx, t, record.Vault, record.sealed)
	if err != nil {
		return err
	}
	defer again.Zero()
	if subtle.ConstantTimeCompare(again.DataKey[:], r.secrets.DataKey[:]) != 1 {
		return fmt.Errorf("%w: the token opens other secrets than it sealed", ErrDifferent)
	}
	return nil
}

func (r *run) link() (links.Join, error) {
	record, err := readRecord(r.Dir)
	if err != nil {
		return links.Join{}, err
	}
	return joinLink(record.Vault, r.Storefront, r.Owners)
}
