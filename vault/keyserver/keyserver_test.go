package keyserver

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/keylog"
	"github.com/sallyport/sallyport/vault/keyserver/api"
	"github.com/sallyport/sallyport/vault/pre/password"
)

// memoryLog is a log that keeps records and can break.
type memoryLog struct {
	mu      sync.Mutex
	records []keylog.Record
	times   []time.Time
	now     func() time.Time
	broken  error
}

func (l *memoryLog) Append(_ context.Context, records ...keylog.Record) (out []keylog.Position, cp keylog.Checkpoint, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return nil, cp, l.broken
	}
	for _, r := range records {
		out = append(out, keylog.Position{Index: int64(len(l.records))})
		l.times = append(l.times, l.now())
		l.records = append(l.records, keylog.Record{Entry: bytes.Clone(r.Entry), Body: bytes.Clone(r.Body)})
	}
	return out, cp, nil
}

func (l *memoryLog) Replay(_ context.Context, from int64, f func(keylog.Position, keylog.Record) error) error {
	for i, r := range l.records[from:] {
		if err := f(keylog.Position{Index: from + int64(i), Time: l.times[from+int64(i)]}, r); err != nil {
			return err
		}
	}
	return nil
}

func (l *memoryLog) Read(index int64) (keylog.Position, keylog.Record, error) {
	return keylog.Position{Index: index}, l.records[index], nil
}

func (l *memoryLog) count(kind string) (n int) {
	for _, r := range l.records {
		if bytes.Contains(r.Entry, []byte(`"kind":"`+kind+`"`)) {
			n++
		}
	}
	return n
}

// memoryToken is a token that keeps its keys in the open.
type memoryToken struct {
	mu      sync.Mutex
	keys    map[KeyID]*ecdh.PrivateKey
	derives func() error // called before each
	stuck   KeyID        // the token refuses to destroy it
	uses    int
}

func (t *memoryToken) NewKey(_ context.Context, id KeyID) error {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keys[id] = key
	return err
}

func (t *memoryToken) Derive(_ context.Context, uses []Use) ([][32]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.derives != nil {
		if err := t.derives(); err != nil {
			return nil, err
		}
	}
	t.uses += len(uses)
	out := make([][32]byte, len(uses))
	for i, u := range uses {
		key := t.keys[u.Key]
		if key == nil {
			return nil, errors.New("no such key")
		}
		p, err := ecdh.P256().NewPublicKey(u.Point[:])
		if err != nil {
			return nil, err
		}
		x, err := key.ECDH(p)
		if err != nil {
			return nil, err
		}
		out[i] = [32]byte(x)
	}
	return out, nil
}

func (t *memoryToken) Destroy(_ context.Context, id KeyID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id == t.stuck {
		return errors.New("the token refuses")
	}
	delete(t.keys, id)
	return nil
}

func (t *memoryToken) Keys(context.Context) (out []KeyID, err error) {
	for id := range t.keys {
		out = append(out, id)
	}
	return out, nil
}

// person is somebody with an identity.
type person struct {
	key      *envelope.PrivateKey // in force
	identity []byte
	id       policies.OwnerID
	line     []api.Succession // how the identity came to it
}

func newPerson(t testing.TB, seed byte) *person {
	t.Helper()
	p := &person{key: envelope.NewPrivateKey(&[envelope.SeedSize]byte{seed})}
	e, err := policies.Sign(p.key, &policies.Identity{
		Header: policies.NewHeader("identity", time.Now()), Kind: policies.KindPerson, SigningKey: p.key.Public().Bytes(),
		KEMKey: make([]byte, policies.KEMPublicKeySize), LoginKey: bytes.Repeat([]byte{1}, policies.KEMPublicKeySize),
		RecoveryHash: policies.HashKey(envelope.NewPrivateKey(&[envelope.SeedSize]byte{50}).Public().Bytes()),
	})
	if err != nil {
		t.Fatal(err)
	}
	p.identity, p.id = e.Raw, policies.OwnerID(e.Hash)
	return p
}

var serverID = policies.VaultID{9}

func (p *person) sign(t testing.TB, d interface {
	envelope.Document
	Validate() error
}) *api.Signed {
	t.Helper()
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	e, err := envelope.Seal(p.key, d)
	if err != nil {
		t.Fatal(err)
	}
	return &api.Signed{Identity: p.identity, Successions: p.line, Document: e.Raw}
}

func (p *person) question(act string) *api.Question {
	return &api.Question{Header: policies.NewHeader("key-question", time.Now()), Audience: serverID, Owner: p.id, Act: act}
}

// world is a key server over memory.
type world struct {
	*Server
	log   *memoryLog
	token *memoryToken
	at    time.Time
	asked func() // when the time is asked for
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{token: &memoryToken{keys: map[KeyID]*ecdh.PrivateKey{}}, at: time.Now()}
	w.log = &memoryLog{now: func() time.Time { return w.at }}
	if err := Create(t.Context(), w.config()); err != nil {
		t.Fatal(err)
	}
	w.restart(t)
	return w
}

func (w *world) config() Config {
	return Config{ID: serverID, Vault: vaultDocument, Token: w.token, Log: w.log, Now: func() time.Time {
		if f := w.asked; f != nil {
			w.asked = nil
			f()
		}
		return w.at
	}}
}

func (w *world) restart(t testing.TB) {
	t.Helper()
	s, err := Open(t.Context(), w.config())
	if err != nil {
		t.Fatal(err)
	}
	w.Server = s
}

// set gives a person a password and a kit, on top of what the server has.
func (w *world) set(t testing.TB, p *person, text string, kit *password.Kit) *api.Account {
	t.Helper()
	d := w.prepare(t, p, text, kit)
	if _, err := w.Put(t.Context(), p.id, p.sign(t, d)); err != nil {
		t.Fatal(err)
	}
	return d
}

// prepare has a key made for a password, and returns the account that names it.
func (w *world) prepare(t testing.TB, p *person, text string, kit *password.Kit) *api.Account {
	t.Helper()
	a, err := password.NewAttempt(p.id, []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	blinded := a.Blinded()
	q := p.question(api.ActPrepare)
	q.Blinded = blinded[:]
	prepared, err := w.Ask(t.Context(), p.id, p.sign(t, q))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := a.Keys([32]byte(prepared.X), [password.SaltSize]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := keys.Wrap(make([]byte, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &api.Account{
		Header: policies.NewHeader("key-account", time.Now()), Audience: serverID, Owner: p.id, Version: prepared.Version + 1, Prev: prepared.Hash,
		Profile: bytes.Repeat([]byte{7}, 64),
		Password: &api.PasswordLock{Key: prepared.Key, Salt: append([]byte{1}, make([]byte, password.SaltSize-1)...),
			Verifier: password.Verifier(p.id, keys.Proof()), Wrapped: wrapped},
	}
	if kit != nil {
		k := kit.Keys(p.id)
		if wrapped, err = k.Wrap(make([]byte, 32), nil); err != nil {
			t.Fatal(err)
		}
		d.Kit = &api.KitLock{Verifier: password.Verifier(p.id, k.Proof()), Wrapped: wrapped}
	}
	return d
}

// try tries a password as a new device does.
func (w *world) try(t testing.TB, owner policies.OwnerID, text string) (*api.Opened, error) {
	t.Helper()
	a, err := password.NewAttempt(owner, []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	blinded := a.Blinded()
	e, err := w.Evaluate(t.Context(), owner, &api.Evaluation{Owner: owner, Blinded: blinded[:]})
	if err != nil {
		return nil, err
	}
	keys, err := a.Keys([32]byte(e.X), [password.SaltSize]byte(e.Salt))
	if err != nil {
		t.Fatal(err)
	}
	proof := keys.Proof()
	return w.Open(t.Context(), owner, &api.Proof{Attempt: e.Attempt, Proof: proof[:]})
}

// evaluate pays for a try and does nothing with the answer.
func (w *world) evaluate(t testing.TB, owner policies.OwnerID) (*api.Evaluated, error) {
	t.Helper()
	a, err := password.NewAttempt(owner, []byte("guess"), nil)
	if err != nil {
		t.Fatal(err)
	}
	blinded := a.Blinded()
	return w.Evaluate(t.Context(), owner, &api.Evaluation{Owner: owner, Blinded: blinded[:]})
}

// TestPassword: the right password gives the account, a wrong one nothing, and after a restart it is the same.
func TestPassword(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	w.set(t, p, "correct horse", nil)
	for range 2 {
		opened, err := w.try(t, p.id, "correct horse")
		if err != nil {
			t.Fatal(err)
		}
		identity, _, err := policies.OpenIdentity(parse(t, p.identity))
		if err != nil {
			t.Fatal(err)
		}
		if d, _, err := api.OpenAccount(opened.Document, identity.SigningKey); err != nil || d.Version != 1 {
			t.Errorf("%+v, %v", d, err)
		}
		if _, err := w.try(t, p.id, "correct hors"); !errors.Is(err, policies.CodePasswordWrong) {
			t.Errorf("a wrong password: %v", err)
		}
		w.restart(t)
	}
	w.set(t, p, "battery staple", nil)
	if _, err := w.try(t, p.id, "correct horse"); !errors.Is(err, policies.CodePasswordWrong) {
		t.Errorf("the password before: %v", err)
	}
	if _, err := w.try(t, p.id, "battery staple"); err != nil {
		t.Errorf("the new password: %v", err)
	}
	if len(w.token.keys) != 2 { // the probe's and the new password's
		t.Errorf("the token holds %d keys", len(w.token.keys))
	}
}

func parse(t testing.TB, raw []byte) *envelope.Envelope {
	t.Helper()
	e, err := envelope.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestEleventh: ten tries and no more, right or wrong, also over restarts; a right one begins anew, and so does the identity's signature, once.
func TestEleventh(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	w.set(t, p, "correct horse", nil)
	for i := range api.Tries {
		e, err := w.evaluate(t, p.id)
		if err != nil || e.Left != api.Tries-1-i {
			t.Fatalf("try %d: %+v, %v", i+1, e, err)
		}
		if i%3 == 2 {
			w.restart(t)
		}
	}
	uses := w.token.uses
	for range 3 {
		if _, err := w.try(t, p.id, "correct horse"); !errors.Is(err, policies.CodePasswordLocked) {
			t.Fatalf("the eleventh: %v", err)
		}
		w.restart(t)
	}
	if w.token.uses != uses {
		t.Error("the token was asked all the same")
	}
	state, err := w.Ask(t.Context(), p.id, p.sign(t, p.question(api.ActState)))
	if err != nil || state.Tried != api.Tries {
		t.Fatalf("%+v, %v", state, err)
	}
	q := p.question(api.ActUnlock)
	q.Serial = state.Serial
	unlock := p.sign(t, q)
	if _, err := w.Ask(t.Context(), p.id, unlock); err != nil {
		t.Fatal(err)
	}
	// The same once more, for ten tries more: not now, not after a restart.
	if _, err := w.Ask(t.Context(), p.id, unlock); !errors.Is(err, policies.CodeReplay) {
		t.Errorf("unlocked twice: %v", err)
	}
	w.restart(t)
	if _, err := w.Ask(t.Context(), p.id, unlock); !errors.Is(err, policies.CodeOutdated) {
		t.Errorf("unlocked twice, after a restart: %v", err)
	}
	for range api.Tries - 1 {
		if _, err := w.evaluate(t, p.id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.try(t, p.id, "correct horse"); err != nil {
		t.Fatalf("the tenth is the right one: %v", err)
	}
	if e, err := w.evaluate(t, p.id); err != nil || e.Left != api.Tries-1 {
		t.Errorf("after a right one: %+v, %v", e, err)
	}
}

// TestCountedFirst: a try counts when the token does not answer, when the process dies over it, and when the log does not record it the token
// is not asked at all.
func TestCountedFirst(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	w.set(t, p, "correct horse", nil)
	for range api.Tries {
		w.token.derives = func() error {
			if w.log.count(kindTry) == 0 {
				t.Error("the token is asked before the try is recorded")
			}
			return errors.New("gone")
		}
		if _, err := w.evaluate(t, p.id); !errors.Is(err, policies.CodeTokenFailure) {
			t.Fatal(err)
		}
		w.token.derives = nil
		w.restart(t) // as if it had been killed there
	}
	if _, err := w.evaluate(t, p.id); !errors.Is(err, policies.CodePasswordLocked) {
		t.Errorf("the eleventh: %v", err)
	}
	other := newPerson(t, 2)
	for _, c := range []struct{ broken, want error }{
		{errors.New("disk"), policies.CodeLogStopped}, {keylog.ErrNoSpace, policies.CodeLogFull}, {keylog.ErrClock, policies.CodeClock}, {context.Canceled, policies.CodeUnavailable},
	} {
		uses := w.token.uses
		w.log.broken = c.broken
		if _, err := w.evaluate(t, other.id); !errors.Is(err, c.want) || w.token.uses != uses {
			t.Errorf("%v: %v, and the token was asked %d times", c.broken, err, w.token.uses-uses)
		}
	}
}

// TestParallel: as many at once get ten answers between them.
func TestParallel(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	w.set(t, p, "correct horse", nil)
	var wait sync.WaitGroup
	var mu sync.Mutex
	answers := 0
	for range 40 {
		wait.Go(func() {
			if _, err := w.evaluate(t, p.id); err == nil {
				mu.Lock()
				answers++
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if answers != api.Tries {
		t.Errorf("%d answers", answers)
	}
}

// TestNoOracle: whoever has no account is answered as whoever has: the same forms, codes, counts and work.
func TestNoOracle(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	w.set(t, p, "correct horse", password.NewKit())
	nobody := policies.OwnerID{42}
	sheetOnly := newPerson(t, 3)
	type seen struct {
		form string
		code policies.Code
		left int
		uses int
	}
	look := func(owner policies.OwnerID) (out []seen) {
		for range api.Tries + 2 {
			uses := w.token.uses
			e, err := w.evaluate(t, owner)
			if err != nil {
				out = append(out, seen{code: problem.Of(err).Code, uses: w.token.uses - uses})
				continue
			}
			out = append(out, seen{form: fmt.Sprintf("%d %d %v", len(e.X), len(e.Salt), e.Attempt.IsZero()), left: e.Left, uses: w.token.uses - uses})
			_, err = w.Open(t.Context(), owner, &api.Proof{Attempt: e.Attempt, Proof: make([]byte, 32)})
			out = append(out, seen{code: problem.Of(err).Code})
		}
		_, err := w.Kit(t.Context(), owner, &api.KitProof{Owner: owner, Proof: make([]byte, 32)})
		return append(out, seen{code: problem.Of(err).Code, form: problem.Of(err).Detail})
	}
	want := fmt.Sprint(look(p.id))
	for name, owner := range map[string]policies.OwnerID{"nobody": nobody, "somebody who was never here": sheetOnly.id} {
		if got := fmt.Sprint(look(owner)); got != want {
			t.Errorf("%s is answered\n%s, and an account\n%s", name, got, want)
		}
	}
	// The salt of nobody is the same each time, as an account's is.
	w2 := newWorld(t)
	a, err := w2.evaluate(t, nobody)
	if err != nil {
		t.Fatal(err)
	}
	w2.restart(t)
	if b, err := w2.evaluate(t, nobody); err != nil || !bytes.Equal(a.Salt, b.Salt) {
		t.Errorf("the salt of nobody changes: %v", err)
	}
}

// TestVersions: of two devices that change the account apart, the second is told, and nothing of the first's is lost.
func TestVersions(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	first := w.set(t, p, "correct horse", nil)
	e, err := envelope.Seal(p.key, first)
	if err != nil {
		t.Fatal(err)
	}
	late := *first
	late.Header = policies.NewHeader("key-account", time.Now())
	for name, change := range map[string]func(*api.Account){
		"the same version":       func(d *api.Account) {},
		"over another one":       func(d *api.Account) { d.Version, d.Prev = 2, policies.Hash{5} },
		"a version left out":     func(d *api.Account) { d.Version, d.Prev = 3, e.Hash },
		"with an unprepared key": func(d *api.Account) { d.Version, d.Prev, d.Password.Key = 2, e.Hash, policies.DocumentID{5} },
	} {
		d := late
		lock := *late.Password
		d.Password = &lock
		change(&d)
		if _, err := w.Put(t.Context(), p.id, p.sign(t, &d)); !errors.Is(err, policies.CodeOutdated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The same key for another password would give whoever has the old one's answers the new one's.
	d := late
	lock := *late.Password
	lock.Verifier = policies.Hash{5}
	d.Version, d.Prev, d.Password = 2, e.Hash, &lock
	if _, err := w.Put(t.Context(), p.id, p.sign(t, &d)); !errors.Is(err, policies.ErrMalformed) && !errors.Is(err, policies.CodeMalformed) {
		t.Errorf("another password under the same key: %v", err)
	}
	if _, err := w.Put(t.Context(), p.id, &api.Signed{Identity: p.identity, Document: e.Raw}); err != nil {
		t.Errorf("the first once more, as its answer was lost: %v", err)
	}
	if _, err := w.try(t, p.id, "correct horse"); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// TestForeign: nobody gets or changes another's account, whatever they sign and whoever's access token they have.
func TestForeign(t *testing.T) {
	w, p, thief := newWorld(t), newPerson(t, 1), newPerson(t, 2)
	d := w.set(t, p, "correct horse", nil)
	e, err := w.evaluate(t, p.id)
	if err != nil {
		t.Fatal(err)
	}
	own, err := w.evaluate(t, p.id) // the cases come in any order, and each attempt is taken once
	if err != nil {
		t.Fatal(err)
	}
	next := *d
	next.Header, next.Version, next.Prev = policies.NewHeader("key-account", time.Now()), 2, w.answer(p.id).Hash
	forged := thief.sign(t, &next)
	elsewhere := p.question(api.ActState)
	elsewhere.Audience = policies.VaultID{8}
	old := p.question(api.ActState)
	old.Time -= 1000
	for name, c := range map[string]struct {
		call func() error
		want policies.Code
	}{
		"an account signed by a thief": {func() error { _, err := w.Put(t.Context(), p.id, forged); return err }, policies.CodeSignature},
		"with the victim's identity beside": {func() error {
			_, err := w.Put(t.Context(), p.id, &api.Signed{Identity: p.identity, Document: forged.Document})
			return err
		}, policies.CodeSignature},
		"a stolen token, own signature": {func() error {
			_, err := w.Ask(t.Context(), p.id, thief.sign(t, thief.question(api.ActState)))
			return err
		}, policies.CodeUnauthorized},
		"a captured question, own token": {func() error {
			_, err := w.Ask(t.Context(), thief.id, p.sign(t, p.question(api.ActState)))
			return err
		}, policies.CodeUnauthorized},
		"a question for another server": {func() error { _, err := w.Ask(t.Context(), p.id, p.sign(t, elsewhere)); return err }, policies.CodeWrongVault},
		"an old question":               {func() error { _, err := w.Ask(t.Context(), p.id, p.sign(t, old)); return err }, policies.CodeExpired},
		"another's attempt": {func() error {
			_, err := w.Open(t.Context(), thief.id, &api.Proof{Attempt: own.Attempt, Proof: make([]byte, 32)})
			return err
		}, policies.CodeUnauthorized},
		"an attempt that is used up": {func() error {
			_, err := w.Open(t.Context(), p.id, &api.Proof{Attempt: e.Attempt, Proof: make([]byte, 32)})
			if err == nil {
				return nil
			}
			_, err = w.Open(t.Context(), p.id, &api.Proof{Attempt: e.Attempt, Proof: make([]byte, 32)})
			return err
		}, policies.CodeNotFound},
		"a try at another": {func() error {
			_, err := w.Evaluate(t.Context(), thief.id, &api.Evaluation{Owner: p.id, Blinded: make([]byte, 32)})
			return err
		}, policies.CodeUnauthorized},
		"no point": {func() error {
			_, err := w.Evaluate(t.Context(), p.id, &api.Evaluation{Owner: p.id, Blinded: bytes.Repeat([]byte{255}, 32)})
			return err
		}, policies.CodePoint},
	} {
		if err := c.call(); problem.Of(err).Code != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// TestAttemptEnds: what a try gave is of use for five minutes and no longer, also to who has the password.
func TestAttemptEnds(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	w.set(t, p, "correct horse", nil)
	for _, c := range []struct {
		later time.Duration
		want  error
	}{{attemptLifetime, nil}, {attemptLifetime + time.Second, policies.CodeNotFound}} {
		a, err := password.NewAttempt(p.id, []byte("correct horse"), nil)
		if err != nil {
			t.Fatal(err)
		}
		blinded := a.Blinded()
		e, err := w.Evaluate(t.Context(), p.id, &api.Evaluation{Owner: p.id, Blinded: blinded[:]})
		if err != nil {
			t.Fatal(err)
		}
		keys, err := a.Keys([32]byte(e.X), [password.SaltSize]byte(e.Salt))
		if err != nil {
			t.Fatal(err)
		}
		proof := keys.Proof()
		w.at = w.at.Add(c.later)
		if _, err := w.Open(t.Context(), p.id, &api.Proof{Attempt: e.Attempt, Proof: proof[:]}); !errors.Is(err, c.want) {
			t.Errorf("%v later: %v", c.later, err)
		}
	}
}

// TestKit: the sheet opens the account, also where the password is locked; replaced or switched off it opens nothing.
func TestKit(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	kit, next := password.NewKit(), password.NewKit()
	w.set(t, p, "correct horse", kit)
	open := func(kit *password.Kit) error {
		proof := kit.Keys(p.id).Proof()
		_, err := w.Kit(t.Context(), p.id, &api.KitProof{Owner: p.id, Proof: proof[:]})
		return err
	}
	for range api.Tries {
		if _, err := w.evaluate(t, p.id); err != nil {
			t.Fatal(err)
		}
	}
	proof := kit.Keys(p.id).Proof()
	if _, err := w.Kit(t.Context(), newPerson(t, 2).id, &api.KitProof{Owner: p.id, Proof: proof[:]}); !errors.Is(err, policies.CodeUnauthorized) {
		t.Errorf("with another's access token: %v", err)
	}
	if err := open(kit); err != nil {
		t.Error(err)
	}
	w.set(t, p, "correct horse", next)
	if err := open(kit); !errors.Is(err, policies.CodeKitWrong) {
		t.Errorf("the sheet before: %v", err)
	}
	if err := open(next); err != nil {
		t.Error(err)
	}
	w.set(t, p, "correct horse", nil)
	if err := open(next); !errors.Is(err, policies.CodeKitWrong) {
		t.Errorf("switched off: %v", err)
	}
}

// TestStuckAtTheStart: a key that no account uses and that the token does not destroy keeps the key server from starting, which names it.
func TestStuckAtTheStart(t *testing.T) {
	w := newWorld(t)
	w.token.stuck = KeyID{0xab, 0xcd}
	if err := w.token.NewKey(t.Context(), w.token.stuck); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), w.config()); err == nil || !strings.Contains(err.Error(), "abcd0000") {
		t.Errorf("%v", err)
	}
	w.token.stuck = KeyID{}
	w.restart(t)
}

// TestStart: keys that no account uses are gone after a start, a log of another server does not open, and neither does one with another token.
func TestStart(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	w.set(t, p, "correct horse", nil)
	q := p.question(api.ActPrepare)
	q.Blinded = make([]byte, 32)
	q.Blinded[31] = 5
	if _, err := w.Ask(t.Context(), p.id, p.sign(t, q)); err != nil {
		t.Fatal(err)
	}
	if err := w.token.NewKey(t.Context(), KeyID{77}); err != nil {
		t.Fatal(err)
	}
	w.at = w.at.Add(preparedLifetime + time.Minute)
	w.restart(t)
	if len(w.token.keys) != 2 {
		t.Errorf("the token holds %d keys after the start", len(w.token.keys))
	}
	if _, err := w.try(t, p.id, "correct horse"); err != nil {
		t.Error(err)
	}
	c := w.config()
	c.ID = policies.VaultID{1}
	if _, err := Open(t.Context(), c); err == nil {
		t.Error("another server's log opens")
	}
	c = w.config()
	c.Token = &memoryToken{keys: map[KeyID]*ecdh.PrivateKey{}}
	if _, err := Open(t.Context(), c); err == nil {
		t.Error("it opens with another token")
	}
	if err := Create(t.Context(), w.config()); err == nil {
		t.Error("a log is begun twice")
	}
}

// TestPrepareAgain: a key that was prepared is there for as long as an account may name it, also when another was asked for and could not be recorded.
func TestPrepareAgain(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	prepare := func() (*api.Answer, error) {
		q := p.question(api.ActPrepare)
		q.Blinded = make([]byte, 32)
		q.Blinded[31] = 5
		return w.Ask(t.Context(), p.id, p.sign(t, q))
	}
	first, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	w.log.broken = keylog.ErrNoSpace
	if _, err := prepare(); !errors.Is(err, policies.CodeLogFull) {
		t.Errorf("without a log: %v", err)
	}
	if w.token.keys[KeyID(first.Key)] == nil {
		t.Error("the first key is gone, and an account may name it still")
	}
	w.log.broken = nil
	second, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	if w.token.keys[KeyID(first.Key)] != nil || w.token.keys[KeyID(second.Key)] == nil {
		t.Error("the second one did not take the place of the first")
	}
}

// TestPreparedBeforeARestart: the server may stop between the two halves of a new password. The device notices nothing, whatever password there was before.
func TestPreparedBeforeARestart(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	for _, text := range []string{"correct horse", "battery staple"} {
		d := w.prepare(t, p, text, nil)
		w.restart(t)
		if _, err := w.Put(t.Context(), p.id, p.sign(t, d)); err != nil {
			t.Fatal(err)
		}
		w.restart(t)
		if _, err := w.try(t, p.id, text); err != nil {
			t.Error(err)
		}
		if len(w.token.keys) != 2 {
			t.Errorf("the token holds %d keys", len(w.token.keys))
		}
	}
}

// TestPreparedAndNotMade: whoever is killed between the entry and the key leaves an entry whose key nobody names, and which is no missing key.
func TestPreparedAndNotMade(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	d := w.prepare(t, p, "correct horse", nil)
	delete(w.token.keys, KeyID(d.Password.Key))
	w.restart(t)
	if _, err := w.Put(t.Context(), p.id, p.sign(t, d)); !errors.Is(err, policies.CodeOutdated) {
		t.Errorf("an account names a key that is not there: %v", err)
	}
	w.set(t, p, "correct horse", nil)
	if _, err := w.try(t, p.id, "correct horse"); err != nil {
		t.Error(err)
	}
}

// tokens is a storefront that says of each access token what it is told to.
type storefront map[string]Access

func (s storefront) Introspect(_ context.Context, token string) (Access, error) {
	a, ok := s[token]
	if !ok {
		return a, policies.CodeUnauthorized
	}
	return a, nil
}

// TestHandler: what is not allowed is refused before the body counts, and every answer is a problem document or what the route says.
func TestHandler(t *testing.T) {
	w, p := newWorld(t), newPerson(t, 1)
	w.set(t, p, "correct horse", nil)
	h := w.Handler(storefront{"device": {p.id, api.ScopeAccount}, "new": {p.id, api.ScopeRestore}}, Rates{PerSecond: 1000, Burst: 14, Tries: 2})
	state, err := json.Marshal(p.sign(t, p.question(api.ActState)))
	if err != nil {
		t.Fatal(err)
	}
	blinded, _ := json.Marshal(api.Evaluation{Owner: p.id, Blinded: append(make([]byte, 31), 5)})
	call := func(method, path, token, body string) (int, policies.Code) {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		if token != "" {
			r.Header.Set("Authorization", token)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code == http.StatusOK {
			return rec.Code, ""
		}
		return rec.Code, problem.Of(problem.Read(rec.Code, rec.Header().Get("Content-Type"), rec.Body)).Code
	}
	for _, c := range []struct {
		name, method, path, token, body string
		status                          int
		code                            policies.Code
	}{
		{"who it is", "GET", api.PathServer, "", "", 200, ""},
		{"a device", "POST", api.PathAsk, "Bearer device", string(state), 200, ""},
		{"no token", "POST", api.PathAsk, "", string(state), 401, policies.CodeUnauthorized},
		{"an unknown token", "POST", api.PathAsk, "Bearer other", string(state), 401, policies.CodeUnauthorized},
		{"another scheme", "POST", api.PathAsk, "Basic device", string(state), 401, policies.CodeUnauthorized},
		{"a new device's token", "POST", api.PathAsk, "Bearer new", string(state), 401, policies.CodeUnauthorized},
		{"too much", "POST", api.PathEvaluate, "Bearer new", strings.Repeat("a", 5<<10), 413, policies.CodeTooLarge},
		{"a try", "POST", api.PathEvaluate, "Bearer new", string(blinded), 200, ""},
		{"an unknown member", "POST", api.PathKit, "Bearer new", `{"x":1}`, 400, policies.CodeMalformed},
		{"a try too many this second", "POST", api.PathEvaluate, "Bearer new", string(blinded), 429, policies.CodeRateLimited},
		{"nothing there", "GET", "/v1/else", "", "", 404, policies.CodeNotFound},
	} {
		if status, code := call(c.method, c.path, c.token, c.body); status != c.status || code != c.code {
			t.Errorf("%s: %d %s", c.name, status, code)
		}
	}
	for range 20 {
		if status, _ := call("GET", api.PathServer, "", ""); status == http.StatusTooManyRequests {
			return
		}
	}
	t.Error("an address is not limited")
}

// TestIntrospection: a token is taken only if all that counts is right.
func TestIntrospection(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	id := policies.OwnerID{1}
	good := map[string]any{"active": true, "scope": "account", "sub": id.String(), "aud": Audience, "exp": now.Unix() + 10, "token_type": "Bearer", "iss": "x"}
	for name, change := range map[string]func(map[string]any){
		"good": nil, "not active": func(m map[string]any) { m["active"] = false }, "ended": func(m map[string]any) { m["exp"] = now.Unix() },
		"for something else": func(m map[string]any) { m["aud"] = "other" }, "of nobody": func(m map[string]any) { delete(m, "sub") },
		"without a scope": func(m map[string]any) { delete(m, "scope") }, "of no id": func(m map[string]any) { m["sub"] = "anna" }, "bare": func(m map[string]any) { clear(m); m["active"] = true },
	} {
		m := map[string]any{}
		for k, v := range good {
			m[k] = v
		}
		if change != nil {
			change(m)
		}
		body, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		a, err := parseIntrospection(body, now)
		if (err == nil) != (change == nil) || change == nil && (a.Owner != id || a.Scope != "account") {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

// FuzzIntrospection: a storefront's answer is refused or complete.
func FuzzIntrospection(f *testing.F) {
	f.Add([]byte(`{"active":true,"scope":"account","sub":"` + policies.OwnerID{1}.String() + `","aud":"sallyport-keyserver","exp":1800000001}`))
	f.Add([]byte(`{"active":false}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := parseIntrospection(body, time.Unix(1_800_000_000, 0))
		if err == nil && (a.Owner.IsZero() || a.Scope == "") {
			t.Fatalf("%s is taken for %+v", body, a)
		}
	})
}

// FuzzEntry: whatever bytes are in the log, the state that comes of them is refused or counts no more tries than there are entries.
func FuzzEntry(f *testing.F) {
	f.Add([]byte(`{"kind":"try","owner":"`+policies.OwnerID{1}.String()+`"}`), []byte(nil))
	f.Add([]byte(`{"kind":"account","version":1}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, text, body []byte) {
		s := &Server{accounts: map[policies.OwnerID]*account{}}
		var e entry
		if envelope.Decode(text, &e) != nil {
			return
		}
		for range 2 {
			if s.apply(1, &e, body) != nil {
				return
			}
		}
		if a := s.state(e.Owner); a.tried > 2 {
			t.Fatalf("%d tries of two entries", a.tried)
		}
	})
}

// TestDelete: the identity's signature takes the account away, once. Then it is as if there had never been one, over restarts too, and the token holds nothing of it.
func TestDelete(t *testing.T) {
	w, p, eve := newWorld(t), newPerson(t, 1), newPerson(t, 2)
	kit := password.NewKit()
	w.set(t, p, "correct horse", kit)
	w.set(t, eve, "battery staple", nil)
	remove := func(serial uint64, by *person) (*api.Answer, error) {
		q := p.question(api.ActDelete)
		q.Serial = serial
		return w.Ask(t.Context(), p.id, by.sign(t, q))
	}
	now, err := w.Ask(t.Context(), p.id, p.sign(t, p.question(api.ActState)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remove(now.Serial+1, p); !errors.Is(err, policies.CodeOutdated) {
		t.Errorf("another state's serial number: %v", err)
	}
	if _, err := remove(now.Serial, eve); err == nil {
		t.Error("somebody else deleted it")
	}
	if _, err := w.try(t, p.id, "correct horse"); err != nil {
		t.Fatalf("it is gone before its time: %v", err)
	}
	if now, err = w.Ask(t.Context(), p.id, p.sign(t, p.question(api.ActState))); err != nil {
		t.Fatal(err)
	}
	if got, err := remove(now.Serial, p); err != nil || got.Version != 0 || got.Hash != (policies.Hash{}) {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := remove(now.Serial, p); !errors.Is(err, policies.CodeOutdated) {
		t.Errorf("once more: %v", err)
	}
	for range 2 {
		if _, err := w.try(t, p.id, "correct horse"); !errors.Is(err, policies.CodePasswordWrong) {
			t.Errorf("the password: %v", err)
		}
		k := kit.Keys(p.id)
		proof := k.Proof()
		if _, err := w.Kit(t.Context(), p.id, &api.KitProof{Owner: p.id, Proof: proof[:]}); !errors.Is(err, policies.CodeKitWrong) {
			t.Errorf("the sheet: %v", err)
		}
		if got, err := w.Ask(t.Context(), p.id, p.sign(t, p.question(api.ActState))); err != nil || got.Version != 0 || len(got.Document) > 0 {
			t.Errorf("the state: %+v, %v", got, err)
		}
		if _, err := w.try(t, eve.id, "battery staple"); err != nil {
			t.Errorf("somebody else's: %v", err)
		}
		if len(w.token.keys) != 2 { // the probe's and the other person's
			t.Errorf("the token holds %d keys", len(w.token.keys))
		}
		w.restart(t)
	}
	if w.log.count(kindDelete) != 1 {
		t.Error("the log does not have it once")
	}
	w.set(t, p, "anew", nil)
	if _, err := w.try(t, p.id, "anew"); err != nil {
		t.Errorf("a new one: %v", err)
	}
}
