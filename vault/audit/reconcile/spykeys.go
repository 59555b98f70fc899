package reconcile

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Names that the ceremony and the vault give to objects of a token (pkcs11/template.go).
const (
	labelRekey   = "sallyport re-encryption key"
	labelSealing = "sallyport sealing "
)

var labels = map[string]kind{
	"sallyport import resident": importResident,
	"sallyport import sealed":   importSealed,
	"sallyport log":             logKey,
	"sallyport store":           storeKey,
	"sallyport signer state":    stateObject,
	labelRekey:                  reencryption,
}

// where is the place of a call in a trace.
func (c *spyCall) where() string {
	return fmt.Sprintf("line %d, call %d", c.line, c.number)
}

// what is the key with a handle.
func (p *spyProcess) what(handle uint64) key {
	if t := p.objects[handle]; t != nil {
		return t.key
	}
	return key{}
}

// thing is the object with a handle, new if it is not known.
func (p *spyProcess) thing(handle uint64) *spyThing {
	t := p.objects[handle]
	if t == nil {
		t = &spyThing{}
		p.objects[handle] = t
	}
	return t
}

// learn takes over what a template says of an object that the token keeps.
func (t *spyThing) learn(template []spyAttribute) {
	if t.kind == entangled {
		if a, ok := attribute(template, "CKA_LABEL"); !ok || len(a.value) == 0 {
			return
		}
		*t = spyThing{}
	}
	if a, ok := attribute(template, "CKA_LABEL"); ok && len(a.value) > 0 {
		t.label = string(a.value)
		switch k, known := labels[t.label]; {
		case known:
			t.kind = k
		case strings.HasPrefix(t.label, labelSealing):
			t.kind = sealing
		case t.kind == unknown:
			t.kind = foreign
		}
	}
	if a, ok := attribute(template, "CKA_ID"); ok && len(a.value) == 32 && (t.kind == reencryption || t.kind == unknown) {
		t.id = hex.EncodeToString(a.value)
	}
}

// kept tells whether a template makes an object that the token keeps.
func kept(template []spyAttribute) bool {
	for _, a := range template {
		if a.name == "CKA_TOKEN" && a.word == "True" {
			return true
		}
	}
	return false
}

// did takes down what a finished call did.
func (p *spyProcess) did(t *Token, c *spyCall, ok bool) {
	session := c.handles["in hSession"]
	in := func(name string) uint64 { return c.handles["in "+name] }
	out := func(name string) uint64 { return c.handles["out "+name] }
	// An operation is one that succeeded; a question for the length of an answer is none.
	emit := func(class Class, k, subject key) *operation {
		if !ok {
			t.failed[class]++
			return &operation{}
		}
		o := &operation{class: class, function: c.name, key: k, subject: subject, at: c.at, place: c.where()}
		t.ops, p.operation = append(t.ops, o), append(p.operation, o)
		return o
	}
	switch c.name {
	case "C_Finalize":
		p.ended = true
	case "C_FindObjectsInit":
		p.search[session] = spySearch{template: c.in}
	case "C_FindObjects":
		for _, handle := range c.found {
			k, search := p.what(handle).kind, p.search[session]
			switch {
			case k == unknown && search.mixed:
				p.thing(handle).kind = entangled
			case k == unknown || k == entangled:
				p.thing(handle).learn(search.template)
			}
		}
	case "C_GetAttributeValue":
		if k := p.what(in("hObject")).kind; k == unknown || k == foreign || k == reencryption || k == entangled {
			p.thing(in("hObject")).learn(c.out)
		}
	case "C_DeriveKey":
		o := emit(Derive, p.what(in("hBaseKey")), key{})
		if point, there := attribute(c.in, "in pMechanism->pParameter->pPublicData"); there {
			o.generator = strings.TrimPrefix(hex.EncodeToString(point.value), "0441") == generator
		}
		if ok {
			p.objects[out("hKey")] = &spyThing{key: key{kind: derived}}
		}
	case "C_UnwrapKey":
		made := &spyThing{}
		switch from := p.what(in("hUnwrappingKey")); {
		case from.kind == own || from.kind == derived:
			made.kind = own
		case kept(c.in):
			made.learn(c.in)
		case from.kind == entangled:
			made.kind = entangled
		default:
			made.kind = loaded
		}
		emit(Unwrap, p.what(in("hUnwrappingKey")), made.key)
		if ok {
			p.objects[out("hKey")] = made
		}
	case "C_WrapKey":
		if !c.null["out pWrappedKey"] {
			emit(Wrap, p.what(in("hWrappingKey")), p.what(in("hKey")))
		}
	case "C_SignInit", "C_SignRecoverInit", "C_EncryptInit", "C_DecryptInit":
		if ok {
			p.signing[session] = p.what(in("hKey"))
		}
	case "C_Sign", "C_SignRecover":
		if !c.null["out pSignature"] {
			o := emit(Sign, p.signing[session], key{})
			if data, there := attribute(c.in, "in pData"); there {
				o.message = data.value
			}
		}
	case "C_Encrypt":
		if !c.null["out pEncryptedData"] {
			emit(Encrypt, p.signing[session], key{})
		}
	case "C_Decrypt":
		if !c.null["out pData"] {
			emit(Decrypt, p.signing[session], key{})
		}
	case "C_GenerateKey", "C_GenerateKeyPair":
		made := &spyThing{key: key{kind: own}}
		if kept(c.in) {
			made.kind = unknown
			made.learn(c.in)
			if made.kind == unknown {
				made.kind = foreign
			}
		}
		emit(Generate, key{}, made.key)
		for _, name := range []string{"hKey", "hPublicKey", "hPrivateKey"} {
			if ok && c.seen["out "+name] {
				p.objects[out(name)] = made
			}
		}
	case "C_CreateObject":
		made := &spyThing{key: key{kind: own}}
		if kept(c.in) {
			made.kind = unknown
			made.learn(c.in)
		}
		emit(Create, key{}, made.key)
		if ok {
			p.objects[out("*phObject")] = made
		}
	case "C_CopyObject":
		emit(Change, key{}, p.what(in("hObject")))
	case "C_SetAttributeValue":
		emit(Change, key{}, p.what(in("hObject")))
	case "C_DestroyObject":
		emit(Destroy, key{}, p.what(in("hObject")))
		if ok {
			delete(p.objects, in("hObject"))
		}
	case "C_InitToken", "C_InitPIN", "C_SetPIN":
		emit(Manage, key{}, key{})
	default:
		if class, does := spyOthers[c.name]; does {
			emit(class, key{}, key{})
		}
	}
}

// class is what a function does, if it is more than to look at what there is.
func (c *spyCall) class() (Class, bool) {
	if class, does := spyOthers[c.name]; does {
		return class, true
	}
	class, does := spyClasses[c.name]
	return class, does
}

// spyClasses are the functions that Sallyport calls.
var spyClasses = map[string]Class{
	"C_DeriveKey": Derive, "C_UnwrapKey": Unwrap, "C_WrapKey": Wrap, "C_Sign": Sign, "C_SignRecover": Sign, "C_Encrypt": Encrypt, "C_Decrypt": Decrypt,
	"C_GenerateKey": Generate, "C_GenerateKeyPair": Generate, "C_CreateObject": Create, "C_CopyObject": Change, "C_SetAttributeValue": Change,
	"C_DestroyObject": Destroy, "C_InitToken": Manage, "C_InitPIN": Manage, "C_SetPIN": Manage,
}

// spyOthers are functions that Sallyport never calls and that use a key all the same. No entry stands for them.
var spyOthers = map[string]Class{
	"C_SignFinal": Sign, "C_SignUpdate": Sign, "C_SignEncryptUpdate": Sign, "C_SignMessage": Sign, "C_SignMessageNext": Sign,
	"C_DecryptUpdate": Decrypt, "C_DecryptFinal": Decrypt, "C_DecryptMessage": Decrypt, "C_DecryptMessageNext": Decrypt,
	"C_DecryptDigestUpdate": Decrypt, "C_DecryptVerifyUpdate": Decrypt,
	"C_EncryptUpdate": Encrypt, "C_EncryptFinal": Encrypt, "C_EncryptMessage": Encrypt, "C_EncryptMessageNext": Encrypt, "C_DigestEncryptUpdate": Encrypt,
	"C_EncapsulateKey": Derive, "C_DecapsulateKey": Derive, "C_WrapKeyAuthenticated": Wrap, "C_UnwrapKeyAuthenticated": Unwrap,
	"C_DigestKey": Derive,
}
