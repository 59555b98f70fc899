package hardware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/pkcs11"
)

// Attribute numbers of PKCS#11 2.40, as SoftHSM's files have them.
const (
	ckaClass       = 0x0
	ckaToken       = 0x1
	ckaPrivate     = 0x2
	ckaLabel       = 0x3
	ckaTrusted     = 0x86
	ckaKeyType     = 0x100
	ckaSensitive   = 0x103
	ckaEncrypt     = 0x104
	ckaDecrypt     = 0x105
	ckaWrap        = 0x106
	ckaUnwrap      = 0x107
	ckaSign        = 0x108
	ckaSignRecover = 0x109
	ckaVerify      = 0x10a
	ckaDerive      = 0x10c
	ckaModulus     = 0x120
	ckaValueLen    = 0x161
	ckaExtractable = 0x162
	ckaLocal       = 0x163
	ckaNever       = 0x164
	ckaAlways      = 0x165
	ckaModifiable  = 0x170
	ckaCopyable    = 0x171
	ckaECPoint     = 0x181
	ckaTemplate    = 0x40000212
	ckaAllowed     = 0x40000600
)

// names are those that pkcs11 puts into reports and refusals.
var names = map[uint64]string{
	ckaClass: "CKA_CLASS", ckaToken: "CKA_TOKEN", ckaPrivate: "CKA_PRIVATE", ckaTrusted: "CKA_TRUSTED", ckaKeyType: "CKA_KEY_TYPE",
	ckaSensitive: "CKA_SENSITIVE", ckaEncrypt: "CKA_ENCRYPT", ckaDecrypt: "CKA_DECRYPT", ckaWrap: "CKA_WRAP", ckaUnwrap: "CKA_UNWRAP",
	ckaSign: "CKA_SIGN", ckaSignRecover: "CKA_SIGN_RECOVER", ckaVerify: "CKA_VERIFY", ckaDerive: "CKA_DERIVE", ckaValueLen: "CKA_VALUE_LEN",
	ckaExtractable: "CKA_EXTRACTABLE", ckaLocal: "CKA_LOCAL", ckaNever: "CKA_NEVER_EXTRACTABLE", ckaAlways: "CKA_ALWAYS_SENSITIVE",
	ckaModifiable: "CKA_MODIFIABLE", ckaCopyable: "CKA_COPYABLE", ckaTemplate: "CKA_UNWRAP_TEMPLATE", ckaAllowed: "CKA_ALLOWED_MECHANISMS",
}

// attributes are those of design section 4, written out a second time. A list is an unwrap template or mechanisms.
var attributes = func() map[pkcs11.KeyName]map[uint64]string {
	guarded := func(more map[uint64]string) map[uint64]string {
		for typ, value := range map[uint64]string{
			ckaToken: "true", ckaPrivate: "true", ckaSensitive: "true", ckaExtractable: "false", ckaModifiable: "false", ckaCopyable: "false",
			ckaLocal: "true", ckaNever: "true", ckaAlways: "true", ckaDerive: "false",
		} {
			if _, ok := more[typ]; !ok {
				more[typ] = value
			}
		}
		return more
	}
	imports := func() map[uint64]string {
		return guarded(map[uint64]string{
			ckaClass: "0x3", ckaKeyType: "0x0", ckaUnwrap: "true", ckaDecrypt: "false", ckaSign: "false", ckaSignRecover: "false", ckaAllowed: "0x9",
		})
	}
	return map[pkcs11.KeyName]map[uint64]string{
		pkcs11.ImportResident: imports(),
		pkcs11.ImportSealed:   imports(),
		pkcs11.LogKey: guarded(map[uint64]string{
			ckaClass: "0x3", ckaUnwrap: "false", ckaDecrypt: "false", ckaSign: "true", ckaSignRecover: "false", ckaAllowed: "0x1057",
		}),
		pkcs11.StoreKey: guarded(map[uint64]string{
			ckaClass: "0x4", ckaKeyType: "0x1f", ckaValueLen: "0x20", ckaEncrypt: "true", ckaDecrypt: "true", ckaWrap: "false", ckaUnwrap: "false",
			ckaSign: "false", ckaVerify: "false", ckaAllowed: "0x1087",
		}),
		pkcs11.SealingKey(1): guarded(map[uint64]string{
			ckaClass: "0x4", ckaKeyType: "0x1f", ckaValueLen: "0x20", ckaPrivate: "false", ckaTrusted: "true", ckaEncrypt: "false", ckaDecrypt: "false",
			ckaWrap: "true", ckaUnwrap: "true", ckaSign: "false", ckaVerify: "false", ckaAllowed: "0x210a",
		}),
	}
}()

// template is what an import key forces on re-encryption keys of a custody, written out a second time.
func template(sealed bool) map[uint64]string {
	t := map[uint64]string{
		ckaClass: "0x3", ckaKeyType: "0x3", ckaToken: fmt.Sprint(!sealed), ckaPrivate: "true", ckaSensitive: "true", ckaExtractable: fmt.Sprint(sealed),
		ckaDerive: "true", ckaSign: "false", ckaSignRecover: "false", ckaDecrypt: "false", ckaUnwrap: "false", ckaCopyable: "false", ckaAllowed: "0x1050",
	}
	if sealed {
		t[0x210] = "true" // CKA_WRAP_WITH_TRUSTED
	}
	return t
}

// A stored object is one file of SoftHSM's token folder, whose attributes lie there in the clear but for the byte strings of
// private objects. It is read and edited here without PKCS#11: as another witness of what the ceremony asked for, and as
// the host that would weaken a key behind the token's back.
//
// A file is a generation (8 bytes), then for each attribute its number, its kind and its value, all integers big-endian of 8
// bytes: a boolean (kind 1, one byte, 0xff or 0), a number (2), bytes after their length (3), attributes after their
// length (4), numbers after their count (5) (SoftHSMv2, src/lib/object_store/ObjectFile.cpp).
type stored struct {
	path string
	data []byte
	at   map[uint64]span
}

// A span is where a value lies in the file, and of which kind it is.
type span struct {
	kind       uint64
	start, end int
}

func readObject(t *testing.T, path string) *stored {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	o := &stored{path: path, data: data}
	if o.at, err = spans(data, 8, len(data)); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return o
}

func spans(data []byte, at, end int) (map[uint64]span, error) {
	found := make(map[uint64]span)
	next := func() uint64 {
		n := binary.BigEndian.Uint64(data[at:])
		at += 8
		return n
	}
	for at < end {
		if end-at < 17 {
			return nil, errors.New("cut short")
		}
		typ, kind := next(), next()
		s := span{kind: kind, start: at}
		switch kind {
		case 1:
			at++
		case 2:
			at += 8
		case 3, 4:
			n := int(next())
			s.start = at
			at += n
		case 5:
			n := int(next())
			s.start = at
			at += 8 * n
		default:
			return nil, fmt.Errorf("kind %d", kind)
		}
		s.end = at
		if at > end {
			return nil, errors.New("cut short")
		}
		found[typ] = s
	}
	return found, nil
}

// text is a value the way reports write it.
func (o *stored) text(s span) string {
	value := o.data[s.start:s.end]
	switch {
	case s.kind == 1:
		return fmt.Sprint(value[0] != 0)
	case s.kind == 2 || s.kind == 5:
		var numbers []string
		for ; len(value) >= 8; value = value[8:] {
			numbers = append(numbers, fmt.Sprintf("0x%x", binary.BigEndian.Uint64(value)))
		}
		return strings.Join(numbers, " ")
	case s.kind == 3 && len(value) == 8: // mechanisms inside a template
		return fmt.Sprintf("0x%x", binary.NativeEndian.Uint64(value))
	}
	return fmt.Sprintf("%x", value)
}

func (o *stored) is(typ uint64, value string) bool {
	s, ok := o.at[typ]
	return ok && o.text(s) == value
}

func (o *stored) nested() map[uint64]span {
	s := o.at[ckaTemplate]
	inner, err := spans(o.data, s.start, s.end)
	if err != nil {
		return nil
	}
	return inner
}

// objects finds the files of the ceremony's keys. Labels of private objects are encrypted, so they are told apart by what
// they may do.
func (b *bench) objects(t *testing.T) map[pkcs11.KeyName]*stored {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(b.beside, "tokens", "*", "*.object"))
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[pkcs11.KeyName]*stored)
	for _, path := range paths {
		if filepath.Base(path) == "token.object" {
			continue
		}
		o := readObject(t, path)
		var name pkcs11.KeyName
		switch {
		case o.is(ckaClass, "0x2") && o.at[ckaModulus].end > 0:
			// The public halves of the two import keys look alike; either will do.
			name = "public import"
		case o.is(ckaClass, "0x2"):
			name = "public log"
		case o.is(ckaClass, "0x4") && o.is(ckaTrusted, "true"):
			name = pkcs11.SealingKey(1)
		case o.is(ckaClass, "0x4"):
			name = pkcs11.StoreKey
		case o.is(ckaClass, "0x3") && o.is(ckaSign, "true"):
			name = pkcs11.LogKey
		case o.is(ckaClass, "0x3"):
			name = pkcs11.ImportResident
			if o.text(o.nested()[ckaToken]) == "false" {
				name = pkcs11.ImportSealed
			}
		}
		if found[name] != nil && name != "public import" {
			t.Fatalf("two objects look like %q", name)
		}
		found[name] = o
	}
	if len(paths) != 9 || len(found) != 7 { // 5 keys, 3 public halves, the token itself
		t.Fatalf("%d files and %d keys in the token folder", len(paths), len(found))
	}
	return found
}

func testAttributes(t *testing.T, b *bench) {
	objects := b.objects(t)
	for name, want := range attributes {
		o := objects[name]
		for typ, value := range want {
			if got := o.text(o.at[typ]); got != value {
				t.Errorf("%s: %s is %s, want %s", name, names[typ], got, value)
			}
		}
	}
	for name, sealed := range map[pkcs11.KeyName]bool{pkcs11.ImportResident: false, pkcs11.ImportSealed: true, pkcs11.SealingKey(1): true} {
		got := objects[name].nested()
		want := template(sealed)
		if len(got) != len(want) {
			t.Errorf("%s: the unwrap template has %d attributes, want %d", name, len(got), len(want))
		}
		for typ, value := range want {
			if s, ok := got[typ]; !ok || objects[name].text(s) != value {
				t.Errorf("%s: the unwrap template says of 0x%x %q, want %q", name, typ, objects[name].text(s), value)
			}
		}
	}
}

// The host weakens one protection of one key, in SoftHSM's own file. The next start refuses the token and names the key and
// the attribute.
func TestWeakKeys(t *testing.T) {
	b, record := held(t)
	refused := func(t *testing.T, o *stored, changed []byte, key pkcs11.KeyName, attribute string) {
		t.Helper()
		if bytes.Equal(o.data, changed) {
			t.Fatal("nothing was changed")
		}
		if err := os.WriteFile(o.path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.WriteFile(o.path, o.data, 0o600); err != nil {
				t.Fatal(err)
			}
		}()
		_, err := record.Verify(t.Context(), "", b.pin(t), false)
		if _, sealing := key.Period(); sealing && attribute == "CKA_TRUSTED" { // which is passed over, and so the one that is listed is missing
			if !errors.Is(err, ErrDifferent) || !errors.Is(err, pkcs11.ErrKeyMissing) || !strings.Contains(err.Error(), string(key)) {
				t.Errorf("%v, want a refusal that says %q is missing", err, key)
			}
			return
		}
		named, ok := errors.AsType[*pkcs11.AttributeError](err)
		if !errors.Is(err, ErrDifferent) || !ok || named.Attribute != attribute || key != "" && named.Key != key {
			t.Errorf("%v, want a refusal that names %s of %q", err, attribute, key)
		}
	}
	objects := b.objects(t)
	for name, want := range attributes {
		o := objects[name]
		for typ := range want {
			s := o.at[typ]
			// With another class, type or owner the token does not find or show the key any more: "missing", below.
			if typ == ckaClass || typ == ckaKeyType || typ == ckaToken || typ == ckaPrivate {
				continue
			}
			changed := bytes.Clone(o.data)
			switch s.kind {
			case 1:
				changed[s.start] ^= 0xff
			default:
				changed[s.start+7] ^= 1
			}
			t.Run(string(name)+" "+names[typ], func(t *testing.T) { refused(t, o, changed, name, names[typ]) })
		}
		if s := o.at[ckaTemplate]; s.end > s.start {
			for typ, inner := range o.nested() {
				changed := bytes.Clone(o.data)
				switch inner.kind {
				case 1:
					changed[inner.start] ^= 0xff
				default:
					changed[inner.start+1] ^= 1
				}
				t.Run(fmt.Sprintf("%s CKA_UNWRAP_TEMPLATE 0x%x", name, typ), func(t *testing.T) { refused(t, o, changed, name, "CKA_UNWRAP_TEMPLATE") })
			}
		}
	}
	for name, typ := range map[pkcs11.KeyName]uint64{"public import": ckaModulus, "public log": ckaECPoint} {
		o := objects[name]
		s := o.at[typ]
		changed := bytes.Clone(o.data)
		changed[s.end-1] ^= 2
		t.Run("another "+string(name)+" key", func(t *testing.T) { refused(t, o, changed, "", "public key") })
	}
	t.Run("a twin", func(t *testing.T) {
		o := objects[pkcs11.StoreKey]
		twin := filepath.Join(filepath.Dir(o.path), "00000000-0000-0000-0000-000000000001.object")
		if err := os.WriteFile(twin, o.data, 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(twin)
		if _, err := record.Verify(t.Context(), "", b.pin(t), false); !errors.Is(err, pkcs11.ErrAttributes) {
			t.Errorf("%v", err)
		}
	})
	for name := range attributes {
		t.Run(string(name)+" missing", func(t *testing.T) {
			o := objects[name]
			if err := os.Remove(o.path); err != nil {
				t.Fatal(err)
			}
			_, err := record.Verify(t.Context(), "", b.pin(t), false)
			if !errors.Is(err, ErrDifferent) || !errors.Is(err, pkcs11.ErrKeyMissing) || !strings.Contains(err.Error(), string(name)) {
				t.Errorf("%v", err)
			}
			if err := os.WriteFile(o.path, o.data, 0o600); err != nil {
				t.Fatal(err)
			}
		})
	}
	if _, err := record.Verify(t.Context(), "", b.pin(t), false); err != nil {
		t.Errorf("put back: %v", err)
	}
}

// TestNoGradeForWeakKeys: a full probe attacks keys of its own, so a token whose serving keys were weakened gets no new grade, and no document says that it has one.
func TestNoGradeForWeakKeys(t *testing.T) {
	b, _ := held(t)
	document, err := os.ReadFile(filepath.Join(b.dir, vaultFile))
	if err != nil {
		t.Fatal(err)
	}
	again := func() error {
		probe := &pkcs11.FullProbe{User: b.pin(t)}
		_, err := (&Reissue{Dir: b.dir, CeremonyKey: b.ceremony.CeremonyKey, Passphrase: []byte(testPassphrase), Probe: probe}).Run(t.Context())
		return err
	}
	for key, typ := range map[pkcs11.KeyName]uint64{pkcs11.ImportResident: ckaModifiable, pkcs11.LogKey: ckaCopyable} {
		o := b.objects(t)[key]
		changed := bytes.Clone(o.data)
		changed[o.at[typ].start] ^= 0xff
		if err := os.WriteFile(o.path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if named, ok := errors.AsType[*pkcs11.AttributeError](again()); !ok || named.Key != key || named.Attribute != names[typ] {
			t.Errorf("%s of %s was weakened: %v", names[typ], key, named)
		}
		if now, err := os.ReadFile(filepath.Join(b.dir, vaultFile)); err != nil || !bytes.Equal(now, document) {
			t.Errorf("a document was signed all the same, %v", err)
		}
		if err := os.WriteFile(o.path, o.data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := again(); err != nil {
		t.Errorf("put back: %v", err)
	}
}
