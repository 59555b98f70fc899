package pkcs11

import (
	"context"
	"errors"
	"time"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// A SoftHSM object is a file, which a process that sets an attribute truncates and writes anew. Another process that
// uses the key meanwhile is told CKR_OBJECT_HANDLE_INVALID or CKR_KEY_HANDLE_INVALID, just as if it were destroyed, or
// CKR_KEY_FUNCTION_NOT_PERMITTED, for up to 50 ms on a busy machine (measured, 2.6.1, TestKeyRewritten). A host with the PIN could so have readers told that
// their key is gone. So a key that seems to be missing is looked for again before anybody is told.
//
// Only a derive that failed comes here. It costs its lane a quarter of a second if the key is really gone, and then the
// process looks at none a second time for a while: a token that lost many keys must not keep those waiting that have theirs.
const (
	firstPause = time.Millisecond
	lastPause  = 128 * time.Millisecond // each is twice the one before
	findAfter  = 8 * time.Millisecond   // and after the last: a search walks all objects
	respite    = 2 * time.Second        // after a look that was in vain
)

// absent tells whether a derive may have failed because the key was not there, or not all of it: half of an object's attributes make a key
// that may do nothing, or CKR_GENERAL_ERROR. Every key derived when it was imported.
func absent(err error) bool {
	ckr, ok := errors.AsType[cryptoki.CKR](err)
	if !ok {
		return err == ErrKeyMissing
	}
	kind := kindOf(ckr)
	return kind == ErrKeyMissing || kind == ErrRefused || kind == nil
}

// lookAgain derives once more with a resident key that seemed to be missing, by the handle that is known, and by one
// that is searched for: this process may have listed the keys at that very moment, or the host may have put the file back as
// another. missing is what the first look said.
func (t *Token) lookAgain(ctx context.Context, s cryptoki.Session, r *DeriveRequest, missing error) (x [32]byte, err error) {
	if last := t.fruitless.Load(); last != nil && time.Since(*last) < respite || !t.canary.sings(t.module, s) {
		return x, missing
	}
	for pause := firstPause; pause <= lastPause; pause *= 2 {
		if err := t.wait(ctx, pause); err != nil {
			return x, err
		}
		if pause == findAfter || pause == lastPause {
			if err := t.findAgain(ctx, r.Key); err != nil {
				return x, err
			}
		}
		if x, err = t.deriveResident(s, r); !absent(err) {
			return x, err
		}
	}
	now := time.Now()
	t.fruitless.Store(&now)
	return x, err
}

// wait is a pause that ends early with the token or ctx.
func (t *Token) wait(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-t.broken:
		return t.cause
	case <-ctx.Done():
		return ctx.Err()
	}
}

// findAgain makes a key known that this process did not find before, or under another handle. One that was forgotten
// here stays so, and one that two different keys claim to be is none.
func (t *Token) findAgain(ctx context.Context, id KeyID) error {
	err := t.do(ctx, t.slow, "looking for a key again", func(s cryptoki.Session) error {
		found, err := t.module.Find(s, byID(id))
		if err != nil {
			return err
		}
		o, _, err := t.oneOf(s, found)
		if err != nil || o == 0 {
			return err
		}
		if err := t.hasAll(s, o, "", t.rekey); err != nil {
			return err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if _, ended := t.ended[id]; !ended {
			t.keys[id] = o
		}
		return nil
	})
	if errors.Is(err, ErrKeyMissing) || errors.Is(err, ErrAttributes) || errors.Is(err, ErrRefused) { // as far as it was written
		return nil
	}
	return err
}
