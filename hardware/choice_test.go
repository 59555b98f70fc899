package hardware

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/hardware/pkcs11uri"
	"github.com/sallyport/sallyport/pkcs11"
)

func TestChooseToken(t *testing.T) {
	for _, c := range []struct {
		uri, module, pin         string
		wantModule, wantPIN, bad string
	}{
		{"", "/a.so", "file:/p", "/a.so", "file:/p", ""},
		{"", "", "", "", "", ""},
		{"pkcs11:token=a;serial=1", "/a.so", "file:/p", "/a.so", "file:/p", ""},
		{"pkcs11:serial=1?module-path=/a.so&pin-source=/p", "", "", "/a.so", "file:/p", ""},
		{"pkcs11:serial=1?module-path=/a.so&pin-source=file:/p", "/a.so", "file:/p", "/a.so", "file:/p", ""},
		{"pkcs11:?pin-source=file:///p%2520q", "", "", "", "file:/p q", ""},
		{"pkcs11:?pin-source=file://localhost/p", "", "", "", "file:/p", ""},
		{"pkcs11:?pin-source=credential:pin", "", "", "", "credential:pin", ""},
		{"pkcs11:?module-path=/a.so", "/b.so", "", "", "", "the library is said twice"},
		{"pkcs11:?pin-source=/p", "", "credential:pin", "", "", "where the PIN is is said twice"},
		{"pkcs11:?module-path=a.so", "", "", "", "", "absolute"},
		{"pkcs11:?pin-source=file://host/p", "", "", "", "", "no file on this machine"},
		{"pkcs11:?pin-source=%7C/usr/bin/pin", "", "", "", "", "nor a program"},
		{"pkcs11:?pin-source=73519", "", "", "", "", "never the PIN"},
		{"pkcs11:?pin-source=file:73519", "", "", "", "", "never the PIN"},
		{"pkcs11:?pin-value=73519", "", "", "", "", "must not hold a PIN"},
		{"pkcs11:slot-id=1", "", "", "", "", "slot-id"},
		{"pkcs11:library-version=1.0", "", "", "", "", "library-version"},
		{"pkcs11:object=key", "", "", "", "", "object"},
		{"pkcs11:token=a;object=", "", "", "", "", "object"},
		{"pkcs11:token=;serial=1", "", "", "", "", ""},
		{"pkcs11:?pin-source=", "", "", "", "", "pin-source is empty"},
		{"softhsm", "", "", "", "", "not a usable PKCS#11 URI"},
	} {
		got, err := ChooseToken(c.uri, c.module, c.pin)
		if c.bad != "" {
			if !errors.Is(err, ErrTokenChoice) || !strings.Contains(err.Error(), c.bad) || strings.Contains(err.Error(), "73519") {
				t.Errorf("%s: %v, want a word on %q", c.uri, err, c.bad)
			}
			continue
		}
		if err != nil || got.Module != c.wantModule || got.PIN != c.wantPIN {
			t.Errorf("%s: %+v, %v", c.uri, got, err)
		}
	}
}

func TestChoose(t *testing.T) {
	b, record := held(t)
	token := record.Transcript.Token
	choose := func(uri string) error {
		u, err := pkcs11uri.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		return record.Choose(u)
	}
	for _, uri := range []string{
		"pkcs11:token=someone%20else", "pkcs11:serial=0123456789abcdef", "pkcs11:manufacturer=SafeNet", "pkcs11:model=Luna",
		"pkcs11:token=sallyport%20test;serial=0123456789abcdef", "pkcs11:token=SALLYPORT%20TEST",
		"pkcs11:serial=", "pkcs11:token=", "pkcs11:manufacturer=", "pkcs11:model=",
	} {
		if err := choose(uri); !errors.Is(err, ErrTokenChoice) || !strings.Contains(err.Error(), token.Serial) {
			t.Errorf("%s: %v", uri, err)
		}
	}
	right := (&pkcs11uri.URI{Token: token.Label, Serial: token.Serial, Manufacturer: token.Manufacturer, Model: token.Model, ModuleName: "softhsm2"}).String()
	if err := choose(right); err != nil {
		t.Fatal(err)
	}
	if _, err := record.Verify(t.Context(), "", b.pin(t), false); err != nil {
		t.Errorf("%s: %v", right, err)
	}
	if err := choose("pkcs11:?module-name=cryptoki"); err != nil {
		t.Fatal(err)
	}
	if _, err := record.Verify(t.Context(), "", b.pin(t), false); !errors.Is(err, ErrTokenChoice) {
		t.Errorf("another library: %v", err)
	}
	var logs bytes.Buffer
	config := b.config(t, &logs)
	config.Token = &pkcs11uri.URI{Token: "someone else"}
	if _, err := Open(t.Context(), config); !errors.Is(err, ErrTokenChoice) {
		t.Errorf("%v", err)
	}

	// The token is gone and others are there: the error says which.
	softHSM := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("softhsm2-util", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	softHSM("--init-token", "--free", "--label", "another", "--so-pin", "11112222", "--pin", "33334444")
	softHSM("--init-token", "--free", "--label", token.Label, "--so-pin", "11112222", "--pin", "33334444") // a label is no name
	config.Token = &pkcs11uri.URI{Token: token.Label}
	d, err := Open(t.Context(), config)
	if err != nil {
		t.Fatalf("two tokens of one label, and the record knows the serial: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	softHSM("--delete-token", "--serial", token.Serial)
	_, err = Open(t.Context(), config)
	if !errors.Is(err, pkcs11.ErrTokenMissing) || !strings.Contains(err.Error(), `"another" (serial "`) || !strings.Contains(err.Error(), token.Serial) {
		t.Errorf("%v", err)
	}
	if strings.Contains(err.Error(), "33334444") {
		t.Errorf("the error has a PIN in it: %v", err)
	}
}

// A library that others can change is not loaded, wherever on its path they could.
func TestGuarded(t *testing.T) {
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{"safe", "open", "sticky", "group", "real"} {
		must(os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	must(os.Chmod(filepath.Join(dir, "open"), 0o777))
	must(os.Chmod(filepath.Join(dir, "sticky"), 0o777|os.ModeSticky))
	must(os.Chmod(filepath.Join(dir, "group"), 0o775))
	library := func(path string, mode os.FileMode) string {
		path = filepath.Join(dir, path)
		must(os.WriteFile(path, []byte("ELF"), 0o644))
		must(os.Chmod(path, mode))
		return path
	}
	link := func(path, target string) string {
		path = filepath.Join(dir, path)
		must(os.Symlink(target, path))
		return path
	}
	inOpen, real := library("open/lib.so", 0o644), library("real/lib.so", 0o644)
	inGroup := library("group/lib.so", 0o644)
	cases := map[string]struct {
		path string
		ok   bool
	}{
		"as it should be":                 {library("safe/lib.so", 0o644), true},
		"written by everybody":            {library("safe/open.so", 0o646), false},
		"a folder of everybody":           {inOpen, false},
		"a folder like /tmp":              {library("sticky/lib.so", 0o755), true},
		"a link":                          {link("safe/link.so", real), true},
		"a relative link":                 {link("safe/relative.so", "../real/lib.so"), true},
		"a link in a folder of everybody": {link("open/link.so", real), false},
		"a link to a folder of everybody": {link("safe/out.so", inOpen), false},
		"a folder that is a link":         {filepath.Join(link("safe/folder", filepath.Join(dir, "real")), "lib.so"), true},
		"a link to itself":                {link("safe/loop.so", "loop.so"), false},
		"missing":                         {filepath.Join(dir, "safe/none.so"), false},
	}
	if os.Geteuid() == 0 { // else every group of this user's is as good as another's
		const staff = 50
		must(os.Chown(filepath.Join(dir, "group"), 0, staff))
		foreign := library("safe/foreign.so", 0o644)
		must(os.Chown(foreign, 4242, 0))
		cases["a folder of a group"] = struct {
			path string
			ok   bool
		}{inGroup, false}
		cases["of another user"] = struct {
			path string
			ok   bool
		}{foreign, false}
	}
	for name, c := range cases {
		if err := guarded(c.path); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrModule) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := softHSM.PKCS11(inOpen); !errors.Is(err, ErrModule) || !strings.Contains(err.Error(), "chmod o-w") {
		t.Errorf("%v", err)
	}
}
