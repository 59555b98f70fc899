package pkcs11

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// A SealedKey is a re-encryption key outside the token, custody sealed: PKCS#8
// wrapped with AES-KWP (RFC 5649) under the sealing key of a period.
//
// The wrapping keeps the key from whoever has no token. It is no protection
// from whoever has the token's folder, if the token is SoftHSM: a key made by
// the security officer is a public object there and lies in the folder in
// clear (TestBareBlobAndTokenFolder). So a Blob is a secret to keep: the vault
// encrypts it once more, under a key that only the token can open.
type SealedKey struct {
	Period uint32 `json:"period"`
	Blob   []byte `json:"blob"`
}

const (
	// maxBlob bounds a wrapped key: 80 bytes for the bare form of a P-256 key,
	// 152 with its public key, more where a module adds attributes.
	maxBlob = 512
	// maxReseal bounds one Reseal, which keeps other slow operations waiting.
	maxReseal = 256
)

func (k SealedKey) valid() bool { return len(k.Blob) > 0 && len(k.Blob) <= maxBlob }

// ImportSealed unwraps a re-encryption key, custody sealed, proves that it
// works, wraps it under the newest sealing key, proves that what came out loads
// back as the same key, and destroys both: nothing stays in the token. path is
// the import path that the grant names.
//
// Whatever is wrong with the wrapped key, the answer is ErrBadInput.
//
// All objects are session objects. A crash at any line takes them with it, and
// the import may be sent again.
func (t *Token) ImportSealed(ctx context.Context, id KeyID, path string, wrapped []byte) (k SealedKey, err error) {
	const op = "importing sealed key"
	accepted := false
	err = t.do(ctx, t.slow, op, func(s cryptoki.Session) error {
		period, err := t.newest()
		if err != nil {
			return err
		}
		o, x, err := t.bring(s, Sealed, path, wrapped)
		if err != nil {
			return err
		}
		accepted = true
		k, err = t.seal(s, o, x, period)
		return t.end(s, o, err)
	})
	if accepted && errors.Is(err, ErrBadInput) {
		err = &Error{Op: op + ": " + err.Error(), Kind: ErrRefused} // the owner's part was good
	}
	if err != nil {
		return SealedKey{}, err
	}
	t.live.admit(id)
	return k, nil
}

// seal wraps a live key, whose x(k*G) is x, under the sealing key of a period,
// and proves that it comes back.
func (t *Token) seal(s cryptoki.Session, o cryptoki.Object, x [32]byte, period uint32) (SealedKey, error) {
	sealing, err := t.sealingKey(period)
	if err != nil {
		return SealedKey{}, err
	}
	blob, err := t.module.WrapKey(s, cryptoki.Plain(t.profile.KWP), sealing, o)
	if err != nil {
		return SealedKey{}, fmt.Errorf("wrapping: %w", err)
	}
	k := SealedKey{Period: period, Blob: blob}
	if !k.valid() {
		return SealedKey{}, fmt.Errorf("the wrapped key has %d bytes: %w", len(blob), ErrTokenBroken)
	}
	back, err := t.load(s, k)
	if err != nil {
		return SealedKey{}, fmt.Errorf("loading the key just wrapped: %w", err)
	}
	again, err := t.accept(s, back, Sealed)
	if err == nil && again != x {
		err = fmt.Errorf("the key just wrapped came back as another: %w", ErrTokenBroken)
	}
	return k, t.end(s, back, err)
}

// end destroys a session object, whatever happened before. One that does not
// go can only be ended with the process.
func (t *Token) end(s cryptoki.Session, o cryptoki.Object, err error) error {
	if destroyed := t.module.DestroyObject(s, o); destroyed != nil {
		return fmt.Errorf("destroying a key (%v): %w", destroyed, ErrTokenBroken)
	}
	return err
}

// load unwraps a sealed key into an object of session s, with the template of
// custody sealed and nothing else: the sealing key takes no other.
func (t *Token) load(s cryptoki.Session, k SealedKey) (cryptoki.Object, error) {
	if !k.valid() {
		return 0, ErrKeyMissing
	}
	sealing, err := t.sealingKey(k.Period)
	if err != nil {
		return 0, err
	}
	return t.module.UnwrapKey(s, cryptoki.Plain(t.profile.KWP), sealing, k.Blob, t.sealedRekey)
}

// missing maps what is said of a blob that does not unwrap to ErrKeyMissing:
// foreign, damaged, or its sealing key is gone.
func missing(err error) error {
	if errors.Is(err, ErrBadInput) || errors.Is(err, ErrRefused) {
		return ErrKeyMissing
	}
	return err
}

// Reseal moves keys to the newest sealing key: each is unwrapped under that of
// its own period, wrapped under the newest, loaded back, and proved to be the
// same key, inside the token. Keys under the newest come back as they are. All
// are moved or none: an error names the first that failed, counting from one,
// and its kind tells why: ErrKeyMissing, it does not unwrap; ErrRefused, it does,
// and the newest sealing key does not take it. At most 256 at a time.
//
// What it returns is to be durable before the old sealing key is destroyed.
// The old blob still loads until then.
func (t *Token) Reseal(ctx context.Context, keys []SealedKey) ([]SealedKey, error) {
	moved := make([]SealedKey, len(keys))
	if len(keys) > maxReseal {
		return nil, &Error{Op: fmt.Sprintf("resealing %d keys: %d at most", len(keys), maxReseal), Kind: ErrBadInput}
	}
	for i, k := range keys {
		loaded := false
		err := t.do(ctx, t.slow, fmt.Sprintf("resealing key %d of %d", i+1, len(keys)), func(s cryptoki.Session) error {
			period, err := t.newest()
			if err != nil {
				return err
			}
			o, err := t.load(s, k)
			if err != nil {
				return err
			}
			x, err := t.accept(s, o, Sealed)
			if err == nil {
				loaded = true
				moved[i] = k
				if period != k.Period {
					moved[i], err = t.seal(s, o, x, period)
				}
			}
			return t.end(s, o, err)
		})
		switch {
		case loaded && (errors.Is(err, ErrBadInput) || errors.Is(err, ErrRefused) || errors.Is(err, ErrKeyMissing)):
			// The key is good, the newest sealing key is not. Whoever takes this for a lost key would end the one that is good.
			err = &Error{Op: err.Error(), Kind: ErrRefused}
		case errors.Is(err, ErrBadInput) || errors.Is(err, ErrRefused):
			err = &Error{Op: fmt.Sprintf("resealing key %d of %d", i+1, len(keys)), Kind: ErrKeyMissing}
		}
		if err != nil {
			return nil, err
		}
	}
	return moved, nil
}

// Forget ends a sealed key for this process: no derive starts with it, those
// under way are awaited, and if it is loaded it is destroyed. A request that
// was on its way with its blob gets ErrKeyMissing. ImportSealed of the same id
// ends that.
//
// The blob still loads in other processes, and in this one once it is started
// anew: until its sealing key is destroyed, the caller must not ask for it.
func (t *Token) Forget(ctx context.Context, id KeyID) error {
	return t.discard(ctx, "forgetting key", t.live.forget(id))
}

// discard destroys objects that no derive can use any more.
func (t *Token) discard(ctx context.Context, op string, objects []cryptoki.Object) error {
	if len(objects) == 0 {
		return nil
	}
	return t.do(context.WithoutCancel(ctx), t.slow, op, func(s cryptoki.Session) error {
		for _, o := range objects {
			if err := t.module.DestroyObject(s, o); err != nil && !gone(err) {
				return err
			}
		}
		return nil
	})
}

// gone tells whether the module knows no such object. It may be wrong: see lookAgain.
func gone(err error) bool {
	ckr, ok := errors.AsType[cryptoki.CKR](err)
	return ok && kindOf(ckr) == ErrKeyMissing
}

// sealing is what the last search for sealing keys found.
type sealing struct {
	keys   map[uint32]cryptoki.Object
	newest uint32
	// lax is set if a trusted key with such a name is not as it must be. None is
	// used for new blobs then.
	lax error
	// decoys is how many keys have such a name and are not trusted, so that
	// nobody but the user can have made them. They are passed over.
	decoys int
}

// newest is the period under which keys are sealed now.
func (t *Token) newest() (uint32, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	switch {
	case t.sealing.lax != nil:
		return 0, t.sealing.lax
	case len(t.sealing.keys) == 0:
		return 0, fmt.Errorf("sealing key: %w", ErrKeyMissing)
	}
	return t.sealing.newest, nil
}

func (t *Token) sealingKey(period uint32) (cryptoki.Object, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	o, ok := t.sealing.keys[period]
	if !ok {
		return 0, fmt.Errorf("%q: %w", string(SealingKey(period)), ErrKeyMissing)
	}
	return o, nil
}

// SealingKeys searches for the sealing keys, reads their attributes back, and
// returns their periods, ascending. The last is the newest, under which keys
// are sealed from now on. ErrAttributes says that one is not as Generate makes
// it, or that two have one name; nothing is sealed then until a search finds
// all of them right.
//
// Only the security officer can make a trusted key. One that calls itself a
// sealing key and is not trusted is the host's: it is passed over, whatever its
// name, and decoys says how many there are.
func (t *Token) SealingKeys(ctx context.Context) (periods []uint32, decoys int, err error) {
	err = t.do(ctx, t.slow, "listing sealing keys", func(s cryptoki.Session) error {
		found, err := t.search(s)
		if err != nil {
			return err
		}
		if err := t.setSealing(s, found); err != nil {
			return err
		}
		periods, decoys = slices.Sorted(maps.Keys(found.keys)), found.decoys
		return found.lax
	})
	if err != nil {
		return nil, 0, err
	}
	return periods, decoys, nil
}

// trusted tells whether the security officer vouches for a key.
func (t *Token) trusted(s cryptoki.Session, o cryptoki.Object) (bool, error) {
	a, err := t.module.Read(s, o, cryptoki.CKA_TRUSTED)
	if err == cryptoki.CKR_ATTRIBUTE_TYPE_INVALID {
		return false, nil
	}
	return err == nil && a.Equal(cryptoki.Bool(cryptoki.CKA_TRUSTED, true)), err
}

// search finds what calls itself a sealing key, whoever made it.
func (t *Token) search(s cryptoki.Session) (sealing, error) {
	all, err := t.module.Find(s, []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY), cryptoki.Bool(cryptoki.CKA_TOKEN, true)})
	if err != nil {
		return sealing{}, err
	}
	names := make(map[KeyName]cryptoki.Object)
	found := sealing{keys: make(map[uint32]cryptoki.Object)}
	for _, o := range all {
		label, err := t.module.Read(s, o, cryptoki.CKA_LABEL)
		if gone(err) {
			continue // destroyed by another process since it was found
		}
		if err != nil {
			return sealing{}, err
		}
		name := KeyName(label.Value)
		if !name.sealing() {
			continue
		}
		switch trusted, err := t.trusted(s, o); {
		case gone(err):
		case err != nil:
			return sealing{}, err
		case trusted:
			names[name] = o
		default:
			found.decoys++
		}
	}
	for name, o := range names {
		err := t.sound(s, name, o)
		switch {
		case err == nil:
			period := name.period()
			found.keys[period] = o
			found.newest = max(found.newest, period)
		case errors.Is(err, ErrKeyMissing) || gone(err):
		case errors.Is(err, ErrAttributes):
			found.lax = cmp.Or(found.lax, err)
		default:
			return sealing{}, err
		}
	}
	return found, nil
}

// sound tells whether the sealing key o is the only one of its name and as
// Generate makes it.
func (t *Token) sound(s cryptoki.Session, name KeyName, o cryptoki.Object) error {
	id, err := t.module.Read(s, o, cryptoki.CKA_ID)
	if err != nil {
		return err
	}
	pl, err := t.profile.plan(name, id.Value)
	if errors.Is(err, ErrBadInput) {
		return &AttributeError{Key: name, Attribute: "CKA_LABEL", Want: "the name of a period", Got: "another"}
	}
	if err != nil {
		return err
	}
	_, err = t.inspect(s, name, pl)
	return err
}

// period is the inverse of SealingKey, for names that plan knows.
func (n KeyName) period() uint32 {
	p, _ := strconv.ParseUint(strings.TrimPrefix(string(n), sealingPrefix), 10, 32)
	return uint32(p)
}

// setSealing makes found the sealing keys to use. Live keys that came in under
// one that is not among them are ended. The caller holds the slow session s.
func (t *Token) setSealing(s cryptoki.Session, found sealing) error {
	t.mu.Lock()
	t.sealing = found
	t.mu.Unlock()
	// Who looked a sealing key up before this is among the live keys already.
	for _, o := range t.live.drop(func(n liveName) bool { _, ok := found.keys[n.period]; return !ok }) {
		if err := t.module.DestroyObject(s, o); err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

// retire searches anew, and uses the sealing key of a period no more even if
// it is there. On return nothing that came in under it is in use.
func (t *Token) retire(ctx context.Context, period uint32) error {
	return t.do(ctx, t.slow, "retiring sealing key", func(s cryptoki.Session) error {
		found, err := t.search(s)
		if err != nil {
			return err
		}
		delete(found.keys, period)
		return t.setSealing(s, found)
	})
}

// DestroySealingKey ends a sealing key, and with it every blob under it,
// wherever copies of them are. The newest is ErrRefused: keys are to be moved
// to another first (Reseal). Live keys that came in under it are ended, the
// object is destroyed, the folder synced, and a fresh session sees nothing.
// ErrKeyMissing says that there was none; that has been made durable.
func (t *Token) DestroySealingKey(ctx context.Context, period uint32) error {
	return t.do(ctx, t.slow, fmt.Sprintf("destroying %q", string(SealingKey(period))), func(s cryptoki.Session) error {
		found, err := t.search(s)
		if err == nil {
			err = found.lax
		}
		if err != nil {
			return err
		}
		o, there := found.keys[period]
		if there && period == found.newest {
			return ErrRefused
		}
		delete(found.keys, period)
		if err := t.setSealing(s, found); err != nil {
			return err
		}
		if there {
			if err := t.module.DestroyObject(s, o); err != nil && !gone(err) {
				return err
			}
		}
		if err := t.sync(); err != nil {
			return err
		}
		if !there {
			return ErrKeyMissing
		}
		return t.fresh(func(s cryptoki.Session) error {
			left, err := t.search(s)
			if _, there := left.keys[period]; there {
				err = fmt.Errorf("the key is still there: %w", ErrTokenBroken)
			}
			return err
		})
	})
}

// deriveSealed is derive with a sealed key, which is loaded if it is not.
func (t *Token) deriveSealed(ctx context.Context, s cryptoki.Session, r *DeriveRequest) ([32]byte, error) {
	point := cryptoki.ECDH(t.profile.encode(r.Point[:]))
	for range 2 {
		k, err := t.warm(ctx, r)
		if err != nil {
			return [32]byte{}, err
		}
		o, err := t.module.DeriveKey(s, point, k.object, t.template)
		if gone(err) { // the session that kept it broke
			t.live.vanished(k)
		}
		t.live.release(k)
		if gone(err) {
			continue
		}
		if err != nil {
			return [32]byte{}, err
		}
		return take(t.module, s, o)
	}
	return [32]byte{}, ErrSessionBroken
}

// warm returns the live key of a request, held: the caller releases it. Of
// several that ask for a cold one, one loads it and the others wait.
func (t *Token) warm(ctx context.Context, r *DeriveRequest) (*liveKey, error) {
	if !r.Sealed.valid() {
		return nil, ErrKeyMissing
	}
	k, cold, evicted := t.live.take(nameOf(r.Key, r.Sealed))
	if k == nil {
		return nil, ErrKeyMissing
	}
	if cold {
		// For all who wait, so not under the context of one.
		t.warmUp(context.WithoutCancel(ctx), k, r.Sealed, evicted)
	}
	select {
	case <-k.ready:
	default:
		select {
		case <-k.ready:
		case <-ctx.Done():
			t.live.release(k)
			return nil, ctx.Err()
		}
	}
	if k.err != nil {
		t.live.release(k)
		return nil, k.err
	}
	return k, nil
}

// warmUp loads a key into a session that exists to keep live keys: it is not
// replaced unless it breaks, and then its keys are gone and loaded again when
// they are asked for.
func (t *Token) warmUp(ctx context.Context, k *liveKey, sealed SealedKey, evicted []cryptoki.Object) {
	var err error
	for range 2 {
		err = t.do(ctx, t.keepers, "loading sealed key", func(s cryptoki.Session) error {
			for len(evicted) > 0 {
				if err := t.module.DestroyObject(s, evicted[0]); err != nil && !gone(err) {
					return err
				}
				evicted = evicted[1:]
			}
			o, err := t.load(s, sealed)
			if err == nil {
				// Here, while the session is ours: when it breaks, the key must be known to be of it.
				t.live.loaded(k, o, s, nil)
			}
			return err
		})
		if !errors.Is(err, ErrSessionBroken) {
			break
		}
	}
	if err != nil {
		t.live.loaded(k, 0, 0, missing(err))
	}
}
