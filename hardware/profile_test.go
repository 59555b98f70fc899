package hardware

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/links"
)

func TestProfiles(t *testing.T) {
	for _, p := range Profiles() {
		if found, err := FindProfile(p.Name); err != nil || found.Name != p.Name {
			t.Errorf("%s: %v", p.Name, err)
		}
		if p.Erase == "" || p.Versions == "" || len(p.Modules) == 0 {
			t.Errorf("%s: what an operator must know is missing", p.Name)
		}
	}
	for _, u := range Unsupported() {
		if _, err := FindProfile(u.Name); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), u.Reason) {
			t.Errorf("%s: %v", u.Name, err)
		}
	}
}

func TestSoftHSMFolder(t *testing.T) {
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "conf")
	t.Setenv("SOFTHSM2_CONF", conf)
	for text, want := range map[string]string{
		"directories.tokendir = " + tokens:                         tokens,
		"# x\n\n  directories.tokendir=" + tokens + "  # here\nx=": tokens,
		"objectstore.backend = file":                               "",
		"directories.tokendir = " + conf:                           "", // a file
		"directories.tokendir = /nowhere":                          "",
		"":                                                         "",
	} {
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := softHSMFolder(); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	t.Setenv("SOFTHSM2_CONF", filepath.Join(dir, "none"))
	if _, err := softHSM.PKCS11(""); !errors.Is(err, ErrModule) {
		t.Errorf("without a configuration: %v", err)
	}
}

func TestSurvey(t *testing.T) {
	b, record := held(t)
	s := softHSM.Survey(t.Context(), "")
	if len(s.Faults) > 0 || s.Module == "" || s.SHA256.IsZero() || s.Version == "" || s.Folder != filepath.Join(b.beside, "tokens") {
		t.Errorf("%+v", s)
	}
	want := []Seen{
		{Label: testLabel, Serial: record.Transcript.Token.Serial, Model: record.Transcript.Token.Model, Initialised: true},
		{Model: record.Transcript.Token.Model},
	}
	if len(s.Tokens) != 2 || s.Tokens[0] != want[0] || s.Tokens[1] != want[1] {
		t.Errorf("tokens %+v", s.Tokens)
	}
	if s := softHSM.Survey(context.Background(), "/nowhere.so"); len(s.Faults) != 1 || s.Module != "" {
		t.Errorf("%+v", s)
	}
}

func FuzzSlots(f *testing.F) {
	f.Add("Available slots:\nSlot 0\n    Slot info:\n        Description:      x\n    Token info:\n        Model:            SoftHSM v2\n        Serial number:    ab\n        Initialized:      yes\n        Label:            l: m\nSlot 1\n")
	f.Add("Token info:\nLabel: x\nToken info:\n")
	f.Add("Label: before any token")
	f.Fuzz(func(t *testing.T, text string) {
		if n := len(parseSlots(text)); n > strings.Count(text, "Token info") {
			t.Errorf("%d tokens", n)
		}
	})
}

// The marker and the transcript are read by the strict decoder, whatever somebody put in their place.
func FuzzMarker(f *testing.F) {
	f.Add([]byte(`{"step":"making the log key","label":"x","ceremony_key":"/k","profile":"softhsm"}`))
	f.Add([]byte(`{"step":"x","step":"y"}`))
	f.Add([]byte(`null`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := os.WriteFile(filepath.Join(dir, unfinishedFile), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		err := unfinished(dir)
		if !errors.Is(err, ErrUnfinished) && !errors.Is(err, ErrFolder) {
			t.Errorf("a folder with a marker passes: %v", err)
		}
		_ = err.Error()
	})
}

func TestQRCode(t *testing.T) {
	link := links.Join{Vault: policies.VaultID{1}, Ceremony: policies.Hash{2}, Storefront: "https://store.example"}
	plain, err := QRCode(link, false)
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSuffix(plain, "\n"), "\n")
	width := len([]rune(rows[0]))
	if len(rows) != (width+1)/2 || width < 21+8 {
		t.Errorf("%d rows of %d", len(rows), width)
	}
	for i, row := range rows {
		r := []rune(row)
		if len(r) != width || strings.TrimSpace(string(r[:4]))+strings.TrimSpace(string(r[width-4:])) != "" {
			t.Errorf("row %d: %q", i, row)
		}
	}
	if strings.TrimSpace(rows[0]+rows[1]) != "" || strings.TrimSpace(rows[len(rows)-1]) != "" {
		t.Error("no quiet zone above and below")
	}
	// The finder pattern of the upper left corner: seven dark modules, then light.
	if got := string([]rune(rows[2])[4:12]); got != "█▀▀▀▀▀█ " {
		t.Errorf("corner %q", got)
	}
	coloured, err := QRCode(link, true)
	if err != nil || !strings.Contains(coloured, "\x1b[30;107m") || strings.Contains(plain, "\x1b") {
		t.Errorf("colours: %v", err)
	}
}
