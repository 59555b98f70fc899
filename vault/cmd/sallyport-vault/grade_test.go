package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/pkcs11"
)

// TestMinimumGrade: a vault refuses to start with a token below the grade it was told, from the probe in the token to the daemon.
func TestMinimumGrade(t *testing.T) {
	d := newDaemon(t, newAuthority(t))
	text, err := os.ReadFile(d.config)
	must(t, err)
	minimum := func(grade string) {
		t.Helper()
		must(t, os.WriteFile(d.config, bytes.Replace(text, []byte("dev_mode"), []byte("minimum_grade = '"+grade+"'\ndev_mode"), 1), 0o600))
	}
	if code := run(t.Context(), []string{"init", "--config", d.config}, nil, d, d); code != exitOK {
		t.Fatalf("init: %s", d.output())
	}
	minimum("A")
	d.serve()
	d.end()

	// The token is graded again, without the security officer: custody sealed is not proved any more.
	first, err := os.ReadFile(filepath.Join(d.ceremony.Dir, "vault.json"))
	must(t, err)
	passphrase, err := d.ceremony.Passphrase()
	must(t, err)
	reissue := hardware.Reissue{Dir: d.ceremony.Dir, CeremonyKey: d.ceremony.CeremonyKey, Passphrase: passphrase, Probe: &pkcs11.FullProbe{User: d.ceremony.UserPIN}}
	record, err := reissue.Run(t.Context())
	must(t, err)
	if record.Grade() != pkcs11.GradeB || record.Vault.Tokens[0].Grade != "B" {
		t.Fatalf("grade %s, published %s", record.Grade(), record.Vault.Tokens[0].Grade)
	}
	refused := func(what string) {
		t.Helper()
		if code := run(t.Context(), []string{"serve", "--config", d.config}, nil, d, d); code != exitFailure || !strings.Contains(d.output(), `the token's grade is \"B\", and minimum_grade of the configuration is \"A\": sallyport-hsm probe --full`) {
			t.Errorf("%s: %d, %s", what, code, d.output())
		}
	}
	refused("graded B, A is wanted")
	minimum("B")
	d.serve()
	d.end()
	// The host puts the document of the better grade back, which was really signed. The transcript knows better.
	must(t, os.WriteFile(filepath.Join(d.ceremony.Dir, "vault.json"), first, 0o600))
	minimum("A")
	d.log.Reset()
	refused("an older document, which says A")
}
