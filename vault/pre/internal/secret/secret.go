// Package secret holds the three habits that every secret of the scheme shares: it is derived with HKDF-SHA-256 under a
// pinned label, it is drawn from a source that may be replaced for test vectors, and it never prints.
package secret

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is embedded by every type that holds a secret. However such a value is printed or logged, this is all that
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

// Derive is HKDF-SHA-256 (RFC 5869), extract and expand. A nil salt is 32 zero bytes, as section 2.2 says.
func Derive(ikm, salt, info []byte, size int) []byte {
	out, err := hkdf.Key(sha256.New, ikm, salt, string(info), size)
	if err != nil { // only for a size above 255*32 bytes: never asked for
		panic("secret: " + err.Error())
	}
	return out
}

// Draw fills b from source, or from crypto/rand if source is nil.
func Draw(source io.Reader, b []byte) error {
	if source == nil {
		source = rand.Reader
	}
	if _, err := io.ReadFull(source, b); err != nil {
		return fmt.Errorf("drawing randomness: %w", err)
	}
	return nil
}
