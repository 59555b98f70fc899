package pkcs11

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/go-json-experiment/json"
)

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendFrame(nil, frameDerive, 7, []byte("body")))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 1})
	f.Add([]byte{0, 0, 0, 4, 1, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, id, body, err := readFrame(bytes.NewReader(b), maxRequest)
		if err != nil {
			return
		}
		if again := appendFrame(nil, kind, id, body); !bytes.Equal(again, b[:len(again)]) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

func FuzzUnpackRequests(f *testing.F) {
	f.Add([]byte{})
	f.Add(packRequests([]DeriveRequest{{Key: KeyID{1}, Point: generator}, {}}))
	f.Add(packRequests([]DeriveRequest{{Key: KeyID{1}, Sealed: SealedKey{Period: 7, Blob: bytes.Repeat([]byte{3}, 80)}}, {},
		{Sealed: SealedKey{Period: 1<<32 - 1, Blob: make([]byte, maxBlob)}}}))
	f.Add(packRequests([]DeriveRequest{{Sealed: SealedKey{Blob: make([]byte, maxBlob+1)}}}))
	f.Add(packRequests([]DeriveRequest{{Sealed: SealedKey{Blob: make([]byte, 80)}}})[:150])
	f.Add([]byte{0, 0})
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		requests, err := unpackRequests(b)
		if err != nil {
			return
		}
		if again := packRequests(requests); !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
		for _, r := range requests {
			if n := len(r.Sealed.Blob); n > maxBlob || n == 0 && r.Sealed.Period != 0 {
				t.Errorf("period %d, %d bytes", r.Sealed.Period, n)
			}
		}
	})
}

// What a worker answers to a derive is of one length, also with sealed keys.
func TestFramesHoldSealedKeys(t *testing.T) {
	requests := make([]DeriveRequest, maxDerives)
	for i := range requests {
		requests[i] = DeriveRequest{Key: KeyID{byte(i)}, Point: generator, Sealed: SealedKey{Period: uint32(i), Blob: bytes.Repeat([]byte{byte(i)}, i*8)}}
	}
	requests[0].Sealed = SealedKey{}
	requests[63].Sealed.Blob = make([]byte, maxBlob)
	b := packRequests(requests)
	if len(b) > maxRequest {
		t.Errorf("%d bytes", len(b))
	}
	got, err := unpackRequests(b)
	if err != nil || !reflect.DeepEqual(got, requests) {
		t.Errorf("%v, or another request", err)
	}
	for i := range b {
		if _, err := unpackRequests(b[:i]); err == nil {
			t.Fatalf("cut at %d and accepted", i)
		}
	}
	if _, err := unpackRequests(append(b, 0)); err == nil {
		t.Error("a byte more and accepted")
	}
}

func FuzzUnpackResults(f *testing.F) {
	f.Add(1, packResults([]DeriveResult{{X: [32]byte{1}}}))
	f.Add(2, packResults([]DeriveResult{{Err: &Error{Op: "x", CKR: 5, Kind: ErrBadInput}}, {Err: errors.New("other")}}))
	f.Add(0, []byte{})
	f.Add(1, bytes.Repeat([]byte{0xff}, deriveResultSize))
	f.Fuzz(func(t *testing.T, n int, b []byte) {
		if n < 0 || n > maxDerives {
			return
		}
		results := make([]DeriveResult, n)
		if unpackResults(b, results) != nil {
			return
		}
		for _, r := range results {
			if r.Err != nil && r.X != [32]byte{} {
				t.Error("an error with a value")
			}
		}
	})
}

func FuzzUnpackConfig(f *testing.F) {
	b, err := packConfig(workerConfig{Profile: Profile{Name: "x"}, Threads: 1}, pin(userPIN))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, _, err := unpackConfig(b); err == nil {
			_ = c.Profile.Validate()
		}
	})
}

func FuzzUnpackState(f *testing.F) {
	f.Add(packState(1, []byte("state")))
	f.Add(packState(1<<63, nil))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if version, state, ok := unpackState(b); ok && !bytes.Equal(packState(version, state), b) {
			t.Errorf("%x does not come back", b)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"fault":{"kind":1,"op":"deriving","ckr":5}}`))
	f.Add([]byte(`{"fault":{"kind":-1}}`))
	f.Add([]byte(`{"fault":{"kind":99}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r reply
		if json.Unmarshal(b, &r) == nil {
			if err := r.Fault.err(); err != nil {
				_ = err.Error()
			}
		}
	})
}

// The kinds and data of errors survive the way to the parent.
func TestFaultsSurviveTheWire(t *testing.T) {
	for _, kind := range kinds[1:] {
		for _, err := range []error{kind, &Error{Op: "x", CKR: 7, Kind: kind}, fmt.Errorf("outer: %w", &Error{Op: "x", Kind: kind})} {
			b, e := json.Marshal(faultOf(err))
			if e != nil {
				t.Fatal(e)
			}
			var f wireFault
			if e := json.Unmarshal(b, &f); e != nil {
				t.Fatal(e)
			}
			if got := f.err(); !errors.Is(got, kind) {
				t.Errorf("%v became %v", err, got)
			}
		}
	}
	in := &AttributeError{Key: LogKey, Attribute: "CKA_WRAP", Want: "false", Got: "true"}
	if out, ok := errors.AsType[*AttributeError](faultOf(fmt.Errorf("outer: %w", in)).err()); !ok || *out != *in {
		t.Errorf("%v", out)
	}
	if got := faultOf(&Error{Op: "deriving", CKR: 5, Kind: ErrBadInput}).err().Error(); got != "deriving: bad input (CKR 0x5)" {
		t.Errorf("message became %q", got)
	}
	if !errors.Is(faultOf(errors.New("unheard of")).err(), ErrTokenBroken) {
		t.Error("an unknown error is not the worst")
	}
}
