package vault

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/internal/ledger"
	"github.com/sallyport/sallyport/vault/keylog"
)

// maxAnswer bounds an answer to an auditor in bytes, but for its first entry: that one is in it, however long.
const maxAnswer = 8 << 20

// answersEach is how many answers to one auditor are in memory at once.
const answersEach = 2

// erasedBody stands for the length of a body that is not there, as in the published form.
const erasedBody = 0xffffffff

// Query answers an auditor's signed query with entries of the log, or with what lies beside them, in the form of a published bundle or bodies file. The
// answer has the first of the entries asked for, and so many more as fit. Before any of it is read, the log says durably who asked for what: no
// record, no answer.
//
// done is called when the answer has gone out. An error wraps a [policies.Code].
func (v *Vault) Query(ctx context.Context, query []byte) (answer []byte, done func(), err error) {
	e, err := envelope.Parse(query)
	if err != nil {
		return nil, nil, v.stranger(err)
	}
	d, err := open(v, e, func(q *policies.AuditQuery) policies.IdentityID { return q.Auditor })
	if err != nil {
		return nil, nil, err
	}
	q := d.doc
	end, ok := v.answers.begin(q.Auditor)
	if !ok { // its nonce is not used
		return nil, nil, v.stranger(&problem.Problem{Code: policies.CodeRateLimited, Detail: "another query is being answered", RetryAfter: 1})
	}
	defer func() {
		if err != nil {
			end()
		}
	}()
	_, _, err = accept(ctx, v, d, func(s *ledger.State, now time.Time) error { return v.permitQuery(s, now, q) }, func() ledger.Record {
		return ledger.Record{
			Kind: evidence.EntryAccess, Reader: d.signer.Pseudonym, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: q,
			Details: evidence.Details{
				Identity: q.Auditor, Document: e.Hash, Nonce: q.Nonce, Expires: q.Expires, Index: q.From, Count: q.Count, Note: q.What,
			},
		}
	})
	if err != nil {
		return nil, nil, err
	}
	if answer, err = v.part(ctx, q); err != nil {
		return nil, nil, err
	}
	return answer, end, nil
}

// permitQuery decides whether a query whose signature verified is answered.
func (v *Vault) permitQuery(s *ledger.State, now time.Time, q *policies.AuditQuery) error {
	switch {
	case q.Audience != v.cfg.Document.Vault:
		return policies.CodeWrongVault
	case !slices.Contains(v.cfg.Auditors, q.Auditor):
		return policies.CodeAuditor
	case s.Queried(q.Auditor, q.Nonce):
		return policies.CodeReplay
	}
	if err := q.Live(now); err != nil {
		return err
	}
	if size := v.cfg.Log.Checkpoint().Size; q.From >= uint64(size) {
		return problem.New(policies.CodeNotFound, "the log has %d entries", size)
	}
	if !v.quotas.take(allowance{q.Auditor, auditQueries}, now, 1) {
		return &problem.Problem{Code: policies.CodeRateLimited, RetryAfter: 1}
	}
	return nil
}

var errEnough = errors.New("enough")

// part reads what a query asks for.
func (v *Vault) part(ctx context.Context, q *policies.AuditQuery) ([]byte, error) {
	var out []byte
	end := q.From + q.Count
	err := v.cfg.Log.Replay(ctx, int64(q.From), func(p keylog.Position, r keylog.Record) error {
		if uint64(p.Index) >= end {
			return errEnough
		}
		before := len(out)
		switch {
		case q.What == "entries":
			leaf := keylog.Leaf(p.Time, r.Entry)
			out = append(binary.BigEndian.AppendUint16(out, uint16(len(leaf))), leaf...)
		case r.Body == nil:
			out = binary.BigEndian.AppendUint32(out, erasedBody)
		default:
			out = append(binary.BigEndian.AppendUint32(out, uint32(len(r.Body))), r.Body...)
		}
		if len(out) > maxAnswer && before > 0 {
			out = out[:before]
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, unreadable(err)
	}
	return out, nil
}

// answers counts those on their way to each auditor.
type answers struct {
	mu  sync.Mutex
	now map[policies.IdentityID]int
}

func (a *answers) init() { a.now = map[policies.IdentityID]int{} }

// begin makes room for an answer, if there is any.
func (a *answers) begin(auditor policies.IdentityID) (end func(), ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.now[auditor] >= answersEach {
		return nil, false
	}
	a.now[auditor]++
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.now[auditor]--; a.now[auditor] == 0 {
			delete(a.now, auditor)
		}
	}), true
}
