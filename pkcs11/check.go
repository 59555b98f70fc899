package pkcs11

import (
	"context"
	"crypto/sha256"
	"errors"
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
	x, err := derive(t.module, s, o, t.profile.encode(generator[:]), t.template)
	defer clear(x[:])
	if ckr, ok := err.(cryptoki.CKR); ok && kindOf(ckr) == ErrRefused || gone(err) {
		return false, nil // no key that derives, or destroyed since it was found
	}
	return err == nil && checkOf(&x) == check, err
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

// hunt destroys the key with a check value under whatever name it lives. It
// asks every key of the token that derives, so it is for the rare case that
// Destroy finds none. ErrKeyMissing says that there is none.
func (t *Token) hunt(ctx context.Context, check KeyCheck) error {
	return t.do(ctx, t.slow, "looking for a key under another name", func(s cryptoki.Session) error {
		found, err := t.module.Find(s, []cryptoki.Attribute{
			cryptoki.Bool(cryptoki.CKA_TOKEN, true), cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_PRIVATE_KEY), cryptoki.Bool(cryptoki.CKA_DERIVE, true),
		})
		if err != nil {
			return err
		}
		ours, err := t.these(s, found, check)
		if err != nil {
			return err
		}
		if len(ours) == 0 {
			return ErrKeyMissing
		}
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
		return t.sync()
	})
}

// DestroyKey is Destroy of a key that Import returned the check value of: what
// lies under id and is another key stays, and the key is looked for under
// every name. ErrKeyRenamed says that it was found under another one, and is
// destroyed: somebody with the PIN changed it.
func (p *Pool) DestroyKey(ctx context.Context, id KeyID, check KeyCheck) error {
	p.admin.Lock()
	defer p.admin.Unlock()
	err := p.destroy(ctx, id, check)
	if check == (KeyCheck{}) || !errors.Is(err, ErrKeyMissing) {
		return err
	}
	_, found := p.ask(ctx, call{Method: "hunt", Data: check[:]}, p.config.SlowTimeout, true)
	switch {
	case found == nil:
		return &Error{Op: "destroying key", Kind: ErrKeyRenamed}
	case errors.Is(found, ErrKeyMissing):
		return err
	}
	return found
}
