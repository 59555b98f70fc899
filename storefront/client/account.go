package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/redact"
	"github.com/sallyport/sallyport/storefront/api"
	keys "github.com/sallyport/sallyport/vault/keyserver/api"
	"github.com/sallyport/sallyport/vault/pre/password"
)

// An account is what a key server keeps of an owner, so that a new device needs a password or the recovery sheet and nothing else: what a backup holds, sealed
// under a key of its own. That key is in the device's state, so the sheet can be replaced without the password, and the password without the sheet.

// accountState is what the device knows of its account. The zero value: it has none.
type accountState struct {
	Server     string             `json:"server"`     // https URL
	ID         policies.VaultID   `json:"id"`         // of the key server, pinned at the first use
	Key        []byte             `json:"key"`        // of the profile
	Generation uint64             `json:"generation"` // of the identity's keys for which it was made
	Version    uint64             `json:"version"`
	Hash       policies.Hash      `json:"hash"`
	Password   *keys.PasswordLock `json:"password,omitzero"`
	Kit        *keys.KitLock      `json:"kit,omitzero"`
	Sent       *accountState      `json:"sent,omitzero"` // what this device sent last, in case that it was taken and the answer lost
}

// zero overwrites the profile's keys.
func (a *accountState) zero() {
	clear(a.Key)
	if a.Sent != nil {
		clear(a.Sent.Key)
	}
}

// server is the URL of the key server that has the account, or may have it; "" for none.
func (a *accountState) server() string {
	if a.Server == "" && a.Sent != nil {
		return a.Sent.Server
	}
	return a.Server
}

// AccountInfo is what a person is told of the account.
type AccountInfo struct {
	Server   string `json:"server"`
	Password bool   `json:"password"`
	Kit      bool   `json:"kit"`
	Tried    int    `json:"tried"` // passwords that were tried since the count began, of ten
	// Elsewhere: another device changed the account. What this device says of it is older.
	Elsewhere bool `json:"elsewhere"`
	// Outdated: what password and sheet open is of before a replacement.
	Outdated bool `json:"outdated"`
}

// ErrKit: there is a recovery sheet that works.
var ErrKit = errors.New("there is a recovery sheet already")

// ErrEndsSheet and ErrEndsPassword: what was wished would end this too, because this device has not the key of the profile that another one put there. That one can do it and keep both.
var (
	ErrEndsSheet    = errors.New("the recovery sheet, which another device made, would open nothing any more")
	ErrEndsPassword = errors.New("the password, which another device set, would open nothing any more")
)

// A Claim says how far a wish of this device goes where another one changed the account.
type Claim int

// What a device may claim.
const (
	ClaimNothing Claim = iota // another one changed it, so it is policies.CodeOutdated and nothing happens
	ClaimOwn                  // what this device sets counts; that it ends something else is ErrEndsSheet or ErrEndsPassword, and nothing happens
	ClaimAll                  // what this device sets counts, and what it cannot keep beside that ends
)

// ErrNoAccount: the owner has not set a password or printed a sheet on this device.
var ErrNoAccount = errors.New("there is no password and no recovery sheet yet")

// keyServer is a key server and an access token for it.
type keyServer struct {
	wire  *wire
	base  *url.URL
	id    policies.VaultID
	token string
	line  []keys.Succession // how the owner came to the newest keys
}

// reach finds out who the key server is.
func reach(ctx context.Context, w *wire, server string) (*keyServer, error) {
	base, err := parseBase(server)
	if err != nil {
		return nil, err
	}
	k := &keyServer{wire: w, base: base}
	var s keys.Server
	if err := w.call(ctx, request{method: "GET", path: keys.PathServer, base: base, out: &s}); err != nil {
		return nil, err
	}
	if s.ID.IsZero() {
		return nil, fmt.Errorf("%w: the account server does not say who it is", ErrUntrue)
	}
	k.id = s.ID
	return k, nil
}

func (k *keyServer) post(ctx context.Context, path string, in, out any) error {
	return k.wire.call(ctx, request{method: "POST", path: path, base: k.base, bearer: k.token, in: in, out: out})
}

// account reaches the owner's key server, with an access token of this device. The caller holds mu.
func (o *Owner) account(ctx context.Context, server string) (*keyServer, error) {
	if err := o.catchUp(ctx); err != nil {
		return nil, err
	}
	a := &o.state.Account
	if server == "" {
		server = a.server()
	}
	if server == "" {
		return nil, ErrNoAccount
	}
	k, err := reach(ctx, o.wire, server)
	if err != nil {
		return nil, err
	}
	if a.Version > 0 && k.id != a.ID {
		return nil, fmt.Errorf("%w: this is another account server than the one that has the account", ErrUntrue)
	}
	line, err := o.proven(ctx)
	if err != nil {
		return nil, err
	}
	for _, one := range line {
		k.line = append(k.line, keys.Succession(one))
	}
	var t api.AccessToken
	err = o.wire.call(ctx, request{method: "POST", path: api.PathTokens, login: true, out: &t})
	if errors.Is(err, policies.CodeClosed) { // nobody logs in any more
		var e *envelope.Envelope
		if e, err = o.neverClosing(); err == nil {
			err = o.wire.call(ctx, request{method: "POST", path: api.PathRestoreTokens, in: api.RestoreToken{Subject: o.id, Closing: e.Raw}, out: &t})
		}
	}
	if err != nil {
		return nil, err
	}
	k.token = t.Token
	return k, nil
}

// signed is what the owner signed, with what the key server verifies it by.
func (o *Owner) signed(k *keyServer, e *envelope.Envelope) keys.Signed {
	return keys.Signed{Identity: o.state.Identity, Successions: k.line, Document: e.Raw}
}

// inquire sends a question that this owner signs.
func (o *Owner) inquire(ctx context.Context, k *keyServer, q keys.Question) (*keys.Answer, error) {
	q.Header, q.Audience, q.Owner = policies.NewHeader("key-question", o.now()), k.id, policies.OwnerID(o.id)
	e, err := policies.Sign(o.signing, &q)
	if err != nil {
		return nil, err
	}
	out := new(keys.Answer)
	return out, k.post(ctx, keys.PathAsk, o.signed(k, e), out)
}

// arrived settles what this device sent and had no answer for, now that the key server says what it has. If that is it, no other device did it: it is taken over, without a sheet, which
// nobody was shown; the next version does not keep it. If the key server has what was there before, it is forgotten.
func (o *Owner) arrived(got *keys.Answer) {
	a := &o.state.Account
	sent := a.Sent
	switch {
	case sent == nil:
	case got.Version == sent.Version && got.Hash == sent.Hash:
		if sent.Kit != nil && (a.Kit == nil || a.Kit.Verifier != sent.Kit.Verifier) {
			sent.Kit = nil
		}
		*a = *sent
	case got.Version == a.Version && got.Hash == a.Hash:
		a.Sent = nil
	}
}

// there returns [ErrNoAccount] if this device has no account, also after [Owner.arrived].
func (o *Owner) there() error {
	if o.state.Account.Version == 0 {
		return ErrNoAccount
	}
	return nil
}

// current refuses to go on from another version than the key server's. With a claim, it takes over what the other device did: its version and its locks, which are of no use to this
// device if the profile is under a key that it does not have. Of an account that another device deleted, to close the owner's and did not come so far, nothing is left: with the claim to all it
// begins anew.
func (o *Owner) current(ctx context.Context, k *keyServer, claim Claim) error {
	got, err := o.inquire(ctx, k, keys.Question{Act: keys.ActState})
	if err != nil {
		return err
	}
	o.arrived(got)
	a := &o.state.Account
	if got.Version == a.Version && got.Hash == a.Hash {
		return nil
	}
	if claim == ClaimNothing {
		return policies.CodeOutdated
	}
	if got.Version == 0 && claim == ClaimAll { // which only a person says, who was told that it may be hidden
		a.zero()
		*a = accountState{Server: k.base.String(), ID: k.id}
		return nil
	}
	if got.Version == 0 {
		return fmt.Errorf("%w: the account server has none of this person any more: %w", ErrRollback, ErrNoAccount)
	}
	if got.Version < a.Version {
		return fmt.Errorf("%w: the account server has an older state than this device saw", ErrRollback)
	}
	// One that an older key of this person signed is theirs too: it is the newest that the account server took.
	var d *keys.Account
	var hash policies.Hash
	var generation uint64
	for i := len(o.line.Holders) - 1; i >= 0; i-- {
		generation = o.line.Holders[i].Generation
		if d, hash, err = keys.OpenAccount(got.Document, o.line.Holders[i].SigningKey); err == nil {
			break
		}
	}
	if err != nil || hash != got.Hash || d.Owner != policies.OwnerID(o.id) || d.Version != got.Version {
		return fmt.Errorf("%w: the account is not one that this person signed", ErrUntrue)
	}
	a.Server, a.ID = k.base.String(), k.id
	a.Version, a.Hash, a.Generation, a.Password, a.Kit, a.Sent = got.Version, got.Hash, generation, d.Password, d.Kit, nil
	var plain []byte
	if len(a.Key) == 32 {
		plain, err = password.OpenProfile((*[32]byte)(a.Key), d.Owner, d.Profile)
	}
	if clear(plain); plain == nil || err != nil {
		clear(a.Key)
		a.Key = nil
	}
	return nil
}

// keeps refuses, without the claim to all, to end the lock that is not to be changed: a profile has one key, and each lock holds it, so who has not the key cannot keep what another device locked.
func (o *Owner) keeps(claim Claim, there bool, ends error) error {
	if there && len(o.state.Account.Key) != 32 && claim != ClaimAll && !o.accountOutdated() {
		return ends
	}
	return nil
}

// put signs and stores the next version of the account, with the profile as it is now, and remembers it. change sets the locks.
func (o *Owner) put(ctx context.Context, k *keyServer, change func(d *keys.Account, profileKey []byte)) error {
	a := o.state.Account
	// Whoever stole a device has the profile's key: after a replacement there is another one, and password and sheet are to be made anew. So they are where this device lacks the key.
	if generation := o.line.Newest().Generation; len(a.Key) != 32 || a.Generation != generation {
		a.Key, a.Generation, a.Password, a.Kit = make([]byte, 32), generation, nil, nil
		rand.Read(a.Key) // never fails (crypto/rand)
	}
	owner := policies.OwnerID(o.id)
	b, err := o.backup()
	if err != nil {
		return err
	}
	d := &keys.Account{
		Header: policies.NewHeader("key-account", o.now()), Audience: k.id, Owner: owner, Version: a.Version + 1, Prev: a.Hash, Password: a.Password, Kit: a.Kit,
	}
	err = b.write(func(plain []byte) (err error) {
		d.Profile, err = password.SealProfile((*[32]byte)(a.Key), owner, plain, nil)
		return err
	})
	if err != nil {
		return err
	}
	change(d, a.Key)
	e, err := policies.Sign(o.signing, d)
	if err != nil {
		return err
	}
	next := accountState{Server: k.base.String(), ID: k.id, Key: a.Key, Generation: a.Generation, Version: d.Version, Hash: e.Hash, Password: d.Password, Kit: d.Kit}
	o.state.Account.Sent = &next
	if err := o.save(); err != nil {
		return err
	}
	got := new(keys.Answer)
	if err := k.post(ctx, keys.PathAccount, o.signed(k, e), got); err != nil {
		return err
	}
	if got.Version != d.Version || got.Hash != e.Hash {
		return fmt.Errorf("%w: the account server stored something else", ErrUntrue)
	}
	o.state.Account = next
	return o.save()
}

// SetPassword sets or changes the password with which a new device gets this profile. server is the key server's URL, or "" for the one that is known. The
// old password opens nothing any more. If another device changed the account, the claim says what happens.
func (o *Owner) SetPassword(ctx context.Context, server string, text []byte, claim Claim) (err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	k, err := o.account(ctx, server)
	if err != nil {
		return err
	}
	if err := o.current(ctx, k, claim); err != nil {
		return err
	}
	if err := o.keeps(claim, o.state.Account.Kit != nil, ErrEndsSheet); err != nil {
		return err
	}
	owner := policies.OwnerID(o.id)
	attempt, err := password.NewAttempt(owner, text, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", policies.ErrMalformed, err)
	}
	defer attempt.Zero()
	blinded := attempt.Blinded()
	prepared, err := o.inquire(ctx, k, keys.Question{Act: keys.ActPrepare, Blinded: blinded[:]})
	if err != nil {
		return err
	}
	if len(prepared.X) != 32 || prepared.Key.IsZero() {
		return fmt.Errorf("%w: the account server's answer is none", ErrUntrue)
	}
	var salt [password.SaltSize]byte
	rand.Read(salt[:])
	locks, err := attempt.Keys([32]byte(prepared.X), salt)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUntrue, err)
	}
	defer locks.Zero()
	var wrapErr error
	err = o.put(ctx, k, func(d *keys.Account, profileKey []byte) {
		p := &keys.PasswordLock{Key: prepared.Key, Salt: salt[:], Verifier: password.Verifier(owner, locks.Proof())}
		p.Wrapped, wrapErr = locks.Wrap(profileKey, nil)
		d.Password = p
	})
	return errors.Join(wrapErr, err)
}

// NewKit makes a recovery sheet and returns its code. Whoever has the code has the profile. One that works opens nothing any more afterwards, which is told; unless again says
// that this is meant, it is [ErrKit], and nothing happens. For server and claim see [Owner.SetPassword].
func (o *Owner) NewKit(ctx context.Context, server string, claim Claim, again bool) (_ *password.Kit, ended bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	k, err := o.account(ctx, server)
	if err != nil {
		return nil, false, err
	}
	if err := o.current(ctx, k, claim); err != nil {
		return nil, false, err
	}
	if ended = o.state.Account.Kit != nil && !o.accountOutdated(); ended && !again {
		return nil, false, ErrKit
	}
	if err := o.keeps(claim, o.state.Account.Password != nil, ErrEndsPassword); err != nil {
		return nil, false, err
	}
	owner, kit := policies.OwnerID(o.id), password.NewKit()
	locks := kit.Keys(owner)
	defer locks.Zero()
	var wrapErr error
	err = o.put(ctx, k, func(d *keys.Account, profileKey []byte) {
		l := &keys.KitLock{Verifier: password.Verifier(owner, locks.Proof())}
		l.Wrapped, wrapErr = locks.Wrap(profileKey, nil)
		d.Kit = l
	})
	if err = errors.Join(wrapErr, err); err != nil {
		return nil, false, err
	}
	return kit, ended, nil
}

// DropKit switches the recovery sheet off, and reports whether there was one. For claim see [Owner.SetPassword].
func (o *Owner) DropKit(ctx context.Context, claim Claim) (was bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	k, err := o.account(ctx, "")
	if err != nil {
		return false, err
	}
	if err := cmp.Or(o.current(ctx, k, claim), o.there()); err != nil {
		return false, err
	}
	if err := o.keeps(claim, o.state.Account.Password != nil, ErrEndsPassword); err != nil {
		return false, err
	}
	was = o.state.Account.Kit != nil
	return was, o.put(ctx, k, func(d *keys.Account, _ []byte) { d.Kit = nil })
}

// TestKit does what a new device would do with a sheet's code, and changes nothing here.
func (o *Owner) TestKit(ctx context.Context, kit *password.Kit) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	k, err := o.account(ctx, "")
	if err != nil {
		return err
	}
	b, a, err := k.openKit(ctx, policies.OwnerID(o.id), kit)
	if err != nil {
		return err
	}
	b.zero()
	clear(a.Key)
	return nil
}

// Account says what the key server knows.
func (o *Owner) Account(ctx context.Context) (_ AccountInfo, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	k, err := o.account(ctx, "")
	if err != nil {
		return AccountInfo{}, err
	}
	got, err := o.inquire(ctx, k, keys.Question{Act: keys.ActState})
	if err != nil {
		return AccountInfo{}, err
	}
	o.arrived(got)
	if err := o.there(); err != nil {
		return AccountInfo{}, err
	}
	a := &o.state.Account
	return AccountInfo{Server: a.Server, Password: a.Password != nil, Kit: a.Kit != nil, Tried: got.Tried, Elsewhere: got.Version != a.Version || got.Hash != a.Hash, Outdated: o.accountOutdated()}, nil
}

// AccountServer is the URL of the account server that this device knows, "" if none.
func (o *Owner) AccountServer() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state.Account.server()
}

// AccountOutdated reports whether password and sheet, as this device knows them, open what was replaced since.
func (o *Owner) AccountOutdated() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.accountOutdated()
}

func (o *Owner) accountOutdated() bool {
	a, generation := &o.state.Account, o.line.Newest().Generation
	return a.Version > 0 && a.Generation != generation || a.Sent != nil && a.Sent.Generation != generation // which may have been taken
}

// SwitchOff takes password and sheet away, both of which open what was replaced since, and puts what replaced it there, under neither.
func (o *Owner) SwitchOff(ctx context.Context) (err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	if !o.accountOutdated() {
		return nil
	}
	k, err := o.account(ctx, "")
	if err != nil {
		return err
	}
	if err := o.current(ctx, k, ClaimOwn); err != nil {
		return err
	}
	if !o.accountOutdated() { // another device has seen to it, and what opens the account now is of the newest root; or what this one sent was never taken
		return o.save()
	}
	return o.put(ctx, k, func(d *keys.Account, _ []byte) { d.Password, d.Kit = nil, nil })
}

// DropAccount deletes the account at the key server, if this device knows of one; also when this device or another one closed the owner's account before. It
// can be repeated until it succeeds.
func (o *Owner) DropAccount(ctx context.Context) (err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	if o.state.Account.server() == "" {
		return nil
	}
	k, err := o.account(ctx, "")
	if err != nil {
		return err
	}
	got, err := o.inquire(ctx, k, keys.Question{Act: keys.ActState})
	if err == nil && got.Version > 0 {
		got, err = o.inquire(ctx, k, keys.Question{Act: keys.ActDelete, Serial: got.Serial})
	}
	if err != nil {
		return err
	}
	if got.Version != 0 {
		return fmt.Errorf("%w: the account server still has the account", ErrUntrue)
	}
	o.state.Account.zero()
	o.state.Account = accountState{}
	return o.save()
}

// UnlockPassword begins the count of tries anew.
func (o *Owner) UnlockPassword(ctx context.Context) (err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	k, err := o.account(ctx, "")
	if err != nil {
		return err
	}
	got, err := o.inquire(ctx, k, keys.Question{Act: keys.ActState})
	if err != nil {
		return err
	}
	o.arrived(got)
	if err := o.there(); err != nil {
		return err
	}
	_, err = o.inquire(ctx, k, keys.Question{Act: keys.ActUnlock, Serial: got.Serial})
	return err
}

// open makes the profile out of what the key server gave for a right proof. All of it must be the owner's own.
func (k *keyServer) open(opened *keys.Opened, owner policies.OwnerID, unlock func(*keys.Account) ([]byte, error)) (*backup, accountState, error) {
	untrue := func(err error) (*backup, accountState, error) {
		return nil, accountState{}, fmt.Errorf("%w: what the account server gave is not this person's profile: %w", ErrUntrue, err)
	}
	// The identity that signed is inside, so the claim is read first and verified before it is used.
	claim, err := keys.ReadAccount(opened.Document)
	if err != nil {
		return untrue(err)
	}
	key, err := unlock(claim)
	if err != nil {
		return untrue(err)
	}
	defer clear(key)
	if len(key) != 32 {
		return untrue(password.ErrOpen)
	}
	plain, err := password.OpenProfile((*[32]byte)(key), owner, claim.Profile)
	if err != nil {
		return untrue(err)
	}
	defer clear(plain)
	b, err := parseBackup(plain, roleOwner)
	if err != nil {
		return untrue(err)
	}
	line, err := lineOf(b.Identity, b.Successions)
	if err != nil {
		return untrue(err)
	}
	if line.ID != policies.IdentityID(owner) {
		return untrue(policies.CodeSignature)
	}
	d, hash, err := keys.OpenAccount(opened.Document, line.Newest().SigningKey)
	if err != nil {
		return untrue(err)
	}
	if d.Owner != owner || d.Audience != k.id {
		return untrue(policies.CodeSignature)
	}
	return b, accountState{
		Server: k.base.String(), ID: k.id, Key: append([]byte(nil), key...), Generation: line.Newest().Generation, Version: d.Version, Hash: hash, Password: d.Password, Kit: d.Kit,
	}, nil
}

func (k *keyServer) openKit(ctx context.Context, owner policies.OwnerID, kit *password.Kit) (*backup, accountState, error) {
	locks := kit.Keys(owner)
	defer locks.Zero()
	proof := locks.Proof()
	var opened keys.Opened
	if err := k.post(ctx, keys.PathKit, keys.KitProof{Owner: owner, Proof: proof[:]}, &opened); err != nil {
		return nil, accountState{}, err
	}
	return k.open(&opened, owner, func(d *keys.Account) ([]byte, error) {
		if d.Kit == nil {
			return nil, password.ErrOpen
		}
		return locks.Unwrap(d.Kit.Wrapped)
	})
}

func (k *keyServer) openPassword(ctx context.Context, owner policies.OwnerID, text []byte) (*backup, accountState, error) {
	attempt, err := password.NewAttempt(owner, text, nil)
	if err != nil {
		return nil, accountState{}, fmt.Errorf("%w: %w", policies.ErrMalformed, err)
	}
	defer attempt.Zero()
	blinded := attempt.Blinded()
	var e keys.Evaluated
	if err := k.post(ctx, keys.PathEvaluate, keys.Evaluation{Owner: owner, Blinded: blinded[:]}, &e); err != nil {
		return nil, accountState{}, err
	}
	if len(e.X) != 32 || len(e.Salt) != password.SaltSize {
		return nil, accountState{}, fmt.Errorf("%w: the account server's answer is none", ErrUntrue)
	}
	locks, err := attempt.Keys([32]byte(e.X), [password.SaltSize]byte(e.Salt))
	if err != nil {
		return nil, accountState{}, fmt.Errorf("%w: %w", ErrUntrue, err)
	}
	defer locks.Zero()
	proof := locks.Proof()
	var opened keys.Opened
	if err := k.post(ctx, keys.PathOpen, keys.Proof{Attempt: e.Attempt, Proof: proof[:]}, &opened); err != nil {
		return nil, accountState{}, err
	}
	return k.open(&opened, owner, func(d *keys.Account) ([]byte, error) {
		if d.Password == nil {
			return nil, password.ErrOpen
		}
		return locks.Unwrap(d.Password.Wrapped)
	})
}

// A WayBack is what a person has on a new device: whose profile it is, where, and the password or the recovery sheet.
type WayBack struct {
	redact.Redacted

	Server   string           // https URL of the key server
	Owner    policies.OwnerID // the person's id
	Password []byte
	Kit      *password.Kit // instead of the password
}

// RestoreFromAccount makes a new device. The network is that of a join link: its pin must be the profile's. Sync then fetches what was published and granted.
func RestoreFromAccount(ctx context.Context, store MirrorStore, network Network, way WayBack, o Options) (*Owner, error) {
	w, err := newWire(network, policies.IdentityID(way.Owner), nil, nil, nil)
	if err != nil {
		return nil, err
	}
	defer w.http.CloseIdleConnections()
	k, err := reach(ctx, w, way.Server)
	if err != nil {
		return nil, err
	}
	var t api.AccessToken
	if err := w.call(ctx, request{method: "POST", path: api.PathRestoreTokens, in: api.RestoreToken{Subject: policies.IdentityID(way.Owner)}, out: &t}); err != nil {
		return nil, err
	}
	k.token = t.Token
	var b *backup
	var a accountState
	if way.Kit != nil {
		b, a, err = k.openKit(ctx, way.Owner, way.Kit)
	} else {
		b, a, err = k.openPassword(ctx, way.Owner, way.Password)
	}
	if err != nil {
		return nil, err
	}
	return restored(store, b, a, network, o)
}

// restored makes a device of what another one held, which may be lost. The network may be that of a join link, and its pin must be the profile's.
func restored(store MirrorStore, b *backup, a accountState, network Network, o Options) (*Owner, error) {
	if b.Network.Vault != network.Vault || b.Network.Ceremony != network.Ceremony {
		return nil, fmt.Errorf("%w: the profile belongs to another vault than the join link names", policies.ErrPin)
	}
	own := &Owner{store: store}
	own.state.base, own.state.Contacts, own.state.Codes, own.state.Account = b.base(), b.Readers, b.Codes, a
	own.state.Former, own.state.Earlier, own.state.Moved, own.state.Replacing = b.Former, b.Earlier, b.Moved, b.Replacing
	own.state.Network = network
	if err := own.open(o); err != nil {
		return nil, err
	}
	own.state.Applied = position{Hash: policies.Hash(own.id)}
	own.state.Known, own.state.Restored = own.state.Applied, true
	if len(b.Owners)+len(b.People) > 0 {
		if err := own.restoreSide(b); err != nil {
			return nil, err
		}
	}
	return own, own.save()
}
