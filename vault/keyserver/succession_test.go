package keyserver

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/vault/keyserver/api"
	"github.com/sallyport/sallyport/vault/pre/password"
)

// The vault whose receipts count.
var (
	logKey        = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{4}, ed25519.SeedSize))
	vaultDocument = &policies.VaultDocument{
		Vault: policies.VaultID{5}, LogKey: policies.LogKey{Name: "vault.test/log", Algorithm: "Ed25519", PublicKey: logKey.Public().(ed25519.PublicKey)},
	}
)

// entryOf is what a vault's log says of a succession that it accepted.
func entryOf(e *envelope.Envelope) (evidence.Entry, evidence.Details) {
	return evidence.Entry{Kind: evidence.EntrySuccession, Outcome: policies.CodeAccepted}, evidence.Details{Document: policies.Hash(e.Hash)}
}

// receipt is one of a log with a single entry, which key signed.
func receipt(t testing.TB, document policies.Hash, entry evidence.Entry, details evidence.Details, key ed25519.PrivateKey) *evidence.Receipt {
	t.Helper()
	var opening evidence.Opening
	opening, entry.Commitment = evidence.Commit(&details)
	leaf := append(binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixMilli())), entry.Bytes()...)
	name := vaultDocument.LogKey.Name
	verifier, err := note.NewEd25519VerifierKey(name, key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner("PRIVATE+KEY+" + name + "+" + strings.Split(verifier, "+")[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, key.Seed()...)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := note.Sign(&note.Note{Text: evidence.Checkpoint{Size: 1, Root: policies.Hash(tlog.RecordHash(leaf))}.Text(name)}, signer)
	if err != nil {
		t.Fatal(err)
	}
	return &evidence.Receipt{
		Type: "receipt", Suite: policies.Suite, Vault: vaultDocument.Vault, Document: document,
		Evidence: evidence.Evidence{Leaf: leaf, Opening: opening}, Checkpoint: string(text),
	}
}

// accepted is a succession with the vault's receipt.
func accepted(t testing.TB, e *envelope.Envelope) api.Succession {
	t.Helper()
	entry, details := entryOf(e)
	return api.Succession{Document: e.Raw, Receipt: receipt(t, policies.Hash(e.Hash), entry, details, logKey)}
}

// recoveryOf is the recovery key of every generation but the first: that of the seed of its signing key.
func recoveryOf(seed byte) *envelope.PrivateKey {
	return envelope.NewPrivateKey(&[envelope.SeedSize]byte{seed, 1})
}

// next makes a succession of what the person has: of the recovery key, or of the key in force as one that was announced. The person goes on as they are.
func (p *person) next(t testing.TB, seed byte, recovery *envelope.PrivateKey) (*person, *envelope.Envelope) {
	t.Helper()
	previous, generation := policies.Hash(p.id), uint64(2)
	if n := len(p.line); n > 0 {
		previous, generation = policies.Hash(parse(t, p.line[n-1].Document).Hash), uint64(n+2)
	}
	out := &person{key: envelope.NewPrivateKey(&[envelope.SeedSize]byte{seed}), identity: p.identity, id: p.id}
	d := &succession.Document{
		Header: policies.NewHeader("succession", time.Now()), Audience: vaultDocument.Vault, Identity: policies.IdentityID(p.id), Link: policies.Link{Seq: 7 * generation, Prev: policies.Hash{1}},
		Generation: generation, Previous: previous, SigningKey: out.key.Public().Bytes(), KEMKey: bytes.Repeat([]byte{seed}, policies.KEMPublicKeySize),
		LoginKey: bytes.Repeat([]byte{seed + 100}, policies.KEMPublicKeySize), RecoveryHash: policies.HashKey(recoveryOf(seed).Public().Bytes()), Reason: succession.Stolen,
	}
	authority := recovery
	if recovery != nil {
		d.RecoveryKey = recovery.Public().Bytes()
	} else {
		d.Notice, authority = policies.Hash{3}, p.key
	}
	e, err := succession.Sign(d, out.key, authority)
	if err != nil {
		t.Fatal(err)
	}
	out.line = append(append(out.line, p.line...), accepted(t, e))
	return out, e
}

// firstRecovery is the recovery key of everybody's first document.
func firstRecovery() *envelope.PrivateKey {
	return envelope.NewPrivateKey(&[envelope.SeedSize]byte{50})
}

func (w *world) state(t testing.TB, p *person) (*api.Answer, error) {
	t.Helper()
	return w.Ask(t.Context(), p.id, p.sign(t, p.question(api.ActState)))
}

// TestSuccession: after the identity's keys were replaced, by the recovery key or as announced, the new ones are taken and the old ones change nothing any more, over restarts; the
// account and the count of tries stay as they are.
func TestSuccession(t *testing.T) {
	for what, recovery := range map[string]*envelope.PrivateKey{"by the recovery key": firstRecovery(), "announced": nil} {
		t.Run(what, func(t *testing.T) {
			w, p := newWorld(t), newPerson(t, 1)
			w.set(t, p, "correct horse", nil)
			for range 4 {
				if _, err := w.evaluate(t, p.id); err != nil {
					t.Fatal(err)
				}
			}
			next, _ := p.next(t, 11, recovery)
			half := &person{key: p.key, identity: p.identity, id: p.id, line: next.line}
			for range 2 {
				got, err := w.state(t, next)
				if err != nil {
					t.Fatalf("the new key: %v", err)
				}
				if got.Version != 1 || got.Tried != 4 {
					t.Fatalf("the new key: version %d, %d tried", got.Version, got.Tried)
				}
				if _, err := w.state(t, p); !errors.Is(err, policies.CodeKeyReplaced) {
					t.Errorf("the old key: %v", err)
				}
				if _, err := w.state(t, half); !errors.Is(err, policies.ErrSignature) {
					t.Errorf("the old key, with the succession: %v", err)
				}
				w.restart(t)
			}
			if n := w.log.count(kindSuccession); n != 1 {
				t.Errorf("%d entries of one succession", n)
			}
			rival, _ := p.next(t, 12, firstRecovery())
			if _, err := w.state(t, rival); !errors.Is(err, policies.CodeKeyReplaced) {
				t.Errorf("a second succession in the place of the first: %v", err)
			}
			if _, err := w.try(t, p.id, "correct horse"); err != nil {
				t.Errorf("the password meanwhile: %v", err)
			}
			if recovery == nil {
				w.set(t, next, "battery staple", password.NewKit())
				if _, err := w.try(t, p.id, "battery staple"); err != nil {
					t.Errorf("the password of the new key: %v", err)
				}
			}
			again, _ := next.next(t, 13, recoveryOf(11))
			if _, err := w.state(t, again); err != nil {
				t.Errorf("the third generation: %v", err)
			}
			if _, err := w.state(t, next); !errors.Is(err, policies.CodeKeyReplaced) {
				t.Errorf("the second after that: %v", err)
			}
		})
	}
}

// TestSuccessionProven: only what the vault's log has counts, whoever signed it. So whoever stole a root and was overruled, or holds a recovery key that is void, gets nothing here.
func TestSuccessionProven(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	w.set(t, p, "correct horse", nil)
	owner, _ := p.next(t, 11, firstRecovery())
	thief, stolen := p.next(t, 10, nil)
	holder, recovered := p.next(t, 14, firstRecovery())
	other, foreign := newPerson(t, 2).next(t, 15, firstRecovery())
	entry, details := entryOf(stolen)
	noticed, refused := entry, entry
	noticed.Kind, refused.Outcome = evidence.EntryNotice, policies.CodeSuccessionPending
	_, elsewhere := entryOf(recovered)
	wrongVault := *receipt(t, policies.Hash(stolen.Hash), entry, details, logKey)
	wrongVault.Vault = policies.VaultID{6}
	cut := *receipt(t, policies.Hash(stolen.Hash), entry, details, logKey)
	cut.Evidence.Opening = evidence.Opening{}
	before := len(w.log.records)
	for what, c := range map[string]struct {
		who     *person
		receipt *evidence.Receipt
		want    error
	}{
		"the thief of the root, without a receipt": {thief, nil, policies.CodeProof},
		"with the owner's":                         {thief, owner.line[0].Receipt, policies.ErrProof},
		"with one of somebody else":                {thief, other.line[0].Receipt, policies.ErrProof},
		"with one of its notice":                   {thief, receipt(t, policies.Hash(stolen.Hash), noticed, details, logKey), policies.CodeProof},
		"with one of a refusal":                    {thief, receipt(t, policies.Hash(stolen.Hash), refused, details, logKey), policies.ErrProof},
		"with one of another document":             {thief, receipt(t, policies.Hash(stolen.Hash), entry, elsewhere, logKey), policies.ErrProof},
		"with one that it signed":                  {thief, receipt(t, policies.Hash(stolen.Hash), entry, details, ed25519.NewKeyFromSeed(make([]byte, 32))), policies.ErrSignature},
		"with one of another vault":                {thief, &wrongVault, policies.ErrProof},
		"with one whose details were taken out":    {thief, &cut, evidence.ErrErased},
		"with an empty one":                        {thief, &evidence.Receipt{}, policies.ErrProof},
		"who holds a recovery key, without one":    {holder, nil, policies.CodeProof},
	} {
		c.who.line[0].Receipt = c.receipt
		if _, err := w.state(t, c.who); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	if len(w.log.records) != before {
		t.Error("what was refused is in the log")
	}
	if _, err := w.state(t, owner); err != nil {
		t.Errorf("the owner: %v", err)
	}
	if _, err := w.state(t, &person{key: other.key, identity: p.identity, id: p.id, line: []api.Succession{accepted(t, foreign)}}); err == nil {
		t.Error("another identity's succession is taken")
	}
	for _, vault := range []*policies.VaultDocument{nil, {Vault: serverID}} {
		c := w.config()
		c.Vault = vault
		if _, err := Open(t.Context(), c); err == nil {
			t.Error("it opens without the document of a vault, or with its own")
		}
	}
}

// TestReplacedMeanwhile: what an old key signed does not take effect after the entry that replaced it, also if it was being looked at when that came.
func TestReplacedMeanwhile(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	w.set(t, p, "correct horse", nil)
	next, _ := p.next(t, 11, firstRecovery())
	now, err := w.state(t, p)
	if err != nil {
		t.Fatal(err)
	}
	q := p.question(api.ActDelete)
	q.Serial = now.Serial + 1 // a succession counts too
	w.asked = func() {
		if _, err := w.state(t, next); err != nil {
			t.Error(err)
		}
	}
	if _, err := w.Ask(t.Context(), p.id, p.sign(t, q)); !errors.Is(err, policies.CodeKeyReplaced) {
		t.Errorf("the old key deletes the account: %v", err)
	}
	got, err := w.state(t, next)
	if err != nil {
		t.Fatal(err)
	}
	if got.Version != 1 {
		t.Errorf("the account has version %d", got.Version)
	}
}

// TestDeletedComesBack: an account of version 1 that was taken, and deleted, is not taken again: who kept it would put back what opens an old profile.
func TestDeletedComesBack(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	kit := password.NewKit()
	k := kit.Keys(p.id)
	wrapped, err := k.Wrap(make([]byte, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	account := p.sign(t, &api.Account{
		Header: policies.NewHeader("key-account", time.Now()), Audience: serverID, Owner: p.id, Version: 1, Profile: bytes.Repeat([]byte{7}, 64),
		Kit: &api.KitLock{Verifier: password.Verifier(p.id, k.Proof()), Wrapped: wrapped},
	})
	proof := k.Proof()
	for range 2 { // the same as its answer was lost
		if _, err := w.Put(t.Context(), p.id, account); err != nil {
			t.Fatal(err)
		}
	}
	now, err := w.state(t, p)
	if err != nil {
		t.Fatal(err)
	}
	q := p.question(api.ActDelete)
	q.Serial = now.Serial
	if _, err := w.Ask(t.Context(), p.id, p.sign(t, q)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := w.Put(t.Context(), p.id, account); !errors.Is(err, policies.CodeReplay) {
			t.Errorf("the deleted account: %v", err)
		}
		if _, err := w.Kit(t.Context(), p.id, &api.KitProof{Owner: p.id, Proof: proof[:]}); !errors.Is(err, policies.CodeKitWrong) {
			t.Errorf("its sheet: %v", err)
		}
		w.restart(t)
	}
	w.set(t, p, "anew", nil)
}

// TestTimeGivesNoTries: the count is of tries and not of days. Neither midnight nor a year begins it anew.
func TestTimeGivesNoTries(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	w.set(t, p, "correct horse", nil)
	w.at = time.Date(2026, 3, 1, 23, 59, 59, 0, time.UTC)
	answers := 0
	for i := range 3 * api.Tries {
		if _, err := w.evaluate(t, p.id); err == nil {
			answers++
		} else if !errors.Is(err, policies.CodePasswordLocked) {
			t.Fatal(err)
		}
		if i%5 == 4 {
			w.restart(t)
		}
		w.at = w.at.Add(300 * time.Millisecond)
	}
	w.at = w.at.AddDate(1, 0, 0)
	if _, err := w.evaluate(t, p.id); !errors.Is(err, policies.CodePasswordLocked) || answers != api.Tries {
		t.Errorf("%d tries about midnight, and a year later %v", answers, err)
	}
}

// TestSixteenSuccessions: an identity that replaced its keys as often as it may is served, with the largest profile there is.
func TestSixteenSuccessions(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	recovery := firstRecovery()
	for i := range byte(api.MaxSuccessions) {
		p, _ = p.next(t, 60+i, recovery)
		recovery = recoveryOf(60 + i)
		for range 24 { // proofs of a log of years
			r := p.line[i].Receipt
			r.Evidence.Proof = append(r.Evidence.Proof, policies.Hash{})
		}
	}
	h := w.Handler(storefront{"device": {p.id, api.ScopeAccount}}, Rates{PerSecond: 1000, Burst: 1000, Tries: 1000})
	call := func(p *person, path string, d interface {
		envelope.Document
		Validate() error
	}) policies.Code {
		body, err := json.Marshal(p.sign(t, d))
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
		r.Header.Set("Authorization", "Bearer device")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		t.Logf("%s: %d bytes", path, len(body))
		if rec.Code == http.StatusOK {
			return ""
		}
		return problem.Of(problem.Read(rec.Code, rec.Header().Get("Content-Type"), rec.Body)).Code
	}
	// The proofs do not lead anywhere, so it is the proof that is refused, not the length.
	account := &api.Account{Header: policies.NewHeader("key-account", time.Now()), Audience: serverID, Owner: p.id, Version: 1, Profile: make([]byte, api.MaxProfile)}
	for path, d := range map[string]interface {
		envelope.Document
		Validate() error
	}{api.PathAsk: p.question(api.ActState), api.PathAccount: account} {
		if code := call(p, path, d); code != policies.CodeProof {
			t.Errorf("%s: %s", path, code)
		}
	}
	for i := range p.line {
		p.line[i].Receipt.Evidence.Proof = nil
	}
	if code := call(p, api.PathAsk, p.question(api.ActState)); code != "" {
		t.Errorf("sixteen: %s", code)
	}
	if code := call(p, api.PathAccount, account); code != "" {
		t.Errorf("sixteen, an account: %s", code)
	}
	p, _ = p.next(t, 99, recovery)
	if code := call(p, api.PathAsk, p.question(api.ActState)); code != policies.CodeTooLarge {
		t.Errorf("seventeen: %s", code)
	}
	if n := w.log.count(kindSuccession); n != 1 {
		t.Errorf("%d entries", n)
	}
}
