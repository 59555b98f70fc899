package pkcs11

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ownFiles are the paths of the own file of the only token in a folder, and of the copy.
func ownFiles(t *testing.T, p Profile) (file, kept string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(p.Folder, "*", tokenFile))
	if err != nil || len(found) != 1 {
		t.Fatalf("%d tokens, %v", len(found), err)
	}
	return found[0], filepath.Join(filepath.Dir(found[0]), keptFile)
}

// TestTornTokenFile: a token whose own file a killed process left torn opens, with all its keys. What was changed since the copy was made by somebody else,
// and is whole, stays.
func TestTornTokenFile(t *testing.T) {
	token, public := ready(t, 1)
	key := newKey(t)
	id := newID()
	if err := token.Import(t.Context(), id, OAEPDirect, wrappedKey(t, public, key)); err != nil {
		t.Fatal(err)
	}
	p := token.profile
	again := func() error {
		t.Helper()
		if err := token.Close(); err != nil {
			t.Fatal(err)
		}
		opened, err := Open(t.Context(), Config{Profile: p, Selector: Selector{Label: testLabel}, PIN: pin(userPIN), Threads: 1})
		if err == nil {
			token = opened
		}
		return err
	}
	file, kept := ownFiles(t, p)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 7, 8, 20, len(whole) / 2, len(whole) - 1} {
		if err := os.WriteFile(file, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := again(); err != nil {
			t.Fatalf("torn after %d bytes: %v", size, err)
		}
		req, want := request(t, id, key)
		if r := token.Derive(t.Context(), []DeriveRequest{req})[0]; r.Err != nil || r.X != want {
			t.Errorf("torn after %d bytes: derive: %v", size, r.Err)
		}
	}
	// The copy follows what is whole: a PIN that was changed is not changed back.
	changed := bytes.Clone(whole)
	changed[len(changed)-1] ^= 1 // of the user's PIN
	if err := os.WriteFile(file, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := again(); err == nil {
		t.Error("the token opens with a PIN that it does not have")
	}
	if copied, err := os.ReadFile(kept); err != nil || !sameToken(copied, changed) {
		t.Errorf("the copy is of an older file (%v)", err)
	}
	// A copy that is torn too, or of another token, is not put back.
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, whole[:40], bytes.Replace(whole, []byte(testLabel), []byte(strings.Repeat("x", len(testLabel))), 1)} {
		if err := os.WriteFile(kept, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		opened, err := Open(t.Context(), Config{Profile: p, Selector: Selector{Label: testLabel}, PIN: pin(userPIN), Threads: 1})
		if !errors.Is(err, ErrTokenMissing) {
			t.Errorf("with a copy of %d bytes: %v", len(bad), err)
		}
		if err == nil {
			_ = opened.Close()
		}
		if left, err := os.ReadFile(file); err != nil || len(left) != 0 {
			t.Errorf("something was put back: %d bytes, %v", len(left), err)
		}
	}
}

// TestTokensOfOthers: what lies beside the token is not touched.
func TestTokensOfOthers(t *testing.T) {
	token, _ := ready(t, 1)
	p := token.profile
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	file, _ := ownFiles(t, p)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(p.Folder, "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	theirs := bytes.Replace(content, []byte(testLabel), []byte(strings.Repeat("y", len(testLabel))), 1)
	if err := os.WriteFile(filepath.Join(other, tokenFile), theirs, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.guard(Selector{Label: testLabel}); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(other)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files, %v", len(entries), err)
	}
}
