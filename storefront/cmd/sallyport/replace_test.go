package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/phrases"
)

// holder is a device with an account.
type holder struct {
	current  bool
	set, off error
}

func (h holder) AccountOutdated() bool { return !h.current }

func (h holder) SetPassword(context.Context, string, []byte, client.Claim) error { return h.set }

func (h holder) SwitchOff(context.Context) error { return h.off }

// TestKitOffSaysSo: that there was no sheet to be switched off is no failure.
func TestKitOffSaysSo(t *testing.T) {
	for was, want := range map[bool]string{true: `"was": true`, false: `"was": false`} {
		var out strings.Builder
		(&session{Global: &Global{JSON: true}, stdout: &out}).printKitOff(was)
		if got := out.String(); !strings.Contains(got, `"off": true`) || !strings.Contains(got, want) {
			t.Errorf("was %t: %s", was, got)
		}
	}
}

// TestRenewAccount: whatever becomes of password and sheet after a replacement, the person is told what is so, and what to do with the commands that there are.
func TestRenewAccount(t *testing.T) {
	for _, c := range []struct {
		holder   holder
		password []byte
		said     string
		err      error
	}{
		{holder{current: true}, []byte("new"), "", nil},
		{holder{}, nil, "off", nil},
		{holder{off: policies.CodeUnavailable}, nil, "old", policies.CodeUnavailable},
		{holder{}, []byte("new"), "set", nil},
		{holder{set: policies.CodeUnavailable}, []byte("new"), "old", policies.CodeUnavailable},
		{holder{set: client.ErrEndsSheet}, []byte("new"), "sheet", client.ErrEndsSheet},
	} {
		said, err := renewAccount(t.Context(), c.holder, c.password)
		if said != c.said || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%+v: %q, %v", c, said, err)
		}
		if said == "" {
			continue
		}
		for _, l := range []phrases.Language{phrases.English, phrases.German} {
			text := phrases.Say(l, "replaced.account."+said)
			if strings.Count(text, "--") != strings.Count(text, "`sallyport me password set --replace-all`") {
				t.Errorf("it names what `sallyport me replace` does not have: %s", text)
			}
		}
	}
}
