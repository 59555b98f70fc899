// Package api is what a storefront, or an owner without one, says to a vault: paths, JSON bodies and the binary form
// of the one hot call. It is a leaf that both sides import and holds no logic beyond encoding.
//
// Two listeners speak it. The storefront's (client certificate or Unix socket) offers everything. The owners' offers what an
// owner needs when the storefront is silent: the vault document, submitting signed documents (the refusal of one that is not the next says
// where the chain stands), proof that the log still has what it had, and, for readers, of what it says of them; to auditors it gives the log's
// entries.
// Every document is signed, so neither listener is trusted for anything but availability.
package api

import (
	"encoding/binary"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// Paths. Errors are RFC 9457 problem documents, see package problem.
const (
	PathVault          = "/v1/vault"                         // GET: the vault document's envelope
	PathHealth         = "/v1/health"                        // GET: [Health]
	PathDocuments      = "/v1/documents"                     // POST [Submission]: evidence.Receipt
	PathFetch          = "/v1/documents/fetch"               // POST [Fetch]: [Fetched]
	PathChain          = "/v1/owners/{owner}/chain"          // GET: [ChainState]; storefront's listener only
	PathHead           = "/v1/owners/{owner}/heads/{author}" // GET: [HeadState]; storefront's listener only
	PathHistory        = "/v1/owners/{owner}/history"        // GET ?before=&limit=: [History]; storefront's listener only
	PathFreeze         = "/v1/owners/{owner}/freeze"         // GET: [FreezeState]; storefront's listener only
	PathLogCheckpoint  = "/v1/log/checkpoint"                // GET: the published checkpoint, a C2SP signed note
	PathLogVault       = "/v1/log/vault"                     // GET: the vault document's envelope, as it was published
	PathLogTile        = "/v1/log/tile/{tile...}"            // GET: a hash tile of the published log: [ParseTile]
	PathLogQuery       = "/v1/log/query"                     // POST an auditor's query, signed: what a bundle or a bodies file of the published form has
	PathLogWitnessed   = "/v1/log/witnessed/{number...}"     // GET: an older checkpoint that witnesses cosigned
	PathLogConsistency = "/v1/log/consistency"               // GET ?from=&to=: [Consistency]
	PathEvidence       = "/v1/evidence"                      // POST, a request for evidence, its envelope: [SealedEvidence]
	PathReencrypt      = "/v1/reencrypt"                     // POST, binary: [ParseCalls], [ParseReplies]; storefront's listener only
)

// Bounds on one reencrypt call.
const (
	MaxCalls       = 1024
	MaxCallsSize   = 32 << 20 // bytes
	MaxSubmission  = 8 << 20  // bytes
	MaxQuery       = 16 << 10 // bytes
	MaxFetch       = 64 << 10 // bytes
	MaxFetched     = 1 << 20  // bytes of documents in one answer, unless one alone has more
	MaxEvidence    = 64 << 10 // bytes of a request for evidence
	ReencryptMedia = "application/vnd.sallyport.reencrypt.v1"
)

// Submission is one signed document for the vault to act on, of any type that section 4 of the specification names as one.
type Submission struct {
	Envelope jsontext.Value `json:"envelope"`
	// Keys are a grant's wrapped re-encryption keys, one for each field and token that the grant names.
	Keys []SealedKey `json:"keys,omitempty"`
}

// SealedKey is a wrapped re-encryption key inside HPKE to the vault's import_hpke_key: enc || ciphertext, with the info
// of pre.ImportInfo. It exists on the wire and in the vault's memory only.
type SealedKey struct {
	Field  policies.Field    `json:"field"`
	Author policies.AuthorID `json:"author"`
	Token  string            `json:"token"`
	Sealed []byte            `json:"sealed"`
}

// Fetch asks for documents of an owner's chain that the vault accepted and the storefront does not show. The question is signed: Envelope is a manifest of
// the owner's that can never be published, made within the last minute, of version 1 and with a prev that is the hash of nothing. Whoever holds documents that the owner signed for other ends
// can fetch nothing with them.
type Fetch struct {
	Envelope jsontext.Value `json:"envelope"`
	Before   policies.Hash  `json:"before,omitzero"` // begin with the document before this one; zero: with the newest
}

// Fetched is a page of an owner's chain, newest first. What is missing follows from the oldest document's prev.
type Fetched struct {
	Documents []jsontext.Value `json:"documents"`
}

// ChainState is where an owner's chain stands.
type ChainState struct {
	Seq     uint64            `json:"seq"`
	Hash    policies.Hash     `json:"hash"`    // of the document with this seq; the owner's id for seq 0
	Receipt *evidence.Receipt `json:"receipt"` // of that document, or of the identity for seq 0
}

// HeadState is the newest manifest the vault accepted of an author for an owner.
type HeadState struct {
	Version  uint64            `json:"version"` // 0: none yet
	Manifest policies.Hash     `json:"manifest,omitzero"`
	Receipt  *evidence.Receipt `json:"receipt,omitempty"`
}

// History is a page of the key-use log's entries that concern an owner, newest first, each proven under the checkpoint.
type History struct {
	Checkpoint string              `json:"checkpoint"`
	Entries    []evidence.Evidence `json:"entries"`
	Before     uint64              `json:"before,omitzero"` // pass it on to get the next page; 0: there is none
	// Names maps pseudonyms in the entries to identities that the openings do not name themselves; usually empty.
}

// FreezeState says whether all reading of an owner is stopped.
type FreezeState struct {
	Receipt *evidence.Receipt `json:"receipt,omitempty"` // of the newest freeze, if no thaw came after it
}

// Consistency proves that the key-use log's tree of To entries begins with that of From entries (RFC 6962). It is hashes only, for anyone.
type Consistency struct {
	From  uint64          `json:"from"`
	To    uint64          `json:"to"`
	Proof []policies.Hash `json:"proof"`
}

// SealedEvidence is the vault's answer to a reader's request for evidence. Only the reader can open it.
type SealedEvidence struct {
	Answer []byte `json:"answer"` // pre.SessionKey.OpenEvidence, evidence.ParseAnswer
}

// Health tells whether keys can be used, and if not why.
type Health struct {
	// Status is "ok", "degraded" (keys are used, but not everything is done that owners ask for) or "stopped". Ok with a reason: something needs the operator, and nobody else notices.
	Status  string `json:"status"`
	Reason  string `json:"reason,omitempty"`
	LogSize uint64 `json:"log_size"`
	DevMode bool   `json:"dev_mode,omitempty"`

	Keys      uint64             `json:"keys"`                    // re-encryption keys in force, in either custody
	Resident  uint64             `json:"keys_resident"`           // of these, keys that rest in the token
	Sealed    uint64             `json:"keys_sealed"`             // and keys that rest in the vault, sealed by the token
	Disputed  uint64             `json:"keys_disputed,omitempty"` // of the resident ones those of whose name the token had different keys at the start: none is used
	Custodies []policies.Custody `json:"custodies"`               // what the vault document offers for new grants
	Sealing   *Sealing           `json:"sealing,omitempty"`
	Space     *Space             `json:"space,omitempty"`
	// Guardrails are the operator's rules in force. They are missing where there are none.
	Guardrails *Guardrails `json:"guardrails,omitempty"`

	Publication *Publication `json:"publication,omitempty"`
}

// Guardrails name the operator's rules in force, not what they say.
type Guardrails struct {
	Document policies.Hash `json:"document"`
	Index    uint64        `json:"index"` // of their entry in the key-use log
	Rules    int           `json:"rules"` // how many there are
}

// Publication tells how far the key-use log is published. It is missing where it is not. Key use does not depend on it.
type Publication struct {
	Size   uint64 `json:"size"`             // entries under the published checkpoint; log_size less this is what lags
	At     int64  `json:"at,omitzero"`      // Unix seconds of the newest publication since the vault started
	Failed bool   `json:"failed,omitempty"` // the last try did not succeed; the vault's own log says why
	// Reason is why: witnesses (too few cosigned), no_space, inconsistent (what was published is not in the log), failed.
	Reason    string    `json:"reason,omitempty"`
	Witnesses []Witness `json:"witnesses,omitempty"`
}

// Witness tells what became of the last question to a witness.
type Witness struct {
	Name   string `json:"name"`
	Size   uint64 `json:"size"`             // of the log that it cosigned last, as far as this vault knows since its start
	At     int64  `json:"at,omitzero"`      // Unix seconds of that, by its clock
	Reason string `json:"reason,omitempty"` // away, refused, answer (it sent no cosignature), ahead (it says that it cosigned more than this log has), failed
}

// Space is the room of the key-use log above its reserve, and how long it lasts.
type Space struct {
	Free     uint64   `json:"free"`               // bytes
	PerHour  uint64   `json:"per_hour"`           // bytes that the log took an hour, over the last day; 0: not known yet
	DaysLeft *float64 `json:"days_left,omitzero"` // at that pace, if nothing is moved away; missing: not known yet
}

// Sealing tells how the vault does with custody sealed. It is missing where there is none.
type Sealing struct {
	Period  uint32 `json:"period"`            // of the newest sealing key
	Older   uint64 `json:"older,omitzero"`    // keys that are still under an older one, and are being moved
	Missing uint64 `json:"missing,omitzero"`  // keys of grants in force that are lost; their owners must grant again
	Decoys  uint64 `json:"decoys,omitzero"`   // keys in the token that call themselves sealing keys and are none: not used, but somebody with the PIN made them
	Stopped bool   `json:"stopped,omitempty"` // the keys' file could not be written: until the vault is started again no grant of custody sealed is taken and no revocation in it is completed
}

// Call is a reader's signed request together with what the storefront found for each of its items.
type Call struct {
	Request []byte // the read request's envelope, raw
	Items   []CallItem
}

// CallItem is what the storefront offers for one item of the request, in its order. An item without a leaf (nothing
// stored) or grant (none found) is sent all the same, zero: the vault decides and records.
type CallItem struct {
	Grant policies.DocumentID
	Head  policies.Hash // hash of the manifest under which the proof holds
	Leaf  []byte        // policies.Leaf bytes, or empty
	Point [65]byte      // the capsule's E, uncompressed, so that the vault need not take a square root
	Proof policies.Proof
}

// Reply answers one call. Either Code says why the whole call was refused, or Outcomes has one code per item and Sealed the
// answer that only the reader can open.
type Reply struct {
	Code     policies.Code
	Outcomes []policies.Code
	Sealed   []byte
}

// AppendCalls encodes calls: u32 count; per call u32 length || request, u16 count of items; per item grant (32), head (32),
// u16 length || leaf, point (65), u64 index, u8 count of path hashes, 32 each. Integers are big-endian.
func AppendCalls(dst []byte, calls []Call) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(calls)))
	for i := range calls {
		c := &calls[i]
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(c.Request)))
		dst = append(dst, c.Request...)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(c.Items)))
		for j := range c.Items {
			it := &c.Items[j]
			dst = append(dst, it.Grant[:]...)
			dst = append(dst, it.Head[:]...)
			dst = binary.BigEndian.AppendUint16(dst, uint16(len(it.Leaf)))
			dst = append(dst, it.Leaf...)
			dst = append(dst, it.Point[:]...)
			dst = binary.BigEndian.AppendUint64(dst, it.Proof.Index)
			dst = append(dst, byte(len(it.Proof.Path)))
			for k := range it.Proof.Path {
				dst = append(dst, it.Proof.Path[k][:]...)
			}
		}
	}
	return dst
}

// ParseCalls is the inverse of AppendCalls. Requests and leaves alias data.
func ParseCalls(data []byte) ([]Call, error) {
	r := reader{data: data}
	n := r.u32()
	if n > MaxCalls {
		return nil, fmt.Errorf("%w: at most %d calls at once", policies.ErrMalformed, MaxCalls)
	}
	calls := make([]Call, n)
	for i := range calls {
		c := &calls[i]
		c.Request = r.bytes(uint64(r.u32()))
		items := r.u16()
		if int(items) > policies.MaxReadItems || r.short {
			return nil, fmt.Errorf("%w: calls: call %d is cut short or has too many items", policies.ErrMalformed, i)
		}
		c.Items = make([]CallItem, items)
		for j := range c.Items {
			it := &c.Items[j]
			copy(it.Grant[:], r.bytes(32))
			copy(it.Head[:], r.bytes(32))
			it.Leaf = r.bytes(uint64(r.u16()))
			copy(it.Point[:], r.bytes(65))
			it.Proof.Index = r.u64()
			path := r.bytes(32 * uint64(r.u8()))
			it.Proof.Path = make([]policies.Hash, len(path)/32)
			for k := range it.Proof.Path {
				it.Proof.Path[k] = policies.Hash(path[32*k:])
			}
		}
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("calls: %w", err)
	}
	return calls, nil
}

// AppendReplies encodes replies: u32 count; per reply u8 length || code, u16 count of outcomes, u8 length || outcome
// each, u32 length || sealed answer.
func AppendReplies(dst []byte, replies []Reply) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(replies)))
	for i := range replies {
		r := &replies[i]
		dst = append(dst, byte(len(r.Code)))
		dst = append(dst, r.Code...)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(r.Outcomes)))
		for _, o := range r.Outcomes {
			dst = append(dst, byte(len(o)))
			dst = append(dst, o...)
		}
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(r.Sealed)))
		dst = append(dst, r.Sealed...)
	}
	return dst
}

// ParseReplies is the inverse of AppendReplies. Sealed answers alias data.
func ParseReplies(data []byte) ([]Reply, error) {
	r := reader{data: data}
	n := r.u32()
	if n > MaxCalls {
		return nil, fmt.Errorf("%w: at most %d replies at once", policies.ErrMalformed, MaxCalls)
	}
	replies := make([]Reply, n)
	for i := range replies {
		p := &replies[i]
		p.Code = policies.Code(r.bytes(uint64(r.u8())))
		outcomes := r.u16()
		if int(outcomes) > policies.MaxReadItems || r.short {
			return nil, fmt.Errorf("%w: replies: reply %d is cut short or has too many items", policies.ErrMalformed, i)
		}
		p.Outcomes = make([]policies.Code, outcomes)
		for j := range p.Outcomes {
			p.Outcomes[j] = policies.Code(r.bytes(uint64(r.u8())))
		}
		p.Sealed = r.bytes(uint64(r.u32()))
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("replies: %w", err)
	}
	return replies, nil
}

// reader takes bytes off the front; after the first shortage everything is zero and short is set.
type reader struct {
	data  []byte
	short bool
}

func (r *reader) bytes(n uint64) []byte {
	if r.short || n > uint64(len(r.data)) {
		r.short = true
		return nil
	}
	out := r.data[:n:n]
	r.data = r.data[n:]
	return out
}

func (r *reader) u8() uint8 {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) end() error {
	if r.short {
		return fmt.Errorf("%w: cut short", policies.ErrMalformed)
	}
	if len(r.data) != 0 {
		return fmt.Errorf("%w: %d bytes too many", policies.ErrMalformed, len(r.data))
	}
	return nil
}
