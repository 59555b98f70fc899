package pkcs11

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// makeKey has the token make a key of its own with the attributes of a re-encryption key, custody resident: it derives, it can do nothing
// else, and it never leaves the token. Nobody has seen it, not even while it was made. It returns x(k*G) for a witness to compare, which is
// secret, and only when the key is proved to work, synced, and seen in a fresh session.
func (t *Token) makeKey(ctx context.Context, id KeyID) (x [32]byte, err error) {
	err = t.do(ctx, t.slow, "making key", func(s cryptoki.Session) error {
		if found, err := t.module.Find(s, byID(id)); err != nil {
			return err
		} else if len(found) > 0 {
			return ErrKeyExists
		}
		if err := t.profile.room(keyReserve); err != nil {
			return err
		}
		named := []cryptoki.Attribute{
			cryptoki.Bytes(cryptoki.CKA_LABEL, []byte(rekeyLabel)), cryptoki.Bytes(cryptoki.CKA_ID, id[:]),
			cryptoki.Bool(cryptoki.CKA_MODIFIABLE, false), // here the module takes it: no import template is in the way
		}
		public, private, err := t.module.GenerateKeyPair(s, cryptoki.Plain(cryptoki.CKM_EC_KEY_PAIR_GEN),
			[]cryptoki.Attribute{cryptoki.Bool(cryptoki.CKA_TOKEN, false), cryptoki.Bytes(cryptoki.CKA_EC_PARAMS, p256Params)},
			append(named, t.rekey...))
		if err != nil {
			return err
		}
		err = t.module.DestroyObject(s, public) // nobody may learn kG: with a quantum computer it is k
		if err == nil {
			err = t.hasAll(s, private, "", append(named, cryptoki.Bool(cryptoki.CKA_LOCAL, true), cryptoki.Bool(cryptoki.CKA_NEVER_EXTRACTABLE, true)))
		}
		if err == nil {
			x, err = t.accept(s, private, Resident)
		}
		if err != nil {
			err = t.end(s, private, err)
		}
		if synced := t.sync(); synced != nil {
			return synced
		}
		if err != nil {
			return err
		}
		err = t.fresh(func(s cryptoki.Session) error { return t.learn(s, id) })
		if notOnce(err) {
			err = fmt.Errorf("the key just made is not there once: %w", ErrTokenBroken)
		}
		return err
	})
	return x, err
}

// NewKey has a worker make a key in the token (custody resident, for Derive and nothing else), and another process confirm that it is there. When it
// returns nil every worker knows the key. What it leaves behind on an error it destroys; an error of kind ErrTokenBroken leaves the outcome
// open: see Keys. The key belongs to nobody but this token: there is no copy, and no way to make one.
func (p *Pool) NewKey(ctx context.Context, id KeyID) error {
	if err := p.queueImport(ctx); err != nil {
		return err
	}
	defer func() { <-p.imports }()
	p.admin.Lock()
	defer p.admin.Unlock()
	err := p.witnessed(ctx, call{Method: "make", ID: id}, call{Method: "witness", Keys: []KeyID{id}})
	if err == nil {
		p.tell(call{Method: "learn", Keys: []KeyID{id}}, nil)
		return nil
	}
	if errors.Is(err, ErrKeyExists) {
		return err
	}
	left := &pendingEnd{member: memberFor(id)}
	if errors.Is(err, ErrTokenFull) {
		p.end([]*pendingEnd{left})
	} else {
		p.endAll([]*pendingEnd{left})
	}
	if left.err != nil && !errors.Is(left.err, ErrKeyMissing) {
		return errors.Join(err, left.err)
	}
	return err
}

// made answers "make" of a worker.
func (t *Token) made(ctx context.Context, id KeyID) ([]byte, error) {
	x, err := t.makeKey(ctx, id)
	defer clear(x[:])
	if err != nil {
		return nil, err
	}
	return bytes.Clone(x[:]), nil
}
