package hashicorp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
)

const kv = `{"request_id":"x","data":{"metadata":{"version":3,"deletion_time":""},"data":{"other":"no","pin":"12\u0033\"4","number":1234}},"auth":null}`

func TestAnswer(t *testing.T) {
	a := answer(kv)
	pin, err := a.secret("data", "data", "pin")
	if err != nil || string(pin) != `123"4` {
		t.Errorf("%q, %v", pin, err)
	}
	var version int
	if err := a.public(&version, "data", "metadata", "version"); err != nil || version != 3 {
		t.Errorf("version %d, %v", version, err)
	}
	for field, kind := range map[string]error{"none": ErrField, "number": ErrField} {
		if _, err := a.secret("data", "data", field); !errors.Is(err, kind) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for text, kind := range map[string]error{
		``: ErrAnswer, `{`: ErrAnswer, `{"data":{"data":{"pin":"1`: ErrAnswer, `nonsense 73519`: ErrAnswer,
		`[]`: ErrField, `{"data":null}`: ErrField, `{"data":{"data":null}}`: ErrField, `{"data":{"data":{"pin":null}}}`: ErrField,
		`{"data":{"data":{"pin":""}}}`: ErrField, `{"data":{"data":{"pin":"1\n2"}}}`: ErrField, `{"data":{"data":{"pin":"1\u00002"}}}`: ErrField,
		`{"data":{"data":{"pin":{"pin":"73519"}}}}`:                     ErrField,
		`{"data":{"data":{"pin":"` + strings.Repeat("7", 1025) + `"}}}`: ErrField,
	} {
		if pin, err := answer(text).secret("data", "data", "pin"); !errors.Is(err, kind) || strings.Contains(err.Error(), "73519") {
			t.Errorf("%s: %q, %v", text, pin, err)
		}
	}
}

// What is found is a part of the answer's own memory, so that zeroing the answer ends it; what is given out is not.
func TestAnswerZero(t *testing.T) {
	a := answer(kv)
	value, err := a.member("data", "data", "pin")
	if err != nil {
		t.Fatal(err)
	}
	pin, err := a.secret("data", "data", "pin")
	if err != nil {
		t.Fatal(err)
	}
	a.Zero()
	if !bytes.Equal(value, make([]byte, len(value))) {
		t.Errorf("a copy of the PIN is left: %q", value)
	}
	if string(pin) != `123"4` {
		t.Errorf("the PIN itself is gone: %q", pin)
	}
}

func TestReadAnswer(t *testing.T) {
	response := func(body io.Reader) *api.Response {
		return &api.Response{Response: &http.Response{Body: io.NopCloser(body)}}
	}
	if a, err := readAnswer(response(strings.NewReader(kv))); err != nil || string(a) != kv {
		t.Errorf("%q, %v", a, err)
	}
	if _, err := readAnswer(response(bytes.NewReader(make([]byte, maxAnswer+1)))); !errors.Is(err, ErrAnswer) {
		t.Errorf("%v", err)
	}
	if _, err := readAnswer(response(io.MultiReader(strings.NewReader(kv), broken{}))); !errors.Is(err, ErrAway) {
		t.Errorf("%v", err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the line broke") }

func TestObject(t *testing.T) {
	b, err := object([]byte("a"), []byte("1\"\x01"), []byte("b"), []byte("ü"))
	if err != nil || string(b) != `{"a":"1\"\u0001","b":"ü"}` {
		t.Errorf("%s, %v", b, err)
	}
	if b, err := object(); err != nil || string(b) != "{}" {
		t.Errorf("%s, %v", b, err)
	}
	if _, err := object([]byte("a"), []byte{0xff}); !errors.Is(err, ErrConfig) {
		t.Errorf("%v", err)
	}
	// It never grows: what it grew out of would be left behind.
	worst := bytes.Repeat([]byte{1}, 300)
	if b, err := object([]byte("a"), worst); err != nil || cap(b) > 2+6*301+8+64 {
		t.Errorf("%d of %d bytes, %v", len(b), cap(b), err)
	}
}

// A server's words are repeated only if there is nothing of ours in them.
func TestFaultRepeatsNoSecret(t *testing.T) {
	const secret = "s3cr3t-id"
	for said, want := range map[string]string{
		"invalid role or secret ID":                    "invalid role or secret ID",
		"1 error occurred:\n\t* permission denied\n\n": "permission denied",
		"no such secret id: " + secret:                 "",
		strings.Repeat("x", 300):                       "",
	} {
		e := fault("logging in", "auth/approle/login", &api.ResponseError{StatusCode: 400, Errors: []string{said}}, ErrLogin, []byte(secret))
		if e.Said != want || !errors.Is(e, ErrLogin) || strings.Contains(fmt.Sprintf("%v %+v %#v", e, e, e), secret) {
			t.Errorf("%q is repeated as %q: %v", said, e.Said, e)
		}
	}
	raw := fault("logging in", "x", &api.ResponseError{StatusCode: 502, RawError: true, Errors: []string{secret}}, ErrLogin)
	if raw.Said != "" || !errors.Is(raw, ErrAway) {
		t.Errorf("%v", raw)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, text := range []string{kv, `{"auth":{"client_token":"hvs.x","lease_duration":5,"renewable":true}}`, `{"data":{"data":{}}}`, `[`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		a := answer(text)
		if pin, err := a.secret("data", "data", "pin"); err == nil && (len(pin) == 0 || len(pin) > maxSecret || bytes.ContainsAny(pin, "\x00\n")) {
			t.Fatalf("%q", pin)
		} else if err != nil && !errors.Is(err, ErrAnswer) && !errors.Is(err, ErrField) {
			t.Fatalf("%v is of another kind", err)
		}
		var n int
		if err := a.public(&n, "auth", "lease_duration"); err != nil && !errors.Is(err, ErrAnswer) {
			t.Fatalf("%v is of another kind", err)
		}
	})
}
