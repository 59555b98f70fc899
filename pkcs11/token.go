package pkcs11

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// A KeyID is the CKA_ID of a re-encryption key.
type KeyID [32]byte

func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// A Selector picks one token among those a module shows. Empty fields match
// anything; what is left must be exactly one.
type Selector struct {
	Serial string `json:"serial,omitempty"`
	Label  string `json:"label,omitempty"`
}

func (s Selector) String() string {
	var b strings.Builder
	if s.Label != "" {
		fmt.Fprintf(&b, " %q", s.Label)
	}
	if s.Serial != "" {
		fmt.Fprintf(&b, " with serial %q", s.Serial)
	}
	return b.String()
}

// A Role is who logs in.
type Role int

const (
	User Role = iota
	Officer
)

// Info is what a token says of itself.
type Info struct {
	Label        string `json:"label"`
	Serial       string `json:"serial"`
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Hardware     string `json:"hardware"`
	Firmware     string `json:"firmware"`
}

// Config says which token to open, as whom, and with how many sessions for
// Derive (at least one; as many run at once).
type Config struct {
	Profile  Profile
	Selector Selector
	Role     Role
	PIN      Secret
	Threads  int
	// LiveKeys bounds the sealed keys that are kept unwrapped. Zero: 4096.
	LiveKeys int
}

// A lane is a set of sessions for one purpose. A session is taken out, used by
// one goroutine, and put back whole: if it broke, a new one is put back.
type lane chan cryptoki.Session

// A Token is one token, opened by this process. Its methods may be called by
// several goroutines. Sessions are opened and objects searched for in Open and
// in the slow operations (Import, Destroy, Keys, SaveState, ...), never in
// Derive, Sign, Seal or Unseal.
type Token struct {
	profile  Profile
	role     Role
	info     Info
	module   *cryptoki.Module
	slot     cryptoki.Slot
	template []cryptoki.Attribute // of a derived value
	// Of a re-encryption key, custody resident and sealed.
	rekey, sealedRekey []cryptoki.Attribute

	// keepers own the live keys: their objects end with them.
	derives, signs, slow, makes, keepers lane

	live *liveKeys

	// home keeps the canary alive, a session object, and does nothing else.
	home   cryptoki.Session
	canary canary

	// mu guards keys, brought, ended, named and sealing. Derive with a resident key holds it for reading through
	// C_DeriveKey, so that whoever holds it for writing knows that no derive
	// is under way: that is the drain before a key is destroyed.
	mu      sync.RWMutex
	keys    map[KeyID]cryptoki.Object
	brought map[KeyID]cryptoki.Object // imported here, and not seen by another process yet
	ended   map[KeyID]cryptoki.Object // forgotten here: for Destroy, zero if that is done, and never to be found again
	named   map[KeyName]cryptoki.Object
	sealing sealing

	fruitless atomic.Pointer[time.Time] // when a second look was last in vain; nil: never

	once   sync.Once
	broken chan struct{} // closed when the token is of no further use
	cause  error         // written before broken is closed
	closed atomic.Bool
}

// Open loads the module, opens all sessions, logs in, and finds the keys, once.
// The caller keeps the PIN and may zero it when Open has returned.
//
// A process may have one Token of a module open at a time.
func Open(ctx context.Context, c Config) (*Token, error) {
	if err := c.Profile.Validate(); err != nil {
		return nil, err
	}
	if c.Threads < 1 || c.LiveKeys < 0 || c.PIN.empty() {
		return nil, &Error{Op: "opening token: PIN and a number of threads are needed", Kind: ErrBadInput}
	}
	if err := c.Profile.guard(c.Selector); err != nil {
		return nil, err
	}
	module, err := cryptoki.Load(c.Profile.Module, c.Profile.Reserved, c.Profile.Alone)
	if err != nil {
		return nil, &Error{Op: "loading module: " + err.Error(), Kind: ErrTokenBroken}
	}
	t := &Token{
		profile: c.Profile, role: c.Role, module: module,
		rekey: c.Profile.rekeyTemplate(Resident), sealedRekey: c.Profile.rekeyTemplate(Sealed), live: newLiveKeys(c.LiveKeys),
		template: derivedTemplate(c.Profile.ValueLen),
		derives:  make(lane, c.Threads), signs: make(lane, 1), slow: make(lane, 1), makes: make(lane, unwrapsAtOnce), keepers: make(lane, c.Threads),
		keys: make(map[KeyID]cryptoki.Object), brought: make(map[KeyID]cryptoki.Object), ended: make(map[KeyID]cryptoki.Object), named: make(map[KeyName]cryptoki.Object),
		broken: make(chan struct{}),
	}
	if err := t.open(ctx, c); err != nil {
		_ = module.Finalize()
		return nil, fmt.Errorf("opening token: %w", err)
	}
	return t, nil
}

func (t *Token) open(ctx context.Context, c Config) error {
	var err error
	if t.slot, t.info, err = find(t.module, c.Selector); err != nil {
		return err
	}
	info, err := t.module.TokenInfo(t.slot)
	if err != nil {
		return fault("reading token information", err)
	}
	if t.home, err = t.module.OpenSession(t.slot); err != nil {
		return fault("opening session", err)
	}
	if err := login(t.module, t.home, c.Role, info.Flags, c.PIN); err != nil {
		return err
	}
	if c.Role == User {
		if t.canary, err = newCanary(t.module, t.home, t.profile); err != nil {
			return err
		}
	}
	for _, l := range []lane{t.slow, t.makes, t.signs, t.derives, t.keepers} {
		for range cap(l) {
			s, err := t.module.OpenSession(t.slot)
			if err != nil {
				return fault("opening session", err)
			}
			l <- s
		}
	}
	if c.Role == Officer {
		return nil
	}
	for _, name := range []KeyName{ImportResident, ImportSealed, LogKey, StoreKey} {
		if err := t.name(name); err != nil && !errors.Is(err, ErrKeyMissing) {
			return err
		}
	}
	// A sealing key that is not as it must be is no reason to serve nothing: it
	// is not used, and SealingKeys says so.
	if _, _, err := t.SealingKeys(ctx); err != nil && !errors.Is(err, ErrAttributes) {
		return err
	}
	_, err = t.Keys(ctx)
	return err
}

// name looks a ceremony key up and remembers it. Two keys of one name are an
// error: the second may be the host's own.
func (t *Token) name(name KeyName) error {
	return t.do(context.Background(), t.slow, fmt.Sprintf("finding key %q", string(name)), func(s cryptoki.Session) error {
		o, err := t.only(s, name)
		if err != nil {
			return err
		}
		t.mu.Lock()
		t.named[name] = o
		t.mu.Unlock()
		return nil
	})
}

func (t *Token) only(s cryptoki.Session, name KeyName) (cryptoki.Object, error) {
	pl, err := t.profile.plan(name, nil)
	if err != nil {
		return 0, err
	}
	found, err := t.module.Find(s, []cryptoki.Attribute{
		cryptoki.Ulong(cryptoki.CKA_CLASS, pl.class), cryptoki.Bool(cryptoki.CKA_TOKEN, true), cryptoki.Bytes(cryptoki.CKA_LABEL, []byte(name))})
	if err == nil && name.sealing() {
		found, err = t.withoutDecoys(s, name, found)
	}
	switch {
	case err != nil:
		return 0, err
	case len(found) == 0:
		return 0, ErrKeyMissing
	case len(found) > 1:
		return 0, &AttributeError{Key: name, Attribute: "CKA_LABEL", Want: "on one key", Got: fmt.Sprintf("on %d keys", len(found))}
	}
	return found[0], nil
}

// withoutDecoys are those of the keys of a sealing key's name that are trusted: anybody can give a key that name.
func (t *Token) withoutDecoys(s cryptoki.Session, name KeyName, found []cryptoki.Object) ([]cryptoki.Object, error) {
	var real []cryptoki.Object
	for _, o := range found {
		trusted, err := t.trusted(s, o)
		if err != nil && !gone(err) {
			return nil, err
		}
		if trusted {
			real = append(real, o)
		}
	}
	if len(found) > 0 && len(real) == 0 {
		return nil, &AttributeError{Key: name, Attribute: "CKA_TRUSTED", Want: "true", Got: "false"}
	}
	return real, nil
}

// maxListed bounds the tokens that an error lists.
const maxListed = 16

// find returns the one slot that matches sel. Otherwise its error lists what there is: no secret is in a label or serial.
func find(m *cryptoki.Module, sel Selector) (cryptoki.Slot, Info, error) {
	slots, err := m.Slots()
	if err != nil {
		return 0, Info{}, fault("listing slots", err)
	}
	var (
		match cryptoki.Slot
		info  Info
		n     int
		there []string
	)
	for _, slot := range slots {
		i, err := m.TokenInfo(slot)
		if err != nil || i.Flags&cryptoki.CKF_TOKEN_INITIALIZED == 0 {
			continue
		}
		if len(there) < maxListed {
			there = append(there, fmt.Sprintf("%q (serial %q)", i.Label, i.Serial))
		}
		if sel.Label != "" && sel.Label != i.Label || sel.Serial != "" && sel.Serial != i.Serial {
			continue
		}
		match, n = slot, n+1
		info = Info{Label: i.Label, Serial: i.Serial, Manufacturer: i.Manufacturer, Model: i.Model, Hardware: i.Hardware, Firmware: i.Firmware}
	}
	if n != 1 {
		list := "the module shows none"
		if len(there) > 0 {
			list = "the module shows " + strings.Join(there, ", ")
		}
		return 0, Info{}, &Error{Op: fmt.Sprintf("selecting token%s: %d match; %s", sel, n, list), Kind: ErrTokenMissing}
	}
	return match, info, nil
}

// login makes no attempt on a token that is one wrong PIN away from locking:
// a person has to look first.
func login(m *cryptoki.Module, s cryptoki.Session, role Role, flags uint, pin Secret) error {
	user, stop := cryptoki.CKU_USER, cryptoki.CKF_USER_PIN_LOCKED|cryptoki.CKF_USER_PIN_FINAL_TRY
	if role == Officer {
		user, stop = cryptoki.CKU_SO, cryptoki.CKF_SO_PIN_LOCKED|cryptoki.CKF_SO_PIN_FINAL_TRY
	}
	if flags&stop != 0 {
		return &Error{Op: "logging in", Kind: ErrPINLocked}
	}
	return fault("logging in", m.Login(s, user, pin.bytes()))
}

// fault sorts an error at a place where no canary can be asked.
func fault(op string, err error) error {
	if err == nil {
		return nil
	}
	if ckr, ok := errors.AsType[cryptoki.CKR](err); ok {
		kind := kindOf(ckr)
		if kind == nil {
			kind = ErrTokenBroken
		}
		return &Error{Op: op, CKR: uint64(ckr), Kind: kind}
	}
	return fmt.Errorf("%s: %w", op, err)
}

// Info returns what the token says of itself.
func (t *Token) Info() Info { return t.info }

// Calls returns how often each C_ function was called.
func (t *Token) Calls() map[string]uint64 { return t.module.Calls() }

// Close ends all use of the module. It waits for operations under way. A
// second Close does nothing.
func (t *Token) Close() error {
	t.fail(ErrClosed)
	if t.closed.Swap(true) {
		return nil
	}
	for _, l := range []lane{t.slow, t.makes, t.signs, t.derives, t.keepers} {
		for range cap(l) {
			<-l
		}
	}
	_ = t.module.Logout(t.home)
	return fault("closing token", t.module.Finalize())
}

// fail makes every later operation fail with err. The first one counts.
func (t *Token) fail(err error) {
	t.once.Do(func() {
		t.cause = err
		close(t.broken)
	})
}

// do runs f with a session of l and sorts its error. The session goes back
// whole or is replaced.
func (t *Token) do(ctx context.Context, l lane, op string, f func(cryptoki.Session) error) error {
	select {
	case <-t.broken:
		return &Error{Op: op, Kind: t.cause}
	default:
	}
	if err := ctx.Err(); err != nil { // select below may choose a free session
		return fmt.Errorf("%s: %w", op, err)
	}
	var s cryptoki.Session
	select {
	case s = <-l:
	case <-t.broken:
		return &Error{Op: op, Kind: t.cause}
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", op, ctx.Err())
	}
	defer func() { l <- s }()
	err := f(s)
	if err == nil {
		return nil
	}
	s, err = t.judge(s, op, err)
	return err
}

// judge turns a failure into an *Error and returns the session to go on with.
//
// Values that say nothing, CKR_GENERAL_ERROR above all, are sorted by the
// canary: if it derives in the same session, the input was bad; if it does so
// in a new one, the session was; if not even that, the token is broken.
func (t *Token) judge(s cryptoki.Session, op string, err error) (cryptoki.Session, error) {
	ckr, ok := errors.AsType[cryptoki.CKR](err)
	switch {
	case errors.Is(err, cryptoki.ErrLength):
		return s, &Error{Op: op, Kind: ErrBadInput}
	case !ok:
		for _, kind := range kinds[1:] {
			if err == kind {
				return s, &Error{Op: op, Kind: kind}
			}
		}
		if errors.Is(err, ErrTokenBroken) {
			t.fail(ErrTokenBroken)
		}
		return s, fmt.Errorf("%s: %w", op, err)
	}
	kind := kindOf(ckr)
	if kind == ErrKeyMissing && t.role == User && !t.canary.sings(t.module, s) {
		// A lost login takes every private key's handle with it. That must not
		// be mistaken for a key that was destroyed.
		kind = nil
	}
	if kind == nil && t.canary.sings(t.module, s) {
		kind = ErrBadInput
	}
	if kind == nil || kind == ErrSessionBroken {
		t.live.ended(s)
		// C_CloseSession may fail on a session that is gone already.
		_ = t.module.CloseSession(s)
		fresh, openErr := t.module.OpenSession(t.slot)
		if openErr == nil {
			s = fresh
		}
		kind = ErrSessionBroken
		if openErr != nil || !t.canary.sings(t.module, s) {
			kind = ErrTokenBroken
		}
	}
	if kind == ErrTokenBroken {
		t.fail(ErrTokenBroken)
	}
	return s, &Error{Op: op, CKR: uint64(ckr), Kind: kind}
}

// fresh runs f in a session opened for it alone, to see what is really there.
func (t *Token) fresh(f func(cryptoki.Session) error) error {
	s, err := t.module.OpenSession(t.slot)
	if err != nil {
		return err
	}
	err = f(s)
	if closed := t.module.CloseSession(s); err == nil {
		err = closed
	}
	return err
}

// sync makes what the module wrote durable. SoftHSM never flushes its object
// files: without this a power cut undoes what was acknowledged. After a failed
// sync the state of the disk is unknown, so the token counts as broken.
func (t *Token) sync() error { return syncFolder(t.profile) }

func syncFolder(p Profile) error {
	if p.Sync != SyncFolder {
		return nil
	}
	fd, err := unix.Open(p.Folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Syncfs(fd)
		_ = unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("syncing token folder: %v: %w", err, ErrTokenBroken)
	}
	return nil
}

// Reserves are what must be left on the file system of the token's folder
// before anything is made there. SoftHSM does not look at what its writes
// return: on a full disk a key or state that it called made is gone, in part or
// in whole, for the next process (measured, 2.6.1).
const (
	keyReserve   = 1 << 20
	stateReserve = 64 << 10 // what keys leave is for the state, without which the log does not open
)

// room is ErrTokenFull unless so many bytes are left for new objects. Where objects are
// not files that is for the token to say.
func (p Profile) room(reserve uint64) error {
	if p.Sync != SyncFolder {
		return nil
	}
	var s unix.Statfs_t
	if err := unix.Statfs(p.Folder, &s); err != nil {
		return fmt.Errorf("looking for room in the token folder: %v: %w", err, ErrTokenBroken)
	}
	if s.Bavail*uint64(s.Bsize) < reserve || s.Files > 0 && s.Ffree < 64 {
		return ErrTokenFull
	}
	return nil
}

// A canary is a key pair of our own, made in Open as a session object: known
// in public, used for nothing. That it derives x(kG) from G shows that session,
// login and module work.
type canary struct {
	profile  Profile
	template []cryptoki.Attribute
	key      cryptoki.Object
	x        [32]byte
}

func newCanary(m *cryptoki.Module, s cryptoki.Session, p Profile) (canary, error) {
	key, point, err := sessionKey(m, s)
	if err != nil {
		return canary{}, fault("making canary key", err)
	}
	c := canary{profile: p, template: derivedTemplate(p.ValueLen), key: key, x: [32]byte(point[1:33])}
	if !c.sings(m, s) {
		return canary{}, &Error{Op: "deriving with canary key", Kind: ErrTokenBroken}
	}
	return c, nil
}

func (c canary) sings(m *cryptoki.Module, s cryptoki.Session) bool {
	if c.key == 0 {
		return false
	}
	x, err := derive(m, s, c.key, c.profile.encode(generator[:]), c.template)
	return err == nil && x == c.x
}

// sessionKey generates a P-256 key pair that ends with its session, and
// returns the private half and the uncompressed public point.
func sessionKey(m *cryptoki.Module, s cryptoki.Session) (cryptoki.Object, []byte, error) {
	pub, priv, err := m.GenerateKeyPair(s, cryptoki.Plain(cryptoki.CKM_EC_KEY_PAIR_GEN),
		[]cryptoki.Attribute{cryptoki.Bool(cryptoki.CKA_TOKEN, false), cryptoki.Bytes(cryptoki.CKA_EC_PARAMS, p256Params)},
		[]cryptoki.Attribute{cryptoki.Bool(cryptoki.CKA_TOKEN, false), cryptoki.Bool(cryptoki.CKA_PRIVATE, true),
			cryptoki.Bool(cryptoki.CKA_SENSITIVE, true), cryptoki.Bool(cryptoki.CKA_EXTRACTABLE, false), cryptoki.Bool(cryptoki.CKA_DERIVE, true)})
	if err != nil {
		return 0, nil, err
	}
	a, err := m.Read(s, pub, cryptoki.CKA_EC_POINT)
	if err != nil {
		return 0, nil, err
	}
	point := bare(a.Value, 65)
	if _, err := ecdh.P256().NewPublicKey(point); err != nil {
		return 0, nil, fmt.Errorf("the token's own public point is not on P-256: %w", ErrTokenBroken)
	}
	return priv, point, m.DestroyObject(s, pub)
}

// bare takes the OCTET STRING off a CKA_EC_POINT. PKCS#11 2.40 (section 2.3.3)
// wants it there, some modules leave it out.
func bare(point []byte, length int) []byte {
	if len(point) == length+2 && bytes.Equal(point[:2], []byte{0x04, byte(length)}) {
		return point[2:]
	}
	return point
}
