// Package secret holds the two habits that every secret of the scheme shares: it is derived with HKDF-SHA-256 under a
// pinned label, and drawn from a source that may be replaced for test vectors.
package secret

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
)

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
