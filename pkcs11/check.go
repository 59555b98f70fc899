package pkcs11

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"slices"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// A KeyCheck tells one re-encryption key from another, whatever CKA_ID and
// label the host has given them: the first 16 bytes of SHA-256 over
// "sallyport key check", a zero byte and x(k*G). From x(k*G) itself a quantum
// computer would have k; from its hash nobody has it. The zero value checks
// nothing.
type KeyCheck [16]byte

func checkOf(x *[32]byte) (c KeyCheck) {
	h := sha256.Sum256(append([]byte("sallyport key check\x00"), x[:]...))
	copy(c[:], h[:])
	return c
}

// is reports whether an object is the key with a check value. The zero value
// is that of every key.
func (t *Token) is(s cryptoki.Session, o cryptoki.Object, check KeyCheck) (bool, error) {
	if check == (KeyCheck{}) {
		return true, nil
	}
	its, ok, err := t.checkOf(s, o)
	return ok && its == check, err
}

// checkOf returns the check value of an object. ok is false if it is no key that derives, or destroyed since it was found.
func (t *Token) checkOf(s cryptoki.Session, o cryptoki.Object) (check KeyCheck, ok bool, err error) {
	if whole, err := t.whole(s, o); err != nil || !whole {
		return check, false, err
	}
	x, err := derive(t.module, s, o, t.profile.encode(generator[:]), t.template)
	defer clear(x[:])
	if ckr, ok := err.(cryptoki.CKR); ok && kindOf(ckr) == ErrRefused || gone(err) {
		return check, false, nil
	}
	if err != nil {
		return check, false, err
	}
	return checkOf(&x), true, nil
}

// whole reports whether an object has a curve. One whose making was cut short has label and id and neither curve nor value, and SoftHSM ends the process that derives with it.
func (t *Token) whole(s cryptoki.Session, o cryptoki.Object) (bool, error) {
	params, ok, err := t.short(s, o, cryptoki.CKA_EC_PARAMS)
	return ok && bytes.Equal(params, p256Params), err
}

// Which of some objects are the key with a check value.
func (t *Token) these(s cryptoki.Session, found []cryptoki.Object, check KeyCheck) ([]cryptoki.Object, error) {
	var ours []cryptoki.Object
	for _, o := range found {
		ok, err := t.is(s, o, check)
		if err != nil {
			return nil, err
		}
		if ok {
			ours = append(ours, o)
		}
	}
	return ours, nil
}

// hunt destroys the keys with some check values under whatever names they
// live, and says what came of each. It asks every key of the token that
// derives, so it is for the rare case that Destroy finds none. ErrKeyMissing
// says that there is none.
func (t *Token) hunt(ctx context.Context, checks []KeyCheck) []error {
	const op = "looking for a key under another name"
	errs := make([]error, len(checks))
	wanted := make(map[KeyCheck][]cryptoki.Object, len(checks))
	for _, check := range checks {
		if wanted[check] = nil; check == (KeyCheck{}) {
			return each(errs, &Error{Op: op, Kind: ErrBadInput})
		}
	}
	err := t.do(ctx, t.slow, op, func(s cryptoki.Session) error {
		found, err := t.module.Find(s, []cryptoki.Attribute{
			cryptoki.Bool(cryptoki.CKA_TOKEN, true), cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_PRIVATE_KEY), cryptoki.Bool(cryptoki.CKA_DERIVE, true),
		})
		if err != nil {
			return err
		}
		for _, o := range found {
			check, ok, err := t.checkOf(s, o)
			if err != nil {
				return err
			}
			if _, ours := wanted[check]; ok && ours {
				wanted[check] = append(wanted[check], o)
			}
		}
		return nil
	})
	if err != nil {
		return each(errs, err)
	}
	destroyed := false
	for i, check := range checks {
		errs[i] = t.do(ctx, t.slow, op, func(s cryptoki.Session) error {
			ours := wanted[check]
			delete(wanted, check) // of two that ask for one key the second finds none
			if len(ours) == 0 {
				return ErrKeyMissing
			}
			destroyed = true
			t.mu.Lock()
			for id, known := range t.keys { // found under that name at this process's start
				if slices.Contains(ours, known) {
					delete(t.keys, id)
				}
			}
			t.mu.Unlock()
			for _, o := range ours {
				if err := t.module.DestroyObject(s, o); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if !destroyed {
		return errs
	}
	return each(errs, t.do(context.WithoutCancel(ctx), t.slow, op, func(cryptoki.Session) error { return t.sync() }))
}

// each gives err to all that have none.
func each(errs []error, err error) []error {
	for i := range errs {
		errs[i] = cmp.Or(errs[i], err)
	}
	return errs
}
