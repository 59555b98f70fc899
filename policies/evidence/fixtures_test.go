package evidence

import (
	"bytes"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
)

var (
	testTime = time.Unix(1_800_000_000, 0)

	testVault = policies.VaultID{1: 0x11}
	testOwner = policies.OwnerID{1: 0x22}
)

func validVault() *policies.VaultDocument { return &policies.VaultDocument{Vault: testVault} }

// reference is a tree by golang.org/x/mod, kept in memory.
type reference []tlog.Hash

func (r reference) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = r[x]
	}
	return out, nil
}

func filled(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

// flip returns data with one bit of byte i changed.
func flip(data []byte, i int) []byte {
	out := bytes.Clone(data)
	out[i] ^= 1 << (i % 8)
	return out
}

// must unwraps a value in the preparation of a test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
