package storefront

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
	"github.com/sallyport/sallyport/vault/gate"
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
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			w.front.vaultEnvelope(ctx)
			done <- struct{}{}
		}()
	}
	for range 10 {
		<-done
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("ten callers waited %s one after the other", took)
	}
	w.front.cached.env, w.front.cached.at = w.vault.Document(), time.Now().Add(-time.Hour)
	begun = time.Now()
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := w.front.vaultEnvelope(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
	if took := time.Since(begun); took > 5*time.Second {
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

// TestRelationshipsOfOneReader: a reader has so many relationships and no more, counted over restarts and also where nobody counted before; others
// are not touched; and all are listed, in pages.
func TestRelationshipsOfOneReader(t *testing.T) {
	limits := loose
	limits.Relationships = pageDocuments
	w := newWorld(t, limits)
	anna, acme, eve := w.member(policies.KindPerson), w.member(policies.KindBusiness), w.member(policies.KindBusiness)
	post := func(owner *party) error {
		return acme.do("POST", api.PathRelationships, relationship(acme, owner).Raw, nil)
	}
	stranger := func(i int) *party { return &party{w: w, id: policies.IdentityID{1, byte(i), byte(i >> 8)}} }
	w.must(post(anna))
	// What counts is what is there, not a record that may be gone.
	w.must(w.db.Commit(t.Context(), store.Change{Key: key(kindCount, acme.id[:]), Delete: true}))
	want := map[policies.OwnerID]bool{anna.owner(): true, acme.owner(): true}
	for i := range pageDocuments - 1 {
		want[stranger(i).owner()] = true
		w.must(post(stranger(i)))
	}
	wantCode(t, post(stranger(pageDocuments)), policies.CodeTooLarge)
	wantCode(t, post(anna), policies.CodeTooLarge)
	w.crash()
	for _, p := range []*party{anna, acme, eve} {
		p.logIn()
	}
	wantCode(t, post(stranger(pageDocuments)), policies.CodeTooLarge)
	w.must(eve.do("POST", api.PathRelationships, relationship(eve, anna).Raw, nil)) // others are not touched
	w.must(eve.do("POST", api.PathRelationships, relationship(eve, acme).Raw, nil)) // and acme is an owner, too
	var pages []int
	seen := map[policies.Hash]bool{}
	for query := ""; ; {
		var page api.Envelopes
		w.must(acme.do("GET", api.PathRelationships+query, nil, &page))
		pages = append(pages, len(page.Envelopes))
		for _, raw := range page.Envelopes {
			e, err := envelope.Parse(raw)
			w.must(err)
			d, err := policies.Decode[policies.Relationship](e)
			w.must(err)
			if seen[e.Hash] {
				t.Error("one is on two pages")
			}
			seen[e.Hash] = true
			delete(want, d.Owner)
		}
		if query = "?after=" + page.After; page.After == "" || len(pages) > 9 {
			break
		}
	}
	if len(seen) != pageDocuments+1 || len(want) != 0 || len(pages) != 2 || pages[0] != pageDocuments {
		t.Errorf("%d relationships on pages of %v, %d owners missing", len(seen), pages, len(want))
	}
	for _, query := range []string{"?after=zz", "?after=" + anna.id.String(), "?with=" + anna.id.String() + "&after=72" + strings.Repeat("00", 40)} {
		wantCode(t, acme.do("GET", api.PathRelationships+query, nil, nil), policies.CodeMalformed)
	}
}

// TestDocumentsAreFew: manifests and grants are kept for ever, here, in the vault's memory and in its log. A revocation gets through whatever was
// sent before.
func TestDocumentsAreFew(t *testing.T) {
	limits := loose
	limits.DocumentRate, limits.DocumentBurst = 1e-9, documentCost(envelope.MaxSize)
	w := newWorld(t, limits)
	anna, ben, acme := w.member(policies.KindPerson), w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "n")})
	given := anna.give(acme, "billing", "name")
	spent := 0
	for w.front.callers.allow("d"+string(anna.id[:]), time.Now(), limits.DocumentRate, limits.DocumentBurst, 1) {
		spent++
	}
	if spent > limits.DocumentBurst-2 {
		t.Errorf("a manifest and a grant left %d of %d", spent, limits.DocumentBurst)
	}
	_, sub := anna.grant(acme, "billing", "name")
	wantCode(t, anna.submit(api.PathGrants, sub), policies.CodeRateLimited)
	item := anna.set("name", "m")
	wantCode(t, anna.post(anna.sign(), []api.Item{item}), policies.CodeRateLimited)
	w.must(anna.submit(api.PathRevocations, anna.revocation(given, "name")))
	ben.publish([]api.Item{ben.set("name", "n")})
}

// TestCrowdedOut: when there is no room for another login or session, whoever has most gives one up; who has one keeps it.
func TestCrowdedOut(t *testing.T) {
	now := time.Now()
	var l logins
	l.init()
	var s sessions
	s.init()
	put := func(who byte) (policies.DocumentID, policies.Hash, error) {
		id, h := policies.NewDocumentID(), policies.Hash(policies.NewDocumentID())
		return id, h, errors.Join(
			l.add(id, &login{subject: policies.IdentityID{who}, expires: now.Add(time.Hour)}, now, 10),
			s.add(h, openSession{reader: policies.ReaderID{who}, expires: now.Add(time.Hour).Unix()}, now, 10))
	}
	honestLogin, honestSession, err := put(1)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if _, _, err := put(2); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := l.find(honestLogin, now); !ok {
		t.Error("the login of one who has no other was given up")
	}
	if _, err := s.find(honestSession, now); err != nil {
		t.Error("the session of one who has no other was given up")
	}
	if len(l.open) != 10 || len(s.open) != 10 || len(s.of[policies.ReaderID{2}]) != 9 || len(l.of[policies.IdentityID{2}]) != 9 {
		t.Errorf("%d logins, %d sessions", len(l.open), len(s.open))
	}
	for who := range byte(9) { // until everybody has one
		put(10 + who)
	}
	if _, _, err := put(99); !errors.Is(err, policies.CodeRateLimited) {
		t.Errorf("one too many: %v", err)
	}
}

// TestBodiesAreDocumented: the README's table of routes is the code's, with the longest body of each.
func TestBodiesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if method, rest, ok := strings.Cut(strings.TrimSpace(cells[min(1, len(cells)-1)]), " "); ok && len(cells) == 7 && (method == "GET" || method == "POST" || method == "DELETE") {
			path, _, _ := strings.Cut(rest, "`")
			documented[method+" "+path] = strings.TrimSpace(cells[4])
		}
	}
	for _, r := range routes {
		want := ""
		switch {
		case r.body >= mib:
			want = fmt.Sprintf("%d MiB", r.body/mib)
		case r.body > 0:
			want = fmt.Sprintf("%d KiB", r.body/kib)
		}
		if got, ok := documented[r.method+" "+r.path]; !ok || got != want {
			t.Errorf("%s %s: the README says %q, want %q", r.method, r.path, got, want)
		}
		delete(documented, r.method+" "+r.path)
	}
	for path := range documented {
		t.Errorf("the README has a route that is none: %s", path)
	}
}

// TestFixedBoundsAreDocumented: what cannot be set is in the README as it is in the code.
func TestFixedBoundsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"a value":           fmt.Sprintf("%d MiB", policies.MaxValue/mib),
		"a signed document": fmt.Sprintf("%d MiB", envelope.MaxSize/mib),
		"fields of one grant, items of one revocation, items of one read": fmt.Sprintf("%d, %s, %s", policies.MaxGrantFields, thousands(policies.MaxRevokedItems), thousands(policies.MaxReadItems)),
		"entries of one request for evidence":                             thousands(policies.MaxEvidence),
		"ciphertext in the answer to one read":                            fmt.Sprintf("%d MiB", readBytes/mib),
		"a sealed message":                                                fmt.Sprintf("%d KiB", api.MaxMessage/kib),
		"how long a sealed message waits for its receiver":                fmt.Sprintf("%d days", api.MaxMessageLife/(24*time.Hour)),
		"how long a receiver waits for a message":                         fmt.Sprintf("%d s", api.MaxMessageWait/time.Second),
		"requests of one receiver that wait for a message":                fmt.Sprint(waitersOfOne),
		"documents on one page of chain, grants or relationships":         fmt.Sprintf("%d, or %d MiB", pageDocuments, pageBytes/mib),
		"relationships of one reader with one owner":                      fmt.Sprint(relationshipsOfPair),
		"logins of one identity":                                          fmt.Sprint(loginsOfOne),
		"login challenges that wait for their answer, each a minute":      thousands(maxChallenges),
		"requests at once over one HTTP/2 connection":                     fmt.Sprint(gate.MaxStreams),
		"a byte that an HTTP/2 connection does not take":                  fmt.Sprintf("%d s", gate.TakeByte/time.Second),
	} {
		if !strings.Contains(string(text), "| "+name+" | "+want+" |") {
			t.Errorf("the README does not say %s: %s", name, want)
		}
	}
}

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// TestMemoryOfCallers: what one caller has in memory at once is bounded, in bodies that do not end and in answers, and others are served meanwhile; one answer
// holds so much and no more.
func TestMemoryOfCallers(t *testing.T) {
	limits := loose
	limits.Memory, limits.MemoryEach = readBytes, readBytes // the least
	w := newWorld(t, limits)
	anna, ben, acme := w.member(policies.KindPerson), w.member(policies.KindPerson), w.member(policies.KindBusiness)
	value := strings.Repeat("v", policies.MaxValue)
	anna.publish([]api.Item{anna.set("large", value)})
	ben.publish([]api.Item{ben.set("name", "n")})
	anna.give(acme, "billing", "large")
	ben.give(acme, "billing", "name")
	acme.openSession()
	size := len(anna.bodies["large"])
	ask := func(n int) error {
		items := make([]policies.ReadItem, n)
		for i := range items {
			items[i] = item(anna, "large")
		}
		_, _, err := acme.read("billing", nil, items...)
		return err
	}
	w.must(ask(readBytes / size))
	wantCode(t, ask(readBytes/size+1), policies.CodeTooLarge)
	// All of the memory is taken by somebody's body that does not end.
	c := new(call)
	w.must(w.front.share(c, "l"+string(anna.id[:])).Take(readBytes))
	wantCode(t, ask(1), policies.CodeRateLimited)
	wantCode(t, anna.do("POST", fill(api.PathManifests, anna.owner()), bytes.Repeat([]byte(" "), mib), nil), policies.CodeRateLimited)
	wantCode(t, anna.do("POST", fill(api.PathManifests, anna.owner()), bytes.Repeat([]byte(" "), trustedLength), nil), policies.CodeMalformed)
	c.shares[0].Give()
	w.must(ask(1))
	// A caller has its answer before the handler that gave it has returned what it took.
	err := w.front.share(c, "x").Take(readBytes)
	for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); err = w.front.share(c, "x").Take(readBytes) {
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		t.Errorf("after all was answered something is still taken: %v", err)
	}
}
