// Package redact keeps secrets out of what is printed, logged and encoded: a type that holds one embeds [Redacted], and prints as that wherever it turns up, also
// within others. What is to be encoded, as a device's state is before it is sealed, cannot embed it and is printed by nobody.
package redact

import (
	"fmt"
	"io"
	"log/slog"
)

// Redacted is embedded by a type that holds a secret, be it a key, a passphrase or what it was made from. However such a value is printed or logged, this is all that
// appears.
type Redacted struct{}

const redacted = "(redacted)"

// String keeps the secret out of text.
func (Redacted) String() string { return redacted }

// GoString keeps the secret out of %#v.
func (Redacted) GoString() string { return redacted }

// Format keeps the secret out of every other verb.
func (Redacted) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue keeps the secret out of structured logs.
func (Redacted) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps the secret out of JSON and of everything else that encodes by text.
func (Redacted) MarshalText() ([]byte, error) { return []byte(redacted), nil }
