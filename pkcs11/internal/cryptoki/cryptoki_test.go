package cryptoki

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

func load(t *testing.T) (*Module, Session) {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	m, err := Load("/usr/lib/softhsm/libsofthsm2.so", "", false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Finalize() })
	slots, err := m.Slots()
	if err != nil || len(slots) == 0 {
		t.Fatalf("%v %v", slots, err)
	}
	if err := m.InitToken(slots[0], []byte("1234"), "t"); err != nil {
		t.Fatal(err)
	}
	slots, err = m.Slots()
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.OpenSession(slots[0])
	if err != nil {
		t.Fatal(err)
	}
	return m, s
}

// Lengths on which the binding would panic are refused before any call.
func TestLengths(t *testing.T) {
	m, s := load(t)
	before := m.Calls()
	for name, err := range map[string]error{
		"empty point":       second(m.DeriveKey(s, ECDH(nil), 1, nil)),
		"empty wrapped key": second(m.UnwrapKey(s, OAEP(CKM_SHA_1, CKG_MGF1_SHA1), 1, nil, nil)),
		"huge wrapped key":  second(m.UnwrapKey(s, OAEP(CKM_SHA_1, CKG_MGF1_SHA1), 1, make([]byte, maxInput+1), nil)),
		"empty message":     second(m.Sign(s, Plain(CKM_ECDSA), 1, nil)),
		"empty plaintext":   second(m.Encrypt(s, GCM(make([]byte, 12), nil), 1, nil)),
		"empty ciphertext":  second(m.Decrypt(s, GCM(make([]byte, 12), nil), 1, nil)),
		"empty buffer":      second(m.ReadInto(s, 1, CKA_VALUE, nil)),
		"empty PIN":         m.Login(s, CKU_USER, nil),
		"empty new PIN":     m.InitPIN(s, nil),
		"long label":        m.InitToken(0, []byte("1234"), "a label of more than thirty-two bytes"),
	} {
		if !errors.Is(err, ErrLength) {
			t.Errorf("%s: %v", name, err)
		}
	}
	after := m.Calls()
	for name, n := range after {
		if n != before[name] {
			t.Errorf("%s was called", name)
		}
	}
}

// ReadShort answers what Read does, in one call, or nothing.
func TestReadShort(t *testing.T) {
	m, s := load(t)
	data := func(value []byte) Object {
		o, err := m.CreateObject(s, []Attribute{Ulong(CKA_CLASS, CKO_DATA), Bool(CKA_TOKEN, false), Bool(CKA_PRIVATE, false),
			Bytes(CKA_LABEL, []byte("a label")), Bytes(CKA_VALUE, value)})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	types := []uint{CKA_CLASS, CKA_TOKEN, CKA_LABEL, CKA_APPLICATION, CKA_VALUE}
	o := data(make([]byte, 64))
	before := m.Calls()["C_GetAttributeValue"]
	all, err := m.ReadShort(s, o, types)
	if n := m.Calls()["C_GetAttributeValue"] - before; err != nil || n != 1 {
		t.Fatalf("%d calls, %v", n, err)
	}
	for i, typ := range types {
		if one, err := m.Read(s, o, typ); err != nil || !one.Equal(all[i]) {
			t.Errorf("attribute %#x: %v, and alone %v, %v", typ, all[i], one, err)
		}
	}
	if _, err := m.ReadShort(s, data(make([]byte, 65)), types); err == nil {
		t.Error("read 65 bytes into 64")
	}
	if _, err := m.ReadShort(s, o, []uint{CKA_CLASS, CKA_UNWRAP_TEMPLATE}); err != ErrLength {
		t.Errorf("an array: %v", err)
	}
	if _, err := m.ReadShort(s, o, []uint{CKA_CLASS, CKA_MODULUS}); err == nil {
		t.Error("read what a data object does not have")
	}
}

func second[T any](_ T, err error) error { return err }

func TestCalls(t *testing.T) {
	m, s := load(t)
	if _, err := m.Find(s, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Find(s+1000, nil); err != CKR_SESSION_HANDLE_INVALID {
		t.Errorf("a session that is none: %v", err)
	}
	c := m.Calls()
	if c["C_FindObjectsInit"] != 2 || c["C_FindObjects"] != 1 || c["C_FindObjectsFinal"] != 1 || c["C_Initialize"] != 1 || c["C_InitToken"] != 1 {
		t.Errorf("%v", c)
	}
	if _, called := c["C_DeriveKey"]; called {
		t.Error("a function that was not called is listed")
	}
}

// An object handle that does not exist, or a bad mechanism, is an error and not a panic.
func TestWrongHandles(t *testing.T) {
	m, s := load(t)
	for name, err := range map[string]error{
		"read":       second(m.Read(s, 4711, CKA_VALUE)),
		"read array": second(m.Read(s, 4711, CKA_UNWRAP_TEMPLATE)),
		"derive":     second(m.DeriveKey(s, ECDH([]byte{4}), 4711, nil)),
		"destroy":    m.DestroyObject(s, 4711),
		"sign":       second(m.Sign(s, Plain(0x7fffffff), 4711, []byte{1})),
		"generate":   second(m.GenerateKey(s, Plain(0x7fffffff), nil)),
	} {
		if _, ok := err.(CKR); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEqual(t *testing.T) {
	x := Template(CKA_UNWRAP_TEMPLATE, []Attribute{Bool(CKA_SIGN, false), Ulong(CKA_CLASS, 3)})
	for name, c := range map[string]struct {
		a, b Attribute
		want bool
	}{
		"same":           {x, x, true},
		"other order":    {x, Template(CKA_UNWRAP_TEMPLATE, []Attribute{Ulong(CKA_CLASS, 3), Bool(CKA_SIGN, false)}), true},
		"one missing":    {x, Template(CKA_UNWRAP_TEMPLATE, []Attribute{Bool(CKA_SIGN, false)}), false},
		"one twice":      {Template(CKA_UNWRAP_TEMPLATE, []Attribute{Bool(CKA_SIGN, false), Bool(CKA_SIGN, false)}), x, false},
		"one turned":     {x, Template(CKA_UNWRAP_TEMPLATE, []Attribute{Bool(CKA_SIGN, true), Ulong(CKA_CLASS, 3)}), false},
		"other type":     {Bool(CKA_SIGN, true), Bool(CKA_WRAP, true), false},
		"two mechanisms": {Mechanisms(CKA_ALLOWED_MECHANISMS, 1), Mechanisms(CKA_ALLOWED_MECHANISMS, 1, 2), false},
	} {
		if c.a.Equal(c.b) != c.want {
			t.Errorf("%s", name)
		}
	}
	if Bool(CKA_SIGN, true).Name() != "CKA_SIGN" || (Attribute{Type: 0x80000001}).Name() != "CKA 0x80000001" {
		t.Error("names")
	}
}

// A module that changes its mind about a length between two calls makes nobody
// read beyond what was allocated. No real module is known to do so; this one
// is built for the purpose.
func TestArrayThatGrows(t *testing.T) {
	library := filepath.Join(t.TempDir(), "grows.so")
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", library, "testdata/grows.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m, err := Load(library, "", false)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := m.Read(1, 1, CKA_UNWRAP_TEMPLATE); err == nil {
		t.Errorf("accepted: an element of %d bytes", len(a.Array[0].Value))
	}
}

func TestLoadRefuses(t *testing.T) {
	libc, _ := filepath.Glob("/lib/*/libc.so.6")
	for _, path := range append(libc, "/nonexistent.so", "") {
		if _, err := Load(path, "", false); err == nil {
			t.Errorf("%q was loaded", path)
		}
	}
}

// Calls of a module that is alone come one at a time: pkcs11-spy, which writes a call line by line, mixes none. A child makes them, since the spy opens its
// file once in a process.
func TestAlone(t *testing.T) {
	if spy := os.Getenv("TEST_ALONE"); spy != "" {
		callSideBySide(t, spy)
		return
	}
	spies, _ := filepath.Glob("/usr/lib/*/pkcs11-spy.so")
	if len(spies) == 0 {
		t.Fatal("pkcs11-spy.so is not installed (Debian: opensc-pkcs11)")
	}
	dir := t.TempDir()
	conf, trace := filepath.Join(dir, "softhsm2.conf"), filepath.Join(dir, "spy.log")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0], "-test.run=^TestAlone$")
	child.Env = append(os.Environ(), "TEST_ALONE="+spies[0], "SOFTHSM2_CONF="+conf, "PKCS11SPY=/usr/lib/softhsm/libsofthsm2.so", "PKCS11SPY_OUTPUT="+trace)
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	head := regexp.MustCompile(`^\d+: C_`)
	begun, calls := false, 0
	for line := range strings.Lines(string(text)) {
		begins, returns := head.MatchString(line), strings.Contains(line, "Returned:  ")
		if begins && begun || returns && !begun {
			t.Fatalf("call %d: its lines are mixed with those of another", calls)
		}
		if begins {
			begun, calls = true, calls+1
		} else if returns {
			begun = false
		}
	}
	if calls < 8*50*7 {
		t.Errorf("%d calls in the trace", calls)
	}
}

func callSideBySide(t *testing.T, spy string) {
	m, err := Load(spy, "", true)
	if err != nil {
		t.Fatal(err)
	}
	slots, err := m.Slots()
	if err != nil || len(slots) == 0 {
		t.Fatalf("%v %v", slots, err)
	}
	if err := m.InitToken(slots[0], []byte("1234"), "t"); err != nil {
		t.Fatal(err)
	}
	if slots, err = m.Slots(); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				s, err := m.OpenSession(slots[0])
				if err != nil {
					t.Error(err)
				}
				if _, err := m.Find(s, nil); err != nil {
					t.Error(err)
				}
				if _, err := m.Mechanisms(slots[0]); err != nil {
					t.Error(err)
				}
				if _, err := m.Read(s, 4711, CKA_VALUE); err == nil {
					t.Error("read what is not there")
				}
				if err := m.CloseSession(s); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if err := m.Finalize(); err != nil {
		t.Error(err)
	}
}

// Every method that calls the module waits for its turn.
func TestAllWait(t *testing.T) {
	source, err := os.ReadFile("cryptoki.go")
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range strings.Split(string(source), "\nfunc ")[1:] {
		if regexp.MustCompile(`m\.ctx\.|C\.sp_[a-z_]+\(m\.`).MatchString(f) && !strings.Contains(f, "m.call(f") {
			t.Errorf("function %d does not wait: %s", i, strings.SplitN(f, "\n", 2)[0])
		}
	}
}
