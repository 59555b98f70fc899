package hardware

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/policies"
)

var (
	onlyResident = []policies.Custody{policies.CustodyResident}
	onlySealed   = []policies.Custody{policies.CustodySealed}
	bothOffered  = []policies.Custody{policies.CustodyResident, policies.CustodySealed}
)

func (b *bench) reissue(t *testing.T, custodies ...policies.Custody) (*Record, error) {
	return (&Reissue{Dir: b.dir, CeremonyKey: b.ceremony.CeremonyKey, Passphrase: []byte(testPassphrase), Custodies: custodies}).Run(t.Context())
}

// The vault document lists import keys of the custodies that are offered and of no other.
func TestCustodiesOffered(t *testing.T) {
	b, record := held(t)
	if got := record.Custodies(); !reflect.DeepEqual(got, onlyResident) {
		t.Errorf("a ceremony that was not asked offers %q", got)
	}
	for _, want := range [][]policies.Custody{bothOffered, onlySealed, bothOffered, onlyResident} {
		record, err := b.reissue(t, want...)
		if err != nil {
			t.Fatal(err)
		}
		if got := record.Custodies(); !reflect.DeepEqual(got, want) {
			t.Errorf("asked to offer %q, it offers %q", want, got)
		}
		// Not asked, it stays.
		if record, err = b.reissue(t); err != nil || !reflect.DeepEqual(record.Custodies(), want) {
			t.Errorf("not asked, it offers %q instead of %q: %v", record.Custodies(), want, err)
		}
		if _, err := record.Verify(t.Context(), "", b.pin(t), false); err != nil {
			t.Error(err)
		}
		for _, c := range want {
			key, ok := record.Vault.ImportKey(record.Transcript.Token.Serial, c)
			report, _ := record.Transcript.key(map[policies.Custody]pkcs11.KeyName{policies.CustodyResident: pkcs11.ImportResident, policies.CustodySealed: pkcs11.ImportSealed}[c])
			if !ok || string(key.PublicKey) != string(report.Public) {
				t.Errorf("custody %s: not the key that the transcript reports", c)
			}
		}
	}
	if _, err := b.reissue(t, "elsewhere"); !errors.Is(err, ErrCustody) {
		t.Errorf("%v", err)
	}
	// A ceremony without the keys of custody sealed cannot offer it.
	without := *record.Transcript
	without.Keys = nil
	for _, k := range record.Transcript.Keys {
		if _, sealing := k.Name.Period(); !sealing {
			without.Keys = append(without.Keys, k)
		}
	}
	if p, err := without.publishes(); err != nil || len(p.imports) != 1 {
		t.Errorf("%v, %v", p.imports, err)
	} else if _, err := p.offer(bothOffered); !errors.Is(err, ErrCustody) {
		t.Errorf("%v", err)
	}
	c := *b.ceremony
	c.Dir, c.CeremonyKey, c.Custodies = filepath.Join(b.beside, "other"), filepath.Join(b.beside, "other.key"), []policies.Custody{"elsewhere"}
	if _, err := c.Check(); !errors.Is(err, ErrCustody) {
		t.Errorf("%v", err)
	}
	c.Custodies = bothOffered
	plan, err := c.Check()
	if err != nil || !strings.Contains(strings.Join(plan, "\n"), "a copy that the host keeps of a revoked key dies only") {
		t.Errorf("the plan does not say what sealed means: %q, %v", plan, err)
	}
}

func (b *bench) next(t *testing.T) (*NewSealingKey, error) {
	t.Helper()
	pin, err := ReadPIN("file:"+filepath.Join(b.beside, "so.pin"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Zero()
	return (&NextSealingKey{Dir: b.dir, CeremonyKey: b.ceremony.CeremonyKey, Passphrase: []byte(testPassphrase), OfficerPIN: pin}).Run(t.Context())
}

// officer opens the token as security officer for the time of f.
func (b *bench) officer(t *testing.T, record *Record, f func(*pkcs11.Token)) {
	t.Helper()
	facts, err := softHSM.PKCS11("")
	if err != nil {
		t.Fatal(err)
	}
	token, err := pkcs11.Open(t.Context(), pkcs11.Config{Profile: facts, Selector: record.selector(), Role: pkcs11.Officer, PIN: b.ceremony.OfficerPIN, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	f(token)
}

// forgetSealing removes the file of a period's sealing key from SoftHSM's folder: the vault has destroyed it.
func (b *bench) forgetSealing(t *testing.T, period uint32) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(b.beside, "tokens", "*", "*.object"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		o := readObject(t, path)
		if label, ok := o.at[ckaLabel]; ok && string(o.data[label.start:label.end]) == string(pkcs11.SealingKey(period)) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no sealing key of period %d", period)
}

func TestNextSealingKey(t *testing.T) {
	b, record := held(t)
	verify := func() error {
		t.Helper()
		r, err := ReadRecord(b.dir)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Verify(t.Context(), "", b.pin(t), false)
		return err
	}
	made, err := b.next(t)
	if err != nil {
		t.Fatal(err)
	}
	if made.Period != 2 || made.Resumed || !reflect.DeepEqual(made.Before, []uint32{1}) || made.Record.Transcript.Version != 2 || record.Transcript.Version != 1 {
		t.Errorf("%+v, transcript version %d", made, made.Record.Transcript.Version)
	}
	if made.Record.TranscriptHash == record.TranscriptHash || made.Record.Vault.Version != 1 {
		t.Error("the transcript is the same, or the vault document is not")
	}
	if err := verify(); err != nil {
		t.Errorf("with two periods: %v", err)
	}
	// The transcript of before, put back by the host, does not list the new key.
	raw, err := os.ReadFile(filepath.Join(b.dir, transcriptFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := record.Verify(t.Context(), "", b.pin(t), false); !errors.Is(err, ErrDifferent) || !strings.Contains(err.Error(), "sallyport sealing 2") {
		t.Errorf("under the old transcript: %v", err)
	}
	b.forgetSealing(t, 1)
	if err := verify(); err != nil {
		t.Errorf("after the vault destroyed the first: %v", err)
	}

	// Killed between token and transcript: the next start refuses, the next run finishes.
	b.officer(t, record, func(token *pkcs11.Token) {
		if _, err := token.Generate(t.Context(), pkcs11.SealingKey(3)); err != nil {
			t.Fatal(err)
		}
	})
	if err := verify(); !errors.Is(err, ErrDifferent) || !strings.Contains(err.Error(), "sallyport-hsm sealing-key was cut short; run it again") {
		t.Errorf("an unlisted sealing key: %v", err)
	}
	if made, err = b.next(t); err != nil || made.Period != 3 || !made.Resumed || made.Record.Transcript.Version != 3 {
		t.Fatalf("%+v, %v", made, err)
	}
	if err := verify(); err != nil {
		t.Errorf("after it was finished: %v", err)
	}
	b.forgetSealing(t, 2)
	b.forgetSealing(t, 3)
	if err := verify(); !errors.Is(err, ErrDifferent) || !errors.Is(err, pkcs11.ErrKeyMissing) || !strings.Contains(err.Error(), "sallyport sealing 3") {
		t.Errorf("without the newest: %v", err)
	}
	// A period is never used twice, also where its key is gone: this is the way out for a vault that lost its newest key.
	if made, err = b.next(t); err != nil || made.Period != 4 || made.Resumed || len(made.Before) != 0 {
		t.Fatalf("%+v, %v", made, err)
	}
	if err := verify(); err != nil {
		t.Error(err)
	}

	// Refusals change nothing.
	after, err := os.ReadFile(filepath.Join(b.dir, transcriptFile))
	if err != nil || string(after) == string(raw) {
		t.Fatal(err)
	}
	b.officer(t, record, func(token *pkcs11.Token) {
		if _, err := token.Generate(t.Context(), pkcs11.SealingKey(9)); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := b.next(t); !errors.Is(err, ErrDifferent) || !strings.Contains(err.Error(), "sallyport sealing 9") {
		t.Errorf("a sealing key out of turn: %v", err)
	}
	b.forgetSealing(t, 9)
	wrong := NextSealingKey{Dir: b.dir, CeremonyKey: b.ceremony.CeremonyKey, Passphrase: []byte("something else"), OfficerPIN: b.ceremony.OfficerPIN}
	if _, err := wrong.Run(t.Context()); !errors.Is(err, ErrPassphrase) {
		t.Errorf("%v", err)
	}
	wrong.Passphrase, wrong.OfficerPIN = []byte(testPassphrase), pkcs11.NewSecret([]byte("wrong-0000"))
	if _, err := wrong.Run(t.Context()); !errors.Is(err, pkcs11.ErrPINIncorrect) {
		t.Errorf("%v", err)
	}
	_, key, unlock, err := openFolder(b.dir, b.ceremony.CeremonyKey, []byte(testPassphrase))
	if err != nil {
		t.Fatal(err)
	}
	key.Zero()
	if _, err := b.next(t); !errors.Is(err, ErrBusy) {
		t.Errorf("two at once: %v", err)
	}
	unlock()
	if now, err := os.ReadFile(filepath.Join(b.dir, transcriptFile)); err != nil || string(now) != string(after) {
		t.Errorf("a refused run changed the transcript: %v", err)
	}
	if err := verify(); err != nil {
		t.Error(err)
	}
}

// A key that the user calls a sealing key is not one: the user cannot make it trusted. A start passes over it, and the vault counts it. The officer's next
// key does not get the name of one, and nothing is left of the try.
func TestFalseSealingKey(t *testing.T) {
	b, record := held(t)
	real := b.objects(t)[pkcs11.SealingKey(1)]
	changed := bytes.Clone(real.data)
	label := real.at[ckaLabel]
	copy(changed[label.start:label.end], pkcs11.SealingKey(2))
	twin := filepath.Join(filepath.Dir(real.path), "00000000-0000-0000-0000-000000000002.object")
	verify := func(trusted byte) error {
		t.Helper()
		changed[real.at[ckaTrusted].start] = trusted
		if err := os.WriteFile(twin, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := record.Verify(t.Context(), "", b.pin(t), false)
		return err
	}
	if err := verify(0xff); !errors.Is(err, ErrDifferent) { // which is what a run that was cut short leaves: TestNextSealingKey
		t.Errorf("trusted, at a start: %v", err)
	}
	if err := verify(0); err != nil {
		t.Errorf("not trusted, at a start: %v", err)
	}
	if _, err := b.next(t); !errors.Is(err, pkcs11.ErrAttributes) || !strings.Contains(err.Error(), "CKA_TRUSTED") {
		t.Errorf("a key that the user made was listed as a sealing key: %v", err)
	}
	if err := os.Remove(twin); err != nil {
		t.Fatal(err)
	}
	if made, err := b.next(t); err != nil || made.Period != 2 || made.Resumed {
		t.Errorf("without it: %+v, %v", made, err)
	}
}
