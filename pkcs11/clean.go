package pkcs11

import (
	"context"
	"errors"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// Cleaned is what Clean did, and what it found that is not for it to mend.
type Cleaned struct {
	Unfinished int     `json:"unfinished,omitzero"` // objects that were never whole
	Surplus    int     `json:"surplus,omitzero"`    // objects of keys that lay there more than once
	Disputed   []KeyID `json:"disputed,omitempty"`  // names of several objects of which none is surely the key: a host with the PIN made or changed one, or all are halves
	Stuck      []KeyID `json:"stuck,omitempty"`     // names of keys of which a surplus object stays, since the token refuses to destroy it: a host with the PIN made it so
	Nameless   int     `json:"nameless,omitzero"`   // unfinished objects that stay for the same reason
}

// Clean destroys what a crash left of keys and signer states that were being
// made. SoftHSM writes an object's file many times: its kind first, then every
// attribute with an empty value, also CKA_TOKEN, then those asked for, the key
// last. Such an object has no name by which anybody could find or use it, and
// the token is the vault's alone. It looks just like one that is being made now,
// so Clean is for the start, before anybody derives or imports.
//
// Of a key that lies there more than once, whole or in part, one object stays. An
// import is made again where another process does not see what it made; if nobody
// saw that, and a process that starts does, there are two. An object with
// CKA_DESTROYABLE false stays where it is, and keeps nobody from starting: it is the
// same key, so the key is used, and a revocation of it says that it is there still.
func (t *Token) Clean(ctx context.Context) (c Cleaned, err error) {
	err = t.do(ctx, t.slow, "destroying unfinished objects", func(s cryptoki.Session) error {
		c = Cleaned{}
		unfinished, err := t.unfinished(s)
		if err != nil {
			return err
		}
		all, err := t.byName(s)
		if err != nil {
			return err
		}
		var stay int
		if c.Unfinished, stay, err = t.takeAway(s, unfinished); err != nil {
			return err
		}
		c.Nameless = stay
		for id, objects := range all {
			o, surplus, err := t.oneOf(s, objects)
			if err != nil {
				return err
			}
			if o == 0 {
				c.Disputed = append(c.Disputed, id)
			}
			destroyed, stay, err := t.takeAway(s, surplus)
			if err != nil {
				return err
			}
			if c.Surplus += destroyed; stay > 0 {
				c.Stuck = append(c.Stuck, id)
			}
		}
		if c.Unfinished+c.Surplus == 0 {
			return nil
		}
		return t.sync()
	})
	return c, err
}

// takeAway destroys objects, and counts those that the token refuses to destroy.
func (t *Token) takeAway(s cryptoki.Session, objects []cryptoki.Object) (destroyed, stay int, err error) {
	for _, o := range objects {
		switch err := t.module.DestroyObject(s, o); err {
		case nil, cryptoki.CKR_OBJECT_HANDLE_INVALID:
			destroyed++
		case cryptoki.CKR_ACTION_PROHIBITED:
			stay++
		default:
			return destroyed, stay, err
		}
	}
	return destroyed, stay, nil
}

// oneOf returns the object to use of those that have a key's name, and the others that are surplus: the same key, or what a crash left half made. It is zero, and nothing is surplus, if two
// are different keys, and if a whole one of several does not derive: whether that is the right one nobody can tell.
func (t *Token) oneOf(s cryptoki.Session, objects []cryptoki.Object) (one cryptoki.Object, surplus []cryptoki.Object, err error) {
	if len(objects) == 1 {
		return objects[0], nil, nil
	}
	var its KeyCheck
	for _, o := range objects {
		whole, err := t.whole(s, o)
		if err != nil {
			return 0, nil, err
		}
		if !whole {
			surplus = append(surplus, o)
			continue
		}
		check, derives, err := t.checkOf(s, o)
		switch {
		case err != nil:
			return 0, nil, err
		case !derives, one != 0 && check != its:
			return 0, nil, nil
		case one == 0:
			one, its = o, check
		default:
			surplus = append(surplus, o)
		}
	}
	if one == 0 { // of several halves all are nobody's; a file that is being written says nothing for a moment
		return 0, nil, nil
	}
	return one, surplus, nil
}

// unfinished finds what a crash left of objects that were being made.
func (t *Token) unfinished(s cryptoki.Session) (unfinished []cryptoki.Object, err error) {
	found, err := t.module.Find(s, nil)
	if err != nil {
		return nil, err
	}
	// Only what the token says is not there is empty. Any other error may pass,
	// and is no reason to destroy anything.
	read := func(o cryptoki.Object, typ uint) (a cryptoki.Attribute, known bool) {
		a, err := t.module.Read(s, o, typ)
		return a, err == nil || err == cryptoki.CKR_ATTRIBUTE_TYPE_INVALID || err == cryptoki.CKR_ATTRIBUTE_VALUE_INVALID
	}
	empty := func(o cryptoki.Object, types ...uint) bool {
		for _, typ := range types {
			if a, known := read(o, typ); !known || len(a.Value) > 0 {
				return false
			}
		}
		return true
	}
	for _, o := range found {
		if !empty(o, cryptoki.CKA_LABEL, cryptoki.CKA_ID) {
			continue
		}
		class, known := read(o, cryptoki.CKA_CLASS)
		switch {
		case !known:
			continue
		case len(class.Value) == 0: // nothing was written yet, not even what it is to be
		case class.Equal(cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_PRIVATE_KEY)) && empty(o, cryptoki.CKA_EC_PARAMS):
		case class.Equal(cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_DATA)) && empty(o, cryptoki.CKA_APPLICATION, cryptoki.CKA_VALUE):
		default:
			continue
		}
		unfinished = append(unfinished, o)
	}
	return unfinished, nil
}

// notOnce tells whether what was made is not found, or found twice.
func notOnce(err error) bool { return errors.Is(err, ErrKeyMissing) || errors.Is(err, ErrKeyExists) }
