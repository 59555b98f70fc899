// Package cryptoki is the one place where Sallyport calls a PKCS#11 module.
//
// It wraps each C_ function that Sallyport uses, one method per function, and
// does three things more: it counts every use of a function by its name, so that
// a test can show that a refused request caused none; it checks the lengths on
// which the binding below would panic; and it builds and reads attribute
// arrays (CKA_UNWRAP_TEMPLATE), which the binding does not know.
//
// It takes no decisions. Which key may do what, which error means what, and
// which session is used by whom is the business of package pkcs11.
//
// A Module may be used by several goroutines at once; a Session by one at a
// time, because PKCS#11 keeps the state of an operation in the session. A module
// that cannot be called by several threads at once is loaded alone: its calls then wait
// for one another here.
package cryptoki

// #cgo LDFLAGS: -ldl
// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	p11 "github.com/miekg/pkcs11"
)

// CKR is a return value other than CKR_OK.
type CKR uint64

func (r CKR) Error() string { return fmt.Sprintf("CKR 0x%x", uint64(r)) }

// ErrLength is returned, before the module is called, for an empty or
// oversized argument.
var ErrLength = errors.New("argument of a length no module accepts")

// Slot, Session and Object are handles of the module's making.
type (
	Slot    uint
	Session uint
	Object  uint
)

// TokenInfo is the part of CK_TOKEN_INFO that Sallyport reads.
type TokenInfo struct {
	Label, Manufacturer, Model, Serial string
	Hardware, Firmware                 string
	Flags                              uint
	// Sessions are all that are open on the token, or what the module says when it does not count them.
	Sessions uint
}

// maxInput bounds what is handed to a module in one call.
const maxInput = 1 << 20

// A function names a C_ function; its value is its place among the counters.
type function int

const (
	fInitialize function = iota
	fFinalize
	fGetSlotList
	fGetTokenInfo
	fGetMechanismList
	fInitToken
	fInitPIN
	fOpenSession
	fCloseSession
	fLogin
	fLogout
	fCreateObject
	fCopyObject
	fDestroyObject
	fGetAttributeValue
	fSetAttributeValue
	fFindObjectsInit
	fFindObjects
	fFindObjectsFinal
	fEncryptInit
	fEncrypt
	fDecryptInit
	fDecrypt
	fSignInit
	fSign
	fSignRecoverInit
	fSignRecover
	fGenerateKey
	fGenerateKeyPair
	fWrapKey
	fUnwrapKey
	fDeriveKey
	functions
)

var names = [functions]string{
	"C_Initialize", "C_Finalize", "C_GetSlotList", "C_GetTokenInfo", "C_GetMechanismList", "C_InitToken", "C_InitPIN",
	"C_OpenSession", "C_CloseSession", "C_Login", "C_Logout", "C_CreateObject", "C_CopyObject",
	"C_DestroyObject", "C_GetAttributeValue", "C_SetAttributeValue", "C_FindObjectsInit", "C_FindObjects",
	"C_FindObjectsFinal", "C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt", "C_SignInit", "C_Sign", "C_SignRecoverInit", "C_SignRecover",
	"C_GenerateKey", "C_GenerateKeyPair", "C_WrapKey", "C_UnwrapKey", "C_DeriveKey",
}

// A Module is a loaded PKCS#11 library.
type Module struct {
	ctx    *p11.Ctx
	direct *C.sp_module
	calls  [functions]atomic.Uint64

	alone bool
	turn  sync.Mutex // held through a call of the module, if alone
}

// Load loads and initialises the module at path. reserved is passed as
// pReserved of C_Initialize where it is not empty (NSS wants one). alone: one
// method at a time calls the module, whatever goroutines there are.
//
// The library is never unloaded again: vendor modules start threads that do
// not survive it.
func Load(path, reserved string, alone bool) (*Module, error) {
	m := &Module{ctx: p11.New(path), alone: alone}
	if m.ctx == nil {
		return nil, errors.New("no PKCS#11 module at that path")
	}
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	if m.direct = C.sp_load(name); m.direct == nil {
		return nil, errors.New("the module has no function list")
	}
	var options []p11.InitializeOption
	if reserved != "" {
		// Never freed: a module may keep the pointer until C_Finalize.
		options = append(options, p11.InitializeWithReserved(unsafe.Pointer(C.CString(reserved))))
	}
	defer m.call(fInitialize)()
	if err := fault(m.ctx.Initialize(options...)); err != nil {
		return nil, err
	}
	return m, nil
}

// Finalize ends the use of the module by this process.
func (m *Module) Finalize() error {
	defer m.call(fFinalize)()
	return fault(m.ctx.Finalize())
}

// Calls returns how often each C_ function was called; functions never called
// are left out.
func (m *Module) Calls() map[string]uint64 {
	calls := make(map[string]uint64)
	for f := range functions {
		if n := m.calls[f].Load(); n > 0 {
			calls[names[f]] = n
		}
	}
	return calls
}

func (m *Module) count(f function) { m.calls[f].Add(1) }

// call begins a call of the module, or several that belong together, and returns what ends it.
// A method that holds it calls no other one.
func (m *Module) call(f function) (end func()) {
	m.count(f)
	if !m.alone {
		return func() {}
	}
	m.turn.Lock()
	return m.turn.Unlock
}

func fault(err error) error {
	if e, ok := errors.AsType[p11.Error](err); ok {
		return CKR(e)
	}
	return err
}

func result(rv C.ulong) error {
	if rv == 0 {
		return nil
	}
	return CKR(rv)
}

// Slots lists the slots in which a token is present.
func (m *Module) Slots() ([]Slot, error) {
	defer m.call(fGetSlotList)()
	list, err := m.ctx.GetSlotList(true)
	slots := make([]Slot, len(list))
	for i, s := range list {
		slots[i] = Slot(s)
	}
	return slots, fault(err)
}

func (m *Module) TokenInfo(slot Slot) (TokenInfo, error) {
	defer m.call(fGetTokenInfo)()
	i, err := m.ctx.GetTokenInfo(uint(slot))
	return TokenInfo{
		Label: i.Label, Manufacturer: i.ManufacturerID, Model: i.Model, Serial: i.SerialNumber, Flags: i.Flags, Sessions: i.SessionCount,
		Hardware: fmt.Sprintf("%d.%d", i.HardwareVersion.Major, i.HardwareVersion.Minor),
		Firmware: fmt.Sprintf("%d.%d", i.FirmwareVersion.Major, i.FirmwareVersion.Minor),
	}, fault(err)
}

// Mechanisms lists what the token in slot can do.
func (m *Module) Mechanisms(slot Slot) ([]uint, error) {
	defer m.call(fGetMechanismList)()
	list, err := m.ctx.GetMechanismList(uint(slot))
	mechs := make([]uint, len(list))
	for i, x := range list {
		mechs[i] = x.Mechanism
	}
	return mechs, fault(err)
}

// InitToken erases and initialises the token in slot.
func (m *Module) InitToken(slot Slot, officerPIN []byte, label string) error {
	if len(officerPIN) == 0 || len(label) > 32 {
		return ErrLength
	}
	padded := []byte(fmt.Sprintf("%-32s", label))
	defer m.call(fInitToken)()
	return result(C.sp_init_token(m.direct, C.ulong(slot), bytesPointer(officerPIN), C.ulong(len(officerPIN)), bytesPointer(padded)))
}

// InitPIN sets the user's PIN; the security officer must be logged in.
func (m *Module) InitPIN(s Session, pin []byte) error {
	if len(pin) == 0 {
		return ErrLength
	}
	defer m.call(fInitPIN)()
	return result(C.sp_init_pin(m.direct, C.ulong(s), bytesPointer(pin), C.ulong(len(pin))))
}

// OpenSession opens a read-write session.
func (m *Module) OpenSession(slot Slot) (Session, error) {
	defer m.call(fOpenSession)()
	s, err := m.ctx.OpenSession(uint(slot), p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	return Session(s), fault(err)
}

func (m *Module) CloseSession(s Session) error {
	defer m.call(fCloseSession)()
	return fault(m.ctx.CloseSession(p11.SessionHandle(s)))
}

// Login passes the PIN to the module from the caller's own memory; no copy is
// made on the way.
func (m *Module) Login(s Session, user uint, pin []byte) error {
	if len(pin) == 0 {
		return ErrLength
	}
	defer m.call(fLogin)()
	return result(C.sp_login(m.direct, C.ulong(s), C.ulong(user), bytesPointer(pin), C.ulong(len(pin))))
}

func (m *Module) Logout(s Session) error {
	defer m.call(fLogout)()
	return fault(m.ctx.Logout(p11.SessionHandle(s)))
}

func (m *Module) CreateObject(s Session, t []Attribute) (Object, error) {
	attrs, free := build(t)
	defer free()
	defer m.call(fCreateObject)()
	o, err := m.ctx.CreateObject(p11.SessionHandle(s), attrs)
	return Object(o), fault(err)
}

func (m *Module) CopyObject(s Session, o Object, t []Attribute) (Object, error) {
	attrs, free := build(t)
	defer free()
	defer m.call(fCopyObject)()
	c, err := m.ctx.CopyObject(p11.SessionHandle(s), p11.ObjectHandle(o), attrs)
	return Object(c), fault(err)
}

func (m *Module) DestroyObject(s Session, o Object) error {
	defer m.call(fDestroyObject)()
	return fault(m.ctx.DestroyObject(p11.SessionHandle(s), p11.ObjectHandle(o)))
}

func (m *Module) SetAttributes(s Session, o Object, t []Attribute) error {
	attrs, free := build(t)
	defer free()
	defer m.call(fSetAttributeValue)()
	return fault(m.ctx.SetAttributeValue(p11.SessionHandle(s), p11.ObjectHandle(o), attrs))
}

// ReadInto reads one attribute into the caller's memory, in a single call, and
// returns its length. It is the read of the hot path: no copy of the value is
// left anywhere else.
func (m *Module) ReadInto(s Session, o Object, typ uint, into []byte) (int, error) {
	if len(into) == 0 {
		return 0, ErrLength
	}
	defer m.call(fGetAttributeValue)()
	n := C.ulong(len(into))
	if err := result(C.sp_read(m.direct, C.ulong(s), C.ulong(o), C.ulong(typ), bytesPointer(into), &n)); err != nil {
		return 0, err
	}
	if n > C.ulong(len(into)) {
		return 0, ErrLength
	}
	return int(n), nil
}

// Read reads one attribute of any kind; an array comes back in Array.
func (m *Module) Read(s Session, o Object, typ uint) (Attribute, error) {
	if isTemplate(typ) {
		return m.readArray(s, o, typ)
	}
	end := m.call(fGetAttributeValue)
	var n C.ulong
	err := result(C.sp_read(m.direct, C.ulong(s), C.ulong(o), C.ulong(typ), nil, &n))
	end()
	if err != nil {
		return Attribute{}, err
	}
	if n > maxInput {
		return Attribute{}, ErrLength
	}
	a := Attribute{Type: typ}
	if n == 0 {
		return a, nil
	}
	a.Value = make([]byte, n)
	read, err := m.ReadInto(s, o, typ, a.Value)
	a.Value = a.Value[:read]
	return a, err
}

// ReadShort reads up to 64 attributes of up to 64 bytes, none of which is an array, in one call. If one of them cannot be read so, none is: Read tells which.
func (m *Module) ReadShort(s Session, o Object, types []uint) ([]Attribute, error) {
	if len(types) == 0 || len(types) > C.SP_SHORT || slices.ContainsFunc(types, isTemplate) {
		return nil, ErrLength
	}
	var asked, lengths [C.SP_SHORT]C.ulong
	for i, t := range types {
		asked[i] = C.ulong(t)
	}
	values := make([]byte, len(types)*C.SP_SHORT)
	defer m.call(fGetAttributeValue)()
	if err := result(C.sp_read_short(m.direct, C.ulong(s), C.ulong(o), &asked[0], C.ulong(len(types)), bytesPointer(values), &lengths[0])); err != nil {
		return nil, err
	}
	all := make([]Attribute, len(types))
	for i, t := range types {
		if lengths[i] > C.SP_SHORT {
			return nil, ErrLength
		}
		all[i].Type = t
		if n := int(lengths[i]); n > 0 {
			all[i].Value = values[i*C.SP_SHORT:][:n:n]
		}
	}
	return all, nil
}

func (m *Module) readArray(s Session, o Object, typ uint) (Attribute, error) {
	defer m.call(fGetAttributeValue)()
	var first *C.sp_attribute
	var n C.ulong
	if err := result(C.sp_read_array(m.direct, C.ulong(s), C.ulong(o), C.ulong(typ), &first, &n)); err != nil {
		return Attribute{}, err
	}
	defer C.sp_free_array(first, n)
	a := Attribute{Type: typ, Array: []Attribute{}}
	for _, e := range unsafe.Slice(first, n) {
		a.Array = append(a.Array, Attribute{Type: uint(e._type), Value: C.GoBytes(e.value, C.int(e.length))})
	}
	return a, nil
}

// Find returns every object that matches t. The search is always closed.
func (m *Module) Find(s Session, t []Attribute) (found []Object, err error) {
	attrs, free := build(t)
	defer free()
	session := p11.SessionHandle(s)
	defer m.call(fFindObjectsInit)()
	if err := fault(m.ctx.FindObjectsInit(session, attrs)); err != nil {
		return nil, err
	}
	defer func() {
		m.count(fFindObjectsFinal)
		if e := fault(m.ctx.FindObjectsFinal(session)); err == nil {
			err = e
		}
	}()
	for {
		m.count(fFindObjects)
		some, _, err := m.ctx.FindObjects(session, 1024)
		if err != nil {
			return nil, fault(err)
		}
		if len(some) == 0 {
			return found, nil
		}
		for _, o := range some {
			found = append(found, Object(o))
		}
	}
}

// Encrypt runs a whole encryption: C_EncryptInit, C_Encrypt.
func (m *Module) Encrypt(s Session, mech Mechanism, key Object, plain []byte) ([]byte, error) {
	if len(plain) == 0 || len(plain) > maxInput {
		return nil, ErrLength
	}
	list, free := mech.build()
	defer free()
	defer m.call(fEncryptInit)()
	if err := fault(m.ctx.EncryptInit(p11.SessionHandle(s), list, p11.ObjectHandle(key))); err != nil {
		return nil, err
	}
	m.count(fEncrypt)
	out, err := m.ctx.Encrypt(p11.SessionHandle(s), plain)
	return out, fault(err)
}

// Decrypt runs a whole decryption: C_DecryptInit, C_Decrypt. The plaintext, which
// is no longer than what it was made from, is written to the caller's memory
// and nowhere else.
func (m *Module) Decrypt(s Session, mech Mechanism, key Object, cipher []byte) ([]byte, error) {
	if len(cipher) == 0 || len(cipher) > maxInput {
		return nil, ErrLength
	}
	list, free := mech.build()
	defer free()
	defer m.call(fDecryptInit)()
	if err := fault(m.ctx.DecryptInit(p11.SessionHandle(s), list, p11.ObjectHandle(key))); err != nil {
		return nil, err
	}
	m.count(fDecrypt)
	plain := make([]byte, len(cipher))
	n := C.ulong(len(plain))
	if err := result(C.sp_decrypt(m.direct, C.ulong(s), bytesPointer(cipher), C.ulong(len(cipher)), bytesPointer(plain), &n)); err != nil {
		return nil, err
	}
	if n > C.ulong(len(plain)) {
		return nil, ErrLength
	}
	return plain[:n], nil
}

// Sign runs a whole signature: C_SignInit, C_Sign.
func (m *Module) Sign(s Session, mech Mechanism, key Object, message []byte) ([]byte, error) {
	if len(message) == 0 || len(message) > maxInput {
		return nil, ErrLength
	}
	list, free := mech.build()
	defer free()
	defer m.call(fSignInit)()
	if err := fault(m.ctx.SignInit(p11.SessionHandle(s), list, p11.ObjectHandle(key))); err != nil {
		return nil, err
	}
	m.count(fSign)
	out, err := m.ctx.Sign(p11.SessionHandle(s), message)
	return out, fault(err)
}

// SignRecover runs a whole signature with recovery: C_SignRecoverInit, C_SignRecover.
func (m *Module) SignRecover(s Session, mech Mechanism, key Object, message []byte) ([]byte, error) {
	if len(message) == 0 || len(message) > maxInput {
		return nil, ErrLength
	}
	list, free := mech.build()
	defer free()
	defer m.call(fSignRecoverInit)()
	if err := fault(m.ctx.SignRecoverInit(p11.SessionHandle(s), list, p11.ObjectHandle(key))); err != nil {
		return nil, err
	}
	m.count(fSignRecover)
	out, err := m.ctx.SignRecover(p11.SessionHandle(s), message)
	return out, fault(err)
}

func (m *Module) GenerateKey(s Session, mech Mechanism, t []Attribute) (Object, error) {
	attrs, free := build(t)
	defer free()
	list, freeMech := mech.build()
	defer freeMech()
	defer m.call(fGenerateKey)()
	o, err := m.ctx.GenerateKey(p11.SessionHandle(s), list, attrs)
	return Object(o), fault(err)
}

func (m *Module) GenerateKeyPair(s Session, mech Mechanism, public, private []Attribute) (pub, priv Object, err error) {
	pubAttrs, freePub := build(public)
	defer freePub()
	privAttrs, freePriv := build(private)
	defer freePriv()
	list, free := mech.build()
	defer free()
	defer m.call(fGenerateKeyPair)()
	a, b, err := m.ctx.GenerateKeyPair(p11.SessionHandle(s), list, pubAttrs, privAttrs)
	return Object(a), Object(b), fault(err)
}

func (m *Module) WrapKey(s Session, mech Mechanism, wrapping, key Object) ([]byte, error) {
	list, free := mech.build()
	defer free()
	defer m.call(fWrapKey)()
	out, err := m.ctx.WrapKey(p11.SessionHandle(s), list, p11.ObjectHandle(wrapping), p11.ObjectHandle(key))
	return out, fault(err)
}

func (m *Module) UnwrapKey(s Session, mech Mechanism, unwrapping Object, wrapped []byte, t []Attribute) (Object, error) {
	if len(wrapped) == 0 || len(wrapped) > maxInput {
		return 0, ErrLength
	}
	attrs, free := build(t)
	defer free()
	list, freeMech := mech.build()
	defer freeMech()
	defer m.call(fUnwrapKey)()
	o, err := m.ctx.UnwrapKey(p11.SessionHandle(s), list, p11.ObjectHandle(unwrapping), wrapped, attrs)
	return Object(o), fault(err)
}

func (m *Module) DeriveKey(s Session, mech Mechanism, base Object, t []Attribute) (Object, error) {
	if mech.kind == ecdh && len(mech.point) == 0 {
		return 0, ErrLength
	}
	attrs, free := build(t)
	defer free()
	list, freeMech := mech.build()
	defer freeMech()
	defer m.call(fDeriveKey)()
	o, err := m.ctx.DeriveKey(p11.SessionHandle(s), list, p11.ObjectHandle(base), attrs)
	return Object(o), fault(err)
}

func bytesPointer(b []byte) *C.uchar { return (*C.uchar)(unsafe.Pointer(unsafe.SliceData(b))) }
