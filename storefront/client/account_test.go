package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	keys "github.com/sallyport/sallyport/vault/keyserver/api"
	"github.com/sallyport/sallyport/vault/pre"
	"github.com/sallyport/sallyport/vault/pre/password"
)

// TestHostileKeyServer: whatever a key server gives for a right proof, a new device takes the owner's own profile, signed by the owner for that server, or nothing.
func TestHostileKeyServer(t *testing.T) {
	type person struct {
		base base
		id   policies.OwnerID
		key  *envelope.PrivateKey
	}
	network := Network{Storefront: "https://store.example", Vault: policies.VaultID{1}, Ceremony: policies.Hash{1}}
	made := func(role string) person {
		b, err := newBase(role, network, policies.KindPerson, "", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		e, err := envelope.Parse(b.Identity)
		if err != nil {
			t.Fatal(err)
		}
		root, err := pre.ParseRoot(b.Root)
		if err != nil {
			t.Fatal(err)
		}
		return person{b, policies.OwnerID(e.Hash), signingKey(root)}
	}
	anna, mallory := made(roleOwner), made(roleOwner)
	business := made(roleReader)
	k := &keyServer{id: policies.VaultID{9}, base: &url.URL{Scheme: "https", Host: "accounts.example"}}
	kit := password.NewKit()
	locks := kit.Keys(anna.id)
	profileKey := bytes.Repeat([]byte{3}, 32)

	// offer is what a server answers, signed by signer, with inside's profile, of anna if nothing is changed.
	offer := func(signer, inside person, change func(*keys.Account)) *keys.Opened {
		d := &keys.Account{Header: policies.NewHeader("key-account", time.Now()), Audience: k.id, Owner: anna.id, Version: 1}
		err := inside.base.backup(time.Now()).write(func(plain []byte) (err error) {
			d.Profile, err = password.SealProfile((*[32]byte)(profileKey), anna.id, plain, nil)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		wrapped, err := locks.Wrap(profileKey, nil)
		if err != nil {
			t.Fatal(err)
		}
		d.Kit = &keys.KitLock{Verifier: password.Verifier(anna.id, locks.Proof()), Wrapped: wrapped}
		if change != nil {
			change(d)
		}
		e, err := policies.Sign(signer.key, d)
		if err != nil {
			t.Fatal(err)
		}
		return &keys.Opened{Document: e.Raw}
	}
	open := func(o *keys.Opened) (*backup, accountState, error) {
		return k.open(o, anna.id, func(d *keys.Account) ([]byte, error) {
			if d.Kit == nil {
				return nil, password.ErrOpen
			}
			return locks.Unwrap(d.Kit.Wrapped)
		})
	}
	b, a, err := open(offer(anna, anna, nil))
	if err != nil || !bytes.Equal(b.Root, anna.base.Root) || a.Version != 1 || a.Server != "https://accounts.example" || !bytes.Equal(a.Key, profileKey) {
		t.Fatalf("her own: %v, %v", a, err)
	}
	flipped := offer(anna, anna, func(d *keys.Account) { d.Profile[20] ^= 1 })
	unsigned := offer(anna, anna, nil)
	unsigned.Document = bytes.Replace(unsigned.Document, []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1)
	for name, o := range map[string]*keys.Opened{
		"signed by somebody else":        offer(mallory, anna, nil),
		"somebody else's profile":        offer(mallory, mallory, nil),
		"somebody else's, signed by her": offer(anna, mallory, nil),
		"a business's profile":           offer(business, business, nil),
		"made for another server":        offer(anna, anna, func(d *keys.Account) { d.Audience = policies.VaultID{8} }),
		"of another owner":               offer(anna, anna, func(d *keys.Account) { d.Owner = mallory.id }),
		"without what was proven":        offer(anna, anna, func(d *keys.Account) { d.Kit = nil }),
		"with another wrapping":          offer(anna, anna, func(d *keys.Account) { d.Kit.Wrapped[15] ^= 1 }),
		"a changed profile":              flipped,
		"another signature":              unsigned,
		"nothing":                        {},
		"what is no account":             {Document: anna.base.Identity},
	} {
		if _, _, err := open(o); !errors.Is(err, ErrUntrue) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// books is a key server that keeps one account and checks nothing but its version.
type books struct {
	vault   *policies.VaultDocument
	mu      sync.Mutex
	version uint64
	newest  *envelope.Envelope
	silent  bool // it takes no account
	lost    bool // it takes one, and its answer does not arrive

	successions int // how often one was shown to it
}

func (b *books) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	say := func(v any) {
		text, _ := json.Marshal(v)
		rw.Write(text)
	}
	answer := func() (a keys.Answer) {
		if b.newest != nil {
			a.Version, a.Hash, a.Document = b.version, b.newest.Hash, b.newest.Raw
		}
		return a
	}
	var in keys.Signed
	if r.Method == "POST" {
		body, _ := io.ReadAll(r.Body)
		if err := envelope.Decode(body, &in); err != nil {
			problem.Write(rw, err)
			return
		}
	}
	for _, one := range in.Successions { // the one thing that it does check of who asks
		if e, err := envelope.Parse(one.Document); err != nil || one.Receipt == nil {
			problem.Write(rw, policies.CodeProof)
			return
		} else if _, _, _, err := one.Receipt.Verify(b.vault, policies.Hash(e.Hash)); err != nil {
			problem.Write(rw, err)
			return
		}
		b.successions++
	}
	switch r.URL.Path {
	case keys.PathServer:
		say(keys.Server{ID: policies.VaultID{9}})
	case keys.PathAsk:
		token, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		if err != nil || len(token) < 33 || token[32] != 0 { // the scope: account
			problem.Write(rw, policies.CodeUnauthorized)
			return
		}
		out := answer()
		if e, err := envelope.Parse(in.Document); err == nil {
			if q, err := policies.Decode[keys.Question](e); err == nil {
				switch q.Act {
				case keys.ActDelete:
					b.version, b.newest = 0, nil
					out = answer()
				case keys.ActPrepare:
					out.Key, out.X = policies.NewDocumentID(), q.Blinded // its scalar is 1
				}
			}
		}
		say(out)
	case keys.PathAccount:
		e, err := envelope.Parse(in.Document)
		var d *keys.Account
		if err == nil {
			d, err = policies.Decode[keys.Account](e)
		}
		if err == nil && b.silent {
			err = policies.CodeUnavailable
		}
		if err == nil && d.Version != b.version+1 {
			err = policies.CodeOutdated
		}
		if err != nil {
			problem.Write(rw, err)
			return
		}
		if b.version, b.newest = d.Version, e; b.lost {
			problem.Write(rw, policies.CodeUnavailable)
			return
		}
		say(answer())
	}
}

// keyServer is such a key server, which listens.
func (w *world) keyServer() (*httptest.Server, *books) {
	b := &books{vault: w.doc}
	server := w.serve(b)
	w.t.Cleanup(server.Close)
	return server, b
}

// TestSheetOfAnotherDevice: a device that was made from a backup knows nothing of the account. It ends no sheet that works unless somebody says so, and tells of it; also after an
// attempt that failed.
func TestSheetOfAnotherDevice(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	server, b := w.keyServer()
	o, _ := w.owner()
	kit, ended, err := o.NewKit(ctx, server.URL, ClaimNothing, false)
	if w.must(err); kit == nil || ended {
		t.Fatalf("the first sheet: %v, a sheet before it was ended: %t", kit, ended)
	}
	var backup []byte
	_, err = o.Backup(false, keep(&backup))
	w.must(err)
	other, err := RestoreOwner(new(memory), backup, Options{})
	w.must(err)
	refused := func(what string, claim Claim) {
		t.Helper()
		if _, _, err := other.NewKit(ctx, server.URL, claim, false); !errors.Is(err, ErrKit) {
			t.Errorf("%s: %v, want that there is a sheet", what, err)
		}
	}
	if _, _, err := other.NewKit(ctx, server.URL, ClaimNothing, false); !errors.Is(err, policies.CodeOutdated) {
		t.Errorf("without asking what the other one did: %v", err)
	}
	refused("it counts", ClaimOwn)
	b.silent = true
	if _, _, err := other.NewKit(ctx, server.URL, ClaimAll, true); !errors.Is(err, policies.CodeUnavailable) {
		t.Errorf("of a server that takes nothing: %v", err)
	}
	b.silent = false
	refused("after an attempt that failed", ClaimNothing)
	if b.version != 1 {
		t.Errorf("the account has version %d", b.version)
	}
	if _, ended, err := other.NewKit(ctx, server.URL, ClaimAll, true); err != nil || !ended {
		t.Errorf("in place of the other device's: %v, told that it is ended: %t", err, ended)
	}
	// The first learns of it in the same way.
	if _, _, err := o.NewKit(ctx, server.URL, ClaimOwn, false); !errors.Is(err, ErrKit) {
		t.Errorf("the first device: %v, want that there is a sheet", err)
	}
}

// TestAnswerLost: what the key server took, and this device never heard of, is not another device's doing. A sheet that nobody was shown does not count as one, and what a device only
// tried to leave there is deleted with the account.
func TestAnswerLost(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	server, b := w.keyServer()
	o, m := w.owner()
	setPassword := func() error { return o.SetPassword(ctx, server.URL, []byte("correct horse"), ClaimNothing) }
	lost := func(what string, do func() error) {
		t.Helper()
		before := b.version
		b.lost = true
		if err := do(); !errors.Is(err, policies.CodeUnavailable) || b.version != before+1 {
			t.Fatalf("%s, unanswered: %v, version %d after %d", what, err, b.version, before)
		}
		b.lost = false
		info, err := o.Account(ctx)
		if w.must(err); info.Elsewhere || info.Kit {
			t.Errorf("%s, unanswered: %+v", what, info)
		}
	}
	lost("the first password", setPassword)
	o.Close()
	o, err := OpenOwner(m, Options{})
	w.must(err)
	w.must(setPassword())
	lost("another password", setPassword)
	w.must(setPassword())
	lost("a sheet", func() error { _, _, err := o.NewKit(ctx, "", ClaimNothing, false); return err })
	kit, ended, err := o.NewKit(ctx, "", ClaimNothing, false)
	if w.must(err); kit == nil || ended {
		t.Errorf("a sheet after one that nobody was shown: %v, ended one: %t", kit, ended)
	}
	lost("another sheet", func() error { _, _, err := o.NewKit(ctx, "", ClaimNothing, true); return err })
	if kit, ended, err := o.NewKit(ctx, "", ClaimNothing, false); err != nil || kit == nil || ended {
		t.Errorf("a sheet after the one that took the place of the first, and nobody was shown: %v, ended one: %t, %v", kit, ended, err)
	}
	dropKit := func() error { _, err := o.DropKit(ctx, ClaimNothing); return err }
	lost("the sheet off", dropKit)
	w.must(dropKit())

	b.version, b.newest = 0, nil
	o, _ = w.owner()
	lost("a password that a thief has", setPassword)
	w.must(o.Replace(ctx, stolen(), func(plain []byte) error { return nil }))
	if !o.AccountOutdated() {
		t.Error("a password that was perhaps set opens what was replaced, and the device does not say so")
	}
	w.must(o.SwitchOff(ctx))
	if d, err := policies.Decode[keys.Account](b.newest); err != nil || d.Version != 2 || d.Password != nil || o.AccountOutdated() {
		t.Errorf("switched off it is %+v, %v", d, err)
	}

	b.version, b.newest = 0, nil
	o, _ = w.owner()
	b.silent = true
	if err := setPassword(); !errors.Is(err, policies.CodeUnavailable) {
		t.Error(err)
	}
	b.silent = false
	_, err = o.Account(ctx)
	for what, err := range map[string]error{"account": err, "sheet off": dropKit(), "unlock": o.UnlockPassword(ctx)} {
		if !errors.Is(err, ErrNoAccount) || b.newest != nil {
			t.Errorf("%s, of one that was never taken: %v", what, err)
		}
	}
	lost("the only password", setPassword)
	w.must(o.DropAccount(ctx))
	if b.newest != nil || o.AccountServer() != "" {
		t.Error("what was left there is there still")
	}
}

// TestAccountDeletedByAnother: a device whose account another device deleted, which then did not come to close the owner's, is told so, and begins anew if the person insists: with another key, and
// without what was under the one before.
func TestAccountDeletedByAnother(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	server, b := w.keyServer()
	o, _ := w.owner()
	_, _, err := o.NewKit(ctx, server.URL, ClaimNothing, false)
	w.must(err)
	w.must(o.SetPassword(ctx, "", []byte("correct horse"), ClaimNothing))
	before := bytes.Clone(o.state.Account.Key)
	b.version, b.newest = 0, nil
	for claim, want := range map[Claim]error{ClaimNothing: policies.CodeOutdated, ClaimOwn: ErrNoAccount} {
		if err := o.SetPassword(ctx, "", []byte("battery staple"), claim); !errors.Is(err, want) {
			t.Errorf("claim %d: %v", claim, err)
		}
	}
	w.must(o.SetPassword(ctx, "", []byte("battery staple"), ClaimAll))
	if a := o.state.Account; b.version != 1 || a.Version != 1 || a.Kit != nil || a.Password == nil || len(a.Key) != 32 || bytes.Equal(a.Key, before) {
		t.Errorf("version %d there and %d here, a sheet %v, the key before %v", b.version, a.Version, a.Kit != nil, bytes.Equal(a.Key, before))
	}
}

// TestAccountOfAClosedOne: a device whose owner's account another device closed still has the key server delete what it has, or learns that it did; and so has
// one that learnt of the closing before.
func TestAccountOfAClosedOne(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	server, b := w.keyServer()
	o, _ := w.owner()
	two := second(t, w, o)
	_, _, err := o.NewKit(ctx, server.URL, ClaimNothing, false)
	w.must(err)
	_, _, err = two.NewKit(ctx, server.URL, ClaimAll, true)
	w.must(err)
	w.must(o.CloseAccount(ctx)) // without what is at the key server
	for begin := time.Now(); !errors.Is(two.Sync(ctx), policies.CodeClosed) && time.Since(begin) < 10*time.Second; time.Sleep(time.Millisecond) {
	}
	w.must(two.DropAccount(ctx))
	if b.newest != nil || two.AccountServer() != "" {
		t.Error("it is still there")
	}
	w.must(two.CloseAccount(ctx))
	w.must(o.DropAccount(ctx))
	if o.AccountServer() != "" {
		t.Error("the first device does not know that it is gone")
	}
	w.must(o.DropAccount(ctx))
	w.must(o.CloseAccount(ctx))
}

// TestWhatAnotherDeviceSet: a device that was made from a backup cannot keep what another one set beside what it sets itself. It says so, and does it only if that is said again; what it leaves works.
func TestWhatAnotherDeviceSet(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	server, b := w.keyServer()
	type device = *Owner
	setPassword := func(o device, claim Claim) error {
		return o.SetPassword(ctx, server.URL, []byte("correct horse"), claim)
	}
	print := func(o device, claim Claim) error {
		_, _, err := o.NewKit(ctx, server.URL, claim, true)
		return err
	}
	dropKit := func(o device, claim Claim) error { _, err := o.DropKit(ctx, claim); return err }
	for what, c := range map[string]struct {
		first []func(device, Claim) error // what the first device did
		then  func(device, Claim) error
		want  error
	}{
		"a password beside a sheet":        {[]func(device, Claim) error{print}, setPassword, ErrEndsSheet},
		"a sheet off beside a password":    {[]func(device, Claim) error{setPassword, print}, dropKit, ErrEndsPassword},
		"a sheet where there are both":     {[]func(device, Claim) error{setPassword, print}, print, ErrEndsPassword},
		"a password in place of another's": {[]func(device, Claim) error{setPassword}, setPassword, nil},
	} {
		b.version, b.newest = 0, nil
		o, _ := w.owner()
		var backup []byte
		_, err := o.Backup(false, keep(&backup))
		w.must(err)
		for _, do := range c.first {
			w.must(do(o, ClaimNothing))
		}
		other, err := RestoreOwner(new(memory), backup, Options{})
		w.must(err)
		if c.want == nil {
			w.must(c.then(other, ClaimOwn))
			continue
		}
		if what == "a sheet off beside a password" { // it has heard of the account
			if _, _, err := other.NewKit(ctx, server.URL, ClaimOwn, false); !errors.Is(err, ErrKit) {
				t.Errorf("%s: %v", what, err)
			}
		}
		before := b.newest
		for _, claim := range []Claim{ClaimOwn, ClaimOwn, ClaimNothing} { // also when it has seen what is there
			if err := c.then(other, claim); !errors.Is(err, c.want) || b.newest != before {
				t.Errorf("%s: %v, want %v", what, err, c.want)
			}
		}
		// A device that has the key keeps both.
		knows, err := restored(new(memory), mustBackup(t, backup), o.state.Account, w.network, Options{})
		w.must(err)
		w.must(c.then(knows, ClaimNothing))
		if a := &knows.state.Account; a.Password == nil && !errors.Is(c.want, ErrEndsSheet) || a.Kit == nil && errors.Is(c.want, ErrEndsSheet) {
			t.Errorf("%s: a device that has the key ends it", what)
		}
		w.must(c.then(other, ClaimAll))
		if a := &other.state.Account; a.Password != nil && !errors.Is(c.want, ErrEndsSheet) || a.Kit != nil && errors.Is(c.want, ErrEndsSheet) {
			t.Errorf("%s: it is there still, and opens nothing", what)
		}
	}
}

func mustBackup(t *testing.T, plain []byte) *backup {
	b, err := parseBackup(plain, roleOwner)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSwitchedOffByAnother: what another device set after the root was replaced is not switched off with what was set before.
func TestSwitchedOffByAnother(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	server, b := w.keyServer()
	o, _ := w.owner()
	_, _, err := o.NewKit(ctx, server.URL, ClaimNothing, false)
	w.must(err)
	var backup []byte
	w.must(o.Replace(ctx, stolen(), keep(&backup)))
	other, err := RestoreOwner(new(memory), backup, Options{})
	w.must(err)
	w.must(other.Sync(ctx))
	if _, ended, err := other.NewKit(ctx, server.URL, ClaimOwn, false); err != nil || ended {
		t.Fatalf("a sheet in place of one that opens what was replaced: %v, told that it is ended: %t", err, ended)
	}
	version, newest := b.version, b.newest
	b.version, b.newest = 0, nil
	if err := o.SwitchOff(ctx); !errors.Is(err, ErrRollback) || !o.AccountOutdated() {
		t.Errorf("of an account server that hides it: %v", err)
	}
	b.version, b.newest = version, newest
	w.must(o.SwitchOff(ctx))
	if info, err := o.Account(ctx); err != nil || !info.Kit || info.Elsewhere || info.Outdated {
		t.Errorf("the first device says %+v, %v", info, err)
	}
	if info, err := other.Account(ctx); err != nil || !info.Kit || info.Elsewhere {
		t.Errorf("the other says %+v, %v", info, err)
	}
}

// TestProvenToTheKeyServer: who replaced everything shows the vault's receipt of that to the account server, also if the vault alone had it at first. A storefront that shows none does not keep
// it from that, and one that shows another's gets an error for it.
func TestProvenToTheKeyServer(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	server, b := w.keyServer()
	o, _ := w.owner()
	_, _, err := o.NewKit(ctx, server.URL, ClaimNothing, false)
	w.must(err)
	if b.successions != 0 {
		t.Errorf("%d successions of who has none", b.successions)
	}
	other, _ := w.owner()
	w.must(other.Replace(ctx, stolen(), keep(new([]byte))))
	w.silent("/successions") // the storefront does not take it, and the vault does
	w.must(o.Replace(ctx, stolen(), keep(new([]byte))))
	if _, err := o.Account(ctx); !errors.Is(err, policies.CodeUnavailable) || b.successions != 0 {
		t.Errorf("of a storefront that is silent about it: %v", err)
	}
	w.hostile(nil)
	foreign, err := other.proven(ctx)
	w.must(err)
	lists := func(change func(one *api.Succession)) {
		w.rewrite("/successions", func(body []byte) []byte {
			var list api.Successions
			if json.Unmarshal(body, &list) != nil || len(list.Successions) == 0 { // an answer to who hands one in
				return body
			}
			for i := range list.Successions {
				change(&list.Successions[i])
			}
			out, _ := json.Marshal(list)
			return out
		})
	}
	_, err = o.Account(ctx) // which tells the storefront too
	w.must(err)
	shown := b.successions
	lists(func(one *api.Succession) { one.Receipt = foreign[0].Receipt })
	if _, err := o.Account(ctx); !errors.Is(err, ErrUntrue) || shown == 0 || b.successions != shown {
		t.Errorf("another's receipt: %v, shown %d times", err, shown)
	}
	for what, change := range map[string]func(one *api.Succession){
		"no receipt":     func(one *api.Succession) { one.Receipt = nil },
		"nothing at all": func(one *api.Succession) { *one = api.Succession{} },
		"somebody's":     func(one *api.Succession) { *one = foreign[0] },
	} {
		lists(change) // what it leaves out the vault says again
		if _, err := o.Account(ctx); err != nil || b.successions == shown {
			t.Errorf("%s: %v", what, err)
		}
		shown = b.successions
	}
	w.hostile(nil)
	w.must(o.SwitchOff(ctx))
	if b.successions == shown || b.version != 2 {
		t.Errorf("%d successions, version %d", b.successions, b.version)
	}
}

// TestOlderAccount: a device that knows a newer state of its account takes no older one from the key server, although this person signed that too, and none that somebody else signed; a
// newer one of another device it takes if the person says so.
func TestOlderAccount(t *testing.T) {
	answer := new(keys.Answer)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != keys.PathAsk {
			t.Errorf("asked for %s", r.URL.Path)
		}
		_ = json.MarshalWrite(w, answer)
	}))
	defer server.Close()
	network := Network{
		Storefront: server.URL, Vault: policies.VaultID{1}, Ceremony: policies.Hash{1},
		Roots: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})),
	}
	b, err := newBase(roleOwner, network, policies.KindPerson, "", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o := &Owner{state: ownerState{base: b}}
	if o.device, err = newDevice(&o.state.base, Options{}); err != nil {
		t.Fatal(err)
	}
	base, err := parseBase(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	k := &keyServer{wire: o.wire, base: base, id: policies.VaultID{9}}
	version := func(n uint64, prev policies.Hash, signer *envelope.PrivateKey) *envelope.Envelope {
		e, err := policies.Sign(signer, &keys.Account{
			Header: policies.NewHeader("key-account", time.Now()), Audience: k.id, Owner: o.ID(), Version: n, Prev: prev, Profile: make([]byte, 64),
		})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	thief := envelope.NewPrivateKey(&[envelope.SeedSize]byte{7})
	first := version(1, policies.Hash{}, o.signing)
	second := version(2, first.Hash, o.signing)
	third, forged := version(3, second.Hash, o.signing), version(3, second.Hash, thief)
	known := accountState{ID: k.id, Version: 2, Hash: second.Hash}
	for name, c := range map[string]struct {
		answer keys.Answer
		claim  Claim
		want   error
	}{
		"what it knows":                       {keys.Answer{Version: 2, Hash: second.Hash, Document: second.Raw}, ClaimNothing, nil},
		"the one before":                      {keys.Answer{Version: 1, Hash: first.Hash, Document: first.Raw}, ClaimNothing, policies.CodeOutdated},
		"the one before, insisting":           {keys.Answer{Version: 1, Hash: first.Hash, Document: first.Raw}, ClaimOwn, ErrRollback},
		"the one before under a newer number": {keys.Answer{Version: 3, Hash: first.Hash, Document: first.Raw}, ClaimOwn, ErrUntrue},
		"none any more":                       {keys.Answer{}, ClaimOwn, ErrRollback},
		"none any more, unasked":              {keys.Answer{}, ClaimNothing, policies.CodeOutdated},
		"the one before, claiming all":        {keys.Answer{Version: 1, Hash: first.Hash, Document: first.Raw}, ClaimAll, ErrRollback},
		"somebody else's":                     {keys.Answer{Version: 3, Hash: forged.Hash, Document: forged.Raw}, ClaimOwn, ErrUntrue},
		"another than its hash":               {keys.Answer{Version: 3, Hash: second.Hash, Document: third.Raw}, ClaimOwn, ErrUntrue},
		"another device's":                    {keys.Answer{Version: 3, Hash: third.Hash, Document: third.Raw}, ClaimNothing, policies.CodeOutdated},
		"another device's, insisting":         {keys.Answer{Version: 3, Hash: third.Hash, Document: third.Raw}, ClaimOwn, nil},
	} {
		*answer, o.state.Account = c.answer, known
		err := o.current(t.Context(), k, c.claim)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if now := o.state.Account; err != nil && (now.Version != 2 || now.Hash != policies.Hash(second.Hash)) {
			t.Errorf("%s: the device goes on from version %d", name, now.Version)
		}
	}
}
