package hardware

import (
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/links"
)

func TestCeremony(t *testing.T) {
	b, record := held(t)

	t.Run("folder", func(t *testing.T) {
		want := map[string]os.FileMode{vaultFile: 0o644, transcriptFile: 0o644, secretsFile: 0o600, joinTextFile: 0o644, joinImageFile: 0o644}
		entries, err := os.ReadDir(b.dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != len(want) {
			t.Errorf("folder holds %v", entries)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			if want[e.Name()] != info.Mode().Perm() {
				t.Errorf("%s has mode %o, want %o", e.Name(), info.Mode().Perm(), want[e.Name()])
			}
		}
		for path, mode := range map[string]os.FileMode{b.dir: 0o700, b.ceremony.CeremonyKey: 0o600} {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != mode {
				t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), mode)
			}
		}
		image, err := os.Open(filepath.Join(b.dir, joinImageFile))
		if err != nil {
			t.Fatal(err)
		}
		defer image.Close()
		if _, err := png.Decode(image); err != nil {
			t.Error(err)
		}
	})

	t.Run("a client pins it", func(t *testing.T) {
		text, err := os.ReadFile(filepath.Join(b.dir, joinTextFile))
		if err != nil {
			t.Fatal(err)
		}
		link, err := links.ParseJoin(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := policies.OpenVault(record.Envelope, link.Vault, link.Ceremony, 0)
		if err != nil {
			t.Fatal(err)
		}
		if link.Storefront != "https://store.example" || link.Owners != "https://vault.example:8443" {
			t.Errorf("link is %s", link)
		}
		if doc.Version != 1 || doc.DevMode || len(doc.Tokens) != 1 || doc.Tokens[0].Grade != string(pkcs11.GradeA) || len(doc.Tokens[0].ImportKeys) != 1 {
			t.Errorf("vault document: %+v", doc)
		}
		if want := "sallyport/" + doc.Vault.String()[:16]; doc.LogKey.Name != want {
			t.Errorf("log key is called %q, want %q", doc.LogKey.Name, want)
		}
		if want := doc.LogKey.Name + "/host"; doc.LogHostKey.Name != want || doc.LogHostKey.Algorithm != "ML-DSA-44" {
			t.Errorf("the host's log key is called %q (%s), want %q", doc.LogHostKey.Name, doc.LogHostKey.Algorithm, want)
		}
		k, ok := doc.ImportKey(doc.Tokens[0].Serial, policies.CustodyResident)
		if !ok || k.Path != "oaep-direct" || k.OAEPHash != "SHA-1" {
			t.Errorf("import key %+v", k)
		}
		key, err := x509.ParsePKIXPublicKey(k.PublicKey)
		if rsaKey, ok := key.(*rsa.PublicKey); err != nil || !ok || rsaKey.N.BitLen() != 3072 || rsaKey.E != 65537 {
			t.Errorf("import key is %T, %v", key, err)
		}
	})

	t.Run("the token signs with the published log key", func(t *testing.T) {
		facts, err := softHSM.PKCS11("")
		if err != nil {
			t.Fatal(err)
		}
		token, err := pkcs11.Open(t.Context(), pkcs11.Config{Profile: facts, Selector: record.selector(), PIN: b.pin(t), Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer token.Close()
		sig, err := token.Sign(t.Context(), []byte("message"))
		if err != nil || !ed25519.Verify(record.Vault.LogKey.PublicKey, []byte("message"), sig) {
			t.Errorf("signature does not verify: %v", err)
		}
	})

	t.Run("verify", func(t *testing.T) {
		found, err := record.Verify(t.Context(), "", b.pin(t), false)
		if err != nil {
			t.Fatal(err)
		}
		if len(found.Keys) != 5 || len(found.Derives) != 4 || len(found.Points) == 0 {
			t.Errorf("findings %+v", found)
		}
	})

	t.Run("graded", func(t *testing.T) {
		p := record.Transcript.Probe
		if record.Grade() != pkcs11.GradeA || p == nil || p.Attacks < 300 || p.Refused < 250 || p.Why == "" {
			t.Errorf("grade %s, %+v", record.Grade(), p)
		}
		for _, f := range p.Findings {
			if f.Effect != pkcs11.ToKnow || f.Says == "" {
				t.Errorf("%+v", f)
			}
		}
	})
	t.Run("attributes as SoftHSM's own files have them", func(t *testing.T) { testAttributes(t, b) })
	t.Run("transcript", func(t *testing.T) { testTranscript(t, record) })
	t.Run("a second ceremony", func(t *testing.T) { testSecondCeremony(t, b) })
}

func testTranscript(t *testing.T, record *Record) {
	for key, want := range attributes {
		r, ok := record.Transcript.key(key)
		if !ok {
			t.Errorf("no report of %q", key)
			continue
		}
		seen := map[string]string{}
		for _, a := range r.Attributes {
			seen[a.Name] = a.Value
		}
		for typ, value := range want {
			if name := names[typ]; typ != ckaClass && seen[name] != value { // by its class the key was found
				t.Errorf("%s: transcript says %s is %q, want %q", key, name, seen[name], value)
			}
		}
	}
	for _, name := range []pkcs11.KeyName{pkcs11.ImportResident, pkcs11.ImportSealed} {
		// The ceremony itself tries to unwrap with each attribute of the template turned or left out.
		r, _ := record.Transcript.key(name)
		for _, typ := range []uint64{ckaClass, ckaKeyType, ckaToken, ckaPrivate, ckaSensitive, ckaExtractable, ckaDerive, ckaSign, ckaSignRecover,
			ckaDecrypt, ckaUnwrap, ckaCopyable, ckaAllowed} {
			if !slices.ContainsFunc(r.Proofs, func(p string) bool {
				return strings.HasPrefix(p, "unwrap with other "+names[typ]+": refused")
			}) {
				t.Errorf("%s: no proof that a lax %s is refused: %q", name, names[typ], r.Proofs)
			}
		}
	}
	if m := record.Transcript.Module; m.Path != softHSM.installed() || m.SHA256.IsZero() {
		t.Errorf("module %+v", m)
	}
	if f := record.Transcript.Facts; f.Module != "" || f.Folder != "" {
		t.Errorf("the transcript carries this host's paths as facts: %+v", f)
	}
}

func testSecondCeremony(t *testing.T, b *bench) {
	c := *b.ceremony
	if _, err := c.Check(); !errors.Is(err, ErrFolder) {
		t.Errorf("into the same folder: %v", err)
	}
	c.Dir = filepath.Join(b.beside, "second")
	if _, err := c.Check(); !errors.Is(err, ErrFolder) {
		t.Errorf("over the same ceremony key: %v", err)
	}
	c.CeremonyKey = filepath.Join(b.beside, "second.key")
	_, err := c.Run(t.Context())
	if !errors.Is(err, ErrNotEmpty) || !errors.Is(err, pkcs11.ErrTokenExists) || !strings.Contains(err.Error(), "softhsm2-util --delete-token") {
		t.Errorf("on the same token: %v", err)
	}
	for _, path := range []string{c.Dir, c.CeremonyKey} {
		if exists(path) {
			t.Errorf("the refused ceremony left %s", path)
		}
	}
	if _, err := ReadRecord(b.dir); err != nil {
		t.Errorf("the first ceremony: %v", err)
	}
}

// A ceremony that is killed as any step begins is refused by every later use of its folder, is diagnosed by a rerun with
// what to do, and what the rerun says works.
func TestKilledCeremony(t *testing.T) {
	steps := []string{stepKey, stepToken, stepSealing, stepImport, stepSealed, stepLog, stepStore, stepSecrets, stepProbe, stepSign, stepCheck, stepJoin}
	for i, step := range steps {
		t.Run(step, func(t *testing.T) {
			b := newBench(t)
			child := exec.CommandContext(t.Context(), os.Args[0])
			child.Env = append(os.Environ(), die+"="+step, "SALLYPORT_TEST_BESIDE="+b.beside)
			out, err := child.CombinedOutput()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child was not killed: %v\n%s", err, out)
			}
			if _, err := ReadRecord(b.dir); !errors.Is(err, ErrUnfinished) {
				t.Errorf("reading the folder: %v", err)
			}
			_, err = b.ceremony.Run(t.Context())
			stopped, ok := errors.AsType[*UnfinishedError](err)
			if !ok {
				t.Fatalf("a rerun says %v", err)
			}
			if stopped.Step != step || stopped.Label != testLabel || stopped.Cause != nil || (stopped.Serial != "") != (i > 1) {
				t.Errorf("a rerun says %+v", stopped)
			}
			for _, want := range []string{step, "--delete-token", b.dir, stopped.CeremonyKey, stopped.Serial} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("a rerun does not say %q: %v", want, err)
				}
			}
			// Do as it says.
			if stopped.Serial != "" {
				if out, err := exec.Command("softhsm2-util", "--delete-token", "--serial", stopped.Serial).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			if err := os.RemoveAll(b.dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(stopped.CeremonyKey); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if _, err := b.ceremony.Check(); err != nil {
				t.Errorf("after cleaning: %v", err)
			}
			if step == stepJoin {
				if _, err := b.ceremony.Run(t.Context()); err != nil {
					t.Errorf("after cleaning: %v", err)
				}
			}
		})
	}
}

// A ceremony that fails after the token has PINs says where, why, and how to clean.
func TestFailedCeremony(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	b.ceremony.Progress = func(step string) {
		if step == stepLog {
			cancel()
		}
	}
	_, err := b.ceremony.Run(ctx)
	stopped, ok := errors.AsType[*UnfinishedError](err)
	if !ok || stopped.Step != stepLog || !errors.Is(err, context.Canceled) || stopped.Serial == "" {
		t.Fatalf("%v", err)
	}
	b.ceremony.Progress = nil
	if _, err := b.ceremony.Run(t.Context()); !errors.Is(err, ErrUnfinished) || errors.Is(err, context.Canceled) {
		t.Errorf("a rerun says %v", err)
	}
}

// A ceremony that is called off before the token is touched leaves nothing.
func TestCeremonyCalledOff(t *testing.T) {
	b := newBench(t)
	for _, last := range []string{"", stepKey, stepToken} {
		ctx, cancel := context.WithCancel(t.Context())
		if last == "" { // at the prompt
			cancel()
		}
		var steps []string
		b.ceremony.Progress = func(step string) {
			if steps = append(steps, step); step == last {
				cancel()
			}
		}
		_, err := b.ceremony.Run(ctx)
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnfinished) || last != "" && steps[len(steps)-1] != last {
			t.Errorf("called off at %q, it went on to %q: %v", last, steps, err)
		}
		if exists(b.dir) || exists(b.ceremony.CeremonyKey) {
			t.Fatalf("called off at %q, it left something", last)
		}
	}
	if s := softHSM.Survey(t.Context(), ""); len(s.Tokens) != 1 || s.Tokens[0].Initialised {
		t.Errorf("the token was touched: %+v", s.Tokens)
	}
}

func TestCheckRefuses(t *testing.T) {
	b := newBench(t)
	full := filepath.Join(b.beside, "full")
	if err := os.MkdirAll(filepath.Join(full, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Ceremony)
		want   error
	}{
		"folder not empty":              {func(c *Ceremony) { c.Dir = full }, ErrFolder},
		"no folder":                     {func(c *Ceremony) { c.Dir = "" }, ErrFolder},
		"ceremony key in the folder":    {func(c *Ceremony) { c.CeremonyKey = filepath.Join(c.Dir, "key") }, ErrFolder},
		"ceremony key exists":           {func(c *Ceremony) { c.CeremonyKey = filepath.Join(b.beside, "user.pin") }, ErrFolder},
		"ceremony key's folder missing": {func(c *Ceremony) { c.CeremonyKey = filepath.Join(b.beside, "no", "key") }, ErrFolder},
		"no label":                      {func(c *Ceremony) { c.Label = "" }, ErrFolder},
		"long label":                    {func(c *Ceremony) { c.Label = strings.Repeat("x", 33) }, ErrFolder},
		"unknown profile":               {func(c *Ceremony) { c.Profile = "nothing" }, ErrUnsupported},
		"unsupported device":            {func(c *Ceremony) { c.Profile = "nethsm" }, ErrUnsupported},
		"no such module":                {func(c *Ceremony) { c.Module = "/nowhere.so" }, ErrModule},
		"plain http":                    {func(c *Ceremony) { c.Storefront = "http://store.example" }, policies.ErrMalformed},
		"not a URL":                     {func(c *Ceremony) { c.Owners = "vault.example" }, policies.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			changed := *b.ceremony
			c.change(&changed)
			if _, err := changed.Check(); !errors.Is(err, c.want) {
				t.Errorf("check says %v, want %v", err, c.want)
			}
			if _, err := changed.Run(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("run says %v, want %v", err, c.want)
			}
		})
	}
	if exists(b.dir) || exists(b.ceremony.CeremonyKey) {
		t.Error("a refused ceremony left something")
	}
	t.Run("short passphrase", func(t *testing.T) {
		c := *b.ceremony
		c.Passphrase = func() ([]byte, error) { return []byte("short"), nil }
		if _, err := c.Run(t.Context()); !errors.Is(err, ErrPassphrase) {
			t.Errorf("%v", err)
		}
		if exists(b.dir) || exists(c.CeremonyKey) {
			t.Error("something was left")
		}
	})
	t.Run("no such serial", func(t *testing.T) {
		c := *b.ceremony
		c.Serial = "0123456789abcdef"
		if _, err := c.Run(t.Context()); !errors.Is(err, pkcs11.ErrTokenMissing) || errors.Is(err, ErrNotEmpty) || strings.Contains(err.Error(), "delete") || !strings.Contains(err.Error(), c.Serial) {
			t.Errorf("%v", err)
		}
		if exists(b.dir) || exists(c.CeremonyKey) {
			t.Error("something was left")
		}
	})
}

func TestReissue(t *testing.T) {
	b, first := held(t)
	passphrase := []byte(testPassphrase)
	second, err := (&Reissue{Dir: b.dir, CeremonyKey: b.ceremony.CeremonyKey, Passphrase: passphrase, Storefront: "https://new.example"}).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	link, err := second.JoinLink(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	if link.Storefront != "https://new.example" || link.Owners != "https://vault.example:8443" {
		t.Errorf("link is %s", link)
	}
	doc, err := policies.OpenVault(second.Envelope, first.Vault.Vault, policies.HashKey(first.Vault.CeremonyKey), 2)
	if err != nil || doc.Version != 2 || doc.ID == first.Vault.ID {
		t.Errorf("%+v, %v", doc, err)
	}
	if _, err := policies.OpenVault(first.Envelope, first.Vault.Vault, policies.HashKey(first.Vault.CeremonyKey), 2); !errors.Is(err, policies.ErrPin) {
		t.Errorf("the first version after the second: %v", err)
	}
	if _, err := second.Verify(t.Context(), "", b.pin(t), false); err != nil {
		t.Error(err)
	}
	before, err := os.ReadFile(filepath.Join(b.dir, vaultFile))
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(b.beside, "other.key")
	if _, err := createCeremonyKey(other, passphrase, leastCost); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key, passphrase, url string
		want                 error
	}{
		"wrong passphrase": {b.ceremony.CeremonyKey, testPassphrase + "x", "", ErrPassphrase},
		"another key":      {other, testPassphrase, "", ErrCeremonyKey},
		"no key":           {filepath.Join(b.beside, "none"), testPassphrase, "", ErrCeremonyKey},
		"bad URL":          {b.ceremony.CeremonyKey, testPassphrase, "http://x.example", policies.ErrMalformed},
	} {
		if _, err := (&Reissue{Dir: b.dir, CeremonyKey: c.key, Passphrase: []byte(c.passphrase), Storefront: c.url}).Run(t.Context()); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	after, err := os.ReadFile(filepath.Join(b.dir, vaultFile))
	if err != nil || string(after) != string(before) {
		t.Errorf("a refused reissue changed the vault document: %v", err)
	}
}

// Whoever can write to the folder can stop the vault and no more.
func TestRecordRefuses(t *testing.T) {
	b, record := held(t)
	read := func(name string) []byte {
		raw, err := os.ReadFile(filepath.Join(b.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	key := envelope.NewPrivateKey(&[envelope.SeedSize]byte{1})
	resign := func(change func(*policies.VaultDocument)) []byte {
		doc := *record.Vault
		doc.CeremonyKey = key.Public().Bytes()
		change(&doc)
		e, err := policies.Sign(key, &doc)
		if err != nil {
			t.Fatal(err)
		}
		return e.Raw
	}
	flipped := append([]byte(nil), read(vaultFile)...)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		file string
		data []byte
	}{
		"vault document changed":          {vaultFile, flipped},
		"vault document cut":              {vaultFile, read(vaultFile)[:100]},
		"vault document by another key":   {vaultFile, resign(func(*policies.VaultDocument) {})},
		"transcript of nothing":           {transcriptFile, []byte("{}")},
		"vault document as transcript":    {transcriptFile, read(vaultFile)},
		"transcript as vault document":    {vaultFile, read(transcriptFile)},
		"marker":                          {unfinishedFile, []byte(`{"step":"x","label":"y","ceremony_key":"z","profile":"softhsm"}`)},
		"broken marker":                   {unfinishedFile, []byte(`{`)},
		"unknown member in the marker":    {unfinishedFile, []byte(`{"Step":"x"}`)},
		"transcript signed by a stranger": {transcriptFile, strangerTranscript(t, key, record)},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(b.dir, c.file)
			was, err := os.ReadFile(path)
			if err := os.WriteFile(path, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err != nil {
					os.Remove(path)
					return
				}
				if err := os.WriteFile(path, was, 0o600); err != nil {
					t.Fatal(err)
				}
			}()
			if _, err := ReadRecord(b.dir); !errors.Is(err, ErrFolder) && !errors.Is(err, ErrUnfinished) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("secrets of another vault", func(t *testing.T) {
		changed := *record
		changed.sealed = append([]byte(nil), record.sealed...)
		changed.sealed[20] ^= 1
		if _, err := changed.Verify(t.Context(), "", b.pin(t), false); !errors.Is(err, pkcs11.ErrBadInput) {
			t.Errorf("changed: %v", err)
		}
		doc := *record.Vault
		doc.Vault[0] ^= 1
		changed = *record
		changed.Vault = &doc
		if _, err := changed.Verify(t.Context(), "", b.pin(t), false); !errors.Is(err, pkcs11.ErrBadInput) {
			t.Errorf("of another vault: %v", err)
		}
		doc = *record.Vault
		doc.SessionKEM = doc.ImportHPKE
		if _, err := changed.Verify(t.Context(), "", b.pin(t), false); !errors.Is(err, ErrFolder) {
			t.Errorf("of other public keys: %v", err)
		}
	})
	t.Run("join link of another vault", func(t *testing.T) {
		link, err := record.JoinLink(b.dir)
		if err != nil {
			t.Fatal(err)
		}
		link.Ceremony[0] ^= 1
		if err := writeJoin(b.dir, link); err != nil {
			t.Fatal(err)
		}
		if _, err := record.JoinLink(b.dir); !errors.Is(err, ErrFolder) {
			t.Errorf("%v", err)
		}
	})
}

func strangerTranscript(t *testing.T, key *envelope.PrivateKey, record *Record) []byte {
	e, err := policies.Sign(key, record.Transcript)
	if err != nil {
		t.Fatal(err)
	}
	return e.Raw
}

// The host can make an RSA key of its own and serve a vault document that names it. It cannot sign as the ceremony, so what
// clients pinned refuses it.
func TestOwnImportKey(t *testing.T) {
	_, record := held(t)
	private, err := rsa.GenerateKey(nil, 3072)
	if err != nil {
		t.Fatal(err)
	}
	own, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pin := policies.HashKey(record.Vault.CeremonyKey)
	key := envelope.NewPrivateKey(&[envelope.SeedSize]byte{2})
	forge := func(ceremony []byte) *envelope.Envelope {
		doc := *record.Vault
		doc.CeremonyKey = ceremony
		doc.Version = 99
		doc.Tokens = []policies.TokenEntry{doc.Tokens[0]}
		doc.Tokens[0].ImportKeys = []policies.ImportKey{{Custody: policies.CustodyResident, Path: "oaep-direct", OAEPHash: "SHA-1", PublicKey: own}}
		e, err := policies.Sign(key, &doc)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if _, err := policies.OpenVault(forge(key.Public().Bytes()), record.Vault.Vault, pin, 1); !errors.Is(err, policies.ErrPin) {
		t.Errorf("signed by the host's own key: %v", err)
	}
	if _, err := policies.OpenVault(forge(record.Vault.CeremonyKey), record.Vault.Vault, pin, 1); !errors.Is(err, policies.ErrSignature) {
		t.Errorf("in the ceremony's name: %v", err)
	}
	if _, err := policies.OpenVault(record.Envelope, record.Vault.Vault, pin, 1); err != nil {
		t.Errorf("the real one: %v", err)
	}
}

// A wrong PIN is sent to the token exactly once. pkcs11-spy, between Sallyport and SoftHSM, is the witness.
func TestWrongPINOnce(t *testing.T) {
	b, record := held(t)
	trace := filepath.Join(t.TempDir(), "trace")
	t.Setenv("PKCS11SPY", softHSM.installed())
	t.Setenv("PKCS11SPY_OUTPUT", trace)
	spy := spyModule(t)
	logins := func() int {
		raw, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(raw), ": C_Login")
	}
	if _, err := record.Verify(t.Context(), spy, b.pin(t), false); err != nil {
		t.Fatal(err)
	}
	if n := logins(); n != 1 {
		t.Fatalf("%d calls of C_Login with the right PIN, want 1: is the trace read rightly?", n)
	}
	wrong := pkcs11.NewSecret([]byte("wrong-0000"))
	if _, err := record.Verify(t.Context(), spy, wrong, false); !errors.Is(err, pkcs11.ErrPINIncorrect) {
		t.Errorf("%v", err)
	}
	if n := logins(); n != 2 {
		t.Errorf("%d calls of C_Login for one wrong PIN, want 1", n-1)
	}
	// And the right one still opens: nothing was locked.
	if _, err := record.Verify(t.Context(), "", b.pin(t), false); err != nil {
		t.Error(err)
	}
}

func TestDevelopmentVault(t *testing.T) {
	b := newBench(t)
	b.ceremony.Development = true
	record, err := b.ceremony.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !record.Vault.DevMode || !record.Transcript.DevMode {
		t.Error("not marked")
	}
	if _, err := record.Verify(t.Context(), "", b.pin(t), false); !errors.Is(err, ErrDevelopment) {
		t.Errorf("%v", err)
	}
	if _, err := record.Verify(t.Context(), "", b.pin(t), true); err != nil {
		t.Error(err)
	}
	again, err := (&Reissue{Dir: b.dir, CeremonyKey: b.ceremony.CeremonyKey, Passphrase: []byte(testPassphrase)}).Run(t.Context())
	if err != nil || !again.Vault.DevMode {
		t.Errorf("a new version must stay one of development: %v", err)
	}
}

// spyModule is where OpenSC's pkcs11-spy lies.
func spyModule(t *testing.T) string {
	t.Helper()
	for _, pattern := range []string{"/usr/lib/*/pkcs11-spy.so", "/usr/lib/*/pkcs11/pkcs11-spy.so", "/usr/lib/pkcs11-spy.so", "/usr/lib64/pkcs11/pkcs11-spy.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatal("pkcs11-spy is not installed; the package opensc-pkcs11 has it")
	return ""
}
