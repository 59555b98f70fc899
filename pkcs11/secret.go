package pkcs11

import (
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// A Secret is a PIN. It prints as redacted whatever the verb, and it has no
// encoding: it reaches a worker as raw bytes on a pipe and goes nowhere else.
// Copies share the same memory, so that Zero ends all of them.
type Secret struct{ b []byte }

// NewSecret takes ownership of b: Zero will overwrite it.
func NewSecret(b []byte) Secret { return Secret{b} }

// Zero overwrites the secret.
func (s Secret) Zero() { clear(s.b) }

func (s Secret) empty() bool { return len(s.b) == 0 }

// clone returns a copy with memory of its own, for a holder that outlives the
// caller's.
func (s Secret) clone() Secret { return Secret{append([]byte(nil), s.b...)} }

func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(redacted)) }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
