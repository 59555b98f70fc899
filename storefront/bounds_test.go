package storefront

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
	"github.com/sallyport/sallyport/vault/pre"
)

// What one caller can make this process keep or wait for is bounded, whoever the caller is.

// TestNoncesCostRate: a caller who is over the rate is refused before anything of the request is remembered.
func TestNoncesCostRate(t *testing.T) {
	limits := loose
	limits.LoginRate, limits.LoginBurst = 0.001, 5
	w := newWorld(t, limits)
	anna := w.member(policies.KindPerson)
	path := fill(api.PathMirror, anna.owner())
	for range 5 {
		w.must(anna.do("GET", path, nil, nil))
	}
	for range 20 {
		wantCode(t, anna.do("GET", path, nil, nil), policies.CodeRateLimited)
	}
	one, _ := w.front.logins.find(anna.login, time.Now())
	if len(one.nonces) != 5 {
		t.Errorf("%d nonces are remembered of 5 requests that were served", len(one.nonces))
	}
}

// TestChallengesGiveWay: strangers who ask for challenges that they cannot answer do not keep anybody else from logging in.
func TestChallengesGiveWay(t *testing.T) {
	var l logins
	l.init()
	now := time.Now()
	put := func() policies.DocumentID {
		id := policies.NewDocumentID()
		l.addChallenge(id, &challenge{secret: new(pre.ChallengeSecret), expires: now.Add(challengeLifetime)}, now)
		return id
	}
	first := put()
	for range maxChallenges {
		put()
	}
	last := put()
	if _, ok := l.takeChallenge(last); !ok {
		t.Error("the newest challenge was refused")
	}
	if _, ok := l.takeChallenge(first); ok {
		t.Error("the oldest challenge is still there")
	}
	if len(l.challenges) > maxChallenges {
		t.Errorf("%d challenges are kept", len(l.challenges))
	}
	now = now.Add(2 * challengeLifetime)
	put()
	if len(l.challenges) != 1 || len(l.waiting) != 1 {
		t.Errorf("%d challenges are kept after their time, %d in line", len(l.challenges), len(l.waiting))
	}
}

// TestJunkReadsAreCharged: a read that names no session of this process is charged to its network, whatever else is wrong with it.
func TestJunkReadsAreCharged(t *testing.T) {
	limits := loose
	limits.OpenRate, limits.OpenBurst = 0.001, 10
	w := newWorld(t, limits)
	p := w.newParty(policies.KindPerson)
	var err error
	for range 11 {
		err = p.open("POST", api.PathReads, []byte(`{"request":{}}`), nil)
	}
	wantCode(t, err, policies.CodeRateLimited)
}

// TestRegistrationsAreFew: an identity is kept for ever, here, in the vault's memory and in its log, so one network registers few.
func TestRegistrationsAreFew(t *testing.T) {
	limits := loose
	limits.IdentityRate, limits.IdentityBurst = 0.001, 2
	w := newWorld(t, limits)
	anna := w.member(policies.KindPerson)
	w.member(policies.KindPerson)
	p := w.newParty(policies.KindPerson)
	wantCode(t, p.open("POST", api.PathIdentities, p.identity.Raw, nil), policies.CodeRateLimited)
	if _, err := w.vault.Chain(p.owner()); !errors.Is(err, policies.CodeNotFound) {
		t.Errorf("the vault knows the identity: %v", err)
	}
	w.must(anna.open("POST", api.PathIdentities, anna.identity.Raw, nil)) // one that is known costs nothing
}

// silentVault does not answer.
type silentVault struct{ adapter }

func (silentVault) Vault(ctx context.Context) (*envelope.Envelope, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestSilentVaultHoldsNobodyUp: callers who want the vault document wait for a silent vault side by side, each for its own time, and
// only now and then once there is a document to give.
func TestSilentVaultHoldsNobodyUp(t *testing.T) {
	w := newWorld(t, loose)
	w.front.vault = silentVault{adapter{w.vault}}
	begun := time.Now()
	done := make(chan struct{})
	for range 10 {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			w.front.vaultEnvelope(ctx)
			done <- struct{}{}
		}()
	}
	for range 10 {
		<-done
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("ten callers waited %s one after the other", took)
	}
	w.front.cached.env, w.front.cached.at = w.vault.Document(), time.Now().Add(-time.Hour)
	begun = time.Now()
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if _, err := w.front.vaultEnvelope(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("ten callers waited %s for what was there", took)
	}
}

// TestNoncesOfALoginAreSwept: a login keeps the nonces that could come again, not all that it ever saw.
func TestNoncesOfALoginAreSwept(t *testing.T) {
	l := &login{nonces: make(map[policies.Nonce]time.Time)}
	now := time.Now()
	for range 100_000 {
		now = now.Add(20 * time.Millisecond) // 6,000 in the time that a request can be sent again
		if err := l.use(policies.NewNonce(), now, now); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.nonces) > 13_000 {
		t.Errorf("%d nonces are kept", len(l.nonces))
	}
}

// TestSessionsShareTheirReadersRate: opening another session does not double what a reader may read.
func TestSessionsShareTheirReadersRate(t *testing.T) {
	limits := loose
	limits.FieldRate, limits.FieldBurst = 0.001, 1000
	w := newWorld(t, limits)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	items := make([]policies.ReadItem, 600)
	for i := range items {
		items[i] = item(anna, "name")
	}
	acme.openSession()
	if _, _, err := acme.read("billing", nil, items...); err != nil {
		t.Fatal(err)
	}
	acme.openSession()
	_, _, err := acme.read("billing", nil, items...)
	wantCode(t, err, policies.CodeRateLimited)
}

// TestCollectionIsNotPutOff: whoever publishes all the time does not keep what was replaced on the disk for ever, nor does a disk that is
// full for a while.
func TestCollectionIsNotPutOff(t *testing.T) {
	var c collector
	begin := time.Now()
	k := own(policies.OwnerID{1})
	for s := range 10 {
		c.add(k, begin.Add(time.Duration(s)*time.Second+collectAfter))
	}
	if got := c.take(begin.Add(collectAfter)); len(got) != 1 {
		t.Fatalf("due a minute after the first change: %d slots", len(got))
	}
	w := newWorld(t, loose)
	anna := w.member(policies.KindPerson)
	anna.publish([]api.Item{anna.set("name", "first")})
	old := anna.leaves["name"]
	anna.publish([]api.Item{anna.set("name", "second")})
	w.store.set(func([]store.Change) error { return store.ErrFull }, nil)
	w.front.collectDue(t.Context(), time.Now().Add(collectAfter+time.Second))
	w.store.set(nil, nil)
	w.front.collectDue(t.Context(), time.Now().Add(2*collectAfter+time.Second))
	if _, err := w.db.Get(t.Context(), leafKey(anna.owner(), old.Hash())); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the replaced item: %v", err)
	}
}

// TestWeightsCountDocuments: what a cache keeps beside leaves is far larger than they are when an owner has few.
func TestWeightsCountDocuments(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "n")})
	anna.give(acme, "billing", "name")
	const unit = 512 // bytes, about what a leaf takes
	sh, err := w.front.shelf(t.Context(), own(anna.owner()))
	w.must(err)
	if n := len(sh.current.raw) / unit; sh.weight() < n {
		t.Errorf("a shelf weighs %d, its manifest alone is %d leaves long", sh.weight(), n)
	}
	set, err := w.front.granted(t.Context(), pair{policies.ReaderID(acme.id), anna.owner()})
	w.must(err)
	if n := len(set.grants[0].raw) / unit; set.weight() < n {
		t.Errorf("a grant weighs %d and is %d leaves long", set.weight(), n)
	}
}
