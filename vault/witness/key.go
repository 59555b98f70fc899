package witness

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
)

// keyFile is a witness's key as it is kept: a name, and a seed from which the keys of both kinds are made.
type keyFile struct {
	Name string `json:"name"`
	Seed []byte `json:"seed"` // 32 bytes
}

// NewKey makes a key. What it returns is secret and goes into a file that only the witness can read.
func NewKey(name string) ([]byte, error) {
	k := keyFile{Name: name, Seed: make([]byte, 32)}
	defer clear(k.Seed)
	rand.Read(k.Seed)
	data, err := json.Marshal(k)
	if err != nil {
		return nil, err
	}
	_, err = ParseKey(data)
	return append(data, '\n'), err
}

// ParseKey reads a key: the ML-DSA-44 cosigner, and the Ed25519 cosigner for logs that do not know the other. A log takes one of them.
func ParseKey(data []byte) ([]*evidence.CosignerKey, error) {
	k := new(keyFile)
	if err := envelope.Decode(data, k); err != nil || len(k.Seed) != 32 {
		return nil, fmt.Errorf("%w: not the key of a witness", policies.ErrMalformed) // err may repeat what is secret
	}
	defer clear(k.Seed)
	var keys []*evidence.CosignerKey
	for _, kind := range []struct {
		label string
		of    func(string, *[32]byte) (*evidence.CosignerKey, error)
	}{{"witness-ml-dsa-44", evidence.NewCosignerKey}, {"witness-ed25519", evidence.NewEd25519CosignerKey}} {
		seed, err := hkdf.Key(sha256.New, k.Seed, nil, "sallyport/v1/"+kind.label, 32)
		if err != nil {
			return nil, err
		}
		key, err := kind.of(k.Name, (*[32]byte)(seed))
		clear(seed)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}
