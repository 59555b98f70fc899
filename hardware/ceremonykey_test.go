package hardware

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies/envelope"
)

func TestCeremonyKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	more := leastCost
	more.time++ // so that the table below can take one away
	key, err := createCeremonyKey(path, []byte(testPassphrase), more)
	if err != nil {
		t.Fatal(err)
	}
	public := key.Public().Bytes()
	opened, err := openCeremonyKey(path, []byte(testPassphrase), public)
	if err != nil || !bytes.Equal(opened.Public().Bytes(), public) {
		t.Fatalf("%v", err)
	}
	if _, err := createCeremonyKey(path, []byte(testPassphrase), leastCost); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a key that exists: %v", err)
	}
	if _, err := openCeremonyKey(path, []byte(testPassphrase+"."), public); !errors.Is(err, ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parseKeyFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	if f.MemoryKiB != more.memoryKiB || f.Time != more.time || f.Threads != more.threads {
		t.Errorf("a guess costs %d KiB, %d passes, %d threads", f.MemoryKiB, f.Time, f.Threads)
	}
	for name, c := range map[string]struct {
		run  run
		want cost
	}{
		"real":        {run{Ceremony: &Ceremony{}}, cost{3, 256 << 10, 4}},
		"development": {run{Ceremony: &Ceremony{Development: true}}, leastCost},
	} {
		if got := c.run.guess(); got != c.want {
			t.Errorf("%s: a guess costs %+v", name, got)
		}
	}
	// Whatever is changed in the file, it does not open, or opens nothing else.
	for name, change := range map[string]func(*keyFile){
		"salt":     func(f *keyFile) { f.Salt[0] ^= 1 },
		"nonce":    func(f *keyFile) { f.Nonce[0] ^= 1 },
		"sealed":   func(f *keyFile) { f.Sealed[0] ^= 1 },
		"time":     func(f *keyFile) { f.Time-- },
		"threads":  func(f *keyFile) { f.Threads++ },
		"memory":   func(f *keyFile) { f.MemoryKiB++ },
		"weak":     func(f *keyFile) { f.MemoryKiB = 8 },
		"greedy":   func(f *keyFile) { f.MemoryKiB = 1 << 31 },
		"slow":     func(f *keyFile) { f.Time = 1 << 31 },
		"kdf":      func(f *keyFile) { f.KDF = "pbkdf2" },
		"suite":    func(f *keyFile) { f.Suite = "SP0" },
		"public":   func(f *keyFile) { f.PublicKey[0] ^= 1 },
		"cut":      func(f *keyFile) { f.Sealed = f.Sealed[1:] },
		"no bytes": func(f *keyFile) { f.Salt = nil },
	} {
		changed, err := parseKeyFile(raw)
		if err != nil {
			t.Fatal(err)
		}
		change(changed)
		b, err := json.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openCeremonyKey(path, []byte(testPassphrase), public); !errors.Is(err, ErrPassphrase) && !errors.Is(err, ErrCeremonyKey) {
			t.Errorf("%s changed: %v", name, err)
		}
	}
}

func FuzzKeyFile(f *testing.F) {
	good, err := json.Marshal(keyFile{
		Type: keyFileType, Suite: "SP1", KDF: "argon2id", Time: fullCost.time, MemoryKiB: fullCost.memoryKiB, Threads: fullCost.threads,
		PublicKey: make([]byte, envelope.PublicKeySize), Salt: make([]byte, saltSize), Nonce: make([]byte, nonceSize), Sealed: make([]byte, envelope.SeedSize+tagSize),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("{}"))
	f.Add(bytes.Replace(good, []byte("argon2id"), []byte("none"), 1))
	f.Fuzz(func(t *testing.T, raw []byte) {
		k, err := parseKeyFile(raw)
		if err != nil {
			if !errors.Is(err, ErrCeremonyKey) {
				t.Errorf("%v", err)
			}
			return
		}
		if k.MemoryKiB > kdfMaxMemoryKiB || k.Time > kdfMaxTime || len(k.Sealed) != envelope.SeedSize+tagSize {
			t.Errorf("accepted %+v", k)
		}
	})
}
