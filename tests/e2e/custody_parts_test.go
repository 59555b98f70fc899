package e2e

import (
	"testing"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/tests/stage"
)

// openToken opens the stage's token in this process, with the PIN, beside the vault's workers: what somebody on the vault's host can do.
// A process has one token open at a time.
func openToken(t *testing.T, s *stage.Stage) *pkcs11.Token {
	t.Helper()
	t.Setenv("SOFTHSM2_CONF", s.SoftHSMConf())
	vendor, err := hardware.FindProfile("softhsm")
	must(t, err)
	facts, err := vendor.PKCS11("")
	must(t, err)
	pin, err := hardware.ReadPIN("file:"+s.PINFile(), true)
	must(t, err)
	defer pin.Zero()
	token, err := pkcs11.Open(t.Context(), pkcs11.Config{Profile: facts, PIN: pin, Threads: 1})
	must(t, err)
	return token
}
