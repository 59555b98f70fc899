package hardware

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/policies"
)

// transcriptType is the document type of a transcript.
const transcriptType = "transcript"

// Transcript is what the ceremony saw the token answer, signed with the ceremony key: every attribute of every key as it was
// read back, what was tried on them, the module, and the light probe. Each start compares the token with it. It holds no secret.
//
// It lists every sealing key that was ever made. Those of earlier periods may be gone from the token, since the vault destroys
// them when nothing is under them any more; a sealing key that it does not list is refused.
type Transcript struct {
	policies.Header
	// Version grows with every transcript signed after the ceremony's own, which is 1: for a new sealing key or grade. Transcripts
	// from before versions were counted say none.
	Version uint64           `json:"version,omitzero"`
	Vault   policies.VaultID `json:"vault"`
	DevMode bool             `json:"dev_mode,omitzero"`
	Tool    string           `json:"tool"`    // the program that held the ceremony, with its version
	Profile string           `json:"profile"` // name of the profile
	// Facts are the profile's values at the time, without paths.
	Facts   pkcs11.Profile         `json:"facts"`
	Module  Module                 `json:"module"`
	Token   pkcs11.Info            `json:"token"`
	Keys    []pkcs11.KeyReport     `json:"keys"`
	Derives []pkcs11.DeriveFinding `json:"derives"`
	Points  []pkcs11.PointFinding  `json:"points"`
	// Probe is the last full probe; none in transcripts from before there was one.
	Probe *ProbeSummary `json:"probe,omitempty"`
}

// ProbeSummary is what a full probe found: its grade, and everything that was not a refusal.
type ProbeSummary struct {
	Time        int64            `json:"time"` // Unix seconds
	Grade       pkcs11.Grade     `json:"grade"`
	Why         string           `json:"why"`
	Attacks     int              `json:"attacks"`
	Refused     int              `json:"refused"`
	NotPossible int              `json:"not_possible"`
	Findings    []pkcs11.Finding `json:"findings"`
}

func summarise(a *pkcs11.Assessment, now time.Time) *ProbeSummary {
	return &ProbeSummary{
		Time: now.Unix(), Grade: a.Grade, Why: a.Why, Attacks: len(a.Attacks),
		Refused: a.Count(pkcs11.Refused), NotPossible: a.Count(pkcs11.NotPossible), Findings: a.Findings,
	}
}

// grade is that of the last full probe.
func (t *Transcript) grade() pkcs11.Grade {
	if t.Probe == nil {
		return pkcs11.Unproven
	}
	return t.Probe.Grade
}

// Module names a PKCS#11 library.
type Module struct {
	Path   string        `json:"path"`
	SHA256 policies.Hash `json:"sha256"`
}

// Validate checks the form.
func (t *Transcript) Validate() error {
	switch {
	case t.Type != transcriptType || t.Suite != policies.Suite || t.ID.IsZero() || t.Time <= 0:
		return fmt.Errorf("%w: transcript: type, suite, id and time are needed", policies.ErrMalformed)
	case t.Vault.IsZero() || t.Profile == "" || t.Token.Serial == "":
		return fmt.Errorf("%w: transcript: vault, profile and the token's serial are needed", policies.ErrMalformed)
	}
	for _, name := range []pkcs11.KeyName{pkcs11.ImportResident, pkcs11.LogKey, pkcs11.StoreKey} {
		if r, ok := t.key(name); !ok || len(r.Attributes) == 0 {
			return fmt.Errorf("%w: transcript: no report of %q", policies.ErrMalformed, string(name))
		}
	}
	if p := t.Probe; p != nil && (!p.Grade.Known() || p.Grade == pkcs11.Unproven || p.Time <= 0 || p.Attacks < 0 || p.Refused+p.NotPossible > p.Attacks) {
		return fmt.Errorf("%w: transcript: the full probe's grade, time or counts", policies.ErrMalformed)
	}
	for i, r := range t.Keys {
		if slices.ContainsFunc(t.Keys[:i], func(o pkcs11.KeyReport) bool { return o.Name == r.Name }) {
			return fmt.Errorf("%w: transcript: two reports of %q", policies.ErrMalformed, string(r.Name))
		}
	}
	return nil
}

func (t *Transcript) key(name pkcs11.KeyName) (pkcs11.KeyReport, bool) {
	for _, r := range t.Keys {
		if r.Name == name {
			return r, true
		}
	}
	return pkcs11.KeyReport{}, false
}

// newestSealing is the period of the last sealing key that was made, zero if there was none.
func (t *Transcript) newestSealing() (newest uint32) {
	for _, r := range t.Keys {
		if period, ok := r.Name.Period(); ok {
			newest = max(newest, period)
		}
	}
	return newest
}

// compare refuses a token that is not as t says. now is what the probe of this start found.
func (t *Transcript) compare(now pkcs11.Findings) error {
	if now.Token.Serial != t.Token.Serial {
		return fmt.Errorf("%w: serial is %q, the ceremony recorded %q", ErrDifferent, now.Token.Serial, t.Token.Serial)
	}
	for _, was := range t.Keys {
		i := slices.IndexFunc(now.Keys, func(r pkcs11.KeyReport) bool { return r.Name == was.Name })
		if period, sealing := was.Name.Period(); i < 0 && sealing && period < t.newestSealing() {
			continue // nothing is under it any more
		}
		if i < 0 {
			return fmt.Errorf("%w: %q: %w", ErrDifferent, string(was.Name), pkcs11.ErrKeyMissing)
		}
		if err := was.Same(now.Keys[i]); err != nil {
			return fmt.Errorf("%w: %w", ErrDifferent, err)
		}
	}
	for _, r := range now.Keys {
		if _, listed := t.key(r.Name); listed {
			continue
		}
		// Made by the security officer, or it would not be trusted; but not in a ceremony that was finished.
		if _, sealing := r.Name.Period(); sealing {
			return fmt.Errorf("%w: the transcript does not list %q: sallyport-hsm sealing-key was cut short; run it again", ErrDifferent, string(r.Name))
		}
		return fmt.Errorf("%w: the transcript does not list %q", ErrDifferent, string(r.Name))
	}
	return sound(now)
}

// sound refuses what the light probe found, where it is no more than a finding to package pkcs11 but should be known to
// nobody as harmless: a token that takes points off the curve is not the one that was measured.
func sound(f pkcs11.Findings) error {
	for _, p := range f.Points {
		if !p.Refused {
			return fmt.Errorf("%w: the token accepts a bad point: %s", ErrProbe, p.Point)
		}
	}
	return nil
}

// published is what a transcript says may be in the vault document.
type published struct {
	imports []policies.ImportKey // of every custody for which all keys were made
	log     ed25519.PublicKey
}

// offer picks the import keys of custodies, in their usual order; a custody for which the ceremony made no keys is refused.
func (p published) offer(custodies []policies.Custody) ([]policies.ImportKey, error) {
	var offered []policies.ImportKey
	for _, k := range p.imports {
		if slices.Contains(custodies, k.Custody) {
			offered = append(offered, k)
		}
	}
	for _, c := range custodies {
		if !slices.ContainsFunc(p.imports, func(k policies.ImportKey) bool { return k.Custody == c }) {
			return nil, fmt.Errorf("%w: %q: this ceremony made no keys for it", ErrCustody, string(c))
		}
	}
	if len(offered) == 0 {
		return nil, fmt.Errorf("%w: a vault offers at least one", ErrCustody)
	}
	return offered, nil
}

// publishes reads the public keys out of the reports.
func (t *Transcript) publishes() (published, error) {
	var p published
	hash, ok := oaepNames[t.Facts.OAEPHash]
	if !ok {
		return p, fmt.Errorf("%w: OAEP hash %q has no name in a vault document", policies.ErrMalformed, t.Facts.OAEPHash)
	}
	for _, c := range []struct {
		custody policies.Custody
		name    pkcs11.KeyName
	}{{policies.CustodyResident, pkcs11.ImportResident}, {policies.CustodySealed, pkcs11.ImportSealed}} {
		imports, made := t.key(c.name)
		if !made || c.custody == policies.CustodySealed && t.newestSealing() == 0 {
			continue
		}
		if _, err := x509.ParsePKIXPublicKey(imports.Public); err != nil {
			return p, fmt.Errorf("%w: %q: %w", policies.ErrMalformed, string(c.name), err)
		}
		p.imports = append(p.imports, policies.ImportKey{Custody: c.custody, Path: t.Facts.ImportPath, OAEPHash: hash, PublicKey: imports.Public})
	}
	log, _ := t.key(pkcs11.LogKey)
	key, err := x509.ParsePKIXPublicKey(log.Public)
	if err != nil {
		return p, fmt.Errorf("%w: log key: %w", policies.ErrMalformed, err)
	}
	if p.log, ok = key.(ed25519.PublicKey); !ok {
		return p, fmt.Errorf("%w: log key is not an Ed25519 key, which the vault document needs", policies.ErrMalformed)
	}
	return p, nil
}

// oaepNames are the names of hashes in vault documents, by those in profiles.
var oaepNames = map[string]string{"sha1": "SHA-1", "sha256": "SHA-256"}

// describeModule hashes the library, so that a transcript tells which build answered.
func describeModule(path string) (Module, error) {
	file, err := os.Open(path)
	if err != nil {
		return Module{}, fmt.Errorf("%w: %w", ErrModule, err)
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return Module{}, fmt.Errorf("%w: %w", ErrModule, err)
	}
	return Module{Path: path, SHA256: policies.Hash(h.Sum(nil))}, nil
}

// tool names this program and the source it was built from.
func tool() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "sallyport-hsm"
	}
	name := "sallyport-hsm " + info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			name += " " + s.Value
		}
	}
	return name + " " + info.GoVersion
}

// logKeyName is the origin of a vault's checkpoints and the name of its log key (C2SP signed-note: no space, no plus).
func logKeyName(vault policies.VaultID) string { return "sallyport/" + hex.EncodeToString(vault[:8]) }
