// Package evidence is what the key-use log records and how anybody checks it: entries, what opens them, inclusion proofs, checkpoints,
// and the receipts that the vault answers every acceptance with.
//
// The log's tree commits to [Entry] values: a kind, pseudonyms, an outcome, and a salted commitment to [Details]. The details and the signed
// document lie beside the entry in a [Body], which can be erased without hurting the tree. Whoever the entry concerns gets
// the [Opening], so that they can see what was recorded and nobody else can.
//
// The normal path of a receiver: [ParseReceipt], then [Receipt.Verify] with the vault document that was pinned and the hash of what was
// submitted. Only then is the document in force as far as this receiver knows. A page of history is the same for many entries: one
// [OpenCheckpoint], and [Evidence.Verify] for each.
//
// A reader asks for evidence of its own entries with a policies.EvidenceRequest and gets an [Answer] under its session's key: again one [OpenCheckpoint],
// and [Evidence.Verify] for each.
//
// A published checkpoint carries more lines than a receipt's: [OpenPublished] demands the token's, the host's and as many witnesses' as asked
// for. Cosignatures are made by a [CosignerKey].
//
// What does not fit is refused with policies.ErrMalformed, policies.ErrSignature or policies.ErrProof. What a receipt does not show: that the
// log has no other branch. For that, compare checkpoints with others.
package evidence

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

// Kind is what an entry of the key-use log records.
type Kind string

// The kinds of entries.
const (
	EntryGenesis    Kind = "genesis"     // the first entry: which vault, under which vault document
	EntryStart      Kind = "start"       // the vault opened its token and log, under a vault document and its version, with the light probe's findings
	EntryStop       Kind = "stop"        // the vault closed its log in good order
	EntryIdentity   Kind = "identity"    // an identity was enrolled
	EntryManifest   Kind = "manifest"    // a head moved
	EntryImport     Kind = "import"      // the token is about to import keys for a grant
	EntryGrant      Kind = "grant"       // a grant is in force; its keys are in the token
	EntryRevocation Kind = "revocation"  // fields of grants ended; refused from here
	EntryWriteGrant Kind = "write-grant" // somebody else may write fields
	EntryWriteEnd   Kind = "write-end"   // and may not any more
	EntryDestroyed  Kind = "destroyed"   // their keys are gone: from the token, or, in custody sealed, from the vault
	EntrySealing    Kind = "sealing"     // a sealing key is about to be destroyed, since no key in force is sealed under it any more
	EntrySession    Kind = "session"     // a reader opened a session
	EntryUse        Kind = "use"         // a re-encryption key is about to be used, for one field
	EntryFailed     Kind = "failed"      // a recorded use, import or end of a sealing key did not happen after all
	EntryRefusal    Kind = "refusal"     // an authenticated caller was refused
	EntryRefusals   Kind = "refusals"    // a count: of callers who could not be authenticated, or of one beyond what is listed
	EntryClosure    Kind = "closure"     // an owner closed their account: all of it ends, and what lies beside their entries before is erased later
	EntryErasure    Kind = "erasure"     // what lies beside entries whose retention is over is about to be erased
	EntryAccess     Kind = "access"      // somebody is given entries of this log; of what concerns themselves, a count

	EntrySuccession Kind = "succession"        // an identity has new keys; from here no others speak for it
	EntrySuspension Kind = "suspension"        // a reader suspended all grants that it has
	EntryFreeze     Kind = "freeze"            // two operators stopped all reading of an owner
	EntryThaw       Kind = "thaw"              // the owner ended that
	EntryGivenUp    Kind = "renunciation"      // a reader gave up fields of grants; refused from here
	EntryVoucher    Kind = "voucher"           // the operator vouched for an identity's name, or took that back
	EntryGuardrails Kind = "guardrails"        // the operator's rules from here on
	EntryNotice     Kind = "succession-notice" // a change of keys without the recovery key was announced, or an announcement taken back
)

// Entry is what the tree of the key-use log commits to: no value, no name, only a kind, pseudonyms, an outcome and a salted
// commitment to the [Details], which lie beside it and can be erased.
type Entry struct {
	Kind       Kind
	Owner      policies.Pseudonym
	Reader     policies.Pseudonym
	Outcome    policies.Code
	Commitment policies.Hash
}

// Bytes is the pinned encoding. The log puts the time before it: see [Leaf] of the log in [ParseLogLeaf].
func (e *Entry) Bytes() []byte {
	return policies.Encode("entry", []byte(e.Kind), e.Owner[:], e.Reader[:], []byte(e.Outcome), e.Commitment[:])
}

// ParseEntry is the inverse of [Entry.Bytes].
func ParseEntry(data []byte) (Entry, error) {
	f, err := policies.Split("entry", data, 5)
	if err != nil {
		return Entry{}, err
	}
	if len(f[0]) == 0 || len(f[1]) != 16 || len(f[2]) != 16 || len(f[4]) != 32 {
		return Entry{}, fmt.Errorf("%w: entry: a field has the wrong length", policies.ErrMalformed)
	}
	return Entry{Kind(f[0]), policies.Pseudonym(f[1]), policies.Pseudonym(f[2]), policies.Code(f[3]), policies.Hash(f[4])}, nil
}

// ParseLogLeaf splits a leaf of the key-use log: u64 Unix milliseconds, big-endian, stamped by the log, then the entry.
func ParseLogLeaf(leaf []byte) (time.Time, Entry, error) {
	if len(leaf) < 8 {
		return time.Time{}, Entry{}, fmt.Errorf("%w: a log leaf has at least 8 bytes", policies.ErrMalformed)
	}
	ms := binary.BigEndian.Uint64(leaf)
	if ms > 1<<53 {
		return time.Time{}, Entry{}, fmt.Errorf("%w: a log leaf of the year %d thousand", policies.ErrMalformed, ms/1000/86400/365/1000)
	}
	e, err := ParseEntry(leaf[8:])
	return time.UnixMilli(int64(ms)).UTC(), e, err
}

// Details are what an entry commits to. Which members are set depends on the kind.
type Details struct {
	Owner    policies.OwnerID       `json:"owner,omitzero"`
	Reader   policies.ReaderID      `json:"reader,omitzero"`
	Identity policies.IdentityID    `json:"identity,omitzero"`
	Pseudo   policies.Pseudonym     `json:"pseudonym,omitzero"` // assigned by an enrolment
	Document policies.Hash          `json:"document,omitzero"`  // hash of the document accepted or refused
	Seq      uint64                 `json:"seq,omitzero"`       // of the accepted document in its owner's chain
	Grant    policies.DocumentID    `json:"grant,omitzero"`
	Field    policies.Field         `json:"field,omitzero"`
	Epoch    uint64                 `json:"epoch,omitzero"`
	Author   policies.AuthorID      `json:"author,omitzero"`
	Version  uint64                 `json:"version,omitzero"`
	Head     policies.Hash          `json:"head,omitzero"` // the manifest under which the leaf was proven
	Leaf     policies.Hash          `json:"leaf,omitzero"`
	Session  policies.Hash          `json:"session,omitzero"`
	Request  policies.Hash          `json:"request,omitzero"` // hash of the signed read request
	Nonce    policies.Nonce         `json:"nonce,omitzero"`
	Purpose  string                 `json:"purpose,omitzero"`
	Token    string                 `json:"token,omitzero"` // serial
	Grade    string                 `json:"grade,omitzero"`
	Custody  policies.Custody       `json:"custody,omitzero"` // of the grant; of a destruction: sealed, if one of the keys was
	Period   uint32                 `json:"period,omitzero"`  // of the sealing key; of a destruction: the newest of that moment, with which a kept copy dies
	Expires  int64                  `json:"expires,omitzero"` // of the session, Unix seconds
	Decided  int64                  `json:"decided,omitzero"` // when a use was decided, Unix milliseconds; the entry's time is a little later
	Rules    policies.Hash          `json:"guardrails,omitzero"`
	Index    uint64                 `json:"index,omitzero"` // of the entry that this one speaks of
	Count    uint64                 `json:"count,omitzero"`
	Items    []policies.RevokedItem `json:"items,omitzero"`
	Checks   []byte                 `json:"checks,omitzero"` // of a grant in custody resident: a key check of KeyCheckSize bytes for each of its fields
	Note     string                 `json:"note,omitzero"`
}

// KeyCheckSize is the length of a key check in bytes: the first of SHA-256("sallyport key check" || 0x00 || x(rk·G)), by which a token finds the key that
// a grant imported under whatever name its host has given it since.
const KeyCheckSize = 16

// Opening opens an entry's commitment: SHA-256(Encode("entry-commitment", salt, SHA-256(details))).
type Opening struct {
	Salt    policies.Nonce `json:"salt"`
	Details []byte         `json:"details"` // the JSON of Details, as it was committed to
}

// Commit draws a salt and commits to details.
func Commit(d *Details) (Opening, policies.Hash) {
	text, err := json.Marshal(d, jsontext.AllowInvalidUTF8(true)) // what is not UTF-8 becomes U+FFFD: a token's words may be anything
	if err != nil {                                               // no other member of Details can fail
		panic(err)
	}
	o := Opening{Salt: policies.NewNonce(), Details: text}
	return o, o.Commitment()
}

// Commitment is the value that an entry carries for this opening.
func (o *Opening) Commitment() policies.Hash {
	sum := sha256.Sum256(o.Details)
	return sha256.Sum256(policies.Encode("entry-commitment", o.Salt[:], sum[:]))
}

// Read decodes the details strictly.
func (o *Opening) Read() (*Details, error) {
	d := new(Details)
	if err := envelope.Decode(o.Details, d); err != nil {
		return nil, fmt.Errorf("entry details: %w", err)
	}
	return d, nil
}

// Body lies beside an entry in the journal and can be erased: what opens the commitment, and the signed document, if this
// entry is the first to speak of it.
type Body struct {
	Opening
	Document []byte // an envelope's raw bytes, or empty
}

// Bytes is u32 length || bytes of salt, details and document, big-endian.
func (b *Body) Bytes() []byte {
	out := make([]byte, 0, 12+len(b.Salt)+len(b.Details)+len(b.Document))
	for _, part := range [][]byte{b.Salt[:], b.Details, b.Document} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(part)))
		out = append(out, part...)
	}
	return out
}

// ParseBody is the inverse of [Body.Bytes].
func ParseBody(data []byte) (Body, error) {
	var b Body
	var parts [3][]byte
	for i := range parts {
		if len(data) < 4 || uint64(len(data)-4) < uint64(binary.BigEndian.Uint32(data)) {
			return b, fmt.Errorf("%w: body: cut short in part %d", policies.ErrMalformed, i+1)
		}
		n := binary.BigEndian.Uint32(data)
		parts[i], data = data[4:4+n:4+n], data[4+n:]
	}
	if len(data) != 0 || len(parts[0]) != len(b.Salt) {
		return b, fmt.Errorf("%w: body: wrong lengths", policies.ErrMalformed)
	}
	b.Salt, b.Details, b.Document = policies.Nonce(parts[0]), parts[1], parts[2]
	return b, nil
}

// Evidence shows that an entry is in the key-use log: the leaf, what opens it, and an RFC 6962 inclusion proof under a checkpoint.
type Evidence struct {
	Index   uint64          `json:"index"`
	Leaf    []byte          `json:"leaf"`
	Opening Opening         `json:"opening"`
	Proof   []policies.Hash `json:"proof,omitzero"`
}

// Answer answers a reader's request for evidence. It travels sealed under a key that the storefront does not have (pre.SessionKey).
type Answer struct {
	// Checkpoint is a C2SP signed note by the token's key, under which all of it is proven.
	Checkpoint string `json:"checkpoint"`
	// Evidence is in the order of the request's indexes, or newest first. An opening without salt and details was erased.
	Evidence []Evidence `json:"evidence"`
	// Absent are the asked indexes at which there is no entry of this reader's, whatever else is there.
	Absent []uint64 `json:"absent,omitzero"`
	// Before is what to ask for next; 0: there is no more.
	Before uint64 `json:"before,omitzero"`
}

// Bounds of an answer, in bytes, and of a proof in it.
const (
	// MaxAnswer is more than any answer has.
	MaxAnswer = 8 << 20
	maxProof  = 64
)

// Bytes is the JSON of an answer.
func (a *Answer) Bytes() []byte {
	out, err := json.Marshal(a, json.Deterministic(true))
	if err != nil { // no member can fail: what is text is a checkpoint of our own
		panic(err)
	}
	return out
}

// ParseAnswer reads an answer strictly and verifies nothing but its form.
func ParseAnswer(data []byte) (*Answer, error) {
	if len(data) > MaxAnswer {
		return nil, fmt.Errorf("%w: evidence: more than %d bytes", policies.ErrMalformed, MaxAnswer)
	}
	a := new(Answer)
	if err := envelope.Decode(data, a); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	if len(a.Evidence)+len(a.Absent) > policies.MaxEvidence {
		return nil, fmt.Errorf("%w: evidence: more than %d entries", policies.ErrMalformed, policies.MaxEvidence)
	}
	for i := range a.Evidence {
		if len(a.Evidence[i].Proof) > maxProof {
			return nil, fmt.Errorf("%w: evidence: a proof of more than %d hashes", policies.ErrMalformed, maxProof)
		}
	}
	return a, nil
}

// Receipt answers every acceptance: evidence under a checkpoint that the token signed.
type Receipt struct {
	Type     string           `json:"type"` // "receipt"
	Suite    string           `json:"suite"`
	Vault    policies.VaultID `json:"vault"`
	Document policies.Hash    `json:"document"` // what was accepted
	Evidence Evidence         `json:"evidence"`
	// Checkpoint is a C2SP signed note: origin, tree size, root, signature by the log key.
	Checkpoint string `json:"checkpoint"`
}

// ParseReceipt reads a receipt strictly and verifies nothing.
func ParseReceipt(data []byte) (*Receipt, error) {
	r := new(Receipt)
	if err := envelope.Decode(data, r); err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	if r.Type != "receipt" || r.Suite != policies.Suite {
		return nil, fmt.Errorf("%w: receipt: type %q or suite %q is not known", policies.ErrMalformed, r.Type, r.Suite)
	}
	return r, nil
}

// Checkpoint is a verified state of the key-use log.
type Checkpoint struct {
	Size uint64
	Root policies.Hash
}

// OpenCheckpoint verifies a checkpoint under the log key of a vault document: the token's line alone. That is what a receipt carries,
// because it is made on the way of a key use and the token's line is what says that the vault recorded it. The host's line, which holds
// when Ed25519 no longer does, is made at publication, and [OpenPublished] demands it: every entry that a receipt shows is soon under a
// published checkpoint too.
func OpenCheckpoint(text string, key policies.LogKey) (Checkpoint, error) {
	c, _, err := openNote(text, key, nil)
	return c, err
}

// openNote opens a checkpoint that key signed. Of others, whatever line is there must verify.
func openNote(text string, key policies.LogKey, others []Cosigner) (Checkpoint, *note.Note, error) {
	encoded, err := note.NewEd25519VerifierKey(key.Name, key.PublicKey)
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("%w: log key: %w", policies.ErrMalformed, err)
	}
	token, err := note.NewVerifier(encoded)
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("%w: log key: %w", policies.ErrMalformed, err)
	}
	verifiers := []note.Verifier{token}
	for _, c := range others {
		verifiers = append(verifiers, noteVerifier{c})
	}
	n, err := note.Open([]byte(text), note.VerifierList(verifiers...))
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("%w: checkpoint: %w", policies.ErrSignature, err)
	}
	if !slices.ContainsFunc(n.Sigs, func(s note.Signature) bool { return s.Name == token.Name() && s.Hash == token.KeyHash() }) {
		return Checkpoint{}, nil, fmt.Errorf("%w: checkpoint: no line of the log key %s", policies.ErrSignature, key.Name)
	}
	origin, c, err := parseCheckpoint(n.Text)
	if err == nil && origin != key.Name {
		err = fmt.Errorf("%w: checkpoint: of another origin", policies.ErrMalformed)
	}
	if err != nil {
		return Checkpoint{}, nil, err
	}
	return c, n, nil
}

// Text is what the keys sign: origin, size and root, a line each (C2SP tlog-checkpoint).
func (c Checkpoint) Text(origin string) string {
	return fmt.Sprintf("%s\n%d\n%s\n", origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// parseCheckpoint is the inverse of [Checkpoint.Text] and takes nothing else.
func parseCheckpoint(text string) (origin string, c Checkpoint, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 {
		return "", c, fmt.Errorf("%w: checkpoint: not three lines", policies.ErrMalformed)
	}
	size, err := strconv.ParseUint(lines[1], 10, 64)
	root, rootErr := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || rootErr != nil || len(root) != len(c.Root) {
		return "", c, fmt.Errorf("%w: checkpoint: no size or no root", policies.ErrMalformed)
	}
	c = Checkpoint{Size: size, Root: policies.Hash(root)}
	if c.Text(lines[0]) != text { // one spelling only
		return "", Checkpoint{}, fmt.Errorf("%w: checkpoint: not exactly origin, size and root", policies.ErrMalformed)
	}
	return lines[0], c, nil
}

// ErrErased means that an entry is proven, and what opens it was erased when its time was over: kind, outcome and time are all that is left.
var ErrErased = fmt.Errorf("%w: the details of the entry were erased", policies.ErrProof)

// Verify checks that an entry is in the log under the checkpoint and that the opening opens it, and returns what it says. Without an opening, time and
// entry are returned, and [ErrErased].
func (e *Evidence) Verify(c Checkpoint) (time.Time, Entry, *Details, error) {
	proof := make(tlog.RecordProof, len(e.Proof))
	for i := range e.Proof {
		proof[i] = tlog.Hash(e.Proof[i])
	}
	if c.Size > 1<<62 || e.Index >= c.Size {
		return time.Time{}, Entry{}, nil, fmt.Errorf("%w: entry %d is not in a log of %d", policies.ErrProof, e.Index, c.Size)
	}
	if err := tlog.CheckRecord(proof, int64(c.Size), tlog.Hash(c.Root), int64(e.Index), tlog.RecordHash(e.Leaf)); err != nil {
		return time.Time{}, Entry{}, nil, fmt.Errorf("%w: %w", policies.ErrProof, err)
	}
	at, entry, err := ParseLogLeaf(e.Leaf)
	if err != nil {
		return time.Time{}, Entry{}, nil, err
	}
	if e.Opening.Salt.IsZero() && len(e.Opening.Details) == 0 {
		return at, entry, nil, ErrErased
	}
	if e.Opening.Commitment() != entry.Commitment {
		return time.Time{}, Entry{}, nil, fmt.Errorf("%w: the details are not those that the entry commits to", policies.ErrProof)
	}
	details, err := e.Opening.Read()
	return at, entry, details, err
}

// Verify checks a receipt against the vault document that the client pinned, and that it speaks of the document with this
// hash. It returns when the document was accepted and what was recorded.
func (r *Receipt) Verify(v *policies.VaultDocument, document policies.Hash) (time.Time, Entry, *Details, error) {
	if r.Vault != v.Vault || r.Document != document {
		return time.Time{}, Entry{}, nil, fmt.Errorf("%w: the receipt is for another vault or document", policies.ErrProof)
	}
	c, err := OpenCheckpoint(r.Checkpoint, v.LogKey)
	if err != nil {
		return time.Time{}, Entry{}, nil, err
	}
	at, entry, details, err := r.Evidence.Verify(c)
	if err != nil {
		return time.Time{}, Entry{}, nil, err
	}
	if details.Document != document || entry.Outcome != policies.CodeAccepted {
		return time.Time{}, Entry{}, nil, fmt.Errorf("%w: the entry does not say that this document was accepted", policies.ErrProof)
	}
	return at, entry, details, nil
}
