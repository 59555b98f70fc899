package pkcs11

import (
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// A Secret is a PIN. It prints as redacted whatever the verb, and it has no
// encoding: it reaches a worker as raw bytes on a pipe and goes nowhere else.
// Copies share the same memory, so that Zero ends all of them.
//
// fmt calls Format where it can. In an unexported field, as in a Pool, it cannot:
// there it stops at a pointer. It takes two, since fmt follows the first one when
// it reports a verb that does not fit.
type Secret struct{ at **[]byte }

// NewSecret takes ownership of b: Zero will overwrite it.
func NewSecret(b []byte) Secret {
	p := &b
	return Secret{&p}
}

// bytes is the secret itself.
func (s Secret) bytes() []byte {
	if s.at == nil {
		return nil
	}
	return **s.at
}

// Zero overwrites the secret.
func (s Secret) Zero() { clear(s.bytes()) }

func (s Secret) empty() bool { return len(s.bytes()) == 0 }

// clone returns a copy with memory of its own, for a holder that outlives the
// caller's.
func (s Secret) clone() Secret { return NewSecret(append([]byte(nil), s.bytes()...)) }

func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(redacted)) }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
