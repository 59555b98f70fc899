package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// shop is a reader with two fields of one owner.
func (w *world) shop() (*Owner, *Reader, *memory) {
	w.t.Helper()
	ctx := context.Background()
	o, _ := w.owner()
	r, m := w.reader("R")
	w.must(o.Set(ctx, set("note", "n"), set("phone.mobile", "p"), set("tax.id", "t")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note", "phone.mobile"}, GrantOptions{}))
	return o, r, m
}

func TestReadProven(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, r, m := w.shop()
	before := r.Log().Size
	values, err := r.ReadProven(ctx, Item{Owner: o.ID(), Field: "note", Known: 0}, Item{Owner: o.ID(), Field: "phone.mobile", Known: 1}, Item{Owner: o.ID(), Field: "tax.id", Known: 0})
	w.must(err)
	if v := values[0]; v.Err != nil || string(v.Bytes) != "n" || v.Proof == nil || v.Proof.Index != v.Index || v.Proof.Entry.Outcome != policies.CodeReleased || v.Proof.Details.Field != "note" {
		t.Fatalf("%+v", v)
	}
	if v := values[1]; v.Err != nil || !v.Unchanged || v.Proof == nil || v.Proof.Entry.Outcome != policies.CodeUnchanged {
		t.Fatalf("%+v", v)
	}
	if v := values[2]; !errors.Is(v.Err, policies.CodeNoGrant) || v.Proof != nil {
		t.Errorf("%+v", v)
	}
	if log := r.Log(); log.Size <= before || !log.Since.IsZero() {
		t.Errorf("the kept checkpoint: %+v, after %d", log, before)
	}
	// What came is enough for anybody who has the vault document.
	text, err := json.Marshal(values[0].Proof)
	w.must(err)
	var kept struct {
		Checkpoint string `json:"checkpoint"`
		evidence.Evidence
	}
	w.must(json.Unmarshal(text, &kept))
	c, err := evidence.OpenCheckpoint(kept.Checkpoint, w.doc.LogKey)
	w.must(err)
	if _, _, d, err := kept.Verify(c); err != nil || d.Reader != r.ID() || d.Owner != o.ID() {
		t.Errorf("%+v, %v", d, err)
	}

	// Later, in another process and session, and out of order.
	w.must(r.Flush())
	later, err := OpenReader(m, Options{})
	w.must(err)
	proofs, err := later.Evidence(ctx, values[1].Index, values[2].Index, values[0].Index, values[1].Index)
	w.must(err)
	for i, want := range []uint64{values[1].Index, values[2].Index, values[0].Index, values[1].Index} {
		if proofs[i].Index != want {
			t.Errorf("place %d: entry %d, want %d", i, proofs[i].Index, want)
		}
	}
	if proofs[1].Entry.Outcome != policies.CodeNoGrant {
		t.Errorf("the refusal: %+v", proofs[1].Entry)
	}
	for _, index := range []uint64{0, 1, 1 << 40} { // the vault's, the owner's, nobody's
		if _, err := later.Evidence(ctx, values[0].Index, index); !errors.Is(err, ErrUnproven) || errors.Is(err, ErrUntrue) {
			t.Errorf("entry %d: %v", index, err)
		}
	}
	plain, err := later.Read(ctx, Item{Owner: o.ID(), Field: "note", Known: 0})
	w.must(err)
	w.must(later.Prove(ctx, plain))
	if plain[0].Err != nil || plain[0].Proof == nil {
		t.Errorf("proven afterwards: %+v", plain[0])
	}
}

func TestReaderHistory(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, r, _ := w.shop()
	other, _ := w.owner()
	w.must(other.Set(ctx, set("note", "other")))
	w.connect(other, r, "r2")
	w.must(other.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	w.wantRead(r, o, "note", "n")
	w.wantRead(r, other, "note", "other")
	w.wantRead(r, o, "phone.mobile", "p")
	w.wantRefusal(r, o, "tax.id", policies.CodeNoGrant)
	texts := func(f HistoryFilter) (out []string) {
		t.Helper()
		events, err := r.History(ctx, f)
		w.must(err)
		for _, e := range events {
			out = append(out, e.Text)
		}
		return out
	}
	all := texts(HistoryFilter{})
	want := []string{
		"You were refused tax.id of r-customer: " + policies.CodeNoGrant.Error() + ".", "You read phone.mobile of r-customer, version 1.", "You read note of r2-customer, version 1.",
		"You read note of r-customer, version 1.", "You opened a session.", "r2-customer allowed you to read.", "The token was given keys for a grant of r2-customer to you.",
		"r-customer allowed you to read.", "The token was given keys for a grant of r-customer to you.", "You registered with the vault.",
	}
	if !slices.Equal(all, want) {
		t.Errorf("%s", strings.Join(all, "\n"))
	}
	if got := texts(HistoryFilter{Owner: o.ID(), Field: "note"}); !slices.Equal(got, want[3:4]) {
		t.Errorf("one field of one owner: %q", got)
	}
	if got := texts(HistoryFilter{Owner: other.ID()}); !slices.Equal(got, []string{want[2], want[5], want[6]}) {
		t.Errorf("one owner: %q", got)
	}
	if got := texts(HistoryFilter{Limit: 3}); !slices.Equal(got, want[:3]) {
		t.Errorf("three: %q", got)
	}
	if got := texts(HistoryFilter{Since: time.Now().Add(time.Hour)}); len(got) != 0 {
		t.Errorf("since tomorrow: %q", got)
	}
}

// A storefront that answers with something else than the vault's answer is found out, and where the vault can be reached without it, does no harm.
func TestHostileEvidence(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, r, _ := w.shop()
	other, _ := w.reader("other")
	w.connect(o, other, "other")
	w.must(o.Grant(ctx, other.ID(), []policies.Field{"note"}, GrantOptions{}))
	note := Item{Owner: o.ID(), Field: "note", Known: 0}
	answered := func(r *Reader) (out []byte) {
		t.Helper()
		w.rewrite(api.PathEvidence, func(b []byte) []byte { out = bytes.Clone(b); return b })
		defer w.hostile(nil)
		if v, err := r.ReadProven(ctx, note); err != nil || v[0].Err != nil {
			t.Fatal(v, err)
		}
		return out
	}
	theirs, old := answered(other), answered(r)
	status := func(code policies.Code) func(http.ResponseWriter) {
		return func(rw http.ResponseWriter) { problem.Write(rw, code) }
	}
	body := func(b []byte) func(http.ResponseWriter) {
		return func(rw http.ResponseWriter) { rw.Write(b) }
	}
	for name, answer := range map[string]func(http.ResponseWriter){
		"another reader's evidence":  body(theirs),
		"an old answer":              body(old),
		"nothing in it":              body([]byte(`{"answer":""}`)),
		"no JSON":                    body([]byte("?")),
		"a flipped bit":              body(bytes.Replace(old, []byte(`"answer":"`), []byte(`"answer":"A`), 1)),
		"dropped: not found":         status(policies.CodeNotFound),
		"dropped: not now":           status(policies.CodeUnavailable),
		"dropped: unknown session":   status(policies.CodeSession),
		"dropped: it was there once": status(policies.CodeReplay),
	} {
		w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
			if q.URL.Path == api.PathEvidence {
				answer(rw)
				return
			}
			next.ServeHTTP(rw, q)
		})
		owners := r.wire.owners
		r.wire.owners = nil
		values, err := r.ReadProven(ctx, note)
		if err != nil || !errors.Is(values[0].Err, ErrUnproven) || values[0].Bytes != nil || values[0].Proof != nil {
			t.Errorf("%s: %+v, %v", name, values, err)
		}
		if _, err := r.History(ctx, HistoryFilter{}); !errors.Is(err, ErrUnproven) {
			t.Errorf("%s: history: %v", name, err)
		}
		r.wire.owners = owners
		if values, err := r.ReadProven(ctx, note); err != nil || values[0].Err != nil || values[0].Proof == nil {
			t.Errorf("%s, past the storefront: %+v, %v", name, values, err)
		}
	}
	// Told to wait, it waits, and the value comes.
	times := 0
	w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
		if q.URL.Path == api.PathEvidence {
			if times++; times == 1 {
				problem.Write(rw, &problem.Problem{Code: policies.CodeRateLimited, RetryAfter: 1})
				return
			}
		}
		next.ServeHTTP(rw, q)
	})
	if values, err := r.ReadProven(ctx, note); err != nil || values[0].Err != nil || times != 2 {
		t.Errorf("after a wait: %+v, %v, asked %d times", values, err, times)
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	values, err := r.Read(ctx, note)
	w.must(err)
	w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
		problem.Write(rw, &problem.Problem{Code: policies.CodeRateLimited, RetryAfter: 30})
	})
	if err := r.Prove(short, values); err == nil || values[0].Err == nil || values[0].Bytes != nil {
		t.Errorf("a wait that is longer than the caller's: %v, %+v", err, values[0])
	}
}

// mole stands where the vault would: it has the sessions' keys, and changes what the vault says under them.
type mole struct {
	w        *world
	mu       sync.Mutex // guards sessions
	sessions map[policies.Hash]*pre.SessionKey
	answer   func(*policies.Answer)
	result   func(*policies.Answer, *api.ReadResult) // the same, where storefront and vault lie together
	evidence func(*policies.EvidenceRequest, *evidence.Answer)
}

func (w *world) mole() *mole {
	m := &mole{w: w, sessions: map[policies.Hash]*pre.SessionKey{}}
	vault := pre.NewVaultKey([32]byte{2}) // newWorld's
	w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
		body, _ := io.ReadAll(q.Body)
		q.Body = io.NopCloser(bytes.NewReader(body))
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, q)
		m.mu.Lock()
		defer m.mu.Unlock()
		out := rec.Body.Bytes()
		if rec.Code < 300 {
			switch q.URL.Path {
			case api.PathSessions:
				e, err := envelope.Parse(body)
				w.must(err)
				d, err := policies.Decode[policies.Session](e)
				w.must(err)
				secret, err := vault.Decapsulate(d.Ciphertext)
				w.must(err)
				m.sessions[e.Hash] = secret.Key(d.Audience, d.Reader, e.Hash)
			case api.PathReads:
				out = m.read(body, out)
			case api.PathEvidence:
				out = m.prove(body, out)
			}
		}
		rw.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
		rw.WriteHeader(rec.Code)
		rw.Write(out)
	})
	return m
}

func (m *mole) read(request, result []byte) []byte {
	var in api.Read
	var out api.ReadResult
	m.w.must(envelope.Decode(request, &in))
	m.w.must(envelope.Decode(result, &out))
	e, err := envelope.Parse(in.Request)
	m.w.must(err)
	d, err := policies.Decode[policies.ReadRequest](e)
	m.w.must(err)
	k := m.sessions[d.Session]
	if m.answer == nil && m.result == nil || k == nil {
		return result
	}
	plain, err := k.OpenAnswer(e.Hash, out.Answer)
	m.w.must(err)
	a, err := policies.ParseAnswer(plain)
	m.w.must(err)
	if m.answer != nil {
		m.answer(a)
	}
	if m.result != nil {
		m.result(a, &out)
	}
	out.Answer, err = k.SealAnswer(e.Hash, a.Bytes(), nil)
	m.w.must(err)
	b, err := json.Marshal(out)
	m.w.must(err)
	return b
}

func (m *mole) prove(request, result []byte) []byte {
	var out vaultapi.SealedEvidence
	m.w.must(envelope.Decode(result, &out))
	e, err := envelope.Parse(request)
	m.w.must(err)
	d, err := policies.Decode[policies.EvidenceRequest](e)
	m.w.must(err)
	k := m.sessions[d.Session]
	if m.evidence == nil || k == nil {
		return result
	}
	plain, err := k.OpenEvidence(e.Hash, out.Answer)
	m.w.must(err)
	a, err := evidence.ParseAnswer(plain)
	m.w.must(err)
	m.evidence(d, a)
	out.Answer, err = k.SealEvidence(e.Hash, a.Bytes(), nil)
	m.w.must(err)
	b, err := json.Marshal(out)
	m.w.must(err)
	return b
}

// A vault that releases an item and has something else in its log, or nothing, is found out by whoever demands proof, whichever entry it shows.
func TestLyingVault(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	m := w.mole()
	o, r, _ := w.shop()
	r.wire.owners = nil // it is the vault itself that lies
	other, _ := w.reader("other")
	w.connect(o, other, "other")
	w.must(o.Grant(ctx, other.ID(), []policies.Field{"note"}, GrantOptions{}))
	note := Item{Owner: o.ID(), Field: "note", Known: 0}
	index := func(r *Reader, field policies.Field, known uint64) uint64 {
		t.Helper()
		v, err := r.Read(ctx, Item{Owner: o.ID(), Field: field, Known: known})
		w.must(err)
		return v[0].Index
	}
	refused, before, another, unchanged, theirs := index(r, "tax.id", 0), index(r, "note", 0), index(r, "phone.mobile", 0), index(r, "note", 1), index(other, "note", 0)
	events, err := r.History(ctx, HistoryFilter{})
	w.must(err)
	session := events[slices.IndexFunc(events, func(e Event) bool { return e.Kind == evidence.EntrySession })].Index
	for name, entry := range map[string]uint64{
		"of a refusal": refused, "of an earlier read of the same field": before, "of another field": another, "that says unchanged": unchanged,
		"of another reader": theirs, "of the session": session, "of the owner's": 1, "of nobody": 1 << 50,
	} {
		m.answer = func(a *policies.Answer) { a.Items[0].Index = entry }
		values, err := r.ReadProven(ctx, note)
		if err != nil || !errors.Is(values[0].Err, ErrUnproven) || !errors.Is(values[0].Err, ErrUntrue) || values[0].Bytes != nil {
			t.Errorf("the entry %s: %+v, %v", name, values[0], err)
		}
	}
	m.answer = nil

	_, branch := w.branch(60)
	older := r.Log().Checkpoint
	w.must(o.Set(ctx, set("phone.mobile", "q")))
	for name, c := range map[string]struct {
		change func(*policies.EvidenceRequest, *evidence.Answer)
		want   error
	}{
		"says that it is not there": {func(d *policies.EvidenceRequest, a *evidence.Answer) { a.Evidence, a.Absent = nil, d.Indexes }, ErrUntrue},
		"leaves it out":             {func(_ *policies.EvidenceRequest, a *evidence.Answer) { a.Evidence = nil }, ErrUntrue},
		"doubles it":                {func(_ *policies.EvidenceRequest, a *evidence.Answer) { a.Evidence = append(a.Evidence, a.Evidence[0]) }, ErrUntrue},
		"calls another entry that":  {func(_ *policies.EvidenceRequest, a *evidence.Answer) { a.Evidence[0].Index-- }, ErrUntrue},
		"makes the leaf up":         {func(_ *policies.EvidenceRequest, a *evidence.Answer) { a.Evidence[0].Leaf[9] ^= 1 }, ErrUntrue},
		"opens it otherwise":        {func(_ *policies.EvidenceRequest, a *evidence.Answer) { a.Evidence[0].Opening.Details = []byte("{}") }, ErrUntrue},
		"has no proof":              {func(_ *policies.EvidenceRequest, a *evidence.Answer) { a.Evidence[0].Proof = nil }, ErrUntrue},
		"proves it in an older log": {func(_ *policies.EvidenceRequest, a *evidence.Answer) { a.Checkpoint = older }, ErrUntrue},
		"signs nothing": {func(_ *policies.EvidenceRequest, a *evidence.Answer) {
			a.Checkpoint = strings.SplitAfter(older, "\n\n")[0]
		}, ErrUntrue},
		"shows another branch":       {func(_ *policies.EvidenceRequest, a *evidence.Answer) { a.Checkpoint = branch[59] }, ErrFork},
		"goes back to a shorter one": {func(_ *policies.EvidenceRequest, a *evidence.Answer) { a.Checkpoint = branch[5] }, ErrFork},
		"erased it already":          {func(_ *policies.EvidenceRequest, a *evidence.Answer) { a.Evidence[0].Opening = evidence.Opening{} }, ErrUnproven},
	} {
		m.evidence = c.change
		kept := r.Log()
		values, err := r.ReadProven(ctx, note)
		if err != nil || !errors.Is(values[0].Err, c.want) || !errors.Is(values[0].Err, ErrUnproven) || values[0].Bytes != nil || values[0].Proof != nil {
			t.Errorf("a vault that %s: %+v, %v", name, values[0], err)
		}
		if errors.Is(c.want, ErrFork) {
			if now := r.Log(); now.Contradicted == "" || now.Checkpoint != kept.Checkpoint && now.Checkpoint == branch[59] {
				t.Errorf("a vault that %s: afterwards %+v", name, now)
			}
		}
	}
	for name, change := range map[string]func(*policies.EvidenceRequest, *evidence.Answer){
		"turns a page round": func(_ *policies.EvidenceRequest, a *evidence.Answer) { slices.Reverse(a.Evidence) },
		"gives more than a page": func(d *policies.EvidenceRequest, a *evidence.Answer) {
			a.Evidence = append(a.Evidence, make([]evidence.Evidence, d.Limit)...)
		},
		"pages without end":           func(_ *policies.EvidenceRequest, a *evidence.Answer) { a.Before = 1 << 60 },
		"has no end of nothing":       func(_ *policies.EvidenceRequest, a *evidence.Answer) { a.Evidence, a.Before = nil, 7 },
		"speaks of what is not asked": func(_ *policies.EvidenceRequest, a *evidence.Answer) { a.Absent = []uint64{1} },
		"shows others' entries": func(_ *policies.EvidenceRequest, a *evidence.Answer) {
			h, err := w.vault.History(o.ID(), 0, 100)
			w.must(err)
			a.Checkpoint, a.Evidence, a.Before = h.Checkpoint, h.Entries[len(h.Entries)-1:], 0 // the owner's enrolment
		},
	} {
		m.evidence = change
		if events, err := r.History(ctx, HistoryFilter{Limit: 3}); !errors.Is(err, ErrUntrue) || !errors.Is(err, ErrUnproven) {
			t.Errorf("a vault that %s: %+v, %v", name, events, err)
		}
	}
	m.evidence = nil
	if values, err := r.ReadProven(ctx, note); err != nil || values[0].Err != nil {
		t.Errorf("an honest vault afterwards: %+v, %v", values, err)
	}
}

// Without proof that the log still has what this reader saw, a value whose proof was demanded is not handed out, and one whose proof was not is.
func TestReadProvenWithoutConsistency(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, r, _ := w.shop()
	w.wantRead(r, o, "note", "n")
	w.noProofs()
	w.secondRoute(false)
	values, err := r.ReadProven(ctx, Item{Owner: o.ID(), Field: "note", Known: 0})
	if err != nil || !errors.Is(values[0].Err, ErrUnproven) || !errors.Is(values[0].Err, policies.CodeUnavailable) || errors.Is(values[0].Err, ErrUntrue) || values[0].Bytes != nil {
		t.Errorf("%+v, %v", values[0], err)
	}
	w.wantRead(r, o, "note", "n")
	w.hostile(nil)
	values, err = r.ReadProven(ctx, Item{Owner: o.ID(), Field: "note", Known: 0})
	if err != nil || values[0].Err != nil {
		t.Errorf("with proofs again: %+v, %v", values[0], err)
	}
}

// An entry that agrees with the answer in all but one thing proves nothing: each of them counts, a refusal under the very request above all.
func TestProofOfSomethingElse(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, r, _ := w.shop()
	values, err := r.ReadProven(ctx, Item{Owner: o.ID(), Field: "note", Known: 0})
	w.must(err)
	good := values[0]
	w.must(r.says(&good, good.Proof))
	for name, change := range map[string]func(*Proof){
		"a refusal":        func(p *Proof) { p.Entry.Kind = evidence.EntryRefusal },
		"refused":          func(p *Proof) { p.Entry.Outcome = policies.CodeNoGrant },
		"unchanged":        func(p *Proof) { p.Entry.Outcome = policies.CodeUnchanged },
		"another request":  func(p *Proof) { p.Details.Request[0] ^= 1 },
		"another session":  func(p *Proof) { p.Details.Session[0] ^= 1 },
		"another nonce":    func(p *Proof) { p.Details.Nonce[0] ^= 1 },
		"another reader":   func(p *Proof) { p.Details.Reader[0] ^= 1 },
		"another owner":    func(p *Proof) { p.Details.Owner[0] ^= 1 },
		"another field":    func(p *Proof) { p.Details.Field = "tax.id" },
		"another author":   func(p *Proof) { p.Details.Author[0] ^= 1 },
		"another version":  func(p *Proof) { p.Details.Version++ },
		"another epoch":    func(p *Proof) { p.Details.Epoch++ },
		"another leaf":     func(p *Proof) { p.Details.Leaf[0] ^= 1 },
		"another manifest": func(p *Proof) { p.Details.Head[0] ^= 1 },
		"another grant":    func(p *Proof) { p.Details.Grant[0] ^= 1 },
		"another custody":  func(p *Proof) { p.Details.Custody = policies.CustodySealed },
		"nothing: erased":  func(p *Proof) { p.Details = nil },
	} {
		p, details := *good.Proof, *good.Proof.Details
		p.Details = &details
		change(&p)
		if err := r.says(&good, &p); !errors.Is(err, ErrUnproven) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
