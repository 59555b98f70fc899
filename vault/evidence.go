package vault

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/internal/ledger"
	"github.com/sallyport/sallyport/vault/keylog"
)

// evidenceAsked: entries of a reader's own, with proof, asked for and signed by one of its sessions.
const evidenceAsked accessed = "evidence, asked for by a session"

// lookedUp is how many indexes are looked up while the state is held.
const lookedUp = 64

// Evidence answers a reader's signed request for evidence: entries of the log that concern this reader, each with what opens it and a proof under the newest checkpoint,
// sealed under the key of the session. Whoever carries request and answer learns which entries were asked for, and nothing of what they say. At an index that
// is not the reader's there is nothing, whether the log has an entry there or not.
//
// Nothing is decided and no key is used, so the log does not have each request but a count ([evidence.EntryAccess]). The nonce is remembered as that of a
// read, but in memory only: a request that comes again after the vault was started anew, within its two minutes, is answered to the same reader.
func (v *Vault) Evidence(ctx context.Context, request []byte) ([]byte, error) {
	// 1. Who asks? A caller whose session and signature do not hold is refused and counted.
	e, err := envelope.Parse(request)
	if err != nil {
		return nil, v.stranger(err)
	}
	d, err := policies.Decode[policies.EvidenceRequest](e)
	if err != nil {
		return nil, v.stranger(err)
	}
	var session *ledger.Session
	v.ledger.Read(func(s *ledger.State) { session = s.Session(d.Session) })
	if session == nil {
		return nil, v.stranger(policies.CodeSession)
	}
	if err := e.Verify(session.Document.Key); err != nil {
		return nil, v.stranger(err)
	}
	reader := session.Document.Reader
	key, err := v.sessionKey(session)
	if err != nil {
		return nil, v.stranger(policies.CodeSession)
	}

	// 2. May it? From here on a refusal is counted under the reader's name.
	now := v.cfg.Clock()
	var refused error
	v.ledger.Write(func(s *ledger.State) { refused = v.admitEvidence(s, now, session, d) })
	if refused != nil {
		return nil, refused
	}

	// 3. Find, read, prove.
	answer := new(evidence.Answer)
	var indexes []uint64
	if d.Limit > 0 {
		before := d.Before
		if before == 0 {
			before = math.MaxUint64
		}
		v.ledger.Read(func(s *ledger.State) { indexes = s.Readings(reader, before, int(d.Limit)) })
		if n := len(indexes); n == int(d.Limit) {
			answer.Before = indexes[n-1]
		}
	} else {
		indexes, answer.Absent = v.readings(reader, d.Indexes)
	}
	checkpoint := v.cfg.Log.Checkpoint() // after the look-up: it has all that the state has
	answer.Checkpoint, answer.Evidence = checkpoint.Note, make([]evidence.Evidence, 0, len(indexes))
	var pseudonym policies.Pseudonym
	v.ledger.Read(func(s *ledger.State) { pseudonym = s.Pseudonym(policies.IdentityID(reader)) })
	for _, index := range indexes {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("%w: %w", policies.CodeUnavailable, err)
		}
		proven, err := v.proveTo(pseudonym, index, checkpoint)
		if err != nil {
			return nil, err
		}
		answer.Evidence = append(answer.Evidence, *proven)
	}
	plain := answer.Bytes()
	if len(plain) > evidence.MaxAnswer {
		return nil, problem.New(policies.CodeTooLarge, "the entries have more than %d bytes together; ask for fewer at once", evidence.MaxAnswer)
	}

	// 4. Count, and answer under the key of the session.
	v.accesses.add(policies.IdentityID(reader), evidenceAsked, now)
	return key.SealEvidence(e.Hash, plain, nil)
}

// admitEvidence says why a request for evidence is refused, or takes its nonce. It is called while the state is held for writing.
func (v *Vault) admitEvidence(s *ledger.State, now time.Time, session *ledger.Session, d *policies.EvidenceRequest) error {
	id := policies.IdentityID(session.Document.Reader)
	refuse := func(code policies.Code) error {
		v.quotas.count(allowance{id, refusedReads}, now, policies.Pseudonym{}, s.Pseudonym(id), map[policies.Code]uint64{code: 1})
		return code
	}
	switch {
	case d.Audience != v.cfg.Document.Vault:
		return refuse(policies.CodeWrongVault)
	case session.Ended || session.Document.Live(now) != nil:
		return refuse(policies.CodeSession)
	case d.Live(now) != nil:
		return refuse(policies.CodeExpired)
	}
	if _, used := session.Nonces[d.Nonce]; used {
		return refuse(policies.CodeReplay)
	}
	if len(session.Nonces) >= v.cfg.Limits.SessionRequests { // its reader opens another
		return refuse(policies.CodeSession)
	}
	if !v.quotas.take(allowance{id, shownEntries}, now, d.Most()) {
		wait := int(1 + float64(d.Most())/v.cfg.Limits.Evidence)
		return &problem.Problem{Code: policies.CodeRateLimited, Detail: "the reader asks for the evidence of too many entries", RetryAfter: wait}
	}
	session.Nonces[d.Nonce] = struct{}{}
	return nil
}

// readings tells a reader's entries from what else there is or is not at indexes.
func (v *Vault) readings(reader policies.ReaderID, indexes []uint64) (there, absent []uint64) {
	for len(indexes) > 0 {
		n := min(len(indexes), lookedUp)
		v.ledger.Read(func(s *ledger.State) {
			for _, index := range indexes[:n] {
				if s.Reading(reader, index) {
					there = append(there, index)
				} else {
					absent = append(absent, index)
				}
			}
		})
		indexes = indexes[n:]
	}
	return there, absent
}

// proveTo reads and proves an entry to a reader. What opens it is left out if it was erased.
func (v *Vault) proveTo(reader policies.Pseudonym, index uint64, checkpoint keylog.Checkpoint) (*evidence.Evidence, error) {
	r, err := v.read(index)
	if err != nil {
		return nil, err
	}
	if r.Reader != reader && (r.Kind != evidence.EntryIdentity || r.Owner != reader) { // no fault of the index gives one reader's entry to another
		return nil, fmt.Errorf("%w: entry %d is not of the reader whom the index names", policies.CodeInternal, index)
	}
	return v.evidence(r, checkpoint)
}
