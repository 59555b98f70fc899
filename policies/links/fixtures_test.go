package links

import (
	"strings"

	"github.com/sallyport/sallyport/policies"
)

var testVault = policies.VaultID{1: 0x11}

// long is a text of n bytes.
func long(n int) string { return strings.Repeat("x", n) }
