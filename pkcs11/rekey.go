package pkcs11

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// A DeriveRequest asks for x(k*Point) with the key called Key. Point is
// uncompressed (0x04, x, y) and the caller has checked that it is on P-256. An
// empty Sealed.Blob means a resident key; else the key is in the blob, and one
// that does not unwrap is ErrKeyMissing.
type DeriveRequest struct {
	Key    KeyID
	Point  [65]byte
	Sealed SealedKey
}

// A DeriveResult is the answer to one DeriveRequest. X is secret.
type DeriveResult struct {
	X   [32]byte
	Err error
}

// generator is G of P-256, uncompressed.
var generator = func() (g [65]byte) {
	p := elliptic.P256().Params()
	g[0] = 0x04
	p.Gx.FillBytes(g[1:33])
	p.Gy.FillBytes(g[33:])
	return g
}()

// derivedTemplate is that of a derived value: a session object that is read
// once and destroyed. It is not CKA_PRIVATE, because SoftHSM encrypts private
// values in memory, which costs time and hides nothing from its own process.
func derivedTemplate(valueLen bool) []cryptoki.Attribute {
	t := []cryptoki.Attribute{
		cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY),
		cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_GENERIC_SECRET),
		cryptoki.Bool(cryptoki.CKA_TOKEN, false),
		cryptoki.Bool(cryptoki.CKA_PRIVATE, false),
		cryptoki.Bool(cryptoki.CKA_SENSITIVE, false),
		cryptoki.Bool(cryptoki.CKA_EXTRACTABLE, true),
	}
	if valueLen {
		t = append(t, cryptoki.Ulong(cryptoki.CKA_VALUE_LEN, 32))
	}
	return t
}

// derive is derive, read, destroy.
func derive(m *cryptoki.Module, s cryptoki.Session, key cryptoki.Object, point []byte, template []cryptoki.Attribute) ([32]byte, error) {
	o, err := m.DeriveKey(s, cryptoki.ECDH(point), key, template)
	if err != nil {
		return [32]byte{}, err
	}
	return take(m, s, o)
}

// take reads a derived value and destroys it, also when reading failed.
func take(m *cryptoki.Module, s cryptoki.Session, o cryptoki.Object) (x [32]byte, err error) {
	var value [64]byte
	defer clear(value[:])
	n, err := m.ReadInto(s, o, cryptoki.CKA_VALUE, value[:])
	if destroyed := m.DestroyObject(s, o); err == nil {
		err = destroyed
	}
	if err != nil {
		return x, err
	}
	if n == 0 || n > len(x) {
		return x, fmt.Errorf("the derived value has %d bytes: %w", n, ErrTokenBroken)
	}
	// Some modules drop leading zeros.
	copy(x[len(x)-n:], value[:n])
	return x, nil
}

// Derive answers each request in its place. It uses one session for all of
// them: concurrent calls run in parallel.
func (t *Token) Derive(ctx context.Context, requests []DeriveRequest) []DeriveResult {
	results := make([]DeriveResult, len(requests))
	next := 0
	for next < len(requests) {
		var failed error
		err := t.do(ctx, t.derives, "deriving", func(s cryptoki.Session) error {
			for ; next < len(requests); next++ {
				if failed = ctx.Err(); failed == nil {
					results[next].X, failed = t.deriveOne(ctx, s, &requests[next])
				}
				if failed != nil {
					return failed // to be judged; the loop outside goes on with the next
				}
			}
			return nil
		})
		if err == nil {
			break
		}
		results[next].Err = err
		next++
	}
	return results
}

func (t *Token) deriveOne(ctx context.Context, s cryptoki.Session, r *DeriveRequest) ([32]byte, error) {
	if r.Point[0] != 0x04 {
		return [32]byte{}, ErrBadInput
	}
	if len(r.Sealed.Blob) > 0 {
		return t.deriveSealed(ctx, s, r)
	}
	x, err := t.deriveResident(s, r)
	if absent(err) {
		x, err = t.lookAgain(ctx, s, r, err)
	}
	return x, err
}

func (t *Token) deriveResident(s cryptoki.Session, r *DeriveRequest) ([32]byte, error) {
	t.mu.RLock()
	key, known := t.keys[r.Key]
	if !known {
		t.mu.RUnlock()
		return [32]byte{}, ErrKeyMissing
	}
	o, err := t.module.DeriveKey(s, cryptoki.ECDH(t.profile.encode(r.Point[:])), key, t.template)
	t.mu.RUnlock()
	if err != nil {
		return [32]byte{}, err
	}
	return take(t.module, s, o)
}

// Import unwraps a re-encryption key into the token, custody resident, and
// returns nil only when the key is proved to work, synced, and seen in a fresh
// session. path is the import path that the grant names.
//
// Whatever is wrong with the wrapped key, the answer is ErrBadInput and nothing
// stays in the token.
//
// A crash after C_UnwrapKey and before the return leaves a key that Keys lists
// and that the ledger does not know: the vault destroys it at start. Nobody was
// told that it exists.
//
// A fresh session is of this process, which remembers what it asked for even if
// a full disk took half of it. [Pool.Import] asks another process.
func (t *Token) Import(ctx context.Context, id KeyID, path string, wrapped []byte) error {
	xs, errs := t.importKeys(ctx, []WrappedKey{{id, path, wrapped}})
	clear(xs)
	if errs[0] != nil {
		return errs[0]
	}
	err := t.learnFresh(context.WithoutCancel(ctx), []KeyID{id})
	if notOnce(err) {
		t.fail(ErrTokenBroken)
		err = fmt.Errorf("the key just imported is not there once: %w", ErrTokenBroken)
	}
	return err
}

// A WrappedKey is a re-encryption key on its way into the token, wrapped under
// the import key. Path is the import path that the grant names.
type WrappedKey struct {
	ID      KeyID  `json:"id"`
	Path    string `json:"path"`
	Wrapped []byte `json:"wrapped"`
}

// importsAtOnce is how many keys one importKeys takes, and unwrapsAtOnce how many of them are unwrapped side by side: SoftHSM waits for the disk most of the time.
const (
	importsAtOnce = 16
	unwrapsAtOnce = 16
)

// importKeys unwraps several keys into the token, with one sync for all of them. Each has an answer of its own. What it returns of a key that is in
// the token is x(k*G), for a witness to compare. It is secret. Derive does not know the keys yet: see adopt and learnFresh.
//
// SoftHSM waits for the disk many times for each key, so several are unwrapped side by side. It answers CKR_GENERAL_ERROR to an unwrap whose objects come and go
// in another thread: so nothing else of this process that searches, makes or destroys runs meanwhile, and a key that does not come is brought again alone, when all others are there. Only what it gets
// then is its answer.
func (t *Token) importKeys(ctx context.Context, keys []WrappedKey) (xs [][32]byte, errs []error) {
	const op = "importing key"
	xs, errs = make([][32]byte, len(keys)), make([]error, len(keys))
	alone := []bool{true}
	if len(keys) > 1 {
		alone = make([]bool, len(keys))
		if err := t.do(ctx, t.slow, op, func(s cryptoki.Session) error {
			return t.clear(s, t.unwrapAll(ctx, op, keys, xs, errs, alone))
		}); err != nil {
			return xs, each(errs, err)
		}
	}
	brought := false
	for i := range keys {
		if alone[i] {
			errs[i] = t.do(ctx, t.slow, op, func(s cryptoki.Session) (err error) {
				xs[i], err = t.importOne(s, &keys[i])
				return err
			})
		}
		brought = brought || errs[i] == nil
	}
	if !brought {
		return xs, errs
	}
	return xs, each(errs, t.do(context.WithoutCancel(ctx), t.slow, op, func(cryptoki.Session) error { return t.sync() }))
}

// importOne brings a key that is not in the token.
func (t *Token) importOne(s cryptoki.Session, k *WrappedKey) (x [32]byte, err error) {
	if t.knows(k.ID) {
		return x, ErrKeyExists
	}
	if err := t.profile.room(keyReserve); err != nil {
		return x, err
	}
	o, x, err := t.bring(s, Resident, k.Path, k.Wrapped, k.named()...)
	if err == nil {
		t.hold(k.ID, o)
	}
	if err != nil && !errors.Is(err, ErrTokenBroken) {
		if full := t.profile.room(keyReserve); full != nil {
			err = full // the last byte went meanwhile: it need not be the key
		}
	}
	return x, err
}

func (k *WrappedKey) named() []cryptoki.Attribute {
	return []cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_LABEL, []byte(rekeyLabel)), cryptoki.Bytes(cryptoki.CKA_ID, k.ID[:])}
}

// unwrapAll unwraps keys side by side. alone says which are to be brought alone: those that the token was asked for and that did not come. It returns their ids, under which something may be in the
// token. Whoever calls it holds the slow lane.
func (t *Token) unwrapAll(ctx context.Context, op string, keys []WrappedKey, xs [][32]byte, errs []error, alone []bool) (left []KeyID) {
	next := make(chan int)
	var all sync.WaitGroup
	for range min(len(keys), unwrapsAtOnce) {
		all.Go(func() {
			for i := range next {
				k := &keys[i]
				errs[i] = t.do(ctx, t.makes, op, func(s cryptoki.Session) error {
					if t.knows(k.ID) {
						return ErrKeyExists
					}
					if err := t.profile.room(keyReserve); err != nil {
						return err
					}
					alone[i] = true
					o, err := t.unwrap(s, Resident, k.Path, k.Wrapped, k.named()...)
					if err == nil {
						xs[i], err = t.accept(s, o, Resident)
					}
					if alone[i] = err != nil; err == nil {
						t.hold(k.ID, o)
					}
					return err
				})
			}
		})
	}
	for i := range keys {
		next <- i
	}
	close(next)
	all.Wait()
	for i := range keys {
		if alone[i] {
			left = append(left, keys[i].ID)
		}
	}
	return left
}

// clear destroys what there is under ids that nobody was told of.
func (t *Token) clear(s cryptoki.Session, ids []KeyID) error {
	if len(ids) == 0 {
		return nil
	}
	found, err := t.objectsOf(s, ids)
	if err != nil {
		return err
	}
	for _, objects := range found {
		for _, o := range objects {
			if err := t.module.DestroyObject(s, o); err != nil {
				return err
			}
		}
	}
	return t.sync() // what is refused must not come back after a power cut
}

// hold remembers the object of a key that was brought. Derive does not know it yet.
func (t *Token) hold(id KeyID, o cryptoki.Object) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.brought[id] = o
}

// adopt makes keys known to Derive that this process brought and that another found in the token. It saves the search: a handle of a token object is good in
// every session of the process that has it (PKCS #11 v3.1, section 2.4), and were it not, Derive would look again.
func (t *Token) adopt(ids []KeyID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		if o, ok := t.brought[id]; ok {
			t.keys[id] = o
			delete(t.brought, id)
			delete(t.ended, id)
		}
	}
}

// knows tells whether a key is known to Derive.
func (t *Token) knows(id KeyID) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	_, known := t.keys[id]
	return known
}

// witness finds keys that another process imported, and derives x(k*G) with each: what this process knows of the keys came from the token. What it knew before is not them: it may have
// found what an earlier try to import them left there, which none of the others saw.
func (t *Token) witness(ctx context.Context, ids []KeyID) (xs [][32]byte, err error) {
	err = t.do(ctx, t.slow, "witnessing keys", func(s cryptoki.Session) error {
		t.forget(ids...)
		if err := t.learn(s, ids...); err != nil {
			return err
		}
		xs = make([][32]byte, len(ids))
		t.mu.RLock()
		defer t.mu.RUnlock()
		for i, id := range ids {
			o, ok := t.keys[id]
			if !ok {
				return ErrKeyMissing
			}
			var err error
			if xs[i], err = derive(t.module, s, o, t.profile.encode(generator[:]), t.template); err != nil {
				return err
			}
		}
		return nil
	})
	return xs, err
}

// unwrap unwraps a key under the import key of a custody.
func (t *Token) unwrap(s cryptoki.Session, c Custody, path string, wrapped []byte, named ...cryptoki.Attribute) (cryptoki.Object, error) {
	name, template := ImportResident, t.rekey
	if c == Sealed {
		name, template = ImportSealed, t.sealedRekey
	}
	importKey, err := t.key(name)
	if err != nil {
		return 0, err
	}
	if path != t.profile.ImportPath || len(wrapped) != importBits/8 {
		return 0, ErrBadInput
	}
	o, err := t.module.UnwrapKey(s, t.profile.oaep(), importKey, wrapped, append(slices.Clone(template), named...))
	return o, asInput(err)
}

// bring unwraps a key and accepts it or destroys it. It returns the object and x(k*G).
func (t *Token) bring(s cryptoki.Session, c Custody, path string, wrapped []byte, named ...cryptoki.Attribute) (cryptoki.Object, [32]byte, error) {
	o, err := t.unwrap(s, c, path, wrapped, named...)
	if err != nil {
		return 0, [32]byte{}, err
	}
	x, err := t.accept(s, o, c)
	if err == nil {
		return o, x, nil
	}
	if err = t.end(s, o, err); c == Resident && !errors.Is(err, ErrTokenBroken) {
		// The refused key must not come back after a power cut either.
		if synced := t.sync(); synced != nil {
			err = synced
		}
	}
	return 0, [32]byte{}, err
}

// asInput maps what C_UnwrapKey says about the wrapped key to ErrBadInput, so
// that all refusals look alike. Only what the input cannot cause stays.
func asInput(err error) error {
	if ckr, ok := err.(cryptoki.CKR); ok && kindOf(ckr) == ErrRefused {
		return ErrBadInput
	}
	return err
}

// accept tells whether a key just unwrapped is a P-256 key that works, and
// returns x(k*G). Its scalar is not to be seen. A scalar that is zero mod n has no x(kG), and the
// derive fails or yields zero. That it yields the same again is for whoever loads the key a second time: the witness of a resident key, seal
// of a sealed one. One in (n, 2^256) cannot be told from the same
// scalar mod n, if the module takes it (SoftHSM does): every x(kP) is the same,
// so whoever wrapped it gains nothing over wrapping the reduced one.
func (t *Token) accept(s cryptoki.Session, o cryptoki.Object, c Custody) (x [32]byte, err error) {
	template := t.rekey
	if c == Sealed {
		template = t.sealedRekey
	}
	if err := t.hasAll(s, o, "", template); err != nil {
		return x, err
	}
	params, err := t.module.Read(s, o, cryptoki.CKA_EC_PARAMS)
	if err != nil {
		return x, asInput(err)
	}
	if !bytes.Equal(params.Value, p256Params) {
		return x, ErrBadInput
	}
	if x, err = derive(t.module, s, o, t.profile.encode(generator[:]), t.template); err != nil {
		return x, asInput(err)
	}
	if x == [32]byte{} {
		return x, ErrBadInput
	}
	return x, nil
}

// hasAll reads back each attribute of want that can be read.
func (t *Token) hasAll(s cryptoki.Session, o cryptoki.Object, name KeyName, want []cryptoki.Attribute) error {
	types := make([]uint, len(want))
	for i, w := range want {
		types[i] = w.Type
	}
	all, err := t.module.ReadShort(s, o, types)
	for i, w := range want {
		var got cryptoki.Attribute
		if err == nil {
			got = all[i]
		} else { // one by one, for the error of one, or for one that is long
			var err error
			if got, err = t.module.Read(s, o, w.Type); err != nil {
				return err
			}
		}
		if !got.Equal(w) {
			return &AttributeError{Key: name, Attribute: w.Name(), Want: describe(w), Got: describe(got)}
		}
	}
	return nil
}

// byID finds one key. The id comes first: SoftHSM decrypts what it compares, and is done with another key after that.
func byID(id KeyID) []cryptoki.Attribute {
	return append([]cryptoki.Attribute{cryptoki.Bytes(cryptoki.CKA_ID, id[:])}, rekeys()...)
}

// rekeys finds all re-encryption keys.
func rekeys() []cryptoki.Attribute {
	return []cryptoki.Attribute{cryptoki.Bool(cryptoki.CKA_TOKEN, true), cryptoki.Bytes(cryptoki.CKA_LABEL, []byte(rekeyLabel))}
}

// learn finds keys by their ids, checks them and makes them known to Derive. A key that is not there is ErrKeyMissing, one that is there twice ErrKeyExists, and then none is
// made known. One that is known already is not looked for: it was found in the token, and Destroy forgets it everywhere first.
func (t *Token) learn(s cryptoki.Session, ids ...KeyID) error {
	if !slices.ContainsFunc(ids, func(id KeyID) bool { return !t.knows(id) }) {
		return nil
	}
	found, err := t.unlearnt(s)
	if err != nil {
		return err
	}
	learnt := make(map[KeyID]cryptoki.Object, len(ids))
	for _, id := range ids {
		switch objects := found[id]; {
		case t.knows(id):
		case len(objects) == 0:
			return ErrKeyMissing
		case len(objects) > 1: // the other was left by an import whose maker nobody saw
			return ErrKeyExists
		default:
			if err := t.hasAll(s, objects[0], "", t.rekey); err != nil {
				return err
			}
			learnt[id] = objects[0]
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, o := range learnt {
		t.keys[id] = o
		delete(t.ended, id)
		delete(t.brought, id)
	}
	return nil
}

// learnFresh is learn in a fresh session, which is opened only if there is something to learn.
func (t *Token) learnFresh(ctx context.Context, ids []KeyID) error {
	return t.do(ctx, t.slow, "learning of keys", func(cryptoki.Session) error {
		if !slices.ContainsFunc(ids, func(id KeyID) bool { return !t.knows(id) }) {
			return nil
		}
		return t.fresh(func(s cryptoki.Session) error { return t.learn(s, ids...) })
	})
}

// unlearnt finds the re-encryption keys that this process does not know, in one search for all of them. SoftHSM decrypts a label that it compares: so it is read only of
// what is not known.
func (t *Token) unlearnt(s cryptoki.Session) (map[KeyID][]cryptoki.Object, error) {
	found, err := t.module.Find(s, []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_PRIVATE_KEY), cryptoki.Bool(cryptoki.CKA_TOKEN, true)})
	if err != nil {
		return nil, err
	}
	t.mu.RLock()
	known := make(map[cryptoki.Object]struct{}, len(t.keys))
	for _, o := range t.keys {
		known[o] = struct{}{}
	}
	t.mu.RUnlock()
	unlearnt := make(map[KeyID][]cryptoki.Object)
	for _, o := range found {
		if _, ok := known[o]; ok {
			continue
		}
		label, ok, err := t.short(s, o, cryptoki.CKA_LABEL)
		if err != nil {
			return nil, err
		}
		if !ok || string(label) != rekeyLabel { // another key of the vault's, or of somebody else
			continue
		}
		id, ok, err := t.idOf(s, o)
		if err != nil {
			return nil, err
		}
		if ok {
			unlearnt[id] = append(unlearnt[id], o)
		}
	}
	return unlearnt, nil
}

// idOf reads the id of a re-encryption key. ok is false if it is not one of ours, or was destroyed by another process since it was found.
func (t *Token) idOf(s cryptoki.Session, o cryptoki.Object) (id KeyID, ok bool, err error) {
	value, ok, err := t.short(s, o, cryptoki.CKA_ID)
	if err != nil || !ok || len(value) != len(id) {
		return id, false, err
	}
	return KeyID(value), true, nil
}

// short reads an attribute that is no longer than ours are. ok is false if it is longer, if there is none, or if the object was destroyed by another process since it was found: a host
// can give its own objects any names.
func (t *Token) short(s cryptoki.Session, o cryptoki.Object, typ uint) (value []byte, ok bool, err error) {
	var buf [64]byte
	n, err := t.module.ReadInto(s, o, typ, buf[:])
	switch {
	case err == nil:
		return buf[:n], true, nil
	case gone(err), err == cryptoki.ErrLength, err == cryptoki.CKR_BUFFER_TOO_SMALL, err == cryptoki.CKR_ATTRIBUTE_TYPE_INVALID:
		return nil, false, nil
	}
	return nil, false, err
}

// forget makes keys unknown to Derive. On return no derive uses them.
func (t *Token) forget(ids ...KeyID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		if o, ok := t.keys[id]; ok || t.ended[id] == 0 {
			t.ended[id] = o
		}
		delete(t.keys, id)
		delete(t.brought, id)
	}
}

// renamed returns the object of a forgotten key if it lives on under another
// CKA_ID or label: C_SetAttributeValue lets the host change those, where
// CKA_MODIFIABLE cannot be in the unwrap template. The handle is what does not
// change. Should a module have given it to something else since, that is not a
// re-encryption key, or one that is known.
func (t *Token) renamed(s cryptoki.Session, id KeyID, found []cryptoki.Object) (cryptoki.Object, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	o := t.ended[id]
	if o == 0 || slices.Contains(found, o) || t.hasAll(s, o, "", t.rekey) != nil {
		return 0, false
	}
	for _, known := range t.keys {
		if known == o {
			return 0, false
		}
	}
	return o, true
}

// Destroy ends a key: no derive starts with it, those under way are awaited,
// the object is destroyed, the folder synced, and a fresh session sees nothing.
// ErrKeyMissing says that there was none: after a crash in the middle of a
// Destroy that is the end one wants, and it has been made durable. A key that
// the host gave another name is found by its handle, if this process knew it.
func (t *Token) Destroy(ctx context.Context, id KeyID) error {
	return t.destroyKeys(ctx, []KeyID{id}, []KeyCheck{{}})[0]
}

// destroyKeys is Destroy of several keys, with the searches and the sync of one; what is not the key with the check value stays. Each has an answer of its own.
func (t *Token) destroyKeys(ctx context.Context, ids []KeyID, checks []KeyCheck) []error {
	const op = "destroying key"
	errs := make([]error, len(ids))
	t.forget(ids...)
	var found map[KeyID][]cryptoki.Object
	err := t.do(ctx, t.slow, op, func(s cryptoki.Session) (err error) {
		t.forget(ids...) // again: Keys may have run meanwhile
		found, err = t.toDestroy(ctx, s, ids)
		return err
	})
	if err != nil {
		return each(errs, err)
	}
	var destroyed []KeyID // that were there, and their check values
	var of []KeyCheck
	for i, id := range ids {
		errs[i] = t.do(ctx, t.slow, op, func(s cryptoki.Session) error {
			ours, err := t.these(s, found[id], checks[i])
			if err != nil {
				return err
			}
			if err := destroyAll(ours, func(o cryptoki.Object) error { return t.module.DestroyObject(s, o) }); err != nil {
				return err
			}
			t.mu.Lock()
			t.ended[id] = 0
			t.mu.Unlock()
			if len(ours) > 0 {
				destroyed, of = append(destroyed, id), append(of, checks[i])
			}
			return nil
		})
	}
	synced := t.do(context.WithoutCancel(ctx), t.slow, op, func(cryptoki.Session) error { return t.sync() })
	seen := t.gone(context.WithoutCancel(ctx), destroyed, of)
	for i, id := range ids {
		n := slices.Index(destroyed, id)
		switch {
		case errs[i] != nil:
		case synced != nil:
			errs[i] = synced
		case n < 0:
			errs[i] = &Error{Op: op, Kind: ErrKeyMissing}
		default:
			errs[i] = seen[n]
		}
	}
	if slices.ContainsFunc(seen, func(err error) bool { return errors.Is(err, ErrTokenBroken) }) {
		t.fail(ErrTokenBroken) // it says that it destroyed a key, and has it
	}
	return errs
}

// destroyAll destroys objects. One that the token refuses to destroy keeps no other from its end; any other error is of the session or the token, and to be judged at once.
func destroyAll(objects []cryptoki.Object, destroy func(cryptoki.Object) error) (stays error) {
	for _, o := range objects {
		switch err := destroy(o); err {
		case nil:
		case cryptoki.CKR_ACTION_PROHIBITED:
			stays = err
		default:
			return err
		}
	}
	return stays
}

// destroyKnown destroys the keys that this process knows by their handles, without a search, and syncs. That nothing is left is for another to find: the same key may lie
// there twice. ErrKeyMissing says that it knows no such key, or that what it knows has another name by now or is another key.
func (t *Token) destroyKnown(ctx context.Context, ids []KeyID, checks []KeyCheck) []error {
	const op = "destroying known key"
	errs := make([]error, len(ids))
	t.forget(ids...)
	for i, id := range ids {
		errs[i] = t.do(ctx, t.slow, op, func(s cryptoki.Session) error {
			t.forget(id) // again: Keys may have run meanwhile
			t.mu.RLock()
			o := t.ended[id]
			t.mu.RUnlock()
			if o == 0 {
				return ErrKeyMissing
			}
			its, ok, err := t.idOf(s, o)
			if err != nil {
				return err
			}
			if !ok || its != id {
				return ErrKeyMissing
			}
			ours, err := t.these(s, []cryptoki.Object{o}, checks[i])
			if err != nil {
				return err
			}
			if len(ours) == 0 {
				return ErrKeyMissing
			}
			if err := t.module.DestroyObject(s, o); err != nil {
				return err
			}
			t.mu.Lock()
			t.ended[id] = 0
			t.mu.Unlock()
			return nil
		})
	}
	return each(errs, t.do(context.WithoutCancel(ctx), t.slow, op, func(cryptoki.Session) error { return t.sync() }))
}

// gone tells of each key whether it is out of the token, in a fresh session. One that is still there is ErrTokenBroken.
func (t *Token) gone(ctx context.Context, ids []KeyID, checks []KeyCheck) []error {
	const op = "looking for destroyed keys"
	errs := make([]error, len(ids))
	if len(ids) == 0 {
		return errs
	}
	return each(errs, t.do(ctx, t.slow, op, func(cryptoki.Session) error {
		return t.fresh(func(s cryptoki.Session) error {
			found, err := t.objectsOf(s, ids)
			if err != nil {
				return err
			}
			for i, id := range ids {
				left, err := t.these(s, found[id], checks[i])
				if err != nil {
					return err
				}
				if len(left) > 0 {
					errs[i] = &Error{Op: op + ": one is still there", Kind: ErrTokenBroken}
				}
			}
			return nil
		})
	}))
}

// toDestroy finds the objects of forgotten keys: those of their ids, and those that this process knew. If there is none of a key although it knew
// one, it looks again: what another process writes at that moment must not pass for destroyed.
func (t *Token) toDestroy(ctx context.Context, s cryptoki.Session, ids []KeyID) (map[KeyID][]cryptoki.Object, error) {
	for pause := firstPause; ; pause *= 2 {
		found, err := t.objectsOf(s, ids)
		if err != nil {
			return nil, err
		}
		hidden := false
		for _, id := range ids {
			if o, ok := t.renamed(s, id, found[id]); ok {
				found[id] = append(found[id], o)
			}
			t.mu.RLock()
			hidden = hidden || t.ended[id] != 0 && len(found[id]) == 0
			t.mu.RUnlock()
		}
		if !hidden || pause > lastPause {
			return found, nil
		}
		if err := t.wait(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// objectsOf finds the objects that have one of some ids, in one search.
func (t *Token) objectsOf(s cryptoki.Session, ids []KeyID) (map[KeyID][]cryptoki.Object, error) {
	if len(ids) == 1 {
		found, err := t.module.Find(s, byID(ids[0]))
		return map[KeyID][]cryptoki.Object{ids[0]: found}, err
	}
	all, err := t.byName(s)
	if err != nil {
		return nil, err
	}
	objects := make(map[KeyID][]cryptoki.Object, len(ids))
	for _, id := range ids {
		objects[id] = all[id]
	}
	return objects, nil
}

// byName finds the objects of all re-encryption keys, in one search.
func (t *Token) byName(s cryptoki.Session) (map[KeyID][]cryptoki.Object, error) {
	found, err := t.module.Find(s, rekeys())
	if err != nil {
		return nil, err
	}
	objects := make(map[KeyID][]cryptoki.Object, len(found))
	for _, o := range found {
		id, ok, err := t.idOf(s, o)
		if err != nil {
			return nil, err
		}
		if ok {
			objects[id] = append(objects[id], o)
		}
	}
	return objects, nil
}

// Keys lists the re-encryption keys that are in the token now, in order. It
// searches: it is for the start and for audits. Derive does not know a name that
// two different keys have: see Clean.
func (t *Token) Keys(ctx context.Context) ([]KeyID, error) {
	var ids []KeyID
	err := t.do(ctx, t.slow, "listing keys", func(s cryptoki.Session) error {
		all, err := t.byName(s)
		if err != nil {
			return err
		}
		keys := make(map[KeyID]cryptoki.Object, len(all))
		for id, objects := range all {
			ids = append(ids, id)
			o, _, err := t.oneOf(s, objects)
			if err != nil {
				return err
			}
			if o != 0 {
				keys[id] = o
			}
		}
		slices.SortFunc(ids, func(a, b KeyID) int { return bytes.Compare(a[:], b[:]) })
		t.mu.Lock()
		t.keys = keys
		t.mu.Unlock()
		return nil
	})
	return ids, err
}
