package api

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"runtime"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

func someCalls() []Call {
	full := CallItem{Grant: policies.DocumentID{1}, Head: policies.Hash{2}, Leaf: []byte("leaf"), Point: [65]byte{4, 5}, Proof: policies.Proof{
		Index: 1 << 40, Path: []policies.Hash{{6}, {7}, {8}},
	}}
	return []Call{
		{Request: []byte("{}"), Items: []CallItem{full, {Leaf: []byte{}, Proof: policies.Proof{Path: []policies.Hash{}}}}},
		{Request: []byte{}, Items: []CallItem{}},
		{Request: bytes.Repeat([]byte{9}, 70_000), Items: []CallItem{full}},
	}
}

func someReplies() []Reply {
	return []Reply{
		{Outcomes: []policies.Code{policies.CodeReleased, policies.CodeUnchanged, ""}, Sealed: []byte("sealed")},
		{Code: policies.CodeReplay, Outcomes: []policies.Code{}, Sealed: []byte{}},
		{Outcomes: []policies.Code{policies.CodeRevoked}, Sealed: bytes.Repeat([]byte{9}, 70_000)},
	}
}

func TestCallsInverse(t *testing.T) {
	for _, calls := range [][]Call{someCalls(), {}, someCalls()[:1]} {
		data := AppendCalls([]byte("before"), calls)
		data, ok := bytes.CutPrefix(data, []byte("before"))
		if !ok {
			t.Fatal("AppendCalls does not append")
		}
		back, err := ParseCalls(data)
		if err != nil || !reflect.DeepEqual(back, calls) {
			t.Fatalf("came back as %+v, %v", back, err)
		}
	}
}

func TestRepliesInverse(t *testing.T) {
	for _, replies := range [][]Reply{someReplies(), {}, someReplies()[1:2]} {
		data := AppendReplies([]byte("before"), replies)
		data, ok := bytes.CutPrefix(data, []byte("before"))
		if !ok {
			t.Fatal("AppendReplies does not append")
		}
		back, err := ParseReplies(data)
		if err != nil || !reflect.DeepEqual(back, replies) {
			t.Fatalf("came back as %+v, %v", back, err)
		}
	}
}

func TestTruncations(t *testing.T) {
	calls, replies := AppendCalls(nil, someCalls()[:1]), AppendReplies(nil, someReplies()[:2])
	for n := range calls {
		if _, err := ParseCalls(calls[:n]); !errors.Is(err, policies.ErrMalformed) {
			t.Fatalf("calls cut to %d bytes: got %v, want ErrMalformed", n, err)
		}
	}
	for n := range replies {
		if _, err := ParseReplies(replies[:n]); !errors.Is(err, policies.ErrMalformed) {
			t.Fatalf("replies cut to %d bytes: got %v, want ErrMalformed", n, err)
		}
	}
	if _, err := ParseCalls(append(calls, 0)); !errors.Is(err, policies.ErrMalformed) {
		t.Errorf("calls with a byte more: got %v, want ErrMalformed", err)
	}
	if _, err := ParseReplies(append(replies, 0)); !errors.Is(err, policies.ErrMalformed) {
		t.Errorf("replies with a byte more: got %v, want ErrMalformed", err)
	}
}

// Lengths that promise what is not there are refused, and no few bytes make the parser take much memory.
func TestBounds(t *testing.T) {
	u32, u16 := binary.BigEndian.AppendUint32, binary.BigEndian.AppendUint16
	full := AppendCalls(nil, make([]Call, MaxCalls))
	if calls, err := ParseCalls(full); err != nil || len(calls) != MaxCalls {
		t.Errorf("%d calls: %v", len(calls), err)
	}
	most := AppendCalls(nil, []Call{{Items: make([]CallItem, policies.MaxReadItems)}})
	if calls, err := ParseCalls(most); err != nil || len(calls[0].Items) != policies.MaxReadItems {
		t.Errorf("a call of %d items: %v", policies.MaxReadItems, err)
	}
	for name, data := range map[string][]byte{
		"too many calls":             AppendCalls(nil, make([]Call, MaxCalls+1)),
		"too many items":             AppendCalls(nil, []Call{{Items: make([]CallItem, policies.MaxReadItems+1)}}),
		"2^32-1 calls":               u32(nil, 1<<32-1),
		"a request of 4 GiB":         u32(u32(nil, 1), 1<<32-1),
		"items that are not there":   u16(u32(u32(nil, 1), 0), uint16(policies.MaxReadItems)),
		"a leaf that is not there":   append(append(u16(u32(u32(nil, 1), 0), 1), make([]byte, 64)...), 0xff, 0xff),
		"hashes that are not there":  append(append(u16(u32(u32(nil, 1), 0), 1), make([]byte, 64+2+65+8)...), 0xff),
		"nothing at all":             nil,
		"three bytes":                {0, 0, 0},
		"many calls, no bytes after": u32(nil, MaxCalls),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := ParseCalls(data)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
		if taken := after.TotalAlloc - before.TotalAlloc; len(data) < 1000 && taken > 1<<20 {
			t.Errorf("%s: %d bytes of memory for %d bytes", name, taken, len(data))
		}
	}
	for name, data := range map[string][]byte{
		"too many replies":            AppendReplies(nil, make([]Reply, MaxCalls+1)),
		"too many outcomes":           AppendReplies(nil, []Reply{{Outcomes: make([]policies.Code, policies.MaxReadItems+1)}}),
		"2^32-1 replies":              u32(nil, 1<<32-1),
		"a code that is not there":    append(u32(nil, 1), 0xff),
		"outcomes that are not there": u16(append(u32(nil, 1), 0), uint16(policies.MaxReadItems)),
		"a sealed answer of 4 GiB":    u32(u16(append(u32(nil, 1), 0), 0), 1<<32-1),
	} {
		if _, err := ParseReplies(data); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

// What is parsed never lets a holder grow into the bytes that follow it.
func TestParsedSlicesAreCapped(t *testing.T) {
	data := AppendCalls(nil, someCalls())
	before := bytes.Clone(data)
	for _, c := range must(ParseCalls(data)) {
		_ = append(c.Request, 'x')
		for _, it := range c.Items {
			_ = append(it.Leaf, 'x')
		}
	}
	replies := AppendReplies(nil, someReplies())
	repliesBefore := bytes.Clone(replies)
	for _, r := range must(ParseReplies(replies)) {
		_ = append(r.Sealed, 'x')
	}
	if !bytes.Equal(data, before) || !bytes.Equal(replies, repliesBefore) {
		t.Error("appending to a parsed slice overwrote its neighbour")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestSubmissionStrictness(t *testing.T) {
	good := `{"envelope":{"a":1},"keys":[{"field":"phone.mobile","author":"` + (policies.AuthorID{1}).String() + `","token":"0123","sealed":"AQ=="}]}`
	var s Submission
	if err := envelope.Decode([]byte(good), &s); err != nil {
		t.Fatal(err)
	}
	if back := must(json.Marshal(s)); string(back) != good {
		t.Errorf("came back as %s", back)
	}
	for name, text := range map[string]string{
		"unknown member": `{"envelope":{},"more":1}`, "twice": `{"envelope":{},"envelope":{}}`, "bad base64": `{"envelope":{},"keys":[{"sealed":"AR=="}]}`,
		"trailing": `{"envelope":{}} 1`, "short author": `{"envelope":{},"keys":[{"author":"00"}]}`, "twice within": `{"envelope":{"a":1,"a":1}}`,
	} {
		if err := envelope.Decode([]byte(text), new(Submission)); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func FuzzParseCalls(f *testing.F) {
	f.Add(AppendCalls(nil, someCalls()[:2]))
	f.Add(AppendCalls(nil, nil))
	f.Add([]byte{0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		calls, err := ParseCalls(data)
		if err != nil {
			if !errors.Is(err, policies.ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
			return
		}
		if !bytes.Equal(AppendCalls(nil, calls), data) {
			t.Errorf("calls with two spellings: %x", data)
		}
	})
}

func FuzzParseReplies(f *testing.F) {
	f.Add(AppendReplies(nil, someReplies()[:2]))
	f.Add(AppendReplies(nil, nil))
	f.Add([]byte{0, 0, 0, 1, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		replies, err := ParseReplies(data)
		if err != nil {
			if !errors.Is(err, policies.ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
			return
		}
		if !bytes.Equal(AppendReplies(nil, replies), data) {
			t.Errorf("replies with two spellings: %x", data)
		}
	})
}
