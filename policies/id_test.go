package policies

import (
	"bytes"
	"encoding/binary"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

func TestIDText(t *testing.T) {
	id := OwnerID{0: 0xab, 31: 0xcd}
	text := id.String()
	if back, err := ParseID[ownerKind](text); err != nil || back != id || len(text) != 64 {
		t.Fatalf("%s came back as %v, %v", text, back, err)
	}
	for _, bad := range []string{
		"", text[1:], text + "0", text + "00", strings.ToUpper(text), "g" + text[1:], " " + text[1:], "0x" + text[2:], text[:63] + "\n", long(64), strings.Repeat("é", 32),
	} {
		if _, err := ParseID[ownerKind](bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: got %v, want ErrMalformed", bad, err)
		}
	}
	if !(OwnerID{}).IsZero() || id.IsZero() {
		t.Error("IsZero is wrong")
	}
	documents, nonces, pseudonyms := map[DocumentID]bool{}, map[Nonce]bool{}, map[Pseudonym]bool{}
	for range 100 {
		documents[NewDocumentID()], nonces[NewNonce()], pseudonyms[NewPseudonym()] = true, true, true
	}
	if len(documents) != 100 || len(nonces) != 100 || len(pseudonyms) != 100 {
		t.Error("two random ids are the same")
	}
}

func TestNonceText(t *testing.T) {
	n := Nonce{0: 0xab, 15: 0xcd}
	var back Nonce
	if err := back.UnmarshalText([]byte(n.String())); err != nil || back != n || n.IsZero() || !(Nonce{}).IsZero() {
		t.Fatalf("came back as %v, %v", back, err)
	}
	var pseudonym Pseudonym
	if err := pseudonym.UnmarshalText([]byte(n.String())); err != nil || pseudonym != Pseudonym(n) || pseudonym.String() != n.String() {
		t.Fatalf("pseudonym came back as %v, %v", pseudonym, err)
	}
	for _, bad := range []string{"", n.String()[2:], n.String() + "00", strings.ToUpper(n.String()), "zz" + n.String()[2:], n.String()[1:]} {
		kept := n
		if err := kept.UnmarshalText([]byte(bad)); !errors.Is(err, ErrMalformed) || kept != n {
			t.Errorf("nonce %q: got %v, want ErrMalformed", bad, err)
		}
		if err := new(Pseudonym).UnmarshalText([]byte(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("pseudonym %q: got %v, want ErrMalformed", bad, err)
		}
	}
}

func TestFieldNames(t *testing.T) {
	for _, good := range []Field{"a", "phone.mobile", "adr/home", "a-b_c.d/0", Field(long(64))} {
		if err := good.Validate(); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for c := range 256 {
		ok := strings.IndexByte("abcdefghijklmnopqrstuvwxyz0123456789._/-", byte(c)) >= 0
		if err := Field([]byte{'a', byte(c)}).Validate(); (err == nil) != ok {
			t.Errorf("character %#x: %v", c, err)
		}
	}
	for _, bad := range []Field{"", Field(long(65)), "Phone", "é", "a b", "a\x00"} {
		if err := bad.Validate(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: got %v, want ErrMalformed", bad, err)
		}
	}
}

func TestEncode(t *testing.T) {
	got := Encode("use", []byte("ab"), nil, U64(258))
	want := []byte("\x00\x10sallyport/v1/use\x00\x02ab\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x01\x02")
	if !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	largest := filled(1<<16-1, 1)
	if fields, err := Split("use", Encode("use", largest), 1); err != nil || !bytes.Equal(fields[0], largest) {
		t.Errorf("the largest field: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a field whose length does not fit was encoded")
		}
	}()
	Encode("use", filled(1<<16, 1))
}

// No two lists of fields encode alike, whatever lies on the borders.
func TestEncodeIsInjective(t *testing.T) {
	seen := map[string]string{}
	for _, c := range []struct {
		use    string
		fields []string
	}{
		{"a", nil}, {"a", []string{""}}, {"a", []string{"", ""}}, {"a", []string{"b"}}, {"ab", nil}, {"ab", []string{""}},
		{"a", []string{"b", "c"}}, {"a", []string{"bc"}}, {"a", []string{"", "bc"}}, {"a", []string{"bc", ""}}, {"a", []string{"\x00\x01b"}}, {"a\x00", []string{"\x00"}},
	} {
		fields := make([][]byte, len(c.fields))
		for i := range fields {
			fields[i] = []byte(c.fields[i])
		}
		key, name := string(Encode(c.use, fields...)), c.use+strconv.Quote(strings.Join(c.fields, "|"))
		if before, ok := seen[key]; ok {
			t.Errorf("%s and %s encode alike", before, name)
		}
		seen[key] = name
		if back, err := Split(c.use, []byte(key), len(fields)); err != nil || len(back) != len(fields) {
			t.Errorf("%s: %v", name, err)
		}
		for _, n := range []int{len(fields) - 1, len(fields) + 1} {
			if n < 0 {
				continue
			}
			if _, err := Split(c.use, []byte(key), n); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s read as %d fields: got %v, want ErrMalformed", name, n, err)
			}
		}
	}
}

// Every code has a text of its own, or it would not pass over the wire.
func TestEveryCodeHasAText(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	texts, values := map[string]Code{}, map[Code]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Names) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Code") {
			return true
		}
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		code := Code(value)
		if values[code] {
			t.Errorf("%s: %q stands for two codes", spec.Names[0].Name, value)
		}
		values[code] = true
		if !code.Valid() {
			t.Errorf("%s has no text", spec.Names[0].Name)
		}
		if other, ok := texts[code.Error()]; ok {
			t.Errorf("%s and %s have the same text", other, code)
		}
		texts[code.Error()] = code
		return true
	})
	if len(values) != len(codeText) || len(values) < 30 {
		t.Errorf("%d codes, %d texts", len(values), len(codeText))
	}
	if Code("made_up").Valid() || !strings.Contains(Code("made_up").Error(), "made_up") {
		t.Error("an unknown code passes for one of ours")
	}
}

func FuzzIDText(f *testing.F) {
	f.Add((OwnerID{1}).String())
	f.Add((Nonce{1}).String())
	f.Add("phone.mobile")
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := ParseID[ownerKind](text); err == nil && id.String() != text {
			t.Errorf("an id with two spellings: %q", text)
		}
		var n Nonce
		if err := n.UnmarshalText([]byte(text)); err == nil && n.String() != text {
			t.Errorf("a nonce with two spellings: %q", text)
		}
		if err := Field(text).Validate(); err == nil && (len(text) > 64 || len(text) == 0) {
			t.Errorf("a field name of %d bytes", len(text))
		}
	})
}

func FuzzDecodeFields(f *testing.F) {
	f.Add(Encode("use", []byte("a"), U64(1)), 2)
	f.Add(binary.BigEndian.AppendUint16(nil, 65535), 0)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		if n < 0 || n > 100 {
			return
		}
		fields, err := Split("use", data, n)
		if err == nil && !bytes.Equal(Encode("use", fields...), data) {
			t.Errorf("an encoding with two spellings: %x", data)
		}
	})
}
