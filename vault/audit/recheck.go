package audit

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/guardrails"
	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/policies/writing"
)

// Why a release is not justified, besides the codes of a decision (package policies), which are given where the decision made anew comes to one. They are
// stable: scripts and rules may rest on them.
const (
	ReasonGrantSignature    = "grant_signature"    // the grant is not signed by the owner
	ReasonGrantChain        = "grant_chain"        // the grant is not the next document of the owner's chain
	ReasonHead              = "head"               // the item was proven under another head than the newest
	ReasonHeadSignature     = "head_signature"     // the head is not signed by its author
	ReasonWriteGrant        = "write_grant"        // the write grant, or its end, is not signed by the owner, or not the next document of the owner's chain; or the end leaves out what the writer wrote last
	ReasonLeaf              = "leaf"               // two items of one field under one head
	ReasonVersion           = "version"            // an older version than one that was released before
	ReasonSessionSignature  = "session_signature"  // the session is not signed by the reader
	ReasonRequest           = "request"            // there is no request, or it does not ask for this
	ReasonRequestSignature  = "request_signature"  // the request is not signed by the session's key
	ReasonQuery             = "query_signature"    // entries were given out without an auditor's signed query for them
	ReasonErasure           = "erasure"            // a body is gone, and no entry of the log says that it was to be erased
	ReasonNonce             = "nonce"              // the nonce was used before
	ReasonTime              = "time"               // decided too long before, or after, the log took the entry
	ReasonPseudonym         = "pseudonym"          // the entry is under a pseudonym that is not the owner's or the reader's
	ReasonIdentity          = "identity"           // owner or reader is not enrolled
	ReasonIdentitySignature = "identity_signature" // the identity does not certify itself
	ReasonFreeze            = "freeze"             // a freeze without two signatures, or by an order that was used before or was over; a thaw by somebody else, or of before the freeze
	ReasonSuccession        = "succession"         // an identity's keys were replaced by somebody who may not, or too soon
	ReasonGuardrails        = "guardrails"         // the operator's rules are not signed by the ceremony key, or the entry does not name those in force
	ReasonVoucher           = "voucher"            // a name was vouched for by somebody who may not, or that looks like another's
	ReasonDetails           = "details"            // the details are not what a release has
)

// Why a release cannot be checked.
const (
	ReasonErased  = "erased"  // what it rests on was erased
	ReasonAbsent  = "absent"  // what it rests on is not in the source
	ReasonUndated = "undated" // the entry does not say when it was decided
)

// Bounds of how far the time of an entry may lie from that of its decision.
const (
	latestEntry   = time.Minute     // after it: a commit of the log that takes longer stops the log
	earliestEntry = 5 * time.Second // before it: a clock that steps further stops the log
)

// MaxListed is how many findings of a kind a report lists. All are counted.
const MaxListed = 500

// Report is what a recheck found. Of the same log and range there is one report, byte for byte.
type Report struct {
	policies.Header
	Vault      policies.VaultID    `json:"vault"`
	Auditor    policies.IdentityID `json:"auditor,omitzero"` // who signs it
	Checkpoint string              `json:"checkpoint"`       // the log that was checked, all of it
	From       uint64              `json:"from"`             // the releases that were checked: entries from here
	To         uint64              `json:"to"`               // up to, and without, this one
	Releases   uint64              `json:"releases"`
	Justified  uint64              `json:"justified"`
	// Unjustified and Unchecked are the other releases, Documents what is wrong with documents that the vault acted on, whether anything was released by
	// them or not.
	Unjustified Findings `json:"unjustified"`
	Unchecked   Findings `json:"not_checkable"`
	Documents   Findings `json:"documents"`
	// Unbounded are justified releases that would not be at another moment of those at which they can have happened: by the witnesses, whose names are
	// here, or, without any, by the vault's own clock alone.
	Unbounded Findings `json:"unbounded"`
	Witnesses []string `json:"witnesses,omitempty"`
	Need      int      `json:"need,omitzero"`
}

// Findings are counts and the first [MaxListed] of what was counted.
type Findings struct {
	Count   uint64        `json:"count"`
	Reasons []ReasonCount `json:"reasons"`
	Listed  []Finding     `json:"listed"`
}

// ReasonCount is how many findings have a reason, among others or alone.
type ReasonCount struct {
	Code  string `json:"code"`
	Count uint64 `json:"count"`
}

// Finding is one entry of the log and why it is listed.
type Finding struct {
	Index   uint64              `json:"index"`
	Time    time.Time           `json:"time"`
	Kind    evidence.Kind       `json:"kind"`
	Owner   policies.Pseudonym  `json:"owner"`
	Reader  policies.Pseudonym  `json:"reader"`
	Grant   policies.DocumentID `json:"grant,omitzero"`
	Field   policies.Field      `json:"field,omitzero"`
	Reasons []Reason            `json:"reasons"`
}

// Reason is a code and what it says in this case.
type Reason struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

// Bytes is the report as JSON.
func (r *Report) Bytes() []byte {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil { // nothing in it can fail
		panic(err)
	}
	return append(b, '\n')
}

// Without is how many of the findings have a reason that is not allowed.
func (f *Findings) Without(allowed []string) (n uint64) {
	n = f.Count
	for _, x := range f.Listed {
		if !slices.ContainsFunc(x.Reasons, func(r Reason) bool { return !slices.Contains(allowed, r.Code) }) {
			n--
		}
	}
	if f.Count > uint64(len(f.Listed)) { // of those that are not listed, only what all reasons together say is known
		if !slices.ContainsFunc(f.Reasons, func(r ReasonCount) bool { return !slices.Contains(allowed, r.Code) }) {
			return 0
		}
	}
	return n
}

func (f *Findings) add(x Finding) {
	f.Count++
	seen := map[string]bool{}
	for _, r := range x.Reasons {
		if seen[r.Code] {
			continue
		}
		seen[r.Code] = true
		i, ok := slices.BinarySearchFunc(f.Reasons, r.Code, func(c ReasonCount, code string) int { return cmp.Compare(c.Code, code) })
		if !ok {
			f.Reasons = slices.Insert(f.Reasons, i, ReasonCount{Code: r.Code})
		}
		f.Reasons[i].Count++
	}
	if len(f.Listed) < MaxListed {
		f.Listed = append(f.Listed, x)
	}
}

// Range is a part of a log, by index or by the entries' times; the zero Range is all of it.
type Range struct {
	From, To     uint64 // To 0: the end
	Since, Until time.Time
}

func (r Range) has(x *Record) bool {
	return x.Index >= r.From && (r.To == 0 || x.Index < r.To) && (r.Since.IsZero() || !x.Time.Before(r.Since)) && (r.Until.IsZero() || x.Time.Before(r.Until))
}

// Recheck replays the whole log, verifies it as [Log.Verify] does, and decides every release of a part of it anew, from the log and the signed documents in it
// alone. A release is justified if
//
//   - the owner signed a grant that was imported and accepted as the next document of their chain, and nothing revoked the field before;
//   - the reader signed a session, and the session's key a request, with a nonce that is new, that asks for this owner, field and author;
//   - the vault decided within the time of session, request and grant, and the log took the entry about when it was decided;
//   - the item was that of the granted slot, under the newest head, which its author signed, and no older than one released before;
//   - the author is the owner, or the owner signed a write grant that is the next document of their chain, in force when that head was accepted, and not ended, or
//     ended with this very leaf kept;
//   - the times of witnesses, if any are demanded, are not against that;
//   - policies.Check permits it, with purpose and with the day's count as the log has it;
//   - the entry names the operator's guardrails in force, which the ceremony key signed, and none of them is against it. A voucher counts if the ceremony key signed it;
//     the token's serial number and grade are what the vault said at its newest start.
//
// Whether the item's leaf was under that head cannot be seen: the proof is not in the log.
func (l *Log) Recheck(ctx context.Context, part Range) (*Report, error) {
	s := newReplay(l, part)
	bounds, err := l.bounds(ctx)
	if err != nil {
		return nil, err
	}
	s.windows.bounds = bounds
	c := newChecker()
	err = l.each(ctx, prepare, func(b *hashed) error {
		batch := &batch{}
		for i := range b.records {
			s.apply(&b.records[i], &b.prepared[i], batch)
		}
		c.check(batch)
		return nil
	})
	if err == nil {
		last := &batch{}
		s.end(last)
		c.check(last)
	}
	tally := c.end()
	if err != nil {
		return nil, err
	}
	r := &Report{
		Header: policies.Header{Type: "audit-report", Suite: policies.Suite, Time: max(1, s.now.Unix())},
		Vault:  l.Document.Vault, Checkpoint: l.Note, From: s.from, To: s.to,
		Releases: s.releases, Justified: s.releases - tally.unjustified.Count - tally.unchecked.Count,
		Unjustified: tally.unjustified, Unchecked: tally.unchecked, Documents: tally.documents, Unbounded: tally.unbounded, Need: l.Witnesses.Need,
	}
	for _, w := range l.Witnesses.Of {
		r.Witnesses = append(r.Witnesses, w.Name)
	}
	r.ID = sha256.Sum256(policies.Encode("audit-report", []byte(l.Note), policies.U64(r.From), policies.U64(r.To)))
	return r, nil
}

// prepared is what a record holds, decoded before its turn comes.
type prepared struct {
	details  *evidence.Details
	signed   *envelope.Envelope
	document any   // decoded, of the type that the entry's kind must have
	err      error // why there is no document although there are bytes
}

func prepare(b *hashed) error {
	b.prepared = make([]prepared, len(b.records))
	for i := range b.records {
		r, p := &b.records[i], &b.prepared[i]
		if r.Opening == nil {
			continue
		}
		var err error
		if p.details, err = r.Opening.Read(); err != nil {
			return damage(r.beside, int64(r.Index), "%w", err)
		}
		if len(r.Document) == 0 {
			continue
		}
		if p.signed, err = envelope.Parse(r.Document); err != nil {
			return damage(r.beside, int64(r.Index), "%w", err)
		}
		switch r.Entry.Kind {
		case evidence.EntryIdentity:
			p.document, p.err = policies.Decode[policies.Identity](p.signed)
		case evidence.EntryManifest:
			p.document, p.err = policies.Decode[policies.Manifest](p.signed)
		case evidence.EntryImport:
			p.document, p.err = policies.Decode[policies.Grant](p.signed)
		case evidence.EntryRevocation:
			p.document, p.err = policies.Decode[policies.Revocation](p.signed)
		case evidence.EntryClosure:
			p.document, p.err = policies.Decode[policies.Closure](p.signed)
		case evidence.EntryWriteGrant:
			p.document, p.err = policies.Decode[writing.Grant](p.signed)
		case evidence.EntryWriteEnd:
			p.document, p.err = policies.Decode[writing.End](p.signed)
		case evidence.EntrySession:
			p.document, p.err = policies.Decode[policies.Session](p.signed)
		case evidence.EntrySuccession, evidence.EntryNotice, evidence.EntrySuspension:
			decodeSuccession(r.Entry.Kind, p)
		case evidence.EntryFreeze, evidence.EntryThaw:
			decodeFreeze(r.Entry.Kind, p)
		case evidence.EntryGivenUp:
			p.document, p.err = policies.Decode[succession.Renunciation](p.signed)
		case evidence.EntryVoucher:
			p.document, p.err = policies.Decode[names.Voucher](p.signed)
		case evidence.EntryGuardrails:
			p.document, p.err = policies.Decode[guardrails.Document](p.signed)
		case evidence.EntryUse, evidence.EntryRefusal:
			p.document, p.err = policies.Decode[policies.ReadRequest](p.signed)
		case evidence.EntryAccess:
			p.document, p.err = policies.Decode[policies.AuditQuery](p.signed)
		}
	}
	return nil
}

// A proof is a signature that is verified beside the replay. Nobody looks at err before done is closed.
type proof struct {
	signed *envelope.Envelope
	key    []byte // of a composite signature, or
	short  *envelope.SessionPublicKey
	second []byte // of a succession's second signature
	done   chan struct{}
	err    error
}

var errNoKey = errors.New("its signer is not enrolled")

func (p *proof) run() {
	defer close(p.done)
	signed := p.signed
	p.signed = nil // the document is not needed any more
	switch {
	case p.short != nil:
		p.err = signed.Verify(*p.short)
	case p.key == nil:
		p.err = errNoKey
	default:
		var key *envelope.PublicKey
		if key, p.err = envelope.ParsePublicKey(p.key); p.err == nil {
			p.err = p.verify(signed, key)
		}
	}
	p.key, p.short, p.second = nil, nil, nil
}

func (p *proof) verify(signed *envelope.Envelope, key *envelope.PublicKey) error {
	if p.second == nil {
		return signed.Verify(key)
	}
	second, err := envelope.ParsePublicKey(p.second)
	if err != nil {
		return err
	}
	return signed.VerifyTwo(key, second)
}

// holds waits for the proof and appends a reason if it fails. A nil proof is of something that was not there to be proven, which has its own reason.
func (p *proof) holds(reasons []Reason, code, what string) []Reason {
	if p == nil {
		return reasons
	}
	<-p.done
	if p.err != nil {
		reasons = append(reasons, Reason{code, what + ": " + p.err.Error()})
	}
	return reasons
}

// A verdict is an entry whose state was looked at and whose signatures are still to be verified.
type verdict struct {
	finding   Finding
	release   bool
	unchecked []Reason
	unbounded []Reason
	trial     *trial // nil: no rules are to be asked
	proofs    []claimed
}

// claimed is a proof and what it means if it fails.
type claimed struct {
	*proof
	code, what string
}

// batch is what a bundle leaves to be verified.
type batch struct {
	proofs   []*proof
	verdicts []*verdict
	done     chan struct{}
}

func (b *batch) proof(signed *envelope.Envelope, key []byte, short *envelope.SessionPublicKey) *proof {
	p := &proof{signed: signed, key: key, short: short, done: make(chan struct{})}
	b.proofs = append(b.proofs, p)
	return p
}

// run verifies. It may wait for proofs of batches that came before, and those wait for none that come after.
func (b *batch) run() {
	defer close(b.done)
	for _, p := range b.proofs {
		p.run()
	}
	for _, v := range b.verdicts {
		if v.trial != nil {
			v.trial.run(v)
			v.trial = nil
		}
		for _, p := range v.proofs {
			v.finding.Reasons = p.holds(v.finding.Reasons, p.code, p.what)
		}
	}
}

// checker runs batches on all processors and takes their verdicts in the order of the log.
type checker struct {
	free  chan struct{}
	order chan *batch
	ended chan tally
}

type tally struct{ unjustified, unchecked, documents, unbounded Findings }

func newChecker() *checker {
	n := runtime.GOMAXPROCS(0)
	c := &checker{free: make(chan struct{}, n), order: make(chan *batch, 2*n), ended: make(chan tally, 1)}
	go func() {
		t := tally{}
		for _, f := range []*Findings{&t.unjustified, &t.unchecked, &t.documents, &t.unbounded} {
			f.Reasons, f.Listed = []ReasonCount{}, []Finding{}
		}
		for b := range c.order {
			<-b.done
			for _, v := range b.verdicts {
				switch {
				case len(v.finding.Reasons) > 0 && v.release:
					t.unjustified.add(v.finding)
				case len(v.finding.Reasons) > 0:
					t.documents.add(v.finding)
				case len(v.unchecked) > 0 && v.release:
					v.finding.Reasons = v.unchecked
					t.unchecked.add(v.finding)
				case len(v.unbounded) > 0 && v.release:
					v.finding.Reasons = v.unbounded
					t.unbounded.add(v.finding)
				}
			}
		}
		c.ended <- t
	}()
	return c
}

func (c *checker) check(b *batch) {
	if len(b.proofs)+len(b.verdicts) == 0 {
		return
	}
	b.done = make(chan struct{})
	c.order <- b
	c.free <- struct{}{}
	go func() {
		defer func() { <-c.free }()
		b.run()
	}()
}

func (c *checker) end() tally {
	close(c.order)
	return <-c.ended
}

func reason(code, format string, args ...any) Reason {
	return Reason{code, fmt.Sprintf(format, args...)}
}
