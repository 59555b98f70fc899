package envelope

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// testKey is a key that is the same in every run.
func testKey(n byte) *PrivateKey {
	return NewPrivateKey(&[SeedSize]byte{0: n, mldsaSeedSize: n, SeedSize - 1: 0xa5})
}

const mldsaSeedSize = 32

// letter is a document for the tests of this package.
type letter struct {
	Type  string           `json:"type"`
	Text  string           `json:"text"`
	Bytes []byte           `json:"bytes,omitempty"`
	Count uint64           `json:"count,omitzero"`
	Key   SessionPublicKey `json:"key,omitzero"`
}

func (l *letter) DocumentType() string { return l.Type }

func sealLetter(t testing.TB, signer Signer) *Envelope {
	t.Helper()
	e, err := Seal(signer, &letter{Type: "letter", Text: "good news", Bytes: []byte{1, 2, 3, 4}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestSealParseVerifyDecode(t *testing.T) {
	composite, session := testKey(1), NewSessionKey()
	for _, c := range []struct {
		name   string
		signer Signer
		key    Verifier
	}{
		{"composite", composite, composite.Public()},
		{"session", session, session.Public()},
	} {
		t.Run(c.name, func(t *testing.T) {
			sealed := sealLetter(t, c.signer)
			e, err := Parse(sealed.Raw)
			if err != nil {
				t.Fatal(err)
			}
			if e.Type != "letter" || e.Hash != sealed.Hash || !bytes.Equal(e.Raw, sealed.Raw) {
				t.Error("parsing gives another envelope")
			}
			if err := e.Verify(c.key); err != nil {
				t.Fatal(err)
			}
			var l letter
			if err := e.Decode(&l); err != nil || l.Text != "good news" {
				t.Fatalf("decoded %+v, %v", l, err)
			}
			if err := e.Verify(testKey(9).Public()); !errors.Is(err, ErrSignature) {
				t.Errorf("under another composite key: got %v, want ErrSignature", err)
			}
			if err := e.Verify(NewSessionKey().Public()); !errors.Is(err, ErrSignature) {
				t.Errorf("under another session key: got %v, want ErrSignature", err)
			}
		})
	}
}

// The hash is SHA-256 over the PAE: white space and keyid in the envelope do not change it, one byte of the payload does.
func TestHashIsOfThePAE(t *testing.T) {
	e := sealLetter(t, testKey(1))
	var w map[string]any
	if err := json.Unmarshal(e.Raw, &w); err != nil {
		t.Fatal(err)
	}
	w["signatures"].([]any)[0].(map[string]any)["keyid"] = "somebody else"
	raw, err := json.MarshalIndent(w, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	other, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if other.Hash != e.Hash {
		t.Error("white space and keyid change the hash")
	}
	if err := other.Verify(testKey(1).Public()); err != nil {
		t.Errorf("keyid decides something: %v", err)
	}
	changed, err := Parse(wire(t, "application/vnd.sallyport.letter.v1+json", append(bytes.Clone(e.Payload), ' '), e.sig))
	if err != nil {
		t.Fatal(err)
	}
	if changed.Hash == e.Hash || changed.Verify(testKey(1).Public()) == nil {
		t.Error("white space within the payload is not covered")
	}
}

// wire makes the JSON of an envelope with one signature.
func wire(t testing.TB, payloadType string, payload, sig []byte) []byte {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"payloadType": payloadType, "payload": payload, "signatures": []any{map[string]any{"sig": sig}}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestTamperingIsRefused(t *testing.T) {
	composite, session := testKey(1), NewSessionKey()
	for _, c := range []struct {
		name   string
		signer Signer
		key    Verifier
	}{
		{"composite", composite, composite.Public()},
		{"session", session, session.Public()},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := sealLetter(t, c.signer)
			payloadType := typePrefix + e.Type + typeSuffix
			check := func(what string, raw []byte) {
				other, err := Parse(raw)
				if err == nil {
					err = other.Verify(c.key)
				}
				if !errors.Is(err, ErrSignature) && !errors.Is(err, ErrMalformed) {
					t.Fatalf("%s: got %v, want a refusal", what, err)
				}
			}
			for i := range e.Payload {
				changed := bytes.Clone(e.Payload)
				changed[i] ^= 1
				check(fmt.Sprintf("payload byte %d", i), wire(t, payloadType, changed, e.sig))
			}
			for i := range e.sig {
				changed := bytes.Clone(e.sig)
				changed[i] ^= 1 << (i % 8)
				check(fmt.Sprintf("signature byte %d", i), wire(t, payloadType, e.Payload, changed))
			}
			for i := range payloadType {
				changed := []byte(payloadType)
				changed[i] ^= 1
				check(fmt.Sprintf("type byte %d", i), wire(t, string(changed), e.Payload, e.sig))
			}
			check("another type", wire(t, typePrefix+"grant"+typeSuffix, e.Payload, e.sig))
			check("payload cut", wire(t, payloadType, e.Payload[:len(e.Payload)-1], e.sig))
			check("signature cut", wire(t, payloadType, e.Payload, e.sig[:len(e.sig)-1]))
			check("signature longer", wire(t, payloadType, e.Payload, append(bytes.Clone(e.sig), 0)))
			check("no signature", wire(t, payloadType, e.Payload, nil))
		})
	}
}

// A signature binds the type twice over: in the PAE and, for composite keys, in the context.
func TestCompositeContextIsTheType(t *testing.T) {
	key := testKey(1)
	payload := []byte(`{"type":"letter","text":"x"}`)
	pae := dsse.PAE(typePrefix+"letter"+typeSuffix, payload)
	for _, c := range []struct {
		context string
		ok      bool
	}{
		{"sallyport/v1/letter", true}, {"sallyport/v1/grant", false}, {"sallyport/v1/", false}, {"letter", false}, {"", false},
	} {
		sig, err := key.sign(c.context, pae)
		if err != nil {
			t.Fatal(err)
		}
		e, err := Parse(wire(t, typePrefix+"letter"+typeSuffix, payload, sig))
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Verify(key.Public()); (err == nil) != c.ok {
			t.Errorf("context %q: %v", c.context, err)
		}
	}
}

func TestParseStrictness(t *testing.T) {
	const (
		ptype = `"payloadType":"application/vnd.sallyport.letter.v1+json"`
		load  = `"payload":"e30="`
		sigs  = `"signatures":[{"keyid":"k","sig":"AAAA"}]`
	)
	if _, err := Parse([]byte("{" + ptype + "," + load + "," + sigs + "}")); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for _, c := range []struct{ name, raw string }{
		{"empty", ``},
		{"null", `null`},
		{"array", `[]`},
		{"string", `"x"`},
		{"cut", "{" + ptype + "," + load + "," + sigs},
		{"unknown member", "{" + ptype + "," + load + "," + sigs + `,"more":1}`},
		{"unknown member in signature", "{" + ptype + "," + load + `,"signatures":[{"keyid":"k","sig":"AAAA","alg":"none"}]}`},
		{"member twice", "{" + ptype + "," + load + "," + load + "," + sigs + "}"},
		{"member twice, escaped", "{" + ptype + "," + load + `,"p\u0061yload":"e30=",` + sigs + "}"},
		{"sig twice", "{" + ptype + "," + load + `,"signatures":[{"sig":"AAAA","sig":"AAAA"}]}`},
		{"other case", "{" + ptype + `,"Payload":"e30=",` + sigs + "}"},
		{"other case besides", "{" + ptype + "," + load + `,"PAYLOAD":"e30=",` + sigs + "}"},
		{"trailing value", "{" + ptype + "," + load + "," + sigs + "}{}"},
		{"trailing byte", "{" + ptype + "," + load + "," + sigs + "}\x00"},
		{"trailing comma", "{" + ptype + "," + load + "," + sigs + ",}"},
		{"comment", "{" + ptype + "," + load + "," + sigs + "}//"},
		{"byte order mark", "\xef\xbb\xbf{" + ptype + "," + load + "," + sigs + "}"},
		{"invalid UTF-8 in keyid", "{" + ptype + "," + load + `,"signatures":[{"keyid":"` + "\xff" + `","sig":"AAAA"}]}`},
		{"lone surrogate in keyid", "{" + ptype + "," + load + `,"signatures":[{"keyid":"\ud800","sig":"AAAA"}]}`},
		{"invalid UTF-8 in a name", "{" + ptype + "," + load + "," + sigs + `,"` + "\xff" + `":1}`},
		{"no signature", "{" + ptype + "," + load + `,"signatures":[]}`},
		{"null signatures", "{" + ptype + "," + load + `,"signatures":null}`},
		{"no signatures member", "{" + ptype + "," + load + "}"},
		{"two signatures", "{" + ptype + "," + load + `,"signatures":[{"sig":"AAAA"},{"sig":"AAAA"}]}`},
		{"signatures not a list", "{" + ptype + "," + load + `,"signatures":{"sig":"AAAA"}}`},
		{"no payload", "{" + ptype + "," + sigs + "}"},
		{"empty payload", "{" + ptype + `,"payload":"",` + sigs + "}"},
		{"null payload", "{" + ptype + `,"payload":null,` + sigs + "}"},
		{"payload as list", "{" + ptype + `,"payload":[123,125],` + sigs + "}"},
		{"payload as object", "{" + ptype + `,"payload":{},` + sigs + "}"},
		{"base64 without padding", "{" + ptype + `,"payload":"e30",` + sigs + "}"},
		{"base64 of the URL alphabet", "{" + ptype + `,"payload":"e3-_",` + sigs + "}"},
		{"base64 with stray bits", "{" + ptype + `,"payload":"e31=",` + sigs + "}"},
		{"base64 with a line break", "{" + ptype + `,"payload":"e3\n0=",` + sigs + "}"},
		{"base64 with a final line break", "{" + ptype + `,"payload":"e30=\r\n",` + sigs + "}"},
		{"base64 with a space", "{" + ptype + `,"payload":"e30= ",` + sigs + "}"},
		{"stray bits in sig", "{" + ptype + "," + load + `,"signatures":[{"sig":"AAB="}]}`},
		{"no payload type", "{" + load + "," + sigs + "}"},
		{"foreign payload type", `{"payloadType":"application/vnd.in-toto+json",` + load + "," + sigs + "}"},
		{"other version", `{"payloadType":"application/vnd.sallyport.letter.v2+json",` + load + "," + sigs + "}"},
		{"empty type", `{"payloadType":"application/vnd.sallyport..v1+json",` + load + "," + sigs + "}"},
		{"type prefix and suffix overlapping", `{"payloadType":"application/vnd.sallyport.v1+json",` + load + "," + sigs + "}"},
		{"type in capitals", `{"payloadType":"Application/vnd.sallyport.letter.v1+json",` + load + "," + sigs + "}"},
		{"too large", "{" + ptype + "," + load + "," + sigs + "}" + strings.Repeat(" ", MaxSize)},
	} {
		if _, err := Parse([]byte(c.raw)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", c.name, err)
		}
	}
}

// The type goes into errors and logs as it is, so it is a short word and nothing else.
func TestParseTypeIsAWord(t *testing.T) {
	for _, docType := range []string{strings.Repeat("x", 33), strings.Repeat("x", 300), strings.Repeat("x", MaxSize/2), `a\nb`, `\u001b[2J`, "A", "a b", "a.b", "ä", "1"} {
		_, err := Parse([]byte(`{"payloadType":"application/vnd.sallyport.` + docType + `.v1+json","payload":"e30=","signatures":[{"sig":"AAAA"}]}`))
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%.20q: got %v, want ErrMalformed", docType, err)
		} else if len(err.Error()) > 200 {
			t.Errorf("%.20q: an error of %d bytes", docType, len(err.Error()))
		}
	}
	if _, err := Parse([]byte(`{"payloadType":"` + strings.Repeat("y", MaxSize/2) + `","payload":"e30=","signatures":[{"sig":"AAAA"}]}`)); !errors.Is(err, ErrMalformed) || len(err.Error()) > 200 {
		t.Error("a long foreign payload type is repeated in the error")
	}
}

func TestDecodeStrictness(t *testing.T) {
	key, err := NewSessionKey().Public().MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	good := string(key)
	for _, c := range []struct {
		name, payload string
		ok            bool
	}{
		{"plain", `{"type":"letter","text":"x"}`, true},
		{"order and white space", " {\n\"text\":\"x\", \"type\":\"letter\"}\n", true},
		{"all members", `{"type":"letter","text":"x","bytes":"AQ==","count":7,"key":"` + good + `"}`, true},
		{"type mismatch", `{"type":"grant","text":"x"}`, false},
		{"no type", `{"text":"x"}`, false},
		{"type in capitals", `{"type":"Letter","text":"x"}`, false},
		{"unknown", `{"type":"letter","text":"x","y":1}`, false},
		{"twice", `{"type":"letter","text":"x","text":"y"}`, false},
		{"type twice", `{"type":"letter","type":"letter","text":"x"}`, false},
		{"other case", `{"type":"letter","Text":"x"}`, false},
		{"trailing", `{"type":"letter","text":"x"} {}`, false},
		{"invalid UTF-8", `{"type":"letter","text":"` + "\xc3\x28" + `"}`, false},
		{"surrogate", `{"type":"letter","text":"\udfff"}`, false},
		{"control character", "{\"type\":\"letter\",\"text\":\"a\nb\"}", false},
		{"null", `null`, false},
		{"list", `["letter"]`, false},
		{"number for text", `{"type":"letter","text":1}`, false},
		{"text for number", `{"type":"letter","text":"x","count":"1"}`, false},
		{"fraction", `{"type":"letter","text":"x","count":1.0}`, false},
		{"exponent", `{"type":"letter","text":"x","count":1e3}`, false},
		{"negative", `{"type":"letter","text":"x","count":-1}`, false},
		{"leading zero", `{"type":"letter","text":"x","count":01}`, false},
		{"number over 64 bits", `{"type":"letter","text":"x","count":18446744073709551616}`, false},
		{"bytes with stray bits", `{"type":"letter","text":"x","bytes":"AR=="}`, false},
		{"bytes unpadded", `{"type":"letter","text":"x","bytes":"AQ"}`, false},
		{"bytes with a line break", `{"type":"letter","text":"x","bytes":"AQ\n=="}`, false},
		{"bytes as a number", `{"type":"letter","text":"x","bytes":1}`, false},
		{"key with a line break", `{"type":"letter","text":"x","key":"` + good[:4] + `\n` + good[4:] + `"}`, false},
		{"key too short", `{"type":"letter","text":"x","key":"AAAA"}`, false},
		{"key empty", `{"type":"letter","text":"x","key":""}`, false},
		{"key with stray bits", `{"type":"letter","text":"x","key":"` + good[:42] + next(good[42]) + `="}`, false},
	} {
		e := &Envelope{Type: "letter", Payload: []byte(c.payload)}
		err := e.Decode(new(letter))
		if c.ok && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if !c.ok && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", c.name, err)
		}
	}
}

// next is the character of the base64 alphabet after c: from one whose unused bits are zero to one whose are not.
func next(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	return string(alphabet[strings.IndexByte(alphabet, c)+1])
}

func TestBytesOfADocument(t *testing.T) {
	for _, c := range []struct {
		text string
		want []byte
	}{{`"AQID"`, []byte{1, 2, 3}}, {`""`, []byte{}}, {`null`, nil}, {`"\u0041Q=="`, []byte{1}}} {
		var l letter
		if err := Decode([]byte(`{"bytes":`+c.text+`}`), &l); err != nil || !bytes.Equal(l.Bytes, c.want) {
			t.Errorf("%s: %v, %v", c.text, l.Bytes, err)
		}
	}
}

func TestSealRefusesWhatParseRefuses(t *testing.T) {
	if _, err := Seal(testKey(1), &letter{Text: "no type"}); !errors.Is(err, ErrMalformed) {
		t.Errorf("no type: got %v, want ErrMalformed", err)
	}
	if _, err := Seal(testKey(1), &letter{Type: "letter", Text: strings.Repeat("x", MaxSize)}); !errors.Is(err, ErrMalformed) {
		t.Errorf("too large: got %v, want ErrMalformed", err)
	}
	if _, err := Seal(testKey(1), &letter{Type: "letter", Text: "\xff"}); err == nil {
		t.Error("invalid UTF-8 was signed")
	}
	key := testKey(1)
	key.Zero()
	if _, err := Seal(key, &letter{Type: "letter"}); !errors.Is(err, ErrKey) {
		t.Errorf("zeroed key: got %v, want ErrKey", err)
	}
}

// A private key never shows, however it is printed, pointer or value, alone or inside something.
func TestPrivateKeysPrintAsRedacted(t *testing.T) {
	composite := NewPrivateKey((*[SeedSize]byte)(bytes.Repeat([]byte{0xc5}, SeedSize)))
	session := &SessionKey{private: bytes.Repeat([]byte{0xc5}, 64)}
	type holder struct {
		Pointer any
		Value   any
	}
	for name, v := range map[string]any{
		"*PrivateKey": composite, "PrivateKey": *composite, "*SessionKey": session, "SessionKey": *session,
		"inside": holder{composite, *composite}, "inside, session": &holder{session, *session},
		"list": []any{composite, *session}, "map": map[string]any{"k": *composite, "s": *session},
	} {
		var outputs []string
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d", "%o", "%08b"} {
			outputs = append(outputs, fmt.Sprintf(verb, v))
		}
		outputs = append(outputs, fmt.Sprint(v), fmt.Errorf("key %v", v).Error())
		var logged bytes.Buffer
		// Without the time, whose digits may be anything.
		timeless := &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}
		slog.New(slog.NewTextHandler(&logged, timeless)).Info("key", "key", v)
		slog.New(slog.NewJSONHandler(&logged, timeless)).Info("key", "key", v)
		if encoded, err := json.Marshal(v); err == nil {
			outputs = append(outputs, string(encoded))
		}
		outputs = append(outputs, logged.String())
		for _, out := range outputs {
			for _, leak := range []string{"197", "c5c5", "C5C5", "c5, ", "xc5", "305", "11000101", "Å", base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xc5}, 6))} {
				if strings.Contains(out, leak) {
					t.Errorf("%s shows %q in %.80q", name, leak, out)
				}
			}
			if seed := hex.EncodeToString(composite.ed25519[32:40]); strings.Contains(out, seed) {
				t.Errorf("%s shows the key in %.80q", name, out)
			}
		}
	}
	for _, v := range []any{composite, *composite, session, *session} {
		if got := fmt.Sprintf("%+v", v); !strings.HasSuffix(got, "(redacted)") {
			t.Errorf("%T prints as %q", v, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	e, err := Seal(testKey(1), &letter{Type: "letter", Text: "good news"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Raw)
	f.Add(sealLetter(f, NewSessionKey()).Raw)
	f.Add([]byte(`{"payloadType":"application/vnd.sallyport.letter.v1+json","payload":"e30=","signatures":[{"sig":"AAAA"}]}`))
	f.Add([]byte(`{"payloadType":"application/vnd.sallyport.letter.v1+json","payload":"e31=","signatures":[{"sig":null}]}`))
	f.Add([]byte(`null`))
	key := testKey(1).Public()
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Parse(raw)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
			return
		}
		if got.Type == "" || len(got.Payload) == 0 || !bytes.Equal(got.Raw, raw) {
			t.Errorf("parsed into %+v", got)
		}
		if got.Verify(key) == nil && got.Hash != e.Hash {
			t.Error("a forged envelope verifies")
		}
		if err := got.Decode(new(letter)); err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("decoding: got %v, want ErrMalformed", err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"type":"letter","text":"x"}`, `{"type":"letter","text":"x","bytes":"AQ==","count":7}`, `{"type":"letter","bytes":"AR=="}`,
		`{"type":"letter","text":"\ud83d\ude00"}`, `{"a":{"b":[1,2,{"c":null}]}}`, `null`, `{"count":1e400}`, "\xff", `{"key":"AAAA"}`,
	} {
		f.Add([]byte(seed))
	}
	key := NewSessionKey()
	f.Fuzz(func(t *testing.T, data []byte) {
		var l letter
		if err := Decode(data, &l); err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
			return
		}
		e, err := Seal(key, &l)
		if l.Type != "letter" { // a document's own check refuses it
			return
		}
		if err != nil {
			if len(data) < MaxSize/4 {
				t.Errorf("what was decoded cannot be encoded: %v", err)
			}
			return
		}
		var again letter
		if err := e.Decode(&again); err != nil || again.Text != l.Text || again.Count != l.Count || again.Key != l.Key || !bytes.Equal(again.Bytes, l.Bytes) {
			t.Errorf("%+v became %+v: %v", l, again, err)
		}
	})
}
