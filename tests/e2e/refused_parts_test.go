package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// spy is the trace of OpenSC's pkcs11-spy, which stands between a vault's worker and the token.
type spy struct {
	file string
	mark int64
}

// spyModule finds the library.
func spyModule(t *testing.T) string {
	t.Helper()
	for _, pattern := range []string{"/usr/lib/*/pkcs11-spy.so", "/usr/lib/*/pkcs11/pkcs11-spy.so", "/usr/lib/pkcs11-spy.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatal("pkcs11-spy.so is not installed (Debian: opensc-pkcs11)")
	return ""
}

var traced = regexp.MustCompile(`(?m)^\d+: (C_\w+)$`)

// since counts the calls since it was last asked.
func (s *spy) since(t *testing.T) map[string]int {
	t.Helper()
	data, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, m := range traced.FindAllSubmatch(data[s.mark:], -1) {
		out[string(m[1])]++
	}
	s.mark = int64(len(data))
	return out
}

// Calls that a commit of the key-use log makes, and those by which the vault renews the signer's state in the token once a minute.
var (
	commitCalls = []string{"C_SignInit", "C_Sign"}
	stateCalls  = []string{"C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_GetAttributeValue", "C_CreateObject", "C_DestroyObject"}
	deriveCalls = []string{"C_DeriveKey", "C_GetAttributeValue", "C_DestroyObject"}
)

// surplus names the calls that are neither allowed nor part of renewing the signer's state, and those of derives if there are not as many as wanted.
func surplus(got map[string]int, derives int) []string {
	allowed := slices.Clone(commitCalls)
	if derives > 0 {
		allowed = append(allowed, deriveCalls...)
	}
	if got["C_CreateObject"] > 0 {
		allowed = append(allowed, stateCalls...)
	}
	var out []string
	for name, n := range got {
		if n > 0 && !slices.Contains(allowed, name) {
			out = append(out, fmt.Sprintf("%s %d times", name, n))
		}
	}
	if got["C_DeriveKey"] != derives {
		out = append(out, fmt.Sprintf("C_DeriveKey %d times, want %d", got["C_DeriveKey"], derives))
	}
	slices.Sort(out)
	return out
}

// difference is what was called between two reports.
func difference(before, after map[string]uint64) map[string]int {
	out := map[string]int{}
	for name, n := range after {
		if n != before[name] {
			out[name] = int(n - before[name])
		}
	}
	return out
}
