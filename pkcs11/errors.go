package pkcs11

import (
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// The kinds of failure. They survive the way from a worker to the vault.
var (
	// ErrBadInput: what was asked for is wrong: a point, a wrapped key, a sealed value.
	ErrBadInput = errors.New("bad input")
	// ErrKeyMissing: the token holds no such key.
	ErrKeyMissing = errors.New("key missing")
	// ErrKeyExists: the token already holds a key of that name or id.
	ErrKeyExists = errors.New("key exists already")
	// ErrKeyRenamed: the key was destroyed, and had another CKA_ID or label than it was given.
	ErrKeyRenamed = errors.New("key under another name")
	// ErrStateMissing: the token holds no signer state.
	ErrStateMissing = errors.New("signer state missing")
	// ErrStateDamaged: the token holds signer states, and none is intact.
	ErrStateDamaged = errors.New("signer state damaged")
	// ErrRefused: the token's own rules forbid the operation.
	ErrRefused = errors.New("refused by the token")
	// ErrAttributes: a key does not have the attributes it must have.
	ErrAttributes = errors.New("attributes differ")
	// ErrSessionBroken: one session failed and was replaced; the request may be sent again.
	ErrSessionBroken = errors.New("session broken")
	// ErrTokenBroken: the token, its module or its process is of no further use.
	ErrTokenBroken = errors.New("token broken")
	// ErrTokenFull: no room for another key or signer state.
	ErrTokenFull = errors.New("token full")
	// ErrTokenMissing: no slot, or more than one, holds the token that was selected.
	ErrTokenMissing = errors.New("token missing")
	// ErrTokenExists: the token to initialise is in use already.
	ErrTokenExists = errors.New("token is initialised already")
	// ErrPINIncorrect: never sent twice, because a token counts.
	ErrPINIncorrect = errors.New("PIN incorrect")
	// ErrPINLocked: locked, or so close to it that no attempt was made.
	ErrPINLocked = errors.New("PIN locked")
	// ErrClosed: the Token or Pool was closed.
	ErrClosed = errors.New("closed")
)

// kinds fixes each sentinel's number on the wire between vault and worker;
// zero is success.
var kinds = []error{nil, ErrBadInput, ErrKeyMissing, ErrKeyExists, ErrStateMissing, ErrRefused, ErrAttributes,
	ErrSessionBroken, ErrTokenBroken, ErrTokenFull, ErrTokenMissing, ErrTokenExists, ErrPINIncorrect, ErrPINLocked, ErrClosed, ErrStateDamaged}

// An Error is a failed operation: what was being done, the module's return
// value (zero if the module was not the one to complain), and the kind.
type Error struct {
	Op   string
	CKR  uint64
	Kind error
}

func (e *Error) Error() string {
	if e.CKR == 0 {
		return fmt.Sprintf("%s: %v", e.Op, e.Kind)
	}
	return fmt.Sprintf("%s: %v (CKR 0x%x)", e.Op, e.Kind, e.CKR)
}

func (e *Error) Unwrap() error { return e.Kind }

// An AttributeError names the attribute of a key that is not as it must be.
// It is of the kind ErrAttributes.
type AttributeError struct {
	Key       KeyName
	Attribute string
	Want, Got string
}

func (e *AttributeError) Error() string {
	return fmt.Sprintf("%q: %s is %s, must be %s", string(e.Key), e.Attribute, e.Got, e.Want)
}

func (e *AttributeError) Unwrap() error { return ErrAttributes }

// kindOf sorts a module's return value. nil means that the value alone does
// not tell: see Token.judge.
func kindOf(ckr cryptoki.CKR) error {
	switch ckr {
	case cryptoki.CKR_ARGUMENTS_BAD, cryptoki.CKR_DATA_INVALID, cryptoki.CKR_DATA_LEN_RANGE,
		cryptoki.CKR_ENCRYPTED_DATA_INVALID, cryptoki.CKR_ENCRYPTED_DATA_LEN_RANGE,
		cryptoki.CKR_MECHANISM_PARAM_INVALID, cryptoki.CKR_WRAPPED_KEY_INVALID,
		cryptoki.CKR_WRAPPED_KEY_LEN_RANGE, cryptoki.CKR_DOMAIN_PARAMS_INVALID, cryptoki.CKR_CURVE_NOT_SUPPORTED:
		return ErrBadInput
	case cryptoki.CKR_KEY_HANDLE_INVALID, cryptoki.CKR_OBJECT_HANDLE_INVALID:
		return ErrKeyMissing
	case cryptoki.CKR_ACTION_PROHIBITED, cryptoki.CKR_ATTRIBUTE_READ_ONLY, cryptoki.CKR_ATTRIBUTE_SENSITIVE,
		cryptoki.CKR_ATTRIBUTE_TYPE_INVALID, cryptoki.CKR_ATTRIBUTE_VALUE_INVALID,
		cryptoki.CKR_KEY_FUNCTION_NOT_PERMITTED, cryptoki.CKR_KEY_TYPE_INCONSISTENT,
		cryptoki.CKR_KEY_NOT_WRAPPABLE, cryptoki.CKR_KEY_UNEXTRACTABLE, cryptoki.CKR_MECHANISM_INVALID,
		cryptoki.CKR_TEMPLATE_INCOMPLETE, cryptoki.CKR_TEMPLATE_INCONSISTENT:
		return ErrRefused
	case cryptoki.CKR_SESSION_CLOSED, cryptoki.CKR_SESSION_HANDLE_INVALID, cryptoki.CKR_SESSION_READ_ONLY,
		cryptoki.CKR_OPERATION_ACTIVE, cryptoki.CKR_OPERATION_NOT_INITIALIZED:
		return ErrSessionBroken
	case cryptoki.CKR_HOST_MEMORY, cryptoki.CKR_DEVICE_ERROR, cryptoki.CKR_DEVICE_REMOVED,
		cryptoki.CKR_TOKEN_NOT_PRESENT, cryptoki.CKR_TOKEN_NOT_RECOGNIZED, cryptoki.CKR_CRYPTOKI_NOT_INITIALIZED,
		// The login is gone with the PIN that made it: only a new process can log in again.
		cryptoki.CKR_USER_NOT_LOGGED_IN:
		return ErrTokenBroken
	case cryptoki.CKR_DEVICE_MEMORY:
		return ErrTokenFull
	case cryptoki.CKR_PIN_INCORRECT, cryptoki.CKR_PIN_INVALID, cryptoki.CKR_PIN_LEN_RANGE:
		return ErrPINIncorrect
	case cryptoki.CKR_PIN_LOCKED, cryptoki.CKR_PIN_EXPIRED:
		return ErrPINLocked
	}
	return nil
}
