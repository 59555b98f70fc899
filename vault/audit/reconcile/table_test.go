package reconcile

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table into README.md")

// TestTable: there is a rule for each function that package cryptoki calls, and for no other.
func TestTable(t *testing.T) {
	source, err := os.ReadFile("../../../pkcs11/internal/cryptoki/cryptoki.go")
	if err != nil {
		t.Fatal(err)
	}
	_, list, ok := strings.Cut(string(source), "var names = [functions]string{")
	list, _, closed := strings.Cut(list, "\n}")
	if !ok || !closed {
		t.Fatal("package cryptoki does not list its functions any more where this test looks")
	}
	called := regexp.MustCompile(`C_\w+`).FindAllString(list, -1)
	var ruled []string
	for _, r := range Table() {
		ruled = append(ruled, r.Function)
		if r.Use == "" || r.Entry == "" {
			t.Errorf("%s has no rule", r.Function)
		}
	}
	for _, name := range called {
		if !slices.Contains(ruled, name) {
			t.Errorf("%s is called and has no rule", name)
		}
	}
	for _, name := range ruled {
		if !slices.Contains(called, name) {
			t.Errorf("%s has a rule and is never called", name)
		}
	}
	if len(called) < 30 {
		t.Errorf("only %d functions", len(called))
	}
}

// TestVendorNames: what the table calls an operation is what the reader takes for one.
func TestVendorNames(t *testing.T) {
	classOf := map[string]Class{"C_DeriveKey": Derive, "C_UnwrapKey": Unwrap, "C_WrapKey": Wrap, "C_Sign": Sign, "C_DestroyObject": Destroy, "C_CreateObject": Create,
		"C_GenerateKey": Generate, "C_GenerateKeyPair": Generate, "C_Encrypt": Encrypt, "C_Decrypt": Decrypt, "C_InitToken": Manage, "C_InitPIN": Manage, "C_SetAttributeValue": Change}
	yubi := map[string]Class{}
	for _, c := range yubiCommands {
		yubi[c.name] = c.class
	}
	for _, r := range Table() {
		want, does := classOf[r.Function]
		if !does {
			continue
		}
		if r.Luna != "" && lunaEvents[r.Luna] != want {
			t.Errorf("%s: Luna's %s is %q", r.Function, r.Luna, lunaEvents[r.Luna])
		}
		if r.YubiHSM2 != "" && yubi[r.YubiHSM2] != want {
			t.Errorf("%s: YubiHSM 2's %s is %q", r.Function, r.YubiHSM2, yubi[r.YubiHSM2])
		}
		if got := nshieldCommands[r.NShield]; r.NShield != "" && got != want && (got != Derive || want != Unwrap && want != Wrap) {
			t.Errorf("%s: nShield's %s is %q", r.Function, r.NShield, got)
		}
	}
}

// TestREADME: the table in the README is the one that the command prints.
func TestREADME(t *testing.T) {
	const begin, end = "<!-- table -->\n", "<!-- end of table -->\n"
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	old, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatal("README.md has no place for the table")
	}
	var b strings.Builder
	b.WriteString("| function | for | entry | Luna | YubiHSM 2 | nShield |\n|---|---|---|---|---|---|\n")
	for _, r := range Table() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", r.Function, r.Use, r.Entry, r.Luna, r.YubiHSM2, r.NShield)
	}
	if *update {
		if err := os.WriteFile("README.md", []byte(before+begin+b.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old != b.String() {
		t.Error("README.md has another table: go test ./vault/audit/reconcile -update")
	}
}
