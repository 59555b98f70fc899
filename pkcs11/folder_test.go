package pkcs11

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/binary"
	"io/fs"
	"os"
	"testing"
)

// kwpOpen is AES-KWP in software (RFC 5649, section 4.2), for blobs of more
// than one block.
func kwpOpen(key, blob []byte) ([]byte, bool) {
	block, err := aes.NewCipher(key)
	if err != nil || len(blob)%8 != 0 || len(blob) < 24 {
		return nil, false
	}
	a, r := [8]byte(blob), bytes.Clone(blob[8:])
	n := len(r) / 8
	var b [16]byte
	for t := 6 * n; t > 0; t-- {
		i := (t - 1) % n * 8
		binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(a[:])^uint64(t))
		copy(b[8:], r[i:i+8])
		block.Decrypt(b[:], b[:])
		copy(a[:], b[:8])
		copy(r[i:], b[8:])
	}
	size := int(binary.BigEndian.Uint32(a[4:]))
	if !bytes.Equal(a[:4], []byte{0xa6, 0x59, 0x59, 0xa6}) || size > len(r) || size <= len(r)-8 || bytes.ContainsFunc(r[size:], func(c rune) bool { return c != 0 }) {
		return nil, false
	}
	return r[:size], true
}

// windows calls f with every 32 bytes in a row of every file of the token's folder.
func windows(t *testing.T, p Profile, f func(window []byte) bool) (found bool) {
	t.Helper()
	folder := os.DirFS(p.Folder)
	err := fs.WalkDir(folder, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(folder, path)
		for i := 0; i+32 <= len(content) && !found; i++ {
			found = f(content[i : i+32])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// What a thief has who takes SoftHSM's folder, but no PIN: a blob as it comes
// from here is open to him, because the sealing key, which the security officer
// made, is a public object and SoftHSM writes it in clear. A value under the
// store key, which the user made, is not. So whoever stores blobs encrypts them
// once more, under a key that the store key opens; the vault does.
func TestBareBlobAndTokenFolder(t *testing.T) {
	token, reports := ceremonyKeys(t, 1)
	s := importedSealed(t, token, importKey(t, reports[ImportSealed]))
	var taken *ecdh.PrivateKey
	windows(t, token.profile, func(window []byte) bool {
		der, ok := kwpOpen(window, s.req.Sealed.Blob)
		if !ok {
			return false
		}
		parsed, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			t.Fatalf("the blob holds no PKCS#8: %v", err)
		}
		key, ok := parsed.(*ecdsa.PrivateKey)
		if !ok {
			t.Fatalf("the blob holds a %T", parsed)
		}
		if taken, err = key.ECDH(); err != nil {
			t.Fatal(err)
		}
		return true
	})
	if taken == nil {
		t.Error("the folder does not open a bare blob: SoftHSM has become better, and the documents may say so")
	} else if !taken.Equal(s.key) {
		t.Error("the folder opens a bare blob to another key")
	}

	sealed, err := token.Seal(t.Context(), s.req.Sealed.Blob, []byte("id"))
	if err != nil {
		t.Fatal(err)
	}
	opens := func(key []byte) bool {
		block, err := aes.NewCipher(key)
		if err != nil {
			return false
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			return false
		}
		_, err = gcm.Open(nil, sealed[:nonceSize], sealed[nonceSize:], []byte("id"))
		return err == nil
	}
	if windows(t, token.profile, opens) {
		t.Error("the folder opens what is sealed under the store key")
	}
	if value := windows(t, token.profile, func(window []byte) bool { return bytes.Equal(window, s.key.Bytes()) }); value {
		t.Error("the re-encryption key is in the folder")
	}
}
