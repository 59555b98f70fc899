package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// Proof is an entry of the key-use log that concerns this reader, proven under a checkpoint that is joined to the kept one. Checkpoint and evidence are
// what anybody can check later with the vault document alone, see package evidence.
type Proof struct {
	Checkpoint string `json:"checkpoint"`
	evidence.Evidence

	Time    time.Time         `json:"-"` // of the entry
	Entry   evidence.Entry    `json:"-"`
	Details *evidence.Details `json:"-"` // nil: erased in the vault, when their time was over
}

// claim is what the vault said of one item in its answer, and what the entry in the log must say too.
type claim struct {
	outcome          policies.Code
	request, session policies.Hash
	nonce            policies.Nonce
	leaf, head       policies.Hash
	epoch            uint64              // if released
	grant            policies.DocumentID // if released
}

// Evidence proves entries of the key-use log that concern this reader, in the order of the indexes. A read tells the index of its entry ([Value.Index]), which may be
// asked for at once or any time later. The error is [ErrUnproven] if one of them cannot be had: there is no such entry, or none of this reader's.
func (r *Reader) Evidence(ctx context.Context, indexes ...uint64) ([]Proof, error) {
	if err := r.ready(ctx); err != nil {
		return nil, err
	}
	found, err := r.evidence(ctx, indexes)
	if err != nil {
		return nil, err
	}
	out := make([]Proof, len(indexes))
	for i, index := range indexes {
		p, ok := found[index]
		if !ok {
			return nil, fmt.Errorf("entry %d: %w: the vault has no such entry of this reader's", index, ErrUnproven)
		}
		out[i] = p
	}
	return out, nil
}

// ReadProven is [Reader.Read] for who wants proof of each value, now. A value comes with the entry of the key-use log that says so of this very request, in
// [Value.Proof]. What is not proven is not handed out: its error is [ErrUnproven], and [ErrUntrue] besides if the log says something else than the answer did.
func (r *Reader) ReadProven(ctx context.Context, items ...Item) ([]Value, error) {
	values, err := r.Read(ctx, items...)
	if err != nil {
		return values, err
	}
	return values, r.Prove(ctx, values)
}

// Prove demands proof of values that this Reader read, at once or later: until then, or if there is none, a value is not to be relied on. It sets Proof, or Err in
// the place of what was read. Its own error is that of the context.
func (r *Reader) Prove(ctx context.Context, values []Value) error {
	var indexes []uint64
	for i := range values {
		if values[i].Err == nil {
			indexes = append(indexes, values[i].Index)
		}
	}
	found, err := r.evidence(ctx, indexes)
	for i := range values {
		v := &values[i]
		if v.Err != nil {
			continue
		}
		p, ok := found[v.Index]
		switch {
		case err != nil:
			v.Err = err
		case !ok: // of this reader's own read, the vault has told the index itself
			v.Err = fmt.Errorf("%s: %w: %w: the vault answered that it is entry %d, and has no such entry", v.Field, ErrUnproven, ErrUntrue, v.Index)
		default:
			v.Err = r.says(v, &p)
		}
		if v.Err != nil {
			clear(v.Bytes)
			v.Bytes = nil
			continue
		}
		v.Proof = &p
	}
	return ctx.Err()
}

// says compares an entry with what was answered. A vault that records something else than it does is found out here.
func (r *Reader) says(v *Value, p *Proof) error {
	d, c := p.Details, &v.claim
	if d == nil {
		return fmt.Errorf("%s: %w: the details of entry %d were erased", v.Field, ErrUnproven, v.Index)
	}
	for _, same := range []struct {
		what string
		ok   bool
	}{
		{"another kind", p.Entry.Kind == evidence.EntryUse},
		{"another outcome", p.Entry.Outcome == c.outcome && c.outcome != ""},
		{"another request", d.Request == c.request && d.Session == c.session && d.Nonce == c.nonce},
		{"another reader", d.Reader == r.ID()},
		{"another owner", d.Owner == v.Owner},
		{"another field", d.Field == v.Field},
		{"another author", d.Author == v.Author},
		{"another version", d.Version == v.Version},
		{"another leaf", d.Leaf == c.leaf},
		{"another manifest", d.Head == c.head},
		{"another grant", v.Unchanged || d.Grant == c.grant && d.Epoch == c.epoch && d.Custody == v.Custody},
	} {
		if !same.ok {
			return fmt.Errorf("%s: %w: %w: entry %d is of %s than the answer", v.Field, ErrUnproven, ErrUntrue, v.Index, same.what)
		}
	}
	return nil
}

// evidence fetches and verifies entries by their indexes. What the vault says is not there is missing.
func (r *Reader) evidence(ctx context.Context, indexes []uint64) (map[uint64]Proof, error) {
	sorted := slices.Clone(indexes)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	found := make(map[uint64]Proof, len(sorted))
	for len(sorted) > 0 {
		some := sorted[:min(len(sorted), policies.MaxEvidence)]
		sorted = sorted[len(some):]
		page, err := r.askEvidence(ctx, func(d *policies.EvidenceRequest) { d.Indexes = some })
		if err != nil {
			return nil, err
		}
		for _, p := range page.proofs {
			found[p.Index] = p
		}
	}
	return found, nil
}

// provenPage is a verified answer to a request for evidence.
type provenPage struct {
	proofs []Proof
	before uint64
}

// maxWait is how long a refusal for asking too fast is waited for, in all, when nobody set a shorter time.
const maxWait = 2 * time.Minute

// askEvidence asks for evidence, waiting where it is told to.
func (r *Reader) askEvidence(ctx context.Context, want func(*policies.EvidenceRequest)) (*provenPage, error) {
	for waited := time.Duration(0); ; {
		page, err := r.evidenceOnce(ctx, want)
		var p *problem.Problem
		if !errors.As(err, &p) || p.Code != policies.CodeRateLimited {
			return page, err
		}
		pause := time.Duration(max(p.RetryAfter, 1)) * time.Second
		if waited += pause; waited > maxWait {
			return nil, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
}

// evidenceOnce asks the storefront, and then, if that has no answer that opens, the vault itself.
func (r *Reader) evidenceOnce(ctx context.Context, want func(*policies.EvidenceRequest)) (*provenPage, error) {
	unproven := func(err error) error {
		if err == nil || errors.Is(err, ErrUnproven) || errors.Is(err, policies.CodeRateLimited) {
			return err
		}
		return fmt.Errorf("fetching evidence: %w: %w", ErrUnproven, err)
	}
	page, err := r.evidenceBy(ctx, api.PathEvidence, nil, want)
	if err == nil || r.wire.owners == nil || ctx.Err() != nil || errors.Is(err, policies.CodeRateLimited) || errors.Is(err, ErrFork) {
		return page, unproven(err)
	}
	second, secondErr := r.evidenceBy(ctx, vaultapi.PathEvidence, r.wire.owners, want)
	if secondErr == nil || errors.Is(secondErr, ErrFork) {
		return second, unproven(secondErr)
	}
	return nil, unproven(err)
}

// evidenceBy asks over one route, and again if the session is not known any longer.
func (r *Reader) evidenceBy(ctx context.Context, path string, base *url.URL, want func(*policies.EvidenceRequest)) (*provenPage, error) {
	for sessions := sessionsMore; ; sessions-- {
		s, err := r.liveSession(ctx)
		if err != nil {
			return nil, err
		}
		v, err := r.vault(ctx)
		if err != nil {
			return nil, err
		}
		now := r.now()
		d := &policies.EvidenceRequest{
			Header: policies.NewHeader("evidence", now), Audience: v.Vault, Session: s.hash, Nonce: policies.NewNonce(), Expires: now.Add(time.Minute).Unix(),
		}
		want(d)
		e, err := policies.Sign(s.key, d)
		if err != nil {
			return nil, err
		}
		var sealed vaultapi.SealedEvidence
		if err := r.wire.call(ctx, request{method: "POST", path: path, base: base, raw: e.Raw, out: &sealed}); err != nil {
			if sessions > 0 && errors.Is(err, policies.CodeSession) {
				r.endSession(s)
				continue
			}
			return nil, err
		}
		plain, err := s.k.OpenEvidence(policies.Hash(e.Hash), sealed.Answer)
		if err != nil {
			return nil, fmt.Errorf("%w: it is not the vault's answer to this request", ErrUntrue)
		}
		answer, err := evidence.ParseAnswer(plain)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUntrue, err)
		}
		return r.checkEvidence(ctx, v, d, answer)
	}
}

// checkEvidence verifies an answer of the vault: it is about what was asked, of a log that has what was seen before, and each entry is in it.
func (r *Reader) checkEvidence(ctx context.Context, v *policies.VaultDocument, d *policies.EvidenceRequest, a *evidence.Answer) (*provenPage, error) {
	if err := r.notice(ctx, v, a.Checkpoint, true); err != nil {
		return nil, err
	}
	checkpoint, err := evidence.OpenCheckpoint(a.Checkpoint, v.LogKey)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUntrue, err)
	}
	if err := answers(d, a); err != nil {
		return nil, err
	}
	page := &provenPage{before: a.Before}
	for i := range a.Evidence {
		p := Proof{Checkpoint: a.Checkpoint, Evidence: a.Evidence[i]}
		p.Time, p.Entry, p.Details, err = p.Verify(checkpoint)
		if err != nil && !errors.Is(err, evidence.ErrErased) {
			return nil, fmt.Errorf("entry %d: %w: %w", p.Index, ErrUntrue, err)
		}
		// Whom an entry concerns the opening says; one of somebody else's would prove nothing here.
		if p.Details != nil && p.Details.Reader != r.ID() && p.Details.Identity != r.id {
			return nil, fmt.Errorf("entry %d: %w: it is about somebody else", p.Index, ErrUntrue)
		}
		page.proofs = append(page.proofs, p)
	}
	return page, nil
}

// answers checks that an answer is about the entries that were asked for: each index once, or the newest ones below another.
func answers(d *policies.EvidenceRequest, a *evidence.Answer) error {
	bad := func(what string) error { return fmt.Errorf("%w: the evidence is %s", ErrUntrue, what) }
	if d.Limit == 0 {
		got := slices.Clone(a.Absent)
		for i := range a.Evidence {
			got = append(got, a.Evidence[i].Index)
		}
		if slices.Sort(got); !slices.Equal(got, d.Indexes) || a.Before != 0 {
			return bad("of other entries than those asked for")
		}
		return nil
	}
	before := uint64(math.MaxUint64)
	if d.Before != 0 {
		before = d.Before
	}
	for i := range a.Evidence {
		if a.Evidence[i].Index >= before {
			return bad("not newest first")
		}
		before = a.Evidence[i].Index
	}
	if uint64(len(a.Evidence)) > d.Limit || len(a.Absent) > 0 || a.Before != 0 && (len(a.Evidence) == 0 || a.Before != before) {
		return bad("no page of what was asked for")
	}
	return nil
}

// HistoryFilter picks entries of a reader's history. A zero member picks all.
type HistoryFilter struct {
	Owner policies.OwnerID
	Field policies.Field
	Since time.Time
	Limit int // of what is picked; zero: 50
}

// History returns the newest events of the key-use log that concern this reader, newest first, each proven: what it asked for, what it was granted and refused, and who
// was shown these entries. What nobody can see from here is whether the vault leaves entries out: only a full copy of the log shows that.
func (r *Reader) History(ctx context.Context, f HistoryFilter) ([]Event, error) {
	if f.Limit <= 0 {
		f.Limit = 50
	}
	if err := r.ready(ctx); err != nil {
		return nil, err
	}
	var out []Event
	page := uint64(min(f.Limit, policies.MaxEvidence))
	if !f.Owner.IsZero() || f.Field != "" { // most entries may be others
		page = uint64(policies.MaxEvidence)
	}
	for before := uint64(0); ; {
		got, err := r.askEvidence(ctx, func(d *policies.EvidenceRequest) { d.Before, d.Limit = before, page })
		if err != nil {
			return out, err
		}
		for i := range got.proofs {
			p := &got.proofs[i]
			if p.Time.Before(f.Since) { // times never go backwards in the log
				return out, nil
			}
			if d := p.Details; !f.Owner.IsZero() && (d == nil || d.Owner != f.Owner) || f.Field != "" && (d == nil || d.Field != f.Field) {
				continue
			}
			if out = append(out, r.event(p)); len(out) == f.Limit {
				return out, nil
			}
		}
		if before = got.before; before == 0 {
			return out, nil
		}
	}
}

// event tells an entry in plain words.
func (r *Reader) event(p *Proof) Event {
	e := Event{Index: p.Index, Time: p.Time, Kind: p.Entry.Kind, Outcome: p.Entry.Outcome}
	d := p.Details
	if d == nil {
		e.Text = erased(p.Entry.Kind)
		return e
	}
	e.Owner, e.Field, e.Version, e.Custody = d.Owner, d.Field, d.Version, d.Custody
	owner := "somebody"
	if !d.Owner.IsZero() {
		owner = d.Owner.String()[:16] + "…"
		r.mu.Lock()
		if alias := r.alias(d.Owner); alias != "" {
			owner, e.Alias = alias, alias
		}
		r.mu.Unlock()
	}
	what := fmt.Sprintf("%s of %s", d.Field, owner)
	switch p.Entry.Kind {
	case evidence.EntryIdentity:
		e.Text = "You registered with the vault."
	case evidence.EntrySuspension:
		e.Text = "You suspended all that you had been granted before."
	case evidence.EntryGivenUp:
		e.Text = fmt.Sprintf("You gave up %d of what %s allowed you to read.", len(d.Items), owner)
	case evidence.EntryVoucher:
		e.Text = fmt.Sprintf("Your name was %s by the operator.", d.Note)
	case evidence.EntrySession:
		e.Text = "You opened a session."
	case evidence.EntryImport:
		e.Text = fmt.Sprintf("The token was given keys for a grant of %s to you%s.", owner, kept(d.Custody))
	case evidence.EntryGrant:
		e.Text = fmt.Sprintf("%s allowed you to read.", owner)
	case evidence.EntryWriteGrant:
		e.Text = fmt.Sprintf("%s allowed you to write.", owner)
	case evidence.EntryWriteEnd:
		e.Text = fmt.Sprintf("%s ended what you may write.", owner)
	case evidence.EntryManifest:
		e.Text = fmt.Sprintf("You wrote something for %s (number %d of what you wrote).", owner, d.Version)
	case evidence.EntryUse:
		e.Text = fmt.Sprintf("You read %s, version %d%s.", what, d.Version, kept(d.Custody))
		if p.Entry.Outcome == policies.CodeUnchanged {
			e.Text = fmt.Sprintf("You asked for %s and had the newest version already, %d.", what, d.Version)
		}
	case evidence.EntryFailed:
		e.Text = fmt.Sprintf("The vault was about to release %s, and the token did not: %s.", what, p.Entry.Outcome.Error())
		if d.Field == "" {
			e.Text = fmt.Sprintf("A grant of %s to you did not come into force: %s.", owner, p.Entry.Outcome.Error())
		}
	case evidence.EntryRefusal:
		switch {
		case d.Field != "":
			e.Text = fmt.Sprintf("You were refused %s: %s.", what, p.Entry.Outcome.Error())
		case d.Note != "":
			e.Text = fmt.Sprintf("A document of yours was refused (%s): %s.", d.Note, p.Entry.Outcome.Error())
		default:
			e.Text = fmt.Sprintf("A request of yours was refused: %s.", p.Entry.Outcome.Error())
		}
	case evidence.EntryRefusals:
		e.Text = fmt.Sprintf("Requests of yours were refused %d times more (%s).", d.Count, d.Note)
	case evidence.EntryAccess:
		e.Text = fmt.Sprintf("Entries of this log were given to you %d times (%s).", d.Count, d.Note)
		if d.Count == 0 {
			e.Text = "Entries of this log were given to you."
		}
	default:
		e.Text = fmt.Sprintf("%s: %s.", p.Entry.Kind, p.Entry.Outcome.Error())
	}
	return e
}
