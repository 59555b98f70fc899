package cryptoki

// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"bytes"
	"encoding/binary"
	"slices"
	"unsafe"

	p11 "github.com/miekg/pkcs11"
)

// An Attribute is a type and a value. Where the value is itself a list of
// attributes (CKA_UNWRAP_TEMPLATE), Array holds it and Value is empty.
type Attribute struct {
	Type  uint
	Value []byte
	Array []Attribute
}

// Bool, Ulong, Bytes, Mechanisms and Template make attributes.
func Bool(typ uint, v bool) Attribute {
	if v {
		return Attribute{Type: typ, Value: []byte{1}}
	}
	return Attribute{Type: typ, Value: []byte{0}}
}

func Ulong(typ, v uint) Attribute { return Attribute{Type: typ, Value: ulong(v)} }

func Bytes(typ uint, v []byte) Attribute { return Attribute{Type: typ, Value: v} }

func Mechanisms(typ uint, mechs ...uint) Attribute {
	a := Attribute{Type: typ}
	for _, m := range mechs {
		a.Value = append(a.Value, ulong(m)...)
	}
	return a
}

func Template(typ uint, array []Attribute) Attribute { return Attribute{Type: typ, Array: array} }

// Equal tells whether two attributes have the same type and value. Arrays are
// compared without regard to order.
func (a Attribute) Equal(b Attribute) bool {
	if a.Type != b.Type || !bytes.Equal(a.Value, b.Value) || len(a.Array) != len(b.Array) {
		return false
	}
	// Each takes a partner of its own: an element that comes twice must not
	// hide that another is missing.
	rest := slices.Clone(b.Array)
	for _, x := range a.Array {
		i := slices.IndexFunc(rest, x.Equal)
		if i < 0 {
			return false
		}
		rest = slices.Delete(rest, i, i+1)
	}
	return true
}

// ulong encodes v as a CK_ULONG: a C unsigned long in the machine's own order.
func ulong(v uint) []byte {
	if unsafe.Sizeof(C.ulong(0)) == 4 {
		return binary.NativeEndian.AppendUint32(nil, uint32(v))
	}
	return binary.NativeEndian.AppendUint64(nil, uint64(v))
}

// isTemplate tells whether values of this type are arrays of attributes.
// CKA_ALLOWED_MECHANISMS carries the array flag too, but is a list of numbers.
func isTemplate(typ uint) bool {
	return typ == CKA_WRAP_TEMPLATE || typ == CKA_UNWRAP_TEMPLATE || typ == CKA_DERIVE_TEMPLATE
}

// build makes the binding's form of a template. Arrays are laid out in C
// memory, because their elements hold pointers; free releases it, after the
// call that used it.
func build(t []Attribute) (list []*p11.Attribute, free func()) {
	var held []unsafe.Pointer
	list = make([]*p11.Attribute, len(t))
	for i, a := range t {
		list[i] = &p11.Attribute{Type: a.Type, Value: a.Value}
		if len(a.Array) == 0 {
			continue
		}
		array := make([]C.sp_attribute, len(a.Array))
		for j, e := range a.Array {
			array[j]._type = C.ulong(e.Type)
			if len(e.Value) > 0 {
				p := C.CBytes(e.Value)
				held = append(held, p)
				array[j].value = p
				array[j].length = C.ulong(len(e.Value))
			}
		}
		size := len(array) * int(unsafe.Sizeof(array[0]))
		list[i].Value = bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&array[0])), size))
	}
	return list, func() {
		for _, p := range held {
			C.free(p)
		}
	}
}

type kind int

const (
	plain kind = iota
	oaep
	ecdh
	gcm
	raw
	data
)

// A Mechanism is a mechanism's number and its parameter.
type Mechanism struct {
	number    uint
	kind      kind
	hash, mgf uint
	point     []byte
	iv, aad   []byte
	kdf       uint
}

// Plain is a mechanism without a parameter.
func Plain(number uint) Mechanism { return Mechanism{number: number} }

// With is a mechanism whose parameter is bytes, such as an initialisation vector.
func With(number uint, parameter []byte) Mechanism {
	return Mechanism{number: number, kind: raw, iv: parameter}
}

// Data is a mechanism whose parameter is CK_KEY_DERIVATION_STRING_DATA: where bytes are, and how many.
func Data(number uint, b []byte) Mechanism { return Mechanism{number: number, kind: data, iv: b} }

// ECDHThen is a mechanism of the ECDH family with a key derivation function behind it.
func ECDHThen(number, kdf uint, point []byte) Mechanism {
	return Mechanism{number: number, kind: ecdh, kdf: kdf, point: point}
}

// OAEP is CKM_RSA_PKCS_OAEP with an empty label.
func OAEP(hash, mgf uint) Mechanism {
	return Mechanism{number: CKM_RSA_PKCS_OAEP, kind: oaep, hash: hash, mgf: mgf}
}

// ECDH is CKM_ECDH1_DERIVE with CKD_NULL: the x-coordinate, nothing else.
func ECDH(point []byte) Mechanism {
	return Mechanism{number: CKM_ECDH1_DERIVE, kind: ecdh, kdf: p11.CKD_NULL, point: point}
}

// GCM is CKM_AES_GCM with a tag of 16 bytes.
func GCM(iv, aad []byte) Mechanism {
	return Mechanism{number: CKM_AES_GCM, kind: gcm, iv: iv, aad: aad}
}

func (m Mechanism) build() (list []*p11.Mechanism, free func()) {
	free = func() {}
	var parameter any
	switch m.kind {
	case oaep:
		parameter = p11.NewOAEPParams(m.hash, m.mgf, p11.CKZ_DATA_SPECIFIED, nil)
	case ecdh:
		parameter = p11.NewECDH1DeriveParams(m.kdf, nil, m.point)
	case raw:
		parameter = m.iv
	case data:
		// The parameter holds a pointer, so what it points to must be C memory.
		held := C.CBytes(m.iv)
		free = func() { C.free(held) }
		pointer := unsafe.Slice((*byte)(unsafe.Pointer(&held)), unsafe.Sizeof(held))
		parameter = append(bytes.Clone(pointer), ulong(uint(len(m.iv)))...)
	case gcm:
		p := p11.NewGCMParams(m.iv, m.aad, 128)
		parameter, free = p, p.Free
	}
	return []*p11.Mechanism{p11.NewMechanism(m.number, parameter)}, free
}
