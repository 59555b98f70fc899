package evidence

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport/sallyport/policies"
)

// CosignatureType says what a cosigner signs with: the type byte of a C2SP signed note.
type CosignatureType byte

const (
	// CosignatureEd25519 is Ed25519 over the text "cosignature/v1", the time and the checkpoint. It does not commit to the cosigner's name.
	CosignatureEd25519 CosignatureType = 0x04
	// CosignatureMLDSA44 is ML-DSA-44 over cosigner's name, time, origin, size and root. A host's line is of this type.
	CosignatureMLDSA44 CosignatureType = 0x06
)

// latest bounds the time of a cosignature: the last second of the year 9999.
const latest = 253402300799

// Cosigner is a key that signs checkpoints of a log whose own key is another: a witness, or the vault's host (C2SP tlog-cosignature).
type Cosigner struct {
	Name      string // without space or plus, at most 255 bytes
	Type      CosignatureType
	PublicKey []byte // 32 bytes of Ed25519, 1,312 of ML-DSA-44
}

// ParseCosigner reads a verifier key of a C2SP signed note: name+hex(key id)+base64(type || key). There is one spelling of each.
func ParseCosigner(vkey string) (Cosigner, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return Cosigner{}, fmt.Errorf("%w: verifier key: not name+id+key", policies.ErrMalformed)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(key) == 0 {
		return Cosigner{}, fmt.Errorf("%w: verifier key: the key is not base64", policies.ErrMalformed)
	}
	c := Cosigner{Name: parts[0], Type: CosignatureType(key[0]), PublicKey: key[1:]}
	if err := c.validate(); err != nil {
		return Cosigner{}, err
	}
	if c.String() != vkey {
		return Cosigner{}, fmt.Errorf("%w: verifier key: the id is not that of the name and key", policies.ErrMalformed)
	}
	return c, nil
}

// HostCosigner is the vault's host as its document names it.
func HostCosigner(v *policies.VaultDocument) Cosigner {
	return Cosigner{Name: v.LogHostKey.Name, Type: CosignatureMLDSA44, PublicKey: v.LogHostKey.PublicKey}
}

// String is the verifier key that [ParseCosigner] reads.
func (c Cosigner) String() string {
	return fmt.Sprintf("%s+%08x+%s", c.Name, c.keyHash(), base64.StdEncoding.EncodeToString(append([]byte{byte(c.Type)}, c.PublicKey...)))
}

func (c Cosigner) validate() error {
	switch {
	case c.Name == "" || len(c.Name) > 255 || !utf8.ValidString(c.Name) || strings.Contains(c.Name, "+") || strings.ContainsFunc(c.Name, unicode.IsSpace):
		return fmt.Errorf("%w: cosigner: %q is no name of a key", policies.ErrMalformed, c.Name)
	case c.Type != CosignatureEd25519 && c.Type != CosignatureMLDSA44:
		return fmt.Errorf("%w: cosigner %s: keys of type 0x%02x do not cosign, only 0x04 and 0x06", policies.ErrMalformed, c.Name, byte(c.Type))
	case c.Type == CosignatureEd25519 && len(c.PublicKey) != ed25519.PublicKeySize,
		c.Type == CosignatureMLDSA44 && len(c.PublicKey) != mldsa44.PublicKeySize:
		return fmt.Errorf("%w: cosigner %s: a key of %d bytes", policies.ErrMalformed, c.Name, len(c.PublicKey))
	}
	return nil
}

func (c Cosigner) keyHash() uint32 {
	h := sha256.New()
	h.Write([]byte(c.Name + "\n"))
	h.Write([]byte{byte(c.Type)})
	h.Write(c.PublicKey)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// Verify tells whether signature, u64 Unix seconds and the bytes of Ed25519 or ML-DSA-44, is this cosigner's for the text of a checkpoint.
// A cosignature without a time says nothing of the newest tree, so it is none here.
func (c Cosigner) Verify(text, signature []byte) bool {
	if len(signature) < 8 {
		return false
	}
	at, signature := binary.BigEndian.Uint64(signature), signature[8:]
	if at == 0 || at > latest {
		return false
	}
	switch c.Type {
	case CosignatureEd25519:
		return len(c.PublicKey) == ed25519.PublicKeySize && ed25519.Verify(c.PublicKey, cosignedText(text, at), signature)
	case CosignatureMLDSA44:
		origin, checkpoint, err := parseCheckpoint(string(text))
		if err != nil || len(origin) > 255 || len(c.Name) > 255 || len(c.PublicKey) != mldsa44.PublicKeySize || len(signature) != mldsa44.SignatureSize {
			return false
		}
		var key mldsa44.PublicKey
		key.Unpack((*[mldsa44.PublicKeySize]byte)(c.PublicKey))
		return mldsa44.Verify(&key, cosignedMessage(c.Name, at, origin, checkpoint), nil, signature)
	}
	return false
}

// cosignedText is what an Ed25519 cosigner signs.
func cosignedText(text []byte, at uint64) []byte {
	return append([]byte("cosignature/v1\ntime "+strconv.FormatUint(at, 10)+"\n"), text...)
}

// cosignedMessage is what an ML-DSA-44 cosigner signs: a subtree that begins at 0 is the whole tree.
func cosignedMessage(name string, at uint64, origin string, c Checkpoint) []byte {
	m := append([]byte("subtree/v1\n\x00"), byte(len(name)))
	m = binary.BigEndian.AppendUint64(append(m, name...), at)
	m = append(append(m, byte(len(origin))), origin...)
	m = binary.BigEndian.AppendUint64(m, 0)
	return append(binary.BigEndian.AppendUint64(m, c.Size), c.Root[:]...)
}

// CosignerKey is the private half of a cosigner. It prints as its public half.
type CosignerKey struct {
	cosigner Cosigner
	private  *mldsa44.PrivateKey // or
	ed       ed25519.PrivateKey
}

// NewCosignerKey makes the ML-DSA-44 key of a seed, which the caller keeps and erases.
func NewCosignerKey(name string, seed *[32]byte) (*CosignerKey, error) {
	public, private := mldsa44.NewKeyFromSeed(seed)
	k := &CosignerKey{cosigner: Cosigner{name, CosignatureMLDSA44, public.Bytes()}, private: private}
	return k, k.cosigner.validate()
}

// NewEd25519CosignerKey is [NewCosignerKey] for an Ed25519 key, which logs that do not know ML-DSA ask a witness for. The seed is used for nothing else.
func NewEd25519CosignerKey(name string, seed *[32]byte) (*CosignerKey, error) {
	private := ed25519.NewKeyFromSeed(seed[:])
	k := &CosignerKey{cosigner: Cosigner{name, CosignatureEd25519, private.Public().(ed25519.PublicKey)}, ed: private}
	return k, k.cosigner.validate()
}

// Cosigner is the public half.
func (k *CosignerKey) Cosigner() Cosigner { return k.cosigner }

// Format keeps the key out of logs whatever the verb.
func (k *CosignerKey) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.cosigner) }

// MarshalText keeps the key out of JSON and structured logs.
func (k *CosignerKey) MarshalText() ([]byte, error) { return []byte(k.cosigner.String()), nil }

// Cosign is a line that goes to the end of the signed checkpoint of a log: that at this time this is the newest tree that the cosigner
// saw, and that it holds all the earlier ones. That this is so, the caller has checked.
func (k *CosignerKey) Cosign(origin string, c Checkpoint, at time.Time) (string, error) {
	if at.Unix() <= 0 || at.Unix() > latest || origin == "" || len(origin) > 255 {
		return "", fmt.Errorf("%w: cosignature: an origin has 1 to 255 bytes, a time is between 1970 and 9999", policies.ErrMalformed)
	}
	signature := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, k.cosigner.keyHash()), uint64(at.Unix()))
	if k.ed != nil {
		signature = append(signature, ed25519.Sign(k.ed, cosignedText([]byte(c.Text(origin)), uint64(at.Unix())))...)
	} else {
		signature = append(signature, make([]byte, mldsa44.SignatureSize)...)
		if err := mldsa44.SignTo(k.private, cosignedMessage(k.cosigner.Name, uint64(at.Unix()), origin, c), nil, true, signature[12:]); err != nil {
			return "", fmt.Errorf("cosignature: %w", err)
		}
	}
	return "\u2014 " + k.cosigner.Name + " " + base64.StdEncoding.EncodeToString(signature) + "\n", nil
}

// Witnesses are a rule of who else must have signed a published checkpoint: at least Need of these. The zero value asks for nobody.
type Witnesses struct {
	Need int
	Of   []Cosigner
}

// Validate refuses a rule that cannot be met or that one key could meet twice.
func (w *Witnesses) Validate() error {
	if w.Need < 0 || w.Need > len(w.Of) {
		return fmt.Errorf("%w: witnesses: %d of %d", policies.ErrMalformed, w.Need, len(w.Of))
	}
	for i, c := range w.Of {
		if err := c.validate(); err != nil {
			return fmt.Errorf("witnesses: %w", err)
		}
		for _, other := range w.Of[:i] {
			if string(other.PublicKey) == string(c.PublicKey) || other.Name == c.Name {
				return fmt.Errorf("%w: witnesses: %s and %s have one key or one name", policies.ErrMalformed, other.Name, c.Name)
			}
		}
	}
	return nil
}

// Cosigned is a cosignature that verified, and the cosigner's time.
type Cosigned struct {
	By Cosigner
	At time.Time
}

// Published is a published checkpoint that verified.
type Published struct {
	Checkpoint
	Host      time.Time  // when the host published it, by the host's clock
	Witnesses []Cosigned // of those asked for, in the order of their lines
}

// OpenPublished verifies a published checkpoint: the lines of the token's key and of the host's key of the vault document, and of as many
// witnesses as asked for. A line of one of these keys that does not verify refuses the whole; lines of others are passed over.
func OpenPublished(text string, v *policies.VaultDocument, w Witnesses) (Published, error) {
	host := HostCosigner(v)
	if err := host.validate(); err != nil {
		return Published{}, fmt.Errorf("host's log key: %w", err)
	}
	if err := w.Validate(); err != nil {
		return Published{}, err
	}
	for _, c := range w.Of {
		if string(c.PublicKey) == string(host.PublicKey) || string(c.PublicKey) == string(v.LogKey.PublicKey) || c.Name == host.Name || c.Name == v.LogKey.Name {
			return Published{}, fmt.Errorf("%w: witnesses: %s is the vault itself", policies.ErrMalformed, c.Name)
		}
	}
	c, by, err := openCosigned(text, v.LogKey, append([]Cosigner{host}, w.Of...))
	if err != nil {
		return Published{}, err
	}
	p := Published{Checkpoint: c}
	for _, one := range by {
		if one.By.Name == host.Name {
			p.Host = one.At
		} else {
			p.Witnesses = append(p.Witnesses, one)
		}
	}
	if p.Host.IsZero() {
		return Published{}, fmt.Errorf("%w: checkpoint: no line of the host's key %s", policies.ErrSignature, host.Name)
	}
	return p, w.met(p.Witnesses)
}

// OpenCosigned verifies the checkpoint of any log: the line of its own key, and of as many cosigners as asked for. It is how a witness opens what it
// is asked to cosign, and how a log opens what a witness answered. What it refuses is what [OpenPublished] refuses.
func OpenCosigned(text string, key policies.LogKey, w Witnesses) (Checkpoint, []Cosigned, error) {
	if err := w.Validate(); err != nil {
		return Checkpoint{}, nil, err
	}
	c, by, err := openCosigned(text, key, w.Of)
	if err == nil {
		err = w.met(by)
	}
	return c, by, err
}

// met tells whether there are enough.
func (w *Witnesses) met(by []Cosigned) error {
	if len(by) < w.Need {
		return fmt.Errorf("%w: checkpoint: %d of the %d witnesses signed it, %d are needed", policies.ErrSignature, len(by), len(w.Of), w.Need)
	}
	return nil
}

// openCosigned opens a checkpoint that key signed, and tells which of the others did, in the order of their lines.
func openCosigned(text string, key policies.LogKey, others []Cosigner) (c Checkpoint, by []Cosigned, err error) {
	c, n, err := openNote(text, key, others)
	if err != nil {
		return c, nil, err
	}
	for _, sig := range n.Sigs {
		for _, one := range others {
			if sig.Name == one.Name && sig.Hash == one.keyHash() {
				by = append(by, Cosigned{one, cosignedAt(sig)})
			}
		}
	}
	return c, by, nil
}

// ParseLogKey reads the verifier key of a log, Ed25519: name+hex(key id)+base64(0x01 || key).
func ParseLogKey(vkey string) (policies.LogKey, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if _, err := note.NewVerifier(vkey); err != nil || len(parts) != 3 {
		return policies.LogKey{}, fmt.Errorf("%w: verifier key of a log: %w", policies.ErrMalformed, err)
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize {
		return policies.LogKey{}, fmt.Errorf("%w: verifier key of a log: not Ed25519", policies.ErrMalformed)
	}
	return policies.LogKey{Name: parts[0], Algorithm: "Ed25519", PublicKey: key[1:]}, nil
}

// cosignedAt is the time in a signature that verified.
func cosignedAt(sig note.Signature) time.Time {
	raw, err := base64.StdEncoding.DecodeString(sig.Base64)
	if err != nil || len(raw) < 12 {
		return time.Time{}
	}
	return time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0).UTC()
}

// noteVerifier is a cosigner as package note asks it.
type noteVerifier struct{ Cosigner }

func (v noteVerifier) Name() string    { return v.Cosigner.Name }
func (v noteVerifier) KeyHash() uint32 { return v.keyHash() }
