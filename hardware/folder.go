package hardware

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/sallyport/sallyport/hardware/pkcs11uri"
	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

// The files of a ceremony's folder.
const (
	vaultFile      = "vault.json"
	transcriptFile = "transcript.json"
	secretsFile    = "secrets.sealed"
	joinTextFile   = "join.txt"
	joinImageFile  = "join.png"
	unfinishedFile = "unfinished.json"
)

// A Record is what a finished ceremony left in its folder, read and verified: each document under the ceremony key that
// the vault document names, and both about the same vault. Whether that ceremony key is the right one, only a pin can
// tell (see [policies.OpenVault]).
type Record struct {
	Envelope   *envelope.Envelope // of the vault document
	Vault      *policies.VaultDocument
	Transcript *Transcript
	// TranscriptHash is the transcript's document hash, for people to compare.
	TranscriptHash policies.Hash

	sealed []byte
	chosen pkcs11uri.URI // see Choose
}

// ReadRecord reads the folder of a finished ceremony. It asks no token.
func ReadRecord(dir string) (*Record, error) {
	if err := unfinished(dir); err != nil {
		return nil, err
	}
	return readRecord(dir)
}

// readRecord is ReadRecord for the ceremony itself, whose marker still lies there.
func readRecord(dir string) (*Record, error) {
	var r Record
	vault, err := readEnvelope(dir, vaultFile)
	if err != nil {
		return nil, err
	}
	claim, err := policies.Decode[policies.VaultDocument](vault)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFolder, vaultFile, err)
	}
	if r.Vault, err = policies.OpenVault(vault, claim.Vault, policies.HashKey(claim.CeremonyKey), 0); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFolder, vaultFile, err)
	}
	r.Envelope = vault
	transcript, err := readEnvelope(dir, transcriptFile)
	if err != nil {
		return nil, err
	}
	key, err := envelope.ParsePublicKey(r.Vault.CeremonyKey)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFolder, vaultFile, err)
	}
	if r.Transcript, err = policies.Open[Transcript](transcript, key); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFolder, transcriptFile, err)
	}
	r.TranscriptHash = transcript.Hash
	if err := r.agree(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFolder, err)
	}
	if r.sealed, err = os.ReadFile(filepath.Join(dir, secretsFile)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFolder, err)
	}
	return &r, nil
}

// agree refuses a vault document that publishes other keys than the transcript reports.
func (r *Record) agree() error {
	t := r.Transcript
	if t.Vault != r.Vault.Vault {
		return fmt.Errorf("%s and %s are of different vaults", vaultFile, transcriptFile)
	}
	if t.DevMode != r.Vault.DevMode {
		return fmt.Errorf("%s and %s disagree on development mode", vaultFile, transcriptFile)
	}
	published, err := t.publishes()
	if err != nil {
		return fmt.Errorf("%s: %w", transcriptFile, err)
	}
	if len(r.Vault.Tokens) != 1 || r.Vault.Tokens[0].Serial != t.Token.Serial {
		return fmt.Errorf("%s does not name the one token of %s", vaultFile, transcriptFile)
	}
	// Which custodies are offered is the vault document's to say; which key is a custody's is the transcript's.
	for i, got := range r.Vault.Tokens[0].ImportKeys {
		if !slices.ContainsFunc(published.imports, func(want policies.ImportKey) bool { return sameImportKey(got, want) }) {
			return fmt.Errorf("%s publishes another import key for custody %s than %s reports", vaultFile, got.Custody, transcriptFile)
		}
		if slices.ContainsFunc(r.Vault.Tokens[0].ImportKeys[:i], func(k policies.ImportKey) bool { return k.Custody == got.Custody }) {
			return fmt.Errorf("%s publishes two import keys for custody %s", vaultFile, got.Custody)
		}
	}
	if string(published.log) != string(r.Vault.LogKey.PublicKey) {
		return fmt.Errorf("%s publishes another log key than %s reports", vaultFile, transcriptFile)
	}
	return nil
}

// Custodies are those that the vault document offers.
func (r *Record) Custodies() []policies.Custody {
	var offered []policies.Custody
	for _, k := range r.Vault.Tokens[0].ImportKeys { // one token: agree
		offered = append(offered, k.Custody)
	}
	return offered
}

// Grade is that of the last full probe. Vault document and transcript both tell it, and are signed one after the other: the
// worse of the two counts.
func (r *Record) Grade() pkcs11.Grade {
	published, found := pkcs11.Grade(r.Vault.Tokens[0].Grade), r.Transcript.grade() // one token: agree
	if published.Below(found) {
		return published
	}
	return found
}

func sameImportKey(a, b policies.ImportKey) bool {
	return a.Custody == b.Custody && a.Path == b.Path && a.OAEPHash == b.OAEPHash && string(a.PublicKey) == string(b.PublicKey)
}

func readEnvelope(dir, name string) (*envelope.Envelope, error) {
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("%w: no ceremony was finished here: %w", ErrFolder, err)
	}
	e, err := envelope.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFolder, name, err)
	}
	return e, nil
}

// A marker lies in the folder from the first act of a ceremony to its last. It is rewritten before each step, so it names
// the step in which a killed ceremony died.
type marker struct {
	Step        string `json:"step"`
	Label       string `json:"label"`
	Serial      string `json:"serial,omitempty"`
	CeremonyKey string `json:"ceremony_key"`
	Profile     string `json:"profile"`
}

// unfinished is an *UnfinishedError if the folder holds a marker.
func unfinished(dir string) error {
	raw, err := os.ReadFile(filepath.Join(dir, unfinishedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFolder, err)
	}
	var m marker
	if err := envelope.Decode(raw, &m); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrFolder, unfinishedFile, err)
	}
	return m.stopped(dir, nil)
}

func (m marker) stopped(dir string, cause error) *UnfinishedError {
	e := &UnfinishedError{Folder: dir, CeremonyKey: m.CeremonyKey, Step: m.Step, Label: m.Label, Serial: m.Serial, Cause: cause}
	if p, err := FindProfile(m.Profile); err == nil {
		e.Erase = p.Erase
	}
	return e
}

// writeFile makes a file whole or not at all, and durable: a crash leaves the old file, none, or the new one.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // gone already after the rename
	_, err = file.Write(data)
	if err == nil {
		err = file.Chmod(mode)
	}
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closed := d.Close(); err == nil {
		err = closed
	}
	return err
}
