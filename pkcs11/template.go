package pkcs11

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// A Custody says where re-encryption keys rest.
type Custody string

const (
	// Resident: a token object that nothing can take out.
	Resident Custody = "resident"
	// Sealed: outside the token, wrapped under a sealing key.
	Sealed Custody = "sealed"
)

// A KeyName is the label of a key that the ceremony makes.
type KeyName string

const (
	ImportResident KeyName = "sallyport import resident"
	ImportSealed   KeyName = "sallyport import sealed"
	LogKey         KeyName = "sallyport log"
	StoreKey       KeyName = "sallyport store"
)

const sealingPrefix = "sallyport sealing "

// SealingKey names the sealing key of a period. There are several, because
// live blobs move on to a new one and the old one is destroyed.
func SealingKey(period uint32) KeyName {
	return KeyName(sealingPrefix + strconv.FormatUint(uint64(period), 10))
}

func (n KeyName) sealing() bool { return strings.HasPrefix(string(n), sealingPrefix) }

// Period is that of a sealing key; ok is false for every other name.
func (n KeyName) Period() (period uint32, ok bool) {
	text, ok := strings.CutPrefix(string(n), sealingPrefix)
	p, err := strconv.ParseUint(text, 10, 32)
	return uint32(p), ok && err == nil && SealingKey(uint32(p)) == n
}

const (
	rekeyLabel = "sallyport re-encryption key"
	stateLabel = "sallyport signer state"
	importBits = 3072
)

// DER of the object identifier of P-256, 1.2.840.10045.3.1.7 (RFC 5480).
var p256Params = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}

// rekeyTemplate is what an import key or sealing key of a custody forces on
// every key it unwraps, and what the caller of C_UnwrapKey must repeat.
// Each line shuts a door that the host, which has the PIN, would walk through.
func (p Profile) rekeyTemplate(c Custody) []cryptoki.Attribute {
	t := []cryptoki.Attribute{
		cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_PRIVATE_KEY), // as a secret key its value could be used otherwise
		cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_EC),
		cryptoki.Bool(cryptoki.CKA_TOKEN, c == Resident),
		cryptoki.Bool(cryptoki.CKA_PRIVATE, true),
		cryptoki.Bool(cryptoki.CKA_SENSITIVE, true),
		cryptoki.Bool(cryptoki.CKA_EXTRACTABLE, c == Sealed),
		cryptoki.Bool(cryptoki.CKA_DERIVE, true),
		cryptoki.Bool(cryptoki.CKA_SIGN, false), // ECDSA with a chosen nonce oracle would tell rk
		cryptoki.Bool(cryptoki.CKA_SIGN_RECOVER, false),
		cryptoki.Bool(cryptoki.CKA_DECRYPT, false),
		cryptoki.Bool(cryptoki.CKA_UNWRAP, false),
		cryptoki.Bool(cryptoki.CKA_COPYABLE, false), // a copy may have laxer attributes
		cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS, cryptoki.CKM_ECDH1_DERIVE),
	}
	if c == Sealed {
		t = append(t, cryptoki.Bool(cryptoki.CKA_WRAP_WITH_TRUSTED, true))
	}
	t = slices.DeleteFunc(t, func(a cryptoki.Attribute) bool { return slices.Contains(p.UnwrapWithout, a.Type) })
	for _, x := range p.UnwrapWith {
		t = append(t, cryptoki.Bytes(x.Type, x.Value))
	}
	return t
}

// A plan is how a ceremony key is made and what it must look like afterwards.
type plan struct {
	officer bool // made by the security officer, else by the user
	mech    cryptoki.Mechanism
	class   uint                 // of the half that acts
	public  []cryptoki.Attribute // empty for a secret key
	acting  []cryptoki.Attribute // asked for, and read back
	implied []cryptoki.Attribute // not asked for, but must read so
}

// plan returns how to make the key called name, with the given CKA_ID.
func (p Profile) plan(name KeyName, id []byte) (plan, error) {
	var (
		named   = []cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_LABEL, []byte(name)), cryptoki.Bytes(cryptoki.CKA_ID, id), cryptoki.Bool(cryptoki.CKA_TOKEN, true)}
		guarded = append(slices.Clone(named),
			cryptoki.Bool(cryptoki.CKA_SENSITIVE, true),
			cryptoki.Bool(cryptoki.CKA_EXTRACTABLE, false),
			cryptoki.Bool(cryptoki.CKA_MODIFIABLE, false), // else the host sets CKA_DECRYPT and wins
			cryptoki.Bool(cryptoki.CKA_COPYABLE, false))   // else it copies with CKA_DECRYPT and wins
		born = []cryptoki.Attribute{
			cryptoki.Bool(cryptoki.CKA_LOCAL, true),
			cryptoki.Bool(cryptoki.CKA_ALWAYS_SENSITIVE, true),
			cryptoki.Bool(cryptoki.CKA_NEVER_EXTRACTABLE, true)}
		with = func(base []cryptoki.Attribute, more ...cryptoki.Attribute) []cryptoki.Attribute {
			return append(slices.Clone(base), more...)
		}
		only = func(mechs ...uint) cryptoki.Attribute {
			return cryptoki.Mechanisms(cryptoki.CKA_ALLOWED_MECHANISMS, mechs...)
		}
		yes = func(t uint) cryptoki.Attribute { return cryptoki.Bool(t, true) }
		no  = func(t uint) cryptoki.Attribute { return cryptoki.Bool(t, false) }
	)
	switch {
	case name == ImportResident || name == ImportSealed:
		custody := Resident
		if name == ImportSealed {
			custody = Sealed
		}
		return plan{
			mech:  cryptoki.Plain(cryptoki.CKM_RSA_PKCS_KEY_PAIR_GEN),
			class: cryptoki.CKO_PRIVATE_KEY,
			public: with(named, cryptoki.Ulong(cryptoki.CKA_MODULUS_BITS, importBits),
				cryptoki.Bytes(cryptoki.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
				no(cryptoki.CKA_ENCRYPT), no(cryptoki.CKA_VERIFY), no(cryptoki.CKA_VERIFY_RECOVER), no(cryptoki.CKA_WRAP), no(cryptoki.CKA_MODIFIABLE)),
			acting: with(guarded, yes(cryptoki.CKA_PRIVATE), yes(cryptoki.CKA_UNWRAP), no(cryptoki.CKA_DECRYPT), no(cryptoki.CKA_SIGN),
				no(cryptoki.CKA_SIGN_RECOVER), no(cryptoki.CKA_DERIVE), only(cryptoki.CKM_RSA_PKCS_OAEP),
				cryptoki.Template(cryptoki.CKA_UNWRAP_TEMPLATE, p.rekeyTemplate(custody))),
			implied: with(born, cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_RSA)),
		}, nil
	case name == LogKey:
		pl := plan{
			class:  cryptoki.CKO_PRIVATE_KEY,
			public: with(named, yes(cryptoki.CKA_VERIFY), no(cryptoki.CKA_MODIFIABLE)),
			acting: with(guarded, yes(cryptoki.CKA_PRIVATE), yes(cryptoki.CKA_SIGN), no(cryptoki.CKA_SIGN_RECOVER),
				no(cryptoki.CKA_DECRYPT), no(cryptoki.CKA_UNWRAP), no(cryptoki.CKA_DERIVE)),
			implied: born,
		}
		if p.LogAlgorithm == LogEd25519 {
			pl.mech = cryptoki.Plain(p.EdKeyGen)
			pl.public = append(pl.public, cryptoki.Bytes(cryptoki.CKA_EC_PARAMS, p.EdParams))
			pl.acting = append(pl.acting, only(p.EdSign))
		} else {
			pl.mech = cryptoki.Plain(cryptoki.CKM_EC_KEY_PAIR_GEN)
			pl.public = append(pl.public, cryptoki.Bytes(cryptoki.CKA_EC_PARAMS, p256Params))
			pl.acting = append(pl.acting, only(cryptoki.CKM_ECDSA))
		}
		return pl, nil
	case name == StoreKey:
		return plan{
			mech:  cryptoki.Plain(cryptoki.CKM_AES_KEY_GEN),
			class: cryptoki.CKO_SECRET_KEY,
			acting: with(guarded, cryptoki.Ulong(cryptoki.CKA_VALUE_LEN, 32), yes(cryptoki.CKA_PRIVATE),
				yes(cryptoki.CKA_ENCRYPT), yes(cryptoki.CKA_DECRYPT), no(cryptoki.CKA_WRAP), no(cryptoki.CKA_UNWRAP),
				no(cryptoki.CKA_SIGN), no(cryptoki.CKA_VERIFY), no(cryptoki.CKA_DERIVE), only(cryptoki.CKM_AES_GCM)),
			implied: with(born, cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_AES)),
		}, nil
	case name.sealing():
		if _, ok := name.Period(); !ok {
			return plan{}, &Error{Op: fmt.Sprintf("naming key %q", string(name)), Kind: ErrBadInput}
		}
		return plan{
			officer: true, // only the security officer may set CKA_TRUSTED
			mech:    cryptoki.Plain(cryptoki.CKM_AES_KEY_GEN),
			class:   cryptoki.CKO_SECRET_KEY,
			acting: with(guarded, cryptoki.Ulong(cryptoki.CKA_VALUE_LEN, 32), no(cryptoki.CKA_PRIVATE), yes(cryptoki.CKA_TRUSTED),
				yes(cryptoki.CKA_WRAP), yes(cryptoki.CKA_UNWRAP), no(cryptoki.CKA_ENCRYPT), no(cryptoki.CKA_DECRYPT),
				no(cryptoki.CKA_SIGN), no(cryptoki.CKA_VERIFY), no(cryptoki.CKA_DERIVE), only(p.KWP),
				cryptoki.Template(cryptoki.CKA_UNWRAP_TEMPLATE, p.rekeyTemplate(Sealed))),
			implied: with(born, cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_AES)),
		}, nil
	}
	return plan{}, &Error{Op: fmt.Sprintf("naming key %q", string(name)), Kind: ErrBadInput}
}

// An AttributeReport is one attribute as the token tells it, for a transcript.
type AttributeReport struct {
	Name  string            `json:"name"`
	Value string            `json:"value,omitempty"`
	Array []AttributeReport `json:"array,omitempty"`
	// Unreadable: the token keeps the attribute but does not show it; what it
	// is for was then proved by trying (see KeyReport.Proofs).
	Unreadable bool `json:"unreadable,omitzero"`
}

func report(a cryptoki.Attribute) AttributeReport {
	r := AttributeReport{Name: a.Name()}
	if a.Array == nil {
		r.Value = render(a)
		return r
	}
	for _, e := range a.Array {
		r.Array = append(r.Array, report(e))
	}
	slices.SortFunc(r.Array, func(x, y AttributeReport) int { return strings.Compare(x.Name, y.Name) })
	return r
}

// render writes a value the way a person would read it.
func render(a cryptoki.Attribute) string {
	switch a.Type {
	case cryptoki.CKA_LABEL:
		return string(a.Value)
	case cryptoki.CKA_CLASS, cryptoki.CKA_KEY_TYPE, cryptoki.CKA_VALUE_LEN, cryptoki.CKA_MODULUS_BITS, cryptoki.CKA_ALLOWED_MECHANISMS:
		var numbers []string
		for b := a.Value; len(b) >= 8; b = b[8:] {
			numbers = append(numbers, fmt.Sprintf("0x%x", binary.NativeEndian.Uint64(b)))
		}
		return strings.Join(numbers, " ")
	}
	if len(a.Value) == 1 {
		return strconv.FormatBool(a.Value[0] != 0)
	}
	return hex.EncodeToString(a.Value)
}

func describe(a cryptoki.Attribute) string {
	if a.Array == nil {
		return render(a)
	}
	var parts []string
	for _, e := range report(a).Array {
		parts = append(parts, e.Name+"="+e.Value)
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
