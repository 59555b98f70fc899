package hardware

import (
	"errors"
	"fmt"
	"strings"
)

// The kinds of refusal. Those of the token itself (wrong PIN, locked PIN, ...) are package pkcs11's and pass through.
var (
	// ErrUnsupported: no profile for this device.
	ErrUnsupported = errors.New("unsupported device")
	// ErrModule: the PKCS#11 library, or the folder it keeps tokens in, is not there.
	ErrModule = errors.New("no PKCS#11 module")
	// ErrPINSource: a PIN cannot be had from where it was said to be.
	ErrPINSource = errors.New("no PIN")
	// ErrTokenChoice: what a configuration says of the token contradicts itself, or the ceremony's record.
	ErrTokenChoice = errors.New("choice of token")
	// ErrNotEmpty: the token holds objects already, so no ceremony is held on it.
	ErrNotEmpty = errors.New("token is not empty")
	// ErrUnfinished: an earlier ceremony was cut short. The error is an *UnfinishedError.
	ErrUnfinished = errors.New("an earlier ceremony was cut short")
	// ErrFolder: the folder is not that of a finished ceremony, or is in the way of a new one.
	ErrFolder = errors.New("ceremony folder")
	// ErrDifferent: the token is not what the ceremony recorded. Where an attribute differs, the error is a
	// *pkcs11.AttributeError besides, which names it.
	ErrDifferent = errors.New("token differs from the transcript")
	// ErrProbe: the light probe had a wrong answer.
	ErrProbe = errors.New("light probe")
	// ErrDevelopment: a development vault where a real one is due.
	ErrDevelopment = errors.New("this vault was made in development mode")
	// ErrCustody: a custody that this vault cannot offer.
	ErrCustody = errors.New("custody not offered")
	// ErrBusy: another process is changing the folder.
	ErrBusy = errors.New("another sallyport-hsm is at work in this folder")
	// ErrPassphrase: the passphrase of the ceremony key is missing, too short or wrong, or the key's file was changed.
	ErrPassphrase = errors.New("passphrase of the ceremony key")
	// ErrCeremonyKey: a file that is not a ceremony key, or is that of another vault.
	ErrCeremonyKey = errors.New("not this vault's ceremony key")
)

// An UnfinishedError says how far a ceremony came and how to clean up after it. It is of the kind ErrUnfinished.
type UnfinishedError struct {
	Folder      string
	CeremonyKey string // where the ceremony key may lie; it has signed nothing that anybody pinned
	Step        string // the last step begun
	Label       string
	Serial      string // of the token, if it got as far as having one
	Erase       string // how to empty a token, in the vendor's words
	Cause       error  // why it stopped; nil if it was killed
}

func (e *UnfinishedError) Error() string {
	var b strings.Builder
	if e.Cause != nil {
		fmt.Fprintf(&b, "ceremony stopped while %s: %v", e.Step, e.Cause)
	} else {
		fmt.Fprintf(&b, "%v while %s", ErrUnfinished, e.Step)
	}
	fmt.Fprintf(&b, ". Nothing of it is in use. To begin again: empty the token labelled %q", e.Label)
	erase := e.Erase
	if e.Serial != "" {
		fmt.Fprintf(&b, " (serial %s)", e.Serial)
		erase = strings.ReplaceAll(erase, "SERIAL", e.Serial)
	}
	fmt.Fprintf(&b, " if the module shows one (%s), then remove %s and %s", erase, e.Folder, e.CeremonyKey)
	return b.String()
}

// Unwrap gives the kind and the cause.
func (e *UnfinishedError) Unwrap() []error {
	if e.Cause == nil {
		return []error{ErrUnfinished}
	}
	return []error{ErrUnfinished, e.Cause}
}
