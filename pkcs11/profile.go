package pkcs11

import (
	"crypto"
	_ "crypto/sha1" // #nosec G505 -- SoftHSM's OAEP knows no other hash; OAEP does not rest on collision resistance.
	_ "crypto/sha256"
	_ "crypto/sha512"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// A Profile is what Sallyport must know about a vendor's module. It is plain
// data, sent to each worker as it is. Numbers are PKCS#11's own, so that a
// profile can name what this package has never heard of.
type Profile struct {
	// Name is for people: transcripts and messages.
	Name string `json:"name"`
	// Module is the path of the shared library.
	Module string `json:"module"`
	// Reserved is passed to C_Initialize as pReserved where it is not empty.
	Reserved string `json:"reserved,omitempty"`
	// Alone: a process calls the module from one thread at a time. It is for a module
	// that mixes up threads, such as pkcs11-spy the lines that it writes; others it slows down.
	Alone bool `json:"alone,omitzero"`

	// ImportPath names how a re-encryption key is wrapped; grants name it too.
	ImportPath string `json:"import_path"`
	// OAEPHash is "sha1", "sha256", "sha384" or "sha512"; MGF1 uses the same.
	OAEPHash string `json:"oaep_hash"`
	// UnwrapWithout lists attributes that this module does not take in an
	// unwrap template; UnwrapWith those it wants besides.
	UnwrapWithout []uint           `json:"unwrap_without,omitempty"`
	UnwrapWith    []ExtraAttribute `json:"unwrap_with,omitempty"`
	// KWP is the number of AES key wrap with padding (RFC 5649).
	KWP uint `json:"kwp"`

	// LogAlgorithm is "ed25519", or "ecdsa-p256" (SHA-256) where a module has
	// no EdDSA. The next three are for Ed25519 only: mechanisms of key
	// generation and signature, and the CKA_EC_PARAMS that name the curve.
	LogAlgorithm string `json:"log_algorithm"`
	EdKeyGen     uint   `json:"ed_key_gen,omitzero"`
	EdSign       uint   `json:"ed_sign,omitzero"`
	EdParams     []byte `json:"ed_params,omitempty"`

	// Point is how C_DeriveKey wants the other side's point: "raw" or "der"
	// (an OCTET STRING around it). ValueLen: whether its template must name
	// the length of the result.
	Point    string `json:"point"`
	ValueLen bool   `json:"value_len"`

	// Sync is "none", or "folder": the module keeps objects in files which it
	// does not flush, so the file system of Folder is synced (syncfs) before
	// anything is acknowledged.
	Sync   string `json:"sync"`
	Folder string `json:"folder,omitempty"`
}

// An ExtraAttribute is an attribute only one vendor asks for.
type ExtraAttribute struct {
	Type  uint   `json:"type"`
	Value []byte `json:"value"`
}

// The values of Profile's named fields.
const (
	// OAEPDirect: PKCS#8 straight under RSA-OAEP. There is no intermediate
	// AES key that the host could steal.
	OAEPDirect = "oaep-direct"

	LogEd25519 = "ed25519"
	LogECDSA   = "ecdsa-p256"

	PointRaw = "raw"
	PointDER = "der"

	SyncNone   = "none"
	SyncFolder = "folder"
)

type oaepHash struct {
	hash      crypto.Hash
	mech, mgf uint
}

var oaepHashes = map[string]oaepHash{
	"sha1":   {crypto.SHA1, cryptoki.CKM_SHA_1, cryptoki.CKG_MGF1_SHA1},
	"sha256": {crypto.SHA256, cryptoki.CKM_SHA256, cryptoki.CKG_MGF1_SHA256},
	"sha384": {crypto.SHA384, cryptoki.CKM_SHA384, cryptoki.CKG_MGF1_SHA384},
	"sha512": {crypto.SHA512, cryptoki.CKM_SHA512, cryptoki.CKG_MGF1_SHA512},
}

// Validate tells what is wrong with p, all of it at once.
func (p Profile) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(p.Name != "", "name is empty")
	check(filepath.IsAbs(p.Module), "module %q is not an absolute path", p.Module)
	check(p.ImportPath == OAEPDirect, "import_path %q is not supported: only %q is", p.ImportPath, OAEPDirect)
	_, known := oaepHashes[p.OAEPHash]
	check(known, "oaep_hash %q is unknown", p.OAEPHash)
	check(p.KWP != 0, "kwp is missing")
	switch p.LogAlgorithm {
	case LogEd25519:
		check(p.EdKeyGen != 0 && p.EdSign != 0 && len(p.EdParams) > 0, "ed_key_gen, ed_sign and ed_params belong to %q", LogEd25519)
	case LogECDSA:
	default:
		check(false, "log_algorithm %q is unknown", p.LogAlgorithm)
	}
	check(p.Point == PointRaw || p.Point == PointDER, "point %q is neither %q nor %q", p.Point, PointRaw, PointDER)
	switch p.Sync {
	case SyncNone:
	case SyncFolder:
		check(filepath.IsAbs(p.Folder), "folder %q is not an absolute path", p.Folder)
	default:
		check(false, "sync %q is neither %q nor %q", p.Sync, SyncNone, SyncFolder)
	}
	// Leaving one of these out would hand the key to the host.
	for _, a := range []uint{cryptoki.CKA_CLASS, cryptoki.CKA_KEY_TYPE, cryptoki.CKA_SENSITIVE, cryptoki.CKA_EXTRACTABLE} {
		check(!slices.Contains(p.UnwrapWithout, a), "unwrap_without names %s, without which nothing is protected", cryptoki.Attribute{Type: a}.Name())
	}
	for _, x := range p.UnwrapWith {
		check(x.Type >= vendorDefined, "unwrap_with names 0x%x: only vendor-defined attributes may be added", x.Type)
	}
	if len(faults) > 0 {
		return fmt.Errorf("profile: %w", errors.Join(faults...))
	}
	return nil
}

// vendorDefined is CKA_VENDOR_DEFINED.
const vendorDefined = 0x80000000

func (p Profile) oaep() cryptoki.Mechanism {
	h := oaepHashes[p.OAEPHash]
	return cryptoki.OAEP(h.mech, h.mgf)
}

// encode puts an uncompressed point into the form the module wants.
func (p Profile) encode(point []byte) []byte {
	if p.Point == PointDER {
		return append([]byte{0x04, byte(len(point))}, point...)
	}
	return point
}
