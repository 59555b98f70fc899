package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/policies"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sallyport-hsm": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true})
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{errUsage, exitUsage},
		{errGrade, exitGrade},
		{pkcs11.ErrPINIncorrect, exitPIN},
		{pkcs11.ErrPINLocked, exitPIN},
		{hardware.ErrPINSource, exitPIN},
		{hardware.ErrPassphrase, exitPIN},
		{hardware.ErrNotEmpty, exitRefused},
		{hardware.ErrUnfinished, exitRefused},
		{hardware.ErrDifferent, exitRefused},
		{hardware.ErrDevelopment, exitRefused},
		{hardware.ErrUnsupported, exitRefused},
		{policies.CodeRulesOld, exitRefused},
		{policies.CodeUnavailable, exitFailed},
		{policies.CodeLogStopped, exitFailed},
		{policies.CodeLogFull, exitFailed},
		{policies.CodeClock, exitFailed},
		{policies.CodeTokenFailure, exitFailed},
		{hardware.ErrModule, exitFailed},
		{context.Canceled, exitFailed},
		// A ceremony that a wrong PIN stopped is about the PIN.
		{&hardware.UnfinishedError{Step: "x", Cause: pkcs11.ErrPINIncorrect}, exitPIN},
	} {
		if got := exitCode(fmt.Errorf("doing: %w", c.err)); got != c.code {
			t.Errorf("%v: %d, want %d", c.err, got, c.code)
		}
	}
}

// Every command explains itself, without a token.
func TestHelp(t *testing.T) {
	for _, args := range [][]string{nil, {"--help"}, {"init", "--help"}, {"show", "--help"}, {"verify", "--help"}, {"doctor", "--help"}, {"probe", "--help"}, {"reissue", "--help"}, {"sealing-key", "--help"}, {"voucher", "--help"}, {"guardrails", "--help"}, {"hand-in", "--help"}, {"dev-token", "--help"}, {"dev-tls", "--help"}} {
		var stdout, stderr bytes.Buffer
		if code := Run(t.Context(), args, strings.NewReader(""), &stdout, &stderr); code != exitDone || !strings.Contains(stdout.String(), "Usage: sallyport-hsm") || stderr.Len() > 0 {
			t.Errorf("%q: %d\n%s%s", args, code, &stdout, &stderr)
		}
	}
}
