package profile

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"

	"golang.org/x/sys/unix"
)

func phrase(t testing.TB, text string) *Secret {
	t.Helper()
	s, err := Passphrase([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// saved makes a profile with a state under a key file, which is quick.
func saved(t testing.TB) (dir string, secret *Secret) {
	t.Helper()
	secret, err := NewKeyFile(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "profile")
	p, err := Create(dir, secret)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Save([]byte("the state")); err != nil {
		t.Fatal(err)
	}
	return dir, secret
}

func TestPassphrase(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	p, err := Create(dir, phrase(t, "correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if state, err := p.Load(); state != nil || err != nil {
		t.Errorf("a new profile loads %q, %v", state, err)
	}
	for i := range 3 {
		if err := p.Save(fmt.Appendf(nil, "state %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	p.Close()
	if _, err := Open(dir, phrase(t, "correct horsf")); !errors.Is(err, ErrUnlock) {
		t.Errorf("a wrong passphrase: %v", err)
	}
	if _, err := Create(dir, phrase(t, "x")); !errors.Is(err, ErrExists) {
		t.Errorf("creating twice: %v", err)
	}
	p, err = Open(dir, phrase(t, "correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if state, err := p.Load(); string(state) != "state 2" || err != nil {
		t.Errorf("loaded %q, %v", state, err)
	}
	raw, _ := os.ReadFile(filepath.Join(dir, stateName))
	if bytes.Contains(raw, []byte("state 2")) || !bytes.Contains(raw, []byte("argon2id")) {
		t.Error("the state is not sealed, or does not say how")
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %o", info.Mode().Perm())
	}
	if info, _ := os.Stat(filepath.Join(dir, stateName)); info.Mode().Perm() != 0o600 {
		t.Errorf("the state has mode %o", info.Mode().Perm())
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".new-*")); len(left) != 0 {
		t.Errorf("temporary files are left: %v", left)
	}
	if _, err := Passphrase(nil); err == nil {
		t.Error("an empty passphrase was accepted")
	}
}

// Every flipped bit and every truncation of the state is noticed.
func TestDamage(t *testing.T) {
	dir, secret := saved(t)
	path := filepath.Join(dir, stateName)
	good, _ := os.ReadFile(path)
	try := func(what string, data []byte) {
		t.Helper()
		os.WriteFile(path, data, 0o600)
		p, err := Open(dir, secret)
		if err == nil {
			p.Close()
			t.Errorf("%s: opened", what)
		} else if !errors.Is(err, ErrUnlock) && !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			try(fmt.Sprintf("bit %d of byte %d", bit, i), bad)
		}
		try(fmt.Sprintf("cut to %d bytes", i), good[:i])
	}
	try("a byte more", append(bytes.Clone(good), 0))
	os.WriteFile(path, good, 0o600)
	if p, err := Open(dir, secret); err != nil {
		t.Errorf("the undamaged state: %v", err)
	} else {
		p.Close()
	}
}

func TestHeaderBounds(t *testing.T) {
	salts := `,"salt":"AAAAAAAAAAAAAAAAAAAAAA==","file_salt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`
	for name, h := range map[string]string{
		"weak time":       `{"kdf":"argon2id","time":2,"memory_kib":65536,"lanes":4` + salts,
		"weak memory":     `{"kdf":"argon2id","time":3,"memory_kib":65535,"lanes":4` + salts,
		"no lanes":        `{"kdf":"argon2id","time":3,"memory_kib":65536` + salts,
		"endless":         `{"kdf":"argon2id","time":4000000000,"memory_kib":65536,"lanes":4` + salts,
		"all memory":      `{"kdf":"argon2id","time":3,"memory_kib":4000000000,"lanes":4` + salts,
		"another kdf":     `{"kdf":"none"` + salts,
		"unknown member":  `{"kdf":"key-file","x":1` + salts,
		"short salt":      `{"kdf":"key-file","salt":"AA==","file_salt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`,
		"key file, tuned": `{"kdf":"key-file","time":3` + salts,
	} {
		if _, err := Unseal(phrase(t, "x"), []byte(magic+h+"\nabc")); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKindsOfSecret(t *testing.T) {
	dir, secret := saved(t)
	if _, err := Open(dir, phrase(t, "x")); !errors.Is(err, ErrUnlock) || !strings.Contains(err.Error(), "key file") {
		t.Errorf("a passphrase for a key file: %v", err)
	}
	other, err := NewKeyFile(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, other); !errors.Is(err, ErrUnlock) {
		t.Errorf("another key file: %v", err)
	}
	for _, text := range []string{fmt.Sprint(secret), fmt.Sprintf("%+v %#v %x %s", secret, secret, secret, secret), fmt.Sprintf("%v %+v %#v %x %s", *secret, *secret, *secret, *secret, *secret), slog.AnyValue(secret).Resolve().String()} {
		if !strings.Contains(text, "redacted") || strings.Contains(text, fmt.Sprintf("%x", secret.bytes[:4])) || strings.Contains(text, fmt.Sprintf("%d %d", secret.bytes[0], secret.bytes[1])) {
			t.Errorf("a secret prints as %q", text)
		}
	}
}

func TestExposed(t *testing.T) {
	dir, secret := saved(t)
	os.Chmod(dir, 0o750)
	if _, err := Open(dir, secret); !errors.Is(err, ErrExposed) {
		t.Errorf("a folder that others may read: %v", err)
	}
	key := filepath.Join(t.TempDir(), "key")
	if _, err := NewKeyFile(key); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		os.Chmod(key, mode)
		if _, err := KeyFile(key); !errors.Is(err, ErrExposed) {
			t.Errorf("a key file of mode %o: %v", mode, err)
		}
	}
	os.Chmod(key, 0o600)
	os.WriteFile(key, make([]byte, 32), 0o600)
	if _, err := KeyFile(key); !errors.Is(err, ErrFormat) {
		t.Errorf("a key file of zeroes: %v", err)
	}
	os.WriteFile(key, make([]byte, 33), 0o600)
	if _, err := KeyFile(key); !errors.Is(err, ErrFormat) {
		t.Errorf("a key file that is too long: %v", err)
	}
}

func TestLock(t *testing.T) {
	dir, secret := saved(t)
	p, err := Open(dir, secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, secret); !errors.Is(err, ErrBusy) {
		t.Errorf("opened twice: %v", err)
	}
	p.Close()
	if p, err = Open(dir, secret); err != nil {
		t.Fatalf("after closing: %v", err)
	}
	p.Close()
	if _, err := Open(t.TempDir(), secret); !errors.Is(err, ErrMissing) {
		t.Errorf("no profile: %v", err)
	}
}

func TestMirror(t *testing.T) {
	dir, secret := saved(t)
	p, err := Open(dir, secret)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	a, b := []byte("ciphertext a"), []byte("ciphertext b")
	ha, hb := policies.HashKey(a), policies.HashKey(b)
	for range 2 {
		if err := errors.Join(p.PutItem(ha, a), p.PutItem(hb, b)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := p.Item(ha); !bytes.Equal(got, a) || err != nil {
		t.Errorf("item: %q, %v", got, err)
	}
	os.WriteFile(p.itemPath(hb), []byte("something else"), 0o600)
	if _, err := p.Item(hb); !errors.Is(err, ErrNoItem) {
		t.Errorf("a changed file: %v", err)
	}
	if err := p.PutItem(hb, b); err != nil {
		t.Fatal(err)
	}
	if err := p.KeepItems(map[policies.Hash]bool{hb: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Item(ha); !errors.Is(err, ErrNoItem) {
		t.Errorf("an item that nobody names: %v", err)
	}
	if got, err := p.Item(hb); !bytes.Equal(got, b) || err != nil {
		t.Errorf("an item that is named: %q, %v", got, err)
	}
}

// TestDiscard: a profile that is deleted takes nothing with it that it did not make, such as a backup in its folder.
func TestDiscard(t *testing.T) {
	for _, foreign := range []string{"", "backup", "mirror/notes", "mirror/ab/photo", ".new-plan", "deep/state"} {
		dir, secret := saved(t)
		p, err := Open(dir, secret)
		if err != nil {
			t.Fatal(err)
		}
		item := []byte("ciphertext")
		if err := p.PutItem(policies.HashKey(item), item); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{".new-1234", ".safe-99", "safe", filepath.Join("mirror", policies.HashKey(item).String()[:2], ".new-7")} {
			if err := os.WriteFile(p.path(name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var want []string
		if foreign != "" {
			want = []string{strings.Split(foreign, "/")[0]}
			if err := errors.Join(os.MkdirAll(filepath.Dir(p.path(foreign)), 0o700), os.WriteFile(p.path(foreign), []byte("mine"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		left, err := p.Discard()
		if err != nil || !slices.Equal(left, want) {
			t.Errorf("with %q: %v, left %q", foreign, err, left)
		}
		if err := p.Save([]byte("again")); !errors.Is(err, ErrMissing) {
			t.Errorf("saved afterwards: %v", err)
		}
		if err := p.PutItem(policies.HashKey(item), item); !errors.Is(err, ErrMissing) {
			t.Errorf("mirrored afterwards: %v", err)
		}
		p.Close()
		var files []string
		_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, _ error) error {
			if e != nil && !e.IsDir() {
				files = append(files, strings.TrimPrefix(path, dir+"/"))
			}
			return nil
		})
		if _, err := os.Stat(dir); strings.Join(files, " ") != foreign || errors.Is(err, os.ErrNotExist) != (foreign == "") {
			t.Errorf("with %q: %q is left, and of the folder: %v", foreign, files, err)
		}
	}
}

func TestBackupOpensWithoutTheProfile(t *testing.T) {
	dir, secret := saved(t)
	p, err := Open(dir, secret)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := p.Seal([]byte("root"))
	p.Close()
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := Unseal(secret, sealed); string(plain) != "root" || err != nil {
		t.Errorf("unsealed %q, %v", plain, err)
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := Unseal(secret, sealed); !errors.Is(err, ErrUnlock) {
		t.Errorf("a flipped bit: %v", err)
	}
}

func FuzzSealed(f *testing.F) {
	dir, secret := saved(f)
	good, _ := os.ReadFile(filepath.Join(dir, stateName))
	f.Add(good)
	f.Add([]byte(magic))
	f.Add([]byte(magic + "{}\n"))
	f.Add([]byte(magic + `{"kdf":"argon2id","salt":"AAAAAAAAAAAAAAAAAAAAAA==","file_salt":""}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		plain, err := Unseal(secret, data)
		if err == nil && !(bytes.Equal(data, good) && string(plain) == "the state") {
			t.Errorf("opened something that was never sealed: %q", plain)
		}
	})
}

// TestSecretPipe: a secret's file that is a pipe is refused, and not waited for.
func TestSecretPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecretFile(pipe, 100); !errors.Is(err, ErrFormat) {
		t.Errorf("a pipe: %v", err)
	}
}

// TestWriteFileNames: what goes wrong with a file is told of that file, or of its folder, and not of the one that has another name until it is whole.
func TestWriteFileNames(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"no folder": filepath.Join(dir, "none", "file"), "a folder": filepath.Join(dir, "taken")} {
		if err := WriteFile(file, []byte("x")); err == nil || strings.Contains(err.Error(), ".new-") || !strings.Contains(err.Error(), filepath.Dir(file)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".new-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}
